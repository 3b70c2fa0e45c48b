//! Looking into a snapshot without fetching it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::io;

use bytes::Bytes;
use object_store::path::Path as ObjectPath;

use super::objects::Objects;
use crate::limits;
use crate::snapshot_file::ReadAt;

/// A snapshot that is read here and there: a file, or an object of which blocks are fetched as they are needed. Reading
/// waits for the disk or the network: not to be done on a thread of the runtime.
#[derive(Debug)]
pub enum ObjectFile {
    /// A file of a directory.
    File(File),
    /// An object.
    Blocks(Box<Blocks>),
}

/// An object, and the blocks of it that were fetched last, newest first.
#[derive(Debug)]
pub struct Blocks {
    objects: Objects,
    key: ObjectPath,
    length: u64,
    blocks: RefCell<VecDeque<(u64, Bytes)>>,
}

impl Blocks {
    pub(super) fn open(objects: &Objects, key: ObjectPath) -> io::Result<Self> {
        let length = objects.length_now(&key)?;
        Ok(Self { objects: objects.clone(), key, length, blocks: RefCell::default() })
    }

    /// The block that begins here.
    fn block(&self, begin: u64) -> io::Result<Bytes> {
        if let Some((_, bytes)) = self.blocks.borrow().iter().find(|(start, _)| *start == begin) {
            return Ok(bytes.clone());
        }
        let bytes = self.objects.read_now(&self.key, begin..self.length.min(begin + limits::BLOCK))?;
        let mut blocks = self.blocks.borrow_mut();
        blocks.truncate(limits::BLOCKS - 1);
        blocks.push_front((begin, bytes.clone()));
        Ok(bytes)
    }
}

impl ReadAt for ObjectFile {
    fn length(&self) -> io::Result<u64> {
        match self {
            Self::File(file) => file.length(),
            Self::Blocks(blocks) => Ok(blocks.length),
        }
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let blocks = match self {
            Self::File(file) => return ReadAt::read_at(file, buffer, at),
            Self::Blocks(blocks) => blocks,
        };
        if at >= blocks.length {
            return Ok(0);
        }
        let begin = at / limits::BLOCK * limits::BLOCK;
        let block = blocks.block(begin)?;
        let from = &block[(at - begin) as usize..];
        let n = from.len().min(buffer.len());
        buffer[..n].copy_from_slice(&from[..n]);
        Ok(n)
    }
}
