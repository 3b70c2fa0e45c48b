//! The log: JSON lines for machines or text for people, on standard error.

use std::io::IsTerminal;

use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::settings::LogSettings;

/// Starts logging. A second call in one process has no effect.
pub(super) fn start(settings: &LogSettings) {
    let filter = EnvFilter::try_new(&settings.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    // Colours are for terminals, not for files.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let harmless = filter_fn(|metadata| !shows_secrets(metadata) && !is_told_by_us(metadata));
    let _ = if settings.json {
        builder.json().flatten_event(true).with_span_list(false).finish().with(harmless).try_init()
    } else {
        builder.finish().with(harmless).try_init()
    };
}

/// What libraries say of passwords, whatever the filter: lapin of all frames, the one with the broker's password among
/// them, sqlx of parameters in the database's URL that it does not know.
fn shows_secrets(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    (target.starts_with("lapin") && *metadata.level() == Level::TRACE) || target == "sqlx_postgres::options::parse"
}

/// What lapin says of errors: each is told once, by whoever handles it and knows what it means. A queue that is looked for
/// and then made is none.
fn is_told_by_us(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("lapin") && *metadata.level() <= Level::WARN
}
