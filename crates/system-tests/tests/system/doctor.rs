//! `doctor` of both services: what is right is right, and of what is broken exactly that turns red, with advice that helps.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use system_tests::disks::Disk;
use system_tests::judge::skipped;
use system_tests::process;
use system_tests::secrets::remember_secret;
use system_tests::servers::Servers;
use system_tests::system::{Options, System, free_address};

const API: &str = "api";
const WORKER: &str = "exporter-worker";
const WRONG: &str = "marker-wrong-password-x7Qd";

/// What every report names, in this order.
const OF_DATABASE: [&str; 7] =
    ["settings", "database", "database version", "schema", "database role", "database rights", "row level security"];
const OF_SERVER: [&str; 9] = [
    "triggers",
    "durability",
    "connections",
    "old transactions",
    "clock",
    "database session",
    "notifications",
    "waiting jobs",
    "lost jobs",
];
const OF_AREA: [&str; 4] = ["snapshot area", "snapshot area space", "snapshot area round trip", "snapshot files"];
const OF_BLOBS: [&str; 5] =
    ["blob store", "blob store space", "blob store round trip", "contents of files", "scratch directory"];
const OF_BROKER: [&str; 3] = ["broker", "exchanges and queues", "queue type"];
const BEHIND_BROKER: [&str; 3] = ["doorbell", "queue policy", "broker alarms"];
const OF_API: [&str; 7] = ["listening", "internal port", "unit", "credentials", "key set", "open files", "memory"];
const OF_WORKER: [&str; 4] = ["internal port", "slots", "memory", "open files"];
/// What the machine of the test decides.
const OF_MACHINE: [&str; 5] = ["snapshot area space", "blob store space", "memory", "open files", "database role"];

/// A report.
#[derive(Debug)]
struct Report {
    code: i32,
    document: Value,
}

impl Report {
    fn of(system: &System, service: &str, settings: &[(&str, &str)], arguments: &[&str]) -> Self {
        let mut environment = system.service_environment(if service == API { "API_" } else { "WORKER_" });
        for (name, value) in settings {
            environment.retain(|(n, _)| n != name);
            environment.push((name.to_string(), value.to_string()));
        }
        let output = process::run(service, &[&["doctor", "--json"], arguments].concat(), &environment);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let document = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {output:?}"));
        Self { code: output.status.code().unwrap(), document }
    }

    fn looks(&self) -> &[Value] {
        self.document["looks"].as_array().unwrap()
    }

    fn names(&self) -> Vec<&str> {
        self.looks().iter().map(|look| look["name"].as_str().unwrap()).collect()
    }

    fn of_verdict(&self, verdict: &str) -> Vec<&str> {
        let looks = self.looks().iter().filter(|look| look["verdict"] == verdict);
        looks.map(|look| look["name"].as_str().unwrap()).collect()
    }

    fn look(&self, name: &str) -> &Value {
        self.looks().iter().find(|look| look["name"] == name).unwrap_or_else(|| panic!("no {name}: {self:?}"))
    }

    /// Everything that is not well, for a test that fails.
    fn complaints(&self) -> String {
        let complaints = self.looks().iter().filter(|look| look["verdict"] != "ok");
        complaints.map(|look| format!("{look}\n")).collect()
    }

    /// The advice of a look, which has to be there.
    fn advice(&self, name: &str) -> String {
        let advice = self.look(name)["advice"].as_str().unwrap_or_else(|| panic!("no advice: {}", self.look(name)));
        assert!(advice.len() > 10 && !advice.contains('\n'), "{advice}");
        advice.to_owned()
    }

    /// The statement that the advice ends with.
    fn statement(&self, name: &str) -> String {
        self.advice(name).split_once(": ").expect("as whom, and what").1.to_owned()
    }
}

/// Breaks something that the settings say, and expects exactly these faults; what else is not well is behind them.
fn broken(system: &System, service: &str, settings: &[(&str, &str)], faults: &[&str], advice: &str) -> Report {
    let report = Report::of(system, service, settings, &[]);
    assert_eq!((report.of_verdict("fault"), report.code), (faults.to_vec(), 1), "{}", report.complaints());
    assert!(report.advice(faults[0]).contains(advice), "{}", report.advice(faults[0]));
    report
}

fn healthy(system: &System, service: &str) {
    let report = Report::of(system, service, &[], &[]);
    assert_eq!((report.of_verdict("fault"), report.code), (vec![], 0), "{}", report.complaints());
}

