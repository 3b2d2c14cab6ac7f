//! Damage: found, named, and gone around.

use std::collections::BTreeSet;
use std::sync::Arc;

use ringhold_storage::blocks::{Blocks, InMemory};
use ringhold_storage::checkpoints::{Checkpoints, Error, Options};

use crate::model::{Content, Device, Random, about, read};

/// Two restore points of two checkpoints each, 1 ← 2 and 3 ← 4, and what they stand for.
fn filled(disk: &Arc<InMemory>) -> Vec<Content> {
    let store = open(disk).unwrap();
    let random = &mut Random::new(5);
    let mut device = Device::default();
    let mut contents = vec![Content::default()];
    for base in [None, Some(1), None, Some(3)] {
        device.step(random, 4, 60);
        let mut draft = store.begin("cpu0", device.epoch, base).unwrap();
        device.write(&mut draft, base.is_none(), random).unwrap();
        draft.commit(about(device.epoch)).unwrap();
        contents.push(device.content.clone());
    }
    contents
}

fn open(disk: &Arc<InMemory>) -> Result<Checkpoints, Error> {
    Checkpoints::open(disk.clone(), Options::default())
}

fn keys(disk: &InMemory) -> Vec<Vec<u8>> {
    let (mut keys, mut from) = (Vec::new(), Vec::new());
    while let Some(key) = disk.first_from(&from).unwrap() {
        from = [key.as_slice(), &[0]].concat();
        keys.push(key);
    }
    keys
}

/// Which epoch's a key is, by its set or its name; `None` for the format's.
fn epoch_of(key: &[u8]) -> Option<u64> {
    let word = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().unwrap());
    match key[0] {
        // Sets are counted from 1, in the order of the drafts.
        b'c' => Some(word(&key[1..9])),
        b'm' => Some(word(&key[key.len() - 8..])),
        _ => None,
    }
}

/// After one checkpoint has been damaged: named, and recovered from the newest that does not stand on it.
fn check(store: &Checkpoints, damaged: u64, contents: &[Content]) {
    let standing = |epoch: u64| epoch == damaged || (damaged % 2 == 1 && epoch == damaged + 1);
    let whole = (1..=4).rev().find(|epoch| !standing(*epoch)).unwrap();
    let bad: BTreeSet<u64> = (1..=4).filter(|epoch| standing(*epoch)).collect();
    let verified = store.verify(&mut |_| ()).unwrap();
    let named: BTreeSet<u64> = verified.iter().filter(|v| v.damage.is_some()).map(|v| v.epoch).collect();
    assert_eq!((verified.len(), &named), (4, &bad));
    let found = store.latest("cpu0").unwrap();
    assert_eq!(found.checkpoint.as_ref().map(|manifest| manifest.epoch), Some(whole));
    assert_eq!(found.newest, Some(4));
    assert_eq!(read(store, "cpu0", whole).unwrap(), contents[whole as usize]);
    let passed: Vec<u64> = found.passed_over.iter().map(|damage| damage.epoch).collect();
    assert_eq!(passed, bad.iter().rev().copied().filter(|epoch| *epoch > whole).collect::<Vec<_>>());
    match found.cost() {
        Some(cost) => assert!(
            cost.contains("checkpoint 4 of `cpu0` is damaged")
                && cost.contains(&format!("after checkpoint {whole}, up to 4, is lost"))
                // Where the newest manifest can still be read, it says how much that is.
                && (cost.ends_with(&format!("is lost: {} ms of work.", 4 - whole)) || cost.ends_with("is lost.")),
            "{cost}"
        ),
        None => assert_eq!(whole, 4),
    }
    // Nothing is built on it, and what is built beside it is whole.
    for epoch in &bad {
        assert!(matches!(store.begin("cpu0", 9, Some(*epoch)), Err(Error::Base { .. })));
        assert!(matches!(store.chain("cpu0", *epoch), Err(Error::Damaged(_))));
    }
}

