//! Basic credentials: an account's name and password.
//!
//! They never suffice for a cell's own resources, but clients are told whether they are right, as a unit tells them. So
//! that nobody guesses passwords here, each wrong one closes the account to further tries for a while.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use model::error_code::ErrorCode;
use model::limits;
use model::store::cells::Cell;
use model::store::directory::{self, Password};
use moka::sync::Cache;
use scrypt::Params;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::directory::is_deactivated;
use crate::database::Database;
use crate::error::ApiError;

/// Base64 as clients write it, with padding or without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The name and the password of a request.
#[derive(Debug, Clone)]
pub(crate) struct Basic {
    pub(crate) name: String,
    pub(crate) password: SecretString,
    /// The password as it was sent, before it is taken for a form's text: where a token is sent in its place.
    pub(crate) verbatim: SecretString,
}

impl Basic {
    /// Reads what follows `Basic`: base64 of name, colon, password, both encoded like a form's.
    pub(crate) fn parse(encoded: &str) -> Option<Self> {
        let pair = String::from_utf8(BASE64.decode(encoded.trim()).ok()?).ok()?;
        let (name, password) = pair.split_once(':')?;
        Some(Self { name: form_text(name)?, password: form_text(password)?.into(), verbatim: password.into() })
    }
}

/// Decodes one text of a form.
fn form_text(text: &str) -> Option<String> {
    let text = text.replace('+', " ");
    percent_encoding::percent_decode_str(&text).decode_utf8().ok().map(|text| text.into_owned())
}

/// Checks passwords, a few at once and not too often.
pub(crate) struct Passwords {
    database: Database,
    /// Text that units put behind a password before they hash it with SHA-256.
    salt: SecretString,
    permits: Semaphore,
    failures: Cache<(String, String), Arc<Mutex<Failures>>>,
}

/// The wrong passwords of an account.
#[derive(Debug, Default, Clone, Copy)]
struct Failures {
    number: u32,
    closed_until: Option<Instant>,
}

impl Failures {
    fn add(&mut self, now: Instant) {
        let pause = limits::PASSWORD_PAUSE.saturating_mul(1 << self.number.min(16)).min(limits::PASSWORD_PAUSE_MAX);
        *self = Self { number: self.number.saturating_add(1), closed_until: Some(now + pause) };
    }

    fn is_closed(&self, now: Instant) -> bool {
        self.closed_until.is_some_and(|until| now < until)
    }
}

impl Passwords {
    pub(crate) fn new(database: Database, salt: SecretString) -> Self {
        let (number, remembered) = limits::PASSWORD_FAILURES;
        Self {
            database,
            salt,
            permits: Semaphore::new(limits::PASSWORDS),
            failures: Cache::builder().max_capacity(number).time_to_idle(remembered).build(),
        }
    }

    /// Tells what is wrong with the credentials; nothing when they are right.
    ///
    /// # Errors
    /// 503 when too many are being checked, and when the database does not answer.
    pub(crate) async fn fault(&self, cell: &Cell, basic: &Basic) -> Result<Option<ErrorCode>, ApiError> {
        // No account has such a name: what is remembered stays small, and the database takes no zero byte.
        if basic.name.len() > 4 * 128 || basic.name.chars().any(char::is_control) {
            return Ok(Some(ErrorCode::BasicAuthentication));
        }
        let failures = self.failures.get_with((cell.id.to_string(), basic.name.clone()), Default::default);
        let is_closed = || failures.lock().unwrap_or_else(PoisonError::into_inner).is_closed(Instant::now());
        if is_closed() {
            return Ok(Some(ErrorCode::BasicTooSoon));
        }
        let waiting = timeout(limits::PASSWORD_WAIT, self.permits.acquire());
        let Ok(Ok(_permit)) = waiting.await else { return Err(ApiError::for_now(ErrorCode::TooManyRequests, "5")) };
        // Others may have tried meanwhile.
        if is_closed() {
            return Ok(Some(ErrorCode::BasicTooSoon));
        }
        let (id, name) = (cell.id.clone(), basic.name.clone());
        let asked = self
            .database
            .ask(async move |connection| Ok::<_, ApiError>(directory::password(connection, &id, &name).await?));
        let (stored, password, salt) = (asked.await?, basic.password.clone(), self.salt.clone());
        let checked = actix_web::web::block(move || is_right(stored.as_ref(), &password, &salt)).await;
        let mut failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
        if checked.unwrap_or(false) {
            *failures = Failures::default();
            return Ok(None);
        }
        failures.add(Instant::now());
        Ok(Some(ErrorCode::BasicAuthentication))
    }
}

/// Compares a password with the stored one. Where there is none, or one of another kind, it takes the time of one by
/// scrypt: nobody shall measure which accounts exist.
fn is_right(stored: Option<&Password>, password: &SecretString, salt: &SecretString) -> bool {
    let usable = stored.filter(|stored| !is_deactivated(stored.status.as_deref()));
    let hash = usable.and_then(|stored| stored.hash.as_ref());
    match (hash, usable.and_then(|stored| stored.algorithm.as_deref())) {
        (Some(hash), Some("scrypt")) => scrypt_fits(hash, password).unwrap_or(false),
        (hash, algorithm) => {
            let _ = scrypt_fits(&NOBODY.into(), password);
            let of_old = hash.filter(|_| matches!(algorithm, None | Some("sha-256")));
            of_old.is_some_and(|hash| sha256_fits(hash, password, salt))
        }
    }
}

