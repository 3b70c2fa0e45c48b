//! One document: the rules of its envelope and of its common fields, and what a new cell id changes in it.

use std::borrow::Cow;

use model::cell::is_id;
use model::layout::DocumentType;
use serde_json::Value;

use super::identity::Identity;
use super::json_rules;

/// Documents carry epoch milliseconds; Personium's importer cannot take a smaller number.
const SMALLEST_TIME: i64 = 1 << 31;

/// A document that may be stored.
pub(super) struct Checked<'a> {
    pub(super) id: String,
    /// The line to be stored: verbatim, unless the cell's id changes.
    pub(super) body: Cow<'a, str>,
    /// Ids of the user data it refers to.
    pub(super) targets: Vec<String>,
}

/// Checks one line.
///
/// # Errors
/// What is wrong, in words.
pub(super) fn check<'a>(line: &'a [u8], of: DocumentType, identity: &Identity) -> Result<Checked<'a>, String> {
    let text = std::str::from_utf8(line).map_err(|_| "not UTF-8")?;
    if text.trim().is_empty() {
        return Err("a blank line".to_owned());
    }
    json_rules::check(text)?;
    let mut value: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
    check_envelope(&value, of.name())?;
    check_source(&value["_source"], of, &identity.old_id)?;
    let id = value["_id"].as_str().unwrap_or_default().to_owned();
    let targets = if of == DocumentType::UserData { targets(&value["_source"]["ll"])? } else { Vec::new() };
    if !identity.is_remapped() {
        return Ok(Checked { id, body: Cow::Borrowed(text), targets });
    }
    remap(&mut value, identity);
    Ok(Checked { id, body: Cow::Owned(value.to_string()), targets })
}

/// Checks the four fields around `_source`.
pub(super) fn check_envelope(value: &Value, of: &str) -> Result<(), String> {
    let Value::Object(fields) = value else { return Err("not a JSON object".to_owned()) };
    for name in ["_index", "_type", "_id", "_source"] {
        if !fields.contains_key(name) {
            return Err(format!("{name} is missing"));
        }
    }
    if let Some(extra) = fields.keys().find(|k| !["_index", "_type", "_id", "_source"].contains(&k.as_str())) {
        return Err(format!("{} does not belong there", extra.escape_debug()));
    }
    if value["_type"] != of {
        return Err(format!("_type is {}, must be {of}", value["_type"]));
    }
    let suffix = format!(".{}", of.to_lowercase());
    if !value["_index"].as_str().is_some_and(|index| index.ends_with(&suffix)) {
        return Err(format!("_index does not end in {suffix}"));
    }
    if !value["_id"].as_str().is_some_and(|id| is_id(id) && id.len() <= 200) {
        return Err("_id is not base64url text".to_owned());
    }
    let source = &value["_source"];
    if !source.is_object() {
        return Err("_source is not an object".to_owned());
    }
    if source["type"] != of {
        return Err(format!("_source.type is {}, must be {of}", source["type"]));
    }
    for name in ["p", "u"] {
        match source[name].as_i64() {
            Some(time) if time >= SMALLEST_TIME => {}
            Some(time) => return Err(format!("_source.{name}={time} is not epoch milliseconds")),
            None => return Err(format!("_source.{name} is not an integer")),
        }
    }
    Ok(())
}

fn check_source(source: &Value, of: DocumentType, cell_id: &str) -> Result<(), String> {
    use DocumentType::{AssociationEnd, ComplexType, ComplexTypeProperty, EntityType, Link, Property, UserData};
    if let Some(c) = source["c"].as_str().filter(|c| *c != cell_id) {
        return Err(format!("c is {c:?}, the cell is {cell_id:?}"));
    }
    let box_level = matches!(of, EntityType | ComplexType | Property | ComplexTypeProperty | AssociationEnd | UserData);
    let (text, object, list): (Kind, Kind, Kind) =
        (("a string", Value::is_string), ("an object", Value::is_object), ("an array", Value::is_array));
    let link = of == Link;
    let linked = matches!(of, Property | ComplexTypeProperty);
    for (name, (what, is_right), required) in [
        ("c", text, true),
        ("b", text, box_level),
        ("n", text, box_level),
        ("t", text, of == UserData),
        ("s", object, !link),
        ("h", object, linked),
        ("l", object, linked),
        ("ll", list, false),
        ("t1", text, link),
        ("k1", text, link),
        ("t2", text, link),
        ("k2", text, link),
    ] {
        let value = &source[name];
        // Null and absent mean the same.
        if value.is_null() && required {
            return Err(format!("_source.{name} is missing"));
        }
        if !value.is_null() && !is_right(value) {
            return Err(format!("_source.{name} is not {what}"));
        }
    }
    Ok(())
}

