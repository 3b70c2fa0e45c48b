//! Which URL and method leads where, in both forms of cell URLs, and what credentials are worth.

use system_tests::system::{Options, System, TOKEN};

#[test]
fn every_wrong_turn_has_its_own_answer() {
    let system = System::start();
    system.sample_cell("cell1", &[]);
    let authority = format!("localhost:{}", system.address.port());
    // Answered the same with and without credentials.
    let table = [
        ("GET", "/nocell/__export", 404, "PR404-DV-0003"),
        ("GET", "/CELL1/__export", 404, "PR404-DV-0003"),
        ("GET", "/-cell/__export", 404, "PR404-DV-0003"),
        ("GET", "/cell1/__export/foo", 404, "PR404-MC-0001"),
        ("PROPFIND", "/cell1/__snapshot/a/b", 404, "PR404-MC-0001"),
        ("GET", "/cell1/__nothing", 404, "PR404-MC-0001"),
        ("PUT", "/cell1/__export", 405, "PR405-MC-0001"),
        ("DELETE", "/cell1/__export", 405, "PR405-MC-0001"),
        ("PROPFIND", "/cell1/__export", 405, "PR405-MC-0001"),
        ("DELETE", "/cell1/__import", 405, "PR405-MC-0001"),
        ("GET", "/cell1/__snapshot", 405, "PR405-MC-0001"),
        ("PUT", "/cell1/__snapshot", 405, "PR405-MC-0001"),
        ("DELETE", "/cell1/__snapshot", 405, "PR405-MC-0001"),
        ("MKCOL", "/cell1/__snapshot", 405, "PR405-MC-0001"),
        ("REPORT", "/cell1/__snapshot", 405, "PR405-MC-0001"),
        ("POST", "/cell1/__snapshot/a.zip", 405, "PR405-MC-0001"),
        ("MKCOL", "/cell1/__snapshot/a.zip", 405, "PR405-MC-0001"),
        ("PROPPATCH", "/cell1/__snapshot/a.zip", 405, "PR405-MC-0001"),
        ("MOVE", "/cell1/__snapshot/a.zip", 405, "PR405-MC-0001"),
        ("ACL", "/cell1/__snapshot/a.zip", 405, "PR405-MC-0001"),
        ("REPORT", "/cell1/__snapshot/a.zip", 501, "PR501-MC-0001"),
    ];
    for (method, target, status, code) in table {
        for authorized in [true, false] {
            let answer = if authorized {
                system.request(method, target, &[], None)
            } else {
                system.anonymous(method, target, &[], None)
            };
            let case = format!("{method} {target}, authorized: {authorized}");
            assert_eq!((answer.status, answer.code().as_str()), (status, code), "{case}: {}", answer.text());
            assert_eq!(answer.header("allow"), None, "{case}");
            assert_eq!(answer.header("x-personium-version"), Some("1.8.4"), "{case}");
            assert_eq!(answer.header("content-type"), Some("application/json"), "{case}");
        }
    }
    // HEAD through GET, and one trailing slash.
    for (method, target, status) in [
        ("HEAD", "/cell1/__export", 200),
        ("GET", "/cell1/__export/", 200),
        ("GET", "/cell1/__import", 200),
        ("HEAD", "/cell1/__snapshot", 405),
        ("POST", "/cell1/__import", 400),
        ("GET", "/cell1/__import/dry-run/", 200),
        ("OPTIONS", "/cell1/__snapshot/", 200),
        ("GET", "/cell1/__snapshot/a.zip/", 404),
    ] {
        assert_eq!(system.request(method, target, &[], None).status, status, "{method} {target}");
    }
    for host in ["other.example", "cell1.localhost", "localhost:1", "LOCALHOST.evil"] {
        let answer = system.request("GET", "/cell1/__export", &[("Host", host)], None);
        assert_eq!((answer.status, answer.code().as_str()), (400, "PR400-CM-0005"), "{host}");
        let expected =
            format!("Invalid URL authority [{host}]. This unit is configured for URL authority [{authority}]");
        assert_eq!(answer.message(), expected);
    }
}

