//! Where a module's files are: what `X-Terraform-Get` says, in the language of go-getter.
//!
//! Archives over http(s) are given under our own address; everything else (`git::`, `s3::`, a page to
//! be asked with `?terraform-get=1` …) is none of a file cache's business and stays as it is.

use url::Url;

use crate::model::Checksum;
use crate::protocol::Refusal;

/// The archives that clients unpack (Terraform, `internal/getmodules`), by their endings.
pub(super) const ARCHIVES: [&str; 7] = ["tar.bz2", "tar.gz", "tar.xz", "tbz2", "tgz", "txz", "zip"];

/// What is wrong with an address that is none.
const BAD: Refusal = Refusal::BadUpstream("the module's source is not an address");

/// Where a module's files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ModuleSource {
    /// In an archive that can be fetched and kept.
    Archive(Archive),
    /// Somewhere else; as clients are to be told.
    Elsewhere(String),
}

/// A module's archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Archive {
    /// Where upstream has it, without what is meant for the client.
    pub(super) url: Url,
    /// What it is called here: `archive.` and its ending.
    pub(super) name: String,
    /// What it must hash to, if the source says so in a way that can be checked.
    pub(super) checksum: Option<Checksum>,
    /// The directory in it that holds the module, with `//` in front; may be empty.
    subdirectory: String,
    /// What is meant for the client: `archive`, `checksum`.
    options: Vec<(String, String)>,
}

impl ModuleSource {
    /// Reads a source that stood in the answer to `asked`.
    ///
    /// # Errors
    /// [`Refusal::BadUpstream`] if it is not an address.
    pub(super) fn read(source: &str, asked: &Url) -> Result<Self, Refusal> {
        let (main, subdirectory) = split(source);
        let relative = ["/", "./", "../"].iter().any(|start| source.starts_with(start));
        let url = if relative {
            asked.join(&main).map_err(|_| BAD)?
        } else if main.starts_with("https://") || main.starts_with("http://") {
            Url::parse(&main).map_err(|_| BAD)?
        } else {
            return Ok(Self::Elsewhere(source.to_owned()));
        };
        let elsewhere = || {
            if !relative {
                return Self::Elsewhere(source.to_owned());
            }
            // What was relative to upstream would be relative to us.
            let mut absolute = url.clone();
            absolute.set_query(None);
            let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
            Self::Elsewhere(format!("{absolute}{subdirectory}{query}"))
        };
        // A pattern in the directory is expanded only where the address is absolute.
        match archive_form(&url).filter(|_| !subdirectory.contains('*')) {
            Some(form) => Ok(Self::Archive(Archive::new(url, form, subdirectory))),
            None => Ok(elsewhere()),
        }
    }

    /// What clients are told, relative to the address that they asked.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Archive(archive) => archive.shown(),
            Self::Elsewhere(source) => source.clone(),
        }
    }
}

impl Archive {
    fn new(mut url: Url, form: &'static str, subdirectory: String) -> Self {
        let mut options: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        options.retain(|(name, _)| is_option(name));
        if !options.is_empty() {
            // The rest stays byte for byte: a signature may be over it.
            let query = url.query().unwrap_or_default();
            let kept: Vec<&str> = query
                .split('&')
                .filter(|pair| !is_option(pair.split('=').next().unwrap_or_default()))
                .collect();
            let kept = kept.join("&");
            url.set_query((!kept.is_empty()).then_some(&kept));
        }
        url.set_fragment(None);
        let checksum = options
            .iter()
            .find(|(name, _)| name == "checksum")
            .and_then(|(_, value)| value.to_ascii_lowercase().parse().ok());
        Self { url, name: format!("archive.{form}"), checksum, subdirectory, options }
    }

    fn shown(&self) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        let query = query.extend_pairs(&self.options).finish();
        let question = if query.is_empty() { "" } else { "?" };
        format!("./{}{}{question}{query}", self.name, self.subdirectory)
    }
}

/// Whether a parameter is meant for the client, which takes it out before it asks.
fn is_option(name: &str) -> bool {
    matches!(name, "archive" | "checksum")
}

