//! What an agent finds, and by what it looks.

use overlay_wire::signed::{Service, Transport, Visibility, XWING_KEY_LEN};

use crate::protocol::{Code, Filter, Find, MAX_FOUND, Reply, Verb};
use crate::scene::{DAY, World, agent, code};

const NOBODY: [&str; 0] = [];

#[test]
fn each_visibility_is_found_by_those_it_names() {
    let mut world = World::new();
    for (n, visibility) in [(1, Visibility::Hidden), (2, Visibility::Members), (3, Visibility::Public)] {
        world.join_as(n, |record| {
            record.visibility = visibility;
            record.tags = vec!["gpu".to_owned()];
        });
    }
    let member = world.join(4);
    let stranger = world.connect(agent(99), 0);
    let address = |world: &mut World, n| {
        let Reply::Found { records, .. } = world.ask(member, Verb::Find { by: Find::Key(agent(n)), after: None })
        else {
            panic!("a query finds");
        };
        let record = overlay_wire::signed::Signed::<overlay_wire::signed::Record>::open(&records[0]).expect("a record");
        [record.ipv4.expect("an address").to_vec(), record.ipv6().octets().to_vec()]
    };
    for (n, name) in [(1, "agent1"), (2, "agent2"), (3, "agent3")] {
        // The exact key finds everybody.
        assert_eq!(world.find(member, Find::Key(agent(n))), [name]);
        assert_eq!(world.find(stranger, Find::Key(agent(n))), [name]);
        let [ipv4, ipv6] = address(&mut world, n);
        for by in [
            Find::Name(name.to_owned()),
            Find::Address(ipv4.into()),
            Find::Address(ipv6.into()),
            Find::KeyPrefix(agent(n).prefix(16)),
        ] {
            assert_eq!(world.find(member, by.clone()).len(), usize::from(n > 1), "{by:?}");
            assert_eq!(world.find(stranger, by.clone()).len(), usize::from(n > 2), "{by:?}");
        }
    }
    let sorted = |mut names: Vec<String>| {
        names.sort_unstable();
        names
    };
    assert_eq!(sorted(world.find(member, Find::Tag("gpu".to_owned()))), ["agent2", "agent3"]);
    assert_eq!(sorted(world.find(member, Find::All)), ["agent2", "agent3", "agent4"]);
    assert_eq!(world.find(stranger, Find::All), ["agent3"]);
    assert_eq!(world.find(stranger, Find::Tag("gpu".to_owned())), ["agent3"]);
    assert_eq!(world.find(member, Find::Tag("cpu".to_owned())), NOBODY);
}

#[test]
fn nothing_is_shown_once_it_is_not_fresh() {
    let mut world = World::new();
    world.join_as(1, |record| record.visibility = Visibility::Public);
    let bob = world.connect(agent(2), 0);
    let all = [Find::Key(agent(1)), Find::Name("agent1".to_owned()), Find::All, Find::KeyPrefix(agent(1).prefix(20))];
    world.now.unix += DAY;
    for by in &all {
        assert_eq!(world.find(bob, by.clone()), ["agent1"], "{by:?}");
    }
    world.now.unix += 1;
    for by in &all {
        assert_eq!(world.find(bob, by.clone()), NOBODY, "{by:?}");
    }
}

#[test]
fn a_prefix_has_sixteen_characters_and_is_one_of_a_key() {
    let mut world = World::new();
    let alice = world.join(1);
    let text = agent(1).to_string();
    for wrong in [&text[..15], "", "ABCDEFGHIJKLMNOPQR", "0189018901890189", &format!("{text}a"), "ääääääääääääääää"]
    {
        let reply = world.ask(alice, Verb::Find { by: Find::KeyPrefix((*wrong).to_owned()), after: None });
        assert_eq!(code(&reply), Some(Code::Malformed), "{wrong}");
    }
    for right in [16, 17, 51, 52] {
        assert_eq!(world.find(alice, Find::KeyPrefix(text[..right].to_owned())), ["agent1"]);
    }
    let mut near = text[..16].to_owned();
    near.replace_range(15..16, if near.ends_with('a') { "b" } else { "a" });
    assert_eq!(world.find(alice, Find::KeyPrefix(near)), NOBODY);
    let reply = world.ask(alice, Verb::Find { by: Find::Address(vec![1; 5].into()), after: None });
    assert_eq!(code(&reply), Some(Code::Malformed));
}

