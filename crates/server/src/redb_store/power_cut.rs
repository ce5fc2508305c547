//! A disk in memory whose power can be cut. What was not synced is then lost or torn.
//!
//! The page cache survives the end of a process, so killing one proves nothing about a disk.

use std::io::{Error, Result};
use std::sync::{Arc, Mutex, MutexGuard};

use rand_chacha::ChaCha8Rng;
use rand_core::RngCore;

/// What a disk writes as a whole.
const SECTOR_LEN: usize = 512;

/// The disk. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// What readers see while there is power.
    cached: Vec<u8>,
    /// What was synced.
    synced: Vec<u8>,
    /// What was written since, in order.
    unsynced: Vec<Change>,
    /// How many more changes and syncs happen before the power is cut.
    remaining: Option<u64>,
    /// How many changes and syncs there were.
    count: u64,
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    SetLen(usize),
}

impl Disk {
    /// A disk with these contents.
    pub(super) fn with(contents: Vec<u8>) -> Self {
        let state = State { cached: contents.clone(), synced: contents, ..State::default() };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Cuts the power after this many further changes and syncs.
    pub(super) fn cut_after(&self, count: u64) {
        self.state().remaining = Some(count);
    }

    /// How many changes and syncs there were.
    pub(super) fn count(&self) -> u64 {
        self.state().count
    }

    /// What is on the disk once the power is back: everything synced, and of the rest any sectors.
    pub(super) fn after_power_cut(&self, rng: &mut ChaCha8Rng) -> Vec<u8> {
        let state = self.state();
        let mut contents = state.synced.clone();
        // Often everything or nothing of the cache arrives. Such disks are tried as well as arbitrary ones.
        let mode = rng.next_u32() % 4;
        let mut is_kept = || match mode {
            0 => false,
            1 => true,
            _ => rng.next_u32().is_multiple_of(2),
        };
        for change in &state.unsynced {
            match change {
                Change::SetLen(len) if is_kept() => contents.resize(*len, 0),
                Change::SetLen(_) => {}
                Change::Write { offset, bytes } => {
                    let mut at = *offset;
                    let mut rest = &bytes[..];
                    while !rest.is_empty() {
                        let len = (SECTOR_LEN - at % SECTOR_LEN).min(rest.len());
                        let (sector, behind) = rest.split_at(len);
                        if is_kept() {
                            contents.resize(contents.len().max(at + len), 0);
                            contents[at..at + len].copy_from_slice(sector);
                        }
                        (at, rest) = (at + len, behind);
                    }
                }
            }
        }
        contents
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl State {
    /// Counts a change or a sync, which fails once the power is cut.
    fn step(&mut self) -> Result<()> {
        match &mut self.remaining {
            Some(0) => return Err(Error::other("the power is cut")),
            Some(remaining) => *remaining -= 1,
            None => {}
        }
        self.count += 1;
        Ok(())
    }

    fn apply(contents: &mut Vec<u8>, change: &Change) {
        match change {
            Change::SetLen(len) => contents.resize(*len, 0),
            Change::Write { offset, bytes } => {
                contents.resize(contents.len().max(offset + bytes.len()), 0);
                contents[*offset..offset + bytes.len()].copy_from_slice(bytes);
            }
        }
    }

    fn change(&mut self, change: Change) -> Result<()> {
        // The write during which the power goes may reach the disk in part.
        let is_cut = self.step();
        Self::apply(&mut self.cached, &change);
        self.unsynced.push(change);
        is_cut
    }
}

impl redb::StorageBackend for Disk {
    fn len(&self) -> Result<u64> {
        Ok(self.state().cached.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let state = self.state();
        let offset = offset as usize;
        let found = state.cached.get(offset..offset + out.len()).ok_or_else(|| Error::other("behind the end"))?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.state().change(Change::SetLen(len as usize))
    }

    fn sync_data(&self) -> Result<()> {
        let mut state = self.state();
        state.step()?;
        for change in std::mem::take(&mut state.unsynced) {
            State::apply(&mut state.synced, &change);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.state().change(Change::Write { offset: offset as usize, bytes: data.to_vec() })
    }
}
