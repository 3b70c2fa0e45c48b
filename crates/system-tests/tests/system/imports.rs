//! Imports as jobs: atomic whatever crashes, one job per cell, cancelled, reported, examined without being done.

use std::path::Path;
use std::time::Duration;

use system_tests::http::Answer;
use system_tests::stop::Stop;
use system_tests::system::{Options, System, eventually};

fn post(system: &System, cell: &str, resource: &str, name: &str) -> Answer {
    let body = format!(r#"{{"Name":"{name}"}}"#);
    system.request("POST", &format!("/{cell}/{resource}"), &[], Some(body.as_bytes()))
}

fn upload(system: &System, cell: &str, name: &str, file: &Path) {
    let answer = system.put(cell, &format!("{name}.zip"), &[], &std::fs::read(file).unwrap());
    assert!([201, 204].contains(&answer.status), "{} {}", answer.status, answer.text());
}

fn report(system: &System, cell: &str, resource: &str) -> serde_json::Value {
    let answer = system.request("GET", &format!("/{cell}/{resource}"), &[], None);
    assert_eq!(answer.status, 200, "{}", answer.text());
    serde_json::from_slice(&answer.body).unwrap()
}

fn wait(system: &System, cell: &str, resource: &str) -> serde_json::Value {
    eventually("the job ends", || {
        let status = report(system, cell, resource)["status"].clone();
        !status.as_str().unwrap().ends_with("in progress")
    });
    report(system, cell, resource)
}

/// Everything that the cell holds, as one digest.
fn state(system: &System, cell: &str) -> String {
    system.value(&format!(
        "SELECT md5(document) || (SELECT md5(string_agg(md5(type || id || body), '' ORDER BY type, position))
                                  FROM document d WHERE d.generation = cell.generation)
             || (SELECT md5(string_agg(md5(path || coalesce(pmeta, '') || coalesce(encode(sha256, 'hex'), '')), ''
                                       ORDER BY path))
                 FROM node n LEFT JOIN blob b ON b.id = n.blob_id WHERE n.generation = cell.generation)
         FROM cell WHERE name = '{cell}'"
    ))
}

/// Rows and files that no cell names.
fn strays(system: &System) -> String {
    let rows = system.value(
        "SELECT (SELECT count(*) FROM document WHERE generation NOT IN (SELECT generation FROM cell))
              + (SELECT count(*) FROM node WHERE generation NOT IN (SELECT generation FROM cell))
              + (SELECT count(*) FROM blob WHERE generation NOT IN (SELECT generation FROM cell))
              + (SELECT count(*) FROM generation)",
    );
    let named: usize = system.value("SELECT count(*) FROM blob").parse().unwrap();
    let directories = std::fs::read_dir(system.blobs()).unwrap().flatten();
    let files = directories.map(|d| std::fs::read_dir(d.path()).unwrap().count()).sum::<usize>();
    format!("{rows} rows, {} files", files as i64 - named as i64)
}

/// Two states of one cell: what it holds, and a snapshot of what it held before.
fn two_states(system: &mut System, documents: &str) -> (String, String) {
    system.sample_cell("cell1", &["--documents", documents, "--files", "30"]);
    {
        let _worker = system.worker();
        system.export("cell1", "before");
    }
    let before = state(system, "cell1");
    let of_cell = "generation = (SELECT generation FROM cell WHERE name = 'cell1')";
    system.execute(&format!("DELETE FROM document WHERE {of_cell} AND type = 'link'"));
    system.execute(&format!(
        "UPDATE document SET body = replace(body, '\"P001\":\"', '\"P001\":\"changed ') WHERE {of_cell} AND type = 'UserData'"
    ));
    let now = state(system, "cell1");
    assert_ne!(now, before);
    (now, before)
}

