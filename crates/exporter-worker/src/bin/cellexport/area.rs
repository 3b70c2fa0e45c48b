//! Commands about the files of a cell's snapshot area: listing, uploading, deleting.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use model::snapshot_name::SnapshotName;
use percent_encoding::percent_decode_str;
use quick_xml::Reader;
use quick_xml::events::Event;
use quick_xml::name::LocalName;
use serde_json::{Value, json};

use crate::cell::Cell;
use crate::client::{Client, Request};
use crate::failure::{Exit, Failure};
use crate::limits;
use crate::progress::Progress;
use crate::terminal::Output;

/// A file's name in the area: what the user calls a snapshot is its zip.
pub(crate) fn file_name(given: &str) -> Result<String, Failure> {
    let (stem, extension) = match given {
        _ if given.ends_with(".error") => (given.trim_end_matches(".error"), ".error"),
        _ => (given.strip_suffix(".zip").unwrap_or(given), ".zip"),
    };
    match SnapshotName::parse(stem) {
        Some(name) => Ok(format!("{name}{extension}")),
        None => Err(Failure::new(Exit::Usage, format!("{given} is no name of a snapshot: letters, digits, - and _"))),
    }
}

/// A listed file.
#[derive(Debug, Default, PartialEq, Eq)]
struct Listed {
    href: String,
    size: String,
    modified: String,
    is_collection: bool,
}

/// Lists the area.
pub(crate) fn list(client: &Client, output: Output, cell: &Cell) -> Result<(), Failure> {
    let area = cell.area();
    let answer = client.send(&Request::new("PROPFIND", &area).header("Depth", "1"))?;
    let text = answer.read(limits::LISTING)?;
    let listed =
        read_listing(&text).ok_or_else(|| Failure::new(Exit::Other, format!("{area} answered with no listing")))?;
    let files = listed.iter().filter(|file| !file.is_collection && !file.href.is_empty());
    let (mut lines, mut documents) = (Vec::new(), Vec::new());
    for file in files {
        let name = file.href.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let name = percent_decode_str(name).decode_utf8_lossy();
        lines.push(format!("{:>14}  {:29}  {name}", file.size, file.modified));
        let size = file.size.parse::<u64>().map_or(Value::Null, Value::from);
        documents.push(json!({ "name": name, "size": size, "modified": file.modified }));
    }
    output.result(&lines, &json!({ "files": documents }))
}

/// Reads a multistatus document, whatever prefixes it has.
fn read_listing(text: &[u8]) -> Option<Vec<Listed>> {
    let mut reader = Reader::from_str(std::str::from_utf8(text).ok()?);
    let (mut listed, mut current, mut field) = (Vec::new(), None::<Listed>, String::new());
    let mut depth = 0usize;
    loop {
        match reader.read_event().ok()? {
            Event::Start(element) => {
                depth += 1;
                field = local(element.local_name());
                match field.as_str() {
                    "response" => current = Some(Listed::default()),
                    "collection" => current.iter_mut().for_each(|file| file.is_collection = true),
                    _ => {}
                }
            }
            Event::Empty(element) if local(element.local_name()) == "collection" => {
                current.iter_mut().for_each(|file| file.is_collection = true);
            }
            Event::Text(text) => {
                let text = text.xml10_content();
                note(current.as_mut(), &field, &text);
            }
            Event::GeneralRef(reference) => {
                let name = reference.xml10_content();
                let text = match reference.resolve_char_ref().ok()? {
                    Some(c) => c.to_string(),
                    None => quick_xml::escape::resolve_predefined_entity(&name)?.to_owned(),
                };
                note(current.as_mut(), &field, &text);
            }
            Event::End(element) => {
                depth = depth.checked_sub(1)?;
                field.clear();
                if local(element.local_name()) == "response" {
                    listed.extend(current.take());
                }
                if listed.len() > limits::FILES_LISTED {
                    return None;
                }
            }
            Event::Eof => return (depth == 0).then_some(listed),
            Event::Empty(_)
            | Event::CData(_)
            | Event::Comment(_)
            | Event::Decl(_)
            | Event::PI(_)
            | Event::DocType(_) => {}
        }
    }
}

fn local(name: LocalName<'_>) -> String {
    name.as_ref().to_owned()
}

fn note(file: Option<&mut Listed>, field: &str, text: &str) {
    let Some(file) = file else { return };
    match field {
        // A file's own URL comes first; those of its ACL follow.
        "href" if file.size.is_empty() && file.modified.is_empty() => file.href.push_str(text.trim()),
        "getcontentlength" => file.size.push_str(text.trim()),
        "getlastmodified" => file.modified.push_str(text),
        _ => {}
    }
}

