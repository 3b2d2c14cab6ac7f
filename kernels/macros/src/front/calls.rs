//! Calls: functions, methods, ids of actors, the methods of numbers, and what `ctx` offers.

use proc_macro2::Ident;
use syn::punctuated::Punctuated;
use syn::{Expr, ExprCall, ExprMethodCall, Member, Path, Token};

use super::body::{Checker, Hint, Origin};
use super::builtins::{self, bits_type};
use super::errors::{At, sketch};
use super::expr::field_list;
use super::infer::{Type, float_named, int_name, is_signed, primitive_named, unsigned};
use super::refuse;
use super::tree::{ArgumentNode, Finish, Node, PlaceNode, with_temporary};
use super::world::Named;
use crate::faults;
use crate::ir::{self, Argument, Builtin, ExprKind, Int, ParamKind, Pass};

type Arguments = Punctuated<Expr, Token![,]>;

const CONTEXT_OFFERS: &str = "`id()`, `sender()`, `now()`, `reply(reply)`, `send(id, message)`, `send_after(delay_us, id, message)`, `stop()`, and `threads(range)` for a wide actor's loops";

impl Checker<'_, '_> {
    pub fn call(&mut self, e: &Expr, call: &ExprCall) -> Node {
        let at = At::of(e);
        let Expr::Path(function) = &*call.func else {
            self.error(&call.func, "only functions of this module are called, by their name");
            return Node::error(at);
        };
        let path = &function.path;
        let segments: Vec<&Ident> = path.segments.iter().map(|segment| &segment.ident).collect();
        if let Some(segment) = path.segments.iter().find(|segment| !segment.arguments.is_empty()) {
            self.error(&segment.arguments, "no generics here: remove this");
            return Node::error(at);
        }
        match segments[..] {
            [name] if *name == "id" && self.find(name).is_none() => self.make_id(None, &call.args, at),
            [name] => self.free_call(name, call, at),
            [module, name] if self.world.foreign_named(module).is_some() && name == "id" => {
                let foreign = self.world.foreign_named(module);
                self.make_id(foreign, &call.args, at)
            }
            [ty, name] => match self.owner_named(ty) {
                Some(owner) => self.associated_call(owner, name, call, at),
                None => self.call_of_number(ty, name, call, at),
            },
            _ => self.refuse_call(path, call, at),
        }
    }

    fn free_call(&mut self, name: &Ident, call: &ExprCall, at: At) -> Node {
        if self.find(name).is_some() {
            self.error(name, format!("`{name}` is a local and no function: rename one of them"));
            return Node::error(at);
        }
        match self.world.free_function(name) {
            Some(function) => self.call_function(function, None, &call.args, name, at),
            None => self.refuse_call(&Path::from(name.clone()), call, at),
        }
    }

    fn associated_call(&mut self, owner: Named, name: &Ident, call: &ExprCall, at: At) -> Node {
        if let Some(function) = self.world.method(owner, name) {
            return self.call_function(function, None, &call.args, name, at);
        }
        let owner_name = self.world.name_of(owner).clone();
        let variant = match owner {
            Named::Enum(id) => self.world.enums[id].variants.iter().find(|variant| variant.ident == *name),
            Named::Struct(_) => None,
        };
        let message = match variant {
            Some(variant) if variant.fields.is_empty() => {
                format!("this variant has no fields: write `{owner_name}::{name}`")
            }
            Some(variant) => {
                format!("fields have names: write `{owner_name}::{name} {{ {} }}`", field_list(&variant.fields))
            }
            None if *name == "default" => {
                format!("nothing has a default here: write `{owner_name} {{ .. }}` with its fields")
            }
            None => format!("no function `{name}` in `{owner_name}`: write it in `impl {owner_name} {{ .. }}`"),
        };
        self.error(&call.func, message);
        self.check_anyway(&call.args);
        Node::error(at)
    }

