//! The one route table: what a URL names, and what a method means for the path below it.

use model::cell::CellName;
use model::error_code::ErrorCode;
use model::job::JobKind;
use model::settings::UnitSettings;
use model::store::job_resources::Family;
use percent_encoding::percent_decode_str;

use crate::common::incoming::Incoming;
use crate::error::ApiError;
use crate::page::PageFile;

/// What a request asks of a cell. File names are decoded and may be any text; they never become paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// `GET __export`
    ExportStatus,
    /// `POST __export`
    Export,
    /// `GET __import` and `GET __import/dry-run`
    ImportStatus(JobKind),
    /// `POST __import` and `POST __import/dry-run`
    Import(JobKind),
    /// `GET __export/jobs` and `GET __import/jobs`
    ListJobs(Family),
    /// `GET __export/jobs/{id}` and `GET __import/jobs/{id}`
    Job(Family, String),
    /// `DELETE __export/jobs/{id}` and `DELETE __import/jobs/{id}`
    CancelJob(Family, String),
    /// `GET __export/jobs/{id}/events` and `GET __import/jobs/{id}/events`
    JobEvents(Family, String),
    /// `PROPFIND __snapshot`
    ListArea,
    /// `PROPFIND __snapshot/{file}`
    DescribeFile(String),
    /// `GET __snapshot/{file}`
    Download(String),
    /// `HEAD __snapshot/{file}`
    DownloadHead(String),
    /// `PUT __snapshot/{file}`
    Upload(String),
    /// `DELETE __snapshot/{file}`
    Delete(String),
    /// `OPTIONS` of a resource that always exists, with its methods.
    Options(&'static str),
    /// `OPTIONS __snapshot/{file}`, with its methods.
    FileOptions(String, &'static str),
    /// The cell's page, `{cell}__export/ui`, or a file of it.
    Page(&'static PageFile),
    /// Exists in no Personium; told so at once.
    NotImplemented,
}

impl Action {
    /// The snapshot file that has to be there for this.
    pub(crate) fn file(&self) -> Option<&str> {
        let (Self::DescribeFile(file) | Self::Download(file) | Self::DownloadHead(file) | Self::FileOptions(file, _)) =
            self
        else {
            return None;
        };
        Some(file)
    }
}

/// What a request asks of the unit. Names of cells are those in the key, and may be any text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum UnitAction {
    /// `GET __ctl/Cell`
    ListCells,
    /// `POST __ctl/Cell`
    CreateCell,
    /// `GET __ctl/Cell('name')`
    DescribeCell(String),
    /// `DELETE __ctl/Cell('name')`
    DeleteCell(String),
    /// `OPTIONS`, with the methods.
    Options(&'static str),
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// To a cell.
    Cell {
        /// The cell; nothing when no cell can have the name in the URL.
        name: Option<CellName>,
        /// The path below the cell, decoded segment by segment.
        segments: Vec<String>,
    },
    /// To the unit: the path below `__ctl`, decoded segment by segment.
    Unit(Vec<String>),
    /// To the unit's page.
    Page(&'static PageFile),
    /// `openapi.json` of the unit.
    Description,
}

/// First segment of the unit's own resources, in both forms of URLs. No cell can have this name.
const UNIT_CONTROL: &str = "__ctl";

/// The description of the interface, at the unit. No cell can have this name either.
const DESCRIPTION: &str = "openapi.json";

/// Finds the cell, or the unit, and the path below it.
///
/// # Errors
/// 400 when the URL is for another authority, or has the form that is switched off.
pub(crate) fn target(request: &Incoming, unit: &UnitSettings) -> Result<Target, ApiError> {
    let path = request.path.strip_prefix('/').unwrap_or(&request.path);
    // One trailing slash names the same resource.
    let path = path.strip_suffix('/').unwrap_or(path);
    let mut segments: Vec<String> = if path.is_empty() { Vec::new() } else { path.split('/').map(decode).collect() };
    let authority = unit.authority();
    let is_unit = request.authority.eq_ignore_ascii_case(&authority);
    if is_unit && segments.first().is_some_and(|first| first == UNIT_CONTROL) {
        segments.remove(0);
        return Ok(Target::Unit(segments));
    }
    if is_unit && let Some(file) = PageFile::of_unit(&segments) {
        return Ok(Target::Page(file));
    }
    if is_unit
        && let [file] = &segments[..]
        && file == DESCRIPTION
    {
        return Ok(Target::Description);
    }
    let cell = if unit.path_based {
        if !is_unit {
            return Err(wrong_authority(&request.authority, &authority));
        }
        if segments.is_empty() {
            return Err(ErrorCode::UnknownUri.into());
        }
        segments.remove(0)
    } else {
        if is_unit {
            return Err(ErrorCode::PathBasedUrl.into());
        }
        let label = request.raw_authority.split('.').next().unwrap_or_default();
        let rest = request.authority.strip_prefix(label).and_then(|rest| rest.strip_prefix('.'));
        if label.is_empty() || !rest.is_some_and(|rest| rest.eq_ignore_ascii_case(&authority)) {
            return Err(wrong_authority(&request.authority, &format!("{authority}, *.{authority}")));
        }
        label.to_owned()
    };
    Ok(Target::Cell { name: CellName::parse(&cell), segments })
}

/// The route table of a cell: finds what a method means for the path below it. Methods are case-sensitive.
///
/// # Errors
/// 404 for a path that names no resource, 405 for a method that the resource does not have.
pub(crate) fn action(segments: &[String], method: &str) -> Result<Action, ErrorCode> {
    match segments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["__export"] => match method {
            "GET" | "HEAD" => Ok(Action::ExportStatus),
            "POST" => Ok(Action::Export),
            "OPTIONS" => Ok(Action::Options("OPTIONS, GET, POST")),
            _ => Err(ErrorCode::MethodNotAllowed),
        },
        ["__export", "ui", ref file @ ..] => page(method, file),
        ["__import"] => import(method, JobKind::Import),
        ["__import", "dry-run"] => import(method, JobKind::DryRun),
        ["__export", "jobs", ref rest @ ..] => job(method, Family::Exports, rest),
        ["__import", "jobs", ref rest @ ..] => job(method, Family::Imports, rest),
        ["__snapshot"] => match method {
            "PROPFIND" => Ok(Action::ListArea),
            "OPTIONS" => Ok(Action::Options("OPTIONS, PROPFIND")),
            _ => Err(ErrorCode::MethodNotAllowed),
        },
        ["__snapshot", file] => match method {
            "GET" => Ok(Action::Download(file.to_owned())),
            "HEAD" => Ok(Action::DownloadHead(file.to_owned())),
            "PROPFIND" => Ok(Action::DescribeFile(file.to_owned())),
            "PUT" => Ok(Action::Upload(file.to_owned())),
            "DELETE" => Ok(Action::Delete(file.to_owned())),
            "OPTIONS" => Ok(Action::FileOptions(file.to_owned(), "OPTIONS, GET, PUT, DELETE, PROPFIND")),
            "REPORT" => Ok(Action::NotImplemented),
            _ => Err(ErrorCode::MethodNotAllowed),
        },
        _ => Err(ErrorCode::UnknownUri),
    }
}

fn job(method: &str, family: Family, rest: &[&str]) -> Result<Action, ErrorCode> {
    match (rest, method) {
        ([], "GET" | "HEAD") => Ok(Action::ListJobs(family)),
        ([id], "GET" | "HEAD") => Ok(Action::Job(family, (*id).to_owned())),
        ([id], "DELETE") => Ok(Action::CancelJob(family, (*id).to_owned())),
        // A HEAD of a stream would be one without an end.
        ([id, "events"], "GET") => Ok(Action::JobEvents(family, (*id).to_owned())),
        ([] | [_, "events"], "OPTIONS") => Ok(Action::Options("OPTIONS, GET")),
        ([_], "OPTIONS") => Ok(Action::Options("OPTIONS, GET, DELETE")),
        ([] | [_] | [_, "events"], _) => Err(ErrorCode::MethodNotAllowed),
        _ => Err(ErrorCode::UnknownUri),
    }
}

fn page(method: &str, file: &[&str]) -> Result<Action, ErrorCode> {
    let file = PageFile::of_cell(file).ok_or(ErrorCode::UnknownUri)?;
    match method {
        "GET" | "HEAD" => Ok(Action::Page(file)),
        "OPTIONS" => Ok(Action::Options("OPTIONS, GET")),
        _ => Err(ErrorCode::MethodNotAllowed),
    }
}

fn import(method: &str, kind: JobKind) -> Result<Action, ErrorCode> {
    match method {
        "GET" | "HEAD" => Ok(Action::ImportStatus(kind)),
        "POST" => Ok(Action::Import(kind)),
        "OPTIONS" => Ok(Action::Options("OPTIONS, GET, POST")),
        _ => Err(ErrorCode::MethodNotAllowed),
    }
}

/// The route of a path below a cell, as metrics name it: few, whatever clients ask for.
pub(crate) fn cell_route(segments: &[String]) -> &'static str {
    match segments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["__export"] => "/__export",
        ["__export", "ui", ..] => "/__export/ui",
        ["__import"] => "/__import",
        ["__import", "dry-run"] => "/__import/dry-run",
        ["__export" | "__import", "jobs"] => "/jobs",
        ["__export" | "__import", "jobs", _] => "/jobs/{id}",
        ["__export" | "__import", "jobs", _, "events"] => "/jobs/{id}/events",
        ["__snapshot"] => "/__snapshot",
        ["__snapshot", _] => "/__snapshot/{file}",
        _ => NO_ROUTE,
    }
}

