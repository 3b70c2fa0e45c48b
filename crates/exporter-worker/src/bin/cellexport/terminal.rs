//! What reaches a terminal: texts of others cannot move its cursor, change its title or turn the direction of writing.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

use serde_json::Value;

use crate::failure::{Exit, Failure};
use crate::limits;

/// A text in one line, its control characters visible.
pub(crate) fn shown(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for (count, c) in text.chars().enumerate() {
        if count == limits::SHOWN {
            line.push('…');
            break;
        }
        if is_deceiving(c) { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}

/// Control characters, ends of lines, and what changes the direction of writing.
fn is_deceiving(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A word for a command line that is shown.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:=@%+,~".contains(&b);
    if !word.is_empty() && !word.starts_with('~') && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// Where results go, and in which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Output {
    /// One JSON document.
    pub(crate) json: bool,
    /// Nothing but results and errors.
    pub(crate) quiet: bool,
}

impl Output {
    /// Writes a result: the lines, or the document.
    pub(crate) fn result(self, lines: &[String], document: &Value) -> Result<(), Failure> {
        if self.json {
            return to_stdout(&json_text(document));
        }
        let mut text = String::new();
        for line in lines {
            _ = writeln!(text, "{}", shown(line));
        }
        to_stdout(text.trim_end_matches('\n'))
    }

    /// Says something to whoever watches.
    pub(crate) fn say(self, text: &str) {
        if !self.quiet && !self.json {
            say(text);
        }
    }
}

/// Writes a line to standard error, whether anybody takes it or not.
pub(crate) fn say(text: &str) {
    _ = writeln!(io::stderr(), "{}", shown(text));
}

/// JSON in which everything deceiving is escaped.
pub(crate) fn json_text(document: &Value) -> String {
    let mut text = String::new();
    for c in document.to_string().chars() {
        // Outside of texts there is none, and all are below U+10000.
        if is_deceiving(c) { _ = write!(text, "\\u{:04x}", u32::from(c)) } else { text.push(c) }
    }
    text
}

fn to_stdout(text: &str) -> Result<(), Failure> {
    if text.is_empty() {
        return Ok(());
    }
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}").and_then(|()| stdout.flush()).map_err(cannot_write)
}

/// A result that cannot be written.
pub(crate) fn cannot_write(error: io::Error) -> Failure {
    Failure::new(Exit::Other, format!("cannot write to standard output: {error}"))
}

/// Standard output for the contents of a file: verbatim, but not to a terminal.
pub(crate) fn contents() -> Contents {
    Contents { stdout: io::stdout().lock(), is_terminal: io::stdout().is_terminal(), lead: false }
}

/// See [`contents`].
pub(crate) struct Contents {
    stdout: io::StdoutLock<'static>,
    is_terminal: bool,
    /// The last byte may be the first one of a control character.
    lead: bool,
}

impl Write for Contents {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.is_terminal {
            return self.stdout.write(bytes);
        }
        self.stdout.write_all(&visible(bytes, &mut self.lead))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stdout.flush()
    }
}

/// Bytes of a text with its control characters visible, ends of lines and tabulators aside.
fn visible(bytes: &[u8], lead: &mut bool) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes.len());
    for byte in bytes {
        let control = match byte {
            b'\n' | b'\t' => false,
            0..0x20 | 0x7f => true,
            // The second byte of U+0080 to U+009F.
            0x80..0xa0 => *lead,
            _ => false,
        };
        *lead = *byte == 0xc2;
        if control {
            text.extend_from_slice(format!("\\x{byte:02x}").as_bytes());
        } else {
            text.push(*byte);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_become_visible() {
        assert_eq!(shown("a\u{1b}[2Jb\r\nc\u{9b}d\u{202e}e é"), "a\\u{1b}[2Jb\\r\\nc\\u{9b}d\\u{202e}e é");
        assert_eq!(shown(&"x".repeat(limits::SHOWN + 5)).chars().count(), limits::SHOWN + 1);
        let text = json_text(&serde_json::json!({"a\u{1b}": "\u{9b}\u{202e}\n"}));
        assert_eq!(text, "{\"a\\u001b\":\"\\u009b\\u202e\\n\"}");
        let mut lead = false;
        assert_eq!(visible(b"a\x1b\n\xc2", &mut lead), b"a\\x1b\n\xc2");
        assert_eq!(visible(b"\x9b\xc3\x89", &mut lead), b"\\x9b\xc3\x89", "across pieces; letters stay");
    }

    #[test]
    fn words_are_quoted_when_a_shell_would_change_them() {
        assert_eq!(quoted("http://unit/cell/"), "http://unit/cell/");
        assert_eq!(quoted("a b'c"), "'a b'\\''c'");
        assert_eq!((quoted(""), quoted("~x")), ("''".to_owned(), "'~x'".to_owned()));
    }
}
