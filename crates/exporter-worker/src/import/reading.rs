//! One snapshot, read from its beginning to its end into a sink. Synchronous: decompressing and checking block.

use std::collections::BTreeMap;

use model::job::Amount;
use model::layout::{self, DocumentType, SnapshotVersion};
use model::limits;

use super::archive::Archive;
use super::document;
use super::error::{Faults, ImportError};
use super::identity::Identity;
use super::lines;
use super::pmeta::{self, Surroundings};
use super::sink::{Content, Sink};
use crate::control::Control;

/// What a snapshot holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Documents of each type, in the order of [`DocumentType::ALL`].
    pub documents: [u64; DocumentType::ALL.len()],
    /// File contents.
    pub files: u64,
    /// Nodes without contents.
    pub collections: u64,
    /// Bytes of file contents.
    pub file_bytes: u64,
    /// Bytes of documents, line ends included.
    pub document_bytes: u64,
    /// Links that an importer had damaged.
    pub repaired_links: u64,
    /// Entries that were left out.
    pub left_out: u64,
}

impl Summary {
    /// All of it.
    pub fn amount(&self) -> Amount {
        Amount {
            documents: self.documents.iter().sum(),
            files: self.files,
            bytes: self.file_bytes + self.document_bytes,
        }
    }
}

/// Reads everything: the file tree, then the documents.
pub(super) fn read(
    mut archive: Archive,
    identity: &Identity,
    control: &Control,
    faults: &mut Faults,
    sink: &mut impl Sink,
) -> Result<Summary, ImportError> {
    let summary = Summary::default();
    let mut reading = Reading { archive: &mut archive, identity, control, faults, sink, summary, left_out_file: None };
    reading.tree()?;
    reading.documents()?;
    reading.compare_counts()?;
    reading.sink.end()?;
    Ok(reading.summary)
}

struct Reading<'a, S> {
    archive: &'a mut Archive,
    identity: &'a Identity,
    control: &'a Control,
    faults: &'a mut Faults,
    sink: &'a mut S,
    summary: Summary,
    /// Size of a file that the integrity entry counts and the summary does not.
    left_out_file: Option<u64>,
}

/// What an archive holds at one path: indexes of entries.
#[derive(Debug, Default)]
struct Parts {
    pmeta: Option<usize>,
    content: Option<usize>,
    /// A plain file that is neither: a leftover of a unit.
    leftover: Option<usize>,
    has_children: bool,
}

