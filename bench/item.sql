-- A table to read from, in the current database. psql variable: rows.
CREATE TABLE item (id int PRIMARY KEY, value int);
INSERT INTO item SELECT g, g FROM generate_series(1, :rows) g;
VACUUM ANALYZE item;
