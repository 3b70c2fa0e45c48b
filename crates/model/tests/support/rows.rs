//! Rows as values: what each shipped call does to them on a real PostgreSQL, and what must hold of them.
//!
//! What a call does depends on the rows and on nothing else, once times are reduced to what the statements ask of them:
//! has it passed, will it, will it never. So every pair of rows and call is executed once, in a transaction that is
//! rolled back, and remembered.

use std::collections::{HashMap, HashSet};

use model::area::SnapshotKey;
use model::cell::CellId;
use model::error_code::{ErrorBody, ErrorCode};
use model::job::{Amount, JobKind, JobState, Progress};
use model::limits;
use model::snapshot_name::{SnapshotFileName, SnapshotName};
use model::store::StoreError;
use model::store::jobs::{self, AcceptError, Admission, Beat, Cancelling, Fence, FinishedBlob, NewJob, Requeued};
use model::store::snapshots::{self, ChangeError, Conditions, Uploaded};
use serde::Deserialize;
use serde_json::Value;
use sqlx::{Connection, PgConnection, PgPool};
use uuid::Uuid;

/// A job of the model: its place in the list of orders.
pub(crate) type Number = usize;
/// Rows that were seen.
pub(crate) type RowsId = usize;

/// What a user orders.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Order {
    pub(crate) kind: JobKind,
    pub(crate) max_strikes: i32,
    /// How often an attempt may be given back without a strike: any number would never end.
    pub(crate) free_returns: i32,
}

/// One attempt at one job; the token of its claim follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Attempt {
    pub(crate) job: Number,
    pub(crate) number: i32,
}

impl Attempt {
    fn token(self) -> Uuid {
        Uuid::from_u128((self.job as u128 + 1) << 32 | self.number as u128)
    }

    pub(crate) fn key(self) -> SnapshotKey {
        SnapshotKey { job: id(self.job), attempt: self.number, token: self.token() }
    }

    fn fence(self) -> Fence {
        Fence { job: id(self.job), attempt: self.number, owner: self.token().simple().to_string() }
    }

    /// What it writes is told apart by its digest.
    fn blob(self) -> FinishedBlob {
        FinishedBlob { key: self.key().text(), size: 9, sha256: self.sha256(), contents: Amount::default() }
    }

    fn sha256(self) -> [u8; 32] {
        [(self.job as u8 + 1) << 4 | self.number as u8; 32]
    }

    /// Tells whether a digest, as the database prints it, is that of what this attempt writes.
    pub(crate) fn wrote(self, sha256: &str) -> bool {
        sha256 == format!("\\x{}", format!("{:02x}", self.sha256()[0]).repeat(32))
    }
}

/// A shipped call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Call {
    Accept(Number),
    Claim(Option<Number>),
    Beat(Attempt),
    CancelRequested(Attempt),
    Succeed(Attempt),
    SucceedDryRun(Attempt),
    End(Attempt, JobState),
    GiveBack(Attempt, bool),
    Find(Number),
    Cancel(Number),
    Reap,
    Due,
    Delete(&'static str),
    Put,
}

/// What a call answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Done, or there was nothing to do.
    Is(bool),
    Claimed(Option<Attempt>),
    Beat(Option<Beat>),
    GivenBack(Requeued),
    Found(JobState, i32),
    Cancelling(Cancelling),
    Jobs(Vec<Number>),
    /// What no statement should ever run into.
    Error(String),
}

/// When something is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Time {
    Past,
    Near,
    Never,
}

/// What the model looks at of a job's row.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Job {
    id: Uuid,
    cell_id: String,
    state: String,
    kind: String,
    pub(crate) attempt: i32,
    pub(crate) strikes: i32,
    pub(crate) max_strikes: i32,
    cancel_requested: bool,
    pub(crate) lease_until: Option<Time>,
    pub(crate) available_at: Time,
    pub(crate) dispatch_at: Time,
    pub(crate) deadline_at: Time,
    pub(crate) source_key: Option<String>,
    blob_key: Option<String>,
    blob_sha256: Option<String>,
    error: Option<String>,
    result: Option<String>,
}

impl Job {
    pub(crate) fn number(&self) -> Number {
        self.id.as_u128() as Number - 1
    }

    pub(crate) fn state(&self) -> JobState {
        JobState::parse(&self.state).expect("a known state")
    }

    fn is_export(&self) -> bool {
        self.kind == JobKind::Export.name()
    }
}

