//! The drive in memory.

use basalt_bdev::malloc::MallocDrive;
use basalt_bdev::{BdevError, Durability};
use basalt_reactor::sim::Sim;
use bytes::Bytes;

#[test]
fn reads_back_what_was_written() {
    let mut sim = Sim::new(1);
    let n = sim.add_node(1);
    let drive = MallocDrive::create("Malloc0", (1 << 20) + 100);
    assert_eq!(drive.info().size_bytes, 1 << 20);
    sim.block_on(n, || async move {
        let ch = drive.open().unwrap();
        // Across two chunks, in two pieces.
        let at = (256 << 10) - 4096;
        let piece = |b| Bytes::from(vec![b; 4096]);
        ch.write(at, vec![piece(1), piece(2)], Durability::Durable).await.unwrap();
        let got = ch.read(at - 4096, 4 * 4096).await.unwrap();
        assert!(got.chunks(4096).map(|b| b[17]).eq([0, 1, 2, 0]));
        ch.unmap(at, 4096).await.unwrap();
        assert!(ch.read(at, 4096).await.unwrap().iter().all(|&b| b == 0));
        assert!(ch.compare_and_write(at, piece(0), piece(9)).await.unwrap());
        assert!(!ch.compare_and_write(at, piece(0), piece(8)).await.unwrap());
        assert_eq!(drive.open().unwrap().read(at, 4096).await.unwrap()[0], 9);
        assert!(matches!(ch.read(1 << 20, 4096).await, Err(BdevError::OutOfRange { .. })));
        ch.flush().await.unwrap();
    });
}
