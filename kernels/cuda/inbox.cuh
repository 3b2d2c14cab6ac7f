// An inbox: a ring in device memory with many writers and one reader, both of this device.
//
// A writer takes credits before it takes tickets, so a ticket always has a free slot behind it and no writer waits for
// another. Nothing here blocks: without credits the message goes to a spill list (`spill.cuh`).
#ifndef RH_INBOX
#define RH_INBOX

namespace rh {

// Takes up to `wanted` credits, leaving `floor` of them to others; says how many it got.
RH_FN u32 take_credits(Inbox& inbox, u32 wanted, u32 floor) {
    u32 free = load_relaxed_gpu(&inbox.credits.word);
    for (;;) {
        const u32 spare = free > floor ? free - floor : 0;
        const u32 taken = spare < wanted ? spare : wanted;
        if (taken == 0) return 0;
        // Acquire, at gpu scope: pairs with the release in `give_credits`; the reader's loads of the slots that these
        // credits stand for are done before we store to them. Relaxed would let our stores overtake them.
        const u32 seen = compare_swap_acquire_gpu(&inbox.credits.word, free, free - taken);
        if (seen == free) return taken;
        free = seen;
    }
}

RH_FN void give_credits(Inbox& inbox, u32 count) {
    // Release, at gpu scope: pairs with the acquire in `take_credits`. Called by one thread after a barrier with those
    // that read the slots, and cumulative over it.
    if (count > 0) add_release_gpu(&inbox.credits.word, count);
}

// The first of so many tickets. Acquire and release, at gpu scope: writers pass tickets on in turn, so the slot of a ticket
// may have been freed for a credit that another writer took; what that one acquired with it comes along.
RH_FN u64 take_tickets(Inbox& inbox, u32 count) { return add_acquire_release_gpu(&inbox.tail.word, count); }

// Writes a message into the slot of a ticket. Each flit carries its own proof, so relaxed at gpu scope is enough; the
// loads that it pairs with are in `ready` and `read`.
RH_FN void write(const Memory& memory, u32 reader, u64 ticket, const u32* word, u32 len) {
    Flit* slot = memory.slot(reader, ticket);
    const u32 lap = lap_of(ticket, slots_of(reader));
    for (u32 i = 0; i < flits_of(len); i++) store_flit_gpu(slot + i, pack(word, i, lap));
}

// Whether the first flit of a message is there. The others follow at once: its writer waits for nothing between them.
RH_FN bool ready(const Memory& memory, u32 reader, u64 ticket) {
    // Relaxed, at gpu scope: pairs with `write`. What is read of the message is read again by `read`, flit by flit.
    return load_flit_gpu(memory.slot(reader, ticket)).word[3] == lap_of(ticket, slots_of(reader));
}

// One flit of a message whose first is there. Waits for a store that is under way.
RH_FN Flit read_flit(const Flit* slot, u32 number, u32 lap) {
    for (;;) {
        Flit flit = load_flit_gpu(slot + number);
        if (flit.word[3] == lap) return flit;
        pause(20);
    }
}

// Reads the message of a ticket that is `ready`; words behind its payload are left as they were.
RH_FN void read(const Memory& memory, u32 reader, u64 ticket, Message& message) {
    const Flit* slot = memory.slot(reader, ticket);
    const u32 lap = lap_of(ticket, slots_of(reader));
    message.word[0] = 0;
    u32 flits = 3;
    for (u32 i = 0; i < flits; i++) {
        const Flit flit = read_flit(slot, i, lap);
        for (u32 j = 0; j < 3; j++) message.word[1 + 3 * i + j] = flit.word[j];
        if (i == 2) flits = flits_of(message.header.len);
    }
}

}  // namespace rh
#endif
