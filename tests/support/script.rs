//! What can be made to go wrong with an answer, and for how many requests.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

/// Holds answers until the test opens it. Clones share the state.
#[derive(Debug, Clone)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    /// A closed gate.
    pub fn closed() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    /// Lets everyone through, now and later.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    /// Waits until it is open.
    pub async fn pass(&self) {
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}

/// How the end of a body is marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    Length,
    Chunked,
    Close,
}

/// How a body is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    Fin,
    Reset,
}

/// The faults of one answer. The default has none.
#[derive(Debug, Clone)]
pub(super) struct Faults {
    pub(super) status: Option<u16>,
    pub(super) headers: Vec<(String, Option<String>)>,
    pub(super) body: Option<Bytes>,
    pub(super) delay: Option<Duration>,
    pub(super) gate_before: Option<Gate>,
    pub(super) gate_at: Option<(u64, Gate)>,
    pub(super) hang: bool,
    pub(super) hang_up: bool,
    pub(super) stall_after: Option<u64>,
    pub(super) cut_after: Option<(u64, Cut)>,
    pub(super) flip_at: Option<u64>,
    pub(super) extra: u64,
    pub(super) trickle: Option<(usize, Duration)>,
    pub(super) framing: Framing,
    pub(super) ignore_range: bool,
    pub(super) raw: Option<Bytes>,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            status: None,
            headers: Vec::new(),
            body: None,
            delay: None,
            gate_before: None,
            gate_at: None,
            hang: false,
            hang_up: false,
            stall_after: None,
            cut_after: None,
            flip_at: None,
            extra: 0,
            trickle: None,
            framing: Framing::Length,
            ignore_range: false,
            raw: None,
        }
    }
}

#[derive(Debug)]
pub(super) struct Rule {
    path: String,
    method: Option<&'static str>,
    left: Option<usize>,
    faults: Faults,
}

/// The rules in force. The oldest that fits a request is used, so that `once` after `once` makes a
/// sequence.
#[derive(Debug, Default)]
pub(super) struct Rules(Mutex<Vec<Rule>>);

impl Rules {
    pub(super) fn take(&self, method: &str, path: &str) -> Faults {
        let mut rules = self.0.lock().expect("no panics");
        let fits = |rule: &Rule| {
            rule.method.is_none_or(|wanted| wanted == method)
                && match rule.path.strip_suffix('*') {
                    Some(prefix) => path.starts_with(prefix),
                    None => rule.path == path,
                }
        };
        let Some(at) = rules.iter().position(fits) else { return Faults::default() };
        let faults = rules[at].faults.clone();
        if let Some(left) = &mut rules[at].left {
            *left -= 1;
            if *left == 0 {
                rules.remove(at);
            }
        }
        faults
    }

    pub(super) fn forget(&self, path: &str) {
        self.0.lock().expect("no panics").retain(|rule| rule.path != path);
    }
}

/// A rule in the making; it counts only when [`once`](Self::once), [`times`](Self::times) or
/// [`always`](Self::always) ends it. Faults combine. Offsets of cuts, stalls and gates count the
/// body bytes of the answer itself (of the slice, in a 206).
#[must_use = "a script counts only when `once`, `times` or `always` ends it"]
#[derive(Debug)]
pub struct Script<'o> {
    rules: &'o Rules,
    path: String,
    method: Option<&'static str>,
    faults: Faults,
}

impl<'o> Script<'o> {
    pub(super) fn new(rules: &'o Rules, path: &str) -> Self {
        Self { rules, path: path.to_owned(), method: None, faults: Faults::default() }
    }

    /// Only for requests with this method; for all without.
    pub fn method(mut self, method: &'static str) -> Self {
        self.method = Some(method);
        self
    }

    /// Answers with this status, and an empty body unless [`body`](Self::body) gives one.
    pub fn status(mut self, status: u16) -> Self {
        self.faults.status = Some(status);
        self
    }

