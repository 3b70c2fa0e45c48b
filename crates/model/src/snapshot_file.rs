//! A first look at a snapshot file: is it one, and of a version that can be read? Cheap enough for a request: names and
//! the manifest only, in constant memory. An import looks at everything again.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use serde_json::Value;
use zip::ZipReadOptions;
use zip::read::{ArchiveOffset, Config, OwnedZipFileEntry};
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
        if let ZipError::Io(error) = error {
            return Self::short(error);
        }
        Self::refused(ErrorCode::SnapshotNotZip, &[])
    }

    /// A short read is a fault of the file, not of the disk.
    fn short(error: io::Error) -> Self {
        if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput) {
            return Self::refused(ErrorCode::SnapshotNotZip, &[]);
        }
        Self::Io(error)
    }
}

/// How the zip library reads a snapshot. Left to itself it would search a file for places where an archive may begin, in
/// time and memory without bound.
pub const FROM_THE_BEGINNING: Config = Config { archive_offset: ArchiveOffset::Known(0) };

/// Looks at a file.
///
/// # Errors
/// [`Unfit`], with Personium's code for the first thing that is wrong.
pub fn inspect(file: &impl ReadAt) -> Result<SnapshotVersion, Unfit> {
    let size = file.length().map_err(Unfit::Io)?;
    let mut left = check_end(file, size)?;
    let reader = || SteadyReader::new(Reader { file, length: size, position: 0 });
    let mut zip = ZipIterable::try_new(reader(), FROM_THE_BEGINNING).map_err(Unfit::zip)?;
    let (mut present, mut manifest) = ([false; REQUIRED.len()], None);
    for entry in zip.files().map_err(Unfit::zip)? {
        let entry = entry.map_err(Unfit::zip)?;
        let header = check_central_header(file, entry.central_header_start())?;
        left = left.checked_sub(header).ok_or_else(|| faulty("the central directory is longer than it says"))?;
        let Some(place) = REQUIRED.iter().position(|name| name.as_bytes() == entry.name_raw()) else { continue };
        present[place] = true;
        if place == 0 {
            manifest = Some(entry);
        }
    }
    if left > 0 {
        return Err(faulty("the central directory has more than its entries"));
    }
    let missing = |name: &str| Unfit::refused(ErrorCode::SnapshotEntryMissing, &[name]);
    let Some(entry) = manifest else { return Err(missing(layout::MANIFEST)) };
    if entry.size() > limits::SMALL_JSON {
        return Err(faulty("the manifest is too long"));
    }
    let mut text = Vec::new();
    let mut reader = reader();
    // One that owned its entry would read to the entry's end when it is dropped.
    let entry = OwnedZipFileEntry::from(entry);
    let opened = entry.as_ref().with_reader(&mut reader, ZipReadOptions::new()).map_err(Unfit::zip)?;
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

fn faulty(what: &str) -> Unfit {
    Unfit::refused(ErrorCode::SnapshotFaulty, &[what])
}

/// Checks the record at the very end, and that the central directory ends where it begins: then nobody can take another
/// place of the file for the end of the archive. Returns the length of the central directory.
fn check_end(file: &impl ReadAt, size: u64) -> Result<u64, Unfit> {
    let no_zip = || Unfit::refused(ErrorCode::SnapshotNotZip, &[]);
    let at = size.checked_sub(END).ok_or_else(no_zip)?;
    let end: [u8; END as usize] = read_at(file, at)?;
    if !end.starts_with(b"PK\x05\x06") {
        let length = size.min(END + 0xffff);
        let mut tail = vec![0; length as usize];
        read_exact(file, &mut tail, size - length)?;
        let early = tail.windows(END as usize).any(|w| w.starts_with(b"PK\x05\x06"));
        return Err(if early { faulty("the archive has a comment, or something after its end") } else { no_zip() });
    }
    if number(&end[20..22]) != 0 {
        return Err(no_zip());
    }
    let (mut disks, mut counts) =
        ([number(&end[4..6]), number(&end[6..8])], [number(&end[8..10]), number(&end[10..12])]);
    let (mut length, mut start, mut ends_at) = (number(&end[12..16]), number(&end[16..20]), at);
    // The same question as the zip library's: it must not look elsewhere.
    let asks = counts[1] == 0xffff || length == 0xffff_ffff || start == 0xffff_ffff;
    if let Some(end64_at) = at.checked_sub(LOCATOR + END64).filter(|_| asks) {
        let end64: [u8; (LOCATOR + END64) as usize] = read_at(file, end64_at)?;
        let (end64, locator) = end64.split_at(END64 as usize);
        if locator.starts_with(b"PK\x06\x07") {
            let sound = end64.starts_with(b"PK\x06\x06") && number(&end64[4..12]) == END64 - 12;
            if !sound || number(&locator[8..16]) != end64_at || number(&locator[16..20]) > 1 {
                return Err(no_zip());
            }
            disks = [number(&end64[16..20]), number(&end64[20..24]) | number(&locator[4..8])];
            counts = [number(&end64[24..32]), number(&end64[32..40])];
            (length, start, ends_at) = (number(&end64[40..48]), number(&end64[48..56]), end64_at);
        }
    }
    if disks != [0, 0] || counts[0] != counts[1] {
        return Err(faulty("the archive has several parts"));
    }
    if counts[1] > limits::ENTRIES {
        return Err(faulty("more entries than allowed"));
    }
    if start.checked_add(length) != Some(ends_at) {
        return Err(faulty("the central directory is not where the archive says"));
    }
    if length > limits::CENTRAL_DIRECTORY {
        return Err(faulty("the central directory is too large"));
    }
    Ok(length)
}

/// Checks what the zip library ignores or keeps without measure; returns the header's length.
fn check_central_header(file: &impl ReadAt, at: u64) -> Result<u64, Unfit> {
    let header: [u8; CENTRAL_HEADER as usize] = read_at(file, at)?;
    let [name, extra, comment, disk] = [28, 30, 32, 34].map(|at| number(&header[at..at + 2]));
    if comment > 0 {
        return Err(faulty("an entry has a comment"));
    }
    if disk > 0 {
        return Err(faulty("an entry is in another part of the archive"));
    }
    let mut fields = vec![0; extra as usize];
    read_exact(file, &mut fields, at + CENTRAL_HEADER + name)?;
    let (mut rest, mut count) = (&fields[..], 0);
    while !rest.is_empty() {
        let length = rest.get(2..4).map_or(usize::MAX, |length| number(length) as usize);
        rest = rest[4.min(rest.len())..].get(length..).ok_or_else(|| faulty("an extra field is cut off"))?;
        count += 1;
    }
    if count > limits::EXTRA_FIELDS {
        return Err(faulty("an entry has too many extra fields"));
    }
    Ok(CENTRAL_HEADER + name + extra)
}

/// Lengths of the fixed parts of an archive's records.
const END: u64 = 22;
const END64: u64 = 56;
const LOCATOR: u64 = 20;
const CENTRAL_HEADER: u64 = 46;

/// A little-endian number of up to eight bytes.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, b| number << 8 | u64::from(*b))
}

