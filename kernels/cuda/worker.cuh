// A worker: the block that runs the actors of its shards, one batch a step.
//
// A step: put due timers and what had spilled on their way; take what has come, at most one message a thread; bring the
// messages of one actor together, in order; run each actor's messages by one thread; send on what the handlers sent.
// While little is queued the first warp works alone and the others wait at a barrier: that is the latency mode.
#ifndef RH_WORKER
#define RH_WORKER

namespace rh {

template <class A>
struct Tag {
    typedef A Actor;
};

// Calls `f(Tag<Actor>())` for the actor type with this index. `RH_ACTORS` is written by `kernels/src/ring_kernel.rs`.
template <class F>
RH_FN void with_type(u32 type_index, const F& f) {
    switch (type_index) {
#define RH_CASE(INDEX, NAMESPACE) \
    case INDEX: f(Tag<NAMESPACE::Actor>()); break;
        RH_ACTORS(RH_CASE)
#undef RH_CASE
        default: break;
    }
}

static constexpr u32 no_type = shape::types;

RH_FN u32 type_index_of(u32 type_id) {
    switch (type_id) {
#define RH_CASE(INDEX, NAMESPACE) \
    case NAMESPACE::Actor::type: return INDEX;
        RH_ACTORS(RH_CASE)
#undef RH_CASE
        default: return no_type;
    }
}

RH_FN u32 type_id_of(u32 type_index) {
    u32 id = 0;
    with_type(type_index, [&](auto tag) { id = decltype(tag)::Actor::type; });
    return id;
}

template <class A>
RH_FN constexpr u32 slot_bytes_of() {
    // A wide actor's state has its copy from before a handler that may fault behind it: it is too large for a thread.
    constexpr u32 state = (A::State::size + 7) / 8 * 8;
    return (u32)sizeof(Slot) + state * (A::threads_per_actor > 1 && A::can_fault ? 2 : 1);
}

// What a run of one actor's messages asks of the worker.
enum class Class : u32 {
    // One thread, beside other actors.
    narrow,
    // The first thread alone: there is an inspect in it, which needs the worker's scratch.
    serial,
    // All threads together.
    wide,
};

// What a block does when all its threads have run a batch.
enum class Next : u32 {
    // The first warp goes on alone.
    warp,
    batch,
    // All take part in a cut first.
    cut,
    end,
};

struct WorkerShared {
    u64 key[shape::threads];
    // Type index above the place in the batch: the order of both is the order of the batch.
    u32 meta[shape::threads];
    // Of a run, at the place where it begins: its actor, and whether that has stopped.
    Slot* slot[shape::threads];
    bool stopped[shape::threads];
    // Of a thread: what it sends now, what it sends later, and entries that it may take before it asks the pool.
    Chain out[shape::threads];
    Chain later[shape::threads];
    u32 spare[shape::threads];
    u32 words[warps];
    u32 word;
    u64 hlc;
    u64 head;
    u32 whole;
    u32 ended;
    Next next;
    // What the control block wanted when the last step began: bits of `wish`.
    u32 wishes;
    // Timers have been fired since the worker last said what it did.
    u32 stirred;
    // The last cut that the worker took part in, and the one that it is to take part in next, or 0.
    u32 cuts;
    u32 cut;
    // Whether the device makes checkpoints. Then slots on the worker's list of changes, and fillings of its staging memory.
    u32 keeps;
    u32 changes;
    // There may be actors that are not on that list.
    u32 kept;
    u64 fillings;
    u64 stood_ns;
    // Messages that the worker began with and that are not in its inbox yet, and credits for it that nobody gets before they
    // are.
    Chain restored;
    u32 restored_count;
    u32 withheld;
    u64 suspects;
    u64 careful_until_ns;
    Pool pool;
    Timers timers;
    u64 steps;
    u64 finished;
    u64 faults;
    u64 dead;
    u64 replies;
    u64 replies_unasked;
    u64 actors;
    u64 created;
    u64 stopped_count;
    u64 table_bytes;
    Part part;
    Assist assist;
};

// One batch of one worker.
struct Worker {
    Memory memory;
    WorkerShared& shared;
    u32 number;
    Table table;
    Entries entries;

