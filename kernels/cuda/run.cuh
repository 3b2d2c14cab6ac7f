// Running handlers: the context that a handler sees, and one message after the other of one actor.
#ifndef RH_RUN
#define RH_RUN

namespace rh {

// See `context.cuh`. `A` is the actor type.
template <class A>
struct RunContext {
    Worker& worker;
    const Header& header;
    u64 stamp;
    bool replied;
    bool stopped;

    RH_MEMBER ActorId id() const { return make_id(header.to_type, header.to_key); }
    RH_MEMBER ActorId sender() const { return make_id(header.from_type, header.from_key); }
    RH_MEMBER u64 now() const { return stamp; }
    RH_MEMBER void stop() { stopped = true; }

    template <class R>
    RH_MEMBER void reply(const R& value) {
        static_assert(R::size <= payload_bytes_max, "a reply is larger than the slots of the device allow");
        if (header.kind != ask || replied) {
            add_shared(&worker.shared.replies_unasked, (u64)1);
            return;
        }
        replied = true;
        if (Message* message = worker.send(to_replies, answer, (Reason)0, sender(), id(), R::size, 0)) {
            store(message->payload(), value);
        }
    }

    template <class M>
    RH_MEMBER void send(u64 delay_us, ActorId to, const M& value) {
        static_assert(M::size <= payload_bytes_max, "a message is larger than the slots of the device allow");
        const bool fits = to.type == M::actor_type;
        if (!fits) add_shared(&worker.shared.dead, (u64)1);
        Message* message = fits ? worker.send(worker.destination_of(to), tell, (Reason)0, to, id(), M::size, delay_us)
                                : worker.send(to_away, dead_letter, wrong_type, to, id(), M::size, 0);
        if (message != nullptr) store(message->payload(), value);
    }

