//! The client: tells and asks actors on a node, from any async program.
//!
//! ```no_run
//! # use ringhold::client::{Client, Options};
//! # async fn f() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect(Options::from_data_dir("localhost:7420", "ringhold-data")?).await?;
//! println!("{} knows {:?}", client.welcome().node.name, client.welcome().types);
//! client.flush().await?;
//! client.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! A [`Client`] has a connection with a lane to each node whose actors it sends to; clones share them. The first is to an address
//! that it is given; by the table of who has which shard, which that node tells, it makes the others when there is something to
//! send there. Messages go into a buffer for each node and leave in batches that form by themselves: a lone ask leaves at once,
//! and under load whatever has gathered meanwhile goes together. What one client sends to one actor arrives in the order in which
//! it was sent, also where the actor's shard moves to another node meanwhile: the node that had it says so, and the client sends
//! what is not done again to the one that has it now.
//!
//! When a connection is lost, or the node dies and is started again, the client connects again by itself. It keeps what it
//! sends until what that did is durable on the node, and sends again what is not; the node knows what it has, and does nothing
//! twice. Asks go on waiting, to their deadline. Only where nobody can know what became of something (the client has given up
//! to connect, or has come to another cluster, or was away for longer than the node remembers it) asks fail with
//! [`AskError::ConnectionLost`], and tells are counted: [`Client::flush`] says how many.

mod asks;
mod connect;
mod error;
mod link;
mod outbox;
mod retained;
mod routes;
mod streams;

use std::future::poll_fn;
use std::marker::PhantomData;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use ringhold_cluster::frame::client_id;
use ringhold_cluster::network::{BoxFuture, Network, RealNetwork};
use ringhold_cluster::tls::{self, Files, Identity, Role};
use ringhold_cluster::transport::Lost;
use ringhold_cluster::wire::{Before, Request, Response, Settled, TypeLayout, Welcome};
use ringhold_kernels::actor::{Actor, MessageOf};
use ringhold_kernels::hlc::Hlc;
use ringhold_kernels::id::{ActorId, Key, TypeId};
use ringhold_kernels::message::{Header, Kind, Reason};
use ringhold_kernels::outbox::shard_of;
use ringhold_kernels::plain::Plain;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use asks::{Asks as AskTable, Ticket};
pub use error::{AskError, Error};
use outbox::Outbox;
pub use streams::{Asks, Tells};

/// The reply type of a message's actor.
pub type Reply<M> = <<M as MessageOf>::Actor as Actor>::Reply;

/// Bytes that wait to be written to one node at most; a tell beyond it waits. Small enough that what is written is still in the
/// processor's cache when it is encrypted.
pub const OUTBOX_BYTES_MAX: usize = 256 << 10;
/// Bytes of messages that a client keeps for the case that its node dies, unless its options say otherwise.
pub const RETAINED_BYTES: usize = 64 << 20;
/// How long [`Client::ask`] waits for a reply.
pub const ASK_DEADLINE: Duration = Duration::from_secs(10);
/// How long one attempt to connect may take.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// Waits between attempts to connect again grow from the first to the second.
pub const BACKOFF_MIN: Duration = Duration::from_millis(50);
pub const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// How long a close waits for what is under way.
pub const CLOSE_DEADLINE: Duration = Duration::from_secs(10);

/// How much longer a node may take to answer that it has settled, or not.
const SETTLE_GRACE: Duration = Duration::from_secs(5);

/// How to connect.
#[derive(Clone, Debug)]
pub struct Options {
    /// Nodes of one cluster, as `HOST:PORT`: the first that answers tells of the others.
    pub addresses: Vec<String>,
    /// This client's certificate, and the authority it believes.
    pub identity: Identity,
    pub network: Arc<dyn Network>,
    /// The actor types this program was built with; a node built with another layout refuses the client.
    pub types: Vec<TypeLayout>,
    /// The cluster it must be; `None` takes any.
    pub cluster: Option<String>,
    /// What the node's lists call this client.
    pub name: String,
    /// For asks that name no deadline of their own.
    pub ask_deadline: Duration,
    pub connect_deadline: Duration,
    /// How long to try to connect again to a node whose actors have been sent to; `None` for ever. Past it, everything fails.
    pub reconnect_limit: Option<Duration>,
    /// It looks after the node, and is let in though that is full or sheds load.
    pub admin: bool,
    /// Bytes of messages to one node that are kept until what they did is durable; at it, who sends waits. At half of it the node
    /// is asked to hurry.
    pub retained_bytes: usize,
}

