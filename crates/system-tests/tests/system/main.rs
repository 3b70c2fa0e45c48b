//! The running system, seen as its users see it: real processes, real PostgreSQL, real RabbitMQ.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod big_cell;
mod broker;
mod cells;
mod chart;
mod cli;
mod clients;
mod compose;
mod conditional;
mod cors;
mod crashes;
mod credentials;
mod description;
mod determinism;
mod error_files;
mod export_request;
mod health;
mod images;
mod import_request;
mod imports;
mod isolation;
mod job_resources;
mod metrics;
mod outages;
mod page;
mod propfind;
mod races;
mod readers;
mod restore;
mod round_trip;
mod routing;
mod secrets;
mod shutdown;
mod slow_clients;
mod uploads;
mod web_client;
mod web_tokens;
mod writers;
