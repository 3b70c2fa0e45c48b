//! Real clients: rclone and cadaver over WebDAV, curl that resumes.

use std::path::Path;
use std::process::{Command, Output};

use system_tests::judge::skipped;
use system_tests::system::{Options, System, TOKEN};

/// Runs rclone against a cell's snapshot area; nothing when it is not installed.
fn rclone(system: &System, arguments: &[&str]) -> Option<Output> {
    Command::new("rclone")
        .args(arguments)
        .env("RCLONE_CONFIG", system.directory().join("no-rclone.conf"))
        .env("RCLONE_CONFIG_AREA_TYPE", "webdav")
        .env("RCLONE_CONFIG_AREA_VENDOR", "other")
        .env("RCLONE_CONFIG_AREA_URL", format!("http://localhost:{}/cell1/__snapshot", system.address.port()))
        .env("RCLONE_CONFIG_AREA_BEARER_TOKEN", TOKEN)
        .env("NO_PROXY", "localhost")
        .output()
        .ok()
}

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n * 31 % 251) as u8).collect()
}

#[test]
fn rclone_lists_uploads_downloads_checks_and_deletes() {
    let system = System::start();
    if rclone(&system, &["version"]).is_none() {
        return skipped("rclone is not installed");
    }
    system.make_cell("cell1");
    let run = |arguments: &[&str]| {
        let output = rclone(&system, arguments).expect("installed");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "rclone {arguments:?}: {text}");
        output.stdout
    };
    let local = system.directory().join("local");
    std::fs::create_dir(&local).unwrap();
    let path = |p: &Path| p.display().to_string();
    for (name, length) in [("one.zip", 3_000_000), ("two.zip", 10)] {
        std::fs::write(local.join(name), bytes(length)).unwrap();
    }
    run(&["copy", &path(&local), "area:"]);
    let listed = String::from_utf8(run(&["lsf", "--format", "ps", "area:"])).unwrap();
    let mut lines: Vec<&str> = listed.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["one.zip;3000000", "two.zip;10"]);
    assert_eq!(system.files("cell1"), ["one.zip", "two.zip"]);
    // Compares every byte by downloading; without --download, sizes.
    run(&["check", "--download", &path(&local), "area:"]);
    run(&["check", &path(&local), "area:"]);
    assert_eq!(
        run(&["cat", "--offset", "1000000", "--count", "5000", "area:one.zip"]),
        bytes(3_000_000)[1_000_000..1_005_000]
    );
    let back = system.directory().join("back");
    run(&["copy", "area:", &path(&back)]);
    assert!(std::fs::read(back.join("one.zip")).unwrap() == bytes(3_000_000));
    // Replacing is an upload over the old file.
    std::fs::write(local.join("two.zip"), bytes(20)).unwrap();
    run(&["copyto", "--ignore-times", &path(&local.join("two.zip")), "area:two.zip"]);
    assert_eq!(run(&["cat", "area:two.zip"]), bytes(20));
    run(&["deletefile", "area:two.zip"]);
    assert_eq!(system.files("cell1"), ["one.zip"]);
    let refused = rclone(&system, &["copyto", &path(&local.join("two.zip")), "area:two.txt"]).expect("installed");
    assert!(!refused.status.success(), "only snapshots can be put there");
}

#[test]
fn curl_resumes_a_killed_download() {
    let system = System::start();
    let curl = |arguments: &[&str]| {
        let url = format!("http://localhost:{}/cell1/__snapshot/big.zip", system.address.port());
        let auth = format!("Authorization: Bearer {TOKEN}");
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--fail", "--noproxy", "localhost", "-H", &auth]);
        command.args(arguments).arg(url).spawn().ok()
    };
    if Command::new("curl").arg("--version").output().is_err() {
        return skipped("curl is not installed");
    }
    system.make_cell("cell1");
    let whole = bytes(40_000_000);
    let put = system.put("cell1", "big.zip", &[], &whole);
    assert_eq!(put.status, 201, "{}", put.text());
    let got = system.directory().join("got.zip");
    let out = got.display().to_string();
    let mut first = curl(&["--limit-rate", "4M", "-o", &out]).expect("started");
    system.eventually("a part has arrived", || std::fs::metadata(&got).is_ok_and(|m| m.len() > 1_000_000));
    first.kill().unwrap();
    first.wait().unwrap();
    let part = std::fs::metadata(&got).unwrap().len();
    assert!(part < whole.len() as u64, "killed in the middle");
    let rest = curl(&["-C", "-", "-o", &out]).expect("started").wait().unwrap();
    assert!(rest.success());
    assert!(std::fs::read(&got).unwrap() == whole, "resumed from {part}");
}

#[test]
fn cadaver_works_with_a_token_as_password() {
    let system =
        System::start_with(Options { settings: vec![("BASIC_TOKENS", "true".to_owned())], ..Options::default() });
    let home = system.directory().join("home");
    std::fs::create_dir(&home).unwrap();
    std::fs::write(home.join(".netrc"), format!("machine localhost\nlogin anybody\npassword {TOKEN}\n")).unwrap();
    let cadaver = |commands: &str| {
        let script = home.join("commands");
        std::fs::write(&script, commands).unwrap();
        let url = format!("http://localhost:{}/cell1/__snapshot/", system.address.port());
        let mut command = Command::new("cadaver");
        command.arg(url).env("HOME", &home).current_dir(&home);
        let output = command.stdin(std::fs::File::open(script).unwrap()).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    if cadaver("").is_none() {
        return skipped("cadaver is not installed");
    }
    system.make_cell("cell1");
    std::fs::write(home.join("one.zip"), bytes(3_000_000)).unwrap();
    let said = cadaver("put one.zip\nls\nget one.zip back.zip\n").expect("installed");
    assert!(said.contains("one.zip") && said.contains("3000000"), "{said}");
    assert!(std::fs::read(home.join("back.zip")).unwrap() == bytes(3_000_000), "{said}");
    assert_eq!(system.files("cell1"), ["one.zip"]);
    let said = cadaver("delete one.zip\n").expect("installed");
    assert!(system.files("cell1").is_empty(), "{said}");
    std::fs::write(home.join(".netrc"), "machine localhost\nlogin anybody\npassword wrong\n").unwrap();
    cadaver("put one.zip\n").expect("installed");
    assert!(system.files("cell1").is_empty(), "a wrong password opens nothing");
}
