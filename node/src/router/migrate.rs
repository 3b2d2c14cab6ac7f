//! Moves shards from one device of the node to another while both are at work.
//!
//! | | what happens | what a failure there comes to |
//! |---|---|---|
//! | 1 | no checkpoint of any device is under way, nor begins. What actors of the shards send is held | |
//! | 2 | the target has taken what it was sent so far, and is cut: what its actors send to the shards from here on is *parked* | |
//! | 3 | the source lets nothing in for the shards; its workers take what they were given | |
//! | 4 | the source is cut: the shards leave its workers. The checkpoint is made durable, with them | they come back from what was cut, or with the source's next host |
//! | 5 | what left is made durable for the target, as an *adoption*, on all nodes that are in sync with it | the same |
//! | 6 | the table says that the shards are the target's | |
//! | 7 | doors and router go by that; marks and asks go along | |
//! | 8 | the target is cut: the shards arrive at its workers. It lets messages in for them | its next host begins with the adoption |
//! | 9 | the source is cut: what its actors have sent to the shards since is let go | its next host sends it |
//!
//! Why nothing overtakes: at each step all that was sent on an old road has come to its end before the new road is taken. From
//! the source's actors to the shards: it is in the cut, and later messages are parked (4, 9). From the target's: it is with the
//! source since the checkpoint of 2, and later ones are parked. From other devices and clients: it is blocked at the source, and
//! what is blocked goes along, and first. From the shards to others: it was held, and is sent on by the target before the
//! shards run there (4), or it had been taken by the target (2); what other workers of the source had of it is run before
//! anything else comes in (`kernels/src/worker/switch.rs`).
//!
//! Why nothing is done twice or lost though the node dies: until 6 the table says the source, whose checkpoints have everything;
//! from 6 on it says the target, which has its own checkpoint and the adoption. What the source's has of the shards counts no
//! more. Numbered messages for the shards are with the source when it is cut at 4, for no device's checkpoint is made between 1
//! and the end but those above; later ones get numbers of the lane to the target. What clients send again is held against the
//! marks that go along (`lanes/clients.rs`).

use std::sync::Arc;
use std::time::Duration;

use parking_lot::MutexGuard;
use ringhold_kernels::outbox::{AWAY, Owner, Owners, PARKED};
use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, sleep};

use super::Router;
use crate::device::door::{Door, Left, Outcome};
use crate::device::keeper;
use crate::device::switch::{Carried, LeftLane, Switch};
use crate::device::{Device, Outlet};
use crate::shards::{ELSEWHERE, NotMoved, ShardSet, ShardTable};

/// How long a device may need to take what it was let have.
const TAKEN_LIMIT: Duration = Duration::from_secs(2);
/// How often it is looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// What a migration came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    pub shards: usize,
    /// Bytes of all that was carried.
    pub bytes: u64,
    /// How long nothing was let in for the shards.
    pub stood: Duration,
    /// From its begin to its end.
    pub took: Duration,
}

/// Why shards have not moved.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no device `{0}`: the node has {1}")]
    NoDevice(String, String),
    #[error("no shards are named: name at least one")]
    NoShards,
    #[error("shard {0} is device `{1}`'s and shard {2} is `{3}`'s: move those of one device at a time")]
    NotOfOne(usize, String, usize, String),
    #[error("shard {0} is of no device of this node")]
    Elsewhere(usize),
    #[error("shard {0} is device `{1}`'s already")]
    ThereAlready(usize, String),
    #[error(
        "the node makes no checkpoints, and shards that move would be lost if it ended meanwhile: set checkpoints.enabled"
    )]
    NoCheckpoints,
    #[error(
        "device `{0}` does not run now: its shards stay where they are; try again once `ringhold status` says it runs"
    )]
    NotRunning(String),
    #[error(
        "device `{0}` had not taken its messages within {limit} s: it is too busy; the shards stay where they are",
        limit = TAKEN_LIMIT.as_secs()
    )]
    TooBusy(String),
    #[error("device `{0}` could not be cut ({1}): the shards stay where they are")]
    Cut(String, keeper::Error),
    #[error("what was to move could not be written ({0}): the shards stay where they are")]
    Store(ringhold_storage::checkpoints::Error),
    #[error("what was to move could not be copied to other nodes ({0}): the shards stay where they are")]
    Copies(keeper::Error),
    #[error("{0}; the shards stay where they are")]
    Table(NotMoved),
    #[error("{0}; the shards stay where they are")]
    Node(String),
}

