// The machine of `machine.cuh` on a host: a block is a thread, a block's threads are fibers on it that take turns at
// barriers and votes, so that a warp's lanes go in lock step from one to the next.
//
// Under ThreadSanitizer every fiber counts as a thread of its own, and only barriers, votes and atomics order them: what a
// GPU's threads could race on is reported here. One thing is stronger than on a GPU: a flit is stored as three words and then,
// with release, its lap, for a host compiler has no 16-byte access that the sanitizers know.
#ifndef RH_EMULATED
#define RH_EMULATED
#ifndef __CUDACC__

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <ucontext.h>
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#define RH_EXPORT extern "C" __attribute__((visibility("default")))

// How far the device's clock is ahead of the host's. A test sets it while the device runs: clocks are set, and run wrong.
RH_EXPORT unsigned long long rh_clock_ahead_ns = 0;

// What the threads of a block share: the emulator gives each block its own.
#define RH_SHARED static thread_local
// The scheduler is not part of what is tested, and its words are the block's thread's alone.
#define RH_SCHEDULER __attribute__((noinline, no_sanitize("thread")))

namespace rh {
namespace emulated {

#if defined(__SANITIZE_ADDRESS__)
// AddressSanitizer clears what it knows of a whole stack at every switch.
static constexpr u64 stack_bytes = 64 * 1024;
#else
static constexpr u64 stack_bytes = 1024 * 1024;
#endif

struct Fiber {
    ucontext_t context;
    void* stack;
    void* sanitizer;
    bool done;
};

struct Barrier {
    u32 arrived;
    u32 generation;
    // What ThreadSanitizer knows it by: two in turn, so that who leaves late is not ordered after who has come again.
    u8 known[2];
};

struct Block {
    u32 index;
    void (*body)(const void*);
    const void* argument;
    Fiber fiber[shape::threads];
    Fiber origin;
    u32 current;
    u32 live;
    Barrier all;
    Barrier warp[warps];
    // Two, used in turn: nobody is two collectives ahead of anybody.
    u32 said[2][shape::threads];
    u8 turn[shape::threads];
};
static thread_local Block* block = nullptr;

RH_SCHEDULER static void switch_fiber(Fiber& from, Fiber& to) {
#if defined(__SANITIZE_THREAD__)
    __tsan_switch_to_fiber(to.sanitizer, __tsan_switch_to_fiber_no_sync);
#endif
#if defined(__SANITIZE_ADDRESS__)
    void* fake = nullptr;
    const bool home = &to == &block->origin;
    __sanitizer_start_switch_fiber(from.done ? nullptr : &fake, home ? block->origin.stack : to.stack, stack_bytes);
#endif
    swapcontext(&from.context, &to.context);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

// Lets the next thread of these run that has not ended.
RH_SCHEDULER static void yield_among(u32 first, u32 count) {
    Block& b = *block;
    const u32 me = b.current;
    for (u32 step = 1; step <= count; step++) {
        const u32 next = first + (me - first + step) % count;
        if (next == me) return;
        if (!b.fiber[next].done) {
            b.current = next;
            return switch_fiber(b.fiber[me], b.fiber[next]);
        }
    }
}

RH_SCHEDULER static void wait_at(Barrier& barrier, u32 first, u32 count) {
    const u32 generation = barrier.generation;
#if defined(__SANITIZE_THREAD__)
    __tsan_release(&barrier.known[generation & 1]);
#endif
    if (++barrier.arrived == count) {
        barrier.arrived = 0;
        barrier.generation++;
    } else {
        while (barrier.generation == generation) yield_among(first, count);
    }
#if defined(__SANITIZE_THREAD__)
    __tsan_acquire(&barrier.known[generation & 1]);
#endif
}

RH_SCHEDULER static u32 me() { return block->current; }
RH_SCHEDULER static u32 warp_first() { return block->current / warp_threads * warp_threads; }

// Where this warp's words of this collective are, with one's own said and everybody's arrived.
RH_SCHEDULER static const u32* say(u32 word) {
    Block& b = *block;
    const u32 self = b.current, turn = b.turn[self] ^= 1;
    b.said[turn][self] = word;
    const u32 first = self / warp_threads * warp_threads;
    if (warp_threads > 1) wait_at(b.warp[self / warp_threads], first, warp_threads);
    return b.said[turn] + first;
}

RH_SCHEDULER static u32 heard(const u32* words, u32 lane) { return words[lane]; }

RH_SCHEDULER static void fiber_main() {
    Block& b = *block;
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
    b.body(b.argument);
    Fiber& self = b.fiber[b.current];
    self.done = true;
    if (--b.live == 0) switch_fiber(self, b.origin);
    yield_among(0, shape::threads);
}

RH_SCHEDULER static void* block_main(void* argument) {
    Block& b = *(block = (Block*)argument);
    if (shape::threads == 1) {
        b.body(b.argument);
        return nullptr;
    }
    b.live = shape::threads;
#if defined(__SANITIZE_THREAD__)
    b.origin.sanitizer = __tsan_get_current_fiber();
#endif
#if defined(__SANITIZE_ADDRESS__)
    // Only its presence matters to the sanitizer: the thread's own stack is never left for good.
    pthread_attr_t attributes;
    size_t size;
    pthread_getattr_np(pthread_self(), &attributes);
    pthread_attr_getstack(&attributes, &b.origin.stack, &size);
    pthread_attr_destroy(&attributes);
#endif
    for (Fiber& fiber : b.fiber) {
        fiber.stack = mmap(nullptr, stack_bytes, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
        if (fiber.stack == MAP_FAILED) {
            perror("the emulated device has no memory for a stack");
            abort();
        }
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack;
        fiber.context.uc_stack.ss_size = stack_bytes;
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, fiber_main, 0);
#if defined(__SANITIZE_THREAD__)
        fiber.sanitizer = __tsan_create_fiber(0);
#endif
    }
    b.current = 0;
    switch_fiber(b.origin, b.fiber[0]);
    for (Fiber& fiber : b.fiber) {
#if defined(__SANITIZE_THREAD__)
        __tsan_destroy_fiber(fiber.sanitizer);
#endif
#if defined(__SANITIZE_ADDRESS__)
        // A fiber's frames are never left; the next to get these addresses is not to be told of them.
        __asan_unpoison_memory_region(fiber.stack, stack_bytes);
#endif
        munmap(fiber.stack, stack_bytes);
    }
    return nullptr;
}

// Runs `body` on the argument once for each thread of each of so many blocks, as a launch does, and returns when all have ended.
static void launch(u32 blocks, void (*body)(const void*), const void* argument) {
    Block* all = (Block*)calloc(blocks, sizeof(Block));
    pthread_t* threads = (pthread_t*)calloc(blocks, sizeof(pthread_t));
    for (u32 i = 0; i < blocks; i++) {
        all[i].index = i;
        all[i].body = body;
        all[i].argument = argument;
        if (pthread_create(&threads[i], nullptr, block_main, &all[i]) != 0) {
            perror("the emulated device cannot start a thread");
            abort();
        }
    }
    for (u32 i = 0; i < blocks; i++) pthread_join(threads[i], nullptr);
    free(threads);
    free(all);
}

}  // namespace emulated

RH_SCHEDULER static u32 block_index() { return emulated::block->index; }
RH_FN u32 thread_index() { return shape::threads == 1 ? 0 : emulated::me(); }
RH_FN void sync_block() {
    if (shape::threads > 1) emulated::wait_at(emulated::block->all, 0, shape::threads);
}
RH_FN void sync_apart() { sync_block(); }
RH_FN void sync_warp() {
    if (warp_threads > 1) {
        const u32 first = emulated::warp_first();
        emulated::wait_at(emulated::block->warp[first / warp_threads], first, warp_threads);
    }
}
RH_FN u32 ballot(bool vote) {
    const u32* words = emulated::say(vote);
    u32 bits = 0;
    for (u32 lane = 0; lane < warp_threads; lane++) bits |= emulated::heard(words, lane) << lane;
    return bits;
}
RH_FN u32 shuffle(u32 value, u32 lane) { return emulated::heard(emulated::say(value), lane); }
RH_FN u32 match(u32 value) {
    const u32* words = emulated::say(value);
    u32 bits = 0;
    for (u32 lane = 0; lane < warp_threads; lane++) bits |= (u32)(emulated::heard(words, lane) == value) << lane;
    return bits;
}
RH_FN u32 ones(u32 bits) { return (u32)__builtin_popcount(bits); }
RH_FN u32 lowest(u32 bits) { return (u32)__builtin_ctz(bits); }

RH_FN u64 nanoseconds() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (u64)now.tv_sec * 1000000000ull + (u64)now.tv_nsec + __atomic_load_n(&rh_clock_ahead_ns, __ATOMIC_RELAXED);
}
// A thread that waits lets the others of its block go on, and other blocks.
RH_FN void pause(u32) {
    if (shape::threads > 1) emulated::yield_among(0, shape::threads);
    sched_yield();
}
// After so many rounds with nothing to do: an emulated device at rest uses next to nothing of the processor.
RH_FN void rest(u32 rounds) {
    if (thread_index() != 0 || rounds == 0) return;
    if (rounds < 64) {
        sched_yield();
        return;
    }
    const timespec length = {0, rounds < 256 ? 50000 : 1000000};
    nanosleep(&length, nullptr);
}
RH_FN void rest_between_passes() { rest(5000); }

#define RH_LOADS(SUFFIX)                                                                                              \
    RH_FN u64 load_relaxed_##SUFFIX(const u64* at) { return __atomic_load_n(at, __ATOMIC_RELAXED); }                  \
    RH_FN u32 load_relaxed_##SUFFIX(const u32* at) { return __atomic_load_n(at, __ATOMIC_RELAXED); }                  \
    RH_FN u64 load_acquire_##SUFFIX(const u64* at) { return __atomic_load_n(at, __ATOMIC_ACQUIRE); }                  \
    RH_FN u32 load_acquire_##SUFFIX(const u32* at) { return __atomic_load_n(at, __ATOMIC_ACQUIRE); }                  \
    RH_FN void store_relaxed_##SUFFIX(u64* at, u64 value) { __atomic_store_n(at, value, __ATOMIC_RELAXED); }          \
    RH_FN void store_relaxed_##SUFFIX(u32* at, u32 value) { __atomic_store_n(at, value, __ATOMIC_RELAXED); }          \
    RH_FN void store_release_##SUFFIX(u64* at, u64 value) { __atomic_store_n(at, value, __ATOMIC_RELEASE); }          \
    RH_FN void store_release_##SUFFIX(u32* at, u32 value) { __atomic_store_n(at, value, __ATOMIC_RELEASE); }          \
    RH_FN Flit load_flit_##SUFFIX(const Flit* at) {                                                                   \
        Flit flit;                                                                                                    \
        flit.word[3] = __atomic_load_n(&at->word[3], __ATOMIC_ACQUIRE);                                               \
        for (u32 i = 0; i < 3; i++) flit.word[i] = __atomic_load_n(&at->word[i], __ATOMIC_RELAXED);                   \
        return flit;                                                                                                  \
    }                                                                                                                 \
    RH_FN void store_flit_##SUFFIX(Flit* at, const Flit& flit) {                                                      \
        for (u32 i = 0; i < 3; i++) __atomic_store_n(&at->word[i], flit.word[i], __ATOMIC_RELAXED);                   \
        __atomic_store_n(&at->word[3], flit.word[3], __ATOMIC_RELEASE);                                               \
    }
