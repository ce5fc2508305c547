//! The target that opens signed objects.

use std::fmt::Debug;
use std::sync::LazyLock;

use overlay_wire::signed::{
    Approval, Auth, Bind, Endpoints, Envelope, Grant, Membership, Network, Object, Permit, PublicKey, Record,
    RelayBind, RelayPermit, Release, Request, Revoke, SecretKey, Signed, Token,
};

/// The keys that signed the seeds, `tests/vectors/objects.json`: key N has 32 secret bytes of N.
static KEYS: LazyLock<Vec<SecretKey>> =
    LazyLock::new(|| (1..=6).map(|byte| SecretKey::from_bytes(&[byte; 32])).collect());

/// An envelope: opens it as an object of every kind. What opens can be opened again, and keeps its bytes. A fuzzer cannot
/// make signatures, so what the payload says is also signed again if one of the keys of the seeds can sign it. That must
/// give an object that opens.
pub fn objects(data: &[u8]) {
    survive::<Network>(data);
    survive::<Record>(data);
    survive::<Grant>(data);
    survive::<Revoke>(data);
    survive::<Request>(data);
    survive::<Approval>(data);
    survive::<Endpoints>(data);
    survive::<Permit>(data);
    survive::<Token>(data);
    survive::<Membership>(data);
    survive::<Release>(data);
    survive::<Auth>(data);
    survive::<Bind>(data);
    survive::<RelayBind>(data);
    survive::<RelayPermit>(data);
}

fn survive<T: Object + Clone + Debug + PartialEq>(data: &[u8]) {
    let opened = Signed::<T>::open(data);
    if let Ok(opened) = &opened {
        assert_eq!(opened.bytes(), data);
        assert_eq!(Signed::open(opened.bytes()).as_ref(), Ok(opened));
        if let Some(key) = key_of(opened.signer()) {
            let again = Signed::sign(T::clone(opened), key).expect("what opened can be signed");
            assert_eq!(Signed::open(again.bytes()).as_ref(), Ok(&again));
        }
    }
    let Ok(envelope) = Envelope::parse(data) else { return };
    let Ok(value) = minicbor::decode::<T>(envelope.payload) else { return };
    let Some(key) = key_of(value.signer()) else { return };
    if let Ok(signed) = Signed::sign(value, key) {
        assert_eq!(Signed::open(signed.bytes()).as_ref(), Ok(&signed), "what we sign, others can open");
    }
}

fn key_of(public: &PublicKey) -> Option<&'static SecretKey> {
    KEYS.iter().find(|key| key.public() == *public)
}
