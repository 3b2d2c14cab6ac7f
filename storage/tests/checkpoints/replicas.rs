//! Copies of a device's checkpoints on other disks: what comes there, through power failures on either side and calls that get lost.

use std::collections::BTreeMap;
use std::sync::Arc;

use ringhold_storage::blocks::{Blocks, InMemory};
use ringhold_storage::checkpoints::{
    Checkpoints, Error, Mark, Options, Piece, Replica, Taken, replica_name, replica_of,
};

use crate::crash::open;
use crate::model::{Content, Device, Random, about, read};

const WELL: usize = usize::MAX >> 1;
const DEVICE: u16 = 7;

/// Commits the device's next epoch, on top of this one.
fn commit(store: &Checkpoints, device: &mut Device, base: Option<u64>, random: &mut Random) -> Result<u64, Error> {
    let state_bytes = if random.below(4) == 0 { 60_000 } else { 300 };
    device.step(random, 6, state_bytes);
    let mut draft = store.begin("cpu0", device.epoch, base)?;
    device.write(&mut draft, base.is_none(), random)?;
    draft.commit(about(device.epoch))?;
    Ok(device.epoch)
}

/// Sends all that a copy lacks, and says what it has then.
fn send(store: &Checkpoints, replica: &mut Replica, term: u64) -> Result<Option<Mark>, Error> {
    let has = replica.hear(term)?;
    for mut sending in store.lacks("cpu0", has)? {
        while let Some(piece) = sending.next(20_000)? {
            let last = piece.is_last();
            let taken = replica.take(term, Piece::from_bytes(&piece.to_bytes())?)?;
            assert_eq!(taken, if last { Taken::Whole } else { Taken::Some });
        }
    }
    replica.hear(term)
}

fn stores() -> [(Arc<InMemory>, Checkpoints); 2] {
    [(); 2].map(|()| {
        let disk = Arc::new(InMemory::default());
        let store = open(&disk, WELL).unwrap();
        (disk, store)
    })
}

/// What a copy's newest checkpoint stands for.
fn newest(store: &Checkpoints) -> (u64, Content) {
    let epoch = store.latest(&replica_name(DEVICE)).unwrap().checkpoint.unwrap().epoch;
    (epoch, read(store, &replica_name(DEVICE), epoch).unwrap())
}

#[test]
fn a_copy_is_brought_up_to_date_with_what_it_lacks_and_no_more() {
    let [(_, store), (_, there)] = stores();
    let (random, mut device) = (&mut Random::new(3), Device::default());
    let mut replica = Replica::open(&there, DEVICE).unwrap();
    assert!(matches!(store.lacks("cpu0", None), Err(Error::Unknown { .. })));
    let mut last = None;
    for _ in 0..5 {
        last = Some(commit(&store, &mut device, last, random).unwrap());
        let lacks = store.lacks("cpu0", replica.hear(1).unwrap()).unwrap();
        assert_eq!(lacks.len(), 1, "the newest one");
        assert_eq!(send(&store, &mut replica, 1).unwrap(), store.newest("cpu0"));
        assert_eq!(newest(&there), (device.epoch, device.content.clone()));
    }
    let name = replica_name(DEVICE);
    let mark = store.newest("cpu0").unwrap();
    let (own, copy) = (store.chain("cpu0", 5).unwrap(), there.chain(&name, 5).unwrap());
    assert_eq!(store.about(&own[0]).unwrap(), there.about(&copy[0]).unwrap());
    assert!(store.lacks("cpu0", Some(mark)).unwrap().is_empty());

    // Each side compacts by itself.
    store.compact("cpu0", &mut |_| ()).unwrap().unwrap();
    last = Some(commit(&store, &mut device, last, random).unwrap());
    assert_eq!(store.lacks("cpu0", replica.hear(1).unwrap()).unwrap().len(), 1, "what it stands on is the same there");
    send(&store, &mut replica, 1).unwrap();
    there.compact(&name, &mut |_| ()).unwrap().unwrap();
    commit(&store, &mut device, last, random).unwrap();
    send(&store, &mut replica, 1).unwrap();
    assert_eq!(newest(&there), (device.epoch, device.content.clone()));

    // What it has is in the chain no more: all of that is sent.
    let behind = Some(Mark { epoch: 3, at_us: 3_000 });
    assert_eq!(store.lacks("cpu0", behind).unwrap().len(), 3);
    // They are nobody's own.
    assert_eq!((there.devices().len(), there.replicas()), (0, vec![DEVICE]));
    assert_eq!((replica_of(&name), replica_of("cpu0")), (Some(DEVICE), None));
    there.forget_replica(DEVICE).unwrap();
    assert!(there.looked().is_empty());
    let mut replica = Replica::open(&there, DEVICE).unwrap();
    assert_eq!(replica.hear(1).unwrap(), None);
    send(&store, &mut replica, 1).unwrap();
    assert_eq!(newest(&there), (device.epoch, device.content));
}

