//! Migrations leave what older programs use: the services of two versions run side by side during an upgrade, and the
//! older ones again after going back (docs/operations.md, "Upgrading").

use model::store::MIGRATOR;

/// The last migration from before the rule.
const FREE: i64 = 8;
/// A migration that takes something away says since when no program uses it.
const CONTRACT: &str = "-- contract: since ";

/// The statements of a migration as lists of words in capitals, without comments and texts. What stands between `$$` is
/// code, and counts.
fn statements(sql: &str) -> Vec<Vec<String>> {
    let mut text = String::new();
    for line in sql.lines() {
        text.push_str(line.split("--").next().unwrap_or_default());
        text.push(' ');
    }
    // Every second piece between apostrophes is a text.
    let code: Vec<&str> = text.split('\'').step_by(2).collect();
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ',';
    code.join(" _ ")
        .split(';')
        .map(|statement| {
            let spaced = statement.replace(',', " , ");
            spaced.split(|c| !is_word(c)).filter(|w| !w.is_empty()).map(str::to_uppercase).collect()
        })
        .filter(|words: &Vec<String>| !words.is_empty())
        .collect()
}

/// What a statement takes away from older programs, if anything.
fn taken_away(words: &[String]) -> Option<String> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let has = |sequence: &[&str]| words.windows(sequence.len()).any(|window| window == sequence);
    for sequence in [
        &["RENAME"][..],
        &["SET", "NOT", "NULL"],
        &["SET", "DATA", "TYPE"],
        &["ADD", "VALUE"],
        &["REVOKE"],
        &["TRUNCATE"],
        &["DELETE", "FROM"],
    ] {
        if has(sequence) {
            return Some(sequence.join(" "));
        }
    }
    // Fewer indexes, rules and requirements hurt nobody.
    let harmless = ["INDEX", "CONSTRAINT", "NOT"];
    if let Some(dropped) = words.windows(2).find(|w| w[0] == "DROP" && !harmless.contains(&w[1])) {
        return Some(dropped.join(" "));
    }
    if words.windows(4).any(|w| w[..2] == ["ALTER", "COLUMN"] && w[3] == "TYPE") {
        return Some("ALTER COLUMN … TYPE".to_owned());
    }
    let columns = words.split(|word| *word == ",");
    let mut added = columns.filter(|clause| clause.windows(2).any(|w| w == ["ADD", "COLUMN"]));
    let required = |clause: &[&str]| clause.windows(2).any(|w| w == ["NOT", "NULL"]) && !clause.contains(&"DEFAULT");
    added.any(required).then(|| "ADD COLUMN … NOT NULL without DEFAULT".to_owned())
}

#[test]
fn migrations_only_add() {
    for migration in MIGRATOR.iter().filter(|migration| migration.version > FREE) {
        let sql = migration.sql.as_str();
        if sql.lines().any(|line| line.starts_with(CONTRACT)) {
            continue;
        }
        for words in statements(sql) {
            if let Some(what) = taken_away(&words) {
                panic!(
                    "migration {} takes something away from older programs: {what}. When no supported one uses it any more, \
                     say so in a line `{CONTRACT}VERSION`",
                    migration.version
                );
            }
        }
    }
}

#[test]
fn migrations_are_numbered_without_gaps() {
    let versions: Vec<i64> = MIGRATOR.iter().map(|migration| migration.version).collect();
    assert_eq!(versions, (1..=versions.len() as i64).collect::<Vec<_>>());
}

#[test]
fn what_takes_away_is_seen() {
    let taken = |sql: &str| statements(sql).iter().any(|words| taken_away(words).is_some());
    for sql in [
        "ALTER TABLE job DROP COLUMN name;",
        "ALTER TABLE job\n  ADD COLUMN a text NOT NULL, ADD COLUMN b text NOT NULL DEFAULT '';",
        "ALTER TABLE job RENAME COLUMN name TO title;",
        "ALTER TABLE job ALTER COLUMN name TYPE varchar(10);",
        "ALTER TABLE job ALTER name SET DATA TYPE varchar(10)",
        "ALTER TABLE job ALTER COLUMN owner SET NOT NULL;",
        "ALTER TABLE job ALTER COLUMN owner DROP DEFAULT;",
        "drop function directory_root(text);",
        "ALTER TYPE job_state ADD VALUE 'paused';",
        "REVOKE INSERT ON job FROM cellexport_api;",
        "DO $$ BEGIN DROP TABLE job; END $$;",
        "SELECT 'a''b'; DROP TABLE job;",
    ] {
        assert!(taken(sql), "{sql}");
    }
    for sql in [
        "ALTER TABLE job ADD COLUMN a text NOT NULL DEFAULT '', ADD COLUMN b numeric(3, 2) CHECK (b IS NOT NULL);",
        "-- DROP TABLE job;\nCREATE TABLE host (name text NOT NULL);",
        "COMMENT ON TABLE job IS 'never DROP TABLE it';",
        "DROP INDEX job_turns;",
        "ALTER TABLE job DROP CONSTRAINT job_name_check, ALTER COLUMN owner DROP NOT NULL;",
        "GRANT SELECT ON job TO cellexport_api;",
        "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS $$ SELECT 1 $$;",
    ] {
        assert!(!taken(sql), "{sql}");
    }
}
