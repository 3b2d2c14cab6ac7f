//! The shared memory through which a node and a device host speak, and nothing else.
//!
//! It is a memfd, so it has no name, outlives the device host, and is gone with the node. Everything in it has
//! one writer; every word that both sides look at while running is atomic and on a line of its own.
//!
//! | offset | what |
//! |---|---|
//! | 0 | the head: written once, by the node, before the host starts |
//! | 256 | [`NodeLine`]: the node's words |
//! | 384 | [`DeviceLine`]: the device host's words |
//! | 512 | [`ClockLine`]: samples of the device's clock, and what its host makes of them |
//! | 640 | [`KernelLine`]: a ring kernel's words |
//! | 1024 | [`Suspects`]: messages that ended a host, written by the node before the next one starts |
//! | 4096 | the shard table: 4096 × u16, each the owning worker, or [`AWAY`](crate::outbox::AWAY), or [`PARKED`](crate::outbox::PARKED); the node writes it anew for a cut that is a switch |
//! | 12288 | [`WorkerBlock`]s, 1024 bytes each |
//! | then | for each worker, a [`TypeCounts`] for each actor type |
//! | then, 4096-aligned | ingress rings, one a lane, then egress rings, one a lane |
//! | then, 4096-aligned | for each lane [`StagingWords`], then for each lane a staging ring up and one down |
//!
//! A *lane* here is a pair of rings. On a CPU each worker has its own; a GPU's many workers share a few, a worker's being
//! its number modulo their count.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

use crate::clock::MonotonicClock;
use crate::flit;
use crate::message::{Header, payload_bytes_max};
use crate::outbox::{Owner, Owners, SHARDS};
use crate::registry::TYPES_MAX;
use crate::ring::{Line, Memory, lap_of, present, publish};
use crate::staging::StagingWords;

const MAGIC: u64 = u64::from_le_bytes(*b"ringhold");
/// Grows with every change of the layout: both ends must be of one build.
const VERSION: u32 = 6;

const NODE_LINE: usize = 256;
const DEVICE_LINE: usize = 384;
const CLOCK_LINE: usize = 512;
const KERNEL_LINE: usize = 640;
const SUSPECTS: usize = 1024;
const SHARD_TABLE: usize = 4096;
const WORKER_BLOCKS: usize = SHARD_TABLE + SHARDS * size_of::<Owner>();
const PAGE: usize = 4096;

/// Workers one device may have.
pub const WORKERS_MAX: usize = 1024;
/// Slots one ring may have.
pub const RING_SLOTS_MAX: usize = 1 << 20;

/// What a segment is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Shape {
    pub workers: u32,
    /// Pairs of rings, at most as many as there are workers; 0 is one for each worker.
    pub lanes: u32,
    /// [`Framing`] as a number.
    pub framing: u32,
    /// Actor types in the registry.
    pub types: u32,
    /// A power of two from 64 to 4096.
    pub slot_bytes: u32,
    /// A power of two, at most [`RING_SLOTS_MAX`]; the same for `egress_slots` and `inbox_slots`.
    pub ingress_slots: u32,
    pub egress_slots: u32,
    /// Slots of a worker's inbox for the device's other workers; also what its run queue is measured against.
    pub inbox_slots: u32,
    /// Messages a worker runs before it looks around.
    pub batch: u32,
    /// Percent of `inbox_slots` queued at which a worker takes no more from its ingress ring.
    pub high_water_percent: u32,
    /// Percent below which it takes again.
    pub low_water_percent: u32,
    /// Bytes of each of a lane's two staging rings, by which checkpoints leave the device and come back: a power of two of at
    /// least 4096. Memory that is not used is not taken.
    pub staging_bytes: u32,
}

impl Default for Shape {
    fn default() -> Shape {
        Shape {
            workers: 1,
            lanes: 0,
            framing: Framing::Slots as u32,
            types: 1,
            slot_bytes: 128,
            ingress_slots: 16_384,
            egress_slots: 16_384,
            inbox_slots: 16_384,
            batch: 256,
            high_water_percent: 80,
            low_water_percent: 50,
            staging_bytes: 1 << 20,
        }
    }
}

/// How messages lie in the slots of the segment's rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Framing {
    /// As they are, the lap in the header's first word: between CPU threads.
    Slots = 0,
    /// In 16-byte flits, each with its own lap: where a GPU is at one end. See `flit.rs`.
    Flits = 1,
}

