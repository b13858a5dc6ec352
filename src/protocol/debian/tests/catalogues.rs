//! What indexes and Releases name, in every compression, damaged or not.

use std::io::Write as _;

use super::*;

/// What an index says, in the order in which it says it.
fn named(path: &str, document: &[u8]) -> (Vec<(String, u64)>, bool) {
    let mut named = Vec::new();
    let whole = Debian.catalogue(&path.parse().expect("valid"), document, &mut |item, claim| {
        named.push((item.to_owned(), claim.size.unwrap_or(0)));
    });
    (named, whole)
}

const PACKAGES: &str = "Package: a\nFilename: pool/a_1.deb\nSize: 5\nSHA256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\nDescription: x\n Filename: not-this\n\n\
    Package: b\nSHA256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\nFilename: ./pool//b_1.deb\n\n\
    Package: climbs\nSHA256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\nFilename: ../c.deb\n\n\
    Package: nowhere\nSHA256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\nFilename: ./\n\n\
    Package: unchecked\nFilename: d.deb\n";

#[test]
fn packages_and_sources_name_their_files_in_every_compression() {
    let path = format!("dists/stable/main/binary-amd64/by-hash/SHA256/{HEX}");
    let expected = vec![("pool/a_1.deb".to_owned(), 5), ("pool/b_1.deb".to_owned(), 0)];
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(PACKAGES.as_bytes()).expect("memory");
    for (name, document) in [
        ("plain", PACKAGES.as_bytes()),
        ("gz", &gzip.finish().expect("memory")),
        ("xz", include_bytes!("../../../../fixtures/debian/Packages.xz")),
        ("bz2", include_bytes!("../../../../fixtures/debian/Packages.bz2")),
        ("zst", include_bytes!("../../../../fixtures/debian/Packages.zst")),
        ("lz4", include_bytes!("../../../../fixtures/debian/Packages.lz4")),
    ] {
        assert_eq!(named(&path, document), (expected.clone(), true), "{name}");
        // In two parts, as compressors that work in parallel write it: here the second has it all again.
        let twice = [document, document].concat();
        assert_eq!(named(&path, &twice), ([expected.clone(), expected.clone()].concat(), true), "{name}");
        if name != "plain" {
            let half = &document[..document.len() / 2];
            assert!(!named(&path, half).1 && !named(&path, &[document, half].concat()).1, "{name}: cut");
        }
    }

    let sources = format!(
        "Package: s\nFiles:\n 00 3 s_1.dsc\nChecksums-Sha256:\n {HEX} 3 s_1.dsc\n {HEX} 4 s_1.tar.xz\n bad\nDirectory: pool/s\n"
    );
    let expected = vec![("pool/s/s_1.dsc".to_owned(), 3), ("pool/s/s_1.tar.xz".to_owned(), 4)];
    assert_eq!(named(&path, sources.as_bytes()), (expected, true));
}

#[test]
fn paths_in_an_index_count_from_the_archives_own_root() {
    let one = format!("Filename: x.deb\nSHA256: {HEX}\n");
    for (dir, expected) in [
        ("dists/stable/main/binary-amd64", &["x.deb"][..]),
        ("ubuntu/dists/stable/main/binary-amd64", &["ubuntu/x.deb"]),
        // A flat repository does not say where its root is.
        ("flat", &["x.deb", "flat/x.deb"]),
    ] {
        let (named, _) = named(&format!("{dir}/by-hash/SHA256/{HEX}"), one.as_bytes());
        let named: Vec<_> = named.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(named, expected, "{dir}");
    }
}

#[test]
fn an_index_that_is_damaged_or_endless_is_left_where_it_ends() {
    let xz = include_bytes!("../../../../fixtures/debian/Packages.xz");
    let path = format!("a/by-hash/SHA256/{HEX}");
    let line = vec![b'x'; 5 << 20];
    for bad in [&xz[..xz.len() / 2], &line, b"BZh91AY", b"\x28\xb5\x2f\xfd\0", b"\x04\x22\x4d\x18\0"] {
        assert!(!named(&path, bad).1);
    }
    assert_eq!(named(&path, b"\xff\xfe\n\n: :\n"), (Vec::new(), true));
}

#[test]
fn a_release_names_the_indexes_of_its_generation_by_where_they_are_kept() {
    let text = signed(&release(true, SATURDAY, &[(HEX, "main/binary-amd64/Packages.xz")]));
    let expected = vec![(format!("dists/s/main/binary-amd64/by-hash/SHA256/{HEX}"), 17)];
    assert_eq!(named("dists/s/InRelease", text.as_bytes()), (expected, true));
    assert_eq!(named("dists/s/InRelease", b"<html>"), (Vec::new(), false));
    assert_eq!(Debian.catalogued_by(kind::INDEX), Some(kind::RELEASE));
    assert!([kind::RELEASE, kind::PACKAGES].into_iter().all(|kind| Debian.is_catalogue(kind)));
}

#[test]
fn a_catalogue_is_replaced_by_its_next_version() {
    let of = |path: &str| Debian.catalogue_of(&path.parse().expect("valid")).to_owned();
    assert_eq!(of(&format!("dists/s/main/binary-amd64/by-hash/SHA256/{HEX}")), "dists/s/main/binary-amd64");
    assert_eq!(of(&format!("by-hash/SHA256/{HEX}")), "");
    assert_eq!(of("dists/s/InRelease"), "dists/s/InRelease");
}
