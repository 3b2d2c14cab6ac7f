// A worker's actors: from an id to a slot, by an open-addressed index of 8-byte entries. The slots of a type lie in pages
// that all workers take from one pool; what is freed stays with its worker and type.
//
// All threads of the worker look up at once; only its first thread creates and removes, while no other looks. Barriers
// keep the two apart, so nothing here is atomic but the pool's counter.
#ifndef RH_TABLE
#define RH_TABLE

namespace rh {

struct Table {
    Memory memory;
    u32 worker;

    RH_MEMBER u64* index() const { return memory.at<u64>(arena::index, (u64)worker * shape::index_slots); }
    RH_MEMBER Slab& slab(u32 type) const {
        return *memory.at<Slab>(arena::slabs, (u64)worker * shape::types + type);
    }
    // A slot is known by its place among all pages in units of 8 bytes, plus one.
    RH_MEMBER Slot* slot(u32 reference) const {
        return reinterpret_cast<Slot*>(memory.at<u64>(arena::pages, (u64)reference - 1));
    }
    RH_MEMBER u32 reference(const Slot* slot) const {
        return (u32)(reinterpret_cast<const u64*>(slot) - memory.at<u64>(arena::pages)) + 1;
    }

    // As `hash` of `kernels/src/table.rs`. The place is the high bits; the low half is kept in the entry.
    RH_FN_MEMBER u64 hash(u64 key, u32 type) { return (key ^ (u64)type << 32) * 0x9e3779b97f4a7c15ull; }
    RH_FN_MEMBER u32 home(u64 hash) { return (u32)(hash >> 32) & (shape::index_slots - 1); }
    RH_FN_MEMBER u64 entry(u64 hash, u32 reference) { return hash << 32 | reference; }

    RH_MEMBER Slot* find(u64 key, u32 type) const {
        const u64 wanted = hash(key, type);
        for (u32 at = home(wanted);; at = (at + 1) & (shape::index_slots - 1)) {
            const u64 found = index()[at];
            if (found == 0) return nullptr;
            if (found >> 32 == (u32)wanted) {
                Slot* held = slot((u32)found);
                if (held->key == key && held->type_id == type) return held;
            }
        }
    }

    // A new actor, its state zero; null where there is no room for it. `actors` is how many there are,
    // `bytes` what the table holds.
    RH_MEMBER Slot* create(u64 key, u32 type, u32 type_index, u32 slot_bytes, u64 actors,
                           u64& bytes) const {
        // Never full, so that every search ends.
        if (actors >= shape::index_slots / 4 * 3) return nullptr;
        Slab& from = slab(type_index);
        Slot* made;
        if (from.free != 0) {
            made = slot(from.free);
            from.free = made->marks;
            made->marks = made->faults;
            made->faults = 0;
        } else {
            if (from.page == 0 || from.used == shape::page_bytes / slot_bytes) {
                const u64 page = add_relaxed_gpu(&memory.control().pages_used.word, 1);
                if (page >= shape::pages) return nullptr;
                from.page = page + 1;
                from.used = 0;
                bytes += shape::page_bytes;
            }
            const u64 place = (from.page - 1) * shape::page_bytes + (u64)from.used * slot_bytes;
            made = reinterpret_cast<Slot*>(memory.at<u8>(arena::pages, place));
            from.used++;
        }
        made->key = key;
        made->type_id = type;
        made->type_index = type_index;
        const u64 wanted = hash(key, type);
        u32 at = home(wanted);
        while (index()[at] != 0) at = (at + 1) & (shape::index_slots - 1);
        index()[at] = entry(wanted, reference(made));
        return made;
    }

    // Removes an actor. What follows it in its run of entries moves up, so no tombstone is left. Its slot is free, or gone
    // until the next cut has said so.
    RH_MEMBER void remove(Slot* gone, u32 slot_bytes) const {
        const u32 mask = shape::index_slots - 1, type_index = gone->type_index;
        const u64 removed = entry(hash(gone->key, gone->type_id), reference(gone));
        u32 hole = home(hash(gone->key, gone->type_id));
        while (index()[hole] != removed) hole = (hole + 1) & mask;
        for (u32 at = (hole + 1) & mask; index()[at] != 0; at = (at + 1) & mask) {
            const Slot* held = slot((u32)index()[at]);
            // The entry may fill the hole unless its home lies behind the hole, on the way round to it.
            if (((at - home(hash(held->key, held->type_id))) & mask) >= ((at - hole) & mask)) {
                index()[hole] = index()[at];
                hole = at;
            }
        }
        index()[hole] = 0;
        if ((gone->marks & marked::kept) != 0) {
            gone->handled = slot_gone | gone->type_id;
            gone->type_id = 0;
            return;
        }
        const u32 listed = gone->marks & marked::changed;
        free(gone, type_index, slot_bytes);
        gone->faults = listed;
    }

    // Frees the slot of an actor that is in no index. Of several threads at once, none of which may create.
    RH_MEMBER void free(Slot* gone, u32 type_index, u32 slot_bytes) const {
        u64* words = reinterpret_cast<u64*>(gone);
        for (u32 i = 0; i < slot_bytes / 8; i++) words[i] = 0;
        gone->marks = exchange_block(&slab(type_index).free, reference(gone));
    }
};

}  // namespace rh
#endif