    RH_MEMBER Worker(const Memory& memory, WorkerShared& shared, u32 number)
        : memory(memory), shared(shared), number(number), table{memory, number}, entries{memory, number} {}

    RH_MEMBER void set_up() {
        entries.set_up(shared.pool);
        shared.out[thread_index()] = shared.later[thread_index()] = Chain{0, 0};
        shared.spare[thread_index()] = 0;
        if (thread_index() == 0) {
            shared.timers = Timers{memory.at<Timer>(arena::timers, (u64)number * shape::timers), 0};
            shared.hlc = shared.head = shared.steps = shared.finished = shared.faults = shared.dead = 0;
            shared.replies = shared.replies_unasked = shared.actors = shared.created = shared.stopped_count = 0;
            shared.table_bytes = shape::index_slots * sizeof(u64);
            shared.whole = shared.ended = shared.wishes = shared.stirred = 0;
            shared.cuts = shared.cut = shared.changes = shared.restored_count = shared.withheld = shared.kept = 0;
            shared.fillings = 0;
            shared.restored = Chain{0, 0};
        }
    }

    // What is known once all blocks are set up. The first thread.
    RH_MEMBER void begin() {
        const Control& control = memory.control();
        shared.keeps = control.keeps;
        shared.suspects = control.suspects;
        shared.careful_until_ns = control.careful_until_ns;
    }

    RH_MEMBER u64 now_us() const {
        // Relaxed, at gpu scope: one word that stands for itself.
        return (nanoseconds() + load_relaxed_gpu(&memory.control().epoch_offset_ns.word)) / 1000;
    }

    // A stamp that nobody has had.
    RH_MEMBER u64 next_stamp() { return add_shared(&shared.hlc, (u64)1) + 1; }

    RH_MEMBER void fail(DeviceError error) {
        // Relaxed, at gpu scope: the control block looks at it now and then, and nothing else goes with it.
        store_relaxed_gpu(&memory.control().failed.word, error);
    }

    // An entry for what a handler sends, or null: then the device has failed, and ends.
    RH_MEMBER u32 take_entry() {
        u32& spare = shared.spare[thread_index()];
        u32 entry = spare;
        if (entry != 0) {
            spare = entries[entry].next;
        } else {
            entry = entries.take(shared.pool);
            if (entry == 0) fail(out_of_memory);
        }
        return entry;
    }

    // Puts a message together behind what this thread has sent; its payload is the caller's to write, and zero so far.
    RH_MEMBER Message* send(u32 destination, Kind kind, Reason reason, ActorId to, ActorId from, u32 len, u64 delay_us) {
        const u32 taken = take_entry();
        if (taken == 0) return nullptr;
        Entry& entry = entries[taken];
        entry.destination = destination;
        entry.delay_us = delay_us;
        Header& header = entry.message.header;
        header = Header{0, (u16)len, kind, reason, to.key, to.type, from.type, from.key, next_stamp()};
        for (u32 i = 10; i < 10 + (len + 7) / 8 * 2; i++) entry.message.word[i] = 0;
        entries.append(delay_us > 0 ? shared.later[thread_index()] : shared.out[thread_index()], taken);
        return &entry.message;
    }

    RH_MEMBER u32 destination_of(ActorId to) const {
        const u16 owner = memory.owner(to.key);
        return owner == owner_away ? to_away : owner;
    }

    RH_OUTLINE_MEMBER void answer_error(const Header& asked, Reason reason, u32 line) {
        // "line N of the actor's source", as a CPU device says it.
        char text[48];
        u32 length = 0;
        if (line != 0) {
            const char before[] = "line ", after[] = " of the actor's source";
            for (u32 i = 0; i < sizeof(before) - 1; i++) text[length++] = before[i];
            u32 digits = 1;
            for (u32 rest = line; rest >= 10; rest /= 10) digits++;
            for (u32 i = digits, rest = line; i > 0; i--, rest /= 10) text[length + i - 1] = (char)('0' + rest % 10);
            length += digits;
            for (u32 i = 0; i < sizeof(after) - 1; i++) text[length++] = after[i];
        }
        if (length > payload_bytes_max) length = payload_bytes_max;
        add_shared(&shared.replies, (u64)1);
        Message* message = send(to_replies, error, reason, make_id(asked.from_type, asked.from_key),
                                make_id(asked.to_type, asked.to_key), length, 0);
        if (message == nullptr) return;
        for (u32 i = 0; i < length; i++) message->payload()[i] = (u8)text[i];
    }

