//! Writes a cell for the benchmark: varied texts in several scripts, numbers, times, URLs and random ids, and files of
//! all sorts. The same seed gives the same bytes.
//!
//! `bench_cell OUT.zip --name NAME [--documents N] [--files N] [--large N --large-size BYTES] [--mix N] [--seed N]`
//!
//! Entries are stored, not deflated: making data should not take longer than what is measured with it.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use clap::Parser;
use fastrand::Rng;
use model::layout::{self, DocumentType};
use serde_json::{Value, json};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

const TIME: i64 = 1_640_995_200_000;
/// Files of one directory.
const PER_DIRECTORY: u64 = 500;

/// Writes a cell for the benchmark.
#[derive(Debug, Parser)]
struct Arguments {
    /// The snapshot to be written.
    out: PathBuf,
    /// Name of the cell.
    #[arg(long)]
    name: String,
    /// Documents of user data, 300 to 800 bytes each.
    #[arg(long, default_value_t = 10)]
    documents: u64,
    /// Files of 2 to 20 KB; one in six cannot be compressed.
    #[arg(long, default_value_t = 0)]
    files: u64,
    /// Files that cannot be compressed.
    #[arg(long, default_value_t = 0)]
    large: u64,
    /// Their length.
    #[arg(long, default_value_t = 1 << 20)]
    large_size: u64,
    /// Files like pictures, archives, films and texts, 20 KB to 2 MB.
    #[arg(long, default_value_t = 0)]
    mix: u64,
    /// Other seeds give other cells.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

type Done = Result<(), Box<dyn std::error::Error>>;

fn main() -> Done {
    let arguments = Arguments::parse();
    let mut cell = Cell::new(&arguments)?;
    cell.head()?;
    cell.documents(arguments.documents)?;
    cell.tree(&arguments)?;
    cell.zip.finish()?.flush()?;
    Ok(())
}

struct Cell {
    zip: ZipWriter<BufWriter<File>>,
    seed: u64,
    words: Words,
    id: String,
    box_id: String,
    node: String,
    name: String,
    nodes: i64,
}

impl Cell {
    fn new(arguments: &Arguments) -> Result<Self, Box<dyn std::error::Error>> {
        // No two cells may have an id in common.
        let seed =
            arguments.name.bytes().fold(arguments.seed, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
        let out = BufWriter::with_capacity(1 << 20, File::create(&arguments.out)?);
        Ok(Self {
            zip: ZipWriter::new(out),
            seed,
            words: Words::new(&mut Rng::with_seed(seed)),
            id: id(seed, "cell", 0),
            box_id: id(seed, "box", 0),
            node: id(seed, "node", 0),
            name: arguments.name.clone(),
            nodes: 0,
        })
    }

    fn id(&self, kind: &str, number: u64) -> String {
        id(self.seed, kind, number)
    }

    fn begin(&mut self, name: &str, large: bool) -> Done {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .last_modified_time(zip::DateTime::from_date_and_time(2022, 1, 1, 0, 0, 0)?)
            .large_file(large);
        Ok(self.zip.start_file(name, options)?)
    }

    fn json(&mut self, name: &str, value: &Value) -> Done {
        self.begin(name, false)?;
        Ok(self.zip.write_all(&serde_json::to_vec(value)?)?)
    }

    fn head(&mut self) -> Done {
        for directory in [layout::ODATA_DIR, layout::WEBDAV_DIR] {
            self.zip.add_directory(directory, SimpleFileOptions::default())?;
        }
        let manifest = json!({"export_version": 2, "unit_url": "http://localhost/", "create_date": TIME + 1000});
        self.json(layout::MANIFEST, &manifest)?;
        // Each cell has an owner of its own: turns and limits of owners are not what is measured.
        let owner = format!("personium-localunit:admin:/#{}", self.name);
        let document = json!({"_index": "u0_ad.cell", "_type": "Cell", "_source": {
            "p": TIME, "a": {}, "s": {"Name": self.name}, "d": {}, "u": TIME,
            "h": {"Owner": owner}, "l": {}, "type": "Cell"}, "_id": self.id});
        self.json(layout::CELL, &document)
    }

    /// A line of a `.pjson` entry: the common fields, and those given.
    fn line(&mut self, of: DocumentType, id: &str, times: [i64; 2], fields: Value) -> Done {
        let mut source = json!({"p": times[0], "u": times[1], "c": self.id, "type": of.name()});
        if let (Value::Object(source), Value::Object(fields)) = (&mut source, fields) {
            source.extend(fields);
        }
        let index = format!("u0_bench.{}", of.name().to_lowercase());
        let line = json!({"_index": index, "_type": of.name(), "_source": source, "_id": id});
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        Ok(self.zip.write_all(&text)?)
    }

    /// Fields that place a document in the OData collection of the box.
    fn placed(&self, mut fields: Value) -> Value {
        fields["b"] = self.box_id.as_str().into();
        fields["n"] = self.node.as_str().into();
        fields
    }

    fn documents(&mut self, documents: u64) -> Done {
        for of in DocumentType::ALL {
            self.begin(of.entry(), of == DocumentType::UserData)?;
            if of == DocumentType::Box {
                let fields = json!({"s": {"Name": "data", "Schema": "https://app.unit.example/"}, "h": {}, "l": {}});
                let of_box = self.box_id.clone();
                self.line(of, &of_box, [TIME; 2], fields)?;
            } else if of == DocumentType::Role {
                let role = self.id("role", 0);
                self.line(of, &role, [TIME; 2], json!({"s": {"Name": "admin"}, "h": {}, "l": {}}))?;
            } else if of == DocumentType::EntityType {
                self.entity_types()?;
            } else if of == DocumentType::Property {
                self.properties()?;
            } else if of == DocumentType::UserData {
                self.user_data(documents)?;
            }
        }
        Ok(())
    }

    fn entity_types(&mut self) -> Done {
        for (number, (name, _)) in TYPES.iter().enumerate() {
            let fields = self.placed(json!({"s": {"Name": name}, "h": {}, "l": {}}));
            let id = self.id("type", number as u64);
            self.line(DocumentType::EntityType, &id, [TIME; 2], fields)?;
        }
        Ok(())
    }

    fn properties(&mut self) -> Done {
        for (number, (_, properties)) in TYPES.iter().enumerate() {
            for (position, (name, kind)) in properties.iter().enumerate() {
                let s = json!({"Name": name, "Type": kind, "CollectionKind": "None", "IsKey": false, "Nullable": true,
                    "IsDeclared": true});
                let l = json!({"EntityType": self.id("type", number as u64)});
                let h = json!({"Alias": format!("P{:03}", position + 1)});
                let fields = self.placed(json!({"s": s, "h": h, "l": l}));
                let id = self.id("property", (number * 100 + position) as u64);
                self.line(DocumentType::Property, &id, [TIME; 2], fields)?;
            }
        }
        Ok(())
    }

    fn user_data(&mut self, documents: u64) -> Done {
        let mut random = Rng::with_seed(self.seed ^ 7);
        let types: Vec<_> = (0..TYPES.len() as u64).map(|number| self.id("type", number)).collect();
        for number in 0..documents {
            let of = (number % 3) as usize;
            let mut s = match of {
                0 => self.words.entry(&mut random),
                1 => self.words.measurement(&mut random),
                _ => self.words.person(&mut random),
            };
            s["__id"] = match number % 5 {
                0 => format!("{}-{number}", TYPES[of].0.to_lowercase()).into(),
                _ => uuid::Builder::from_random_bytes(random.u128(..).to_be_bytes()).into_uuid().to_string().into(),
            };
            // One in four refers to one before it.
            let target = (number > 3 && number % 4 == 0).then(|| random.u64(number.saturating_sub(1000)..number));
            let ll: Vec<_> =
                target.map(|t| format!("{}:{}", types[(t % 3) as usize], self.id("userdata", t))).into_iter().collect();
            let created = TIME + number as i64 * 977 + random.i64(0..900);
            let times = [created, created + if random.bool() { 0 } else { random.i64(0..9_000_000_000) }];
            let fields = self.placed(json!({"ll": ll, "s": s, "h": {}, "t": types[of]}));
            let id = self.id("userdata", number);
            self.line(DocumentType::UserData, &id, times, fields)?;
        }
        Ok(())
    }

    fn node(&mut self, path: &str, kind: &str, more: Value) -> Done {
        if !path.is_empty() {
            self.zip.add_directory(format!("{}{path}/", layout::WEBDAV_DIR), SimpleFileOptions::default())?;
        }
        self.nodes += 1;
        let i = if kind == "col.odata" { self.node.clone() } else { self.id("node", self.nodes as u64) };
        let mut pmeta = json!({"p": TIME, "a": {}, "d": {}, "t": kind, "u": TIME + self.nodes * 1013, "v": 1, "i": i});
        if let (Value::Object(pmeta), Value::Object(more)) = (&mut pmeta, more) {
            pmeta.extend(more);
        }
        let slash = if path.is_empty() { "" } else { "/" };
        self.json(&format!("{}{path}{slash}{}", layout::WEBDAV_DIR, layout::PMETA), &pmeta)
    }

    /// A file's node and the beginning of its contents.
    fn file(&mut self, path: &str, kind: &str, length: u64) -> Done {
        self.node(path, "dav.file", json!({"ct": kind, "cl": length, "et": "NONE"}))?;
        let large = length >= u64::from(u32::MAX) - (16 << 20);
        self.begin(&format!("{}{path}/{}", layout::WEBDAV_DIR, layout::CONTENT), large)
    }

    fn tree(&mut self, arguments: &Arguments) -> Done {
        let href = json!({"D.href": self.id("role", 0)});
        let ace = json!([{"D.principal": href, "D.grant": {"D.privilege": [{"p.root": {}}]}}]);
        self.node("", "Cell", json!({"cs": "normal", "a": {"D.ace": ace}}))?;
        self.node(layout::MAIN_BOX, "col.box", json!({}))?;
        let of = self.box_id.clone();
        self.node(&of, "col.box", json!({}))?;
        self.node(&format!("{of}/odata"), "col.odata", json!({}))?;
        self.node(&format!("{of}/files"), "col.webdav", json!({}))?;
        let mut random = Rng::with_seed(self.seed ^ 11);
        for number in 0..arguments.files {
            let directory = format!("{of}/files/{:04}", number / PER_DIRECTORY);
            if number % PER_DIRECTORY == 0 {
                self.node(&directory, "col.webdav", json!({}))?;
            }
            let length = random.usize(2_000..=20_000);
            let (kind, bytes) = match number % 6 {
                0 => ("application/octet-stream", noise(&mut random, length)),
                1 | 2 => ("application/json", self.words.records(&mut random, length)),
                _ => ("text/plain", self.words.text(&mut random, length)),
            };
            self.file(&format!("{directory}/{}_{number}", self.words.name(&mut random)), kind, bytes.len() as u64)?;
            self.zip.write_all(&bytes)?;
        }
        for number in 0..arguments.large {
            self.file(&format!("{of}/files/large_{number}.bin"), "application/octet-stream", arguments.large_size)?;
            let (mut piece, mut left) = (vec![0; 1 << 20], arguments.large_size);
            while left > 0 {
                random.fill(&mut piece);
                let some = left.min(piece.len() as u64);
                self.zip.write_all(&piece[..some as usize])?;
                left -= some;
            }
        }
        for number in 0..arguments.mix {
            let length = random.usize(20_000..=2_000_000);
            let (suffix, kind, bytes) = self.words.mixed(&mut random, number, length);
            self.file(&format!("{of}/files/mix_{number}.{suffix}"), kind, bytes.len() as u64)?;
            self.zip.write_all(&bytes)?;
        }
        Ok(())
    }
}

/// A 22-character id, as units make them.
fn id(seed: u64, kind: &str, number: u64) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let kind = kind.bytes().fold(seed, |h: u64, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    let bits = Rng::with_seed(kind ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).u128(..);
    // Personium's ids are UUIDs in base64: 128 bits, so the last digit has but two of them.
    (0..22).map(|digit| char::from(DIGITS[((bits << 4 >> (digit * 6)) & 63) as usize])).collect()
}

fn noise(random: &mut Rng, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    random.fill(&mut bytes);
    bytes
}

type Properties = &'static [(&'static str, &'static str)];

const TYPES: [(&str, Properties); 3] = [
    (
        "Entry",
        &[
            ("Title", "Edm.String"),
            ("Text", "Edm.String"),
            ("Mood", "Edm.Int32"),
            ("Link", "Edm.String"),
            ("Written", "Edm.DateTime"),
            ("Public", "Edm.Boolean"),
        ],
    ),
    (
        "Measurement",
        &[
            ("Device", "Edm.String"),
            ("Taken", "Edm.DateTime"),
            ("Value", "Edm.Double"),
            ("Unit", "Edm.String"),
            ("Latitude", "Edm.Double"),
            ("Longitude", "Edm.Double"),
            ("Note", "Edm.String"),
        ],
    ),
    (
        "Person",
        &[
            ("Name", "Edm.String"),
            ("Mail", "Edm.String"),
            ("Phone", "Edm.String"),
            ("Town", "Edm.String"),
            ("Page", "Edm.String"),
            ("About", "Edm.String"),
            ("Born", "Edm.DateTime"),
        ],
    ),
];

/// A vocabulary: some words are frequent and most are rare, as in any language.
struct Words {
    latin: Vec<String>,
    all: Vec<String>,
}

impl Words {
    fn new(random: &mut Rng) -> Self {
        let latin: Vec<_> = (0..4000).map(|_| word(random, LATIN, 1..5)).collect();
        let other = (0..4000).map(|n| match n % 4 {
            0 | 1 => word(random, KANJI, 1..4),
            2 => word(random, KANA, 2..5),
            _ => word(random, ACCENTED, 2..5),
        });
        let other: Vec<_> = other.collect();
        // Mostly Latin letters; in between words of other scripts, and a few that JSON must escape.
        let mut all = latin.clone();
        all.extend(other);
        random.shuffle(&mut all);
        all.extend(["\"so\"", "\\path\\to", "🍣", "a\tb", "🙏🏽"].map(str::to_owned));
        Self { latin, all }
    }

