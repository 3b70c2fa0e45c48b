//! A real S3 service for one test: nanio, which keeps objects as files below a directory and checks every signature.
//! `S3_SERVER` names the program.

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::system::free_address;

/// Name of its bucket.
pub const BUCKET: &str = "cell-export";
/// Access key id of the one who may use it.
pub const KEY_ID: &str = "marker-key-id";
/// The secret that goes with it.
pub const SECRET: &str = "marker-s3-secret-x7Qd";

/// The service. It ends, and what it holds is removed, with the test.
#[derive(Debug)]
pub struct ObjectServer {
    child: Child,
    endpoint: String,
    directory: TempDir,
}

impl ObjectServer {
    /// Starts a service with an empty bucket; nothing when the program is not there.
    pub fn start() -> Option<Self> {
        let program = std::env::var("S3_SERVER").ok().filter(|program| !program.is_empty())?;
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(directory.path().join(BUCKET)).expect("a bucket");
        let address = free_address();
        let child = Command::new(program)
            .args(["serve", "--host", "127.0.0.1", "--port", &address.port().to_string(), "--no-access-log"])
            .args(["--log-level", "error", "--data-dir"])
            .arg(directory.path())
            .env("NANIO_ACCESS_KEY", KEY_ID)
            .env("NANIO_SECRET_KEY", SECRET)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let server = Self { child, endpoint: format!("http://{address}"), directory };
        let until = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < until, "the S3 service does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(server)
    }

    /// Settings that make services use it.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        [
            ("STORAGE", "s3"),
            ("S3_ENDPOINT", &self.endpoint),
            ("S3_ALLOW_HTTP", "true"),
            ("S3_BUCKET", BUCKET),
            ("S3_ACCESS_KEY_ID", KEY_ID),
            ("S3_SECRET_ACCESS_KEY", SECRET),
        ]
        .map(|(name, value)| (name, value.to_owned()))
        .into()
    }

    /// Keys of the objects in the bucket.
    pub fn keys(&self) -> Vec<String> {
        let root = self.directory.path().join(BUCKET);
        let (mut keys, mut directories) = (Vec::new(), vec![root.clone()]);
        while let Some(directory) = directories.pop() {
            for path in std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()) {
                match path.strip_prefix(&root) {
                    // What the service notes beside the objects.
                    Ok(key) if key.starts_with(".nanio-meta") => {}
                    Ok(_) if path.is_dir() => directories.push(path),
                    Ok(key) => keys.push(key.display().to_string()),
                    Err(_) => {}
                }
            }
        }
        keys.sort();
        keys
    }

    /// Where an object lies on this host's disk.
    pub fn file(&self, key: &str) -> PathBuf {
        self.directory.path().join(BUCKET).join(key)
    }

    /// Ends the service, as a crash would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for ObjectServer {
    fn drop(&mut self) {
        self.kill();
    }
}
