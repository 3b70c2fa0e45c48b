//! Rows 4 to 12 and 19: a broker that is away, frozen, full, wiped, or says wrong things. Nothing waits for it.

use std::time::{Duration, Instant};

use system_tests::broker::Broker;
use system_tests::oracle::{self, Expected};
use system_tests::proxy::Proxy;
use system_tests::system::{System, within};
use uuid::Uuid;

use crate::bench::{Bench, broker, cell, in_full, on};

/// Accepts exports of these cells, and does not wait for the broker: whoever did would wait for five seconds.
fn accepted_at_once(bench: &Bench, cells: std::ops::Range<usize>, name: &str) {
    let times = cells.map(|number| {
        let asked = Instant::now();
        bench.accepted(&cell(number), name);
        asked.elapsed()
    });
    let times: Vec<Duration> = times.collect();
    assert!(times.iter().all(|time| *time < Duration::from_secs(4)), "{times:?}");
    assert!(times.iter().any(|time| *time < Duration::from_secs(1)), "{times:?}");
}

/// A worker that hears of nothing but by its doorbell.
fn listening(bench: &Bench) -> system_tests::process::Process {
    bench.worker(&[("JOB_POLL_SECS", "600")])
}

fn wait_for_consumers(bench: &Bench, broker: &Broker, number: u32) {
    bench.system.eventually("the slots listen", || bench.system.block_on(broker.waiting()).1 == number);
}

/// An export that starts because somebody rang.
fn rings(bench: &Bench, name: &str) {
    bench.accepted("c0", name);
    assert!(within(Duration::from_secs(30), || bench.job(name, "state") == "succeeded"), "nobody heard of {name}");
}

#[test]
fn row_04_an_export_is_accepted_and_runs_while_the_broker_is_down() {
    let servers = broker();
    let bench = Bench::start_with("row_04", on(&servers));
    bench.cells(3, &[]);
    let worker = bench.worker(&[]);
    servers.broker_control(&["stop_app"]);
    bench.history.fault("stop_app");
    accepted_at_once(&bench, 0..3, "down");
    let ended = within(Duration::from_secs(15), || bench.active() == 0);
    servers.broker_control(&["start_app"]);
    assert!(ended, "exports wait for the broker");
    let waited = "SELECT max(extract(epoch FROM started_at - accepted_at)) FROM job";
    // Behind two others, on one slot.
    assert!(bench.system.value(waited).parse::<f64>().unwrap() < 5.0);
    drop(worker);
    let _worker = listening(&bench);
    wait_for_consumers(&bench, &bench.system.broker(), 1);
    rings(&bench, "up");
    assert_eq!(bench.judge(&Expected::default()).zips, 4);
}

#[test]
fn row_05_a_long_outage_of_the_broker_delays_nobody() {
    let servers = broker();
    let bench = Bench::start_with("row_05", on(&servers));
    bench.cells(10, &[]);
    let workers = [bench.worker(&[]), bench.worker(&[])];
    let outage = if in_full() { Duration::from_secs(900) } else { Duration::from_secs(15) };
    let begun = Instant::now();
    servers.broker_control(&["stop_app"]);
    bench.history.fault("stop_app");
    for round in 0..10 {
        for number in 0..10 {
            let name = format!("r{round}");
            bench.system.eventually("the cell is free", || bench.client.export(&cell(number), &name).is_done());
        }
    }
    bench.system.eventually("all are done during the outage", || bench.active() == 0);
    std::thread::sleep(outage.saturating_sub(begun.elapsed()));
    servers.broker_control(&["start_app"]);
    let broker = bench.system.broker();
    let back = within(Duration::from_secs(40), || {
        let (waiting, consumers) = bench.system.block_on(broker.waiting());
        assert!(waiting <= 4, "{waiting} doorbells of the outage ring");
        consumers == 2
    });
    assert!(back, "the workers do not come back");
    drop(workers);
    let _worker = listening(&bench);
    wait_for_consumers(&bench, &broker, 1);
    rings(&bench, "after");
    let verdict = bench.judge(&Expected::default());
    assert_eq!((verdict.zips, verdict.retried), (101, 0));
}

