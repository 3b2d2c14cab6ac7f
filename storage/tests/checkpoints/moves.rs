//! Shards that move between devices, as the store has them.

use std::sync::Arc;

use ringhold_storage::blocks::{Blocks, InMemory};
use ringhold_storage::checkpoints::{Checkpoints, Options, Ownership};

use crate::model::{Device, Random, about};

fn open(disk: &Arc<InMemory>) -> Checkpoints {
    Checkpoints::open(disk.clone(), Options::default()).unwrap()
}

fn numbers(store: &Checkpoints, after: u64) -> Vec<u64> {
    store.adoptions_after("cpu", after).unwrap().into_iter().map(|(number, _)| number).collect()
}

#[test]
fn the_shard_table_is_there_as_it_was_said() {
    let disk = Arc::new(InMemory::default());
    assert_eq!(open(&disk).shard_table().unwrap(), None);
    let table: Vec<Ownership> =
        (0..4096u32).map(|shard| Ownership { device: (shard % 3) as u16, term: 1 + shard * 7 }).collect();
    open(&disk).set_shard_table(&table).unwrap();
    assert_eq!(open(&disk).shard_table().unwrap().as_deref(), Some(&table[..]));
    let mut value = disk.get(b"s").unwrap().unwrap();
    value[100] ^= 1;
    disk.put(b"s", &value).unwrap();
    let error = open(&disk).shard_table().unwrap_err().to_string();
    assert!(error.contains("the table of which device has which shards is damaged"), "{error}");
}

#[test]
fn an_adoption_is_whole_or_not_there_and_goes_when_it_is_forgotten() {
    let disk = Arc::new(InMemory::default());
    let store = open(&disk);
    let large: Vec<u8> = (0..100_000u32).map(|i| (i * 7 + i / 251) as u8).collect();
    store.put_adoption("cpu", 1, &large).unwrap();
    store.put_adoption("cpu", 2, &[]).unwrap();
    store.put_adoption("cpu-2", 1, b"another's").unwrap();
    assert_eq!(open(&disk).adoptions_after("cpu", 0).unwrap(), [(1, large.clone()), (2, vec![])]);
    assert_eq!(numbers(&store, 1), [2]);
    // One that was called off goes with the next, and so does what was behind it.
    store.put_adoption("cpu", 1, b"once more").unwrap();
    assert_eq!(store.adoptions_after("cpu", 0).unwrap(), [(1, b"once more".to_vec())]);
    store.put_adoption("cpu", 3, &large).unwrap();
    // Its head is the last that was written.
    let head = [&b"acpu\0"[..], &3u64.to_be_bytes(), &[0xff; 4]].concat();
    disk.remove(&head).unwrap();
    assert_eq!(numbers(&open(&disk), 0), [1]);
    store.forget_adoptions("cpu", 3).unwrap();
    assert!(numbers(&store, 0).is_empty());
    let next = disk.first_from(b"acpu\0").unwrap().unwrap();
    assert!(next.starts_with(b"acpu-2\0"), "nothing is left of them");
    assert_eq!(store.adoptions_after("cpu-2", 0).unwrap().len(), 1);
    store.put_adoption("cpu", 4, &large).unwrap();
    let chunk = [&b"acpu\0"[..], &4u64.to_be_bytes(), &1u32.to_be_bytes()].concat();
    let mut value = disk.get(&chunk).unwrap().unwrap();
    value[77] ^= 1;
    disk.put(&chunk, &value).unwrap();
    let error = open(&disk).adoptions_after("cpu", 0).unwrap_err().to_string();
    assert!(error.contains("what moved to it with number 4 has the checksum"), "{error}");
}

#[test]
fn of_a_device_that_is_forgotten_nothing_is_left_and_of_others_everything() {
    let disk = Arc::new(InMemory::default());
    let store = open(&disk);
    let commit = |name: &str, device: &mut Device, base: Option<u64>| {
        let random = &mut Random::new(7);
        device.step(random, 5, 200_000);
        let mut draft = store.begin(name, device.epoch, base).unwrap();
        device.write(&mut draft, base.is_none(), random).unwrap();
        draft.commit(about(device.epoch)).unwrap();
    };
    commit("other", &mut Device::default(), None);
    let keys = |disk: &InMemory| {
        let (mut all, mut from) = (Vec::new(), Vec::new());
        while let Some(key) = disk.first_from(&from).unwrap() {
            from = [&key[..], b"\0"].concat();
            all.push(key);
        }
        all
    };
    let before = keys(&disk);
    let mut cpu = Device::default();
    commit("cpu", &mut cpu, None);
    commit("cpu", &mut cpu, Some(1));
    store.put_adoption("cpu", 1, b"what moved to it").unwrap();
    store.forget_device("cpu").unwrap();
    assert_eq!(keys(&disk), before);
    for store in [&store, &open(&disk)] {
        assert_eq!(store.devices(), ["other"]);
        assert_eq!(store.latest("other").unwrap().checkpoint.unwrap().epoch, 1);
    }
    commit("cpu", &mut Device::default(), None);
    assert_eq!(store.latest("cpu").unwrap().checkpoint.unwrap().epoch, 1, "one of its name begins anew");
    store.forget_device("nobody").unwrap();
}
