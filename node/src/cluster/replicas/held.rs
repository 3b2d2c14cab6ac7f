//! The copies that a node has of other nodes' devices' checkpoints.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use parking_lot::Mutex;
use ringhold_cluster::control::Control;
use ringhold_cluster::control::state::{DeviceNumber, NodeNumber, State};
use ringhold_storage::checkpoints::{Checkpoints, Error, Piece, Replica, Taken, replica_name};
use tokio::time::sleep;

use super::{Asked, Copied};
use crate::device::keeper::{self, Jobs, on};

/// From one look for copies that nobody wants any more to the next.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// How long a majority has to say what the cluster has agreed on.
const READ_LIMIT: Duration = Duration::from_secs(5);

/// See the module's documentation.
pub struct Held {
    store: Checkpoints,
    jobs: Arc<dyn Jobs>,
    copies: Mutex<BTreeMap<DeviceNumber, Arc<Copy>>>,
}

/// The copy of one device's checkpoints.
#[derive(Default)]
struct Copy {
    /// Held while anything is written.
    arriving: Arc<tokio::sync::Mutex<Arriving>>,
    /// Grows with whatever its device's node says.
    heard: AtomicU64,
    compacting: Arc<AtomicBool>,
}

/// What comes from the device's node.
#[derive(Default)]
struct Arriving {
    /// `None` until it is asked for, and after the disk has failed.
    replica: Option<Replica>,
    /// What has come of an adoption, and its number.
    adoption: (u64, Vec<u8>),
}

impl Held {
    pub fn new(store: Checkpoints, jobs: Arc<dyn Jobs>) -> Held {
        Held { store, jobs, copies: Mutex::default() }
    }

    /// Of which of these devices there has never been a copy here.
    ///
    /// # Errors
    /// Where the disk fails, or is damaged.
    pub async fn never_had(&self, devices: Vec<DeviceNumber>) -> Result<Vec<DeviceNumber>, Error> {
        let store = self.store.clone();
        on(&*self.jobs, move || {
            let mut never = Vec::new();
            for device in devices {
                if store.copy_term(&replica_name(device))? == 0 {
                    never.push(device);
                }
            }
            Ok(never)
        })
        .await
    }

    /// Answers who runs a device in this term; `own` is this node's number.
    ///
    /// # Errors
    /// Where the device is in a newer term, or the disk fails.
    pub async fn answer(
        &self,
        state: &State,
        own: NodeNumber,
        device: DeviceNumber,
        term: u64,
        asked: Asked,
    ) -> Result<Copied, String> {
        match state.devices.get(&device) {
            Some(known) if known.term > term => {
                return Err(format!("device {device} is in term {} by now, and that is of term {term}", known.term));
            }
            Some(known) if known.node == own => return Err(format!("it runs device {device} itself")),
            // It may not have been told of the device yet.
            _ => {}
        }
        let copy = self.copy(device);
        copy.heard.fetch_add(1, SeqCst);
        let (mut arriving, store) = (copy.arriving.clone().lock_owned().await, self.store.clone());
        let answered = on(&*self.jobs, move || {
            let answered = arriving.take(&store, device, term, asked);
            if let Err(why) = &answered
                && !matches!(why, Error::OlderTerm { .. })
            {
                // What is on the disk is looked at anew.
                *arriving = Arriving::default();
            }
            answered
        });
        let answered = answered.await.map_err(|why| why.to_string())?;
        if answered == Copied::Whole {
            keeper::compact(&self.store, &self.jobs, &replica_name(device), &copy.compacting);
        }
        Ok(answered)
    }

    /// Takes nothing more of a device that begins here in this term. What was just being taken is taken before this has returned.
    ///
    /// # Errors
    /// Where the copy cannot be read, or the disk fails.
    pub async fn close(&self, device: DeviceNumber, term: u64) -> Result<(), Error> {
        let (mut arriving, store) = (self.copy(device).arriving.clone().lock_owned().await, self.store.clone());
        let closed = on(&*self.jobs, move || {
            *arriving = Arriving::default();
            Replica::open(&store, device)?.hear(term).map(drop)
        });
        closed.await
    }

    fn copy(&self, device: DeviceNumber) -> Arc<Copy> {
        self.copies.lock().entry(device).or_default().clone()
    }

    /// Forgets copies that the cluster wants here no more, for as long as the node runs.
    pub async fn forget_unwanted(&self, control: &Control) {
        loop {
            sleep(LOOK_EVERY).await;
            // What was said before the newest state was asked for, was said by one who is in it.
            let held: Vec<_> = self.store.replicas().into_iter().map(|device| (device, self.copy(device))).collect();
            let heard: Vec<u64> = held.iter().map(|(_, copy)| copy.heard.load(SeqCst)).collect();
            if held.is_empty() {
                continue;
            }
            let Ok(state) = control.read(READ_LIMIT).await else { continue };
            let unwanted = held.into_iter().zip(heard).filter(|((device, _), _)| !wants(&state, control, *device));
            for ((device, copy), heard) in unwanted {
                let (mut arriving, store) = (copy.arriving.clone().lock_owned().await, self.store.clone());
                if copy.heard.load(SeqCst) != heard {
                    continue;
                }
                let forgotten = on(&*self.jobs, move || {
                    *arriving = Arriving::default();
                    store.forget_replica(device)
                });
                match forgotten.await {
                    Ok(()) => tracing::info!(device, "the copy of a device's checkpoints is wanted here no more"),
                    Err(why) => tracing::warn!(device, "the copy of a device's checkpoints cannot be removed: {why}"),
                }
            }
        }
    }
}

