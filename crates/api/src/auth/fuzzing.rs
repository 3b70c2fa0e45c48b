//! For the fuzz target of credentials: what must hold whatever somebody shows.

use actix_web::http::Uri;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::test::TestRequest;
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use chrono::Utc;

use super::cipher::{self, Iv, Key};
use super::credentials::{self, Agreement};
use super::token::{self, Issuers, Token};
use super::{Known, Principal, Roles};
use crate::common::incoming::Incoming;

const HOST: &str = "cell1.unit1.example";
const CELL: &str = "https://cell1.unit1.example/";
const ISSUERS: Issuers<'static> =
    Issuers { cell: Some(CELL), unit: "https://unit1.example/", unit_host: "unit1.example" };
/// For tokens of old these have the same vectors.
const OTHERS: Issuers<'static> = Issuers {
    cell: Some("https://another-cell1.unit1.example/"),
    unit: "https://another-unit1.example/",
    unit_host: "unit1.example123",
};
const MASTER: &str = "master-token";

fn key(text: &str) -> Key {
    Key::new(text.into()).expect("sixteen bytes")
}

fn ours() -> Key {
    key("secret167pm5m4y6")
}

/// Reads the credentials of a request.
pub(crate) fn request(authorization: &[u8], cookie: &[u8], query: &str) {
    judge(principal("authorization", authorization, query), shows_master_token(authorization));
    judge(principal("cookie", cookie, query), false);
    // What is in a cookie, before it is encrypted.
    let encrypted = ours().encrypt(&cipher::iv_of_cookie(HOST), cookie);
    let master = cookie.ends_with(format!("\t{MASTER}").as_bytes());
    judge(principal("cookie", format!("p_cookie={encrypted}").as_bytes(), query), master);
}

/// Reads a token, as text and as what is in one before it is encrypted.
pub(crate) fn token(text: &str) {
    read(text);
    show(text);
    // What can be read of a token whoever issued it.
    show(&format!("AR~{}", ours().encrypt(&[0; 16], text.as_bytes())));
    for (prefix, iv) in vectors() {
        let text = format!("{prefix}{}", ours().encrypt(&iv, text.as_bytes()));
        judge(principal("authorization", format!("Bearer {text}").as_bytes(), ""), false);
        read(&text);
    }
}

/// Every form of a token that is encrypted under an issuer.
fn vectors() -> Vec<(&'static str, Iv)> {
    let (cell, old) = (cipher::iv(CELL), cipher::iv_of_old(CELL));
    let mut vectors: Vec<_> = ["AR~", "AV~", "AP~", "RR~", "RV~", "GC~"].map(|prefix| (prefix, cell)).into();
    vectors.extend(["AR~", "AV~", "AA~", "AL~"].map(|prefix| (prefix, old)));
    vectors.push(("AU~", cipher::iv(ISSUERS.unit)));
    vectors.push(("AU~", cipher::iv_of_old_unit_users(ISSUERS.unit_host)));
    vectors
}

/// Who is asking with this one header field; nobody when it cannot be sent.
fn principal(name: &'static str, value: &[u8], query: &str) -> Option<Principal> {
    let agreement = Agreement {
        master_token: Some(MASTER.into()),
        key: Some(ours()),
        of_old: true,
        basic_tokens: true,
        web_tokens: true,
    };
    let value = HeaderValue::from_bytes(value).ok()?;
    let uri = format!("/__export?{query}");
    uri.parse::<Uri>().ok()?;
    let request = TestRequest::default()
        .uri(&uri)
        .insert_header((HeaderName::from_static("host"), HeaderValue::from_static(HOST)))
        .insert_header((HeaderName::from_static(name), value))
        .to_http_request();
    Some(credentials::read(&Incoming::read(&request), &agreement, &ISSUERS, Utc::now()))
}

fn judge(principal: Option<Principal>, master: bool) {
    match principal {
        Some(Principal::UnitMaster) => assert!(master, "the unit master by chance"),
        Some(Principal::Known(Known { roles, .. })) => match roles {
            Roles::None => {}
            Roles::Account(name) => assert!(!name.is_empty() && !name.contains(char::is_control), "{name:?}"),
            Roles::Urls(urls) => assert!(urls.iter().all(|url| url.contains("/__role/")), "{urls:?}"),
        },
        Some(Principal::Anonymous | Principal::Invalid(_) | Principal::Password(_) | Principal::WebToken(_)) | None => {
        }
    }
}

/// Tells whether a header field shows the master token, alone or as a password.
fn shows_master_token(authorization: &[u8]) -> bool {
    let text = String::from_utf8_lossy(authorization);
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let decode = |text: &str| GeneralPurpose::new(&STANDARD, config).decode(text.trim()).ok();
    match text.trim_start().strip_prefix("Basic") {
        Some(encoded) => decode(encoded).is_some_and(|pair| pair.ends_with(format!(":{MASTER}").as_bytes())),
        None => text.trim_start().strip_prefix("Bearer").is_some_and(|rest| rest.trim() == MASTER),
    }
}

/// A token of today has one text, in either alphabet, and nobody but its issuer under its key can read one.
fn read(text: &str) {
    let key = ours();
    let today = Token::read(text, &key, &ISSUERS, false);
    if let Some(token) = &today {
        let bytes = |text: &str| token::split(text).and_then(|(_, rest)| cipher::decode(rest));
        assert_eq!(bytes(&token.write(&key)), bytes(text), "{text}: {token:?}");
    }
    let read = Token::read(text, &key, &ISSUERS, true);
    assert!(today.is_none() || today == read, "{text}: {today:?}, {read:?}");
    if let Some(token) = read {
        let another = self::key("another secret16");
        assert_eq!(Token::read(text, &key, &OTHERS, true), None, "{text}: issued by somebody else");
        assert_eq!(Token::read(text, &another, &ISSUERS, true), None, "{text}: under another key");
        write(token);
        show(text);
    }
}

/// Reads a token whoever issued it.
fn show(text: &str) {
    if let Some(token) = Token::read_any(text, &ours()) {
        write(token);
    }
}

/// What was read is written so that it reads the same. Tokens of old are written like those of today, which have scopes.
fn write(token: Token) {
    let is_word = |text: &String| !text.is_empty() && !text.contains(' ');
    assert!(token.scopes.iter().flatten().all(is_word) && token.roles().iter().all(is_word), "{token:?}");
    let text = token.write(&ours());
    let issuers = Issuers { cell: Some(&token.issuer), unit: &token.issuer, unit_host: "" };
    let expected = Token { scopes: token.scopes.clone().or(Some(Vec::new())), ..token.clone() };
    assert_eq!(Token::read(&text, &ours(), &issuers, false), Some(expected), "{text}");
}
