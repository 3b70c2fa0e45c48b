//! A snapshot on a unit, read where it is needed: in blocks by `Range`, which grow where reading goes on and on.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, Read, Seek, SeekFrom};
use std::rc::Rc;

use model::snapshot_file::sought;

use crate::client::{Client, Request};
use crate::failure::{Exit, Failure};
use crate::limits;

/// The file. It is one version of it: when that is replaced, reading fails.
pub(crate) struct RemoteFile {
    client: Client,
    url: String,
    etag: String,
    size: u64,
    position: u64,
    /// The last ones that were read, newest first.
    blocks: VecDeque<Block>,
    /// Where the last block ended, and how long it was.
    last: (u64, u64),
    /// Bytes that may still be moved.
    allowance: Rc<RefCell<u64>>,
    /// What went wrong, in better words than a reader has.
    failed: Rc<RefCell<Option<Failure>>>,
}

struct Block {
    start: u64,
    bytes: Vec<u8>,
}

/// What the owner of a file that was given away keeps.
#[derive(Clone)]
pub(crate) struct Watch {
    allowance: Rc<RefCell<u64>>,
    failed: Rc<RefCell<Option<Failure>>>,
}

impl Watch {
    /// Allows so many bytes to be moved from now on, beside a margin.
    pub(crate) fn allow(&self, bytes: u64) {
        *self.allowance.borrow_mut() = bytes.saturating_add(limits::READ_BESIDE);
    }

    /// Takes what went wrong.
    pub(crate) fn failure(&self) -> Option<Failure> {
        self.failed.borrow_mut().take()
    }
}

impl RemoteFile {
    /// Opens a file by reading its end.
    pub(crate) fn open(client: &Client, url: &str) -> Result<(Self, Watch), Failure> {
        let request = Request::of_file(url).header("Range", format!("bytes=-{}", limits::TAIL));
        let answer = client.send_accepting(&request.of_length(limits::TAIL), &[416])?;
        let no_ranges = || Failure::new(Exit::Other, format!("{url} cannot be read in parts"));
        if answer.status() == 416 {
            return Err(Failure::new(Exit::Faulty, format!("{url} is empty")));
        }
        let (start, size) = answer.part().ok_or_else(no_ranges)?;
        let etag = answer.etag().ok_or_else(no_ranges)?;
        let bytes = answer.read(limits::TAIL + 1)?;
        if start + bytes.len() as u64 != size {
            return Err(no_ranges());
        }
        let watch = Watch { allowance: Rc::default(), failed: Rc::default() };
        watch.allow(0);
        let file = Self {
            client: client.clone(),
            url: url.to_owned(),
            etag,
            size,
            position: 0,
            blocks: VecDeque::from([Block { start, bytes }]),
            last: (size, 0),
            allowance: Rc::clone(&watch.allowance),
            failed: Rc::clone(&watch.failed),
        };
        Ok((file, watch))
    }

    /// Reads the block at a place that no block has.
    fn fetch(&mut self, at: u64) -> Result<(), Failure> {
        let (end, length) = self.last;
        let wanted = if at == end { (length * 2).clamp(limits::BLOCK, limits::BLOCK_MAX) } else { limits::BLOCK };
        // Up to what is there already.
        let next = self.blocks.iter().map(|block| block.start).filter(|start| *start > at).min();
        let length = wanted.min(next.unwrap_or(self.size) - at);
        let left = self.allowance.borrow().checked_sub(length);
        let left = left.ok_or_else(|| Failure::new(Exit::Faulty, format!("{} leads here and there", self.url)))?;
        *self.allowance.borrow_mut() = left;
        let replaced = || Failure::new(Exit::Conflict, format!("{} was replaced while it was read", self.url));
        let request = Request::of_file(&self.url)
            .header("Range", format!("bytes={at}-{}", at + length - 1))
            .header("If-Range", &self.etag)
            .of_length(length);
        let mut attempt = 0;
        let bytes = loop {
            attempt += 1;
            let answer = self.client.send_accepting(&request, &[404, 416])?;
            if answer.part() != Some((at, self.size)) || answer.etag().as_ref() != Some(&self.etag) {
                return Err(replaced());
            }
            match answer.read(length + 1) {
                Ok(bytes) if bytes.len() as u64 == length => break bytes,
                Ok(_) if attempt >= self.client.tries() => {
                    return Err(Failure::new(Exit::Unavailable, format!("{} breaks off", self.url)));
                }
                Err(failure) if attempt >= self.client.tries() => return Err(failure),
                Ok(_) => {}
                Err(failure) => self.client.pause(attempt, None, &failure),
            }
        };
        self.last = (at + length, length);
        self.blocks.truncate(limits::BLOCKS - 1);
        self.blocks.push_front(Block { start: at, bytes });
        Ok(())
    }

    /// What is known from a place on.
    fn known(&self, at: u64) -> Option<&[u8]> {
        self.blocks.iter().find_map(|block| {
            let from = usize::try_from(at.checked_sub(block.start)?).ok()?;
            block.bytes.get(from..).filter(|bytes| !bytes.is_empty())
        })
    }
}

impl Read for RemoteFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position >= self.size || buffer.is_empty() {
            return Ok(0);
        }
        if self.known(self.position).is_none()
            && let Err(failure) = self.fetch(self.position)
        {
            let error = io::Error::other(failure.clone());
            *self.failed.borrow_mut() = Some(failure);
            return Err(error);
        }
        let bytes = self.known(self.position).unwrap_or_default();
        let n = bytes.len().min(buffer.len());
        buffer[..n].copy_from_slice(&bytes[..n]);
        self.position += n as u64;
        Ok(n)
    }
}

impl Seek for RemoteFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = sought(to, self.position, self.size)?;
        Ok(self.position)
    }
}
