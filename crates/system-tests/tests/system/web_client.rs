//! The sequence of requests that Personium's web client makes, header by header, and what it needs of each answer. It was
//! written long ago, asks across origins, and knows of nothing that came since.

use system_tests::http::Answer;
use system_tests::system::System;

const ORIGIN: &str = "https://app.example";

/// What every answer to it has, whatever it asked.
const ALWAYS: [&str; 7] = [
    "access-control-allow-credentials",
    "access-control-allow-origin",
    "access-control-expose-headers",
    "access-control-max-age",
    "content-length",
    "date",
    "x-personium-version",
];

/// A request as the client's library makes it. The answer has exactly these headers, and the ones that all have.
fn ask(
    system: &System,
    (method, target): (&str, &str),
    headers: &[(&str, &str)],
    body: Option<&str>,
    status: u16,
    answered: &[&str],
) -> Answer {
    let headers = [&[("Origin", ORIGIN)], headers].concat();
    let answer = system.request(method, target, &headers, body.map(str::as_bytes));
    assert_eq!(answer.status, status, "{method} {target}: {}", answer.text());
    let mut expected: Vec<&str> = ALWAYS.into_iter().chain(answered.iter().copied()).collect();
    expected.sort_unstable();
    if status == 204 {
        expected.retain(|name| *name != "content-length");
    }
    let mut names: Vec<&str> = answer.headers.iter().map(|(name, _)| name.as_str()).collect();
    // The test's own wish.
    names.retain(|name| *name != "connection");
    names.sort_unstable();
    assert_eq!(names, expected, "{method} {target}");
    assert_eq!(answer.header("access-control-allow-origin"), Some(ORIGIN));
    answer
}

fn preflight(system: &System, method: &str, target: &str, headers: &str) {
    let asked =
        [("Origin", ORIGIN), ("Access-Control-Request-Method", method), ("Access-Control-Request-Headers", headers)];
    let answer = system.anonymous("OPTIONS", target, &asked, None);
    assert_eq!(answer.status, 200);
    let allowed = answer.header("access-control-allow-methods").expect("methods");
    assert!(allowed.split(", ").any(|allowed| allowed == method), "{allowed}");
    assert_eq!(answer.header("access-control-allow-headers"), Some(headers));
}

/// The list as the client reads it: file names, behind the collection.
fn listed(system: &System) -> Vec<String> {
    let xml = [("Depth", "1"), ("Accept", "application/xml"), ("Content-Type", "application/xml")];
    preflight(system, "PROPFIND", "/cell1/__snapshot", "authorization,content-type,depth");
    let answer = ask(system, ("PROPFIND", "/cell1/__snapshot"), &xml, None, 207, &["content-type", "etag"]);
    let text = answer.text();
    assert!(text.contains("<multistatus xmlns=\"DAV:\">"), "names without a prefix");
    let responses: Vec<&str> = text.split("<response>").skip(1).collect();
    assert!(responses[0].contains("<collection/>"), "the collection first");
    let file = |response: &&str| {
        assert!(response.contains("<getlastmodified>") && response.contains("<getcontentlength>"), "{response}");
        let href = response.split("<href>").nth(1)?.split("</href>").next()?;
        href.rsplit('/').next().map(str::to_owned)
    };
    responses[1..].iter().filter_map(file).collect()
}

const FILE: [&str; 9] = [
    "accept-ranges",
    "cache-control",
    "content-disposition",
    "content-type",
    "etag",
    "last-modified",
    "repr-digest",
    "vary",
    "x-content-type-options",
];

#[test]
fn the_web_client_exports_downloads_uploads_deletes_and_imports() {
    let mut system = System::start();
    system.sample_cell("cell1", &[]);
    let file: Vec<&str> = FILE.into_iter().filter(|name| *name != "vary").collect();
    assert_eq!(listed(&system), Vec::<String>::new());

    // Is the name free?
    let json = [("Accept", "application/json"), ("If-None-Match", "undefined")];
    preflight(&system, "GET", "/cell1/__snapshot/one.zip", "authorization,if-none-match");
    let answer = ask(&system, ("GET", "/cell1/__snapshot/one.zip"), &json, None, 404, &["content-type"]);
    assert_eq!(answer.code(), "PR404-DV-0001");

    // It sends JSON as text, and takes nothing but 202.
    let text = [("Accept", "application/json"), ("Content-Type", "text/plain;charset=UTF-8")];
    preflight(&system, "POST", "/cell1/__export", "authorization");
    let named = Some(r#"{"Name":"one"}"#);
    let accepted = ["link", "location", "retry-after"];
    let answer = ask(&system, ("POST", "/cell1/__export"), &text, named, 202, &accepted);
    assert_eq!(answer.body, b"");

    // It looks every second.
    let look = [("Accept", "application/json"), ("If-None-Match", "*")];
    let status = || ask(&system, ("GET", "/cell1/__export"), &look, None, 200, &["content-type"]);
    let first: serde_json::Value = serde_json::from_slice(&status().body).expect("JSON");
    let mut members: Vec<_> = first.as_object().expect("an object").keys().map(String::as_str).collect();
    members.sort_unstable();
    assert_eq!(members, ["exportation_name", "progress", "started_at", "status"]);
    assert_eq!((&first["progress"], &first["exportation_name"]), (&"0%".into(), &"one".into()));
    let busy = ask(&system, ("POST", "/cell1/__export"), &text, Some(r#"{"Name":"two"}"#), 409, &["content-type"]);
    assert_eq!(busy.code(), "PR409-CM-0002");
    let _worker = system.worker();
    system.eventually("it is ready", || {
        let answer = ask(&system, ("GET", "/cell1/__export"), &look, None, 200, &["content-type"]);
        answer.text() == r#"{"status":"ready"}"#
    });
    assert_eq!(listed(&system), ["one.zip"]);

    let zip = [("Accept", "application/zip"), ("If-None-Match", "*")];
    let bytes = ask(&system, ("GET", "/cell1/__snapshot/one.zip"), &zip, None, 200, &file).body;

    let upload = [("Content-Type", "application/zip"), ("If-Match", "*"), ("Origin", ORIGIN)];
    preflight(&system, "PUT", "/cell1/__snapshot/two.zip", "authorization,content-type,if-match");
    assert_eq!(system.request("PUT", "/cell1/__snapshot/two.zip", &upload, Some(&bytes)).status, 201);
    assert_eq!(system.request("PUT", "/cell1/__snapshot/two.zip", &upload, Some(&bytes)).status, 204);
    assert_eq!(listed(&system), ["one.zip", "two.zip"]);

    preflight(&system, "DELETE", "/cell1/__snapshot/one.zip", "authorization,if-match");
    ask(&system, ("DELETE", "/cell1/__snapshot/one.zip"), &[("If-Match", "*")], None, 204, &[]);
    assert_eq!(listed(&system), ["two.zip"]);

    ask(&system, ("POST", "/cell1/__import"), &text, Some(r#"{"Name":"two"}"#), 202, &accepted);
    system.eventually("it is imported", || system.value("SELECT state FROM job WHERE kind = 'import'") == "succeeded");
}
