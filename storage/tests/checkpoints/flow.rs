//! What a user of the store relies on when nothing fails.

use std::sync::Arc;

use ringhold_kernels::checkpoint::{self, Record};
use ringhold_kernels::id::{ActorId, Key, TypeId};
use ringhold_kernels::registry::Registry;
use ringhold_storage::blocks::{Blocks, InMemory};
use ringhold_storage::checkpoints::{Checkpoints, Compacted, Error, Options, PARTS_MAX, Part, Type};

use crate::model::{Content, Device, LANES, NAME, Random, about, read};

fn store() -> (Arc<InMemory>, Checkpoints) {
    let disk = Arc::new(InMemory::default());
    let store = Checkpoints::open(disk.clone(), Options::default()).unwrap();
    (disk, store)
}

fn commit(store: &Checkpoints, device: &mut Device, base: Option<u64>) {
    let random = &mut Random::new(device.epoch);
    device.step(random, 5, 3_000);
    let mut draft = store.begin("cpu0", device.epoch, base).unwrap();
    device.write(&mut draft, base.is_none(), random).unwrap();
    draft.commit(about(device.epoch)).unwrap();
}

fn epochs(store: &Checkpoints) -> Vec<u64> {
    store.manifests().iter().map(|manifest| manifest.epoch).collect()
}

#[test]
fn two_restore_points_that_share_nothing_are_kept() {
    let (_, store) = store();
    let mut device = Device::default();
    for (base, kept) in [
        (None, vec![1]),
        (Some(1), vec![1, 2]),
        (None, vec![1, 2, 3]),
        (Some(3), vec![1, 2, 3, 4]),
        // A third full one: the oldest chain goes.
        (None, vec![3, 4, 5]),
        (None, vec![5, 6]),
        (Some(6), vec![5, 6, 7]),
    ] {
        commit(&store, &mut device, base);
        assert_eq!(epochs(&store), kept);
    }
    // What is compacted stands for itself, so that its old chain is the older point.
    let compacted = store.compact("cpu0", &mut |_| ()).unwrap().unwrap();
    assert_eq!((compacted.epoch, compacted.checkpoints), (7, 2));
    assert_eq!(epochs(&store), [6, 7]);
    assert_eq!(store.chain("cpu0", 7).unwrap().len(), 1);
    assert_eq!(read(&store, "cpu0", 7).unwrap(), device.content);
    assert_eq!(store.compact("cpu0", &mut |_| ()).unwrap(), None);
    assert_eq!(store.compact("cpu9", &mut |_| ()).unwrap(), None);
}

#[test]
fn a_long_chain_is_due_and_shrinks_to_what_it_stands_for() {
    let (disk, store) = store();
    let mut device = Device::default();
    commit(&store, &mut device, None);
    while store.due().is_empty() {
        let base = device.epoch;
        commit(&store, &mut device, Some(base));
    }
    assert_eq!(store.due(), ["cpu0"]);
    let (before, mut told) = (disk.bytes_on_disk(), 0);
    let bytes: u64 = store.manifests().iter().map(|manifest| manifest.bytes()).sum();
    let Compacted { checkpoints, bytes_before, bytes_after, .. } =
        store.compact("cpu0", &mut |bytes| told = bytes).unwrap().unwrap();
    assert_eq!((checkpoints as u64, bytes_before), (device.epoch, bytes));
    assert!(bytes_after < 30_000 && told > bytes / 2 && told <= bytes, "{bytes_after} {told}");
    // Its chain is the older restore point until there is a newer one.
    assert!(disk.bytes_on_disk() > before);
    commit(&store, &mut device, None);
    store.compact("cpu0", &mut |_| ()).unwrap();
    disk.sync().unwrap();
    assert!(disk.bytes_on_disk() < 60_000, "{}", disk.bytes_on_disk());
    assert!(store.due().is_empty());
}

#[test]
fn a_large_part_leaves_no_key_that_is_not_its_own() {
    let (disk, store) = store();
    let mut states = Vec::new();
    for key in 0..40 {
        checkpoint::push_actor(&mut states, ActorId::new(TypeId(1), Key(key)), 1, 0, 100_000).fill(key as u8);
    }
    let mut draft = store.begin("cpu0", 1, None).unwrap();
    draft.append(Part::Lane(0), &states).unwrap();
    draft.append(Part::Lane(1), &states[..100_032 * 20]).unwrap();
    let manifest = draft.commit(about(1)).unwrap();
    let keys = |disk: &InMemory| {
        let (mut count, mut from) = (0, Vec::new());
        while let Some(key) = disk.first_from(&from).unwrap() {
            count += 1;
            from = [key.as_slice(), &[0]].concat();
        }
        count
    };
    assert!(manifest.chunks() > 150);
    assert_eq!(keys(&disk), manifest.chunks() + 2);
    let (mut bytes, mut actors) = (Vec::<u8>::new(), 0);
    let collect = |_: Part, record: Record<'_>, whole: &[u8]| {
        actors += matches!(record, Record::Actor { .. }) as u32;
        bytes.extend(whole);
        Ok::<_, Error>(())
    };
    store.visit("cpu0", 1, collect).unwrap();
    // Those of the second lane were there already.
    assert!(bytes == states && actors == 40);
    // One that is given up leaves none at all.
    let mut draft = store.begin("cpu0", 2, None).unwrap();
    draft.append(Part::Lane(0), &states).unwrap();
    assert!(keys(&disk) > manifest.chunks() + 100);
    drop(draft);
    store.compact("cpu0", &mut |_| ()).unwrap();
    assert_eq!(keys(&disk), manifest.chunks() + 2);
}

