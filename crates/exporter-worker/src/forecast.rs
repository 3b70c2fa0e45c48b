//! How far an attempt is, and how long it still takes.

use std::time::Duration;

use model::job::{Amount, Progress};
use model::limits;

/// What an export costs, in nanoseconds of the machine on which `deploy/bench` measured it. A faster or slower one shows
/// within a second; what these say of each other is what matters.
mod cost {
    pub(super) const DOCUMENT: f64 = 650.0;
    pub(super) const DOCUMENT_BYTE: f64 = 2.75;
    /// Length of a document before there was one.
    pub(super) const USUAL_DOCUMENT: f64 = 600.0;
    /// To list a file, before the first content is read.
    pub(super) const LISTED: f64 = 3_600.0;
    pub(super) const FILE: f64 = 57_000.0;
    pub(super) const FILE_BYTE: f64 = 0.95;
    /// To read back what was written of documents, when nothing else is left to do.
    pub(super) const UNREAD_DOCUMENT_BYTE: f64 = 0.6;
    /// The same of contents: it takes most of the time that they cost, since both digests are taken there.
    pub(super) const UNREAD_FILE_BYTE: f64 = 0.72;
    /// The end, when all is written: the last file is read back, the directory is proved, all is made durable.
    pub(super) const END_FILE: f64 = 3_500.0;
    pub(super) const END_BYTE: f64 = 0.3;
    /// As a share of the rest.
    pub(super) const END: f64 = 0.015;
}

/// Before anything is known of this machine, it is taken to be like the one that was measured: as if it had been watched
/// for so long, in nanoseconds.
const USUAL: f64 = 0.15e9;

/// What an export has written, documents and contents apart: they do not cost the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Documents.
    pub documents: u64,
    /// Their bytes.
    pub document_bytes: u64,
    /// File contents.
    pub files: u64,
    /// Their bytes.
    pub file_bytes: u64,
    /// Bytes of the snapshot that were not read back yet.
    pub unread: u64,
}

/// How long an export has been at its phases; a phase that has not begun has taken no time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Clock {
    /// Writing documents.
    pub documents: Duration,
    /// Writing contents, once the first may be read.
    pub contents: Option<Duration>,
}

/// How fast contents went lately: what was long ago counts less, since disks that are fast at first may not stay so.
#[derive(Debug, Default)]
pub struct Lately {
    /// Of the last look: how long contents had taken, and what was done, in [`cost`].
    last: (f64, f64),
    /// The same, weighted.
    took: f64,
    done: f64,
}

impl Lately {
    /// After a step of this length what was before it counts a third, or after a third of the time, whichever is longer.
    const MEMORY: f64 = 4e9;

    fn look(&mut self, took: f64, done: f64) {
        let step = (took - self.last.0).max(0.0);
        let kept = (-step / Self::MEMORY.max(took / 3.0)).exp();
        self.took = self.took * kept + step;
        self.done = (self.done * kept + done - self.last.1).max(0.0);
        self.last = (took, done);
    }
}

