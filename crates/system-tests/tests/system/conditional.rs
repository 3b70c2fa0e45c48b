//! Downloads: conditions, ranges, and what stays as it was for clients of old.

use system_tests::http::Answer;
use system_tests::system::System;

#[test]
fn conditions_and_ranges_follow_the_table() {
    let mut system = System::start();
    let _worker = system.worker();
    system.sample_cell("cell1", &[]);
    let whole = std::fs::read(system.export("cell1", "one")).unwrap();
    let size = whole.len();
    let get = |headers: &[(&str, &str)]| system.request("GET", "/cell1/__snapshot/one.zip", headers, None);
    let plain = get(&[]);
    let etag = plain.header("etag").unwrap().to_owned();
    assert_eq!(plain.body, whole);
    for (name, value) in [
        ("content-type", "application/zip"),
        ("accept-ranges", "bytes"),
        ("content-length", &size.to_string()),
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
    ] {
        assert_eq!(plain.header(name), Some(value), "{name}");
    }
    let (version, millis) = etag.trim_matches('"').split_once('-').unwrap();
    assert!(version == "1" && millis.len() == 13 && millis.bytes().all(|b| b.is_ascii_digit()), "{etag}");
    let modified = plain.header("last-modified").unwrap().to_owned();

    let weak = format!("W/{etag}");
    let list = format!("{etag}, \"x\"");
    let unquoted = etag.trim_matches('"').to_owned();
    for (value, status) in [
        (etag.as_str(), 304),
        (weak.as_str(), 304),
        // The units' web client always sends this and needs a 200.
        ("*", 200),
        ("undefined", 200),
        (list.as_str(), 200),
        (unquoted.as_str(), 200),
        ("\"1-1\"", 200),
    ] {
        let answer = get(&[("If-None-Match", value)]);
        assert_eq!(answer.status, status, "If-None-Match: {value}");
        assert_eq!(answer.header("etag"), Some(etag.as_str()), "If-None-Match: {value}");
        assert_eq!(answer.body.len(), if status == 304 { 0 } else { size }, "If-None-Match: {value}");
    }
    for name in ["If-Match", "If-Modified-Since", "If-Unmodified-Since"] {
        assert_eq!(get(&[(name, "\"x\"")]).status, 200, "{name} is ignored");
    }

    let single = |range: &str| get(&[("Range", range)]);
    for (range, start, end) in [
        ("bytes=0-0", 0, 0),
        ("bytes=10-19", 10, 19),
        ("bytes=100-", 100, size - 1),
        ("bytes=-7", size - 7, size - 1),
        ("bytes=5-99999999", 5, size - 1),
        ("bytes=-99999999", 0, size - 1),
        ("bytes=99999999-,3-4", 3, 4),
    ] {
        let answer = single(range);
        assert_eq!(answer.status, 206, "{range}");
        let expected = format!("bytes {start}-{end}/{size}");
        assert_eq!(answer.header("content-range"), Some(expected.as_str()), "{range}");
        assert_eq!(answer.body, whole[start..=end], "{range}");
        assert_eq!(answer.header("etag"), Some(etag.as_str()), "{range}");
    }
    for range in ["bytes=x", "bytes=5-3", "lines=1-2", "bytes", "bytes=1-2-3"] {
        assert_eq!((single(range).status, single(range).body.len()), (200, size), "{range} is no range");
    }
    let many = format!("bytes={}", (0..17).map(|i| format!("{}-{}", i * 2, i * 2)).collect::<Vec<_>>().join(","));
    assert_eq!(single(&many).status, 200, "more ranges than one answer may hold");
    let past = single(&format!("bytes={size}-"));
    assert_eq!((past.status, past.code().as_str()), (416, "PR416-DV-0001"));
    assert_eq!(past.header("content-range"), Some(format!("bytes */{size}").as_str()));

    for (condition, status) in [
        (etag.as_str(), 206),
        (modified.as_str(), 206),
        (weak.as_str(), 200),
        ("\"1-1\"", 200),
        ("Sat, 01 Jan 2000 00:00:00 GMT", 200),
    ] {
        let answer = get(&[("Range", "bytes=0-4"), ("If-Range", condition)]);
        assert_eq!(answer.status, status, "If-Range: {condition}");
    }
    let head = system.request("HEAD", "/cell1/__snapshot/one.zip", &[], None);
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), Some(size.to_string().as_str()));
    several(&get(&[("Range", "bytes=0-3,10-19")]), &whole);
}

fn several(answer: &Answer, whole: &[u8]) {
    assert_eq!(answer.status, 206);
    let kind = answer.header("content-type").unwrap();
    let boundary = kind.strip_prefix("multipart/byteranges; boundary=").unwrap_or_else(|| panic!("{kind}"));
    assert_eq!(answer.header("content-length"), Some(answer.body.len().to_string().as_str()));
    let size = whole.len();
    let part = |start: usize, end: usize| {
        let head = format!(
            "--{boundary}\r\nContent-Type: application/zip\r\nContent-Range: bytes {start}-{end}/{size}\r\n\r\n"
        );
        [head.as_bytes(), &whole[start..=end], b"\r\n"].concat()
    };
    let expected = [part(0, 3), part(10, 19), format!("--{boundary}--\r\n").into_bytes()].concat();
    assert_eq!(String::from_utf8_lossy(&answer.body), String::from_utf8_lossy(&expected));
}

#[test]
fn a_missing_file_is_named_and_a_listed_one_without_bytes_is_not_a_404() {
    let mut system = System::start();
    let _worker = system.worker();
    system.sample_cell("cell1", &[]);
    let cell = format!("http://localhost:{}/cell1/", system.address.port());
    for (target, shown) in [
        ("none.zip", "none.zip"),
        ("a.txt", "a.txt"),
        ("noext", "noext"),
        ("%E5%86%99.zip", "写.zip"),
        ("..%2F..%2Fetc", "../../etc"),
        ("%2e%2e", ".."),
    ] {
        let answer = system.request("GET", &format!("/cell1/__snapshot/{target}"), &[], None);
        assert_eq!((answer.status, answer.code().as_str()), (404, "PR404-DV-0001"), "{target}");
        assert_eq!(answer.message(), format!("Resource not found. [{cell}__snapshot/{shown}]."), "{target}");
    }
    system.export("cell1", "one");
    std::fs::remove_dir_all(system.area()).unwrap();
    let gone = system.request("GET", "/cell1/__snapshot/one.zip", &[], None);
    assert_eq!((gone.status, gone.code().as_str()), (503, "PR503-DV-0001"));
}
