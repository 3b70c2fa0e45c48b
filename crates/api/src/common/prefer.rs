//! `Prefer` (RFC 7240): `wait=N` of its section 4.3, and `no-redirect`, which is ours.

use std::time::Duration;

use actix_web::http::header::HeaderMap;
use model::limits;

/// The value of a preference, empty when it has none. The first one of a name counts (section 2).
fn preference<'a>(headers: &'a HeaderMap, wanted: &str) -> Option<&'a str> {
    let fields = headers.get_all("prefer").filter_map(|value| value.to_str().ok());
    let preferences = fields.flat_map(|field| field.split(',')).map(|preference| {
        let preference = preference.split(';').next().unwrap_or_default();
        preference.split_once('=').unwrap_or((preference, ""))
    });
    let found = preferences.into_iter().find(|(name, _)| name.trim().eq_ignore_ascii_case(wanted));
    found.map(|(_, value)| value)
}

/// Tells whether the client would rather have the bytes than a link to them.
pub(crate) fn no_redirect(headers: &HeaderMap) -> bool {
    preference(headers, "no-redirect").is_some()
}

/// How long the client would wait for an answer, at most [`limits::WAIT_LONGEST`]; nothing when it did not say.
pub(crate) fn wait(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = preference(headers, "wait")?.trim().trim_matches('"').parse().ok()?;
    Some(Duration::from_secs(seconds).min(limits::WAIT_LONGEST)).filter(|wait| !wait.is_zero())
}

/// The value of `Preference-Applied`.
pub(crate) fn applied(wait: Duration) -> String {
    format!("wait={}", wait.as_secs())
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn a_wait_is_found_among_other_preferences() {
        for (values, expected) in [
            (&["wait=10"][..], Some(10)),
            (&["respond-async, wait=10"], Some(10)),
            (&["respond-async", "Wait = \"7\""], Some(7)),
            (&["wait=5; foo=bar, wait=9"], Some(5)),
            (&["wait=100000"], Some(limits::WAIT_LONGEST.as_secs())),
            (&["wait=0"], None),
            (&["wait"], None),
            (&["wait=-1"], None),
            (&["waiting=3"], None),
            (&[], None),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(HeaderName::from_static("prefer"), HeaderValue::from_static(value));
            }
            assert_eq!(wait(&headers).map(|w| w.as_secs()), expected, "{values:?}");
        }
    }
}
