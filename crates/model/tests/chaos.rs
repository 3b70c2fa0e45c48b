//! Chaos: apis, workers, reapers, relays, sweepers and users, all at once, with the shipped statements on a real
//! PostgreSQL and real files. Workers freeze beyond their leases and come back, die, and settle twice; leases last some
//! tens of milliseconds. Triggers of the test keep a history of every change. In the end nothing may be lost, done twice
//! or left over.
//!
//! Runs for `CHAOS_SECS` seconds, 12 by default, from the seed `CHAOS_SEED`, which is printed. The same seed makes the
//! same choices; how they interleave is up to the machine.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fastrand::Rng;
use model::area::{Part, SnapshotArea, SnapshotKey};
use model::cell::{CellId, CellName};
use model::error_code::ErrorCode;
use model::job::{Amount, JobKind, JobState, Progress};
use model::message::Bell;
use model::snapshot_name::SnapshotName;
use model::store::cells::{self, NewCell};
use model::store::jobs::{
    self, AcceptError, Admission, Beat, Claim, Fence, FinishedBlob, ImportSource, NewContents, NewJob, Requeued, Work,
};
use model::store::snapshots::{self, ChangeError, Conditions, Content, Retention, SnapshotFile, Uploaded};
use model::store::{MIGRATOR, StoreError, generations};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgConnection, PgPool};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::sleep;
use uuid::Uuid;

const HOUR: Duration = Duration::from_secs(3600);
const CELLS: u32 = 12;
const NAMES: u32 = 4;
/// Documents that every import writes.
const DOCUMENTS: i64 = 3;

/// The history that the test keeps, and clocks that run faster than the product's.
const TRIGGERS: [&str; 8] = [
    "CREATE TABLE job_history (seq bigserial, job uuid, was text, became text, attempt int)",
    "CREATE FUNCTION remember_job() RETURNS trigger LANGUAGE plpgsql AS $$
     BEGIN
       INSERT INTO job_history (job, was, became, attempt)
       VALUES (NEW.id, CASE WHEN TG_OP = 'UPDATE' THEN OLD.state::text END, NEW.state::text, NEW.attempt);
       RETURN NULL;
     END $$",
    "CREATE TRIGGER remember_job AFTER INSERT OR UPDATE ON job FOR EACH ROW EXECUTE FUNCTION remember_job()",
    "CREATE TABLE entry_history (seq bigserial, job uuid, kind text, blob_key text)",
    "CREATE FUNCTION remember_entry() RETURNS trigger LANGUAGE plpgsql AS $$
     BEGIN
       INSERT INTO entry_history (job, kind, blob_key) VALUES (NEW.job_id, NEW.kind, NEW.blob_key);
       RETURN NULL;
     END $$",
    "CREATE TRIGGER remember_entry AFTER INSERT OR UPDATE ON snapshot_entry
     FOR EACH ROW EXECUTE FUNCTION remember_entry()",
    "CREATE FUNCTION hurry() RETURNS trigger LANGUAGE plpgsql AS $$
     BEGIN
       NEW.available_at := least(NEW.available_at, clock_timestamp() + interval '10 milliseconds');
       NEW.dispatch_at := least(NEW.dispatch_at, clock_timestamp() + interval '20 milliseconds');
       RETURN NEW;
     END $$",
    "CREATE TRIGGER a_hurry BEFORE INSERT OR UPDATE ON job FOR EACH ROW EXECUTE FUNCTION hurry()",
];

