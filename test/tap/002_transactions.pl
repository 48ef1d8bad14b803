# Remote transactions follow the local one: commit, rollback, savepoints, isolation, autocommit.

use strict;
use warnings;
use PolarxPooler;
use PolarxProxy;
use Test::More;
use Time::HiRes qw(time);

my $coord = start_coordinator(conf => "max_prepared_transactions = 2\n");
my %dn = map { $_ => start_datanode($_) } qw(dn1 dn2);
for my $name (sort keys %dn)
{
	add_node($coord, $name, $dn{$name});
	value($dn{$name}, 'CREATE TABLE t (id int PRIMARY KEY);'
		  . 'CREATE TABLE late (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)');
}
value($coord, 'CREATE TABLE here (id int)');

sub rows
{
	my ($server, $table) = @_;
	$table //= 't';
	return value($server, "SELECT coalesce(string_agg(id::text, ',' ORDER BY id), '') FROM $table");
}

sub insert { return "SELECT pooler.exec('$_[0]', 'INSERT INTO t VALUES ($_[1])')"; }

my $s = session($coord);
my $xid = q{SELECT x, p FROM pooler.query('dn1', 'SELECT pg_current_xact_id(), pg_backend_pid()')
	AS r(x text, p int)};

# One remote transaction per local transaction.
$s->ask('BEGIN');
my $first = $s->ask($xid);
is($s->ask($xid), $first, 'two statements see one remote transaction on one connection');
$s->ask('COMMIT');
isnt($s->ask($xid), $first, 'the next statement has another');

$s->ask('BEGIN; ' . insert('dn1', 1) . '; ' . insert('dn2', 1));
is(rows($dn{dn1}), '', 'nothing is visible before COMMIT');
$s->ask('ROLLBACK');
is(rows($dn{dn1}) . '/' . rows($dn{dn2}), '/', 'ROLLBACK undoes both nodes');
$s->ask('BEGIN; ' . insert('dn1', 1) . '; ' . insert('dn2', 1) . '; COMMIT');
is(rows($dn{dn1}) . '/' . rows($dn{dn2}), '1/1', 'COMMIT keeps both');
$s->ask(insert('dn1', 2));
is(rows($dn{dn1}), '1,2', 'a statement of its own is committed when it returns');
$s->ask('BEGIN; ' . insert('dn1', 3));
like($s->refused('SELECT 1/0'), qr/22012/, 'a local error');
$s->ask('COMMIT');
is(rows($dn{dn1}), '1,2', '... rolls the remote work back');
like($s->refused('SELECT 1 / (length(a) - length(a)) FROM (' . insert('dn1', 3) . ' OFFSET 0) x(a)'), qr/22012/,
	'an error in the statement that wrote remotely');
is(rows($dn{dn1}), '1,2', '... rolls the remote work back');

# Savepoints.
$s->ask('BEGIN; ' . insert('dn1', 10) . '; SAVEPOINT a; ' . insert('dn1', 11)
	  . '; SAVEPOINT b; ' . insert('dn1', 12) . '; ROLLBACK TO a; ' . insert('dn1', 13) . '; COMMIT');
is(rows($dn{dn1}), '1,2,10,13', 'ROLLBACK TO undoes its part');
$s->ask('BEGIN; SAVEPOINT a; ' . insert('dn2', 20) . '; ROLLBACK TO a; ' . insert('dn2', 21)
	  . '; SAVEPOINT b; ' . insert('dn2', 22) . '; RELEASE b; COMMIT');
is(rows($dn{dn2}), '1,21,22', 'a node first used within a savepoint that is rolled back');
$s->ask('BEGIN; ' . insert('dn1', 30) . '; SAVEPOINT a');
like($s->refused(insert('dn1', 30)), qr/23505/, 'a remote error after a savepoint');
$s->ask('ROLLBACK TO a; ' . insert('dn1', 31) . '; COMMIT');
is(rows($dn{dn1}), '1,2,10,13,30,31', '... is undone by ROLLBACK TO');
$s->ask(q{DO $$BEGIN
	PERFORM pooler.exec('dn1', 'INSERT INTO t VALUES (40)');
	FOR i IN 1 .. 3 LOOP
		BEGIN
			PERFORM pooler.exec('dn1', 'INSERT INTO t VALUES (41)');
			PERFORM pooler.exec('dn2', 'INSERT INTO t VALUES (41)');
			PERFORM pooler.exec('dn1', 'INSERT INTO t VALUES (40)');
		EXCEPTION WHEN unique_violation THEN NULL;
		END;
	END LOOP;
	PERFORM pooler.exec('dn1', 'INSERT INTO t VALUES (42)');
END$$});
is(rows($dn{dn1}) . '/' . rows($dn{dn2}), '1,2,10,13,30,31,40,42/1,21,22',
	'exception blocks roll back their part, and only that');
value($_, 'TRUNCATE t') for values %dn;

