//! Compiled kernels: kept, so that a device starts without its compiler having to run again.
//!
//! A file's name is the hash of all that decides what is in it: the program's text, the compiler's options and version,
//! and the architecture. In the file stands the hash of its content, which is looked at before the content is used: a
//! file that was cut short, changed or put there by mistake is compiled anew and replaced. That is no signature: who
//! may write to the folder decides what runs, so only the node's own user may.
//!
//! It is a cache. A folder that cannot be read or written costs time and nothing else.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ring::digest::{Context, Digest, SHA256};

/// How many kernels are kept: some versions of a program, for some architectures. The oldest go first.
pub const KEPT_MAX: usize = 32;

/// A file starts with it, the key and the content's hash; then comes the content.
const MAGIC: &[u8; 8] = b"rhkernl1";
const HASH_BYTES: usize = 32;
const HEAD_BYTES: usize = MAGIC.len() + 2 * HASH_BYTES;
const SUFFIX: &str = "cubin";
/// What a writer that was killed leaves behind.
const UNFINISHED: &str = "unfinished-";

/// All that decides what a compiler makes.
#[derive(Clone, Copy, Debug)]
pub struct Recipe<'a> {
    pub source: &'a str,
    pub options: &'a [String],
    /// The compiler's name and version.
    pub compiler: &'a str,
    /// As in 90 for `sm_90`.
    pub architecture: u32,
}

/// The folder of compiled kernels.
#[derive(Clone, Debug)]
pub struct Kernels {
    folder: PathBuf,
}

/// Machine code, and how it was come by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    pub code: Vec<u8>,
    /// Whether it had been compiled before.
    pub cached: bool,
    /// What is wrong with the folder, for the log.
    pub notes: Vec<String>,
}

impl Recipe<'_> {
    /// SHA-256, in hexadecimal digits.
    pub fn key(&self) -> String {
        hex(self.digest().as_ref())
    }

    fn digest(&self) -> Digest {
        let mut context = Context::new(&SHA256);
        // Lengths stand before the texts, so that no two recipes are the same bytes.
        let mut add = |bytes: &[u8]| {
            context.update(&(bytes.len() as u64).to_le_bytes());
            context.update(bytes);
        };
        add(self.source.as_bytes());
        add(&(self.options.len() as u64).to_le_bytes());
        self.options.iter().for_each(|option| add(option.as_bytes()));
        add(self.compiler.as_bytes());
        add(&self.architecture.to_le_bytes());
        context.finish()
    }
}

impl Kernels {
    /// It need not exist.
    pub fn new(folder: impl Into<PathBuf>) -> Kernels {
        Kernels { folder: folder.into() }
    }

    /// The recipe's machine code: kept from before, or made now and kept.
    ///
    /// # Errors
    /// `make`'s, and no other.
    pub fn get<E>(&self, recipe: &Recipe, make: impl FnOnce() -> Result<Vec<u8>, E>) -> Result<Kernel, E> {
        let path = self.folder.join(recipe.key()).with_extension(SUFFIX);
        let mut notes = Vec::new();
        match fs::read(&path) {
            Ok(file) => match content(file, recipe) {
                Ok(code) => return Ok(Kernel { code, cached: true, notes }),
                Err(why) => notes
                    .push(format!("the compiled kernel {} {why}: it is not used, but compiled anew", path.display())),
            },
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => notes.push(format!("the compiled kernel {} cannot be read: {e}", path.display())),
        }
        let code = make()?;
        if let Err(e) = self.keep(&path, recipe, &code) {
            notes.push(format!(
                "the compiled kernel cannot be kept in {} ({e}): it is compiled again at every start",
                self.folder.display()
            ));
        }
        Ok(Kernel { code, cached: false, notes })
    }

    /// Keeps what a compiler said of the recipe, for people, in place of what is there of an earlier time.
    pub fn keep_log(&self, recipe: &Recipe, log: &str) -> io::Result<PathBuf> {
        let path = self.folder.join(recipe.key()).with_extension("log");
        self.replace(&path, &[log.as_bytes()])?;
        Ok(path)
    }

