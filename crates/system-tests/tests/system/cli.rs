//! `cellexport`, as its users run it.

use std::io::{Cursor, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::Value;
use sha2::{Digest, Sha256};
use system_tests::process::{self, Process};
use system_tests::system::{Options, System, TOKEN, free_address};

/// Environment of a user who has a token.
fn environment(system: &System) -> Vec<(String, String)> {
    [("CELLEXPORT_TOKEN", TOKEN.to_owned()), ("HOME", system.directory().display().to_string())]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
}

fn cellexport(system: &System, arguments: &[&str]) -> Output {
    process::run("cellexport", arguments, &environment(system))
}

/// Runs a command that must end so, and gives what it printed.
fn ends_with(system: &System, code: i32, arguments: &[&str]) -> (String, String) {
    let output = cellexport(system, arguments);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{out}\n{err}");
    (out, err)
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// URL of a cell.
fn cell(system: &System, name: &str) -> String {
    format!("http://localhost:{}/{name}/", system.value_of("UNIT_PORT"))
}

fn path(system: &System, name: &str) -> (PathBuf, String) {
    let path = system.directory().join(name);
    (path.clone(), path.display().to_string())
}

trait ValueOf {
    fn value_of(&self, setting: &str) -> String;
}

impl ValueOf for System {
    fn value_of(&self, setting: &str) -> String {
        let found = self.environment().iter().find(|(name, _)| name == setting);
        found.expect("a setting").1.clone()
    }
}

fn noise(length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    (0..length).map(|_| random.u8(..)).collect()
}

/// A way to an api, on which the bytes of its answers are counted.
struct Way {
    address: SocketAddr,
    to: Arc<OnceLock<SocketAddr>>,
    moved: Arc<AtomicU64>,
}

impl Way {
    fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (to, moved) = (Arc::new(OnceLock::new()), Arc::new(AtomicU64::new(0)));
        let (target, count) = (Arc::clone(&to), Arc::clone(&moved));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Some(server) = target.get().and_then(|to| TcpStream::connect(to).ok()) else { continue };
                let (mut from, mut into) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || {
                    _ = std::io::copy(&mut from, &mut into);
                    _ = into.shutdown(Shutdown::Write);
                });
                let (mut from, mut into, count) = (server, client, Arc::clone(&count));
                std::thread::spawn(move || {
                    let mut buffer = [0; 16 << 10];
                    while let Ok(n @ 1..) = from.read(&mut buffer) {
                        count.fetch_add(n as u64, SeqCst);
                        if into.write_all(&buffer[..n]).is_err() {
                            break;
                        }
                    }
                    _ = into.shutdown(Shutdown::Both);
                });
            }
        });
        Self { address, to, moved }
    }

    /// An installation whose URLs lead this way.
    fn system(&self) -> System {
        let settings = vec![("UNIT_PORT", self.address.port().to_string())];
        let mut system = System::start_with(Options { settings, ..Options::default() });
        self.to.set(system.address).expect("one system");
        system.address = self.address;
        system
    }

    fn moved_by(&self, what: impl FnOnce()) -> u64 {
        let before = self.moved.load(SeqCst);
        what();
        self.moved.load(SeqCst) - before
    }
}

