//! Mailboxes and slots: who gets room, and at whose cost.

use super::slots::MAX_SLOTS;
use super::*;
use crate::protocol::Slot;

const BOB: PublicKey = PublicKey([1; 32]);
const PLENTY: usize = 1 << 30;

fn sender(n: u32) -> PublicKey {
    let mut key = [9; 32];
    key[..4].copy_from_slice(&n.to_be_bytes());
    PublicKey(key)
}

fn key(from: u32, id: u8) -> MessageKey {
    (sender(from), [id; 16])
}

fn message(len: usize, arrived: u64, is_permitted: bool) -> Message {
    Message { sealed: Some(vec![7; len]), arrived, is_permitted, is_kept: false }
}

fn admitted(dropped: &[MessageKey]) -> Admission {
    Admission::Admitted { dropped: dropped.to_vec() }
}

#[test]
fn strangers_share_half_of_a_mailbox_with_one_message_each() {
    let mut mail = Mailboxes::new(PLENTY);
    for n in 0..32 {
        assert_eq!(mail.admit(BOB, key(n, 0), message(10, 0, false)), admitted(&[]));
    }
    assert_eq!(mail.admit(BOB, key(99, 0), message(10, 1, false)), Admission::Full);
    assert_eq!(mail.admit(BOB, key(5, 1), message(10, 1, false)), admitted(&[key(5, 0)]), "its own makes room");
    for n in 0..32 {
        assert_eq!(
            mail.admit(BOB, key(7, 100 + n), message(10, 2, true)),
            admitted(&[]),
            "permits have the other half"
        );
    }
    assert_eq!(mail.admit(BOB, key(7, 200), message(10, 3, true)), admitted(&[key(7, 100)]));
    assert_eq!(mail.admit(BOB, key(8, 1), message(10, 3, true)), Admission::Full);
}

#[test]
fn bytes_are_bounded_like_messages() {
    let mut mail = Mailboxes::new(PLENTY);
    let large = MAX_HALF_LEN / 4;
    for n in 0..4 {
        assert_eq!(mail.admit(BOB, key(1, n), message(large, u64::from(n), true)), admitted(&[]));
    }
    assert_eq!(mail.admit(BOB, key(2, 0), message(1, 9, true)), Admission::Full);
    let two = admitted(&[key(1, 0), key(1, 1)]);
    assert_eq!(mail.admit(BOB, key(1, 9), message(large + 1, 9, true)), two, "as many as needed are dropped");
    let mut mail = Mailboxes::new(OVERHEAD + 100);
    assert_eq!(mail.admit(BOB, key(1, 0), message(100, 0, false)), admitted(&[]));
    assert_eq!(mail.admit(sender(50), key(1, 0), message(1, 0, false)), Admission::Full, "all together are bounded");
    assert_eq!(mail.boxes.len(), 1, "a refused message leaves nothing behind");
    assert_eq!(mail.admit(BOB, key(1, 1), message(99, 1, false)), admitted(&[key(1, 0)]));
}

#[test]
fn a_message_is_shown_once_it_is_kept_and_until_it_is_acknowledged() {
    let mut mail = Mailboxes::new(PLENTY);
    mail.admit(BOB, key(1, 1), message(10, 5, false));
    assert_eq!(mail.waiting(&BOB), []);
    assert!(mail.on_kept(&BOB, &key(1, 1)).is_some());
    assert_eq!(mail.waiting(&BOB), [(key(1, 1), vec![7; 10])]);
    let again = mail.admit(BOB, key(1, 1), message(10, 6, false));
    assert_eq!(again, Admission::Known { is_kept: true, is_delivered: false });
    assert!(mail.on_delivered(&BOB, &key(1, 1)) && !mail.on_delivered(&BOB, &key(1, 1)));
    assert_eq!((mail.waiting(&BOB), mail.len), (Vec::new(), OVERHEAD), "its receipt costs something");
    let again = mail.admit(BOB, key(1, 1), message(10, 6, false));
    assert_eq!(again, Admission::Known { is_kept: true, is_delivered: true }, "it is not delivered a second time");
    assert!(mail.on_told(&BOB, &key(1, 1)) && !mail.on_told(&BOB, &key(1, 1)));
    assert!(
        mail.remove(&BOB, &key(1, 1)).is_some() && mail.boxes.is_empty() && mail.untold.is_empty() && mail.len == 0
    );
}

