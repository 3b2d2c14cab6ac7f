//! Which device of the node has which shard, now and for good.
//!
//! [`Shards`] is what the node goes by: the router, the doors and the segments of new hosts look there. [`ShardTable`] is what
//! says so durably. A shard is a device's once the table says it is; what a device's checkpoints have of another one's shards
//! is nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use ringhold_cluster::network::BoxFuture;
use ringhold_kernels::id::Key;
use ringhold_kernels::outbox::{AWAY, Owner, Owners, SHARDS, shard_of};
use ringhold_storage::checkpoints::{self, Checkpoints};
use tokio::time::sleep;

pub use ringhold_storage::checkpoints::Ownership;

use crate::device::keeper::Jobs;

/// Of shards that devices of other nodes have: the place of none of this node's.
pub const ELSEWHERE: u16 = u16::MAX;
/// The term of a shard's first owner.
pub const FIRST_TERM: u32 = 1;
/// Once the disk has failed, the table is written again after so long.
const FAILED_PAUSE: Duration = Duration::from_millis(100);

/// Some of the shards.
#[derive(Clone, PartialEq, Eq)]
pub struct ShardSet(Box<[u64; SHARDS / 64]>);

/// Bytes of a set, as it is kept.
pub const SHARD_SET_BYTES: usize = SHARDS / 8;

impl ShardSet {
    pub fn contains(&self, shard: usize) -> bool {
        self.0[shard / 64] >> (shard % 64) & 1 != 0
    }

    /// Whether an actor of this key is of one of them.
    pub fn has(&self, key: Key) -> bool {
        self.contains(shard_of(key))
    }

    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        (0..SHARDS).filter(|shard| self.contains(*shard))
    }

    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Those that are in both.
    pub fn and(&self, other: &ShardSet) -> ShardSet {
        ShardSet(Box::new(std::array::from_fn(|word| self.0[word] & other.0[word])))
    }

    /// Those that are in either.
    pub fn or(&self, other: &ShardSet) -> ShardSet {
        ShardSet(Box::new(std::array::from_fn(|word| self.0[word] | other.0[word])))
    }

    /// Those that are not in the other.
    pub fn without(&self, other: &ShardSet) -> ShardSet {
        ShardSet(Box::new(std::array::from_fn(|word| self.0[word] & !other.0[word])))
    }

    pub fn to_bytes(&self) -> [u8; SHARD_SET_BYTES] {
        let mut bytes = [0; SHARD_SET_BYTES];
        bytes.as_chunks_mut().0.iter_mut().zip(self.0.iter()).for_each(|(to, word)| *to = word.to_le_bytes());
        bytes
    }

    pub fn from_bytes(bytes: &[u8; SHARD_SET_BYTES]) -> ShardSet {
        let (words, _) = bytes.as_chunks();
        ShardSet(Box::new(std::array::from_fn(|word| u64::from_le_bytes(words[word]))))
    }
}

impl FromIterator<usize> for ShardSet {
    /// # Panics
    /// Where one is no shard.
    fn from_iter<I: IntoIterator<Item = usize>>(shards: I) -> ShardSet {
        let mut set = [0u64; SHARDS / 64];
        shards.into_iter().for_each(|shard| set[shard / 64] |= 1 << (shard % 64));
        ShardSet(Box::new(set))
    }
}

impl std::fmt::Debug for ShardSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// Which device has each shard, as the node goes by it. Shared; a look costs one load.
pub struct Shards {
    owners: Box<[AtomicU16]>,
    /// By its number: in a cluster, the one that the cluster has given it; else its place. [`ELSEWHERE`] where none is known.
    numbers: Box<[AtomicU16]>,
    /// The numbers of the node's own devices, by their places.
    own: RwLock<Vec<u16>>,
    /// It has had another owner than its first.
    moved: Box<[AtomicBool]>,
    /// Since which term that is so: what is known of an earlier one is old.
    terms: Box<[AtomicU32]>,
}

