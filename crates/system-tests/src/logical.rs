//! What a snapshot says, without how it says it; and whether two snapshots say the same, of one cell or of two.
//!
//! Nothing of the product's importer is used here: which new id belongs to which old one is learnt from what two
//! snapshots have in common, which is everything but their ids.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::{Cursor, Read};

use model::cell::is_id;
use model::layout::{self, DocumentType};
use serde_json::Value;
use sha2::{Digest, Sha256};
use zip::ZipArchive;

/// Differences and faults that are shown; more are counted.
const SHOWN: usize = 25;

/// A snapshot as what it means. Null and absent are the same; so are all orders of lines and of keys.
#[derive(Debug, Clone)]
pub struct Logical {
    /// Version of the format.
    pub version: i64,
    /// The cell document.
    pub cell: Value,
    /// Documents of each type by `_id`.
    pub documents: BTreeMap<DocumentType, BTreeMap<String, Value>>,
    /// The file tree by path; the root's is empty.
    pub nodes: BTreeMap<String, Node>,
    /// References of user data whose target stands further down in the file. Personium's importer loses them.
    pub forward: Vec<String>,
}

/// A place in the file tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its metadata.
    pub pmeta: Option<Value>,
    /// Size and SHA-256 of a file's bytes.
    pub content: Option<(u64, String)>,
}

/// Reads a version-2 snapshot.
///
/// # Panics
/// When it is none.
pub fn read(snapshot: &[u8]) -> Logical {
    let mut entries = BTreeMap::new();
    let mut nodes: BTreeMap<String, Node> = BTreeMap::new();
    for (name, bytes) in self::entries(snapshot) {
        let Some(below) = name.strip_prefix(layout::WEBDAV_DIR) else {
            assert!(entries.insert(name.clone(), bytes).is_none(), "{name} twice");
            continue;
        };
        let (path, file) = below.rsplit_once('/').unwrap_or(("", below));
        let path = if matches!(file, layout::PMETA | layout::CONTENT | "") { path } else { below };
        let node = nodes.entry(path.to_owned()).or_insert(Node { pmeta: None, content: None });
        match file {
            "" => {}
            layout::PMETA => node.pmeta = Some(without_nulls(json(&name, &bytes))),
            _ => node.content = Some((bytes.len() as u64, hex::encode(Sha256::digest(&bytes)))),
        }
    }
    let manifest = json(layout::MANIFEST, &entries[layout::MANIFEST]);
    let mut documents = BTreeMap::new();
    let mut order = Vec::new();
    for of in DocumentType::ALL {
        let mut by_id = BTreeMap::new();
        let text = std::str::from_utf8(&entries[of.entry()]).unwrap_or_else(|_| panic!("{} is not UTF-8", of.entry()));
        for line in text.lines() {
            let document = without_nulls(json(of.entry(), line.as_bytes()));
            let id = document["_id"].as_str().unwrap_or_else(|| panic!("{}: no _id: {line}", of.entry())).to_owned();
            if of == DocumentType::UserData {
                order.push(id.clone());
            }
            assert!(by_id.insert(id, document).is_none(), "{}: an _id twice: {line}", of.entry());
        }
        documents.insert(of, by_id);
    }
    let forward = forward(&order, &documents[&DocumentType::UserData]);
    let cell = without_nulls(json(layout::CELL, &entries[layout::CELL]));
    Logical { version: manifest["export_version"].as_i64().unwrap_or_default(), cell, documents, nodes, forward }
}

/// All entries of an archive in its order, with their bytes; names as UTF-8, whatever their flags say.
///
/// # Panics
/// When it is no zip.
pub fn entries(snapshot: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut zip = ZipArchive::new(Cursor::new(snapshot)).expect("a zip");
    let read = |index| {
        let mut entry = zip.by_index(index).expect("an entry");
        let name = String::from_utf8(entry.name_raw().to_vec()).expect("a name in UTF-8");
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
        (name, bytes)
    };
    let count = 0..ZipArchive::new(Cursor::new(snapshot)).expect("a zip").len();
    count.map(read).collect()
}

fn json(name: &str, bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|e| panic!("{name}: {e}: {}", String::from_utf8_lossy(bytes)))
}

