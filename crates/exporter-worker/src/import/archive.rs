//! The archive as a whole: what its central directory must look like before any entry is read.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::Read;

use model::layout::{self, DocumentType, SnapshotVersion};
use model::limits;
use model::snapshot_file::{self, FROM_THE_BEGINNING, SteadyReader};
use serde_json::Value;
use unicode_normalization::UnicodeNormalization;
use zip::unstable::read::ZipIterable;
use zip::{CompressionMethod, ZipArchive};

use super::error::{Faults, ImportError};
use super::fields::Fields;
use super::integrity::{self, Counts, Expected};
use super::json_rules;
use super::metered::{Budget, Expansion, Metered};
use crate::control::{Control, Whole};

/// What messages call the snapshot where no entry is at fault.
const WHOLE: &str = "the archive";

/// Longest beginning of the integrity entry, before its records.
const RECORDS_BEGIN: u64 = 64 << 10;
/// Longest record of an entry, but for the entry's name.
const RECORD: u64 = 256;
/// A byte of a name may be written as `\u0061`.
const LONGEST_ESCAPE: u64 = 6;
/// Flags of an entry: its data is encrypted, in one way or another, or its headers are.
const ENCRYPTED: u16 = 1 | 1 << 6 | 1 << 13;
/// Flag of an entry: its data is a difference to something else.
const PATCHED: u16 = 1 << 5;
/// Characters that messages show of a bad name.
const NAME_SHOWN: usize = 200;

/// An open snapshot whose structure is sound.
pub struct Archive {
    zip: ZipArchive<SteadyReader<File>>,
    version: SnapshotVersion,
    /// The entries that are not part of the tree, by name.
    known: HashMap<&'static str, usize>,
    /// By index, where there is an integrity entry.
    expected: Vec<Option<Expected>>,
    /// What the integrity entry says of everything together.
    pub(super) counts: Option<Counts>,
    /// Entries that are left out: earlier contents of files, which version 1 has.
    pub(super) left_out: u64,
    budget: Budget,
}

/// Whose file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// An export wrote it.
    Ours,
    /// Anybody may have made it.
    Anybody,
}

impl Archive {
    /// Opens a snapshot and checks everything that can be checked without reading an entry, and the integrity entry.
    ///
    /// # Errors
    /// [`ImportError`]; also in a dry run when nothing further can be said about the file.
    pub fn open(file: File, origin: Origin, control: &Control, faults: &mut Faults) -> Result<Self, ImportError> {
        let version = snapshot_file::inspect(&file)?;
        let unreadable = |e| ImportError::io("read the snapshot", e);
        let size = file.metadata().map_err(unreadable)?.len();
        let again = || file.try_clone().map(SteadyReader::new).map_err(unreadable);
        let no_zip = |e: zip::result::ZipError| ImportError::entry(WHOLE, format!("not a readable zip: {e}"));
        // Counted, and its size looked at, before an index of all entries is built in memory.
        let entries = ZipIterable::try_new(again()?, FROM_THE_BEGINNING).map_err(no_zip)?.len();
        let mut zip = ZipArchive::with_config(FROM_THE_BEGINNING, again()?).map_err(no_zip)?;
        if zip.has_duplicate_names() || zip.len() != entries {
            return Err(ImportError::entry(WHOLE, "an entry name occurs twice"));
        }
        if zip.has_overlapping_entries().map_err(no_zip)? {
            return Err(ImportError::entry(WHOLE, "entries overlap"));
        }
        zip.validate_header_consistency().map_err(no_zip)?;
        let expansion = match origin {
            Origin::Ours => Expansion::unlimited(),
            Origin::Anybody => Expansion::of_untrusted(size),
        };
        let budget = Budget::new(&expansion, control.clone());
        let mut archive =
            Self { zip, version, known: HashMap::new(), expected: Vec::new(), counts: None, left_out: 0, budget };
        let announced = archive.check_sizes(&expansion)?;
        control.set_whole(Whole::Snapshot(announced));
        archive.check_entries(origin, faults)?;
        archive.check_manifest(faults)?;
        archive.read_integrity(faults)?;
        Ok(archive)
    }

