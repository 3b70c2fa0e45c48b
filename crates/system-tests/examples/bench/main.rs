//! The benchmark of both services: every row is our work and somebody else's, measured in turns in the same run.
//!
//! `deploy/bench` builds everything and runs it. No row fails because of a time; what does not work does.

mod accepts;
mod baseline;
mod bench;
mod check;
mod cpu;
mod documents;
mod downloads;
mod files;
mod imports;
mod load;
mod machine;
mod measure;
mod memory;
mod mix;
mod nginx;
mod polls;
mod progress;
mod report;
mod shell;
mod sizes;
mod waiters;
mod workers;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;

use crate::bench::Bench;
use crate::report::Report;
use crate::sizes::Sizes;

/// Measures the services against what else there is.
#[derive(Debug, Parser)]
struct Arguments {
    /// Rows to measure (B1, B5, …); all when there are none.
    rows: Vec<String>,
    /// The large sizes: takes most of an hour and 40 GB of disk.
    #[arg(long)]
    full: bool,
    /// Measurements of each side.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Where the results go.
    #[arg(long, default_value = "bench/RESULTS.md")]
    out: PathBuf,
    /// Serve what B9 is compared with, at this address, and measure nothing.
    #[arg(long, hide = true)]
    baseline: Option<SocketAddr>,
    /// Database connections of that server.
    #[arg(long, hide = true, default_value_t = 20)]
    connections: u32,
}

/// Measures one row.
type Measure = fn(&mut Bench, &mut Report);

const ROWS: &[(&str, Measure)] = &[
    ("B1", documents::against_copy),
    ("B2", documents::against_archives),
    ("B3", documents::linear),
    ("B4", memory::peaks),
    ("B5", files::small),
    ("B6", files::large),
    ("B7", mix::recognised),
    ("B8", workers::parallel),
    ("B9", polls::status),
    ("B10", accepts::accepted),
    ("B11", downloads::against_nginx),
    ("B12", imports::against_copy),
    ("B13", check::part),
    ("B14", progress::foretold),
    ("B15", waiters::told),
];

fn main() {
    let arguments = Arguments::parse();
    if let Some(address) = arguments.baseline {
        return baseline::serve(address, arguments.connections);
    }
    let wanted = |row: &str| arguments.rows.is_empty() || arguments.rows.iter().any(|r| r.eq_ignore_ascii_case(row));
    for row in &arguments.rows {
        assert!(ROWS.iter().any(|(name, _)| name.eq_ignore_ascii_case(row)), "there is no row {row}");
    }
    let mut report = Report::default();
    let mut bench = Bench::start(if arguments.full { Sizes::FULL } else { Sizes::SHORT }, arguments.rounds);
    for (name, measure) in ROWS.iter().filter(|(name, _)| wanted(name)) {
        println!("\n== {name}");
        bench.fresh(1);
        let seconds = measure::seconds(|| measure(&mut bench, &mut report));
        println!("{name} took {seconds:.0} s");
    }
    let text = report.text(&machine::description(&bench), if arguments.full { "--full" } else { "" });
    println!("\n{text}");
    std::fs::write(&arguments.out, text).expect("the results can be written");
}
