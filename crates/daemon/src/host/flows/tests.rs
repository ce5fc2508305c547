//! What is written, what is read, and what is not believed.

use std::os::unix::fs::{PermissionsExt, symlink};

use overlay_core::PeerKey;

use super::*;

/// The key of 32 nines.
const NINE: &str = "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=";

fn flow(port: u16) -> KnownFlow {
    KnownFlow {
        protocol: 6,
        ours: ([10, 77, 0, 1].into(), Some(port)),
        theirs: ("fd00::2".parse().expect("an address"), None),
        is_ours: port.is_multiple_of(2),
        tcp: [None, Some(TcpStage::Established), Some(TcpStage::Closing)][usize::from(port % 3)],
        last: Instant::from_start(Duration::from_nanos(1_234_567_890_123)),
        last_ours: Instant::from_start(Duration::from_nanos(1_234_567_890_120)),
    }
}

fn bare(n: u8) -> PeerFlows {
    let peer = PeerKey([n; 32]);
    PeerFlows { peer, flows: Vec::new(), is_complete: true, prefixes: Vec::new(), holes: Vec::new() }
}

fn of_flows(flows: Vec<PeerFlows>) -> Legacy {
    Legacy { flows, ..Legacy::default() }
}

fn some() -> Legacy {
    let flows = vec![
        PeerFlows {
            peer: PeerKey([7; 32]),
            flows: vec![flow(1), flow(2)],
            is_complete: true,
            prefixes: vec!["fd00::/64".parse().expect("a prefix")],
            holes: vec!["fd00::7/128".parse().expect("a prefix")],
        },
        PeerFlows { flows: Vec::new(), is_complete: false, ..bare(9) },
    ];
    let initiations = vec![
        PeerInitiations { peer: PeerKey([9; 32]), initiations: vec![[0; INITIATION_LEN], [1; INITIATION_LEN]] },
        PeerInitiations { peer: PeerKey([8; 32]), initiations: vec![[2; INITIATION_LEN]] },
    ];
    Legacy { flows, initiations, latest_timestamp: Duration::from_nanos(1_764_351_704_123_456_789) }
}

#[test]
fn what_is_written_for_this_user_alone_is_read_once() {
    let directory = tempfile::tempdir().expect("a folder");
    let path = directory.path().join("ov0.flows");
    write(&path, &some()).expect("writable");
    assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    let taken = take(&path, false);
    assert_eq!((taken.is_first, taken.legacy), (false, some()));
    // Once. The mark that stays says that a daemon ran.
    for _ in 0..2 {
        let taken = take(&path, false);
        assert_eq!((taken.is_first, taken.legacy), (false, Legacy::default()));
    }
    assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(directory.path()).expect("a folder").count(), 1);
}

#[test]
fn only_the_first_daemon_of_a_boot_finds_no_file() {
    let directory = tempfile::tempdir().expect("a folder");
    let path = directory.path().join("ov0.flows");
    let has_just_booted = overlay_os::clock::boottime() < JUST_BOOTED;
    assert_eq!(take(&path, false).is_first, has_just_booted);
    let mark = fs::read_to_string(&path).expect("a mark from the beginning");
    assert_eq!(mark, format!("overlay-flows 3 {}\n", boot().expect("/proc is mounted")));
    assert!(!take(&path, false).is_first);
    // A daemon without peers with an allow list leaves the mark too.
    write(&path, &Legacy::default()).expect("writable");
    assert!(!take(&path, false).is_first);
    // A file of an earlier boot is no mark of this one.
    fs::write(&path, mark.replace("3 ", "3 x")).expect("writable");
    assert_eq!(take(&path, false).is_first, has_just_booted);
    assert!(!take(&path, false).is_first);

    // A start that failed changes nothing.
    put_back(&path, true, &Legacy::default()).expect("writable");
    assert_eq!(take(&path, false).is_first, has_just_booted);
    put_back(&path, false, &some()).expect("writable");
    assert_eq!(take(&path, false).legacy, some());
}

#[test]
fn a_hand_over_that_cannot_be_written_leaves_the_mark() {
    let directory = tempfile::tempdir().expect("a folder");
    let path = directory.path().join("ov0.flows");
    take(&path, false);
    // Something is in the way that cannot be removed as a file.
    let in_the_way = beside(&path);
    fs::create_dir(&in_the_way).expect("a folder");
    assert!(write(&path, &some()).is_err());
    assert!(path.exists());
    fs::remove_dir(&in_the_way).expect("empty");
    let taken = take(&path, false);
    assert_eq!((taken.is_first, taken.legacy), (false, Legacy::default()));

    // What cannot be replaced is removed and not taken over, because the next daemon would read it again.
    write(&path, &some()).expect("writable");
    fs::create_dir(&in_the_way).expect("a folder");
    assert_eq!(take(&path, false).legacy, Legacy::default());
    assert!(!path.exists());
}

