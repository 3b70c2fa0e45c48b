//! The keys of an OpenID Connect issuer (RFC 7517), from a file or a URL, read again from time to time.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use model::limits;

/// Where a key set is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A file.
    File(PathBuf),
    /// An `https` URL, or one of this host.
    Url(String),
}

impl KeySource {
    /// Reads a setting: a URL, or else a path.
    pub fn parse(text: &str) -> Option<Self> {
        let own = ["http://127.0.0.1:", "http://localhost:", "http://[::1]:"];
        match text.split_once("://") {
            None => Some(Self::File(text.into())),
            // A password in it would be printed with the other settings.
            Some((_, rest)) if rest.split('/').next().is_some_and(|authority| authority.contains('@')) => None,
            Some(("https", _)) => Some(Self::Url(text.to_owned())),
            Some(_) => own.iter().any(|own| text.starts_with(own)).then(|| Self::Url(text.to_owned())),
        }
    }
}

/// A key that signatures are verified with, and the one algorithm it is for.
#[derive(Clone)]
pub(crate) struct Key {
    pub(crate) id: Option<String>,
    pub(crate) algorithm: Algorithm,
    pub(crate) key: DecodingKey,
}

/// The keys.
pub(crate) struct KeySet {
    source: KeySource,
    accepted: Vec<Algorithm>,
    state: Mutex<State>,
    /// Held by whoever reads the set.
    reading: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    keys: Arc<Vec<Key>>,
    read: Option<Instant>,
    tried: Option<Instant>,
}

/// There are no keys, and none could be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoKeys;

impl KeySet {
    pub(crate) fn new(source: KeySource, accepted: Vec<Algorithm>) -> Arc<Self> {
        Arc::new(Self { source, accepted, state: Mutex::default(), reading: tokio::sync::Mutex::default() })
    }

    /// Finds the key with this id; the only key when no id is asked for. Reads the set again when it is old or when it
    /// lacks the key, but not all the time: anybody can name a key that does not exist. Whoever asks for a key that is
    /// known does not wait for that.
    pub(crate) async fn find(self: &Arc<Self>, id: Option<&str>) -> Result<Option<Key>, NoKeys> {
        let (known, is_old) = {
            let state = self.state();
            (choose(&state.keys, id).cloned(), is_older(state.read, limits::KEY_SET_FRESH))
        };
        match (known, is_old) {
            (Some(key), false) => return Ok(Some(key)),
            (Some(_), true) => {
                let set = Arc::clone(self);
                actix_web::rt::spawn(async move { set.refresh(None).await });
            }
            (None, _) => self.refresh(id).await,
        }
        let state = self.state();
        if is_older(state.read, limits::KEY_SET_KEPT) {
            return Err(NoKeys);
        }
        Ok(choose(&state.keys, id).cloned())
    }

    /// Reads the set, unless it was tried a moment ago or has the wanted key by now.
    async fn refresh(&self, wanted: Option<&str>) {
        let _reading = self.reading.lock().await;
        {
            let mut state = self.state();
            let has_come = wanted.is_some() && choose(&state.keys, wanted).is_some();
            if has_come || !is_older(state.tried, limits::KEY_SET_PAUSE) {
                return;
            }
            state.tried = Some(Instant::now());
        }
        match self.read().await {
            Ok(keys) => {
                let mut state = self.state();
                state.keys = Arc::new(keys);
                state.read = Some(Instant::now());
            }
            Err(error) => tracing::warn!(error = format!("{error:#}"), "the key set cannot be read"),
        }
    }

    /// Reads the set once, for the doctor: how many keys of it can be used.
    pub(crate) async fn count(&self) -> anyhow::Result<usize> {
        self.read().await.map(|keys| keys.len())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read(&self) -> anyhow::Result<Vec<Key>> {
        let source = self.source.clone();
        let text = actix_web::web::block(move || match source {
            KeySource::File(path) => read_file(&path),
            KeySource::Url(url) => fetch(&url),
        })
        .await??;
        let set: JwkSet = serde_json::from_slice(&text)?;
        Ok(set.keys.iter().filter_map(|key| usable(key, &self.accepted)).collect())
    }
}

fn is_older(time: Option<Instant>, age: Duration) -> bool {
    time.is_none_or(|time| time.elapsed() >= age)
}

fn read_file(path: &std::path::Path) -> anyhow::Result<Vec<u8>> {
    use std::io::Read;
    let mut text = Vec::new();
    std::fs::File::open(path)?.take(limits::KEY_SET + 1).read_to_end(&mut text)?;
    anyhow::ensure!(text.len() as u64 <= limits::KEY_SET, "longer than {} bytes", limits::KEY_SET);
    Ok(text)
}

fn fetch(url: &str) -> anyhow::Result<Vec<u8>> {
    let agent = ureq::Agent::config_builder().timeout_global(Some(limits::KEY_SET_FETCH)).max_redirects(0).build();
    let mut answer = agent.new_agent().get(url).call()?;
    anyhow::ensure!(answer.status() == 200, "answered {}", answer.status());
    Ok(answer.body_mut().with_config().limit(limits::KEY_SET).read_to_vec()?)
}

fn choose<'a>(keys: &'a [Key], id: Option<&str>) -> Option<&'a Key> {
    match id {
        Some(id) => keys.iter().find(|key| key.id.as_deref() == Some(id)),
        None => keys.first().filter(|_| keys.len() == 1),
    }
}

/// A public key for signatures by an accepted algorithm. Shared secrets are none.
fn usable(jwk: &Jwk, accepted: &[Algorithm]) -> Option<Key> {
    if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
        return None;
    }
    let algorithm = match (&jwk.algorithm, &jwk.common.key_algorithm) {
        (AlgorithmParameters::OctetKey(_), _) => return None,
        (_, Some(named)) => algorithm(*named)?,
        (AlgorithmParameters::RSA(_), None) => Algorithm::RS256,
        (AlgorithmParameters::EllipticCurve(key), None) if key.curve == EllipticCurve::P256 => Algorithm::ES256,
        (AlgorithmParameters::EllipticCurve(key), None) if key.curve == EllipticCurve::P384 => Algorithm::ES384,
        (AlgorithmParameters::OctetKeyPair(_), None) => Algorithm::EdDSA,
        _ => return None,
    };
    let key = DecodingKey::from_jwk(jwk).ok()?;
    accepted.contains(&algorithm).then(|| Key { id: jwk.common.key_id.clone(), algorithm, key })
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the enum is open, and most of it is for encryption")]
fn algorithm(named: KeyAlgorithm) -> Option<Algorithm> {
    match named {
        KeyAlgorithm::RS256 => Some(Algorithm::RS256),
        KeyAlgorithm::RS384 => Some(Algorithm::RS384),
        KeyAlgorithm::RS512 => Some(Algorithm::RS512),
        KeyAlgorithm::PS256 => Some(Algorithm::PS256),
        KeyAlgorithm::PS384 => Some(Algorithm::PS384),
        KeyAlgorithm::PS512 => Some(Algorithm::PS512),
        KeyAlgorithm::ES256 => Some(Algorithm::ES256),
        KeyAlgorithm::ES384 => Some(Algorithm::ES384),
        KeyAlgorithm::EdDSA => Some(Algorithm::EdDSA),
        _ => None,
    }
}
