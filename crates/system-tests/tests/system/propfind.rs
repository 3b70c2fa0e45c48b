//! `PROPFIND` of the snapshot area: depths, bodies, and the XML that old clients parse.

use system_tests::system::System;

#[test]
fn depths_and_bodies_follow_the_table() {
    let mut system = System::start();
    let _worker = system.worker();
    system.sample_cell("cell1", &[]);
    system.export("cell1", "one");
    let (area, file) = ("/cell1/__snapshot", "/cell1/__snapshot/one.zip");
    let table = [
        (None, 400, "PR400-DV-0003", 0, 0),
        (Some("0"), 207, "", 1, 1),
        (Some("1"), 207, "", 2, 1),
        (Some("infinity"), 403, "PR403-DV-0001", 0, 0),
        (Some("Infinity"), 400, "PR400-DV-0003", 0, 0),
        (Some("2"), 400, "PR400-DV-0003", 0, 0),
        (Some(""), 400, "PR400-DV-0003", 0, 0),
        (Some("0,1"), 400, "PR400-DV-0003", 0, 0),
    ];
    for (depth, status, code, of_area, of_file) in table {
        for (target, responses) in [(area, of_area), (file, of_file)] {
            let headers: Vec<_> = depth.iter().map(|d| ("Depth", *d)).collect();
            let answer = system.request("PROPFIND", target, &headers, None);
            let case = format!("{target} Depth {depth:?}");
            assert_eq!((answer.status, answer.code().as_str()), (status, code), "{case}: {}", answer.text());
            assert_eq!(answer.text().matches("<response>").count(), responses, "{case}");
        }
    }
    let message = |headers: &[(&str, &str)]| system.request("PROPFIND", area, headers, None).message();
    assert_eq!(message(&[]), "Invalid depth header value:[null].");
    assert_eq!(message(&[("Depth", "0,1")]), "Invalid depth header value:[0,1].");

    let deep = format!("<propfind xmlns='DAV:'>{}{}</propfind>", "<a>".repeat(40), "</a>".repeat(40));
    let wide = format!("<propfind xmlns='DAV:'>{}</propfind>", "<a/>".repeat(1100));
    let bomb = "<!DOCTYPE x [<!ENTITY a 'aaaaaaaaaa'>]><propfind xmlns='DAV:'>&a;</propfind>";
    for (body, good) in [
        ("<propfind xmlns='DAV:'><allprop/></propfind>", true),
        (
            "<?xml version=\"1.0\" encoding=\"utf-8\"?><D:propfind xmlns:D=\"DAV:\"><D:prop><D:x/></D:prop></D:propfind>",
            true,
        ),
        ("<propfind/>", false),
        ("<prop xmlns='DAV:'/>", false),
        ("<propfind xmlns='DAV:'>", false),
        ("   ", false),
        ("x", false),
        (bomb, false),
        (deep.as_str(), false),
        (wide.as_str(), false),
    ] {
        let answer = system.request("PROPFIND", area, &[("Depth", "1")], Some(body.as_bytes()));
        let expected = if good { (207, "") } else { (400, "PR400-DV-0001") };
        let case = &body[..body.len().min(60)];
        assert_eq!((answer.status, answer.code().as_str()), expected, "{case}: {}", answer.text());
    }
    let chunked = [("Depth", "1"), ("Transfer-Encoding", "chunked")];
    let empty = system.request("PROPFIND", area, &chunked, Some(b"0\r\n\r\n"));
    assert_eq!((empty.status, empty.code().as_str()), (400, "PR400-DV-0001"), "announced, but nothing came");
    let missing = system.request("PROPFIND", "/cell1/__snapshot/none.zip", &[], None);
    assert_eq!((missing.status, missing.code().as_str()), (404, "PR404-DV-0001"));
}

#[test]
fn the_xml_is_the_one_old_clients_parse() {
    let mut system = System::start();
    let _worker = system.worker();
    system.sample_cell("cell1", &[]);
    for name in ["b", "a"] {
        system.export("cell1", name);
    }
    system
        .execute("INSERT INTO snapshot_entry (cell_id, base_name, kind, body) SELECT id, 'c', 'error', '{}' FROM cell");
    // What is being made is not shown, not even as an empty response.
    system.execute("INSERT INTO snapshot_entry (cell_id, base_name, kind) SELECT id, 'd', 'pending' FROM cell");
    let answer = system.request("PROPFIND", "/cell1/__snapshot/", &[("Depth", "1")], None);
    assert_eq!((answer.status, answer.header("content-type")), (207, Some("application/xml")));
    let etag = answer.header("etag").unwrap();
    assert!(etag.starts_with('"') && etag.ends_with('"') && etag.contains('-'), "{etag}");
    let text = answer.text();
    let cell = format!("http://localhost:{}/cell1/", system.address.port());
    let start = format!(
        "<multistatus xmlns=\"DAV:\">\n    <response>\n        <href>{cell}__snapshot</href>\n        <propstat>\n            \
         <prop>\n                <creationdate>"
    );
    assert!(text.starts_with(&start), "{text}");
    // The web client takes child 1 of resourcetype: white space must stand before the collection.
    assert!(text.contains("<resourcetype>\n                    <collection/>"), "{text}");
    assert!(text.contains("<status>HTTP/1.1 200 OK</status>"), "{text}");
    assert!(text.contains("cellstatus") && text.contains(">normal<"), "{text}");
    let hrefs: Vec<_> = text.split("<href>").skip(1).filter_map(|t| t.split('<').next()).collect();
    let files: Vec<_> = hrefs.iter().filter(|h| h.contains("__snapshot")).collect();
    let expected = ["__snapshot", "__snapshot/a.zip", "__snapshot/b.zip", "__snapshot/c.error"];
    assert_eq!(files, expected.map(|e| format!("{cell}{e}")).iter().collect::<Vec<_>>());
    assert_eq!(system.files("cell1"), ["a.zip", "b.zip", "c.error"]);
    for part in
        ["<getcontenttype>application/zip</getcontenttype>", "<getcontenttype>application/json</getcontenttype>"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let modified = text.split("<getlastmodified>").nth(1).and_then(|t| t.split('<').next()).unwrap();
    assert!(modified.ends_with(" GMT"), "{modified}");

    let one = system.request("PROPFIND", "/cell1/__snapshot/a.zip", &[("Depth", "0")], None);
    let get = system.request("HEAD", "/cell1/__snapshot/a.zip", &[], None);
    assert_eq!(one.header("etag"), get.header("etag"));
}