#[test]
fn what_comes_late_twice_or_in_no_order_changes_nothing() {
    let [(_, store), (_, there)] = stores();
    let (random, mut device) = (&mut Random::new(4), Device::default());
    let mut replica = Replica::open(&there, DEVICE).unwrap();
    for base in [None, Some(1), Some(2)] {
        while commit(&store, &mut device, base, random).is_err() {}
    }
    let pieces = |has: Option<Mark>| -> Vec<Piece> {
        let mut pieces = Vec::new();
        for mut sending in store.lacks("cpu0", has).unwrap() {
            pieces.extend(std::iter::from_fn(|| sending.next(1).unwrap()));
        }
        pieces
    };
    let all = pieces(None);
    assert!(all.len() > 6, "{}", all.len());
    assert_eq!(replica.take(1, all[1].clone()).unwrap(), Taken::Not { newest: None });
    let first = all.iter().position(Piece::is_last).unwrap();
    for piece in &all[..first] {
        assert_eq!(replica.take(1, piece.clone()).unwrap(), Taken::Some);
        if piece != &all[0] {
            assert_eq!(replica.take(1, piece.clone()).unwrap(), Taken::Not { newest: None }, "it was taken");
        }
    }
    assert_eq!(replica.take(1, all[first].clone()).unwrap(), Taken::Whole);
    let one = Some(Mark { epoch: 1, at_us: 1_000 });
    for late in &all[..=first] {
        assert_eq!(replica.take(1, late.clone()).unwrap(), Taken::Not { newest: one });
    }
    send(&store, &mut replica, 1).unwrap();
    for late in &all {
        assert_eq!(replica.take(1, late.clone()).unwrap(), Taken::Not { newest: store.newest("cpu0") });
    }
    assert_eq!(newest(&there), (device.epoch, device.content));

    let mut bytes = all[0].to_bytes();
    for at in [0, 20, bytes.len() - 1] {
        bytes[at] ^= 1;
        assert!(matches!(Piece::from_bytes(&bytes), Err(Error::Piece(_))));
        bytes[at] ^= 1;
    }
    assert!(matches!(Piece::from_bytes(&bytes[..bytes.len() / 2]), Err(Error::Piece(_))));
}

#[test]
fn one_who_ran_the_device_in_an_older_term_is_refused_for_ever() {
    let [(_, store), (disk, there)] = stores();
    let (random, mut device) = (&mut Random::new(5), Device::default());
    commit(&store, &mut device, None, random).unwrap();
    let mut replica = Replica::open(&there, DEVICE).unwrap();
    send(&store, &mut replica, 3).unwrap();
    commit(&store, &mut device, Some(1), random).unwrap();
    let mut late = store.lacks("cpu0", replica.hear(3).unwrap()).unwrap();
    // Another node begins to run it, and has asked for nothing but what there is.
    replica.hear(4).unwrap();
    let piece = late[0].next(1 << 20).unwrap().unwrap();
    let refused = replica.take(3, piece.clone()).unwrap_err();
    assert!(matches!(refused, Error::OlderTerm { term: 3, heard: 4, .. }), "{refused}");
    disk.crash(|_| 0);
    let there = open(&disk, WELL).unwrap();
    let mut replica = Replica::open(&there, DEVICE).unwrap();
    assert!(matches!(replica.take(3, piece), Err(Error::OlderTerm { .. })), "a power failure does not make it forget");
    assert!(matches!(replica.hear(3), Err(Error::OlderTerm { .. })));
    assert_eq!(newest(&there).0, 1);
}

