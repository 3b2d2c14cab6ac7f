//! How the process of a device host ends, in its exit code: the one thing that its node learns of it for sure.

use std::fmt;

use ringhold_kernels::gpu::class::Class;
use ringhold_kernels::gpu::xid::Xid;

use super::supervisor::{Over, Remedy};

/// How a device host ended. The numbers are fixed: node and host need not be of one build to understand each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It was told to stop, or its node was gone.
    InOrder,
    /// For a reason that is in its log alone.
    Failed,
    /// It was not started by a node.
    Usage,
    /// The driver is missing, does not start, or failed in a call that harms nothing but this start: what that is about.
    Driver(Class),
    /// The GPU does not have what a device needs, or cannot run all of the kernel's blocks at once.
    LaunchRefused,
    /// The memory of the GPU, or what can be pinned of the machine's, is not enough.
    OutOfMemory,
    /// There is no compiler, or it does not compile the device's program.
    NoKernel,
    /// The driver has not come back from a call.
    NoAnswer,
    /// The kernel ended in an error after which nothing works in its process any more: the driver's code (`CUresult`),
    /// or 0 where it fits no exit code.
    Sticky(i32),
    /// The GPU reported something after which it is not to be trusted. 0 where it is not of this build.
    Xid(u64),
    /// Rust's own code for a panic.
    Panicked,
    /// Any other code.
    Other(i32),
}

/// Exit codes. Below 64 are those of the command line; 101 is that of a panic.
const DRIVER: i32 = 70;
const LAUNCH_REFUSED: i32 = 71;
const OUT_OF_MEMORY: i32 = 72;
const NO_KERNEL: i32 = 73;
const DRIVER_RESOURCE: i32 = 74;
const DRIVER_PROGRAMMER: i32 = 75;
const DRIVER_FATAL: i32 = 76;
const NO_ANSWER: i32 = 77;
const STICKY: i32 = 80;
const XID: i32 = 110;
/// Each fatal Xid has its own.
const XIDS: [(i32, u64); 6] = [(111, 48), (112, 64), (113, 79), (114, 95), (115, 119), (116, 120)];
const PANICKED: i32 = 101;

/// `CUresult`s of 700 to 749, which kernels cause, are 150 to 199.
const OF_KERNELS: std::ops::Range<i32> = 700..750;
const OF_KERNELS_FROM: i32 = 150;
/// `CUresult`s of 200 to 255, which hardware causes, are themselves.
const OF_HARDWARE: std::ops::RangeInclusive<i32> = 200..=255;

impl Ending {
    /// The exit code of a process that ends so.
    pub fn code(self) -> u8 {
        let code = match self {
            Ending::InOrder => 0,
            Ending::Failed => 1,
            Ending::Usage => 2,
            Ending::Driver(Class::Transient) => DRIVER,
            Ending::Driver(Class::Resource) => DRIVER_RESOURCE,
            Ending::Driver(Class::Programmer) => DRIVER_PROGRAMMER,
            Ending::Driver(Class::Fatal) => DRIVER_FATAL,
            Ending::LaunchRefused => LAUNCH_REFUSED,
            Ending::OutOfMemory => OUT_OF_MEMORY,
            Ending::NoKernel => NO_KERNEL,
            Ending::NoAnswer => NO_ANSWER,
            Ending::Sticky(code) if OF_KERNELS.contains(&code) => code - OF_KERNELS.start + OF_KERNELS_FROM,
            Ending::Sticky(code) if OF_HARDWARE.contains(&code) => code,
            Ending::Sticky(_) => STICKY,
            Ending::Xid(xid) => XIDS.iter().find(|(_, known)| *known == xid).map_or(XID, |(code, _)| *code),
            Ending::Panicked => PANICKED,
            Ending::Other(code) => code,
        };
        code as u8
    }

    /// What it is about, where a GPU has to do with it.
    pub fn class(self) -> Option<Class> {
        match self {
            Ending::InOrder | Ending::Failed | Ending::Usage | Ending::Panicked | Ending::Other(_) => None,
            Ending::Driver(class) => Some(class),
            Ending::LaunchRefused | Ending::OutOfMemory | Ending::NoKernel | Ending::NoAnswer => Some(Class::Resource),
            Ending::Sticky(code) => Some(Class::of(code)),
            Ending::Xid(_) => Some(Class::Fatal),
        }
    }
}

/// What is done for each class.
fn remedy(class: Class) -> Remedy {
    match class {
        Class::Transient => Remedy::Restart,
        Class::Resource => Remedy::RestartLater,
        Class::Programmer => Remedy::Quarantine,
        Class::Fatal => Remedy::GiveUp,
    }
}

impl From<Ending> for Over {
    fn from(ending: Ending) -> Over {
        Over {
            how: ending.to_string(),
            remedy: ending.class().map_or(Remedy::Restart, remedy),
            blames: matches!(ending, Ending::Failed | Ending::Panicked) || ending.class() == Some(Class::Programmer),
        }
    }
}

