//! What a test cannot say of itself: the rows that have none, and why; and what a test leaves open.

/// Letter, number of rows, title.
pub(super) const SECTIONS: &[(char, usize, &str)] = &[
    ('A', 25, "Upstream"),
    ('B', 12, "Clients and load"),
    ('C', 9, "Cache semantics"),
    ('D', 20, "Disk and index"),
    ('E', 16, "gc and the command line"),
    ('S', 35, "Security"),
];

/// Rows without a test.
pub(super) const NOT_RUN: &[(&str, &str)] = &[
    (
        "B11",
        "a released binary has no way to panic on demand; `src/server/tests.rs` and `src/cache/fill.rs` prove it inside",
    ),
    ("S13", "waits for users"),
    ("S14", "waits for users"),
    ("S23", "waits for the web interface"),
    ("S24", "waits for the web interface"),
    ("S25", "waits for the web interface: nothing has side effects but the command line (C6)"),
    ("S26", "waits for users: there are no passwords to guess"),
    ("S27", "waits for users: no token of a client's is read (C5)"),
    ("S29", "waits for proxies that merge several upstreams"),
];

/// What the tests of a row leave open.
pub(super) const NOTES: &[(&str, &str)] = &[
    ("D8", "by failing the reads of one file"),
    ("D9", "a week is a file's mtime, not waited for; how often everything is read is for cron to say"),
    ("D1", "`repoxy_unstored_total` counts what is passed through; a tmpfs of 8 MiB and a blob of 20"),
    ("D2", "as D1"),
    ("D7", "mounted read-only before the start, which is the harder case; misses as D1"),
    ("D6", "by failing the rename, once as across file systems; blobs and documents are passed through"),
    (
        "A2",
        "up to its second question; that it is asked no more than six times is proved in `src/cache/transfer.rs`",
    ),
    ("A6", "from 1 MiB on; while gc has a shorter grace period, for that long"),
    (
        "A7",
        "a document is fetched once more at once, a blob by the next request, for bytes of it are out already; one that is held back whole ends in 502, others in a cut; counted in the log, not as a metric",
    ),
    ("A15", "while upstream says 404 so does the tag; the ref and its content stay"),
    ("A17", "4 MiB; the time for many against one is measured by `benches/spine`"),
    ("A23", "with a ttl of nought, so that an hour is a moment"),
    ("B3", "8,192 connections are taken, the others wait in the kernel"),
    (
        "B5",
        "readiness cannot be seen from outside during a drain, for the door is closed; partial files are used again from 1 MiB on",
    ),
    ("B12", "twelve rounds of churn, not an hour"),
    ("C2", "upstream is always asked for the same media types, so that there is one variant"),
    (
        "C3",
        "parameters of lists are part of the key and go to upstream: paging tokens have names of the registry's own",
    ),
    ("C4", "the configured ttl decides how long a list is shared, not upstream's `Cache-Control`"),
    (
        "D3",
        "on a tmpfs; what is kept free is `gc.min_free`: of large disks 16 GiB, not 5 %; what was used within the hour is not cold",
    ),
    ("D4", "by failing every rename that replaces a file"),
    ("D5", "the bytes of a blob; a document is D6's second test"),
    ("D17", "on ext4 and XFS; needs root and a loop device, and fails where there is none"),
    ("D18", "passed through as D1"),
    ("E14", "that no transaction is long shows in how often another writes; `benches/scale` has times"),
    (
        "D20",
        "two readings a moment apart can leave the row of the one beside the file of the other, which fsck notes",
    ),
    ("E6", "exit code 11, as `docs/cli.md` has it"),
    ("E10", "for milliseconds, at eight places of a run: no clock is involved"),
    ("E12", "no request fails; `benches/scale` has what it costs at p99"),
    ("E13", "held in the middle for as long as three runs take, not two hours"),
    (
        "S7",
        "a name that resolves to an inner address; what is checked is what is connected to, so that there is no moment to rebind in",
    ),
    ("S8", "the configuration has no headers of other names yet; `tests/upstream/redirects.rs` has"),
    ("S11", "of Terraform's documents, the only ones whose addresses are followed"),
    (
        "S12",
        "the same answers and the same questions upstream; the time that a refusal takes is compared by `spine --only denied`",
    ),
    (
        "S30",
        "versions of providers, files under a rule that says so, packages for as long as their index is the same; an index may name other bytes",
    ),
    ("S35", "of Terraform's packages, the only archives that are read"),
    ("S15", "manifests up to 16 MiB and lists up to 8 MiB are accepted"),
];
