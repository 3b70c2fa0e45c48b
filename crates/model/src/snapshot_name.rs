//! Names of snapshots and of the two files a job can leave.

use std::fmt;

use chrono::{DateTime, Utc};

use crate::cell::CellName;

/// The rule a snapshot name must follow, as Personium prints it in its error text.
pub const PATTERN: &str = "^[a-zA-Z0-9-_]{1,192}$";

/// A snapshot's name without extension. The only text of a client that names a snapshot; it never becomes a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SnapshotName(String);

impl SnapshotName {
    /// Returns the name, or nothing when it breaks [`PATTERN`].
    pub fn parse(text: &str) -> Option<Self> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        ((1..=192).contains(&text.len()) && text.bytes().all(legal)).then(|| Self(text.to_owned()))
    }

    /// The name a snapshot gets when the client gives none: `{cell}_yyyyMMdd_HHmmss`, in UTC.
    pub fn default_for(cell: &CellName, now: DateTime<Utc>) -> Self {
        Self(format!("{cell}_{}", now.format("%Y%m%d_%H%M%S")))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SnapshotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which of its two files a job left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// `NAME.zip`: the snapshot.
    Zip,
    /// `NAME.error`: why there is none.
    Error,
}

impl FileKind {
    /// The extension with its dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Zip => ".zip",
            Self::Error => ".error",
        }
    }

    /// The media type the file is served with.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Zip => "application/zip",
            Self::Error => "application/json",
        }
    }
}

/// A file of the snapshot area as a client names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFileName {
    /// Name without extension.
    pub base: SnapshotName,
    /// Extension.
    pub kind: FileKind,
}

impl SnapshotFileName {
    /// Returns the file's name, or nothing when no file of the area can have it.
    pub fn parse(text: &str) -> Option<Self> {
        [FileKind::Zip, FileKind::Error].into_iter().find_map(|kind| {
            let base = SnapshotName::parse(text.strip_suffix(kind.extension())?)?;
            Some(Self { base, kind })
        })
    }
}

impl fmt::Display for SnapshotFileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.base, self.kind.extension())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_pattern() {
        for good in ["-", "_", "A", "a-b_9", &"x".repeat(192)] {
            assert!(SnapshotName::parse(good).is_some(), "{good}");
        }
        for bad in ["", "a.b", "a b", "a\n", "あ", "a/b", "..", &"x".repeat(193)] {
            assert!(SnapshotName::parse(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn the_default_name_is_the_cell_and_the_second() {
        let cell = CellName::parse("cell1").expect("a legal name");
        let now = "2026-11-23T07:24:59.999Z".parse().expect("a time");
        assert_eq!(SnapshotName::default_for(&cell, now).as_str(), "cell1_20261123_072459");
    }

    #[test]
    fn only_two_extensions_exist() {
        let name = SnapshotFileName::parse("a.error").expect("a legal name");
        assert_eq!((name.kind, name.to_string()), (FileKind::Error, "a.error".to_owned()));
        for bad in ["a", ".zip", "a.ZIP", "a.zip/", "a.b.zip", "../a.zip", "a.txt"] {
            assert!(SnapshotFileName::parse(bad).is_none(), "{bad}");
        }
    }
}
