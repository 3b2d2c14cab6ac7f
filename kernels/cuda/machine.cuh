// What the device runtime asks of the machine: threads, barriers, votes, atomics with their scopes, 16-byte accesses,
// time. On a GPU each is an instruction; on a host `emulated.cuh` gives the same names over threads and fibers.
//
// Every collective (`sync_block`, `sync_warp`, `ballot`, `match`, `shuffle`) is called by all threads of its block or
// warp, converged. That is a rule of this runtime, stricter than the hardware's.
//
// Scopes: `_gpu` between blocks of one device, in device memory; `_sys` between the device and the host, in the
// segment. Shared memory is a block's own.
#ifndef RH_MACHINE
#define RH_MACHINE

namespace rh {

// 16 bytes that are loaded and stored at once.
struct alignas(16) Flit {
    u32 word[4];
};
static_assert(sizeof(Flit) == 16, "a flit is one access");

static constexpr u32 warp_threads = shape::threads < 32 ? shape::threads : 32;
static constexpr u32 warps = shape::threads / warp_threads;
static constexpr u32 warp_mask = warp_threads == 32 ? 0xffffffffu : (1u << warp_threads) - 1u;
static_assert(shape::threads == warps * warp_threads, "a block is whole warps, or part of one");

#ifdef __CUDACC__

#define RH_SHARED __shared__

RH_FN u32 block_index() { return blockIdx.x; }
RH_FN u32 thread_index() { return threadIdx.x; }
RH_FN void sync_block() { __syncthreads(); }
// The same for threads of one warp that come to it at different places of the code; only with each other.
RH_FN void sync_apart() { asm volatile("barrier.sync 1;" ::: "memory"); }
RH_FN void sync_warp() { __syncwarp(warp_mask); }
RH_FN u32 ballot(bool vote) { return __ballot_sync(warp_mask, vote); }
RH_FN u32 shuffle(u32 value, u32 lane) { return __shfl_sync(warp_mask, value, (int)lane); }
// The lanes whose value is this lane's.
RH_FN u32 match(u32 value) { return __match_any_sync(warp_mask, value); }
RH_FN u32 ones(u32 bits) { return (u32)__popc((int)bits); }
// The lowest bit set; there is one.
RH_FN u32 lowest(u32 bits) { return (u32)__ffs((int)bits) - 1u; }

RH_FN u64 nanoseconds() {
    u64 now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    return now;
}
RH_FN void pause(u32 ns) { __nanosleep(ns); }
// Between two passes of the control block: what it carries is for people and supervisors.
RH_FN void rest_between_passes() { __nanosleep(20000); }
// After so many rounds with nothing to do; all threads of a warp.
RH_FN void rest(u32 rounds) {
    if (rounds > 0) __nanosleep(rounds < 64 ? 20 : rounds < 4096 ? 100 : 1000);
}

#define RH_LOADS(SUFFIX, SCOPE)                                                                                    \
    RH_FN u64 load_relaxed_##SUFFIX(const u64* at) {                                                               \
        u64 value;                                                                                                 \
        asm volatile("ld.relaxed." SCOPE ".global.u64 %0, [%1];" : "=l"(value) : "l"(at) : "memory");              \
        return value;                                                                                              \
    }                                                                                                              \
    RH_FN u32 load_relaxed_##SUFFIX(const u32* at) {                                                               \
        u32 value;                                                                                                 \
        asm volatile("ld.relaxed." SCOPE ".global.u32 %0, [%1];" : "=r"(value) : "l"(at) : "memory");              \
        return value;                                                                                              \
    }                                                                                                              \
    RH_FN u64 load_acquire_##SUFFIX(const u64* at) {                                                               \
        u64 value;                                                                                                 \
        asm volatile("ld.acquire." SCOPE ".global.u64 %0, [%1];" : "=l"(value) : "l"(at) : "memory");              \
        return value;                                                                                              \
    }                                                                                                              \
    RH_FN u32 load_acquire_##SUFFIX(const u32* at) {                                                               \
        u32 value;                                                                                                 \
        asm volatile("ld.acquire." SCOPE ".global.u32 %0, [%1];" : "=r"(value) : "l"(at) : "memory");              \
        return value;                                                                                              \
    }                                                                                                              \
    RH_FN void store_relaxed_##SUFFIX(u64* at, u64 value) {                                                        \
        asm volatile("st.relaxed." SCOPE ".global.u64 [%0], %1;" ::"l"(at), "l"(value) : "memory");                \
    }                                                                                                              \
    RH_FN void store_relaxed_##SUFFIX(u32* at, u32 value) {                                                        \
        asm volatile("st.relaxed." SCOPE ".global.u32 [%0], %1;" ::"l"(at), "r"(value) : "memory");                \
    }                                                                                                              \
    RH_FN void store_release_##SUFFIX(u64* at, u64 value) {                                                        \
        asm volatile("st.release." SCOPE ".global.u64 [%0], %1;" ::"l"(at), "l"(value) : "memory");                \
    }                                                                                                              \
    RH_FN void store_release_##SUFFIX(u32* at, u32 value) {                                                        \
        asm volatile("st.release." SCOPE ".global.u32 [%0], %1;" ::"l"(at), "r"(value) : "memory");                \
    }                                                                                                              \
    RH_FN Flit load_flit_##SUFFIX(const Flit* at) {                                                                \
        u64 low, high;                                                                                             \
        asm volatile("{ .reg .b128 flit; ld.relaxed." SCOPE ".global.b128 flit, [%2]; mov.b128 {%0, %1}, flit; }"  \
                     : "=l"(low), "=l"(high)                                                                       \
                     : "l"(at)                                                                                     \
                     : "memory");                                                                                  \
        return Flit{{(u32)low, (u32)(low >> 32), (u32)high, (u32)(high >> 32)}};                                   \
    }                                                                                                              \
    RH_FN void store_flit_##SUFFIX(Flit* at, const Flit& flit) {                                                   \
        u64 low = (u64)flit.word[1] << 32 | flit.word[0], high = (u64)flit.word[3] << 32 | flit.word[2];           \
        asm volatile("{ .reg .b128 flit; mov.b128 flit, {%1, %2}; st.relaxed." SCOPE ".global.b128 [%0], flit; }"  \
                     ::"l"(at), "l"(low), "l"(high)                                                                \
                     : "memory");                                                                                  \
    }
