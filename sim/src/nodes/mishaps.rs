//! What happens to nodes, and shards that move meanwhile.

use std::sync::Arc;
use std::time::Duration;

use ringhold_cluster::control::admin;
use ringhold_cluster::control::state::DeviceNumber;
use ringhold_cluster::wire::Request;
use tokio::time::{sleep, timeout};

use super::plan::Mishap;
use super::site::{Order, Site};
use super::{ADMIN_PATIENCE, World};
use crate::network::Machine;
use crate::random::{Random, Stream};
use crate::recovery::clients::connect;
use crate::recovery::plan::Moves;

/// A disk that is not written to fails after so long all the same.
const WRITE_LIMIT: Duration = Duration::from_secs(3);

impl World {
    /// One of the nodes; for some numbers the one that leads.
    fn pick(&self, number: u64) -> &Arc<Site> {
        let leads = |site: &&Arc<Site>| {
            let control = site.node().map(|node| node.cluster.control().clone());
            control.is_some_and(|control| control.leader() == Some(control.number()))
        };
        match number % 4 {
            0 => self.sites.iter().find(leads),
            _ => None,
        }
        .unwrap_or(&self.sites[(number / 4) as usize % self.sites.len()])
    }
}

/// Has something happen, and waits until it is over.
pub async fn happen(world: Arc<World>, mishap: Mishap) {
    match mishap {
        Mishap::Crash { node, write, down } => {
            let site = world.pick(node);
            // One that is down has no power that could fail.
            let Some(node) = site.node() else { return };
            world.figures.lock().power_failures += 1;
            if let Some(write) = write {
                site.disk.fail_at_write(write);
                if timeout(WRITE_LIMIT, site.death(&node)).await.is_ok() {
                    return;
                }
            }
            site.order(Order::Crash { down: Some(down) });
            site.death(&node).await;
        }
        Mishap::CutOff { node, deaf, mute, clients, span } => {
            let site = world.pick(node);
            let mut others: Vec<Arc<Machine>> = world.sites.iter().map(|site| site.machine.clone()).collect();
            others.retain(|other| !Arc::ptr_eq(other, &site.machine));
            if clients {
                others.extend(world.machines.lock().iter().cloned());
            }
            cut(&world, &site.machine, &others, (deaf, mute), span).await;
        }
        Mishap::Flap { node, other, times, span } => {
            let (one, other) = (world.pick(node), world.pick(other));
            if one.number == other.number {
                return;
            }
            for _ in 0..times {
                cut(&world, &one.machine, std::slice::from_ref(&other.machine), (true, true), span).await;
                sleep(span).await;
            }
        }
        Mishap::Stop { node, down } => {
            let site = world.pick(node);
            let Some(node) = site.node() else { return };
            world.figures.lock().stops += 1;
            site.order(Order::Stop { down });
            site.death(&node).await;
        }
        Mishap::Pause { node, span } => {
            let site = world.pick(node);
            world.figures.lock().pauses += 1;
            site.pause(&world, true);
            sleep(span).await;
            site.pause(&world, false);
        }
        Mishap::Blackout { down } => {
            world.figures.lock().full_stops += 1;
            let mut dying = Vec::new();
            for site in &world.sites {
                let Some(node) = site.node() else { continue };
                world.figures.lock().power_failures += 1;
                let down_ms = site.disk.draw(down.as_millis() as u64);
                site.order(Order::Crash { down: Some(Duration::from_millis(down_ms)) });
                dying.push((site, node));
            }
            for (site, node) in dying {
                site.death(&node).await;
            }
        }
        Mishap::Drain { node, span } => drain(&world, &world.pick(node).name(), span).await,
    }
}

/// Has one machine not hear others, or they not it.
async fn cut(world: &World, one: &Machine, others: &[Arc<Machine>], (deaf, mute): (bool, bool), span: Duration) {
    world.figures.lock().cuts += 1;
    let set = |cut| {
        for other in others {
            if mute {
                world.net.cut_one_way(one, other, cut);
            }
            if deaf {
                world.net.cut_one_way(other, one, cut);
            }
        }
    };
    set(true);
    sleep(span).await;
    set(false);
}

/// Has nothing more be given to a node, and its shards move to others, for a while.
async fn drain(world: &World, name: &str, span: Duration) {
    let client = connect(world.client_options(true)).await;
    let state = world.newest();
    let known = state.iter().flat_map(|state| &state.nodes).find(|(_, member)| member.name == name);
    let Some(node) = known.map(|(number, _)| *number) else { return };
    let set = async |draining| {
        let request = Request::Cluster(admin::Request::Drain { node, draining });
        let done = client.request(request.clone(), ADMIN_PATIENCE).await;
        world.trace.event(format_args!("{request:?} came to {:?}", done.as_ref().map_err(|e| e.to_string())));
        done.is_ok()
    };
    if set(true).await {
        let state = world.newest();
        for (device, _) in state.iter().flat_map(|state| state.devices_of(node)) {
            let state = state.as_ref().expect("it has devices");
            let Some((to, _)) = state.devices.iter().find(|(_, device)| device.node != node) else { continue };
            let shards: Vec<u32> = state.shards_of(device).collect();
            if !shards.is_empty() {
                world.migrate(&client, shards, *to).await;
            }
        }
        sleep(span).await;
    }
    // It is to be taken back, whatever happens meanwhile.
    while !set(false).await {
        sleep(Duration::from_millis(100)).await;
    }
    let _ = client.close().await;
}

/// Has shards move from one device to another all the time. It does not end.
pub async fn move_shards(world: Arc<World>, moves: Moves) {
    let client = connect(world.client_options(true)).await;
    let mut random = Random::new(world.seed, Stream::Moves, 0);
    loop {
        let pause_us = random.between(1, moves.pause_max.as_micros() as u64);
        sleep(Duration::from_micros(pause_us)).await;
        let Some(state) = world.newest() else { continue };
        let devices: Vec<DeviceNumber> = state.devices.keys().copied().collect();
        let from = random.pick(&devices);
        let near = |device: &DeviceNumber| {
            !world.plan.moves_within_nodes || state.devices[device].node == state.devices[&from].node
        };
        let others: Vec<DeviceNumber> = devices.into_iter().filter(|device| *device != from && near(device)).collect();
        if others.is_empty() {
            continue;
        }
        let to = random.pick(&others);
        let shards: Vec<u32> = state.shards_of(from).filter(|_| random.per_mille(moves.shards_per_mille)).collect();
        if !shards.is_empty() {
            world.migrate(&client, shards, to).await;
        }
    }
}
