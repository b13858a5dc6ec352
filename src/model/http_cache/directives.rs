//! `Cache-Control` (RFC 9111, section 5.2), read once into what each directive means.
//!
//! Names are compared without case; arguments may be tokens or quoted. A directive that is there
//! twice, or whose argument is not a number, counts as its strictest reading. Unknown ones are ignored.

use http::{HeaderMap, header};

use super::MAX_SECONDS;

/// What a request allows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RequestDirectives {
    /// Nothing is used without asking upstream.
    pub no_cache: bool,
    /// Nothing of the answer is stored.
    pub no_store: bool,
    /// Upstream is not asked.
    pub only_if_cached: bool,
    /// The greatest age that is accepted, in seconds.
    pub max_age: Option<u64>,
    /// For how many seconds more it must be fresh.
    pub min_fresh: Option<u64>,
    /// For how many seconds it may be stale.
    pub max_stale: Option<u64>,
    /// For how many seconds it may be stale if upstream fails (RFC 5861, section 4).
    pub stale_if_error: Option<u64>,
}

#[expect(clippy::struct_excessive_bools, reason = "each is a directive, and any may stand beside any other")]
/// What a response allows. Directives with a list of fields count as if they had none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ResponseDirectives {
    /// Not to be stored.
    pub no_store: bool,
    /// Not to be used without asking upstream.
    pub no_cache: bool,
    /// Not for a shared cache.
    pub private: bool,
    /// May be stored whatever its status or the request's `Authorization`.
    pub public: bool,
    /// Not to be used when stale.
    pub must_revalidate: bool,
    /// The same, said to shared caches.
    pub proxy_revalidate: bool,
    /// To be stored only by who knows the status.
    pub must_understand: bool,
    /// For how many seconds it is fresh.
    pub max_age: Option<u64>,
    /// The same, said to shared caches.
    pub s_maxage: Option<u64>,
    /// For how many seconds it may be stale while upstream is asked (RFC 5861, section 3).
    pub stale_while_revalidate: Option<u64>,
    /// For how many seconds it may be stale if upstream fails (RFC 5861, section 4).
    pub stale_if_error: Option<u64>,
}

impl RequestDirectives {
    /// Reads a request's headers; `Pragma: no-cache` counts if there is no `Cache-Control` (section
    /// 5.4).
    pub fn of(headers: &HeaderMap) -> Self {
        let mut own = Self::default();
        for line in lines(headers, &header::CACHE_CONTROL) {
            each(line, |name, argument| match name {
                "no-cache" => own.no_cache = true,
                "no-store" => own.no_store = true,
                "only-if-cached" => own.only_if_cached = true,
                "max-age" => least(&mut own.max_age, argument),
                // What is not a number cannot be fulfilled, so it asks for the most.
                "min-fresh" => {
                    own.min_fresh = own.min_fresh.max(Some(seconds(argument).unwrap_or(MAX_SECONDS)));
                }
                "max-stale" if argument.is_none() => {
                    own.max_stale = own.max_stale.or(Some(MAX_SECONDS));
                }
                "max-stale" => least(&mut own.max_stale, argument),
                "stale-if-error" => least(&mut own.stale_if_error, argument),
                _ => {}
            });
        }
        if !headers.contains_key(header::CACHE_CONTROL) {
            for line in lines(headers, &header::PRAGMA) {
                each(line, |name, _| own.no_cache |= name == "no-cache");
            }
        }
        own
    }
}

impl ResponseDirectives {
    /// Reads a response's headers.
    pub fn of(headers: &HeaderMap) -> Self {
        Self::of_lines(lines(headers, &header::CACHE_CONTROL))
    }

    /// Reads the lines of a response's `Cache-Control`.
    pub fn of_lines<'l>(lines: impl IntoIterator<Item = &'l str>) -> Self {
        let mut own = Self::default();
        for line in lines {
            each(line, |name, argument| match name {
                "no-store" => own.no_store = true,
                "no-cache" => own.no_cache = true,
                "private" => own.private = true,
                "public" => own.public = true,
                "must-revalidate" => own.must_revalidate = true,
                "proxy-revalidate" => own.proxy_revalidate = true,
                "must-understand" => own.must_understand = true,
                "max-age" => least(&mut own.max_age, argument),
                "s-maxage" => least(&mut own.s_maxage, argument),
                "stale-while-revalidate" => least(&mut own.stale_while_revalidate, argument),
                "stale-if-error" => least(&mut own.stale_if_error, argument),
                _ => {}
            });
        }
        own
    }

    /// Whether it forbids a shared cache to use it stale (section 4.2.4).
    pub const fn forbids_stale(&self) -> bool {
        self.must_revalidate || self.proxy_revalidate || self.s_maxage.is_some() || self.no_cache
    }
}

/// The lines of a field that are text.
pub(super) fn lines<'h>(headers: &'h HeaderMap, name: &http::HeaderName) -> impl Iterator<Item = &'h str> {
    headers.get_all(name).iter().filter_map(|line| line.to_str().ok())
}

/// Keeps the smaller of what was said; what is not a number is nought.
fn least(known: &mut Option<u64>, argument: Option<&str>) {
    let said = seconds(argument).unwrap_or(0);
    *known = Some(known.map_or(said, |known| known.min(said)));
}