    /// Checks where the archive begins and what its sizes come to. They may lie, but not about being too large.
    fn check_sizes(&self, expansion: &Expansion) -> Result<u64, ImportError> {
        let (mut begins, mut total) = (u64::MAX, 0u64);
        for index in 0..self.zip.len() {
            let entry = self.zip.by_index_data(index).map_err(|e| ImportError::entry(WHOLE, e))?;
            begins = begins.min(entry.header_start());
            total = total.saturating_add(entry.size());
        }
        if begins != 0 {
            return Err(ImportError::entry(WHOLE, "something stands before its first entry"));
        }
        if total > expansion.total() {
            return Err(ImportError::entry(WHOLE, "the snapshot expands too much"));
        }
        Ok(total)
    }

    /// Checks names, kinds and methods of all entries.
    fn check_entries(&mut self, origin: Origin, faults: &mut Faults) -> Result<(), ImportError> {
        let hasher = RandomState::new();
        let (mut seen, mut directories) = (HashSet::new(), HashSet::new());
        for index in 0..self.zip.len() {
            let Some(name) = faults.or_note(self.name(index))? else { continue };
            // Each directory needs a .pmeta. Deep paths could name many more, and each would take its place in memory.
            let mut path = name.as_str();
            while let Some((parent, _)) = path.rsplit_once('/') {
                if !directories.insert(hasher.hash_one(parent)) {
                    break;
                }
                path = parent;
            }
            if directories.len() > self.zip.len() {
                return Err(ImportError::entry(&name, "a directory without .pmeta, as many others"));
            }
            if let Some(error) = self.fault(index, &name) {
                faults.note(error)?;
                continue;
            }
            // Two names that some file systems take for one hide an entry from whoever unpacks the snapshot. A cell may
            // well have both; then the snapshot is one of ours.
            let folded = if name.is_ascii() {
                name.to_ascii_lowercase()
            } else {
                name.nfc().flat_map(char::to_lowercase).nfc().collect::<String>()
            };
            if !seen.insert(hasher.hash_one(folded.trim_end_matches('/'))) && origin == Origin::Anybody {
                faults.note(ImportError::entry(&name, "differs from another entry in case or Unicode form only"))?;
            }
            if name.starts_with(layout::WEBDAV_DIR) || name == layout::ODATA_DIR {
                continue;
            }
            match self.expected_names().find(|known| *known == name) {
                Some(known) => drop(self.known.insert(known, index)),
                None => faults.note(ImportError::entry(&name, "not an entry of a snapshot"))?,
            }
        }
        Ok(())
    }

    fn fault(&self, index: usize, name: &str) -> Option<ImportError> {
        let entry = match self.zip.by_index_data(index) {
            Ok(entry) => entry,
            Err(error) => return Some(ImportError::entry(name, error)),
        };
        let fault = |what| Some(ImportError::entry(name, what));
        let flags = entry.flags().as_u16();
        if flags & ENCRYPTED != 0 {
            return fault("encrypted");
        }
        if flags & PATCHED != 0 {
            return fault("patched data");
        }
        if !matches!(entry.compression(), CompressionMethod::Stored | CompressionMethod::Deflated) {
            return fault("neither stored nor deflated");
        }
        let kind = entry.unix_mode().unwrap_or(0) & 0o170_000;
        if entry.is_symlink() || !matches!(kind, 0 | 0o100_000 | 0o040_000) {
            return fault("neither a file nor a directory");
        }
        if name.ends_with('/') && entry.size() != 0 {
            return fault("a directory with bytes");
        }
        None
    }

