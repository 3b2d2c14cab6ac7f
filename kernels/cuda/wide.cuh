// Wide actors: the block's first thread, the leader, runs the handler; when it comes to a data-parallel loop, the others,
// who wait at a barrier, run their iterations of it.
#ifndef RH_WIDE
#define RH_WIDE

namespace rh {

// What the leader asks the others for. In shared memory.
struct alignas(16) Assist {
    // Runs this thread's iterations; null once the handler has returned.
    void (*run)(Assist& assist, u32 thread);
    // Iterations, and the threads that share them.
    u64 count;
    u32 threads;
    alignas(16) u8 loop[loop_bytes_max];
    alignas(16) u8 partial[shape::threads][partial_bytes_max];
    // Of each thread, the first fault among its iterations and which one it was.
    Fault fault[shape::threads];
    u64 faulted[shape::threads];
};

// The iterations `thread`, `thread + threads`, … of a loop.
template <class Loop>
RH_OUTLINE void run_iterations(Assist& assist, u32 thread) {
    typedef typename Loop::Partial Partial;
    const Loop& loop = *reinterpret_cast<const Loop*>(assist.loop);
    Partial partial = Partial::neutral();
    assist.fault[thread] = 0;
    if (thread < assist.threads) {
        for (u64 i = thread; i < assist.count; i += assist.threads) {
            const Fault fault = loop.run(i, partial);
            if (fault != 0) {
                assist.fault[thread] = fault;
                assist.faulted[thread] = i;
                break;
            }
        }
    }
    *reinterpret_cast<Partial*>(assist.partial[thread]) = partial;
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
    run_iterations<Loop>(assist, 0);
    sync_apart();
    Fault fault = 0;
    u64 first = 0;
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
        sync_apart();
        if (assist.run == nullptr) {
            // The leader goes on to the next actor, and asks anew, only when all have seen that this one is done.
            sync_apart();
            return;
        }
        assist.run(assist, thread_index());
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
