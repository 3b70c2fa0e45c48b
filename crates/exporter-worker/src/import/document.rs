//! One document: the rules of its envelope and of its fields, and what changes in it on its way into a cell.
//!
//! Only what has to change is written anew, field by field; a user's own data stays as it stands in the text.

use std::borrow::Cow;

use model::cell::is_id;
use model::layout::{DocumentType, SnapshotVersion};
use serde_json::value::RawValue;

use super::fields::{Fields, Kind, Writer, quoted, text};
use super::identity::Identity;
use super::json_rules;
use super::schema;

/// Documents carry epoch milliseconds; Personium's importer cannot take a smaller number.
const SMALLEST_TIME: i64 = 1 << 31;
/// Length of a document's id; a link's is two ids and a hyphen.
const LONGEST_ID: usize = 200;

/// A document that may be stored.
#[derive(Debug, PartialEq, Eq)]
pub struct Checked<'a> {
    /// Its type.
    pub document_type: DocumentType,
    /// Its id in the store.
    pub id: String,
    /// The line to be stored.
    pub body: Cow<'a, str>,
    /// Ids, in the store, of the user data it refers to.
    pub targets: Vec<String>,
    /// It is a link that an importer had damaged: its id or its order was not that of its ends. There may be another
    /// one between the same ends.
    pub repaired: bool,
}

/// Checks one line. `expected` is the type of its entry; version 1 has one entry for all types.
///
/// # Errors
/// What is wrong, in words.
pub fn check<'a>(
    line: &'a [u8],
    version: SnapshotVersion,
    expected: Option<DocumentType>,
    identity: &Identity,
) -> Result<Checked<'a>, String> {
    let text = std::str::from_utf8(line).map_err(|_| "not UTF-8")?;
    if text.trim().is_empty() {
        return Err("a blank line".to_owned());
    }
    json_rules::check(text)?;
    let envelope = Fields::of(text).ok_or("not a JSON object")?;
    let of = match expected {
        Some(of) => of,
        None => {
            let name = envelope.text("_type").ok_or("_type is missing")?;
            DocumentType::parse(&name).ok_or_else(|| format!("_type is {name:?}, which is no entity type"))?
        }
    };
    let source = check_envelope(&envelope, of.name(), version)?;
    check_source(&source, of, &identity.old_id)?;
    let document = Document { of, version, identity, envelope: &envelope, source: &source };
    let targets = if of == DocumentType::UserData { document.targets()? } else { Vec::new() };
    let link = if of == DocumentType::Link { Some(Link::of(&source, identity)?) } else { None };
    let old_id = envelope.text("_id").unwrap_or_default();
    let id = link.as_ref().map_or_else(|| identity.map(&old_id), |link| link.id());
    let repaired = link.as_ref().is_some_and(|link| link.was_damaged(&old_id));
    let verbatim = version == SnapshotVersion::Two && !identity.is_remapped() && !repaired;
    let body = if verbatim { Cow::Borrowed(text) } else { Cow::Owned(document.rewritten(&id, link.as_ref())) };
    Ok(Checked { document_type: of, id, body, targets, repaired })
}

/// Checks the four fields around `_source`; returns its fields.
pub(super) fn check_envelope<'a>(
    envelope: &Fields<'a>,
    of: &str,
    version: SnapshotVersion,
) -> Result<Fields<'a>, String> {
    let names = ["_index", "_type", "_id", "_source"];
    if let Some(missing) = names.iter().find(|name| envelope.get(name).is_none()) {
        return Err(format!("{missing} is missing"));
    }
    if let Some((extra, _)) = envelope.iter().find(|(key, _)| !names.contains(key)) {
        return Err(format!("{} does not belong there", extra.escape_debug()));
    }
    let shown = |value: Option<&RawValue>| value.map_or("null".to_owned(), |v| v.get().chars().take(80).collect());
    if envelope.text("_type").as_deref() != Some(of) {
        return Err(format!("_type is {}, must be {of}", shown(envelope.get("_type"))));
    }
    let index = envelope.text("_index").ok_or("_index is not a string")?;
    let suffix = format!(".{}", of.to_lowercase());
    if version == SnapshotVersion::Two && !index.ends_with(&suffix) {
        return Err(format!("_index does not end in {suffix}"));
    }
    if !envelope.text("_id").is_some_and(|id| is_id(&id) && id.len() <= LONGEST_ID) {
        return Err("_id is not base64url text".to_owned());
    }
    let source = envelope.object("_source").ok_or("_source is not an object")?;
    let own_type = source.text("type");
    let may_be_absent = version == SnapshotVersion::One && source.get("type").is_none();
    if own_type.as_deref() != Some(of) && !may_be_absent {
        return Err(format!("_source.type is {}, must be {of}", shown(source.get("type"))));
    }
    for name in ["p", "u"] {
        match source.integer(name) {
            Some(time) if time >= SMALLEST_TIME => {}
            Some(time) => return Err(format!("_source.{name}={time} is not epoch milliseconds")),
            None => return Err(format!("_source.{name} is not an integer")),
        }
    }
    Ok(source)
}

