// What waits at its worker: entries of a pool, in lists. A thread's handlers put what they send into entries; `flush` moves
// them into the inboxes they are for, and what finds no credit into the spill list of its destination.
//
// Order of a pair: one thread runs one actor's messages, and flushes in the order sent. Once a message to a destination has
// spilled, `flush` spills all later ones to it until `unspill` has emptied the list. So nothing overtakes.
//
// The pool needs no lock: entries are taken while handlers run and given back while their messages leave, and a barrier
// lies between the two.
#ifndef RH_SPILL
#define RH_SPILL

namespace rh {

static_assert((shape::entries & (shape::entries - 1)) == 0, "the pool's counters wrap");

// Entries of one thread, in order, linked by their `next`.
struct Chain {
    u32 head;
    u32 tail;
};

// In shared memory.
struct Pool {
    // Entries ever taken from the ring of free ones, and ever given back to it.
    u32 taken;
    u32 given;
    // Entries in spill lists, and ever put there.
    u32 spilling;
    u64 spilled;
    u32 away_waiting;
};

// The entries, by number plus one; 0 is none.
struct Entries {
    Memory memory;
    u32 worker;

    RH_MEMBER Entry& operator[](u32 entry) const {
        return *memory.at<Entry>(arena::entries, (u64)worker * shape::entries + entry - 1);
    }
    RH_MEMBER u32* ring() const { return memory.at<u32>(arena::free_entries, (u64)worker * shape::entries); }
    RH_MEMBER List& list(u32 destination) const {
        return *memory.at<List>(arena::lists, (u64)worker * destinations + destination);
    }

    RH_MEMBER void set_up(Pool& pool) const {
        for (u32 i = thread_index(); i < shape::entries; i += shape::threads) ring()[i] = i + 1;
        if (thread_index() == 0) pool = Pool{0, shape::entries, 0, 0, 0};
    }
    // 0 where none is left.
    RH_MEMBER u32 take(Pool& pool) const {
        const u32 number = add_shared(&pool.taken, 1u);
        if ((i32)(pool.given - number) <= 0) {
            add_shared(&pool.taken, ~0u);
            return 0;
        }
        return ring()[number % shape::entries];
    }
    RH_MEMBER void give(Pool& pool, u32 entry) const {
        ring()[add_shared(&pool.given, 1u) % shape::entries] = entry;
    }
    RH_MEMBER void append(Chain& chain, u32 entry) const {
        (*this)[entry].next = 0;
        *(chain.tail == 0 ? &chain.head : &(*this)[chain.tail].next) = entry;
        chain.tail = entry;
    }
    // Moves what was appended since the chain ended at `tail` to the front of a list.
    RH_MEMBER void cut(Chain& chain, u32 tail, u32& to) const {
        u32 at = tail == 0 ? chain.head : (*this)[tail].next;
        while (at != 0) {
            const u32 next = (*this)[at].next;
            (*this)[at].next = to;
            to = at;
            at = next;
        }
        if (tail == 0) chain.head = 0;
        else (*this)[tail].next = 0;
        chain.tail = tail;
    }
};

RH_FN u64 shuffle(u64 value, u32 lane) {
    return (u64)shuffle((u32)(value >> 32), lane) << 32 | shuffle((u32)value, lane);
}

// Sends the entries of each lane's list, from `first` on. All lanes of the warp.
RH_OUTLINE void flush(const Entries& entries, Pool& pool, u32 first) {
    const u32 lane = lane_index();
    for (u32 at = first; ballot(at != 0) != 0;) {
        const u32 destination = at != 0 ? entries[at].destination : ~0u;
        // Lanes with one destination take credits and tickets together.
        const u32 peers = match(destination), leader = lowest(peers), rank = ones(peers & ((1u << lane) - 1u));
        u32 granted = 0;
        u64 ticket = 0;
        if (at != 0 && lane == leader) {
            // Before the message can be run, so that no worker finishes more than was begun. Relaxed, at gpu scope: a count.
            if (destination < shape::workers) {
                add_relaxed_gpu(&entries.memory.counters(entries.worker).sent, ones(peers));
            }
            // Relaxed, at gpu scope, past any cache: a lane of this warp may have spilled to it in the last round, which is
            // ordered before this by the barrier at its end.
            if (load_relaxed_gpu(&entries.list(destination).tail) == 0) {
                Inbox& inbox = entries.memory.inbox(reader_of(destination, entries.worker));
                granted = take_credits(inbox, ones(peers), floor_of(destination));
                if (granted > 0) ticket = take_tickets(inbox, granted);
            }
        }
        granted = shuffle(granted, leader);
        ticket = shuffle(ticket, leader);
        if (at != 0) {
            Entry& entry = entries[at];
            const u32 next = entry.next;
            if (rank < granted) {
                const Message& message = entry.message;
                write(entries.memory, reader_of(destination, entries.worker), ticket + rank, message.word,
                      message.header.len);
                entries.give(pool, at);
            } else {
                entry.next = 0;
                List& list = entries.list(destination);
                const u32 before = exchange_block(&list.tail, at);
                *(before == 0 ? &list.head : &entries[before].next) = at;
                add_shared(&pool.spilling, 1u);
                add_shared(&pool.spilled, (u64)1);
                if (destination == to_away) add_shared(&pool.away_waiting, 1u);
            }
            at = next;
        }
        sync_warp();
    }
}

// Sends what has spilled, as far as there are credits; each thread other destinations.
template <class Group>
RH_OUTLINE void unspill(const Entries& entries, Pool& pool) {
    for (u32 destination = thread_index(); destination < destinations; destination += Group::size) {
        List& list = entries.list(destination);
        while (list.head != 0) {
            u32 wanted = 1;
            for (u32 at = list.head; wanted < 8 && entries[at].next != 0; at = entries[at].next) wanted++;
            const u32 reader = reader_of(destination, entries.worker);
            Inbox& inbox = entries.memory.inbox(reader);
            const u32 granted = take_credits(inbox, wanted, floor_of(destination));
            if (granted == 0) break;
            const u64 ticket = take_tickets(inbox, granted);
            for (u32 i = 0; i < granted; i++) {
                const u32 at = list.head;
                const Message& message = entries[at].message;
                write(entries.memory, reader, ticket + i, message.word, message.header.len);
                list.head = entries[at].next;
                if (list.head == 0) list.tail = 0;
                entries.give(pool, at);
                add_shared(&pool.spilling, ~0u);
                if (destination == to_away) add_shared(&pool.away_waiting, ~0u);
            }
        }
    }
}

}  // namespace rh
#endif
