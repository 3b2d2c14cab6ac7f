//! The connection behind a client: made, kept, lost, made again.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::task::Poll;
use std::time::Duration;

use parking_lot::Mutex;
use quinn::{ConnectError, Connection, Endpoint, RecvStream, SendStream};
use ringhold_cluster::frame::{FLAG_HURRY, FLAG_STOPPING, FrameBuffer, FrameError, FrameReader, LaneError, Spare};
use ringhold_cluster::network::random_below;
use ringhold_cluster::tls::NODE_NAME;
use ringhold_cluster::transport::{self, Lost};
use ringhold_cluster::wire::{
    self, Before, Close, ControlError, Greeting, Hello, Lane, Preamble, Request, Response, Resumed, StreamKind,
    VERSION, VERSION_MIN, Welcome,
};
use ringhold_kernels::id::{ActorId, TypeId};
use ringhold_kernels::message::{self, Kind};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::{BACKOFF_MAX, BACKOFF_MIN, CLOSE_DEADLINE, Error, Options, Shared};

/// What waits to be written.
pub(super) struct Outbox {
    pub frames: FrameBuffer,
    /// Messages ever pushed, and which of them was the last tell.
    pub pushed: u64,
    pub last_tell: u64,
    /// Tells among `frames`.
    pub tells: u64,
    pub asks_max: u32,
    payload_bytes_max: usize,
    /// The size up to which a message needs no further check; -1 while each does.
    unchecked_bytes_max: i64,
    /// Types this client was built with and the node does not have.
    unknown: Vec<(TypeId, String)>,
    known: Vec<String>,
    /// Why nothing can be sent any more.
    pub failed: Option<Error>,
}

impl Outbox {
    fn new(welcome: &Welcome) -> Outbox {
        let mut outbox = Outbox {
            frames: FrameBuffer::default(),
            pushed: 0,
            last_tell: 0,
            tells: 0,
            asks_max: 0,
            payload_bytes_max: 0,
            unchecked_bytes_max: -1,
            unknown: Vec::new(),
            known: Vec::new(),
            failed: None,
        };
        outbox.learn(welcome);
        outbox
    }

    /// Takes in what a node said of itself.
    fn learn(&mut self, welcome: &Welcome) {
        self.asks_max = welcome.asks_max.min(wire::ASKS_MAX);
        self.payload_bytes_max = welcome.payload_bytes_max as usize;
        self.unknown = welcome.unknown_types.iter().map(|name| (TypeId::of(name), name.clone())).collect();
        self.known = welcome.types.clone();
        self.unchecked_bytes_max = if self.unknown.is_empty() { i64::from(welcome.payload_bytes_max) } else { -1 };
    }

    /// Nothing can be sent any more.
    fn fail(&mut self, error: Error) {
        self.failed = Some(error);
        self.unchecked_bytes_max = -1;
    }

    /// Whether a message may be pushed, as far as its type and size go.
    #[inline(always)]
    pub fn takes(&self, to: ActorId, size: usize) -> bool {
        size as i64 <= self.unchecked_bytes_max || self.check(to, size).is_ok()
    }

    /// What forbids to push a message, if anything does.
    #[cold]
    pub fn check(&self, to: ActorId, size: usize) -> Result<(), Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if let Some((_, name)) = self.unknown.iter().find(|(id, _)| *id == to.type_id) {
            return Err(Error::UnknownType { name: name.clone(), known: self.known.clone() });
        }
        if size > self.payload_bytes_max {
            return Err(Error::TooLarge { len: size, max: self.payload_bytes_max });
        }
        Ok(())
    }
}

/// What is known of the connection.
pub(super) struct Link {
    /// `None` while there is none.
    connection: Option<Connection>,
    pub welcome: Welcome,
    pub address: String,
    /// A loss that no flush has reported, with the tells that were on their way.
    pub unreported: Option<(Lost, String)>,
    pub unreported_tells: u64,
    /// The driving task has ended.
    pub ended: bool,
}

/// A connection with its streams.
pub(super) struct Connected {
    connection: Connection,
    endpoint: Endpoint,
    address: String,
    welcome: Welcome,
    /// Kept open for as long as the session.
    _control: (SendStream, RecvStream),
    lane: (SendStream, RecvStream),
}

