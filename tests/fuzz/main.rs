//! Properties that hold for any input, over generators that know what inputs look like: fuzzing with
//! the stable toolchain.
//!
//! Three of them are looked for everywhere: nothing panics, no key leads out of its proxy's tree, and
//! no request that is malformed gets content. `PROPTEST_CASES` asks for another number of cases;
//! `tests/run --all-faults` asks for a million. What a parser keeps to itself is fuzzed where
//! it is, in `src/`.

mod config;
mod documents;
mod edit;
mod engine;
mod files;
mod heads;
mod http;
mod refs;
mod requests;
mod signatures;

use std::hash::{BuildHasher as _, Hasher as _, RandomState};

use proptest::test_runner::{Config, RngSeed, contextualize_config};

/// The cases of each property in an ordinary run.
const CASES: u32 = 10_000;

/// How a property is tried. What fails is shown in its smallest form, with the seed that leads to it;
/// nothing is written into the tree.
#[expect(clippy::print_stderr, reason = "the test runner shows it if the test fails")]
fn cases() -> Config {
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let asked = contextualize_config(config);
    let seed = match asked.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => RandomState::new().build_hasher().finish(),
    };
    eprintln!("to do the same again: PROPTEST_RNG_SEED={seed}");
    Config { rng_seed: RngSeed::Fixed(seed), ..asked }
}
