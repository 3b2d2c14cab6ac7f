//! The C++ of actors, compiled by the host's compiler and called from here.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use ringhold_kernels::actor::{Fault, FaultKind};
use ringhold_kernels::cuda;
use ringhold_kernels::hlc::Hlc;
use ringhold_kernels::id::{ActorId, TypeId};
use ringhold_kernels::plain::Plain;
use ringhold_kernels::trial::{Outcome, Sent};

use super::Subject;

/// Effects of one message, at most.
const EFFECTS_BYTES_MAX: usize = 1 << 20;
const RECORD_HEAD_BYTES: usize = 32;
const MALFORMED: u32 = u32::MAX;
const WRONG_TYPE: u32 = u32::MAX;

/// As in `recorder.cpp`.
#[repr(C)]
struct Recorder {
    id: ActorId,
    sender: ActorId,
    now: u64,
    bytes: *mut u8,
    capacity: u64,
    length: u64,
    replies: u32,
    stopped: u32,
    /// Set by the C++: the threads of the actor.
    width: u32,
    reserved: u32,
}

type Run = unsafe extern "C" fn(state: *mut u8, message: *const u8, recorder: *mut Recorder, result: *mut u32);
type Accept = unsafe extern "C" fn(message: *const u8, result: *mut u32);

/// Several actor types as one loaded library.
pub struct Library {
    entries: Vec<(&'static str, Run, Accept)>,
    effects: Vec<u8>,
    // Last, so that it is unloaded after what points into it is gone.
    _loaded: libloading::Library,
    _folder: tempfile::TempDir,
}

impl Library {
    /// Compiles and loads the C++ of these actors, without a warning. `optimise` is a compiler's `-O` level.
    /// `foreign` are those that they send to.
    ///
    /// # Errors
    /// The compiler's own words where it refuses the code; what to install where there is none.
    pub fn compile(subjects: &[&Subject], foreign: &[&Subject], optimise: &str) -> Result<Library, String> {
        let folder = tempfile::tempdir().map_err(|e| format!("no temporary folder: {e}"))?;
        let text = translation_unit(subjects, foreign);
        let (source, library) = (folder.path().join("actors.cpp"), folder.path().join("actors.so"));
        std::fs::write(&source, text).map_err(|e| format!("{}: {e}", source.display()))?;
        run_compiler(&source, &library, optimise)?;

        // SAFETY: the library is what was just compiled; nothing runs when it is loaded.
        let loaded =
            unsafe { libloading::Library::new(&library) }.map_err(|e| format!("{}: {e}", library.display()))?;
        let mut entries = Vec::new();
        for subject in subjects {
            let module = subject.source.module;
            let missing = |e: libloading::Error| format!("the library lacks {module}: {e}");
            // SAFETY: `RUN` in recorder.cpp defines both with these types.
            let (run, accept) = unsafe {
                let run = *loaded.get::<Run>(format!("run_{module}").as_bytes()).map_err(missing)?;
                (run, *loaded.get::<Accept>(format!("accept_{module}").as_bytes()).map_err(missing)?)
            };
            entries.push((module, run, accept));
        }
        Ok(Library { entries, effects: vec![0; EFFECTS_BYTES_MAX], _loaded: loaded, _folder: folder })
    }

