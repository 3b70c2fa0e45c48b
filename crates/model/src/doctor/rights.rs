//! What the user of a service may do with the database: what it needs, and no more.
//!
//! `migrations/0006_roles.sql` grants it; `crates/model/tests/privileges.rs` tests the roles, this the user that a service
//! really logs in as.

use sqlx::{Connection, Executor, PgConnection};

use super::Finding;

/// Which service is examined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// The api.
    Api,
    /// The worker.
    Worker,
}

/// In the order of the letters in [`Service::tables`].
const PRIVILEGES: [&str; 5] = ["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE"];

impl Service {
    /// The role that its user is a member of.
    pub fn role(self) -> &'static str {
        match self {
            Self::Api => "cellexport_api",
            Self::Worker => "cellexport_worker",
        }
    }

    /// What it may do with each table, by the first letters of the privileges.
    fn tables(self) -> [(&'static str, &'static str); 8] {
        match self {
            Self::Api => [
                ("cell", "SID"),
                ("document", ""),
                ("node", "I"),
                ("blob", ""),
                ("generation", "SIU"),
                ("job", "SIUD"),
                ("snapshot_entry", "SIUD"),
                ("_sqlx_migrations", "S"),
            ],
            Self::Worker => [
                ("cell", "SIU"),
                ("document", "SIUDT"),
                ("node", "SIUDT"),
                ("blob", "SIUDT"),
                ("generation", "SIUD"),
                ("job", "SU"),
                ("snapshot_entry", "SUD"),
                ("_sqlx_migrations", "S"),
            ],
        }
    }
}

/// Who the service is for the database.
pub(super) async fn role(connection: &mut PgConnection, service: Service) -> Result<Finding, sqlx::Error> {
    let role = service.role();
    let user = sqlx::query!(
        r#"
        SELECT rolname::text AS "name!", rolsuper AS "superuser!", rolbypassrls AS "bypasses!",
               rolcreaterole OR rolcreatedb AS "creates!",
               coalesce((SELECT pg_has_role(group_role.oid, 'USAGE') FROM pg_roles group_role WHERE rolname = $1), false)
                 AS "member!",
               coalesce(pg_has_role((SELECT relowner FROM pg_class WHERE oid = to_regclass('job')), 'USAGE'), false)
                 AS "owner!"
        FROM pg_roles WHERE rolname = current_user
        "#,
        role
    )
    .fetch_one(connection)
    .await?;
    let name = &user.name;
    let own =
        format!("give the service a user of its own that is a member of {role}: deploy/postgres/users.sh shows how");
    Ok(if user.superuser {
        Finding::fault(format!("{name} is a superuser: who takes over the service owns the server"), own)
    } else if user.bypasses {
        let advice = format!("as a superuser: ALTER ROLE \"{name}\" NOBYPASSRLS");
        Finding::fault(format!("{name} passes by row-level security"), advice)
    } else if user.owner {
        Finding::warning(format!("{name} owns the schema: nothing keeps a fault of the service from it"), own)
    } else if !user.member {
        let advice = format!("as the owner of the database: GRANT {role} TO \"{name}\"");
        Finding::fault(format!("{name} is no member of {role}"), advice)
    } else if user.creates {
        let advice = format!("as a superuser: ALTER ROLE \"{name}\" NOCREATEROLE NOCREATEDB");
        Finding::warning(format!("{name} may make roles or databases"), advice)
    } else {
        Finding::ok(format!("{name}, a member of {role}"))
    })
}

/// Compares what the user may do with what the service needs.
pub(super) async fn rights(connection: &mut PgConnection, service: Service) -> Result<Finding, sqlx::Error> {
    let tables = service.tables();
    let names = tables.map(|(table, _)| table.to_owned());
    let held = sqlx::query!(
        r#"
        SELECT t.name AS "table!", p.name AS "privilege!",
               coalesce(has_table_privilege(to_regclass(t.name), p.name), false) AS "held!"
        FROM unnest($1::text[]) WITH ORDINALITY t (name, place), unnest($2::text[]) WITH ORDINALITY p (name, place)
        ORDER BY t.place, p.place
        "#,
        &names[..],
        &PRIVILEGES.map(str::to_owned)[..]
    )
    .fetch_all(&mut *connection)
    .await?;
    let is_needed = |table: &str, privilege: &str| {
        tables.iter().any(|(name, letters)| *name == table && letters.contains(&privilege[..1]))
    };
    let mut missing: Vec<String> = held
        .iter()
        .filter(|right| !right.held && is_needed(&right.table, &right.privilege))
        .map(|right| format!("{} ON {}", right.privilege, right.table))
        .collect();
    let mut more: Vec<String> = held
        .iter()
        .filter(|right| right.held && !is_needed(&right.table, &right.privilege))
        .map(|right| format!("{} ON {}", right.privilege, right.table))
        .collect();
    let others = sqlx::query!(
        r#"
        SELECT has_column_privilege('cell', 'created_at', 'UPDATE') AS "locks_cells!",
               has_schema_privilege(current_schema(), 'CREATE') AS "creates!",
               coalesce((SELECT pg_has_role(oid, 'MEMBER') FROM pg_roles WHERE rolname = 'cellexport_reader'), false)
                 AS "reads!",
               has_sequence_privilege('document_position', 'USAGE') AS "places!",
               ARRAY(SELECT proname::text FROM pg_proc
                     WHERE prosecdef AND pronamespace = current_schema()::regnamespace AND proname LIKE 'directory!_%' ESCAPE '!'
                       AND NOT has_function_privilege(oid, 'EXECUTE')
                     ORDER BY proname) AS "uncallable!",
               coalesce(pg_has_role((SELECT relowner FROM pg_class WHERE oid = to_regclass('job')), 'USAGE'), false)
                 AS "owner!"
        "#
    )
    .fetch_one(connection)
    .await?;
    match service {
        Service::Api => {
            missing.extend((!others.locks_cells).then(|| "UPDATE (created_at) ON cell".to_owned()));
            missing.extend(others.uncallable.iter().map(|name| format!("EXECUTE ON FUNCTION {name}")));
        }
        Service::Worker => {
            missing.extend((!others.places).then(|| "USAGE ON SEQUENCE document_position".to_owned()));
            missing.extend((!others.reads).then(|| "cellexport_reader".to_owned()));
        }
    }
    more.extend(others.creates.then(|| "CREATE ON the schema".to_owned()));
    let role = service.role();
    Ok(match (missing.is_empty(), more.is_empty() || others.owner) {
        (false, _) => Finding::fault(
            format!("may not: {}", missing.join(", ")),
            format!("as the owner of the database: GRANT {} TO {role}", missing[0]),
        ),
        (true, false) => Finding::warning(
            format!("may do more than it needs: {}", more.join(", ")),
            "as the owner of the database: REVOKE it; migrations/0006_roles.sql has what is needed",
        ),
        (true, true) => Finding::ok("what the service needs, and no more"),
    })
}

