//! A node, and a stranger without a key who has recorded earlier messages.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use overlay_core::Joins;

use super::Input;
use super::node::{Options, Scene, home};
use crate::initiator::{Initiator, Timestamp};

/// The most time that passes, so that the session does not expire.
const LONGEST: Duration = Duration::from_secs(60);

/// Passes arbitrary datagrams of a stranger to the node. None must be delivered, no answer may be longer than the
/// question or go elsewhere, and the session must survive.
pub fn node_stranger(data: &[u8]) {
    let mut input = Input::new(data);
    let mut scene = Scene::new(Options {
        mtu: 1420,
        joins: Joins::NOTHING,
        knows_addresses: true,
        allow: None,
        mtu_discovery: false,
        finds_paths: false,
    });
    let mut stranger = Initiator::new([3; 32], scene.node.public_key().expect("it has a key").0, 4);
    let began = scene.now;
    let source: SocketAddr = (Ipv4Addr::new(198, 51, 100, 66), 666).into();
    while !input.is_empty() {
        let (contents, stride) = match input.byte() % 8 {
            0 | 1 => {
                let stride = usize::from(input.word());
                (input.part().to_vec(), stride)
            }
            2 => {
                let span = Duration::from_millis(u64::from(input.word()));
                if (scene.now + span).since(began) < LONGEST {
                    scene.pass(span);
                    // The node's own keepalives.
                    let (sent, delivered) = scene.drain();
                    assert!(delivered.is_empty() && sent.iter().all(|(to, _)| *to == home()));
                }
                continue;
            }
            kind => {
                let count = usize::from(input.byte() % 80) + 1;
                let message = message(kind, &mut input, &scene, &mut stranger);
                let stride = message.len();
                (message.repeat(count), stride)
            }
        };
        scene.hear(source, &contents, stride);
        let (sent, delivered) = scene.drain();
        assert!(delivered.is_empty(), "a stranger's packet was delivered");
        let questions = contents.chunks(stride.max(1)).count();
        let longest = contents.chunks(stride.max(1)).map(<[u8]>::len).max().unwrap_or(0);
        assert!(sent.len() <= questions);
        assert!(sent.iter().all(|(to, answer)| *to == source && answer.len() < longest), "an answer to a stranger");
    }
    scene.is_alive();
}

/// Builds a message that resembles a valid one, with some bytes changed, and perhaps signed again.
fn message(kind: u8, input: &mut Input<'_>, scene: &Scene, stranger: &mut Initiator) -> Vec<u8> {
    let index = scene.session.peer_index;
    let of_type = |kind: u8, len: usize, receiver_at: usize| {
        let mut message = vec![0x77; len];
        message[..4].copy_from_slice(&[kind, 0, 0, 0]);
        message[receiver_at..receiver_at + 4].copy_from_slice(&index.to_le_bytes());
        message
    };
    let mut message = match kind {
        3 => stranger.initiate(Timestamp::from_unix_seconds(u64::from(input.byte())), 9).message,
        4 => scene.messages[usize::from(input.byte()) % scene.messages.len()].clone(),
        5 => of_type(2, 92, 8),
        6 => of_type(3, 64, 8),
        _ => of_type(4, 32 + usize::from(input.byte()), 4),
    };
    let is_signed = input.byte().is_multiple_of(2);
    input.edit(&mut message);
    if is_signed && matches!(message.len(), 148 | 92) {
        stranger.sign(&mut message, None);
    }
    message
}
