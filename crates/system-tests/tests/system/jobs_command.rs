//! `api jobs`: what operators see of the jobs of all cells, and how they end one.

use system_tests::process;
use system_tests::system::System;

fn jobs(system: &System, arguments: &[&str]) -> (bool, String) {
    let output = process::run("api", &[&["jobs"], arguments].concat(), &system.service_environment("API_"));
    let text = if output.status.success() { output.stdout } else { output.stderr };
    (output.status.success(), String::from_utf8_lossy(&text).trim_end().to_owned())
}

#[test]
fn jobs_of_all_cells_are_listed_and_cancelled() {
    let mut system = System::start();
    for cell in ["cell1", "cell2"] {
        system.make_cell(cell);
    }
    assert_eq!(jobs(&system, &["list"]).1.lines().count(), 1, "only the head");
    for cell in ["cell1", "cell2"] {
        assert_eq!(system.post_export(cell, "one").status, 202);
    }
    let (listed, text) = jobs(&system, &["list"]);
    assert!(listed, "{text}");
    let lines: Vec<Vec<&str>> = text.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines.len(), 2, "{text}");
    let mut cells: Vec<&str> = lines.iter().map(|line| line[line.len() - 2]).collect();
    cells.sort_unstable();
    assert_eq!(cells, ["cell1", "cell2"]);
    assert!(lines.iter().all(|line| line[1..3] == ["queued", "export"] && line.ends_with(&["one"])), "{text}");

    // One that waits ends at once, whosever it is; one that has ended cannot end again.
    let id = lines[0][0];
    assert_eq!(jobs(&system, &["cancel", id]), (true, "cancelled".to_owned()));
    assert_eq!(jobs(&system, &["cancel", id]), (false, "api: the job has ended: cancelled".to_owned()));
    let cell = lines[0][lines[0].len() - 2];
    assert_eq!(system.files(cell), ["one.error"]);
    let nobody = uuid::Uuid::new_v4().to_string();
    assert_eq!(jobs(&system, &["cancel", &nobody]), (false, "api: there is no such job".to_owned()));

    // One whose worker was lost ends with its lease.
    system.execute(
        "UPDATE job SET state = 'running', attempt = attempt + 1, lease_owner = 'x', attempt_at = clock_timestamp(),
                        lease_until = clock_timestamp() + interval '3 seconds' WHERE state = 'queued'",
    );
    let (_, text) = jobs(&system, &["list"]);
    assert!(text.contains("running     export"), "{text}");
    let (told, said) = jobs(&system, &["cancel", lines[1][0]]);
    assert!(told && said.starts_with("its worker was told"), "{said}");
    assert!(jobs(&system, &["list"]).1.contains("cancelling"));
    system.eventually("it ends", || jobs(&system, &["list"]).1.lines().count() == 1);
    assert_eq!(system.value("SELECT count(*) FROM job WHERE state = 'cancelled'"), "2");
    drop(system.take_api());
}