/// Whether a device's copy is to be on this node, or the device itself.
fn wants(state: &State, control: &Control, device: DeviceNumber) -> bool {
    let own = control.number() as NodeNumber;
    let wanted = |device: &ringhold_cluster::control::state::Device| {
        device.node == own || device.replicas.contains(&own) || device.in_sync.contains(&own)
    };
    state.devices.get(&device).is_some_and(wanted)
}

impl Arriving {
    /// Takes what one says who runs the device in this term.
    fn take(&mut self, store: &Checkpoints, device: DeviceNumber, term: u64, asked: Asked) -> Result<Copied, Error> {
        let Arriving { replica, adoption } = self;
        let replica = match replica {
            Some(replica) => replica,
            None => replica.insert(Replica::open(store, device)?),
        };
        let newest = replica.hear(term)?;
        let name = replica_name(device);
        match asked {
            Asked::Newest => Ok(newest.into()),
            Asked::Piece(bytes) => {
                let piece = Piece::from_bytes(&bytes)?;
                let epoch = piece.mark.epoch;
                let taken = replica.take(term, piece)?;
                match taken {
                    Taken::Whole => {
                        let manifest = store.chain(&name, epoch)?.remove(0);
                        store.forget_adoptions(&name, keeper::adopted(&store.about(&manifest)?))?;
                    }
                    Taken::Not { .. } => tracing::debug!(device, "what came of a checkpoint is not what comes next"),
                    Taken::Some => {}
                }
                Ok(taken.into())
            }
            Asked::Adoption { number, total, from, bytes } => {
                if from == 0 {
                    *adoption = (number, Vec::new());
                }
                if (adoption.0, adoption.1.len() as u64) != (number, from) {
                    return Ok(newest.into());
                }
                adoption.1.extend(bytes);
                if (adoption.1.len() as u64) < total {
                    return Ok(Copied::Some);
                }
                store.put_adoption(&name, number, &std::mem::take(&mut adoption.1))?;
                Ok(Copied::Whole)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ringhold_storage::blocks::InMemory;
    use ringhold_storage::checkpoints::{About, Options};

    use super::*;

    fn open() -> Checkpoints {
        Checkpoints::open(Arc::new(InMemory::default()), Options::default()).unwrap()
    }

    #[test]
    fn an_adoption_is_kept_once_it_is_whole_and_until_a_checkpoint_has_it() {
        let (own, there, mut arriving) = (open(), open(), Arriving::default());
        let mut take = |asked| arriving.take(&there, 5, 1, asked).unwrap();
        let bytes: Vec<u8> = (0..100_000u32).map(|i| i as u8).collect();
        let some = |number, from: usize, until: usize| Asked::Adoption {
            number,
            total: bytes.len() as u64,
            from: from as u64,
            bytes: bytes[from..until].to_vec(),
        };
        let held = || there.adoptions_after(&replica_name(5), 0).unwrap();
        assert_eq!(take(some(3, 60_000, 100_000)), Copied::Has(None), "its begin is missing");
        assert_eq!(take(some(3, 0, 60_000)), Copied::Some);
        assert_eq!(take(some(4, 60_000, 100_000)), Copied::Has(None), "it is another's");
        assert_eq!(take(some(3, 60_000, 80_000)), Copied::Some);
        assert!(held().is_empty());
        assert_eq!(take(some(3, 80_000, 100_000)), Copied::Whole);
        assert_eq!(held(), [(3, bytes.clone())]);
        let empty = Asked::Adoption { number: 4, total: 0, from: 0, bytes: Vec::new() };
        assert_eq!(take(empty), Copied::Whole);

        for (epoch, adopted, left) in [(1, 2u64, vec![3, 4]), (2, 3, vec![4]), (3, 4, vec![])] {
            let about = About { at_us: epoch, node: adopted.to_le_bytes().into(), ..About::default() };
            own.begin("cpu0", epoch, None).unwrap().commit(about).unwrap();
            let Copied::Has(newest) = take(Asked::Newest) else { panic!("it says what it has") };
            let newest = newest.map(|(epoch, at_us)| ringhold_storage::checkpoints::Mark { epoch, at_us });
            let piece = own.lacks("cpu0", newest).unwrap()[0].next(1 << 20).unwrap().unwrap();
            assert_eq!(take(Asked::Piece(piece.to_bytes())), Copied::Whole);
            let numbers: Vec<u64> = held().into_iter().map(|(number, _)| number).collect();
            assert_eq!(numbers, left);
        }
        let refused = arriving.take(&there, 5, 0, Asked::Newest).unwrap_err();
        assert!(matches!(refused, Error::OlderTerm { term: 0, heard: 1, .. }));
    }
}
