//! The bytes of a zip around the data of its entries (PKWARE APPNOTE 6.3.10, sections 4.3 and 4.4).
//!
//! `zip` reads what is written here, but cannot write it: none of its safe calls takes deflated data of unknown length,
//! and it keeps a record of every entry in memory.

use chrono::{DateTime, Datelike, Timelike};

const LOCAL: u32 = 0x0403_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const END: u32 = 0x0605_4b50;
const END_64: u32 = 0x0606_4b50;
const LOCATOR_64: u32 = 0x0706_4b50;
const ZIP64: u16 = 1;
/// Names are UTF-8, all of them: readers that take unmarked ones for another encoding must not have to guess which
/// entries belong together (4.4.4, bit 11).
const FLAGS: u16 = 1 << 11;
const VERSION: u16 = 20;
const VERSION_64: u16 = 45;
/// Attributes are those of Unix (4.4.2).
const UNIX: u16 = 3 << 8;

/// How the data of an entry are kept (4.4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Stored = 0,
    Deflated = 8,
}

/// Name and time of an entry.
#[derive(Debug, Clone)]
pub struct EntryHead {
    /// Whole name within the zip.
    pub name: String,
    /// Time of the entry, epoch milliseconds.
    pub modified: i64,
    /// Whether the entry may grow beyond 4 GiB, which a zip must know beforehand.
    pub large: bool,
}

/// What the headers say of an entry's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Data {
    pub(super) method: Method,
    pub(super) crc32: u32,
    pub(super) compressed: u64,
    pub(super) size: u64,
}

impl Data {
    /// Of an entry that is not written yet: the header has its length already.
    pub(super) fn unknown(method: Method) -> Self {
        Self { method, crc32: 0, compressed: 0, size: 0 }
    }
}

/// The header that stands before the data.
pub(super) fn local_header(head: &EntryHead, data: &Data) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64 + head.name.len());
    let out = &mut bytes;
    let (date, time) = date_and_time(head.modified);
    let sizes = if head.large { [u32::MAX; 2] } else { [data.compressed as u32, data.size as u32] };
    words(out, [LOCAL]);
    shorts(out, [version(head.large), FLAGS, data.method as u16, time, date]);
    words(out, [data.crc32, sizes[0], sizes[1]]);
    shorts(out, [head.name.len() as u16, if head.large { 20 } else { 0 }]);
    out.extend_from_slice(head.name.as_bytes());
    if head.large {
        shorts(out, [ZIP64, 16]);
        longs(out, [data.size, data.compressed]);
    }
    bytes
}

/// The record of the central directory.
pub(super) fn central_record(head: &EntryHead, data: &Data, offset: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(80 + head.name.len());
    let out = &mut bytes;
    let (date, time) = date_and_time(head.modified);
    let directory = head.name.ends_with('/');
    // S_IFDIR and S_IFREG; the lowest byte is that of MS-DOS (4.4.15).
    let attributes: u32 = if directory { 0o040_755 << 16 | 0x10 } else { 0o100_644 << 16 };
    // Those that need it, in this order (4.5.3).
    let long: Vec<u64> = [data.size, data.compressed, offset].into_iter().filter(|n| !fits(*n)).collect();
    let extra = if long.is_empty() { 0 } else { 4 + 8 * long.len() as u16 };
    words(out, [CENTRAL]);
    let version = version(head.large || !long.is_empty());
    shorts(out, [UNIX | version, version, FLAGS, data.method as u16, time, date]);
    words(out, [data.crc32, short(data.compressed), short(data.size)]);
    // Lengths of name, extra field and comment; disk; internal attributes.
    shorts(out, [head.name.len() as u16, extra, 0, 0, 0]);
    words(out, [attributes, short(offset)]);
    out.extend_from_slice(head.name.as_bytes());
    if !long.is_empty() {
        shorts(out, [ZIP64, extra - 4]);
        longs(out, long);
    }
    bytes
}

/// What stands behind the central directory.
pub(super) fn end(entries: u64, directory: u64, directory_size: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    let out = &mut bytes;
    let many = entries >= u64::from(u16::MAX);
    if many || !fits(directory) || !fits(directory_size) {
        let at = directory + directory_size;
        words(out, [END_64]);
        longs(out, [44]);
        shorts(out, [UNIX | VERSION_64, VERSION_64]);
        words(out, [0, 0]);
        longs(out, [entries, entries, directory_size, directory]);
        words(out, [LOCATOR_64, 0]);
        longs(out, [at]);
        words(out, [1]);
    }
    let entries = if many { u16::MAX } else { entries as u16 };
    words(out, [END]);
    shorts(out, [0, 0, entries, entries]);
    words(out, [directory_size, directory].map(short));
    shorts(out, [0]);
    bytes
}

/// All ones say that the number stands elsewhere, so they are no number.
fn fits(number: u64) -> bool {
    number < u64::from(u32::MAX)
}

fn short(number: u64) -> u32 {
    if fits(number) { number as u32 } else { u32::MAX }
}

fn version(large: bool) -> u16 {
    if large { VERSION_64 } else { VERSION }
}

fn shorts(out: &mut Vec<u8>, numbers: impl IntoIterator<Item = u16>) {
    numbers.into_iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
}

fn words(out: &mut Vec<u8>, numbers: impl IntoIterator<Item = u32>) {
    numbers.into_iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
}

fn longs(out: &mut Vec<u8>, numbers: impl IntoIterator<Item = u64>) {
    numbers.into_iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
}

/// The time of an entry as MS-DOS writes it, in UTC; a zip knows the years 1980 to 2107.
fn date_and_time(millis: i64) -> (u16, u16) {
    let time = DateTime::from_timestamp_millis(millis).filter(|t| (1980..=2107).contains(&t.year()));
    time.map_or((1 << 5 | 1, 0), |t| {
        let date = (t.year() as u32 - 1980) << 9 | t.month() << 5 | t.day();
        let time = t.hour() << 11 | t.minute() << 5 | (t.second() / 2);
        (date as u16, time as u16)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_times_are_clamped_to_what_a_zip_can_say() {
        let first = date_and_time(315_532_800_000);
        assert_eq!(first, (1 << 5 | 1, 0));
        assert_eq!(date_and_time(0), first);
        assert_eq!(date_and_time(i64::MAX), first);
        let (date, time) = date_and_time(1_640_995_200_000 + 3_661_000);
        let time = zip::DateTime::try_from_msdos(date, time).expect("a time");
        assert_eq!((time.year(), time.month(), time.day()), (2022, 1, 1));
        assert_eq!((time.hour(), time.minute(), time.second()), (1, 1, 0));
    }
}
