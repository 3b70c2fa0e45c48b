//! Writes the project's sample cell: small, believable, the same every time, and of any size when asked.
//!
//! `sample_cell OUT.zip [--name NAME] [--documents N] [--files N] [--big BYTES]`
//!
//! One reference of its user data points forward on purpose: a load must put that right.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use clap::Parser;
use model::layout::{self, DocumentType};
use serde_json::{Value, json};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

const TIME: i64 = 1_640_995_200_000;

/// Writes the sample cell's snapshot.
#[derive(Debug, Parser)]
struct Arguments {
    /// The snapshot to be written.
    out: PathBuf,
    /// Name of the cell.
    #[arg(long, default_value = "sample")]
    name: String,
    /// Documents of user data.
    #[arg(long, default_value_t = 12)]
    documents: u64,
    /// Files beside the ones that are always there.
    #[arg(long, default_value_t = 4)]
    files: u64,
    /// Length of one more file, mostly zeros.
    #[arg(long)]
    big: Option<u64>,
    /// Length of one more file, all noise: it does not shrink.
    #[arg(long)]
    noise: Option<u64>,
}

/// A 22-character id, as units make them, from a kind and a number.
fn id(kind: &str, number: u64) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    // Seeded with both, so that every id is spread over the whole alphabet like a random one.
    let seed = kind.bytes().fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    let mut random = fastrand::Rng::with_seed(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    (0..22).map(|_| char::from(DIGITS[random.usize(..64)])).collect()
}

struct Cell {
    zip: ZipWriter<BufWriter<File>>,
    id: String,
    box_id: String,
    node: String,
    name: String,
}

type Done = Result<(), Box<dyn std::error::Error>>;

fn main() -> Done {
    let arguments = Arguments::parse();
    let mut cell = Cell {
        zip: ZipWriter::new(BufWriter::new(File::create(&arguments.out)?)),
        id: id("cell", 0),
        box_id: id("box", 0),
        node: id("node", 0),
        name: arguments.name,
    };
    for directory in [layout::ODATA_DIR, layout::WEBDAV_DIR] {
        cell.zip.add_directory(directory, SimpleFileOptions::default())?;
    }
    cell.manifest()?;
    cell.control_objects()?;
    cell.schema()?;
    cell.user_data(arguments.documents)?;
    cell.links(arguments.documents)?;
    cell.tree(arguments.files)?;
    if let Some(bytes) = arguments.big {
        cell.big_file("big.bin", 12, bytes, 16 << 10)?;
    }
    if let Some(bytes) = arguments.noise {
        cell.big_file("noise.bin", 13, bytes, 1 << 20)?;
    }
    cell.zip.finish()?.flush()?;
    Ok(())
}

impl Cell {
    fn begin(&mut self, name: &str, method: CompressionMethod) -> Done {
        let options = SimpleFileOptions::default()
            .compression_method(method)
            .compression_level((method == CompressionMethod::Deflated).then_some(1))
            .last_modified_time(zip::DateTime::from_date_and_time(2022, 1, 1, 0, 0, 0)?)
            .large_file(name == DocumentType::UserData.entry());
        Ok(self.zip.start_file(name, options)?)
    }

    fn json(&mut self, name: &str, value: &Value) -> Done {
        self.begin(name, CompressionMethod::Deflated)?;
        Ok(serde_json::to_writer(&mut self.zip, value)?)
    }

    fn manifest(&mut self) -> Done {
        let url = "http://localhost/";
        self.json(layout::MANIFEST, &json!({"export_version": 2, "unit_url": url, "create_date": TIME + 1000}))?;
        let document = json!({"_index": "u0_ad.cell", "_type": "Cell", "_source": {
            "p": TIME, "a": {}, "s": {"Name": self.name}, "d": {}, "u": TIME,
            "h": {"Owner": "personium-localunit:admin:/#sample"}, "l": {}, "type": "Cell"}, "_id": self.id});
        self.json(layout::CELL, &document)
    }

    /// A line: the common fields, and those given.
    fn line(&mut self, of: DocumentType, id: &str, fields: Value) -> Done {
        let mut source = json!({"p": TIME, "u": TIME, "c": self.id, "type": of.name()});
        if let (Value::Object(source), Value::Object(fields)) = (&mut source, fields) {
            source.extend(fields);
        }
        let index = format!("u0_sample.{}", of.name().to_lowercase());
        serde_json::to_writer(
            &mut self.zip,
            &json!({"_index": index, "_type": of.name(), "_source": source, "_id": id}),
        )?;
        Ok(self.zip.write_all(b"\n")?)
    }

