//! Faults of all kinds at random, for as long as you like, while clients do what clients do; then the oracle judges.
//!
//! The seed is printed, and `NEMESIS_SEED` repeats the schedule of faults (not the machine's: threads and processes run
//! as they run). The history is kept beside the binaries.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use fastrand::Rng;
use model::cell::CellId;
use model::store::jobs;
use system_tests::disks::Disk;
use system_tests::history::Told;
use system_tests::ledger::{self, Ledger};
use system_tests::oracle::{self, Expected};
use system_tests::process::{self, Process};
use system_tests::proxy::Proxy;
use system_tests::servers::Servers;
use system_tests::stop::Stop;
use system_tests::system::Options;
use uuid::Uuid;

use crate::bench::{Bench, cell, on};
use crate::crashes::{EXPORT, IMPORT};

const CELLS: usize = 24;
const CLIENTS: usize = 12;
const WORKERS: usize = 4;

#[test]
fn nemesis_for_a_moment() {
    run(Duration::from_secs(15));
}

#[test]
#[ignore = "as long as you like: deploy/test --nemesis HOURS"]
fn nemesis() {
    let hours: f64 = std::env::var("NEMESIS_HOURS").ok().and_then(|hours| hours.parse().ok()).unwrap_or(0.05);
    run(Duration::from_secs_f64(hours * 3600.0));
}