#[test]
fn an_export_is_ordered_waited_for_downloaded_verified_and_looked_into() {
    let mut system = System::start();
    let _worker = system.worker();
    system.sample_cell("cell1", &[]);
    let cell = cell(&system, "cell1");
    let (file, shown) = path(&system, "one.zip");
    let (out, err) = ends_with(&system, 0, &["export", &cell, "--name", "one", "--download", &shown]);
    assert!(out.starts_with(&format!("downloaded {shown}, ")), "{out}");
    assert!(err.contains("export one: "), "progress in lines: {err}");
    let sha256 = hex::encode(Sha256::digest(std::fs::read(&file).unwrap()));
    assert!(out.trim_end().ends_with(&sha256), "{out}");
    assert!(
        !system.directory().join("one.zip.part").exists() && !system.directory().join("one.zip.part.etag").exists()
    );

    let (out, _) = ends_with(&system, 0, &["verify", &shown, "--json"]);
    let verified = json(&out);
    assert_eq!((&verified["sound"], &verified["sha256"]), (&true.into(), &sha256.as_str().into()));
    assert_eq!((&verified["cell"], &verified["integrity_entry"]), (&"cell1".into(), &true.into()));
    let accounts = system
        .value("SELECT count(*) FROM document d JOIN cell c ON c.generation = d.generation WHERE d.type = 'Account'");
    assert_eq!(verified["documents"]["Account"].to_string(), accounts);
    let (out, _) = ends_with(&system, 0, &["verify", &shown]);
    assert!(out.contains(&format!("sha256: {sha256}\n")) && out.ends_with("sound\n"), "{out}");

    let (out, err) = ends_with(&system, 0, &["list", &cell]);
    assert!(out.trim_end().ends_with("  one.zip") && err.is_empty(), "{out}");
    let (out, _) = ends_with(&system, 0, &["list", &cell, "--json"]);
    assert_eq!(json(&out)["files"][0]["size"], std::fs::metadata(&file).unwrap().len());
    let (out, _) = ends_with(&system, 0, &["jobs", &cell, "--json"]);
    assert_eq!((&json(&out)["jobs"][0]["name"], &json(&out)["jobs"][0]["state"]), (&"one".into(), &"succeeded".into()));
    let (out, _) = ends_with(&system, 0, &["status", &cell]);
    assert!(out.starts_with("export one ") && out.contains("succeeded") && out.contains("no import"), "{out}");

    let url = format!("{cell}__snapshot/one.zip");
    for place in [&shown, &url] {
        let (out, _) = ends_with(&system, 0, &["ls", place]);
        assert!(out.contains("00_manifest.json\n") && out.contains("99_integrity.json\n"), "{out}");
        let (out, _) = ends_with(&system, 0, &["ls", place, "--json"]);
        assert!(json(&out)["entries"].as_array().unwrap().len() > 5);
        let (out, _) = ends_with(&system, 0, &["cat", place, "00_manifest.json"]);
        assert_eq!(json(&out)["export_version"], 2);
        let (_, err) = ends_with(&system, 4, &["cat", place, "00_manifest.jso"]);
        assert!(err.contains("has no entry"), "{err}");
    }

    let (_, err) = ends_with(&system, 6, &["download", &cell, "one", &shown]);
    assert!(err.contains("exists") && err.contains("--force"), "{err}");
    ends_with(&system, 0, &["download", &cell, "one.zip", &shown, "--force", "--quiet"]);
    let whole = cellexport(&system, &["download", &cell, "one", "-"]);
    assert!(whole.status.success() && whole.stdout == std::fs::read(&file).unwrap());
    ends_with(&system, 0, &["delete", &cell, "one"]);
    let (_, err) = ends_with(&system, 4, &["download", &cell, "one", "-"]);
    assert!(err.starts_with("cellexport: PR404-"), "{err}");
    assert!(system.files("cell1").is_empty());
}

#[test]
fn a_download_goes_on_where_it_ended_and_keeps_nothing_wrong() {
    let way = Way::open();
    let system = way.system();
    system.make_cell("cell1");
    let cell = cell(&system, "cell1");
    let whole = noise(6_000_000);
    let (source, given) = path(&system, "big.zip");
    std::fs::write(source, &whole).unwrap();
    let (out, _) = ends_with(&system, 0, &["upload", &cell, &given, "--json"]);
    assert_eq!((&json(&out)["size"], &json(&out)["replaced"]), (&6_000_000.into(), &false.into()));
    let (_, err) = ends_with(&system, 6, &["upload", &cell, &given]);
    assert!(err.contains("--force"), "{err}");
    let (out, _) = ends_with(&system, 0, &["upload", &cell, &given, "big", "--force"]);
    assert!(out.starts_with("replaced"), "{out}");

    let etag = system.request("HEAD", "/cell1/__snapshot/big.zip", &[], None).header("etag").unwrap().to_owned();
    let (file, shown) = path(&system, "back.zip");
    let (part, note) = (system.directory().join("back.zip.part"), system.directory().join("back.zip.part.etag"));
    let download = || ends_with(&system, 0, &["download", &cell, "big", &shown]);
    let check = |what: &str| {
        assert!(std::fs::read(&file).unwrap() == whole, "{what}");
        assert!(!part.exists() && !note.exists(), "{what}");
        std::fs::remove_file(&file).unwrap();
    };
    std::fs::write(&part, &whole[..5_500_000]).unwrap();
    std::fs::write(&note, &etag).unwrap();
    let moved = way.moved_by(|| drop(download()));
    assert!(moved < 600_000, "{moved} bytes moved for the last 500000");
    check("gone on with");
    // All has come, and the name was not given any more.
    std::fs::write(&part, &whole).unwrap();
    std::fs::write(&note, &etag).unwrap();
    assert!(way.moved_by(|| drop(download())) < 10_000);
    check("only renamed");
    // The part of another version.
    std::fs::write(&part, vec![1; 1_000]).unwrap();
    std::fs::write(&note, "\"1-1\"").unwrap();
    download();
    check("begun anew");
    // A part that is none.
    std::fs::write(&part, vec![0; 1_000]).unwrap();
    std::fs::write(&note, &etag).unwrap();
    let (_, err) = ends_with(&system, 8, &["download", &cell, "big", &shown]);
    assert!(err.contains("SHA-256") && !file.exists() && !part.exists() && !note.exists(), "{err}");
    download();
    check("after that");
}

