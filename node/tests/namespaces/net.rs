//! Machines of a test, joined by a switch: network namespaces of this kernel.
//!
//! They have no names. A namespace is there for as long as somebody has it open or runs in it, so that however a test ends, nothing of
//! them is left on the machine.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;

use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// A network of its own: interfaces, addresses, routes.
#[derive(Clone)]
pub struct Namespace(Arc<OwnedFd>);

impl Namespace {
    fn new() -> io::Result<Namespace> {
        let thread = std::thread::spawn(|| {
            // SAFETY: only this thread's network changes, of which it has nothing open, and the thread ends.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
            Ok(Namespace(Arc::new(File::open("/proc/thread-self/ns/net")?.into())))
        });
        thread.join().expect("it does not panic")
    }

    /// What the calling thread opens from now on is of this network.
    pub fn enter(&self) -> io::Result<()> {
        Ok(move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))?)
    }

    /// A program that runs in this network, and dies with the thread that starts it.
    pub fn command(&self, program: &str) -> Command {
        let (mut command, namespace) = (Command::new(program), self.clone());
        // SAFETY: between fork and exec there are two system calls, and nothing is allocated.
        unsafe {
            command.pre_exec(move || {
                set_parent_process_death_signal(Some(Signal::KILL))?;
                namespace.enter()
            })
        };
        command
    }

    /// Runs a command of words that there are no spaces in.
    ///
    /// # Errors
    /// What it said where it failed.
    fn run(&self, words: &str) -> Result<String, String> {
        let mut split = words.split(' ');
        let output = self.command(split.next().expect("there is a program")).args(split).output();
        match output {
            Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            Ok(output) => Err(format!("`{words}`: {}", String::from_utf8_lossy(&output.stderr).trim())),
            Err(error) => Err(format!("`{words}`: {error}")),
        }
    }

    /// For `ip`, which takes a path in place of a name.
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

/// Machines at one switch, by number.
pub struct Lan {
    pub machines: Vec<Namespace>,
    /// Why packets cannot be delayed, or lost at random, here.
    pub no_netem: Option<String>,
    /// The switch is there for as long as its namespace is.
    _switch: Namespace,
}

/// A hardware address that no machine has.
const NOBODY: &str = "02:00:00:00:00:01";

impl Lan {
    /// # Errors
    /// Why there can be none on this machine, or not for this user.
    pub fn new(machines: usize) -> Result<Lan, String> {
        let namespace = || Namespace::new().map_err(|e| format!("a network namespace cannot be made: {e}"));
        let switch = namespace()?;
        switch.run("ip link add lan type bridge")?;
        switch.run("ip link set lan up")?;
        let mut lan = Lan { machines: Vec::new(), no_netem: None, _switch: switch.clone() };
        for machine in 0..machines {
            let namespace = namespace()?;
            let path = namespace.path();
            switch.run(&format!("ip link add port{machine} type veth peer name eth0 netns {path}"))?;
            switch.run(&format!("ip link set port{machine} master lan up"))?;
            namespace.run("ip link set lo up")?;
            namespace.run(&format!("ip address add {}/24 dev eth0", ip(machine)))?;
            namespace.run("ip link set eth0 up")?;
            lan.machines.push(namespace);
        }
        lan.no_netem = lan.machines[0].run("tc qdisc add dev eth0 root netem").err();
        lan.shape(0, &format!("tbf {SCARCE}"))?;
        lan.as_ever(0)?;
        Ok(lan)
    }

    pub fn address(&self, machine: usize) -> SocketAddr {
        (ip(machine), 7420).into()
    }

    /// From now on nothing that one machine sends comes to the other: it goes to a machine that is not there. The way back is as
    /// it was.
    pub fn cut(&self, from: usize, to: usize) {
        self.neighbour(from, &format!("replace {} lladdr {NOBODY} nud permanent", ip(to)));
    }

    pub fn mend(&self, from: usize, to: usize) {
        self.neighbour(from, &format!("del {}", ip(to)));
    }

    fn neighbour(&self, machine: usize, words: &str) {
        self.machines[machine].run(&format!("ip neighbour {words} dev eth0")).expect("it was done before");
    }

    /// Some of what a machine sends is lost: every tenth packet, or where there is no netem, what comes when there is room for no more.
    pub fn lose_some(&self, machine: usize) {
        let how = if self.no_netem.is_none() { "netem loss 10%".into() } else { format!("tbf {SCARCE}") };
        self.shape(machine, &how).expect("one of the two is there");
    }

    /// All that a machine sends has to go through a thin wire, and a long one, where there is netem.
    pub fn slow_down(&self, machine: usize) {
        let how = if self.no_netem.is_none() { "netem delay 20ms 5ms rate 8mbit" } else { THIN };
        self.shape(machine, how).expect("one of the two is there");
    }

    pub fn as_ever(&self, machine: usize) -> Result<(), String> {
        self.machines[machine].run("tc qdisc del dev eth0 root").map(|_| ())
    }

    fn shape(&self, machine: usize, how: &str) -> Result<(), String> {
        self.machines[machine].run(&format!("tc qdisc replace dev eth0 root {how}")).map(|_| ())
    }

    /// Packets that were lost where a machine's packets are shaped, and those that had to wait there.
    pub fn shaped(&self, machine: usize) -> Shaped {
        let told = self.machines[machine].run("tc -s qdisc show dev eth0 root").expect("it was done before");
        let number_after = |word: &str| {
            let at = told.find(word).unwrap_or_else(|| panic!("no `{word}` in {told}")) + word.len();
            let digits = told[at..].trim_start().split(|c: char| !c.is_ascii_digit()).next();
            digits
                .and_then(|digits| digits.parse().ok())
                .unwrap_or_else(|| panic!("no number after `{word}` in {told}"))
        };
        Shaped { lost: number_after("dropped"), bytes: number_after("Sent") }
    }
}

/// What has gone through a shaper.
#[derive(Debug)]
pub struct Shaped {
    pub lost: u64,
    pub bytes: u64,
}

/// Room for one packet, and for one that waits.
const SCARCE: &str = "rate 1mbit burst 1600 limit 1600";
const THIN: &str = "tbf rate 4mbit burst 6000 latency 200ms";

fn ip(machine: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 83, 0, machine as u8 + 1)
}
