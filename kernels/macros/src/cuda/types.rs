//! The types of a module as C++: declarations, layout assertions, storing and loading.

use std::fmt::Write;

use super::names;
use crate::ir::{Field, Module, Ty};
use crate::layout;
use crate::native::{plain_name, type_number};

pub fn emit(module: &Module) -> String {
    let mut text = String::new();
    let namespace = names::namespace(&module.ident);
    let number = type_number(&module.name);
    line(&mut text, format!("// Actor type `{}`, module `{}`.", module.name, plain_name(&module.ident)));
    line(&mut text, format!("namespace {namespace} {{"));
    line(&mut text, format!("static constexpr rh::u32 type_id = {number:#x}u;"));
    let mut declared = Vec::new();
    let structs = (0..module.structs.len()).map(Ty::Struct);
    for ty in structs.chain((0..module.enums.len()).map(Ty::Enum)) {
        declare(&mut text, module, &ty, &mut declared);
    }
    line(&mut text, format!("}}  // namespace {namespace}"));
    text
}

/// Declares a type of the module, what it is made of before it.
fn declare(text: &mut String, module: &Module, ty: &Ty, declared: &mut Vec<Ty>) {
    if let Ty::Array(item, _) = ty {
        return declare(text, module, item, declared);
    }
    if !matches!(ty, Ty::Struct(_) | Ty::Enum(_)) || declared.contains(ty) {
        return;
    }
    declared.push(ty.clone());
    match ty {
        Ty::Struct(id) => {
            module.structs[*id].fields.iter().for_each(|field| declare(text, module, &field.ty, declared));
            structure(text, module, *id);
        }
        Ty::Enum(id) => {
            let fields = module.enums[*id].variants.iter().flat_map(|variant| &variant.fields);
            fields.for_each(|field| declare(text, module, &field.ty, declared));
            enumeration(text, module, *id);
        }
        _ => {}
    }
}

fn line(text: &mut String, line: String) {
    text.push_str(&line);
    text.push('\n');
}

fn structure(text: &mut String, module: &Module, id: usize) {
    let definition = &module.structs[id];
    let name = names::named_type(&definition.ident);
    let fields = layout::struct_fields(module, id);
    line(text, format!("struct {name} {{"));
    members(text, module, &definition.fields, "    ");
    line(text, format!("    static constexpr rh::u32 size = {};", fields.layout.size));
    line(text, "};".into());
    assert_layout(text, &name, fields.layout);
    for (field, offset) in definition.fields.iter().zip(&fields.offsets) {
        assert_offset(text, &name, "", field, *offset);
    }
    line(text, format!("RH_FN void store(rh::u8* to, const {name}& from) {{"));
    for (field, offset) in definition.fields.iter().zip(&fields.offsets) {
        store(text, "    ", "", field, *offset);
    }
    line(text, "}".into());
    line(text, format!("RH_FN bool load({name}& to, const rh::u8* from) {{"));
    let loads: Vec<_> =
        definition.fields.iter().zip(&fields.offsets).map(|(field, offset)| load("", field, *offset)).collect();
    line(text, format!("    return {};", loads.join(" && ")));
    line(text, "}".into());
}

