//! What a unit gives its users: tokens under its secret, and passwords.

use crate::process;
use crate::secrets::remember_secret;
use crate::system::Options;

/// The secret of the unit that the contract's test vectors are of.
pub const SECRET: &str = "secret167pm5m4y6";

/// That unit, `https://unit1.example/`, with settings of the test's own.
pub fn unit(path_based: bool, more: &[(&'static str, &str)]) -> Options {
    let path_based = if path_based { "true" } else { "false" };
    let mut settings = vec![
        ("UNIT_SCHEME", "https"),
        ("UNIT_FQDN", "unit1.example"),
        ("UNIT_PORT", ""),
        ("PATH_BASED_CELL_URL", path_based),
        ("UNIT_SECRET16", SECRET),
        ("UNIT_PASSWORD_SALT", "salt-of-unit1-7KqX"),
        ("DIRECTORY_CACHE_SECS", "0.05"),
    ];
    settings.retain(|(name, _)| more.iter().all(|(other, _)| name != other));
    settings.extend(more);
    let settings = settings.into_iter().map(|(name, value)| (name, value.to_owned())).collect();
    Options { settings, ..Options::default() }
}

/// Makes a token on the command line.
pub fn mint(environment: &[(String, String)], cell: &str, account: &str, more: &[&str]) -> String {
    let arguments = [&["token", "mint", "--cell", cell, "--account", account], more].concat();
    let output = process::run("api", &arguments, environment);
    assert!(output.status.success(), "{output:?}");
    let token = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    remember_secret(&token);
    token
}

/// The value of `Authorization` for a name and a password.
pub fn basic(name: &str, password: &str) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let pair = format!("{name}:{password}");
    let four = |three: &[u8]| {
        let byte = |n: usize| usize::from(three.get(n).copied().unwrap_or_default());
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        let digit = move |n: usize| char::from(DIGITS[bits >> (18 - 6 * n) & 63]);
        let length = three.len();
        (0..4).map(move |n| if n <= length { digit(n) } else { '=' }).collect::<String>()
    };
    format!("Basic {}", pair.as_bytes().chunks(3).map(four).collect::<String>())
}