#[test]
fn what_is_well_is_told_by_name() {
    let (api, worker) = (free_address().to_string(), free_address().to_string());
    let settings = vec![("INTERNAL_LISTEN", api.clone())];
    let mut system = System::start_with(Options { settings, ..Options::default() });
    system.sample_cell("cell1", &[]);
    let _worker = system.worker_with(&[("INTERNAL_LISTEN", &worker)]);
    system.export("cell1", "one");
    let stored = system.stored();
    let in_blobs = || {
        let directories = std::fs::read_dir(system.blobs()).unwrap().flatten();
        directories.flat_map(|directory| std::fs::read_dir(directory.path()).unwrap()).count()
    };
    let blobs = in_blobs();
    for (service, listen, names) in [
        (API, &api, [&OF_DATABASE[..], &OF_SERVER, &OF_AREA, &OF_BROKER, &BEHIND_BROKER, &OF_API].concat()),
        (
            WORKER,
            &worker,
            [
                &OF_DATABASE[..],
                &["reading a cell"],
                &OF_SERVER,
                &OF_AREA,
                &OF_BLOBS,
                &OF_BROKER,
                &["hearing doorbells"],
                &BEHIND_BROKER,
                &OF_WORKER,
            ]
            .concat(),
        ),
    ] {
        let report = Report::of(&system, service, &[("INTERNAL_LISTEN", listen)], &[]);
        assert_eq!((report.code, report.of_verdict("fault")), (0, vec![]), "{}", report.complaints());
        assert_eq!(report.names(), names);
        assert_eq!((&report.document["service"], &report.document["version"]), (&service.into(), &"0.1.0".into()));
        let worries: Vec<_> = report.of_verdict("warning").into_iter().filter(|n| !OF_MACHINE.contains(n)).collect();
        assert_eq!(worries, [""; 0], "{}", report.complaints());
        let optional = ["queue policy", "broker alarms", "key set"];
        assert_eq!(
            report.of_verdict("skipped"),
            optional.into_iter().filter(|n| names.contains(n)).collect::<Vec<_>>()
        );
        for port in ["listening", "internal port"].into_iter().filter(|n| names.contains(n)) {
            assert!(report.look(port)["seen"].as_str().unwrap().ends_with("answered by the service"), "{port}");
        }
        // For people it is the same.
        let environment = system.service_environment(if service == API { "API_" } else { "WORKER_" });
        let output = process::run(service, &["doctor"], &environment);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(0), "{text}");
        assert!(names.iter().all(|name| text.contains(&format!(" {name} "))), "{text}");
    }
    // Nothing is left behind, and nobody took the doorbell for a job.
    assert_eq!((system.stored(), in_blobs()), (stored, blobs));
    assert_eq!(std::fs::read_dir(system.area()).unwrap().count(), 1);
    assert_eq!(system.value("SELECT count(*) FROM job"), "1");
    let broker = system.broker();
    system.eventually("doorbells for no job are dealt with", || system.block_on(broker.waiting()) == (0, 1));
    assert_eq!(system.block_on(broker.rejected()), 0);
    system.export("cell1", "two");
}

