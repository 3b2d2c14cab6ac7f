// Where everything lies: the arena, which is device memory and the device's alone, and the segment, which is host memory
// and shared with the node. All of it is there before the kernel starts; the kernel allocates nothing.
//
// `shape` comes from `kernels/src/ring_kernel.rs`, which writes it before this text for each device.
#ifndef RH_MEMORY
#define RH_MEMORY

namespace rh {

// A word on a line of its own.
template <class T>
struct alignas(128) Line {
    T word;
};

// The words of an inbox that its writers and its reader share.
struct Inbox {
    // Slots that nobody holds. Taken by writers before they take tickets, given back by the reader.
    Line<u32> credits;
    // The next ticket: the index of the next message.
    Line<u64> tail;
};

// What a worker says of itself; `io.cuh` carries it to the host. Each word has one writer, but `accepted`, which the
// ingress blocks add to, and `progress`, to which all threads of the worker add.
struct alignas(128) Counters {
    u64 steps;
    u64 idle;
    u64 finished;
    u64 sent;
    u64 faults;
    u64 dead;
    u64 replies;
    u64 replies_unasked;
    u64 actors;
    u64 created;
    u64 stopped;
    u64 queued;
    u64 spilled;
    u64 spilled_now;
    u64 timers;
    u64 table_bytes;
    u64 away_waiting;
    // Set once the worker has given up its timers at the end.
    u64 ended;
    Line<u64> accepted;
    Line<u64> progress;
};

// The message that a thread of a worker runs now; type 0 for none. `hash` where its actor is suspected: see `suspects.cuh`.
struct Hand {
    u64 key;
    u64 type;
    u64 hlc;
    u64 hash;
};

struct TypeCounts {
    u64 actors;
    u64 handled;
    u64 faults;
};

// What the control block wants of all others: bits of one word, which it alone writes.
namespace wish {
// Workers handle nothing and tell no time: the device's clock is being set right.
static constexpr u32 stand_still = 1;
// Workers give up their timers.
static constexpr u32 give_up = 2;
// Every block returns; a worker once it is idle.
static constexpr u32 end = 4;
// Every block returns as soon as it can, whatever is left.
static constexpr u32 leave = 8;
// All but the control block take part in a cut, once each: `Control::cuts` has its number.
static constexpr u32 cut = 16;
}  // namespace wish

// Words for all blocks.
struct Control {
    // Blocks that have set their part up.
    Line<u32> started;
    // Of `wish`.
    Line<u32> wishes;
    // Why the device cannot go on: a `DeviceError`, or 0.
    Line<u32> failed;
    // What to add to `nanoseconds()` for nanoseconds since the Unix epoch.
    Line<u64> epoch_offset_ns;
    // Pages of actor state handed out.
    Line<u64> pages_used;
    // Cuts begun. Written after what the newest is about: its epoch, and whether it is to have all actors.
    Line<u32> cuts;
    u64 epoch;
    u32 whole;
    // Whether the device makes checkpoints, and so began with one. Written before any block is past its set-up.
    u32 keeps;
    // Messages that may have ended a host: entries of `arena::suspects`. As `keeps`.
    u64 suspects;
    // Until when workers run one message at a time, and say which before: see `say_hand`. As `keeps`.
    u64 careful_until_ns;
    // Where the blocks meet that take part in cuts, of all cuts since the start: those that stood, and those that noted what
    // their part is. Compared by their difference, for they wrap.
    Line<u32> stood;
    Line<u32> noted;
    // Lanes whose part has left, of all cuts.
    Line<u32> parted;
    // Workers that have taken in what the device begins with.
    Line<u32> loaded;
};

// Written to the segment for the host, which says what each is about.
enum DeviceError : u32 { out_of_memory = 1, restore_out_of_memory = 2 };

// What a worker has copied of a cut: one filling of its part of the staging memory after the other, of which it has one at a
// time. Written by the worker before `filled`.
struct alignas(128) Staged {
    u64 words;
    // The last of its cut: what follows is of the whole of it.
    u64 last;
    u64 hlc;
    u64 pause_ns;
    // Fillings made by the worker, and taken by the lane's egress block.
    Line<u64> filled;
    Line<u64> taken;
};

// What the ingress block of a lane had in hand at a cut. Written before it stood.
struct alignas(128) InHand {
    // Messages taken from the host's ring.
    u64 taken;
};

// A message that may have ended a host: `Suspect` of `kernels/src/suspects.rs`, as it lies in the segment.
struct Suspect {
    u64 key;
    u32 type;
    u32 condemned;
    u64 hlc;
    u64 hash;
};
static_assert(sizeof(Suspect) == 32, "layout of Suspect");
static constexpr u32 suspects_max = 16;

// A message that waits to leave its worker, or for its time.
struct alignas(16) Entry {
    // The next in its list, plus one.
    u32 next;
    u32 destination;
    u64 delay_us;
    Message message;
};

struct Timer {
    u64 due_us;
    u64 stamp;
    u32 entry;
    u32 zero;
};

// The first and the last entry of a list, each plus one.
struct List {
    u32 head;
    u32 tail;
};

// What lies before an actor's state; `Slot` of `kernels/src/table.rs`.
//
// A slot whose `type_id` is 0 has no actor. It is *gone* where it had one that is in the last cut, until the next one: then
// `handled` is `slot_gone` and the actor's type. Otherwise it is free.
struct Slot {
    u64 key;
    u32 type_id;
    u32 type_index;
    u64 handled;
    // Of a free slot: whether it is on the worker's list of changes, as `marked::changed`.
    u32 faults;
    // Of an actor: bits of `marked`. Of a free slot: the next one.
    u32 marks;
    RH_MEMBER u8* state() { return reinterpret_cast<u8*>(this + 1); }
};
static_assert(sizeof(Slot) == 32, "layout of Slot");
static constexpr u64 slot_gone = 1ull << 32;

namespace marked {
// It is on the worker's list of changes: a message has come to it since the last cut.
static constexpr u32 changed = 1;
// The last cut, or what the device began with, has the actor.
static constexpr u32 kept = 2;
}  // namespace marked

// The slots of one type in one worker: its page in use, plus one, how many slots of it are handed out, and the free ones.
struct Slab {
    u64 page;
    u32 used;
    u32 free;
};

// Where a message goes: one of the workers, or the host.
static constexpr u32 to_replies = shape::workers;
static constexpr u32 to_away = shape::workers + 1;
static constexpr u32 destinations = shape::workers + 2;
static constexpr u16 owner_away = 0xffff;

namespace arena {

static constexpr u64 aligned(u64 offset) { return (offset + 255) / 256 * 256; }

// By a place that is known when the kernel is compiled: these are small.
static constexpr u64 control = 0;
static constexpr u64 inboxes = aligned(control + sizeof(Control));
static constexpr u64 counters = aligned(inboxes + (shape::workers + shape::lanes) * sizeof(Inbox));
static constexpr u64 ingress_polls = aligned(counters + shape::workers * sizeof(Counters));
static constexpr u64 beats = aligned(ingress_polls + shape::lanes * sizeof(Line<u64>));
static constexpr u64 hands = aligned(beats + shape::workers * sizeof(u64));
static constexpr u64 type_counts = aligned(hands + (u64)shape::workers * shape::threads * sizeof(Hand));
static constexpr u64 owners = aligned(type_counts + (u64)shape::workers * shape::types * sizeof(TypeCounts));
static constexpr u64 lists = aligned(owners + 4096 * sizeof(u16));
static constexpr u64 slabs = aligned(lists + (u64)shape::workers * destinations * sizeof(List));
static constexpr u64 suspects = aligned(slabs + (u64)shape::workers * shape::types * sizeof(Slab));
static constexpr u64 staged = aligned(suspects + suspects_max * sizeof(Suspect));
static constexpr u64 in_hand = aligned(staged + shape::workers * sizeof(Staged));
static constexpr u64 in_hand_messages = aligned(in_hand + shape::lanes * sizeof(InHand));
static constexpr u64 fed = aligned(in_hand_messages + (u64)shape::lanes * shape::threads * sizeof(Message));
static constexpr u64 eaten = aligned(fed + shape::lanes * sizeof(Line<u64>));
static constexpr u64 known_bytes = aligned(eaten + shape::workers * sizeof(Line<u64>));
static_assert(known_bytes < 1ull << 31, "what lies at a known place is small");

// By a place that is looked up, in their order in memory. ptxas 12.9 crashes, for sm_120, over an address that has an offset of
// 2 GiB or more in the code.
enum Far : u32 { worker_slots, egress_slots, entries, free_entries, timers, index, scratch, changes, feeds, staging, pages, far_count };
static constexpr u64 far_bytes[far_count] = {
    (u64)shape::workers * shape::inbox_slots * shape::slot_bytes,
    (u64)shape::lanes * shape::egress_slots * shape::slot_bytes,
    (u64)shape::workers * shape::entries * sizeof(Entry),
    (u64)shape::workers * shape::entries * sizeof(u32),
    (u64)shape::workers * shape::timers * sizeof(Timer),
    (u64)shape::workers * shape::index_slots * sizeof(u64),
    (u64)shape::workers * shape::state_bytes_max,
    (u64)shape::workers * shape::changes * sizeof(u32),
    (u64)shape::lanes * shape::feed_words * sizeof(u64),
    (u64)shape::workers * shape::staging_words * sizeof(u64),
    (u64)shape::pages * shape::page_bytes,
};
// Where one of them begins; of `far_count`, where all have ended.
static constexpr u64 place(u32 far) {
    u64 at = known_bytes;
    for (u32 i = 0; i < far; i++) at = aligned(at + far_bytes[i]);
    return at;
}
static constexpr u64 bytes = place(far_count);

// Not a constant to the compiler, which would write the places into the code again.
RH_LOOKED_UP u64 places[far_count] = {place(worker_slots), place(egress_slots), place(entries), place(free_entries),
                                      place(timers), place(index), place(scratch), place(changes), place(feeds),
                                      place(staging), place(pages)};

}  // namespace arena

// The two memories, by their first bytes; the same for all threads.
struct Memory {
    u8* arena;
    u8* segment;

