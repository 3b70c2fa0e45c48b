//! Reading credentials. `Authorization` decides alone; a cookie counts only without it.

use actix_web::http::header::HeaderValue;
use chrono::{DateTime, Utc};
use cookie::Cookie;
use model::error_code::ErrorCode;
use model::limits;
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use super::cipher::{self, Key};
use super::passwords::Basic;
use super::token::{self, Issuers, Kind, Token};
use super::web_token::WebTokens;
use super::{Known, Principal, Roles, Scopes};
use crate::common::incoming::Incoming;

/// What the unit has agreed on with those who show credentials.
#[derive(Debug, Clone, Default)]
pub(crate) struct Agreement {
    /// Whoever shows it may do everything.
    pub(crate) master_token: Option<SecretString>,
    /// The key of the unit's own tokens and cookies.
    pub(crate) key: Option<Key>,
    /// Tokens in the forms of earlier versions are accepted.
    pub(crate) of_old: bool,
    /// A token may be sent as the password of Basic credentials.
    pub(crate) basic_tokens: bool,
    /// Tokens of an OpenID Connect issuer are accepted.
    pub(crate) web_tokens: bool,
}

/// Finds out who is asking, as far as the request tells.
pub(crate) fn read(request: &Incoming, agreement: &Agreement, issuers: &Issuers<'_>, now: DateTime<Utc>) -> Principal {
    let reader = Reader { request, agreement, issuers, now: now.timestamp_millis() };
    match request.headers.get("authorization") {
        Some(value) => reader.authorization(value),
        None => reader.cookie(),
    }
}

struct Reader<'a> {
    request: &'a Incoming,
    agreement: &'a Agreement,
    issuers: &'a Issuers<'a>,
    now: i64,
}