/// Why a segment cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the {0} of a device must be {1}, not {2}")]
    Shape(&'static str, &'static str, u32),
    #[error("cannot {0} the shared segment of {1} bytes: {2}")]
    Io(&'static str, usize, io::Error),
    #[error(
        "the descriptor given is no Ringhold segment, or one of another build: start device hosts through the node"
    )]
    Foreign,
    #[error(
        "the node and the device host were built with different actor types (layouts {0:016x} and {1:016x}): use one binary"
    )]
    Registry(u64, u64),
}

impl Shape {
    /// Payload bytes a message may have here.
    pub fn payload_bytes_max(&self) -> usize {
        payload_bytes_max(self.slot_bytes as usize)
    }

    pub fn check(&self) -> Result<(), Error> {
        let ring = |name, slots: u32| {
            if slots.is_power_of_two() && (2..=RING_SLOTS_MAX as u32).contains(&slots) {
                Ok(())
            } else {
                Err(Error::Shape(name, "a power of two from 2 to 1,048,576", slots))
            }
        };
        ring("ingress slots", self.ingress_slots)?;
        ring("egress slots", self.egress_slots)?;
        ring("inbox slots", self.inbox_slots)?;
        if !self.slot_bytes.is_power_of_two() || !(64..=4096).contains(&self.slot_bytes) {
            return Err(Error::Shape("slot bytes", "a power of two from 64 to 4096", self.slot_bytes));
        }
        if !(1..=WORKERS_MAX as u32).contains(&self.workers) {
            return Err(Error::Shape("workers", "1 to 1024", self.workers));
        }
        if self.lanes > self.workers {
            return Err(Error::Shape("lanes", "at most the workers", self.lanes));
        }
        if self.framing > Framing::Flits as u32 {
            return Err(Error::Shape("framing", "0 or 1", self.framing));
        }
        if self.types as usize > TYPES_MAX {
            return Err(Error::Shape("actor types", "at most 1024", self.types));
        }
        if self.batch == 0 {
            return Err(Error::Shape("batch", "at least 1", 0));
        }
        if self.high_water_percent > 100 || self.low_water_percent >= self.high_water_percent {
            return Err(Error::Shape("low water percent", "below the high water percent", self.low_water_percent));
        }
        if !self.staging_bytes.is_power_of_two() || (self.staging_bytes as usize) < PAGE {
            return Err(Error::Shape("staging bytes", "a power of two of at least 4096", self.staging_bytes));
        }
        Ok(())
    }

    /// Pairs of rings.
    pub fn lanes(&self) -> usize {
        if self.lanes == 0 { self.workers as usize } else { self.lanes as usize }
    }

    fn ring_bytes(&self, slots: u32) -> usize {
        (slots as usize * self.slot_bytes as usize).next_multiple_of(PAGE)
    }

    fn types_offset(&self) -> usize {
        WORKER_BLOCKS + self.workers as usize * size_of::<WorkerBlock>()
    }

    /// A worker's type counters: whole lines, so that no two workers write to one.
    fn types_bytes(&self) -> usize {
        (self.types as usize * size_of::<TypeCounts>()).next_multiple_of(128)
    }

    fn rings_offset(&self) -> usize {
        (self.types_offset() + self.workers as usize * self.types_bytes()).next_multiple_of(PAGE)
    }

    fn ingress_offset(&self, lane: usize) -> usize {
        self.rings_offset() + lane * self.ring_bytes(self.ingress_slots)
    }

    fn egress_offset(&self, lane: usize) -> usize {
        self.ingress_offset(self.lanes()) + lane * self.ring_bytes(self.egress_slots)
    }

    /// Where things lie, for a ring kernel.
    pub(crate) fn offsets(&self) -> Offsets {
        Offsets {
            node: NODE_LINE,
            clock: CLOCK_LINE,
            kernel: KERNEL_LINE,
            owners: SHARD_TABLE,
            workers: WORKER_BLOCKS,
            types: self.types_offset(),
            types_bytes: self.types_bytes(),
            ingress: self.ingress_offset(0),
            ingress_bytes: self.ring_bytes(self.ingress_slots),
            egress: self.egress_offset(0),
            egress_bytes: self.ring_bytes(self.egress_slots),
            suspects: SUSPECTS,
            staging: self.staging_offset(),
            staging_rings: self.staging_rings_offset(),
        }
    }

    fn staging_offset(&self) -> usize {
        self.egress_offset(self.lanes())
    }

    fn staging_rings_offset(&self) -> usize {
        (self.staging_offset() + self.lanes() * size_of::<StagingWords>()).next_multiple_of(PAGE)
    }

