//! B14: can the progress be believed?

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::bench::Bench;
use crate::measure::median;
use crate::report::{Line, Report};

/// How far off a time may be.
const GOAL: f64 = 0.25;
/// Times are shown in whole seconds, and half of one is no error: what is left when that is [`GOAL`] of it.
const LEAST: f64 = 0.5 / GOAL;

/// Exports five shapes of cell, and compares the end that was foretold, from a fifth of the run on, with the end that came.
pub(crate) fn foretold(bench: &mut Bench, report: &mut Report) {
    let (documents, files, large, mix) = bench.sizes.shapes;
    let length = "250000000";
    let numbers = [documents, files, large, mix, documents / 2, files / 2, large / 2].map(|number| number.to_string());
    let [documents, files, large, mix, some_documents, some_files, some_large] = numbers.each_ref().map(String::as_str);
    let shapes: [(&str, &[&str]); 5] = [
        ("documents", &["--documents", documents]),
        ("small files", &["--files", files]),
        ("large files", &["--large", large, "--large-size", length]),
        ("pictures, films, texts", &["--mix", mix]),
        (
            "something of everything",
            &["--documents", some_documents, "--files", some_files, "--large", some_large, "--large-size", length],
        ),
    ];
    for (number, (shape, arguments)) in shapes.into_iter().enumerate() {
        let cell = format!("shape-{number}");
        bench.cell(&cell, arguments);
        bench.timed_export(&cell);
        let mut run = Foretold::default();
        for _ in 0..bench.rounds {
            run.watch(bench, &cell);
        }
        let within = run.errors.iter().filter(|error| **error <= GOAL).count();
        let worst = run.errors.iter().copied().fold(0.0, f64::max);
        report.add(Line {
            row: "B14",
            work: format!("time that remains, from a fifth of the run on: {shape}"),
            ours: format!(
                "{:.1} s; off by {:.0} % in the median, {:.0} % at most",
                median(&run.seconds),
                100.0 * median(&run.errors),
                100.0 * worst
            ),
            other: format!("the time that remained, {LEAST} s when less did"),
            ratio: format!("{within} of {} looks", run.errors.len()),
            goal: "≤ 25 %",
            met: Some(worst <= GOAL),
        });
    }
}

#[derive(Debug, Default)]
struct Foretold {
    seconds: Vec<f64>,
    /// How far each foretelling was off, as a share of the time that remained.
    errors: Vec<f64>,
}

impl Foretold {
    fn watch(&mut self, bench: &Bench, cell: &str) {
        // The removal of the last snapshot included: it goes on in the background, where disks are told of it.
        bench.settle();
        let name = format!("watched{}", self.seconds.len());
        let accepted = bench.system.post_export(cell, &name);
        let link = accepted.header("link").expect("a link to the job");
        let path = link.split(['<', '>']).nth(1).and_then(|url| url.splitn(4, '/').nth(3)).expect("a URL");
        let mut looks = Vec::new();
        let begun = Instant::now();
        let mut percent = 0;
        let last = loop {
            let job: Value = serde_json::from_slice(&bench.system.request("GET", &format!("/{path}"), &[], None).body)
                .expect("JSON");
            let now = job["percent"].as_u64().expect("a number");
            assert!(now >= percent && (now < 100 || job["state"] == "succeeded"), "{percent} % became {job}");
            percent = now;
            if !job["finished_at"].is_null() {
                break job;
            }
            looks.push((Utc::now(), time(&job["estimated_end"])));
            assert!(begun.elapsed() < Duration::from_secs(3600), "an export takes longer than an hour");
            std::thread::sleep(Duration::from_millis(100));
        };
        assert_eq!(last["state"], "succeeded", "{last}");
        let (begin, end) = (time(&last["started_at"]).expect("a time"), time(&last["finished_at"]).expect("a time"));
        let seconds = |duration: chrono::Duration| duration.num_milliseconds() as f64 / 1000.0;
        self.seconds.push(seconds(end - begin));
        let fifth = begin + (end - begin) / 5;
        for (at, foretold) in looks.into_iter().filter(|(at, _)| *at > fifth && *at < end) {
            // Before the first report nothing is foretold.
            let Some(foretold) = foretold else { continue };
            self.errors.push(seconds(foretold - end).abs() / seconds(end - at).max(LEAST));
        }
        let answer = bench.system.request("DELETE", &format!("/{cell}/__snapshot/{name}.zip"), &[], None);
        assert_eq!(answer.status, 204);
    }
}

fn time(value: &Value) -> Option<DateTime<Utc>> {
    value.as_str()?.parse().ok()
}