impl std::fmt::Debug for Shards {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.owners.iter().map(|owner| owner.load(Relaxed))).finish()
    }
}

impl Shards {
    /// Of a node that stands alone: its devices have their places for numbers.
    pub fn new(table: &[Ownership]) -> Shards {
        Shards::in_cluster(table, (0..ELSEWHERE).collect(), |_| None)
    }

    /// Of a node whose devices have these numbers in its cluster, by their places. `elsewhere` says the number of the device of
    /// another node that has a shard.
    pub fn in_cluster(table: &[Ownership], own: Vec<u16>, elsewhere: impl Fn(usize) -> Option<u16>) -> Shards {
        assert_eq!(table.len(), SHARDS, "every shard has an owner");
        let number = |(shard, owner): (usize, &Ownership)| match own.get(usize::from(owner.device)) {
            Some(number) => AtomicU16::new(*number),
            None => AtomicU16::new(elsewhere(shard).unwrap_or(ELSEWHERE)),
        };
        Shards {
            owners: table.iter().map(|owner| AtomicU16::new(owner.device)).collect(),
            numbers: table.iter().enumerate().map(number).collect(),
            moved: table.iter().map(|owner| AtomicBool::new(owner.term > FIRST_TERM)).collect(),
            terms: table.iter().map(|owner| AtomicU32::new(owner.term)).collect(),
            own: RwLock::new(own),
        }
    }

    #[inline(always)]
    pub fn of(&self, key: Key) -> u16 {
        self.owners[shard_of(key)].load(Relaxed)
    }

    pub fn of_shard(&self, shard: usize) -> u16 {
        self.owners[shard].load(Relaxed)
    }

    /// The number of the device that has an actor's shard, whichever node's that is.
    #[inline(always)]
    pub fn number_of(&self, key: Key) -> u16 {
        self.numbers[shard_of(key)].load(Relaxed)
    }

    /// Takes in that the node runs a device of this number at its next place.
    pub fn runs(&self, number: u16) {
        self.own.write().push(number);
    }

    /// Takes in that the device which was given the last place does not run after all.
    pub fn runs_no_more(&self) {
        self.own.write().pop();
    }

    /// Takes in which device of another node has a shard since this term, where none of this node's has it.
    pub fn has_elsewhere(&self, shard: usize, number: Option<u16>, term: u32) {
        if self.of_shard(shard) == ELSEWHERE && term >= self.terms[shard].load(Relaxed) {
            self.terms[shard].store(term, Relaxed);
            self.numbers[shard].store(number.unwrap_or(ELSEWHERE), Relaxed);
            // What a device that begins here has of it may be from before that.
            self.moved[shard].fetch_or(term > FIRST_TERM, Relaxed);
        }
    }

    /// Whether the shard has ever moved: what a device has of it and is not its own may be from before that.
    pub fn has_moved(&self, key: Key) -> bool {
        self.moved[shard_of(key)].load(Relaxed)
    }

    /// The shards that a device has.
    pub fn owned_by(&self, device: u16) -> ShardSet {
        (0..SHARDS).filter(|shard| self.of_shard(*shard) == device).collect()
    }

    /// Has shards be another device's from now on. Whoever changes it holds the locks of both devices' doors.
    pub fn give(&self, shards: &ShardSet, to: u16) {
        let number = self.own.read().get(usize::from(to)).copied();
        for shard in shards.iter() {
            self.owners[shard].store(to, Relaxed);
            if let Some(number) = number {
                self.numbers[shard].store(number, Relaxed);
            }
            self.moved[shard].store(true, Relaxed);
            self.terms[shard].fetch_add(1, Relaxed);
        }
    }

    /// Has shards of a device of another node be this device's from now on, since these terms. Whoever changes it holds the lock of
    /// its door.
    pub fn take(&self, shards: &ShardSet, to: u16, term: impl Fn(usize) -> u32) {
        self.give(shards, to);
        shards.iter().for_each(|shard| self.terms[shard].store(term(shard), Relaxed));
    }