/// The first connection; what it fails with is the caller's to handle.
pub(super) async fn connect_first(options: Options) -> Result<(Shared, Connected), Error> {
    let mut client = [0; 16];
    options.network.random(&mut client);
    let lane = Lane { client, first: 1, ..Lane::default() };
    let connected = connect_any(&options, &lane).await.map_err(|none| none.error)?;
    let link = Link {
        connection: Some(connected.connection.clone()),
        welcome: connected.welcome.clone(),
        address: connected.address.clone(),
        unreported: None,
        unreported_tells: 0,
        ended: false,
    };
    let shared = Shared {
        type_ids: options.types.iter().map(|t| TypeId::of(&t.name)).collect(),
        options,
        client,
        outbox: Mutex::new(Outbox::new(&connected.welcome)),
        retained: Mutex::default(),
        asks: Mutex::default(),
        link: Mutex::new(link),
        writer: Notify::new(),
        room: Notify::new(),
        wants_room: AtomicBool::new(false),
        changed: Notify::new(),
        confirmed: AtomicU64::new(0),
        unconfirmed_lost: AtomicU64::new(0),
        closing: AtomicBool::new(false),
        reconnects: AtomicU64::new(0),
    };
    Ok((shared, connected))
}

/// Why no address would do.
struct NoneWould {
    /// The most telling one: what a node said comes before a node that said nothing.
    error: Error,
    /// Whether trying any of them again, unchanged, cannot help.
    hopeless: bool,
}

impl NoneWould {
    fn add(&mut self, error: Error) {
        self.hopeless &= error.is_final();
        if error.is_final() || !self.error.is_final() || matches!(self.error, Error::NoAddress) {
            self.error = error;
        }
    }
}

/// Tries each address once, in order; then those that nodes there have named.
async fn connect_any(options: &Options, lane: &Lane) -> Result<Connected, NoneWould> {
    let mut none = NoneWould { error: Error::NoAddress, hopeless: true };
    let mut addresses = options.addresses.clone();
    let mut tried = 0;
    while let Some(address) = addresses.get(tried).cloned() {
        tried += 1;
        match options.network.resolve(&address).await {
            Err(e) => none.add(Error::resolve(&address, &e)),
            Ok(sockets) => match connect_first_of(options, lane, &address, sockets).await {
                Ok(connected) => return Ok(connected),
                Err(errors) => {
                    for error in errors {
                        if let Error::Refused { refused: wire::Refused::Elsewhere { address }, .. } = &error
                            && !addresses.contains(address)
                        {
                            addresses.push(address.clone());
                        }
                        none.add(error);
                    }
                }
            },
        }
    }
    Err(none)
}

/// Tries all that a name stands for at once, so that `localhost` need not wait for a node that listens on the other of
/// its two addresses.
async fn connect_first_of(
    options: &Options,
    lane: &Lane,
    address: &str,
    sockets: Vec<SocketAddr>,
) -> Result<Connected, Vec<Error>> {
    let mut attempts: Vec<_> = sockets.into_iter().map(|to| Box::pin(connect(options, lane, address, to))).collect();
    let mut errors = Vec::new();
    poll_fn(|cx| {
        let mut i = 0;
        while i < attempts.len() {
            match attempts[i].as_mut().poll(cx) {
                Poll::Ready(Ok(connected)) => return Poll::Ready(Ok(connected)),
                Poll::Ready(Err(error)) => {
                    drop(attempts.remove(i));
                    errors.push(error);
                }
                Poll::Pending => i += 1,
            }
        }
        if attempts.is_empty() { Poll::Ready(Err(std::mem::take(&mut errors))) } else { Poll::Pending }
    })
    .await
}