impl Reader<'_> {
    fn authorization(&self, value: &HeaderValue) -> Principal {
        if value.len() > limits::CREDENTIALS {
            return Principal::Invalid(ErrorCode::TokenParse);
        }
        let value = String::from_utf8_lossy(value.as_bytes());
        if let Some(encoded) = value.strip_prefix("Basic") {
            return self.basic(encoded);
        }
        match value.strip_prefix("Bearer ") {
            Some(token) => self.bearer(token.trim()),
            None if value.starts_with("Bearer") => Principal::Invalid(ErrorCode::TokenParse),
            None => Principal::Invalid(ErrorCode::AuthenticationScheme),
        }
    }

    fn basic(&self, encoded: &str) -> Principal {
        let Some(basic) = Basic::parse(encoded) else { return Principal::Invalid(ErrorCode::BasicFormat) };
        let token = basic.verbatim.expose_secret();
        if self.agreement.basic_tokens && (self.is_master(token) || self.has_a_form(token)) {
            return self.bearer(token);
        }
        match self.issuers.cell {
            Some(_) => Principal::Password(basic),
            // The unit itself has no accounts.
            None => Principal::Invalid(ErrorCode::BasicAuthentication),
        }
    }

    fn has_a_form(&self, token: &str) -> bool {
        token::split(token).is_some()
            || (self.agreement.of_old && token::is_of_old(token))
            || (self.agreement.web_tokens && WebTokens::looks_like_one(token))
    }

    fn is_master(&self, token: &str) -> bool {
        let master = self.agreement.master_token.as_ref().map(ExposeSecret::expose_secret);
        master
            .filter(|master| !master.is_empty())
            .is_some_and(|master| master.as_bytes().ct_eq(token.as_bytes()).into())
    }

    fn bearer(&self, token: &str) -> Principal {
        if self.is_master(token) {
            return match self.request.headers.contains_key("x-personium-unit-user") {
                false => Principal::UnitMaster,
                true => Principal::Known(Known { roles: Roles::None, scopes: Scopes::These(Vec::new()) }),
            };
        }
        if self.agreement.of_old && token::is_refresh_of_old(token) {
            return Principal::Invalid(ErrorCode::RefreshToken);
        }
        let local = || Token::read(token, self.agreement.key.as_ref()?, self.issuers, self.agreement.of_old);
        if let Some(token) = local() {
            return self.local(token);
        }
        if self.agreement.web_tokens && WebTokens::looks_like_one(token) {
            return Principal::WebToken(token.into());
        }
        // Whoever has a token of another unit learns that its signature is not accepted here.
        match token::split(token).is_none() && is_assertion(token) {
            true => Principal::Invalid(ErrorCode::TokenSignature),
            false => Principal::Invalid(ErrorCode::TokenParse),
        }
    }

    fn local(&self, token: Token) -> Principal {
        match token.kind {
            Kind::ResidentRefresh | Kind::VisitorRefresh => return Principal::Invalid(ErrorCode::RefreshToken),
            _ if token.is_expired(self.now) => return Principal::Invalid(ErrorCode::TokenExpired),
            Kind::GrantCode => return Principal::Invalid(ErrorCode::TokenParse),
            Kind::Resident | Kind::Visitor | Kind::UnitUser | Kind::PasswordChange => {}
        }
        let roles = match token.kind {
            Kind::Visitor => Roles::Urls(token.roles()),
            Kind::Resident => Roles::Account(token.subject),
            Kind::UnitUser | Kind::PasswordChange | Kind::ResidentRefresh | Kind::VisitorRefresh | Kind::GrantCode => {
                Roles::None
            }
        };
        Principal::Known(Known { roles, scopes: token.scopes.map_or(Scopes::All, Scopes::These) })
    }

    /// A cookie alone is nothing: `p_cookie_peer` shows that the page which asks knows more than the browser sends by
    /// itself.
    fn cookie(&self) -> Principal {
        let mut query = form_urlencoded::parse(self.request.query.as_bytes());
        let peer = query.find(|(name, _)| name == "p_cookie_peer").map(|(_, value)| value).filter(|p| !p.is_empty());
        let Some(peer) = peer else { return Principal::Anonymous };
        match self.token_in_cookie(&peer) {
            Some(token) => self.bearer(&token),
            None => Principal::Invalid(ErrorCode::CookieAuthentication),
        }
    }

    fn token_in_cookie(&self, peer: &str) -> Option<String> {
        let mut cookies = self.request.headers.get_all("cookie").filter_map(|value| value.to_str().ok());
        let cookie = cookies.find_map(|line| {
            Cookie::split_parse(line).flatten().find(|cookie| cookie.name() == "p_cookie").map(Cookie::into_owned)
        })?;
        if cookie.value().len() > limits::CREDENTIALS {
            return None;
        }
        let host = self.request.raw_authority.split(':').next().unwrap_or_default();
        let plain = self.agreement.key.as_ref()?.decrypt(&cipher::iv_of_cookie(host), cookie.value())?;
        let (issued_to, token) = plain.split_once('\t')?;
        bool::from(issued_to.as_bytes().ct_eq(peer.as_bytes())).then(|| token.to_owned())
    }
}

/// Tells whether a text is a SAML assertion in base64url, the form of tokens between units.
fn is_assertion(text: &str) -> bool {
    let Some(xml) = cipher::decode(text).and_then(|bytes| String::from_utf8(bytes).ok()) else { return false };
    let mut reader = quick_xml::NsReader::from_str(&xml);
    loop {
        match reader.read_resolved_event() {
            Ok((namespace, quick_xml::events::Event::Start(element))) => {
                let saml = "urn:oasis:names:tc:SAML:2.0:assertion";
                let is_saml = matches!(namespace, quick_xml::name::ResolveResult::Bound(ns) if ns.as_ref() == saml);
                return is_saml && element.local_name().as_ref() == "Assertion";
            }
            Ok((_, quick_xml::events::Event::Decl(_) | quick_xml::events::Event::Comment(_))) => {}
            Ok((_, quick_xml::events::Event::Text(text))) if text.bytes().all(|b| b.is_ascii_whitespace()) => {}
            Ok(_) | Err(_) => return false,
        }
    }
}
