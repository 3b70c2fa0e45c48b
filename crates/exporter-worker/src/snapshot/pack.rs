//! Compressing on all cores, whoever asks: a process has one packer, with as many compressors as cores.
//!
//! What is packed is independent of everything else, so the bytes of a snapshot do not depend on how many cores there
//! are. Whoever waits is served in turn; every attempt has a bounded number of pieces on its way, and so a fair share.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use model::limits;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::task::JoinError;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use super::container::{Data, EntryHead, Method};
use super::deflate::{Deflater, Effort};
use crate::failure::Failure;
use crate::source::ContentRef;

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Packer(Arc<Inner>);

struct Inner {
    effort: Effort,
    cores: Arc<Semaphore>,
    idle: Mutex<Vec<Deflater>>,
}

impl std::fmt::Debug for Packer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Packer").field("effort", &self.0.effort).finish_non_exhaustive()
    }
}

/// Something that is being packed. Dropped, it is not packed any more.
pub(super) type Pending<T> = AbortOnDropHandle<Result<T, Failure>>;

/// A piece of a long entry, deflated.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) input: Bytes,
    pub(super) deflated: Vec<u8>,
    crc32: u32,
    pub(super) lines: u64,
}

impl Block {
    /// The CRC of the input, to be combined with what was before it.
    pub(super) fn crc32(&self) -> crc32fast::Hasher {
        crc32fast::Hasher::new_with_initial_len(self.crc32, self.input.len() as u64)
    }
}

/// A small entry.
#[derive(Debug)]
pub(super) struct Small {
    pub(super) head: EntryHead,
    pub(super) bytes: Bytes,
    /// What the source says of it, when it is contents.
    pub(super) content: Option<ContentRef>,
}

/// A small entry, ready to be written.
#[derive(Debug)]
pub(super) struct Packed {
    pub(super) head: EntryHead,
    pub(super) data: Data,
    pub(super) bytes: Bytes,
    pub(super) sha256: [u8; 32],
    pub(super) content: bool,
}

impl Packer {
    /// For so many cores.
    pub fn new(effort: Effort, cores: usize) -> Self {
        Self(Arc::new(Inner { effort, cores: Arc::new(Semaphore::new(cores.max(1))), idle: Mutex::default() }))
    }

    /// Deflates a piece of a long entry.
    pub(super) fn block(&self, input: Bytes) -> Pending<Block> {
        self.pack(std::future::ready(Ok(input)), |deflater, input| {
            let mut deflated = Vec::with_capacity(input.len() / 3);
            deflater.block(&input, &mut deflated)?;
            let lines = memchr::memchr_iter(b'\n', &input).count() as u64;
            Ok(Block { crc32: crc32fast::hash(&input), lines, input, deflated })
        })
    }

    /// Packs small entries, in their order, as soon as they are there.
    pub(super) fn small(
        &self,
        entries: impl Future<Output = Result<Vec<Small>, Failure>> + Send + 'static,
    ) -> Pending<Vec<Packed>> {
        self.pack(entries, |deflater, entries| entries.into_iter().map(|entry| packed(deflater, entry)).collect())
    }

    /// Tells, by trying, whether contents that begin like this get smaller. It tries the end of the beginning: pictures and
    /// films have a head that shrinks, and nothing else that does.
    pub(super) async fn shrinks(&self, beginning: Bytes) -> Result<bool, Failure> {
        let trial = self.pack(std::future::ready(Ok(beginning)), |deflater, beginning| {
            let sample = &beginning[beginning.len().saturating_sub(limits::SAMPLE)..];
            let mut deflated = Vec::with_capacity(sample.len());
            deflater.whole(sample, &mut deflated)?;
            Ok(is_smaller(deflated.len(), sample.len()))
        });
        joined(trial.await)
    }

    fn pack<T: Send + 'static, U: Send + 'static>(
        &self,
        input: impl Future<Output = Result<T, Failure>> + Send + 'static,
        work: impl FnOnce(&mut Deflater, T) -> Result<U, Failure> + Send + 'static,
    ) -> Pending<U> {
        let inner = Arc::clone(&self.0);
        let packing = async move {
            let input = input.await?;
            let gone = |_| Failure::internal("the packer is closed".to_owned());
            let core = Arc::clone(&inner.cores).acquire_owned().await.map_err(gone)?;
            let working = tokio::task::spawn_blocking(move || {
                let mut deflater = inner.take();
                let packed = work(&mut deflater, input);
                inner.put_back(deflater);
                drop(core);
                packed
            });
            joined(working.await)
        };
        AbortOnDropHandle::new(tokio::spawn(packing.in_current_span()))
    }
}

impl Inner {
    fn take(&self) -> Deflater {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.unwrap_or_else(|| Deflater::new(self.effort))
    }