#[test]
fn an_import_makes_the_cell_what_the_snapshot_says() {
    let mut system = System::start();
    let (now, before) = two_states(&mut system, "2000");
    let accepted = post(&system, "cell1", "__import", "before");
    assert_eq!((accepted.status, accepted.body.len()), (202, 0), "{}", accepted.text());
    let url = format!("http://{}/cell1/__import", system.address).replace("127.0.0.1", "localhost");
    assert_eq!(accepted.header("location"), Some(url.as_str()));
    let queued = report(&system, "cell1", "__import");
    assert_eq!((&queued["status"], &queued["progress"]), (&"importation in progress".into(), &"0%".into()));
    assert_eq!(queued["importation_name"], "before");
    assert_eq!(system.status("cell1")["status"], "ready", "no export is under way");
    assert_eq!(state(&system, "cell1"), now, "accepted is not done");
    let _worker = system.worker();
    assert_eq!(wait(&system, "cell1", "__import"), serde_json::json!({"status": "ready"}));
    assert_eq!(state(&system, "cell1"), before);
    let result = system.value("SELECT result FROM job WHERE kind = 'import'");
    let result: serde_json::Value = serde_json::from_str(&result).unwrap();
    assert_eq!((&result["ids"], &result["documents"]["UserData"]), (&"kept".into(), &2000.into()), "{result}");
    // The former contents are garbage, and go.
    eventually("nothing is left of the former contents", || strays(&system) == "0 rows, 0 files");
    assert_eq!(system.files("cell1"), ["before.zip"], "an import makes no file");
}

#[test]
fn a_cell_does_one_thing_at_a_time() {
    let mut system = System::start();
    two_states(&mut system, "100");
    let refused = |resource: &str, activity: &str| {
        let answer = post(&system, "cell1", resource, "before");
        assert_eq!((answer.status, answer.code().as_str()), (409, "PR409-CM-0002"), "{resource}");
        let words = format!("Because [{activity}] is being executed, writing to cell can not be done.");
        assert_eq!(answer.message(), words);
    };
    for (first, activity) in
        [("__import", "cell import"), ("__import/dry-run", "cell import"), ("__export", "cell export")]
    {
        let name = if first == "__export" { "made" } else { "before" };
        assert_eq!(post(&system, "cell1", first, name).status, 202);
        for second in ["__import", "__import/dry-run", "__export"] {
            refused(second, activity);
        }
        if first != "__export" {
            let path = "/cell1/__snapshot/before.zip";
            for (method, body) in [("PUT", Some(&b"x"[..])), ("DELETE", None)] {
                let answer = system.request(method, path, &[], body);
                assert_eq!((answer.status, answer.code().as_str()), (409, "PR409-CM-0002"), "{method}");
            }
        }
        let deleted = system.request("DELETE", "/__ctl/Cell('cell1')", &[], None);
        assert_eq!((deleted.status, deleted.code().as_str()), (409, "PR409-CM-0002"));
        system.execute("DELETE FROM snapshot_entry WHERE kind = 'pending'");
        system.execute("DELETE FROM job WHERE state = 'queued'");
    }
}

/// Whoever reads the cell while it is imported reads the old contents or the new ones; so does an export begun then.
#[test]
fn readers_never_see_a_mix() {
    let mut system = System::start();
    let (now, before) = two_states(&mut system, "8000");
    let _worker = system.worker();
    let done = Stop::default();
    let seen = std::thread::scope(|scope| {
        let ending = done.later();
        let reader = scope.spawn(|| {
            let mut seen = Vec::new();
            while !done.is_said() {
                let state = state(&system, "cell1");
                if seen.last() != Some(&state) {
                    seen.push(state);
                }
            }
            seen
        });
        assert_eq!(post(&system, "cell1", "__import", "before").status, 202);
        assert_eq!(wait(&system, "cell1", "__import")["status"], "ready");
        std::thread::sleep(Duration::from_millis(200));
        drop(ending);
        reader.join().unwrap()
    });
    assert_eq!(seen, [now, before]);
}

