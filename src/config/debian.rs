//! What only proxies of Debian archives have: namespaces with a path.

use url::Url;

use super::error::Problem;
use super::values;

/// An archive as clients name it: `host[:port]`, perhaps with the path of its root.
pub(super) fn archive(text: &str) -> Result<String, Problem> {
    let (host, path) = text.split_once('/').map_or((text, None), |(host, path)| (host, Some(path)));
    let host = values::host(host)?;
    let Some(path) = path else { return Ok(host) };
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '%' | '?' | '#' | '\\');
    let path = path.trim_end_matches('/');
    if path.chars().all(plain)
        && (path.is_empty() || path.split('/').all(|segment| !matches!(segment, "" | "." | "..")))
    {
        return Ok(format!("{host}/{path}"));
    }
    Err(Problem::new(format!("`{text}` is not the address of an archive"))
        .hint("write the host and the path of the archive: `deb.example.org/debian`"))
}

/// Completes archives that were named by their host alone: the path is that of the upstream. A path of
/// its own that is empty (`host/`) means all of the host.
pub(super) fn complete(archives: Vec<String>, upstream: Option<&Url>) -> Vec<String> {
    let path = upstream.map_or("", |url| url.path().trim_end_matches('/'));
    let complete = |archive: String| if archive.contains('/') { archive } else { format!("{archive}{path}") };
    archives.into_iter().map(complete).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_a_host_and_perhaps_a_path() {
        for (text, read) in [
            ("deb.example.org", "deb.example.org"),
            ("Deb.Example.org:8080", "deb.example.org:8080"),
            ("deb.example.org/debian", "deb.example.org/debian"),
            ("deb.example.org/debian/", "deb.example.org/debian"),
            ("deb.example.org/", "deb.example.org/"),
            ("h/a/B+c~d", "h/a/B+c~d"),
        ] {
            assert_eq!(archive(text).expect(text), read);
        }
        for bad in
            ["", "/debian", "http://deb.example.org/debian", "h//a", "h/../a", "h/a b", "h/a?b", "h/%61"]
        {
            assert!(archive(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_archive_without_a_path_has_that_of_its_upstream() {
        let upstream = Url::parse("http://mirror.example.org/pub/debian/").expect("valid");
        let complete = |archive: &str| complete(vec![archive.to_owned()], Some(&upstream)).remove(0);
        assert_eq!(complete("deb.example.org"), "deb.example.org/pub/debian");
        assert_eq!(complete("deb.example.org/debian"), "deb.example.org/debian");
        assert_eq!(complete("deb.example.org/"), "deb.example.org/");
    }
}
