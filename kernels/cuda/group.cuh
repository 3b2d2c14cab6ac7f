// The threads that work together on one batch: a whole block, or its first warp alone while the others wait.
#ifndef RH_GROUP
#define RH_GROUP

namespace rh {

struct BlockGroup {
    static constexpr u32 size = shape::threads;
    static constexpr bool whole = true;
    RH_FN_MEMBER void sync() { sync_block(); }
};
struct WarpGroup {
    static constexpr u32 size = warp_threads;
    static constexpr bool whole = false;
    RH_FN_MEMBER void sync() { sync_warp(); }
};

RH_FN u32 lane_index() { return thread_index() % warp_threads; }
RH_FN u32 warp_index() { return thread_index() / warp_threads; }

// How many threads from the first on say yes without a gap. `words` is shared, one for each warp.
template <class Group>
RH_FN u32 leading(bool yes, u32* words) {
    const u32 votes = ballot(yes);
    const u32 run = votes == warp_mask ? warp_threads : lowest(~votes);
    if constexpr (Group::size == warp_threads) {
        // A vote orders no memory.
        Group::sync();
        return run;
    }
    if (lane_index() == 0) words[warp_index()] = run;
    Group::sync();
    u32 count = 0;
    for (u32 i = 0; i < warps; i++) {
        count += words[i];
        if (words[i] < warp_threads) break;
    }
    Group::sync();
    return count;
}

// Whether any thread says yes. `word` is shared.
template <class Group>
RH_FN bool any(bool yes, u32* word) {
    const bool mine = ballot(yes) != 0;
    if constexpr (Group::size == warp_threads) {
        Group::sync();
        return mine;
    }
    if (thread_index() == 0) *word = 0;
    Group::sync();
    if (mine && lane_index() == 0) exchange_shared(word, 1u);
    Group::sync();
    const bool result = *word != 0;
    Group::sync();
    return result;
}

}  // namespace rh
#endif
