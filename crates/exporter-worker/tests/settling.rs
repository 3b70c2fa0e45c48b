//! An attempt whose commit gets no answer: whatever the row says in the end, the bytes are there.

#![expect(clippy::unwrap_used, reason = "a test says what is wrong by failing")]

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use exporter_worker::attempt::Attempts;
use exporter_worker::import::Places;
use exporter_worker::snapshot::{Effort, Packer};
use exporter_worker::source::postgres::PostgresSource;
use model::area::{BlobStore, SnapshotArea};
use model::cell::{CellId, CellName};
use model::job::JobState;
use model::settings::{JobSettings, Variables};
use model::snapshot_name::SnapshotName;
use model::store::MIGRATOR;
use model::store::cells::{self, NewCell};
use model::store::jobs::{self, Admission, NewJob};
use secrecy::SecretString;
use sha2::{Digest, Sha256};
use sqlx::{ConnectOptions, PgPool};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The server ends the connection of the first success before it commits. A sequence forgets nothing: the second try
/// goes through.
const CUT: [&str; 3] = [
    "CREATE SEQUENCE tries",
    "CREATE FUNCTION cut() RETURNS trigger LANGUAGE plpgsql AS $$
     BEGIN
       IF nextval('tries') = 1 THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF;
       RETURN NULL;
     END $$",
    "CREATE CONSTRAINT TRIGGER cut AFTER UPDATE ON job DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
     WHEN (NEW.state = 'succeeded') EXECUTE FUNCTION cut()",
];

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_snapshot_outlives_a_commit_without_an_answer(pool: PgPool) {
    let directory = tempfile::tempdir().unwrap();
    let area = SnapshotArea::open(directory.path(), 0).unwrap();
    let blobs = BlobStore::open(directory.path()).unwrap();
    let database: SecretString = pool.connect_options().to_url_lossy().to_string().into();
    let attempts = Attempts {
        source: Arc::new(PostgresSource::new(database.clone(), blobs.clone(), directory.path().to_owned())),
        packer: Packer::new(Effort::default(), 1),
        area: area.clone(),
        places: Places { database: database.clone(), blobs, reserve: 0 },
        unit_url: "http://localhost/".to_owned(),
        scratch: directory.path().to_owned(),
        database,
        jobs: JobSettings::read(&Variables::table(&[])).unwrap(),
        drain: Duration::ZERO,
    };
    let mut connection = pool.acquire().await.unwrap();
    let c = &mut *connection;
    let id = CellId::parse("c").unwrap();
    let (name, pmeta) = (CellName::parse_new("cell1").unwrap(), r#"{"t":"webdav.collection","p":1,"u":1}"#);
    let cell = NewCell { id: id.clone(), name, document: "{}".to_owned(), root_pmeta: pmeta.to_owned() };
    assert!(cells::create(c, &cell).await.unwrap());
    let job = NewJob {
        id: Uuid::new_v4(),
        cell: id,
        name: SnapshotName::parse("n").unwrap(),
        deadline: attempts.jobs.deadline,
        max_strikes: 1,
        admission: Admission::default(),
        idempotency: None,
        trace: None,
    };
    jobs::accept(c, &job).await.unwrap();
    for statement in CUT {
        sqlx::query(statement).execute(&mut *c).await.unwrap();
    }
    let token = Uuid::new_v4();
    let claim = jobs::claim(c, Some(job.id), &token.simple().to_string(), attempts.jobs.lease).await.unwrap().unwrap();
    attempts.run(claim, token, CancellationToken::new()).await;

    let view = jobs::find(c, job.id).await.unwrap().unwrap();
    assert_eq!(view.state, JobState::Succeeded, "{view:?}");
    let tries: i64 = sqlx::query_scalar("SELECT last_value FROM tries").fetch_one(&mut *c).await.unwrap();
    assert_eq!(tries, 2, "the first try was cut off");
    let (size, sha256): (i64, Vec<u8>) =
        sqlx::query_as("SELECT blob_size, blob_sha256 FROM job").fetch_one(c).await.unwrap();
    let mut bytes = Vec::new();
    area.fetch(&view.blob_key.unwrap(), &mut |_| Ok(())).unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len() as i64, size);
    assert_eq!(Sha256::digest(&bytes).as_slice(), sha256);
}
