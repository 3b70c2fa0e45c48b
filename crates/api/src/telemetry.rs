//! The log: JSON lines for machines or text for people, on standard error.

use model::settings::LogSettings;
use tracing_subscriber::EnvFilter;

/// Starts logging. A second call in one process has no effect.
pub fn start(settings: &LogSettings) {
    let filter = EnvFilter::try_new(&settings.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let _ = if settings.json {
        builder.json().flatten_event(true).with_span_list(false).try_init()
    } else {
        builder.try_init()
    };
}
