//! Counters of the server itself; those of the proxies belong to the engine.

use http::StatusCode;
use metrics::{Counter, Gauge, Unit, counter, describe_counter, describe_gauge, gauge};

/// Counters of one server, registered once so that an answer costs an atomic add.
#[derive(Debug)]
pub(super) struct ServerMeters {
    connections: Gauge,
    /// Connections that this side ended, because of the time they took.
    pub(super) cut: Counter,
    /// TLS handshakes that failed.
    pub(super) handshakes_failed: Counter,
    /// Handlers that panicked.
    pub(super) panics: Counter,
    /// Answers by the first digit of their status, from 1.
    answers: [Counter; 5],
}

impl ServerMeters {
    /// Registers the counters with the installed recorder.
    pub(super) fn new() -> Self {
        describe_gauge!("repoxy_http_connections", Unit::Count, "Client connections that are open.");
        describe_counter!(
            "repoxy_http_connections_cut_total",
            Unit::Count,
            "Client connections cut because a request head or the reading of an answer took too long."
        );
        describe_counter!(
            "repoxy_tls_handshakes_failed_total",
            Unit::Count,
            "TLS handshakes with clients that failed or took too long."
        );
        describe_counter!(
            "repoxy_http_panics_total",
            Unit::Count,
            "Requests answered with status 500 because the handler panicked."
        );
        describe_counter!("repoxy_http_answers_total", Unit::Count, "Answers begun, by class of status.");
        Self {
            connections: gauge!("repoxy_http_connections"),
            cut: counter!("repoxy_http_connections_cut_total"),
            handshakes_failed: counter!("repoxy_tls_handshakes_failed_total"),
            panics: counter!("repoxy_http_panics_total"),
            answers: ["1xx", "2xx", "3xx", "4xx", "5xx"]
                .map(|class| counter!("repoxy_http_answers_total", "class" => class)),
        }
    }

    /// Counts a connection as open for as long as the guard lives.
    pub(super) fn connection(&self) -> OpenConnection {
        self.connections.increment(1.0);
        OpenConnection(self.connections.clone())
    }

    /// Counts an answer.
    pub(super) fn answered(&self, status: StatusCode) {
        if let Some(counter) = self.answers.get(usize::from(status.as_u16() / 100).wrapping_sub(1)) {
            counter.increment(1);
        }
    }
}

/// Counts a connection as open.
#[derive(Debug)]
#[must_use]
pub(super) struct OpenConnection(Gauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}