    /// Bytes of the whole segment.
    pub fn bytes(&self) -> usize {
        self.staging_rings_offset() + 2 * self.lanes() * self.staging_bytes as usize
    }
}

/// Offsets in a segment, and the distance from one worker's or lane's to the next.
pub(crate) struct Offsets {
    pub node: usize,
    pub clock: usize,
    pub kernel: usize,
    pub owners: usize,
    pub workers: usize,
    pub types: usize,
    pub types_bytes: usize,
    pub ingress: usize,
    pub ingress_bytes: usize,
    pub egress: usize,
    pub egress_bytes: usize,
    pub suspects: usize,
    pub staging: usize,
    pub staging_rings: usize,
}

/// What the node writes before the host starts.
#[repr(C)]
struct Head {
    magic: u64,
    version: u32,
    _zero: u32,
    shape: Shape,
    /// [`Registry::layout_hash`](crate::registry::Registry::layout_hash) of the node.
    registry_hash: u64,
}
const _: () = assert!(size_of::<Head>() == 72 && size_of::<Head>() <= NODE_LINE);

/// What [`NodeLine::stop`] is once a ring kernel is to end as soon as it can. To a CPU device it is as any other.
pub const STOP_AT_ONCE: u32 = 2;

/// The words the node writes.
#[repr(C, align(128))]
pub struct NodeLine {
    /// Not zero once the host is to finish what is queued and end; [`STOP_AT_ONCE`] once a ring kernel is to leave it.
    pub stop: AtomicU32,
    /// Not zero while the node waits for its bell.
    pub parked: AtomicU32,
    /// Not zero while the node waits for room in an ingress ring: cleared by the worker that rings for it.
    pub wants_room: AtomicU32,
    _zero: AtomicU32,
    /// How many hosts have served this segment, this one counted.
    pub term: AtomicU64,
    /// The newest epoch at which the device is to be cut. At the start of a term: that of the checkpoint it begins with.
    pub epoch: AtomicU64,
    /// Not zero where the host, before it runs anything, takes from the staging rings what its actors begin with.
    pub restores: AtomicU32,
    /// Not zero where the cut that `epoch` asks for is to have all actors. Written before it.
    pub whole: AtomicU32,
    /// By which the host tells the time, so that timers of both mean the same: see [`crate::clock::MonotonicClock`].
    pub clock_offset_ns: AtomicU64,
    /// The epoch of the cut at which the workers go on with another shard table; that, and this, are written before it is asked
    /// for.
    pub switch: AtomicU64,
}

const _: () = {
    use std::mem::offset_of;
    assert!(
        offset_of!(NodeLine, epoch) == 24 && offset_of!(NodeLine, restores) == 32 && offset_of!(NodeLine, whole) == 36
    );
};

/// The words the device host writes.
#[repr(C, align(128))]
pub struct DeviceLine {
    pub pid: AtomicU32,
    /// The term of the host whose workers are all up; smaller than the node's term while it starts.
    pub running_term: AtomicU32,
}

/// The words a ring kernel writes.
#[repr(C, align(128))]
pub struct KernelLine {
    /// Not zero once every block is up.
    pub up: AtomicU32,
    /// Not zero when the kernel has ended because it could not go on: a `DeviceError` of `kernels/cuda/memory.cuh`.
    pub failed: AtomicU32,
    /// How often the workers' counters have been carried here. Zero where workers write their counters themselves.
    pub passes: AtomicU64,
    /// Messages that had left their workers in that pass and were not in an egress ring yet.
    pub leaving: AtomicU64,
}

