//! What the services tell operators: traces from the request to the attempt, and a log in which one job is a short story.

use std::time::{Duration, Instant};

use serde_json::Value;
use system_tests::process::Process;
use system_tests::secrets;
use system_tests::system::{Options, System, eventually, free_address};

use crate::collector::{Collector, Span};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const ASKING: &str = "00f067aa0ba902b7";
/// What a collector's credentials look like; it may stand in no span and no log.
const PASS: &str = "marker-collector-pass-x7Qd";

fn traceparent() -> String {
    format!("00-{TRACE}-{ASKING}-01")
}

/// An installation whose services send spans.
fn traced(collector: &Collector, more: &[(&'static str, &str)]) -> System {
    secrets::remember_secret(PASS);
    let mut settings = vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url()),
        ("OTEL_EXPORTER_OTLP_HEADERS", format!("authorization=Bearer%20{PASS}")),
    ];
    settings.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
    System::start_with(Options { settings, ..Options::default() })
}

/// Asks for an export within our trace.
fn post(system: &System, name: &str, headers: &[(&str, &str)]) -> u16 {
    let body = format!(r#"{{"Name":"{name}"}}"#);
    system.request("POST", "/cell1/__export", headers, Some(body.as_bytes())).status
}

/// Waits for spans, by name.
fn spans_called(collector: &Collector, name: &str, count: usize) -> Vec<Span> {
    let of = || collector.spans().into_iter().filter(|span| span.name == name).collect::<Vec<_>>();
    eventually(&format!("{count} spans {name} arrive"), || of().len() >= count);
    of()
}

/// The lines of a log, which are JSON.
fn lines(log: &str) -> Vec<Value> {
    log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"))).collect()
}

/// Waits until a service has said something, and returns that line of its log.
fn said(service: &Process, message: &str) -> Value {
    let line = || lines(&service.log()).into_iter().find(|line| line["message"] == message);
    eventually(message, || line().is_some());
    line().unwrap()
}

fn is_failure(line: &Value) -> bool {
    matches!(line["level"].as_str(), Some("WARN" | "ERROR"))
}

#[test]
fn a_trace_goes_through_the_request_the_row_the_message_and_the_attempt() {
    let collector = Collector::start();
    let mut system = traced(&collector, &[("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")]);
    system.sample_cell("cell1", &[]);
    let (parent, key) = (traceparent(), "key_of-the-client");
    let headers = [("traceparent", parent.as_str()), ("tracestate", "vendor=a1"), ("X-Personium-RequestKey", key)];
    assert_eq!(post(&system, "one", &headers), 202);

    let request = spans_called(&collector, "POST /__export", 1).remove(0);
    assert_eq!((request.service.as_str(), request.kind), ("cellexport-api", 2));
    assert_eq!((request.trace.as_str(), request.parent.as_str()), (TRACE, ASKING));
    assert_eq!((request.state.as_str(), request.error), ("vendor=a1", None));
    for (name, value) in [
        ("http.request.method", "POST"),
        ("http.route", "/__export"),
        ("http.response.status_code", "202"),
        ("url.path", "/cell1/__export"),
        ("personium.request_key", key),
    ] {
        assert_eq!(request.attributes[name], value, "{name}");
    }

    let carried = format!("00-{TRACE}-{}-01", request.id);
    assert_eq!(system.value("SELECT traceparent || ' ' || tracestate FROM job"), format!("{carried} vendor=a1"));
    let broker = system.broker();
    let expected = [("traceparent".to_owned(), carried.clone()), ("tracestate".to_owned(), "vendor=a1".to_owned())];
    for relayed in [false, true] {
        if relayed {
            system.execute("UPDATE job SET dispatch_at = clock_timestamp()");
        }
        let mut message = None;
        system.eventually("the doorbell waits", || {
            message = system.block_on(broker.take());
            message.is_some()
        });
        let (_, headers) = message.unwrap();
        assert_eq!(headers, expected, "relayed: {relayed}");
    }

    let worker = system.worker();
    system.wait_ready("cell1");
    let attempt = spans_called(&collector, "export", 1).remove(0);
    assert_eq!((attempt.service.as_str(), attempt.kind), ("cellexport-worker", 5));
    assert_eq!((attempt.trace.as_str(), attempt.parent), (TRACE, request.id));
    assert_eq!((attempt.attributes["attempt"].as_str(), attempt.error), ("1", None));
    assert_eq!((attempt.attributes["cell.name"].as_str(), attempt.state.as_str()), ("cell1", "vendor=a1"));
    assert_eq!(attempt.attributes["job.state"], "succeeded");
    for phase in ["open view", "read documents", "read contents", "finish snapshot", "publish"] {
        let phase = spans_called(&collector, phase, 1).remove(0);
        assert_eq!((&phase.trace, &phase.parent, phase.error), (&attempt.trace, &attempt.id, None), "{}", phase.name);
    }
    let ends = said(&worker, "job ends");
    assert_eq!(ends["span"]["trace.id"], TRACE, "log and trace can be joined");

    for (head, body) in collector.sent() {
        assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
        assert!(head.contains(&format!("authorization: Bearer {PASS}")), "{head}");
        secrets::search("a span", &body);
        let text = String::from_utf8_lossy(&body).into_owned();
        assert!(text.contains("deployment.environment.name"), "the resource says where it is");
    }
}

#[test]
fn every_kind_of_job_and_every_attempt_is_a_span_of_the_trace() {
    let collector = Collector::start();
    let mut system = traced(&collector, &[("JOB_MAX_STRIKES", "2"), ("OTEL_SERVICE_NAME", "one-name")]);
    system.sample_cell("cell1", &[]);
    let _worker = system.worker();
    system.export("cell1", "one");
    let parent = traceparent();
    for resource in ["__import/dry-run", "__import"] {
        let target = format!("/cell1/{resource}");
        let answer = system.request("POST", &target, &[("traceparent", &parent)], Some(br#"{"Name":"one"}"#));
        assert_eq!(answer.status, 202, "{}", answer.text());
        let active = "SELECT count(*) FROM job WHERE state IN ('queued', 'running')";
        system.eventually("it ends", || system.value(active) == "0");
    }
    for (name, phases) in [
        ("dry-run", ["open snapshot", "read", "compare", "publish"]),
        ("import", ["open snapshot", "read and store", "put targets before users", "swap contents"]),
    ] {
        let attempt = spans_called(&collector, name, 1).remove(0);
        assert_eq!((attempt.trace.as_str(), attempt.service.as_str()), (TRACE, "one-name"));
        for phase in phases {
            eventually(phase, || collector.spans().iter().any(|s| s.name == phase && s.parent == attempt.id));
        }
    }
    std::fs::remove_dir_all(system.blobs()).unwrap();
    assert_eq!(post(&system, "two", &[("traceparent", &parent)]), 202);
    system.eventually("it is given up", || {
        system.execute("UPDATE job SET available_at = clock_timestamp() WHERE state = 'queued'");
        system.value("SELECT state FROM job WHERE name = 'two' AND kind = 'export'") == "failed"
    });
    eventually("both attempts arrive", || failed(&collector).len() == 2);
    let failed = failed(&collector);
    let numbers: Vec<_> = failed.iter().map(|span| span.attributes["attempt"].as_str()).collect();
    assert_eq!(numbers, ["1", "2"]);
    for span in &failed {
        assert_eq!((&span.trace, &span.parent), (&failed[0].trace, &failed[0].parent));
        assert!(span.error.as_ref().unwrap().contains("No such file"), "with its causes: {span:?}");
    }
    assert_eq!(failed[0].trace, TRACE);
}

fn failed(collector: &Collector) -> Vec<Span> {
    collector.spans().into_iter().filter(|span| span.name == "export" && span.error.is_some()).collect()
}

#[test]
fn of_own_traces_a_share_is_sent_and_of_others_what_they_say() {
    let collector = Collector::start();
    let system = traced(&collector, &[("OTEL_TRACES_SAMPLER_ARG", "0")]);
    let ask = |headers: &[(&str, &str)]| system.request("GET", "/__ctl/Cell", headers, None).status;
    for malformed in ["00-1-2-01", "", "nonsense", &traceparent().to_uppercase()] {
        assert_eq!(ask(&[("traceparent", malformed)]), 200, "{malformed}");
    }
    assert_eq!(ask(&[]), 200);
    assert_eq!(ask(&[("traceparent", &traceparent().replace("-01", "-00"))]), 200);
    assert_eq!(ask(&[("traceparent", &traceparent())]), 200);
    let request = spans_called(&collector, "GET /__ctl", 1).remove(0);
    assert_eq!(request.trace, TRACE);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(collector.spans().len(), 1, "{:?}", collector.spans());
}

#[test]
fn without_a_collector_the_trace_is_passed_on_all_the_same() {
    let mut system = System::start();
    system.sample_cell("cell1", &[]);
    let worker = system.worker();
    assert_eq!(post(&system, "one", &[("traceparent", &traceparent())]), 202);
    system.wait_ready("cell1");
    assert_eq!(system.value("SELECT traceparent FROM job"), traceparent());
    let accepted = said(system.api(), "export accepted");
    let ends = said(&worker, "job ends");
    assert_eq!((&accepted["span"]["trace.id"], &ends["span"]["trace.id"]), (&TRACE.into(), &TRACE.into()));
    system.export("cell1", "two");
    assert_eq!(system.value("SELECT traceparent FROM job WHERE name = 'two'"), "", "nobody traces it");
}

#[test]
fn a_collector_that_hangs_or_is_away_changes_nothing() {
    let collector = Collector::hanging();
    let mut system = traced(&collector, &[]);
    system.sample_cell("cell1", &[]);
    let away = format!("http://{}", free_address());
    let mut workers = [system.worker(), system.worker_with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &away)])];
    let complaints = |log: &str| log.matches("traces are not taken").count();
    let logs = |system: &System, workers: &[Process]| {
        let of_workers = workers.iter().map(Process::log);
        of_workers.chain([system.api().log()]).collect::<Vec<_>>()
    };
    let mut number = 0;
    let mut export = |system: &System| {
        number += 1;
        let begun = Instant::now();
        assert_eq!(post(system, &format!("n{number}"), &[("Prefer", "wait=60")]), 200);
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    };
    system.eventually("everybody complains", || {
        export(&system);
        logs(&system, &workers).iter().all(|log| complaints(log) > 0)
    });
    let until = Instant::now() + Duration::from_secs(7);
    while Instant::now() < until {
        export(&system);
    }
    for log in logs(&system, &workers) {
        assert_eq!(complaints(&log), 1, "{log}");
    }
    for worker in &mut workers {
        worker.signal("TERM");
        assert_eq!(worker.wait(Duration::from_secs(10)), Some(0), "{}", worker.log());
    }
    system.api().signal("TERM");
    assert_eq!(system.wait_for_api(Duration::from_secs(10)), Some(0));
}