#[test]
fn cells_can_be_host_names() {
    let settings = vec![("PATH_BASED_CELL_URL", "false".to_owned())];
    let system = System::start_with(Options { settings, ..Options::default() });
    system.sample_cell("cell1", &[]);
    let unit = format!("localhost:{}", system.address.port());
    let get = |host: &str, target: &str| system.request("GET", target, &[("Host", host)], None);
    let cell = format!("cell1.{unit}");
    assert_eq!(get(&cell, "/__export").text(), r#"{"status":"ready"}"#);
    let posted = system.request("POST", "/__export", &[("Host", &cell)], None);
    assert_eq!((posted.status, posted.header("location")), (202, Some(format!("http://{cell}/__export").as_str())));
    let again = system.request("POST", "/__export", &[("Host", &cell)], Some(br#"{"Name":"other"}"#));
    assert_eq!((again.status, again.code().as_str()), (409, "PR409-CM-0002"), "busy in this mode too");
    for (host, target, status, code) in [
        (format!("CELL1.{unit}"), "/__export", 404, "PR404-DV-0003"),
        (format!("nocell.{unit}"), "/__export", 404, "PR404-DV-0003"),
        (cell.clone(), "/__export/foo", 404, "PR404-MC-0001"),
        (unit.clone(), "/cell1/__export", 400, "PR400-MC-0002"),
        (format!("a.b.{unit}"), "/__export", 400, "PR400-CM-0005"),
        ("cell1.localhost:1".to_owned(), "/__export", 400, "PR400-CM-0005"),
    ] {
        let answer = get(&host, target);
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{host}{target}: {}", answer.text());
    }
    let wrong = get("other.example", "/__export");
    let expected =
        format!("Invalid URL authority [other.example]. This unit is configured for URL authority [{unit}, *.{unit}]");
    assert_eq!(wrong.message(), expected);
}

#[test]
fn headers_are_processed_in_the_order_of_the_contract() {
    let system = System::start();
    system.sample_cell("cell1", &[]);
    let bearer = format!("Bearer {TOKEN}");
    let auth = ("Authorization", bearer.as_str());
    let authority = format!("localhost:{}", system.address.port());
    let long = "k".repeat(129);
    let overridden = format!("Authorization: {bearer}");
    type Case<'a> = (&'a str, &'a str, &'a str, Vec<(&'a str, &'a str)>, u16, &'a str);
    let table: Vec<Case<'_>> = vec![
        ("a good key", "GET", "/cell1/__export", vec![auth, ("X-Personium-RequestKey", "a-Z_9")], 200, ""),
        ("an empty key", "GET", "/cell1/__export", vec![auth, ("X-Personium-RequestKey", "")], 200, ""),
        ("a bad key", "GET", "/cell1/__export", vec![auth, ("X-Personium-RequestKey", "a b")], 400, "PR400-EV-0002"),
        ("a long key", "GET", "/cell1/__export", vec![auth, ("X-Personium-RequestKey", &long)], 400, "PR400-EV-0002"),
        ("anonymous OPTIONS before the key", "OPTIONS", "/x", vec![("X-Personium-RequestKey", "a b")], 200, ""),
        ("the method of a POST", "POST", "/cell1/__export", vec![auth, ("X-HTTP-Method-Override", "GET")], 200, ""),
        (
            "case matters",
            "POST",
            "/cell1/__snapshot",
            vec![auth, ("Depth", "1"), ("X-HTTP-Method-Override", "propfind")],
            405,
            "PR405-MC-0001",
        ),
        (
            "PROPFIND by POST",
            "POST",
            "/cell1/__snapshot",
            vec![auth, ("Depth", "1"), ("X-HTTP-Method-Override", "PROPFIND")],
            207,
            "",
        ),
        ("only of a POST", "GET", "/cell1/__export", vec![auth, ("X-HTTP-Method-Override", "DELETE")], 200, ""),
        ("any header", "GET", "/cell1/__export", vec![("X-Override", &overridden)], 200, ""),
        (
            "replaced",
            "GET",
            "/cell1/__export",
            vec![auth, ("X-Override", "Authorization: Bearer x")],
            401,
            "PR401-AU-0006",
        ),
        ("no colon, no override", "GET", "/cell1/__export", vec![auth, ("X-Override", "Authorization")], 200, ""),
        (
            "two of them",
            "PROPFIND",
            "/cell1/__snapshot",
            vec![("X-Override", &overridden), ("X-Override", "Depth:0")],
            207,
            "",
        ),
        (
            "forwarded host",
            "GET",
            "/cell1/__export",
            vec![auth, ("Host", &authority), ("X-Forwarded-Host", "other.example")],
            400,
            "PR400-CM-0005",
        ),
        ("forwarded path", "GET", "/nowhere", vec![auth, ("X-Forwarded-Path", "/cell1/__export?x=y")], 200, ""),
        ("an Accept that is none", "GET", "/cell1/__export", vec![auth, ("Accept", "foo")], 406, "PR406-CM-0001"),
        (
            "an Accept that is not ASCII",
            "GET",
            "/cell1/__export",
            vec![auth, ("Accept", "té/xt")],
            400,
            "PR400-OD-0041",
        ),
        (
            "a Content-Type that is none",
            "POST",
            "/cell1/__export",
            vec![auth, ("Content-Type", "garbage")],
            400,
            "PR400-OD-0041",
        ),
    ];
    for (case, method, target, headers, status, code) in table {
        let answer = system.anonymous(method, target, &headers, None);
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{case}: {}", answer.text());
        assert_eq!(answer.header("x-personium-requestkey"), None, "{case}: never echoed");
    }
}

#[test]
fn credentials_are_judged_as_the_contract_says() {
    let system = System::start();
    system.sample_cell("cell1", &[]);
    let bearer = format!("Bearer {TOKEN}");
    let wrong = format!("Bearer {TOKEN}x");
    type Case<'a> = (&'a str, Vec<(&'a str, &'a str)>, u16, &'a str);
    let table: Vec<Case<'_>> = vec![
        ("", vec![], 401, "PR401-AU-0001"),
        ("", vec![("Authorization", &bearer)], 200, ""),
        ("", vec![("Authorization", &wrong)], 401, "PR401-AU-0006"),
        ("", vec![("Authorization", "Bearer")], 401, "PR401-AU-0006"),
        ("", vec![("Authorization", "Bearer ")], 401, "PR401-AU-0006"),
        ("", vec![("Authorization", "bearer x")], 401, "PR401-AU-0003"),
        ("", vec![("Authorization", "Digest x")], 401, "PR401-AU-0003"),
        ("", vec![("Authorization", "Basic !")], 401, "PR401-AU-0004"),
        ("", vec![("Authorization", "Basic bm9jb2xvbg==")], 401, "PR401-AU-0004"),
        ("", vec![("Authorization", "Basic bWU6c2VjcmV0")], 401, "PR401-AU-0011"),
        (
            "",
            vec![("Authorization", &bearer), ("X-Personium-Unit-User", "https://u.example/#me")],
            403,
            "PR403-AU-0002",
        ),
        ("?p_cookie_peer=x", vec![], 401, "PR401-AU-0009"),
        ("?p_cookie_peer=x", vec![("Authorization", &bearer)], 200, ""),
        ("?p_cookie_peer=", vec![("Cookie", "p_cookie=x")], 401, "PR401-AU-0001"),
    ];
    let realm = format!("Bearer realm=\"http://localhost:{}/cell1/\"", system.address.port());
    for (query, headers, status, code) in table {
        let answer = system.anonymous("GET", &format!("/cell1/__export{query}"), &headers, None);
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{query} {headers:?}");
        let challenge = (status == 401).then_some(realm.as_str());
        assert_eq!(answer.header("www-authenticate"), challenge, "{query} {headers:?}");
    }
    // Outsiders cannot tell which names exist.
    for (method, target) in [
        ("POST", "/cell1/__export"),
        ("PROPFIND", "/cell1/__snapshot"),
        ("GET", "/cell1/__snapshot/none.zip"),
        ("HEAD", "/cell1/__snapshot/none.zip"),
        ("PROPFIND", "/cell1/__snapshot/none.zip"),
        ("GET", "/cell1/__snapshot/..%2f..%2fetc"),
        ("PUT", "/cell1/__snapshot/none.zip"),
        ("DELETE", "/cell1/__snapshot/none.zip"),
        ("POST", "/cell1/__import"),
        ("POST", "/cell1/__import/dry-run"),
        ("GET", "/cell1/__import"),
        ("PUT", "/cell1/__snapshot/..%2f..%2fetc"),
    ] {
        assert_eq!(system.anonymous(method, target, &[], None).status, 401, "{method} {target}");
    }
    let log = system.api().log();
    assert!(!log.contains(TOKEN), "the token stands in the log");
}
