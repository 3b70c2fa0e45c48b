//! The doctor: looks at everything a service depends on, and says what is wrong and what to do about it.
//!
//! A look has a name, a bounded time and one of four verdicts. What cannot be looked at because something before it is
//! missing is skipped and says so, so that every look is named in every report. Nothing here changes anything that
//! lasts: what is written for a round trip is removed again, or left to the sweeper when the doctor is killed.
//!
//! [`database`] (with `schema` and `rights`) and [`queue`] ask PostgreSQL, [`broker`] (with `management`) RabbitMQ,
//! [`storage`] looks at the places of files, [`host`] at the machine. Each service has looks of its own beside these.

use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::limits;
use crate::settings::SettingsError;

pub mod broker;
pub mod database;
pub mod host;
mod management;
pub mod queue;
mod rights;
mod schema;
pub mod storage;

pub use rights::Service;

/// What a look found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Nobody looked: something before it is missing, or a setting is.
    Skipped,
    /// It works, and will bite.
    Warning,
    /// It does not work.
    Fault,
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Skipped => "skipped",
            Self::Warning => "warning",
            Self::Fault => "FAULT",
        }
    }
}

/// What a look found, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    verdict: Verdict,
    seen: String,
    advice: Option<String>,
}

impl Finding {
    /// As it should be; `seen` says what was seen.
    pub fn ok(seen: impl Into<String>) -> Self {
        Self { verdict: Verdict::Ok, seen: seen.into(), advice: None }
    }

    /// It works, and will bite unless somebody follows the advice.
    pub fn warning(seen: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warning, seen: seen.into(), advice: Some(advice.into()) }
    }

    /// It does not work; the advice says what makes it work.
    pub fn fault(seen: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { verdict: Verdict::Fault, seen: seen.into(), advice: Some(advice.into()) }
    }

    /// Nobody looked, because of this.
    pub fn skipped(because: impl Into<String>) -> Self {
        Self { verdict: Verdict::Skipped, seen: because.into(), advice: None }
    }

    /// What was seen.
    pub fn seen(&self) -> &str {
        &self.seen
    }
}

/// One look.
#[derive(Debug, Serialize)]
struct Look {
    name: &'static str,
    verdict: Verdict,
    seen: String,
    advice: Option<String>,
    millis: u64,
}

/// A report that is being made.
#[derive(Debug)]
pub struct Doctor {
    service: &'static str,
    until: Instant,
    looks: Vec<Look>,
}

impl Doctor {
    /// Begins a report. It is complete after [`limits::EXAMINATION`], whatever hangs.
    pub fn new(service: &'static str) -> Self {
        Self { service, until: Instant::now() + limits::EXAMINATION, looks: Vec::new() }
    }

    /// Looks, for at most [`limits::EXAMINED`]. Returns whether it is of use to what comes after: no fault, not skipped.
    pub async fn look(&mut self, name: &'static str, looking: impl Future<Output = Finding>) -> bool {
        let begun = Instant::now();
        let longest = limits::EXAMINED.min(self.until.saturating_duration_since(begun));
        let finding = match timeout(longest, looking).await {
            Ok(finding) => finding,
            Err(_) if longest.is_zero() => Finding::skipped("there was no time left"),
            Err(_) => Finding::fault(
                format!("no answer within {} s", longest.as_secs()),
                "look at what hangs: a dead mount, a network that drops packets, or a server that is overloaded",
            ),
        };
        self.add(name, finding, begun.elapsed())
    }

    /// Notes what needs no waiting.
    pub fn note(&mut self, name: &'static str, finding: Finding) -> bool {
        self.add(name, finding, Duration::ZERO)
    }

