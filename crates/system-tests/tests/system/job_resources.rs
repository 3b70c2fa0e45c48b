//! `{cell}__export/jobs` and `{cell}__import/jobs`: what became of requests, waiting for it, ending it early, asking twice.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;
use system_tests::http::{self, Answer};
use system_tests::system::{Options, System, TOKEN, free_address};

/// Asks, and gives the path of the job that the answer links to.
fn ordered(system: &System, resource: &str, body: &str, headers: &[(&str, &str)]) -> (Answer, String) {
    let answer = system.request("POST", resource, headers, Some(body.as_bytes()));
    let job = monitor(&answer).unwrap_or_default();
    (answer, job)
}

/// Authority of the unit.
fn host(system: &System) -> String {
    format!("localhost:{}", system.address.port())
}

/// The path in `Link: <URL>; rel="monitor"`.
fn monitor(answer: &Answer) -> Option<String> {
    let url = answer.header("link")?.strip_prefix('<')?.strip_suffix(">; rel=\"monitor\"")?;
    Some(format!("/{}", url.splitn(4, '/').nth(3)?))
}

fn json(answer: &Answer) -> Value {
    assert_eq!(answer.header("content-type"), Some("application/json"), "{}", answer.text());
    serde_json::from_slice(&answer.body).expect("JSON")
}

/// The job now, or when its state changes.
fn job(system: &System, path: &str, wait: Option<u32>) -> Value {
    let prefer = format!("wait={}", wait.unwrap_or(0));
    let answer = system.request("GET", path, &[("Prefer", &prefer)], None);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("preference-applied"), wait.map(|_| prefer.as_str()));
    json(&answer)
}

fn ended(system: &System, path: &str) -> Value {
    loop {
        let job = job(system, path, Some(30));
        if job["finished_at"].is_string() {
            return job;
        }
    }
}

