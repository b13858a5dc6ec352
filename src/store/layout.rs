//! Where everything lies below the root: the only file that makes paths, and the only one that reads
//! them back. `docs/layout.md` states the same for people.
//!
//! Key → path and path → key are inverse functions: [`key_of`] answers for the canonical path of a key
//! and for no other. Paths of refs are plain ASCII without upper case (but in `%XX`), so that no file
//! system merges, normalises or refuses them; no component is longer than 255 bytes; files end in
//! `.json` and directories never do, so that no file stands in the way of a directory. It does no I/O.

use crate::model::{Area, ArtifactType, Digest, ProxyId, RefKey, RefPath};

use super::ObjectPath;

/// The version of the layout, as `FORMAT` states it.
pub(super) const VERSION: u32 = 1;

/// What every ref file's name ends in.
const SUFFIX: &str = ".json";

/// The most bytes of an escaped segment in one path component.
const PIECE_LEN: usize = 200;

/// The most bytes of a run's name.
const RUN_LEN: usize = 64;

/// The bytes that stand for themselves. Upper case is not among them (file systems that merge case),
/// nor is anything that a shell, Windows or Unicode normalisation would treat in a way of its own.
const fn is_plain(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9')
        || matches!(
            byte,
            b'.' | b'_'
                | b'-'
                | b'+'
                | b'~'
                | b'@'
                | b'='
                | b','
                | b':'
                | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
        )
}

// Names --------------------------------------------------------------------------------------------

/// The directory that makes a directory a root.
pub(super) fn types() -> ObjectPath {
    ObjectPath::new("type".into())
}

/// The file that states the layout version of a type.
pub(super) fn format(artifact_type: ArtifactType) -> ObjectPath {
    ObjectPath::new(format!("type/{artifact_type}/config/FORMAT"))
}

/// Where [`format()`] is staged.
pub(super) fn config_staging(artifact_type: ArtifactType) -> ObjectPath {
    ObjectPath::new(format!("type/{artifact_type}/config/tmp"))
}

/// All live blobs of a type.
pub(super) fn blobs(artifact_type: ArtifactType) -> ObjectPath {
    ObjectPath::new(format!("type/{artifact_type}/blobs"))
}

/// A live blob.
pub(super) fn blob(artifact_type: ArtifactType, digest: &Digest) -> ObjectPath {
    ObjectPath::new(format!("type/{artifact_type}/blobs/sha256/{}", sharded(digest)))
}

/// The blob whose live path this is.
pub(super) fn digest_of(artifact_type: ArtifactType, path: &str) -> Option<Digest> {
    let digest = Digest::from_hex(path.rsplit_once('/')?.1).ok()?;
    (blob(artifact_type, &digest).as_str() == path).then_some(digest)
}

/// All condemned blobs of a type; the folders directly below are named for the runs.
pub(super) fn trash(artifact_type: ArtifactType) -> ObjectPath {
    ObjectPath::new(format!("type/{artifact_type}/trash"))
}

/// A condemned blob; `None` if `run` cannot be the name of a run: 1 to 64 letters, digits, `-`, `_`.
pub(super) fn condemned(artifact_type: ArtifactType, run: &str, digest: &Digest) -> Option<ObjectPath> {
    let valid = (1..=RUN_LEN).contains(&run.len())
        && run.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    valid.then(|| ObjectPath::new(format!("type/{artifact_type}/trash/{run}/{}", sharded(digest))))
}

/// The run and the blob of a condemned blob's path.
pub(super) fn condemned_of(artifact_type: ArtifactType, path: &str) -> Option<(String, Digest)> {
    let run = path.strip_prefix(trash(artifact_type).as_str())?.strip_prefix('/')?.split('/').next()?;
    let digest = Digest::from_hex(path.rsplit_once('/')?.1).ok()?;
    (condemned(artifact_type, run, &digest)?.as_str() == path).then(|| (run.to_owned(), digest))
}

