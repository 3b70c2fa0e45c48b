//! `{unit}__ctl/Cell`: cells come and go, for the unit master only.

use serde_json::{Value, json};
use system_tests::http::Answer;
use system_tests::system::{Options, System, TOKEN};

fn outcome(answer: &Answer) -> (u16, String) {
    (answer.status, answer.code())
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

fn document(answer: &Answer) -> Value {
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("dataserviceversion"), Some("2.0"));
    serde_json::from_slice(&answer.body).unwrap_or_else(|_| panic!("{}", answer.text()))
}

/// Milliseconds in `/Date(…)/`.
fn millis(date: &Value) -> i64 {
    let digits = date.as_str().and_then(|d| d.strip_prefix("/Date(")).and_then(|d| d.strip_suffix(")/"));
    digits.and_then(|d| d.parse().ok()).unwrap_or_else(|| panic!("{date}"))
}

#[test]
fn a_cell_is_made_described_and_removed() {
    let system = System::start();
    let unit = format!("http://localhost:{}/", system.address.port());
    let url = format!("{unit}__ctl/Cell('cell-1')");
    let made = system.request("POST", "/__ctl/Cell", &[], Some(br#"{"Name":"cell-1"}"#));
    assert_eq!(made.status, 201, "{}", made.text());
    let entity = document(&made);
    let published = millis(&entity["d"]["results"]["__published"]);
    assert!(published > 1_700_000_000_000, "{published}");
    let etag = format!("W/\"1-{published}\"");
    let date = format!("/Date({published})/");
    let expected = json!({"d": {"results": {
        "__metadata": {"uri": url, "etag": etag, "type": "UnitCtl.Cell"},
        "Name": "cell-1", "__published": date, "__updated": date,
    }}});
    assert_eq!(entity, expected);
    assert_eq!((made.header("location"), made.header("etag")), (Some(url.as_str()), Some(etag.as_str())));

    for target in ["/__ctl/Cell('cell-1')", "/__ctl/Cell(Name='cell-1')", "/__ctl/Cell(%27cell-1%27)/"] {
        let got = system.request("GET", target, &[], None);
        assert_eq!((got.status, document(&got), got.header("etag")), (200, expected.clone(), Some(etag.as_str())));
    }
    let head = system.request("HEAD", "/__ctl/Cell('cell-1')", &[], None);
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(system.status("cell-1"), json!({"status": "ready"}), "it is there, and empty");
    assert!(system.files("cell-1").is_empty());
    let area = system.request("PROPFIND", "/cell-1/__snapshot", &[("Depth", "0")], None);
    assert!(area.text().contains(">normal</p:cellstatus>"), "{}", area.text());
    assert_eq!(area.header("etag"), Some(etag.trim_start_matches("W/")));
    // Stored in the form in which units store cells.
    let id = system.value("SELECT id FROM cell");
    assert_eq!(id.len(), 22, "{id}");
    let stored: Value = serde_json::from_str(&system.value("SELECT document FROM cell")).unwrap();
    assert_eq!(
        (&stored["_id"], &stored["_source"]["h"], &stored["_source"]["p"]),
        (&json!(id), &json!({}), &json!(published))
    );

    let delete = |headers: &[(&str, &str)]| system.request("DELETE", "/__ctl/Cell('cell-1')", headers, None);
    assert_eq!(outcome(&delete(&[("If-Match", "W/\"1-1\"")])), refused(412, "PR412-DV-0001"));
    assert_eq!(system.put("cell-1", "a.zip", &[], b"x").status, 201);
    assert_eq!(system.post_export("cell-1", "mine").status, 202);
    let busy = delete(&[]);
    assert_eq!(outcome(&busy), refused(409, "PR409-CM-0002"));
    assert_eq!(busy.message(), "Because [cell export] is being executed, writing to cell can not be done.");
    system.execute("DELETE FROM snapshot_entry WHERE kind = 'pending'");
    system.execute("DELETE FROM job");
    let gone = delete(&[("If-Match", &etag)]);
    assert_eq!((gone.status, gone.body.len(), gone.header("dataserviceversion")), (204, 0, Some("2.0")));
    assert_eq!(outcome(&system.request("GET", "/cell-1/__export", &[], None)), refused(404, "PR404-DV-0003"));
    for method in ["GET", "DELETE"] {
        let answer = system.request(method, "/__ctl/Cell('cell-1')", &[], None);
        assert_eq!(outcome(&answer), refused(404, "PR404-OD-0002"), "{method}");
    }
    assert_eq!(system.value("SELECT count(*) FROM snapshot_entry"), "0", "its snapshots went with it");
    // The name is free again, and another cell's.
    system.make_cell("cell-1");
    assert_ne!(system.value("SELECT id FROM cell"), id);
    assert!(system.files("cell-1").is_empty());
    assert_eq!(system.request("DELETE", "/__ctl/Cell('cell-1')", &[("If-Match", "*")], None).status, 204);
}

#[test]
fn every_kind_of_body_has_its_answer() {
    let system = System::start();
    let post = |body: &[u8]| system.request("POST", "/__ctl/Cell", &[], Some(body));
    let name = |name: &str| format!(r#"{{"Name":"{name}"}}"#);
    let long = name(&"x".repeat(129));
    for (body, code, message) in [
        ("", "PR400-OD-0001", "JSON parse error."),
        ("{", "PR400-OD-0001", "JSON parse error."),
        ("[]", "PR400-OD-0001", "JSON parse error."),
        ("null", "PR400-OD-0001", "JSON parse error."),
        ("\"x\"", "PR400-OD-0001", "JSON parse error."),
        ("{}", "PR400-OD-0009", "[Name] is required."),
        (r#"{"name":"a"}"#, "PR400-OD-0009", "[Name] is required."),
        (r#"{"Name":null}"#, "PR400-OD-0009", "[Name] is required."),
        (r#"{"Name":1}"#, "PR400-OD-0006", "request body format error. field [Name]"),
        (r#"{"Name":{}}"#, "PR400-OD-0006", "request body format error. field [Name]"),
        (&name(""), "PR400-OD-0006", "request body format error. field [Name]"),
        (&name("Cell"), "PR400-OD-0006", "request body format error. field [Name]"),
        (&name("a_b"), "PR400-OD-0006", "request body format error. field [Name]"),
        (&name("-a"), "PR400-OD-0006", "request body format error. field [Name]"),
        (&name("__ctl"), "PR400-OD-0006", "request body format error. field [Name]"),
        (&name("../a"), "PR400-OD-0006", "request body format error. field [Name]"),
        (&name("é"), "PR400-OD-0006", "request body format error. field [Name]"),
        (&long, "PR400-OD-0006", "request body format error. field [Name]"),
        (r#"{"Name":"a","Owner":"me"}"#, "PR400-OD-0007", "[Owner]"),
    ] {
        let answer = post(body.as_bytes());
        assert_eq!((outcome(&answer), answer.message()), (refused(400, code), message.to_owned()), "{body:?}");
    }
    assert_eq!(outcome(&post(b"{\"Name\":\"\xff\"}")), refused(400, "PR400-OD-0001"));
    assert_eq!(outcome(&post(&[b' '; 5000])), refused(413, "PR413-EX-0001"));
    assert_eq!(system.value("SELECT count(*) FROM cell"), "0");
    for good in [name("a"), name("0-"), name(&"x".repeat(128))] {
        assert_eq!(post(good.as_bytes()).status, 201, "{good}");
    }
    let taken = post(name("a").as_bytes());
    assert_eq!(
        (outcome(&taken), taken.message()),
        (refused(409, "PR409-OD-0003"), "The entity already exists.".to_owned())
    );
}

#[test]
fn cells_are_listed_in_pages() {
    let system = System::start();
    let names: Vec<_> = (0..30).map(|n| format!("cell{n:02}")).collect();
    names.iter().rev().for_each(|name| system.make_cell(name));
    let list = |query: &str| {
        let answer = system.request("GET", &format!("/__ctl/Cell{query}"), &[], None);
        assert_eq!(answer.status, 200, "{query}: {}", answer.text());
        document(&answer)
    };
    let listed = |query: &str| -> Vec<String> {
        let results = list(query)["d"]["results"].as_array().unwrap().clone();
        results.iter().map(|r| r["Name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(listed(""), names[..25]);
    assert_eq!(listed("?$top=10000"), names);
    assert_eq!(listed("?$top=2&$skip=3"), names[3..5]);
    assert_eq!(listed("?%24skip=28"), names[28..]);
    assert!(listed("?$top=0").is_empty() && listed("?$skip=30").is_empty());
    assert_eq!(list("?$top=1&$inlinecount=allpages")["d"]["__count"], "30");
    for query in ["?$top=1", "?$top=1&$inlinecount=none"] {
        assert_eq!(list(query)["d"].as_object().unwrap().len(), 1, "{query}");
    }
    let first = list("?$top=1")["d"]["results"][0]["__metadata"]["uri"].clone();
    assert_eq!(first, format!("http://localhost:{}/__ctl/Cell('cell00')", system.address.port()));
    for (query, shown) in [
        ("$top=10001", "[$top]=[10001]"),
        ("$top=-1", "[$top]=[-1]"),
        ("$top=", "[$top]=[]"),
        ("$top=1%272", "[$top]=[1'2]"),
        ("$skip=x", "[$skip]=[x]"),
        ("$skip=9999999999999999999", "[$skip]=[9999999999999999999]"),
        ("$inlinecount=x", "[$inlinecount]=[x]"),
        // Whoever asks for some cells must not get all.
        ("$filter=Name%20eq%20%27a%27", "[$filter]=[Name eq 'a']"),
    ] {
        let answer = system.request("GET", &format!("/__ctl/Cell?{query}"), &[], None);
        assert_eq!(outcome(&answer), refused(400, "PR400-OD-0029"), "{query}");
        assert_eq!(answer.message(), format!("Query value {shown} is invalid."));
    }
}

#[test]
fn only_the_unit_master_may_and_only_what_there_is() {
    for path_based in [true, false] {
        let settings = vec![("PATH_BASED_CELL_URL", path_based.to_string())];
        let system = System::start_with(Options { settings, ..Options::default() });
        system.make_cell("cell1");
        let bearer = format!("Bearer {TOKEN}");
        let realm = format!("Bearer realm=\"http://localhost:{}/\"", system.address.port());
        for (method, target) in [
            ("GET", "/__ctl/Cell"),
            ("POST", "/__ctl/Cell"),
            ("GET", "/__ctl/Cell('cell1')"),
            ("GET", "/__ctl/Cell('none')"),
            ("DELETE", "/__ctl/Cell('cell1')"),
        ] {
            for (headers, status, code) in [
                (vec![], 401, "PR401-AU-0001"),
                (vec![("Authorization", "Bearer x")], 401, "PR401-AU-0006"),
                (
                    vec![("Authorization", &bearer), ("X-Personium-Unit-User", "https://u.example/#me")],
                    403,
                    "PR403-AU-0001",
                ),
            ] {
                let answer = system.anonymous(method, target, &headers, None);
                assert_eq!(outcome(&answer), refused(status, code), "{method} {target} {headers:?}");
                let challenge = (status == 401).then_some(realm.as_str());
                assert_eq!(answer.header("www-authenticate"), challenge, "{method} {target} {headers:?}");
            }
        }
        for (method, target, status, code) in [
            ("GET", "/__ctl", 404, "PR404-MC-0001"),
            ("GET", "/__ctl/Cell('cell1')/Box", 404, "PR404-MC-0001"),
            ("GET", "/__ctl/Box", 404, "PR404-OD-0001"),
            ("GET", "/__ctl/$metadata", 404, "PR404-OD-0001"),
            ("GET", "/__ctl/Cell()", 400, "PR400-OD-0004"),
            ("GET", "/__ctl/Cell(1)", 400, "PR400-OD-0004"),
            ("DELETE", "/__ctl/Cell('a','b')", 400, "PR400-OD-0004"),
            ("GET", "/__ctl/Cell('..%2fcell1')", 404, "PR404-OD-0002"),
            ("GET", "/__ctl/Cell('CELL1')", 404, "PR404-OD-0002"),
            ("DELETE", "/__ctl/Cell", 405, "PR405-MC-0001"),
            ("PUT", "/__ctl/Cell('cell1')", 405, "PR405-MC-0001"),
            ("MERGE", "/__ctl/Cell('cell1')", 405, "PR405-MC-0001"),
            ("POST", "/__ctl/Cell('cell1')", 405, "PR405-MC-0001"),
        ] {
            let answer = system.request(method, target, &[], None);
            assert_eq!(outcome(&answer), refused(status, code), "{method} {target}: {}", answer.text());
        }
        for (target, methods) in
            [("/__ctl/Cell", "OPTIONS, GET, POST"), ("/__ctl/Cell('none')", "OPTIONS, GET, DELETE")]
        {
            let answer = system.request("OPTIONS", target, &[], None);
            assert_eq!((answer.status, answer.header("allow")), (200, Some(methods)));
        }
        // The common processing is the same as for cells.
        let overridden = [("X-HTTP-Method-Override", "DELETE"), ("Origin", "https://app.example")];
        let answer = system.request("POST", "/__ctl/Cell('none')", &overridden, None);
        assert_eq!(outcome(&answer), refused(404, "PR404-OD-0002"));
        assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example"));
        let answer = system.request("GET", "/__ctl/Cell", &[("Accept", "foo")], None);
        assert_eq!(outcome(&answer), refused(406, "PR406-CM-0001"));
        let answer = system.request("GET", "/__ctl/Cell", &[("X-Personium-RequestKey", "a b")], None);
        assert_eq!(outcome(&answer), refused(400, "PR400-EV-0002"));

        // The unit's authority serves nothing else where cells have host names, and a cell's serves no unit.
        let unit = format!("localhost:{}", system.address.port());
        let at = |host: &str, target: &str| system.request("GET", target, &[("Host", host)], None);
        let (own, cells, foreign) = match path_based {
            true => ((404, "PR404-DV-0003"), (400, "PR400-CM-0005"), (400, "PR400-CM-0005")),
            false => ((400, "PR400-MC-0002"), (404, "PR404-MC-0001"), (400, "PR400-CM-0005")),
        };
        for (host, target, (status, code)) in [
            (unit.as_str(), "/__ctlx/Cell", own),
            (&format!("cell1.{unit}"), "/__ctl/Cell", cells),
            ("other.example", "/__ctl/Cell", foreign),
        ] {
            assert_eq!(outcome(&at(host, target)), refused(status, code), "{host}{target}, path based: {path_based}");
        }
    }
}

#[test]
fn an_empty_cell_can_be_exported() {
    let mut system = System::start();
    system.make_cell("cell1");
    let _worker = system.worker();
    let snapshot = system.export("cell1", "one");
    let mut zip = zip::ZipArchive::new(std::fs::File::open(snapshot).unwrap()).unwrap();
    let mut cell = String::new();
    std::io::Read::read_to_string(&mut zip.by_name("10_odata/00_cell.json").unwrap(), &mut cell).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&cell).unwrap()["_source"]["s"]["Name"], "cell1");
    assert_eq!(system.request("DELETE", "/__ctl/Cell('cell1')", &[], None).status, 204);
}
