//! `POST {cell}__export`: what a body may be, and what comes of it.

use system_tests::system::System;

#[test]
fn every_kind_of_body_has_its_answer() {
    let system = System::start();
    system.sample_cell("cell1", &[]);
    let name192 = format!(r#"{{"Name":"{}"}}"#, "x".repeat(192));
    let name193 = format!(r#"{{"Name":"{}"}}"#, "x".repeat(193));
    let named = |name: &str| Ok(Some(name.to_owned()));
    let default = || Ok::<_, &str>(None::<String>);
    let parse = Err("PR400-CM-0004");
    let format = Err("PR400-CM-0002");
    let table: Vec<(&str, Result<Option<String>, &str>)> = vec![
        ("", default()),
        ("{}", default()),
        (r#"{"name":"x"}"#, default()),
        (r#"{"Other":1}"#, default()),
        (r#"{"Name":null}"#, default()),
        ("   ", parse.clone()),
        ("{", parse.clone()),
        ("\u{feff}{}", parse.clone()),
        ("{} x", parse.clone()),
        ("[]", parse.clone()),
        ("\"x\"", parse.clone()),
        ("12", parse.clone()),
        ("true", parse.clone()),
        ("null", parse.clone()),
        (r#"{"Name":1}"#, format.clone()),
        (r#"{"Name":true}"#, format.clone()),
        (r#"{"Name":[]}"#, format.clone()),
        (r#"{"Name":{}}"#, format.clone()),
        (r#"{"Name":""}"#, format.clone()),
        (r#"{"Name":"a.b"}"#, format.clone()),
        (r#"{"Name":"a b"}"#, format.clone()),
        (r#"{"Name":"a\n"}"#, format.clone()),
        (r#"{"Name":"あ"}"#, format.clone()),
        (r#"{"Name":"../a"}"#, format.clone()),
        (&name193, format),
        (&name192, named(&"x".repeat(192))),
        (r#"{"Name":"-"}"#, named("-")),
        (r#"{"Name":"_"}"#, named("_")),
        (r#"{"Name":"A"}"#, named("A")),
        (r#"{"Name":"first","Name":"last"}"#, named("last")),
    ];
    for (body, expected) in table {
        let answer = system.request("POST", "/cell1/__export", &[], Some(body.as_bytes()));
        match expected {
            Err(code) => {
                assert_eq!((answer.status, answer.code().as_str()), (400, code), "{body:?}: {}", answer.text());
                assert_eq!(answer.header("content-type"), Some("application/json"));
                assert_eq!(system.status("cell1")["status"], "ready", "{body:?}");
            }
            Ok(name) => {
                assert_eq!((answer.status, answer.body.len()), (202, 0), "{body:?}: {}", answer.text());
                let status = system.status("cell1");
                assert_eq!((&status["status"], &status["progress"]), (&"exportation in progress".into(), &"0%".into()));
                let got = status["exportation_name"].as_str().unwrap();
                match name {
                    Some(name) => assert_eq!(got, name),
                    None => assert_default_name(got),
                }
                // Nobody works here: make room for the next body.
                system.execute("DELETE FROM snapshot_entry");
                system.execute("DELETE FROM job");
            }
        }
    }
}

/// `{cell}_yyyyMMdd_HHmmss`
fn assert_default_name(name: &str) {
    let rest = name.strip_prefix("cell1_").unwrap_or_else(|| panic!("{name}"));
    let digits = |text: &str, n| text.len() == n && text.bytes().all(|b| b.is_ascii_digit());
    let (day, second) = rest.split_once('_').unwrap_or_else(|| panic!("{name}"));
    assert!(digits(day, 8) && digits(second, 6), "{name}");
}

#[test]
fn messages_are_those_of_the_contract() {
    let system = System::start();
    system.sample_cell("cell1", &[]);
    let post = |body: &str| system.request("POST", "/cell1/__export", &[], Some(body.as_bytes())).message();
    assert_eq!(post("{x\n}"), r"JSON parse error. [{x\u000A}].");
    assert_eq!(post(r#"{"Name":"a.b"}"#), "Field [Name] format error. Must be [^[a-zA-Z0-9-_]{1,192}$].");
}

#[test]
fn a_body_has_limits_and_an_encoding() {
    let system = System::start();
    system.sample_cell("cell1", &[]);
    let long = format!(r#"{{"Name":"a","x":"{}"}}"#, "y".repeat(5000));
    let answer = system.request("POST", "/cell1/__export", &[], Some(long.as_bytes()));
    assert_eq!((answer.status, answer.code().as_str()), (413, "PR413-EX-0001"));
    let typed = |content_type: &str, body: &[u8]| {
        system.request("POST", "/cell1/__export", &[("Content-Type", content_type)], Some(body))
    };
    let answer = typed("application/json; charset=no-such-thing", b"{}");
    assert_eq!((answer.status, answer.code().as_str()), (415, "PR415-MC-0001"));
    let answer = typed("application/json", b"{\"Name\":\"\xff\"}");
    assert_eq!((answer.status, answer.code().as_str()), (400, "PR400-CM-0004"));
    // The web client of units sends its JSON as text.
    let answer = typed("text/plain;charset=UTF-8", br#"{"Name":"a"}"#);
    assert_eq!(answer.status, 202, "{}", answer.text());
    let chunked = [("Transfer-Encoding", "chunked")];
    let answer = system.request("POST", "/cell1/__export", &chunked, Some(b"0\r\n\r\n"));
    assert_eq!((answer.status, answer.code().as_str()), (409, "PR409-CM-0002"), "an empty chunked body is no error");
}

#[test]
fn a_taken_name_and_a_busy_cell_are_told_apart() {
    let mut system = System::start();
    system.sample_cell("cell1", &[]);
    assert_eq!(system.post_export("cell1", "one").status, 202);
    let busy = system.post_export("cell1", "two");
    assert_eq!((busy.status, busy.code().as_str()), (409, "PR409-CM-0002"));
    assert_eq!(busy.message(), "Because [cell export] is being executed, writing to cell can not be done.");
    let _worker = system.worker();
    system.wait_ready("cell1");
    let taken = system.post_export("cell1", "one");
    assert_eq!((taken.status, taken.code().as_str()), (409, "PR409-DV-0002"));
    assert_eq!(taken.message(), "File [one.zip] already exists.");
    assert_eq!(system.post_export("cell1", "two").status, 202);
}