    fn entry(&mut self, of: DocumentType) -> Done {
        self.begin(of.entry(), CompressionMethod::Deflated)
    }

    fn control_objects(&mut self) -> Done {
        use DocumentType::{Account, Box, ExtCell, ExtRole, ReceivedMessage, Relation, Role, Rule, SentMessage};
        let plain = |s: Value| json!({"s": s, "h": {}, "l": {}});
        let of_box = self.box_id.clone();
        self.entry(Box)?;
        self.line(Box, &of_box, plain(json!({"Name": "diary", "Schema": "https://app-diary.unit.example/"})))?;
        self.entry(Account)?;
        for (number, name) in ["me", "taro", "花子"].iter().enumerate() {
            let s = json!({"Name": name, "Type": "oidc:google", "Status": "active"});
            self.line(Account, &id("account", number as u64), plain(s))?;
        }
        self.entry(ExtCell)?;
        self.line(ExtCell, &id("extcell", 0), plain(json!({"Url": "https://jiro.other.example/"})))?;
        self.entry(Role)?;
        self.line(Role, &id("role", 0), plain(json!({"Name": "admin"})))?;
        let l = json!({"Box": of_box});
        self.line(Role, &id("role", 1), json!({"s": {"Name": "reader"}, "h": {}, "l": l}))?;
        self.entry(Rule)?;
        let s = json!({"Name": "onSave", "EventExternal": false, "EventType": "odata.create",
            "EventObject": "personium-localcell:/diary/odata/Entry", "Action": "log"});
        self.line(Rule, &id("rule", 0), json!({"s": s, "h": {}, "l": l}))?;
        self.entry(Relation)?;
        self.line(Relation, &id("relation", 0), plain(json!({"Name": "+:Friend"})))?;
        let message = |s: Value| plain(s);
        self.entry(SentMessage)?;
        let s = json!({"__id": "0668df70a00749c6aec423e2cb5c4187", "To": "https://jiro.other.example/",
            "Type": "message", "Title": "予定", "Body": "来週会えますか 🙏", "Priority": 3,
            "Result": [{"To": "https://jiro.other.example/", "Code": "201", "Reason": "Created."}]});
        self.line(SentMessage, &id("sent", 0), message(s))?;
        self.entry(ReceivedMessage)?;
        let s = json!({"__id": "d70cc2328302452e99d9433087736e1d", "From": "https://jiro.other.example/",
            "Type": "message", "Title": "Re: 予定", "Body": "Yes — “gladly”.", "Priority": 3, "Status": "unread"});
        self.line(ReceivedMessage, &id("received", 0), message(s))?;
        self.entry(ExtRole)?;
        let s = json!({"ExtRole": "https://jiro.other.example/__role/__/doctor"});
        self.line(ExtRole, &id("extrole", 0), json!({"s": s, "h": {}, "l": {"Relation": id("relation", 0)}}))
    }

    /// Fields that place a document in the OData collection of the box.
    fn placed(&self, mut fields: Value) -> Value {
        fields["b"] = self.box_id.as_str().into();
        fields["n"] = self.node.as_str().into();
        fields
    }