/// Whatever is wrong at one moment, as one statement sees it.
const WRONG_NOW: &str = "
    SELECT 'two active jobs of cell ' || cell_id FROM job WHERE state IN ('queued', 'running')
    GROUP BY cell_id HAVING count(*) > 1
    UNION ALL
    SELECT 'job ' || j.id || ' is ' || j.state || ', its file is ' || e.kind
    FROM job j JOIN snapshot_entry e ON e.job_id = j.id
    WHERE e.kind <> CASE WHEN j.state = 'succeeded' THEN 'zip' WHEN j.state IN ('failed', 'cancelled') THEN 'error'
                         ELSE 'pending' END
       OR e.blob_key IS DISTINCT FROM j.blob_key OR e.sha256 IS DISTINCT FROM j.blob_sha256
    UNION ALL
    SELECT 'the name of active job ' || j.id || ' is not reserved' FROM job j
    WHERE j.kind = 'export' AND j.state IN ('queued', 'running')
      AND NOT EXISTS (SELECT 1 FROM snapshot_entry e WHERE e.job_id = j.id AND e.kind = 'pending')
    UNION ALL
    SELECT 'the source of job ' || j.id || ' is not named any more' FROM job j
    WHERE j.source_key IS NOT NULL AND j.state IN ('queued', 'running')
      AND NOT EXISTS (SELECT 1 FROM snapshot_entry e WHERE e.blob_key = j.source_key)
    UNION ALL
    SELECT 'cell ' || c.id || ' holds ' || (SELECT count(*) FROM document d WHERE d.generation = c.generation)
           || ' documents'
    FROM cell c
    WHERE (SELECT count(*) FROM document d WHERE d.generation = c.generation) NOT IN (0, $1)";

/// Whatever is wrong with what happened.
const WRONG_BY_HISTORY: &str = "
    WITH step AS (
      SELECT job, attempt, became, was, became IN ('succeeded', 'failed', 'cancelled') AS final,
             was IN ('succeeded', 'failed', 'cancelled') AS was_final,
             lag(attempt) OVER (PARTITION BY job ORDER BY seq) AS attempt_before
      FROM job_history),
    ended AS (
      SELECT job, count(*) FILTER (WHERE final AND NOT coalesce(was_final, false)) AS times,
             max(became) FILTER (WHERE final) AS state
      FROM step GROUP BY job),
    shown AS (
      SELECT job, count(*) AS times, max(kind) AS kind FROM entry_history
      WHERE job IS NOT NULL AND kind <> 'pending' GROUP BY job)
    SELECT 'job ' || job || ' became final ' || times || ' times' FROM ended WHERE times <> 1
    UNION ALL
    SELECT 'job ' || job || ' was ' || was || ' and became ' || became FROM step WHERE was_final AND was <> became
    UNION ALL
    SELECT 'attempts of job ' || job || ' from ' || attempt_before || ' to ' || attempt FROM step
    WHERE attempt NOT IN (attempt_before, attempt_before + 1)
    UNION ALL
    SELECT 'job ' || job || ' ended ' || state || ' and showed ' || coalesce(shown.times, 0) || ' files, '
           || coalesce(kind, 'none')
    FROM ended LEFT JOIN shown USING (job)
    WHERE EXISTS (SELECT 1 FROM entry_history e WHERE e.job = ended.job)
      AND (shown.times IS DISTINCT FROM 1 OR kind <> CASE state WHEN 'succeeded' THEN 'zip' ELSE 'error' END)";

/// How often things happened, to know that they did.
#[derive(Debug, Default)]
struct Counts {
    finished: AtomicUsize,
    fenced: AtomicUsize,
    died: AtomicUsize,
    cancelled: AtomicUsize,
    imported: AtomicUsize,
    reaped: AtomicUsize,
    swept: AtomicUsize,
    looks: AtomicUsize,
}

fn one_more(count: &AtomicUsize) {
    count.fetch_add(1, Ordering::Relaxed);
}

#[derive(Debug)]
struct World {
    pool: PgPool,
    area: SnapshotArea,
    /// Directory of the area.
    root: PathBuf,
    /// Nobody orders anything any more; workers are honest.
    closing: AtomicBool,
    /// Everybody goes home.
    over: AtomicBool,
    accepted: Mutex<HashMap<Uuid, JobKind>>,
    /// Which attempts were told that they succeeded.
    winners: Mutex<HashMap<Uuid, Vec<i32>>>,
    /// Messages, some of them twice, some stale.
    bells: Mutex<Vec<Uuid>>,
    /// Uploads whose row is not there yet. In the product they are younger than what the sweeper looks at.
    young: Mutex<HashSet<String>>,
    faults: Mutex<Vec<String>>,
    counts: Counts,
}

impl World {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    fn fault(&self, what: String) {
        let mut faults = self.faults.lock().expect("not poisoned");
        // Who looks often sees the same thing often.
        if !faults.contains(&what) {
            faults.push(what);
        }
    }

    /// No statement may fail here: nothing is cut off, and nobody waits for each other.
    fn ok<T>(&self, result: Result<T, StoreError>) -> Option<T> {
        result.map_err(|error| self.fault(format!("{error}: {:?}", std::error::Error::source(&error)))).ok()
    }
}