impl Router {
    /// Moves shards, all of which one device has, to the device of this name. One migration at a time; whoever asks for another
    /// waits. It goes on to its end, or is called off, whether its caller waits or not.
    ///
    /// # Errors
    /// The shards are where they were.
    pub async fn migrate(self: &Arc<Router>, shards: ShardSet, to: &str) -> Result<Moved, Error> {
        let Some(to) = self.devices.iter().find(|device| device.name == to).cloned() else {
            let names: Vec<&str> = self.devices.iter().map(|device| device.name.as_str()).collect();
            return Err(Error::NoDevice(to.into(), names.join(", ")));
        };
        let router = self.clone();
        let migrating = tokio::spawn(async move { router.migrate_to(shards, to).await });
        migrating.await.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))
    }

    async fn migrate_to(self: Arc<Router>, shards: ShardSet, target: Arc<Device>) -> Result<Moved, Error> {
        let _alone = self.migrating.clone().lock_owned().await;
        let began = Instant::now();
        let table = self.table.clone().ok_or(Error::NoCheckpoints)?;
        let source = self.source_of(&shards)?;
        if source.index == target.index {
            let first = shards.iter().next().expect("there is one at least");
            return Err(Error::ThereAlready(first, target.name.clone()));
        }
        table.ready().await.map_err(Error::Table)?;
        let mut still: Vec<OwnedMutexGuard<()>> = Vec::new();
        for device in self.present() {
            still.push(device.hold_checkpoints().await);
        }
        for device in [&source, &target] {
            if !device.has_running_host() {
                return Err(Error::NotRunning(device.name.clone()));
            }
        }
        let before = source.door.lock().link().segment().owners();
        let mut migration =
            Migration { router: &self, table, source, target, shards, before, closed: None, left: None };
        let mut moved = migration.run().await?;
        moved.took = began.elapsed();
        self.note_moved(&migration.shards);
        tracing::info!(
            from = migration.source.name,
            to = migration.target.name,
            shards = moved.shards,
            bytes = moved.bytes,
            stood_us = moved.stood.as_micros(),
            "shards have moved"
        );
        Ok(moved)
    }

    /// The one device that has these shards.
    pub(super) fn source_of(&self, shards: &ShardSet) -> Result<Arc<Device>, Error> {
        let name = |shard| self.devices[usize::from(self.shards.of_shard(shard))].name.clone();
        let first = shards.iter().next().ok_or(Error::NoShards)?;
        // Of one that is about to begin here nothing moves yet.
        let of = |shard| match self.shards.of_shard(shard) {
            place if usize::from(place) < self.devices.len() => place,
            _ => ELSEWHERE,
        };
        if let Some(elsewhere) = shards.iter().find(|shard| of(*shard) == ELSEWHERE) {
            return Err(Error::Elsewhere(elsewhere));
        }
        if let Some(other) = shards.iter().find(|shard| of(*shard) != of(first)) {
            return Err(Error::NotOfOne(first, name(first), other, name(other)));
        }
        Ok(self.devices[usize::from(of(first))].clone())
    }
}

struct Migration<'a> {
    router: &'a Router,
    table: Arc<dyn ShardTable>,
    source: Arc<Device>,
    target: Arc<Device>,
    shards: ShardSet,
    /// By which the source's workers went.
    before: Owners,
    /// Since when nothing is let in for the shards.
    closed: Option<Instant>,
    /// What the source's workers had of them, once they have let go.
    left: Option<Vec<LeftLane>>,
}