#[test]
fn a_damaged_copy_is_made_anew_and_a_damaged_checkpoint_is_not_sent() {
    let [(own, store), (disk, there)] = stores();
    let (random, mut device) = (&mut Random::new(6), Device::default());
    let mut replica = Replica::open(&there, DEVICE).unwrap();
    for base in [None, Some(1), Some(2)] {
        commit(&store, &mut device, base, random).unwrap();
        send(&store, &mut replica, 1).unwrap();
    }
    let damage = |disk: &InMemory, store: &Checkpoints, name: &str| {
        let first = disk.first_from(b"c").unwrap().unwrap();
        let mut value = disk.get(&first).unwrap().unwrap();
        *value.last_mut().unwrap() ^= 1;
        disk.put(&first, &value).unwrap();
        let _ = store.latest(name).unwrap();
    };
    damage(&disk, &there, &replica_name(DEVICE));
    // While it is in use: what comes next has nothing to stand on. And after a restart: it is found.
    commit(&store, &mut device, Some(3), random).unwrap();
    let mut next = store.lacks("cpu0", replica.hear(1).unwrap()).unwrap();
    let piece = next[0].next(1 << 20).unwrap().unwrap();
    assert_eq!(replica.take(1, piece).unwrap(), Taken::Not { newest: None });
    send(&store, &mut replica, 1).unwrap();
    assert_eq!(newest(&there), (4, device.content.clone()));
    damage(&disk, &there, &replica_name(DEVICE));
    let mut replica = Replica::open(&open(&disk, WELL).unwrap(), DEVICE).unwrap();
    assert_eq!(replica.hear(1).unwrap(), None);
    send(&store, &mut replica, 1).unwrap();
    assert_eq!(newest(&open(&disk, WELL).unwrap()), (4, device.content.clone()));

    damage(&own, &store, "cpu0");
    assert!(matches!(store.lacks("cpu0", None), Err(Error::Damaged(_))));
    // The next full one is sent to all.
    commit(&store, &mut device, None, random).unwrap();
    send(&store, &mut replica, 1).unwrap();
    assert_eq!(newest(&open(&disk, WELL).unwrap()), (5, device.content));
}

/// An import puts older epochs in the place of newer ones.
#[test]
fn a_copy_follows_an_import() {
    let [(_, store), (_, there)] = stores();
    let (random, mut device) = (&mut Random::new(8), Device::default());
    let mut replica = Replica::open(&there, DEVICE).unwrap();
    for base in [None, Some(1), Some(2)] {
        commit(&store, &mut device, base, random).unwrap();
        send(&store, &mut replica, 1).unwrap();
    }
    let mut other = Device::default();
    (0..2).for_each(|_| other.step(random, 6, 300));
    let mut draft = store.begin_instead("cpu0", 2).unwrap();
    other.write(&mut draft, true, random).unwrap();
    draft.commit(ringhold_storage::checkpoints::About { at_us: 77, ..about(2) }).unwrap();
    assert_eq!(send(&store, &mut replica, 1).unwrap(), Some(Mark { epoch: 2, at_us: 77 }));
    assert_eq!(newest(&there), (2, other.content));
    assert_eq!(there.looked().len(), 1);
}

