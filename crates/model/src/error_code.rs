//! The one table of error codes, and the error document made from it.
//!
//! Codes and texts are Personium's (error-message page of its API reference) where it has one for the case;
//! codes with the category `EX`, and PR503-SV-0006, are this service's own.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::limits;

macro_rules! error_codes {
    ($($(#[$doc:meta])* $variant:ident = $status:literal $code:literal $text:literal;)*) => {
        /// Everything that can go wrong, as clients see it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorCode { $($(#[$doc])* #[doc = concat!("\n\n`", $code, "` ", $text)] $variant,)* }

        impl ErrorCode {
            /// Every code, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The code, `PRsss-CC-nnnn`.
            pub fn code(self) -> &'static str { match self { $(Self::$variant => $code,)* } }

            /// The HTTP status it is answered with.
            pub fn status(self) -> u16 { match self { $(Self::$variant => $status,)* } }

            /// The message, `{0}` and `{1}` standing for its parameters.
            pub fn text(self) -> &'static str { match self { $(Self::$variant => $text,)* } }
        }
    };
}

error_codes! {
    /// A field of the body is missing.
    RequiredKey = 400 "PR400-CM-0001" "Required key [{0}] missing.";
    /// A field does not follow its pattern.
    FieldFormat = 400 "PR400-CM-0002" "Field [{0}] format error. Must be [{1}].";
    /// The body is no JSON object.
    JsonParse = 400 "PR400-CM-0004" "JSON parse error. [{0}].";
    /// The request is for another authority.
    UrlAuthority = 400 "PR400-CM-0005" "Invalid URL authority [{0}]. This unit is configured for URL authority [{1}]";
    /// The body is no `propfind` document.
    XmlParse = 400 "PR400-DV-0001" "XML parse error.";
    /// An entry that a snapshot must have is not there.
    SnapshotEntryMissing = 400 "PR400-MC-0001" "[{0}] does not exist in the snapshot file.";
    /// The snapshot's version is none that can be read.
    SnapshotVersion = 400 "PR400-MC-0003" "Version of the snapshot file is invalid. Expected [{0}] but was [{1}].";
    /// The snapshot is no zip.
    SnapshotNotZip = 400 "PR400-MC-0004" "The specified snapshot file is not zip file.";
    /// The snapshot has another fault: entry, line and what is wrong.
    SnapshotFaulty = 400 "PR400-EX-0001" "The snapshot file is faulty. [{0}].";
    /// `Depth` is missing or unknown.
    Depth = 400 "PR400-DV-0003" "Invalid depth header value:[{0}].";
    /// The cell holds as many snapshots as it may.
    TooManyChildren = 400 "PR400-DV-0007" "Cannot add any more child resources.";
    /// `X-Personium-RequestKey` does not follow its pattern.
    RequestKey = 400 "PR400-EV-0002" "Request header is invalid [X-Personium-RequestKey].";
    /// A path-based cell URL where cells have host names.
    PathBasedUrl = 400 "PR400-MC-0002" "Path based CellUrl access is not allowed.";
    /// The body of a unit control request is no JSON object.
    ODataJson = 400 "PR400-OD-0001" "JSON parse error.";
    /// A key like `('name')` cannot be read.
    ODataKey = 400 "PR400-OD-0004" "OData EntityKey Parse error.";
    /// A field of an entity does not follow its rule.
    ODataField = 400 "PR400-OD-0006" "request body format error. field [{0}]";
    /// A field of an entity is missing.
    ODataRequired = 400 "PR400-OD-0009" "[{0}] is required.";
    /// A field that no such entity has.
    ODataUnknownField = 400 "PR400-OD-0007" "[{0}]";
    /// `$top` or `$skip` is no number, or too large.
    ODataQuery = 400 "PR400-OD-0029" "Query value [{0}]=[{1}] is invalid.";
    /// A header's value cannot be read.
    HeaderValue = 400 "PR400-OD-0041" "Request header {0} value is invalid [{1}].";
    /// No credentials.
    AuthorizationRequired = 401 "PR401-AU-0001" "Authorization required.";
    /// A token past its life.
    TokenExpired = 401 "PR401-AU-0002" "Access token expired.";
    /// A scheme other than Basic and Bearer.
    AuthenticationScheme = 401 "PR401-AU-0003" "Invalid authentication scheme.";
    /// Basic credentials that cannot be read.
    BasicFormat = 401 "PR401-AU-0004" "Basic auth format error.";
    /// A token that cannot be read.
    TokenParse = 401 "PR401-AU-0006" "Token parse error.";
    /// A refresh token, which opens nothing.
    RefreshToken = 401 "PR401-AU-0007" "Can not access with refresh token.";
    /// A signed token whose signature is not accepted.
    TokenSignature = 401 "PR401-AU-0008" "Token dsig error.";
    /// Cookie credentials that do not fit.
    CookieAuthentication = 401 "PR401-AU-0009" "Authentication failed.";
    /// A password that comes too soon after a wrong one.
    BasicTooSoon = 401 "PR401-AU-0010" "Authentication failed.";
    /// Basic credentials that do not fit.
    BasicAuthentication = 401 "PR401-AU-0011" "Authentication failed.";
    /// Only unit users may do this, and today only the unit master.
    UnitUserRequired = 403 "PR403-AU-0001" "Unit user access required.";
    /// Known, but not allowed.
    PrivilegeLacking = 403 "PR403-AU-0002" "Necessary privilege is lacking.";
    /// The token was not given for this.
    ScopeLacking = 403 "PR403-AU-0007" "Insufficient scope is granted for the access token. [{0}] Privilege is required.";
    /// `Depth: infinity`.
    InfiniteDepth = 403 "PR403-DV-0001" "Infinite depth is not supported.";
    /// No such file.
    NotFound = 404 "PR404-DV-0001" "Resource not found. [{0}].";
    /// No such entity set.
    NoSuchEntitySet = 404 "PR404-OD-0001" "No such entity set.";
    /// No such entity.
    NoSuchEntity = 404 "PR404-OD-0002" "No such entity.";
    /// No such cell.
    CellNotFound = 404 "PR404-DV-0003" "Cell not found.";
    /// No such resource.
    UnknownUri = 404 "PR404-MC-0001" "URI is not recognized.";
    /// The cell has no such job.
    JobNotFound = 404 "PR404-EX-0001" "The cell has no such job.";
    /// The resource does not have this method.
    MethodNotAllowed = 405 "PR405-MC-0001" "Method not allowed.";
    /// `Accept` cannot be read.
    NotAcceptable = 406 "PR406-CM-0001" "Requested media type [{0}] is not acceptable.";
    /// The body did not arrive in time.
    BodyTimeout = 408 "PR408-EX-0001" "The request body did not arrive in time.";
    /// Another job of the cell is active.
    CellBusy = 409 "PR409-CM-0002" "Because [{0}] is being executed, writing to cell can not be done.";
    /// The name is taken.
    FileExists = 409 "PR409-DV-0002" "File [{0}] already exists.";
    /// The snapshot was replaced while it was being looked at.
    CellInUse = 409 "PR409-MC-0001" "Cell to be processed is being accessed by other requests.";
    /// A cell of that name exists.
    EntityExists = 409 "PR409-OD-0003" "The entity already exists.";
    /// The job was cancelled.
    Cancelled = 409 "PR409-EX-0001" "The {0} was cancelled.";
    /// The job to cancel has ended.
    JobEnded = 409 "PR409-EX-0002" "The job has {0} and cannot be cancelled any more.";
    /// `If-Match` or `If-None-Match` does not hold.
    EtagMismatch = 412 "PR412-DV-0001" "ETag does not match.";
    /// The body is longer than allowed.
    BodyTooLarge = 413 "PR413-EX-0001" "The request body is longer than {0} bytes.";
    /// The body's character encoding is unknown.
    MediaType = 415 "PR415-MC-0001" "Unsupported media type.";
    /// None of the requested ranges lies in the file.
    RangeNotSatisfiable = 416 "PR416-DV-0001" "Requested range not satisfiable.";
    /// An `Idempotency-Key` was used before, with another body.
    KeyReused = 422 "PR422-EX-0001" "The Idempotency-Key [{0}] was used for another request.";
    /// The connection broke while the body was read.
    BodyRead = 500 "PR500-CM-0001" "Failed to load the request body for some reason.";
    /// Reading or writing a file failed.
    FilesIo = 500 "PR500-CM-0002" "Files I/O error caused [{0}] to fail.";
    /// What the file tree says does not fit together.
    FileSystemInconsistent = 500 "PR500-DV-0001" "File system inconsistency detected.";
    /// A node's metadata cannot be read.
    DavInconsistent = 500 "PR500-DV-0002" "Dav system inconsistency detected.";
    /// A fault of the service itself.
    Unknown = 500 "PR500-SV-0000" "Unknown error.";
    /// The database went away.
    DatastoreConnection = 500 "PR500-SV-0001" "Datastore connection error.";
    /// The database refused.
    DatastoreUnknown = 500 "PR500-SV-0002" "Datastore unknown error.";
    /// The method exists in Personium but not here.
    NotImplemented = 501 "PR501-MC-0001" "Method not implemented.";
    /// The file is listed but its bytes cannot be had.
    FileUnavailable = 503 "PR503-DV-0001" "Failed to access the target resource due to concurrent update/delete operation by another process.";
    /// A job was interrupted more often than allowed.
    Interrupted = 503 "PR503-EX-0001" "The {0} was interrupted {1} times and given up.";
    /// A job did not finish before its deadline.
    Deadline = 503 "PR503-EX-0002" "The {0} did not finish in time.";
    /// The keys that a signed token is verified with are not there.
    KeysUnavailable = 503 "PR503-EX-0003" "The keys of the token's issuer are not available now.";
    /// Too many requests of a costly kind at once.
    TooManyRequests = 503 "PR503-SV-0001" "Too many concurrent requests.";
    /// No space.
    DiskFull = 503 "PR503-SV-0005" "Operation is prohibited as one or more disks are almost full.";
    /// The database does not answer now.
    DatastoreUnavailable = 503 "PR503-SV-0006" "The datastore does not answer. Try again later.";
    /// The cell's snapshots would take more than its quota.
    QuotaExceeded = 507 "PR507-EX-0001" "The snapshots of the cell may take {0} bytes.";
}

impl ErrorCode {
    /// Returns the error document, the parameters put into the message.
    ///
    /// Control characters become visible escapes, so that a message is always one line.
    pub fn with(self, parameters: &[&str]) -> ErrorBody {
        let mut value = String::new();
        let mut rest = self.text();
        while let Some(at) = rest.find('{') {
            value.push_str(&rest[..at]);
            let number = rest[at + 1..].find('}').and_then(|end| rest[at + 1..at + 1 + end].parse::<usize>().ok());
            match number {
                Some(n) => value.push_str(parameters.get(n).copied().unwrap_or_default()),
                None => value.push('{'),
            }
            rest = match number {
                Some(n) => &rest[at + 2 + n.to_string().len()..],
                None => &rest[at + 1..],
            };
        }
        value.push_str(rest);
        ErrorBody::new(self.code(), &value)
    }

    /// Returns the error document of a message without parameters.
    pub fn body(self) -> ErrorBody {
        self.with(&[])
    }
}

/// The document of every error answer and of every `NAME.error`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorBody {
    /// `PRsss-CC-nnnn`.
    pub code: String,
    /// The message.
    pub message: ErrorMessage,
}

/// A message and its language.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorMessage {
    /// Always `en`.
    pub lang: String,
    /// The text.
    pub value: String,
}

