//! B15: clients that wait, and what they cost.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use system_tests::system::TOKEN;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Barrier;

use crate::bench::Bench;
use crate::load::Outcome;
use crate::report::{Line, Report, mib, s};

const WAITERS: usize = 2000;

/// B15: so many clients wait for one job, half of them for its state and half of them for its events; then it changes.
pub(crate) fn told(bench: &mut Bench, report: &mut Report) {
    let cell = bench.documents(bench.sizes.documents[0]);
    // No worker: nothing changes but what is asked for here.
    bench.fresh(0);
    bench.system.status(&cell);
    let (_, before) = bench.peaks();
    let mut latencies = Vec::new();
    for round in 0..bench.rounds {
        let accepted = bench.system.post_export(&cell, &format!("waited{round}"));
        let link = accepted.header("link").expect("a link to the job");
        let path = link.split(['<', '>']).nth(1).and_then(|url| url.splitn(4, '/').nth(3)).expect("a URL");
        let unit = bench.unit();
        let state =
            format!("GET /{path} HTTP/1.1\r\nHost: {unit}\r\nAuthorization: Bearer {TOKEN}\r\nPrefer: wait=60\r\n\r\n");
        let events = format!("GET /{path}/events HTTP/1.1\r\nHost: {unit}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n");
        let (address, runtime) = (bench.system.address, tokio::runtime::Runtime::new().expect("a runtime"));
        let ready = Arc::new(Barrier::new(WAITERS + 1));
        let waiting: Vec<_> = (0..WAITERS)
            .map(|number| {
                let request = if number % 2 == 0 { state.clone() } else { events.clone() };
                runtime.spawn(wait(address, request, Arc::clone(&ready)))
            })
            .collect();
        let ended = runtime.block_on(async {
            ready.wait().await;
            // All requests are sent; the last of them is read by now.
            tokio::time::sleep(Duration::from_secs(2)).await;
            Instant::now()
        });
        assert_eq!(bench.system.request("DELETE", &format!("/{path}"), &[], None).status, 204);
        let told = runtime.block_on(futures_util::future::join_all(waiting));
        latencies.extend(told.into_iter().map(|at| at.expect("no panic").duration_since(ended).as_secs_f64()));
    }
    latencies.sort_by(f64::total_cmp);
    let (_, after) = bench.peaks();
    let outcome = Outcome { rate: 0.0, times: latencies };
    report.add(Line {
        row: "B15",
        work: format!("{WAITERS} clients wait for one job, until all know that it changed"),
        ours: format!(
            "p50 {}, p99 {}, last {}; api {}",
            s(outcome.percentile(0.5)),
            s(outcome.percentile(0.99)),
            s(outcome.percentile(1.0)),
            mib(after)
        ),
        other: format!("api without them: {}", mib(before)),
        ratio: format!("{:.0} KiB each", after.saturating_sub(before) as f64 / WAITERS as f64 / 1024.0),
        goal: "–",
        met: None,
    });
}

/// Waits until the answer says that the job was cancelled.
async fn wait(address: SocketAddr, request: String, ready: Arc<Barrier>) -> Instant {
    let mut stream = TcpStream::connect(address).await.expect("the server listens");
    stream.write_all(request.as_bytes()).await.expect("the server reads");
    ready.wait().await;
    let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let read = stream.read(&mut buffer).await.expect("the server answers");
        assert!(read > 0, "the connection ended: {}", String::from_utf8_lossy(&text));
        text.extend(&buffer[..read]);
        if text.windows(11).any(|part| part == b"\"cancelled\"") {
            return Instant::now();
        }
    }
}
