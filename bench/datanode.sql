-- The datanode: a table to read from, and a role that must give a password. psql variable: rows.
CREATE ROLE scram SUPERUSER LOGIN PASSWORD 'secret';
CREATE DATABASE bench;
\connect bench
CREATE TABLE item (id int PRIMARY KEY, value int);
INSERT INTO item SELECT g, g FROM generate_series(1, :rows) g;
VACUUM ANALYZE item;
