//! The grammar of names, tags, paths and queries (OCI distribution specification, "Pulling
//! manifests"; OCI image specification, "Digests").
//!
//! Everything that a client sends passes through here once. What comes out holds no `..`, no
//! control characters and nothing that is still percent-encoded.

use std::collections::BTreeMap;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::protocol::{Part, Refusal};

/// The longest repository name, in bytes. Many clients refuse longer ones together with the host.
const NAME_MAX_LEN: usize = 255;
/// The longest tag, in bytes.
const TAG_MAX_LEN: usize = 128;
/// The longest path as sent, in bytes: the longest name below the longest proxy name with a sha512
/// digest, every byte of it percent-encoded, is shorter.
const PATH_MAX_LEN: usize = 2048;
/// The longest query as sent, in bytes. Encoded anew it is at most three times as long, which
/// leaves room for the repository in a ref's path.
const QUERY_MAX_LEN: usize = 1024;
/// The most parameters of a query.
const QUERY_MAX_PARAMETERS: usize = 8;
/// The longest value of a parameter, in bytes; media types end at 255 (RFC 6838, section 4.2).
const VALUE_MAX_LEN: usize = 255;

/// What stays as it is in a query: the unreserved characters of RFC 3986, section 2.3.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Whether this is a repository name: components of lower-case letters and digits, joined inside by
/// `.`, `_`, `__` or dashes, and with `/` between them; at most 255 bytes.
pub(super) fn is_name(text: &str) -> bool {
    text.len() <= NAME_MAX_LEN && text.split('/').all(is_component)
}

fn is_component(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(plain)
        && text.ends_with(plain)
        && text.split(plain).all(|between| {
            matches!(between, "" | "." | "_" | "__") || between.bytes().all(|byte| byte == b'-')
        })
}

/// Whether this is a tag: 1 to 128 of letters, digits, `.`, `_`, `-`, not starting with `.` or `-`.
pub(super) fn is_tag(text: &str) -> bool {
    text.len() <= TAG_MAX_LEN
        && text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// Whether this has the form of a digest in whatever algorithm (OCI image specification, "Digests").
pub(super) fn is_digest(text: &str) -> bool {
    let algorithm = |text: &str| {
        text.split(['+', '.', '_', '-']).all(|part| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        })
    };
    text.split_once(':').is_some_and(|(name, value)| {
        algorithm(name)
            && !value.is_empty()
            && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"=_-".contains(&b))
    })
}

/// Takes the percent-encoding from a path, once.
///
/// # Errors
/// [`Refusal::Invalid`] for a path that is too long, is not UTF-8 or, decoded, holds a control
/// character, `\`, or a segment that is empty, `.` or `..`. The segment after a last `/` may be
/// empty.
pub(super) fn decode_path(path: &str) -> Result<String, Refusal> {
    let invalid = |why| Refusal::Invalid { what: Part::Path, why };
    if path.len() > PATH_MAX_LEN {
        return Err(invalid("it is too long"));
    }
    let path = percent_decode_str(path).decode_utf8().map_err(|_| invalid("it is not UTF-8"))?;
    if path.contains(|c: char| c.is_control() || c == '\\') {
        return Err(invalid("it holds a control character or a backslash"));
    }
    let segments = path.strip_prefix('/').unwrap_or(&path);
    let segments = segments.strip_suffix('/').unwrap_or(segments);
    if !segments.is_empty() && segments.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        return Err(invalid("it has an empty, `.` or `..` segment"));
    }
    Ok(path.into_owned())
}

/// The parameters of a query, decoded, each at most once, in the order of their names.
///
/// A parameter with an empty value counts as not given. `+` is itself: the protocol's values (tags,
/// media types, host names, numbers) have no spaces, and media types are full of `+`, which some
/// clients do not encode.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Query(BTreeMap<String, String>);

impl Query {
    /// Reads a query as sent, without the `?`.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] for one that is too long, is not UTF-8, holds control characters, or
    /// gives a parameter twice.
    pub(super) fn parse(query: &str) -> Result<Self, Refusal> {
        let invalid = |why| Refusal::Invalid { what: Part::Query, why };
        if query.len() > QUERY_MAX_LEN {
            return Err(invalid("it is too long"));
        }
        let decode = |text| {
            let text = percent_decode_str(text).decode_utf8().map_err(|_| invalid("it is not UTF-8"))?;
            if text.contains(char::is_control) {
                return Err(invalid("it holds a control character"));
            }
            if text.len() > VALUE_MAX_LEN {
                return Err(invalid("a parameter is longer than 255 bytes"));
            }
            Ok(text.into_owned())
        };
        let mut parameters = BTreeMap::new();
        for parameter in query.split('&') {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            if value.is_empty() {
                continue;
            }
            if parameters.insert(decode(name)?, decode(value)?).is_some() {
                return Err(invalid("a parameter is given twice"));
            }
        }
        if parameters.len() > QUERY_MAX_PARAMETERS {
            return Err(invalid("it has too many parameters"));
        }
        Ok(Self(parameters))
    }