async fn pause(rng: &mut Rng, longest_ms: u64) {
    sleep(Duration::from_millis(rng.u64(0..=longest_ms))).await;
}

fn name(rng: &mut Rng) -> SnapshotName {
    SnapshotName::parse(&format!("n{}", rng.u32(0..NAMES))).expect("a legal name")
}

fn cell_name(rng: &mut Rng) -> CellName {
    CellName::parse_new(&format!("cell{}", rng.u32(0..CELLS))).expect("a legal name")
}

async fn zips(c: &mut PgConnection, cell: &CellId, world: &World) -> Vec<(SnapshotFile, String)> {
    let files = world.ok(snapshots::list(c, cell).await).unwrap_or_default();
    let zip = |file: SnapshotFile| match file.content.clone() {
        Content::Blob(key) => Some((file, key)),
        Content::Inline(_) => None,
    };
    files.into_iter().filter_map(zip).collect()
}

// --- users and the api ------------------------------------------------------------------------------------------------

async fn api(world: Arc<World>, mut rng: Rng) {
    let c = &mut *world.pool.acquire().await.expect("a connection");
    while !world.is_closing() {
        let name = cell_name(&mut rng);
        match world.ok(cells::find(c, &name).await) {
            Some(Some(cell)) if rng.u32(0..100) < 70 => order(&world, c, &mut rng, &cell.id, None).await,
            Some(Some(cell)) => {
                let zips = zips(c, &cell.id, &world).await;
                if let Some((file, key)) = rng.choice(&zips) {
                    order(&world, c, &mut rng, &cell.id, Some((&file.name.base, key))).await;
                }
            }
            Some(None) => {
                let id = CellId::parse(&Uuid::new_v4().simple().to_string()).expect("a legal id");
                let cell = NewCell { id, name, document: "{}".to_owned(), root_pmeta: "{}".to_owned() };
                world.ok(cells::create(c, &cell).await);
            }
            None => {}
        }
        pause(&mut rng, 20).await;
    }
}

/// Orders an export, or an import of a snapshot or a dry run of it.
async fn order(
    world: &World,
    c: &mut PgConnection,
    rng: &mut Rng,
    cell: &CellId,
    source: Option<(&SnapshotName, &String)>,
) {
    let job = NewJob {
        id: Uuid::new_v4(),
        cell: cell.clone(),
        name: source.map_or_else(|| name(rng), |(name, _)| name.clone()),
        deadline: if rng.u32(0..20) == 0 { Duration::from_millis(rng.u64(20..200)) } else { HOUR },
        max_strikes: rng.i32(1..=4),
        admission: Admission::default(),
        idempotency: None,
        trace: None,
    };
    let kind = match source {
        None => JobKind::Export,
        Some(_) if rng.bool() => JobKind::Import,
        Some(_) => JobKind::DryRun,
    };
    // Nobody hears of the job before it is accepted, so the log may be written first.
    world.accepted.lock().expect("not poisoned").insert(job.id, kind);
    let accepted = match source {
        None => jobs::accept(c, &job).await,
        Some((_, key)) => jobs::accept_import(c, &job, kind, key).await,
    };
    match accepted {
        Ok(()) if rng.bool() => world.bells.lock().expect("not poisoned").push(job.id),
        Ok(()) => {}
        Err(refused) => {
            world.accepted.lock().expect("not poisoned").remove(&job.id);
            if let AcceptError::Store(error) = refused {
                world.ok::<()>(Err(error));
            }
        }
    }
}

async fn user(world: Arc<World>, mut rng: Rng) {
    let c = &mut *world.pool.acquire().await.expect("a connection");
    while !world.is_closing() {
        pause(&mut rng, 20).await;
        let name = cell_name(&mut rng);
        let Some(Some(cell)) = world.ok(cells::find(c, &name).await) else { continue };
        match rng.u32(0..100) {
            0..35 => upload(&world, c, &mut rng, &cell.id).await,
            35..65 => delete(&world, c, &mut rng, &cell.id).await,
            65..90 => {
                if let Some(Some(job)) = world.ok(jobs::active(c, &cell.id).await) {
                    world.ok(jobs::cancel(c, &cell.id, job.id).await);
                    one_more(&world.counts.cancelled);
                }
            }
            90..95 => {
                world.ok(snapshots::expire(c, Retention { days: None, count: Some(3) }).await);
            }
            _ => {
                world.ok(cells::delete(c, &name).await);
            }
        }
    }
}