impl Options {
    /// One node, the machine's network, no actor types yet.
    pub fn new(address: impl Into<String>, identity: Identity) -> Options {
        Options {
            addresses: vec![address.into()],
            identity,
            network: Arc::new(RealNetwork),
            types: Vec::new(),
            cluster: None,
            name: format!("ringhold {}", env!("CARGO_PKG_VERSION")),
            ask_deadline: ASK_DEADLINE,
            connect_deadline: CONNECT_DEADLINE,
            reconnect_limit: None,
            admin: false,
            retained_bytes: RETAINED_BYTES,
        }
    }

    /// As [`Options::new`], with the client certificate that a node on this machine has put into its data folder.
    pub fn from_data_dir(address: impl Into<String>, data_dir: impl AsRef<Path>) -> Result<Options, tls::Error> {
        let files = Files::client(&data_dir.as_ref().join("tls"));
        Ok(Options::new(address, Identity::load(files, Role::Client, &RealNetwork)?))
    }

    /// Says that this program was built with an actor type, so that its messages can be sent.
    #[must_use]
    pub fn with<A: Actor>(mut self) -> Options {
        self.types.push(TypeLayout::of(&A::schema()));
        self
    }
}

/// Connections to the nodes of a cluster. Clones share them; when the last is gone they end in the background, after what was told is
/// written. [`Client::close`] waits for that.
#[derive(Clone)]
pub struct Client(Arc<Handle>);

struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.begin_close();
    }
}

/// What a client's handles and its driving task share. Locks are taken in the order of the fields.
struct Shared {
    options: Options,
    /// Of the options' types.
    type_ids: Vec<TypeId>,
    /// Who this client is, whatever connection it has.
    client: [u8; 16],
    outbox: Mutex<Outbox>,
    asks: Mutex<AskTable>,
    // Here come those of what links have written, by the numbers of the links.
    known: Mutex<Known>,
    // Here come those of what is known of connections.
    /// Wakes those who wait for room in the outbox or for a slot for an ask.
    room: Notify,
    /// Whether anybody does, so that nobody pays for a wake otherwise.
    wants_room: AtomicBool,
    /// Wakes those who wait for a link, or for a confirmation, or for the end.
    changed: Notify,
    unconfirmed_lost: AtomicU64,
    closing: AtomicBool,
    /// Nothing is sent any more, and nothing is answered.
    over: AtomicBool,
    reconnects: AtomicU64,
}

/// What is known of the client as a whole.
struct Known {
    /// Who it is, as a node has told it.
    who: Option<Before>,
    /// A loss that no flush has reported, with the address of the node, and the tells that were on their way.
    unreported: Option<(Lost, String)>,
    unreported_tells: u64,
    /// Nothing is driven any more.
    ended: bool,
}

/// Whether a message was pushed; if not, [`Outbox::check`] knows why.
enum Pushed {
    Done,
    Not,
}

/// A tell on its way into the outbox, from [`Client::tell`]. It is small, because there are millions.
#[must_use = "where the outbox is full, only awaiting the tell sends it"]
pub struct Tell<'a, M> {
    /// `None` where it was sent at once.
    later: Option<BoxFuture<'a, Result<(), Error>>>,
    messages: PhantomData<fn(M)>,
}

impl<M> Future for Tell<'_, M> {
    type Output = Result<(), Error>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        match &mut self.get_mut().later {
            None => Poll::Ready(Ok(())),
            Some(later) => later.as_mut().poll(cx),
        }
    }
}

/// Figures of a client since it connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Tells and asks given to the client.
    pub messages: u64,
    pub answers: u64,
    /// Answers that came after their ask was given up.
    pub late_answers: u64,
    pub reconnects: u64,
    /// Tells of which nobody can know whether they have arrived.
    pub unconfirmed: u64,
}

