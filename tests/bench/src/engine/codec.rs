//! Reed-Solomon and CRC32C, beside memcpy and the scalar kernel.

use crate::Environment;
use crate::meter::gigabytes_per_second;
use crate::row::{NOTHING, Report};
use basalt_erasure::{Codec, Kernel};
use std::hint::black_box;

const UNIT_BYTES: usize = 128 << 10;

pub(super) fn run(environment: &Environment, report: &mut Report) {
    for (k, m) in [(4, 2), (8, 2)] {
        if environment.wants("Reed-Solomon") {
            reed_solomon(environment, report, k, m);
        }
    }
    if environment.wants("CRC32C") {
        let block = content(4096, 1);
        let mut copy = vec![0; block.len()];
        let crc = gigabytes_per_second(block.len(), environment.short_time(), || {
            black_box(crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, black_box(&block)));
        });
        let memcpy = gigabytes_per_second(block.len(), environment.short_time(), || {
            copy.copy_from_slice(black_box(&block));
            black_box(&mut copy);
        });
        report.row("CRC32C, 4 KiB", "GB/s", crc, Some(("memcpy", memcpy)), NOTHING);
    }
}

fn reed_solomon(environment: &Environment, report: &mut Report, k: usize, m: usize) {
    let time = environment.short_time();
    let best = Codec::new(k, m);
    let scalar = Codec::with_kernel(k, m, Kernel::Scalar);
    let data: Vec<Vec<u8>> = (0..k).map(|i| content(UNIT_BYTES, i as u64)).collect();
    let data: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
    let mut parity = vec![vec![0; UNIT_BYTES]; m];
    let mut encode = |codec: &Codec| {
        let mut out: Vec<&mut [u8]> = parity.iter_mut().map(Vec::as_mut_slice).collect();
        gigabytes_per_second(k * UNIT_BYTES, time, || codec.encode(black_box(&data), &mut out))
    };
    let (encoded, encoded_scalar) = (encode(&best), encode(&scalar));

    // Data column 0 is lost; the others and the first parity column are there.
    let parity: Vec<&[u8]> = parity.iter().map(Vec::as_slice).collect();
    let mut present: Vec<(usize, &[u8])> = data.iter().copied().enumerate().skip(1).collect();
    present.push((k, parity[0]));
    let mut out = vec![0; UNIT_BYTES];
    let mut decode = |codec: &Codec| {
        gigabytes_per_second(k * UNIT_BYTES, time, || {
            codec.reconstruct(black_box(&present), &[0], &mut [&mut out]);
        })
    };
    let (decoded, decoded_scalar) = (decode(&best), decode(&scalar));
    assert_eq!(out, data[0], "the code does not give back what it took");

    let mut copies = vec![vec![0; UNIT_BYTES]; k];
    let memcpy = gigabytes_per_second(k * UNIT_BYTES, time, || {
        for (copy, column) in copies.iter_mut().zip(black_box(&data)) {
            copy.copy_from_slice(column);
        }
        black_box(&mut copies);
    });
    let kernel = best.kernel();
    for (what, value, slow) in
        [("encode", encoded, encoded_scalar), ("decode of one erasure", decoded, decoded_scalar)]
    {
        let name = format!("Reed-Solomon {k}+{m} {what} ({kernel:?})");
        report.row(&name, "GB/s", value, Some(("memcpy of the data", memcpy)), NOTHING);
        report.row(&name, "GB/s", value, Some(("scalar kernel", slow)), NOTHING);
    }
}

pub(super) fn content(len: usize, seed: u64) -> Vec<u8> {
    basalt_system::rng::Rng::new(seed).bytes(len)
}
