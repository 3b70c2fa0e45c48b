//! The fault suite: every row of the fault matrix, made to happen to real processes, a real PostgreSQL and a real
//! RabbitMQ, and judged by the oracle afterwards. docs/reliability.md has the matrix with what each test asserts.
//!
//! The services must have been built with failpoints: `deploy/test --faults` does that and runs this.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

mod bench;
mod brokers;
mod buckets;
mod cancelling;
mod clocks;
mod crashes;
mod databases;
mod disks;
mod nemesis;
mod network;
mod overload;
mod races;
