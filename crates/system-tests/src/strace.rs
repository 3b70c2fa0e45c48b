//! Faults of the operating system: calls of a process that fail, are late, or kill it, by `strace`.

use std::path::Path;
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::time::Duration;

use crate::judge::skipped;
use crate::process::Process;
use crate::system::within;

const PROGRAM: &str = "/usr/bin/strace";

/// Tells whether calls can be tampered with here; says so when not.
pub fn works() -> bool {
    static WORKS: OnceLock<bool> = OnceLock::new();
    *WORKS.get_or_init(|| {
        let trial = Command::new(PROGRAM)
            .args(["-f", "-qq", "-o", "/dev/null", "-e", "inject=mkdir:error=ENOSPC", "mkdir", "/tmp/never-made"])
            .output();
        let works = trial.is_ok_and(|output| !output.status.success() && !Path::new("/tmp/never-made").exists());
        if !works {
            skipped("strace is not here, or may not trace");
        }
        works
    })
}

/// The words before a command whose calls are tampered with. The command keeps its place as our child: its process id
/// is the one we know.
pub fn before(injections: &[&str]) -> Vec<String> {
    let mut words: Vec<String> =
        [PROGRAM, "-D", "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null"].map(str::to_owned).into();
    let calls: Vec<&str> = injections.iter().filter_map(|injection| injection.split(':').next()).collect();
    words.extend(["-e".to_owned(), format!("trace={}", calls.join(","))]);
    for injection in injections {
        words.extend(["-e".to_owned(), format!("inject={injection}")]);
    }
    words
}

/// Tampers with the calls of a process that runs already; ended with this.
#[derive(Debug)]
pub struct Tampering(Child);

impl Tampering {
    /// `files`: only with calls that concern one of these.
    pub fn with(victim: &Process, injections: &[&str], files: &[&Path]) -> Self {
        let mut words = before(injections);
        words.retain(|word| word != "-D" && word != "--seccomp-bpf");
        for file in files {
            words.extend(["-P".to_owned(), file.display().to_string()]);
        }
        let pid = victim.id().to_string();
        let child = Command::new(&words[0]).args(&words[1..]).args(["-p", &pid]).spawn().expect("strace is here");
        let tampering = Self(child);
        assert!(within(Duration::from_secs(10), || is_traced(victim.id())), "strace does not attach");
        tampering
    }
}

impl Drop for Tampering {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-s", "TERM", &self.0.id().to_string()]).status();
        let _ = self.0.wait();
    }
}

/// Tells whether every thread of a process is.
fn is_traced(pid: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut statuses = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("status")).ok());
    statuses.all(|status| !status.contains("TracerPid:\t0\n"))
}
