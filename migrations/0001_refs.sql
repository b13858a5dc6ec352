-- The first schema. Every row can be made again from the files; only `uses` is partly alone (the
-- files' mtimes mirror it, hourly at most).
--
-- Times are nanoseconds since 1970 (UTC), so that a row says exactly what the file says. Types and
-- areas are the codes of `src/index/rows.rs`.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- generation: stamped on every row that is recorded; a rebuild begins a new one.
-- complete:   the generation of the last rebuild that ended, 0 if none did.
-- changes:    grows whenever something was taken away.
INSERT INTO meta (key, value) VALUES ('generation', 1), ('complete', 0), ('changes', 0);

CREATE TABLE proxies (
    id   INTEGER PRIMARY KEY,
    type INTEGER NOT NULL,
    name TEXT NOT NULL,
    UNIQUE (type, name)
) STRICT;

CREATE TABLE scopes (
    id    INTEGER PRIMARY KEY,
    proxy INTEGER NOT NULL,
    name  TEXT NOT NULL,
    UNIQUE (proxy, name)
) STRICT;

-- Narrow columns first: whatever walks the table decodes no more than it needs.
CREATE TABLE refs (
    id            INTEGER PRIMARY KEY,
    generation    INTEGER NOT NULL,
    type          INTEGER NOT NULL,
    proxy         INTEGER NOT NULL,
    area          INTEGER NOT NULL,
    scope         INTEGER NOT NULL,
    fetched_at    INTEGER NOT NULL,
    ttl_seconds   INTEGER,
    size          INTEGER NOT NULL,
    digest        BLOB NOT NULL CHECK (length(digest) = 32),
    kind          TEXT NOT NULL,
    path          TEXT NOT NULL,
    media_type    TEXT,
    upstream      TEXT,
    etag          TEXT,
    last_modified TEXT,
    headers       TEXT, -- a JSON object, null if empty
    unknown       TEXT  -- fields this version does not know, the same way
) STRICT;

-- A ref by its key, and listings in the order of keys.
CREATE UNIQUE INDEX refs_key ON refs (proxy, area, path);
-- Grants by target, blobs, totals.
CREATE INDEX refs_digest ON refs (digest, type, proxy, scope, size);
-- Whether a scope still has a ref in an area.
CREATE INDEX refs_scope ON refs (scope, area);
-- A narrow copy in the order of the table, for listings in any other order: they walk this, and
-- read whole rows only for the page that they return. With the id in front it only ever grows at
-- its end.
CREATE INDEX refs_facts ON refs (id, type, proxy, area, fetched_at, ttl_seconds, size, kind);

-- What each ref links, in the order of the document: 32 bytes a digest, end to end. No row: nobody
-- has looked yet.
CREATE TABLE linked (
    ref     INTEGER PRIMARY KEY,
    digests BLOB NOT NULL CHECK (length(digests) % 32 = 0)
) STRICT;

-- The same, by digest: grants by link.
CREATE TABLE links (
    digest BLOB NOT NULL,
    type   INTEGER NOT NULL,
    scope  INTEGER NOT NULL,
    ref    INTEGER NOT NULL,
    PRIMARY KEY (digest, type, scope, ref)
) STRICT, WITHOUT ROWID;

-- Last uses, apart from the wide rows because they are written most often.
CREATE TABLE uses (
    ref       INTEGER PRIMARY KEY,
    last_used INTEGER NOT NULL
) STRICT;