/// Where a corrupt blob is put aside.
pub(super) fn quarantined(artifact_type: ArtifactType, digest: &Digest) -> ObjectPath {
    ObjectPath::new(format!("type/{artifact_type}/quarantine/{}", digest.hex()))
}

/// A path that a listing has shown, and where what is there is set aside: the same place below the
/// type's quarantine. `None` for a path that is not below a type's blobs or proxies.
pub(super) fn set_aside(path: &str) -> Option<(ObjectPath, ObjectPath)> {
    let mut parts = path.splitn(3, '/');
    let artifact_type: ArtifactType = parts.nth(1)?.parse().ok()?;
    let rest = parts.next()?;
    let below = path.starts_with("type/") && (rest.starts_with("blobs/") || rest.starts_with("proxies/"));
    let plain = rest.split('/').all(|part| !matches!(part, "" | "." | "..") && !part.contains('\0'));
    let aside = format!("type/{artifact_type}/quarantine/{rest}");
    (below && plain).then(|| (ObjectPath::new(path.to_owned()), ObjectPath::new(aside)))
}

/// All proxies of a type; the folders directly below are named for them.
pub(super) fn proxies(artifact_type: ArtifactType) -> ObjectPath {
    ObjectPath::new(format!("type/{artifact_type}/proxies"))
}

/// Where a proxy stages what is not published yet.
pub(super) fn staging(proxy: &ProxyId) -> ObjectPath {
    ObjectPath::new(format!("type/{}/proxies/{}/tmp", proxy.artifact_type, proxy.name))
}

/// The directory in a staging directory for what was left before its end.
pub(super) const LEFT: &str = "partial";

/// Where what has come of a blob is left for a later fetch, when one breaks for good.
pub(super) fn left(proxy: &ProxyId, digest: &Digest) -> ObjectPath {
    staging(proxy).join(LEFT).join(&digest.hex())
}

/// All refs of one area of a proxy.
pub(super) fn area(proxy: &ProxyId, area: Area) -> ObjectPath {
    ObjectPath::new(format!("type/{}/proxies/{}/{area}", proxy.artifact_type, proxy.name))
}

/// The directories of a type, and of those of its proxies that are there, that files are renamed
/// between.
pub(super) fn renamed_between(artifact_type: ArtifactType, proxies: &[String]) -> Vec<ObjectPath> {
    let of_type = ["blobs", "blobs/sha256", "trash", "quarantine", "proxies"];
    let of_type = of_type.iter().map(|dir| format!("type/{artifact_type}/{dir}"));
    let of_proxy = |name| {
        ["", "/tmp", "/refs", "/meta", "/cache"]
            .map(|dir| format!("type/{artifact_type}/proxies/{name}{dir}"))
    };
    of_type.chain(proxies.iter().flat_map(of_proxy)).map(ObjectPath::new).collect()
}

/// Where locks and notes are.
pub(super) fn locks() -> ObjectPath {
    ObjectPath::new("locks".into())
}

/// Whether a path is the name of an object: a blob or a ref.
pub(super) fn is_object(path: &str) -> bool {
    let (_, leaf) = path.rsplit_once('/').unwrap_or_default();
    // Most are not, which their names show at once.
    if leaf.len() != size_of::<Digest>() * 2 && !leaf.ends_with(SUFFIX) {
        return false;
    }
    key_of(path).is_some() || ArtifactType::ALL.into_iter().any(|of| digest_of(of, path).is_some())
}

/// A named lock.
pub(super) fn lock(name: &str) -> ObjectPath {
    let mut path = String::from("locks/");
    escape_into(&mut path, name, false);
    ObjectPath::new(path)
}

/// Where notes beside the locks are staged.
pub(super) fn notes_staging() -> ObjectPath {
    ObjectPath::new("locks/tmp".into())
}