#[test]
fn an_entry_of_a_large_snapshot_moves_little_more_than_itself() {
    let way = Way::open();
    let system = way.system();
    system.make_cell("cell1");
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let (large, middle) = (noise(20_000_000), noise(3_000_000));
    for (name, bytes) in
        [("first", &large[..]), ("small", b"only this\x1b[31m"), ("middle", &middle[..]), ("last", &large[..])]
    {
        zip.start_file(name, stored).unwrap();
        zip.write_all(bytes).unwrap();
    }
    let whole = zip.finish().unwrap().into_inner();
    assert_eq!(system.put("cell1", "big.zip", &[], &whole).status, 201);
    let url = format!("{}__snapshot/big.zip", cell(&system, "cell1"));
    let moved = way.moved_by(|| {
        let output = cellexport(&system, &["cat", &url, "small"]);
        assert_eq!(output.stdout, b"only this\x1b[31m", "verbatim: this is no terminal");
    });
    assert!(moved < 200_000, "{moved} bytes for a small entry of {}", whole.len());
    let moved = way.moved_by(|| {
        let output = cellexport(&system, &["cat", &url, "middle"]);
        assert!(output.stdout == middle);
    });
    assert!(moved < 3_000_000 + 1_500_000, "{moved} bytes for three million");
    let moved = way.moved_by(|| drop(ends_with(&system, 0, &["ls", &url])));
    assert!(moved < 200_000, "{moved} bytes for a list");
    assert_eq!(system.put("cell1", "none.zip", &[], &noise(3_000_000)).status, 201);
    let moved = way.moved_by(|| drop(ends_with(&system, 8, &["ls", &url.replace("big", "none")])));
    assert!(moved < 100_000, "{moved} bytes to see that it is no archive");
}

#[test]
fn verify_names_every_fault() {
    let system = System::start();
    let file = system.sample(&["--name", "cell1"]);
    let good = std::fs::read(&file).unwrap();
    let (bad, shown) = path(&system, "bad.zip");
    let verify = |bytes: &[u8]| {
        std::fs::write(&bad, bytes).unwrap();
        ends_with(&system, 8, &["verify", &shown])
    };
    let (out, err) = verify(&good[..good.len() - 1]);
    assert!(out.contains("fault: ") && err.contains("bad.zip is faulty, faults: 1"), "{out}{err}");
    verify(b"");
    // Two accounts of one id, and a file that is not what it was.
    let mut entries = Vec::new();
    let mut archive = zip::ZipArchive::new(Cursor::new(&good)).unwrap();
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        let name = String::from_utf8(entry.name_raw().to_vec()).unwrap();
        entries.push((name, bytes));
    }
    let write = |entries: &[(String, Vec<u8>)]| {
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in entries {
            zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap().into_inner()
    };
    entries.retain(|(name, _)| name != "99_integrity.json" && !name.ends_with('/'));
    std::fs::write(&bad, write(&entries)).unwrap();
    ends_with(&system, 0, &["verify", &shown]);
    let role = entries.iter_mut().find(|(name, _)| name == "10_odata/20_role.pjson").expect("roles");
    let line = role.1.split_inclusive(|b| *b == b'\n').next().expect("a role").to_vec();
    role.1.extend_from_slice(&line);
    role.1.extend_from_slice(b"{}\n");
    let (out, err) = verify(&write(&entries));
    let faults: Vec<&str> = out.lines().filter(|line| line.starts_with("fault: ")).collect();
    assert!(faults.iter().any(|fault| fault.contains("20_role.pjson") && fault.contains("occurs twice")), "{out}");
    assert!(faults.iter().any(|fault| fault.starts_with("fault: 10_odata/20_role.pjson:")), "{out}");
    assert!(err.contains(&format!("faults: {}", faults.len())) && faults.len() == 2, "{out}{err}");
    ends_with(&system, 4, &["verify", &path(&system, "nothing.zip").1]);
}