fn without_nulls(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            let old = std::mem::take(fields);
            fields.extend(old.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, without_nulls(v))));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = without_nulls(item.take())),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    value
}

fn forward(order: &[String], documents: &BTreeMap<String, Value>) -> Vec<String> {
    let place: HashMap<&str, usize> = order.iter().enumerate().map(|(i, id)| (id.as_str(), i)).collect();
    let mut forward = Vec::new();
    for (i, id) in order.iter().enumerate() {
        let targets = documents[id]["_source"]["ll"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let later =
            targets.filter(|entry| entry.split_once(':').and_then(|(_, t)| place.get(t)).is_some_and(|t| *t > i));
        forward.extend(later.map(|entry| format!("{id} -> {entry}")));
    }
    forward
}

impl Logical {
    /// The cell's id.
    pub fn cell_id(&self) -> &str {
        self.cell["_id"].as_str().unwrap_or_default()
    }

    /// Says in words what the other snapshot has differently; nothing when both say the same.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut all = Vec::new();
        if self.version != other.version {
            all.push(format!("version {} / {}", self.version, other.version));
        }
        differ(layout::CELL, &self.cell, &other.cell, &mut all);
        for of in DocumentType::ALL {
            both(&self.documents[&of], &other.documents[&of], of.name(), &mut all, |what, one, other, all| {
                differ(what, one, other, all);
            });
        }
        both(&self.nodes, &other.nodes, "node", &mut all, |what, one, other, all| {
            let null = Value::Null;
            differ(what, one.pmeta.as_ref().unwrap_or(&null), other.pmeta.as_ref().unwrap_or(&null), all);
            if one.content != other.content {
                all.push(format!("{what}: contents {:?} / {:?}", one.content, other.content));
            }
        });
        bounded(all)
    }

    /// The same cell with other ids: what they become is the caller's, what follows from them is done here.
    pub fn with_ids(&self, new_id: impl Fn(&str) -> String) -> Self {
        let map = |id: &mut String| *id = new_id(id);
        let mut new = self.clone();
        visit_document(&mut new.cell, &mut { map });
        for (of, documents) in &mut new.documents {
            let old = std::mem::take(documents);
            for mut document in old.into_values() {
                visit_document(&mut document, &mut { map });
                if *of == DocumentType::Link {
                    put_in_order(&mut document);
                }
                documents.insert(text(&document["_id"]), document);
            }
        }
        let old = std::mem::take(&mut new.nodes);
        for (path, mut node) in old {
            if let Some(pmeta) = &mut node.pmeta {
                visit_pmeta(pmeta, &mut { map });
            }
            new.nodes.insert(with_first(&path, &new_id), node);
        }
        new
    }
}

fn bounded(mut all: Vec<String>) -> Vec<String> {
    let more = all.len().saturating_sub(SHOWN);
    if more > 0 {
        all.truncate(SHOWN);
        all.push(format!("… and {more} more"));
    }
    all
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Replaces the first name of a path, a box's id, unless it stands for the main box or is no id.
fn with_first(path: &str, new_id: impl Fn(&str) -> String) -> String {
    let (first, rest) = path.split_at(path.find('/').unwrap_or(path.len()));
    if first == layout::MAIN_BOX || !is_id(first) { path.to_owned() } else { format!("{}{rest}", new_id(first)) }
}

/// Compares two maps key by key.
fn both<T>(
    one: &BTreeMap<String, T>,
    other: &BTreeMap<String, T>,
    what: &str,
    all: &mut Vec<String>,
    compare: impl Fn(&str, &T, &T, &mut Vec<String>),
) {
    for key in one.keys().chain(other.keys()).collect::<BTreeSet<_>>() {
        match (one.get(key), other.get(key)) {
            (Some(one), Some(other)) => compare(&format!("{what} {key}"), one, other, all),
            (Some(_), None) => all.push(format!("{what} {key}: in the first only")),
            (None, _) => all.push(format!("{what} {key}: in the second only")),
        }
    }
}

/// Compares two values, and says where they differ.
fn differ(path: &str, one: &Value, other: &Value, all: &mut Vec<String>) {
    match (one, other) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<_> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let null = Value::Null;
                differ(&format!("{path}.{key}"), a.get(key).unwrap_or(&null), b.get(key).unwrap_or(&null), all);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                differ(&format!("{path}[{i}]"), a, b, all);
            }
        }
        // Two zeros are equal, and not the same.
        (Value::Number(a), Value::Number(b)) if a == b && a.to_string() == b.to_string() => {}
        (Value::Number(_), Value::Number(_)) => all.push(format!("{path}: {one} / {other}")),
        (a, b) if a == b => {}
        (a, b) => all.push(format!("{path}: {a} / {b}")),
    }
}

