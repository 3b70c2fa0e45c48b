//! JSON Web Tokens of an OpenID Connect issuer: which open a cell, which do not, and when the issuer's keys are read.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey};
use model::limits;
use serde_json::{Value, json};
use system_tests::http::{self, Answer};
use system_tests::process::Process;
use system_tests::secrets::remember_secret;
use system_tests::system::{System, eventually, free_address};
use system_tests::units_tokens::{basic, unit};

// Made for these tests with openssl; they open nothing else.
const ELLIPTIC: &str = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgdYsDlP2IZ6gYi59uECHdu+Xmd+fZFLGJryyAvi49ufGhRANCAATYk1gG9jQ/ruj7UigyPwGPts4x8B5S8JVLNC5cHnwM2NqX0IXai+QPd61FxuKC2fQFVbp3WfCVYXhhTjT5clca";
const ANOTHER: &str = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgvlg38vwWJl0bFhw1MZUjLQ31Q56eiqH99pJKtG48v+ShRANCAARtUS8Yi8lVSt0nuTc9tX0V8feHUpIWYmYGhHjjwVgKCiHakRxZEgaQ9fFjbwxLNRDB87Pxyqjw+EouboNIMHt9";
const RSA: &str = "MIIEowIBAAKCAQEAlRjpc9Qn1pBEACWbqYWvxm/HULFGHCWKUr1Zq4wnSI8KhC8JeZvSCsmJJ9gLGGodzKN5YnhB+GuQ++6K1lGFMAtJ1jcE7F1h//lsKqBDEtlXfcrarykpo0yPq/V1JhAqlGcuUHl3Q15FLwmAr9HMU5SrVRmv7g/HeT+QTZw142V7A71XhKpcBQcfdTDXomI3fRyoKNSNt5xYNhS/9PlZIWXX+3JplJT0ZEO8tt0nouFsPATsSdpFTrFzKuLfOYdeCSAHzUm0ZgFaO/MDJzoNc83dbeOW6r/HM8iMTq7wIJklzuLm/v92aP/SMr+3nQy7eNYsXH38U+5LpBMbH49FfQIDAQABAoIBABwTI050ugWsh6lxa3TJ4BXhEWpv3xBIv1miHwLu8qy2hpfqVYHpJe1zEpkGlNxFixPwCljQ5Tc2ZggSXGFL22T3EzG7jXlGgkAVgtkp8UdY1qEws+n8ucLulTUflK4UqDfmj/GGVb9BPozDYNB6lFt+qJ5vJlIQ9ZIutmjuy7TkKrow1BXhaquFHWKPakgq6XuXgD4nX7Q4MO4Mc39jWaYWSEev2ZGpEVWxu3FCN92A3BqxKVlCqL/o515SqP+WeL2fl4Mfq/7PZ0AJ3yQhopK2dClrhtuxC2TEbpISkGdx5XikVseyuf5RVKp7T1G/wuqKjxKhgnhutpoKb1Xx388CgYEA0ZhZbOBZ0DKyXuJGM+zUu4b1AFiw6uI4a3gBqoSNDGmuZsxnxgKG8a9Bi6qWyvbXEDTlxkFEgZFEJTPzKkJCt3bJsUPSihKz5rs6ldyRswzRwm70Xs67/WLiL6eYVtwvDynxfX7SIn5ztd9tQgxVgqMNdfdl8PtYozekMEj8MBMCgYEAthua4mGRiczhMiMbVKDwVGFtFMLRlVZSIhJ3ah9TJV3CM3ViV50T5EzeZ3YkYS3twrvYEOV0JcnRmXMqWHMiqf4WthJ9pUTtto+vaNzRrsYugd8WYSCnO+0YdBAgVBVem6XurOjqu7tt6sUwtjRedl4zo4C+sd1uC5FOZGeWBi8CgYAW3qfLUIOcSxvZbJk6azofKC+tlP/g8UQ0vch4wbPeSd3Ey8L7ASWWU4g0ZC3GAb8fvpXf1xlRhfdIk+2Ri99Zw3VoiTz84eONZpqS5ZlkTx7IN3EksywiDtsdVg0yVR4xamM2TVNCfkfD7ZgvX8co1P/QAmm2LMbUMGsS9bPGzwKBgA16v50wIai0jJq8dIJwIznruDpILWFDcXLqMQKe7PWgGgbbEntvuhA1DGVWHl0/HBFE/DpL8av2Y1hbaPABHbi9gQrbFYfNMVdJDW/SoIayTrD4RVzNIPPTmfLFWs8+gbE9uAv+dZmNxxYQoIlsGO3kDSh2GCdsP4AFsmrGLBmrAoGBALrZLw4g8SGRjdd8bvDsfP3PleuaJxYjCYtX0x04yuw5xrr0TU4hiTeI+OO2A51HLqtyYhQXpZE8/Lc2H2qy31rx82PvP1L4PwzXAyrr+Ov09UqkcGj772VLXALYzGbx8yay6NclWRzYp1c/SaBXxvnbYmlqDHNzBkVIDKE94kuO";

