//! UDP between simulated machines: datagrams take their time, get lost, come twice, overtake each other.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncTimer, AsyncUdpSocket, ConnectionId, ConnectionIdGenerator, Runtime, UdpPoller};
use ringhold_cluster::network::{BoxFuture, ConnectionIds, Network};
use rustls::crypto::CryptoProvider;
use rustls::time_provider::TimeProvider;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::crypto;
use crate::random::{Random, Stream, secrets};
use crate::trace::{Trace, fnv1a};

/// The wall time at which every simulation begins: 2026-01-01 00:00 UTC.
pub const EPOCH: Duration = Duration::from_secs(1_767_225_600);

/// What the network does to datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weather {
    /// A datagram is on its way for between the two, which is what makes datagrams overtake each other.
    pub delay_min: Duration,
    pub delay_max: Duration,
    pub loss_per_mille: u64,
    pub duplicate_per_mille: u64,
    /// So many are held up for `straggle` more.
    pub straggle_per_mille: u64,
    pub straggle: Duration,
    /// Larger datagrams vanish, as they do where a path is narrow.
    pub datagram_bytes_max: usize,
}

/// The network of one simulation. Clones are the same network.
#[derive(Clone)]
pub struct Net(Arc<Mutex<Inner>>);

struct Inner {
    random: Random,
    trace: Trace,
    started: Instant,
    weather: Weather,
    /// From which machine to which nothing gets through.
    cut: BTreeSet<(IpAddr, IpAddr)>,
    /// Machines that stand still, each with what comes to it and what it sends meanwhile.
    held: BTreeMap<IpAddr, Vec<Datagram>>,
    /// What is on its way, by when it arrives and which was sent first.
    flying: BTreeMap<(Instant, u64), Datagram>,
    sent: u64,
    sockets: BTreeMap<SocketAddr, Inbox>,
    next_port: u16,
    /// Numbers sockets: one that is bound again is another.
    bound: u64,
    /// Wakes the task that delivers: something may be due earlier than what it waits for.
    earlier: Arc<Notify>,
}

struct Datagram {
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

#[derive(Default)]
struct Inbox {
    socket: u64,
    arrived: VecDeque<(SocketAddr, Vec<u8>)>,
    waker: Option<Waker>,
}

/// A socket drops what arrives while so many datagrams wait, as the system's do when their buffer is full.
const INBOX_DATAGRAMS_MAX: usize = 4096;

impl Net {
    /// A network without machines, and the task that delivers on it. Runs on the current runtime.
    pub fn start(seed: u64, weather: Weather, trace: Trace) -> Net {
        let net = Net(Arc::new(Mutex::new(Inner {
            random: Random::new(seed, Stream::Network, 0),
            trace,
            started: Instant::now(),
            weather,
            cut: BTreeSet::new(),
            held: BTreeMap::new(),
            flying: BTreeMap::new(),
            sent: 0,
            sockets: BTreeMap::new(),
            next_port: 49_152,
            bound: 0,
            earlier: Arc::default(),
        })));
        tokio::spawn(net.clone().deliver());
        net
    }

    /// A machine of this network. `skew` is how far its wall clock is ahead of the world's.
    pub fn machine(&self, number: u8, skew_us: i64) -> Arc<Machine> {
        let address = Ipv4Addr::new(10, 0, 0, number).into();
        let started = self.0.lock().started;
        Arc::new(Machine {
            net: self.clone(),
            address,
            skew_us: skew_us.into(),
            steady_skew_us: skew_us.into(),
            fast_per_mille: AtomicI64::new(0),
            started,
        })
    }

    /// Lets nothing through between two machines, or lets it through again. What is on its way arrives.
    pub fn cut(&self, a: &Machine, b: &Machine, cut: bool) {
        self.cut_one_way(a, b, cut);
        self.cut_one_way(b, a, cut);
    }

    /// The same from one to the other only.
    pub fn cut_one_way(&self, from: &Machine, to: &Machine, cut: bool) {
        let mut inner = self.0.lock();
        let (from, to) = (from.address, to.address);
        if cut {
            inner.cut.insert((from, to));
        } else {
            inner.cut.remove(&(from, to));
        }
        inner.trace.event(format_args!("network {} {from} -> {to}", if cut { "cut" } else { "mended" }));
    }

    /// Has a machine lose its power: its sockets send and receive nothing any more, though the program that had them may not
    /// know it yet, and others can be bound in their place.
    pub fn power_off(&self, machine: &Machine) {
        let mut inner = self.0.lock();
        inner.sockets.retain(|address, _| address.ip() != machine.address);
        if let Some(held) = inner.held.get_mut(&machine.address) {
            held.clear();
        }
    }