/// What no route names.
pub(crate) const NO_ROUTE: &str = "none";
/// What no method that is known here.
pub(crate) const OTHER_METHOD: &str = "other";

/// A method as metrics name it.
pub(crate) fn method_name(method: &str) -> &'static str {
    ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PROPFIND"]
        .into_iter()
        .find(|known| *known == method)
        .unwrap_or(OTHER_METHOD)
}

/// The route table of the unit: finds what a method means for the path below `__ctl`.
///
/// # Errors
/// 404 for a path that names no resource, 400 for a key that is none, 405 for a method that the resource does not have.
pub(crate) fn unit_action(segments: &[String], method: &str) -> Result<UnitAction, ErrorCode> {
    let [resource] = segments else { return Err(ErrorCode::UnknownUri) };
    match resource.strip_prefix("Cell") {
        Some("") => match method {
            "GET" | "HEAD" => Ok(UnitAction::ListCells),
            "POST" => Ok(UnitAction::CreateCell),
            "OPTIONS" => Ok(UnitAction::Options("OPTIONS, GET, POST")),
            _ => Err(ErrorCode::MethodNotAllowed),
        },
        Some(key) if key.starts_with('(') => {
            let name = cell_key(key).ok_or(ErrorCode::ODataKey)?;
            match method {
                "GET" | "HEAD" => Ok(UnitAction::DescribeCell(name)),
                "DELETE" => Ok(UnitAction::DeleteCell(name)),
                "OPTIONS" => Ok(UnitAction::Options("OPTIONS, GET, DELETE")),
                _ => Err(ErrorCode::MethodNotAllowed),
            }
        }
        Some(_) | None => Err(ErrorCode::NoSuchEntitySet),
    }
}

