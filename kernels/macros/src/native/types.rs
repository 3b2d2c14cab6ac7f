//! The types of a module as Rust: declarations, layout assertions, reading, writing and describing.

use proc_macro2::{Ident, Literal, TokenStream};
use quote::{ToTokens, format_ident, quote};

use super::plain_name;
use crate::ir::{Enum, Field, Float, Int, Module, Struct, Ty};
use crate::layout::{self, Fields};

pub fn emit(module: &Module) -> TokenStream {
    let consts = module.consts.iter().map(|constant| {
        let (docs, vis, ident, ty) = (&constant.docs, &constant.vis, &constant.ident, ty(module, &constant.ty));
        let value = super::code::constant(module, &constant.value);
        // Uses of a constant are folded, so rustc cannot see them.
        quote!(#(#docs)* #[allow(dead_code)] #vis const #ident: #ty = #value;)
    });
    let structs = (0..module.structs.len()).map(|id| struct_type(module, id));
    let enums = (0..module.enums.len()).map(|id| enum_type(module, id));
    let state = &module.structs[module.state].ident;
    quote! {
        #(#consts)*
        #(#structs)*
        #(#enums)*

        impl ::core::default::Default for #state {
            /// The state of an actor that has had no message: zeros.
            #[inline]
            fn default() -> Self {
                // SAFETY: zero bytes are a value of every plain type.
                unsafe { ::core::mem::zeroed() }
            }
        }
    }
}

