//! The log: JSON lines for machines or text for people, on standard error.

use model::settings::LogSettings;
use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Starts logging. A second call in one process has no effect.
pub fn start(settings: &LogSettings) {
    let filter = EnvFilter::try_new(&settings.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let harmless = filter_fn(|metadata| !shows_secrets(metadata));
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
