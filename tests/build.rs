//! Writes the random programs that `tests/differential` compiles: a file each, and one that lists them.
//!
//! `RINGHOLD_PROGRAMS` says how many, `RINGHOLD_PROGRAM_SEED` the first one's seed; the next have the next seeds.

use std::fmt::Write;
use std::path::Path;

// The tests ask it for more than the build script does.
#[allow(dead_code)]
#[path = "src/differential/programs/mod.rs"]
mod programs;
#[path = "src/differential/random.rs"]
mod random;

const PROGRAMS: u64 = 200;
const FIRST_SEED: u64 = 1;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/differential/programs");
    println!("cargo::rerun-if-changed=src/differential/random.rs");
    let count = number("RINGHOLD_PROGRAMS", PROGRAMS);
    let first = number("RINGHOLD_PROGRAM_SEED", FIRST_SEED);
    let out = std::env::var("OUT_DIR").expect("cargo gives a build script a folder");
    let out = Path::new(&out);

    write(&out.join("sink.rs"), programs::SINK);
    let mut list = String::from("include!(concat!(env!(\"OUT_DIR\"), \"/sink.rs\"));\n");
    let mut subjects = String::new();
    let mut sources = String::new();
    let mut features = Vec::new();
    for seed in first..first + count {
        let program = programs::program(seed);
        let file = format!("{}.rs", program.module);
        write(&out.join(&file), &program.source);
        let _ = writeln!(list, "include!(concat!(env!(\"OUT_DIR\"), \"/{file}\"));");
        let _ = writeln!(subjects, "    Subject::of::<{}::Actor>(),", program.module);
        let _ = writeln!(sources, "    ({seed}, include_str!(concat!(env!(\"OUT_DIR\"), \"/{file}\"))),");
        features.extend(program.features);
    }
    features.sort();
    features.dedup();
    let _ = writeln!(list, "pub fn subjects() -> Vec<Subject> {{ vec![\n{subjects}] }}");
    let _ = writeln!(list, "pub const SOURCES: &[(u64, &str)] = &[\n{sources}];");
    let _ = writeln!(list, "pub const FEATURES: &[&str] = &{features:?};");
    write(&out.join("programs.rs"), &list);
}

fn number(variable: &str, default: u64) -> u64 {
    println!("cargo::rerun-if-env-changed={variable}");
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text}: write a number")),
        Err(_) => default,
    }
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}
