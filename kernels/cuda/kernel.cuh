// The ring kernel: one launch, which returns when the node has asked it to stop, or when it has failed.
//
// Blocks: the workers, then one for control, then an ingress block for each lane of the segment, then the egress blocks.
// All are resident at once (the launch is cooperative), for they wait for each other.
#ifndef RH_KERNEL
#define RH_KERNEL

namespace rh {

static constexpr u32 blocks = shape::workers + 1 + 2 * shape::lanes;

RH_SHARED WorkerShared worker_shared;
RH_SHARED IoShared io_shared;
static_assert(sizeof(WorkerShared) + sizeof(IoShared) <= 48 * 1024, "a block may have 48 KiB of shared memory without asking");

RH_FN void ring_kernel(const Memory& memory, u64 epoch_offset_ns) {
    const u32 block = block_index();
    if (block < shape::workers) {
        Worker(memory, worker_shared, block).set_up();
    } else if (block == shape::workers) {
        // Relaxed, at sys scope: the table was written before the kernel was started, two shards in each word.
        const u32* from = memory.host<u32>(shape::segment_owners);
        for (u32 i = thread_index(); i < 2048; i += shape::threads) memory.at<u32>(arena::owners)[i] = load_relaxed_sys(from + i);
        // Relaxed, at sys scope: written before the kernel was started, as all words that are read here.
        const u64* const suspects = memory.host<u64>(shape::segment_suspects);
        for (u32 i = thread_index(); i < suspects_max * sizeof(Suspect) / 8; i += shape::threads) {
            memory.at<u64>(arena::suspects)[i] = load_relaxed_sys(suspects + 1 + i);
        }
        if (thread_index() == 0) {
            const u64 count = load_relaxed_sys(suspects);
            memory.control().suspects = count % shape::careful < suspects_max ? count % shape::careful : suspects_max;
            memory.control().careful_until_ns = (count & shape::careful) != 0 ? nanoseconds() + careful_ns : 0;
            memory.control().keeps = load_relaxed_sys(memory.host<u32>(shape::segment_node + node_restores)) != 0;
            memory.control().epoch = load_relaxed_sys(memory.host<u64>(shape::segment_node + node_epoch));
            memory.control().epoch_offset_ns.word = epoch_offset_ns;
            // Until the first pass of this block has seen whether the host keeps the clock.
            memory.control().wishes.word = wish::stand_still;
        }
        for (u32 lane = thread_index(); lane < shape::lanes; lane += shape::threads) {
            memory.inbox(shape::workers + lane).credits.word = shape::egress_slots;
        }
    }
    sync_block();
    if (thread_index() == 0) {
        u32* const started = &memory.control().started.word;
        // Release, then acquire, at gpu scope: whoever has counted all blocks sees what each has set up.
        add_release_gpu(started, 1);
        while (load_acquire_gpu(started) < blocks) pause(100);
    }
    sync_block();
    if (block < shape::workers) run_worker(memory, worker_shared, block);
    else if (block == shape::workers) run_control(memory, io_shared);
    else if (block < shape::workers + 1 + shape::lanes) run_ingress(memory, io_shared, block - shape::workers - 1);
    else run_egress(memory, io_shared, block - shape::workers - 1 - shape::lanes);
}

}  // namespace rh

#ifdef __CUDACC__

// How much device memory a launch needs: read by the host before it.
extern "C" __device__ const unsigned long long rh_arena_bytes = rh::arena::bytes;

extern "C" __global__ void __launch_bounds__(rh::shape::threads, 1)
rh_ring_kernel(unsigned char* arena, unsigned char* segment, unsigned long long epoch_offset_ns) {
    rh::ring_kernel(rh::Memory{arena, segment}, epoch_offset_ns);
}

#else

// Runs the kernel over an arena of its own. Returns 0 when it has ended, or an errno where there is no memory for it.
RH_EXPORT int rh_ring_kernel(unsigned char* segment, unsigned long long epoch_offset_ns) {
    struct Arguments {
        rh::Memory memory;
        rh::u64 epoch_offset_ns;
    };
    // Zero, and taken from the system as it is touched.
    void* arena = mmap(nullptr, rh::arena::bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (arena == MAP_FAILED) return errno;
    const Arguments arguments{rh::Memory{static_cast<rh::u8*>(arena), segment}, epoch_offset_ns};
    const auto body = [](const void* argument) {
        const Arguments& given = *static_cast<const Arguments*>(argument);
        rh::ring_kernel(given.memory, given.epoch_offset_ns);
    };
    rh::emulated::launch(rh::blocks, body, &arguments);
    munmap(arena, rh::arena::bytes);
    return 0;
}

#endif
#endif
