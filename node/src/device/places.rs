//! The devices that a node runs, by their places.

use std::ops::Index;
use std::sync::atomic::{AtomicUsize, Ordering::Acquire, Ordering::Release};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::Device;

/// Devices that a node runs at most, those counted that have come to it since it was started and those that it runs no more.
pub const PLACES_MAX: usize = 256;

/// The devices that a node runs, by their places: the first has place 0. It grows while the node runs, and nothing of it goes, so
/// that a place means the same device for as long as the node lives. A look costs two loads.
pub struct Places {
    places: Box<[OnceLock<Arc<Device>>; PLACES_MAX]>,
    len: AtomicUsize,
    /// Held while one is added.
    adding: Mutex<()>,
}

/// A node runs as many devices as it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node has had {PLACES_MAX} devices since it was started, and can run no other: start it again")]
pub struct NoPlace;

impl Places {
    /// # Panics
    /// Where there are more than [`PLACES_MAX`].
    pub fn new(devices: impl IntoIterator<Item = Arc<Device>>) -> Places {
        let places = Places {
            places: Box::new([const { OnceLock::new() }; PLACES_MAX]),
            len: AtomicUsize::new(0),
            adding: Mutex::default(),
        };
        devices.into_iter().for_each(|device| places.add(device).expect("no node has so many"));
        places
    }

    /// The place that the next one gets.
    ///
    /// # Errors
    /// There is none.
    pub fn next(&self) -> Result<u16, NoPlace> {
        let place = self.len();
        if place < PLACES_MAX { Ok(place as u16) } else { Err(NoPlace) }
    }

    /// Adds a device at the next place, for which it was made.
    ///
    /// # Errors
    /// There is no place.
    ///
    /// # Panics
    /// If it was made for another.
    pub fn add(&self, device: Arc<Device>) -> Result<(), NoPlace> {
        let _one = self.adding.lock();
        let place = self.next()?;
        assert_eq!(device.index, place, "it has the place that it was made for");
        // Nobody else adds one.
        let _ = self.places[usize::from(place)].set(device);
        self.len.store(usize::from(place) + 1, Release);
        Ok(())
    }

    pub fn len(&self) -> usize {
        self.len.load(Acquire)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn iter(&self) -> <&Places as IntoIterator>::IntoIter {
        self.into_iter()
    }
}

impl Index<usize> for Places {
    type Output = Arc<Device>;

    #[inline(always)]
    fn index(&self, place: usize) -> &Arc<Device> {
        self.places[place].get().expect("a shard is of a device that is there")
    }
}

impl<'a> IntoIterator for &'a Places {
    type Item = &'a Arc<Device>;
    type IntoIter = std::iter::FilterMap<
        std::slice::Iter<'a, OnceLock<Arc<Device>>>,
        fn(&'a OnceLock<Arc<Device>>) -> Option<&'a Arc<Device>>,
    >;

    fn into_iter(self) -> Self::IntoIter {
        self.places[..self.len()].iter().filter_map(OnceLock::get)
    }
}
