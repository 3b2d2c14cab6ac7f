//! `status`.

use ringhold_cluster::wire::{
    BreakerState, ClockStatus, DeviceState, DeviceStatus, NodeState, SessionStatus, ShedLevel, Status, WorkerState,
};
use ringhold_kernels::message::Reason;
use serde_json::{Value, json};

use super::Globals;
use super::connect::{self, Connection};
use super::exit::{self, Failure};
use super::output::{Output, Table, bytes, counted, fine_span, number, span};

pub fn status(globals: &Globals, output: Output) -> Result<u8, Failure> {
    connect::run(globals, async |node: &Connection| {
        let status = node.status().await?;
        output.result(with_reasons(&status, &status.devices), || status_text(&status));
        Ok(exit::OK)
    })
}

/// The status as JSON, the reasons in words that do not change with the wire.
pub fn with_reasons(status: &impl serde::Serialize, devices: &[DeviceStatus]) -> Value {
    let mut value = serde_json::to_value(status).expect("a status is maps with text for keys");
    for (json, device) in value["devices"].as_array_mut().into_iter().flatten().zip(devices) {
        let counts = device.unhandled.iter().map(|(reason, count)| (reason_word(*reason), json!(count)));
        json["unhandled"] = Value::Object(counts.collect());
    }
    value
}

/// `no_actor`, for programs; numbers that this build does not know stay numbers.
pub fn reason_word(reason: u8) -> String {
    let Some(reason) = Reason::from_u8(reason) else { return reason.to_string() };
    let mut word = String::new();
    for c in format!("{reason:?}").chars() {
        if c.is_ascii_uppercase() && !word.is_empty() {
            word.push('_');
        }
        word.push(c.to_ascii_lowercase());
    }
    word
}

pub fn reason_text(reason: u8) -> String {
    Reason::from_u8(reason).map_or_else(|| format!("reason {reason}"), |reason| reason.to_string())
}

fn status_text(status: &Status) -> String {
    let state = match status.state {
        NodeState::Starting => "starting",
        NodeState::Running => "running",
        NodeState::Degraded => "degraded: a device does not run, or runs elsewhere than it is to",
        NodeState::Draining => "draining: it finishes what it has and then exits",
    };
    let node = &status.node;
    let mut facts = Table::new(["", ""]);
    let mut fact = |name: &str, value: String| facts.row([name.into(), value]);
    fact("node", format!("{} ({})", node.name, node.id));
    fact("cluster", node.cluster.clone());
    fact("version", node.version.clone());
    fact("state", format!("{state}, up {}", span(status.uptime_ms)));
    fact("address", format!("{}, process {}", status.address, status.pid));
    fact("messages", format!("payload up to {} bytes, in slots of {}", status.payload_bytes_max, status.slot_bytes));
    fact("actor types", number(status.actor_types.into()));
    let kept = format!("{} kept, {} since the start", number(status.dead_letters_kept), number(status.dead_letters));
    fact("dead letters", kept);
    let shedding = &status.shedding;
    if shedding.level != ShedLevel::Nothing {
        fact("overloaded", format!("{}: {}", shed_text(shedding.level), shedding.why));
    }
    let refused = [shedding.sessions, shedding.creations, shedding.tells, shedding.asks];
    if refused.iter().any(|count| *count > 0) {
        let [sessions, creations, tells, asks] = refused;
        let made = format!("{} that would have made an actor", counted(creations, "message"));
        let all = [counted(sessions, "session"), made, counted(tells, "tell"), counted(asks, "ask")].join(", ");
        fact("refused so", all);
    }
    if status.dead_letters_lost > 0 {
        fact("", format!("{} could not be kept", number(status.dead_letters_lost)));
    }
    if let Some(why) = &status.dead_letters_failed {
        fact("", format!("they wait in memory: {why}"));
    }
    let facts = facts.text();
    let facts = facts.split_once('\n').map_or("", |(_, rows)| rows);

    let mut text = format!("{facts}\n{}", devices_table(&status.devices).text());
    for device in &status.devices {
        text.push_str(&notes(device));
    }
    if !status.sessions.is_empty() {
        text.push_str(&format!("\n{}", sessions_table(&status.sessions).text()));
    }
    text
}