const ISSUER: &str = "https://issuer.example/";
const CELL: &str = "https://cell1.unit1.example/";
const OURS: &str = "https://cell1.unit1.example/#root";

fn elliptic(key: &str) -> EncodingKey {
    EncodingKey::from_ec_der(&STANDARD.decode(key).unwrap())
}

fn rsa() -> EncodingKey {
    EncodingKey::from_rsa_der(&STANDARD.decode(RSA).unwrap())
}

/// The public part of a key, as it stands in a key set.
fn public(id: &str, key: &EncodingKey, algorithm: Algorithm) -> Value {
    let mut key = json!(Jwk::from_encoding_key(key, algorithm).unwrap());
    key["kid"] = json!(id);
    key
}

/// The issuer's keys.
fn keys() -> Value {
    let shared = json!({"kty": "oct", "kid": "shared", "k": URL_SAFE_NO_PAD.encode(SHARED)});
    let with = |name: &str, value: &str| {
        let mut key = shared.clone();
        key["kid"] = json!(value);
        key[name] = json!(value);
        key
    };
    let mut encrypting = public("encrypting", &elliptic(ANOTHER), Algorithm::ES256);
    encrypting["use"] = json!("enc");
    json!({"keys": [
        {"kty": "AKP", "kid": "unknown", "alg": "ML-DSA-44", "pub": "AAAA"},
        {"kty": "EC", "kid": "unknown", "crv": "secp256k1", "x": "AAAA", "y": "AAAA"},
        {"kty": "RSA", "kid": "unknown"},
        shared, with("alg", "HS256"), with("alg", "ES256"), with("alg", "RS256"),
        encrypting,
        public("ec", &elliptic(ELLIPTIC), Algorithm::ES256),
        public("rsa", &rsa(), Algorithm::RS256),
        public("pss", &rsa(), Algorithm::PS256),
    ]})
}

const SHARED: &[u8] = b"a secret that both sides know";

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

/// The claims of a token that opens the cell, with changes; `null` takes one away.
fn claims(changes: Value) -> Value {
    let mut claims = json!({"iss": ISSUER, "aud": "cell-export", "exp": now() + 600, "sub": "me", "personium": OURS});
    for (name, value) in changes.as_object().unwrap() {
        match value.is_null() {
            true => drop(claims.as_object_mut().unwrap().remove(name)),
            false => claims[name] = value.clone(),
        }
    }
    claims
}

fn signed(header: &Value, claims: &Value, key: &EncodingKey, algorithm: Algorithm) -> String {
    let text = format!("{}.{}", part(header), part(claims));
    let signature = jsonwebtoken::crypto::sign(text.as_bytes(), key, algorithm).unwrap();
    remember_secret(&signature);
    format!("{text}.{signature}")
}

fn part(json: &Value) -> String {
    URL_SAFE_NO_PAD.encode(json.to_string())
}

/// A token as the issuer makes it.
fn token(changes: Value) -> String {
    let header = json!({"alg": "ES256", "typ": "JWT", "kid": "ec"});
    signed(&header, &claims(changes), &elliptic(ELLIPTIC), Algorithm::ES256)
}

/// A server with a key set, which counts.
struct Issuer {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    answer: Arc<Mutex<String>>,
}

