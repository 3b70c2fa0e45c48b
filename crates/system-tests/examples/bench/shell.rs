//! Other people's programs.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::measure::seconds;

/// Runs a script with variables; returns how long it took, in seconds.
///
/// # Panics
/// When it fails.
pub(crate) fn run(script: &str, variables: &[(&str, &str)], directory: &Path) -> f64 {
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", script]).envs(variables.iter().copied()).env("LC_ALL", "C.UTF-8");
    command.current_dir(directory).stdin(Stdio::null());
    seconds(|| assert!(command.status().expect("bash runs").success(), "failed: {script}"))
}

/// What a command prints, without the last line's end.
pub(crate) fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map(|o| String::from_utf8_lossy(&o.stdout).trim_end().to_owned()).unwrap_or_default()
}
