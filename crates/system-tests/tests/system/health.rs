//! The internal ports: whether a service lives, whether it is ready, and what keeps it from it.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use serde_json::{Value, json};
use system_tests::http::{self, Answer};
use system_tests::system::{Options, System, TOKEN};

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).unwrap()
}

fn ask(address: SocketAddr, path: &str) -> Answer {
    http::request(address, "GET", path, &[], None).unwrap()
}

/// Status of `/readyz` and its document.
fn ready(address: SocketAddr) -> (u16, Value) {
    let answer = ask(address, "/readyz");
    (answer.status, serde_json::from_slice(&answer.body).unwrap())
}

#[test]
fn each_dependency_has_its_name_and_the_required_ones_decide() {
    let internal = free_address();
    let settings = vec![("INTERNAL_LISTEN", internal.to_string())];
    let mut system =
        System::start_with(Options { settings, database_proxy: true, broker_proxy: true, ..Options::default() });
    let worker = free_address();
    let _worker = system.worker_with(&[("INTERNAL_LISTEN", &worker.to_string())]);
    let fine = |blobs: Value| {
        let mut states = json!({"database": "ok", "snapshots": "ok", "broker": "ok"});
        if !blobs.is_null() {
            states["blobs"] = blobs;
        }
        (200, json!({"ready": true, "draining": false, "dependencies": states}))
    };
    system.eventually("the worker answers", || http::request(worker, "GET", "/healthz", &[], None).is_ok());
    for (address, blobs) in [(internal, Value::Null), (worker, json!("ok"))] {
        system.eventually("it is ready", || ready(address) == fine(blobs.clone()));
        assert_eq!((ask(address, "/healthz").status, ask(address, "/other").status), (200, 404));
    }
    // Without the broker exports are accepted and run.
    system.broker_proxy.as_ref().unwrap().down();
    for address in [internal, worker] {
        system.eventually("the broker is missed", || ready(address).1["dependencies"]["broker"] == "away");
        assert_eq!(ready(address).0, 200);
    }
    system.broker_proxy.as_ref().unwrap().up();
    system.database_proxy.as_ref().unwrap().freeze();
    for address in [internal, worker] {
        system.eventually("the database is missed", || {
            let (status, document) = ready(address);
            status == 503 && document["ready"] == false && document["dependencies"]["database"] == "away"
        });
        assert_eq!(ask(address, "/healthz").status, 200, "it lives all the same");
    }
    system.database_proxy.as_ref().unwrap().up();
    for address in [internal, worker] {
        system.eventually("all is well again", || ready(address).0 == 200);
    }
    // What is for operators is nowhere else, and what is for users is not here.
    let answer = system.request("GET", "/readyz", &[], None);
    assert_eq!((answer.status, answer.code().as_str()), (404, "PR404-DV-0003"));
    assert_eq!(ask(internal, "/sample/__export").status, 404);
}

#[test]
fn a_service_that_is_asked_to_end_finishes_what_it_began_and_gets_no_more() {
    let internal = free_address();
    let settings = vec![("INTERNAL_LISTEN", internal.to_string())];
    let mut system = System::start_with(Options { settings, ..Options::default() });
    system.make_cell("cell1");
    let bearer = format!("Bearer {TOKEN}");
    let headers = [("Authorization", bearer.as_str())];
    let body = vec![7; 200_000];
    let mut upload = http::begin(system.address, "PUT", "/cell1/__snapshot/a.zip", &headers, Some(body.len())).unwrap();
    std::io::Write::write_all(&mut upload, &body[..100_000]).unwrap();
    system.eventually("the upload has begun", || system.stored().iter().any(|name| name.ends_with(".part")));
    system.api().signal("TERM");
    system.eventually("it drains", || {
        let (status, document) = ready(internal);
        status == 503 && document["draining"] == true && ask(internal, "/healthz").status == 200
    });
    std::io::Write::write_all(&mut upload, &body[100_000..]).unwrap();
    let answer = http::finish(upload, "PUT").unwrap();
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert_eq!(system.wait_for_api(Duration::from_secs(20)), Some(0));

    let worker_port = free_address();
    let settings = [("INTERNAL_LISTEN", worker_port.to_string()), ("DRAIN_SECS", "60".to_owned())];
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut worker = system.worker_with(&settings);
    system.eventually("the worker is ready", || {
        http::request(worker_port, "GET", "/readyz", &[], None).is_ok_and(|answer| answer.status == 200)
    });
    worker.signal("TERM");
    assert_eq!(worker.wait(Duration::from_secs(20)), Some(0));
}