async fn upload(world: &World, c: &mut PgConnection, rng: &mut Rng, cell: &CellId) {
    let key = SnapshotKey::for_upload();
    let text = key.text();
    world.young.lock().expect("not poisoned").insert(text.clone());
    if let Some(part) = write(world, &key).await {
        spawn_blocking(move || part.publish(&mut |_| Ok(()))).await.expect("no panic").expect("published");
        let uploaded = Uploaded { key: text.clone(), size: text.len() as u64, sha256: [9; 32], content_type: None };
        let put = snapshots::put(c, cell, &name(rng), &Conditions::default(), &uploaded, 1 << 40).await;
        match put {
            Ok(changed) => {
                if let Some(replaced) = changed.replaced {
                    world.area.remove(&replaced).await;
                }
            }
            Err(ChangeError::Store(error)) => {
                world.ok::<()>(Err(error));
            }
            Err(_) => world.area.remove(&text).await,
        }
    }
    world.young.lock().expect("not poisoned").remove(&text);
}

async fn delete(world: &World, c: &mut PgConnection, rng: &mut Rng, cell: &CellId) {
    let files = world.ok(snapshots::list(c, cell).await).unwrap_or_default();
    let Some(file) = rng.choice(&files) else { return };
    match snapshots::delete(c, cell, &file.name, &Conditions::default()).await {
        Ok(Some(key)) => world.area.remove(&key).await,
        Err(ChangeError::Store(error)) => {
            world.ok::<()>(Err(error));
        }
        Ok(None) | Err(_) => {}
    }
}

// --- workers ----------------------------------------------------------------------------------------------------------

/// What an attempt was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Success,
    Failure,
    Return { strike: bool },
    Death,
}

fn fate(world: &World, rng: &mut Rng) -> Fate {
    match rng.u32(0..100) {
        _ if world.is_closing() => Fate::Success,
        0..60 => Fate::Success,
        60..68 => Fate::Failure,
        68..76 => Fate::Return { strike: true },
        76..84 => Fate::Return { strike: false },
        _ => Fate::Death,
    }
}

async fn worker(world: Arc<World>, mut rng: Rng) {
    let c = &mut *world.pool.acquire().await.expect("a connection");
    while !world.is_over() {
        let bell = {
            let mut bells = world.bells.lock().expect("not poisoned");
            let bell = rng.choice(&*bells).copied();
            bells.truncate(64);
            bell.filter(|_| rng.bool())
        };
        let token = Uuid::new_v4();
        let lease = Duration::from_millis(if world.is_closing() { 5000 } else { rng.u64(15..120) });
        let claim = world.ok(jobs::claim(c, bell, &token.simple().to_string(), lease).await);
        match claim.flatten() {
            Some(claim) => Attempt { world: &world, lease, fate: fate(&world, &mut rng), claim }.run(c, &mut rng).await,
            None => pause(&mut rng, 15).await,
        }
    }
}

/// What is ready to be shown.
enum Done {
    Exported(FinishedBlob),
    Imported(NewContents),
    Examined,
}

struct Attempt<'a> {
    world: &'a World,
    lease: Duration,
    fate: Fate,
    claim: Claim,
}

