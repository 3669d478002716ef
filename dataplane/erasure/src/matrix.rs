//! The code's matrix and its inverses.

use crate::field::{inverse, mul};

/// Row-major coefficients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Matrix {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) values: Vec<u8>,
}

impl Matrix {
    fn zero(rows: usize, columns: usize) -> Matrix {
        Matrix { rows, columns, values: vec![0; rows * columns] }
    }
    pub(crate) fn row(&self, r: usize) -> &[u8] {
        &self.values[r * self.columns..(r + 1) * self.columns]
    }
    fn row_mut(&mut self, r: usize) -> &mut [u8] {
        &mut self.values[r * self.columns..(r + 1) * self.columns]
    }

    /// The m parity rows over k data columns. Every square submatrix of a Cauchy matrix is invertible, which is what
    /// makes any k columns enough (a Vandermonde matrix is not so at larger m).
    pub(crate) fn cauchy(k: usize, m: usize) -> Matrix {
        let mut matrix = Matrix::zero(m, k);
        for i in 0..m {
            for j in 0..k {
                matrix.row_mut(i)[j] = inverse((k + i) as u8 ^ j as u8);
            }
        }
        matrix
    }

    /// `self` being the parity rows: the rows that make columns `want` out of the k columns `from`.
    pub(crate) fn recovery(&self, from: &[usize], want: &[usize]) -> Matrix {
        let k = self.columns;
        let mut present = Matrix::zero(k, k);
        for (r, &column) in from.iter().enumerate() {
            self.generator_row(column, present.row_mut(r));
        }
        let inverted = present.invert();
        let mut rows = Matrix::zero(want.len(), k);
        let mut wanted = vec![0; k];
        for (r, &column) in want.iter().enumerate() {
            self.generator_row(column, &mut wanted);
            for c in 0..k {
                rows.row_mut(r)[c] = (0..k).fold(0, |sum, j| sum ^ mul(wanted[j], inverted.row(j)[c]));
            }
        }
        rows
    }

    /// Row `column` of the whole generator matrix: identity above, parity below.
    fn generator_row(&self, column: usize, out: &mut [u8]) {
        let k = self.columns;
        assert!(column < k + self.rows, "column {column} is not of this code");
        if column < k {
            out.fill(0);
            out[column] = 1;
        } else {
            out.copy_from_slice(self.row(column - k));
        }
    }

    /// Gauss-Jordan. Panics on a singular matrix, which here means a column named twice.
    fn invert(mut self) -> Matrix {
        let n = self.rows;
        let mut result = Matrix::zero(n, n);
        for i in 0..n {
            result.row_mut(i)[i] = 1;
        }
        for pivot in 0..n {
            let found = (pivot..n).find(|&r| self.row(r)[pivot] != 0).expect("a column is named twice");
            for c in 0..n {
                self.values.swap(pivot * n + c, found * n + c);
                result.values.swap(pivot * n + c, found * n + c);
            }
            let scale = inverse(self.row(pivot)[pivot]);
            for c in 0..n {
                self.row_mut(pivot)[c] = mul(self.row(pivot)[c], scale);
                result.row_mut(pivot)[c] = mul(result.row(pivot)[c], scale);
            }
            for r in 0..n {
                let factor = self.row(r)[pivot];
                if r == pivot || factor == 0 {
                    continue;
                }
                for c in 0..n {
                    self.values[r * n + c] ^= mul(factor, self.values[pivot * n + c]);
                    result.values[r * n + c] ^= mul(factor, result.values[pivot * n + c]);
                }
            }
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The matrix is on-media format: these bytes never change.
    #[test]
    fn golden_coefficients() {
        assert_eq!(Matrix::cauchy(4, 2).values, [71, 167, 122, 186, 167, 71, 186, 122]);
    }
}
