//! AVX2 and AVX-512 + GFNI.

use super::{Coefficient, Kernel};
use std::arch::x86_64::*;

/// Returns how many leading bytes of each output were made; the rest is the caller's.
pub(super) fn multiply<const R: usize>(
    kernel: Kernel,
    rows: &[Coefficient],
    inputs: &[&[u8]],
    mut out: [&mut &mut [u8]; R],
) -> usize {
    let len = out[0].len();
    debug_assert!(rows.len() == R * inputs.len() && inputs.iter().all(|i| i.len() == len));
    let out: [*mut u8; R] = std::array::from_fn(|r| out[r].as_mut_ptr());
    match kernel {
        // SAFETY: `Kernel::detect` and `available` name only what the CPU has, all slices are `len` long (checked by the
        // caller), and outputs are distinct `&mut` slices.
        Kernel::Avx512Gfni => unsafe { gfni_512(rows, inputs, out, len) },
        // SAFETY: as above.
        Kernel::Avx2 => unsafe { avx2(rows, inputs, out, len) },
        Kernel::Scalar => 0,
    }
}

/// Two vectors wide: with four rows that is eight accumulators, enough to hide the affine instruction's latency.
#[target_feature(enable = "avx512f,avx512bw,gfni")]
unsafe fn gfni_512<const R: usize>(
    rows: &[Coefficient],
    inputs: &[&[u8]],
    out: [*mut u8; R],
    len: usize,
) -> usize {
    let k = inputs.len();
    let mut at = 0;
    while at + 128 <= len {
        let mut sums = [[_mm512_setzero_si512(); 2]; R];
        for (j, input) in inputs.iter().enumerate() {
            // SAFETY: at + 128 <= len <= input.len().
            let (x, y) = unsafe {
                let from = input.as_ptr().add(at);
                (_mm512_loadu_si512(from.cast()), _mm512_loadu_si512(from.add(64).cast()))
            };
            for r in 0..R {
                let by = _mm512_set1_epi64(rows[r * k + j].affine as i64);
                sums[r][0] = _mm512_xor_si512(sums[r][0], _mm512_gf2p8affine_epi64_epi8::<0>(x, by));
                sums[r][1] = _mm512_xor_si512(sums[r][1], _mm512_gf2p8affine_epi64_epi8::<0>(y, by));
            }
        }
        for r in 0..R {
            // SAFETY: at + 128 <= len, the length of every output.
            unsafe {
                let to = out[r].add(at);
                _mm512_storeu_si512(to.cast(), sums[r][0]);
                _mm512_storeu_si512(to.add(64).cast(), sums[r][1]);
            }
        }
        at += 128;
    }
    at
}

#[target_feature(enable = "avx2")]
unsafe fn avx2<const R: usize>(
    rows: &[Coefficient],
    inputs: &[&[u8]],
    out: [*mut u8; R],
    len: usize,
) -> usize {
    let k = inputs.len();
    let low_nibble = _mm256_set1_epi8(15);
    let mut at = 0;
    while at + 32 <= len {
        let mut sums = [_mm256_setzero_si256(); R];
        for (j, input) in inputs.iter().enumerate() {
            // SAFETY: at + 32 <= len <= input.len().
            let x = unsafe { _mm256_loadu_si256(input.as_ptr().add(at).cast()) };
            let low = _mm256_and_si256(x, low_nibble);
            let high = _mm256_and_si256(_mm256_srli_epi64::<4>(x), low_nibble);
            for r in 0..R {
                let nibbles = &rows[r * k + j].nibbles;
                // SAFETY: both tables are 16 bytes.
                let (table_low, table_high) = unsafe {
                    (
                        _mm256_broadcastsi128_si256(_mm_loadu_si128(nibbles[0].as_ptr().cast())),
                        _mm256_broadcastsi128_si256(_mm_loadu_si128(nibbles[1].as_ptr().cast())),
                    )
                };
                let product = _mm256_xor_si256(
                    _mm256_shuffle_epi8(table_low, low),
                    _mm256_shuffle_epi8(table_high, high),
                );
                sums[r] = _mm256_xor_si256(sums[r], product);
            }
        }
        for r in 0..R {
            // SAFETY: at + 32 <= len, the length of every output.
            unsafe { _mm256_storeu_si256(out[r].add(at).cast(), sums[r]) };
        }
        at += 32;
    }
    at
}
