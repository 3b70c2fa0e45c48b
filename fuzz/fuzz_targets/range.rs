//! A `Range` header, for a file of any size.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u64, &[u8])| {
    let (size, header) = input;
    for size in [size, size % 1000] {
        api::fuzzing::range(header, size);
        api::fuzzing::range(&[b"bytes=", header].concat(), size);
    }
});
