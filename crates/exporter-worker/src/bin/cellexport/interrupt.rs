//! Ctrl-C: what it means depends on what is under way. A second one ends at once.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};

use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::{Exit, Failure};
use crate::progress;
use crate::terminal::say;

/// What an interruption does.
pub(crate) enum Interruption {
    /// The command ends; these words say what remains, and how to come back to it.
    Leave(String),
    /// The command goes on to its end, which this brings about.
    Cancel(Box<dyn Fn() -> Result<(), Failure> + Send>),
}

static NOW: Mutex<Option<Interruption>> = Mutex::new(None);
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on an interruption does this.
pub(crate) fn means(interruption: Interruption) {
    *NOW.lock().unwrap_or_else(PoisonError::into_inner) = Some(interruption);
}

/// From now on an interruption ends the command, and nothing remains.
pub(crate) fn means_the_end() {
    *NOW.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

/// Tells whether there was one.
pub(crate) fn happened() -> bool {
    INTERRUPTED.load(SeqCst)
}

/// Begins to listen.
pub(crate) fn listen() -> Result<(), Failure> {
    let cannot = |error: std::io::Error| Failure::cannot("listen for signals", error);
    let runtime = Builder::new_current_thread().enable_io().build().map_err(cannot)?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt()).map_err(cannot)?, signal(SignalKind::terminate()).map_err(cannot)?)
    };
    let listening = move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if INTERRUPTED.swap(true, SeqCst) {
                    end(None);
                }
                // In a thread of its own: the next signal must be heard.
                std::thread::spawn(act);
            }
        });
    };
    std::thread::Builder::new().spawn(listening).map(|_| ()).map_err(cannot)
}

fn act() {
    let interruption = NOW.lock().unwrap_or_else(PoisonError::into_inner).take();
    match interruption {
        None => end(Some("interrupted".to_owned())),
        Some(Interruption::Leave(words)) => end(Some(words)),
        Some(Interruption::Cancel(cancel)) => match cancel() {
            Ok(()) => {}
            Err(failure) => {
                progress::clear();
                say(&format!("cellexport: {failure}"));
                std::process::exit(i32::from(failure.exit as u8));
            }
        },
    }
}

fn end(words: Option<String>) -> ! {
    progress::clear();
    if let Some(words) = words {
        say(&format!("cellexport: {words}"));
    }
    std::process::exit(i32::from(Exit::Interrupted as u8))
}
