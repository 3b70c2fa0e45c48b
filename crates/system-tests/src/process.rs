//! Processes of a test: started with exactly the given environment, ended with the test.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::secrets;

/// The directory of the binaries: beside the test's own.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let directory = test.parent().and_then(Path::parent).expect("target/debug/deps/test");
    let path = directory.join(name);
    assert!(path.exists(), "{} is not built: run `cargo build --workspace --bins --examples` first", path.display());
    path
}

/// A process that is killed when the test lets go of it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a binary; its output goes to a file.
    pub fn start(name: &str, arguments: &[&str], environment: &[(String, String)], log: PathBuf) -> Self {
        Self::start_under(&[], name, arguments, environment, log)
    }

    /// Starts a binary under another program, given with its arguments; under none when there is none.
    pub fn start_under(
        under: &[&str],
        name: &str,
        arguments: &[&str],
        environment: &[(String, String)],
        log: PathBuf,
    ) -> Self {
        let output = File::create(&log).expect("a log file");
        let mut words: Vec<OsString> = under.iter().map(OsString::from).collect();
        words.push(binary(name).into());
        let child = Command::new(&words[0])
            .args(&words[1..])
            .args(arguments)
            .env_clear()
            .envs(environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a second handle"))
            .stderr(output)
            .spawn()
            .expect("the process starts");
        Self { child, log }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends a signal by its name, as `kill` knows it.
    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").args(["-s", signal, &self.id().to_string()]).status();
        assert!(status.expect("kill runs").success(), "kill -s {signal}");
    }

    /// Tells whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child can be waited for").is_some()
    }

    /// Waits for its end; its exit code, if it ended by itself.
    pub fn wait(&mut self, longest: Duration) -> Option<i32> {
        let until = Instant::now() + longest;
        loop {
            match self.child.try_wait().expect("a child can be waited for") {
                Some(status) => return status.code(),
                None if Instant::now() > until => panic!("process {} did not end: {}", self.id(), self.log()),
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Peak resident memory so far, in bytes.
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("the process runs");
        let line = status.lines().find(|l| l.starts_with("VmHWM:")).expect("a peak");
        let kilobytes: u64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number");
        kilobytes * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a binary to its end. Fails when a secret stands in what it says.
pub fn run(name: &str, arguments: &[&str], environment: &[(String, String)]) -> Output {
    let output = Command::new(binary(name))
        .args(arguments)
        .env_clear()
        .envs(environment.iter().cloned())
        .stdin(Stdio::null())
        .output()
        .expect("the process runs");
    let what = format!("what `{name} {}` says", arguments.first().unwrap_or(&""));
    secrets::search(&what, &output.stderr);
    // The one command that is there to print a token.
    if !arguments.starts_with(&["token", "mint"]) {
        secrets::search(&what, &output.stdout);
    }
    output
}