fn shed_text(level: ShedLevel) -> &'static str {
    match level {
        ShedLevel::Nothing => "nothing is refused",
        ShedLevel::Sessions => "refuses new sessions",
        ShedLevel::Creation => "refuses new sessions, and messages that would make actors",
        ShedLevel::Tells => "refuses new sessions and tells from outside",
        ShedLevel::Asks => "refuses everything from outside",
    }
}

fn devices_table(devices: &[DeviceStatus]) -> Table {
    let mut table = Table::new([
        "DEVICE",
        "STATE",
        ">PROCESS",
        ">UP",
        ">ACTORS",
        ">HANDLED",
        ">PER SECOND",
        ">FAULTS",
        ">WAITING",
        ">SPILLED",
        ">HEARTBEAT",
        ">CLOCK",
        ">DRIFT",
        ">RESTARTS",
    ]);
    for device in devices {
        table.row([
            device.name.clone(),
            device_state(device),
            device.pid.map_or("the node's".into(), |pid| pid.to_string()),
            span(device.uptime_ms),
            number(device.actors),
            number(device.handled),
            number(device.handled_per_s),
            number(device.faults),
            format!("{} of {}", number(device.inbox_used), number(device.inbox_slots)),
            number(device.spilled_now),
            heartbeat(device),
            device.clock.as_ref().map_or("-".into(), clock_offset),
            device.clock.as_ref().map_or("-".into(), clock_drift),
            number(device.restarts.into()),
        ]);
    }
    table
}

fn device_state(device: &DeviceStatus) -> String {
    let state = match device.state {
        DeviceState::Starting => "starting",
        DeviceState::Running => "running",
        DeviceState::Stalled => "stalled",
        DeviceState::Restarting => "restarting",
        DeviceState::Stopping => "stopping",
        DeviceState::Stopped => "stopped",
        DeviceState::Failed => "failed",
    };
    // Once it runs again, why it had not is no part of its state.
    if device.detail.is_empty() || device.state == DeviceState::Running {
        state.into()
    } else {
        format!("{state}: {}", device.detail)
    }
}

/// Of the worker that was silent the longest. One with nothing to do has no reason to beat.
fn heartbeat(device: &DeviceStatus) -> String {
    let busy = |state| matches!(state, WorkerState::Busy | WorkerState::Stalled);
    if device.workers.iter().any(|worker| busy(worker.state)) {
        format!("{} ago", span(device.heartbeat_age_ms))
    } else if device.workers.iter().any(|worker| worker.state == WorkerState::Idle) {
        "idle".into()
    } else {
        "-".into()
    }
}

/// By how much the device's clock is behind its host's, and how far that may be off.
fn clock_offset(clock: &ClockStatus) -> String {
    if clock.paused {
        return "paused".into();
    }
    let sign = if clock.offset_ns < 0 { '-' } else { '+' };
    format!("{sign}{} ± {}", fine_span(clock.offset_ns.unsigned_abs()), fine_span(clock.error_ns))
}

/// In parts per million.
fn clock_drift(clock: &ClockStatus) -> String {
    format!("{:+.1} ppm", clock.drift_ppb as f64 / 1_000.0)
}

