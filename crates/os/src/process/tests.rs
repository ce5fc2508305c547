//! Tests against the processes, groups and locks of this machine.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use super::*;

#[test]
fn the_other_end_of_a_socket_pair_is_this_process() {
    let (one, _other) = UnixStream::pair().unwrap();
    let credentials = peer_credentials(one.as_fd()).unwrap();
    assert_eq!(credentials.pid, std::process::id() as i32);
    assert_eq!(credentials.uid, crate::privileges::effective_uid());
    assert_eq!(credentials.gid, rustix::process::getegid().as_raw());
}

#[test]
fn a_socket_without_an_other_end_has_no_credentials() {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let error = peer_credentials(socket.as_fd()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotConnected);
}

#[test]
fn the_groups_of_the_other_end_are_those_of_this_process() {
    let (one, _other) = UnixStream::pair().unwrap();
    let mut groups = peer_groups(one.as_fd()).unwrap();
    let mut own: Vec<u32> = rustix::process::getgroups().unwrap().into_iter().map(|group| group.as_raw()).collect();
    groups.sort_unstable();
    own.sort_unstable();
    assert_eq!(groups, own);
}

#[test]
fn users_are_found_by_name_and_by_number() {
    assert_eq!(user_id("root"), Some(0));
    assert_eq!(user_name(0).as_deref(), Some("root"));
    assert_eq!(user_id("nobody-is-called-this"), None);
    assert_eq!(user_name(u32::MAX - 7), None);
}

#[test]
fn groups_are_found_by_name() {
    assert_eq!(group_id("root"), Some(0));
    assert_eq!(group_id("nobody-has-this-group"), None);
    assert_eq!(group_id("with\0nul"), None);
}

#[test]
fn this_process_is_alive_and_one_that_was_waited_for_is_not() {
    assert!(is_alive(std::process::id() as i32));
    assert!(is_alive(1), "it belongs to somebody else, or to us");
    let mut child = Command::new("true").spawn().unwrap();
    let pid = child.id() as i32;
    assert!(is_alive(pid), "a zombie still exists");
    child.wait().unwrap();
    assert!(!is_alive(pid));
}

#[test]
fn numbers_that_mean_groups_of_processes_are_nobody() {
    for pid in [0, -1, i32::MIN] {
        assert!(!is_alive(pid), "{pid}");
    }
}

#[test]
fn a_lock_is_held_until_the_file_is_closed() {
    let path = std::env::temp_dir().join(format!("overlay-os-lock-{}", std::process::id()));
    let first = File::create(&path).unwrap();
    let second = File::open(&path).unwrap();
    assert!(try_lock_exclusive(&first).unwrap());
    assert!(!try_lock_exclusive(&second).unwrap());
    drop(first);
    assert!(try_lock_exclusive(&second).unwrap());
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_file_is_given_to_a_group() {
    use std::os::unix::fs::MetadataExt;

    let path = std::env::temp_dir().join(format!("overlay-os-chown-{}", std::process::id()));
    File::create(&path).unwrap();
    if crate::privileges::effective_uid() == 0 {
        chown(&path, None, Some(1)).unwrap();
        let metadata = path.metadata().unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (0, 1));
    } else {
        eprintln!("skipped: giving files away needs CAP_CHOWN");
    }
    std::fs::remove_file(&path).unwrap();
    assert_eq!(chown(&path, None, None).unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_detached_process_leads_a_session_of_its_own_without_a_terminal() {
    let mut command = Command::new("cat");
    command.arg("/proc/self/stat").stdout(Stdio::piped());
    let child = spawn_detached(&mut command).unwrap();
    let pid = child.id().to_string();
    let output = child.wait_with_output().unwrap();
    let stat = String::from_utf8(output.stdout).unwrap();
    let fields: Vec<&str> = stat.split(' ').collect();
    // Process group, session and terminal (proc(5)).
    assert_eq!(fields[4..7], [pid.as_str(), pid.as_str(), "0"], "{stat}");
}
