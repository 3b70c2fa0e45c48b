//! What every storage has to do: a directory, a bucket, and memory. The same assertions for all of them.

use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use model::area::{BlobStore, Objects, Part, Pieces, SnapshotArea, SnapshotKey};
use model::limits;
use model::settings::{Place, StorageSettings, Variables};
use model::snapshot_file::ReadAt;
use system_tests::judge::skipped;
use system_tests::object_server::ObjectServer;
use tempfile::TempDir;
use tokio::task::spawn_blocking;
use uuid::Uuid;

/// A storage, and what it needs to be there.
struct Storage {
    area: SnapshotArea,
    blobs: BlobStore,
    /// It knows uploads that were never completed.
    keeps_parts: bool,
    _directory: TempDir,
}

fn directory() -> Storage {
    let directory = tempfile::tempdir().unwrap();
    Storage {
        area: SnapshotArea::open(directory.path(), 0).unwrap(),
        blobs: BlobStore::open(directory.path()).unwrap(),
        keeps_parts: true,
        _directory: directory,
    }
}

fn memory() -> Storage {
    let directory = tempfile::tempdir().unwrap();
    let objects = Objects::in_memory(directory.path()).unwrap();
    Storage {
        area: SnapshotArea::over(objects.clone(), 0),
        blobs: BlobStore::over(objects),
        keeps_parts: false,
        _directory: directory,
    }
}

fn settings(server: &ObjectServer, scratch: &Path, other: &[(&str, &str)]) -> StorageSettings {
    let mut pairs = server.settings();
    pairs.retain(|(name, _)| !other.iter().any(|(n, _)| n == name));
    let scratch = scratch.display().to_string();
    let mut table: Vec<(&str, &str)> = pairs.iter().map(|(name, value)| (*name, value.as_str())).collect();
    table.extend(other);
    table.push(("SCRATCH_DIR", &scratch));
    StorageSettings::read_for_both(&Variables::table(&table)).unwrap()
}

fn bucket(server: &ObjectServer) -> Storage {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(server, directory.path(), &[]);
    Storage {
        area: SnapshotArea::of(&settings).unwrap(),
        blobs: BlobStore::of(&settings).unwrap(),
        keeps_parts: true,
        _directory: directory,
    }
}

/// Runs a test with every storage that is there.
async fn with_each(test: impl AsyncFn(&Storage)) {
    test(&directory()).await;
    test(&memory()).await;
    match ObjectServer::start() {
        Some(server) => test(&bucket(&server)).await,
        None => skipped("no S3 service: S3_SERVER names none"),
    }
}

fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    fastrand::Rng::with_seed(length as u64).fill(&mut bytes);
    bytes
}

fn key() -> SnapshotKey {
    SnapshotKey { job: Uuid::new_v4(), attempt: 1, token: Uuid::new_v4() }
}

fn written(area: &SnapshotArea, key: &SnapshotKey, bytes: &[u8]) -> Part {
    let part = area.create_part(key).unwrap();
    part.writer().unwrap().write_all(bytes).unwrap();
    part
}

/// On a thread that knows nothing of the runtime, as services do it.
async fn publish_part(
    part: Part,
    mut moved: impl FnMut(u64) -> std::io::Result<()> + Send + 'static,
) -> std::io::Result<()> {
    let publishing = std::thread::spawn(move || part.publish(&mut moved));
    spawn_blocking(move || publishing.join().unwrap()).await.unwrap()
}

async fn publish(area: &SnapshotArea, key: &SnapshotKey, bytes: &[u8]) {
    let part = written(area, key, bytes);
    publish_part(part, |_| Ok(())).await.unwrap();
}

async fn whole(pieces: Pieces) -> Vec<u8> {
    pieces
        .try_fold(Vec::new(), async |mut all, piece| {
            all.extend_from_slice(&piece);
            Ok(all)
        })
        .await
        .unwrap()
}

fn is_missing(read: Result<Pieces, object_store::Error>) -> bool {
    matches!(read, Err(object_store::Error::NotFound { .. }))
}

