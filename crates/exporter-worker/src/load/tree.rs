//! The file tree: its metadata is checked, its contents become blobs, its rows wait in temporary files.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use model::area::blob_key;
use model::cell::is_id;
use model::layout;
use model::limits;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use uuid::Uuid;

use super::Shared;
use super::archive::Archive;
use super::copy_out::CopyBuffer;
use super::error::LoadError;
use super::identity::Identity;
use super::metered::Metered;

/// Contents up to this size are put in one piece, larger ones in pieces of it.
const PART: usize = 8 << 20;

/// Rows for the database, and what they add up to.
pub(super) struct Spool {
    /// Rows of `blob`.
    pub(super) blobs: File,
    /// Rows of `node`.
    pub(super) nodes: File,
    /// File contents.
    pub(super) files: u64,
    /// Their bytes.
    pub(super) bytes: u64,
}

/// What an archive holds at one path: indexes of entries.
#[derive(Debug, Default)]
struct Parts {
    pmeta: Option<usize>,
    content: Option<usize>,
    /// A plain file that is neither: a leftover of a unit.
    leftover: Option<usize>,
    has_children: bool,
}

/// Checks the tree and stores its contents.
pub(super) fn store(
    archive: &mut Archive,
    shared: &Shared,
    identity: &Identity,
    runtime: &Handle,
) -> Result<Spool, LoadError> {
    let nodes = nodes(archive)?;
    let spool = || tempfile::tempfile_in(&shared.scratch).map_err(unspooled);
    let mut writer = Rows { nodes: (CopyBuffer::new(), spool()?), blobs: (CopyBuffer::new(), spool()?) };
    let (mut files, mut bytes) = (0, 0);
    let cell = identity.id.as_str().as_bytes();
    for (path, parts) in &nodes {
        let pmeta = match (parts.pmeta, parts.leftover) {
            (Some(index), _) => Some(pmeta(archive, index, path, parts)?),
            (None, Some(_)) => None,
            (None, None) => {
                let shown = format!("{}{path}", layout::WEBDAV_DIR);
                return Err(LoadError::entry(&shown, "a directory without .pmeta"));
            }
        };
        let expected = pmeta.as_ref().and_then(|(_, length)| *length);
        let content = match parts.content.or(parts.leftover) {
            Some(index) => Some(content(archive, index, expected, shared, runtime)?),
            None => None,
        };
        if let Some(blob) = &content {
            files += 1;
            bytes += blob.size;
            let size = (blob.size as i64).to_be_bytes();
            writer.blobs.0.row(&[Some(blob.id.as_bytes()), Some(cell), Some(&size), Some(&blob.sha256)]);
        }
        let text = pmeta.as_ref().map(|(text, _)| text.as_bytes());
        let id = content.as_ref().map(|blob| blob.id.as_bytes().as_slice());
        writer.nodes.0.row(&[Some(cell), Some(path.as_bytes()), text, id]);
        writer.flush(limits::PIECE)?;
    }
    let (nodes, blobs) = writer.finish()?;
    Ok(Spool { blobs, nodes, files, bytes })
}

/// Gathers the entries of each path; parents of an entry are directories, named or not.
fn nodes(archive: &Archive) -> Result<BTreeMap<String, Parts>, LoadError> {
    let mut nodes: BTreeMap<String, Parts> = BTreeMap::new();
    nodes.insert(String::new(), Parts::default());
    for index in 0..archive.len() {
        let entry = archive.name(index)?;
        let Some(below) = entry.strip_prefix(layout::WEBDAV_DIR) else { continue };
        if layout::SECRET_DIRS.contains(&below.split('/').next().unwrap_or_default()) {
            return Err(LoadError::entry(&entry, "keys and login records do not belong in a snapshot"));
        }
        let (directory, file) = match below.strip_suffix('/') {
            Some(directory) => (directory, None),
            None if below.is_empty() => continue,
            None => match below.rsplit_once('/') {
                Some((directory, file)) => (directory, Some(file)),
                None => ("", Some(below)),
            },
        };
        for (end, _) in directory.match_indices('/') {
            nodes.entry(directory[..end].to_owned()).or_default().has_children = true;
        }
        let node = nodes.entry(directory.to_owned()).or_default();
        match file {
            None => {}
            Some(layout::PMETA) => node.pmeta = Some(index),
            Some(layout::CONTENT) => node.content = Some(index),
            Some(file) if layout::LEFTOVERS.contains(&file) => {
                nodes.entry(below.to_owned()).or_default().leftover = Some(index);
            }
            Some(_) => return Err(LoadError::entry(&entry, "not an entry of a version-2 snapshot")),
        }
    }
    let both = nodes.iter().find(|(_, p)| p.leftover.is_some() && (p.pmeta.is_some() || p.has_children));
    match both {
        Some((path, _)) => {
            Err(LoadError::entry(&format!("{}{path}", layout::WEBDAV_DIR), "both a file and a directory"))
        }
        None => Ok(nodes),
    }
}

/// Checks a node's metadata; returns it verbatim, with the length a file must have.
fn pmeta(archive: &mut Archive, index: usize, path: &str, parts: &Parts) -> Result<(String, Option<u64>), LoadError> {
    let name = archive.name(index)?;
    let (text, value) = archive.small_json(index, limits::PMETA)?;
    check_pmeta(&value, path, parts).map(|length| (text, length)).map_err(|what| LoadError::entry(&name, what))
}

