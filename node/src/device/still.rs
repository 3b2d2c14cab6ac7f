//! How a device gives and takes shards whose workers read their shard table once, as they begin: those of a ring kernel.
//!
//! It *stands still* meanwhile. It is cut as for a checkpoint, and whatever comes out of it from then on is held. Once the
//! checkpoint is durable its host ends, with what it has done since the cut: nobody has seen any of that. Nothing runs until it is
//! decided where the shards are. Then the next host begins, with the checkpoint, and with what has arrived, by the procedure for one
//! whose predecessor has died. Where the checkpoint cannot be made the host goes on, and what was held for it goes out.
//!
//! Nothing is parked in such workers: what they had sent to the shards and had not left them is in the checkpoint, and comes back
//! behind what arrives (`read` in `keeper.rs`).
//!
//! Whoever moves shards keeps checkpoints from being made (`hold_checkpoints`). A device that stands still though nobody does any
//! more goes on by itself, so it never stands for ever.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use ringhold_kernels::outbox::PARKED;
use tokio::time::{Instant, sleep};

use super::door::{Door, Outcome};
use super::keeper::{Error, Keeper};
use super::switch::Switch;
use super::{Device, Outlet};

/// How often it is looked whether a device stands, or runs again.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Whether a device stands still while its shards move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Still {
    #[default]
    No,
    /// Its host is to end: there is a durable checkpoint, and what came out after its cut is held.
    Wanted,
    /// It has no host, and none begins.
    Stands,
    /// The next host is to begin, or has begun and is not up yet.
    GoesOn,
}

/// What comes out of the device is held until this is dropped.
struct Holding<'a> {
    device: &'a Device,
    outlet: &'a dyn Outlet,
}

impl Drop for Holding<'_> {
    fn drop(&mut self) {
        let mut out = Outcome::default();
        // Behind what the pump has in hand.
        let _carry = self.device.carry.lock();
        self.device.door.lock().hold_no_more(&mut out);
        self.outlet.carry(self.device, &mut out);
    }
}

impl Device {
    /// Whether the device has no host, or one that is not up yet, only because its shards move.
    pub(crate) fn stands_still(&self) -> bool {
        matches!(*self.still.lock(), Still::Stands | Still::GoesOn)
    }

    /// Whether a host begins that has read its table, and is not up yet. Its door is locked.
    pub(crate) fn is_beginning(&self, door: &mut Door) -> bool {
        let begins = door.has_host() && !door.link().is_running() || *self.still.lock() == Still::GoesOn;
        begins && !self.ended.load(SeqCst)
    }

    /// A switch of a device whose workers cannot switch: one that parks shards has it stand still, one that does not has it go on.
    pub(super) async fn switch_still(
        &self,
        keeper: &Keeper,
        outlet: &dyn Outlet,
        switch: &mut Switch,
    ) -> Result<(), Error> {
        // One that goes on by itself does so by the table from before.
        while *self.still.lock() == Still::GoesOn && !self.ended.load(SeqCst) {
            sleep(LOOK_EVERY).await;
        }
        let parks = switch.owners.iter().any(|owner| owner == PARKED);
        match (self.stands_still(), parks) {
            (true, true) => Ok(()),
            (false, true) => self.stand(keeper, outlet, switch).await,
            (true, false) => self.go_on(outlet, switch).await,
            (false, false) if self.door.lock().link().segment().owners() == switch.owners => {
                // Its host has gone by this table all the time.
                switch.done = true;
                Ok(())
            }
            (false, false) => {
                self.stand(keeper, outlet, switch).await?;
                self.go_on(outlet, switch).await
            }
        }
    }

    /// Makes the checkpoint from which the device is to go on, and has it stand still.
    ///
    /// # Errors
    /// There is no such checkpoint. The device runs as it did, or its host has ended.
    async fn stand(&self, keeper: &Keeper, outlet: &dyn Outlet, switch: &mut Switch) -> Result<(), Error> {
        self.door.lock().hold_to_stand();
        let holding = Holding { device: self, outlet };
        let mut cut = Switch::new(switch.owners.clone());
        cut.leaving = switch.leaving.clone();
        self.checkpoint_alone(keeper, outlet, Some(&mut cut)).await?;
        *self.still.lock() = Still::Wanted;
        self.still_changed.notify_one();
        loop {
            {
                let door = self.door.lock();
                let mut still = self.still.lock();
                if *still == Still::Stands {
                    break;
                }
                if self.ended.load(SeqCst) {
                    *still = Still::No;
                    return Err(Error::HostEnded);
                }
                if !door.has_host() {
                    // It has ended by itself, and the next one begins with this checkpoint, once nobody moves shards any more.
                    *still = Still::No;
                    break;
                }
            }
            sleep(LOOK_EVERY).await;
        }
        drop(holding);
        (switch.left, switch.done) = (cut.left, true);
        Ok(())
    }

    /// Has the next host begin, and waits until it is up.
    ///
    /// # Errors
    /// It has ended before. The next one begins likewise.
    async fn go_on(&self, outlet: &dyn Outlet, switch: &mut Switch) -> Result<(), Error> {
        {
            let mut door = self.door.lock();
            door.link().set_owners(switch.owners.clone());
            let mut still = self.still.lock();
            if *still == Still::Stands {
                *still = Still::GoesOn;
            }
        }
        self.still_changed.notify_one();
        while self.stands_still() && !self.ended.load(SeqCst) {
            sleep(LOOK_EVERY).await;
        }
        if !self.has_running_host() {
            return Err(Error::HostEnded);
        }
        switch.done = true;
        if switch.opens {
            self.door.lock().open_shards();
            outlet.room();
            switch.opened = Some(Instant::now());
        }
        Ok(())
    }
}
