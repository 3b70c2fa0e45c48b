//! Who the cell was in the snapshot, and who it becomes.

use model::cell::{CellId, is_id};
use model::layout;
use serde_json::Value;

use super::LoadOptions;
use super::document::check_envelope;
use super::error::LoadError;

/// The cell's old id, and everything about the new cell.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    /// Id in the snapshot.
    pub(super) old_id: String,
    /// Id in the store.
    pub(super) id: CellId,
    /// Name in the store.
    pub(super) name: String,
    /// Owner in the store.
    pub(super) owner: Option<String>,
    /// The cell document to be stored: verbatim unless something about it changes.
    pub(super) document: String,
}

impl Identity {
    /// Checks the cell document and works out the new identity.
    pub(super) fn new((text, value): &(String, Value), options: &LoadOptions) -> Result<Self, LoadError> {
        let bad = |what: &str| LoadError::entry(layout::CELL, what);
        check_envelope(value, "Cell").map_err(|what| LoadError::entry(layout::CELL, what))?;
        let source = &value["_source"];
        if !source["h"].is_object() {
            return Err(bad("_source.h is missing"));
        }
        let Some(old_name) = source["s"]["Name"].as_str() else { return Err(bad("_source.s.Name is missing")) };
        let owner = &source["h"]["Owner"];
        if !owner.is_null() && !owner.is_string() {
            return Err(bad("_source.h.Owner is not a string"));
        }
        let old_owner = owner.as_str().map(str::to_owned);
        let old_id = value["_id"].as_str().unwrap_or_default().to_owned();
        if source["c"].as_str().is_some_and(|c| c != old_id) {
            return Err(bad("_source.c differs from _id"));
        }
        let id = match &options.cell_id {
            Some(id) => id.clone(),
            None => CellId::parse(&old_id).filter(|_| is_id(&old_id)).ok_or_else(|| bad("_id is too long"))?,
        };
        let (name, owner) = (options.cell.to_string(), options.owner.clone().or_else(|| old_owner.clone()));
        let same = name == old_name && owner == old_owner && id.as_str() == old_id;
        let document = if same {
            text.trim_end_matches(['\r', '\n']).to_owned()
        } else {
            let mut new = value.clone();
            new["_id"] = id.as_str().into();
            new["_source"]["s"]["Name"] = name.as_str().into();
            if let Some(owner) = &owner {
                new["_source"]["h"]["Owner"] = owner.as_str().into();
            }
            if new["_source"]["c"].is_string() {
                new["_source"]["c"] = id.as_str().into();
            }
            new.to_string()
        };
        if document.contains(['\n', '\r']) {
            // A line is what an export writes; line ends between tokens carry no meaning.
            let document = value.to_string();
            return Ok(Self { old_id, id, name, owner, document });
        }
        Ok(Self { old_id, id, name, owner, document })
    }

    /// Tells whether documents have to be changed.
    pub(super) fn is_remapped(&self) -> bool {
        self.old_id != self.id.as_str()
    }
}
