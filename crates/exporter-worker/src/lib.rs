//! The worker of cell-export: turns accepted jobs into snapshot files, and loads cells.
//!
//! Reading order: [`worker`] runs [`slot`]s; a slot claims a job and runs one [`attempt`]; the attempt keeps its lease
//! ([`heartbeat`]) and does one [`export`], which reads a [`source`] and feeds a [`snapshot`] file. What goes wrong is a
//! [`failure`], which knows what is to be done about it.

pub mod attempt;
pub mod chores;
pub mod config;
pub mod control;
pub mod doctor;
pub mod export;
pub mod failure;
pub mod forecast;
pub mod heartbeat;
pub mod import;
pub mod listener;
pub mod load;
pub mod slot;
pub mod snapshot;
pub mod source;
pub mod sweeper;
pub mod worker;