    template <class Loop>
    RH_MEMBER Fault threads(u64 count, const Loop& loop, typename Loop::Partial& into) {
        return assisted(worker.shared.assist, A::threads_per_actor, count, loop, into);
    }
};

// What a thread knows of the actor whose messages it runs, from one of them to the next.
struct Running {
    Slot* slot;
    // It has stopped: the next message finds a new actor in its place.
    bool gone;
};

RH_FN Reason reason_of(Fault fault) {
    switch (fault & 0xffu) {
        case division_by_zero: return fault_division_by_zero;
        case index_out_of_bounds: return fault_index_out_of_bounds;
        default: return fault_clamp_bounds;
    }
}

// Whether a message that creates nothing finds an actor. One that has handled none was made for a message behind this one.
RH_FN bool exists(const Running& running) {
    return running.slot != nullptr && !running.gone && running.slot->handled != 0;
}

// The actor begins anew, in its place.
template <class A>
RH_FN void begin_anew(Worker& worker, Running& running) {
    u64* words = reinterpret_cast<u64*>(running.slot->state());
    for (u32 i = 0; i < (slot_bytes_of<A>() - sizeof(Slot)) / 8; i++) words[i] = 0;
    running.slot->handled = 0;
    running.slot->faults = 0;
    running.gone = false;
    add_shared(&worker.shared.created, (u64)1);
    add_shared(&worker.shared.actors, (u64)1);
    worker.count_type(running.slot->type_index, &TypeCounts::actors, 1);
}

// Runs a tell or an ask.
template <class A>
RH_FN void run_message(Worker& worker, Running& running, const Message& message, u32 type_index) {
    WorkerShared& shared = worker.shared;
    if (running.slot == nullptr) return worker.not_handled(message, device_out_of_memory);
    if (running.gone) begin_anew<A>(worker, running);
    Slot& slot = *running.slot;
    const u32 thread = thread_index();
    if ((slot.marks & marked::changed) < shared.keeps) worker.change(slot);
    slot.handled++;
    worker.count_type(type_index, &TypeCounts::handled, 1);
    typename A::Message value;
    if (message.header.len != A::Message::size || !load(value, message.payload())) {
        return worker.not_handled(message, malformed);
    }
    max_shared(&shared.hlc, message.header.hlc);
    RunContext<A> context{worker, message.header, worker.next_stamp(), false, false};
    typename A::State& state = *reinterpret_cast<typename A::State*>(slot.state());
    const u32 out = shared.out[thread].tail, later = shared.later[thread].tail;
    Fault fault = 0;
    if constexpr (!A::can_fault) {
        A::handle(state, value, context);
    } else if constexpr (A::threads_per_actor > 1) {
        typename A::State& before = *reinterpret_cast<typename A::State*>(slot.state() + (A::State::size + 7) / 8 * 8);
        before = state;
        fault = A::handle(state, value, context);
        if (fault != 0) state = before;
    } else {
        const typename A::State before = state;
        fault = A::handle(state, value, context);
        if (fault != 0) state = before;
    }
    if (fault != 0) {
        // As if the handler had not run. The clock alone keeps what it ticked.
        worker.entries.cut(shared.out[thread], out, shared.spare[thread]);
        worker.entries.cut(shared.later[thread], later, shared.spare[thread]);
        slot.faults++;
        add_shared(&shared.faults, (u64)1);
        worker.count_type(type_index, &TypeCounts::faults, 1);
        return worker.not_handled(message, reason_of(fault), fault >> 8);
    }
    if (message.header.kind == ask) {
        if (context.replied) add_shared(&shared.replies, (u64)1);
        else worker.answer_error(message.header, no_reply, 0);
    }
    if (context.stopped) {
        running.gone = true;
        add_shared(&shared.stopped_count, (u64)1);
        add_shared(&shared.actors, ~(u64)0);
        worker.count_type(type_index, &TypeCounts::actors, ~(u64)0);
    }
}

// Runs the messages of one actor, `from` to `to` of the sorted batch. A function of its own for each type: once in the code,
// whoever calls it, and its registers are not the batch loop's.
template <class A>
RH_OUTLINE void run_all(Worker& worker, u32 from, u32 to) {
    WorkerShared& shared = worker.shared;
    const u32 thread = thread_index(), type_index = shared.meta[from] >> 16;
    Running running{shared.slot[from], false};
    Hand& hand = worker.memory.hand(worker.number, thread);
    Message message;
    for (u32 i = from; i < to; i++) {
        read(worker.memory, worker.number, shared.head + (shared.meta[i] & 0xffffu), message);
        // Relaxed, at gpu scope: who looks at it, the control block, takes it as a hint.
        store_relaxed_gpu(&hand.key, message.header.to_key);
        store_relaxed_gpu(&hand.hlc, message.header.hlc);
        store_relaxed_gpu(&hand.type, (u64)message.header.to_type);
        if (message.header.kind == inspect) {
            worker.template answer_inspect<A>(message, running.gone ? nullptr : running.slot);
        } else if (message.header.kind != tell && message.header.kind != ask) {
            worker.not_handled(message, malformed);
        } else if (shared.suspects != 0 && is_condemned(worker.memory, shared.suspects, message, hand)) {
            worker.not_handled(message, poison);
        } else if (message.header.reason == overloaded && !exists(running)) {
            worker.not_handled(message, overloaded);
        } else {
            if (shared.careful_until_ns != 0) say_hand(worker.memory, worker.number, hand);
            // In a run with an inspect the first thread makes the actor when it comes to it.
            if (running.slot == nullptr && thread == 0) {
                running.slot = worker.create(message.header.to_key, message.header.to_type, type_index);
            }
            run_message<A>(worker, running, message, type_index);
        }
        add_relaxed_gpu(&worker.memory.counters(worker.number).progress.word, 1);
    }
    store_relaxed_gpu(&hand.type, (u64)0);
    shared.slot[from] = running.slot;
    shared.stopped[from] = running.gone;
}

// The same for messages whose type is not registered.
RH_OUTLINE void refuse_all(Worker& worker, u32 from, u32 to) {
    Message message;
    for (u32 i = from; i < to; i++) {
        read(worker.memory, worker.number, worker.shared.head + (worker.shared.meta[i] & 0xffffu), message);
        const u8 kind = message.header.kind;
        worker.not_handled(message, kind == inspect ? no_actor : kind == tell || kind == ask ? unknown_type : malformed);
    }
}

}  // namespace rh
#endif
