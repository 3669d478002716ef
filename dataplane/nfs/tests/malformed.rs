//! Whatever comes over the wire, the server neither panics nor stops serving others.

mod support;

use basalt_nfs::rpc::{PROGRAM_MOUNT, PROGRAM_NFS, RECORD_MAX_BYTES};
use basalt_nfs::v4::types::op;
use basalt_nfs::xdr::Writer;
use basalt_reactor::timeout;
use bytes::Bytes;
use std::time::Duration;
use support::*;

/// Deterministic: a failing case is found again.
struct Rng(u64);
impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        self.0 >> 33
    }
    fn below(&mut self, n: usize) -> usize {
        self.next() as usize % n.max(1)
    }
}

/// Records that mutation starts from: every procedure and operation with plausible arguments.
async fn seeds(wire: &Wire) -> Vec<Bytes> {
    let c = Client4::mount(wire, "fuzz", 1).await;
    let root = c.root(wire).await;
    let (id, fh) = c.open(wire, &root, "f", 3, true).await;
    let mut out = Vec::new();
    for number in 3..=75 {
        let ops = Ops::new().putfh(if number % 2 == 0 { &root } else { &fh }).op(number, |w| {
            w.fixed(&id);
            w.u64(0);
            w.u32(16);
            w.opaque(b"name");
            bitmap(w, &[4, 33, 36]);
            w.opaque(&[0; 24]);
            w.u64(1);
        });
        out.push((4, 1, c.with_sequence(ops, 1 + number % 60, 1, true).finish()));
    }
    for ops in [
        exchange_id("fuzz", 2, 0),
        create_session(c.id, 2),
        c.with_sequence(
            Ops::new().putfh(&root).op(op::OPEN, |w| c.open_args(w, "g", 3, 0, true)),
            62,
            1,
            true,
        ),
        c.with_sequence(write_op(Ops::new().putfh(&fh), &id, 0, b"data"), 63, 1, true),
    ] {
        out.push((4, 1, ops.finish()));
    }
    for procedure in 0..22 {
        let mut w = Writer::new();
        w.opaque(&root);
        w.opaque(b"name");
        for v in [0u32, 0, 16, 1, 4, 0, 0, 0, 0, 0] {
            w.u32(v);
        }
        out.push((3, procedure, w));
    }
    let mut records: Vec<Bytes> = out
        .into_iter()
        .map(|(version, procedure, w)| wire.build(PROGRAM_NFS, version, procedure, w))
        .collect();
    let mut path = Writer::new();
    path.opaque(b"/data");
    records.push(wire.build(PROGRAM_MOUNT, 3, 1, path));
    records
}

fn mutate(rng: &mut Rng, seed: &Bytes) -> Bytes {
    let mut b = seed.to_vec();
    for _ in 0..1 + rng.below(4) {
        // The RPC header mostly stays, or nothing behind it would ever be reached.
        let from = if rng.below(8) == 0 { 0 } else { 60.min(b.len()) };
        let span = b.len().saturating_sub(from);
        if span < 4 {
            break;
        }
        let at = from + rng.below(span);
        match rng.below(6) {
            0 => b[at] = rng.next() as u8,
            1 => b[at] ^= 1 << rng.below(8),
            2 => b.truncate(at),
            3 => {
                let word = at & !3;
                if word + 4 <= b.len() {
                    let v = [0u32, 1, 0xffff_ffff, 0x7fff_ffff, 0x8000_0000, 4, 1 << 20][rng.below(7)];
                    b[word..word + 4].copy_from_slice(&v.to_be_bytes());
                }
            }
            4 => b.extend((0..rng.below(40)).map(|i| i as u8)),
            _ => b.insert(at, rng.next() as u8),
        }
    }
    b.into()
}

#[test]
fn mutated_and_random_records() {
    let (mut sim, server, client) = sim(9, 2);
    let world = World::new();
    world.start(&mut sim, server);
    sim.block_on(client, || async move {
        let mut rng = Rng(42);
        let mut wire = Wire::connect().await;
        let seeds = seeds(&wire).await;
        let mut answered = 0;
        for round in 0..6000 {
            let record = match round % 20 {
                0 => Bytes::from((0..rng.below(300)).map(|_| rng.next() as u8).collect::<Vec<u8>>()),
                _ => mutate(&mut rng, &seeds[round % seeds.len()]),
            };
            // A duplicate of a call in progress has no reply; everything else is answered or closes the connection.
            match timeout(Duration::from_secs(5), wire.record(record)).await {
                Some(Some(_)) => answered += 1,
                _ => wire = Wire::connect().await,
            }
        }
        assert!(answered > 4000, "{answered} of 6000 were answered");
        let c = Client4::mount(&wire, "survivor", 1).await;
        c.root(&wire).await;
    });
}

#[test]
fn broken_framing_closes_only_its_connection() {
    let (mut sim, server, client) = sim(10, 1);
    let world = World::new();
    world.start(&mut sim, server);
    sim.block_on(client, || async move {
        let good = Wire::connect().await;
        let c = Client4::mount(&good, "client", 1).await;
        let too_long = ((RECORD_MAX_BYTES as u32 + 1) | (1 << 31)).to_be_bytes().to_vec();
        for bad in [too_long, b"GET / HTTP/1.1\r\n\r\n".to_vec(), [&[0x80, 0, 0, 4][..], &[1; 4]].concat()] {
            let wire = Wire::connect().await;
            wire.raw(bad.into()).await;
            assert_eq!(timeout(Duration::from_secs(60), wire.reply()).await, Some(None), "closed");
        }
        c.root(&good).await;
    });
}
