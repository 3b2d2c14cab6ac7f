//! Checkpoints on a disk that fails, in simulation and for real.

extern crate ringhold_kernels as ringhold;

mod crash;
mod damage;
mod disk;
mod exported;
mod flow;
mod model;
mod moves;
mod replicas;
