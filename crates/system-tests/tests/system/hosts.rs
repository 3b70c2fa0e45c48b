//! Several hosts need a storage that all of them see: directories of one's own are refused.

use std::time::Duration;

use system_tests::system::{Options, System};

#[test]
fn a_directory_is_for_one_host_unless_it_is_shared() {
    let settings = vec![("HOST_ID", "first".to_owned())];
    let mut system = System::start_with(Options { settings, ..Options::default() });
    system.eventually("the first host is known", || system.value("SELECT count(*) FROM host") == "1");
    let _same_host = system.worker();

    let mut other = system.worker_with(&[("HOST_ID", "second")]);
    assert_eq!(other.wait(Duration::from_secs(20)), Some(1));
    let said = other.log();
    assert!(said.contains("cannot start") && said.contains("STORAGE_SHARED=true"), "{said}");
    let mut api = system.service("api", &[("HOST_ID", "second"), ("API_LISTEN", "127.0.0.1:0")], &[]);
    assert_eq!(api.wait(Duration::from_secs(20)), Some(1), "{}", api.log());
    assert_eq!(system.value("SELECT string_agg(id, ' ') FROM host"), "first", "who is refused keeps nobody out");

    let sample = system.sample(&[]);
    let mut environment = system.service_environment("WORKER_");
    environment.retain(|(name, _)| name != "HOST_ID");
    let load = |host: &str| {
        let environment = [&environment[..], &[("HOST_ID".to_owned(), host.to_owned())]].concat();
        let arguments = ["load", "--cell", "sample", sample.to_str().unwrap()];
        system_tests::process::run("exporter-worker", &arguments, &environment)
    };
    let refused = load("second");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && said.contains("STORAGE_SHARED=true"), "{said}");
    assert!(load("first").status.success());

    let mut shared = system.worker_with(&[("HOST_ID", "second"), ("STORAGE_SHARED", "true")]);
    system.eventually("the second host is known", || system.value("SELECT count(*) FROM host") == "2");
    assert!(!shared.has_ended());
    shared.signal("TERM");
    shared.wait(Duration::from_secs(20));
    // A host that is gone counts for a while.
    system.execute("UPDATE host SET seen_at = clock_timestamp() - interval '1 hour' WHERE id = 'second'");
    let mut third = system.worker_with(&[("HOST_ID", "first")]);
    std::thread::sleep(Duration::from_secs(1));
    assert!(!third.has_ended(), "{}", third.log());
}

#[test]
fn a_host_that_starts_without_the_database_is_refused_when_that_is_back() {
    let settings = vec![("HOST_ID", "first".to_owned())];
    let mut system = System::start_with(Options { settings, database_proxy: true, ..Options::default() });
    system.eventually("the first host is known", || system.value("SELECT count(*) FROM host") == "1");
    system.database_proxy.as_ref().unwrap().down();
    let mut other = system.worker_with(&[("HOST_ID", "second")]);
    system.eventually("it runs", || other.log().contains("worker runs"));
    assert!(!other.has_ended());
    system.database_proxy.as_ref().unwrap().up();
    assert_eq!(other.wait(Duration::from_secs(30)), Some(1), "{}", other.log());
    assert!(other.log().contains("cannot go on"), "{}", other.log());
}
