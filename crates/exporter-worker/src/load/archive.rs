//! The archive as a whole: what its central directory must look like before any entry is read.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use indicatif::ProgressBar;
use model::layout::{self, DocumentType};
use model::limits;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use zip::read::Config;
use zip::unstable::read::ZipIterable;
use zip::{CompressionMethod, ZipArchive};

use super::error::LoadError;
use super::json_rules;
use super::metered::{Budget, Metered};

/// An open snapshot whose structure is sound.
pub(super) struct Archive {
    zip: ZipArchive<BufReader<File>>,
    /// The entries that are not part of the tree, by name.
    known: HashMap<String, usize>,
    budget: Budget,
}

impl Archive {
    /// Opens a snapshot and checks everything that can be checked without reading an entry.
    pub(super) fn open(path: &Path, bar: ProgressBar, stop: CancellationToken) -> Result<Self, LoadError> {
        let open = || File::open(path).map(|f| BufReader::with_capacity(limits::SAMPLE, f));
        let shown = path.display().to_string();
        let unreadable = |e| LoadError::io("open the snapshot", e);
        let size = std::fs::metadata(path).map_err(unreadable)?.len();
        let no_zip = |e: zip::result::ZipError| LoadError::entry(&shown, format!("not a readable zip: {e}"));
        // Counted before an index of all entries is built in memory.
        let entries =
            ZipIterable::try_new(open().map_err(unreadable)?, Config::default()).map_err(no_zip)?.len() as u64;
        if entries > limits::ENTRIES {
            return Err(LoadError::entry(&shown, format!("{entries} entries, at most {}", limits::ENTRIES)));
        }
        let mut zip = ZipArchive::new(open().map_err(unreadable)?).map_err(no_zip)?;
        if size.saturating_sub(zip.central_directory_start()) > limits::CENTRAL_DIRECTORY {
            return Err(LoadError::entry(&shown, "the central directory is too large"));
        }
        if zip.has_duplicate_names() || zip.len() as u64 != entries {
            return Err(LoadError::entry(&shown, "an entry name occurs twice"));
        }
        if zip.has_overlapping_entries().map_err(no_zip)? {
            return Err(LoadError::entry(&shown, "entries overlap"));
        }
        zip.validate_header_consistency().map_err(no_zip)?;
        let total = limits::UNCOMPRESSED_TOTAL
            .min(size.saturating_mul(limits::UNCOMPRESSED_FACTOR).saturating_add(limits::UNCOMPRESSED_SLACK));
        bar.set_length(zip.decompressed_size().unwrap_or(0).try_into().unwrap_or(u64::MAX));
        let mut archive = Self { zip, known: HashMap::new(), budget: Budget::new(total, bar, stop) };
        archive.known = archive.check_entries()?;
        archive.check_manifest()?;
        Ok(archive)
    }

    /// Checks names, kinds and methods of all entries; returns those outside the tree.
    fn check_entries(&mut self) -> Result<HashMap<String, usize>, LoadError> {
        let mut known = HashMap::new();
        for index in 0..self.zip.len() {
            let name = self.name(index)?;
            let entry = self.zip.by_index_data(index).map_err(|e| LoadError::entry(&name, e))?;
            if entry.encrypted() {
                return Err(LoadError::entry(&name, "encrypted"));
            }
            if !matches!(entry.compression(), CompressionMethod::Stored | CompressionMethod::Deflated) {
                return Err(LoadError::entry(&name, "neither stored nor deflated"));
            }
            let kind = entry.unix_mode().unwrap_or(0) & 0o170_000;
            let regular = matches!(kind, 0 | 0o100_000 | 0o040_000);
            if entry.is_symlink() || !regular {
                return Err(LoadError::entry(&name, "neither a file nor a directory"));
            }
            let is_directory = name.ends_with('/');
            if is_directory && entry.size() != 0 {
                return Err(LoadError::entry(&name, "a directory with bytes"));
            }
            if name.starts_with(layout::WEBDAV_DIR) || name == layout::ODATA_DIR {
                continue;
            }
            let expected = [layout::MANIFEST, layout::CELL, layout::INTEGRITY].contains(&name.as_str())
                || DocumentType::ALL.iter().any(|t| t.entry() == name);
            if !expected {
                return Err(LoadError::entry(&name, "not an entry of a version-2 snapshot"));
            }
            known.insert(name, index);
        }
        let mandatory = [layout::MANIFEST, layout::CELL].into_iter().chain(DocumentType::ALL.map(DocumentType::entry));
        for name in mandatory {
            if !known.contains_key(name) {
                return Err(LoadError::entry(name, "missing"));
            }
        }
        Ok(known)
    }

    /// Number of entries.
    pub(super) fn len(&self) -> usize {
        self.zip.len()
    }

    /// The name of an entry: UTF-8 whatever its flag says, because Personium does not set the flag on directories.
    pub(super) fn name(&self, index: usize) -> Result<String, LoadError> {
        let entry = self.zip.by_index_data(index).map_err(|e| LoadError::entry("the central directory", e))?;
        let raw = entry.name_raw();
        let shown = String::from_utf8_lossy(raw).into_owned();
        let bad = |what| Err(LoadError::entry(&shown, what));
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

    /// Opens an entry. Whoever reads it to its end has checked its length and its CRC.
    pub(super) fn read(&mut self, index: usize) -> Result<Metered<'_, impl Read>, LoadError> {
        let name = self.name(index)?;
        let entry = self.zip.by_index(index).map_err(|e| LoadError::entry(&name, e))?;
        let (size, compressed) = (entry.size(), entry.compressed_size());
        Ok(Metered::new(entry, name, size, compressed, &mut self.budget))
    }

    /// Opens the documents of a type.
    pub(super) fn documents(&mut self, document_type: DocumentType) -> Result<Metered<'_, impl Read>, LoadError> {
        self.read(self.known[document_type.entry()])
    }

    /// Reads a small JSON document that must be an object.
    pub(super) fn small_json(&mut self, index: usize, longest: u64) -> Result<(String, Value), LoadError> {
        let mut reader = self.read(index)?;
        let name = reader.name().to_owned();
        let bytes = reader.read_all(longest)?;
        let text = String::from_utf8(bytes).map_err(|_| LoadError::entry(&name, "not UTF-8"))?;
        json_rules::check(&text).map_err(|what| LoadError::entry(&name, what))?;
        let value: Value = serde_json::from_str(&text).map_err(|e| LoadError::entry(&name, e))?;
        if value.is_object() { Ok((text, value)) } else { Err(LoadError::entry(&name, "not a JSON object")) }
    }

    fn check_manifest(&mut self) -> Result<(), LoadError> {
        let (_, manifest) = self.small_json(self.known[layout::MANIFEST], limits::SMALL_JSON)?;
        let bad = |what: String| Err(LoadError::entry(layout::MANIFEST, what));
        let version = &manifest["export_version"];
        if version.as_i64() != Some(layout::EXPORT_VERSION) {
            let only = layout::EXPORT_VERSION;
            return bad(format!("export_version is {version}, only the integer {only} can be loaded"));
        }
        if !manifest["unit_url"].is_string() || !manifest["create_date"].is_i64() {
            return bad("unit_url must be a string and create_date an integer".to_owned());
        }
        Ok(())
    }

    /// Reads the cell document.
    pub(super) fn cell_document(&mut self) -> Result<(String, Value), LoadError> {
        self.small_json(self.known[layout::CELL], limits::SMALL_JSON)
    }
}
