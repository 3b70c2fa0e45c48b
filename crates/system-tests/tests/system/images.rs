//! What the images hold: gathered by the script that the Dockerfile runs, and run as in a container.

use std::path::Path;
use std::process::{Command, Output};

use system_tests::judge::skipped;
use system_tests::{manifests, process};

/// Gathers an image's root, from a debug build without its symbols.
fn image_root(directory: &Path, programs: &[&str]) {
    let mut gather = Command::new(manifests::path("deploy/image-root"));
    gather.arg(directory).env("SOURCE_DATE_EPOCH", "86400");
    for program in programs {
        let stripped = directory.with_extension(program);
        let strip = Command::new("strip").arg("-o").arg(&stripped).arg(process::binary(program)).status().unwrap();
        assert!(strip.success());
        let place = directory.with_extension("programs").join(program);
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::rename(&stripped, &place).unwrap();
        gather.arg(place);
    }
    let output = gather.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Runs a program with that root, as the images' user, without any capability.
fn inside(root: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new("chroot");
    command.arg("--userspec=10001:10001").arg(root).args(arguments).env_clear();
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").output().unwrap()
}

#[test]
fn programs_find_all_they_need_in_their_images() {
    if !rustix::process::geteuid().is_root() || !Path::new("/usr/bin/dpkg-query").exists() {
        return skipped("the roots of images can be entered by root only, and gathered on Debian");
    }
    let directory = tempfile::tempdir().unwrap();
    for (image, programs) in [("api", &["api"][..]), ("worker", &["exporter-worker", "cellexport"])] {
        let root = directory.path().join(image);
        image_root(&root, programs);
        for program in programs {
            let output = inside(&root, &[&format!("/usr/local/bin/{program}"), "--version"]);
            let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && said.contains("0.1.0"), "{program}: {said}");
        }
        assert!(!root.join("bin/sh").exists() && !root.join("usr/bin").exists(), "there is no shell");
        // Scanners know the libraries, and their authors are named.
        let record = std::fs::read_to_string(root.join("var/lib/dpkg/status.d/libc6")).unwrap();
        assert!(record.contains("\nVersion: "), "{record}");
        assert!(root.join("usr/share/doc/libc6/copyright").exists());
        assert_eq!(root.join("var/lib/dpkg/status.d/libisal2").exists(), image == "worker");
        let made = std::fs::metadata(root.join("usr/local/bin").join(programs[0])).unwrap().modified().unwrap();
        assert_eq!(made.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs(), 86_400);
    }
}
