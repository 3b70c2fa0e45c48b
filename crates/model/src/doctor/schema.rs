//! Which schema the database has, compared with the one this program was made for.

use std::collections::BTreeMap;

use sqlx::PgConnection;

use super::Finding;
use crate::store::MIGRATOR;

/// Compares the migrations that were applied with those of this program.
pub(super) async fn version(connection: &mut PgConnection) -> Result<Finding, sqlx::Error> {
    // The table belongs to the migrator, not to the migrations: there is none when queries are checked.
    let applied =
        sqlx::query_as("SELECT version, checksum FROM _sqlx_migrations WHERE success").fetch_all(connection).await;
    let applied: Vec<(i64, Vec<u8>)> = match applied {
        Ok(applied) => applied,
        Err(error) => {
            return match error.as_database_error().and_then(|e| e.code()).as_deref() {
                Some("42P01") => Ok(Finding::fault("this database has no schema", MIGRATE)),
                // Migration 9 lets the services read it.
                Some("42501") => Ok(Finding::fault("the database is older than this program: 8 or less", MIGRATE)),
                _ => Err(error),
            };
        }
    };
    Ok(compare(&applied.into_iter().collect()))
}

const MIGRATE: &str = "run `api migrate` as the owner of the database, then start the services";

fn compare(applied: &BTreeMap<i64, Vec<u8>>) -> Finding {
    let known = || MIGRATOR.iter().filter(|migration| !migration.migration_type.is_down_migration());
    let missing: Vec<String> =
        known().filter(|m| !applied.contains_key(&m.version)).map(|m| m.version.to_string()).collect();
    if !missing.is_empty() {
        let seen = format!("the database is older than this program: migration {} is missing", missing.join(", "));
        return Finding::fault(seen, MIGRATE);
    }
    if let Some(other) = known().find(|m| applied.get(&m.version).is_some_and(|sum| sum[..] != *m.checksum)) {
        return Finding::fault(
            format!("migration {} is not the one of this program", other.version),
            "use the programs of the release that the database was migrated with; restore a backup if that is none",
        );
    }
    let newest = known().map(|m| m.version).max().unwrap_or_default();
    match applied.keys().filter(|version| **version > newest).count() {
        0 => Finding::ok(format!("{newest}, all {} migrations", applied.len())),
        more => Finding::warning(
            format!("{more} migrations newer than this program, which knows {newest}"),
            "fine in the middle of an upgrade, and after going back; in the end upgrade this program",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_are_older_equal_newer_or_another() {
        let all: BTreeMap<i64, Vec<u8>> = MIGRATOR.iter().map(|m| (m.version, m.checksum.to_vec())).collect();
        let with = |version, sum: &[u8]| {
            let mut applied = all.clone();
            applied.insert(version, sum.to_vec());
            compare(&applied).verdict
        };
        use crate::doctor::Verdict;
        assert_eq!(compare(&all).verdict, Verdict::Ok);
        assert_eq!(with(9_999, b"x"), Verdict::Warning);
        assert_eq!(with(3, b"x"), Verdict::Fault);
        let mut older = all.clone();
        older.pop_last();
        assert_eq!(compare(&older).verdict, Verdict::Fault);
    }
}
