//! SHA-256 of two streams that share their bytes: a snapshot, and contents that are stored in it.
//!
//! A processor with instructions for SHA-256 waits for the result of each before the next of the same stream can begin. With
//! two streams it does one while it waits for the other: both together take half of the time. What libraries offer for
//! whole streams takes one stream at a time, so blocks are cut here (FIPS 180-4, section 5).

use sha2::block_api::compress256;

#[cfg(target_arch = "x86_64")]
use super::sha_ni;

const BLOCK: usize = 64;

/// The digest of a stream, so far.
#[derive(Debug, Clone)]
pub(super) struct Sha256 {
    state: [u32; 8],
    /// The beginning of a block.
    waiting: [u8; BLOCK],
    waits: usize,
    /// Bytes so far.
    length: u64,
}

impl Sha256 {
    /// Of nothing (FIPS 180-4, section 5.3.3).
    pub(super) fn new() -> Self {
        let state =
            [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];
        Self { state, waiting: [0; BLOCK], waits: 0, length: 0 }
    }

    /// More of the stream.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        let blocks = self.take(bytes);
        compress256(&mut self.state, blocks);
    }

    /// More of both streams.
    pub(super) fn update_both(&mut self, other: &mut Self, bytes: &[u8]) {
        let (mine, others) = (self.take(bytes), other.take(bytes));
        let (together, one, two) = (mine.len().min(others.len()), &mut self.state, &mut other.state);
        compress_both([&mut *one, &mut *two], [&mine[..together], &others[..together]]);
        // One of them may have had the beginning of a block.
        compress256(one, &mine[together..]);
        compress256(two, &others[together..]);
    }

    /// Of all that came.
    pub(super) fn finalize(mut self) -> [u8; 32] {
        let bits = 8 * self.length;
        let zeros = (2 * BLOCK - 1 - 8 - self.waits) % BLOCK;
        let mut end = [0; 2 * BLOCK];
        end[0] = 0x80;
        end[1 + zeros..][..8].copy_from_slice(&bits.to_be_bytes());
        self.update(&end[..1 + zeros + 8]);
        let mut digest = [0; 32];
        for (bytes, word) in digest.chunks_exact_mut(4).zip(self.state) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        digest
    }

    /// Completes the block that waits, keeps what ends within one, and returns the whole ones between.
    fn take<'a>(&mut self, mut bytes: &'a [u8]) -> &'a [[u8; BLOCK]] {
        self.length += bytes.len() as u64;
        if self.waits > 0 {
            let (more, rest) = bytes.split_at(bytes.len().min(BLOCK - self.waits));
            self.keep(more);
            bytes = rest;
            if self.waits < BLOCK {
                return &[];
            }
            compress256(&mut self.state, &[self.waiting]);
            self.waits = 0;
        }
        let (blocks, rest) = bytes.as_chunks();
        self.keep(rest);
        blocks
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.waiting[self.waits..][..bytes.len()].copy_from_slice(bytes);
        self.waits += bytes.len();
    }
}

/// Takes as many blocks of one stream as of the other.
fn compress_both(states: [&mut [u32; 8]; 2], blocks: [&[[u8; BLOCK]]; 2]) {
    #[cfg(target_arch = "x86_64")]
    if sha_ni::is_there() {
        #[expect(unsafe_code, reason = "the compiler cannot know the processor")]
        // SAFETY: it has the instructions.
        return unsafe { sha_ni::compress_both(states, blocks) };
    }
    take_turns(states, blocks);
}

/// Takes a block of one stream and a block of the other: what one waits for overlaps with the other's work, if less so.
fn take_turns([one, two]: [&mut [u32; 8]; 2], blocks: [&[[u8; BLOCK]]; 2]) {
    for (mine, others) in blocks[0].iter().zip(blocks[1]) {
        compress256(one, std::slice::from_ref(mine));
        compress256(two, std::slice::from_ref(others));
    }
}

#[cfg(test)]
mod tests {
    use sha2::Digest;

    use super::*;

    fn noise(length: usize) -> Vec<u8> {
        let mut noise = vec![0; length];
        fastrand::Rng::with_seed(5).fill(&mut noise);
        noise
    }

    fn expected(bytes: &[u8]) -> [u8; 32] {
        sha2::Sha256::digest(bytes).into()
    }

    #[test]
    fn streams_of_every_length_have_the_digests_of_the_library() {
        let noise = noise(300);
        for length in 0..noise.len() {
            let mut sha256 = Sha256::new();
            sha256.update(&noise[..length]);
            assert_eq!(sha256.finalize(), expected(&noise[..length]), "{length}");
        }
    }

    #[test]
    fn blocks_of_two_streams_have_the_states_of_the_library_with_and_without_instructions_for_it() {
        let noise = noise(100 * BLOCK);
        let blocks = noise.as_chunks().0;
        for count in 0..50 {
            let (mine, others) = (&blocks[..count], &blocks[50..][..count]);
            let states = [Sha256::new().state, [7; 8]];
            let mut expected = states;
            compress256(&mut expected[0], mine);
            compress256(&mut expected[1], others);
            for both in [compress_both, take_turns] {
                let mut states = states;
                let [one, two] = &mut states;
                both([one, two], [mine, others]);
                assert_eq!(states, expected, "{count}");
            }
        }
    }

    #[test]
    fn two_streams_do_not_mix_wherever_the_second_begins_and_however_bytes_arrive() {
        let noise = noise(2_000);
        let mut random = fastrand::Rng::with_seed(6);
        for begin in 0..200 {
            let end = random.usize(begin..noise.len());
            let (mut whole, mut part) = (Sha256::new(), Sha256::new());
            whole.update(&noise[..begin]);
            let mut at = begin;
            while at < end {
                let next = end.min(at + random.usize(1..300));
                whole.update_both(&mut part, &noise[at..next]);
                at = next;
            }
            whole.update(&noise[end..]);
            assert_eq!(part.finalize(), expected(&noise[begin..end]), "{begin}..{end}");
            assert_eq!(whole.finalize(), expected(&noise), "{begin}..{end}");
        }
    }
}
