//! A first look at a snapshot file: is it one, and of a version that can be read? Cheap enough for a request: names and
//! the manifest only, in constant memory. An import looks at everything again.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

use serde_json::Value;
use zip::ZipReadOptions;
use zip::read::Config;
use zip::result::ZipError;
use zip::unstable::read::ZipIterable;

use crate::error_code::{ErrorBody, ErrorCode};
use crate::layout::{self, DocumentType, SnapshotVersion};
use crate::limits;

/// Why a file cannot be imported.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// It is not a snapshot of a version that can be read.
    #[error("{1}")]
    Refused(ErrorCode, ErrorBody),
    /// It cannot be read.
    #[error("the file cannot be read")]
    Io(#[source] io::Error),
}

impl Unfit {
    fn refused(code: ErrorCode, parameters: &[&str]) -> Self {
        Self::Refused(code, code.with(parameters))
    }

    fn zip(error: ZipError) -> Self {
        match error {
            // A short read is a fault of the file, not of the disk.
            ZipError::Io(error) if error.kind() != io::ErrorKind::UnexpectedEof => Self::Io(error),
            _ => Self::refused(ErrorCode::SnapshotNotZip, &[]),
        }
    }
}

/// Looks at a file.
///
/// # Errors
/// [`Unfit`], with Personium's code for the first thing that is wrong.
pub fn inspect(file: &File) -> Result<SnapshotVersion, Unfit> {
    let size = file.metadata().map_err(Unfit::Io)?.len();
    let mut zip = ZipIterable::try_new(SteadyReader::new(file), Config::default()).map_err(Unfit::zip)?;
    let faulty = |what: &str| Unfit::refused(ErrorCode::SnapshotFaulty, &[what]);
    if zip.len() as u64 > limits::ENTRIES {
        return Err(faulty("more entries than allowed"));
    }
    let (mut present, mut manifest) = ([false; REQUIRED.len()], None);
    for entry in zip.files().map_err(Unfit::zip)? {
        let entry = entry.map_err(Unfit::zip)?;
        if size.saturating_sub(entry.central_header_start()) > limits::CENTRAL_DIRECTORY {
            return Err(faulty("the central directory is too large"));
        }
        let Some(place) = REQUIRED.iter().position(|name| name.as_bytes() == entry.name_raw()) else { continue };
        present[place] = true;
        if place == 0 {
            manifest = Some(entry);
        }
    }
    let missing = |name: &str| Unfit::refused(ErrorCode::SnapshotEntryMissing, &[name]);
    let Some(entry) = manifest else { return Err(missing(layout::MANIFEST)) };
    if entry.size() > limits::SMALL_JSON {
        return Err(faulty("the manifest is too long"));
    }
    let mut text = Vec::new();
    let mut reader = SteadyReader::new(file);
    let opened = entry.with_reader(&mut reader, ZipReadOptions::new()).map_err(Unfit::zip)?;
    // An entry that cannot be unpacked is no JSON either.
    if opened.take(limits::SMALL_JSON + 1).read_to_end(&mut text).is_err() || text.len() as u64 > limits::SMALL_JSON {
        return Err(faulty("the manifest cannot be read"));
    }
    let version = manifest_version(&text)?;
    let required = |name: &&&str| {
        [layout::MANIFEST, layout::CELL].contains(name)
            || match version {
                SnapshotVersion::One => **name == layout::DOCUMENTS_V1,
                SnapshotVersion::Two => **name != layout::DOCUMENTS_V1,
            }
    };
    let absent = REQUIRED.iter().zip(present).filter(|(_, there)| !there).map(|(name, _)| name);
    match absent.into_iter().find(required) {
        Some(name) => Err(missing(name)),
        None => Ok(version),
    }
}

/// Reads the version from a manifest.
///
/// # Errors
/// [`Unfit::Refused`] when the text is no JSON object or the version is none that can be read.
pub fn manifest_version(manifest: &[u8]) -> Result<SnapshotVersion, Unfit> {
    let no_json = || Unfit::refused(ErrorCode::JsonParse, &[&String::from_utf8_lossy(manifest)]);
    let manifest: Value = serde_json::from_slice(manifest).map_err(|_| no_json())?;
    let Value::Object(fields) = &manifest else { return Err(no_json()) };
    let given = fields.get("export_version").unwrap_or(&Value::Null);
    SnapshotVersion::ALL.into_iter().find(|v| given.as_i64() == Some(v.number())).ok_or_else(|| {
        let shown = given.as_i64().map_or_else(|| given.to_string(), grouped);
        let shown: String = shown.chars().take(limits::FAULT_TEXT).collect();
        Unfit::refused(ErrorCode::SnapshotVersion, &[&layout::EXPORT_VERSION.to_string(), &shown])
    })
}

