//! Lists of sums are believed for their signatures, and zips for the lists.

use super::*;
use crate::protocol::openpgp::Keyring;

#[test]
fn a_signature_that_proves_nothing_is_refused_and_the_key_is_named() {
    type Change = fn(&mut World);
    let cases: [(&str, Change, &str); 4] = [
        (
            "changed",
            |world| world.put("https://releases.example/SHA256SUMS", [SUMS, b"\n"].concat()),
            "does not fit",
        ),
        (
            "stranger",
            |world| world.put("https://releases.example/SHA256SUMS.sig", BY_STRANGER),
            "not by one of",
        ),
        (
            "missing",
            |world| drop(world.there.remove("https://releases.example/SHA256SUMS.sig")),
            "there is no signature",
        ),
        ("keyless", |world| world.put_download("linux", "amd64", LINUX, None), "no key"),
    ];
    let key = Keyring::read(KEY.as_bytes()).expect("keys").ids().remove(0);
    for (name, change, expected) in cases {
        let mut world = World::new();
        change(&mut world);
        let sums = format!("{REGISTRY}/1.1.0/download/linux/amd64/terraform-provider-demo_1.1.0_SHA256SUMS");
        for path in [zip_path(), format!("{MIRROR}/1.1.0.json"), format!("{sums}.sig"), sums] {
            // The sums themselves are judged when they are fetched.
            let refusal = match world.get(&path) {
                Ok(Route::Fetch(fetch)) => world.fetch(&fetch.resource).expect_err(name),
                Err(refusal) => refusal,
                other => panic!("{name}: {path} leads to {other:?}"),
            };
            let Refusal::Untrusted { why } = refusal else { panic!("{name}: {path}: {refusal}") };
            assert!(why.contains(expected), "{name}: {why}");
            assert!(why.contains(&key) || name == "keyless", "{name}: {why}");
        }
    }
}

#[test]
fn a_registry_without_keys_is_accepted_where_the_operator_says_so_and_nowhere_else() {
    let mut world = World::new();
    world.put_download("linux", "amd64", LINUX, None);
    world.there.remove("https://releases.example/SHA256SUMS.sig");
    assert!(matches!(world.get(&zip_path()), Err(Refusal::Untrusted { .. })));
    world.proxies[0].unsigned = true;
    assert_eq!(world.resource(&zip_path()).expect, Some(Digest::of(LINUX).into()));
    // Where there are keys, they count all the same.
    world.put_download("linux", "amd64", LINUX, Some(KEY));
    assert!(matches!(world.get(&zip_path()), Err(Refusal::Untrusted { .. })));
}

#[test]
fn the_verdict_on_a_signature_is_written_down() {
    let world = World::new();
    let sums = world
        .resource(&format!("{REGISTRY}/1.1.0/download/linux/amd64/terraform-provider-demo_1.1.0_SHA256SUMS"));
    let mut companions = Gathered::default();
    for companion in Tf.companions(&sums, None, SUMS).expect("a signature") {
        let found = world.bring(&companion.resource);
        companions.add_document(companion.resource.key, found);
    }
    let descriptors = Tf.vet(&sums, SUMS, &companions).expect("valid");
    let [Descriptor { path, kind, facts }] = descriptors.as_slice() else { panic!("one verdict") };
    assert_eq!((path.as_str(), *kind), ("providers/acme/demo/1.1.0/signature", "tf.verdict"));
    assert_eq!(facts["verdict"], "valid");
    assert_eq!(facts["keyId"], Keyring::read(KEY.as_bytes()).expect("keys").ids()[0]);
}

#[test]
fn a_zip_whose_sum_is_not_in_the_signed_list_is_never_asked_for() {
    let mut world = World::new();
    world.put_download("linux", "amd64", b"another zip", Some(KEY));
    let Err(Refusal::Untrusted { why }) = world.get(&zip_path()) else { panic!("untrusted") };
    assert!(why.contains("terraform-provider-demo_1.1.0_linux_amd64.zip"), "{why}");
}
