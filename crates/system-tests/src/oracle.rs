//! The judge after a fault: reads the history and the rows, lists and downloads everything, and says what must not be.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use sha2::{Digest, Sha256};
use sqlx::Row;

use crate::history::History;
use crate::ledger;
use crate::process;
use crate::system::System;

/// Writes down what becomes of every job and every name, beside the services' own tables.
pub fn observe(system: &System) {
    for statement in OBSERVER {
        system.execute(statement);
    }
}

const OBSERVER: &[&str] = &[
    "CREATE TABLE observed (n bigserial, job uuid, kind text, was text, is_now text, attempt_was int, attempt int, strikes int,
                            name text, at timestamptz NOT NULL DEFAULT clock_timestamp())",
    "CREATE TABLE observed_entry (n bigserial, cell_id text, base_name text, job uuid, was text, is_now text)",
    "CREATE FUNCTION observe_job() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
     BEGIN
       IF TG_OP = 'INSERT' OR (NEW.state, NEW.attempt, NEW.strikes) IS DISTINCT FROM (OLD.state, OLD.attempt, OLD.strikes) THEN
         INSERT INTO observed (job, kind, was, is_now, attempt_was, attempt, strikes, name)
         VALUES (NEW.id, NEW.kind, CASE TG_OP WHEN 'UPDATE' THEN OLD.state::text END, NEW.state::text,
                 CASE TG_OP WHEN 'UPDATE' THEN OLD.attempt END, NEW.attempt, NEW.strikes, NEW.name);
       END IF;
       RETURN NULL;
     END $$",
    "CREATE TRIGGER observe_job AFTER INSERT OR UPDATE ON job FOR EACH ROW EXECUTE FUNCTION observe_job()",
    "CREATE FUNCTION observe_entry() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
     BEGIN
       INSERT INTO observed_entry (cell_id, base_name, job, was, is_now)
       VALUES (coalesce(NEW.cell_id, OLD.cell_id), coalesce(NEW.base_name, OLD.base_name), coalesce(NEW.job_id, OLD.job_id),
               CASE WHEN TG_OP <> 'INSERT' THEN OLD.kind END, CASE WHEN TG_OP <> 'DELETE' THEN NEW.kind END);
       RETURN NULL;
     END $$",
    "CREATE TRIGGER observe_entry AFTER INSERT OR UPDATE OR DELETE ON snapshot_entry
     FOR EACH ROW EXECUTE FUNCTION observe_entry()",
];

/// What a test knows better than the oracle.
#[derive(Debug, Clone)]
pub struct Expected {
    /// Codes with which an export may end.
    pub errors: &'static [&'static str],
    /// How long after the healing every job must be final.
    pub patience: Duration,
    /// Of the files every so many are downloaded and read; of the others only the rows are looked at.
    pub every: usize,
    /// A worker is there that listens, so that doorbells nobody needs any more are taken from the queue.
    pub listening: bool,
}

impl Default for Expected {
    fn default() -> Self {
        Self { errors: &[], patience: Duration::from_secs(60), every: 1, listening: true }
    }
}

/// What the oracle found.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// Exports that were accepted, those included whose client never heard of it.
    pub exports: usize,
    /// Exports during which a fault was made or lasted, or of which some attempt came to nothing.
    pub faulted: usize,
    /// Exports of which some attempt came to nothing.
    pub retried: usize,
    /// Exports that ended as a zip.
    pub zips: usize,
    /// First claims of which no worker says that it began: it died at once, or never heard that the job was its.
    pub unheard: usize,
    /// What must not be.
    pub violations: Vec<String>,
}

/// Waits until all jobs are final, judges, and fails when anything is wrong. A line about it goes to the summary.
pub fn judge(system: &System, history: &History, expected: &Expected) -> Verdict {
    let mut oracle = Oracle { system, expected, verdict: Verdict::default() };
    oracle.wait();
    oracle.jobs();
    oracle.accepted(&history.lines());
    oracle.faulted(&history.faults());
    oracle.cells();
    oracle.leftovers();
    oracle.files();
    oracle.logs();
    let verdict = oracle.verdict;
    summarise(history, &verdict);
    assert!(
        verdict.violations.is_empty(),
        "{} violations, the history is in {}:\n{}",
        verdict.violations.len(),
        history.path().display(),
        verdict.violations.join("\n")
    );
    verdict
}

