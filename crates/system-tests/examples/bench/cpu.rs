//! Processor time of processes, from `/proc`.

/// Seconds that a process has used, with those of its children that it has waited for.
pub(crate) fn seconds(pid: u32) -> f64 {
    fields(pid).map_or(0.0, |fields| fields[11..15].iter().sum::<u64>() as f64 / TICKS)
}

/// The same of a process and all its living children.
pub(crate) fn seconds_of_tree(pid: u32) -> f64 {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let children = pids.filter(|child| parent(*child) == Some(pid));
    seconds(pid) + children.map(seconds).sum::<f64>()
}

/// Seconds that all processors together have been busy, whoever kept them so.
pub(crate) fn seconds_of_machine() -> f64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<u64> = text.lines().next().unwrap_or_default().split(' ').filter_map(|n| n.parse().ok()).collect();
    // user, nice, system, idle, waiting, interrupts, … and what other machines took of this one.
    let idle: u64 = fields.iter().skip(3).take(2).sum();
    (fields.iter().take(8).sum::<u64>() - idle) as f64 / TICKS
}

/// The parent of a process.
pub(crate) fn parent(pid: u32) -> Option<u32> {
    Some(fields(pid)?[1] as u32)
}

/// Linux gives times to programs in hundredths of a second, whatever the kernel's own clock.
const TICKS: f64 = 100.0;

/// The fields of `stat` behind the name: state (as 0), parent, … those that are numbers.
fn fields(pid: u32) -> Option<Vec<u64>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().map(|field| field.parse().unwrap_or_default()).collect())
}