/// How a device's own clock is mapped to its host's: see [`crate::clock_host`]. All zero where the device runs by the
/// host's clock.
///
/// The device's part: it sees a new `request`, takes up no mapping if `paused` is not zero, reads its clock, stores
/// `device_ns`, and stores the request's number in `reply` with release. The two lie in one aligned 16 bytes, so that a
/// GPU may store both at once. Everything else is written by the device host; from `reference_ns` on it is consistent
/// while `version` is even and the same before and after.
#[derive(Default)]
#[repr(C, align(128))]
pub struct ClockLine {
    /// The number of the newest request, counted from 1. Written by the device host.
    pub request: AtomicU64,
    /// Not zero while the device may not tell time: its mapping is wrong, and a new one is on its way.
    pub paused: AtomicU64,
    /// The number of the newest request that was answered. Written by the device.
    pub reply: AtomicU64,
    /// The device's clock, read between seeing the request and replying. Written by the device before `reply`.
    pub device_ns: AtomicU64,
    /// Odd while the words that follow are being written.
    pub version: AtomicU64,
    /// The device's time at which the mapping below was made.
    pub reference_ns: AtomicU64,
    /// Host time less device time at the reference, an i64.
    pub offset_ns: AtomicU64,
    /// Nanoseconds that the mapping adds to the offset per second of the device's time, an i64.
    pub rate_ppb: AtomicU64,
    /// The mapping tells no time before this.
    pub floor_ns: AtomicU64,
    /// How far the mapping may be off at the reference.
    pub error_ns: AtomicU64,
    /// How fast that grows with the distance from the reference.
    pub error_ppb: AtomicU64,
    /// By how much the offset is estimated to grow, an i64; `rate_ppb` differs while the mapping is slewed.
    pub drift_ppb: AtomicU64,
    /// Samples taken into account since the host started; zero as long as there is no mapping.
    pub samples: AtomicU64,
    /// How often the device was paused.
    pub pauses: AtomicU64,
    _spare: [u64; 2],
}
const _: () = assert!(size_of::<ClockLine>() == 128 && CLOCK_LINE + size_of::<ClockLine>() <= KERNEL_LINE);
const _: () = {
    use std::mem::offset_of;
    assert!(offset_of!(ClockLine, request) == 0 && offset_of!(ClockLine, paused) == 8);
    assert!(offset_of!(ClockLine, reply) == 16 && offset_of!(ClockLine, device_ns) == 24);
    assert!(offset_of!(ClockLine, version) == 32 && offset_of!(ClockLine, reference_ns) == 40);
    assert!(offset_of!(ClockLine, offset_ns) == 48 && offset_of!(ClockLine, rate_ppb) == 56);
    assert!(offset_of!(ClockLine, floor_ns) == 64 && offset_of!(ClockLine, error_ns) == 72);
    assert!(offset_of!(ClockLine, error_ppb) == 80 && offset_of!(ClockLine, drift_ppb) == 88);
    assert!(offset_of!(ClockLine, samples) == 96 && offset_of!(ClockLine, pauses) == 104);
};

/// Messages that may have ended a host, and those of them that are not to be run again: see [`crate::suspects`].
#[repr(C, align(128))]
pub struct Suspects {
    /// How many there are; [`CAREFUL`] is beside it.
    pub count: AtomicU64,
    pub entries: [SuspectWords; SUSPECTS_MAX],
}
const _: () = assert!(std::mem::offset_of!(Suspects, entries) == 8, "as `kernel.cuh` reads them");

/// [`Suspect`](crate::suspects::Suspect).
#[repr(C)]
pub struct SuspectWords {
    pub key: AtomicU64,
    pub type_id: AtomicU32,
    pub condemned: AtomicU32,
    pub hlc: AtomicU64,
    pub hash: AtomicU64,
}

pub const SUSPECTS_MAX: usize = 16;

/// Of [`Suspects::count`]: the last host ended by its own fault. A ring kernel then begins by running one message at a time in
/// each worker, and says here which it is before it does: what carries that otherwise may come too late for a crash.
pub const CAREFUL: u64 = 1 << 32;
const _: () = assert!(size_of::<SuspectWords>() == 32 && SUSPECTS + size_of::<Suspects>() <= SHARD_TABLE);

/// One worker's words. Every counter counts from the start of its host.
#[repr(C, align(128))]
pub struct WorkerBlock {
    /// Written by the worker, of its ingress ring.
    pub ingress: Line<IngressWords>,
    /// Written by the node: messages taken from the worker's egress ring, since the ring's beginning.
    pub egress_consumed: Line<AtomicU64>,
    /// Not zero while the worker waits for its bell. Set by the worker, cleared by whoever rings.
    pub parked: Line<AtomicU32>,
    pub telemetry: Telemetry,
}
/// How far a worker got in its ingress ring, counted from the ring's beginning.
#[repr(C)]
#[derive(Default)]
pub struct IngressWords {
    /// Messages whose slots are free again.
    pub consumed: AtomicU64,
    /// Messages begun, each counted before it is run. The next host starts here and not at `consumed`: a message that
    /// killed its host is lost with it, and kills no other.
    pub begun: AtomicU64,
}

const _: () = assert!(size_of::<Line<IngressWords>>() == 128 && size_of::<Line<AtomicU64>>() == 128);
const _: () = assert!(size_of::<WorkerBlock>() == 1024);
const _: () = assert!(std::mem::offset_of!(WorkerBlock, telemetry) == 384);

