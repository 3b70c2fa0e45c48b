//! Whether compressing is worth while, found out by trying.
//!
//! One compressor for all trials: its state takes a quarter of a mebibyte, and making one for each of many small files
//! between allocations that stay would tear the heap to pieces.

use flate2::{Compress, Compression, FlushCompress, Status};
use model::limits;
use zip::CompressionMethod;

/// A compressor whose output is thrown away.
pub(super) struct Trial {
    compress: Compress,
    output: Vec<u8>,
}

impl Trial {
    pub(super) fn new() -> Self {
        Self { compress: Compress::new(Compression::fast(), false), output: vec![0; 16 << 10] }
    }

    /// Decides by the beginning of contents: what does not shrink by a thirtieth is stored.
    pub(super) fn method(&mut self, beginning: &[u8]) -> CompressionMethod {
        let sample = &beginning[..beginning.len().min(limits::SAMPLE)];
        match self.compressed(sample) {
            Some(size) if size < (sample.len() - sample.len() / 30) as u64 => CompressionMethod::Deflated,
            Some(_) | None => CompressionMethod::Stored,
        }
    }

    fn compressed(&mut self, sample: &[u8]) -> Option<u64> {
        self.compress.reset();
        loop {
            let rest = &sample[self.compress.total_in() as usize..];
            match self.compress.compress(rest, &mut self.output, FlushCompress::Finish).ok()? {
                Status::StreamEnd => return Some(self.compress.total_out()),
                Status::Ok | Status::BufError => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_shrink_is_stored() {
        let mut trial = Trial::new();
        let mut random = vec![0; limits::SAMPLE * 2];
        fastrand::Rng::with_seed(1).fill(&mut random);
        for _ in 0..2 {
            assert_eq!(trial.method(&random), CompressionMethod::Stored);
            assert_eq!(trial.method(&[b'a'; 100]), CompressionMethod::Deflated);
            assert_eq!(trial.method(&vec![b'a'; limits::SAMPLE * 3]), CompressionMethod::Deflated);
            assert_eq!(trial.method(b""), CompressionMethod::Stored);
        }
    }
}
