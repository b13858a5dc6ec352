-- What HTTP says of an answer that is kept as upstream gave it: a JSON object, null for plain content.
-- No row of an older version has any.

ALTER TABLE refs ADD COLUMN http TEXT;
