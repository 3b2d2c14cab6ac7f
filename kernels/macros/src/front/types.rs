//! Type syntax to types.

use proc_macro2::Ident;
use syn::{PathArguments, TypePath};

use super::infer::{Type, primitive_named};
use super::refuse;
use super::world::{Named, World};

/// Most items an array may have, its inner arrays counted out.
const ITEMS_MAX: u64 = 1 << 20;

impl World<'_> {
    /// The type that `ty` names; `owner` is what `Self` means. Reports what is no type of the subset.
    pub fn ty(&self, ty: &syn::Type, owner: Option<Named>) -> Type {
        match ty {
            syn::Type::Path(path) => self.type_path(path, owner),
            syn::Type::Paren(inner) => self.ty(&inner.elem, owner),
            syn::Type::Group(inner) => self.ty(&inner.elem, owner),
            syn::Type::Array(array) => {
                let item = self.ty(&array.elem, owner);
                match self.length(&array.len) {
                    Some(length) => self.array(item, length, array),
                    None => Type::Error,
                }
            }
            syn::Type::Reference(reference) => {
                self.errors.at(ty, refuse::reference_type(&reference.elem));
                Type::Error
            }
            other => {
                self.errors.at(other, refuse::type_form(other));
                Type::Error
            }
        }
    }

    fn array(&self, item: Type, length: u32, array: &syn::TypeArray) -> Type {
        if items(&item).saturating_mul(u64::from(length)) > ITEMS_MAX {
            self.errors.at(array, format!("more than {ITEMS_MAX} items: spread them over several actors"));
            return Type::Error;
        }
        if item == Type::Error { Type::Error } else { Type::Array(Box::new(item), length) }
    }

    fn type_path(&self, path: &TypePath, owner: Option<Named>) -> Type {
        let last = path.path.segments.last().expect("a path has a segment");
        let name = last.ident.to_string();
        if let Some(ty) = path.path.get_ident().and_then(|ident| self.type_named(ident, owner)) {
            return ty;
        }
        let first = &path.path.segments[0].ident;
        let plain = last.arguments == PathArguments::None;
        if self.generics.contains(&name) {
            // The parameter itself was refused.
        } else if let Some(advice) = refuse::type_name(&name) {
            self.errors.at(path, advice);
        } else if name == "Context" {
            self.errors.at(path, "`Context` is for a parameter only: `ctx: &mut Context`");
        } else if path.path.segments.len() > 1 && self.foreign_named(first).is_some() {
            let rule = "types of another actor module stay there: of it, this module can send messages and name ids";
            self.errors.at(path, rule);
        } else if name == "Self" {
            self.errors.at(path, "`Self` is for `impl` blocks: write the type's name");
        } else if !plain {
            self.errors.at(path, "no generics here: write a type of your own without parameters");
        } else if path.path.segments.len() > 1 {
            self.errors.at(path, "types of an actor are its module's own, by their plain name");
        } else {
            self.errors.at(path, format!("no type `{name}` in this module: write the struct or enum here"));
        }
        Type::Error
    }

    /// The type of this single name.
    pub fn type_named(&self, ident: &Ident, owner: Option<Named>) -> Option<Type> {
        let name = ident.to_string();
        match name.as_str() {
            "Self" => owner.map(Type::from),
            "ActorId" => Some(Type::ActorId),
            _ => primitive_named(&name).or_else(|| self.named(ident).map(Type::from)),
        }
    }
}

fn items(ty: &Type) -> u64 {
    match ty {
        Type::Array(item, length) => items(item) * u64::from(*length),
        _ => 1,
    }
}