#[test]
fn what_is_wrong_with_the_database_is_told_and_the_advice_mends_it() {
    remember_secret(WRONG);
    let mut system = System::start();
    std::fs::create_dir(system.directory().join("scratch")).unwrap();
    system.sample_cell("cell1", &[]);
    let _broker = system.broker();
    drop(system.take_api());
    // The services' own users, where there are any.
    let of_their_own = system.url("API_", "DATABASE_URL") != system.environment()[0].1;
    let url = system.url("API_", "DATABASE_URL");
    let (before, after) = url.rsplit_once('@').unwrap();
    let (user, _) = before.rsplit_once(':').unwrap();
    for service in [API, WORKER] {
        let wrong = format!("{user}:{WRONG}@{after}");
        let report = broken(&system, service, &[("DATABASE_URL", &wrong)], &["database"], "password");
        assert!(report.of_verdict("skipped").contains(&"lost jobs"));
        let nowhere = format!("{before}@127.0.0.1:1/nothing");
        broken(&system, service, &[("DATABASE_URL", &nowhere)], &["database"], "start it");
        let nothing = format!("{}_not", url.split('?').next().unwrap());
        broken(&system, service, &[("DATABASE_URL", &nothing)], &["database"], "make the database");
    }

    // Older, newer, and another.
    let newest = system.value("SELECT max(version) FROM _sqlx_migrations");
    let row = "SELECT jsonb_build_object('v', version, 'c', encode(checksum, 'hex')) FROM _sqlx_migrations";
    let row = system.value(&format!("{row} WHERE version = {newest}"));
    let row: Value = serde_json::from_str(&row).unwrap();
    let insert = |version: &str| {
        system.execute(&format!(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             VALUES ({version}, 'x', true, decode('{}', 'hex'), 0)",
            row["c"].as_str().unwrap()
        ))
    };
    system.execute(&format!("DELETE FROM _sqlx_migrations WHERE version = {newest}"));
    let report = broken(&system, API, &[], &["schema"], "run `api migrate`");
    assert!(report.of_verdict("skipped").contains(&"triggers"));
    insert("9999");
    insert(&newest);
    let report = Report::of(&system, WORKER, &[], &[]);
    assert_eq!((report.look("schema")["verdict"].as_str(), report.code), (Some("warning"), 0));
    assert!(report.advice("schema").contains("upgrade this program"));
    assert_eq!(Report::of(&system, WORKER, &[], &["--strict"]).code, 1);
    system.execute("DELETE FROM _sqlx_migrations WHERE version = 9999");
    system.execute("UPDATE _sqlx_migrations SET checksum = 'x' || checksum WHERE version = 2");
    broken(&system, WORKER, &[], &["schema"], "programs of the release");
    system.execute("UPDATE _sqlx_migrations SET checksum = substr(checksum, 2) WHERE version = 2");
    healthy(&system, WORKER);

    // Triggers: gone, and switched off.
    for breaking in ["DROP TRIGGER job_guard ON job", "ALTER TABLE job DISABLE TRIGGER job_changed"] {
        system.execute(breaking);
        let report = broken(&system, API, &[], &["triggers"], "as the owner of job: ");
        system.execute(&report.statement("triggers"));
        healthy(&system, API);
    }

    // Row level security: off, and with a policy that lets everything through.
    system.execute("ALTER TABLE document DISABLE ROW LEVEL SECURITY");
    broken(&system, API, &[], &["row level security"], "ALTER TABLE document ENABLE");
    let report = broken(&system, WORKER, &[], &["row level security", "reading a cell"], "ALTER TABLE document ENABLE");
    system.execute(&report.statement("row level security"));
    system.execute("ALTER POLICY reader_nodes ON node USING (true)");
    broken(&system, WORKER, &[], &["reading a cell"], "0006_roles.sql");
    system.execute(
        "ALTER POLICY reader_nodes ON node USING (generation = (SELECT current_setting('cellexport.generation', true)))",
    );
    system.execute("DROP POLICY reader_blobs ON blob");
    broken(&system, API, &[], &["row level security"], "0006_roles.sql");
    system.execute(
        "CREATE POLICY reader_blobs ON blob FOR SELECT TO cellexport_reader
         USING (generation = (SELECT current_setting('cellexport.generation', true)))",
    );
    healthy(&system, WORKER);

    if of_their_own {
        for (service, role, right) in [
            (API, "cellexport_api", "INSERT ON job"),
            (API, "cellexport_api", "EXECUTE ON FUNCTION directory_roles"),
            (WORKER, "cellexport_worker", "UPDATE ON snapshot_entry"),
        ] {
            system.execute(&format!("REVOKE {right} FROM {role}"));
            let report = broken(&system, service, &[], &["database rights"], &format!("GRANT {right}"));
            system.execute(&report.statement("database rights"));
            healthy(&system, service);
        }
        system.execute("GRANT DELETE ON job TO cellexport_worker");
        let report = Report::of(&system, WORKER, &[], &[]);
        assert_eq!(report.look("database rights")["verdict"], "warning", "{}", report.complaints());
        system.execute("REVOKE DELETE ON job FROM cellexport_worker");
        // A user of the other service.
        let other = system.url("WORKER_", "DATABASE_URL");
        let report = Report::of(&system, API, &[("DATABASE_URL", &other)], &[]);
        assert_eq!(report.of_verdict("fault"), ["database role", "database rights"], "{}", report.complaints());
        // The superuser of private servers has the owner's password.
        let owner = system.environment()[0].1.replacen("//cellexport:", "//owner:", 1);
        if let Ok(connected) = Command::new("psql").args([&owner, "-c", "SELECT 1"]).output()
            && connected.status.success()
        {
            broken(&system, API, &[("DATABASE_URL", &owner)], &["database role"], "a user of its own");
        } else {
            skipped("there is no superuser to be");
        }
        let report = Report::of(&system, API, &[("DATABASE_URL", &system.environment()[0].1)], &[]);
        assert_eq!((report.look("database role")["verdict"].as_str(), report.code), (Some("warning"), 0));
    } else {
        skipped("the services have no users of their own here");
    }

    // Jobs: one that waits too long, one that nobody took back.
    let job = |state: &str| {
        let lease = if state == "running" { "'x', clock_timestamp() - interval '1 hour'" } else { "NULL, NULL" };
        system.execute(&format!(
            "INSERT INTO job (id, cell_id, name, state, accepted_at, lease_owner, lease_until)
             VALUES (gen_random_uuid(), '{state}', 'x', '{state}', clock_timestamp() - interval '2 hours', {lease})"
        ))
    };
    job("queued");
    job("running");
    let report = Report::of(&system, API, &[], &[]);
    assert_eq!((report.of_verdict("fault"), report.code), (vec![], 0));
    assert!(report.advice("waiting jobs").contains("workers") && report.advice("lost jobs").contains("JOB_REAP_SECS"));
    system.execute("DELETE FROM job");

    // The way to the database is cut: what cannot be looked at is skipped, and the report comes all the same.
    let proxy = System::proxy_before(&url);
    proxy.freeze();
    let begun = Instant::now();
    let through = system.url_through(&proxy, "API_", "DATABASE_URL");
    broken(&system, API, &[("DATABASE_URL", &through)], &["database"], "");
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}