impl<S: Sink> Reading<'_, S> {
    fn tree(&mut self) -> Result<(), ImportError> {
        for (path, parts) in self.nodes()? {
            let node = self.node(&path, &parts);
            self.faults.or_note(node)?;
        }
        self.summary.left_out += self.archive.left_out;
        Ok(())
    }

    /// Gathers the entries of each path; parents of an entry are directories, named or not.
    fn nodes(&mut self) -> Result<BTreeMap<String, Parts>, ImportError> {
        let mut nodes: BTreeMap<String, Parts> = BTreeMap::new();
        nodes.insert(String::new(), Parts::default());
        for index in 0..self.archive.len() {
            // A bad name was told of when the archive was opened.
            let Ok(entry) = self.archive.name(index) else { continue };
            let Some(below) = entry.strip_prefix(layout::WEBDAV_DIR) else { continue };
            if let Err(error) = self.gather(&mut nodes, index, &entry, below) {
                self.faults.note(error)?;
            }
        }
        let both = |parts: &Parts| parts.leftover.is_some() && (parts.pmeta.is_some() || parts.has_children);
        for (path, _) in nodes.iter().filter(|(_, parts)| both(parts)) {
            let shown = format!("{}{path}", layout::WEBDAV_DIR);
            self.faults.note(ImportError::entry(&shown, "both a file and a directory"))?;
        }
        Ok(nodes)
    }

    fn gather(
        &mut self,
        nodes: &mut BTreeMap<String, Parts>,
        index: usize,
        entry: &str,
        below: &str,
    ) -> Result<(), ImportError> {
        if layout::SECRET_DIRS.contains(&below.split('/').next().unwrap_or_default()) {
            return Err(ImportError::entry(entry, "keys and login records do not belong in a snapshot"));
        }
        let (directory, file) = match below.strip_suffix('/') {
            Some(directory) => (directory, None),
            None if below.is_empty() => return Ok(()),
            None => match below.rsplit_once('/') {
                Some((directory, file)) => (directory, Some(file)),
                None => ("", Some(below)),
            },
        };
        for (end, _) in directory.match_indices('/') {
            nodes.entry(directory[..end].to_owned()).or_default().has_children = true;
        }
        let node = nodes.entry(directory.to_owned()).or_default();
        match file {
            None => {}
            Some(layout::PMETA) => node.pmeta = Some(index),
            Some(layout::CONTENT) => node.content = Some(index),
            // Version 1 kept earlier contents beside the current ones.
            Some(file) if self.archive.version() == SnapshotVersion::One && file.starts_with("content_") => {
                self.archive.left_out += 1;
            }
            Some(file) if layout::LEFTOVERS.contains(&file) => {
                nodes.entry(below.to_owned()).or_default().leftover = Some(index);
            }
            Some(_) => return Err(ImportError::entry(entry, "not an entry of a snapshot")),
        }
        Ok(())
    }

    fn node(&mut self, path: &str, parts: &Parts) -> Result<(), ImportError> {
        let (text, length) = match (parts.pmeta, parts.leftover) {
            (Some(index), _) => self.pmeta(index, path, parts)?,
            // What a failed import left behind; this one succeeds.
            (None, Some(index)) if path == "import.error" => {
                self.summary.left_out += 1;
                self.left_out_file = Some(self.archive.read(index)?.size());
                return Ok(());
            }
            (None, Some(_)) => (None, None),
            (None, None) => {
                let shown = format!("{}{path}", layout::WEBDAV_DIR);
                return Err(ImportError::entry(&shown, "a directory without .pmeta"));
            }
        };
        let content = match parts.content.or(parts.leftover) {
            Some(index) => Some(self.content(index, length)?),
            None => None,
        };
        match &content {
            Some(content) => {
                self.summary.files += 1;
                self.summary.file_bytes += content.size;
                self.control.wrote(Amount { files: 1, ..Amount::default() });
            }
            None => self.summary.collections += 1,
        }
        // A plain file at the root stands where boxes do, but its name is no id.
        let is_box = path.contains('/') || parts.pmeta.is_some();
        let path = if is_box { self.identity.map_path(path) } else { path.to_owned() };
        self.sink.node(&path, text.as_deref(), content.as_ref())
    }

    /// Checks a node's metadata; returns what is to be stored, and the length a file must have.
    fn pmeta(&mut self, index: usize, path: &str, parts: &Parts) -> Result<(Option<String>, Option<u64>), ImportError> {
        let name = self.archive.name(index)?;
        let (text, value) = self.archive.small_json(index, limits::PMETA)?;
        let around = Surroundings { content: parts.content.is_some(), children: parts.has_children };
        let length = pmeta::check(&value, path, around).map_err(|what| ImportError::entry(&name, what))?;
        let changed = pmeta::changed(&value, path, self.archive.version(), self.identity);
        Ok((Some(changed.map_or(text, |new| new.to_string())), length))
    }

    fn content(&mut self, index: usize, expected: Option<u64>) -> Result<Content, ImportError> {
        let mut entry = self.archive.read(index)?.with_digest();
        if let Some(length) = expected.filter(|length| *length != entry.size()) {
            let what = format!("{} bytes, .pmeta says {length}", entry.size());
            return Err(ImportError::entry(entry.name(), what));
        }
        self.sink.content(&mut entry)
    }

    fn documents(&mut self) -> Result<(), ImportError> {
        let version = self.archive.version();
        for (index, of) in self.archive.document_entries() {
            let mut entry = match self.archive.read(index) {
                Ok(entry) => entry,
                Err(error) => {
                    self.faults.note(error)?;
                    continue;
                }
            };
            let name = entry.name().to_owned();
            let (faults, sink, summary) = (&mut *self.faults, &mut *self.sink, &mut self.summary);
            let (identity, control) = (self.identity, self.control);
            let read = lines::for_each(&mut entry, |number, line| {
                let checked = match document::check(line, version, of, identity) {
                    Ok(checked) => checked,
                    Err(what) => return faults.note(ImportError::line(&name, number, what)),
                };
                summary.documents[checked.document_type.index()] += 1;
                summary.document_bytes += checked.body.len() as u64 + 1;
                summary.repaired_links += u64::from(checked.repaired);
                control.wrote(Amount { documents: 1, ..Amount::default() });
                sink.document(&checked)
            });
            self.faults.or_note(read)?;
        }
        Ok(())
    }

    /// Every entry is what the integrity entry says; so must be what they add up to.
    fn compare_counts(&mut self) -> Result<(), ImportError> {
        let Some(counts) = self.archive.counts.clone() else { return Ok(()) };
        let mut differ = |what: &str, said: Option<u64>, found: u64| match said {
            Some(said) if said != found => {
                let what = format!("{said} {what}, but there are {found}");
                self.faults.note(ImportError::entry(layout::INTEGRITY, what))
            }
            Some(_) | None => Ok(()),
        };
        for of in DocumentType::ALL {
            differ(of.name(), counts.documents[of.index()], self.summary.documents[of.index()])?;
        }
        differ("files", counts.files, self.summary.files + u64::from(self.left_out_file.is_some()))?;
        differ("bytes of files", counts.bytes, self.summary.file_bytes + self.left_out_file.unwrap_or(0))
    }
}
