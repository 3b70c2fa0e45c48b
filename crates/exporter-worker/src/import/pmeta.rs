//! A node's metadata: its rules, and what changes in it on its way into a cell.

use model::cell::is_id;
use model::layout::SnapshotVersion;
use serde_json::{Map, Value};

use super::identity::Identity;

/// What an archive has at the path of a node.
#[derive(Debug, Clone, Copy, Default)]
pub struct Surroundings {
    /// Bytes of a file.
    pub content: bool,
    /// Nodes below it.
    pub children: bool,
}

/// Checks a node's metadata; returns the length that the contents of a file must have.
///
/// # Errors
/// What is wrong, in words.
pub fn check(value: &Value, path: &str, around: Surroundings) -> Result<Option<u64>, String> {
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
    for name in ["ct", "et", "cs"] {
        if !value[name].is_null() && !value[name].is_string() {
            return Err(format!("{name} is not a string"));
        }
    }
    if !value["i"].as_str().is_some_and(is_id) {
        return Err("i is not base64url text".to_owned());
    }
    if let Some((name, _)) = value["d"].as_object().into_iter().flatten().find(|(_, v)| !v.is_string()) {
        return Err(format!("d.{} is not a string", name.escape_debug()));
    }
    check_acl(&value["a"])?;
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
    match (kind, around.content) {
        ("dav.file", false) => Err("a file without content".to_owned()),
        ("dav.file", true) if around.children => Err("a file with children".to_owned()),
        ("dav.file", true) => match value["cl"].as_u64() {
            Some(length) => Ok(Some(length)),
            None => Err("cl is not an integer".to_owned()),
        },
        (_, true) => Err(format!("content inside a {kind}")),
        ("col.odata", false) if around.children => Err("an OData collection with children".to_owned()),
        (_, false) => Ok(None),
    }
}

/// An ACL's entries: one or many, each with a principal and a grant. What is granted is the server's business.
fn check_acl(acl: &Value) -> Result<(), String> {
    let entries = match &acl["D.ace"] {
        Value::Null => return Ok(()),
        Value::Array(entries) => entries.as_slice(),
        entry @ Value::Object(_) => std::slice::from_ref(entry),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => return Err("a.D.ace is not an array".to_owned()),
    };
    for entry in entries {
        let (principal, grant) = (&entry["D.principal"], &entry["D.grant"]);
        if !principal.is_object() || !(grant.is_object() || grant.is_null()) {
            return Err("an entry of a.D.ace has no D.principal or no D.grant".to_owned());
        }
        if !principal["D.href"].is_null() && !principal["D.href"].is_string() {
            return Err("a D.href of a.D.ace is not a string".to_owned());
        }
        if !matches!(grant["D.privilege"], Value::Null | Value::Array(_) | Value::Object(_)) {
            return Err("a D.privilege of a.D.ace is not an array".to_owned());
        }
    }
    Ok(())
}

/// The metadata to be stored; nothing when it stays as it is.
pub fn changed(value: &Value, path: &str, version: SnapshotVersion, identity: &Identity) -> Option<Value> {
    let mut new = value.clone();
    if identity.is_remapped() {
        map_ids(&mut new, identity);
    }
    if version == SnapshotVersion::One {
        complete(&mut new, path);
    }
    // A failed import by a unit marked the cell; this one succeeds.
    if new["cs"] == "import failed" {
        new["cs"] = "normal".into();
    }
    (new != *value).then_some(new)
}

fn map_ids(pmeta: &mut Value, identity: &Identity) {
    let map = |id: &mut Value| {
        if let Some(new) = id.as_str().map(|old| identity.map(old)) {
            *id = new.into();
        }
    };
    map(&mut pmeta["i"]);
    for entry in entries(&mut pmeta["a"]) {
        if let Some(href) = entry.pointer_mut("/D.principal/D.href") {
            map(href);
        }
    }
}

/// The entries of an ACL; old ones have a single object where an array belongs.
fn entries(acl: &mut Value) -> impl Iterator<Item = &mut Value> {
    match acl.get_mut("D.ace") {
        Some(Value::Array(many)) => many.iter_mut(),
        Some(one) => std::slice::from_mut(one).iter_mut(),
        None => [].iter_mut(),
    }
}

/// Puts into version-1 metadata what version 2 has: the state of the cell, the encryption of a file, ACLs in their form.
fn complete(pmeta: &mut Value, path: &str) {
    if path.is_empty() && pmeta["cs"].is_null() {
        pmeta["cs"] = "normal".into();
    }
    if pmeta["t"] == "dav.file" && pmeta["et"].as_str().unwrap_or_default().is_empty() {
        pmeta["et"] = "NONE".into();
    }
    let Some(acl) = pmeta["a"].as_object_mut() else { return };
    if let Some(require) = acl.shift_remove("@requireSchemaAuthz") {
        acl.insert("@p.requireSchemaAuthz".to_owned(), require);
    }
    if let Some(ace) = acl.get_mut("D.ace") {
        into_array(ace);
        for entry in ace.as_array_mut().into_iter().flatten() {
            let Some(privileges) = entry.pointer_mut("/D.grant/D.privilege") else { continue };
            into_array(privileges);
            privileges.as_array_mut().into_iter().flatten().for_each(complete_privilege);
        }
    }
}