#[test]
fn row_06_a_restart_of_the_broker_does_not_touch_running_exports() {
    let servers = broker();
    let bench = Bench::start_with("row_06", on(&servers));
    bench.cells(3, &[]);
    for (number, fault) in ["restart", "kill"].iter().enumerate() {
        let slow = [("FAILPOINT", "export.zip_finished:1+=sleep-6000"), ("WORKER_SLOTS", "2")];
        let worker = bench.worker(&slow);
        let cells = [cell(number), cell(2)];
        for cell in &cells {
            bench.accepted(cell, fault);
        }
        bench.system.eventually("both run", || worker.log().matches("failpoint").count() == 2);
        bench.history.fault(fault);
        match *fault {
            "restart" => {
                servers.broker_control(&["stop_app"]);
                servers.broker_control(&["start_app"]);
            }
            _ => {
                servers.kill_broker();
                servers.run();
            }
        }
        // The same jobs again, by name: duplicates of the doorbells that were answered before.
        let broker = bench.system.broker();
        for job in [0, 1] {
            let id = bench
                .system
                .value(&format!("SELECT id FROM job WHERE name = '{fault}' ORDER BY id OFFSET {job} LIMIT 1"));
            bench.system.block_on(broker.publish(format!(r#"{{"v":1,"job":"{id}"}}"#).as_bytes()));
        }
        bench.system.eventually("both end", || bench.active() == 0);
    }
    let _worker = listening(&bench);
    let verdict = bench.judge(&Expected::default());
    assert_eq!((verdict.zips, verdict.retried), (4, 0));
    assert_eq!(bench.system.value("SELECT max(strikes) FROM job"), "0");
}

#[test]
fn row_07_connections_are_closed_over_and_over() {
    let servers = broker();
    let bench = Bench::start_with("row_07", on(&servers));
    bench.cells(4, &[]);
    let workers = [bench.worker(&[]), bench.worker(&[])];
    for round in 0..if in_full() { 30 } else { 4 } {
        servers.broker_control(&["close_all_connections", "chaos"]);
        bench.history.fault("close_all_connections");
        for number in 0..4 {
            let name = format!("r{round}");
            bench.system.eventually("the cell is free", || bench.client.export(&cell(number), &name).is_done());
        }
    }
    bench.system.eventually("all end", || bench.active() == 0);
    wait_for_consumers(&bench, &bench.system.broker(), 2);
    drop(workers);
    let _worker = listening(&bench);
    wait_for_consumers(&bench, &bench.system.broker(), 1);
    rings(&bench, "after");
    let verdict = bench.judge(&Expected::default());
    assert_eq!(verdict.retried, 0);
}

#[test]
fn row_08_a_frozen_broker_holds_nobody_up() {
    let servers = broker();
    let bench = Bench::start_with("row_08", on(&servers));
    bench.cells(3, &[]);
    let worker = bench.worker(&[]);
    wait_for_consumers(&bench, &bench.system.broker(), 1);
    servers.signal_broker("STOP");
    bench.history.fault("SIGSTOP");
    accepted_at_once(&bench, 0..3, "frozen");
    let ended = within(Duration::from_secs(15), || bench.active() == 0);
    let noticed = within(Duration::from_secs(10), || bench.system.api().log().contains("did not answer in time"));
    std::thread::sleep(Duration::from_secs(if in_full() { 60 } else { 3 }));
    servers.signal_broker("CONT");
    assert!(ended, "exports wait for the broker");
    assert!(noticed, "{}", bench.system.api().log());
    drop(worker);
    let _worker = listening(&bench);
    wait_for_consumers(&bench, &bench.system.broker(), 1);
    rings(&bench, "thawed");
    let verdict = bench.judge(&Expected::default());
    assert_eq!((verdict.zips, verdict.retried), (4, 0));
}

#[test]
fn row_09_an_alarm_of_the_broker_blocks_publishers_only() {
    let servers = broker();
    let bench = Bench::start_with("row_09", on(&servers));
    bench.cells(6, &[]);
    let broker = bench.system.broker();
    for number in 0..3 {
        bench.accepted(&cell(number), "before");
    }
    bench.system.eventually("the doorbells wait", || bench.system.block_on(broker.waiting()).0 >= 3);
    servers.broker_control(&["set_disk_free_limit", "1000000GB"]);
    bench.history.fault("disk alarm");
    std::thread::sleep(Duration::from_secs(1));
    accepted_at_once(&bench, 3..6, "during");
    // What is there is taken and acknowledged: that is another connection than the one that publishes.
    let worker = bench.worker(&[]);
    let ended = within(Duration::from_secs(20), || bench.active() == 0);
    let emptied = within(Duration::from_secs(20), || bench.system.block_on(broker.waiting()).0 == 0);
    servers.broker_control(&["set_disk_free_limit", "50MB"]);
    assert!(ended, "exports wait for the broker");
    assert!(emptied, "the doorbells were not acknowledged");
    drop(worker);
    let _worker = listening(&bench);
    wait_for_consumers(&bench, &broker, 1);
    rings(&bench, "after");
    let verdict = bench.judge(&Expected::default());
    assert_eq!((verdict.zips, verdict.retried), (7, 0));
}

#[test]
fn row_10_queues_that_vanish_come_back() {
    let servers = broker();
    let bench = Bench::start_with("row_10", on(&servers));
    bench.cells(1, &[]);
    let queue = format!("{}.jobs", bench.system.prefix());
    let _worker = listening(&bench);
    wait_for_consumers(&bench, &bench.system.broker(), 1);
    for fault in ["purge", "delete", "wipe"] {
        bench.history.fault(fault);
        match fault {
            "purge" => drop(servers.broker_control(&["purge_queue", "-p", "cellexport", &queue])),
            "delete" => drop(servers.broker_control(&["delete_queue", "-p", "cellexport", &queue])),
            _ => {
                for command in ["stop_app", "reset", "start_app"] {
                    servers.broker_control(&[command]);
                }
                servers.forget_broker_setup();
                servers.run();
            }
        }
        // Before the worker is back: its first doorbell finds no queue, and the relay rings again.
        rings(&bench, &format!("{fault}-at-once"));
        wait_for_consumers(&bench, &bench.system.broker(), 1);
        rings(&bench, &format!("{fault}-later"));
    }
    let verdict = bench.judge(&Expected::default());
    assert_eq!((verdict.zips, verdict.retried), (6, 0));
}

#[test]
fn row_11_a_full_queue_refuses_and_the_relay_repeats() {
    let servers = broker();
    let bench = Bench::start_with("row_11", on(&servers));
    bench.cells(10, &[]);
    let pattern = format!("^{}[.]jobs$", bench.system.prefix());
    let policy = r#"{"max-length":3,"overflow":"reject-publish","delivery-limit":10}"#;
    servers.broker_control(&[
        "set_policy",
        "-p",
        "cellexport",
        "--apply-to",
        "queues",
        "--priority",
        "9",
        "small",
        &pattern,
        policy,
    ]);
    bench.history.fault("max-length 3");
    accepted_at_once(&bench, 0..10, "one");
    let full = || bench.system.api().log().contains("queue is full");
    bench.system.eventually("the broker refuses", full);
    let broker = bench.system.broker();
    // A quorum queue may overshoot a little.
    assert!(bench.system.block_on(broker.waiting()).0 <= 6);
    // Polls once, and then has to be told: of what did not fit, the relay tells.
    let worker = listening(&bench);
    bench.system.eventually("all end", || bench.active() == 0);
    drop(worker);
    let _worker = listening(&bench);
    let verdict = bench.judge(&Expected::default());
    servers.broker_control(&["clear_policy", "-p", "cellexport", "small"]);
    assert_eq!((verdict.zips, verdict.retried), (10, 0));
}

#[test]
fn row_12_wrong_messages_have_no_effect() {
    let servers = broker();
    let bench = Bench::start_with("row_12", on(&servers));
    bench.cells(5, &[]);
    let _workers = [bench.worker(&[]), bench.worker(&[])];
    let broker = bench.system.broker();
    bench.accepted("c0", "stale");
    bench.system.eventually("it ends", || bench.active() == 0);
    let stale = bench.system.value("SELECT id FROM job");
    for number in 1..5 {
        bench.accepted(&cell(number), "one");
    }
    let running = bench.system.value("SELECT id FROM job WHERE name = 'one' ORDER BY id LIMIT 1");
    let bell = |job: &str| format!(r#"{{"v":1,"job":"{job}"}}"#).into_bytes();
    let wrong: [Vec<u8>; 6] = [
        format!(r#"{{"v":99,"job":"{stale}"}}"#).into_bytes(),
        b"{".to_vec(),
        Vec::new(),
        vec![0xff; 100],
        [bell(&stale), vec![b' '; 2000]].concat(),
        br#"{"v":1,"job":"'; DROP TABLE job; --"}"#.to_vec(),
    ];
    bench.history.fault("wrong messages");
    for _ in 0..50 {
        for job in [&stale, &running, &Uuid::new_v4().to_string()] {
            bench.system.block_on(broker.publish(&bell(job)));
        }
        for body in &wrong {
            bench.system.block_on(broker.publish(body));
        }
    }
    let large = if in_full() { 50 } else { 3 };
    for _ in 0..large {
        bench.system.block_on(broker.publish(&vec![b'x'; 10 << 20]));
    }
    bench.system.eventually("all end", || bench.active() == 0);
    bench.system.eventually("the queue is empty", || bench.system.block_on(broker.waiting()).0 == 0);
    let verdict = bench.judge(&Expected::default());
    assert_eq!((verdict.zips, verdict.retried), (5, 0));
    assert_eq!(bench.system.value("SELECT max(attempt) FROM job"), "1");
    // An empty queue has handed out its last message: who got it may not have looked at it yet.
    let rejected = || bench.logs().map(|log| log.matches("is no doorbell").count()).sum::<usize>();
    let all = 50 * wrong.len() + large;
    bench.system.eventually("each wrong message is told", || rejected() >= all);
}

#[test]
fn row_19_a_worker_without_its_broker_goes_on() {
    let bench = Bench::start("row_19");
    bench.cells(3, &[]);
    let proxy = System::proxy_before(&bench.system.url("WORKER_", "AMQP_URL"));
    let url = bench.system.url_through(&proxy, "WORKER_", "AMQP_URL");
    let worker = bench.worker(&[("AMQP_URL", &url)]);
    let broker = bench.system.broker();
    wait_for_consumers(&bench, &broker, 1);
    for (fault, make) in [("freeze", Proxy::freeze as fn(&Proxy)), ("down", Proxy::down)] {
        bench.history.fault(fault);
        make(&proxy);
        accepted_at_once(&bench, 0..3, fault);
        bench.system.eventually("all end", || bench.active() == 0);
        proxy.up();
        proxy.cut();
        wait_for_consumers(&bench, &broker, 1);
    }
    assert!(!worker.log().contains("panic"));
    oracle::hurry(&bench.system);
    let verdict = bench.judge(&Expected::default());
    assert_eq!((verdict.zips, verdict.retried), (6, 0));
}