# COMMIT that fails.
sub late { return "SELECT pooler.exec('$_[0]', 'INSERT INTO late VALUES (1), ($_[1])')"; }
$s->ask('BEGIN; INSERT INTO here VALUES (1); ' . late('dn1', 1));
like($s->refused('COMMIT'), qr/23505(?s:.*)dn1/, 'a deferred constraint: COMMIT fails with its SQLSTATE');
is(rows($coord, 'here') . rows($dn{dn1}, 'late'), '', '... and nothing is kept, local work included');
$s->ask('BEGIN; ' . late('dn1', 2) . '; ' . late('dn2', 1));
my $err = $s->refused('COMMIT');
my $kept = rows($dn{dn1}, 'late');
if ($err =~ /40003/)
{
	like($err, qr/DETAIL:(?=.*committed.*dn1)(?=.*failed.*dn2)|DETAIL:(?=.*dn1.*committed)(?=.*dn2.*failed)/si,
		'one of two nodes fails: 40003 says which');
	is($kept, '1,2', '... and says the truth');
}
else
{
	like($err, qr/23505(?s:.*)dn2/, 'one of two nodes fails before the other has committed');
	is($kept, '', '... and all is rolled back');
}
is(rows($dn{dn2}, 'late'), '', 'the failed node keeps nothing');
value($_, 'TRUNCATE late') for values %dn;
$s->ask('BEGIN; ' . late('dn1', 1) . '; ' . late('dn2', 1));
like($s->refused('COMMIT'), qr/23505/, 'both nodes fail: the SQLSTATE of a node, not 40003');
value($dn{dn1}, q{CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN
	PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END$$;
	CREATE TABLE fatal (id int);
	CREATE CONSTRAINT TRIGGER x AFTER INSERT ON fatal DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION die()});
$s->ask(q{BEGIN; SELECT pooler.exec('dn1', 'INSERT INTO fatal VALUES (1)')});
like($s->refused('COMMIT'), qr/08007(?s:.*)dn1/, 'the connection is lost during COMMIT: 08007');
$s->ask(insert('dn1', 1) . '; ' . insert('dn2', 1));
is(rows($dn{dn1}), '1', 'the session works on');

# Two-phase commit.
$s->ask('BEGIN; ' . insert('dn1', 2));
like($s->refused(q{PREPARE TRANSACTION 'p'}), qr/0A000/, 'PREPARE TRANSACTION with remote work');
is(rows($dn{dn1}), '1', '... is rolled back');
$s->ask(q{BEGIN; INSERT INTO here VALUES (5); PREPARE TRANSACTION 'p'; COMMIT PREPARED 'p'});
is(rows($coord, 'here'), '5', 'PREPARE TRANSACTION without remote work');

# What may not be in the text.
for my $text ('BEGIN', 'START TRANSACTION', 'COMMIT', 'END', 'ROLLBACK', 'ABORT', 'SAVEPOINT a',
	'ROLLBACK TO SAVEPOINT a', 'RELEASE a', q{PREPARE TRANSACTION ''x''}, q{COMMIT PREPARED ''x''},
	'COMMIT AND CHAIN', '/* a /* b */ c */ commit', "-- x\n commit", '  ;COMMIT')
{
	$s->ask('BEGIN; ' . insert('dn1', 50));
	my $refused = $s->refused("SELECT pooler.exec('dn1', '$text')");
	like($refused, $text =~ /;/ ? qr/2D000|42601/ : qr/2D000/, "transaction control: $text");
	like($s->refused('SELECT 1'), qr/25P02/, '... aborts the local transaction');
	$s->ask('COMMIT');
}
is(rows($dn{dn1}), '1', 'none of them has committed');
like($s->refused(q{SELECT * FROM pooler.query('dn1', 'COMMIT') AS r(a int)}), qr/2D000/, 'query: 2D000');
like($s->refused(q{SELECT * FROM pooler.exec_all('COMMIT')}), qr/2D000/, 'exec_all: 2D000');
value($dn{dn1}, 'CREATE PROCEDURE c() LANGUAGE plpgsql AS $$BEGIN COMMIT; END$$');
like($s->refused(q{SELECT pooler.exec('dn1', 'CALL c()')}), qr/2D000/, 'COMMIT in a procedure: 2D000');
$s->ask(q{SELECT pooler.exec('dn1', '  -- begin' || chr(10) || 'SELECT ''commit; begin''')});
like($s->refused(q{SELECT pooler.exec('dn1', 'SELECT 1; SELECT 2')}), qr/42601/, 'two statements');
like($s->refused(q{SELECT pooler.exec('dn1', 'INSERT INTO t VALUES (60); COMMIT')}), qr/42601|2D000/,
	'two statements, one of them COMMIT');
for my $text ('COPY t TO STDOUT', 'COPY t FROM STDIN')
{
	like($s->refused("SELECT pooler.exec('dn1', '$text')"), qr/0A000/, "$text: 0A000");
	is($s->ask(q{SELECT pooler.exec('dn1', 'SELECT 1')}), 'SELECT 1', '... and the session works on');
}
is(rows($dn{dn1}), '1', 'and nothing of that was kept');

