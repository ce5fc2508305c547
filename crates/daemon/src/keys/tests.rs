//! Keys against the stock tool's, and every reason to refuse one.

use overlay_golden::golden;

use super::*;

/// Created by `wg genkey` and `wg pubkey`.
const PRIVATE: &str = "YHNo4QQ3GZLL7pYcGBRlXA1fPQ3zoVcPGsdfDYMM9VE=";
const PUBLIC: &str = "R2iW4KAwjOrKGU3UKkqY5tSkxt8ai44r7GaojS2WBR4=";

#[test]
fn the_public_key_is_the_one_that_wg_computes() {
    let key = PrivateKey::from_base64(PRIVATE).unwrap();
    assert_eq!(encode_public(&key.public()), PUBLIC);
    assert_eq!(*key.to_base64(), PRIVATE);
    assert_eq!(decode_public(PUBLIC), Ok(key.public()));
}

#[test]
fn a_new_key_is_clamped_and_no_other_one() {
    let (one, other) = (PrivateKey::generate(), PrivateKey::generate());
    assert!(one != other);
    let bytes = one.to_bytes();
    assert_eq!((bytes[0] & 7, bytes[31] & 0xc0), (0, 0x40));
    assert!(PrivateKey::from_base64(&one.to_base64()).unwrap() == one);
    assert!(*generate_preshared() != *generate_preshared());
}

#[test]
fn every_way_to_miswrite_a_key_has_its_reason() {
    let hexadecimal = "60736".repeat(13)[..64].to_owned();
    let reasons = [
        ("", KeyError::Empty),
        (" \n", KeyError::Empty),
        (hexadecimal.as_str(), KeyError::Hexadecimal),
        ("YHNo4QQ3GZLL7pYcGBRlXA1fPQ3zoVcPGsdfDYMM9V-=", KeyError::UrlAlphabet(43)),
        ("YHNo_QQ3GZLL7pYcGBRlXA1fPQ3zoVcPGsdfDYMM9VE=", KeyError::UrlAlphabet(5)),
        ("YHNo!QQ3GZLL7pYcGBRlXA1fPQ3zoVcPGsdfDYMM9VE=", KeyError::Alphabet(5)),
        ("YHNo4QQ3GZLL7pYcGBRlXA1fPQ3z oVcPGsdfDYMM9VE=", KeyError::Alphabet(29)),
        ("YHNo4QQ3GZLL7pYcGBRlXA1fPQ3zoVcPGsdfDYMM9VE", KeyError::Length(43)),
        ("a", KeyError::Length(1)),
        ("YHNo4QQ3GZLL7pYcGBRlXA1fPQ3zoVcPGsdfDYMM9VEa", KeyError::Padding),
        ("YHNo4QQ3GZLL7pYcGBRlXA1fPQ3zoVcPGsdfDYMM9V==", KeyError::Padding),
        ("YHNo4QQ3GZLL7pYcGBRlXA1fPQ3zoVcPGsdfDYMM9VF=", KeyError::TrailingBits),
        ("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", KeyError::AllZero),
    ];
    for (text, reason) in reasons {
        golden(format!("{reason:?}"), reason.to_string());
        assert_eq!(PrivateKey::from_base64(text), Err(reason), "{text}");
    }
    assert!(PrivateKey::from_base64(&format!(" {PRIVATE}\n")).is_ok(), "white space around a key is not a mistake");
}

#[test]
fn no_reason_holds_a_character_of_the_key() {
    let error = PrivateKey::from_base64("§HNo4QQ3GZLL7pYcGBRlXA1fPQ3zoVcPGsdfDYMM9VE=").unwrap_err();
    golden("a character that is not of base64", error.to_string());
    assert_eq!(format!("{:?}", PrivateKey::from_base64(PRIVATE).unwrap()), "PrivateKey(redacted)");
}

#[test]
fn a_low_order_public_key_is_refused() {
    let mut point = [0; 32];
    for (first, top) in [(0, 0), (1, 0), (0, 0x80)] {
        (point[0], point[31]) = (first, top);
        assert_eq!(decode_public(&STANDARD.encode(point)), Err(KeyError::LowOrder));
    }
}
