//! Structs and enums: their fields' types, and their order, what is used before what uses it.

use quote::format_ident;
use syn::{Fields, ItemEnum, ItemStruct, spanned::Spanned};

use super::errors::{At, Errors};
use super::infer::{Type, Vars};
use super::items::{Declared, kept};
use super::world::{Named, World};
use crate::ir::{Enum, Field, Struct, Ty, Variant};

/// Declares every struct and enum of the module in `world`.
pub fn declare(world: &mut World, declared: &Declared) {
    let order = order_of_use(world.errors, declared);
    let mut structs = 0;
    let mut enums = 0;
    for node in &order {
        let (name, named) = match node {
            Node::Struct(item) => (&item.ident, Named::Struct(structs)),
            Node::Enum(item) => (&item.ident, Named::Enum(enums)),
        };
        match named {
            Named::Struct(_) => structs += 1,
            Named::Enum(_) => enums += 1,
        }
        world.types.entry(name.to_string()).or_insert(named);
    }
    for node in &order {
        match node {
            Node::Struct(item) => {
                let (ident, vis, docs) = (item.ident.clone(), item.vis.clone(), kept(&item.attrs));
                let fields = fields(world, &item.fields);
                world.structs.push(Struct { ident, vis, docs, fields });
            }
            Node::Enum(item) => {
                let (ident, vis, docs) = (item.ident.clone(), item.vis.clone(), kept(&item.attrs));
                let variants = item.variants.iter().map(|variant| Variant {
                    ident: variant.ident.clone(),
                    docs: kept(&variant.attrs),
                    fields: fields(world, &variant.fields),
                });
                let variants = variants.collect();
                world.enums.push(Enum { ident, vis, docs, variants });
            }
        }
    }
    if !world.types.contains_key("Reply") {
        world.types.insert("Reply".to_owned(), Named::Enum(world.enums.len()));
        world.enums.push(no_reply());
    }
}

/// What an actor without `enum Reply` can answer.
fn no_reply() -> Enum {
    let nothing = Variant { ident: format_ident!("Nothing"), docs: Vec::new(), fields: Vec::new() };
    Enum { ident: format_ident!("Reply"), vis: syn::parse_quote!(pub), docs: Vec::new(), variants: vec![nothing] }
}

#[derive(Clone, Copy)]
enum Node<'a> {
    Struct(&'a ItemStruct),
    Enum(&'a ItemEnum),
}

impl<'a> Node<'a> {
    fn name(self) -> String {
        match self {
            Node::Struct(item) => item.ident.to_string(),
            Node::Enum(item) => item.ident.to_string(),
        }
    }

    fn field_types(self) -> Vec<&'a syn::Type> {
        match self {
            Node::Struct(item) => item.fields.iter().map(|field| &field.ty).collect(),
            Node::Enum(item) => item.variants.iter().flat_map(|v| v.fields.iter()).map(|field| &field.ty).collect(),
        }
    }
}

fn fields(world: &World, fields: &Fields) -> Vec<Field> {
    let field = |field: &syn::Field| {
        let ident = field.ident.clone()?;
        // A type that was refused is kept as `Unit`, which no field has: see `Type::of_field`.
        let ty = match world.ty(&field.ty, None) {
            Type::Error => Ty::Unit,
            ty => Vars::default().settle(&ty).unwrap_or(Ty::Unit),
        };
        Some(Field { ident, vis: field.vis.clone(), docs: kept(&field.attrs), ty })
    };
    fields.iter().filter_map(field).collect()
}

/// Depth-first over the types that fields name; reports a type that would contain itself.
fn order_of_use<'a>(errors: &Errors, declared: &Declared<'a>) -> Vec<Node<'a>> {
    let structs = declared.structs.iter().map(|item| Node::Struct(item));
    let nodes: Vec<Node> = structs.chain(declared.enums.iter().map(|item| Node::Enum(item))).collect();
    let mut search =
        Search { errors, nodes: &nodes, open: Vec::new(), done: vec![false; nodes.len()], order: Vec::new() };
    for index in 0..nodes.len() {
        search.visit(index);
    }
    search.order
}

struct Search<'s, 'a> {
    errors: &'s Errors,
    nodes: &'s [Node<'a>],
    /// The path from the start to where the search is.
    open: Vec<usize>,
    done: Vec<bool>,
    order: Vec<Node<'a>>,
}

impl Search<'_, '_> {
    fn visit(&mut self, index: usize) {
        if self.done[index] {
            return;
        }
        self.done[index] = true;
        self.open.push(index);
        for ty in self.nodes[index].field_types() {
            let Some(used) = self.named_in(ty) else { continue };
            match self.open.iter().position(|open| *open == used) {
                Some(start) => self.report(start, ty),
                None => self.visit(used),
            }
        }
        self.open.pop();
        self.order.push(self.nodes[index]);
    }

    /// The struct or enum in a field's type, under arrays.
    fn named_in(&self, ty: &syn::Type) -> Option<usize> {
        match ty {
            syn::Type::Array(array) => self.named_in(&array.elem),
            syn::Type::Paren(inner) => self.named_in(&inner.elem),
            syn::Type::Group(inner) => self.named_in(&inner.elem),
            syn::Type::Path(path) => {
                let name = path.path.get_ident()?.to_string();
                self.nodes.iter().position(|node| node.name() == name)
            }
            _ => None,
        }
    }

    fn report(&self, start: usize, ty: &syn::Type) {
        let cycle = &self.open[start..];
        let names: Vec<String> =
            cycle.iter().chain(&cycle[..1]).map(|i| format!("`{}`", self.nodes[*i].name())).collect();
        self.errors.at(
            &At::from(ty.span()),
            format!(
                "a value cannot contain itself ({}): hold an index, or the `ActorId` of another actor",
                names.join(" in ")
            ),
        );
    }
}
