//! One installation: database, queues, directories, an api, and as many workers as a test wants.

use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use model::settings::Variables;
use secrecy::SecretString;
use sqlx::{Connection, Executor, PgConnection, PgPool, Row};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::broker::Broker;
use crate::http::{self, Answer};
use crate::process::{self, Process};
use crate::proxy::Proxy;
use crate::secrets;

/// The master token of every test installation. Like the other secrets it is a text that nothing else contains: when an
/// installation ends, everything that was written is searched for them.
pub const TOKEN: &str = "marker-master-token-x7Qd";
/// The unit's secret of every test installation, unless a test gives another one.
pub const SECRET16: &str = "MarkerSecret16x7";

/// What a test may want to be different.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Settings for both services, beside the usual ones.
    pub settings: Vec<(&'static str, String)>,
    /// Put a proxy before the database.
    pub database_proxy: bool,
    /// Put a proxy before the broker.
    pub broker_proxy: bool,
    /// Variables with the URLs of other servers than those that the environment names.
    pub servers: Vec<(String, String)>,
}

/// The installation. Everything in it ends and is removed with it.
pub struct System {
    /// Where the api listens.
    pub address: SocketAddr,
    /// Proxy before the database, if asked for.
    pub database_proxy: Option<Proxy>,
    /// Proxy before the broker, if asked for.
    pub broker_proxy: Option<Proxy>,
    api: Option<Process>,
    workers: usize,
    services: AtomicUsize,
    environment: Vec<(String, String)>,
    /// What a service logs in with, by the service's prefix.
    users: Vec<(&'static str, (String, String))>,
    database: String,
    server: String,
    amqp_url: String,
    prefix: String,
    pool: PgPool,
    directory: TempDir,
    runtime: Runtime,
}

impl System {
    /// Starts an installation without workers.
    pub fn start() -> Self {
        Self::start_with(Options::default())
    }

