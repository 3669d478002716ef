//! Every erasure pattern of the codes we offer, every kernel, and ISA-L as the oracle.

use basalt_erasure::{Codec, Kernel};

fn columns(k: usize, len: usize, seed: u64) -> Vec<Vec<u8>> {
    let mut x = seed | 1;
    (0..k)
        .map(|_| {
            (0..len)
                .map(|_| {
                    x ^= x << 13;
                    x ^= x >> 7;
                    x ^= x << 17;
                    (x >> 32) as u8
                })
                .collect()
        })
        .collect()
}

fn encode(codec: &Codec, data: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut parity = vec![vec![0xaa; data[0].len()]; codec.m()];
    codec.encode(
        &data.iter().map(Vec::as_slice).collect::<Vec<_>>(),
        &mut parity.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>(),
    );
    parity
}

const CODES: [(usize, usize); 10] =
    [(1, 1), (1, 2), (2, 1), (2, 2), (3, 2), (4, 2), (8, 2), (8, 3), (10, 4), (32, 4)];

#[test]
fn every_kernel_gives_the_scalar_bytes_at_every_length() {
    for (k, m) in CODES {
        for len in [0, 1, 31, 32, 63, 64, 127, 128, 129, 1000, 4096, 4099] {
            let data = columns(k, len, (k * 31 + len) as u64);
            let expect = encode(&Codec::with_kernel(k, m, Kernel::Scalar), &data);
            for kernel in Kernel::available() {
                assert_eq!(
                    encode(&Codec::with_kernel(k, m, kernel), &data),
                    expect,
                    "{kernel:?} {k}+{m} {len}"
                );
            }
        }
    }
}

#[test]
fn every_pattern_of_erasures_comes_back() {
    for (k, m) in CODES {
        let n = k + m;
        let codec = Codec::new(k, m);
        let data = columns(k, 257, n as u64);
        let all: Vec<Vec<u8>> = data.iter().cloned().chain(encode(&codec, &data)).collect();
        let mut patterns = 0;
        subsets(n, m, &mut |lost| {
            let present: Vec<(usize, &[u8])> =
                (0..n).filter(|c| !lost.contains(c)).map(|c| (c, all[c].as_slice())).collect();
            let mut out = vec![vec![0; 257]; lost.len()];
            codec.reconstruct(&present, lost, &mut out.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>());
            for (column, got) in lost.iter().zip(&out) {
                assert!(*got == all[*column], "{k}+{m} lost {lost:?}");
            }
            patterns += 1;
        });
        assert!(patterns >= n);
    }
}

/// All subsets of 1..=max columns of n.
fn subsets(n: usize, max: usize, f: &mut dyn FnMut(&[usize])) {
    fn go(next: usize, n: usize, max: usize, chosen: &mut Vec<usize>, f: &mut dyn FnMut(&[usize])) {
        for c in next..n {
            chosen.push(c);
            f(chosen);
            if chosen.len() < max {
                go(c + 1, n, max, chosen, f);
            }
            chosen.pop();
        }
    }
    go(0, n, max, &mut Vec::new(), f);
}

#[test]
#[should_panic(expected = "named twice")]
fn a_column_twice_is_refused() {
    let column = [1u8; 8];
    Codec::new(2, 1).reconstruct(&[(0, &column), (0, &column)], &[1], &mut [&mut [0u8; 8]]);
}

/// Intel's ISA-L, where the system has it (Debian package libisal2).
mod isa_l {
    use super::*;
    use std::ffi::{c_int, c_uchar, c_void};

    type GenMatrix = unsafe extern "C" fn(*mut c_uchar, c_int, c_int);
    type InitTables = unsafe extern "C" fn(c_int, c_int, *const c_uchar, *mut c_uchar);
    type Encode =
        unsafe extern "C" fn(c_int, c_int, c_int, *const c_uchar, *const *const c_uchar, *const *mut c_uchar);

    fn symbol(library: *mut c_void, name: &std::ffi::CStr) -> *mut c_void {
        // SAFETY: a live library handle and a terminated name.
        let found = unsafe { libc::dlsym(library, name.as_ptr()) };
        assert!(!found.is_null(), "ISA-L has no {name:?}");
        found
    }

    #[test]
    fn agrees_with_isa_l() {
        // SAFETY: loading a well-known library that runs no code of its own at load time.
        let library = unsafe { libc::dlopen(c"libisal.so.2".as_ptr(), libc::RTLD_NOW) };
        if library.is_null() {
            assert!(std::env::var_os("BASALT_REQUIRE_ISAL").is_none(), "libisal.so.2 is not installed");
            println!("skipped: libisal.so.2 is not installed");
            return;
        }
        // SAFETY: the signatures of isa-l's erasure_code.h.
        let (generate, init, encode_data) = unsafe {
            (
                std::mem::transmute::<*mut c_void, GenMatrix>(symbol(library, c"gf_gen_cauchy1_matrix")),
                std::mem::transmute::<*mut c_void, InitTables>(symbol(library, c"ec_init_tables")),
                std::mem::transmute::<*mut c_void, Encode>(symbol(library, c"ec_encode_data")),
            )
        };
        for (k, m) in CODES {
            let len = 4096;
            let data = columns(k, len, 7);
            let mut matrix = vec![0u8; (k + m) * k];
            let mut tables = vec![0u8; 32 * k * m];
            let mut parity = vec![vec![0u8; len]; m];
            let ins: Vec<*const u8> = data.iter().map(|d| d.as_ptr()).collect();
            let outs: Vec<*mut u8> = parity.iter_mut().map(|p| p.as_mut_ptr()).collect();
            // SAFETY: buffer sizes as erasure_code.h asks: (k+m) x k matrix, 32 x k x m tables, `len` bytes a column.
            unsafe {
                generate(matrix.as_mut_ptr(), (k + m) as c_int, k as c_int);
                init(k as c_int, m as c_int, matrix[k * k..].as_ptr(), tables.as_mut_ptr());
                encode_data(
                    len as c_int,
                    k as c_int,
                    m as c_int,
                    tables.as_ptr(),
                    ins.as_ptr(),
                    outs.as_ptr(),
                );
            }
            assert!(encode(&Codec::new(k, m), &data) == parity, "{k}+{m} differs from ISA-L");
        }
    }
}