    template <class T>
    RH_MEMBER T* at(u64 offset, u64 number = 0) const {
        return reinterpret_cast<T*>(arena + offset) + number;
    }
    template <class T>
    RH_MEMBER T* at(arena::Far far, u64 number = 0) const {
        return reinterpret_cast<T*>(arena + arena::places[far]) + number;
    }
    RH_MEMBER Control& control() const { return *at<Control>(arena::control); }
    // Of a worker, or behind them of an egress block.
    RH_MEMBER Inbox& inbox(u32 reader) const { return *at<Inbox>(arena::inboxes, reader); }
    RH_MEMBER Flit* slot(u32 reader, u64 ticket) const {
        if (reader < shape::workers) {
            return at<Flit>(arena::worker_slots,
                            ((u64)reader * shape::inbox_slots + ticket % shape::inbox_slots) * (shape::slot_bytes / 16));
        }
        return at<Flit>(arena::egress_slots, ((u64)(reader - shape::workers) * shape::egress_slots +
                                              ticket % shape::egress_slots) * (shape::slot_bytes / 16));
    }
    RH_MEMBER Counters& counters(u32 worker) const { return *at<Counters>(arena::counters, worker); }
    RH_MEMBER Hand& hand(u32 worker, u32 thread) const {
        return *at<Hand>(arena::hands, (u64)worker * shape::threads + thread);
    }
    // How often an ingress block has looked and found nothing, shifted by one; odd while it finds nothing.
    RH_MEMBER u64& ingress_polls(u32 lane) const { return at<Line<u64>>(arena::ingress_polls, lane)->word; }
    // The control block's own: what a worker's steps and progress came to when it last looked.
    RH_MEMBER u64& beats(u32 worker) const { return *at<u64>(arena::beats, worker); }
    RH_MEMBER TypeCounts& type_counts(u32 worker, u32 type) const {
        return *at<TypeCounts>(arena::type_counts, (u64)worker * shape::types + type);
    }
    // The slots that are on a worker's list of changes, as `Table` knows them.
    RH_MEMBER u32* changes(u32 worker) const { return at<u32>(arena::changes, (u64)worker * shape::changes); }
    RH_MEMBER Staged& staged(u32 worker) const { return *at<Staged>(arena::staged, worker); }
    RH_MEMBER u64* staging(u32 worker) const { return at<u64>(arena::staging, (u64)worker * shape::staging_words); }
    RH_MEMBER InHand& in_hand(u32 lane) const { return *at<InHand>(arena::in_hand, lane); }
    // Of each thread of the ingress block; its kind is 0 where it had none.
    RH_MEMBER Message& in_hand_message(u32 lane, u32 thread) const {
        return *at<Message>(arena::in_hand_messages, (u64)lane * shape::threads + thread);
    }
    // What comes down a lane for its workers to begin with: a ring of words, and how many were ever put there.
    RH_MEMBER u64& fed(u32 lane) const { return at<Line<u64>>(arena::fed, lane)->word; }
    RH_MEMBER u64& feed(u32 lane, u64 word) const {
        return *at<u64>(arena::feeds, (u64)lane * shape::feed_words + word % shape::feed_words);
    }
    // How many of them a worker is done with.
    RH_MEMBER u64& eaten(u32 worker) const { return at<Line<u64>>(arena::eaten, worker)->word; }
    RH_MEMBER u16 owner(u64 key) const { return at<u16>(arena::owners)[shard_of(key)]; }

