//! What an idle control plane says, by the number of nodes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use ringhold_cluster::control::{Blocking, Calls, Control, Options, Start, Timing};
use ringhold_cluster::network::{BoxFuture, RealNetwork};
use ringhold_storage::blocks::InMemory;
use ringhold_storage::raft_log::RaftLog;
use serde_json::{Value, json};

use crate::Failure;
use crate::machine::PATIENCE;
use crate::report::{Report, grouped};
use crate::size::{address, admission, found};

const METHOD: &str = "\
Control planes in one process, with the default times and disks in memory; calls between them go straight to each other and are counted: \
a request and its answer are a message each. Each does what a node does (keeps members and voters, asks for its lease, grants leases), \
and nothing is asked of the cluster. Not counted: what QUIC adds, and its own signs of life.";

pub async fn run(quick: bool, report: &mut Report) -> Result<(), Failure> {
    report.section("An idle cluster", METHOD);
    let (sizes, span): (&[u64], _) =
        if quick { (&[5], Duration::from_secs(1)) } else { (&[3, 5, 20, 50], Duration::from_secs(5)) };
    let mut rows = Vec::new();
    let mut raw = Vec::new();
    for nodes in sizes {
        let per_s = measure(*nodes, span).await?;
        let mut said = serde_json::Map::new();
        for (role, (messages, bytes)) in &per_s {
            rows.push(vec![nodes.to_string(), (*role).into(), grouped(*messages, 1), grouped(*bytes, 0)]);
            said.insert((*role).into(), json!({ "messages_per_s": messages, "bytes_per_s": bytes }));
        }
        raw.push(json!({ "nodes": nodes, "roles": Value::Object(said) }));
    }
    report.table(&["nodes", "of each", "messages a second, sent and received", "bytes a second"], &rows);
    report.raw("growth", json!(raw));
    Ok(())
}

/// Who is where, and what each has said and heard: messages and bytes.
#[derive(Clone, Default)]
struct Wires(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    there: BTreeMap<String, Control>,
    said: BTreeMap<u64, (u64, u64)>,
}

struct From {
    number: u64,
    wires: Wires,
}

impl Inner {
    fn goes(&mut self, between: [u64; 2], bytes: usize) {
        for number in between {
            let said = self.said.entry(number).or_default();
            *said = (said.0 + 1, said.1 + bytes as u64);
        }
    }
}

impl Calls for From {
    fn call<'a>(&'a self, to: &'a str, request: Vec<u8>, _: Duration) -> BoxFuture<'a, Result<Vec<u8>, String>> {
        Box::pin(async move {
            let there = {
                let mut inner = self.wires.0.lock().expect("nobody panics with it");
                let there = inner.there.get(to).cloned().ok_or("nobody is there")?;
                inner.goes([self.number, there.number()], request.len());
                there
            };
            let answer = there.answer(request).await;
            self.wires.0.lock().expect("nobody panics with it").goes([there.number(), self.number], answer.len());
            Ok(answer)
        })
    }
}

/// By what a node is to the others: messages and bytes a second of one of these.
async fn measure(count: u64, span: Duration) -> Result<BTreeMap<&'static str, (f64, f64)>, Failure> {
    let wires = Wires::default();
    let first = start(1, &wires).await?;
    first.initialize(&address(1)).await?;
    first.propose(found(), PATIENCE).await??;
    first.propose(admission(1, 10), PATIENCE).await??;
    let mut nodes = vec![first];
    for number in 2..=count {
        nodes[0].propose(admission(number, 10), PATIENCE).await??;
        nodes.push(start(number, &wires).await?);
    }
    let tasks: Vec<_> = nodes.iter().map(|node| tokio::spawn(take_part(node.clone()))).collect();
    let voters = if count % 2 == 1 { count } else { count - 1 }.min(5);
    let settled = |node: &Control| {
        let members = node.members();
        let all = members.voters.len() as u64 == voters && members.addresses.len() as u64 == count;
        all && !members.changing && node.lease().holds()
    };
    let since = Instant::now();
    while !nodes.iter().all(settled) {
        if since.elapsed() > PATIENCE {
            return Err(format!("{count} nodes do not come together").into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // What follows from the last change is over then.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let leader = nodes[0].leader();
    wires.0.lock().expect("nobody panics with it").said.clear();
    let began = Instant::now();
    tokio::time::sleep(span).await;
    let said = wires.0.lock().expect("nobody panics with it").said.clone();
    let seconds = began.elapsed().as_secs_f64();
    let members = nodes[0].members();
    if leader.is_none() || nodes[0].leader() != leader {
        return Err("the leader was another one meanwhile: something else runs on this machine".into());
    }
    tasks.iter().for_each(|task| task.abort());
    for node in &nodes {
        node.shutdown().await;
    }
    wires.0.lock().expect("nobody panics with it").there.clear();
    let mut by_role: BTreeMap<&'static str, (f64, f64, f64)> = BTreeMap::new();
    for node in &nodes {
        let role = match () {
            () if Some(node.number()) == leader => "leader",
            () if members.voters.contains(&node.number()) => "voter",
            () => "other",
        };
        let (messages, bytes) = said.get(&node.number()).copied().unwrap_or_default();
        let all = by_role.entry(role).or_default();
        *all = (all.0 + messages as f64, all.1 + bytes as f64, all.2 + seconds);
    }
    Ok(by_role.into_iter().map(|(role, (messages, bytes, s))| (role, (messages / s, bytes / s))).collect())
}

async fn start(number: u64, wires: &Wires) -> Result<Control, Failure> {
    let log = RaftLog::open(Arc::new(InMemory::default()), Path::new("in memory"))?;
    let calls = Arc::new(From { number, wires: wires.clone() });
    let (network, timing) = (Arc::new(RealNetwork), Timing::default());
    let options = Options { number, log: Arc::new(log), disk: Arc::new(Blocking), calls, network, timing };
    let control = Control::start(options).await?;
    control.advertise(&address(number));
    wires.0.lock().expect("nobody panics with it").there.insert(address(number), control.clone());
    Ok(control)
}

/// Does what a node does for its cluster.
async fn take_part(node: Control) {
    while node.read(PATIENCE).await.is_err() {}
    let start = Start { run: node.number(), given_up: 0 };
    tokio::select! {
        biased;
        _ = node.keep_lease(start) => {}
        () = node.keep_leases() => {}
        () = node.keep_members() => {}
    }
}
