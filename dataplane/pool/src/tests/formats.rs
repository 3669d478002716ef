//! What is on media, pinned byte by byte, and parsers against damage.

use crate::geometry::layouts;
use crate::label::{LABEL_BYTES, Label, LabelError};
use crate::record::Record;
use crate::rootlog::{self, Position};
use crate::state::RootState;
use crate::types::*;
use proptest::prelude::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn label() -> Label {
    Label {
        pool_uuid: Uuid([0x11; 16]),
        pool_name: "tank".into(),
        drive_uuid: Uuid([0x22; 16]),
        drive_index: DriveIndex(3),
        drive_count: 6,
        domain: "drive-3".into(),
        scheme: Scheme { k: 4, m: 2 },
        layout: layouts(&[2 << 30; 6], Scheme { k: 4, m: 2 })[3],
        features_compatible: 0,
        generation: 7,
        root_set_generation: 5,
        root_set: (0..5).map(DriveIndex).collect(),
    }
}

fn records() -> Vec<Record> {
    let segment = SegmentEntry {
        id: SegmentId(9),
        shard: ShardId(1),
        epoch: Epoch(2),
        scheme: Scheme { k: 1, m: 1 },
        class: Class::Meta,
        state: SegmentState::Sealed,
        code: 1,
        key_id: 0,
        members: vec![AuRef { drive: DriveIndex(0), au: 4 }, AuRef { drive: DriveIndex(1), au: 5 }],
    };
    let chunk = ChunkEntry {
        id: ChunkId(3),
        shard: ShardId(1),
        members: vec![(DriveIndex(1), 6), (DriveIndex(0), 7)],
    };
    let drive = |n: u16| Record::DriveAdded {
        index: DriveIndex(n),
        uuid: Uuid([n as u8 + 1; 16]),
        domain: format!("d{n}"),
        size_bytes: 1 << 30,
        au_count: 100,
        journal_slots: 8,
    };
    vec![
        Record::Pool {
            uuid: Uuid([9; 16]),
            name: "p".into(),
            scheme: Scheme { k: 1, m: 1 },
            geometry: Geometry { au_bytes: 2 << 20, chunk_bytes: 2 << 20 },
            ready: true,
        },
        drive(0),
        drive(1),
        Record::DriveOut { index: DriveIndex(1), since: 77, cause: "io".into() },
        Record::RootSet {
            generation: 2,
            members: vec![DriveIndex(0)],
            previous: vec![DriveIndex(0), DriveIndex(1)],
        },
        Record::ShardCreated { id: ShardId(1) },
        Record::ShardEpoch { id: ShardId(1), epoch: Epoch(2) },
        Record::SegmentGranted(segment),
        Record::SegmentSealed { id: SegmentId(9) },
        Record::SegmentsFreed { ids: vec![SegmentId(9)] },
        Record::ChunkGranted(chunk),
        Record::ChunkFreed { id: ChunkId(3) },
        Record::MetaSet { key: b"k".to_vec(), value: b"vv".to_vec() },
        Record::MetaDeleted { key: b"k".to_vec() },
        Record::ShardDestroyed { id: ShardId(1) },
        Record::NextIds { segment: 10, shard: 2, chunk: 4 },
    ]
}

#[test]
fn label_golden_bytes() {
    let bytes = label().encode(2);
    assert_eq!(bytes.len(), LABEL_BYTES);
    assert_eq!(hex(&bytes[..320]), GOLDEN_LABEL);
    assert!(bytes[320..].iter().all(|&b| b == 0));
    assert_eq!(Label::decode(&bytes, 2).unwrap(), label());
    assert_eq!(Label::decode(&bytes, 1).unwrap_err(), LabelError::Damaged("it belongs at another place"));
    assert_eq!(Label::decode(&[0; LABEL_BYTES], 0).unwrap_err(), LabelError::Absent);
    assert_eq!(Label::decode(&[], 0).unwrap_err(), LabelError::Absent);
}