/// Uploads a snapshot.
pub(crate) fn upload(
    client: &Client,
    output: Output,
    cell: &Cell,
    path: &Path,
    name: Option<&str>,
    force: bool,
) -> Result<(), Failure> {
    let stem = path.file_stem().and_then(|stem| stem.to_str());
    let name = match (name, stem) {
        (Some(name), _) => file_name(name)?,
        (None, Some(stem)) => file_name(stem).map_err(|failure| failure.next("give it a NAME"))?,
        (None, None) => return Err(Failure::new(Exit::Usage, "the file's name is none of a snapshot; give it a NAME")),
    };
    let cannot = |error: io::Error| Failure::cannot(format!("read {}", path.display()), error);
    let url = cell.file(&name);
    let mut request = Request::new("PUT", &url)
        .header("Content-Type", "application/zip")
        // Whoever is refused need not send it all.
        .header("Expect", "100-continue");
    if !force {
        request = request.header("If-None-Match", "*");
    }
    let mut attempt = 0;
    let (size, answer) = loop {
        attempt += 1;
        let file = File::open(path).map_err(cannot)?;
        let about = file.metadata().map_err(cannot)?;
        if !about.is_file() {
            return Err(cannot(io::ErrorKind::InvalidInput.into()));
        }
        let mut body =
            Counted { file: file.take(about.len()), done: 0, total: about.len(), progress: Progress::new(output) };
        let sent = client.put(&request, &mut body, about.len());
        drop(body);
        let (failure, asked) = match sent {
            Ok(answer) if answer.status() < 300 => break (about.len(), answer),
            Ok(answer) => {
                let asked = answer.retry_after();
                (answer.into_failure(false), asked)
            }
            Err(failure) => (failure, None),
        };
        if failure.exit != Exit::Unavailable || attempt >= client.tries() {
            let may_be_there = failure.exit == Exit::Conflict && !force;
            let next = "a file of that name may be there; --force replaces it";
            return Err(if may_be_there { failure.next(next) } else { failure });
        }
        client.pause(attempt, asked, &failure);
    };
    let is_new = answer.status() == 201;
    let line = format!("{} {name}, {size} bytes", if is_new { "uploaded" } else { "replaced" });
    output.result(&[line], &json!({ "name": name, "size": size, "replaced": !is_new, "url": url }))
}

/// A file being sent.
struct Counted {
    file: io::Take<File>,
    done: u64,
    total: u64,
    progress: Progress,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read(buffer)?;
        if n == 0 && self.done < self.total {
            return Err(io::Error::other("the file became shorter while it was sent"));
        }
        self.done += n as u64;
        self.progress.bytes(self.done, Some(self.total));
        Ok(n)
    }
}

/// Deletes a file.
pub(crate) fn delete(client: &Client, output: Output, cell: &Cell, name: &str) -> Result<(), Failure> {
    let name = file_name(name)?;
    client.send(&Request::new("DELETE", &cell.file(&name)))?;
    output.result(&[format!("deleted {name}")], &json!({ "deleted": name }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_read_whatever_its_prefixes() {
        let text = br#"<?xml version="1.0"?><D:multistatus xmlns:D="DAV:">
            <D:response><D:href>http://u/c/__snapshot</D:href><D:propstat><D:prop><D:getlastmodified>x</D:getlastmodified>
              <D:resourcetype><D:collection/></D:resourcetype></D:prop></D:propstat></D:response>
            <D:response><D:href>http://u/c/__snapshot/a&amp;b.zip</D:href><D:propstat><D:prop>
              <D:getcontentlength>12</D:getcontentlength><D:getlastmodified>Tue</D:getlastmodified>
              <D:acl><D:href>http://other/</D:href></D:acl></D:prop></D:propstat></D:response></D:multistatus>"#;
        let listed = read_listing(text).expect("a listing");
        assert!(listed[0].is_collection && listed.len() == 2);
        let file = Listed {
            href: "http://u/c/__snapshot/a&b.zip".to_owned(),
            size: "12".to_owned(),
            modified: "Tue".to_owned(),
            is_collection: false,
        };
        assert_eq!(listed[1], file);
        assert_eq!(read_listing(b"<a><b></a>"), None);
        assert_eq!(read_listing(b"<a>&unknown;</a>"), None);
    }

    #[test]
    fn names_lead_nowhere_else() {
        assert_eq!(file_name("one").expect("a name"), "one.zip");
        assert_eq!(file_name("one.zip").expect("a name"), "one.zip");
        assert_eq!(file_name("one.error").expect("a name"), "one.error");
        for bad in ["", "../x", "a/b", "a.b", "a?b"] {
            assert_eq!(file_name(bad).expect_err("no name").exit, Exit::Usage, "{bad}");
        }
    }
}
