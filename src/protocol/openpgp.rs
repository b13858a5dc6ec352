//! `OpenPGP` signatures (RFC 9580) over documents: is this what a holder of one of these keys signed?
//!
//! It knows keys, signatures and bytes; not whose they are or what follows from a verdict. Pure: it
//! has no clock, so the expiry of keys is left to clients, which check it again. A key that says of
//! itself that it was revoked signs nothing here.

use std::fmt::Write as _;
use std::io::Cursor;

use pgp::composed::{
    CleartextSignedMessage, Deserializable as _, DetachedSignature, SignedPublicKey, SignedPublicSubKey,
};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Signature, SignatureType};
use pgp::types::KeyDetails;

/// The most keys of a keyring that are looked at.
const MAX_KEYS: usize = 256;
/// The most signatures of one document that are looked at.
const MAX_SIGNATURES: usize = 32;
/// What an armored key begins with (RFC 9580 section 6.2).
const KEY_BLOCK: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----";

/// Why a document is not trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// There are no keys to verify with.
    #[error("the keyring holds no usable OpenPGP key")]
    NoKeys,
    /// There is no signature that can be read.
    #[error("there is no OpenPGP signature that can be read")]
    NoSignature,
    /// Nobody of the keyring has signed.
    #[error("signed by key {signer}, not by one of the keys {known}")]
    UnknownKey {
        /// The key that the signature names, in upper-case hex; more than one with commas between.
        signer: String,
        /// The keys of the ring.
        known: String,
    },
    /// A key of the keyring is named, but the signature is not its own over these bytes.
    #[error("the signature by key {key} does not fit the content")]
    Wrong {
        /// The key, in upper-case hex.
        key: String,
    },
    /// The key has been revoked.
    #[error("signed by key {key}, which was revoked")]
    Revoked {
        /// The key, in upper-case hex.
        key: String,
    },
    /// The signature is made with a hash that can be forged.
    #[error("the signature by key {key} uses {hash}, which can be forged")]
    Weak {
        /// The key, in upper-case hex.
        key: String,
        /// The hash algorithm.
        hash: String,
    },
}

/// Who signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer {
    /// The id of the key that signed, 16 upper-case hex digits; a subkey's if that signed.
    pub key: String,
    /// The fingerprint of the primary key, upper-case hex digits.
    pub fingerprint: String,
}

/// Keys, one of which must have signed.
#[derive(Debug)]
pub struct Keyring(Vec<SignedPublicKey>);

impl Keyring {
    /// Reads a ring, binary or armored, with any number of keys. Those that cannot be read are left out:
    /// rings hold keys of all ages.
    ///
    /// # Errors
    /// [`SignatureError::NoKeys`] if none is left.
    pub fn read(ring: &[u8]) -> Result<Self, SignatureError> {
        let armored = str::from_utf8(ring).ok().filter(|text| text.contains(KEY_BLOCK));
        let blocks: Vec<String> = match armored {
            // The parser stops at the end of the first block.
            Some(text) => text.split(KEY_BLOCK).skip(1).map(|block| format!("{KEY_BLOCK}{block}")).collect(),
            None => Vec::new(),
        };
        let blocks = blocks.iter().map(String::as_bytes).chain(armored.is_none().then_some(ring));
        let keys: Vec<_> = blocks
            .filter_map(|block| Some(SignedPublicKey::from_reader_many(Cursor::new(block)).ok()?.0))
            .flatten()
            .filter_map(Result::ok)
            .take(MAX_KEYS)
            .collect();
        if keys.is_empty() { Err(SignatureError::NoKeys) } else { Ok(Self(keys)) }
    }

    /// The ids of the primary keys, 16 upper-case hex digits each.
    pub fn ids(&self) -> Vec<String> {
        self.0.iter().map(|key| hex(key.legacy_key_id())).collect()
    }

    /// Verifies a message with its signature around it (RFC 9580 section 7). One good signature by a key of
    /// the ring is enough. Nothing but the message may be in `message`.
    ///
    /// # Errors
    /// A [`SignatureError`] that names the key.
    pub fn verify_cleartext(&self, message: &[u8]) -> Result<Signer, SignatureError> {
        let text = str::from_utf8(message).map_err(|_| SignatureError::NoSignature)?;
        let (message, _) =
            CleartextSignedMessage::from_string(text).map_err(|_| SignatureError::NoSignature)?;
        self.verify(message.signatures(), message.signed_text().as_bytes())
    }