const GOLDEN_LABEL: &str = "424153414c544c42010000008ffb45660000000000000000000000000000000000000000000000000200000003000600111111111111111111111111111111112222222222222222222222222222222274616e6b00000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000064726976652d3300000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000080000000000000200000000000000020000000000000002000000000000000500100000000000030010000000000008002000000000000800a0000000040000000ab03000007000000000000000500000000000000040205000000010002000300040000000000000000000000";

#[test]
fn record_golden_bytes() {
    let lines: Vec<String> = records()
        .iter()
        .map(|r| {
            let mut out = Vec::new();
            r.encode(&mut out);
            hex(&out)
        })
        .collect();
    assert_eq!(lines, GOLDEN_RECORDS);
}

const GOLDEN_RECORDS: [&str; 16] = [
    "012800000009090909090909090909090909090909010000007001010000200000000000000020000000000001",
    "022800000000000101010101010101010101010101010102000000643000000040000000006400000008000000",
    "022800000001000202020202020202020202020202020202000000643100000040000000006400000008000000",
    "031000000001004d0000000000000002000000696f",
    "0412000000020000000000000001000000020000000100",
    "050400000001000000",
    "060c000000010000000200000000000000",
    "082a000000090000000000000001000000020000000000000001010101010000000002000004000000010005000000",
    "09080000000900000000000000",
    "0a0c000000010000000900000000000000",
    "0b1900000003000000000000000100000002010006000000000007000000",
    "0c080000000300000000000000",
    "0d0b000000010000006b020000007676",
    "0e05000000010000006b",
    "070400000001000000",
    "0f140000000a00000000000000020000000400000000000000",
];

#[test]
fn frame_and_claim_golden_bytes() {
    let frame =
        rootlog::batch_frame(Uuid([9; 16]), Position { term: 3, sequence: 44 }, 1, 0xdeadbeef, b"payload");
    assert_eq!(frame.bytes.len(), 4096);
    assert_eq!(hex(&frame.bytes[..80]), GOLDEN_FRAME);
    let claim = rootlog::claim_block(Uuid([9; 16]), 3);
    assert_eq!(claim.len(), 4096);
    assert_eq!(hex(&claim[..40]), GOLDEN_CLAIM);
}

const GOLDEN_FRAME: &str = "424153414c54524caab1eb28010002000909090909090909090909090909090903000000000000002c000000000000000100000007000000efbeadde000000007061796c6f6164000000000000000000";
const GOLDEN_CLAIM: &str = "424153414c54434c737556e001000000090909090909090909090909090909090300000000000000";

#[test]
fn a_checkpoint_makes_the_same_state() {
    let state = RootState::from_records(&records()[..8]).unwrap();
    let again = RootState::from_records(&state.to_records()).unwrap();
    assert_eq!(state, again);
    assert_eq!(state.next_segment, 10);
    let gone = RootState::from_records(&records()).unwrap();
    assert!(
        gone.segments.is_empty() && gone.chunks.is_empty() && gone.shards.is_empty() && gone.meta_bytes == 0
    );
    assert_eq!((gone.next_segment, gone.next_shard, gone.next_chunk), (10, 2, 4));
    assert!(gone.drives.values().all(|d| d.aus.used() == 0 && d.slots.used() == 0));
}

