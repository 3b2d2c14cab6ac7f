//! A link to one node: a connection made when there is something to say, kept, lost, made again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::task::Waker;
use std::time::Duration;

use parking_lot::Mutex;
use quinn::{Connection, RecvStream, SendStream};
use ringhold_cluster::frame::{
    FLAG_HURRY, FLAG_MOVED, FLAG_STOPPING, FrameBuffer, FrameError, FrameReader, LaneError, Spare,
};
use ringhold_cluster::network::{BoxFuture, random_below};
use ringhold_cluster::transport::Lost;
use ringhold_cluster::wire::{
    self, Before, Close, ControlError, Lane, Owners, Request, Response, Resumed, StreamKind, Welcome,
};
use ringhold_kernels::id::TypeId;
use ringhold_kernels::message::{self, Header, Kind, Reason};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use super::asks::{Asks, Ticket};
use super::connect::{Connected, NoneWould, connect_any, open};
use super::outbox::Outbox;
use super::retained::{Retained, Written};
use super::routes::{Learnt, Routes, frames_numbers, strays_of};
use super::{BACKOFF_MAX, BACKOFF_MIN, CLOSE_DEADLINE, Error, Known, Options, Shared};

/// A node that owes an answer and says nothing for so long may be gone.
const SILENT_AFTER: Duration = Duration::from_millis(200);
/// Others are asked that often one after the other,
const SILENT_ROUNDS: usize = 25;
/// and then after so long each: its actors are slow.
const SILENT_LONG: Duration = Duration::from_secs(2);
/// How long a node may take to say who has which shard.
const OWNERS_LIMIT: Duration = Duration::from_secs(2);
/// A session that ends sooner than this because shards have moved is not followed by another at once: tables disagree.
const MOVED_SETTLES: Duration = Duration::from_secs(1);

/// See the module's documentation.
pub(super) struct Link {
    pub index: usize,
    /// What was written.
    pub retained: Mutex<Retained>,
    /// Wakes the writer, or whoever waits for a reason to connect: there is something to write, or the client closes.
    pub writer: Notify,
    /// Wakes the session: what it carries may have to be carried anew.
    anew: Notify,
    /// A connection is to be made though nothing waits to be written.
    wanted: AtomicBool,
    state: Mutex<State>,
}

/// What is known of the connection.
#[derive(Default)]
struct State {
    /// `None` while there is none.
    connection: Option<Connection>,
    /// What the node said last.
    welcome: Option<Welcome>,
    address: String,
}

impl Link {
    pub fn new(index: usize) -> Link {
        Link {
            index,
            retained: Mutex::default(),
            writer: Notify::new(),
            anew: Notify::new(),
            wanted: AtomicBool::new(false),
            state: Mutex::default(),
        }
    }

    /// Has it connect, anew where what it is to carry has changed.
    pub fn want(&self) {
        self.wanted.store(true, SeqCst);
        self.writer.notify_one();
        self.anew.notify_one();
    }

    pub fn welcome(&self) -> Option<Welcome> {
        self.state.lock().welcome.clone()
    }

    pub fn address(&self) -> String {
        self.state.lock().address.clone()
    }

    pub fn connection(&self) -> Option<Connection> {
        self.state.lock().connection.clone()
    }

    fn joined(&self, connected: &Connected) {
        self.wanted.store(false, SeqCst);
        *self.state.lock() = State {
            connection: Some(connected.connection.clone()),
            welcome: Some(connected.welcome.clone()),
            address: connected.address.clone(),
        };
    }
}

/// The first connection; what it fails with is the caller's to handle.
pub(super) async fn connect_first(options: Options) -> Result<(Arc<Shared>, Session), Error> {
    let mut client = [0; 16];
    options.network.random(&mut client);
    let lane = Lane { client, first: 1, ..Lane::default() };
    let connected = connect_any(&options, &options.addresses, &lane).await.map_err(|none| none.error)?;
    let welcome = &connected.welcome;
    let link = Arc::new(Link::new(0));
    link.joined(&connected);
    let known = Known { who: Some(who(welcome)), unreported: None, unreported_tells: 0, ended: false };
    let shared = Arc::new(Shared {
        type_ids: options.types.iter().map(|t| TypeId::of(&t.name)).collect(),
        options,
        client,
        outbox: Mutex::new(Outbox::new(welcome, link)),
        asks: Mutex::default(),
        known: Mutex::new(known),
        room: Notify::new(),
        wants_room: AtomicBool::new(false),
        changed: Notify::new(),
        unconfirmed_lost: Default::default(),
        closing: AtomicBool::new(false),
        over: AtomicBool::new(false),
        reconnects: Default::default(),
    });
    learn(&shared, &welcome.owners);
    Ok((shared, Session { connected, generation: 0 }))
}