impl Migration<'_> {
    async fn run(&mut self) -> Result<Moved, Error> {
        self.source.door.lock().prepare_to_leave(&self.shards);
        // What had come out before is where it belongs, from here on.
        drop(self.source.carry.lock());
        match self.leave().await {
            Ok((carried, number)) => Ok(self.arrive(carried, number).await),
            Err(why) => {
                self.call_off().await;
                tracing::warn!(from = self.source.name, to = self.target.name, "no shards have moved: {why}");
                Err(why)
            }
        }
    }

    /// Up to where the table says that the shards are the target's.
    async fn leave(&mut self) -> Result<(Carried, u64), Error> {
        taken(&self.target).await?;
        let parked = self.parked(&self.target);
        self.cut(&self.target, &mut Switch::new(parked)).await?;
        self.source.door.lock().close_shards(false);
        self.closed = Some(Instant::now());
        taken(&self.source).await?;
        let cut_us = self.router.network.steady_us();
        let mut switch = Switch::new(self.parked(&self.source));
        switch.leaving = Some(self.shards.clone());
        let cut = self.cut(&self.source, &mut switch).await;
        let lanes = self.left.insert(switch.left);
        if !switch.done {
            self.left = None;
            return Err(cut.err().unwrap_or(Error::NotRunning(self.source.name.clone())));
        }
        cut?;
        let left = self.source.door.lock().carry_off();
        let number = self.target.door.lock().adopted().0 + 1;
        let carried = Carried::new(number, cut_us, &self.shards, lanes, &left);
        let bytes = carried.0.clone();
        let put = self.target.on_store(move |store, name| store.put_adoption(name, number, &bytes)).await;
        put.map_err(Error::Store)?;
        let mut moved = self.target.adoption_copied().await.map_err(Error::Copies);
        if moved.is_ok() {
            let agreed = self.table.move_shards(&self.shards, self.source.index, self.target.index).await;
            moved = agreed.map_err(Error::Table);
        }
        if let Err(why) = moved {
            // Where this fails it is forgotten with the next one, or when the node starts.
            let _ = self.target.on_store(move |store, name| store.forget_adoption(name, number)).await;
            return Err(why);
        }
        Ok((carried, number))
    }

    /// From where the table says that the shards are the target's: whatever happens, they are.
    async fn arrive(&mut self, carried: Carried, number: u64) -> Moved {
        let (mut next, workers) = (0, self.target.door.lock().link().segment().shape().workers as usize);
        let arrived = self.table_of(&self.target, |_| {
            next += 1;
            ((next - 1) % workers) as Owner
        });
        let gone = self.table_of(&self.source, |_| AWAY);
        {
            let (mut source, mut target) = self.doors();
            source.hand_over(&mut target, self.target.index, number, &carried.0, gone.clone(), arrived.clone());
        }
        let bytes = carried.0.len() as u64;
        let mut switch = Switch::new(arrived);
        (switch.arriving, switch.opens) = (carried.0, true);
        let arrives = async {
            if let Err(e) = self.cut(&self.target, &mut switch).await {
                tracing::warn!(device = self.target.name, "shards have arrived, and {e}");
            }
            {
                let mut door = self.target.door.lock();
                door.has_adopted(number);
                // Where its host has ended the next one begins with them, and then with what is let in meanwhile.
                door.open_shards();
            }
            self.router.room();
            switch.opened.unwrap_or_else(Instant::now)
        };
        let goes_on = async {
            if let Err(e) = self.cut(&self.source, &mut Switch::new(gone)).await {
                tracing::warn!(device = self.source.name, "shards have left, and {e}");
            }
        };
        let opened = match self.source.stands_still() {
            // What it sends to the shards before they are let in for is blocked at the target's door.
            true => tokio::join!(biased; arrives, goes_on).0,
            false => {
                let opened = arrives.await;
                goes_on.await;
                opened
            }
        };
        // So that what was carried need not be kept for long.
        self.target.hurry();
        let stood = self.closed.map_or(Duration::ZERO, |closed| opened - closed);
        Moved { shards: self.shards.len(), bytes, stood, took: Duration::ZERO }
    }

    /// The shards stay, and come back to the source's workers where they had left them. A host that has ended meanwhile has
    /// had them, and so will the next.
    async fn call_off(&mut self) {
        if let Some(lanes) = self.left.take() {
            let mut switch = Switch::new(self.before.clone());
            switch.arriving = Carried::new(0, 0, &self.shards, &lanes, &Left::default()).0;
            switch.returns = true;
            if let Err(e) = self.cut(&self.source, &mut switch).await {
                tracing::warn!(device = self.source.name, "shards have come back, and {e}");
            }
        }
        let mut out = Outcome::default();
        {
            // Behind what the pump has in hand, and before what comes out from now on.
            let _carry = self.source.carry.lock();
            self.source.door.lock().call_off(&mut out);
            self.router.carry(&self.source, &mut out);
        }
        let away = self.table_of(&self.target, |_| AWAY);
        if (self.target.stands_still() || self.target.door.lock().link().segment().owners() != away)
            && let Err(e) = self.cut(&self.target, &mut Switch::new(away)).await
        {
            tracing::warn!(device = self.target.name, "shards have not arrived, and {e}");
        }
        self.router.room();
    }

    async fn cut(&self, device: &Device, switch: &mut Switch) -> Result<(), Error> {
        let made = device.switch(self.router, switch).await;
        made.map_err(|e| Error::Cut(device.name.clone(), e))
    }

    fn parked(&self, device: &Device) -> Owners {
        self.table_of(device, |_| PARKED)
    }

    /// The table by which a device's workers go, but for the shards that move.
    fn table_of(&self, device: &Device, mut owner: impl FnMut(usize) -> Owner) -> Owners {
        let now = device.door.lock().link().segment().owners();
        Owners::from_fn(|shard| if self.shards.contains(shard) { owner(shard) } else { now.of_shard(shard) })
    }

    /// Both doors, locked in the order in which all of them are.
    fn doors(&self) -> (MutexGuard<'_, Door>, MutexGuard<'_, Door>) {
        if self.source.index < self.target.index {
            let source = self.source.door.lock();
            (source, self.target.door.lock())
        } else {
            let target = self.target.door.lock();
            (self.source.door.lock(), target)
        }
    }
}

/// Waits until a device's workers have taken what was let in until now.
pub(super) async fn taken(device: &Device) -> Result<(), Error> {
    let until = Instant::now() + TAKEN_LIMIT;
    let mut taken = device.door.lock().let_in_until_now();
    loop {
        if !device.has_running_host() {
            return Err(Error::NotRunning(device.name.clone()));
        }
        if device.door.lock().has_taken(&mut taken) {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(Error::TooBusy(device.name.clone()));
        }
        sleep(LOOK_EVERY).await;
    }
}
