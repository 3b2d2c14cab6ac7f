// What runs a handler in the differential tests: a context that writes down all that is done through it.
// It stands behind the headers and the actors, and before a `RUN` for each actor. It also compiles as CUDA, so
// that every handler is instantiated there too.

#ifdef __CUDACC__
#define RECORDER_FN __device__
#define ENTRY extern "C" __global__
#else
#define RECORDER_FN
#define ENTRY extern "C" __attribute__((visibility("default")))
#endif

struct Recorder {
    rh::ActorId self;
    rh::ActorId from;
    rh::u64 stamp;
    rh::u8* bytes;
    rh::u64 capacity;
    rh::u64 length;
    rh::u32 replies;
    rh::u32 stopped;
    rh::u32 width;
    rh::u32 reserved;

    RECORDER_FN rh::ActorId id() const { return self; }
    RECORDER_FN rh::ActorId sender() const { return from; }
    RECORDER_FN rh::u64 now() const { return stamp; }

    // `length` goes past `capacity` where there is no room, which the reader notices. Records begin at multiples
    // of eight, as bytes on a device must.
    RECORDER_FN rh::u8* take(rh::u64 size) {
        rh::u8* at = bytes + length;
        length += (size + 7) / 8 * 8;
        if (length > capacity) return nullptr;
        for (rh::u64 i = 0; i < size; i++) at[i] = 0;
        return at;
    }

    template <class T>
    RECORDER_FN void record(rh::u64 delay_us, rh::ActorId to, rh::u32 type, const T& value) {
        // Size, type, delay, where to, and the bytes.
        if (rh::u8* at = take(32 + T::size)) {
            rh::put<rh::u32>(at, T::size);
            rh::put<rh::u32>(at + 4, type);
            rh::put<rh::u64>(at + 8, delay_us);
            rh::store(at + 16, to);
            store(at + 32, value);
        }
    }

    template <class M>
    RECORDER_FN void send(rh::u64 delay_us, rh::ActorId to, const M& message) {
        // To an id of another type it is a dead letter, at once.
        bool fits = to.type == M::actor_type;
        rh::u32 type = fits ? M::actor_type : 0xffffffffu;
        record(fits ? delay_us : 0ull, to, type, message);
    }

    template <class R>
    RECORDER_FN void reply(const R& value) {
        if (replies++ == 0) record(0ull, rh::make_id(0u, 0ull), 0u, value);
    }

    RECORDER_FN void stop() { stopped = 1; }

    // The actor's threads one after another, the last one first, so that nothing comes in the order of a plain loop.
    // By the stamp, iterations are dealt out in turn or in blocks.
    template <class Loop>
    RECORDER_FN rh::Fault threads(rh::u64 count, const Loop& loop, typename Loop::Partial& into) {
        bool in_turn = stamp % 2 == 0;
        rh::u64 block = count / width + 1;
        rh::u64 lowest = count;
        rh::Fault fault = 0;
        typename Loop::Partial all = Loop::Partial::neutral();
        for (rh::u64 left = width; left > 0; left--) {
            rh::u64 thread = left - 1;
            rh::u64 first = in_turn ? thread : thread * block;
            rh::u64 step = in_turn ? width : 1;
            rh::u64 end = in_turn || count < first + block ? count : first + block;
            typename Loop::Partial partial = Loop::Partial::neutral();
            for (rh::u64 i = first; i < end; i += step) {
                rh::Fault found = loop.run(i, partial);
                if (found != 0 && i <= lowest) lowest = i, fault = found;
                if (found != 0) break;
            }
            partial.combine(all);
            all = partial;
        }
        into.combine(all);
        return fault;
    }
};

// Runs one message; a fault leaves the state alone. `result` becomes the fault, or all ones where state or
// message are no values.
template <class Actor>
RH_FN void run(rh::u8* state, const rh::u8* message, Recorder* recorder, rh::u32* result) {
    typename Actor::State value;
    typename Actor::Message received;
    *result = 0xffffffffu;
    if (!load(value, state) || !load(received, message)) return;
    recorder->width = Actor::threads_per_actor;
    *result = Actor::handle(value, received, *recorder);
    if (*result == 0) store(state, value);
}

// Whether bytes are a message.
template <class Actor>
RH_FN void accept(const rh::u8* message, rh::u32* result) {
    typename Actor::Message received;
    *result = load(received, message) ? 1u : 0u;
}

#define RUN(NAMESPACE, MODULE)                                                                              \
    ENTRY void run_##MODULE(rh::u8* state, const rh::u8* message, Recorder* recorder, rh::u32* result) {    \
        run<NAMESPACE::Actor>(state, message, recorder, result);                                            \
    }                                                                                                       \
    ENTRY void accept_##MODULE(const rh::u8* message, rh::u32* result) { accept<NAMESPACE::Actor>(message, result); }