type Kind = (&'static str, fn(&Value) -> bool);

/// Ids in `ll`: `EntityTypeId:UserDataId` each.
fn targets(ll: &Value) -> Result<Vec<String>, String> {
    let entries = ll.as_array().map(Vec::as_slice).unwrap_or_default();
    let target = |entry: &Value| {
        let (entity_type, target) = entry.as_str()?.split_once(':')?;
        (is_id(entity_type) && is_id(target)).then(|| target.to_owned())
    };
    let bad = |entry: &Value| format!("ll entry {entry} is not EntityTypeId:UserDataId");
    entries.iter().map(|entry| target(entry).ok_or_else(|| bad(entry))).collect()
}

/// Replaces the cell's id where a field holds it: the cell of a document, the main box, and references to that box.
fn remap(value: &mut Value, identity: &Identity) {
    let replace = |field: &mut Value| {
        if field.as_str() == Some(&identity.old_id) {
            *field = identity.id.as_str().into();
        }
    };
    let Value::Object(source) = &mut value["_source"] else { return };
    ["c", "b"].into_iter().for_each(|name| source.get_mut(name).into_iter().for_each(replace));
    if let Some(Value::Object(references)) = source.get_mut("l") {
        references.values_mut().for_each(replace);
    }
}

#[cfg(test)]
mod tests {
    use model::cell::CellId;

    use super::*;

    fn identity(new: &str) -> Identity {
        Identity {
            old_id: "old-id".to_owned(),
            id: CellId::parse(new).expect("an id"),
            name: String::new(),
            owner: None,
            document: String::new(),
        }
    }

    const LINE: &str = r#"{"_index":"u0_anon.role","_type":"Role","_source":{"p":1640995200000,"s":{"Name":"old-id \/"},"c":"old-id","b":"old-id","u":1640995200000,"l":{"Box":"old-id"},"type":"Role","x":1.0E2},"_id":"r1"}"#;

    #[test]
    fn with_the_same_id_a_line_stays_as_it_is() {
        let checked = check(LINE.as_bytes(), DocumentType::Role, &identity("old-id")).expect("sound");
        assert_eq!((checked.body.as_ref(), checked.id.as_str()), (LINE, "r1"));
    }

    #[test]
    fn with_another_id_fields_change_and_texts_do_not() {
        let checked = check(LINE.as_bytes(), DocumentType::Role, &identity("new-id")).expect("sound");
        let value: Value = serde_json::from_str(&checked.body).expect("JSON");
        let source = &value["_source"];
        assert_eq!(source["c"], "new-id");
        assert_eq!(source["b"], "new-id", "the main box");
        assert_eq!(source["l"]["Box"], "new-id");
        assert_eq!(source["s"]["Name"], "old-id /", "a user's text");
        assert_eq!(source["x"], 100.0);
    }

    #[test]
    fn every_rule_has_its_words() {
        let broken = [
            (LINE.replace("\"_id\":\"r1\"", "\"_id\":\"r/1\""), "_id is not base64url text"),
            (LINE.replace(",\"_id\":\"r1\"", ""), "_id is missing"),
            (LINE.replace("\"_id\":\"r1\"", "\"_id\":\"r1\",\"z\":1"), "z does not belong there"),
            (LINE.replace("\"_type\":\"Role\"", "\"_type\":\"Box\""), "_type is \"Box\", must be Role"),
            (LINE.replace("anon.role", "anon.box"), "_index does not end in .role"),
            (LINE.replace("\"c\":\"old-id\"", "\"c\":\"x\""), "c is \"x\", the cell is \"old-id\""),
            (LINE.replace("\"c\":\"old-id\"", "\"c\":null"), "_source.c is missing"),
            (LINE.replace("\"p\":1640995200000", "\"p\":1640995"), "_source.p=1640995 is not epoch milliseconds"),
            (LINE.replace("\"p\":1640995200000", "\"p\":\"x\""), "_source.p is not an integer"),
            (LINE.replace("\"l\":{\"Box\":\"old-id\"}", "\"l\":[]"), "_source.l is not an object"),
            (LINE.replace("\"s\":{\"Name\":\"old-id \\/\"}", "\"q\":1"), "_source.s is missing"),
            (String::new(), "a blank line"),
            ("  ".to_owned(), "a blank line"),
            ("[]".to_owned(), "not a JSON object"),
        ];
        for (line, words) in broken {
            let refused = check(line.as_bytes(), DocumentType::Role, &identity("old-id"));
            assert_eq!(refused.err().as_deref(), Some(words), "{line}");
        }
    }
}