impl Issuer {
    fn start(address: SocketAddr, answer: String) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let (asked, answer) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(answer)));
        let issuer = Self { address, asked: Arc::clone(&asked), answer: Arc::clone(&answer) };
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let head: Vec<String> =
                    BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
                asked.lock().unwrap().push(head.first().cloned().unwrap_or_default());
                let answer = answer.lock().unwrap().clone();
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        issuer
    }

    fn url(address: SocketAddr) -> String {
        format!("http://{address}/keys")
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// Fails when it was asked more often since then than an api may.
    fn was_asked_at_leisure(&self, since: Instant) {
        let most = 1 + since.elapsed().as_secs() / limits::KEY_SET_PAUSE.as_secs();
        let asked = self.asked();
        assert!((1..=most).contains(&(asked.len() as u64)), "{} times", asked.len());
        assert!(asked.iter().all(|request| request == "GET /keys HTTP/1.1"), "{asked:?}");
    }
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn system() -> System {
    let system = System::start_with(unit(false, &[]));
    system.sample_cell("cell1", &[]);
    system
}

/// Another api of the installation, which knows an issuer whose keys are there.
struct Api {
    _process: Process,
    address: SocketAddr,
}

impl Api {
    fn start(system: &System, keys: &str, more: &[(&str, &str)]) -> Self {
        let address = free_address();
        let listen = address.to_string();
        let settings = [
            ("API_LISTEN", listen.as_str()),
            ("OIDC_ISSUER", ISSUER),
            ("OIDC_AUDIENCE", "cell-export"),
            ("OIDC_KEYS", keys),
        ];
        let mut environment = system.environment().to_vec();
        for (name, value) in settings.iter().chain(more) {
            environment.retain(|(n, _)| n != name);
            environment.push((name.to_string(), value.to_string()));
        }
        let log = system.directory().join(format!("{}.log", address.port()));
        let process = Process::start("api", &["serve"], &environment, log);
        eventually("the api answers", || http::request(address, "OPTIONS", "/", &[], None).is_ok());
        Self { _process: process, address }
    }

    fn get(&self, host: &str, target: &str, authorization: &str) -> Answer {
        let headers = [("Host", host), ("Authorization", authorization)];
        http::request(self.address, "GET", target, &headers, None).unwrap()
    }

    fn ask(&self, token: &str) -> Answer {
        self.get("cell1.unit1.example", "/__export", &format!("Bearer {token}"))
    }

    /// The status, or the code of the error.
    fn seen(&self, token: &str) -> String {
        seen(&self.ask(token))
    }
}

fn seen(answer: &Answer) -> String {
    if answer.status == 200 { "200".to_owned() } else { answer.code() }
}

/// A file with the issuer's keys.
fn key_file(system: &System, keys: &Value) -> String {
    let path = system.directory().join("keys.json");
    std::fs::write(&path, keys.to_string()).unwrap();
    path.display().to_string()
}

#[test]
fn a_claim_names_the_cell_and_the_privilege() {
    let system = system();
    let api = Api::start(&system, &key_file(&system, &keys()), &[]);
    let opens = json!([
        OURS,
        [OURS],
        format!("openid {OURS} profile"),
        format!("{OURS} {OURS}"),
        ["https://cell2.unit1.example/#root", OURS],
        [1, null, ["x"], {"x": OURS}, OURS],
    ]);
    let does_not = json!([
        null,
        "",
        CELL,
        "root",
        "#root",
        "https://cell2.unit1.example/#root",
        "https://unit1.example/#root",
        "https://unit1.example/cell1/#root",
        "http://cell1.unit1.example/#root",
        "https://cell1.unit1.example#root",
        "https://CELL1.unit1.example/#root",
        format!("{OURS}s"),
        format!("{OURS}#root"),
        format!("{CELL}#Root"),
        format!("{CELL}#p.root"),
        format!("{CELL}#all"),
        format!("{CELL}#auth-read"),
        format!("{CELL}__role/__/admin#root"),
        format!("{CELL}?#root"),
        format!("x{OURS}"),
        format!("{OURS},{OURS}"),
        format!("x\t{OURS}"),
        [format!("x {OURS}")],
        [[OURS]],
        {"root": OURS},
        {OURS: true},
        true,
        1,
    ]);
    for (claims, expected) in [(opens, "200"), (does_not, "PR403-AU-0002")] {
        for claim in claims.as_array().unwrap() {
            let answer = api.ask(&token(json!({"personium": claim})));
            assert_eq!(seen(&answer), expected, "{claim}: {}", answer.text());
            assert_eq!(answer.header("www-authenticate"), None, "{claim}");
        }
    }
    // It opens cells, not the unit.
    let everything = format!("Bearer {}", token(json!({"personium": ["https://unit1.example/#root", "#root", OURS]})));
    let answer = api.get("unit1.example", "/__ctl/Cell", &everything);
    assert_eq!((answer.status, answer.code().as_str()), (403, "PR403-AU-0001"), "{}", answer.text());
    let other = Api::start(&system, &key_file(&system, &keys()), &[("OIDC_CLAIM", "https://x.example/cells")]);
    assert_eq!(other.seen(&token(json!({}))), "PR403-AU-0002");
    assert_eq!(other.seen(&token(json!({"personium": null, "https://x.example/cells": OURS}))), "200");
}

#[test]
fn a_token_has_its_time_its_audience_and_its_issuer() {
    let system = system();
    let api = Api::start(&system, &key_file(&system, &keys()), &[]);
    let in_seconds = |seconds: i64| json!(now() + seconds);
    let table = json!([
        ["right", {}, "200"],
        ["expired, within the leeway", {"exp": in_seconds(-50)}, "200"],
        ["expired", {"exp": in_seconds(-62)}, "PR401-AU-0002"],
        ["expired long ago", {"exp": 0}, "PR401-AU-0002"],
        ["at a fraction of a second", {"exp": (now() + 600) as f64 + 0.5}, "200"],
        ["without expiry", {"exp": null}, "PR401-AU-0006"],
        ["expiry as text", {"exp": (now() + 600).to_string()}, "PR401-AU-0006"],
        ["expiry as list", {"exp": [now() + 600]}, "PR401-AU-0006"],
        ["negative expiry", {"exp": -1}, "PR401-AU-0006"],
        ["valid already", {"nbf": in_seconds(-1)}, "200"],
        ["valid soon, within the leeway", {"nbf": in_seconds(50)}, "200"],
        ["not valid yet", {"nbf": in_seconds(120)}, "PR401-AU-0006"],
        ["valid from a text on", {"nbf": "now"}, "PR401-AU-0006"],
        ["without audience", {"aud": null}, "PR401-AU-0006"],
        ["another audience", {"aud": "cell-exporter"}, "PR401-AU-0006"],
        ["no audience", {"aud": []}, "PR401-AU-0006"],
        ["several audiences", {"aud": ["other", "cell-export"]}, "200"],
        ["several others", {"aud": ["other", "another"]}, "PR401-AU-0006"],
        ["an object as audience", {"aud": {"cell-export": true}}, "PR401-AU-0006"],
        ["without issuer", {"iss": null}, "PR401-AU-0006"],
        ["another issuer", {"iss": "https://issuer.example"}, "PR401-AU-0006"],
        ["a number as issuer", {"iss": 1}, "PR401-AU-0006"],
    ]);
    let realm = "Bearer realm=\"https://cell1.unit1.example/\"";
    for case in table.as_array().unwrap() {
        let answer = api.ask(&token(case[1].clone()));
        assert_eq!(seen(&answer), case[2].as_str().unwrap(), "{}: {}", case[0], answer.text());
        assert_eq!(answer.header("www-authenticate"), (answer.status == 401).then_some(realm), "{}", case[0]);
    }
    // Where no issuer is known there are no such tokens.
    let without = system.anonymous(
        "GET",
        "/__export",
        &[("Host", "cell1.unit1.example"), ("Authorization", &format!("Bearer {}", token(json!({}))))],
        None,
    );
    assert_eq!(seen(&without), "PR401-AU-0006");
}

#[test]
fn a_signature_is_one_by_a_key_of_the_issuer() {
    let system = system();
    let issuer = Issuer::start(free_address(), ok(&keys().to_string()));
    let api = Api::start(&system, &Issuer::url(issuer.address), &[]);
    let right = claims(json!({}));
    let (ours, another) = (elliptic(ELLIPTIC), elliptic(ANOTHER));
    let by = |header: Value, key: &EncodingKey, algorithm| signed(&header, &right, key, algorithm);
    let es256 = |header: Value, key: &EncodingKey| by(header, key, Algorithm::ES256);
    let hs256 = |header: Value, secret: &[u8]| by(header, &EncodingKey::from_secret(secret), Algorithm::HS256);
    let point = {
        let key = public("ec", &ours, Algorithm::ES256);
        let half = |name: &str| URL_SAFE_NO_PAD.decode(key[name].as_str().unwrap()).unwrap();
        [&[4], half("x").as_slice(), &half("y")].concat()
    };
    let modulus = URL_SAFE_NO_PAD.decode(public("rsa", &rsa(), Algorithm::RS256)["n"].as_str().unwrap()).unwrap();
    let good = es256(json!({"alg": "ES256", "kid": "ec"}), &ours);
    let unsigned = |header: Value| format!("{}.{}.", part(&header), part(&right));
    let (signed_part, signature) = good.rsplit_once('.').unwrap();
    let flipped = |byte: usize| {
        let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
        bytes[byte] ^= 1;
        format!("{signed_part}.{}", URL_SAFE_NO_PAD.encode(bytes))
    };
    let shortened = |length: usize| {
        let bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
        format!("{signed_part}.{}", URL_SAFE_NO_PAD.encode(&bytes[..length]))
    };
    let more = claims(json!({"aud": "cell-export", "sub": "root"}));
    let other_claims = format!("{}.{}.{signature}", good.split('.').next().unwrap(), part(&more));
    let evil = format!("http://{}/evil", issuer.address);
    let mut embedded = public("ec", &another, Algorithm::ES256);
    embedded["alg"] = json!("ES256");
    let of_rsa = by(json!({"alg": "RS256", "kid": "rsa"}), &rsa(), Algorithm::RS256);
    let table: Vec<(&str, String, &str)> = vec![
        ("right", good.clone(), "200"),
        ("right, RSA", of_rsa.clone(), "200"),
        ("no algorithm", unsigned(json!({"alg": "none", "kid": "ec"})), "PR401-AU-0006"),
        ("no algorithm, spelt otherwise", unsigned(json!({"alg": "NONE", "kid": "ec"})), "PR401-AU-0006"),
        ("no signature", unsigned(json!({"alg": "ES256", "kid": "ec"})), "PR401-AU-0008"),
        ("an empty algorithm", unsigned(json!({"alg": "", "kid": "ec"})), "PR401-AU-0006"),
        ("without algorithm", unsigned(json!({"kid": "ec"})), "PR401-AU-0006"),
        ("public key as shared secret", hs256(json!({"alg": "HS256", "kid": "ec"}), &point), "PR401-AU-0008"),
        ("modulus as shared secret", hs256(json!({"alg": "HS256", "kid": "rsa"}), &modulus), "PR401-AU-0008"),
        ("shared secret", hs256(json!({"alg": "HS256", "kid": "shared"}), SHARED), "PR401-AU-0008"),
        ("shared secret with its algorithm", hs256(json!({"alg": "HS256", "kid": "HS256"}), SHARED), "PR401-AU-0008"),
        ("shared secret as elliptic", hs256(json!({"alg": "HS256", "kid": "ES256"}), SHARED), "PR401-AU-0008"),
        ("shared secret as RSA", hs256(json!({"alg": "HS256", "kid": "RS256"}), SHARED), "PR401-AU-0008"),
        ("shared secret, said to be elliptic", hs256(json!({"alg": "ES256", "kid": "ES256"}), SHARED), "PR401-AU-0008"),
        ("RSA with an elliptic key", es256(json!({"alg": "RS256", "kid": "ec"}), &ours), "PR401-AU-0008"),
        ("elliptic with an RSA key", es256(json!({"alg": "ES256", "kid": "rsa"}), &ours), "PR401-AU-0008"),
        ("RSA key of another", es256(json!({"alg": "RS256", "kid": "rsa"}), &ours), "PR401-AU-0008"),
        (
            "an algorithm that is not accepted",
            by(json!({"alg": "PS256", "kid": "pss"}), &rsa(), Algorithm::PS256),
            "PR401-AU-0008",
        ),
        ("another RSA algorithm", by(json!({"alg": "RS512", "kid": "rsa"}), &rsa(), Algorithm::RS512), "PR401-AU-0008"),
        ("somebody's key", es256(json!({"alg": "ES256", "kid": "ec"}), &another), "PR401-AU-0008"),
        ("a key for encryption", es256(json!({"alg": "ES256", "kid": "encrypting"}), &another), "PR401-AU-0008"),
        ("a key in the token", es256(json!({"alg": "ES256", "kid": "ec", "jwk": embedded}), &another), "PR401-AU-0008"),
        (
            "keys elsewhere",
            es256(json!({"alg": "ES256", "kid": "ec", "jku": evil, "x5u": evil}), &another),
            "PR401-AU-0008",
        ),
        (
            "a condition that nobody knows",
            es256(json!({"alg": "ES256", "kid": "ec", "crit": ["x"], "x": 1}), &ours),
            "PR401-AU-0006",
        ),
        ("an unknown key", es256(json!({"alg": "ES256", "kid": "other"}), &ours), "PR401-AU-0008"),
        ("no key", es256(json!({"alg": "ES256"}), &ours), "PR401-AU-0008"),
        ("an empty key", es256(json!({"alg": "ES256", "kid": ""}), &ours), "PR401-AU-0008"),
        ("a number as key", es256(json!({"alg": "ES256", "kid": 1}), &ours), "PR401-AU-0006"),
        ("a path", es256(json!({"alg": "ES256", "kid": "../../../../dev/null"}), &ours), "PR401-AU-0008"),
        ("a URL", es256(json!({"alg": "ES256", "kid": evil}), &ours), "PR401-AU-0008"),
        ("a query", es256(json!({"alg": "ES256", "kid": "ec' OR '1'='1"}), &ours), "PR401-AU-0008"),
        ("a changed signature", flipped(0), "PR401-AU-0008"),
        ("a changed end", flipped(63), "PR401-AU-0008"),
        ("a signature of nothing", format!("{signed_part}.{}", "A".repeat(86)), "PR401-AU-0008"),
        ("a short signature", shortened(60), "PR401-AU-0008"),
        ("a signature cut off within a byte", good[..good.len() - 1].to_owned(), "PR401-AU-0006"),
        ("other claims", other_claims, "PR401-AU-0008"),
        ("a part too many", format!("{good}.x"), "PR401-AU-0006"),
        ("a part too few", signed_part.to_owned(), "PR401-AU-0006"),
        ("no parts", "..".to_owned(), "PR401-AU-0006"),
        ("no JSON", format!("eA.eA.{signature}"), "PR401-AU-0006"),
    ];
    let begun = Instant::now();
    for (what, token, expected) in &table {
        let answer = api.ask(token);
        assert_eq!(seen(&answer), *expected, "{what}: {}", answer.text());
        assert!(answer.text().len() < 200, "nothing of it is repeated: {}", answer.text());
    }
    issuer.was_asked_at_leisure(begun);
    // For clients that know passwords only, if that is wanted.
    assert_eq!(seen(&api.get("cell1.unit1.example", "/__export", &basic("me", &good))), "PR401-AU-0011");
    let with_passwords = Api::start(&system, &key_file(&system, &keys()), &[("BASIC_TOKENS", "true")]);
    for (token, expected) in [(&good, "200"), (&flipped(0), "PR401-AU-0008")] {
        let answer = with_passwords.get("cell1.unit1.example", "/__export", &basic("anybody", token));
        assert_eq!(seen(&answer), expected);
    }
    // The one key of a set needs no name.
    let only = json!({"keys": [public("only", &ours, Algorithm::ES256)]});
    let with_one = Api::start(&system, &key_file(&system, &only), &[("OIDC_ALGORITHMS", "ES256 RS256")]);
    assert_eq!(with_one.seen(&es256(json!({"alg": "ES256"}), &ours)), "200");
    assert_eq!(with_one.seen(&es256(json!({"alg": "ES256"}), &another)), "PR401-AU-0008");
    assert_eq!(with_one.seen(&good), "PR401-AU-0008", "nor is another name its own");
    let other_algorithm = Api::start(&system, &key_file(&system, &keys()), &[("OIDC_ALGORITHMS", "RS256")]);
    assert_eq!((other_algorithm.seen(&good), other_algorithm.seen(&of_rsa)), ("PR401-AU-0008".into(), "200".into()));
}

#[test]
fn keys_are_read_when_they_are_needed_and_not_all_the_time() {
    let system = system();
    let issuer = Issuer::start(free_address(), ok(&keys().to_string()));
    let api = Api::start(&system, &Issuer::url(issuer.address), &[]);
    for other in [system_tests::system::TOKEN, "AR~x", "x", "a.b", "a.b.c.d", "a.b.c"] {
        api.ask(other);
    }
    assert_eq!(issuer.asked().len(), 0, "nobody needed them");
    let token = token(json!({}));
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| (0..5).for_each(|_| assert_eq!(api.seen(&token), "200")));
        }
    });
    assert_eq!(issuer.asked().len(), 1, "they are fresh");
    let unknown =
        signed(&json!({"alg": "ES256", "kid": "x"}), &claims(json!({})), &elliptic(ELLIPTIC), Algorithm::ES256);
    for _ in 0..20 {
        assert_eq!(api.seen(&unknown), "PR401-AU-0008");
    }
    issuer.was_asked_at_leisure(begun);
    sleep(limits::KEY_SET_PAUSE + Duration::from_millis(100));
    let asked = issuer.asked().len();
    assert_eq!(api.seen(&token), "200");
    assert_eq!(issuer.asked().len(), asked, "they are still fresh");
    // What it said before counts when its server fails.
    *issuer.answer.lock().unwrap() = "HTTP/1.1 500 No\r\n\r\n".to_owned();
    assert_eq!(api.seen(&unknown), "PR401-AU-0008");
    assert_eq!(issuer.asked().len(), asked + 1);
    assert_eq!(api.seen(&token), "200");
}