/// Goes to every id of a document, in an order of its own: `_id`, what it belongs to, what it refers to.
///
/// A link's `_id` is left alone: it follows from its ends.
fn visit_document(document: &mut Value, visit: &mut impl FnMut(&mut String)) {
    let link = document["_type"] == DocumentType::Link.name();
    if !link {
        visit_id(document.get_mut("_id"), visit);
    }
    let Some(source) = document.get_mut("_source") else { return };
    for name in ["c", "b", "n", "t", "k1", "k2"] {
        visit_id(source.get_mut(name), visit);
    }
    for name in ["t1", "t2"] {
        // Links of control objects have names of types there.
        visit_id(source.get_mut(name).filter(|t| DocumentType::parse(&text(t)).is_none()), visit);
    }
    let mut references: Vec<_> = source.get_mut("l").and_then(Value::as_object_mut).into_iter().flatten().collect();
    references.sort_by(|a, b| a.0.cmp(b.0));
    for (_, reference) in references {
        visit_id(Some(reference), visit);
    }
    for entry in source.get_mut("ll").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some((entity_type, target)) = entry.as_str().and_then(|entry| entry.split_once(':')) {
            let (mut entity_type, mut target) = (entity_type.to_owned(), target.to_owned());
            visit(&mut entity_type);
            visit(&mut target);
            *entry = format!("{entity_type}:{target}").into();
        }
    }
}

/// Goes to every id of a node's metadata: its own, and those of roles. A principal may be a URL.
fn visit_pmeta(pmeta: &mut Value, visit: &mut impl FnMut(&mut String)) {
    visit_id(pmeta.get_mut("i"), visit);
    let entries = match pmeta.pointer_mut("/a/D.ace") {
        Some(Value::Array(entries)) => entries.iter_mut(),
        Some(one) => std::slice::from_mut(one).iter_mut(),
        None => return,
    };
    for entry in entries {
        visit_id(entry.pointer_mut("/D.principal/D.href").filter(|href| is_id(&text(href))), visit);
    }
}

fn visit_id(id: Option<&mut Value>, visit: &mut impl FnMut(&mut String)) {
    if let Some(Value::String(id)) = id {
        visit(id);
    }
}

/// Puts the smaller type first, and makes the `_id` that of the ends.
fn put_in_order(link: &mut Value) {
    let source = &mut link["_source"];
    if text(&source["t1"]) > text(&source["t2"]) {
        for (one, other) in [("t1", "t2"), ("k1", "k2")] {
            let (a, b) = (source[one].take(), source[other].take());
            (source[one], source[other]) = (b, a);
        }
    }
    link["_id"] = format!("{}-{}", text(&link["_source"]["k1"]), text(&link["_source"]["k2"])).into();
}

fn is_canonical(link: &Value) -> bool {
    let mut canonical = link.clone();
    put_in_order(&mut canonical);
    canonical == *link
}