    fn keep(&self, path: &Path, recipe: &Recipe, code: &[u8]) -> io::Result<()> {
        self.replace(path, &[MAGIC, recipe.digest().as_ref(), hash(code).as_ref(), code])?;
        self.forget_the_oldest()
    }

    /// After a crash the file is the old one or the new one, as a whole. Several processes may do this at once.
    fn replace(&self, path: &Path, parts: &[&[u8]]) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let mut file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(&self.folder)?;
        parts.iter().try_for_each(|part| file.write_all(part))?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|e| e.error)?;
        File::open(&self.folder)?.sync_all()
    }

    fn forget_the_oldest(&self) -> io::Result<()> {
        let mut kept: Vec<(SystemTime, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.ends_with(SUFFIX) || name.ends_with("log") || name.starts_with(UNFINISHED) {
                // One that another process has just removed is no error.
                let Ok(modified) = fs::metadata(&path).and_then(|metadata| metadata.modified()) else { continue };
                kept.push((modified, path));
            }
        }
        kept.sort_unstable();
        for (_, path) in &kept[..kept.len().saturating_sub(KEPT_MAX)] {
            let _ = fs::remove_file(path);
        }
        Ok(())
    }
}

/// What is in a file, once it is proven to be what was kept for the recipe.
fn content(mut file: Vec<u8>, recipe: &Recipe) -> Result<Vec<u8>, &'static str> {
    if file.len() < HEAD_BYTES || !file.starts_with(MAGIC) {
        return Err("is cut short, or no file of Ringhold");
    }
    let code = file.split_off(HEAD_BYTES);
    let (key, hashed) = file[MAGIC.len()..].split_at(HASH_BYTES);
    if key != recipe.digest().as_ref() {
        return Err("is of another program");
    }
    if hashed != hash(&code).as_ref() {
        return Err("is damaged");
    }
    Ok(code)
}

