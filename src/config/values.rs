//! The notations of single values: durations, sizes, addresses, hosts, URLs, secrets.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use url::Url;

use super::error::Problem;
use crate::model::Share;

/// A password or token. Shown as `***`, whatever it is.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub(super) fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The secret itself, to be sent to upstream and nowhere else.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

const DURATION_UNITS: [(&str, u64); 6] =
    [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000), ("w", 604_800_000)];

const SIZE_UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("kB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// The most of a disk that may be asked to stay free: a cache that may keep nothing is none.
const MAX_PERCENT: u8 = 90;

/// A whole number and a unit, as a multiple of the smallest; `None` also if it does not fit.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start();
    let (_, factor) = units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// A duration such as `90s`, `24h` or `30d`.
pub(super) fn duration(text: &str) -> Result<Duration, Problem> {
    scaled(text, &DURATION_UNITS).map(Duration::from_millis).ok_or_else(|| {
        Problem::new(format!("`{text}` is not a duration"))
            .hint("write a whole number and a unit: `90s`, `15m`, `24h`, `30d`, `2w`")
    })
}

/// A duration that is not zero.
pub(super) fn wait(text: &str) -> Result<Duration, Problem> {
    duration(text).and_then(|wait| {
        if wait.is_zero() {
            return Err(Problem::new("a time to wait of zero never succeeds")
                .hint("write how long it may take, such as `5s`"));
        }
        Ok(wait)
    })
}

/// A number of bytes such as `10MB` or `200GiB`.
pub(super) fn size(text: &str) -> Result<u64, Problem> {
    text.parse().ok().or_else(|| scaled(text, &SIZE_UNITS)).ok_or_else(|| {
        Problem::new(format!("`{text}` is not a size"))
            .hint("write a whole number and a unit: `500MB`, `200GiB`, `2TiB`")
    })
}

/// A part of the disk such as `20GiB` or `5%`.
pub(super) fn share(text: &str) -> Result<Share, Problem> {
    let Some(percent) = text.strip_suffix('%') else {
        return size(text).map(Share::Bytes).map_err(|problem| {
            problem.hint("write a whole number and a unit, or a percentage: `20GiB`, `5%`")
        });
    };
    match percent.trim_end().parse() {
        Ok(percent @ 0..=MAX_PERCENT) => Ok(Share::Percent(percent)),
        _ => Err(Problem::new(format!("`{text}` is not a percentage from 0 to {MAX_PERCENT}"))
            .hint("write a whole number and one `%`, or a size: `5%`, `20GiB`")),
    }
}

/// A share in the notation that [`share`] reads.
pub(super) fn show_share(share: Share) -> String {
    match share {
        Share::Bytes(bytes) => show_size(bytes),
        Share::Percent(percent) => format!("{percent}%"),
    }
}

/// A duration in the notation that [`duration`] reads, in the largest unit that says it exactly.
pub(super) fn show_duration(duration: Duration) -> String {
    let milliseconds = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    show_scaled(milliseconds, &DURATION_UNITS)
}

/// A size in the notation that [`size`] reads, in the largest unit that says it exactly.
pub(super) fn show_size(bytes: u64) -> String {
    show_scaled(bytes, &SIZE_UNITS)
}

fn show_scaled(value: u64, units: &[(&str, u64)]) -> String {
    let exact = units.iter().filter(|(_, factor)| value >= *factor && value.is_multiple_of(*factor));
    exact.max_by_key(|(_, factor)| *factor).map_or_else(
        || format!("{value}{}", units[0].0),
        |(unit, factor)| format!("{}{unit}", value / factor),
    )
}

/// A number of things, at least one.
pub(super) fn count(text: &str) -> Result<usize, Problem> {
    text.parse().ok().filter(|count| *count > 0).ok_or_else(|| {
        Problem::new(format!("`{text}` is not a number from 1 on")).hint("write a whole number such as `16`")
    })
}

/// A number of things, perhaps none.
pub(super) fn number(text: &str) -> Result<usize, Problem> {
    text.parse().map_err(|_| {
        Problem::new(format!("`{text}` is not a number from 0 on")).hint("write a whole number such as `2`")
    })
}

/// Any text that is not empty.
pub(super) fn text(text: &str) -> Result<String, Problem> {
    if text.is_empty() {
        return Err(Problem::new("an empty value").hint("write something, or remove the key"));
    }
    Ok(text.to_owned())
}

/// `true` or `false`.
pub(super) fn boolean(text: &str) -> Result<bool, Problem> {
    text.parse().map_err(|_| {
        Problem::new(format!("`{text}` is neither `true` nor `false`"))
            .hint("write `true` for yes, `false` for no")
    })
}

/// An address to listen on.
pub(super) fn address(text: &str) -> Result<SocketAddr, Problem> {
    text.parse().map_err(|_| {
        let problem = Problem::new(format!("`{text}` is not an address to listen on"));
        let port = text.rsplit(':').next().filter(|port| port.parse::<u16>().is_ok());
        problem.hint(match port {
            Some(port) => {
                format!("write IP address and port: `127.0.0.1:{port}`, or `0.0.0.0:{port}` for all")
            }
            None => "write IP address and port: `127.0.0.1:7080`, or `0.0.0.0:7080` for all".to_owned(),
        })
    })
}

/// The URL of a server: `http` or `https`, a host, perhaps a port and a path, nothing else.
pub(super) fn server_url(text: &str) -> Result<Url, Problem> {
    let url = web_url(text)?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Problem::new("a URL with a name or password in it")
            .hint("write them as `credentials = { username = \"…\", password_env = \"…\" }`"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(Problem::new(format!(
            "`{text}` has a query or fragment, which a server URL cannot have"
        ))
        .hint("end it before `?` or `#`"));
    }
    Ok(url)
}

/// A server's own URL as clients know it: they find everything below its root, and log in nowhere.
pub(super) fn public_url(text: &str) -> Result<Url, Problem> {
    let url = web_url(text)?;
    let more = if !url.username().is_empty() || url.password().is_some() {
        "a name or password"
    } else if url.query().is_some() || url.fragment().is_some() {
        "a query or fragment"
    } else if url.path() != "/" {
        "a path"
    } else {
        return Ok(url);
    };
    Err(Problem::new(format!("a URL with {more} in it, which a server's own cannot have"))
        .hint(format!("write `{}`", url.origin().ascii_serialization())))
}

/// A URL that speaks HTTP. The text is not repeated in errors, for it may hold a password.
fn web_url(text: &str) -> Result<Url, Problem> {
    let hint = "write it as `https://registry.example.org`";
    let url = Url::parse(text).map_err(|error| Problem::new(format!("not a URL: {error}")).hint(hint))?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        scheme => Err(Problem::new(format!("`{scheme}` is not `http` or `https`")).hint(hint)),
    }
}

