//! Rules that any JSON of a snapshot must follow, beyond being JSON: no key twice, bounded depth, integers of 64 bits.
//! (Lone surrogates and invalid UTF-8 are no JSON for the parser.)

use std::collections::HashSet;
use std::fmt;

use model::limits;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Checks a text.
///
/// # Errors
/// What is wrong, in words.
pub(super) fn check(text: &str) -> Result<(), String> {
    if text.starts_with('\u{feff}') {
        return Err("begins with a byte order mark".to_owned());
    }
    let mut parser = serde_json::Deserializer::from_str(text);
    Walk { depth: 1 }.deserialize(&mut parser).and_then(|()| parser.end()).map_err(|e| e.to_string())?;
    // The parser turns longer integers into floating point without a word.
    if has_long_number(text) { check_integers(text) } else { Ok(()) }
}

/// Visits everything and keeps nothing.
struct Walk {
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Walk {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.depth > limits::JSON_DEPTH {
            return Err(D::Error::custom(format!("nested deeper than {}", limits::JSON_DEPTH)));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, n: u64) -> Result<(), E> {
        i64::try_from(n).map(|_| ()).map_err(|_| E::custom("an integer does not fit 64 bits"))
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Walk { depth: self.depth + 1 })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        let mut keys: HashSet<std::borrow::Cow<'de, str>> = HashSet::new();
        while let Some(key) = fields.next_key()? {
            if !keys.insert(key) {
                return Err(A::Error::custom("an object has a key twice"));
            }
            fields.next_value_seed(Walk { depth: self.depth + 1 })?;
        }
        Ok(())
    }
}

/// Tells whether nineteen digits stand in a row anywhere: most texts need no closer look.
fn has_long_number(text: &str) -> bool {
    let mut run = 0;
    text.bytes().any(|b| {
        run = if b.is_ascii_digit() { run + 1 } else { 0 };
        run >= 19
    })
}

/// Looks at every number outside strings. The text is known to be JSON.
fn check_integers(text: &str) -> Result<(), String> {
    let mut bytes = text.bytes().enumerate().peekable();
    while let Some((start, b)) = bytes.next() {
        match b {
            b'"' => {
                while let Some((_, b)) = bytes.next() {
                    match b {
                        b'\\' => drop(bytes.next()),
                        b'"' => break,
                        _ => {}
                    }
                }
            }
            b'-' | b'0'..=b'9' => {
                let number = |b: u8| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-');
                let mut end = start + 1;
                while bytes.next_if(|(_, b)| number(*b)).is_some() {
                    end += 1;
                }
                let token = &text[start..end];
                if !token.contains(['.', 'e', 'E']) && token.parse::<i64>().is_err() {
                    return Err(format!("the integer {token:.40} does not fit 64 bits"));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_json_passes() {
        for good in [
            "{}",
            r#"{"a":[1,-9223372036854775808,9223372036854775807,1.5e300],"b":{"a":null}}"#,
            r#"{"long":"123456789012345678901234567890","n":1}"#,
            r#"{"a":"\"123456789012345678901\\","b":1}"#,
            r#"{"a":"\ud83d\ude00"}"#,
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        let deep = format!("{}1{}", "[".repeat(31), "]".repeat(31));
        assert_eq!(check(&deep), Ok(()));
    }

    #[test]
    fn everything_else_is_refused() {
        let deep = format!("{}1{}", "[".repeat(32), "]".repeat(32));
        let bottomless = "[".repeat(1_000_000);
        for bad in [
            "",
            "{",
            "{} x",
            "\u{feff}{}",
            r#"{"a":1,"a":2}"#,
            r#"{"b":{"a":1,"\u0061":2}}"#,
            r#"{"a":9223372036854775808}"#,
            r#"{"a":-9223372036854775809}"#,
            r#"{"a":123456789012345678901234567890}"#,
            r#"{"a":"\ud83d"}"#,
            r#"{"a":NaN}"#,
            &deep,
            &bottomless,
        ] {
            assert!(check(bad).is_err(), "{bad:.60}");
        }
    }
}
