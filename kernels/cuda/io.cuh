// The blocks that speak with the host: ingress and egress, a pair for each lane of the segment, and one for control.
// They alone touch host memory, all of it at sys scope.
#ifndef RH_IO
#define RH_IO

namespace rh {

// Offsets in a worker's block of the segment: `WorkerBlock` of `kernels/src/segment.rs`.
static constexpr u64 ingress_consumed = 0;
static constexpr u64 ingress_begun = 8;
static constexpr u64 egress_consumed = 128;
static constexpr u64 telemetry = 384;
// Offsets in the node's line: `NodeLine`.
static constexpr u64 node_epoch = 24;
static constexpr u64 node_restores = 32;
static constexpr u64 node_whole = 36;

struct IoShared {
    u32 words[warps];
    u32 word;
    // A cut that the block is to take part in now, or 0.
    u32 cut;
    // A warp of the ingress block holds messages back, and so all later ones do.
    u32 held;
    u64 room;
    Stream stream;
};

// Sets `shared.cut`. The first thread; whoever reads it does so behind a barrier.
RH_FN void look_for_cut(const Memory& memory, IoShared& shared, u32 done) {
    // Relaxed, at gpu scope: `cut_due` has the order.
    shared.cut = cut_due(memory, load_relaxed_gpu(&memory.control().wishes.word), done);
}

// Whether this block is to return.
RH_FN bool is_over(const Memory& memory) {
    // Relaxed, at gpu scope: it only ever becomes so, and nothing is published with it.
    return (load_relaxed_gpu(&memory.control().wishes.word) & (wish::end | wish::leave)) != 0;
}

// Puts a warp's messages into the inboxes they are for, those that wait. Whether this lane's waits no more: a cut, or the end,
// may come before there is a credit for it. All lanes of the warp.
RH_FN bool pass_on(const Memory& memory, const Message& message, u32 destination, bool waits, u32 cuts) {
    while (ballot(waits) != 0) {
        const u32 peers = match(waits ? destination : ~0u), leader = lowest(peers);
        const u32 rank = ones(peers & ((1u << lane_index()) - 1u));
        u32 granted = 0;
        u64 ticket = 0;
        if (waits && lane_index() == leader) {
            Inbox& inbox = memory.inbox(destination);
            // The last part of an inbox is for messages between actors: they come before new ones. A worker that
            // holds back as many as half of what it can gets nothing new. Relaxed, at gpu scope: about so many.
            const u64 held = load_relaxed_gpu(&memory.counters(destination).spilled_now);
            if (held < shape::entries / 2) granted = take_credits(inbox, ones(peers), shape::admission_floor);
            if (granted > 0) {
                // Before the message can be run, so that no worker finishes more than was begun.
                add_relaxed_gpu(&memory.counters(destination).accepted.word, granted);
                ticket = take_tickets(inbox, granted);
            }
        }
        granted = shuffle(granted, leader);
        ticket = shuffle(ticket, leader);
        if (waits && rank < granted) {
            write(memory, destination, ticket + rank, message.word, message.header.len);
            waits = false;
        }
        if (ballot(waits) != 0) {
            // Relaxed, at gpu scope: as in `is_over`; `cut_due` has its own order.
            const u32 wishes = load_relaxed_gpu(&memory.control().wishes.word);
            if (ballot((wishes & (wish::end | wish::leave)) != 0 || cut_due(memory, wishes, cuts) != 0) != 0) break;
            pause(200);
        }
    }
    return !waits;
}

// From the host's ring into the workers' inboxes, in order.
RH_FN void run_ingress(const Memory& memory, IoShared& shared, u32 lane) {
    u64* const consumed = memory.host_worker(lane, ingress_consumed);
    u64* const begun = memory.host_worker(lane, ingress_begun);
    u64* const polls = &memory.ingress_polls(lane);
    // What a host before this one had begun is lost with it. Written by the device's side alone.
    u64 head = load_relaxed_sys(begun), empty = 0;
    if (thread_index() == 0) store_relaxed_sys(consumed, head);
    if (memory.control().keeps != 0 && !feed_workers(memory, shared.stream.part, lane)) return;
    u32 cuts = 0;
    for (u32 rounds = 0;;) {
        if (thread_index() == 0) look_for_cut(memory, shared, cuts);
        const Flit* slot = memory.ingress_slot(lane, head + thread_index());
        const u32 lap = lap_of(head + thread_index(), shape::ingress_slots);
        // Relaxed, at sys scope: pairs with the stores of `flit.rs`; a flit is its own proof.
        Flit first = load_flit_sys(slot);
        const u32 count = leading<BlockGroup>(first.word[3] == lap, shared.words);
        if (const u32 cut = shared.cut) {
            if (!leave_in_hand(memory, shared.stream.part, lane, cut, head, nullptr)) return;
            cuts = cut;
            rounds = 0;
            continue;
        }
        if (count == 0) {
            empty++;
            // Relaxed, at gpu scope: the control block counts empty looks at the end, and nothing goes with them.
            if (thread_index() == 0) store_relaxed_gpu(polls, empty << 1 | 1);
            if (any<BlockGroup>(thread_index() == 0 && is_over(memory), &shared.word)) return;
            rest(++rounds);
            continue;
        }
        rounds = 0;
        Message message;
        u32 destination = ~0u;
        if (thread_index() < count) {
            message.word[0] = 0;
            u32 flits = 3;
            for (u32 i = 0; i < flits; i++) {
                Flit flit = i == 0 ? first : load_flit_sys(slot + i);
                while (flit.word[3] != lap) {
                    pause(100);
                    flit = load_flit_sys(slot + i);
                }
                for (u32 j = 0; j < 3; j++) message.word[1 + 3 * i + j] = flit.word[j];
                if (i == 2) flits = flits_of(message.header.len);
            }
            const u16 owner = memory.owner(message.header.to_key);
            // The node sends nothing here whose shard is elsewhere.
            destination = owner < shape::workers ? owner : 0;
        }
        if (thread_index() == 0) {
            store_relaxed_gpu(polls, empty << 1);
            // Relaxed, at sys scope: read by the node only after this device's host is dead.
            store_relaxed_sys(begun, head + count);
        }
        for (bool waits = destination != ~0u;;) {
            if (thread_index() == 0) shared.held = 0;
            sync_block();
            // One warp after the other, so that an earlier message has its ticket before a later one of the same pair.
            for (u32 turn = 0; turn * warp_threads < count; turn++) {
                if (warp_index() == turn && shared.held == 0) {
                    waits = !pass_on(memory, message, destination, waits, cuts);
                    if (ballot(waits) != 0 && lane_index() == 0) shared.held = 1;
                }
                sync_block();
            }
            if (shared.held == 0) break;
            if (thread_index() == 0) look_for_cut(memory, shared, cuts);
            if (any<BlockGroup>(thread_index() == 0 && is_over(memory), &shared.word)) return;
            if (const u32 cut = shared.cut) {
                if (!leave_in_hand(memory, shared.stream.part, lane, cut, head + count, waits ? slot : nullptr)) return;
                cuts = cut;
            }
        }
        head += count;
        // Release, at sys scope: pairs with the acquire in `Producer::room` of `ring.rs`; our loads of the slots are done.
        if (thread_index() == 0) store_release_sys(consumed, head);
    }
}

// Whether a slot of the host's ring holds a whole message: as `present` of `flit.rs`.
RH_FN bool holds_whole(const Flit* slot, u32 lap) {
    const Flit first = load_flit_sys(slot);
    if (first.word[3] != lap) return false;
    const u32 count = flits_of(first.word[0] & 0xffffu);
    for (u32 i = 1; i < count && i < slot_flits; i++) {
        if (load_flit_sys(slot + i).word[3] != lap) return false;
    }
    return count <= slot_flits;
}

// From the workers' replies and what goes away into the host's ring.
RH_FN void run_egress(const Memory& memory, IoShared& shared, u32 lane) {
    const u32 reader = shape::workers + lane;
    u64* const consumed = memory.host_worker(lane, egress_consumed);
    Inbox& inbox = memory.inbox(reader);
    u64 head = 0;
    // The host's ring goes on where the last device left it, as `Producer::attach` finds it: behind what is published.
    u64 tail = load_relaxed_sys(consumed);
    const u64 free_from = tail + shape::host_egress_slots;
    while (tail < free_from && holds_whole(memory.egress_slot(lane, tail), lap_of(tail, shape::host_egress_slots))) tail++;
    // A device that died may have published messages behind one that it did not: they went with it.
    const u64 mine = tail + thread_index();
    if (mine < free_from) {
        Flit* slot = memory.egress_slot(lane, mine);
        const u32 lap = lap_of(mine, shape::host_egress_slots);
        if (load_flit_sys(slot).word[3] == lap) store_flit_sys(slot, Flit{{0, 0, 0, lap - 1}});
    }
    Stream& stream = shared.stream;
    if (thread_index() == 0) stream.cut = stream.open = stream.part.at = 0;
    sync_block();
    for (u32 rounds = 0;;) {
        if (thread_index() == 0) look_for_cut(memory, shared, stream.cut);
        u32 count = leading<BlockGroup>(ready(memory, reader, head + thread_index()), shared.words);
        if (const u32 cut = shared.cut) {
            if (!begin_stream(memory, stream, lane, cut, head, tail)) return;
            continue;
        }
        if (stream.open != 0 && stream_up(memory, stream, lane)) rounds = 0;
        if (count > 0) {
            // Acquire, at sys scope: pairs with the release in `Consumer::publish` of `ring.rs`; the node is done with
            // the slots that we store to.
            if (thread_index() == 0) shared.room = shape::host_egress_slots - (tail - load_acquire_sys(consumed));
            sync_block();
            if (count > shared.room) count = (u32)shared.room;
            sync_block();
        }
        if (count == 0) {
            if (any<BlockGroup>(thread_index() == 0 && is_over(memory), &shared.word)) return;
            rest(++rounds);
            continue;
        }
        rounds = 0;
        if (thread_index() < count) {
            Message message;
            read(memory, reader, head + thread_index(), message);
            Flit* slot = memory.egress_slot(lane, tail + thread_index());
            const u32 lap = lap_of(tail + thread_index(), shape::host_egress_slots);
            // Relaxed, at sys scope: each flit is its own proof to `flit.rs`. The first goes last, for the node looks at it
            // first, and then finds the others there or about to come.
            for (u32 i = flits_of(message.header.len); i > 0; i--) {
                store_flit_sys(slot + i - 1, pack(message.word, i - 1, lap));
            }
        }
        sync_block();
        head += count;
        tail += count;
        if (thread_index() == 0) give_credits(inbox, count);
    }
}

// What a pass over the workers' counters came to; equal in two passes with every worker idle, nothing was under way
// between them.
struct Sums {
    u64 begun;
    u64 finished;
    u64 idle;
    u64 ended;
};

// Tells the host an actor that each worker has in hand, each warp those of other workers.
RH_OUTLINE void carry_hands(const Memory& memory) {
    for (u32 worker = warp_index(); worker < shape::workers; worker += warps) {
        u64 type = 0, key = 0, hlc = 0, hash = 0;
        for (u32 thread = lane_index(); thread < shape::threads && type == 0; thread += warp_threads) {
            const Hand& hand = memory.hand(worker, thread);
            type = load_relaxed_gpu(&hand.type);
            key = load_relaxed_gpu(&hand.key);
            hlc = load_relaxed_gpu(&hand.hlc);
            hash = load_relaxed_gpu(&hand.hash);
        }
        const u32 found = ballot(type != 0);
        if (lane_index() != (found == 0 ? 0 : lowest(found))) continue;
        u64* const to = memory.host_worker(worker, telemetry);
        // None between two batches.
        store_relaxed_sys(to + 21, found == 0 ? 0 : hlc);
        if (found == 0) continue;
        store_relaxed_sys(to + 22, hash);
        store_relaxed_sys(reinterpret_cast<u32*>(to) + 1, (u32)type);
        store_relaxed_sys(to + 1, key);
    }
}

// Carries counters to the host, each thread those of other workers.
RH_OUTLINE void carry(const Memory& memory, bool last) {
    const u64 now_us = (nanoseconds() + load_relaxed_gpu(&memory.control().epoch_offset_ns.word)) / 1000;
    for (u32 worker = thread_index(); worker < shape::workers; worker += shape::threads) {
        const Counters& counters = memory.counters(worker);
        u64* const to = memory.host_worker(worker, telemetry);
        // Acquire, at gpu scope: pairs with the release in `publish`. The rest is relaxed: counts for people, and for the
        // node's test of quiet, which looks twice.
        const bool idle = load_acquire_gpu(&counters.idle) != 0;
        const u64 progress = load_relaxed_gpu(&counters.progress.word);
        // A beat is whatever moves: a step, or a message within one.
        const u64 beat = load_relaxed_gpu(&counters.steps) + progress;
        u64& seen = memory.beats(worker);
        if (beat != seen || idle) {
            store_relaxed_sys(to + 3, now_us);
            seen = beat;
        }
        const u64 finished = load_relaxed_gpu(&counters.finished);
        const u64* const words[] = {&counters.accepted.word, &counters.sent,    &counters.faults,   &counters.dead,
                                    &counters.replies,       &counters.replies_unasked, &counters.actors,
                                    &counters.created,       &counters.stopped, &counters.queued,   &counters.spilled,
                                    &counters.spilled_now,   &counters.timers,  &counters.table_bytes};
        for (u32 i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
            store_relaxed_sys(to + 4 + i, load_relaxed_gpu(words[i]));
        }
        store_relaxed_sys(to + 20, load_relaxed_gpu(&counters.away_waiting));
        store_relaxed_sys(to + 2, finished);
        store_relaxed_sys(to + 19, finished);
        for (u32 type = 0; type < shape::types; type++) {
            const TypeCounts& counts = memory.type_counts(worker, type);
            u64* const at = memory.host<u64>(shape::segment_types + worker * shape::segment_types_bytes + type * 24ull);
            store_relaxed_sys(at, load_relaxed_gpu(&counts.actors));
            store_relaxed_sys(at + 1, load_relaxed_gpu(&counts.handled));
            store_relaxed_sys(at + 2, load_relaxed_gpu(&counts.faults));
        }
        // `Pulse`: idle 1, busy 2, stopped 3. Release, at sys scope: pairs with the acquire in `Link::read_worker`.
        store_release_sys(reinterpret_cast<u32*>(to), last ? 3u : idle ? 1u : 2u);
    }
}

// By the first thread.
RH_FN Sums sum(const Memory& memory) {
    Sums sums{0, 0, 0, 0};
    for (u32 worker = 0; worker < shape::workers; worker++) {
        const Counters& counters = memory.counters(worker);
        // First: what a worker sent before it gave up its timers is counted.
        sums.ended += load_acquire_gpu(&counters.ended);
        sums.idle += load_acquire_gpu(&counters.idle);
        sums.finished += load_relaxed_gpu(&counters.finished);
        sums.begun += load_relaxed_gpu(&counters.accepted.word) + load_relaxed_gpu(&counters.sent);
    }
    return sums;
}

// Whether nothing is under way: not in a ring, an inbox, a spill list or a hand. `polls` are the ingress blocks' empty
// looks, of which each must have had two since `since`.
RH_FN bool nothing_under_way(const Memory& memory, const u64* since) {
    const Sums first = sum(memory);
    for (u32 lane = 0; lane < shape::lanes; lane++) {
        const u64 polls = load_relaxed_gpu(&memory.ingress_polls(lane));
        if ((polls & 1) == 0 || (polls >> 1) < since[lane] + 2) return false;
    }
    const Sums second = sum(memory);
    return first.idle == shape::workers && second.idle == shape::workers && first.begun == first.finished &&
           first.begun == second.begun && first.finished == second.finished;
}

// Messages that have left their workers and are not in the host's rings yet.
RH_FN u64 leaving(const Memory& memory) {
    u64 count = 0;
    for (u32 lane = 0; lane < shape::lanes; lane++) {
        // Acquire, at gpu scope: pairs with the release in `give_credits`; what was carried before it is in the host's ring.
        count += shape::egress_slots - load_acquire_gpu(&memory.inbox(shape::workers + lane).credits.word);
    }
    return count;
}

// How the host says that this device's clock maps to its own: `ClockLine` of `kernels/src/segment.rs`.
struct Mapping {
    u64 version;
    u64 reference_ns;
    u64 offset_ns;
    i64 rate_ppb;
    u64 floor_ns;
};

// Tells the host the device's time when asked, and the device the host's. Returns whether the device may tell time. The first
// thread of the control block.
RH_FN bool keep_time(const Memory& memory, Mapping& mapping, u64& answered, bool may) {
    u64* const line = memory.host<u64>(shape::segment_clock);
    // Acquire, at sys scope: pairs with the release in `ClockHost::step`. The clock is read after the request is seen.
    const u64 request = load_acquire_sys(line);
    if (request != answered) {
        answered = request;
        store_relaxed_sys(line + 3, nanoseconds());
        // Release, at sys scope: pairs with the acquire in `ClockHost::reply`; who sees the reply sees the time.
        store_release_sys(line + 2, request);
    }
    // Acquire, at sys scope: pairs with the last store of `ClockLine::publish`, so that the mapping by which a paused device
    // goes on is seen below. Paused, it takes up none: what is there is the one that is wrong.
    if (load_acquire_sys(line + 1) != 0) return false;
    // Acquire, at sys scope, these and those below: the reader's side of the sequence lock in `ClockLine::publish`. Each
    // load is done before the next, so a version that is still the same was the same throughout.
    const u64 version = load_acquire_sys(line + 4);
    if (version != mapping.version && version % 2 == 0) {
        const bool told = load_acquire_sys(line + 12) > 0;
        const Mapping read{version, load_acquire_sys(line + 5), load_acquire_sys(line + 6), (i64)load_acquire_sys(line + 7),
                           load_acquire_sys(line + 8)};
        if (told && load_acquire_sys(line + 4) == version) {
            mapping = read;
            may = true;
        }
    }
    // Without a mapping it goes by what the launch said: nobody keeps its clock.
    if (mapping.version == 0) return version == 0;
    // After a pause it waits for a mapping that it has not had.
    if (!may) return false;
    const u64 now = nanoseconds();
    const i64 since_us = (i64)(now - mapping.reference_ns) / 1000;
    u64 host = now + mapping.offset_ns + (u64)(since_us * mapping.rate_ppb / 1000000);
    if (host < mapping.floor_ns) host = mapping.floor_ns;
    // Relaxed, at gpu scope: one word that stands for itself. Stamps do not follow time back: see `Worker::now_us`'s users.
    store_relaxed_gpu(&memory.control().epoch_offset_ns.word, host - now);
    return true;
}

// Whether parts of a cut are still on their way. Acquire, at gpu scope: pairs with the release in `end_stream`; the copies are
// done with.
RH_FN bool is_cutting(Control& control, u32 cuts) {
    return load_acquire_gpu(&control.parted.word) != cuts * shape::lanes;
}

// Has all blocks begin with a cut where the node wants one and the last is over, and no more once all have noted their part.
// Returns what is wished now. The first thread of the control block.
RH_FN u32 begin_cut(const Memory& memory, u32& cuts, u32 wishes) {
    Control& control = memory.control();
    // Acquire, at gpu scope: only then is it gone from what they look at.
    if ((wishes & wish::cut) != 0 && load_acquire_gpu(&control.noted.word) == cuts * cut_blocks) wishes &= ~wish::cut;
    // Acquire, at sys scope: pairs with the release in `Link::ask_cut`; whether it is to be whole was written before.
    const u64 wanted = load_acquire_sys(memory.host<u64>(shape::segment_node + node_epoch));
    if (wanted == control.epoch || is_cutting(control, cuts)) return wishes;
    control.epoch = wanted;
    control.whole = load_relaxed_sys(memory.host<u32>(shape::segment_node + node_whole));
    // Release, at gpu scope: pairs with the acquire in `cut_due`.
    store_release_gpu(&control.cuts.word, ++cuts);
    return wishes | wish::cut;
}

// How long a device that is asked to stop while its clock is wrong waits until that is right.
static constexpr u64 right_time_ns_max = 1000000000;

// Heartbeats and counters to the host, the host's wishes to the device, and the end of it all.
RH_FN void run_control(const Memory& memory, IoShared& shared) {
    Control& control = memory.control();
    // The node's stop word, and the kernel's own line: whether it is up, why it failed, passes made.
    const u32* const stop = memory.host<u32>(shape::segment_node);
    u32* const up = memory.host<u32>(shape::segment_kernel);
    u32* const failed = up + 1;
    u64* const passes = memory.host<u64>(shape::segment_kernel + 8);
    u64* const still_leaving = memory.host<u64>(shape::segment_kernel + 16);
    const bool keeps = control.keeps != 0;
    u32 cuts = 0;
    u64 since[shape::lanes], pass = 0, answered = 0, stopping_since = 0;
    Mapping mapping{0, 0, 0, 0, 0};
    bool may_tell = false, stopping = false, ending = false, loaded = false;
    u32 wishes = control.wishes.word;
    for (;;) {
        carry_hands(memory);
        carry(memory, false);
        sync_block();
        if (thread_index() == 0) {
            may_tell = keep_time(memory, mapping, answered, may_tell);
            store_relaxed_sys(still_leaving, leaving(memory));
            // Release, at sys scope, both: who sees the pass sees what it carried, and what had left before.
            store_release_sys(passes, ++pass);
            // Acquire, at gpu scope: pairs with the release in `restore`; a device is up with what it begins with.
            const bool loads = !loaded;
            loaded = !keeps || load_acquire_gpu(&control.loaded.word) == shape::workers;
            if (loads && loaded) store_release_sys(up, 1u);
            const u32 why = load_relaxed_gpu(&control.failed.word);
            if (why != 0) {
                store_release_sys(failed, why);
                wishes |= wish::leave;
            }
            if (keeps && loaded) wishes = begin_cut(memory, cuts, wishes);
            // Acquire, at sys scope: pairs with the release in `Link::stop`; what was pushed before is seen.
            const u32 asked = load_acquire_sys(stop);
            if (asked == shape::stop_at_once) wishes |= wish::leave;
            if (!stopping && asked != 0) {
                stopping = true;
                stopping_since = nanoseconds();
                for (u32 lane = 0; lane < shape::lanes; lane++) {
                    since[lane] = load_relaxed_gpu(&memory.ingress_polls(lane)) >> 1;
                }
            }
            // A host that wants the end and does not set the clock right gets the end.
            const bool waits = !may_tell && !(stopping && nanoseconds() - stopping_since > right_time_ns_max);
            wishes = waits ? wishes | wish::stand_still : wishes & ~wish::stand_still;
            if (stopping && !waits && !ending && nothing_under_way(memory, since)) ending = true;
            if (ending) {
                wishes |= wish::give_up;
                const Sums sums = sum(memory);
                // A cut that is under way, or was asked for meanwhile, leaves too.
                const bool left = leaving(memory) == 0 && !is_cutting(control, cuts);
                if (sums.ended == shape::workers && sums.begun == sums.finished && left) wishes |= wish::end;
            }
            // Release, at gpu scope: pairs with the acquire in `stand_still_while_wanted`; the time is the new one.
            store_release_gpu(&control.wishes.word, wishes);
        }
        if (any<BlockGroup>(thread_index() == 0 && is_over(memory), &shared.word)) break;
        rest_between_passes();
    }
    // A device that leaves what it has in hand is told by what it was at, as one whose host was killed.
    carry(memory, ending);
    sync_block();
    if (thread_index() == 0) store_release_sys(passes, pass + 1);
}

}  // namespace rh
#endif
