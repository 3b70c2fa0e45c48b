//! The blocks of two SHA-256 streams at once, with the instructions that x86 processors have for one.
//!
//! Each of these instructions takes about four times as long as it keeps the processor from beginning the next: two streams
//! side by side take hardly longer than one. No library offers that for streams that go on.

use std::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_extract_epi32, _mm_set_epi32, _mm_set_epi64x, _mm_sha256msg1_epu32,
    _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8, _mm_shuffle_epi32,
};

/// FIPS 180-4, section 4.2.2, four to each step.
const CONSTANTS: [[u32; 4]; STEPS] = [
    [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5],
    [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
    [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3],
    [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
    [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc],
    [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
    [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7],
    [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
    [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13],
    [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
    [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3],
    [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
    [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5],
    [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
    [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208],
    [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
];
/// Of four rounds each.
const STEPS: usize = 16;

/// Tells whether this processor has what [`compress_both`] needs.
pub(super) fn is_there() -> bool {
    is_x86_feature_detected!("sha") && is_x86_feature_detected!("sse4.1") && is_x86_feature_detected!("ssse3")
}

/// Takes as many blocks into each of two states as both streams have.
#[target_feature(enable = "sha,sse4.1,ssse3")]
pub(super) fn compress_both(states: [&mut [u32; 8]; 2], blocks: [&[[u8; 64]]; 2]) {
    let [one, two] = states;
    let mut now = [State::load(one), State::load(two)];
    for (mine, others) in blocks[0].iter().zip(blocks[1]) {
        let before = now;
        let mut words = [load_block(mine), load_block(others)];
        for (step, constants) in CONSTANTS.iter().enumerate() {
            for (state, words) in now.iter_mut().zip(&words) {
                state.step(words[0], constants);
            }
            for words in &mut words {
                // The last words of all were made four steps before the last one.
                let next = if step + 4 < STEPS { next_words(words) } else { words[0] };
                *words = [words[1], words[2], words[3], next];
            }
        }
        for (state, before) in now.iter_mut().zip(before) {
            state.abef = _mm_add_epi32(state.abef, before.abef);
            state.cdgh = _mm_add_epi32(state.cdgh, before.cdgh);
        }
    }
    *one = now[0].store();
    *two = now[1].store();
}

/// The words a to h of a state in the order of the instructions: the first in the highest place.
#[derive(Clone, Copy)]
struct State {
    abef: __m128i,
    cdgh: __m128i,
}

impl State {
    #[target_feature(enable = "sse4.1")]
    fn load(state: &[u32; 8]) -> Self {
        let [a, b, c, d, e, f, g, h] = state.map(u32::cast_signed);
        Self { abef: _mm_set_epi32(a, b, e, f), cdgh: _mm_set_epi32(c, d, g, h) }
    }

    #[target_feature(enable = "sse4.1")]
    fn store(self) -> [u32; 8] {
        let words = |v| {
            [_mm_extract_epi32::<3>(v), _mm_extract_epi32::<2>(v), _mm_extract_epi32::<1>(v), _mm_extract_epi32::<0>(v)]
        };
        let ([a, b, e, f], [c, d, g, h]) = (words(self.abef), words(self.cdgh));
        [a, b, c, d, e, f, g, h].map(i32::cast_unsigned)
    }

    /// Four rounds, with four words of the block.
    #[target_feature(enable = "sha,sse4.1")]
    #[inline]
    fn step(&mut self, words: __m128i, constants: &[u32; 4]) {
        let [k0, k1, k2, k3] = constants.map(u32::cast_signed);
        let sums = _mm_add_epi32(words, _mm_set_epi32(k3, k2, k1, k0));
        // Two rounds turn a, b, e and f into what c, d, g and h are for the next two.
        self.cdgh = _mm_sha256rnds2_epu32(self.cdgh, self.abef, sums);
        self.abef = _mm_sha256rnds2_epu32(self.abef, self.cdgh, _mm_shuffle_epi32::<0b1110>(sums));
    }
}

/// A block's words, which have their highest byte first.
#[target_feature(enable = "ssse3")]
#[inline]
fn load_block(block: &[u8; 64]) -> [__m128i; 4] {
    let turned = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
    let (pairs, _) = block.as_chunks().0.as_chunks::<2>();
    let mut words = [turned; 4];
    for (words, [low, high]) in words.iter_mut().zip(pairs) {
        *words = _mm_shuffle_epi8(_mm_set_epi64x(i64::from_le_bytes(*high), i64::from_le_bytes(*low)), turned);
    }
    words
}

/// The four words that follow sixteen (FIPS 180-4, section 6.2.2).
#[target_feature(enable = "sha,ssse3")]
#[inline]
fn next_words(words: &[__m128i; 4]) -> __m128i {
    let sums = _mm_add_epi32(_mm_sha256msg1_epu32(words[0], words[1]), _mm_alignr_epi8::<4>(words[3], words[2]));
    _mm_sha256msg2_epu32(sums, words[3])
}