    /// Sets a header, in place of what the origin would have sent.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.faults.headers.push((name.to_ascii_lowercase(), Some(value.to_owned())));
        self
    }

    /// Leaves a header out.
    pub fn without(mut self, name: &str) -> Self {
        self.faults.headers.push((name.to_ascii_lowercase(), None));
        self
    }

    /// Sends this body in place of what is there; status 200 unless given.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.faults.body = Some(body.into());
        self
    }

    /// 302 to there.
    pub fn redirect(self, location: &str) -> Self {
        self.status(302).header("location", location)
    }

    /// 429 with `Retry-After`.
    pub fn rate_limited(self, retry_after: &str) -> Self {
        self.status(429).header("retry-after", retry_after)
    }

    /// Waits before the headers.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.faults.delay = Some(delay);
        self
    }

    /// Holds the headers back until the gate opens.
    pub fn hold(mut self, gate: &Gate) -> Self {
        self.faults.gate_before = Some(gate.clone());
        self
    }

    /// Sends `bytes` of the body, then holds the rest back until the gate opens.
    pub fn hold_after(mut self, bytes: u64, gate: &Gate) -> Self {
        self.faults.gate_at = Some((bytes, gate.clone()));
        self
    }

    /// Never answers; keeps the connection until the client leaves.
    pub fn hang(mut self) -> Self {
        self.faults.hang = true;
        self
    }

    /// Closes the connection without a word.
    pub fn hang_up(mut self) -> Self {
        self.faults.hang_up = true;
        self
    }

    /// Sends `bytes` of the body, then nothing more until the client leaves.
    pub fn stall_after(mut self, bytes: u64) -> Self {
        self.faults.stall_after = Some(bytes);
        self
    }

    /// Sends `bytes` of the body, then closes the connection in good order.
    pub fn cut_after(mut self, bytes: u64) -> Self {
        self.faults.cut_after = Some((bytes, Cut::Fin));
        self
    }

    /// Sends `bytes` of the body, then resets the connection.
    pub fn reset_after(mut self, bytes: u64) -> Self {
        self.faults.cut_after = Some((bytes, Cut::Reset));
        self
    }

    /// Inverts the bits of the content's byte at this offset.
    pub fn flip(mut self, offset: u64) -> Self {
        self.faults.flip_at = Some(offset);
        self
    }

    /// Sends this many bytes more than `Content-Length` says.
    pub fn extra(mut self, bytes: u64) -> Self {
        self.faults.extra = bytes;
        self
    }

    /// Sends the body in pieces of `bytes` with a pause after each.
    pub fn trickle(mut self, bytes: usize, pause: Duration) -> Self {
        self.faults.trickle = Some((bytes, pause));
        self
    }

    /// `Transfer-Encoding: chunked` in place of `Content-Length`. With a cut, the last chunk is missing.
    pub fn chunked(mut self) -> Self {
        self.faults.framing = Framing::Chunked;
        self
    }

    /// Neither length nor chunks: the end of the connection is the end of the body.
    pub fn close_delimited(mut self) -> Self {
        self.faults.framing = Framing::Close;
        self
    }

    /// Answers 200 to a `Range`.
    pub fn ignore_range(mut self) -> Self {
        self.faults.ignore_range = true;
        self
    }

    /// Sends exactly these bytes, head and all, and closes the connection.
    pub fn raw(mut self, answer: impl Into<Bytes>) -> Self {
        self.faults.raw = Some(answer.into());
        self
    }

    /// For the next request that no older rule takes.
    pub fn once(self) {
        self.times(1);
    }

    /// For the next `times` requests that no older rule takes.
    pub fn times(self, times: usize) {
        if times > 0 {
            self.push(Some(times));
        }
    }

    /// For every request that no older rule takes.
    pub fn always(self) {
        self.push(None);
    }

    fn push(self, left: Option<usize>) {
        let rule = Rule { path: self.path, method: self.method, left, faults: self.faults };
        self.rules.0.lock().expect("no panics").push(rule);
    }
}
