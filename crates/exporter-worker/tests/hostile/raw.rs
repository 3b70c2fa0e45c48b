//! Archives byte by byte: everything that a zip library would not write.

use std::io::Write;

use flate2::Compression;
use flate2::write::DeflateEncoder;

pub(crate) const STORED: u16 = 0;
pub(crate) const DEFLATED: u16 = 8;

/// What a local and a central header have in common.
#[derive(Clone, Default)]
pub(crate) struct Header {
    pub(crate) name: Vec<u8>,
    pub(crate) flags: u16,
    pub(crate) method: u16,
    pub(crate) crc: u32,
    pub(crate) compressed: u32,
    pub(crate) size: u32,
    pub(crate) extra: Vec<u8>,
}

/// An entry. Local and central header agree until a test says otherwise.
#[derive(Clone, Default)]
pub(crate) struct Entry {
    pub(crate) local: Header,
    /// What lies between the local header and the next one.
    pub(crate) data: Vec<u8>,
    pub(crate) central: Header,
    pub(crate) made_by: u16,
    pub(crate) attributes: u32,
    pub(crate) disk: u16,
    pub(crate) comment: Vec<u8>,
    /// Where the local header is, if not where it is.
    pub(crate) offset: Option<u32>,
    /// Is not written; the central header stands for something else.
    pub(crate) no_local: bool,
    /// Is not listed.
    pub(crate) no_central: bool,
}

impl Entry {
    pub(crate) fn stored(name: impl AsRef<[u8]>, bytes: impl AsRef<[u8]>) -> Self {
        Self::new(name.as_ref(), STORED, bytes.as_ref(), bytes.as_ref().to_vec())
    }

    pub(crate) fn deflated(name: impl AsRef<[u8]>, bytes: impl AsRef<[u8]>) -> Self {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes.as_ref()).unwrap();
        Self::new(name.as_ref(), DEFLATED, bytes.as_ref(), encoder.finish().unwrap())
    }

    fn new(name: &[u8], method: u16, bytes: &[u8], data: Vec<u8>) -> Self {
        let header = Header {
            name: name.to_vec(),
            method,
            crc: crc(bytes),
            compressed: data.len() as u32,
            size: bytes.len() as u32,
            ..Header::default()
        };
        // Made on a Unix: attributes have a mode.
        Self { local: header.clone(), central: header, data, made_by: 3 << 8 | 20, ..Self::default() }
    }

    /// Changes both headers.
    pub(crate) fn both(mut self, change: impl Fn(&mut Header)) -> Self {
        change(&mut self.local);
        change(&mut self.central);
        self
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    pub(crate) fn mode(self, mode: u32) -> Self {
        self.with(|entry| entry.attributes = mode << 16)
    }

    pub(crate) fn local_bytes(&self) -> Vec<u8> {
        let mut out = b"PK\x03\x04".to_vec();
        self.local.write(&mut out);
        numbers(&mut out, &[self.local.name.len(), self.local.extra.len()]);
        out.extend(&self.local.name);
        out.extend(&self.local.extra);
        out
    }

    pub(crate) fn central_bytes(&self, offset: u32) -> Vec<u8> {
        let mut out = b"PK\x01\x02".to_vec();
        out.extend(self.made_by.to_le_bytes());
        self.central.write(&mut out);
        numbers(&mut out, &[self.central.name.len(), self.central.extra.len(), self.comment.len()]);
        numbers(&mut out, &[usize::from(self.disk), 0]);
        out.extend(self.attributes.to_le_bytes());
        out.extend(self.offset.unwrap_or(offset).to_le_bytes());
        out.extend(&self.central.name);
        out.extend(&self.central.extra);
        out.extend(&self.comment);
        out
    }
}

impl Header {
    fn write(&self, out: &mut Vec<u8>) {
        // Version 4.5, any date.
        numbers(out, &[45, usize::from(self.flags), usize::from(self.method), 0, 0x5421]);
        for number in [self.crc, self.compressed, self.size] {
            out.extend(number.to_le_bytes());
        }
    }
}

/// Numbers of two bytes.
fn numbers(out: &mut Vec<u8>, numbers: &[usize]) {
    for number in numbers {
        out.extend(u16::try_from(*number).unwrap().to_le_bytes());
    }
}

