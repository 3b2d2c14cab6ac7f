//! Whether a node lives, is ready, and how its devices do: decided from what is known of it, and told over HTTP and to clients.

pub mod http;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use ringhold_cluster::wire::{BreakerState, DeviceHealth, DeviceState, DeviceStatus, DeviceVerdict, Health, Verdict};

use crate::device::keeper::Jobs;

/// What health is decided from.
#[derive(Clone, Debug)]
pub struct Facts {
    pub draining: bool,
    /// The node belongs to a cluster and does not hold its lease.
    pub no_lease: bool,
    /// How long ago the node's tasks last ran, and the last time that a job was done for which a disk may have to be waited for.
    pub loop_age: Duration,
    pub storage_age: Duration,
    pub devices: Vec<DeviceStatus>,
    /// What is refused because the node is short of something, and why, if anything is.
    pub shedding: Option<String>,
    /// Why dead letters are not written, if they are not.
    pub letters_failed: Option<String>,
}

/// Tasks that have not run for so long do not run.
const LOOP_LIMIT: Duration = Duration::from_secs(10);
/// A disk that has not answered for so long does not answer.
const STORAGE_LIMIT: Duration = Duration::from_secs(30);

/// Whether the node should be left to run: if not, it is to be killed and started again.
pub fn live(loop_age: Duration, storage_age: Duration) -> Verdict {
    let mut reasons = Vec::new();
    if loop_age >= LOOP_LIMIT {
        reasons.push(format!("the node's tasks have not run for {} s", loop_age.as_secs()));
    }
    if storage_age >= STORAGE_LIMIT {
        reasons.push(format!("the storage threads have not answered for {} s", storage_age.as_secs()));
    }
    Verdict { ok: reasons.is_empty(), reasons }
}

/// How the node does.
pub fn judge(facts: &Facts) -> Health {
    let live = live(facts.loop_age, facts.storage_age);
    let devices: Vec<DeviceHealth> = facts.devices.iter().map(device).collect();
    let mut against = live.reasons.clone();
    if facts.draining {
        against.push("the node is draining".into());
    }
    if facts.no_lease {
        against.push("the node has no lease: it does not reach the leader of its cluster, or there is none, and its actors stand still".into());
    }
    for device in devices.iter().filter(|device| device.verdict == DeviceVerdict::Down) {
        against.push(format!("device `{}`: {}", device.name, device.reason));
    }
    for (device, checkpoints) in facts.devices.iter().filter_map(|d| Some((d, d.checkpoints.as_ref()?))) {
        if let Some(why) = &checkpoints.failed {
            against.push(format!("device `{}` makes no checkpoints: {why}", device.name));
        }
    }
    against.extend(facts.shedding.clone());
    let ok = against.is_empty();
    // What it is ready in spite of.
    let degraded = devices.iter().filter(|device| device.verdict == DeviceVerdict::Degraded);
    let degraded = degraded.map(|device| format!("degraded: device `{}`: {}", device.name, device.reason));
    let letters = facts.letters_failed.iter().map(|why| format!("degraded: dead letters wait in memory: {why}"));
    let reasons = against.into_iter().chain(degraded).chain(letters).collect();
    Health { live, ready: Verdict { ok, reasons }, devices }
}

fn device(status: &DeviceStatus) -> DeviceHealth {
    let because = |what: &str| match status.detail.is_empty() {
        true => what.to_string(),
        false => format!("{what}: {}", status.detail),
    };
    let own = status.backends.first().filter(|own| own.breaker != BreakerState::Closed);
    let (verdict, reason) = match (status.state, own) {
        (DeviceState::Running, None) => (DeviceVerdict::Well, String::new()),
        (DeviceState::Running, Some(own)) => {
            let how = if own.breaker == BreakerState::Trying { "is being tried again" } else { "is left alone" };
            (DeviceVerdict::Degraded, format!("it runs on {}; {} {how}: {}", status.backend, own.name, own.why))
        }
        (DeviceState::Starting, _) => (DeviceVerdict::Down, because("it is starting")),
        (DeviceState::Restarting, _) => (DeviceVerdict::Down, because("it is being restarted")),
        (DeviceState::Stalled, _) => (DeviceVerdict::Down, because("it is stalled")),
        (DeviceState::Stopping, _) => (DeviceVerdict::Down, because("it is stopping")),
        (DeviceState::Stopped, _) => (DeviceVerdict::Down, because("it has stopped")),
        (DeviceState::Failed, _) => (DeviceVerdict::Down, because("it is given up")),
    };
    DeviceHealth { name: status.name.clone(), state: status.state, verdict, reason }
}

/// When the node's tasks, and its storage threads, were last seen to do anything. Read by a thread of its own, for which reason
/// its time is the machine's.
#[derive(Debug)]
pub struct Pulse {
    origin: Instant,
    loop_ms: AtomicU64,
    storage_ms: AtomicU64,
}

const BEAT_EVERY: Duration = Duration::from_secs(1);

impl Default for Pulse {
    fn default() -> Pulse {
        Pulse { origin: Instant::now(), loop_ms: AtomicU64::new(0), storage_ms: AtomicU64::new(0) }
    }
}

impl Pulse {
    fn now_ms(&self) -> u64 {
        self.origin.elapsed().as_millis() as u64
    }

    fn age(&self, at: &AtomicU64) -> Duration {
        Duration::from_millis(self.now_ms().saturating_sub(at.load(Relaxed)))
    }

    pub fn loop_age(&self) -> Duration {
        self.age(&self.loop_ms)
    }

    pub fn storage_age(&self) -> Duration {
        self.age(&self.storage_ms)
    }

    pub fn live(&self) -> Verdict {
        live(self.loop_age(), self.storage_age())
    }

