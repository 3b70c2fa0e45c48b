//! `api doctor`: what both services look at (see [`model::doctor`]), and what only the api depends on.

use std::net::IpAddr;

use model::doctor::database::Demand;
use model::doctor::{self, Doctor, Finding, Service, broker, database, host, storage};
use model::limits;
use model::settings::{BrokerSettings, UnitSettings, Variables};
use secrecy::ExposeSecret;

use crate::application;
use crate::auth::{AuthSettings, KeySet};
use crate::config::ApiSettings;

/// Looks at everything. The report, and the exit code: 0 all is well, 1 there are faults (with `strict` also warnings),
/// 2 the settings cannot be read.
pub async fn examine(variables: &Variables, strict: bool) -> (Doctor, u8) {
    let mut doctor = Doctor::new("api");
    let mut faults = ApiSettings::faults(variables);
    let management = BrokerSettings::management_url(variables).unwrap_or_else(|fault| {
        faults.push(fault);
        None
    });
    let settings = match ApiSettings::read(variables) {
        Ok(settings) if faults.is_empty() => settings,
        Ok(_) | Err(_) => {
            doctor::settings(&mut doctor, &faults, "");
            return (doctor, 2);
        }
    };
    doctor::settings(&mut doctor, &[], "all can be read; `api serve --check-config` prints them");
    let demand = Demand {
        url: &settings.database.url,
        service: Service::Api,
        connections: settings.http.pool + application::CHORES,
    };
    let mut asked = database::examine(&mut doctor, &demand).await;
    storage::examine_area(&mut doctor, &settings.storage, &mut asked).await;
    if settings.storage.is_bucket() {
        storage::examine_scratch(&mut doctor, &settings.storage).await;
    }
    broker::examine(&mut doctor, &settings.broker, management.as_ref(), Service::Api).await;
    doctor.look("listening", host::port("API_LISTEN", settings.http.listen, "OPTIONS /")).await;
    host::internal_port(&mut doctor, &settings.internal).await;
    doctor.note("unit", unit(&settings.unit));
    doctor.note("credentials", credentials(&settings.auth));
    doctor.look("key set", key_set(&settings.auth)).await;
    doctor.note("open files", host::open_files(limits::OPEN_FILES));
    let waiting = limits::WAITING_CLIENTS as u64 * limits::WAITING_CLIENT_MEMORY;
    let memory = host::memory(limits::API_MEMORY + waiting, "raise it; less is enough where fewer clients wait");
    doctor.note("memory", memory);
    let code = doctor.exit_code(strict);
    (doctor, code)
}

/// Whether cell URLs can be what clients ask for.
fn unit(unit: &UnitSettings) -> Finding {
    let seen = format!("a cell is at {}", unit.cell_url("CELL"));
    let is_local = unit.fqdn == "localhost" || unit.fqdn.parse::<IpAddr>().is_ok();
    if !unit.path_based && is_local {
        return Finding::warning(
            format!("{seen}: there are no names below {}", unit.fqdn),
            "set PATH_BASED_CELL_URL=true, or UNIT_FQDN to the unit's name",
        );
    }
    if unit.scheme == "http" && !is_local {
        return Finding::warning(
            format!("{seen}: tokens and snapshots go in the clear"),
            "put a proxy with TLS in front, and set UNIT_SCHEME=https",
        );
    }
    Finding::ok(seen)
}

/// Whether anybody can get in, and how hard secrets are to guess. They are never shown.
fn credentials(auth: &AuthSettings) -> Finding {
    let length = |secret: &Option<secrecy::SecretString>| secret.as_ref().map(|s| s.expose_secret().len());
    let (master, unit) = (length(&auth.master_token), length(&auth.secret));
    let monotonous = auth.secret.as_ref().is_some_and(|secret| {
        let text = secret.expose_secret().as_bytes();
        text.iter().all(|byte| Some(byte) == text.first())
    });
    let known = [
        master.map(|length| format!("master token of {length} characters")),
        unit.map(|length| format!("unit secret of {length}")),
        auth.web_tokens.as_ref().map(|web| format!("web tokens of {}", web.issuer)),
    ];
    let known: Vec<String> = known.into_iter().flatten().collect();
    if known.is_empty() {
        return Finding::fault("nobody can get in", "set UNIT_SECRET16_FILE, MASTER_TOKEN_FILE or OIDC_ISSUER");
    }
    let seen = known.join(", ");
    if master.is_some_and(|length| length < MASTER_TOKEN) {
        return Finding::warning(
            format!("{seen}: short"),
            format!("let the master token have {MASTER_TOKEN} random characters or more"),
        );
    }
    if monotonous {
        return Finding::warning(format!("{seen}: one character all over"), "make the unit's secret a random one");
    }
    Finding::ok(seen)
}

/// Characters that nobody guesses.
const MASTER_TOKEN: usize = 20;

async fn key_set(auth: &AuthSettings) -> Finding {
    let Some(web) = &auth.web_tokens else { return Finding::skipped("web tokens are off: OIDC_ISSUER is not set") };
    match KeySet::new(web.keys.clone(), web.algorithms.clone()).count().await {
        Ok(0) => Finding::fault(
            "the key set has no key of OIDC_ALGORITHMS",
            "let OIDC_ALGORITHMS name what the issuer signs with, and OIDC_KEYS its key set",
        ),
        Ok(keys) => Finding::ok(format!("{keys} keys can be used")),
        Err(error) => Finding::fault(
            format!("the key set cannot be read: {error:#}"),
            "let OIDC_KEYS be a file that the service may read, or a URL that this host reaches",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_and_credentials_that_cannot_be_meant_are_told() {
        let read = |pairs: &[(&str, &str)]| {
            let more = [("DATABASE_URL", "x"), ("AMQP_URL", "x"), ("SNAPSHOT_DIR", "/x")];
            ApiSettings::read(&Variables::table(&[pairs, &more].concat())).expect("complete")
        };
        let fine = |finding: Finding| finding.clone() == Finding::ok(finding.seen().to_owned());
        let unit_of = |pairs: &[(&str, &str)]| unit(&read(pairs).unit);
        assert!(fine(unit_of(&[("UNIT_FQDN", "unit1.example")])));
        assert!(fine(unit_of(&[("UNIT_FQDN", "localhost"), ("UNIT_SCHEME", "http"), ("PATH_BASED_CELL_URL", "true")])));
        assert!(!fine(unit_of(&[("UNIT_FQDN", "localhost")])));
        assert!(!fine(unit_of(&[("UNIT_FQDN", "unit1.example"), ("UNIT_SCHEME", "http")])));
        let (long, short) = ("marker-master-token-x7Qd", "marker");
        let of = |pairs: &[(&str, &str)]| credentials(&read(&[&[("UNIT_FQDN", "a")], pairs].concat()).auth);
        assert!(!fine(of(&[])));
        assert!(fine(of(&[("MASTER_TOKEN", long)])));
        assert!(!fine(of(&[("MASTER_TOKEN", short)])));
        assert!(fine(of(&[("UNIT_SECRET16", "MarkerSecret16x7")])));
        assert!(!fine(of(&[("UNIT_SECRET16", "xxxxxxxxxxxxxxxx")])));
        for secrets in [of(&[("MASTER_TOKEN", short)]), of(&[("UNIT_SECRET16", "MarkerSecret16x7")])] {
            assert!(!format!("{secrets:?}").to_lowercase().contains("marker"), "{secrets:?}");
        }
    }
}
