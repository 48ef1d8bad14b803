# The extension is dropped while it is in use, by each way that removes it or its wrapper; dropped and
# rolled back, made again, updated: transactions end as one, sessions are told, the worker follows.

use strict;
use warnings;
use PolarxPooler;
use PostgreSQL::Test::Utils;
use Test::More;

my $one = q{SELECT pooler.exec('dn1', 'SELECT 1')};
sub insert { return "SELECT pooler.exec('dn1', 'INSERT INTO t VALUES (''$_[0]'')')"; }

# A copy of the running server's program with a folder of extensions of its own, where a version 1.1
# can be put: the server finds its files relative to its program.
my $home = PostgreSQL::Test::Utils::tempdir;
sub own_installation
{
	my %at = map { my $what = $_; chomp(my $path = `pg_config --$what`); ($what => $path) } qw(bindir sharedir pkglibdir);
	system('mkdir', '-p', map { $home . $_ } @at{qw(bindir sharedir)}, "$at{sharedir}/extension") == 0 or die;
	system('cp', "$at{bindir}/postgres", "$at{bindir}/pg_ctl", "$home$at{bindir}/") == 0 or die;
	for my $folder ($at{sharedir}, "$at{sharedir}/extension")
	{
		for my $entry (glob "$folder/*")
		{
			symlink $entry, $home . $entry unless -e $home . $entry;
		}
	}
	symlink $at{pkglibdir}, $home . $at{pkglibdir} or die "symlink: $!";
	append_to_file("$home$at{sharedir}/extension/polarx_pooler--1.1--1.2.sql", <<'END');
CREATE FUNCTION pooler.added() RETURNS text LANGUAGE sql AS $$ SELECT 'added' $$;
DROP FUNCTION pooler.reset_stats();
ALTER FOREIGN DATA WRAPPER polarx_pooler NO VALIDATOR;
ALTER FOREIGN DATA WRAPPER polarx_pooler VALIDATOR pooler._fdw_validator;
END
	return "$home$at{bindir}/pg_ctl";
}

my $coord = start_coordinator(conf => "pooler.min_pool_size = 1\npooler.min_free_size = 0\n", extension => 0);
my $dn = start_datanode('dn1');
value($dn, 'CREATE TABLE t (id text)');
value($coord, 'CREATE ROLE boss SUPERUSER; CREATE DATABASE second');
value($coord, 'CREATE EXTENSION polarx_pooler', db => 'second');
add_node($coord, 'dn1', $dn, db => 'second');
my $second = worker_pid($coord, 'second');

sub install
{
	value($coord, 'SET ROLE boss; CREATE EXTENSION polarx_pooler');
	add_node($coord, 'dn1', $dn);
	return worker_pid($coord);
}
sub rows { return value($dn, "SELECT count(*) FROM t WHERE id LIKE '$_[0]'"); }
my $quiet = 'SET client_min_messages = error';
my $ours = q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'polarx_pooler/postgres'};

# What takes the wrapper or the whole, and what sessions hear afterwards.
my %way = (
	'DROP EXTENSION' => [ 'DROP EXTENSION polarx_pooler CASCADE', qr/3F000|42883/ ],
	'CASCADE from the owner' => [ 'DROP OWNED BY boss CASCADE', qr/3F000|42883/ ],
	'CASCADE from the schema' =>
	  [ 'ALTER EXTENSION polarx_pooler DROP SCHEMA pooler; DROP SCHEMA pooler CASCADE', qr/3F000|42883/ ],
	'the wrapper alone' => [
		'ALTER EXTENSION polarx_pooler DROP FOREIGN DATA WRAPPER polarx_pooler; DROP FOREIGN DATA WRAPPER polarx_pooler CASCADE',
		qr/42704|57P03/ ]);
my ($holder, $attached, $busy) = map { session($coord) } 1 .. 3;
for my $name (sort keys %way)
{
	my ($sql, $told) = @{ $way{$name} };
	install();
	$attached->ask($one);
	$holder->ask('BEGIN; ' . insert($name));
	$busy->tell(q{SELECT pooler.exec('dn1', 'INSERT INTO t SELECT pg_sleep(1)')});
	wait_until($dn, "$ours AND state = 'active'", '1', "$name: a transaction is open, a statement runs");
	within(5, '... it goes', sub { value($coord, "$quiet; $sql") });
	wait_until($coord, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'polarx_pooler worker' AND datname = 'postgres'},
		'0', '... the pooler worker ends');
	$holder->tell('COMMIT');
	my (undef, $err) = $holder->hear();
	is(rows($name), $err =~ /ERROR/ ? '0' : '1', '... the transaction is committed, or fails as one' . ($err =~ /ERROR:  (\w+)/ ? " ($1)" : ''));
	(undef, $err) = $busy->hear();
	like($err, qr/\A\z|ERROR:  (?:08|57)/, '... the statement that ran has ended');
	like($_->refused($one), qr/ERROR:  (?:$told): /, '... afterwards sessions are told') for $holder, $attached;
	wait_until($dn, $ours, '0', '... the datanode has no connection of them any more');
	is(value($coord, q{SELECT string_agg(datname, ' ') FROM pooler.workers}, db => 'second'), 'second',
		'... nobody tries to start the pooler worker again');
	value($coord, 'DROP EXTENSION polarx_pooler') if $name eq 'the wrapper alone';
}
is(worker_pid($coord, 'second'), $second, 'the pooler worker of another database has lived through all of that');
is(value($coord, $one, db => 'second'), 'SELECT 1', '... and works');

