//! The HTTP service of cell-export: accepts export requests, reports on them, serves the snapshot area.
//!
//! Reading order: `front` takes every request through the common processing and `routes` to a handler; a handler
//! gets a `auth::CellRoot`, which is the proof that the caller may do everything with the cell. The contract is
//! Personium's (API reference, pages 501 to 508); where this service differs on purpose, README.md says so.

mod application;
mod auth;
mod body;
mod common;
pub mod config;
mod database;
mod error;
mod front;
mod handlers;
mod ranges;
mod routes;
mod state;
pub mod telemetry;
mod webdav;

pub use application::Application;
