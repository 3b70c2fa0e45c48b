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
    let ends = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let ends: Vec<_> = ends.filter(|line| line["message"] == "job ends").collect();
    let field = |name: &str| ends.iter().filter_map(|line| line[name].as_f64()).collect::<Vec<_>>();
    let (seconds, check) = (field("seconds"), field("check_seconds"));
    assert_eq!(seconds.len(), bench.rounds, "a line for each job: {log}");
    let whole = median(&seconds);
    let measured = (!check.is_empty()).then(|| median(&check));
    report.add(Line {
        row: "B13",
        work: format!("self-check after the last byte of {count} documents was written"),
        ours: measured.map_or("not in the log".to_owned(), s),
        other: format!("the whole export: {}", s(whole)),
        ratio: measured.map_or("–".to_owned(), |check| format!("{:.1} %", check / whole * 100.0)),
        goal: "≤ 10 %",
        met: measured.map(|check| check / whole <= 0.1),
    });
}
