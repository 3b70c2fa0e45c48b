//! Downloading: into a part file beside the file, from where an earlier try ended if it is still the same snapshot; what
//! stands under the file's name in the end is whole, has the digest that the unit names, and is on the disk.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::client::{Answer, Client, Request};
use crate::failure::{Exit, Failure};
use crate::interrupt::{self, Interruption};
use crate::limits;
use crate::progress::Progress;
use crate::terminal::{Contents, Output, cannot_write, contents, say};

/// What the unit says of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct About {
    etag: Option<String>,
    size: u64,
    sha256: Option<[u8; 32]>,
}

/// Downloads a file. `again` is the command that does so.
pub(crate) fn download(
    client: &Client,
    output: Output,
    url: &str,
    to: &Path,
    force: bool,
    again: &str,
) -> Result<(), Failure> {
    let is_stdout = to == Path::new("-");
    if !is_stdout && !force && to.symlink_metadata().is_ok() {
        return Err(exists(to));
    }
    let mut sink = Sink::open(is_stdout, to)?;
    if let Sink::Part(part) = &sink {
        let keeps = format!("{} keeps what has come; go on with: {again}", part.path.display());
        interrupt::means(Interruption::Leave(keeps));
    }
    let mut progress = Progress::new(output);
    let mut beginnings = 0;
    let about = loop {
        beginnings += 1;
        let about = look(client, url)?;
        sink.begin(&about)?;
        match fetch(client, url, &about, &mut sink, &mut progress)? {
            Fetched::Whole => break about,
            Fetched::Replaced if beginnings < limits::BEGINNINGS && sink.may_begin_anew() => {}
            Fetched::Replaced => {
                return Err(Failure::new(Exit::Conflict, format!("{url} was replaced while it was downloaded")));
            }
        }
    };
    drop(progress);
    let digest = sink.digest();
    match about.sha256 {
        Some(expected) if expected != digest => {
            sink.give_up();
            let what = format!("what came of {url} is not what the unit says it is (SHA-256), and was thrown away");
            return Err(Failure::new(Exit::Faulty, what).next(format!("try again with: {again}")));
        }
        Some(_) => {}
        None => say("cellexport: the unit names no digest; only the length was compared"),
    }
    let sha256 = hex::encode(digest);
    match sink {
        // The result would stand in the middle of the contents.
        Sink::Stdout { mut contents, .. } => contents.flush().map_err(cannot_write),
        Sink::Part(part) => {
            part.finish(to, force)?;
            let line = format!("downloaded {}, {} bytes, sha256 {sha256}", to.display(), about.size);
            let document =
                json!({ "file": to, "size": about.size, "sha256": sha256, "verified": about.sha256.is_some() });
            output.result(&[line], &document)
        }
    }
}

fn exists(file: &Path) -> Failure {
    Failure::new(Exit::Conflict, format!("{} exists", file.display())).next("--force overwrites it")
}

/// Asks what there is.
fn look(client: &Client, url: &str) -> Result<About, Failure> {
    let answer = match client.send(&Request::new("HEAD", url)) {
        Ok(answer) => answer,
        Err(failure) if failure.exit == Exit::Unavailable => return Err(failure),
        // Answers to HEAD have no words.
        Err(failure) => {
            let spoken = client.send(&Request::of_file(url).header("Range", "bytes=0-0"));
            return Err(spoken.err().unwrap_or(failure));
        }
    };
    let size = answer.header("content-length").and_then(|length| length.parse().ok());
    let size = size.ok_or_else(|| Failure::new(Exit::Other, format!("{url} has no length")))?;
    Ok(About { etag: answer.etag(), size, sha256: answer.header("repr-digest").and_then(sha256_of) })
}

/// The SHA-256 of a `Repr-Digest` (RFC 9530).
fn sha256_of(field: &str) -> Option<[u8; 32]> {
    let text = field.split(',').find_map(|digest| digest.trim().strip_prefix("sha-256=:"))?.strip_suffix(':')?;
    STANDARD.decode(text).ok()?.try_into().ok()
}

enum Fetched {
    Whole,
    Replaced,
}

