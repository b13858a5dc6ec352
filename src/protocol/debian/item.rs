//! What a path in an archive is, by its form alone, and which `InRelease` could govern it.
//!
//! A suite's name may have several components (`stable/updates`), so that a path does not say where the
//! suite ends and the component begins; then each place is a candidate, the shortest first.

use crate::model::{Checksum, Digest};

/// The most components of a suite's name.
const SUITE_MAX_DEPTH: usize = 3;

/// What a path is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    /// `InRelease`, or `Release` of a suite.
    Release,
    /// `Release.gpg` of a suite.
    Signature,
    /// `<dir>/by-hash/<algorithm>/<hex>`, in an algorithm that is checked here.
    ByHash(Checksum),
    /// Something below `Packages.diff/` and its like.
    Difference,
    /// What the suite's `InRelease` may name.
    Index,
    /// A package: what it is called is what it is.
    Package,
    /// Anything else: keys, installers, lists.
    File,
}

/// Says what a path is.
pub(super) fn classify(path: &str) -> Item {
    let segments: Vec<&str> = path.split('/').collect();
    let (&name, dirs) = segments.split_last().unwrap_or((&path, &[]));
    let below_dists = dirs.contains(&"dists");
    if dirs.iter().any(|dir| dir.strip_suffix(".diff").is_some_and(is_index)) {
        return Item::Difference;
    }
    if let [.., "by-hash", algorithm, hex] = *segments
        && let Some(checksum) = by_hash(algorithm, hex)
    {
        return Item::ByHash(checksum);
    }
    // Each component has a small `Release` per architecture, which the suite's names.
    let of_component =
        below_dists && dirs.last().is_some_and(|dir| *dir == "source" || dir.starts_with("binary-"));
    match name {
        "InRelease" => Item::Release,
        "Release" if !of_component => Item::Release,
        "Release.gpg" if !of_component => Item::Signature,
        _ if is_package(name, below_dists) => Item::Package,
        _ if below_dists || is_index(name) => Item::Index,
        _ => Item::File,
    }
}

/// The digest in the last two segments of a by-hash path.
fn by_hash(algorithm: &str, hex: &str) -> Option<Checksum> {
    let algorithm = match algorithm {
        "SHA256" => "sha256",
        "SHA512" => "sha512",
        // Nobody can rely on the others.
        _ => return None,
    };
    format!("{algorithm}:{hex}").parse().ok()
}

/// Whether this is the name of an index, compressed or not.
fn is_index(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default();
    matches!(stem, "Packages" | "Sources")
        || stem.starts_with("Translation-")
        || stem.starts_with("Contents-")
}

/// Whether an index of this name names packages and what they hash to.
pub(super) fn is_catalogue(name: &str) -> bool {
    matches!(name.split('.').next(), Some("Packages" | "Sources"))
}

/// Whether this is a package, or one of the files of a source package. Below `dists/` archives of files
/// are indexes: icons.
fn is_package(name: &str, below_dists: bool) -> bool {
    let ends = |suffix: &str| name.len() > suffix.len() && name.ends_with(suffix);
    [".deb", ".udeb", ".ddeb", ".dsc"].into_iter().any(ends)
        || !below_dists && (name.contains(".tar.") || ends(".diff.gz"))
}

/// The directory that a path is in, without a slash at its end; empty at the top.
pub(super) fn dir_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

/// The directory in front of `/by-hash/<algorithm>/<hex>`.
pub(super) fn dir_of_by_hash(path: &str) -> &str {
    dir_of(dir_of(dir_of(path)))
}

/// The same, if that is what a path has at its end.
pub(super) fn dir_above_by_hash(path: &str) -> Option<&str> {
    matches!(classify(path), Item::ByHash(_)).then(|| dir_of_by_hash(path))
}

/// The directories whose `InRelease` could name the files of `dir`, the likeliest first.
pub(super) fn suites(dir: &str) -> Vec<&str> {
    let segments: Vec<&str> = dir.split('/').collect();
    let Some(dists) = segments.iter().position(|segment| *segment == "dists") else { return vec![dir] };
    let end = |count: usize| segments[..count].iter().map(|segment| segment.len() + 1).sum::<usize>() - 1;
    let counts = (dists + 2..=segments.len()).take(SUITE_MAX_DEPTH);
    counts.map(|count| &dir[..end(count)]).collect()
}

/// The directory that the paths in an index count from, by the directory of the index: the archive's
/// own, above `dists`. A flat repository does not say: it may be the index's own directory or the top.
pub(super) fn roots(dir: &str) -> Vec<&str> {
    let dists = dir.split('/').position(|segment| segment == "dists");
    match dists {
        Some(0) => vec![""],
        Some(_) => vec![&dir[..dir.find("/dists").unwrap_or(0)]],
        None if dir.is_empty() => vec![""],
        None => vec!["", dir],
    }
}

/// `<dir>/<name>`.
pub(super) fn below(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }
}

/// Where content is kept that `dir` has by its digest, in the cache and at upstream.
pub(super) fn by_hash_path(dir: &str, checksum: &Checksum) -> String {
    let algorithm = checksum.algorithm().as_str().to_ascii_uppercase();
    below(dir, &format!("by-hash/{algorithm}/{}", checksum.hex()))
}

/// The same for a sha256.
pub(super) fn by_digest_path(dir: &str, digest: Digest) -> String {
    by_hash_path(dir, &digest.into())
}
