//! Times of several sides, taken in turns: what else the machine does hits all of them alike.

use std::time::Instant;

/// One side of a comparison: its name, and work that returns how long it took, in seconds.
pub(crate) type Side<'a> = (&'a str, Box<dyn FnMut() -> f64 + 'a>);

/// The times of one side.
#[derive(Debug, Clone)]
pub(crate) struct Times(Vec<f64>);

impl Times {
    pub(crate) fn median(&self) -> f64 {
        median(&self.0)
    }
}

/// Measures all sides, one after the other, as many times as asked.
pub(crate) fn in_turns<const N: usize>(rounds: usize, mut sides: [Side<'_>; N]) -> [Times; N] {
    let mut times = [const { Vec::new() }; N];
    for round in 1..=rounds {
        let mut line = format!("round {round}:");
        for ((name, work), times) in sides.iter_mut().zip(&mut times) {
            let seconds = work();
            times.push(seconds);
            line.push_str(&format!("  {name} {seconds:.3}"));
        }
        println!("{line}");
    }
    times.map(Times)
}

/// How long something takes, in seconds.
pub(crate) fn seconds(work: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    work();
    begun.elapsed().as_secs_f64()
}

/// The median; of an even number of values, the upper one of the two in the middle.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