/// Adds a line to the summary of all tests, and shows it.
fn summarise(history: &History, verdict: &Verdict) {
    let line = format!(
        "{} ({:.0} s): {} exports, {} under a fault, {} in more than one attempt, {} unheard claims, {} violations",
        history.name(),
        history.age().as_secs_f64(),
        verdict.exports,
        verdict.faulted,
        verdict.retried,
        verdict.unheard,
        verdict.violations.len()
    );
    println!("{line}");
    let path = history.path().with_file_name("summary");
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    let written = file.and_then(|mut file| std::io::Write::write_all(&mut file, format!("{line}\n").as_bytes()));
    written.expect("the summary can be written");
}

/// Makes queued jobs due at once: the pauses after a failure are real in the services, and too long for tests. `false`:
/// the database does not answer.
pub fn hurry(system: &System) -> bool {
    system.try_execute(
        "UPDATE job SET available_at = clock_timestamp(), dispatch_at = clock_timestamp()
         WHERE state = 'queued' AND available_at > clock_timestamp()",
    )
}

struct Oracle<'a> {
    system: &'a System,
    expected: &'a Expected,
    verdict: Verdict,
}

#[derive(Debug)]
struct Shown {
    cell: String,
    name: String,
    kind: String,
    key: Option<String>,
    size: i64,
    sha256: String,
    by_job: bool,
}

