//! Manifests as tests see them: read as YAML, rendered by helm, checked by the programs that `deploy/checkers` installs.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// What a worker may take at most: the tested ceiling of an export, or an import of as many entries as one may have.
pub const WORKER_MEMORY: u64 = (96 << 20) + 420 * model::limits::ENTRIES;
/// What an api may take at most: the tested ceiling, all clients that may wait, and the password that is checked.
pub const API_MEMORY: u64 =
    (64 << 20) + ((model::limits::WAITING_CLIENTS as u64) * (50 << 10)) + model::limits::PASSWORD_MEMORY;

/// A file of the checkout.
pub fn path(of: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().expect("the checkout").join(of)
}

/// Text of a file of the checkout.
pub fn text(of: &str) -> String {
    std::fs::read_to_string(path(of)).unwrap_or_else(|error| panic!("{of}: {error}"))
}

/// A program of `deploy/checkers`, when it is there.
pub fn checker(name: &str) -> Option<Command> {
    let program = path(".local/checkers/bin").join(name);
    program.exists().then(|| Command::new(program))
}

/// Runs a program with a text as its input.
pub fn feed(mut command: Command, input: &str) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
    child.wait_with_output().expect("it ends")
}

/// The documents of a YAML text, with anchors and merges resolved.
pub fn yaml(text: &str) -> Vec<Value> {
    let mut python = checker("python").expect("whoever has manifests has this");
    python.args(["-c", "import json,sys,yaml; json.dump([d for d in yaml.safe_load_all(sys.stdin) if d], sys.stdout)"]);
    let output = feed(python, text);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The manifests that helm makes of the chart with these arguments, or what it says instead; nothing without helm.
pub fn render(arguments: &[&str]) -> Option<Result<String, String>> {
    let mut helm = checker("helm")?;
    helm.args(["template", "demo"]).arg(path("deploy/helm/cell-export")).args(["--namespace", "cells"]);
    let output = helm.args(arguments).output().expect("helm runs");
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some(if output.status.success() { Ok(said(&output.stdout)) } else { Err(said(&output.stderr)) })
}

/// Names of the settings that a service reads: the first column of the tables that document them.
pub fn settings_of(service: &str) -> BTreeSet<String> {
    let tables = [text("crates/model/src/settings.rs"), text(&format!("crates/{service}/src/config.rs"))];
    let rows = tables.iter().flat_map(|table| table.lines()).filter_map(|line| line.strip_prefix("//! | `"));
    let columns = rows.filter_map(|row| row.split(" |").next());
    let names = columns.flat_map(|column| column.split(['`', ',', ' '])).filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

/// Fails when a variable is none that the service reads.
pub fn assert_known<'a>(what: &str, service: &str, variables: impl IntoIterator<Item = &'a str>) {
    let known = settings_of(service);
    for variable in variables {
        let setting = variable.strip_suffix("_FILE").unwrap_or(variable);
        assert!(known.contains(setting), "{what}: {variable} is no setting of {service}");
    }
}

/// Settings that are secrets: never a value in a manifest.
pub const SECRETS: &[&str] = &[
    "DATABASE_URL",
    "AMQP_URL",
    "MASTER_TOKEN",
    "UNIT_SECRET16",
    "UNIT_PASSWORD_SALT",
    "S3_ACCESS_KEY_ID",
    "S3_SECRET_ACCESS_KEY",
];

/// What a service makes of an environment: `--check-config`, with files of their own in place of the secrets' paths.
pub fn check_config(service: &str, environment: &[(String, String)], directory: &Path) -> String {
    let given: Vec<(String, String)> = environment
        .iter()
        .map(|(name, value)| match name.strip_suffix("_FILE") {
            None => (name.clone(), value.clone()),
            Some(secret) => {
                let file = directory.join(secret);
                std::fs::write(&file, "a-secret-16-long").expect("written");
                (name.clone(), file.display().to_string())
            }
        })
        .collect();
    let command = if service == "api" { "serve" } else { "run" };
    let output = crate::process::run(service, &[command, "--check-config"], &given);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{service} refuses {environment:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Bytes of a quantity such as `512Mi` (Kubernetes) or `512m` (compose).
pub fn bytes(quantity: &str) -> u64 {
    let digits = quantity.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().unwrap_or_else(|_| panic!("{quantity} is no quantity"));
    let unit = match &quantity[digits.len()..] {
        "Ki" | "k" => 1 << 10,
        "Mi" | "m" => 1 << 20,
        "Gi" | "g" => 1 << 30,
        other => panic!("{other} of {quantity} is no unit"),
    };
    number * unit
}
