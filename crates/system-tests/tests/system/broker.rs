//! The broker can be away, lie, or shout: exports go on.

use std::time::{Duration, Instant};

use system_tests::system::{Options, System};

#[test]
fn an_export_is_accepted_and_runs_while_the_broker_is_down() {
    let options = Options { broker_proxy: true, ..Options::default() };
    let mut system = System::start_with(options);
    system.sample_cell("cell1", &[]);
    let _worker = system.worker();
    let broker = system.broker();
    system.eventually("the slot listens", || system.block_on(broker.waiting()).1 == 1);
    system.broker_proxy.as_ref().unwrap().down();
    let asked = Instant::now();
    assert_eq!(system.post_export("cell1", "down").status, 202);
    assert!(asked.elapsed() < Duration::from_secs(1), "202 does not wait for the broker: {:?}", asked.elapsed());
    system.wait_ready("cell1");
    assert_eq!(system.files("cell1"), ["down.zip"]);
    system.broker_proxy.as_ref().unwrap().up();
    system.eventually("the slot listens again", || system.block_on(broker.waiting()).1 == 1);
    system.export("cell1", "up");
}

#[test]
fn a_broker_that_does_not_answer_delays_nobody() {
    let options = Options { broker_proxy: true, ..Options::default() };
    let mut system = System::start_with(options);
    system.sample_cell("cell1", &[]);
    let _worker = system.worker();
    system.broker_proxy.as_ref().unwrap().freeze();
    let asked = Instant::now();
    assert_eq!(system.post_export("cell1", "frozen").status, 202);
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    system.wait_ready("cell1");
    assert_eq!(system.files("cell1"), ["frozen.zip"]);
}

#[test]
fn a_doorbell_wakes_an_idle_worker_before_it_polls() {
    let mut system = System::start();
    system.sample_cell("cell1", &[]);
    let _worker = system.worker_with(&[("JOB_POLL_SECS", "600")]);
    let broker = system.broker();
    system.eventually("the slot listens", || system.block_on(broker.waiting()).1 == 1);
    for name in ["one", "two", "three"] {
        system.export("cell1", name);
    }
}

#[test]
fn the_relay_rings_when_the_first_doorbell_was_lost() {
    let mut system = System::start();
    system.sample_cell("cell1", &[]);
    assert_eq!(system.post_export("cell1", "one").status, 202);
    let broker = system.broker();
    system.eventually("the doorbell waits", || system.block_on(broker.waiting()).0 >= 1);
    // The queue is lost with everything in it, as after a wiped node.
    system.block_on(broker.remove());
    let broker = system.broker();
    let _worker = system.worker_with(&[("JOB_POLL_SECS", "600")]);
    system.execute("UPDATE job SET dispatch_at = clock_timestamp(), dispatches = 0");
    system.wait_ready("cell1");
    assert_eq!(system.files("cell1"), ["one.zip"]);
    drop(broker);
}

#[test]
fn garbage_and_duplicates_have_no_effect() {
    let mut system = System::start();
    system.sample_cell("cell1", &[]);
    let worker = system.worker();
    system.export("cell1", "one");
    let job = system.value("SELECT id FROM job");
    let before = system.value("SELECT job FROM job");
    let broker = system.broker();
    let large = vec![b'x'; 1 << 20];
    let final_job = format!(r#"{{"v":1,"job":"{job}"}}"#);
    let unknown = format!(r#"{{"v":1,"job":"{}"}}"#, uuid::Uuid::new_v4());
    let future = format!(r#"{{"v":99,"job":"{job}"}}"#);
    for body in [b"".as_slice(), b"{", b"null", &large, final_job.as_bytes(), unknown.as_bytes(), future.as_bytes()] {
        for _ in 0..10 {
            system.block_on(broker.publish(body));
        }
    }
    system.eventually("all are dealt with", || system.block_on(broker.waiting()) == (0, 1));
    assert_eq!(system.value("SELECT job FROM job"), before);
    assert!(!worker.log().contains("panic"), "{}", worker.log());
    system.export("cell1", "two");
}
