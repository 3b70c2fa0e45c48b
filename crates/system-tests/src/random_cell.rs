//! Random cells: every kind of document, value and file that a snapshot may hold; small, the same for the same seed.
//!
//! Ids stand in wrong places on purpose (texts, names, values of properties, names of files): an importer that replaces
//! them as text is found out. Every document has an update time of its own, so that two snapshots of one cell can be
//! compared document by document without their ids.

use std::collections::HashSet;
use std::io::{Cursor, Write};

use fastrand::Rng;
use model::layout::{self, DocumentType};
use serde_json::{Map, Value, json};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

const TIME: i64 = 1_640_995_200_000;

/// A complete version-2 snapshot of a random cell named `random-SEED`.
pub fn random_cell(seed: u64) -> Vec<u8> {
    let mut cell = RandomCell::new(seed);
    cell.boxes();
    cell.control_objects();
    cell.messages();
    let collections = cell.tree();
    for place in collections {
        cell.collection(&place);
    }
    cell.control_links();
    cell.zip(&format!("random-{seed}"))
}

/// The characters a writer of JSON escapes.
#[derive(Debug, Clone, Copy)]
enum Escape {
    /// Those that must be.
    Least,
    /// Those that Personium escapes.
    Reference,
    /// Everything that is not ASCII.
    All,
}

/// One of the many ways to write the same JSON.
#[derive(Debug, Clone, Copy)]
struct Style {
    escape: Escape,
    spaces: bool,
    shuffled: bool,
}

/// An OData collection: what `b` and `n` of its documents are.
struct Place {
    box_id: String,
    node: String,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Text,
    Boolean,
    Double,
    Single,
    Int32,
    DateTime,
    Complex(usize),
}

struct Property {
    alias: String,
    kind: Kind,
    list: bool,
}

/// A complex type of the collection at hand.
struct ComplexType {
    name: String,
    properties: Vec<Property>,
}

struct RandomCell {
    random: Rng,
    id: String,
    /// Ids to be used; texts mention them before and after that, and those that never are.
    ids: Vec<String>,
    used_ids: usize,
    serial: i64,
    names: HashSet<String>,
    lines: [Vec<String>; DocumentType::ALL.len()],
    /// Ids of the documents of each type.
    made: [Vec<String>; DocumentType::ALL.len()],
    links: HashSet<String>,
    /// Path, metadata, contents.
    nodes: Vec<(String, String, Option<Vec<u8>>)>,
    files: usize,
}

impl RandomCell {
    fn new(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let ids: Vec<_> = (0..400).map(|_| random_id(&mut random)).collect();
        Self {
            id: ids[0].clone(),
            random,
            ids,
            used_ids: 1,
            serial: 0,
            names: HashSet::new(),
            lines: Default::default(),
            made: Default::default(),
            links: HashSet::new(),
            nodes: Vec::new(),
            files: 0,
        }
    }

    fn new_id(&mut self) -> String {
        self.used_ids += 1;
        if self.used_ids > self.ids.len() {
            self.ids.push(random_id(&mut self.random));
        }
        self.ids[self.used_ids - 1].clone()
    }

