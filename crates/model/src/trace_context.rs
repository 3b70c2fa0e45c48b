//! Where a piece of work stands in a trace (W3C Trace Context, level 1): what a request comes with, what a job's row and
//! its doorbell carry on.

use crate::limits;

/// A span of somebody else, and the trace that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    trace: u128,
    span: u64,
    flags: u8,
    state: Option<String>,
}

/// Length of `traceparent` in the one version there is.
const PARENT: usize = 55;
/// Flags that have a meaning: sampled, and (level 2) random.
const FLAGS: u8 = 0x03;

impl TraceContext {
    /// Puts one together. Nothing when an id is zero, which means none.
    pub fn new(trace: u128, span: u64, flags: u8, state: Option<String>) -> Option<Self> {
        let state = state.filter(|state| is_state(state));
        (trace != 0 && span != 0).then_some(Self { trace, span, flags: flags & FLAGS, state })
    }

    /// Reads the two header fields. What is no `traceparent` counts as none; of a later version the part is read that
    /// this one has. A `tracestate` that cannot be one is left out.
    pub fn read(parent: &str, state: Option<&str>) -> Option<Self> {
        let (known, rest) = parent.split_at_checked(PARENT)?;
        let mut parts = known.split('-');
        let version = number(parts.next()?, 2)?;
        let (trace, span, flags) = (number(parts.next()?, 32)?, number(parts.next()?, 16)?, number(parts.next()?, 2)?);
        let fits = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => rest.is_empty() || rest.starts_with('-'),
        };
        if !fits || parts.next().is_some() {
            return None;
        }
        Self::new(trace, span as u64, flags as u8, state.map(str::to_owned))
    }

    /// `traceparent`, 55 characters.
    pub fn parent(&self) -> String {
        format!("00-{:032x}-{:016x}-{:02x}", self.trace, self.span, self.flags)
    }

    /// `tracestate`, if there is one.
    pub fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }

    /// Number of the trace.
    pub fn trace(&self) -> u128 {
        self.trace
    }

    /// Number of the span within it.
    pub fn span(&self) -> u64 {
        self.span
    }

    /// The first bit says whether the trace is recorded.
    pub fn flags(&self) -> u8 {
        self.flags
    }
}

/// Reads a number of exactly so many hexadecimal digits, lower-case ones.
fn number(text: &str, digits: usize) -> Option<u128> {
    let legal = text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if legal { u128::from_str_radix(text, 16).ok() } else { None }
}

/// Tells whether a text may be passed on as `tracestate`. What its members mean is their makers' business.
fn is_state(text: &str) -> bool {
    (1..=limits::TRACE_STATE).contains(&text.len()) && text.bytes().all(|b| matches!(b, b' '..=b'~'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_context_survives_the_wire() {
        let context = TraceContext::read(PARENT, Some("vendor=a1")).expect("a context");
        assert_eq!((context.parent().as_str(), context.state()), (PARENT, Some("vendor=a1")));
        assert_eq!((context.span(), context.flags()), (0x00f0_67aa_0ba9_02b7, 1));
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        let later = PARENT.replacen("00", "cc", 1);
        let read = |text: &str| TraceContext::read(text, None).map(|context| context.parent());
        for text in [later.clone(), format!("{later}-what-comes"), PARENT.replace("-01", "-fd")] {
            assert_eq!(read(&text).as_deref(), Some(PARENT), "{text}");
        }
    }

    #[test]
    fn what_is_malformed_is_none() {
        let zeros = |digits| "0".repeat(digits);
        for bad in [
            String::new(),
            PARENT.to_uppercase(),
            PARENT[..54].to_owned(),
            format!("{PARENT}-01"),
            format!("{PARENT} "),
            PARENT.replacen("00", "ff", 1),
            PARENT.replacen("00", "cc", 1) + "x",
            PARENT.replace('-', "_"),
            PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", &zeros(32)),
            PARENT.replace("00f067aa0ba902b7", &zeros(16)),
            PARENT.replace("4bf92f", "+bf92f"),
            format!("{}é", &PARENT[..54]),
        ] {
            assert_eq!(TraceContext::read(&bad, None), None, "{bad}");
        }
    }

    #[test]
    fn a_state_that_cannot_be_one_is_left_out() {
        for bad in ["", "a=é", "a=\n", &"x".repeat(limits::TRACE_STATE + 1)] {
            let context = TraceContext::read(PARENT, Some(bad)).expect("the parent is fine");
            assert_eq!(context.state(), None, "{bad}");
        }
    }
}
