//! The mutations of `deploy/mutations` still fit the code that they break, and name tests that exist.
//!
//! That the tests notice them takes minutes and is shown by the script.

use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn patches() -> Vec<PathBuf> {
    let files = std::fs::read_dir(root().join("deploy/mutations.d")).expect("the mutations");
    let mut patches: Vec<PathBuf> = files.map(|f| f.expect("a file").path().canonicalize().expect("a path")).collect();
    patches.sort();
    patches
}

#[test]
fn every_mutation_still_applies() {
    if Command::new("patch").arg("--version").output().is_err() {
        println!("skipped: patch is not installed");
        return;
    }
    for patch in patches() {
        let tried = Command::new("patch")
            .args(["--dry-run", "--force", "--silent", "--strip=1", "--fuzz=0", "--input"])
            .arg(&patch)
            .current_dir(root())
            .output()
            .expect("patch runs");
        assert!(tried.status.success(), "{}: {}", patch.display(), String::from_utf8_lossy(&tried.stdout));
    }
}

#[test]
fn every_mutation_names_a_test() {
    let crates: Vec<PathBuf> =
        std::fs::read_dir(root().join("crates")).expect("the crates").map(|c| c.expect("a crate").path()).collect();
    let patches = patches();
    assert!(patches.len() >= 8);
    for patch in patches {
        let text = std::fs::read_to_string(&patch).expect("a patch");
        let named = text.lines().find_map(|line| line.strip_prefix("Caught by: ")?.split_once(' '));
        let (target, test) = named.unwrap_or_else(|| panic!("{} names no test", patch.display()));
        let source = |c: &PathBuf| std::fs::read_to_string(c.join(format!("tests/{target}.rs"))).ok();
        let found = crates.iter().filter_map(source).any(|source| source.contains(&format!("fn {test}(")));
        assert!(found, "{}: there is no {target} {test}", patch.display());
    }
}