    /// Has shards that the device `from` of this node had be those of the device of this number from now on, which was another node's
    /// when that was agreed on. Where it has begun here meanwhile, it has them already. Whoever changes it holds the lock of the door
    /// of the device that had them.
    pub fn give_elsewhere(&self, shards: &ShardSet, from: u16, number: u16) {
        for shard in shards.iter().filter(|shard| self.of_shard(*shard) == from) {
            self.numbers[shard].store(number, Relaxed);
            self.owners[shard].store(ELSEWHERE, Relaxed);
            self.moved[shard].store(true, Relaxed);
            self.terms[shard].fetch_add(1, Relaxed);
        }
    }

    /// The shards of a device dealt out to its workers, in turn.
    pub fn deal(&self, device: u16, workers: usize) -> Owners {
        let mut next = 0;
        Owners::from_fn(|shard| {
            if self.of_shard(shard) != device {
                return AWAY;
            }
            next += 1;
            ((next - 1) % workers) as Owner
        })
    }
}

/// At first shards are dealt out to devices in turn.
pub fn dealt(devices: usize) -> Vec<Ownership> {
    (0..SHARDS).map(|shard| Ownership { device: (shard % devices) as u16, term: FIRST_TERM }).collect()
}

/// Who has which shard, durably.
pub trait ShardTable: Send + Sync {
    /// The owner of each shard, by its place among the node's devices, and the term since which it has it.
    fn owners(&self) -> Vec<Ownership>;

    /// Says whether a change can be made now, as far as that can be known.
    fn ready(&self) -> BoxFuture<'_, Result<(), NotMoved>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Has shards be another device's from now on, all of them at once, each in a term that is greater by one. Durable once this
    /// has returned. Where it returns an error nothing has changed and nothing will: an implementation that cannot know that
    /// goes on until it does.
    fn move_shards<'a>(&'a self, shards: &'a ShardSet, from: u16, to: u16) -> BoxFuture<'a, Result<(), NotMoved>>;
}

/// Why the table did not change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the shard table has not changed: {0}")]
pub struct NotMoved(pub String);

fn moved(table: &[Ownership], shards: &ShardSet, from: u16, to: u16) -> Result<Vec<Ownership>, NotMoved> {
    let mut table = table.to_vec();
    for shard in shards.iter() {
        if table[shard].device != from {
            return Err(NotMoved(format!("shard {shard} is device {}'s, and not {from}'s", table[shard].device)));
        }
        table[shard] = Ownership { device: to, term: table[shard].term + 1 };
    }
    Ok(table)
}

/// A table that goes with its process: for tests, and where nothing is kept.
pub struct InMemory(Mutex<Vec<Ownership>>);

impl InMemory {
    pub fn new(devices: usize) -> InMemory {
        InMemory(Mutex::new(dealt(devices)))
    }
}

impl ShardTable for InMemory {
    fn owners(&self) -> Vec<Ownership> {
        self.0.lock().clone()
    }

    fn move_shards<'a>(&'a self, shards: &'a ShardSet, from: u16, to: u16) -> BoxFuture<'a, Result<(), NotMoved>> {
        Box::pin(async move {
            let mut table = self.0.lock();
            *table = moved(&table, shards, from, to)?;
            Ok(())
        })
    }
}

/// The table of a node by itself, beside its checkpoints.
pub struct Stored {
    store: Checkpoints,
    jobs: Arc<dyn Jobs>,
    table: Mutex<Vec<Ownership>>,
}