RH_LOADS(gpu, "gpu")
RH_LOADS(sys, "sys")
#undef RH_LOADS

RH_FN u64 add_relaxed_gpu(u64* at, u64 value) {
    u64 old;
    asm volatile("atom.relaxed.gpu.global.add.u64 %0, [%1], %2;" : "=l"(old) : "l"(at), "l"(value) : "memory");
    return old;
}
RH_FN u32 add_release_gpu(u32* at, u32 value) {
    u32 old;
    asm volatile("atom.release.gpu.global.add.u32 %0, [%1], %2;" : "=r"(old) : "l"(at), "r"(value) : "memory");
    return old;
}
RH_FN u64 add_acquire_release_gpu(u64* at, u64 value) {
    u64 old;
    asm volatile("atom.acq_rel.gpu.global.add.u64 %0, [%1], %2;" : "=l"(old) : "l"(at), "l"(value) : "memory");
    return old;
}
RH_FN u32 compare_swap_acquire_gpu(u32* at, u32 expected, u32 desired) {
    u32 old;
    asm volatile("atom.acquire.gpu.global.cas.b32 %0, [%1], %2, %3;"
                 : "=r"(old)
                 : "l"(at), "r"(expected), "r"(desired)
                 : "memory");
    return old;
}

// In shared memory, between the threads of a block.
RH_FN u32 add_shared(u32* at, u32 value) { return atomicAdd(at, value); }
RH_FN u64 add_shared(u64* at, u64 value) { return atomicAdd(at, value); }
RH_FN u64 max_shared(u64* at, u64 value) { return atomicMax(at, value); }
RH_FN u32 exchange_shared(u32* at, u32 value) { return atomicExch(at, value); }
// In device memory, between the threads of a block: what was stored before is seen by whoever gets the value.
RH_FN u32 exchange_block(u32* at, u32 value) {
    u32 old;
    asm volatile("atom.acq_rel.cta.global.exch.b32 %0, [%1], %2;" : "=r"(old) : "l"(at), "r"(value) : "memory");
    return old;
}

#endif

}  // namespace rh
#endif