impl Attempt<'_> {
    fn fence(&self) -> &Fence {
        &self.claim.fence
    }

    async fn run(&self, c: &mut PgConnection, rng: &mut Rng) {
        let done = match &self.claim.work {
            Work::Export => self.export(c, rng).await,
            Work::Import(source) => self.import(c, rng, source).await,
            Work::DryRun(source) => self.source(c, source).await.then_some(Done::Examined),
        };
        self.work(rng).await;
        match (self.fate, done) {
            (Fate::Death, _) => one_more(&self.world.counts.died),
            (Fate::Success, Some(done)) => self.succeed(c, rng, &done).await,
            (Fate::Return { strike }, _) => self.give_back(c, rng, strike).await,
            // What cannot go on is given back: whoever lost its job learns it there.
            (Fate::Success, None) => self.give_back(c, rng, true).await,
            (Fate::Failure, _) => self.end(c, rng, JobState::Failed).await,
        }
    }

    /// Works for a while, and sometimes so long that the lease runs out.
    async fn work(&self, rng: &mut Rng) {
        let frozen = !self.world.is_closing() && rng.u32(0..5) == 0;
        let longest = if frozen { 3 * self.lease } else { self.lease / 4 };
        sleep(longest.mul_f64(rng.f64())).await;
    }

    async fn beat(&self, c: &mut PgConnection) -> Option<Beat> {
        let beat = jobs::beat(c, self.fence(), self.lease, &Progress::default()).await;
        self.world.ok(beat).flatten()
    }

    /// Whoever still owns the job now owned it all the time.
    async fn owns_and_yet(&self, c: &mut PgConnection, what: String) {
        if self.beat(c).await.is_some() {
            self.world.fault(format!("{:?} owns its job, and yet {what}", self.fence()));
        }
    }

    async fn export(&self, c: &mut PgConnection, rng: &mut Rng) -> Option<Done> {
        let Fence { job, attempt, owner } = self.fence();
        let key = SnapshotKey { job: *job, attempt: *attempt, token: Uuid::parse_str(owner).expect("a token") };
        let Some(part) = write(self.world, &key).await else {
            self.owns_and_yet(c, format!("{} cannot be written", key.text())).await;
            return None;
        };
        self.work(rng).await;
        if rng.bool() && self.beat(c).await.is_none() {
            one_more(&self.world.counts.fenced);
            return None;
        }
        if self.fate == Fate::Death && rng.bool() {
            // A part file is left behind, as after kill -9.
            std::mem::forget(part);
            return None;
        }
        if let Err(error) = spawn_blocking(move || part.publish(&mut |_| Ok(()))).await.expect("no panic") {
            self.owns_and_yet(c, format!("{} is not published: {error}", key.text())).await;
            return None;
        }
        let text = key.text();
        let size = text.len() as u64;
        Some(Done::Exported(FinishedBlob { key: text, size, sha256: sha256(&key), contents: Amount::default() }))
    }

    async fn source(&self, c: &mut PgConnection, source: &ImportSource) -> bool {
        match self.world.area.open_file(&source.key) {
            Ok(_) => true,
            Err(error) => {
                self.owns_and_yet(c, format!("its source {} is gone: {error}", source.key)).await;
                false
            }
        }
    }

    async fn import(&self, c: &mut PgConnection, rng: &mut Rng, source: &ImportSource) -> Option<Done> {
        if !self.source(c, source).await {
            return None;
        }
        let generation = self.world.ok(generations::begin(c, Some(self.fence())).await)?;
        for document in 0..DOCUMENTS {
            if !add(self.world, c, &generation, document).await {
                self.owns_and_yet(c, format!("its generation {generation} was given up")).await;
                one_more(&self.world.counts.fenced);
                return None;
            }
            if rng.u32(0..3) == 0 {
                self.work(rng).await;
            }
        }
        Some(Done::Imported(NewContents { generation, document: "{}".to_owned() }))
    }

    async fn succeed(&self, c: &mut PgConnection, rng: &mut Rng, done: &Done) {
        let fence = self.fence();
        // A second time, as if the first answer had been lost.
        for _ in 0..rng.u32(1..=2) {
            let succeeded = match done {
                Done::Exported(blob) => jobs::succeed(c, fence, blob).await,
                Done::Imported(contents) => {
                    let cell = &self.claim.cell_id;
                    jobs::succeed_import(c, fence, cell, contents, "{}", Amount::default()).await
                }
                Done::Examined => jobs::succeed_dry_run(c, fence, "{}", Amount::default()).await,
            };
            if self.world.ok(succeeded) == Some(true) {
                let mut winners = self.world.winners.lock().expect("not poisoned");
                winners.entry(fence.job).or_default().push(fence.attempt);
                one_more(match done {
                    Done::Imported(_) => &self.world.counts.imported,
                    Done::Exported(_) | Done::Examined => &self.world.counts.finished,
                });
            }
        }
        let view = self.world.ok(jobs::find(c, fence.job).await).flatten();
        if view.is_some_and(|v| v.state == JobState::Succeeded && v.attempt == fence.attempt) {
            return;
        }
        match self.beat(c).await {
            Some(Beat { cancel: true, .. }) => self.end(c, rng, JobState::Cancelled).await,
            Some(_) => self.world.fault(format!("{fence:?} owns its job, and yet cannot succeed")),
            None => one_more(&self.world.counts.fenced),
        }
    }

    async fn end(&self, c: &mut PgConnection, rng: &mut Rng, state: JobState) {
        for _ in 0..rng.u32(1..=2) {
            self.world.ok(jobs::fail(c, self.fence(), state, &ErrorCode::Unknown.body()).await);
        }
    }

    async fn give_back(&self, c: &mut PgConnection, rng: &mut Rng, strike: bool) {
        for _ in 0..rng.u32(1..=2) {
            let error = ErrorCode::Unknown.body();
            let delay = Duration::from_millis(rng.u64(0..20));
            let requeued = jobs::requeue(c, self.fence(), delay, strike, Some(&error)).await;
            match self.world.ok(requeued) {
                Some(Requeued::Queued) | None => {}
                Some(Requeued::Lost) => one_more(&self.world.counts.fenced),
                Some(_) => self.end(c, rng, JobState::Failed).await,
            }
        }
    }
}