fn who(welcome: &Welcome) -> Before {
    Before { home: welcome.home.clone(), session: welcome.session, born: welcome.born }
}

/// A connection that carries what its link kept in this generation.
pub(super) struct Session {
    connected: Connected,
    generation: u64,
}

/// Why a link is driven no more.
enum Stop {
    /// The client closes, and this link has done all that it had to, or was lost before.
    Closed(Option<Lost>),
    /// The client cannot go on.
    Failed(Error, Lost),
    /// The client has come to its end by another link.
    Over,
}

/// How a session ended.
enum Ended {
    /// The client closed it in good order.
    Done,
    Lost(Lost),
    /// What comes next is for an actor that another node has.
    Moved,
    /// What it is to carry has changed.
    Anew,
    Over,
}

/// Keeps a link for as long as the client lives.
pub(super) fn drive(shared: Arc<Shared>, link: Arc<Link>, first: Option<Session>) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        let (failed, lost) = match keep(&shared, &link, first).await {
            Stop::Over => return,
            Stop::Failed(error, lost) => (error, lost),
            Stop::Closed(lost) => {
                if !close(&shared, &link, lost.as_ref()) {
                    return;
                }
                (Error::Closed, lost.unwrap_or(Lost::Here))
            }
        };
        end(&shared, failed, &lost);
    })
}

async fn keep(shared: &Arc<Shared>, link: &Arc<Link>, first: Option<Session>) -> Stop {
    let mut next = first;
    let mut lost = None;
    let mut moves = 0;
    let mut pause = Duration::ZERO;
    loop {
        let mut session = match next.take() {
            Some(session) => session,
            None => {
                if let Err(stop) = reason_to_connect(shared, link, lost.as_ref()).await {
                    return stop;
                }
                match reach(shared, link, lost.as_ref(), pause).await {
                    Ok(Some(session)) => session,
                    Ok(None) => continue,
                    Err(stop) => return stop,
                }
            }
        };
        let started = Instant::now();
        let ended = run(shared, link, &mut session).await;
        link.state.lock().connection = None;
        let generation = session.generation;
        // What the connection has left to say is said in the background; a new endpoint needs nothing of it.
        drop(session);
        (lost, pause) = (None, Duration::ZERO);
        moves = match (&ended, started.elapsed() < MOVED_SETTLES) {
            (Ended::Moved, true) => moves + 1,
            _ => 0,
        };
        match ended {
            Ended::Over => return Stop::Over,
            Ended::Done if finish(shared, link, generation) => return Stop::Closed(None),
            Ended::Done | Ended::Anew => {}
            Ended::Moved if moves > 1 => pause = (BACKOFF_MIN * (1 << moves.min(10))).min(BACKOFF_MAX),
            Ended::Moved => {}
            Ended::Lost(why) => {
                tracing::warn!(address = link.address(), "connection lost: {why}");
                shared.changed.notify_waiters();
                if shared.closing.load(SeqCst) {
                    return Stop::Closed(Some(why));
                }
                (lost, pause) = (Some(why), BACKOFF_MIN);
            }
        }
    }
}

/// Whether a link has come to its end in good order: nothing goes this way any more then.
fn finish(shared: &Shared, link: &Link, generation: u64) -> bool {
    let mut outbox = shared.outbox.lock();
    let out = &mut outbox.links[link.index];
    let finished = out.unsent.frames.is_empty() && link.retained.lock().generation() == generation;
    if finished {
        out.end();
    }
    finished
}