/// Delta-seconds (section 1.2.2): digits alone. What does not fit stands for the most there is.
fn seconds(argument: Option<&str>) -> Option<u64> {
    let digits = argument?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(MAX_SECONDS).min(MAX_SECONDS))
}

/// Visits the directives of a line: names in lower case, arguments without their quotes.
fn each(line: &str, mut visit: impl FnMut(&str, Option<&str>)) {
    let mut rest = line;
    while !rest.is_empty() {
        let end = member_end(rest);
        let member = rest[..end].trim_matches([' ', '\t']);
        rest = rest.get(end + 1..).unwrap_or_default();
        let (name, argument) = match member.split_once('=') {
            Some((name, argument)) => (name, Some(argument)),
            None => (member, None),
        };
        let unquoted = argument.map(|argument| {
            argument.strip_prefix('"').and_then(|inner| inner.strip_suffix('"')).unwrap_or(argument)
        });
        visit(&name.to_ascii_lowercase(), unquoted);
    }
}

/// Where the first member of a list ends: at a comma that is not inside a quoted string.
fn member_end(list: &str) -> usize {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in list.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => return at,
            _ => {}
        }
    }
    list.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(lines: &[&str]) -> ResponseDirectives {
        ResponseDirectives::of_lines(lines.iter().copied())
    }

    fn request(fields: &[(&'static str, &str)]) -> RequestDirectives {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, value.parse().expect("a value"));
        }
        RequestDirectives::of(&headers)
    }

    #[test]
    fn max_age_is_a_number_or_nothing_at_all() {
        for (lines, max_age) in [
            (&["max-age=3600"][..], Some(3600)),
            (&["MaX-aGe=3600"], Some(3600)),
            (&["max-age=\"3600\""], Some(3600)),
            (&["max-age=003600"], Some(3600)),
            (&["foobar, max-age=3600"], Some(3600)),
            (&["max-age=2147483648"], Some(MAX_SECONDS)),
            (&["max-age=99999999999999999999999"], Some(MAX_SECONDS)),
            (&["max-age=-3600"], Some(0)),
            (&["max-age=3600.0"], Some(0)),
            (&["max-age='3600'"], Some(0)),
            (&["max-age=a3600"], Some(0)),
            (&["max-age=3600a"], Some(0)),
            (&["max-age= 3600"], Some(0)),
            (&["max-age="], Some(0)),
            (&["max-age"], Some(0)),
            (&["max-age =3600"], None),
            (&["max-age=3600, max-age=1"], Some(1)),
            (&["max-age=1", "max-age=3600"], Some(1)),
            (&["extension=\"max-age=3600\", max-age=1"], Some(1)),
            (&["max-age=1, extension=\"max-age=3600\""], Some(1)),
            (&["extension=\"a\\\", max-age=3600\""], None),
            (&["extension=\"max-age=3600"], None),
            (&["", ",", " , "], None),
        ] {
            assert_eq!(response(lines).max_age, max_age, "{lines:?}");
        }
    }

    #[test]
    fn flags_are_known_in_any_case_and_with_a_list_of_fields() {
        let all = response(&[
            "No-StOrE, NO-CACHE=\"a, b\", private=\"c\"",
            "public,must-revalidate ,proxy-revalidate, must-understand",
        ]);
        assert!(all.no_store && all.no_cache && all.private && all.public);
        assert!(all.must_revalidate && all.proxy_revalidate && all.must_understand);
        assert_eq!(response(&["no-storage, \"no-store\", x=no-store"]), ResponseDirectives::default());
        let stale = response(&["stale-while-revalidate=5, stale-if-error=60"]);
        assert_eq!((stale.stale_while_revalidate, stale.stale_if_error), (Some(5), Some(60)));
    }

    #[test]
    fn what_forbids_stale_use_is_known() {
        for line in ["must-revalidate", "proxy-revalidate", "s-maxage=2", "no-cache"] {
            assert!(response(&[line]).forbids_stale(), "{line}");
        }
        assert!(!response(&["max-age=2, public, stale-if-error=9"]).forbids_stale());
    }

    #[test]
    fn requests_say_how_old_and_how_fresh() {
        let asked = request(&[("cache-control", "max-age=5, min-fresh=7, max-stale=9, stale-if-error=11")]);
        assert_eq!((asked.max_age, asked.min_fresh), (Some(5), Some(7)));
        assert_eq!((asked.max_stale, asked.stale_if_error), (Some(9), Some(11)));
        assert_eq!(request(&[("cache-control", "max-stale")]).max_stale, Some(MAX_SECONDS));
        assert_eq!(request(&[("cache-control", "min-fresh=x")]).min_fresh, Some(MAX_SECONDS));
        let all = request(&[("cache-control", "no-cache"), ("cache-control", "no-store, only-if-cached")]);
        assert!(all.no_cache && all.no_store && all.only_if_cached);
    }

    #[test]
    fn pragma_counts_only_without_cache_control() {
        assert!(request(&[("pragma", "foo, No-Cache")]).no_cache);
        assert!(!request(&[("pragma", "foo")]).no_cache);
        assert!(!request(&[("pragma", "no-cache"), ("cache-control", "max-age=1")]).no_cache);
        assert_eq!(request(&[]), RequestDirectives::default());
    }
}
