//! No token, cookie, password or key stands in anything that the services write, at any level of logging.
//!
//! Every installation of every test is searched (see [`system_tests::secrets`]); here much is written, and much goes
//! wrong.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use sha2::{Digest, Sha256};
use system_tests::http;
use system_tests::process::{self, Process};
use system_tests::secrets::{remember_secret, search};
use system_tests::system::{System, TOKEN, eventually, free_address};
use system_tests::units_tokens::{basic, mint, unit};

const HOST: (&str, &str) = ("Host", "cell1.unit1.example");
/// The contract's cookie, with its token and its peer.
const COOKIE: &str = "1wb2-mQ03cDH_Re3IJr4TU2NJ8FocPofg-RJTT8tghhtStoaI8xTGPEz-DLjiXXVe4--4FawMvu2mn3605T16dq_LgKPujPGZSR1z3EDwBKa48CmyCw56cICIKkw6-tzxKujUvUHnBbMIPM0gn_3BzXerBKYJJVYmKBb4e8qSJJFrsruwFkZ_8sKE98fLhIt6fbRmv53KGA0o_X5YkD1zg";
const TOKEN_IN_COOKIE: &str =
    "AR~-LkQm22g006pTA-Btjn_JSggw9-w3PLXDkTqLPKAGHe3DvMNGeD6VipnPrX_e-SIEITFQucLVePBFRsNhwWt_X1DnSeAAW2ziUAS8DlwZos";
const PEER: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";
/// The form of a JSON Web Token, and of one without signature.
const WEB_TOKEN: &str = "eyJhbGciOiJFUzI1NiJ9.eyJtYXJrZXIiOiJ4N1FkIn0.bWFya2VyLXg3UWQtbWFya2VyLXg3UWQtbWFya2VyLXg3UWQ";
const UNSIGNED: &str = "eyJhbGciOiJub25lIn0.eyJtYXJrZXIiOiJ4N1FkLXVuc2lnbmVkIn0.";
const PASSWORD: &str = "marker-password-x7Qd";
/// The secret of the servers of this unit, which they do not know.
const WRONG: &str = "marker-wrong-password-x7Qd";

