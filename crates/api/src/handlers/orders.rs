//! What exports and imports have in common: a job is ordered, or the client is told why not.

use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::http::header::{LINK, LOCATION, RETRY_AFTER};
use model::cell::CellId;
use model::error_code::ErrorCode;
use model::job::JobKind;
use model::message::Bell;
use model::snapshot_name::SnapshotName;
use model::store::StoreError;
use model::store::job_resources::{self, Family};
use model::store::jobs::{self as store, AcceptError, Idempotency, NewJob};
use model::trace_context::TraceContext;
use model::{failpoint, limits};
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use uuid::Uuid;

use super::jobs;
use crate::auth::CellRoot;
use crate::common::incoming::Incoming;
use crate::common::prefer;
use crate::error::ApiError;
use crate::state::State;

/// What is ordered.
#[derive(Debug, Clone)]
pub(super) enum Order {
    /// An export.
    Export,
    /// An import or a dry run, of the file that was looked at.
    Import {
        /// Which of them.
        kind: JobKind,
        /// Key of the file.
        key: String,
    },
}

impl Order {
    fn kind(&self) -> JobKind {
        match self {
            Self::Export => JobKind::Export,
            Self::Import { kind, .. } => *kind,
        }
    }
}

/// What a request says of how it wants to be treated.
#[derive(Debug)]
pub(super) struct Manner {
    /// How long the client would wait for the end.
    wait: Option<Duration>,
    /// What tells a repeated request.
    idempotency: Option<Idempotency>,
    /// The span that asks.
    trace: Option<TraceContext>,
}

impl Manner {
    /// Reads it from the header.
    ///
    /// # Errors
    /// 400 PR400-OD-0041 for an `Idempotency-Key` that cannot be one.
    pub(super) fn read(request: &Incoming, kind: JobKind, body: &[u8]) -> Result<Self, ApiError> {
        let (wait, trace) = (prefer::wait(&request.headers), request.trace.clone());
        let Some(value) = request.condition("idempotency-key") else {
            return Ok(Self { wait, idempotency: None, trace });
        };
        // A string in quotes (draft-ietf-httpapi-idempotency-key-header, section 2.1); many clients leave them out.
        let key = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(&value);
        let fits =
            (1..=limits::IDEMPOTENCY_KEY).contains(&key.len()) && key.bytes().all(|b| (b' '..=b'~').contains(&b));
        if !fits {
            return Err(ApiError::with(ErrorCode::HeaderValue, &["Idempotency-Key", &value]));
        }
        let body = Sha256::new().chain_update(kind.name()).chain_update("\n").chain_update(body).finalize().into();
        Ok(Self { wait, idempotency: Some(Idempotency { key: key.to_owned(), body }), trace })
    }
}

/// Answers a request that was accepted before, by its key; nothing when it was not.
///
/// # Errors
/// 422 when it asked for something else then.
pub(super) async fn repeated(
    state: &State,
    root: &CellRoot,
    kind: JobKind,
    manner: &Manner,
) -> Result<Option<HttpResponse>, ApiError> {
    let Some(Idempotency { key, body }) = manner.idempotency.clone() else { return Ok(None) };
    let cell = root.cell.id.clone();
    let looking = state.database.ask(async move |connection: &mut PgConnection| {
        let ordered = job_resources::ordered_with(connection, &cell, &key).await?;
        match ordered {
            Some((_, other)) if other != body => Err(ApiError::with(ErrorCode::KeyReused, &[&key])),
            Some((id, _)) => Ok(Some(id)),
            None => Ok(None),
        }
    });
    match looking.await? {
        None => Ok(None),
        Some(id) => accepted(state, root, kind, id, manner.wait).await.map(Some),
    }
}

