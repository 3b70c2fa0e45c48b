//! Points at which the fault suite makes a process die, or wait. Without the feature `failpoints`, which no shipped
//! binary has, reaching one does nothing.
//!
//! With it the variable `FAILPOINT` says what happens where: `NAME[:N][=ACTION]`, several between spaces. The N-th time
//! that the process reaches the point (`:N+`: from then on every time; absent: the first time) it kills itself (`kill`,
//! also when absent), panics (`panic`), stops until somebody lets it go on (`stop`), sleeps (`sleep-MILLISECONDS`), or
//! takes memory until there is none (`allocate`).

/// Says that the process has come to a point.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn reached(_point: &'static str) {}

#[cfg(feature = "failpoints")]
pub use active::reached;

#[cfg(feature = "failpoints")]
mod active {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
    use std::time::Duration;

    use rustix::process::{Signal, getpid, kill_process};

    static ARMED: OnceLock<Vec<Armed>> = OnceLock::new();

    #[derive(Debug, PartialEq, Eq)]
    enum Action {
        Kill,
        Panic,
        Stop,
        Sleep(Duration),
        Allocate,
    }

    #[derive(Debug)]
    struct Armed {
        point: String,
        at: u64,
        ever_after: bool,
        action: Action,
        times: AtomicU64,
    }

    impl Armed {
        fn parse(text: &str) -> Option<Self> {
            let (place, action) = text.split_once('=').unwrap_or((text, "kill"));
            let (point, at) = place.split_once(':').unwrap_or((place, "1"));
            let action = match action {
                "kill" => Action::Kill,
                "panic" => Action::Panic,
                "stop" => Action::Stop,
                "allocate" => Action::Allocate,
                other => Action::Sleep(Duration::from_millis(other.strip_prefix("sleep-")?.parse().ok()?)),
            };
            Some(Self {
                point: point.to_owned(),
                at: at.trim_end_matches('+').parse().ok()?,
                ever_after: at.ends_with('+'),
                action,
                times: AtomicU64::new(0),
            })
        }

        fn is_due(&self) -> bool {
            let times = self.times.fetch_add(1, Relaxed) + 1;
            times == self.at || (self.ever_after && times > self.at)
        }
    }

    /// Says that the process has come to a point, and does what `FAILPOINT` wants there.
    ///
    /// # Panics
    /// When it is to, and when `FAILPOINT` cannot be read.
    pub fn reached(point: &'static str) {
        let armed = ARMED.get_or_init(|| {
            let text = std::env::var("FAILPOINT").unwrap_or_default();
            text.split_whitespace().map(|one| Armed::parse(one).expect("a FAILPOINT")).collect()
        });
        for armed in armed.iter().filter(|armed| armed.point == point && armed.is_due()) {
            // The log of a process that dies ends with the reason.
            eprintln!("failpoint {point}: {:?}", armed.action);
            act(point, &armed.action);
        }
    }

    fn act(point: &str, action: &Action) {
        match action {
            Action::Kill => signal(Signal::KILL),
            Action::Panic => panic!("failpoint {point}"),
            Action::Stop => signal(Signal::STOP),
            Action::Sleep(time) => std::thread::sleep(*time),
            Action::Allocate => {
                let mut taken = Vec::new();
                loop {
                    taken.push(vec![1_u8; 16 << 20]);
                }
            }
        }
    }

    fn signal(signal: Signal) {
        kill_process(getpid(), signal).expect("a process may signal itself");
        // Another thread may have been chosen to take it: this one goes no further meanwhile.
        std::thread::sleep(Duration::from_millis(200));
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn what_is_wanted_can_be_read() {
            let read = |text| Armed::parse(text).map(|a| (a.point, a.at, a.ever_after, a.action));
            assert_eq!(read("a.b"), Some(("a.b".to_owned(), 1, false, Action::Kill)));
            assert_eq!(read("a:3+=panic"), Some(("a".to_owned(), 3, true, Action::Panic)));
            let sleep = Action::Sleep(Duration::from_millis(70));
            assert_eq!(read("a:2=sleep-70"), Some(("a".to_owned(), 2, false, sleep)));
            for bad in ["a=", "a=sleep-", "a:x", "a:=kill", "a=die"] {
                assert_eq!(read(bad), None, "{bad}");
            }
        }

        #[test]
        fn it_happens_once_or_from_then_on() {
            let due = |text| {
                let armed = Armed::parse(text).expect("readable");
                (1..=4).map(|_| armed.is_due()).collect::<Vec<_>>()
            };
            assert_eq!(due("a:2"), [false, true, false, false]);
            assert_eq!(due("a:2+"), [false, true, true, true]);
        }
    }
}
