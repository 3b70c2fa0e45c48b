//! The protocol of jobs, explored: what two workers, reapers, a relay, a sweeper, the broker and a user can do to a job,
//! in every order, with kill -9 between any two steps, answers that get lost, and times that pass whenever they like.
//!
//! Nothing of the statements is modelled: each step calls the shipped one on a real PostgreSQL (see [`rows`]). The model
//! is what surrounds them: files, messages, and what a worker remembers. After every step it looks at what must hold;
//! in the end, whether every state leads to an end. A fault is shown with the shortest way to it.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use model::job::{JobKind, JobState};
use model::store::MIGRATOR;
use model::store::jobs::{Beat, Requeued};
use sqlx::PgPool;

#[path = "support/rows.rs"]
mod rows;

use rows::{Answer, Attempt, Call, Database, Number, Order, Rows, RowsId, Time, upload};

/// A file in the snapshot area.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct File {
    key: String,
    /// Not renamed yet.
    part: bool,
    /// Whose bytes it holds; nothing for the upload.
    by: Option<Attempt>,
}

/// What a worker remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Worker {
    Idle,
    At(Step, Attempt),
}

/// How far an attempt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Step {
    Claimed,
    /// It has a part file.
    Writing,
    /// Its file is durable under its final name.
    Durable,
    /// It wants its row to say how it ended, and has no answer yet.
    Settling(Ending),
    /// It was told that it did not succeed, and does not know why.
    Refused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Ending {
    Success,
    Failure,
    Cancellation,
    /// With a strike, or without.
    Return(bool),
}

/// Everything there is at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    rows: RowsId,
    /// Sorted.
    files: Vec<File>,
    /// Sorted: it does not matter which is which.
    workers: [Worker; 2],
    /// Messages that wait in the broker. Sorted.
    bells: Vec<Number>,
}

impl State {
    fn with_worker(&self, place: usize, worker: Worker) -> Self {
        let mut next = self.clone();
        next.workers[place] = worker;
        next.workers.sort();
        next
    }

    fn with_rows(&self, rows: RowsId) -> Self {
        Self { rows, ..self.clone() }
    }

    fn with_bell(&self, job: Number) -> Self {
        let mut next = self.clone();
        if let Err(place) = next.bells.binary_search(&job) {
            next.bells.insert(place, job);
        }
        next
    }

    fn without_bell(&self, job: Number) -> Self {
        let mut next = self.clone();
        next.bells.retain(|bell| *bell != job);
        next
    }

    fn with_file(&self, file: File) -> Self {
        let mut next = self.without_file(&file.key, file.part);
        next.files.push(file);
        next.files.sort();
        next
    }

    fn without_file(&self, key: &str, part: bool) -> Self {
        let mut next = self.clone();
        next.files.retain(|f| (f.key.as_str(), f.part) != (key, part));
        next
    }

    fn file(&self, key: &str, part: bool) -> Option<&File> {
        self.files.iter().find(|f| (f.key.as_str(), f.part) == (key, part))
    }
}

/// What kind of step leads from one state to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A worker does what it should.
    Work,
    /// An idle worker claims what waits.
    Poll,
    /// An idle worker claims what a message names.
    Answer,
    /// The relay sends messages.
    Ring,
    /// A lease, a pause or the wait for the next message is over.
    Clock,
    /// A job's time is up.
    Deadline,
    Reap,
    Sweep,
    /// A user, or whatever can go wrong.
    Whim,
}

/// What helps a job to its end. From every state, each of these must do.
const HELPS: [(&str, &[Kind]); 3] = [
    ("without messages", &[Kind::Work, Kind::Poll, Kind::Clock, Kind::Reap]),
    ("without polling", &[Kind::Work, Kind::Answer, Kind::Ring, Kind::Clock, Kind::Reap]),
    ("without workers", &[Kind::Clock, Kind::Deadline, Kind::Reap]),
];

