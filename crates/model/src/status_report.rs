//! The documents of `GET {cell}__export`, `GET {cell}__import` and `GET {cell}__import/dry-run`.

use chrono::{DateTime, SecondsFormat, Utc};
use schemars::JsonSchema;
use serde::Serialize;

use serde_json::value::RawValue;

use crate::error_code::ErrorBody;
use crate::job::JobKind;
use crate::snapshot_name::SnapshotName;

/// What a job of the cell is doing, in the words old clients know.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum StatusReport {
    /// No export is under way; its result, if any, is listed.
    Ready {
        /// Always `ready`.
        status: &'static str,
    },
    /// An export is queued or running.
    Exporting {
        /// Always `exportation in progress`.
        status: &'static str,
        /// When the request was accepted, UTC with milliseconds.
        started_at: String,
        /// Integer and `%`; never 100, because what is finished is listed.
        progress: String,
        /// Name of the snapshot, without extension.
        exportation_name: String,
    },
    /// An import, or a dry run of one, is queued, running, failed or (a dry run only) finished.
    Importing {
        /// `importation in progress`, `import failed`; `dry run in progress`, `dry run failed`, `dry run finished`.
        status: &'static str,
        /// When the request was accepted, UTC with milliseconds.
        started_at: String,
        /// Integer and `%`.
        progress: String,
        /// Name of the snapshot, without extension.
        importation_name: String,
        /// Why it failed: an error document.
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<ErrorBody>,
        /// What the dry run found: a JSON object.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<serde_json::Map<String, serde_json::Value>>")]
        result: Option<Box<RawValue>>,
    },
}

/// A job as a report shows it.
#[derive(Debug, Clone)]
pub struct Reported<'a> {
    /// What it does.
    pub kind: JobKind,
    /// Name of the snapshot.
    pub name: &'a SnapshotName,
    /// When it was accepted.
    pub accepted_at: DateTime<Utc>,
    /// How far it is, or was, in percent.
    pub percent: u8,
}

impl Reported<'_> {
    fn import(&self, status: &'static str, message: Option<ErrorBody>, result: Option<Box<RawValue>>) -> StatusReport {
        // With a result all was read.
        let percent = if result.is_some() { 100 } else { self.percent };
        StatusReport::Importing {
            status,
            started_at: self.accepted_at.to_rfc3339_opts(SecondsFormat::Millis, true),
            progress: format!("{percent}%"),
            importation_name: self.name.to_string(),
            message,
            result,
        }
    }
}

impl StatusReport {
    /// The report when nothing is under way.
    pub fn ready() -> Self {
        Self::Ready { status: "ready" }
    }

    /// The report of an accepted job that is not final.
    pub fn in_progress(job: &Reported<'_>) -> Self {
        match job.kind {
            JobKind::Export => Self::Exporting {
                status: "exportation in progress",
                started_at: job.accepted_at.to_rfc3339_opts(SecondsFormat::Millis, true),
                progress: format!("{}%", job.percent),
                exportation_name: job.name.to_string(),
            },
            JobKind::Import => job.import("importation in progress", None, None),
            JobKind::DryRun => job.import("dry run in progress", None, None),
        }
    }

    /// The report of an import or a dry run that failed.
    pub fn failed(job: &Reported<'_>, error: Option<ErrorBody>) -> Self {
        let status = if job.kind == JobKind::DryRun { "dry run failed" } else { "import failed" };
        job.import(status, error, None)
    }

    /// The report of a finished dry run. `found` is a JSON object.
    pub fn found(job: &Reported<'_>, found: &str) -> Self {
        job.import("dry run finished", None, RawValue::from_string(found.to_owned()).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_read_as_the_contract_says() {
        let ready = serde_json::to_string(&StatusReport::ready()).expect("json");
        assert_eq!(ready, r#"{"status":"ready"}"#);
        let name = SnapshotName::parse("prog1").expect("a name");
        let at = "2026-11-23T07:25:40.643Z".parse().expect("a time");
        let mut job = Reported { kind: JobKind::Export, name: &name, accepted_at: at, percent: 0 };
        let report = StatusReport::in_progress(&job);
        assert_eq!(
            serde_json::to_string(&report).expect("json"),
            r#"{"status":"exportation in progress","started_at":"2026-11-23T07:25:40.643Z","progress":"0%","exportation_name":"prog1"}"#
        );
        job.kind = JobKind::Import;
        let text = |report: &StatusReport| serde_json::to_string(report).expect("json");
        assert_eq!(
            text(&StatusReport::in_progress(&job)),
            r#"{"status":"importation in progress","started_at":"2026-11-23T07:25:40.643Z","progress":"0%","importation_name":"prog1"}"#
        );
        let failed = text(&StatusReport::failed(&job, Some(crate::error_code::ErrorCode::EntityExists.body())));
        assert!(failed.starts_with(r#"{"status":"import failed","#), "{failed}");
        assert!(
            failed.ends_with(
                r#""message":{"code":"PR409-OD-0003","message":{"lang":"en","value":"The entity already exists."}}}"#
            ),
            "{failed}"
        );
        job.kind = JobKind::DryRun;
        let found = text(&StatusReport::found(&job, r#"{"importable":true}"#));
        assert!(
            found.ends_with(r#""progress":"100%","importation_name":"prog1","result":{"importable":true}}"#),
            "{found}"
        );
    }
}
