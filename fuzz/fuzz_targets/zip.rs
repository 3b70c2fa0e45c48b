//! A whole snapshot file: any bytes, read as an import and as a dry run do.
//!
//! Half of the mutations change bytes anywhere. The others change what is in an entry and write the archive anew, with
//! the right checksums: otherwise nothing behind the zip reader would ever be reached.
#![no_main]

use std::fs::File;
use std::io::{Seek, Write};

use exporter_worker::import::fuzzing;
use libfuzzer_sys::{Corpus, fuzz_mutator, fuzz_target, fuzzer_mutate};

fuzz_target!(|bytes: &[u8]| -> Corpus {
    for dry_run in [false, true] {
        let read = fuzzing::read(file(bytes), dry_run);
        // A fault has a code; what is none is a failure of the machine, or of the reader.
        if let Err(error) = read {
            assert!(error.fault().is_some(), "{error:?}");
        }
    }
    Corpus::Keep
});

fn file(bytes: &[u8]) -> File {
    let memory = rustix::fs::memfd_create("snapshot", rustix::fs::MemfdFlags::CLOEXEC).expect("memory");
    let mut file = File::from(memory);
    file.write_all(bytes).and_then(|()| file.rewind()).expect("written");
    file
}

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    if seed % 2 == 0
        && let Some(new) = with_another_entry(&data[..size], seed / 2)
        && new.len() <= max_size
    {
        data[..new.len()].copy_from_slice(&new);
        return new.len();
    }
    fuzzer_mutate(data, size, max_size)
});

/// The stored entries of an archive, names and contents.
fn entries(zip: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut entries = Vec::new();
    let mut rest = zip;
    while let Some(header) = rest.strip_prefix(b"PK\x03\x04").filter(|header| header.len() >= 26) {
        let number = |at: usize| usize::from(u16::from_le_bytes([header[at], header[at + 1]]));
        let (length, name, extra) = (number(14) | number(16) << 16, number(22), number(24));
        let Some(end) = (26 + name + extra).checked_add(length).filter(|end| *end <= header.len()) else { break };
        entries.push((header[26..26 + name].to_vec(), header[26 + name + extra..end].to_vec()));
        rest = &header[end..];
    }
    entries
}

fn with_another_entry(zip: &[u8], choice: u32) -> Option<Vec<u8>> {
    let mut entries = entries(zip);
    if entries.is_empty() {
        return None;
    }
    let index = (choice / 16) as usize % entries.len();
    match choice % 16 {
        0 => drop(entries.remove(index)),
        1 => {
            let copy = entries[index].clone();
            entries.push(copy);
        }
        2 | 3 => mutate(&mut entries[index].0),
        _ => mutate(&mut entries[index].1),
    }
    Some(write(&entries))
}

fn mutate(bytes: &mut Vec<u8>) {
    let size = bytes.len();
    bytes.resize(size + 64, 0);
    let size = fuzzer_mutate(bytes, size, size + 64);
    bytes.truncate(size);
}

fn write(entries: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let (mut zip, mut directory) = (Vec::new(), Vec::new());
    for (name, data) in entries {
        let mut crc = flate2::Crc::new();
        crc.update(data);
        let mut common = vec![20, 0, 0, 0, 0, 0, 0, 0, 0x21, 0];
        common.extend(crc.sum().to_le_bytes());
        common.extend((data.len() as u32).to_le_bytes());
        common.extend((data.len() as u32).to_le_bytes());
        common.extend((name.len() as u16).to_le_bytes());
        common.extend([0, 0]);
        directory.extend(b"PK\x01\x02\x14\x03");
        directory.extend(&common);
        directory.extend([0; 10]);
        directory.extend((zip.len() as u32).to_le_bytes());
        directory.extend(name);
        zip.extend(b"PK\x03\x04");
        zip.extend(&common);
        zip.extend(name);
        zip.extend(data);
    }
    let (at, count) = (zip.len() as u32, entries.len() as u16);
    zip.extend(&directory);
    zip.extend(b"PK\x05\x06\0\0\0\0");
    zip.extend(count.to_le_bytes());
    zip.extend(count.to_le_bytes());
    zip.extend((directory.len() as u32).to_le_bytes());
    zip.extend(at.to_le_bytes());
    zip.extend([0, 0]);
    zip
}
