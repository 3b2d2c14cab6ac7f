//! What actor types are made of, as data: for printing, checking and refusing.

use serde::{Deserialize, Serialize};

use crate::id::{TypeId, fnv1a};

/// An actor type's names, layouts and hash. A node sends it to clients, so that the CLI can take and print
/// messages of types it was not built with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    /// The registered name.
    pub name: String,
    /// The first line of the module's documentation.
    pub about: String,
    pub threads_per_actor: u32,
    /// A struct.
    pub state: Type,
    /// An enum.
    pub message: Type,
    /// An enum.
    pub reply: Type,
}

/// A type of the subset. Offsets and sizes are bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Type {
    Bool,
    U8,
    U16,
    U32,
    U64,
    I8,
    I16,
    I32,
    I64,
    F32,
    F64,
    ActorId,
    Array(Box<Type>, u32),
    Struct(Struct),
    Enum(Enum),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Struct {
    pub name: String,
    pub size: u32,
    pub align: u32,
    pub fields: Vec<Field>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    pub name: String,
    /// From the start of the struct or enum that holds it.
    pub offset: u32,
    pub ty: Type,
}

/// An enum: a u32 tag at 0 (the variant's index), the fields behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enum {
    pub name: String,
    pub size: u32,
    pub align: u32,
    pub variants: Vec<Variant>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variant {
    pub name: String,
    pub fields: Vec<Field>,
}

impl Schema {
    pub fn type_id(&self) -> TypeId {
        TypeId::of(&self.name)
    }

    /// A hash of every name, type, size and offset: equal on two builds exactly when they can talk.
    pub fn layout_hash(&self) -> u64 {
        // Debug output names everything there is and is stable for these types; docs are left out.
        fnv1a(format!("{} {:?} {:?} {:?}", self.name, self.state, self.message, self.reply).as_bytes())
    }
}

/// A field as the macro's output names it: its name, its offset, and what describes its type.
#[doc(hidden)]
pub type FieldOf = (&'static str, u32, fn() -> Type);

/// A variant as the macro's output names it.
#[doc(hidden)]
pub type VariantOf = (&'static str, &'static [FieldOf]);

fn fields_of(fields: &[FieldOf]) -> Vec<Field> {
    let fields = fields.iter().map(|(name, offset, ty)| Field { name: (*name).into(), offset: *offset, ty: ty() });
    fields.collect()
}

impl Type {
    /// A struct from tables that cost no code.
    #[doc(hidden)]
    pub fn structure(name: &str, size: u32, align: u32, fields: &[FieldOf]) -> Type {
        Type::Struct(Struct { name: name.into(), size, align, fields: fields_of(fields) })
    }

    /// An enum from tables that cost no code.
    #[doc(hidden)]
    pub fn enumeration(name: &str, size: u32, align: u32, variants: &[VariantOf]) -> Type {
        let variants =
            variants.iter().map(|(name, fields)| Variant { name: (*name).into(), fields: fields_of(fields) });
        Type::Enum(Enum { name: name.into(), size, align, variants: variants.collect() })
    }

    pub fn size(&self) -> usize {
        match self {
            Type::Bool | Type::U8 | Type::I8 => 1,
            Type::U16 | Type::I16 => 2,
            Type::U32 | Type::I32 | Type::F32 => 4,
            Type::U64 | Type::I64 | Type::F64 => 8,
            Type::ActorId => 16,
            Type::Array(item, length) => item.size() * *length as usize,
            Type::Struct(s) => s.size as usize,
            Type::Enum(e) => e.size as usize,
        }
    }

    /// Whether these bytes are a value: bools are 0 or 1, tags are of variants.
    pub fn accepts(&self, bytes: &[u8]) -> bool {
        if bytes.len() < self.size() {
            return false;
        }
        let fields_accept =
            |fields: &[Field]| fields.iter().all(|field| field.ty.accepts(&bytes[field.offset as usize..]));
        match self {
            Type::Bool => bytes[0] <= 1,
            Type::Array(item, length) => (0..*length as usize).all(|i| item.accepts(&bytes[i * item.size()..])),
            Type::Struct(s) => fields_accept(&s.fields),
            Type::Enum(e) => {
                let tag = u32::from_le_bytes(bytes[..4].try_into().expect("an enum has a tag of four bytes"));
                e.variants.get(tag as usize).is_some_and(|variant| fields_accept(&variant.fields))
            }
            _ => true,
        }
    }
}
