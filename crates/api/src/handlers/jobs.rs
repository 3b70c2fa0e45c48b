//! `{cell}__export/jobs` and `{cell}__import/jobs`: what became of requests, waiting for it, and ending it early.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, ETAG, HeaderName, LINK, X_CONTENT_TYPE_OPTIONS};
use actix_web::{HttpResponse, HttpResponseBuilder};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use futures_util::stream;
use model::error_code::ErrorCode;
use model::job::JobState;
use model::job_report::{Counted, JobList, JobReport};
use model::limits;
use model::snapshot_name::SnapshotFileName;
use model::store::job_resources::{self, Behind, Family, JobResource};
use model::store::jobs::{self, Cancelling};
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::PgConnection;
use tokio::time::{Instant, timeout, timeout_at};
use uuid::Uuid;

use crate::auth::CellRoot;
use crate::common::incoming::Incoming;
use crate::common::prefer;
use crate::error::ApiError;
use crate::state::State;
use crate::watch::Following;

/// `Preference-Applied` (RFC 7240, section 3).
pub(super) const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

const NO_STORE: (HeaderName, &str) = (CACHE_CONTROL, "no-store");

/// Path of a family's resource below its cell.
fn resource(family: Family) -> &'static str {
    match family {
        Family::Exports => "__export",
        Family::Imports => "__import",
    }
}

/// URL of a job.
pub(super) fn url(root: &CellRoot, family: Family, id: Uuid) -> String {
    format!("{}{}/jobs/{id}", root.url, resource(family))
}

/// Lists jobs, newest first.
pub(crate) async fn list(
    state: &State,
    root: &CellRoot,
    family: Family,
    request: &Incoming,
) -> Result<HttpResponse, ApiError> {
    let Page { limit, behind } = Page::read(&request.query)?;
    let cell = root.cell.id.clone();
    let listing = state.database.ask(async move |connection: &mut PgConnection| {
        // One more tells whether there is another page.
        let most = i64::from(limit) + 1;
        job_resources::page(connection, &cell, family, behind, most).await.map_err(ApiError::from)
    });
    let mut found = listing.await?;
    let more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let next = found.last().filter(|_| more).map(|last| {
        let after = Page::mark(&Behind { accepted_at: last.accepted_at, id: last.id });
        format!("{}{}/jobs?limit={limit}&after={after}", root.url, resource(family))
    });
    let mut response = HttpResponse::Ok();
    if let Some(next) = &next {
        response.insert_header((LINK, format!("<{next}>; rel=\"next\"")));
    }
    let list = JobList { jobs: found.iter().map(|job| report(root, job)).collect(), next };
    document(&mut response, &list)
}

/// Shows a job, now or, when the client would wait, when its state has changed.
pub(crate) async fn show(
    state: &State,
    root: &CellRoot,
    family: Family,
    id: &str,
    request: &Incoming,
) -> Result<HttpResponse, ApiError> {
    let id = parse(id)?;
    let (job, waited) = match prefer::wait(&request.headers) {
        None => (find(state, root, family, id).await?, None),
        Some(longest) => wait(state, root, family, id, longest, until_changed).await?,
    };
    let tag = etag(&job);
    let known = request.header("if-none-match").is_some_and(|value| value == tag);
    let mut response = HttpResponse::build(if known { StatusCode::NOT_MODIFIED } else { StatusCode::OK });
    response.insert_header((ETAG, tag));
    if let Some(waited) = waited {
        response.insert_header((PREFERENCE_APPLIED, prefer::applied(waited)));
    }
    if known {
        return Ok(response.insert_header(NO_STORE).finish());
    }
    document(&mut response, &report(root, &job))
}

/// Ends a job early: 204 when it has ended so, 202 when its worker was told.
pub(crate) async fn cancel(state: &State, root: &CellRoot, family: Family, id: &str) -> Result<HttpResponse, ApiError> {
    let id = parse(id)?;
    let cell = root.cell.id.clone();
    let cancelling = state.database.ask(async move |connection: &mut PgConnection| {
        // A job of the other family has no such resource.
        if job_resources::one(connection, &cell, family, id).await?.is_none() {
            return Ok(Cancelling::Unknown);
        }
        jobs::cancel(connection, &cell, id).await.map_err(ApiError::from)
    });
    match cancelling.await? {
        Cancelling::Cancelled | Cancelling::AlreadyFinal(JobState::Cancelled) => {
            tracing::info!(job.id = %id, cell.name = %root.cell.name, "job cancelled");
            Ok(HttpResponse::NoContent().finish())
        }
        Cancelling::Requested => {
            tracing::info!(job.id = %id, cell.name = %root.cell.name, "asked the worker to cancel the job");
            let job = find(state, root, family, id).await?;
            let mut response = HttpResponse::Accepted();
            document(response.insert_header((LINK, monitor(root, family, id))), &report(root, &job))
        }
        Cancelling::AlreadyFinal(state) => Err(ApiError::with(ErrorCode::JobEnded, &[state.name()])),
        Cancelling::Unknown => Err(unknown()),
    }
}