#[test]
fn an_import_is_tried_and_done() {
    let mut system = System::start();
    let _worker = system.worker();
    let file = system.sample_cell("cell1", &[]);
    system.make_cell("copy");
    let copy = cell(&system, "copy");
    ends_with(&system, 0, &["upload", &copy, &file.display().to_string(), "good"]);
    let (out, _) = ends_with(&system, 0, &["import", &copy, "good", "--dry-run"]);
    assert!(out.contains("added") && out.ends_with("an import would succeed\n"), "{out}");
    let (out, _) = ends_with(&system, 0, &["import", &copy, "good.zip", "--wait", "--json"]);
    assert_eq!((&json(&out)["kind"], &json(&out)["state"]), (&"import".into(), &"succeeded".into()));
    let (out, _) = ends_with(&system, 0, &["status", &copy]);
    assert!(out.contains("import good ") && out.contains("succeeded"), "{out}");
    let (_, err) = ends_with(&system, 4, &["import", &copy, "nothing"]);
    assert!(err.starts_with("cellexport: PR404-DV-0001 "), "{err}");
    // Its manifest is right, so the request is accepted; what comes behind is not.
    let mut bad = std::fs::read(&file).unwrap();
    let place = bad.windows(20).position(|w| w == b"10_odata/20_role.pjs").expect("an entry") + 40;
    bad[place] ^= 1;
    assert_eq!(system.put("copy", "bad.zip", &[], &bad).status, 201);
    let (out, err) = ends_with(&system, 8, &["import", &copy, "bad", "--dry-run"]);
    assert!(out.contains("fault: 10_odata/20_role.pjson") && err.contains("cannot be imported"), "{out}{err}");
    let (_, err) = ends_with(&system, 3, &["import", &copy, "bad", "--wait"]);
    assert!(err.contains("PR400-EX-0001"), "{err}");
}

#[test]
fn an_interrupted_wait_leaves_the_job_and_says_how_to_come_back() {
    let mut system = System::start();
    system.sample_cell("cell1", &[]);
    let cell = cell(&system, "cell1");
    let start = |arguments: &[&str], log: &str| {
        let process = Process::start("cellexport", arguments, &environment(&system), system.directory().join(log));
        system.eventually("it waits", || process.log().contains("queued"));
        process
    };
    let interrupt = |mut process: Process| {
        process.signal("INT");
        let code = process.wait(Duration::from_secs(30));
        (code, process.log())
    };
    let (code, said) = interrupt(start(&["export", &cell, "--name", "one", "--wait"], "first.log"));
    assert_eq!(code, Some(130), "{said}");
    let line = said.lines().last().unwrap();
    let (before, command) = line.split_once("come back with: cellexport ").expect("a command");
    assert_eq!(before, "cellexport: the export goes on; ");
    let words: Vec<&str> = command.split(' ').collect();
    assert_eq!(words[..2], ["status", &cell]);
    let waiting = start(&words, "second.log");
    let (_, err) = ends_with(&system, 6, &["export", &cell, "--name", "two"]);
    assert!(err.starts_with("cellexport: PR409-CM-0002 ") && err.contains("look with: cellexport jobs"), "{err}");
    let cancelled = ends_with(&system, 0, &["cancel", &cell]).0;
    assert!(cancelled.contains("cancelled"), "{cancelled}");
    let mut waiting = waiting;
    assert_eq!(waiting.wait(Duration::from_secs(60)), Some(3), "{}", waiting.log());
    ends_with(&system, 4, &["cancel", &cell]);

    let arguments = ["export", &cell, "--name", "three", "--wait", "--cancel-on-interrupt"];
    let (code, said) = interrupt(start(&arguments, "third.log"));
    assert_eq!(code, Some(130), "{said}");
    assert!(said.contains("the export three was cancelled"), "{said}");
    let (out, _) = ends_with(&system, 0, &["status", &cell, "--json"]);
    assert_eq!(json(&out)["export"]["state"], "cancelled");
    let _worker = system.worker();
    ends_with(&system, 0, &["export", &cell, "--name", "four", "--wait"]);
    let (_, err) = ends_with(&system, 6, &["export", &cell, "--name", "four"]);
    assert!(err.contains("PR409-DV-0002"), "{err}");
}

