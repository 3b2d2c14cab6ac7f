// What a device begins with: the records of a checkpoint, which the node sends down the lanes before anything else.
//
// A lane's ingress block copies what comes into a ring of words in device memory. Each worker of the lane reads all of it and
// takes what is its own: actors into its table, timers into its heap, what had not left into its lists. Messages that an actor
// has still to handle go to a list of their own. Who sent them may be another worker's actor by now: so until the last of
// them is in the worker's inbox, nobody else gets a credit for it.
#ifndef RH_RESTORE
#define RH_RESTORE

namespace rh {

// Moves what the worker began with into its inbox, as far as there is room. The first thread, before it looks there.
RH_OUTLINE void refill(Worker& worker) {
    WorkerShared& shared = worker.shared;
    Inbox& inbox = worker.memory.inbox(worker.number);
    while (shared.withheld > 0 && shared.restored.head != 0) {
        const u32 at = shared.restored.head;
        const Message& message = worker.entries[at].message;
        write(worker.memory, worker.number, take_tickets(inbox, 1), message.word, message.header.len);
        shared.restored.head = worker.entries[at].next;
        shared.restored_count--;
        worker.entries.give(shared.pool, at);
        shared.withheld--;
    }
    if (shared.restored.head != 0) return;
    shared.restored.tail = 0;
    // From now on everybody's messages come behind these.
    give_credits(inbox, shared.withheld);
    shared.withheld = 0;
}

// A worker that takes in what comes down its lane.
struct Restore {
    Worker& worker;
    u32 lane;
    // Words that have come, as last seen, and those that are done with.
    u64 come;
    u64 at;

    RH_MEMBER u64 word(u64 number) const { return worker.memory.feed(lane, at + number); }

    // Waits until so many words of the next record are there. False where the device is to end at once.
    RH_MEMBER bool wait_for(u64 words) {
        while (come - at < words) {
            // Release, at gpu scope: pairs with the acquire in `feed_workers`; our loads are done.
            store_release_gpu(&worker.memory.eaten(worker.number), at);
            // Acquire, at gpu scope: pairs with the release in `feed_workers`.
            come = load_acquire_gpu(&worker.memory.fed(lane));
            if ((load_relaxed_gpu(&worker.memory.control().wishes.word) & wish::leave) != 0) return false;
            if (come - at < words) pause(1000);
        }
        return true;
    }

    // Whose a record is that belongs to an actor with this key, which is of this lane.
    RH_MEMBER bool is_mine(u64 key) const {
        const u16 owner = worker.memory.owner(key);
        // What an actor of elsewhere had sent is the first worker's of its lane.
        return (owner < shape::workers && owner % shape::lanes == lane ? owner : lane) == worker.number;
    }

    // An entry with the message that begins at a word of the record; 0 where there is no room for it.
    RH_MEMBER u32 take_message(u32 from) {
        const u32 len = (u32)(word(from) >> 32) & 0xffffu;
        const u32 taken = len > payload_bytes_max ? 0 : worker.entries.take(worker.shared.pool);
        if (taken == 0) {
            worker.fail(restore_out_of_memory);
            return 0;
        }
        Message& message = worker.entries[taken].message;
        for (u32 i = 0; i < 5 + (len + 7) / 8; i++) {
            const u64 value = word(from + i);
            message.word[2 * i] = (u32)value;
            message.word[2 * i + 1] = (u32)(value >> 32);
        }
        return taken;
    }

    // An actor's slot, with all but its state; null where there is no room for it.
    RH_MEMBER Slot* take_actor(u32 state_words) {
        const u32 type_id = (u32)word(2), type_index = type_index_of(type_id);
        Slot* made = nullptr;
        if (type_index != no_type && (state_bytes_of(type_index) + 7) / 8 == state_words) {
            made = worker.create(word(1), type_id, type_index);
        }
        if (made == nullptr) {
            worker.fail(restore_out_of_memory);
            return nullptr;
        }
        // It is not made anew.
        add_shared(&worker.shared.created, ~(u64)0);
        made->faults = (u32)(word(2) >> 32);
        made->handled = word(3);
        made->marks = marked::kept;
        worker.shared.kept = 1;
        return made;
    }

    RH_MEMBER void append(u32 destination, u32 entry) {
        Pool& pool = worker.shared.pool;
        List& list = worker.entries.list(destination);
        worker.entries[entry].next = 0;
        worker.entries[entry].destination = destination;
        *(list.tail == 0 ? &list.head : &worker.entries[list.tail].next) = entry;
        list.tail = entry;
        pool.spilling++;
        pool.spilled++;
        if (destination == to_away) pool.away_waiting++;
    }

