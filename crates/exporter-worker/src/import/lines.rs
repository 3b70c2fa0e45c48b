//! Lines of a `.pjson` entry: ended by LF, CR or CRLF, the last one perhaps not at all.

use std::io::Read;

use model::limits;

use super::error::ImportError;
use super::metered::Metered;

/// Calls `each` with every line and its number, counted from 1. A line is at most [`limits::DOCUMENT`] bytes long.
pub(super) fn for_each(
    entry: &mut Metered<'_, impl Read>,
    mut each: impl FnMut(u64, &[u8]) -> Result<(), ImportError>,
) -> Result<(), ImportError> {
    let name = entry.name().to_owned();
    let mut piece = vec![0; limits::PIECE];
    let mut line = Vec::new();
    let (mut number, mut after_cr) = (0, false);
    loop {
        let n = entry.piece(&mut piece)?;
        if n == 0 {
            break;
        }
        let mut rest = &piece[..n];
        while let Some(end) = rest.iter().position(|b| matches!(b, b'\n' | b'\r')) {
            let (part, ended_by) = (&rest[..end], rest[end]);
            rest = &rest[end + 1..];
            // The LF of a CRLF ends nothing more.
            if ended_by == b'\n' && after_cr && part.is_empty() && line.is_empty() {
                after_cr = false;
                continue;
            }
            after_cr = ended_by == b'\r';
            number += 1;
            grow(&mut line, part).map_err(|what| ImportError::line(&name, number, what))?;
            each(number, &line)?;
            line.clear();
        }
        after_cr = after_cr && rest.is_empty();
        grow(&mut line, rest).map_err(|what| ImportError::line(&name, number + 1, what))?;
    }
    if line.is_empty() { Ok(()) } else { each(number + 1, &line) }
}

fn grow(line: &mut Vec<u8>, part: &[u8]) -> Result<(), String> {
    if line.len() + part.len() > limits::DOCUMENT {
        return Err(format!("longer than {} bytes", limits::DOCUMENT));
    }
    line.extend_from_slice(part);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::metered::{Budget, Expansion};
    use super::*;
    use crate::control::Control;

    fn lines(text: &str) -> Vec<(u64, String)> {
        let mut budget = Budget::new(&Expansion::unlimited(), Control::default());
        let size = text.len() as u64;
        let mut entry = Metered::new(text.as_bytes(), "e".to_owned(), size, size, &mut budget);
        let mut got = Vec::new();
        for_each(&mut entry, |number, line| {
            got.push((number, String::from_utf8_lossy(line).into_owned()));
            Ok(())
        })
        .expect("readable");
        got
    }

    #[test]
    fn every_kind_of_end_ends_a_line() {
        let expected =
            |l: &[&str]| l.iter().enumerate().map(|(i, l)| (i as u64 + 1, l.to_string())).collect::<Vec<_>>();
        for text in ["a\nb\n", "a\r\nb\r\n", "a\rb\r", "a\nb"] {
            assert_eq!(lines(text), expected(&["a", "b"]), "{text:?}");
        }
        assert_eq!(lines(""), []);
        assert_eq!(lines("a\n\nb"), expected(&["a", "", "b"]), "a blank line is a line");
        assert_eq!(lines("a\r\n\r\nb"), expected(&["a", "", "b"]));
    }
}
