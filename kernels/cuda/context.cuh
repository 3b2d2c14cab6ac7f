// What a handler may ask of whatever runs it. Handlers are templates over it: the device's worker is one such
// class, the recorder of the differential tests another. It has
//
//     ActorId id() const;         this actor
//     ActorId sender() const;     who sent the message
//     u64 now() const;            the HLC stamp of this run of the handler
//     void reply(const R&);       R is the module's Reply; the first counts
//     void send(u64 delay_us, ActorId to, const M&);
//                                 M is some module's Message; M::actor_type is the type it is for
//     void stop();                frees the actor when the handler returns
//
// None of them blocks or fails. A handler that returns a fault has had no effect: its caller drops what these
// recorded and keeps the state from before.
//
// The handler of a wide actor (`Actor::threads_per_actor` above 1) is called by one of the actor's threads. Where it
// comes to a data-parallel loop it hands the loop to all of them. So the context of a wide actor also has
//
//     template <class Loop>
//     Fault threads(u64 count, const Loop& loop, typename Loop::Partial& into);
//
// which runs the iterations 0 to `count - 1`, each once, by any thread and at any time before it returns:
//
//     Fault Loop::run(u64 iteration, Partial& partial) const;
//         One iteration, by the thread that `partial` belongs to. Gives its fault, or 0. It writes only what no other
//         iteration reads or writes: its own items of arrays in the state, and `partial`.
//     struct Loop::Partial;
//         What one thread's iterations combine into; `static Partial neutral()` changes nothing when combined.
//     void Partial::combine(const Partial& later);
//         Makes the two one. Associative, but for the rounding of sums of floats.
//
// A thread starts from `neutral()`. The partials are combined in the order of the threads, and `into`, which holds what
// the locals were before the loop, with the outcome. When iterations fault the call gives the fault of the lowest one
// that does, whichever thread had it: so no iteration below one that has faulted is left out. What the handler wrote
// before the loop is seen by every iteration, and what they wrote by the handler after it. A `Loop` may be copied byte by
// byte (to where all threads see it); it holds copies of locals and pointers into the actor's state.
#ifndef RH_CONTEXT
#define RH_CONTEXT

namespace rh {

// Complains at a class that is no context, by what it lacks, rather than somewhere inside a handler.
template <class M, class R, class C>
RH_FN void check_context(C& context, const C& seen, const M* message = nullptr, const R* reply = nullptr) {
    static_assert(Same<decltype(seen.id()), ActorId>::value, "a context has ActorId id() const");
    static_assert(Same<decltype(seen.sender()), ActorId>::value, "a context has ActorId sender() const");
    static_assert(Same<decltype(seen.now()), u64>::value, "a context has u64 now() const");
    static_assert(Same<decltype(context.reply(*reply)), void>::value, "a context has void reply(const R&)");
    static_assert(Same<decltype(context.send(0ull, ActorId(), *message)), void>::value,
                  "a context has void send(u64 delay_us, ActorId to, const M&)");
    static_assert(Same<decltype(context.stop()), void>::value, "a context has void stop()");
    (void)context, (void)seen, (void)message, (void)reply;
}

// How large a `Loop` and its `Partial` are, at most. The front end of the macro has the same numbers.
static constexpr u32 loop_bytes_max = 512;
static constexpr u32 partial_bytes_max = 64;

template <class Loop>
struct FitsThreads {
    static constexpr bool value = sizeof(Loop) <= loop_bytes_max && sizeof(typename Loop::Partial) <= partial_bytes_max &&
                                  __is_trivially_copyable(Loop) && __is_trivially_copyable(typename Loop::Partial);
};

// How many numbers are in `low..high`, and in `low..=high`. All 2^64 of a type's numbers count as one fewer: a loop over
// them does not end while anybody waits.
template <class T> RH_FN u64 count_up_to(T low, T high) { return low < high ? (u64)high - (u64)low : 0ull; }
template <class T> RH_FN u64 count_through(T low, T high) {
    u64 steps = (u64)high - (u64)low;
    return high < low ? 0ull : steps == Int<u64>::max ? steps : steps + 1ull;
}

// A loop that does nothing, to ask a context whether it runs loops.
struct NoLoop {
    struct Partial {
        RH_FN_MEMBER Partial neutral() { return Partial{}; }
        RH_MEMBER void combine(const Partial&) {}
    };
    RH_MEMBER Fault run(u64, Partial&) const { return 0; }
};

// As `check_context`, for what the context of a wide actor has besides.
template <class C>
RH_FN void check_wide_context(C& context, NoLoop::Partial* into = nullptr) {
    static_assert(Same<decltype(context.threads(0ull, NoLoop{}, *into)), Fault>::value,
                  "the context of a wide actor has Fault threads(u64 count, const Loop&, typename Loop::Partial& into)");
    (void)context, (void)into;
}

}  // namespace rh
#endif
