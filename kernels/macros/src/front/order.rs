//! The order of functions, callees before callers; recursion is an error.

use super::body::Checked;
use super::errors::At;
use super::world::World;

/// The functions' indices, so that each comes after all that it calls.
pub fn callees_first(world: &World, checked: &[Checked]) -> Vec<usize> {
    let count = checked.len();
    let mut search = Search { world, checked, open: Vec::new(), seen: vec![false; count], order: Vec::new() };
    for function in 0..count {
        search.visit(function);
    }
    search.order
}

struct Search<'s, 'a> {
    world: &'s World<'a>,
    checked: &'s [Checked],
    /// The calls from the first function to where the search is.
    open: Vec<usize>,
    seen: Vec<bool>,
    order: Vec<usize>,
}

impl Search<'_, '_> {
    fn visit(&mut self, function: usize) {
        if std::mem::replace(&mut self.seen[function], true) {
            return;
        }
        self.open.push(function);
        for (callee, at) in &self.checked[function].calls {
            match self.open.iter().position(|open| open == callee) {
                Some(start) => self.report(start, *callee, at),
                None => self.visit(*callee),
            }
        }
        self.open.pop();
        self.order.push(function);
    }

    fn report(&self, start: usize, callee: usize, at: &At) {
        let cycle: Vec<String> = self.open[start..]
            .iter()
            .chain([&callee])
            .map(|function| format!("`{}`", self.world.function_name(*function)))
            .collect();
        self.world
            .errors
            .at(at, format!("no recursion ({}): write a loop, or send a message to `ctx.id()`", cycle.join(" calls ")));
    }
}
