//! A worker's actors: from an id to a state, by one probe and one load.
//!
//! An open-addressed index of 8-byte entries (a pointer and 16 bits of the hash) leads to slots in slabs, one
//! slab list a type. A slot is a 32-byte header with the state behind it; it never moves, so a handler may run
//! on the state in place while the index grows.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

use crate::id::{ActorId, Key, TypeId};
use crate::registry::Registry;

/// What lies before an actor's state. 32 bytes.
#[repr(C)]
pub struct Slot {
    pub key: Key,
    pub type_id: TypeId,
    /// The type's place in the registry.
    pub type_index: u32,
    /// Messages handled, faults included.
    pub handled: u64,
    pub faults: u32,
    /// The cut after which a message last came to it, counted from the start of the worker: which is how changes are found.
    pub touched: u32,
}

pub const SLOT_BYTES: usize = size_of::<Slot>();
const _: () = assert!(SLOT_BYTES == 32 && align_of::<Slot>() == 8);

impl Slot {
    pub fn id(&self) -> ActorId {
        ActorId::new(self.type_id, self.key)
    }
}

/// The state of the actor in `slot`.
///
/// # Safety
/// `slot` came from a [`Table`] that still holds it.
#[inline(always)]
pub unsafe fn state_of(slot: NonNull<Slot>) -> *mut u8 {
    // SAFETY: the state lies right behind the header, in one allocation.
    unsafe { slot.as_ptr().add(1).cast() }
}

/// An entry: 48 bits of pointer, 16 of the hash above them. Zero is empty.
type Entry = u64;
const POINTER: u64 = (1 << 48) - 1;

/// See [`Table::guess`].
#[derive(Clone, Copy)]
pub struct Guess(*const Slot);

/// See the module's documentation.
pub struct Table {
    index: Vec<Entry>,
    /// 64 less the bits of an index into `index`.
    shift: u32,
    len: usize,
    slabs: Vec<Slab>,
}

// SAFETY: all memory the pointers lead to is owned by the table.
unsafe impl Send for Table {}

/// The slots of one type.
struct Slab {
    slot_bytes: usize,
    slots_per_chunk: usize,
    chunks: Vec<NonNull<u8>>,
    /// Slots handed out of the last chunk.
    used: usize,
    free: Vec<NonNull<Slot>>,
}

/// Chunks are about this large: few calls of the allocator, little waste for a rare type.
const CHUNK_BYTES: usize = 256 * 1024;