/// What happens.
#[derive(Debug, Clone)]
#[expect(dead_code, reason = "shown as it is")]
enum Event {
    Does(Call),
    /// It does, and the answer is lost.
    AnswerLost(Call),
    /// It is lost before it does.
    CallLost(Call),
    /// The api rings too.
    DoesAndRings(Call),
    /// Acknowledged after the claim.
    ClaimsAndAcknowledges(Call),
    MessageLost(Number),
    Passes(&'static str, Number),
    Rings(Call),
    Sweeps(File),
    Uploads(Call),
    Writes(Attempt),
    Publishes(Attempt),
    IsKilled(Attempt),
}

struct World {
    orders: &'static [Order],
    database: Database,
    states: Vec<State>,
    ids: HashMap<State, usize>,
    /// From where, and by what, a state was reached first.
    origins: Vec<(usize, Option<Event>)>,
    edges: Vec<(u32, u32, Kind)>,
    /// Where the state that is being looked at leads.
    nexts: Vec<(Kind, Event, State)>,
    /// What went wrong on the way to one of them.
    fault: Option<(String, Event)>,
}

impl World {
    async fn new(pool: &PgPool, orders: &'static [Order]) -> Self {
        let mut database = Database::new(pool, orders).await;
        let rows = database.nothing().await;
        let first = State { rows, files: Vec::new(), workers: [Worker::Idle; 2], bells: Vec::new() };
        Self {
            orders,
            database,
            ids: HashMap::from([(first.clone(), 0)]),
            states: vec![first],
            origins: vec![(0, None)],
            edges: Vec::new(),
            nexts: Vec::new(),
            fault: None,
        }
    }

    fn rows(&self, state: &State) -> &Rows {
        self.database.rows(state.rows)
    }

    /// Goes everywhere. The breadth first, so that the first way to a state is a shortest one.
    async fn explore(&mut self) {
        let mut at = 0;
        while at < self.states.len() {
            let state = self.states[at].clone();
            self.leave(&state).await;
            if let Some((fault, what)) = self.fault.take() {
                panic!("{fault}, after:\n{}{what:?}", self.way(at));
            }
            if let Some(fault) = self.database.fault.take() {
                panic!("{fault}, after:\n{}", self.way(at));
            }
            for (kind, what, next) in std::mem::take(&mut self.nexts) {
                let to = match self.ids.get(&next) {
                    Some(known) => *known,
                    None => {
                        self.ids.insert(next.clone(), self.states.len());
                        self.states.push(next);
                        self.origins.push((at, Some(what)));
                        self.states.len() - 1
                    }
                };
                self.edges.push((at as u32, to as u32, kind));
            }
            at += 1;
            assert!(self.states.len() < 1_000_000, "there is no end to it, after:\n{}", self.way(at));
        }
    }

    fn way(&self, mut at: usize) -> String {
        let mut steps = VecDeque::new();
        while let (before, Some(what)) = &self.origins[at] {
            steps.push_front(format!("{what:?}\n"));
            at = *before;
        }
        steps.into_iter().collect()
    }

    /// What must hold of files, whatever happened. What must hold of rows was looked at with them.
    fn wrong(&self, state: &State) -> Option<String> {
        let rows = self.rows(state);
        for entry in rows.entries.iter().filter(|e| e.kind == "zip") {
            let key = entry.blob_key.as_deref().unwrap_or_default();
            let sha256 = entry.sha256.as_deref().unwrap_or_default();
            let whole = state.file(key, false).is_some_and(|file| match file.by {
                Some(attempt) => entry.job() == Some(attempt.job) && attempt.wrote(sha256),
                None => entry.job().is_none(),
            });
            if !whole {
                return Some(format!("a visible zip without its own bytes: {key}"));
            }
        }
        let needed = |job: &&rows::Job| !job.state().is_final() && job.source_key.is_some();
        let sources = rows.jobs.iter().filter(needed).filter_map(|j| j.source_key.as_deref());
        if let Some(source) = sources.into_iter().find(|key| state.file(key, false).is_none()) {
            return Some(format!("the source of an active job is gone: {source}"));
        }
        for worker in &state.workers {
            let Worker::At(step @ (Step::Writing | Step::Durable), attempt) = *worker else { continue };
            let file = state.file(&attempt.key().text(), step == Step::Writing);
            if rows.owned(attempt) && file.is_none_or(|f| f.by != Some(attempt)) {
                return Some(format!("the file of {attempt:?} was taken away while it works"));
            }
        }
        let budget = |job: &&rows::Job| job.attempt > job.max_strikes + self.orders[job.number()].free_returns;
        if let Some(job) = rows.jobs.iter().find(budget) {
            return Some(format!("job {} is tried for the {}th time", job.number(), job.attempt));
        }
        let at_rest = rows.all_final() && state.workers == [Worker::Idle; 2];
        let named = |file: &File| rows.entries.iter().any(|e| e.blob_key.as_ref() == Some(&file.key));
        let stray = |file: &&File| file.by.is_some() && !rows.is_garbage(&file.key) && (file.part || !named(file));
        let stray = state.files.iter().find(stray).filter(|_| at_rest);
        stray.map(|file| format!("nothing names {} and no sweeper takes it", file.key))
    }

