//! The control plane: what the nodes of a cluster agree on.

pub mod state;
