//! What each role of the database may do, and what it may not. The rest of the suite shows that it may do enough: there
//! the services log in as members of these roles.

use sqlx::{Connection, Executor, PgConnection, PgPool};

const API: &str = "cellexport_api";
const WORKER: &str = "cellexport_worker";
const READER: &str = "cellexport_reader";

/// Two cells with contents, each with an account.
async fn cells(pool: &PgPool) {
    let made = "
        INSERT INTO cell (id, name, document) VALUES ('a', 'a', '{\"of\":\"a\"}'), ('b', 'b', '{\"of\":\"b\"}');
        INSERT INTO node (generation, path, pmeta) VALUES ('a', '', '{}'), ('b', '', '{}');
        INSERT INTO document (generation, type, id, body)
          SELECT c, 'Account', 'acc', '{\"_source\":{\"s\":{\"Name\":\"me\"}}}' FROM unnest(ARRAY['a', 'b']) c;
        INSERT INTO blob (id, generation, size, sha256)
          SELECT gen_random_uuid(), c, 0, decode(repeat('00', 32), 'hex') FROM unnest(ARRAY['a', 'b']) c";
    pool.execute(made).await.expect("two cells");
}

/// Tries a statement as a role, in a transaction that is taken back: the SQLSTATE of its refusal, if it is refused.
async fn refusal(connection: &mut PgConnection, role: &str, statement: &str) -> Option<String> {
    let mut tx = connection.begin().await.expect("a transaction");
    tx.execute(sqlx::AssertSqlSafe(format!("SET LOCAL ROLE {role}"))).await.expect("a member of every role");
    let outcome = tx.execute(sqlx::AssertSqlSafe(statement.to_owned())).await;
    tx.rollback().await.expect("taken back");
    outcome.err().map(|error| match error.as_database_error().and_then(|e| e.code()) {
        Some(code) => code.into_owned(),
        None => panic!("{statement}: {error}"),
    })
}

/// Tells what the catalogue says.
async fn may(connection: &mut PgConnection, role: &str, table: &str, privilege: &str) -> bool {
    sqlx::query_scalar("SELECT has_table_privilege($1, $2, $3)")
        .bind(role)
        .bind(table)
        .bind(privilege)
        .fetch_one(connection)
        .await
        .expect("an answer")
}

#[sqlx::test(migrator = "model::store::MIGRATOR")]
async fn each_role_may_do_what_it_needs_and_no_more(pool: PgPool) {
    let mut connection = pool.acquire().await.expect("a connection");
    let c = &mut *connection;
    let tables =
        ["cell", "document", "node", "blob", "generation", "job", "snapshot_entry", "host", "_sqlx_migrations"];
    let privileges = ["SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE"];
    for (role, expected) in [
        (
            API,
            [
                "S I . D .",
                ". . . . .",
                ". I . . .",
                ". . . . .",
                "S I U . .",
                "S I U D .",
                "S I U D .",
                "S I U D .",
                "S . . . .",
            ],
        ),
        (
            READER,
            [
                "S . . . .",
                "S . . . .",
                "S . . . .",
                "S . . . .",
                ". . . . .",
                ". . . . .",
                ". . . . .",
                ". . . . .",
                ". . . . .",
            ],
        ),
        (
            WORKER,
            [
                "S I U . .",
                "S I U D T",
                "S I U D T",
                "S I U D T",
                "S I U D .",
                "S . U . .",
                "S . U D .",
                "S I U D .",
                "S . . . .",
            ],
        ),
    ] {
        for (table, expected) in tables.iter().zip(expected) {
            let mut found = Vec::new();
            for privilege in privileges {
                found.push(if may(c, role, table, privilege).await { &privilege[..1] } else { "." });
            }
            assert_eq!(found.join(" "), expected, "{role} and {table}");
        }
    }
}

#[sqlx::test(migrator = "model::store::MIGRATOR")]
async fn no_role_is_more_than_it_seems(pool: PgPool) {
    let strong: Vec<String> = sqlx::query_scalar(
        "SELECT rolname FROM pg_roles
         WHERE rolname IN ('cellexport_api', 'cellexport_worker', 'cellexport_reader', 'cellexport_data')
           AND (rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolcanlogin)",
    )
    .fetch_all(&pool)
    .await
    .expect("readable");
    assert_eq!(strong, [""; 0]);
    let may_create: bool = sqlx::query_scalar(
        "SELECT bool_or(has_schema_privilege(r, current_schema(), 'CREATE'))
         FROM unnest(ARRAY['cellexport_api', 'cellexport_worker', 'cellexport_reader', 'cellexport_data']) r",
    )
    .fetch_one(&pool)
    .await
    .expect("readable");
    assert!(!may_create, "nobody makes tables");
    let callable: Vec<String> = sqlx::query_scalar(
        "SELECT proname::text FROM pg_proc
         WHERE prosecdef AND pronamespace = current_schema()::regnamespace
           AND (has_function_privilege('cellexport_worker', oid, 'EXECUTE') OR proconfig IS NULL)",
    )
    .fetch_all(&pool)
    .await
    .expect("readable");
    assert_eq!(callable, [""; 0], "functions that run as their owner are the api's, and fix their search path");
}