/// Takes in that a link is driven no more because the client closes. Returns whether it was the last.
fn close(shared: &Shared, link: &Link, lost: Option<&Lost>) -> bool {
    let wakers = {
        let mut outbox = shared.outbox.lock();
        outbox.live -= 1;
        if outbox.live == 0 {
            return true;
        }
        // One that has done all that it had to may have been given more since, and another drives it then.
        let Some(lost) = lost else { return false };
        outbox.links[link.index].end();
        let mut asks = shared.asks.lock();
        let mut wakers = give_up_written(shared, (&outbox.routes, None), &mut asks, link, &BTreeSet::new(), lost);
        give_up_unsent(shared, &mut outbox, link.index, lost);
        wakers.extend(asks.lose(|_, shard| outbox.routes.of_shard(shard) == link.index));
        wakers
    };
    wakers.into_iter().for_each(Waker::wake);
    shared.changed.notify_waiters();
    false
}

/// Resolves once there is a reason to connect.
async fn reason_to_connect(shared: &Shared, link: &Link, lost: Option<&Lost>) -> Result<(), Stop> {
    loop {
        if shared.over.load(SeqCst) {
            return Err(Stop::Over);
        }
        {
            let mut outbox = shared.outbox.lock();
            if has_work(shared, &outbox, link) || lost.is_some() && !others_are_connected(&outbox, link) {
                return Ok(());
            }
            if shared.closing.load(SeqCst) {
                outbox.links[link.index].end();
                return Err(Stop::Closed(None));
            }
        }
        link.writer.notified().await;
    }
}

fn has_work(shared: &Shared, outbox: &Outbox, link: &Link) -> bool {
    let unsent = !outbox.links[link.index].unsent.frames.is_empty();
    // What an ask did may be durable, and known to be, and its answer still to come.
    let asks = || shared.asks.lock().shards().into_iter().any(|shard| outbox.routes.of_shard(shard) == link.index);
    unsent || link.wanted.load(SeqCst) || asks() || !link.retained.lock().is_empty()
}

fn others_are_connected(outbox: &Outbox, link: &Link) -> bool {
    outbox.links.iter().any(|out| out.link.index != link.index && out.link.connection().is_some())
}

/// Comes to a connection. `None`: there is no reason for one any more.
async fn reach(
    shared: &Arc<Shared>,
    link: &Arc<Link>,
    lost: Option<&Lost>,
    pause: Duration,
) -> Result<Option<Session>, Stop> {
    if let Some(lost) = lost.filter(|lost| lost.is_final()) {
        let error = Error::Protocol { address: link.address(), detail: lost.to_string() };
        return Err(Stop::Failed(error, lost.clone()));
    }
    let started = Instant::now();
    let (mut wait, mut backoff) = (pause, pause.max(BACKOFF_MIN));
    // One for all attempts: each may take longer than a client that closes waits.
    let leaves = leaving(shared, link, lost);
    tokio::pin!(leaves);
    for round in 0.. {
        // Half of it is chance, so that the clients of a restarted node do not come all at once.
        let wait_now = wait / 2 + random_below(&*shared.options.network, wait / 2);
        let attempt = async {
            if !wait.is_zero() {
                sleep(wait_now).await;
            }
            let (lane, generation, addresses) = hello(shared, link);
            (connect_any(&shared.options, &addresses, &lane).await, lane, generation)
        };
        let (attempt, lane, generation) = tokio::select! {
            biased;
            stop = &mut leaves => return Err(stop),
            attempt = attempt => attempt,
            () = ask_while_connecting(shared, link) => unreachable!("it goes on for ever"),
        };
        let none = match attempt {
            Ok(connected) => match join(shared, link, &connected, &lane, generation, lost) {
                true => return Ok(Some(Session { connected, generation })),
                false => {
                    connected.connection.close(Close::Again.code(), b"");
                    wait = Duration::ZERO;
                    continue;
                }
            },
            Err(none) => none,
        };
        let NoneWould { error, hopeless } = none;
        let given_up = shared.options.reconnect_limit.is_some_and(|limit| started.elapsed() >= limit);
        if hopeless || given_up {
            return Err(Stop::Failed(error, lost.cloned().unwrap_or(Lost::Here)));
        }
        tracing::debug!("connecting again: {error}");
        tokio::select! {
            biased;
            stop = &mut leaves => return Err(stop),
            () = ask_others(shared, link, round) => {}
        }
        let outbox = shared.outbox.lock();
        if !has_work(shared, &outbox, link) && others_are_connected(&outbox, link) {
            return Ok(None);
        }
        (wait, backoff) = (backoff, (backoff * 2).min(BACKOFF_MAX));
    }
    unreachable!("it goes round for ever")
}

