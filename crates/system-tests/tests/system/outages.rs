//! The database is away: a clear answer, soon, and nothing lost.

use std::time::{Duration, Instant};

use system_tests::system::{Options, System};

#[test]
fn without_the_database_there_is_a_503_within_two_seconds() {
    let options = Options { database_proxy: true, ..Options::default() };
    let mut system = System::start_with(options);
    system.sample_cell("cell1", &[]);
    let worker = system.worker();
    system.export("cell1", "before");
    let proxy = system.database_proxy.as_ref().unwrap();
    for (what, cut) in [("down", true), ("frozen", false)] {
        if cut {
            proxy.down()
        } else {
            proxy.freeze()
        }
        for (method, target) in
            [("POST", "/cell1/__export"), ("GET", "/cell1/__export"), ("GET", "/cell1/__snapshot/a.zip")]
        {
            let asked = Instant::now();
            let answer = system.request(method, target, &[], None);
            let took = asked.elapsed();
            assert_eq!((answer.status, answer.code().as_str()), (503, "PR503-SV-0006"), "{what} {method} {target}");
            assert!(took < Duration::from_secs(2), "{what} {method} {target}: {took:?}");
            assert!(answer.header("retry-after").is_some(), "{what}");
            assert!(!answer.text().contains("postgres"), "{}", answer.text());
        }
        proxy.up();
        system.eventually("the api is back", || system.request("GET", "/cell1/__export", &[], None).status == 200);
        // Whether the request of the outage was stored or not: what is stored gets done.
        system.wait_ready("cell1");
    }
    system.export("cell1", "after");
    assert!(!worker.log().contains("panic"));
}

#[test]
fn an_export_survives_a_database_that_is_away_for_a_moment() {
    let options = Options { database_proxy: true, ..Options::default() };
    let mut system = System::start_with(options);
    system.sample_cell("cell1", &["--documents", "60000"]);
    let _worker = system.worker();
    assert_eq!(system.post_export("cell1", "one").status, 202);
    system.eventually("it runs", || system.value("SELECT state FROM job") == "running");
    system.database_proxy.as_ref().unwrap().down();
    std::thread::sleep(Duration::from_secs(1));
    system.database_proxy.as_ref().unwrap().up();
    system.eventually("the api is back", || system.request("GET", "/cell1/__export", &[], None).status == 200);
    system.wait_ready("cell1");
    assert_eq!(system.files("cell1"), ["one.zip"]);
}

#[test]
fn without_space_for_another_snapshot_there_is_a_503_at_once() {
    let settings = vec![("DISK_RESERVE_BYTES", u64::MAX.to_string())];
    let system = System::start_with(Options { settings, ..Options::default() });
    system.sample_cell("cell1", &[]);
    let answer = system.post_export("cell1", "one");
    assert_eq!((answer.status, answer.code().as_str()), (503, "PR503-SV-0005"));
    assert!(answer.header("retry-after").is_some());
    assert_eq!(system.value("SELECT count(*) FROM job"), "0");
    assert_eq!(system.status("cell1")["status"], "ready", "reading goes on");
}

#[test]
fn a_database_that_hangs_in_a_statement_is_not_waited_for() {
    let system = System::start();
    system.sample_cell("cell1", &[]);
    let held = system.block_on(async {
        let mut tx = system.pool().begin().await.unwrap();
        sqlx::query("LOCK TABLE job IN ACCESS EXCLUSIVE MODE").execute(&mut *tx).await.unwrap();
        tx
    });
    let ask = |method| {
        let asked = Instant::now();
        let answer = system.request(method, "/cell1/__export", &[], None);
        ((answer.status, answer.code()), asked.elapsed())
    };
    // After two seconds the statement itself gives up. On a busy machine an answer may be late once, not every time.
    let in_time = |method| (0..5).map(|_| ask(method)).find(|(_, took)| *took < Duration::from_secs(2));
    let answers = ["POST", "GET"].map(|method| (method, in_time(method)));
    // Before anything is said: a test that fails must not drop a transaction outside its runtime.
    system.block_on(held.rollback()).unwrap();
    for (method, answer) in answers {
        let (answer, _) = answer.unwrap_or_else(|| panic!("{method} was waited for"));
        assert_eq!(answer, (503, "PR503-SV-0006".to_owned()), "{method}");
    }
    system.eventually("the api is back", || system.request("GET", "/cell1/__export", &[], None).status == 200);
}
