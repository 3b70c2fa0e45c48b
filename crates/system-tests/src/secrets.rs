//! The search for secrets in everything that the services write: answers, logs, what commands print, rows, files.
//!
//! Each installation has secrets that stand nowhere by chance, and tests add those that they make. All tests of a process
//! search for the secrets of all.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::{PoisonError, RwLock};

use crate::http::Answer;

/// Shorter texts may well stand somewhere by chance.
const SHORTEST: usize = 12;
/// What is cut off behind so much of a secret has still shown it.
const SHOWN: usize = 32;
/// Longer answers and files are contents of cells.
const SEARCHED: usize = 1 << 20;

static SECRETS: RwLock<Vec<Secret>> = RwLock::new(Vec::new());

#[derive(Debug)]
struct Secret {
    name: String,
    text: String,
    /// As it may be printed: as text, as text within JSON, as numbers between brackets.
    forms: Vec<String>,
}

/// From now on this text (a token, a cookie, a password) may stand in nothing that a service writes.
///
/// # Panics
/// When the text is so short that it may stand somewhere by chance.
pub fn remember_secret(secret: &str) {
    assert!(secret.len() >= SHORTEST, "too short to be recognised: {secret}");
    let start: String = secret.chars().take(SHORTEST).collect();
    remember(&format!("{start}…"), secret);
}

/// Remembers the secrets among an installation's settings; a server's own password may be too short for it.
pub(crate) fn remember_settings(settings: &[(String, String)]) {
    for (name, value) in settings {
        let secret = match name.as_str() {
            "MASTER_TOKEN" | "UNIT_SECRET16" | "UNIT_PASSWORD_SALT" | "S3_SECRET_ACCESS_KEY" => Some(value.as_str()),
            "DATABASE_URL" | "AMQP_URL" => password(value),
            _ => None,
        };
        if let Some(secret) = secret.filter(|secret| secret.len() >= SHORTEST) {
            remember(name, secret);
        }
    }
}

fn password(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let (user, _) = rest.split('/').next()?.rsplit_once('@')?;
    Some(user.split_once(':')?.1)
}

fn remember(name: &str, text: &str) {
    let mut secrets = SECRETS.write().unwrap_or_else(PoisonError::into_inner);
    if secrets.iter().any(|secret| secret.text == text) {
        return;
    }
    let shown: String = text.chars().take(SHOWN).collect();
    let numbers: Vec<String> = shown.bytes().map(|byte| byte.to_string()).collect();
    let json = serde_json::Value::from(shown.as_str()).to_string();
    let mut forms = vec![json[1..json.len() - 1].to_owned(), numbers.join(", "), numbers.join(","), shown];
    forms.dedup();
    secrets.push(Secret { name: name.to_owned(), text: text.to_owned(), forms });
}

/// Fails when a secret stands in what was written; `what` says where that is.
///
/// # Panics
/// When it does.
pub fn search(what: &str, written: &[u8]) {
    let text = String::from_utf8_lossy(written);
    let secrets = SECRETS.read().unwrap_or_else(PoisonError::into_inner);
    for secret in secrets.iter() {
        for form in &secret.forms {
            if let Some(at) = text.find(form) {
                let line = text[..at].rfind('\n').map_or(0, |end| end + 1);
                let start = text.ceil_char_boundary(line.max(at.saturating_sub(300)));
                let after: String = text[at + form.len()..].chars().take(40).collect();
                panic!("{} stands in {what}: {}[here]{after}", secret.name, &text[start..at]);
            }
        }
    }
}

/// Searches an answer. A long body is a snapshot.
pub(crate) fn search_answer(answer: &Answer, method: &str) {
    let what = format!("the answer {} to a {method}", answer.status);
    for (name, value) in &answer.headers {
        search(&what, format!("{name}: {value}").as_bytes());
    }
    if answer.body.len() <= SEARCHED {
        search(&what, &answer.body);
    }
}

/// Searches the files below a directory; of long ones the beginning and the end, where what a service adds to the
/// contents of a cell stands.
pub(crate) fn search_files(directory: &Path) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => search_files(&path),
            false => search(&path.display().to_string(), &ends(&path).expect("a file that can be read")),
        }
    }
}

fn ends(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut bytes = Vec::new();
    file.by_ref().take(SEARCHED as u64).read_to_end(&mut bytes)?;
    let rest = file.metadata()?.len().saturating_sub(bytes.len() as u64);
    if rest > 0 {
        file.seek(SeekFrom::End(-(rest.min(SEARCHED as u64) as i64)))?;
        file.read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}
