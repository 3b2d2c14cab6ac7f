//! Functions of actors, written by hand for devices: what no handler can do.
//!
//! The macro's C++ of a module is a text, and devices compile what the registry has of it. Here the bodies of some functions
//! are replaced in that text. The kernels are those that ship, to the letter; only these actors in them are not.

use ringhold_kernels::id::TypeId;
use ringhold_kernels::registry::Registry;

/// What is written by hand for one actor type.
pub struct ByHand {
    pub type_id: TypeId,
    /// C++ for the bodies to stand on.
    pub before: &'static str,
    /// The functions' names in Rust, and what they do instead, in C++.
    pub bodies: &'static [(&'static str, &'static str)],
}

/// # Panics
/// If the type is not registered, or has no such function.
pub fn write(registry: &mut Registry, by_hand: &ByHand) {
    let actor = registry.get_mut(by_hand.type_id).expect("what is written by hand is for a registered type");
    let mut text = actor.cuda_functions.to_owned();
    for (function, body) in by_hand.bodies {
        text = replaced(&text, function, body);
    }
    // For as long as the process: the registry's texts are those of the binary.
    actor.cuda_functions = format!("{}{text}", by_hand.before).leak();
}

/// A function begins with a line such as `RH_FN rh::u64 f0_cycles() {` and ends with the first brace in a line's beginning.
fn replaced(text: &str, function: &str, body: &str) -> String {
    let name = format!("_{function}(");
    let is_head = |line: &&str| line.starts_with("RH_FN ") && line.contains(&name) && line.ends_with('{');
    let head = text.lines().find(is_head).unwrap_or_else(|| panic!("no function `{function}` in:\n{text}"));
    let from = text.find(head).expect("it is a line of the text") + head.len();
    let to = from + text[from..].find("\n}\n").expect("a function has an end");
    format!("{}\n    {body}{}", &text[..from], &text[to..])
}