#[test]
fn killed_at_twenty_points_it_leaves_the_old_cell_or_the_new_one() {
    let settings = vec![("JOB_MAX_STRIKES", "1000".to_owned())];
    let mut system = System::start_with(Options { settings, ..Options::default() });
    let (now, before) = two_states(&mut system, "12000");
    // How long it takes undisturbed: into another cell.
    system.make_cell("clock");
    upload(&system, "clock", "before", &system.download("cell1", "before.zip"));
    {
        let _worker = system.worker();
        assert_eq!(post(&system, "clock", "__import", "before").status, 202);
        assert_eq!(wait(&system, "clock", "__import")["status"], "ready");
    }
    let took = "SELECT extract(epoch FROM finished_at - started_at) FROM job WHERE kind = 'import'";
    let long = Duration::from_secs_f64(system.value(took).parse().unwrap());

    // To and fro between two states, so that every kill has something to hit.
    {
        let _worker = system.worker();
        system.export("cell1", "after");
    }
    let mut to = ("before", before.clone());
    let mut other = ("after", now);
    let latest = "SELECT state FROM job WHERE cell_id = (SELECT id FROM cell WHERE name = 'cell1')
                  ORDER BY accepted_at DESC LIMIT 1";
    let (mut accepted, mut in_time, mut long, mut kills) = (false, 0, long, 0);
    while in_time < 20 {
        kills += 1;
        assert!(kills < 60, "only {in_time} of the kills were in time");
        if !accepted {
            assert_eq!(post(&system, "cell1", "__import", to.0).status, 202);
        }
        let mut victim = system.worker();
        eventually("it is claimed", || system.value(latest) != "queued");
        std::thread::sleep(long.mul_f64(f64::from(in_time) / 20.0));
        victim.signal("KILL");
        victim.wait(Duration::from_secs(5));
        let finished = system.value(latest) == "succeeded";
        let expected = if finished { &to.1 } else { &other.1 };
        assert_eq!(&state(&system, "cell1"), expected, "killed at point {in_time}, finished: {finished}");
        accepted = !finished;
        if finished {
            // It is faster than it was: the same point of a shorter run.
            long = long.mul_f64(0.8);
            std::mem::swap(&mut to, &mut other);
            continue;
        }
        in_time += 1;
        // The lease of the dead is over at once; the api takes the job back.
        system.execute("UPDATE job SET lease_until = clock_timestamp() WHERE state = 'running'");
        eventually("it is taken back", || system.value("SELECT count(*) FROM job WHERE state = 'running'") == "0");
        system.execute("UPDATE job SET available_at = clock_timestamp() WHERE state = 'queued'");
    }
    let _heir = system.worker();
    if !accepted {
        assert_eq!(post(&system, "cell1", "__import", to.0).status, 202);
    }
    assert_eq!(wait(&system, "cell1", "__import")["status"], "ready");
    assert_eq!(state(&system, "cell1"), to.1);
    // Rows of all the dead attempts go; contents that had no rows yet are the sweeper's, after a day.
    eventually("rows of dead attempts are removed", || strays(&system).starts_with("0 rows"));
    assert_eq!(state(&system, "cell1"), to.1);
}

#[test]
fn a_cancelled_import_changes_nothing_and_says_so() {
    let mut system = System::start();
    let (now, _) = two_states(&mut system, "8000");
    let _worker = system.worker();
    assert_eq!(post(&system, "cell1", "__import", "before").status, 202);
    eventually("it runs", || system.value("SELECT state FROM job WHERE kind = 'import'") == "running");
    system.execute("UPDATE job SET cancel_requested = true WHERE state = 'running'");
    let failed = wait(&system, "cell1", "__import");
    assert_eq!((&failed["status"], &failed["message"]["code"]), (&"import failed".into(), &"PR409-EX-0001".into()));
    assert_eq!(failed["message"]["message"]["value"], "The import was cancelled.");
    assert_eq!(state(&system, "cell1"), now);
    eventually("nothing of it is left", || strays(&system) == "0 rows, 0 files");
    // A failed import is no gate: the cell works, and the next success ends the report.
    assert_eq!(post(&system, "cell1", "__import", "before").status, 202);
    assert_eq!(wait(&system, "cell1", "__import")["status"], "ready");
}

