//! Clients that send too slowly, or do not take what they asked for, get an end; the others notice nothing.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use system_tests::http;
use system_tests::judge::skipped;
use system_tests::system::{Options, System, TOKEN};

const SIZE: usize = 40_000_000;

/// Reads to the end of a connection, whatever ends it; how much came.
fn read_all(stream: &mut TcpStream) -> usize {
    let (mut piece, mut read) = (vec![0; 64 << 10], 0);
    loop {
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return read,
            Ok(n) => read += n,
        }
    }
}

fn begin_download(system: &System) -> TcpStream {
    let bearer = format!("Bearer {TOKEN}");
    let headers = [("Authorization", bearer.as_str())];
    http::begin(system.address, "GET", "/cell1/__snapshot/big.zip", &headers, None).unwrap()
}

#[test]
fn a_client_that_does_not_read_is_cut_off_and_one_that_reads_slowly_is_not() {
    let settings = vec![("DOWNLOAD_WINDOW_SECS", "1".to_owned())];
    let system = System::start_with(Options { settings, ..Options::default() });
    system.make_cell("cell1");
    assert_eq!(system.put("cell1", "big.zip", &[], &vec![7; SIZE]).status, 201);
    let mut stalled: Vec<TcpStream> = (0..30).map(|_| begin_download(&system)).collect();
    let mut slow = begin_download(&system);
    let begun = Instant::now();
    let mut piece = vec![0; 1 << 20];
    let mut read = 0;
    // Much faster than the least rate, much slower than the connection.
    while begun.elapsed() < Duration::from_secs(4) {
        read += slow.read(&mut piece).unwrap();
        std::thread::sleep(Duration::from_millis(50));
    }
    read += read_all(&mut slow);
    assert!(read > SIZE, "whoever takes it gets it all: {read}");
    system.eventually("the stalled clients are noticed", || {
        system.api().log().matches("takes its answer too slowly").count() == stalled.len()
    });
    for stream in &mut stalled {
        assert!(read_all(stream) < SIZE, "their connections are ended");
    }
    assert_eq!(std::fs::metadata(system.download("cell1", "big.zip")).unwrap().len(), SIZE as u64);
    let descriptors = format!("/proc/{}/fd", system.api().id());
    system.eventually("nothing is left of them", || std::fs::read_dir(&descriptors).unwrap().count() < 80);
}

#[test]
fn a_client_that_sends_slowly_gets_an_end_and_holds_nobody_up() {
    let system = System::start();
    system.make_cell("cell1");
    let waiting = |mut stream: TcpStream| {
        std::thread::spawn(move || {
            let begun = Instant::now();
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            (begun.elapsed(), String::from_utf8_lossy(&answer).into_owned())
        })
    };
    let mut heads = Vec::new();
    for start in ["", "POST /cell1/__export HT", "POST /cell1/__export HTTP/1.1\r\nHost: a\r\nX: "] {
        let mut stream = TcpStream::connect(system.address).unwrap();
        stream.write_all(start.as_bytes()).unwrap();
        heads.push((start, waiting(stream)));
    }
    let bearer = format!("Bearer {TOKEN}");
    let mut bodies = Vec::new();
    for (method, path) in [("POST", "/cell1/__export"), ("PROPFIND", "/cell1/__snapshot"), ("POST", "/__ctl/Cell")] {
        let headers = [("Authorization", bearer.as_str()), ("Depth", "0")];
        let mut stream = http::begin(system.address, method, path, &headers, Some(100)).unwrap();
        stream.write_all(b"{").unwrap();
        bodies.push((path, waiting(stream)));
    }
    // Meanwhile others are served.
    for _ in 0..20 {
        assert_eq!(system.request("GET", "/cell1/__export", &[], None).status, 200);
    }
    for (start, head) in heads {
        let (time, answer) = head.join().unwrap();
        assert!(time < Duration::from_secs(20), "{start}: {time:?}");
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{start}: {answer}");
    }
    for (path, body) in bodies {
        let (time, answer) = body.join().unwrap();
        assert!(time < Duration::from_secs(25), "{path}: {time:?}");
        assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("PR408-EX-0001"), "{path}: {answer}");
    }
}

/// A login shell's limit of open files is less than the service has use for.
#[test]
fn the_api_takes_as_many_connections_as_it_is_granted() {
    let mut system = System::start();
    let prlimit = "/usr/bin/prlimit";
    if !std::path::Path::new(prlimit).exists() {
        return skipped("prlimit is not here");
    }
    drop(system.take_api());
    let api = system.service("api", &[], &[prlimit, "--nofile=256:4096"]);
    system.eventually("it answers", || std::net::TcpStream::connect(system.address).is_ok());
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", api.id())).expect("a running process");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a line");
    assert_eq!(line.split_whitespace().nth(3), Some("4096"), "{line}");
    let idle: Vec<_> = (0..400).map(|_| std::net::TcpStream::connect(system.address).expect("a connection")).collect();
    assert_eq!(system.anonymous("OPTIONS", "/", &[], None).status, 200, "beside {} others", idle.len());
}