/// Resolves when connecting has no sense any more. A client that closes does not wait for a node that was lost, nor for one that it
/// wants nothing of, and for another not for long.
async fn leaving(shared: &Shared, link: &Link, lost: Option<&Lost>) -> Stop {
    closing(shared).await;
    if shared.over.load(SeqCst) {
        return Stop::Over;
    }
    let waits = {
        let outbox = shared.outbox.lock();
        let unsent = !outbox.links[link.index].unsent.frames.is_empty();
        unsent || !link.retained.lock().is_empty() || shared.asks.lock().any_waits()
    };
    if lost.is_none() && waits {
        sleep(CLOSE_DEADLINE).await;
    }
    Stop::Closed(Some(lost.cloned().unwrap_or(Lost::Here)))
}

/// Looks for a newer table where the node of this link is not to be reached: at those that are, or at another.
async fn ask_others(shared: &Arc<Shared>, link: &Link, round: usize) {
    let (live, others) = {
        let outbox = shared.outbox.lock();
        let others = outbox.links.iter().zip(outbox.routes.nodes());
        let others = others.filter(|(out, node)| out.link.index != link.index && node.address.is_some());
        let others: Vec<Arc<Link>> = others.map(|(out, _)| out.link.clone()).collect();
        let live: Vec<Connection> = others.iter().filter_map(|link| link.connection()).collect();
        (live, others)
    };
    if let Some(other) = others.get(round % others.len().max(1)).filter(|_| live.is_empty()) {
        other.want();
    }
    for connection in live {
        if let Some(owners) = ask_owners(&connection).await {
            return learn(shared, &owners);
        }
    }
}

/// Looks for a newer table whenever the node of this link has something to say and does not: one that has died is a connection
/// that is silent, for longer than it takes until others have its actors.
async fn ask_while_silent(shared: &Arc<Shared>, link: &Link, frames: &AtomicU64) {
    let (mut before, mut round) = (0, 0);
    loop {
        sleep(if round < SILENT_ROUNDS { SILENT_AFTER } else { SILENT_LONG }).await;
        let now = frames.load(Relaxed);
        if now != before {
            round = 0;
        }
        if now == before && (link.retained.lock().bytes() > 0 || shared.asks.lock().any_waits()) {
            ask_others(shared, link, round).await;
            round += 1;
        }
        before = now;
    }
}

/// The same while a node does not answer that there is to be a connection to: others may have its shards by now, and what is for these
/// then goes there.
async fn ask_while_connecting(shared: &Arc<Shared>, link: &Link) {
    for round in 0.. {
        sleep(if round < SILENT_ROUNDS { SILENT_AFTER } else { SILENT_LONG }).await;
        ask_others(shared, link, round).await;
    }
}

/// What a node says of who has which shard.
async fn ask_owners(connection: &Connection) -> Option<Owners> {
    match timeout(OWNERS_LIMIT, exchange(connection, &Request::Owners)).await {
        Ok(Ok(Response::Owners(owners))) => Some(owners),
        _ => None,
    }
}

/// Takes a table in, if it is newer.
fn learn(shared: &Arc<Shared>, owners: &Owners) {
    let driven = {
        let mut outbox = shared.outbox.lock();
        let asks = shared.asks.lock();
        outbox.learn(owners, &asks)
    };
    start(shared, driven);
}

fn start(shared: &Arc<Shared>, links: Vec<Arc<Link>>) {
    for link in links {
        tokio::spawn(drive(shared.clone(), link, None));
    }
}

/// What the next hello on a link says of its lane, which generation it carries, and where the node may be.
fn hello(shared: &Shared, link: &Link) -> (Lane, u64, Vec<String>) {
    let mut outbox = shared.outbox.lock();
    let Outbox { routes, links, .. } = &mut *outbox;
    let mut asks = shared.asks.lock();
    let retained = link.retained.lock();
    let mut gone = asks.open(|shard| routes.of_shard(shard) == link.index);
    for comes in retained.has(&gone) {
        gone.remove(&comes);
    }
    for comes in frames_numbers(links[link.index].unsent.sealed()) {
        gone.remove(&comes);
    }
    let waiting = asks.resume(&gone);
    let node = &routes.nodes()[link.index];
    let before = shared.known.lock().who.clone();
    let (first, again) = (retained.first(), retained.written());
    let lane =
        Lane { client: shared.client, node: node.number, first, again, waiting, before, table: routes.version() };
    let mut addresses = Vec::new();
    if node.number != 0 {
        addresses.push(link.address());
        addresses.extend(node.address.clone());
    }
    addresses.extend(shared.options.addresses.iter().cloned());
    let mut seen = BTreeSet::new();
    addresses.retain(|address| !address.is_empty() && seen.insert(address.clone()));
    (lane, retained.generation(), addresses)
}