/// What the table has no column for.
fn notes(device: &DeviceStatus) -> String {
    let mut notes = unhandled_text(device);
    if device.state == DeviceState::Running && !device.detail.is_empty() {
        notes.push_str(&format!("{}: restarted; its last host: {}\n", device.name, device.detail));
    }
    let name = &device.name;
    for backend in device.backends.iter().filter(|backend| backend.breaker != BreakerState::Closed) {
        let then = match (backend.breaker, backend.retry_ms) {
            (BreakerState::Trying, _) => "is being tried again".into(),
            (_, Some(ms)) => format!("is tried again in {}", span(ms)),
            (_, None) => format!("is tried again once you have seen to it: `ringhold devices retry {name}`"),
        };
        notes.push_str(&format!("{name}: runs on {}; {} {then}: {}\n", device.backend, backend.name, backend.why));
    }
    if let Some(last) = device.checkpoints.as_ref().and_then(|checkpoints| checkpoints.last_recovery.as_ref()) {
        let [gone, launched, running] =
            [last.gone_us, last.launched_us, last.running_us].map(|us| fine_span(us * 1_000));
        let (from, to, why) = (&last.from, &last.to, &last.why);
        notes.push_str(&format!(
            "{name}: last recovered from {from} on {to} ({why}): gone after {gone}, another started after {launched}, running \
             after {running}\n"
        ));
    }
    notes
}

fn unhandled_text(device: &DeviceStatus) -> String {
    let counts = device.unhandled.iter().filter(|(_, count)| *count > 0);
    counts.map(|(reason, count)| format!("{}: {} × {}\n", device.name, number(*count), reason_text(*reason))).collect()
}

fn sessions_table(sessions: &[SessionStatus]) -> Table {
    let mut table =
        Table::new([">SESSION", "CLIENT", "ADDRESS", ">UP", ">MESSAGES", ">ANSWERS", ">ASKS WAITING", "HELD BACK"]);
    for session in sessions {
        table.row([
            session.number.to_string(),
            session.client.clone(),
            session.address.clone(),
            span(session.uptime_ms),
            number(session.messages_in),
            number(session.answers_out),
            number(session.asks_waiting.into()),
            if session.held_back { "yes".into() } else { String::new() },
        ]);
    }
    table
}

