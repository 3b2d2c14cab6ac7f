//! An actor does the same natively and as C++: state, replies, sends and faults, to the byte.
//!
//! More programs, or one again: `RINGHOLD_PROGRAMS=1000 RINGHOLD_PROGRAM_SEED=7 cargo test -p ringhold-tests
//! --test differential random_programs`. What a mismatch looks like is in `docs/sameness.md`.

#[allow(clippy::all, unused)]
mod corners;
#[allow(clippy::all, unused)]
mod wide;

use ringhold_tests::differential::device::Kernel;
use ringhold_tests::differential::host::translation_unit;
use ringhold_tests::differential::nvrtc::{self, Nvrtc};
use ringhold_tests::differential::{Library, Mismatch, Plan, Subject, Tally, compare, programs as generator};

/// As the build script wrote them.
#[allow(warnings, clippy::all)]
mod programs {
    use ringhold_tests::differential::Subject;
    include!(concat!(env!("OUT_DIR"), "/programs.rs"));
}

/// Programs in one C++ translation unit, or in one ring kernel.
const UNIT: usize = 100;

/// The actors of the shipped binary, all of them.
fn shipped() -> Vec<Subject> {
    use ringhold::demo::actors::{aircraft, airport, carrier};
    use ringhold::shipped::{account, counter, rod};
    let subjects = vec![
        Subject::of::<account::Actor>(),
        Subject::of::<counter::Actor>(),
        Subject::of::<rod::Actor>(),
        Subject::of::<aircraft::Actor>(),
        Subject::of::<airport::Actor>(),
        Subject::of::<carrier::Actor>(),
    ];
    let mut registry = ringhold::Registry::new();
    ringhold::shipped::register(&mut registry).expect("the shipped types have names of their own");
    let registered: Vec<_> = registry.types().iter().map(|actor| actor.module).collect();
    let listed: Vec<_> = subjects.iter().map(|subject| subject.source.module).collect();
    assert_eq!(registered, listed, "every shipped actor is listed above");
    subjects
}

#[test]
fn every_shipped_actor_is_the_same_in_cpp() {
    let subjects = shipped();
    let subjects: Vec<&Subject> = subjects.iter().collect();
    let mut library = Library::compile(&subjects, &[], "-O2").unwrap_or_else(|error| panic!("{error}"));
    for (index, subject) in subjects.iter().enumerate() {
        let plan = Plan { sequences: 10_000, messages_max: 12, seed: 1 };
        let tally = compare(subject, &mut library, index, plan).unwrap_or_else(|mismatch| panic!("{mismatch}"));
        println!("{}: {tally:?}", subject.source.module);
    }
}

#[test]
fn what_is_easily_got_wrong_is_the_same_in_cpp() {
    let (sink, corners) = (Subject::of::<programs::sink::Actor>(), Subject::of::<corners::corners::Actor>());
    for optimise in ["-O0", "-O2"] {
        let mut library = Library::compile(&[&corners], &[&sink], optimise).unwrap_or_else(|error| panic!("{error}"));
        let plan = Plan { sequences: 10_000, messages_max: 12, seed: 1 };
        let tally = compare(&corners, &mut library, 0, plan).unwrap_or_else(|mismatch| panic!("{mismatch}"));
        println!("{tally:?}");
        assert!(tally.faults > 1000 && tally.sends > 1000 && tally.replies > 1000 && tally.stops > 100);
    }
}

#[test]
fn the_loops_of_wide_actors_are_the_same_in_cpp() {
    let wide = Subject::of::<wide::wide::Actor>();
    for optimise in ["-O0", "-O2"] {
        let mut library = Library::compile(&[&wide], &[], optimise).unwrap_or_else(|error| panic!("{error}"));
        let plan = Plan { sequences: 10_000, messages_max: 12, seed: 1 };
        let tally = compare(&wide, &mut library, 0, plan).unwrap_or_else(|mismatch| panic!("{mismatch}"));
        println!("{tally:?}");
        assert!(tally.faults > 1000 && tally.sends > 1000 && tally.replies > 1000);
    }
}

