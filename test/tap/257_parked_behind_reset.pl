# What has to be reset before it is used again is parked as well: the session sends the reset at
# once, and reads its answer when it comes back; or the pooler does, for whoever needs the connection.

use strict;
use warnings;
use PolarxPooler qw(:DEFAULT literal on execute);
use PolarxProxy;
use Test::More;
use Time::HiRes qw(time);

my $coord = start_coordinator(park => 1, conf => <<'END');
pooler.min_pool_size = 0
pooler.min_free_size = 0
pooler.pool_maintenance_timeout = 1h
pooler.pool_conn_keepalive = 2h
pooler.pool_session_context_check_gap = 2h
pooler.pool_session_max_lifetime = 2h
pooler.pooler_dn_set_timeout = 2s
END
my $dn = start_datanode('dn1', conf => "log_statement = all\nlog_min_messages = log\n");
add_node($coord, 'dn1', $dn);
value($coord, 'CREATE EXTENSION polarx_pooler_example');
# What the pooler hears of the catalog later ends the parking of what was lent before.
value($coord, 'SELECT pooler.reload()');
my ($s, $watch) = map { session($coord) } 1 .. 2;
my $offset;

# A borrower runs a statement and gives the connection back as clean; its process id.
sub borrow { my ($node, $sql) = @_; return sprintf q{SELECT example_leave_open('%s', 'done', %s)}, $node, literal($sql); }
my $pid_of = on('dn1', 'SELECT pg_backend_pid()');

