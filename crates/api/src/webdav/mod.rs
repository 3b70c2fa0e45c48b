//! WebDAV: reading PROPFIND, writing its answer. Values in, text out.

use chrono::{DateTime, Utc};

pub(crate) mod acl;
pub(crate) mod multistatus;
pub(crate) mod pmeta;
pub(crate) mod propfind;

/// A time as HTTP writes it (RFC 9110, section 5.6.7).
pub(crate) fn http_date(time: DateTime<Utc>) -> String {
    time.format("%a, %d %b %Y %H:%M:%S GMT").to_string()
}
