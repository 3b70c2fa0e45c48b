//! The running system, seen as its users see it: real processes, real PostgreSQL, real RabbitMQ.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod backup;
mod big_cell;
mod broker;
mod cells;
mod cli;
mod clients;
mod collector;
mod conditional;
mod cors;
mod crashes;
mod credentials;
mod description;
mod determinism;
mod doctor;
mod error_files;
mod export_request;
mod health;
mod hosts;
mod import_request;
mod imports;
mod isolation;
mod job_resources;
mod jobs_command;
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
mod storage;
mod storage_contract;
mod telemetry;
mod upgrades;
mod uploads;
mod web_client;
mod web_tokens;
mod writers;