impl Client {
    /// Connects to the first address that answers.
    ///
    /// # Errors
    /// Why no address would do: what a node said, if one said anything.
    pub async fn connect(options: Options) -> Result<Client, Error> {
        let (shared, session) = link::connect_first(options).await?;
        let first = shared.outbox.lock().links[0].link.clone();
        tokio::spawn(link::drive(shared.clone(), first, Some(session)));
        Ok(Client(Arc::new(Handle(shared))))
    }

    /// What the node said of itself when this client last connected: the first to which there is a connection, or was one.
    pub fn welcome(&self) -> Welcome {
        self.first_link().welcome().expect("the first link was connected once")
    }

    /// The address of that node.
    pub fn address(&self) -> String {
        self.first_link().address()
    }

    fn first_link(&self) -> Arc<link::Link> {
        let outbox = self.shared().outbox.lock();
        let connected = outbox.connected().next();
        connected.unwrap_or(&outbox.links[0].link).clone()
    }

    pub fn stats(&self) -> Stats {
        let shared = self.shared();
        let messages = shared.outbox.lock().pushed;
        let (answers, late_answers) = {
            let asks = shared.asks.lock();
            (asks.answered, asks.late)
        };
        Stats {
            messages,
            answers,
            late_answers,
            reconnects: shared.reconnects.load(Relaxed),
            unconfirmed: shared.unconfirmed_lost.load(Relaxed),
        }
    }

