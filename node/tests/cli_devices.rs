//! `ringhold devices` on machines of every kind: those whose driver is missing, broken, old or unwilling, and those with
//! GPUs. The drivers are small libraries that are compiled here and loaded by the real binary.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

/// A machine with these libraries in its loader's path.
struct Machine(TempDir);

impl Machine {
    fn new() -> Machine {
        Machine(tempfile::tempdir().unwrap())
    }

    /// Compiles a library from `kernels/tests/fake`, or from nothing, as `name`.
    fn with(self, name: &str, source: Option<&str>, defines: &[&str]) -> Machine {
        let source = match source {
            Some(source) => Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernels/tests/fake").join(source),
            None => {
                let empty = self.0.path().join("empty.c");
                fs::write(&empty, "").unwrap();
                empty
            }
        };
        // The compiler that links this test.
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-o"])
            .arg(self.0.path().join(name))
            .args(defines.iter().map(|define| format!("-D{define}")))
            .arg(source)
            .status()
            .expect("cc runs");
        assert!(compiled.success());
        self
    }

    fn driver(self, defines: &[&str]) -> Machine {
        self.with("libcuda.so.1", Some("cuda.c"), defines)
    }

    fn compiler(self, defines: &[&str]) -> Machine {
        self.with("libnvrtc.so.12", Some("nvrtc.c"), defines)
    }

    fn nvml(self, defines: &[&str]) -> Machine {
        self.with("libnvidia-ml.so.1", Some("nvml.c"), defines)
    }

    fn run(&self, args: &[&str]) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_ringhold"))
            .args(["devices"])
            .args(args)
            .current_dir(self.0.path())
            .env("LD_LIBRARY_PATH", self.0.path())
            // The compiler of this machine, if it has one, is not of the one that is made up.
            .env("RINGHOLD_NVRTC", self.0.path())
            .env_remove("CUDA_VISIBLE_DEVICES")
            .stdin(Stdio::null())
            .output()
            .expect("the binary runs");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{stderr}");
        assert_eq!(stderr, "", "nothing went wrong");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self) -> Value {
        let value: Value = serde_json::from_str(&self.run(&["--json"])).expect("one JSON value");
        assert!(value["machine"]["cpu"]["cores"].as_u64() >= Some(1), "{value}");
        assert_eq!(value["devices"], Value::Null, "no node runs here");
        assert!(value["no_node"].as_str().unwrap().starts_with("no node answers"), "{value}");
        value["machine"].clone()
    }

    /// Why it has no GPUs, for programs; people are told the same.
    #[track_caller]
    fn has_no_gpus_because(&self, why: &str) {
        let machine = self.json();
        assert_eq!(machine["gpus"], json!([]));
        let said = machine["no_gpus"].as_str().unwrap_or_default();
        assert!(said.contains(why), "no `{why}` in `{said}`");
        assert!(self.run(&[]).contains(why));
    }
}

#[test]
fn without_a_driver_it_says_what_was_looked_for() {
    let installed = |folder: &str| Path::new(folder).join("libcuda.so.1").exists();
    if ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/lib/wsl/lib"]
        .into_iter()
        .any(installed)
    {
        println!("skipped: this machine has a driver");
        return;
    }
    let machine = Machine::new();
    machine.has_no_gpus_because("there is no NVIDIA driver here: looked for libcuda.so.1, libcuda.so;");
    assert_eq!(machine.json()["driver"], Value::Null);
}

#[test]
fn a_file_that_is_no_library_is_named_with_what_the_loader_says() {
    let machine = Machine::new();
    for name in ["libcuda.so.1", "libcuda.so"] {
        fs::write(machine.0.path().join(name), "this is text").unwrap();
    }
    machine.has_no_gpus_because("libcuda.so.1 does not load (");
}

#[test]
fn a_library_without_its_functions_is_broken() {
    let machine = Machine::new().with("libcuda.so.1", None, &[]);
    machine.has_no_gpus_because("the driver library libcuda.so.1 lacks cuInit, cuDriverGetVersion, ");
    // One that has an older form of a function.
    let machine = Machine::new().driver(&["cuMemGetInfo_v2=cuMemGetInfo"]);
    machine.has_no_gpus_because("the driver library libcuda.so.1 lacks cuMemGetInfo_v2: it is broken, or older than");
}

#[test]
fn a_driver_that_does_not_start_is_quoted() {
    Machine::new().driver(&["INIT=100"]).has_no_gpus_because("the NVIDIA driver sees no GPU");
    let unknown = "the NVIDIA driver does not start: cuInit failed with 999 (CUDA_ERROR_UNKNOWN: unknown error)";
    Machine::new().driver(&["INIT=999"]).has_no_gpus_because(unknown);
    // A code that no header has, for which the driver has no words either.
    Machine::new().driver(&["INIT=35"]).has_no_gpus_because("cuInit failed with 35;");
    Machine::new().driver(&["INIT=-1"]).has_no_gpus_because("cuInit failed with -1;");
}

