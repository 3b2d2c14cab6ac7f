// What everything is made of: integers of known widths, arrays that are values, ids, faults.
//
// These headers compile as CUDA by NVRTC, without any standard header, and as C++17 by a host compiler.
#ifndef RH_TYPES
#define RH_TYPES

#ifdef __CUDACC__
#define RH_FN __device__ __forceinline__
#define RH_LOOKED_UP __constant__
#define RH_FN_MEMBER static __device__ __forceinline__
#define RH_MEMBER __device__ __forceinline__
#define RH_OUTLINE static __device__ __noinline__
#define RH_OUTLINE_MEMBER __device__ __noinline__
#else
#define RH_FN static inline
#define RH_LOOKED_UP static
#define RH_FN_MEMBER static inline
#define RH_MEMBER inline
#define RH_OUTLINE static __attribute__((noinline))
#define RH_OUTLINE_MEMBER __attribute__((noinline))
#endif

// NVRTC has no `offsetof`; this is what the one of its front end stands on.
#ifdef __CUDACC_RTC__
#define RH_OFFSET(T, FIELD) __INTADDR__(&((T*)0)->FIELD)
#else
#define RH_OFFSET(T, FIELD) __builtin_offsetof(T, FIELD)
#endif

namespace rh {

typedef signed char i8;
typedef short i16;
typedef int i32;
typedef long long i64;
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

static_assert(sizeof(i8) == 1 && sizeof(i16) == 2 && sizeof(i32) == 4 && sizeof(i64) == 8, "integer widths");
static_assert(alignof(i16) == 2 && alignof(i32) == 4 && alignof(i64) == 8, "integer alignments");
static_assert(sizeof(bool) == 1 && sizeof(float) == 4 && sizeof(double) == 8, "widths of bool and floats");
static_assert(alignof(float) == 4 && alignof(double) == 8, "float alignments");

// `[T; N]`: laid out as `T[N]`, copied as a value.
template <class T, u32 N>
struct Array {
    T v[N];
};

// One actor: its type and its key.
struct ActorId {
    u64 key;
    u32 type;
    u32 zero;
};
static_assert(sizeof(ActorId) == 16 && alignof(ActorId) == 8, "layout of ActorId");
static_assert(RH_OFFSET(ActorId, key) == 0 && RH_OFFSET(ActorId, type) == 8, "layout of ActorId");

RH_FN ActorId make_id(u32 type, u64 key) { return ActorId{key, type, 0u}; }

// Why a handler could not go on: 0 if it could, else the line of the Rust source above the kind.
typedef u32 Fault;
enum FaultKind : u32 { division_by_zero = 1, index_out_of_bounds = 2, clamp_bounds = 3 };

RH_FN Fault fault(FaultKind kind, u32 line) { return line << 8 | (u32)kind; }

template <class A, class B>
struct Same {
    static constexpr bool value = false;
};
template <class A>
struct Same<A, A> {
    static constexpr bool value = true;
};

// Fills a field of another actor's message. A type that differs is a compile error, never a conversion.
template <class Field, class Value>
RH_FN void set(Field& field, const Value& value) {
    static_assert(Same<Field, Value>::value, "a message field is of another type than the value sent in it");
    field = value;
}

// `[value; N]`
template <class T, u32 N>
RH_FN Array<T, N> repeat(T value) {
    Array<T, N> array;
    for (u32 i = 0; i < N; i++) array.v[i] = value;
    return array;
}

}  // namespace rh
#endif