/// Takes in that there is a connection. Returns whether it carries what it is to carry: otherwise another has to be made.
fn join(
    shared: &Arc<Shared>,
    link: &Arc<Link>,
    connected: &Connected,
    said: &Lane,
    generation: u64,
    lost: Option<&Lost>,
) -> bool {
    let welcome = &connected.welcome;
    let forgotten = || Lost::Other("the node does not know any more what of that it has".into());
    let lost_for_good = lost.cloned().unwrap_or_else(forgotten);
    let (wakers, driven, joined) = {
        let mut outbox = shared.outbox.lock();
        let mut asks = shared.asks.lock();
        if outbox.failed.is_some() || link.retained.lock().generation() != generation {
            return false;
        }
        let who = who(welcome);
        let at_home = said.before.as_ref().is_some_and(|before| before.home == who.home);
        shared.known.lock().who = Some(who);
        let (mut wakers, mut driven) = (Vec::new(), Vec::new());
        if !at_home {
            // It is another cluster, or a node that stands alone: nothing that was written counts there, wherever that was.
            let none = BTreeSet::new();
            for out in &outbox.links {
                let (routes, written) = ((&outbox.routes, None), &out.link);
                wakers.extend(give_up_written(shared, routes, &mut asks, written, &none, &lost_for_good));
            }
            let learnt = outbox.routes.begin_anew(link.index, welcome.number);
            driven.extend(outbox.deal(&learnt, &asks));
        }
        // What is other nodes' by now is not this one's to have forgotten, nor has it had what is its own since.
        let learnt = outbox.routes.learn(&welcome.owners);
        if at_home && welcome.resumed == Resumed::Forgotten {
            let (waiting, routes) = (said.waiting().collect(), (&outbox.routes, learnt.as_ref()));
            wakers.extend(give_up_written(shared, routes, &mut asks, link, &waiting, &lost_for_good));
        }
        if let Some(learnt) = learnt {
            driven.extend(outbox.deal(&learnt, &asks));
        }
        outbox.links[link.index].learn(welcome);
        let mut retained = link.retained.lock();
        let joined = retained.generation() == generation;
        if joined {
            if welcome.resumed != Resumed::Forgotten {
                retained.resume();
            }
            link.joined(connected);
        }
        (wakers, driven, joined)
    };
    wakers.into_iter().for_each(Waker::wake);
    start(shared, driven);
    if joined && lost.is_some() {
        tracing::info!(address = connected.address, "connected again");
        shared.reconnects.fetch_add(1, Relaxed);
    }
    shared.changed.notify_waiters();
    joined
}

/// Takes in that nobody can know what became of what was written on a link, and of these asks: asks are told, tells are counted. What
/// has just been learnt to be another's stays there, to be dealt out. Returns whom to wake. The outbox is locked.
#[must_use]
fn give_up_written(
    shared: &Shared,
    (routes, learnt): (&Routes, Option<&Learnt>),
    asks: &mut Asks,
    link: &Link,
    waiting: &BTreeSet<u64>,
    lost: &Lost,
) -> Vec<Waker> {
    let (written, tells) = {
        let mut retained = link.retained.lock();
        let strays = strays_of(&retained, link.index, routes);
        let stray_tells: u64 = strays.iter().filter(|s| s.end > retained.confirmed()).map(|s| s.tells).sum();
        let tells = retained.unconfirmed_tells().saturating_sub(stray_tells);
        // It is said before it counts as confirmed.
        report(shared, link, tells, lost);
        retained.clear_but(strays);
        (retained.written(), tells)
    };
    let is_lost = |number: u64| number <= written || waiting.contains(&number);
    let has_come = |shard| learnt.is_some_and(|learnt| learnt.has_moved(routes, shard));
    let wakers = asks.lose(|number, shard| routes.of_shard(shard) == link.index && !has_come(shard) && is_lost(number));
    tracing::debug!(tells, "what was written is given up");
    wakers
}

