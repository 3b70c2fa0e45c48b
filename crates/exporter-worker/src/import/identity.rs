//! Who the cell was in the snapshot and who it becomes, and what every id becomes with it.
//!
//! Into the cell it was taken from, a snapshot goes with the ids it has. In any other cell each id becomes another one:
//! two cells must not share ids. The new id is a digest of the old one and of the new cell's id, so every reference can
//! be changed where it stands, forward or backward, without a list of all ids; and the same snapshot always becomes the
//! same cell.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use model::cell::{CellId, is_id};
use model::layout;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::error::ImportError;

/// The cell that a snapshot becomes.
#[derive(Debug, Clone, Default)]
pub struct NewCell {
    /// Its id; the snapshot's own when absent.
    pub id: Option<CellId>,
    /// Its name; the snapshot's own when absent.
    pub name: Option<String>,
    /// Its owner.
    pub owner: Owner,
}

/// Whose the cell will be.
#[derive(Debug, Clone, Default)]
pub enum Owner {
    /// The snapshot's.
    #[default]
    Same,
    /// This one, or nobody.
    Is(Option<String>),
}

/// The cell's old id, and everything about the new cell.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Id in the snapshot.
    pub old_id: String,
    /// Id in the store.
    pub id: CellId,
    /// Name in the store.
    pub name: String,
    /// Owner in the store.
    pub owner: Option<String>,
    /// The cell document to be stored: verbatim unless something about it changes.
    pub document: String,
}

impl Identity {
    /// Checks a cell document and works out the new identity. `value` is `text` as JSON.
    pub(super) fn new(text: &str, value: &Value, new: &NewCell) -> Result<Self, ImportError> {
        let bad = |what: &str| ImportError::entry(layout::CELL, what);
        let source = &value["_source"];
        let Some(old_name) = source["s"]["Name"].as_str() else { return Err(bad("_source.s.Name is missing")) };
        if !source["h"].is_object() {
            return Err(bad("_source.h is missing"));
        }
        let owner = &source["h"]["Owner"];
        if !owner.is_null() && !owner.is_string() {
            return Err(bad("_source.h.Owner is not a string"));
        }
        let old_owner = owner.as_str().map(str::to_owned);
        let old_id = value["_id"].as_str().unwrap_or_default().to_owned();
        if source["c"].as_str().is_some_and(|c| c != old_id) {
            return Err(bad("_source.c differs from _id"));
        }
        let id = match &new.id {
            Some(id) => id.clone(),
            None => CellId::parse(&old_id).ok_or_else(|| bad("_id is too long"))?,
        };
        let name = new.name.clone().unwrap_or_else(|| old_name.to_owned());
        let owner = match &new.owner {
            Owner::Same => old_owner.clone(),
            Owner::Is(owner) => owner.clone(),
        };
        let same = name == old_name && owner == old_owner && id.as_str() == old_id;
        let verbatim = text.trim_end_matches(['\r', '\n']);
        // A line is what an export writes; line ends between tokens carry no meaning.
        let document = if same && !verbatim.contains(['\n', '\r']) {
            verbatim.to_owned()
        } else {
            document(value.clone(), &id, &name, owner.as_deref())
        };
        Ok(Self { old_id, id, name, owner, document })
    }

    /// Tells whether the cell is another one than the snapshot's.
    pub fn is_remapped(&self) -> bool {
        self.old_id != self.id.as_str()
    }

    /// What an id becomes. The main box has the cell's id. Text that is no id stays.
    pub fn map(&self, id: &str) -> String {
        if !self.is_remapped() || !is_id(id) {
            return id.to_owned();
        }
        if id == self.old_id {
            return self.id.to_string();
        }
        // No id holds a space, so no two pairs make the same text.
        let digest = Sha256::new().chain_update(self.id.as_str()).chain_update(" ").chain_update(id).finalize();
        URL_SAFE_NO_PAD.encode(&digest[..16])
    }

    /// What a path below the cell becomes: its first name is a box's id, or stands for the main box.
    pub fn map_path(&self, path: &str) -> String {
        let (first, rest) = path.split_at(path.find('/').unwrap_or(path.len()));
        if first == layout::MAIN_BOX { path.to_owned() } else { format!("{}{rest}", self.map(first)) }
    }
}

fn document(mut new: Value, id: &CellId, name: &str, owner: Option<&str>) -> String {
    new["_id"] = id.as_str().into();
    new["_source"]["s"]["Name"] = name.into();
    match owner {
        Some(owner) => new["_source"]["h"]["Owner"] = owner.into(),
        None => {
            if let Some(hidden) = new["_source"]["h"].as_object_mut() {
                hidden.remove("Owner");
            }
        }
    }
    if new["_source"]["c"].is_string() {
        new["_source"]["c"] = id.as_str().into();
    }
    new.to_string()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn identity(new: &str) -> Identity {
        Identity {
            old_id: "old-id".to_owned(),
            id: CellId::parse(new).expect("an id"),
            name: String::new(),
            owner: None,
            document: String::new(),
        }
    }

    #[test]
    fn within_the_same_cell_ids_stay() {
        let same = identity("old-id");
        assert_eq!((same.map("x"), same.map_path("box/a/b")), ("x".to_owned(), "box/a/b".to_owned()));
    }

    #[test]
    fn in_another_cell_every_id_is_another_one_and_always_the_same() {
        let (a, b) = (identity("cell-a"), identity("cell-b"));
        assert_eq!(a.map("old-id"), "cell-a");
        assert_eq!(a.map("role"), a.map("role"));
        assert_ne!(a.map("role"), b.map("role"));
        assert_ne!(a.map("role"), a.map("role2"));
        assert!(is_id(&a.map("role")) && a.map("role").len() == 22);
        assert_eq!(a.map("https://x/"), "https://x/", "no id");
        assert_eq!(a.map_path("__/role/x"), "__/role/x");
        assert_eq!(a.map_path("role/role"), format!("{}/role", a.map("role")));
        assert_eq!(a.map_path(""), "");
    }
}
