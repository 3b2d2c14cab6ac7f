//! NVIDIA's libraries, as far as Ringhold uses them, on machines that may have none.
//!
//! [`driver`] says which GPUs there are, or why there are none; [`needs`] says what keeps a GPU from running a device;
//! [`compile`] makes a device's [`program`] into machine code; [`launch`] runs that; [`class`] says what its errors are about;
//! [`nvml`] tells what the GPU itself reports; [`pci`] is how all of them say where it is.
//!
//! The libraries are loaded when they are asked for, so one binary runs with and without them. What is called of them, with
//! which arguments, types and constants, `cudarc` says, which is generated from NVIDIA's headers. Two things are ours
//! (`library.rs`), where its own calls do not hold for a library that is not of this build. They panic where no library or no
//! such function is found: here it is opened under the names, or in the folder, that its user can read about, and every
//! function is looked up before the first is called. And they give results as Rust enums, which a code that no header of
//! today has makes undefined behaviour: here a call is made through the same pointer, and its result is a plain number.

pub mod class;
pub mod compile;
pub mod context;
pub mod driver;
pub mod launch;
mod library;
pub mod needs;
pub mod nvml;
pub mod pci;
pub mod program;
pub mod xid;
