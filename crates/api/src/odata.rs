//! OData 2.0 as far as cells need it: documents of an entity, and options of a list.

use actix_web::http::StatusCode;
use actix_web::http::header::{ETAG, HeaderName, LOCATION};
use actix_web::web::Query;
use actix_web::{HttpResponse, HttpResponseBuilder};
use model::error_code::ErrorCode;
use model::limits;
use model::store::cells::ListedCell;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::ApiError;

const DATA_SERVICE_VERSION: HeaderName = HeaderName::from_static("dataserviceversion");

/// A cell as an entity of the set `Cell`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CellEntity {
    name: String,
    published: i64,
    updated: i64,
}

#[derive(Deserialize, Default)]
struct Document {
    #[serde(rename = "_source", default)]
    source: Dates,
}

#[derive(Deserialize, Default)]
struct Dates {
    #[serde(default)]
    p: i64,
    #[serde(default)]
    u: i64,
}

impl CellEntity {
    /// Reads a cell document. One without dates, or with unreadable ones, must not keep the others from being listed.
    pub(crate) fn read(cell: ListedCell) -> Self {
        let Dates { p, u } = serde_json::from_str(&cell.document).unwrap_or(Document::default()).source;
        Self { name: cell.name, published: p, updated: u }
    }

    /// The entity tag: weak, as those of OData are.
    pub(crate) fn etag(&self) -> String {
        format!("W/\"1-{}\"", self.updated)
    }

    /// The entity's URL.
    pub(crate) fn url(&self, unit: &str) -> String {
        format!("{unit}__ctl/Cell('{}')", self.name)
    }

    fn json(&self, unit: &str) -> Value {
        json!({
            "__metadata": { "uri": self.url(unit), "etag": self.etag(), "type": "UnitCtl.Cell" },
            "Name": self.name,
            "__published": format!("/Date({})/", self.published),
            "__updated": format!("/Date({})/", self.updated),
        })
    }
}

/// Answers with one entity; with a new one, also where it is.
pub(crate) fn entity(status: StatusCode, cell: &CellEntity, unit: &str) -> HttpResponse {
    let mut response = response(status);
    response.insert_header((ETAG, cell.etag()));
    if status == StatusCode::CREATED {
        response.insert_header((LOCATION, cell.url(unit)));
    }
    document(response, json!({ "results": cell.json(unit) }))
}

/// Answers with a list of entities, and with how many there are in all when that was asked for.
pub(crate) fn list(cells: &[CellEntity], count: Option<i64>, unit: &str) -> HttpResponse {
    let results: Vec<_> = cells.iter().map(|cell| cell.json(unit)).collect();
    let answer = match count {
        None => json!({ "results": results }),
        Some(count) => json!({ "results": results, "__count": count.to_string() }),
    };
    document(response(StatusCode::OK), answer)
}

/// Answers that it is done.
pub(crate) fn done() -> HttpResponse {
    response(StatusCode::NO_CONTENT).finish()
}

fn response(status: StatusCode) -> HttpResponseBuilder {
    let mut response = HttpResponse::build(status);
    response.insert_header((DATA_SERVICE_VERSION, "2.0"));
    response
}

fn document(mut response: HttpResponseBuilder, answer: Value) -> HttpResponse {
    response.content_type("application/json").body(json!({ "d": answer }).to_string())
}

/// Which entities of a list are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListOptions {
    /// `$skip`
    pub(crate) skip: i64,
    /// `$top`
    pub(crate) top: i64,
    /// `$inlinecount=allpages`
    pub(crate) count: bool,
}

impl ListOptions {
    /// Reads the query options of a list. Options that only change its looks are ignored.
    ///
    /// # Errors
    /// 400 PR400-OD-0029 for values that are none, and for a filter: whoever asks for some entities must not get all.
    pub(crate) fn read(query: &str) -> Result<Self, ApiError> {
        let mut options = Self { skip: 0, top: limits::CELLS_LISTED_DEFAULT, count: false };
        let Query(pairs) = Query::<Vec<(String, String)>>::from_query(query).unwrap_or_else(|_| Query(Vec::new()));
        for (name, value) in &pairs {
            let bad = || ApiError::with(ErrorCode::ODataQuery, &[name, value]);
            let number = |most| {
                let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
                value.parse().ok().filter(|number| digits && *number <= most).ok_or_else(bad)
            };
            match name.as_str() {
                "$skip" => options.skip = number(i64::MAX)?,
                "$top" => options.top = number(limits::CELLS_LISTED)?,
                "$inlinecount" => match value.as_str() {
                    "allpages" => options.count = true,
                    "none" => options.count = false,
                    _ => return Err(bad()),
                },
                "$filter" => return Err(bad()),
                _ => {}
            }
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_numbers_within_limits() {
        let read = |query: &str| ListOptions::read(query).ok().map(|o| (o.skip, o.top, o.count));
        for (query, expected) in [
            ("", Some((0, 25, false))),
            ("$top=0", Some((0, 0, false))),
            ("$top=10000&$skip=7&$inlinecount=allpages", Some((7, 10000, true))),
            ("%24top=3&$inlinecount=none", Some((0, 3, false))),
            ("$orderby=Name%20desc&$format=json&x", Some((0, 25, false))),
            ("$top=10001", None),
            ("$top=-1", None),
            ("$top=+1", None),
            ("$top=", None),
            ("$top=x", None),
            ("$skip=1.5", None),
            ("$skip=99999999999999999999", None),
            ("$inlinecount=all", None),
            ("$filter=Name%20eq%20'a'", None),
        ] {
            assert_eq!(read(query), expected, "{query}");
        }
    }

    #[test]
    fn a_document_without_dates_is_still_a_cell() {
        for document in ["{}", "[]", r#"{"_source":{"p":"x"}}"#, ""] {
            let cell = CellEntity::read(ListedCell { name: "a".to_owned(), document: document.to_owned() });
            assert_eq!(cell.etag(), "W/\"1-0\"", "{document}");
        }
    }
}