RH_LOADS(gpu)
RH_LOADS(sys)
#undef RH_LOADS

RH_FN u64 add_relaxed_gpu(u64* at, u64 value) { return __atomic_fetch_add(at, value, __ATOMIC_RELAXED); }
RH_FN u64 add_acquire_release_gpu(u64* at, u64 value) { return __atomic_fetch_add(at, value, __ATOMIC_ACQ_REL); }
RH_FN u32 add_release_gpu(u32* at, u32 value) { return __atomic_fetch_add(at, value, __ATOMIC_RELEASE); }
RH_FN u32 compare_swap_acquire_gpu(u32* at, u32 expected, u32 desired) {
    __atomic_compare_exchange_n(at, &expected, desired, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
    return expected;
}
RH_FN u32 add_shared(u32* at, u32 value) { return __atomic_fetch_add(at, value, __ATOMIC_RELAXED); }
RH_FN u64 add_shared(u64* at, u64 value) { return __atomic_fetch_add(at, value, __ATOMIC_RELAXED); }
RH_FN u64 max_shared(u64* at, u64 value) {
    u64 old = __atomic_load_n(at, __ATOMIC_RELAXED);
    while (old < value && !__atomic_compare_exchange_n(at, &old, value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    return old;
}
RH_FN u32 exchange_shared(u32* at, u32 value) { return __atomic_exchange_n(at, value, __ATOMIC_RELAXED); }
RH_FN u32 exchange_block(u32* at, u32 value) { return __atomic_exchange_n(at, value, __ATOMIC_ACQ_REL); }

}  // namespace rh
#endif
#endif
