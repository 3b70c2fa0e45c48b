//! Faults of the operating system: calls of a process that fail, are late, or kill it, by `strace`.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use crate::judge::skipped;

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