/// `docs/sameness.md` states the bound.
#[test]
fn a_sum_of_floats_differs_by_its_order_and_no_more() {
    use ringhold_kernels::actor::Actor as _;
    use ringhold_kernels::id::{ActorId, Key};
    use ringhold_kernels::plain::Plain;
    use ringhold_tests::differential::random::Random;
    use wide::sums::{Actor, Message, Reply, State};

    let subject = Subject::of::<Actor>();
    let mut library = Library::compile(&[&subject], &[], "-O2").unwrap_or_else(|error| panic!("{error}"));
    let (id, mut differ) = (ActorId::new(Actor::TYPE, Key(1)), 0);
    for seed in 0..1_000 {
        let mut random = Random::new(seed);
        let mut term = |scale: f64| (random.bits() as i64 as f64 / 9.0e18) * scale;
        let state = State {
            singles: std::array::from_fn(|i| term(10f64.powi(i as i32 % 12)) as f32),
            doubles: std::array::from_fn(|i| term(10f64.powi(i as i32 % 30))),
        };
        let (single, double) = (term(1e6) as f32, term(1e6));
        let message = Message::Sum { single, double }.to_bytes();
        let mut states = [state.to_bytes(), state.to_bytes()];
        let now = ringhold_kernels::hlc::Hlc(seed);
        let native = (subject.run)(&mut states[0], &message, id, id, now).reply;
        let cpp = library.run(0, &mut states[1], &message, id, id, now).reply;
        let [native, cpp] = [native, cpp].map(|reply| Reply::from_bytes(&reply.expect("it replies")).expect("a reply"));
        let (Reply::Sum { single: a, double: b }, Reply::Sum { single: c, double: d }) = (native, cpp);
        let singles = state.singles.iter().fold(f64::from(single.abs()), |sum, x| sum + f64::from(x.abs()));
        let doubles = state.doubles.iter().fold(double.abs(), |sum, x| sum + x.abs());
        let bound = [1000.0 * f64::from(f32::EPSILON) * singles, 1000.0 * f64::EPSILON * doubles];
        let error = [f64::from(a) - f64::from(c), b - d].map(f64::abs);
        assert!(error[0] <= bound[0] && error[1] <= bound[1], "seed {seed}: {error:?}, at most {bound:?}");
        differ += u32::from(error[0] > 0.0) + u32::from(error[1] > 0.0);
    }
    assert!(differ > 1_000, "the orders are not as different as they should be: {differ} of 2000");
}

#[test]
fn random_programs_are_the_same_in_cpp() {
    let sink = Subject::of::<programs::sink::Actor>();
    let subjects = programs::subjects();
    let plan = Plan { sequences: 100, messages_max: 8, seed: 1 };
    let mut tally = Tally::default();
    let mut reports = Vec::new();
    for (unit, subjects) in subjects.chunks(UNIT).enumerate() {
        let subjects: Vec<&Subject> = subjects.iter().collect();
        let mut library = Library::compile(&subjects, &[&sink], "-O1").unwrap_or_else(|error| panic!("{error}"));
        for (index, subject) in subjects.iter().enumerate() {
            match compare(subject, &mut library, index, plan) {
                Ok(more) => tally.add(more),
                Err(mismatch) => reports.push(report(&mismatch, programs::SOURCES[unit * UNIT + index])),
            }
        }
    }
    println!("{} programs, {tally:?}", subjects.len());
    assert!(reports.is_empty(), "{} of {} programs differ; the first:\n{}", reports.len(), subjects.len(), reports[0]);
}

#[test]
fn every_actor_written_by_hand_is_the_same_in_a_ring_kernel() {
    let sink = Subject::of::<programs::sink::Actor>();
    let mut subjects = shipped();
    subjects.push(Subject::of::<corners::corners::Actor>());
    subjects.push(Subject::of::<wide::wide::Actor>());
    let subjects: Vec<&Subject> = subjects.iter().collect();
    let kernel = Kernel::compile(&subjects, &[&sink]).unwrap_or_else(|error| panic!("{error}"));
    for subject in subjects {
        let plan = Plan { sequences: 500, messages_max: 12, seed: 1 };
        let tally = kernel.compare(subject, plan).unwrap_or_else(|mismatch| panic!("{mismatch}"));
        println!("{}: {tally:?}", subject.source.module);
    }
}