/// The same for what waits to be written.
fn give_up_unsent(shared: &Shared, outbox: &mut Outbox, index: usize, lost: &Lost) {
    let out = &mut outbox.links[index];
    let tells = std::mem::take(&mut out.unsent.tells);
    out.unsent.frames.clear();
    report(shared, &out.link, tells, lost);
}

/// Counts tells of which nobody knows whether they have arrived.
fn report(shared: &Shared, link: &Link, tells: u64, lost: &Lost) {
    if tells > 0 {
        let mut known = shared.known.lock();
        known.unreported_tells += tells;
        known.unreported.get_or_insert_with(|| (lost.clone(), link.address()));
        shared.unconfirmed_lost.fetch_add(tells, Relaxed);
    }
}

/// Nothing can be sent any more, and nothing will be answered.
fn end(shared: &Shared, failed: Error, lost: &Lost) {
    let links: Vec<Arc<Link>> = {
        let mut outbox = shared.outbox.lock();
        outbox.fail(failed);
        let mut asks = shared.asks.lock();
        let links: Vec<_> = outbox.links.iter().map(|out| out.link.clone()).collect();
        let mut wakers = Vec::new();
        for link in &links {
            wakers.extend(give_up_written(shared, (&outbox.routes, None), &mut asks, link, &BTreeSet::new(), lost));
            give_up_unsent(shared, &mut outbox, link.index, lost);
        }
        wakers.extend(asks.lose(|_, _| true));
        shared.over.store(true, SeqCst);
        shared.known.lock().ended = true;
        drop((asks, outbox));
        wakers.into_iter().for_each(Waker::wake);
        links
    };
    links.iter().for_each(|link| link.writer.notify_one());
    shared.room.notify_waiters();
    shared.changed.notify_waiters();
}

/// Resolves when the client closes, or has come to its end.
async fn closing(shared: &Shared) {
    when(shared, || shared.closing.load(SeqCst) || shared.over.load(SeqCst)).await;
}

async fn when(shared: &Shared, holds: impl Fn() -> bool) {
    loop {
        let changed = shared.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        if holds() {
            return;
        }
        changed.await;
    }
}

/// Writes and reads until the connection ends.
async fn run(shared: &Arc<Shared>, link: &Arc<Link>, session: &mut Session) -> Ended {
    let generation = session.generation;
    let Connected { connection, endpoint, lane: (send, recv), .. } = &mut session.connected;
    let stopping = AtomicBool::new(false);
    let write = async {
        let written = write(shared, link, generation, send, &stopping).await;
        // The reader sees the same end, and later: after the last answers.
        if let Err(e) = written {
            tracing::debug!("the lane cannot be written any more: {e}");
        }
        std::future::pending::<()>().await;
    };
    let frames = AtomicU64::new(0);
    let read = read(shared, link, generation, recv, &stopping, &frames);
    let silent = ask_while_silent(shared, link, &frames);
    let anew = async {
        while link.retained.lock().generation() == generation {
            link.anew.notified().await;
        }
    };
    let limit = async {
        closing(shared).await;
        sleep(CLOSE_DEADLINE).await;
    };
    let result = tokio::select! {
        biased;
        result = read => result,
        () = when(shared, || shared.over.load(SeqCst)) => Ok(Read::Over),
        () = anew => Ok(Read::Anew),
        () = write => unreachable!("the writer waits for the reader"),
        () = silent => unreachable!("it goes on for ever"),
        () = limit => Err(LaneError::TooSlow),
    };
    let closing = shared.closing.load(SeqCst);
    let ended = match result {
        // The node has finished its side, which it does when this side has.
        Ok(Read::Finished) if closing && !stopping.load(SeqCst) => Ended::Done,
        Ok(Read::Finished) => Ended::Lost(Lost::Closed {
            close: Some(Close::Stopping),
            code: u64::from(Close::Stopping.code()),
            reason: "the node is stopping".into(),
        }),
        Ok(Read::Moved) => {
            if let Some(owners) = ask_owners(connection).await {
                learn(shared, &owners);
            }
            Ended::Moved
        }
        Ok(Read::Anew) => Ended::Anew,
        Ok(Read::Over) => Ended::Over,
        Err(LaneError::Connection(e)) => Ended::Lost(Lost::of(&e)),
        Err(LaneError::Reset) => Ended::Lost(match connection.close_reason() {
            Some(e) => Lost::of(&e),
            None => Lost::Other("the node gave up the lane".into()),
        }),
        Err(e) => {
            connection.close(Close::Frame.code(), e.to_string().as_bytes());
            Ended::Lost(Lost::Other(e.to_string()))
        }
    };
    // A close would hide from requests under way what ended the connection before.
    if connection.close_reason().is_none() {
        let close = if matches!(ended, Ended::Done | Ended::Over) { Close::Done } else { Close::Again };
        connection.close(close.code(), b"");
    }
    if closing && matches!(ended, Ended::Done | Ended::Lost(_)) {
        // The close should reach the node; one that is gone is not waited for.
        let _ = timeout(Duration::from_secs(1), endpoint.wait_idle()).await;
    }
    ended
}

