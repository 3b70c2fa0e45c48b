//! Looks at the jobs, and at what rows say of files.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::database::Asked;
use super::{Doctor, Finding};
use crate::limits;

/// Looks at the jobs that are there; `fitting`: the schema is the one of this program.
pub(super) async fn examine(doctor: &mut Doctor, asked: &mut Asked, fitting: bool) {
    if !fitting {
        doctor.skip(&["waiting jobs", "lost jobs"], "there is no database with the right schema");
        return;
    }
    asked.look(doctor, "waiting jobs", waiting).await;
    asked.look(doctor, "lost jobs", lost).await;
}

async fn waiting(connection: &mut PgConnection) -> Result<Finding, sqlx::Error> {
    let found = sqlx::query!(
        r#"
        SELECT count(*) FILTER (WHERE state = 'queued') AS "queued!", count(*) FILTER (WHERE state = 'running') AS "running!",
               count(*) FILTER (WHERE deadline_at < clock_timestamp() + interval '1 hour') AS "late!",
               greatest(extract(epoch FROM clock_timestamp() - min(accepted_at) FILTER (WHERE state = 'queued')), 0)::float8
                 AS "oldest!"
        FROM job WHERE state IN ('queued', 'running')
        "#
    )
    .fetch_one(connection)
    .await?;
    let seen = format!("{} wait, the oldest for {:.0} s; {} run", found.queued, found.oldest, found.running);
    Ok(if found.oldest > limits::WAITS_LONG.as_secs_f64() {
        Finding::warning(seen, "see that workers run and are ready (`/readyz`, `exporter-worker doctor`), or add some")
    } else if found.late > 0 {
        Finding::warning(
            format!("{seen}; {} end within the hour, done or not", found.late),
            "add workers, or raise JOB_DEADLINE_SECS for jobs to come; `api jobs list` shows which they are",
        )
    } else {
        Finding::ok(seen)
    })
}

/// Jobs whose worker was lost are taken back by whichever service looks first.
async fn lost(connection: &mut PgConnection) -> Result<Finding, sqlx::Error> {
    let lost = sqlx::query_scalar!(
        r#"
        SELECT count(*) AS "lost!" FROM job
        WHERE state = 'running' AND lease_until < clock_timestamp() - make_interval(secs => $1)
        "#,
        limits::LEASE.as_secs_f64()
    )
    .fetch_one(connection)
    .await?;
    Ok(match lost {
        0 => Finding::ok("none: whose worker was lost was taken back"),
        lost => Finding::warning(
            format!("{lost} jobs lost their worker, and nobody took them back"),
            "start a service: each of them takes jobs back every JOB_REAP_SECS",
        ),
    })
}

/// Keys of the newest snapshot files that clients see, and when each appeared.
pub async fn newest_snapshots(connection: &mut PgConnection) -> Result<Vec<(String, DateTime<Utc>)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT blob_key AS "key!", modified_at FROM snapshot_entry WHERE kind = 'zip' ORDER BY modified_at DESC LIMIT $1"#,
        limits::SAMPLED
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.key, row.modified_at)).collect())
}

/// Ids of some contents that cells hold, any.
pub async fn some_contents(connection: &mut PgConnection) -> Result<Vec<Uuid>, sqlx::Error> {
    // By the primary key from somewhere on: there may be very many.
    sqlx::query_scalar!(
        r#"
        SELECT id AS "id!" FROM (
          (SELECT id, generation FROM blob WHERE id >= $1 ORDER BY id LIMIT $2)
          UNION ALL
          (SELECT id, generation FROM blob WHERE id < $1 ORDER BY id LIMIT $2)) picked
        WHERE EXISTS (SELECT FROM cell WHERE cell.generation = picked.generation)
        LIMIT $2
        "#,
        Uuid::new_v4(),
        limits::SAMPLED
    )
    .fetch_all(connection)
    .await
}
