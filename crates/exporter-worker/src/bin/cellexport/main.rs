//! `cellexport`, the command line for users of a unit: takes cells off it as snapshots and puts them back.
//!
//! Reading order: `arguments` and `configuration` say what is wanted; `client` talks to the unit; `orders`, `area`,
//! `download`, `verify` and `entries` are the commands. `docs/cellexport.md` is the manual.

mod area;
mod arguments;
mod cell;
mod client;
mod configuration;
mod download;
mod entries;
mod failure;
mod interrupt;
mod job;
mod limits;
mod orders;
mod progress;
mod remote_file;
mod terminal;
mod verify;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use exporter_worker::import::Origin;

use arguments::{Arguments, Command};
use cell::Cell;
use client::Client;
use configuration::Configuration;
use failure::{Exit, Failure};
use job::Kind;
use orders::{Patience, Scene};
use terminal::{cannot_write, quoted, say};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            progress::clear();
            say(&format!("cellexport: {failure}"));
            failure.exit.into()
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    // These need no configuration, and must not mind a wrong one.
    if let Command::Completions { shell } = &arguments.command {
        return completions(*shell);
    }
    if let Command::Man { command } = &arguments.command {
        return man(command.as_deref());
    }
    interrupt::listen()?;
    let configuration = Configuration::read(&arguments.everywhere)?;
    let client = Client::new(&configuration);
    let output = configuration.output;
    let scene = |cell: &str| {
        Ok::<_, Failure>(Scene {
            configuration: &configuration,
            client: &client,
            cell: Cell::parse(cell, &configuration)?,
        })
    };
    match arguments.command {
        Command::Export { cell, name, wait, download, force, cancel_on_interrupt } => {
            if let Some(file) = &download {
                refuse_to_overwrite(file, force)?;
            }
            let scene = scene(&cell)?;
            let patience = Patience { wait: wait || download.is_some(), cancel_on_interrupt };
            let Some(job) = scene.order(Kind::Export, name.as_deref(), patience)? else { return Ok(()) };
            match download {
                None => scene.ended(job).map(|_| ()),
                Some(file) => {
                    let job = job.succeeded()?;
                    fetch(&scene, job.name(), Some(file), force)
                }
            }
        }
        Command::Import { cell, name, dry_run, wait, cancel_on_interrupt } => {
            let scene = scene(&cell)?;
            let name = area::file_name(&name)?;
            let name = name.trim_end_matches(".zip");
            let kind = if dry_run { Kind::DryRun } else { Kind::Import };
            let patience = Patience { wait: wait || dry_run, cancel_on_interrupt };
            match scene.order(kind, Some(name), patience)? {
                None => Ok(()),
                Some(job) if dry_run => scene.found(job),
                Some(job) => scene.ended(job).map(|_| ()),
            }
        }
        Command::Status { cell, job, wait, cancel_on_interrupt } => {
            scene(&cell)?.status(job.as_deref(), Patience { wait, cancel_on_interrupt })
        }
        Command::Jobs { cell, limit } => scene(&cell)?.jobs(limit),
        Command::Cancel { cell, job } => scene(&cell)?.cancel(job.as_deref()),
        Command::Download { cell, name, file, force } => fetch(&scene(&cell)?, &name, file, force),
        Command::List { cell } => area::list(&client, output, &scene(&cell)?.cell),
        Command::Upload { cell, file, name, force } => {
            area::upload(&client, output, &scene(&cell)?.cell, &file, name.as_deref(), force)
        }
        Command::Delete { cell, name } => area::delete(&client, output, &scene(&cell)?.cell, &name),
        Command::Verify { file, trusted } => {
            verify::verify(output, &file, if trusted { Origin::Ours } else { Origin::Anybody })
        }
        Command::Ls { snapshot } => entries::ls(&client, &configuration, &snapshot),
        Command::Cat { snapshot, entry } => entries::cat(&client, &configuration, &snapshot, &entry),
        Command::Completions { .. } | Command::Man { .. } => Ok(()),
    }
}

/// Hours of an export would be for nothing.
fn refuse_to_overwrite(file: &Path, force: bool) -> Result<(), Failure> {
    if !force && file != Path::new("-") && file.symlink_metadata().is_ok() {
        let what = format!("{} exists", file.display());
        return Err(Failure::new(Exit::Conflict, what).next("--force overwrites it"));
    }
    Ok(())
}

fn fetch(scene: &Scene<'_>, name: &str, file: Option<PathBuf>, force: bool) -> Result<(), Failure> {
    let name = area::file_name(name)?;
    let file = file.unwrap_or_else(|| PathBuf::from(&name));
    let (configuration, cell) = (scene.configuration, &scene.cell);
    let mut again = format!("{} download {} {name}", configuration.again, quoted(cell.url()));
    again.push_str(&format!(" {}", quoted(&file.display().to_string())));
    if force {
        again.push_str(" --force");
    }
    download::download(scene.client, configuration.output, &cell.file(&name), &file, force, &again)
}

fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "cellexport", &mut script);
    std::io::stdout().write_all(&script).map_err(cannot_write)
}

fn man(command: Option<&str>) -> Result<(), Failure> {
    let mut all = Arguments::command();
    all.build();
    let page = match command {
        None => all,
        Some(name) => {
            let found = all.find_subcommand(name).cloned();
            found.ok_or_else(|| Failure::new(Exit::Usage, format!("there is no command {name}")))?
        }
    };
    let mut text = Vec::new();
    clap_mangen::Man::new(page).render(&mut text).map_err(cannot_write)?;
    std::io::stdout().write_all(&text).map_err(cannot_write)
}
