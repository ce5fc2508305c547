//! Keys and their texts.

use super::super::*;
use super::good::{alice, key};
use super::hostile::{WEAK, second_encoding};

#[test]
fn a_key_has_exactly_one_text() {
    let public = alice().public();
    let text = public.to_string();
    assert_eq!((text.len(), text.parse()), (KEY_TEXT_LEN, Ok(public)));
    assert_eq!(public.prefix(16), text[..16]);
    let different_end = |end: char| format!("{}{end}", &text[..KEY_TEXT_LEN - 1]);
    let ends = ('a'..='z').chain('2'..='7').filter(|end| different_end(*end).parse::<PublicKey>().is_ok());
    assert_eq!(ends.collect::<String>(), "aq");
    for wrong in bad_texts() {
        assert_eq!(wrong.parse::<PublicKey>(), Err(NotAKey), "{wrong:?}");
    }
}

/// Texts that are not the text of a key, though close to one.
pub(super) fn bad_texts() -> Vec<String> {
    let text = alice().public().to_string();
    vec![
        String::new(),
        text.to_uppercase(),
        text[..KEY_TEXT_LEN - 1].to_owned(),
        format!("{text}a"),
        format!("{text}===="),
        format!(" {text}"),
        format!("{text}\n"),
        format!("{}b", &text[..KEY_TEXT_LEN - 1]),
        format!("1{}", &text[1..]),
        text[..48].to_owned(),
    ]
}

#[test]
fn only_a_point_in_its_only_encoding_and_of_large_order_is_a_good_key() {
    // The points of small order (RFC 8032 has one of them as its neutral element), with either sign of x.
    let order_8 = [
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    ];
    let order_8 = order_8.map(|hex| crate::vectors::bytes(hex).try_into().expect("32 bytes"));
    let minus_one = {
        let mut point = [0xff; 32];
        (point[0], point[31]) = (0xec, 0x7f);
        point
    };
    for point in [WEAK, [0; 32], minus_one, order_8[0], order_8[1], second_encoding(), [2; 32]] {
        for sign in [0, 0x80] {
            let mut point = point;
            point[31] ^= sign;
            assert_eq!(PublicKey(point).check(), Err(Refused::WeakKey), "{point:02x?}");
        }
    }
    for byte in 1..100 {
        assert_eq!(key(byte).public().check(), Ok(()));
    }
}

#[test]
fn a_signature_with_a_point_of_small_order_is_refused() {
    // R is the point of order 1, and S was computed from alice's secret key, so the equation holds. Verifiers disagree on
    // such signatures.
    let s = "5ca5dc1e69a0dadd05fcf49c6ad592378966a79da18872d04b4bfddbf43d6407";
    let signature = [&WEAK[..], &crate::vectors::bytes(s)].concat().try_into().expect("64 bytes");
    assert_eq!(alice().public().verify(b"overlay", &signature), Err(Refused::BadSignature));
    assert_eq!(alice().public().verify(b"overlay", &alice().sign(b"overlay")), Ok(()));
}

#[test]
fn a_secret_key_is_its_32_bytes() {
    // RFC 8032 section 7.1, test 1.
    let secret = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
    let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
    let key = SecretKey::from_bytes(&crate::vectors::bytes(secret).try_into().expect("32 bytes"));
    assert_eq!(key.public().0.to_vec(), crate::vectors::bytes(public));
    assert_eq!(key.to_bytes().to_vec(), crate::vectors::bytes(secret));
}
