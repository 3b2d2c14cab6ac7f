//! The log against a plain model of it, on a disk that fails.

mod crash;
mod damage;
mod disk;
