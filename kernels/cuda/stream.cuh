// A lane's part of a cut, on its way to the node: what the lane's own blocks had in hand, then what its workers have copied,
// one after the other, then where the lane stood. By the lane's egress block, which alone writes the staging ring up.
#ifndef RH_STREAM
#define RH_STREAM

namespace rh {

// Words that are sent in one go: a reply may wait meanwhile.
static constexpr u64 stream_words = 2048;

// In shared memory; the first thread writes it, between barriers.
struct Stream {
    Part part;
    // The last cut that the block took part in.
    u32 cut;
    // Whose copy is next, and how much of its filling is sent. From `shape::workers` on: all are.
    u32 worker;
    u64 from;
    // Words to be sent now, and whether there is a filling.
    u64 count;
    u32 there;
    // The part's last record is still to come.
    u32 open;
    u64 egress;
    u64 hlc;
    u64 pause_ns;
};

// A lane's staging ring up.
struct Upward {
    const Memory& memory;
    u32 lane;

    RH_MEMBER void put(u64 at, u64 word) const {
        // Relaxed, at sys scope: the count of bytes written has the order.
        store_relaxed_sys(memory.staging_up(lane, at), word);
    }
    RH_MEMBER u64 room(Part& part, bool) const {
        if ((load_relaxed_gpu(&memory.control().wishes.word) & wish::leave) != 0) part.over = 1;
        // Acquire, at sys scope: pairs with the release in `Reader::read`; the node has read what is overwritten next.
        const u64 used = part.at * 8 - load_acquire_sys(memory.host_staging(lane, 136));
        return (shape::staging_bytes - used) / 8;
    }
    RH_MEMBER void written(const Part& part) const {
        // Release, at sys scope: pairs with the acquire in `Reader::read`; the block's stores come before by the barrier.
        store_release_sys(memory.host_staging(lane, 0), part.at * 8);
    }
};

// Copies a message out of its slot in the host's ring; without one it has no kind.
RH_OUTLINE void take_over(Message& to, const Flit* slot) {
    to.word[0] = to.word[1] = 0;
    // Relaxed, at sys scope: it has been read before, whole.
    const u32 flits = slot == nullptr ? 0 : flits_of(load_flit_sys(slot).word[0] & 0xffffu);
    for (u32 i = 0; i < flits; i++) {
        const Flit flit = load_flit_sys(slot + i);
        for (u32 j = 0; j < 3; j++) to.word[1 + 3 * i + j] = flit.word[j];
    }
}

// The ingress block's part in a cut: it leaves what it has in hand to the egress block. All threads; `waiting` is the slot of a
// message that has no credit yet, which is not free before it has. False where the device is to end at once.
RH_OUTLINE bool leave_in_hand(const Memory& memory, Part& part, u32 lane, u32 cut, u64 taken, const Flit* waiting) {
    take_over(memory.in_hand_message(lane, thread_index()), waiting);
    if (thread_index() == 0) memory.in_hand(lane).taken = taken;
    sync_block();
    if (thread_index() == 0) {
        const auto waits_on = [] {};
        part.over = !stand(memory, cut, waits_on);
        add_release_gpu(&memory.control().noted.word, 1);
        // What it passed on before all have noted would be in a worker's part, and not yet taken in this one.
        if (part.over == 0) part.over = !wait_for_all(memory, &memory.control().noted.word, cut, waits_on);
    }
    sync_block();
    return part.over == 0;
}

// The egress block's part in a cut: it stands, and sends what it and the ingress block have in hand: all threads. It has taken
// `head` messages, and put so many into the host's ring that there are `tail`. False where the device is to end at once.
RH_OUTLINE bool begin_stream(const Memory& memory, Stream& stream, u32 lane, u32 cut, u64 head, u64 tail) {
    const u32 reader = shape::workers + lane, me = thread_index();
    Part& part = stream.part;
    sync_block();
    if (me == 0) {
        part.over = !stand(memory, cut, [] {});
        // Relaxed, at gpu scope: all have stood, and nobody sends before all have noted.
        stream.count = load_relaxed_gpu(&memory.inbox(reader).tail.word);
        add_release_gpu(&memory.control().noted.word, 1);
        stream.cut = cut;
        stream.worker = lane;
        stream.from = stream.hlc = stream.pause_ns = 0;
        stream.open = 1;
        stream.egress = tail;
    }
    sync_block();
    if (part.over != 0) return false;
    const Upward sink{memory, lane};
    const u64 end = stream.count;
    for (u64 from = head; from < end; from += shape::threads) {
        Message message;
        const bool there = from + me < end;
        if (there) read_one(memory, reader, from + me, message);
        if (!emit_message(sink, part, record::out, 0, 0, there ? &message : nullptr)) return false;
    }
    // Behind what is in the inboxes.
    const Message& waiting = memory.in_hand_message(lane, me);
    return emit_message(sink, part, record::queued, 1, 0, waiting.header.kind == 0 ? nullptr : &waiting);
}

// The last record of a lane's part, and that there is no more. The first thread; false where there is no room for it.
RH_OUTLINE bool end_stream(const Memory& memory, Stream& stream, u32 lane) {
    const Upward sink{memory, lane};
    Part& part = stream.part;
    if (sink.room(part, true) < record::cut_words) return false;
    const Control& control = memory.control();
    const u64 words[] = {record::head(record::cut, 0, 40), control.epoch, lane, memory.in_hand(lane).taken, stream.egress, stream.hlc};
    for (u32 i = 0; i < record::cut_words; i++) sink.put(part.at + i, words[i]);
    part.at += record::cut_words;
    sink.written(part);
    // `HostWords` of `staging.rs`: the epoch goes last, with release at sys scope; who sees it sees where it ends. It pairs
    // with the acquire in `Link::collect_cut`.
    store_relaxed_sys(memory.host_staging(lane, 32), stream.pause_ns);
    store_relaxed_sys(memory.host_staging(lane, 24), part.at * 8);
    store_release_sys(memory.host_staging(lane, 16), control.epoch);
    stream.open = 0;
    // Release, at gpu scope: pairs with the acquire in `run_control`, which may begin another cut then.
    add_release_gpu(&memory.control().parted.word, 1);
    return true;
}

RH_OUTLINE void copy_up(const Upward& sink, u64 at, const u64* from, u64 count) {
    for (u64 i = thread_index(); i < count; i += shape::threads) sink.put(at + i, from[i]);
}

// Sends a little more of what the workers have copied: all threads, while the stream is open. Whether there was any.
RH_OUTLINE bool stream_up(const Memory& memory, Stream& stream, u32 lane) {
    const Upward sink{memory, lane};
    Part& part = stream.part;
    // All have seen that it is open.
    sync_block();
    if (thread_index() == 0) {
        stream.there = 0;
        stream.count = 0;
        if (stream.worker >= shape::workers) {
            stream.there = end_stream(memory, stream, lane);
        } else {
            Staged& staged = memory.staged(stream.worker);
            // Acquire, at gpu scope: pairs with the release in `Staging::fill`.
            if (load_acquire_gpu(&staged.filled.word) != load_relaxed_gpu(&staged.taken.word)) {
                const u64 room = sink.room(part, true), left = staged.words - stream.from;
                const u64 most = room < stream_words ? room : stream_words;
                stream.count = left < most ? left : most;
                stream.there = stream.count > 0 || left == 0;
            }
        }
    }
    sync_block();
    const bool moved = stream.there != 0;
    const u64 count = stream.count, at = part.at;
    if (count > 0) {
        copy_up(sink, at, memory.staging(stream.worker) + stream.from, count);
    }
    sync_block();
    if (thread_index() == 0 && moved && stream.open != 0) {
        Staged& staged = memory.staged(stream.worker);
        part.at += count;
        stream.from += count;
        sink.written(part);
        if (stream.from == staged.words) {
            stream.from = 0;
            const bool last = staged.last != 0;
            if (staged.hlc > stream.hlc) stream.hlc = staged.hlc;
            if (last && staged.pause_ns > stream.pause_ns) stream.pause_ns = staged.pause_ns;
            // Release, at gpu scope: pairs with the acquire in `Staging::fill`; our loads are done.
            store_release_gpu(&staged.taken.word, load_relaxed_gpu(&staged.filled.word));
            if (last) stream.worker += shape::lanes;
        }
    }
    sync_block();
    return moved;
}

}  // namespace rh
#endif
