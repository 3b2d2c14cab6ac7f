//! The ring kernel as one translation unit: the headers, the registered actors, the sizes of one device, the runtime.
//!
//! Everything that a device is made for is a constant in the text, so the compiler sees it, and a kernel allocates nothing:
//! how much device memory it needs is known before it starts. What the text is compiled by (NVRTC for a GPU, a host
//! compiler for the emulated device) is for others to know.

use std::fmt::Write;

use crate::cuda::{self, Source};
use crate::message::payload_bytes_max;
use crate::registry::Registry;
use crate::segment::{CAREFUL, Framing, STOP_AT_ONCE, Shape};

/// The device runtime, in the order in which its parts stand on each other. They stand on [`cuda::PRELUDE`], the
/// device's sizes, and, from `worker.cuh` on, the actors.
pub const RUNTIME: [(&str, &str); 19] = [
    ("machine.cuh", include_str!("../cuda/machine.cuh")),
    ("emulated.cuh", include_str!("../cuda/emulated.cuh")),
    ("flit.cuh", include_str!("../cuda/flit.cuh")),
    ("memory.cuh", include_str!("../cuda/memory.cuh")),
    ("inbox.cuh", include_str!("../cuda/inbox.cuh")),
    ("group.cuh", include_str!("../cuda/group.cuh")),
    ("table.cuh", include_str!("../cuda/table.cuh")),
    ("spill.cuh", include_str!("../cuda/spill.cuh")),
    ("timers.cuh", include_str!("../cuda/timers.cuh")),
    ("wide.cuh", include_str!("../cuda/wide.cuh")),
    ("records.cuh", include_str!("../cuda/records.cuh")),
    ("worker.cuh", include_str!("../cuda/worker.cuh")),
    ("suspects.cuh", include_str!("../cuda/suspects.cuh")),
    ("run.cuh", include_str!("../cuda/run.cuh")),
    ("cut.cuh", include_str!("../cuda/cut.cuh")),
    ("stream.cuh", include_str!("../cuda/stream.cuh")),
    ("restore.cuh", include_str!("../cuda/restore.cuh")),
    ("batch.cuh", include_str!("../cuda/batch.cuh")),
    ("io.cuh", include_str!("../cuda/io.cuh")),
];
const ENTRY: (&str, &str) = ("kernel.cuh", include_str!("../cuda/kernel.cuh"));

/// The name of the kernel, and in a cubin of the 8-byte constant that says how many bytes of device memory it needs.
pub const KERNEL: &str = "rh_ring_kernel";
pub const ARENA_BYTES: &str = "rh_arena_bytes";

/// Threads of a GPU's block where no actor asks for more.
pub const THREADS_MIN: u32 = 128;
/// Threads that any GPU runs in one block.
pub const THREADS_MAX: u32 = 1024;

/// Threads of each block of a device that gives every actor type the threads it asks for, and has `least` at least.
pub fn threads(registry: &Registry, least: u32) -> u32 {
    registry.types().iter().map(|actor| actor.schema.threads_per_actor).fold(least, u32::max)
}

/// What a device's memory and threads are divided into. Workers, lanes and slots are those of its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Threads of each block: a power of two, at most [`THREADS_MAX`]. See [`threads`].
    pub threads: u32,
    /// Messages that a worker can hold back: sent and without a credit, or waiting for their time. A power of two.
    pub entries: u32,
    /// Timers of a worker.
    pub timers: u32,
    /// Places in a worker's index of actors, of which three quarters are used. A power of two.
    pub index_slots: u32,
    /// Bytes into which a worker copies its part of a cut. A cut that takes more has the worker stand still until the rest
    /// has left.
    pub staging_bytes: u64,
    /// Bytes of the pages in which actors lie; at least one actor of every type fits.
    pub page_bytes: u64,
    /// Pages of the whole device.
    pub pages: u32,
}

impl Plan {
    /// Divides about `bytes` of device memory between so many workers: three eighths of it for actors, the rest for the messages
    /// that wait, for the index and the lists of what has changed, and for the copies of cuts.
    pub fn divide(bytes: u64, threads: u32, registry: &Registry, shape: &Shape) -> Plan {
        let workers = u64::from(shape.workers);
        let page_bytes = page_bytes(registry);
        let share = bytes / workers / 8;
        let below = |count: u64| if count.is_power_of_two() { count } else { count.next_power_of_two() / 2 };
        let entry = 32 + 40 + payload_bytes_max(shape.slot_bytes as usize) as u64 + 4;
        let entries = below((share * 2 / entry).clamp(256, 1 << 20));
        Plan {
            threads,
            entries: entries as u32,
            timers: (entries / 2) as u32,
            index_slots: below((share / 8).clamp(256, 1 << 24)) as u32,
            staging_bytes: share.clamp(64 << 10, 8 << 30) / 8 * 8,
            page_bytes,
            pages: (bytes / 8 * 3 / page_bytes)
                .clamp(workers * registry.types().len() as u64, PAGE_BYTES_MAX / page_bytes) as u32,
        }
    }
}

/// Bytes of all pages: an actor is known by 32 bits in units of 8 bytes, and 0 is none.
const PAGE_BYTES_MAX: u64 = (1 << 35) - (1 << 20);

/// A page holds 64 KiB, or one of the largest actors.
fn page_bytes(registry: &Registry) -> u64 {
    let largest = registry.types().iter().map(|t| 32 + 2 * t.state_bytes.next_multiple_of(8)).max().unwrap_or(32);
    (largest as u64).next_multiple_of(256).max(64 * 1024)
}

