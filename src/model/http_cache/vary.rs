//! Which stored answer a request selects (RFC 9111, section 4.1).
//!
//! The answers to one address that differ by request headers are kept as refs of their own below the
//! address's ref, which holds the newest of them and so says what they differ by.

use http::{HeaderMap, HeaderName, header};

use super::directives::lines;
use crate::model::{Digest, RefKey, RefPath};

/// The most fields that answers may differ by; more are as good as all.
const MAX_FIELDS: usize = 16;
/// The segment between an address's path and the name of a variant. No address has it: what follows a
/// `%` in one is a hexadecimal digit.
const SEGMENT: &str = "%vary";
/// How many hexadecimal digits name a variant.
const NAME_LEN: usize = 32;

/// Fields that are lists without an order and without case.
const LISTS: [&str; 3] = ["accept-charset", "accept-encoding", "accept-language"];

/// What answers to one address differ by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// Nothing: any request selects it.
    Always,
    /// These request fields, in lower case, sorted.
    By(Vec<String>),
    /// Something that cannot be told from requests (`*`): no request selects it.
    Never,
}

/// What an answer's `Vary` says.
pub fn selection(headers: &HeaderMap) -> Selection {
    Selection::of_lines(lines(headers, &header::VARY))
}

impl Selection {
    /// The same of the field's lines.
    pub fn of_lines<'l>(lines: impl IntoIterator<Item = &'l str>) -> Self {
        let mut names: Vec<String> = lines
            .into_iter()
            .flat_map(|line| line.split(','))
            .map(|name| name.trim().to_ascii_lowercase())
            .filter(|name| !name.is_empty())
            .collect();
        names.sort_unstable();
        names.dedup();
        if names.is_empty() {
            Self::Always
        } else if names.len() > MAX_FIELDS || names.iter().any(|name| name == "*") {
            Self::Never
        } else {
            Self::By(names)
        }
    }

    /// The name of the variant that a request selects; `None` if there are none to choose from.
    pub fn variant(&self, request: &HeaderMap) -> Option<String> {
        let Self::By(names) = self else { return None };
        let mut text = String::new();
        for name in names {
            text.push_str(name);
            // Absent is not the same as empty.
            match HeaderName::try_from(name.as_str()).ok().filter(|name| request.contains_key(name)) {
                Some(field) => {
                    text.push(':');
                    text.push_str(&normal(request, &field));
                }
                None => text.push('-'),
            }
            text.push('\n');
        }
        let mut hex = Digest::of(text.as_bytes()).hex();
        hex.truncate(NAME_LEN);
        Some(hex)
    }
}

/// A field's value so that what means the same is the same: several lines are one list, white space
/// around commas says nothing.
fn normal(request: &HeaderMap, name: &HeaderName) -> String {
    let lines: Vec<_> =
        request.get_all(name).iter().map(|line| String::from_utf8_lossy(line.as_bytes())).collect();
    let mut members: Vec<String> =
        lines.iter().flat_map(|line| line.split(',')).map(|member| member.trim().to_owned()).collect();
    if LISTS.contains(&name.as_str()) {
        members.retain(|member| !member.is_empty());
        for member in &mut members {
            member.make_ascii_lowercase();
            member.retain(|c| !c.is_ascii_whitespace());
        }
        members.sort_unstable();
    }
    members.join(",")
}

/// Where a variant of the answer at a path is kept; `None` if the path is too long for it.
pub fn variant_path(path: &RefPath, variant: &str) -> Option<RefPath> {
    format!("{path}/{SEGMENT}/{variant}").parse().ok()
}

/// Whether a key is that of a variant of the answer at an address.
pub fn is_variant_of(key: &RefKey, address: &RefKey) -> bool {
    let below = key.path.as_str().strip_prefix(address.path.as_str());
    let named = below.and_then(|below| below.strip_prefix('/')?.strip_prefix(SEGMENT));
    named.is_some_and(|name| name.starts_with('/'))
        && (&key.proxy, key.area) == (&address.proxy, address.area)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().expect("a value"));
        }
        headers
    }

    fn same(vary: &str, one: &[(&'static str, &str)], other: &[(&'static str, &str)]) -> bool {
        let selection = Selection::of_lines([vary]);
        let of = |fields| selection.variant(&headers(fields)).expect("it varies");
        of(one) == of(other)
    }

    #[test]
    fn a_star_anywhere_selects_nothing() {
        for lines in [&["*"][..], &["*, *"], &[", *"], &["", "*"], &["Foo, *"], &["*, Foo"], &["Foo", "*"]] {
            assert_eq!(Selection::of_lines(lines.iter().copied()), Selection::Never, "{lines:?}");
        }
        assert_eq!(Selection::of_lines([]), Selection::Always);
        assert_eq!(Selection::of_lines(["", " , "]), Selection::Always);
        let many = (0..=MAX_FIELDS).map(|n| format!("a{n}")).collect::<Vec<_>>().join(",");
        assert_eq!(Selection::of_lines([many.as_str()]), Selection::Never);
        let by = Selection::By(vec!["bar".to_owned(), "foo".to_owned()]);
        assert_eq!(Selection::of_lines(["Foo, BAR", "foo"]), by);
    }

    #[test]
    fn requests_select_the_same_if_the_named_fields_mean_the_same() {
        assert!(same("Foo", &[("foo", "1"), ("other", "2")], &[("foo", "1"), ("other", "3")]));
        assert!(same("Foo", &[("foo", "1, 2")], &[("foo", "1"), ("foo", "2")]));
        assert!(same("Foo", &[("foo", "1,2")], &[("foo", " 1,  2 ")]));
        assert!(same("Foo, Bar", &[("foo", "1")], &[("foo", "1")]));
        assert!(same("Accept-Language", &[("accept-language", "en, de")], &[("accept-language", "De ,eN")]));
    }

    #[test]
    fn and_not_the_same_otherwise() {
        assert!(!same("Foo", &[("foo", "1")], &[("foo", "2")]));
        assert!(!same("Foo", &[("foo", "1")], &[]));
        assert!(!same("Foo", &[("foo", "")], &[]));
        assert!(!same("Foo", &[("foo", "a")], &[("foo", "A")]));
        assert!(!same("Foo", &[("foo", "1,2")], &[("foo", "2,1")]));
        assert!(!same("Foo, Bar", &[("foo", "1")], &[("bar", "1")]));
        assert!(!same("Foo, Bar", &[("foo", "1\tbar:2")], &[("foo", "1"), ("bar", "2")]));
    }

    #[test]
    fn a_variant_lies_below_its_address() {
        let path: RefPath = "a/b.tar.gz".parse().expect("a path");
        assert_eq!(variant_path(&path, "0123").expect("fits").as_str(), "a/b.tar.gz/%vary/0123");
        let long: RefPath = "a".repeat(RefPath::MAX_LEN).parse().expect("a path");
        assert_eq!(variant_path(&long, "0123"), None);
    }
}
