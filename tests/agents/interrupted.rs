//! Keys that change while daemons are killed or away.

use std::fs;
use std::thread;

use super::rotation::{DAY, is_rotated, key_file, own_key, peer, tunnel_file};
use super::*;
use crate::lab::{AT_LENGTH, Agents};

#[test]
fn a_daemon_that_is_killed_during_a_rotation_comes_back_with_a_key_that_works() {
    const MOMENTS: u32 = 20;
    let Some(mut world) = Agents::new("killed") else { return };
    let (mut alice, bob) = world.two();
    befriend(&alice, "--want any --allow any", &bob, "--allow any");
    let v4 = bob.v4();
    alice.host.reaches(&v4);
    let (mut keys, mut answered) = (vec![own_key(&alice)], 0);
    for moment in 0..MOMENTS {
        within(AT_LENGTH, "the last rotation to end", || (tunnel_file(&alice).len() == 1).then_some(()));
        let before = own_key(&alice);
        let rotate = ["key rotate", "key rotate --compromised"][usize::from(moment % 4 == 3)];
        let state = alice.host.dir().join("state");
        let line = format!("--state-dir {} {rotate} --json", state.display());
        let command = alice.host.start(alice.host.overlay_command(line), "overlay key rotate");
        // The whole takes some milliseconds.
        thread::sleep(Duration::from_micros(u64::from(moment) * 1_500));
        alice.kill9();
        let answer = command.finish_within(SHORTLY);
        alice.start();
        let now = own_key(&alice);
        if answer.code == 0 {
            answered += 1;
            let rotated: Value = serde_json::from_str(&answer.stdout).expect("JSON");
            assert_eq!(rotated["tunnel_key"], *now, "moment {moment}: what was answered holds");
        }
        if now != before {
            keys.push(now);
        }
        within(AT_LENGTH, &format!("the tunnel after moment {moment}"), || {
            (alice.host.run(format!("ping -n -q -c 1 -W 0.2 {v4}")).code == 0).then_some(())
        });
        within(AT_LENGTH, &format!("bob to have the key of moment {moment}"), || {
            (peer(&bob)["public_key"] == *own_key(&alice)).then_some(())
        });
    }
    eprintln!("{MOMENTS} kills: {} new keys, {answered} commands answered", keys.len() - 1);
    assert_eq!(bob.peer("alice")["state"], "trusted");
}

#[test]
fn a_peer_that_is_killed_while_it_learns_the_new_key_comes_back_with_a_tunnel() {
    const MOMENTS: u32 = 10;
    let Some(mut world) = Agents::new("killed peer") else { return };
    let (alice, mut bob) = world.two();
    befriend(&alice, "--want any --allow any", &bob, "--allow any");
    let v4 = bob.v4();
    alice.host.reaches(&v4);
    let mut learned = 0;
    for moment in 0..MOMENTS {
        let before = own_key(&alice);
        alice.ask("key rotate");
        thread::sleep(Duration::from_micros(u64::from(moment) * 1_500));
        bob.kill9();
        bob.start();
        learned += u32::from(peer(&bob)["public_key"] != *before);
        within(AT_LENGTH, &format!("the tunnel after moment {moment}"), || {
            (alice.host.run(format!("ping -n -q -c 1 -W 0.2 {v4}")).code == 0).then_some(())
        });
        is_rotated(&bob, &alice);
    }
    eprintln!("{MOMENTS} kills: the key was known {learned} times at the start");
}

#[test]
fn letters_for_the_former_mailbox_keys_are_still_opened() {
    let Some(mut world) = Agents::new("mailbox keys") else { return };
    let (alice, mut bob) = world.two();
    bob.kill9();
    alice.ask("handshake bob --want any");
    within(SHORTLY, "the letter to be sent", || (alice.peer("bob")["state"] == "asked").then_some(()));
    // Bob's keys are 31 days old. He replaces them at his start, and the letter waits for the ones before.
    let path = key_file(&bob, "mailbox.key");
    let before = fs::read_to_string(&path).expect("the mailbox keys");
    let secret = before.lines().next().expect("a line");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let now = u64::try_from(now.as_millis()).expect("before the year 500,000,000");
    fs::write(&path, format!("{secret}\nsince {}\n", now - 31 * DAY)).expect("our own file");
    bob.start();
    within(SHORTLY, "new mailbox keys", || {
        let text = fs::read_to_string(&path).expect("the mailbox keys");
        text.ends_with(&format!("\nformer {secret}\n")).then_some(())
    });
    bob.is_asked_by("alice");
    bob.ask("approve alice");
    alice.sees("bob", "trusted");
    alice.host.reaches(&bob.v4());
    // A new letter is sealed for the new keys, and the former ones go after 15 days.
    bob.kill9();
    let text = fs::read_to_string(&path).expect("the mailbox keys");
    let (new, _) = text.split_once('\n').expect("lines");
    fs::write(&path, format!("{new}\nsince {}\nformer {secret}\n", now - 16 * DAY)).expect("our own file");
    bob.start();
    within(SHORTLY, "the former keys to be deleted", || {
        let text = fs::read_to_string(&path).expect("the mailbox keys");
        (text.lines().count() == 2 && text.starts_with(new)).then_some(())
    });
    alice.ask("untrust bob");
    bob.sees("alice", "untrusted");
}