#[test]
fn a_worker_that_is_asked_to_end_gives_the_import_back() {
    let mut system = System::start();
    let (_, before) = two_states(&mut system, "8000");
    let mut first = system.worker();
    assert_eq!(post(&system, "cell1", "__import", "before").status, 202);
    eventually("it runs", || system.value("SELECT state FROM job WHERE kind = 'import'") == "running");
    first.signal("TERM");
    first.wait(Duration::from_secs(20));
    let _second = system.worker();
    assert_eq!(wait(&system, "cell1", "__import")["status"], "ready");
    assert_eq!(state(&system, "cell1"), before);
    let said = system.value("SELECT strikes || ' ' || state FROM job WHERE kind = 'import'");
    assert!(said == "0 succeeded", "{said}");
}

/// An attempt that lost its job without knowing adds nothing to what is being removed.
#[test]
fn a_frozen_import_that_wakes_up_leaves_nothing_behind() {
    let mut system = System::start();
    let (_, before) = two_states(&mut system, "8000");
    let zombie = system.worker();
    assert_eq!(post(&system, "cell1", "__import", "before").status, 202);
    eventually("it writes", || {
        system.value("SELECT count(*) > 1000 FROM document WHERE generation IN (SELECT id FROM generation)") == "true"
    });
    zombie.signal("STOP");
    let _heir = system.worker();
    assert_eq!(wait(&system, "cell1", "__import")["status"], "ready");
    eventually("the heir removed what it found", || strays(&system).starts_with("0 rows"));
    zombie.signal("CONT");
    eventually("the zombie gives up", || {
        zombie.log().contains("taken over") || zombie.log().contains("another attempt")
    });
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(strays(&system).split(',').next(), Some("0 rows"));
    assert_eq!(state(&system, "cell1"), before);
}

#[test]
fn a_faulty_snapshot_changes_nothing_and_names_its_fault() {
    let mut system = System::start();
    let (now, _) = two_states(&mut system, "100");
    let whole = system.download("cell1", "before.zip");
    let faulty = system.directory().join("faulty.zip");
    let broken = |text: String| text.replacen("\"Name\":", "\"Nome\":", 1);
    rewrite(&whole, &faulty, |name| name != "99_integrity.json", &[("10_odata/20_role.pjson", &broken)]);
    upload(&system, "cell1", "faulty", &faulty);
    let _worker = system.worker();
    assert_eq!(post(&system, "cell1", "__import", "faulty").status, 202);
    let failed = wait(&system, "cell1", "__import");
    assert_eq!(failed["status"], "import failed");
    assert!(failed["progress"].as_str().unwrap().ends_with('%'), "{failed}");
    assert_eq!(failed["importation_name"], "faulty");
    assert_eq!(failed["message"]["code"], "PR400-EX-0001");
    let words = failed["message"]["message"]["value"].as_str().unwrap();
    assert!(words.contains("10_odata/20_role.pjson:1: _source.s.Name is missing"), "{words}");
    assert_eq!(state(&system, "cell1"), now);
    assert_eq!(system.value("SELECT attempt FROM job WHERE kind = 'import'"), "1", "trying again cannot help");
    // The same with its integrity entry: it names the entry that was changed, whatever was changed in it.
    let changed = |text: String| text.replacen("\"Name\":\"", "\"Name\":\"x", 1);
    rewrite(&whole, &faulty, |_| true, &[("10_odata/20_role.pjson", &changed)]);
    upload(&system, "cell1", "changed", &faulty);
    assert_eq!(post(&system, "cell1", "__import", "changed").status, 202);
    let failed = wait(&system, "cell1", "__import");
    let words = failed["message"]["message"]["value"].as_str().unwrap();
    assert!(words.contains("10_odata/20_role.pjson: is not what 99_integrity.json says"), "{words}");
    assert_eq!(state(&system, "cell1"), now);
    eventually("nothing of it is left", || strays(&system) == "0 rows, 0 files");
}

