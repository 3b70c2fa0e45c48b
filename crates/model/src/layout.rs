//! The layout of a version-2 cell snapshot: entry names, their order, the manifest.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The version of the snapshot format that is written.
pub const EXPORT_VERSION: i64 = 2;
/// A version of the snapshot format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotVersion {
    /// Found in files of 2018 and early 2019: all documents in one entry. Read only.
    One,
    /// One entry per type.
    Two,
}

impl SnapshotVersion {
    /// All versions.
    pub const ALL: [Self; 2] = [Self::One, Self::Two];

    /// The number in the manifest.
    pub fn number(self) -> i64 {
        match self {
            Self::One => 1,
            Self::Two => EXPORT_VERSION,
        }
    }
}

/// The documents of all types in a version-1 snapshot.
pub const DOCUMENTS_V1: &str = "10_odata/10_data.pjson";
/// Directory of the documents.
pub const ODATA_DIR: &str = "10_odata/";
/// Directory of the file tree.
pub const WEBDAV_DIR: &str = "20_webdav/";
/// The manifest.
pub const MANIFEST: &str = "00_manifest.json";
/// The cell document.
pub const CELL: &str = "10_odata/00_cell.json";
/// Size and SHA-256 of every other entry; Personium's importer ignores it.
pub const INTEGRITY: &str = "99_integrity.json";
/// Name of the main box's directory, as first name of a path only.
pub const MAIN_BOX: &str = "__";
/// A node's metadata.
pub const PMETA: &str = ".pmeta";
/// A file's bytes.
pub const CONTENT: &str = "content";
/// Top-level directories that are never exported: the cell's keys and the record of its logins.
pub const SECRET_DIRS: [&str; 2] = [".pkeys", ".pauthhistory"];
/// Plain files that a unit may leave in the tree; copied as they are.
pub const LEFTOVERS: [&str; 2] = ["import.error", "tmp"];

/// The entity types, in the order of their entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names are Personium's own")]
pub enum DocumentType {
    Box,
    Account,
    ExtCell,
    Role,
    Rule,
    Relation,
    SentMessage,
    ReceivedMessage,
    ExtRole,
    EntityType,
    ComplexType,
    Property,
    ComplexTypeProperty,
    AssociationEnd,
    UserData,
    Link,
}

impl DocumentType {
    /// All types, in snapshot order.
    pub const ALL: [Self; 16] = [
        Self::Box,
        Self::Account,
        Self::ExtCell,
        Self::Role,
        Self::Rule,
        Self::Relation,
        Self::SentMessage,
        Self::ReceivedMessage,
        Self::ExtRole,
        Self::EntityType,
        Self::ComplexType,
        Self::Property,
        Self::ComplexTypeProperty,
        Self::AssociationEnd,
        Self::UserData,
        Self::Link,
    ];

    /// The type's name in documents (`_type`) and in the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Box => "Box",
            Self::Account => "Account",
            Self::ExtCell => "ExtCell",
            Self::Role => "Role",
            Self::Rule => "Rule",
            Self::Relation => "Relation",
            Self::SentMessage => "SentMessage",
            Self::ReceivedMessage => "ReceivedMessage",
            Self::ExtRole => "ExtRole",
            Self::EntityType => "EntityType",
            Self::ComplexType => "ComplexType",
            Self::Property => "Property",
            Self::ComplexTypeProperty => "ComplexTypeProperty",
            Self::AssociationEnd => "AssociationEnd",
            Self::UserData => "UserData",
            Self::Link => "link",
        }
    }

    /// Returns the type of a name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.name() == name)
    }

    /// The entry that holds the documents of this type.
    pub const fn entry(self) -> &'static str {
        match self {
            Self::Box => "10_odata/10_box.pjson",
            Self::Account => "10_odata/11_account.pjson",
            Self::ExtCell => "10_odata/12_extcell.pjson",
            Self::Role => "10_odata/20_role.pjson",
            Self::Rule => "10_odata/21_rule.pjson",
            Self::Relation => "10_odata/22_relation.pjson",
            Self::SentMessage => "10_odata/23_sentmessage.pjson",
            Self::ReceivedMessage => "10_odata/24_receivedmessage.pjson",
            Self::ExtRole => "10_odata/30_extrole.pjson",
            Self::EntityType => "10_odata/40_entitytype.pjson",
            Self::ComplexType => "10_odata/41_complextype.pjson",
            Self::Property => "10_odata/50_property.pjson",
            Self::ComplexTypeProperty => "10_odata/51_complextypeproperty.pjson",
            Self::AssociationEnd => "10_odata/60_associationend.pjson",
            Self::UserData => "10_odata/70_userdata.pjson",
            Self::Link => "10_odata/80_link.pjson",
        }
    }

    /// Place in [`Self::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for DocumentType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// `00_manifest.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Always the integer [`EXPORT_VERSION`].
    pub export_version: i64,
    /// Base URL of the unit that wrote the snapshot, with a trailing slash. Never read back.
    pub unit_url: String,
    /// Epoch milliseconds of the view the snapshot shows.
    pub create_date: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_in_order_and_types_know_their_place() {
        let names: Vec<_> = DocumentType::ALL.iter().map(|t| t.entry()).collect();
        assert!(names.is_sorted());
        for (i, t) in DocumentType::ALL.into_iter().enumerate() {
            assert_eq!(t.index(), i);
            assert_eq!(DocumentType::parse(t.name()), Some(t));
        }
    }
}