/// The answer to a request that was accepted: at once, or when the job has ended and the client would wait.
async fn accepted(
    state: &State,
    root: &CellRoot,
    kind: JobKind,
    id: Uuid,
    wait: Option<Duration>,
) -> Result<HttpResponse, ApiError> {
    let family = Family::of(kind);
    let mut response = HttpResponse::Accepted();
    response
        .insert_header((LOCATION, format!("{}{}", root.url, resource(kind))))
        .insert_header((LINK, jobs::monitor(root, family, id)))
        .insert_header((RETRY_AFTER, limits::LOOK_AGAIN));
    if let Some(longest) = wait {
        // What goes wrong while waiting does not take back that it was accepted.
        if let Ok((job, Some(waited))) = jobs::wait(state, root, family, id, longest, jobs::until_ended).await {
            if job.state.is_final() {
                return jobs::ended(root, &job, waited);
            }
            response.insert_header((jobs::PREFERENCE_APPLIED, prefer::applied(waited)));
        }
    }
    Ok(response.finish())
}

/// Orders a job: 202 once it is committed. The database's constraints decide.
pub(super) async fn place(
    state: &State,
    root: &CellRoot,
    name: SnapshotName,
    order: Order,
    manner: Manner,
) -> Result<HttpResponse, ApiError> {
    let kind = order.kind();
    let job = NewJob {
        id: Uuid::new_v4(),
        cell: root.cell.id.clone(),
        name: name.clone(),
        deadline: state.jobs.deadline,
        max_strikes: state.jobs.max_strikes,
        admission: state.admission.clone(),
        idempotency: manner.idempotency.clone(),
        trace: manner.trace.clone(),
    };
    let id = job.id;
    let accepting = state.database.ask(async move |connection: &mut PgConnection| {
        let accepted = match &order {
            Order::Export => store::accept(connection, &job).await,
            Order::Import { kind, key } => store::accept_import(connection, &job, *kind, key).await,
        };
        match accepted {
            Ok(()) => Ok(true),
            Err(error) => {
                // The same request may have been accepted at this very moment.
                if let Some(idempotency) = &job.idempotency
                    && job_resources::ordered_with(connection, &job.cell, &idempotency.key).await?.is_some()
                {
                    return Ok(false);
                }
                if matches!(error, AcceptError::CellBusy) {
                    // Names what the cell is busy with, unless that has ended since.
                    refuse_when_busy(connection, &job.cell).await?;
                }
                Err(refusal(error, kind, &job))
            }
        }
    });
    if !accepting.await? {
        let before = repeated(state, root, kind, &manner).await?;
        return before.ok_or_else(|| ApiError::busy(kind));
    }
    failpoint::reached("api.after_commit");
    let what = kind.noun();
    tracing::info!(job.id = %id, cell.name = %root.cell.name, snapshot.name = %name, "{what} accepted");
    state.ringer.ring(Bell { job: id, trace: manner.trace.clone() });
    failpoint::reached("api.before_answer");
    accepted(state, root, kind, id, manner.wait).await
}

/// Refuses while a job of the cell is active.
pub(super) async fn refuse_when_busy(connection: &mut PgConnection, cell: &CellId) -> Result<(), ApiError> {
    match store::active(connection, cell).await? {
        Some(job) => Err(ApiError::busy(job.kind)),
        None => Ok(()),
    }
}

/// Path of a kind's resource below its cell.
fn resource(kind: JobKind) -> &'static str {
    match kind {
        JobKind::Export => "__export",
        JobKind::Import => "__import",
        JobKind::DryRun => "__import/dry-run",
    }
}

fn refusal(error: AcceptError, kind: JobKind, job: &NewJob) -> ApiError {
    match error {
        AcceptError::CellBusy | AcceptError::KeyUsed => ApiError::busy(kind),
        AcceptError::CellGone => ErrorCode::CellNotFound.into(),
        AcceptError::SourceChanged => ErrorCode::CellInUse.into(),
        AcceptError::NameTaken => ApiError::with(ErrorCode::FileExists, &[&format!("{}.zip", job.name)]),
        AcceptError::TooMany => ErrorCode::TooManyChildren.into(),
        AcceptError::QueueFull => ApiError::for_now(ErrorCode::TooManyRequests, "60"),
        AcceptError::OwnerBusy => ApiError::for_now(ErrorCode::TooManyRequests, "30"),
        AcceptError::Store(error) => StoreError::into(error),
    }
}