    /// Zipf's law, nearly: the exponential of a uniform number.
    fn pick<'a>(random: &mut Rng, words: &'a [String]) -> &'a str {
        let place = (words.len() as f64).powf(random.f64()) as usize - 1;
        &words[place.min(words.len() - 1)]
    }

    fn sentence(&self, random: &mut Rng, count: usize) -> String {
        let mut text = String::new();
        for number in 0..count {
            match random.u32(..40) {
                0 => text.push_str(&random.u32(..100_000).to_string()),
                1 => text.push_str(&date(random)),
                _ => text.push_str(Self::pick(random, &self.all)),
            }
            text.push_str(if number + 1 == count {
                "."
            } else if random.u32(..9) == 0 {
                ", "
            } else {
                " "
            });
        }
        text
    }

    fn name(&self, random: &mut Rng) -> &str {
        Self::pick(random, &self.latin)
    }

    fn url(&self, random: &mut Rng) -> String {
        let host = HOSTS[random.usize(..HOSTS.len())];
        format!("https://{host}/{}/{}?id={}", self.name(random), self.name(random), random.u32(..1_000_000))
    }

    fn entry(&self, random: &mut Rng) -> Value {
        let (title, text) = (random.usize(2..5), random.usize(4..42));
        json!({"P001": self.sentence(random, title), "P002": self.sentence(random, text), "P003": random.i32(1..6),
            "P004": self.url(random), "P005": moment(random), "P006": random.bool().to_string()})
    }

