//! Both services with a bucket: everything that a directory does, without one.

use std::path::Path;
use std::time::Duration;

use model::limits;
use system_tests::http::Answer;
use system_tests::judge::skipped;
use system_tests::object_server::ObjectServer;
use system_tests::process;
use system_tests::system::{Options, System, TOKEN};

/// An installation with a bucket; nothing when there is no S3 service.
fn start(more: &[(&'static str, &str)]) -> Option<(ObjectServer, System)> {
    let Some(server) = ObjectServer::start() else {
        skipped("no S3 service: S3_SERVER names none");
        return None;
    };
    let mut settings = server.settings();
    settings.extend(more.iter().map(|(name, value)| (*name, value.to_string())));
    let system = System::start_with(Options { settings, ..Options::default() });
    Some((server, system))
}

fn get(system: &System, target: &str, headers: &[(&str, &str)]) -> Answer {
    system.request("GET", target, headers, None)
}

#[test]
fn a_cell_goes_out_and_in_by_way_of_a_bucket() {
    let Some((server, mut system)) = start(&[]) else { return };
    // Two hosts, each with a scratch directory of its own.
    let scratch = |system: &System, name: &str| system.directory().join(name).display().to_string();
    let (first, second) = (scratch(&system, "scratch-1"), scratch(&system, "scratch-2"));
    let first = system.worker_with(&[("SCRATCH_DIR", &first), ("HOST_ID", "first")]);
    let second = system.worker_with(&[("SCRATCH_DIR", &second), ("HOST_ID", "second")]);
    // One entry is longer than a part, and does not shrink.
    let sample = system.sample_cell("cell1", &["--noise", "40000000"]);
    let exported = system.export("cell1", "a");
    assert!(server.keys().iter().any(|key| key.starts_with("snapshots/")));
    assert!(server.keys().iter().any(|key| key.starts_with("blobs/")));
    assert!(!system.directory().join("area").exists(), "no directory of snapshots is made");

    // The same snapshot as one that never left this host.
    let beside = System::start();
    let output = beside.load("cell1", &sample, &[]);
    assert!(output.status.success(), "{output:?}");
    let mut beside = beside;
    let _worker = beside.worker();
    let plain = beside.export("cell1", "a");
    assert_eq!(entries(&exported), entries(&plain));

    let bytes = std::fs::read(&exported).unwrap();
    let part = get(&system, "/cell1/__snapshot/a.zip", &[("Range", "bytes=1000000-9999999")]);
    assert_eq!(part.status, 206);
    assert!(part.body == bytes[1_000_000..10_000_000]);
    let put = system.put("cell1", "b.zip", &[], &bytes);
    assert_eq!(put.status, 201, "{}", put.text());
    for (what, target) in [("a dry run", "__import/dry-run"), ("an import", "__import")] {
        let answer = system.request("POST", &format!("/cell1/{target}"), &[], Some(br#"{"Name":"b"}"#));
        assert_eq!(answer.status, 202, "{what}: {}", answer.text());
        system.eventually(what, || {
            system.value("SELECT count(*) FROM job WHERE state NOT IN ('succeeded', 'failed', 'cancelled')") == "0"
        });
        let ended = "SELECT state || coalesce(error::text, '') FROM job ORDER BY accepted_at DESC LIMIT 1";
        assert_eq!(system.value(ended), "succeeded", "{what}");
    }
    let again = system.export("cell1", "c");
    assert_eq!(entries(&again), entries(&plain), "what came in is what went out");

    // The ceilings of services with directories, and what is being sent.
    let sending = limits::SENDING as u64 * limits::PARTS_AT_ONCE;
    for (process, ceiling) in [(&first, 96 << 20), (&second, 96 << 20), (system.api(), 64 << 20)] {
        let peak = process.peak_memory();
        assert!(peak < ceiling + sending, "{} MiB", peak >> 20);
    }
    for (service, binary) in [("API_", "api"), ("WORKER_", "exporter-worker")] {
        let doctor = |environment: &[(String, String)]| {
            let output = process::run(binary, &["doctor"], environment);
            (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let mut environment = system.service_environment(service);
        environment.retain(|(name, _)| name != "API_LISTEN");
        environment.push(("API_LISTEN".to_owned(), "127.0.0.1:0".to_owned()));
        let (code, said) = doctor(&environment);
        assert_eq!(code, Some(0), "{said}");
        environment.retain(|(name, _)| name != "S3_BUCKET");
        environment.push(("S3_BUCKET".to_owned(), "another".to_owned()));
        let (code, said) = doctor(&environment);
        assert!(code == Some(1) && said.contains("check S3_ENDPOINT, S3_BUCKET"), "{said}");
    }
    for name in ["a.zip", "b.zip", "c.zip"] {
        assert_eq!(system.request("DELETE", &format!("/cell1/__snapshot/{name}"), &[], None).status, 204);
    }
    system.eventually("contents of before the import are removed", || {
        system.value("SELECT count(*) FROM generation WHERE retired") == "0"
    });
    system.sweep();
    assert!(!server.keys().iter().any(|key| key.starts_with("snapshots/")), "{:?}", server.keys());
    let named: usize = system.value("SELECT count(*) FROM blob").parse().unwrap();
    assert_eq!(server.keys().iter().filter(|key| key.starts_with("blobs/")).count(), named);
}

/// Names, sizes and CRCs of the entries, the manifest aside.
fn entries(file: &Path) -> Vec<(String, u64, u32)> {
    let mut archive = zip::ZipArchive::new(std::fs::File::open(file).unwrap()).unwrap();
    let mut entries = Vec::new();
    for index in 0..archive.len() {
        let entry = archive.by_index(index).unwrap();
        let name = entry.name().unwrap().to_string();
        if !name.ends_with("00_manifest.json") && !name.ends_with("99_integrity.json") {
            entries.push((name, entry.size(), entry.crc32()));
        }
    }
    assert!(entries.len() > 20);
    entries
}

#[test]
fn downloads_are_redirected_when_that_is_wanted() {
    let Some((_server, mut system)) = start(&[("S3_DOWNLOADS", "redirect")]) else { return };
    let _worker = system.worker();
    system.sample_cell("cell1", &[]);
    assert_eq!(system.post_export("cell1", "a").status, 202);
    system.wait_ready("cell1");
    let (url, file) =
        (format!("http://localhost:{}/cell1/", system.address.port()), system.directory().join("got.zip"));
    let arguments = ["download", &url, "a", file.to_str().unwrap()];
    let environment = [("CELLEXPORT_TOKEN".to_owned(), TOKEN.to_owned())];
    let downloaded = process::run("cellexport", &arguments, &environment);
    assert!(downloaded.status.success(), "{downloaded:?}");
    let target = "/cell1/__snapshot/a.zip";
    let answer = get(&system, target, &[("Range", "bytes=0-3")]);
    assert_eq!((answer.status, answer.header("cache-control")), (307, Some("no-store")));
    let link = answer.header("location").unwrap().to_owned();
    let mut followed = ureq::get(&link).header("Range", "bytes=0-3").call().unwrap();
    assert_eq!(followed.status(), 206);
    assert_eq!(followed.body_mut().read_to_vec().unwrap(), b"PK\x03\x04");
    // A script of a page could not read what is of another origin; HEAD, and what the client has, cost nothing.
    let by_script = get(&system, target, &[("Sec-Fetch-Mode", "cors")]);
    assert_eq!(by_script.status, 200);
    assert!(by_script.header("repr-digest").is_some());
    assert_eq!(get(&system, target, &[("Prefer", "no-redirect")]).status, 200);
    let head = system.request("HEAD", target, &[], None);
    assert_eq!(head.status, 200);
    let etag = head.header("etag").unwrap().to_owned();
    assert_eq!(get(&system, target, &[("If-None-Match", &etag)]).status, 304);
    assert_eq!(system.anonymous("GET", target, &[], None).status, 401, "a link is for those who may have the file");
}

#[test]
fn a_worker_that_is_killed_while_it_sends_leaves_parts_that_are_given_up() {
    let Some((server, mut system)) = start(&[]) else { return };
    system.sample_cell("cell1", &["--noise", "120000000"]);
    let mut victim = system.worker();
    assert_eq!(system.post_export("cell1", "a").status, 202);
    // Written and proved, not yet sent: what comes next is the sending.
    system.eventually("it is proved", || victim.log().contains("proved after the last byte"));
    std::thread::sleep(Duration::from_millis(40));
    victim.signal("KILL");
    victim.wait(Duration::from_secs(5));
    assert_eq!(system.files("cell1"), [""; 0]);
    let _heir = system.worker();
    system.wait_ready("cell1");
    assert_eq!(system.files("cell1"), ["a.zip"]);
    assert_eq!(system.value("SELECT attempt FROM job"), "2");
    system.sweep();
    assert_eq!(system.sweep(), "0");
    assert_eq!(server.keys().iter().filter(|key| key.starts_with("snapshots/")).count(), 1, "{:?}", server.keys());
}

#[test]
fn without_its_bucket_a_service_is_not_ready_and_jobs_wait() {
    let address = system_tests::system::free_address();
    let Some((mut server, mut system)) = start(&[("INTERNAL_LISTEN", &address.to_string())]) else { return };
    let ready = || system_tests::http::request(address, "GET", "/readyz", &[], None).map(|answer| answer.text());
    system.eventually("the bucket answers", || ready().is_ok_and(|text| text.contains(r#""bucket":"ok""#)));
    system.sample_cell("cell1", &[]);
    server.kill();
    system.eventually("the bucket is away", || ready().is_ok_and(|text| text.contains(r#""bucket":"away""#)));
    let _worker = system.worker_with(&[("INTERNAL_LISTEN", "127.0.0.1:0")]);
    assert_eq!(system.post_export("cell1", "a").status, 202, "what is accepted waits");
    system.eventually("it is tried", || system.value("SELECT attempt FROM job") != "0");
    assert_eq!(system.status("cell1")["status"], "exportation in progress");
}