/// Tells of a job's changes as they happen, until it ends: `text/event-stream` (HTML, section 9.2).
pub(crate) async fn events(
    state: &State,
    root: &CellRoot,
    family: Family,
    id: &str,
    request: &Incoming,
) -> Result<HttpResponse, ApiError> {
    let id = parse(id)?;
    let following = state.watch.follow(id).ok_or_else(|| ApiError::for_now(ErrorCode::TooManyRequests, "5"))?;
    let job = find(state, root, family, id).await?;
    let seen = request.header("last-event-id").and_then(|seen| seen.trim().parse().ok()).unwrap_or(-1);
    if job.state.is_final() && seen >= job.revision {
        // Whoever hears this asks no more (HTML, section 9.2.3).
        return Ok(HttpResponse::NoContent().finish());
    }
    let told = Telling { following, root: root.clone(), seen, next: Some(Arc::new(job)) };
    let stream = stream::unfold(Some(told), async |telling| match telling {
        None => None,
        Some(telling) => telling.next().await,
    });
    Ok(HttpResponse::Ok()
        .insert_header(NO_STORE)
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        // Proxies that gather what they pass on would make it useless.
        .insert_header((HeaderName::from_static("x-accel-buffering"), "no"))
        .content_type("text/event-stream")
        .streaming(stream))
}

/// A stream of events.
struct Telling {
    following: Following,
    root: CellRoot,
    seen: i64,
    next: Option<Arc<JobResource>>,
}

impl Telling {
    /// The next piece of the stream, and what comes after it: nothing after the end.
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Option<Self>)> {
        let known = self.next.take().filter(|job| job.revision > self.seen);
        let job = match known {
            Some(job) => job,
            None => match timeout(limits::EVENTS_PAUSE, self.following.newer(self.seen)).await {
                Ok(job) => job?,
                Err(_) => return Some((Ok(Bytes::from_static(b":\n\n")), Some(self))),
            },
        };
        self.seen = job.revision;
        let ended = job.state.is_final();
        let name = if ended { "end" } else { "progress" };
        let document = json(&report(&self.root, &job)).unwrap_or_default();
        let event = format!("event: {name}\nid: {}\ndata: {document}\n\n", job.revision);
        Some((Ok(event.into()), (!ended).then_some(self)))
    }
}

/// What a wait is for, told apart from what was there at first.
type Enough = fn(&JobResource, &JobResource) -> bool;

/// The state is another one, or will never be.
pub(super) fn until_changed(first: &JobResource, job: &JobResource) -> bool {
    job.state.is_final() || (job.state, job.attempt) != (first.state, first.attempt)
}

/// The job has ended.
pub(super) fn until_ended(_: &JobResource, job: &JobResource) -> bool {
    job.state.is_final()
}

/// Waits for a job, for at most `longest`. Returns it as it is then, and how long would have been waited; no time when
/// there was no room to wait.
pub(super) async fn wait(
    state: &State,
    root: &CellRoot,
    family: Family,
    id: Uuid,
    longest: Duration,
    enough: Enough,
) -> Result<(JobResource, Option<Duration>), ApiError> {
    let until = Instant::now() + longest;
    let following = state.watch.follow(id);
    let first = find(state, root, family, id).await?;
    let Some(mut following) = following else { return Ok((first, None)) };
    let mut job = Arc::new(first.clone());
    while !enough(&first, &job) {
        match timeout_at(until, following.newer(job.revision)).await {
            Ok(Some(newer)) => job = newer,
            // The time is up, or the service ends.
            Ok(None) | Err(_) => break,
        }
    }
    Ok((Arc::unwrap_or_clone(job), Some(longest)))
}

async fn find(state: &State, root: &CellRoot, family: Family, id: Uuid) -> Result<JobResource, ApiError> {
    let cell = root.cell.id.clone();
    let finding = state.database.ask(async move |connection: &mut PgConnection| {
        job_resources::one(connection, &cell, family, id).await.map_err(ApiError::from)
    });
    finding.await?.ok_or_else(unknown)
}

fn parse(id: &str) -> Result<Uuid, ApiError> {
    // Only the form that is given out: one URL for one job.
    Uuid::try_parse(id).ok().filter(|parsed| parsed.to_string() == id).ok_or_else(unknown)
}

fn unknown() -> ApiError {
    ErrorCode::JobNotFound.into()
}

/// The value of a `Link` to a job.
pub(super) fn monitor(root: &CellRoot, family: Family, id: Uuid) -> String {
    format!("<{}>; rel=\"monitor\"", url(root, family, id))
}

/// The answer that shows a job which was waited for.
pub(super) fn ended(root: &CellRoot, job: &JobResource, waited: Duration) -> Result<HttpResponse, ApiError> {
    let mut response = HttpResponse::Ok();
    response
        .insert_header((PREFERENCE_APPLIED, prefer::applied(waited)))
        .insert_header((LINK, monitor(root, Family::of(job.kind), job.id)));
    document(&mut response, &report(root, job))
}

/// A heartbeat changes the document and not the revision: a weak tag.
fn etag(job: &JobResource) -> String {
    format!("W/\"{}\"", job.revision)
}

