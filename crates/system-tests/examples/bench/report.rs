//! The table of results.

/// What was measured, and what ought to have been.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) row: &'static str,
    pub(crate) work: String,
    pub(crate) ours: String,
    pub(crate) other: String,
    pub(crate) ratio: String,
    pub(crate) goal: &'static str,
    /// `None` when nothing is promised, or nothing can be said.
    pub(crate) met: Option<bool>,
}

/// All lines, in the order in which they were measured.
#[derive(Debug, Default)]
pub(crate) struct Report {
    lines: Vec<Line>,
    notes: Vec<String>,
}

impl Report {
    pub(crate) fn add(&mut self, line: Line) {
        println!("{}", table_line(&line));
        self.lines.push(line);
    }

    /// A sentence below the table.
    pub(crate) fn note(&mut self, note: String) {
        println!("{note}");
        self.notes.push(note);
    }

    /// The whole document.
    pub(crate) fn text(&self, machine: &str, options: &str) -> String {
        let command = format!("deploy/bench {options}");
        let mut text = format!(
            "# What the benchmark measured\n\nWritten by `{}`. Both sides of a line were measured in turns in the same run; \
             times are medians.\n\n{machine}\n\n\
             | row | work | ours | other | ratio | goal | met |\n|---|---|---|---|---|---|---|\n",
            command.trim_end()
        );
        for line in &self.lines {
            text.push_str(&table_line(line));
            text.push('\n');
        }
        for note in &self.notes {
            text.push_str(&format!("\n* {note}"));
        }
        if !self.notes.is_empty() {
            text.push('\n');
        }
        text
    }
}

fn table_line(line: &Line) -> String {
    let Line { row, work, ours, other, ratio, goal, met } = line;
    let met = match met {
        Some(true) => "yes",
        Some(false) => "**no**",
        None => "–",
    };
    format!("| {row} | {work} | {ours} | {other} | {ratio} | {goal} | {met} |")
}

/// Megabytes.
pub(crate) fn mb(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// Mebibytes.
pub(crate) fn mib(bytes: u64) -> String {
    format!("{:.0} MiB", bytes as f64 / f64::from(1 << 20))
}

/// Seconds, to three digits or so.
pub(crate) fn s(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s if s < 10.0 => format!("{s:.2} s"),
        s => format!("{s:.1} s"),
    }
}