    /// Notes what nobody looks at, because of this.
    pub fn skip(&mut self, names: &[&'static str], because: &str) {
        for name in names {
            self.note(name, Finding::skipped(because));
        }
    }

    fn add(&mut self, name: &'static str, finding: Finding, took: Duration) -> bool {
        let Finding { verdict, seen, advice } = finding;
        self.looks.push(Look { name, verdict, seen: one_line(&seen), advice, millis: took.as_millis() as u64 });
        matches!(verdict, Verdict::Ok | Verdict::Warning)
    }

    fn count(&self, verdict: Verdict) -> usize {
        self.looks.iter().filter(|look| look.verdict == verdict).count()
    }

    /// 1 when there is a fault, or a warning and `strict`; else 0.
    pub fn exit_code(&self, strict: bool) -> u8 {
        u8::from(self.count(Verdict::Fault) > 0 || strict && self.count(Verdict::Warning) > 0)
    }

    /// The report for people.
    pub fn text(&self) -> String {
        let mut text = format!("{} {}\n\n", self.service, env!("CARGO_PKG_VERSION"));
        let width = self.looks.iter().map(|look| look.name.len()).max().unwrap_or(0);
        for look in &self.looks {
            let _ = writeln!(text, "{:<8} {:<width$}  {}", look.verdict.name(), look.name, look.seen);
            if let Some(advice) = &look.advice {
                let _ = writeln!(text, "{:<8} {:<width$}  -> {advice}", "", "");
            }
        }
        let [faults, warnings, skipped] = [Verdict::Fault, Verdict::Warning, Verdict::Skipped].map(|v| self.count(v));
        let _ = write!(text, "\n{} looks: {faults} faults, {warnings} warnings, {skipped} skipped", self.looks.len());
        text
    }

    /// The report for programs.
    pub fn json(&self) -> Value {
        let worst = self.looks.iter().map(|look| look.verdict).filter(|v| *v != Verdict::Skipped).max();
        json!({
            "service": self.service,
            "version": env!("CARGO_PKG_VERSION"),
            "verdict": worst.unwrap_or(Verdict::Ok),
            "looks": self.looks,
        })
    }
}

/// Notes which settings cannot be read, all of them; whether there are none.
pub fn settings(doctor: &mut Doctor, faults: &[SettingsError], seen: &str) -> bool {
    let texts: Vec<String> = faults.iter().map(ToString::to_string).collect();
    doctor.note(
        "settings",
        match texts.is_empty() {
            true => Finding::ok(seen),
            false => Finding::fault(texts.join("; "), "set what is named; README.md, \"Settings\", lists them all"),
        },
    )
}

/// Runs what blocks in a thread: a dead mount hangs whoever asks it.
async fn in_a_thread(look: impl FnOnce() -> Finding + Send + 'static) -> Finding {
    let broken = |_| Finding::fault("the look itself broke off", "report this");
    tokio::task::spawn_blocking(look).await.unwrap_or_else(broken)
}

/// What servers say may have several lines, and control characters.
fn one_line(text: &str) -> String {
    let words = text.split(|c: char| c.is_control()).map(str::trim).filter(|line| !line.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

/// Bytes as people read them.
fn size(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..10_000_000 => format!("{} kB", bytes / 1000),
        10_000_000..10_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{} GB", bytes / 1_000_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_report_ends_whatever_hangs_and_names_every_look() {
        let mut doctor = Doctor::new("test");
        let begun = Instant::now();
        assert!(doctor.look("fine", async { Finding::ok("here") }).await);
        for _ in 0..20 {
            assert!(!doctor.look("hangs", std::future::pending()).await);
        }
        assert!(begun.elapsed() <= limits::EXAMINATION, "{:?}", begun.elapsed());
        doctor.skip(&["a", "b"], "nobody is there");
        let document = doctor.json();
        assert_eq!(document["looks"].as_array().map(Vec::len), Some(23));
        assert_eq!((&document["verdict"], &document["looks"][0]["verdict"]), (&json!("fault"), &json!("ok")));
        assert_eq!(document["looks"][20]["verdict"], "skipped", "no time was left");
        assert!(doctor.text().contains("skipped  b      nobody is there"), "{}", doctor.text());
    }

    #[test]
    fn warnings_fail_only_who_is_strict() {
        let mut doctor = Doctor::new("test");
        doctor.skip(&["a"], "nothing");
        assert_eq!((doctor.exit_code(false), doctor.exit_code(true)), (0, 0));
        assert!(doctor.note("b", Finding::warning("old", "replace it")));
        assert_eq!((doctor.exit_code(false), doctor.exit_code(true)), (0, 1));
        assert!(!doctor.note("c", Finding::fault("two\nlines\u{7}", "join them")));
        assert_eq!((doctor.exit_code(false), doctor.exit_code(true)), (1, 1));
        assert!(doctor.text().contains("FAULT    c  two lines\n            -> join them\n"), "{}", doctor.text());
        assert!(doctor.text().ends_with("3 looks: 1 faults, 1 warnings, 1 skipped"));
    }
}