fn run(time: Duration) {
    let seed =
        std::env::var("NEMESIS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("NEMESIS_SEED={seed}");
    let servers = Servers::both();
    let settings = vec![("JOB_MAX_STRIKES", "8".to_owned())];
    let options = Options { settings, database_proxy: true, broker_proxy: true, ..on(&servers) };
    let mut bench = Bench::start_with("nemesis", options);
    bench.history.note("seed", serde_json::json!({"seed": seed.to_string()}));
    let disk = Disk::mount(bench.system.area().parent().unwrap(), 256);
    let mut ledgers = bench.cells(CELLS - 2, &[]);
    ledgers.extend(larger_cells(&bench));
    let api = bench.system.take_api();
    let stop = Stop::default();
    let counts = Counts::default();
    let faults = std::thread::scope(|scope| {
        let ending = stop.later();
        let (bench, counts, stop) = (&bench, &counts, &stop);
        for client in 0..CLIENTS {
            let random = Rng::with_seed(seed ^ (client as u64 + 1));
            scope.spawn(move || be_a_client(bench, client, random, counts, stop));
        }
        scope.spawn(|| keep_house(bench, stop));
        let (some, others) = ledgers.split_at_mut(CELLS / 2);
        for ledgers in [some, others] {
            scope.spawn(|| ledger::keep_changing(&bench.system, ledgers, Duration::from_millis(20), stop));
        }
        let mut nemesis = Nemesis {
            bench,
            servers: &servers,
            disk: disk.as_ref(),
            random: Rng::with_seed(seed),
            workers: Vec::new(),
            api,
            made: BTreeMap::new(),
        };
        nemesis.rage(Instant::now() + time);
        // The clients first: what they ask for meanwhile finds everything healed.
        drop(ending);
        let Nemesis { api, workers, made, .. } = nemesis;
        (api, workers, made)
    });
    let (_api, workers, made) = faults;
    drop(workers);
    let _workers = [bench.worker(&[("WORKER_SLOTS", "2")]), bench.worker(&[("WORKER_SLOTS", "2")])];
    let errors = &[
        // Interrupted or failed more often than allowed, in whatever words; and cancelled.
        "PR503-EX-0001",
        "PR500-SV-0001",
        "PR500-SV-0000",
        "PR500-CM-0002",
        "PR500-DV-0001",
        "PR503-SV-0005",
        "PR409-EX-0001",
    ];
    println!("NEMESIS_SEED={seed}: faults {made:?}");
    println!("clients: {counts:?}");
    let expected = Expected { errors, patience: Duration::from_secs(180), ..Expected::default() };
    let verdict = oracle::judge(&bench.system, &bench.history, &expected);
    let states = "SELECT string_agg(kind || ' ' || state || ' ' || n, ', ') FROM
                  (SELECT kind, state, count(*) n FROM job GROUP BY kind, state ORDER BY 1, 2) s";
    println!("in the end: {}; {} files were read", bench.system.value(states), verdict.zips);
}

/// Two that take longer than the others.
fn larger_cells(bench: &Bench) -> Vec<Ledger> {
    let file = bench.system.sample(&["--documents", "4000", "--files", "30"]);
    let load = |number: usize| {
        let cell = cell(number);
        let output = bench.system.load(&cell, &file, &["--cell-id", &format!("id-{cell}")]);
        assert!(output.status.success(), "{output:?}");
        Ledger::open(&bench.system, &cell)
    };
    (CELLS - 2..CELLS).map(load).collect()
}

#[derive(Debug, Default)]
struct Counts {
    accepted: AtomicUsize,
    refused: AtomicUsize,
    unanswered: AtomicUsize,
    read: AtomicUsize,
    cancelled: AtomicUsize,
}

fn be_a_client(bench: &Bench, client: usize, mut random: Rng, counts: &Counts, stop: &Stop) {
    let mut number = 0;
    let count = |told: &Told| {
        let counter = match told {
            Told::Done(_) => &counts.accepted,
            Told::Refused(..) => &counts.refused,
            Told::Nothing => &counts.unanswered,
        };
        counter.fetch_add(1, SeqCst);
    };
    while !stop.is_said() {
        // Each client has two cells that the others leave alone mostly.
        let cell = match random.u32(..8) {
            0 => cell(random.usize(..CELLS)),
            _ => cell(client * CELLS / CLIENTS + random.usize(..CELLS / CLIENTS)),
        };
        number += 1;
        let name = format!("n{client}-{number}");
        match random.u32(..100) {
            0..75 => count(&bench.client.export(&cell, &name)),
            75..80 => {
                if cancel_something(bench, &cell) {
                    counts.cancelled.fetch_add(1, SeqCst);
                }
            }
            80..90 => {
                if let Some(body) = read_something(bench, &cell, &mut random)
                    && random.u32(..4) == 0
                {
                    count(&bench.client.put(&cell, &format!("p{client}-{number}"), &body));
                }
                counts.read.fetch_add(1, SeqCst);
            }
            90..95 => {
                if let Some(name) = some_zip(bench, &cell, &mut random) {
                    count(&bench.client.import(&cell, &name));
                }
            }
            _ => {
                // So that a long run needs no more space than a short one.
                while let Some(name) = some_zip(bench, &cell, &mut random) {
                    count(&bench.client.delete(&cell, &name));
                    if random.u32(..10) == 0 {
                        break;
                    }
                }
            }
        }
        std::thread::sleep(Duration::from_millis(random.u64(20..250)));
    }
}

/// The name of a zip that is there now, as far as anybody can say.
fn some_zip(bench: &Bench, cell: &str, random: &mut Rng) -> Option<String> {
    let names = bench.system.try_value(&format!(
        "SELECT string_agg(base_name, ' ') FROM snapshot_entry WHERE cell_id = 'id-{cell}' AND kind = 'zip'"
    ))?;
    let names: Vec<&str> = names.split_whitespace().collect();
    random.choice(names).map(str::to_owned)
}

/// Whatever is listed can be read, and fits together.
fn read_something(bench: &Bench, cell: &str, random: &mut Rng) -> Option<Vec<u8>> {
    let name = some_zip(bench, cell, random)?;
    let bearer = format!("Bearer {}", system_tests::system::TOKEN);
    let target = format!("/{cell}/__snapshot/{name}.zip");
    let headers = [("Authorization", bearer.as_str())];
    let answer = system_tests::http::request(bench.system.address, "GET", &target, &headers, None).ok()?;
    let length = answer.header("content-length").and_then(|length| length.parse::<usize>().ok());
    // A connection may break in the middle, and a name may have been deleted by another client.
    if answer.status != 200 || length != Some(answer.body.len()) {
        return None;
    }
    let file = bench.system.directory().join(format!("read-{}.zip", Uuid::new_v4()));
    std::fs::write(&file, &answer.body).unwrap();
    ledger::read(&file).unwrap_or_else(|what| panic!("{target}: {what}"));
    std::fs::remove_file(&file).unwrap();
    Some(answer.body)
}

fn cancel_something(bench: &Bench, cell: &str) -> bool {
    let active = format!("SELECT id FROM job WHERE cell_id = 'id-{cell}' AND state IN ('queued', 'running')");
    let job = bench.system.try_value(&format!("SELECT ({active})"));
    let Some(job) = job.and_then(|job| job.parse::<Uuid>().ok()) else { return false };
    bench.history.note("cancel", serde_json::json!({"cell": cell, "job": job.to_string()}));
    let cell = CellId::parse(&format!("id-{cell}")).unwrap();
    let cancelling = async {
        let mut connection = bench.system.pool().acquire().await.ok()?;
        jobs::cancel(&mut connection, &cell, job).await.ok()
    };
    bench.system.block_on(cancelling).is_some()
}

/// The sweeper works all the time; pauses after failures are cut short; nobody holds a transaction open.
fn keep_house(bench: &Bench, stop: &Stop) {
    // Straight to the database: this is no part of what is tested.
    let environment: Vec<_> = bench.system.service_environment("WORKER_");
    let mut rounds = 0;
    while !stop.is_said() {
        rounds += 1;
        oracle::hurry(&bench.system);
        if rounds % 10 == 0 {
            // Uploads on their way have no row yet.
            let _ = process::run("examples/sweep", &["30", "86400"], &environment);
        }
        let idle = "SELECT count(*) FROM pg_stat_activity
                    WHERE datname = current_database() AND state LIKE 'idle in transaction%'
                      AND state_change < now() - interval '60 seconds'";
        let idle = bench.system.try_value(idle).unwrap_or_default();
        assert!(matches!(idle.as_str(), "" | "0"), "{idle} sessions are idle in a transaction for more than a minute");
        std::thread::sleep(Duration::from_millis(300));
    }
}

struct Nemesis<'a> {
    bench: &'a Bench,
    servers: &'a Servers,
    disk: Option<&'a Disk>,
    random: Rng,
    workers: Vec<Process>,
    api: Process,
    made: BTreeMap<String, usize>,
}