/// How many leading components of an object's path are directories of the layout itself, which stay
/// when they are empty.
pub(super) fn permanent_depth(path: &str) -> usize {
    let mut parts = path.split('/');
    match (parts.next(), parts.nth(1)) {
        (Some("type"), Some("blobs")) => 4,
        (Some("type"), Some("proxies")) => 5,
        (Some("type"), _) => 3,
        _ => 1,
    }
}

fn sharded(digest: &Digest) -> String {
    let hex = digest.hex();
    format!("{}/{}/{hex}", &hex[..2], &hex[2..4])
}

// Refs ---------------------------------------------------------------------------------------------

/// The file of a ref.
pub(super) fn path_of(key: &RefKey) -> ObjectPath {
    let mut path = area(&key.proxy, key.area).to_string();
    push_segments(&mut path, key.path.segments(), false);
    path.push_str(SUFFIX);
    ObjectPath::new(path)
}

/// The directory with the refs of a scope (and of those whose names begin with it).
pub(super) fn scope(proxy: &ProxyId, of: Area, scope: &str) -> ObjectPath {
    let mut path = area(proxy, of).to_string();
    push_segments(&mut path, scope.split('/').filter(|segment| !segment.is_empty()), true);
    ObjectPath::new(path)
}

/// Adds segments, escaped and in pieces; whether the last of them is a directory too is said.
fn push_segments<'s>(path: &mut String, segments: impl Iterator<Item = &'s str>, last_is_directory: bool) {
    let mut segments = segments.peekable();
    let mut escaped = String::new();
    while let Some(segment) = segments.next() {
        let is_directory = last_is_directory || segments.peek().is_some();
        escaped.clear();
        escape_into(&mut escaped, segment, is_directory);
        let mut rest = escaped.as_str();
        while rest.len() > PIECE_LEN {
            let (piece, after) = rest.split_at(piece_end(rest));
            path.push('/');
            push_piece(path, piece);
            path.push('%');
            rest = after;
        }
        path.push('/');
        push_piece(path, rest);
    }
}

/// The key whose file this is; `None` for every path that [`path_of`] does not make.
pub(super) fn key_of(path: &str) -> Option<RefKey> {
    let mut parts = path.splitn(6, '/');
    if parts.next()? != "type" {
        return None;
    }
    let artifact_type = parts.next()?.parse().ok()?;
    if parts.next()? != "proxies" {
        return None;
    }
    let proxy = ProxyId { artifact_type, name: parts.next()?.parse().ok()? };
    let area = parts.next()?.parse().ok()?;
    let escaped = parts.next()?.strip_suffix(SUFFIX)?;
    // `%/` can only be a segment continued in the next component: an escape is `%` and two digits.
    let key = RefKey { proxy, area, path: unescape(&escaped.replace("%/", ""))?.parse::<RefPath>().ok()? };
    (path_of(&key).as_str() == path).then_some(key)
}

/// Appends a segment escaped: `%XX` for what is not plain, for a dot at the end, and, where the
/// segment is to be a directory, for the last dot of one that ends in `.json`.
fn escape_into(out: &mut String, segment: &str, is_directory: bool) {
    let dot = if segment.ends_with('.') {
        Some(segment.len() - 1)
    } else if is_directory && segment.ends_with(SUFFIX) {
        Some(segment.len() - SUFFIX.len())
    } else {
        None
    };
    for (at, byte) in segment.bytes().enumerate() {
        if is_plain(byte) && Some(at) != dot {
            out.push(char::from(byte));
        } else {
            push_escape(out, byte);
        }
    }
}

fn push_escape(out: &mut String, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(char::from(HEX[usize::from(byte >> 4)]));
    out.push(char::from(HEX[usize::from(byte & 15)]));
}