    /// Runs the C++ handler of the `index`th subject, as `trial::run` runs the native one.
    pub fn run(
        &mut self,
        index: usize,
        state: &mut [u8],
        message: &[u8],
        id: ActorId,
        sender: ActorId,
        now: Hlc,
    ) -> Outcome {
        let (module, run, _) = self.entries[index];
        let mut recorder = Recorder {
            id,
            sender,
            now: now.0,
            bytes: self.effects.as_mut_ptr(),
            capacity: self.effects.len() as u64,
            length: 0,
            replies: 0,
            stopped: 0,
            width: 0,
            reserved: 0,
        };
        let mut fault = MALFORMED;
        // SAFETY: state and message have the sizes of the subject's schema, which the C++ asserts; the recorder's
        // bytes outlive the call.
        unsafe { run(state.as_mut_ptr(), message.as_ptr(), &mut recorder, &mut fault) };
        assert_ne!(fault, MALFORMED, "{module}: the C++ refused a state or a message that Rust accepts");
        if fault != 0 {
            let kind = [FaultKind::DivisionByZero, FaultKind::IndexOutOfBounds, FaultKind::ClampBounds];
            let kind = kind.into_iter().find(|kind| *kind as u32 == fault & 0xff).expect("a known kind of fault");
            return Outcome { fault: Some(Fault { kind, line: fault >> 8 }), ..Outcome::default() };
        }
        assert!(recorder.length <= recorder.capacity, "{module}: more than {EFFECTS_BYTES_MAX} bytes of effects");
        read_effects(&self.effects[..recorder.length as usize], recorder.replies, recorder.stopped != 0)
    }

    /// Whether bytes are a message, by the C++ reader.
    pub fn accepts(&self, index: usize, message: &[u8]) -> bool {
        let (_, _, accept) = self.entries[index];
        let mut result = 0;
        // SAFETY: the message has the size of the subject's schema.
        unsafe { accept(message.as_ptr(), &mut result) };
        result != 0
    }
}

/// The headers, the actors, and an entry for each subject. Also what NVRTC is given.
pub fn translation_unit(subjects: &[&Subject], foreign: &[&Subject]) -> String {
    let sources: Vec<_> = foreign.iter().chain(subjects).map(|subject| subject.source).collect();
    let mut text = cuda::translation_unit(&sources);
    text.push_str(include_str!("recorder.cpp"));
    for Subject { source, .. } in subjects {
        text.push_str(&format!("RUN({}, {})\n", source.namespace(), source.module));
    }
    text
}

fn read_effects(mut bytes: &[u8], replies: u32, stopped: bool) -> Outcome {
    let mut outcome = Outcome { stopped, replies_extra: replies.saturating_sub(1), ..Outcome::default() };
    while !bytes.is_empty() {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let (size, message_type) = (word(0) as usize, word(4));
        let delay_us = u64::from_le_bytes(bytes[8..16].try_into().expect("eight bytes"));
        let to = ActorId::from_bytes(&bytes[16..32]).expect("any bytes are an id");
        let payload = bytes[RECORD_HEAD_BYTES..][..size].to_vec();
        let rest = &bytes[(RECORD_HEAD_BYTES + size).next_multiple_of(8)..];
        match message_type {
            0 => outcome.reply = Some(payload),
            _ => {
                let message_type = (message_type != WRONG_TYPE).then_some(TypeId(message_type));
                outcome.sends.push(Sent { delay_us, to, message_type, payload });
            }
        }
        bytes = rest;
    }
    outcome
}

fn run_compiler(source: &Path, library: &Path, optimise: &str) -> Result<(), String> {
    let compiler = std::env::var_os("CXX").unwrap_or_else(|| OsString::from("c++"));
    let output = Command::new(&compiler)
        .args(cuda::HOST_OPTIONS)
        .args([optimise, "-Wall", "-Wextra", "-Werror"])
        // What a user leaves unused is for rustc to tell; a variant's fields are written only under its tag, which
        // a C++ compiler cannot know.
        .args(["-Wno-unused", "-Wno-unused-parameter", "-Wno-maybe-uninitialized"])
        .args(["-shared", "-fPIC", "-fvisibility=hidden", "-o"])
        .args([library, source])
        .output()
        .map_err(|e| format!("no C++ compiler `{}` ({e}): install one, or set CXX", compiler.display()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let kept = std::env::temp_dir().join("ringhold-refused.cpp");
    let _ = std::fs::copy(source, &kept);
    let said: String = said.chars().take(6000).collect();
    Err(format!("`{}` refused the generated C++ (kept as {}):\n{said}", compiler.display(), kept.display()))
}