pub fn ty(module: &Module, of: &Ty) -> TokenStream {
    match of {
        Ty::Unit => quote!(()),
        Ty::Never => quote!(!),
        Ty::Bool => quote!(bool),
        Ty::Int(int) => int_ident(*int).into_token_stream(),
        Ty::Float(float) => float_ident(*float).into_token_stream(),
        Ty::ActorId => quote!(::ringhold::rt::ActorId),
        Ty::Array(item, length) => {
            let (item, length) = (ty(module, item), Literal::u32_unsuffixed(*length));
            quote!([#item; #length])
        }
        Ty::Struct(id) => module.structs[*id].ident.to_token_stream(),
        Ty::Enum(id) => module.enums[*id].ident.to_token_stream(),
        Ty::ForeignMessage(foreign) => {
            let path = &module.foreign[*foreign].path;
            quote!(#path::Message)
        }
    }
}

pub fn int_ident(int: Int) -> Ident {
    let name = match int {
        Int::I8 => "i8",
        Int::I16 => "i16",
        Int::I32 => "i32",
        Int::I64 => "i64",
        Int::U8 => "u8",
        Int::U16 => "u16",
        Int::U32 => "u32",
        Int::U64 => "u64",
    };
    format_ident!("{name}")
}

pub fn float_ident(float: Float) -> Ident {
    match float {
        Float::F32 => format_ident!("f32"),
        Float::F64 => format_ident!("f64"),
    }
}

/// The first line of documentation, or nothing.
pub fn about(docs: &[syn::Attribute]) -> String {
    let lines = docs.iter().filter_map(|doc| match &doc.meta {
        syn::Meta::NameValue(meta) => match &meta.value {
            syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => Some(text.value()),
            _ => None,
        },
        _ => None,
    });
    lines.map(|line| line.trim().to_owned()).find(|line| !line.is_empty()).unwrap_or_default()
}

fn struct_type(module: &Module, id: usize) -> TokenStream {
    let Struct { ident, vis, docs, fields } = &module.structs[id];
    let Fields { offsets, layout } = layout::struct_fields(module, id);
    let declared = declare_fields(module, fields, true);
    let names: Vec<_> = fields.iter().map(|field| &field.ident).collect();
    let at: Vec<_> = offsets.iter().map(|offset| bytes(*offset)).collect();
    let types: Vec<_> = fields.iter().map(|field| ty(module, &field.ty)).collect();
    let (size, align) = (bytes(layout.size), bytes(layout.align));
    let name = plain_name(ident);
    let described = describe_fields(module, fields, &offsets);
    quote! {
        #(#docs)*
        #[derive(Clone, Copy, Debug, PartialEq)]
        #[repr(C)]
        #vis struct #ident { #declared }

        const _: () = assert!(
            ::core::mem::size_of::<#ident>() == #size
                && ::core::mem::align_of::<#ident>() == #align
                #(&& ::core::mem::offset_of!(#ident, #names) == #at)*
        );

        // SAFETY: every offset is asserted above.
        unsafe impl ::ringhold::rt::Plain for #ident {
            const SIZE: usize = #size;
            const ALIGN: usize = #align;
            fn describe() -> ::ringhold::rt::schema::Type {
                ::ringhold::rt::schema::Type::structure(#name, #size, #align, #described)
            }
            #[inline(always)]
            unsafe fn write(&self, to: *mut u8) {
                // SAFETY: the caller's: `to` has SIZE bytes.
                unsafe { #(<#types as ::ringhold::rt::Plain>::write(&self.#names, to.add(#at));)* }
                let _ = to;
            }
            #[inline(always)]
            unsafe fn read(from: *const u8) -> ::core::option::Option<Self> {
                let _ = from;
                // SAFETY: the caller's: `from` has SIZE bytes.
                ::core::option::Option::Some(unsafe {
                    Self { #(#names: <#types as ::ringhold::rt::Plain>::read(from.add(#at))?),* }
                })
            }
        }
    }
}

fn enum_type(module: &Module, id: usize) -> TokenStream {
    let Enum { ident, vis, docs, variants } = &module.enums[id];
    let layout = layout::of(module, &Ty::Enum(id));
    let declared = variants.iter().map(|variant| {
        let (docs, name) = (&variant.docs, &variant.ident);
        if variant.fields.is_empty() {
            quote!(#(#docs)* #name)
        } else {
            let fields = declare_fields(module, &variant.fields, false);
            quote!(#(#docs)* #name { #fields })
        }
    });
    let repr = if layout::has_payload(module, id) { quote!(C, u32) } else { quote!(u32) };
    let (size, align) = (bytes(layout.size), bytes(layout.align));
    let name = plain_name(ident);

    let mut described = Vec::new();
    let mut writes = Vec::new();
    let mut reads = Vec::new();
    let mut asserts = Vec::new();
    for (tag, variant) in variants.iter().enumerate() {
        let offsets = layout::variant_fields(module, id, tag).offsets;
        let (variant_ident, variant_name) = (&variant.ident, plain_name(&variant.ident));
        let names: Vec<_> = variant.fields.iter().map(|field| &field.ident).collect();
        // Bound under names of ours: a field may be called like a constant.
        let bound: Vec<_> = (0..names.len()).map(|index| format_ident!("field_{index}")).collect();
        let at: Vec<_> = offsets.iter().map(|offset| bytes(*offset)).collect();
        let types: Vec<_> = variant.fields.iter().map(|field| ty(module, &field.ty)).collect();
        let fields = describe_fields(module, &variant.fields, &offsets);
        described.push(quote!((#variant_name, #fields)));
        let tag = Literal::u32_suffixed(tag as u32);
        writes.push(quote! {
            Self::#variant_ident { #(#names: #bound),* } => {
                to.cast::<u32>().write_unaligned(#tag);
                #(<#types as ::ringhold::rt::Plain>::write(#bound, to.add(#at));)*
            }
        });
        reads.push(quote! {
            #tag => Self::#variant_ident {
                #(#names: <#types as ::ringhold::rt::Plain>::read(from.add(#at))?),*
            },
        });
        if !names.is_empty() {
            asserts.push(quote! {
                const _: () = {
                    let mut bytes = ::core::mem::MaybeUninit::<#ident>::zeroed();
                    // SAFETY: the tag lies at 0, and zero bytes are a value of every plain type.
                    let value = unsafe {
                        bytes.as_mut_ptr().cast::<u32>().write(#tag);
                        bytes.assume_init_ref()
                    };
                    let start = ::core::ptr::from_ref(value);
                    match value {
                        #ident::#variant_ident { #(#names: #bound),* } => {
                            // SAFETY: both point into `bytes`.
                            unsafe { #(assert!(::core::ptr::from_ref(#bound).byte_offset_from(start) == #at);)* }
                        }
                        #[allow(unreachable_patterns)]
                        _ => panic!("the tag of a variant is its index"),
                    }
                };
            });
        }
    }
    quote! {
        #(#docs)*
        #[derive(Clone, Copy, Debug, PartialEq)]
        #[repr(#repr)]
        #vis enum #ident { #(#declared),* }

        const _: () =
            assert!(::core::mem::size_of::<#ident>() == #size && ::core::mem::align_of::<#ident>() == #align);
        #(#asserts)*

        // SAFETY: every offset is asserted above.
        unsafe impl ::ringhold::rt::Plain for #ident {
            const SIZE: usize = #size;
            const ALIGN: usize = #align;
            fn describe() -> ::ringhold::rt::schema::Type {
                ::ringhold::rt::schema::Type::enumeration(#name, #size, #align, &[#(#described),*])
            }
            #[inline(always)]
            unsafe fn write(&self, to: *mut u8) {
                // SAFETY: the caller's: `to` has SIZE bytes.
                unsafe {
                    match self { #(#writes)* }
                }
            }
            #[inline(always)]
            unsafe fn read(from: *const u8) -> ::core::option::Option<Self> {
                // SAFETY: the caller's: `from` has SIZE bytes.
                ::core::option::Option::Some(unsafe {
                    match from.cast::<u32>().read_unaligned() {
                        #(#reads)*
                        _ => return ::core::option::Option::None,
                    }
                })
            }
        }
    }
}

fn declare_fields(module: &Module, fields: &[Field], with_vis: bool) -> TokenStream {
    let fields = fields.iter().map(|field| {
        let (docs, ident, ty) = (&field.docs, &field.ident, ty(module, &field.ty));
        let vis = with_vis.then_some(&field.vis);
        quote!(#(#docs)* #vis #ident: #ty)
    });
    quote!(#(#fields),*)
}

fn describe_fields(module: &Module, fields: &[Field], offsets: &[u64]) -> TokenStream {
    let fields = fields.iter().zip(offsets).map(|(field, offset)| {
        let (name, offset, ty) = (plain_name(&field.ident), bytes(*offset), ty(module, &field.ty));
        quote!((#name, #offset, <#ty as ::ringhold::rt::Plain>::describe))
    });
    quote!(&[#(#fields),*])
}

fn bytes(number: u64) -> Literal {
    Literal::u64_unsuffixed(number)
}
