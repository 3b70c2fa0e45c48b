//! How many files and connections the process may have open.

use model::limits;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Takes as many as the service may need, of those that it is granted: login shells start processes with a thousand.
pub(crate) fn allow() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let granted = maximum.map_or(limits::OPEN_FILES, |maximum| maximum.min(limits::OPEN_FILES));
    if current.is_none_or(|current| current >= limits::OPEN_FILES) {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(granted), maximum }) {
        tracing::warn!(%error, "cannot have more files open");
    }
    if granted < limits::OPEN_FILES {
        tracing::warn!(granted, wanted = limits::OPEN_FILES, "fewer connections than the service would take");
    }
}
