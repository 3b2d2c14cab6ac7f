//! The configuration of a node: one TOML file, every field with a default.
//!
//! Each field is declared once, in `Config::visit`, with its rule and its documentation. Reading, checking and
//! printing (`ringhold config default`) are passes over that declaration, so they cannot disagree. A file is
//! checked as a whole: [`Config::load`] returns every problem there is, each with field, value, rule and fix.

mod check;
mod print;
mod read;
pub(crate) mod rule;

use ringhold_cluster::control;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rule::{
    Address, AutoOr, Choice, HostPort, HostPorts, Name, Names, Optional, PathTo, PowerOfTwo, Range, Rule, Span, Spans,
};

/// Everything a node can be told. `Config::default()` runs a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    pub node: Node,
    pub tls: Tls,
    pub devices: Devices,
    pub queues: Queues,
    pub actors: Actors,
    pub limits: Limits,
    pub checkpoints: Checkpoints,
    pub dead_letters: DeadLetters,
    pub health: Health,
    pub supervision: Supervision,
    pub log: Log,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// For people; the host's name where it is `None`.
    pub name: Option<String>,
    pub cluster: String,
    pub data_dir: PathBuf,
    pub listen: SocketAddr,
    /// `HOST:PORT` where other nodes reach it; where it is `None`, where it listens.
    pub advertise: Option<String>,
    /// What fails together with it.
    pub zone: Option<String>,
    /// Nodes of the cluster to join, `HOST:PORT`; with none, a node without a cluster founds one.
    pub join: Vec<String>,
    /// For how long the node may run its devices without hearing from the cluster's leader: the same on all nodes of a cluster.
    pub lease: Duration,
    pub drain_timeout: Duration,
}

/// All three or none; with none the node makes an authority of its own in the data folder.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tls {
    pub ca_file: Option<PathBuf>,
    pub certificate_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
}

/// At least one device.
#[derive(Clone, Debug, PartialEq)]
pub struct Devices(pub Vec<Device>);

#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    pub kind: DeviceKind,
    /// Where it is `None`, the kind and its number: see [`Config::device_name`].
    pub name: Option<String>,
    /// `None` leaves the number to the node.
    pub workers: Option<u32>,
    /// Of a CUDA device: the number of its GPU.
    pub gpu: u32,
    /// Of a device that has memory of its own: `None` leaves it to the node.
    pub memory_bytes: Option<u64>,
    pub host: Host,
    pub fallback: Fallback,
}

/// What a device goes on with where its GPU fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// A GPU of this machine that no device is on, then the CPU.
    Auto,
    Cpu,
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// A CUDA device on each usable GPU, or a CPU device where there is none. What it comes to is known when a node starts:
    /// [`crate::device::host::Devices::plan`].
    Auto,
    Cpu,
    /// A GPU's ring kernel.
    Cuda,
    /// A GPU's ring kernel, compiled by the host's compiler and run by threads: for trying and testing.
    Emulated,
}

impl DeviceKind {
    /// As it is written in a configuration.
    pub const ALL: [(&str, DeviceKind); 4] = [
        ("auto", DeviceKind::Auto),
        ("cpu", DeviceKind::Cpu),
        ("cuda", DeviceKind::Cuda),
        ("emulated", DeviceKind::Emulated),
    ];

    pub fn word(self) -> &'static str {
        DeviceKind::ALL.iter().find(|(_, kind)| *kind == self).expect("every kind is listed").0
    }
}

/// Where a device runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// In a process of its own: its crash costs its own state and nothing else.
    Process,
    /// In the node's process.
    InProcess,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Queues {
    pub ingress_slots: u32,
    pub egress_slots: u32,
    pub inbox_slots: u32,
    pub slot_bytes: u32,
    pub overflow: Overflow,
    pub high_water_percent: u32,
    pub low_water_percent: u32,
    pub batch_messages: u32,
}