    /// Sends a message for which nobody waits.
    ///
    /// It is sent by the call, where the outbox has room. Otherwise the node or the network is slower than this
    /// program, and awaiting the future waits until there is room; dropped before that, it sends nothing.
    ///
    /// `Ok` means that it will be written as soon as possible; [`Client::flush`] tells when the node has it.
    #[inline]
    pub fn tell<M: MessageOf, K: Into<Key>>(&self, key: K, message: M) -> Tell<'_, M> {
        let key = key.into();
        let pushed = match self.is_registered::<M>() {
            true => self.shared().push_tell(ActorId::new(M::Actor::TYPE, key), M::SIZE, |to| write_plain(&message, to)),
            false => Pushed::Not,
        };
        match pushed {
            Pushed::Done => Tell { later: None, messages: PhantomData },
            Pushed::Not => self.tell_later(key, message),
        }
    }

    #[cold]
    fn tell_later<M: MessageOf>(&self, key: Key, message: M) -> Tell<'_, M> {
        let payload = message.to_bytes();
        let later = async move { self.tell_raw(self.typed::<M>(key)?, &payload).await };
        Tell { later: Some(Box::pin(later)), messages: PhantomData }
    }

    /// The same for an actor type known only by its schema: `payload` is a message in its layout.
    pub async fn tell_raw(&self, to: ActorId, payload: &[u8]) -> Result<(), Error> {
        let shared = self.shared();
        shared.when_room(|| shared.try_tell(to, payload.len(), |room| room.copy_from_slice(payload))).await
    }

    /// Sends a message if there is room now. `Ok(false)`: there was none.
    pub fn try_tell<M: MessageOf>(&self, key: impl Into<Key>, message: M) -> Result<bool, Error> {
        let to = self.typed::<M>(key.into())?;
        let told = self.shared().try_tell(to, M::SIZE, |payload| write_plain(&message, payload))?;
        Ok(told.is_some())
    }

    /// Sends a message and waits for the reply, for at most [`Options::ask_deadline`].
    ///
    /// It is sent when the future is first polled. Dropping the future gives the ask up: the message is handled all
    /// the same, and the answer, when it comes, is counted and forgotten.
    pub fn ask<M: MessageOf, K: Into<Key>>(
        &self,
        key: K,
        message: M,
    ) -> impl Future<Output = Result<Reply<M>, AskError>> + use<M, K> {
        let deadline = self.shared().options.ask_deadline;
        self.ask_with(key, message, deadline)
    }

    /// The same with a deadline of its own, counted from the first poll.
    pub fn ask_with<M: MessageOf, K: Into<Key>>(
        &self,
        key: K,
        message: M,
        deadline: Duration,
    ) -> impl Future<Output = Result<Reply<M>, AskError>> + use<M, K> {
        let client = self.clone();
        let key = key.into();
        async move { client.send_ask(key, message, deadline).await?.typed_reply::<M>(key).await }
    }

    /// Sends an ask if there is room now.
    fn try_send_ask<M: MessageOf>(&self, key: Key, message: M, limit: Duration) -> Result<Option<Asked>, AskError> {
        let to = self.typed::<M>(key)?;
        let ticket = self.shared().try_ask(to, M::SIZE, |payload| write_plain(&message, payload))?;
        let deadline = Instant::now() + limit;
        Ok(ticket.map(|ticket| Asked { client: self.clone(), ticket: Some(ticket), deadline, limit }))
    }

    async fn send_ask<M: MessageOf>(&self, key: Key, message: M, deadline: Duration) -> Result<Asked, AskError> {
        let to = self.typed::<M>(key)?;
        self.push_ask(to, M::SIZE, deadline, |payload| write_plain(&message, payload), &typed_name::<M>(key)).await
    }

    /// The same for an actor type known only by its schema: message and reply are in its layout.
    pub async fn ask_raw(&self, to: ActorId, payload: &[u8], deadline: Duration) -> Result<Vec<u8>, AskError> {
        let name = || format!("{to:?}");
        let mut asked = self.push_ask(to, payload.len(), deadline, |room| room.copy_from_slice(payload), &name).await?;
        asked.reply(&name, |payload| Ok(payload.to_vec())).await
    }

    /// Many tells of one type.
    pub fn tells<M: MessageOf>(&self) -> Tells<M> {
        Tells::new(self.clone())
    }

    /// Many asks of one type, of which up to `window` are under way at a time; their replies come in the order of
    /// `messages`.
    pub fn asks<M, K, I>(&self, messages: I, window: usize) -> Asks<M, I::IntoIter>
    where
        M: MessageOf,
        K: Into<Key>,
        I: IntoIterator<Item = (K, M)>,
    {
        Asks::new(self.clone(), messages.into_iter(), window)
    }

    /// Waits until the nodes have admitted everything told so far; where one dies, until it is there again. What this client still
    /// keeps then outlives the nodes, as long as this client lives.
    ///
    /// # Errors
    /// [`Error::ConnectionLost`] if since the last flush there were tells of which nobody can know whether they have arrived.
    pub async fn flush(&self) -> Result<(), Error> {
        let shared = self.shared();
        let target = shared.outbox.lock().pushed;
        loop {
            let changed = shared.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            // Looked at first: a loss is noted before it counts as confirmed.
            let (confirmed, failed) = {
                let outbox = shared.outbox.lock();
                (outbox.is_confirmed(target), outbox.failed.clone())
            };
            shared.report_loss("flushing")?;
            if confirmed {
                return Ok(());
            }
            if let Some(error) = failed {
                return Err(error);
            }
            changed.await;
        }
    }

    /// Waits until the nodes that this client sends to have nothing queued any more of what was admitted before, for at most
    /// `limit`.
    pub async fn settle(&self, limit: Duration) -> Result<Settled, Error> {
        self.flush().await?;
        let started = Instant::now();
        let links: Vec<_> = self.shared().outbox.lock().connected().cloned().collect();
        let mut all = Settled { settled: true, ..Settled::default() };
        for link in links {
            let left = limit.saturating_sub(started.elapsed());
            let request = Request::Settle { timeout_ms: left.as_millis() as u64 };
            let answer = link::request_at(&link, &request);
            let Settled { settled, queued, waited_ms } =
                match self.within(&request, left + SETTLE_GRACE, answer).await? {
                    Response::Settled(settled) => settled,
                    other => return Err(self.strange(&other)),
                };
            all.settled &= settled;
            all.queued += queued;
            all.waited_ms += waited_ms;
        }
        Ok(all)
    }

    /// Asks a node itself: the first to which there is a connection. A [`Response::Failed`] comes as [`Error::Failed`].
    pub async fn request(&self, request: Request, limit: Duration) -> Result<Response, Error> {
        self.within(&request, limit, link::request(self.shared(), &request)).await
    }

    async fn within(
        &self,
        request: &Request,
        limit: Duration,
        answer: impl Future<Output = Result<Response, Error>>,
    ) -> Result<Response, Error> {
        match timeout_at(Instant::now() + limit, answer).await {
            Ok(Ok(Response::Failed(failed))) => Err(Error::Failed(failed)),
            Ok(answered) => answered,
            Err(_) => Err(Error::Timeout { doing: link::request_name(request), waited: limit }),
        }
    }

    fn strange(&self, response: &Response) -> Error {
        let kind = format!("{response:?}");
        let kind: String = kind.chars().take_while(|c| c.is_alphanumeric()).collect();
        Error::Protocol { address: self.address(), detail: format!("its answer is a `{kind}`") }
    }

    /// Writes what was told, waits until the node has it and every ask is answered, and closes.
    ///
    /// # Errors
    /// What [`Client::flush`] would say.
    pub async fn close(self) -> Result<(), Error> {
        let shared = self.shared();
        shared.begin_close();
        loop {
            let changed = shared.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if shared.known.lock().ended {
                break;
            }
            changed.await;
        }
        shared.report_loss("closing")
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.0.0
    }

    #[inline(always)]
    fn is_registered<M: MessageOf>(&self) -> bool {
        self.shared().type_ids.contains(&M::Actor::TYPE)
    }

    /// The id of an actor of a type that this client said it was built with.
    fn typed<M: MessageOf>(&self, key: Key) -> Result<ActorId, Error> {
        if !self.is_registered::<M>() {
            return Err(Error::NotRegistered { name: M::Actor::NAME });
        }
        Ok(ActorId::new(M::Actor::TYPE, key))
    }

    async fn push_ask(
        &self,
        to: ActorId,
        size: usize,
        limit: Duration,
        write: impl Fn(&mut [u8]),
        name: &impl Fn() -> String,
    ) -> Result<Asked, AskError> {
        let deadline = Instant::now() + limit;
        let shared = self.shared();
        let ticket = match shared.try_ask(to, size, &write)? {
            Some(ticket) => ticket,
            None => timeout_at(deadline, shared.when_room(|| shared.try_ask(to, size, &write)))
                .await
                .map_err(|_| AskError::Deadline { actor: name(), waited: limit })??,
        };
        Ok(Asked { client: self.clone(), ticket: Some(ticket), deadline, limit })
    }
}