async fn connect(options: &Options, lane: &Lane, address: &str, to: SocketAddr) -> Result<Connected, Error> {
    let config = transport::client_config(&options.network, &options.identity)?;
    let endpoint = transport::client_endpoint(&options.network, to)?;
    let connecting = endpoint.connect_with(config, to, NODE_NAME).map_err(|e| match e {
        ConnectError::InvalidRemoteAddress(_) => Error::Resolve { address: address.into(), detail: e.to_string() },
        e => Error::Setup(e.to_string()),
    })?;
    let limit = options.connect_deadline;
    let too_late = || Error::Unreachable {
        address: address.into(),
        detail: format!("nothing answered within {} ms", limit.as_millis()),
    };
    let greeted = async {
        let connection = connecting.await.map_err(|e| connect_error(options, address, &Lost::of(&e)))?;
        let said = greet(options, lane, &connection).await;
        match said {
            Ok((control, Greeting::Welcome(welcome))) => Ok((connection, control, welcome)),
            Ok((_, Greeting::Refused(refused))) => {
                connection.close(Close::Done.code(), b"");
                Err(Error::Refused { address: address.into(), refused })
            }
            Err(ControlError::Connection(e)) => Err(connect_error(options, address, &Lost::of(&e))),
            Err(e) => Err(match connection.close_reason() {
                Some(reason) => connect_error(options, address, &Lost::of(&reason)),
                None => Error::Protocol { address: address.into(), detail: e.to_string() },
            }),
        }
    };
    let (connection, control, welcome) = timeout(limit, greeted).await.map_err(|_| too_late())??;
    let lane = open(&connection, StreamKind::Lane)
        .await
        .map_err(|e| Error::Protocol { address: address.into(), detail: e.to_string() })?;
    Ok(Connected { connection, endpoint, address: address.into(), welcome, _control: control, lane })
}

async fn greet(
    options: &Options,
    lane: &Lane,
    connection: &Connection,
) -> Result<((SendStream, RecvStream), Greeting), ControlError> {
    let (mut send, mut recv) = open(connection, StreamKind::Control).await?;
    let hello = Hello {
        version_min: VERSION_MIN,
        version_max: VERSION,
        client: options.name.clone(),
        cluster: options.cluster.clone(),
        types: options.types.clone(),
        admin: options.admin,
        lane: lane.clone(),
    };
    wire::send(&mut send, &hello).await?;
    let greeting = wire::receive(&mut recv, wire::RESPONSE_BYTES_MAX).await?;
    Ok(((send, recv), greeting))
}

async fn open(connection: &Connection, kind: StreamKind) -> Result<(SendStream, RecvStream), ControlError> {
    let (mut send, recv) = connection.open_bi().await?;
    send.write_all(&Preamble::new(kind).to_bytes()).await.map_err(|e| match e {
        quinn::WriteError::ConnectionLost(e) => ControlError::Connection(e),
        _ => ControlError::Reset,
    })?;
    Ok((send, recv))
}

/// Why there is no connection, in words for the user.
fn connect_error(options: &Options, address: &str, lost: &Lost) -> Error {
    let address = address.to_owned();
    let files = &options.identity.files;
    match lost {
        Lost::CertificateRequired => Error::CertificateRequired { address },
        Lost::CertificateRefused(why) => {
            let certificate = files.own.as_ref().map_or_else(Default::default, |(certificate, _)| certificate.clone());
            Error::CertificateRefused { address, certificate, why }
        }
        Lost::PeerCertificate(why) => {
            let why = if why.contains("UnknownIssuer") { "another authority signed it".into() } else { why.clone() };
            Error::ForeignNode { address, ca: files.ca.clone(), why }
        }
        Lost::Protocol => Error::NotRinghold { address },
        Lost::Closed { close: Some(Close::Stopping), .. } => {
            Error::Refused { address, refused: wire::Refused::Stopping }
        }
        lost if lost.is_final() => Error::Protocol { address, detail: lost.to_string() },
        lost => Error::Unreachable { address, detail: lost.to_string() },
    }
}

/// Keeps a client connected until it is closed or cannot be helped.
pub(super) async fn drive(shared: Arc<Shared>, first: Connected) {
    let mut connected = first;
    let (failed, lost) = loop {
        let ended = run(&shared, &mut connected).await;
        // What the connection has left to say is said in the background; a new endpoint needs nothing of it.
        drop(connected);
        let Some(lost) = ended else { break (Error::Closed, Lost::Here) };
        lose(&shared, &lost);
        if shared.closing.load(SeqCst) {
            break (Error::Closed, lost);
        }
        match connect_again(&shared, &lost).await {
            Ok(again) => connected = again,
            Err(error) => break (error, lost),
        }
        tracing::info!(address = connected.address, "connected again");
        shared.reconnects.fetch_add(1, Relaxed);
        resume(&shared, &connected, &lost);
        shared.changed.notify_waiters();
    };
    end(&shared, failed, &lost);
}

