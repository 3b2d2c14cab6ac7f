//! A network in memory, on tokio's clock: for tests in paused time.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use quinn::rustls::crypto::CryptoProvider;
use quinn::rustls::time_provider::TimeProvider;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, UdpPoller};
use ringhold_cluster::network::{BoxFuture, Network, RealNetwork};

#[derive(Default)]
struct Inbox {
    datagrams: VecDeque<(SocketAddr, Vec<u8>)>,
    waker: Option<Waker>,
}

#[derive(Default)]
struct State {
    inboxes: BTreeMap<SocketAddr, Inbox>,
    /// Datagrams from and to these go nowhere.
    unplugged: Vec<SocketAddr>,
    next_port: u16,
}

/// Every address is local, every datagram arrives a millisecond later.
#[derive(Clone, Default)]
pub struct MemoryNetwork(Arc<Mutex<State>>);

impl MemoryNetwork {
    pub fn unplug(&self, address: SocketAddr) {
        self.0.lock().unplugged.push(address);
    }

    pub fn plug_in(&self) {
        self.0.lock().unplugged.clear();
    }
}

impl fmt::Debug for MemoryNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryNetwork")
    }
}

impl Network for MemoryNetwork {
    fn bind(&self, mut address: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let mut state = self.0.lock();
        address.set_ip([127, 0, 0, 1].into());
        if address.port() == 0 {
            state.next_port += 1;
            address.set_port(1_000 + state.next_port);
        }
        if state.inboxes.contains_key(&address) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        state.inboxes.insert(address, Inbox::default());
        Ok(Arc::new(Socket { network: self.clone(), address }))
    }

    fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::new(PausedRuntime)
    }

    fn resolve<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move { Ok(vec![address.parse().map_err(io::Error::other)?]) })
    }

    fn random(&self, bytes: &mut [u8]) {
        RealNetwork.random(bytes);
    }

    fn wall_us(&self) -> u64 {
        RealNetwork.wall_us()
    }

    fn steady_us(&self) -> u64 {
        self.wall_us()
    }

    fn crypto_provider(&self) -> Arc<CryptoProvider> {
        RealNetwork.crypto_provider()
    }

    fn time_provider(&self) -> Arc<dyn TimeProvider> {
        RealNetwork.time_provider()
    }
}

struct Socket {
    network: MemoryNetwork,
    address: SocketAddr,
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.network.0.lock().inboxes.remove(&self.address);
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Socket({})", self.address)
    }
}

#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit) -> io::Result<()> {
        let size = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        for datagram in transmit.contents.chunks(size) {
            let (from, to, datagram) = (self.address, transmit.destination, datagram.to_vec());
            let network = self.network.clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(1)).await;
                let mut state = network.0.lock();
                if state.unplugged.contains(&from) || state.unplugged.contains(&to) {
                    return;
                }
                if let Some(inbox) = state.inboxes.get_mut(&to) {
                    inbox.datagrams.push_back((from, datagram));
                    if let Some(waker) = inbox.waker.take() {
                        waker.wake();
                    }
                }
            });
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.network.0.lock();
        let inbox = state.inboxes.get_mut(&self.address).expect("it lives as long as its socket");
        let mut n = 0;
        while n < buffers.len() {
            let Some((from, datagram)) = inbox.datagrams.pop_front() else { break };
            buffers[n][..datagram.len()].copy_from_slice(&datagram);
            meta[n].addr = from;
            meta[n].len = datagram.len();
            meta[n].stride = datagram.len();
            n += 1;
        }
        if n == 0 {
            inbox.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(n))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

#[derive(Debug)]
struct PausedRuntime;

impl Runtime for PausedRuntime {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        quinn::TokioRuntime.new_timer(at)
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        quinn::TokioRuntime.spawn(future);
    }

    fn wrap_udp_socket(&self, _: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Err(io::Error::other("there are no real sockets here"))
    }

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }
}