pub(crate) fn crc(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// The zip64 extra field: the 64-bit values of fields that are `u32::MAX`.
pub(crate) fn zip64(values: &[u64]) -> Vec<u8> {
    let mut out = vec![1, 0, (values.len() * 8) as u8, 0];
    out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    out
}

/// The record at the very end.
#[derive(Clone, Default)]
pub(crate) struct End {
    pub(crate) this_disk: u16,
    pub(crate) directory_disk: u16,
    pub(crate) entries_here: u16,
    pub(crate) entries: u16,
    pub(crate) size: u32,
    pub(crate) offset: u32,
    pub(crate) comment: Vec<u8>,
    /// Says that the comment is of this length.
    pub(crate) comment_length: Option<u16>,
    pub(crate) zip64: Option<End64>,
}

/// The zip64 record and its locator.
#[derive(Clone, Default)]
pub(crate) struct End64 {
    pub(crate) record_size: u64,
    pub(crate) this_disk: u32,
    pub(crate) directory_disk: u32,
    pub(crate) entries_here: u64,
    pub(crate) entries: u64,
    pub(crate) size: u64,
    pub(crate) offset: u64,
    pub(crate) disks: u32,
    /// Where the locator says the record is, if not where it is.
    pub(crate) at: Option<u64>,
}

impl End {
    /// Moves everything to a zip64 record.
    pub(crate) fn in_64(&mut self) -> &mut End64 {
        let zip64 = End64 {
            record_size: 44,
            entries_here: self.entries_here.into(),
            entries: self.entries.into(),
            size: self.size.into(),
            offset: self.offset.into(),
            disks: 1,
            ..End64::default()
        };
        (self.entries_here, self.entries, self.size, self.offset) = (u16::MAX, u16::MAX, u32::MAX, u32::MAX);
        self.zip64.insert(zip64)
    }

    pub(crate) fn bytes(&self, at: u64) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some(zip64) = &self.zip64 {
            out.extend(b"PK\x06\x06");
            out.extend(zip64.record_size.to_le_bytes());
            out.extend([45, 3, 45, 0]);
            out.extend(zip64.this_disk.to_le_bytes());
            out.extend(zip64.directory_disk.to_le_bytes());
            for number in [zip64.entries_here, zip64.entries, zip64.size, zip64.offset] {
                out.extend(number.to_le_bytes());
            }
            out.extend(b"PK\x06\x07");
            out.extend(zip64.directory_disk.to_le_bytes());
            out.extend(zip64.at.unwrap_or(at).to_le_bytes());
            out.extend(zip64.disks.to_le_bytes());
        }
        out.extend(b"PK\x05\x06");
        for number in [self.this_disk, self.directory_disk, self.entries_here, self.entries] {
            out.extend(number.to_le_bytes());
        }
        out.extend(self.size.to_le_bytes());
        out.extend(self.offset.to_le_bytes());
        out.extend(self.comment_length.unwrap_or(self.comment.len() as u16).to_le_bytes());
        out.extend(&self.comment);
        out
    }
}

/// An archive.
#[derive(Clone, Default)]
pub(crate) struct Raw {
    pub(crate) entries: Vec<Entry>,
}

impl Raw {
    pub(crate) fn entry(&mut self, name: &str) -> &mut Entry {
        let found = self.entries.iter_mut().find(|entry| entry.central.name == name.as_bytes());
        found.unwrap_or_else(|| panic!("no entry {name}"))
    }

    /// Replaces the contents of an entry, or adds one.
    pub(crate) fn put(&mut self, name: &str, bytes: impl AsRef<[u8]>) {
        let new = Entry::deflated(name, bytes);
        match self.entries.iter_mut().find(|entry| entry.central.name == name.as_bytes()) {
            Some(entry) => *entry = new,
            None => self.entries.push(new),
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.bytes_with(Vec::new(), |_| ())
    }

    /// Writes the archive behind a prefix, with an end record that may lie.
    pub(crate) fn bytes_with(&self, prefix: Vec<u8>, change: impl FnOnce(&mut End)) -> Vec<u8> {
        let (mut out, mut directory, mut listed) = (prefix, Vec::new(), 0);
        for entry in &self.entries {
            let offset = out.len() as u32;
            if !entry.no_local {
                out.extend(entry.local_bytes());
                out.extend(&entry.data);
            }
            if !entry.no_central {
                directory.extend(entry.central_bytes(offset));
                listed += 1;
            }
        }
        let mut end = End {
            entries_here: listed,
            entries: listed,
            size: directory.len() as u32,
            offset: out.len() as u32,
            ..End::default()
        };
        change(&mut end);
        out.extend(directory);
        let at = out.len() as u64;
        out.extend(end.bytes(at));
        out
    }
}