#[inline(always)]
fn write_plain<M: Plain>(message: &M, payload: &mut [u8]) {
    assert_eq!(payload.len(), M::SIZE);
    // SAFETY: the slice has SIZE bytes, as was just checked.
    unsafe { message.write(payload.as_mut_ptr()) }
}

fn typed_name<M: MessageOf>(key: Key) -> impl Fn() -> String {
    move || format!("`{}` {key}", M::Actor::NAME)
}

/// An ask that was sent. Dropping it gives the ask up.
struct Asked {
    client: Client,
    /// `None` once the answer was taken.
    ticket: Option<Ticket>,
    deadline: Instant,
    limit: Duration,
}

impl Asked {
    async fn typed_reply<M: MessageOf>(&mut self, key: Key) -> Result<Reply<M>, AskError> {
        let name = typed_name::<M>(key);
        let malformed = |payload: &[u8]| AskError::Reply { actor: name(), bytes: payload.len() };
        self.reply(&name, |payload| Reply::<M>::from_bytes(payload).ok_or_else(|| malformed(payload))).await
    }

    /// The answer. Cancelling it loses nothing: it can be called again.
    async fn reply<R>(
        &mut self,
        name: &impl Fn() -> String,
        decode: impl Fn(&[u8]) -> Result<R, AskError>,
    ) -> Result<R, AskError> {
        let ticket = self.ticket.expect("an ask has its ticket until it is answered");
        let client = self.client.clone();
        let shared = client.shared();
        let answer = poll_fn(|cx| {
            shared.asks.lock().poll(ticket, cx, |header, payload| match header.kind() {
                Some(Kind::Reply) => decode(payload),
                _ => Err(not_handled(header, payload, name())),
            })
        });
        let Ok(answer) = timeout_at(self.deadline, answer).await else {
            self.give_up();
            return Err(AskError::Deadline { actor: name(), waited: self.limit });
        };
        self.ticket = None;
        shared.wake_for_room();
        answer
    }
}

impl Asked {
    fn give_up(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.client.shared().asks.lock().abandon(ticket);
            self.client.shared().wake_for_room();
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.give_up();
    }
}