/// How far an export of a cell is that holds `whole`: documents, and files with their bytes. How long documents are is only
/// known of those that were written, and taken to be so for the rest.
pub fn of_export(written: Written, whole: Amount, clock: Clock, lately: &mut Lately) -> Progress {
    let length = match written.documents {
        0 => cost::USUAL_DOCUMENT,
        documents => written.document_bytes as f64 / documents as f64,
    };
    let documents = |count: u64| count as f64 * (cost::DOCUMENT + cost::DOCUMENT_BYTE * length);
    let contents = |files: u64, bytes: u64| files as f64 * cost::FILE + bytes as f64 * cost::FILE_BYTE;
    let (all, contents_all) = (documents(whole.documents), contents(whole.files, whole.bytes));
    let mut done = documents(written.documents.min(whole.documents));
    let mut contents_done = contents(written.files.min(whole.files), written.file_bytes.min(whole.bytes));
    // A long entry is read back when it ends: until then it was got only as far as writing.
    let (current, unread) = match clock.contents {
        Some(_) => (&mut contents_done, cost::UNREAD_FILE_BYTE),
        None => (&mut done, cost::UNREAD_DOCUMENT_BYTE),
    };
    *current = (*current - written.unread as f64 * unread).max(0.0);
    let list = whole.files as f64 * cost::LISTED;
    let last = whole.bytes as f64 / whole.files.max(1) as f64;
    let end = (all + contents_all) * cost::END + whole.files as f64 * cost::END_FILE + last * cost::END_BYTE;
    let listed = if clock.contents.is_some() { list } else { 0.0 };
    let behind = done + listed + contents_done;
    let ahead = all + list + contents_all + end - behind;

    // How much slower than usual: documents come from the database, contents do not. So a slow machine shows in both, a slow
    // database in one of them, and nobody knows which it is: half of each.
    let pace = (USUAL + clock.documents.as_nanos() as f64) / (USUAL + done);
    if contents_done < contents_all {
        lately.look(clock.contents.unwrap_or_default().as_nanos() as f64, contents_done);
    }
    let contents_pace = (USUAL * pace.sqrt() + lately.took) / (USUAL + lately.done);
    let left = (all - done) * pace + (ahead - (all - done)) * contents_pace;

    let bytes = (whole.documents as f64 * length) as u64 + whole.bytes;
    let done = Amount {
        documents: written.documents,
        files: written.files,
        bytes: written.document_bytes + written.file_bytes,
    };
    let share = if whole == Amount::default() { 0.0 } else { behind / (behind + ahead) };
    let total = Some(Amount { bytes: bytes.max(done.bytes), ..whole });
    Progress { done, total, share, remaining: sensible(left / 1e9) }
}

/// How far an import is, by the bytes of its snapshot, because nobody counted its documents beforehand: what is left takes as
/// long for its share as what is behind.
pub fn of_import(done: Amount, whole: u64, elapsed: Duration) -> Progress {
    let share = if whole == 0 { 0.0 } else { (done.bytes as f64 / whole as f64).clamp(0.0, 1.0) };
    let remaining = sensible(elapsed.as_secs_f64() * (1.0 - share) / share);
    Progress { done, total: Some(Amount { bytes: whole, ..Amount::default() }), share, remaining }
}

