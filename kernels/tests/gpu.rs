//! A device on a GPU that is none: everything that the host does is what ships, from the driver's functions to the
//! node's end of the segment. Only the GPU is made up (`fake/run.c`), and its machine code is the host compiler's.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ringhold_kernels::bell::Bell;
use ringhold_kernels::emulated;
use ringhold_kernels::gpu::driver::{Absent, Driver, Gpu};
use ringhold_kernels::gpu::launch::{self, Device, Error, Look};
use ringhold_kernels::hlc::Hlc;
use ringhold_kernels::id::{ActorId, Key};
use ringhold_kernels::link::Link;
use ringhold_kernels::message::{Header, Kind};
use ringhold_kernels::outbox::Owners;
use ringhold_kernels::plain::Plain;
use ringhold_kernels::registry::Registry;
use ringhold_kernels::ring_kernel::Plan;
use ringhold_kernels::rt::Actor as _;
use ringhold_kernels::segment::{Framing, Segment, Shape};

extern crate ringhold_kernels as ringhold;

/// Adds, and tells the time.
#[ringhold::actor]
pub mod adder {
    pub struct State {
        pub sum: u64,
    }

    pub enum Message {
        Add { number: u64 },
    }

    pub enum Reply {
        Sum { sum: u64, now: u64 },
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Add { number } => state.sum += number,
        }
        ctx.reply(Reply::Sum { sum: state.sum, now: ctx.now() });
    }
}

struct NoBell;

impl Bell for NoBell {
    fn ring(&self) {}
}

const WORKERS: u32 = 2;

/// A GPU, the node's end of a device on it, and what the device's kernel is made of.
struct Bench {
    library: PathBuf,
    gpu: Gpu,
    registry: Registry,
    segment: Arc<Segment>,
    link: Link,
    plan: Plan,
}

impl Bench {
    fn new(name: &str, defines: &[&str]) -> Bench {
        Bench::with(name, "run.c", defines)
    }

    /// `name` is the test's own, so that no two have one library.
    fn with(name: &str, source: &str, defines: &[&str]) -> Bench {
        let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("libcuda-{name}.so"));
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-pthread", "-Wall", "-Werror", "-o"])
            .arg(&library)
            .args(defines.iter().map(|define| format!("-D{define}")))
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake").join(source))
            .status()
            .expect("cc runs");
        assert!(compiled.success());
        let gpu = Driver::load([library.clone()]).unwrap().gpus().unwrap().remove(0).unwrap();

        let mut registry = Registry::new();
        registry.register::<adder::Actor>().unwrap();
        let shape = Shape { workers: WORKERS, lanes: 1, framing: Framing::Flits as u32, ..Shape::default() };
        let segment = Segment::create(shape, registry.layout_hash(), &Owners::all_here(WORKERS as usize)).unwrap();
        let bell: Arc<dyn Bell> = Arc::new(NoBell);
        let mut link = Link::new(segment.clone(), Arc::new(vec![bell; WORKERS as usize]));
        link.begin_term();
        let plan = Plan::divide(16 << 20, 32, &registry, &shape);
        Bench { library, gpu, registry, segment, link, plan }
    }

    /// The program as a shared library, which is what the GPU takes for a cubin.
    fn code(&self) -> Vec<u8> {
        let program = launch::program(&self.registry, self.segment.shape(), &self.plan).unwrap();
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(self.library.file_stem().unwrap());
        let _ = std::fs::remove_dir_all(&folder);
        emulated::Program::compile(program.text(), &[], &folder).unwrap_or_else(|e| panic!("{e}"));
        let mut made = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        std::fs::read(made.find(|path| path.extension().is_some_and(|e| e == "so")).unwrap()).unwrap()
    }

    fn start(&self, code: &[u8]) -> Result<Device, Error> {
        let driver = Driver::load([self.library.clone()]).unwrap();
        // SAFETY: the made-up GPU looks at what it is given.
        unsafe { Device::start(driver, &self.gpu, code, &self.plan, &self.segment, Arc::new(NoBell)) }
    }

    /// What the device has not given back to the GPU.
    fn live(&self) -> i32 {
        // SAFETY: it is loaded already, and its word is a C `int` that nobody writes now.
        unsafe {
            let library = libloading::Library::new(&self.library).unwrap();
            **library.get::<*const i32>(b"fake_live").unwrap()
        }
    }

    fn why_not(&self, code: &[u8]) -> Error {
        let Err(error) = self.start(code) else { panic!("it started") };
        assert_eq!(self.live(), 0, "{error}");
        error
    }
}

/// An image that loads and has no kernel that would run: for starts that do not get so far.
fn empty_code(bench: &Bench) -> Vec<u8> {
    let (source, library) = (bench.library.with_extension("c"), bench.library.with_extension("empty"));
    std::fs::write(&source, "int rh_ring_kernel(void) { return 0; }").unwrap();
    let compiled = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &source]).status().unwrap();
    assert!(compiled.success());
    std::fs::read(library).unwrap()
}

