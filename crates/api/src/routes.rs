//! The one route table: which cell and resource a URL names, and which methods a resource has.

use model::cell::CellName;
use model::error_code::ErrorCode;
use model::settings::UnitSettings;
use percent_encoding::percent_decode_str;

use crate::common::incoming::Incoming;
use crate::error::ApiError;

/// A resource of a cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Resource {
    /// `__export`
    Export,
    /// `__import`
    Import,
    /// `__snapshot`
    Area,
    /// `__snapshot/{file}`, the name decoded. It may be any text; it never becomes a path.
    File(String),
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Get,
    Head,
    Post,
    Propfind,
    Options,
    /// Exists in Personium, not here yet; told so once the caller is known.
    Absent,
    /// Exists in no Personium; told so at once.
    NotImplemented,
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// The cell; nothing when no cell can have the name in the URL.
    pub(crate) cell: Option<CellName>,
    /// The cell's name as the URL has it.
    pub(crate) segments: Vec<String>,
}

/// Finds the cell and the path below it.
///
/// # Errors
/// 400 when the URL is for another authority, or has the form that is switched off.
pub(crate) fn target(request: &Incoming, unit: &UnitSettings) -> Result<Target, ApiError> {
    let path = request.path.strip_prefix('/').unwrap_or(&request.path);
    // One trailing slash names the same resource.
    let path = path.strip_suffix('/').unwrap_or(path);
    let mut segments: Vec<&str> = if path.is_empty() { Vec::new() } else { path.split('/').collect() };
    let authority = unit.authority();
    let is_unit = |given: &str| given.eq_ignore_ascii_case(&authority);
    let cell = if unit.path_based {
        if !is_unit(&request.authority) {
            return Err(wrong_authority(&request.authority, &authority));
        }
        if segments.is_empty() {
            return Err(ErrorCode::UnknownUri.into());
        }
        decode(segments.remove(0))
    } else {
        if is_unit(&request.authority) {
            return Err(ErrorCode::PathBasedUrl.into());
        }
        let label = request.raw_authority.split('.').next().unwrap_or_default();
        let rest = request.authority.strip_prefix(label).and_then(|rest| rest.strip_prefix('.'));
        if label.is_empty() || !rest.is_some_and(is_unit) {
            return Err(wrong_authority(&request.authority, &format!("{authority}, *.{authority}")));
        }
        label.to_owned()
    };
    Ok(Target { cell: CellName::parse(&cell), segments: segments.into_iter().map(decode).collect() })
}

/// Finds the resource below a cell.
pub(crate) fn resource(segments: &[String]) -> Result<Resource, ErrorCode> {
    match segments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["__export"] => Ok(Resource::Export),
        ["__import"] => Ok(Resource::Import),
        ["__snapshot"] => Ok(Resource::Area),
        ["__snapshot", file] => Ok(Resource::File(file.to_owned())),
        _ => Err(ErrorCode::UnknownUri),
    }
}

/// Finds what a method means for a resource. Methods are case-sensitive.
pub(crate) fn action(resource: &Resource, method: &str) -> Result<Action, ErrorCode> {
    match (resource, method) {
        (_, "OPTIONS") => Ok(Action::Options),
        (Resource::Export | Resource::Import | Resource::File(_), "GET") => Ok(Action::Get),
        (Resource::Export | Resource::Import | Resource::File(_), "HEAD") => Ok(Action::Head),
        (Resource::Export, "POST") => Ok(Action::Post),
        (Resource::Import, "POST") | (Resource::File(_), "PUT" | "DELETE") => Ok(Action::Absent),
        (Resource::Area | Resource::File(_), "PROPFIND") => Ok(Action::Propfind),
        (Resource::File(_), "REPORT") => Ok(Action::NotImplemented),
        (Resource::Export | Resource::Import | Resource::Area | Resource::File(_), _) => {
            Err(ErrorCode::MethodNotAllowed)
        }
    }
}

/// What OPTIONS says of a resource.
pub(crate) fn allowed(resource: &Resource) -> &'static str {
    match resource {
        Resource::Export | Resource::Import => "OPTIONS, GET, POST",
        Resource::Area => "OPTIONS, PROPFIND",
        Resource::File(_) => "OPTIONS, GET, PUT, DELETE, PROPFIND",
    }
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

    #[test]
    fn resources_have_the_methods_of_the_contract() {
        let file = || Resource::File("a.zip".to_owned());
        for (resource, method, expected) in [
            (Resource::Export, "GET", Ok(Action::Get)),
            (Resource::Export, "get", Err(ErrorCode::MethodNotAllowed)),
            (Resource::Export, "PROPFIND", Err(ErrorCode::MethodNotAllowed)),
            (Resource::Area, "PROPFIND", Ok(Action::Propfind)),
            (Resource::Area, "GET", Err(ErrorCode::MethodNotAllowed)),
            (Resource::Area, "REPORT", Err(ErrorCode::MethodNotAllowed)),
            (file(), "REPORT", Ok(Action::NotImplemented)),
            (file(), "PUT", Ok(Action::Absent)),
            (file(), "POST", Err(ErrorCode::MethodNotAllowed)),
        ] {
            assert_eq!(action(&resource, method), expected, "{method} {resource:?}");
        }
    }

    #[test]
    fn a_separator_that_was_encoded_stays_within_its_name() {
        assert_eq!(decode("..%2f..%2Fetc"), "../../etc");
        let segments = ["__snapshot".to_owned(), decode("a%2Fb.zip")];
        assert_eq!(resource(&segments), Ok(Resource::File("a/b.zip".to_owned())));
        let segments = ["__snapshot", "..", "x"].map(str::to_owned);
        assert_eq!(resource(&segments), Err(ErrorCode::UnknownUri));
    }
}