fn read_at<const N: usize>(file: &impl ReadAt, at: u64) -> Result<[u8; N], Unfit> {
    let mut bytes = [0; N];
    read_exact(file, &mut bytes, at)?;
    Ok(bytes)
}

fn read_exact(file: &impl ReadAt, buffer: &mut [u8], at: u64) -> Result<(), Unfit> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], at + done as u64).map_err(Unfit::short)? {
            0 => return Err(Unfit::short(io::ErrorKind::UnexpectedEof.into())),
            n => done += n,
        }
    }
    Ok(())
}

/// What can be read at any place, by several readers at once.
pub trait ReadAt {
    /// Length in bytes.
    ///
    /// # Errors
    /// When it cannot be told.
    fn length(&self) -> io::Result<u64>;

    /// Reads some bytes from a place on; none at the end only.
    ///
    /// # Errors
    /// When they cannot be read.
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize>;
}

impl ReadAt for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, at)
    }
}

/// Where a reader at `position` of something so long goes.
///
/// # Errors
/// When that is before its beginning.
pub fn sought(to: SeekFrom, position: u64, length: u64) -> io::Result<u64> {
    let place = match to {
        SeekFrom::Start(place) => Some(place),
        SeekFrom::Current(by) => position.checked_add_signed(by),
        SeekFrom::End(by) => length.checked_add_signed(by),
    };
    Ok(place.ok_or(io::ErrorKind::InvalidInput)?)
}

/// One reader of it, with a position of its own.
struct Reader<'a, F> {
    file: &'a F,
    length: u64,
    position: u64,
}

impl<F: ReadAt> Read for Reader<'_, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(buffer, self.position)?;
        self.position += n as u64;
        Ok(n)
    }
}

impl<F> Seek for Reader<'_, F> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = sought(to, self.position, self.length)?;
        Ok(self.position)
    }
}

/// Reads the version from a manifest.
///
/// # Errors
/// [`Unfit::Refused`] when the text is no JSON object or the version is none that can be read.
pub fn manifest_version(manifest: &[u8]) -> Result<SnapshotVersion, Unfit> {
    let shown = || String::from_utf8_lossy(manifest).chars().take(limits::FAULT_TEXT).collect::<String>();
    let no_json = || Unfit::refused(ErrorCode::JsonParse, &[&shown()]);
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
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
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

/// A buffered reader that goes somewhere only when it reads there, and keeps its buffer when that is near: the zip library
/// goes to every header anew, and back to where it was.
#[derive(Debug)]
pub struct SteadyReader<R> {
    inner: BufReader<R>,
    /// Where the buffer is, once that is known.
    at: Option<u64>,
    wanted: u64,
}

impl<R: Read + Seek> SteadyReader<R> {
    /// Reads from the beginning of a file, whatever its handle's position is. Nobody else may move that meanwhile.
    pub fn new(file: R) -> Self {
        Self { inner: BufReader::with_capacity(limits::SAMPLE, file), at: None, wanted: 0 }
    }

    fn go(&mut self) -> io::Result<()> {
        match self.at.take() {
            Some(at) if at == self.wanted => {}
            Some(at) if at.abs_diff(self.wanted) <= limits::SAMPLE as u64 => {
                self.inner.seek_relative(self.wanted as i64 - at as i64)?;
            }
            _ => _ = self.inner.seek(SeekFrom::Start(self.wanted))?,
        }
        self.at = Some(self.wanted);
        Ok(())
    }
}

impl<R: Read + Seek> Read for SteadyReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.go()?;
        let n = self.inner.read(buffer)?;
        self.wanted += n as u64;
        self.at = Some(self.wanted);
        Ok(n)
    }
}

impl<R: Read + Seek> Seek for SteadyReader<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.wanted = match to {
            SeekFrom::Start(there) => there,
            SeekFrom::Current(by) => self.wanted.checked_add_signed(by).ok_or(io::ErrorKind::InvalidInput)?,
            SeekFrom::End(_) => {
                self.at = None;
                *self.at.insert(self.inner.seek(to)?)
            }
        };
        Ok(self.wanted)
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
