//! The word that ends threads which go on until a test has seen enough.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// Asked by threads, said by the test.
#[derive(Debug, Default)]
pub struct Stop(AtomicBool);

impl Stop {
    /// Tells whether it was said.
    pub fn is_said(&self) -> bool {
        self.0.load(SeqCst)
    }

    /// Says it when the returned value is dropped. A scope waits for its threads even when the test has failed: a word
    /// that is only said where all is well leaves it waiting for ever.
    pub fn later(&self) -> Saying<'_> {
        Saying(self)
    }
}

/// Says stop in the end.
#[derive(Debug)]
#[must_use]
pub struct Saying<'a>(&'a Stop);

impl Drop for Saying<'_> {
    fn drop(&mut self) {
        self.0.0.store(true, SeqCst);
    }
}
