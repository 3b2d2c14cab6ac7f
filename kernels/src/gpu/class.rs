//! What an error of a GPU is about, and so who can do something about it. Numbers in, a word out.

use std::fmt;

use cudarc::driver::sys::CUresult::{self, *};

/// The kinds of errors that call for different things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// It need not happen again: another process may well succeed.
    Transient,
    /// Something that is needed is not there, or not enough of it. Later, or with less, it may be.
    Resource,
    /// What was asked of the GPU is wrong, and will be wrong again.
    Programmer,
    /// The GPU, or its driver on this machine, cannot be trusted until somebody has seen to it.
    Fatal,
}

const RESOURCE: [CUresult; 10] = [
    CUDA_ERROR_OUT_OF_MEMORY,
    CUDA_ERROR_STUB_LIBRARY,
    CUDA_ERROR_DEVICE_UNAVAILABLE,
    CUDA_ERROR_OPERATING_SYSTEM,
    CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES,
    CUDA_ERROR_TOO_MANY_PEERS,
    CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE,
    CUDA_ERROR_NOT_PERMITTED,
    CUDA_ERROR_MPS_MAX_CLIENTS_REACHED,
    CUDA_ERROR_MPS_MAX_CONNECTIONS_REACHED,
];

/// Of those that the calls of [`super`] can give.
const PROGRAMMER: [CUresult; 26] = [
    CUDA_ERROR_INVALID_VALUE,
    CUDA_ERROR_NOT_INITIALIZED,
    CUDA_ERROR_INVALID_IMAGE,
    CUDA_ERROR_INVALID_CONTEXT,
    CUDA_ERROR_MAP_FAILED,
    CUDA_ERROR_UNMAP_FAILED,
    CUDA_ERROR_NO_BINARY_FOR_GPU,
    CUDA_ERROR_INVALID_PTX,
    CUDA_ERROR_UNSUPPORTED_PTX_VERSION,
    CUDA_ERROR_INVALID_SOURCE,
    CUDA_ERROR_SHARED_OBJECT_SYMBOL_NOT_FOUND,
    CUDA_ERROR_SHARED_OBJECT_INIT_FAILED,
    CUDA_ERROR_INVALID_HANDLE,
    CUDA_ERROR_ILLEGAL_STATE,
    CUDA_ERROR_NOT_FOUND,
    CUDA_ERROR_ILLEGAL_ADDRESS,
    CUDA_ERROR_ASSERT,
    CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED,
    CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED,
    CUDA_ERROR_HARDWARE_STACK_ERROR,
    CUDA_ERROR_ILLEGAL_INSTRUCTION,
    CUDA_ERROR_MISALIGNED_ADDRESS,
    CUDA_ERROR_INVALID_ADDRESS_SPACE,
    CUDA_ERROR_INVALID_PC,
    CUDA_ERROR_LAUNCH_FAILED,
    CUDA_ERROR_NOT_SUPPORTED,
];

const FATAL: [CUresult; 8] = [
    CUDA_ERROR_NO_DEVICE,
    CUDA_ERROR_INVALID_DEVICE,
    CUDA_ERROR_DEVICE_NOT_LICENSED,
    CUDA_ERROR_ECC_UNCORRECTABLE,
    CUDA_ERROR_NVLINK_UNCORRECTABLE,
    CUDA_ERROR_LAUNCH_TIMEOUT,
    CUDA_ERROR_SYSTEM_DRIVER_MISMATCH,
    CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE,
];

impl Class {
    /// Of a driver's code (`CUresult`). One that is not known here may be anything: to try again is what harms least.
    pub fn of(code: i32) -> Class {
        let among = |codes: &[CUresult]| codes.iter().any(|known| *known as i32 == code);
        if among(&FATAL) {
            Class::Fatal
        } else if among(&PROGRAMMER) {
            Class::Programmer
        } else if among(&RESOURCE) {
            Class::Resource
        } else {
            Class::Transient
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Class::Transient => "transient error",
            Class::Resource => "resource error",
            Class::Programmer => "programmer error",
            Class::Fatal => "fatal error",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_of_one_class() {
        let mut all: Vec<i32> = [&RESOURCE[..], &PROGRAMMER, &FATAL].concat().iter().map(|code| *code as i32).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
        assert!(!all.contains(&(CUDA_SUCCESS as i32)) && !all.contains(&(CUDA_ERROR_NOT_READY as i32)));
    }

    #[test]
    fn what_people_meet_most_is_classified() {
        let of = |codes: &[i32], class| codes.iter().all(|code| Class::of(*code) == class);
        // Out of memory, busy, launches that are too large.
        assert!(of(&[2, 46, 701, 720], Class::Resource));
        // Illegal address, assertion, illegal instruction, unspecified launch failure.
        assert!(of(&[700, 710, 715, 719], Class::Programmer));
        // No GPU, uncorrectable errors of memory and of NVLink.
        assert!(of(&[100, 214, 220], Class::Fatal));
        // Contained in its process, a server that is not ready, unknown, and codes of tomorrow.
        assert!(of(&[226, 807, 999, 12_345, -1], Class::Transient));
    }
}
