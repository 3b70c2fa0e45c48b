//! The installation that is measured: release builds of both services, and cells that are made when a row needs them.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use system_tests::process::{self, Process};
use system_tests::system::{Options, System};

use crate::measure::seconds;
use crate::sizes::Sizes;

/// An installation with one api and one worker.
pub(crate) struct Bench {
    // Ended before the system.
    api: Option<Process>,
    workers: Vec<Process>,
    pub(crate) sizes: Sizes,
    pub(crate) rounds: usize,
    cells: HashSet<String>,
    exports: u64,
    pub(crate) system: System,
}

/// A finished export.
#[derive(Debug)]
pub(crate) struct Export {
    /// From the request until it was listed.
    pub(crate) seconds: f64,
    /// Its name, without extension.
    pub(crate) name: String,
    /// The snapshot file.
    pub(crate) file: PathBuf,
}

/// Settings that differ from those of tests, which have everything go faster than in production.
fn options() -> Options {
    let settings = [
        ("JOB_LEASE_SECS", "60"),
        ("JOB_HEARTBEAT_SECS", "10"),
        ("JOB_REAP_SECS", "10"),
        ("JOB_POLL_SECS", "5"),
        ("JOBS_QUEUED_MAX", "1000000"),
        ("JOBS_PER_OWNER_MAX", "1000000"),
        ("RUST_LOG", "info"),
    ];
    let settings = settings.map(|(name, value)| (name, value.to_owned())).into();
    Options { settings, ..Options::default() }
}

impl Bench {
    pub(crate) fn start(sizes: Sizes, rounds: usize) -> Self {
        let mut system = System::start_with(options());
        let api = Some(system.take_api());
        let bench = Self { api, workers: Vec::new(), sizes, rounds, cells: HashSet::new(), exports: 0, system };
        // Whoever interrupts this leaves it to `deploy/bench` to remove the database.
        let name = bench.system.value("SELECT current_database()");
        std::fs::write(std::env::temp_dir().join("database"), name).expect("a place for temporary files");
        bench
    }

    /// Starts both services anew, with so many workers: what they needed before is forgotten.
    pub(crate) fn fresh(&mut self, workers: usize) {
        self.workers.clear();
        self.api = None;
        self.api = Some(self.system.service("api", &[], &[]));
        let address = self.system.address;
        self.system.eventually("the api answers", || std::net::TcpStream::connect(address).is_ok());
        self.fresh_workers(workers);
    }

    /// Starts so many workers in place of those that run.
    pub(crate) fn fresh_workers(&mut self, workers: usize) {
        self.workers.clear();
        self.workers = (0..workers).map(|_| self.system.service("exporter-worker", &[], &[])).collect();
        for worker in &self.workers {
            self.system.eventually("a worker listens", || worker.log().contains("listening for doorbells"));
        }
    }

    pub(crate) fn workers(&self) -> &[Process] {
        &self.workers
    }

    /// Peak resident memory of a worker and of the api since they were started. Neither starts other processes.
    pub(crate) fn peaks(&self) -> (u64, u64) {
        let workers = self.workers.iter().map(Process::peak_memory).max().unwrap_or_default();
        (workers, self.api.as_ref().map_or(0, Process::peak_memory))
    }

    /// A directory for files, on the same disk as everything else.
    pub(crate) fn directory(&self) -> &Path {
        self.system.directory()
    }

    /// What requests have to name as their host.
    pub(crate) fn unit(&self) -> String {
        format!("localhost:{}", self.system.address.port())
    }

    /// The URL of the database, as its owner.
    pub(crate) fn database(&self) -> String {
        let found = self.system.environment().iter().find(|(name, _)| name == "DATABASE_URL");
        found.map(|(_, url)| url.clone()).expect("a setting")
    }