#[test]
fn a_device_starts_answers_and_ends_when_its_node_asks_it_to() {
    let mut bench = Bench::new("runs", &[]);
    let code = bench.code();
    for launch in 1..=3u64 {
        let mut device = bench.start(&code).unwrap();
        assert_eq!(bench.live(), 4, "arena, segment, module, stream");
        let began = Instant::now();
        let look = |device: &mut Device| {
            assert!(began.elapsed() < Duration::from_secs(60), "it takes too long");
            match device.look().unwrap() {
                Look::Runs(pause) => std::thread::sleep(pause),
                Look::Ended => return false,
            }
            true
        };
        while !bench.link.is_running() {
            assert!(look(&mut device), "it runs until it is asked to end");
        }
        for number in 1..=10u64 {
            let to = ActorId::new(adder::Actor::TYPE, Key(number % 3));
            let message = adder::Message::Add { number }.to_bytes();
            let header =
                Header::new(Kind::Ask, to, ActorId::new(Default::default(), Key(number)), message.len(), Hlc(0));
            bench.link.push(&header, &message).unwrap();
        }
        let mut answers = Vec::new();
        while answers.len() < 10 {
            assert!(look(&mut device), "it runs until it is asked to end");
            bench.link.drain(100, |header, payload| answers.push((*header, payload.to_vec())));
        }
        let now_us = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64;
        let mut sums = [0; 3];
        for (header, payload) in &answers {
            assert_eq!(header.kind(), Some(Kind::Reply));
            let adder::Reply::Sum { sum, now } = adder::Reply::from_bytes(payload).unwrap();
            let at_us = Hlc(now).us();
            assert!(at_us.abs_diff(now_us) < 60_000_000, "launch {launch}: {at_us} is not about {now_us}");
            let of = &mut sums[header.to().key.0 as usize % 3];
            *of = sum.max(*of);
        }
        // 3+6+9, 1+4+7+10, 2+5+8, from zero in each launch.
        assert_eq!(sums, [18, 22, 15], "launch {launch}");
        bench.link.stop();
        while look(&mut device) {}
        drop(device);
        assert_eq!(bench.live(), 0, "everything is given back");
        bench.link.begin_term();
    }
}

#[test]
fn a_kernel_that_cannot_be_resident_is_refused_with_both_numbers() {
    let bench = Bench::new("resident", &["RESIDENT=0"]);
    let error = bench.why_not(&empty_code(&bench));
    assert!(matches!(error, Error::Refused { resident: 0, .. }), "{error}");
    let said = error.to_string();
    assert!(said.starts_with("the ring kernel's 5 blocks of 32 threads wait for each other"), "{said}");
    assert!(said.contains("cuda:0 (Fake H100) runs 0 (132 multiprocessors, 0 each)"), "{said}");
}

#[test]
fn memory_that_is_not_there_is_said_to_be_missing() {
    let bench = Bench::new("memory", &["MEMORY=100"]);
    let error = bench.why_not(&empty_code(&bench));
    assert!(matches!(error, Error::Memory { needs_bytes: 4096, .. }), "{error}");
    let bench = Bench::new("pin", &["PIN=2"]);
    let error = bench.why_not(&empty_code(&bench));
    assert!(matches!(error, Error::Pin { .. }) && error.to_string().contains("ulimit -l"), "{error}");
}

#[test]
fn a_call_that_fails_before_the_launch_is_the_drivers_error() {
    let bench = Bench::new("call", &["PIN=1"]);
    let error = bench.why_not(&empty_code(&bench));
    let Error::Driver(call) = error else { panic!("{error}") };
    assert_eq!((call.call, call.code), ("cuMemHostRegister_v2", 1));
    let Error::Driver(call) = bench.why_not(&[0; 64]) else { panic!("it is no code") };
    assert_eq!((call.call, call.code), ("cuModuleLoadData", 200));
}

#[test]
fn a_driver_that_can_be_asked_and_not_used_is_broken() {
    let bench = Bench::with("asked", "cuda.c", &[]);
    let Err(Error::Absent(Absent::Broken { missing, .. })) = bench.start(&[]) else {
        panic!("it has not its functions")
    };
    assert!(missing.contains(&"cuLaunchCooperativeKernel") && !missing.contains(&"cuMemGetInfo_v2"), "{missing:?}");
}

#[test]
fn a_code_that_no_header_has_is_told_as_it_is() {
    for code in [-1, 12_345] {
        let bench = Bench::new(&format!("pin{code}"), &[&format!("PIN={code}")]);
        let Error::Driver(call) = bench.why_not(&empty_code(&bench)) else { panic!("it is the call's") };
        assert_eq!((call.call, call.code, call.said.as_str()), ("cuMemHostRegister_v2", code, ""));
        let bench = Bench::new(&format!("crash{code}"), &[&format!("CRASH={code}")]);
        let mut device = bench.start(&empty_code(&bench)).unwrap();
        let Error::Sticky(call) = device.look().unwrap_err() else { panic!("it is the kernel's") };
        assert_eq!((call.call, call.code, call.said.as_str()), ("cuStreamQuery", code, ""));
    }
}

#[test]
fn a_kernel_that_ends_in_an_error_is_over_with_its_code() {
    let bench = Bench::new("crash", &["CRASH=700"]);
    let mut device = bench.start(&empty_code(&bench)).unwrap();
    let error = device.look().unwrap_err();
    let Error::Sticky(call) = error else { panic!("{error}") };
    assert_eq!((call.call, call.code), ("cuStreamQuery", 700));
}
