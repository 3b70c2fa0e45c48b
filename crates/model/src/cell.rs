//! Names and ids of cells.

use std::fmt;

/// Name of a cell as it stands in a cell URL: looked up with `^[a-zA-Z0-9][a-zA-Z0-9-_]{0,127}$`
/// (stricter rules apply where cells are made).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellName(String);

impl CellName {
    /// Returns the name, or nothing when no cell can have it.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let legal = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        let ok = (1..=128).contains(&bytes.len()) && bytes[0].is_ascii_alphanumeric() && bytes.iter().all(legal);
        ok.then(|| Self(text.to_owned()))
    }

    /// Returns the name of a cell that is to be made: `^[a-z0-9][a-z0-9-]{0,127}$`.
    pub fn parse_new(text: &str) -> Option<Self> {
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        Self::parse(text).filter(|_| text.bytes().all(legal))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CellName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Internal id of a cell, also the id of its main box: base64url characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CellId(String);

impl CellId {
    /// Returns the id, or nothing when the text is none.
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() <= 64 && is_id(text)).then(|| Self(text.to_owned()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CellId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Tells whether a text can be the id of a document, a node or a cell: `[A-Za-z0-9_-]+`.
pub fn is_id(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cell_names_follow_the_lookup_rule() {
        for good in ["a", "A", "9", "cell-1_x", &"x".repeat(128)] {
            assert!(CellName::parse(good).is_some(), "{good}");
        }
        for bad in ["", "-a", "_a", "a b", "a.b", "a/b", "é", "a\n", &"x".repeat(129)] {
            assert!(CellName::parse(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn new_cells_have_lower_case_names() {
        assert!(CellName::parse_new("cell-1").is_some());
        for bad in ["Cell", "a_b", "-a", ""] {
            assert!(CellName::parse_new(bad).is_none(), "{bad:?}");
        }
    }
}