    /// `f64::from_bits(x)`, and what there is not.
    fn call_of_number(&mut self, ty: &Ident, name: &Ident, call: &ExprCall, at: At) -> Node {
        let text = ty.to_string();
        if let (Some(float), true) = (float_named(&text), name == "from_bits") {
            let arguments = self.fixed_arguments(&call.args, &[("bits", bits_type(float))], name);
            return Node::new(Type::Float(float), at, |f| {
                ExprKind::Builtin(Builtin::FromBits, finish_all(arguments, f))
            });
        }
        let message = match (primitive_named(&text), name.to_string().as_str()) {
            (Some(_), "from" | "try_from") => {
                let value = call.args.first().map(sketch).unwrap_or("x".to_owned());
                format!("write `{value} as {text}`")
            }
            (Some(_), "default") => format!("write the value: `0{text}`"),
            (Some(_), method) => format!("write it as a method: `x.{method}(..)`"),
            (None, _) if text == "ActorId" => {
                "ids are made by `id(key)`, and by `other::id(key)` for other actors".to_owned()
            }
            (None, _) => return self.refuse_call_path(call, at),
        };
        self.error(&call.func, message);
        self.check_anyway(&call.args);
        Node::error(at)
    }

    fn refuse_call_path(&mut self, call: &ExprCall, at: At) -> Node {
        match &*call.func {
            Expr::Path(function) => self.refuse_call(&function.path, call, at),
            _ => Node::error(at),
        }
    }

    fn refuse_call(&mut self, path: &Path, call: &ExprCall, at: At) -> Node {
        let text = sketch(path);
        let first = &path.segments[0].ident;
        let last = &path.segments[path.segments.len() - 1].ident;
        let message = if let Some(advice) = refuse::type_name(&first.to_string()) {
            advice.to_owned()
        } else if self.world.foreign_named(first).is_some() && path.segments.len() == 3 {
            format!("fields have names: write `{text} {{ .. }}`, as the message of `ctx.send(id, ..)`")
        } else if self.world.foreign_named(first).is_some() {
            format!(
                "of `{first}` there are only its ids, `{first}::id(key)`, and its messages in `ctx.send(id, {first}::Message::..)`"
            )
        } else if ["Some", "Ok", "Err"].contains(&text.as_str()) {
            refuse::type_name(if text == "Some" { "Option" } else { "Result" }).unwrap_or_default().to_owned()
        } else if self.world.named(first).is_some() && path.segments.len() == 1 {
            format!("fields have names: write `{text} {{ .. }}`")
        } else if self.in_constant {
            "a constant is computed from numbers, operators and other constants: write the value".to_owned()
        } else {
            format!("no function `{last}` in this module: an actor calls its own functions only, so write it here")
        };
        self.error(path, message);
        self.check_anyway(&call.args);
        Node::error(at)
    }

    /// Looks for errors in the arguments of a call that is one itself.
    fn check_anyway(&mut self, arguments: &Arguments) {
        for argument in arguments {
            if !matches!(argument, Expr::Reference(_)) && !self.is_reference_or_context(argument) {
                self.expr(argument, Hint::None);
            }
        }
    }

    fn is_reference_or_context(&self, e: &Expr) -> bool {
        let Expr::Path(path) = e else { return false };
        let local = path.path.get_ident().and_then(|ident| self.find(ident));
        local.is_some_and(|local| {
            matches!(self.locals[local.0].origin, Origin::Context | Origin::Param(Pass::Ref | Pass::RefMut))
        })
    }

    fn make_id(&mut self, foreign: Option<usize>, arguments: &Arguments, at: At) -> Node {
        let mut arguments = self.fixed_arguments(arguments, &[("key", Type::Int(Int::U64))], &"id");
        let Some(key) = arguments.pop() else { return Node::error(at) };
        Node::new(Type::ActorId, at, move |f| ExprKind::MakeId { foreign, key: key.boxed(f) })
    }

    /// Arguments by value, of these types; nothing where their number is wrong, which was reported.
    fn fixed_arguments(
        &mut self,
        arguments: &Arguments,
        wanted: &[(&str, Type)],
        name: &impl std::fmt::Display,
    ) -> Vec<Node> {
        let names: Vec<&str> = wanted.iter().map(|(name, _)| *name).collect();
        if !self.has_count(arguments, &names, name) {
            self.check_anyway(arguments);
            return wanted.iter().map(|_| Node::error(At::of(arguments))).collect();
        }
        arguments.iter().zip(wanted).map(|(argument, (_, ty))| self.expect(argument, ty)).collect()
    }

