//! How an operator wants plain HTTP to be cached: by path, and as a whole.

use std::str::FromStr;
use std::time::Duration;

use super::{Heed, Leave};

/// How one proxy caches plain HTTP. The default is what HTTP's own rules say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRules {
    /// What holds for which paths; the first that fits counts. For all others upstream's answers say it.
    pub rules: Vec<PathRule>,
    /// What is left to the operator where upstream's answers say how long they hold.
    pub leave: Leave,
    /// How much of what clients say of caching counts there.
    pub heed: Heed,
    /// Whether redirects are handed to clients instead of being followed.
    pub keep_redirects: bool,
    /// Whether a client's `Authorization` goes along, and upstream's challenge back.
    pub forward_authorization: bool,
    /// Whether requests that may change something upstream are handed on.
    pub forward_unsafe: bool,
}

impl Default for HttpRules {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl HttpRules {
    /// What HTTP's own rules say.
    pub const DEFAULT: Self = Self {
        rules: Vec::new(),
        leave: Leave { stale_if_error: Duration::ZERO },
        heed: Heed::Everything,
        keep_redirects: false,
        forward_authorization: false,
        forward_unsafe: false,
    };

    /// The rule for a path (without query, begins with `/`).
    pub fn rule(&self, path: &str) -> Option<&PathRule> {
        self.rules.iter().find(|rule| rule.pattern.matches(path))
    }
}

/// What holds for some paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathRule {
    /// Which.
    pub pattern: Pattern,
    /// How they are cached.
    pub treatment: Treatment,
    /// What is put after a path to make that of the file with its checksum.
    pub sidecar: Option<String>,
}

/// How paths are cached, whatever upstream and clients say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Treatment {
    /// For ever.
    Immutable,
    /// This long.
    For(Duration),
    /// Not at all.
    NoStore,
}

/// A pattern of paths. `*` stands for any characters but `/`, `**` for any at all. Without a `/` it is
/// compared with the last segment, otherwise with the whole path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

/// A string that is no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a pattern is 1 to 256 characters with at most 8 `*` or `**` in it")]
pub struct PatternError;

impl Pattern {
    const MAX_LEN: usize = 256;
    /// Each may cost another pass over a path.
    const MAX_STARS: usize = 8;

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a path fits; it begins with `/`.
    pub fn matches(&self, path: &str) -> bool {
        let path = path.strip_prefix('/').unwrap_or(path);
        let pattern = self.0.strip_prefix('/').unwrap_or(&self.0);
        if self.0.contains('/') {
            fits(pattern.as_bytes(), path.as_bytes())
        } else {
            fits(pattern.as_bytes(), path.rsplit('/').next().unwrap_or_default().as_bytes())
        }
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let stars = text.replace("**", "*").matches('*').count();
        let valid = (1..=Self::MAX_LEN).contains(&text.len()) && stars <= Self::MAX_STARS;
        if valid { Ok(Self(text.to_owned())) } else { Err(PatternError) }
    }
}

/// Whether a text fits a pattern. Recursion is as deep as the pattern has stars.
fn fits(pattern: &[u8], text: &[u8]) -> bool {
    let Some(star) = pattern.iter().position(|&byte| byte == b'*') else { return pattern == text };
    let (Some(before), Some(rest)) = (text.get(..star), text.get(star..)) else { return false };
    if before != &pattern[..star] {
        return false;
    }
    let (crosses, after) = match pattern[star + 1..].strip_prefix(b"*") {
        Some(after) => (true, after),
        None => (false, &pattern[star + 1..]),
    };
    let reach =
        if crosses { rest.len() } else { rest.iter().position(|&byte| byte == b'/').unwrap_or(rest.len()) };
    if after.is_empty() {
        return reach == rest.len();
    }
    (0..=reach).any(|skipped| fits(after, &rest[skipped..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_without_a_slash_is_for_file_names_and_others_for_whole_paths() {
        for (pattern, path, expected) in [
            ("*.tar.gz", "/a/b/x-1.0.tar.gz", true),
            ("*.tar.gz", "/x.tar.gz", true),
            ("*.tar.gz", "/x.tar.gz/y", false),
            ("*.tar.gz", "/x.tar.gzip", false),
            ("index.html", "/a/index.html", true),
            ("index.html", "/a/old-index.html", false),
            ("*", "/anything", true),
            ("*", "/", true),
            ("/index.html", "/index.html", true),
            ("/index.html", "/a/index.html", false),
            ("dists/*/Release", "/dists/stable/Release", true),
            ("dists/*/Release", "/dists/a/b/Release", false),
            ("dists/**", "/dists/a/b/Release", true),
            ("dists/**", "/pool/dists/a", false),
            ("**/Release", "/dists/a/Release", true),
            ("v*/*.zip", "/v1.2/a.zip", true),
            ("v*/*.zip", "/v1.2/b/a.zip", false),
            ("a*b*c", "/a--b--c", true),
            ("a*b*c", "/a--c--b", false),
            ("a*", "/a", true),
        ] {
            let parsed: Pattern = pattern.parse().expect("a pattern");
            assert_eq!(parsed.matches(path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn the_first_rule_that_fits_counts() {
        let rule = |pattern: &str, treatment| PathRule {
            pattern: pattern.parse().expect("a pattern"),
            treatment,
            sidecar: None,
        };
        let rules = HttpRules {
            rules: vec![rule("latest*", Treatment::NoStore), rule("*.tgz", Treatment::Immutable)],
            ..HttpRules::default()
        };
        let of = |path| rules.rule(path).map(|rule| rule.treatment);
        assert_eq!(of("/a/latest.tgz"), Some(Treatment::NoStore));
        assert_eq!(of("/a/1.0.tgz"), Some(Treatment::Immutable));
        assert_eq!(of("/a/1.0.zip"), None);
    }

    #[test]
    fn what_would_take_long_to_compare_is_no_pattern() {
        for bad in ["", &"*a".repeat(9), &"a".repeat(257)] {
            assert_eq!(bad.parse::<Pattern>(), Err(PatternError), "{bad}");
        }
        assert!("**a*b".parse::<Pattern>().is_ok());
    }
}