impl From<i32> for Ending {
    fn from(code: i32) -> Ending {
        let kernels = OF_KERNELS_FROM..OF_KERNELS_FROM + OF_KERNELS.len() as i32;
        match code {
            0 => Ending::InOrder,
            1 => Ending::Failed,
            2 => Ending::Usage,
            DRIVER => Ending::Driver(Class::Transient),
            DRIVER_RESOURCE => Ending::Driver(Class::Resource),
            DRIVER_PROGRAMMER => Ending::Driver(Class::Programmer),
            DRIVER_FATAL => Ending::Driver(Class::Fatal),
            LAUNCH_REFUSED => Ending::LaunchRefused,
            OUT_OF_MEMORY => Ending::OutOfMemory,
            NO_KERNEL => Ending::NoKernel,
            NO_ANSWER => Ending::NoAnswer,
            STICKY => Ending::Sticky(0),
            XID => Ending::Xid(0),
            code if XIDS.iter().any(|known| known.0 == code) => {
                Ending::Xid(XIDS.iter().find(|known| known.0 == code).map_or(0, |known| known.1))
            }
            PANICKED => Ending::Panicked,
            code if kernels.contains(&code) => Ending::Sticky(code - OF_KERNELS_FROM + OF_KERNELS.start),
            code if OF_HARDWARE.contains(&code) => Ending::Sticky(code),
            code => Ending::Other(code),
        }
    }
}

/// What a driver's code means, for those that a kernel can end in (`cuda.h`).
fn meaning(code: i32) -> &'static str {
    match code {
        214 => "an error of its memory that cannot be corrected",
        220 => "an error of NVLink that cannot be corrected",
        700 => "an access to an address that is not its own",
        702 => "it ran longer than the driver allows, because the GPU drives a display",
        710 => "an assertion in it",
        714 => "an error in its hardware stack",
        715 => "an instruction that is none",
        716 => "an access to an address that is not aligned",
        717 => "an access in the wrong kind of memory",
        718 => "a jump to an address that is not its own",
        719 => "a failure that the driver does not explain",
        _ => "an error that nothing in its process survives",
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(class) = self.class() {
            write!(f, "{class}: ")?;
        }
        match self {
            Ending::InOrder => write!(f, "ended in order"),
            Ending::Failed => write!(f, "failed; its log says why"),
            Ending::Usage => write!(f, "was not started by a node"),
            Ending::Driver(_) => write!(f, "the GPU's driver failed; its log says in which call"),
            Ending::LaunchRefused => write!(f, "the GPU cannot run the kernel; its log says what it lacks"),
            Ending::OutOfMemory => write!(f, "the GPU's memory is not enough; its log says what was asked for"),
            Ending::NoKernel => write!(f, "there is no kernel for the GPU; its log says what the compiler said"),
            Ending::NoAnswer => write!(f, "the GPU does not answer; its log says to what"),
            Ending::Sticky(0) => write!(f, "the kernel ended in {}; its log has the code", meaning(0)),
            Ending::Sticky(code) => write!(f, "the kernel ended in {} (CUDA error {code})", meaning(*code)),
            Ending::Xid(0) => write!(f, "the GPU is not to be trusted; its log says what the GPU reported"),
            Ending::Xid(xid) => write!(f, "the GPU reported {}", Xid(*xid)),
            Ending::Panicked => write!(f, "panicked; its log says where"),
            Ending::Other(code) => write!(f, "exited with code {code}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use ringhold_kernels::gpu::xid;

    use super::*;

    #[test]
    fn every_ending_is_told_by_its_code() {
        let endings = [
            Ending::InOrder,
            Ending::Failed,
            Ending::Usage,
            Ending::LaunchRefused,
            Ending::OutOfMemory,
            Ending::NoKernel,
            Ending::NoAnswer,
            Ending::Sticky(0),
            Ending::Xid(0),
            Ending::Panicked,
        ];
        let classes = [Class::Transient, Class::Resource, Class::Programmer, Class::Fatal].map(Ending::Driver);
        let sticky = OF_KERNELS.chain(OF_HARDWARE).map(Ending::Sticky);
        let fatal = xid::KNOWN.iter().filter(|(_, class, _)| *class == Class::Fatal);
        let fatal = fatal.map(|(xid, ..)| Ending::Xid(*xid));
        for ending in endings.into_iter().chain(classes).chain(sticky).chain(fatal) {
            assert_eq!(Ending::from(i32::from(ending.code())), ending);
        }
        // A code that does not fit is still known to be sticky.
        assert_eq!(Ending::from(i32::from(Ending::Sticky(999).code())), Ending::Sticky(0));
        assert_eq!(Ending::from(i32::from(Ending::Xid(4711).code())), Ending::Xid(0));
        assert_eq!(Ending::from(7), Ending::Other(7));
    }

    #[test]
    fn people_are_told_what_a_kernel_ended_in() {
        let text = Ending::from(i32::from(Ending::Sticky(700).code())).to_string();
        let said = "programmer error: the kernel ended in an access to an address that is not its own (CUDA error 700)";
        assert_eq!(text, said);
    }

    #[test]
    fn each_class_of_error_has_its_remedy() {
        let remedy = |ending: Ending| Over::from(ending).remedy;
        assert_eq!(remedy(Ending::Sticky(226)), Remedy::Restart);
        assert_eq!(remedy(Ending::OutOfMemory), Remedy::RestartLater);
        assert_eq!(remedy(Ending::Sticky(700)), Remedy::Quarantine);
        assert_eq!(remedy(Ending::Sticky(214)), Remedy::GiveUp);
        assert_eq!(Over::from(Ending::Xid(79)).how, "fatal error: the GPU reported Xid 79, it has fallen off the bus");
        assert_eq!((remedy(Ending::Xid(79)), remedy(Ending::Panicked)), (Remedy::GiveUp, Remedy::Restart));
    }
}