/// What a client shows, as headers and query, and the status of a `GET __export`.
type Shown = (Vec<(&'static str, String)>, String, u16);

/// The search finds what it has to find.
#[test]
fn what_is_written_is_found() {
    for place in ["log", "row", "area", "scratch", "nowhere"] {
        let system = System::start();
        let write = |file: &str| {
            let path = system.directory().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, [&[b'x'; 3 << 20], TOKEN.as_bytes()].concat()).unwrap();
        };
        match place {
            "log" => write("more.log"),
            "area" => write("area/snapshots/some/file.zip"),
            "scratch" => write("scratch/file"),
            "row" => drop(system.execute(&format!("INSERT INTO generation (id) VALUES ('{TOKEN}')"))),
            _ => {}
        }
        let ended = catch_unwind(AssertUnwindSafe(|| drop(system)));
        assert_eq!(ended.is_err(), place != "nowhere", "{place}");
    }
    let found = |search: &dyn Fn()| catch_unwind(AssertUnwindSafe(search)).is_err();
    let numbers: Vec<String> = TOKEN.bytes().map(|byte| byte.to_string()).collect();
    for (written, expected) in [
        (format!("é{TOKEN}é"), true),
        (format!("[0, {}, 0]", numbers.join(", ")), true),
        (TOKEN[1..].to_owned(), false),
        (String::new(), false),
    ] {
        assert_eq!(found(&|| search("a text", written.as_bytes())), expected, "{written}");
    }
    remember_secret("marker \"x7Qd\"");
    assert!(found(&|| search("a text", br#"{"password":"marker \"x7Qd\""}"#)));
}

/// Everything that a client may show.
fn credentials(system: &System) -> Vec<Shown> {
    let mine = mint(system.environment(), "cell1", "me", &[]);
    let elsewhere = mint(system.environment(), "cell2", "me", &[]);
    let unscoped = mint(system.environment(), "cell1", "me", &["--scope", "message"]);
    let nobody = mint(system.environment(), "cell1", "nobody-x7Qd", &[]);
    let short = mint(system.environment(), "cell1", "me", &["--ttl", "0s"]);
    let bearer = |token: &str| vec![("Authorization", format!("Bearer {token}"))];
    let no_query = String::new();
    let mut shown = vec![
        (vec![("Authorization", basic("me", PASSWORD))], no_query.clone(), 401),
        (bearer(TOKEN), no_query.clone(), 200),
        ([bearer(TOKEN), vec![("X-Personium-Unit-User", "https://x/#me".to_owned())]].concat(), no_query.clone(), 403),
        (vec![("X-Override", format!("Authorization: Bearer {mine}"))], no_query.clone(), 200),
        (vec![("Cookie", format!("a=b; p_cookie={COOKIE}"))], format!("?p_cookie_peer={PEER}"), 200),
        (vec![("Cookie", format!("p_cookie={COOKIE}x"))], format!("?p_cookie_peer={PEER}"), 401),
        (vec![("Cookie", format!("p_cookie={COOKIE}"))], "?p_cookie_peer=x".to_owned(), 401),
        (vec![("Cookie", format!("p_cookie={COOKIE}"))], no_query.clone(), 401),
        (bearer(&[&mine, "x"].concat()), no_query.clone(), 401),
        (bearer(&mine[..mine.len() - 3]), no_query.clone(), 401),
        (bearer(&mine.replace("AR~", "AA~")), no_query.clone(), 401),
        (bearer(&mine.replace("AR~", "RR~")), no_query.clone(), 401),
        (bearer(&format!("{mine}\u{e9}")), no_query.clone(), 401),
    ];
    for (token, status) in [
        (&*mine, 200),
        (&elsewhere, 401),
        (&unscoped, 403),
        (&nobody, 401),
        (&short, 401),
        (WEB_TOKEN, 503),
        (UNSIGNED, 401),
    ] {
        shown.push((bearer(token), no_query.clone(), status));
        shown.push((vec![("Authorization", basic("me", token))], no_query.clone(), status));
        shown.push((Vec::new(), format!("?access_token={token}&token={token}"), 401));
        for name in ["Authorization", "Proxy-Authorization", "X-Token", "Referer", "User-Agent", "If-Match"] {
            shown.push((vec![(name, token.to_owned())], no_query.clone(), 401));
        }
    }
    for (name, password, status) in [
        ("me", PASSWORD, 401),
        ("me", "marker-password-x7Qd-wrong", 401),
        ("nobody", PASSWORD, 401),
        (PASSWORD, "", 401),
    ] {
        shown.push((vec![("Authorization", basic(name, password))], no_query.clone(), status));
    }
    for (headers, query, _) in &shown {
        for text in headers.iter().map(|(_, value)| value).chain([query]).filter(|text| text.len() > 40) {
            remember_secret(text);
        }
    }
    shown
}

/// Stores a password's hash for the account `me`.
fn give_a_password(system: &System) {
    let salt = system.environment().iter().find(|(name, _)| name == "UNIT_PASSWORD_SALT").unwrap().1.as_str();
    let hash = hex::encode(Sha256::digest(format!("{PASSWORD}{salt}")));
    let changed = system.execute(&format!(
        r#"UPDATE document SET body = jsonb_set(body::jsonb, '{{_source,h}}', '{{"HashedCredential":"{hash}"}}')::text
           WHERE type = 'Account' AND body::jsonb #>> '{{_source,s,Name}}' = 'me'"#
    ));
    assert_eq!(changed, 1);
}

/// Sends what is no request.
fn send_garbage(system: &System, token: &str) {
    for text in [
        format!("GET /__export?t={token} HTTP/9.9\r\nAuthorization: Bearer {token}\r\n\r\n"),
        format!("GET /__export HTTP/1.1\r\nAuthorization: Bearer {token}\r\nAuthorization : {token}\r\n\r\n"),
        format!("GET /__export HTTP/1.1\r\nHost: x\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"),
        format!("{token} / HTTP/1.1\r\n\r\n"),
        format!("Bearer {token}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nAuthorization: Bearer {token}\r\nX: {}\r\n\r\n", "x".repeat(200_000)),
    ] {
        let mut stream = TcpStream::connect(system.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        // Some of it is refused before it has been read.
        let _ = stream.write_all(text.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(!String::from_utf8_lossy(&answer).contains(token), "{text}");
    }
}

/// What the services do all day.
fn work(system: &System) {
    for (target, done) in [("/__export", "ready"), ("/__import/dry-run", "dry run finished"), ("/__import", "ready")] {
        let answer = system.request("POST", target, &[HOST], Some(br#"{"Name":"one"}"#));
        assert_eq!(answer.status, 202, "{}", answer.text());
        let done = format!(r#"{{"status":"{done}""#);
        eventually("it is done", || system.request("GET", target, &[HOST], None).text().starts_with(&done));
    }
}

#[test]
fn what_clients_show_is_written_nowhere() {
    for secret in [COOKIE, TOKEN_IN_COOKIE, PEER, WEB_TOKEN, UNSIGNED, PASSWORD] {
        remember_secret(secret);
    }
    for format in ["json", "text"] {
        let mut system = System::start_with(unit(
            false,
            &[
                ("RUST_LOG", "trace"),
                ("LOG_FORMAT", format),
                ("BASIC_TOKENS", "true"),
                ("LEGACY_TOKENS", "true"),
                ("OIDC_ISSUER", "https://issuer.example/"),
                ("OIDC_AUDIENCE", "cell-export"),
                ("OIDC_KEYS", "/nowhere/keys"),
            ],
        ));
        system.sample_cell("cell1", &[]);
        give_a_password(&system);
        let worker = system.worker();
        for (headers, query, status) in credentials(&system) {
            let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).chain([HOST]).collect();
            for (method, target) in [
                ("GET", "/__export"),
                ("PROPFIND", "/__snapshot"),
                ("PUT", "/__snapshot/a.zip"),
                ("DELETE", "/nowhere"),
            ] {
                let answer = system.anonymous(method, &format!("{target}{query}"), &headers, Some(b"x"));
                let right = answer.status == status || target != "/__export";
                assert!(right, "{headers:?} {query} {} {}", answer.status, answer.text());
            }
            let unit: Vec<_> =
                headers.iter().copied().filter(|header| *header != HOST).chain([("Host", "unit1.example")]).collect();
            system.anonymous("GET", &format!("/__ctl/Cell{query}"), &unit, None);
        }
        send_garbage(&system, TOKEN);
        work(&system);
        for (name, log) in [("api", system.api().log()), ("worker", worker.log())] {
            assert!(log.contains("TRACE"), "{name} says everything it can");
        }
    }
}

/// The settings with others.
fn with(settings: &[(String, String)], others: &[(&str, &str)]) -> Vec<(String, String)> {
    let mut settings = settings.to_vec();
    for (name, value) in others {
        settings.retain(|(n, _)| n != name);
        settings.push((name.to_string(), value.to_string()));
    }
    settings
}

/// A server's URL with the wrong password.
fn wrong(system: &System, name: &str) -> String {
    let (_, url) = system.environment().iter().find(|(n, _)| n == name).unwrap();
    let (user, server) = url.rsplit_once('@').expect("servers want passwords");
    let (user, _) = user.rsplit_once(':').expect("servers want passwords");
    format!("{user}:{WRONG}@{server}")
}

#[test]
fn what_servers_refuse_is_written_nowhere() {
    remember_secret(WRONG);
    let system = System::start();
    let snapshot = system.sample(&[]).display().to_string();
    let (database, broker) = (wrong(&system, "DATABASE_URL"), wrong(&system, "AMQP_URL"));
    for format in ["json", "text"] {
        let usual = with(system.environment(), &[("RUST_LOG", "trace"), ("LOG_FORMAT", format)]);
        for (name, settings) in [
            ("database", with(&usual, &[("DATABASE_URL", &database)])),
            ("broker", with(&usual, &[("AMQP_URL", &broker)])),
            ("parameter", with(&usual, &[("DATABASE_URL", &format!("{database}?sslpassword={WRONG}"))])),
        ] {
            serve(&system, &format!("{format}-{name}"), &settings);
            run_all(&settings, &snapshot);
        }
        for (name, scheme) in [("DATABASE_URL", "postgres"), ("AMQP_URL", "amqp")] {
            for url in unreadable(scheme) {
                run_all(&with(&usual, &[(name, &url)]), &snapshot);
            }
        }
    }
}

/// URLs that are none, or none of a server.
fn unreadable(scheme: &str) -> [String; 7] {
    [
        format!("{scheme}://me:{WRONG}@localhost:port/x"),
        format!("{scheme}://me:{WRONG}@localhost:99999/x"),
        format!("{scheme}://me:{WRONG}@[::x]/x"),
        format!("{scheme}://me:{WRONG}@127.0.0.1:1/%ff%00?x=y&password={WRONG}&sslpassword={WRONG}&heartbeat={WRONG}"),
        format!("{scheme}://{WRONG}"),
        format!("other://me:{WRONG}@localhost/x"),
        WRONG.to_owned(),
    ]
}

/// Runs every command that reads these settings and ends.
fn run_all(settings: &[(String, String)], snapshot: &str) {
    for (program, arguments) in [
        ("api", vec!["migrate"]),
        ("api", vec!["serve", "--check-config"]),
        ("api", vec!["doctor"]),
        ("api", vec!["jobs", "list"]),
        ("exporter-worker", vec!["run", "--check-config"]),
        ("exporter-worker", vec!["health"]),
        ("exporter-worker", vec!["doctor", "--json"]),
        ("exporter-worker", vec!["load", "--cell", "copy", snapshot]),
    ] {
        process::run(program, &arguments, settings);
    }
}

/// Runs both services with servers that refuse them.
fn serve(system: &System, name: &str, settings: &[(String, String)]) {
    let address = free_address();
    let settings = with(settings, &[("API_LISTEN", &address.to_string())]);
    let log = |service: &str| system.directory().join(format!("{name}-{service}.log"));
    let api = Process::start("api", &["serve"], &settings, log("api"));
    let worker = Process::start("exporter-worker", &["run"], &settings, log("worker"));
    let (bearer, host) = (format!("Bearer {TOKEN}"), format!("localhost:{}", system.address.port()));
    let headers = [("Authorization", bearer.as_str()), ("Host", &host)];
    // There is no such cell, but who could tell without the database?
    eventually("the api answers", || {
        let answer = http::request(address, "GET", "/cell1/__export", &headers, None);
        answer.is_ok_and(|answer| answer.status == if name.contains("broker") { 404 } else { 503 })
    });
    for service in [&api, &worker] {
        eventually("it says so", || ["WARN", "ERROR"].iter().any(|level| service.log().contains(level)));
    }
}
