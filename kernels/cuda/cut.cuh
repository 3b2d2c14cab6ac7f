// A worker's part in a cut: it stands between two steps until all blocks stand, notes how far its inbox goes, copies what is
// its own into its staging memory, and goes on once all have noted theirs. What it sends from then on lies behind what the
// others noted, so the copies are of one moment. `stream.cuh` sends the copy to the node meanwhile.
//
// Where the staging memory is full the worker goes on standing until it has been sent, as often as it takes.
#ifndef RH_CUT
#define RH_CUT

namespace rh {

// Blocks that take part: all but the control block.
static constexpr u32 cut_blocks = shape::workers + 2 * shape::lanes;

// The number of a cut that the caller is to take part in, whose last one was `done`; 0 for none.
RH_FN u32 cut_due(const Memory& memory, u32 wishes, u32 done) {
    if ((wishes & wish::cut) == 0) return 0;
    // Acquire, at gpu scope: pairs with the release in `begin_cut`; who sees the number sees what the cut is about.
    const u32 cut = load_acquire_gpu(&memory.control().cuts.word);
    return cut == done ? 0 : cut;
}

// Waits until all blocks have come to a counter of `Control` in this cut. `waits` is called again and again. The first thread.
// False where the device is to end at once.
template <class Waits>
RH_FN bool wait_for_all(const Memory& memory, u32* counter, u32 cut, const Waits& waits) {
    // Acquire, at gpu scope: pairs with the release of those who came; who has counted all sees what each had done.
    while ((i32)(load_acquire_gpu(counter) - cut * cut_blocks) < 0) {
        // Relaxed, at gpu scope: it only ever becomes so.
        if ((load_relaxed_gpu(&memory.control().wishes.word) & wish::leave) != 0) return false;
        waits();
        pause(100);
    }
    return true;
}

// Says that this block stands, and waits until all do. The first thread, behind a barrier of its block.
template <class Waits>
RH_FN bool stand(const Memory& memory, u32 cut, const Waits& waits) {
    add_release_gpu(&memory.control().stood.word, 1);
    return wait_for_all(memory, &memory.control().stood.word, cut, waits);
}

// A worker's staging memory.
struct Staging {
    Worker& worker;

    RH_MEMBER void put(u64 at, u64 word) const { worker.memory.staging(worker.number)[at] = word; }
    // A standing worker is well: the control block sees its steps move.
    RH_MEMBER void waits() const {
        store_relaxed_gpu(&worker.memory.counters(worker.number).steps, ++worker.shared.steps);
    }
    RH_MEMBER u64 room(Part& part, bool first) const {
        if (!first) fill(part, false);
        return shape::staging_words - part.at;
    }
    RH_MEMBER void written(Part&) const {}