impl Oracle<'_> {
    fn fault(&mut self, what: impl Into<String>) {
        self.verdict.violations.push(what.into());
    }

    fn rows<T>(&self, statement: &'static str, read: impl Fn(&sqlx::postgres::PgRow) -> T) -> Vec<T> {
        let rows = self.system.block_on(sqlx::query(statement).fetch_all(self.system.pool()));
        rows.expect("the statement runs").iter().map(read).collect()
    }

    fn wait(&mut self) {
        let until = Instant::now() + self.expected.patience;
        let active = "SELECT count(*) FROM job WHERE state IN ('queued', 'running')";
        while self.system.value(active) != "0" {
            if Instant::now() > until {
                let left = self.rows("SELECT to_jsonb(job)::text FROM job WHERE state IN ('queued', 'running')", text);
                return self.fault(format!("never final: {}", left.join("\n  ")));
            }
            hurry(self.system);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Nothing is final twice, attempts and strikes only grow, a job succeeds by its last attempt.
    fn jobs(&mut self) {
        let wrong = self.rows(
            "SELECT 'job ' || job || ' became final ' || count(*) || ' times' FROM observed
             WHERE is_now IN ('succeeded', 'failed', 'cancelled') AND was IS DISTINCT FROM is_now
             GROUP BY job HAVING count(*) <> 1
             UNION ALL
             SELECT 'job ' || job || ': attempt ' || attempt_was || ' became ' || attempt FROM observed
             WHERE attempt NOT IN (attempt_was, attempt_was + 1)
             UNION ALL
             SELECT 'job ' || id || ' is ' || state || ' but nobody saw it' FROM job
             WHERE NOT EXISTS (SELECT FROM observed WHERE job = job.id AND is_now = job.state::text)
             UNION ALL
             SELECT 'a file of ' || cell_id || ' changed from ' || was || ' to ' || coalesce(is_now, 'nothing') || ': ' || base_name
             FROM observed_entry WHERE was = 'zip' AND is_now IN ('pending', 'error')
             UNION ALL
             SELECT 'job ' || id || ' of generation ' || attempt || ' has a lease' FROM job
             WHERE lease_owner IS NOT NULL AND state <> 'running'",
            text,
        );
        self.verdict.violations.extend(wrong);
        let retried =
            self.rows("SELECT count(*) FROM job WHERE kind = 'export' AND attempt > 1", |row| row.get::<i64, _>(0));
        self.verdict.retried = retried[0] as usize;
    }

    /// Every 202 of the history has its job, and every job was asked for.
    fn accepted(&mut self, history: &[Value]) {
        let mut asked: BTreeMap<(String, String, String), (i64, i64)> = BTreeMap::new();
        for line in history {
            let field = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
            let order = (field("kind"), field("cell"), field("name"));
            match field("what").as_str() {
                "accepted" => asked.entry(order).or_default().0 += 1,
                "nothing" => asked.entry(order).or_default().1 += 1,
                // After such an answer nobody knows.
                "refused" if field("code") == "PR503-SV-0006" => asked.entry(order).or_default().1 += 1,
                _ => {}
            }
        }
        asked.retain(|(kind, _, _), _| matches!(kind.as_str(), "export" | "import"));
        let jobs: BTreeMap<(String, String, String), i64> = self
            .rows(
                "SELECT kind, cell.name, job.name, count(*) FROM job JOIN cell ON cell.id = job.cell_id
                 GROUP BY kind, cell.name, job.name",
                |row| ((row.get(0), row.get(1), row.get(2)), row.get::<i64, _>(3)),
            )
            .into_iter()
            .collect();
        for (order, (accepted, unknown)) in &asked {
            let there = jobs.get(order).copied().unwrap_or(0);
            if !(*accepted..=accepted + unknown).contains(&there) {
                self.fault(format!(
                    "{order:?}: accepted {accepted} times, perhaps {unknown} more, there are {there} jobs"
                ));
            }
        }
        for order in jobs.keys().filter(|order| !asked.contains_key(*order)) {
            self.fault(format!("{order:?}: nobody asked for it"));
        }
        self.verdict.exports = jobs.iter().filter(|((kind, _, _), _)| kind == "export").map(|(_, n)| *n as usize).sum();
    }

    /// Counts the exports that had to do with a fault.
    fn faulted(&mut self, faults: &[(f64, f64)]) {
        let lives = self.rows(
            "SELECT extract(epoch FROM accepted_at)::float8, coalesce(extract(epoch FROM finished_at), 0)::float8, attempt > 1
             FROM job WHERE kind = 'export'",
            |row| (row.get::<f64, _>(0), row.get::<f64, _>(1), row.get::<bool, _>(2)),
        );
        let meets = |(from, to): (f64, f64)| faults.iter().any(|(begun, over)| *begun <= to && *over >= from);
        self.verdict.faulted = lives.iter().filter(|(from, to, retried)| *retried || meets((*from, *to))).count();
    }

    /// What is listed is what the rows say, and can be had.
    fn cells(&mut self) {
        let shown = self.rows(
            "SELECT c.name, e.base_name, e.kind, e.blob_key, coalesce(e.size, 0), coalesce(encode(e.sha256, 'hex'), ''),
                    e.job_id IS NOT NULL
             FROM snapshot_entry e JOIN cell c ON c.id = e.cell_id ORDER BY 1, 2",
            |row| Shown {
                cell: row.get(0),
                name: row.get(1),
                kind: row.get(2),
                key: row.get(3),
                size: row.get(4),
                sha256: row.get(5),
                by_job: row.get(6),
            },
        );
        let wrong = self.rows(
            "SELECT 'job ' || j.id || ' (' || j.name || ') is ' || j.state || ', its file is ' || coalesce(e.kind, 'gone')
             FROM job j LEFT JOIN snapshot_entry e ON e.job_id = j.id
             WHERE j.kind = 'export' AND e.kind IS NOT NULL
               AND (e.kind, e.blob_key, e.sha256, e.size) IS DISTINCT FROM
                   (CASE WHEN j.state = 'succeeded' THEN 'zip' ELSE 'error' END, j.blob_key, j.blob_sha256, j.blob_size)
             UNION ALL
             SELECT 'job ' || j.id || ' (' || j.name || ') has no file, and nobody took it away' FROM job j
             WHERE j.kind = 'export' AND NOT EXISTS (SELECT FROM snapshot_entry e WHERE e.job_id = j.id)
               AND NOT EXISTS (SELECT FROM observed_entry o
                               WHERE o.cell_id = j.cell_id AND o.base_name = j.name AND o.was IN ('zip', 'error')
                                 AND (o.is_now IS NULL OR o.job IS DISTINCT FROM j.id OR o.is_now = 'pending'))",
            text,
        );
        self.verdict.violations.extend(wrong);
        let cells: BTreeSet<String> = shown.iter().map(|s| s.cell.clone()).collect();
        for cell in cells {
            let of_cell: Vec<&Shown> = shown.iter().filter(|s| s.cell == cell).collect();
            let names: BTreeSet<String> = of_cell.iter().map(|s| format!("{}.{}", s.name, s.kind)).collect();
            let listed: BTreeSet<String> = self.system.files(&cell).into_iter().collect();
            if names != listed {
                self.fault(format!("{cell}: listed {listed:?}, the rows say {names:?}"));
            }
            for shown in of_cell.into_iter().step_by(self.expected.every) {
                self.file(shown);
            }
        }
    }

    fn file(&mut self, shown: &Shown) {
        let of = format!("/{}/__snapshot/{}.{}", shown.cell, shown.name, shown.kind);
        let answer = self.system.request("GET", &of, &[], None);
        let other = if shown.kind == "zip" { "error" } else { "zip" };
        let other = format!("/{}/__snapshot/{}.{other}", shown.cell, shown.name);
        if self.system.request("GET", &other, &[], None).status != 404 {
            self.fault(format!("{of}: the other file is there too"));
        }
        if answer.status != 200 {
            return self.fault(format!("{of}: {} {}", answer.status, answer.text()));
        }
        if shown.kind == "error" {
            if !self.expected.errors.contains(&answer.code().as_str()) {
                self.fault(format!("{of}: {}", answer.text()));
            }
            return;
        }
        self.verdict.zips += 1;
        let stored = self.system.area().join(shown.key.as_deref().unwrap_or_default().trim_start_matches("snapshots/"));
        let bytes = std::fs::read(&stored).unwrap_or_default();
        let digest = hex::encode(Sha256::digest(&answer.body));
        if digest != shown.sha256 || answer.body.len() as i64 != shown.size || bytes != answer.body {
            self.fault(format!("{of}: what comes is not what was written"));
        }
        if shown.by_job
            && let Err(what) = ledger::read(&stored)
        {
            self.fault(format!("{of}: {what}"));
        }
    }

    /// After a sweep every file has its row, and every row its file.
    fn files(&mut self) {
        // Contents go when they are found for the second time.
        for _ in 0..2 {
            let swept = process::run("examples/sweep", &["0", "0"], &self.system.service_environment("WORKER_"));
            if !swept.status.success() {
                return self.fault(format!("the sweeper failed: {}", String::from_utf8_lossy(&swept.stderr)));
            }
        }
        let keys = |found: Vec<String>| found.into_iter().collect::<BTreeSet<_>>();
        let rows = keys(self.rows("SELECT blob_key FROM snapshot_entry WHERE blob_key IS NOT NULL", text));
        let files = keys(below(&self.system.area(), "snapshots"));
        for stray in files.symmetric_difference(&rows) {
            self.fault(format!("{stray}: a file without a row, or a row without a file"));
        }
        let rows = keys(self.rows("SELECT replace(id::text, '-', '') FROM blob", text));
        let blobs = below(&self.system.blobs(), "");
        let files = keys(blobs.iter().filter_map(|path| path.rsplit('/').next()).map(str::to_owned).collect());
        for stray in files.symmetric_difference(&rows) {
            self.fault(format!("blob {stray}: a file without a row, or a row without a file"));
        }
    }

    /// What must be gone soon after everything is final.
    fn leftovers(&mut self) {
        let broker = self.expected.listening.then(|| self.system.broker());
        // A worker that was without its broker for long tries again every half a minute.
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let mut left = String::new();
            let counts = [
                ("generations that nobody names", "SELECT count(*) FROM generation"),
                (
                    "documents that nobody names",
                    "SELECT count(*) FROM document WHERE generation NOT IN (SELECT generation FROM cell)",
                ),
                (
                    "sessions idle in a transaction",
                    "SELECT count(*) FROM pg_stat_activity
                     WHERE datname = current_database() AND state LIKE 'idle in transaction%'",
                ),
            ];
            for (what, statement) in counts {
                let count = self.system.value(statement);
                if count != "0" {
                    let _ = writeln!(left, "{count} {what} are left");
                }
            }
            if let Some(broker) = &broker {
                let (waiting, consumers) = self.system.block_on(broker.waiting());
                if waiting > 0 || consumers == 0 {
                    let _ = writeln!(left, "{waiting} doorbells wait for {consumers} consumers");
                }
            }
            if left.is_empty() {
                return;
            }
            if Instant::now() > until {
                return self.fault(left.trim_end().to_owned());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Nothing panicked but what was made to.
    fn logs(&mut self) {
        let mut begun = 0;
        for log in self.system.logs().collect::<Vec<_>>() {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            begun += lines.iter().filter(|line| line.contains(r#""message":"job begins""#)).count();
            for (number, line) in lines.iter().enumerate() {
                // The message of a panic stands in the line behind.
                let made =
                    line.contains("failpoint") || lines.get(number + 1).is_some_and(|next| next.contains("failpoint"));
                if line.contains("panicked at") && !made {
                    self.fault(format!("{}: {line} {}", log.display(), lines.get(number + 1).unwrap_or(&"")));
                }
            }
        }
        let claims = self
            .system
            .value("SELECT count(*) FROM observed WHERE was = 'queued' AND is_now = 'running' AND attempt = 1");
        let claims: usize = claims.parse().unwrap_or_default();
        self.verdict.unheard = claims.saturating_sub(begun);
    }
}

fn text(row: &sqlx::postgres::PgRow) -> String {
    row.get(0)
}

/// The files below a directory, their paths below `prefix`.
fn below(directory: &Path, prefix: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        match entry.path().is_dir() {
            true => found.extend(below(&entry.path(), &path)),
            false => found.push(path),
        }
    }
    found
}
