//! Matrix times columns, the one hot loop. Each kernel keeps the accumulators of up to four output rows in
//! registers while it walks the inputs once.

use crate::field::mul;
use crate::matrix::Matrix;

#[cfg(target_arch = "x86_64")]
mod x86;

/// Instruction set used for the multiplication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// Table look-ups, any CPU.
    Scalar,
    /// 32-byte nibble shuffles.
    Avx2,
    /// 64-byte affine transforms.
    Avx512Gfni,
}

impl Kernel {
    /// The fastest this CPU has.
    pub fn detect() -> Kernel {
        Kernel::available().pop().unwrap_or(Kernel::Scalar)
    }

    /// All that this CPU can run, slowest first.
    pub fn available() -> Vec<Kernel> {
        #[allow(unused_mut)]
        let mut kernels = vec![Kernel::Scalar];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") {
                kernels.push(Kernel::Avx2);
            }
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("gfni")
            {
                kernels.push(Kernel::Avx512Gfni);
            }
        }
        kernels
    }
}

/// One coefficient in the forms that the kernels multiply by.
#[derive(Clone, Copy)]
pub(crate) struct Coefficient {
    value: u8,
    /// Products of the low and of the high nibble, for shuffles.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    nibbles: [[u8; 16]; 2],
    /// 8 x 8 bit matrix for GF2P8AFFINEQB: byte 7-i is the row that makes bit i of the product.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    affine: u64,
}

impl Coefficient {
    fn new(value: u8) -> Coefficient {
        let mut nibbles = [[0; 16]; 2];
        for x in 0..16u8 {
            nibbles[0][x as usize] = mul(value, x);
            nibbles[1][x as usize] = mul(value, x << 4);
        }
        let mut affine = 0u64;
        for out_bit in 0..8 {
            let row =
                (0..8).fold(0u8, |row, in_bit| row | (mul(value, 1 << in_bit) >> out_bit & 1) << in_bit);
            affine |= (row as u64) << (8 * (7 - out_bit));
        }
        Coefficient { value, nibbles, affine }
    }
}

/// A matrix prepared for [`multiply`].
pub(crate) struct Tables {
    columns: usize,
    coefficients: Vec<Coefficient>,
}

impl Tables {
    pub(crate) fn new(matrix: &Matrix) -> Tables {
        Tables {
            columns: matrix.columns,
            coefficients: matrix.values.iter().map(|&v| Coefficient::new(v)).collect(),
        }
    }
    fn rows(&self, first: usize, count: usize) -> &[Coefficient] {
        &self.coefficients[first * self.columns..(first + count) * self.columns]
    }
}

/// out = tables x inputs, column-wise over equally long slices.
pub(crate) fn multiply(kernel: Kernel, tables: &Tables, inputs: &[&[u8]], out: &mut [&mut [u8]]) {
    let Some(len) = out.first().map(|o| o.len()) else { return };
    assert_eq!(inputs.len(), tables.columns);
    assert_eq!(out.len() * tables.columns, tables.coefficients.len());
    assert!(
        inputs.iter().all(|i| i.len() == len) && out.iter().all(|o| o.len() == len),
        "columns differ in length"
    );
    let mut first = 0;
    while first < out.len() {
        let count = (out.len() - first).min(4);
        let rows = tables.rows(first, count);
        let done = match (kernel, &mut out[first..first + count]) {
            #[cfg(target_arch = "x86_64")]
            (Kernel::Avx2 | Kernel::Avx512Gfni, group) => match group {
                [a] => x86::multiply(kernel, rows, inputs, [a]),
                [a, b] => x86::multiply(kernel, rows, inputs, [a, b]),
                [a, b, c] => x86::multiply(kernel, rows, inputs, [a, b, c]),
                [a, b, c, d] => x86::multiply(kernel, rows, inputs, [a, b, c, d]),
                _ => unreachable!("groups are of one to four rows"),
            },
            _ => 0,
        };
        scalar(rows, inputs, &mut out[first..first + count], done);
        first += count;
    }
}

/// Bytes `from..` of each output: everything on CPUs without SIMD, the ragged end otherwise.
fn scalar(rows: &[Coefficient], inputs: &[&[u8]], out: &mut [&mut [u8]], from: usize) {
    for (r, out) in out.iter_mut().enumerate() {
        let out = &mut out[from..];
        out.fill(0);
        for (coefficient, input) in rows[r * inputs.len()..].iter().zip(inputs) {
            let [low, high] = &coefficient.nibbles;
            match coefficient.value {
                0 => {}
                1 => out.iter_mut().zip(&input[from..]).for_each(|(o, i)| *o ^= i),
                _ => out
                    .iter_mut()
                    .zip(&input[from..])
                    .for_each(|(o, i)| *o ^= low[(i & 15) as usize] ^ high[(i >> 4) as usize]),
            }
        }
    }
}
