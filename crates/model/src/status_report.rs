//! The document of `GET {cell}__export`.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;

use crate::job::Progress;
use crate::snapshot_name::SnapshotName;

/// What an export of the cell is doing, in the words old clients know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum StatusReport {
    /// No export is under way; its result, if any, is listed.
    Ready {
        /// Always `ready`.
        status: &'static str,
    },
    /// An export is queued or running.
    InProgress {
        /// Always `exportation in progress`.
        status: &'static str,
        /// When the request was accepted, UTC with milliseconds.
        started_at: String,
        /// Integer and `%`; never 100, because what is finished is listed.
        progress: String,
        /// Name of the snapshot, without extension.
        exportation_name: String,
    },
}

impl StatusReport {
    /// The report when nothing is under way.
    pub fn ready() -> Self {
        Self::Ready { status: "ready" }
    }

    /// The report of an accepted job that is not final.
    pub fn in_progress(name: &SnapshotName, accepted_at: DateTime<Utc>, progress: &Progress) -> Self {
        Self::InProgress {
            status: "exportation in progress",
            started_at: accepted_at.to_rfc3339_opts(SecondsFormat::Millis, true),
            progress: format!("{}%", progress.percent()),
            exportation_name: name.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_read_as_the_contract_says() {
        let ready = serde_json::to_string(&StatusReport::ready()).expect("json");
        assert_eq!(ready, r#"{"status":"ready"}"#);
        let name = SnapshotName::parse("prog1").expect("a name");
        let at = "2026-11-23T07:25:40.643Z".parse().expect("a time");
        let report = StatusReport::in_progress(&name, at, &Progress::default());
        assert_eq!(
            serde_json::to_string(&report).expect("json"),
            r#"{"status":"exportation in progress","started_at":"2026-11-23T07:25:40.643Z","progress":"0%","exportation_name":"prog1"}"#
        );
    }
}
