//! B8: several exports at once.

use std::time::{Duration, Instant};

use crate::bench::Bench;
use crate::cpu;
use crate::measure::median;
use crate::report::{Line, Report, s};

const CELLS: u64 = 8;

/// What a measurement took: seconds, and processor seconds of the workers, of the database, and of all there is.
#[derive(Debug, Clone, Copy)]
struct Taken {
    seconds: f64,
    workers: f64,
    database: f64,
    machine: f64,
}

/// B8: eight exports with one worker and with two.
pub(crate) fn parallel(bench: &mut Bench, report: &mut Report) {
    let documents = bench.sizes.parallel;
    let cells: Vec<_> = (0..CELLS).map(|number| format!("parallel-{number}")).collect();
    for cell in &cells {
        bench.cell(cell, &["--documents", &documents.to_string()]);
    }
    let server = database_server(bench);
    let mut taken = [Vec::new(), Vec::new()];
    for round in 1..=bench.rounds {
        for (workers, taken) in [1, 2].into_iter().zip(&mut taken) {
            let this = export_all(bench, &cells, workers, server, round);
            println!("round {round}, {workers} workers: {this:.2?}");
            taken.push(this);
        }
    }
    let of = |which: fn(&Taken) -> f64| taken.each_ref().map(|t| median(&t.iter().map(which).collect::<Vec<_>>()));
    let ([one, two], workers, database) = (of(|t| t.seconds), of(|t| t.workers), of(|t| t.database));
    let machine = of(|t| t.machine);
    let text = |seconds: f64, workers: f64, database: f64| {
        let cores = |used: f64| used / seconds;
        match server {
            Some(_) => {
                format!("{} (cores: workers {:.2}, database {:.2})", s(seconds), cores(workers), cores(database))
            }
            None => format!("{} (cores: workers {:.2})", s(seconds), cores(workers)),
        }
    };
    report.add(Line {
        row: "B8",
        work: format!("{CELLS} exports of {documents} documents, two workers against one"),
        ours: format!("two: {}", text(two, workers[1], database[1])),
        other: format!("one: {}", text(one, workers[0], database[0])),
        ratio: format!("{:.2} ×", one / two),
        goal: "≥ 1.6 ×, where the database leaves room",
        met: Some(one / two >= 1.6),
    });
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let (busy_with_one, busy_with_two) = (machine[0] / one, machine[1] / two);
    report.note(format!(
        "B8: with one worker {busy_with_one:.2} of {cores} cores are busy, with two {busy_with_two:.2}, everything that \
         runs included. An export is compressed on all cores: a second worker finds only what the first leaves."
    ));
}

fn export_all(bench: &mut Bench, cells: &[String], workers: usize, server: Option<u32>, round: usize) -> Taken {
    bench.fresh_workers(workers);
    let name = format!("parallel-{workers}-{round}");
    let used = |bench: &Bench| {
        let workers: f64 = bench.workers().iter().map(|worker| cpu::seconds(worker.id())).sum();
        (workers, server.map_or(0.0, cpu::seconds_of_tree), cpu::seconds_of_machine())
    };
    let (before, begun) = (used(bench), Instant::now());
    for cell in cells {
        let answer = bench.system.post_export(cell, &name);
        assert_eq!(answer.status, 202, "{}", answer.text());
    }
    let active = "SELECT count(*) FROM job WHERE state IN ('queued', 'running')";
    while bench.system.value(active) != "0" {
        assert!(begun.elapsed() < Duration::from_secs(3600), "exports take longer than an hour");
        std::thread::sleep(Duration::from_millis(10));
    }
    let (seconds, after) = (begun.elapsed().as_secs_f64(), used(bench));
    let done = format!("SELECT count(*) FROM job WHERE name = '{name}' AND state = 'succeeded'");
    assert_eq!(bench.system.value(&done), cells.len().to_string(), "all succeeded");
    for cell in cells {
        let answer = bench.system.request("DELETE", &format!("/{cell}/__snapshot/{name}.zip"), &[], None);
        assert_eq!(answer.status, 204, "{}", answer.text());
    }
    Taken { seconds, workers: after.0 - before.0, database: after.1 - before.1, machine: after.2 - before.2 }
}

/// The process of the database server, when it runs on this machine.
fn database_server(bench: &Bench) -> Option<u32> {
    let backend = bench.system.value("SELECT pg_backend_pid()").parse().ok()?;
    let name = std::fs::read_to_string(format!("/proc/{backend}/comm")).ok()?;
    if name.trim_end() == "postgres" { cpu::parent(backend) } else { None }
}
