//! The HTTP service of cell-export: accepts exports and imports, reports on them, serves the snapshot area, and makes
//! and removes cells.
//!
//! Reading order: `front` takes every request through the common processing and `routes` to a handler; a handler
//! gets a `auth::CellRoot` or a `auth::UnitMaster`, the proof that the caller may do everything with the cell or the
//! unit. The contract is Personium's (API reference, pages 501 to 508, and 100 to 104 for cells); where this service
//! differs on purpose, README.md says so.

mod application;
mod auth;
mod body;
mod common;
pub mod config;
mod connection;
mod database;
pub mod doctor;
mod error;
mod front;
#[cfg(fuzzing)]
pub mod fuzzing;
mod handlers;
mod held;
pub mod jobs_command;
mod odata;
mod open_files;
mod openapi;
mod page;
mod ranges;
mod request_trace;
mod routes;
mod sent_file;
mod server;
mod slow_reader;
mod state;
mod unread;
mod upload;
mod watch;
mod webdav;

pub use application::Application;
pub use auth::token_command;