/// Why a device cannot be made of these actors.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error(
        "the {what} of actor type `{name}` takes {bytes} bytes, and a slot of {slot_bytes} bytes holds {room}: set \
         queues.slot_bytes to {enough}, or make it smaller"
    )]
    TooLarge { name: String, what: &'static str, bytes: usize, slot_bytes: u32, room: usize, enough: usize },
    #[error("a ring kernel's blocks have 1, 2, 4, … or {THREADS_MAX} threads, not {0}")]
    Threads(u32),
}

/// The text of the ring kernel that serves a segment of this shape.
///
/// # Errors
/// Where a message or a reply of some type is larger than the slots.
///
/// # Panics
/// If the segment is not framed in flits.
pub fn source(registry: &Registry, shape: &Shape, plan: &Plan) -> Result<String, Error> {
    assert_eq!(shape.framing, Framing::Flits as u32, "a ring kernel speaks in flits");
    if !plan.threads.is_power_of_two() || plan.threads > THREADS_MAX {
        return Err(Error::Threads(plan.threads));
    }
    let room = shape.payload_bytes_max();
    for actor in registry.types() {
        for (what, bytes) in [("largest message", actor.message_bytes), ("largest reply", actor.reply_bytes)] {
            if bytes > room {
                let slots = (6..=12).map(|bits| 1usize << bits);
                let enough = slots.into_iter().find(|slot| payload_bytes_max(*slot) >= bytes).unwrap_or(4096);
                let (name, slot_bytes) = (actor.schema.name.clone(), shape.slot_bytes);
                return Err(Error::TooLarge { name, what, bytes, slot_bytes, room, enough });
            }
        }
    }
    let actors: Vec<Source> = registry.types().iter().map(Source::from).collect();
    let mut text = cuda::translation_unit(&actors);
    sizes(&mut text, registry, shape, plan);
    let cases = actors.iter().enumerate().map(|(index, actor)| format!(" DO({index}, {})", actor.namespace()));
    let _ = writeln!(text, "#define RH_ACTORS(DO){}", cases.collect::<String>());
    for (name, part) in RUNTIME.iter().chain([&ENTRY]) {
        let _ = writeln!(text, "// ---- {name}\n{part}");
    }
    Ok(text)
}

/// The device's sizes, as constants of the namespace `rh::shape`.
fn sizes(text: &mut String, registry: &Registry, shape: &Shape, plan: &Plan) {
    let state_bytes = registry.types().iter().map(|t| t.state_bytes.next_multiple_of(8)).max().unwrap_or(8);
    let offsets = shape.offsets();
    // The device's own queue before an egress lane: what its workers may have sent and the node has not room for.
    let egress_slots = shape.inbox_slots;
    // The largest record: of an actor, or of a timer with the longest message.
    let record_words = ((32 + state_bytes).max(56 + shape.payload_bytes_max().next_multiple_of(8)) / 8) as u64;
    let staging_words = (plan.staging_bytes / 8).max(record_words);
    let feed_words = (2 * record_words).next_power_of_two().max(8 * 1024);
    let floor = u64::from(shape.inbox_slots) * u64::from(100 - shape.high_water_percent) / 100;
    let small = [
        ("workers", shape.workers as u64),
        ("lanes", shape.lanes() as u64),
        ("threads", plan.threads as u64),
        ("types", registry.types().len() as u64),
        ("slot_bytes", shape.slot_bytes as u64),
        ("inbox_slots", shape.inbox_slots as u64),
        ("egress_slots", egress_slots as u64),
        ("ingress_slots", shape.ingress_slots as u64),
        ("host_egress_slots", shape.egress_slots as u64),
        ("admission_floor", floor),
        ("entries", plan.entries as u64),
        ("timers", plan.timers as u64),
        ("index_slots", plan.index_slots as u64),
        ("pages", plan.pages as u64),
        ("state_bytes_max", state_bytes as u64),
        ("stop_at_once", u64::from(STOP_AT_ONCE)),
    ];
    let large = [
        ("page_bytes", plan.page_bytes),
        // As many slots as a worker can have: of three quarters of its index's places, and of those that are gone.
        ("changes", 2 * u64::from(plan.index_slots)),
        ("careful", CAREFUL),
        ("staging_words", staging_words),
        ("feed_words", feed_words),
        ("staging_bytes", u64::from(shape.staging_bytes)),
        ("segment_suspects", offsets.suspects as u64),
        ("segment_staging", offsets.staging as u64),
        ("segment_staging_rings", offsets.staging_rings as u64),
        ("segment_node", offsets.node as u64),
        ("segment_clock", offsets.clock as u64),
        ("segment_kernel", offsets.kernel as u64),
        ("segment_owners", offsets.owners as u64),
        ("segment_workers", offsets.workers as u64),
        ("segment_types", offsets.types as u64),
        ("segment_types_bytes", offsets.types_bytes as u64),
        ("segment_ingress", offsets.ingress as u64),
        ("segment_ingress_bytes", offsets.ingress_bytes as u64),
        ("segment_egress", offsets.egress as u64),
        ("segment_egress_bytes", offsets.egress_bytes as u64),
    ];
    text.push_str("// ---- the sizes of this device\nnamespace rh {\nnamespace shape {\n");
    small.iter().for_each(|(name, value)| _ = writeln!(text, "static constexpr u32 {name} = {value}u;"));
    large.iter().for_each(|(name, value)| _ = writeln!(text, "static constexpr u64 {name} = {value}ull;"));
    text.push_str("}  // namespace shape\n}  // namespace rh\n");
}