#[test]
fn a_job_is_told_from_its_acceptance_to_its_end() {
    let mut system = System::start();
    let file = system.sample_cell("cell1", &[]);
    let (answer, path) = ordered(&system, "/cell1/__export", r#"{"Name":"one"}"#, &[]);
    assert_eq!((answer.status, answer.body.len()), (202, 0));
    assert_eq!(answer.header("retry-after"), Some("1"));
    let own = format!("http://{}/{}", host(&system), path.trim_start_matches('/'));
    let queued = job(&system, &path, None);
    for (member, expected) in [
        ("self", Value::from(own.clone())),
        ("events", format!("{own}/events").into()),
        ("kind", "export".into()),
        ("name", "one".into()),
        ("state", "queued".into()),
        ("attempt", 0.into()),
        ("queue_position", 1.into()),
        ("percent", 0.into()),
        ("cancel_requested", false.into()),
        ("started_at", Value::Null),
        ("file", Value::Null),
        ("sha256", Value::Null),
        ("error", Value::Null),
    ] {
        assert_eq!(queued[member], expected, "{member}");
    }
    let _worker = system.worker();
    let done = ended(&system, &path);
    assert_eq!((&done["state"], &done["percent"], &done["attempt"]), (&"succeeded".into(), &100.into(), &1.into()));
    assert_eq!(done["queue_position"], Value::Null);
    assert_eq!(done["documents"]["done"], done["documents"]["total"]);
    assert!(done["documents"]["done"].as_u64() > Some(10) && done["bytes"]["done"].as_u64() > Some(1000), "{done}");
    assert_eq!(done["file"], format!("http://{}/cell1/__snapshot/one.zip", host(&system)));
    let head = system.request("HEAD", "/cell1/__snapshot/one.zip", &[], None);
    assert_eq!(head.header("content-length"), Some(done["size"].to_string().as_str()));
    assert_eq!(head.header("repr-digest"), Some(digest(done["sha256"].as_str().expect("hex")).as_str()));

    // A job of one kind is no job of another, nor of another cell.
    let other = |from: &str, to: &str| system.request("GET", &path.replace(from, to), &[], None);
    system.load("cell2", &file, &["--cell-id", "another-cell"]);
    for (from, to) in [("__export", "__import"), ("cell1", "cell2"), ("jobs/", "jobs/x"), ("jobs/", "jobs/%00")] {
        let answer = other(from, to);
        assert_eq!((answer.status, answer.code().as_str()), (404, "PR404-EX-0001"), "{to}");
    }
    let upper = path.rsplit_once('/').map(|(start, id)| format!("{start}/{}", id.to_uppercase())).expect("a path");
    assert_eq!(system.request("GET", &upper, &[], None).status, 404, "one URL for one job");
    assert_eq!(http::request(system.address, "GET", &path, &[], None).expect("an answer").status, 401);

    // What is removed is not linked to any more.
    assert_eq!(system.request("DELETE", "/cell1/__snapshot/one.zip", &[], None).status, 204);
    let later = job(&system, &path, None);
    assert_eq!((&later["file"], &later["sha256"]), (&Value::Null, &done["sha256"]));
}

fn digest(hexadecimal: &str) -> String {
    use base64::Engine;
    let bytes: Vec<u8> =
        (0..32).map(|n| u8::from_str_radix(&hexadecimal[2 * n..2 * n + 2], 16).expect("hex")).collect();
    format!("sha-256=:{}:", base64::engine::general_purpose::STANDARD.encode(bytes))
}

#[test]
fn jobs_are_listed_newest_first_page_by_page() {
    let mut system = System::start();
    system.sample_cell("cell1", &[]);
    let _worker = system.worker();
    for n in 0..5 {
        let (answer, path) = ordered(&system, "/cell1/__export", &format!(r#"{{"Name":"n{n}"}}"#), &[]);
        assert_eq!(answer.status, 202);
        ended(&system, &path);
    }
    let (answer, path) = ordered(&system, "/cell1/__import/dry-run", r#"{"Name":"n0"}"#, &[]);
    assert_eq!(answer.status, 202, "{}", answer.text());
    let dry_run = ended(&system, &path);
    assert_eq!((&dry_run["kind"], &dry_run["state"]), (&"dry-run".into(), &"succeeded".into()));
    assert_eq!(dry_run["result"]["importable"], true, "{dry_run}");
    assert_eq!(dry_run["percent"], 100);
    let mut page = "/cell1/__export/jobs?limit=2".to_owned();
    let mut names = Vec::new();
    for expected in [2, 2, 1] {
        let answer = system.request("GET", &page, &[], None);
        let list = json(&answer);
        let jobs = list["jobs"].as_array().expect("jobs");
        assert_eq!(jobs.len(), expected);
        names.extend(jobs.iter().map(|job| job["name"].as_str().expect("a name").to_owned()));
        match list["next"].as_str() {
            Some(next) => {
                assert_eq!(answer.header("link"), Some(format!("<{next}>; rel=\"next\"").as_str()));
                page = format!("/{}", next.splitn(4, '/').nth(3).expect("a path"));
            }
            None => assert_eq!((expected, answer.header("link")), (1, None)),
        }
    }
    assert_eq!(names, ["n4", "n3", "n2", "n1", "n0"]);
    let imports = json(&system.request("GET", "/cell1/__import/jobs", &[], None));
    assert_eq!(imports["jobs"].as_array().map(Vec::len), Some(1));
    for wrong in ["limit=0", "limit=101", "limit=x", "after=x"] {
        let answer = system.request("GET", &format!("/cell1/__export/jobs?{wrong}"), &[], None);
        assert_eq!((answer.status, answer.code().as_str()), (400, "PR400-OD-0029"), "{wrong}");
    }
}

#[test]
fn a_wait_ends_when_the_state_changes_and_not_before() {
    let internal = free_address();
    let settings = vec![("INTERNAL_LISTEN", internal.to_string())];
    let system = System::start_with(Options { settings, ..Options::default() });
    system.sample_cell("cell1", &[]);
    let (_, path) = ordered(&system, "/cell1/__export", r#"{"Name":"one"}"#, &[]);
    // Nobody works: the time passes.
    let begun = Instant::now();
    assert_eq!(job(&system, &path, Some(1))["state"], "queued");
    assert!(begun.elapsed() >= Duration::from_secs(1));
    let waiting = |path: &'static str| {
        let address = system.address;
        std::thread::spawn(move || {
            let authorization = format!("Bearer {TOKEN}");
            let headers = [("Authorization", authorization.as_str()), ("Prefer", "wait=50")];
            let answer = http::request(address, "GET", path, &headers, None).expect("an answer");
            (answer, Instant::now())
        })
    };
    let status = waiting("/cell1/__export");
    let leaked: &'static str = path.clone().leak();
    let many: Vec<_> = (0..20).map(|_| waiting(leaked)).collect();
    system.eventually("all wait", || {
        let metrics = http::request(internal, "GET", "/metrics", &[], None).expect("an answer").text();
        metrics.lines().any(|line| line == "cellexport_waiting_clients 21")
    });
    let cancelled = Instant::now();
    assert_eq!(system.request("DELETE", &path, &[], None).status, 204);
    for (answer, at) in many.into_iter().map(|one| one.join().expect("no panic")) {
        assert_eq!(json(&answer)["state"], "cancelled");
        assert_eq!(answer.header("preference-applied"), Some("wait=50"));
        assert!(at.duration_since(cancelled) < Duration::from_secs(5), "told at once, not by and by");
    }
    let (answer, _) = status.join().expect("no panic");
    assert_eq!(
        (json(&answer)["status"].clone(), answer.header("preference-applied")),
        ("ready".into(), Some("wait=50"))
    );
    // With nothing to wait for, and what cannot be meant.
    for prefer in ["wait=50", "wait=x", "respond-async"] {
        let answer = system.request("GET", "/cell1/__export", &[("Prefer", prefer)], None);
        assert_eq!((answer.status, answer.header("preference-applied")), (200, None), "{prefer}");
    }
}

#[test]
fn a_request_that_waits_is_answered_with_the_end() {
    let mut system = System::start();
    system.sample_cell("cell1", &[]);
    let (answer, path) = ordered(&system, "/cell1/__export", r#"{"Name":"one"}"#, &[("Prefer", "wait=1")]);
    assert_eq!((answer.status, answer.body.len()), (202, 0), "nobody works");
    assert_eq!(answer.header("preference-applied"), Some("wait=1"));
    assert_eq!(system.request("DELETE", &path, &[], None).status, 204);
    let _worker = system.worker();
    for (resource, name) in [("__export", "two"), ("__import/dry-run", "two"), ("__import", "two")] {
        let body = format!(r#"{{"Name":"{name}"}}"#);
        let (answer, path) = ordered(&system, &format!("/cell1/{resource}"), &body, &[("Prefer", "wait=60")]);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let done = json(&answer);
        assert_eq!((&done["state"], &done["percent"]), (&"succeeded".into(), &100.into()), "{resource}");
        assert!(done["self"].as_str().is_some_and(|own| own.ends_with(&path)), "{path}");
    }
}

#[test]
fn cancelling_says_what_it_did() {
    let mut system = System::start();
    system.sample_cell("cell1", &[]);
    let (_, path) = ordered(&system, "/cell1/__export", r#"{"Name":"one"}"#, &[]);
    let cancel = || system.request("DELETE", &path, &[], None);
    assert_eq!(cancel().status, 204);
    assert_eq!(cancel().status, 204, "it is cancelled, as wanted");
    let done = job(&system, &path, None);
    assert_eq!((&done["state"], &done["error"]["code"]), (&"cancelled".into(), &"PR409-EX-0001".into()));
    assert!(done["file"].as_str().is_some_and(|file| file.ends_with("/cell1/__snapshot/one.error")), "{done}");
    let _worker = system.worker();
    let (_, path) = ordered(&system, "/cell1/__export", r#"{"Name":"two"}"#, &[]);
    assert_eq!(ended(&system, &path)["state"], "succeeded");
    let answer = system.request("DELETE", &path, &[], None);
    assert_eq!((answer.status, answer.code().as_str()), (409, "PR409-EX-0002"));
    assert_eq!(answer.message(), "The job has succeeded and cannot be cancelled any more.");
    assert_eq!(system.request("DELETE", &path.replace("__export", "__import"), &[], None).status, 404);
}

/// An event: name, id, data.
type Event = (String, u64, Value);

/// Reads events from a stream.
fn events(system: &System, path: &str, last: Option<&str>) -> (u16, Box<dyn Iterator<Item = Event>>) {
    let authorization = format!("Bearer {TOKEN}");
    let mut headers = vec![("Authorization", authorization.as_str())];
    headers.extend(last.map(|last| ("Last-Event-ID", last)));
    let stream: TcpStream =
        http::begin(system.address, "GET", &format!("{path}/events"), &headers, None).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    let mut lines = BufReader::new(stream).lines().map(|line| line.expect("readable"));
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("a status line");
    // Chunk lengths, blank lines and comments are none of these.
    let fields = lines.filter_map(|line| {
        let (name, value) = line.split_once(": ")?;
        ["event", "id", "data"].contains(&name).then(|| value.to_owned())
    });
    let mut fields = fields.fuse();
    let events = std::iter::from_fn(move || {
        let (event, id, data) = (fields.next()?, fields.next()?, fields.next()?);
        Some((event, id.parse().expect("a number"), serde_json::from_str(&data).expect("JSON")))
    });
    (status, Box::new(events))
}

#[test]
fn events_tell_everything_until_the_end_and_go_on_where_they_broke() {
    let mut system = System::start();
    system.sample_cell("cell1", &[]);
    let (_, path) = ordered(&system, "/cell1/__export", r#"{"Name":"one"}"#, &[]);
    let (status, mut told) = events(&system, &path, None);
    assert_eq!(status, 200);
    let (name, first, job) = told.next().expect("at once");
    assert_eq!((name.as_str(), &job["state"]), ("progress", &"queued".into()));
    let _worker = system.worker();
    let rest: Vec<_> = told.collect();
    let mut before = first;
    for (name, id, job) in &rest {
        assert!(*id > before, "ids grow");
        before = *id;
        assert_eq!(name == "end", job["finished_at"].is_string());
    }
    let (name, last, job) = rest.last().expect("there was an end");
    assert_eq!((name.as_str(), &job["state"], &job["percent"]), ("end", &"succeeded".into(), &100.into()));
    assert!(rest.iter().any(|(_, _, job)| job["state"] == "running"), "{rest:?}");
    let (status, mut again) = events(&system, &path, Some(&first.to_string()));
    let (name, id, _) = again.next().expect("what is new");
    assert_eq!((status, name.as_str(), id), (200, "end", *last));
    assert!(again.next().is_none(), "the stream ends");
    assert_eq!(events(&system, &path, Some(&last.to_string())).0, 204, "nothing is left to tell");
}

#[test]
fn a_key_names_one_request() {
    let mut system = System::start();
    system.sample_cell("cell1", &[]);
    system.make_cell("cell2");
    let key = [("Idempotency-Key", "\"first\"")];
    let body = r#"{"Name":"one"}"#;
    let (answer, job) = ordered(&system, "/cell1/__export", body, &key);
    assert_eq!(answer.status, 202);
    for headers in [&key[..], &[("Idempotency-Key", "first")]] {
        let (again, same) = ordered(&system, "/cell1/__export", body, headers);
        assert_eq!((again.status, &same), (202, &job), "while it is active");
        assert_eq!(again.header("location"), answer.header("location"));
    }
    let _worker = system.worker();
    ended(&system, &job);
    let (again, same) = ordered(&system, "/cell1/__export", body, &key);
    assert_eq!((again.status, &same), (202, &job), "and for ever");
    for (resource, body) in
        [("/cell1/__export", r#"{"Name":"two"}"#), ("/cell1/__export", ""), ("/cell1/__import", r#"{"Name":"one"}"#)]
    {
        let (answer, _) = ordered(&system, resource, body, &key);
        assert_eq!((answer.status, answer.code().as_str()), (422, "PR422-EX-0001"), "{resource} {body}");
    }
    // Without a name each request would get one of its own.
    let unnamed = [("Idempotency-Key", "unnamed")];
    let (first, job) = ordered(&system, "/cell1/__export", "", &unnamed);
    assert_eq!((first.status, ordered(&system, "/cell1/__export", "", &unnamed).1), (202, job));
    // Of another cell it is another one.
    assert_eq!(ordered(&system, "/cell2/__export", body, &key).0.status, 202);
    let long = "x".repeat(256);
    for wrong in ["", "\"\"", &long, "caf\u{e9}"] {
        let (answer, _) = ordered(&system, "/cell1/__export", body, &[("Idempotency-Key", wrong)]);
        assert_eq!((answer.status, answer.code().as_str()), (400, "PR400-OD-0041"), "{wrong}");
    }
}

#[test]
fn of_the_same_request_at_the_same_moment_one_is_accepted_and_all_are_answered() {
    let system = System::start();
    system.sample_cell("cell1", &[]);
    let address = system.address;
    let asking: Vec<_> = (0..16)
        .map(|_| {
            std::thread::spawn(move || {
                let authorization = format!("Bearer {TOKEN}");
                let headers = [("Authorization", authorization.as_str()), ("Idempotency-Key", "\"k\"")];
                http::request(address, "POST", "/cell1/__export", &headers, Some(br#"{"Name":"n"}"#))
                    .expect("an answer")
            })
        })
        .collect();
    let answers: Vec<_> = asking.into_iter().map(|one| one.join().expect("no panic")).collect();
    let first = monitor(&answers[0]);
    for answer in &answers {
        assert_eq!((answer.status, monitor(answer)), (202, first.clone()), "{}", answer.text());
    }
    assert_eq!(system.value("SELECT count(*) FROM job"), "1");
}

#[test]
fn problems_are_for_those_who_ask() {
    let system = System::start();
    system.make_cell("cell1");
    let ask = |accept: &str| system.request("GET", "/cell1/__snapshot/none.zip", &[("Accept", accept)], None);
    for accept in ["*/*", "application/json", "application/*", "text/html, application/problem+xml"] {
        let answer = ask(accept);
        assert_eq!((answer.status, answer.code().as_str()), (404, "PR404-DV-0001"), "{accept}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
    let answer = ask("application/json;q=0.5, application/problem+json");
    assert_eq!((answer.status, answer.header("content-type")), (404, Some("application/problem+json")));
    let problem: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(problem["type"], format!("http://{}/openapi.html#PR404-DV-0001", host(&system)));
    assert_eq!(
        (&problem["title"], &problem["status"], &problem["code"]),
        (&"Not Found".into(), &404.into(), &"PR404-DV-0001".into())
    );
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("none.zip")), "{problem}");
}

#[test]
fn a_service_that_ends_answers_those_who_wait() {
    let mut system = System::start();
    system.sample_cell("cell1", &[]);
    let (_, path) = ordered(&system, "/cell1/__export", r#"{"Name":"one"}"#, &[]);
    let address = system.address;
    let waited = path.clone();
    let waiting = std::thread::spawn(move || {
        let authorization = format!("Bearer {TOKEN}");
        let headers = [("Authorization", authorization.as_str()), ("Prefer", "wait=60")];
        http::request(address, "GET", &waited, &headers, None).expect("an answer")
    });
    let (_, mut told) = events(&system, &path, None);
    told.next().expect("the first event");
    std::thread::sleep(Duration::from_millis(300));
    let begun = Instant::now();
    system.api().signal("TERM");
    assert_eq!(system.wait_for_api(Duration::from_secs(20)), Some(0));
    assert_eq!(json(&waiting.join().expect("no panic"))["state"], "queued");
    assert!(told.next().is_none());
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}
