//! Tells and asks between two nodes, as actors and clients see them; beside a bare quinn stream and other frameworks' remote actors.
//!
//! Each is two processes that talk over loopback, ours with a device host each, with the same 24 bytes of payload. They take turns: a
//! disturbance hits all.

use std::path::Path;
use std::time::{Duration, Instant};

use ringhold::Key;
use ringhold::client::Client;
use serde_json::{Map, Value, json};

use crate::actors::pair;
use crate::machine::{Cluster, PATIENCE, Settings, shard};
use crate::report::{Report, grouped, median, progress, spread};
use crate::{Failure, bare, peers, percentile};

/// How much of each in a turn.
struct Load {
    turns: usize,
    asks: usize,
    /// Ours and the bare stream's.
    tells: u64,
    peer_tells: [(&'static str, u64); 2],
}

const FULL: Load = Load { turns: 7, asks: 2_000, tells: 4 << 20, peer_tells: [("ractor", 400_000), ("kameo", 20_000)] };
const QUICK: Load = Load { turns: 1, asks: 100, tells: 1 << 17, peer_tells: [("ractor", 2_000), ("kameo", 500)] };

/// Bursts that are under way between the two actors at a time.
const WINDOW: u32 = 16;

const METHOD: &str = "\
Two processes each, ours with a device host beside each, over loopback, in turns; a message has 24 bytes of payload, which is 64 with our header. A tenth of each turn goes \
before it, uncounted. Figures are medians of the turns with the lowest and highest turn; percentiles are of all asks of all turns.

- *ringhold*, tells: an actor of node A tells an actor of node B, in bursts of 4,096, of which 16 are under way: the other acknowledges \
each by a message. From the first until the last acknowledgement is handled, by the clock of node A. Type `fast`; each node has one \
device of one worker in a process of its own.
- *ringhold*, asks: a client that was given the address of node A asks an actor of node B (it goes to B by itself). *Actor to actor*: an \
actor of A sends to one of B, which sends back; by the clock of A, in whole microseconds, all of them counted.
- *bare quinn*: one stream, set up by the functions that set up a node's connections; 64-byte messages in writes of 64 KiB, until the \
receiver has said that it has read all. Asks: 64 bytes echoed. One thread at each end, and nothing behind it.
- *ractor_cluster* 0.16: TCP, unencrypted as it is by default; `cast`, then a `call` behind them. Asks: `call`.
- *kameo* 0.22, remote actors: libp2p over QUIC. `tell().send_ack()`, 64 under way, for a peer drops more than 100. Asks: `ask`.";

/// One turn's figures of one of them.
#[derive(Default)]
struct Figures {
    tells_per_s: Vec<f64>,
    asks_us: Vec<f64>,
}

pub async fn run(quick: bool, report: &mut Report) -> Result<(), Failure> {
    let load = if quick { QUICK } else { FULL };
    report.section("Messages between nodes", METHOD);
    let cluster = Cluster::start(2, Settings { lease: Duration::from_secs(3), committed: false }).await?;
    cluster.deal().await?;
    let ours = Ours::new(&cluster).await?;
    let program = peers::program();
    let (mut us, mut bare) = (Figures::default(), Figures::default());
    let mut trip_us = (0.0, 0.0);
    let mut others = [Figures::default(), Figures::default()];
    for turn in 1..=load.turns {
        ours.asks(load.asks / 10).await?;
        us.asks_us.extend(ours.asks(load.asks).await?);
        // The actor counts on from turn to turn.
        trip_us = ours.trips(load.asks).await?;
        ours.tells(load.tells / 10).await?;
        us.tells_per_s.push(ours.tells(load.tells).await?);
        let (tls, asks, tells) = (cluster.tls(), load.asks, load.tells);
        let alone = tokio::task::spawn_blocking(move || bare::turn(&tls, asks, tells)).await??;
        bare.asks_us.extend(alone.asks_us);
        bare.tells_per_s.push(alone.messages_per_s);
        if let Some(program) = &program {
            for ((framework, tells), figures) in load.peer_tells.iter().zip(&mut others) {
                figures.tells_per_s.push(peers::tells_per_s(program, framework, *tells)?);
                figures.asks_us.extend(peers::asks_us(program, framework, load.asks)?);
            }
        }
        progress("messages", turn, load.turns);
    }
    tell(report, &us, &bare, trip_us, &others, program.as_deref());
    Ok(())
}

fn tell(
    report: &mut Report,
    us: &Figures,
    bare: &Figures,
    (trip50, trip99): (f64, f64),
    others: &[Figures; 2],
    program: Option<&Path>,
) {
    let mut rows = Vec::new();
    let mut raw = Map::new();
    for (name, figures) in
        [("ringhold", us), ("bare quinn", bare), ("ractor_cluster", &others[0]), ("kameo", &others[1])]
    {
        if figures.asks_us.is_empty() {
            rows.push(vec![name.into(), "*not measured*".into(), String::new(), String::new()]);
            continue;
        }
        let (p50, p99) = asks(figures);
        rows.push(vec![name.into(), spread(&figures.tells_per_s, 0), format!("{p50:.0} µs"), format!("{p99:.0} µs")]);
        raw.insert(name.into(), json!({ "tells_per_s": figures.tells_per_s, "asks_us": figures.asks_us }));
    }
    let actors =
        vec!["ringhold, actor to actor".into(), String::new(), format!("{trip50:.0} µs"), format!("{trip99:.0} µs")];
    rows.insert(1, actors);
    raw.insert("ringhold_actor_to_actor".into(), json!({ "p50_us": trip50, "p99_us": trip99 }));
    report.table(&["", "tells a second", "ask p50", "p99"], &rows);
    if program.is_none() {
        report.say(&format!(
            "*Skipped*: ractor_cluster and kameo, whose program does not lie beside this one. To build it: `{}`\n",
            peers::HOW
        ));
    }
    let (ours, stream) = (median(&us.tells_per_s), median(&bare.tells_per_s));
    let part = ours / stream;
    report.budget("tells", "at least 80 % of bare quinn", &format!("{:.0} %", part * 100.0), part >= 0.8);
    if !others[0].tells_per_s.is_empty() {
        let times = ours / median(&others[0].tells_per_s);
        report.budget("tells", "at least 10 × ractor_cluster", &format!("{} ×", grouped(times, 1)), times >= 10.0);
    }
    let (bare50, _) = asks(bare);
    for (what, p50) in [("ask p50, client", asks(us).0), ("ask p50, actor to actor", trip50)] {
        let times = p50 / bare50;
        report.budget(what, "at most 1.5 × bare quinn", &format!("{times:.2} ×"), times <= 1.5);
    }
    report.say("");
    report.raw("messages", Value::Object(raw));
}

/// p50 and p99.
fn asks(figures: &Figures) -> (f64, f64) {
    let mut sorted = figures.asks_us.clone();
    sorted.sort_by(f64::total_cmp);
    (percentile(&sorted, 0.5), percentile(&sorted, 0.99))
}

/// An actor of each of the two nodes.
struct Ours {
    client: Client,
    /// Of node A.
    here: u64,
    /// Of node B.
    there: u64,
}

impl Ours {
    async fn new(cluster: &Cluster) -> Result<Ours, Failure> {
        let owners = cluster.owners().await?;
        let of = |node: usize| {
            let number = cluster.nodes[node].number;
            (0..).find(|key| owners[shard(*key)] == number).expect("each node has shards")
        };
        Ok(Ours { client: cluster.client(&[0]).await?, here: of(0), there: of(1) })
    }

    async fn asks(&self, count: usize) -> Result<Vec<f64>, Failure> {
        let mut taken = Vec::with_capacity(count);
        for _ in 0..count {
            let began = Instant::now();
            self.client.ask(Key(self.there), pair::Message::Ask { padding: 1 }).await?;
            taken.push(began.elapsed().as_secs_f64() * 1e6);
        }
        Ok(taken)
    }

    /// What an actor says once this is so of it.
    async fn until(&self, key: u64, is_so: impl Fn(u32, u32) -> bool) -> Result<(u64, u64), Failure> {
        let since = Instant::now();
        loop {
            // Seldom, for it is in the way of what is measured.
            tokio::time::sleep(Duration::from_millis(20)).await;
            if let pair::Reply::Is { told, took, to_come, trips } =
                self.client.ask(Key(key), pair::Message::Read).await?
                && is_so(to_come, trips)
            {
                return Ok((told, took));
            }
            if since.elapsed() > PATIENCE {
                return Err(format!("actor {key} has not done what it was told to").into());
            }
        }
    }

    /// Tells a second between the two actors.
    async fn tells(&self, messages: u64) -> Result<f64, Failure> {
        let bursts = (messages / pair::BURST).max(1) as u32;
        let (before, _) = self.until(self.there, |_, _| true).await?;
        let send = pair::Message::Send { other: self.there, bursts, window: WINDOW };
        self.client.tell(Key(self.here), send).await?;
        self.client.flush().await?;
        let (_, took) = self.until(self.here, |to_come, _| to_come == 0).await?;
        let (told, _) = self.until(self.there, |_, _| true).await?;
        let expected = u64::from(bursts) * pair::BURST;
        if told - before != expected {
            return Err(format!("the actor was told {} times, not {expected}", told - before).into());
        }
        Ok(expected as f64 / (took as f64 / 1e6))
    }

    /// p50 and p99 of round trips between the two actors, in microseconds: of all that they have made.
    async fn trips(&self, count: usize) -> Result<(f64, f64), Failure> {
        let travel = pair::Message::Travel { other: self.there, trips: count as u32 };
        self.client.tell(Key(self.here), travel).await?;
        self.client.flush().await?;
        self.until(self.here, |_, trips| trips == 0).await?;
        let mut figures = [0.0; 2];
        for (figure, per_mille) in figures.iter_mut().zip([500, 990]) {
            if let pair::Reply::Micros { micros } =
                self.client.ask(Key(self.here), pair::Message::Percentile { per_mille }).await?
            {
                *figure = f64::from(micros);
            }
        }
        Ok((figures[0], figures[1]))
    }
}
