//! Whatever is asked for and whatever upstream sends: nothing panics or leads out of the grammar.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Targets that are often right and always nearly so.
fn targets() -> impl Strategy<Value = String> {
    let segment = prop_oneof![
        "[a-z0-9]{1,4}([._-]{1,2}[a-z0-9]{1,3})?",
        Just("hub".to_owned()),
        Just("docker.io".to_owned()),
        Just("tags".to_owned()),
        Just("list".to_owned()),
        Just("manifests".to_owned()),
        Just("blobs".to_owned()),
        Just("referrers".to_owned()),
        Just("_catalog".to_owned()),
        Just("tags-list".to_owned()),
        Just("sha256".to_owned()),
        Just(HEX.to_owned()),
        Just(format!("sha256:{HEX}")),
        Just(format!("sha512:{}", sha512())),
        "%[0-9a-f]{2}",
        "\\PC{0,6}",
        Just("..".to_owned()),
    ];
    let query = prop_oneof![
        Just(String::new()),
        "\\?(n|last|ns|artifactType|x)=[a-z0-9.%+/-]{0,8}(&(n|ns|y)=[0-9a-z.]{0,9})?",
        Just("?ns=docker.io".to_owned()),
        "\\?\\PC{0,20}",
    ];
    (prop::collection::vec(segment, 0..7), query)
        .prop_map(|(segments, query)| format!("/v2/{}{query}", segments.join("/")))
}

fn check(target: &str) {
    let asked = get(target);
    match asked.route() {
        Ok(Route::Fetch(fetch)) => {
            let key = &fetch.resource.key;
            assert_eq!(&found_again(key), key, "{target}");
            let scope = Oci.scope(&key.path);
            assert!(grammar::is_name(scope), "{target} leads to `{key}` of `{scope}`");
            assert_eq!(fetch.resource.token_scope, Some(format!("repository:{scope}:pull")), "{target}");
            let (_, source) = kept(&fetch.resource);
            assert!(source.starts_with(&format!("/v2/{scope}/")), "{target}");
            assert!(
                source.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#'),
                "{target} asks `{source}`"
            );
            let allowed = |c: char| !c.is_control() && c != '\\';
            assert!(key.path.as_str().chars().all(allowed), "{target}");
            let headers: BTreeMap<_, _> = Oci
                .headers(&asked.head(), &fetch, &reference(&[]))
                .into_iter()
                .map(|(n, v)| (n.to_string(), v))
                .collect();
            assert!(headers.contains_key("docker-distribution-api-version"));
        }
        Ok(_) => {}
        Err(refusal) => {
            let (status, _, _) = asked.refuse(&refusal);
            assert!((400..500).contains(&status), "{target}: {refusal:?}");
        }
    }
}

proptest! {
    #[test]
    fn no_path_panics_or_leads_out_of_the_grammar(path in "\\PC*", query in proptest::option::of("\\PC*")) {
        check(&format!("/v2/{path}{}", query.map(|query| format!("?{query}")).unwrap_or_default()));
    }

    #[test]
    fn no_nearly_right_target_panics_or_leads_out_of_the_grammar(target in targets()) {
        check(&target);
    }

    #[test]
    fn no_document_panics(document in prop::collection::vec(any::<u8>(), 0..200), text in "[\\[\\]{}:,\"a-z0-9 ]{0,80}") {
        for document in [document.as_slice(), text.as_bytes()] {
            let _ = Oci.links("container.tag", None, document);
            for target in ["/v2/a/tags/list?n=1", &format!("/v2/a/referrers/sha256:{HEX}?artifactType=x")] {
                let _ = Oci.rewrite(&get(target).head(), &reference(&[("link", &text)]), document);
            }
        }
    }
}