# Autocommit.
is($s->ask(q{BEGIN; SELECT pooler.exec_autocommit('dn1', 'VACUUM t'); ROLLBACK}), 'VACUUM', 'VACUUM');
is($s->ask(q{BEGIN; SELECT pooler.exec_autocommit('dn1', 'INSERT INTO t VALUES (70)'); ROLLBACK}),
	'INSERT 0 1', 'exec_autocommit');
is(rows($dn{dn1}), '1,70', '... is not undone by the local ROLLBACK');
is($s->ask(q{SELECT pooler.exec_autocommit('dn1', 'CREATE DATABASE other')}), 'CREATE DATABASE',
	'CREATE DATABASE');
is($s->ask(q{SELECT * FROM pooler.exec_all_autocommit('CREATE INDEX CONCURRENTLY ON t (id)')}),
	"dn1|CREATE INDEX\ndn2|CREATE INDEX", 'CREATE INDEX CONCURRENTLY on all nodes');
$s->ask('BEGIN; ' . insert('dn1', 71));
is($s->ask(q{SELECT pooler.exec_autocommit('dn2', 'VACUUM t')}), 'VACUUM', 'another node: allowed');
like($s->refused(q{SELECT pooler.exec_autocommit('dn1', 'VACUUM t')}), qr/25001(?s:.*)dn1/,
	'remote work open on the node: 25001');
$s->ask('ROLLBACK; BEGIN; ' . insert('dn2', 71));
like($s->refused(q{SELECT * FROM pooler.exec_all_autocommit('VACUUM t')}), qr/25001(?s:.*)dn2/,
	'exec_all_autocommit: 25001');
$s->ask('ROLLBACK');
like($s->refused(q{SELECT pooler.exec_autocommit('dn1', 'BEGIN')}), qr/2D000/, 'BEGIN: 2D000');
like($s->refused(q{SELECT pooler.exec_autocommit('dn1', 'SELECT 1; SELECT 2')}), qr/42601/,
	'two statements: 42601');
like($s->refused(q{SELECT pooler.exec_autocommit('dn1', 'SELECT 1/0')}), qr/22012(?s:.*)dn1/,
	'an error of the node');

# The kind of transaction.
my $kind = q{SELECT a, b, c FROM pooler.query('dn1', $$SELECT current_setting('transaction_isolation'),
	current_setting('transaction_read_only'), current_setting('transaction_deferrable')$$)
	AS r(a text, b text, c text)};
is($s->ask($kind), 'read committed|off|off', 'the usual transaction');
is($s->ask("BEGIN ISOLATION LEVEL REPEATABLE READ; $kind; COMMIT"), 'repeatable read|off|off',
	'REPEATABLE READ');
is($s->ask("BEGIN ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE; $kind; COMMIT"),
	'serializable|on|on', 'SERIALIZABLE READ ONLY DEFERRABLE');
$s->ask('BEGIN READ ONLY');
like($s->refused(insert('dn1', 80)), qr/25006/, 'READ ONLY holds on the node');
$s->ask('ROLLBACK');
is($s->ask($kind), 'read committed|off|off', 'nothing of that stays behind');

# How often it goes to the datanodes and back: two nodes at the end of a long wire.
my $proxy = PolarxProxy->before($dn{dn1}->port);
add_node($coord, $_, $dn{dn1}, server => { port => $proxy->port }) for qw(far1 far2);
my ($one, $both) = map { "SELECT pooler.exec('$_', 'SELECT 1')" } 'far1', 'far2';
$both = "$one; $both";
$s->ask($both);
wait_until($coord, q{SELECT count(*) FROM pooler.pools WHERE node LIKE 'far_' AND idle = total AND idle > 0}, '2', 'far nodes');
my $way = 0.3;
$proxy->delay($way);
for my $row ([ $one, 1, 'the first statement brings its BEGIN along' ], [ $one, 1, 'the next one' ],
	[ 'SAVEPOINT a', 0, 'SAVEPOINT waits for nothing' ], [ $both, 2, 'a statement on each' ],
	[ 'COMMIT', 2, 'COMMIT goes to both at the same time, behind the check of what is deferred' ])
{
	my ($sql, $trips, $name) = @$row;
	$s->ask('BEGIN') if $name =~ /first/;
	my $start = mark();
	$s->ask($sql);
	my $took = time - $start;
	ok($took > 2 * $way * $trips - 0.05 && calm_since($start) < 2 * $way * $trips + 0.5,
		sprintf('%s: %d round trips of %.1f s (%.2f s)', $name, $trips, 2 * $way, $took));
}
$s->ask("BEGIN; $one");
within(0.5, 'ROLLBACK does not wait', sub { $s->ask('ROLLBACK') });

$s->quit();
finish();
