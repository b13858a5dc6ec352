//! HTTP outwards: addresses, credentials, tokens, retries, breaker, limits, trust.
//!
//! Nothing of ours is known here: no cache, protocol or store. One [`Upstream`] per proxy. From the
//! outside in:
//!
//! * `send`: which base is asked, how often, and how a denial is answered.
//! * `site`, `breaker`, `retry`: what is remembered about an origin, and when to leave it alone.
//! * `token`, `challenge`, `credentials`, `docker`, `flights`: who we are there.
//! * `follow`, `trust`, `clients`: one request with its redirects, and where it may lead.
//! * `answer`: what came back.
//!
//! Nothing is written to disk. Every future here may be dropped at any point: requests under way
//! are ended, permits and probes given back.

mod answer;
mod breaker;
mod challenge;
mod clients;
mod credentials;
pub mod crypto;
mod docker;
mod error;
mod flights;
mod follow;
mod meters;
mod retry;
mod secret;
mod send;
mod settings;
mod site;
mod token;
mod trust;
mod via;

pub use answer::Answer;
pub use error::{SetupError, UpstreamError};
pub use secret::Secret;
pub use settings::{BreakerLimits, Credentials, Limits, SecretSource, Settings};
pub use via::via;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};
use url::Url;

use clients::Clients;
use credentials::{Loaded, Login};
use flights::Flights;
use follow::Net;
use meters::Meters;
use retry::Budget;
use site::Sites;
use token::Demand;
use trust::Trust;

/// One proxy's upstream: one or more base URLs tried in order, one set of credentials.
#[derive(Debug)]
pub struct Upstream {
    settings: Settings,
    sites: Sites,
    budget: Mutex<Budget>,
    live: ArcSwap<Live>,
}

/// What a reload replaces.
#[derive(Debug)]
struct Live {
    net: Arc<Net>,
    credentials: Loaded,
    tokens: Flights<Demand, Secret>,
}

/// A request to upstream.
#[derive(Debug, Clone, Default)]
pub struct Ask {
    /// HEAD instead of GET.
    pub head: bool,
    /// This instead of either. Asked of the first base alone, and never twice: who knows what it did.
    pub act: Option<Act>,
    /// Where.
    pub target: Target,
    /// The `Accept` header.
    pub accept: Option<&'static str>,
    /// Whether 204 is a good answer too, and has an empty body.
    pub no_content: bool,
    /// Further header fields of the client's making. The place that is asked sees them; where it redirects
    /// to does not.
    pub headers: HeaderMap,
    /// What is taken for an answer.
    pub take: Take,
    /// Whether a redirect is an answer instead of being followed; with [`Take::Any`] only.
    pub keep_redirects: bool,
    /// Sent as `If-None-Match`.
    pub if_none_match: Option<String>,
    /// Sent as `If-Modified-Since`.
    pub if_modified_since: Option<String>,
    /// Resume: sent as `Range: bytes=<n>-`, with `If-Range` if a strong validator is given.
    pub resume: Option<Resume>,
    /// The scope to ask a token for when the challenge names none. Once upstream has asked for
    /// tokens, the next request with a scope brings its token along at once.
    pub token_scope: Option<String>,
    /// The longest time until headers, over all tries and bases; [`Limits::deadline`] if absent.
    pub deadline: Option<Duration>,
    /// The longest time of the whole exchange, body included; unlimited if absent. For documents.
    pub patience: Option<Duration>,
    /// The `Via` of the request that caused this one, so that circles of caches are noticed. Ours
    /// is added.
    pub via: Option<String>,
}

/// A request that may change something upstream.
#[derive(Debug, Clone)]
pub struct Act {
    /// The method.
    pub method: Method,
    /// The body.
    pub body: Bytes,
}

/// What is taken for an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Take {
    /// Content that was asked for: 200, the rest of it, or its confirmation; not encoded.
    #[default]
    Content,
    /// The same in any content coding, which is not undone.
    AnyCoding,
    /// Whatever HTTP allows as the end of an exchange, but for 429. Errors that may pass (500, 502, 503,
    /// 504) are tried again like all others, and given back if they have not passed.
    Any,
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Path and query below the base URL; begins with `/`. Carries credentials.
    Path(String),
    /// An absolute URL that a document gave. Carries credentials only if its origin is the base URL's.
    Url(Url),
}

impl Default for Target {
    fn default() -> Self {
        Self::Path("/".to_owned())
    }
}

/// Where to go on after a broken transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    /// The first byte that is missing.
    pub from: u64,
    /// A strong entity tag or a date from the first answer.
    pub validator: Option<String>,
}

impl Upstream {
    /// Checks the settings and reads the files that they name. Blocks for as long.
    ///
    /// # Errors
    /// A [`SetupError`] that names the setting or file.
    pub fn new(settings: Settings) -> Result<Self, SetupError> {
        let is_plain = |base: &Url| {
            matches!(base.scheme(), "http" | "https")
                && base.has_host()
                && base.username().is_empty()
                && base.password().is_none()
                && base.query().is_none()
                && base.fragment().is_none()
        };
        if settings.bases.is_empty() || !settings.bases.iter().all(is_plain) {
            return Err(SetupError::Base);
        }
        let live = Live::load(&settings)?;
        Ok(Self {
            sites: Sites::new(&settings.bases, &settings.limits),
            budget: Mutex::new(Budget::new(settings.limits.retry_share)),
            live: ArcSwap::from_pointee(live),
            settings,
        })
    }

    /// The most requests to one of its hosts at a time; others wait.
    pub const fn in_flight(&self) -> usize {
        self.settings.limits.in_flight
    }

    /// Reads credentials and certificates again, forgets all tokens, and gives hosts that failed a chance at once.
    /// Blocks for as long as the files take. Requests under way go on with what they began with.
    ///
    /// # Errors
    /// A [`SetupError`]; then everything stays as it was.
    pub fn reload(&self) -> Result<(), SetupError> {
        self.live.store(Arc::new(Live::load(&self.settings)?));
        self.sites.reconsider();
        Ok(())
    }
}

impl Live {
    fn load(settings: &Settings) -> Result<Self, SetupError> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if settings.instance.is_empty() || !settings.instance.chars().all(is_name) {
            return Err(SetupError::Instance);
        }
        let net = Net {
            clients: Clients::new(settings)?,
            trust: Trust::new(&settings.bases, &settings.allowed_hosts).map_err(SetupError::AllowedHost)?,
            limits: settings.limits.clone(),
            meters: Meters::new(&settings.proxy),
            via: HeaderValue::from_str(&via(&settings.instance)).map_err(|_| SetupError::Instance)?,
        };
        let credentials = Loaded::load(&settings.credentials)?;
        Ok(Self { net: Arc::new(net), credentials, tokens: Flights::new() })
    }
}