    /// Has a machine stand still, as seen from others: what it sends goes out once it goes on, and what comes to it comes then. Its
    /// tasks go on meanwhile: all machines share a thread.
    pub fn hold(&self, machine: &Machine, hold: bool) {
        let mut inner = self.0.lock();
        inner.trace.event(format_args!("{} {}", machine.address, if hold { "stands still" } else { "goes on" }));
        if hold {
            inner.held.entry(machine.address).or_default();
        } else if let Some(held) = inner.held.remove(&machine.address) {
            for datagram in held {
                match datagram.from.ip() == machine.address {
                    true => inner.send(datagram.from, datagram.to, &datagram.bytes),
                    false => inner.arrives(datagram),
                }
            }
        }
    }

    /// Datagrams sent so far.
    pub fn datagrams(&self) -> u64 {
        self.0.lock().sent
    }

    async fn deliver(self) {
        let earlier = self.0.lock().earlier.clone();
        loop {
            let next = self.0.lock().flying.first_key_value().map(|((at, _), _)| *at);
            match next {
                None => earlier.notified().await,
                Some(at) if at > Instant::now() => tokio::select! {
                    biased;
                    () = earlier.notified() => {}
                    () = tokio::time::sleep_until(at) => {}
                },
                Some(_) => self.0.lock().arrive(),
            }
        }
    }
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Net")
    }
}

/// What became of a datagram when it was sent.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Flies,
    FliesTwice,
    Lost,
    Cut,
    TooLarge,
}

impl Inner {
    fn send(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        if let Some(held) = self.held.get_mut(&from.ip()) {
            return held.push(Datagram { from, to, bytes: bytes.to_vec() });
        }
        let weather = self.weather;
        let fate = if self.cut.contains(&(from.ip(), to.ip())) {
            Fate::Cut
        } else if bytes.len() > weather.datagram_bytes_max {
            Fate::TooLarge
        } else if self.random.per_mille(weather.loss_per_mille) {
            Fate::Lost
        } else if self.random.per_mille(weather.duplicate_per_mille) {
            Fate::FliesTwice
        } else {
            Fate::Flies
        };
        let hash = fnv1a(0xcbf2_9ce4_8422_2325, bytes);
        self.trace.event(format_args!("udp {from} -> {to} {} bytes {hash:016x} {fate:?}", bytes.len()));
        let copies = match fate {
            Fate::Flies => 1,
            Fate::FliesTwice => 2,
            Fate::Lost | Fate::Cut | Fate::TooLarge => 0,
        };
        self.sent += 1;
        for copy in 0..copies {
            let spread = (weather.delay_max - weather.delay_min).as_micros() as u64;
            let mut delay = weather.delay_min + Duration::from_micros(self.random.below(spread + 1));
            if self.random.per_mille(weather.straggle_per_mille) {
                delay += weather.straggle;
            }
            let key = (Instant::now() + delay, self.sent * 2 + copy);
            self.flying.insert(key, Datagram { from, to, bytes: bytes.to_vec() });
        }
        if copies > 0 {
            self.earlier.notify_one();
        }
    }

    /// The first datagram on its way reaches its socket, if that is still there.
    fn arrive(&mut self) {
        let Some((_, datagram)) = self.flying.pop_first() else { return };
        match self.held.get_mut(&datagram.to.ip()) {
            Some(held) => held.push(datagram),
            None => self.arrives(datagram),
        }
    }

    fn arrives(&mut self, datagram: Datagram) {
        let Some(inbox) = self.sockets.get_mut(&datagram.to) else { return };
        if inbox.arrived.len() < INBOX_DATAGRAMS_MAX {
            inbox.arrived.push_back((datagram.from, datagram.bytes));
        }
        if let Some(waker) = inbox.waker.take() {
            waker.wake();
        }
    }
}

/// One simulated machine: an address, a clock.
#[derive(Debug)]
pub struct Machine {
    net: Net,
    address: IpAddr,
    /// How far its wall clock is ahead of the world's: now, and when its process started.
    skew_us: AtomicI64,
    steady_skew_us: AtomicI64,
    /// By how much its clock is fast, of a thousand parts; below zero it is slow.
    fast_per_mille: AtomicI64,
    started: Instant,
}

impl Machine {
    /// Has its steady clock run faster than the world's, or slower, by parts of a thousand.
    pub fn set_drift(&self, fast_per_mille: i64) {
        self.fast_per_mille.store(fast_per_mille, Relaxed);
    }

