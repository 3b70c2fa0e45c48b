//! The api's command line: arguments, telemetry, build, run.

use std::io::Read;
use std::process::ExitCode;
use std::time::Duration;

use api::Application;
use api::config::{self, ApiSettings};
use api::jobs_command;
use api::token_command::{self, TokenError};
use clap::{Parser, Subcommand};
use model::doctor::host;
use model::error_chain::Chain;
use model::settings::{DatabaseSettings, SettingsError, UnitSettings, Variables};
use model::telemetry::Telemetry;
use model::{limits, store};
use uuid::Uuid;

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
    /// List or cancel the jobs of all cells.
    #[command(subcommand)]
    Jobs(Jobs),
    /// Make or read tokens under the unit's secret (UNIT_SECRET16, or the file UNIT_SECRET16_FILE).
    #[command(subcommand)]
    Token(Token),
}

#[derive(Debug, Subcommand)]
enum Jobs {
    /// List the active jobs: those that run, then those that wait, in the order of their turns.
    List,
    /// Cancel a job, as its cell's owner may: one that waits at once, one that runs through its worker.
    Cancel {
        /// The id of the job.
        id: Uuid,
    },
}

#[derive(Debug, Subcommand)]
enum Token {
    /// Make an access token for an account of a cell, and print it.
    Mint {
        /// Name of the cell.
        #[arg(long)]
        cell: String,
        /// Name of the account. What it may do is what its roles may do.
        #[arg(long)]
        account: String,
        /// What the token is for; repeat it for more.
        #[arg(long, default_value = "root")]
        scope: Vec<String>,
        /// Its life: 90s, 15m, 1h, 30d.
        #[arg(long, default_value = "1h", value_parser = humantime::parse_duration)]
        ttl: Duration,
    },
    /// Say what a token says: whose it is, what for, until when.
    Show {
        /// The token; `-` reads it from standard input, where no list of processes shows it.
        token: String,
    },
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Serve { check_config } => serve(check_config),
        Command::Migrate => migrate(),
        Command::Health => health(),
        Command::Doctor { json, strict } => doctor(json, strict),
        Command::Jobs(command) => jobs(command),
        Command::Token(command) => token(command),
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
    let telemetry = Telemetry::start("cellexport-api", &settings.log, &settings.traces);
    let running = actix_web::rt::System::new().block_on(async {
        let application = Application::build(settings).await?;
        tracing::info!(port = application.port(), "api runs");
        application.run_until_stopped().await?;
        tracing::info!("api ended");
        anyhow::Ok(())
    });
    let code = match running {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "cannot serve");
            ExitCode::FAILURE
        }
    };
    telemetry.end();
    Ok(code)
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

/// Ends the process: what hangs may hang on.
fn doctor(json: bool, strict: bool) -> Result<ExitCode, SettingsError> {
    let (report, code) = actix_web::rt::System::new().block_on(api::doctor::examine(&Variables::environment(), strict));
    match json {
        true => println!("{}", report.json()),
        false => println!("{}", report.text()),
    }
    std::process::exit(code.into())
}

fn jobs(command: Jobs) -> Result<ExitCode, SettingsError> {
    let database = DatabaseSettings::read(&Variables::environment())?;
    let done = actix_web::rt::System::new().block_on(async {
        match command {
            Jobs::List => jobs_command::list(&database.url).await,
            Jobs::Cancel { id } => jobs_command::cancel(&database.url, id).await,
        }
    });
    Ok(match done {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("api: {}", Chain(&error));
            ExitCode::FAILURE
        }
    })
}

fn token(command: Token) -> Result<ExitCode, SettingsError> {
    let variables = Variables::environment();
    let secret = config::secret(&variables)?;
    let done = match command {
        Token::Mint { cell, account, scope, ttl } => {
            token_command::mint(&UnitSettings::read(&variables)?, secret, &cell, &account, &scope, ttl)
        }
        Token::Show { token } if token == "-" => {
            let mut text = String::new();
            match std::io::stdin().take(limits::CREDENTIALS as u64).read_to_string(&mut text) {
                Ok(_) => token_command::show(secret, &text),
                Err(_) => Err(TokenError::NoToken),
            }
        }
        Token::Show { token } => token_command::show(secret, &token),
    };
    Ok(match done {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("api: {error}");
            ExitCode::FAILURE
        }
    })
}

/// Asks the service on its own port. An anonymous OPTIONS needs neither database nor broker.
fn health() -> Result<ExitCode, SettingsError> {
    let address = config::listen(&Variables::environment())?;
    Ok(match host::answers(address, "OPTIONS /", Duration::from_secs(3)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) | Err(_) => ExitCode::FAILURE,
    })
}
