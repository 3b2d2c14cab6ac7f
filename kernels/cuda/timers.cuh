// Messages that wait for their time: a binary heap of a worker, the earliest first and of two at once the one with the smaller
// stamp: so the older, where both are of one sender. Its first thread alone touches it.
#ifndef RH_TIMERS
#define RH_TIMERS

namespace rh {

struct Timers {
    Timer* heap;
    u32 count;

    RH_FN_MEMBER bool before(const Timer& a, const Timer& b) {
        return a.due_us != b.due_us ? a.due_us < b.due_us : a.stamp < b.stamp;
    }

    // False where there is no room.
    RH_MEMBER bool push(u64 due_us, u64 stamp, u32 entry) {
        if (count == shape::timers) return false;
        const Timer added{due_us, stamp, entry, 0};
        u32 at = count++;
        while (at > 0 && before(added, heap[(at - 1) / 2])) {
            heap[at] = heap[(at - 1) / 2];
            at = (at - 1) / 2;
        }
        heap[at] = added;
        return true;
    }

    // The entry of the earliest timer, if it is due.
    RH_MEMBER u32 pop(u64 now_us) {
        if (count == 0 || heap[0].due_us > now_us) return 0;
        const u32 entry = heap[0].entry;
        const Timer last = heap[--count];
        u32 at = 0;
        for (;;) {
            u32 child = 2 * at + 1;
            if (child >= count) break;
            if (child + 1 < count && before(heap[child + 1], heap[child])) child++;
            if (!before(heap[child], last)) break;
            heap[at] = heap[child];
            at = child;
        }
        if (count > 0) heap[at] = last;
        return entry;
    }
};

}  // namespace rh
#endif
