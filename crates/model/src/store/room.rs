//! How many more jobs may wait, as far as one process knows.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::limits;

/// Counting what waits takes longer the more it is. So it is done once in a while ([`limits::COUNT_PERIOD`]), and what is
/// accepted here in between is subtracted from what was left.
#[derive(Debug, Default)]
pub(super) struct Room(Mutex<Option<Known>>);

#[derive(Debug)]
struct Known {
    left: i64,
    at: Instant,
}

impl Room {
    /// Takes a place. `false`: nobody knows whether there is one, somebody has to count.
    pub(super) fn take(&self) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *known {
            Some(Known { left, at }) if *left > 0 && at.elapsed() < limits::COUNT_PERIOD => {
                *left -= 1;
                true
            }
            Some(_) | None => false,
        }
    }

    /// Takes one of so many places that were counted, if there are any. Only half of the others are given without counting
    /// again, since other processes give them, too: the fewer there are, the more often is counted.
    pub(super) fn counted(&self, left: i64) -> bool {
        let known = Known { left: (left - 1) / 2, at: Instant::now() };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
        left > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fewer_places_are_left_the_more_often_is_counted() {
        let room = Room::default();
        assert!(!room.take(), "nobody has counted");
        for (left, without) in [(9, 4), (3, 1), (2, 0), (1, 0)] {
            assert!(room.counted(left));
            assert_eq!((0..20).filter(|_| room.take()).count(), without, "of {left}");
        }
        assert!(!room.counted(0));
        assert!(!room.counted(-5));
        assert!(!room.take());
    }

    #[test]
    fn what_was_counted_is_forgotten() {
        let room = Room::default();
        assert!(room.counted(1000) && room.take());
        if let Some(known) = room.0.lock().expect("nobody panicked").as_mut() {
            known.at -= limits::COUNT_PERIOD;
        }
        assert!(!room.take());
    }
}