    fn measurement(&self, random: &mut Rng) -> Value {
        let unit = ["mmHg", "kg", "°C", "steps", "bpm", "mg/dL"][random.usize(..6)];
        let note = random.usize(0..26);
        json!({"P001": format!("{}-{:04}", self.latin[random.usize(..50)], random.u32(..300)), "P002": moment(random),
            "P003": f64::from(random.u32(..200_000)) / 100.0, "P004": unit,
            "P005": 35.0 + f64::from(random.u32(..1_000_000)) / 1e6,
            "P006": 139.0 + f64::from(random.u32(..1_000_000)) / 1e6, "P007": self.sentence(random, note)})
    }

    fn person(&self, random: &mut Rng) -> Value {
        let (given, family) = (self.name(random).to_owned(), self.name(random).to_owned());
        let host = HOSTS[random.usize(..HOSTS.len())];
        let about = random.usize(0..24);
        json!({"P001": format!("{given} {family}"), "P002": format!("{given}.{family}{}@{host}", random.u32(..100)),
            "P003": format!("+81-{}-{:04}-{:04}", random.u32(1..99), random.u32(..10_000), random.u32(..10_000)),
            "P004": Self::pick(random, &self.all), "P005": self.url(random), "P006": self.sentence(random, about),
            "P007": moment(random)})
    }

