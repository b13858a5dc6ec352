-- What refs link, once for all refs of a scope that link the same, as a tag and its manifest do. Only the
-- files have those of older rows.

DROP TABLE linked;
DROP TABLE links;

-- A list of links, in the order of the document, end to end: 32 bytes of digest, and 8 bytes of size, the
-- most significant first, all ones where none is stated. `hash` is the sha256 of that.
CREATE TABLE lists (
    id    INTEGER PRIMARY KEY,
    type  INTEGER NOT NULL,
    scope INTEGER NOT NULL,
    hash  BLOB NOT NULL CHECK (length(hash) = 32),
    links BLOB NOT NULL CHECK (length(links) % 40 = 0),
    UNIQUE (scope, hash)
) STRICT;

-- The same, by digest: grants by link.
CREATE TABLE links (
    digest BLOB NOT NULL,
    type   INTEGER NOT NULL,
    scope  INTEGER NOT NULL,
    list   INTEGER NOT NULL,
    size   INTEGER,
    PRIMARY KEY (digest, type, scope, list)
) STRICT, WITHOUT ROWID;

-- Null: nobody has looked yet. 0: it links nothing.
ALTER TABLE refs ADD COLUMN list INTEGER;

-- Whether a scope still has a ref in an area, and which refs have a list.
DROP INDEX IF EXISTS refs_scope;
CREATE INDEX refs_scope ON refs (scope, area, list);

UPDATE meta SET value = 0 WHERE key = 'complete';