/// What the writer of a lane does next.
enum Next {
    Write(bytes::Bytes),
    Wait,
    Finish,
}

async fn write(
    shared: &Shared,
    link: &Link,
    generation: u64,
    send: &mut SendStream,
    stopping: &AtomicBool,
) -> Result<(), quinn::WriteError> {
    // The buffers go to the connection as they are, and come back when the node has them.
    let spare = Spare::default();
    let mut buffer = FrameBuffer::default();
    let again = link.retained.lock().again();
    for frames in again {
        if stopping.load(SeqCst) {
            break;
        }
        send.write_chunk(frames).await?;
    }
    while !stopping.load(SeqCst) {
        match next(shared, link, generation, &mut buffer, &spare) {
            Next::Write(frames) => {
                shared.wake_for_room();
                send.write_chunk(frames).await?;
            }
            Next::Wait => link.writer.notified().await,
            Next::Finish => break,
        }
    }
    let _ = send.finish();
    Ok(())
}

/// Takes what waits to be written, and keeps it. All of it under the outbox's lock: when shards have moved, what the link keeps
/// and what waits is dealt out anew, and nothing is between the two.
fn next(shared: &Shared, link: &Link, generation: u64, buffer: &mut FrameBuffer, spare: &Spare) -> Next {
    let bytes_max = shared.options.retained_bytes;
    let mut outbox = shared.outbox.lock();
    let unsent = &mut outbox.links[link.index].unsent;
    let settled = shared.asks.lock().settled();
    let mut retained = link.retained.lock();
    let (kept, closing) = (retained.bytes(), shared.closing.load(SeqCst));
    if retained.generation() != generation {
        return Next::Wait;
    }
    // At the bound nothing more is written, the outbox fills up, and who sends waits.
    if kept >= bytes_max && kept > 0 && !closing {
        return Next::Wait;
    }
    if unsent.frames.is_empty() {
        if closing {
            return Next::Finish;
        }
        if kept == 0 {
            spare.trim();
        }
        return Next::Wait;
    }
    std::mem::swap(&mut unsent.frames, buffer);
    let (first, end, tells) = (unsent.first, unsent.last(), std::mem::take(&mut unsent.tells));
    let hurry = kept + buffer.len() >= bytes_max / 2;
    buffer.seal(first, settled, if hurry { FLAG_HURRY } else { 0 });
    let frames = std::mem::replace(buffer, FrameBuffer::reuse(spare)).into_bytes(spare);
    // The same bytes, not a copy: they are kept as they are written.
    retained.push(Written { before: first - 1, end, tells, frames: frames.clone() });
    Next::Write(frames)
}

/// How the reading of a lane ended.
enum Read {
    Finished,
    Moved,
    Anew,
    Over,
}

