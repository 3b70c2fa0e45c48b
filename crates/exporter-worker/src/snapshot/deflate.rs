//! Deflating blocks that can be joined, and proving each of them on the spot.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::isal::Isal;
use crate::failure::Failure;

/// Ends a stream of joined blocks: an empty block, marked as the last one (RFC 1951, 3.2.3 and 3.2.6).
pub(super) const END: [u8; 2] = [3, 0];

/// Time or space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Effort {
    /// As fast as disks are.
    #[default]
    Faster,
    /// A tenth less space for five times the work.
    Smaller,
}

/// Deflates with one library and inflates with another what came out, so that no fault of either gets into a snapshot.
pub(super) struct Deflater {
    with: With,
    check: Decompress,
    checked: Vec<u8>,
}

enum With {
    Isal(Isal),
    Zlib(Compress),
}

impl Deflater {
    pub(super) fn new(effort: Effort) -> Self {
        let with = match effort {
            Effort::Faster => With::Isal(Isal::new()),
            Effort::Smaller => With::Zlib(Compress::new(Compression::new(6), false)),
        };
        Self { with, check: Decompress::new(false), checked: vec![0; 64 << 10] }
    }

    /// Appends `input`, deflated by itself. See [`Isal::deflate`].
    pub(super) fn deflate(&mut self, input: &[u8], last: bool, out: &mut Vec<u8>) -> Result<(), Failure> {
        let begin = out.len();
        match &mut self.with {
            With::Isal(isal) => isal.deflate(input, last, out).map_err(|code| {
                Failure::internal(format!("ISA-L cannot deflate {} bytes: code {code}", input.len()))
            })?,
            With::Zlib(zlib) => squeeze(zlib, input, last, out)?,
        }
        if self.inflates_to(&out[begin..], last, input) {
            return Ok(());
        }
        Err(Failure::unproved(format!("a block of {} bytes does not inflate to what was deflated", input.len())))
    }

    /// Inflates to a small buffer again and again: it stays in the cache, and no length is taken on trust.
    fn inflates_to(&mut self, mut deflated: &[u8], last: bool, mut expected: &[u8]) -> bool {
        let mut ending: &[u8] = if last { &[] } else { &END };
        self.check.reset(false);
        loop {
            if deflated.is_empty() {
                deflated = std::mem::take(&mut ending);
            }
            let (read, written) = (self.check.total_in(), self.check.total_out());
            let Ok(status) = self.check.decompress(deflated, &mut self.checked, FlushDecompress::None) else {
                return false;
            };
            let read = (self.check.total_in() - read) as usize;
            let written = (self.check.total_out() - written) as usize;
            let Some((part, rest)) = expected.split_at_checked(written) else { return false };
            if part != &self.checked[..written] {
                return false;
            }
            (deflated, expected) = (&deflated[read..], rest);
            match status {
                Status::StreamEnd => return deflated.is_empty() && ending.is_empty() && expected.is_empty(),
                Status::Ok | Status::BufError if read + written == 0 && ending.is_empty() => return false,
                Status::Ok | Status::BufError => {}
            }
        }
    }
}

fn squeeze(zlib: &mut Compress, mut input: &[u8], last: bool, out: &mut Vec<u8>) -> Result<(), Failure> {
    zlib.reset();
    let flush = if last { FlushCompress::Finish } else { FlushCompress::Full };
    loop {
        out.reserve((input.len() / 3).clamp(1 << 10, 1 << 20));
        let before = zlib.total_in();
        let status = zlib
            .compress_vec(input, out, flush)
            .map_err(|error| Failure::internal(format!("zlib cannot deflate: {error}")))?;
        input = &input[(zlib.total_in() - before) as usize..];
        // Room that is left means that all was said (zlib.h, "deflate").
        if status == Status::StreamEnd || (!last && input.is_empty() && out.len() < out.capacity()) {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    /// Text, noise and runs, of all lengths that matter to a compressor.
    fn inputs() -> Vec<Vec<u8>> {
        let mut random = fastrand::Rng::with_seed(5);
        let mut inputs = vec![vec![], vec![b'x'], vec![0; 300_000]];
        for length in [2, 7, 63, 64, 65, 1000, 32_767, 32_768, 32_769, 65_535, 65_536, 262_144, 1_100_000] {
            let mut noise = vec![0; length];
            random.fill(&mut noise);
            inputs.push(noise.clone());
            inputs.push(noise.iter().map(|b| b"abcdefgh"[usize::from(b & 7)]).collect());
            noise[length / 2..].fill(b' ');
            inputs.push(noise);
        }
        inputs
    }

    #[test]
    fn whole_streams_and_joined_blocks_inflate_to_what_they_were() {
        for effort in [Effort::Faster, Effort::Smaller] {
            let mut deflater = Deflater::new(effort);
            let (mut joined, mut all) = (Vec::new(), Vec::new());
            for input in inputs() {
                let mut whole = Vec::new();
                deflater.deflate(&input, true, &mut whole).expect("deflated");
                assert_eq!(inflated(&whole), input);
                deflater.deflate(&input, false, &mut joined).expect("deflated");
                all.extend(input);
            }
            joined.extend(END);
            assert!(inflated(&joined) == all, "{effort:?}");
        }
    }

    fn inflated(deflated: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut reader = flate2::bufread::DeflateDecoder::new(deflated);
        reader.read_to_end(&mut out).expect("a deflate stream");
        assert_eq!(reader.total_in(), deflated.len() as u64);
        out
    }

    #[test]
    fn the_same_input_gives_the_same_bytes_whatever_was_before() {
        for effort in [Effort::Faster, Effort::Smaller] {
            let deflate = |deflater: &mut Deflater, input: &[u8]| {
                let mut out = Vec::new();
                deflater.deflate(input, false, &mut out).expect("deflated");
                out
            };
            let mut used = Deflater::new(effort);
            for input in inputs() {
                let once = deflate(&mut used, &input);
                assert!(once == deflate(&mut Deflater::new(effort), &input), "{effort:?}, {} bytes", input.len());
            }
        }
    }

    #[test]
    fn a_block_that_is_not_its_input_is_noticed() {
        let mut deflater = Deflater::new(Effort::Faster);
        let input: Vec<u8> = (0..50_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        let mut out = Vec::new();
        deflater.deflate(&input, false, &mut out).expect("deflated");
        assert!(deflater.inflates_to(&out, false, &input));
        let mut other = input.clone();
        other[40_000] ^= 1;
        assert!(!deflater.inflates_to(&out, false, &other), "another byte");
        assert!(!deflater.inflates_to(&out, false, &input[1..]), "a byte too many");
        assert!(!deflater.inflates_to(&out, false, &[&input[..], b"x"].concat()), "a byte too few");
        assert!(!deflater.inflates_to(&out, true, &input), "no end");
        assert!(!deflater.inflates_to(&out[..out.len() - 9], false, &input), "cut off");
        assert!(!deflater.inflates_to(&[&out[..], b"x"].concat(), false, &input), "something behind it");
    }
}