#[test]
fn what_is_left_is_sent_when_a_service_ends() {
    let collector = Collector::start();
    let mut system = traced(&collector, &[]);
    system.sample_cell("cell1", &[]);
    let mut worker = system.worker();
    assert_eq!(post(&system, "one", &[("Prefer", "wait=60")]), 200);
    worker.signal("TERM");
    system.api().signal("TERM");
    assert_eq!(worker.wait(Duration::from_secs(10)), Some(0));
    assert_eq!(system.wait_for_api(Duration::from_secs(10)), Some(0));
    let names: Vec<_> = collector.spans().into_iter().map(|span| span.name).collect();
    assert!(["export", "POST /__export"].iter().all(|name| names.iter().any(|n| n == name)), "{names:?}");
}

#[test]
fn the_story_of_a_job_has_less_than_ten_lines() {
    let mut system = System::start();
    system.sample_cell("cell1", &[]);
    let worker = system.worker_with(&[("JOB_HEARTBEAT_SECS", "0.05")]);
    let broker = system.broker();
    system.eventually("the slot listens", || system.block_on(broker.waiting()).1 == 1);
    system.eventually("the publishers are there", || {
        [worker.log(), system.api().log()].iter().all(|log| log.contains("connected to the broker"))
    });
    let told = || [lines(&system.api().log()), lines(&worker.log())].concat();
    for number in 0..20 {
        let before = told().len();
        assert_eq!(post(&system, &format!("n{number}"), &[("Prefer", "wait=60")]), 200);
        system.eventually("it is told", || worker.log().matches("job ends").count() == number + 1);
        let (all, api) = (told(), lines(&system.api().log()).len());
        let count = all.len() - before;
        assert!((4..10).contains(&count), "{count} lines: {all:#?}");
        assert!(!all.iter().any(is_failure), "nothing failed: {all:#?}");
        assert!(api > 0);
    }
}

