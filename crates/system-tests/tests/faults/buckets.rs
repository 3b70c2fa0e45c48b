//! Processes that die while they send a file to a bucket.

use std::time::Duration;

use system_tests::http;
use system_tests::judge::skipped;
use system_tests::object_server::ObjectServer;
use system_tests::process::Process;
use system_tests::system::{Options, System, TOKEN};

/// Where a service can die while it sends a file, in order. One that is sent in parts, the second time in the middle.
pub(crate) const BUCKET: &[&str] = &["area.before_sending", "area.part_sent", "area.part_sent:2", "area.sent"];

fn start() -> Option<(ObjectServer, System)> {
    crate::bench::binaries_have_failpoints();
    let Some(server) = ObjectServer::start() else {
        skipped("no S3 service: S3_SERVER names none");
        return None;
    };
    let system = System::start_with(Options { settings: server.settings(), ..Options::default() });
    Some((server, system))
}

fn died(victim: &mut Process, point: &str) {
    victim.wait(Duration::from_secs(60));
    let words = format!("failpoint {}", point.split(':').next().unwrap());
    assert!(victim.log().contains(&words), "{point}: {}", victim.log());
}

/// Sweeps until nothing goes any more; then the bucket holds what rows name.
fn assert_swept(server: &ObjectServer, system: &System, files: usize) {
    system.eventually("nothing is left to sweep", || system.sweep() == "0");
    let keys = server.keys();
    assert_eq!(keys.iter().filter(|key| key.starts_with("snapshots/")).count(), files, "{keys:?}");
    let blobs: usize = system.value("SELECT count(*) FROM blob").parse().unwrap();
    assert_eq!(keys.iter().filter(|key| key.starts_with("blobs/")).count(), blobs, "{keys:?}");
    assert_eq!(keys.iter().filter(|key| key.starts_with("marks/")).count(), 0, "{keys:?}");
}

#[test]
fn a_worker_dies_while_it_sends() {
    let Some((server, mut system)) = start() else { return };
    system.sample_cell("cell1", &["--noise", "30000000"]);
    for (number, point) in BUCKET.iter().enumerate() {
        let name = format!("n{number}");
        let mut victim = system.service("exporter-worker", &[("FAILPOINT", point)], &[]);
        assert_eq!(system.post_export("cell1", &name).status, 202);
        died(&mut victim, point);
        assert!(!system.files("cell1").iter().any(|file| file.starts_with(&name)), "{point}: nothing is visible");
        let _heir = system.worker();
        system.wait_ready("cell1");
        let whole = std::fs::metadata(system.download("cell1", &format!("{name}.zip"))).unwrap().len();
        assert!(whole > 30_000_000, "{point}: {whole}");
        assert_eq!(system.value(&format!("SELECT attempt FROM job WHERE name = '{name}'")), "2", "{point}");
    }
    assert_swept(&server, &system, BUCKET.len());
}

#[test]
fn an_api_dies_while_it_sends_an_upload() {
    let Some((server, mut system)) = start() else { return };
    system.make_cell("cell1");
    let bytes = vec![7; 30_000_000];
    drop(system.take_api());
    for point in BUCKET {
        let mut victim = system.service("api", &[("FAILPOINT", point)], &[]);
        system.eventually("it answers", || http::request(system.address, "OPTIONS", "/", &[], None).is_ok());
        let bearer = format!("Bearer {TOKEN}");
        let put = http::request(
            system.address,
            "PUT",
            "/cell1/__snapshot/a.zip",
            &[("Authorization", &bearer)],
            Some(&bytes),
        );
        assert!(put.is_err(), "{point}: nobody is told that it is there");
        died(&mut victim, point);
        assert_eq!(system.value("SELECT count(*) FROM snapshot_entry"), "0", "{point}");
    }
    let _api = system.service("api", &[], &[]);
    system.eventually("it answers", || http::request(system.address, "OPTIONS", "/", &[], None).is_ok());
    assert_eq!(system.put("cell1", "a.zip", &[], &bytes).status, 201);
    assert_swept(&server, &system, 1);
}