    fn any_id(&mut self) -> String {
        let ids = std::mem::take(&mut self.ids);
        let id = self.pick(&ids).clone();
        self.ids = ids;
        id
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.u32(..100) < percent
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.random.usize(..of.len())]
    }

    fn some_of(&mut self, of: DocumentType) -> Option<String> {
        let made = &self.made[of.index()];
        (!made.is_empty()).then(|| made[self.random.usize(..made.len())].clone())
    }

    fn next(&mut self) -> i64 {
        self.serial += 1;
        self.serial
    }

    /// A name that documents and types may have; now and then it is somebody's id.
    fn name(&mut self, word: &str) -> String {
        let id = self.any_id();
        if self.chance(15) && id.starts_with(|c: char| c.is_ascii_alphanumeric()) && self.names.insert(id.clone()) {
            return id;
        }
        format!("{word}-{}_x", self.next())
    }

    /// Any text; it may look like JSON with ids in it, or be an id and nothing else.
    fn text(&mut self) -> String {
        if self.chance(10) {
            return self.any_id();
        }
        let mut text = String::new();
        for _ in 0..self.random.usize(..6) {
            let id = self.any_id();
            let other = self.any_id();
            match self.random.u32(..10) {
                0 => text.push_str(&id),
                1 => text.push_str(&format!(r#""_id":"{id}","ll":["{id}:{other}"]"#)),
                2 => text.push_str(&format!("/{id}/ {id}-{other} ")),
                3 => text += *self.pick(CONTROLS),
                _ => text += *self.pick(WORDS),
            }
        }
        text
    }

    fn url(&mut self) -> String {
        let id = self.any_id();
        let number = self.next();
        format!("https://cell{number}.other.example/{}", if self.chance(20) { id } else { String::new() })
    }

    fn style(&mut self) -> Style {
        let escape = *self.pick(&[Escape::Least, Escape::Reference, Escape::Reference, Escape::All]);
        Style { escape, spaces: self.chance(15), shuffled: self.chance(50) }
    }

    fn json(&mut self, value: &Value) -> String {
        let style = self.style();
        let mut text = String::new();
        self.write(&mut text, value, style);
        text
    }

    fn write(&mut self, out: &mut String, value: &Value, style: Style) {
        let space = if style.spaces { " " } else { "" };
        match value {
            Value::Null => out.push_str("null"),
            Value::Bool(_) => out.push_str(&value.to_string()),
            Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
                Some(float) if matches!(style.escape, Escape::Reference) => out.push_str(&java(float)),
                Some(_) | None => out.push_str(&number.to_string()),
            },
            Value::String(text) => write_text(out, text, style.escape),
            Value::Array(items) => {
                out.push('[');
                for (i, item) in items.iter().enumerate() {
                    out.push_str(if i == 0 { "" } else { "," });
                    out.push_str(space);
                    self.write(out, item, style);
                }
                out.push(']');
            }
            Value::Object(fields) => {
                let mut fields: Vec<_> = fields.iter().collect();
                if style.shuffled {
                    self.random.shuffle(&mut fields);
                }
                out.push('{');
                for (i, (key, field)) in fields.into_iter().enumerate() {
                    out.push_str(if i == 0 { "" } else { "," });
                    out.push_str(space);
                    write_text(out, key, style.escape);
                    out.push(':');
                    out.push_str(space);
                    self.write(out, field, style);
                }
                out.push('}');
            }
        }
    }

    /// Adds explicit nulls, which mean nothing.
    fn nulls(&mut self, fields: &mut Value, names: &[&str]) {
        for name in names {
            if fields.get(*name).is_none() && self.chance(15) {
                fields[*name] = Value::Null;
            }
        }
    }

    /// Adds a document: the fields every one has, and those given.
    fn document(&mut self, of: DocumentType, id: &str, fields: Value) {
        let serial = self.next();
        let mut source = json!({"p": TIME + self.random.i64(0..1000), "u": TIME + 1000 + serial, "c": self.id,
            "type": of.name()});
        if let (Value::Object(source), Value::Object(fields)) = (&mut source, fields) {
            source.extend(fields);
        }
        let elsewhere: &[&str] = match of.name() {
            "UserData" => &[],
            "link" => &["b", "n"],
            _ => &["b", "n", "t"],
        };
        self.nulls(&mut source, elsewhere);
        let index = format!("u0_staff.{}", of.name().to_lowercase());
        let line = json!({"_index": index, "_type": of.name(), "_source": source, "_id": id});
        let line = self.json(&line);
        self.lines[of.index()].push(line);
        self.made[of.index()].push(id.to_owned());
    }

    /// Adds a document with declared, hidden and referring fields; returns its id.
    fn entity(&mut self, of: DocumentType, s: Value, h: Value, l: Value) -> String {
        let id = self.new_id();
        self.document(of, &id, json!({"s": s, "h": h, "l": l}));
        id
    }

    /// A reference to a box, or none.
    fn in_a_box(&mut self) -> Value {
        let mut l = json!({});
        if let Some(id) = self.some_of(DocumentType::Box).filter(|_| self.chance(50)) {
            l["Box"] = id.into();
        }
        self.nulls(&mut l, &["Box"]);
        l
    }

    fn boxes(&mut self) {
        for _ in 0..self.random.usize(..4) {
            let mut s = json!({"Name": self.name("box")});
            if self.chance(60) {
                s["Schema"] = self.url().into();
            }
            self.nulls(&mut s, &["Schema"]);
            self.entity(DocumentType::Box, s, json!({}), json!({}));
        }
    }

    fn control_objects(&mut self) {
        for _ in 0..self.random.usize(1..5) {
            let kind = *self.pick(&["basic", "oidc:google", "basic oidc:google"]);
            let mut s = json!({"Name": self.name("account"), "Type": kind});
            if self.chance(50) {
                s["Status"] = (*self.pick(&["active", "deactivated", "passwordChangeRequired"])).into();
            }
            if self.chance(30) {
                s["IPAddressRange"] = "192.0.2.0/24,198.51.100.7".into();
            }
            self.nulls(&mut s, &["Status", "IPAddressRange", "Cell"]);
            let (salt, hash) = (self.any_id(), self.any_id());
            let mut h = match self.random.u32(..3) {
                0 => json!({}),
                1 => json!({"HashAlgorithm": "scrypt", "HashAttributes": r#"{"keyLength":32}"#,
                    "HashedCredential": format!("$e0801${salt}==$/{hash}/+=")}),
                _ => json!({"HashAlgorithm": "sha-256", "HashedCredential": "0f".repeat(32)}),
            };
            self.nulls(&mut h, &["HashedCredential", "HashAlgorithm", "HashAttributes"]);
            self.entity(DocumentType::Account, s, h, json!({}));
        }
        for _ in 0..self.random.usize(..3) {
            let s = json!({"Url": self.url()});
            self.entity(DocumentType::ExtCell, s, json!({}), json!({}));
        }
        for _ in 0..self.random.usize(1..5) {
            let mut s = json!({"Name": self.name("role")});
            self.nulls(&mut s, &["_Box.Name"]);
            let l = self.in_a_box();
            self.entity(DocumentType::Role, s, json!({}), l);
        }
        for _ in 0..self.random.usize(..4) {
            let mut s = json!({"Name": self.name("rule"), "Action": *self.pick(&["exec", "log", "relay.data"])});
            if self.chance(60) {
                s["EventExternal"] = self.random.bool().into();
                s["EventType"] = "odata.create".into();
                s["EventObject"] = format!("personium-localcell:/{}/odata", self.any_id()).into();
                s["EventInfo"] = self.text().into();
                s["TargetUrl"] = "personium-localcell:/box/svc/onSave".into();
            }
            self.nulls(&mut s, &["EventExternal", "EventSubject", "EventInfo", "TargetUrl"]);
            let l = self.in_a_box();
            self.entity(DocumentType::Rule, s, json!({}), l);
        }
        for _ in 0..self.random.usize(..3) {
            let s = json!({"Name": self.name("friend")});
            let l = self.in_a_box();
            let relation = self.entity(DocumentType::Relation, s, json!({}), l);
            for _ in 0..self.random.usize(..3) {
                let mut s = json!({"ExtRole": self.url()});
                self.nulls(&mut s, &["_Relation.Name", "_Relation._Box.Name"]);
                self.entity(DocumentType::ExtRole, s, json!({}), json!({"Relation": relation}));
            }
        }
    }

    fn message_id(&mut self) -> String {
        format!("{:032x}", self.random.u128(..))
    }

    fn messages(&mut self) {
        for of in [DocumentType::SentMessage, DocumentType::ReceivedMessage] {
            for _ in 0..self.random.usize(..4) {
                let mut s = json!({"__id": self.message_id(), "Type": "message", "Title": self.text(),
                    "Body": self.text(),
                    "Priority": self.random.i32(1..6)});
                if self.chance(40) {
                    s["Type"] = "request".into();
                    let objects: Vec<_> = (0..self.random.usize(1..3)).map(|_| self.request_object()).collect();
                    s["RequestObjects"] = objects.into();
                }
                if self.chance(30) {
                    s["InReplyTo"] = self.message_id().into();
                }
                if of == DocumentType::SentMessage {
                    s["To"] = format!("{},{}", self.url(), self.url()).into();
                    let results = (0..self.random.usize(..3))
                        .map(|_| json!({"To": self.url(), "Code": "201", "Reason": self.text()}))
                        .collect::<Vec<_>>();
                    s["Result"] = results.into();
                    self.nulls(&mut s, &["ToRelation", "InReplyTo", "RequestObjects"]);
                } else {
                    s["From"] = self.url().into();
                    s["Status"] = (*self.pick(&["unread", "read", "none", "approved"])).into();
                    self.nulls(&mut s, &["MulticastTo", "InReplyTo", "RequestObjects"]);
                }
                let l = self.in_a_box();
                self.entity(of, s, json!({}), l);
            }
        }
    }

    fn request_object(&mut self) -> Value {
        let mut object = json!({"RequestType": *self.pick(&["relation.add", "role.remove", "rule.add"]),
            "Name": self.name("object"), "TargetUrl": self.url()});
        if self.chance(30) {
            object["ClassUrl"] = self.url().into();
            object["EventObject"] = self.text().into();
        }
        self.nulls(&mut object, &["ClassUrl", "EventSubject"]);
        object
    }

    // The file tree.

    /// Makes the tree; returns its OData collections.
    fn tree(&mut self) -> Vec<Place> {
        let mut collections = Vec::new();
        self.node("", "Cell", json!({"cs": "normal"}));
        if self.chance(70) {
            self.node(layout::MAIN_BOX, "col.box", json!({}));
            let cell = self.id.clone();
            self.fill(layout::MAIN_BOX, &cell, &mut collections);
        }
        for id in self.made[DocumentType::Box.index()].clone() {
            // A box has a directory once somebody uses it.
            if self.chance(75) {
                self.node(&id, "col.box", json!({}));
                self.fill(&id, &id, &mut collections);
            }
        }
        collections
    }

    /// Puts OData and service collections, and anything else, into a box.
    fn fill(&mut self, path: &str, box_id: &str, collections: &mut Vec<Place>) {
        for _ in 0..self.random.usize(..3) {
            let path = self.child(path);
            let node = self.node(&path, "col.odata", json!({}));
            collections.push(Place { box_id: box_id.to_owned(), node });
        }
        if self.chance(60) {
            let path = self.child(path);
            let id = self.any_id();
            let service = format!(
                "<p:service xmlns:p=\"urn:x-personium:xmlns\" language=\"JavaScript\">\
                 <p:path name=\"{id}\" src=\"run.js\"/></p:service>"
            );
            self.node(&path, "col.svc", json!({"d": {"service@urn:x-personium:xmlns": service}}));
            let sources = format!("{path}/__src");
            self.node(&sources, "col.webdav", json!({}));
            self.file(&format!("{sources}/run.js"));
        }
        if self.chance(10) {
            let path = self.child(path);
            self.node(&path, "col.stream", json!({}));
        }
        self.collections_and_files(path, 3);
    }

    fn collections_and_files(&mut self, path: &str, depth: u32) {
        for _ in 0..self.random.usize(..4) {
            let path = self.child(path);
            if depth > 0 && self.chance(40) {
                self.node(&path, "col.webdav", json!({}));
                self.collections_and_files(&path, depth - 1);
            } else if self.files < 35 {
                self.file(&path);
            }
        }
    }

    /// A new path below a collection.
    fn child(&mut self, path: &str) -> String {
        let number = self.next();
        let (id, word) = (self.any_id(), *self.pick(FILE_NAMES));
        let odd = *self.pick(ODD_FILE_NAMES);
        let name = match self.random.u32(..10) {
            0 => id,
            1 => odd.to_owned(),
            _ => format!("{number}{word}"),
        };
        // Names that differ in case only are refused in files of strangers.
        if self.names.insert(format!("{path}/{}", name.to_lowercase())) {
            format!("{path}/{name}")
        } else {
            format!("{path}/{number}{word}")
        }
    }

    /// Adds a node; returns its id.
    fn node(&mut self, path: &str, kind: &str, more: Value) -> String {
        self.node_with(path, kind, more, None)
    }

    fn node_with(&mut self, path: &str, kind: &str, more: Value, contents: Option<Vec<u8>>) -> String {
        let id = self.new_id();
        let serial = self.next();
        let mut pmeta = json!({"p": TIME, "a": self.acl(), "d": self.properties(), "t": kind, "u": TIME + serial,
            "v": self.random.i64(1..20), "i": id});
        if let (Value::Object(pmeta), Value::Object(more)) = (&mut pmeta, more) {
            pmeta.extend(more);
        }
        self.nulls(&mut pmeta, &["ct", "et"]);
        let pmeta = self.json(&pmeta);
        self.nodes.push((path.to_owned(), pmeta, contents));
        id
    }

    fn file(&mut self, path: &str) {
        let length = match self.random.u32(..10) {
            0 | 1 => 0,
            2 if self.files == 0 => self.random.usize(60_000..90_000),
            _ => self.random.usize(1..3000),
        };
        let mut bytes = "Hello, 世界.\n".as_bytes().iter().copied().cycle().take(length).collect::<Vec<_>>();
        if self.chance(50) {
            self.random.fill(&mut bytes);
        }
        let kind = *self.pick(&["text/plain", "image/jpeg", "application/json; charset=\"utf-8\"", ""]);
        // Files that lay encrypted in their unit are plain in a snapshot, and so is their mark.
        let more = json!({"ct": kind, "cl": bytes.len(), "et": "NONE"});
        self.node_with(path, "dav.file", more, Some(bytes));
        self.files += 1;
    }

    fn acl(&mut self) -> Value {
        let mut acl = Map::new();
        if self.chance(50) {
            let mut entries: Vec<_> = (0..self.random.usize(1..4)).map(|_| self.acl_entry()).collect();
            let one = if entries.len() == 1 && self.chance(20) { entries.pop() } else { None };
            acl.insert("D.ace".to_owned(), one.unwrap_or_else(|| entries.into()));
        }
        if self.chance(25) {
            let level = *self.pick(&["none", "public", "confidential"]);
            acl.insert("@p.requireSchemaAuthz".to_owned(), level.into());
        }
        acl.into()
    }

    fn acl_entry(&mut self) -> Value {
        let role = self.some_of(DocumentType::Role).unwrap_or_default();
        let principal = match self.random.u32(..10) {
            0 | 1 => json!({"D.all": ""}),
            // A role that was removed.
            2 => json!({"D.href": self.new_id()}),
            _ => json!({"D.href": role}),
        };
        let right = |name: &str| json!({name: {}});
        let privilege = match self.random.u32(..4) {
            0 => right("D.read"),
            1 => json!([right("p.exec")]),
            _ => json!([right("D.read"), right("D.write-content"), right("p.auth-read")]),
        };
        json!({"D.principal": principal, "D.grant": {"D.privilege": privilege}})
    }

    fn properties(&mut self) -> Value {
        let mut properties = Map::new();
        for _ in 0..self.random.usize(..3).saturating_sub(1) {
            let key = format!("x{}@http://example.com/{}", self.next(), self.any_id());
            let text = self.text();
            properties.insert(key, format!("<Z:x xmlns:Z=\"urn:x\">{text}</Z:x>").into());
        }
        properties.into()
    }

    // OData collections.

    fn placed(place: &Place, mut fields: Value) -> Value {
        fields["b"] = place.box_id.as_str().into();
        fields["n"] = place.node.as_str().into();
        fields
    }

    fn placed_entity(&mut self, of: DocumentType, place: &Place, s: Value, h: Value, l: Value) -> String {
        let id = self.new_id();
        self.document(of, &id, Self::placed(place, json!({"s": s, "h": h, "l": l})));
        id
    }

    /// A schema and data.
    fn collection(&mut self, place: &Place) {
        let mut complex_types: Vec<ComplexType> = Vec::new();
        for _ in 0..self.random.usize(..3) {
            let name = self.name("Complex");
            let s = json!({"Name": name});
            let id = self.placed_entity(DocumentType::ComplexType, place, s, json!({}), json!({}));
            let of = DocumentType::ComplexTypeProperty;
            let properties = self.typed_properties(of, place, json!({"ComplexType": id}), &complex_types);
            complex_types.push(ComplexType { name, properties });
        }
        let mut entity_types = Vec::new();
        for _ in 0..self.random.usize(1..4) {
            let s = json!({"Name": self.name("Type")});
            let id = self.placed_entity(DocumentType::EntityType, place, s, json!({}), json!({}));
            let of = DocumentType::Property;
            let properties = self.typed_properties(of, place, json!({"EntityType": id}), &complex_types);
            entity_types.push((id, properties));
        }
        let associations = self.associations(place, &entity_types);
        let mut data: Vec<(usize, String)> = Vec::new();
        for _ in 0..self.random.usize(..12) {
            let number = self.random.usize(..entity_types.len());
            let (entity_type, properties) = &entity_types[number];
            // To-one references lead to what was made before: there are chains, but no circles.
            let mut ll = Vec::new();
            for (from, to, many) in &associations {
                let targets: Vec<_> = data.iter().filter(|(of, _)| of == to).collect();
                if *from == number && !many && !targets.is_empty() && self.chance(70) {
                    ll.push(format!("{}:{}", entity_types[*to].0, self.pick(&targets).1));
                }
            }
            let key = if self.chance(10) { self.any_id() } else { format!("key/{}", self.next()) };
            let mut s = json!({"__id": key});
            for property in properties {
                if self.chance(80) {
                    s[&property.alias] = self.property_value(property, &complex_types);
                }
            }
            let id = self.new_id();
            let mut fields = json!({"s": s, "h": {}, "t": entity_type, "ll": ll});
            if ll.is_empty() && self.chance(30) {
                fields["ll"] = Value::Null;
            }
            self.document(DocumentType::UserData, &id, Self::placed(place, fields));
            data.push((number, id));
        }
        for (from, to, _) in associations.iter().filter(|(_, _, many)| *many) {
            for _ in 0..self.random.usize(1..5) {
                let ends = [from, to].map(|of| data.iter().filter(|(number, _)| number == of).collect::<Vec<_>>());
                if ends.iter().any(Vec::is_empty) {
                    break;
                }
                let [one, other] = ends.map(|end| self.pick(&end).1.clone());
                // A type that is linked with itself keeps one end only.
                let one = if from == to { other.clone() } else { one };
                let ends = [(entity_types[*from].0.clone(), one), (entity_types[*to].0.clone(), other)];
                self.link(ends, Self::placed(place, json!({})));
            }
        }
    }

    fn typed_properties(
        &mut self,
        of: DocumentType,
        place: &Place,
        owner: Value,
        complex_types: &[ComplexType],
    ) -> Vec<Property> {
        let (mut simple, mut complex, mut properties) = (0, 0, Vec::new());
        for _ in 0..self.random.usize(1..7) {
            let kind = match self.random.u32(..9) {
                0 => Kind::Boolean,
                1 => Kind::Double,
                2 => Kind::Single,
                3 => Kind::Int32,
                4 => Kind::DateTime,
                5 | 6 if !complex_types.is_empty() => Kind::Complex(self.random.usize(..complex_types.len())),
                _ => Kind::Text,
            };
            let list = !matches!(kind, Kind::DateTime) && self.chance(25);
            let (letter, number) =
                if matches!(kind, Kind::Complex(_)) { ('C', &mut complex) } else { ('P', &mut simple) };
            *number += 1;
            let alias = format!("{letter}{number:03}");
            let name = match kind {
                Kind::Text => "Edm.String",
                Kind::Boolean => "Edm.Boolean",
                Kind::Double => "Edm.Double",
                Kind::Single => "Edm.Single",
                Kind::Int32 => "Edm.Int32",
                Kind::DateTime => "Edm.DateTime",
                Kind::Complex(index) => &complex_types[index].name,
            };
            let mut s = json!({"Name": self.name("Property"), "Type": name, "Nullable": true, "IsDeclared": true,
                "CollectionKind": if list { "List" } else { "None" }});
            if of == DocumentType::Property {
                s["IsKey"] = false.into();
                // A dynamic property: made by the first document that has it.
                if matches!(kind, Kind::Text) && !list && self.chance(30) {
                    s["IsDeclared"] = false.into();
                }
                self.nulls(&mut s, &["UniqueKey", "_EntityType.Name"]);
            }
            if matches!(kind, Kind::Text) && self.chance(20) {
                s["DefaultValue"] = self.text().into();
            }
            self.nulls(&mut s, &["DefaultValue"]);
            self.placed_entity(of, place, s, json!({"Alias": alias}), owner.clone());
            properties.push(Property { alias, kind, list });
        }
        properties
    }

    /// Associations between types: from which, to which, and whether it is N:N.
    fn associations(&mut self, place: &Place, entity_types: &[(String, Vec<Property>)]) -> Vec<(usize, usize, bool)> {
        let mut associations = Vec::new();
        for _ in 0..self.random.usize(..4) {
            let [from, to] = [0, 0].map(|_: usize| self.random.usize(..entity_types.len()));
            let many = self.chance(50);
            let ids = [self.new_id(), self.new_id()];
            for (me, partner, of, multiplicity) in
                [(0, 1, from, "*"), (1, 0, to, if many { "*" } else { *self.pick(&["0..1", "1"]) })]
            {
                let s = json!({"Name": self.name("End"), "Multiplicity": multiplicity});
                let l = json!({"EntityType": entity_types[of].0, "AssociationEnd": ids[partner]});
                let fields = json!({"s": s, "h": {}, "l": l});
                self.document(DocumentType::AssociationEnd, &ids[me], Self::placed(place, fields));
            }
            associations.push((from, to, many));
        }
        if self.chance(30) {
            // An end that nobody has connected yet.
            let of = self.random.usize(..entity_types.len());
            let s = json!({"Name": self.name("End"), "Multiplicity": "*"});
            let mut l = json!({"EntityType": entity_types[of].0});
            self.nulls(&mut l, &["AssociationEnd"]);
            self.placed_entity(DocumentType::AssociationEnd, place, s, json!({}), l);
        }
        associations
    }

    fn property_value(&mut self, property: &Property, complex_types: &[ComplexType]) -> Value {
        if self.chance(8) {
            return Value::Null;
        }
        if !property.list {
            return self.value(property.kind, complex_types);
        }
        let length = self.random.usize(..4);
        let element = |_| if self.chance(15) { Value::Null } else { self.value(property.kind, complex_types) };
        (0..length).map(element).collect::<Vec<_>>().into()
    }

    fn value(&mut self, kind: Kind, complex_types: &[ComplexType]) -> Value {
        match kind {
            Kind::Text => self.text().into(),
            Kind::Boolean => self.random.bool().to_string().into(),
            Kind::Double => (*self.pick(&["49946.0", "1.0E10", "-0.0", "4.9E-324", "36.5"])).into(),
            Kind::Single => {
                self.pick(&[json!(1.5), json!(1.0e8), json!(-2.5e-7), json!(7), json!(0.1), json!(-0.0)]).clone()
            }
            Kind::Int32 => (*self.pick(&[0, 1, -1, i32::MAX, i32::MIN, 120])).into(),
            Kind::DateTime => (*self.pick(&[0_i64, -62_135_596_800_000, 253_402_300_799_999, TIME])).into(),
            Kind::Complex(index) => {
                let complex_type = &complex_types[index];
                let mut fields = json!({});
                for property in &complex_type.properties {
                    if self.chance(80) {
                        fields[&property.alias] = self.property_value(property, complex_types);
                    }
                }
                fields
            }
        }
    }

    // Links.

    fn control_links(&mut self) {
        use DocumentType::{Account, ExtCell, ExtRole, ReceivedMessage, Relation, Role};
        for (one, other) in [
            (Account, Role),
            (ExtCell, Role),
            (ExtCell, Relation),
            (ExtRole, Role),
            (Relation, Role),
            (Account, ReceivedMessage),
        ] {
            for _ in 0..self.random.usize(..4) {
                if let (Some(k1), Some(k2)) = (self.some_of(one), self.some_of(other)) {
                    self.link([(one.name().to_owned(), k1), (other.name().to_owned(), k2)], json!({}));
                }
            }
        }
    }

    /// Adds a link unless it is there: the end with the smaller type is the first.
    fn link(&mut self, mut ends: [(String, String); 2], mut fields: Value) {
        if ends[0].0 > ends[1].0 {
            ends.reverse();
        }
        let [(t1, k1), (t2, k2)] = ends;
        let id = format!("{k1}-{k2}");
        if self.links.insert(id.clone()) {
            for (name, value) in [("t1", t1), ("k1", k1), ("t2", t2), ("k2", k2)] {
                fields[name] = value.into();
            }
            self.document(DocumentType::Link, &id, fields);
        }
    }

    // The archive.

    fn zip(mut self, name: &str) -> Vec<u8> {
        let mut entries: Vec<(String, Vec<u8>)> = Vec::new();
        let manifest =
            json!({"export_version": 2, "unit_url": "https://unit.example/", "create_date": TIME + 9_999_999});
        entries.push((layout::MANIFEST.to_owned(), self.json(&manifest).into()));
        let mut h = json!({});
        if self.chance(70) {
            h["Owner"] = "personium-localunit:admin:/#staff".into();
        }
        let mut source = json!({"p": TIME, "a": {}, "s": {"Name": name}, "d": {}, "u": TIME + 1, "h": h, "l": {},
            "type": "Cell"});
        self.nulls(&mut source, &["c", "b"]);
        let document = json!({"_index": "u0_ad.cell", "_type": "Cell", "_source": source, "_id": self.id});
        entries.push((layout::CELL.to_owned(), self.json(&document).into()));
        let line_end = if self.chance(20) { "\r\n" } else { "\n" };
        for of in DocumentType::ALL {
            let mut lines = std::mem::take(&mut self.lines[of.index()]);
            // The order means nothing, so references point forward as often as backward.
            self.random.shuffle(&mut lines);
            let mut text = lines.join(line_end);
            if !lines.is_empty() && self.chance(90) {
                text.push_str(line_end);
            }
            entries.push((of.entry().to_owned(), text.into()));
        }
        let directories = self.chance(60);
        if directories {
            entries.push((layout::WEBDAV_DIR.to_owned(), Vec::new()));
            entries.insert(0, (layout::ODATA_DIR.to_owned(), Vec::new()));
        }
        for (path, pmeta, contents) in std::mem::take(&mut self.nodes) {
            let below =
                if path.is_empty() { layout::WEBDAV_DIR.to_owned() } else { format!("{}{path}/", layout::WEBDAV_DIR) };
            if directories && !path.is_empty() {
                entries.push((below.clone(), Vec::new()));
            }
            let mut parts = vec![(format!("{below}{}", layout::PMETA), pmeta.into_bytes())];
            parts.extend(contents.map(|bytes| (format!("{below}{}", layout::CONTENT), bytes)));
            if self.chance(50) {
                parts.reverse();
            }
            entries.extend(parts);
        }
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        let time = zip::DateTime::from_date_and_time(2022, 1, 1, 0, 0, 0).expect("a time");
        for (name, bytes) in entries {
            let method = if self.chance(70) { CompressionMethod::Deflated } else { CompressionMethod::Stored };
            let options = SimpleFileOptions::default().last_modified_time(time);
            if name.ends_with('/') {
                zip.add_directory(name, options).expect("a directory");
            } else {
                zip.start_file(name, options.compression_method(method)).expect("an entry");
                zip.write_all(&bytes).expect("written to memory");
            }
        }
        zip.finish().expect("a zip").into_inner()
    }
}