/// Gives a snapshot of another cell the ids of the one it was imported from. Name and owner of the cell become those
/// of the old one, too: whose they must be in the new one, the caller knows.
///
/// Documents correspond when they are equal but for their ids, nodes when they have the same path.
///
/// # Errors
/// In words, what cannot be the outcome of one consistent replacement of all ids.
pub fn undo(new: &Logical, old: &Logical) -> Result<Logical, String> {
    let mut learnt = Learnt::default();
    let mut faults = Vec::new();
    learnt.document("the cell", &old.cell, &new.cell);
    for of in DocumentType::ALL.into_iter().filter(|of| *of != DocumentType::Link) {
        pair(of, &old.documents[&of], &new.documents[&of], &mut learnt, &mut faults);
    }
    let mut new_nodes = new.nodes.clone();
    for (path, node) in &old.nodes {
        let there = with_first(path, |id| learnt.forth.get(id).cloned().unwrap_or_else(|| id.to_owned()));
        match (node.pmeta.as_ref(), new_nodes.remove(&there).map(|node| node.pmeta)) {
            (Some(old), Some(Some(new))) => learnt.pmeta(&format!("node {path:?}"), old, &new),
            (None, Some(None)) => {}
            (_, _) => faults.push(format!("node {path:?} should be {there:?}, and is not there")),
        }
    }
    faults.extend(new_nodes.into_keys().map(|path| format!("node {path:?} is nobody's")));
    links(old, new, &mut learnt, &mut faults);
    faults.append(&mut learnt.faults);
    if old.cell_id() != new.cell_id() {
        let survivors = learnt.back.keys().filter(|id| learnt.forth.contains_key(*id));
        faults.extend(survivors.map(|id| format!("the old id {id} is in use in the new cell")));
        faults.extend(left_over(new, old, &learnt));
    }
    if !faults.is_empty() {
        return Err(bounded(faults).join("\n"));
    }
    let mut undone = new.with_ids(|id| learnt.back.get(id).cloned().unwrap_or_else(|| id.to_owned()));
    for pointer in ["/_source/s/Name", "/_source/h/Owner"] {
        let (parent, name) = pointer.rsplit_once('/').unwrap_or_default();
        let was = old.cell.pointer(pointer).cloned();
        if let Some(Value::Object(fields)) = undone.cell.pointer_mut(parent) {
            match was {
                Some(was) => drop(fields.insert(name.to_owned(), was)),
                None => drop(fields.remove(name)),
            }
        }
    }
    Ok(undone)
}

/// Which id became which, and what does not fit.
#[derive(Debug, Default)]
struct Learnt {
    forth: BTreeMap<String, String>,
    back: BTreeMap<String, String>,
    faults: Vec<String>,
}

impl Learnt {
    fn document(&mut self, what: &str, old: &Value, new: &Value) {
        let gather = |document: &Value| {
            let (mut ids, mut document) = (Vec::new(), document.clone());
            visit_document(&mut document, &mut |id: &mut String| ids.push(id.clone()));
            ids
        };
        self.ids(what, gather(old), gather(new));
    }

    fn pmeta(&mut self, what: &str, old: &Value, new: &Value) {
        let gather = |pmeta: &Value| {
            let (mut ids, mut pmeta) = (Vec::new(), pmeta.clone());
            visit_pmeta(&mut pmeta, &mut |id: &mut String| ids.push(id.clone()));
            ids
        };
        self.ids(what, gather(old), gather(new));
    }

    fn ids(&mut self, what: &str, old: Vec<String>, new: Vec<String>) {
        if old.len() != new.len() {
            self.faults.push(format!("{what}: {} ids became {}", old.len(), new.len()));
        }
        for (old, new) in old.into_iter().zip(new) {
            self.id(what, old, new);
        }
    }

    fn id(&mut self, what: &str, old: String, new: String) {
        let before = match self.forth.entry(old.clone()) {
            Entry::Vacant(place) => place.insert(new.clone()).clone(),
            Entry::Occupied(place) => place.get().clone(),
        };
        if before != new {
            self.faults.push(format!("{what}: {old} became {new}, and {before} elsewhere"));
        }
        let origin = self.back.entry(new.clone()).or_insert_with(|| old.clone());
        if *origin != old {
            self.faults.push(format!("{what}: both {old} and {origin} became {new}"));
        }
    }
}

/// A document without its ids.
fn blank(document: &Value) -> Value {
    let mut blank = document.clone();
    visit_document(&mut blank, &mut |id: &mut String| id.clear());
    blank
}

/// A text that is the same for equal values.
fn sorted(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let fields: BTreeMap<_, _> = fields.iter().map(|(key, field)| (key, sorted(field))).collect();
            format!("{{{fields:?}}}")
        }
        Value::Array(items) => format!("{:?}", items.iter().map(sorted).collect::<Vec<_>>()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}

