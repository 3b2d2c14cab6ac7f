//! sled on a real file system: killed processes, files cut short, space.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ringhold_storage::blocks::{self, Blocks, Sled};
use ringhold_storage::checkpoints::{Checkpoints, Error, Options};

use crate::model::{Device, Random, about, read};

fn open(path: &Path) -> Result<Checkpoints, Error> {
    Checkpoints::open(Arc::new(Sled::open(path)?), Options::default())
}

/// The device as it is at an epoch.
fn device_at(epoch: u64, actors: usize, state_bytes: usize) -> Device {
    let (mut device, mut random) = (Device::default(), Random::new(3));
    while device.epoch < epoch {
        device.step(&mut random, actors, state_bytes);
    }
    device
}

/// Commits epochs one after the other, increments mostly, from the one after `epoch` on.
fn commit(store: &Checkpoints, device: &mut Device, random: &mut Random, actors: usize, state_bytes: usize) {
    device.step(random, actors, state_bytes);
    let base = (device.epoch % 50 > 1).then(|| device.epoch - 1);
    let mut draft = store.begin("cpu0", device.epoch, base).unwrap();
    device.write(&mut draft, base.is_none(), &mut Random::new(1)).unwrap();
    draft.commit(about(device.epoch)).unwrap();
}

fn files(path: &Path) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for entry in fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        names.push(entry.path().display().to_string());
        if entry.path().is_dir() {
            names.extend(files(&entry.path()));
        }
    }
    names.sort();
    names
}

#[test]
fn ten_thousand_checkpoints_stay_within_bounds_on_disk() {
    let scratch = tempfile::tempdir().unwrap();
    let store = open(scratch.path()).unwrap();
    let (mut device, random) = (Device::default(), &mut Random::new(3));
    let made = files(scratch.path());
    let (mut largest, mut compactions) = (0, 0);
    for n in 0..10_000 {
        // Two chains in three are left to compaction.
        device.step(random, 40, 900);
        let base = (n % 3_000 > 0).then(|| device.epoch - 1);
        let mut draft = store.begin("cpu0", device.epoch, base).unwrap();
        device.write(&mut draft, base.is_none(), random).unwrap();
        draft.commit(about(device.epoch)).unwrap();
        if n % 20 == 0 {
            for due in store.due() {
                compactions += store.compact(&due, &mut |_| ()).unwrap().is_some() as u32;
            }
        }
        if n % 200 == 0 {
            largest = largest.max(store.bytes_on_disk());
        }
    }
    let kept = store.manifests();
    let bytes: u64 = kept.iter().map(|manifest| manifest.bytes()).sum();
    println!("at most {largest} bytes on disk, {compactions} compactions, {} checkpoints of {bytes} bytes", kept.len());
    assert!(largest < 64 << 20, "{largest}");
    assert!(compactions > 10 && kept.len() < 2_000, "{compactions} {}", kept.len());
    // What is not fsynced by name is not there: no file was made since the store was opened, nor a blob.
    assert_eq!(files(scratch.path()), made);
    assert_eq!(read(&store, "cpu0", device.epoch).unwrap(), device.content);
}

