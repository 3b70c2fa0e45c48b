//! Credentials: three lines are the headers `Authorization` and `Cookie` and the query.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut lines = input.splitn(3, |byte| *byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    api::fuzzing::credentials(line(), line(), line());
});
