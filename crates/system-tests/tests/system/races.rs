//! Many at once: the database decides, once.

use std::sync::Barrier;

use system_tests::system::System;

#[test]
fn of_fifty_parallel_requests_for_a_cell_one_is_accepted() {
    let mut system = System::start();
    let (mut cell, mut answers, mut round) = (String::new(), Vec::new(), 0);
    // On a machine that is busy with something else, some of them may be told that the database does not answer in time.
    system.eventually("the database answers all of them", || {
        round += 1;
        cell = format!("cell{round}");
        system.sample_cell(&cell, &[]);
        answers = fifty_at_once(&system, &cell);
        answers.iter().all(|(_, code)| code != "PR503-SV-0006")
    });
    assert_eq!(answers.iter().filter(|(status, _)| *status == 202).count(), 1, "{answers:?}");
    assert_eq!(answers.iter().filter(|(_, code)| code == "PR409-CM-0002").count(), 49, "{answers:?}");
    let _worker = system.worker();
    system.wait_ready(&cell);
    assert_eq!(system.files(&cell).len(), 1);
}

fn fifty_at_once(system: &System, cell: &str) -> Vec<(u16, String)> {
    let barrier = Barrier::new(50);
    std::thread::scope(|scope| {
        let asking = (0..50).map(|i| {
            let barrier = &barrier;
            scope.spawn(move || {
                barrier.wait();
                // Half of them want the same name.
                let name = if i % 2 == 0 { "same".to_owned() } else { format!("n{i}") };
                let answer = system.post_export(cell, &name);
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