#[test]
fn a_long_answer_comes_in_pages_that_fit_a_message() {
    let mut world = World::new();
    for n in 0..30 {
        world.join_as(n, |record| {
            record.tags = vec!["gpu".to_owned()];
            // Every third record is as long as records get, every fifth is hidden.
            if n % 3 == 0 {
                record.mailbox_xwing = Some(vec![7; XWING_KEY_LEN]);
                record.tags.extend((0..15).map(|tag| format!("{:a<31}{tag:x}", "")));
            }
            if n % 5 == 0 {
                record.visibility = Visibility::Hidden;
            }
        });
    }
    let alice = world.connect(agent(1), 0);
    let mut shown: Vec<_> = (0..30).filter(|n| n % 5 > 0).collect();
    shown.sort_unstable_by_key(|n| agent(*n));
    let shown: Vec<_> = shown.into_iter().map(|n| format!("agent{n}")).collect();
    // The scene checks the length of every message.
    assert_eq!(world.find(alice, Find::All), shown);
    assert_eq!(world.find(alice, Find::Tag("gpu".to_owned())), shown);
    let Reply::Found { records, next } = world.ask(alice, Verb::Find { by: Find::All, after: None }) else {
        panic!("a query finds");
    };
    assert!(records.len() <= MAX_FOUND && next.is_some());
}

#[test]
fn one_query_looks_at_a_bounded_number_of_agents() {
    let mut world = World::new();
    for n in 0..600 {
        world.join(n);
    }
    let stranger = world.connect(agent(9_999), 0);
    let reply = world.ask(stranger, Verb::Find { by: Find::All, after: None });
    let Reply::Found { records, next: Some(next) } = reply else { panic!("there is more to look at") };
    assert_eq!(records.len(), 0);
    let reply = world.ask(stranger, Verb::Find { by: Find::All, after: Some(next) });
    assert_eq!(reply, Reply::Found { records: Vec::new(), next: None });
}

#[test]
fn a_directory_is_searched_by_all_that_is_given_and_within_visibility() {
    let mut world = World::new();
    let service = |name: &str, text: &str| Service {
        name: name.to_owned(),
        transport: Transport::Tcp,
        port: 8_000,
        text: text.to_owned(),
    };
    for (n, tags, services, visibility) in [
        (1, vec!["gpu", "eu"], vec![service("http", "Image search")], Visibility::Members),
        (2, vec!["gpu"], vec![service("mcp", "")], Visibility::Public),
        (3, vec!["eu"], vec![service("http", "weather")], Visibility::Members),
        (4, vec!["gpu"], vec![service("http", "image search, hidden")], Visibility::Hidden),
    ] {
        world.join_as(n, |record| {
            record.tags = tags.into_iter().map(str::to_owned).collect();
            record.services = services;
            record.visibility = visibility;
        });
    }
    let member = world.join(5);
    let stranger = world.connect(agent(99), 0);
    let filter = |tag: &str, service: &str, text: &str| {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Find::Matching(Filter { tag: some(tag), service: some(service), text: some(text) })
    };
    let mut find = |caller, by: Find| {
        let mut names = world.find(caller, by);
        names.sort_unstable();
        names
    };
    for (by, expected) in [
        (filter("gpu", "", ""), &["agent1", "agent2"][..]),
        (filter("", "http", ""), &["agent1", "agent3"]),
        (filter("gpu", "http", ""), &["agent1"]),
        (filter("", "", "IMAGE"), &["agent1"]),
        (filter("", "", "agent"), &["agent1", "agent2", "agent3", "agent5"]),
        (filter("eu", "", "weath"), &["agent3"]),
        (filter("eu", "mcp", ""), &[]),
        (filter("", "", ""), &["agent1", "agent2", "agent3", "agent5"]),
    ] {
        assert_eq!(find(member, by.clone()), expected, "{by:?}");
    }
    assert_eq!(find(stranger, filter("gpu", "", "")), ["agent2"]);
    let long = Find::Matching(Filter { text: Some("x".repeat(65)), ..Filter::default() });
    assert_eq!(code(&world.ask(member, Verb::Find { by: long, after: None })), Some(Code::Malformed));
}