#[test]
fn keys_that_cannot_be_had_are_asked_for_again() {
    let system = system();
    let address = free_address();
    let api = Api::start(&system, &Issuer::url(address), &[]);
    let old = token(json!({}));
    let unavailable = |answer: &Answer| {
        assert_eq!((answer.status, answer.code().as_str()), (503, "PR503-EX-0003"), "{}", answer.text());
        assert!(answer.header("retry-after").is_some_and(|seconds| seconds.parse().is_ok_and(|s: u32| s >= 1)));
        assert_eq!(answer.header("www-authenticate"), None);
    };
    let begun = Instant::now();
    unavailable(&api.ask(&old));
    let issuer = Issuer::start(address, ok(&keys().to_string()));
    unavailable(&api.ask(&old));
    assert_eq!(issuer.asked().len(), 0, "it is not asked at once");
    assert_eq!(api.seen("AR~x"), "PR401-AU-0006", "other credentials need no keys");
    eventually("the keys are read", || api.seen(&old) == "200");
    // The issuer takes another key.
    let header = json!({"alg": "ES256", "kid": "new"});
    let new = signed(&header, &claims(json!({})), &elliptic(ANOTHER), Algorithm::ES256);
    *issuer.answer.lock().unwrap() =
        ok(&json!({"keys": [public("new", &elliptic(ANOTHER), Algorithm::ES256)]}).to_string());
    assert_eq!(api.seen(&new), "PR401-AU-0008");
    eventually("the new key is found", || api.seen(&new) == "200");
    assert_eq!(api.seen(&old), "PR401-AU-0008", "the old one is gone");
    issuer.was_asked_at_leisure(begun);
}

