//! How a node and its devices do.

#[cfg(doc)]
use ringhold_kernels::message::Reason;
use serde::{Deserialize, Serialize};

use super::NodeName;

/// A node at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub node: NodeName,
    pub state: NodeState,
    /// Where clients reach it.
    pub address: String,
    pub pid: u32,
    /// When this was taken, microseconds since the Unix epoch: two of these give rates.
    pub at_us: u64,
    pub uptime_ms: u64,
    pub slot_bytes: u32,
    pub payload_bytes_max: u32,
    pub actor_types: u32,
    pub devices: Vec<DeviceStatus>,
    pub sessions: Vec<SessionStatus>,
    /// Kept in the dead-letter queue now, and all since the node started.
    pub dead_letters_kept: u64,
    pub dead_letters: u64,
    /// Of those since the start, how many could not be kept; and why the disk takes none now, if it does not.
    pub dead_letters_lost: u64,
    pub dead_letters_failed: Option<String>,
    /// The transport's counters, by name.
    pub transport: Vec<Counter>,
    pub shedding: Shedding,
}

/// What a node refuses because it is short of memory or capacity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shedding {
    pub level: ShedLevel,
    /// How short it is: 100 is all there is.
    pub pressure_percent: u64,
    /// Of what, where something is refused.
    pub why: String,
    /// Refused since the node started.
    pub sessions: u64,
    pub creations: u64,
    pub tells: u64,
    pub asks: u64,
}

/// The last of the steps that are taken: each includes those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShedLevel {
    #[default]
    Nothing,
    /// New sessions are refused.
    Sessions,
    /// Messages from outside to actors that do not exist are refused.
    Creation,
    /// Tells from outside are refused.
    Tells,
    /// Asks from outside are refused.
    Asks,
}

/// How a node does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Whether it should be left to run.
    pub live: Verdict,
    /// Whether it should be given work.
    pub ready: Verdict,
    pub devices: Vec<DeviceHealth>,
}

/// Yes or no, and why not, or with what reservations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    pub ok: bool,
    pub reasons: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceHealth {
    pub name: String,
    pub state: DeviceState,
    pub verdict: DeviceVerdict,
    /// Why it is not well.
    pub reason: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceVerdict {
    Well,
    /// It works, and not as it is meant to.
    Degraded,
    #[default]
    Down,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    #[default]
    Starting,
    Running,
    /// Running, and not every device is.
    Degraded,
    Draining,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStatus {
    pub number: u32,
    pub address: String,
    /// What the client calls itself.
    pub client: String,
    pub uptime_ms: u64,
    pub messages_in: u64,
    pub answers_out: u64,
    pub asks_waiting: u32,
    /// Whether the node holds it back now, because the devices are full or it does not read its answers.
    pub held_back: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    pub name: String,
    pub value: u64,
}

/// A device at one moment. Counters run from the node's start and outlive restarts of the device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DeviceStatus {
    pub name: String,
    /// Of what runs it now.
    pub kind: DeviceKind,
    /// What runs it now: `cuda:0`, `cpu`.
    pub backend: String,
    /// What can run it, in the order in which that is preferred.
    pub backends: Vec<BackendStatus>,
    pub state: DeviceState,
    /// For people: since when, why.
    pub detail: String,
    /// Of the device host; `None` where the device runs inside the node.
    pub pid: Option<u32>,
    pub restarts: u32,
    pub uptime_ms: u64,
    /// When this was taken, microseconds since the Unix epoch: two of these give rates.
    pub at_us: u64,
    /// Of the oldest heartbeat among its workers that hold a message; zero if none does.
    pub heartbeat_age_ms: u64,
    pub workers: Vec<WorkerStatus>,
    pub actors: u64,
    pub actors_created: u64,
    pub memory_bytes: u64,
    pub handled: u64,
    /// Over about the last second.
    pub handled_per_s: u64,
    pub faults: u64,
    pub replies: u64,
    /// Messages its actors sent, to any actor.
    pub sent: u64,
    /// Timers that wait.
    pub timers: u64,
    /// Messages waiting in inboxes and rings, and for how many there is room.
    pub inbox_used: u64,
    pub inbox_slots: u64,
    /// Messages waiting on spill lists, and all that ever did.
    pub spilled_now: u64,
    pub spilled: u64,
    pub dead_letters: u64,
    /// Messages not handled, by [`Reason`] (as a number).
    pub unhandled: Vec<(u8, u64)>,
    /// `None` where the device runs by its host's clock, or nothing is known of its own yet.
    pub clock: Option<ClockStatus>,
    /// `None` where none are made.
    pub checkpoints: Option<CheckpointStatus>,
    /// Shards that it owns.
    pub shards: u32,
}

/// A device's checkpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointStatus {
    /// The last one's number; numbers grow for as long as the data folder lives.
    pub epoch: u64,
    /// Made since the node's start.
    pub count: u64,
    /// How long the last one has been durable; `None` before the first.
    pub age_ms: Option<u64>,
    pub bytes: u64,
    /// How long the device stood still for the last one, and how long it took until it was durable.
    pub pause_us: u64,
    pub took_us: u64,
    /// Why the last attempt failed, if it did.
    pub failed: Option<String>,
    /// Messages kept until a checkpoint covers them.
    pub retained_bytes: u64,
    /// Hosts that went on from a checkpoint, and how long that took, from the end of the last host: the last time, and at most.
    pub recoveries: u64,
    pub recovery_us: u64,
    pub recovery_max_us: u64,
    /// Of the recoveries, those that went on with another backend.
    pub moves: u64,
    pub last_recovery: Option<RecoveryStatus>,
}