#[test]
fn unknown_features_are_refused() {
    for (offset, kind) in [(24, "read-only"), (32, "incompatible")] {
        let mut bytes = label().encode(0).to_vec();
        bytes[offset] = 0x10;
        bytes[12..16].fill(0);
        let crc = crate::label::crc32c(&[&bytes]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        match Label::decode(&bytes, 0) {
            Err(LabelError::Features { kind: k, bits: 0x10 }) => assert_eq!(k, kind),
            other => panic!("{other:?}"),
        }
    }
}

fn any_record() -> impl Strategy<Value = Record> {
    let drive = any::<u16>().prop_map(DriveIndex);
    let members = prop::collection::vec((any::<u16>(), any::<u32>()), 0..12);
    let segment = (any::<[u64; 2]>(), any::<u32>(), any::<[u8; 3]>(), any::<[bool; 2]>(), members.clone())
        .prop_map(|(ids, shard, [k, m, code], [meta, sealed], members)| {
            Record::SegmentGranted(SegmentEntry {
                id: SegmentId(ids[0]),
                shard: ShardId(shard),
                epoch: Epoch(ids[1]),
                scheme: Scheme { k, m },
                class: if meta { Class::Meta } else { Class::Data },
                state: if sealed { SegmentState::Sealed } else { SegmentState::Open },
                code,
                key_id: shard ^ 5,
                members: members.into_iter().map(|(d, au)| AuRef { drive: DriveIndex(d), au }).collect(),
            })
        });
    let chunk = (any::<u64>(), any::<u32>(), members).prop_map(|(id, shard, members)| {
        let members = members.into_iter().map(|(d, slot)| (DriveIndex(d), slot)).collect();
        Record::ChunkGranted(ChunkEntry { id: ChunkId(id), shard: ShardId(shard), members })
    });
    let bytes = || prop::collection::vec(any::<u8>(), 0..200);
    prop_oneof![
        segment,
        chunk,
        (bytes(), bytes()).prop_map(|(key, value)| Record::MetaSet { key, value }),
        bytes().prop_map(|key| Record::MetaDeleted { key }),
        (drive.clone(), any::<u64>(), ".{0,40}").prop_map(|(index, since, cause)| Record::DriveOut {
            index,
            since,
            cause
        }),
        (any::<u64>(), prop::collection::vec(drive.clone(), 0..9), prop::collection::vec(drive, 0..9))
            .prop_map(|(generation, members, previous)| Record::RootSet { generation, members, previous }),
        prop::collection::vec(any::<u64>().prop_map(SegmentId), 0..30)
            .prop_map(|ids| Record::SegmentsFreed { ids }),
        (any::<u32>(), any::<u64>())
            .prop_map(|(id, epoch)| Record::ShardEpoch { id: ShardId(id), epoch: Epoch(epoch) }),
        (any::<[u64; 2]>(), any::<u32>()).prop_map(|(ids, shard)| Record::NextIds {
            segment: ids[0],
            shard,
            chunk: ids[1]
        }),
    ]
}

proptest! {
    #[test]
    fn records_come_back(records in prop::collection::vec(any_record(), 0..20)) {
        let mut bytes = Vec::new();
        records.iter().for_each(|r| r.encode(&mut bytes));
        prop_assert_eq!(Record::decode_all(&bytes), Some(records));
    }

    #[test]
    fn damaged_records_do_not_panic(at in any::<prop::sample::Index>(), value in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let mut bytes = Vec::new();
        records().iter().for_each(|r| r.encode(&mut bytes));
        let at = at.index(bytes.len());
        bytes[at] = value;
        bytes.truncate(cut.index(bytes.len()) + 1);
        if let Some(records) = Record::decode_all(&bytes) {
            let _ = RootState::from_records(&records);
        }
    }

    #[test]
    fn random_bytes_are_no_records(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Record::decode_all(&bytes);
    }

    #[test]
    fn any_flipped_bit_of_a_label_is_seen(bit in 0usize..LABEL_BYTES * 8) {
        let mut bytes = label().encode(0).to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(Label::decode(&bytes, 0).is_err());
    }

    /// Wrong on purpose with a right checksum: whatever it says, it is refused or sound.
    #[test]
    fn forged_labels_are_sound_or_refused(changes in prop::collection::vec((16usize..320, any::<u8>()), 1..8)) {
        let mut bytes = label().encode(0).to_vec();
        for (at, value) in changes {
            bytes[at] = value;
        }
        bytes[12..16].fill(0);
        let crc = crate::label::crc32c(&[&bytes]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        if let Ok(label) = Label::decode(&bytes, 0) {
            prop_assert!(label.layout.is_sound());
        }
    }
}
