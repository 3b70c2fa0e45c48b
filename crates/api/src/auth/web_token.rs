//! JSON Web Tokens of an OpenID Connect issuer (RFC 7519): an extension, off unless an issuer is set.
//!
//! A claim names cells and privileges: `https://cell1.unit1.example/#root`, one or more, in a list or between spaces.

use std::collections::HashMap;
use std::sync::Arc;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation};
use model::error_code::ErrorCode;
use model::limits;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::directory::ROOT;
use super::key_set::{KeySet, KeySource, NoKeys};

/// Whose tokens are accepted, and how.
#[derive(Debug, Clone)]
pub struct WebTokenSettings {
    /// The claim `iss` has to be this.
    pub issuer: String,
    /// The claim `aud` has to hold this.
    pub audience: String,
    /// Where the issuer's keys are.
    pub keys: KeySource,
    /// Accepted algorithms, none of them with shared secrets.
    pub algorithms: Vec<Algorithm>,
    /// Name of the claim that names cells and privileges.
    pub claim: String,
}

/// Verifies tokens of one issuer.
pub(crate) struct WebTokens {
    keys: Arc<KeySet>,
    issuer: String,
    audience: String,
    claim: String,
}

/// Why a token was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It is not valid, for this reason.
    Invalid(ErrorCode),
    /// Nobody can tell now.
    Unknown,
}

impl From<NoKeys> for Refused {
    fn from(_: NoKeys) -> Self {
        Self::Unknown
    }
}

impl WebTokens {
    pub(crate) fn new(settings: WebTokenSettings) -> Self {
        let WebTokenSettings { issuer, audience, keys, algorithms, claim } = settings;
        Self { keys: KeySet::new(keys, algorithms), issuer, audience, claim }
    }

    /// Tells whether a text has the form of a signed token.
    pub(crate) fn looks_like_one(text: &str) -> bool {
        text.split('.').count() == 3
    }

    /// Verifies a token and tells whether it gives everything with the cell.
    pub(crate) async fn gives_root(&self, token: &SecretString, cell_url: &str) -> Result<bool, Refused> {
        let token = token.expose_secret();
        let unreadable = Refused::Invalid(ErrorCode::TokenParse);
        let header = jsonwebtoken::decode_header(token).map_err(|_| unreadable)?;
        if header.crit.is_some() {
            // RFC 7515, section 4.1.11: what the token says must be understood, and nothing of the kind is here.
            return Err(unreadable);
        }
        let Some(key) = self.keys.find(header.kid.as_deref()).await? else {
            return Err(Refused::Invalid(ErrorCode::TokenSignature));
        };
        // The algorithm is the key's. What the token's header says has to agree, and decides nothing.
        let mut validation = Validation::new(key.algorithm);
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&[&self.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.leeway = limits::CLOCK_LEEWAY.as_secs();
        validation.validate_nbf = true;
        let claims: HashMap<String, Value> = jsonwebtoken::decode(token, &key.key, &validation)
            .map_err(|error| Refused::Invalid(reason(error.kind())))?
            .claims;
        let given = claims.get(&self.claim).map(words).unwrap_or_default();
        Ok(given
            .into_iter()
            .any(|word| word.strip_suffix(ROOT).and_then(|url| url.strip_suffix('#')) == Some(cell_url)))
    }
}

fn words(claim: &Value) -> Vec<&str> {
    match claim {
        Value::String(text) => text.split(' ').collect(),
        Value::Array(texts) => texts.iter().filter_map(Value::as_str).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Vec::new(),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the enum is open; what is not known is no valid token")]
fn reason(kind: &ErrorKind) -> ErrorCode {
    match kind {
        ErrorKind::ExpiredSignature => ErrorCode::TokenExpired,
        ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm => ErrorCode::TokenSignature,
        _ => ErrorCode::TokenParse,
    }
}
