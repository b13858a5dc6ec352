//! What a refusal gives away: a repository asks for digests that upstream does not let it have. Whether the store
//! has them, for another repository, must not show in the time that the refusal takes (row S12 of
//! `docs/reliability.md`).

use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::common::book::Goal;
use crate::common::transfer::Connection;
use crate::common::{Outcome, check, hex, milliseconds};
use crate::origin::{Link, Origin};
use crate::peers::Peer;
use crate::rows::{Bench, Book};

/// How many times as long as another a refusal may take, one way or the other, at the median.
const RATIO_LIMIT: f64 = 1.1;
/// Requests before the first that count.
const WARM_UP: usize = 20;

/// Asks for digests that another repository has and for as many that nobody has, in turn.
pub(crate) fn rows(bench: &Bench, book: &mut Book) -> Outcome<()> {
    let items = &bench.content.many;
    let origin = Origin::start(bench.content.directory.clone(), Link::QUICK)?;
    let directory = bench.yard.fresh("peer")?;
    let server = bench.yard.repoxy(&directory, origin.address, "/-/ready")?;
    check(server.address, &items.iter().collect::<Vec<_>>())?;
    for round in 0..bench.scale.rounds {
        let mut connection = Connection::open(server.address)?;
        let mut refused = |digest: &str| {
            connection.refused(&format!("/v2/bench/denied-{round}/blobs/sha256:{digest}"), 404)
        };
        for number in 0..WARM_UP {
            refused(&nobodys(&format!("warm-up {number}")))?;
        }
        let (mut elsewhere, mut nowhere, mut again) = (Vec::new(), Vec::new(), Vec::new());
        for item in items {
            nowhere.push(refused(&nobodys(&format!("one {}", item.digest)))?);
            elsewhere.push(refused(&item.digest)?);
            again.push(refused(&nobodys(&format!("two {}", item.digest)))?);
        }
        let [elsewhere, nowhere, again] = [elsewhere, nowhere, again].map(median);
        let name = "refusal of a digest that another repository has: median";
        book.note(name, "ms", Goal::None, Peer::Repoxy, milliseconds(elsewhere));
        let name = "refusal of a digest that nobody has: median";
        book.note(name, "ms", Goal::None, Peer::Repoxy, milliseconds(nowhere));
        let name = "refusal: the one over the other, or the other over the one";
        book.note(name, "×", Goal::Limit(RATIO_LIMIT), Peer::Repoxy, apart(elsewhere, nowhere));
        let name = "refusal: nobody's over nobody's, for comparison";
        book.note(name, "×", Goal::None, Peer::Repoxy, apart(again, nowhere));
    }
    Ok(())
}

/// A digest of nothing that upstream has.
fn nobodys(name: &str) -> String {
    hex(&Sha256::digest(name))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// How many times the one is the other, or the other way round: whichever is more.
fn apart(one: Duration, other: Duration) -> f64 {
    let ratio = one.as_secs_f64() / other.as_secs_f64();
    ratio.max(1.0 / ratio)
}