    /// Sets its wall clock ahead, or back.
    pub fn set_clock(&self, by_us: i64) {
        self.skew_us.fetch_add(by_us, Relaxed);
    }

    /// A process starts on it, and takes the time from its wall clock.
    pub fn begin_process(&self) {
        self.steady_skew_us.store(self.skew_us.load(Relaxed), Relaxed);
    }

    fn world_us(&self, skew_us: &AtomicI64) -> u64 {
        let world = EPOCH + self.started.elapsed();
        (world.as_micros() as u64).saturating_add_signed(skew_us.load(Relaxed))
    }

    pub fn socket_address(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.address, port)
    }
}

impl Network for Machine {
    fn bind(&self, address: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let mut inner = self.net.0.lock();
        if !address.ip().is_unspecified() && address.ip() != self.address {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        let port = match address.port() {
            0 => {
                inner.next_port += 1;
                inner.next_port
            }
            port => port,
        };
        let address = SocketAddr::new(self.address, port);
        if inner.sockets.contains_key(&address) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        inner.bound += 1;
        let number = inner.bound;
        inner.sockets.insert(address, Inbox { socket: number, ..Inbox::default() });
        Ok(Arc::new(Socket { net: self.net.clone(), address, number }))
    }

    fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::new(SimulatedTime)
    }

    /// Machines have no names here, only addresses.
    fn resolve<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move { Ok(vec![address.parse().map_err(io::Error::other)?]) })
    }

    fn random(&self, bytes: &mut [u8]) {
        secrets(bytes);
    }

    fn wall_us(&self) -> u64 {
        self.world_us(&self.skew_us)
    }

    fn steady_us(&self) -> u64 {
        let fast_us = self.started.elapsed().as_micros() as i64 * self.fast_per_mille.load(Relaxed) / 1_000;
        self.world_us(&self.steady_skew_us).saturating_add_signed(fast_us)
    }

    fn process_id(&self) -> u32 {
        1
    }

    fn crypto_provider(&self) -> Arc<CryptoProvider> {
        crypto::provider()
    }

    fn time_provider(&self) -> Arc<dyn TimeProvider> {
        Arc::new(crypto::Fixed(EPOCH))
    }

    fn connection_ids(&self) -> Option<ConnectionIds> {
        Some(Arc::new(|| Box::new(SeededIds)))
    }
}

struct SeededIds;

impl ConnectionIdGenerator for SeededIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; 8];
        secrets(&mut id);
        ConnectionId::new(&id)
    }

    fn cid_len(&self) -> usize {
        8
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[derive(Debug)]
struct Socket {
    net: Net,
    address: SocketAddr,
    number: u64,
}

impl Inner {
    /// The inbox of a socket, unless its machine has lost its power since.
    fn inbox(&mut self, socket: &Socket) -> Option<&mut Inbox> {
        self.sockets.get_mut(&socket.address).filter(|inbox| inbox.socket == socket.number)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let mut inner = self.net.0.lock();
        if inner.inbox(self).is_some() {
            inner.sockets.remove(&self.address);
        }
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit) -> io::Result<()> {
        let size = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        let mut inner = self.net.0.lock();
        if inner.inbox(self).is_none() {
            return Ok(());
        }
        for datagram in transmit.contents.chunks(size) {
            inner.send(self.address, transmit.destination, datagram);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.net.0.lock();
        let Some(inbox) = inner.inbox(self) else { return Poll::Pending };
        let mut received = 0;
        for (buffer, meta) in buffers.iter_mut().zip(meta) {
            let Some((from, bytes)) = inbox.arrived.pop_front() else { break };
            let len = bytes.len().min(buffer.len());
            buffer[..len].copy_from_slice(&bytes[..len]);
            let mut about = RecvMeta::default();
            (about.addr, about.len, about.stride) = (from, len, len);
            about.dst_ip = Some(self.address.ip());
            *meta = about;
            received += 1;
        }
        if received == 0 {
            inbox.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(received))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// quinn on tokio's paused clock.
#[derive(Debug)]
struct SimulatedTime;

impl Runtime for SimulatedTime {
    fn new_timer(&self, at: std::time::Instant) -> Pin<Box<dyn AsyncTimer>> {
        quinn::TokioRuntime.new_timer(at)
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        tokio::spawn(future);
    }

    fn wrap_udp_socket(&self, _: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Err(io::Error::other("a simulated machine has no real sockets"))
    }

    fn now(&self) -> std::time::Instant {
        Instant::now().into_std()
    }
}