#[test]
fn what_is_wrong_with_broker_and_host_is_told() {
    remember_secret(WRONG);
    let system = System::start();
    let broker = system.broker();
    let url = system.url("WORKER_", "AMQP_URL");
    let (before, after) = url.rsplit_once('@').unwrap();
    let (user, _) = before.rsplit_once(':').unwrap();
    let scratch = system.directory().join("scratch").display().to_string();
    for directory in ["blobs", "scratch"] {
        std::fs::create_dir_all(system.directory().join(directory)).unwrap();
    }
    for service in [API, WORKER] {
        let gone = format!("{before}@127.0.0.1:1/nothing");
        broken(&system, service, &[("AMQP_URL", &gone)], &["broker"], "start it");
        let wrong = format!("{user}:{WRONG}@{after}");
        broken(&system, service, &[("AMQP_URL", &wrong)], &["broker"], "password");
        let nowhere = format!("{before}@{}/nothing", after.split('/').next().unwrap());
        broken(&system, service, &[("AMQP_URL", &nowhere)], &["broker"], "vhost");
    }
    system.block_on(broker.make_classic());
    broken(&system, WORKER, &[], &["queue type"], "delete_queue");
    system.block_on(broker.remove_jobs());
    broken(&system, API, &[], &["exchanges and queues"], "definitions.json");
    system.block_on(broker.declare());
    system.block_on(broker.unbind());
    broken(&system, API, &[], &["doorbell"], "bind it");
    system.block_on(broker.declare());
    // A queue of another installation: its user may not read it, nor make doorbells ring.
    let report = Report::of(&system, WORKER, &[("AMQP_PREFIX", "cellexport")], &[]);
    assert!(report.code <= 1);
    healthy(&system, WORKER);

    // Ports, settings, places.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    broken(&system, API, &[("API_LISTEN", &address)], &["listening"], "end what listens");
    broken(&system, WORKER, &[("INTERNAL_LISTEN", &address)], &["internal port"], "end what listens");
    broken(&system, API, &[("MASTER_TOKEN", ""), ("UNIT_SECRET16", "")], &["credentials"], "MASTER_TOKEN_FILE");
    let oidc = [("OIDC_ISSUER", "https://i/"), ("OIDC_AUDIENCE", "a"), ("OIDC_KEYS", "/nowhere")];
    broken(&system, API, &oidc, &["key set"], "OIDC_KEYS");
    let report = Report::of(&system, API, &[("UNIT_PORT", "x"), ("API_LISTEN", "x"), ("DISK_RESERVE_BYTES", "x")], &[]);
    assert_eq!((report.code, report.names()), (2, vec!["settings"]));
    let seen = report.look("settings")["seen"].as_str().unwrap();
    assert!(["UNIT_PORT", "API_LISTEN", "DISK_RESERVE_BYTES"].iter().all(|name| seen.contains(name)), "{seen}");
    let management = [("AMQP_MANAGEMENT_URL", "http://me:marker-wrong-password-x7Qd@127.0.0.1:1")];
    let report = broken(&system, API, &management, &["queue policy", "broker alarms"], "AMQP_MANAGEMENT_URL");
    assert_eq!(report.of_verdict("skipped"), ["key set", "internal port"].into_iter().rev().collect::<Vec<_>>());
    let slots = Report::of(&system, WORKER, &[("WORKER_SLOTS", "64")], &[]);
    assert!(slots.advice("slots").contains("WORKER_SLOTS") && slots.code == 0);
    let fixed = [("SCRATCH_DIR", "/proc/self")];
    broken(&system, WORKER, &fixed, &["scratch directory"], "SCRATCH_DIR");
    assert_eq!(std::fs::read_dir(&scratch).unwrap().count(), 0, "nothing is left behind");
    clocks(&system);
}

