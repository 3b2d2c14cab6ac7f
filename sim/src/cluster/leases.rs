//! Leases of the nodes: what each does for its own, whether two ever hold a device, and whether those of the dead begin elsewhere.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use ringhold_cluster::control::state::{Command, Device, DeviceNumber, NodeNumber};
use ringhold_cluster::control::{Control, Members, Start};
use tokio::time::{Instant, sleep};

use super::site::{Order, Site};
use super::{PATIENCE, World};

/// How often it is looked whether two nodes hold a device.
const LOOK: Duration = Duration::from_millis(5);
/// How often a node looks which of its replicas has everything now.
const REPLICATE: Duration = Duration::from_millis(300);
/// Once all is well it is waited so long for three voters, and for replicas that are in sync.
const REPLICATED_BUDGET: Duration = Duration::from_secs(10);
/// A process that has ended because its node was given up is started again after so long.
const RESTART: Duration = Duration::from_millis(200);
/// A node that has ended has so long to say so.
const ENDED_LIMIT: Duration = Duration::from_millis(1_500);
/// A device of a dead node is another's so soon after its lease is over, where the leader goes on,
const FAILOVER_BUDGET: Duration = Duration::from_millis(600);
/// so much later where another is elected meanwhile,
const ELECTION_BUDGET: Duration = Duration::from_secs(4);
/// and so much where calls are lost: Raft waits a second for the answer to one before it asks again.
const LOSS_BUDGET: Duration = Duration::from_secs(10);

/// What a node does about leases, for as long as it lives.
pub async fn take_part(site: Arc<Site>, world: Arc<World>, node: Control) {
    let part = async {
        // What a process knows that has just started, before it runs anything.
        while node.read(PATIENCE).await.is_err() {}
        come_back(&site, &world, &node).await;
        tokio::select! {
            biased;
            _ = node.keep_lease(start(&site, &node)) => {}
            () = node.keep_leases() => {}
            () = replicate(&node) => {}
        }
    };
    tokio::select! {
        biased;
        () = site.death(&node) => return,
        () = world.wires.while_awake(site.number, part) => {}
    }
    world.trace.event(format_args!("node {} was given up", site.number));
    site.order(Order::Crash { down: RESTART });
}

fn start(site: &Site, node: &Control) -> Start {
    Start { run: site.run(), given_up: node.state().times_given_up(site.number as NodeNumber) }
}

/// A node that has ended is taken in again, as one that was started since; unless it was removed meanwhile.
async fn come_back(site: &Site, world: &World, node: &Control) {
    let number = site.number as NodeNumber;
    while node.state().nodes.get(&number).is_some_and(|member| member.incarnation != site.run()) {
        world.admit(number as u8, &site.address(), site.run()).await;
        sleep(PATIENCE / 10).await;
    }
}

/// Ends a node in good order: nothing runs in it from then on, and whoever leads is told so.
pub async fn end(site: &Site, world: &World, node: &Control) {
    let start = start(site, node);
    node.will_end();
    let _ = node.hand_over().await;
    node.say_that_it_ends(start).await;
    let said = node.ended(start, ENDED_LIMIT).await;
    world.trace.event(format_args!("node {} has ended: {said:?}", site.number));
    world.figures.lock().ended += u64::from(said.is_ok());
}

/// Replicas of its devices are in sync after a while. It does not end.
async fn replicate(node: &Control) {
    loop {
        sleep(REPLICATE).await;
        let (state, own) = (node.state(), node.number() as NodeNumber);
        for (number, device) in state.devices_of(own) {
            let late = device.replicas.iter().find(|node| !device.in_sync.contains(node));
            if let Some(late) = late.filter(|_| node.lease().holds()) {
                let command = Command::InSync {
                    device: number,
                    term: device.term,
                    changes: device.changes,
                    node: *late,
                    in_sync: true,
                };
                // What is refused, or lost, is tried again with what is known then.
                let _ = node.propose(command, PATIENCE).await;
            }
        }
    }
}