/// Finds out which documents of a type correspond.
fn pair(
    of: DocumentType,
    old: &BTreeMap<String, Value>,
    new: &BTreeMap<String, Value>,
    learnt: &mut Learnt,
    faults: &mut Vec<String>,
) {
    let mut groups: BTreeMap<String, [Vec<&Value>; 2]> = BTreeMap::new();
    for (side, documents) in [old, new].into_iter().enumerate() {
        for document in documents.values() {
            groups.entry(sorted(&blank(document))).or_default()[side].push(document);
        }
    }
    let mut alone = [Vec::new(), Vec::new()];
    for [mut old, mut new] in groups.into_values() {
        if old.len().max(new.len()) > 1 {
            faults.push(format!("{of}: documents that differ in nothing but ids: {}", old.iter().chain(&new).count()));
            continue;
        }
        match (old.pop(), new.pop()) {
            (Some(old), Some(new)) => learnt.document(&format!("{of} {}", text(&old["_id"])), old, new),
            (one, other) => {
                alone[0].extend(one);
                alone[1].extend(other);
            }
        }
    }
    if let [[old], [new]] = [&alone[0][..], &alone[1][..]] {
        differ(&format!("{of} {}", text(&old["_id"])), &blank(old), &blank(new), faults);
        return;
    }
    for (documents, what) in alone.into_iter().zip(["became none", "is nobody's"]) {
        faults.extend(documents.into_iter().map(|document| format!("{of}: {document} {what}")));
    }
}

/// Checks that every link became the link between what its ends became, and that the server will find it.
fn links(old: &Logical, new: &Logical, learnt: &mut Learnt, faults: &mut Vec<String>) {
    let mut there: HashMap<String, &Value> = HashMap::new();
    for (id, link) in &new.documents[&DocumentType::Link] {
        if !is_canonical(link) {
            faults.push(format!("the _id or the order of a link does not follow from its ends: {link}"));
        }
        there.insert(id.clone(), link);
    }
    for (id, link) in &old.documents[&DocumentType::Link] {
        let mut expected = link.clone();
        let mut unknown = false;
        visit_document(&mut expected, &mut |id: &mut String| match learnt.forth.get(id) {
            Some(new) => *id = new.clone(),
            None => unknown = true,
        });
        put_in_order(&mut expected);
        if unknown {
            faults.push(format!("link {id} has an end that is no document"));
        }
        match there.remove(&text(&expected["_id"])) {
            Some(found) => differ(&format!("link {id}"), &expected, found, faults),
            None => faults.push(format!("link {id} should be {}, which is not there", expected["_id"])),
        }
    }
    faults.extend(there.into_keys().map(|id| format!("link {id} is nobody's")));
}

/// Ids of the old cell that are anywhere in the new one, what users wrote aside. This does not go by the fields that
/// are known to hold ids: one that nobody thought of is found out, too.
fn left_over(new: &Logical, old: &Logical, learnt: &Learnt) -> Vec<String> {
    let mut known: HashSet<&str> = learnt.forth.keys().map(String::as_str).collect();
    known.extend(old.documents.values().flat_map(BTreeMap::keys).map(String::as_str));
    let mut found = Vec::new();
    let mut look = |what: String, value: &Value, users: &[&str]| {
        let mut rest = value.clone();
        for name in users {
            if let Some(Value::Object(fields)) = rest.pointer_mut(name.rsplit_once('/').unwrap_or_default().0) {
                fields.remove(name.rsplit_once('/').unwrap_or_default().1);
            }
        }
        let text = rest.to_string();
        let left = text.split(|c: char| !is_id(c.encode_utf8(&mut [0; 4]))).filter(|id| known.contains(id));
        found.extend(left.map(|id| format!("{what}: still has the old id {id}")));
    };
    for document in new.documents.values().flat_map(BTreeMap::values).chain([&new.cell]) {
        let what = format!("{} {}", document["_type"], document["_id"]);
        look(what, document, &["/_source/s", "/_source/h"]);
    }
    for (path, node) in &new.nodes {
        let first = path.split('/').next().unwrap_or_default();
        look(format!("node {path:?}"), &Value::from(first), &[]);
        if let Some(pmeta) = &node.pmeta {
            look(format!("node {path:?}"), pmeta, &["/d", "/ct"]);
        }
    }
    found
}