/// Answers with a document, which is another one soon.
fn document(response: &mut HttpResponseBuilder, document: &impl Serialize) -> Result<HttpResponse, ApiError> {
    Ok(response.insert_header(NO_STORE).content_type("application/json").body(json(document)?))
}

fn json(document: &impl Serialize) -> Result<String, ApiError> {
    serde_json::to_string(document).map_err(|_| ErrorCode::Unknown.into())
}

fn report(root: &CellRoot, job: &JobResource) -> JobReport {
    let running = job.state == JobState::Running;
    let outlook = if running { outlook(job) } else { None };
    let own = url(root, Family::of(job.kind), job.id);
    let file = job.file.map(|kind| {
        let file = SnapshotFileName { base: job.name.clone(), kind };
        format!("{}__snapshot/{file}", root.url)
    });
    let counted = |done, total| Counted { done, total };
    JobReport {
        id: job.id,
        kind: job.kind.name().to_owned(),
        name: job.name.to_string(),
        state: job.state.name().to_owned(),
        attempt: job.attempt,
        cancel_requested: job.cancel_requested,
        queue_position: job.queue_position,
        percent: if job.state == JobState::Succeeded { 100 } else { job.percent },
        documents: counted(job.done.documents, job.total.map(|t| t.documents)),
        files: counted(job.done.files, job.total.map(|t| t.files)),
        bytes: counted(job.done.bytes, job.total.map(|t| t.bytes)),
        bytes_per_second: outlook.map(|o| o.rate),
        accepted_at: time(job.accepted_at),
        started_at: job.started_at.map(time),
        heartbeat_at: job.heartbeat_at.filter(|_| running).map(time),
        estimated_end: outlook.and_then(|o| o.end).map(time),
        finished_at: job.finished_at.map(time),
        error: job.error.clone(),
        size: job.size,
        sha256: job.sha256.as_deref().map(hex::encode),
        file,
        result: job.result.clone().and_then(|result| RawValue::from_string(result).ok()),
        events: format!("{own}/events"),
        own,
    }
}

#[derive(Debug, Clone, Copy)]
struct Outlook {
    /// Bytes per second.
    rate: u64,
    end: Option<DateTime<Utc>>,
}

/// How fast an attempt is, and when it ends. By the time at which it reported: between two reports nothing is known.
fn outlook(job: &JobResource) -> Option<Outlook> {
    let (begun, reported) = (job.attempt_at?, job.progress_at?);
    let elapsed = (reported - begun).num_microseconds().filter(|micros| *micros > 0)? as f64;
    let rate = (job.done.bytes as f64 / elapsed * 1e6) as u64;
    let end = job.remaining.and_then(|left| {
        let left = chrono::Duration::microseconds((left * 1e6) as i64);
        reported.checked_add_signed(left).map(|end| end.max(job.read_at))
    });
    Some(Outlook { rate, end })
}

fn time(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Which part of a list is asked for.
#[derive(Debug, PartialEq, Eq)]
struct Page {
    limit: u8,
    behind: Option<Behind>,
}

impl Page {
    /// Reads `limit` and `after`; other parameters are ignored.
    fn read(query: &str) -> Result<Self, ApiError> {
        let mut page = Self { limit: limits::JOBS_PER_PAGE, behind: None };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| (1..=limits::JOBS_PER_PAGE_MAX).contains(limit));
                    page.limit = limit.ok_or_else(|| ApiError::with(ErrorCode::ODataQuery, &["limit", &value]))?;
                }
                "after" => {
                    let wrong = || ApiError::with(ErrorCode::ODataQuery, &["after", &value]);
                    page.behind = Some(Self::behind(&value).ok_or_else(wrong)?);
                }
                _ => {}
            }
        }
        Ok(page)
    }

    fn mark(behind: &Behind) -> String {
        let mut bytes = behind.accepted_at.timestamp_micros().to_be_bytes().to_vec();
        bytes.extend(behind.id.as_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn behind(mark: &str) -> Option<Behind> {
        let bytes: [u8; 24] = URL_SAFE_NO_PAD.decode(mark).ok()?.try_into().ok()?;
        let (micros, id) = bytes.split_first_chunk::<8>()?;
        let accepted_at = DateTime::from_timestamp_micros(i64::from_be_bytes(*micros))?;
        Some(Behind { accepted_at, id: Uuid::from_slice(id).ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_as_it_was_given_out() {
        let accepted_at = DateTime::from_timestamp_micros(1_790_000_000_123_456).expect("a time");
        let behind = Behind { accepted_at, id: Uuid::from_u128(7) };
        let query = format!("limit=3&after={}&x=y", Page::mark(&behind));
        assert_eq!(Page::read(&query).expect("a page"), Page { limit: 3, behind: Some(behind) });
        assert_eq!(Page::read("").expect("a page"), Page { limit: limits::JOBS_PER_PAGE, behind: None });
        for wrong in ["limit=0", "limit=101", "limit=x", "limit=", "after=x", "after=", "after=AAAA"] {
            assert!(Page::read(wrong).is_err(), "{wrong}");
        }
    }
}
