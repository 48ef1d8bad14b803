# query, exec, query_all, exec_all: rows, parameters, NULLs, and what errors say.

use strict;
use warnings;
use PolarxPooler;
use Test::More;

my $coord = start_coordinator();
my $me = me();

# Without nodes.
is(value($coord, q{SELECT count(*) FROM pooler.query_all('SELECT 1') AS t(node name, n int)}),
	'0', 'query_all without nodes returns no rows');
is(value($coord, q{SELECT count(*) FROM pooler.exec_all('SELECT 1')}),
	'0', 'exec_all without nodes returns no rows');

my %dn = map { $_ => start_datanode($_) } qw(dn1 dn2);
for my $name (sort keys %dn)
{
	add_node($coord, $name, $dn{$name});
	value($dn{$name}, "CREATE TABLE t (id int PRIMARY KEY, v text, nodename text DEFAULT '$name');"
		  . "INSERT INTO t VALUES (1, 'one'), (2, NULL), (3, '')");
	# Settings which the pooler's own must win over.
	value($dn{$name}, "ALTER ROLE \"$me\" SET datestyle = 'SQL, DMY';"
		  . "ALTER ROLE \"$me\" SET intervalstyle = 'iso_8601';"
		  . "ALTER ROLE \"$me\" SET extra_float_digits = -10;"
		  . "ALTER ROLE \"$me\" SET idle_session_timeout = '1h'");
	value($dn{$name}, "ALTER ROLE \"$me\" SET transaction_timeout = '1h'")
	  if value($dn{$name}, q{SELECT current_setting('server_version_num')::int >= 170000}) eq 't';
}

# Rows.
is(value($coord, q{SELECT id, coalesce(v, '(null)') FROM
	pooler.query('dn1', 'SELECT id, v FROM t ORDER BY id') AS r(id int, v text)}),
	"1|one\n2|(null)\n3|", 'query returns rows, NULL and empty text apart');
is(value($coord, q{SELECT count(*) FROM pooler.query('dn1', 'SELECT 1 WHERE false') AS r(n int)}),
	'0', 'query may return no rows');
is(value($coord, q{SELECT r.nodename, l.x FROM (VALUES (1, 'a'), (3, 'c')) l(id, x)
	JOIN pooler.query('dn2', 'SELECT id, nodename FROM t') AS r(id int, nodename text) USING (id)
	ORDER BY 2}), "dn2|a\ndn2|c", 'query joins with local rows');
is(value($coord, q{SELECT id FROM
	pooler.query('dn1', 'INSERT INTO t VALUES (4, ''four'') RETURNING id') AS r(id int)}),
	'4', 'query takes INSERT with RETURNING');
is(value($dn{dn1}, 'SELECT v FROM t WHERE id = 4'), 'four', '... and it is committed');

# Exact values whatever the settings at either side.
my $exact = q{SELECT a = '2024-02-03 04:05:06.789+00', b = '-1 year 2 months -3 days 04:05:06.7',
	c = pi(), d = '\x00ff41', e = '{1,NULL,"a b"}', f = 'NaN', g = '{"k": [1, 2]}', h = 'ž€𝄞'
	FROM pooler.query('dn1', $$SELECT timestamptz '2024-02-03 04:05:06.789+00',
	interval '-1 year 2 months -3 days 04:05:06.7', pi(), '\x00ff41'::bytea,
	ARRAY['1', NULL, 'a b'], 'NaN'::numeric, '{"k": [1, 2]}'::jsonb, 'ž€𝄞'$$)
	AS r(a timestamptz, b interval, c float8, d bytea, e text[], f numeric, g jsonb, h text)};
is(value($coord, $exact), 't|t|t|t|t|t|t|t', 'values arrive exactly');
is(value($coord, "SET datestyle = 'German'; SET intervalstyle = 'sql_standard'; $exact"),
	't|t|t|t|t|t|t|t', 'also under other local settings');
is(value($coord, q{SELECT a, b, c FROM pooler.query('dn1',
	$$SELECT current_setting('application_name'), current_setting('idle_session_timeout'),
	current_setting('client_connection_check_interval') <> '0'$$) AS r(a text, b text, c bool)}),
	'polarx_pooler/postgres|0|t', 'application_name, no idle time-out, a look at the client now and then');