/// A UUID in base64url without padding, as units write it: sixteen bytes leave two bits to the last character.
fn random_id(random: &mut Rng) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut id: String = (0..21).map(|_| char::from(DIGITS[random.usize(..64)])).collect();
    id.push(char::from(b"AQgw"[random.usize(..4)]));
    id
}

/// A number in Java's notation.
fn java(number: f64) -> String {
    if number == 0.0 || (1e-3..1e7).contains(&number.abs()) {
        return format!("{number:?}");
    }
    let text = format!("{number:E}");
    if text.contains('.') { text } else { text.replace('E', ".0E") }
}

fn write_text(out: &mut String, text: &str, escape: Escape) {
    out.push('"');
    for c in text.chars() {
        match (c, escape) {
            ('"' | '\\', _) | ('/', Escape::Reference) => {
                out.push('\\');
                out.push(c);
            }
            ('\n', _) => out.push_str("\\n"),
            ('\t', _) => out.push_str("\\t"),
            ('\r', _) => out.push_str("\\r"),
            ('\u{8}', _) => out.push_str("\\b"),
            ('\u{c}', _) => out.push_str("\\f"),
            ('\u{0}'..='\u{1f}', _)
            | ('\u{7f}'..='\u{9f}' | '\u{2000}'..='\u{20ff}', Escape::Reference)
            | ('\u{7f}'.., Escape::All) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04X}"));
                }
            }
            _ => out.push(c),
        }
    }
    out.push('"');
}

