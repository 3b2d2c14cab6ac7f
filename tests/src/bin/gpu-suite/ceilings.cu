// What the GPU itself can do, with nothing of Ringhold on it. Arguments are 8 bytes each.

typedef unsigned int u32;
typedef unsigned long long u64;

__device__ u64 cycles() {
    u64 now;
    asm volatile("mov.u64 %0, %%clock64;" : "=l"(now)::"memory");
    return now;
}
__device__ u64 nanoseconds() {
    u64 now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now)::"memory");
    return now;
}
// Of scope gpu they go past the multiprocessor's own cache, to that of all.
__device__ u64 load_gpu(const u64* at) {
    u64 value;
    asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(value) : "l"(at) : "memory");
    return value;
}
__device__ void store_gpu(u64* at, u64 value) {
    asm volatile("st.relaxed.gpu.global.u64 [%0], %1;" ::"l"(at), "l"(value) : "memory");
}
__device__ u64 load_sys(const u64* at) {
    u64 value;
    asm volatile("ld.relaxed.sys.global.u64 %0, [%1];" : "=l"(value) : "l"(at) : "memory");
    return value;
}
__device__ void store_sys(u64* at, u64 value) {
    asm volatile("st.relaxed.sys.global.u64 [%0], %1;" ::"l"(at), "l"(value) : "memory");
}

// Copies `count` times 16 bytes, and that `rounds` times.
extern "C" __global__ void suite_copy(const uint4* from, uint4* to, u64 count, u64 rounds) {
    const u64 step = (u64)gridDim.x * blockDim.x, first = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    for (u64 round = 0; round < rounds; round++) {
        for (u64 i = first; i < count; i += step) to[i] = from[i];
    }
}

// One thread follows addresses through `count` words, a power of two, which stay in the cache: `steps` loads for each of the
// samples. `out` has the cycles of a sample, and before them the cycles and nanoseconds that all took.
extern "C" __global__ void suite_chase(u64* words, u64 count, u64 steps, u64* out, u64 samples) {
    // Every word once before the first comes again: Hull and Dobell, "Random number generators", 1962.
    for (u64 i = 0; i < count; i++) store_gpu(words + i, (u64)(words + ((i * 1664525u + 1013904223u) & (count - 1))));
    const u64* at = words;
    for (u64 i = 0; i < count; i++) at = (const u64*)load_gpu(at);
    const u64 began = cycles(), began_ns = nanoseconds();
    for (u64 sample = 0; sample < samples; sample++) {
        const u64 before = cycles();
        for (u64 i = 0; i < steps; i++) at = (const u64*)load_gpu(at);
        // The clock is not read before the last load is there.
        const u64 took = cycles() - before + (at == nullptr);
        store_sys(out + 2 + sample, took);
    }
    store_sys(out, cycles() - began);
    store_sys(out + 1, nanoseconds() - began_ns);
}

// Two blocks of one thread, on two multiprocessors: the first raises a flag, the second answers with another. `out` as above.
extern "C" __global__ void suite_flags(u64* flags, u64* out, u64 samples) {
    if (blockIdx.x != 0) {
        for (u64 sample = 1; sample <= samples; sample++) {
            while (load_gpu(flags) != sample) {}
            store_gpu(flags + 16, sample);
        }
        return;
    }
    const u64 began = cycles(), began_ns = nanoseconds();
    for (u64 sample = 1; sample <= samples; sample++) {
        const u64 before = cycles();
        store_gpu(flags, sample);
        while (load_gpu(flags + 16) != sample) {}
        store_sys(out + 1 + sample, cycles() - before);
    }
    store_sys(out, cycles() - began);
    store_sys(out + 1, nanoseconds() - began_ns);
}

// The host raises a flag in its memory, one thread answers with another there.
extern "C" __global__ void suite_bounce(u64* flags, u64 samples) {
    for (u64 sample = 1; sample <= samples; sample++) {
        while (load_sys(flags) != sample) {}
        store_sys(flags + 16, sample);
    }
}