/// Tables whose rows are kept from readers, and the policies that say which are not.
const POLICIES: [(&str, &str); 6] = [
    ("cell", "reader_cell"),
    ("document", "reader_documents"),
    ("node", "reader_nodes"),
    ("blob", "reader_blobs"),
    ("cell", "services_cell"),
    ("node", "api_new_root"),
];

/// Looks whether exports read under row-level security.
pub(super) async fn row_level_security(connection: &mut PgConnection) -> Result<Finding, sqlx::Error> {
    let (tables, policies): (Vec<String>, Vec<String>) =
        POLICIES.iter().map(|(table, policy)| ((*table).to_owned(), (*policy).to_owned())).unzip();
    let found = sqlx::query!(
        r#"
        SELECT t.name AS "table!", t.policy AS "policy!",
               coalesce((SELECT relrowsecurity FROM pg_class WHERE oid = to_regclass(t.name)), false) AS "enabled!",
               EXISTS (SELECT FROM pg_policy WHERE polrelid = to_regclass(t.name) AND polname = t.policy) AS "there!"
        FROM unnest($1::text[], $2::text[]) WITH ORDINALITY t (name, policy, place)
        ORDER BY t.place
        "#,
        &tables[..],
        &policies[..]
    )
    .fetch_all(connection)
    .await?;
    if let Some(off) = found.iter().find(|row| !row.enabled) {
        let advice = format!("as the owner of the table: ALTER TABLE {} ENABLE ROW LEVEL SECURITY", off.table);
        return Ok(Finding::fault(format!("it is off for {}: an export could read other cells", off.table), advice));
    }
    Ok(match found.iter().find(|row| !row.there) {
        Some(gone) => Finding::fault(
            format!("the policy {} of {} is gone", gone.policy, gone.table),
            "make it again as migrations/0006_roles.sql does",
        ),
        None => Finding::ok("in force for cell, document, node, blob"),
    })
}

/// Tries it: whoever has set no cell sees none.
pub(super) async fn reading(connection: &mut PgConnection) -> Result<Finding, sqlx::Error> {
    let mut tx = connection.begin().await?;
    tx.execute("SET LOCAL ROLE cellexport_reader").await?;
    let seen = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM cell) OR EXISTS (SELECT FROM document) OR EXISTS (SELECT FROM node)
                  OR EXISTS (SELECT FROM blob) AS "seen!""#
    )
    .fetch_one(&mut *tx)
    .await?;
    tx.rollback().await?;
    Ok(match seen {
        true => Finding::fault(
            "cellexport_reader sees rows of cells that it has not set",
            "compare the policies with migrations/0006_roles.sql: SELECT * FROM pg_policies",
        ),
        false => Finding::ok("an export becomes cellexport_reader, and sees no cell but its own"),
    })
}

/// Triggers, with the statement that makes each again.
const TRIGGERS: [(&str, &str, &str); 4] = [
    ("job", "job_guard", "CREATE TRIGGER job_guard BEFORE UPDATE ON job FOR EACH ROW EXECUTE FUNCTION job_guard()"),
    ("job", "job_changed", "make it again as migrations/0008_job_resources.sql does"),
    ("cell", "cell_first_generation", "make it again as migrations/0003_imports.sql does"),
    ("document", "document_keep_order", "make it again as migrations/0001_cell_store.sql does"),
];

/// Looks whether the triggers are there and fire.
pub(super) async fn triggers(connection: &mut PgConnection) -> Result<Finding, sqlx::Error> {
    let found = sqlx::query!(
        r#"
        SELECT tgname::text AS "name!", tgenabled::text IN ('O', 'A') AS "enabled!"
        FROM pg_trigger
        WHERE NOT tgisinternal AND tgrelid IN (to_regclass('job'), to_regclass('cell'), to_regclass('document'))
        "#
    )
    .fetch_all(connection)
    .await?;
    for (table, trigger, again) in TRIGGERS {
        match found.iter().find(|row| row.name == trigger) {
            None => {
                let advice = format!("as the owner of {table}: {again}");
                return Ok(Finding::fault(format!("{trigger} of {table} is gone"), advice));
            }
            Some(row) if !row.enabled => {
                let advice = format!("as the owner of {table}: ALTER TABLE {table} ENABLE TRIGGER {trigger}");
                return Ok(Finding::fault(format!("{trigger} of {table} is switched off"), advice));
            }
            Some(_) => {}
        }
    }
    Ok(Finding::ok(TRIGGERS.map(|(_, trigger, _)| trigger).join(", ")))
}
