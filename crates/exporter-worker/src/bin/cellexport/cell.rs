//! Which cell is meant, and the URLs below it. URLs of a server's answers are never followed: a token goes only where the
//! user said.

use ureq::http::Uri;

use crate::configuration::Configuration;
use crate::failure::{Exit, Failure};
use crate::job::Kind;

/// A cell, by its URL with the slash at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cell {
    url: String,
}

impl Cell {
    /// Reads a URL, or a name when the unit is configured.
    pub(crate) fn parse(text: &str, configuration: &Configuration) -> Result<Self, Failure> {
        let url = if text.contains("://") {
            text.to_owned()
        } else {
            if text.is_empty() || !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')) {
                return Err(Failure::new(Exit::Usage, format!("{text} is neither a cell's URL nor a cell's name")));
            }
            let Some(unit) = &configuration.unit else {
                let what = format!("{text} is a name, and no unit is configured");
                return Err(Failure::new(Exit::Usage, what).next("give --unit URL, or the cell's whole URL"));
            };
            in_unit(unit, text)
        };
        let url = format!("{}/", url.trim_end_matches('/'));
        check(&url, configuration)?;
        Ok(Self { url })
    }

    /// The URL, with its slash.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Where jobs of a kind are asked for.
    pub(crate) fn orders(&self, kind: Kind) -> String {
        match kind {
            Kind::Export => format!("{}__export", self.url),
            Kind::Import => format!("{}__import", self.url),
            Kind::DryRun => format!("{}__import/dry-run", self.url),
        }
    }

    /// Where jobs of a kind are listed.
    pub(crate) fn jobs(&self, kind: Kind) -> String {
        match kind {
            Kind::Export => format!("{}__export/jobs", self.url),
            Kind::Import | Kind::DryRun => format!("{}__import/jobs", self.url),
        }
    }

    /// A job. The id is one that was parsed.
    pub(crate) fn job(&self, kind: Kind, id: uuid::Uuid) -> String {
        format!("{}/{id}", self.jobs(kind))
    }

    /// The snapshot area.
    pub(crate) fn area(&self) -> String {
        format!("{}__snapshot", self.url)
    }

    /// A file of the snapshot area.
    pub(crate) fn file(&self, name: &str) -> String {
        format!("{}__snapshot/{name}", self.url)
    }
}

/// The URL of a cell of a unit: a path below it, or what its pattern says.
fn in_unit(unit: &str, name: &str) -> String {
    match unit.contains("{cell}") {
        true => unit.replace("{cell}", name),
        false => format!("{}/{name}/", unit.trim_end_matches('/')),
    }
}

/// Checks a URL that a request will go to.
pub(crate) fn check(url: &str, configuration: &Configuration) -> Result<(), Failure> {
    let wrong = |what: &str| Err(Failure::new(Exit::Usage, format!("{url} {what}")));
    let Ok(uri) = url.parse::<Uri>() else { return wrong("is no URL") };
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return wrong("is neither http nor https");
    }
    if uri.authority().is_none_or(|authority| authority.as_str().contains('@')) {
        return wrong("must not have a user name or password");
    }
    if uri.query().is_some() || url.contains('#') {
        return wrong("must not have a query or a fragment");
    }
    if let Some(unit) = configuration.unit.as_ref().filter(|_| configuration.token_is_the_units)
        && !belongs(&uri, unit)
    {
        let what = format!("{url} is not of the unit that the token of the configuration file is for");
        return Err(Failure::new(Exit::Usage, what).next("give --token-file"));
    }
    Ok(())
}

/// Tells whether a URL is of a unit: of the same host and port, or of a host below it.
fn belongs(uri: &Uri, unit: &str) -> bool {
    let pattern = unit.replace("{cell}.", "").replace("{cell}", "");
    let Ok(unit) = pattern.parse::<Uri>() else { return false };
    let lower = |uri: &Uri| uri.host().unwrap_or_default().to_ascii_lowercase();
    let (host, of) = (lower(uri), lower(&unit));
    uri.scheme() == unit.scheme()
        && uri.port_u16() == unit.port_u16()
        && (host == of || host.strip_suffix(&of).is_some_and(|front| front.ends_with('.')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_of_a_unit() {
        assert_eq!(in_unit("https://unit/", "me"), "https://unit/me/");
        assert_eq!(in_unit("https://{cell}.unit", "me"), "https://me.unit");
        let uri = |text: &str| text.parse::<Uri>().expect("a URL");
        for (url, unit, is) in [
            ("https://unit/me/", "https://unit/", true),
            ("https://me.unit/", "https://unit", true),
            ("https://me.unit/", "https://{cell}.unit/", true),
            ("https://notunit/", "https://unit/", false),
            ("http://unit/", "https://unit/", false),
            ("https://unit:8/", "https://unit/", false),
            ("https://unit.example.net/", "https://unit/", false),
        ] {
            assert_eq!(belongs(&uri(url), unit), is, "{url} of {unit}");
        }
    }
}
