//! B9: status polls of many clients.

use std::cell::RefCell;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use system_tests::system::{TOKEN, free_address};

use crate::bench::Bench;
use crate::load::{self, Outcome};
use crate::measure::{Side, in_turns};
use crate::report::{Line, Report};

const CLIENTS: usize = 64;
/// What `API_POOL` is by default.
const CONNECTIONS: &str = "20";

/// B9: the status of an export that waits, against one row by its primary key.
pub(crate) fn status(bench: &mut Bench, report: &mut Report) {
    let cell = bench.documents(bench.sizes.documents[0]);
    let id = bench.system.value(&format!("SELECT id FROM cell WHERE name = '{cell}'"));
    // No worker: the job stays, and every poll has something to tell.
    bench.fresh(0);
    let accepted = bench.system.post_export(&cell, "polled");
    assert_eq!(accepted.status, 202, "{}", accepted.text());
    let api = bench.system.address;
    let baseline = free_address();
    let server = start_baseline(bench, &baseline.to_string());
    bench.system.eventually("the baseline answers", || std::net::TcpStream::connect(baseline).is_ok());
    let unit = bench.unit();
    let duration = Duration::from_secs_f64(bench.sizes.polling);
    let ours = format!("GET /{cell}/__export HTTP/1.1\r\nHost: {unit}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n");
    let theirs = format!("GET /{id} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    for (address, request) in [(api, &ours), (baseline, &theirs)] {
        load::repeat(address, request, CLIENTS, Duration::from_millis(500), 200);
    }
    let outcomes = [const { RefCell::new(Vec::new()) }; 2];
    let side = |address, request: &str, outcomes: &RefCell<Vec<Outcome>>| {
        let outcome = load::repeat(address, request, CLIENTS, duration, 200);
        let rate = outcome.rate;
        outcomes.borrow_mut().push(outcome);
        rate
    };
    let sides: [Side<'_>; 2] = [
        ("polls/s", Box::new(|| side(api, &ours, &outcomes[0]))),
        ("baseline/s", Box::new(|| side(baseline, &theirs, &outcomes[1]))),
    ];
    let [ours, theirs] = in_turns(bench.rounds, sides).map(|t| t.median());
    drop(server);
    let text = |rate: f64, outcomes: &RefCell<Vec<Outcome>>| {
        let at = |part| {
            let times: Vec<f64> = outcomes.borrow().iter().map(|outcome| outcome.percentile(part) * 1e3).collect();
            crate::measure::median(&times)
        };
        format!("{rate:.0}/s, p50 {:.1} ms, p99 {:.1} ms", at(0.5), at(0.99))
    };
    report.add(Line {
        row: "B9",
        work: format!("status polls, {CLIENTS} clients"),
        ours: text(ours, &outcomes[0]),
        other: format!("actix handler, one row by key: {}", text(theirs, &outcomes[1])),
        ratio: format!("{:.2}", ours / theirs),
        goal: "≥ 0.8",
        met: Some(ours / theirs >= 0.8),
    });
    // The next row begins without a job.
    bench.fresh(1);
    bench.system.wait_ready(&cell);
    let deleted = bench.system.request("DELETE", &format!("/{cell}/__snapshot/polled.zip"), &[], None);
    assert_eq!(deleted.status, 204, "{}", deleted.text());
}

/// Starts this program as the other side, as the user that the api is.
fn start_baseline(bench: &Bench, address: &str) -> Baseline {
    let program = std::env::current_exe().expect("a program knows its own path");
    let mut command = Command::new(program);
    command.args(["--baseline", address, "--connections", CONNECTIONS]);
    command.env("DATABASE_URL", bench.system.url("API_", "DATABASE_URL")).stdin(Stdio::null());
    Baseline(command.spawn().expect("this program starts"))
}

/// The other side. It ends with the row, even one that fails.
struct Baseline(Child);

impl Drop for Baseline {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