# What is refused, or rolled back, is no matter.
my $worker = install();
$_->ask($one) for $holder, $attached;
for my $sql ('DROP EXTENSION polarx_pooler', 'DROP SCHEMA pooler CASCADE', 'DROP FOREIGN DATA WRAPPER polarx_pooler CASCADE',
	'DROP ROLE boss', 'DROP OWNED BY boss')
{
	fails_with($coord, $sql, '2BP01', qr/./, "$sql: refused");
}
$holder->ask("$quiet; BEGIN; " . insert('rolled back'));
$holder->ask('DROP EXTENSION polarx_pooler CASCADE');
is($attached->ask($one), 'SELECT 1', 'DROP EXTENSION, not committed: other sessions work');
$holder->ask('ROLLBACK');
is($_->ask($one), 'SELECT 1', '... rolled back: all sessions work') for $holder, $attached;
is(worker_pids($coord), $worker, '... by the same pooler worker');
is(rows('rolled back'), '0', '... the remote work is rolled back too');

# One transaction that uses and drops it.
$holder->tell('BEGIN; ' . insert('used and dropped') . '; DROP EXTENSION polarx_pooler CASCADE; COMMIT');
my (undef, $err) = $holder->hear();
is(rows('used and dropped') . value($coord, q{SELECT count(*) FROM pg_extension WHERE extname = 'polarx_pooler'}),
	$err =~ /ERROR/ ? '01' : '10', 'used and dropped in one transaction: both or none');
value($coord, "$quiet; DROP EXTENSION IF EXISTS polarx_pooler CASCADE");
wait_until($dn, $ours, '0', '... nothing is left at the datanode');

# Dropped and made again in one transaction.
install();
$attached->ask($one);
value($coord, "$quiet; BEGIN; DROP EXTENSION polarx_pooler CASCADE; CREATE EXTENSION polarx_pooler; COMMIT");
add_node($coord, 'dn1', $dn);
is($attached->ask($one), 'SELECT 1', 'dropped and made again in one transaction: sessions that were attached work');
is(value($coord, q{SELECT count(*) FROM pooler.workers WHERE datname = 'postgres' AND state = 'ready'}), '1', '... with one pooler worker');
for my $round (1 .. 10)
{
	value($coord, "$quiet; DROP EXTENSION polarx_pooler CASCADE");
	value($coord, 'CREATE EXTENSION polarx_pooler');
	add_node($coord, 'dn1', $dn);
	$attached->ask($one) eq 'SELECT 1' or die;
}
pass('ten times dropped and made again: a session that is there works each time');
worker_pid($coord);
wait_until($coord, q{SELECT sum(total) = (SELECT n FROM pooler.query('dn1', $$SELECT count(*) FROM pg_stat_activity
	WHERE application_name = 'polarx_pooler/postgres'$$) AS r(n int)) FROM pooler.pools}, 't', '... and the datanode has the connections of one');

# ALTER EXTENSION UPDATE.
$_->quit() for $holder, $attached, $busy;
$coord->stop('fast');
my @start = (own_installation(), '-w', '-s', '-D', $coord->data_dir, '-l', $coord->logfile, 'start');
system(@start) == 0 or die 'cannot start the copied server';
$coord->_update_pid(1);
($holder, $attached) = map { session($coord) } 1 .. 2;
$worker = worker_pid($coord);
$attached->ask($one);
for my $end (qw(ROLLBACK COMMIT))
{
	$holder->ask('BEGIN; ' . insert("update $end"));
	value($coord, "BEGIN; ALTER EXTENSION polarx_pooler UPDATE TO '1.2'; $end");
	is($attached->ask($one), 'SELECT 1', "update, $end: an attached session works");
	is($holder->ask(insert("update $end") . '; COMMIT'), 'INSERT 0 1', '... and so does one with an open transaction');
	is(rows("update $end"), '2', '... all of it');
	is(value($coord, q{SELECT extversion, to_regproc('pooler.added') IS NOT NULL, to_regproc('pooler.reset_stats') IS NULL
		FROM pg_extension WHERE extname = 'polarx_pooler'}), $end eq 'COMMIT' ? '1.2|t|t' : '1.1|f|f', '... the version is the one expected');
	is(worker_pids($coord), $worker, '... the same pooler worker');
}
add_node($coord, 'dn2', $dn);
is(value($coord, q{SELECT pooler.exec('dn2', 'SELECT 1')}), 'SELECT 1', 'a new node after the update');

$_->quit() for $holder, $attached;
finish();
