//! The one route table: which cell a URL names, and what a method means for the path below it.

use model::cell::CellName;
use model::error_code::ErrorCode;
use model::settings::UnitSettings;
use percent_encoding::percent_decode_str;

use crate::common::incoming::Incoming;
use crate::error::ApiError;

/// What a request asks for. File names are decoded and may be any text; they never become paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// `GET __export`
    ExportStatus,
    /// `POST __export`
    Export,
    /// `GET __import`
    ImportStatus,
    /// `PROPFIND __snapshot`
    ListArea,
    /// `PROPFIND __snapshot/{file}`
    DescribeFile(String),
    /// `GET __snapshot/{file}`
    Download(String),
    /// `HEAD __snapshot/{file}`
    DownloadHead(String),
    /// `OPTIONS` of a resource that always exists, with its methods.
    Options(&'static str),
    /// `OPTIONS __snapshot/{file}`, with its methods.
    FileOptions(String, &'static str),
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
    /// The path below the cell, decoded segment by segment.
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

/// The route table: finds what a method means for the path below a cell. Methods are case-sensitive.
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
        ["__import"] => match method {
            "GET" | "HEAD" => Ok(Action::ImportStatus),
            "POST" => Ok(Action::Absent),
            "OPTIONS" => Ok(Action::Options("OPTIONS, GET, POST")),
            _ => Err(ErrorCode::MethodNotAllowed),
        },
        ["__snapshot"] => match method {
            "PROPFIND" => Ok(Action::ListArea),
            "OPTIONS" => Ok(Action::Options("OPTIONS, PROPFIND")),
            _ => Err(ErrorCode::MethodNotAllowed),
        },
        ["__snapshot", file] => match method {
            "GET" => Ok(Action::Download(file.to_owned())),
            "HEAD" => Ok(Action::DownloadHead(file.to_owned())),
            "PROPFIND" => Ok(Action::DescribeFile(file.to_owned())),
            "PUT" | "DELETE" => Ok(Action::Absent),
            "OPTIONS" => Ok(Action::FileOptions(file.to_owned(), "OPTIONS, GET, PUT, DELETE, PROPFIND")),
            "REPORT" => Ok(Action::NotImplemented),
            _ => Err(ErrorCode::MethodNotAllowed),
        },
        _ => Err(ErrorCode::UnknownUri),
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

    fn routed(path: &str, method: &str) -> Result<Action, ErrorCode> {
        action(&path.split('/').map(decode).collect::<Vec<_>>(), method)
    }

    #[test]
    fn resources_have_the_methods_of_the_contract() {
        for (path, method, expected) in [
            ("__export", "GET", Ok(Action::ExportStatus)),
            ("__export", "get", Err(ErrorCode::MethodNotAllowed)),
            ("__export", "PROPFIND", Err(ErrorCode::MethodNotAllowed)),
            ("__snapshot", "PROPFIND", Ok(Action::ListArea)),
            ("__snapshot", "GET", Err(ErrorCode::MethodNotAllowed)),
            ("__snapshot", "REPORT", Err(ErrorCode::MethodNotAllowed)),
            ("__snapshot/a.zip", "REPORT", Ok(Action::NotImplemented)),
            ("__snapshot/a.zip", "PUT", Ok(Action::Absent)),
            ("__snapshot/a.zip", "POST", Err(ErrorCode::MethodNotAllowed)),
            ("__export/x", "GET", Err(ErrorCode::UnknownUri)),
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
}
