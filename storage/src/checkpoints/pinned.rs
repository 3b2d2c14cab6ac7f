//! A device's checkpoint as a backup takes it: read at leisure while the device goes on, and checked as it is read again.

use std::collections::VecDeque;

use super::layout::Reader;
use super::{About, Checkpoints, Error, Mark, Piece, Sending, Type};
use crate::blocks::hold;

/// A device's newest checkpoint with all that it stands on, and what the device is to take in beside it. Nothing of it is removed as
/// long as this is there, whatever becomes of the device; it is nothing that a process leaves behind.
pub struct Pinned {
    mark: Option<Mark>,
    bytes: u64,
    sendings: VecDeque<Sending>,
    adoptions: VecDeque<(u64, Vec<u8>)>,
}

/// Some of it, in the order in which it is to be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// Of a checkpoint.
    Piece(Piece),
    /// Of what the device is to take in beside it, because shards have moved to it.
    Adoption { number: u64, last: bool, bytes: Vec<u8> },
}

const PIECE: u8 = 0;
const ADOPTION: u8 = 1;

impl Item {
    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            Item::Piece(piece) => [&[PIECE][..], &piece.to_bytes()].concat(),
            Item::Adoption { number, last, bytes } => {
                [&[ADOPTION][..], &number.to_le_bytes(), &[u8::from(*last)], bytes].concat()
            }
        }
    }

    /// # Errors
    /// Where the bytes are not what [`Item::to_bytes`] made.
    pub fn from_bytes(bytes: &[u8]) -> Result<Item, Error> {
        let bad = || Error::Piece("are none of a backup".into());
        match bytes.split_first().ok_or_else(bad)? {
            (&PIECE, piece) => Piece::from_bytes(piece).map(Item::Piece),
            (&ADOPTION, rest) => {
                let mut from = Reader(rest);
                let mut head = || Some((from.u64()?, from.take(1)?[0] == 1));
                let (number, last) = head().ok_or_else(bad)?;
                Ok(Item::Adoption { number, last, bytes: from.0.to_vec() })
            }
            _ => Err(bad()),
        }
    }
}

impl Checkpoints {
    /// Pins a device's newest checkpoint, but for those that are known to be damaged: the one from which the device would recover now.
    ///
    /// # Errors
    /// Where the disk fails, or what the device is to take in is damaged.
    pub fn pin(&self, device: &str) -> Result<Pinned, Error> {
        let chain = {
            let state = hold(&self.0.state);
            let epochs = state.devices.get(device).into_iter().flat_map(|device| device.epochs.keys().rev());
            epochs.copied().find_map(|epoch| state.chain(device, epoch).ok()).unwrap_or_default()
        };
        let adoptions: VecDeque<_> = self.adoptions_after(device, 0)?.into();
        let carried: u64 = adoptions.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        Ok(Pinned {
            mark: chain.first().map(|manifest| Mark::of(manifest)),
            bytes: chain.iter().map(|manifest| manifest.bytes()).sum::<u64>() + carried,
            sendings: self.sendings(&chain, None, None).into(),
            adoptions,
        })
    }
}

impl Pinned {
    /// Which checkpoint it is; `None` where the device has none.
    pub fn mark(&self) -> Option<Mark> {
        self.mark
    }

    /// Of all of it.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The next item, of about so many bytes; `None` after the last.
    ///
    /// # Errors
    /// Where the checkpoint is damaged, or the disk fails.
    pub fn next(&mut self, bytes: usize) -> Result<Option<Item>, Error> {
        while let Some(sending) = self.sendings.front_mut() {
            if let Some(piece) = sending.next(bytes)? {
                return Ok(Some(Item::Piece(piece)));
            }
            self.sendings.pop_front();
        }
        let Some((number, left)) = self.adoptions.front_mut() else { return Ok(None) };
        let rest = left.split_off(left.len().min(bytes));
        let item = Item::Adoption { number: *number, last: rest.is_empty(), bytes: std::mem::replace(left, rest) };
        if left.is_empty() {
            self.adoptions.pop_front();
        }
        Ok(Some(item))
    }
}

/// Follows the items of a device, and says whether they are all of it, in their order.
#[derive(Default)]
pub struct Following {
    newest: Option<Mark>,
    /// The checkpoint of which some has come, the number of its next piece, and its bytes so far.
    open: Option<(Mark, u32, u64)>,
    about: Vec<u8>,
    adopting: bool,
    /// The actor types of all checkpoints.
    types: Vec<Type>,
}

impl Following {
    /// The next item.
    ///
    /// # Errors
    /// Where it is not what comes next.
    pub fn take(&mut self, item: &Item) -> Result<(), Error> {
        let other = || Error::Piece("are not in their order, or some are missing".into());
        let piece = match item {
            Item::Adoption { last, .. } if self.open.is_none() => {
                self.adopting = !last;
                return Ok(());
            }
            Item::Piece(piece) if !self.adopting => piece,
            _ => return Err(other()),
        };
        let follows = piece.after == self.newest && piece.base.is_none_or(|base| Some(base) == self.newest);
        let (mark, next, before) = self.open.take().unwrap_or((piece.mark, 0, 0));
        if !follows || (mark, next) != (piece.mark, piece.number) {
            return Err(other());
        }
        for (_, about) in piece.parts.iter().filter(|(part, _)| *part == super::ABOUT) {
            self.about.extend(about);
        }
        let bytes = before + piece.parts.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
        if !piece.last {
            self.open = Some((mark, next + 1, bytes));
            return Ok(());
        }
        if bytes != piece.bytes {
            return Err(other());
        }
        let about = About::from_bytes(mark.at_us, piece.lanes, &std::mem::take(&mut self.about));
        self.types.extend(about.ok_or_else(|| Error::Piece("say nothing about a checkpoint".into()))?.types);
        self.newest = Some(mark);
        Ok(())
    }

    /// Which checkpoint it was, and the actor types of it and of all that it stands on.
    ///
    /// # Errors
    /// Where something is missing.
    pub fn end(self) -> Result<(Option<Mark>, Vec<Type>), Error> {
        match self.open.is_none() && !self.adopting {
            true => Ok((self.newest, self.types)),
            false => Err(Error::Piece("end before the last".into())),
        }
    }
}
