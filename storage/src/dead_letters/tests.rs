use ringhold_kernels::hlc::Hlc;
use ringhold_kernels::id::{ActorId, Key, TypeId};
use ringhold_kernels::message::Kind;

use super::*;

fn letter(n: u64, reason: Reason) -> DeadLetter {
    let payload = vec![n as u8; n as usize % 50];
    let to = ActorId::new(TypeId(1), Key(n));
    let strike = |n| Strike { at_us: n, term: n + 1, how: format!("killed by signal {n}") };
    let history = (0..n % 3).map(strike).collect();
    let header = Header::new(Kind::Tell, to, ActorId::default(), payload.len(), Hlc(n));
    DeadLetter { header, payload, reason, at_us: 1_000 + n, device: format!("cpu{}", n % 3), history }
}

fn letters(numbers: std::ops::Range<u64>) -> Vec<DeadLetter> {
    numbers.map(|n| letter(n, if n % 2 == 0 { Reason::NoActor } else { Reason::Rejected })).collect()
}

fn check(queue: &dyn DeadLetters, appended: u64, kept: u64) {
    let newest: Vec<u64> = (appended - kept..appended).rev().collect();
    let listed = queue.list(&Filter::default(), 1_000).unwrap();
    assert_eq!(listed.numbers, newest);
    let listed = listed.letters;
    assert_eq!(listed.iter().map(|(number, _)| *number).collect::<Vec<_>>(), newest);
    assert!(listed.iter().all(|(number, found)| *found == letters(*number..number + 1)[0]));
    assert_eq!(queue.count(), kept);
    let totals = queue.totals();
    assert_eq!((totals.appended(), totals.evicted), (appended, appended - kept));
    assert_eq!(totals.by_reason.get(&Reason::NoActor).copied().unwrap_or(0), appended.div_ceil(2));
}

fn keeps_the_newest(queue: &dyn DeadLetters) {
    check(queue, 0, 0);
    queue.append(&letters(0..3)).unwrap();
    check(queue, 3, 3);
    queue.append(&letters(3..12)).unwrap();
    check(queue, 12, 10);
    queue.append(&[]).unwrap();
    // More at once than are kept at all: those in the middle are counted and never stored.
    queue.append(&letters(12..55)).unwrap();
    check(queue, 55, 10);
    let two = queue.list(&Filter::default(), 2).unwrap();
    assert_eq!((two.letters.len(), two.numbers.len()), (2, 10));
}

#[test]
fn the_newest_are_kept_and_the_rest_counted() {
    keeps_the_newest(&InMemory::new(10));
    let scratch = tempfile::tempdir().unwrap();
    let queue = Store::open(&scratch.path().join("dead-letters"), 10).unwrap();
    keeps_the_newest(&queue);
    assert_eq!(queue.entries(), 12, "ten letters, the position and the totals");
}

#[test]
fn letters_and_counts_survive_a_reopening_and_a_smaller_bound() {
    let scratch = tempfile::tempdir().unwrap();
    for (bound, appended, kept) in [(10, 4, 4), (10, 15, 10), (5, 15, 5), (20, 20, 10)] {
        let queue = Store::open(scratch.path(), bound).unwrap();
        let already = queue.totals().appended();
        queue.append(&letters(already..appended)).unwrap();
        check(&queue, appended, kept);
    }
}

#[test]
fn a_letter_over_the_limit_is_refused_whole() {
    let queue = InMemory::new(10);
    let mut big = letter(1, Reason::TooLarge);
    big.payload = vec![0; LETTER_BYTES_MAX];
    assert!(matches!(queue.append(&[letter(0, Reason::NoActor), big]), Err(Error::TooLarge(_))));
    check(&queue, 0, 0);
}

#[test]
fn a_damaged_entry_is_reported_not_skipped() {
    let scratch = tempfile::tempdir().unwrap();
    let queue = Store::open(scratch.path(), 10).unwrap();
    queue.append(&letters(0..2)).unwrap();
    queue.flush().unwrap();
    queue.put(&1u64.to_be_bytes(), b"short");
    let text = queue.list(&Filter::default(), 10).unwrap_err().to_string();
    assert!(text.contains("number 1"), "{text}");
    queue.put(b"queue position", b"short");
    drop(queue);
    assert!(matches!(Store::open(scratch.path(), 10), Err(Error::Damaged { .. })));
}

fn numbers(listed: &Listed) -> Vec<u64> {
    listed.letters.iter().map(|(number, _)| *number).collect()
}