const WORDS: &[&str] = &[
    "血圧の記録",
    "coffee",
    "naïve",
    "🍣",
    "👨‍👩‍👧",
    "https://example.com/a?b=c&d=\"e\"",
    "\\path\\",
    "e\u{301}",
    " ",
    "ｶﾞ",
    "𠮷野家",
    "<p>&amp;</p>",
    "{\"P001\":null}",
    "null",
    "\u{feff}",
    "-",
    ":",
    "__",
];

const CONTROLS: &[&str] = &[
    "\n",
    "\r\n",
    "\t",
    "\u{0}",
    "\u{1}",
    "\u{7f}",
    "\u{85}",
    "\u{2028}",
    "\u{2029}",
    "€",
    "\u{8}\u{c}",
    "\\u0000",
    "\\/",
];

const FILE_NAMES: &[&str] =
    &["写真", "海.jpg", "メモ.txt", "note.md", "e\u{301}.txt", "🍣", "ｶﾞｲﾄﾞ", "(1).tar.gz", "%20", "ß&'", "$e0801$"];

/// Names that mean something elsewhere in a snapshot, and nothing as the name of a file or a collection in a box.
const ODD_FILE_NAMES: &[&str] = &["content", "tmp", "__", ".pkeys", "import.error", "20_webdav", "00_manifest.json"];
