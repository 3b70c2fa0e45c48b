//! What the rows have in common: an installation under observation, with its history.

use std::sync::{Mutex, MutexGuard, Once, OnceLock, PoisonError};
use std::time::Duration;

use system_tests::history::{Client, History, Told};
use system_tests::http;
use system_tests::ledger::{self, Ledger};
use system_tests::oracle::{self, Expected, Verdict};
use system_tests::process::{self, Process};
use system_tests::servers::Servers;
use system_tests::stop::Stop;
use system_tests::system::{Options, System};

/// An installation whose every job is observed, and the history of what happens to it.
pub(crate) struct Bench {
    pub(crate) system: System,
    pub(crate) history: History,
    pub(crate) client: Client,
}

impl Bench {
    pub(crate) fn start(name: &str) -> Self {
        Self::start_with(name, Options::default())
    }

    pub(crate) fn start_with(name: &str, options: Options) -> Self {
        binaries_have_failpoints();
        let system = System::start_with(options);
        oracle::observe(&system);
        let history = History::begin(name);
        let client = Client::of(&system, &history);
        Self { system, history, client }
    }

    /// Loads so many sample cells, `c0`, `c1` and so on, each with a ledger.
    pub(crate) fn cells(&self, number: usize, arguments: &[&str]) -> Vec<Ledger> {
        let file = self.system.sample(arguments);
        let load = |number: usize| {
            let cell = cell(number);
            let output = self.system.load(&cell, &file, &["--cell-id", &format!("id-{cell}")]);
            assert!(output.status.success(), "{output:?}");
            Ledger::open(&self.system, &cell)
        };
        (0..number).map(load).collect()
    }

    /// Asks for an export like a client that means it: again, while nobody can say whether it was accepted.
    pub(crate) fn accepted(&self, cell: &str, name: &str) {
        self.ordered(|| self.client.export(cell, name));
    }

    /// The same for any order.
    pub(crate) fn ordered(&self, ask: impl Fn() -> Told) {
        let mut unknown = false;
        self.system.eventually("it is accepted", || match ask() {
            Told::Done(_) => true,
            // An earlier one was accepted after all.
            Told::Refused(409, _) if unknown => true,
            Told::Refused(503, code) if code == "PR503-SV-0006" => {
                unknown = true;
                false
            }
            Told::Nothing => {
                unknown = true;
                false
            }
            told => panic!("{told:?}"),
        });
    }

    /// Exports a cell and downloads the result.
    pub(crate) fn exported(&self, cell: &str, name: &str) -> std::path::PathBuf {
        self.accepted(cell, name);
        self.hurry_until("it is exported", || self.job(name, "state") == "succeeded");
        self.system.download(cell, &format!("{name}.zip"))
    }

    pub(crate) fn worker(&self, settings: &[(&str, &str)]) -> Process {
        self.system.service("exporter-worker", settings, &[])
    }

    /// A worker that dies, stops or sleeps at a point.
    pub(crate) fn worker_failing(&self, failpoint: &str, settings: &[(&str, &str)]) -> Process {
        self.history.fault(failpoint);
        self.worker(&[&[("FAILPOINT", failpoint)], settings].concat())
    }

    /// Starts an api in the place of the installation's own, and waits until it answers.
    pub(crate) fn api(&self, settings: &[(&str, &str)]) -> Process {
        let api = self.system.service("api", settings, &[]);
        self.system.eventually("the api answers", || self.is_answering());
        api
    }

    /// What all services wrote.
    pub(crate) fn logs(&self) -> impl Iterator<Item = String> {
        self.system.logs().map(|log| std::fs::read_to_string(log).unwrap_or_default())
    }

    /// Jobs that are not final.
    pub(crate) fn active(&self) -> usize {
        self.system.value("SELECT count(*) FROM job WHERE state IN ('queued', 'running')").parse().unwrap()
    }

    /// Does something while the contents of the cells change all the time.
    pub(crate) fn while_changing<T>(&self, ledgers: &mut [Ledger], what: impl FnOnce() -> T) -> T {
        let stop = Stop::default();
        std::thread::scope(|scope| {
            scope.spawn(|| ledger::keep_changing(&self.system, ledgers, Duration::from_millis(20), &stop));
            let _end = stop.later();
            what()
        })
    }

    pub(crate) fn judge(&self, expected: &Expected) -> Verdict {
        oracle::judge(&self.system, &self.history, expected)
    }

    /// One column of the one job, or of the job of a name.
    pub(crate) fn job(&self, name: &str, column: &str) -> String {
        self.system.value(&format!("SELECT {column} FROM job WHERE name = '{name}' ORDER BY accepted_at DESC LIMIT 1"))
    }

    /// Tells whether an api answers.
    pub(crate) fn is_answering(&self) -> bool {
        http::request(self.system.address, "OPTIONS", "/", &[], None).is_ok()
    }

    /// What became of a job, step by step.
    pub(crate) fn course(&self, name: &str) -> String {
        self.system.value(&format!(
            "SELECT string_agg(to_char(at, 'MI:SS.MS ') || is_now || ' ' || attempt || ' ' || strikes, ', ' ORDER BY n)
             FROM observed WHERE name = '{name}'"
        ))
    }

    pub(crate) fn hurry(&self) {
        oracle::hurry(&self.system);
    }

    /// Waits for something, with the pauses after failures cut short.
    pub(crate) fn hurry_until(&self, what: &str, mut condition: impl FnMut() -> bool) {
        self.system.eventually(what, || {
            self.hurry();
            condition()
        });
    }
}

/// A RabbitMQ that one test after the other has for itself, as a test finds it in order.
pub(crate) fn broker() -> MutexGuard<'static, Servers> {
    static BROKER: OnceLock<Mutex<Servers>> = OnceLock::new();
    in_order(BROKER.get_or_init(|| Mutex::new(Servers::broker())))
}

/// A PostgreSQL that one test after the other has for itself.
pub(crate) fn database() -> MutexGuard<'static, Servers> {
    static DATABASE: OnceLock<Mutex<Servers>> = OnceLock::new();
    in_order(DATABASE.get_or_init(|| Mutex::new(Servers::database())))
}

fn in_order(servers: &'static Mutex<Servers>) -> MutexGuard<'static, Servers> {
    servers.lock().unwrap_or_else(|broken: PoisonError<MutexGuard<'static, Servers>>| {
        // The test before failed and may have left them as it liked.
        let servers = broken.into_inner();
        servers.run();
        servers
    })
}

/// Options for an installation on such servers.
pub(crate) fn on(servers: &Servers) -> Options {
    Options { servers: servers.environment(), ..Options::default() }
}

pub(crate) fn cell(number: usize) -> String {
    format!("c{number}")
}

/// Without them all tests would pass, having tested nothing.
pub(crate) fn binaries_have_failpoints() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for name in ["api", "exporter-worker"] {
            let binary = std::fs::read(process::binary(name)).unwrap();
            let has = binary.windows(9).any(|window| window == b"FAILPOINT");
            assert!(has, "{name} was built without failpoints: run this by `deploy/test --faults`");
        }
    });
}

/// Tells whether long forms are wanted, which take the real times.
pub(crate) fn in_full() -> bool {
    std::env::var_os("FAULTS_FULL").is_some()
}