is(value($coord, q{SELECT coalesce(string_agg(DISTINCT t, ' '), '0') FROM
	pooler.query_all($$SELECT current_setting('transaction_timeout', true)$$) AS r(node name, t text)}), '0',
	'no time-out of transactions where the datanodes know one');

# Parameters.
is(value($coord, q{SELECT a, b, c FROM pooler.query('dn1',
	'SELECT $1::int + $2::int, $3::text IS NULL, $4', '40', '2', NULL, 'it''s')
	AS r(a int, b bool, c text)}), "42|t|it's", 'parameters, NULL among them');
is(value($coord, q{SELECT n FROM pooler.query('dn1', 'SELECT $1::int * 2', VARIADIC ARRAY['21'])
	AS r(n int)}), '42', 'parameters as an array');
is(value($coord, q{SELECT pooler.exec('dn1', 'UPDATE t SET v = $2 WHERE id > $1', '2', 'x')}),
	'UPDATE 2', 'exec returns the command tag');
is(value($coord, q{SELECT count(*), min(n) FROM pooler.query_all('SELECT $1::int', '5')
	AS r(node name, n int)}), '2|5', 'query_all sends the parameters to every node');

# All nodes.
is(value($coord, q{SELECT * FROM pooler.query_all(
	'SELECT nodename, count(*) FROM t GROUP BY 1') AS r(node name, nodename text, n bigint)}),
	"dn1|dn1|4\ndn2|dn2|3", 'query_all: rows by node name');
is(value($coord, q{SELECT pg_typeof(node), node FROM pooler.query_all('SELECT 1') AS r(node text, n int)}),
	"text|dn1\ntext|dn2", 'the node column may be text');
is(value($coord, q{SELECT * FROM pooler.exec_all('DELETE FROM t WHERE id = 4')}),
	"dn1|DELETE 1\ndn2|DELETE 0", 'exec_all: a command tag for each node');
within(3.8, 'query_all asks the nodes in parallel', sub {
	value($coord, q{SELECT count(*) FROM pooler.query_all('SELECT 1 FROM pg_sleep(2)')
		AS r(node name, n int)}) });
fails_with($coord, q{SELECT * FROM pooler.query_all('SELECT 1') AS r(n int, node name)},
	'\w+', qr/name|text/, 'query_all demands a name first');

# Wrong shape.
fails_with($coord, q{SELECT * FROM pooler.query('dn1', 'SELECT 1, 2') AS r(a int)},
	'(?!XX)\w+', qr/column/, 'too many columns');
fails_with($coord, q{SELECT * FROM pooler.query('dn1', 'SELECT 1') AS r(a int, b int)},
	'(?!XX)\w+', qr/column/, 'too few columns');
fails_with($coord, q{SELECT * FROM pooler.query('dn1', $$SELECT 'abc'$$) AS r(a int)},
	'22P02', qr/abc.*dn1/s, 'a value of another type: the value and the node are named');
is(value($coord, q{SELECT a FROM pooler.query('dn1', 'SELECT 1') AS r(a int)}), '1',
	'the connection is good afterwards');

# Errors of the node.
my $err = fails_with($coord,
	q{SELECT pooler.exec('dn1', 'INSERT INTO t VALUES (1)')},
	'23505', qr/t_pkey/, 'a remote error keeps SQLSTATE and message');
like($err, qr/DETAIL:.*\(id\)=\(1\)/, '... and detail');
like($err, qr/CONTEXT:(?s:.*)dn1(?s:.*)INSERT INTO t VALUES \(1\)/, '... context: node and statement');
value($dn{dn2}, q{CREATE FUNCTION angry() RETURNS int LANGUAGE plpgsql AS $$BEGIN
	RAISE 'no way' USING ERRCODE = 'PX001', DETAIL = 'the detail', HINT = 'the hint'; END$$});
$err = fails_with($coord, q{SELECT * FROM pooler.query('dn2', 'SELECT angry()') AS r(a int)},
	'PX001', qr/no way/, 'an error code of one\'s own');
