//! Counters of the engine, registered once per proxy so that a hit costs an atomic add.

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};

use crate::model::ProxyId;

/// How an answer came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// From the store, upstream not asked.
    Hit,
    /// From the store, after upstream confirmed it (by validator, HEAD, or as authorisation).
    Revalidated,
    /// Fetched from upstream by this request.
    Filled,
    /// Fetched from upstream by another request that was under way.
    Joined,
    /// From the store though past its time: upstream could not be asked, or need not be.
    Stale,
    /// From upstream past the store, because it is for this client alone or the store did not take it.
    Passed,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 6] =
        [Self::Hit, Self::Revalidated, Self::Filled, Self::Joined, Self::Stale, Self::Passed];

    /// The name in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Revalidated => "revalidated",
            Self::Filled => "filled",
            Self::Joined => "joined",
            Self::Stale => "stale",
            Self::Passed => "passed",
        }
    }
}

/// The counters of one proxy.
pub struct ProxyMeters {
    proxy: String,
    served: [Counter; Outcome::ALL.len()],
    sent: Counter,
    unstored: Counter,
    read_ahead: Counter,
    fills: Gauge,
}

impl std::fmt::Debug for ProxyMeters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProxyMeters").field("proxy", &self.proxy).finish_non_exhaustive()
    }
}

impl ProxyMeters {
    /// Registers the counters with the installed recorder.
    pub fn new(proxy: &ProxyId) -> Self {
        describe_counter!("repoxy_responses_total", "Answers with content, by proxy and outcome");
        describe_counter!("repoxy_refusals_total", "Requests answered without content, by proxy and kind");
        describe_counter!(
            "repoxy_sent_bytes_total",
            "Bytes of bodies sent to clients, those of refusals too, by proxy"
        );
        describe_counter!(
            "repoxy_unstored_total",
            "Fetches whose content was passed on because the store failed, by proxy"
        );
        describe_counter!("repoxy_read_ahead_total", "Fetches of what no client had asked for yet, by proxy");
        describe_gauge!("repoxy_fills", "Fetches from upstream that are under way, by proxy");
        let proxy = proxy.to_string();
        let served = Outcome::ALL.map(|outcome| {
            counter!("repoxy_responses_total", "proxy" => proxy.clone(), "outcome" => outcome.as_str())
        });
        Self {
            served,
            sent: counter!("repoxy_sent_bytes_total", "proxy" => proxy.clone()),
            unstored: counter!("repoxy_unstored_total", "proxy" => proxy.clone()),
            read_ahead: counter!("repoxy_read_ahead_total", "proxy" => proxy.clone()),
            fills: gauge!("repoxy_fills", "proxy" => proxy.clone()),
            proxy,
        }
    }

    /// The proxy, written `container/hub`.
    pub fn proxy(&self) -> &str {
        &self.proxy
    }

    /// Counts an answer.
    pub fn served(&self, outcome: Outcome) {
        self.served[outcome as usize].increment(1);
    }

    /// Counts a request that ended without content, by a short token that says why.
    pub fn refused(&self, kind: &'static str) {
        counter!("repoxy_refusals_total", "proxy" => self.proxy.clone(), "kind" => kind).increment(1);
    }

    /// Counts bytes sent to clients.
    pub fn sent(&self, bytes: u64) {
        self.sent.increment(bytes);
    }

    /// Counts a fetch whose content the store did not take.
    pub(super) fn unstored(&self) {
        self.unstored.increment(1);
    }

    /// Counts a fetch that no client asked for.
    pub(super) fn read_ahead(&self) {
        self.read_ahead.increment(1);
    }

    /// Counts a fill as running until the guard is dropped.
    pub(super) fn filling(&self) -> impl Drop + Send + use<> {
        struct Running(Gauge);
        impl Drop for Running {
            fn drop(&mut self) {
                self.0.decrement(1.0);
            }
        }
        self.fills.increment(1.0);
        Running(self.fills.clone())
    }
}
