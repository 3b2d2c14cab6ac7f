//! Data-parallel loops as C++: a struct that holds what the iterations read and runs one of them, and the call that
//! has the actor's threads run them all.

use super::lower::{Lower, Value};
use super::names;
use crate::ir::{Combine, Local, Pass, Reduction, Threads, Ty};

/// Where the lowering is inside of a loop's body, which is a function of its own.
#[derive(Clone, Default)]
pub struct Inside {
    pub label: u32,
    pub reduced: Vec<Local>,
}

impl Lower<'_> {
    pub fn threads(&mut self, threads: &Threads) -> Option<Value> {
        let bound_type = &threads.from.ty;
        let ty = self.ty(bound_type);
        let values = self.exprs([&threads.from, &threads.to])?;
        let number = self.number();
        let name = format!("Loop{}_{number}", self.id);
        let parts = self.parts(threads, &ty);
        let body = self.iteration(threads, &ty);
        self.loops.push(structure(&name, &parts, &self.partial(threads), &body));

        let context = self.the_context();
        let (first, partial) = (format!("first{number}"), format!("partial{number}"));
        self.put(format!("const {ty} {first} = {};", values[0].text));
        let count = if threads.inclusive { "count_through" } else { "count_up_to" };
        let count = format!("rh::{count}({first}, {})", values[1].text);
        self.put(format!("{name}::Partial {partial};"));
        for Reduction { local, .. } in &threads.reductions {
            let local = self.local(*local);
            self.put(format!("{partial}.{local} = {local};"));
        }
        let mut members: Vec<String> = parts.iter().map(|part| part.value.replace("$", &context)).collect();
        members[0] = first;
        let call = format!("{context}->threads({count}, {name}{{{}}}, {partial})", members.join(", "));
        // A body that cannot fault gives none, and then this function may have no way to report one.
        match self.function.can_fault {
            true => self.put(format!("if (const rh::Fault fault = {call}) return fault;")),
            false => self.put(format!("{call};")),
        }
        for Reduction { local, .. } in &threads.reductions {
            let local = self.local(*local);
            self.put(format!("{local} = {partial}.{local};"));
        }
        Some(Value::unit())
    }

    /// The struct's members: the range's first number, and what the body reads, under the names it has outside.
    fn parts(&self, threads: &Threads, ty: &str) -> Vec<Part> {
        let mut parts = vec![Part { ty: ty.to_owned(), name: "first".into(), value: String::new() }];
        for local in &threads.captures {
            let name = self.local(*local);
            let of = &self.function.locals[local.0].ty;
            let pass = self.function.params.iter().find(|param| param.local == *local).map(|param| param.pass);
            let ty = match pass {
                _ if *of == Ty::Unit => continue,
                Some(Pass::RefMut) => format!("{}*", self.ty(of)),
                Some(Pass::Ref) => format!("const {}*", self.ty(of)),
                Some(Pass::Value) | None => self.ty(of),
            };
            parts.push(Part { ty, value: name.clone(), name });
        }
        let read = [
            (threads.reads_id, "rh::ActorId", "self_id", "$->id()"),
            (threads.reads_sender, "rh::ActorId", "sender_id", "$->sender()"),
            (threads.reads_now, "rh::u64", "stamp", "$->now()"),
        ];
        let read = read.into_iter().filter(|(is_read, ..)| *is_read);
        parts.extend(read.map(|(_, ty, name, value)| Part { ty: ty.into(), name: name.into(), value: value.into() }));
        parts
    }

    /// The lines of the function that runs one iteration.
    fn iteration(&mut self, threads: &Threads, ty: &str) -> Vec<String> {
        let reduced = threads.reductions.iter().map(|reduction| reduction.local).collect();
        let outside = self.inside.replace(Inside { label: threads.label, reduced });
        let around = std::mem::take(&mut self.around);
        let (line, indent) = (std::mem::take(&mut self.line), std::mem::replace(&mut self.indent, 1));
        let (lines, ()) = self.nested(|inner| {
            let name = inner.local(threads.local);
            inner.put(format!("const {ty} {name} = rh::add(first, rh::cast<{ty}>(iteration));"));
            if inner.block(&threads.body).is_some() {
                inner.put("return 0;");
            }
        });
        self.inside = outside;
        self.around = around;
        (self.line, self.indent) = (line, indent);
        lines
    }

    /// The lines of the struct that iterations combine into.
    fn partial(&self, threads: &Threads) -> Vec<String> {
        let of = |combined: &dyn Fn(&str, &Reduction) -> String| -> Vec<String> {
            threads.reductions.iter().map(|reduction| combined(&self.local(reduction.local), reduction)).collect()
        };
        let members = of(&|name, reduction| format!("        {} {name};", self.ty(&reduction.ty)));
        let neutral = of(&|_, reduction| neutral(reduction));
        let combine = of(&|name, reduction| {
            format!("            {name} = rh::{}({name}, later.{name});", function(reduction.by))
        });
        let mut lines = vec!["    struct Partial {".to_owned()];
        lines.extend(members);
        lines.push(format!("        RH_FN_MEMBER Partial neutral() {{ return Partial{{{}}}; }}", neutral.join(", ")));
        lines.push("        RH_MEMBER void combine(const Partial& later) {".into());
        lines.extend(combine);
        lines.push("        }".into());
        lines.push("    };".into());
        lines
    }
}

/// A member of a loop's struct. In the value, `$` is the context.
struct Part {
    ty: String,
    name: String,
    value: String,
}

fn structure(name: &str, parts: &[Part], partial: &[String], body: &[String]) -> String {
    let mut lines = vec![format!("struct {name} {{")];
    lines.extend(parts.iter().map(|part| format!("    {} {};", part.ty, part.name)));
    lines.extend(partial.iter().cloned());
    lines.push("    RH_MEMBER rh::Fault run(rh::u64 iteration, Partial& partial) const {".into());
    lines.extend(body.iter().cloned());
    lines.push("    }".into());
    lines.push("};".into());
    lines.push(format!("static_assert(rh::FitsThreads<{name}>::value, \"{name} is too large for the threads\");"));
    lines.join("\n") + "\n"
}

fn function(by: Combine) -> &'static str {
    match by {
        Combine::Add => "add",
        Combine::Or => "bit_or",
        Combine::And => "bit_and",
        Combine::Xor => "bit_xor",
        Combine::Min => "min",
        Combine::Max => "max",
    }
}

/// What changes nothing when it is combined. Of floats: `x + -0.0` is `x` for every `x`, and a NaN loses to a number.
fn neutral(Reduction { by, ty, .. }: &Reduction) -> String {
    match (ty, by) {
        (Ty::Bool, by) => (*by == Combine::And).to_string(),
        (Ty::Float(float), Combine::Add) => names::float_literal(-0.0, *float),
        (Ty::Float(float), _) => names::float_literal(f64::NAN, *float),
        (Ty::Int(int), by) => {
            let (ty, zero) = (names::int_type(*int), names::int_literal(0, *int));
            match by {
                Combine::Add | Combine::Or | Combine::Xor => zero,
                Combine::And => format!("rh::bit_not({zero})"),
                Combine::Min => format!("rh::Int<{ty}>::max"),
                Combine::Max => format!("rh::Int<{ty}>::min"),
            }
        }
        _ => unreachable!("only numbers and bools are combined"),
    }
}
