//! Looks at the places of files: that they are there, are ours, have space, and keep what is written.
//!
//! Everything that the doctor knows of storage is in this file, and it writes through the product's own ways: what works
//! here works there, in a directory and in a bucket. A part file lies beside its final place, so the rename of a round
//! trip also shows that both are on one device. What a killed doctor leaves has no row: the sweeper removes it.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use sqlx::PgConnection;
use uuid::Uuid;

use super::database::Asked;
use super::{Doctor, Finding, in_a_thread, queue, size};
use crate::area::{BlobStore, SnapshotArea, SnapshotKey, next_piece};
use crate::error_chain::Chain;
use crate::limits;
use crate::settings::{Place, StorageSettings};

/// Looks at the snapshot area, and whether the files that rows name are in it.
pub async fn examine_area(doctor: &mut Doctor, settings: &StorageSettings, asked: &mut Asked) {
    const BEHIND: [&str; 3] = ["snapshot area space", "snapshot area round trip", "snapshot files"];
    let named = match &settings.place {
        Place::Directories { snapshots: Some(path), .. } => {
            directory(doctor, "snapshot area", "SNAPSHOT_DIR", path).await
        }
        Place::Directories { snapshots: None, .. } | Place::Bucket(_) => true,
    };
    if !named {
        return doctor.skip(&BEHIND, "the snapshot area cannot be used");
    }
    let area = match SnapshotArea::of(settings) {
        Ok(area) => area,
        Err(error) => {
            doctor.note(BEHIND[0], unusable(settings, "SNAPSHOT_DIR", &error));
            return doctor.skip(&BEHIND[1..], "the snapshot area cannot be used");
        }
    };
    if area.is_bucket() && !doctor.look("bucket", answers(&area)).await {
        return doctor.skip(&BEHIND, "the bucket does not answer");
    }
    let (free, of) = (area.clone(), settings.clone());
    doctor.look(BEHIND[0], in_a_thread(move || space(&of, "SNAPSHOT_DIR", free.free()))).await;
    doctor.look(BEHIND[1], area_round_trip(&area, settings)).await;
    asked.look(doctor, BEHIND[2], async |connection| snapshot_files(connection, &area, settings).await).await;
}

/// Looks at the blob store, and whether contents that rows name are in it.
pub async fn examine_blobs(doctor: &mut Doctor, settings: &StorageSettings, asked: &mut Asked) {
    const BEHIND: [&str; 3] = ["blob store space", "blob store round trip", "contents of files"];
    let named = match &settings.place {
        Place::Directories { blobs: Some(path), .. } => directory(doctor, "blob store", "BLOB_DIR", path).await,
        Place::Directories { blobs: None, .. } | Place::Bucket(_) => true,
    };
    if !named {
        return doctor.skip(&BEHIND, "the blob store cannot be used");
    }
    let blobs = match BlobStore::of(settings) {
        Ok(blobs) => blobs,
        Err(error) => {
            doctor.note(BEHIND[0], unusable(settings, "BLOB_DIR", &error));
            return doctor.skip(&BEHIND[1..], "the blob store cannot be used");
        }
    };
    if !settings.is_bucket() {
        let (free, of) = (blobs.clone(), settings.clone());
        let beyond = move || free.free().map(|bytes| bytes.unwrap_or(u64::MAX).saturating_sub(of.reserve));
        let of = settings.clone();
        doctor.look(BEHIND[0], in_a_thread(move || space(&of, "BLOB_DIR", beyond()))).await;
    }
    doctor.look(BEHIND[1], blob_round_trip(&blobs, settings)).await;
    asked.look(doctor, BEHIND[2], async |connection| contents(connection, &blobs, settings).await).await;
}

/// Looks at the directory for temporary files.
pub async fn examine_scratch(doctor: &mut Doctor, settings: &StorageSettings) {
    let path = settings.scratch.clone();
    let looking = in_a_thread(move || match tempfile::tempfile_in(&path) {
        Ok(_) => Finding::ok(format!("{}: writable", path.display())),
        Err(error) => Finding::fault(Chain(&error).to_string(), unwritable("SCRATCH_DIR")),
    });
    doctor.look("scratch directory", looking).await;
}

