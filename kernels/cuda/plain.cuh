// Plain data as bytes that mean the same on every device: `Plain::write` and `Plain::read` of Rust.
//
// `store` writes every field at its offset and leaves padding as it was, so that callers start from zeros.
// `load` gives false where the bytes are no value (a bool above 1, a tag of no variant). On the device bytes lie
// at the alignment of their type; on the host they need not.
#ifndef RH_PLAIN
#define RH_PLAIN

namespace rh {

template <class T>
RH_FN void put(u8* to, T value) {
#ifdef __CUDACC__
    *reinterpret_cast<T*>(to) = value;
#else
    __builtin_memcpy(to, &value, sizeof(T));
#endif
}
template <class T>
RH_FN T get(const u8* from) {
#ifdef __CUDACC__
    return *reinterpret_cast<const T*>(from);
#else
    T value;
    __builtin_memcpy(&value, from, sizeof(T));
    return value;
#endif
}

#define RH_PLAIN_INTEGER(T)                                    \
    RH_FN void store(u8* to, const T& value) { put(to, value); } \
    RH_FN bool load(T& value, const u8* from) {                \
        value = get<T>(from);                                  \
        return true;                                           \
    }
RH_PLAIN_INTEGER(i8)
RH_PLAIN_INTEGER(i16)
RH_PLAIN_INTEGER(i32)
RH_PLAIN_INTEGER(i64)
RH_PLAIN_INTEGER(u8)
RH_PLAIN_INTEGER(u16)
RH_PLAIN_INTEGER(u32)
RH_PLAIN_INTEGER(u64)
#undef RH_PLAIN_INTEGER

RH_FN void store(u8* to, const bool& value) { put<u8>(to, value ? 1 : 0); }
RH_FN bool load(bool& value, const u8* from) {
    u8 byte = get<u8>(from);
    value = byte == 1;
    return byte <= 1;
}

RH_FN void store(u8* to, const float& value) { put(to, to_bits(value)); }
RH_FN bool load(float& value, const u8* from) {
    value = from_bits(get<u32>(from));
    return true;
}
RH_FN void store(u8* to, const double& value) { put(to, to_bits(value)); }
RH_FN bool load(double& value, const u8* from) {
    value = from_bits(get<u64>(from));
    return true;
}

RH_FN void store(u8* to, const ActorId& value) {
    put(to, value.key);
    put(to + 8, (u64)value.type);
}
RH_FN bool load(ActorId& value, const u8* from) {
    value = make_id(get<u32>(from + 8), get<u64>(from));
    return true;
}

template <class T, u32 N>
RH_FN void store(u8* to, const Array<T, N>& value) {
    for (u32 i = 0; i < N; i++) store(to + i * sizeof(T), value.v[i]);
}
template <class T, u32 N>
RH_FN bool load(Array<T, N>& value, const u8* from) {
    for (u32 i = 0; i < N; i++) {
        if (!load(value.v[i], from + i * sizeof(T))) return false;
    }
    return true;
}

}  // namespace rh
#endif