/// Looks all the time whether two nodes hold a device. It does not end.
pub async fn watch(world: Arc<World>) {
    loop {
        check(&world);
        sleep(LOOK).await;
    }
}

/// At most one node thinks that it holds each device.
pub fn check(world: &World) {
    let mut held: BTreeMap<DeviceNumber, u64> = BTreeMap::new();
    for site in world.all() {
        let Some(node) = site.node().filter(|node| node.lease().holds()) else { continue };
        for (device, _) in node.state().devices_of(site.number as NodeNumber) {
            if let Some(other) = held.insert(device, site.number) {
                world.once(format!("nodes {other} and {} both hold device {device}", site.number));
            }
        }
    }
}

/// Once all is well: a node dies that runs a device of which another has everything, and the device is another's soon.
pub async fn check_failover(world: &Arc<World>) {
    let live = |number: NodeNumber| {
        let site = world.all().into_iter().find(|site| site.number == u64::from(number))?;
        site.node().is_some_and(|node| node.lease().holds()).then_some(site)
    };
    let replicated = |(number, device): (&DeviceNumber, &Device)| {
        let other = device.in_sync.iter().any(|node| *node != device.node && live(*node).is_some());
        live(device.node).filter(|_| other).map(|site| (*number, site))
    };
    let since = Instant::now();
    let (number, site) = loop {
        let state = world.read_somewhere().await;
        // Of one voter the loss is the end; and while one is followed by three, as long as not all know that it has been.
        let three = |members: Members| members.voters.len() >= 3 && !members.changing;
        let survives = world.all().iter().all(|site| site.node().is_none_or(|node| three(node.members())));
        if let Some(found) = state.and_then(|state| state.devices.iter().find_map(replicated)).filter(|_| survives) {
            break found;
        }
        if since.elapsed() > REPLICATED_BUDGET {
            return world.trace.event(format_args!("there are not three voters, or no device has a replica in sync"));
        }
        sleep(REPLICATE).await;
    };
    let led = site.node().is_some_and(|node| node.leader() == Some(site.number));
    world.trace.event(format_args!("node {} dies for good, which runs device {number}", site.number));
    site.order(Order::Stop);
    let died = Instant::now();
    let term = || world.all().iter().filter_map(|site| Some(site.node()?.role().1)).max();
    let before = term();
    let loss = if world.plan.weather.loss_per_mille > 0 { LOSS_BUDGET } else { Duration::ZERO };
    let budget = || {
        let election = if led || term() != before { ELECTION_BUDGET } else { Duration::ZERO };
        world.plan.timing.lease + FAILOVER_BUDGET + election + loss
    };
    let holds = |other: &Arc<Site>| {
        other.number != site.number
            && other.node().is_some_and(|node| {
                node.lease().holds() && node.state().devices[&number].node == other.number as NodeNumber
            })
    };
    while !world.all().iter().any(holds) {
        if world.all().iter().any(|other| other.number != site.number && other.node().is_none()) {
            return world.trace.event(format_args!("another dies too, so that nothing follows from how long it takes"));
        }
        if died.elapsed() > budget() {
            let led = if led { ", which led" } else { "" };
            return world.violation(format!(
                "device {number} of node {}{led} was nobody's {} ms after that had died",
                site.number,
                died.elapsed().as_millis()
            ));
        }
        sleep(LOOK).await;
    }
    let mut figures = world.figures.lock();
    let took = died.elapsed().as_millis() as u64;
    let longest = if led { &mut figures.failover_of_leader_ms } else { &mut figures.failover_ms };
    *longest = took.max(*longest);
    world.trace.event(format_args!("device {number} was another's after {took} ms"));
}

/// Every live node holds its lease.
pub fn missing(world: &World) -> Option<u64> {
    let holds = |site: &Arc<Site>| site.wiped.load(Relaxed) || site.node().is_some_and(|node| node.lease().holds());
    world.all().iter().find(|site| !holds(site)).map(|site| site.number)
}