/// What a worker says of itself, from inside its loop; the heartbeat is here. 640 bytes.
#[repr(C, align(128))]
pub struct Telemetry {
    /// [`Pulse`] as a number.
    pub pulse: AtomicU32,
    /// The type of the message in hand; the key is in `hand_key`.
    pub hand_type: AtomicU32,
    pub hand_key: AtomicU64,
    /// Messages finished, each counted before the next is begun: this is what moves while a worker is healthy.
    pub finished: AtomicU64,
    /// When the worker last began a batch or parked, in microseconds since the Unix epoch.
    pub beat_us: AtomicU64,
    /// Messages taken from the ingress ring.
    pub accepted: AtomicU64,
    /// Messages sent to actors of this device, by handlers and timers.
    pub sent: AtomicU64,
    /// Handlers that ended in a fault.
    pub faults: AtomicU64,
    /// Dead letters made here.
    pub dead: AtomicU64,
    /// Replies and errors sent to askers.
    pub replies: AtomicU64,
    /// Replies that nobody had asked for.
    pub replies_unasked: AtomicU64,
    /// Actors that exist now.
    pub actors: AtomicU64,
    pub created: AtomicU64,
    pub stopped: AtomicU64,
    /// Messages in the run queue and in spill lists now.
    pub queued: AtomicU64,
    /// Messages that found no credit or no room when they were first to leave, and waited in a spill list.
    pub spilled: AtomicU64,
    /// Messages in spill lists now.
    pub spilled_now: AtomicU64,
    /// Messages waiting for their time now.
    pub timers: AtomicU64,
    /// Bytes of memory the actor table holds.
    pub table_bytes: AtomicU64,
    /// Not zero while the worker takes nothing from its ingress ring because its queue is past high water.
    pub throttled: AtomicU64,
    /// `finished` when the counters here were last published together: what was begun since then is lost with the
    /// worker, whether it was finished or not.
    pub finished_published: AtomicU64,
    /// Messages for other devices and dead letters that wait to leave.
    pub away_waiting: AtomicU64,
    /// The stamp of the message in hand; zero between two steps.
    pub hand_hlc: AtomicU64,
    /// Of a message in hand for a suspect actor, [`hash_of`](crate::suspects::hash_of) it; otherwise zero.
    pub hand_hash: AtomicU64,
    /// Messages that switches took out of this worker's queues: of those, the ones that stayed on the device were sent again.
    pub moved: AtomicU64,
    _spare: [u64; 56],
}
const _: () = assert!(size_of::<Telemetry>() == 640);

/// What a worker did for one actor type.
#[repr(C)]
pub struct TypeCounts {
    /// Actors that exist now.
    pub actors: AtomicU64,
    pub handled: AtomicU64,
    pub faults: AtomicU64,
}
const _: () = assert!(size_of::<TypeCounts>() == 24);

/// What a worker is doing. A parked worker is healthy; a busy one is, as long as `finished` moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Pulse {
    Starting = 0,
    /// Nothing queued; parked or about to be.
    Idle = 1,
    Busy = 2,
    Stopped = 3,
    /// Standing still for a cut until all workers do: healthy, and not idle.
    Waiting = 4,
}

impl Pulse {
    pub fn from_u32(value: u32) -> Pulse {
        match value {
            1 => Pulse::Idle,
            2 => Pulse::Busy,
            3 => Pulse::Stopped,
            4 => Pulse::Waiting,
            _ => Pulse::Starting,
        }
    }
}

/// A mapped segment. Cheap to share; unmapped with its last user.
pub struct Segment {
    base: NonNull<u8>,
    shape: Shape,
    fd: OwnedFd,
}

// SAFETY: what is written while both sides run is atomic, or a slot that the ring protocol gives to one side.
unsafe impl Send for Segment {}
// SAFETY: as above.
unsafe impl Sync for Segment {}