fn fetch(
    client: &Client,
    url: &str,
    about: &About,
    sink: &mut Sink,
    progress: &mut Progress,
) -> Result<Fetched, Failure> {
    let mut attempt = 0;
    progress.bytes(sink.length(), Some(about.size));
    while sink.length() < about.size {
        let from = sink.length();
        let mut request = Request::of_file(url).of_length(about.size - from);
        if let Some(etag) = about.etag.as_ref().filter(|_| from > 0) {
            request = request.header("Range", format!("bytes={from}-")).header("If-Range", etag);
        }
        let answer = client.send_accepting(&request, &[416])?;
        let is_same = answer.etag() == about.etag;
        let is_rest = answer.part() == Some((from, about.size));
        let is_whole = answer.status() == 200 && answer.header("content-length") == Some(&about.size.to_string());
        if !is_same || !(is_rest || is_whole) {
            return Ok(Fetched::Replaced);
        }
        if is_whole && from > 0 && !sink.begin_anew()? {
            return Err(Failure::new(Exit::Unavailable, format!("{url} broke off, and cannot be gone on with")));
        }
        let broken = take(answer, about.size, sink, progress)?;
        attempt = if sink.length() > from { 1 } else { attempt + 1 };
        if sink.length() < about.size {
            let why = broken.map_or_else(|| "the connection ended early".to_owned(), |error| error.to_string());
            let failure = Failure::new(Exit::Unavailable, format!("the download broke off: {why}"));
            if attempt >= client.tries() {
                return Err(failure);
            }
            client.pause(attempt, None, &failure);
        }
    }
    Ok(Fetched::Whole)
}

/// Takes the body of an answer; gives back what broke it off.
fn take(answer: Answer, size: u64, sink: &mut Sink, progress: &mut Progress) -> Result<Option<io::Error>, Failure> {
    let mut body = answer.into_reader().take(size - sink.length());
    let mut piece = vec![0; limits::PIECE];
    loop {
        match body.read(&mut piece) {
            Ok(0) => return Ok(None),
            Ok(n) => {
                sink.write(&piece[..n])?;
                progress.bytes(sink.length(), Some(size));
            }
            Err(error) => return Ok(Some(error)),
        }
    }
}

/// Where the bytes go.
enum Sink {
    Stdout { contents: Contents, sha256: Sha256, length: u64 },
    Part(Part),
}

impl Sink {
    fn open(is_stdout: bool, to: &Path) -> Result<Self, Failure> {
        match is_stdout {
            true => Ok(Self::Stdout { contents: contents(), sha256: Sha256::new(), length: 0 }),
            false => Part::open(to).map(Self::Part),
        }
    }

    fn begin(&mut self, about: &About) -> Result<(), Failure> {
        match self {
            Self::Stdout { .. } => Ok(()),
            Self::Part(part) => part.begin(about),
        }
    }

    fn length(&self) -> u64 {
        match self {
            Self::Stdout { length, .. } | Self::Part(Part { length, .. }) => *length,
        }
    }

    fn may_begin_anew(&self) -> bool {
        matches!(self, Self::Part(_)) || self.length() == 0
    }

