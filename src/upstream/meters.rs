//! What is counted about one proxy's upstream. Names begin with `repoxy_upstream_`.

use metrics::{Counter, Unit, counter, describe_counter, describe_gauge, gauge};

use super::UpstreamError;

const REQUESTS: &str = "repoxy_upstream_requests_total";
const ERRORS: &str = "repoxy_upstream_errors_total";
const BYTES: &str = "repoxy_upstream_bytes_total";
const REMAINING: &str = "repoxy_upstream_ratelimit_remaining";

/// Counters, registered once, so that counting is an atomic add.
pub(super) struct Meters {
    proxy: String,
    requests: Counter,
    bytes: Counter,
}

impl Meters {
    /// Registers them with the recorder that is installed by now.
    pub(super) fn new(proxy: &str) -> Self {
        describe_counter!(REQUESTS, "HTTP requests sent upstream, tokens and redirects included");
        describe_counter!(ERRORS, "requests that upstream did not answer with content, by kind");
        describe_counter!(BYTES, Unit::Bytes, "body bytes received from upstream");
        describe_gauge!(REMAINING, "what upstream last said is left of its rate limit");
        Self {
            proxy: proxy.to_owned(),
            requests: counter!(REQUESTS, "proxy" => proxy.to_owned()),
            bytes: counter!(BYTES, "proxy" => proxy.to_owned()),
        }
    }

    pub(super) fn asked(&self) {
        self.requests.increment(1);
    }

    pub(super) fn received(&self, bytes: usize) {
        self.bytes.increment(bytes as u64);
    }

    pub(super) fn failed(&self, error: &UpstreamError) {
        counter!(ERRORS, "proxy" => self.proxy.clone(), "kind" => error.kind()).increment(1);
    }

    /// Notes Docker Hub's `ratelimit-remaining: 20;w=21600`. Until there is a value there is no gauge: a zero would
    /// say that nothing is left.
    pub(super) fn remaining(&self, header: &str) {
        let number = header.split(';').next().unwrap_or_default().trim();
        if let Ok(remaining) = number.parse::<u32>() {
            gauge!(REMAINING, "proxy" => self.proxy.clone()).set(f64::from(remaining));
        }
    }
}

impl std::fmt::Debug for Meters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meters").field("proxy", &self.proxy).finish_non_exhaustive()
    }
}