    fn schema(&mut self) -> Done {
        use DocumentType::{AssociationEnd, ComplexType, ComplexTypeProperty, EntityType, Property};
        self.entry(EntityType)?;
        for (number, name) in ["Entry", "Tag"].iter().enumerate() {
            let fields = self.placed(json!({"s": {"Name": name}, "h": {}, "l": {}}));
            self.line(EntityType, &id("type", number as u64), fields)?;
        }
        self.entry(ComplexType)?;
        let fields = self.placed(json!({"s": {"Name": "Place"}, "h": {}, "l": {}}));
        self.line(ComplexType, &id("complex", 0), fields)?;
        self.entry(Property)?;
        let properties = [
            (0, "Title", "Edm.String", "P001"),
            (0, "Mood", "Edm.Int32", "P002"),
            (0, "Weight", "Edm.Double", "P003"),
            (0, "Public", "Edm.Boolean", "P004"),
            (0, "Where", "Place", "C001"),
            (1, "Label", "Edm.String", "P001"),
        ];
        for (number, (of, name, kind, alias)) in properties.iter().enumerate() {
            let s = json!({"Name": name, "Type": kind, "CollectionKind": "None", "IsKey": false, "Nullable": true,
                "IsDeclared": true});
            let fields = json!({"s": s, "h": {"Alias": alias}, "l": {"EntityType": id("type", *of)}});
            let fields = self.placed(fields);
            self.line(Property, &id("property", number as u64), fields)?;
        }
        self.entry(ComplexTypeProperty)?;
        let s = json!({"Name": "Town", "Type": "Edm.String", "CollectionKind": "None", "Nullable": true,
            "IsDeclared": true});
        let fields = self.placed(json!({"s": s, "h": {"Alias": "P001"}, "l": {"ComplexType": id("complex", 0)}}));
        self.line(ComplexTypeProperty, &id("complexproperty", 0), fields)?;
        self.entry(AssociationEnd)?;
        for (me, partner, name, multiplicity) in [(0, 1, "Entry-Entry", "0..1"), (1, 0, "Entry-Tag", "*")] {
            let l = json!({"EntityType": id("type", me), "AssociationEnd": id("end", partner)});
            let fields = self.placed(json!({"s": {"Name": name, "Multiplicity": multiplicity}, "h": {}, "l": l}));
            self.line(AssociationEnd, &id("end", me), fields)?;
        }
        Ok(())
    }

    /// Every third document of a type refers to one before it; the very first refers to the last but one.
    fn user_data(&mut self, documents: u64) -> Done {
        self.entry(DocumentType::UserData)?;
        let mut random = fastrand::Rng::with_seed(7);
        for number in 0..documents {
            let of = number % 2;
            let target = match number {
                0 if documents > 3 => Some((documents - 1) / 2 * 2),
                n if n > 1 && n % 3 == 0 => Some(n - 2),
                _ => None,
            };
            let ll: Vec<_> =
                target.map(|t| format!("{}:{}", id("type", t % 2), id("userdata", t))).into_iter().collect();
            let s = if of == 0 {
                let words: Vec<_> = (0..random.usize(5..40)).map(|_| WORDS[random.usize(..WORDS.len())]).collect();
                json!({"__id": format!("entry-{number}"), "P001": words.join(" "), "P002": random.i32(1..6),
                    "P003": format!("{}.5", random.u32(40..90)), "P004": "true", "C001": {"P001": "大阪"}})
            } else {
                json!({"__id": format!("tag-{number}"), "P001": WORDS[random.usize(..WORDS.len())]})
            };
            let fields = self.placed(json!({"ll": ll, "s": s, "h": {}, "t": id("type", of)}));
            self.line(DocumentType::UserData, &id("userdata", number), fields)?;
        }
        Ok(())
    }

    fn links(&mut self, documents: u64) -> Done {
        self.entry(DocumentType::Link)?;
        let (account, role) = (id("account", 0), id("role", 0));
        let fields = json!({"t1": "Account", "k1": account, "t2": "Role", "k2": role});
        self.line(DocumentType::Link, &format!("{account}-{role}"), fields)?;
        for number in (0..documents.saturating_sub(1)).step_by(6) {
            let mut ends = [(id("type", 0), id("userdata", number)), (id("type", 1), id("userdata", number + 1))];
            ends.sort();
            let [(t1, k1), (t2, k2)] = ends;
            let link = format!("{k1}-{k2}");
            let fields = self.placed(json!({"t1": t1, "k1": k1, "t2": t2, "k2": k2}));
            self.line(DocumentType::Link, &link, fields)?;
        }
        Ok(())
    }

    fn node(&mut self, path: &str, kind: &str, number: u64, more: Value) -> Done {
        if !path.is_empty() {
            self.zip.add_directory(format!("{}{path}/", layout::WEBDAV_DIR), SimpleFileOptions::default())?;
        }
        let i = if kind == "col.odata" { self.node.clone() } else { id("node", number + 1) };
        let mut pmeta = json!({"p": TIME, "a": {}, "d": {}, "t": kind, "u": TIME + number as i64, "v": 1, "i": i});
        if let (Value::Object(pmeta), Value::Object(more)) = (&mut pmeta, more) {
            pmeta.extend(more);
        }
        let slash = if path.is_empty() { "" } else { "/" };
        self.json(&format!("{}{path}{slash}{}", layout::WEBDAV_DIR, layout::PMETA), &pmeta)
    }

