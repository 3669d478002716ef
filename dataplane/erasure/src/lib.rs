//! Systematic Reed-Solomon over GF(2^8) with a Cauchy matrix, so that any k of the k+m columns give back all.
//!
//! Field polynomial 0x11d; the coefficient of parity row `i` and data column `j` is `1 / ((k + i) xor j)`: the matrix that
//! ISA-L's `gf_gen_cauchy1_matrix` makes. It is part of the on-media format and never changes; the kernels that
//! multiply by it are picked at run time by what the CPU has.

mod field;
mod kernel;
mod matrix;

pub use kernel::Kernel;

use matrix::Matrix;
use std::sync::Arc;

/// Most data columns a code may have.
pub const MAX_DATA: usize = 32;
/// Most parity columns a code may have.
pub const MAX_PARITY: usize = 4;
/// Most columns in all.
pub const MAX_COLUMNS: usize = MAX_DATA + MAX_PARITY;

/// A k+m code. Cheap to clone, shareable between threads.
#[derive(Clone)]
pub struct Codec {
    inner: Arc<Inner>,
}

struct Inner {
    k: usize,
    m: usize,
    kernel: Kernel,
    /// m x k.
    parity_rows: Matrix,
    encode: kernel::Tables,
}

impl Codec {
    /// # Panics
    /// When k is not in `1..=MAX_DATA` or m is above `MAX_PARITY`: schemes are validated where they enter.
    pub fn new(k: usize, m: usize) -> Codec {
        Codec::with_kernel(k, m, Kernel::detect())
    }

    /// As [`Codec::new`], with a kernel of the caller's choice (tests and benchmarks compare them).
    pub fn with_kernel(k: usize, m: usize, kernel: Kernel) -> Codec {
        assert!((1..=MAX_DATA).contains(&k) && m <= MAX_PARITY, "no code {k}+{m}");
        let parity_rows = Matrix::cauchy(k, m);
        let encode = kernel::Tables::new(&parity_rows);
        Codec { inner: Arc::new(Inner { k, m, kernel, parity_rows, encode }) }
    }

    pub fn k(&self) -> usize {
        self.inner.k
    }
    pub fn m(&self) -> usize {
        self.inner.m
    }
    pub fn kernel(&self) -> Kernel {
        self.inner.kernel
    }

    /// Computes the m parity columns of the k data columns; all slices have the same length, any length.
    pub fn encode(&self, data: &[&[u8]], parity: &mut [&mut [u8]]) {
        assert_eq!((data.len(), parity.len()), (self.inner.k, self.inner.m), "columns of another code");
        kernel::multiply(self.inner.kernel, &self.inner.encode, data, parity);
    }

    /// Recomputes the columns `want` (data or parity, by index) into `out` from any k `present` columns. Further present
    /// columns are ignored.
    ///
    /// # Panics
    /// When fewer than k columns are present or a column is named twice.
    pub fn reconstruct(&self, present: &[(usize, &[u8])], want: &[usize], out: &mut [&mut [u8]]) {
        let k = self.inner.k;
        assert!(present.len() >= k, "{} columns cannot give back {k}", present.len());
        assert_eq!(want.len(), out.len());
        let present = &present[..k];
        let from: Vec<usize> = present.iter().map(|p| p.0).collect();
        let columns: Vec<&[u8]> = present.iter().map(|p| p.1).collect();
        let rows = self.inner.parity_rows.recovery(&from, want);
        kernel::multiply(self.inner.kernel, &kernel::Tables::new(&rows), &columns, out);
    }
}
