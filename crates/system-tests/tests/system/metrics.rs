//! `/metrics` on the internal ports, and what is built on them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;

use model::metrics;
use system_tests::http;
use system_tests::system::{Options, System, free_address};

/// Every sample: its name with labels, and its value.
fn scrape(address: SocketAddr) -> BTreeMap<String, f64> {
    let answer = http::request(address, "GET", "/metrics", &[], None).expect("an answer");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/plain; version=0.0.4; charset=utf-8")));
    let text = answer.text();
    let samples = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    samples
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a value");
            (name.to_owned(), value.parse().expect("a number"))
        })
        .collect()
}

#[test]
fn what_happens_is_counted_and_no_cell_is_named() {
    let (api, worker) = (free_address(), free_address());
    let settings = vec![("INTERNAL_LISTEN", api.to_string())];
    let mut system = System::start_with(Options { settings, ..Options::default() });
    system.sample_cell("cell-with-a-name", &[]);
    assert_eq!(system.post_export("cell-with-a-name", "waits").status, 202);
    let of = |address, name: &str| scrape(address).get(name).copied();
    system.eventually("one waits", || of(api, r#"cellexport_queue_depth{kind="export"}"#) == Some(1.0));
    assert!(of(api, r#"cellexport_queue_oldest_seconds{kind="export"}"#) > Some(0.0));
    let _worker = system.worker_with(&[("INTERNAL_LISTEN", &worker.to_string())]);
    system.wait_ready("cell-with-a-name");
    for (name, expected) in [
        (r#"cellexport_jobs_total{kind="export",outcome="succeeded"}"#, 1.0),
        (r#"cellexport_jobs_total{kind="export",outcome="failed"}"#, 0.0),
        (r#"cellexport_job_duration_seconds_count{kind="export"}"#, 1.0),
        (r#"cellexport_queue_wait_seconds_count{kind="export"}"#, 1.0),
        ("cellexport_leases_expired_total", 0.0),
        (r#"cellexport_dependency_up{dependency="database"}"#, 1.0),
    ] {
        system.eventually(name, || of(worker, name) == Some(expected));
    }
    assert!(of(worker, r#"cellexport_documents_total{kind="export"}"#) > Some(10.0));
    assert!(of(worker, r#"cellexport_bytes_total{kind="export"}"#) > Some(1000.0));
    assert!(of(worker, r#"cellexport_storage_free_bytes{area="blobs"}"#) > Some(0.0));
    // A queue that was emptied is zero, not what it was.
    for name in ["cellexport_queue_depth", "cellexport_queue_oldest_seconds", "cellexport_jobs_in_progress"] {
        system.eventually(name, || of(api, &format!("{name}{{kind=\"export\"}}")) == Some(0.0));
    }
    assert!(of(api, r#"cellexport_publishes_total{outcome="confirmed"}"#) >= Some(1.0));
    let accepted = r#"http_server_request_duration_seconds_count{route="/__export",method="POST",status="202"}"#;
    assert_eq!(of(api, accepted), Some(1.0));
    // Who does not exist does not make a series.
    let before = scrape(api).len();
    for n in 0..20 {
        let path = format!("/cell-with-a-name/{n}");
        system.request("GET", &path, &[], None);
        system.request(["GET", "BREW"][n % 2], &format!("/cell-with-a-name/__export/jobs/{n}"), &[], None);
    }
    assert!(scrape(api).len() < before + 80, "some buckets of few series");
    let known: BTreeSet<&str> = metrics::ALL.iter().map(|(name, ..)| *name).collect();
    for address in [api, worker] {
        for sample in scrape(address).keys() {
            assert!(!sample.contains("cell-with-a-name") && !sample.contains("waits"), "{sample}");
            let name = sample.split('{').next().expect("a name");
            let whole = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            assert!(known.contains(name) || known.contains(whole), "{name}");
        }
    }
}

fn text(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Names of metrics in a text.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let names = words.filter(|word| word.starts_with("cellexport_") || word.starts_with("http_server_"));
    let whole = |name: &str| {
        let ends = ["_bucket", "_sum", "_count"];
        ends.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name).to_owned()
    };
    names.map(whole).collect()
}

#[test]
fn rules_and_dashboard_speak_of_metrics_that_exist_and_the_guide_of_all() {
    let known: BTreeSet<String> = metrics::ALL.iter().map(|(name, ..)| (*name).to_owned()).collect();
    let (rules, dashboard) = (text("deploy/prometheus/alerts.yml"), text("deploy/grafana/cell-export.json"));
    let guide = text("docs/operations.md");
    for (file, names) in [("rules", named(&rules)), ("dashboard", named(&dashboard)), ("guide", named(&guide))] {
        let unknown: Vec<_> = names.difference(&known).collect();
        assert!(!names.is_empty() && unknown.is_empty(), "{file}: {unknown:?}");
    }
    assert_eq!(named(&guide), known, "the guide explains every metric");
    assert_eq!(named(&dashboard), known, "the dashboard shows every metric");
    serde_json::from_str::<serde_json::Value>(&dashboard).expect("JSON");
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 8);
    for alert in alerts {
        assert!(guide.contains(&format!("| {alert} |")), "the guide has a line for {alert}");
    }
}