    // A message that no handler will answer: its asker gets an error, or it goes to the dead-letter queue. One that is put aside
    // goes there in any case, for somebody to look at.
    RH_OUTLINE_MEMBER void not_handled(const Message& message, Reason reason, u32 line = 0) {
        const Header& header = message.header;
        if (header.kind == ask || header.kind == inspect) {
            answer_error(header, reason, line);
            if (reason != poison) return;
        }
        add_shared(&shared.dead, (u64)1);
        Message* letter = send(to_away, dead_letter, reason, make_id(header.to_type, header.to_key),
                               make_id(header.from_type, header.from_key), header.len, 0);
        if (letter == nullptr) return;
        letter->header.hlc = header.hlc;
        for (u32 i = 10; i < 10 + (header.len + 7u) / 8u * 2u; i++) letter->word[i] = message.word[i];
    }

    // Answers an inspect. By the first thread alone: the state's bytes go through the worker's scratch.
    template <class A>
    RH_OUTLINE_MEMBER void answer_inspect(const Message& message, const Slot* slot) {
        u32 offset;
        if (message.header.len < 4) return not_handled(message, malformed);
        offset = get<u32>(message.payload());
        if (slot == nullptr) return answer_error(message.header, no_actor, 0);
        if (payload_bytes_max <= 24) return answer_error(message.header, too_large, 0);
        u8* bytes = memory.at<u8>(arena::scratch, (u64)number * shape::state_bytes_max);
        for (u32 i = 0; i < A::State::size; i++) bytes[i] = 0;
        store(bytes, *reinterpret_cast<const typename A::State*>(const_cast<Slot*>(slot)->state()));
        const u32 from = offset < A::State::size ? offset : A::State::size;
        const u32 room = payload_bytes_max - 24, left = A::State::size - from, count = left < room ? left : room;
        add_shared(&shared.replies, (u64)1);
        const Header& asked = message.header;
        Message* reply = send(to_replies, inspected, (Reason)0, make_id(asked.from_type, asked.from_key),
                              make_id(asked.to_type, asked.to_key), 24 + count, 0);
        if (reply == nullptr) return;
        u8* to = reply->payload();
        put<u32>(to, A::State::size);
        put<u32>(to + 4, offset);
        put<u64>(to + 8, slot->handled);
        put<u32>(to + 16, slot->faults);
        put<u32>(to + 20, number);
        for (u32 i = 0; i < count; i++) to[24 + i] = bytes[from + i];
    }

    RH_MEMBER void count_type(u32 type_index, u64 TypeCounts::* which, u64 by) {
        // Relaxed, at gpu scope: a count for the host, which the control block carries there.
        add_relaxed_gpu(&(memory.type_counts(number, type_index).*which), by);
    }

    // Notes that an actor differs from what the last cut has of it.
    RH_OUTLINE_MEMBER void change(Slot& slot) {
        slot.marks |= marked::changed;
        memory.changes(number)[add_shared(&shared.changes, 1u)] = table.reference(&slot);
    }

    // A new actor. The first thread alone.
    RH_OUTLINE_MEMBER Slot* create(u64 key, u32 type_id, u32 type_index) {
        Slot* made = nullptr;
        with_type(type_index, [&](auto tag) {
            made = table.create(key, type_id, type_index, slot_bytes_of<typename decltype(tag)::Actor>(), shared.actors,
                                shared.table_bytes);
        });
        if (made != nullptr) {
            add_shared(&shared.actors, (u64)1);
            add_shared(&shared.created, (u64)1);
            count_type(type_index, &TypeCounts::actors, 1);
        }
        return made;
    }
    RH_OUTLINE_MEMBER void remove(Slot* gone) {
        with_type(gone->type_index, [&](auto tag) {
            table.remove(gone, slot_bytes_of<typename decltype(tag)::Actor>());
        });
    }
};

}  // namespace rh
#endif
