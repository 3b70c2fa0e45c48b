//! A load generator: many clients that keep their connections, each with one request at a time.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Requests per second.
    pub(crate) rate: f64,
    /// Times of single requests, in seconds, sorted.
    pub(crate) times: Vec<f64>,
}

impl Outcome {
    /// The time that so many of the requests (0.5: half of them) did not exceed.
    pub(crate) fn percentile(&self, part: f64) -> f64 {
        let place = (self.times.len() as f64 * part) as usize;
        self.times.get(place.min(self.times.len().saturating_sub(1))).copied().unwrap_or_default()
    }
}

/// Sends the same request for a while.
pub(crate) fn repeat(address: SocketAddr, request: &str, clients: usize, duration: Duration, status: u16) -> Outcome {
    let until = Instant::now() + duration;
    let requests = (0..clients).map(|_| std::iter::repeat_with(|| request.as_bytes().to_vec()));
    run(address, requests.map(move |all| all.take_while(move |_| Instant::now() < until)), status)
}

/// Sends these requests, each client a share of them.
pub(crate) fn once(address: SocketAddr, requests: Vec<Vec<u8>>, clients: usize, status: u16) -> Outcome {
    let mut shares = vec![Vec::new(); clients];
    for (number, request) in requests.into_iter().enumerate() {
        shares[number % clients].push(request);
    }
    run(address, shares.into_iter().map(Vec::into_iter), status)
}

fn run<S, R>(address: SocketAddr, shares: S, status: u16) -> Outcome
where
    S: Iterator<Item = R>,
    R: Iterator<Item = Vec<u8>>,
{
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let begun = Instant::now();
        let clients = futures_util::future::join_all(shares.map(|share| client(address, share, status)));
        let mut times: Vec<f64> = clients.await.into_iter().flatten().collect();
        let rate = times.len() as f64 / begun.elapsed().as_secs_f64();
        times.sort_by(f64::total_cmp);
        Outcome { rate, times }
    })
}

async fn client(address: SocketAddr, requests: impl Iterator<Item = Vec<u8>>, status: u16) -> Vec<f64> {
    let mut stream = TcpStream::connect(address).await.expect("the server listens");
    stream.set_nodelay(true).expect("a TCP option");
    let (mut times, mut answer) = (Vec::new(), Vec::new());
    for request in requests {
        let begun = Instant::now();
        stream.write_all(&request).await.expect("the server reads");
        read(&mut stream, &mut answer, status).await;
        times.push(begun.elapsed().as_secs_f64());
    }
    times
}

/// Reads one answer to its end.
async fn read(stream: &mut TcpStream, answer: &mut Vec<u8>, status: u16) {
    answer.clear();
    let (mut piece, mut whole) = ([0; 8 << 10], None);
    while whole.is_none_or(|whole| answer.len() < whole) {
        let length = stream.read(&mut piece).await.expect("the server answers");
        assert!(length > 0, "the connection ended: {}", String::from_utf8_lossy(answer));
        answer.extend_from_slice(&piece[..length]);
        whole = whole.or_else(|| whole_length(answer, status));
    }
}

/// The length of an answer, once its head is there.
fn whole_length(answer: &[u8], status: u16) -> Option<usize> {
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&answer[..end]).expect("a head in ASCII");
    let found = head.split(' ').nth(1).expect("a status");
    assert_eq!(found, status.to_string(), "{}", String::from_utf8_lossy(answer));
    let length = head.lines().filter_map(|line| line.split_once(": "));
    let mut length = length.filter(|(name, _)| name.eq_ignore_ascii_case("content-length")).map(|(_, value)| value);
    Some(end + length.next().expect("a length").parse::<usize>().expect("a number"))
}
