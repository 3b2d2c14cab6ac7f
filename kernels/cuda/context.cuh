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

}  // namespace rh
#endif