    fn text(&self, random: &mut Rng, length: usize) -> Vec<u8> {
        let mut text = String::with_capacity(length + 400);
        while text.len() < length {
            let count = random.usize(4..20);
            text.push_str(&self.sentence(random, count));
            text.push(if random.u32(..5) == 0 { '\n' } else { ' ' });
        }
        text.into_bytes()
    }

    fn records(&self, random: &mut Rng, length: usize) -> Vec<u8> {
        let mut text = Vec::with_capacity(length + 400);
        while text.len() < length {
            let record = if random.bool() { self.measurement(random) } else { self.person(random) };
            text.extend_from_slice(record.to_string().as_bytes());
            text.push(b'\n');
        }
        text
    }

    /// Suffix, media type and bytes of a file as people have them: most of them packed already, behind a head that is
    /// not; and some whose name or type says the wrong thing.
    fn mixed(&self, random: &mut Rng, number: u64, length: usize) -> (&'static str, &'static str, Vec<u8>) {
        let packed = |random: &mut Rng, head: Vec<u8>| [head, noise(random, length)].concat();
        match number % 10 {
            0..=2 => {
                let exif =
                    [&b"\xff\xd8\xff\xe0\0\x10JFIF\0\x01\x01\0\0\x48\0\x48\0\0\xff\xe1"[..], &[0; 3000]].concat();
                ("jpg", "image/jpeg", packed(random, exif))
            }
            3 | 4 => {
                let name = format!("PK\x03\x04\x14\0\0\0\x08\0{}/{}.txt", self.name(random), self.name(random));
                ("zip", "application/zip", packed(random, name.repeat(40).into_bytes()))
            }
            5 => {
                // The index of a film: long tables of small numbers.
                let mut moov = b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2avc1mp41\0\x01\0\0moov".to_vec();
                for sample in 0..length as u32 / 100 {
                    moov.extend_from_slice(&(sample * 40 + random.u32(..8)).to_be_bytes());
                }
                ("mp4", "video/mp4", packed(random, moov))
            }
            6 => ("csv", "text/csv", self.records(random, length)),
            7 => ("txt", "text/plain", self.text(random, length)),
            8 => ("jpg", "image/jpeg", self.text(random, length)),
            _ => ("txt", "text/plain", noise(random, length)),
        }
    }
}

