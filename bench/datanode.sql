-- The datanode: a table to read from, and a role that must give a password. psql variable: rows.
CREATE ROLE scram SUPERUSER LOGIN PASSWORD 'secret';
CREATE DATABASE bench;
\connect bench
\ir item.sql
