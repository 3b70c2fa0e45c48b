//! Reading credentials. `Authorization` decides alone; a cookie counts only without it.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use model::error_code::ErrorCode;
use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use super::Principal;
use crate::common::incoming::Incoming;

/// Base64 as clients write it, with padding or without.
const BASIC: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Finds out who is asking.
pub(crate) fn parse(request: &Incoming, master_token: Option<&SecretString>) -> Principal {
    let Some(value) = request.headers.get("authorization") else {
        // A cookie alone is ignored; with its peer it is an attempt to authenticate, and no cookie can be read yet.
        return match cookie_peer(&request.query) {
            true => Principal::Invalid(ErrorCode::CookieAuthentication),
            false => Principal::Anonymous,
        };
    };
    let value = String::from_utf8_lossy(value.as_bytes());
    if let Some(encoded) = value.strip_prefix("Basic") {
        return Principal::Invalid(basic(encoded));
    }
    match value.strip_prefix("Bearer ") {
        Some(token) => bearer(token.trim(), master_token, request.header("x-personium-unit-user")),
        None if value.starts_with("Bearer") => Principal::Invalid(ErrorCode::TokenParse),
        None => Principal::Invalid(ErrorCode::AuthenticationScheme),
    }
}

fn bearer(token: &str, master_token: Option<&SecretString>, unit_user: Option<&str>) -> Principal {
    let is_master = master_token
        .map(ExposeSecret::expose_secret)
        .filter(|master| !master.is_empty())
        .is_some_and(|master| bool::from(master.as_bytes().ct_eq(token.as_bytes())));
    match (is_master, unit_user) {
        (true, None) => Principal::UnitMaster,
        (true, Some(user)) => Principal::UnitUser(user.to_owned()),
        // The unit's own tokens are read here once their key is a setting.
        (false, _) => Principal::Invalid(ErrorCode::TokenParse),
    }
}

/// Basic credentials can be well-formed, but never suffice for a cell's own resources.
fn basic(encoded: &str) -> ErrorCode {
    match BASIC.decode(encoded.trim()) {
        Ok(pair) if pair.contains(&b':') => ErrorCode::BasicAuthentication,
        Ok(_) | Err(_) => ErrorCode::BasicFormat,
    }
}

fn cookie_peer(query: &str) -> bool {
    let peer = query.split('&').filter_map(|p| p.split_once('=')).find(|(name, _)| *name == "p_cookie_peer");
    peer.is_some_and(|(_, value)| percent_decode_str(value).next().is_some())
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn principal(headers: &[(&str, &str)], query: &str, master: Option<&str>) -> Principal {
        let mut request = TestRequest::default().uri(&format!("/cell/__export{query}"));
        for header in headers {
            request = request.append_header(*header);
        }
        let master = master.map(SecretString::from);
        parse(&Incoming::read(&request.to_http_request()), master.as_ref())
    }

    #[test]
    fn the_master_token_is_root_unless_it_asks_for_less() {
        let auth = ("Authorization", "Bearer secret");
        assert_eq!(principal(&[auth], "", Some("secret")), Principal::UnitMaster);
        let demoted = principal(&[auth, ("X-Personium-Unit-User", "u")], "", Some("secret"));
        assert_eq!(demoted, Principal::UnitUser("u".to_owned()));
        for (token, master) in [("secre", "secret"), ("secrets", "secret"), ("", ""), ("Secret", "secret")] {
            let header = format!("Bearer {token}");
            let got = principal(&[("Authorization", &header)], "", Some(master));
            assert_eq!(got, Principal::Invalid(ErrorCode::TokenParse), "{token:?} against {master:?}");
        }
        assert_eq!(principal(&[auth], "", None), Principal::Invalid(ErrorCode::TokenParse));
    }

    #[test]
    fn everything_else_has_its_reason() {
        for (value, reason) in [
            ("bearer x", ErrorCode::AuthenticationScheme),
            ("Digest x", ErrorCode::AuthenticationScheme),
            ("Bearer", ErrorCode::TokenParse),
            ("Bearer x", ErrorCode::TokenParse),
            ("Basic", ErrorCode::BasicFormat),
            ("Basic !!", ErrorCode::BasicFormat),
            ("Basic bm9jb2xvbg==", ErrorCode::BasicFormat),
            ("Basic bWU6c2VjcmV0", ErrorCode::BasicAuthentication),
            ("Basic bWU6c2VjcmU", ErrorCode::BasicAuthentication),
            ("Basic bWU6c2VjcmU=", ErrorCode::BasicAuthentication),
        ] {
            let got = principal(&[("Authorization", value)], "?p_cookie_peer=x", Some("secret"));
            assert_eq!(got, Principal::Invalid(reason), "{value}");
        }
        assert_eq!(principal(&[], "", None), Principal::Anonymous);
        assert_eq!(principal(&[("Cookie", "p_cookie=x")], "?p_cookie_peer=", None), Principal::Anonymous);
        assert_eq!(principal(&[], "?a=b&p_cookie_peer=x", None), Principal::Invalid(ErrorCode::CookieAuthentication));
    }
}