sub requests { return $watch->ask('SELECT client_request_conn_total FROM pooler.stats'); }
sub resets { my ($offset, $like) = @_; return scalar grep { $_->[1] =~ ($like // qr/^DISCARD ALL$/) } statements($dn, $offset); }

# The session runs the statement, and the datanode the reset behind it, whose answer is out; returns what
# came of the former.
sub and_reset
{
	my ($session, $sql) = @_;
	my $offset = log_offset($dn);
	my $result = $session->ask($sql);
	wait_for('the reset', sub { resets($offset) > 0 });
	# Idle it is before it has answered: it has where it waits for what the client says next.
	my $busy = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
	  . " AND (state, wait_event) IS DISTINCT FROM ('idle', 'ClientRead')";
	wait_for('its end', sub { value($dn, $busy) eq '0' });
	return $result;
}

# One test: the connections of the node become so many leased, parked, idle, of so many.
sub becomes
{
	my ($node, $expected, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $sql = "SELECT concat_ws(' ', sum(leased), sum(parked), sum(idle), sum(total)) FROM pooler.pools WHERE node = '$node'";
	my $now = '';
	eval { wait_for($name, sub { ($now = $watch->ask($sql)) eq $expected }, 15) };
	return is($now, $expected, $name);
}

sub set_reset
{
	my ($query) = @_;
	$s->ask('DISCARD ALL');
	wait_until($coord, 'SELECT sum(leased + parked + resetting) FROM pooler.pools', '0', 'all has come back');
	set_conf($coord, 'pooler.reset_query' => $query);
	value($coord, 'SELECT pooler.reload()');
	$_->ask('SELECT 1') for $s, $watch;
	return log_offset($coord);
}

# --- nothing is left, and nobody is asked ------------------------------------------------------------
my $pid = $s->ask(borrow('dn1', 'SELECT 1'));
becomes('dn1', '0 1 0 1', 'given back clean: parked');
my $left = q{SELECT concat_ws(' ', current_setting('work_mem'), to_regclass('pg_temp.mine') IS NOT NULL,
	(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'), (SELECT count(*) FROM pg_prepared_statements),
	(SELECT count(*) FROM pg_listening_channels()), (SELECT count(*) FROM pg_cursors WHERE is_holdable), pg_backend_pid())};
for my $spoil (q{SET work_mem = '9MB'}, 'CREATE TEMP TABLE mine ()', 'DO $$BEGIN PERFORM pg_advisory_lock(42); END$$', 'PREPARE x AS SELECT 1', 'LISTEN x',
	'DECLARE c CURSOR WITH HOLD FOR SELECT 1')
{
	for my $way (\&borrow, \&execute)
	{
		my $name = ($way == \&borrow ? 'C: ' : 'SQL: ') . $spoil;
		my $requests = requests();
		$offset = log_offset($dn);
		and_reset($s, $way->('dn1', $spoil));
		becomes('dn1', '0 1 0 1', "$name: parked");
		is($s->ask(on('dn1', $left)), "4MB f 0 0 0 0 $pid", '... and taken again as new');
		is(requests(), $requests, '... without a request to the pooler');
		is(resets($offset), 1, '... reset once');
	}
}
my $acquired = 'SELECT sum(acquired), sum(hits) FROM pooler.pools';
my $before = $watch->ask($acquired);
is(join(' ', map { and_reset($s, borrow('dn1', 'SELECT 1')) } 1 .. 20), join(' ', ($pid) x 20), 'a borrower, twenty times: the same connection');
is($watch->ask($acquired), join('|', map { $_ + 20 } split /\|/, $before), '... counted as acquired, and as hits');

# How long a borrower has it does not matter, but how much goes over it: libpq's memory may have grown.
is($s->ask(borrow('dn1', 'SELECT pg_sleep(0.05)')), $pid, 'a borrower that takes its time');
becomes('dn1', '0 1 0 1', '... parked');
is($s->ask(borrow('dn1', q{SELECT repeat('x', 1000000) FROM pg_sleep(0.05)})), $pid, 'one that reads a lot');
becomes('dn1', '0 0 1 1', '... given back to the pooler');
and_reset($s, borrow('dn1', 'SELECT 1'));
becomes('dn1', '0 1 0 1', 'the next one: parked');

# The session's parameters are set anew.
$s->ask(q{SELECT pooler.set_param('work_mem', '7MB')});
my $mem = on('dn1', q{SELECT current_setting('work_mem')});
is($s->ask($mem), '7MB', 'set_param holds');
and_reset($s, execute('dn1', 'SET enable_seqscan = on'));
is($s->ask($mem), '7MB', '... also behind a reset, in SQL');
my $borrowed = q{SELECT really FROM example_parameters('dn1', $$SELECT 1$$) WHERE name = 'application_name'};
$s->ask(q{SELECT pooler.set_param('application_name', 'mine')});
is(join(' ', map { $s->ask($borrowed) } 1 .. 4), join(' ', ('mine') x 4), '... and in C');
$s->ask('SELECT pooler.reset_params()');
is($s->ask($mem) . ' ' . $s->ask($borrowed), '4MB polarx_pooler/postgres', '... until it is reset');

# The time that it was parked counts for no hold.
value($coord, 'SELECT pooler.reset_stats()');
$s->ask(borrow('dn1', 'SELECT 1'));
select undef, undef, undef, 3;
$s->ask('DISCARD ALL');
becomes('dn1', '0 0 1 1', 'given back after three seconds');
cmp_ok($watch->ask('SELECT hold_p99_us FROM pooler.pools'), '<', 2_000_000, '... for which it was not held');

# The pooler worker has no part in it: not even one that stands still.
and_reset($s, borrow('dn1', 'SELECT 1'));
my $stopped = worker_pid($coord);
END { kill 'CONT', $stopped if $stopped; }
kill 'STOP', $stopped;
is(join(' ', map { and_reset($s, borrow('dn1', 'CREATE TEMP TABLE mine ()')) } 1 .. 5), join(' ', ($pid) x 5),
	'while the pooler worker stands still all goes on');
kill 'CONT', $stopped;
undef $stopped;

# A datanode's word in between: the pooler hears it, and the connection stays.
$s->ask(borrow('dn1', 'SELECT 1'));
set_conf($dn, 'timezone' => 'Asia/Tokyo');
wait_until($dn, 'SHOW timezone', 'Asia/Tokyo', 'a setting of the datanode that it reports');
my $told = q{SELECT concat_ws(' ', before, really) FROM example_parameters('dn1', 'SELECT 1') WHERE name = 'TimeZone'};
wait_for('the new value', sub { $s->ask($told) eq 'Asia/Tokyo Asia/Tokyo' });
is($s->ask($pid_of), $pid, '... is told on the same connection');

# --- others need it ----------------------------------------------------------------------------------
value($coord, q{ALTER SERVER dn1 OPTIONS (ADD max_pool_size '1')});
my $other = session($coord);
for my $round (1 .. 3)
{
	my ($from, $to) = $round % 2 ? ($s, $other) : ($other, $s);
	and_reset($from, $_) for borrow('dn1', 'SELECT 1'), execute('dn1', q{SET work_mem = '9MB'}), borrow('dn1', 'CREATE TEMP TABLE mine ()');
	$offset = log_offset($dn);
	is(within(10, "round $round: another session takes the only connection", sub { $to->ask(on('dn1', $left)) }), "4MB f 0 0 0 0 $pid",
		'... and finds nothing');
	is(resets($offset, qr/DISCARD/), 0, '... whose reset was not made twice');
	is($to->ask($pid_of), $pid, '... it has it from then on');
}
$_->ask(borrow('dn1', 'SELECT 1')) for $s, $other;
$other->quit();
becomes('dn1', '0 0 1 1', 'its session ends: idle');
is(value($coord, 'SELECT sum(closed_error) FROM pooler.pools'), '0', '... none was closed');
value($coord, q{ALTER SERVER dn1 OPTIONS (DROP max_pool_size)});

# One that is not wanted again by its session is taken before another is opened. A second is the longest
# that a session's return is waited for.
my @five = map { session($coord) } 1 .. 5;
for my $round (1 .. 2)
{
	for my $t (@five)
	{
		$t->ask(borrow('dn1', 'SELECT 1'));
		select undef, undef, undef, 1.2;
	}
}
is($watch->ask('SELECT total FROM pooler.pools'), '1', 'five sessions that take turns, with a pause: one connection');
$_->quit() for @five;

# --- given back --------------------------------------------------------------------------------------
for my $change ('DISCARD ALL', 'RESET ALL', 'SET pooler.park_leases = off', 'SET ROLE pg_monitor', 'SET SESSION AUTHORIZATION DEFAULT')
{
	for my $sql (borrow('dn1', 'SELECT 1'), $pid_of)
	{
		$offset = log_offset($dn);
		$s->ask($sql);
		becomes('dn1', '0 1 0 1', 'parked ' . ($sql eq $pid_of ? 'as it is' : 'behind its reset'));
		$s->ask($change);
		becomes('dn1', '0 0 1 1', "... and given back by $change");
		is(resets($offset), 1, '... reset once');
		$s->ask('RESET ROLE');
		$s->ask('SET pooler.park_leases = on');
	}
}
$s->ask('SET pooler.park_leases = off');
$s->ask(borrow('dn1', 'SELECT 1'));
becomes('dn1', '0 0 1 1', 'pooler.park_leases = off: given back at once');
$s->ask('SET pooler.park_leases = on');
$s->ask(borrow('dn1', 'SELECT 1'));
value($coord, 'SELECT pooler.clean()');
wait_until($coord, 'SELECT sum(total) FROM pooler.pools', '0', 'pooler.clean() closes what is parked so');
$s->ask(borrow('dn1', 'SELECT 1'));
my $doomed = $s->ask(borrow('dn1', 'SELECT 1'));
value($dn, "SELECT pg_terminate_backend($doomed, 5000)");
wait_until($coord, 'SELECT sum(total) FROM pooler.pools', '0', 'one that its datanode closes is closed');
like($s->ask($pid_of), qr/^\d+$/, '... and another one opened');

# --- other texts -------------------------------------------------------------------------------------
for my $query ('', 'RESET ALL; SELECT 4711', 'RESET ALL' . ' ' x 2000)
{
	$offset = set_reset($query);
	$pid = $s->ask($pid_of);
	$s->ask(execute('dn1', 'SET enable_seqscan = on'));
	is($s->ask($pid_of), $pid, '... the same connection');
	is($s->ask($pid_of), $pid, '... and again');
	unlike(log_since($coord, $offset), qr/is closed/, '... and none was closed');
}
$offset = set_reset('SELECT 1/0');
$pid = $s->ask($pid_of);
$s->ask(borrow('dn1', 'SELECT 1'));
isnt($s->ask($pid_of), $pid, 'a reset that fails: another connection');
wait_log($coord, qr/connection to datanode "dn1" is closed: pooler.reset_query failed: division by zero/, $offset,
	'... and the log says why');

# A reset that does not end before the test wants it to.
sub set_limit
{
	my ($limit) = @_;
	set_conf($coord, 'pooler.pooler_dn_set_timeout' => $limit);
	value($coord, 'SELECT pooler.reload()');
	wait_until($coord, 'SHOW pooler.pooler_dn_set_timeout', $limit, "pooler_dn_set_timeout is $limit");
	return;
}
set_limit('1min');
set_reset('SELECT pg_advisory_xact_lock_shared(257)');
$pid = $s->ask($pid_of);
$s->ask('DISCARD ALL');
becomes('dn1', '0 0 1 1', 'one connection');
my $lock = session($dn);
$lock->ask('SELECT pg_advisory_lock(257)');
is($s->ask(borrow('dn1', 'SELECT 1')), $pid, 'a reset that takes long: giving back does not wait for it');
isnt($s->ask($pid_of), $pid, '... nor does the next statement, on another connection');
is(value($dn, "SELECT wait_event_type FROM pg_stat_activity WHERE pid = $pid"), 'Lock', '... while the reset goes on');
$lock->ask('SELECT pg_advisory_unlock(257)');
$lock->quit();
$s->ask('DISCARD ALL');
becomes('dn1', '0 0 2 2', '... both come back');

# Who asks again at once waits no longer for the answer than the pooler would take: ten times a second, if it did.
set_conf($coord, 'pooler.reset_query' => 'SELECT pg_sleep(1)');
value($coord, 'SELECT pooler.reload()');
$s->ask('SELECT 1');
my $ten = "SELECT count(example_leave_open('dn1', 'done', 'SELECT ' || g)) FROM generate_series(1, 10) g";
my %least;
for my $round (1 .. 2)
{
	for my $park ('off', 'on')
	{
		$s->ask("SET pooler.park_leases = $park");
		my $start = time;
		$s->ask($ten);
		my $took = time - $start;
		$least{$park} = $took if !defined $least{$park} || $took < $least{$park};
		wait_until($coord, 'SELECT sum(leased + resetting) FROM pooler.pools', '0', 'all are reset');
	}
}
cmp_ok($least{on}, '<', $least{off} + 5, sprintf('ten at once with a slow reset: %.0f ms, %.0f ms without parking', map { 1000 * $least{$_} } qw(on off)));
value($coord, 'SELECT pooler.clean()');

# --- a datanode that falls silent --------------------------------------------------------------------
set_conf($coord, 'pooler.reset_query' => 'DISCARD ALL');
value($coord, 'SELECT pooler.reload()');
my $proxy = PolarxProxy->before($dn->port);
add_node($coord, 'proxied', $dn, server => { port => $proxy->port });
my $t = session($coord);
$t->ask(q{BEGIN; SELECT example_leave('proxied', 'idle', 3)});
$proxy->freeze();
$offset = log_offset($coord);
within(20, 'the datanode is silent: giving back does not wait for its answer', sub { $t->ask('COMMIT') });
becomes('proxied', '0 1 0 1', '... it is parked');
set_limit('2s');
$t->ask('DISCARD ALL');
wait_log($coord, qr/connection to datanode "proxied" is closed: pooler.reset_query failed: pooler.pooler_dn_set_timeout/, $offset,
	'... and closed when the answer does not come in time');
$proxy->forward();
like($t->ask(on('proxied', 'SELECT pg_backend_pid()')), qr/^\d+$/, '... and another one serves');

finish();