#[test]
fn a_checkpoint_that_is_being_read_stays_until_it_has_been() {
    let (disk, store) = store();
    let mut device = Device::default();
    for base in [None, Some(1), Some(2)] {
        commit(&store, &mut device, base);
    }
    let (expected, mut content) = (device.content.clone(), Content::default());
    store
        .visit("cpu0", 3, |part, record, bytes| {
            // Enough commits that nothing of it is to be kept, and all is swept that may be.
            for _ in 0..3 {
                commit(&store, &mut device, None);
            }
            match record {
                Record::Actor { id, state, .. } => drop(content.actors.insert(id.key.0, state.to_vec())),
                _ => match content.others.last_mut() {
                    Some((last, so_far)) if *last == part => so_far.extend(bytes),
                    _ => content.others.push((part, bytes.to_vec())),
                },
            }
            Ok::<_, Error>(())
        })
        .unwrap();
    content.others.sort_by_key(|(part, _)| *part);
    assert_eq!(content, expected);
    assert!(!epochs(&store).contains(&3));
    store.compact("cpu0", &mut |_| ()).unwrap();
    disk.sync().unwrap();
    let held: u64 = store.manifests().iter().map(|manifest| manifest.bytes()).sum();
    assert!(disk.bytes_on_disk() < 2 * held + 1_000, "{} {held}", disk.bytes_on_disk());
}

#[test]
fn commits_and_compactions_of_several_threads_do_not_disturb_each_other() {
    let (_, store) = store();
    let committed = std::thread::scope(|scope| {
        let names = ["cpu0", "cpu1"];
        let committing = names.map(|name| {
            let store = store.clone();
            scope.spawn(move || {
                let (mut device, random) = (Device::default(), &mut Random::new(4));
                for n in 0..400 {
                    device.step(random, 10, 20_000);
                    let base = (n % 60 > 0).then(|| device.epoch - 1);
                    let mut draft = store.begin(name, device.epoch, base).unwrap();
                    device.write(&mut draft, base.is_none(), random).unwrap();
                    draft.commit(about(device.epoch)).unwrap();
                }
                device
            })
        });
        while committing.iter().any(|thread| !thread.is_finished()) {
            for name in names {
                store.compact(name, &mut |_| ()).unwrap();
            }
        }
        committing.map(|thread| thread.join().unwrap())
    });
    for (device, name) in committed.iter().zip(["cpu0", "cpu1"]) {
        let found = store.latest(name).unwrap();
        assert_eq!((found.checkpoint.unwrap().epoch, found.passed_over.len()), (400, 0));
        assert_eq!(read(&store, name, 400).unwrap(), device.content);
    }
    assert!(store.verify(&mut |_| ()).unwrap().iter().all(|verified| verified.damage.is_none()));
}

#[test]
fn one_in_place_of_all_others_is_the_only_one() {
    let (disk, store) = store();
    let mut device = Device::default();
    (0..3).for_each(|_| commit(&store, &mut device, None));
    let mut draft = store.begin_instead("cpu0", 2).unwrap();
    device.write(&mut draft, true, &mut Random::new(1)).unwrap();
    draft.commit(about(2)).unwrap();
    assert_eq!(epochs(&store), [2]);
    drop(store);
    // Durably so.
    disk.crash(|_| 0);
    let store = Checkpoints::open(disk, Options::default()).unwrap();
    assert_eq!((epochs(&store), read(&store, "cpu0", 2).unwrap()), (vec![2], device.content));
}

#[test]
fn what_is_known_of_a_checkpoint_comes_back_with_counts() {
    let (_, store) = store();
    let mut device = Device::default();
    commit(&store, &mut device, None);
    let manifest = store.latest("cpu0").unwrap().checkpoint.unwrap();
    assert_eq!((manifest.at_us, manifest.lanes, manifest.base), (1_000, LANES, None));
    assert_eq!(manifest.parts().map(|(part, _)| part).collect::<Vec<_>>(), [Part::Node, Part::Lane(0), Part::Lane(1)]);
    let mut expected = about(1);
    expected.types[0].actors = device.content.actors.len() as u64;
    // Both lanes' timers, and what is queued.
    let others = device.content.others.iter().flat_map(|(_, bytes)| checkpoint::records(bytes)).map(Result::unwrap);
    expected.types[0].messages =
        others.filter(|record| matches!(record, Record::Queued { .. } | Record::Timer { .. })).count() as u64;
    assert_eq!(store.about(&manifest).unwrap(), expected);
}