impl Table {
    pub fn new(registry: &Registry) -> Table {
        let slabs = registry.types().iter().map(|t| Slab::new(t.state_bytes)).collect();
        Table { index: vec![0; 64], shift: 58, len: 0, slabs }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The slot of an actor, if it exists.
    pub fn find(&self, id: ActorId) -> Option<NonNull<Slot>> {
        let hash = hash(id);
        let (tag, mask) = (tag(hash), self.index.len() - 1);
        let mut at = self.home(hash);
        loop {
            // SAFETY: `at` is less than the index's length, by its shift or by the mask.
            let entry = unsafe { *self.index.get_unchecked(at) };
            if entry == 0 {
                return None;
            }
            if entry & !POINTER == tag {
                let slot = pointer(entry);
                // SAFETY: entries point at live slots of this table.
                let held = unsafe { slot.as_ref() };
                if held.key == id.key && held.type_id == id.type_id {
                    return Some(slot);
                }
            }
            at = (at + 1) & mask;
        }
    }

    /// Where an actor's slot is, if it exists and no other's hash is in its way: a guess that [`Table::find_from`]
    /// checks. It brings the slot towards the cache.
    #[inline(always)]
    pub fn guess(&self, id: ActorId) -> Guess {
        // SAFETY: the shift makes it less than the index's length.
        let entry = unsafe { *self.index.get_unchecked(self.home(hash(id))) };
        let slot = (entry & POINTER) as *const Slot;
        prefetch(slot.cast());
        Guess(slot)
    }

    /// Brings what [`Table::guess`] will read towards the cache.
    #[inline(always)]
    pub fn expect(&self, id: ActorId) {
        prefetch(self.index.as_ptr().wrapping_add(self.home(hash(id))).cast());
    }

    /// The slot of an actor, if it exists, looked for first where it was guessed to be. The table may have changed since:
    /// slots are never given back to the system, and a free one has the type of no actor.
    #[inline(always)]
    pub fn find_from(&self, guess: Guess, id: ActorId) -> Option<NonNull<Slot>> {
        debug_assert!(!id.is_client());
        // SAFETY: an entry's pointer is null or that of a slot of this table, live or free; both are initialised.
        match unsafe { guess.0.as_ref() } {
            Some(held) if held.key == id.key && held.type_id == id.type_id => Some(NonNull::from(held)),
            _ => self.find(id),
        }
    }

    /// Where the search for a hash starts.
    #[inline(always)]
    fn home(&self, hash: u64) -> usize {
        // The high bits of the product depend on every bit of the key; the low ones are kept in the entry.
        (hash >> self.shift) as usize
    }

    /// Makes an actor that does not exist yet, its state zero. `None` when there is no memory for it.
    pub fn create(&mut self, id: ActorId, type_index: usize) -> Option<NonNull<Slot>> {
        debug_assert!(self.find(id).is_none());
        if (self.len + 1) * 2 > self.index.len() {
            self.grow()?;
        }
        let slot = self.slabs[type_index].take()?;
        // SAFETY: a slot fresh from its slab is ours alone and zeroed.
        unsafe {
            (*slot.as_ptr()).key = id.key;
            (*slot.as_ptr()).type_id = id.type_id;
            (*slot.as_ptr()).type_index = type_index as u32;
        }
        self.insert(hash(id), slot);
        self.len += 1;
        Some(slot)
    }

    fn insert(&mut self, hash: u64, slot: NonNull<Slot>) {
        let mask = self.index.len() - 1;
        let mut at = self.home(hash);
        while self.index[at] != 0 {
            at = (at + 1) & mask;
        }
        self.index[at] = slot.as_ptr() as u64 | tag(hash);
    }

    fn grow(&mut self) -> Option<()> {
        let len = self.index.len() * 2;
        let mut index = Vec::new();
        index.try_reserve_exact(len).ok()?;
        index.resize(len, 0);
        self.shift -= 1;
        self.index = index;
        // In the order of the slabs, which reads memory in one sweep; the old index's order would miss the cache twice
        // for every actor.
        for number in 0..self.slabs.len() {
            for chunk in 0..self.slabs[number].chunks.len() {
                for slot in self.slabs[number].slots(chunk) {
                    // SAFETY: slots handed out are initialised, and those given back are zero.
                    let held = unsafe { slot.as_ref() };
                    if held.type_id != TypeId::default() {
                        self.insert(hash(held.id()), slot);
                    }
                }
            }
        }
        Some(())
    }

    /// Frees an actor's slot. What follows it in its run of entries moves up, so no tombstone is left.
    pub fn remove(&mut self, slot: NonNull<Slot>) {
        // SAFETY: the caller has the slot from this table.
        let (id, type_index) = unsafe { (slot.as_ref().id(), slot.as_ref().type_index as usize) };
        let mask = self.index.len() - 1;
        let mut hole = self.home(hash(id));
        while self.index[hole] == 0 || pointer(self.index[hole]) != slot {
            hole = (hole + 1) & mask;
        }
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let entry = self.index[at];
            if entry == 0 {
                break;
            }
            // SAFETY: entries point at live slots of this table.
            let home = self.home(hash(unsafe { pointer(entry).as_ref() }.id()));
            // The entry may fill the hole unless its home lies after the hole, on the way round to it.
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(hole) & mask) {
                self.index[hole] = entry;
                hole = at;
            }
        }
        self.index[hole] = 0;
        self.len -= 1;
        self.slabs[type_index].give_back(slot);
    }

    /// Every actor, in the order in which they lie in memory: one sweep, where [`Table::iter`] would miss the cache for each.
    pub fn sweep(&self) -> impl Iterator<Item = NonNull<Slot>> + '_ {
        let slots = self.slabs.iter().flat_map(|slab| (0..slab.chunks.len()).flat_map(|chunk| slab.slots(chunk)));
        // SAFETY: slots handed out are initialised, and those given back are zero.
        slots.filter(|slot| unsafe { slot.as_ref() }.type_id != TypeId::default())
    }

    /// Every actor, in no order.
    pub fn iter(&self) -> impl Iterator<Item = NonNull<Slot>> + '_ {
        self.index.iter().filter(|entry| **entry != 0).map(|entry| pointer(*entry))
    }

    /// Bytes of memory held: index, slots in use and slots free.
    pub fn memory_bytes(&self) -> usize {
        let slabs: usize = self.slabs.iter().map(|s| s.chunks.len() * s.layout().size() + s.free.capacity() * 8).sum();
        self.index.capacity() * size_of::<Entry>() + slabs
    }
}

/// Has the processor fetch a slot and what a cut copies of it, up to a few lines: what follows is fetched by itself.
#[inline(always)]
pub fn prefetch_slot(slot: NonNull<Slot>) {
    for line in 0..5 {
        prefetch(slot.as_ptr().cast::<i8>().wrapping_add(line * 64));
    }
}