#[test]
fn exit_codes_and_configuration_are_as_the_manual_says() {
    let system = System::start();
    system.make_cell("cell1");
    let cell = cell(&system, "cell1");
    let home = system.directory().display().to_string();
    let run = |arguments: &[&str], environment: &[(&str, &str)]| {
        let environment: Vec<(String, String)> =
            environment.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let output = process::run("cellexport", arguments, &environment);
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, err) = run(&["list", &cell], &[("HOME", &home)]);
    assert!(code == 5 && err.contains("PR401-") && err.contains("give a token"), "{code} {err}");
    let with = |name, value| [("HOME", home.as_str()), (name, value)];
    assert_eq!(run(&["list", &cell], &with("CELLEXPORT_TOKEN", TOKEN)).0, 0);
    assert_eq!(run(&["list", "cell1"], &with("CELLEXPORT_TOKEN", TOKEN)).0, 2, "no unit");
    assert_eq!(run(&["list", &cell], &with("CELLEXPORT_TOKEN", "wrong-token-of-nobody")).0, 5);
    let absent = cell.replace("cell1", "absent");
    assert_eq!(run(&["list", &absent], &with("CELLEXPORT_TOKEN", TOKEN)).0, 4);
    let nobody = format!("http://{}/cell1/", free_address());
    let (code, err) = run(&["list", &nobody, "--tries", "2"], &[("HOME", &home)]);
    assert!(code == 7 && err.matches("does not answer").count() == 2, "{code} {err}");
    for wrong in [&["list"][..], &["list", "ftp://x/"], &["list", "http://a:b@c/"], &["download", &cell, "../x"]] {
        assert_eq!(run(wrong, &with("CELLEXPORT_TOKEN", TOKEN)).0, 2, "{wrong:?}");
    }
    // The usual place; what it says of the token is for its unit only.
    let directory = system.directory().join(".config/cellexport");
    std::fs::create_dir_all(&directory).unwrap();
    let unit = cell.trim_end_matches("cell1/");
    let file = directory.join("config.toml");
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    write(&format!("unit = \"{unit}\"\ntoken = \"{TOKEN}\"\n"));
    let (code, err) = run(&["list", "cell1"], &[("HOME", &home)]);
    assert!(code == 0 && err.contains("chmod 600"), "{code} {err}");
    let (code, err) = run(&["list", &nobody], &[("HOME", &home)]);
    assert!(code == 2 && err.contains("not of the unit"), "{code} {err}");
    // The environment wins over the file, a flag over both.
    assert_eq!(run(&["list", "cell1"], &with("CELLEXPORT_TOKEN", "wrong-token-of-nobody")).0, 5);
    let (right, shown) = path(&system, "token");
    std::fs::write(right, format!("{TOKEN}\n")).unwrap();
    let arguments = ["list", "cell1", "--token-file", &shown];
    assert_eq!(run(&arguments, &with("CELLEXPORT_TOKEN", "wrong-token-of-nobody")).0, 0);
    write(&format!("unit = \"{unit}\"\ntoken = \"{TOKEN}\"\nwhat = 1\n"));
    let (code, err) = run(&["list", "cell1"], &[("HOME", &home)]);
    assert!(code == 2 && err.contains("line 3"), "{code} {err}");
    write(&format!("unit = \"{unit}\"\ntoken = [\"{TOKEN}\"]\n"));
    assert_eq!(run(&["list", "cell1"], &[("HOME", &home)]).0, 2);
    let (elsewhere, shown) = path(&system, "elsewhere.toml");
    std::fs::rename(&file, elsewhere).unwrap();
    let (code, err) = run(&["list", "cell1"], &with("CELLEXPORT_CONFIG", &shown));
    assert!(code == 2 && err.contains("elsewhere.toml: line 2"), "{code} {err}");
    assert_eq!(run(&["list", &cell], &with("CELLEXPORT_TOKEN", TOKEN)).0, 0, "nothing is in the usual place");
    // Before anybody is asked.
    for overwriting in [&["download", &nobody, "one", &shown][..], &["export", &nobody, "--download", &shown]] {
        assert_eq!(run(overwriting, &[("HOME", &home)]).0, 6, "{overwriting:?}");
    }

    let script = process::run("cellexport", &["completions", "bash"], &[]);
    assert!(script.status.success() && script.stdout.starts_with(b"_cellexport"));
    for page in [&["man"][..], &["man", "download"]] {
        let page = process::run("cellexport", page, &[]);
        let text = String::from_utf8(page.stdout).unwrap();
        assert!(page.status.success() && text.contains(".TH ") && text.contains(".SH "), "{text}");
    }
    assert!(Path::new(&home).exists());
}