fn into_array(value: &mut Value) {
    if !value.is_array() {
        *value = Value::Array(vec![value.take()]);
    }
}

/// `{"root":null}` becomes `{"p.root":{}}`: only rights of WebDAV ever had a prefix in version 1.
fn complete_privilege(privilege: &mut Value) {
    if let Some(rights) = privilege.as_object_mut() {
        let old = std::mem::take(rights);
        *rights = old
            .into_iter()
            .map(|(name, value)| {
                let name = if name.contains('.') { name } else { format!("p.{name}") };
                (name, if value.is_null() { Value::Object(Map::new()) } else { value })
            })
            .collect();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::identity::tests::identity;
    use super::*;

    fn file() -> Value {
        json!({"p": 1, "a": {}, "ct": "image/jpeg", "d": {"x@y": "<x/>"}, "t": "dav.file", "u": 1, "v": 9,
               "i": "node", "cl": 4203, "et": "NONE"})
    }

    const CONTENT: Surroundings = Surroundings { content: true, children: false };

    #[test]
    fn a_sound_file_says_how_long_it_is() {
        assert_eq!(check(&file(), "box/a/b", CONTENT), Ok(Some(4203)));
    }

    #[test]
    fn a_wrong_kind_is_refused_in_every_field() {
        let names: Vec<String> = file().as_object().expect("an object").keys().cloned().collect();
        for name in names {
            for wrong in [json!(1.5), json!([]), json!({"x": 1})] {
                let mut broken = file();
                broken[&name] = wrong;
                if name == "a" && broken["a"].is_object() {
                    continue;
                }
                assert!(check(&broken, "box/a/b", CONTENT).is_err(), "{broken}");
            }
        }
        for ace in [
            json!(1),
            json!([1]),
            json!([{"D.principal": 1}]),
            json!({"D.principal": {"D.href": 1}}),
            json!([{"D.principal": {"D.all": ""}, "D.grant": {"D.privilege": "x"}}]),
        ] {
            let mut broken = file();
            broken["a"] = json!({"D.ace": ace});
            assert!(check(&broken, "box/a/b", CONTENT).is_err(), "{broken}");
        }
    }

    #[test]
    fn a_nodes_place_must_fit_its_type() {
        let of = |t: &str| json!({"p": 1, "a": {}, "d": {}, "t": t, "u": 1, "v": 1, "i": "x"});
        let bare = Surroundings::default();
        for (t, path) in [("Cell", ""), ("col.box", "b"), ("col.webdav", "b/c"), ("col.odata", "b/c/d")] {
            assert_eq!(check(&of(t), path, bare), Ok(None), "{t} {path}");
        }
        for (t, path) in [("Cell", "b"), ("col.box", ""), ("col.box", "b/c"), ("dav.file", "b"), ("x", "b/c")] {
            assert!(check(&of(t), path, bare).is_err(), "{t} {path}");
        }
        assert!(check(&of("col.odata"), "b/c", Surroundings { children: true, ..bare }).is_err());
        assert!(check(&of("col.webdav"), "b/c", CONTENT).is_err());
        assert!(check(&file(), "b/c", bare).is_err());
    }

    #[test]
    fn ids_follow_the_cell() {
        let two = SnapshotVersion::Two;
        let acl = json!({"D.ace": [{"D.principal": {"D.href": "role"}, "D.grant": {"D.privilege": [{"D.read": {}}]}},
                                   {"D.principal": {"D.all": ""}}]});
        let mut old = file();
        old["a"] = acl;
        assert_eq!(changed(&old, "b/c", two, &identity("old-id")), None);
        let new = identity("new-id");
        let got = changed(&old, "b/c", two, &new).expect("another cell");
        assert_eq!(got["i"], new.map("node"));
        assert_eq!(got["a"]["D.ace"][0]["D.principal"]["D.href"], new.map("role"));
        assert_eq!(got["a"]["D.ace"][1], old["a"]["D.ace"][1]);
        let legacy = json!({"D.ace": {"D.principal": {"D.href": "role"}, "D.grant": {"D.privilege": {"root": null}}}});
        old["a"] = legacy;
        let got = changed(&old, "b/c", two, &new).expect("another cell");
        assert_eq!(got["a"]["D.ace"]["D.principal"]["D.href"], new.map("role"));
    }

    #[test]
    fn version_one_is_completed() {
        let old = json!({"p": 1, "a": {"@requireSchemaAuthz": "none", "D.ace": {"D.principal": {"D.href": "role"},
            "D.grant": {"D.privilege": {"root": null}}}}, "d": {}, "t": "Cell", "u": 1, "v": 1, "i": "x"});
        let got = changed(&old, "", SnapshotVersion::One, &identity("old-id")).expect("completed");
        assert_eq!(got["cs"], "normal");
        assert_eq!(
            got["a"],
            json!({"D.ace": [{"D.principal": {"D.href": "role"}, "D.grant": {"D.privilege": [{"p.root": {}}]}}],
                   "@p.requireSchemaAuthz": "none"})
        );
        let mut plain = file();
        plain["et"] = Value::Null;
        let got = changed(&plain, "b/c", SnapshotVersion::One, &identity("old-id")).expect("completed");
        assert_eq!(got["et"], "NONE");
    }
}
