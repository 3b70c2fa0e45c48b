//! Commands about jobs: giving them, watching them, cancelling them.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::cell::Cell;
use crate::client::{Client, Request};
use crate::configuration::Configuration;
use crate::failure::{Exit, Failure};
use crate::interrupt::{self, Interruption};
use crate::job::{self, Job, Kind, State};
use crate::limits;
use crate::progress::Progress;
use crate::terminal::{Output, quoted};

/// Where commands happen.
pub(crate) struct Scene<'s> {
    pub(crate) configuration: &'s Configuration,
    pub(crate) client: &'s Client,
    pub(crate) cell: Cell,
}

/// What to do about an order that was accepted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// Wait for the job's end.
    pub(crate) wait: bool,
    /// An interruption cancels the job.
    pub(crate) cancel_on_interrupt: bool,
}

impl Scene<'_> {
    fn output(&self) -> Output {
        self.configuration.output
    }

    fn command(&self, words: &str) -> String {
        let (name, rest) = words.split_once(' ').unwrap_or((words, ""));
        let command = format!("{} {name} {} {rest}", self.configuration.again, quoted(self.cell.url()));
        command.trim_end().to_owned()
    }

    /// Orders a job. Gives it back when it was waited for, whatever became of it.
    pub(crate) fn order(&self, kind: Kind, name: Option<&str>, patience: Patience) -> Result<Option<Job>, Failure> {
        let jobs = self.command("jobs");
        let unknown = format!("whether the {} was accepted is not known; look with: {jobs}", kind.noun());
        interrupt::means(Interruption::Leave(unknown));
        let body = name.map_or_else(|| json!({}), |name| json!({ "Name": name }));
        let url = self.cell.orders(kind);
        let answer = self.client.send(&Request::order(&url, &body)).map_err(|failure| match failure.exit {
            Exit::Conflict => failure.next(format!("look with: {jobs}")),
            Exit::Unavailable => failure.next(format!("look whether it was accepted with: {jobs}")),
            Exit::Other | Exit::Usage | Exit::JobFailed | Exit::NotFound | Exit::NotAllowed => failure,
            Exit::Faulty | Exit::Interrupted => failure,
        })?;
        let Some(id) = job::monitored(&answer) else {
            let status = self.command("status");
            if patience.wait {
                let what = format!("the {} was accepted, but this unit has no jobs to wait for", kind.noun());
                return Err(Failure::new(Exit::Other, what).next(format!("look with: {status}")));
            }
            let line = format!("{} accepted; look with: {status}", kind.noun());
            self.output().result(&[line], &json!({ "status": "accepted", "kind": kind.noun() }))?;
            return Ok(None);
        };
        if patience.wait {
            return self.until_end(kind, id, patience.cancel_on_interrupt).map(Some);
        }
        let job = self.look(kind, id)?;
        self.output().result(&[job.line()], &job.document)?;
        self.output().say(&format!("come back with: {}", self.command(&format!("status {id} --wait"))));
        Ok(None)
    }

    fn look(&self, kind: Kind, id: Uuid) -> Result<Job, Failure> {
        Job::parse(self.client.send(&Request::new("GET", &self.cell.job(kind, id)))?.json()?)
    }

    /// Waits for the end of a job.
    pub(crate) fn until_end(&self, kind: Kind, id: Uuid, cancel_on_interrupt: bool) -> Result<Job, Failure> {
        let url = self.cell.job(kind, id);
        let mut progress = Progress::new(self.output());
        interrupt::means(if cancel_on_interrupt {
            let (client, url) = (self.client.clone(), url.clone());
            Interruption::Cancel(Box::new(move || match cancel_at(&client, &url) {
                // It has ended by itself; whoever waits for it learns how.
                Err(failure) if failure.exit == Exit::Conflict => Ok(()),
                told => told.map(|_| ()),
            }))
        } else {
            let status = self.command(&format!("status {id} --wait"));
            Interruption::Leave(format!("the {} goes on; come back with: {status}", kind.noun()))
        });
        loop {
            let answer = self.client.send(&Request::new("GET", &url).held(progress.pace()))?;
            let was_held = answer.header("preference-applied").is_some();
            let pause = answer.retry_after().unwrap_or(limits::LOOK).min(limits::PAUSE_MAX);
            let job = Job::parse(answer.json()?)?;
            progress.job(&job);
            if job.state().is_final() {
                interrupt::means_the_end();
                if job.state() == State::Cancelled && interrupt::happened() {
                    let what = format!("the {} {} was cancelled", kind.noun(), job.name());
                    return Err(Failure::new(Exit::Interrupted, what));
                }
                return Ok(job);
            }
            if !was_held {
                std::thread::sleep(pause);
            }
        }
    }

    /// Shows a job that has ended; one that failed is a failure.
    pub(crate) fn ended(&self, job: Job) -> Result<Job, Failure> {
        let output = self.output();
        if output.json || job.state() == State::Succeeded {
            output.result(&[job.line()], &job.document)?;
        }
        job.succeeded()
    }

    /// Shows what a dry run has found; a snapshot that cannot be imported is a failure.
    pub(crate) fn found(&self, job: Job) -> Result<(), Failure> {
        if job.state() != State::Succeeded {
            return self.ended(job).map(|_| ());
        }
        let found = &job.document["result"];
        self.output().result(&found_lines(found), &job.document)?;
        match found["importable"].as_bool() {
            Some(true) => Ok(()),
            _ => {
                let count = found["faults"]["count"].as_u64().unwrap_or_default();
                Err(Failure::new(Exit::Faulty, format!("{} cannot be imported, faults: {count}", job.name())))
            }
        }
    }

    /// Shows one job, or the last ones of the cell.
    pub(crate) fn status(&self, id: Option<&str>, patience: Patience) -> Result<(), Failure> {
        if let Some(id) = id {
            let job = job::find(self.client, &self.cell, id)?;
            if patience.wait {
                let job = self.until_end(job.kind(), job.id(), patience.cancel_on_interrupt)?;
                return match job.kind() {
                    Kind::DryRun => self.found(job),
                    Kind::Export | Kind::Import => self.ended(job).map(|_| ()),
                };
            }
            return self.output().result(&[job.line()], &job.document);
        }
        let (mut lines, mut document) = (Vec::new(), json!({}));
        for (kind, member) in [(Kind::Export, "export"), (Kind::Import, "import")] {
            match job::newest(self.client, &self.cell, kind, 1) {
                Ok(mut jobs) => {
                    let job = jobs.pop();
                    lines.push(job.as_ref().map_or_else(|| format!("no {member}"), Job::line));
                    document[member] = job.map_or(Value::Null, |job| job.document);
                }
                // A unit without jobs has this at least.
                Err(failure) if failure.exit == Exit::NotFound => {
                    let report = self.client.send(&Request::new("GET", &self.cell.orders(kind)))?.json()?;
                    let status = report["status"].as_str().unwrap_or_default();
                    let progress = report["progress"].as_str().unwrap_or_default();
                    lines.push(format!("{member}: {status} {progress}").trim_end().to_owned());
                    document[member] = report;
                }
                Err(failure) => return Err(failure),
            }
        }
        self.output().result(&lines, &document)
    }

    /// Lists jobs of all kinds, newest first.
    pub(crate) fn jobs(&self, most: u32) -> Result<(), Failure> {
        let mut jobs = job::newest(self.client, &self.cell, Kind::Export, most)?;
        jobs.extend(job::newest(self.client, &self.cell, Kind::Import, most)?);
        jobs.sort_by_key(|job| std::cmp::Reverse(job.accepted_at()));
        jobs.truncate(most as usize);
        let lines: Vec<String> =
            jobs.iter().map(|job| format!("{}  {}", time(job.accepted_at()), job.line())).collect();
        let documents: Vec<Value> = jobs.into_iter().map(|job| job.document).collect();
        self.output().result(&lines, &json!({ "jobs": documents }))
    }

    /// Cancels a job, and waits until that is done.
    pub(crate) fn cancel(&self, id: Option<&str>) -> Result<(), Failure> {
        let job = match id {
            Some(id) => job::find(self.client, &self.cell, id)?,
            None => self.active()?,
        };
        let was_told = cancel_at(self.client, &self.cell.job(job.kind(), job.id()))?;
        let job = match was_told {
            true => self.until_end(job.kind(), job.id(), false)?,
            false => self.look(job.kind(), job.id())?,
        };
        self.output().result(&[job.line()], &job.document)?;
        if job.state() == State::Cancelled {
            return Ok(());
        }
        Err(Failure::new(Exit::Conflict, format!("it was too late: the job has {}", job.state().name())))
    }

    fn active(&self) -> Result<Job, Failure> {
        for kind in [Kind::Export, Kind::Import] {
            // A cell has one at most, and it is the newest.
            let jobs = job::newest(self.client, &self.cell, kind, 1)?;
            if let Some(job) = jobs.into_iter().find(|job| !job.state().is_final()) {
                return Ok(job);
            }
        }
        Err(Failure::new(Exit::NotFound, "no job of this cell is waiting or running"))
    }
}

