//! The table by example, and against a list that is searched from end to end.

use proptest::prelude::*;

use super::*;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn table(entries: &[(&str, u32)]) -> AllowedIps<u32> {
    let mut table = AllowedIps::new();
    for &(prefix, owner) in entries {
        assert_eq!(table.insert(net(prefix), owner), None, "{prefix}");
    }
    table
}

#[test]
fn the_most_specific_prefix_decides() {
    let table = table(&[
        ("0.0.0.0/0", 1),
        ("10.0.0.0/8", 2),
        ("10.77.0.0/24", 3),
        ("10.77.0.2/32", 4),
        ("::/0", 5),
        ("fd00::/8", 6),
        ("fd00::2/128", 7),
    ]);
    for (address, owner) in [
        ("192.0.2.1", 1),
        ("255.255.255.255", 1),
        ("10.255.0.1", 2),
        ("10.77.0.1", 3),
        ("10.77.0.2", 4),
        ("10.77.0.3", 3),
        ("10.77.1.2", 2),
        ("2001:db8::1", 5),
        ("fd00::1", 6),
        ("fd00::2", 7),
        ("fd00::3", 6),
    ] {
        assert_eq!(table.lookup(ip(address)), Some(owner), "{address}");
    }
}

#[test]
fn a_prefix_that_is_too_short_does_not_count_and_hides_nobody() {
    let table = table(&[("::/0", 1), ("fe80::/10", 2), ("fe80::9/128", 3), ("0.0.0.0/0", 4), ("169.254.7.0/24", 5)]);
    for (address, bits, owner) in [
        ("fe80::9", 10, Some(3)),
        ("fe80::8", 10, Some(2)),
        ("fe80::8", 11, None),
        ("fec0::8", 10, None),
        ("fec0::8", 0, Some(1)),
        ("169.254.7.1", 16, Some(5)),
        ("169.254.8.1", 16, None),
    ] {
        assert_eq!(table.lookup_at_least(ip(address), bits), owner, "{address} {bits}");
    }
}

#[test]
fn an_address_in_no_prefix_has_no_owner() {
    let table = table(&[("10.77.0.0/24", 1), ("fd00::2/128", 2)]);
    for address in ["10.77.1.0", "10.76.255.255", "0.0.0.0", "fd00::1", "::"] {
        assert_eq!(table.lookup(ip(address)), None, "{address}");
    }
    assert_eq!(AllowedIps::<u32>::new().lookup(ip("10.77.0.1")), None);
}

#[test]
fn bits_behind_the_prefix_length_are_ignored() {
    let mut table = AllowedIps::new();
    assert_eq!(table.insert(net("10.77.0.9/24"), 1), None);
    assert_eq!(table.lookup(ip("10.77.0.200")), Some(1));
    assert_eq!(table.insert(net("10.77.0.0/24"), 2), Some(1));
    assert!(table.remove(&net("10.77.0.77/24"), 2));
    assert_eq!(table.entries().count(), 0);
}

#[test]
fn a_prefix_that_is_inserted_again_moves_to_its_new_owner() {
    let mut table = table(&[("10.77.0.2/32", 1), ("10.78.0.0/16", 1), ("fd00::/64", 1), ("fd00::1/128", 1)]);
    for (prefix, address) in [
        ("10.77.0.2/32", "10.77.0.2"),
        ("10.78.0.0/16", "10.78.3.4"),
        ("fd00::/64", "fd00::9"),
        ("fd00::1/128", "fd00::1"),
    ] {
        assert_eq!(table.insert(net(prefix), 2), Some(1));
        assert_eq!(table.lookup(ip(address)), Some(2));
        assert!(!table.remove(&net(prefix), 1), "the old owner takes nothing away from the new one");
        assert_eq!(table.lookup(ip(address)), Some(2));
    }
}

#[test]
fn a_removed_prefix_uncovers_the_one_around_it() {
    let mut table = table(&[("10.0.0.0/8", 1), ("10.77.0.0/24", 2), ("10.77.0.2/32", 3)]);
    assert!(table.remove(&net("10.77.0.2/32"), 3));
    assert_eq!(table.lookup(ip("10.77.0.2")), Some(2));
    assert!(table.remove(&net("10.77.0.0/24"), 2));
    assert_eq!(table.lookup(ip("10.77.0.2")), Some(1));
    assert!(!table.remove(&net("10.77.0.0/24"), 2), "once only");
    assert!(!table.remove(&net("10.0.0.0/9"), 1), "only exactly this prefix");
}

#[test]
fn an_ipv4_mapped_address_is_ipv6() {
    let table = table(&[("10.77.0.2/32", 1), ("0.0.0.0/0", 1)]);
    assert_eq!(table.lookup(ip("::ffff:10.77.0.2")), None);
}

#[test]
fn neighbouring_addresses_hash_apart() {
    // A configuration typically holds consecutive addresses: no bucket of a half-full table may attract many of them.
    let mut buckets = [0u8; 2048];
    for host in 0..1024 {
        let mut hasher = AddressHasher::default();
        Ipv4Addr::from_bits(0x0a4d_0000 + host).hash(&mut hasher);
        buckets[hasher.finish() as usize % 2048] += 1;
    }
    assert!(buckets.iter().all(|&n| n <= 8), "{}", buckets.iter().max().unwrap());
}

fn any_net() -> impl Strategy<Value = IpNet> {
    // Few distinct addresses, so that prefixes nest and collide.
    prop_oneof![
        (0u32..16, 0u8..=32)
            .prop_map(|(n, len)| { Ipv4Net::new(Ipv4Addr::from_bits(0x0a00_0000 | n | n << 20), len).unwrap().into() }),
        (0u128..16, 0u8..=128)
            .prop_map(|(n, len)| { Ipv6Net::new(Ipv6Addr::from_bits(0xfd << 120 | n | n << 62), len).unwrap().into() }),
    ]
}

proptest! {
    #[test]
    fn it_agrees_with_a_list_that_is_searched_from_end_to_end(
        steps in prop::collection::vec((any_net(), 0u32..4, 0u8..10), 1..60),
    ) {
        let mut table = AllowedIps::new();
        let mut list: Vec<(IpNet, u32)> = Vec::new();
        for (prefix, owner, action) in steps {
            let prefix = prefix.trunc();
            let owned = list.iter().find(|entry| entry.0 == prefix).map(|entry| entry.1);
            match action {
                0..=2 => {
                    prop_assert_eq!(table.remove(&prefix, owner), owned == Some(owner));
                    list.retain(|entry| *entry != (prefix, owner));
                }
                _ => {
                    prop_assert_eq!(table.insert(prefix, owner), owned);
                    list.retain(|entry| entry.0 != prefix);
                    list.push((prefix, owner));
                }
            }
            let address = prefix.addr();
            let expected = list.iter().filter(|entry| entry.0.contains(&address));
            let expected = expected.max_by_key(|entry| entry.0.prefix_len()).map(|entry| entry.1);
            prop_assert_eq!(table.lookup(address), expected);

            let mut entries: Vec<_> = table.entries().collect();
            let mut wanted = list.clone();
            entries.sort();
            wanted.sort();
            prop_assert_eq!(entries, wanted);
        }
    }
}
