//! What the directory tells of a cell, against a real PostgreSQL.
//!
//! Bugs that these tests exist for: an account gets the rights of another one, of another cell or of earlier contents; one
//! odd document makes the rest unreadable; a request reads a whole cell.

use model::cell::{CellId, CellName};
use model::limits;
use model::store::MIGRATOR;
use model::store::cells::{self, NewCell};
use model::store::directory::{self, Account, Password, Role};
use secrecy::ExposeSecret;
use sqlx::{PgConnection, PgPool};

fn cell(id: &str) -> CellId {
    CellId::parse(id).expect("a legal id")
}

/// Makes a cell; its contents are named like the cell.
async fn make_cell(connection: &mut PgConnection, id: &str) {
    let new = NewCell {
        id: cell(id),
        name: CellName::parse_new(id).expect("a legal name"),
        document: "{}".to_owned(),
        root_pmeta: format!(r#"{{"i":"{id}"}}"#),
    };
    assert!(cells::create(connection, &new).await.expect("works"));
}

/// Stores a document with any body.
async fn store(connection: &mut PgConnection, generation: &str, kind: &str, id: &str, body: &str) {
    sqlx::query("INSERT INTO document (generation, type, id, body) VALUES ($1, $2::document_type, $3, $4)")
        .bind(generation)
        .bind(kind)
        .bind(id)
        .bind(body)
        .execute(connection)
        .await
        .expect("stored, whatever it says");
}

/// Stores a document of the cell `one`.
async fn put(connection: &mut PgConnection, kind: &str, id: &str, source: &str) {
    store(connection, "one", kind, id, &format!(r#"{{"_type":"{kind}","_source":{source},"_id":"{id}"}}"#)).await;
}

async fn put_account(connection: &mut PgConnection, id: &str, name: &str) {
    put(connection, "Account", id, &format!(r#"{{"s":{{"Name":"{name}"}}}}"#)).await;
}

async fn put_link(connection: &mut PgConnection, id: &str, ends: [&str; 4]) {
    let [t1, k1, t2, k2] = ends;
    put(connection, "link", id, &format!(r#"{{"t1":"{t1}","k1":"{k1}","t2":"{t2}","k2":"{k2}"}}"#)).await;
}

/// The roles of an account of the cell `one`, in order; nothing without such an account.
async fn roles_of(connection: &mut PgConnection, name: &str) -> Option<Vec<String>> {
    let Account { mut roles, .. } = directory::account(connection, &cell("one"), name).await.expect("works")?;
    roles.sort();
    Some(roles)
}

/// The account's hash of a password says which account was found.
async fn hash_of(connection: &mut PgConnection, name: &str) -> Option<String> {
    let Password { hash, .. } = directory::password(connection, &cell("one"), name).await.expect("works")?;
    Some(hash.expect("every account here has one").expose_secret().to_owned())
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn an_account_has_the_roles_that_it_is_linked_to(pool: PgPool) {
    let c = &mut *pool.acquire().await.expect("a connection");
    make_cell(c, "one").await;
    put_account(c, "a1", "me").await;
    put_account(c, "a2", "other").await;
    for (id, ends) in [
        ("1", ["Account", "a1", "Role", "r1"]),
        ("2", ["Account", "a1", "Role", "r2"]),
        ("3", ["Account", "a2", "Role", "r3"]),
        ("4", ["Account", "a1", "ReceivedMessage", "m1"]),
        ("5", ["Account", "a1", "ReceivedMessage", "Role"]),
        ("6", ["Account", "a1", "Roles", "r4"]),
        ("7", ["account", "a1", "Role", "r5"]),
        ("8", ["Role", "a1", "Account", "r6"]),
        ("9", ["Relation", "a1", "Role", "r7"]),
        ("10", ["ExtCell", "a1", "Role", "Account"]),
        ("11", ["Account", "a", "Role", "r8"]),
        ("12", ["Account", "a11", "Role", "r9"]),
    ] {
        put_link(c, id, ends).await;
    }
    put(c, "link", "13", r#"{"t1":"Account","k1":"a1","t2":"Role"}"#).await;
    put(c, "link", "14", r#"{"t1":"Account","k1":"a1","t2":"Role","k2":null}"#).await;
    put(c, "UserData", "15", r#"{"t1":"Account","k1":"a1","t2":"Role","k2":"r10"}"#).await;
    assert_eq!(roles_of(c, "me").await.expect("there"), ["r1", "r2"]);
    assert_eq!(roles_of(c, "other").await.expect("there"), ["r3"]);
    for name in ["Me", "m", "me ", "", "a1", "%"] {
        assert_eq!(roles_of(c, name).await, None, "{name:?}");
    }
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn an_account_says_its_status_and_its_hash(pool: PgPool) {
    let c = &mut *pool.acquire().await.expect("a connection");
    make_cell(c, "one").await;
    type Told<'a> = (Option<&'a str>, Option<&'a str>, Option<&'a str>);
    let table: [(&str, Told<'_>); 4] = [
        (
            r#"{"s":{"Name":"NAME","Status":"active"},"h":{"HashAlgorithm":"scrypt","HashedCredential":"$e0801$x$y"}}"#,
            (Some("active"), Some("scrypt"), Some("$e0801$x$y")),
        ),
        (r#"{"s":{"Name":"NAME"},"h":{"HashedCredential":"00"}}"#, (None, None, Some("00"))),
        (r#"{"s":{"Status":"deactivated","Name":"NAME"},"h":{}}"#, (Some("deactivated"), None, None)),
        (r#"{"s":{"Name":"NAME","Status":null},"h":{"HashedCredential":null}}"#, (None, None, None)),
    ];
    for (number, (source, (status, algorithm, hash))) in table.into_iter().enumerate() {
        let name = format!("account{number}");
        put(c, "Account", &name, &source.replace("NAME", &name)).await;
        let account = directory::account(c, &cell("one"), &name).await.expect("works").expect("there");
        assert_eq!((account.status.as_deref(), account.roles.len()), (status, 0), "{source}");
        let told = directory::password(c, &cell("one"), &name).await.expect("works").expect("there");
        let told_hash = told.hash.as_ref().map(|hash| hash.expose_secret());
        assert_eq!((told.status.as_deref(), told.algorithm.as_deref(), told_hash), (status, algorithm, hash));
        assert!(hash.is_none_or(|hash| !format!("{told:?}").contains(hash)), "it does not print");
    }
    assert!(directory::password(c, &cell("one"), "account").await.expect("works").is_none());
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn roles_of_boxes_that_are_gone_are_none(pool: PgPool) {
    let c = &mut *pool.acquire().await.expect("a connection");
    make_cell(c, "one").await;
    put(c, "Box", "b1", r#"{"s":{"Name":"diary"}}"#).await;
    store(c, "one", "Box", "broken", "{]").await;
    store(c, "two", "Box", "elsewhere", r#"{"_source":{"s":{"Name":"box"}}}"#).await;
    put(c, "Role", "of-cell", r#"{"s":{"Name":"admin"},"l":{}}"#).await;
    put(c, "Role", "of-cell-too", r#"{"s":{"Name":"admin"},"l":{"Box":null}}"#).await;
    put(c, "Role", "of-box", r#"{"s":{"Name":"reader"},"l":{"Box":"b1"}}"#).await;
    for gone in ["gone", "broken", "elsewhere", "diary", ""] {
        put(c, "Role", &format!("of-{gone}-box"), &format!(r#"{{"s":{{"Name":"x"}},"l":{{"Box":"{gone}"}}}}"#)).await;
    }
    put(c, "Role", "nameless", r#"{"s":{},"l":{}}"#).await;
    store(c, "one", "Role", "broken", "{]").await;
    store(c, "two", "Role", "elsewhere", r#"{"_source":{"s":{"Name":"admin"}}}"#).await;
    put(c, "Relation", "relation", r#"{"s":{"Name":"friend"}}"#).await;
    put(c, "Role", "not-asked-for", r#"{"s":{"Name":"admin"}}"#).await;
    let ids = "of-cell of-cell-too of-box of-gone-box of-broken-box of-elsewhere-box of-diary-box of--box nameless broken \
               elsewhere relation nothing of-cell";
    let ids: Vec<String> = ids.split_whitespace().map(str::to_owned).collect();
    let mut roles = directory::roles(c, &cell("one"), &ids).await.expect("works");
    roles.sort_by(|a, b| a.id.cmp(&b.id));
    let role = |id: &str, name: &str, of: Option<&str>| Role {
        id: id.to_owned(),
        name: name.to_owned(),
        box_name: of.map(str::to_owned),
    };
    let expected =
        [role("of-box", "reader", Some("diary")), role("of-cell", "admin", None), role("of-cell-too", "admin", None)];
    assert_eq!(roles, expected);
    assert!(directory::roles(c, &cell("one"), &[]).await.expect("works").is_empty());
    assert!(directory::roles(c, &cell("nowhere"), &ids).await.expect("works").is_empty());
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn what_other_cells_hold_and_what_a_cell_held_before_is_invisible(pool: PgPool) {
    let c = &mut *pool.acquire().await.expect("a connection");
    make_cell(c, "one").await;
    make_cell(c, "two").await;
    let account = |hash: &str| format!(r#"{{"_source":{{"s":{{"Name":"me"}},"h":{{"HashedCredential":"{hash}"}}}}}}"#);
    let link = |role: &str| format!(r#"{{"_source":{{"t1":"Account","k1":"a","t2":"Role","k2":"{role}"}}}}"#);
    for (generation, role) in [("two", "of-two"), ("next", "of-next")] {
        store(c, generation, "Account", "a", &account(generation)).await;
        store(c, generation, "link", "l", &link(role)).await;
        assert_eq!(roles_of(c, "me").await, None, "{generation} holds one");
    }
    store(c, "one", "Account", "a", &account("one")).await;
    assert_eq!(roles_of(c, "me").await.expect("there"), Vec::<String>::new(), "the links of others");
    store(c, "one", "link", "l", &link("of-one")).await;
    assert_eq!(
        (roles_of(c, "me").await, hash_of(c, "me").await),
        (Some(vec!["of-one".to_owned()]), Some("one".into()))
    );
    let root = directory::root_pmeta(c, &cell("one")).await.expect("works");
    assert_eq!(root.as_deref(), Some(r#"{"i":"one"}"#));

    // An import replaces everything at once.
    sqlx::query("UPDATE cell SET generation = 'next' WHERE id = 'one'").execute(&mut *c).await.expect("done");
    assert_eq!(
        (roles_of(c, "me").await, hash_of(c, "me").await),
        (Some(vec!["of-next".to_owned()]), Some("next".into()))
    );
    let node = "INSERT INTO node (generation, path, pmeta) VALUES ('next', 'box', '{}')";
    sqlx::query(node).execute(&mut *c).await.expect("stored");
    assert_eq!(directory::root_pmeta(c, &cell("one")).await.expect("works"), None, "no root yet");
    let root = "WITH b AS (INSERT INTO blob (id, generation, size, sha256)
                  VALUES (gen_random_uuid(), 'next', 0, sha256('')) RETURNING id)
                INSERT INTO node (generation, path, blob_id) SELECT 'next', '', id FROM b";
    sqlx::query(root).execute(&mut *c).await.expect("stored");
    assert_eq!(directory::root_pmeta(c, &cell("one")).await.expect("works"), None, "without metadata");
    assert_eq!(directory::root_pmeta(c, &cell("nowhere")).await.expect("works"), None);
    assert!(directory::account(c, &cell("nowhere"), "me").await.expect("works").is_none());
    assert!(directory::password(c, &cell("nowhere"), "me").await.expect("works").is_none());
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn names_are_compared_to_their_ends(pool: PgPool) {
    let c = &mut *pool.acquire().await.expect("a connection");
    make_cell(c, "one").await;
    let names: Vec<String> = ["a", "花", "🙏"]
        .iter()
        .flat_map(|letter| {
            let start = letter.repeat(200);
            let more = ["1", "2", "11", &letter.repeat(300)].map(|end| format!("{start}{end}"));
            [letter.repeat(199), start].into_iter().chain(more)
        })
        .collect();
    for (number, name) in names.iter().enumerate() {
        let source = format!(r#"{{"s":{{"Name":"{name}"}},"h":{{"HashedCredential":"{number}"}}}}"#);
        put(c, "Account", &format!("a{number}"), &source).await;
        put_link(c, &format!("l{number}"), ["Account", &format!("a{number}"), "Role", &format!("r{number}")]).await;
    }
    for (number, name) in names.iter().enumerate() {
        assert_eq!(roles_of(c, name).await.expect("there"), [format!("r{number}")], "{name}");
        assert_eq!(hash_of(c, name).await.expect("there"), number.to_string(), "{name}");
        for other in [format!("{name}x"), format!("{name} ")] {
            assert_eq!(roles_of(c, &other).await, None, "{other}");
        }
    }
    // The ids of accounts, at their longest.
    let (mine, other) = ("i".repeat(200), format!("{}j", "i".repeat(199)));
    put_account(c, &mine, "long").await;
    put_link(c, "mine", ["Account", &mine, "Role", "mine"]).await;
    put_link(c, "other", ["Account", &other, "Role", "other"]).await;
    put_link(c, "longer", ["Account", &format!("{mine}i"), "Role", "longer"]).await;
    assert_eq!(roles_of(c, "long").await.expect("there"), ["mine"]);
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn documents_that_cannot_be_read_are_in_nobodys_way(pool: PgPool) {
    let c = &mut *pool.acquire().await.expect("a connection");
    make_cell(c, "one").await;
    put_account(c, "a1", "me").await;
    put_link(c, "l1", ["Account", "a1", "Role", "r1"]).await;
    let deep = format!(r#"{{"_source":{}"Account""Role"{}}}"#, "[".repeat(20_000), "]".repeat(20_000));
    for (number, body) in [
        "{]",
        "no json",
        r#"{"_source":{"t1":"Account","k1":"a1","t2":"Role","k2":"r2""#,
        r#"{"_source":{"s":{"Name":"me"}"#,
        r#"["Account","Role"]"#,
        r#""Account""#,
        r#"{"_source":["Account","Role"]}"#,
        r#"{"_source":{"s":"me","t1":"Account","t2":"Role"}}"#,
        r#"{"_source":{"s":{"Name":{"Name":"me"}}}}"#,
        r#"{"_source":{"s":{"Name":null,"x":"\u0000"}}}"#,
        r#"{"_source":{"s":{"Name":"me\ud800"},"t1":"Account","t2":"Role"}}"#,
        &deep,
    ]
    .into_iter()
    .enumerate()
    {
        // They come first, if they come at all.
        store(c, "one", "Account", &format!("0{number}"), body).await;
        store(c, "one", "link", &format!("0{number}"), body).await;
        assert_eq!(roles_of(c, "me").await.expect("there"), ["r1"], "{body}");
        assert_eq!(directory::account(c, &cell("one"), "").await.expect("works"), None, "{body}");
        let mended = r#"UPDATE document SET body = body || ' ' WHERE id LIKE '0%'"#;
        sqlx::query(mended).execute(&mut *c).await.expect("they can be changed");
    }
    sqlx::query("DELETE FROM document WHERE id LIKE '0%'").execute(&mut *c).await.expect("and removed");
    assert_eq!(roles_of(c, "me").await.expect("there"), ["r1"]);
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn names_may_hold_what_the_database_cannot(pool: PgPool) {
    let c = &mut *pool.acquire().await.expect("a connection");
    make_cell(c, "one").await;
    put_account(c, "a1", r"me\u0000").await;
    put_account(c, "a2", r"\u0000").await;
    put_account(c, "a3", r"\u82b1").await;
    put_account(c, "a4", r#"\"\\\/"#).await;
    put(c, "Account", "a5", r#"{"s":{"Name":"nul elsewhere","x":"\u0000"}}"#).await;
    for (number, name) in [(3, "花"), (4, r#""\/"#), (5, "nul elsewhere")] {
        put_link(c, &format!("l{number}"), ["Account", &format!("a{number}"), "Role", "r"]).await;
        assert_eq!(roles_of(c, name).await.expect("there"), ["r"], "{name}");
    }
    // Nobody is called like the beginning of a name.
    for name in ["me", ""] {
        assert_eq!(roles_of(c, name).await, None, "{name:?}");
    }
}

/// How often a table was read from its beginning to its end, and how often and for how many entries each index was asked.
async fn reads(pool: &PgPool) -> (i64, Vec<(String, i64, i64)>) {
    let c = &mut *pool.acquire().await.expect("a connection");
    let scans = "SELECT coalesce(seq_scan, 0) FROM pg_stat_user_tables WHERE relname = 'document'";
    let scans = sqlx::query_scalar(scans).fetch_one(&mut *c).await.expect("statistics");
    let indexes =
        "SELECT indexrelname::text, idx_scan, idx_tup_read FROM pg_stat_user_indexes WHERE relname = 'document'";
    (scans, sqlx::query_as(indexes).fetch_all(&mut *c).await.expect("statistics"))
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn nothing_is_searched_for_in_a_whole_cell(pool: PgPool) {
    const MANY: usize = 20_000;
    let c = &mut *pool.acquire().await.expect("a connection");
    make_cell(c, "one").await;
    for (kind, source) in [
        ("Account", r#"{"s":{"Name":"account$n"},"h":{"HashedCredential":"$n"}}"#),
        ("Role", r#"{"s":{"Name":"role$n"},"l":{"Box":"Box$n"}}"#),
        ("Box", r#"{"s":{"Name":"box$n"}}"#),
        ("link", r#"{"t1":"Account","k1":"Account$n","t2":"Role","k2":"Role$n"}"#),
        ("UserData", r#"{"s":{"Name":"account$n"},"ll":[]}"#),
    ] {
        let statement = "INSERT INTO document (generation, type, id, body)
            SELECT 'one', $1::document_type, $1 || n, replace('{\"_source\":' || $2 || '}', '$n', n::text)
            FROM generate_series(1, $3) n";
        let inserting = sqlx::query(statement).bind(kind).bind(source).bind(MANY as i32);
        inserting.execute(&mut *c).await.expect("stored");
    }
    sqlx::raw_sql("ANALYZE document; SELECT pg_stat_force_next_flush()").execute(&mut *c).await.expect("done");
    let (scans, before) = reads(&pool).await;
    // More often than a prepared statement is planned anew.
    let asked = 12;
    for number in 1..=asked {
        let account = format!("account{number}");
        assert_eq!(roles_of(c, &account).await.expect("there"), [format!("Role{number}")]);
        assert_eq!(hash_of(c, &account).await.expect("there"), number.to_string());
        let roles = directory::roles(c, &cell("one"), &[format!("Role{number}"), "gone".to_owned()]).await;
        assert_eq!(roles.expect("works")[0].box_name.as_deref(), Some(format!("box{number}").as_str()));
        assert_eq!(roles_of(c, "nobody").await, None);
    }
    sqlx::raw_sql("SELECT pg_stat_force_next_flush()").execute(&mut *c).await.expect("done");
    let (scans_after, after) = reads(&pool).await;
    assert_eq!(scans_after, scans, "the whole table was read");
    let mut read: Vec<(String, i64, i64)> = Vec::new();
    for (name, times, entries) in after {
        let (_, times_before, entries_before) = before.iter().find(|(n, _, _)| *n == name).expect("the same indexes");
        read.push((name, times - times_before, entries - entries_before));
    }
    let of = |index: &str| read.iter().find(|(name, _, _)| name == index).expect("an index");
    // Each account is asked for by name three times, one of them in vain, and its links once.
    assert_eq!(of("document_account_name"), &("document_account_name".to_owned(), 3 * asked, 2 * asked));
    assert_eq!(of("document_account_roles"), &("document_account_roles".to_owned(), asked, asked));
    let entries: i64 = read.iter().map(|(_, _, entries)| entries).sum();
    assert!(entries <= 6 * asked, "{read:?}");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn an_account_with_too_many_roles_keeps_some(pool: PgPool) {
    let c = &mut *pool.acquire().await.expect("a connection");
    make_cell(c, "one").await;
    put_account(c, "a1", "me").await;
    let statement = r#"INSERT INTO document (generation, type, id, body)
        SELECT 'one', 'link', n, '{"_source":{"t1":"Account","k1":"a1","t2":"Role","k2":"r' || n || '"}}'
        FROM generate_series(1, $1) n"#;
    sqlx::query(statement).bind(limits::ROLES + 1).execute(&mut *c).await.expect("stored");
    assert_eq!(roles_of(c, "me").await.expect("there").len(), limits::ROLES as usize);
}