/// The archive's ending if clients would unpack what is there: by `archive=`, else by the path's end.
fn archive_form(url: &Url) -> Option<&'static str> {
    let known = |form: &str| ARCHIVES.into_iter().find(|archive| *archive == form);
    let option = url.query_pairs().find(|(name, value)| name == "archive" && !value.is_empty());
    match option {
        // `false` means not to unpack; another word is an ending.
        Some((_, form)) => known(&form),
        None => ARCHIVES.into_iter().find(|form| {
            url.path().strip_suffix(form).is_some_and(|name| name.ends_with('.') && !name.ends_with("/."))
        }),
    }
}

/// Address and directory, as go-getter's `SourceDirSubdir` splits them: the query belongs to the
/// address even where it stands behind the directory.
fn split(source: &str) -> (String, String) {
    let (path, query) = match source.split_once('?') {
        Some((path, query)) => (path, format!("?{query}")),
        None => (source, String::new()),
    };
    let after_scheme = path.find("://").map_or(0, |at| at + 3);
    match path[after_scheme..].find("//") {
        Some(at) => {
            let (address, subdirectory) = path.split_at(after_scheme + at);
            (format!("{address}{query}"), subdirectory.to_owned())
        }
        None => (source.to_owned(), String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(source: &str) -> ModuleSource {
        let asked = "https://reg.example/v1/modules/a/b/c/1.0.0/download".parse().expect("a URL");
        ModuleSource::read(source, &asked).expect("an address")
    }

    #[test]
    fn archives_come_from_here_with_what_the_client_must_know() {
        let sum = "ab".repeat(32);
        for (source, url, shown) in [
            ("https://x.example/m.tgz", "https://x.example/m.tgz", "./archive.tgz"),
            (
                "https://x.example/m.tar.gz//sub/dir",
                "https://x.example/m.tar.gz",
                "./archive.tar.gz//sub/dir",
            ),
            ("https://x.example/get?archive=zip", "https://x.example/get", "./archive.zip?archive=zip"),
            (
                "https://x.example/get//sub?archive=tar.gz&token=a%2Fb",
                "https://x.example/get?token=a%2Fb",
                "./archive.tar.gz//sub?archive=tar.gz",
            ),
            ("https://x.example/m.zip?sig=a~b%20c", "https://x.example/m.zip?sig=a~b%20c", "./archive.zip"),
            ("/mods/m.tgz", "https://reg.example/mods/m.tgz", "./archive.tgz"),
            ("./m.tgz//x", "https://reg.example/v1/modules/a/b/c/1.0.0/m.tgz", "./archive.tgz//x"),
            ("../../m.zip", "https://reg.example/v1/modules/a/b/m.zip", "./archive.zip"),
        ] {
            let ModuleSource::Archive(archive) = read(source) else { panic!("{source} is an archive") };
            assert_eq!((archive.url.as_str(), archive.shown().as_str()), (url, shown), "{source}");
        }
        let ModuleSource::Archive(archive) = read(&format!("https://x.example/m.zip?checksum=sha256:{sum}"))
        else {
            panic!("an archive")
        };
        assert_eq!(archive.checksum.expect("a checksum").hex(), sum);
        assert_eq!(archive.url.as_str(), "https://x.example/m.zip");
    }

    #[test]
    fn what_is_no_archive_stays_as_it_is() {
        for source in [
            "git::https://github.com/o/r?ref=v1.0.0",
            "git::ssh://git@host/o/r.git//sub?ref=abc",
            "github.com/o/r",
            "hg::https://x.example/r",
            "s3::https://s3.amazonaws.com/b/m.zip",
            "oci://x.example/r?tag=1",
            "https://x.example/modules/m",
            "https://x.example/m.zip?archive=false",
            "https://x.example/m.rar?archive=rar",
            "https://x.example/m.tgz//*?archive=tar.gz",
        ] {
            assert_eq!(read(source), ModuleSource::Elsewhere(source.to_owned()), "{source}");
        }
        // What was relative to upstream is not relative to this server.
        assert_eq!(read("/m//sub?x=1").shown(), "https://reg.example/m//sub?x=1");
    }

    #[test]
    fn a_source_that_is_no_address_is_refused() {
        let asked = "https://reg.example/".parse().expect("a URL");
        assert!(matches!(ModuleSource::read("https://[/m.zip", &asked), Err(Refusal::BadUpstream(_))));
    }
}