async fn old(area: &SnapshotArea, age: Duration) -> Vec<String> {
    let mut keys: Vec<String> = area.old(age).map_ok(|old| old.key.text()).try_collect().await.unwrap();
    keys.sort();
    keys
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_there_when_it_is_published_and_the_same_bytes_in_every_way() {
    with_each(async |Storage { area, .. }| {
        // Sent whole, sent in parts, and with a last part that is short.
        for length in [0, 1, 300_000, limits::PART as usize, 2 * limits::PART as usize + 12_345] {
            let (key, bytes) = (key(), noise(length));
            let part = written(area, &key, &bytes);
            let mut back = Vec::new();
            part.reopen().unwrap().read_to_end(&mut back).unwrap();
            assert!(back == bytes, "{length}: what is read back is what was written");
            assert!(is_missing(area.read(&key.text(), Some(0..1)).await), "{length}: nothing is visible yet");
            publish_part(part, |_| Ok(())).await.unwrap();

            assert!(whole(area.read(&key.text(), None).await.unwrap()).await == bytes, "{length}");
            let end = length as u64;
            for range in [0..end / 2, end / 3..end, end.saturating_sub(1)..end] {
                if range.is_empty() {
                    continue;
                }
                let expected = &bytes[range.start as usize..range.end as usize];
                assert!(
                    whole(area.read(&key.text(), Some(range.clone())).await.unwrap()).await == expected,
                    "{range:?}"
                );
            }
            if length > 0 {
                let beyond = area.read(&key.text(), Some(end - 1..end + 10)).await;
                let failed = match beyond {
                    Err(_) => true,
                    Ok(pieces) => pieces.try_collect::<Vec<_>>().await.is_err(),
                };
                assert!(failed, "{length}: fewer bytes than promised are a fault");
            }
            let (shared, text) = (area.clone(), key.text());
            let looked = spawn_blocking(move || {
                let file = shared.open_file(&text).unwrap();
                let mut middle = [0; 10];
                let n = ReadAt::read_at(&file, &mut middle, end / 2).unwrap();
                let mut moved = 0;
                let mut fetched = Vec::new();
                let mut count = |bytes| {
                    moved += bytes;
                    Ok(())
                };
                let mut local = shared.fetch(&text, &mut count).unwrap();
                std::io::Seek::rewind(&mut local).unwrap();
                local.read_to_end(&mut fetched).unwrap();
                (file.length().unwrap(), middle[..n].to_vec(), fetched, moved)
            });
            let (found, middle, fetched, moved) = looked.await.unwrap();
            assert_eq!(found, end);
            let from = length / 2;
            assert_eq!(middle, bytes[from..(from + middle.len()).min(length)]);
            assert!(length == 0 || !middle.is_empty());
            assert!(fetched == bytes && (moved == end || moved == 0), "{length}: {moved} were counted");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_published_leaves_nothing() {
    with_each(async |Storage { area, .. }| {
        let bytes = noise(2 * limits::PART as usize);
        drop(written(area, &key(), &bytes));
        assert_eq!(old(area, Duration::ZERO).await, [""; 0]);
        // Given up on the way, where there is a way.
        let part = written(area, &key(), &bytes);
        let gone = publish_part(part, |_| Err(std::io::Error::other("given up"))).await;
        if gone.is_err() {
            assert_eq!(old(area, Duration::ZERO).await, [""; 0]);
            assert_eq!(area.tidy(Duration::ZERO, Duration::ZERO).await.unwrap(), 0, "its parts are given up, too");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_go_when_they_are_removed_and_are_found_when_they_are_old() {
    with_each(async |Storage { area, .. }| {
        let keys = [key(), key(), key()];
        for key in &keys {
            publish(area, key, b"bytes").await;
        }
        assert_eq!(old(area, Duration::from_secs(3600)).await, [""; 0]);
        let mut expected: Vec<String> = keys.iter().map(SnapshotKey::text).collect();
        expected.sort();
        assert_eq!(old(area, Duration::ZERO).await, expected);
        area.remove(&keys[0].text()).await;
        area.remove(&keys[0].text()).await;
        let found: Vec<_> = area.old(Duration::ZERO).try_collect().await.unwrap();
        for old in found.iter().filter(|old| old.key == keys[1]) {
            area.remove_old(old).await.unwrap();
        }
        area.tidy(Duration::ZERO, Duration::ZERO).await.unwrap();
        assert_eq!(old(area, Duration::ZERO).await, [keys[2].text()]);
        assert!(is_missing(area.read(&keys[0].text(), None).await));
        assert!(area.read("blobs/00/other", None).await.is_err(), "keys of snapshots only");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_are_stored_whole_or_in_parts() {
    with_each(async |Storage { blobs, .. }| {
        let [small, empty, long, absent] = std::array::from_fn(|_| Uuid::new_v4());
        let bytes = noise(2 * limits::PART as usize + 777);
        blobs.put(small, Bytes::from_static(b"hello")).await.unwrap();
        blobs.put(empty, Bytes::new()).await.unwrap();
        let mut upload = blobs.put_in_parts(long).await.unwrap();
        for part in bytes.chunks(BlobStore::part_length(bytes.len() as u64)) {
            upload.put_part(part.to_vec().into()).await.unwrap();
        }
        assert!(blobs.read(long).await.is_err(), "it is not complete yet");
        upload.complete().await.unwrap();
        assert!(whole(blobs.read(long).await.unwrap()).await == bytes);
        assert_eq!(whole(blobs.read(empty).await.unwrap()).await, b"");
        let read = blobs.read_small(vec![(small, 5), (absent, 5), (empty, 0), (small, 3)]).await;
        assert_eq!(read[0].as_ref().unwrap().as_ref(), b"hello");
        assert!(matches!(read[1], Err(object_store::Error::NotFound { .. })));
        assert!(read[2].as_ref().unwrap().is_empty());
        assert!(read[3].as_ref().map_or(true, |bytes| bytes.len() > 3), "longer than it should be can be seen");
        blobs.remove(vec![small, absent, empty]).await.unwrap();
        assert!(is_missing(blobs.read(small).await) && is_missing(blobs.read(absent).await));
        assert!(whole(blobs.read(long).await.unwrap()).await == bytes);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_are_condemned_before_they_go() {
    with_each(async |Storage { blobs, keeps_parts, .. }| {
        let ids = [Uuid::new_v4(), Uuid::new_v4()];
        for id in ids {
            blobs.put(id, Bytes::from_static(b"bytes")).await.unwrap();
        }
        let hour = Duration::from_secs(3600);
        let listed: Vec<Uuid> = blobs.old(hour).try_concat().await.unwrap();
        assert!(listed.is_empty());
        let mut listed: Vec<Uuid> = blobs.old(Duration::ZERO).try_concat().await.unwrap();
        listed.sort();
        assert!(listed.len() == 2 && ids.iter().all(|id| listed.contains(id)), "{listed:?}");
        assert!(!blobs.is_condemned(ids[0], Duration::ZERO).await.unwrap(), "the first time it is marked");
        assert!(blobs.is_condemned(ids[0], Duration::ZERO).await.unwrap());
        blobs.remove_condemned(ids[0]).await.unwrap();
        let listed: Vec<Uuid> = blobs.old(Duration::ZERO).try_concat().await.unwrap();
        assert_eq!(listed, [ids[1]], "no mark is left, either");
        // Begun, and never completed.
        let mut upload = blobs.put_in_parts(Uuid::new_v4()).await.unwrap();
        upload.put_part(noise(limits::PART as usize).into()).await.unwrap();
        std::mem::forget(upload);
        assert_eq!(blobs.tidy(hour).await.unwrap(), 0, "it may still be completed");
        assert_eq!(blobs.tidy(Duration::ZERO).await.unwrap(), usize::from(*keeps_parts));
        assert_eq!(blobs.tidy(Duration::ZERO).await.unwrap(), 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_gets_a_snapshot_from_a_bucket_and_nothing_else() {
    for storage in [directory(), memory()] {
        assert_eq!(storage.area.link(&key().text(), "a.zip", "application/zip").await.unwrap(), None);
    }
    let Some(server) = ObjectServer::start() else { return skipped("no S3 service: S3_SERVER names none") };
    let storage = bucket(&server);
    let area = &storage.area;
    let (key, other, bytes) = (key(), key(), noise(100_000));
    publish(area, &key, &bytes).await;
    publish(area, &other, b"other").await;
    let link = area.link(&key.text(), "a.zip", "application/zip").await.unwrap().unwrap();
    let forged = link
        .replace(&key.job.to_string(), &other.job.to_string())
        .replace(&format!("{}", key.token.simple()), &format!("{}", other.token.simple()));
    let answers = spawn_blocking(move || {
        let get = |link: &str, range: Option<&str>| {
            let request = ureq::get(link).config().http_status_as_error(false).build();
            let request = range.into_iter().fold(request, |request, range| request.header("Range", range));
            let mut answer = request.call().unwrap();
            (answer.status().as_u16(), answer.body_mut().read_to_vec().unwrap())
        };
        (get(&link, None), get(&link, Some("bytes=10-19")), get(&forged, None))
    });
    let (whole, part, forged) = answers.await.unwrap();
    assert!(whole == (200, bytes.clone()));
    assert!(part == (206, bytes[10..20].to_vec()));
    assert_eq!(forged.0, 403, "a link is for one object");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_refuses_or_is_away_is_told_apart_from_an_empty_one() {
    let Some(mut server) = ObjectServer::start() else { return skipped("no S3 service: S3_SERVER names none") };
    let scratch = tempfile::tempdir().unwrap();
    assert!(bucket(&server).area.answers().await);
    let wrong = settings(&server, scratch.path(), &[("S3_SECRET_ACCESS_KEY", "marker-wrong-secret-x7Qd")]);
    assert!(matches!(wrong.place, Place::Bucket(_)));
    let refused = SnapshotArea::of(&wrong).unwrap();
    assert!(!refused.answers().await);
    let part = written(&refused, &key(), b"bytes");
    assert!(publish_part(part, |_| Ok(())).await.is_err());
    server.kill();
    let away = bucket(&server).area;
    assert!(!away.answers().await);
}