#[sqlx::test(migrator = "model::store::MIGRATOR")]
async fn a_reader_sees_the_cell_that_is_set_whatever_it_asks(pool: PgPool) {
    cells(&pool).await;
    let mut connection = pool.acquire().await.expect("a connection");
    let statements = [
        "SELECT count(*), string_agg(document, '') FROM cell",
        "SELECT count(*), string_agg(generation, '') FROM document",
        "SELECT count(*), string_agg(generation, '') FROM node",
        "SELECT count(*), string_agg(generation, '') FROM blob",
    ];
    for (set, expected) in [(Some("a"), 1), (Some("b"), 1), (Some("nobody"), 0), (None, 0)] {
        let mut tx = connection.begin().await.expect("a transaction");
        tx.execute("SET LOCAL ROLE cellexport_reader").await.expect("a member");
        if let Some(cell) = set {
            for setting in ["cellexport.cell", "cellexport.generation"] {
                let set = sqlx::query("SELECT set_config($1, $2, true)").bind(setting).bind(cell);
                set.execute(&mut *tx).await.expect("set");
            }
        }
        for statement in statements {
            let (count, of): (i64, Option<String>) =
                sqlx::query_as(statement).fetch_one(&mut *tx).await.expect("readable");
            assert_eq!(count, expected, "{statement} with {set:?}");
            assert!(of.is_none_or(|of| set.is_some_and(|cell| of.contains(cell))), "{statement} with {set:?}");
        }
        tx.rollback().await.expect("taken back");
    }
    for statement in [
        "UPDATE document SET body = body",
        "DELETE FROM node",
        "INSERT INTO cell (id, name, document) VALUES ('c', 'c', '{}')",
        "SELECT * FROM job",
        "SELECT * FROM snapshot_entry",
        "SELECT directory_password('a', 'me')",
        "CREATE TABLE more (n int)",
    ] {
        assert_eq!(refusal(&mut connection, READER, statement).await.as_deref(), Some("42501"), "{statement}");
    }
}

#[sqlx::test(migrator = "model::store::MIGRATOR")]
async fn an_export_reads_by_index_under_its_policies(pool: PgPool) {
    let many = "
        INSERT INTO cell (id, name, document) SELECT 'c' || n, 'c' || n, '{}' FROM generate_series(1, 50) n;
        INSERT INTO document (generation, type, id, body)
          SELECT 'c' || n % 50 + 1, 'Role', 'r' || n, '{}' FROM generate_series(1, 20000) n;
        INSERT INTO node (generation, path, pmeta)
          SELECT 'c' || n % 50 + 1, 'p' || n, '{}' FROM generate_series(1, 20000) n;
        ANALYZE document, node";
    pool.execute(many).await.expect("many cells");
    let mut connection = pool.acquire().await.expect("a connection");
    let mut tx = connection.begin().await.expect("a transaction");
    for statement in [
        "SET LOCAL ROLE cellexport_reader",
        "SET LOCAL enable_sort = off",
        "SELECT set_config('cellexport.generation', 'c7', true)",
    ] {
        tx.execute(statement).await.expect("set");
    }
    for (statement, index) in [
        (
            "SELECT type, body FROM document WHERE generation = current_setting('cellexport.generation')
             ORDER BY type, position",
            "document_export_order",
        ),
        (
            "SELECT path FROM node WHERE generation = current_setting('cellexport.generation')
             ORDER BY replace(path, '/', chr(1)) COLLATE \"C\"",
            "node_tree_order",
        ),
    ] {
        let explain = sqlx::AssertSqlSafe(format!("EXPLAIN {statement}"));
        let plan: Vec<String> = sqlx::query_scalar(explain).fetch_all(&mut *tx).await.expect("a plan");
        let plan = plan.join("\n");
        assert!(plan.contains(index) && !plan.contains("Sort") && !plan.contains("Seq Scan"), "{plan}");
    }
}
