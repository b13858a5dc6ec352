-- replaced: how many rows a rebuild has found to say something else than the file, since one ended. At its end
-- `changes` moves by so many.
INSERT INTO meta (key, value) VALUES ('replaced', 0);

-- From here on it is noted beside the file that it is the one that was made there. One from before may be a copy.
UPDATE meta SET value = 0 WHERE key = 'complete';