fn word(random: &mut Rng, syllables: &[&str], count: std::ops::Range<usize>) -> String {
    (0..random.usize(count)).map(|_| syllables[random.usize(..syllables.len())]).collect()
}

fn date(random: &mut Rng) -> String {
    format!("{}-{:02}-{:02}", random.u32(1990..2026), random.u32(1..13), random.u32(1..29))
}

/// A time as OData writes it.
fn moment(random: &mut Rng) -> String {
    format!("/Date({})/", TIME + random.i64(-900_000_000_000..90_000_000_000))
}

const HOSTS: &[&str] = &[
    "app.unit1.example",
    "news.example.com",
    "ja.wiki.example",
    "mail.example.org",
    "photos.example.net",
    "unit.example",
];
const LATIN: &[&str] = &[
    "a", "al", "an", "ar", "ba", "be", "bri", "ca", "che", "clo", "da", "den", "dro", "e", "el", "er", "est", "fa",
    "fer", "flo", "ga", "gra", "ha", "her", "i", "in", "ing", "ja", "ka", "ki", "la", "len", "li", "lo", "ma", "men",
    "mi", "mo", "na", "ne", "no", "o", "on", "or", "pa", "per", "pla", "qui", "ra", "re", "ri", "ro", "sa", "se",
    "shi", "so", "sta", "ta", "ter", "ti", "tion", "tra", "u", "un", "va", "ver", "vi", "wa", "wi", "ya", "zo",
];
const ACCENTED: &[&str] =
    &["ä", "bé", "ça", "dö", "él", "fü", "gñ", "hø", "ïn", "lå", "mó", "nü", "òr", "pš", "ré", "ße", "tù"];
const KANA: &[&str] = &[
    "あ", "い", "う", "お", "か", "き", "く", "け", "こ", "さ", "し", "す", "せ", "た", "ち", "て", "と", "な", "に",
    "の", "は", "ひ", "ま", "み", "も", "や", "ゆ", "よ", "ら", "り", "れ", "わ", "ん", "ア", "イ", "カ", "ト", "ン",
];
const KANJI: &[&str] = &[
    "朝", "海", "散", "歩", "雨", "写", "真", "夕", "方", "音", "楽", "市", "場", "河", "山", "花", "子", "大", "阪",
    "東", "京", "日", "本", "語", "新", "聞", "電", "車", "駅", "学", "校", "病", "院", "薬", "食", "事", "水", "火",
    "木", "金", "土", "月", "年", "時", "分", "人", "口", "手", "足", "目", "耳", "心", "体", "重", "血", "圧",
];
