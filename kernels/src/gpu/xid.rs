//! Xids: the numbers by which NVIDIA's kernel driver reports what happened to a GPU, to whomever it concerns.
//!
//! Names and what to do are those of NVIDIA's "Xid Errors" and of its catalog of them.

use std::fmt;

use super::class::Class;

/// A report of a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Xid(pub u64);

/// Those that a device has to do with.
pub const KNOWN: [(u64, Class, &str); 14] = [
    (13, Class::Programmer, "a kernel did what it may not"),
    (31, Class::Programmer, "a kernel accessed memory that is not its own"),
    (43, Class::Programmer, "it stopped the work of a process that had failed"),
    (45, Class::Transient, "it cleaned up after a process that had failed or was killed"),
    (48, Class::Fatal, "its memory had an error of two bits, which cannot be corrected"),
    (63, Class::Transient, "a faulty part of its memory is noted, and is replaced at its next reset"),
    (64, Class::Fatal, "a faulty part of its memory could not be noted for replacement"),
    (74, Class::Transient, "an error of NVLink"),
    (79, Class::Fatal, "it has fallen off the bus"),
    (92, Class::Transient, "its memory has many errors of one bit, which are corrected"),
    (94, Class::Transient, "an error of its memory that ends the process that met it, and no other"),
    (95, Class::Fatal, "an error of its memory that may have reached any process"),
    (119, Class::Fatal, "its system processor (GSP) did not answer the driver"),
    (120, Class::Fatal, "an error of its system processor (GSP)"),
];

impl Xid {
    pub const OFF_THE_BUS: Xid = Xid(79);

    fn known(self) -> Option<(Class, &'static str)> {
        KNOWN.iter().find(|(number, ..)| *number == self.0).map(|(_, class, meaning)| (*class, *meaning))
    }

    /// One that is not known here ends nothing by itself.
    pub fn class(self) -> Class {
        self.known().map_or(Class::Transient, |(class, _)| class)
    }
}

impl fmt::Display for Xid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let meaning = self.known().map_or("which NVIDIA's list of Xids explains", |(_, meaning)| meaning);
        write!(f, "Xid {}, {meaning}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_that_cannot_be_trusted_is_told_from_a_kernel_that_is_wrong() {
        let of = |class| KNOWN.iter().filter(|known| known.1 == class).map(|known| known.0).collect::<Vec<_>>();
        assert_eq!(of(Class::Fatal), [48, 64, 79, 95, 119, 120]);
        assert_eq!(of(Class::Programmer), [13, 31, 43]);
        assert_eq!((Xid(7).class(), Xid(79).class()), (Class::Transient, Class::Fatal));
        assert_eq!(Xid(79).to_string(), "Xid 79, it has fallen off the bus");
    }
}
