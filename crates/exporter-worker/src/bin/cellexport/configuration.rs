//! What the command line, the environment and the configuration file say, the first one that says anything winning.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use crate::arguments::Everywhere;
use crate::failure::{Exit, Failure};
use crate::limits;
use crate::terminal::{Output, quoted, say};

/// The configuration file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigurationFile {
    unit: Option<String>,
    token: Option<SecretText>,
    token_file: Option<PathBuf>,
    timeout: Option<u64>,
    tries: Option<u32>,
}

/// A text that does not print.
#[derive(Debug, Deserialize)]
#[serde(from = "String")]
struct SecretText(SecretString);

impl From<String> for SecretText {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

/// What commands go by.
#[derive(Debug)]
pub(crate) struct Configuration {
    /// The unit's URL, or a pattern with `{cell}`.
    pub(crate) unit: Option<String>,
    /// What requests carry.
    pub(crate) token: Option<SecretString>,
    /// The token came from the configuration file, so it is for the unit of that file.
    pub(crate) token_is_the_units: bool,
    /// See [`limits::TIMEOUT`].
    pub(crate) timeout: Duration,
    /// See [`limits::TRIES`].
    pub(crate) tries: u32,
    /// Form of results.
    pub(crate) output: Output,
    /// `cellexport` and the options that a later command needs, too.
    pub(crate) again: String,
}

impl Configuration {
    /// Reads everything.
    pub(crate) fn read(given: &Everywhere) -> Result<Self, Failure> {
        let file = read_file(given.config.as_deref())?;
        let mut token_is_the_units = false;
        let token = if let Some(path) = &given.token_file {
            Some(token_of(path)?)
        } else if let Some(token) = environment("CELLEXPORT_TOKEN")? {
            Some(SecretString::from(token.trim()))
        } else if let Some(path) = environment("CELLEXPORT_TOKEN_FILE")? {
            Some(token_of(Path::new(&path))?)
        } else {
            token_is_the_units = file.unit.is_some();
            match (file.token, file.token_file) {
                (Some(_), Some(_)) => {
                    return Err(Failure::new(Exit::Usage, "the configuration file has both token and token_file"));
                }
                (Some(SecretText(token)), None) => Some(token),
                (None, path) => path.as_deref().map(token_of).transpose()?,
            }
        };
        if token.as_ref().is_some_and(|t| !t.expose_secret().bytes().all(|b| b.is_ascii_graphic())) {
            return Err(Failure::new(Exit::Usage, "the token has characters that no token has"));
        }
        let unit = given.unit.clone().or(environment("CELLEXPORT_UNIT")?).or(file.unit);
        let timeout = match given.timeout.or(file.timeout) {
            None => limits::TIMEOUT,
            Some(seconds) => Duration::from_secs(seconds).clamp(Duration::from_secs(1), limits::TIMEOUT_MAX),
        };
        let tries = given.tries.or(file.tries).unwrap_or(limits::TRIES).clamp(1, limits::TRIES_MAX);
        let output = Output { json: given.json, quiet: given.quiet };
        Ok(Self { unit, token, token_is_the_units, timeout, tries, output, again: again(given) })
    }
}

/// The beginning of a command that finds the same configuration.
fn again(given: &Everywhere) -> String {
    let mut words = String::from("cellexport");
    for (flag, value) in [
        ("--config", given.config.as_ref().map(|path| path.display().to_string())),
        ("--token-file", given.token_file.as_ref().map(|path| path.display().to_string())),
        ("--unit", given.unit.clone()),
    ] {
        if let Some(value) = value {
            words.push_str(&format!(" {flag} {}", quoted(&value)));
        }
    }
    words
}

fn environment(name: &str) -> Result<Option<String>, Failure> {
    match std::env::var(name) {
        Ok(value) => Ok(Some(value).filter(|value| !value.is_empty())),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(Failure::new(Exit::Usage, format!("{name} is not UTF-8"))),
    }
}

/// Reads the file that is named, which must be there, or the one in the usual place, which need not.
fn read_file(named: Option<&Path>) -> Result<ConfigurationFile, Failure> {
    let usual = || {
        let home = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let base = home("XDG_CONFIG_HOME").or_else(|| home("HOME").map(|home| home.join(".config")));
        base.map(|base| base.join("cellexport/config.toml")).filter(|path| path.exists())
    };
    let Some(path) = named.map(Path::to_path_buf).or_else(usual) else { return Ok(ConfigurationFile::default()) };
    let wrong = |what: String| Failure::new(Exit::Usage, format!("{}: {what}", path.display()));
    let (text, mode) = read_text(&path)?;
    // What the TOML library says of a fault shows the line, which may be the one with the token.
    let file: ConfigurationFile = toml::from_str(&text).map_err(|error| {
        let at = error.span().map_or(0, |span| text[..span.start].matches('\n').count() + 1);
        wrong(format!("line {at}: {}", error.message().lines().next().unwrap_or_default()))
    })?;
    if file.token.is_some() && mode & 0o077 != 0 {
        say(&format!("cellexport: others may read the token in {}; chmod 600 helps", path.display()));
    }
    Ok(file)
}

fn token_of(path: &Path) -> Result<SecretString, Failure> {
    let (text, _) = read_text(path)?;
    match text.lines().next().map(str::trim) {
        Some(token) if !token.is_empty() => Ok(token.to_owned().into()),
        _ => Err(Failure::new(Exit::Usage, format!("{} has no token in its first line", path.display()))),
    }
}

fn read_text(path: &Path) -> Result<(String, u32), Failure> {
    let cannot =
        |error: &dyn std::fmt::Display| Failure::new(Exit::Usage, format!("cannot read {}: {error}", path.display()));
    let file = File::open(path).map_err(|e| cannot(&e))?;
    let mode = file.metadata().map_err(|e| cannot(&e))?.mode();
    let mut text = String::new();
    file.take(limits::SETTINGS_FILE + 1).read_to_string(&mut text).map_err(|e| cannot(&e))?;
    if text.len() as u64 > limits::SETTINGS_FILE {
        return Err(cannot(&format!("longer than {} bytes", limits::SETTINGS_FILE)));
    }
    Ok((text, mode))
}
