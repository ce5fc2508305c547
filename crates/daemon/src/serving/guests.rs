//! A bounded number of connections for users who may only read, and a share of it for each of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts the connections of each user.
#[derive(Debug)]
pub(crate) struct Guests {
    limit: usize,
    limit_of_one: usize,
    present: Arc<Mutex<HashMap<u32, usize>>>,
}

/// A counted connection. Dropping it ends the count.
#[derive(Debug)]
pub(crate) struct Guest {
    user: u32,
    present: Arc<Mutex<HashMap<u32, usize>>>,
}

impl Guests {
    /// Admits `limit` connections at once, and `limit_of_one` of the same user.
    pub(crate) fn new(limit: usize, limit_of_one: usize) -> Self {
        Self { limit, limit_of_one, present: Arc::default() }
    }

    /// Counts a connection of this user. Returns `None` if it is one too many.
    pub(crate) fn admit(&self, user: u32) -> Option<Guest> {
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        let of_one = present.get(&user).copied().unwrap_or_default();
        if of_one >= self.limit_of_one || present.values().sum::<usize>() >= self.limit {
            return None;
        }
        present.insert(user, of_one + 1);
        Some(Guest { user, present: Arc::clone(&self.present) })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = present.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                present.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_user_has_a_share_and_all_together_have_a_bound() {
        let guests = Guests::new(5, 2);
        let mut first: Vec<_> = (0..3).map(|_| guests.admit(1)).collect();
        assert_eq!(first.iter().flatten().count(), 2);
        let others: Vec<_> = [2, 2, 3, 4].map(|user| guests.admit(user)).into();
        assert_eq!(others.iter().flatten().count(), 3, "five in all");
        first.clear();
        assert!(guests.admit(4).is_some(), "what has ended counts no more");
        drop(others);
        assert!(guests.present.lock().expect("no panic").is_empty());
    }
}