    fn put_back(&self, deflater: Deflater) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(deflater);
    }
}

/// What became of a task.
pub(super) fn joined<T>(joined: Result<Result<T, Failure>, JoinError>) -> Result<T, Failure> {
    joined.unwrap_or_else(|error| Err(Failure::task(error)))
}

fn packed(deflater: &mut Deflater, entry: Small) -> Result<Packed, Failure> {
    let Small { head, bytes, content } = entry;
    let sha256: [u8; 32] = Sha256::digest(&bytes).into();
    if content.is_some_and(|content| (content.size, content.sha256) != (bytes.len() as u64, sha256)) {
        return Err(Failure::content_differs(&head.name));
    }
    let (crc32, size) = (crc32fast::hash(&bytes), bytes.len() as u64);
    let mut deflated = Vec::new();
    if may_shrink(&head, bytes.len()) {
        deflater.whole(&bytes, &mut deflated)?;
    }
    let (method, bytes) = match deflated.len() {
        0 => (Method::Stored, bytes),
        length if is_smaller(length, bytes.len()) => (Method::Deflated, deflated.into()),
        _ => (Method::Stored, bytes),
    };
    let data = Data { method, crc32, compressed: bytes.len() as u64, size };
    Ok(Packed { head, data, bytes, sha256, content: content.is_some() })
}

/// The manifest differs between two exports; stored, it always takes the same space, so that nothing behind it moves.
fn may_shrink(head: &EntryHead, length: usize) -> bool {
    length > 0 && head.name != model::layout::MANIFEST
}

/// What does not shrink by a thirtieth is not worth the reader's time.
fn is_smaller(deflated: usize, length: usize) -> bool {
    deflated < length - length / 30
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small(name: &str, bytes: &[u8]) -> Small {
        let head = EntryHead { name: name.to_owned(), modified: 0, large: false };
        Small { head, bytes: Bytes::copy_from_slice(bytes), content: None }
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut noise = vec![0; length];
        fastrand::Rng::with_seed(1).fill(&mut noise);
        noise
    }

    #[tokio::test]
    async fn what_does_not_shrink_is_stored() {
        let packer = Packer::new(Effort::default(), 2);
        let entries = vec![
            small("noise", &noise(2 * limits::SAMPLE)),
            small("text", &[b'a'; 100]),
            small("empty", b""),
            small("directory/", b""),
            small(model::layout::MANIFEST, &[b'a'; 100]),
        ];
        let packed = joined(packer.small(std::future::ready(Ok(entries))).await).expect("packed");
        let methods: Vec<_> = packed.iter().map(|p| (p.head.name.as_str(), p.data.method)).collect();
        let (stored, deflated) = (Method::Stored, Method::Deflated);
        let expected = [("noise", stored), ("text", deflated), ("empty", stored), ("directory/", stored)];
        assert_eq!(methods[..4], expected);
        assert_eq!(methods[4].1, stored);
        let (runs, noise) = (vec![b'a'; 3 * limits::SAMPLE], noise(2 * limits::SAMPLE));
        let picture = [&runs[..limits::SAMPLE], &noise].concat();
        for (beginning, shrinks) in [(noise, false), (runs, true), (picture, false)] {
            assert_eq!(packer.shrinks(beginning.into()).await.expect("tried"), shrinks);
        }
    }

    #[tokio::test]
    async fn contents_are_what_the_source_says() {
        let packer = Packer::new(Effort::default(), 1);
        let content = |bytes: &[u8]| {
            let sha256 = Sha256::digest(bytes).into();
            Some(ContentRef { id: uuid::Uuid::nil(), size: bytes.len() as u64, sha256 })
        };
        let right = Small { content: content(b"hello"), ..small("a", b"hello") };
        assert!(joined(packer.small(std::future::ready(Ok(vec![right]))).await).is_ok());
        let wrong = Small { content: content(b"hallo"), ..small("a", b"hello") };
        assert!(joined(packer.small(std::future::ready(Ok(vec![wrong]))).await).is_err());
    }

    /// More is asked for than there are cores, and nobody waits for ever.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn blocks_come_out_as_they_went_in() {
        let packer = Packer::new(Effort::default(), 2);
        let inputs: Vec<Bytes> = (1..60).map(|n| format!("line {n}\n").repeat(n * 100).into()).collect();
        let pending: Vec<_> = inputs.iter().map(|input| packer.block(input.clone())).collect();
        for (number, (pending, input)) in pending.into_iter().zip(&inputs).enumerate() {
            let block = joined(pending.await).expect("packed");
            assert_eq!((&block.input, block.crc32), (input, crc32fast::hash(input)));
            assert_eq!(block.lines, 100 * (number as u64 + 1));
        }
        assert!(packer.0.idle.lock().expect("whole").len() <= 2);
    }
}
