//! The file of one relation: CBOR, with every signed object as the envelope it came in.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use overlay_wire::signed::{Object, PublicKey, Signed};
use zeroize::{Zeroize, Zeroizing};

use crate::agent::trust::{Asked, Pending, PresharedKey, Relation, Word};

/// The version of the format.
const VERSION: u8 = 1;

#[derive(Encode, Decode)]
#[cbor(map)]
struct File {
    #[n(0)]
    version: u8,
    #[n(1)]
    identity: PublicKey,
    #[n(2)]
    record: Option<ByteVec>,
    #[n(3)]
    mine: Option<StoredWord>,
    #[n(4)]
    theirs: Option<StoredWord>,
    #[cbor(n(5), with = "minicbor::bytes")]
    preshared_key: Option<[u8; 32]>,
    #[n(6)]
    asked: Option<ByteVec>,
    #[n(7)]
    pending: Option<ByteVec>,
    #[n(8)]
    pending_record: Option<ByteVec>,
    #[n(9)]
    answered: Option<ByteVec>,
    #[n(10)]
    is_barred: bool,
    #[n(11)]
    endpoints: Option<ByteVec>,
    #[cbor(n(12), with = "minicbor::bytes")]
    ipv4: Option<[u8; 4]>,
    #[cbor(n(13), with = "minicbor::bytes")]
    former_preshared_key: Option<[u8; 32]>,
    #[n(14)]
    floor: Option<u64>,
    #[n(15)]
    is_behind: Option<bool>,
    #[n(16)]
    is_withdrawn: Option<bool>,
}

#[derive(Encode, Decode)]
enum StoredWord {
    #[n(0)]
    Grant(#[n(0)] ByteVec),
    #[n(1)]
    Revoke(#[n(0)] ByteVec),
}

pub(super) fn write(relation: &Relation) -> Vec<u8> {
    let mut file = File {
        version: VERSION,
        identity: relation.identity,
        record: bytes(relation.record.as_ref()),
        mine: relation.mine.as_ref().map(stored),
        theirs: relation.theirs.as_ref().map(stored),
        preshared_key: relation.preshared_key.as_ref().map(|key| *key.0),
        asked: bytes(relation.asked.as_ref().map(|asked| &asked.request)),
        pending: bytes(relation.pending.as_ref().map(|pending| &pending.request)),
        pending_record: bytes(relation.pending.as_ref().map(|pending| &pending.record)),
        answered: bytes(relation.answered.as_ref()),
        is_barred: relation.is_barred,
        endpoints: bytes(relation.endpoints.as_ref()),
        ipv4: relation.ipv4,
        former_preshared_key: relation.former_preshared_key.as_ref().map(|key| *key.0),
        floor: Some(relation.floor).filter(|floor| *floor > 0),
        is_behind: relation.is_behind.then_some(true),
        is_withdrawn: relation.is_withdrawn.then_some(true),
    };
    let written = minicbor::to_vec(&file).unwrap_or_default();
    file.preshared_key.zeroize();
    file.former_preshared_key.zeroize();
    written
}

/// Reads a file. `None` if any part of it is not what it must be.
pub(super) fn read(bytes: &[u8]) -> Option<Relation> {
    let mut decoder = minicbor::Decoder::new(bytes);
    let file: File = decoder.decode().ok()?;
    if decoder.position() != bytes.len() || file.version != VERSION {
        return None;
    }
    let pending = match (opened(file.pending)?, opened(file.pending_record)?) {
        (Some(request), Some(record)) => Some(Pending { request, record }),
        (None, None) => None,
        _ => return None,
    };
    Some(Relation {
        identity: file.identity,
        record: opened(file.record)?,
        mine: word(file.mine)?,
        theirs: word(file.theirs)?,
        preshared_key: file.preshared_key.map(|key| PresharedKey(Zeroizing::new(key))),
        former_preshared_key: file.former_preshared_key.map(|key| PresharedKey(Zeroizing::new(key))),
        asked: opened(file.asked)?.map(|request| Asked { request }),
        pending,
        answered: opened(file.answered)?,
        endpoints: opened(file.endpoints)?,
        ipv4: file.ipv4,
        is_barred: file.is_barred,
        floor: file.floor.unwrap_or_default(),
        is_behind: file.is_behind.unwrap_or_default(),
        is_withdrawn: file.is_withdrawn.unwrap_or_default(),
    })
}

fn bytes<T: Object>(object: Option<&Signed<T>>) -> Option<ByteVec> {
    object.map(|object| object.bytes().to_vec().into())
}

/// Opens an envelope. The outer `None` is a damaged one.
fn opened<T: Object>(bytes: Option<ByteVec>) -> Option<Option<Signed<T>>> {
    match bytes {
        Some(bytes) => Signed::open(&bytes).ok().map(Some),
        None => Some(None),
    }
}

fn stored(word: &Word) -> StoredWord {
    match word {
        Word::Grant(grant) => StoredWord::Grant(grant.bytes().to_vec().into()),
        Word::Revoke(revoke) => StoredWord::Revoke(revoke.bytes().to_vec().into()),
    }
}

fn word(stored: Option<StoredWord>) -> Option<Option<Word>> {
    match stored {
        Some(StoredWord::Grant(bytes)) => Signed::open(&bytes).ok().map(|grant| Some(Word::Grant(grant))),
        Some(StoredWord::Revoke(bytes)) => Signed::open(&bytes).ok().map(|revoke| Some(Word::Revoke(revoke))),
        None => Some(None),
    }
}