fn check_pmeta(value: &Value, path: &str, parts: &Parts) -> Result<Option<u64>, String> {
    for (name, what, is_right) in [
        ("i", "a string", Value::is_string as fn(&Value) -> bool),
        ("t", "a string", Value::is_string),
        ("a", "an object", Value::is_object),
        ("d", "an object", Value::is_object),
        ("p", "an integer", Value::is_i64),
        ("u", "an integer", Value::is_i64),
        ("v", "an integer", Value::is_i64),
    ] {
        if !is_right(&value[name]) {
            return Err(format!("{name} is not {what}"));
        }
    }
    if !value["i"].as_str().is_some_and(is_id) {
        return Err("i is not base64url text".to_owned());
    }
    if let Some(et) = value["et"].as_str().filter(|et| !matches!(*et, "" | "NONE")) {
        return Err(format!("et is {et:?}; contents of a snapshot are never encrypted"));
    }
    let depth = if path.is_empty() { 0 } else { path.matches('/').count() + 1 };
    let kind = value["t"].as_str().unwrap_or_default();
    match (kind, depth) {
        ("Cell", 0) | ("col.box", 1) => {}
        ("col.webdav" | "col.odata" | "col.svc" | "col.stream" | "dav.file", 2..) => {}
        ("Cell" | "col.box" | "col.webdav" | "col.odata" | "col.svc" | "col.stream" | "dav.file", _) => {
            return Err(format!("a node of type {kind:?} at depth {depth}"));
        }
        _ => return Err(format!("unknown node type {kind:?}")),
    }
    match (kind, parts.content) {
        ("dav.file", None) => Err("a file without content".to_owned()),
        ("dav.file", Some(_)) if parts.has_children => Err("a file with children".to_owned()),
        ("dav.file", Some(_)) => match value["cl"].as_u64() {
            Some(length) => Ok(Some(length)),
            None => Err("cl is not an integer".to_owned()),
        },
        (_, Some(_)) => Err(format!("content inside a {kind}")),
        ("col.odata", None) if parts.has_children => Err("an OData collection with children".to_owned()),
        (_, None) => Ok(None),
    }
}

/// Contents that were stored.
struct Blob {
    id: Uuid,
    size: u64,
    sha256: [u8; 32],
}

/// Stores the contents of a file under a new id.
fn content(
    archive: &mut Archive,
    index: usize,
    expected: Option<u64>,
    shared: &Shared,
    runtime: &Handle,
) -> Result<Blob, LoadError> {
    let mut entry = archive.read(index)?;
    if let Some(length) = expected.filter(|length| *length != entry.size()) {
        let what = format!("{} bytes, .pmeta says {length}", entry.size());
        return Err(LoadError::entry(entry.name(), what));
    }
    let id = Uuid::new_v4();
    shared.written.lock().unwrap_or_else(|e| e.into_inner()).push(id);
    let mut sha256 = Sha256::new();
    let store = shared.blobs.store();
    let failed = |e: object_store::Error| LoadError::io("store the contents of a file", e);
    let key = blob_key(id);
    let first = next_part(&mut entry, &mut sha256)?;
    if first.len() < PART {
        let options = PutOptions { mode: PutMode::Create, ..Default::default() };
        runtime.block_on(store.put_opts(&key, first.into(), options)).map_err(failed)?;
    } else {
        let mut upload = runtime.block_on(store.put_multipart(&key)).map_err(failed)?;
        let mut part = first;
        while !part.is_empty() {
            if let Err(error) = runtime.block_on(upload.put_part(part.into())) {
                let _ = runtime.block_on(upload.abort());
                return Err(failed(error));
            }
            part = match next_part(&mut entry, &mut sha256) {
                Ok(part) => part,
                Err(error) => {
                    let _ = runtime.block_on(upload.abort());
                    return Err(error);
                }
            };
        }
        runtime.block_on(upload.complete()).map_err(failed)?;
    }
    Ok(Blob { id, size: entry.size(), sha256: sha256.finalize().into() })
}

/// Reads up to [`PART`] bytes; fewer at the end only.
fn next_part(entry: &mut Metered<'_, impl Read>, sha256: &mut Sha256) -> Result<Vec<u8>, LoadError> {
    let wanted = usize::try_from(entry.size()).unwrap_or(PART).clamp(1, PART - 1) + 1;
    let mut part = vec![0; wanted];
    let mut end = 0;
    while end < part.len() {
        match entry.piece(&mut part[end..])? {
            0 => break,
            n => end += n,
        }
    }
    part.truncate(end);
    sha256.update(&part);
    Ok(part)
}

/// The two temporary files, and what waits for them.
struct Rows {
    nodes: (CopyBuffer, File),
    blobs: (CopyBuffer, File),
}

impl Rows {
    fn flush(&mut self, beyond: usize) -> Result<(), LoadError> {
        for (buffer, file) in [&mut self.nodes, &mut self.blobs] {
            if buffer.len() > beyond {
                file.write_all(&buffer.take()).map_err(unspooled)?;
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(File, File), LoadError> {
        self.nodes.0.end();
        self.blobs.0.end();
        self.flush(0)?;
        let (mut nodes, mut blobs) = (self.nodes.1, self.blobs.1);
        for file in [&mut nodes, &mut blobs] {
            file.seek(SeekFrom::Start(0)).map_err(unspooled)?;
        }
        Ok((nodes, blobs))
    }
}

fn unspooled(error: io::Error) -> LoadError {
    LoadError::io("write a temporary file", error)
}