fn not_handled(header: &Header, payload: &[u8], actor: String) -> AskError {
    match header.reason() {
        Some(Reason::ConnectionLost) => AskError::ConnectionLost { actor },
        reason => AskError::NotHandled {
            actor,
            reason: reason.unwrap_or(Reason::NoReply),
            text: String::from_utf8_lossy(payload).into_owned(),
        },
    }
}

impl Shared {
    /// Pushes a tell if that can be done now. Small and without a `Result`: see [`FrameBuffer::push_with`].
    ///
    /// [`FrameBuffer::push_with`]: ringhold_cluster::frame::FrameBuffer::push_with
    #[inline(always)]
    fn push_tell(&self, to: ActorId, size: usize, write: impl FnOnce(&mut [u8])) -> Pushed {
        let mut outbox = self.outbox.lock();
        let index = outbox.routes.of(to.key);
        if !outbox.takes(index, to, size) || outbox.links[index].unsent.frames.len() >= OUTBOX_BYTES_MAX {
            return Pushed::Not;
        }
        let number = outbox.pushed + 1;
        outbox.pushed = number;
        let out = &mut outbox.links[index];
        let unsent = &mut out.unsent;
        let first = unsent.frames.is_empty();
        let header = Header::new(Kind::Tell, to, client_id(0, number as u32), size, Hlc(0));
        unsent.frames.push_with(&header, write);
        unsent.tells += 1;
        unsent.last_tell = number;
        if first {
            unsent.first = number;
            let link = out.link.clone();
            drop(outbox);
            link.writer.notify_one();
        }
        Pushed::Done
    }

    /// `None`: there is no room.
    fn try_tell(&self, to: ActorId, size: usize, write: impl FnOnce(&mut [u8])) -> Result<Option<()>, Error> {
        match self.push_tell(to, size, write) {
            Pushed::Done => Ok(Some(())),
            Pushed::Not => self.outbox.lock().check(to, size).map(|()| None),
        }
    }

    fn try_ask(&self, to: ActorId, size: usize, write: impl Fn(&mut [u8])) -> Result<Option<Ticket>, Error> {
        let (ticket, link) = {
            let mut outbox = self.outbox.lock();
            outbox.check(to, size)?;
            let (shard, number) = (shard_of(to.key) as u16, outbox.pushed + 1);
            let index = outbox.routes.of_shard(shard);
            let out = &mut outbox.links[index];
            if out.unsent.frames.len() >= OUTBOX_BYTES_MAX {
                return Ok(None);
            }
            let Some(ticket) = self.asks.lock().begin(out.asks_max, number, shard) else { return Ok(None) };
            let first = out.unsent.frames.is_empty();
            let header = Header::new(Kind::Ask, to, client_id(0, number as u32), size, Hlc(0));
            out.unsent.frames.push_with(&header, write);
            out.unsent.last_ask = number;
            if first {
                out.unsent.first = number;
            }
            let link = first.then(|| out.link.clone());
            outbox.pushed = number;
            (ticket, link)
        };
        if let Some(link) = link {
            link.writer.notify_one();
        }
        Ok(Some(ticket))
    }

    /// Tries until there is room.
    async fn when_room<T>(&self, mut attempt: impl FnMut() -> Result<Option<T>, Error>) -> Result<T, Error> {
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            // Set before the attempt: room that comes after the attempt then wakes this waiter.
            self.wants_room.store(true, SeqCst);
            if let Some(done) = attempt()? {
                return Ok(done);
            }
            room.await;
        }
    }

    /// There is room in the outbox or a slot for an ask.
    fn wake_for_room(&self) {
        if self.wants_room.swap(false, SeqCst) {
            self.room.notify_waiters();
        }
    }

    fn begin_close(&self) {
        self.closing.store(true, SeqCst);
        self.outbox.lock().links.iter().for_each(|out| out.link.writer.notify_one());
        self.changed.notify_waiters();
    }

    /// Says once that tells were on their way when a connection was lost.
    fn report_loss(&self, doing: &'static str) -> Result<(), Error> {
        let mut known = self.known.lock();
        let Some((lost, address)) = known.unreported.take() else { return Ok(()) };
        let unconfirmed = std::mem::take(&mut known.unreported_tells);
        Err(Error::ConnectionLost { address, doing, lost, unconfirmed })
    }
}
