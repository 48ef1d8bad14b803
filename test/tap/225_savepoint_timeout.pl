# pooler.savepoint_timeout: how long an error inside a savepoint may wait for a node to become usable
# again, what it says then, and that nobody is kept by such a wait.

use strict;
use warnings;
use PolarxParameter;
use PolarxPooler;
use PolarxProxy;
use Test::More;
use Time::HiRes qw(usleep);

# A cancel that is stuck for pooler_dn_set_timeout costs the connection.
my $coord = start_coordinator(conf => "pooler.pooler_dn_set_timeout = 200s\n");
check_parameter($coord, name => 'pooler.savepoint_timeout', boot => 10000, min => 0, max => 2147483647, unit => 'ms',
	context => 'user');
my $dn = start_datanode('dn1');
value($dn, 'CREATE TABLE t (id int)');
my $proxy = PolarxProxy->before($dn->port);
add_node($coord, 'dn1', $dn, server => { port => $proxy->port });
my $s = session($coord);
my $running = q{SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()};

sub insert { return "SELECT pooler.exec('dn1', 'INSERT INTO t VALUES ($_[0])')"; }
sub rows { return value($dn, q{SELECT coalesce(string_agg(id::text, ',' ORDER BY id), '') FROM t}); }

# A cancel that somebody on the way has kept back strikes the rollback itself, which is then repeated; another error
# of the rollback costs the connection.
for my $row ([ '57014', '1,3', 'ADD' ], [ '58000', '', 'DROP' ])
{
	my ($sqlstate, $kept, $change) = @$row;
	$proxy->fault('*', 'answer:ROLLBACK TO', "fail:$sqlstate");
	$s->ask('BEGIN; ' . insert(1) . '; SAVEPOINT a; ' . insert(2));
	$s->tell(q{SELECT pooler.exec('dn1', 'SELECT pg_sleep(100)')});
	wait_until($dn, $running, '1', "a rollback that ends with $sqlstate: a statement runs");
	value($coord, 'SELECT pg_cancel_backend(' . $s->pid . ')');
	like(($s->hear())[1], qr/57014/, '... and is cancelled');
	my $rest = 'ROLLBACK TO a; ' . insert(3) . '; COMMIT';
	if   ($kept ne '') { $s->ask($rest); }
	else               { like($s->refused($rest), qr/08006: transaction on datanode "dn1" was lost/, '... the transaction is lost'); }
	is(rows(), $kept, $kept eq '' ? '... and nothing is kept' : '... nothing is lost');
	$s->ask('ROLLBACK');
	value($dn, 'TRUNCATE t');
	$proxy->forward();
	value($coord, "ALTER SERVER dn1 OPTIONS ($change keepalives_idle" . ($change eq 'ADD' ? q{ '100')} : ')'));    # new connections
}

# A transaction with an error inside a savepoint at a moment when the node says nothing more: the
# session is told the statement that waits.
sub stand_still
{
	my ($session, $limit) = @_;
	value($dn, 'TRUNCATE t');
	$session->ask("SET pooler.savepoint_timeout = '$limit'; BEGIN; " . insert(1) . '; SAVEPOINT a; ' . insert(2));
	$session->tell(q{SELECT pooler.exec('dn1', 'SELECT pg_sleep(100)')});
	wait_until($dn, $running, '1', "$limit: a statement runs");
	$proxy->freeze();
	value($coord, 'SELECT pg_cancel_backend(' . $session->pid . ')');
	return;
}

# It is then in a wait without interrupts, of which the server shows nothing.
sub await_wait
{
	my ($session) = @_;
	wait_until($coord, q{SELECT wait_event IS NULL AND state = 'active' FROM pg_stat_activity WHERE pid = } . $session->pid, 't', '... the error waits');
	return;
}

# It becomes usable in time.
stand_still($s, '50s');
await_wait($s);
$proxy->forward();
like(($s->hear())[1], qr/57014/, '... and is the cancel');
$s->ask('ROLLBACK TO a; ' . insert(3) . '; COMMIT');
is(rows(), '1,3', '... nothing is lost');

# It does not.
stand_still($s, '300ms');
like(($s->hear())[1], qr/57014/, '300 ms: the error comes');
like($s->refused('ROLLBACK TO a; ' . insert(3)),
	qr/08006: transaction on datanode "dn1" was lost\n.*DETAIL:  .*within pooler\.savepoint_timeout \(300 ms\)/s,
	'... the next statement says that the time is over');
$s->ask('ROLLBACK');
$proxy->forward();
wait_until($dn, $running, '0', '... and the statement ends');
is(rows(), '', '... all is rolled back');
stand_still($s, '300ms');
like(($s->hear())[1], qr/57014/, 'once more');
like($s->refused('ROLLBACK TO a; COMMIT'), qr/08006(?s:.*)within pooler\.savepoint_timeout \(300 ms\)/, '... COMMIT says so too');
$proxy->forward();

# A cancel ends the wait; the next statement waits on, and so does what it fails in.
stand_still($s, '100min');
await_wait($s);
value($coord, 'SELECT pg_cancel_backend(' . $s->pid . ')');
like(($s->hear())[1], qr/57014/, '... until it is cancelled');
$s->ask('ROLLBACK TO a; SAVEPOINT b');
$s->tell("SET LOCAL statement_timeout = '200ms'; " . insert(4));
like(($s->hear())[1], qr/57014.*statement timeout/, '... the next statement waits on, until its own time is over');
$s->ask('ROLLBACK TO b');
$s->tell(insert(5));
usleep(100_000) until !$s->answered();
$proxy->forward();
unlike(($s->hear())[1], qr/ERROR/, '... or until the node goes on');
$s->ask('COMMIT');
is(rows(), '1,5', '... nothing is lost');

# A block's error waits, too, and a cancel ends that wait.
value($dn, 'TRUNCATE t');
$s->ask('BEGIN; ' . insert(1) . '; SAVEPOINT a');
$s->tell(q{DO $$ BEGIN BEGIN PERFORM pooler.exec('dn1', 'SELECT pg_sleep(100)');
	EXCEPTION WHEN query_canceled THEN NULL; END; END $$; });
wait_until($dn, $running, '1', 'a block: a statement runs');
$proxy->freeze();
value($coord, 'SELECT pg_cancel_backend(' . $s->pid . ')');
await_wait($s);
value($coord, 'SELECT pg_cancel_backend(' . $s->pid . ')');
like(($s->hear())[1], qr/57014.*user request/, '... until it is cancelled again');
$s->ask('ROLLBACK TO a');
$proxy->forward();
$s->ask(insert(6) . '; COMMIT');
is(rows(), '1,6', '... nothing is lost');

# Nor does it keep who is to end.
my $other = session($coord);
stand_still($other, '100min');
await_wait($other);
within(5, 'pg_terminate_backend', sub { value($coord, 'SELECT pg_terminate_backend(' . $other->pid . ', 5000)') });
ok(ended($other->pid), '... ends a session that waits');
$proxy->forward();
eval { $other->hear() };
$other = session($coord);
stand_still($other, '100min');
await_wait($other);
within(5, 'a fast shutdown', sub { $coord->stop('fast') });
$proxy->forward();
eval { $other->hear() };
$coord->start();
finish();