    /// Verifies a signature, binary or armored, that is kept apart from its data (RFC 9580 section 10.4);
    /// otherwise as [`Self::verify_cleartext`].
    ///
    /// # Errors
    /// A [`SignatureError`] that names the key.
    pub fn verify_detached(&self, signature: &[u8], data: &[u8]) -> Result<Signer, SignatureError> {
        let (signatures, _) = DetachedSignature::from_reader_many(Cursor::new(signature))
            .map_err(|_| SignatureError::NoSignature)?;
        let signatures: Vec<_> = signatures
            .take(MAX_SIGNATURES)
            .map_while(Result::ok)
            .map(|detached| detached.signature)
            .collect();
        self.verify(&signatures, data)
    }

    /// The first signature that holds, or why the last one that a key of the ring is named in does not.
    fn verify(&self, signatures: &[Signature], data: &[u8]) -> Result<Signer, SignatureError> {
        let mut signers = Vec::new();
        let mut failure = None;
        for signature in signatures.iter().take(MAX_SIGNATURES) {
            for key in &self.0 {
                match verify_with(key, signature, data) {
                    Some(Ok(id)) => return Ok(Signer { key: id, fingerprint: hex(key.fingerprint()) }),
                    Some(Err(why)) => failure = Some(why),
                    None => {}
                }
            }
            signers.extend(signature.issuer_fingerprint().iter().map(hex));
            if signature.issuer_fingerprint().is_empty() {
                signers.extend(signature.issuer_key_id().iter().map(hex));
            }
        }
        Err(match failure {
            Some(why) => why,
            None if signatures.is_empty() => SignatureError::NoSignature,
            None => SignatureError::UnknownKey { signer: signers.join(", "), known: self.ids().join(", ") },
        })
    }
}

/// Whether a signature is this key's or one of its subkeys'; `None` if it names neither.
fn verify_with(
    key: &SignedPublicKey,
    signature: &Signature,
    data: &[u8],
) -> Option<Result<String, SignatureError>> {
    let primary = &key.primary_key;
    let named = |id: &dyn KeyDetails| {
        signature.issuer_fingerprint().contains(&&id.fingerprint())
            || signature.issuer_key_id().contains(&&id.legacy_key_id())
    };
    let subkey = key.public_subkeys.iter().find(|subkey| named(&subkey.key));
    let (id, holds, usable) = match subkey {
        _ if named(primary) => (primary.legacy_key_id(), signature.verify(primary, data), true),
        Some(subkey) => {
            (subkey.key.legacy_key_id(), signature.verify(&subkey.key, data), may_sign(key, subkey))
        }
        None => return None,
    };
    let id = hex(id);
    Some(match signature.hash_alg() {
        Some(hash) if !is_strong(hash) => Err(SignatureError::Weak { key: id, hash: hash.to_string() }),
        None => Err(SignatureError::Wrong { key: id }),
        _ if is_revoked(key, subkey) => Err(SignatureError::Revoked { key: id }),
        _ if is_over_data(signature) && usable && holds.is_ok() => Ok(id),
        _ => Err(SignatureError::Wrong { key: id }),
    })
}

/// Whether nobody can make two texts with the same hash.
const fn is_strong(hash: HashAlgorithm) -> bool {
    use HashAlgorithm as Hash;
    matches!(hash, Hash::Sha256 | Hash::Sha384 | Hash::Sha512 | Hash::Sha3_256 | Hash::Sha3_512)
}

/// Upper-case hex digits, as `GnuPG` shows keys.
fn hex(id: impl AsRef<[u8]>) -> String {
    id.as_ref().iter().fold(String::new(), |mut digits, byte| {
        // Writing into memory cannot fail.
        let _ = write!(digits, "{byte:02X}");
        digits
    })
}

/// Whether it is a signature over a document, and not over a key, say.
fn is_over_data(signature: &Signature) -> bool {
    matches!(signature.typ(), Some(SignatureType::Binary | SignatureType::Text))
}

