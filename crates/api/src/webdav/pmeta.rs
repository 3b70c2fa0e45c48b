//! The metadata of a cell's root, as far as a listing shows it.

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::Value;

use super::acl::Acl;

/// What a listing shows of a cell.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pmeta {
    pub(crate) created: DateTime<Utc>,
    pub(crate) updated: DateTime<Utc>,
    pub(crate) version: i64,
    /// `normal`, or why not.
    pub(crate) status: String,
    pub(crate) acl: Acl,
    /// Properties that a client put there: each the XML text of its element.
    pub(crate) properties: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Fields {
    p: Option<i64>,
    u: Option<i64>,
    v: Option<i64>,
    cs: Option<String>,
    a: Option<Value>,
    d: Option<serde_json::Map<String, Value>>,
}

impl Pmeta {
    /// Reads a `.pmeta`. What is missing or unreadable is left at its default: a listing must not fail for it.
    pub(crate) fn parse(text: &str) -> Self {
        let fields: Fields = serde_json::from_str(text).unwrap_or_default();
        let time = |millis: Option<i64>| DateTime::from_timestamp_millis(millis.unwrap_or(0)).unwrap_or_default();
        let properties = fields.d.unwrap_or_default();
        Self {
            created: time(fields.p),
            updated: time(fields.u),
            version: fields.v.unwrap_or(0),
            status: fields.cs.unwrap_or_else(|| "normal".to_owned()),
            acl: Acl::parse(&fields.a.unwrap_or_default()),
            properties: properties.values().filter_map(|v| v.as_str().map(str::to_owned)).collect(),
        }
    }

    /// The entity tag of the cell, with its quotes.
    pub(crate) fn etag(&self) -> String {
        format!("\"{}-{}\"", self.version, self.updated.timestamp_millis())
    }
}
