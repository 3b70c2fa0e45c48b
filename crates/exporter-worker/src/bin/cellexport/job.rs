//! Jobs as a unit shows them.

use chrono::{DateTime, Utc};
use indicatif::HumanBytes;
pub(crate) use model::job::{JobKind as Kind, JobState as State};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use crate::cell::Cell;
use crate::client::{Answer, Client, Request, error_text};
use crate::failure::{Exit, Failure};

/// What is done, of how much.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Part {
    pub(crate) done: u64,
    pub(crate) total: Option<u64>,
}

/// What is looked at of a job's document.
#[derive(Debug, Clone, Deserialize)]
struct Fields {
    id: Uuid,
    kind: Kind,
    name: String,
    state: State,
    #[serde(default)]
    cancel_requested: bool,
    queue_position: Option<u64>,
    #[serde(default)]
    percent: u64,
    #[serde(default)]
    bytes: Part,
    bytes_per_second: Option<f64>,
    accepted_at: Option<String>,
    estimated_end: Option<String>,
    size: Option<u64>,
}

/// A job.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    fields: Fields,
    /// All that the unit says of it.
    pub(crate) document: Value,
}

impl Job {
    /// Reads a job's document.
    pub(crate) fn parse(document: Value) -> Result<Self, Failure> {
        let fields = Fields::deserialize(&document);
        let fields = fields.map_err(|e| Failure::new(Exit::Other, format!("the unit shows a job wrongly: {e}")))?;
        Ok(Self { fields, document })
    }

    /// Its id.
    pub(crate) fn id(&self) -> Uuid {
        self.fields.id
    }

    /// What it does.
    pub(crate) fn kind(&self) -> Kind {
        self.fields.kind
    }

    /// Name of its snapshot.
    pub(crate) fn name(&self) -> &str {
        &self.fields.name
    }

    /// Its state.
    pub(crate) fn state(&self) -> State {
        self.fields.state
    }

    /// When it was accepted.
    pub(crate) fn accepted_at(&self) -> Option<DateTime<Utc>> {
        time(self.fields.accepted_at.as_deref())
    }

    /// Hundredths that are done.
    pub(crate) fn percent(&self) -> u64 {
        self.fields.percent.min(100)
    }

    /// How it is doing, in words.
    pub(crate) fn progress(&self) -> String {
        let fields = &self.fields;
        let mut words = vec![fields.state.name().to_owned()];
        if fields.cancel_requested && !fields.state.is_final() {
            words.push("told to stop".to_owned());
        }
        if let (State::Queued, Some(place)) = (fields.state, fields.queue_position) {
            words.push(format!("number {place} in the queue"));
        }
        if fields.state == State::Running {
            words.push(format!("{} %", self.percent()));
            let done = HumanBytes(fields.bytes.done);
            words.push(match fields.bytes.total {
                Some(total) => format!("{done} of {}", HumanBytes(total.max(fields.bytes.done))),
                None => done.to_string(),
            });
            if let Some(rate) = fields.bytes_per_second.filter(|rate| rate.is_finite() && *rate >= 1.0) {
                words.push(format!("{}/s", HumanBytes(rate as u64)));
            }
            if let Some(end) = time(fields.estimated_end.as_deref()) {
                words.push(format!("{} s left", (end - Utc::now()).num_seconds().max(0)));
            }
        }
        if let (State::Succeeded, Some(size)) = (fields.state, fields.size) {
            words.push(format!("{size} bytes"));
        }
        words.join(", ")
    }

    /// The job in one line.
    pub(crate) fn line(&self) -> String {
        let line = format!("{} {} {}: {}", self.kind().noun(), self.name(), self.id(), self.progress());
        match self.error() {
            Some(error) => format!("{line}: {error}"),
            None => line,
        }
    }

    fn error(&self) -> Option<String> {
        error_text(&self.document["error"])
    }

    /// A job that has ended otherwise than well is a failure.
    pub(crate) fn succeeded(self) -> Result<Self, Failure> {
        let what = format!("the {} {}", self.kind().noun(), self.name());
        match self.state() {
            State::Succeeded => Ok(self),
            State::Cancelled => Err(Failure::new(Exit::JobFailed, format!("{what} was cancelled"))),
            State::Failed | State::Queued | State::Running => {
                let why = self.error().unwrap_or_else(|| "nobody says why".to_owned());
                Err(Failure::new(Exit::JobFailed, format!("{why} ({what} failed)")))
            }
        }
    }
}

fn time(text: Option<&str>) -> Option<DateTime<Utc>> {
    text?.parse().ok()
}

/// Finds a job of either kind by its id.
pub(crate) fn find(client: &Client, cell: &Cell, id: &str) -> Result<Job, Failure> {
    let id = parse_id(id)?;
    let answer = client.send_accepting(&Request::new("GET", &cell.job(Kind::Export, id)), &[404])?;
    let answer = match answer.status() {
        404 => client.send(&Request::new("GET", &cell.job(Kind::Import, id)))?,
        _ => answer,
    };
    Job::parse(answer.json()?)
}

fn parse_id(id: &str) -> Result<Uuid, Failure> {
    let next = "cellexport jobs CELL lists them";
    Uuid::try_parse(id).map_err(|_| Failure::new(Exit::Usage, format!("{id} is no id of a job")).next(next))
}

/// The id of the job that an answer names in its `Link`. Only the id is taken.
pub(crate) fn monitored(answer: &Answer) -> Option<Uuid> {
    let link = answer.header("link")?.split(',').find(|link| link.contains("rel=\"monitor\""))?;
    let url = link.trim().strip_prefix('<')?.split_once('>')?.0;
    Uuid::try_parse(url.rsplit('/').next()?).ok()
}

/// Up to so many jobs of one kind, newest first.
pub(crate) fn newest(client: &Client, cell: &Cell, kind: Kind, most: u32) -> Result<Vec<Job>, Failure> {
    let first = format!("{}?limit={}", cell.jobs(kind), most.min(crate::limits::JOBS_PAGE));
    let (mut page, mut jobs) = (first, Vec::new());
    loop {
        let mut document = client.send(&Request::new("GET", &page))?.json()?;
        let Value::Array(listed) = document["jobs"].take() else {
            return Err(Failure::new(Exit::Other, format!("{page} answered with no list of jobs")));
        };
        let is_empty = listed.is_empty();
        for job in listed {
            jobs.push(Job::parse(job)?);
            if jobs.len() >= most as usize {
                return Ok(jobs);
            }
        }
        // Of the next page's URL only the query is taken.
        match document["next"].as_str().and_then(|next| next.split_once('?')) {
            Some((_, query)) if !is_empty => page = format!("{}?{query}", cell.jobs(kind)),
            _ => return Ok(jobs),
        }
    }
}
