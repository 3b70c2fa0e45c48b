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

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    const ISSUERS: Issuers<'static> = Issuers {
        cell: Some("https://cell1.unit1.example/"),
        unit: "https://unit1.example/",
        unit_host: "unit1.example",
    };
    const TOKEN: &str = "AR~-LkQm22g006pTA-Btjn_JSggw9-w3PLXDkTqLPKAGHe3DvMNGeD6VipnPrX_e-SIEITFQucLVePBFRsNhwWt_X1DnSeAAW2ziUAS8DlwZos";
    const COOKIE: &str = "1wb2-mQ03cDH_Re3IJr4TU2NJ8FocPofg-RJTT8tghhtStoaI8xTGPEz-DLjiXXVe4--4FawMvu2mn3605T16dq_LgKPujPGZSR1z3EDwBKa48CmyCw56cICIKkw6-tzxKujUvUHnBbMIPM0gn_3BzXerBKYJJVYmKBb4e8qSJJFrsruwFkZ_8sKE98fLhIt6fbRmv53KGA0o_X5YkD1zg";
    const PEER: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";

    fn agreement() -> Agreement {
        let key = Key::new("secret167pm5m4y6".into());
        Agreement { master_token: Some("secret".into()), key, ..Agreement::default() }
    }

    /// A short text for what was read.
    fn seen(principal: &Principal) -> String {
        match principal {
            Principal::UnitMaster => "master".to_owned(),
            Principal::Anonymous => "anonymous".to_owned(),
            Principal::Invalid(code) => code.code().to_owned(),
            Principal::Password(basic) => format!("password {} {}", basic.name, basic.password.expose_secret()),
            Principal::WebToken(token) => format!("web token {}", token.expose_secret()),
            Principal::Known(known) => format!("{:?} {:?}", known.roles, known.scopes),
        }
    }

    fn read_with(agreement: &Agreement, headers: &[(&str, &str)], query: &str) -> String {
        let mut request = TestRequest::default().uri(&format!("/__export{query}"));
        for header in headers {
            request = request.append_header(*header);
        }
        seen(&read(&Incoming::read(&request.to_http_request()), agreement, &ISSUERS, Utc::now()))
    }

    fn authorization(agreement: &Agreement, value: &str) -> String {
        read_with(agreement, &[("Authorization", value)], "?p_cookie_peer=x")
    }

    const ME: &str = r#"Account("me") These(["root"])"#;

    #[test]
    fn the_master_token_is_root_unless_it_asks_for_less() {
        let auth = ("Authorization", "Bearer secret");
        assert_eq!(read_with(&agreement(), &[auth], ""), "master");
        assert_eq!(read_with(&agreement(), &[auth, ("X-Personium-UnitUser", "u")], ""), "master");
        assert_eq!(read_with(&agreement(), &[auth, ("X-Personium-Unit-User", "u")], ""), "None These([])");
        for (token, master) in [("secre", "secret"), ("secrets", "secret"), ("", ""), ("Secret", "secret")] {
            let agreement = Agreement { master_token: Some(master.into()), ..Agreement::default() };
            assert_eq!(authorization(&agreement, &format!("Bearer {token}")), "PR401-AU-0006", "{token:?}, {master:?}");
        }
        assert_eq!(authorization(&Agreement::default(), "Bearer secret"), "PR401-AU-0006");
    }

    #[test]
    fn every_form_has_its_reading() {
        for (value, expected) in [
            ("bearer x", "PR401-AU-0003"),
            ("basic x", "PR401-AU-0003"),
            ("Digest x", "PR401-AU-0003"),
            ("", "PR401-AU-0003"),
            ("Bearer", "PR401-AU-0006"),
            ("Bearer x", "PR401-AU-0006"),
            ("Bearer a.b.c", "PR401-AU-0006"),
            ("Basic", "PR401-AU-0004"),
            ("Basic !!", "PR401-AU-0004"),
            ("Basic bm9jb2xvbg==", "PR401-AU-0004"),
            ("Basic bWU6c2VjcmV0", "password me secret"),
            ("Basic bWU6c2VjcmU", "password me secre"),
            ("Basic bWU6c2VjcmU=", "password me secre"),
        ] {
            assert_eq!(authorization(&agreement(), value), expected, "{value}");
        }
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        assert_eq!(authorization(&agreement(), &basic("m%40e:a+b%3ac:d")), "password m@e a b:c:d");
        let long = format!("Bearer {}", "x".repeat(limits::CREDENTIALS));
        assert_eq!(authorization(&agreement(), &long), "PR401-AU-0006");
    }

    #[test]
    fn tokens_are_read_under_the_units_key_only() {
        assert_eq!(authorization(&agreement(), &format!("Bearer {TOKEN}")), ME);
        assert_eq!(authorization(&agreement(), &format!("Bearer  {TOKEN} ")), ME);
        let without = Agreement { key: None, ..agreement() };
        assert_eq!(authorization(&without, &format!("Bearer {TOKEN}")), "PR401-AU-0006");
    }

    #[test]
    fn a_token_is_a_password_when_that_is_agreed() {
        let agreed = Agreement { basic_tokens: true, web_tokens: true, ..agreement() };
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        for (pair, expected) in [
            (format!("anybody:{TOKEN}"), ME),
            ("x:secret".to_owned(), "master"),
            (":secret".to_owned(), "master"),
            ("x:a.b.c".to_owned(), "web token a.b.c"),
            ("x:secre".to_owned(), "password x secre"),
            ("x:AR~x".to_owned(), "PR401-AU-0006"),
        ] {
            assert_eq!(authorization(&agreed, &basic(&pair)), expected, "{pair}");
        }
        assert_eq!(authorization(&agreement(), &basic("x:secret")), "password x secret");
    }

    #[test]
    fn tokens_of_other_units_are_told_apart() {
        let text = |xml: &str| format!("Bearer {}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(xml));
        let saml = "urn:oasis:names:tc:SAML:2.0:assertion";
        for (xml, expected) in [
            (format!("<?xml version='1.0'?>\n<!-- --><a:Assertion xmlns:a='{saml}' ID='x'>"), "PR401-AU-0008"),
            (format!("<Assertion xmlns='{saml}'/>"), "PR401-AU-0006"),
            ("<Assertion>".to_owned(), "PR401-AU-0006"),
            (format!("<Response xmlns='{saml}'>"), "PR401-AU-0006"),
            (format!("<!DOCTYPE x><Assertion xmlns='{saml}'>"), "PR401-AU-0006"),
            (String::new(), "PR401-AU-0006"),
        ] {
            assert_eq!(authorization(&agreement(), &text(&xml)), expected, "{xml}");
        }
    }

    #[test]
    fn a_cookie_needs_its_peer_and_its_host() {
        let cookie = format!("a=b; p_cookie={COOKIE}; c=d");
        let with = |host: &str, cookie: &str, query: &str| {
            read_with(&agreement(), &[("Host", host), ("Cookie", cookie)], query)
        };
        let query = format!("?x=y&p_cookie_peer={PEER}");
        for host in ["cell1.unit1.example", "cell1.unit1.example:8443"] {
            assert_eq!(with(host, &cookie, &query), ME);
        }
        for (host, cookie, query) in [
            ("cell1.unit2.example", cookie.as_str(), query.as_str()),
            ("cell1.unit1.example", &cookie, "?p_cookie_peer=0f8fad5b-d9cb-469f-a165-70867728950f"),
            ("cell1.unit1.example", &cookie[..40], &query),
            ("cell1.unit1.example", "p_cookie=", &query),
            ("cell1.unit1.example", "", &query),
        ] {
            assert_eq!(with(host, cookie, query), "PR401-AU-0009", "{host} {cookie} {query}");
        }
        for query in ["", "?p_cookie_peer=", "?p_cookie_peer", "?P_COOKIE_PEER=x"] {
            assert_eq!(with("cell1.unit1.example", &cookie, query), "anonymous", "{query}");
        }
        let key = agreement().key.expect("set above");
        let without_tab = key.encrypt(&cipher::iv_of_cookie("h"), b"no tab");
        assert_eq!(with("h", &format!("p_cookie={without_tab}"), "?p_cookie_peer=no"), "PR401-AU-0009");
        let of_master = key.encrypt(&cipher::iv_of_cookie("h"), b"p\tsecret");
        assert_eq!(with("h", &format!("p_cookie={of_master}"), "?p_cookie_peer=p"), "master");
    }

    #[test]
    fn an_authorization_decides_alone() {
        let headers =
            [("Host", "cell1.unit1.example"), ("Cookie", &*format!("p_cookie={COOKIE}")), ("Authorization", "x")];
        let query = format!("?p_cookie_peer={PEER}");
        assert_eq!(read_with(&agreement(), &headers[..2], &query), ME);
        assert_eq!(read_with(&agreement(), &headers, &query), "PR401-AU-0003");
    }
}
