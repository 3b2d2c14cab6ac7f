//! Shards that move between devices: which device has which, and what has moved and is in no checkpoint of its new device yet.
//!
//! An *adoption* is what a device is to take in beside its last checkpoint. It is durable before the table says that the
//! shards are that device's, and is forgotten once a durable checkpoint of the device has it.

use super::layout::{CHUNK_BYTES, Reader, carried, empty_chunk, seal, unseal};
use super::{Checkpoints, Damage, Error, Store, keys};

/// Which device has a shard, by its place among the devices, and in which term: the first owner's is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ownership {
    pub device: u16,
    pub term: u32,
}

const TABLE_KEY: &[u8] = b"s";
/// The number of an adoption's last key, behind those of its chunks.
const HEAD: u32 = u32::MAX;

impl Checkpoints {
    /// Which device has each shard; `None` where none was ever moved.
    ///
    /// # Errors
    /// Where the disk fails, or the table is damaged: nothing says then who has what.
    pub fn shard_table(&self) -> Result<Option<Vec<Ownership>>, Error> {
        let Some(value) = self.0.blocks.get(TABLE_KEY)? else { return Ok(None) };
        let held = unseal(TABLE_KEY, &value).map_err(|what| Error::ShardTable(format!("it {what}")))?;
        let mut from = Reader(held);
        let mut table = Vec::new();
        while !from.0.is_empty() {
            let read = (from.u16(), from.u32());
            let (Some(device), Some(term)) = read else { return Err(Error::ShardTable("it is cut short".into())) };
            table.push(Ownership { device, term });
        }
        Ok(Some(table))
    }

    /// Says which device has each shard, as a whole: durable once this has returned. Where it fails, the table may be either.
    pub fn set_shard_table(&self, table: &[Ownership]) -> Result<(), Error> {
        let mut value = empty_chunk();
        for Ownership { device, term } in table {
            value.extend(device.to_le_bytes());
            value.extend(term.to_le_bytes());
        }
        assert!(carried(&value) <= CHUNK_BYTES, "{} shards fit no value", table.len());
        seal(TABLE_KEY, &mut value);
        let reopened = self.0.blocks.reopened();
        self.0.blocks.put(TABLE_KEY, &value)?;
        self.0.blocks.sync()?;
        self.0.check_open(reopened)
    }

    /// Keeps what a device is to take in, under a number that grows: durable once this has returned. Of those that the device
    /// has, all from this number on are forgotten.
    pub fn put_adoption(&self, device: &str, number: u64, bytes: &[u8]) -> Result<(), Error> {
        let store = &*self.0;
        let reopened = store.blocks.reopened();
        for stale in store.adoptions(device)?.into_iter().filter(|stale| *stale >= number) {
            store.remove_adoption(device, stale)?;
        }
        let mut chunks = 0;
        for (chunk, bytes) in (0u32..).zip(bytes.chunks(CHUNK_BYTES)) {
            let (key, mut value) = (key(device, number, chunk), empty_chunk());
            value.extend(bytes);
            seal(&key, &mut value);
            store.blocks.put(&key, &value)?;
            chunks = chunk + 1;
        }
        store.blocks.sync()?;
        store.check_open(reopened)?;
        let (key, mut value) = (key(device, number, HEAD), empty_chunk());
        value.extend(chunks.to_le_bytes());
        seal(&key, &mut value);
        store.blocks.put(&key, &value)?;
        store.blocks.sync()?;
        store.check_open(reopened)
    }

    /// What a device is to take in beside a checkpoint that has the adoptions up to this number, in their order.
    ///
    /// # Errors
    /// Where the disk fails, or one is damaged.
    pub fn adoptions_after(&self, device: &str, number: u64) -> Result<Vec<(u64, Vec<u8>)>, Error> {
        let numbers = self.0.adoptions(device)?.into_iter().filter(|found| *found > number);
        numbers
            .filter_map(|number| self.0.adoption(device, number).transpose().map(|read| Ok((number, read?))))
            .collect()
    }

    /// Forgets the adoptions of a device up to this number.
    pub fn forget_adoptions(&self, device: &str, number: u64) -> Result<(), Error> {
        for old in self.0.adoptions(device)?.into_iter().filter(|found| *found <= number) {
            self.0.remove_adoption(device, old)?;
        }
        Ok(())
    }

    /// Forgets one adoption of a device.
    pub fn forget_adoption(&self, device: &str, number: u64) -> Result<(), Error> {
        self.0.remove_adoption(device, number)
    }
}

impl Store {
    /// The numbers of the adoptions of which there is anything, in their order.
    fn adoptions(&self, device: &str) -> Result<Vec<u64>, Error> {
        let mut numbers = Vec::new();
        for key in keys(&*self.blocks, &prefix(device)) {
            let key = key?;
            let number = key[prefix(device).len()..].first_chunk().map(|number| u64::from_be_bytes(*number));
            let number = number.ok_or_else(|| Error::Foreign("a key that is none".into()))?;
            if numbers.last() != Some(&number) {
                numbers.push(number);
            }
        }
        Ok(numbers)
    }

    /// `None` where it never was whole.
    fn adoption(&self, device: &str, number: u64) -> Result<Option<Vec<u8>>, Error> {
        let damage = |what: String| Damage {
            device: device.into(),
            epoch: 0,
            what: format!("what moved to it with number {number} {what}"),
        };
        let head = key(device, number, HEAD);
        let Some(value) = self.blocks.get(&head)? else { return Ok(None) };
        let held = unseal(&head, &value).map_err(damage)?;
        let chunks = Reader(held).u32().ok_or_else(|| damage("is cut short".into()))?;
        let mut bytes = Vec::new();
        for chunk in 0..chunks {
            let key = key(device, number, chunk);
            let value = self.blocks.get(&key)?.ok_or_else(|| damage(format!("lacks chunk {chunk}")))?;
            bytes.extend(unseal(&key, &value).map_err(damage)?);
        }
        Ok(Some(bytes))
    }

    /// The head first: what is left of it then is nothing.
    fn remove_adoption(&self, device: &str, number: u64) -> Result<(), Error> {
        let head = key(device, number, HEAD);
        if self.blocks.get(&head)?.is_some() {
            self.blocks.remove(&head)?;
            self.blocks.sync()?;
        }
        let first = key(device, number, 0);
        let of = &first[..first.len() - 4];
        for key in keys(&*self.blocks, of).collect::<Result<Vec<_>, _>>()? {
            self.blocks.remove(&key)?;
        }
        Ok(())
    }
}

fn prefix(device: &str) -> Vec<u8> {
    [b"a", device.as_bytes(), b"\0"].concat()
}

fn key(device: &str, number: u64, chunk: u32) -> Vec<u8> {
    [&prefix(device)[..], &number.to_be_bytes(), &chunk.to_be_bytes()].concat()
}
