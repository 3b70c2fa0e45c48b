//! Browsers: preflights, and the headers that let a script read an answer.

use system_tests::http::Answer;
use system_tests::system::System;

const ALL: &str = "OPTIONS, GET, POST, PUT, DELETE, HEAD, MERGE, MKCOL, MOVE, PROPFIND, PROPPATCH, ACL";

fn allowed(answer: &Answer) -> (Option<&str>, Option<&str>) {
    (answer.header("allow"), answer.header("access-control-allow-methods"))
}

#[test]
fn options_answers_follow_the_table() {
    let mut system = System::start();
    let _worker = system.worker();
    system.sample_cell("cell1", &[]);
    system.export("cell1", "one");
    // Anonymous: any URL, any host, nothing is looked at.
    for target in ["/cell1/__export", "/nocell/x/y/z", "/", "/cell1/__snapshot/none.zip"] {
        let answer = system.anonymous("OPTIONS", target, &[("Host", "elsewhere.example")], None);
        assert_eq!((answer.status, answer.body.len()), (200, 0), "{target}");
        assert_eq!(allowed(&answer), (Some(ALL), Some(ALL)), "{target}");
    }
    for (target, methods) in [
        ("/cell1/__export", "OPTIONS, GET, POST"),
        ("/cell1/__import", "OPTIONS, GET, POST"),
        ("/cell1/__snapshot", "OPTIONS, PROPFIND"),
        ("/cell1/__snapshot/one.zip", "OPTIONS, GET, PUT, DELETE, PROPFIND"),
    ] {
        let answer = system.request("OPTIONS", target, &[], None);
        assert_eq!(answer.status, 200, "{target}");
        assert_eq!(allowed(&answer), (Some(methods), Some(methods)), "{target}");
    }
    let missing = system.request("OPTIONS", "/cell1/__snapshot/none.zip", &[], None);
    assert_eq!((missing.status, missing.code().as_str()), (404, "PR404-DV-0001"));
    let refused = system.anonymous("OPTIONS", "/cell1/__export", &[("Authorization", "Bearer x")], None);
    assert_eq!((refused.status, refused.code().as_str()), (401, "PR401-AU-0006"));
    // A POST that was overridden is no preflight.
    let overridden = [("X-HTTP-Method-Override", "OPTIONS")];
    assert_eq!(system.anonymous("POST", "/cell1/__export", &overridden, None).status, 401);
}

#[test]
fn cross_origin_headers_come_with_an_origin_only() {
    let system = System::start();
    system.sample_cell("cell1", &[]);
    let names = ["allow-origin", "allow-credentials", "max-age", "expose-headers", "allow-headers"];
    let cors = |answer: &Answer| names.map(|n| answer.header(&format!("access-control-{n}")).map(str::to_owned));
    let some = |text: &str| Some(text.to_owned());
    let with = |origin: &str| [some(origin), some("true"), some("86400"), some("X-Personium-Version"), None];

    assert_eq!(cors(&system.request("GET", "/cell1/__export", &[], None)), [const { None }; 5]);
    let origin = ("Origin", "https://app.example");
    for answer in [
        system.request("GET", "/cell1/__export", &[origin], None),
        system.anonymous("GET", "/cell1/__export", &[origin], None),
        system.request("GET", "/nocell/__export", &[origin], None),
        system.request("PUT", "/cell1/__export", &[origin], None),
    ] {
        assert_eq!(cors(&answer), with("https://app.example"), "{}", answer.status);
        assert_eq!(answer.header("vary"), None);
        assert_eq!(answer.header("access-control-allow-methods"), None, "only on OPTIONS answers");
    }
    assert_eq!(cors(&system.request("GET", "/cell1/__export", &[("Origin", "null")], None)), with("null"));
    // The preflight of the units' web client.
    let asked = "authorization, content-type, depth, if-match, if-none-match";
    let headers = [origin, ("Access-Control-Request-Headers", asked), ("Access-Control-Request-Method", "PROPFIND")];
    let answer = system.anonymous("OPTIONS", "/cell1/__snapshot", &headers, None);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-headers"), Some(asked));
    assert_eq!(answer.header("access-control-allow-methods"), Some(ALL));
    let alone = [("Access-Control-Request-Headers", asked)];
    let answer = system.anonymous("OPTIONS", "/cell1/__snapshot", &alone, None);
    assert_eq!(answer.header("access-control-allow-headers"), None, "not without an origin");
}
