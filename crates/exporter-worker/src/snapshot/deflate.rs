//! Deflating blocks that can be joined, and proving each of them on the spot.

use flate2::{Compress, Compression, FlushCompress};
use libdeflater::Decompressor;

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
    check: Decompressor,
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
        Self { with, check: Decompressor::new(), checked: Vec::new() }
    }

    /// Appends `input`, deflated by itself, as a stream of its own.
    pub(super) fn whole(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(), Failure> {
        let begin = out.len();
        match &mut self.with {
            With::Isal(isal) => isal.deflate(input, out).map_err(|code| {
                Failure::internal(format!("ISA-L cannot deflate {} bytes: code {code}", input.len()))
            })?,
            With::Zlib(zlib) => squeeze(zlib, input, out)?,
        }
        out.extend(END);
        if self.inflates_to(&out[begin..], input) {
            return Ok(());
        }
        Err(Failure::unproved(format!("a block of {} bytes does not inflate to what was deflated", input.len())))
    }

    /// Appends `input`, deflated by itself, to be followed by other blocks or by [`END`].
    pub(super) fn block(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(), Failure> {
        self.whole(input, out)?;
        out.truncate(out.len() - END.len());
        Ok(())
    }

    fn inflates_to(&mut self, deflated: &[u8], expected: &[u8]) -> bool {
        if self.checked.len() < expected.len() {
            self.checked.resize(expected.len(), 0);
        }
        let checked = &mut self.checked[..expected.len()];
        // More than there is room for is an error.
        let inflated = self.check.deflate_decompress(deflated, checked);
        inflated.is_ok_and(|length| length == expected.len()) && checked == expected
    }
}

fn squeeze(zlib: &mut Compress, mut input: &[u8], out: &mut Vec<u8>) -> Result<(), Failure> {
    zlib.reset();
    loop {
        out.reserve((input.len() / 3).clamp(1 << 10, 1 << 20));
        let before = zlib.total_in();
        zlib.compress_vec(input, out, FlushCompress::Full)
            .map_err(|error| Failure::internal(format!("zlib cannot deflate: {error}")))?;
        input = &input[(zlib.total_in() - before) as usize..];
        // Room that is left means that all was said (zlib.h, "deflate").
        if input.is_empty() && out.len() < out.capacity() {
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
                deflater.whole(&input, &mut whole).expect("deflated");
                assert_eq!(inflated(&whole), input);
                deflater.block(&input, &mut joined).expect("deflated");
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
                deflater.block(input, &mut out).expect("deflated");
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
        deflater.whole(&input, &mut out).expect("deflated");
        assert!(deflater.inflates_to(&out, &input));
        let mut other = input.clone();
        other[40_000] ^= 1;
        assert!(!deflater.inflates_to(&out, &other), "another byte");
        assert!(!deflater.inflates_to(&out, &input[1..]), "a byte too many");
        assert!(!deflater.inflates_to(&out, &[&input[..], b"x"].concat()), "a byte too few");
        let block = &out[..out.len() - END.len()];
        assert!(!deflater.inflates_to(block, &input), "no end");
        assert!(!deflater.inflates_to(&out[..out.len() - 9], &input), "cut off");
        assert!(!deflater.inflates_to(&[block, b"x", &END].concat(), &input), "something behind it");
    }
}
