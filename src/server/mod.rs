//! HTTP inwards: sockets, limits, one warp filter, responses, health, the access log.
//!
//! It knows dialects by their trait and content by the engine; store and index it never sees.
//!
//! # Who owns what
//! [`Server`] owns the listening sockets (`doors`) and gives each to a task of its own when it runs.
//! That task owns the socket and, for each connection, takes one of `slots` *before* it accepts, then
//! gives stream and slot to a new task. The connection's task owns the stream, hyper's state and the
//! futures of its requests (on HTTP/2 hyper spawns those), and nothing else: what fills the cache are
//! tasks of the engine, which no connection can end. `shared` is what all of them read; in it,
//! `orders` is the only thing that tells connections anything.
//!
//! # How it stops
//! [`Server::run`] is handed a stream of requests to stop. At the first it sends
//! `Order::Drain`: each accepting task returns, which closes its listening socket; each connection
//! tells hyper to finish what is under way. A connection's task ends, its slot comes back; with all
//! slots back, `run` returns. After the drain time, or at the second request, `Order::Cut` ends every
//! connection's task at its next poll.
//!
//! # One request
//! `service` looks the head over (`check`), takes out a `Ticket` for it (`exchange`), and asks `app` for
//! an answer that is ready in memory. If there is none the filter takes it, and `app` finds the answer: a
//! page of ours (`health`), or by way of a dialect and the engine; `answer` makes the response, as much of it
//! as `conditional` and `range`
//! leave; the ticket goes along with the body and accounts for it when it is dropped (`log`,
//! `meters`). Beside all that, `watch` judges how long the client keeps us waiting.

mod accept;
mod answer;
mod app;
mod check;
mod conditional;
mod exchange;
mod health;
mod limits;
mod listen;
pub mod log;
mod meters;
mod migrate;
mod range;
mod service;
mod signals;
mod slice;
mod socket;
#[cfg(test)]
mod tests;
mod tls;
mod watch;
mod workers;

pub use app::App;
pub use health::Lifecycle;
pub use limits::Limits;
pub use listen::{Server, ServerError, Settings, TlsReload};
pub use signals::stop_signals;
pub use tls::{TlsError, TlsFiles};