/// Personium groups the digits of numbers in messages: `1,000`.
fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    if number < 0 { format!("-{text}") } else { text }
}

/// Entries that some version requires, the manifest first.
const REQUIRED: [&str; 3 + DocumentType::ALL.len()] = {
    let mut names = [layout::MANIFEST; 3 + DocumentType::ALL.len()];
    names[1] = layout::CELL;
    names[2] = layout::DOCUMENTS_V1;
    let mut i = 0;
    while i < DocumentType::ALL.len() {
        names[3 + i] = DocumentType::ALL[i].entry();
        i += 1;
    }
    names
};

/// A buffered reader that keeps its buffer when it is asked to go where it is, or near: the zip library goes to every
/// header anew.
#[derive(Debug)]
pub struct SteadyReader<'a> {
    inner: BufReader<&'a File>,
    at: u64,
}

impl<'a> SteadyReader<'a> {
    /// Reads from the beginning of a file, whatever its handle's position is.
    pub fn new(file: &'a File) -> Self {
        // Nothing is known of the handle's position: the first seek is a real one.
        Self { inner: BufReader::with_capacity(limits::SAMPLE, file), at: u64::MAX }
    }
}

impl Read for SteadyReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == u64::MAX {
            self.seek(SeekFrom::Start(0))?;
        }
        let n = self.inner.read(buffer)?;
        self.at += n as u64;
        Ok(n)
    }
}

impl Seek for SteadyReader<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let here = self.at;
        self.at = match to {
            SeekFrom::Start(there) if here != u64::MAX && there.abs_diff(here) <= limits::SAMPLE as u64 => {
                self.inner.seek_relative(there as i64 - here as i64)?;
                there
            }
            SeekFrom::Current(0) if here != u64::MAX => here,
            // Relative to what was really read, not to what the buffer has read ahead.
            SeekFrom::Current(by) if here != u64::MAX => {
                let there = here.checked_add_signed(by).ok_or(io::ErrorKind::InvalidInput)?;
                self.inner.seek(SeekFrom::Start(there))?
            }
            _ => self.inner.seek(to)?,
        };
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(manifest: &str) -> Result<SnapshotVersion, String> {
        manifest_version(manifest.as_bytes()).map_err(|e| e.to_string())
    }

    #[test]
    fn versions_are_integers_and_two_of_them_can_be_read() {
        assert_eq!(version(r#"{"export_version":1}"#), Ok(SnapshotVersion::One));
        assert_eq!(version(r#"{"export_version":2}"#), Ok(SnapshotVersion::Two));
        for (manifest, shown) in [
            ("{}", "null"),
            (r#"{"export_version":3}"#, "3"),
            (r#"{"export_version":1000}"#, "1,000"),
            (r#"{"export_version":-1234567}"#, "-1,234,567"),
            (r#"{"export_version":"2"}"#, "\"2\""),
            (r#"{"export_version":2.0}"#, "2.0"),
        ] {
            let words =
                format!("PR400-MC-0003 Version of the snapshot file is invalid. Expected [2] but was [{shown}].");
            assert_eq!(version(manifest), Err(words), "{manifest}");
        }
        for manifest in ["", "[]", "x", "2"] {
            assert_eq!(version(manifest), Err(format!("PR400-CM-0004 JSON parse error. [{manifest}].")));
        }
    }

    #[test]
    fn a_steady_reader_reads_what_is_there() {
        let mut file = tempfile::tempfile().expect("a file");
        let bytes: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
        io::Write::write_all(&mut file, &bytes).expect("written");
        let mut reader = SteadyReader::new(&file);
        let mut got = [0; 5];
        for to in [0u64, 3, 70_000, 69_990, 299_995, 1, 130_000] {
            assert_eq!(reader.seek(SeekFrom::Start(to)).expect("sought"), to);
            reader.read_exact(&mut got).expect("read");
            assert_eq!(got, bytes[to as usize..to as usize + 5], "{to}");
            assert_eq!(reader.stream_position().expect("told"), to + 5);
        }
        assert_eq!(reader.seek(SeekFrom::End(-3)).expect("sought"), 299_997);
        assert_eq!(reader.seek(SeekFrom::Current(-2)).expect("sought"), 299_995);
        reader.read_exact(&mut got).expect("read");
        assert_eq!(got, bytes[299_995..]);
    }
}
