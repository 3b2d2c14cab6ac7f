// Arithmetic with the same bits on every device: integers wrap, shifts mask, floats are IEEE and never
// contracted. `kernels/src/arith.rs` and the methods of Rust's numbers are the same for the other target; the
// differential tests compare the two.
//
// Signed overflow is undefined in C++, so integers are computed unsigned, in at least 32 bits (a product of two
// u16 would otherwise be promoted to int and overflow). Both operands of a function must have one type exactly.
#ifndef RH_ARITH
#define RH_ARITH

namespace rh {

template <class T>
struct Int {
    static constexpr bool is = false;
};

#define RH_INTEGER(T, U, W, SIGNED, MIN, MAX)    \
    template <>                                  \
    struct Int<T> {                              \
        typedef U Unsigned;                      \
        typedef W Wide;                          \
        static constexpr bool is = true;         \
        static constexpr bool is_signed = SIGNED; \
        static constexpr u32 bits = sizeof(T) * 8; \
        static constexpr T min = MIN;            \
        static constexpr T max = MAX;            \
    };
RH_INTEGER(i8, u8, u32, true, -128, 127)
RH_INTEGER(i16, u16, u32, true, -32768, 32767)
RH_INTEGER(i32, u32, u32, true, -2147483647 - 1, 2147483647)
RH_INTEGER(i64, u64, u64, true, -9223372036854775807ll - 1, 9223372036854775807ll)
RH_INTEGER(u8, u8, u32, false, 0, 255)
RH_INTEGER(u16, u16, u32, false, 0, 65535)
RH_INTEGER(u32, u32, u32, false, 0u, 4294967295u)
RH_INTEGER(u64, u64, u64, false, 0ull, 18446744073709551615ull)
#undef RH_INTEGER

template <class T>
struct IsFloat {
    static constexpr bool value = Same<T, float>::value || Same<T, double>::value;
};

// ---- Comparing: functions, so that no compiler warns of `x == x` or `unsigned < 0` in a user's code.

template <class T> RH_FN bool eq(T a, T b) { return a == b; }
template <class T> RH_FN bool ne(T a, T b) { return a != b; }
template <class T> RH_FN bool lt(T a, T b) { return a < b; }
template <class T> RH_FN bool le(T a, T b) { return a <= b; }
template <class T> RH_FN bool gt(T a, T b) { return a > b; }
template <class T> RH_FN bool ge(T a, T b) { return a >= b; }
RH_FN bool eq(ActorId a, ActorId b) { return a.key == b.key && a.type == b.type; }
RH_FN bool ne(ActorId a, ActorId b) { return !eq(a, b); }
// A range in a pattern; both ends are inside.
template <class T> RH_FN bool within(T a, T low, T high) { return low <= a && a <= high; }

// ---- Integers that wrap.

template <class T> RH_FN T add(T a, T b) { typedef typename Int<T>::Wide W; return (T)((W)a + (W)b); }
template <class T> RH_FN T sub(T a, T b) { typedef typename Int<T>::Wide W; return (T)((W)a - (W)b); }
template <class T> RH_FN T mul(T a, T b) { typedef typename Int<T>::Wide W; return (T)((W)a * (W)b); }
template <class T> RH_FN T neg(T a) { typedef typename Int<T>::Wide W; return (T)((W)0 - (W)a); }

template <class T> RH_FN T bit_and(T a, T b) { return (T)(a & b); }
template <class T> RH_FN T bit_or(T a, T b) { return (T)(a | b); }
template <class T> RH_FN T bit_xor(T a, T b) { return (T)(a ^ b); }
template <class T> RH_FN T bit_not(T a) { return (T)~a; }
RH_FN bool bit_not(bool a) { return !a; }

// The count is masked to the width of the left operand.
template <class T> RH_FN T shl(T a, u32 count) {
    typedef typename Int<T>::Wide W;
    return (T)((W)a << (count & (Int<T>::bits - 1)));
}
// Arithmetic for signed integers.
template <class T> RH_FN T shr(T a, u32 count) { return (T)(a >> (count & (Int<T>::bits - 1))); }

// Whether dividing by it is a fault.
template <class T> RH_FN bool is_zero(T a) { return a == 0; }

// Division by what is not zero; `MIN / -1` is `MIN`, `MIN % -1` is 0.
template <class T> RH_FN T div(T a, T b) {
    if constexpr (Int<T>::is_signed) {
        if (b == -1) return neg(a);
    }
    return (T)(a / b);
}
template <class T> RH_FN T rem(T a, T b) {
    if constexpr (Int<T>::is_signed) {
        if (b == -1) return 0;
    }
    return (T)(a % b);
}
template <class T> RH_FN T div_euclid(T a, T b) {
    T quotient = div(a, b);
    if constexpr (Int<T>::is_signed) {
        if (rem(a, b) < 0) return b > 0 ? sub(quotient, (T)1) : add(quotient, (T)1);
    }
    return quotient;
}
template <class T> RH_FN T rem_euclid(T a, T b) {
    T remainder = rem(a, b);
    if constexpr (Int<T>::is_signed) {
        if (remainder < 0) return add(remainder, b < 0 ? neg(b) : b);
    }
    return remainder;
}

// Whether an index is outside an array; what is negative becomes larger than any array.
template <class T> RH_FN bool outside(T index, u32 length) {
    if constexpr (Int<T>::is_signed) return (u64)(i64)index >= length;
    return (u64)index >= length;
}

template <class T> RH_FN T saturating_add(T a, T b) {
    T sum = add(a, b);
    if constexpr (Int<T>::is_signed) {
        // Two of one sign gave the other sign.
        if (((a ^ sum) & (b ^ sum)) < 0) return a < 0 ? Int<T>::min : Int<T>::max;
        return sum;
    } else {
        return sum < a ? Int<T>::max : sum;
    }
}
template <class T> RH_FN T saturating_sub(T a, T b) {
    T difference = sub(a, b);
    if constexpr (Int<T>::is_signed) {
        if (((a ^ b) & (a ^ difference)) < 0) return a < 0 ? Int<T>::min : Int<T>::max;
        return difference;
    } else {
        return a < b ? (T)0 : difference;
    }
}
RH_FN u64 mul_high(u64 a, u64 b) {
#ifdef __CUDACC__
    return __umul64hi(a, b);
#else
    return (u64)(((unsigned __int128)a * b) >> 64);
#endif
}
RH_FN i64 mul_high(i64 a, i64 b) {
#ifdef __CUDACC__
    return __mul64hi(a, b);
#else
    return (i64)(((__int128)a * b) >> 64);
#endif
}
template <class T> RH_FN T saturating_mul(T a, T b) {
    if constexpr (Int<T>::bits < 64) {
        i64 product = (i64)a * (i64)b;
        if constexpr (!Int<T>::is_signed && Int<T>::bits == 32) {
            u64 wide = (u64)a * (u64)b;
            return wide > Int<T>::max ? Int<T>::max : (T)wide;
        }
        return product > Int<T>::max ? Int<T>::max : product < Int<T>::min ? Int<T>::min : (T)product;
    } else if constexpr (Int<T>::is_signed) {
        T product = mul(a, b);
        // It fits when the high half is nothing but the sign of the low one.
        if (mul_high(a, b) == product >> 63) return product;
        return (a < 0) == (b < 0) ? Int<T>::max : Int<T>::min;
    } else {
        return mul_high(a, b) != 0 ? Int<T>::max : mul(a, b);
    }
}

template <class T> RH_FN T pow(T base, u32 exponent) {
    T result = 1;
    while (exponent != 0) {
        if (exponent & 1u) result = mul(result, base);
        base = mul(base, base);
        exponent >>= 1;
    }
    return result;
}

template <class T> RH_FN T rotate_left(T a, u32 count) {
    typedef typename Int<T>::Unsigned U;
    u32 left = count & (Int<T>::bits - 1);
    U bits = (U)a;
    return left == 0 ? a : (T)(U)((U)(bits << left) | (U)(bits >> (Int<T>::bits - left)));
}
template <class T> RH_FN T rotate_right(T a, u32 count) {
    return rotate_left(a, Int<T>::bits - (count & (Int<T>::bits - 1)));
}

RH_FN u32 leading_zeros_64(u64 a) {
#ifdef __CUDACC__
    return (u32)__clzll((long long)a);
#else
    return a == 0 ? 64u : (u32)__builtin_clzll(a);
#endif
}
RH_FN u32 count_ones_64(u64 a) {
#ifdef __CUDACC__
    return (u32)__popcll(a);
#else
    return (u32)__builtin_popcountll(a);
#endif
}
template <class T> RH_FN u32 leading_zeros(T a) {
    return leading_zeros_64((u64)(typename Int<T>::Unsigned)a) - (64u - Int<T>::bits);
}
template <class T> RH_FN u32 count_ones(T a) { return count_ones_64((u64)(typename Int<T>::Unsigned)a); }
template <class T> RH_FN u32 count_zeros(T a) { return Int<T>::bits - count_ones(a); }
template <class T> RH_FN u32 trailing_zeros(T a) {
    // The ones below the lowest one.
    u64 bits = (u64)(typename Int<T>::Unsigned)a;
    return bits == 0 ? Int<T>::bits : count_ones_64((bits & (0ull - bits)) - 1ull);
}
template <class T> RH_FN T swap_bytes(T a) {
    u64 bits = (u64)(typename Int<T>::Unsigned)a;
    u64 swapped = 0;
    for (u32 i = 0; i < sizeof(T); i++) swapped = swapped << 8 | ((bits >> (8 * i)) & 255u);
    return (T)swapped;
}
template <class T> RH_FN T reverse_bits(T a) {
    u64 bits = (u64)(typename Int<T>::Unsigned)swap_bytes(a);
    bits = (bits & 0x0f0f0f0f0f0f0f0full) << 4 | (bits >> 4 & 0x0f0f0f0f0f0f0f0full);
    bits = (bits & 0x3333333333333333ull) << 2 | (bits >> 2 & 0x3333333333333333ull);
    bits = (bits & 0x5555555555555555ull) << 1 | (bits >> 1 & 0x5555555555555555ull);
    return (T)bits;
}

template <class T> RH_FN typename Int<T>::Unsigned abs_diff(T a, T b) {
    return (typename Int<T>::Unsigned)(a < b ? sub(b, a) : sub(a, b));
}
template <class T> RH_FN T abs(T a) { return a < 0 ? neg(a) : a; }
template <class T> RH_FN typename Int<T>::Unsigned unsigned_abs(T a) { return (typename Int<T>::Unsigned)abs(a); }
template <class T> RH_FN T signum(T a) { return (T)((a > 0) - (a < 0)); }
template <class T> RH_FN bool is_positive(T a) { return a > 0; }
template <class T> RH_FN bool is_negative(T a) { return a < 0; }
template <class T> RH_FN bool is_power_of_two(T a) { return count_ones(a) == 1u; }
template <class T> RH_FN T min(T a, T b) { return a < b ? a : b; }
template <class T> RH_FN T max(T a, T b) { return a < b ? b : a; }

// `clamp`, and whether it is a fault (also for a NaN bound). A NaN that is clamped stays one.
template <class T> RH_FN bool bounds_crossed(T low, T high) { return !(low <= high); }
template <class T> RH_FN T clamp(T a, T low, T high) { return a < low ? low : a > high ? high : a; }

// ---- Floats. On the device by the intrinsics that are never contracted, whatever the compiler's flags.

#ifdef __CUDACC__
#define RH_FLOAT(HOST, DEVICE) DEVICE
#else
#define RH_FLOAT(HOST, DEVICE) HOST
#endif
RH_FN float add(float a, float b) { return RH_FLOAT(a + b, __fadd_rn(a, b)); }
RH_FN float sub(float a, float b) { return RH_FLOAT(a - b, __fsub_rn(a, b)); }
RH_FN float mul(float a, float b) { return RH_FLOAT(a * b, __fmul_rn(a, b)); }
RH_FN float div(float a, float b) { return RH_FLOAT(a / b, __fdiv_rn(a, b)); }
RH_FN float rem(float a, float b) { return RH_FLOAT(__builtin_fmodf(a, b), fmodf(a, b)); }
RH_FN float neg(float a) { return -a; }
RH_FN float abs(float a) { return RH_FLOAT(__builtin_fabsf(a), fabsf(a)); }
RH_FN float sqrt(float a) { return RH_FLOAT(__builtin_sqrtf(a), __fsqrt_rn(a)); }
RH_FN float floor(float a) { return RH_FLOAT(__builtin_floorf(a), floorf(a)); }
RH_FN float ceil(float a) { return RH_FLOAT(__builtin_ceilf(a), ceilf(a)); }
RH_FN float trunc(float a) { return RH_FLOAT(__builtin_truncf(a), truncf(a)); }
RH_FN float round(float a) { return RH_FLOAT(__builtin_roundf(a), roundf(a)); }
RH_FN float mul_add(float a, float b, float c) { return RH_FLOAT(__builtin_fmaf(a, b, c), __fmaf_rn(a, b, c)); }
RH_FN double add(double a, double b) { return RH_FLOAT(a + b, __dadd_rn(a, b)); }
RH_FN double sub(double a, double b) { return RH_FLOAT(a - b, __dsub_rn(a, b)); }
RH_FN double mul(double a, double b) { return RH_FLOAT(a * b, __dmul_rn(a, b)); }
RH_FN double div(double a, double b) { return RH_FLOAT(a / b, __ddiv_rn(a, b)); }
RH_FN double rem(double a, double b) { return RH_FLOAT(__builtin_fmod(a, b), ::fmod(a, b)); }
RH_FN double neg(double a) { return -a; }
RH_FN double abs(double a) { return RH_FLOAT(__builtin_fabs(a), ::fabs(a)); }
RH_FN double sqrt(double a) { return RH_FLOAT(__builtin_sqrt(a), __dsqrt_rn(a)); }
RH_FN double floor(double a) { return RH_FLOAT(__builtin_floor(a), ::floor(a)); }
RH_FN double ceil(double a) { return RH_FLOAT(__builtin_ceil(a), ::ceil(a)); }
RH_FN double trunc(double a) { return RH_FLOAT(__builtin_trunc(a), ::trunc(a)); }
RH_FN double round(double a) { return RH_FLOAT(__builtin_round(a), ::round(a)); }
RH_FN double mul_add(double a, double b, double c) { return RH_FLOAT(__builtin_fma(a, b, c), __fma_rn(a, b, c)); }
#undef RH_FLOAT

RH_FN u32 raw_bits(float a) {
    union { float from; u32 to; } bits;
    bits.from = a;
    return bits.to;
}
RH_FN u64 raw_bits(double a) {
    union { double from; u64 to; } bits;
    bits.from = a;
    return bits.to;
}
RH_FN float from_bits(u32 a) {
    union { u32 from; float to; } bits;
    bits.from = a;
    return bits.to;
}
RH_FN double from_bits(u64 a) {
    union { u64 from; double to; } bits;
    bits.from = a;
    return bits.to;
}

template <class T> RH_FN bool is_nan(T a) { return a != a; }
// Infinity and NaN have all exponent bits set.
RH_FN bool is_finite(float a) { return (raw_bits(a) & 0x7f800000u) != 0x7f800000u; }
RH_FN bool is_finite(double a) { return (raw_bits(a) & 0x7ff0000000000000ull) != 0x7ff0000000000000ull; }
template <class T> RH_FN bool is_infinite(T a) { return !is_finite(a) && !is_nan(a); }
RH_FN bool sign_bit(float a) { return raw_bits(a) >> 31 != 0; }
RH_FN bool sign_bit(double a) { return raw_bits(a) >> 63 != 0; }

// Every NaN has one pattern.
RH_FN u32 to_bits(float a) { return is_nan(a) ? 0x7fc00000u : raw_bits(a); }
RH_FN u64 to_bits(double a) { return is_nan(a) ? 0x7ff8000000000000ull : raw_bits(a); }

// A NaN loses to a number; -0.0 is below 0.0.
template <class T> RH_FN T least(T a, T b) { return a < b || is_nan(b) || (a == b && sign_bit(a)) ? a : b; }
template <class T> RH_FN T greatest(T a, T b) { return a > b || is_nan(b) || (a == b && !sign_bit(a)) ? a : b; }
RH_FN float min(float a, float b) { return least(a, b); }
RH_FN float max(float a, float b) { return greatest(a, b); }
RH_FN double min(double a, double b) { return least(a, b); }
RH_FN double max(double a, double b) { return greatest(a, b); }

// `as`: integers wrap; a float saturates in an integer, NaN gives 0; to a float rounds to nearest, ties to even.
template <class To, class From> RH_FN To cast(From a) {
    if constexpr (IsFloat<From>::value && !IsFloat<To>::value) {
        // Powers of two, which every float type holds exactly. The first value too large:
        constexpr From above = (From)(Int<To>::max / 2 + 1) * 2;
        constexpr From low = (From)Int<To>::min;
        if (is_nan(a)) return 0;
        if (a >= above) return Int<To>::max;
        if (a <= low) return Int<To>::min;
        return (To)a;
    } else {
        return (To)a;
    }
}

}  // namespace rh
#endif
