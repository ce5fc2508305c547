//! Waits on real file descriptors.

use std::net::UdpSocket;

use super::*;
use crate::clock::boottime;

const SOON: Option<Duration> = Some(Duration::from_secs(5));
const AT_ONCE: Option<Duration> = Some(Duration::ZERO);

#[test]
fn what_is_ready_is_reported_by_its_token_until_it_is_read() {
    let mut poller = Poller::new().unwrap();
    let sockets = [(); 3].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    for (token, socket) in sockets.iter().enumerate() {
        poller.add(socket, 10 + token as u64).unwrap();
    }
    assert_eq!(poller.wait(AT_ONCE).unwrap().count(), 0);

    for socket in &sockets[1..] {
        sockets[0].send_to(b"x", socket.local_addr().unwrap()).unwrap();
    }
    for _ in 0..2 {
        let mut tokens: Vec<_> = poller.wait(SOON).unwrap().collect();
        tokens.sort();
        assert_eq!(tokens, [11, 12]);
    }
    sockets[1].recv(&mut [0]).unwrap();
    assert_eq!(poller.wait(SOON).unwrap().collect::<Vec<_>>(), [12]);
    poller.remove(&sockets[2]).unwrap();
    assert_eq!(poller.wait(AT_ONCE).unwrap().count(), 0);
}

#[test]
fn what_is_not_to_be_read_waits_without_being_reported() {
    let mut poller = Poller::new().unwrap();
    let waker = Waker::new().unwrap();
    poller.add(&waker, 1).unwrap();
    poller.set_reading(&waker, 1, false).unwrap();
    waker.wake();
    assert_eq!(poller.wait(AT_ONCE).unwrap().count(), 0);
    poller.set_reading(&waker, 1, true).unwrap();
    assert_eq!(poller.wait(AT_ONCE).unwrap().collect::<Vec<_>>(), [1]);
}

#[test]
fn a_socket_with_room_is_reported_only_to_those_who_wait_for_room() {
    let mut poller = Poller::new().unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    poller.add(&socket, 1).unwrap();
    assert_eq!(poller.wait(AT_ONCE).unwrap().count(), 0);
    poller.set_interest(&socket, 1, true, true).unwrap();
    assert_eq!(poller.wait(SOON).unwrap().collect::<Vec<_>>(), [1]);
    poller.set_interest(&socket, 1, true, false).unwrap();
    assert_eq!(poller.wait(AT_ONCE).unwrap().count(), 0);
}

#[test]
fn what_is_watched_cannot_be_added_twice() {
    let poller = Poller::new().unwrap();
    let waker = Waker::new().unwrap();
    poller.add(&waker, 1).unwrap();
    assert_eq!(poller.add(&waker, 2).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    poller.remove(&waker).unwrap();
    assert_eq!(poller.remove(&waker).unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn more_ready_sources_than_one_wait_reports_are_all_reported_in_turn() {
    let mut poller = Poller::new().unwrap();
    let wakers: Vec<_> = (0..EVENTS_MAX + 5).map(|_| Waker::new().unwrap()).collect();
    for (token, waker) in wakers.iter().enumerate() {
        poller.add(waker, token as u64).unwrap();
        waker.wake();
    }
    let mut seen = vec![false; wakers.len()];
    for wait in 0..2 {
        let tokens: Vec<_> = poller.wait(SOON).unwrap().collect();
        assert_eq!(tokens.len(), [EVENTS_MAX, 5][wait]);
        for token in tokens {
            seen[token as usize] = true;
            wakers[token as usize].clear();
        }
    }
    assert!(seen.iter().all(|seen| *seen));
}

#[test]
fn a_timer_wakes_at_its_deadline_and_not_before() {
    let mut poller = Poller::new().unwrap();
    let timer = Timer::new().unwrap();
    poller.add(&timer, 7).unwrap();
    let deadline = boottime() + Duration::from_millis(30);
    timer.set(Some(deadline)).unwrap();
    assert_eq!(poller.wait(SOON).unwrap().collect::<Vec<_>>(), [7]);
    assert!(boottime() >= deadline);
    timer.clear().unwrap();
    assert_eq!(poller.wait(AT_ONCE).unwrap().count(), 0);
}

#[test]
fn a_deadline_in_the_past_wakes_at_once_every_time_it_is_set() {
    let mut poller = Poller::new().unwrap();
    let timer = Timer::new().unwrap();
    poller.add(&timer, 7).unwrap();
    for deadline in [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(1)] {
        timer.set(Some(deadline)).unwrap();
        assert_eq!(poller.wait(SOON).unwrap().count(), 1, "{deadline:?}");
        timer.clear().unwrap();
    }
}

#[test]
fn a_timer_without_a_deadline_never_wakes() {
    let mut poller = Poller::new().unwrap();
    let timer = Timer::new().unwrap();
    poller.add(&timer, 7).unwrap();
    timer.set(Some(boottime() + Duration::from_millis(10))).unwrap();
    timer.set(None).unwrap();
    assert_eq!(poller.wait(Some(Duration::from_millis(50))).unwrap().count(), 0);
    // A deadline that the clock never reaches is accepted like any other.
    timer.set(Some(Duration::MAX)).unwrap();
    assert_eq!(poller.wait(AT_ONCE).unwrap().count(), 0);
}

#[test]
fn a_nearer_deadline_replaces_a_farther_one() {
    let mut poller = Poller::new().unwrap();
    let timer = Timer::new().unwrap();
    poller.add(&timer, 7).unwrap();
    timer.set(Some(boottime() + Duration::from_secs(3600))).unwrap();
    timer.set(Some(boottime() + Duration::from_millis(10))).unwrap();
    assert_eq!(poller.wait(SOON).unwrap().count(), 1);
}

#[test]
fn another_thread_wakes_a_waiting_one_and_many_wakes_are_one() {
    let mut poller = Poller::new().unwrap();
    let waker = Waker::new().unwrap();
    poller.add(&waker, 3).unwrap();
    let other = waker.clone();
    let thread = std::thread::spawn(move || (0..1000).for_each(|_| other.wake()));
    assert_eq!(poller.wait(SOON).unwrap().collect::<Vec<_>>(), [3]);
    thread.join().unwrap();
    waker.clear();
    assert_eq!(poller.wait(AT_ONCE).unwrap().count(), 0);
    waker.clear();
    waker.wake();
    assert_eq!(poller.wait(AT_ONCE).unwrap().count(), 1);
}
