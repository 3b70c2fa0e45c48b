//! How far something is: a bar on a terminal, lines elsewhere, nothing where nobody wants to know.

use std::io::{IsTerminal, stderr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::job::Job;
use crate::limits;
use crate::terminal::{Output, say, shown};

/// The bar on the terminal, for whoever has to take it away in a hurry.
static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Takes the bar off the terminal.
pub(crate) fn clear() {
    if let Some(bar) = BAR.lock().unwrap_or_else(PoisonError::into_inner).take() {
        bar.finish_and_clear();
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) enum Progress {
    /// A bar.
    Bar(ProgressBar),
    /// Lines, so seldom.
    Lines {
        /// When one was written.
        written: Option<Instant>,
        /// What it said.
        said: String,
        /// Since when bytes are counted, and how many there were.
        begun: Option<(Instant, u64)>,
    },
    /// Nothing.
    Nothing,
}

impl Progress {
    /// What suits standard error and the output.
    pub(crate) fn new(output: Output) -> Self {
        if output.json || output.quiet {
            return Self::Nothing;
        }
        if !stderr().is_terminal() {
            return Self::Lines { written: None, said: String::new(), begun: None };
        }
        let bar = ProgressBar::with_draw_target(Some(100), ProgressDrawTarget::stderr());
        *BAR.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar.clone());
        Self::Bar(bar)
    }

    /// How often somebody looks.
    pub(crate) fn pace(&self) -> Duration {
        match self {
            Self::Bar(_) | Self::Lines { .. } => limits::WATCHED_WAIT,
            Self::Nothing => limits::WAIT,
        }
    }

    /// Shows a job.
    pub(crate) fn job(&mut self, job: &Job) {
        let text = shown(&format!("{} {}: {}", job.kind().noun(), job.name(), job.progress()));
        match self {
            Self::Bar(bar) => {
                bar.set_style(style("{bar:20} {msg}"));
                bar.set_position(job.percent());
                bar.set_message(text);
            }
            Self::Lines { .. } => self.line(text, job.state().is_final()),
            Self::Nothing => {}
        }
    }

    /// Shows bytes that move. The first call says where counting begins.
    pub(crate) fn bytes(&mut self, done: u64, total: Option<u64>) {
        match self {
            Self::Bar(bar) => {
                if let Some(total) = total.filter(|total| bar.length() != Some(*total)) {
                    bar.set_style(style(
                        "{bar:30} {percent:>3} % {bytes} of {total_bytes} {bytes_per_sec}, {eta} left",
                    ));
                    bar.set_length(total);
                    bar.set_position(done);
                    bar.reset_eta();
                }
                bar.set_position(done);
            }
            Self::Lines { begun, .. } => {
                let (since, from) = *begun.get_or_insert((Instant::now(), done));
                // What takes no longer needs no words.
                if since.elapsed() < limits::LINE {
                    return;
                }
                let rate = done.saturating_sub(from) as f64 / since.elapsed().as_secs_f64();
                let mut text = HumanBytes(done).to_string();
                if let Some(total) = total.filter(|total| *total > 0) {
                    let percent = done.min(total) as f64 / total as f64 * 100.0;
                    text.push_str(&format!(" of {}, {percent:.0} %", HumanBytes(total)));
                }
                if rate >= 1.0 {
                    text.push_str(&format!(", {}/s", HumanBytes(rate as u64)));
                    if let Some(left) = total.and_then(|total| total.checked_sub(done)).filter(|left| *left > 0) {
                        let left = Duration::from_secs_f64((left as f64 / rate).min(1e9));
                        text.push_str(&format!(", {} left", HumanDuration(left)));
                    }
                }
                self.line(text, false);
            }
            Self::Nothing => {}
        }
    }

    fn line(&mut self, text: String, at_once: bool) {
        let Self::Lines { written, said, .. } = self else { return };
        let is_due = at_once || written.is_none_or(|written| written.elapsed() >= limits::LINE);
        if is_due && *said != text {
            say(&text);
            *said = text;
            *written = Some(Instant::now());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Self::Bar(_) = self {
            clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