/// Whether the primary key says that the subkey may sign, and the subkey that it belongs to it
/// (RFC 9580 section 5.2.1.8: without the latter anybody could adopt somebody else's subkey).
fn may_sign(key: &SignedPublicKey, subkey: &SignedPublicSubKey) -> bool {
    subkey.signatures.iter().any(|binding| {
        binding.typ() == Some(SignatureType::SubkeyBinding)
            && binding.key_flags().sign()
            && binding.verify_subkey_binding(&key.primary_key, &subkey.key).is_ok()
            && binding
                .embedded_signature()
                .is_some_and(|back| back.verify_primary_key_binding(&subkey.key, &key.primary_key).is_ok())
    })
}

/// Whether the key, or the subkey that signed, was revoked by the key itself.
fn is_revoked(key: &SignedPublicKey, subkey: Option<&SignedPublicSubKey>) -> bool {
    let revocations = &key.details.revocation_signatures;
    revocations.iter().any(|revocation| revocation.verify_key(&key.primary_key).is_ok())
        || subkey.is_some_and(|subkey| {
            subkey.signatures.iter().any(|revocation| {
                revocation.typ() == Some(SignatureType::SubkeyRevocation)
                    && revocation.verify_subkey_binding(&key.primary_key, &subkey.key).is_ok()
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARCHIVE: &str = "567D4F8EF8D7E452";
    const SUBKEY: &str = "5E1B20102000AE21";
    const RING: &[u8] = include_bytes!("../../fixtures/openpgp/ring.gpg");
    const ARMORED_RING: &[u8] = include_bytes!("../../fixtures/openpgp/ring.asc");
    const MESSAGE: &[u8] = include_bytes!("../../fixtures/openpgp/message");
    const SIGNED: &[u8] = include_bytes!("../../fixtures/openpgp/archive.inrelease");
    const BY_SUBKEY: &[u8] = include_bytes!("../../fixtures/openpgp/sub.inrelease");
    const BY_STRANGER: &[u8] = include_bytes!("../../fixtures/openpgp/stranger.inrelease");

    /// Sums signed by keys of every sort.
    const SUMS: &[u8] = include_bytes!("../../fixtures/tf/terraform-provider-demo_1.1.0_SHA256SUMS");

    macro_rules! signed {
        ($name:literal) => {
            (
                &include_bytes!(concat!("../../fixtures/tf/", $name, ".asc"))[..],
                &include_bytes!(concat!("../../fixtures/tf/", $name, ".sig"))[..],
            )
        };
    }

    fn verify_cleartext(ring: &[u8], message: &[u8]) -> Result<String, SignatureError> {
        Keyring::read(ring)?.verify_cleartext(message).map(|signer| signer.key)
    }

    fn verify_detached(ring: &[u8], signature: &[u8], data: &[u8]) -> Result<String, SignatureError> {
        Keyring::read(ring)?.verify_detached(signature, data).map(|signer| signer.key)
    }

    fn ids(ring: &[u8]) -> Vec<String> {
        Keyring::read(ring).expect("keys").ids()
    }

    #[test]
    fn signatures_by_keys_of_every_usual_sort_are_accepted() {
        for (key, signature) in [signed!("rsa"), signed!("ed25519"), signed!("nistp256")] {
            let ring = Keyring::read(&[signed!("stranger").0, key].concat()).expect("keys");
            let signer = ring.verify_detached(signature, SUMS).expect("valid");
            assert_eq!(signer.key, ring.ids()[1]);
            assert!(signer.fingerprint.ends_with(&signer.key), "{signer:?}");
        }
    }

    #[test]
    fn a_signature_by_a_subkey_names_it_and_the_key_it_belongs_to() {
        let (key, signature) = signed!("subkey");
        let signer = Keyring::read(key).expect("a key").verify_detached(signature, SUMS).expect("valid");
        assert_ne!(signer.key, ids(key)[0], "the subkey signed");
        assert!(signer.fingerprint.ends_with(&ids(key)[0]), "{signer:?}");
    }

    #[test]
    fn the_sums_of_a_real_release_are_accepted() {
        let sums = include_bytes!("../../fixtures/tf/terraform-provider-null_3.1.0_SHA256SUMS");
        let (key, signature) = signed!("hashicorp");
        let signer = Keyring::read(key).expect("a key").verify_detached(signature, sums).expect("valid");
        assert_eq!(signer.fingerprint, "C874011F0AB405110D02105534365D9472D7468F");
        assert_eq!(signer.key, "B0B441097685B676", "a subkey signed");
    }

    #[test]
    fn revoked_keys_and_weak_hashes_prove_nothing_for_any_sort_of_document() {
        let (key, signature) = signed!("revoked");
        assert!(matches!(verify_detached(key, signature, SUMS), Err(SignatureError::Revoked { .. })));
        let (key, signature) = signed!("weak");
        assert!(matches!(verify_detached(key, signature, SUMS), Err(SignatureError::Weak { .. })));
    }

    #[test]
    fn of_several_signatures_one_has_to_be_good() {
        let (key, signature) = signed!("nistp256");
        let (_, by_stranger) = signed!("stranger");
        assert!(verify_detached(key, &[by_stranger, signature].concat(), SUMS).is_ok());
        assert!(verify_detached(key, by_stranger, SUMS).is_err());
    }

    #[test]
    fn a_message_signed_by_a_key_or_a_subkey_of_the_ring_names_its_signer() {
        for ring in [RING, ARMORED_RING] {
            assert_eq!(verify_cleartext(ring, SIGNED).as_deref(), Ok(ARCHIVE));
            assert_eq!(verify_cleartext(ring, BY_SUBKEY).as_deref(), Ok(SUBKEY));
            for (signature, key) in [
                (&include_bytes!("../../fixtures/openpgp/archive.asc")[..], ARCHIVE),
                (include_bytes!("../../fixtures/openpgp/archive.sig"), ARCHIVE),
                (include_bytes!("../../fixtures/openpgp/sub.sig"), SUBKEY),
            ] {
                assert_eq!(verify_detached(ring, signature, MESSAGE).as_deref(), Ok(key));
            }
        }
    }

    #[test]
    fn a_key_that_is_not_in_the_ring_is_named() {
        let stranger = include_bytes!("../../fixtures/openpgp/stranger.sig");
        for refused in [verify_cleartext(RING, BY_STRANGER), verify_detached(RING, stranger, MESSAGE)] {
            let Err(SignatureError::UnknownKey { signer, known }) = refused else { panic!("{refused:?}") };
            assert!(signer.ends_with("AEC2DEDBD87826D1"), "{signer}");
            assert!(known.contains(ARCHIVE), "{known}");
        }
    }

    #[test]
    fn one_changed_byte_is_a_wrong_signature_by_the_named_key() {
        let wrong = Err(SignatureError::Wrong { key: ARCHIVE.to_owned() });
        let changed = String::from_utf8(SIGNED.to_vec()).expect("text").replace("Test", "Best");
        assert_eq!(verify_cleartext(RING, changed.as_bytes()), wrong);
        let signature = include_bytes!("../../fixtures/openpgp/archive.sig");
        assert_eq!(verify_detached(RING, signature, b"something else"), wrong);
    }

    #[test]
    fn a_revoked_key_and_a_hash_that_can_be_forged_sign_nothing() {
        let ring = include_bytes!("../../fixtures/openpgp/revoked.gpg");
        let signature = include_bytes!("../../fixtures/openpgp/revoked.asc");
        let refused = verify_detached(ring, signature, MESSAGE);
        assert!(matches!(refused, Err(SignatureError::Revoked { .. })), "{refused:?}");
        let refused = verify_detached(RING, include_bytes!("../../fixtures/openpgp/weak.asc"), MESSAGE);
        assert!(matches!(refused, Err(SignatureError::Weak { .. })), "{refused:?}");
    }

    #[test]
    fn what_is_no_ring_or_no_signature_is_an_error() {
        assert_eq!(verify_cleartext(b"", SIGNED), Err(SignatureError::NoKeys));
        assert_eq!(verify_cleartext(MESSAGE, SIGNED), Err(SignatureError::NoKeys));
        for bad in [&b""[..], b"<html>", MESSAGE, &SIGNED[..200], b"\xff\xfe"] {
            assert_eq!(verify_cleartext(RING, bad), Err(SignatureError::NoSignature));
            assert_eq!(verify_detached(RING, bad, MESSAGE), Err(SignatureError::NoSignature));
        }
        let trailed = [SIGNED, b"Origin: Evil\n"].concat();
        assert_eq!(verify_cleartext(RING, &trailed), Err(SignatureError::NoSignature));
        let led = [b"Origin: Evil\n", SIGNED].concat();
        assert_eq!(verify_cleartext(RING, &led), Err(SignatureError::NoSignature));
    }
}