fn sha256(key: &SnapshotKey) -> [u8; 32] {
    let mut sha256 = [0; 32];
    sha256[..16].copy_from_slice(key.token.as_bytes());
    sha256
}

/// A part file that holds the text of its key. Nothing when there is one already, or its directory was swept.
async fn write(world: &World, key: &SnapshotKey) -> Option<Part> {
    let (area, key) = (world.area.clone(), key.clone());
    let writing = spawn_blocking(move || {
        let part = area.create_part(&key)?;
        part.writer()?.write_all(key.text().as_bytes())?;
        Ok::<_, std::io::Error>(part)
    });
    writing.await.expect("no panic").ok()
}

/// Adds a document to a generation, unless it was given up.
async fn add(world: &World, c: &mut PgConnection, generation: &str, document: i64) -> bool {
    let mut tx = c.begin().await.expect("a transaction");
    if world.ok(generations::hold(&mut tx, generation).await) != Some(true) {
        return false;
    }
    sqlx::query("INSERT INTO document (generation, type, id, body) VALUES ($1, 'Role', $2, '{}')")
        .bind(generation)
        .bind(document.to_string())
        .execute(&mut *tx)
        .await
        .expect("written");
    tx.commit().await.expect("committed");
    true
}

// --- what every process does besides ------------------------------------------------------------------------------------

async fn reaper(world: Arc<World>, mut rng: Rng) {
    let c = &mut *world.pool.acquire().await.expect("a connection");
    while !world.is_over() {
        pause(&mut rng, 25).await;
        let reaped = world.ok(jobs::reap(c, 10).await).unwrap_or_default();
        world.counts.reaped.fetch_add(reaped.len(), Ordering::Relaxed);
    }
}

async fn relay(world: Arc<World>, mut rng: Rng) {
    let c = &mut *world.pool.acquire().await.expect("a connection");
    while !world.is_over() {
        pause(&mut rng, 25).await;
        for Bell { job, .. } in world.ok(jobs::due(c, 10).await).unwrap_or_default() {
            // Lost, delivered, delivered again.
            let mut bells = world.bells.lock().expect("not poisoned");
            bells.extend(std::iter::repeat_n(job, rng.usize(0..=2)));
        }
    }
}

/// The files of the area with their keys; part files under the keys that they will have.
fn files(area: &Path) -> Vec<(PathBuf, SnapshotKey)> {
    let directories = std::fs::read_dir(area).into_iter().flatten().flatten();
    let files = directories.flat_map(|d| std::fs::read_dir(d.path()).into_iter().flatten().flatten());
    let key = |path: &Path| SnapshotKey::parse(path.parent()?.file_name()?.to_str()?, path.file_name()?.to_str()?);
    files.map(|f| f.path()).filter_map(|path| key(&path).map(|key| (path, key))).collect()
}

async fn sweeper(world: Arc<World>, mut rng: Rng) {
    let c = &mut *world.pool.acquire().await.expect("a connection");
    while !world.is_over() {
        pause(&mut rng, 40).await;
        sweep(&world, c).await;
    }
}