#[inline(always)]
fn prefetch(at: *const i8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch of any address is no access.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(at);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

#[inline(always)]
fn pointer(entry: Entry) -> NonNull<Slot> {
    // SAFETY: entries that are not empty hold the low 48 bits of a pointer, which are all that user-space pointers
    // have on the 64-bit machines Ringhold runs on (asserted in `Slab::take`).
    unsafe { NonNull::new_unchecked((entry & POINTER) as *mut Slot) }
}

/// Multiplicative hashing (Knuth, TAOCP 3, 6.4): one multiplication, and only its high bits are looked at for a place.
#[inline(always)]
fn hash(id: ActorId) -> u64 {
    (id.key.0 ^ (id.type_id.0 as u64) << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// What an entry keeps of the hash: 16 bits that the place in a small index does not tell.
#[inline(always)]
fn tag(hash: u64) -> u64 {
    hash << 24 & !POINTER
}

impl Slab {
    fn new(state_bytes: usize) -> Slab {
        let slot_bytes = (SLOT_BYTES + state_bytes).next_multiple_of(8);
        Slab {
            slot_bytes,
            slots_per_chunk: (CHUNK_BYTES / slot_bytes).max(1),
            chunks: Vec::new(),
            used: 0,
            free: Vec::new(),
        }
    }

    fn layout(&self) -> Layout {
        Layout::from_size_align(self.slot_bytes * self.slots_per_chunk, 64).expect("sizes of states are bounded")
    }

    /// The slots of a chunk that have ever been handed out.
    fn slots(&self, chunk: usize) -> impl Iterator<Item = NonNull<Slot>> + use<> {
        let last = chunk + 1 == self.chunks.len();
        let count = if last { self.used } else { self.slots_per_chunk };
        let (base, bytes) = (self.chunks[chunk], self.slot_bytes);
        // SAFETY: `count` slots lie in the chunk.
        (0..count).map(move |i| unsafe { base.add(i * bytes) }.cast())
    }

    /// A zeroed slot, or `None` when there is no memory.
    fn take(&mut self) -> Option<NonNull<Slot>> {
        if let Some(slot) = self.free.pop() {
            return Some(slot);
        }
        if self.chunks.is_empty() || self.used == self.slots_per_chunk {
            // SAFETY: the layout is not empty.
            let chunk = NonNull::new(unsafe { alloc_zeroed(self.layout()) })?;
            assert!(chunk.as_ptr() as u64 + (self.layout().size() as u64) <= POINTER, "pointers have 48 bits");
            self.chunks.push(chunk);
            self.used = 0;
        }
        let chunk = *self.chunks.last().expect("there is a chunk with a free slot");
        // SAFETY: `used` is less than the slots of a chunk.
        let slot = unsafe { chunk.add(self.used * self.slot_bytes) }.cast();
        self.used += 1;
        Some(slot)
    }

    fn give_back(&mut self, slot: NonNull<Slot>) {
        // SAFETY: the slot is of this slab and out of the index, so nothing else refers to it.
        unsafe { slot.as_ptr().cast::<u8>().write_bytes(0, self.slot_bytes) };
        self.free.push(slot);
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        for chunk in &self.chunks {
            // SAFETY: allocated in `take` with the same layout.
            unsafe { dealloc(chunk.as_ptr(), self.layout()) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn table(types: usize) -> Table {
        Table { index: vec![0; 64], shift: 58, len: 0, slabs: (0..types).map(|i| Slab::new(8 + i * 20)).collect() }
    }

    #[test]
    fn it_agrees_with_a_hash_map_under_random_creation_and_removal() {
        let mut table = table(3);
        let mut model: HashMap<ActorId, u64> = HashMap::new();
        let mut random = 1u64;
        for round in 0..200_000u64 {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let type_index = (random >> 60) as usize % 3;
            let id = ActorId::new(TypeId(type_index as u32 + 1), Key((random >> 33) % 5_000));
            match (table.find(id), model.get(&id)) {
                (None, None) => {
                    let slot = table.create(id, type_index).unwrap();
                    unsafe {
                        assert_eq!(*state_of(slot).cast::<u64>(), 0, "a new state is zero");
                        *state_of(slot).cast::<u64>() = round;
                    }
                    model.insert(id, round);
                }
                (Some(slot), Some(value)) => {
                    assert_eq!(unsafe { *state_of(slot).cast::<u64>() }, *value);
                    if random & 1 == 0 {
                        table.remove(slot);
                        model.remove(&id);
                    }
                }
                (found, expected) => panic!("{id:?}: found {}, expected {expected:?}", found.is_some()),
            }
            assert_eq!(table.len(), model.len());
        }
        assert_eq!(table.iter().count(), model.len());
    }
}
