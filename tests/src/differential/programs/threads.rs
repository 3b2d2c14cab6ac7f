//! Random loops over an actor's threads, as text. What a body may use is what the macro lets it.

use super::{Generator, Type, Variable};

/// Items of the arrays that such loops write: more than a warp has threads, and no multiple of them.
const ITEMS: usize = 70;

/// Ways to combine, as features name them.
pub(super) const COMBINE: [&str; 6] = ["+=", "|=", "&=", "^=", "min", "max"];

impl Generator {
    /// The fields of the state that only loops over threads know.
    pub(super) fn rows(&mut self) -> Vec<(String, Type)> {
        (0..3).map(|index| (format!("row{index}"), self.scalar())).collect()
    }

    pub(super) fn row_fields(&self) -> Vec<String> {
        self.rows.iter().map(|(name, ty)| format!("pub {name}: [{}; {ITEMS}]", self.name(ty))).collect()
    }

    /// Some sums, the loop that adds to them and changes items of the state, or something else where there is none.
    pub(super) fn threads_loop(&mut self, depth: usize) -> String {
        let is_state = |v: &&Variable| v.ty == Type::Struct(1) && v.reference && v.mutable;
        let state = self.scope.iter().find(is_state).map(|v| v.name.clone());
        let (Some(state), true) = (state, self.context && !self.pure && self.parallel.is_none()) else {
            return self.assignment(depth);
        };
        self.note("threads");
        let mut text = String::new();
        let sums: Vec<(String, Type, &str)> = (0..self.random.below(4)).map(|_| self.sum(&mut text)).collect();
        let int = self.int();
        // Now and then past the end: then the message faults.
        let items = if self.random.chance(5) { ITEMS + 1 } else { 1 + self.random.below(ITEMS) };
        let from = self.random.below(3);
        let dots = *self.random.pick(&["..", "..="]);
        self.names += 1;
        // No declaration takes a name like this one again: the items below hold it.
        let (counter, label) = (format!("t{}", self.names), format!("'t{}", self.names));

        let outside = self.scope.clone();
        let loops = std::mem::take(&mut self.loops);
        self.parallel = Some(label.clone());
        // Each thread gets a copy of what it reads: small values, and not too many of them.
        self.scope
            .retain(|v| v.name == state || (!v.reference && matches!(v.ty, Type::Int(_) | Type::Bool | Type::Id)));
        self.scope.iter_mut().for_each(|v| v.mutable = false);
        let keep = self.scope.len().saturating_sub(12);
        let mut at = 0;
        self.scope.retain(|v| {
            at += 1;
            at > keep || v.name == state
        });
        self.scope.push(Variable { name: counter.clone(), ty: Type::Int(int), mutable: false, reference: false });
        for (index, (row, ty)) in self.rows.clone().into_iter().enumerate() {
            // Of the last row any item may be read; of the others, which are written, its own.
            let item = match index {
                2 => format!("{state}.{row}[({counter} as u32 * 7 + 5) % {ITEMS}]"),
                _ => format!("{state}.{row}[{counter}]"),
            };
            self.scope.push(Variable { name: item, ty, mutable: index < 2, reference: false });
        }
        let mut body: Vec<String> = (0..2 + self.random.below(3)).map(|_| self.statement(depth - 1)).collect();
        let (row, ty) = self.rows[self.random.below(2)].clone();
        body.push(format!("{state}.{row}[{counter}] = {};", self.expr(&ty, 2)));
        for (name, ty, by) in &sums {
            let term = self.expr(ty, 2);
            let combined = match *by {
                "min" | "max" => format!("{name} = {name}.{by}({term});"),
                _ => format!("{name} {by} {term};"),
            };
            body.push(match self.random.chance(30) {
                true => format!("if {} {{ {combined} }}", self.expr(&Type::Bool, 1)),
                false => combined,
            });
        }
        self.parallel = None;
        self.loops = loops;
        self.scope = outside;
        let range = format!("{from}{int}{dots}{items}{int}");
        text.push_str(&format!("{label}: for {counter} in ctx.threads({range}) {{\n{}\n}}", body.join("\n")));
        for (name, ty, _) in sums {
            // Seen in the state, whatever the program does with it.
            let op = if matches!(ty, Type::Float(_)) { "=" } else { "^=" };
            text.push_str(&format!("\n{state}.of_{} {op} {name};", self.name(&ty)));
            self.scope.push(Variable { name, ty, mutable: true, reference: false });
        }
        text
    }

    /// A local that the iterations combine into. Floats only in ways that no order changes.
    fn sum(&mut self, text: &mut String) -> (String, Type, &'static str) {
        let ty = self.scalar();
        let by = match ty {
            Type::Bool => *self.random.pick(&COMBINE[1..4]),
            Type::Float(_) => *self.random.pick(&COMBINE[4..]),
            _ => *self.random.pick(&COMBINE),
        };
        self.note(format!("threads {by}"));
        let (name, value) = (self.fresh(), self.expr(&ty, 1));
        text.push_str(&format!("let mut {name}: {} = {value};\n", self.name(&ty)));
        (name, ty, by)
    }
}