type Edit<'e> = (&'e str, &'e dyn Fn(String) -> String);

/// Copies a snapshot with other texts in some entries.
fn rewrite(from: &Path, to: &Path, keep: impl Fn(&str) -> bool, edits: &[Edit<'_>]) {
    use std::io::{Read, Write};
    let mut old = zip::ZipArchive::new(std::fs::File::open(from).unwrap()).unwrap();
    let mut new = zip::ZipWriter::new(std::fs::File::create(to).unwrap());
    for index in 0..old.len() {
        let name = old.by_index(index).unwrap().name().unwrap().into_owned();
        if !keep(&name) {
            continue;
        }
        match edits.iter().find(|(of, _)| *of == name) {
            None => new.raw_copy_file(old.by_index_raw(index).unwrap()).unwrap(),
            Some((_, edit)) => {
                let mut text = String::new();
                old.by_index(index).unwrap().read_to_string(&mut text).unwrap();
                let edited = edit(text.clone());
                assert_ne!(edited, text);
                new.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
                new.write_all(edited.as_bytes()).unwrap();
            }
        }
    }
    new.finish().unwrap();
}

#[test]
fn a_dry_run_tells_what_would_change_and_changes_nothing() {
    let mut system = System::start();
    let (now, _) = two_states(&mut system, "300");
    system.execute(
        "INSERT INTO document (generation, type, id, body)
         SELECT generation, 'Role', 'extra', '{\"_id\":\"extra\"}' FROM cell WHERE name = 'cell1'",
    );
    system.execute("DELETE FROM node WHERE path = (SELECT max(path) FROM node WHERE blob_id IS NOT NULL)");
    let before = state(&system, "cell1");
    assert_ne!(before, now);
    let _worker = system.worker();
    assert_eq!(report(&system, "cell1", "__import/dry-run"), serde_json::json!({"status": "ready"}));
    let accepted = post(&system, "cell1", "__import/dry-run", "before");
    assert_eq!(accepted.status, 202, "{}", accepted.text());
    let found = wait(&system, "cell1", "__import/dry-run");
    assert_eq!(found["status"], "dry run finished");
    let result = &found["result"];
    assert_eq!((&result["importable"], &result["ids"]), (&true.into(), &"kept".into()), "{result}");
    let changes = &result["changes"];
    let of = |kind: &str| changes["documents"][kind].clone();
    let four = |added: u32, replaced: u32, removed: u32, unchanged: u32| serde_json::json!({"added": added, "replaced": replaced, "removed": removed, "unchanged": unchanged});
    let role = of("Role");
    assert_eq!((&role["removed"], &role["added"], &role["replaced"]), (&1.into(), &0.into(), &0.into()), "{role}");
    assert_eq!(of("UserData"), four(0, 300, 0, 0));
    let links = of("link");
    assert!(links["added"].as_i64().unwrap() > 0 && links["removed"] == 0, "{links}");
    assert_eq!(changes["files"]["added"], 1, "{changes}");
    assert_eq!(changes["collections"]["replaced"], 0);
    assert_eq!(result["faults"], serde_json::json!({"count": 0, "listed": []}));
    assert_eq!(state(&system, "cell1"), before, "it changes nothing");
    assert_eq!(report(&system, "cell1", "__import")["status"], "ready", "a dry run is no import");

    // What it says comes true.
    assert_eq!(post(&system, "cell1", "__import", "before").status, 202);
    assert_eq!(wait(&system, "cell1", "__import")["status"], "ready");
    assert_eq!(post(&system, "cell1", "__import/dry-run", "before").status, 202);
    let found = wait(&system, "cell1", "__import/dry-run");
    for (_, kind) in found["result"]["changes"]["documents"].as_object().unwrap() {
        assert_eq!((&kind["added"], &kind["replaced"], &kind["removed"]), (&0.into(), &0.into(), &0.into()), "{found}");
    }
}

#[test]
fn a_dry_run_lists_every_fault() {
    let mut system = System::start();
    let (now, _) = two_states(&mut system, "500");
    let whole = system.download("cell1", "before.zip");
    let faulty = system.directory().join("faulty.zip");
    let first = |text: String| text.replacen("\"Name\":", "\"Nome\":", 1);
    let many = |text: String| text.replace("\"__id\":\"", "\"__no\":\"");
    let twice = |text: String| format!("{text}{text}");
    let edits: [Edit<'_>; 3] =
        [("10_odata/20_role.pjson", &first), ("10_odata/70_userdata.pjson", &many), ("10_odata/10_box.pjson", &twice)];
    rewrite(&whole, &faulty, |name| name != "99_integrity.json", &edits);
    upload(&system, "cell1", "faulty", &faulty);
    let _worker = system.worker();
    assert_eq!(post(&system, "cell1", "__import/dry-run", "faulty").status, 202);
    let found = wait(&system, "cell1", "__import/dry-run");
    let result = &found["result"];
    assert_eq!(result["importable"], false);
    let boxes = system.value("SELECT count(*) FROM document JOIN cell USING (generation) WHERE type = 'Box'");
    assert_eq!(result["faults"]["count"], 501 + boxes.parse::<i64>().unwrap(), "{}", result["faults"]["count"]);
    let listed: Vec<&str> =
        result["faults"]["listed"].as_array().unwrap().iter().map(|f| f.as_str().unwrap()).collect();
    assert_eq!(listed.len(), 200, "the first ones");
    assert_eq!(listed[0], "10_odata/20_role.pjson:1: _source.s.Name is missing");
    assert_eq!(listed[1], "10_odata/70_userdata.pjson:1: _source.s.__id is missing");
    assert_eq!(state(&system, "cell1"), now);
}

#[test]
fn imports_go_on_while_the_broker_is_away() {
    let mut system = System::start_with(Options { broker_proxy: true, ..Options::default() });
    let (_, before) = two_states(&mut system, "200");
    let _worker = system.worker();
    if let Some(proxy) = &system.broker_proxy {
        proxy.down();
    }
    assert_eq!(post(&system, "cell1", "__import", "before").status, 202);
    assert_eq!(wait(&system, "cell1", "__import")["status"], "ready");
    assert_eq!(state(&system, "cell1"), before);
}

#[test]
fn old_snapshots_go_when_the_operator_says_so() {
    let mut system = System::start();
    system.make_cell("cell1");
    for name in ["a", "b", "c"] {
        assert_eq!(system.put("cell1", &format!("{name}.zip"), &[], name.as_bytes()).status, 201);
        system.execute(&format!(
            "UPDATE snapshot_entry SET modified_at = now() - interval '{} days' WHERE base_name = '{name}'",
            if name == "a" { 40 } else { 1 }
        ));
    }
    {
        let _worker = system.worker();
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(system.files("cell1"), ["a.zip", "b.zip", "c.zip"], "never without a setting");
    }
    {
        let _worker = system.worker_with(&[("SNAPSHOT_KEEP_DAYS", "30")]);
        eventually("the old one goes", || system.files("cell1") == ["b.zip", "c.zip"]);
    }
    let _worker = system.worker_with(&[("SNAPSHOT_KEEP_COUNT", "1")]);
    eventually("the surplus goes", || system.files("cell1") == ["c.zip"]);
}