/// Takes in that there is a connection again.
fn resume(shared: &Shared, connected: &Connected, lost: &Lost) {
    let wakers = {
        let mut outbox = shared.outbox.lock();
        outbox.learn(&connected.welcome);
        let mut wakers = Vec::new();
        match connected.welcome.resumed {
            // What was confirmed and is not durable may have died with the node: it counts again once it is there again.
            Resumed::New | Resumed::Known => shared.confirmed.store(shared.retained.lock().first() - 1, SeqCst),
            Resumed::Forgotten => wakers = give_up_written(shared, lost),
        }
        let mut link = shared.link.lock();
        link.connection = Some(connected.connection.clone());
        link.welcome = connected.welcome.clone();
        link.address = connected.address.clone();
        wakers
    };
    wakers.into_iter().for_each(|waker| waker.wake());
}

/// Takes in that nobody can know what became of what was written: its asks are told, its tells are counted. Returns whom to
/// wake. The outbox is locked.
#[must_use]
fn give_up_written(shared: &Shared, lost: &Lost) -> Vec<std::task::Waker> {
    let (written, tells) = {
        let mut retained = shared.retained.lock();
        let tells = retained.tells_after(shared.confirmed.load(SeqCst));
        retained.clear();
        (retained.written(), tells)
    };
    let wakers = shared.asks.lock().lose(written);
    report(shared, tells, lost);
    // Everything written has met its fate.
    shared.confirmed.fetch_max(written, SeqCst);
    wakers
}

/// Counts tells of which nobody knows whether they have arrived.
fn report(shared: &Shared, tells: u64, lost: &Lost) {
    if tells > 0 {
        let mut link = shared.link.lock();
        let address = link.address.clone();
        link.unreported_tells += tells;
        link.unreported.get_or_insert((lost.clone(), address));
        shared.unconfirmed_lost.fetch_add(tells, Relaxed);
    }
}

/// Nothing can be sent any more, and nothing will be answered.
fn end(shared: &Shared, failed: Error, lost: &Lost) {
    {
        let mut outbox = shared.outbox.lock();
        outbox.fail(failed);
        let unsent = std::mem::take(&mut outbox.tells);
        let unwritten = outbox.frames.messages();
        outbox.frames.clear();
        let mut wakers = give_up_written(shared, lost);
        report(shared, unsent, lost);
        debug_assert_eq!(shared.retained.lock().written() + unwritten, outbox.pushed);
        wakers.extend(shared.asks.lock().lose(u64::MAX));
        let mut link = shared.link.lock();
        link.connection = None;
        link.ended = true;
        drop((link, outbox));
        wakers.into_iter().for_each(|waker| waker.wake());
    }
    shared.room.notify_waiters();
    shared.changed.notify_waiters();
}

/// Takes in that there is no connection. What was on it is kept.
fn lose(shared: &Shared, lost: &Lost) {
    let address = {
        let mut link = shared.link.lock();
        link.connection = None;
        link.address.clone()
    };
    tracing::warn!(address, "connection lost: {lost}");
    shared.changed.notify_waiters();
}

/// What the next hello says of this client's lane.
fn lane(shared: &Shared) -> Lane {
    let (first, again) = {
        let retained = shared.retained.lock();
        (retained.first(), retained.written())
    };
    let waiting = shared.asks.lock().resume(first);
    let welcome = shared.link.lock().welcome.clone();
    let before = Some(Before { node: welcome.node.id, born: welcome.born });
    Lane { client: shared.client, first, again, waiting, before }
}

