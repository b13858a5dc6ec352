-- Sizes of what is linked, as the linking document states them. Only the files have those of older rows.

DROP TABLE linked;
DROP TABLE links;

-- What each ref links, in the order of the document, end to end: 32 bytes of digest, and 8 bytes of
-- size, the most significant first, all ones where none is stated. No row: nobody has looked yet.
CREATE TABLE linked (
    ref   INTEGER PRIMARY KEY,
    links BLOB NOT NULL CHECK (length(links) % 40 = 0)
) STRICT;

-- The same, by digest: grants by link.
CREATE TABLE links (
    digest BLOB NOT NULL,
    type   INTEGER NOT NULL,
    scope  INTEGER NOT NULL,
    ref    INTEGER NOT NULL,
    size   INTEGER,
    PRIMARY KEY (digest, type, scope, ref)
) STRICT, WITHOUT ROWID;

UPDATE meta SET value = 0 WHERE key = 'complete';