    /// Makes a cell and loads it, unless it is there.
    pub(crate) fn cell(&mut self, name: &str, arguments: &[&str]) {
        if !self.cells.insert(name.to_owned()) {
            return;
        }
        let file = self.directory().join(format!("{name}.zip"));
        let path = file.display().to_string();
        let made = seconds(|| {
            let arguments = [&[path.as_str(), "--name", name], arguments].concat();
            let output = process::run("examples/bench_cell", &arguments, &[]);
            assert!(output.status.success(), "{output:?}");
        });
        let loaded = seconds(|| {
            let output = self.system.load(name, &file, &["--trusted"]);
            assert!(output.status.success(), "{output:?}");
        });
        std::fs::remove_file(&file).expect("the file was made");
        let settled = seconds(|| self.settle());
        println!("cell {name}: made in {made:.1} s, loaded in {loaded:.1} s, vacuumed in {settled:.1} s");
    }

    /// A cell with so many documents.
    pub(crate) fn documents(&mut self, count: u64) -> String {
        let name = format!("documents-{count}");
        self.cell(&name, &["--documents", &count.to_string()]);
        name
    }

    /// A cell with large contents that cannot be compressed: how many, and the length of each, is in the sizes.
    pub(crate) fn large(&mut self) -> String {
        let (count, length) = self.sizes.large;
        let name = "large".to_owned();
        self.cell(&name, &["--large", &count.to_string(), "--large-size", &length.to_string()]);
        name
    }

    /// Statistics, hint bits and a checkpoint: nothing of a load is left to be done during a measurement.
    pub(crate) fn settle(&self) {
        self.system.execute("VACUUM (ANALYZE)");
        // May be reserved to administrators, with servers from elsewhere.
        self.system.try_execute("CHECKPOINT");
        rustix::fs::sync();
    }

    /// Exports a cell, from the request until the status says that it is listed.
    pub(crate) fn export(&mut self, cell: &str) -> Export {
        self.exports += 1;
        let name = format!("s{}", self.exports);
        let begun = Instant::now();
        let answer = self.system.post_export(cell, &name);
        assert_eq!(answer.status, 202, "{}", answer.text());
        while self.system.status(cell)["status"] != "ready" {
            assert!(begun.elapsed() < Duration::from_secs(3600), "an export takes longer than an hour");
            // Known to a hundredth: whoever asks takes the time of what is measured.
            std::thread::sleep((begun.elapsed() / 100).clamp(Duration::from_millis(2), Duration::from_millis(50)));
        }
        let seconds = begun.elapsed().as_secs_f64();
        let key = format!(
            "SELECT coalesce(j.blob_key, j.error) FROM job j JOIN cell c ON c.id = j.cell_id \
             WHERE c.name = '{cell}' AND j.name = '{name}'"
        );
        let key = self.system.value(&key);
        let file = self.system.area().join(key.strip_prefix("snapshots/").unwrap_or_else(|| panic!("failed: {key}")));
        Export { seconds, name, file }
    }

    /// Removes a snapshot and its file, which would otherwise stay until the sweeper comes.
    pub(crate) fn remove(&self, cell: &str, export: &Export) {
        let answer = self.system.request("DELETE", &format!("/{cell}/__snapshot/{}.zip", export.name), &[], None);
        assert_eq!(answer.status, 204, "{}", answer.text());
        let _ = std::fs::remove_file(&export.file);
    }

    /// Exports a cell, removes the snapshot, and tells how long the export took and how large the snapshot was.
    pub(crate) fn timed_export(&mut self, cell: &str) -> (f64, u64) {
        let export = self.export(cell);
        let size = size(&export.file);
        self.remove(cell, &export);
        (export.seconds, size)
    }

    /// The generation of a cell, under which its rows are stored.
    pub(crate) fn generation(&self, cell: &str) -> String {
        self.system.value(&format!("SELECT generation FROM cell WHERE name = '{cell}'"))
    }
}

/// The length of a file.
pub(crate) fn size(file: &Path) -> u64 {
    file.metadata().unwrap_or_else(|e| panic!("{}: {e}", file.display())).len()
}
