//! Where everything lies: the C layout of the types of a module.
//!
//! A struct is `#[repr(C)]`. An enum is a u32 tag at 0 and, where a variant has fields, the union of the
//! variants' structs behind it (`#[repr(C, u32)]`). Both back ends assert these numbers about what their
//! compilers made of the types.

use crate::ir::{Enum, Field, Float, Int, Module, Struct, Ty};

/// Whatever knows the types of a module.
pub trait Types {
    fn structs(&self) -> &[Struct];
    fn enums(&self) -> &[Enum];
}

impl Types for Module {
    fn structs(&self) -> &[Struct] {
        &self.structs
    }

    fn enums(&self) -> &[Enum] {
        &self.enums
    }
}

/// Sizes and offsets are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    pub size: u64,
    pub align: u64,
}

/// The layout of a struct, or of one variant of an enum.
pub struct Fields {
    /// From the start of the struct or of the enum.
    pub offsets: Vec<u64>,
    pub layout: Layout,
}

pub const TAG_BYTES: u64 = 4;

pub fn of(module: &impl Types, ty: &Ty) -> Layout {
    let scalar = |bytes| Layout { size: bytes, align: bytes };
    match ty {
        Ty::Unit | Ty::Never => Layout { size: 0, align: 1 },
        Ty::Bool => scalar(1),
        Ty::Int(Int::I8 | Int::U8) => scalar(1),
        Ty::Int(Int::I16 | Int::U16) => scalar(2),
        Ty::Int(Int::I32 | Int::U32) | Ty::Float(Float::F32) => scalar(4),
        Ty::Int(Int::I64 | Int::U64) | Ty::Float(Float::F64) => scalar(8),
        Ty::ActorId => Layout { size: 16, align: 8 },
        Ty::Array(item, length) => {
            let item = of(module, item);
            Layout { size: item.size * u64::from(*length), align: item.align }
        }
        Ty::Struct(id) => struct_fields(module, *id).layout,
        Ty::Enum(id) => enum_layout(module, *id),
        Ty::ForeignMessage(_) => unreachable!("a foreign message is never a field"),
    }
}

pub fn struct_fields(module: &impl Types, id: usize) -> Fields {
    fields(module, &module.structs()[id].fields)
}

/// The fields of a variant; the layout is that of the union's member.
pub fn variant_fields(module: &impl Types, id: usize, variant: usize) -> Fields {
    let payload = payload_offset(module, id);
    let mut fields = fields(module, &module.enums()[id].variants[variant].fields);
    fields.offsets.iter_mut().for_each(|offset| *offset += payload);
    fields
}

/// Whether any variant has fields.
pub fn has_payload(module: &impl Types, id: usize) -> bool {
    module.enums()[id].variants.iter().any(|variant| !variant.fields.is_empty())
}

fn fields(module: &impl Types, fields: &[Field]) -> Fields {
    let mut layout = Layout { size: 0, align: 1 };
    let mut offsets = Vec::with_capacity(fields.len());
    for field in fields {
        let field = of(module, &field.ty);
        let offset = layout.size.next_multiple_of(field.align);
        offsets.push(offset);
        layout = Layout { size: offset + field.size, align: layout.align.max(field.align) };
    }
    layout.size = layout.size.next_multiple_of(layout.align);
    Fields { offsets, layout }
}

/// The union's layout: each member's struct starts at 0.
fn payload(module: &impl Types, id: usize) -> Layout {
    let members = module.enums()[id].variants.iter().map(|variant| fields(module, &variant.fields).layout);
    let union = members.fold(Layout { size: 0, align: 1 }, |union, member| Layout {
        size: union.size.max(member.size),
        align: union.align.max(member.align),
    });
    Layout { size: union.size.next_multiple_of(union.align), align: union.align }
}

fn payload_offset(module: &impl Types, id: usize) -> u64 {
    TAG_BYTES.next_multiple_of(payload(module, id).align)
}

fn enum_layout(module: &impl Types, id: usize) -> Layout {
    let payload = payload(module, id);
    let align = payload.align.max(TAG_BYTES);
    Layout { size: (payload_offset(module, id) + payload.size).next_multiple_of(align), align }
}