/// How a device came to the host that it has: the last time that it had to. Times since it was noticed that the one before had
/// to go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryStatus {
    pub why: String,
    /// What it ran on before, and what it went on with.
    pub from: String,
    pub to: String,
    /// Until the old host was gone, the new one was started, and the device ran with all that it had.
    pub gone_us: u64,
    pub launched_us: u64,
    pub running_us: u64,
}

/// Something that can run a device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendStatus {
    pub name: String,
    pub breaker: BreakerState,
    /// Why its breaker opened; empty where it is closed.
    pub why: String,
    /// In how long it is tried again, where it is open; `None` where somebody has to see to it first.
    pub retry_ms: Option<u64>,
}

/// Whether a device may run there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BreakerState {
    #[default]
    Closed,
    /// It has failed, and the device runs elsewhere.
    Open,
    /// A host of it is being started, while the device runs elsewhere.
    Trying,
}

/// A device's own clock, as its host maps it to its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockStatus {
    /// Host time less device time.
    pub offset_ns: i64,
    /// By how much the offset grows, in nanoseconds a second; positive where the device's clock is slow.
    pub drift_ppb: i64,
    /// How far the device's mapped time may be off now.
    pub error_ns: u64,
    /// Samples taken since its host started.
    pub samples: u64,
    /// How often the device was paused since then, because its time was wrong.
    pub pauses: u64,
    /// It is paused now.
    pub paused: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    #[default]
    Cpu,
    Cuda,
    Emulated,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceState {
    #[default]
    Starting,
    Running,
    /// A worker holds a message past its deadline.
    Stalled,
    /// The device host is gone and another is on its way.
    Restarting,
    Stopping,
    Stopped,
    /// Given up: its last host ended in a way after which the device is not to be trusted.
    Failed,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    pub number: u32,
    pub state: WorkerState,
    pub heartbeat_age_ms: u64,
    /// How long it has held the message it runs; zero when idle.
    pub busy_ms: u64,
    pub handled: u64,
    pub actors: u64,
    pub inbox_used: u64,
    pub inbox_slots: u64,
    pub spilled_now: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerState {
    #[default]
    Idle,
    Busy,
    Stalled,
    Dead,
}