fn check_source(source: &Fields<'_>, of: DocumentType, cell_id: &str) -> Result<(), String> {
    use DocumentType::{ComplexTypeProperty, Link, Property, UserData};
    if let Some(c) = source.text("c").filter(|c| c != cell_id) {
        return Err(format!("c is {c:?}, the cell is {cell_id:?}"));
    }
    let box_level = schema::is_box_level(of);
    let link = of == Link;
    let linked = matches!(of, Property | ComplexTypeProperty);
    for (name, kind, required) in [
        ("c", Kind::String, true),
        ("b", Kind::String, box_level),
        ("n", Kind::String, box_level),
        ("t", Kind::String, of == UserData),
        ("s", Kind::Object, !link),
        ("h", Kind::Object, linked),
        ("l", Kind::Object, linked),
        ("ll", Kind::Array, false),
        ("t1", Kind::String, link),
        ("k1", Kind::String, link),
        ("t2", Kind::String, link),
        ("k2", Kind::String, link),
    ] {
        is_of(source, "_source", name, kind, required)?;
    }
    for (of_ids, name) in [("b", "b"), ("n", "n"), ("t", "t")] {
        if source.text(of_ids).is_some_and(|id| !is_id(&id)) {
            return Err(format!("_source.{name} is not base64url text"));
        }
    }
    if let Some(declared) = source.object("s") {
        for (name, kind) in schema::required(of) {
            is_of(&declared, "_source.s", name, *kind, true)?;
        }
        for (name, kind) in schema::optional(of) {
            is_of(&declared, "_source.s", name, *kind, false)?;
        }
    }
    let empty = Fields::default();
    let hidden = source.object("h");
    for (name, required) in schema::hidden(of) {
        is_of(hidden.as_ref().unwrap_or(&empty), "_source.h", name, Kind::String, *required)?;
    }
    let references = source.object("l");
    for (name, required) in schema::references(of) {
        is_of(references.as_ref().unwrap_or(&empty), "_source.l", name, Kind::String, *required)?;
    }
    for (name, value) in references.iter().flat_map(Fields::iter) {
        if Kind::of(value) != Kind::Null && !text(value).is_some_and(|id| is_id(&id)) {
            return Err(format!("_source.l.{} is not base64url text", name.escape_debug()));
        }
    }
    Ok(())
}

/// Null and absent mean the same.
fn is_of(fields: &Fields<'_>, path: &str, name: &str, kind: Kind, required: bool) -> Result<(), String> {
    match fields.get(name) {
        None if required => Err(format!("{path}.{name} is missing")),
        None => Ok(()),
        // Numbers of the format are integers.
        Some(_) if kind == Kind::Number && fields.integer(name).is_some() => Ok(()),
        Some(value) if kind != Kind::Number && Kind::of(value) == kind => Ok(()),
        Some(_) => Err(format!("{path}.{name} is not {}", kind.words())),
    }
}

/// The two ends of a link, as they will be: the smaller type first, which is how the server looks for them.
#[derive(Debug)]
struct Link {
    types: (String, String),
    keys: (String, String),
    /// In the snapshot: whether the ends were in order, and what its id should have been.
    was: (bool, String),
}