impl ErrorBody {
    fn new(code: &str, text: &str) -> Self {
        let mut value = String::with_capacity(text.len());
        for c in text.chars() {
            match c {
                '\u{0}'..='\u{1f}' | '\u{7f}' => value.push_str(&format!("\\u{:04X}", c as u32)),
                c => value.push(c),
            }
        }
        Self { code: code.to_owned(), message: ErrorMessage { lang: "en".to_owned(), value } }
    }

    /// The document for a `NAME.error`: the text cut to [`limits::ERROR_TEXT`] characters.
    pub fn for_file(mut self) -> Self {
        if let Some((at, _)) = self.message.value.char_indices().nth(limits::ERROR_TEXT) {
            self.message.value.truncate(at);
        }
        self
    }

    /// The document as JSON on one line.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("two strings in a struct are always JSON")
    }

    /// Reads a document; nothing when the text is none.
    pub fn from_json(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

impl fmt::Display for ErrorBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.message.value)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_code_is_unique_well_formed_and_carries_its_status() {
        let mut seen = HashSet::new();
        for code in ErrorCode::ALL {
            let text = code.code();
            assert!(seen.insert(text), "{text} stands twice");
            let parts: Vec<_> = text.split('-').collect();
            assert_eq!(parts.len(), 3, "{text}");
            assert_eq!(parts[0], format!("PR{}", code.status()), "{text}");
            assert!(parts[1].len() == 2 && parts[1].bytes().all(|b| b.is_ascii_uppercase()), "{text}");
            assert!(parts[2].len() == 4 && parts[2].bytes().all(|b| b.is_ascii_digit()), "{text}");
        }
    }

    #[test]
    fn parameters_go_where_they_belong_and_stay_as_they_are() {
        let body = ErrorCode::FieldFormat.with(&["Name", "^[{0}]{1,192}$"]);
        assert_eq!(body.message.value, "Field [Name] format error. Must be [^[{0}]{1,192}$].");
    }

    #[test]
    fn control_characters_become_visible() {
        let body = ErrorCode::JsonParse.with(&["a\nb\u{7f}"]);
        assert_eq!(
            body.to_json(),
            r#"{"code":"PR400-CM-0004","message":{"lang":"en","value":"JSON parse error. [a\\u000Ab\\u007F]."}}"#
        );
    }

    #[test]
    fn the_text_of_an_error_file_is_bounded() {
        let body = ErrorCode::FilesIo.with(&["é".repeat(1000).as_str()]).for_file();
        assert_eq!(body.message.value.chars().count(), limits::ERROR_TEXT);
        assert_eq!(ErrorBody::from_json(&body.to_json()), Some(body));
    }
}
