//! The document of a job, as `GET {cell}__export/jobs/{id}` answers it: docs/http.md.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::error_code::ErrorBody;

/// A job. Times are RFC 3339 in UTC with milliseconds.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct JobReport {
    /// Id of the job.
    pub id: Uuid,
    /// `export`, `import` or `dry-run`.
    pub kind: String,
    /// Name of the snapshot, without extension.
    pub name: String,
    /// `queued`, `running`, `succeeded`, `failed` or `cancelled`.
    pub state: String,
    /// Attempts so far.
    pub attempt: i32,
    /// Somebody asked for it to end.
    pub cancel_requested: bool,
    /// 1 is the next one; only of a queued job.
    pub queue_position: Option<i64>,
    /// Never falls; 100 when the job has succeeded, not before.
    pub percent: u8,
    /// Documents.
    pub documents: Counted,
    /// File contents.
    pub files: Counted,
    /// Uncompressed bytes; the total is an estimate while a cell is exported.
    pub bytes: Counted,
    /// Of the current attempt, while it runs.
    pub bytes_per_second: Option<u64>,
    /// When it was accepted.
    pub accepted_at: String,
    /// When the first attempt began.
    pub started_at: Option<String>,
    /// The last sign of life of its worker, while it runs.
    pub heartbeat_at: Option<String>,
    /// When it will have ended, if it goes on like this.
    pub estimated_end: Option<String>,
    /// When it ended.
    pub finished_at: Option<String>,
    /// Why it failed.
    pub error: Option<ErrorBody>,
    /// Length of the finished snapshot in bytes.
    pub size: Option<u64>,
    /// SHA-256 of the finished snapshot, hexadecimal.
    pub sha256: Option<String>,
    /// URL of the file that an export left, while it is there.
    pub file: Option<String>,
    /// What an import did or a dry run found.
    #[schemars(with = "Option<serde_json::Map<String, serde_json::Value>>")]
    pub result: Option<Box<RawValue>>,
    /// URL of this document.
    #[serde(rename = "self")]
    pub own: String,
    /// URL of its events.
    pub events: String,
}

/// How many of how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Counted {
    /// So far, by the current attempt.
    pub done: u64,
    /// In the end; nothing before it was counted.
    pub total: Option<u64>,
}

/// A page of a cell's jobs.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct JobList {
    /// Newest first.
    pub jobs: Vec<JobReport>,
    /// URL of the next page, if there is one.
    pub next: Option<String>,
}