/// A host whose clock is wrong.
fn clocks(system: &System) {
    const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
    if !Path::new(LIBRARY).exists() {
        return skipped("libfaketime is not here");
    }
    for offset in ["+1h", "-5"] {
        let faked = [("LD_PRELOAD", LIBRARY), ("FAKETIME", offset), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
        let report = Report::of(system, API, &faked, &[]);
        assert_eq!((report.code, report.of_verdict("fault")), (0, vec![]), "{}", report.complaints());
        assert!(report.advice("clock").contains("time server"), "{}", report.look("clock"));
    }
}

#[test]
fn what_is_wrong_with_places_of_files_is_told() {
    let mut system = System::start();
    system.sample_cell("cell1", &[]);
    let worker = system.worker();
    system.export("cell1", "one");
    drop(worker);
    for (service, faults) in
        [(API, vec!["snapshot area space"]), (WORKER, vec!["snapshot area space", "blob store space"])]
    {
        broken(&system, service, &[("DISK_RESERVE_BYTES", "9000000000000000000")], &faults, "remove snapshots");
    }
    let nowhere = system.directory().join("nowhere").display().to_string();
    broken(&system, API, &[("SNAPSHOT_DIR", &nowhere)], &["snapshot area"], "mount");
    broken(&system, WORKER, &[("BLOB_DIR", &nowhere)], &["blob store"], "mount");
    assert!(!Path::new(&nowhere).exists(), "the doctor makes nothing");
    // Another directory than that of the other services.
    let other = system.directory().join("other");
    std::fs::create_dir(&other).unwrap();
    let path = other.display().to_string();
    broken(&system, API, &[("SNAPSHOT_DIR", &path)], &["snapshot files"], "that of all services");
    broken(&system, WORKER, &[("BLOB_DIR", &path)], &["contents of files"], "that of all workers");

    let area = system.directory().join("area");
    std::fs::set_permissions(&area, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let report = Report::of(&system, API, &[], &[]);
    assert!(report.code == 0 && report.advice("snapshot area").contains("chmod 0700"));
    std::fs::set_permissions(&area, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    healthy(&system, API);

    // A snapshot that was lost.
    let jobs = std::fs::read_dir(system.area()).unwrap().next().unwrap().unwrap().path();
    let file = std::fs::read_dir(&jobs).unwrap().next().unwrap().unwrap().path();
    let kept = system.directory().join("kept");
    std::fs::rename(&file, &kept).unwrap();
    for service in [API, WORKER] {
        broken(&system, service, &[], &["snapshot files"], "restore");
    }
    std::fs::rename(&kept, &file).unwrap();
    healthy(&system, WORKER);

    // A volume that is mounted for reading only.
    let small = system.directory().join("small");
    let Some(_disk) = Disk::mount(&small, 8) else { return };
    std::fs::set_permissions(&small, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    for directory in ["snapshots", "blobs"] {
        std::fs::create_dir(small.join(directory)).unwrap();
    }
    let remounted = Command::new("mount").args(["-o", "remount,ro"]).arg(&small).status();
    assert!(remounted.unwrap().success(), "what was mounted can be mounted otherwise");
    let path = small.display().to_string();
    let faults = ["snapshot area round trip", "snapshot files"];
    broken(&system, API, &[("SNAPSHOT_DIR", &path)], &faults, "mounted for writing");
    let report = broken(
        &system,
        WORKER,
        &[("BLOB_DIR", &path)],
        &["blob store round trip", "contents of files"],
        "mounted for writing",
    );
    assert!(report.look("blob store round trip")["seen"].as_str().unwrap().contains("Read-only"));
}

/// A pgbouncer before a database, which goes with this.
struct Pooler {
    child: std::process::Child,
    url: String,
    _directory: tempfile::TempDir,
}

impl Pooler {
    fn start(url: &str) -> Option<Self> {
        const PROGRAM: &str = "/usr/sbin/pgbouncer";
        if !Path::new(PROGRAM).exists() {
            skipped("pgbouncer is not here");
            return None;
        }
        let (before, after) = url.rsplit_once('@').unwrap();
        let (scheme_and_user, password) = before.rsplit_once(':').unwrap();
        let (_, user) = scheme_and_user.rsplit_once('/').unwrap();
        let (server, database) = after.split_once('/').unwrap();
        let (host, port) = server.split_once(':').unwrap();
        let address = free_address();
        let directory = tempfile::tempdir().unwrap();
        // It refuses to run as root.
        std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let settings = directory.path().join("settings");
        let text = format!(
            "[databases]\n* = host={host} port={port} user={user} password={password}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {}\nauth_type = any\npool_mode = transaction\nunix_socket_dir =\n\
             ignore_startup_parameters = extra_float_digits\n",
            address.port()
        );
        std::fs::write(&settings, text).unwrap();
        let as_other = ["--reuid", "postgres", "--clear-groups", PROGRAM, "--quiet"];
        let child = Command::new("setpriv").args(as_other).arg(&settings).spawn().unwrap();
        system_tests::system::eventually("pgbouncer listens", || std::net::TcpStream::connect(address).is_ok());
        let url = format!("{scheme_and_user}:{password}@{address}/{database}");
        Some(Self { child, url, _directory: directory })
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_pool_of_transactions_between_is_seen() {
    let mut system = System::start();
    let _broker = system.broker();
    drop(system.take_api());
    let Some(pooler) = Pooler::start(&system.url("API_", "DATABASE_URL")) else { return };
    let report = Report::of(&system, API, &[("DATABASE_URL", &pooler.url)], &[]);
    assert!(report.of_verdict("fault").contains(&"database session"), "{}", report.complaints());
    assert!(report.advice("database session").contains("pool_mode = session"), "{}", report.complaints());
    healthy(&system, API);
}

#[test]
fn what_only_the_management_interface_tells_is_told_where_it_is_given() {
    let servers = Servers::broker();
    let port = free_address().port();
    servers.manage_broker(port);
    servers.broker_control(&["set_user_tags", "cellexport", "monitoring"]);
    let system = System::start_with(Options { servers: servers.environment(), ..Options::default() });
    let broker = system.environment().iter().find(|(name, _)| name == "AMQP_URL").unwrap().1.clone();
    let (user, _) = broker.trim_start_matches("amqp://").split_once('@').unwrap();
    let url = format!("http://{user}@127.0.0.1:{port}");
    let settings = [("AMQP_MANAGEMENT_URL", url.as_str())];
    system.eventually("the interface knows the queue", || {
        Report::of(&system, API, &settings, &[]).look("queue policy")["verdict"] == "warning"
    });
    let report = Report::of(&system, API, &settings, &[]);
    // Tests have no exchange for dead letters in their policy.
    assert!(report.look("queue policy")["seen"].as_str().unwrap().contains("dead-letter-exchange"));
    assert_eq!((report.code, report.look("broker alarms")["verdict"].as_str()), (0, Some("ok")));
    let wrong = url.replacen(user, &format!("cellexport:{WRONG}"), 1);
    remember_secret(WRONG);
    let faults = ["queue policy", "broker alarms"];
    broken(&system, API, &[("AMQP_MANAGEMENT_URL", &wrong)], &faults, "AMQP_MANAGEMENT_URL");
    servers.broker_control(&["clear_policy", "-p", "cellexport", "jobs"]);
    system.eventually("the policy is missed", || {
        Report::of(&system, API, &settings, &[]).look("queue policy")["verdict"] == "fault"
    });
    let report = Report::of(&system, API, &settings, &[]);
    assert!(report.advice("queue policy").contains("definitions.json"), "{}", report.complaints());
    servers.broker_control(&["set_disk_free_limit", "900GB"]);
    system.eventually("the alarm is seen", || {
        let report = Report::of(&system, API, &settings, &[]);
        report.look("broker alarms")["verdict"] == "fault" && report.look("doorbell")["verdict"] == "fault"
    });
    let report = Report::of(&system, API, &settings, &[]);
    assert!(report.advice("doorbell").contains("alarm"), "{}", report.complaints());
    servers.broker_control(&["set_disk_free_limit", "50MB"]);
}