/// Not a test by itself: the other process of the next one.
#[test]
fn commits_in_the_folder_named_in_the_environment() {
    let Some(path) = std::env::var_os("RINGHOLD_TEST_COMMIT") else { return };
    let store = open(Path::new(&path)).unwrap();
    let from = store.latest("cpu0").unwrap().newest.unwrap_or(0);
    let (mut device, mut random) = (Device::default(), Random::new(3));
    while device.epoch < from {
        device.step(&mut random, 20, 30_000);
    }
    let compactor = store.clone();
    std::thread::spawn(move || {
        loop {
            compactor.compact("cpu0", &mut |_| ()).unwrap();
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    loop {
        commit(&store, &mut device, &mut random, 20, 30_000);
        println!("\ncommitted {}", device.epoch);
    }
}

#[test]
fn a_killed_process_loses_nothing_that_was_committed() {
    let scratch = tempfile::tempdir().unwrap();
    let random = &mut Random::new(std::process::id().into());
    for _ in 0..8 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "disk::commits_in_the_folder_named_in_the_environment"])
            .env("RINGHOLD_TEST_COMMIT", scratch.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut committed = || lines.find_map(|line| line.strip_prefix("committed ")?.parse::<u64>().ok());
        let first = committed().unwrap();
        let until = first + random.below(60) as u64;
        while committed().unwrap() < until {}
        let late = Duration::from_micros(random.below(20_000) as u64);
        std::thread::sleep(late);
        child.kill().unwrap();
        child.wait().unwrap();
        let last = std::iter::from_fn(committed).last().unwrap_or(until);

        let store = open(scratch.path()).unwrap();
        let found = store.latest("cpu0").unwrap();
        assert_eq!(found.cost(), None);
        let epoch = found.checkpoint.unwrap().epoch;
        assert!(epoch >= last, "{last} was committed, and {epoch} is the newest");
        assert_eq!(read(&store, "cpu0", epoch).unwrap(), device_at(epoch, 20, 30_000).content);
        assert!(store.verify(&mut |_| ()).unwrap().iter().all(|verified| verified.damage.is_none()));
    }
}

#[test]
fn a_file_cut_short_or_damaged_is_told_and_never_taken_for_whole() {
    let scratch = tempfile::tempdir().unwrap();
    let whole = scratch.path().join("whole");
    {
        // Opened twice, so that there is a snapshot of sled's, too.
        let (mut device, mut random) = (Device::default(), Random::new(3));
        for _ in 0..2 {
            let store = open(&whole).unwrap();
            for _ in 0..30 {
                commit(&store, &mut device, &mut random, 8, 60_000);
            }
        }
    }
    let log = "sled/db";
    let length = fs::metadata(whole.join(log)).unwrap().len();
    let random = &mut Random::new(7);
    let (mut refused, mut recovered) = (0, 0);
    for n in 0..30 {
        let copy = scratch.path().join("copy");
        let _ = fs::remove_dir_all(&copy);
        fs::create_dir_all(copy.join("sled/blobs")).unwrap();
        for name in files(&whole).iter().filter(|name| !Path::new(name).is_dir()) {
            fs::copy(name, copy.join(Path::new(name).strip_prefix(&whole).unwrap())).unwrap();
        }
        let mut bytes = fs::read(copy.join(log)).unwrap();
        match n % 2 {
            0 => bytes.truncate((length as usize / 15) * (n / 2)),
            _ => bytes[random.below(length as usize)] ^= 0x10,
        }
        fs::write(copy.join(log), bytes).unwrap();
        let store = match open(&copy) {
            Ok(store) => store,
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains("is damaged") && text.contains(&copy.display().to_string()), "{text}");
                refused += 1;
                continue;
            }
        };
        let found = store.latest("cpu0").unwrap();
        let epoch = found.checkpoint.as_ref().map_or(0, |manifest| manifest.epoch);
        // What is there is right, and what is not there is told.
        if epoch > 0 {
            assert_eq!(read(&store, "cpu0", epoch).unwrap(), device_at(epoch, 8, 60_000).content);
        }
        assert_eq!(found.cost().is_some(), epoch < 60, "{epoch}: {:?}", found.cost());
        recovered += (1..60).contains(&epoch) as u32;
    }
    println!("{refused} refused, {recovered} recovered from an older checkpoint");
    assert!(refused > 0 && recovered > 0);
}

#[test]
fn a_folder_that_another_has_open_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let _held = Sled::open(scratch.path()).unwrap();
    let begun = Instant::now();
    assert!(matches!(Sled::open(scratch.path()), Err(blocks::Error::InUse(_))));
    assert!(begun.elapsed() > Duration::from_secs(1), "one that is closing is waited for");
}