    /// The value of a parameter.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The same with a parameter set, or taken out.
    #[must_use]
    pub(super) fn with(mut self, name: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.0.insert(name.to_owned(), value.to_owned()),
            None => self.0.remove(name),
        };
        self
    }

    /// Whether there are no parameters.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `n`, the most entries of a list, cut down to `most`.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] if it is negative or not a number.
    pub(super) fn limit(&self, most: usize) -> Result<Option<usize>, Refusal> {
        let Some(n) = self.get("n") else { return Ok(None) };
        if !n.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Refusal::Invalid { what: Part::Query, why: "`n` is not a number from 0 on" });
        }
        // Digits that do not fit are a number that is larger than any limit.
        Ok(Some(n.parse().unwrap_or(most).min(most)))
    }
}

/// The canonical form: encoded, in the order of the names.
impl std::fmt::Display for Query {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (number, (name, value)) in self.0.iter().enumerate() {
            let separator = if number == 0 { "" } else { "&" };
            let [name, value] = [name, value].map(|text| utf8_percent_encode(text, RESERVED));
            write!(f, "{separator}{name}={value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_grammar_of_the_specification() {
        for good in [
            "a",
            "alpine",
            "library/alpine",
            "a.b_c__d---e/f",
            "tags",
            "manifests/blobs/tags",
            "0/1",
            &"a".repeat(255),
        ] {
            assert!(is_name(good), "{good}");
        }
        for bad in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "A",
            "a..b",
            "a___b",
            "a._b",
            "a-_b",
            "-a",
            "a-",
            "_a",
            ".a",
            "a.",
            "a/../b",
            "a/.",
            "a:b",
            "a b",
            "a%2fb",
            "ä",
            &"a".repeat(256),
        ] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn tags_follow_the_grammar_of_the_specification() {
        for good in ["a", "_", "3.20", "V1.0-rc.1", "sha256-abc", "_catalog", &"a".repeat(128)] {
            assert!(is_tag(good), "{good}");
        }
        for bad in ["", ".", "..", "-x", ".x", "a/b", "a b", "a+b", "a%20", "é", &"a".repeat(129)] {
            assert!(!is_tag(bad), "{bad}");
        }
    }

    #[test]
    fn a_path_is_decoded_once_and_never_climbs() {
        assert_eq!(decode_path("/v2/a%2fb/x").as_deref(), Ok("/v2/a/b/x"));
        assert_eq!(decode_path("/v2/%252e%252e/x").as_deref(), Ok("/v2/%2e%2e/x"));
        assert_eq!(decode_path("/v2/").as_deref(), Ok("/v2/"));
        for bad in [
            "/v2/../x",
            "/v2/%2e%2e/x",
            "/v2/.%2e/x",
            "/v2/./x",
            "/v2//x",
            "/v2/x//",
            "/v2/x%2f%2fy",
            "/v2/x%5cy",
            "/v2/x\\y",
            "/v2/%00",
            "/v2/%0a",
            "/v2/%ff",
            "/v2/%c0%ae",
            &format!("/v2/{}", "a".repeat(PATH_MAX_LEN)),
        ] {
            assert!(matches!(decode_path(bad), Err(Refusal::Invalid { what: Part::Path, .. })), "{bad}");
        }
    }

    #[test]
    fn a_query_has_one_canonical_form() {
        let canonical = |text: &str| Query::parse(text).map(|query| query.to_string());
        assert_eq!(canonical("n=5&last=b").as_deref(), Ok("last=b&n=5"));
        assert_eq!(canonical("x=a+b/c&&y=&z").as_deref(), Ok("x=a%2Bb%2Fc"));
        assert_eq!(canonical("").as_deref(), Ok(""));
        for bad in ["n=1&n=2", "n=%ff", "n=%00", &"a=".repeat(600), &format!("a={}", "x".repeat(256))] {
            assert!(matches!(canonical(bad), Err(Refusal::Invalid { what: Part::Query, .. })), "{bad}");
        }
        let nine = (0..9).map(|n| format!("p{n}=1")).collect::<Vec<_>>().join("&");
        assert!(canonical(&nine).is_err());
    }

    #[test]
    fn the_limit_of_a_list_is_capped_and_never_negative() {
        let limit = |text| Query::parse(text).and_then(|query| query.limit(1000));
        assert_eq!(limit(""), Ok(None));
        assert_eq!(limit("n="), Ok(None));
        assert_eq!(limit("n=0"), Ok(Some(0)));
        assert_eq!(limit("n=7"), Ok(Some(7)));
        assert_eq!(limit("n=2147483647"), Ok(Some(1000)));
        assert_eq!(limit("n=99999999999999999999999"), Ok(Some(1000)));
        for bad in ["n=-1", "n=x", "n=1.5", "n=%2B1", "n= 1"] {
            assert!(limit(bad).is_err(), "{bad}");
        }
    }
}