#[test]
fn a_driver_that_is_too_old_or_sees_nothing_is_told_apart() {
    let old = "the NVIDIA driver runs CUDA up to 11.4 and Ringhold needs 12.0";
    Machine::new().driver(&["VERSION=11040", "INIT=999"]).has_no_gpus_because(old);
    Machine::new().driver(&["COUNT=0"]).has_no_gpus_because("the NVIDIA driver sees no GPU");
    Machine::new().driver(&["COUNT=-1"]).has_no_gpus_because("the NVIDIA driver sees no GPU");
}

#[test]
fn every_gpu_is_listed_with_what_keeps_it_from_running_a_device() {
    let machine = Machine::new().driver(&[]).compiler(&[]);
    let found = machine.json();
    assert_eq!(found["driver"]["cuda"], json!({"major": 13, "minor": 0}));
    assert_eq!(found["compiler"]["version"], json!({"major": 12, "minor": 9}));
    assert_eq!(found["no_gpus"], Value::Null);
    let first = &found["gpus"][0];
    assert_eq!((&first["name"], &first["usable"], &first["unmet"]), (&json!("Fake H100"), &json!(true), &json!([])));
    assert_eq!(first["capability"], json!({"major": 9, "minor": 0}));
    assert_eq!((first["memory_bytes"].as_u64(), first["memory_free_bytes"].as_u64()), (Some(80 << 30), Some(79 << 30)));
    assert_eq!((&first["multiprocessors"], &first["pci_bus_id"]), (&json!(132), &json!("0000:3b:00.0")));
    assert_eq!((&first["place"]["pci"], &first["place"]["nvlinks"]), (&json!("0000:3b:00.0"), &json!([])));
    let second = &found["gpus"][1];
    assert_eq!((&second["usable"], &second["memory_free_bytes"]), (&json!(false), &Value::Null));
    let kinds: Vec<_> = second["unmet"].as_array().unwrap().iter().map(|unmet| &unmet["kind"]).collect();
    assert_eq!(kinds, ["capability", "kernel_timeout"]);
    let text = machine.run(&[]);
    assert!(text.contains("cuda:1: its compute capability is 6.1 and 7.0 is needed"), "{text}");
    assert!(text.contains("cuda:1: it drives a display"), "{text}");
    let line = text.lines().find(|line| line.starts_with("cuda:0")).unwrap();
    assert!(line.contains("80.0 GiB  79.0 GiB") && line.ends_with("yes"), "{text}");
}

#[test]
fn errors_of_a_gpus_memory_are_told_with_what_to_do() {
    let machine = Machine::new().driver(&[]).compiler(&[]).nvml(&[]);
    let found = machine.json();
    let healthy = json!({"ecc_uncorrected": 0, "repair_pending": false, "repair_failed": false});
    assert_eq!((&found["gpus"][0]["health"], &found["no_nvml"]), (&healthy, &Value::Null));
    let no_ecc = json!({"ecc_uncorrected": null, "repair_pending": false, "repair_failed": null});
    assert_eq!((&found["gpus"][1]["health"], &found["gpus"][1]["no_health"]), (&no_ecc, &Value::Null));
    let text = machine.run(&[]);
    let ends = |number: &str, end: &str| {
        let line = text.lines().find(|line| line.starts_with(number)).unwrap();
        assert!(line.split_whitespace().collect::<Vec<_>>().join(" ").ends_with(end), "{text}");
    };
    ends("cuda:0", "0000:3b:00.0 ok yes");
    ends("cuda:1", "0000:af:00.0 off no");

    let machine = Machine::new().driver(&[]).compiler(&[]).nvml(&["UNCORRECTED=3", "PENDING=1"]);
    let health = &machine.json()["gpus"][0]["health"];
    assert_eq!(*health, json!({"ecc_uncorrected": 3, "repair_pending": true, "repair_failed": false}));
    let text = machine.run(&[]);
    assert!(
        text.contains("cuda:0: 3 errors of its memory could not be corrected since the driver was loaded"),
        "{text}"
    );
    assert!(text.contains("cuda:0: a faulty part of its memory waits for a reset"), "{text}");

    let text = Machine::new().driver(&[]).compiler(&[]).nvml(&["FAILED=1"]).run(&[]);
    assert!(
        text.contains("repair failed") && text.contains("cuda:0: a faulty part of its memory could not be"),
        "{text}"
    );
}