impl Link {
    fn of(source: &Fields<'_>, identity: &Identity) -> Result<Self, String> {
        let field = |name: &str| {
            let id = source.text(name).unwrap_or_default().into_owned();
            if is_id(&id) { Ok(id) } else { Err(format!("_source.{name} is not base64url text")) }
        };
        let (t1, k1, t2, k2) = (field("t1")?, field("k1")?, field("t2")?, field("k2")?);
        if k1.len() + k2.len() >= LONGEST_ID {
            return Err("_source.k1 and _source.k2 are too long".to_owned());
        }
        let was = (t1 <= t2, format!("{k1}-{k2}"));
        // Links of control objects name types, links of user data the ids of their entity types.
        let new_type = |t: &str| if DocumentType::parse(t).is_some() { t.to_owned() } else { identity.map(t) };
        let (types, keys) = ((new_type(&t1), new_type(&t2)), (identity.map(&k1), identity.map(&k2)));
        // Ids are ASCII: the order of bytes is that of UTF-16 units.
        Ok(if types.0 <= types.1 {
            Self { types, keys, was }
        } else {
            Self { types: (types.1, types.0), keys: (keys.1, keys.0), was }
        })
    }

    fn id(&self) -> String {
        format!("{}-{}", self.keys.0, self.keys.1)
    }

    fn was_damaged(&self, old_id: &str) -> bool {
        !self.was.0 || self.was.1 != old_id
    }
}

struct Document<'a, 'l> {
    of: DocumentType,
    version: SnapshotVersion,
    identity: &'a Identity,
    envelope: &'a Fields<'l>,
    source: &'a Fields<'l>,
}

impl Document<'_, '_> {
    /// New ids of the user data in `ll`: `EntityTypeId:UserDataId` each.
    fn targets(&self) -> Result<Vec<String>, String> {
        let Some(entries) = self.source.get("ll") else { return Ok(Vec::new()) };
        let entries: Vec<&RawValue> = serde_json::from_str(entries.get()).map_err(|_| "_source.ll is not an array")?;
        let target = |entry: &&RawValue| match text(entry).as_deref().and_then(|e| e.split_once(':')) {
            Some((entity_type, target)) if is_id(entity_type) && is_id(target) => Ok(self.identity.map(target)),
            _ => {
                let shown: String = entry.get().chars().take(80).collect();
                Err(format!("ll entry {shown} is not EntityTypeId:UserDataId"))
            }
        };
        entries.iter().map(target).collect()
    }

    /// The line with its new ids, and with what its version lacks.
    fn rewritten(&self, id: &str, link: Option<&Link>) -> String {
        let mut line = Writer::default();
        for (key, value) in self.envelope.iter() {
            match key {
                "_index" => line.text(key, &self.index()),
                "_id" => line.text(key, id),
                "_source" => line.field(key, &self.new_source(link)),
                _ => line.field(key, value.get()),
            }
        }
        line.finish()
    }

    /// The index with the type's suffix, which version 1 does not have.
    fn index(&self) -> String {
        let index = self.envelope.text("_index").unwrap_or_default();
        let suffix = format!(".{}", self.of.name().to_lowercase());
        if index.ends_with(&suffix) { index.into_owned() } else { format!("{index}{suffix}") }
    }

    fn new_source(&self, link: Option<&Link>) -> String {
        let mut source = Writer::default();
        for (key, value) in self.source.iter() {
            let mapped = || text(value).map(|id| self.identity.map(&id));
            let ends = link.and_then(|link| match key {
                "t1" => Some(&link.types.0),
                "t2" => Some(&link.types.1),
                "k1" => Some(&link.keys.0),
                "k2" => Some(&link.keys.1),
                _ => None,
            });
            match (key, ends) {
                (_, Some(end)) => source.text(key, end),
                ("c" | "b" | "n" | "t", _) => match mapped() {
                    Some(id) => source.text(key, &id),
                    // Version 1 has them everywhere, as null.
                    None if self.version == SnapshotVersion::One => {}
                    None => source.field(key, value.get()),
                },
                ("l", _) => source.field(key, &self.new_references(value)),
                ("ll", _) => source.field(key, &self.new_targets(value)),
                _ => source.field(key, value.get()),
            }
        }
        if !self.source.contains("type") {
            source.text("type", self.of.name());
        }
        source.finish()
    }

