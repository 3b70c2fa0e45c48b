//! `PUT` and `DELETE` of snapshot files: what comes in whole is seen at once, what does not leaves no trace.

use std::io::Write;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use system_tests::http::{self, Answer};
use system_tests::system::{Options, System, TOKEN};

fn with(settings: &[(&'static str, &str)]) -> System {
    let settings = settings.iter().map(|(name, value)| (*name, value.to_string())).collect();
    let system = System::start_with(Options { settings, ..Options::default() });
    system.make_cell("cell1");
    system
}

fn outcome(answer: &Answer) -> (u16, String) {
    (answer.status, answer.code())
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

fn get(system: &System, file: &str) -> Answer {
    system.request("GET", &format!("/cell1/__snapshot/{file}"), &[], None)
}

/// Waits until that many files lie in the area; what is thrown away goes shortly after the answer.
fn settles(system: &System, files: usize) {
    system.eventually("what was thrown away is gone", || system.stored().len() == files);
}

/// What PROPFIND says of one file.
fn described(system: &System, file: &str) -> String {
    let answer = system.request("PROPFIND", &format!("/cell1/__snapshot/{file}"), &[("Depth", "0")], None);
    assert_eq!(answer.status, 207, "{}", answer.text());
    answer.text()
}

#[test]
fn an_upload_is_seen_at_once_as_it_came() {
    let system = with(&[]);
    let bytes: Vec<u8> = (0..3_000_000u32).map(|n| (n * 7 % 251) as u8).collect();
    let put = system.put("cell1", "one.zip", &[("Content-Type", "Application/X-Zip; a=\"b\"")], &bytes);
    assert_eq!((put.status, put.body.len()), (201, 0), "{}", put.text());
    for absent in ["location", "content-type"] {
        assert_eq!(put.header(absent), None, "{absent}");
    }
    assert_eq!(put.header("x-personium-version"), Some("1.8.4"));
    let etag = put.header("etag").unwrap().to_owned();
    let (version, millis) = etag.trim_matches('"').split_once('-').unwrap();
    assert!(version == "1" && millis.len() == 13 && millis.bytes().all(|b| b.is_ascii_digit()), "{etag}");

    let got = get(&system, "one.zip");
    assert!(got.status == 200 && got.body == bytes, "{}", got.status);
    for (name, value) in [
        ("etag", etag.as_str()),
        ("content-type", "Application/X-Zip; a=\"b\""),
        ("content-disposition", "attachment; filename=\"one.zip\""),
        ("x-content-type-options", "nosniff"),
        ("cache-control", "no-store"),
    ] {
        assert_eq!(got.header(name), Some(value), "{name}");
    }
    let several = system.request("GET", "/cell1/__snapshot/one.zip", &[("Range", "bytes=0-1,4-5")], None);
    assert!(several.text().contains("\r\nContent-Type: Application/X-Zip; a=\"b\"\r\n"), "{}", several.text());
    let text = described(&system, "one.zip");
    assert!(text.contains("<getcontenttype>Application/X-Zip; a=&quot;b&quot;</getcontenttype>"), "{text}");
    assert!(text.contains("<getcontentlength>3000000</getcontentlength>"), "{text}");
    let digest = system.value("SELECT encode(sha256, 'hex') FROM snapshot_entry");
    assert_eq!(digest, system.value(&format!("SELECT encode(sha256('\\x{}'::bytea), 'hex')", hex(&bytes))));

    // Replaced: another version, and the old bytes are gone.
    let again = system.put("cell1", "one.zip", &[], b"other");
    assert_eq!((again.status, again.body.len()), (204, 0));
    let new_etag = again.header("etag").unwrap();
    assert!(new_etag.starts_with("\"2-") && new_etag != etag, "{new_etag}");
    let got = get(&system, "one.zip");
    assert_eq!((got.body.as_slice(), got.header("etag")), (&b"other"[..], Some(new_etag)));
    assert_eq!(got.header("content-type"), Some("application/octet-stream"), "none was given");
    let text = described(&system, "one.zip");
    assert!(text.contains("<getcontenttype/>"), "{text}");
    assert_eq!(system.stored().len(), 1, "{:?}", system.stored());

    // Nothing, and a body of unknown length.
    assert_eq!(system.put("cell1", "empty.zip", &[], b"").status, 201);
    let empty = get(&system, "empty.zip");
    assert_eq!((empty.status, empty.header("content-length")), (200, Some("0")));
    for range in ["bytes=0-", "bytes=-5"] {
        let answer = system.request("GET", "/cell1/__snapshot/empty.zip", &[("Range", range)], None);
        assert_eq!(outcome(&answer), refused(416, "PR416-DV-0001"), "{range}");
    }
    let chunked =
        system.put("cell1", "chunks.zip", &[("Transfer-Encoding", "chunked")], b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
    assert_eq!(chunked.status, 201, "{}", chunked.text());
    assert_eq!(get(&system, "chunks.zip").body, b"abcde");
    assert_eq!(system.files("cell1"), ["chunks.zip", "empty.zip", "one.zip"]);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn conditions_decide_what_is_replaced() {
    let system = with(&[]);
    let put = |file: &str, headers: &[(&str, &str)]| system.put("cell1", file, headers, b"x");
    let old = put("old.zip", &[]).header("etag").unwrap().to_owned();
    let tag = |answer: &Answer| answer.header("etag").unwrap().to_owned();
    // A new name: nothing to match.
    for (file, header) in
        [("n1.zip", ("If-Match", "\"9-9\"")), ("n2.zip", ("If-None-Match", "*")), ("n3.zip", ("If-Match", "*"))]
    {
        assert_eq!(put(file, &[header]).status, 201, "{header:?}");
    }
    let unquoted = old.trim_matches('"').to_owned();
    for header in [
        ("If-Match", "\"1-1\""),
        ("If-Match", unquoted.as_str()),
        ("If-Match", ""),
        ("If-Match", "é"),
        ("If-None-Match", "*"),
    ] {
        let answer = put("old.zip", &[header]);
        assert_eq!(outcome(&answer), refused(412, "PR412-DV-0001"), "{header:?}: {}", answer.text());
        assert_eq!(answer.message(), "ETag does not match.");
    }
    assert_eq!(get(&system, "old.zip").header("etag"), Some(old.as_str()), "nothing has changed");
    let second = put("old.zip", &[("If-Match", &old)]);
    assert_eq!(second.status, 204);
    let third = put("old.zip", &[("If-Match", &format!("W/{}", tag(&second)))]);
    assert_eq!(third.status, 204);
    assert_eq!(put("old.zip", &[("If-Match", "*")]).status, 204);
    // What else the units' web client sends in this header is no condition.
    let etag = tag(&put("old.zip", &[("If-None-Match", "undefined")]));
    assert!(etag.starts_with("\"5-"), "{etag}");
    assert_eq!(put("old.zip", &[("If-None-Match", &etag)]).status, 204, "only * is a condition here");
}

#[test]
fn a_name_is_one_safe_segment() {
    let system = with(&[]);
    let long = format!("{}.zip", "x".repeat(193));
    let names = [
        // Dot segments and separators, however they are written.
        "..",
        ".",
        "...",
        "%2e",
        "%2e%2e",
        "%2E%2E",
        ".%2e",
        "%2e.",
        "..%2f",
        "..%2fx.zip",
        "..%2f..%2fx.zip",
        "%2e%2e%2fx.zip",
        "..%2F..%2F..%2Fetc%2Fpasswd",
        "a%2Fb.zip",
        "a%2fb.zip",
        "%2fx.zip",
        "%2Fetc%2Fx.zip",
        "x.zip%2f",
        "x.zip%2f..",
        "%2e%2f",
        // Backslashes and drives.
        "..%5cx.zip",
        "..%5c..%5cx.zip",
        "a%5Cb.zip",
        "%5c%5chost%5cx.zip",
        "c:x.zip",
        "C%3A%5cx.zip",
        "c%3ax.zip",
        // Encoded twice, and in ways that were never allowed.
        "%252e%252e%252fx.zip",
        "%252e%252e",
        "..%252fx.zip",
        "a%252fb.zip",
        "%25%32%65%25%32%65",
        "%u002e%u002e%u2215x.zip",
        "%%32%65x.zip",
        "%2",
        "%zz.zip",
        // UTF-8 that is too long, cut off, or of another planet.
        "%c0%ae%c0%ae%c0%afx.zip",
        "%c0%af.zip",
        "%e0%80%afx.zip",
        "%e0%80%ae.zip",
        "%f0%80%80%afx.zip",
        "%c1%9cx.zip",
        "%ff.zip",
        "%fe%ff.zip",
        "%ed%a0%80.zip",
        "%c3.zip",
        // Look-alikes.
        "%ef%bc%8e%ef%bc%8e.zip",
        "%ef%bc%8fx.zip",
        "%e2%88%95x.zip",
        "%e2%81%84x.zip",
        "%e2%80%a5.zip",
        "%e3%80%82.zip",
        "x%ef%bc%8ezip",
        "%e5%86%99.zip",
        "%d0%b0.zip",
        // Control characters, white space, and what other systems cut off.
        "%00.zip",
        "x.zip%00",
        "x%00.zip",
        "x%00.zip.txt",
        "%0d%0ax.zip",
        "x%0a.zip",
        "x.zip%0a",
        "x%09.zip",
        "%7f.zip",
        "%20.zip",
        "x.zip%20",
        "x%20y.zip",
        "x+y.zip",
        "x.zip.",
        // Parameters, other extensions, and none.
        "x.zip;a=b",
        "x.zip%3ba=b",
        "..;x.zip",
        "..;",
        "x.zip%3f",
        "x.zip%23",
        "x.error",
        "x.ZIP",
        "x.Zip",
        "x",
        ".zip",
        "x..zip",
        "a.b.zip",
        ".hidden.zip",
        "x.zip~",
        "x.tar",
        "$x.zip",
        "*.zip",
        "%2a.zip",
        "'x'.zip",
        "x%22.zip",
        "%3cx%3e.zip",
        "x%7c.zip",
        "~x.zip",
        "con%3a.zip",
        &long,
    ];
    assert!(names.len() > 60);
    for name in names {
        let answer = system.put("cell1", name, &[], b"x");
        assert_eq!(outcome(&answer), refused(400, "PR400-CM-0002"), "{name}: {}", answer.text());
        assert_eq!(answer.message(), r"Field [Name] format error. Must be [^[a-zA-Z0-9-_]{1,192}\.zip$].", "{name}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{name}");
    }
    // More than one segment is another resource.
    for name in ["a/b.zip", "../x.zip", "a/../x.zip", "/x.zip", "..%2f/x.zip"] {
        assert_eq!(outcome(&system.put("cell1", name, &[], b"x")), refused(404, "PR404-MC-0001"), "{name}");
    }
    // Bytes that no URL has: the server library itself refuses most of them.
    for name in ["..\\x.zip", "x\u{ff0e}zip", "\u{202e}x.zip", "x\ty.zip", "<x>.zip"] {
        assert_eq!(system.put("cell1", name, &[], b"x").status, 400, "{name:?}");
    }
    assert!(system.files("cell1").is_empty() && system.stored().is_empty(), "{:?}", system.stored());
    let beside: Vec<_> = std::fs::read_dir(system.directory()).unwrap().flatten().map(|e| e.file_name()).collect();
    assert!(beside.iter().all(|n| ["area", "api.log"].contains(&n.to_str().unwrap())), "{beside:?}");
    // The same characters may be written in another way.
    assert_eq!(system.put("cell1", "%78%2Ezip/", &[], b"x").status, 201);
    assert_eq!(system.put("cell1", &long[1..], &[], b"x").status, 201);
    assert_eq!(system.files("cell1"), ["x.zip", &long[1..]]);
}

#[test]
fn a_media_type_is_kept_as_it_is_or_refused() {
    let system = with(&[]);
    let longest = format!("a/{}", "b".repeat(253));
    for good in ["text/html", "application/zip; x=y", &longest] {
        assert!(system.put("cell1", "a.zip", &[("Content-Type", good)], b"x").status < 300, "{good}");
        assert_eq!(get(&system, "a.zip").header("content-type"), Some(good));
    }
    for bad in ["garbage", "a/b; c=\u{e9}", "a/b; c=\"\t\"", &format!("{longest}b")] {
        let answer = system.put("cell1", "b.zip", &[("Content-Type", bad)], b"x");
        assert_eq!(outcome(&answer), refused(400, "PR400-OD-0041"), "{bad:?}: {}", answer.text());
    }
    assert_eq!(system.files("cell1"), ["a.zip"]);
}

/// Begins an upload and leaves the rest to the test.
fn begin(system: &System, file: &str, headers: &[(&str, &str)], length: Option<usize>) -> std::net::TcpStream {
    let bearer = format!("Bearer {TOKEN}");
    let headers = [&[("Authorization", bearer.as_str())], headers].concat();
    http::begin(system.address, "PUT", &format!("/cell1/__snapshot/{file}"), &headers, length).unwrap()
}

#[test]
fn a_broken_upload_leaves_the_old_file_and_nothing_else() {
    let system = with(&[]);
    let old = system.put("cell1", "a.zip", &[], b"old").header("etag").unwrap().to_owned();
    let piece = [7; 200_000];
    let arrived = || system.stored().iter().any(|name| name.ends_with(".part"));
    for (case, headers, length) in [
        ("end of the connection", vec![], Some(1_000_000)),
        ("reset, because the client never read the 100", vec![("Expect", "100-continue")], Some(1_000_000)),
        ("end within chunks", vec![("Transfer-Encoding", "chunked")], None),
        ("reset within chunks", vec![("Transfer-Encoding", "chunked"), ("Expect", "100-continue")], None),
    ] {
        let mut stream = begin(&system, "a.zip", &headers, length);
        if length.is_none() {
            stream.write_all(b"30d40\r\n").unwrap();
        }
        stream.write_all(&piece).unwrap();
        system.eventually("the upload has begun", arrived);
        drop(stream);
        system.eventually("nothing is left of it", || !arrived());
        let got = get(&system, "a.zip");
        assert_eq!((got.body.as_slice(), got.header("etag")), (&b"old"[..], Some(old.as_str())), "{case}");
    }
    // A client that still listens is told.
    let mut half = begin(&system, "a.zip", &[], Some(10));
    half.write_all(b"12345").unwrap();
    half.shutdown(Shutdown::Write).unwrap();
    assert_eq!(outcome(&http::finish(half, "PUT").unwrap()), refused(500, "PR500-CM-0001"));
    // Chunks that are none: the server library closes the connection.
    let mut garbage = begin(&system, "a.zip", &[("Transfer-Encoding", "chunked")], None);
    garbage.write_all(b"3\r\nabc\r\nzz\r\n").unwrap();
    assert!(!http::finish(garbage, "PUT").is_ok_and(|answer| answer.status < 400));
    settles(&system, 1);
    assert_eq!(get(&system, "a.zip").body, b"old");
}

#[test]
fn a_client_that_falls_silent_is_told_so() {
    let system = with(&[("UPLOAD_IDLE_SECS", "0.4")]);
    let begun = Instant::now();
    // With a length and without; the server does not wait for the rest.
    for (headers, length, first) in
        [(vec![], Some(1_000_000), &b"abc"[..]), (vec![("Transfer-Encoding", "chunked")], None, &b"3\r\nabc\r\n"[..])]
    {
        let headers = [&headers[..], &[("Connection", "keep-alive")]].concat();
        let mut stream = begin(&system, "a.zip", &headers, length);
        stream.write_all(first).unwrap();
        let answer = http::finish(stream, "PUT").unwrap();
        assert_eq!(outcome(&answer), refused(408, "PR408-EX-0001"), "{headers:?}");
        assert_eq!(answer.header("connection"), Some("close"), "{headers:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(system.files("cell1").is_empty());
    settles(&system, 0);
}

#[test]
fn a_client_that_trickles_is_told_so() {
    let system = with(&[("UPLOAD_WINDOW_SECS", "0.8")]);
    let mut stream = begin(&system, "a.zip", &[], Some(1_000_000));
    let mut sending = stream.try_clone().unwrap();
    let trickle = std::thread::spawn(move || {
        while sending.write_all(b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    stream.flush().unwrap();
    assert_eq!(outcome(&http::finish(stream, "PUT").unwrap()), refused(408, "PR408-EX-0001"));
    // Slow, but fast enough: 64 KiB per second.
    let mut stream = begin(&system, "fine.zip", &[], Some(12 * 10_000));
    for _ in 0..12 {
        stream.write_all(&[7; 10_000]).unwrap();
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(http::finish(stream, "PUT").unwrap().status, 201);
    assert_eq!(system.files("cell1"), ["fine.zip"]);
    settles(&system, 1);
    trickle.join().unwrap();
}

#[test]
fn lengths_are_limited() {
    let system = with(&[("UPLOAD_MAX_BYTES", "1000000"), ("CELL_QUOTA_BYTES", "1500000")]);
    let too_long = vec![7; 1_000_001];
    let chunked = |length: usize| [format!("{length:x}\r\n").as_bytes(), &vec![7; length], b"\r\n0\r\n\r\n"].concat();
    let unknown = [("Transfer-Encoding", "chunked")];
    let answer = system.put("cell1", "a.zip", &[], &too_long);
    assert_eq!(outcome(&answer), refused(413, "PR413-EX-0001"));
    assert_eq!(answer.message(), "The request body is longer than 1000000 bytes.");
    // Refused for what it announces, before anything of it is sent.
    let announced = http::finish(begin(&system, "a.zip", &[], Some(1_000_001)), "PUT").unwrap();
    assert_eq!((outcome(&announced), announced.header("connection")), (refused(413, "PR413-EX-0001"), Some("close")));
    let expecting =
        http::finish(begin(&system, "a.zip", &[("Expect", "100-continue")], Some(1_000_001)), "PUT").unwrap();
    assert_eq!(outcome(&expecting), refused(413, "PR413-EX-0001"));
    assert_eq!(outcome(&system.put("cell1", "a.zip", &unknown, &chunked(1_000_001))), refused(413, "PR413-EX-0001"));
    settles(&system, 0);

    assert_eq!(system.put("cell1", "a.zip", &unknown, &chunked(1_000_000)).status, 201, "as long as allowed");
    let answer = system.put("cell1", "b.zip", &[], &[7; 500_001]);
    assert_eq!(outcome(&answer), refused(507, "PR507-EX-0001"));
    assert_eq!(answer.message(), "The snapshots of the cell may take 1500000 bytes.");
    assert_eq!(outcome(&system.put("cell1", "b.zip", &unknown, &chunked(500_001))), refused(507, "PR507-EX-0001"));
    assert_eq!(system.put("cell1", "b.zip", &[], &[7; 500_000]).status, 201, "what the quota leaves");
    assert_eq!(system.put("cell1", "a.zip", &[], &[7; 1_000_000]).status, 204, "what is replaced does not count");
    system.make_cell("cell2");
    assert_eq!(system.put("cell2", "b.zip", &[], &[7; 500_001]).status, 201, "each cell has its own quota");
    settles(&system, 3);
}

#[test]
fn two_uploads_share_the_quota() {
    let system = with(&[("CELL_QUOTA_BYTES", "1000")]);
    let mut streams: Vec<_> = ["a.zip", "b.zip"].map(|file| begin(&system, file, &[], Some(600))).into();
    system.eventually("both have begun", || system.stored().len() == 2);
    let mut statuses: Vec<_> = streams
        .drain(..)
        .map(|mut stream| {
            stream.write_all(&[7; 600]).unwrap();
            http::finish(stream, "PUT").unwrap().status
        })
        .collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 507]);
    assert_eq!((system.files("cell1").len(), system.stored().len()), (1, 1), "what was refused is gone");
}

#[test]
fn a_full_disk_and_too_many_uploads_pass() {
    let system = with(&[("DISK_RESERVE_BYTES", "1000000000000000")]);
    let answer = system.put("cell1", "a.zip", &[], b"x");
    assert_eq!((outcome(&answer), answer.header("retry-after")), (refused(503, "PR503-SV-0005"), Some("60")));
    drop(system);

    let system = with(&[]);
    let names: Vec<_> = (0..model::limits::UPLOADS).map(|n| format!("n{n}.zip")).collect();
    let mut streams: Vec<_> = names.iter().map(|name| begin(&system, name, &[], Some(1))).collect();
    system.eventually("all have begun", || system.stored().len() == model::limits::UPLOADS);
    let answer = system.put("cell1", "a.zip", &[], b"x");
    assert_eq!((outcome(&answer), answer.header("retry-after")), (refused(503, "PR503-SV-0001"), Some("5")));
    let mut first = streams.remove(0);
    first.write_all(b"x").unwrap();
    assert_eq!(http::finish(first, "PUT").unwrap().status, 201);
    assert_eq!(system.put("cell1", "a.zip", &[], b"x").status, 201, "there is room again");
    drop(streams);
    settles(&system, 2);
}

#[test]
fn credentials_come_before_everything_and_the_answer_before_the_body() {
    let system = with(&[]);
    let body = vec![7; 20_000_000];
    for (headers, target, status, code) in [
        (vec![], "/cell1/__snapshot/a.zip", 401, "PR401-AU-0001"),
        (vec![("Authorization", "Bearer x")], "/cell1/__snapshot/..", 401, "PR401-AU-0006"),
        (vec![], "/nocell/__snapshot/a.zip", 404, "PR404-DV-0003"),
        (vec![("Transfer-Encoding", "chunked")], "/cell1/__snapshot/a.zip", 401, "PR401-AU-0001"),
        (vec![("Expect", "100-continue")], "/cell1/__snapshot/a.zip", 401, "PR401-AU-0001"),
    ] {
        let mut body = body.clone();
        if headers.contains(&("Transfer-Encoding", "chunked")) {
            body.splice(0..0, format!("{:x}\r\n", body.len() + 1).into_bytes());
        }
        let headers = [&headers[..], &[("Connection", "keep-alive")]].concat();
        let answer = system.anonymous("PUT", target, &headers, Some(&body));
        assert_eq!(outcome(&answer), refused(status, code), "{headers:?}");
        assert_eq!(answer.header("connection"), Some("close"), "{headers:?}");
    }
    assert!(system.stored().is_empty());
}

#[test]
fn a_name_that_a_job_uses_stays_as_it_is() {
    let system = with(&[]);
    let busy = |what: &str| format!("Because [{what}] is being executed, writing to cell can not be done.");
    // Nobody works here: what is accepted stays queued.
    assert_eq!(system.post_export("cell1", "mine").status, 202);
    let answer = system.put("cell1", "mine.zip", &[], b"x");
    assert_eq!((outcome(&answer), answer.message()), (refused(409, "PR409-CM-0002"), busy("cell export")));
    let answer = system.request("DELETE", "/cell1/__snapshot/mine.zip", &[], None);
    assert_eq!(outcome(&answer), refused(404, "PR404-DV-0001"), "not there yet");
    assert_eq!(system.put("cell1", "other.zip", &[], b"x").status, 201);
    system.execute("DELETE FROM snapshot_entry WHERE kind = 'pending'");
    system.execute("DELETE FROM job");

    // An import, as it was accepted.
    system.execute(
        "INSERT INTO job (id, cell_id, name, deadline_at, max_strikes, kind, source_key)
         SELECT gen_random_uuid(), cell_id, 'other', now() + interval '1 hour', 4, 'import', blob_key FROM snapshot_entry",
    );
    for method in ["PUT", "DELETE"] {
        let answer = system.request(method, "/cell1/__snapshot/other.zip", &[], Some(b"x"));
        assert_eq!(
            (outcome(&answer), answer.message()),
            (refused(409, "PR409-CM-0002"), busy("cell import")),
            "{method}"
        );
    }
    assert_eq!(system.put("cell1", "third.zip", &[], b"x").status, 201);
    assert_eq!(system.request("DELETE", "/cell1/__snapshot/third.zip", &[], None).status, 204);
    assert_eq!(outcome(&system.post_export("cell1", "new")), refused(409, "PR409-CM-0002"));
    assert_eq!(system.post_export("cell1", "new").message(), busy("cell import"));
}

#[test]
fn an_upload_to_a_cell_that_goes_meanwhile_goes_too() {
    let system = with(&[]);
    let mut stream = begin(&system, "a.zip", &[], Some(3));
    system.eventually("it has begun", || system.stored().len() == 1);
    assert_eq!(system.request("DELETE", "/__ctl/Cell('cell1')", &[], None).status, 204);
    stream.write_all(b"abc").unwrap();
    assert_eq!(outcome(&http::finish(stream, "PUT").unwrap()), refused(404, "PR404-DV-0003"));
    settles(&system, 0);
}

#[test]
fn an_upload_whose_end_is_unknown_is_not_taken_back() {
    let system = with(&[]);
    assert_eq!(system.put("cell1", "a.zip", &[], b"old").status, 201);
    let mut stream = begin(&system, "a.zip", &[], Some(3));
    system.eventually("it has begun", || system.stored().len() == 2);
    // The last statement has to wait for this lock, longer than its client.
    let mut lock = system.block_on(system.pool().begin()).unwrap();
    system.block_on(sqlx::query("SELECT id FROM cell FOR UPDATE").execute(&mut *lock)).unwrap();
    stream.write_all(b"new").unwrap();
    let answer = http::finish(stream, "PUT").unwrap();
    assert_eq!((outcome(&answer), answer.header("retry-after")), (refused(503, "PR503-SV-0006"), Some("5")));
    system.block_on(lock.rollback()).unwrap();
    // It ends one way or the other. Whatever is listed is there.
    system.eventually("nothing waits any more", || {
        system.value(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()",
        ) == "0"
    });
    for _ in 0..10 {
        let got = get(&system, "a.zip");
        assert!(got.status == 200 && [b"old", b"new"].iter().any(|b| got.body == b[..]), "{}", got.text());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn deleting_follows_the_table() {
    let system = with(&[]);
    let delete = |file: &str, headers: &[(&str, &str)]| {
        system.request("DELETE", &format!("/cell1/__snapshot/{file}"), headers, None)
    };
    let cell = format!("http://localhost:{}/cell1/", system.address.port());
    for (file, shown) in
        [("none.zip", "none.zip"), ("none.error", "none.error"), ("a.txt", "a.txt"), ("..%2fx", "../x")]
    {
        let answer = delete(file, &[]);
        assert_eq!(outcome(&answer), refused(404, "PR404-DV-0001"), "{file}");
        assert_eq!(answer.message(), format!("Resource not found. [{cell}__snapshot/{shown}]."));
    }
    let etag = system.put("cell1", "a.zip", &[], b"x").header("etag").unwrap().to_owned();
    assert_eq!(outcome(&delete("a.zip", &[("If-Match", "\"1-1\"")])), refused(412, "PR412-DV-0001"));
    assert_eq!(outcome(&delete("a.error", &[])), refused(404, "PR404-DV-0001"), "it is a zip");
    assert_eq!(system.files("cell1"), ["a.zip"]);
    let answer = delete("a.zip", &[("If-Match", &etag), ("If-None-Match", "*")]);
    assert_eq!((answer.status, answer.body.len(), answer.header("etag")), (204, 0, None));
    assert!(system.files("cell1").is_empty() && system.stored().is_empty(), "{:?}", system.stored());
    assert_eq!(outcome(&delete("a.zip", &[])), refused(404, "PR404-DV-0001"), "gone");
    let again = system.put("cell1", "a.zip", &[], b"y");
    assert!(again.status == 201 && again.header("etag").unwrap().starts_with("\"1-"), "a new file");
    assert_eq!(delete("a.zip", &[("If-Match", "*")]).status, 204);

    // An error file, as a failed export leaves it.
    assert_eq!(system.post_export("cell1", "bad").status, 202);
    system.execute("UPDATE job SET deadline_at = now() - interval '1 hour'");
    system.eventually("the export has failed", || system.files("cell1") == ["bad.error"]);
    assert_eq!(outcome(&delete("bad.zip", &[])), refused(404, "PR404-DV-0001"), "it is an error file");
    assert_eq!(get(&system, "bad.error").header("content-type"), Some("application/json"));
    // An upload of that name makes it give way.
    let answer = system.put("cell1", "bad.zip", &[("If-Match", "\"1-1\"")], b"x");
    assert!(answer.status == 201 && answer.header("etag").unwrap().starts_with("\"1-"), "a new file");
    assert_eq!(system.files("cell1"), ["bad.zip"]);
    assert_eq!(delete("bad.zip", &[]).status, 204);
    assert_eq!(system.post_export("cell1", "bad").status, 202);
    system.execute("UPDATE job SET deadline_at = now() - interval '1 hour' WHERE state = 'queued'");
    system.eventually("the export has failed", || system.files("cell1") == ["bad.error"]);
    assert_eq!(delete("bad.error", &[]).status, 204);
    assert!(system.files("cell1").is_empty());
}