    fn file(&mut self, path: &str, number: u64, kind: &str, bytes: &[u8]) -> Done {
        self.node(path, "dav.file", number, json!({"ct": kind, "cl": bytes.len(), "et": "NONE"}))?;
        let method = if kind.starts_with("text/") { CompressionMethod::Deflated } else { CompressionMethod::Stored };
        self.begin(&format!("{}{path}/{}", layout::WEBDAV_DIR, layout::CONTENT), method)?;
        Ok(self.zip.write_all(bytes)?)
    }

    /// A file of any length: each mebibyte begins with some random bytes.
    /// Of each mebibyte the beginning is noise, the rest is zeros.
    fn big_file(&mut self, name: &str, number: u64, length: u64, noise: usize) -> Done {
        let path = format!("{}/files/{name}", self.box_id);
        self.node(&path, "dav.file", number, json!({"ct": "application/octet-stream", "cl": length, "et": "NONE"}))?;
        let options = SimpleFileOptions::default().compression_level(Some(1)).large_file(true);
        self.zip.start_file(format!("{}{path}/{}", layout::WEBDAV_DIR, layout::CONTENT), options)?;
        let mut random = fastrand::Rng::with_seed(13);
        let (mut piece, mut left) = (vec![0; 1 << 20], length);
        while left > 0 {
            random.fill(&mut piece[..noise]);
            let some = left.min(piece.len() as u64);
            self.zip.write_all(&piece[..some as usize])?;
            left -= some;
        }
        Ok(())
    }

    fn tree(&mut self, files: u64) -> Done {
        let href = json!({"D.href": id("role", 0)});
        let ace = json!([{"D.principal": href, "D.grant": {"D.privilege": [{"p.root": {}}]}}]);
        self.node("", "Cell", 0, json!({"cs": "normal", "a": {"D.ace": ace}}))?;
        self.node("__", "col.box", 1, json!({}))?;
        self.node("__/写真", "col.webdav", 2, json!({}))?;
        let mut random = fastrand::Rng::with_seed(11);
        let mut picture = vec![0; 20_000];
        random.fill(&mut picture);
        self.file("__/写真/海.jpg", 3, "image/jpeg", &picture)?;
        self.file("__/profile.txt", 4, "text/plain", "Hello, 世界.\n".repeat(200).as_bytes())?;
        self.file("__/empty.bin", 5, "application/octet-stream", b"")?;
        let of = self.box_id.clone();
        self.node(&of, "col.box", 6, json!({}))?;
        self.node(&format!("{of}/odata"), "col.odata", 7, json!({}))?;
        self.node(&format!("{of}/svc"), "col.svc", 8, json!({}))?;
        self.node(&format!("{of}/svc/__src"), "col.webdav", 9, json!({}))?;
        self.file(&format!("{of}/svc/__src/run.js"), 10, "text/javascript", b"function run() { return 42; }\n")?;
        self.node(&format!("{of}/files"), "col.webdav", 11, json!({}))?;
        for number in 0..files {
            let directory = format!("{of}/files/{:03}", number / 500);
            if number % 500 == 0 {
                self.node(&directory, "col.webdav", 1000 + 2 * number, json!({}))?;
            }
            let path = format!("{directory}/メモ {number}.txt").replace(' ', "_");
            let mut bytes = format!("note {number}\n").repeat(random.usize(1..400)).into_bytes();
            let kind = if number % 3 == 0 { "application/octet-stream" } else { "text/plain" };
            if number % 3 == 0 {
                random.fill(&mut bytes);
            }
            self.file(&path, 1001 + 2 * number, kind, &bytes)?;
        }
        Ok(())
    }
}

const WORDS: &[&str] = &[
    "朝",
    "海",
    "散歩",
    "friend",
    "coffee",
    "雨",
    "long",
    "walk",
    "写真",
    "library",
    "train",
    "夕方",
    "garden",
    "音楽",
    "quiet",
    "letter",
    "市場",
    "bread",
    "河",
    "mountain",
    "🍣",
    "naïve",
    "https://example.com/a?b=c&d=\"e\"",
    "\\path\\",
];