async fn sweep(world: &World, c: &mut PgConnection) {
    for (path, key) in files(&world.root.join("snapshots")) {
        if world.young.lock().expect("not poisoned").contains(&key.text()) {
            continue;
        }
        let garbage = jobs::blob_is_garbage(c, key.job, key.attempt, &key.text()).await;
        // Another sweeper may be faster.
        if world.ok(garbage) == Some(true) && std::fs::remove_file(path).is_ok() {
            one_more(&world.counts.swept);
        }
    }
}

async fn discarder(world: Arc<World>, mut rng: Rng) {
    let c = &mut *world.pool.acquire().await.expect("a connection");
    while !world.is_over() {
        pause(&mut rng, 40).await;
        discard(&world, c).await;
    }
}

async fn discard(world: &World, c: &mut PgConnection) {
    for generation in world.ok(generations::garbage(c, HOUR).await).unwrap_or_default() {
        world.ok(generations::discard(c, &generation, async |_: Vec<Uuid>| ()).await);
    }
}

/// Looks at everything as clients do, again and again.
async fn watcher(world: Arc<World>, mut rng: Rng) {
    let c = &mut *world.pool.acquire().await.expect("a connection");
    while !world.is_over() {
        pause(&mut rng, 20).await;
        look(&world, c).await;
        one_more(&world.counts.looks);
    }
}

async fn look(world: &World, c: &mut PgConnection) {
    let wrong: Vec<String> = sqlx::query_scalar(WRONG_NOW).bind(DOCUMENTS).fetch_all(&mut *c).await.expect("looked");
    wrong.into_iter().for_each(|what| world.fault(what));
    let visible: Vec<String> = sqlx::query_scalar("SELECT blob_key FROM snapshot_entry WHERE kind = 'zip'")
        .fetch_all(&mut *c)
        .await
        .expect("looked");
    for key in visible {
        let bytes = std::fs::read_to_string(world.root.join(&key));
        if bytes.as_ref().is_ok_and(|bytes| *bytes == key) {
            continue;
        }
        // It may have been deleted meanwhile; keys never come back.
        let there: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM snapshot_entry WHERE blob_key = $1)")
            .bind(&key)
            .fetch_one(&mut *c)
            .await
            .expect("looked");
        if there {
            world.fault(format!("{key} is visible without its bytes: {bytes:?}"));
        }
    }
}

// --- the test -----------------------------------------------------------------------------------------------------------

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

fn spawn<F: Future<Output = ()> + Send + 'static>(
    tasks: &mut JoinSet<()>,
    world: &Arc<World>,
    rng: &mut Rng,
    how_many: usize,
    task: impl Fn(Arc<World>, Rng) -> F,
) {
    for _ in 0..how_many {
        tasks.spawn(task(Arc::clone(world), rng.fork()));
    }
}

async fn count(pool: &PgPool, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(pool).await.expect("counted")
}