/// A hash that costs what units' hashes cost.
const NOBODY: &str = "$e0801$AAAAAAAAAAAAAAAAAAAAAA==$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

/// `$` parameters in hexadecimal (logarithm of N, r, p) `$` salt `$` hash.
fn scrypt_fits(stored: &SecretString, password: &SecretString) -> Option<bool> {
    let mut parts = stored.expose_secret().split('$').skip(1);
    let (parameters, salt, hash) = (parts.next()?, parts.next()?, parts.next()?);
    let parameters = u32::from_str_radix(parameters, 16).ok()?;
    let (log_n, r, p) = (u8::try_from(parameters >> 16).ok()?, (parameters >> 8) & 0xff, parameters & 0xff);
    let memory = 1_u64.checked_shl(u32::from(log_n))?.checked_mul(128 * u64::from(r))?;
    if memory > limits::PASSWORD_MEMORY || p > 4 {
        return None;
    }
    let (salt, hash) = (BASE64.decode(salt).ok()?, BASE64.decode(hash).ok()?);
    if !(16..=64).contains(&hash.len()) {
        return None;
    }
    let mut derived = vec![0; hash.len()];
    let parameters = Params::new(log_n, r, p).ok()?;
    scrypt::scrypt(password.expose_secret().as_bytes(), &salt, &parameters, &mut derived).ok()?;
    Some(derived.ct_eq(&hash).into())
}

/// SHA-256 of the password and the unit's salt, in hexadecimal.
fn sha256_fits(stored: &SecretString, password: &SecretString, salt: &SecretString) -> bool {
    let digest = Sha256::new_with_prefix(password.expose_secret()).chain_update(salt.expose_secret()).finalize();
    hex::encode(digest).as_bytes().ct_eq(stored.expose_secret().as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Of `password`, as a unit stores it.
    const SCRYPT: &str = "$e0801$AAECAwQFBgcICQoLDA0ODw==$6iMJXpgeItuXSS3ial5ceU6o+LQA0aKIA8ORmTlhNMU=";
    /// Of `password` and the salt `salt`.
    const SHA256: &str = "7a37b85c8918eac19a9089c0fa5a2ab4dce3f90528dcdeec108b23ddf3607b99";

    fn right(status: Option<&str>, algorithm: Option<&str>, hash: Option<&str>, password: &str) -> bool {
        let stored = Password {
            status: status.map(str::to_owned),
            algorithm: algorithm.map(str::to_owned),
            hash: hash.map(SecretString::from),
        };
        is_right(Some(&stored), &password.into(), &"salt".into())
    }

    #[test]
    fn both_kinds_of_hashes_are_compared() {
        for status in [None, Some("active"), Some("passwordChangeRequired")] {
            assert!(right(status, Some("scrypt"), Some(SCRYPT), "password"), "{status:?}");
            assert!(right(status, Some("sha-256"), Some(SHA256), "password"), "{status:?}");
            assert!(right(status, None, Some(SHA256), "password"), "{status:?}");
        }
        assert!(!right(Some("deactivated"), Some("scrypt"), Some(SCRYPT), "password"));
        for (algorithm, hash) in [
            (Some("scrypt"), Some(SHA256)),
            (Some("sha-256"), Some(SCRYPT)),
            (Some("md5"), Some(SHA256)),
            (None, None),
            (Some("scrypt"), None),
            (Some("scrypt"), Some("$e0801$AAECAwQFBgcICQoLDA0ODw==$")),
            (Some("scrypt"), Some("$e0801$$")),
            (Some("scrypt"), Some("$180801$AAECAwQFBgcICQoLDA0ODw==$6iMJXpgeItuXSS3ial5ceU6o+LQA0aKIA8ORmTlhNMU=")),
            (Some("scrypt"), Some("$ffffffff$AA==$AAAAAAAAAAAAAAAAAAAAAA==")),
            (Some("scrypt"), Some("$0$AA==$AAAAAAAAAAAAAAAAAAAAAA==")),
        ] {
            assert!(!right(None, algorithm, hash, "password"), "{algorithm:?} {hash:?}");
        }
        assert!(!right(None, Some("scrypt"), Some(SCRYPT), "Password"));
        assert!(!is_right(None, &"password".into(), &"salt".into()));
    }

    #[test]
    fn wrong_passwords_close_an_account_for_longer_and_longer() {
        let (mut failures, start) = (Failures::default(), Instant::now());
        assert!(!failures.is_closed(start));
        let mut pauses = Vec::new();
        for _ in 0..40 {
            failures.add(start);
            let closed = |seconds: u64| failures.is_closed(start + Duration::from_secs(seconds));
            pauses.push((0..100).take_while(|&second| closed(second)).count());
        }
        assert_eq!(pauses[..8], [1, 2, 4, 8, 16, 32, 64, 64]);
        assert_eq!(pauses[39], 64);
    }
}
