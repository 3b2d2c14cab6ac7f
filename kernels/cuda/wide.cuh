// Wide actors: the block's first thread, the leader, runs the handler; when it comes to a data-parallel loop, the others,
// who wait at a barrier, run their iterations of it.
#ifndef RH_WIDE
#define RH_WIDE

namespace rh {

// What the leader asks the others for. In shared memory, of which a block of 1024 threads has no 64 bytes a thread: so each
// warp combines what its threads came to, and the leader what the warps came to.
struct alignas(16) Assist {
    // Runs this thread's iterations; null once the handler has returned.
    void (*run)(Assist& assist);
    // Iterations, and the threads that share them: whole warps, or part of the only one.
    u64 count;
    u32 threads;
    alignas(16) u8 loop[loop_bytes_max];
    alignas(16) u8 partial[warps][partial_bytes_max];
    // Of each warp, the fault of the lowest iteration that had one, and which one it was.
    Fault fault[warps];
    u64 faulted[warps];
};

// This thread's iterations of a loop: its own number, that and `threads`, and so on.
template <class Loop>
RH_OUTLINE void run_iterations(Assist& assist) {
    typedef typename Loop::Partial Partial;
    const u32 thread = thread_index(), warp = warp_index(), lane = lane_index();
    if (warp * warp_threads >= assist.threads) return;
    const Loop& loop = *reinterpret_cast<const Loop*>(assist.loop);
    Partial partial = Partial::neutral();
    Fault fault = 0;
    u64 faulted = 0;
    for (u64 i = thread; i < assist.count; i += assist.threads) {
        fault = loop.run(i, partial);
        if (fault != 0) {
            faulted = i;
            break;
        }
    }
    if constexpr (!__is_empty(Partial)) {
        Partial& all = *reinterpret_cast<Partial*>(assist.partial[warp]);
        for (u32 turn = 0; turn < warp_threads; turn++) {
            if (lane == turn) {
                if (turn == 0) all = partial;
                else all.combine(partial);
            }
            sync_warp();
        }
    }
    if (lane == 0) assist.fault[warp] = 0;
    if (ballot(fault != 0) == 0) return;
    for (u32 turn = 0; turn < warp_threads; turn++) {
        if (lane == turn && fault != 0 && (assist.fault[warp] == 0 || faulted < assist.faulted[warp])) {
            assist.fault[warp] = fault;
            assist.faulted[warp] = faulted;
        }
        sync_warp();
    }
}

// The leader's side of a loop.
template <class Loop>
RH_FN Fault assisted(Assist& assist, u32 threads, u64 count, const Loop& loop, typename Loop::Partial& into) {
    static_assert(FitsThreads<Loop>::value, "a data-parallel loop is too large to hand on");
    *reinterpret_cast<Loop*>(assist.loop) = loop;
    assist.count = count;
    assist.threads = threads < shape::threads ? threads : shape::threads;
    assist.run = run_iterations<Loop>;
    sync_apart();
    // As the others call it: what is collective in it is one piece of code for all of a warp.
    assist.run(assist);
    sync_apart();
    Fault fault = 0;
    u64 first = 0;
    for (u32 warp = 0; warp * warp_threads < assist.threads; warp++) {
        if constexpr (!__is_empty(typename Loop::Partial)) {
            into.combine(*reinterpret_cast<const typename Loop::Partial*>(assist.partial[warp]));
        }
        if (assist.fault[warp] != 0 && (fault == 0 || assist.faulted[warp] < first)) {
            fault = assist.fault[warp];
            first = assist.faulted[warp];
        }
    }
    return fault;
}

// The others' side of a handler.
RH_FN void assist_until_done(Assist& assist) {
    for (;;) {
        sync_apart();
        if (assist.run == nullptr) {
            // The leader goes on to the next actor, and asks anew, only when all have seen that this one is done.
            sync_apart();
            return;
        }
        assist.run(assist);
        sync_apart();
    }
}
// The leader's end of it.
RH_FN void done(Assist& assist) {
    assist.run = nullptr;
    sync_apart();
    sync_apart();
}

}  // namespace rh
#endif