#[ringhold::actor(name = "storage.test")]
mod counter {
    pub struct State {
        pub count: u64,
    }
    pub enum Message {
        Add { by: u64 },
    }
    pub enum Reply {
        Done,
    }
    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Add { by } => state.count += by,
        }
        ctx.reply(Reply::Done);
    }
}

#[test]
fn types_that_this_binary_runs_otherwise_are_refused_by_name_once_there_are_actors() {
    let (_, store) = store();
    let mut registry = Registry::new();
    registry.register::<counter::Actor>().unwrap();
    let built = registry.types()[0].layout_hash;
    let commit = |epoch, base, hash, name: &str, actor: Option<TypeId>| {
        let mut draft = store.begin("cpu0", epoch, base).unwrap();
        if let Some(type_id) = actor {
            let mut bytes = Vec::new();
            checkpoint::push_actor(&mut bytes, ActorId::new(type_id, Key(1)), 1, 0, 8);
            draft.append(Part::Lane(0), &bytes).unwrap();
        }
        let mut about = about(epoch);
        about.types.push(Type { layout_hash: hash, ..Type::from(&registry.types()[0]) });
        about.types[1].name = name.into();
        about.types.remove(0);
        about.types[0].type_id = TypeId::of(name);
        draft.commit(about).unwrap();
        store.check_types("cpu0", epoch, &registry).map_err(|error| error.to_string())
    };
    assert_eq!(commit(1, None, built, NAME, Some(TypeId::of(NAME))), Ok(()));
    assert_eq!(commit(2, None, 1, NAME, None), Ok(()));
    assert_eq!(commit(3, Some(2), 1, "gone", None), Ok(()));
    let text = commit(4, None, 1, NAME, Some(TypeId::of(NAME))).unwrap_err();
    assert!(text.contains(&format!("`{NAME}` has the layout 0000000000000001 there and {built:016x} here")), "{text}");
    let text = commit(5, Some(4), 2, "gone", Some(TypeId::of("gone"))).unwrap_err();
    // Also what the chain holds.
    assert!(text.contains("`gone` (layout 0000000000000002) is not in this binary") && text.contains(NAME), "{text}");
}

#[test]
fn what_cannot_be_a_checkpoint_is_refused_and_leaves_nothing() {
    let (disk, store) = store();
    let mut device = Device::default();
    commit(&store, &mut device, None);
    let before = disk.bytes_on_disk();
    assert!(matches!(store.begin("", 2, None), Err(Error::Device(_))));
    assert!(matches!(store.begin("a\0b", 2, None), Err(Error::Device(_))));
    assert!(matches!(store.begin("cpu0", 1, None), Err(Error::Stale { newest: 1, .. })));
    assert!(matches!(store.begin("cpu0", 3, Some(2)), Err(Error::Base { base: 2, .. })));
    assert!(matches!(store.chain("cpu0", 2), Err(Error::Unknown { epoch: 2, .. })));

    let mut draft = store.begin("cpu0", 2, None).unwrap();
    let text = draft.append(Part::Node, &[99, 0, 0, 0, 0, 0, 0, 0]).unwrap_err().to_string();
    assert!(text.contains("the node's part of checkpoint 2 of `cpu0`") && text.contains("kind 99"), "{text}");
    // One that ends in the middle of a record.
    let mut draft = store.begin("cpu0", 2, None).unwrap();
    let mut bytes = Vec::new();
    checkpoint::push_actor(&mut bytes, ActorId::new(TypeId(1), Key(1)), 1, 0, 200_000);
    draft.append(Part::Lane(0), &bytes[..150_000]).unwrap();
    assert!(matches!(draft.commit(about(2)), Err(Error::Records { .. })));
    let mut draft = store.begin("cpu0", 2, None).unwrap();
    let mut removed = Vec::new();
    checkpoint::push_removed(&mut removed, ActorId::new(TypeId(1), Key(1)));
    let many = (0..=PARTS_MAX as u32).find_map(|lane| draft.append(Part::Lane(lane), &removed).err());
    assert!(matches!(many, Some(Error::Parts { .. })));
    // Another was quicker.
    let mut late = store.begin("cpu0", 2, None).unwrap();
    late.append(Part::Lane(0), &bytes).unwrap();
    commit(&store, &mut device, None);
    assert!(matches!(late.commit(about(2)), Err(Error::Stale { newest: 2, .. })));
    drop(draft);
    store.compact("cpu0", &mut |_| ()).unwrap();
    disk.sync().unwrap();
    let held: u64 = store.manifests().iter().map(|manifest| manifest.bytes()).sum();
    assert!(disk.bytes_on_disk() < before + held, "{} {held}", disk.bytes_on_disk());
}
