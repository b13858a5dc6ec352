-- forgets: grows with every ref that is to be forgotten, whether it has a row or not. A rebuild that has read its
-- file before may write the row afterwards; it looks again if this has grown meanwhile.
INSERT INTO meta (key, value) VALUES ('forgets', 0);
