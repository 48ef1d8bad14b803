# Waits for each other over several nodes: each circle is found and one session of it stopped, the one
# whose transaction is the youngest; and nobody else.

use strict;
use warnings;
use PolarxParameter;
use PolarxPooler qw(:DEFAULT literal execute);
use Test::More;
use Time::HiRes qw(usleep);

my $coord = start_coordinator(conf => "deadlock_timeout = '100ms'\npooler.pool_session_max_lifetime = 3000s\n");
check_parameter($coord, name => 'pooler.detect_deadlocks', boot => 'on', values => [ 'on', 'off' ], bad => 'much',
	context => 'sighup');
my %dn = map { $_ => start_datanode($_, conf => "deadlock_timeout = '100s'\n") } qw(dn1 dn2 dn3);
for my $name (sort keys %dn)
{
	add_node($coord, $name, $dn{$name});
	value($dn{$name}, 'CREATE TABLE t AS SELECT i AS id, 0 AS n FROM generate_series(1, 20) i; ALTER TABLE t ADD PRIMARY KEY (id)');
}
value($coord, 'CREATE TABLE t AS SELECT i AS id, 0 AS n FROM generate_series(1, 20) i; ALTER TABLE t ADD PRIMARY KEY (id)');
my @s = map { session($coord) } 1 .. 10;

