//! How quickly the engine thread gets a CPU when other threads compete for it.
//!
//! The scheduler, not queues, decides latency under load. On two busy cores the default class answers a ping in 2 to 4
//! ms. Real time answers in 0.3 ms, but costs a third of the small-packet rate.

use std::io;

use rustix::process::setpriority_process;

/// The lowest priority of the real-time class: above every ordinary thread, below all other real-time threads.
const REALTIME_PRIORITY: i32 = 1;

/// A scheduling class for one thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scheduling {
    /// The class that the process was started with.
    #[default]
    Default,
    /// Nice -20: the largest share among ordinary threads. Needs CAP_SYS_NICE.
    High,
    /// SCHED_RR: ahead of every ordinary thread. Threads and processes that it starts do not inherit this. Needs
    /// CAP_SYS_NICE.
    Realtime,
}

/// Applies `scheduling` to the calling thread.
///
/// # Errors
/// `PermissionDenied` without CAP_SYS_NICE, or if the limits of the service forbid it.
pub fn apply_to_current_thread(scheduling: Scheduling) -> io::Result<()> {
    match scheduling {
        Scheduling::Default => Ok(()),
        // On Linux, "this process" means the calling thread in this call.
        Scheduling::High => Ok(setpriority_process(None, -20)?),
        Scheduling::Realtime => {
            let parameters = libc::sched_param { sched_priority: REALTIME_PRIORITY };
            let policy = libc::SCHED_RR | libc::SCHED_RESET_ON_FORK;
            // SAFETY: thread 0 is the calling thread, and `parameters` lives across the call, which only reads it.
            match unsafe { libc::sched_setscheduler(0, policy, &parameters) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `(nice, real-time priority, policy)` of the calling thread, as the kernel reports it (proc(5)).
    fn of_this_thread() -> (i32, i32, i32) {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let after_name: Vec<&str> = stat[stat.rfind(')').unwrap() + 2..].split(' ').collect();
        let field = |number: usize| after_name[number - 3].trim().parse().unwrap();
        (field(19), field(40), field(41))
    }

    fn applied(scheduling: Scheduling) -> Option<(i32, i32, i32)> {
        std::thread::spawn(move || match apply_to_current_thread(scheduling) {
            Ok(()) => Some(of_this_thread()),
            Err(error) => {
                eprintln!("skipped: {scheduling:?} is not permitted here: {error}");
                None
            }
        })
        .join()
        .unwrap()
    }

    #[test]
    fn high_is_nice_minus_20_of_the_one_thread() {
        let before = of_this_thread();
        if let Some(during) = applied(Scheduling::High) {
            assert_eq!(during, (-20, 0, libc::SCHED_OTHER));
        }
        assert_eq!(of_this_thread(), before);
    }

    #[test]
    fn realtime_is_round_robin_at_its_lowest_priority_and_children_do_not_inherit_it() {
        std::thread::spawn(|| {
            if let Err(error) = apply_to_current_thread(Scheduling::Realtime) {
                return eprintln!("skipped: real time is not permitted here: {error}");
            }
            let (_, priority, policy) = of_this_thread();
            assert_eq!((priority, policy), (1, libc::SCHED_RR));
            assert_eq!(std::thread::spawn(of_this_thread).join().unwrap().2, libc::SCHED_OTHER);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn the_default_changes_nothing() {
        assert_eq!(applied(Scheduling::Default), Some(of_this_thread()));
    }
}
