//! A value that is damaged or gone.

use std::path::Path;
use std::sync::Arc;

use ringhold_storage::raft_log::{Error, RaftLog};

use crate::disk::Disk;

/// A log whose entries 3 to 7 are durable and known to be, with entry 7 of several pieces, and 8 appended last.
fn disk() -> Disk {
    let disk = Disk::default();
    disk.power(usize::MAX);
    let log = open(&disk).unwrap();
    log.set_record("vote", b"for 3 in term 9").unwrap();
    log.append(0, &(0..9).map(|n| vec![n; 10]).collect::<Vec<_>>()).unwrap();
    log.purge(2).unwrap();
    log.truncate(7).unwrap();
    log.set_snapshot(&[5; 70_000]).unwrap();
    log.append(7, &[vec![7; 70_000]]).unwrap();
    log.append(8, &[vec![8; 10]]).unwrap();
    disk
}

fn open(disk: &Disk) -> Result<RaftLog, Error> {
    RaftLog::open(Arc::new(disk.clone()), Path::new("/data/control"))
}

#[test]
fn any_damage_is_told_and_named() {
    let values = disk().values();
    assert_eq!(values.len(), 15);
    for (key, value) in &values {
        // A bit in each byte of a small value, and a few of a large one; then the value is gone.
        let places = (0..value.len()).step_by(value.len().div_ceil(50)).map(Some);
        for place in places.chain([None]) {
            let mut values = values.clone();
            match place {
                Some(place) => values.get_mut(key).unwrap()[place] ^= 0x10,
                None => drop(values.remove(key)),
            }
            let found = open(&Disk::with(values)).and_then(|log| {
                let all = (log.read(0..u64::MAX, usize::MAX)?, log.record("vote")?, log.snapshot()?);
                Ok((log.range(), all))
            });
            let what = match &found {
                Err(Error::Damaged { what, .. }) => what.as_str(),
                Err(e) => panic!("{e}"),
                Ok((range, (entries, vote, snapshot))) => {
                    assert_eq!(entries.len() as u64, range.end - range.start);
                    match (range.end, vote, snapshot) {
                        (8, _, _) => "cut short",
                        (9, None, _) => "no vote",
                        (9, _, None) => "no snapshot",
                        _ => panic!("nothing is wrong"),
                    }
                }
            };
            let expected = match key.as_slice() {
                b"F" => "its format",
                b"B" => "the log's bounds",
                b"nvote" if place.is_none() => "no vote",
                b"nvote" => "the record `vote`",
                b"nsnapshot" if place.is_none() => "no snapshot",
                b"nsnapshot" => "the record `snapshot`",
                [b's', ..] => "the snapshot",
                // Whether the last append was ever acknowledged, nobody can say.
                [b'e', 0, 0, 0, 0, 0, 0, 0, 8, ..] => "cut short",
                [b'e', 0, 0, 0, 0, 0, 0, 0, index, ..] => &format!("entry {index}"),
                other => panic!("{other:?}"),
            };
            assert_eq!(what, expected, "{key:?} at {place:?}");
        }
    }
}

#[test]
fn damage_says_what_to_do() {
    let mut values = disk().values();
    values.remove(&[b"e".as_slice(), &4u64.to_be_bytes(), &[0; 4]].concat());
    let told = open(&Disk::with(values)).err().unwrap().to_string();
    for part in
        ["/data/control", "entry 4", "Remove the node from the cluster", "let it join anew with an empty data folder"]
    {
        assert!(told.contains(part), "{told}");
    }
}

#[test]
fn an_entry_that_is_durable_by_being_opened_is_known_to_be() {
    let disk = disk();
    drop(open(&disk).unwrap());
    let mut values = disk.values();
    values.remove(&[b"e".as_slice(), &8u64.to_be_bytes(), &[0; 4]].concat());
    let found = open(&Disk::with(values)).err().unwrap();
    assert!(matches!(&found, Error::Damaged { what, .. } if what == "entry 8"), "{found}");
}

#[test]
fn what_is_another_s_is_left_alone() {
    let disk = Disk::with([(b"m".to_vec(), b"a manifest".to_vec())].into());
    assert!(matches!(open(&disk), Err(Error::Foreign(_))));
    let disk = self::disk();
    let mut values = disk.values();
    let format = 2u32.to_le_bytes();
    let crc = crc32(&[b"F".as_slice(), &format].concat());
    values.insert(b"F".to_vec(), [crc.to_le_bytes(), format].concat());
    assert!(matches!(open(&Disk::with(values)), Err(Error::OtherFormat { found: 2, .. })));
}

/// Bit by bit, as the standard has it: the log's own is a crate's.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 })
    })
}
