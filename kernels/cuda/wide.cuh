// Wide actors: the block's first thread, the leader, runs the handler; when it comes to a data-parallel loop, the others,
// who wait at a barrier, run their iterations of it.
#ifndef RH_WIDE
#define RH_WIDE

namespace rh {

static constexpr u32 loop_bytes_max = 512;
static constexpr u32 partial_bytes_max = 64;

// What the leader asks the others for. In shared memory.
struct alignas(16) Assist {
    // Runs this thread's iterations; null once the handler has returned.
    void (*run)(Assist& assist, u32 thread);
    i64 low;
    i64 high;
    u32 threads;
    alignas(16) u8 loop[loop_bytes_max];
    alignas(16) u8 partial[shape::threads][partial_bytes_max];
    // Of each thread, the first fault among its iterations and which one it was.
    Fault fault[shape::threads];
    i64 faulted[shape::threads];
};

// The iterations `thread`, `thread + threads`, … of a loop.
template <class Loop>
RH_OUTLINE void run_iterations(Assist& assist, u32 thread) {
    typedef typename Loop::Partial Partial;
    const Loop& loop = *reinterpret_cast<const Loop*>(assist.loop);
    Partial partial = Partial::neutral();
    assist.fault[thread] = 0;
    if (thread < assist.threads) {
        // Unsigned: the difference of two i64 always fits.
        const u64 count = assist.high > assist.low ? (u64)assist.high - (u64)assist.low : 0;
        for (u64 i = thread; i < count; i += assist.threads) {
            const i64 at = (i64)((u64)assist.low + i);
            const Fault fault = loop.run(at, partial);
            if (fault != 0) {
                assist.fault[thread] = fault;
                assist.faulted[thread] = at;
                break;
            }
        }
    }
    *reinterpret_cast<Partial*>(assist.partial[thread]) = partial;
}

// The leader's side of a loop.
template <class Loop>
RH_FN Fault assisted(Assist& assist, u32 threads, i64 low, i64 high, const Loop& loop, typename Loop::Partial& into) {
    static_assert(sizeof(Loop) <= loop_bytes_max, "a data-parallel loop reads too many values from around it");
    static_assert(sizeof(typename Loop::Partial) <= partial_bytes_max, "a data-parallel loop has too many reductions");
    *reinterpret_cast<Loop*>(assist.loop) = loop;
    assist.low = low;
    assist.high = high;
    assist.threads = threads < shape::threads ? threads : shape::threads;
    assist.run = run_iterations<Loop>;
    sync_block();
    run_iterations<Loop>(assist, 0);
    sync_block();
    Fault fault = 0;
    i64 first = 0;
    for (u32 thread = 0; thread < assist.threads; thread++) {
        into.combine(*reinterpret_cast<const typename Loop::Partial*>(assist.partial[thread]));
        if (assist.fault[thread] != 0 && (fault == 0 || assist.faulted[thread] < first)) {
            fault = assist.fault[thread];
            first = assist.faulted[thread];
        }
    }
    return fault;
}

// The others' side of a handler.
RH_FN void assist_until_done(Assist& assist) {
    for (;;) {
        sync_block();
        if (assist.run == nullptr) return;
        assist.run(assist, thread_index());
        sync_block();
    }
}
// The leader's end of it.
RH_FN void done(Assist& assist) {
    assist.run = nullptr;
    sync_block();
}

}  // namespace rh
#endif
