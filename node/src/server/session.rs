//! One client's session as the node sees it, and all of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
    Ordering::SeqCst,
};

use parking_lot::{Mutex, RwLock};
use ringhold_cluster::counters::{Counters, bump};
use ringhold_cluster::frame::{FrameBuffer, session_and_number, whole_number};
use ringhold_cluster::wire::{ANSWER_BYTES_MAX, Hello, SessionStatus, Welcome};
use ringhold_kernels::message::{self, Header};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Shared;
use super::clients::{Arrival, Client, Clients};

/// One connection of a client, from its hello to its end.
pub struct Session {
    pub(super) arrival: Arrival,
    /// The last of the client's messages that an earlier connection may have carried.
    again: u64,
    /// Messages that came.
    messages_in: AtomicU64,
    /// The number before the first message of the frame in hand.
    near: AtomicU64,
    /// The next message is for an actor of another node.
    pub(super) moved: AtomicBool,
    address: SocketAddr,
    client: String,
    admin: bool,
    opened: Instant,
    asks_max: i64,
    counters: Arc<Counters>,
    outgoing: Mutex<Outgoing>,
    /// Wakes the lane's writer: there are answers, a mark or a flag to send.
    pub(super) writer: Notify,
    /// Wakes the lane's reader where it waits for asks to be answered or answers to be read.
    pub(super) reader: Notify,
    /// Asks admitted and not answered. Below zero for a moment when an answer overtakes the count.
    asks_waiting: AtomicI64,
    /// The last message of the client that the node has taken, and the last one up to which all that they did is durable.
    pub(super) taken: AtomicU64,
    covered: AtomicU64,
    /// The client has come back on another connection.
    replaced: Notify,
    pub(super) held_back: AtomicBool,
    answers_out: AtomicU64,
    has_lane: AtomicBool,
    /// The lane has ended in good order and the client has every answer.
    pub(super) lane_finished: AtomicBool,
    requests_open: AtomicU32,
}

#[derive(Default)]
struct Outgoing {
    frames: FrameBuffer,
    closed: bool,
}

impl Session {
    pub(super) fn new(
        welcome: &Welcome,
        arrival: Arrival,
        hello: &Hello,
        address: SocketAddr,
        counters: Arc<Counters>,
    ) -> Session {
        let before = hello.lane.first.saturating_sub(1);
        Session {
            arrival,
            again: hello.lane.again,
            messages_in: AtomicU64::new(0),
            near: AtomicU64::new(before),
            moved: AtomicBool::new(false),
            address,
            client: hello.client.clone(),
            admin: hello.admin,
            opened: Instant::now(),
            asks_max: i64::from(welcome.asks_max),
            counters,
            outgoing: Mutex::default(),
            writer: Notify::new(),
            reader: Notify::new(),
            asks_waiting: AtomicI64::new(0),
            taken: AtomicU64::new(before),
            covered: AtomicU64::new(0),
            replaced: Notify::new(),
            held_back: AtomicBool::new(false),
            answers_out: AtomicU64::new(0),
            has_lane: AtomicBool::new(false),
            lane_finished: AtomicBool::new(false),
            requests_open: AtomicU32::new(0),
        }
    }

    /// The high half of the key by which its messages name their sender: the client's, whatever connection it has.
    pub fn number(&self) -> u32 {
        self.arrival.client.number
    }

    /// Whose it is.
    pub fn client(&self) -> Client {
        self.arrival.client
    }

    /// Which connection this is, of all that the node had.
    pub fn connection(&self) -> u64 {
        self.arrival.connection
    }

    /// The number of the client's message, or ask, of which a header names this half.
    pub fn whole_number(&self, low: u32) -> u64 {
        whole_number(self.near.load(Acquire), low)
    }

    /// Takes in that a frame has come, whose first message has the number after this one.
    pub(super) fn receive(&self, mark: u64, messages: u32) {
        self.near.store(mark, Release);
        self.messages_in.fetch_add(u64::from(messages), Relaxed);
    }

    /// Whether a message of the client may come again: an earlier connection may have carried it, so it may have been answered.
    pub fn comes_again(&self, number: u64) -> bool {
        number <= self.again
    }

    /// The last message that the node has taken.
    pub fn taken(&self) -> u64 {
        self.taken.load(Acquire)
    }

