//! Detached OpenPGP signatures (RFC 9580) over documents. Pure; no key ring, no clock.
//!
//! Without a clock nothing expires: whether a signature was made in time is for clients to judge, and
//! the common ones do not either. A key that its owner has revoked counts as none.

use pgp::composed::{Deserializable as _, DetachedSignature, SignedPublicKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::SignatureType;
use pgp::types::{KeyDetails as _, KeyId, VerifyingKey};

/// The most keys that are read.
const MAX_KEYS: usize = 64;
/// The most signatures of one file that are tried.
const MAX_SIGNATURES: usize = 8;

/// Keys, one of which must have signed.
#[derive(Debug)]
pub(super) struct Keys(Vec<SignedPublicKey>);

/// Who signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Signer {
    /// The id of the signing key, 16 upper-case hex digits; a subkey's if that signed.
    pub(super) key_id: String,
    /// The fingerprint of the primary key, upper-case hex digits.
    pub(super) fingerprint: String,
}

/// Why a signature proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum SignatureError {
    /// What should hold keys does not.
    #[error("a key cannot be read")]
    BadKey,
    /// What should hold a signature does not.
    #[error("the signature cannot be read")]
    BadSignature,
    /// Made by none of the keys.
    #[error("it is signed by key {signed}, not by one of the keys {known}")]
    UnknownKey {
        /// Whom the signature names.
        signed: String,
        /// Whom one would have trusted.
        known: String,
    },
    /// The key is one of those, but the signature is not over these bytes, or not made in a way that
    /// proves anything.
    #[error("the signature by key {key_id} is not valid: {why}")]
    Invalid {
        /// The key.
        key_id: String,
        /// What is wrong.
        why: &'static str,
    },
}

impl Keys {
    /// Reads keys in their ASCII form; each text may hold several.
    ///
    /// # Errors
    /// [`SignatureError::BadKey`] if one cannot be read, or there are too many.
    pub(super) fn read<'k>(armored: impl IntoIterator<Item = &'k str>) -> Result<Self, SignatureError> {
        let mut keys = Vec::new();
        for armored in armored {
            let (found, _) =
                SignedPublicKey::from_string_many(armored).map_err(|_| SignatureError::BadKey)?;
            for key in found {
                if keys.len() == MAX_KEYS {
                    return Err(SignatureError::BadKey);
                }
                keys.push(key.map_err(|_| SignatureError::BadKey)?);
            }
        }
        Ok(Self(keys))
    }

    /// Checks that one of the keys has signed `document`; `signature` is in binary form and may hold
    /// several, of which one has to be good.
    ///
    /// # Errors
    /// What is wrong with the first that was made by one of the keys, else with the first.
    pub(super) fn check(&self, document: &[u8], signature: &[u8]) -> Result<Signer, SignatureError> {
        let signatures =
            DetachedSignature::from_bytes_many(signature).map_err(|_| SignatureError::BadSignature)?;
        let mut worst = None;
        for signature in signatures.take(MAX_SIGNATURES) {
            let Ok(signature) = signature else { break };
            match self.check_one(document, &signature) {
                Ok(signer) => return Ok(signer),
                Err(error @ SignatureError::Invalid { .. }) => return Err(error),
                Err(error) => worst = worst.or(Some(error)),
            }
        }
        Err(worst.unwrap_or(SignatureError::BadSignature))
    }

    fn check_one(&self, document: &[u8], signature: &DetachedSignature) -> Result<Signer, SignatureError> {
        let mut invalid = None;
        for key in &self.0 {
            // A subkey counts only if the primary key says that it is its own and may sign, and if it
            // says the same.
            let subkeys = key.public_subkeys.iter().filter(|subkey| {
                subkey.signatures.iter().any(|binding| binding.key_flags().sign())
                    && subkey
                        .signatures
                        .iter()
                        .all(|binding| binding.typ() == Some(SignatureType::SubkeyBinding))
                    && subkey.verify_bindings(&key.primary_key).is_ok()
            });
            let primary = attempt(document, signature, &key.primary_key);
            let result = primary.or_else(|| {
                subkeys.map(|subkey| &subkey.key).find_map(|subkey| attempt(document, signature, subkey))
            });
            match result {
                Some(Ok(key_id)) if is_revoked(key) => {
                    return Err(SignatureError::Invalid { key_id, why: "the key's owner has revoked it" });
                }
                Some(Ok(key_id)) => {
                    let fingerprint = format!("{:X}", key.fingerprint());
                    return Ok(Signer { key_id, fingerprint });
                }
                Some(Err(error)) => invalid = Some(error),
                None => {}
            }
        }
        Err(invalid.unwrap_or_else(|| SignatureError::UnknownKey {
            signed: issuer(signature),
            known: self.ids().join(", "),
        }))
    }

    /// The ids of the primary keys.
    pub(super) fn ids(&self) -> Vec<String> {
        self.0.iter().map(|key| id_of(key.legacy_key_id())).collect()
    }
}