    /// Starts an installation without workers, with options.
    pub fn start_with(options: Options) -> Self {
        let given = |name: &str| options.servers.iter().find(|(n, _)| n == name).map(|(_, url)| url.clone());
        let required = |name| {
            given(name).or_else(|| Variables::environment().required(name).ok()).expect("tests need real servers")
        };
        let (server, amqp_url) = (required("DATABASE_URL"), required("AMQP_URL"));
        let runtime = Runtime::new().expect("a runtime");
        let id = uuid::Uuid::new_v4().simple().to_string();
        let database = format!("cellexport_test_{id}");
        let prefix = format!("test-{id}");
        runtime.block_on(async {
            let mut connection = PgConnection::connect(&server).await.expect("a database server");
            let create = format!("CREATE DATABASE {database}");
            connection.execute(sqlx::AssertSqlSafe(create)).await.expect("the role may create databases");
        });
        let url = with_database(&server, &database);
        let secret: SecretString = url.clone().into();
        runtime.block_on(model::store::migrate(&secret)).expect("migrations");
        let pool = runtime.block_on(PgPool::connect(&url)).expect("a pool");
        let database_proxy = options.database_proxy.then(|| Proxy::start(authority(&server)));
        let broker_proxy = options.broker_proxy.then(|| Proxy::start(authority(&amqp_url)));
        let through = |url: &str, proxy: &Option<Proxy>| match proxy {
            Some(proxy) => with_authority(url, proxy.address()),
            None => url.to_owned(),
        };
        let directory = tempfile::tempdir().expect("a directory");
        let address = free_address();
        let path = |name: &str| directory.path().join(name).display().to_string();
        let mut environment: Vec<(String, String)> = [
            ("DATABASE_URL", through(&url, &database_proxy)),
            ("AMQP_URL", through(&amqp_url, &broker_proxy)),
            ("AMQP_PREFIX", prefix.clone()),
            ("SNAPSHOT_DIR", path("area")),
            ("BLOB_DIR", path("blobs")),
            ("SCRATCH_DIR", path("scratch")),
            ("DISK_RESERVE_BYTES", "0".to_owned()),
            ("API_LISTEN", address.to_string()),
            ("UNIT_SCHEME", "http".to_owned()),
            ("UNIT_FQDN", "localhost".to_owned()),
            ("UNIT_PORT", address.port().to_string()),
            ("PATH_BASED_CELL_URL", "true".to_owned()),
            ("MASTER_TOKEN", TOKEN.to_owned()),
            ("UNIT_SECRET16", SECRET16.to_owned()),
            ("UNIT_PASSWORD_SALT", "marker-password-salt-x7Qd".to_owned()),
            // The protocol's proportions, twenty times as fast.
            ("JOB_LEASE_SECS", "3".to_owned()),
            ("JOB_HEARTBEAT_SECS", "0.3".to_owned()),
            ("JOB_REAP_SECS", "0.5".to_owned()),
            ("JOB_POLL_SECS", "1".to_owned()),
            ("DRAIN_SECS", "0".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        // Each service as its own user, where the servers have one.
        let mut users = Vec::new();
        for (service, setting) in ["API_", "WORKER_"].into_iter().flat_map(|s| [(s, "DATABASE_URL"), (s, "AMQP_URL")]) {
            let name = format!("{service}{setting}");
            let Some(url) = given(&name).or_else(|| std::env::var(name).ok()) else { continue };
            let url = match setting {
                "DATABASE_URL" => through(&with_database(&url, &database), &database_proxy),
                _ => through(&url, &broker_proxy),
            };
            users.push((service, (setting.to_owned(), url)));
        }
        for (name, value) in options.settings {
            environment.retain(|(n, _)| n != name);
            environment.push((name.to_owned(), value));
        }
        secrets::remember_settings(&environment);
        secrets::remember_settings(&users.iter().map(|(_, url)| url.clone()).collect::<Vec<_>>());
        let mut system = Self {
            address,
            database_proxy,
            broker_proxy,
            api: None,
            workers: 0,
            services: AtomicUsize::new(0),
            environment,
            users,
            database,
            server,
            amqp_url,
            prefix,
            pool,
            directory,
            runtime,
        };
        system.start_api();
        system
    }

    fn start_api(&mut self) {
        let log = self.directory.path().join("api.log");
        self.api = Some(Process::start("api", &["serve"], &self.environment_of("API_"), log));
        self.eventually("the api answers", || http::request(self.address, "OPTIONS", "/", &[], None).is_ok());
    }

    /// The settings of a service, with the users that it has of its own.
    fn environment_of(&self, service: &str) -> Vec<(String, String)> {
        let mut environment = self.environment.clone();
        for (_, (name, url)) in self.users.iter().filter(|(of, _)| *of == service) {
            environment.retain(|(n, _)| n != name);
            environment.push((name.clone(), url.clone()));
        }
        environment
    }

    /// The running api.
    pub fn api(&self) -> &Process {
        self.api.as_ref().expect("started with the system")
    }

    /// Waits for the end of an api that was asked to end; its exit code.
    pub fn wait_for_api(&mut self, longest: Duration) -> Option<i32> {
        self.api.as_mut().expect("started with the system").wait(longest)
    }

    /// Starts a worker.
    pub fn worker(&mut self) -> Process {
        self.worker_with(&[])
    }

    /// Starts a worker with other settings.
    pub fn worker_with(&mut self, settings: &[(&str, &str)]) -> Process {
        self.workers += 1;
        let log = self.directory.path().join(format!("worker{}.log", self.workers));
        let mut environment = self.environment_of("WORKER_");
        for (name, value) in settings {
            environment.retain(|(n, _)| n != name);
            environment.push((name.to_string(), value.to_string()));
        }
        Process::start("exporter-worker", &["run"], &environment, log)
    }

    /// Starts a service, `api` or `exporter-worker`, or another build of one by its whole path, with other settings; under
    /// another program if one is given, by its whole path and with its arguments.
    pub fn service(&self, name: &str, settings: &[(&str, &str)], under: &[&str]) -> Process {
        let number = self.services.fetch_add(1, Relaxed) + 1;
        let file = Path::new(name).file_name().expect("the name of a program").display();
        let log = self.directory.path().join(format!("{file}-{number}.log"));
        let (prefix, command) = if name.ends_with("api") { ("API_", "serve") } else { ("WORKER_", "run") };
        let mut environment = self.environment_of(prefix);
        for (name, value) in settings {
            environment.retain(|(n, _)| n != name);
            environment.push((name.to_string(), value.to_string()));
        }
        Process::start_under(under, name, &[command], &environment, log)
    }

    /// The settings of a service (`API_` or `WORKER_`), with the users that it logs in as.
    pub fn service_environment(&self, service: &str) -> Vec<(String, String)> {
        self.environment_of(service)
    }

    /// Takes the api away; [`Self::service`] starts another in its place.
    pub fn take_api(&mut self) -> Process {
        self.api.take().expect("started with the system")
    }

    /// Makes stored contents look as if they had been written so long ago.
    pub fn age(&self, blob: uuid::Uuid, age: Duration) {
        let id = blob.simple().to_string();
        let file = std::fs::File::options().write(true).open(self.blobs().join(&id[..2]).join(&id));
        let aged = file.and_then(|file| file.set_modified(std::time::SystemTime::now() - age));
        aged.expect("contents that can be changed");
    }

    /// Loses everything that the installation has stored: an empty database, no directories. No service may run.
    pub fn lose_everything(&self) {
        self.runtime.block_on(async {
            let mut connection = PgConnection::connect(&self.server).await.expect("a database server");
            for statement in
                [format!("DROP DATABASE {} WITH (FORCE)", self.database), format!("CREATE DATABASE {}", self.database)]
            {
                connection.execute(sqlx::AssertSqlSafe(statement)).await.expect("the role may make databases");
            }
        });
        for directory in ["area", "blobs"] {
            std::fs::remove_dir_all(self.directory.path().join(directory)).expect("a directory of this test");
        }
    }

    /// First part of the names of its queues.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The URL that a service got in a setting.
    pub fn url(&self, service: &str, setting: &str) -> String {
        let of_service = self.environment_of(service).into_iter().find(|(name, _)| name == setting);
        of_service.expect("a setting of the service").1
    }

    /// The same URL, by way of another proxy.
    pub fn url_through(&self, proxy: &Proxy, service: &str, setting: &str) -> String {
        with_authority(&self.url(service, setting), proxy.address())
    }

    /// A proxy before the server of a URL.
    pub fn proxy_before(url: &str) -> Proxy {
        Proxy::start(authority(url))
    }

    /// A directory for the test's own files. What is called `*.log` there is searched for secrets in the end.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Directory of the snapshot area.
    pub fn area(&self) -> PathBuf {
        self.directory.path().join("area/snapshots")
    }

    /// Directory of the blob store.
    pub fn blobs(&self) -> PathBuf {
        self.directory.path().join("blobs/blobs")
    }

    /// The settings the processes got, with the users that may do everything in place of the services' own.
    pub fn environment(&self) -> &[(String, String)] {
        &self.environment
    }

    /// Makes a sample cell's snapshot.
    pub fn sample(&self, arguments: &[&str]) -> PathBuf {
        let file = self.directory.path().join(format!("sample-{}.zip", uuid::Uuid::new_v4().simple()));
        let path = file.display().to_string();
        let output = process::run("examples/sample_cell", &[&[path.as_str()], arguments].concat(), &[]);
        assert!(output.status.success(), "{output:?}");
        file
    }

    /// Loads a snapshot as a cell.
    pub fn load(&self, cell: &str, file: &Path, arguments: &[&str]) -> Output {
        let path = file.display().to_string();
        let arguments = [&["load", "--cell", cell], arguments, &[path.as_str()]].concat();
        process::run("exporter-worker", &arguments, &self.environment_of("WORKER_"))
    }

    /// Removes at once what no row names, however young; how much went.
    pub fn sweep(&self) -> String {
        let output = process::run("examples/sweep", &["0", "0"], &self.service_environment("WORKER_"));
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Makes and loads a sample cell.
    pub fn sample_cell(&self, cell: &str, arguments: &[&str]) -> PathBuf {
        let file = self.sample(&[&["--name", cell], arguments].concat());
        let output = self.load(cell, &file, &[]);
        assert!(output.status.success(), "{output:?}");
        file
    }

    /// Sends a request with the master token.
    pub fn request(&self, method: &str, target: &str, headers: &[(&str, &str)], body: Option<&[u8]>) -> Answer {
        let bearer = format!("Bearer {TOKEN}");
        let headers = [&[("Authorization", bearer.as_str())], headers].concat();
        self.anonymous(method, target, &headers, body)
    }

    /// Sends a request without credentials of its own.
    pub fn anonymous(&self, method: &str, target: &str, headers: &[(&str, &str)], body: Option<&[u8]>) -> Answer {
        http::request(self.address, method, target, headers, body).unwrap_or_else(|e| panic!("{method} {target}: {e}"))
    }

    /// Makes an empty cell.
    pub fn make_cell(&self, cell: &str) {
        let body = format!(r#"{{"Name":"{cell}"}}"#);
        let answer = self.request("POST", "/__ctl/Cell", &[], Some(body.as_bytes()));
        assert_eq!(answer.status, 201, "{}", answer.text());
    }

    /// Sends a snapshot file to a cell.
    pub fn put(&self, cell: &str, file: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.request("PUT", &format!("/{cell}/__snapshot/{file}"), headers, Some(body))
    }

    /// The files in the snapshot area, part files included.
    pub fn stored_files(&self) -> Vec<PathBuf> {
        let paths = |directory: &Path| {
            let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
            entries.map(|e| e.path()).collect::<Vec<_>>()
        };
        paths(&self.area()).into_iter().flat_map(|job| paths(&job)).collect()
    }

    /// Their names.
    pub fn stored(&self) -> Vec<String> {
        let files = self.stored_files().into_iter();
        files.map(|f| f.file_name().unwrap_or_default().to_string_lossy().into_owned()).collect()
    }

    /// Asks for an export.
    pub fn post_export(&self, cell: &str, name: &str) -> Answer {
        let body = format!(r#"{{"Name":"{name}"}}"#);
        self.request("POST", &format!("/{cell}/__export"), &[], Some(body.as_bytes()))
    }

    /// The status document of a cell.
    pub fn status(&self, cell: &str) -> serde_json::Value {
        let answer = self.request("GET", &format!("/{cell}/__export"), &[], None);
        assert_eq!(answer.status, 200, "{}", answer.text());
        serde_json::from_slice(&answer.body).expect("a JSON document")
    }

    /// Waits until no export of the cell is under way.
    pub fn wait_ready(&self, cell: &str) {
        self.eventually("the export ends", || self.status(cell)["status"] == "ready");
    }

    /// Asks for an export, waits, and downloads the result.
    pub fn export(&self, cell: &str, name: &str) -> PathBuf {
        let answer = self.post_export(cell, name);
        assert_eq!(answer.status, 202, "{}", answer.text());
        self.wait_ready(cell);
        self.download(cell, &format!("{name}.zip"))
    }

    /// Downloads a file of the snapshot area.
    pub fn download(&self, cell: &str, file: &str) -> PathBuf {
        let answer = self.request("GET", &format!("/{cell}/__snapshot/{file}"), &[], None);
        assert_eq!(answer.status, 200, "{} {:?}", answer.text(), self.files(cell));
        let path = self.directory.path().join(format!("{}-{file}", uuid::Uuid::new_v4().simple()));
        std::fs::write(&path, &answer.body).expect("written");
        path
    }

    /// The names of the visible files of a cell, from PROPFIND.
    pub fn files(&self, cell: &str) -> Vec<String> {
        let answer = self.request("PROPFIND", &format!("/{cell}/__snapshot"), &[("Depth", "1")], None);
        assert_eq!(answer.status, 207, "{}", answer.text());
        let text = answer.text();
        let hrefs = text.split("<href>").skip(1).filter_map(|t| t.split("</href>").next());
        hrefs.filter_map(|h| h.rsplit_once("__snapshot/")).map(|(_, name)| name.to_owned()).collect()
    }

    /// Runs a statement that returns nothing.
    pub fn execute(&self, statement: &str) -> u64 {
        let query = sqlx::query(sqlx::AssertSqlSafe(statement.to_owned())).execute(&self.pool);
        self.runtime.block_on(query).expect("the statement runs").rows_affected()
    }

    /// Runs a statement that returns one value, as text.
    pub fn value(&self, statement: &str) -> String {
        let statement = format!("SELECT v::text FROM ({statement}) AS t(v)");
        let query = sqlx::query(sqlx::AssertSqlSafe(statement)).fetch_one(&self.pool);
        let row = self.runtime.block_on(query).expect("the statement runs");
        row.get::<Option<String>, _>(0).unwrap_or_default()
    }

    /// The same, if the database answers.
    pub fn try_value(&self, statement: &str) -> Option<String> {
        let statement = format!("SELECT v::text FROM ({statement}) AS t(v)");
        let query = sqlx::query(sqlx::AssertSqlSafe(statement)).fetch_one(&self.pool);
        let row = self.runtime.block_on(query).ok()?;
        Some(row.get::<Option<String>, _>(0).unwrap_or_default())
    }

    /// Runs a statement, if the database does it.
    pub fn try_execute(&self, statement: &str) -> bool {
        let query = sqlx::query(sqlx::AssertSqlSafe(statement.to_owned())).execute(&self.pool);
        self.runtime.block_on(query).is_ok()
    }

    /// A pool on the test's database that goes past any proxy.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Runs a future.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Direct access to the broker.
    pub fn broker(&self) -> Broker {
        self.runtime.block_on(Broker::connect(&self.amqp_url, &self.prefix))
    }

    /// Waits for a condition, for a bounded time.
    pub fn eventually(&self, what: &str, condition: impl FnMut() -> bool) {
        eventually(what, condition);
    }
}

/// Waits for something for so long, and says whether it came.
pub fn within(longest: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + longest;
    while !condition() {
        if Instant::now() > until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(30));
    }
    true
}

/// Waits for a condition, for a bounded time.
pub fn eventually(what: &str, condition: impl FnMut() -> bool) {
    assert!(within(Duration::from_secs(240), condition), "waited in vain until {what}");
}

impl System {
    /// What the services wrote into the database beside the contents of cells.
    fn rows(&self) -> String {
        ["job", "snapshot_entry", "generation"].map(|table| self.value(&rows_of(table))).join("\n")
    }

    /// What the services write their logs to.
    pub fn logs(&self) -> impl Iterator<Item = PathBuf> {
        let entries = std::fs::read_dir(self.directory.path()).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "log"))
    }

    /// Searches everything that the services wrote, answers aside: those are searched when they come.
    fn search(&self, rows: &str) {
        for log in self.logs() {
            secrets::search(&log.display().to_string(), &std::fs::read(&log).expect("a log that can be read"));
        }
        secrets::search("the database", rows.as_bytes());
        for directory in ["area", "scratch"] {
            secrets::search_files(&self.directory.path().join(directory));
        }
    }
}

fn rows_of(table: &str) -> String {
    format!(r"SELECT string_agg(t::text, E'\n') FROM {table} t")
}

impl Drop for System {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        if failed {
            // What the processes said is half of what a failed test tells.
            for log in self.logs() {
                let text = std::fs::read_to_string(&log).unwrap_or_default();
                let tail: Vec<_> = text.lines().rev().take(30).collect();
                eprintln!("--- {}", log.display());
                tail.into_iter().rev().for_each(|l| eprintln!("{l}"));
            }
        }
        drop(self.api.take());
        let rows = if failed { String::new() } else { self.rows() };
        self.runtime.block_on(async {
            Broker::connect(&self.amqp_url, &self.prefix).await.remove().await;
            self.pool.close().await;
            if let Ok(mut connection) = PgConnection::connect(&self.server).await {
                let drop = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.database);
                let _ = connection.execute(sqlx::AssertSqlSafe(drop)).await;
            }
        });
        if !failed {
            self.search(&rows);
        }
    }
}

/// An address that nobody listens on.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port")
}

fn split(url: &str) -> (&str, &str, &str) {
    let start = url.find('@').or_else(|| url.find("://").map(|i| i + 2)).expect("a URL with an authority") + 1;
    let end = url[start..].find('/').map_or(url.len(), |i| start + i);
    (&url[..start], &url[start..end], &url[end..])
}

fn authority(url: &str) -> SocketAddr {
    let (_, authority, _) = split(url);
    authority.to_socket_addrs().ok().and_then(|mut a| a.next()).expect("host and port in the URL")
}

fn with_authority(url: &str, address: SocketAddr) -> String {
    let (before, _, after) = split(url);
    format!("{before}{address}{after}")
}

fn with_database(url: &str, database: &str) -> String {
    let (before, authority, after) = split(url);
    let parameters = after.find('?').map_or("", |i| &after[i..]);
    format!("{before}{authority}/{database}{parameters}")
}