    /// Takes in that all that messages up to this one did is durable. Callable from any thread.
    pub fn cover(&self, number: u64) {
        if self.covered.fetch_max(number, SeqCst) < number {
            self.writer.notify_one();
        }
    }

    pub(super) fn covered(&self) -> u64 {
        self.covered.load(SeqCst)
    }

    /// Ends the session: its client has another connection.
    pub(super) fn replace(&self) {
        self.close();
        self.replaced.notify_one();
    }

    pub(super) async fn replaced(&self) {
        self.replaced.notified().await;
    }

    /// Sends the answer to one of its asks. Callable from any thread; never blocks. Where the client is gone, the
    /// answer is counted and dropped.
    pub fn answer(&self, header: Header, payload: &[u8]) {
        self.answers([(header, payload)]);
    }

    /// Sends several answers at once.
    pub fn answers<'a>(&self, answers: impl IntoIterator<Item = (Header, &'a [u8])>) {
        let (sent, first) = {
            let mut outgoing = self.outgoing.lock();
            let (closed, first) = (outgoing.closed, outgoing.frames.is_empty());
            let mut sent = 0;
            for (mut header, payload) in answers {
                debug_assert_eq!(session_and_number(header.to()).0, self.number());
                sent += 1;
                if closed {
                    bump(&self.counters.answers_dropped);
                } else {
                    // The lap word is the rings' own.
                    header.lap = 0;
                    outgoing.frames.push(&header, payload);
                }
            }
            // Under the lock: whoever sees the count without these asks and then takes the buffer has their answers.
            self.asks_waiting.fetch_sub(sent, SeqCst);
            (sent, first && !closed)
        };
        self.answers_out.fetch_add(sent as u64, Relaxed);
        self.counters.answers_out.fetch_add(sent as u64, Relaxed);
        if first {
            self.writer.notify_one();
        }
        // Pairs with `may_read`, which sets the flag before it looks at the count again: one of the two sees the other.
        if self.held_back.load(SeqCst) {
            self.reader.notify_one();
        }
    }

    /// Counts asks before the doors see them, so that no answer can come first.
    pub(super) fn expect_answers(&self, asks: u32) {
        self.asks_waiting.fetch_add(i64::from(asks), SeqCst);
    }

    /// Takes back that so many would be answered: the doors do not see them.
    pub(super) fn expect_fewer(&self, asks: u32) {
        self.asks_waiting.fetch_sub(i64::from(asks), SeqCst);
    }

    /// Resolves when the lane may be read: few enough asks wait, and the client reads its answers.
    pub(super) async fn may_read(&self) {
        if self.has_room() {
            return;
        }
        bump(&self.counters.held_back_asks);
        self.held_back.store(true, SeqCst);
        while !self.has_room() {
            self.reader.notified().await;
        }
        self.held_back.store(false, SeqCst);
    }

    fn has_room(&self) -> bool {
        self.asks_waiting.load(SeqCst) < self.asks_max && self.outgoing.lock().frames.len() < ANSWER_BYTES_MAX
    }

    /// Swaps what is to be sent for an empty buffer.
    pub(super) fn swap_outgoing(&self, buffer: &mut FrameBuffer) {
        std::mem::swap(&mut self.outgoing.lock().frames, buffer);
    }

    pub(super) fn no_ask_waits(&self) -> bool {
        self.asks_waiting.load(SeqCst) <= 0
    }

    /// Whether this is the first lane.
    pub(super) fn take_lane(&self) -> bool {
        !self.has_lane.swap(true, SeqCst)
    }

    /// Whether a drain has nothing to wait for here.
    fn is_finished(&self) -> bool {
        let lane = self.lane_finished.load(Acquire) || !self.has_lane.load(SeqCst);
        lane && self.requests_open.load(Acquire) == 0
    }

    /// Counts a request for as long as the guard lives.
    pub(super) fn open_request<'a>(&'a self, shared: &'a Shared) -> impl Drop + 'a {
        struct Open<'a>(&'a Session, &'a Shared);
        impl Drop for Open<'_> {
            fn drop(&mut self) {
                self.0.requests_open.fetch_sub(1, Release);
                self.1.progress.notify_one();
            }
        }
        self.requests_open.fetch_add(1, Release);
        Open(self, shared)
    }

    /// Drops every answer from now on. Returns how many asks had none yet.
    pub(super) fn close(&self) -> u64 {
        let dropped = {
            let mut outgoing = self.outgoing.lock();
            outgoing.closed = true;
            std::mem::take(&mut outgoing.frames).messages()
        };
        self.counters.answers_dropped.fetch_add(dropped, Relaxed);
        self.asks_waiting.load(SeqCst).max(0) as u64
    }

    fn status(&self) -> SessionStatus {
        SessionStatus {
            number: self.number(),
            address: self.address.to_string(),
            client: self.client.clone(),
            uptime_ms: self.opened.elapsed().as_millis() as u64,
            messages_in: self.messages_in.load(Relaxed),
            answers_out: self.answers_out.load(Relaxed),
            asks_waiting: self.asks_waiting.load(Relaxed).max(0) as u32,
            held_back: self.held_back.load(Relaxed),
        }
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("number", &self.number())
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// Every session of a node: where answers find their way back.
#[derive(Default)]
pub struct Sessions {
    by_number: RwLock<BTreeMap<u32, Arc<Session>>>,
    pub(super) clients: Mutex<Clients>,
    counters: Arc<Counters>,
}

impl Sessions {
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    pub fn get(&self, number: u32) -> Option<Arc<Session>> {
        self.by_number.read().get(&number).cloned()
    }

    pub fn len(&self) -> usize {
        self.by_number.read().len()
    }

    /// Those that look after the node.
    pub fn admins(&self) -> usize {
        self.by_number.read().values().filter(|session| session.admin).count()
    }

    pub fn is_empty(&self) -> bool {
        self.by_number.read().is_empty()
    }

    /// Sends one answer to the session its receiver names.
    pub fn answer(&self, header: Header, payload: &[u8]) {
        match self.get(session_and_number(header.to()).0) {
            Some(session) => session.answer(header, payload),
            None => bump(&self.counters.answers_dropped),
        }
    }

    /// Sends a batch of answers, each to the session its receiver names: one look-up and one lock for each run of
    /// answers to the same session.
    pub fn deliver(&self, batch: &[u8]) {
        let mut rest = batch;
        while let Some((header, _, _)) = message::split_first(rest) {
            let number = session_and_number(header.to()).0;
            let run = std::iter::from_fn(|| {
                let (header, payload, after) = message::split_first(rest)?;
                (session_and_number(header.to()).0 == number).then(|| {
                    rest = after;
                    (header, payload)
                })
            });
            match self.get(number) {
                Some(session) => session.answers(run),
                None => {
                    self.counters.answers_dropped.fetch_add(run.count() as u64, Relaxed);
                }
            }
        }
    }

    pub fn status(&self) -> Vec<SessionStatus> {
        self.by_number.read().values().map(|s| s.status()).collect()
    }

    /// Every session there is.
    pub fn all(&self) -> Vec<Arc<Session>> {
        self.by_number.read().values().cloned().collect()
    }

    /// Adds a session, and returns that of the same client which it follows.
    pub(super) fn insert(&self, session: Arc<Session>) -> Option<Arc<Session>> {
        self.by_number.write().insert(session.number(), session)
    }

    /// Removes a session, if no other has followed it.
    pub(super) fn remove(&self, session: &Arc<Session>) {
        let mut sessions = self.by_number.write();
        if sessions.get(&session.number()).is_some_and(|present| Arc::ptr_eq(present, session)) {
            sessions.remove(&session.number());
        }
    }

    /// Takes in what a device that begins here knows of clients.
    pub fn remember(&self, clients: impl Iterator<Item = Client>, forgotten: u64, now_us: u64) {
        self.clients.lock().remember(clients, forgotten, now_us);
    }

    /// Forgets clients that have been away for too long.
    pub fn forget_old(&self, now_us: u64) -> Vec<super::clients::Gone> {
        self.clients.lock().forget_old(now_us)
    }

    pub(super) fn wake_writers(&self) {
        for session in self.by_number.read().values() {
            session.writer.notify_one();
        }
    }

    pub(super) fn all_finished(&self) -> bool {
        self.by_number.read().values().all(|s| s.is_finished())
    }

    pub(super) fn asks_waiting(&self) -> u64 {
        self.by_number.read().values().map(|s| s.asks_waiting.load(SeqCst).max(0) as u64).sum()
    }
}
