//! The compose file: valid, and what must hold of every service in it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::{Map, Value, json};
use system_tests::judge::skipped;
use system_tests::manifests::{self, API_MEMORY, SECRETS, WORKER_MEMORY};
use system_tests::process;
use system_tests::system::System;

/// The services that are our own programs, and which.
const OWN: [(&str, &str); 4] =
    [("migrate", "api"), ("api", "api"), ("exporter-worker", "exporter-worker"), ("demo-cell", "exporter-worker")];

/// The file with its defaults in place of variables; nothing without the checkers.
fn compose() -> Option<Value> {
    if manifests::checker("python").is_none() {
        skipped("the checkers of manifests are not installed (deploy/checkers)");
        return None;
    }
    manifests::yaml(&with_defaults(&manifests::text("docker-compose.yml"))).pop()
}

/// `${NAME:-default}` becomes the default.
fn with_defaults(text: &str) -> String {
    let mut parts = text.split("${");
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (variable, rest) = part.split_once('}').expect("a variable ends");
        let (_, default) = variable.split_once(":-").expect("every variable has a default");
        whole += default;
        whole += rest;
    }
    whole
}

fn services(compose: &Value) -> &Map<String, Value> {
    compose["services"].as_object().unwrap()
}

/// Seconds of a duration such as `630s`.
fn seconds(duration: &Value) -> u64 {
    duration.as_str().and_then(|text| text.strip_suffix('s')).unwrap().parse().unwrap()
}

