//! How two agents come to hold both grants and the same preshared key.

use overlay_rendezvous::preshared::{Half, preshared_key};
use overlay_wire::signed::{Approval, Grant, PublicKey, Record, SecretKey, Share, Signed};

use super::relation::{Pending, Relation, Word};
use super::{Chance, Effect, Impossible, Moment, Terms};

/// Both sides have asked: each request approves the other.
pub(super) fn complete(relation: &mut Relation, me: &PublicKey, pending: &Pending) {
    let Some(asked) = relation.asked.take() else { return };
    let ours = Half { identity: me, share: &asked.request.psk_share, envelope: asked.request.bytes() };
    let theirs =
        Half { identity: &relation.identity, share: &pending.request.psk_share, envelope: pending.request.bytes() };
    relation.replace_key(preshared_key(ours, theirs));
    relation.note_theirs(pending);
    relation.pin(&pending.record);
}

/// Answers a request with a grant.
pub(super) fn answer(
    relation: &mut Relation,
    key: &SecretKey,
    own_record: &Signed<Record>,
    pending: &Pending,
    terms: Terms,
    now: Moment,
    chance: Chance,
) -> Result<Vec<Effect>, Impossible> {
    let (peer, request) = (relation.identity, &pending.request);
    let grant = Grant {
        network: request.network,
        issuer: key.public(),
        subject: peer,
        sequence: relation.next_sequence(now.wall),
        issued: now.wall,
        expires: terms.expires,
        allow: terms.allow.unwrap_or_default(),
        request: Some(request.id),
    };
    let grant = Signed::sign(grant, key).map_err(|_| Impossible::BadValue)?;
    let approval = Approval {
        network: request.network,
        from: key.public(),
        to: peer,
        request: request.id,
        grant: grant.bytes().to_vec(),
        psk_share: Share(chance.share),
    };
    let approval = Signed::sign(approval, key).map_err(|_| Impossible::BadValue)?;
    let me = key.public();
    let ours = Half { identity: &me, share: &approval.psk_share, envelope: approval.bytes() };
    let theirs = Half { identity: &peer, share: &request.psk_share, envelope: request.bytes() };
    relation.replace_key(preshared_key(ours, theirs));
    relation.note_theirs(pending);
    relation.pin(&pending.record);
    relation.mine = Some(Word::Grant(grant));
    relation.asked = None;
    relation.pending = None;
    relation.is_barred = false;
    relation.is_withdrawn = false;
    relation.is_behind = false;
    relation.answered = Some(approval);
    let letter = relation.answer_letter(own_record);
    let send = letter.map(|letter| Effect::Send { to: peer, id: request.id, letter });
    Ok(std::iter::once(Effect::Changed(peer)).chain(send).collect())
}
