//! Servers that belong to one test alone: they can be stopped, frozen, killed and wiped, and nobody else notices.
//!
//! `deploy/services` makes and starts them, exactly like the ones that all other tests share. Another process waits for
//! the end of this one, however it comes, and then stops them and removes what they wrote.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A PostgreSQL, a RabbitMQ, or both.
#[derive(Debug)]
pub struct Servers {
    directory: PathBuf,
    database: bool,
    broker: bool,
    environment: Vec<(String, String)>,
    /// The keeper stops the servers when this is closed.
    _alive: ChildStdin,
    _keeper: Child,
}

fn deploy(program: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(program)
}

impl Servers {
    /// Starts a PostgreSQL.
    pub fn database() -> Self {
        Self::start(None, true, false)
    }

    /// Starts a PostgreSQL that keeps everything below a directory.
    pub fn database_below(directory: &Path) -> Self {
        Self::start(Some(directory), true, false)
    }

    /// Starts a RabbitMQ.
    pub fn broker() -> Self {
        Self::start(None, false, true)
    }

    /// Starts both.
    pub fn both() -> Self {
        Self::start(None, true, true)
    }

    fn start(directory: Option<&Path>, database: bool, broker: bool) -> Self {
        // The keeper removes it.
        let directory = match directory {
            Some(directory) => directory.join("servers"),
            None => TempDir::new().expect("a directory").keep(),
        };
        let mut keeper = Command::new("setsid")
            .args(["bash", "-c", r#"cat >/dev/null; exec "$0" --purge"#])
            .arg(deploy("stop"))
            .env("LOCAL_DIR", &directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        let alive = keeper.stdin.take().expect("a pipe to the keeper");
        let mut servers = Self { directory, database, broker, environment: Vec::new(), _alive: alive, _keeper: keeper };
        servers.run();
        let env = std::fs::read_to_string(servers.directory.join("env")).expect("what deploy/services wrote");
        let variables = env.lines().filter_map(|line| line.strip_prefix("export ")?.split_once('='));
        servers.environment = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        servers
    }

    /// Starts whatever does not run, and waits until it answers.
    pub fn run(&self) {
        self.run_with(&[]);
    }

    /// The same, with more variables for what is started.
    pub fn run_with(&self, variables: &[(&str, String)]) {
        let mut services = Command::new(deploy("services"));
        services.env("LOCAL_DIR", &self.directory);
        services.envs(variables.iter().map(|(name, value)| (name, value)));
        for (own, setting) in [(self.database, "DATABASE_URL"), (self.broker, "AMQP_URL")] {
            if own {
                services.env_remove(setting);
                for service in ["API_", "WORKER_"] {
                    services.env_remove(format!("{service}{setting}"));
                }
            }
        }
        let output = services.stdin(Stdio::null()).output().expect("deploy/services runs");
        assert!(output.status.success(), "deploy/services: {output:?}");
    }

    /// The variables with the URLs.
    pub fn environment(&self) -> Vec<(String, String)> {
        self.environment.clone()
    }

    /// The process id of the PostgreSQL server.
    pub fn database_id(&self) -> Option<u32> {
        first_line(&self.directory.join("postgres/data/postmaster.pid"))
    }

    /// Stops PostgreSQL, and waits until it is gone: `INT` ends all sessions, `QUIT` drops everything where it is.
    pub fn stop_database(&self, signal: &str) {
        let id = self.database_id().expect("the database runs");
        kill(id, signal);
        wait_for_end(id);
    }

    /// The process id of the RabbitMQ node.
    pub fn broker_id(&self) -> u32 {
        first_line(&self.directory.join("rabbitmq/pid")).expect("the broker runs")
    }

    /// Sends a signal to the RabbitMQ node.
    pub fn signal_broker(&self, signal: &str) {
        kill(self.broker_id(), signal);
    }

    /// Kills the RabbitMQ node, and waits until it is gone.
    pub fn kill_broker(&self) {
        let id = self.broker_id();
        kill(id, "KILL");
        wait_for_end(id);
    }

    /// Runs `rabbitmqctl`; what it says.
    pub fn broker_control(&self, arguments: &[&str]) -> String {
        let output = Command::new(self.directory.join("rabbitmqctl")).args(arguments).stdin(Stdio::null()).output();
        let output = output.expect("rabbitmqctl runs");
        assert!(output.status.success(), "rabbitmqctl {arguments:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The same, whatever becomes of it.
    pub fn try_broker_control(&self, arguments: &[&str]) {
        let _ = Command::new(self.directory.join("rabbitmqctl")).args(arguments).stdin(Stdio::null()).output();
    }

    /// Lets the broker's management interface be answered on a port.
    pub fn manage_broker(&self, port: u16) {
        let set = format!(
            "application:set_env(rabbitmq_management, tcp_config, [{{port, {port}}}, {{ip, \"127.0.0.1\"}}], [{{persistent, true}}])."
        );
        self.broker_control(&["eval", &set]);
        let output = Command::new(self.directory.join("rabbitmqctl"))
            .args(["enable", "rabbitmq_management"])
            .env("PROGRAM", "rabbitmq-plugins")
            .stdin(Stdio::null())
            .output();
        let output = output.expect("rabbitmq-plugins runs");
        assert!(output.status.success(), "rabbitmq-plugins: {output:?}");
    }

    /// Forgets that the broker was set up: the next [`Self::run`] makes users and policies anew.
    pub fn forget_broker_setup(&self) {
        let _ = std::fs::remove_file(self.directory.join("rabbitmq/ready-2"));
    }
}

fn first_line(file: &Path) -> Option<u32> {
    let file = std::fs::File::open(file).ok()?;
    BufReader::new(file).lines().next()?.ok()?.trim().parse().ok()
}

fn kill(id: u32, signal: &str) {
    let status = Command::new("kill").args(["-s", signal, &id.to_string()]).status();
    assert!(status.expect("kill runs").success(), "kill -s {signal} {id}");
}

fn wait_for_end(id: u32) {
    let until = Instant::now() + Duration::from_secs(30);
    let status = PathBuf::from(format!("/proc/{id}/stat"));
    // A zombie is gone: its parent is not this process.
    while std::fs::read_to_string(&status).is_ok_and(|stat| !stat.contains(") Z")) {
        assert!(Instant::now() < until, "process {id} does not end");
        std::thread::sleep(Duration::from_millis(10));
    }
}