    fn goes(&mut self, kind: Kind, what: Event, next: State) {
        let fault = self.database.fault.take().or_else(|| match self.ids.contains_key(&next) {
            true => None,
            false => self.wrong(&next),
        });
        self.fault = self.fault.take().or(fault.map(|fault| (fault, what.clone())));
        self.nexts.push((kind, what, next));
    }

    /// A call that only changes rows.
    async fn calls(&mut self, kind: Kind, call: Call, state: &State) {
        let (_, rows) = self.database.call(state.rows, call).await;
        self.goes(kind, Event::Does(call), state.with_rows(rows));
    }

    async fn leave(&mut self, state: &State) {
        self.clock(state).await;
        self.calls(Kind::Reap, Call::Reap, state).await;
        self.ring(state).await;
        self.sweep(state);
        self.user(state).await;
        for place in 0..state.workers.len() {
            if place > 0 && state.workers[place] == state.workers[place - 1] {
                continue;
            }
            match state.workers[place] {
                Worker::Idle => self.claim(state, place).await,
                Worker::At(step, attempt) => self.work(state, place, step, attempt).await,
            }
        }
    }

    async fn clock(&mut self, state: &State) {
        let mut due = Vec::new();
        for job in self.rows(state).jobs.iter().filter(|j| !j.state().is_final()) {
            let waits = job.state() == JobState::Queued;
            due.extend([
                (Kind::Clock, job.number(), "lease_until", job.lease_until == Some(Time::Near)),
                (Kind::Clock, job.number(), "available_at", waits && job.available_at == Time::Near),
                (Kind::Clock, job.number(), "dispatch_at", waits && job.dispatch_at == Time::Near),
                (Kind::Deadline, job.number(), "deadline_at", job.deadline_at == Time::Near),
            ]);
        }
        for (kind, job, column, _) in due.into_iter().filter(|(.., near)| *near) {
            let rows = self.database.pass(state.rows, job, column).await;
            self.goes(kind, Event::Passes(column, job), state.with_rows(rows));
        }
    }

    /// The relay marks first and sends afterwards; the broker loses what it likes.
    async fn ring(&mut self, state: &State) {
        let (answer, rows) = self.database.call(state.rows, Call::Due).await;
        let Answer::Jobs(due) = answer else { return };
        if !due.is_empty() {
            let marked = state.with_rows(rows);
            let rung = due.iter().fold(marked.clone(), |state, job| state.with_bell(*job));
            self.goes(Kind::Ring, Event::Rings(Call::Due), rung);
            self.goes(Kind::Whim, Event::Does(Call::Due), marked);
        }
        for job in state.bells.clone() {
            self.goes(Kind::Whim, Event::MessageLost(job), state.without_bell(job));
        }
    }

    fn sweep(&mut self, state: &State) {
        for file in &state.files {
            if self.rows(state).is_garbage(&file.key) {
                self.goes(Kind::Sweep, Event::Sweeps(file.clone()), state.without_file(&file.key, file.part));
            }
        }
    }

    async fn user(&mut self, state: &State) {
        let ordered = self.rows(state).jobs.len();
        if ordered < self.orders.len() {
            let call = Call::Accept(ordered);
            let (answer, rows) = self.database.call(state.rows, call).await;
            if answer == Answer::Is(true) {
                let accepted = state.with_rows(rows);
                self.goes(Kind::Whim, Event::DoesAndRings(call), accepted.with_bell(ordered));
                self.goes(Kind::Whim, Event::Does(call), accepted);
            }
        }
        for job in 0..ordered {
            self.calls(Kind::Whim, Call::Cancel(job), state).await;
        }
        for file in ["n.zip", "n.error"] {
            if self.rows(state).listed.iter().any(|listed| listed == file) {
                self.calls(Kind::Whim, Call::Delete(file), state).await;
            }
        }
        if self.orders.iter().any(|o| o.kind == JobKind::DryRun) && state.file(&upload().text(), false).is_none() {
            let (answer, rows) = self.database.call(state.rows, Call::Put).await;
            if answer == Answer::Is(true) {
                let file = File { key: upload().text(), part: false, by: None };
                self.goes(Kind::Whim, Event::Uploads(Call::Put), state.with_rows(rows).with_file(file));
            }
        }
    }

    async fn claim(&mut self, state: &State, place: usize) {
        let polls = Call::Claim(None);
        if let Some(next) = self.claimed(state, place, polls).await {
            self.goes(Kind::Poll, Event::Does(polls), next);
        }
        for bell in state.bells.clone() {
            let answers = Call::Claim(Some(bell));
            match self.claimed(state, place, answers).await {
                Some(next) => {
                    self.goes(Kind::Answer, Event::ClaimsAndAcknowledges(answers), next.without_bell(bell));
                    self.goes(Kind::Whim, Event::Does(answers), next);
                }
                None => self.goes(Kind::Answer, Event::ClaimsAndAcknowledges(answers), state.without_bell(bell)),
            }
        }
    }

