// A message in a slot: 12 bytes of it in each flit, and the lap of the ring in the flit's last word.
//
// Every flit proves its own arrival: a reader that finds the lap it waits for in a flit has that flit's 12 bytes, because
// the 16 are one access. So nothing but relaxed accesses is needed, of the scope of the ring's two ends, and a message
// crosses PCIe in one trip. `kernels/src/flit.rs` is the host's end of the same framing.
#ifndef RH_FLIT
#define RH_FLIT

namespace rh {

// What every message starts with; `Header` of `kernels/src/message.rs`.
struct Header {
    u32 lap;
    u16 len;
    u8 kind;
    u8 reason;
    u64 to_key;
    u32 to_type;
    u32 from_type;
    u64 from_key;
    u64 hlc;
};
static_assert(sizeof(Header) == 40 && alignof(Header) == 8, "layout of Header");
static_assert(RH_OFFSET(Header, len) == 4 && RH_OFFSET(Header, to_key) == 8 && RH_OFFSET(Header, to_type) == 16 &&
                  RH_OFFSET(Header, from_key) == 24 && RH_OFFSET(Header, hlc) == 32,
              "layout of Header");

enum Kind : u8 { tell = 1, ask = 2, answer = 3, error = 4, dead_letter = 5, inspect = 6, inspected = 7 };

enum Reason : u8 {
    unknown_type = 1,
    malformed = 2,
    too_large = 3,
    fault_division_by_zero = 4,
    fault_index_out_of_bounds = 5,
    fault_clamp_bounds = 6,
    no_reply = 7,
    stopping = 12,
    no_actor = 13,
    wrong_type = 15,
    device_out_of_memory = 16,
    poison = 19,
    overloaded = 20,
};

static constexpr u32 slot_flits = shape::slot_bytes / 16;
// The header without its lap word, which the flits carry, is the first three flits.
static constexpr u32 header_bytes = 36;
static constexpr u32 payload_bytes_max = slot_flits * 12 - header_bytes;
static constexpr u32 message_words_max = (40 + payload_bytes_max + 7) / 8 * 2;
static_assert(slot_flits >= 4, "a slot holds a header and something");

// A whole message, contiguous: the header with its lap word zero, then the payload, as wide as a slot allows.
struct alignas(8) Message {
    union {
        Header header;
        u32 word[message_words_max];
    };
    RH_MEMBER u8* payload() { return reinterpret_cast<u8*>(word + 10); }
    RH_MEMBER const u8* payload() const { return reinterpret_cast<const u8*>(word + 10); }
};

// Flits that a message of so many payload bytes takes.
RH_FN u32 flits_of(u32 len) { return (header_bytes + len + 11) / 12; }

// The lap that marks the message with this index in a ring of so many slots; a power of two. It wraps after 2^32 rounds. The
// flits of a header are stored in every round, so a stale one is behind by 1. A later flit is stored only by a message that
// reaches it: it would be taken for a fresh one if it was last stored exactly 2^32 rounds ago, and then only where a reader
// comes between two stores of one message.
RH_FN u32 lap_of(u64 index, u32 slots) { return (u32)(index / slots) + 1u; }

// The flit `number` of a message: words 1 + 3n, 2 + 3n, 3 + 3n of it, for word 0 is the lap.
RH_FN Flit pack(const u32* word, u32 number, u32 lap) {
    const u32* from = word + 1 + 3 * number;
    // The last flit of the longest message ends inside its padding.
    return Flit{{from[0], from[1], from[2], lap}};
}

}  // namespace rh
#endif