impl Segment {
    /// A new segment, zero but for its head and its shard table.
    pub fn create(shape: Shape, registry_hash: u64, owners: &Owners) -> Result<Arc<Segment>, Error> {
        shape.check()?;
        let bytes = shape.bytes();
        let fail = |what| move |e: rustix::io::Errno| Error::Io(what, bytes, e.into());
        let fd = rustix::fs::memfd_create("ringhold-device", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
            .map_err(fail("create"))?;
        rustix::fs::ftruncate(&fd, bytes as u64).map_err(fail("size"))?;
        // A host that shrank the file would kill the node with SIGBUS; sealed, it cannot.
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
            .map_err(fail("seal"))?;
        let segment = Segment { base: map(&fd, bytes)?, shape, fd };
        // SAFETY: nobody else has the segment yet, and the head lies in its first page.
        unsafe {
            let head = Head { magic: MAGIC, version: VERSION, _zero: 0, shape, registry_hash };
            segment.base.cast::<Head>().write(head);
        }
        segment.set_owners(owners);
        segment.node().clock_offset_ns.store(MonotonicClock::of_this_process().offset_ns, Ordering::Relaxed);
        Ok(Arc::new(segment))
    }

    /// Maps the segment behind a descriptor that a node handed over.
    pub fn open(fd: OwnedFd, registry_hash: u64) -> Result<Arc<Segment>, Error> {
        let bytes = rustix::fs::fstat(&fd).map_err(|_| Error::Foreign)?.st_size as usize;
        if bytes < WORKER_BLOCKS {
            return Err(Error::Foreign);
        }
        let base = map(&fd, bytes)?;
        // SAFETY: at least the first pages are mapped, and any bytes are a `Head`.
        let head = unsafe { base.cast::<Head>().read() };
        let segment = Segment { base, shape: head.shape, fd };
        if head.magic != MAGIC || head.version != VERSION || head.shape.check().is_err() || head.shape.bytes() != bytes
        {
            // The mapping's true length is `bytes`; forget the shape that lies about it.
            std::mem::forget(segment);
            return Err(Error::Foreign);
        }
        if head.registry_hash != registry_hash {
            return Err(Error::Registry(head.registry_hash, registry_hash));
        }
        Ok(Arc::new(segment))
    }

    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The clock by which hosts of this segment tell the time: it does not jump while the node runs.
    pub fn host_clock(&self) -> MonotonicClock {
        MonotonicClock { offset_ns: self.node().clock_offset_ns.load(Ordering::Relaxed) }
    }

    pub fn node(&self) -> &NodeLine {
        // SAFETY: mapped, aligned, and made of atomics alone.
        unsafe { self.base.add(NODE_LINE).cast().as_ref() }
    }

    pub fn device(&self) -> &DeviceLine {
        // SAFETY: as for `node`.
        unsafe { self.base.add(DEVICE_LINE).cast().as_ref() }
    }

    pub fn clock(&self) -> &ClockLine {
        // SAFETY: as for `node`.
        unsafe { self.base.add(CLOCK_LINE).cast().as_ref() }
    }

    /// # Panics
    /// If there is no such worker.
    pub fn worker(&self, worker: usize) -> &WorkerBlock {
        assert!(worker < self.shape.workers as usize);
        // SAFETY: mapped (the shape was checked against the length), aligned, and made of atomics alone.
        unsafe { self.base.add(WORKER_BLOCKS + worker * size_of::<WorkerBlock>()).cast().as_ref() }
    }

    /// A worker's counters for each actor type, in the registry's order.
    ///
    /// # Panics
    /// If there is no such worker.
    pub fn type_counts(&self, worker: usize) -> &[TypeCounts] {
        assert!(worker < self.shape.workers as usize);
        let offset = self.shape.types_offset() + worker * self.shape.types_bytes();
        // SAFETY: mapped (the shape was checked against the length), aligned, and made of atomics alone.
        unsafe { std::slice::from_raw_parts(self.base.add(offset).as_ptr().cast(), self.shape.types as usize) }
    }

    /// The shard table. Workers read it when they begin, and at a switch.
    pub fn owners(&self) -> Owners {
        Owners::from_fn(|shard| self.owner(shard).load(Ordering::Relaxed))
    }

    /// Writes the shard table. Whoever has a host read it stores, with release, what makes it read.
    pub(crate) fn set_owners(&self, owners: &Owners) {
        owners.iter().enumerate().for_each(|(shard, owner)| self.owner(shard).store(owner, Ordering::Relaxed));
    }

    fn owner(&self, shard: usize) -> &AtomicU16 {
        assert!(shard < SHARDS);
        // SAFETY: the table is mapped, aligned, and made of atomics alone.
        unsafe { self.base.add(SHARD_TABLE).cast::<AtomicU16>().add(shard).as_ref() }
    }

    /// A ring kernel's words.
    pub fn kernel(&self) -> &KernelLine {
        // SAFETY: as for `node`.
        unsafe { self.base.add(KERNEL_LINE).cast().as_ref() }
    }

    pub fn suspects(&self) -> &Suspects {
        // SAFETY: as for `node`.
        unsafe { self.base.add(SUSPECTS).cast().as_ref() }
    }

    /// The mapping's first byte. It is [`Shape::bytes`] long and aligned to a page.
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Node to device.
    pub fn ingress(self: &Arc<Segment>, lane: usize) -> SegmentRing {
        let consumed = NonNull::from(&self.worker(lane).ingress.0.consumed);
        self.ring(self.shape.ingress_offset(lane), self.shape.ingress_slots, consumed)
    }

    /// Device to node.
    pub fn egress(self: &Arc<Segment>, lane: usize) -> SegmentRing {
        let consumed = NonNull::from(&self.worker(lane).egress_consumed.0);
        self.ring(self.shape.egress_offset(lane), self.shape.egress_slots, consumed)
    }

    fn ring(self: &Arc<Segment>, offset: usize, slots: u32, consumed: NonNull<AtomicU64>) -> SegmentRing {
        // SAFETY: the shape was checked against the mapping's length, so the ring's slots lie inside it.
        let base = unsafe { self.base.add(offset) };
        let slots = Slots { base, capacity: slots as u64, slot_bytes: self.shape.slot_bytes as usize };
        let flits = self.shape.framing == Framing::Flits as u32;
        SegmentRing { slots, consumed, flits, _segment: self.clone() }
    }

    /// A lane's words of the staging rings.
    ///
    /// # Panics
    /// If there is no such lane.
    pub fn staging(&self, lane: usize) -> &StagingWords {
        assert!(lane < self.shape.lanes());
        let offset = self.shape.staging_offset() + lane * size_of::<StagingWords>();
        // SAFETY: mapped (the shape was checked against the length), aligned, and made of atomics alone.
        unsafe { self.base.add(offset).cast().as_ref() }
    }

    /// The first byte of a lane's staging ring from device to node.
    pub(crate) fn staging_up(&self, lane: usize) -> NonNull<u8> {
        assert!(lane < self.shape.lanes());
        // SAFETY: mapped: the shape was checked against the length.
        unsafe { self.base.add(self.shape.staging_rings_offset() + 2 * lane * self.shape.staging_bytes as usize) }
    }

    /// The first byte of a lane's staging ring from node to device.
    pub(crate) fn staging_down(&self, lane: usize) -> NonNull<u8> {
        // SAFETY: as for `staging_up`, behind which it lies.
        unsafe { self.staging_up(lane).add(self.shape.staging_bytes as usize) }
    }

    /// Makes the staging rings empty. Nobody may serve the segment.
    pub(crate) fn reset_staging(&self) {
        for lane in 0..self.shape.lanes() {
            // SAFETY: integers, all of which may be stored to as atomics.
            unsafe { clear(self.staging(lane)) };
        }
    }

    /// Makes the counters of all workers and the clock line start over, for a new host.
    pub fn reset_telemetry(&self) {
        let kernel = self.kernel();
        kernel.up.store(0, Ordering::Relaxed);
        kernel.failed.store(0, Ordering::Relaxed);
        kernel.passes.store(0, Ordering::Relaxed);
        kernel.leaving.store(0, Ordering::Relaxed);
        for worker in 0..self.shape.workers as usize {
            // SAFETY: integers, all of which may be stored to as atomics.
            unsafe { clear(&self.worker(worker).telemetry) };
            for counts in self.type_counts(worker) {
                counts.actors.store(0, Ordering::Relaxed);
                counts.handled.store(0, Ordering::Relaxed);
                counts.faults.store(0, Ordering::Relaxed);
            }
            self.worker(worker).parked.0.store(0, Ordering::Relaxed);
        }
        // The next host knows nothing of its device's clock yet.
        // SAFETY: as above.
        unsafe { clear(self.clock()) };
    }
}

/// Makes all words zero.
///
/// # Safety
/// The block consists of integers alone, aligned to 8 bytes, of which nobody else needs two of one moment.
unsafe fn clear<T>(block: &T) {
    let words = std::ptr::from_ref(block).cast::<AtomicU64>();
    for word in 0..size_of::<T>() / 8 {
        // SAFETY: as the caller says.
        unsafe { (*words.add(word)).store(0, Ordering::Relaxed) };
    }
}

fn map(fd: &OwnedFd, bytes: usize) -> Result<NonNull<u8>, Error> {
    let prot = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a fresh mapping at an address of the kernel's choice.
    let base = unsafe { rustix::mm::mmap(std::ptr::null_mut(), bytes, prot, MapFlags::SHARED, fd, 0) };
    let base = base.map_err(|e| Error::Io("map", bytes, e.into()))?;
    Ok(NonNull::new(base.cast()).expect("a mapping is never at address zero"))
}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: mapped by us with this length; rings hold the segment, so nothing refers to it any more.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.shape.bytes()) };
    }
}