/// Appends what is to be one path component, or its beginning: the first letter escaped if Windows
/// would take it for a device, whatever follows the first dot.
fn push_piece(out: &mut String, piece: &str) {
    let stem = piece.split('.').next().unwrap_or(piece);
    let numbered = |device: &str| matches!(stem.strip_prefix(device).map(str::as_bytes), Some([b'1'..=b'9']));
    if matches!(stem, "con" | "nul" | "aux" | "prn") || numbered("com") || numbered("lpt") {
        push_escape(out, piece.as_bytes()[0]);
        out.push_str(&piece[1..]);
    } else {
        out.push_str(piece);
    }
}

/// Where the first piece of a long escaped segment ends: at most [`PIECE_LEN`], never inside `%XX`.
fn piece_end(escaped: &str) -> usize {
    let bytes = escaped.as_bytes();
    (PIECE_LEN - 2..PIECE_LEN).find(|at| bytes[*at] == b'%').unwrap_or(PIECE_LEN)
}

/// Takes `%XX` back; `None` if an escape is broken or the result is not text.
fn unescape(escaped: &str) -> Option<String> {
    fn nibble(digit: Option<u8>) -> Option<u8> {
        match digit? {
            digit @ b'0'..=b'9' => Some(digit - b'0'),
            digit @ b'A'..=b'F' => Some(digit - b'A' + 10),
            _ => None,
        }
    }
    let mut bytes = Vec::with_capacity(escaped.len());
    let mut rest = escaped.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(if byte == b'%' { nibble(rest.next())? << 4 | nibble(rest.next())? } else { byte });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn key(text: &str) -> RefKey {
        text.parse().expect(text)
    }

    fn path(text: &str) -> String {
        path_of(&key(text)).to_string()
    }

    #[test]
    fn the_forms_of_the_design_are_the_paths() {
        for (from, to) in [
            (
                "container/hub/refs/library/alpine/tags/3.20",
                "type/container/proxies/hub/refs/library/alpine/tags/3.20.json",
            ),
            (
                "tf/x/refs/providers/hashicorp/aws/linux_amd64/5.0.0",
                "type/tf/proxies/x/refs/providers/hashicorp/aws/linux_amd64/5.0.0.json",
            ),
            ("container/hub/meta/a", "type/container/proxies/hub/meta/a.json"),
            (
                "debian/d/cache/dists/stable/InRelease",
                "type/debian/proxies/d/cache/dists/stable/%49n%52elease.json",
            ),
        ] {
            assert_eq!(path(from), to);
            assert_eq!(key_of(to), Some(key(from)));
        }
    }

    #[test]
    fn what_file_systems_would_merge_or_refuse_is_escaped() {
        let prefix = "type/generic/proxies/g/refs/";
        for (from, to) in [
            ("Foo", "%46oo.json"),
            ("50%", "50%25.json"),
            ("a b", "a%20b.json"),
            ("ä", "%C3%A4.json"),
            ("a\\b*?\"<>|", "a%5Cb%2A%3F%22%3C%3E%7C.json"),
            ("x.json", "x.json.json"),
            ("x.json/y", "x%2Ejson/y.json"),
            (".json/y", "%2Ejson/y.json"),
            ("a./b.", "a%2E/b%2E.json"),
            (".../...", "..%2E/..%2E.json"),
            ("con", "%63on.json"),
            ("nul.tar.gz/com1.x/lpt9", "%6Eul.tar.gz/%63om1.x/%6Cpt9.json"),
            ("com0/com10/console/auxiliary", "com0/com10/console/auxiliary.json"),
            ("pp++_2~3+b1@=,:!$&'()", "pp++_2~3+b1@=,:!$&'().json"),
            (".hidden", ".hidden.json"),
        ] {
            assert_eq!(path(&format!("generic/g/refs/{from}")), format!("{prefix}{to}"));
        }
    }

    #[test]
    fn long_segments_are_split_and_never_inside_an_escape() {
        let prefix = "type/generic/proxies/g/refs/";
        let long = "x".repeat(201);
        assert_eq!(
            path(&format!("generic/g/refs/{long}/y")),
            format!("{prefix}{}%/x/y.json", "x".repeat(200))
        );
        for lead in 196..=200 {
            let text = format!("generic/g/refs/{}Äcon", "x".repeat(lead));
            let split = path(&text);
            assert_eq!(key_of(&split), Some(key(&text)), "{split}");
            assert!(split.split('/').all(|part| part.len() <= 205), "{split}");
        }
        assert_eq!(
            path(&format!("generic/g/refs/{}con", "x".repeat(200))),
            format!("{prefix}{}%/%63on.json", "x".repeat(200))
        );
    }

    #[test]
    fn only_the_canonical_path_is_a_key() {
        for bad in [
            "",
            "type",
            "type/container/proxies/hub/refs",
            "type/container/proxies/hub/refs/.json",
            "type/container/proxies/hub/refs/a",
            "type/container/proxies/hub/refs/A.json",
            "type/container/proxies/hub/refs/%61.json",
            "type/container/proxies/hub/refs/%4a.json",
            "type/container/proxies/hub/refs/%4.json",
            "type/container/proxies/hub/refs/%FF.json",
            "type/container/proxies/hub/refs/%2F.json",
            "type/container/proxies/hub/refs/%00.json",
            "type/container/proxies/hub/refs/a%/b.json",
            "type/container/proxies/hub/refs/a//b.json",
            "type/container/proxies/hub/refs/../b.json",
            "type/container/proxies/hub/refs/x.json/b.json",
            "type/container/proxies/hub/refs/con.json",
            "type/container/proxies/hub/refs/ä.json",
            "type/container/proxies/Hub/refs/a.json",
            "type/container/proxies/hub/tmp/a.json",
            "type/nuget/proxies/hub/refs/a.json",
            "/type/container/proxies/hub/refs/a.json",
        ] {
            assert_eq!(key_of(bad), None, "{bad}");
        }
    }

    #[test]
    fn blobs_and_trash_read_what_they_write() {
        let digest = Digest::of(b"x");
        let hex = digest.hex();
        let live = blob(ArtifactType::Container, &digest);
        assert_eq!(live.as_str(), format!("type/container/blobs/sha256/2d/71/{hex}"));
        assert_eq!(digest_of(ArtifactType::Container, live.as_str()), Some(digest));
        assert_eq!(digest_of(ArtifactType::Tf, live.as_str()), None);
        assert_eq!(digest_of(ArtifactType::Container, &live.as_str().replace("/71/", "/72/")), None);

        let entry = condemned(ArtifactType::Tf, "01J0-r_un", &digest).expect("a run");
        assert_eq!(entry.as_str(), format!("type/tf/trash/01J0-r_un/2d/71/{hex}"));
        assert_eq!(condemned_of(ArtifactType::Tf, entry.as_str()), Some(("01J0-r_un".into(), digest)));
        assert_eq!(condemned_of(ArtifactType::Tf, &format!("type/tf/trash/r/2d/{hex}")), None);
        for bad in ["", ".", "..", "a/b", "a b", &"r".repeat(65)] {
            assert_eq!(condemned(ArtifactType::Tf, bad, &digest), None, "{bad}");
        }
        assert_eq!(lock("gc.lock").as_str(), "locks/gc.lock");
        assert_eq!(lock("../x/Y").as_str(), "locks/..%2Fx%2F%59");
    }

    #[test]
    fn directories_of_the_layout_stay_and_those_of_names_go() {
        let digest = Digest::of(b"x");
        for (path, kept) in [
            (path("container/hub/refs/a/b"), "type/container/proxies/hub/refs"),
            (blob(ArtifactType::Tf, &digest).to_string(), "type/tf/blobs/sha256"),
            (condemned(ArtifactType::Tf, "r", &digest).expect("a run").to_string(), "type/tf/trash"),
            (quarantined(ArtifactType::Tf, &digest).to_string(), "type/tf/quarantine"),
            (lock("x").to_string(), "locks"),
        ] {
            let parts: Vec<_> = path.split('/').take(permanent_depth(&path)).collect();
            assert_eq!(parts.join("/"), kept);
        }
    }

    /// A repository name of the OCI distribution specification ("Pulling manifests"), with the
    /// components that are words of the layout or of the API thrown in.
    fn repository() -> impl Strategy<Value = String> {
        let component = prop_oneof![
            "[a-z0-9]{1,6}((\\.|_|__|-{1,3})[a-z0-9]{1,6}){0,3}",
            "[a-z0-9]{190,260}",
            prop::sample::select(vec![
                "tags",
                "manifests",
                "blobs",
                "x.json",
                "con",
                "nul.x",
                "com1",
                "sha256",
                "refs",
                "json",
            ])
            .prop_map(str::to_owned),
        ];
        prop::collection::vec(component, 1..5).prop_map(|parts| parts.join("/"))
    }

    fn oci_path() -> impl Strategy<Value = String> {
        let name = prop_oneof![
            "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}".prop_map(|tag| format!("tags/{tag}")),
            "[a-f0-9]{64}".prop_map(|hex| format!("manifests/sha256/{hex}")),
            "[a-f0-9]{128}".prop_map(|hex| format!("blobs/sha512/{hex}")),
        ];
        (repository(), name).prop_map(|(repository, name)| format!("{repository}/{name}"))
    }

    /// Any path at all, with many of the bytes that matter.
    fn any_path() -> impl Strategy<Value = String> {
        let segment = prop_oneof![
            "[aA.%/ ]{1,5}",
            "\\PC{1,20}",
            "[a-z%Ä.]{150,420}",
            "(con|CON|aux|lpt1|a)[.]?(json|JSON)?[.]?",
            "[a-z]{1,3}(\\.json)?",
        ];
        prop::collection::vec(segment, 1..5).prop_map(|parts| parts.join("/"))
    }

    fn keys() -> impl Strategy<Value = RefKey> {
        prop_oneof![oci_path(), any_path()]
            .prop_filter_map("not a ref path", |path| format!("container/hub/refs/{path}").parse().ok())
    }

    proptest! {
        #[test]
        fn every_key_is_read_back_from_its_path(key in keys()) {
            let path = path_of(&key);
            prop_assert_eq!(key_of(path.as_str()), Some(key));
        }

        #[test]
        fn every_path_is_safe_for_every_file_system(key in keys()) {
            let path = path_of(&key);
            let below = path.as_str().strip_prefix("type/container/proxies/hub/refs/").expect("inside");
            let parts: Vec<_> = below.split('/').collect();
            for (at, part) in parts.iter().enumerate() {
                prop_assert!(!matches!(*part, "" | "." | "..") && part.len() <= 255, "{}", part);
                prop_assert!(part.bytes().all(|byte| byte == b'%' || byte.is_ascii_uppercase() || is_plain(byte)));
                prop_assert!(!part.ends_with('.'), "{}", part);
                // Files end in `.json` and directories do not: neither stands in the other's way.
                prop_assert_eq!(part.ends_with(SUFFIX), at + 1 == parts.len(), "{}", below);
            }
        }

        #[test]
        fn any_path_that_is_read_is_the_one_that_is_written(path in any_path()) {
            let path = format!("type/container/proxies/hub/refs/{path}.json");
            if let Some(key) = key_of(&path) {
                prop_assert_eq!(path_of(&key).to_string(), path);
            }
        }
    }

    proptest! {
        // Each case compares dozens of keys.
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn different_keys_have_different_paths_even_without_case(keys in prop::collection::btree_set(
            prop_oneof![keys(), "[aA.%]{1,3}(/[aA.%j]{1,3})?".prop_filter_map("not a ref path", |path| {
                format!("container/hub/refs/{path}").parse().ok()
            })], 1..40)) {
            let paths: BTreeSet<_> = keys.iter().map(|key| path_of(key).as_str().to_lowercase()).collect();
            prop_assert_eq!(paths.len(), keys.len());
        }
    }
}