#[test]
fn a_damaged_byte_anywhere_is_found_and_named() {
    let disk = Arc::new(InMemory::default());
    let contents = filled(&disk);
    let mut bytes = 0;
    for key in keys(&disk) {
        let good = disk.get(&key).unwrap().unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            disk.put(&key, &bad).unwrap();
            match epoch_of(&key) {
                Some(epoch) => check(&open(&disk).unwrap(), epoch, &contents),
                None => assert!(matches!(open(&disk), Err(Error::Foreign(_)))),
            }
            bytes += 1;
        }
        for bad in [&good[..good.len() - 1], &good[..3], &[], &[good.as_slice(), &[0]].concat()] {
            disk.put(&key, bad).unwrap();
            match epoch_of(&key) {
                Some(epoch) => check(&open(&disk).unwrap(), epoch, &contents),
                None => assert!(matches!(open(&disk), Err(Error::Foreign(_)))),
            }
        }
        disk.put(&key, &good).unwrap();
    }
    assert!(bytes > 1_500, "{bytes}");
    check_whole(&disk, &contents);
}

fn check_whole(disk: &Arc<InMemory>, contents: &[Content]) {
    let store = open(disk).unwrap();
    let found = store.latest("cpu0").unwrap();
    assert_eq!((found.checkpoint.map(|manifest| manifest.epoch), found.passed_over), (Some(4), vec![]));
    assert_eq!(read(&store, "cpu0", 4).unwrap(), contents[4]);
}

#[test]
fn a_chunk_that_is_missing_or_another_ones_is_found_and_named() {
    let disk = Arc::new(InMemory::default());
    let contents = filled(&disk);
    let chunks: Vec<Vec<u8>> = keys(&disk).into_iter().filter(|key| key[0] == b'c').collect();
    for key in &chunks {
        let good = disk.get(key).unwrap().unwrap();
        disk.remove(key).unwrap();
        check(&open(&disk).unwrap(), epoch_of(key).unwrap(), &contents);
        for other in chunks.iter().filter(|other| *other != key) {
            disk.put(key, &disk.get(other).unwrap().unwrap()).unwrap();
            check(&open(&disk).unwrap(), epoch_of(key).unwrap(), &contents);
        }
        disk.put(key, &good).unwrap();
    }
    check_whole(&disk, &contents);
}

#[test]
fn chunks_stay_as_long_as_a_manifest_cannot_be_read_and_go_with_it() {
    let disk = Arc::new(InMemory::default());
    filled(&disk);
    let before = keys(&disk).len();
    let manifest = keys(&disk).into_iter().find(|key| key[0] == b'm').unwrap();
    disk.put(&manifest, b"damaged").unwrap();
    let store = open(&disk).unwrap();
    assert_eq!(keys(&disk).len(), before);
    // Two restore points later nobody needs to look at it any more.
    for epoch in [5, 6] {
        store.begin("cpu0", epoch, None).unwrap().commit(about(epoch)).unwrap();
    }
    drop(store);
    open(&disk).unwrap();
    let left: BTreeSet<u64> = keys(&disk).iter().filter_map(|key| epoch_of(key)).collect();
    assert_eq!(left, BTreeSet::from([5, 6]));
}

#[test]
fn another_format_and_a_foreign_folder_are_refused_untouched() {
    let disk = Arc::new(InMemory::default());
    drop(open(&disk).unwrap());
    let key = keys(&disk).pop().unwrap();
    // As the next version would write it.
    let mut value = disk.get(&key).unwrap().unwrap();
    value[4..].copy_from_slice(&2u32.to_le_bytes());
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&key);
    hasher.update(&value[4..]);
    value[..4].copy_from_slice(&hasher.finalize().to_le_bytes());
    disk.put(&key, &value).unwrap();
    let text = open(&disk).err().unwrap().to_string();
    assert!(text.contains("have format 2") && text.contains("reads 1"), "{text}");
    assert_eq!(disk.get(&key).unwrap().unwrap(), value);

    let foreign = Arc::new(InMemory::default());
    foreign.put(b"somebody's", b"data").unwrap();
    assert!(matches!(open(&foreign), Err(Error::Foreign(_))));
    assert_eq!(keys(&foreign).len(), 1);
}