fn hash(bytes: &[u8]) -> Digest {
    ring::digest::digest(&SHA256, bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::convert::Infallible;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const RECIPE: Recipe = Recipe { source: "kernel", options: &[], compiler: "NVRTC 12.9", architecture: 90 };

    /// A compiler that counts how often it ran.
    #[derive(Default)]
    struct Fake(Cell<u32>);

    impl Fake {
        fn get(&self, kernels: &Kernels, recipe: &Recipe) -> Kernel {
            let made = kernels.get(recipe, || {
                self.0.set(self.0.get() + 1);
                Ok::<_, Infallible>(format!("code of {} for {}", recipe.source, recipe.architecture).into_bytes())
            });
            made.unwrap()
        }
    }

    fn folder() -> (tempfile::TempDir, Kernels) {
        let folder = tempfile::tempdir().unwrap();
        let kernels = Kernels::new(folder.path().join("kernels"));
        (folder, kernels)
    }

    fn file(kernels: &Kernels) -> PathBuf {
        kernels.folder.join(RECIPE.key()).with_extension(SUFFIX)
    }

    #[test]
    fn a_program_is_compiled_once() {
        let (_folder, kernels) = folder();
        let compiler = Fake::default();
        let first = compiler.get(&kernels, &RECIPE);
        assert_eq!(first, Kernel { code: b"code of kernel for 90".to_vec(), cached: false, notes: vec![] });
        let again = compiler.get(&Kernels::new(&kernels.folder), &RECIPE);
        assert_eq!(again, Kernel { cached: true, ..first });
        assert_eq!(compiler.0.get(), 1);
        assert_eq!(fs::metadata(&kernels.folder).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(file(&kernels)).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&kernels.folder).unwrap().count(), 1, "nothing is left of the writing");
    }

    #[test]
    fn whatever_decides_the_code_is_in_the_key() {
        let ab = ["a".to_string(), "b".to_string()];
        let joined = ["ab".to_string()];
        let recipes = [
            RECIPE,
            Recipe { source: "kernel2", ..RECIPE },
            Recipe { options: &ab, ..RECIPE },
            Recipe { options: &joined, ..RECIPE },
            Recipe { compiler: "NVRTC 13.0", ..RECIPE },
            Recipe { architecture: 80, ..RECIPE },
            Recipe { source: "", compiler: "kernelNVRTC 12.9", ..RECIPE },
        ];
        let mut keys: Vec<_> = recipes.iter().map(Recipe::key).collect();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), recipes.len());
        assert!(keys.iter().all(|key| key.len() == 64));
    }

    #[test]
    fn a_file_that_is_not_what_was_kept_is_replaced_and_said_to_be() {
        let (_folder, kernels) = folder();
        let compiler = Fake::default();
        let good = compiler.get(&kernels, &RECIPE).code;
        let sound = fs::read(file(&kernels)).unwrap();
        let other = Recipe { architecture: 80, ..RECIPE };
        compiler.get(&kernels, &other);
        let foreign = fs::read(kernels.folder.join(other.key()).with_extension(SUFFIX)).unwrap();
        let mut damaged = Vec::new();
        for at in [0, 8, 40, 72, sound.len() - 1] {
            let mut bytes = sound.clone();
            bytes[at] ^= 1;
            damaged.push(bytes);
        }
        let longer = [sound.as_slice(), b"x"].concat();
        damaged.extend([
            sound[..sound.len() - 1].to_vec(),
            sound[..20].to_vec(),
            vec![],
            foreign,
            longer,
            good.clone(),
        ]);
        for (n, bytes) in damaged.iter().enumerate() {
            fs::write(file(&kernels), bytes).unwrap();
            let before = compiler.0.get();
            let kernel = compiler.get(&kernels, &RECIPE);
            assert_eq!((&kernel.code, kernel.cached, compiler.0.get()), (&good, false, before + 1), "case {n}");
            assert!(
                kernel.notes.len() == 1 && kernel.notes[0].contains("compiled anew"),
                "case {n}: {:?}",
                kernel.notes
            );
            assert_eq!(fs::read(file(&kernels)).unwrap(), sound, "case {n}");
        }
        assert!(compiler.get(&kernels, &RECIPE).cached);
    }

    #[test]
    fn a_folder_that_cannot_be_used_costs_only_the_cache() {
        let (folder, _) = folder();
        let compiler = Fake::default();
        // A file in its place serves for root too, whom no permission stops.
        let blocked = Kernels::new(folder.path().join("blocked"));
        fs::write(&blocked.folder, "").unwrap();
        for _ in 0..2 {
            let kernel = compiler.get(&blocked, &RECIPE);
            assert_eq!((kernel.code.as_slice(), kernel.cached), (b"code of kernel for 90".as_slice(), false));
            assert!(kernel.notes.iter().any(|note| note.contains("compiled again at every start")), "{kernel:?}");
        }
        assert_eq!(compiler.0.get(), 2);
        assert!(blocked.keep_log(&RECIPE, "said").is_err());
    }

    #[test]
    fn a_compiler_that_fails_leaves_nothing_but_its_log() {
        let (_folder, kernels) = folder();
        assert_eq!(kernels.get(&RECIPE, || Err("no")), Err("no"));
        let log = kernels.keep_log(&RECIPE, "line 3: error").unwrap();
        assert_eq!(fs::read_to_string(&log).unwrap(), "line 3: error");
        assert_eq!(fs::read_dir(&kernels.folder).unwrap().count(), 1);
        assert!(!Fake::default().get(&kernels, &RECIPE).cached);
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let (_folder, kernels) = folder();
        let compiler = Fake::default();
        let recipe = |architecture| Recipe { architecture, ..RECIPE };
        let count = KEPT_MAX as u32 + 5;
        for architecture in 0..count {
            compiler.get(&kernels, &recipe(architecture));
            let kept = kernels.folder.join(recipe(architecture).key()).with_extension(SUFFIX);
            let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(architecture.into());
            File::options().write(true).open(kept).unwrap().set_modified(at).unwrap();
        }
        let kept = fs::read_dir(&kernels.folder).unwrap().count();
        assert_eq!(kept, KEPT_MAX);
        assert!(compiler.get(&kernels, &recipe(count - 1)).cached);
        assert!(!compiler.get(&kernels, &recipe(0)).cached);
    }
}
