//! The pages that are ours and no dialect's: what this is, whether it lives, whether it is ready,
//! what it counts.

use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, StatusCode};
use metrics_exporter_prometheus::PrometheusHandle;

use crate::protocol::Reply;

/// What `/` says.
const WELCOME: &str = "\
This is repoxy, a pull-through cache for container images and packages.

  /v2/<proxy>/<repository>/...   container images
  /tf/<proxy>/...                OpenTofu and Terraform: providers and modules
  /debian/<proxy>/...            Debian archives
  /generic/<proxy>/...           plain files
  /-/health  /-/ready            200 if it lives, if it takes requests
  /-/metrics                     counters, for Prometheus
";

/// What a path says that nobody owns.
const NOT_FOUND: &str = "\
nothing here
hint: content is below `/v2/`, `/tf/`, `/debian/` and `/generic/`; `/` says what is where
";

/// The text format of Prometheus, version 0.0.4.
const METRICS_TYPE: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Whether the server takes requests. Starts as not yet.
#[derive(Debug, Default)]
pub struct Lifecycle(AtomicU8);

impl Lifecycle {
    const STARTING: u8 = 0;
    const READY: u8 = 1;
    const DRAINING: u8 = 2;

    /// Says that everything that serving needs is there. Does nothing once it is draining.
    pub fn set_ready(&self) {
        let _ = self.0.compare_exchange(Self::STARTING, Self::READY, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Says that no further requests are wanted, for good.
    pub(super) fn set_draining(&self) {
        self.0.store(Self::DRAINING, Ordering::Relaxed);
    }

    fn state(&self) -> (StatusCode, &'static str) {
        match self.0.load(Ordering::Relaxed) {
            Self::READY => (StatusCode::OK, "ready\n"),
            Self::DRAINING => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
            _ => (StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        }
    }
}

/// The answer for a path that no dialect owns. `read` says whether the method is GET or HEAD.
pub(super) fn page(path: &str, read: bool, lifecycle: &Lifecycle, metrics: &PrometheusHandle) -> Reply {
    let (status, content_type, body) = match path {
        "/" | "/-/health" | "/-/ready" | "/-/metrics" if !read => {
            let mut reply = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered here\n");
            reply.headers.push((ALLOW, HeaderValue::from_static("GET, HEAD")));
            return reply;
        }
        "/" => (StatusCode::OK, TEXT, Bytes::from_static(WELCOME.as_bytes())),
        "/-/health" => (StatusCode::OK, TEXT, Bytes::from_static(b"ok\n")),
        "/-/ready" => {
            let (status, word) = lifecycle.state();
            (status, TEXT, Bytes::from_static(word.as_bytes()))
        }
        "/-/metrics" => (StatusCode::OK, METRICS_TYPE, Bytes::from(metrics.render())),
        _ => return text(StatusCode::NOT_FOUND, NOT_FOUND),
    };
    let headers = vec![(CONTENT_TYPE, content_type), (CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    Reply { status, headers, body }
}

/// A plain text of ours.
pub(super) fn text(status: StatusCode, text: &'static str) -> Reply {
    let headers: Vec<(HeaderName, HeaderValue)> = vec![(CONTENT_TYPE, TEXT)];
    Reply { status, headers, body: Bytes::from_static(text.as_bytes()) }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::super::meters::ServerMeters;
    use super::*;

    fn ask(path: &str, read: bool, lifecycle: &Lifecycle) -> (u16, String) {
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || ServerMeters::new().answered(StatusCode::OK));
        let reply = page(path, read, lifecycle, &recorder.handle());
        (reply.status.as_u16(), String::from_utf8(reply.body.to_vec()).expect("text"))
    }

    #[test]
    fn it_is_ready_between_start_and_drain() {
        let lifecycle = Lifecycle::default();
        assert_eq!(ask("/-/ready", true, &lifecycle), (503, "starting\n".to_owned()));
        lifecycle.set_ready();
        assert_eq!(ask("/-/ready", true, &lifecycle), (200, "ready\n".to_owned()));
        lifecycle.set_draining();
        lifecycle.set_ready();
        assert_eq!(ask("/-/ready", true, &lifecycle), (503, "draining\n".to_owned()));
        assert_eq!(ask("/-/health", true, &lifecycle), (200, "ok\n".to_owned()));
    }

    #[test]
    fn our_pages_are_read_only_and_the_rest_is_not_found() {
        let lifecycle = Lifecycle::default();
        for path in ["/", "/-/health", "/-/ready", "/-/metrics"] {
            assert_eq!(ask(path, false, &lifecycle).0, 405, "{path}");
        }
        for path in ["/-/", "/-/health/", "/favicon.ico", "/v3/"] {
            assert_eq!(ask(path, true, &lifecycle).0, 404, "{path}");
            assert_eq!(ask(path, false, &lifecycle).0, 404, "{path}");
        }
    }

    #[test]
    fn our_pages_name_what_each_dialect_answers_for() {
        for mount in ["/v2/", "/tf/", "/debian/", "/generic/"] {
            assert!(WELCOME.contains(&format!("\n  {mount}<proxy>/")), "{mount}");
            assert!(NOT_FOUND.contains(&format!("`{mount}`")), "{mount}");
        }
    }

    #[test]
    fn every_metric_of_the_server_says_what_it_means() {
        let (status, text) = ask("/-/metrics", true, &Lifecycle::default());
        assert_eq!(status, 200);
        let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        let names: Vec<_> = names.collect();
        assert_eq!(names.len(), 5, "{text}");
        for name in names {
            assert!(text.contains(&format!("# HELP {name} ")), "{name}");
        }
        assert!(text.contains("repoxy_http_answers_total{class=\"2xx\"} 1\n"), "{text}");
    }
}