#[test]
fn receipts_are_bounded() {
    let mut mail = Mailboxes::new(PLENTY);
    for n in 0..MAX_RECEIPTS as u32 {
        assert_eq!(mail.oldest_receipts(&BOB), []);
        mail.admit(BOB, key(n, 0), message(10, u64::from(n), false));
        mail.on_delivered(&BOB, &key(n, 0));
    }
    assert_eq!(mail.oldest_receipts(&BOB), [key(0, 0)]);
}

#[test]
fn a_slot_is_replaced_and_costs_room_once() {
    let mut slots = Slots::new(OVERHEAD * 2 + 10);
    let slot = (sender(1), Slot::Endpoints);
    let nobody = |_: &PublicKey| false;
    assert_eq!(slots.place(BOB, slot, (&[1; 6], 0), nobody), Placement::Room { dropped: None });
    assert_eq!(slots.of(&BOB, &slot.0), [], "it is shown once it is on disk");
    slots.on_kept(&BOB, &slot, vec![1; 6], 0);
    assert_eq!(slots.of(&BOB, &slot.0), [(Slot::Endpoints, vec![1; 6])]);
    assert_eq!(slots.place(BOB, slot, (&[1; 6], 1), nobody), Placement::Same);
    assert_eq!(slots.place(BOB, (sender(2), Slot::Word), (&[1; 5], 1), nobody), Placement::Full);
    assert_eq!(slots.place(BOB, slot, (&[2; 4], 1), nobody), Placement::Room { dropped: None });
    slots.on_kept(&BOB, &slot, vec![2; 4], 1);
    assert_eq!(slots.len, OVERHEAD + 4);
    slots.remove(&BOB, &slot);
    assert!(slots.len == 0 && slots.to.is_empty());
}

#[test]
fn room_that_was_reserved_for_lost_bytes_is_given_back() {
    let mut slots = Slots::new(PLENTY);
    let slot = (sender(1), Slot::Word);
    slots.place(BOB, slot, (&[1], 0), |_| false);
    slots.on_lost(&BOB, &slot);
    assert!(slots.to.is_empty() && slots.len == 0);
    slots.restore(BOB, slot, vec![1], 0);
    slots.place(BOB, slot, (&[2], 0), |_| false);
    slots.on_lost(&BOB, &slot);
    assert_eq!(slots.of(&BOB, &slot.0), [(Slot::Word, vec![1])], "what was there before stays");
}

#[test]
fn a_watched_agent_finds_room_among_strangers() {
    let mut slots = Slots::new(PLENTY);
    for n in 0..MAX_SLOTS as u32 {
        let placed = slots.place(BOB, (sender(n), Slot::Word), (&[1], u64::from(n)), |_| false);
        assert_eq!(placed, Placement::Room { dropped: None });
    }
    let friend = sender(u32::MAX);
    let is_watched = |from: &PublicKey| *from == friend || *from == sender(0);
    assert_eq!(slots.place(BOB, (sender(7_777), Slot::Word), (&[1], 9), is_watched), Placement::Full);
    let placed = slots.place(BOB, (friend, Slot::Word), (&[1], 9), is_watched);
    assert_eq!(placed, Placement::Room { dropped: Some((sender(1), Slot::Word)) });
    assert_eq!(slots.place(BOB, (sender(u32::MAX - 1), Slot::Word), (&[1], 9), |_| true), Placement::Full);
}

#[test]
fn a_slot_is_replaced_even_when_all_slots_together_are_full() {
    let mut slots = Slots::new(OVERHEAD + 6);
    let slot = (sender(1), Slot::Word);
    let nobody = |_: &PublicKey| false;
    slots.place(BOB, slot, (&[1; 6], 0), nobody);
    slots.on_kept(&BOB, &slot, vec![1; 6], 0);
    assert_eq!(slots.len, OVERHEAD + 6, "nothing is free");
    assert_eq!(slots.place(BOB, slot, (&[2; 7], 1), nobody), Placement::Full);
    assert_eq!(slots.place(BOB, slot, (&[2; 6], 1), nobody), Placement::Room { dropped: None });
}

#[test]
fn a_slot_that_was_dropped_while_it_was_written_stays_dropped() {
    let mut slots = Slots::new(PLENTY);
    let slot = (sender(1), Slot::Word);
    slots.place(BOB, slot, (&[1], 0), |_| false);
    slots.remove(&BOB, &slot);
    assert!(!slots.on_kept(&BOB, &slot, vec![1], 0));
    assert!(slots.to.is_empty() && slots.len == 0, "{slots:?}");
}