/// Looks whether a directory is there, ours, and closed to others.
async fn directory(doctor: &mut Doctor, name: &'static str, setting: &'static str, path: &Path) -> bool {
    let path: PathBuf = path.to_owned();
    let looking = in_a_thread(move || {
        let shown = path.display();
        let found = match std::fs::metadata(&path) {
            Ok(found) => found,
            Err(error) => {
                return Finding::fault(
                    format!("{shown}: {error}"),
                    format!("mount what {setting} names, or make it: mkdir -m 0700, owned by the service's user"),
                );
            }
        };
        let (mode, owner, own) = (found.mode() & 0o777, found.uid(), rustix::process::geteuid().as_raw());
        if !found.is_dir() {
            Finding::fault(format!("{shown} is no directory"), format!("let {setting} name one"))
        } else if owner != own {
            Finding::warning(
                format!("{shown} belongs to user {owner}, this is user {own}"),
                format!("run the doctor as the service's user, or chown the directory: {setting}"),
            )
        } else if mode & 0o077 != 0 {
            Finding::warning(
                format!("{shown} is open to others: mode {mode:04o}"),
                format!("chmod 0700 {shown}; what lies there is as secret as the cells"),
            )
        } else {
            Finding::ok(format!("{shown}, mode {mode:04o}"))
        }
    });
    doctor.look(name, looking).await
}

/// Looks whether the bucket answers us.
async fn answers(area: &SnapshotArea) -> Finding {
    match area.answers().await {
        true => Finding::ok("it answers"),
        false => Finding::fault("it does not answer, or refuses", BUCKET),
    }
}

/// What can be wrong with a bucket.
const BUCKET: &str = "check S3_ENDPOINT, S3_BUCKET, S3_REGION, S3_PATH_STYLE and the keys; their user has to be allowed to list \
                      the bucket and to get, put and delete objects in it";

fn space(settings: &StorageSettings, setting: &str, free: std::io::Result<u64>) -> Finding {
    let reserved = format!("beyond the {} of DISK_RESERVE_BYTES", size(settings.reserve));
    let advice = "remove snapshots, set SNAPSHOT_KEEP_DAYS, or enlarge the volume";
    match free {
        Ok(0) => Finding::fault(format!("nothing is free {reserved}: exports are refused"), advice),
        Ok(bytes) if bytes < limits::SPACE_LOW => Finding::warning(format!("{} free {reserved}", size(bytes)), advice),
        Ok(bytes) => Finding::ok(format!("{} free {reserved}", size(bytes))),
        Err(error) => unusable(settings, setting, &error),
    }
}

fn unusable(settings: &StorageSettings, setting: &str, error: &dyn std::error::Error) -> Finding {
    Finding::fault(Chain(error).to_string(), remedy(settings, setting))
}

fn remedy(settings: &StorageSettings, setting: &str) -> String {
    if settings.is_bucket() { BUCKET.to_owned() } else { unwritable(setting) }
}

fn unwritable(setting: &str) -> String {
    format!("let the service's user write there, see that the volume is mounted for writing, or set {setting}")
}

/// Something that no compression and no cache makes up.
fn sample() -> Vec<u8> {
    let mut bytes = vec![0; limits::ROUND_TRIP];
    fastrand::fill(&mut bytes);
    bytes
}

async fn area_round_trip(area: &SnapshotArea, settings: &StorageSettings) -> Finding {
    let (begun, key, written) = (Instant::now(), SnapshotKey::for_upload(), sample());
    let (writing, to, bytes) = (area.clone(), key.clone(), written.clone());
    let stored = tokio::task::spawn_blocking(move || {
        let part = writing.create_part(&to)?;
        std::io::Write::write_all(&mut part.writer()?, &bytes)?;
        part.publish(&mut |_| Ok(()))
    });
    let stored = stored.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    let outcome = match stored {
        Ok(()) => read_back(area.read(&key.text(), None).await, &written).await,
        Err(error) => Err(Chain(&error).to_string()),
    };
    area.remove(&key.text()).await;
    // What is left of it: a directory of its own.
    if let Place::Directories { snapshots: Some(root), .. } = &settings.place {
        let _ = std::fs::remove_dir(root.join("snapshots").join(key.job.to_string()));
    }
    told(settings, "SNAPSHOT_DIR", outcome, begun)
}

