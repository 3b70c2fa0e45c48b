//! `99_integrity.json`: what an export wrote down about every entry. Read piece by piece: it has a record for each.

use std::fmt;
use std::io::{BufReader, Read};

use model::layout::{self, DocumentType};
use model::limits;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::error::ImportError;
use super::metered::{Metered, Reading};

/// What an entry must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) size: u64,
    pub(super) sha256: [u8; 32],
}

/// What all entries must add up to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Documents by type, where the entry says.
    pub(super) documents: [Option<u64>; DocumentType::ALL.len()],
    pub(super) files: Option<u64>,
    pub(super) bytes: Option<u64>,
}

/// The version this service writes, and the only one it can verify.
const VERSION: u64 = 1;

/// Reads the entry, which is no longer than the records of all entries can be. `each` gets every record.
pub(super) fn read(
    entry: &mut Metered<'_, impl Read>,
    longest: u64,
    each: &mut dyn FnMut(&str, Expected) -> Result<(), ImportError>,
) -> Result<Counts, ImportError> {
    let longest = longest.min(limits::INTEGRITY_ENTRY);
    if entry.size() > longest {
        return Err(ImportError::entry(layout::INTEGRITY, format!("longer than {longest} bytes")));
    }
    let mut reading = Reading { entry, failed: None };
    let mut refused = None;
    let result = {
        let mut parser = serde_json::Deserializer::from_reader(BufReader::with_capacity(limits::SAMPLE, &mut reading));
        let document = Document { each, refused: &mut refused };
        document.deserialize(&mut parser).and_then(|counts| parser.end().map(|()| counts))
    };
    // What stopped the parser says more than the parser.
    match (reading.failed, refused, result) {
        (Some(error), _, _) | (None, Some(error), _) => Err(error),
        (None, None, Ok(counts)) => Ok(counts),
        (None, None, Err(error)) => Err(ImportError::entry(layout::INTEGRITY, error)),
    }
}

type Each<'e> = &'e mut dyn FnMut(&str, Expected) -> Result<(), ImportError>;

struct Document<'e, 'r> {
    each: Each<'e>,
    refused: &'r mut Option<ImportError>,
}

impl<'de> DeserializeSeed<'de> for Document<'_, '_> {
    type Value = Counts;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Counts, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Document<'_, '_> {
    type Value = Counts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Counts, A::Error> {
        use serde::de::Error;
        let mut counts = Counts::default();
        let (mut version, mut entries) = (None, false);
        while let Some(key) = map.next_key::<String>()? {
            let twice = match key.as_str() {
                "version" => version.is_some(),
                "files" => counts.files.is_some(),
                "bytes" => counts.bytes.is_some(),
                _ => key == "entries" && entries,
            };
            if twice {
                return Err(A::Error::custom(format!("{key} stands twice")));
            }
            match key.as_str() {
                "version" => version = Some(map.next_value::<u64>()?),
                "documents" => map.next_value_seed(Documents(&mut counts))?,
                "files" => counts.files = Some(map.next_value()?),
                "bytes" => counts.bytes = Some(map.next_value()?),
                "entries" => {
                    map.next_value_seed(Entries { each: &mut *self.each, refused: &mut *self.refused })?;
                    entries = true;
                }
                // This version has no more; what has more is another version.
                _ => return Err(A::Error::custom(format!("{key:.40} does not belong there"))),
            }
        }
        match (version, entries) {
            (Some(VERSION), true) => Ok(counts),
            (Some(VERSION), false) => Err(A::Error::custom("entries is missing")),
            _ => Err(A::Error::custom(format!("only version {VERSION} can be verified"))),
        }
    }
}

/// The counts of documents, by type.
struct Documents<'c>(&'c mut Counts);

impl<'de> DeserializeSeed<'de> for Documents<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Documents<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        use serde::de::Error;
        while let Some(name) = map.next_key::<String>()? {
            let of = DocumentType::parse(&name);
            let of = of.ok_or_else(|| A::Error::custom(format!("{name:.40} is no entity type")))?;
            if self.0.documents[of.index()].replace(map.next_value()?).is_some() {
                return Err(A::Error::custom(format!("{name} stands twice")));
            }
        }
        Ok(())
    }
}

struct Entries<'e, 'r> {
    each: Each<'e>,
    refused: &'r mut Option<ImportError>,
}

impl<'de> DeserializeSeed<'de> for Entries<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    name: String,
    size: u64,
    sha256: String,
}

impl<'de> Visitor<'de> for Entries<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut records: A) -> Result<(), A::Error> {
        use serde::de::Error;
        while let Some(record) = records.next_element::<Record>()? {
            let mut sha256 = [0; 32];
            hex::decode_to_slice(&record.sha256, &mut sha256).map_err(|_| A::Error::custom("a sha256 that is none"))?;
            if let Err(error) = (self.each)(&record.name, Expected { size: record.size, sha256 }) {
                *self.refused = Some(error);
                return Err(A::Error::custom("refused"));
            }
        }
        Ok(())
    }
}
