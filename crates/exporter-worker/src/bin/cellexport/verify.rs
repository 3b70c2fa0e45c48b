//! `verify`: what an import would say of a snapshot, and the snapshot's digest. Needs no unit.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use exporter_worker::control::Control;
use exporter_worker::import::{self, ImportError, Origin, Verified};
use model::error_chain::Chain;
use model::layout::DocumentType;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::entries::open;
use crate::failure::{Exit, Failure};
use crate::limits;
use crate::progress::Progress;
use crate::terminal::Output;

/// Verifies a file.
pub(crate) fn verify(output: Output, path: &Path, origin: Origin) -> Result<(), Failure> {
    let (file, again) = (open(path)?, open(path)?);
    let about = file.metadata().map_err(|e| Failure::cannot(format!("read {}", path.display()), e))?;
    if !about.is_file() {
        return Err(Failure::new(Exit::Other, format!("{} is no file", path.display())));
    }
    let control = Control::default();
    let mut progress = Progress::new(output);
    let (verified, digest) = std::thread::scope(|scope| {
        let verifying = scope.spawn(|| import::verify(file, origin, &control));
        let digesting = scope.spawn(|| digest(again));
        while !verifying.is_finished() || !digesting.is_finished() {
            let now = control.progress();
            progress.bytes(now.done.bytes, now.total.map(|total| total.bytes));
            std::thread::sleep(limits::TICK);
        }
        (verifying.join(), digesting.join())
    });
    drop(progress);
    let broken = || Failure::new(Exit::Other, "the check broke down");
    let verified = verified.map_err(|_| broken())?.map_err(|error| unreadable(path, &error))?;
    let digest = digest.map_err(|_| broken())?;
    let sha256 = digest.map_err(|e| Failure::cannot(format!("read {}", path.display()), e))?;
    let document = document(path, about.len(), &sha256, &verified);
    output.result(&lines(&document, &verified), &document)?;
    match verified.faults.count {
        0 => Ok(()),
        count => Err(Failure::new(Exit::Faulty, format!("{} is faulty, faults: {count}", path.display()))),
    }
}

fn unreadable(path: &Path, error: &ImportError) -> Failure {
    Failure::cannot(format!("read {}", path.display()), Chain(error))
}

fn digest(mut file: File) -> std::io::Result<String> {
    let (mut sha256, mut piece) = (Sha256::new(), vec![0; limits::PIECE]);
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hex::encode(sha256.finalize())),
            n => sha256.update(&piece[..n]),
        }
    }
}

fn document(path: &Path, size: u64, sha256: &str, verified: &Verified) -> Value {
    let mut document = json!({
        "file": path.display().to_string(),
        "sound": verified.faults.count == 0,
        "size": size,
        "sha256": sha256,
        "faults": verified.faults,
    });
    if let Some(contents) = &verified.contents {
        let summary = &contents.summary;
        let documents: serde_json::Map<String, Value> =
            DocumentType::ALL.iter().map(|of| (of.name().to_owned(), summary.documents[of.index()].into())).collect();
        for (name, value) in [
            ("version", json!(contents.version)),
            ("cell", json!(contents.name)),
            ("integrity_entry", json!(contents.has_integrity)),
            ("documents", Value::Object(documents)),
            ("files", json!(summary.files)),
            ("collections", json!(summary.collections)),
            ("bytes", json!(summary.amount().bytes)),
            ("repaired_links", json!(summary.repaired_links)),
            ("left_out", json!(summary.left_out)),
        ] {
            document[name] = value;
        }
    }
    document
}

fn lines(document: &Value, verified: &Verified) -> Vec<String> {
    let mut lines = vec![format!("size: {} bytes", document["size"]), format!("sha256: {}", text(&document["sha256"]))];
    if let Some(contents) = &verified.contents {
        lines.push(format!("cell: {}", contents.name));
        lines.push(format!("version: {}", contents.version));
        let has = if contents.has_integrity { "is there, everything was compared with it" } else { "none" };
        lines.push(format!("integrity entry: {has}"));
        let counts = document["documents"].as_object().into_iter().flatten();
        lines.extend(counts.filter(|(_, count)| **count != 0).map(|(name, count)| format!("{name}: {count}")));
        for (name, words) in [("files", "files"), ("collections", "boxes and collections"), ("bytes", "bytes")] {
            lines.push(format!("{words}: {}", document[name]));
        }
        let (repaired, left_out) = (contents.summary.repaired_links, contents.summary.left_out);
        lines.extend((repaired > 0).then(|| format!("links that an import would repair: {repaired}")));
        lines.extend((left_out > 0).then(|| format!("entries that an import would leave out: {left_out}")));
    }
    lines.extend(verified.faults.listed.iter().map(|fault| format!("fault: {fault}")));
    let unlisted = verified.faults.count - verified.faults.listed.len() as u64;
    lines.extend((unlisted > 0).then(|| format!("further faults: {unlisted}")));
    lines.extend((verified.faults.count == 0).then(|| "sound".to_owned()));
    lines
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