/// A host name as clients know a registry, perhaps with a port.
pub(super) fn host(text: &str) -> Result<String, Problem> {
    if text.len() <= 255 && is_host(text) {
        return Ok(text.to_ascii_lowercase());
    }
    Err(Problem::new(format!("`{text}` is not a host name"))
        .hint("write the host alone, perhaps with a port: `docker.io`, `registry.example.org:5000`"))
}

/// Whether it is a name, an IPv4 address or an IPv6 address in brackets, perhaps with a port.
fn is_host(text: &str) -> bool {
    let (is_host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => (address.parse::<Ipv6Addr>().is_ok(), port),
        None => {
            let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
            // A dot at the end says that the name is whole.
            let mut labels = name.strip_suffix('.').unwrap_or(name).split('.');
            (labels.all(|label| !label.is_empty() && label.chars().all(is_plain)), port)
        }
    };
    let is_port = |port: &str| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok();
    is_host && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    #[test]
    fn durations_are_a_whole_number_and_a_unit() {
        for (text, seconds) in
            [("90s", 90), ("15m", 900), ("24h", 86_400), ("30d", 2_592_000), ("2 w", 1_209_600), ("0s", 0)]
        {
            assert_eq!(duration(text).expect(text), Duration::from_secs(seconds), "{text}");
        }
        assert_eq!(duration("250ms").expect("valid"), Duration::from_millis(250));
        for bad in
            ["", "1", "h", "-1h", "1.5h", "1y", "1h30m", "99999999999999999999h", "18446744073709551615w"]
        {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_are_a_whole_number_and_a_decimal_or_binary_unit() {
        for (text, bytes) in [
            ("1024", 1024),
            ("0", 0),
            ("10MB", 10_000_000),
            ("10mb", 10_000_000),
            ("200GiB", 200 << 30),
            ("1 TiB", 1 << 40),
            ("7B", 7),
        ] {
            assert_eq!(size(text).expect(text), bytes, "{text}");
        }
        for bad in ["", "GB", "-1GB", "1.5GB", "1 parsec", "1G", "99999999TiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_share_is_a_size_or_a_percentage() {
        for (text, value) in [
            ("5%", Share::Percent(5)),
            ("0 %", Share::Percent(0)),
            ("20GiB", Share::Bytes(20 << 30)),
            ("0", Share::Bytes(0)),
        ] {
            assert_eq!(share(text).expect(text), value, "{text}");
            assert_eq!(share(&show_share(value)).expect(text), value, "{text}");
        }
        for bad in ["%", "91%", "-1%", "5.5%", "5 percent", ""] {
            assert!(share(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_shown_is_read_back() {
        for text in ["90s", "15m", "24h", "30d", "250ms", "0ms", "1w"] {
            let value = duration(text).expect(text);
            assert_eq!(duration(&show_duration(value)).expect(text), value, "{text}");
        }
        for text in ["0B", "1023B", "10MB", "200GiB", "1000GB", "3TiB"] {
            let value = size(text).expect(text);
            assert_eq!(size(&show_size(value)).expect(text), value, "{text}");
        }
        assert_eq!(show_duration(DAY * 30), "30d");
        assert_eq!((show_size(200 << 30), show_size(10_000_000)), ("200GiB".to_owned(), "10MB".to_owned()));
    }

    #[test]
    fn a_host_is_a_name_or_an_address_and_perhaps_a_port() {
        for good in
            ["docker.io", "a", "localhost:80", "10.0.0.7:9000", "a-b.example.", "[::1]", "[2001:db8::1]:443"]
        {
            assert_eq!(host(good).expect(good), good);
        }
        assert_eq!(host("Reg.Example.org:5000").expect("a host"), "reg.example.org:5000");
        for bad in [
            "", ".", "::", "::::", "::1", "a:", "a:b", "a:+1", "a:65536", "a:1:2", ":80", "a..b", "a_b",
            "[::1", "[a]", "[::1]80", "a[::1]", "a/b", "a@b",
        ] {
            assert!(host(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_secret_is_never_shown() {
        let secret = Secret::new("canary");
        assert_eq!((format!("{secret:?}").as_str(), secret.reveal()), ("***", "canary"));
    }

    #[test]
    fn a_server_url_carries_no_credentials_query_or_other_scheme() {
        for good in ["https://ghcr.io", "http://127.0.0.1:5000", "https://h/artifactory/api/docker/hub/"] {
            assert_eq!(
                server_url(good).expect(good).as_str().trim_end_matches('/'),
                good.trim_end_matches('/')
            );
        }
        for bad in [
            "ghcr.io",
            "",
            "ftp://h",
            "https://me:canary@h",
            "https://h/?x",
            "https://h/#x",
            "file:///x",
            "https://",
        ] {
            let problem = server_url(bad).expect_err(bad);
            assert!(!format!("{problem:?}").contains("canary"), "{problem:?}");
        }
    }
}
