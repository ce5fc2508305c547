//! Tests against the kernel and `ip`, in separate network namespaces.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::thread::CapabilitySet;

use super::*;
use crate::netns::{current, drop_capability, isolated, isolated_async};
use crate::poll::Poller;

/// The most time that a notice may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// A second network namespace, which exists as long as this value does.
struct Elsewhere {
    file: File,
}

impl Elsewhere {
    fn new() -> Self {
        let mut file = None;
        isolated(|| file = Some(File::open("/proc/thread-self/ns/net").unwrap()));
        Self { file: file.expect("the caller is in a namespace that was made in the same way") }
    }

    /// The namespace's path for a command line of `ip`. It is valid for children of this process.
    fn path(&self) -> String {
        use std::os::fd::AsRawFd;
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    fn inode(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        self.file.metadata().unwrap().ino()
    }

    /// Runs `ip` in this namespace.
    fn ip(&self, arguments: &str) {
        let path = self.path();
        let line = format!("--net={path} ip {arguments}");
        run("nsenter", &line);
    }
}

fn run(program: &str, arguments: &str) {
    let status = Command::new(program).args(arguments.split(' ')).stdin(Stdio::null()).status().unwrap();
    assert!(status.success(), "{program} {arguments}");
}

fn ip(arguments: &str) {
    run("ip", arguments);
}

fn device(netlink: &Netlink) -> Option<(Tun, LinkWatch)> {
    if !Path::new(super::super::CONTROL_DEVICE).exists() {
        eprintln!("skipped: there is no {}", super::super::CONTROL_DEVICE);
        return None;
    }
    let tun = Tun::create("ovwatch0", true).unwrap();
    let watch = match LinkWatch::new(&tun, netlink.clone()) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {
            eprintln!("skipped: the kernel does not tell where a TUN device is (Linux 5.2)");
            return None;
        }
        watch => watch.unwrap(),
    };
    Some((tun, watch))
}