/// Raw slots in memory.
struct Slots {
    base: NonNull<u8>,
    capacity: u64,
    slot_bytes: usize,
}

impl Slots {
    #[inline(always)]
    fn at(&self, slot: u64) -> NonNull<u8> {
        debug_assert!(slot < self.capacity);
        // SAFETY: callers mask the slot by the capacity.
        unsafe { self.base.add(slot as usize * self.slot_bytes) }
    }

    #[inline(always)]
    fn lap(&self, slot: u64) -> &AtomicU32 {
        // SAFETY: a slot starts with its lap word, which both sides touch only as an atomic.
        unsafe { self.at(slot).cast().as_ref() }
    }
}

/// A ring in a segment.
#[cfg(not(loom))]
pub struct SegmentRing {
    slots: Slots,
    consumed: NonNull<AtomicU64>,
    flits: bool,
    _segment: Arc<Segment>,
}

// SAFETY: as for `Segment`; the ring's ends each belong to one thread at a time.
unsafe impl Send for SegmentRing {}
// SAFETY: as above.
unsafe impl Sync for SegmentRing {}

impl Memory for SegmentRing {
    #[inline(always)]
    fn capacity(&self) -> u64 {
        self.slots.capacity
    }

    #[inline(always)]
    fn lap(&self, slot: u64) -> &AtomicU32 {
        self.slots.lap(slot)
    }