#[test]
fn where_nvlinks_end_is_told_of_those_that_are_up() {
    let linked = Machine::new().driver(&[]).compiler(&[]).nvml(&[]);
    let found = linked.json();
    let (first, second) = (&found["gpus"][0], &found["gpus"][1]);
    assert_eq!(first["place"]["nvlinks"], json!(["0000:05:00.0", "0000:af:00.0"]));
    assert_eq!((&second["place"]["pci"], &second["place"]["nvlinks"]), (&json!("0000:af:00.0"), &json!([])));
    assert_eq!((&first["no_nvlinks"], &second["no_nvlinks"]), (&Value::Null, &Value::Null));
    let text = linked.run(&[]);
    assert!(text.contains("cuda:0: its NVLinks end at 0000:05:00.0, 0000:af:00.0\n"), "{text}");
    assert!(!text.contains("cuda:1: its NVLinks"), "{text}");

    let nowhere = Machine::new().driver(&[]).compiler(&[]).nvml(&["SWITCH=\"0000:00:00.0\""]).json();
    assert_eq!(nowhere["gpus"][0]["place"]["nvlinks"], json!(["0000:af:00.0"]), "all zeros are no address");
    let older = Machine::new().driver(&[]).compiler(&[]).nvml(&["nvmlDeviceGetNvLinkState=old"]).json();
    assert_eq!((&older["gpus"][0]["place"]["nvlinks"], &older["gpus"][0]["no_nvlinks"]), (&json!([]), &Value::Null));
}

#[test]
fn an_nvml_of_no_use_costs_no_gpu() {
    let usable = |machine: Machine, why: &str| {
        let found = machine.json();
        assert_eq!((&found["gpus"][0]["usable"], &found["gpus"][0]["health"]), (&json!(true), &Value::Null));
        let said = found["no_nvml"].as_str().unwrap_or_default();
        assert!(said.contains(why), "no `{why}` in `{said}`");
        assert!(machine.run(&[]).contains(&format!("not known: {said}")));
    };
    let machine = || Machine::new().driver(&[]).compiler(&[]);
    let broken = machine().with("libnvidia-ml.so.1", None, &[]);
    usable(broken, "does not start: nvmlInit_v2 failed with 13 (the library has no such function)");
    usable(machine().nvml(&["INIT=9"]), "does not start: nvmlInit_v2 failed with 9 (Driver Not Loaded)");
    usable(machine().nvml(&["INIT=12345"]), "does not start: nvmlInit_v2 failed with 12345");
    let text = machine();
    fs::write(text.0.path().join("libnvidia-ml.so.1"), "this is text").unwrap();
    usable(text, "there is no NVML, NVIDIA's management library, here: libnvidia-ml.so.1 does not load (");

    // One that does not know this GPU, and one that is older than a question.
    let stranger = machine().nvml(&["nvmlDeviceGetHandleByPciBusId_v2=old"]).json();
    let said = "nvmlDeviceGetHandleByPciBusId_v2 failed with 13 (the library has no such function)";
    assert_eq!((&stranger["gpus"][0]["health"], &stranger["gpus"][0]["no_health"]), (&Value::Null, &json!(said)));
    assert_eq!(stranger["gpus"][0]["no_nvlinks"], json!(said));
    let older = machine().nvml(&["nvmlDeviceGetRemappedRows=old"]).json();
    assert_eq!(older["gpus"][1]["health"]["repair_pending"], json!(false));
}

#[test]
fn a_gpu_that_does_not_answer_hides_no_other() {
    let machine = Machine::new().driver(&["LOST=0"]).compiler(&[]);
    let found = machine.json();
    let error = "cuDeviceGetName failed with 999 (CUDA_ERROR_UNKNOWN: unknown error)";
    assert_eq!(found["gpus"][0], json!({"number": 0, "error": error}));
    assert_eq!(found["gpus"][1]["name"], "Fake GTX 1080");
    assert!(machine.run(&[]).contains(&format!("cuda:0: it does not answer: {error}")));
}

#[test]
fn without_a_fitting_compiler_no_gpu_is_usable() {
    let none = Machine::new().driver(&["COUNT=1"]);
    assert_eq!(none.json()["gpus"][0]["unmet"][0]["kind"], "no_compiler");
    let text = none.run(&[]);
    assert!(text.contains("and no NVRTC loads from there: looked for") && text.contains("pip install"), "{text}");

    let newer = Machine::new().driver(&["COUNT=1", "VERSION=12020"]).compiler(&["MAJOR=13"]);
    assert_eq!(newer.json()["gpus"][0]["unmet"][0]["kind"], "driver");
    assert!(newer.run(&[]).contains("its driver runs CUDA up to 12.2 and the compiler here makes code for CUDA 13.9"));

    let broken = Machine::new().driver(&["COUNT=1"]).with("libnvrtc.so.12", None, &[]);
    assert!(broken.json()["no_compiler"].as_str().unwrap().contains("libnvrtc.so.12 lacks nvrtcVersion, "));
}
