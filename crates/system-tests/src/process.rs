//! Processes of a test: started with exactly the given environment, ended with the test.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

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
        let output = File::create(&log).expect("a log file");
        let child = Command::new(binary(name))
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

/// Runs a binary to its end.
pub fn run(name: &str, arguments: &[&str], environment: &[(String, String)]) -> Output {
    Command::new(binary(name))
        .args(arguments)
        .env_clear()
        .envs(environment.iter().cloned())
        .stdin(Stdio::null())
        .output()
        .expect("the process runs")
}
