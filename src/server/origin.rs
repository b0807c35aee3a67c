//! Where somebody comes from, as far as sharing goes: an address with its neighbours, or a user of this host.
//!
//! Whoever has one address of IPv6 has the 64 bits behind it too, and often a whole site; so an origin has a neighbourhood,
//! which is looked at first. An address of IPv4 is a host, or many behind one; its neighbours are looked at where it makes no
//! difference otherwise, or a LAN would be the largest crowd. Leans on nothing. Refuses to tell connections of one origin apart.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::net::peer::Peer;

/// An address (of IPv6: the network of 64 bits that it is in), or a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    User(u32),
    Address(IpAddr),
}

impl Origin {
    pub(super) fn of(peer: &Peer) -> Self {
        match peer {
            Peer::Local(process) => Self::User(process.uid),
            Peer::Remote(address) => Self::Address(within(address.ip(), 32, 64)),
        }
    }

    /// The addresses around it: likely to be one owner's.
    fn neighbourhood(self) -> Self {
        match self {
            Self::User(_) => self,
            Self::Address(address) => Self::Address(within(address, 24, 48)),
        }
    }
}

/// The network of so many bits in which an address is.
fn within(address: IpAddr, of_4: u32, of_6: u32) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() & !low(32 - of_4) as u32).into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !low(128 - of_6)).into(),
    }
}

fn low(bits: u32) -> u128 {
    (1 << bits) - 1
}

/// How many there are of each origin.
#[derive(Debug, Default)]
pub(super) struct Tally {
    all: usize,
    near: BTreeMap<Origin, usize>,
    around: BTreeMap<Origin, usize>,
}

/// How many of one origin there are. In order: whose neighbourhood has less comes first, among neighbours who has less; of
/// IPv4 the other way round.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Count {
    first: usize,
    then: usize,
    pub(super) near: usize,
}

impl Count {
    /// Even if the other had one more.
    pub(super) fn is_well_above(self, other: Self) -> bool {
        self.first > other.first.saturating_add(1)
    }
}

impl Tally {
    pub(super) fn all(&self) -> usize {
        self.all
    }

    pub(super) fn of(&self, origin: Origin) -> Count {
        let number = |map: &BTreeMap<_, _>, key| map.get(&key).copied().unwrap_or_default();
        let (near, around) = (number(&self.near, origin), number(&self.around, origin.neighbourhood()));
        let (first, then) = match origin {
            Origin::Address(IpAddr::V4(_)) => (near, around),
            Origin::Address(IpAddr::V6(_)) | Origin::User(_) => (around, near),
        };
        Count { first, then, near }
    }

    pub(super) fn add(&mut self, origin: Origin) {
        self.all += 1;
        *self.near.entry(origin).or_default() += 1;
        *self.around.entry(origin.neighbourhood()).or_default() += 1;
    }

    /// One that was added goes.
    pub(super) fn remove(&mut self, origin: Origin) {
        self.all -= 1;
        for (map, key) in [(&mut self.near, origin), (&mut self.around, origin.neighbourhood())] {
            match map.get_mut(&key) {
                Some(number) if *number > 1 => *number -= 1,
                _ => _ = map.remove(&key),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> Origin {
        Origin::of(&Peer::Remote((address.parse::<IpAddr>().unwrap(), 7).into()))
    }

    #[test]
    fn what_one_holder_of_addresses_has_counts_as_one() {
        assert_eq!(at("2001:db8::1"), at("2001:db8::2:0:0:1"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
        assert_eq!(at("::ffff:192.0.2.1"), at("192.0.2.1"));
        assert_ne!(at("192.0.2.1"), at("192.0.2.2"));
        let [one, other] = [1, 2].map(|pid| Origin::of(&Peer::new(Some(pid), 1000, 0)));
        assert_eq!(one, other);
    }

    #[test]
    fn who_has_less_comes_first_and_neighbours_count_before_that_but_not_a_lan() {
        let mut tally = Tally::default();
        let site = ["2001:db8:1::1", "2001:db8:1:1::1", "2001:db8:1:2::1"].map(at);
        let [near, far, near_4, far_4] =
            ["2001:db8:1:3::1", "2001:db8:2::1", "192.0.2.7", "192.0.3.7"].map(at);
        site.into_iter().chain([at("192.0.2.1")]).for_each(|origin| tally.add(origin));
        let of = |origin| tally.of(origin);
        assert!(of(far) < of(near) && of(near) < of(site[0]), "{tally:?}");
        assert!(of(far_4) < of(near_4) && of(near_4) < of(at("192.0.2.1")));
        assert_eq!((tally.all(), of(site[1]).near, of(near).near), (4, 1, 0));
        site.into_iter().chain([at("192.0.2.1")]).for_each(|origin| tally.remove(origin));
        let lan = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5", "192.0.2.6"].map(at);
        let crowd = ["203.0.113.7"; 4].map(at);
        lan.into_iter().chain(crowd).for_each(|origin| tally.add(origin));
        assert!(tally.of(lan[0]) < tally.of(crowd[0]) && tally.of(crowd[0]).is_well_above(tally.of(lan[0])));
        lan.into_iter().chain(crowd).for_each(|origin| tally.remove(origin));
        assert!(tally.all() == 0 && tally.near.is_empty() && tally.around.is_empty(), "{tally:?}");
    }
}
