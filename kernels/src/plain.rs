//! Data whose bytes mean the same on every device.

use crate::id::{ActorId, Key, TypeId};
use crate::schema;

/// Plain data with the C layout: what states, messages and replies are made of.
///
/// The zero bytes of any such type are a value of it (the first variant of an enum, `false`, 0), and it
/// is what a new actor's state is.
///
/// # Safety
/// `SIZE`, `ALIGN` and every offset that `write`, `read` and `describe` use are those of the C layout of
/// the type, which are also those of the Rust type.
pub unsafe trait Plain: Copy + 'static {
    const SIZE: usize;
    const ALIGN: usize;

    /// The type's description, with the offsets of its fields.
    fn describe() -> schema::Type;

    /// Writes every field at its offset; padding is left as it was, so callers start from zeros.
    /// A NaN is written in its one pattern.
    ///
    /// # Safety
    /// `to` is valid for writes of `SIZE` bytes; it need not be aligned.
    unsafe fn write(&self, to: *mut u8);

    /// Reads a value, or `None` where the bytes are none (a bool above 1, a tag of no variant).
    ///
    /// # Safety
    /// `from` is valid for reads of `SIZE` bytes; it need not be aligned.
    unsafe fn read(from: *const u8) -> Option<Self>;

    /// The bytes of the value, padding zero.
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; Self::SIZE];
        // SAFETY: the vector has SIZE bytes.
        unsafe { self.write(bytes.as_mut_ptr()) };
        bytes
    }

    /// The value these bytes hold, or `None` where they are too short or hold none.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        // SAFETY: the slice has at least SIZE bytes.
        (bytes.len() >= Self::SIZE).then(|| unsafe { Self::read(bytes.as_ptr()) }).flatten()
    }
}

macro_rules! plain_integer {
    ($($type:ident $kind:ident),*) => {$(
        // SAFETY: integers have no padding, and every pattern is a value.
        unsafe impl Plain for $type {
            const SIZE: usize = size_of::<$type>();
            const ALIGN: usize = align_of::<$type>();
            fn describe() -> schema::Type {
                schema::Type::$kind
            }
            #[inline(always)]
            unsafe fn write(&self, to: *mut u8) {
                // SAFETY: the caller's.
                unsafe { to.cast::<$type>().write_unaligned(*self) }
            }
            #[inline(always)]
            unsafe fn read(from: *const u8) -> Option<Self> {
                // SAFETY: the caller's.
                Some(unsafe { from.cast::<$type>().read_unaligned() })
            }
        }
    )*};
}
plain_integer!(u8 U8, u16 U16, u32 U32, u64 U64, i8 I8, i16 I16, i32 I32, i64 I64);

macro_rules! plain_float {
    ($($type:ident $kind:ident $bits:ident $nan:literal),*) => {$(
        // SAFETY: floats have no padding, and every pattern is a value.
        unsafe impl Plain for $type {
            const SIZE: usize = size_of::<$type>();
            const ALIGN: usize = align_of::<$type>();
            fn describe() -> schema::Type {
                schema::Type::$kind
            }
            #[inline(always)]
            unsafe fn write(&self, to: *mut u8) {
                let bits: $bits = if self.is_nan() { $nan } else { self.to_bits() };
                // SAFETY: the caller's.
                unsafe { to.cast::<$bits>().write_unaligned(bits) }
            }
            #[inline(always)]
            unsafe fn read(from: *const u8) -> Option<Self> {
                // SAFETY: the caller's.
                Some($type::from_bits(unsafe { from.cast::<$bits>().read_unaligned() }))
            }
        }
    )*};
}
plain_float!(f32 F32 u32 0x7fc0_0000, f64 F64 u64 0x7ff8_0000_0000_0000);

// SAFETY: one byte; only 0 and 1 are read as values.
unsafe impl Plain for bool {
    const SIZE: usize = 1;
    const ALIGN: usize = 1;
    fn describe() -> schema::Type {
        schema::Type::Bool
    }
    #[inline(always)]
    unsafe fn write(&self, to: *mut u8) {
        // SAFETY: the caller's.
        unsafe { to.write(*self as u8) }
    }
    #[inline(always)]
    unsafe fn read(from: *const u8) -> Option<Self> {
        // SAFETY: the caller's.
        match unsafe { from.read() } {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

// SAFETY: key at 0, type at 8, four bytes always written as zero.
unsafe impl Plain for ActorId {
    const SIZE: usize = size_of::<ActorId>();
    const ALIGN: usize = align_of::<ActorId>();
    fn describe() -> schema::Type {
        schema::Type::ActorId
    }
    #[inline(always)]
    unsafe fn write(&self, to: *mut u8) {
        // SAFETY: the caller's: 16 bytes.
        unsafe {
            self.key.0.write(to);
            (self.type_id.0 as u64).write(to.add(8));
        }
    }
    #[inline(always)]
    unsafe fn read(from: *const u8) -> Option<Self> {
        // SAFETY: the caller's: 16 bytes.
        unsafe { Some(ActorId::new(TypeId(u32::read(from.add(8))?), Key(u64::read(from)?))) }
    }
}

// SAFETY: an array's elements lie one size apart, as in C.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {
    const SIZE: usize = T::SIZE * N;
    const ALIGN: usize = T::ALIGN;
    fn describe() -> schema::Type {
        schema::Type::Array(Box::new(T::describe()), N as u32)
    }
    #[inline(always)]
    unsafe fn write(&self, to: *mut u8) {
        for (i, item) in self.iter().enumerate() {
            // SAFETY: the caller's: SIZE bytes hold N elements.
            unsafe { item.write(to.add(i * T::SIZE)) }
        }
    }
    #[inline(always)]
    unsafe fn read(from: *const u8) -> Option<Self> {
        let mut items = [const { std::mem::MaybeUninit::<T>::uninit() }; N];
        for (i, item) in items.iter_mut().enumerate() {
            // SAFETY: the caller's: SIZE bytes hold N elements.
            item.write(unsafe { T::read(from.add(i * T::SIZE)) }?);
        }
        // SAFETY: every element was written just above.
        Some(items.map(|item| unsafe { item.assume_init() }))
    }
}