/// Cancels a job; tells whether its worker was only told to stop.
fn cancel_at(client: &Client, url: &str) -> Result<bool, Failure> {
    let answer = client.send(&Request::new("DELETE", url).repeatable())?;
    Ok(answer.status() == 202)
}

fn time(time: Option<DateTime<Utc>>) -> String {
    time.map_or_else(|| "-".to_owned(), |time| time.format("%Y-%m-%d %H:%M:%S").to_string())
}

/// What a dry run has found: what would change, and every fault on a line.
fn found_lines(found: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    let changes = &found["changes"];
    let of_types = changes["documents"].as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value));
    for (name, value) in of_types.chain([("files", &changes["files"]), ("collections", &changes["collections"])]) {
        let Some(counts) = value.as_object() else { continue };
        let moved: Vec<String> = counts
            .iter()
            .filter(|(_, count)| count.as_i64().is_some_and(|count| count != 0))
            .map(|(what, count)| format!("{count} {what}"))
            .collect();
        if !moved.is_empty() {
            lines.push(format!("{name}: {}", moved.join(", ")));
        }
    }
    let listed = found["faults"]["listed"].as_array();
    lines.extend(listed.into_iter().flatten().filter_map(|fault| Some(format!("fault: {}", fault.as_str()?))));
    if found["importable"] == true {
        lines.push("an import would succeed".to_owned());
    }
    lines
}
