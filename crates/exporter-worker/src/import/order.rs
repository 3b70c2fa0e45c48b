//! Targets before users: which user data has to move to the front of its type, and in which order.
//!
//! Personium's importer keeps a reference only if its target stands earlier in the file. Documents whose target stands
//! later stay where they are; the target moves to the front, and what it refers to, in turn, before it. So only the
//! references of what moves have to be followed.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

/// A reference: places of the user and of the target in the present order.
pub(super) type Reference = (u32, u32);

/// Watches user data go by, and tells whether all targets stand before their users already: then the database need not look
/// for those that do not, which takes it half as long as storing the documents.
#[derive(Debug)]
pub(super) struct Passing {
    /// Of ids, hashes with a secret of their own: nobody can make two of them equal, and 64 bits are not equal by chance. In
    /// many sets, because a set that grows needs its memory twice meanwhile.
    seen: Vec<HashSet<u64>>,
    /// How many they are.
    passed: usize,
    secret: RandomState,
    /// A target did not come by before its user, or nobody can tell.
    doubtful: bool,
}

impl Passing {
    const SETS: usize = 64;

    pub(super) fn new() -> Self {
        let seen = vec![HashSet::new(); Self::SETS];
        Self { seen, passed: 0, secret: RandomState::new(), doubtful: false }
    }

    /// The next one. Up to `most` of them are remembered.
    pub(super) fn pass(&mut self, id: &str, targets: &[String], most: usize) {
        if self.doubtful {
            return;
        }
        let hash = |id: &str| self.secret.hash_one(id);
        let set = |hash: u64| (hash % Self::SETS as u64) as usize;
        let own = hash(id);
        self.passed += 1;
        self.seen[set(own)].insert(own);
        let known = targets.iter().map(|target| hash(target)).all(|target| self.seen[set(target)].contains(&target));
        if !known || self.passed > most {
            self.doubtful = true;
            self.seen = Vec::new();
        }
    }

    /// Tells whether nothing has to move.
    pub(super) fn were_in_order(&self) -> bool {
        !self.doubtful
    }
}

/// Finds what has to move. `references` are sorted. The result begins with what must stand first; every place occurs once.
/// A circle is cut where it closes.
pub(super) fn moving(references: &[Reference]) -> Vec<u32> {
    let mut placed = Vec::new();
    let mut opened = HashSet::new();
    for (user, target) in references {
        if target > user {
            place(*target, references, &mut opened, &mut placed);
        }
    }
    placed
}

/// A depth-first walk with a stack of its own: chains may be longer than any call stack.
fn place(from: u32, references: &[Reference], opened: &mut HashSet<u32>, placed: &mut Vec<u32>) {
    if !opened.insert(from) {
        return;
    }
    let first = |user: u32| references.partition_point(|(of, _)| *of < user);
    let mut stack = vec![(from, first(from))];
    while let Some((user, next)) = stack.last_mut() {
        match references.get(*next) {
            Some((of, target)) if of == user => {
                *next += 1;
                if opened.insert(*target) {
                    stack.push((*target, first(*target)));
                }
            }
            Some(_) | None => {
                placed.push(*user);
                stack.pop();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole order after moving, for places 0 to `count - 1`.
    fn ordered(references: &[Reference], count: u32) -> Vec<u32> {
        let mut sorted = references.to_vec();
        sorted.sort_unstable();
        let moved = moving(&sorted);
        let mut all = moved.clone();
        all.extend((0..count).filter(|place| !moved.contains(place)));
        all
    }

    #[test]
    fn what_is_in_order_stays() {
        assert_eq!(moving(&[(1, 0), (2, 0), (2, 1)]), [0; 0]);
        assert_eq!(moving(&[]), [0; 0]);
        assert_eq!(moving(&[(3, 3)]), [0; 0], "a document may refer to itself");
    }

    fn were_in_order(documents: &[(&str, &[&str])], most: usize) -> bool {
        let mut passing = Passing::new();
        for (id, targets) in documents {
            passing.pass(id, &targets.iter().map(|target| (*target).to_owned()).collect::<Vec<_>>(), most);
        }
        passing.were_in_order()
    }

    #[test]
    fn what_passes_in_order_is_known_to_be() {
        assert!(were_in_order(&[], 9));
        assert!(were_in_order(&[("a", &[]), ("b", &["a", "b"]), ("c", &["a", "b"])], 9));
        assert!(!were_in_order(&[("a", &["b"]), ("b", &[])], 9), "forward");
        assert!(!were_in_order(&[("a", &["b"])], 9), "to nothing, which the database has to find out");
        assert!(!were_in_order(&[("a", &[]), ("b", &["c"]), ("c", &["a"]), ("d", &["c"])], 9), "once is enough");
        assert!(were_in_order(&[("a", &[]), ("b", &["a"]), ("c", &["a"])], 3));
        assert!(!were_in_order(&[("a", &[]), ("b", &["a"]), ("c", &["a"])], 2), "not all can be remembered");
    }

    #[test]
    fn targets_move_before_their_users_and_what_they_need_before_them() {
        assert_eq!(ordered(&[(0, 3), (3, 1)], 4), [1, 3, 0, 2]);
        assert_eq!(ordered(&[(0, 1), (1, 2), (2, 3)], 4), [3, 2, 1, 0]);
    }

    #[test]
    fn circles_end_and_lose_nothing() {
        let mut all = ordered(&[(0, 1), (1, 0), (2, 3), (3, 4), (4, 2)], 5);
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn long_chains_take_no_longer_per_document() {
        let chain: Vec<Reference> = (0..1_000_000).map(|n| (n, n + 1)).collect();
        let moved = moving(&chain);
        assert_eq!((moved.len(), moved[0], moved[999_999]), (1_000_000, 1_000_000, 1));
    }

    /// Whatever the references are, if there is no circle then every target stands before its users.
    #[test]
    fn any_references_without_circles_are_put_right() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let count = random.u32(2..60);
            // References follow a hidden order, so there is no circle.
            let mut hidden: Vec<u32> = (0..count).collect();
            random.shuffle(&mut hidden);
            let references: Vec<Reference> = (0..random.usize(..150))
                .map(|_| {
                    let (a, b) = (random.u32(..count), random.u32(..count));
                    let (user, target) = if hidden[a as usize] > hidden[b as usize] { (a, b) } else { (b, a) };
                    (user, target)
                })
                .collect();
            let all = ordered(&references, count);
            assert_eq!(all.len(), count as usize, "seed {seed}");
            let place = |of: u32| all.iter().position(|p| *p == of);
            for (user, target) in references {
                assert!(user == target || place(target) < place(user), "seed {seed}: {user} needs {target} in {all:?}");
            }
        }
    }
}