#[test]
fn what_is_no_key_set_is_none() {
    let system = system();
    let token = token(json!({}));
    let good = keys().to_string();
    let target = Issuer::start(free_address(), ok(&good));
    let there = Issuer::url(target.address);
    let long = format!("{}{}", good, " ".repeat(300 << 10));
    for (what, answer) in [
        ("an error", format!("HTTP/1.1 404 No\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{good}", good.len())),
        ("a redirect", format!("HTTP/1.1 302 There\r\nLocation: {there}\r\nContent-Length: 0\r\n\r\n")),
        ("no JSON", ok("keys")),
        ("no set", ok("{}")),
        ("a list", ok("[]")),
        ("a long one", ok(&long)),
        ("a part of one", format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{good}", good.len() + 1)),
        ("no HTTP", "keys\r\n\r\n".to_owned()),
        ("nothing", String::new()),
    ] {
        let issuer = Issuer::start(free_address(), answer);
        let api = Api::start(&system, &Issuer::url(issuer.address), &[]);
        assert_eq!(api.seen(&token), "PR503-EX-0003", "{what}");
        assert_eq!(issuer.asked().len(), 1, "{what}");
    }
    assert_eq!(target.asked().len(), 0, "a redirect is not followed");
    let directory = system.directory().display().to_string();
    let long_file = system.directory().join("long.json");
    std::fs::write(&long_file, &long).unwrap();
    for path in ["/nowhere/keys.json", &directory, &long_file.display().to_string(), "/dev/zero"] {
        assert_eq!(Api::start(&system, path, &[]).seen(&token), "PR503-EX-0003", "{path}");
    }
    // A set without a key that can be used is one.
    let none = json!({"keys": [{"kty": "oct", "k": "AAAA", "kid": "ec"}]});
    assert_eq!(Api::start(&system, &key_file(&system, &none), &[]).seen(&token), "PR401-AU-0008");
}
