//! Keys: where, logically, a ref lives. How a key becomes a file name is `store::layout`'s alone.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::ProxyId;

/// Which of a proxy's three trees a ref lives in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Area {
    /// Artifact pointers: names people know.
    Refs,
    /// Descriptors: facts learned about artifacts.
    Meta,
    /// Cached HTTP responses: lists, index pages.
    Cache,
}

impl Area {
    /// Every area.
    pub const ALL: [Self; 3] = [Self::Refs, Self::Meta, Self::Cache];

    /// The directory's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refs => "refs",
            Self::Meta => "meta",
            Self::Cache => "cache",
        }
    }
}

impl fmt::Display for Area {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Area {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        Self::ALL.into_iter().find(|area| area.as_str() == text).ok_or(PathError)
    }
}

/// A string that cannot be the path of a ref.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a ref path: 1 to 4096 bytes of segments between single slashes, none empty, `.` or `..`, no control characters"
)]
pub struct PathError;

/// The path of a ref within its area: segments between single slashes.
///
/// At most 4096 bytes; no segment is empty, `.` or `..`; no control characters. Any other text is
/// allowed, upper case and `%` and non-ASCII included: the layout escapes what file systems would
/// merge or refuse. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RefPath(Arc<str>);

impl RefPath {
    /// The longest path, in bytes.
    pub const MAX_LEN: usize = 4096;

    /// The whole path.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its segments, at least one.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }
}

impl FromStr for RefPath {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        let valid = text.len() <= Self::MAX_LEN
            && text.split('/').all(|segment| !matches!(segment, "" | "." | ".."))
            && !text.contains(|c: char| c.is_control());
        if valid { Ok(Self(text.into())) } else { Err(PathError) }
    }
}

impl fmt::Display for RefPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RefPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The whole address of a ref.
///
/// Written `container/hub/refs/library/alpine/tags/3.20`, and read back from that form.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RefKey {
    /// The proxy it belongs to.
    pub proxy: ProxyId,
    /// Which tree of the proxy.
    pub area: Area,
    /// Where in the tree.
    pub path: RefPath,
}

impl fmt::Display for RefKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.proxy, self.area, self.path)
    }
}

impl FromStr for RefKey {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        let mut parts = text.splitn(4, '/');
        let mut part = || parts.next().ok_or(PathError);
        let artifact_type = part()?.parse().map_err(|_| PathError)?;
        let name = part()?.parse().map_err(|_| PathError)?;
        Ok(Self { proxy: ProxyId { artifact_type, name }, area: part()?.parse()?, path: part()?.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_what_it_writes() {
        let text = "container/hub/refs/library/alpine/tags/3.20";
        assert_eq!(text.parse::<RefKey>().expect("valid").to_string(), text);
    }

    #[test]
    fn paths_that_could_climb_or_hide_are_refused() {
        for bad in ["", "/", "/a", "a/", "a//b", "a/./b", "a/../b", "..", "a\0b", "a\nb", &"a".repeat(4097)] {
            assert_eq!(bad.parse::<RefPath>(), Err(PathError), "{bad:?}");
        }
        for good in ["a", "a/b", "...", "a/.b", "Ä/%2F", "a b"] {
            assert_eq!(good.parse::<RefPath>().expect(good).as_str(), good);
        }
    }
}