#[test]
fn the_lines_of_the_file() {
    let directory = tempfile::tempdir().expect("a folder");
    let path = directory.path().join("ov0.flows");
    write(&path, &some()).expect("writable");
    let text = fs::read_to_string(&path).expect("there");
    let lines: Vec<_> = text.lines().skip(1).collect();
    let line = |key, of| format!("initiation {key} {}", STANDARD.encode([of; INITIATION_LEN]));
    let initiations = [(NINE, 0), (NINE, 1), ("CAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAg=", 2)];
    let initiations = initiations.map(|(key, of)| line(key, of));
    let (lines, last) = lines.split_at(lines.len() - 3);
    assert_eq!(last, initiations);
    assert_eq!(
        lines,
        [
            "timestamp 1764351704123456789",
            "peer BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc= complete",
            "prefix fd00::/64",
            "hole fd00::7/128",
            "flow 6 10.77.0.1 1 fd00::2 - theirs established 1234567890123 1234567890120",
            "flow 6 10.77.0.1 2 fd00::2 - ours closing 1234567890123 1234567890120",
            "peer CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk= partial",
        ]
    );
}

#[test]
fn a_file_of_another_boot_of_others_or_of_nonsense_is_not_believed() {
    let directory = tempfile::tempdir().expect("a folder");
    let path = directory.path().join("ov0.flows");
    let text = |path: &Path| {
        write(path, &some()).expect("writable");
        fs::read_to_string(path).expect("there")
    };
    let good = text(&path);
    let boot = boot().expect("/proc is mounted");
    for bad in [
        good.replace(&boot, "another"),
        good.replace("flow 6", "flow 600"),
        good.replace("peer", "who"),
        good.replace("timestamp 1", "timestamp -1"),
        good.replace("AQEB", "AQE"),
        "x".into(),
    ] {
        fs::write(&path, bad).expect("writable");
        assert_eq!(take(&path, true).legacy, Legacy::default());
        assert!(!fs::read_to_string(&path).expect("a mark").contains("flow "));
    }
    text(&path);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("our own");
    assert_eq!(take(&path, true).legacy, Legacy::default());
    let elsewhere = directory.path().join("elsewhere");
    text(&elsewhere);
    fs::remove_file(&path).expect("the mark");
    symlink(&elsewhere, &path).expect("a folder of ours");
    assert_eq!(take(&path, true).legacy, Legacy::default());
    assert!(!fs::symlink_metadata(&path).expect("a mark").is_symlink(), "the link went");
    assert_eq!(take(&elsewhere, true).legacy, some(), "what it names stays");
}

#[test]
fn files_of_earlier_daemons_are_read_and_those_of_later_ones_are_not() {
    let directory = tempfile::tempdir().expect("a folder");
    let path = directory.path().join("ov0.flows");
    let mut expected = some().flows;
    write(&path, &of_flows(expected.clone())).expect("writable");
    let text = fs::read_to_string(&path).expect("there");
    let in_format = |format: u8, text: &str| {
        let text = text.replace("overlay-flows 3", &format!("overlay-flows {format}"));
        write(&path, &some()).expect("writable");
        fs::write(&path, text).expect("writable");
        let taken = take(&path, false);
        assert!(!taken.is_first, "a daemon ran on this boot");
        taken.legacy
    };
    // Format 2 had one time for each flow.
    let earlier = text.replace(" 1234567890120", "").replace("closing", "-");
    for flow in &mut expected[0].flows {
        flow.last_ours = flow.last;
        flow.tcp = flow.tcp.filter(|tcp| *tcp != TcpStage::Closing);
    }
    assert_eq!(in_format(2, &earlier), of_flows(expected.clone()));
    // Format 1 is complete for no peer.
    expected[0].is_complete = false;
    assert_eq!(in_format(1, &earlier), of_flows(expected));
    assert_eq!(in_format(4, &text), Legacy::default());
}

#[test]
fn at_most_65536_flows_and_16384_initiations_are_handed_over() {
    let directory = tempfile::tempdir().expect("a folder");
    let path = directory.path().join("ov0.flows");
    let peer = |n| PeerFlows { flows: vec![flow(1); 4_096], ..bare(n + 64u8) };
    let initiations =
        |n| PeerInitiations { peer: PeerKey([n + 64; 32]), initiations: vec![[n; INITIATION_LEN]; 4_096] };
    let legacy = Legacy {
        flows: (0..20).map(peer).collect(),
        initiations: (0..5).map(initiations).collect(),
        latest_timestamp: Duration::ZERO,
    };
    write(&path, &legacy).expect("writable");
    assert!(fs::metadata(&path).expect("there").len() < MAX_LEN);
    let taken = take(&path, true).legacy;
    let (flows, initiations) = (&taken.flows, &taken.initiations);
    assert_eq!((flows.len(), flows.iter().map(|peer| peer.flows.len()).sum::<usize>()), (16, MAX_FLOWS));
    assert_eq!(initiations.iter().map(|peer| peer.initiations.len()).sum::<usize>(), MAX_INITIATIONS);
}