/// Checks a signature with one key; `None` if it names another.
fn attempt(
    document: &[u8],
    signature: &DetachedSignature,
    key: &impl VerifyingKey,
) -> Option<Result<String, SignatureError>> {
    let key_id = key.legacy_key_id();
    let signature = &signature.signature;
    let (ids, fingerprints) = (signature.issuer_key_id(), signature.issuer_fingerprint());
    let names_none = ids.is_empty() && fingerprints.is_empty();
    if !(names_none || ids.contains(&&key_id) || fingerprints.contains(&&key.fingerprint())) {
        return None;
    }
    let key_id = id_of(key_id);
    let invalid = |why| Err(SignatureError::Invalid { key_id: key_id.clone(), why });
    let is_of_content = matches!(signature.typ(), Some(SignatureType::Binary | SignatureType::Text));
    Some(match signature.hash_alg() {
        _ if !is_of_content => invalid("it is not one over a document"),
        Some(
            HashAlgorithm::Sha256
            | HashAlgorithm::Sha384
            | HashAlgorithm::Sha512
            | HashAlgorithm::Sha3_256
            | HashAlgorithm::Sha3_512,
        ) => match signature.verify(key, document) {
            Ok(()) => Ok(key_id),
            Err(_) => invalid("it is not over these bytes"),
        },
        _ => invalid("it is made with a hash that is too weak"),
    })
}

/// Whether the key's owner says that it must not be used any more.
fn is_revoked(key: &SignedPublicKey) -> bool {
    key.details.revocation_signatures.iter().any(|revocation| revocation.verify_key(&key.primary_key).is_ok())
}

/// Whom a signature names.
fn issuer(signature: &DetachedSignature) -> String {
    let signature = &signature.signature;
    let id = signature.issuer_key_id().first().map(|id| id_of(**id));
    let fingerprint = || signature.issuer_fingerprint().first().map(|print| format!("{print:X}"));
    id.or_else(fingerprint).unwrap_or_else(|| "without a name".to_owned())
}

fn id_of(id: KeyId) -> String {
    id.to_string().to_ascii_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUMS: &[u8] = include_bytes!("../../../fixtures/tf/terraform-provider-demo_1.1.0_SHA256SUMS");

    macro_rules! signed {
        ($name:literal) => {
            (
                include_str!(concat!("../../../fixtures/tf/", $name, ".asc")),
                &include_bytes!(concat!("../../../fixtures/tf/", $name, ".sig"))[..],
            )
        };
    }

    fn keys(armored: &[&str]) -> Keys {
        Keys::read(armored.iter().copied()).expect("keys")
    }

    #[test]
    fn signatures_by_keys_of_every_usual_sort_are_accepted() {
        for (key, signature) in [signed!("rsa"), signed!("ed25519"), signed!("nistp256")] {
            let keys = keys(&[signed!("stranger").0, key]);
            let signer = keys.check(SUMS, signature).expect("valid");
            assert_eq!(signer.key_id, keys.ids()[1]);
            assert!(signer.fingerprint.ends_with(&signer.key_id), "{signer:?}");
        }
    }

    #[test]
    fn a_signature_by_a_subkey_that_may_sign_is_one_by_its_key() {
        let (key, signature) = signed!("subkey");
        let keys = keys(&[key]);
        let signer = keys.check(SUMS, signature).expect("valid");
        assert_ne!(signer.key_id, keys.ids()[0], "the subkey signed");
        assert!(signer.fingerprint.ends_with(&keys.ids()[0]), "{signer:?}");
    }

    #[test]
    fn the_sums_of_a_real_release_are_accepted() {
        let sums = include_bytes!("../../../fixtures/tf/terraform-provider-null_3.1.0_SHA256SUMS");
        let (key, signature) = signed!("hashicorp");
        let signer = keys(&[key]).check(sums, signature).expect("valid");
        assert_eq!(signer.fingerprint, "C874011F0AB405110D02105534365D9472D7468F");
        assert_eq!(signer.key_id, "B0B441097685B676", "a subkey signed");
    }

    #[test]
    fn what_was_changed_or_signed_by_a_stranger_is_refused_and_the_key_is_named() {
        let (key, signature) = signed!("rsa");
        let mut changed = SUMS.to_vec();
        changed[0] ^= 1;
        let error = keys(&[key]).check(&changed, signature).expect_err("changed");
        assert!(matches!(&error, SignatureError::Invalid { key_id, .. } if *key_id == keys(&[key]).ids()[0]));

        let (stranger, by_stranger) = signed!("stranger");
        let (stranger, key) = (keys(&[stranger]).ids().remove(0), keys(&[key]));
        let error = key.check(SUMS, by_stranger).expect_err("a stranger's").to_string();
        assert!(error.contains(&stranger) && error.contains(&key.ids()[0]), "{error}");
    }

    #[test]
    fn revoked_keys_and_weak_hashes_prove_nothing() {
        for ((key, signature), why) in [(signed!("revoked"), "revoked"), (signed!("weak"), "weak")] {
            let error = keys(&[key]).check(SUMS, signature).expect_err(why).to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn what_is_no_key_or_signature_is_an_error() {
        let (key, signature) = signed!("ed25519");
        for bad in ["", "x", &key[..key.len() / 2], key.trim_start_matches('-')] {
            assert_eq!(Keys::read([bad]).map(drop), Err(SignatureError::BadKey), "{bad}");
        }
        for bad in [&b""[..], b"x", &signature[..20], key.as_bytes(), SUMS] {
            assert!(keys(&[key]).check(SUMS, bad).is_err());
        }
    }

    #[test]
    fn of_several_signatures_one_has_to_be_good() {
        let (key, signature) = signed!("nistp256");
        let both = [signed!("stranger").1, signature].concat();
        assert!(keys(&[key]).check(SUMS, &both).is_ok());
    }
}