#[test]
fn random_programs_are_the_same_in_a_ring_kernel() {
    let sink = Subject::of::<programs::sink::Actor>();
    let subjects = programs::subjects();
    let plan = Plan { sequences: 100, messages_max: 8, seed: 1 };
    let mut tally = Tally::default();
    let mut reports = Vec::new();
    for (unit, subjects) in subjects.chunks(UNIT).enumerate() {
        let subjects: Vec<&Subject> = subjects.iter().collect();
        let kernel = Kernel::compile(&subjects, &[&sink]).unwrap_or_else(|error| panic!("{error}"));
        for (index, subject) in subjects.iter().enumerate() {
            match kernel.compare(subject, plan) {
                Ok(more) => tally.add(more),
                Err(mismatch) => reports.push(report(&mismatch, programs::SOURCES[unit * UNIT + index])),
            }
        }
    }
    println!("{} programs, {tally:?}", subjects.len());
    assert!(reports.is_empty(), "{} of {} programs differ; the first:\n{}", reports.len(), subjects.len(), reports[0]);
}

/// What a person needs to see it again.
fn report(mismatch: &Mismatch, (seed, source): (u64, &str)) -> String {
    let source: String = source.lines().enumerate().map(|(at, line)| format!("{:4} {line}\n", at + 1)).collect();
    format!(
        "{mismatch}\n  program of seed {seed}:\n{source}  again with: RINGHOLD_PROGRAMS=1 RINGHOLD_PROGRAM_SEED={seed} \
         cargo test -p ringhold-tests --test differential random_programs"
    )
}

#[test]
fn the_fixed_programs_use_every_operator_at_every_width() {
    if programs::SOURCES.len() < 200 {
        println!("skipped: RINGHOLD_PROGRAMS asks for fewer than the fixed set of 200");
        return;
    }
    let has = |feature: &String| programs::FEATURES.contains(&feature.as_str());
    let missing: Vec<_> = generator::all_features().into_iter().filter(|feature| !has(feature)).collect();
    assert!(missing.is_empty(), "no program has {missing:?}");
}

/// Architectures that Ringhold runs on, of which an NVRTC knows some.
const ARCHITECTURES: [u32; 7] = [70, 75, 80, 86, 89, 90, 100];
/// Of the random programs, how many NVRTC compiles: it takes some tenths of a second for each.
const NVRTC_PROGRAMS: usize = 20;

#[test]
fn nvrtc_compiles_every_actor() {
    let Some(nvrtc) = Nvrtc::find() else {
        println!("skipped: no NVRTC ({})", nvrtc::HOW_TO_GET_IT);
        return;
    };
    let known = nvrtc.architectures();
    let sink = Subject::of::<programs::sink::Actor>();
    let mut shipped = shipped();
    shipped.push(Subject::of::<corners::corners::Actor>());
    shipped.push(Subject::of::<wide::wide::Actor>());
    shipped.push(Subject::of::<wide::sums::Actor>());
    let shipped: Vec<&Subject> = shipped.iter().collect();
    for architecture in ARCHITECTURES.into_iter().filter(|architecture| known.contains(architecture)) {
        let source = translation_unit(&shipped, &[&sink]);
        nvrtc.compile(&source, architecture).unwrap_or_else(|said| panic!("sm_{architecture}: {said}"));
        println!("shipped actors for sm_{architecture}");
    }
    for (subject, (seed, _)) in programs::subjects().iter().zip(programs::SOURCES).take(NVRTC_PROGRAMS) {
        let source = translation_unit(&[subject], &[&sink]);
        nvrtc.compile(&source, 90).unwrap_or_else(|said| panic!("program of seed {seed}: {said}"));
    }
}