/// What the model looks at of an entry's row.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Entry {
    cell_id: String,
    base_name: String,
    pub(crate) kind: String,
    job_id: Option<Uuid>,
    pub(crate) blob_key: Option<String>,
    pub(crate) sha256: Option<String>,
    body: Option<String>,
}

impl Entry {
    /// The job that made it; nothing for an upload.
    pub(crate) fn job(&self) -> Option<Number> {
        self.job_id.map(|id| id.as_u128() as Number - 1)
    }
}

/// All rows of the database.
#[derive(Debug, Clone)]
pub(crate) struct Rows {
    value: Value,
    pub(crate) jobs: Vec<Job>,
    pub(crate) entries: Vec<Entry>,
    /// Names of the files that clients see.
    pub(crate) listed: Vec<String>,
    /// Keys of files that may be swept.
    garbage: HashSet<String>,
}

impl Rows {
    pub(crate) fn job(&self, number: Number) -> Option<&Job> {
        self.jobs.iter().find(|j| j.number() == number)
    }

    /// Tells whether an attempt owns its job.
    pub(crate) fn owned(&self, attempt: Attempt) -> bool {
        self.job(attempt.job).is_some_and(|j| j.state() == JobState::Running && j.attempt == attempt.number)
    }

    pub(crate) fn all_final(&self) -> bool {
        self.jobs.iter().all(|j| j.state().is_final())
    }

    /// Tells whether a sweeper that finds this file takes it.
    pub(crate) fn is_garbage(&self, key: &str) -> bool {
        reread(key).is_some_and(|key| self.garbage.contains(&key.text()))
    }

    /// What is wrong with rows, whoever wrote them.
    fn fault(&self) -> Option<String> {
        let names: HashSet<_> = self.entries.iter().map(|e| (&e.cell_id, &e.base_name)).collect();
        if names.len() != self.entries.len() {
            return Some("two files of one base name".to_owned());
        }
        let active: Vec<_> = self.jobs.iter().filter(|j| !j.state().is_final()).collect();
        let busy: HashSet<_> = active.iter().map(|j| &j.cell_id).collect();
        if busy.len() != active.len() {
            return Some("two active jobs of one cell".to_owned());
        }
        let lost =
            |job: &&Job| job.is_export() && !self.entries.iter().any(|e| is_pending(e) && e.job_id == Some(job.id));
        if let Some(job) = active.iter().copied().find(lost) {
            return Some(format!("the name of active job {} is not reserved", job.number()));
        }
        self.entries.iter().find_map(|entry| self.entry_fault(entry))
    }

    fn entry_fault(&self, entry: &Entry) -> Option<String> {
        let job = entry.job_id?;
        let Some(job) = self.jobs.iter().find(|j| j.id == job) else { return Some("a file of no job".to_owned()) };
        let fits = match job.state() {
            JobState::Queued | JobState::Running => is_pending(entry),
            JobState::Succeeded => {
                entry.kind == "zip" && entry.blob_key == job.blob_key && entry.sha256 == job.blob_sha256
            }
            JobState::Failed | JobState::Cancelled => entry.kind == "error" && entry.body == job.error,
        };
        (!fits).then(|| format!("job {} is {}, its file is {}", job.number(), job.state, entry.kind))
    }

    /// What is wrong with a call that led from these rows to others.
    fn step_fault(&self, call: Call, after: &Rows) -> Option<String> {
        for old in &self.jobs {
            let number = old.number();
            let Some(new) = after.job(number) else { return Some(format!("accepted job {number} is lost")) };
            if new.attempt < old.attempt || new.attempt > old.attempt + 1 {
                return Some(format!("attempt of job {number} from {} to {}", old.attempt, new.attempt));
            }
            let outcome = |j: &Job| (j.state(), j.attempt, j.blob_key.clone(), j.error.clone(), j.result.clone());
            if old.state().is_final() && outcome(old) != outcome(new) {
                return Some(format!("job {number} was {} and is {}", old.state, new.state));
            }
            if old.cancel_requested && !old.state().is_final() && new.state() == JobState::Succeeded {
                return Some(format!("job {number} was cancelled and succeeded"));
            }
            let ends = !old.state().is_final() && new.state().is_final();
            if ends && new.is_export() && !after.entries.iter().any(|e| e.job_id == Some(old.id)) {
                return Some(format!("job {number} is {} and its file is not listed", new.state));
            }
        }
        // Only whoever orders, deletes or uploads changes a file that is there.
        let visible = self.entries.iter().filter(|e| !is_pending(e));
        let users = matches!(call, Call::Accept(_) | Call::Delete(_) | Call::Put);
        if !users && visible.clone().any(|e| !after.entries.contains(e)) {
            return Some("a visible file changed".to_owned());
        }
        let revived = self.garbage.iter().find(|key| !after.garbage.contains(*key));
        revived.map(|key| format!("{key} was garbage and is needed again"))
    }
}