/// A device's node and one that has a copy, each of which may fail at any point, and calls that get lost on either way, come late
/// or twice. The device commits only what the copy has while that is in sync.
#[test]
fn while_a_copy_is_in_sync_it_has_all_that_is_committed() {
    let (mut crashes, mut lost, mut commits, mut entered) = ([0, 0], 0, 0, 0);
    for seed in 0..400 {
        let random = &mut Random::new(seed);
        let disks = [Arc::new(InMemory::default()), Arc::new(InMemory::default())];
        let (mut device, mut contents) = (Device::default(), BTreeMap::new());
        // The newest that is committed, whether the copy is in sync, and what the device goes on from.
        let (mut committed, mut in_sync, mut base) = (None, false, None);
        let mut late: Vec<Piece> = Vec::new();
        let mut stores = [None, None];
        let mut replica: Option<Replica> = None;
        for round in 0..60 {
            for side in 0..2 {
                // One of several fails after so many calls.
                if stores[side].is_none() {
                    let calls = if random.below(3) == 0 { 10 + random.below(300) } else { 100_000 };
                    stores[side] = open(&disks[side], calls).ok();
                }
            }
            let mut failed = [stores[0].is_none(), stores[1].is_none()];
            if let [Some(own), Some(there)] = &stores {
                if base.is_none() && !contents.is_empty() {
                    match own.latest("cpu0") {
                        Ok(found) => {
                            base = found.checkpoint.map(|manifest| manifest.epoch);
                            device.epoch = device.epoch.max(found.newest.unwrap_or(0));
                            device.content = base.map_or_else(Content::default, |epoch| {
                                let content: &Content = &contents[&epoch];
                                content.clone()
                            });
                        }
                        Err(_) => failed[0] = true,
                    }
                }
                if random.below(5) == 0 && !failed[0] {
                    failed[0] |= own.compact("cpu0", &mut |_| ()).is_err();
                }
                if random.below(5) == 0 {
                    failed[1] |= there.compact(&replica_name(DEVICE), &mut |_| ()).is_err();
                }
                if !failed[0] {
                    let state_bytes = if random.below(4) == 0 { 60_000 } else { 300 };
                    device.step(random, 6, state_bytes);
                    contents.insert(device.epoch, device.content.clone());
                    let on = base.filter(|_| random.below(8) > 0);
                    let made = own.begin("cpu0", device.epoch, on).and_then(|mut draft| {
                        device.write(&mut draft, on.is_none(), random)?;
                        draft.commit(about(device.epoch))
                    });
                    failed[0] = made.is_err();
                    base = made.ok().map(|manifest| manifest.epoch);
                }
                if replica.is_none() && !failed[1] {
                    replica = Replica::open(there, DEVICE).ok();
                    failed[1] = replica.is_none();
                }
                if let (Some(replica), [false, false]) = (&mut replica, failed) {
                    let mut has = None;
                    let mut go = || -> Result<(), (usize, Error)> {
                        has = replica.hear(1).map_err(|e| (1, e))?;
                        for mut sending in own.lacks("cpu0", has).map_err(|e| (0, e))? {
                            while let Some(piece) = sending.next(20_000).map_err(|e| (0, e))? {
                                match random.below(30) {
                                    // It gets lost, or is there later.
                                    0 => {
                                        lost += 1;
                                        late.push(piece);
                                        return Ok(());
                                    }
                                    // The answer gets lost.
                                    1 => {
                                        lost += 1;
                                        replica.take(1, piece).map_err(|e| (1, e))?;
                                        return Ok(());
                                    }
                                    2 if !late.is_empty() => {
                                        let early = late.swap_remove(random.below(late.len()));
                                        replica.take(1, early).map_err(|e| (1, e))?;
                                    }
                                    3 => late.push(piece.clone()),
                                    _ => {}
                                }
                                match replica.take(1, piece).map_err(|e| (1, e))? {
                                    Taken::Whole => has = Some(sending.mark()),
                                    Taken::Some => {}
                                    Taken::Not { .. } => return Ok(()),
                                }
                            }
                        }
                        Ok(())
                    };
                    if let Err((side, error)) = go() {
                        assert!(matches!(error, Error::Blocks(_) | Error::Damaged(_)), "seed {seed}: {error}");
                        failed[side] = true;
                    }
                    let has_all = has == own.newest("cpu0");
                    if has_all {
                        entered += u32::from(!in_sync);
                        in_sync = true;
                    }
                    // Without it, it is put out first.
                    if !has_all && random.below(3) == 0 {
                        in_sync = false;
                    }
                    if has_all || !in_sync {
                        committed = Some(device.epoch);
                        commits += 1;
                    }
                }
            }
            for side in 0..2 {
                if failed[side] || random.below(40) == 0 || round == 59 {
                    crashes[side] += 1;
                    stores[side] = None;
                    disks[side].crash(|bound| random.below(bound));
                    match side {
                        0 => base = None,
                        _ => replica = None,
                    }
                }
            }
            // Whoever looks opens it, which nobody may while it is in use.
            if in_sync && stores[1].is_none() {
                let store = open(&disks[1], WELL).unwrap();
                let found = store.latest(&replica_name(DEVICE)).unwrap();
                let epoch = found.checkpoint.map(|manifest| manifest.epoch);
                assert!(epoch >= committed, "seed {seed}: {committed:?} is committed, and {epoch:?} is there");
                if let Some(epoch) = epoch {
                    assert_eq!(read(&store, &replica_name(DEVICE), epoch).unwrap(), contents[&epoch], "seed {seed}");
                }
            }
        }
    }
    println!("{crashes:?} crashes, {lost} calls lost, {commits} commits, {entered} times in sync");
    assert!(crashes[0] > 1_000 && crashes[1] > 1_000 && lost > 500 && commits > 5_000 && entered > 500);
}

#[test]
fn nothing_of_a_copy_is_left_when_it_is_forgotten() {
    let [(_, store), (disk, there)] = stores();
    let (random, mut device) = (&mut Random::new(9), Device::default());
    let before = crate::crash::keys(&disk);
    let mut replica = Replica::open(&there, DEVICE).unwrap();
    for base in [None, Some(1), Some(2)] {
        commit(&store, &mut device, base, random).unwrap();
        send(&store, &mut replica, 1).unwrap();
    }
    there.put_adoption(&replica_name(DEVICE), 1, b"something").unwrap();
    drop(replica);
    there.forget_replica(DEVICE).unwrap();
    assert_eq!(crate::crash::keys(&disk), before);
    assert!(Checkpoints::open(disk, Options::default()).unwrap().replicas().is_empty());
}