async fn blob_round_trip(blobs: &BlobStore, settings: &StorageSettings) -> Finding {
    let (begun, id, written) = (Instant::now(), Uuid::new_v4(), sample());
    let outcome = match blobs.put(id, written.clone().into()).await {
        Ok(()) => read_back(blobs.read(id).await, &written).await,
        Err(error) => Err(Chain(&error).to_string()),
    };
    let outcome = match blobs.remove(vec![id]).await {
        Err(error) if outcome.is_ok() => Err(Chain(&error).to_string()),
        Ok(()) | Err(_) => outcome,
    };
    told(settings, "BLOB_DIR", outcome, begun)
}

async fn read_back(pieces: Result<crate::area::Pieces, object_store::Error>, written: &[u8]) -> Result<(), String> {
    let mut read = Vec::with_capacity(written.len());
    let reading = async {
        let mut pieces = pieces?;
        while let Some(piece) = next_piece(&mut pieces).await? {
            read.extend_from_slice(&piece);
        }
        Ok::<_, object_store::Error>(())
    };
    reading.await.map_err(|error| Chain(&error).to_string())?;
    if read == written { Ok(()) } else { Err("what is read is not what was written".to_owned()) }
}

fn told(settings: &StorageSettings, setting: &str, outcome: Result<(), String>, begun: Instant) -> Finding {
    let millis = begun.elapsed().as_millis();
    match outcome {
        Ok(()) => Finding::ok(format!(
            "wrote, flushed, read back and removed {} in {millis} ms",
            size(limits::ROUND_TRIP as u64)
        )),
        Err(error) => Finding::fault(error, remedy(settings, setting)),
    }
}

/// Looks whether the newest snapshots that clients see have their files.
async fn snapshot_files(
    connection: &mut PgConnection,
    area: &SnapshotArea,
    settings: &StorageSettings,
) -> Result<Finding, sqlx::Error> {
    let newest = queue::newest_snapshots(connection).await?;
    let (count, mut lost) = (newest.len(), Vec::new());
    for (key, modified) in newest {
        let read = async { next_piece(&mut area.read(&key, Some(0..1)).await?).await.map(drop) };
        match read.await {
            Ok(()) => {}
            Err(object_store::Error::NotFound { .. }) => lost.push((key, modified)),
            Err(error) => return Ok(unusable(settings, "SNAPSHOT_DIR", &error)),
        }
    }
    Ok(match lost.first() {
        None => Finding::ok(format!("the newest {count} are all there")),
        Some((key, modified)) => Finding::fault(
            format!(
                "of the newest {count}, {} have no file; the newest of these is {key}, of {}",
                lost.len(),
                modified.format("%Y-%m-%d %H:%M:%S UTC")
            ),
            "let SNAPSHOT_DIR, or the bucket, be that of all services; after a restore of the database copy the files of the backup \
             back, too; what is in no backup: DELETE the snapshots",
        ),
    })
}

/// Looks whether some of the contents that cells hold are there.
async fn contents(
    connection: &mut PgConnection,
    blobs: &BlobStore,
    settings: &StorageSettings,
) -> Result<Finding, sqlx::Error> {
    let some = queue::some_contents(connection).await?;
    let (count, mut lost) = (some.len(), 0);
    for id in some {
        match blobs.read(id).await {
            Ok(_) => {}
            Err(object_store::Error::NotFound { .. }) => lost += 1,
            Err(error) => return Ok(unusable(settings, "BLOB_DIR", &error)),
        }
    }
    Ok(match lost {
        0 => Finding::ok(format!("{count} of them, picked at random, are all there")),
        lost => Finding::fault(
            format!("of {count}, picked at random, {lost} are gone: exports of their cells fail"),
            "let BLOB_DIR, or the bucket, be that of all workers; after a restore of the database copy the files of the backup \
             back, too; what is in no backup: import the last snapshot of the cell",
        ),
    })
}