    fn has_count(&mut self, arguments: &Arguments, names: &[&str], name: &impl std::fmt::Display) -> bool {
        if arguments.len() == names.len() {
            return true;
        }
        let takes = if names.is_empty() { "nothing".to_owned() } else { format!("`{}`", names.join(", ")) };
        let message = format!("`{name}` takes {takes}: {} given", arguments.len());
        match arguments.iter().nth(names.len()) {
            Some(extra) => self.error(extra, message),
            None if arguments.is_empty() => self.error(&At::from(self.call_span), message),
            None => self.error(arguments, message),
        }
        false
    }

    fn call_function(
        &mut self,
        function: usize,
        receiver: Option<PlaceNode>,
        arguments: &Arguments,
        name: &Ident,
        at: At,
    ) -> Node {
        if self.in_constant {
            self.error(name, "a constant calls no functions: write the value");
            return Node::error(at);
        }
        self.calls.push((function, At::from(name.span())));
        let world = self.world;
        let signature = &world.functions[function];
        let params = &signature.params[usize::from(receiver.is_some())..];
        let names: Vec<String> = params.iter().map(|param| param.ident.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.call_span = name.span();
        if !self.has_count(arguments, &names, name) {
            self.check_anyway(arguments);
            return Node::error(at).retyped(signature.result.clone());
        }
        let mut temporary = None;
        let mut nodes = Vec::new();
        if let Some(mut place) = receiver {
            temporary = place.take_temporary();
            nodes.push(self.receiver(place, signature.params[0].pass));
        }
        for (argument, param) in arguments.iter().zip(params) {
            let node = self.argument(argument, param.kind, param.pass, &param.ty);
            if nodes.iter().any(|other| borrows_clash(other, &node)) {
                let advice = "this overlaps with what is passed as `&mut` beside it: copy the one that is only read";
                self.error(argument, format!("{advice} into a `let` first"));
            }
            nodes.push(node);
        }
        let node = Node::new(signature.result.clone(), at, move |f| {
            let arguments: Vec<Argument> = nodes.into_iter().map(|node| node.finish(f)).collect();
            ExprKind::Call { function: f.call(function, &arguments), arguments }
        });
        with_temporary(temporary, node.pointing_at(name.span()))
    }

    /// Takes a reference to the receiver, as the method asks for.
    fn receiver(&mut self, mut place: PlaceNode, pass: Pass) -> ArgumentNode {
        place.bare = false;
        match pass {
            Pass::Value => ArgumentNode::Value(place.read()),
            Pass::Ref => ArgumentNode::Ref(place),
            Pass::RefMut => {
                if self.locals[place.root.0].origin != Origin::Temporary {
                    self.require_mutable(&place);
                }
                ArgumentNode::RefMut(place)
            }
        }
    }

    fn argument(&mut self, e: &Expr, kind: ParamKind, pass: Pass, ty: &Type) -> ArgumentNode {
        if kind == ParamKind::Context {
            if self.context_named(e).is_none() {
                self.error(e, "this parameter is the context: pass `ctx` on as it is");
            }
            return ArgumentNode::Context;
        }
        if pass == Pass::Value {
            return ArgumentNode::Value(self.expect(e, ty));
        }
        let place = self.referenced(e, pass);
        if place.ty != Type::Error {
            self.same(&place.ty, ty, e);
        }
        if pass == Pass::RefMut {
            self.require_mutable(&place);
            return ArgumentNode::RefMut(place);
        }
        ArgumentNode::Ref(place)
    }

    /// The place that a reference argument points to.
    fn referenced(&mut self, e: &Expr, pass: Pass) -> PlaceNode {
        let sign = if pass == Pass::RefMut { "&mut " } else { "&" };
        let text = sketch(e);
        let Expr::Reference(reference) = e else {
            let mut place = self.place_or_reference(e);
            if !place.bare && place.ty != Type::Error {
                let way = if place.temporary.is_some() { "put it into a `let` first, and write" } else { "write" };
                let example = if place.temporary.is_some() { format!("{sign}value") } else { format!("{sign}{text}") };
                self.error(e, format!("a reference is needed here: {way} `{example}`"));
                place.ty = Type::Error;
            }
            place.bare = false;
            place.temporary = None;
            return place;
        };
        if pass == Pass::RefMut && reference.mutability.is_none() {
            self.error(e, format!("this parameter is changed: write `&mut {}`", sketch(&reference.expr)));
        }
        let mut place = self.place_or_reference(&reference.expr);
        let inner = sketch(&reference.expr);
        if place.bare && place.ty != Type::Error {
            self.error(e, format!("`{inner}` is a reference already: write `{inner}`"));
            place.ty = Type::Error;
        } else if place.temporary.is_some() && place.ty != Type::Error {
            self.error(e, format!("a reference to a value: put it into a `let` first, and write `{sign}name`"));
            place.ty = Type::Error;
        }
        place.bare = false;
        place.temporary = None;
        place
    }

    /// The context parameter, where `e` is its name.
    pub fn context_named<'e>(&self, e: &'e Expr) -> Option<&'e Ident> {
        let Expr::Path(path) = e else { return None };
        let ident = path.path.get_ident()?;
        let local = self.find(ident)?;
        (self.locals[local.0].origin == Origin::Context).then_some(ident)
    }

    pub fn method_call(&mut self, e: &Expr, call: &ExprMethodCall) -> Node {
        let at = At::of(e);
        self.call_span = call.method.span();
        if let Some(generics) = &call.turbofish {
            self.error(generics, "no generics here: remove this");
        }
        if self.context_named(&call.receiver).is_some() {
            return self.context_call(call, at);
        }
        if matches!(&*call.receiver, Expr::Lit(literal) if !is_number(&literal.lit))
            || matches!(range_inside(&call.receiver), Some(Expr::Range(_)))
        {
            return self.refuse_method(call, &Type::Error, at);
        }
        let place = self.place_or_reference(&call.receiver);
        let ty = self.vars.shallow(&place.ty);
        match &ty {
            Type::Struct(id) => self.own_method(Named::Struct(*id), place, call, at),
            Type::Enum(id) => self.own_method(Named::Enum(*id), place, call, at),
            Type::ActorId => self.id_method(place, call, at),
            Type::Error => {
                self.check_anyway(&call.args);
                Node::error(at)
            }
            ty => match builtins::method(&call.method.to_string(), ty) {
                Some(method) => self.number_method(method, place, call, at),
                None => self.refuse_method(call, ty, at),
            },
        }
    }

    fn own_method(&mut self, owner: Named, place: PlaceNode, call: &ExprMethodCall, at: At) -> Node {
        let Some(function) = self.world.method(owner, &call.method) else {
            return self.refuse_method(call, &Type::from(owner), at);
        };
        if self.world.functions[function].item.sig.receiver().is_none() {
            let (name, owner) = (&call.method, self.world.name_of(owner).clone());
            self.error(&call.method, format!("`{name}` has no `self`: write `{owner}::{name}(..)`"));
            return Node::error(at);
        }
        self.call_function(function, Some(place), &call.args, &call.method, at)
    }

    fn number_method(&mut self, method: builtins::Method, place: PlaceNode, call: &ExprMethodCall, at: At) -> Node {
        let wanted: Vec<(&str, Type)> = method.arguments.iter().map(|ty| ("value", ty.clone())).collect();
        let receiver = PlaceNode { bare: false, ..place };
        let receiver = value_of(receiver);
        let mut nodes = vec![receiver];
        nodes.extend(self.fixed_arguments(&call.args, &wanted, &call.method));
        let builtin = method.builtin;
        let node = Node::new(method.result, at, move |f| {
            let arguments = finish_all(nodes, f);
            f.can_fault |= match builtin {
                Builtin::DivEuclid | Builtin::RemEuclid => !faults::known_divisor(&arguments[1]),
                Builtin::Clamp => !faults::known_bounds(&arguments[1], &arguments[2]),
                _ => false,
            };
            ExprKind::Builtin(builtin, arguments)
        });
        node.pointing_at(call.method.span())
    }

    fn id_method(&mut self, place: PlaceNode, call: &ExprMethodCall, at: At) -> Node {
        let is_key = match call.method.to_string().as_str() {
            "key" => true,
            "type_id" => false,
            _ => return self.refuse_method(call, &Type::ActorId, at),
        };
        self.fixed_arguments(&call.args, &[], &call.method);
        let actor = value_of(PlaceNode { bare: false, ..place });
        let ty = Type::Int(if is_key { Int::U64 } else { Int::U32 });
        Node::new(ty, at, move |f| {
            let actor = actor.boxed(f);
            if is_key { ExprKind::IdKey(actor) } else { ExprKind::IdType(actor) }
        })
    }

    fn refuse_method(&mut self, call: &ExprMethodCall, ty: &Type, at: At) -> Node {
        let name = call.method.to_string();
        let found = self.world.quoted(&self.vars, ty);
        let advice = refuse::method(&name);
        let kind = self.vars.kind(ty);
        let message = match ty {
            Type::Var(_) if advice.is_empty() => {
                format!("nothing says what type this has: give it one, as in `5u32.{name}(..)` or `let x: u32 = ..`")
            }
            _ if !advice.is_empty() => format!("`{name}`: {advice}"),
            Type::Int(int) if is_signed(*int) && name == "is_power_of_two" => {
                format!("`{name}` is for unsigned integers: write `(x as {}).{name}()`", int_name(unsigned(*int)))
            }
            Type::Int(_)
                if matches!(name.as_str(), "abs" | "signum" | "is_negative" | "is_positive" | "unsigned_abs") =>
            {
                format!("{found} has no negative values: leave `{name}` away")
            }
            Type::Int(_) | Type::Float(_) => {
                format!("{found} has no method `{name}` here: there are {}", builtins::method_names(kind))
            }
            Type::ActorId => "an `ActorId` has `key()` and `type_id()`, and is compared with `==`".to_owned(),
            Type::Struct(id) => self.no_such_method(Named::Struct(*id), &name),
            Type::Enum(id) => self.no_such_method(Named::Enum(*id), &name),
            _ => format!("{found} has no methods"),
        };
        self.error(&call.method, message);
        self.check_anyway(&call.args);
        Node::error(at)
    }

    fn no_such_method(&self, owner: Named, name: &str) -> String {
        let owner_name = self.world.name_of(owner);
        let there_are = self.world.methods_of(owner);
        let known = if there_are.is_empty() { String::new() } else { format!(" (there are {})", there_are.join(", ")) };
        format!("no method `{name}` in `{owner_name}`{known}: write it in `impl {owner_name} {{ .. }}`")
    }

    fn context_call(&mut self, call: &ExprMethodCall, at: At) -> Node {
        let name = &call.method;
        let args = &call.args;
        match name.to_string().as_str() {
            "id" => self.context_value(call, Type::ActorId, at, || ExprKind::CtxId),
            "sender" => self.context_value(call, Type::ActorId, at, || ExprKind::CtxSender),
            "now" => self.context_value(call, Type::Int(Int::U64), at, || ExprKind::CtxNow),
            "stop" => self.context_value(call, Type::Unit, at, || ExprKind::CtxStop),
            "reply" => {
                let reply = self.world.types.get("Reply").copied().map_or(Type::Error, Type::from);
                let mut arguments = self.fixed_arguments(args, &[("reply", reply)], name);
                let Some(reply) = arguments.pop() else { return Node::error(at) };
                Node::new(Type::Unit, at, move |f| ExprKind::CtxReply(reply.boxed(f)))
            }
            "send" if self.has_count(args, &["id", "message"], name) => {
                let to = self.expect(&args[0], &Type::ActorId);
                let message = self.message(&args[1]);
                Node::new(Type::Unit, at, move |f| ExprKind::CtxSend { to: to.boxed(f), message: message.boxed(f) })
            }
            "send_after" if self.has_count(args, &["delay_us", "id", "message"], name) => {
                let delay_us = self.expect(&args[0], &Type::Int(Int::U64));
                let to = self.expect(&args[1], &Type::ActorId);
                let message = self.message(&args[2]);
                Node::new(Type::Unit, at, move |f| ExprKind::CtxSendAfter {
                    delay_us: delay_us.boxed(f),
                    to: to.boxed(f),
                    message: message.boxed(f),
                })
            }
            "send" | "send_after" => Node::error(at),
            "threads" => self.refuse_threads(call, at),
            other => {
                self.error(name, format!("the context has no `{other}`: it offers {CONTEXT_OFFERS}"));
                self.check_anyway(args);
                Node::error(at)
            }
        }
    }

    fn context_value(&mut self, call: &ExprMethodCall, ty: Type, at: At, kind: fn() -> ExprKind) -> Node {
        self.fixed_arguments(&call.args, &[], &call.method);
        Node::new(ty, at, move |_| kind())
    }

    /// The message of a send: this module's, or a literal of another module's.
    fn message(&mut self, e: &Expr) -> Node {
        let (path, fields) = match e {
            Expr::Struct(literal) => (&literal.path, Some(literal)),
            Expr::Path(path) => (&path.path, None),
            Expr::Paren(inner) => return self.message(&inner.expr),
            _ => return self.own_message(e),
        };
        let Some(foreign) = path.segments.first().and_then(|first| self.world.foreign_named(&first.ident)) else {
            return self.own_message(e);
        };
        let at = At::of(e);
        let variant = match path.segments.iter().map(|segment| &segment.ident).collect::<Vec<_>>()[..] {
            [_, message, variant] if message == "Message" => variant.clone(),
            _ => {
                let name = &self.world.foreign[foreign].ident;
                self.error(path, format!("write one of its messages: `{name}::Message::Variant {{ .. }}`"));
                return Node::error(at);
            }
        };
        if let Some(dots) = fields.and_then(|literal| literal.dot2_token.as_ref()) {
            self.error(dots, "write every field: nothing is taken over from another value");
        }
        let fields: Vec<(Ident, Node)> =
            fields.iter().flat_map(|literal| &literal.fields).filter_map(|field| self.foreign_field(field)).collect();
        Node::new(Type::Foreign(foreign), at, move |f| {
            let fields = fields.into_iter().map(|(name, value)| (name, value.finish(f))).collect();
            ExprKind::ForeignVariant { foreign, variant, fields }
        })
    }

    fn own_message(&mut self, e: &Expr) -> Node {
        let message = self.world.types.get("Message").copied().map_or(Type::Error, Type::from);
        self.expect(e, &message)
    }

    fn foreign_field(&mut self, field: &syn::FieldValue) -> Option<(Ident, Node)> {
        let Member::Named(name) = &field.member else {
            self.error(&field.member, "fields have names: write `name: value`");
            return None;
        };
        let value = self.operand(&field.expr, Hint::None);
        if matches!(self.vars.shallow(&value.ty), Type::Struct(_) | Type::Enum(_)) {
            let rule = "between modules go numbers, `bool`s, `ActorId`s and arrays of them: pass the fields one by one";
            self.error(&field.expr, rule);
        }
        self.foreign_fields.push((At::of(&field.expr), value.ty.clone()));
        Some((name.clone(), value))
    }
}