#[test]
fn a_failure_is_told_once_with_its_causes() {
    let mut system = System::start();
    system.sample_cell("cell1", &[]);
    let worker = system.worker();
    let broker = system.broker();
    system.eventually("the slot listens", || system.block_on(broker.waiting()).1 == 1);
    let told = |name: &str| {
        let all = [lines(&system.api().log()), lines(&worker.log())].concat();
        all.into_iter().filter(|line| line["span"]["snapshot.name"] == name || line["snapshot.name"] == name).collect()
    };
    for (number, (name, breaks, attempts, cause)) in [
        ("metadata", "UPDATE node SET pmeta = '{' WHERE path <> ''", 1, ": unreadable .pmeta: EOF while parsing"),
        ("contents", "UPDATE node SET pmeta = '{\"u\":1}'", 4, "No such file or directory"),
    ]
    .into_iter()
    .enumerate()
    {
        system.execute(breaks);
        if name == "contents" {
            std::fs::remove_dir_all(system.blobs()).unwrap();
        }
        assert_eq!(post(&system, name, &[]), 202);
        system.eventually("it fails for good", || {
            system.execute("UPDATE job SET available_at = clock_timestamp() WHERE state = 'queued'");
            system.value(&format!("SELECT state FROM job WHERE name = '{name}'")) == "failed"
        });
        system.eventually("it is told", || worker.log().matches(r#""state":"failed""#).count() == number + 1);
        let story: Vec<Value> = told(name);
        // "answered" names no job.
        assert!(story.len() + 1 < 10, "{story:#?}");
        let failures: Vec<_> = story.iter().filter(|line| is_failure(line)).collect();
        assert_eq!(failures.len(), attempts, "one for each attempt: {story:#?}");
        for failure in failures {
            assert_eq!(failure["message"], "attempt failed");
            assert!(failure["error"].as_str().unwrap().contains(cause), "{failure}");
        }
    }
}

#[test]
fn the_log_can_be_text() {
    let settings = vec![("LOG_FORMAT", "text".to_owned())];
    let mut system = System::start_with(Options { settings, ..Options::default() });
    system.sample_cell("cell1", &[]);
    let worker = system.worker();
    system.export("cell1", "one");
    system.eventually("it is told", || worker.log().contains("job ends"));
    for log in [worker.log(), system.api().log()] {
        assert!(log.contains(" INFO "), "{log}");
        assert!(log.lines().all(|line| serde_json::from_str::<Value>(line).is_err()), "{log}");
    }
}