fn is_filtered_and_taken_from(queue: &dyn DeadLetters) {
    queue.append(&letters(0..10)).unwrap();
    let list = |filter: &Filter| numbers(&queue.list(filter, 100).unwrap());
    let rejected = Filter { reason: Some(Reason::Rejected), ..Filter::default() };
    assert_eq!(list(&rejected), [9, 7, 5, 3, 1]);
    assert_eq!(list(&Filter { newest: Some(5), ..rejected.clone() }), [5, 3, 1]);
    assert!(list(&Filter { to_type: Some(TypeId(2)), ..Filter::default() }).is_empty());
    assert_eq!(list(&Filter { numbers: Some([3, 4, 99].into()), ..Filter::default() }), [4, 3]);
    let two = queue.list(&rejected, 2).unwrap();
    assert_eq!((numbers(&two), two.numbers.len()), (vec![9, 7], 5), "the others are counted");

    assert_eq!(queue.remove(&[3, 9, 99].into(), Removal::Dropped), 2);
    assert_eq!(queue.remove(&[3, 4].into(), Removal::Retried), 1, "what is gone is not counted twice");
    assert_eq!(list(&rejected), [7, 5, 1]);
    // A hole is no letter: the bound is on those that are there.
    queue.append(&letters(10..13)).unwrap();
    assert_eq!(list(&Filter::default()), [12, 11, 10, 8, 7, 6, 5, 2, 1, 0]);
    queue.append(&letters(13..14)).unwrap();
    assert_eq!(list(&Filter::default()), [13, 12, 11, 10, 8, 7, 6, 5, 2, 1]);
    let totals = queue.totals();
    assert_eq!((totals.appended(), totals.evicted, totals.dropped, totals.retried), (14, 1, 2, 1));
}

#[test]
fn letters_are_found_by_filter_and_taken_out_by_number() {
    is_filtered_and_taken_from(&InMemory::new(10));
    let scratch = tempfile::tempdir().unwrap();
    let queue = Store::open(scratch.path(), 10).unwrap();
    is_filtered_and_taken_from(&queue);
    let (listed, totals) = (queue.list(&Filter::default(), 100).unwrap(), queue.totals());
    drop(queue);
    let queue = Store::open(scratch.path(), 10).unwrap();
    assert_eq!((queue.list(&Filter::default(), 100).unwrap(), queue.totals()), (listed, totals), "all of it is kept");
    queue.append(&letters(14..15)).unwrap();
    assert_eq!(numbers(&queue.list(&Filter::default(), 1).unwrap()), [14], "no number is used again");
}

#[test]
fn letters_of_a_release_without_histories_are_read() {
    let old = letter(3, Reason::NoActor);
    assert!(old.history.is_empty());
    let bytes = old.to_bytes();
    assert_eq!(bytes[8 + HEADER_BYTES], Reason::NoActor as u8);
    assert_eq!(DeadLetter::from_bytes(&bytes).unwrap(), old);
    for n in 0..20 {
        let letter = letter(n, Reason::Poison);
        assert_eq!(
            (letter.bytes(), DeadLetter::from_bytes(&letter.to_bytes())),
            (letter.to_bytes().len(), Some(letter))
        );
    }
}

/// A small file system in memory; unmounted when dropped. `None` where none can be mounted.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(at: &Path, kilobytes: u32) -> Option<SmallDisk> {
        std::fs::create_dir_all(at).unwrap();
        let options = format!("size={kilobytes}k");
        let mut mount = std::process::Command::new("mount");
        let mounted = mount.args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at).output();
        mounted.ok().filter(|ran| ran.status.success()).map(|_| SmallDisk(at.into()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_costs_no_letter_that_memory_can_keep() {
    let scratch = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(&scratch.path().join("disk"), 4 << 10) else {
        return println!("skipped: no tmpfs can be mounted here");
    };
    let (folder, ballast) = (disk.0.join("letters"), disk.0.join("ballast"));
    // Room in memory for sixty of these, more or less.
    let queue = Store::open_sized(&folder, 1_000, 600_000).unwrap();
    let big = |n: u64| DeadLetter { payload: vec![n as u8; 10_000], ..letter(n, Reason::Rejected) };
    queue.append(&(0..5).map(big).collect::<Vec<_>>()).unwrap();
    queue.flush().unwrap();
    // All the room there is; a write that finds none says how much it found.
    let mut file = std::fs::File::create(&ballast).unwrap();
    while std::io::Write::write_all(&mut file, &[1; 4_096]).is_ok() {}
    drop(file);
    let (mut appended, mut lost) = (5, 0);
    while lost == 0 {
        match queue.append(&[big(appended)]) {
            Ok(()) => appended += 1,
            Err(Error::NoRoom { lost: one, .. }) => lost += one,
            Err(other) => panic!("{other}"),
        }
        assert!(appended < 1_000, "the disk is not full");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(queue.failed().is_some_and(|why| why.contains("space")), "{:?}", queue.failed());
    assert!(matches!(queue.flush(), Err(Error::NotFlushed { waiting: 1.., .. })));
    std::fs::remove_file(&ballast).unwrap();
    let began = std::time::Instant::now();
    while queue.failed().is_some() {
        assert!(began.elapsed() < std::time::Duration::from_secs(60), "{:?}", queue.failed());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    queue.flush().unwrap();
    drop(queue);
    let queue = Store::open(&folder, 1_000).unwrap();
    let kept = queue.list(&Filter::default(), 1_000).unwrap();
    assert_eq!((kept.numbers.len() as u64, queue.totals().lost), (appended, lost));
    assert!(kept.letters.iter().all(|(number, letter)| *letter == big(*number)));
    drop((queue, disk));
}