    #[inline(always)]
    fn consumed(&self) -> &AtomicU64 {
        // SAFETY: the word is in the segment, which this ring keeps mapped.
        unsafe { self.consumed.as_ref() }
    }

    #[inline(always)]
    fn with<R>(&self, slot: u64, f: impl FnOnce(NonNull<Header>) -> R) -> R {
        if self.flits {
            // SAFETY: the ring's end has found the message present, and its writer leaves it alone until it is consumed.
            return unsafe { flit::with(self.slots.at(slot), f) };
        }
        f(self.slots.at(slot).cast())
    }

    #[inline(always)]
    fn publish(&self, index: u64, header: &Header, payload: &[u8]) {
        if self.flits {
            let (slot, lap) = (self.slots.at(index & (self.capacity() - 1)), lap_of(index, self.capacity()));
            // SAFETY: the slot is the writer's until it is published; slots are larger than any message, and aligned.
            return unsafe { flit::write(slot, lap, header, payload) };
        }
        publish(self, index, header, payload);
    }

    #[inline(always)]
    fn present(&self, index: u64) -> bool {
        if self.flits {
            let (slot, lap) = (self.slots.at(index & (self.capacity() - 1)), lap_of(index, self.capacity()));
            // SAFETY: slots are `slot_bytes` long, and aligned to at least 64 bytes.
            return unsafe { flit::present(slot, self.slots.slot_bytes, lap) };
        }
        present(self, index)
    }
}

/// A ring in a process's own memory: what a worker's inbox for its siblings lies in.
pub struct LocalRing {
    slots: Slots,
    consumed: AtomicU64,
    _memory: Vec<Line<[u64; 16]>>,
}

// SAFETY: slots are touched as the ring protocol says, by one thread at a time.
unsafe impl Send for LocalRing {}
// SAFETY: as above.
unsafe impl Sync for LocalRing {}

impl LocalRing {
    pub fn new(slots: u32, slot_bytes: u32) -> LocalRing {
        let bytes = slots as usize * slot_bytes as usize;
        let mut memory: Vec<Line<[u64; 16]>> = Vec::new();
        memory.resize_with(bytes.div_ceil(128), Line::default);
        let base = NonNull::new(memory.as_mut_ptr().cast()).expect("a vector's pointer is not null");
        let slots = Slots { base, capacity: slots as u64, slot_bytes: slot_bytes as usize };
        LocalRing { slots, consumed: AtomicU64::new(0), _memory: memory }
    }
}

impl Memory for LocalRing {
    #[inline(always)]
    fn capacity(&self) -> u64 {
        self.slots.capacity
    }

    #[inline(always)]
    fn lap(&self, slot: u64) -> &AtomicU32 {
        self.slots.lap(slot)
    }

    #[inline(always)]
    fn consumed(&self) -> &AtomicU64 {
        &self.consumed
    }

    #[inline(always)]
    fn with<R>(&self, slot: u64, f: impl FnOnce(NonNull<Header>) -> R) -> R {
        f(self.slots.at(slot).cast())
    }
}
