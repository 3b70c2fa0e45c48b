//! The cell store keeps targets before users for writers that know nothing of it.

use model::store::MIGRATOR;
use sqlx::PgPool;

async fn write(pool: &PgPool, statements: &'static str) {
    sqlx::raw_sql(statements).execute(pool).await.expect("the statements run");
}

async fn order(pool: &PgPool) -> String {
    let order = "SELECT string_agg(id, ' ' ORDER BY position) FROM document WHERE type = 'UserData'";
    sqlx::query_scalar(order).fetch_one(pool).await.expect("documents")
}

const DOCUMENTS: &str = r#"
    CREATE FUNCTION body(id text, VARIADIC targets text[] DEFAULT '{}') RETURNS text LANGUAGE sql AS $$
      SELECT json_build_object('_source', json_build_object('ll', (SELECT coalesce(json_agg('t:' || t), '[]') FROM unnest(targets) t)),
                               '_id', id)::text $$;
    CREATE FUNCTION put(id text, VARIADIC targets text[] DEFAULT '{}') RETURNS void LANGUAGE sql AS $$
      INSERT INTO document (generation, type, id, body) VALUES ('c', 'UserData', id, body(id, VARIADIC targets)) $$;
    CREATE FUNCTION change(p_id text, VARIADIC targets text[] DEFAULT '{}') RETURNS void LANGUAGE sql AS $$
      UPDATE document SET body = body(p_id, VARIADIC targets) WHERE id = p_id $$;
"#;

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_new_reference_moves_its_target_forward(pool: PgPool) {
    write(&pool, DOCUMENTS).await;
    write(&pool, "SELECT put('a'); SELECT put('b'); SELECT put('c'); SELECT put('d', 'c')").await;
    assert_eq!(order(&pool).await, "a b c d");
    write(&pool, "SELECT change('a', 'd')").await;
    assert_eq!(order(&pool).await, "c d a b", "d and what it refers to");
    write(&pool, "SELECT change('b', 'a', 'nowhere')").await;
    assert_eq!(order(&pool).await, "c d a b", "already before it");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn within_one_transaction_any_order_of_writing_will_do(pool: PgPool) {
    write(&pool, DOCUMENTS).await;
    write(&pool, "BEGIN; SELECT put('user', 'target'); SELECT put('target', 'root'); SELECT put('root'); COMMIT").await;
    assert_eq!(order(&pool).await, "root target user");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn circles_end(pool: PgPool) {
    write(&pool, DOCUMENTS).await;
    write(&pool, "SELECT put('a'); SELECT put('b', 'a'); SELECT change('a', 'b'); SELECT change('a', 'a')").await;
    assert_eq!(order(&pool).await.len(), 3);
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn every_table_column_and_index_says_what_it_is_for(pool: PgPool) {
    let silent: Vec<String> = sqlx::query_scalar(
        "SELECT c.relname || coalesce('.' || a.attname, '')
         FROM pg_class c
         LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND c.relkind = 'r'
         WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND c.relname <> '_sqlx_migrations'
           AND (col_description(c.oid, a.attnum) IS NULL OR obj_description(c.oid) IS NULL)
         UNION ALL
         SELECT i.relname FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class t ON t.oid = x.indrelid
         LEFT JOIN pg_constraint k ON k.conindid = i.oid AND k.conrelid = t.oid
         WHERE t.relnamespace = 'public'::regnamespace AND t.relname <> '_sqlx_migrations'
           AND coalesce(obj_description(i.oid), obj_description(k.oid)) IS NULL",
    )
    .fetch_all(&pool)
    .await
    .expect("the catalogue");
    assert_eq!(silent, Vec::<String>::new());
}