impl Stored {
    /// Reads it; where there is none, shards are dealt out to so many devices.
    pub fn open(store: Checkpoints, jobs: Arc<dyn Jobs>, devices: usize) -> Result<Stored, checkpoints::Error> {
        let table = store.shard_table()?.unwrap_or_else(|| dealt(devices));
        if table.len() != SHARDS {
            return Err(checkpoints::Error::ShardTable(format!(
                "it has {} shards, and there are {SHARDS}",
                table.len()
            )));
        }
        Ok(Stored { store, jobs, table: Mutex::new(table) })
    }
}

impl ShardTable for Stored {
    fn owners(&self) -> Vec<Ownership> {
        self.table.lock().clone()
    }

    fn move_shards<'a>(&'a self, shards: &'a ShardSet, from: u16, to: u16) -> BoxFuture<'a, Result<(), NotMoved>> {
        Box::pin(async move {
            let next = moved(&self.table.lock(), shards, from, to)?;
            loop {
                let written = Arc::new(Mutex::new(None));
                let (store, result, table) = (self.store.clone(), written.clone(), next.clone());
                self.jobs.run(Box::new(move || *result.lock() = Some(store.set_shard_table(&table)))).await;
                match written.lock().take().expect("the job was done") {
                    Ok(()) => break,
                    // Which of the two tables is on the disk now, nobody knows.
                    Err(e) => tracing::error!("the shard table could not be written, trying again: {e}"),
                }
                sleep(FAILED_PAUSE).await;
            }
            *self.table.lock() = next;
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_shards_is_one() {
        let odd: ShardSet = (0..SHARDS).filter(|shard| shard % 2 == 1).collect();
        let low: ShardSet = (0..100).collect();
        assert_eq!(odd.len(), SHARDS / 2);
        assert!(odd.and(&low).iter().eq((0..100).filter(|shard| shard % 2 == 1)));
        assert!(odd.and(&low).or(&low.without(&odd)) == low);
        assert!(low.without(&odd).iter().eq((0..100).filter(|shard| shard % 2 == 0)));
        assert_eq!(ShardSet::from_bytes(&odd.to_bytes()), odd);
        assert!(low.without(&low).is_empty());
    }

    #[tokio::test]
    async fn a_table_moves_what_it_is_told_to_or_nothing() {
        let table = InMemory::new(3);
        let shards: ShardSet = [0, 3, 6].into_iter().collect();
        table.move_shards(&shards, 0, 2).await.unwrap();
        assert_eq!(table.owners()[3], Ownership { device: 2, term: 2 });
        let mixed: ShardSet = [0, 1].into_iter().collect();
        let refused = table.move_shards(&mixed, 2, 1).await.unwrap_err();
        assert_eq!(refused.to_string(), "the shard table has not changed: shard 1 is device 1's, and not 2's");
        assert_eq!(table.owners()[0], Ownership { device: 2, term: 2 });
    }

    #[test]
    fn what_a_device_that_begins_here_has_is_not_given_elsewhere() {
        let shards = Shards::new(&dealt(2));
        let given: ShardSet = [1, 3, 5].into_iter().collect();
        // Agreed on when device 7 was another node's, of which it is no more.
        shards.take(&[3].into_iter().collect(), 2, |_| 9);
        shards.give_elsewhere(&given, 1, 7);
        assert_eq!([1, 3, 5].map(|shard| shards.of_shard(shard)), [ELSEWHERE, 2, ELSEWHERE]);
    }

    #[test]
    fn shards_are_dealt_out_to_devices_and_then_to_workers() {
        let shards = Shards::new(&dealt(2));
        assert_eq!(shards.owned_by(1).len(), SHARDS / 2);
        shards.give(&[1, 5].into_iter().collect(), 0);
        let owners = shards.deal(0, 3);
        assert!((0..SHARDS).all(|shard| owners.has(shard) == (shard % 2 == 0 || shard == 1 || shard == 5)));
        let first: Vec<Owner> = (0..7).map(|shard| owners.of_shard(shard)).collect();
        assert_eq!(first, [0, 1, 2, AWAY, 0, 1, 2]);
    }
}
