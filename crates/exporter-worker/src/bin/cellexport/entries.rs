//! `ls` and `cat`: entries of a snapshot, in a file or on a unit. Whatever the number of entries, memory stays the same.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use model::limits::CENTRAL_DIRECTORY;
use model::snapshot_file::{FROM_THE_BEGINNING, SteadyReader};
use serde_json::json;
use zip::ZipReadOptions;
use zip::read::OwnedZipFileEntry;
use zip::result::ZipError;
use zip::unstable::read::ZipIterable;

use crate::cell;
use crate::client::Client;
use crate::configuration::Configuration;
use crate::failure::{Exit, Failure};
use crate::limits;
use crate::remote_file::{RemoteFile, Watch};
use crate::terminal::{cannot_write, contents, json_text, shown};

trait Place: Read + Seek {}
impl<T: Read + Seek> Place for T {}

/// The record at the end of an archive that has no comment, as those of snapshots.
const END: u64 = 22;

/// An open snapshot.
struct Snapshot {
    name: String,
    file: SteadyReader<Box<dyn Place>>,
    /// Of a remote one.
    watch: Option<Watch>,
}

impl Snapshot {
    fn open(name: &str, client: &Client, configuration: &Configuration) -> Result<Self, Failure> {
        let (mut file, watch): (Box<dyn Place>, _) = if name.contains("://") {
            cell::check(name, configuration)?;
            let (file, watch) = RemoteFile::open(client, name)?;
            watch.allow(CENTRAL_DIRECTORY);
            (Box::new(file), Some(watch))
        } else {
            (Box::new(open(Path::new(name))?), None)
        };
        // Left to itself, the zip library would look for the end of an archive in the whole file.
        let mut end = [0; 4];
        let there = file.seek(SeekFrom::End(-(END as i64))).and_then(|_| file.read_exact(&mut end));
        let mut snapshot = Self { name: name.to_owned(), file: SteadyReader::new(file), watch };
        match there {
            Ok(()) if end == *b"PK\x05\x06" => Ok(snapshot),
            Ok(()) => Err(snapshot.faulty("no snapshot, or not all of one")),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Err(snapshot.faulty("too short")),
            Err(error) => Err(snapshot.broken(ZipError::Io(error))),
        }
    }

    fn faulty(&mut self, what: impl std::fmt::Display) -> Failure {
        Failure::new(Exit::Faulty, format!("{}: {what}", self.name))
    }

    /// The words for what the zip library met.
    fn broken(&mut self, error: ZipError) -> Failure {
        if let Some(failure) = self.watch.as_ref().and_then(Watch::failure) {
            return failure;
        }
        self.faulty(error)
    }
}

/// Opens a file on this machine.
pub(crate) fn open(path: &Path) -> Result<File, Failure> {
    File::open(path).map_err(|error| {
        let exit = if error.kind() == io::ErrorKind::NotFound { Exit::NotFound } else { Exit::Other };
        Failure::new(exit, format!("cannot read {}: {error}", path.display()))
    })
}

/// Lists the entries.
pub(crate) fn ls(client: &Client, configuration: &Configuration, name: &str) -> Result<(), Failure> {
    let mut snapshot = Snapshot::open(name, client, configuration)?;
    let mut stdout = io::BufWriter::new(io::stdout().lock());
    let json = configuration.output.json;
    let (mut begun, mut unwritten) = (false, None);
    let listed = (|| -> Result<(), ZipError> {
        let mut zip = ZipIterable::try_new(&mut snapshot.file, FROM_THE_BEGINNING)?;
        for entry in zip.files()? {
            let entry = entry?;
            let name = String::from_utf8_lossy(entry.name_raw());
            let line = if json {
                let (size, compressed, crc32) =
                    (entry.size(), entry.compressed_size(), format!("{:08x}", entry.crc32()));
                let document = json!({ "name": name, "size": size, "compressed_size": compressed, "crc32": crc32 });
                format!("{}{}", if begun { ",\n" } else { "{\"entries\":[\n" }, json_text(&document))
            } else {
                format!("{:>14}  {}\n", entry.size(), shown(&name))
            };
            if let Err(error) = stdout.write_all(line.as_bytes()) {
                unwritten = Some(error);
                break;
            }
            begun = true;
        }
        Ok(())
    })();
    if let Some(error) = unwritten {
        return Err(cannot_write(error));
    }
    listed.map_err(|error| snapshot.broken(error))?;
    if json {
        let end = if begun { "\n]}\n" } else { "{\"entries\":[]}\n" };
        stdout.write_all(end.as_bytes()).map_err(cannot_write)?;
    }
    stdout.flush().map_err(cannot_write)
}

/// Prints one entry.
pub(crate) fn cat(client: &Client, configuration: &Configuration, name: &str, entry: &str) -> Result<(), Failure> {
    let mut snapshot = Snapshot::open(name, client, configuration)?;
    let found = (|| -> Result<_, ZipError> {
        let mut zip = ZipIterable::try_new(&mut snapshot.file, FROM_THE_BEGINNING)?;
        for found in zip.files()? {
            let found = found?;
            if found.name_raw() == entry.as_bytes() {
                return Ok(Some(found));
            }
        }
        Ok(None)
    })();
    let Some(found) = found.map_err(|error| snapshot.broken(error))? else {
        let what = format!("{name} has no entry {entry}");
        return Err(Failure::new(Exit::NotFound, what).next("cellexport ls lists them"));
    };
    if let Some(watch) = &snapshot.watch {
        watch.allow(found.compressed_size());
    }
    // A reader that owned its entry would read to the entry's end when it is dropped.
    let found = OwnedZipFileEntry::from(found);
    let size = found.size();
    let mut stdout = contents();
    let (mut piece, mut done) = (vec![0; limits::PIECE], 0);
    let mut unwritten = None;
    let read = (|| -> Result<(), ZipError> {
        let mut reader = found.as_ref().with_reader(&mut snapshot.file, ZipReadOptions::new())?.take(size + 1);
        loop {
            let n = reader.read(&mut piece)?;
            done += n as u64;
            if n == 0 {
                return Ok(());
            }
            if let Err(error) = stdout.write_all(&piece[..n]) {
                unwritten = Some(error);
                return Ok(());
            }
        }
    })();
    if let Some(error) = unwritten {
        return Err(cannot_write(error));
    }
    read.map_err(|error| snapshot.broken(error))?;
    if done != size {
        return Err(snapshot.faulty(format!("{entry} is not as long as the archive says")));
    }
    stdout.flush().map_err(cannot_write)
}