async fn read(
    shared: &Shared,
    link: &Link,
    generation: u64,
    recv: &mut RecvStream,
    stopping: &AtomicBool,
    frames: &AtomicU64,
) -> Result<Read, LaneError> {
    let mut reader = FrameReader::default();
    let (mut wakers, mut lost) = (Vec::new(), Vec::new());
    while let Some((header, body)) = reader.next(recv).await? {
        frames.fetch_add(1, Relaxed);
        let mut rest = &*body;
        {
            let mut asks = shared.asks.lock();
            for _ in 0..header.count {
                let (header, payload, after) = message::split_first(rest).ok_or(FrameError::Overrun)?;
                match header.kind() {
                    Some(Kind::Reply | Kind::Error | Kind::Inspected) => {}
                    kind => return Err(FrameError::Kind(kind.map_or(0, |k| k as u8)).into()),
                }
                rest = after;
                if header.reason() == Some(Reason::ConnectionLost) {
                    lost.push(header);
                    continue;
                }
                wakers.extend(asks.complete(ticket_of(&header), &header, payload));
            }
        }
        wakers.extend(complete_lost(shared, link, lost.drain(..)));
        if !rest.is_empty() {
            return Err(FrameError::Count.into());
        }
        wakers.drain(..).for_each(|waker| waker.wake());
        let (confirmed, covered) = {
            let mut retained = link.retained.lock();
            if retained.generation() != generation {
                return Ok(Read::Anew);
            }
            (retained.confirm(header.mark), retained.cover(header.release))
        };
        if confirmed {
            shared.changed.notify_waiters();
        }
        if covered {
            // It may wait for that.
            link.writer.notify_one();
        }
        shared.wake_for_room();
        if header.flags & FLAG_MOVED != 0 {
            return Ok(Read::Moved);
        }
        if header.flags & FLAG_STOPPING != 0 && !stopping.swap(true, SeqCst) {
            link.writer.notify_one();
        }
    }
    Ok(Read::Finished)
}

/// Which ask an answer is for. The high half is the session, which is this client.
fn ticket_of(answer: &Header) -> Ticket {
    answer.to().key.0 as Ticket
}

/// Takes in that the node does not know these asks. Of one whose shard has become another's since the node was asked, that one says
/// what became of it.
fn complete_lost(shared: &Shared, link: &Link, answers: impl ExactSizeIterator<Item = Header>) -> Vec<Waker> {
    if answers.len() == 0 {
        return Vec::new();
    }
    let outbox = shared.outbox.lock();
    let mut asks = shared.asks.lock();
    let ours =
        |asks: &Asks, ticket| asks.shard(ticket).is_some_and(|shard| outbox.routes.of_shard(shard) == link.index);
    answers
        .filter_map(|answer| {
            ours(&asks, ticket_of(&answer)).then(|| asks.complete(ticket_of(&answer), &answer, &[]))?
        })
        .collect()
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
        Request::Owners => "who has which shard",
        Request::Cluster(_) => "something of its cluster",
        Request::LeaveBackend { .. } => "to have a device go on elsewhere",
    }
}

/// One request on a stream of its own, at the first node that there is a connection to. Waits for one where there is none.
pub(super) async fn request(shared: &Shared, request: &Request) -> Result<Response, Error> {
    let link = connected_link(shared).await?;
    request_at(&link, request).await
}

/// The same at the node of this link.
pub(super) async fn request_at(link: &Link, request: &Request) -> Result<Response, Error> {
    let (connection, address) = (link.connection(), link.address());
    let doing = request_name(request);
    let Some(connection) = connection else {
        return Err(Error::ConnectionLost { address, doing, lost: Lost::Here, unconfirmed: 0 });
    };
    exchange(&connection, request).await.map_err(|e| match (e, connection.close_reason()) {
        (ControlError::Connection(e), _) | (_, Some(e)) => {
            Error::ConnectionLost { address, doing, lost: Lost::of(&e), unconfirmed: 0 }
        }
        (e, None) => Error::Protocol { address, detail: e.to_string() },
    })
}

async fn exchange(connection: &Connection, request: &Request) -> Result<Response, ControlError> {
    let (mut send, mut recv) = open(connection, StreamKind::Request).await?;
    wire::send(&mut send, request).await?;
    let _ = send.finish();
    wire::receive(&mut recv, wire::RESPONSE_BYTES_MAX).await
}

/// The first link that is connected.
async fn connected_link(shared: &Shared) -> Result<Arc<Link>, Error> {
    loop {
        let changed = shared.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        {
            let outbox = shared.outbox.lock();
            if let Some(error) = &outbox.failed {
                return Err(error.clone());
            }
            if let Some(link) = outbox.connected().next() {
                return Ok(link.clone());
            }
        }
        changed.await;
    }
}