    /// The entries outside the tree.
    fn expected_names(&self) -> impl Iterator<Item = &'static str> + use<> {
        const ALWAYS: &[&str] = &[layout::MANIFEST, layout::CELL, layout::INTEGRITY];
        const ONE: &[&str] = &[layout::DOCUMENTS_V1];
        const TWO: &[&str] = &TYPES;
        const TYPES: [&str; DocumentType::ALL.len()] = {
            let mut names = [""; DocumentType::ALL.len()];
            let mut i = 0;
            while i < names.len() {
                names[i] = DocumentType::ALL[i].entry();
                i += 1;
            }
            names
        };
        let documents = match self.version {
            SnapshotVersion::One => ONE,
            SnapshotVersion::Two => TWO,
        };
        ALWAYS.iter().chain(documents).copied()
    }

    /// Version of the format.
    pub fn version(&self) -> SnapshotVersion {
        self.version
    }

    /// Number of entries.
    pub(super) fn len(&self) -> usize {
        self.zip.len()
    }

    /// The name of an entry: UTF-8 whatever its flag says, because Personium does not set the flag on directories.
    pub(super) fn name(&self, index: usize) -> Result<String, ImportError> {
        let entry = self.zip.by_index_data(index).map_err(|e| ImportError::entry(WHOLE, e))?;
        let raw = entry.name_raw();
        let shown = String::from_utf8_lossy(raw).chars().take(NAME_SHOWN).collect::<String>();
        let bad = |what| Err(ImportError::entry(&shown, what));
        let Ok(name) = std::str::from_utf8(raw) else { return bad("the name is not UTF-8") };
        if name.len() > limits::ENTRY_NAME {
            return bad("the name is too long");
        }
        if name.starts_with('/') || name.contains('\\') || name.chars().any(char::is_control) {
            return bad("the name is not a plain relative path");
        }
        let bare = name.strip_suffix('/').unwrap_or(name);
        let segments: Vec<&str> = bare.split('/').collect();
        if segments.iter().any(|s| matches!(*s, "" | "." | "..")) || segments[0].ends_with(':') {
            return bad("the name is not a plain relative path");
        }
        if segments.len() > limits::ENTRY_SEGMENTS || segments.iter().any(|s| s.len() > limits::ENTRY_SEGMENT) {
            return bad("the path is too deep or one of its names too long");
        }
        Ok(name.to_owned())
    }

    /// Opens an entry. Whoever reads it to its end has checked its length, its CRC and its digest.
    pub(super) fn read(&mut self, index: usize) -> Result<Metered<'_, impl Read>, ImportError> {
        let name = self.name(index)?;
        let expected = self.expected.get(index).copied().flatten();
        let entry = self.zip.by_index(index).map_err(|e| ImportError::entry(&name, e))?;
        let (size, compressed) = (entry.size(), entry.compressed_size());
        Ok(Metered::new(entry, name, size, compressed, &mut self.budget).expecting(expected))
    }

    /// The entries that hold documents, and the type of each; none for the one entry of version 1.
    pub(super) fn document_entries(&self) -> Vec<(usize, Option<DocumentType>)> {
        let entry = |name: &str| self.known.get(name).copied();
        match self.version {
            SnapshotVersion::One => entry(layout::DOCUMENTS_V1).map(|index| (index, None)).into_iter().collect(),
            SnapshotVersion::Two => {
                DocumentType::ALL.into_iter().filter_map(|of| Some((entry(of.entry())?, Some(of)))).collect()
            }
        }
    }

    /// Reads a small JSON document that must be an object.
    pub(super) fn small_json(&mut self, index: usize, longest: u64) -> Result<(String, Value), ImportError> {
        let mut reader = self.read(index)?;
        let name = reader.name().to_owned();
        let bytes = reader.read_all(longest)?;
        let text = String::from_utf8(bytes).map_err(|_| ImportError::entry(&name, "not UTF-8"))?;
        json_rules::check(&text).map_err(|what| ImportError::entry(&name, what))?;
        let value: Value = serde_json::from_str(&text).map_err(|e| ImportError::entry(&name, e))?;
        if value.is_object() { Ok((text, value)) } else { Err(ImportError::entry(&name, "not a JSON object")) }
    }

    /// The version is known to be right.
    fn check_manifest(&mut self, faults: &mut Faults) -> Result<(), ImportError> {
        // Whatever is wrong with the entry itself was told of.
        let Some(index) = self.known.get(layout::MANIFEST).copied() else { return Ok(()) };
        let read = self.small_json(index, limits::SMALL_JSON);
        let Some((_, manifest)) = faults.or_note(read)? else { return Ok(()) };
        if !manifest["unit_url"].is_string() || !manifest["create_date"].is_i64() {
            let what = "unit_url must be a string and create_date an integer";
            return faults.note(ImportError::entry(layout::MANIFEST, what));
        }
        Ok(())
    }

    /// Remembers what every entry must be. An entry without a record is as suspicious as a record without an entry.
    fn read_integrity(&mut self, faults: &mut Faults) -> Result<(), ImportError> {
        let Some(index) = self.known.get(layout::INTEGRITY).copied() else { return Ok(()) };
        let mut expected: Vec<Option<Expected>> = vec![None; self.zip.len()];
        // Names by their digest under a key of this moment: nobody can make two of them collide.
        let hasher = RandomState::new();
        let mut places = HashMap::with_capacity(self.zip.len());
        let mut longest = RECORDS_BEGIN;
        for index in 0..self.zip.len() {
            // A bad name was told of.
            let Ok(name) = self.name(index) else { continue };
            places.insert(hasher.hash_one(name.as_str()), index);
            longest += RECORD + LONGEST_ESCAPE * name.len() as u64;
        }
        let read = {
            let mut entry = self.read(index)?;
            integrity::read(&mut entry, longest, &mut |name, what| {
                let place = places.get(&hasher.hash_one(name)).and_then(|index| expected.get_mut(*index));
                let fault = |what| ImportError::entry(layout::INTEGRITY, format!("{}: {what}", name.escape_debug()));
                match place {
                    None => faults.note(fault("there is no such entry")),
                    Some(Some(_)) => faults.note(fault("has two records")),
                    Some(place) => {
                        *place = Some(what);
                        Ok(())
                    }
                }
            })
        };
        let Some(counts) = faults.or_note(read)? else { return Ok(()) };
        for (index, record) in expected.iter().enumerate() {
            let Ok(name) = self.name(index) else { continue };
            if record.is_none()
                && !name.ends_with('/')
                && ![layout::MANIFEST, layout::INTEGRITY].contains(&name.as_str())
            {
                let what = format!("{} has no record of it", layout::INTEGRITY);
                faults.note(ImportError::entry(&name, what))?;
            }
        }
        self.expected = expected;
        self.counts = Some(counts);
        Ok(())
    }

    /// Reads the cell document: its text, and the same as JSON.
    pub(super) fn cell_document(&mut self) -> Result<(String, Value), ImportError> {
        let index = self.known.get(layout::CELL).copied();
        let index = index.ok_or_else(|| ImportError::entry(layout::CELL, "cannot be read"))?;
        let (text, mut value) = self.small_json(index, limits::SMALL_JSON)?;
        let of_version = |what| ImportError::entry(layout::CELL, what);
        let envelope = Fields::of(&text).ok_or_else(|| of_version("not a JSON object".to_owned()))?;
        super::document::check_envelope(&envelope, "Cell", self.version).map_err(of_version)?;
        if self.version == SnapshotVersion::Two {
            return Ok((text, value));
        }
        complete(&mut value);
        Ok((value.to_string(), value))
    }
}

/// Puts into a version-1 cell document what version 2 has.
fn complete(cell: &mut Value) {
    if let Some(index) = cell["_index"].as_str().filter(|index| !index.ends_with(".cell")) {
        cell["_index"] = format!("{index}.cell").into();
    }
    if let Some(source) = cell["_source"].as_object_mut() {
        source.retain(|name, value| !(value.is_null() && ["c", "b", "n", "t"].contains(&name.as_str())));
        source.insert("type".to_owned(), "Cell".into());
    }
}