/// Nothing is known of what has hardly begun, and nobody waits for so long.
fn sensible(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds).ok().filter(|left| *left <= limits::DEADLINE)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_TIME: Clock = Clock { documents: Duration::ZERO, contents: None };

    #[test]
    fn percent_grows_with_what_is_written_and_never_reaches_a_hundred() {
        let whole = Amount { documents: 100_000, files: 10, bytes: 100_000_000 };
        let mut written = Written::default();
        assert_eq!(of_export(written, Amount::default(), NO_TIME, &mut Lately::default()).percent(), 0);
        let mut last = 0;
        for step in 1..=20u64 {
            match step {
                1..=10 => (written.documents, written.document_bytes) = (step * 10_000, step * 6_000_000),
                _ => (written.files, written.file_bytes) = (step - 10, (step - 10) * 10_000_000),
            }
            let progress = of_export(written, whole, NO_TIME, &mut Lately::default());
            assert!(progress.percent() > last, "step {step}: {progress:?}");
            last = progress.percent();
        }
        assert!((90..100).contains(&last), "{last}");
        let more = Written { documents: 500_000, ..written };
        assert!(
            (90..100).contains(&of_export(more, whole, NO_TIME, &mut Lately::default()).percent()),
            "more than was counted"
        );
    }

    #[test]
    fn the_total_of_bytes_follows_from_the_documents_so_far() {
        let whole = Amount { documents: 100, files: 1, bytes: 1_000 };
        let written = Written { documents: 10, document_bytes: 7_000, ..Written::default() };
        let progress = of_export(written, whole, NO_TIME, &mut Lately::default());
        assert_eq!((progress.done.bytes, progress.total.map(|t| t.bytes)), (7_000, Some(71_000)));
    }

    fn left(written: Written, whole: Amount, documents: u64, contents: Option<u64>) -> f64 {
        let clock = Clock { documents: Duration::from_secs(documents), contents: contents.map(Duration::from_secs) };
        of_export(written, whole, clock, &mut Lately::default()).remaining.expect("a time").as_secs_f64()
    }

    /// However fast a machine is, after a while the rest takes as long as what was.
    #[test]
    fn the_rest_takes_as_long_as_what_was() {
        let whole = Amount { documents: 4_000_000, files: 0, bytes: 0 };
        let quarter = Written { documents: 1_000_000, document_bytes: 600_000_000, ..Written::default() };
        for took in [5, 20, 100] {
            let (left, expected) = (left(quarter, whole, took, None), 3.0 * took as f64);
            assert!((left / expected - 1.0).abs() < 0.2, "{left} s after {took} s");
        }
        let whole = Amount { documents: 0, files: 4_000, bytes: 40_000_000_000 };
        let quarter = Written { files: 1_000, file_bytes: 10_000_000_000, ..Written::default() };
        for took in [10, 100] {
            let (left, expected) = (left(quarter, whole, 0, Some(took)), 3.0 * took as f64);
            assert!((left / expected - 1.0).abs() < 0.2, "{left} s after {took} s");
        }
    }

    /// A slow database says little of a fast disk, once that is known.
    #[test]
    fn contents_are_judged_by_contents() {
        let whole = Amount { documents: 1_000_000, files: 4_000, bytes: 40_000_000_000 };
        let documents = Written { documents: 1_000_000, document_bytes: 600_000_000, ..Written::default() };
        let half = Written { files: 2_000, file_bytes: 20_000_000_000, ..documents };
        let unknown = left(documents, whole, 20, Some(0));
        assert!((90.0..180.0).contains(&unknown), "{unknown} s, of which nothing is known but a slow database");
        let left = left(half, whole, 20, Some(30));
        assert!((30.0..35.0).contains(&left), "{left} s");
    }

    /// A disk that has become slower is believed: what counts is how it is now.
    #[test]
    fn what_was_lately_counts_more() {
        let whole = Amount { documents: 0, files: 4_000, bytes: 40_000_000_000 };
        let mut lately = Lately::default();
        let mut left = |seconds: u64, files: u64| {
            let clock = Clock { documents: Duration::ZERO, contents: Some(Duration::from_secs(seconds)) };
            let written = Written { files, file_bytes: files * 10_000_000, ..Written::default() };
            of_export(written, whole, clock, &mut lately).remaining.expect("a time").as_secs_f64()
        };
        for second in 1..=10 {
            left(second, second * 100);
        }
        let fast = left(10, 1_000);
        assert!((28.0..32.0).contains(&fast), "{fast} s");
        let slow: Vec<f64> = (1..=10).map(|second| left(10 + second, 1_000 + second * 50)).collect();
        // 2 500 files at 50 a second.
        assert!((42.0..52.0).contains(&slow[9]), "{slow:?}");
    }

    #[test]
    fn before_anything_is_written_the_usual_is_foretold() {
        let whole = Amount { documents: 1_000_000, files: 0, bytes: 0 };
        let left = left(Written::default(), whole, 0, None);
        assert!((2.0..3.0).contains(&left), "{left} s");
    }

    #[test]
    fn an_import_is_as_far_as_the_bytes_of_its_snapshot() {
        let done = |bytes| Amount { documents: 7, files: 7, bytes };
        let seconds = Duration::from_secs;
        for (bytes, whole, percent, remaining) in
            [(25, 100, 25, Some(seconds(30))), (100, 100, 99, Some(seconds(0))), (0, 100, 0, None), (9, 0, 0, None)]
        {
            let progress = of_import(done(bytes), whole, seconds(10));
            assert_eq!((progress.percent(), progress.remaining), (percent, remaining), "{bytes} of {whole}");
        }
        assert_eq!(of_import(done(1), 1 << 40, seconds(10)).remaining, None, "nobody waits for so long");
    }
}
