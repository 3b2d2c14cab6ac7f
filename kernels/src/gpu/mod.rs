//! NVIDIA's libraries, as far as Ringhold uses them, on machines that may have none.
//!
//! [`driver`] says which GPUs there are, or why there are none; [`needs`] says what keeps a GPU from running a device;
//! [`compile`] makes a device's [`program`] into machine code; [`launch`] runs that.
//!
//! The libraries are loaded when they are asked for, so one binary runs with and without them. Their functions are
//! declared here and not by a crate of bindings: results are plain numbers, because a driver may return a code that
//! no build of today has heard of, and every function is looked up before the first is called, because a library may
//! be older than this build, or broken.

pub mod compile;
pub mod context;
pub mod driver;
pub mod launch;
mod library;
pub mod needs;
pub mod program;
