//! A power failure at any call of anything.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use ringhold_storage::blocks::{Blocks, InMemory, Sled};
use ringhold_storage::raft_log::{Error, RaftLog};

use crate::disk::{Disk, Random};

const NAMES: [&str; 3] = ["vote", "committed", "identity"];

/// What a log holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Content {
    first: u64,
    entries: Vec<Vec<u8>>,
    records: BTreeMap<&'static str, Vec<u8>>,
    snapshot: Option<Vec<u8>>,
}

impl Content {
    fn range(&self) -> Range<u64> {
        self.first..self.first + self.entries.len() as u64
    }

    fn truncate(&mut self, from: u64) {
        self.entries.truncate(from.saturating_sub(self.first) as usize);
    }

    fn purge(&mut self, up_to: u64) {
        let gone = (up_to + 1).saturating_sub(self.first);
        self.entries.drain(..self.entries.len().min(gone as usize));
        self.first += gone;
    }

    fn of(log: &RaftLog) -> Content {
        let range = log.range();
        let mut entries = Vec::new();
        while entries.len() < (range.end - range.start) as usize {
            let read = log.read(range.start + entries.len() as u64..u64::MAX, 50_000).unwrap();
            assert!(!read.is_empty());
            entries.extend(read);
        }
        let records = NAMES.iter().filter_map(|name| Some((*name, log.record(name).unwrap()?))).collect();
        Content { first: range.start, entries, records, snapshot: log.snapshot().unwrap() }
    }
}

/// What may be there after a power failure.
struct Tracked {
    /// What has been acknowledged, and is there in any case.
    content: Content,
    /// What the call that failed was about to leave: everything else that may be there.
    begun: Vec<Content>,
    /// Records that were noted and need not be durable yet, the oldest first.
    noted: BTreeMap<&'static str, Vec<Vec<u8>>>,
}

impl Tracked {
    fn step(&mut self, log: &RaftLog, random: &mut Random) -> Result<(), Error> {
        let old = self.content.clone();
        let mut new = old.clone();
        self.begun.clear();
        match random.below(12) {
            0..=4 => {
                let entries: Vec<_> = (0..random.below(5)).map(|_| some_bytes(random)).collect();
                // Any number of them may be there.
                for entry in &entries {
                    new.entries.push(entry.clone());
                    self.begun.push(new.clone());
                }
                log.append(old.range().end, &entries)?;
            }
            5 => {
                let from = old.first + random.below(old.entries.len() + 2) as u64;
                new.truncate(from);
                self.begun.push(new.clone());
                log.truncate(from)?;
            }
            6 => {
                // Past the end now and then, as where a snapshot came.
                let up_to = (old.first + random.below(old.entries.len() + 3) as u64).saturating_sub(1);
                new.purge(up_to);
                self.begun.push(new.clone());
                log.purge(up_to)?;
            }
            7..=8 => {
                let (name, record) = (NAMES[random.below(3)], some_bytes(random));
                let record = record[..record.len().min(1_000)].to_vec();
                new.records.insert(name, record.clone());
                self.begun.push(new.clone());
                log.set_record(name, &record)?;
            }
            9 => {
                let (name, record) = (NAMES[random.below(3)], some_bytes(random));
                let record = record[..record.len().min(1_000)].to_vec();
                self.noted.entry(name).or_default().push(record.clone());
                log.note_record(name, &record)?;
                assert_eq!(log.record(name)?.as_ref(), Some(&record), "it is read at once");
                return Ok(());
            }
            _ => {
                let snapshot = some_bytes(random).repeat(random.below(4));
                new.snapshot = Some(snapshot.clone());
                self.begun.push(new.clone());
                log.set_snapshot(&snapshot)?;
            }
        }
        self.content = new;
        Ok(())
    }

    /// What is there is a state that may be, and from there it goes on.
    fn check(&mut self, found: Content, seed: u64) {
        let mut plain = found.clone();
        for (name, noted) in &self.noted {
            // A record that was noted after the last durable write of its name.
            if found.records.get(name).is_some_and(|found| noted.contains(found)) {
                plain.records.remove(name);
            }
        }
        let fits = |may: &Content| {
            let mut may = may.clone();
            for name in self.noted.keys() {
                if !plain.records.contains_key(name) {
                    may.records.remove(name);
                }
            }
            may == plain
        };
        let fits = fits(&self.content) || self.begun.iter().any(fits);
        let may: Vec<_> = self.begun.iter().map(brief).collect();
        assert!(fits, "seed {seed}: {} is neither {} nor one of {may:?}", brief(&found), brief(&self.content));
        *self = Tracked { content: found, begun: Vec::new(), noted: BTreeMap::new() };
    }
}

