//! The form of a payload: a CBOR map (RFC 8949) with ascending integer keys, all lengths definite, no tags, no floating
//! point numbers, at most four levels deep, and nothing behind it.
//!
//! Keys below 128 may be unknown: they are skipped, and stay in the signed bytes. Keys from 128 on must be known,
//! because what they say changes the meaning of the rest.

use minicbor::data::Type;
use minicbor::decode::Decoder;

use super::refused::Refused;

/// How many maps and arrays may contain each other.
const MAX_DEPTH: usize = 4;
/// A key from here on must be known. No kind has one yet.
const FIRST_CRITICAL_KEY: u64 = 128;

/// Checks the form of `payload`.
pub(super) fn check(payload: &[u8]) -> Result<(), Refused> {
    let mut decoder = Decoder::new(payload);
    if decoder.datatype()? != Type::Map {
        return Err(Refused::Malformed);
    }
    value(&mut decoder, 1)?;
    if decoder.position() == payload.len() { Ok(()) } else { Err(Refused::Malformed) }
}

/// Checks the next value. `depth`: its own level if it is a map or an array.
fn value(decoder: &mut Decoder<'_>, depth: usize) -> Result<(), Refused> {
    match decoder.datatype()? {
        Type::U8 | Type::U16 | Type::U32 | Type::U64 => decoder.u64().map(drop)?,
        Type::Bytes => decoder.bytes().map(drop)?,
        Type::String => decoder.str().map(drop)?,
        Type::Bool => decoder.bool().map(drop)?,
        Type::Array if depth <= MAX_DEPTH => {
            let len = decoder.array()?.ok_or(Refused::Malformed)?;
            for _ in 0..len {
                value(decoder, depth + 1)?;
            }
        }
        Type::Map if depth <= MAX_DEPTH => map(decoder, depth)?,
        _ => return Err(Refused::Malformed),
    }
    Ok(())
}

fn map(decoder: &mut Decoder<'_>, depth: usize) -> Result<(), Refused> {
    let len = decoder.map()?.ok_or(Refused::Malformed)?;
    let mut last = None;
    for _ in 0..len {
        let key = decoder.u64()?;
        if last.is_some_and(|last| key <= last) {
            return Err(Refused::Malformed);
        }
        if key >= FIRST_CRITICAL_KEY {
            return Err(Refused::UnknownKey);
        }
        last = Some(key);
        value(decoder, depth + 1)?;
    }
    Ok(())
}
