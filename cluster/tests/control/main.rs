//! Control planes of several nodes in one process, in time that is paused.

mod agree;
mod members;
mod world;
