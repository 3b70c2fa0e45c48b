//! `Range` and `If-Range` (RFC 9110, section 14), for files that never change under one ETag.

use std::ops::Range;

use chrono::{DateTime, SubsecRound, Utc};
use http_range::{HttpRange, HttpRangeParseError};
use model::limits;

use crate::common::incoming::Incoming;

/// Which bytes a client wants.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// All of them.
    Whole,
    /// One range.
    One(Range<u64>),
    /// Several, in the order they were asked for.
    Several(Vec<Range<u64>>),
    /// Only such as the file does not have.
    Unsatisfiable,
}

/// Reads the wish. What is no range, or costs more than the file itself, is answered with the whole file.
pub(crate) fn wanted(request: &Incoming, etag: &str, modified: DateTime<Utc>, size: u64) -> Wanted {
    let Some(range) = request.header("range") else { return Wanted::Whole };
    if !request.header("if-range").is_none_or(|condition| still_valid(condition, etag, modified)) {
        return Wanted::Whole;
    }
    parse(range, size)
}

fn parse(range: &str, size: u64) -> Wanted {
    let ranges = match HttpRange::parse(range, size) {
        Ok(ranges) => ranges,
        Err(HttpRangeParseError::NoOverlap) => return Wanted::Unsatisfiable,
        Err(HttpRangeParseError::InvalidRange) => return Wanted::Whole,
    };
    // The end of an empty file is a range to the library; there is nothing in it to send.
    if ranges.iter().any(|r| r.length == 0) {
        return Wanted::Unsatisfiable;
    }
    let mut ranges: Vec<_> = ranges.into_iter().map(|r| r.start..r.start + r.length).collect();
    let bytes: u64 = ranges.iter().map(|r| r.end - r.start).fold(0, u64::saturating_add);
    match ranges.len() {
        0 => Wanted::Whole,
        1 => Wanted::One(ranges.remove(0)),
        n if n > limits::RANGES || bytes > size => Wanted::Whole,
        _ => Wanted::Several(ranges),
    }
}

/// `If-Range` asks for a strong comparison; a date must be exactly that of the file.
fn still_valid(condition: &str, etag: &str, modified: DateTime<Utc>) -> bool {
    if condition.starts_with('"') || condition.starts_with("W/") {
        return condition == etag;
    }
    DateTime::parse_from_rfc2822(condition).is_ok_and(|date| date == modified.trunc_subsecs(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_rfc_says() {
        for (range, expected) in [
            ("bytes=0-0", Wanted::One(0..1)),
            ("bytes=5-", Wanted::One(5..10)),
            ("bytes=-3", Wanted::One(7..10)),
            ("bytes=-30", Wanted::One(0..10)),
            ("bytes=8-99", Wanted::One(8..10)),
            ("bytes=0-1,4-5", Wanted::Several(vec![0..2, 4..6])),
            ("bytes=99-,4-5", Wanted::One(4..6)),
            ("bytes=10-", Wanted::Unsatisfiable),
            ("bytes=x", Wanted::Whole),
            ("bytes=3-1", Wanted::Whole),
            ("lines=1-2", Wanted::Whole),
            ("bytes=0-9,0-9", Wanted::Whole),
        ] {
            assert_eq!(parse(range, 10), expected, "{range}");
        }
        for range in ["bytes=0-", "bytes=0-0", "bytes=-5", "bytes=-5,0-1"] {
            assert_eq!(parse(range, 0), Wanted::Unsatisfiable, "{range} of nothing");
        }
    }

    #[test]
    fn only_the_same_file_may_be_continued() {
        let modified = "2026-11-23T07:00:00.123Z".parse().expect("a time");
        for (condition, valid) in [
            ("\"1-5\"", true),
            ("W/\"1-5\"", false),
            ("\"1-6\"", false),
            ("Mon, 23 Nov 2026 07:00:00 GMT", true),
            ("Mon, 23 Nov 2026 07:00:01 GMT", false),
            ("yesterday", false),
        ] {
            assert_eq!(still_valid(condition, "\"1-5\"", modified), valid, "{condition}");
        }
    }
}
