// The records of a checkpoint, as `kernels/src/checkpoint.rs` has them, and how the threads of a block write them side by
// side: each thread one record, or none.
#ifndef RH_RECORDS
#define RH_RECORDS

namespace rh {

namespace record {
enum Kind : u32 { actor = 1, removed = 2, queued = 3, timer = 4, out = 5, cut = 6 };
// In words of 8 bytes, as all that follows.
static constexpr u32 actor_words = 4;
static constexpr u32 removed_words = 3;
static constexpr u32 cut_words = 6;

RH_FN u64 head(Kind kind, u32 phase, u32 len) { return (u64)len << 32 | phase << 8 | (u32)kind; }
RH_FN u32 words_of(u64 head) { return 1 + ((u32)(head >> 32) + 7) / 8; }
RH_FN u32 message_words(Kind kind, u32 len) { return (kind == timer ? 7 : 6) + (len + 7) / 8; }
}  // namespace record

// Where a block writes records, in shared memory. The first thread writes it, between barriers.
struct Part {
    u64 sums[warps];
    // The place of the next record.
    u64 at;
    u64 room;
    u64 moved;
    // The device ends at once: what is written is for nobody.
    u32 over;
    // Entries of a list that are looked at together, and the next one.
    u32 count;
    u32 next;
};

// The sum of this and all earlier threads' values, and of all of the block's.
RH_FN u64 prefix(u64* sums, u64 value, u64& total) {
    const u32 lane = lane_index();
    u64 sum = value;
    for (u32 apart = 1; apart < warp_threads; apart *= 2) {
        const u64 other = shuffle(sum, lane >= apart ? lane - apart : lane);
        if (lane >= apart) sum += other;
    }
    if (lane == warp_threads - 1) sums[warp_index()] = sum;
    sync_block();
    total = 0;
    for (u32 i = 0; i < warps; i++) {
        if (i < warp_index()) sum += sums[i];
        total += sums[i];
    }
    sync_block();
    return sum;
}

// Writes a record of each thread that has one of so many words, in the order of the threads: all threads of the block.
// `write(fits, at)` is called by all of them, and writes where `fits`. A sink says how much room there is, and sees to it that
// there will be more. False where the device is to end at once.
template <class Sink, class Write>
RH_FN bool emit(const Sink& sink, Part& part, u32 words, const Write& write) {
    u64 total, sent = 0;
    const u64 end = prefix(part.sums, words, total);
    bool done = words == 0;
    for (bool first = true; sent < total; first = false) {
        if (thread_index() == 0) {
            part.moved = sent;
            part.room = sink.room(part, first);
        }
        sync_block();
        if (part.over != 0) return false;
        const bool fits = !done && end - sent <= part.room;
        write(fits, part.at + (end - sent) - words);
        done |= fits;
        if (fits) max_shared(&part.moved, end);
        sync_block();
        const u64 moved = part.moved;
        sync_block();
        if (thread_index() == 0) {
            part.at += moved - sent;
            sink.written(part);
        }
        sent = moved;
    }
    return true;
}

// The functions that follow are for one thread each, and are not part of those that call them: their registers are not those of the callers.

// Reads the message of a ticket that is there.
RH_OUTLINE void read_one(const Memory& memory, u32 reader, u64 ticket, Message& message) {
    read(memory, reader, ticket, message);
}

template <class Sink>
RH_OUTLINE void put_message(const Sink& sink, u64 at, record::Kind kind, u32 phase, u64 due_us, const Message& message) {
    const bool timer = kind == record::timer;
    const u32* from = message.word;
    const u32 len = message.header.len;
    sink.put(at++, record::head(kind, phase, (timer ? 48 : 40) + len));
    if (timer) sink.put(at++, due_us);
    // The lap is zero outside of rings.
    sink.put(at++, (u64)from[1] << 32);
    for (u32 i = 1; i < 5 + (len + 7) / 8; i++) {
        u64 word = (u64)from[2 * i + 1] << 32 | from[2 * i];
        // Behind the payload are zeros, whatever the slot had there.
        const u32 over = 40 + len - 8 * i;
        if (over < 8) word &= (1ull << 8 * over) - 1;
        sink.put(at++, word);
    }
}

// Writes a message that is queued, or out, or a timer's: all threads of the block, those that have none with null.
template <class Sink>
RH_OUTLINE bool emit_message(const Sink& sink, Part& part, record::Kind kind, u32 phase, u64 due_us, const Message* message) {
    const u32 len = message == nullptr ? 0 : message->header.len;
    const u32 words = message == nullptr ? 0 : record::message_words(kind, len);
    return emit(sink, part, words, [&](bool fits, u64 at) {
        if (fits) put_message(sink, at, kind, phase, due_us, *message);
    });
}

}  // namespace rh
#endif
