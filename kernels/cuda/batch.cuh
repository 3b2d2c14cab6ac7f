// The batch loop.
#ifndef RH_BATCH
#define RH_BATCH

namespace rh {

// The order of a sorted batch: by type, then actor, then arrival.
RH_FN bool comes_before(const WorkerShared& shared, u32 a, u32 b) {
    const u32 type_a = shared.meta[a] >> 16, type_b = shared.meta[b] >> 16;
    if (type_a != type_b) return type_a < type_b;
    if (shared.key[a] != shared.key[b]) return shared.key[a] < shared.key[b];
    return shared.meta[a] < shared.meta[b];
}

// Sorts the first `count` places (Batcher, "Sorting networks and their applications", 1968: the bitonic network, which is
// for a power of two: the places from there on are filled up with what comes last). No two are equal, so it is stable.
template <class Group>
RH_OUTLINE void sort(WorkerShared& shared, u32 count) {
    const u32 me = thread_index();
    u32 places = 2;
    while (places < count) places *= 2;
    if (me >= count && me < places) {
        shared.key[me] = ~0ull;
        shared.meta[me] = 0xffff0000u | me;
    }
    Group::sync();
    for (u32 run = 2; run <= places; run *= 2) {
        for (u32 apart = run / 2; apart > 0; apart /= 2) {
            const u32 other = me ^ apart;
            if (other > me && me < places) {
                const bool ascending = (me & run) == 0;
                if (comes_before(shared, other, me) == ascending) {
                    const u64 key = shared.key[me];
                    const u32 meta = shared.meta[me];
                    shared.key[me] = shared.key[other];
                    shared.meta[me] = shared.meta[other];
                    shared.key[other] = key;
                    shared.meta[other] = meta;
                }
            }
            Group::sync();
        }
    }
}

// Whether a run of one actor's messages begins at this place of the sorted batch.
RH_FN bool begins_run(const WorkerShared& shared, u32 at) {
    return at == 0 || shared.meta[at] >> 16 != shared.meta[at - 1] >> 16 || shared.key[at] != shared.key[at - 1];
}
RH_FN u32 end_of_run(const WorkerShared& shared, u32 at, u32 count) {
    u32 end = at + 1;
    while (end < count && !begins_run(shared, end)) end++;
    return end;
}

RH_OUTLINE Class class_of(const Worker& worker, u32 from, u32 to) {
    const WorkerShared& shared = worker.shared;
    const u32 type_index = shared.meta[from] >> 16;
    bool wide = false;
    with_type(type_index, [&](auto tag) { wide = decltype(tag)::Actor::threads_per_actor > 1; });
    if (wide) return Class::wide;
    for (u32 i = from; i < to; i++) {
        const Flit* slot = worker.memory.slot(worker.number, shared.head + (shared.meta[i] & 0xffffu));
        // `len`, `kind` and `reason` are the first word of a message. The slot is ours until credits are given.
        if ((load_flit_gpu(slot).word[0] >> 16 & 0xffu) == inspect) return Class::serial;
    }
    return Class::narrow;
}

// Whether a run has a message that makes its actor: a tell or an ask, unless it says with the reason `overloaded` that it creates
// nothing.
RH_OUTLINE bool makes_actor(const Worker& worker, u32 from, u32 to) {
    const WorkerShared& shared = worker.shared;
    for (u32 i = from; i < to; i++) {
        // As in `class_of`.
        const u32 word = load_flit_gpu(worker.memory.slot(worker.number, shared.head + (shared.meta[i] & 0xffffu))).word[0];
        const u32 kind = word >> 16 & 0xffu;
        if ((kind == tell || kind == ask) && word >> 24 != overloaded) return true;
    }
    return false;
}

// Timers that are due go to the head of what the first thread sends; those that handlers set go into the heap.
RH_OUTLINE void fire_timers(Worker& worker, u64 now_us) {
    WorkerShared& shared = worker.shared;
    for (u32 fired = 0; fired < shape::threads; fired++) {
        const u32 entry = shared.timers.pop(now_us);
        if (entry == 0) break;
        worker.entries[entry].message.header.hlc = worker.next_stamp();
        worker.entries.append(shared.out[0], entry);
        shared.stirred = 1;
    }
}
RH_OUTLINE void start_timers(Worker& worker, u64 now_us, u32 threads) {
    WorkerShared& shared = worker.shared;
    for (u32 thread = 0; thread < threads; thread++) {
        for (u32 at = shared.later[thread].head; at != 0;) {
            const u32 next = worker.entries[at].next;
            const u64 due_us = now_us + worker.entries[at].delay_us;
            const u64 stamp = worker.entries[at].message.header.hlc;
            if (!shared.timers.push(due_us < now_us ? ~0ull : due_us, stamp, at)) worker.fail(out_of_memory);
            at = next;
        }
        shared.later[thread] = Chain{0, 0};
    }
}

// One batch. Returns how many messages it took; all threads of the group, with the same answer. With `whole` set by the
// first thread a batch has asked for the whole block, and taken nothing.
template <class Group>
RH_FN u32 step(Worker& worker) {
    WorkerShared& shared = worker.shared;
    const Memory& memory = worker.memory;
    const u32 me = thread_index();
    const u64 now_us = worker.now_us();

    // Seen before the barrier by all, for behind it the first to unspill count down.
    const bool spilling = shared.pool.spilling > 0;
    if (me == 0) {
        // Relaxed, at gpu scope: looked at behind the step, when it is here without a wait. See `look_around`.
        shared.wishes = load_relaxed_gpu(&memory.control().wishes.word);
        max_shared(&shared.hlc, now_us << 12);
        fire_timers(worker, now_us);
        if (shared.restored.head != 0) refill(worker);
    }
    Group::sync();
    if (spilling) unspill<Group>(worker.entries, shared.pool);

    // What has come: each thread looks at one slot.
    const u64 ticket = shared.head + me;
    shared.stopped[me] = false;
    u32 count = leading<Group>(ready(memory, worker.number, ticket), shared.words);
    if (count > 1 && shared.careful_until_ns != 0) count = 1;
    // Before a handler runs, for it may never return: an idle worker is never taken to hang. Relaxed, at gpu scope: `publish` has
    // the order, and this only takes back what it said.
    if (me == 0 && count > 0) store_relaxed_gpu(&memory.counters(worker.number).idle, (u64)0);
    bool wide = false;
    if (me < count) {
        const Flit* slot = memory.slot(worker.number, ticket);
        const u32 lap = lap_of(ticket, shape::inbox_slots);
        // Words 1 to 6 of the header: to_key is words 2 and 3, to_type word 4.
        const Flit first = load_flit_gpu(slot), second = read_flit(slot, 1, lap);
        const u32 type_index = type_index_of(second.word[0]);
        shared.key[me] = (u64)first.word[2] << 32 | first.word[1];
        shared.meta[me] = type_index << 16 | me;
        with_type(type_index, [&](auto tag) { wide = decltype(tag)::Actor::threads_per_actor > 1; });
    }
    if constexpr (!Group::whole && warps > 1) {
        // Many at once, or an actor for many threads: the whole block does better.
        if (count == Group::size || any<Group>(wide, &shared.word)) {
            if (me == 0) shared.whole = 1;
            Group::sync();
            return 0;
        }
    }
    if (count > 1) sort<Group>(shared, count);
    else Group::sync();

    // Where a run begins, its first place's thread finds the actor; the first thread makes those that are not there.
    const bool mine = me < count && begins_run(shared, me);
    const u32 end = mine ? end_of_run(shared, me, count) : 0;
    const u32 type_index = mine ? shared.meta[me] >> 16 : no_type;
    const Class kind = mine && type_index != no_type ? class_of(worker, me, end) : Class::narrow;
    bool missing = false;
    if (mine) {
        Slot* found = type_index == no_type ? nullptr : worker.table.find(shared.key[me], type_id_of(type_index));
        shared.slot[me] = found;
        missing = found == nullptr && type_index != no_type && kind == Class::narrow && makes_actor(worker, me, end);
    }
    if (any<Group>(missing, &shared.word)) {
        if (me == 0) {
            for (u32 at = 0; at < count; at++) {
                if (!begins_run(shared, at) || shared.slot[at] != nullptr) continue;
                const u32 index = shared.meta[at] >> 16;
                const u32 until = end_of_run(shared, at, count);
                if (index == no_type || class_of(worker, at, until) != Class::narrow || !makes_actor(worker, at, until)) continue;
                shared.slot[at] = worker.create(shared.key[at], type_id_of(index), index);
            }
        }
        Group::sync();
    }

    // Actors of one thread, beside each other.
    if (mine && type_index == no_type) {
        refuse_all(worker, me, end);
    } else if (mine && kind == Class::narrow) {
        with_type(type_index, [&](auto tag) {
            typedef typename decltype(tag)::Actor A;
            if constexpr (A::threads_per_actor == 1) run_all<A>(worker, me, end);
        });
    }
    // Those that need more, or the first thread, one after the other.
    if (any<Group>(mine && kind != Class::narrow, &shared.word)) {
        for (u32 at = 0; at < count; at++) {
            if (!begins_run(shared, at)) continue;
            const u32 index = shared.meta[at] >> 16;
            if (index == no_type) continue;
            const u32 until = end_of_run(shared, at, count);
            const Class needs = class_of(worker, at, until);
            if (needs == Class::narrow) continue;
            if (me == 0) {
                with_type(index, [&](auto tag) { run_all<typename decltype(tag)::Actor>(worker, at, until); });
                if (needs == Class::wide) done(shared.assist);
            } else if (needs == Class::wide) {
                assist_until_done(shared.assist);
            }
        }
    }
    Group::sync();

    flush(worker.entries, shared.pool, shared.out[me].head);
    shared.out[me] = Chain{0, 0};
    // What a fault gave back goes to the pool.
    for (u32 at = shared.spare[me]; at != 0;) {
        const u32 next = worker.entries[at].next;
        worker.entries.give(shared.pool, at);
        at = next;
    }
    shared.spare[me] = 0;
    Group::sync();
    if (me == 0) {
        for (u32 at = 0; at < count; at++) {
            if (shared.stopped[at]) worker.remove(shared.slot[at]);
        }
        start_timers(worker, now_us, Group::size);
        shared.head += count;
        shared.finished += count;
        shared.steps++;
        if (shared.careful_until_ns != 0 && nanoseconds() > shared.careful_until_ns) shared.careful_until_ns = 0;
        if (shared.restored.head != 0) shared.withheld += count;
        else give_credits(memory.inbox(worker.number), count);
    }
    Group::sync();
    return count;
}

// What the worker says of itself. The first thread; `idle` last, with release, so that who sees an idle worker sees
// counters that are up to date (pairs with the acquire in `io.cuh`; gpu scope, for both are of this device).
RH_OUTLINE void publish(Worker& worker, bool idle) {
    const WorkerShared& shared = worker.shared;
    Counters& counters = worker.memory.counters(worker.number);
    store_relaxed_gpu(&counters.steps, shared.steps);
    store_relaxed_gpu(&counters.finished, shared.finished);
    store_relaxed_gpu(&counters.faults, shared.faults);
    store_relaxed_gpu(&counters.dead, shared.dead);
    store_relaxed_gpu(&counters.replies, shared.replies);
    store_relaxed_gpu(&counters.replies_unasked, shared.replies_unasked);
    store_relaxed_gpu(&counters.actors, shared.actors);
    store_relaxed_gpu(&counters.created, shared.created);
    store_relaxed_gpu(&counters.stopped, shared.stopped_count);
    // Relaxed, at gpu scope: what has been sent here and not taken, give or take what moves just now.
    const u64 waiting = load_relaxed_gpu(&worker.memory.inbox(worker.number).tail.word) - shared.head;
    store_relaxed_gpu(&counters.queued, waiting + shared.pool.spilling + shared.restored_count);
    store_relaxed_gpu(&counters.spilled, shared.pool.spilled);
    store_relaxed_gpu(&counters.spilled_now, (u64)shared.pool.spilling);
    store_relaxed_gpu(&counters.timers, (u64)shared.timers.count);
    store_relaxed_gpu(&counters.table_bytes, shared.table_bytes);
    store_relaxed_gpu(&counters.away_waiting, (u64)shared.pool.away_waiting);
    store_release_gpu(&counters.idle, (u64)idle);
}

// How long a worker that stands still says that it is well. A host that calibrates a clock takes some milliseconds; one that
// does not is no host, and the supervisor is to see it.
static constexpr i64 stand_still_ns_max = 2000000000;

// Waits for as long as the control block wants it, or until the kernel is to end. The first thread, between two steps.
RH_OUTLINE void stand_still_while_wanted(Worker& worker) {
    WorkerShared& shared = worker.shared;
    const u64 since = nanoseconds();
    for (;;) {
        // Acquire, at gpu scope: pairs with the release in `run_control`; who goes on does so by the new time.
        shared.wishes = load_acquire_gpu(&worker.memory.control().wishes.word);
        if ((shared.wishes & wish::stand_still) == 0 || (shared.wishes & (wish::end | wish::leave)) != 0) return;
        // Signed, for it is the clock that is in doubt.
        if ((i64)(nanoseconds() - since) < stand_still_ns_max) shared.steps++;
        const bool idle = shared.pool.spilling == 0 && shared.out[0].head == 0 && shared.restored.head == 0 &&
                          !ready(worker.memory, worker.number, shared.head);
        publish(worker, idle);
        rest_between_passes();
    }
}

// Between two steps; the first thread. Returns whether the worker is to end.
RH_OUTLINE bool look_around(Worker& worker, u32 count, u32& rounds) {
    WorkerShared& shared = worker.shared;
    const bool idle = count == 0 && shared.pool.spilling == 0 && shared.out[0].head == 0 && shared.stirred == 0 &&
                      shared.restored.head == 0;
    shared.stirred = 0;
    // An idle worker says so once, and again when it has done something.
    if (!idle || rounds < 2) publish(worker, idle);
    rounds = idle ? (rounds < 1000000 ? rounds + 1 : rounds) : 0;
    if ((shared.wishes & wish::stand_still) != 0) stand_still_while_wanted(worker);
    if ((shared.wishes & wish::leave) != 0) return true;
    shared.cut = cut_due(worker.memory, shared.wishes, shared.cuts);
    if (!idle) return false;
    // Seen before the step that found nothing: nothing came after it.
    if ((shared.wishes & wish::end) != 0) return true;
    if ((shared.wishes & wish::give_up) != 0) {
        // Where checkpoints are made, the last one has them.
        for (u32 at = shared.keeps != 0 ? 0 : shared.timers.pop(~0ull); at != 0; at = shared.timers.pop(~0ull)) {
            Header& header = worker.entries[at].message.header;
            worker.entries[at].destination = to_away;
            header.kind = dead_letter;
            header.reason = stopping;
            shared.dead++;
            worker.entries.append(shared.out[0], at);
            shared.stirred = 1;
        }
        // Release, at gpu scope: pairs with the acquire in `sum`; who sees the end sees the credits that its letters took.
        if (shared.out[0].head == 0) store_release_gpu(&worker.memory.counters(worker.number).ended, (u64)1);
    }
    return false;
}

RH_FN void run_worker(const Memory& memory, WorkerShared& shared, u32 number) {
    Worker worker(memory, shared, number);
    u32 rounds = 0;
    if (thread_index() == 0) worker.begin();
    sync_block();
    if (shared.keeps != 0 && !restore(worker)) return;
    if (thread_index() == 0) {
        // Before anybody else's messages go those that the worker began with.
        shared.withheld = shape::inbox_slots;
        refill(worker);
        stand_still_while_wanted(worker);
    }
    sync_block();
    for (;;) {
        u32 count = 0;
        if constexpr (warps > 1) {
            if (warp_index() == 0) {
                for (;;) {
                    count = step<WarpGroup>(worker);
                    if (shared.whole != 0) break;
                    if (thread_index() == 0) shared.ended = look_around(worker, count, rounds);
                    sync_warp();
                    if (shared.ended != 0 || shared.cut != 0) break;
                    rest(rounds);
                }
            }
            sync_block();
            if (shared.ended != 0) return;
            if (shared.cut != 0) {
                if (!take_part(worker)) return;
                rounds = 0;
                continue;
            }
            do {
                count = step<BlockGroup>(worker);
                if (thread_index() == 0) {
                    shared.whole = 0;
                    const bool over = look_around(worker, count, rounds);
                    // Neither `ended` nor `cut` is read below: they are for the first warp to write, while others may still read.
                    if (over) shared.next = Next::end;
                    else if (shared.cut != 0) shared.next = Next::cut;
                    else shared.next = count > warp_threads ? Next::batch : Next::warp;
                }
                sync_block();
            } while (shared.next == Next::batch);
            if (shared.next == Next::end) return;
            if (shared.next == Next::cut) {
                if (!take_part(worker)) return;
                rounds = 0;
            }
        } else {
            count = step<BlockGroup>(worker);
            if (thread_index() == 0) shared.ended = look_around(worker, count, rounds);
            sync_block();
            if (shared.ended != 0) return;
            if (shared.cut != 0) {
                if (!take_part(worker)) return;
                rounds = 0;
            }
            rest(rounds);
        }
    }
}

}  // namespace rh
#endif
