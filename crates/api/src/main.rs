//! The api's command line: arguments, telemetry, build, run.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use api::Application;
use api::config::{self, ApiSettings};
use clap::{Parser, Subcommand};
use model::error_chain::Chain;
use model::settings::{DatabaseSettings, SettingsError, Variables};
use model::store;

/// Accepts exports of Personium cells, and serves their snapshots.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Answer requests until told to end (SIGTERM).
    Serve {
        /// Only read the settings, say what they are, and end.
        #[arg(long)]
        check_config: bool,
    },
    /// Bring the database's schema up to date.
    Migrate,
    /// Tell whether the service answers; for container health checks.
    Health,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Serve { check_config } => serve(check_config),
        Command::Migrate => migrate(),
        Command::Health => health(),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("api: {error}");
        ExitCode::from(2)
    })
}

fn serve(check_config: bool) -> Result<ExitCode, SettingsError> {
    let settings = ApiSettings::read(&Variables::environment())?;
    if check_config {
        // Secrets are of a type that does not print.
        println!("{settings:#?}");
        return Ok(ExitCode::SUCCESS);
    }
    api::telemetry::start(&settings.log);
    let running = actix_web::rt::System::new().block_on(async {
        let application = Application::build(settings)?;
        tracing::info!(port = application.port(), "api runs");
        application.run_until_stopped().await?;
        tracing::info!("api ended");
        anyhow::Ok(())
    });
    Ok(match running {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "cannot serve");
            ExitCode::FAILURE
        }
    })
}

fn migrate() -> Result<ExitCode, SettingsError> {
    let database = DatabaseSettings::read(&Variables::environment())?;
    let migrated = actix_web::rt::System::new().block_on(store::migrate(&database.url));
    Ok(match migrated {
        Ok(()) => {
            println!("the schema is up to date");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("api: cannot migrate: {}", Chain(error.as_ref()));
            ExitCode::FAILURE
        }
    })
}

/// Asks the service on its own port. An anonymous OPTIONS needs neither database nor broker.
fn health() -> Result<ExitCode, SettingsError> {
    let mut address: SocketAddr = config::listen(&Variables::environment())?;
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    let ask = || -> std::io::Result<bool> {
        let patience = Duration::from_secs(3);
        let mut stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_read_timeout(Some(patience))?;
        stream.write_all(b"OPTIONS / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut start = [0; 12];
        stream.read_exact(&mut start)?;
        Ok(&start == b"HTTP/1.1 200")
    };
    Ok(match ask() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) | Err(_) => ExitCode::FAILURE,
    })
}