    async fn claimed(&mut self, state: &State, place: usize, call: Call) -> Option<State> {
        let (answer, rows) = self.database.call(state.rows, call).await;
        let Answer::Claimed(Some(attempt)) = answer else { return None };
        Some(state.with_rows(rows).with_worker(place, Worker::At(Step::Claimed, attempt)))
    }

    async fn work(&mut self, state: &State, place: usize, step: Step, attempt: Attempt) {
        self.goes(Kind::Whim, Event::IsKilled(attempt), state.with_worker(place, Worker::Idle));
        match step {
            Step::Claimed | Step::Writing => {
                self.beat(state, place, step, attempt).await;
                self.write(state, place, step, attempt);
                let stopped = stopped(state, step, attempt);
                for ending in [Ending::Failure, Ending::Return(true), Ending::Return(false)] {
                    self.settle(&stopped, place, ending, attempt, Kind::Whim).await;
                }
                if self.orders[attempt.job].kind == JobKind::DryRun {
                    self.settle(state, place, Ending::Success, attempt, Kind::Work).await;
                }
            }
            Step::Durable => self.settle(state, place, Ending::Success, attempt, Kind::Work).await,
            Step::Settling(ending) => self.settle(state, place, ending, attempt, Kind::Work).await,
            Step::Refused => self.doubt(state, place, attempt).await,
        }
    }

    /// One step further with the file, as long as nobody took it away.
    fn write(&mut self, state: &State, place: usize, step: Step, attempt: Attempt) {
        if self.orders[attempt.job].kind != JobKind::Export {
            return;
        }
        let key = attempt.key().text();
        let file = |part| File { key: key.clone(), part, by: Some(attempt) };
        match (step, state.file(&key, true)) {
            (Step::Claimed, None) => {
                let next = state.with_worker(place, Worker::At(Step::Writing, attempt)).with_file(file(true));
                self.goes(Kind::Work, Event::Writes(attempt), next);
            }
            (Step::Writing, Some(part)) if part.by == Some(attempt) => {
                let next = state.with_worker(place, Worker::At(Step::Durable, attempt)).without_file(&key, true);
                self.goes(Kind::Work, Event::Publishes(attempt), next.with_file(file(false)));
            }
            _ => {}
        }
    }

    /// What a heartbeat, and the looks between, tell an attempt.
    async fn beat(&mut self, state: &State, place: usize, step: Step, attempt: Attempt) {
        let beat = Call::Beat(attempt);
        let (answer, rows) = self.database.call(state.rows, beat).await;
        let next = state.with_rows(rows);
        let ends = |state: &State, worker| stopped(state, step, attempt).with_worker(place, worker);
        let settling = |ending| Worker::At(Step::Settling(ending), attempt);
        let Answer::Beat(told) = answer else { return };
        let told = match told {
            None => ends(&next, Worker::Idle),
            Some(Beat { cancel: true, .. }) => ends(&next, settling(Ending::Cancellation)),
            Some(Beat { past_deadline: true, .. }) => ends(&next, settling(Ending::Failure)),
            Some(_) => next,
        };
        self.goes(Kind::Work, Event::Does(beat), told);
        let look = Call::CancelRequested(attempt);
        let (answer, _) = self.database.call(state.rows, look).await;
        if answer == Answer::Is(true) {
            self.goes(Kind::Work, Event::Does(look), ends(state, settling(Ending::Cancellation)));
        }
    }

    /// An attempt tells its row how it ended. The answer may get lost on its way, or the call.
    async fn settle(&mut self, state: &State, place: usize, ending: Ending, attempt: Attempt, kind: Kind) {
        let call = match (ending, self.orders[attempt.job].kind) {
            (Ending::Success, JobKind::Export) => Call::Succeed(attempt),
            (Ending::Success, JobKind::Import | JobKind::DryRun) => Call::SucceedDryRun(attempt),
            (Ending::Failure, _) => Call::End(attempt, JobState::Failed),
            (Ending::Cancellation, _) => Call::End(attempt, JobState::Cancelled),
            (Ending::Return(strike), _) => Call::GiveBack(attempt, strike),
        };
        let rows = self.rows(state);
        let returned = rows.job(attempt.job).map_or(0, |job| job.attempt - 1 - job.strikes);
        let enough = returned >= self.orders[attempt.job].free_returns;
        if ending == Ending::Return(false) && enough && rows.owned(attempt) {
            return;
        }
        let (answer, rows) = self.database.call(state.rows, call).await;
        let next = if (ending, &answer) == (Ending::Success, &Answer::Is(false)) {
            Worker::At(Step::Refused, attempt)
        } else if answer == Answer::GivenBack(Requeued::OutOfStrikes) {
            Worker::At(Step::Settling(Ending::Failure), attempt)
        } else {
            Worker::Idle
        };
        let changed = state.with_rows(rows);
        let unsure = Worker::At(Step::Settling(ending), attempt);
        self.goes(kind, Event::Does(call), changed.with_worker(place, next));
        self.goes(Kind::Whim, Event::AnswerLost(call), changed.with_worker(place, unsure));
        self.goes(Kind::Whim, Event::CallLost(call), state.with_worker(place, unsure));
    }

