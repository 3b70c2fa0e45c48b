//! A `Range` header, for a file of any size.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u64, &[u8])| {
    let (size, header) = input;
    // Files are not larger than a signed number says.
    for size in [size >> 1, size % 1000] {
        api::fuzzing::range(header, size);
        api::fuzzing::range(&[b"bytes=", header].concat(), size);
    }
});
