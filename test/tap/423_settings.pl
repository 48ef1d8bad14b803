# What would be lost or read wrongly without a word: work on nodes in a parallel query, results in
# another style, texts in another encoding, a name that has become another server's.

use strict;
use warnings;
use PolarxPooler qw(:DEFAULT on execute);
use PolarxProxy;
use Test::More;

my $coord = start_coordinator();
my %dn = map { $_ => start_datanode($_) } qw(dn1 dn2);
add_node($coord, $_, $dn{$_}) for sort keys %dn;
value($_, 'CREATE TABLE t (id int)') for values %dn;
value($coord, 'CREATE EXTENSION polarx_pooler_example');
my $s = session($coord);

# A function that is marked wrongly.
my $parallel = q{SELECT count(set_config(name, 'on', false)) FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query')};
my %wrong = (
	'exec' => q{SELECT pooler.exec('dn1', 'INSERT INTO t VALUES (1)') IS NULL},
	'query' => q{SELECT n IS NULL FROM pooler.query('dn1', 'INSERT INTO t VALUES (1) RETURNING id') AS r(n int)},
	'exec_all' => q{SELECT count(*) = 0 FROM pooler.exec_all('INSERT INTO t VALUES (1)')},
	'query_all' => q{SELECT count(*) = 0 FROM pooler.query_all('INSERT INTO t VALUES (1) RETURNING id') AS r(node name, n int)},
	'exec_autocommit' => q{SELECT pooler.exec_autocommit('dn1', 'INSERT INTO t VALUES (1)') IS NULL},
	'exec_all_autocommit' => q{SELECT count(*) = 0 FROM pooler.exec_all_autocommit('INSERT INTO t VALUES (1)')},
	'a borrower' => q{SELECT example_pipeline('dn1', 3) = 0});
for my $name (sort keys %wrong)
{
	value($coord, "CREATE OR REPLACE FUNCTION wrong() RETURNS bool LANGUAGE plpgsql PARALLEL SAFE AS \$\$ BEGIN RETURN ($wrong{$name}); END \$\$");
	fails_with($coord, "$parallel; SELECT wrong()", '25000', qr/cannot work on datanodes in a parallel query\nHINT:/, "$name in a parallel query");
}
is(value($dn{dn1}, 'SELECT count(*) FROM t'), '0', '... nothing was done');
is(value($coord, q{SET max_parallel_workers_per_gather = 0; SELECT pooler.exec('dn1', 'SELECT 1')}), 'SELECT 1', '... elsewhere it works');

# A style that the statement itself changes.
my $date = q{SELECT * FROM pooler.query('dn1', $$SELECT date '2024-02-01', set_config('%s', '%s', %s)$$) AS r(d date, s text)};
fails_with($coord, sprintf($date, 'DateStyle', 'SQL, DMY', 'false'), '0A000', qr/has DateStyle set to "SQL, DMY"/, 'a result in another DateStyle');
fails_with($coord, sprintf($date, 'DateStyle', 'SQL, DMY', 'true'), '0A000', qr/has DateStyle set to "SQL, DMY"/, '... for this transaction');
fails_with($coord, q{SELECT * FROM pooler.query('dn1', $$SELECT interval '-1 day 2 hours', set_config('IntervalStyle', 'sql_standard', false)$$) AS r(d interval, s text)},
	'0A000', qr/has IntervalStyle set to "sql_standard"/, '... in another IntervalStyle');
fails_with($coord, q{SELECT * FROM pooler.query_all($$SELECT date '2024-02-01', set_config('DateStyle', CASE current_setting('port') WHEN '} . $dn{dn1}->port . q{' THEN 'German' ELSE 'ISO' END, false)$$) AS r(node name, d date, s text)},
	'0A000', qr/datanode "dn1" has DateStyle set to "German/, '... of one of several nodes');
is(value($coord, q{SELECT * FROM pooler.query('dn1', $$SELECT '1'::text, set_config('DateStyle', 'German', false)$$) AS r(n int, s text)}), '1|German, DMY',
	'... no date, no harm');
is(value($coord, q{SELECT * FROM pooler.query('dn1', $$SELECT date '2024-02-01'$$) AS r(d date)}), '2024-02-01', 'the next transaction reads dates');

# An encoding.
for my $sql ('SET client_encoding = LATIN1', q{SELECT set_config('client_encoding', 'LATIN1', true)})
{
	for my $call (sprintf(q{pooler.exec('dn1', $x$%s$x$)}, $sql), "pooler.exec_all(\$x\$$sql\$x\$)")
	{
		$s->ask('BEGIN; ' . execute('dn1', 'INSERT INTO t VALUES (1)') . '; SAVEPOINT a');
		like($s->refused("SELECT $call"), qr/0A000: session on datanode "dn\d" has client_encoding set to "LATIN1"\n.*DETAIL:  .*UTF8/s,
			"another client_encoding is refused: $call");
		$s->ask('ROLLBACK TO a');
		is($s->ask(on('dn1', q{SELECT 'é' || current_setting('client_encoding')})), 'éUTF8', '... and is undone');
		$s->ask('ROLLBACK');
	}
}
like((run_sql($coord, q{SELECT * FROM pooler.query('dn1', $$SELECT set_config('client_encoding', 'LATIN1', false), 'ä'$$) AS r(a text, b text)}))[2],
	qr/ERROR:  (?:0A000|22021)/, '... so are the rows that come with it');

# Texts that are no texts of this database, which a datanode in good order does not send.
my $proxy = PolarxProxy->before($dn{dn1}->port);
add_node($coord, 'raw', $dn{dn1}, server => { port => $proxy->port });

# While a statement runs there, the datanode says that; what the session hears.
sub hears
{
	my ($type, $severity, $ending, $before, $after) = @_;
	my $body = join '', "S$severity\0", "V$severity\0", "C01ABC\0", "Mbad \xff text\0", "Dthe \xfe detail\0", "Hthe \xfd hint\0", "\0";
	$s->tell(($before // '') . execute('raw', 'SELECT pg_sleep(2)') . ($after // ''));
	wait_until($dn{dn1}, q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'}, '1', "$severity: a statement runs");
	$proxy->strike(me(), 'say:' . unpack('H*', $type . pack('N', 4 + length $body) . $body) . ":$ending");
	return $s->hear();
}
like((hears('N', 'WARNING', 'on'))[1], qr/WARNING:  01ABC: bad \? text\nDETAIL:  the \? detail\nHINT:  the \? hint\n/,
	'the bytes of a warning that are no text are replaced');
like((hears('E', 'FATAL', 'close'))[1], qr/ERROR:  08006: .*\nDETAIL:  bad \? text\n/, '... and those of an error');
$s->ask('CREATE TEMP TABLE said (m text)');
hears('E', 'FATAL', 'close', 'DO $do$ DECLARE d text; BEGIN PERFORM 1 FROM (', ') x; EXCEPTION WHEN OTHERS THEN '
	  . 'GET STACKED DIAGNOSTICS d = PG_EXCEPTION_DETAIL; INSERT INTO said VALUES (d); END $do$');
is($s->ask(q{SELECT m = convert_from(convert_to(m, 'UTF8'), 'UTF8'), m FROM said}), 't|bad ? text', '... also where it is kept');

# Names that are swapped under an open transaction.
value($coord, 'DROP SERVER raw CASCADE');
my $port = q{SELECT v FROM pooler.query('%s', $$SELECT current_setting('port')$$) AS r(v text)};
$s->ask('BEGIN');
is($s->ask(sprintf $port, 'dn1'), $dn{dn1}->port, 'dn1 is the first datanode');
value($coord, 'BEGIN; ALTER SERVER dn1 RENAME TO dn0; ALTER SERVER dn2 RENAME TO dn1; ALTER SERVER dn0 RENAME TO dn2; COMMIT');
is($s->ask(sprintf $port, 'dn2'), $dn{dn1}->port, '... and dn2 after the names are swapped');
is($s->ask(sprintf $port, 'dn1'), $dn{dn2}->port, '... and dn1 the other one, in the same transaction');
is($s->ask(q{SELECT string_agg(node || ' ' || p, ',' ORDER BY node) FROM pooler.query_all($$SELECT current_setting('port')$$) AS r(node text, p text)}),
	'dn1 ' . $dn{dn2}->port . ',dn2 ' . $dn{dn1}->port, '... rows come by the new names');
like(($s->refused(execute('dn2', 'SELECT 1/0')))[0], qr/datanode "dn2"/, '... and so do errors');
$s->quit();
finish();
