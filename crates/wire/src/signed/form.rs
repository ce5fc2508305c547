//! The form of a payload: a CBOR map (RFC 8949) with ascending integer keys, all lengths definite, numbers and
//! lengths in as few bytes as possible, no tags, no nulls, no negative or floating point numbers, at most four levels
//! deep, and nothing behind it.
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

/// Checks that `payload` says what `own`, the encoding of what was decoded from it, says: in the same bytes, but for keys
/// that `own` does not have. minicbor skips elements behind the last known one of an array, which nobody would see.
pub(super) fn check_decoded(payload: &[u8], own: &[u8]) -> Result<(), Refused> {
    let (theirs, own) = (entries(payload)?, entries(own)?);
    if own.iter().all(|entry| theirs.contains(entry)) { Ok(()) } else { Err(Refused::Malformed) }
}

/// The bytes of each key and its value.
fn entries(payload: &[u8]) -> Result<Vec<&[u8]>, Refused> {
    let mut decoder = Decoder::new(payload);
    let len = decoder.map()?.ok_or(Refused::Malformed)?;
    let mut entries = Vec::new();
    for _ in 0..len {
        let start = decoder.position();
        decoder.skip()?;
        decoder.skip()?;
        entries.push(&payload[start..decoder.position()]);
    }
    Ok(entries)
}

/// Checks the next value. `depth`: its own level if it is a map or an array.
fn value(decoder: &mut Decoder<'_>, depth: usize) -> Result<(), Refused> {
    match decoder.datatype()? {
        Type::U8 | Type::U16 | Type::U32 | Type::U64 => number(decoder).map(drop)?,
        Type::Bytes => {
            let start = decoder.position();
            let len = decoder.bytes()?.len();
            is_shortest(decoder.position() - start - len, len as u64)?;
        }
        Type::String => {
            let start = decoder.position();
            let len = decoder.str()?.len();
            is_shortest(decoder.position() - start - len, len as u64)?;
        }
        Type::Bool => decoder.bool().map(drop)?,
        Type::Array if depth <= MAX_DEPTH => {
            let start = decoder.position();
            let len = decoder.array()?.ok_or(Refused::Malformed)?;
            is_shortest(decoder.position() - start, len)?;
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
    let start = decoder.position();
    let len = decoder.map()?.ok_or(Refused::Malformed)?;
    is_shortest(decoder.position() - start, len)?;
    let mut last = None;
    for _ in 0..len {
        let key = number(decoder)?;
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

fn number(decoder: &mut Decoder<'_>) -> Result<u64, Refused> {
    let start = decoder.position();
    let number = decoder.u64()?;
    is_shortest(decoder.position() - start, number)?;
    Ok(number)
}

/// Checks that a number, or a length, stands in as few bytes as possible (RFC 8949 section 4.2.1).
fn is_shortest(written: usize, number: u64) -> Result<(), Refused> {
    let shortest = match number {
        0..24 => 1,
        24..=0xff => 2,
        0x100..=0xffff => 3,
        0x1_0000..=0xffff_ffff => 5,
        _ => 9,
    };
    if written == shortest { Ok(()) } else { Err(Refused::Malformed) }
}