/// A unit that says what a test wants: one answer for each connection, in this order. Gives its address and, when it has
/// said all or nobody asks any more, what it was asked.
fn scripted(answers: Vec<Vec<u8>>, ended: Arc<AtomicBool>) -> (SocketAddr, std::thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().expect("an address");
    let serving = std::thread::spawn(move || {
        let mut asked = Vec::new();
        for answer in answers {
            let mut stream = loop {
                match listener.accept() {
                    Ok((stream, _)) => break stream,
                    Err(_) if ended.load(SeqCst) => return asked,
                    Err(_) => std::thread::sleep(Duration::from_millis(5)),
                }
            };
            stream.set_nonblocking(false).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            let (mut request, mut byte) = (Vec::new(), [0]);
            while !request.ends_with(b"\r\n\r\n") && matches!(stream.read(&mut byte), Ok(1)) {
                request.push(byte[0]);
            }
            let head = String::from_utf8(request).unwrap().to_ascii_lowercase();
            let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
            let mut body = vec![0; length.unwrap_or(0)];
            stream.read_exact(&mut body).unwrap();
            asked.push(head);
            _ = stream.write_all(&answer);
        }
        asked
    });
    (address, serving)
}

fn answer(head: &str, body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 {head}\r\nConnection: close\r\n\r\n").as_bytes(), body].concat()
}

fn sized(head: &str, body: &[u8]) -> Vec<u8> {
    answer(&format!("{head}\r\nContent-Length: {}", body.len()), body)
}

/// Runs a command against a scripted unit; its exit code, what it said, and what the unit was asked.
fn against(answers: Vec<Vec<u8>>, arguments: &[&str]) -> (Option<i32>, String, Vec<String>) {
    let ended = Arc::new(AtomicBool::new(false));
    let (address, serving) = scripted(answers, Arc::clone(&ended));
    let cell = format!("http://{address}/c/");
    let arguments: Vec<String> = arguments.iter().map(|word| word.replace("CELL/", &cell)).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let output = process::run("cellexport", &arguments, &[("CELLEXPORT_TOKEN".to_owned(), TOKEN.to_owned())]);
    ended.store(true, SeqCst);
    let said = [output.stderr, output.stdout].concat();
    (output.status.code(), String::from_utf8(said).unwrap(), serving.join().unwrap())
}

fn field<'a>(request: &'a str, name: &str) -> Option<&'a str> {
    request.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[test]