/// What becomes of a message from outside when its device is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    Block,
    DropOldest,
    DropNewest,
    Reject,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Actors {
    pub threads_per_actor: u32,
    /// The names of the actor types of which nothing goes out before it is durable; the others are `fast`.
    pub committed: Vec<String>,
    /// By the names of actor types: how long a worker may hold one message of it. The others have `supervision.stalled_after`.
    pub deadlines: BTreeMap<String, Duration>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoints {
    pub enabled: bool,
    pub interval: Duration,
    /// The same where a committed actor type is registered.
    pub committed_interval: Duration,
    pub retained_bytes: u64,
    pub kept: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    pub sessions: u32,
    /// Of the node and its device hosts; `None` is no limit.
    pub memory_bytes: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Health {
    /// Where health is told over HTTP; `None` is nowhere.
    pub listen: Option<SocketAddr>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetters {
    pub kept: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Supervision {
    pub stalled_after: Duration,
    pub restart_backoff_min: Duration,
    pub restart_backoff_max: Duration,
    pub breaker_failures: u32,
    pub breaker_window: Duration,
    pub breaker_retry_min: Duration,
    pub breaker_retry_max: Duration,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    pub level: Level,
    pub format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

/// Where a node listens, and a client looks for one, unless told otherwise.
pub const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7420);

impl Default for Node {
    fn default() -> Node {
        Node {
            name: None,
            cluster: "ringhold".into(),
            data_dir: "ringhold-data".into(),
            listen: LISTEN,
            advertise: None,
            zone: None,
            join: Vec::new(),
            lease: control::Timing::default().lease,
            drain_timeout: Duration::from_secs(30),
        }
    }
}

impl Devices {
    /// The name of a device: its own, or its kind and its number among those of its kind. What is left to the node counts
    /// as a CPU device, which it comes to where there is no GPU.
    pub fn name(&self, index: usize) -> String {
        let kind = |device: &Device| if device.kind == DeviceKind::Auto { DeviceKind::Cpu } else { device.kind };
        let device = &self.0[index];
        let number = self.0[..index].iter().filter(|other| kind(other) == kind(device)).count();
        device.name.clone().unwrap_or_else(|| format!("{}{number}", kind(device).word()))
    }
}

impl Default for Devices {
    fn default() -> Devices {
        Devices(vec![Device::default()])
    }
}

impl Default for Device {
    fn default() -> Device {
        Device {
            kind: DeviceKind::Auto,
            name: None,
            workers: None,
            gpu: 0,
            memory_bytes: None,
            host: Host::Process,
            fallback: Fallback::Auto,
        }
    }
}

impl Default for Queues {
    fn default() -> Queues {
        Queues {
            ingress_slots: 16_384,
            egress_slots: 16_384,
            inbox_slots: 16_384,
            slot_bytes: 128,
            overflow: Overflow::Block,
            high_water_percent: 80,
            low_water_percent: 60,
            batch_messages: 256,
        }
    }
}

impl Default for Actors {
    fn default() -> Actors {
        Actors { threads_per_actor: 1_024, committed: Vec::new(), deadlines: BTreeMap::new() }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { sessions: 1_024, memory_bytes: None }
    }
}

impl Default for Checkpoints {
    fn default() -> Checkpoints {
        Checkpoints {
            enabled: true,
            interval: Duration::from_secs(1),
            committed_interval: Duration::from_millis(10),
            retained_bytes: 256 << 20,
            kept: 2,
        }
    }
}

impl Default for DeadLetters {
    fn default() -> DeadLetters {
        DeadLetters { kept: 10_000 }
    }
}

impl Default for Supervision {
    fn default() -> Supervision {
        Supervision {
            stalled_after: Duration::from_secs(5),
            restart_backoff_min: Duration::from_millis(50),
            restart_backoff_max: Duration::from_secs(10),
            breaker_failures: 5,
            breaker_window: Duration::from_secs(60),
            breaker_retry_min: Duration::from_secs(10),
            breaker_retry_max: Duration::from_secs(600),
        }
    }
}

impl Default for Log {
    fn default() -> Log {
        Log { level: Level::Info, format: Format::Text }
    }
}

/// A pass over all fields, in the order of the file.
trait Visitor: Sized {
    /// The fields that follow are in the table `[name]`.
    fn section(&mut self, name: &'static str, about: &'static str);

    /// The tables `[[name]]`; `each` visits the fields of one.
    fn sections<T: Default>(
        &mut self,
        name: &'static str,
        about: &'static str,
        items: &mut Vec<T>,
        each: fn(&mut T, &mut Self),
    );

    fn field<T, R: Rule<T>>(&mut self, name: &'static str, value: &mut T, rule: R, about: &'static str);
}

impl Config {
    /// Every field, its rule and its documentation.
    fn visit<V: Visitor>(&mut self, v: &mut V) {
        let node = &mut self.node;
        v.section("node", "The node itself.");
        v.field("name", &mut node.name, Optional(Name, "node-1"), "For people. Unset: the host's name.");
        v.field(
            "cluster",
            &mut node.cluster,
            Name,
            "The name of the cluster that it founds, or joins. Clients can insist on it.",
        );
        v.field(
            "data_dir",
            &mut node.data_dir,
            PathTo,
            "Certificates, the node's id and its dead letters. Made if it does not exist. Relative paths start at \
             the folder in which the node is started.",
        );
        v.field("listen", &mut node.listen, Address, "Where clients and other nodes reach it, by QUIC (UDP).");
        v.field(
            "advertise",
            &mut node.advertise,
            Optional(HostPort, "node-1.example:7420"),
            "What other nodes are told to reach it at. Unset: where it listens, and where that is every address, the host's name.",
        );
        v.field(
            "zone",
            &mut node.zone,
            Optional(Name, "rack-4"),
            "What fails together: nodes of one zone are not chosen to stand in for each other where others can be.",
        );
        v.field(
            "join",
            &mut node.join,
            HostPorts,
            "Nodes of the cluster to join; some that can be reached are enough. Once the node belongs to a cluster it knows the              others by itself. Empty: a node without a cluster founds one.",
        );
        v.field(
            "lease",
            &mut node.lease,
            Span::new(200, 60_000),
            "For how long the node may run its devices without hearing from the cluster's leader; then it stands still, and a quarter \
             of that later others go on with them. Shorter, they go on sooner; longer, a node that is paused or short of processors is \
             not taken for dead. The same on all nodes of a cluster.",
        );
        v.field(
            "drain_timeout",
            &mut node.drain_timeout,
            Span::new(0, 3_600_000),
            "On SIGTERM or SIGINT the node takes nothing new and finishes what it has, for at most so long.",
        );

        let tls = &mut self.tls;
        v.section(
            "tls",
            "Every connection is mutual TLS. Set all three, or none: then the node makes a certificate authority of \
             its own in `tls` under data_dir, with certificates for itself and for clients on this machine.",
        );
        v.field(
            "ca_file",
            &mut tls.ca_file,
            Optional(PathTo, "/etc/ringhold/ca.pem"),
            "The authority that signs the certificates of nodes and clients. PEM.",
        );
        v.field(
            "certificate_file",
            &mut tls.certificate_file,
            Optional(PathTo, "/etc/ringhold/node.pem"),
            "The node's certificate, and those between it and the authority. PEM.",
        );
        v.field(
            "key_file",
            &mut tls.key_file,
            Optional(PathTo, "/etc/ringhold/node-key.pem"),
            "The private key of the node's certificate. PEM.",
        );

        v.sections(
            "devices",
            "What runs the actors: one [[devices]] table for each device, at least one. `devices=\"auto\"`, before any \
             section, is one table of kind auto.",
            &mut self.devices.0,
            Device::visit,
        );

        let queues = &mut self.queues;
        let slots = PowerOfTwo::new(16, 1 << 20);
        v.section(
            "queues",
            "The queues of each device. A queue takes its slots times slot_bytes of memory. Full queues slow senders \
             down, or do what `overflow` says; they never grow.",
        );
        v.field("ingress_slots", &mut queues.ingress_slots, slots, "Messages on their way into the device.");
        v.field("egress_slots", &mut queues.egress_slots, slots, "Messages on their way out of it.");
        v.field("inbox_slots", &mut queues.inbox_slots, slots, "Messages that wait at each worker.");
        v.field(
            "slot_bytes",
            &mut queues.slot_bytes,
            PowerOfTwo::new(64, 4_096),
            "The size of a slot decides the largest message: 64 take 12 bytes of payload, 128 take 60, 256 take 156, \
             512 take 348, 1024 take 732, 2048 take 1500, 4096 take 3036.",
        );
        v.field(
            "overflow",
            &mut queues.overflow,
            Choice(&[
                ("block", Overflow::Block),
                ("drop-oldest", Overflow::DropOldest),
                ("drop-newest", Overflow::DropNewest),
                ("reject", Overflow::Reject),
            ]),
            "What becomes of a message from a client when the device is full. block: the client waits. drop-oldest: \
             the oldest message that waits makes room for it. drop-newest: it is dropped. reject: it is answered \
             with an error. What is dropped is counted and kept as a dead letter.",
        );
        v.field(
            "high_water_percent",
            &mut queues.high_water_percent,
            Range::new(2, 100),
            "Clients are slowed down once a queue is so full …",
        );
        v.field(
            "low_water_percent",
            &mut queues.low_water_percent,
            Range::new(1, 99),
            "… until it is no fuller than this.",
        );
        v.field(
            "batch_messages",
            &mut queues.batch_messages,
            Range::new(1, 65_536),
            "How many messages a worker takes at a time, at most.",
        );

        v.section("actors", "What holds for all actors.");
        v.field(
            "threads_per_actor",
            &mut self.actors.threads_per_actor,
            Range::new(1, 1_024),
            "How many GPU threads the registered actor types may use for one actor, at most: a node whose types ask for more \
             does not start. A CPU device runs each handler on one thread.",
        );

        v.field(
            "committed",
            &mut self.actors.committed,
            Names,
            "The actor types of grade `committed`: their replies and what they send to other devices goes out only once a \
             checkpoint with everything that led to it is on the disk. All others are `fast`.",
        );

        v.field(
            "deadlines",
            &mut self.actors.deadlines,
            Spans { each: Span::new(100, 3_600_000), example: "bank.account" },
            "How long a worker may hold one message of an actor type, where that is not supervision.stalled_after: longer for \
             one that is long at work, shorter for one that never is.",
        );

        let checkpoints = &mut self.checkpoints;
        v.section(
            "checkpoints",
            "What a device goes on from when its process ends, and a node when it starts: see docs/recovery.md.",
        );
        v.field(
            "enabled",
            &mut checkpoints.enabled,
            Choice(&[("on", true), ("off", false)]),
            "Off: nothing is kept, and the state of a device's actors is lost with its process.",
        );
        v.field(
            "interval",
            &mut checkpoints.interval,
            Span::new(1, 3_600_000),
            "From one checkpoint to the next while anything happens; what a `fast` type did since the last is lost with the node.",
        );
        v.field(
            "committed_interval",
            &mut checkpoints.committed_interval,
            Span::new(1, 3_600_000),
            "The same on a node with a `committed` actor type; one that an answer waits for is made at once.",
        );
        v.field(
            "retained_bytes",
            &mut checkpoints.retained_bytes,
            Range::new(1 << 20, 1 << 40),
            "Messages that each device keeps until a checkpoint covers them, in bytes of memory. At half of it one is made \
             early; at all of it clients wait.",
        );
        v.field(
            "kept",
            &mut checkpoints.kept,
            Range::new(1, 1_000),
            "Checkpoints of each device that stay on the disk to go back to.",
        );

        v.section("limits", "What clients may take of the node.");
        v.field("sessions", &mut self.limits.sessions, Range::new(1, 1_024), "Clients connected at a time.");

        v.field(
            "memory_bytes",
            &mut self.limits.memory_bytes,
            Optional(Range::new(64 << 20, 1 << 50), "17179869184"),
            "Memory that the node and its device hosts may have in use, in bytes. From 80 % of it on load is shed, in the order that \
             docs/overload.md has. Unset: no limit.",
        );

        v.section("dead_letters", "Messages that nobody handled, with the reason: see `ringhold deadletter`.");
        v.field(
            "kept",
            &mut self.dead_letters.kept,
            Range::new(0, 1_000_000),
            "The newest are kept, so many; all are counted.",
        );

        v.section("health", "What watches nodes from outside: see docs/health.md.");
        v.field(
            "listen",
            &mut self.health.listen,
            Optional(Address, "127.0.0.1:7480"),
            "Where it is told over HTTP (TCP) how the node does, to anybody who asks: /live, /ready and /devices. Unset: nowhere.",
        );

        let supervision = &mut self.supervision;
        v.section("supervision", "How the node looks after its devices.");
        v.field(
            "stalled_after",
            &mut supervision.stalled_after,
            Span::new(100, 3_600_000),
            "A worker that holds one message for so long is stalled: its device's process is killed and another is started. \
             actors.deadlines has other times for some actor types.",
        );
        v.field(
            "restart_backoff_min",
            &mut supervision.restart_backoff_min,
            Span::new(1, 3_600_000),
            "The pause before a device is started again, or up to half of it less, at random, so that devices that failed together do \
             not start together; it doubles with each failure in a row …",
        );
        v.field("restart_backoff_max", &mut supervision.restart_backoff_max, Span::new(1, 3_600_000), "… up to this.");
        v.field(
            "breaker_failures",
            &mut supervision.breaker_failures,
            Range::new(1, 1_000),
            "A GPU whose device fails so many times …",
        );
        v.field(
            "breaker_window",
            &mut supervision.breaker_window,
            Span::new(1, 3_600_000),
            "… within so long is left alone, and the device goes on with its fallback. One that is not to be trusted is left at \
             once, and tried again only when `ringhold devices retry` says so.",
        );
        v.field(
            "breaker_retry_min",
            &mut supervision.breaker_retry_min,
            Span::new(1, 86_400_000),
            "The pause before it is tried again, beside the fallback; it doubles with each time in vain …",
        );
        v.field("breaker_retry_max", &mut supervision.breaker_retry_max, Span::new(1, 86_400_000), "… up to this.");

        let log = &mut self.log;
        v.section("log", "Logs go to stderr.");
        v.field(
            "level",
            &mut log.level,
            Choice(&[
                ("error", Level::Error),
                ("warn", Level::Warn),
                ("info", Level::Info),
                ("debug", Level::Debug),
                ("trace", Level::Trace),
            ]),
            "Each level includes those before it.",
        );
        v.field(
            "format",
            &mut log.format,
            Choice(&[("text", Format::Text), ("json", Format::Json)]),
            "Lines for people, or one JSON object a line.",
        );
    }

    /// The configured name, or the kind and the number among the devices of that kind: `cpu0`, `cpu1`.
    pub fn device_name(&self, index: usize) -> String {
        self.devices.name(index)
    }

    /// This configuration as a file that documents every field.
    pub fn to_toml(&self) -> String {
        print::print(self)
    }

    /// Reads the file, if there is one, lets `overrides` win over it, and checks the whole.
    pub fn load(file: Option<&Path>, overrides: &Overrides) -> Result<Config, Error> {
        let mut config = Config::default();
        let mut problems = Vec::new();
        let mut lines = read::Lines::default();
        if let Some(path) = file {
            let bytes = std::fs::read(path).map_err(|source| Error::Unreadable { path: path.into(), source })?;
            let text = String::from_utf8(bytes).map_err(|error| {
                let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
                let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
                Error::NotText { path: path.into(), line }
            })?;
            lines = read::read(&text, &mut config, &mut problems);
        }
        overrides.apply(&mut config, &mut lines);
        for problem in config.check() {
            // What could not be read has its default now; that is no news.
            if !problems.iter().any(|known| known.field == problem.field) {
                problems.push(lines.place(problem));
            }
        }
        problems.sort_by_key(|problem| problem.line.unwrap_or(usize::MAX));
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(Error::Invalid(Invalid { file: file.map(Path::to_path_buf), problems }))
        }
    }

    /// Every problem there is with these values on this machine.
    pub fn check(&self) -> Vec<Problem> {
        check::check(self)
    }
}

impl Device {
    fn visit<V: Visitor>(&mut self, v: &mut V) {
        v.field(
            "kind",
            &mut self.kind,
            Choice(&DeviceKind::ALL),
            "What it is. auto: a GPU, one device on each that can run one, and where there is none a CPU. cpu: threads. \
             cuda: an NVIDIA GPU; `ringhold devices` lists those of this machine. emulated: the ring kernel of a GPU, compiled by this machine's C++ compiler and run by \
             threads, to try and to test it where there is no GPU; it is slow.",
        );
        v.field(
            "name",
            &mut self.name,
            Optional(Name, "cpu0"),
            "For people; no two alike. Unset: its kind and number, such as cpu0.",
        );
        v.field(
            "workers",
            &mut self.workers,
            AutoOr(Range::new(1, 1_024)),
            "Event loops; on a CPU, threads, on a GPU, blocks. auto: half of the machine's cores, for the node and its \
             clients need some too; on a GPU, as many as it runs at once.",
        );
        v.field(
            "gpu",
            &mut self.gpu,
            Range::new(0, 255),
            "The GPU of a cuda device: the N of `cuda:N` in `ringhold devices`.",
        );
        v.field(
            "memory_bytes",
            &mut self.memory_bytes,
            Optional(Range::new(32 << 20, 1 << 40), "17179869184"),
            "The memory that a cuda device takes of its GPU, for actors, messages that wait, timers and checkpoints. Unset: \
             three quarters of it, shared with the other devices on it. An emulated device takes 1 GiB.",
        );
        v.field(
            "host",
            &mut self.host,
            Choice(&[("process", Host::Process), ("in-process", Host::InProcess)]),
            "process: in a process of its own, whose crash costs the state of its actors and nothing else. \
             in-process: inside the node, for embedding; a CPU device.",
        );
        v.field(
            "fallback",
            &mut self.fallback,
            Choice(&[("auto", Fallback::Auto), ("cpu", Fallback::Cpu), ("none", Fallback::None)]),
            "What a device goes on with, from its last checkpoint, where its GPU fails for good; it moves back once that GPU \
             is to be had again. auto: a GPU that no device is on, then the CPU. cpu. none: the device fails.",
        );
    }
}

/// What flags put in place of the file's values.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--data-dir`
    pub data_dir: Option<PathBuf>,
    /// `--listen`; port 0 takes any free port.
    pub listen: Option<SocketAddr>,
    /// `--join`; empty leaves what the file says.
    pub join: Vec<String>,
}

impl Overrides {
    fn apply(&self, config: &mut Config, lines: &mut read::Lines) {
        if let Some(data_dir) = &self.data_dir {
            config.node.data_dir = data_dir.clone();
            lines.forget("node.data_dir");
        }
        if let Some(listen) = self.listen {
            config.node.listen = listen;
            lines.forget("node.listen");
        }
        if !self.join.is_empty() {
            config.node.join = self.join.clone();
            lines.forget("node.join");
        }
    }
}

/// One thing that is wrong, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// `queues.slot_bytes`, `devices[1].workers`.
    pub field: String,
    /// In the file, from 1; `None` for a default or a flag.
    pub line: Option<usize>,
    /// As it stands, in TOML.
    pub value: String,
    /// What it must be.
    pub rule: String,
    /// What to write instead.
    pub fix: String,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "the configuration {} cannot be read: {source}{}", path.display(),
        if source.kind() == std::io::ErrorKind::NotFound { "; write one with `ringhold config default`" } else { "" }
    )]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("the configuration {} is not text: line {line} holds bytes that are no UTF-8", path.display())]
    NotText { path: PathBuf, line: usize },
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

/// All that is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub struct Invalid {
    pub file: Option<PathBuf>,
    pub problems: Vec<Problem>,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.problems.len();
        write!(f, "the configuration has {count} error{}", if count == 1 { "" } else { "s" })?;
        for problem in &self.problems {
            write!(f, "\n\n")?;
            match (&self.file, problem.line) {
                (Some(file), Some(line)) => write!(f, "{}:{line}: ", file.display())?,
                (None, Some(line)) => write!(f, "line {line}: ")?,
                (_, None) => {}
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let equals = if self.value.is_empty() { "" } else { " = " };
        write!(f, "{}{equals}{}\n  rule: {}\n  fix:  {}", self.field, self.value, self.rule, self.fix)
    }
}

#[cfg(test)]
mod tests;
