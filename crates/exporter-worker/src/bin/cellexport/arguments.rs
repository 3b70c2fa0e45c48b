//! The command line.

use std::path::PathBuf;

use clap::builder::{RangedI64ValueParser, RangedU64ValueParser};
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::limits;

/// What stands below the help.
const AFTER: &str = "CELL is a cell's URL (https://unit/cell/, https://cell.unit/), or its name when the unit is \
configured.\n\nExit codes: 0 done; 1 other failure; 2 wrong usage; 3 the job failed; 4 not found; 5 not allowed; \
6 conflict; 7 server or network unavailable; 8 the file is damaged; 130 interrupted.\n\nConfiguration file: \
$XDG_CONFIG_HOME/cellexport/config.toml with unit, token or token_file, timeout, tries. Environment: CELLEXPORT_UNIT, \
CELLEXPORT_TOKEN, CELLEXPORT_TOKEN_FILE, CELLEXPORT_CONFIG.";

/// Takes cells off a Personium unit as snapshots, and puts them back.
#[derive(Debug, Parser)]
#[command(name = "cellexport", version, after_long_help = AFTER, after_help = AFTER)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) everywhere: Everywhere,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Everywhere {
    /// Configuration file.
    #[arg(long, global = true, env = "CELLEXPORT_CONFIG", value_name = "FILE", hide_env_values = true)]
    pub(crate) config: Option<PathBuf>,
    /// URL of the unit, for cells that are given by name; with {cell} in it where each cell has a host of its own.
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) unit: Option<String>,
    /// File whose first line is the token. A token itself is no option: all users of a machine can see those.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Longest wait for a connection and for the next piece of an answer, in seconds.
    #[arg(long, global = true, value_name = "SECONDS", value_parser = seconds())]
    pub(crate) timeout: Option<u64>,
    /// How often a request is sent at most when the server or the network is not there.
    #[arg(long, global = true, value_name = "N", value_parser = up_to(limits::TRIES_MAX))]
    pub(crate) tries: Option<u32>,
    /// Print one JSON document, and no progress.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print no progress and no remarks.
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
}

fn seconds() -> RangedU64ValueParser<u64> {
    RangedU64ValueParser::new().range(1..=limits::TIMEOUT_MAX.as_secs())
}

fn up_to(most: u32) -> RangedI64ValueParser<u32> {
    RangedI64ValueParser::new().range(1..=i64::from(most))
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Export a cell.
    Export {
        /// The cell.
        cell: String,
        /// Name of the snapshot; made of the cell's name and the time when absent.
        #[arg(long)]
        name: Option<String>,
        /// Wait until the export has ended.
        #[arg(long)]
        wait: bool,
        /// Wait, and download the snapshot; - is standard output.
        #[arg(long, value_name = "FILE")]
        download: Option<PathBuf>,
        /// Overwrite FILE.
        #[arg(long, requires = "download")]
        force: bool,
        /// Cancel the export when interrupted, instead of leaving it alone.
        #[arg(long)]
        cancel_on_interrupt: bool,
    },
    /// Tell how a job is doing, or the last export and the last import of a cell.
    Status {
        /// The cell.
        cell: String,
        /// Id of a job.
        job: Option<String>,
        /// Wait until the job has ended; exit code 3 if it has failed.
        #[arg(long, requires = "job")]
        wait: bool,
        /// Cancel the job when interrupted.
        #[arg(long, requires = "wait")]
        cancel_on_interrupt: bool,
    },
    /// List the files in a cell's snapshot area.
    List {
        /// The cell.
        cell: String,
    },
    /// List a cell's exports, imports and dry runs, newest first.
    Jobs {
        /// The cell.
        cell: String,
        /// How many.
        #[arg(long, value_name = "N", default_value_t = limits::JOBS, value_parser = up_to(limits::JOBS_MAX))]
        limit: u32,
    },
    /// Download a snapshot; goes on where an earlier try ended, and verifies the digest.
    Download {
        /// The cell.
        cell: String,
        /// Name of the snapshot; .zip may be left out.
        name: String,
        /// Where to; NAME.zip when absent, - is standard output.
        file: Option<PathBuf>,
        /// Overwrite FILE.
        #[arg(long)]
        force: bool,
    },
    /// Upload a snapshot to a cell's snapshot area.
    Upload {
        /// The cell.
        cell: String,
        /// The snapshot.
        file: PathBuf,
        /// Name it gets; the file's own when absent.
        name: Option<String>,
        /// Replace a snapshot of that name.
        #[arg(long)]
        force: bool,
    },
    /// Import a snapshot of the cell's snapshot area: the cell becomes what the snapshot holds.
    Import {
        /// The cell.
        cell: String,
        /// Name of the snapshot; .zip may be left out.
        name: String,
        /// Change nothing: wait, and tell what would change and what is wrong with the snapshot.
        #[arg(long)]
        dry_run: bool,
        /// Wait until the import has ended.
        #[arg(long)]
        wait: bool,
        /// Cancel the import when interrupted, instead of leaving it alone.
        #[arg(long)]
        cancel_on_interrupt: bool,
    },
    /// Delete a file of a cell's snapshot area.
    Delete {
        /// The cell.
        cell: String,
        /// Name of the snapshot; .zip may be left out.
        name: String,
    },
    /// Cancel a job.
    Cancel {
        /// The cell.
        cell: String,
        /// Id of the job; the one that is waiting or running when absent.
        job: Option<String>,
    },
    /// Check a snapshot on this machine as an import would: structure, digests, every document.
    Verify {
        /// The snapshot.
        file: PathBuf,
        /// An export that can be trusted wrote it: it may expand without limit, and have names that differ in case or
        /// Unicode form only.
        #[arg(long)]
        trusted: bool,
    },
    /// List the entries of a snapshot, here or on a unit.
    Ls {
        /// A file, or the URL of one: {cell}__snapshot/NAME.zip.
        #[arg(value_name = "FILE|URL")]
        snapshot: String,
    },
    /// Print one entry of a snapshot, here or on a unit. Of a remote snapshot little more than the entry is read.
    Cat {
        /// A file, or the URL of one: {cell}__snapshot/NAME.zip.
        #[arg(value_name = "FILE|URL")]
        snapshot: String,
        /// Name of the entry.
        entry: String,
    },
    /// Print a completion script.
    Completions {
        /// For which shell.
        shell: Shell,
    },
    /// Print a man page.
    Man {
        /// Of which command; of cellexport itself when absent.
        command: Option<String>,
    },
}
