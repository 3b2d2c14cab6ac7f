//! A device that is not the node's any more.

use super::layout::manifest_key;
use super::{Checkpoints, Error, Kept, Loose, hold};

impl Checkpoints {
    /// Forgets all checkpoints of a device, and what it was to take in: it runs elsewhere, from what is there. A device of the same name
    /// begins with nothing.
    pub fn forget_device(&self, device: &str) -> Result<(), Error> {
        let store = &*self.0;
        {
            let _manifests = hold(&store.manifests);
            let known = hold(&store.state).devices.get(device).map(|known| known.epochs.keys().copied().collect());
            let epochs: Vec<u64> = known.unwrap_or_default();
            // The newest first: what is left if this is broken off stands on nothing that is gone.
            for epoch in epochs.into_iter().rev() {
                store.blocks.remove(&manifest_key(device, epoch))?;
                let mut state = hold(&store.state);
                let removed = state.devices.get_mut(device).and_then(|known| known.epochs.remove(&epoch));
                state.loose.extend(removed.and_then(|kept: Kept| kept.manifest).map(Loose::from));
            }
            hold(&store.state).devices.remove(device);
        }
        self.forget_adoptions(device, u64::MAX)?;
        store.blocks.sync()?;
        store.sweep(u64::MAX)
    }
}
