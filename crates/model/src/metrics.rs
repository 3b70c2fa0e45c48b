//! What is measured while the services run: every metric with its name, in one place.
//!
//! Names and units follow Prometheus: base units, `_total` for what only grows. No label names a cell, an owner or a file:
//! there are few values of each. Without an internal port nothing is recorded.

use std::time::Duration;

use ::metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use crate::job::{Amount, JobKind, JobState};

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Only grows.
    Counter,
    /// Is what it is now.
    Gauge,
    /// Durations, in buckets.
    Histogram,
}

macro_rules! metrics {
    ($($(#[$doc:meta])* $constant:ident = $form:ident $name:literal $unit:ident $what:literal;)*) => {
        $(#[doc = $what] pub const $constant: &str = $name;)*
        /// Every metric: its name, form, unit and meaning.
        pub const ALL: &[(&str, Form, Unit, &str)] = &[$(($name, Form::$form, Unit::$unit, $what),)*];
    };
}

metrics! {
    BUILD = Gauge "cellexport_build_info" Count "1, with service and version.";
    JOBS = Counter "cellexport_jobs_total" Count "Jobs that ended, by kind and outcome.";
    DURATION = Histogram "cellexport_job_duration_seconds" Seconds "From the claim of the last attempt to its end, by kind.";
    QUEUE_WAIT = Histogram "cellexport_queue_wait_seconds" Seconds "From the request to the first claim, by kind.";
    IN_PROGRESS = Gauge "cellexport_jobs_in_progress" Count "Jobs that a worker has, in the whole installation, by kind.";
    QUEUE_DEPTH = Gauge "cellexport_queue_depth" Count "Jobs that wait, in the whole installation, by kind.";
    QUEUE_OLDEST = Gauge "cellexport_queue_oldest_seconds" Seconds "How long the oldest of them has been waiting, by kind.";
    DOCUMENTS = Counter "cellexport_documents_total" Count "Documents of jobs that succeeded, by kind.";
    BYTES = Counter "cellexport_bytes_total" Bytes "Uncompressed bytes of jobs that succeeded, by kind.";
    LEASES = Counter "cellexport_leases_expired_total" Count "Jobs whose worker was taken for dead.";
    RETRIES = Counter "cellexport_retries_total" Count "Attempts that failed and are to be repeated, by class.";
    PUBLISHES = Counter "cellexport_publishes_total" Count "Doorbells, by what the broker said.";
    WAITING = Gauge "cellexport_waiting_clients" Count "Clients that wait for a job or watch it.";
    FREE = Gauge "cellexport_storage_free_bytes" Bytes "Free space beyond the reserve, by area.";
    UP = Gauge "cellexport_dependency_up" Count "1 while the service can use it, by dependency.";
    HTTP = Histogram "http_server_request_duration_seconds" Seconds "From the head of a request to that of its answer, by route, method and status.";
}

/// Upper bounds of the buckets, in seconds: of requests, and of jobs and their waits.
pub const REQUEST_BUCKETS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];
/// See [`REQUEST_BUCKETS`].
pub const JOB_BUCKETS: &[f64] = &[0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0];

/// Says what every metric means, and gives those of the service a first value.
pub fn describe(service: &'static str) {
    for (name, form, unit, what) in ALL {
        match form {
            Form::Counter => describe_counter!(*name, *unit, *what),
            Form::Gauge => describe_gauge!(*name, *unit, *what),
            Form::Histogram => describe_histogram!(*name, *unit, *what),
        }
    }
    gauge!(BUILD, "service" => service, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    for kind in JobKind::ALL {
        for state in JobState::ALL.into_iter().filter(|state| state.is_final()) {
            counter!(JOBS, "kind" => kind.name(), "outcome" => state.name()).absolute(0);
        }
    }
    counter!(LEASES).absolute(0);
}

/// A job ended.
pub fn ended(kind: JobKind, state: JobState) {
    counter!(JOBS, "kind" => kind.name(), "outcome" => state.name()).increment(1);
}

/// Jobs whose worker was taken for dead.
pub fn expired(jobs: u64) {
    counter!(LEASES).increment(jobs);
}

/// A doorbell was published: `confirmed`, `refused` by a full queue, `returned` without a queue, or `failed`.
pub fn published(outcome: &'static str) {
    counter!(PUBLISHES, "outcome" => outcome).increment(1);
}

/// Whether a service can use what it depends on.
pub fn up(dependency: &'static str, is_up: bool) {
    gauge!(UP, "dependency" => dependency).set(if is_up { 1.0 } else { 0.0 });
}

/// Free space of an area beyond the reserve, in bytes.
pub fn free(area: &'static str, bytes: u64) {
    gauge!(FREE, "area" => area).set(bytes as f64);
}

/// An attempt began, so long after the request; only of a first one.
pub fn waited(kind: JobKind, wait: Duration) {
    histogram!(QUEUE_WAIT, "kind" => kind.name()).record(wait);
}

/// An attempt of a job that succeeded, failed for good or was cancelled took so long.
pub fn took(kind: JobKind, seconds: f64) {
    histogram!(DURATION, "kind" => kind.name()).record(seconds);
}

/// A job that succeeded went through so much.
pub fn done(kind: JobKind, amount: Amount) {
    counter!(DOCUMENTS, "kind" => kind.name()).increment(amount.documents);
    counter!(BYTES, "kind" => kind.name()).increment(amount.bytes);
}

/// An attempt failed and is to be repeated: `retry` counts against the budget, `wait` does not.
pub fn retried(class: &'static str) {
    counter!(RETRIES, "class" => class).increment(1);
}

/// A client begins or ends to wait for a job.
pub fn waiting(clients: f64) {
    gauge!(WAITING).increment(clients);
}

/// A request was answered.
pub fn answered(route: &'static str, method: &'static str, status: u16, seconds: f64) {
    let labels = [("route", route.to_owned()), ("method", method.to_owned()), ("status", status.to_string())];
    histogram!(HTTP, &labels).record(seconds);
}

/// Jobs that are active: how many of a kind wait and are worked on, and how long the oldest has waited.
pub fn active(kind: JobKind, queued: u64, running: u64, oldest: Duration) {
    gauge!(QUEUE_DEPTH, "kind" => kind.name()).set(queued as f64);
    gauge!(IN_PROGRESS, "kind" => kind.name()).set(running as f64);
    gauge!(QUEUE_OLDEST, "kind" => kind.name()).set(oldest.as_secs_f64());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_conventions() {
        for (name, form, unit, what) in ALL {
            assert!(name.starts_with("cellexport_") || name.starts_with("http_server_"), "{name}");
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
            assert_eq!(name.ends_with("_total"), *form == Form::Counter, "{name}");
            assert!(*unit != Unit::Seconds || name.ends_with("_seconds"), "{name}");
            assert!(*unit != Unit::Bytes || name.trim_end_matches("_total").ends_with("_bytes"), "{name}");
            assert!(what.ends_with('.'), "{name}");
        }
        let mut names: Vec<_> = ALL.iter().map(|(name, ..)| name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
    }
}