async fn connect_again(shared: &Shared, lost: &Lost) -> Result<Connected, Error> {
    if lost.is_final() {
        let address = shared.link.lock().address.clone();
        return Err(Error::Protocol { address, detail: lost.to_string() });
    }
    let started = Instant::now();
    let mut backoff = BACKOFF_MIN;
    loop {
        let lane = lane(shared);
        // Half of it is chance, so that the clients of a restarted node do not come all at once.
        let wait = backoff / 2 + random_below(&*shared.options.network, backoff / 2);
        tokio::select! {
            biased;
            () = closing(shared) => return Err(Error::Closed),
            () = sleep(wait) => {}
        }
        let attempt = tokio::select! {
            biased;
            () = closing(shared) => return Err(Error::Closed),
            attempt = connect_any(&shared.options, &lane) => attempt,
        };
        let NoneWould { error, hopeless } = match attempt {
            Ok(connected) => return Ok(connected),
            Err(none) => none,
        };
        let given_up = shared.options.reconnect_limit.is_some_and(|limit| started.elapsed() >= limit);
        if hopeless || given_up {
            return Err(error);
        }
        tracing::debug!("connecting again: {error}");
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

async fn closing(shared: &Shared) {
    loop {
        let changed = shared.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        if shared.closing.load(SeqCst) {
            return;
        }
        changed.await;
    }
}

/// Writes and reads until the connection ends. `None`: the client closed it in good order.
async fn run(shared: &Shared, connected: &mut Connected) -> Option<Lost> {
    let connection = connected.connection.clone();
    let (send, recv) = &mut connected.lane;
    let stopping = AtomicBool::new(false);
    let write = async {
        let written = write(shared, send, &stopping).await;
        // The reader sees the same end, and later: after the last answers.
        if let Err(e) = written {
            tracing::debug!("the lane cannot be written any more: {e}");
        }
        std::future::pending::<()>().await;
    };
    let read = read(shared, recv, &stopping);
    let limit = async {
        closing(shared).await;
        sleep(CLOSE_DEADLINE).await;
    };
    let result = tokio::select! {
        biased;
        result = read => result,
        () = write => unreachable!("the writer waits for the reader"),
        () = limit => Err(LaneError::TooSlow),
    };
    let closing = shared.closing.load(SeqCst);
    let lost = match result {
        // The node has finished its side, which it does when this side has.
        Ok(()) if closing && !stopping.load(SeqCst) => None,
        Ok(()) => Some(Lost::Closed {
            close: Some(Close::Stopping),
            code: u64::from(Close::Stopping.code()),
            reason: "the node is stopping".into(),
        }),
        Err(LaneError::Connection(e)) => Some(Lost::of(&e)),
        Err(LaneError::Reset) => Some(match connection.close_reason() {
            Some(e) => Lost::of(&e),
            None => Lost::Other("the node gave up the lane".into()),
        }),
        Err(e) => {
            connection.close(Close::Frame.code(), e.to_string().as_bytes());
            Some(Lost::Other(e.to_string()))
        }
    };
    // A close would hide from requests under way what ended the connection before.
    if connection.close_reason().is_none() {
        let close = if lost.is_none() { Close::Done } else { Close::Again };
        connection.close(close.code(), b"");
    }
    if closing {
        // The close should reach the node; one that is gone is not waited for.
        let _ = timeout(Duration::from_secs(1), connected.endpoint.wait_idle()).await;
    }
    lost
}

async fn write(shared: &Shared, send: &mut SendStream, stopping: &AtomicBool) -> Result<(), quinn::WriteError> {
    // The buffers go to the connection as they are, and come back when the node has them.
    let spare = Spare::default();
    let mut buffer = FrameBuffer::default();
    let bytes_max = shared.options.retained_bytes;
    let again = shared.retained.lock().again();
    for frames in again {
        if stopping.load(SeqCst) {
            break;
        }
        send.write_chunk(frames).await?;
    }
    loop {
        if stopping.load(SeqCst) {
            break;
        }
        // At the bound nothing more is written, the outbox fills up, and who sends waits.
        let kept = shared.retained.lock().bytes();
        if kept >= bytes_max && kept > 0 && !shared.closing.load(SeqCst) {
            shared.writer.notified().await;
            continue;
        }
        let tells = {
            let mut outbox = shared.outbox.lock();
            std::mem::swap(&mut outbox.frames, &mut buffer);
            std::mem::take(&mut outbox.tells)
        };
        if buffer.is_empty() {
            if shared.closing.load(SeqCst) {
                break;
            }
            if kept == 0 {
                spare.trim();
            }
            shared.writer.notified().await;
            continue;
        }
        shared.wake_for_room();
        let settled = shared.asks.lock().settled();
        let messages = buffer.messages();
        let hurry = kept + buffer.len() >= bytes_max / 2;
        buffer.seal(shared.retained.lock().written(), settled, if hurry { FLAG_HURRY } else { 0 });
        let frames = std::mem::replace(&mut buffer, FrameBuffer::reuse(&spare)).into_bytes(&spare);
        // The same bytes, not a copy: they are kept as they are written.
        shared.retained.lock().push(messages, tells, frames.clone());
        send.write_chunk(frames).await?;
    }
    let _ = send.finish();
    Ok(())
}

async fn read(shared: &Shared, recv: &mut RecvStream, stopping: &AtomicBool) -> Result<(), LaneError> {
    let mut reader = FrameReader::default();
    let mut wakers = Vec::new();
    while let Some((header, body)) = reader.next(recv).await? {
        let mut rest = &*body;
        {
            let mut asks = shared.asks.lock();
            for _ in 0..header.count {
                let (header, payload, after) = message::split_first(rest).ok_or(FrameError::Overrun)?;
                match header.kind() {
                    Some(Kind::Reply | Kind::Error | Kind::Inspected) => {}
                    kind => return Err(FrameError::Kind(kind.map_or(0, |k| k as u8)).into()),
                }
                // The high half is the session, which is this client.
                wakers.extend(asks.complete(header.to().key.0 as u32, &header, payload));
                rest = after;
            }
        }
        if !rest.is_empty() {
            return Err(FrameError::Count.into());
        }
        wakers.drain(..).for_each(|waker| waker.wake());
        if shared.confirmed.fetch_max(header.mark, SeqCst) < header.mark {
            shared.changed.notify_waiters();
        }
        if shared.retained.lock().cover(header.release) {
            // It may wait for that.
            shared.writer.notify_one();
        }
        shared.wake_for_room();
        if header.flags & FLAG_STOPPING != 0 && !stopping.swap(true, SeqCst) {
            shared.writer.notify_one();
        }
    }
    Ok(())
}

pub(super) fn request_name(request: &Request) -> &'static str {
    match request {
        Request::Status => "its status",
        Request::Devices => "its devices",
        Request::Health => "how it does",
        Request::ActorTypes => "its actor types",
        Request::Inspect { .. } => "an actor's state",
        Request::Settle { .. } => "everything to settle",
        Request::DeadLetters { .. } => "its dead letters",
        Request::Retry { .. } => "to try a device's backends again",
        Request::RetryDeadLetters { .. } => "to send dead letters again",
        Request::DropDeadLetters { .. } => "to drop dead letters",
        Request::Drain { .. } => "a drain",
        Request::Cluster(_) => "something of its cluster",
    }
}

/// One request on a stream of its own. Waits for a connection where there is none.
pub(super) async fn request(shared: &Shared, request: &Request) -> Result<Response, Error> {
    let (connection, address) = connection(shared).await?;
    let exchange = async {
        let (mut send, mut recv) = open(&connection, StreamKind::Request).await?;
        wire::send(&mut send, request).await?;
        let _ = send.finish();
        wire::receive(&mut recv, wire::RESPONSE_BYTES_MAX).await
    };
    exchange.await.map_err(|e: ControlError| match (e, connection.close_reason()) {
        (ControlError::Connection(e), _) | (_, Some(e)) => {
            Error::ConnectionLost { address, doing: request_name(request), lost: Lost::of(&e), unconfirmed: 0 }
        }
        (e, None) => Error::Protocol { address, detail: e.to_string() },
    })
}

async fn connection(shared: &Shared) -> Result<(Connection, String), Error> {
    loop {
        let changed = shared.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        if let Some(error) = shared.outbox.lock().failed.clone() {
            return Err(error);
        }
        {
            let link = shared.link.lock();
            if let Some(connection) = &link.connection {
                return Ok((connection.clone(), link.address.clone()));
            }
        }
        changed.await;
    }
}
