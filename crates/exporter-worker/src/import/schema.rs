//! Which fields the documents of each type have, and of which kind: the tables of the snapshot format.

use model::layout::DocumentType;

use super::fields::Kind;

/// Declared fields (`_source.s`) that must be there.
pub(super) fn required(of: DocumentType) -> &'static [(&'static str, Kind)] {
    use DocumentType as T;
    match of {
        T::Box | T::Account | T::Role | T::Rule | T::Relation | T::EntityType | T::ComplexType => {
            &[("Name", Kind::String)]
        }
        T::ExtCell => &[("Url", Kind::String)],
        T::SentMessage | T::ReceivedMessage | T::UserData => &[("__id", Kind::String)],
        T::ExtRole => &[("ExtRole", Kind::String)],
        T::Property | T::ComplexTypeProperty => &[("Name", Kind::String), ("Type", Kind::String)],
        T::AssociationEnd => &[("Name", Kind::String), ("Multiplicity", Kind::String)],
        T::Link => &[],
    }
}

/// Declared fields that may be there. Others are kept as they are: a later unit may know more.
pub(super) fn optional(of: DocumentType) -> &'static [(&'static str, Kind)] {
    use DocumentType as T;
    match of {
        T::Box => &[("Schema", Kind::String)],
        T::Account => &[
            ("Type", Kind::String),
            ("Cell", Kind::String),
            ("IPAddressRange", Kind::String),
            ("Status", Kind::String),
        ],
        T::Rule => &[
            ("EventExternal", Kind::Boolean),
            ("EventSubject", Kind::String),
            ("EventType", Kind::String),
            ("EventObject", Kind::String),
            ("EventInfo", Kind::String),
            ("Action", Kind::String),
            ("TargetUrl", Kind::String),
        ],
        T::SentMessage => &[
            ("InReplyTo", Kind::String),
            ("To", Kind::String),
            ("ToRelation", Kind::String),
            ("Type", Kind::String),
            ("Title", Kind::String),
            ("Body", Kind::String),
            ("Priority", Kind::Number),
            ("RequestObjects", Kind::Array),
            ("Result", Kind::Array),
        ],
        T::ReceivedMessage => &[
            ("InReplyTo", Kind::String),
            ("From", Kind::String),
            ("MulticastTo", Kind::String),
            ("Type", Kind::String),
            ("Title", Kind::String),
            ("Body", Kind::String),
            ("Priority", Kind::Number),
            ("Status", Kind::String),
            ("RequestObjects", Kind::Array),
        ],
        T::Property => &[
            ("Nullable", Kind::Boolean),
            ("DefaultValue", Kind::String),
            ("CollectionKind", Kind::String),
            ("IsKey", Kind::Boolean),
            ("UniqueKey", Kind::String),
            ("IsDeclared", Kind::Boolean),
        ],
        T::ComplexTypeProperty => &[
            ("Nullable", Kind::Boolean),
            ("DefaultValue", Kind::String),
            ("CollectionKind", Kind::String),
            ("IsDeclared", Kind::Boolean),
        ],
        T::ExtCell
        | T::Role
        | T::Relation
        | T::ExtRole
        | T::EntityType
        | T::ComplexType
        | T::AssociationEnd
        | T::UserData
        | T::Link => &[],
    }
}

/// Hidden fields (`_source.h`), and whether they must be there.
pub(super) fn hidden(of: DocumentType) -> &'static [(&'static str, bool)] {
    use DocumentType as T;
    match of {
        T::Account => &[("HashedCredential", false), ("HashAlgorithm", false), ("HashAttributes", false)],
        T::Property | T::ComplexTypeProperty => &[("Alias", true)],
        T::Box
        | T::ExtCell
        | T::Role
        | T::Rule
        | T::Relation
        | T::SentMessage
        | T::ReceivedMessage
        | T::ExtRole
        | T::EntityType
        | T::ComplexType
        | T::AssociationEnd
        | T::UserData
        | T::Link => &[],
    }
}

/// References (`_source.l`) that a document may have, and whether it must.
pub(super) fn references(of: DocumentType) -> &'static [(&'static str, bool)] {
    use DocumentType as T;
    match of {
        T::Role | T::Rule | T::Relation | T::SentMessage | T::ReceivedMessage => &[("Box", false)],
        T::ExtRole => &[("Relation", true)],
        T::Property => &[("EntityType", true)],
        T::ComplexTypeProperty => &[("ComplexType", true)],
        T::AssociationEnd => &[("EntityType", true), ("AssociationEnd", false)],
        T::Box | T::Account | T::ExtCell | T::EntityType | T::ComplexType | T::UserData | T::Link => &[],
    }
}

/// Tells whether a document belongs to an OData collection of a box.
pub(super) fn is_box_level(of: DocumentType) -> bool {
    use DocumentType as T;
    matches!(
        of,
        T::EntityType | T::ComplexType | T::Property | T::ComplexTypeProperty | T::AssociationEnd | T::UserData
    )
}