/// Prints what a commit costs, beside a bare fsync on the same disk: `cargo test --release -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement: run it by name, in release"]
fn what_a_commit_costs() {
    let scratch = tempfile::tempdir_in(std::env::var_os("RINGHOLD_BENCH_DIR").unwrap_or(".".into())).unwrap();
    let print = |what: &str, mut times: Vec<Duration>| {
        times.sort();
        let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_micros();
        println!("{what}: p50 {} µs, p90 {}, p99 {}, max {}", at(50), at(90), at(99), at(100));
    };
    let measure = |count: usize, mut step: Box<dyn FnMut() + '_>| -> Vec<Duration> {
        let timed = |_| {
            let begun = Instant::now();
            step();
            begun.elapsed()
        };
        (0..count).map(timed).collect()
    };
    use std::os::unix::fs::FileExt;
    let file = OpenOptions::new().create_new(true).write(true).open(scratch.path().join("bare")).unwrap();
    let mut end = 0;
    let mut append = || {
        file.write_all_at(&[7; 4_096], end).unwrap();
        file.sync_data().unwrap();
        end += 4_096;
    };
    print("4 KiB appended to a bare file and fsynced", measure(2_000, Box::new(&mut append)));
    let twice = || {
        append();
        append();
    };
    print("the same twice", measure(2_000, Box::new(twice)));

    let sled = Sled::open(&scratch.path().join("sled")).unwrap();
    let mut n = 0u64;
    let put = || {
        n += 1;
        sled.put(&(n % 100).to_be_bytes(), &[n as u8; 4_096]).unwrap();
        sled.sync().unwrap();
    };
    print("4 KiB put into sled and synced", measure(2_000, Box::new(put)));
    drop(sled);

    for (bytes, count) in [(4usize << 10, 2_000), (64 << 10, 1_000), (1 << 20, 200), (16 << 20, 20)] {
        for compacting in [false, true] {
            let path = scratch.path().join(format!("store-{bytes}-{compacting}"));
            let store = open(&path).unwrap();
            let mut lane = Vec::new();
            let mut epoch = 0;
            let over = Arc::new(AtomicBool::new(false));
            // Beside it another device of 64 MiB is compacted over and over, at half the speed it could be.
            let beside = compacting.then(|| {
                let (store, over) = (store.clone(), over.clone());
                fill(&store, "cpu1", 1, 64 << 20, None);
                std::thread::spawn(move || {
                    let mut epoch = 1;
                    while !over.load(Ordering::Relaxed) {
                        epoch += 1;
                        fill(&store, "cpu1", epoch, 1_000, Some(epoch - 1));
                        let (mut rested, mut begun) = (0, Instant::now());
                        let rest = &mut |done: u64| {
                            if done - rested >= 256 << 10 {
                                std::thread::sleep(begun.elapsed());
                                (rested, begun) = (done, Instant::now());
                            }
                        };
                        store.compact("cpu1", rest).unwrap();
                    }
                    epoch
                })
            });
            let step = || {
                epoch += 1;
                lane.clear();
                actors(&mut lane, epoch, bytes);
                let mut draft = store.begin("cpu0", epoch, None).unwrap();
                draft.append(ringhold_storage::checkpoints::Part::Lane(0), &lane).unwrap();
                draft.commit(about(epoch)).unwrap();
            };
            let before = written();
            let times = measure(count, Box::new(step));
            let times_written = (written() - before) as f64 / (bytes * count) as f64;
            over.store(true, Ordering::Relaxed);
            let beside =
                beside.map_or(String::new(), |thread| format!(" beside {} compactions", thread.join().unwrap()));
            let wrote = if compacting { String::new() } else { format!(", {times_written:.1} bytes written for each") };
            print(&format!("a commit of {} KiB{beside}{wrote}", bytes >> 10), times);
        }
    }
}

/// Bytes that this process has written to files.
fn written() -> u64 {
    let io = fs::read_to_string("/proc/self/io").unwrap();
    io.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap().parse().unwrap()
}

fn actors(out: &mut Vec<u8>, epoch: u64, bytes: usize) {
    use ringhold_kernels::checkpoint::push_actor;
    use ringhold_kernels::id::{ActorId, Key, TypeId};
    let mut key = 0;
    while out.len() < bytes {
        push_actor(out, ActorId::new(TypeId(1), Key(key)), epoch, 0, 224).fill(epoch as u8);
        key += 1;
    }
}

fn fill(store: &Checkpoints, device: &str, epoch: u64, bytes: usize, base: Option<u64>) {
    let mut lane = Vec::new();
    actors(&mut lane, epoch, bytes);
    let mut draft = store.begin(device, epoch, base).unwrap();
    draft.append(ringhold_storage::checkpoints::Part::Lane(0), &lane).unwrap();
    draft.commit(about(epoch)).unwrap();
}
