//! `/openapi.json`: what it says is what is answered.

use std::process::Command;

use system_tests::judge::skipped;
use system_tests::system::{System, TOKEN};

#[test]
fn the_description_is_there_for_everybody() {
    let system = System::start();
    let answer = system.anonymous("GET", "/openapi.json", &[], None);
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    let document: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["servers"][0]["url"], format!("http://localhost:{}", system.address.port()));
    let answer = system.anonymous("POST", "/openapi.json", &[], Some(b""));
    assert_eq!((answer.status, answer.code().as_str()), (405, "PR405-MC-0001"));
}

/// Sends what the description allows, and what it does not, and compares every answer with it.
#[test]
fn no_request_finds_a_server_error_or_an_answer_that_is_not_described() {
    let program = std::env::var("SCHEMATHESIS").unwrap_or_else(|_| "schemathesis".to_owned());
    if Command::new(&program).arg("--version").output().is_err() {
        return skipped("schemathesis is not installed");
    }
    let mut system = System::start();
    system.sample_cell("cell1", &[]);
    let _workers = [system.worker(), system.worker()];
    system.export("cell1", "one");
    let settings = system.directory().join("schemathesis.toml");
    // One name of a cell that is there; all others are no cells.
    std::fs::write(&settings, "[parameters]\n\"path.cell\" = \"cell1\"\n").expect("written");
    let url = format!("http://localhost:{}/openapi.json", system.address.port());
    let checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
                  response_schema_conformance";
    let output = Command::new(&program)
        .args(["--config-file", &settings.display().to_string(), "run", &url])
        .args(["--header", &format!("Authorization: Bearer {TOKEN}"), "--checks", checks])
        .args(["--max-examples", "15", "--seed", "7", "--generation-database", "none", "--no-color"])
        .args(["--phases", "examples,coverage,fuzzing", "--request-timeout", "70"])
        .current_dir(system.directory())
        .env("NO_PROXY", "localhost")
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    // It has something to say of every operation.
    assert!(text.contains("Tested: "), "{text}");
}
