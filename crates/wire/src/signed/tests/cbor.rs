//! CBOR written by hand, so that a test can write what the encoder never would, and envelopes around it.

use minicbor::data::Type;
use minicbor::decode::Decoder;

use super::super::{Envelope, Kind, SecretKey};

/// A CBOR value.
#[derive(Clone, Debug)]
pub(super) enum Cbor {
    Number(u64),
    Bytes(Vec<u8>),
    Text(String),
    Array(Vec<Self>),
    Map(Vec<(u64, Self)>),
    Bool(bool),
    /// These bytes as they are.
    Raw(Vec<u8>),
}

impl Cbor {
    pub(super) fn raw(bytes: &[u8]) -> Self {
        Self::Raw(bytes.to_vec())
    }

    pub(super) fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    /// Reads a payload of ours.
    pub(super) fn read(payload: &[u8]) -> Self {
        read(&mut Decoder::new(payload))
    }

    /// The map with a key that has a different value, or a further one.
    pub(super) fn with(mut self, key: u64, value: Self) -> Self {
        let Self::Map(entries) = &mut self else { panic!("not a map") };
        match entries.iter_mut().find(|(found, _)| *found == key) {
            Some((_, old)) => *old = value,
            None => {
                entries.push((key, value));
                entries.sort_by_key(|(key, _)| *key);
            }
        }
        self
    }

    /// The map without a key.
    pub(super) fn without(mut self, key: u64) -> Self {
        let Self::Map(entries) = &mut self else { panic!("not a map") };
        entries.retain(|(found, _)| *found != key);
        self
    }

    /// The bytes of the entries, in the order of `keys`.
    pub(super) fn entries(&self, keys: impl IntoIterator<Item = usize>) -> Vec<u8> {
        let Self::Map(entries) = self else { panic!("not a map") };
        keys.into_iter().flat_map(|at| [head(0, entries[at].0), entries[at].1.bytes()].concat()).collect()
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Number(number) => head(0, *number),
            Self::Bytes(bytes) => [head(2, bytes.len() as u64), bytes.clone()].concat(),
            Self::Text(text) => [head(3, text.len() as u64), text.clone().into_bytes()].concat(),
            Self::Array(values) => {
                [head(4, values.len() as u64), values.iter().flat_map(Self::bytes).collect()].concat()
            }
            Self::Map(entries) => [head(5, entries.len() as u64), self.entries(0..entries.len())].concat(),
            Self::Bool(value) => vec![0xf4 + u8::from(*value)],
            Self::Raw(bytes) => bytes.clone(),
        }
    }
}

/// The first bytes of a value, as short as possible (RFC 8949 section 3).
pub(super) fn head(major: u8, number: u64) -> Vec<u8> {
    let first = |low: u8| vec![major << 5 | low];
    match number {
        0..24 => first(number as u8),
        24..=0xff => [first(24), vec![number as u8]].concat(),
        0x100..=0xffff => [first(25), (number as u16).to_be_bytes().to_vec()].concat(),
        0x1_0000..=0xffff_ffff => [first(26), (number as u32).to_be_bytes().to_vec()].concat(),
        _ => [first(27), number.to_be_bytes().to_vec()].concat(),
    }
}

fn read(decoder: &mut Decoder<'_>) -> Cbor {
    const OURS: &str = "our own CBOR";
    match decoder.datatype().expect(OURS) {
        Type::Bytes => Cbor::Bytes(decoder.bytes().expect(OURS).to_vec()),
        Type::String => Cbor::text(decoder.str().expect(OURS)),
        Type::Bool => Cbor::Bool(decoder.bool().expect(OURS)),
        Type::Array => {
            let len = decoder.array().expect(OURS).expect(OURS);
            Cbor::Array((0..len).map(|_| read(decoder)).collect())
        }
        Type::Map => {
            let len = decoder.map().expect(OURS).expect(OURS);
            Cbor::Map((0..len).map(|_| (decoder.u64().expect(OURS), read(decoder))).collect())
        }
        _ => Cbor::Number(decoder.u64().expect(OURS)),
    }
}

/// The payload of an envelope of ours.
pub(super) fn payload(envelope: &[u8]) -> Cbor {
    Cbor::read(Envelope::parse(envelope).expect("an envelope of ours").payload)
}

/// Signs any payload as one of this kind.
pub(super) fn signature(kind: Kind, payload: &[u8], key: &SecretKey) -> Vec<u8> {
    key.sign(&[b"overlay/1 ", kind.word().as_bytes(), b"\0", payload].concat()).to_vec()
}

/// The envelope of any payload with any signature.
pub(super) fn envelope(payload: &[u8], signature: &[u8]) -> Vec<u8> {
    let parts = [Cbor::Number(1), Cbor::raw(&Cbor::Bytes(payload.to_vec()).bytes()), Cbor::Bytes(signature.to_vec())];
    Cbor::Array(parts.to_vec()).bytes()
}

/// The envelope of any payload with a good signature.
pub(super) fn sign(kind: Kind, payload: &[u8], key: &SecretKey) -> Vec<u8> {
    envelope(payload, &signature(kind, payload, key))
}
