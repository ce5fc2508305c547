//! How often somebody may ask: by identity first, by address second, because a whole office shares one address. Pings
//! and the first hello of a connection count for the identity alone.
//!
//! A bucket holds the moment at which it is full again (the generic cell rate algorithm). A full bucket need not be
//! remembered, so the tables stay small: they forget full buckets, and strangers beyond their bound share one bucket.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use overlay_wire::signed::PublicKey;

/// The most identities, and the most addresses, that have buckets of their own.
const MAX_REMEMBERED: usize = 65_536;
/// How often a full table is looked through for buckets that are full.
const FORGET_EVERY: Duration = Duration::from_secs(1);

/// What is counted separately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Calls that read, and those that only keep the connection.
    LookUp,
    /// Calls that write records and messages.
    Write,
    /// Calls that replace a slot. An agent that moves has one for each of its peers.
    Slot,
}

/// So many per second, and so many at once after a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many per second, not 0.
    pub per_second: u32,
    /// How many at once, not below the dearest call.
    pub burst: u32,
}

/// The rates of one identity or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// For [`Class::LookUp`].
    pub look_ups: Rate,
    /// For [`Class::Write`].
    pub writes: Rate,
    /// For [`Class::Slot`].
    pub slots: Rate,
}

impl Rates {
    /// The rates of one identity.
    pub const IDENTITY: Self = Self {
        look_ups: Rate { per_second: 50, burst: 100 },
        writes: Rate { per_second: 1, burst: 20 },
        slots: Rate { per_second: 50, burst: 1_000 },
    };
    /// The rates of one address: those of sixteen identities.
    pub const ADDRESS: Self = Self {
        look_ups: Rate { per_second: 800, burst: 1_600 },
        writes: Rate { per_second: 16, burst: 320 },
        slots: Rate { per_second: 800, burst: 16_000 },
    };

    fn of(&self, class: Class) -> Rate {
        match class {
            Class::LookUp => self.look_ups,
            Class::Write => self.writes,
            Class::Slot => self.slots,
        }
    }
}

/// The error for a caller that asks too often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exceeded {
    /// Whether it is the address that is over its rate, and not the identity.
    pub(crate) is_address: bool,
    /// After this time the same call would be taken.
    pub(crate) wait: Duration,
}

/// The buckets of everybody.
#[derive(Debug)]
pub(crate) struct Quotas {
    identities: Table<PublicKey>,
    addresses: Table<IpAddr>,
}

impl Quotas {
    pub(crate) fn new(identity: Rates, address: Rates) -> Self {
        Self { identities: Table::new(identity), addresses: Table::new(address) }
    }

    /// Takes `cost` from the buckets of both, or from neither.
    pub(crate) fn take(
        &mut self,
        identity: &PublicKey,
        address: IpAddr,
        (class, cost): (Class, u32),
        now: Duration,
    ) -> Result<(), Exceeded> {
        let address = network_of(address);
        let by_identity = self.identities.after(identity, class, cost, now);
        let full_at = by_identity.map_err(|wait| Exceeded { is_address: false, wait })?;
        let by_address = self.addresses.after(&address, class, cost, now);
        let address_full_at = by_address.map_err(|wait| Exceeded { is_address: true, wait })?;
        self.identities.set(*identity, class, full_at, now);
        self.addresses.set(address, class, address_full_at, now);
        Ok(())
    }

    /// Takes `cost` from the bucket of the identity alone: nobody behind the same address can take this away from it.
    pub(crate) fn take_of_identity(
        &mut self,
        identity: &PublicKey,
        (class, cost): (Class, u32),
        now: Duration,
    ) -> Result<(), Exceeded> {
        let by_identity = self.identities.after(identity, class, cost, now);
        let full_at = by_identity.map_err(|wait| Exceeded { is_address: false, wait })?;
        self.identities.set(*identity, class, full_at, now);
        Ok(())
    }
}

/// The buckets of strangers, of whom only the address is known. Strangers beyond the bound of the table share one bucket.
#[derive(Debug)]
pub(crate) struct AddressQuota(Table<IpAddr>);

impl AddressQuota {
    pub(crate) fn new(rate: Rate) -> Self {
        Self(Table::new(Rates { look_ups: rate, writes: rate, slots: rate }))
    }

    /// Takes one from the bucket of the address, and returns whether it was there.
    pub(crate) fn take(&mut self, address: IpAddr, now: Duration) -> bool {
        let address = network_of(address);
        let full_at = self.0.after(&address, Class::LookUp, 1, now);
        full_at.map(|full_at| self.0.set(address, Class::LookUp, full_at, now)).is_ok()
    }
}

/// When the bucket of each class is full again.
type Buckets = [Duration; 3];

