//! Writes the random programs that `tests/differential` and the GPU suite compile: a file each, and for each of the two one
//! that lists them.
//!
//! `RINGHOLD_PROGRAMS` says how many the tests have, `RINGHOLD_SUITE_PROGRAMS` how many the suite has, and
//! `RINGHOLD_PROGRAM_SEED` the first one's seed; the next have the next seeds.

use std::fmt::Write;
use std::ops::Range;
use std::path::Path;

use programs::Program;

// The tests ask it for more than the build script does.
#[allow(dead_code)]
#[path = "src/differential/programs/mod.rs"]
mod programs;
#[path = "src/differential/random.rs"]
mod random;

const PROGRAMS: u64 = 200;
/// A release build of the suite is one to carry to a GPU. Any other is there to see that it runs.
const SUITE_PROGRAMS_RELEASE: u64 = 1_000;
const SUITE_PROGRAMS: u64 = 8;
const FIRST_SEED: u64 = 1;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/differential/programs");
    println!("cargo::rerun-if-changed=src/differential/random.rs");
    let out = std::env::var("OUT_DIR").expect("cargo gives a build script a folder");
    let out = Path::new(&out);
    let first = number("RINGHOLD_PROGRAM_SEED", FIRST_SEED);
    let release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let of_tests = number("RINGHOLD_PROGRAMS", PROGRAMS);
    let of_suite = number("RINGHOLD_SUITE_PROGRAMS", if release { SUITE_PROGRAMS_RELEASE } else { SUITE_PROGRAMS });

    write(&out.join("sink.rs"), programs::SINK);
    let all: Vec<Program> = (first..first + of_tests.max(of_suite)).map(programs::program).collect();
    for program in &all {
        write(&out.join(format!("{}.rs", program.module)), &program.source);
    }
    list(out, "programs.rs", &all[..of_tests as usize], first..first + of_tests, "Subject::of");
    list(out, "suite_programs.rs", &all[..of_suite as usize], first..first + of_suite, "Specimen::of");
}

/// Lists programs in a file that brings in their modules and makes one of `what` of each.
fn list(out: &Path, file: &str, programs: &[Program], seeds: Range<u64>, what: &str) {
    let mut list = String::from("include!(concat!(env!(\"OUT_DIR\"), \"/sink.rs\"));\n");
    let mut subjects = String::new();
    let mut sources = String::new();
    let mut features = Vec::new();
    for (seed, program) in seeds.zip(programs) {
        let file = format!("{}.rs", program.module);
        let _ = writeln!(list, "include!(concat!(env!(\"OUT_DIR\"), \"/{file}\"));");
        let _ = writeln!(subjects, "    {what}::<{}::Actor>(),", program.module);
        let _ = writeln!(sources, "    ({seed}, include_str!(concat!(env!(\"OUT_DIR\"), \"/{file}\"))),");
        features.extend(&program.features);
    }
    features.sort();
    features.dedup();
    let made = what.trim_end_matches("::of");
    let _ = writeln!(list, "pub fn subjects() -> Vec<{made}> {{ vec![\n{subjects}] }}");
    let _ = writeln!(list, "pub const SOURCES: &[(u64, &str)] = &[\n{sources}];");
    let _ = writeln!(list, "pub const FEATURES: &[&str] = &{features:?};");
    write(&out.join(file), &list);
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
