//! B13: what the self-check of a finished snapshot takes.

use crate::bench::Bench;
use crate::measure::median;
use crate::report::{Line, Report, s};

/// B13: how much of an export is spent on nothing but proving it.
pub(crate) fn part(bench: &mut Bench, report: &mut Report) {
    let count = bench.sizes.documents[2];
    let cell = bench.documents(count);
    bench.fresh(1);
    for _ in 0..bench.rounds {
        bench.timed_export(&cell);
    }
    let log = bench.workers()[0].log();
    let lines: Vec<serde_json::Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let seconds_of = |message: &str| {
        let lines = lines.iter().filter(|line| line["message"] == message);
        lines.filter_map(|line| line["seconds"].as_f64()).collect::<Vec<_>>()
    };
    let (seconds, check) = (seconds_of("job ends"), seconds_of("proved after the last byte was written"));
    assert_eq!((seconds.len(), check.len()), (bench.rounds, bench.rounds), "two lines for each job: {log}");
    let (whole, check) = (median(&seconds), median(&check));
    report.add(Line {
        row: "B13",
        work: format!("self-check after the last byte of {count} documents was written"),
        ours: s(check),
        other: format!("the whole export: {}", s(whole)),
        ratio: format!("{:.1} %", check / whole * 100.0),
        goal: "≤ 10 %",
        met: Some(check / whole <= 0.1),
    });
}
