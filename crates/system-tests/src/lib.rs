//! A whole installation for one test: its own database, its own queues, its own directories, real processes.
//!
//! `DATABASE_URL` and `AMQP_URL` name the servers; the binaries are those built beside the test.

pub mod broker;
pub mod browser;
pub mod disks;
pub mod history;
pub mod http;
pub mod judge;
pub mod ledger;
pub mod logical;
pub mod manifests;
pub mod object_server;
pub mod oracle;
pub mod process;
pub mod proxy;
pub mod random_cell;
pub mod secrets;
pub mod servers;
pub mod stop;
pub mod strace;
pub mod system;
pub mod units_tokens;
