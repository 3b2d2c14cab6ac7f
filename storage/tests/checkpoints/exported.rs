//! Checkpoints in a file and back.

use std::sync::Arc;

use ringhold_storage::blocks::InMemory;
use ringhold_storage::checkpoints::{Checkpoints, Options};
use ringhold_storage::export::{Contents, Error, import, look, write};
use uuid::Uuid;

use crate::model::{Device, Random, about, read};

const NODE: Uuid = Uuid::from_bytes([7; 16]);

fn store() -> Checkpoints {
    Checkpoints::open(Arc::new(InMemory::default()), Options::default()).unwrap()
}

/// Two devices with chains, one of them large.
fn filled() -> (Checkpoints, [Device; 2]) {
    let store = store();
    let random = &mut Random::new(2);
    let devices = [("cpu0", 300), ("cuda1", 90_000)].map(|(name, state_bytes)| {
        let mut device = Device::default();
        for base in [None, Some(1), Some(2)] {
            device.step(random, 6, state_bytes);
            let mut draft = store.begin(name, device.epoch, base).unwrap();
            device.write(&mut draft, base.is_none(), random).unwrap();
            draft.commit(about(device.epoch)).unwrap();
        }
        device
    });
    (store, devices)
}

fn exported(store: &Checkpoints) -> Vec<u8> {
    let mut file = Vec::new();
    write(store, NODE, &[("cpu0".into(), 3), ("cuda1".into(), 3)], &mut file, &mut |_| ()).unwrap();
    file
}

#[test]
fn what_is_exported_comes_back_as_full_checkpoints_in_place_of_what_was_there() {
    let (from, devices) = filled();
    let file = exported(&from);
    let Contents { node_id, checkpoints } = look(&mut file.as_slice(), &mut |_| ()).unwrap();
    assert_eq!(node_id, NODE);
    let names: Vec<_> = checkpoints.iter().map(|found| (found.device.as_str(), found.epoch, found.at_us)).collect();
    assert_eq!(names, [("cpu0", 3, 3_000), ("cuda1", 3, 3_000)]);
    // Into an empty store, and over newer checkpoints.
    let (over, _) = filled();
    over.begin("cpu0", 9, None).unwrap().commit(about(9)).unwrap();
    over.begin("other", 9, None).unwrap().commit(about(9)).unwrap();
    for to in [store(), over] {
        let mut told = 0;
        import(&to, &mut file.as_slice(), &mut |bytes| told = bytes).unwrap();
        assert_eq!(told, checkpoints.iter().map(|found| found.bytes).sum::<u64>());
        for (device, name) in devices.iter().zip(["cpu0", "cuda1"]) {
            let found = to.latest(name).unwrap();
            let manifest = found.checkpoint.unwrap();
            assert_eq!((manifest.epoch, manifest.base, found.newest), (3, None, Some(3)));
            assert_eq!(read(&to, name, 3).unwrap(), device.content);
            let (mut before, after) =
                (from.about(&from.chain(name, 3).unwrap()[0]).unwrap(), to.about(&manifest).unwrap());
            before.types[0].actors = device.content.actors.len() as u64;
            assert_eq!(after, before);
        }
        assert!(to.devices().len() == 2 || to.latest("other").unwrap().newest == Some(9));
    }
}

#[test]
fn a_file_that_is_not_whole_is_refused_and_named() {
    let file = exported(&filled().0);
    let refused = |file: &[u8]| look(&mut &*file, &mut |_| ()).unwrap_err();
    let random = &mut Random::new(1);
    for n in 0..2_000 {
        let mut bad = file.clone();
        let at = if n < 200 { n } else { random.below(file.len()) };
        bad[at] ^= 1 << random.below(8);
        match (at, refused(&bad)) {
            (0..8, Error::Foreign) | (8..12, Error::OtherFormat(_)) => {}
            (12.., error @ Error::Damaged(_)) => {
                // A length that is wrong is the only one that is found out later.
                let text = error.to_string();
                assert!(text.contains("checksum") || text.contains("cut short") || text.contains("too long"), "{text}");
            }
            (at, error) => panic!("{at}: {error:?}"),
        }
    }
    for end in (0..200).chain([file.len() / 2, file.len() - 13, file.len() - 12, file.len() - 1]) {
        match (end, refused(&file[..end])) {
            (0..8, Error::Foreign) | (8.., Error::Damaged(_)) => {}
            (end, error) => panic!("{end}: {error:?}"),
        }
    }
    assert!(matches!(refused(&[file.as_slice(), &[0]].concat()), Error::Damaged(_)));
    assert!(matches!(refused(b"PK something else"), Error::Foreign));
    assert!(matches!(refused(b""), Error::Foreign));
    let mut newer = file.clone();
    newer[8] = 2;
    assert!(refused(&newer).to_string().contains("format 2, and this build of Ringhold reads 1"));
    // One that breaks off leaves what was there.
    let (to, devices) = filled();
    import(&to, &mut &file[..file.len() / 4], &mut |_| ()).unwrap_err();
    assert_eq!(read(&to, "cuda1", 3).unwrap(), devices[1].content);
}