    /// Forgets what has come, where that can be done.
    fn begin_anew(&mut self) -> Result<bool, Failure> {
        match self {
            Self::Stdout { .. } => Ok(false),
            Self::Part(part) => part.empty().map(|()| true),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let (sha256, length) = match self {
            Self::Stdout { contents, sha256, length } => {
                contents.write_all(bytes).map_err(cannot_write)?;
                (sha256, length)
            }
            Self::Part(part) => {
                part.file.write_all(bytes).map_err(|e| part.cannot("write", e))?;
                (&mut part.sha256, &mut part.length)
            }
        };
        sha256.update(bytes);
        *length += bytes.len() as u64;
        Ok(())
    }

    fn digest(&self) -> [u8; 32] {
        match self {
            Self::Stdout { sha256, .. } | Self::Part(Part { sha256, .. }) => sha256.clone().finalize().into(),
        }
    }

    fn give_up(self) {
        if let Self::Part(part) = self {
            _ = fs::remove_file(&part.note);
            _ = fs::remove_file(&part.path);
        }
    }
}

/// The part file: locked while somebody downloads into it. A note beside it says of what it is a part.
struct Part {
    file: File,
    path: PathBuf,
    note: PathBuf,
    sha256: Sha256,
    length: u64,
}

fn beside(file: &Path, extension: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(extension);
    name.into()
}

impl Part {
    fn open(to: &Path) -> Result<Self, Failure> {
        let (path, note) = (beside(to, ".part"), beside(to, ".part.etag"));
        let cannot = |error: io::Error| Failure::cannot(format!("write {}", path.display()), error);
        loop {
            // All that somebody has is nobody else's business.
            let opening =
                OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
            let file = opening.map_err(cannot)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(Failure::new(Exit::Conflict, format!("{} is being downloaded already", to.display())));
                }
                Err(TryLockError::Error(error)) => return Err(cannot(error)),
            }
            // Whoever had the lock may have given the file its final name.
            let (ours, there) = (file.metadata().map_err(cannot)?, fs::metadata(&path));
            if there.is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
                return Ok(Self { file, path, note, sha256: Sha256::new(), length: 0 });
            }
        }
    }

    fn cannot(&self, what: &str, error: io::Error) -> Failure {
        Failure::cannot(format!("{what} {}", self.path.display()), error)
    }

    /// Goes on from what is there, if it is a part of this file; forgets it otherwise.
    fn begin(&mut self, about: &About) -> Result<(), Failure> {
        let noted = || {
            let mut text = String::new();
            File::open(&self.note).ok()?.take(limits::PART_NOTE).read_to_string(&mut text).ok().map(|_| text)
        };
        let there = self.file.metadata().map_err(|e| self.cannot("read", e))?.len();
        let is_part = about.etag.is_some() && noted() == about.etag && there <= about.size;
        self.empty_unless(is_part)?;
        match &about.etag {
            Some(etag) if !is_part => fs::write(&self.note, etag).map_err(|e| self.cannot("write the note of", e)),
            Some(_) | None => Ok(()),
        }
    }

    fn empty_unless(&mut self, is_part: bool) -> Result<(), Failure> {
        self.empty_position()?;
        if !is_part {
            return self.file.set_len(0).map_err(|e| self.cannot("write", e));
        }
        let mut piece = vec![0; limits::PIECE];
        loop {
            match self.file.read(&mut piece).map_err(|e| self.cannot("read", e))? {
                0 => return Ok(()),
                n => {
                    self.sha256.update(&piece[..n]);
                    self.length += n as u64;
                }
            }
        }
    }

    fn empty_position(&mut self) -> Result<(), Failure> {
        io::Seek::rewind(&mut self.file).map_err(|e| self.cannot("read", e))?;
        (self.sha256, self.length) = (Sha256::new(), 0);
        Ok(())
    }

    fn empty(&mut self) -> Result<(), Failure> {
        self.empty_unless(false)
    }

    /// Gives the file its name, when it is on the disk.
    fn finish(self, to: &Path, force: bool) -> Result<(), Failure> {
        let cannot = |error: io::Error| Failure::cannot(format!("write {}", to.display()), error);
        self.file.sync_all().map_err(cannot)?;
        let renamed = match force {
            true => fs::rename(&self.path, to),
            false => match renameat_with(CWD, &self.path, CWD, to, RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => return Err(exists(to)),
                // Not every file system can do both in one.
                Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) if to.symlink_metadata().is_err() => {
                    fs::rename(&self.path, to)
                }
                Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => return Err(exists(to)),
                renamed => renamed.map_err(io::Error::from),
            },
        };
        renamed.map_err(cannot)?;
        _ = fs::remove_file(&self.note);
        let directory = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(cannot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_read_as_the_standard_has_them() {
        let empty = "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:";
        let expected: [u8; 32] = Sha256::digest("").into();
        assert_eq!(sha256_of(empty), Some(expected));
        assert_eq!(sha256_of(&format!("sha-512=:AAAA:, {empty}")), Some(expected));
        for none in ["", "sha-256=", "sha-256=:AAAA:", "sha-256=:****:"] {
            assert_eq!(sha256_of(none), None, "{none}");
        }
    }
}
