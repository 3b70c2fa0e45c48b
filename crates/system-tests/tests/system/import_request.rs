//! `POST` and `GET` of `{cell}__import` and `{cell}__import/dry-run`: what is refused at once, and what is told of it.
//! Nobody works here: what is accepted stays queued, and states are made by hand.

use std::io::{Cursor, Write};

use model::layout::{self, DocumentType};
use serde_json::{Value, json};
use system_tests::http::Answer;
use system_tests::system::{Options, System};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

const RESOURCES: [&str; 2] = ["__import", "__import/dry-run"];

fn outcome(answer: &Answer) -> (u16, String) {
    (answer.status, answer.code())
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

/// A snapshot of exactly these entries.
fn zipped(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, text) in entries {
        zip.start_file(*name, SimpleFileOptions::default()).unwrap();
        zip.write_all(text.as_bytes()).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// The entries a version 2 snapshot must have, but one; and its manifest.
fn snapshot_without(missing: &str, manifest: &str) -> Vec<u8> {
    let mut entries = vec![(layout::MANIFEST, manifest), (layout::CELL, "{}")];
    entries.extend(DocumentType::ALL.iter().map(|t| (t.entry(), "")));
    entries.retain(|(name, _)| *name != missing);
    zipped(&entries)
}

fn snapshot(manifest: &str) -> Vec<u8> {
    snapshot_without("", manifest)
}

const GOOD: &str = r#"{"export_version":2,"unit_url":"https://unit.example/","create_date":1}"#;

fn system() -> System {
    let system = System::start();
    system.make_cell("cell1");
    system
}

fn post(system: &System, resource: &str, body: &[u8]) -> Answer {
    system.request("POST", &format!("/cell1/{resource}"), &[], Some(body))
}

fn named(name: &str) -> Vec<u8> {
    format!(r#"{{"Name":"{name}"}}"#).into_bytes()
}

fn report(system: &System, resource: &str) -> Value {
    let answer = system.request("GET", &format!("/cell1/{resource}"), &[], None);
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")), "{}", answer.text());
    serde_json::from_slice(&answer.body).unwrap()
}

#[test]
fn every_kind_of_body_has_its_answer() {
    let system = system();
    let pattern = "Field [Name] format error. Must be [^[a-zA-Z0-9-_]{1,192}$].";
    let long = format!(r#"{{"Name":"{}"}}"#, "x".repeat(193));
    let required = "Required key [Name] missing.";
    for resource in RESOURCES {
        for (body, status, code, message) in [
            ("", 400, "PR400-CM-0004", "JSON parse error. []."),
            (" ", 400, "PR400-CM-0004", "JSON parse error. [ ]."),
            ("{", 400, "PR400-CM-0004", "JSON parse error. [{]."),
            ("{} x", 400, "PR400-CM-0004", "JSON parse error. [{} x]."),
            ("[]", 400, "PR400-CM-0004", "JSON parse error. [[]]."),
            ("null", 400, "PR400-CM-0004", "JSON parse error. [null]."),
            ("\"x\"", 400, "PR400-CM-0004", "JSON parse error. [\"x\"]."),
            ("{}", 400, "PR400-CM-0001", required),
            (r#"{"name":"x"}"#, 400, "PR400-CM-0001", required),
            (r#"{"Name":null}"#, 400, "PR400-CM-0001", required),
            (r#"{"Name":1}"#, 400, "PR400-CM-0002", pattern),
            (r#"{"Name":["x"]}"#, 400, "PR400-CM-0002", pattern),
            (r#"{"Name":""}"#, 400, "PR400-CM-0002", pattern),
            (r#"{"Name":"a.zip"}"#, 400, "PR400-CM-0002", pattern),
            (r#"{"Name":"../a"}"#, 400, "PR400-CM-0002", pattern),
            (&long, 400, "PR400-CM-0002", pattern),
            (r#"{"Name":"none"}"#, 404, "PR404-DV-0001", "Resource not found. [none.zip]."),
        ] {
            let answer = post(&system, resource, body.as_bytes());
            let case = format!("{resource} {body:?}");
            assert_eq!((outcome(&answer), answer.message()), (refused(status, code), message.to_owned()), "{case}");
        }
        let bodiless = system.request("POST", &format!("/cell1/{resource}"), &[], None);
        assert_eq!(
            (outcome(&bodiless), bodiless.message()),
            (refused(400, "PR400-CM-0004"), "JSON parse error. [].".into())
        );
        assert_eq!(outcome(&post(&system, resource, &[b' '; 5000])), refused(413, "PR413-EX-0001"));
        assert_eq!(system.anonymous("POST", &format!("/cell1/{resource}"), &[], None).status, 401);
        assert_eq!(report(&system, resource), json!({"status": "ready"}));
    }
    assert_eq!(system.value("SELECT count(*) FROM job"), "0");
}

#[test]
fn what_is_no_snapshot_is_refused_with_its_fault() {
    let system = system();
    let entry = |name: &str| format!("[{name}] does not exist in the snapshot file.");
    let version = |shown: &str| format!("Version of the snapshot file is invalid. Expected [2] but was [{shown}].");
    let no_zip = "The specified snapshot file is not zip file.".to_owned();
    let parse = |text: &str| format!("JSON parse error. [{text}].");
    let whole = snapshot(GOOD);
    let mut cases: Vec<(&str, Vec<u8>, &str, String)> = vec![
        ("an empty file", vec![], "PR400-MC-0004", no_zip.clone()),
        ("a text", b"hello".to_vec(), "PR400-MC-0004", no_zip.clone()),
        ("the first half", whole[..whole.len() / 2].to_vec(), "PR400-MC-0004", no_zip.clone()),
        (
            "the second half",
            whole[whole.len() / 2..].to_vec(),
            "PR400-EX-0001",
            "The snapshot file is faulty. [the central directory is not where the archive says].".into(),
        ),
        ("the end cut off", whole[..whole.len() - 1].to_vec(), "PR400-MC-0004", no_zip),
        ("no entries", zipped(&[]), "PR400-MC-0001", entry("00_manifest.json")),
        ("no manifest", snapshot_without(layout::MANIFEST, GOOD), "PR400-MC-0001", entry("00_manifest.json")),
        ("no cell", snapshot_without(layout::CELL, GOOD), "PR400-MC-0001", entry("10_odata/00_cell.json")),
        ("an empty manifest", snapshot(""), "PR400-CM-0004", parse("")),
        ("a manifest that is no JSON", snapshot("{x"), "PR400-CM-0004", parse("{x")),
        ("a manifest that is no object", snapshot("[2]"), "PR400-CM-0004", parse("[2]")),
        ("no version", snapshot("{}"), "PR400-MC-0003", version("null")),
        ("a newer version", snapshot(r#"{"export_version":3}"#), "PR400-MC-0003", version("3")),
        ("a large one", snapshot(r#"{"export_version":1000}"#), "PR400-MC-0003", version("1,000")),
        ("a text as version", snapshot(r#"{"export_version":"2"}"#), "PR400-MC-0003", version("\"2\"")),
        ("a fraction as version", snapshot(r#"{"export_version":2.0}"#), "PR400-MC-0003", version("2.0")),
        (
            "version 1 without its documents",
            snapshot(r#"{"export_version":1}"#),
            "PR400-MC-0001",
            entry(layout::DOCUMENTS_V1),
        ),
    ];
    for kind in DocumentType::ALL {
        cases.push((kind.entry(), snapshot_without(kind.entry(), GOOD), "PR400-MC-0001", entry(kind.entry())));
    }
    let long = format!("{{\"export_version\":2,\"x\":\"{}\"}}", "y".repeat(70_000));
    cases.push((
        "a manifest without end",
        snapshot(&long),
        "PR400-EX-0001",
        "The snapshot file is faulty. [the manifest is too long].".into(),
    ));
    for (case, bytes, code, message) in cases {
        assert!(system.put("cell1", "a.zip", &[], &bytes).status < 300, "anything may be put: {case}");
        for resource in RESOURCES {
            let answer = post(&system, resource, &named("a"));
            assert_eq!(
                (outcome(&answer), answer.message()),
                (refused(400, code), message.clone()),
                "{resource}: {case}"
            );
        }
    }
    assert_eq!(system.value("SELECT count(*) FROM job"), "0");
    // A listed snapshot whose bytes cannot be had is another matter.
    std::fs::remove_dir_all(system.area()).unwrap();
    for resource in RESOURCES {
        let answer = post(&system, resource, &named("a"));
        assert_eq!((outcome(&answer), answer.header("retry-after")), (refused(503, "PR503-DV-0001"), Some("5")));
    }
}

#[test]
fn an_import_is_accepted_and_keeps_the_cell_busy() {
    for (path_based, resource, kind, status) in [
        (true, "__import", "import", "importation in progress"),
        (true, "__import/dry-run", "dry-run", "dry run in progress"),
        (false, "__import", "import", "importation in progress"),
        (false, "__import/dry-run", "dry-run", "dry run in progress"),
    ] {
        let settings = vec![("PATH_BASED_CELL_URL", path_based.to_string())];
        let system = System::start_with(Options { settings, ..Options::default() });
        system.make_cell("cell1");
        let unit = format!("localhost:{}", system.address.port());
        let host = format!("cell1.{unit}");
        let (headers, cell) = match path_based {
            true => (vec![], format!("{unit}/cell1/")),
            false => (vec![("Host", host.as_str())], format!("{host}/")),
        };
        let path = if path_based { "/cell1/" } else { "/" };
        let send = |method: &str, resource: &str, body: Option<&[u8]>| {
            system.request(method, &format!("{path}{resource}"), &headers, body)
        };
        assert_eq!(send("PUT", "__snapshot/a.zip", Some(&snapshot(GOOD))).status, 201);
        let answer = send("POST", resource, Some(&named("a")));
        assert_eq!((answer.status, answer.body.len()), (202, 0), "{}", answer.text());
        assert_eq!(answer.header("location"), Some(format!("http://{cell}{resource}").as_str()));
        assert_eq!(answer.header("content-type"), None);
        let row = "SELECT kind || ' ' || name || ' ' || (source_key = (SELECT blob_key FROM snapshot_entry)) FROM job";
        assert_eq!(system.value(row), format!("{kind} a true"));

        let got: Value = serde_json::from_slice(&send("GET", resource, None).body).unwrap();
        assert_eq!(
            (&got["status"], &got["importation_name"], &got["progress"]),
            (&json!(status), &json!("a"), &json!("0%"))
        );
        let at = got["started_at"].as_str().unwrap();
        assert!(at.len() == 24 && at.ends_with('Z'), "{at}");
        assert_eq!(got.as_object().unwrap().len(), 4, "{got}");
        for other in ["__export", RESOURCES[usize::from(resource == RESOURCES[0])]] {
            assert_eq!(send("GET", other, None).text(), r#"{"status":"ready"}"#, "{resource} is not {other}");
        }
        let head = send("HEAD", resource, None);
        assert_eq!((head.status, head.body.len()), (200, 0));

        // Busy, whatever is asked for and whether it exists.
        for (again, body) in [
            ("__import", named("a")),
            ("__import", named("none")),
            ("__import/dry-run", named("a")),
            ("__export", vec![]),
        ] {
            let answer = send("POST", again, Some(&body));
            assert_eq!(outcome(&answer), refused(409, "PR409-CM-0002"), "{again} during {resource}");
            let busy = "Because [cell import] is being executed, writing to cell can not be done.";
            assert_eq!(answer.message(), busy);
        }
        assert_eq!(system.value("SELECT count(*) FROM job"), "1");
    }
}

#[test]
fn what_changes_after_the_look_is_not_imported() {
    for (change, status, code) in [
        ("UPDATE snapshot_entry SET blob_key = blob_key || 'x'", 409, "PR409-MC-0001"),
        ("DELETE FROM snapshot_entry", 409, "PR409-MC-0001"),
        ("DELETE FROM cell", 404, "PR404-DV-0003"),
    ] {
        let system = system();
        assert_eq!(system.put("cell1", "a.zip", &[], &snapshot(GOOD)).status, 201);
        // The last step waits for this lock; the look does not.
        let mut lock = system.block_on(system.pool().begin()).unwrap();
        system.block_on(sqlx::query("SELECT id FROM cell FOR UPDATE").execute(&mut *lock)).unwrap();
        let answer = std::thread::scope(|scope| {
            let asking = scope.spawn(|| post(&system, "__import", &named("a")));
            let waiting =
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
            system.eventually("the last step waits", || system.value(waiting) == "1");
            system.block_on(sqlx::query(change).execute(&mut *lock)).unwrap();
            system.block_on(lock.commit()).unwrap();
            asking.join().unwrap()
        });
        assert_eq!(outcome(&answer), refused(status, code), "{change}: {}", answer.text());
        assert_eq!(system.value("SELECT count(*) FROM job"), "0");
    }
}

#[test]
fn an_export_keeps_imports_out() {
    let system = system();
    assert_eq!(system.put("cell1", "a.zip", &[], &snapshot(GOOD)).status, 201);
    assert_eq!(system.post_export("cell1", "mine").status, 202);
    for resource in RESOURCES {
        let answer = post(&system, resource, &named("a"));
        assert_eq!(outcome(&answer), refused(409, "PR409-CM-0002"));
        assert_eq!(answer.message(), "Because [cell export] is being executed, writing to cell can not be done.");
        assert_eq!(report(&system, resource), json!({"status": "ready"}));
    }
}

#[test]
fn the_last_import_is_reported_until_the_next() {
    let system = system();
    assert_eq!(system.put("cell1", "a.zip", &[], &snapshot(GOOD)).status, 201);
    let error = json!({"code": "PR409-OD-0003", "message": {"lang": "en", "value": "The entity already exists."}});
    let run = "UPDATE job SET state = 'running', attempt = 1, lease_owner = 'me', lease_until = now() + interval '1 hour' WHERE state = 'queued'";
    for (resource, noun) in [("__import", "import"), ("__import/dry-run", "dry run")] {
        let in_progress = if noun == "import" { "importation in progress" } else { "dry run in progress" };
        assert_eq!(post(&system, resource, &named("a")).status, 202);
        system.execute(run);
        system.execute(
            "UPDATE job SET done_bytes = 30, total_bytes = 100, share = 0.3, percent = 30 WHERE state = 'running'",
        );
        let running = report(&system, resource);
        assert_eq!((&running["status"], &running["progress"]), (&json!(in_progress), &json!("30%")));
        for state in ["failed", "cancelled"] {
            let end = format!(
                "UPDATE job SET state = '{state}', finished_at = now(), lease_owner = NULL, lease_until = NULL, error = '{error}' WHERE state = 'running'"
            );
            system.execute(&end);
            let failed = report(&system, resource);
            assert_eq!((&failed["status"], &failed["message"]), (&json!(format!("{noun} failed")), &error), "{state}");
            assert_eq!((&failed["importation_name"], failed.get("result")), (&json!("a"), None));
            assert_eq!(system.status("cell1"), json!({"status": "ready"}));
            // Another one begins: the old failure is told no more.
            assert_eq!(post(&system, resource, &named("a")).status, 202);
            assert_eq!(report(&system, resource)["status"], in_progress);
            system.execute(run);
        }
        system.execute(
            "UPDATE job SET state = 'succeeded', finished_at = now(), lease_owner = NULL, lease_until = NULL,
                            result = '{\"importable\":true}' WHERE state = 'running'",
        );
        let done = report(&system, resource);
        if noun == "import" {
            assert_eq!(done, json!({"status": "ready"}));
        } else {
            assert_eq!((&done["status"], &done["progress"]), (&json!("dry run finished"), &json!("100%")));
            assert_eq!((&done["result"], done.get("message")), (&json!({"importable": true}), None));
            assert_eq!(report(&system, "__import"), json!({"status": "ready"}), "a dry run is no import");
        }
    }
}

#[test]
fn the_resources_have_their_methods() {
    let system = system();
    for resource in RESOURCES {
        let options = system.request("OPTIONS", &format!("/cell1/{resource}"), &[], None);
        assert_eq!((options.status, options.header("allow")), (200, Some("OPTIONS, GET, POST")));
        for method in ["PUT", "DELETE", "PROPFIND", "post"] {
            let answer = system.request(method, &format!("/cell1/{resource}"), &[], None);
            assert_eq!(outcome(&answer), refused(405, "PR405-MC-0001"), "{method} {resource}");
        }
    }
    for path in ["__import/dry-run/x", "__import/x", "__import/Dry-Run", "__import/dry-run%2f"] {
        let answer = system.request("GET", &format!("/cell1/{path}"), &[], None);
        assert_eq!(outcome(&answer), refused(404, "PR404-MC-0001"), "{path}");
    }
    assert_eq!(system.request("GET", "/cell1/__import/dry-run/", &[], None).status, 200);
}