/// Whether one of the two is changed through a reference while the other refers to the same storage.
fn borrows_clash(a: &ArgumentNode, b: &ArgumentNode) -> bool {
    match (a, b) {
        (ArgumentNode::RefMut(a), ArgumentNode::RefMut(b) | ArgumentNode::Ref(b))
        | (ArgumentNode::Ref(a), ArgumentNode::RefMut(b)) => a.overlaps(b),
        _ => false,
    }
}

fn is_number(literal: &syn::Lit) -> bool {
    matches!(literal, syn::Lit::Int(_) | syn::Lit::Float(_) | syn::Lit::Byte(_) | syn::Lit::Bool(_))
}

fn range_inside(e: &Expr) -> Option<&Expr> {
    match e {
        Expr::Paren(inner) => range_inside(&inner.expr),
        other => Some(other),
    }
}

/// The value in the place: where it was no place to begin with, the value itself.
fn value_of(mut place: PlaceNode) -> Node {
    match place.take_temporary() {
        Some((_, value)) if place.projections.is_empty() => value,
        Some((_, value)) => {
            place.temporary = Some(Box::new(value));
            place.read()
        }
        None => place.read(),
    }
}

fn finish_all(nodes: Vec<Node>, f: &mut Finish) -> Vec<ir::Expr> {
    nodes.into_iter().map(|node| node.finish(f)).collect()
}