fn brief(content: &Content) -> String {
    let records: Vec<_> = content.records.iter().map(|(name, record)| (name, record.len())).collect();
    let snapshot = content.snapshot.as_ref().map(Vec::len);
    format!("{:?} {records:?} snapshot {snapshot:?}", content.range())
}

/// Mostly a few bytes, now and then several pieces, all different.
fn some_bytes(random: &mut Random) -> Vec<u8> {
    let bytes = match random.below(6) {
        0 => random.below(100_000),
        1 => 0,
        _ => random.below(100),
    };
    let (start, step) = (random.below(256), random.below(256));
    (0..bytes).map(|n| (start + n * step) as u8).collect()
}

fn open(disk: &Disk, calls: usize) -> Result<RaftLog, Error> {
    disk.power(calls);
    RaftLog::open(Arc::new(disk.clone()), Path::new("the folder"))
}

/// Works on a log with power failures; says how many there were.
fn run(seed: u64, disk: &Disk) -> usize {
    let random = &mut Random::new(seed);
    let mut tracked = Tracked { content: Content::default(), begun: Vec::new(), noted: BTreeMap::new() };
    let mut failures = 0;
    for _ in 0..8 {
        // Half of the failures come while everything is quiet.
        let calls = if random.below(2) == 0 { 150 } else { 100_000 };
        let calls = random.below(calls);
        let outcome = open(disk, calls).and_then(|log| {
            for _ in 0..1 + random.below(30) {
                tracked.step(&log, random)?;
                assert!(!matches!(log.append(log.range().end + 1, &[vec![]]), Ok(()) | Err(Error::Blocks(_))));
            }
            Ok(())
        });
        assert!(matches!(outcome, Ok(()) | Err(Error::Blocks(_))), "seed {seed}: {outcome:?}");
        failures += outcome.is_err() as usize;
        disk.crash(random);
        let log = open(disk, usize::MAX).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        tracked.check(Content::of(&log), seed);
    }
    failures
}

#[test]
fn what_was_acknowledged_survives_a_power_failure_at_any_call() {
    let failures: usize = (0..1_500).map(|seed| run(seed, &Disk::default())).sum();
    assert!(failures > 3_000, "{failures}");
}

#[test]
fn a_disk_that_does_not_sync_is_caught() {
    let disk = Disk::default();
    disk.forget_syncs();
    let caught = std::panic::catch_unwind(|| (0..50).map(|seed| run(seed, &disk)).sum::<usize>());
    assert!(caught.is_err());
}

#[test]
fn nothing_is_written_once_a_write_has_failed() {
    let disk = Disk::default();
    let log = open(&disk, 100).unwrap();
    log.append(0, &[b"one".to_vec()]).unwrap();
    disk.power(1);
    assert!(matches!(log.append(1, &[b"two".to_vec(), b"three".to_vec()]), Err(Error::Blocks(_))));
    // It works again, but what the log has there is not known.
    disk.power(100);
    assert_eq!(log.range(), 0..1);
    assert!(matches!(log.append(1, &[b"2".to_vec()]), Err(Error::Failed(_))));
    assert!(matches!(log.set_snapshot(b"all"), Err(Error::Failed(_))));
    drop(log);
    let log = open(&disk, 100).unwrap();
    log.append(log.range().end, &[b"2".to_vec()]).unwrap();
}

#[test]
fn what_is_too_large_is_refused() {
    let log = RaftLog::open(Arc::new(InMemory::default()), Path::new("the folder")).unwrap();
    for refused in [
        log.append(0, &[vec![0; (8 << 20) + 1]]),
        log.set_record("vote", &vec![0; 32 << 10]),
        log.set_snapshot(&vec![0; (64 << 20) + 1]),
    ] {
        assert!(matches!(refused, Err(Error::TooLarge { .. })), "{refused:?}");
    }
    let entry = vec![7; 8 << 20];
    log.append(0, std::slice::from_ref(&entry)).unwrap();
    assert_eq!(log.read(0..1, 1).unwrap(), [entry]);
}

#[test]
fn a_log_in_sled_is_as_it_was_when_it_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let open =
        || RaftLog::open(Arc::new(Sled::open(folder.path()).unwrap()) as Arc<dyn Blocks>, folder.path()).unwrap();
    let mut tracked = Tracked { content: Content::default(), begun: Vec::new(), noted: BTreeMap::new() };
    let random = &mut Random::new(11);
    for _ in 0..3 {
        let log = open();
        for _ in 0..40 {
            tracked.step(&log, random).unwrap();
        }
        drop(log);
        tracked.begun.clear();
        tracked.check(Content::of(&open()), 11);
    }
}
