//! Nodes that talk to each other: over the machine's loopback, and in memory and in paused time where seconds have to pass.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::time::Duration;

use parking_lot::Mutex;
use quinn::{Connection, RecvStream, SendStream};
use ringhold::server::Server;
use ringhold_cluster::network::{BoxFuture, Network, RealNetwork};
use ringhold_cluster::peers::{CallError, PeerHello, PeerName, PeerRefused, PeerService, PeerState, Peers};
use ringhold_cluster::tls::{Authority, Identity, NODE_NAME, Role};
use ringhold_cluster::transport;
use ringhold_cluster::wire::{self, Close, PEER_REQUEST_BYTES_MAX, Preamble, StreamKind};
use tokio::time::{Instant, sleep};

use crate::harness::{EchoDoors, Node, closed, serve_as, until};
use crate::memory::MemoryNetwork;

pub const SOON: Duration = Duration::from_secs(20);

/// Answers with what it was asked, unless that is one of a few words.
pub struct Echo {
    pub hello: Mutex<PeerHello>,
    /// Whom it has nothing to do with, and why.
    against: Mutex<BTreeMap<[u8; 16], String>>,
    /// Where the last node was met.
    met: Mutex<Option<SocketAddr>>,
    /// Requests that wait for ever, and those of them that were dropped.
    waiting: AtomicUsize,
    dropped: AtomicUsize,
    /// The tokens that were used, with their expiry.
    pub used: Mutex<Vec<(Vec<u8>, u64)>>,
}

impl PeerService for Echo {
    fn about(&self) -> PeerHello {
        self.hello.lock().clone()
    }

    fn judge(&self, hello: &PeerHello, from: SocketAddr) -> Result<(), PeerRefused> {
        *self.met.lock() = Some(from);
        match self.against.lock().get(&hello.node.id) {
            Some(why) => Err(PeerRefused::Service(why.clone())),
            None => Ok(()),
        }
    }

    fn answer(&self, from: PeerName, request: Vec<u8>) -> BoxFuture<'_, Result<Vec<u8>, String>> {
        struct Waits<'a>(&'a Echo);
        impl Drop for Waits<'_> {
            fn drop(&mut self) {
                self.0.dropped.fetch_add(1, SeqCst);
            }
        }
        Box::pin(async move {
            match &request[..] {
                b"wait" => {
                    self.waiting.fetch_add(1, SeqCst);
                    let _waits = Waits(self);
                    std::future::pending().await
                }
                b"fail" => Err(format!("`{}` asked for it", from.name)),
                b"panic" => panic!("it was asked to"),
                b"too much" => Ok(vec![7; PEER_REQUEST_BYTES_MAX + 1]),
                _ => Ok(request),
            }
        })
    }

    fn use_token(&self, serial: Vec<u8>, expires_us: u64) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let mut used = self.used.lock();
            if used.iter().any(|(other, _)| *other == serial) {
                return Err("it was used before".into());
            }
            used.push((serial, expires_us));
            Ok(())
        })
    }
}

/// A node of which everything but its part in the cluster is left out.
pub struct Member {
    pub network: Arc<dyn Network>,
    pub identity: Identity,
    pub echo: Arc<Echo>,
    pub peers: Peers,
    pub server: Server,
}

impl Member {
    fn start(network: &Arc<dyn Network>, authority: &Authority, id: u8) -> Member {
        let node = PeerName { id: [id; 16], incarnation: u64::from(id), name: format!("n{id}"), ..PeerName::default() };
        let hello =
            PeerHello { cluster: Some([1; 16]), cluster_name: "tests".into(), ..PeerHello::new("ringhold test", node) };
        let identity = authority.identity(Role::Node, &**network).unwrap();
        Member::start_as(network, identity, hello, "127.0.0.1:0".parse().unwrap())
    }