fn is_pending(entry: &Entry) -> bool {
    entry.kind == "pending"
}

/// The database of the model: one cell, whose rows are put there for each call.
pub(crate) struct Database {
    connection: PgConnection,
    orders: &'static [Order],
    rows: Vec<Rows>,
    ids: HashMap<String, RowsId>,
    outcomes: HashMap<(RowsId, Call), (Answer, RowsId)>,
    /// What went wrong first.
    pub(crate) fault: Option<String>,
}

/// Times become words and words times; whatever other columns there are, they come along.
const FUNCTIONS: [&str; 4] = [
    "INSERT INTO cell (id, name, document) VALUES ('c', 'c', '{}')",
    r#"CREATE FUNCTION abstracted(p_row jsonb) RETURNS jsonb LANGUAGE sql AS $$
         SELECT jsonb_object_agg(key, CASE
           WHEN jsonb_typeof(value) <> 'string' OR value #>> '{}' !~ '^([0-9]{4,}-[0-9]{2}-[0-9]{2}T|infinity$)' THEN value
           WHEN (value #>> '{}')::timestamptz <= clock_timestamp() THEN '"past"'
           WHEN (value #>> '{}')::timestamptz <= clock_timestamp() + interval '2 hours' THEN '"near"'
           ELSE '"never"' END)
         FROM jsonb_each(p_row) $$"#,
    r#"CREATE FUNCTION read_rows() RETURNS text LANGUAGE sql AS $$
         SELECT jsonb_build_object(
           'jobs', (SELECT coalesce(jsonb_agg(abstracted(to_jsonb(j)) ORDER BY j.id), '[]') FROM job j),
           'entries', (SELECT coalesce(jsonb_agg(abstracted(to_jsonb(e)) ORDER BY e.base_name), '[]')
                       FROM snapshot_entry e))::text $$"#,
    r#"CREATE FUNCTION write_rows(p_rows text) RETURNS void LANGUAGE plpgsql AS $$
       DECLARE
         near text := to_jsonb(clock_timestamp() + interval '1 hour')::text;
         past text := to_jsonb(clock_timestamp() - interval '1 hour')::text;
         r jsonb := replace(replace(replace(p_rows, '"near"', near), '"past"', past), '"never"', '"9999-01-01"')::jsonb;
       BEGIN
         INSERT INTO job SELECT * FROM jsonb_populate_recordset(NULL::job, r -> 'jobs');
         INSERT INTO snapshot_entry SELECT * FROM jsonb_populate_recordset(NULL::snapshot_entry, r -> 'entries');
       END $$"#,
];

impl Database {
    pub(crate) async fn new(pool: &PgPool, orders: &'static [Order]) -> Self {
        let mut connection = pool.acquire().await.expect("a connection").detach();
        for statement in FUNCTIONS {
            sqlx::query(statement).execute(&mut connection).await.expect(statement);
        }
        Self { connection, orders, rows: Vec::new(), ids: HashMap::new(), outcomes: HashMap::new(), fault: None }
    }

    /// The rows before anybody ordered anything.
    pub(crate) async fn nothing(&mut self) -> RowsId {
        self.intern(serde_json::json!({"jobs": [], "entries": []})).await
    }

    pub(crate) fn rows(&self, id: RowsId) -> &Rows {
        &self.rows[id]
    }

    /// How many rows were seen, and how many calls were executed on them.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.rows.len(), self.outcomes.len())
    }

    /// What a call answers on these rows, and what they are afterwards.
    pub(crate) async fn call(&mut self, rows: RowsId, call: Call) -> (Answer, RowsId) {
        if let Some(outcome) = self.outcomes.get(&(rows, call)) {
            return outcome.clone();
        }
        let (answer, text) = self.execute(rows, call).await;
        let after = match text {
            Some(text) => self.intern(serde_json::from_str(&text).expect("JSON")).await,
            None => rows,
        };
        if let Answer::Error(error) = &answer {
            self.fault.get_or_insert(format!("{call:?}: {error}"));
        }
        if let Some(fault) = self.rows[rows].step_fault(call, &self.rows[after]) {
            self.fault.get_or_insert(fault);
        }
        self.outcomes.insert((rows, call), (answer.clone(), after));
        (answer, after)
    }

    async fn execute(&mut self, rows: RowsId, call: Call) -> (Answer, Option<String>) {
        let mut tx = self.connection.begin().await.expect("a transaction");
        restore(&mut tx, &self.rows[rows].value).await;
        let answer = execute(&mut tx, self.orders, &self.rows[rows], call).await;
        // An error has put an end to the transaction: nothing was changed.
        let text = if matches!(answer, Answer::Error(_)) { None } else { Some(read(&mut tx).await) };
        tx.rollback().await.expect("rolled back");
        (answer, text)
    }

    /// What the rows are once a time of a job has passed.
    pub(crate) async fn pass(&mut self, rows: RowsId, job: Number, column: &str) -> RowsId {
        let mut value = self.rows[rows].value.clone();
        let place = self.rows[rows].jobs.iter().position(|j| j.number() == job).expect("the job");
        value["jobs"][place][column] = "past".into();
        self.intern(value).await
    }

    async fn intern(&mut self, mut value: Value) -> RowsId {
        forget(&mut value);
        let text = value.to_string();
        if let Some(id) = self.ids.get(&text) {
            return *id;
        }
        let mut rows = Rows {
            jobs: Vec::deserialize(&value["jobs"]).expect("jobs"),
            entries: Vec::deserialize(&value["entries"]).expect("entries"),
            value,
            listed: Vec::new(),
            garbage: HashSet::new(),
        };
        self.look(&mut rows).await;
        if let Some(fault) = rows.fault() {
            self.fault.get_or_insert(fault);
        }
        self.rows.push(rows);
        self.ids.insert(text, self.rows.len() - 1);
        self.rows.len() - 1
    }

    /// Asks what clients see, and what the sweeper may take.
    async fn look(&mut self, rows: &mut Rows) {
        let mut tx = self.connection.begin().await.expect("a transaction");
        restore(&mut tx, &rows.value).await;
        let files = snapshots::list(&mut tx, &cell()).await.expect("listed");
        rows.listed = files.iter().map(|f| f.name.to_string()).collect();
        for job in &rows.jobs {
            for number in 1..=job.attempt {
                let Some(key) = reread(&Attempt { job: job.number(), number }.key().text()) else { continue };
                let text = key.text();
                if jobs::blob_is_garbage(&mut tx, key.job, key.attempt, &text).await.expect("an answer") {
                    rows.garbage.insert(text);
                }
            }
        }
        tx.rollback().await.expect("rolled back");
    }
}

/// Leaves out what no statement asks for in the state that a job is in, and counts rings no further than one.
fn forget(rows: &mut Value) {
    for job in rows["jobs"].as_array_mut().expect("jobs") {
        let state = JobState::parse(job["state"].as_str().expect("a state")).expect("a known state");
        if state != JobState::Queued {
            job["available_at"] = "past".into();
            job["dispatch_at"] = "past".into();
            job["dispatches"] = 0.into();
        }
        if state.is_final() {
            job["deadline_at"] = "past".into();
        }
        job["dispatches"] = job["dispatches"].as_i64().expect("a number").min(1).into();
    }
}

/// A key as a sweeper understands it, from the name of the file.
fn reread(key: &str) -> Option<SnapshotKey> {
    let (directory, file) = key.strip_prefix("snapshots/")?.split_once('/')?;
    SnapshotKey::parse(directory, file)
}

async fn restore(connection: &mut PgConnection, rows: &Value) {
    sqlx::query("SELECT write_rows($1)").bind(rows.to_string()).execute(connection).await.expect("rows are put there");
}

async fn read(connection: &mut PgConnection) -> String {
    sqlx::query_scalar("SELECT read_rows()").fetch_one(connection).await.expect("rows are read")
}

pub(crate) fn id(job: Number) -> Uuid {
    Uuid::from_u128(job as u128 + 1)
}

fn number(id: Uuid) -> Number {
    id.as_u128() as Number - 1
}

fn cell() -> CellId {
    CellId::parse("c").expect("a legal id")
}

fn name() -> SnapshotName {
    SnapshotName::parse("n").expect("a legal name")
}

/// The key of the one upload.
pub(crate) fn upload() -> SnapshotKey {
    SnapshotKey { job: Uuid::from_u128(u128::MAX), attempt: 1, token: Uuid::from_u128(u128::MAX) }
}

fn error() -> ErrorBody {
    ErrorCode::DiskFull.body()
}

async fn execute(c: &mut PgConnection, orders: &[Order], rows: &Rows, call: Call) -> Answer {
    let answer = match call {
        Call::Accept(job) => return accept(c, orders[job], job, rows).await,
        Call::Delete(file) => return delete(c, file).await,
        Call::Put => return put(c).await,
        Call::Claim(job) => claim(c, job, rows).await.map(Answer::Claimed),
        Call::Beat(of) => jobs::beat(c, &of.fence(), limits::LEASE, &Progress::default()).await.map(Answer::Beat),
        Call::CancelRequested(of) => jobs::cancel_requested(c, &of.fence()).await.map(Answer::Is),
        Call::Succeed(of) => jobs::succeed(c, &of.fence(), &of.blob()).await.map(Answer::Is),
        Call::SucceedDryRun(of) => jobs::succeed_dry_run(c, &of.fence(), "{}", Amount::default()).await.map(Answer::Is),
        Call::End(of, state) => jobs::fail(c, &of.fence(), state, &error()).await.map(Answer::Is),
        Call::GiveBack(of, strike) => {
            let failure = strike.then(error);
            jobs::requeue(c, &of.fence(), limits::BACKOFF, strike, failure.as_ref()).await.map(Answer::GivenBack)
        }
        Call::Find(job) => jobs::find(c, id(job)).await.map(|view| {
            let view = view.expect("an accepted job");
            Answer::Found(view.state, view.attempt)
        }),
        Call::Cancel(job) => jobs::cancel(c, &cell(), id(job)).await.map(Answer::Cancelling),
        Call::Reap => jobs::reap(c, limits::BATCH).await.map(|r| Answer::Jobs(r.iter().map(|r| number(r.0)).collect())),
        Call::Due => jobs::due(c, limits::BATCH)
            .await
            .map(|due| Answer::Jobs(due.into_iter().map(|bell| number(bell.job)).collect())),
    };
    answer.unwrap_or_else(|error| failed(&error))
}

fn failed(error: &StoreError) -> Answer {
    Answer::Error(format!("{error}: {}", error.constraint().unwrap_or("no constraint")))
}

async fn claim(c: &mut PgConnection, job: Option<Number>, rows: &Rows) -> Result<Option<Attempt>, StoreError> {
    // A token that was never used before: that of the attempt that would be next. Whichever job a poll gets, it is one
    // of those that wait; with several waiting, their tokens would differ, so there is only ever one.
    let waiting = rows.jobs.iter().find(|j| !j.state().is_final());
    let next = waiting.map(|j| Attempt { job: j.number(), number: j.attempt + 1 });
    let owner = next.map_or_else(String::new, |next| next.fence().owner);
    let claim = jobs::claim(c, job.map(id), &owner, limits::LEASE).await?;
    Ok(claim.map(|claim| Attempt { job: number(claim.fence.job), number: claim.fence.attempt }))
}

async fn accept(c: &mut PgConnection, order: Order, job: Number, rows: &Rows) -> Answer {
    let new = NewJob {
        id: id(job),
        cell: cell(),
        name: name(),
        deadline: limits::LEASE * 60,
        max_strikes: order.max_strikes,
        admission: Admission::default(),
        idempotency: None,
        trace: None,
    };
    let source = rows.entries.iter().find_map(|e| e.blob_key.clone());
    let accepted = match (order.kind, source) {
        (JobKind::Export, _) => jobs::accept(c, &new).await,
        (kind @ (JobKind::Import | JobKind::DryRun), Some(key)) => jobs::accept_import(c, &new, kind, &key).await,
        (JobKind::Import | JobKind::DryRun, None) => Err(AcceptError::SourceChanged),
    };
    match accepted {
        Ok(()) => Answer::Is(true),
        Err(AcceptError::Store(error)) => failed(&error),
        Err(_) => Answer::Is(false),
    }
}

async fn delete(c: &mut PgConnection, file: &str) -> Answer {
    let file = SnapshotFileName::parse(file).expect("a legal name");
    changed(snapshots::delete(c, &cell(), &file, &Conditions::default()).await)
}

async fn put(c: &mut PgConnection) -> Answer {
    let uploaded = Uploaded { key: upload().text(), size: 9, sha256: [0xff; 32], content_type: None };
    changed(snapshots::put(c, &cell(), &name(), &Conditions::default(), &uploaded, 1 << 30).await)
}

fn changed<T>(done: Result<T, ChangeError>) -> Answer {
    match done {
        Ok(_) => Answer::Is(true),
        Err(ChangeError::Store(error)) => failed(&error),
        Err(_) => Answer::Is(false),
    }
}