#[test]
fn the_file_follows_the_specification() {
    let Some(mut check) = manifests::checker("check-jsonschema") else {
        return skipped("check-jsonschema is not installed");
    };
    check.args(["--builtin-schema", "vendor.compose-spec"]).arg(manifests::path("docker-compose.yml"));
    let output = check.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn every_service_may_do_little_and_has_an_end_to_what_it_takes() {
    let Some(compose) = compose() else { return };
    for (name, service) in services(&compose) {
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(service["cap_drop"], json!(["ALL"]), "{name}");
        assert_eq!(service["security_opt"], json!(["no-new-privileges:true"]), "{name}");
        for limit in ["mem_limit", "cpus", "pids_limit"] {
            assert!(!service[limit].is_null(), "{name} has no {limit}");
        }
        assert!(service["container_name"].is_null() && service["privileged"].is_null(), "{name}");
        assert!(!service["healthcheck"].is_null(), "{name}");
        let image = service["image"].as_str().unwrap();
        let (_, tag) = image.rsplit_once(':').unwrap_or_else(|| panic!("{name}: {image} is not pinned"));
        assert!(tag.contains(|c: char| c.is_ascii_digit()), "{name}: {image}");
        // What is published is published on this host only.
        for port in service["ports"].as_array().into_iter().flatten() {
            assert!(port.as_str().unwrap().starts_with("127.0.0.1:"), "{name}: {port}");
        }
        for secret in service["secrets"].as_array().into_iter().flatten() {
            assert!(compose["secrets"].get(secret.as_str().unwrap()).is_some(), "{name}: {secret}");
        }
        if image.starts_with("cell-export/") {
            assert_eq!((&service["user"], &service["init"]), (&json!("10001:10001"), &json!(true)), "{name}");
            assert!(service["cap_add"].is_null(), "{name}");
            let memory = manifests::bytes(service["mem_limit"].as_str().unwrap());
            let ceiling = if image.contains("/api:") { API_MEMORY } else { WORKER_MEMORY };
            assert!(memory >= ceiling, "{name}: {memory} < {ceiling}");
            assert_eq!(service["memswap_limit"], service["mem_limit"], "{name}");
        }
    }
}

#[test]
fn workers_scale_and_finish_what_they_do() {
    let Some(compose) = compose() else { return };
    let worker = &services(&compose)["exporter-worker"];
    for would_be_one in ["ports", "container_name", "hostname", "network_mode"] {
        assert!(worker[would_be_one].is_null(), "{would_be_one}");
    }
    let drain: u64 = worker["environment"]["DRAIN_SECS"].as_str().unwrap().parse().unwrap();
    assert!(seconds(&worker["stop_grace_period"]) > drain + model::limits::STOP_GRACE.as_secs());
    let api = &services(&compose)["api"];
    assert!(seconds(&api["stop_grace_period"]) > model::limits::DRAIN.as_secs());
    assert_eq!(worker["healthcheck"]["test"], json!(["CMD", "/usr/local/bin/exporter-worker", "health"]));
    assert_eq!(api["healthcheck"]["test"], json!(["CMD", "/usr/local/bin/api", "health"]));
    for service in [api, worker] {
        assert_eq!(service["depends_on"]["migrate"]["condition"], "service_completed_successfully");
    }
    for once in ["migrate", "demo-cell", "demo"] {
        assert_eq!(services(&compose)[once]["restart"], "no", "{once}");
    }
}

#[test]
fn profiles_add_and_nothing_needs_them() {
    let Some(compose) = compose() else { return };
    let mut profiles: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for (name, service) in services(&compose) {
        let profile = service["profiles"][0].as_str().unwrap_or("always");
        profiles.entry(profile.to_owned()).or_default().insert(name);
        for (other, how) in service["depends_on"].as_object().into_iter().flatten() {
            let wanted = &services(&compose)[other]["profiles"];
            let fine = wanted.is_null() || wanted == &service["profiles"] || how["required"] == false;
            assert!(fine, "{name} cannot start without {other}, which is in another profile");
        }
    }
    let expected = [
        ("always", vec!["api", "exporter-worker", "migrate", "postgres", "rabbitmq"]),
        ("demo", vec!["demo", "demo-cell"]),
        ("observability", vec!["grafana", "jaeger", "prometheus"]),
        ("s3", vec!["s3"]),
    ];
    let expected = expected.map(|(profile, names)| (profile.to_owned(), names.into_iter().collect())).into();
    assert_eq!(profiles, expected);
}

/// Settings that the image brings.
fn image_settings(service: &str) -> Vec<(String, String)> {
    let dockerfile = manifests::text("deploy/Dockerfile");
    let (_, stage) = dockerfile.split_once(&format!("FROM scratch AS {service}\n")).unwrap();
    let (_, variables) = stage.split_once("\nENV ").unwrap();
    let variables = variables.replace("\\\n", " ");
    let line = variables.lines().next().unwrap();
    line.split_whitespace().filter_map(|pair| pair.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

#[test]
fn settings_are_ones_that_the_services_read_and_secrets_are_files() {
    let Some(compose) = compose() else { return };
    let directory = tempfile::tempdir().unwrap();
    for (name, service) in OWN {
        let definition = &services(&compose)[name];
        let given: Vec<(String, String)> = definition["environment"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(variable, value)| {
                (variable.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned))
            })
            .collect();
        manifests::assert_known(name, service, given.iter().map(|(variable, _)| variable.as_str()));
        for (variable, value) in &given {
            assert!(!SECRETS.contains(&variable.as_str()), "{name}: {variable} is a secret");
            if variable.ends_with("_FILE") {
                let secret = json!(value.strip_prefix("/run/secrets/").unwrap());
                assert!(definition["secrets"].as_array().unwrap().contains(&secret), "{name}: {secret}");
            }
        }
        let brought = image_settings(service);
        manifests::assert_known("the image", service, brought.iter().map(|(variable, _)| variable.as_str()));
        if name == service {
            let whole: Vec<_> = brought.into_iter().chain(given).collect();
            manifests::check_config(service, &whole, directory.path());
        }
    }
    let demo = &services(&compose)["demo"]["environment"];
    assert_eq!(demo.as_object().unwrap().keys().collect::<Vec<_>>(), ["CELLEXPORT_TOKEN_FILE"]);
}

#[test]
fn the_script_makes_every_secret_once() {
    let Some(compose) = compose() else { return };
    let checkout = tempfile::tempdir().unwrap();
    for directory in ["secrets", "rabbitmq"] {
        std::fs::create_dir_all(checkout.path().join("deploy").join(directory)).unwrap();
    }
    for file in ["deploy/secrets/generate", "deploy/rabbitmq/definitions.json"] {
        std::fs::copy(manifests::path(file), checkout.path().join(file)).unwrap();
    }
    let make = || {
        let output = Command::new(checkout.path().join("deploy/secrets/generate")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let secrets = compose["secrets"].as_object().unwrap();
        let read = |secret: &Value| std::fs::read_to_string(checkout.path().join(secret["file"].as_str().unwrap()));
        secrets.iter().map(|(name, secret)| (name.clone(), read(secret).unwrap())).collect::<BTreeMap<_, _>>()
    };
    let made = make();
    assert!(made.values().all(|secret| secret.len() >= 16), "none is empty");
    assert_eq!(make(), made, "what is there stays");
}

#[test]
fn prometheus_reads_its_files() {
    if Command::new("promtool").arg("--version").output().is_err() {
        return skipped("promtool is not installed");
    }
    let file = manifests::path("deploy/prometheus/prometheus.yml");
    let output = Command::new("promtool").args(["check", "config"]).arg(file).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains(" rules found"), "{said}");
}

#[test]
fn the_demo_loads_the_sample_cell() {
    let directory = tempfile::tempdir().unwrap();
    let made = directory.path().join("sample.zip");
    process::run("examples/sample_cell", &[&made.display().to_string()], &[]);
    let same = |a: &Path, b: &Path| std::fs::read(a).unwrap() == std::fs::read(b).unwrap();
    assert!(
        same(&made, &manifests::path("deploy/demo/sample-cell.zip")),
        "deploy/demo/sample-cell.zip is another sample: write it again with `cargo run --example sample_cell`"
    );
}

#[test]
fn the_demo_can_be_started_again() {
    let system = System::start();
    let snapshot = manifests::path("deploy/demo/sample-cell.zip");
    let load = |name: &str, arguments: &[&str]| {
        let output = system.load(name, &snapshot, arguments);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(load("sample", &["--if-absent"]).0, Some(0));
    assert_eq!(load("sample", &["--if-absent"]), (Some(0), "cell sample is there already\n".to_owned()));
    assert_eq!(load("sample", &[]).0, Some(3));
    // The cell is there under another name: that is not what was asked for.
    assert_eq!(load("other", &["--if-absent"]).0, Some(3));
}