    /// Beats for as long as the node runs.
    pub async fn beat(self: Arc<Pulse>, jobs: Arc<dyn Jobs>) {
        let mut job: Option<_> = None;
        loop {
            self.loop_ms.store(self.now_ms(), Relaxed);
            // One at a time: a disk that does not answer must not be asked more and more.
            let running = job.get_or_insert_with(|| jobs.run(Box::new(|| ())));
            tokio::select! {
                biased;
                () = running => {
                    job = None;
                    self.storage_ms.store(self.now_ms(), Relaxed);
                    tokio::time::sleep(BEAT_EVERY).await;
                }
                () = tokio::time::sleep(BEAT_EVERY) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ringhold_cluster::wire::{BackendStatus, CheckpointStatus};

    use super::*;

    fn device(name: &str, state: DeviceState, detail: &str) -> DeviceStatus {
        DeviceStatus { name: name.into(), state, detail: detail.into(), ..DeviceStatus::default() }
    }

    fn well() -> Facts {
        Facts {
            draining: false,
            no_lease: false,
            loop_age: Duration::from_secs(1),
            storage_age: Duration::from_secs(2),
            devices: vec![
                device("cpu0", DeviceState::Running, ""),
                device("cpu1", DeviceState::Running, "killed once"),
            ],
            shedding: None,
            letters_failed: None,
        }
    }

    #[test]
    fn a_node_that_runs_is_live_and_ready() {
        let health = judge(&well());
        let yes = Verdict { ok: true, reasons: vec![] };
        assert_eq!((&health.live, &health.ready), (&yes, &yes));
        assert!(health.devices.iter().all(|d| d.verdict == DeviceVerdict::Well && d.reason.is_empty()));
    }

    #[test]
    fn a_node_whose_tasks_or_disk_stand_still_is_neither() {
        for (facts, why) in [
            (Facts { loop_age: LOOP_LIMIT, ..well() }, "the node's tasks have not run for 10 s"),
            (Facts { storage_age: STORAGE_LIMIT, ..well() }, "the storage threads have not answered for 30 s"),
        ] {
            let health = judge(&facts);
            let no = Verdict { ok: false, reasons: vec![why.into()] };
            assert_eq!((health.live, health.ready), (no.clone(), no));
        }
    }

    #[test]
    fn what_makes_a_node_not_ready_does_not_make_it_dead() {
        let failing = CheckpointStatus { failed: Some("no space is left".into()), ..CheckpointStatus::default() };
        let mut unsafe_device = device("cpu0", DeviceState::Running, "");
        unsafe_device.checkpoints = Some(failing);
        let stalled = device("cpu0", DeviceState::Restarting, "killed by signal 9");
        for (facts, why) in [
            (Facts { draining: true, ..well() }, "the node is draining"),
            (Facts { devices: vec![stalled], ..well() }, "device `cpu0`: it is being restarted: killed by signal 9"),
            (Facts { devices: vec![unsafe_device], ..well() }, "device `cpu0` makes no checkpoints: no space is left"),
            (Facts { shedding: Some("sheds tells".into()), ..well() }, "sheds tells"),
        ] {
            let health = judge(&facts);
            assert!(health.live.ok);
            assert_eq!(health.ready, Verdict { ok: false, reasons: vec![why.into()] });
        }
    }

    #[test]
    fn a_node_is_ready_though_dead_letters_wait() {
        let health = judge(&Facts { letters_failed: Some("full".into()), ..well() });
        assert_eq!(
            health.ready,
            Verdict { ok: true, reasons: vec!["degraded: dead letters wait in memory: full".into()] }
        );
    }

    #[test]
    fn a_node_is_ready_though_a_device_runs_on_the_cpu_for_its_gpu() {
        let own =
            BackendStatus { name: "cuda:0".into(), breaker: BreakerState::Open, why: "Xid 79".into(), retry_ms: None };
        let mut fallen = device("cuda0", DeviceState::Running, "");
        (fallen.backend, fallen.backends) = ("cpu".into(), vec![own]);
        let health = judge(&Facts { devices: vec![fallen], ..well() });
        assert_eq!(health.devices[0].verdict, DeviceVerdict::Degraded);
        let why = "degraded: device `cuda0`: it runs on cpu; cuda:0 is left alone: Xid 79";
        assert_eq!(health.ready, Verdict { ok: true, reasons: vec![why.into()] });
    }

    #[test]
    fn of_all_states_only_a_running_device_is_well() {
        use DeviceState::*;
        for state in [Starting, Running, Stalled, Restarting, Stopping, Stopped, Failed] {
            let health = judge(&Facts { devices: vec![device("x", state, "")], ..well() });
            assert_eq!(health.ready.ok, state == Running, "{state:?}");
        }
    }

    /// Does its first jobs, and no more.
    struct Stuck(AtomicU64);

    impl Jobs for Stuck {
        fn rest(&self, _: Duration) {}

        fn run(&self, job: Box<dyn FnOnce() + Send>) -> ringhold_cluster::network::BoxFuture<'static, ()> {
            let stuck = self.0.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_err();
            Box::pin(async move { if stuck { std::future::pending().await } else { job() } })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_stops_answering_is_seen_while_the_tasks_go_on() {
        let pulse = Arc::new(Pulse::default());
        let beating = tokio::spawn(pulse.clone().beat(Arc::new(Stuck(AtomicU64::new(2)))));
        tokio::time::sleep(Duration::from_secs(5)).await;
        std::thread::sleep(Duration::from_millis(30));
        let stuck = pulse.storage_age();
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(pulse.loop_age() < stuck && pulse.storage_age() >= Duration::from_millis(30), "{pulse:?}");
        beating.abort();
    }
}
