//! B11: downloads of a snapshot, whole and in ranges.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use system_tests::system::TOKEN;

use crate::bench::{Bench, size};
use crate::measure::{Side, in_turns, seconds};
use crate::nginx::Nginx;
use crate::report::{Line, Report, mb, s};

/// What a client that reads within a snapshot asks for, and two sizes in which tools download.
const RANGES: [u64; 3] = [1 << 20, 8 << 20, 64 << 20];

/// B11: the same bytes from the api and from nginx, taken by the same client.
pub(crate) fn against_nginx(bench: &mut Bench, report: &mut Report) {
    let cell = bench.large();
    let export = bench.export(&cell);
    let length = size(&export.file);
    let nginx = Nginx::serve(&export.file);
    bench.fresh(1);
    let target = format!("/{cell}/__snapshot/{}.zip", export.name);
    let unit = bench.unit();
    let ours =
        |range: &str| format!("GET {target} HTTP/1.1\r\nHost: {unit}\r\nAuthorization: Bearer {TOKEN}\r\n{range}\r\n");
    let theirs = |range: &str| format!("GET /file HTTP/1.1\r\nHost: localhost\r\n{range}\r\n");
    let (api, rounds) = (bench.system.address, bench.rounds);
    let whole = |address, request: String| move || take(address, std::slice::from_ref(&request), length);
    let sides: [Side<'_>; 2] =
        [("api", Box::new(whole(api, ours("")))), ("nginx", Box::new(whole(nginx.address, theirs(""))))];
    let times = in_turns(rounds, sides).map(|t| t.median());
    let rate = |seconds: f64| format!("{} ({:.0} MB/s)", s(seconds), length as f64 / seconds / 1e6);
    report.add(line(format!("download of {}", mb(length)), times, rate));
    for (range, count) in RANGES.into_iter().zip(bench.sizes.ranges) {
        let mut random = fastrand::Rng::with_seed(5);
        let starts: Vec<_> = (0..count).map(|_| random.u64(..length - range)).collect();
        let requests = |request: &dyn Fn(&str) -> String| {
            let range = |start: &u64| request(&format!("Range: bytes={start}-{}\r\n", start + range - 1));
            starts.iter().map(range).collect::<Vec<_>>()
        };
        let (mine, other) = (requests(&ours), requests(&theirs));
        let sides: [Side<'_>; 2] =
            [("api", Box::new(|| take(api, &mine, range))), ("nginx", Box::new(|| take(nginx.address, &other, range)))];
        let times = in_turns(rounds, sides).map(|t| t.median());
        let rate = |seconds: f64| {
            let bytes = (count as u64 * range) as f64;
            format!("{:.0}/s ({:.0} MB/s)", count as f64 / seconds, bytes / seconds / 1e6)
        };
        report.add(line(format!("{count} ranges of {} MiB of it, one connection", range >> 20), times, rate));
    }
    bench.remove(&cell, &export);
}

fn line(work: String, [mine, other]: [f64; 2], rate: impl Fn(f64) -> String) -> Line {
    Line {
        row: "B11",
        work,
        ours: rate(mine),
        other: format!("nginx: {}", rate(other)),
        ratio: format!("{:.2} × its rate", other / mine),
        goal: "≥ 0.8 ×",
        met: Some(other / mine >= 0.8),
    }
}

/// Sends requests over one connection, each after the last answer's end; returns how long that took, in seconds.
fn take(address: SocketAddr, requests: &[String], length: u64) -> f64 {
    seconds(|| {
        let mut stream = TcpStream::connect(address).expect("the server listens");
        let mut buffer = vec![0; 256 << 10];
        for request in requests {
            stream.write_all(request.as_bytes()).expect("the server reads");
            let mut left = head(&mut stream, &mut buffer, length);
            while left > 0 {
                let most = buffer.len().min(left as usize);
                let read = stream.read(&mut buffer[..most]).expect("the server sends");
                assert!(read > 0, "the connection ended {left} bytes too early");
                left -= read as u64;
            }
        }
    })
}

/// Reads an answer's head; how much of its body is still to come.
fn head(stream: &mut TcpStream, buffer: &mut [u8], length: u64) -> u64 {
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).expect("the server answers");
        assert!(read > 0, "the connection ended within a head");
        filled += read;
        let Some(end) = buffer[..filled].windows(4).position(|w| w == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&buffer[..end]).to_lowercase();
        assert!(head.starts_with("http/1.1 20"), "{head}");
        assert!(
            head.contains(&format!("content-length: {length}\r\n"))
                || head.ends_with(&format!("content-length: {length}")),
            "{head}"
        );
        return length - (filled - end - 4) as u64;
    }
}