fn what_fails_for_a_passing_reason_is_tried_again_and_words_of_a_unit_stay_words() {
    let id = "0192f0c1-7f0e-7a55-b3a1-3f3e1f7d2f10";
    let job = |state: &str, error: &str| {
        let job = format!(r#"{{"id":"{id}","kind":"export","name":"one","state":"{state}","error":{error}}}"#);
        sized("200 OK", job.as_bytes())
    };
    let error = r#"{"code":"PR500-SV-0000","message":{"lang":"en","value":"gone\u001b[2J\u202e\nand"}}"#;
    let link = format!("Link: <http://elsewhere.example/x/jobs/{id}>; rel=\"monitor\"");
    let answers = vec![
        sized("503 Service Unavailable\r\nRetry-After: 0", b"{}"),
        Vec::new(),
        sized(&format!("202 Accepted\r\n{link}"), b""),
        job("running", "null"),
        sized("503 Service Unavailable\r\nRetry-After: 0", b""),
        job("failed", error),
    ];
    let (code, said, asked) = against(answers, &["export", "CELL/", "--wait"]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("cellexport: PR500-SV-0000 gone\\u{1b}[2J\\u{202e}\\nand"), "{said}");
    assert!(!said.contains(['\u{1b}', '\u{202e}']), "{said:?}");
    let key = field(&asked[0], "idempotency-key").expect("a key");
    assert!(key.len() == 38 && asked[..3].iter().all(|r| field(r, "idempotency-key") == Some(key)), "{asked:?}");
    assert!(asked[3..].iter().all(|r| r.starts_with(&format!("get /c/__export/jobs/{id} "))), "{asked:?}");
    assert!(asked.iter().all(|r| field(r, "authorization").is_some()), "{asked:?}");
    assert_eq!(field(&asked[3], "prefer"), Some("wait=1"));
    // What is refused for good is sent once, and what leads elsewhere is not followed.
    let (code, said, _) =
        against(vec![sized("302 Found\r\nLocation: http://elsewhere.example/", b"")], &["list", "CELL/"]);
    assert_eq!(code, Some(1), "{said}");
    let busy = br#"{"code":"PR409-CM-0002","message":{"lang":"en","value":"busy"}}"#;
    let (code, said, _) = against(vec![sized("409 Conflict", busy)], &["export", "CELL/"]);
    assert!(code == Some(6) && said.starts_with("cellexport: PR409-CM-0002 busy; look with: "), "{said}");
}

#[test]
fn a_download_that_breaks_off_goes_on_and_one_that_is_replaced_begins_anew() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("got.zip");
    let shown = file.display().to_string();
    // SHA-256 of `0123456789`.
    let digest = "Repr-Digest: sha-256=:hNiYd/DUBB77a/kaFvAkjy/Vc+avBcGflr7bn4gveII=:";
    let whole = |tag: &str| format!("200 OK\r\nETag: \"{tag}\"\r\n{digest}\r\nContent-Length: 10");
    let rest = |from: usize| format!("206 Partial Content\r\nETag: \"b\"\r\nContent-Range: bytes {from}-9/10");
    let answers = vec![
        answer(&whole("a"), b""),
        // Another one by now.
        answer(&whole("b"), b"x"),
        answer(&whole("b"), b""),
        answer(&whole("b"), b"0123"),
        sized(&rest(4), b"456789"),
    ];
    let (code, said, asked) = against(answers, &["download", "CELL/", "one", &shown]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(std::fs::read(&file).unwrap(), b"0123456789");
    assert_eq!((field(&asked[4], "range"), field(&asked[4], "if-range")), (Some("bytes=4-"), Some("\"b\"")));
    assert!(asked[0].starts_with("head ") && field(&asked[3], "range").is_none(), "{asked:?}");
}

#[test]
fn a_remote_snapshot_that_is_replaced_while_it_is_read_is_an_error() {
    // The end of an archive whose directory lies before what is read first.
    let (size, tail) = (200_000u32, 65_536);
    let mut end = vec![0; tail - 22];
    end.extend_from_slice(b"PK\x05\x06\0\0\0\0\x01\0\x01\0");
    end.extend_from_slice(&(size - 22 - 10).to_le_bytes());
    end.extend_from_slice(&10u32.to_le_bytes());
    end.extend_from_slice(&[0, 0]);
    let part = |tag: &str, from: usize, to: usize| {
        format!("206 Partial Content\r\nETag: \"{tag}\"\r\nContent-Range: bytes {from}-{to}/{size}")
    };
    let first = sized(&part("a", size as usize - tail, size as usize - 1), &end);
    let whole = answer(&format!("200 OK\r\nETag: \"b\"\r\nContent-Length: {size}"), b"PK");
    let (code, said, asked) = against(vec![first.clone(), whole], &["ls", "CELL/__snapshot/x.zip"]);
    assert!(code == Some(6) && said.contains("was replaced while it was read"), "{said}");
    assert_eq!((field(&asked[1], "if-range"), field(&asked[1], "range")), (Some("\"a\""), Some("bytes=10-65545")));
    let other = sized(&part("b", 10, 65_545), &vec![0; 65_536]);
    let (code, said, _) = against(vec![first, other], &["cat", "CELL/__snapshot/x.zip", "y"]);
    assert!(code == Some(6) && said.contains("was replaced while it was read"), "{said}");
}