    pub fn start_as(network: &Arc<dyn Network>, identity: Identity, hello: PeerHello, listen: SocketAddr) -> Member {
        let echo = Arc::new(Echo {
            hello: Mutex::new(hello),
            against: Mutex::default(),
            met: Mutex::default(),
            waiting: AtomicUsize::new(0),
            dropped: AtomicUsize::new(0),
            used: Mutex::default(),
        });
        let service: Arc<dyn PeerService> = echo.clone();
        let peers = Peers::new(network.clone(), identity.clone(), Arc::downgrade(&service));
        let server = serve_as(network, identity.clone(), Arc::new(EchoDoors::default()), listen, Some(peers.clone()));
        Member { network: network.clone(), identity, echo, peers, server }
    }

    /// The same node, started again; the old one is gone without a word where its network says so.
    fn started_again(&self, listen: SocketAddr) -> Member {
        let mut hello = self.echo.about();
        hello.node.incarnation += 100;
        Member::start_as(&self.network, self.identity.clone(), hello, listen)
    }

    pub fn address(&self) -> String {
        self.server.address().to_string()
    }

    pub async fn ask(&self, other: &Member, what: &[u8]) -> Result<Vec<u8>, CallError> {
        self.peers.call(&other.address(), None, what.to_vec(), SOON).await
    }

    pub fn counted(&self, name: &str) -> u64 {
        self.server.counters().snapshot().into_iter().find(|counter| counter.name == name).unwrap().value
    }

    /// Waits until this node has refused another, or was refused by it, so often.
    async fn has_refused(&self, times: u64) {
        until("the refusal is noticed on the other side", || self.counted("refused_peers") == times).await;
    }

    /// A connection to this node with that certificate, and nothing on it.
    pub async fn raw(&self, identity: &Identity) -> Connection {
        let endpoint = transport::client_endpoint(&self.network, self.server.address()).unwrap();
        let config = transport::client_config(&self.network, identity).unwrap();
        endpoint.connect_with(config, self.server.address(), NODE_NAME).unwrap().await.unwrap()
    }

    /// One on which these bytes were said first.
    async fn raw_saying(&self, identity: &Identity, hello: &[u8]) -> (Connection, SendStream, RecvStream) {
        let connection = self.raw(identity).await;
        let (mut send, recv) = connection.open_bi().await.unwrap();
        send.write_all(&Preamble::new(StreamKind::Peer).to_bytes()).await.unwrap();
        send.write_all(hello).await.unwrap();
        (connection, send, recv)
    }
}

pub fn hello_of(id: u8) -> Vec<u8> {
    let node = PeerName { id: [id; 16], ..PeerName::default() };
    wire::encode(&PeerHello::new("raw", node)).unwrap()
}

fn pair() -> (Member, Member) {
    let network: Arc<dyn Network> = Arc::new(RealNetwork);
    let authority = Authority::in_memory(&*network).unwrap();
    (Member::start(&network, &authority, 1), Member::start(&network, &authority, 2))
}

fn pair_in_memory() -> (MemoryNetwork, Member, Member) {
    let memory = MemoryNetwork::default();
    let network: Arc<dyn Network> = Arc::new(memory.clone());
    let authority = Authority::in_memory(&*network).unwrap();
    (memory, Member::start(&network, &authority, 1), Member::start(&network, &authority, 2))
}

