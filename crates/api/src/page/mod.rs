//! Pages for people: one of each cell, to export, look, download and import; and one of the unit, to read the description
//! of the interface. They are part of the program, load nothing from elsewhere, and need no credentials themselves: what
//! they ask for, they ask for with a token that the reader gives them.

use std::sync::LazyLock;

use actix_web::HttpResponse;
use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, LOCATION, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use sha2::{Digest, Sha256};

use crate::common::incoming::Incoming;

/// Nothing from elsewhere, nothing inline, and nobody puts the page into a frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

/// The page of a cell, `{cell}__export/ui`, and below it what it is made of.
static OF_CELL: LazyLock<[PageFile; 7]> = LazyLock::new(|| {
    [
        PageFile::new("", HTML, include_str!("index.html")),
        PageFile::new("page.css", STYLE, include_str!("page.css")),
        PageFile::new("page.js", SCRIPT, include_str!("page.js")),
        PageFile::new("service.js", SCRIPT, include_str!("service.js")),
        PageFile::new("snapshots.js", SCRIPT, include_str!("snapshots.js")),
        PageFile::new("progress.js", SCRIPT, include_str!("progress.js")),
        PageFile::new("texts.js", SCRIPT, include_str!("texts.js")),
    ]
});

/// The page of the unit. No cell can have a name with a dot.
static OF_UNIT: LazyLock<[PageFile; 3]> = LazyLock::new(|| {
    [
        PageFile::new("openapi.html", HTML, include_str!("openapi.html")),
        PageFile::new("openapi.js", SCRIPT, include_str!("openapi.js")),
        PageFile::new("openapi.css", STYLE, include_str!("page.css")),
    ]
});

/// A file of a page.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PageFile {
    name: &'static str,
    media_type: &'static str,
    text: &'static str,
    etag: String,
}

impl PageFile {
    fn new(name: &'static str, media_type: &'static str, text: &'static str) -> Self {
        let etag = format!("\"{}\"", hex::encode(&Sha256::digest(text)[..16]));
        Self { name, media_type, text, etag }
    }

    /// The file of a cell's page that a path below `__export/ui` names.
    pub(crate) fn of_cell(path: &[&str]) -> Option<&'static Self> {
        match path {
            [] => OF_CELL.iter().find(|file| file.name.is_empty()),
            [name] => OF_CELL.iter().find(|file| !file.name.is_empty() && file.name == *name),
            _ => None,
        }
    }

    /// The file of the unit's page that a path names.
    pub(crate) fn of_unit(path: &[String]) -> Option<&'static Self> {
        let [name] = path else { return None };
        OF_UNIT.iter().find(|file| file.name == name)
    }
}

/// Answers with a file of a page.
pub(crate) fn answer(file: &PageFile, request: &Incoming) -> HttpResponse {
    if request.path.ends_with('/') {
        // The names in a page are relative to its own URL.
        let own = request.path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        return HttpResponse::PermanentRedirect().insert_header((LOCATION, format!("../{own}"))).finish();
    }
    let known = request.header(IF_NONE_MATCH.as_str()).is_some_and(|tags| {
        tags.split(',').map(str::trim).any(|tag| tag.strip_prefix("W/").unwrap_or(tag) == file.etag)
    });
    let mut response = if known { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    response
        .insert_header((ETAG, file.etag.as_str()))
        .insert_header((CACHE_CONTROL, "no-cache"))
        .insert_header((CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((REFERRER_POLICY, "no-referrer"));
    if known {
        return response.finish();
    }
    response.insert_header((CONTENT_TYPE, file.media_type)).body(file.text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The entries of a table of texts, such as `  "sign.out": "…",`.
    fn keys(table: &str) -> Vec<&str> {
        table
            .lines()
            .filter_map(|line| line.trim_start().strip_prefix('"')?.split_once("\":").map(|(key, _)| key))
            .collect()
    }

    #[test]
    fn both_languages_say_the_same_things() {
        let texts = include_str!("texts.js");
        let (_, tables) = texts.split_once("const ENGLISH = {").expect("the English table");
        let (english, japanese) = tables.split_once("const JAPANESE = {").expect("the Japanese table");
        assert!(keys(english).len() > 50);
        assert_eq!(keys(english), keys(japanese));
    }

    #[test]
    fn the_pages_name_nothing_elsewhere_and_hold_no_script_of_their_own() {
        for file in OF_CELL.iter().chain(OF_UNIT.iter()) {
            // The name of a namespace is no address.
            let text = file.text.replace("http://www.w3.org/2000/svg", "");
            assert!(!text.contains("http://") && !text.contains("https://"), "{}", file.name);
            assert!(!text.contains("innerHTML") && !text.contains("style=\""), "{}", file.name);
            if file.media_type == HTML {
                let scripts = text.matches("<script").count();
                assert_eq!(scripts, text.matches("<script type=\"module\" src=\"").count(), "{}", file.name);
            }
        }
    }

    #[test]
    fn paths_name_files_of_the_page() {
        for path in [&[][..], &["page.js"], &["page.css"]] {
            assert!(PageFile::of_cell(path).is_some(), "{path:?}");
        }
        for path in [&[""][..], &["index.html"], &["page.js", "x"], &["../page.js"]] {
            assert!(PageFile::of_cell(path).is_none(), "{path:?}");
        }
    }
}
