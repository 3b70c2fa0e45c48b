//! The body of a PROPFIND.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::{Corpus, fuzz_target};
use tokio::runtime::{Builder, Runtime};

static RUNTIME: OnceLock<Runtime> = OnceLock::new();

fuzz_target!(|body: &[u8]| -> Corpus {
    let runtime = RUNTIME.get_or_init(|| Builder::new_current_thread().enable_time().build().expect("a runtime"));
    let taken = runtime.block_on(api::fuzzing::propfind(body.to_vec()));
    // Whatever is taken has the one root there may be.
    assert!(!taken || body.is_empty() || body.windows(8).any(|part| part == b"propfind"));
    Corpus::Keep
});