    // `Key::mix` of `kernels/src/id.rs`, and the high bits of it.
    RH_FN_MEMBER u32 shard_of(u64 key) {
        u64 x = (key ^ (key >> 32)) * 0x9e3779b97f4a7c15ull;
        return (u32)(((x ^ (x >> 29)) * 0xbf58476d1ce4e5b9ull) >> 52);
    }

    template <class T>
    RH_MEMBER T* host(u64 offset) const {
        return reinterpret_cast<T*>(segment + offset);
    }
    RH_MEMBER Flit* ingress_slot(u32 lane, u64 index) const {
        return host<Flit>(shape::segment_ingress + lane * shape::segment_ingress_bytes +
                          index % shape::ingress_slots * shape::slot_bytes);
    }
    RH_MEMBER Flit* egress_slot(u32 lane, u64 index) const {
        return host<Flit>(shape::segment_egress + lane * shape::segment_egress_bytes +
                          index % shape::host_egress_slots * shape::slot_bytes);
    }
    // A lane's staging words in the segment: `StagingWords` of `kernels/src/staging.rs`, the host's line and then the node's.
    RH_MEMBER u64* host_staging(u32 lane, u64 offset) const {
        return host<u64>(shape::segment_staging + lane * 256ull + offset);
    }
    // The words of a lane's staging rings, up to the node and down from it.
    RH_MEMBER u64* staging_up(u32 lane, u64 word) const {
        return host<u64>(shape::segment_staging_rings + 2ull * lane * shape::staging_bytes + word * 8 % shape::staging_bytes);
    }
    RH_MEMBER u64* staging_down(u32 lane, u64 word) const {
        return host<u64>(shape::segment_staging_rings + (2ull * lane + 1) * shape::staging_bytes +
                         word * 8 % shape::staging_bytes);
    }
    // A word of a worker's block in the segment.
    RH_MEMBER u64* host_worker(u32 worker, u64 offset) const {
        return host<u64>(shape::segment_workers + worker * 1024ull + offset);
    }
};

// Which inbox a destination's messages go into: replies and what goes away leave by the worker's egress lane.
RH_FN u32 reader_of(u32 destination, u32 worker) {
    return destination < shape::workers ? destination : shape::workers + worker % shape::lanes;
}
RH_FN u32 slots_of(u32 reader) { return reader < shape::workers ? shape::inbox_slots : shape::egress_slots; }
// Credits that are left to others: half of an egress inbox is kept for replies.
RH_FN u32 floor_of(u32 destination) { return destination == to_away ? shape::egress_slots / 2 : 0; }

}  // namespace rh
#endif
