// Messages that may have ended a host: which of them are not to be run again, and what is said of one that is run.
// `kernels/src/suspects.rs` has the other end of it.
#ifndef RH_SUSPECTS
#define RH_SUSPECTS

namespace rh {

// What a message is, but for its stamp; 0 only for a tell that had been put aside and is sent again, as `Header::is_sent_again` of
// `message.rs` has it. FNV-1a, as `hash_of` of `suspects.rs`.
RH_FN u64 hash_of(const Message& message) {
    if (message.header.kind == tell && message.header.reason == poison) return 0;
    u64 hash = 0xcbf29ce484222325ull;
    const auto add = [&](u8 byte) { hash = (hash ^ byte) * 0x100000001b3ull; };
    for (u32 i = 0; i < 8; i++) add((u8)(message.header.from_key >> 8 * i));
    for (u32 i = 0; i < 4; i++) add((u8)(message.header.from_type >> 8 * i));
    add(message.header.kind);
    for (u32 i = 0; i < message.header.len; i++) add(message.payload()[i]);
    return hash == 0 ? 1 : hash;
}

// How long a device is careful after one that ended by its own fault. What ended that comes again soon, or is no message that the
// node sends again.
static constexpr u64 careful_ns = 10000000000ull;

// Tells the host the message in hand, before it is run: what ends the kernel then is known. Only while the device is careful, for
// it takes a trip over PCIe; the one case in which a worker touches host memory.
RH_OUTLINE void say_hand(const Memory& memory, u32 worker, const Hand& hand) {
    u64* const to = memory.host_worker(worker, 384);
    // Relaxed, at sys scope: read once the host is dead. The last acts as a release for those before.
    store_relaxed_sys(to + 1, hand.key);
    store_relaxed_sys(to + 21, hand.hlc);
    store_relaxed_sys(to + 22, hand.hash);
    store_relaxed_sys(reinterpret_cast<u32*>(to) + 1, (u32)hand.type);
    store_release_sys(reinterpret_cast<u32*>(to), 2u);
}

// Whether the message ended two hosts. Where it is for an actor of which a message was suspected, says which it is.
RH_OUTLINE bool is_condemned(const Memory& memory, u64 count, const Message& message, Hand& hand) {
    const Suspect* suspects = memory.at<Suspect>(arena::suspects);
    const Header& header = message.header;
    u64 hash = 0;
    bool condemned = false;
    for (u64 i = 0; i < count; i++) {
        const Suspect& suspect = suspects[i];
        if (suspect.key != header.to_key || suspect.type != header.to_type) continue;
        if (hash == 0) hash = hash_of(message);
        const bool same = (suspect.hlc != 0 && suspect.hlc == header.hlc) || (suspect.hash != 0 && suspect.hash == hash);
        condemned |= suspect.condemned != 0 && same;
    }
    // Relaxed, at gpu scope: as the rest of the hand.
    store_relaxed_gpu(&hand.hash, hash);
    return condemned;
}

}  // namespace rh
#endif