    // Hands on what is there. If more is to come, waits until it has been taken. The first thread.
    RH_MEMBER void fill(Part& part, bool last) const {
        Staged& staged = worker.memory.staged(worker.number);
        staged.words = part.at;
        staged.last = last;
        staged.hlc = worker.shared.hlc;
        staged.pause_ns = nanoseconds() - worker.shared.stood_ns;
        const u64 filled = worker.shared.fillings + 1;
        worker.shared.fillings = filled;
        // Release, at gpu scope: pairs with the acquire in `stream_up`; the block's stores come before by the barrier.
        store_release_gpu(&staged.filled.word, filled);
        if (last) return;
        // Acquire, at gpu scope: pairs with the release in `stream_up`; the loads of what is overwritten next are done.
        while (load_acquire_gpu(&staged.taken.word) != filled) {
            if ((load_relaxed_gpu(&worker.memory.control().wishes.word) & wish::leave) != 0) {
                part.over = 1;
                return;
            }
            waits();
            pause(1000);
        }
        part.at = 0;
    }
};

RH_FN u32 state_bytes_of(u32 type_index) {
    u32 bytes = 0;
    with_type(type_index, [&](auto tag) { bytes = decltype(tag)::Actor::State::size; });
    return bytes;
}
// Whether a state has no bytes that mean nothing: then its bytes are those of its record.
RH_FN bool is_plain(u32 type_index) {
    bool plain = false;
    with_type(type_index, [&](auto tag) {
        plain = __has_unique_object_representations(typename decltype(tag)::Actor::State);
    });
    return plain;
}

// Writes a state of which some bytes mean nothing: they are zero in its record.
RH_OUTLINE void store_state(u64* to, Slot* slot, u32 words) {
    for (u32 i = 0; i < words; i++) to[i] = 0;
    with_type(slot->type_index, [&](auto tag) {
        typedef typename decltype(tag)::Actor::State State;
        store(reinterpret_cast<u8*>(to), *reinterpret_cast<const State*>(slot->state()));
    });
}

RH_OUTLINE void copy_words(u64* to, const u64* from, u32 first, u32 count, u32 step) {
#pragma unroll 4
    for (u32 i = first; i < count; i += step) to[i] = from[i];
}

// Copies the states of a warp's actors, a few threads an actor: so the accesses of neighbours are one, and several states are
// on their way at once. All lanes of the warp; those that have none to copy with `words` 0.
RH_FN void copy_states(const Table& table, u64* staging, u32 reference, u64 to, u32 words) {
    constexpr u32 copiers = warp_threads < 8 ? warp_threads : 8;
    const u32 lane = lane_index(), first = lane / copiers * copiers;
    for (u32 turn = 0; turn < copiers; turn++) {
        const u32 whose = first + turn;
        const u32 count = shuffle(words, whose), from = shuffle(reference, whose);
        const u64 at = shuffle(to, whose);
        copy_words(staging + at, reinterpret_cast<const u64*>(table.slot(from)->state()), lane - first, count, copiers);
    }
}

// Writes a record of each thread's slot: of its actor, or that it is gone. All threads; those without a slot with null.
RH_OUTLINE bool emit_slot(Worker& worker, Slot* slot, bool removed) {
    const u32 state_bytes = slot == nullptr || removed ? 0 : state_bytes_of(slot->type_index);
    const u32 state_words = (state_bytes + 7) / 8;
    const u32 words = slot == nullptr ? 0 : removed ? record::removed_words : record::actor_words + state_words;
    const Staging sink{worker};
    u64* const staging = worker.memory.staging(worker.number);
    return emit(sink, worker.shared.part, words, [&](bool fits, u64 at) {
        u32 copied = 0;
        if (fits && removed) {
            sink.put(at, record::head(record::removed, 0, 16));
            sink.put(at + 1, slot->key);
            sink.put(at + 2, (u32)slot->handled);
        } else if (fits) {
            sink.put(at, record::head(record::actor, 0, 24 + state_bytes));
            sink.put(at + 1, slot->key);
            sink.put(at + 2, (u64)slot->faults << 32 | slot->type_id);
            sink.put(at + 3, slot->handled);
            if (is_plain(slot->type_index)) {
                copied = state_words;
            } else {
                store_state(staging + at + record::actor_words, slot, state_words);
            }
        }
        const u32 reference = copied == 0 ? 1 : worker.table.reference(slot);
        copy_states(worker.table, staging, reference, at + record::actor_words, copied);
    });
}

// Puts all actors on the list of changes. All threads.
RH_OUTLINE void change_all(Worker& worker) {
    for (u32 i = thread_index(); i < shape::index_slots; i += shape::threads) {
        const u64 entry = worker.table.index()[i];
        if (entry == 0) continue;
        Slot& slot = *worker.table.slot((u32)entry);
        if ((slot.marks & marked::changed) == 0) worker.change(slot);
    }
}

RH_OUTLINE bool is_there(const Table& table, u64 key, u32 type) { return table.find(key, type) != nullptr; }

RH_OUTLINE void free_gone(const Table& table, Slot* slot) {
    const u32 type_index = slot->type_index;
    with_type(type_index, [&](auto tag) {
        table.free(slot, type_index, slot_bytes_of<typename decltype(tag)::Actor>());
    });
}

// What a cut has of a worker's actors: all of them, or those that have changed and those that are gone.
RH_OUTLINE bool capture_actors(Worker& worker, bool whole) {
    const u32 me = thread_index();
    const Table& table = worker.table;
    // Before the first cut of a device that began with nothing all are on the list.
    if (whole && worker.shared.kept != 0) {
        change_all(worker);
        sync_block();
    }
    const u32* changes = worker.memory.changes(worker.number);
    const u32 count = worker.shared.changes;
    for (u32 from = 0; from < count; from += shape::threads) {
        Slot* slot = from + me < count ? table.slot(changes[from + me]) : nullptr;
        const bool lives = slot != nullptr && slot->type_id != 0;
        const bool changed = lives && (slot->marks & marked::changed) != 0;
        const bool gone = slot != nullptr && !lives && (slot->handled & slot_gone) != 0;
        const bool removed = gone && !whole && !is_there(table, slot->key, (u32)slot->handled);
        if (!emit_slot(worker, changed || removed ? slot : nullptr, removed)) return false;
        if (changed) {
            slot->marks = marked::kept;
        } else if (gone) {
            free_gone(table, slot);
        } else if (slot != nullptr && !lives) {
            slot->faults = 0;
        }
    }
    sync_block();
    if (me == 0) {
        worker.shared.changes = 0;
        worker.shared.kept = 1;
    }
    return true;
}

// Notes the next entries of a list, as many as there are threads. The first thread.
RH_OUTLINE void gather(Worker& worker) {
    Part& part = worker.shared.part;
    u32 count = 0;
    for (; count < shape::threads && part.next != 0; count++) {
        worker.shared.meta[count] = part.next;
        part.next = worker.entries[part.next].next;
    }
    part.count = count;
}

// Writes the messages of a list, as many at a time as there are threads.
RH_OUTLINE bool capture_list(Worker& worker, u32 head, record::Kind kind, u32 phase) {
    WorkerShared& shared = worker.shared;
    Part& part = shared.part;
    if (thread_index() == 0) part.next = head;
    for (;;) {
        sync_block();
        if (thread_index() == 0) gather(worker);
        sync_block();
        const u32 count = part.count;
        if (count == 0) return true;
        const Message* message = thread_index() < count ? &worker.entries[shared.meta[thread_index()]].message : nullptr;
        if (!emit_message(Staging{worker}, part, kind, phase, 0, message)) return false;
    }
}

// What a cut has of a worker's messages. Its inbox ends for the cut with ticket `end`.
RH_OUTLINE bool capture_messages(Worker& worker, u64 end) {
    const u32 me = thread_index();
    WorkerShared& shared = worker.shared;
    const Staging sink{worker};
    for (u64 from = shared.head; from < end; from += shape::threads) {
        Message message;
        const bool there = from + me < end;
        if (there) read_one(worker.memory, worker.number, from + me, message);
        if (!emit_message(sink, shared.part, record::queued, 0, 0, there ? &message : nullptr)) return false;
    }
    if (!capture_list(worker, shared.restored.head, record::queued, 0)) return false;
    // Behind what is in the inboxes, and in what the device began with.
    for (u32 to = 0; to < shape::workers; to++) {
        if (!capture_list(worker, worker.entries.list(to).head, record::queued, 1)) return false;
    }
    // In any order: a timer goes by its time, and then by its stamp.
    for (u32 from = 0; from < shared.timers.count; from += shape::threads) {
        const bool there = from + me < shared.timers.count;
        const Timer timer = there ? shared.timers.heap[from + me] : Timer{0, 0, 0, 0};
        const Message* message = there ? &worker.entries[timer.entry].message : nullptr;
        if (!emit_message(sink, shared.part, record::timer, 0, timer.due_us, message)) return false;
    }
    return capture_list(worker, worker.entries.list(to_replies).head, record::out, 0) &&
           capture_list(worker, worker.entries.list(to_away).head, record::out, 0);
}

// Takes part in the cut `shared.cut`, between two steps: all threads. False where the device is to end at once.
RH_OUTLINE bool take_part(Worker& worker) {
    WorkerShared& shared = worker.shared;
    Part& part = shared.part;
    const Memory& memory = worker.memory;
    Control& control = memory.control();
    const Staging sink{worker};
    const auto waits = [&] { sink.waits(); };
    const u32 cut = shared.cut;
    sync_block();
    if (thread_index() == 0) {
        shared.stood_ns = nanoseconds();
        part.over = !stand(memory, cut, waits);
        // Relaxed, at gpu scope: all have stood, and nobody sends before all have noted.
        part.room = load_relaxed_gpu(&memory.inbox(worker.number).tail.word);
        part.at = 0;
        add_release_gpu(&control.noted.word, 1);
    }
    sync_block();
    if (part.over != 0) return false;
    const u64 end = part.room;
    sync_block();
    if (!capture_actors(worker, control.whole != 0) || !capture_messages(worker, end)) return false;
    sync_block();
    if (thread_index() == 0) {
        sink.fill(part, true);
        part.over = !wait_for_all(memory, &control.noted.word, cut, waits);
        shared.cut = 0;
        shared.cuts = cut;
    }
    sync_block();
    return part.over == 0;
}

}  // namespace rh
#endif
