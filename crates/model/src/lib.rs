//! What the services of cell-export must agree on.
//!
//! If changing a thing on one side only would break the other side, it belongs here; otherwise it does not.
//! The core (names, states, codes, formats) compiles without any I/O; what talks to PostgreSQL, RabbitMQ and
//! the storage sits behind the features `postgres`, `amqp` and `area`, the port for probes behind `internal`, logs and
//! traces behind `telemetry`, and what looks at all of them behind `doctor`. Nothing here answers users, and nothing reads the documents and files of a cell, the
//! accounts, roles and ACLs that decide who may do what aside.

pub mod cell;
pub mod error_chain;
pub mod error_code;
pub mod failpoint;
pub mod job;
pub mod job_report;
pub mod layout;
pub mod limits;
pub mod message;
pub mod settings;
pub mod snapshot_name;
pub mod status_report;
pub mod trace_context;

#[cfg(feature = "area")]
pub mod area;
#[cfg(feature = "doctor")]
pub mod doctor;
#[cfg(feature = "amqp")]
pub mod doorbell;
#[cfg(feature = "postgres")]
pub mod hosts;
#[cfg(feature = "postgres")]
pub mod housekeeping;
#[cfg(feature = "internal")]
pub mod internal;
#[cfg(feature = "postgres")]
pub mod metrics;
#[cfg(feature = "area")]
pub mod snapshot_file;
#[cfg(feature = "postgres")]
pub mod store;
#[cfg(feature = "telemetry")]
pub mod telemetry;
#[cfg(feature = "amqp")]
pub mod topology;