pub fn devices_text(devices: &[DeviceStatus]) -> String {
    let mut text = devices_table(devices).text();
    for device in devices {
        text.push_str(&notes(device));
    }
    let mut workers =
        Table::new(["DEVICE", ">WORKER", "STATE", ">HEARTBEAT", ">ACTORS", ">HANDLED", ">WAITING", ">SPILLED"]);
    for device in devices {
        for worker in &device.workers {
            workers.row([
                device.name.clone(),
                worker.number.to_string(),
                match worker.state {
                    WorkerState::Idle => "idle".into(),
                    WorkerState::Busy => format!("busy for {}", span(worker.busy_ms)),
                    WorkerState::Stalled => format!("stalled for {}", span(worker.busy_ms)),
                    WorkerState::Dead => "dead".into(),
                },
                format!("{} ago", span(worker.heartbeat_age_ms)),
                number(worker.actors),
                number(worker.handled),
                format!("{} of {}", number(worker.inbox_used), number(worker.inbox_slots)),
                number(worker.spilled_now),
            ]);
        }
    }
    text.push_str(&format!("\n{}", workers.text()));
    for device in devices {
        text.push_str(&format!(
            "\n{}: {} actors created, {} timers, {} of memory, {} messages sent, {} replies",
            device.name,
            number(device.actors_created),
            number(device.timers),
            bytes(device.memory_bytes),
            number(device.sent),
            number(device.replies),
        ));
        if let Some(clock) = &device.clock {
            let (samples, pauses) = (number(clock.samples), number(clock.pauses));
            text.push_str(&format!("; its clock: {samples} samples, {pauses} pauses"));
        }
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use ringhold_cluster::wire::{BackendStatus, DeviceKind, WorkerStatus};

    use super::*;

    #[test]
    fn a_status_reads_well_and_gives_reasons_in_words() {
        let device = DeviceStatus {
            name: "cpu0".into(),
            kind: DeviceKind::Cpu,
            state: DeviceState::Restarting,
            detail: "killed by signal 9".into(),
            pid: Some(12),
            handled: 336_776,
            inbox_slots: 65_536,
            unhandled: vec![(13, 2), (7, 0)],
            workers: vec![WorkerStatus { state: WorkerState::Busy, busy_ms: 1_200, ..WorkerStatus::default() }],
            ..DeviceStatus::default()
        };
        let status = Status { devices: vec![device.clone()], ..Status::default() };
        let text = status_text(&status);
        assert!(text.contains("restarting: killed by signal 9") && text.contains("336,776"), "{text}");
        assert!(text.contains("cpu0: 2 × the actor does not exist"), "{text}");
        assert!(text.starts_with("node "), "{text}");
        let backend =
            |breaker, retry_ms| BackendStatus { name: "cuda:0".into(), breaker, why: "Xid 79".into(), retry_ms };
        let backends = vec![backend(BreakerState::Open, None), backend(BreakerState::Closed, None)];
        let fallen = DeviceStatus { backend: "cpu".into(), backends, ..device.clone() };
        let text = devices_text(std::slice::from_ref(&fallen));
        let note = "cpu0: runs on cpu; cuda:0 is tried again once you have seen to it: `ringhold devices retry cpu0`: Xid 79\n";
        assert!(text.contains(note), "{text}");
        let backends = vec![backend(BreakerState::Open, Some(1_500))];
        let text = devices_text(&[DeviceStatus { backends, ..fallen }]);
        assert!(text.contains("cuda:0 is tried again in 1.5s: Xid 79"), "{text}");
        assert!(devices_text(std::slice::from_ref(&device)).contains("busy for 1.2s"));
        let value = with_reasons(&status, &status.devices);
        assert_eq!(value["devices"][0]["unhandled"], json!({"no_actor": 2, "no_reply": 0}));
        assert_eq!(value["devices"][0]["state"], "restarting");
    }
    #[test]
    fn a_devices_rate_inboxes_heartbeat_and_clock_are_shown() {
        let worker = |state| WorkerStatus { state, ..WorkerStatus::default() };
        let cpu = DeviceStatus {
            name: "cpu0".into(),
            state: DeviceState::Running,
            workers: vec![worker(WorkerState::Idle)],
            ..DeviceStatus::default()
        };
        let cuda = DeviceStatus {
            name: "cuda0".into(),
            handled_per_s: 12_345_678,
            inbox_used: 1_234,
            inbox_slots: 65_536,
            heartbeat_age_ms: 7,
            workers: vec![worker(WorkerState::Idle), worker(WorkerState::Busy)],
            clock: Some(ClockStatus {
                offset_ns: -3_456_789,
                drift_ppb: 12_340,
                error_ns: 1_290,
                samples: 4_096,
                pauses: 2,
                paused: false,
            }),
            ..cpu.clone()
        };
        let dead = DeviceStatus { name: "dead".into(), workers: vec![worker(WorkerState::Dead)], ..cpu.clone() };
        let text = devices_text(&[cpu.clone(), cuda.clone(), dead]);
        let row = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap().to_string();
        for words in ["12,345,678", "1,234 of 65,536", "7ms ago", "-3.4ms ± 1.2µs", "+12.3 ppm"] {
            assert!(row("cuda0 ").contains(words), "{words}: {text}");
        }
        assert!(row("cpu0 ").contains(" idle "), "{text}");
        assert!(row("cpu0 ").matches(" - ").count() == 2, "no clock of its own: {text}");
        assert!(row("dead ").matches(" - ").count() == 3, "and nobody whose heart beats: {text}");
        assert!(text.contains("; its clock: 4,096 samples, 2 pauses\n"), "{text}");

        let paused = ClockStatus { paused: true, ..cuda.clock.unwrap() };
        let paused = DeviceStatus { clock: Some(paused), ..cuda.clone() };
        assert!(devices_text(&[paused]).contains(" paused "));

        let value = with_reasons(&json!({"devices": [&cpu, &cuda]}), &[cpu, cuda]);
        assert_eq!(value["devices"][0]["clock"], Value::Null);
        assert_eq!(value["devices"][1]["handled_per_s"], 12_345_678);
        let clock = json!({
            "offset_ns": -3_456_789,
            "drift_ppb": 12_340,
            "error_ns": 1_290,
            "samples": 4_096,
            "pauses": 2,
            "paused": false,
        });
        assert_eq!(value["devices"][1]["clock"], clock);
    }
}