/// Waits until every job is final; workers and reapers are still at work.
async fn drain(world: &World) {
    let until = Instant::now() + Duration::from_secs(30);
    while count(&world.pool, "SELECT count(*) FROM job WHERE state IN ('queued', 'running')").await > 0 {
        if Instant::now() > until {
            let left: Vec<String> =
                sqlx::query_scalar("SELECT job::text FROM job WHERE state IN ('queued', 'running')")
                    .fetch_all(&world.pool)
                    .await
                    .expect("read");
            return world.fault(format!("never final: {left:?}"));
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// What history tells, once everything is quiet.
async fn judge(world: &World, c: &mut PgConnection) {
    look(world, c).await;
    let wrong: Vec<String> = sqlx::query_scalar(WRONG_BY_HISTORY).fetch_all(&mut *c).await.expect("judged");
    wrong.into_iter().for_each(|what| world.fault(what));

    let known: Vec<Uuid> =
        sqlx::query_scalar("SELECT DISTINCT job FROM job_history").fetch_all(&mut *c).await.expect("judged");
    let known: HashSet<Uuid> = known.into_iter().collect();
    let accepted = world.accepted.lock().expect("not poisoned").clone();
    for job in accepted.keys().filter(|job| !known.contains(job)) {
        world.fault(format!("accepted job {job} is lost"));
    }
    for job in known.iter().filter(|job| !accepted.contains_key(job)) {
        world.fault(format!("refused job {job} was stored"));
    }
    let won: Vec<(Uuid, i32)> = sqlx::query_as(
        "SELECT job, attempt FROM job_history WHERE became = 'succeeded' AND was = 'running' ORDER BY job",
    )
    .fetch_all(&mut *c)
    .await
    .expect("judged");
    let won: HashMap<Uuid, Vec<i32>> = won.into_iter().map(|(job, attempt)| (job, vec![attempt])).collect();
    let told = world.winners.lock().expect("not poisoned").clone();
    if told != won {
        world.fault(format!("told that they succeeded: {told:?}; did succeed: {won:?}"));
    }

    // Nothing is left over.
    sweep(world, c).await;
    discard(world, c).await;
    let named: HashSet<String> = sqlx::query_scalar("SELECT blob_key FROM snapshot_entry WHERE blob_key IS NOT NULL")
        .fetch_all(&mut *c)
        .await
        .map(|keys| keys.into_iter().collect())
        .expect("judged");
    let there: HashSet<String> = files(&world.root.join("snapshots")).into_iter().map(|(_, key)| key.text()).collect();
    if there != named {
        world.fault(format!("files {there:?}, rows {named:?}"));
    }
    let strays = "SELECT (SELECT count(*) FROM generation)
                       + (SELECT count(*) FROM document WHERE generation NOT IN (SELECT generation FROM cell))";
    let strays = count(&world.pool, strays).await;
    if strays > 0 {
        world.fault(format!("{strays} rows of contents that no cell names"));
    }
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn in_chaos_nothing_is_lost_and_nothing_happens_twice(_: PgPoolOptions, connect: PgConnectOptions) {
    let seconds = from_environment("CHAOS_SECS").unwrap_or(12);
    let seed = from_environment("CHAOS_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("chaos for {seconds} s: CHAOS_SEED={seed}");
    // One connection for each task; a pool of the macro's has fewer.
    let pool = PgPoolOptions::new().max_connections(40).connect_with(connect).await.expect("a pool");
    for statement in TRIGGERS {
        sqlx::query(statement).execute(&pool).await.expect(statement);
    }
    let directory = tempfile::tempdir().expect("a directory");
    let world = Arc::new(World {
        pool: pool.clone(),
        area: SnapshotArea::open(directory.path(), 0).expect("an area"),
        root: directory.path().to_owned(),
        closing: AtomicBool::default(),
        over: AtomicBool::default(),
        accepted: Mutex::default(),
        winners: Mutex::default(),
        bells: Mutex::default(),
        young: Mutex::default(),
        faults: Mutex::default(),
        counts: Counts::default(),
    });
    let rng = &mut Rng::with_seed(seed);
    let mut tasks = JoinSet::new();
    spawn(&mut tasks, &world, rng, 6, api);
    spawn(&mut tasks, &world, rng, 4, user);
    spawn(&mut tasks, &world, rng, 14, worker);
    spawn(&mut tasks, &world, rng, 3, reaper);
    spawn(&mut tasks, &world, rng, 2, relay);
    spawn(&mut tasks, &world, rng, 2, sweeper);
    spawn(&mut tasks, &world, rng, 2, discarder);
    spawn(&mut tasks, &world, rng, 1, watcher);

    sleep(Duration::from_secs(seconds)).await;
    world.closing.store(true, Ordering::Relaxed);
    drain(&world).await;
    world.over.store(true, Ordering::Relaxed);
    while let Some(ended) = tasks.join_next().await {
        ended.expect("no panic");
    }
    judge(&world, &mut pool.acquire().await.expect("a connection")).await;

    let accepted = world.accepted.lock().expect("not poisoned").len();
    let attempts = count(&pool, "SELECT coalesce(max(attempt), 0)::bigint FROM job_history").await;
    println!("{accepted} accepted, up to {attempts} attempts, {:?}", world.counts);
    pool.close().await;
    let faults = std::mem::take(&mut *world.faults.lock().expect("not poisoned"));
    assert!(faults.is_empty(), "{} faults, the first: {:#?}", faults.len(), &faults[..faults.len().min(10)]);
    // A chaos in which little happens proves little.
    assert!(accepted as u64 > 5 * seconds && attempts > 1, "too little happened");
    for (what, count) in
        [("fenced", &world.counts.fenced), ("swept", &world.counts.swept), ("looks", &world.counts.looks)]
    {
        assert!(count.load(Ordering::Relaxed) > 0, "{what}: never");
    }
}