fn enumeration(text: &mut String, module: &Module, id: usize) {
    let definition = &module.enums[id];
    let name = names::named_type(&definition.ident);
    let layout = layout::of(module, &Ty::Enum(id));
    let offsets: Vec<_> =
        (0..definition.variants.len()).map(|variant| layout::variant_fields(module, id, variant).offsets).collect();

    line(text, format!("struct {name} {{"));
    line(text, "    rh::u32 tag;".into());
    if layout::has_payload(module, id) {
        line(text, "    union {".into());
        for variant in &definition.variants {
            if !variant.fields.is_empty() {
                line(text, "        struct {".into());
                members(text, module, &variant.fields, "            ");
                line(text, format!("        }} {};", names::variant(&variant.ident)));
            }
        }
        line(text, "    };".into());
    }
    for (tag, variant) in definition.variants.iter().enumerate() {
        line(text, format!("    static constexpr rh::u32 {} = {tag}u;", names::tag(&variant.ident)));
    }
    line(text, format!("    static constexpr rh::u32 size = {};", layout.size));
    if id == module.message {
        line(text, "    static constexpr rh::u32 actor_type = type_id;".into());
    }
    line(text, "};".into());
    assert_layout(text, &name, layout);

    for (variant, offsets) in definition.variants.iter().zip(&offsets) {
        let member = format!("{}.", names::variant(&variant.ident));
        for (field, offset) in variant.fields.iter().zip(offsets) {
            assert_offset(text, &name, &member, field, *offset);
        }
        make(text, module, id, variant);
    }

    line(text, format!("RH_FN void store(rh::u8* to, const {name}& from) {{"));
    line(text, "    rh::store(to, from.tag);".into());
    for (tag, (variant, offsets)) in definition.variants.iter().zip(&offsets).enumerate() {
        if !variant.fields.is_empty() {
            line(text, format!("    if (from.tag == {tag}u) {{"));
            let member = format!("{}.", names::variant(&variant.ident));
            for (field, offset) in variant.fields.iter().zip(offsets) {
                store(text, "        ", &member, field, *offset);
            }
            line(text, "    }".into());
        }
    }
    line(text, "}".into());
    line(text, format!("RH_FN bool load({name}& to, const rh::u8* from) {{"));
    line(text, "    rh::load(to.tag, from);".into());
    for (tag, (variant, offsets)) in definition.variants.iter().zip(&offsets).enumerate() {
        if !variant.fields.is_empty() {
            let member = format!("{}.", names::variant(&variant.ident));
            let loads: Vec<_> =
                variant.fields.iter().zip(offsets).map(|(field, offset)| load(&member, field, *offset)).collect();
            line(text, format!("    if (to.tag == {tag}u) return {};", loads.join(" && ")));
        }
    }
    line(text, format!("    return to.tag < {}u;", definition.variants.len()));
    line(text, "}".into());
}

/// A function that makes one variant, its arguments in the order of declaration.
fn make(text: &mut String, module: &Module, id: usize, variant: &crate::ir::Variant) {
    let definition = &module.enums[id];
    let name = names::named_type(&definition.ident);
    let fields = &variant.fields;
    let params: Vec<_> =
        fields.iter().map(|field| format!("{} {}", names::ty(module, &field.ty), names::field(&field.ident))).collect();
    let mut body = format!("{name} made; made.tag = {name}::{};", names::tag(&variant.ident));
    for field in fields {
        let field = names::field(&field.ident);
        let _ = write!(body, " made.{}.{field} = {field};", names::variant(&variant.ident));
    }
    let make = names::make(id, &variant.ident);
    line(text, format!("RH_FN {name} {make}({}) {{ {body} return made; }}", params.join(", ")));
}

fn members(text: &mut String, module: &Module, fields: &[Field], indent: &str) {
    for field in fields {
        line(text, format!("{indent}{} {};", names::ty(module, &field.ty), names::field(&field.ident)));
    }
}

fn assert_layout(text: &mut String, name: &str, layout: layout::Layout) {
    line(
        text,
        format!(
            "static_assert(sizeof({name}) == {} && alignof({name}) == {}, \"layout of {name}\");",
            layout.size, layout.align
        ),
    );
}

fn assert_offset(text: &mut String, name: &str, member: &str, field: &Field, offset: u64) {
    let field = names::field(&field.ident);
    line(text, format!("static_assert(RH_OFFSET({name}, {member}{field}) == {offset}, \"{name}.{member}{field}\");"));
}

fn store(text: &mut String, indent: &str, member: &str, field: &Field, offset: u64) {
    let function = plain_function(&field.ty, "store");
    line(text, format!("{indent}{function}(to + {offset}, from.{member}{});", names::field(&field.ident)));
}

fn load(member: &str, field: &Field, offset: u64) -> String {
    let function = plain_function(&field.ty, "load");
    format!("{function}(to.{member}{}, from + {offset})", names::field(&field.ident))
}

/// The functions of the module's own types stand in its namespace, the others in `rh`.
fn plain_function(ty: &Ty, name: &str) -> String {
    match ty {
        Ty::Struct(_) | Ty::Enum(_) => name.into(),
        _ => format!("rh::{name}"),
    }
}
