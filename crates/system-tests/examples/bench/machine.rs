//! The machine that was measured.

use crate::bench::Bench;
use crate::shell;

/// One sentence.
pub(crate) fn description(bench: &Bench) -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let model = read("/proc/cpuinfo");
    let model = model.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let memory = read("/proc/meminfo");
    let memory: u64 = memory.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).unwrap_or_default();
    format!(
        "Machine: {cores} cores ({}), {:.0} GiB, Linux {}, PostgreSQL {}. {}.",
        model.trim_start_matches([' ', '\t', ':']),
        memory as f64 / f64::from(1 << 20),
        shell::output("uname", &["-r"]),
        bench.system.value("SELECT split_part(current_setting('server_version'), ' ', 1)"),
        chrono::Utc::now().format("%Y-%m-%d %H:%M UTC"),
    )
}