/// Waits for notices until `wanted` accepts the interface. Returns `None` if the interface was deleted.
async fn until(watch: &mut LinkWatch, what: &str, wanted: impl Fn(Option<&TunLink>) -> bool) -> Option<TunLink> {
    let waiting = async {
        loop {
            watch.changed().await.unwrap();
            let seen = watch.look().await.unwrap();
            if wanted(seen.as_ref()) {
                return seen;
            }
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("no notice of {what}"))
}

fn is_up(seen: Option<&TunLink>) -> bool {
    seen.is_some_and(|seen| seen.link.up)
}

fn has_mtu(mtu: u32) -> impl Fn(Option<&TunLink>) -> bool {
    move |seen| seen.is_some_and(|seen| seen.link.mtu == mtu)
}

#[test]
fn it_tells_of_up_down_mtu_and_a_new_name() {
    isolated_async(async |netlink| {
        let Some((tun, mut watch)) = device(&netlink) else { return };
        let first = watch.look().await.unwrap().unwrap();
        assert_eq!((first.link.index, first.link.up, first.namespace), (tun.index(), false, current().unwrap()));
        ip("link set ovwatch0 up");
        until(&mut watch, "up", is_up).await;
        ip("link set ovwatch0 mtu 8000");
        until(&mut watch, "the MTU", has_mtu(8000)).await;
        ip("link set ovwatch0 down");
        until(&mut watch, "down", |seen| !is_up(seen)).await;
        ip("link set ovwatch0 name ovother0");
        until(&mut watch, "the name", |seen| seen.is_some_and(|seen| seen.link.name == "ovother0")).await;
        ip("link set ovother0 up");
        until(&mut watch, "up under the new name", is_up).await;
    });
}

#[test]
fn it_tells_of_a_deletion() {
    isolated_async(async |netlink| {
        let Some((_tun, mut watch)) = device(&netlink) else { return };
        ip("link delete ovwatch0");
        assert_eq!(until(&mut watch, "the deletion", |seen| seen.is_none()).await, None);
    });
}

#[test]
fn other_links_do_not_wake_it() {
    isolated_async(async |netlink| {
        let Some((_tun, mut watch)) = device(&netlink) else { return };
        // Discards the notices that the creation itself caused.
        while tokio::time::timeout(Duration::from_millis(1), watch.changed()).await.is_ok() {}
        ip("link add near type veth peer name far");
        ip("link set near up");
        assert!(tokio::time::timeout(Duration::from_millis(50), watch.changed()).await.is_err());
    });
}

#[test]
fn it_follows_the_interface_into_other_namespaces_and_back() {
    isolated_async(async |netlink| {
        let Some((_tun, mut watch)) = device(&netlink) else { return };
        let home = current().unwrap();
        let home_path =
            format!("/proc/{}/task/{}/ns/net", std::process::id(), rustix::thread::gettid().as_raw_nonzero());
        let (first, second) = (Elsewhere::new(), Elsewhere::new());
        // Our interface's index is already taken there, so it gets a new one.
        first.ip("link add taken2 type veth peer name taken3");
        let is_in = |inode: u64| move |seen: Option<&TunLink>| seen.is_some_and(|seen| seen.namespace == inode);

        ip(&format!("link set ovwatch0 netns {}", first.path()));
        until(&mut watch, "the move", is_in(first.inode())).await;
        first.ip("link set ovwatch0 mtu 9000 up");
        until(&mut watch, "up there", |seen| is_up(seen) && has_mtu(9000)(seen)).await;
        first.ip("link set ovwatch0 down");
        until(&mut watch, "down there", |seen| !is_up(seen)).await;
        first.ip("link set ovwatch0 name ovother0");

        first.ip(&format!("link set ovother0 netns {}", second.path()));
        until(&mut watch, "the second move", is_in(second.inode())).await;
        second.ip("link set ovother0 mtu 1300 up");
        until(&mut watch, "up in the second", |seen| is_up(seen) && has_mtu(1300)(seen)).await;

        second.ip(&format!("link set ovother0 netns {home_path}"));
        until(&mut watch, "the way home", is_in(home)).await;
        ip("link set ovother0 mtu 1420");
        until(&mut watch, "the MTU at home", has_mtu(1420)).await;

        ip(&format!("link set ovother0 netns {}", first.path()));
        until(&mut watch, "the third move", is_in(first.inode())).await;
        first.ip("link delete ovother0");
        assert_eq!(until(&mut watch, "the deletion there", |seen| seen.is_none()).await, None);
    });
}

#[test]
fn a_namespace_that_goes_away_takes_the_interface_along() {
    isolated_async(async |netlink| {
        let Some((tun, mut watch)) = device(&netlink) else { return };
        let elsewhere = Elsewhere::new();
        ip(&format!("link set ovwatch0 netns {}", elsewhere.path()));
        let inode = elsewhere.inode();
        until(&mut watch, "the move", |seen| seen.is_some_and(|seen| seen.namespace == inode)).await;
        let mut poller = Poller::new().unwrap();
        poller.add(&tun, 0).unwrap();
        drop(elsewhere);
        assert_eq!(until(&mut watch, "the end", |seen| seen.is_none()).await, None);
        // The kernel takes its time before it tells a reader that waits for packets.
        let deadline = crate::clock::boottime() + PATIENCE;
        while !matches!(tun.read(&mut [0; 2000]), Err(error) if error.raw_os_error() == Some(libc::EBADFD)) {
            assert!(crate::clock::boottime() < deadline, "the interface stays");
            poller.wait(Some(PATIENCE)).unwrap().for_each(drop);
        }
    });
}

#[test]
fn a_moment_of_being_down_is_told_though_it_is_up_again() {
    isolated_async(async |netlink| {
        let Some((_tun, mut watch)) = device(&netlink) else { return };
        ip("link set ovwatch0 up");
        until(&mut watch, "up", is_up).await;
        was_down(&mut watch).await;
        ip("link set ovwatch0 mtu 1300");
        assert_eq!(was_down(&mut watch).await, Some(false), "it was up all the time");
        ip("link set ovwatch0 down");
        ip("link set ovwatch0 up");
        watch.changed().await.unwrap();
        let seen = watch.look().await.unwrap().unwrap();
        assert!(seen.link.up && seen.was_down);
        // A move takes it down too.
        let elsewhere = Elsewhere::new();
        ip(&format!("link set ovwatch0 netns {}", elsewhere.path()));
        elsewhere.ip("link set ovwatch0 up");
        watch.changed().await.unwrap();
        let seen = watch.look().await.unwrap().unwrap();
        assert!(seen.link.up && seen.was_down && seen.namespace == elsewhere.inode());
    });
}

#[test]
fn what_was_noticed_before_a_look_is_not_told_after_it() {
    isolated_async(async |netlink| {
        let Some((_tun, mut watch)) = device(&netlink) else { return };
        // Several notices that it is down are waiting, but a look finds it up.
        ip("link set ovwatch0 mtu 1300 up");
        assert!(is_up(watch.look().await.unwrap().as_ref()));
        assert_eq!(was_down(&mut watch).await, None, "nothing happened since");
        ip("link set ovwatch0 down");
        ip("link set ovwatch0 up");
        assert!(watch.look().await.unwrap().unwrap().was_down, "this did");
        assert!(!watch.look().await.unwrap().unwrap().was_down, "it is told once");
    });
}

/// Whether the interface was reported as having been down, after reading all waiting notices. `None` if no notice
/// concerned it.
async fn was_down(watch: &mut LinkWatch) -> Option<bool> {
    let mut told = None;
    while let Ok(changed) = tokio::time::timeout(Duration::from_millis(50), watch.changed()).await {
        changed.unwrap();
        *told.get_or_insert(false) |= watch.look().await.unwrap().expect("it is there").was_down;
    }
    told
}

/// Creates a link with this index and name, and takes it up, down and up.
fn flap_a_namesake(ip: impl Fn(&str), index: u32, name: &str) {
    ip(&format!("link add {name} index {index} type bridge"));
    for state in ["up", "down", "up"] {
        ip(&format!("link set {name} {state}"));
    }
}

#[test]
fn a_link_of_the_same_index_and_name_elsewhere_that_goes_down_is_not_ours() {
    isolated_async(async |netlink| {
        let Some((tun, mut watch)) = device(&netlink) else { return };
        if !watch.hears_everywhere() {
            return eprintln!("skipped: other namespaces are heard with CAP_NET_BROADCAST only");
        }
        let (first, second) = (Elsewhere::new(), Elsewhere::new());
        for elsewhere in [&first, &second] {
            // Notices come only from namespaces that have a number here.
            netlink.number_namespace(elsewhere.file.as_fd()).await.unwrap();
        }
        ip("link set ovwatch0 up");
        until(&mut watch, "up", is_up).await;
        was_down(&mut watch).await;
        flap_a_namesake(|arguments| first.ip(arguments), tun.index(), "ovwatch0");
        assert_eq!(was_down(&mut watch).await, Some(false), "it is heard, but is not ours");

        // The same for an interface that was moved, with namesakes at home and in a third namespace.
        ip(&format!("link set ovwatch0 netns {}", second.path()));
        let moved = until(&mut watch, "the move", |seen| seen.is_some_and(|seen| seen.namespace == second.inode()));
        let index = moved.await.expect("it is there").link.index;
        second.ip("link set ovwatch0 up");
        until(&mut watch, "up there", is_up).await;
        was_down(&mut watch).await;
        first.ip("link delete ovwatch0");
        flap_a_namesake(|arguments| first.ip(arguments), index, "ovwatch0");
        flap_a_namesake(ip, index, "ovwatch0");
        assert_eq!(was_down(&mut watch).await, Some(false));
        second.ip("link set ovwatch0 down");
        second.ip("link set ovwatch0 up");
        assert_eq!(was_down(&mut watch).await, Some(true), "this one is ours");
    });
}

#[test]
fn without_cap_net_broadcast_it_watches_its_own_namespace() {
    isolated_async(async |netlink| {
        let Some((tun, _)) = device(&netlink) else { return };
        drop_capability(CapabilitySet::NET_BROADCAST);
        let mut watch = LinkWatch::new(&tun, netlink.clone()).unwrap();
        assert!(!watch.hears_everywhere());
        ip("link set ovwatch0 up");
        until(&mut watch, "up", is_up).await;
        ip("link set ovwatch0 mtu 8000");
        until(&mut watch, "the MTU", has_mtu(8000)).await;
        was_down(&mut watch).await;
        ip("link set ovwatch0 down");
        ip("link set ovwatch0 up");
        assert_eq!(was_down(&mut watch).await, Some(true));
        // There, the deletion is noticed only by the next look, whatever its reason.
        let elsewhere = Elsewhere::new();
        ip(&format!("link set ovwatch0 netns {}", elsewhere.path()));
        let inode = elsewhere.inode();
        until(&mut watch, "the move", |seen| seen.is_some_and(|seen| seen.namespace == inode)).await;
        elsewhere.ip("link delete ovwatch0");
        assert_eq!(watch.look().await.unwrap(), None);
    });
}

#[test]
fn a_notice_is_found_among_others_and_a_broken_one_ends_the_search() {
    let notice = |len: u32, kind: u16, index: u32| {
        let mut bytes = vec![0; len.max(32) as usize];
        bytes[..4].copy_from_slice(&len.to_ne_bytes());
        bytes[TYPE..][..2].copy_from_slice(&kind.to_ne_bytes());
        bytes[INDEX..][..4].copy_from_slice(&index.to_ne_bytes());
        bytes.truncate(len.max(16) as usize);
        bytes
    };
    let concern = |datagram: &[u8]| notices(datagram).map(|notice| may_concern(notice, 7)).collect::<Vec<_>>();
    let some = [notice(52, 16, 3), notice(32, 16, 7), notice(28, RTM_DELNSID, 0), notice(20, 16, 7)].concat();
    assert_eq!(concern(&some), [false, true, true, false]);
    assert_eq!(concern(&some[..83]), [false], "cut short");
    assert_eq!(concern(&notice(0, 16, 7)), [], "a length of nothing does not go round in circles");
    assert_eq!(concern(&notice(15, 16, 7)), []);
    assert_eq!(concern(&[]), []);
}