impl Nemesis<'_> {
    fn rage(&mut self, until: Instant) {
        while Instant::now() < until {
            self.replace();
            self.fault();
            self.wait(50, 700);
        }
        self.bench.history.note("over", serde_json::json!({}));
        let proxies = [&self.bench.system.database_proxy, &self.bench.system.broker_proxy];
        for proxy in proxies.into_iter().flatten() {
            proxy.lose_answers("", "", 0);
            proxy.up();
        }
        self.workers.clear();
        self.api.signal("KILL");
        let _ = self.api.wait(Duration::from_secs(5));
        self.api = self.bench.api(&[]);
    }

    fn wait(&mut self, least: u64, most: u64) {
        std::thread::sleep(Duration::from_millis(self.random.u64(least..most)));
    }

    /// Puts others in the place of those that have ended; now and then one that will not last.
    fn replace(&mut self) {
        self.workers.retain_mut(|worker| !worker.has_ended());
        while self.workers.len() < WORKERS {
            let failpoint =
                self.failpoint(&[EXPORT, IMPORT].concat(), &["kill", "kill", "panic", "stop", "sleep-2000"]);
            let settings = [("FAILPOINT", failpoint.as_str()), ("WORKER_SLOTS", "2")];
            self.workers.push(self.bench.worker(&settings));
        }
        for worker in &self.workers {
            if worker.log().contains(": Stop") {
                // It has slept long enough, or it will be asked again in a moment.
                worker.signal("CONT");
            }
        }
        if self.api.has_ended() {
            let points = [
                "api.after_commit",
                "api.before_answer",
                "job.before_accepting",
                "reaper.before_commit",
                "doorbell.before_publish",
                "doorbell.after_publish",
                "area.after_rename",
            ];
            let failpoint = self.failpoint(&points, &["kill"]);
            self.api = self.bench.system.service("api", &[("FAILPOINT", &failpoint)], &[]);
        }
    }

    fn failpoint(&mut self, points: &[&str], actions: &[&str]) -> String {
        if self.random.u32(..3) > 0 {
            return String::new();
        }
        let point = self.random.choice(points).copied().unwrap_or_default();
        let mut action = self.random.choice(actions).copied().unwrap_or_default();
        // A panic is caught where jobs are worked on, and nowhere else.
        if action == "panic"
            && !(point.starts_with("export.") || point.starts_with("import.") || point.starts_with("area."))
        {
            action = "kill";
        }
        let at = self.random.u32(1..40);
        let name = point.split(':').next().unwrap_or_default();
        let failpoint = format!("{name}:{at}={action}");
        self.note(&format!("failpoint {action}"));
        failpoint
    }

    fn note(&mut self, what: &str) {
        self.bench.history.fault(what);
        *self.made.entry(what.to_owned()).or_default() += 1;
    }

    fn fault(&mut self) {
        let bench = self.bench;
        let (database, broker) =
            (bench.system.database_proxy.as_ref().unwrap(), bench.system.broker_proxy.as_ref().unwrap());
        match self.random.u32(..100) {
            0..18 => self.signal("KILL"),
            18..24 => self.signal("TERM"),
            24..34 => {
                self.note("SIGSTOP");
                let victim = self.random.usize(..self.workers.len());
                self.workers[victim].signal("STOP");
                self.wait(500, 5000);
                self.workers[victim].signal("CONT");
                bench.history.healed("SIGSTOP");
            }
            34..40 => {
                self.note("api killed");
                self.api.signal("KILL");
                let _ = self.api.wait(Duration::from_secs(5));
            }
            40..43 => {
                self.note("api ended");
                self.api.signal("TERM");
                self.wait(100, 1000);
            }
            43..49 => self.through(database, "database", Proxy::down, 1500),
            49..54 => self.through(database, "database", Proxy::freeze, 3000),
            54..58 => {
                self.note("database cut");
                database.cut();
            }
            58..66 => {
                let (application, tag) = *self
                    .random
                    .choice(&[
                        ("cell-export settle", "COMMIT"),
                        ("cell-export settle", "UPDATE 1"),
                        ("cell-export worker", "UPDATE 1"),
                        ("cell-export worker", "COMMIT"),
                        ("cell-export api", "COMMIT"),
                        ("cell-export api", "INSERT 0 1"),
                        ("cell-export heartbeat", "UPDATE 1"),
                        ("cell-export import", "COMMIT"),
                    ])
                    .unwrap();
                self.note(&format!("lost answer {tag} of {application}"));
                database.lose_answers(application, tag, 1);
            }
            66..72 => {
                self.note("session ended");
                let _ = bench.system.try_value(
                    "SELECT count(pg_terminate_backend(pid)) FROM (
                       SELECT pid FROM pg_stat_activity
                       WHERE datname = current_database() AND application_name LIKE 'cell-export%'
                       ORDER BY random() LIMIT 3) s",
                );
            }
            72..78 => {
                self.note("leases put into the past");
                let late =
                    "UPDATE job SET lease_until = clock_timestamp() - interval '1 second' WHERE state = 'running'";
                bench.system.try_execute(late);
            }
            78..82 => self.through(broker, "broker", Proxy::down, 3000),
            82..85 => self.through(broker, "broker", Proxy::freeze, 4000),
            85..88 => {
                self.note("disk full");
                if let Some(disk) = self.disk {
                    let filler = disk.fill(0);
                    self.wait(300, 2500);
                    std::fs::remove_file(filler).unwrap();
                }
                bench.history.healed("disk full");
            }
            88..91 => {
                self.note("broker's connections closed");
                self.servers.broker_control(&["close_all_connections", "nemesis"]);
            }
            91..93 => {
                self.note("queue deleted");
                let queue = format!("{}.jobs", bench.system.prefix());
                self.servers.try_broker_control(&["delete_queue", "-p", "cellexport", &queue]);
            }
            93..95 => {
                self.note("broker killed");
                self.servers.kill_broker();
                self.wait(100, 3000);
                self.servers.run();
                bench.history.healed("broker killed");
            }
            95..97 => {
                self.note("broker stopped");
                self.servers.broker_control(&["stop_app"]);
                self.wait(100, 3000);
                self.servers.broker_control(&["start_app"]);
                bench.history.healed("broker stopped");
            }
            _ => {
                let signal = if self.random.bool() { "INT" } else { "QUIT" };
                self.note("database restarted");
                self.servers.stop_database(signal);
                self.wait(10, 1500);
                self.servers.run();
                bench.history.healed("database restarted");
            }
        }
    }

    fn signal(&mut self, signal: &str) {
        self.note(&format!("SIG{signal}"));
        let victim = self.random.usize(..self.workers.len());
        self.workers[victim].signal(signal);
        if signal == "KILL" {
            let _ = self.workers[victim].wait(Duration::from_secs(5));
        }
    }

    fn through(&mut self, proxy: &Proxy, what: &str, make: impl Fn(&Proxy), most: u64) {
        let what = format!("{what} away");
        self.note(&what);
        make(proxy);
        self.wait(100, most);
        proxy.up();
        self.bench.history.healed(&what);
    }
}