    // Takes in a record that is not an actor's.
    RH_MEMBER void take_in(record::Kind kind) {
        WorkerShared& shared = worker.shared;
        if (kind == record::queued && is_mine(word(2))) {
            const u32 entry = take_message(1);
            if (entry == 0) return;
            worker.entries.append(shared.restored, entry);
            shared.restored_count++;
            // Relaxed, at gpu scope: a count. It is sent once more.
            add_relaxed_gpu(&worker.memory.counters(worker.number).sent, 1);
        } else if (kind == record::timer && is_mine(word(5))) {
            const u32 entry = take_message(2);
            if (entry == 0) return;
            const Header& header = worker.entries[entry].message.header;
            worker.entries[entry].destination = worker.destination_of(make_id(header.to_type, header.to_key));
            if (!shared.timers.push(word(1), header.hlc, entry)) worker.fail(restore_out_of_memory);
        } else if (kind == record::out && is_mine(word(4))) {
            const u32 entry = take_message(1);
            if (entry == 0) return;
            const u8 of = worker.entries[entry].message.header.kind;
            append(of == answer || of == error || of == inspected ? to_replies : to_away, entry);
        } else if (kind == record::cut) {
            max_shared(&shared.hlc, word(5));
        }
    }

    // Reads on until there is a state for all threads to copy, or all has been read. The first thread.
    RH_MEMBER void next(Part& part) {
        part.count = 0;
        for (;;) {
            part.over = !wait_for(1) || !wait_for(record::words_of(word(0)));
            if (part.over != 0) return;
            const record::Kind kind = (record::Kind)(word(0) & 0xffu);
            const u32 words = record::words_of(word(0));
            if (kind == record::actor && is_mine(word(1))) {
                const u32 state_words = words - record::actor_words;
                Slot* made = take_actor(state_words);
                if (made != nullptr) {
                    part.next = worker.table.reference(made);
                    part.at = at + record::actor_words;
                    part.count = state_words;
                }
            } else {
                take_in(kind);
            }
            at += words;
            part.moved = kind == record::cut;
            if (part.count > 0 || part.moved != 0) return;
        }
    }
};

// Takes in what the worker begins with: all threads. False where the device is to end at once.
RH_OUTLINE bool restore(Worker& worker) {
    const u32 me = thread_index();
    Part& part = worker.shared.part;
    Restore restore{worker, worker.number % shape::lanes, 0, 0};
    for (;;) {
        if (me == 0) restore.next(part);
        sync_block();
        if (part.over != 0) return false;
        const u32 count = part.count;
        const u64 from = part.at, last = part.moved;
        u64* state = count == 0 ? nullptr : reinterpret_cast<u64*>(worker.table.slot(part.next)->state());
        for (u32 i = me; i < count; i += shape::threads) state[i] = worker.memory.feed(restore.lane, from + i);
        sync_block();
        if (last != 0) break;
    }
    if (me == 0) {
        // Release, at gpu scope, both: the first as in `wait_for`, for good; the second pairs with the acquire in `run_control`.
        store_release_gpu(&worker.memory.eaten(worker.number), ~(u64)0);
        add_release_gpu(&worker.memory.control().loaded.word, 1);
    }
    return true;
}

// The ingress block's side of it: all threads, until the lane's workers have all. False where the device is to end at once.
RH_OUTLINE bool feed_workers(const Memory& memory, Part& part, u32 lane) {
    // The node's count of bytes written, and the host's of bytes taken: `staging.rs`.
    const u64* const written = memory.host_staging(lane, 128);
    u64* const taken = memory.host_staging(lane, 8);
    for (u64 fed = 0;;) {
        if (thread_index() == 0) {
            u64 slowest = ~(u64)0;
            for (u32 worker = lane; worker < shape::workers; worker += shape::lanes) {
                // Acquire, at gpu scope: pairs with the releases in `Restore`; it has read what is overwritten next.
                const u64 eaten = load_acquire_gpu(&memory.eaten(worker));
                if (eaten < slowest) slowest = eaten;
            }
            // Acquire, at sys scope: pairs with the release in `Writer::write`.
            const u64 come = load_acquire_sys(written) / 8 - fed, room = shape::feed_words - (fed - slowest);
            part.moved = slowest == ~(u64)0;
            part.room = part.moved != 0 ? 0 : come < room ? come : room;
            part.over = (load_relaxed_gpu(&memory.control().wishes.word) & wish::leave) != 0;
        }
        sync_block();
        if (part.over != 0) return false;
        if (part.moved != 0) return true;
        const u64 count = part.room;
        for (u64 i = thread_index(); i < count; i += shape::threads) {
            // Relaxed, at sys scope: the count of bytes written has the order.
            memory.feed(lane, fed + i) = load_relaxed_sys(memory.staging_down(lane, fed + i));
        }
        sync_block();
        fed += count;
        if (thread_index() == 0 && count > 0) {
            // Release, at gpu scope: pairs with the acquire in `Restore::wait_for`.
            store_release_gpu(&memory.fed(lane), fed);
            // Release, at sys scope: pairs with the acquire in `Writer::write`; our loads are done.
            store_release_sys(taken, fed * 8);
        }
        if (count == 0) pause(1000);
    }
}

}  // namespace rh
#endif