/// Reads `('name')` or `(Name='name')`. Two quotes stand for one within a name (OData 2.0, URI conventions).
fn cell_key(key: &str) -> Option<String> {
    let value = key.strip_prefix('(')?.strip_suffix(')')?.trim();
    let value = match value.split_once('=') {
        Some((field, value)) if field.trim() == "Name" => value.trim(),
        _ => value,
    };
    let name = value.strip_prefix('\'')?.strip_suffix('\'')?;
    let paired = name.split("''").all(|part| !part.contains('\''));
    paired.then(|| name.replace("''", "'"))
}

fn wrong_authority(given: &str, configured: &str) -> ApiError {
    ApiError::with(ErrorCode::UrlAuthority, &[given, configured])
}

fn decode(segment: &str) -> String {
    percent_decode_str(segment).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routed(path: &str, method: &str) -> Result<Action, ErrorCode> {
        action(&path.split('/').map(decode).collect::<Vec<_>>(), method)
    }

    #[test]
    fn resources_have_the_methods_of_the_contract() {
        for (path, method, expected) in [
            ("__export", "GET", Ok(Action::ExportStatus)),
            ("__export", "get", Err(ErrorCode::MethodNotAllowed)),
            ("__export", "PROPFIND", Err(ErrorCode::MethodNotAllowed)),
            ("__import", "POST", Ok(Action::Import(JobKind::Import))),
            ("__import/dry-run", "POST", Ok(Action::Import(JobKind::DryRun))),
            ("__import/dry-run", "HEAD", Ok(Action::ImportStatus(JobKind::DryRun))),
            ("__import/dry-run", "DELETE", Err(ErrorCode::MethodNotAllowed)),
            ("__import/dry-run/x", "GET", Err(ErrorCode::UnknownUri)),
            ("__import/other", "GET", Err(ErrorCode::UnknownUri)),
            ("__snapshot", "PROPFIND", Ok(Action::ListArea)),
            ("__snapshot", "GET", Err(ErrorCode::MethodNotAllowed)),
            ("__snapshot", "REPORT", Err(ErrorCode::MethodNotAllowed)),
            ("__snapshot/a.zip", "REPORT", Ok(Action::NotImplemented)),
            ("__snapshot/a.zip", "PUT", Ok(Action::Upload("a.zip".to_owned()))),
            ("__snapshot/a.zip", "POST", Err(ErrorCode::MethodNotAllowed)),
            ("__export/x", "GET", Err(ErrorCode::UnknownUri)),
            ("__export/jobs", "GET", Ok(Action::ListJobs(Family::Exports))),
            ("__export/jobs", "POST", Err(ErrorCode::MethodNotAllowed)),
            ("__import/jobs/x", "GET", Ok(Action::Job(Family::Imports, "x".to_owned()))),
            ("__import/jobs/x", "DELETE", Ok(Action::CancelJob(Family::Imports, "x".to_owned()))),
            ("__export/jobs/x", "PUT", Err(ErrorCode::MethodNotAllowed)),
            ("__export/jobs/x/events", "GET", Ok(Action::JobEvents(Family::Exports, "x".to_owned()))),
            ("__export/jobs/x/events", "HEAD", Err(ErrorCode::MethodNotAllowed)),
            ("__export/jobs/x/other", "GET", Err(ErrorCode::UnknownUri)),
            ("__export/jobs/x/events/y", "GET", Err(ErrorCode::UnknownUri)),
            ("__export/ui", "POST", Err(ErrorCode::MethodNotAllowed)),
            ("__export/ui", "OPTIONS", Ok(Action::Options("OPTIONS, GET"))),
            ("__export/ui/x", "GET", Err(ErrorCode::UnknownUri)),
            ("__snapshot/a/b", "GET", Err(ErrorCode::UnknownUri)),
            ("__snapshot/../x", "GET", Err(ErrorCode::UnknownUri)),
        ] {
            assert_eq!(routed(path, method), expected, "{method} {path}");
        }
    }

    #[test]
    fn a_separator_that_was_encoded_stays_within_its_name() {
        assert_eq!(routed("__snapshot/..%2f..%2Fetc", "GET"), Ok(Action::Download("../../etc".to_owned())));
        assert_eq!(routed("__snapshot/a%2Fb.zip", "GET"), Ok(Action::Download("a/b.zip".to_owned())));
    }

    #[test]
    fn cells_have_keys_and_nothing_else_has() {
        let key = |name: &str| Ok(UnitAction::DescribeCell(name.to_owned()));
        for (path, expected) in [
            ("Cell", Ok(UnitAction::ListCells)),
            ("Cell('a')", key("a")),
            ("Cell(%27a%27)", key("a")),
            ("Cell(Name='a')", key("a")),
            ("Cell( Name = 'a' )", key("a")),
            ("Cell('a=b')", key("a=b")),
            ("Cell('it''s')", key("it's")),
            ("Cell('')", key("")),
            ("Cell()", Err(ErrorCode::ODataKey)),
            ("Cell('a'", Err(ErrorCode::ODataKey)),
            ("Cell(a)", Err(ErrorCode::ODataKey)),
            ("Cell(')", Err(ErrorCode::ODataKey)),
            ("Cell(1)", Err(ErrorCode::ODataKey)),
            ("Cell(\"a\")", Err(ErrorCode::ODataKey)),
            ("Cell(name='a')", Err(ErrorCode::ODataKey)),
            ("Cell('a','b')", Err(ErrorCode::ODataKey)),
            ("Cell('a')x", Err(ErrorCode::ODataKey)),
            ("Cells", Err(ErrorCode::NoSuchEntitySet)),
            ("cell", Err(ErrorCode::NoSuchEntitySet)),
            ("", Err(ErrorCode::NoSuchEntitySet)),
            ("Cell('a')/Box", Err(ErrorCode::UnknownUri)),
        ] {
            let segments: Vec<_> = path.split('/').map(decode).collect();
            assert_eq!(unit_action(&segments, "GET"), expected, "{path}");
        }
    }
}