    /// An attempt that did not succeed asks its row for the reason.
    async fn doubt(&mut self, state: &State, place: usize, attempt: Attempt) {
        let find = Call::Find(attempt.job);
        let (found, _) = self.database.call(state.rows, find).await;
        if found == Answer::Found(JobState::Succeeded, attempt.number) {
            self.goes(Kind::Work, Event::Does(find), state.with_worker(place, Worker::Idle));
            return;
        }
        let beat = Call::Beat(attempt);
        let (answer, rows) = self.database.call(state.rows, beat).await;
        let Answer::Beat(told) = answer else { return };
        let worker = match told {
            None => Worker::Idle,
            Some(Beat { cancel: true, .. }) => Worker::At(Step::Settling(Ending::Cancellation), attempt),
            Some(told) => {
                self.database.fault.get_or_insert(format!("{attempt:?} was refused, and yet told {told:?}"));
                Worker::Idle
            }
        };
        self.goes(Kind::Work, Event::Does(beat), state.with_rows(rows).with_worker(place, worker));
    }

    /// Whether every state leads to an end, with the help of some kinds of steps only.
    fn stuck(&self, help: &[Kind]) -> Option<usize> {
        let mut back: Vec<Vec<u32>> = vec![Vec::new(); self.states.len()];
        for (from, to, _) in self.edges.iter().filter(|(.., kind)| help.contains(kind)) {
            back[*to as usize].push(*from);
        }
        let mut ends: Vec<bool> = self.states.iter().map(|state| self.rows(state).all_final()).collect();
        let mut left: Vec<usize> = (0..ends.len()).filter(|at| ends[*at]).collect();
        while let Some(at) = left.pop() {
            for from in &back[at] {
                if !std::mem::replace(&mut ends[*from as usize], true) {
                    left.push(*from as usize);
                }
            }
        }
        ends.iter().position(|ends| !ends)
    }
}

/// Without the part file of an attempt that stops; a file that is durable is the sweeper's.
fn stopped(state: &State, step: Step, attempt: Attempt) -> State {
    match step {
        Step::Writing => state.without_file(&attempt.key().text(), true),
        Step::Claimed | Step::Durable | Step::Settling(_) | Step::Refused => state.clone(),
    }
}

async fn explored(pool: PgPool, orders: &'static [Order], at_least: usize) {
    let begun = Instant::now();
    let mut world = World::new(&pool, orders).await;
    world.explore().await;
    let (rows, calls) = world.database.size();
    let states = world.states.len();
    println!("{states} states, {} steps, {rows} rows, {calls} calls, {:.1?}", world.edges.len(), begun.elapsed());
    for (how, help) in HELPS {
        if let Some(stuck) = world.stuck(help) {
            panic!("{how} the job never ends, after:\n{}", world.way(stuck));
        }
    }
    assert!(states >= at_least, "only {states} states were reached");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn no_order_of_events_breaks_an_export(pool: PgPool) {
    static ORDERS: [Order; 1] = [Order { kind: JobKind::Export, max_strikes: 2, free_returns: 1 }];
    explored(pool, &ORDERS, 20_000).await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn no_order_of_events_breaks_the_next_export_of_a_name(pool: PgPool) {
    const EXPORT: Order = Order { kind: JobKind::Export, max_strikes: 1, free_returns: 0 };
    static ORDERS: [Order; 2] = [EXPORT, EXPORT];
    explored(pool, &ORDERS, 40_000).await;
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn no_order_of_events_takes_the_snapshot_from_under_an_import(pool: PgPool) {
    static ORDERS: [Order; 2] = [
        Order { kind: JobKind::Export, max_strikes: 1, free_returns: 0 },
        Order { kind: JobKind::DryRun, max_strikes: 1, free_returns: 0 },
    ];
    explored(pool, &ORDERS, 30_000).await;
}
