//! Many at once: the database decides, once.

use std::sync::Barrier;

use system_tests::system::System;

#[test]
fn of_fifty_parallel_requests_for_a_cell_one_is_accepted() {
    let mut system = System::start();
    system.sample_cell("cell1", &[]);
    let answers = fifty_at_once(&system);
    let count =
        |wanted: (u16, &str)| answers.iter().filter(|(status, code)| (*status, code.as_str()) == wanted).count();
    let (accepted, refused) = (count((202, "")), count((409, "PR409-CM-0002")));
    // On a machine that is busy with something else, some may be told that the database does not answer in time, the one
    // that is accepted among them.
    let late = count((503, "PR503-SV-0006"));
    assert_eq!(accepted + refused + late, 50, "{answers:?}");
    assert!(accepted == 1 || accepted == 0 && late > 0, "{answers:?}");
    let jobs = || system.value("SELECT count(*) FROM job");
    system.eventually("one is accepted", || {
        if jobs() == "0" {
            fifty_at_once(&system);
        }
        jobs() == "1"
    });
    let _worker = system.worker();
    system.wait_ready("cell1");
    assert_eq!(system.files("cell1").len(), 1);
}

fn fifty_at_once(system: &System) -> Vec<(u16, String)> {
    let barrier = Barrier::new(50);
    std::thread::scope(|scope| {
        let asking = (0..50).map(|i| {
            let barrier = &barrier;
            scope.spawn(move || {
                barrier.wait();
                // Half of them want the same name.
                let name = if i % 2 == 0 { "same".to_owned() } else { format!("n{i}") };
                let answer = system.post_export("cell1", &name);
                (answer.status, answer.code())
            })
        });
        asking.collect::<Vec<_>>().into_iter().map(|t| t.join().unwrap()).collect()
    })
}

#[test]
fn of_many_workers_one_gets_the_job() {
    let mut system = System::start();
    system.sample_cell("cell1", &[]);
    let workers = [system.worker_with(&[("WORKER_SLOTS", "4")]), system.worker_with(&[("WORKER_SLOTS", "4")])];
    let broker = system.broker();
    system.eventually("all slots listen", || system.block_on(broker.waiting()).1 == 8);
    assert_eq!(system.post_export("cell1", "one").status, 202);
    let job = system.value("SELECT id FROM job");
    for _ in 0..20 {
        system.block_on(broker.publish(format!(r#"{{"v":1,"job":"{job}"}}"#).as_bytes()));
    }
    system.wait_ready("cell1");
    assert_eq!(system.value("SELECT attempt || ' ' || state || ' ' || strikes FROM job"), "1 succeeded 0");
    assert_eq!(std::fs::read_dir(system.area().join(&job)).unwrap().count(), 1, "one file, no part left");
    let begun: usize = workers.iter().map(|w| w.log().matches("job begins").count()).sum();
    assert_eq!(begun, 1);
}