    fn new_references(&self, value: &RawValue) -> String {
        let mut references = Writer::default();
        let Some(old) = Fields::of(value.get()) else { return value.get().to_owned() };
        for (key, value) in old.iter() {
            match text(value) {
                Some(id) => references.text(key, &self.identity.map(&id)),
                None => references.field(key, value.get()),
            }
        }
        references.finish()
    }

    fn new_targets(&self, value: &RawValue) -> String {
        let Ok(entries) = serde_json::from_str::<Vec<&RawValue>>(value.get()) else { return value.get().to_owned() };
        let new = entries.iter().map(|entry| match text(entry).as_deref().and_then(|e| e.split_once(':')) {
            Some((entity_type, target)) => {
                quoted(&format!("{}:{}", self.identity.map(entity_type), self.identity.map(target)))
            }
            None => entry.get().to_owned(),
        });
        format!("[{}]", new.collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::super::identity::tests::identity;
    use super::*;

    const LINE: &str = r#"{"_index":"u0_anon.role","_type":"Role","_source":{"p":1640995200000,"s":{"Name":"old-id \/"},"c":"old-id","b":"old-id","u":1640995200000,"l":{"Box":"old-id"},"type":"Role","x":1.0E2},"_id":"r1"}"#;

    fn two(line: &str, of: DocumentType, new: &str) -> Result<(String, String), String> {
        let checked = check(line.as_bytes(), SnapshotVersion::Two, Some(of), &identity(new))?;
        Ok((checked.id, checked.body.into_owned()))
    }

    #[test]
    fn with_the_same_id_a_line_stays_as_it_is() {
        assert_eq!(two(LINE, DocumentType::Role, "old-id"), Ok(("r1".to_owned(), LINE.to_owned())));
    }

    #[test]
    fn with_another_id_fields_change_and_texts_do_not() {
        let new = identity("new-id");
        let (id, body) = two(LINE, DocumentType::Role, "new-id").expect("sound");
        assert_eq!(id, new.map("r1"));
        let expected = LINE
            .replace(r#""c":"old-id","b":"old-id""#, r#""c":"new-id","b":"new-id""#)
            .replace(r#""Box":"old-id""#, r#""Box":"new-id""#)
            .replace(r#""_id":"r1""#, &format!(r#""_id":"{id}""#));
        assert_eq!(body, expected, "a user's text and numbers stay as they stand");
    }

    #[test]
    fn references_follow_forward_and_backward() {
        let line = r#"{"_index":"u0.userdata","_type":"UserData","_source":{"p":1640995200000,"ll":["et:later","et:e\u0061rlier"],"b":"box1","s":{"__id":"later"},"c":"old-id","t":"et","u":1640995200000,"h":{},"type":"UserData","n":"node"},"_id":"u1"}"#;
        let new = identity("new-id");
        let checked = check(line.as_bytes(), SnapshotVersion::Two, Some(DocumentType::UserData), &new).expect("sound");
        assert_eq!(checked.targets, [new.map("later"), new.map("earlier")]);
        let body: serde_json::Value = serde_json::from_str(&checked.body).expect("JSON");
        let source = &body["_source"];
        assert_eq!(source["ll"][0], format!("{}:{}", new.map("et"), new.map("later")));
        for (field, old) in [("b", "box1"), ("t", "et"), ("n", "node")] {
            assert_eq!(source[field], new.map(old));
        }
        assert_eq!(source["s"]["__id"], "later", "a user's key is no id");
    }

    fn link(t1: &str, k1: &str, t2: &str, k2: &str, id: &str) -> String {
        format!(
            r#"{{"_index":"u0.link","_type":"link","_source":{{"p":1640995200000,"c":"old-id","u":1640995200000,"k1":"{k1}","k2":"{k2}","type":"link","t1":"{t1}","t2":"{t2}"}},"_id":"{id}"}}"#
        )
    }

    #[test]
    fn links_keep_their_order_and_their_ids() {
        let new = identity("new-id");
        for n in 0..20 {
            let (t1, t2) = (format!("et-a{n}"), format!("et-b{n}"));
            let line = link(&t1, "ka", &t2, "kb", "ka-kb");
            let checked = check(line.as_bytes(), SnapshotVersion::Two, Some(DocumentType::Link), &new).expect("sound");
            let body: serde_json::Value = serde_json::from_str(&checked.body).expect("JSON");
            let source = &body["_source"];
            let end = |n: &str| (source[format!("t{n}")].as_str(), source[format!("k{n}")].as_str());
            assert!(end("1").0 < end("2").0, "{line}");
            let (a, b) = ((new.map(&t1), new.map("ka")), (new.map(&t2), new.map("kb")));
            let mut expected = [a, b];
            expected.sort();
            assert_eq!(end("1"), (Some(expected[0].0.as_str()), Some(expected[0].1.as_str())));
            assert_eq!(end("2"), (Some(expected[1].0.as_str()), Some(expected[1].1.as_str())));
            assert_eq!(checked.id, format!("{}-{}", expected[0].1, expected[1].1));
            assert!(!checked.repaired);
        }
        let of_types = link("Account", "k1", "Role", "k2", "k1-k2");
        let (id, body) = two(&of_types, DocumentType::Link, "new-id").expect("sound");
        assert!(body.contains(r#""t1":"Account","t2":"Role""#), "names of types stay: {body}");
        assert_eq!(id, format!("{}-{}", new.map("k1"), new.map("k2")));
    }

    #[test]
    fn links_that_an_importer_damaged_are_repaired() {
        for damaged in [link("etB", "kb", "etA", "ka", "kb-ka"), link("etA", "ka", "etB", "kb", "random")] {
            let same = identity("old-id");
            let checked =
                check(damaged.as_bytes(), SnapshotVersion::Two, Some(DocumentType::Link), &same).expect("sound");
            assert!(checked.repaired);
            let whole = link("etA", "ka", "etB", "kb", "ka-kb");
            assert_eq!((checked.id.as_str(), checked.body.as_ref()), ("ka-kb", whole.as_str()));
        }
    }

    #[test]
    fn version_one_is_completed() {
        let line = r#"{"_index":"u0_x","_type":"Box","_source":{"p":1543819346826,"b":null,"s":{"Schema":"x","Name":"b"},"c":"old-id","t":null,"u":1543819346826,"h":{},"l":{},"n":null},"_id":"b1"}"#;
        let checked = check(line.as_bytes(), SnapshotVersion::One, None, &identity("old-id")).expect("sound");
        assert_eq!(checked.document_type, DocumentType::Box);
        assert_eq!(
            checked.body,
            r#"{"_index":"u0_x.box","_type":"Box","_source":{"p":1543819346826,"s":{"Schema":"x","Name":"b"},"c":"old-id","u":1543819346826,"h":{},"l":{},"type":"Box"},"_id":"b1"}"#
        );
        let (id, body) = two(&checked.body, DocumentType::Box, "old-id").expect("a sound version-2 document");
        assert_eq!((id.as_str(), body.as_str()), ("b1", checked.body.as_ref()));
        let unknown = line.replace("Box", "Bix");
        let refused = check(unknown.as_bytes(), SnapshotVersion::One, None, &identity("old-id"));
        assert_eq!(refused.expect_err("unknown"), "_type is \"Bix\", which is no entity type");
    }

    #[test]
    fn every_rule_has_its_words() {
        let broken = [
            (LINE.replace("\"_id\":\"r1\"", "\"_id\":\"r/1\""), "_id is not base64url text"),
            (LINE.replace("\"_id\":\"r1\"", "\"_id\":7"), "_id is not base64url text"),
            (LINE.replace(",\"_id\":\"r1\"", ""), "_id is missing"),
            (LINE.replace("\"_id\":\"r1\"", "\"_id\":\"r1\",\"z\":1"), "z does not belong there"),
            (LINE.replace("\"_type\":\"Role\"", "\"_type\":\"Box\""), "_type is \"Box\", must be Role"),
            (LINE.replace("anon.role", "anon.box"), "_index does not end in .role"),
            (LINE.replace("\"u0_anon.role\"", "{}"), "_index is not a string"),
            (LINE.replace("\"c\":\"old-id\"", "\"c\":\"x\""), "c is \"x\", the cell is \"old-id\""),
            (LINE.replace("\"c\":\"old-id\"", "\"c\":null"), "_source.c is missing"),
            (LINE.replace("\"c\":\"old-id\"", "\"c\":[]"), "_source.c is not a string"),
            (LINE.replace("\"b\":\"old-id\"", "\"b\":\"a b\""), "_source.b is not base64url text"),
            (LINE.replace("\"p\":1640995200000", "\"p\":1640995"), "_source.p=1640995 is not epoch milliseconds"),
            (LINE.replace("\"p\":1640995200000", "\"p\":\"x\""), "_source.p is not an integer"),
            (LINE.replace("\"l\":{\"Box\":\"old-id\"}", "\"l\":[]"), "_source.l is not an object"),
            (LINE.replace("{\"Box\":\"old-id\"}", "{\"Box\":1}"), "_source.l.Box is not a string"),
            (LINE.replace("{\"Box\":\"old-id\"}", "{\"Box\":\"/\"}"), "_source.l.Box is not base64url text"),
            (LINE.replace("\"s\":{\"Name\":\"old-id \\/\"}", "\"q\":1"), "_source.s is missing"),
            (LINE.replace("{\"Name\":\"old-id \\/\"}", "{}"), "_source.s.Name is missing"),
            (LINE.replace("\"old-id \\/\"", "true"), "_source.s.Name is not a string"),
            (String::new(), "a blank line"),
            ("  ".to_owned(), "a blank line"),
            ("[]".to_owned(), "not a JSON object"),
        ];
        for (line, words) in broken {
            assert_eq!(two(&line, DocumentType::Role, "old-id").err().as_deref(), Some(words), "{line}");
        }
    }

    /// Every field of every type, each with a value of a wrong kind.
    #[test]
    fn a_wrong_kind_is_refused_in_every_field() {
        for of in DocumentType::ALL {
            let mut declared = serde_json::Map::new();
            let sound = |kind| match kind {
                Kind::Boolean => serde_json::json!(true),
                Kind::Number => serde_json::json!(3),
                Kind::Array => serde_json::json!([]),
                Kind::String | Kind::Null | Kind::Object => serde_json::json!("x"),
            };
            for (name, kind) in schema::required(of).iter().chain(schema::optional(of)) {
                declared.insert((*name).to_owned(), sound(*kind));
            }
            let texts = |names: &[(&str, bool)]| {
                names.iter().map(|(name, _)| ((*name).to_owned(), "x".into())).collect::<serde_json::Map<_, _>>()
            };
            let source = serde_json::json!({"c": "old-id", "b": "b", "n": "n", "t": "t", "p": 1640995200000_i64,
                "u": 1640995200000_i64, "type": of.name(), "s": declared, "h": texts(schema::hidden(of)),
                "l": texts(schema::references(of)), "ll": [], "t1": "a", "k1": "a", "t2": "b", "k2": "b"});
            let whole = serde_json::json!({"_index": format!("u0.{}", of.name().to_lowercase()), "_type": of.name(),
                "_source": source, "_id": "a-b"});
            assert!(two(&whole.to_string(), of, "old-id").is_ok(), "{whole}");
            let mut fields: Vec<String> =
                ["c", "b", "n", "t", "p", "u", "type", "s", "h", "l", "ll", "t1", "k1", "t2", "k2"]
                    .map(|name| format!("/_source/{name}"))
                    .into();
            fields.extend(["_index", "_type", "_source", "_id"].map(|name| format!("/{name}")));
            for (group, names) in [("s", schema::required(of)), ("s", schema::optional(of))] {
                fields.extend(names.iter().map(|(name, _)| format!("/_source/{group}/{name}")));
            }
            for (group, names) in [("h", schema::hidden(of)), ("l", schema::references(of))] {
                fields.extend(names.iter().map(|(name, _)| format!("/_source/{group}/{name}")));
            }
            for field in fields {
                for wrong in [serde_json::json!(1.5), serde_json::json!({"x": []}), serde_json::json!([[]])] {
                    let mut broken = whole.clone();
                    let place = broken.pointer_mut(&field).expect("the field is there");
                    let same_kind = std::mem::discriminant(place) == std::mem::discriminant(&wrong);
                    if same_kind && !place.is_number() {
                        continue;
                    }
                    *place = wrong;
                    assert!(two(&broken.to_string(), of, "old-id").is_err(), "{field}: {broken}");
                }
            }
        }
    }
}