pub fn refused(outcome: Result<Vec<u8>, CallError>) -> PeerRefused {
    match outcome.unwrap_err() {
        CallError::Refused { refused, .. } => refused,
        other => panic!("not refused but: {other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_ask_each_other_on_one_connection_for_each_direction() {
    let (a, b) = pair();
    let asked: Vec<_> = (0..300u32)
        .map(|i| {
            let (peers, address) = (a.peers.clone(), b.address());
            let ask = async move { peers.call(&address, Some([2; 16]), i.to_le_bytes().into(), SOON).await };
            tokio::spawn(ask)
        })
        .collect();
    for (i, ask) in asked.into_iter().enumerate() {
        assert_eq!(ask.await.unwrap().unwrap(), (i as u32).to_le_bytes());
    }
    assert_eq!((b.counted("peers"), b.counted("handshakes"), b.counted("peer_requests")), (1, 1, 300));
    assert_eq!(b.ask(&a, b"and back").await.unwrap(), b"and back");
    let text = a.ask(&b, b"fail").await.unwrap_err().to_string();
    assert!(text.contains(&b.address()) && text.contains("`n1` asked for it"), "{text}");

    let status = a.peers.status();
    assert_eq!((status.len(), &status[0].address, status[0].state), (1, &b.address(), PeerState::Connected));
    assert_eq!(status[0].node.as_ref().unwrap().name, "n2");
    assert_eq!((a.server.sessions().len(), b.server.sessions().len()), (0, 0), "they are no clients");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_bounded_and_as_large_as_the_bound() {
    let (a, b) = pair();
    let large: Vec<u8> = (0..PEER_REQUEST_BYTES_MAX).map(|i| (i / 7) as u8).collect();
    // While it is on its way, and after it.
    let (whole, small) = tokio::join!(a.ask(&b, &large), a.ask(&b, b"small"));
    assert!(whole.unwrap() == large);
    assert_eq!(small.unwrap(), b"small");
    let error = a.ask(&b, &vec![0; PEER_REQUEST_BYTES_MAX + 1]).await.unwrap_err();
    assert!(matches!(error, CallError::TooLarge { .. }), "{error}");
    let error = a.ask(&b, b"too much").await.unwrap_err();
    assert!(matches!(&error, CallError::Answered { text, .. } if text.contains("over the limit")), "{error}");

    // One that says that it is larger is not read.
    let (connection, _send, mut recv) = b.raw_saying(&a.identity, &hello_of(9)).await;
    recv.read_chunk(1, true).await.unwrap();
    let (mut send, mut recv) = connection.open_bi().await.unwrap();
    send.write_all(&Preamble::new(StreamKind::PeerRequest).to_bytes()).await.unwrap();
    send.write_all(&(PEER_REQUEST_BYTES_MAX as u32 + 1).to_le_bytes()).await.unwrap();
    let answer = recv.read_to_end(1_000).await.unwrap();
    assert_eq!(answer[0], 1);
    assert!(String::from_utf8_lossy(&answer).contains("over the limit"), "{answer:?}");
    assert_eq!(a.ask(&b, b"still there").await.unwrap(), b"still there");
}

#[tokio::test]
async fn a_node_of_another_cluster_is_refused_on_both_sides() {
    let (a, b) = pair();
    a.echo.hello.lock().cluster = Some([7; 16]);
    let refusal = refused(a.ask(&b, b"hello").await);
    assert!(matches!(refusal, PeerRefused::Cluster { .. }), "{refusal}");
    assert!(refusal.to_string().contains("check the address"), "{refusal}");
    b.has_refused(1).await;
    // One that is in none may ask.
    a.echo.hello.lock().cluster = None;
    sleep(Duration::from_millis(200)).await;
    assert_eq!(a.ask(&b, b"hello").await.unwrap(), b"hello");
}

#[tokio::test]
async fn nodes_without_a_common_version_refuse_each_other() {
    let (a, b) = pair();
    (a.echo.hello.lock().version_min, a.echo.hello.lock().version_max) = (900, 901);
    let text = refused(a.ask(&b, b"hello").await).to_string();
    assert!(text.contains("versions 900 to 901") && text.contains("one version apart"), "{text}");
    b.has_refused(1).await;
    // One that speaks the next version too is spoken to in this one.
    let next = PeerHello { version_max: wire::VERSION + 1, version_min: wire::VERSION, ..b.echo.about() };
    *b.echo.hello.lock() = next.clone();
    *a.echo.hello.lock() = PeerHello { node: PeerName { id: [1; 16], ..next.node.clone() }, ..b.echo.about() };
    a.echo.hello.lock().version_max = wire::VERSION;
    sleep(Duration::from_millis(200)).await;
    assert_eq!(a.ask(&b, b"hello").await.unwrap(), b"hello");
    // A hello of which only the beginning is the same.
    let mut strange = wire::encode(&(700u16, 701u16, [9u64; 5])).unwrap();
    strange.splice(0..4, ((strange.len() - 4) as u32).to_le_bytes());
    let preamble = Preamble { version: 700, kind: StreamKind::Peer }.to_bytes();
    let connection = b.raw(&a.identity).await;
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    send.write_all(&[&preamble[..], &strange].concat()).await.unwrap();
    let (code, reason) = closed(&connection).await;
    assert_eq!(code, Close::Refused as u64);
    assert!(reason.contains("versions 700 to 701"), "{reason}");
}

#[tokio::test]
async fn a_certificate_that_is_not_a_nodes_opens_no_connection_between_nodes() {
    let network: Arc<dyn Network> = Arc::new(RealNetwork);
    let authority = Authority::in_memory(&*network).unwrap();
    let b = Member::start(&network, &authority, 2);
    let client = authority.identity(Role::Client, &*network).unwrap();
    let service: Arc<dyn PeerService> = b.echo.clone();
    let posing = Peers::new(network.clone(), client.clone(), Arc::downgrade(&service));
    let refusal = refused(posing.call(&b.address(), None, b"hello".into(), SOON).await);
    assert_eq!(refusal, PeerRefused::Certificate);
    assert!(refusal.to_string().contains("node.pem"), "{refusal}");
    b.has_refused(1).await;

    // Another authority's says nothing at all.
    let other = Authority::in_memory(&*network).unwrap();
    let a = Member::start(&network, &other, 1);
    let error = a.ask(&b, b"hello").await.unwrap_err();
    assert!(matches!(&error, CallError::Stranger { why, .. } if why.contains("certificate")), "{error}");
}

#[tokio::test]
async fn what_the_service_has_against_a_node_is_said_on_both_sides() {
    let (a, b) = pair();
    b.echo.against.lock().insert([1; 16], "n1 was removed from the cluster".into());
    assert_eq!(refused(a.ask(&b, b"hello").await).to_string(), "n1 was removed from the cluster");
    b.has_refused(1).await;
    // The same from the side that connects: the other hears of it.
    b.echo.against.lock().clear();
    a.echo.against.lock().insert([2; 16], "n2 was removed from the cluster".into());
    sleep(Duration::from_millis(200)).await;
    assert_eq!(refused(a.ask(&b, b"hello").await).to_string(), "n2 was removed from the cluster");
    b.has_refused(2).await;
}

#[tokio::test]
async fn a_node_that_meets_itself_or_another_than_it_expects_says_so() {
    let (a, b) = pair();
    assert_eq!(refused(a.ask(&a, b"hello").await), PeerRefused::Itself);
    let outcome = a.peers.call(&b.address(), Some([3; 16]), b"hello".into(), SOON).await;
    let text = refused(outcome).to_string();
    assert!(text.contains("0303") && text.contains("`n2`"), "{text}");
    assert_eq!(a.ask(&b, b"hello").await.unwrap(), b"hello", "the connection is good for others");
    // A copy of this very node, elsewhere.
    let copy = a.started_again("127.0.0.1:0".parse().unwrap());
    let refusal = refused(copy.ask(&a, b"hello").await);
    assert!(matches!(refusal, PeerRefused::SameIdentity { .. }), "{refusal}");
    a.has_refused(2).await;
    // And a node that takes no part in a cluster.
    let alone = Node::start(Arc::new(RealNetwork));
    let network: Arc<dyn Network> = Arc::new(RealNetwork);
    let stranger = Member::start(&network, &alone.authority, 4);
    let outcome = stranger.peers.call(&alone.server.address().to_string(), None, vec![], SOON).await;
    assert_eq!(refused(outcome), PeerRefused::Alone);
    assert_eq!(alone.counters().refused_peers.load(Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_second_node_with_an_identity_is_refused_while_the_first_lives_and_let_in_when_it_is_gone() {
    let (memory, a, b) = pair_in_memory();
    assert_eq!(a.ask(&b, b"first").await.unwrap(), b"first");
    let first = b.echo.met.lock().unwrap();
    let again = a.started_again("127.0.0.1:0".parse().unwrap());
    let refusal = refused(again.ask(&b, b"second").await);
    assert!(matches!(&refusal, PeerRefused::SameIdentity { .. }), "{refusal}");
    assert!(refusal.to_string().contains("stop one of them"), "{refusal}");
    assert_eq!(a.ask(&b, b"the first is as it was").await.unwrap(), b"the first is as it was");

    // Its power fails: it says nothing any more. Long before it would be found silent, its identity is free.
    memory.unplug(first);
    sleep(Duration::from_secs(1)).await;
    let started = Instant::now();
    assert_eq!(again.ask(&b, b"second").await.unwrap(), b"second");
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    assert_eq!(b.counted("peers"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_copy_is_noticed_by_the_node_that_connects_to_it_too() {
    let (_, a, b) = pair_in_memory();
    assert_eq!(a.ask(&b, b"hello").await.unwrap(), b"hello");
    let copy = b.started_again("127.0.0.1:0".parse().unwrap());
    let refusal = refused(a.ask(&copy, b"hello").await);
    assert!(matches!(refusal, PeerRefused::SameIdentity { .. }), "{refusal}");
    copy.has_refused(1).await;
    assert_eq!(a.ask(&b, b"hello").await.unwrap(), b"hello");
}

#[tokio::test(start_paused = true)]
async fn calls_to_a_node_that_is_gone_end_at_their_deadlines_and_not_later() {
    let (memory, a, b) = pair_in_memory();
    let within = Duration::from_millis(700);
    let call = |what: &'static [u8]| a.peers.call("127.0.0.1:999", None, what.to_vec(), within);
    let started = Instant::now();
    // Nobody is there: the attempt takes longer than the call.
    let error = call(b"hello").await.unwrap_err();
    assert!(matches!(error, CallError::TimedOut { .. }), "{error}");
    assert_eq!(started.elapsed().as_millis(), within.as_millis());
    // It goes on, and what it ends with is what calls hear while the next one waits.
    until("the attempt ends", || a.peers.status().iter().any(|s| s.state == PeerState::Waiting)).await;
    let waiting = Instant::now();
    let error = call(b"hello").await.unwrap_err();
    assert!(matches!(&error, CallError::Unreachable { why, .. } if why.contains("within 3 s")), "{error}");
    assert_eq!(waiting.elapsed().as_millis(), 0);
    sleep(Duration::from_secs(1)).await;
    let again = Instant::now();
    assert!(matches!(call(b"hello").await.unwrap_err(), CallError::TimedOut { .. }), "it is tried again");
    assert_eq!(again.elapsed().as_millis(), within.as_millis());

    // It goes while it is asked, and without a word.
    assert_eq!(a.ask(&b, b"hello").await.unwrap(), b"hello");
    let (peers, address) = (a.peers.clone(), b.address());
    let under_way = tokio::spawn(async move { peers.call(&address, None, b"wait".into(), within).await });
    until("it is asked", || b.echo.waiting.load(SeqCst) == 1).await;
    memory.unplug(b.server.address());
    assert!(matches!(under_way.await.unwrap().unwrap_err(), CallError::TimedOut { .. }));
    let lost = Instant::now();
    assert!(matches!(
        a.peers.call(&b.address(), None, b"hello".into(), within).await.unwrap_err(),
        CallError::TimedOut { .. }
    ));
    assert_eq!(lost.elapsed().as_millis(), within.as_millis());
    // A long call hears of it when it is found silent.
    let error = a.peers.call(&b.address(), None, b"hello".into(), Duration::from_secs(600)).await.unwrap_err();
    assert!(matches!(&error, CallError::Lost { .. }), "{error}");
    let silent = lost.elapsed();
    assert!(silent <= wire::IDLE_TIMEOUT + 2 * wire::KEEP_ALIVE, "{silent:?}");
    until("both have let go", || b.echo.dropped.load(SeqCst) == 1 && b.counted("peers_lost") == 1).await;
    // And it is back.
    memory.plug_in();
    assert_eq!(a.ask(&b, b"again").await.unwrap(), b"again");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_given_up_is_given_up_on_the_other_side() {
    let (_, a, b) = pair_in_memory();
    let within = Duration::from_millis(300);
    let error = a.peers.call(&b.address(), None, b"wait".into(), within).await.unwrap_err();
    assert!(error.to_string().contains("had not answered 300 ms"), "{error}");
    until("it is dropped", || b.echo.dropped.load(SeqCst) == 1).await;
    // So is one whose caller is gone.
    let (peers, address) = (a.peers.clone(), b.address());
    let call = tokio::spawn(async move { peers.call(&address, None, b"wait".into(), SOON).await });
    until("it is asked", || b.echo.waiting.load(SeqCst) == 2).await;
    call.abort();
    until("it is dropped", || b.echo.dropped.load(SeqCst) == 2).await;
    assert_eq!((b.counted("peers"), b.counted("peers_lost")), (1, 0), "and the connection is as it was");
}

#[tokio::test(start_paused = true)]
async fn concurrent_calls_share_one_attempt() {
    let (memory, a, b) = pair_in_memory();
    memory.unplug(b.server.address());
    let calls: Vec<_> = (0..50)
        .map(|_| {
            let (peers, address) = (a.peers.clone(), b.address());
            tokio::spawn(async move { peers.call(&address, None, b"x".into(), SOON).await })
        })
        .collect();
    let started = Instant::now();
    let errors: Vec<_> = futures_of(calls).await.into_iter().map(Result::unwrap_err).collect();
    assert!(errors.iter().all(|error| *error == errors[0]), "{errors:?}");
    assert!(matches!(errors[0], CallError::Unreachable { .. }), "{}", errors[0]);
    assert!(started.elapsed() < Duration::from_secs(4));
    memory.plug_in();
    sleep(Duration::from_secs(1)).await;
    let calls: Vec<_> = (0..50)
        .map(|_| {
            let (peers, address) = (a.peers.clone(), b.address());
            tokio::spawn(async move { peers.call(&address, None, b"x".into(), SOON).await })
        })
        .collect();
    assert!(futures_of(calls).await.into_iter().all(|answer| answer.is_ok()));
    assert_eq!(b.counted("peers"), 1);
}

async fn futures_of<T>(tasks: Vec<tokio::task::JoinHandle<T>>) -> Vec<T> {
    let mut all = Vec::new();
    for task in tasks {
        all.push(task.await.unwrap());
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_has_restarted_is_found_again() {
    let (a, mut b) = pair();
    assert_eq!(b.ask(&a, b"as its client").await.unwrap(), b"as its client");
    for round in 0..3 {
        assert_eq!(a.ask(&b, b"hello").await.unwrap(), b"hello");
        // In good order: its connections are closed, in both directions.
        let address = b.server.address();
        b.peers.stop();
        b.server.drain(Duration::from_secs(5)).await;
        assert_eq!(b.ask(&a, b"no more").await.unwrap_err(), CallError::Stopped);
        drop(b.server);
        let mut hello = b.echo.about();
        hello.node.incarnation += 1;
        until("its port is free", || std::net::UdpSocket::bind(address).is_ok()).await;
        b = Member::start_as(&b.network, b.identity.clone(), hello, address);
        assert_eq!(b.ask(&a, b"again").await.unwrap(), b"again", "round {round}");
    }
    assert_eq!(a.ask(&b, b"hello").await.unwrap(), b"hello");
}

#[tokio::test]
async fn an_answer_that_panics_ends_its_connection_and_nothing_else() {
    let (a, b) = pair();
    let error = a.ask(&b, b"panic").await.unwrap_err();
    assert!(matches!(&error, CallError::Lost { why, .. } if why.contains("its log says how")), "{error}");
    assert_eq!(a.ask(&b, b"hello").await.unwrap(), b"hello");
    assert_eq!(a.peers.status()[0].state, PeerState::Connected);
}

#[tokio::test]
async fn an_address_that_is_forgotten_is_forgotten() {
    let (a, b) = pair();
    assert_eq!(a.ask(&b, b"hello").await.unwrap(), b"hello");
    let (peers, address) = (a.peers.clone(), b.address());
    let under_way = tokio::spawn(async move { peers.call(&address, None, b"wait".into(), SOON).await });
    until("it is asked", || b.echo.waiting.load(SeqCst) == 1).await;
    a.peers.forget(&b.address());
    assert!(matches!(under_way.await.unwrap().unwrap_err(), CallError::Lost { .. }));
    assert!(a.peers.status().is_empty());
    until("the other has let go", || b.echo.dropped.load(SeqCst) == 1).await;
    assert_eq!(b.counted("peers_lost"), 0, "it was told");
    assert_eq!(a.ask(&b, b"hello").await.unwrap(), b"hello");
    // When nobody has it any more, so are all.
    drop(a);
    sleep(Duration::from_millis(50)).await;
    assert_eq!(b.counted("peers_lost"), 0);
}

#[tokio::test]
async fn garbage_between_nodes_ends_the_connection_with_a_reason() {
    let (a, b) = pair();
    assert_eq!(a.ask(&b, b"hello").await.unwrap(), b"hello");
    // Instead of a hello: not decoded, or too long.
    let (connection, _send, _recv) =
        b.raw_saying(&a.identity, &[3, 0, 0, 0, wire::VERSION as u8, wire::VERSION as u8, 0xff]).await;
    let (code, reason) = closed(&connection).await;
    assert_eq!(code, Close::Refused as u64, "{reason}");
    assert!(reason.contains("hello is not valid"), "{reason}");
    let (connection, _send, _recv) = b.raw_saying(&a.identity, &[0xff; 8]).await;
    assert_eq!(closed(&connection).await.0, Close::Control as u64);
    // On the control stream.
    let (connection, mut send, _recv) = b.raw_saying(&a.identity, &hello_of(9)).await;
    send.write_all(b"garbage").await.unwrap();
    assert_eq!(closed(&connection).await.0, Close::Control as u64);
    // On a stream of its own; and streams that are none of a node's.
    let others = [StreamKind::Control, StreamKind::Request, StreamKind::Lane, StreamKind::Peer];
    let others = others.map(|kind| Preamble::new(kind).to_bytes().to_vec());
    for bytes in others.into_iter().chain([b"GET / HTTP/1.1\r\n".to_vec()]) {
        let (connection, _control, _recv) = b.raw_saying(&a.identity, &hello_of(9)).await;
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        send.write_all(&bytes).await.unwrap();
        assert_eq!(closed(&connection).await.0, Close::Preamble as u64, "{bytes:?}");
    }
    // A client may not open a node's.
    let first = [Preamble::new(StreamKind::PeerRequest).to_bytes().to_vec(), b"and more".to_vec()].concat();
    let connection = b.raw(&a.identity).await;
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    send.write_all(&first).await.unwrap();
    assert_eq!(closed(&connection).await.0, Close::Preamble as u64);

    // Requests of which anything may be wrong.
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    for round in 0..60 {
        let (connection, _control, _recv) = b.raw_saying(&a.identity, &hello_of(9)).await;
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        let preamble = Preamble::new(StreamKind::PeerRequest).to_bytes();
        let mut bytes = [&preamble[..], &40u32.to_le_bytes(), &[round; 40]].concat();
        for _ in 0..=round % 4 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = (seed >> 33) as usize % bytes.len();
            bytes[at] ^= (seed >> 20) as u8 | 1;
        }
        let _ = send.write_all(&bytes).await;
        let _ = send.finish();
        let _ = recv.read_to_end(1_000).await;
        connection.close(Close::Done.code(), b"");
    }
    assert_eq!(a.ask(&b, b"still there").await.unwrap(), b"still there");
}