like($err, qr/DETAIL:  the detail\nHINT:  the hint/, '... with detail and hint');
$err = fails_with($coord, q{SELECT * FROM pooler.query_all('SELECT angry()') AS r(node name, a int)},
	'\w+', qr/angry|no way/, 'query_all fails when one fails');
fails_with($coord, q{SELECT pooler.exec('dn1', 'SELEC 1')}, '42601', qr/SELEC/, 'a syntax error');

# Encodings.
value($coord, q{CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0});
value($coord, 'CREATE EXTENSION polarx_pooler', db => 'latin');
add_node($coord, 'dn1', $dn{dn1}, db => 'latin');
is(value($coord, q{SELECT a::bytea, n FROM pooler.query('dn1', 'SELECT $1, length($1)', convert_from('\xe9', 'LATIN1'))
	AS r(a text, n int)}, db => 'latin'), '\xe9|1', 'text is converted where the databases\' encodings differ');
fails_with($coord, q{SELECT a FROM pooler.query('dn1', 'SELECT chr(8364)') AS r(a text)}, '22P05', qr/dn1/,
	'... or refused where it cannot be', db => 'latin');

# Bad arguments.
fails_with($coord, q{SELECT pooler.exec('nowhere', 'SELECT 1')}, '42704', qr/nowhere/, 'no such node');
fails_with($coord, q{SELECT pooler.exec(NULL, 'SELECT 1')}, '22004', qr/null/i, 'a NULL node');
fails_with($coord, q{SELECT pooler.exec('dn1', NULL)}, '22004', qr/null/i, 'a NULL statement');
fails_with($coord, q{SELECT * FROM pooler.query(NULL, 'SELECT 1') AS r(a int)}, '22004', qr/null/i,
	'query: a NULL node');
fails_with($coord, q{SELECT * FROM pooler.query_all(NULL) AS r(n name, a int)}, '22004', qr/null/i,
	'query_all: a NULL statement');
fails_with($coord, q{SELECT pooler.query('dn1', 'SELECT 1')}, '\w+', qr/record|column definition|set/,
	'query outside FROM');

# A statement with an error does not spoil the session.
my $s = session($coord);
for my $round (1 .. 3)
{
	like($s->refused(q{SELECT pooler.exec('dn1', 'SELECT 1/0')}), qr/22012/, "round $round: an error");
	is($s->ask(q{SELECT pooler.exec('dn1', 'SELECT 1')}), 'SELECT 1', "round $round: a result");
}
is(value($coord, q{SELECT string_agg(DISTINCT provolatile::text || proparallel::text, ',') FROM pg_proc
	WHERE pronamespace = 'pooler'::regnamespace
	AND proname IN ('query', 'exec', 'query_all', 'exec_all', 'exec_autocommit', 'exec_all_autocommit')}),
	'vu', 'VOLATILE PARALLEL UNSAFE');

# What is called while rows are read.
is($s->ask(q{SELECT a, pooler.exec('dn1', 'SELECT 1') FROM pooler.query('dn1', 'SELECT generate_series(1, 2)') AS r(a int)}),
	"1|SELECT 1\n2|SELECT 1", 'a statement for each row of another one');
value($coord, q{CREATE FUNCTION asks(int, text) RETURNS bool LANGUAGE plpgsql AS $$BEGIN
	PERFORM pooler.exec($2::name, 'SELECT 1'); RETURN true; END$$;
	CREATE DOMAIN here AS int CHECK (asks(VALUE, 'dn1')); CREATE DOMAIN there AS int CHECK (asks(VALUE, 'dn2'))});
like($s->refused(q{SELECT * FROM pooler.query('dn1', 'SELECT 1') AS r(a here)}), qr/ERROR:  55006: .*"dn1"/,
	'a statement on the node while a value is made of a row: 55006');
is($s->ask(q{SELECT * FROM pooler.query('dn1', 'SELECT 1') AS r(a there)}), '1', '... on another node it may');
is($s->ask(q{SELECT pooler.exec('dn1', 'SELECT 1')}), 'SELECT 1', '... and the session works on');

$s->quit();
finish();
