//! What was asked, what was answered, and which faults were made: a line for each, written before anybody goes by it.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use crate::http;
use crate::process;
use crate::system::{System, TOKEN};

/// The history of one test. Cheap to clone.
#[derive(Debug, Clone)]
pub struct History(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    path: PathBuf,
    begun: Instant,
    file: Mutex<File>,
}

impl History {
    /// Begins a history in a file beside the binaries; one of the same name is overwritten.
    pub fn begin(name: &str) -> Self {
        let binaries = process::binary("api").parent().map(Path::to_owned).expect("a directory of binaries");
        let directory = binaries.join("histories");
        std::fs::create_dir_all(&directory).expect("a directory for histories");
        let path = directory.join(format!("{name}.jsonl"));
        let file = Mutex::new(File::create(&path).expect("a file for the history"));
        Self(Arc::new(Inner { name: name.to_owned(), path, begun: Instant::now(), file }))
    }

    /// The test's name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// How long ago it was begun.
    pub fn age(&self) -> Duration {
        self.0.begun.elapsed()
    }

    /// Where it is written.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Writes a line. What was acknowledged to us has to last, like what we acknowledge.
    pub fn note(&self, what: &str, mut fields: Value) {
        fields["what"] = what.into();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        fields["at"] = now.as_secs_f64().into();
        let line = format!("{fields}\n");
        let mut file = self.0.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(line.as_bytes()).expect("the history can be written");
        if what == "accepted" {
            file.sync_data().expect("the history can be kept");
        }
    }

    /// Notes that a fault is made now.
    pub fn fault(&self, what: &str) {
        self.note("fault", json!({"fault": what}));
    }

    /// Notes that a fault that lasted is over.
    pub fn healed(&self, what: &str) {
        self.note("healed", json!({"fault": what}));
    }

    /// When faults were made and, where they lasted, when they were over; by the clock of this machine.
    pub fn faults(&self) -> Vec<(f64, f64)> {
        let mut open: HashMap<String, f64> = HashMap::new();
        let mut faults = Vec::new();
        for line in self.lines() {
            let (at, fault) = (line["at"].as_f64().unwrap_or_default(), line["fault"].as_str().unwrap_or_default());
            match line["what"].as_str() {
                Some("fault") => {
                    faults.push((at, at));
                    open.insert(fault.to_owned(), at);
                }
                Some("healed") => faults.extend(open.remove(fault).map(|begun| (begun, at))),
                _ => {}
            }
        }
        faults
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.0.path).expect("the history can be read");
        text.lines().map(|line| serde_json::from_str(line).expect("a line of the history")).collect()
    }
}

/// What a client was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// 202, or another status that says "done".
    Done(u16),
    /// An error, with its code.
    Refused(u16, String),
    /// Nothing: the connection broke, or there was none.
    Nothing,
}

impl Told {
    /// Tells whether the client was told that it is done.
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done(_))
    }
}

/// A client that keeps a history.
#[derive(Debug, Clone)]
pub struct Client {
    address: std::net::SocketAddr,
    history: History,
}

impl Client {
    /// A client of an installation.
    pub fn of(system: &System, history: &History) -> Self {
        Self { address: system.address, history: history.clone() }
    }

    /// Asks for an export.
    pub fn export(&self, cell: &str, name: &str) -> Told {
        self.order("export", cell, name)
    }

    /// Asks for an import of a snapshot that is there.
    pub fn import(&self, cell: &str, name: &str) -> Told {
        self.order("import", cell, name)
    }

    fn order(&self, kind: &str, cell: &str, name: &str) -> Told {
        let body = format!(r#"{{"Name":"{name}"}}"#);
        self.ask(kind, cell, name, "POST", &format!("/{cell}/__{kind}"), Some(body.as_bytes()))
    }

    /// Asks for an export, and resets the connection after a while without waiting for an answer.
    pub fn export_and_reset(&self, cell: &str, name: &str, pause: Duration) {
        let about = json!({"kind": "export", "cell": cell, "name": name});
        self.history.note("ask", about.clone());
        let body = format!(r#"{{"Name":"{name}"}}"#);
        let bearer = format!("Bearer {TOKEN}");
        let headers = [("Authorization", bearer.as_str())];
        let target = format!("/{cell}/__export");
        if let Ok(mut stream) = http::begin(self.address, "POST", &target, &headers, Some(body.len())) {
            let _ = stream.write_all(body.as_bytes());
            std::thread::sleep(pause);
            // Closed like this, a connection is reset.
            rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).expect("an option of sockets");
        }
        self.history.note("nothing", about);
    }

    /// Deletes `NAME.zip`.
    pub fn delete(&self, cell: &str, name: &str) -> Told {
        self.ask("delete", cell, name, "DELETE", &format!("/{cell}/__snapshot/{name}.zip"), None)
    }

    /// Sends `NAME.zip`.
    pub fn put(&self, cell: &str, name: &str, body: &[u8]) -> Told {
        self.ask("put", cell, name, "PUT", &format!("/{cell}/__snapshot/{name}.zip"), Some(body))
    }

    fn ask(&self, kind: &str, cell: &str, name: &str, method: &str, target: &str, body: Option<&[u8]>) -> Told {
        let about = |more: Value| {
            let mut fields = json!({"kind": kind, "cell": cell, "name": name});
            if let (Value::Object(fields), Value::Object(more)) = (&mut fields, more) {
                fields.extend(more);
            }
            fields
        };
        self.history.note("ask", about(json!({})));
        let bearer = format!("Bearer {TOKEN}");
        let answer = http::request(self.address, method, target, &[("Authorization", &bearer)], body);
        match answer {
            Ok(answer) if answer.status < 300 => {
                let what = if answer.status == 202 { "accepted" } else { "done" };
                self.history.note(what, about(json!({"status": answer.status})));
                Told::Done(answer.status)
            }
            Ok(answer) => {
                let code = answer.code();
                self.history.note("refused", about(json!({"status": answer.status, "code": code})));
                Told::Refused(answer.status, code)
            }
            Err(error) => {
                self.history.note("nothing", about(json!({"why": error.to_string()})));
                Told::Nothing
            }
        }
    }
}
