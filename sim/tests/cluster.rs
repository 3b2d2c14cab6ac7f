//! The scenario of a cluster's control plane keeps its promises: seeds repeat, seeds pass, and mistakes are noticed.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use ringhold_cluster::control::mistake::Mistake;
use ringhold_sim::cluster::{Figures, Options, Plant, run};
use ringhold_sim::scenario::Report;

fn plain(seed: u64) -> Report<Figures> {
    run(seed, Options::default())
}

#[test]
fn the_same_seed_gives_the_same_trace_here_and_in_another_process() {
    let bin = env!("CARGO_BIN_EXE_ringhold-sim");
    for seed in [2, 4, 11] {
        let (here, again) = (plain(seed), plain(seed));
        assert_eq!((here.hash, here.events), (again.hash, again.events));
        let output = Command::new(bin).args(["--scenario", "cluster", "--seed", &seed.to_string()]).output();
        let output = String::from_utf8(output.expect("the simulator starts").stdout).expect("it prints text");
        let wanted = format!("seed {seed}: trace {:016x}, {} events", here.hash, here.events);
        assert!(output.contains(&wanted), "wanted `{wanted}` in:\n{output}");
    }
    assert_ne!(plain(2).hash, plain(4).hash);
}

#[test]
fn a_fixed_set_of_seeds_passes_and_exercises_everything() {
    let mut sum: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in 0..40 {
        let report = plain(seed);
        assert!(report.violations.is_empty(), "seed {seed}: {:#?}", report.violations);
        report.figures.named().into_iter().for_each(|(name, figure)| *sum.entry(name).or_default() += figure);
    }
    assert_eq!(sum.remove("undecided"), Some(0), "every story was told to its end");
    for (name, figure) in sum {
        assert!(figure > 0, "no seed had any {name}");
    }
}

/// Seeds that once failed. A leader that had started again went on in its term, and let others read what was before its last entries;
/// a log whose node had not voted yet was taken for damaged.
#[test]
fn seeds_that_once_failed_pass() {
    for seed in [17, 66, 93, 103, 124, 139, 142] {
        let report = plain(seed);
        assert!(report.violations.is_empty(), "seed {seed}: {:#?}", report.violations);
    }
}

/// A mistake made on purpose fails seeds, and what is said of it is about that mistake.
#[test]
fn planted_mistakes_are_noticed() {
    let plants = [
        (Plant::ForgetsEntries, &["is damaged"][..]),
        (Plant::GoesBack, &["is no one story", "both lead in term", "are not in the state any more"]),
        (Plant::ForgetsVotes, &["both lead in term", "is damaged"]),
        (Plant::ReadsTheLeader, &["is no one story"]),
        (Plant::ReadsAnyNode, &["is no one story"]),
        (Plant::DeniesTheUnknown, &["is no one story"]),
        (Plant::SameIdentity, &["takes part after it has lost its disk"]),
        (Plant::AltersCommands, &["has another state than"]),
        (Plant::AnswersEarly, &["is no one story", "are not in the state any more"]),
    ];
    for (plant, says) in plants {
        assert_noticed(plant, says);
    }
}

#[test]
fn planted_mistakes_about_leases_are_noticed() {
    for mistake in [Mistake::CountsFromTheAnswer, Mistake::DoesNotWait, Mistake::GrantsWithoutMajority] {
        assert_noticed(Plant::Leases(mistake), &["both hold device"]);
    }
}

/// Some seed fails for it, and says so.
fn assert_noticed(plant: Plant, says: &[&str]) {
    let mut said = BTreeSet::new();
    let noticed = (0..200).find(|seed| {
        let report = run(*seed, Options { plant: Some(plant), ..Options::default() });
        let noticed = report.violations.iter().any(|violation| says.iter().any(|says| violation.contains(says)));
        said.extend(report.violations);
        noticed
    });
    println!("{plant:?} was noticed by seed {noticed:?}");
    assert!(noticed.is_some(), "{plant:?} was not noticed, but {said:#?}");
}
