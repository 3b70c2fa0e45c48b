//! The worker's command line: arguments, telemetry, build, run.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context;
use clap::{Parser, Subcommand};
use exporter_worker::config::{LoadSettings, WorkerSettings};
use exporter_worker::import::Origin;
use exporter_worker::load::{self, LoadError, LoadOptions};
use exporter_worker::worker::Worker;
use model::area::BlobStore;
use model::cell::{CellId, CellName};
use model::error_chain::Chain;
use model::job::Amount;
use model::settings::Variables;
use model::telemetry::Telemetry;
use model::{hosts, store};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Writes cell snapshots, and loads cells from them.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Take jobs until told to end (SIGTERM).
    Run {
        /// Only read the settings, say what they are, and end.
        #[arg(long)]
        check_config: bool,
    },
    /// Store a cell from a snapshot: all of it or nothing. Exit code 2: the snapshot is faulty; 3: the cell exists.
    Load {
        /// Name of the new cell.
        #[arg(long, value_parser = cell_name)]
        cell: CellName,
        /// Id of the new cell; the snapshot's own when absent. With another id, every id in the cell becomes another one.
        #[arg(long, value_parser = cell_id)]
        cell_id: Option<CellId>,
        /// URL of the new cell's owner; the snapshot's own when absent.
        #[arg(long)]
        owner: Option<String>,
        /// The snapshot was written by an export that can be trusted: it may expand without limit, and have names that
        /// differ in case or Unicode form only.
        #[arg(long)]
        trusted: bool,
        /// A cell of that name that is there already is left as it is, and that is success.
        #[arg(long)]
        if_absent: bool,
        /// The snapshot.
        file: PathBuf,
    },
    /// Look at everything the service depends on, say what is wrong and what to do. Exit code 1: something is; 2: the
    /// settings cannot be read.
    Doctor {
        /// Print one JSON document.
        #[arg(long)]
        json: bool,
        /// Warnings count as faults.
        #[arg(long)]
        strict: bool,
    },
    /// Tell whether database and broker can be reached; for container health checks.
    Health,
}

#[tokio::main]
async fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run { check_config } => run(check_config).await,
        Command::Load { cell, cell_id, owner, trusted, if_absent, file } => {
            let origin = if trusted { Origin::Ours } else { Origin::Anybody };
            load(cell, cell_id, owner, origin, if_absent, file).await
        }
        Command::Doctor { json, strict } => doctor(json, strict).await,
        Command::Health => health().await,
    }
}

/// Ends the process: what hangs may hang on.
async fn doctor(json: bool, strict: bool) -> ExitCode {
    let (report, code) = exporter_worker::doctor::examine(&Variables::environment(), strict).await;
    match json {
        true => println!("{}", report.json()),
        false => println!("{}", report.text()),
    }
    std::process::exit(code.into())
}

fn cell_name(text: &str) -> Result<CellName, String> {
    CellName::parse_new(text).ok_or_else(|| "1 to 128 lower-case letters, digits and '-'; the first no '-'".to_owned())
}

fn cell_id(text: &str) -> Result<CellId, String> {
    CellId::parse(text).ok_or_else(|| "1 to 64 letters, digits, '-' and '_'".to_owned())
}

async fn run(check_config: bool) -> ExitCode {
    let settings = match WorkerSettings::read(&Variables::environment()) {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("exporter-worker: {error}");
            return ExitCode::from(2);
        }
    };
    if check_config {
        // Secrets are of a type that does not print.
        println!("{settings:#?}");
        return ExitCode::SUCCESS;
    }
    let telemetry = Telemetry::start("cellexport-worker", &settings.log, &settings.traces);
    let worker = match Worker::build(settings).await {
        Ok(worker) => worker,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "cannot start");
            return ExitCode::FAILURE;
        }
    };
    let shutdown = CancellationToken::new();
    if let Err(error) = end_on_signal(shutdown.clone()) {
        tracing::error!(%error, "cannot listen for signals");
        return ExitCode::FAILURE;
    }
    worker.run_until_stopped(shutdown).await;
    telemetry.end();
    // Dropping the runtime would wait for ever for a thread that hangs; everything that matters is settled.
    std::process::exit(0)
}

async fn load(
    cell: CellName,
    cell_id: Option<CellId>,
    owner: Option<String>,
    origin: Origin,
    if_absent: bool,
    file: PathBuf,
) -> ExitCode {
    let settings = match LoadSettings::read(&Variables::environment()) {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("exporter-worker: {error}");
            return ExitCode::FAILURE;
        }
    };
    let blobs = match open_blobs(&settings).await {
        Ok(blobs) => blobs,
        Err(error) => {
            eprintln!("exporter-worker: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let stop = CancellationToken::new();
    if let Err(error) = end_on_signal(stop.clone()) {
        eprintln!("exporter-worker: {error}");
        return ExitCode::FAILURE;
    }
    let begun = Instant::now();
    let options = LoadOptions { cell, cell_id, owner, origin, file, blobs, database: settings.database.url };
    let name = options.cell.clone();
    match load::load(options, stop).await {
        Ok(summary) => {
            let seconds = begun.elapsed().as_secs_f64();
            let Amount { documents, files, bytes } = summary.amount();
            println!("loaded cell {name}: {documents} documents, {files} files, {bytes} bytes in {seconds:.1} s");
            ExitCode::SUCCESS
        }
        Err(LoadError::NameTaken(_)) if if_absent => {
            println!("cell {name} is there already");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("exporter-worker: {}", Chain(&error));
            ExitCode::from(error.exit_code())
        }
    }
}

/// Opens the blob store, if what is stored there can be read where services run.
async fn open_blobs(settings: &LoadSettings) -> anyhow::Result<BlobStore> {
    let mut connection = store::connect(&settings.database.url, "cell-export load").await.context("database")?;
    hosts::look(&mut connection, &settings.storage).await?;
    BlobStore::of(&settings.storage).context("blob store")
}

/// The first SIGTERM or SIGINT ends in order, the second at once.
fn end_on_signal(shutdown: CancellationToken) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        for code in [None, Some(1)] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            match code {
                None => shutdown.cancel(),
                Some(code) => std::process::exit(code),
            }
        }
    });
    Ok(())
}

async fn health() -> ExitCode {
    let check = async {
        let settings = WorkerSettings::read(&Variables::environment())?;
        let mut connection = store::connect(&settings.database.url, "cell-export health").await.context("database")?;
        store::ping(&mut connection).await.context("database")?;
        model::doorbell::connect(&settings.broker, "exporter-worker health").await.context("broker")?;
        anyhow::Ok(())
    };
    match check.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("exporter-worker: {error:#}");
            ExitCode::FAILURE
        }
    }
}
