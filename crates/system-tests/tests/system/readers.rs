//! Other people's zip readers open what we write, names in any script included.

use system_tests::judge::{program, skipped};
use system_tests::system::System;

#[test]
fn unzip_python_7z_and_java_read_a_snapshot() {
    let mut system = System::start();
    let _worker = system.worker();
    system.sample_cell("sample", &[]);
    let snapshot = system.export("sample", "one").display().to_string();

    let python = "import sys, zipfile; z = zipfile.ZipFile(sys.argv[1]); assert z.testzip() is None; \
                  assert all(i.flag_bits & 0x800 for i in z.infolist()); \
                  sys.stdout.reconfigure(encoding='utf-8'); print('\\n'.join(z.namelist()))";
    let readers: [(&str, &[&str]); 6] = [
        ("unzip", &["-tq", &snapshot]),
        ("unzip", &["-Z1", &snapshot]),
        ("python3", &["-c", python, &snapshot]),
        ("7z", &["t", &snapshot]),
        ("7z", &["l", "-slt", &snapshot]),
        (
            "jar",
            &["-J-Dfile.encoding=UTF-8", "-J-Dsun.jnu.encoding=UTF-8", "-J-Dstdout.encoding=UTF-8", "tf", &snapshot],
        ),
    ];
    for (name, arguments) in readers {
        let Some((ok, output)) = program(name, arguments) else {
            skipped(&format!("{name} is not installed"));
            continue;
        };
        assert!(ok, "{name}: {output}");
        let lists = !matches!(arguments[0], "-tq" | "t");
        assert!(!lists || output.contains("写真"), "{name}: {output}");
    }
}