#[derive(Debug)]
struct Table<K> {
    rates: Rates,
    buckets: BTreeMap<K, Buckets>,
    /// The bucket of everybody for whom there is no room.
    shared: Buckets,
    forgot: Duration,
}

impl<K: Ord> Table<K> {
    fn new(rates: Rates) -> Self {
        Self { rates, buckets: BTreeMap::new(), shared: Buckets::default(), forgot: Duration::ZERO }
    }

    /// When the bucket would be full again after `cost` was taken, or how long to wait until it can be.
    fn after(&self, key: &K, class: Class, cost: u32, now: Duration) -> Result<Duration, Duration> {
        let rate = self.rates.of(class);
        let interval = Duration::from_secs(1) / rate.per_second.max(1);
        let is_full = self.buckets.len() >= MAX_REMEMBERED;
        let found = self.buckets.get(key).unwrap_or(if is_full { &self.shared } else { &[Duration::ZERO; 3] });
        let full_at = found[class as usize].max(now) + interval * cost;
        let over = full_at.saturating_sub(now + interval * rate.burst.max(cost));
        if over.is_zero() { Ok(full_at) } else { Err(over) }
    }

    fn set(&mut self, key: K, class: Class, full_at: Duration, now: Duration) {
        if self.buckets.len() >= MAX_REMEMBERED && now >= self.forgot + FORGET_EVERY {
            self.forgot = now;
            self.buckets.retain(|_, buckets| buckets.iter().any(|full_at| *full_at > now));
        }
        let has_room = self.buckets.len() < MAX_REMEMBERED || self.buckets.contains_key(&key);
        let buckets = if has_room { self.buckets.entry(key).or_default() } else { &mut self.shared };
        buckets[class as usize] = full_at;
    }
}

/// An IPv4 address, or the /64 of an IPv6 address, of which one host has all.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn identity(n: u32) -> PublicKey {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&n.to_be_bytes());
        PublicKey(key)
    }

    #[test]
    fn a_burst_is_followed_by_the_rate() {
        let mut quotas = Quotas::new(Rates::IDENTITY, Rates::ADDRESS);
        let now = Duration::from_secs(5);
        for _ in 0..20 {
            assert_eq!(quotas.take(&identity(1), HERE, (Class::Write, 1), now), Ok(()));
        }
        let refused = quotas.take(&identity(1), HERE, (Class::Write, 1), now);
        assert_eq!(refused, Err(Exceeded { is_address: false, wait: Duration::from_secs(1) }));
        assert_eq!(quotas.take(&identity(1), HERE, (Class::LookUp, 1), now), Ok(()), "classes are separate");
        let later = now + Duration::from_secs(1);
        assert_eq!(quotas.take(&identity(1), HERE, (Class::Write, 1), later), Ok(()));
        assert!(quotas.take(&identity(1), HERE, (Class::Write, 1), later).is_err());
    }

    #[test]
    fn an_address_has_the_rates_of_sixteen_identities() {
        let mut quotas = Quotas::new(Rates::IDENTITY, Rates::ADDRESS);
        let take =
            |quotas: &mut Quotas, n, address| quotas.take(&identity(n), address, (Class::Write, 1), Duration::ZERO);
        for n in 0..320 {
            assert_eq!(take(&mut quotas, n / 20, HERE), Ok(()));
        }
        assert!(take(&mut quotas, 16, HERE).is_err_and(|exceeded| exceeded.is_address));
        let six = |low: u128| IpAddr::V6(((0x2001_0db8 << 96) + low).into());
        for n in 0..320 {
            assert_eq!(take(&mut quotas, 100 + n, six(u128::from(n))), Ok(()));
        }
        assert!(take(&mut quotas, 999, six(999)).is_err(), "a /64 is one address");
        assert_eq!(take(&mut quotas, 999, six(1 << 64)), Ok(()));
    }

    #[test]
    fn the_tables_are_bounded_and_forget_full_buckets() {
        let rates = Rates { writes: Rate { per_second: 1_000_000, burst: 1_000_000 }, ..Rates::IDENTITY };
        let mut quotas = Quotas::new(Rates::IDENTITY, rates);
        for n in 0..MAX_REMEMBERED as u32 + 20 {
            assert_eq!(quotas.take(&identity(n), HERE, (Class::Write, 1), Duration::ZERO), Ok(()));
        }
        assert_eq!(quotas.identities.buckets.len(), MAX_REMEMBERED);
        let refused = quotas.take(&identity(u32::MAX), HERE, (Class::Write, 1), Duration::ZERO);
        assert!(refused.is_err(), "strangers beyond the bound share one bucket");
        assert_eq!(quotas.take(&identity(u32::MAX), HERE, (Class::Write, 1), Duration::from_secs(2)), Ok(()));
        assert!(quotas.identities.buckets.len() < 3);
    }
}