sub update { my ($node, $id) = @_; return execute($node, 'UPDATE t SET n = n + 1 WHERE id = ' . ($id // 1)); }
sub local_update { my ($id) = @_; return 'UPDATE t SET n = n + 1 WHERE id = ' . ($id // 1); }
sub counted { return value($coord, "SELECT $_[0] FROM pooler.stats"); }

# A process waits for a lock, on the node or here.
sub waiting
{
	my ($server, $count, $name) = @_;
	return wait_until($server, q{SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'}, $count, $name);
}

# Awaits the answers to what the sessions were told; returns their errors, '' for none, and rolls back.
sub answers
{
	my @sessions = @_;
	my @errors = map { ($_->hear())[1] } @sessions;
	$_->ask('ROLLBACK') for @sessions;
	return @errors;
}

# --- two sessions, two nodes ----------------------------------------------------------------------
my ($a, $b) = @s;
my ($offset, $before) = (log_offset($coord), counted('deadlocks'));
$a->ask('BEGIN; ' . update('dn1'));
$b->ask('BEGIN; ' . update('dn2'));
my @remote = map { value($coord, "SELECT remote_pid FROM pooler.connections WHERE session_pid = $_") } $a->pid, $b->pid;
$a->tell(update('dn2'));
waiting($dn{dn2}, 1, 'one waits on dn2');
my @errors = within(3, 'crossed updates end', sub {
		$b->tell(update('dn1'));
		my $error = ($b->hear())[1];
		$b->ask('ROLLBACK');
		[ ($a->hear())[1], $error ];
})->@*;
like($errors[1], qr/ERROR:  40P01: deadlock detected/, '... the younger transaction is stopped');
is($errors[0], '', '... and the other one gets on');
my ($pa, $pb) = ($a->pid, $b->pid);
like($errors[1], qr/DETAIL:  .*Process $pa waits on datanode "dn2", there process \d+; blocked by process $pb, there process $remote[1]\./s,
	'... DETAIL names sessions, nodes and processes');
like($errors[1], qr/Process $pb waits on datanode "dn1", there process \d+; blocked by process $pa, there process $remote[0]\./, '... of the whole circle');
like($errors[1], qr/HINT:  .*pooler\.detect_deadlocks/, '... and there is a hint');
like($errors[1], qr/CONTEXT:  .*statement on datanode "dn1": UPDATE t/s, '... and the statement');
is(counted('deadlocks'), $before + 1, '... it is counted');
wait_log($coord, qr/LOG:  deadlock detected: process $pb is to give up/, $offset, '... and logged');
$a->ask('COMMIT');
is(value($dn{dn2}, 'SELECT n FROM t WHERE id = 1'), '1', '... and what the other one has done is there');

# --- three sessions, three nodes; the youngest is in the middle -------------------------------------
my @three = @s[ 1, 2, 0 ];
$three[$_]->ask('BEGIN; ' . update('dn' . ($_ + 1), 2)) for 0, 2, 1;
$three[0]->tell(update('dn2', 2));
$three[1]->tell(update('dn3', 2));
$three[2]->tell(update('dn1', 2));
like(($three[1]->hear())[1], qr/40P01.*(?:\n.*){3}/, 'three sessions over three nodes: the youngest is stopped');
$three[1]->ask('ROLLBACK');
is(($three[0]->hear())[1], '', '... the one that waited for it goes on');
$three[0]->ask('COMMIT');
is(($three[2]->hear())[1], '', '... and then the last');
$three[2]->ask('COMMIT');

# --- half here, half there ----------------------------------------------------------------------------
for my $younger ($a, $b)
{
	my $older = $younger == $a ? $b : $a;
	my $who = $younger == $a ? 'who waits on the node' : 'who waits here';
	$_->ask('BEGIN') for $older, $younger;
	$a->ask(local_update());
	$b->ask(update('dn1', 3));
	$a->tell(update('dn1', 3));
	$b->tell(local_update());
	# Nobody but PostgreSQL ends a wait that is here.
	like(($a->hear())[1], qr/40P01(?s:.*)Process $pb waits on the coordinator; blocked by process $pa\./,
		"half local, the younger one is $who: the wait on the node is ended");
	$a->ask('ROLLBACK');
	is(($b->hear())[1], '', '... and the other one gets on');
	$b->ask('ROLLBACK');
}

# --- one session, two roles ---------------------------------------------------------------------------
add_holders($coord, 2, 'dn1');
$a->ask('BEGIN; SET LOCAL ROLE h1; ' . update('dn1', 4));
like($a->refused('SET LOCAL ROLE h2; ' . update('dn1', 4)), qr/40P01(?s:.*)Process $pa waits on datanode "dn1".*blocked by process $pa,/,
	'a session that waits for its other connection is stopped');
$a->ask('ROLLBACK');

# --- in a block, the error is one like others ---------------------------------------------------------
$b->ask('BEGIN; ' . update('dn2', 5));
$a->ask('BEGIN; ' . update('dn1', 5));
$b->tell(update('dn1', 5));
waiting($dn{dn1}, 1, 'a block: the other one waits');
$a->ask('DO $$ BEGIN PERFORM pooler.' . "exec('dn2', 'UPDATE t SET n = 9 WHERE id = 5')"
	  . '; EXCEPTION WHEN deadlock_detected THEN NULL; END $$');
$a->ask(update('dn1', 6) . '; COMMIT');
is(($b->hear())[1], '', '... a block catches it, and what was before it is kept');
$b->ask('COMMIT');
is(value($dn{dn1}, 'SELECT string_agg(n::text, $$ $$ ORDER BY id) FROM t WHERE id IN (5, 6)'), '2 1', '... on all nodes');

# --- ten sessions ---------------------------------------------------------------------------------------
$before = counted('deadlocks');
for my $i (0 .. 9) { $s[$i]->ask('BEGIN; ' . update('dn' . (1 + $i % 2), 11 + int($i / 2))); }
for my $i (0 .. 9) { $s[$i]->tell(update('dn' . (2 - $i % 2), 11 + int($i / 2))); }
within(3, 'ten sessions in five circles end', sub {
		for my $pair (0 .. 4)
		{
			my ($older, $younger) = @s[ 2 * $pair, 2 * $pair + 1 ];
			like(($younger->hear())[1], qr/40P01/, "... circle $pair: the younger one is stopped");
			$younger->ask('ROLLBACK');
			is(($older->hear())[1], '', '... and the other one not');
			$older->ask('ROLLBACK');
		}
});
is(counted('deadlocks'), $before + 5, '... with one victim each');

# Ten in a ring.
$before = counted('deadlocks');
for my $i (0 .. 9) { $s[$i]->ask('BEGIN; ' . update('dn' . (1 + $i % 2), 1 + $i)); }
for my $i (0 .. 9) { my $next = ($i + 1) % 10; $s[$i]->tell(update('dn' . (1 + $next % 2), 1 + $next)); }
like(($s[9]->hear())[1], qr/40P01(?:(?s:.*?)Process \d+ waits){10}/, 'ten in a ring: the youngest is stopped, all are named');
$s[9]->ask('ROLLBACK');
for my $i (reverse 0 .. 8) { is(($s[$i]->hear())[1], '', "... $i gets on"); $s[$i]->ask('ROLLBACK'); }
is(counted('deadlocks'), $before + 1, '... one victim');

# --- nothing is asked where nobody waits ------------------------------------------------------------
my $asked = counted('deadlock_checks');
cmp_ok($asked, '>', 0, 'nodes were asked');
$a->ask('BEGIN; ' . update('dn1', 7));
$_->ask(q{SELECT count(*) FROM pooler.query_all('SELECT 1') AS r(node name, n int)}) for @s, @s;
usleep(500_000);
is(counted('deadlock_checks'), $asked, '... and not while nobody waits, though leases are held');

# Who waits for a lock in a line is told in the log, and left alone.
$offset = log_offset($coord);
$b->tell(update('dn1', 7));
wait_log($coord, qr/LOG:  process $pb has waited on datanode "dn1" for a lock for 0\.\d s\n.*DETAIL:  .*a connection of process $pa\./,
	$offset, 'a wait for another session is logged');
usleep(300_000);
ok(!$b->answered(), '... and goes on');
$a->ask('COMMIT');
is(($b->hear())[1], '', '... until its end');
$b->ask('ROLLBACK');

# --- off ----------------------------------------------------------------------------------------------
set_conf($coord, 'pooler.detect_deadlocks' => 'off');
wait_until($coord, 'SHOW pooler.detect_deadlocks', 'off', 'turned off');
$_->ask('SELECT 1') for @s;
$asked = counted('deadlock_checks');
$a->ask('BEGIN; ' . update('dn1', 8));
$b->ask('BEGIN; ' . update('dn2', 8));
$a->tell(update('dn2', 8));
$b->tell(update('dn1', 8));
waiting($dn{$_}, 1, "... they wait on $_") for qw(dn1 dn2);
usleep(500_000);
ok(!$a->answered() && !$b->answered(), '... nobody is stopped');
is(counted('deadlock_checks'), $asked, '... and nothing asked');
value($coord, "SELECT pg_cancel_backend($pa)");
like(($a->hear())[1], qr/57014/, '... until one is cancelled');
$a->ask('ROLLBACK');
is(($b->hear())[1], '', '... then the other one gets on');
$b->ask('ROLLBACK');
$_->quit() for @s;
finish();
