# What a datanode in trouble costs: how often it is tried, how fast sessions are told meanwhile, whom it
# concerns, and how its return is found.

use strict;
use warnings;
use List::Util qw(max);
use PolarxFault;
use PolarxPooler;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $sessions = 200;
my $ground = fault_ground(dn => { conf => "max_connections = 60\nsuperuser_reserved_connections = 3\n" },
	conf => "max_connections = 260\n");
my ($coord, $proxy, $admin, $victim, $dn) = @$ground{qw(coord proxy admin victim dn)};

# A storm: sessions of a role that ask all the time, each request timed and its outcome noted.
value($coord, <<'END');
CREATE TABLE storm (took float8, code text, message text);
GRANT INSERT ON storm TO PUBLIC;
CREATE PROCEDURE ask(seconds float8) LANGUAGE plpgsql AS $$
DECLARE over timestamptz := clock_timestamp() + seconds * interval '1 s'; start timestamptz;
BEGIN
	WHILE clock_timestamp() < over LOOP
		start := clock_timestamp();
		BEGIN
			PERFORM pooler.exec('dn', 'SELECT 1');
			INSERT INTO storm VALUES (extract(epoch FROM clock_timestamp() - start), 'fine', '');
		EXCEPTION WHEN OTHERS THEN
			INSERT INTO storm VALUES (extract(epoch FROM clock_timestamp() - start), SQLSTATE, SQLERRM);
		END;
		COMMIT;
		PERFORM pg_sleep(0.1);
	END LOOP;
END $$;
END
my $dir = PostgreSQL::Test::Utils::tempdir();
append_to_file("$dir/storm.sql", "CALL ask(:seconds);\n");
sub storm
{
	my ($role, $clients, $seconds) = @_;
	value($coord, 'TRUNCATE storm');
	my ($out, $err) = run_command([ 'pgbench', '-n', '-c', $clients, '-j', 1, '-t', 1, '-D', "seconds=$seconds", '-f', "$dir/storm.sql",
			'-h', $coord->host, '-p', $coord->port, '-U', $role, 'postgres' ]);
	like($out, qr{actually processed: $clients/$clients}, "$clients sessions ask for $seconds s") or diag $err;
	return;
}

# Failures one after the other leave 0.1 s, 0.2 s, ... 5 s, less up to a quarter, between the attempts: in
# so many seconds there are so many at most. Before the first failure is known eight may be under way.
my ($parallel, $first, $longest) = (8, 0.075, 3.75);
sub most_attempts
{
	my ($seconds) = @_;
	my ($attempts, $at, $delay) = ($parallel, 0, $first);
	while (($at += $delay) < $seconds)
	{
		$attempts++;
		$delay = 2 * $delay < $longest ? 2 * $delay : $longest;
	}
	return $attempts + 1;
}

sub failures { return $admin->ask(q{SELECT sum(connect_failures) FROM pooler.pools WHERE node = 'dn'}); }
sub refusals { my ($like, $offset) = @_; return scalar(() = log_since($dn, $offset) =~ /$like/g); }

# Four tests about a storm on a node that lets nobody in: who asked was told the truth at once.
sub told_at_once
{
	my ($code, $like, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($requests, $others, $most, $slowest) = split /\|/, value($coord,
		"SELECT count(*), count(*) FILTER (WHERE code <> '$code' OR message !~ '$like'),"
		  . ' percentile_cont(0.9) WITHIN GROUP (ORDER BY took), max(took) FROM storm');
	cmp_ok($requests, '>', 3 * $sessions, "$name: $requests requests");
	is($others, 0, '... all were told the reason');
	cmp_ok($most, '<', 0.5, sprintf('... at once (90 of 100 within %.3f s)', $most));
	cmp_ok($slowest, '<', 3, sprintf('... none had to wait for the next attempt (%.3f s at most)', $slowest));
	return;
}

sub empty_pool
{
	$admin->ask(q{SELECT pooler.clean('dn', 'victim')});
	wait_for('an empty pool', sub { victim_pool($ground, 'total') eq '0' });
	return;
}

sub until_retry { return victim_pool($ground, 'coalesce(extract(epoch FROM retry_at - clock_timestamp()), 0)'); }

# A node that refuses: 200 sessions make no more attempts than one would.
for my $fault ('refuse', 'close')
{
	empty_pool();
	my ($before, $accepted, $start) = (failures(), $proxy->figures->{accepted}, time);
	$fault eq 'refuse' ? $proxy->refuse() : $proxy->fault('*', 'startup', 'close');
	storm('victim', $sessions, 4);
	my ($attempts, $bound) = (failures() - $before, most_attempts(time - $start));
	cmp_ok($attempts, '>', 1, "$fault: it is tried again");
	cmp_ok($attempts, '<=', $bound, sprintf('... with bounded effort: %d attempts in %.1f s', $attempts, time - $start));
	cmp_ok($proxy->figures->{accepted} - $accepted, '<=', $bound, '... which the node has seen') if $fault eq 'close';
	told_at_once('08001', 'could not connect to datanode "dn"', "$fault: a storm");
	neighbours_work($ground, sub { 1 });
	is($admin->ask(q{SELECT health FROM pooler.nodes WHERE node = 'dn'}), 'down', '... the node is down');

	# Its return is found by the next attempt, with sessions that ask and without any.
	my $retry = until_retry();
	cmp_ok($retry, '<=', 5, sprintf('... the next attempt is at most 5 s away (%.2f)', $retry));
	$proxy->forward();
	$start = mark();
	wait_for('its return', sub { $victim->tell(one('dn')); ($victim->hear())[1] eq '' });
	cmp_ok(calm_since($start), '<', max($retry, 0) + 3, sprintf('... it finds the return (%.2f s)', time - $start));
	is(settle($ground), 'settled', '... and the books agree');
}

# One attempt at a time, once it is known: of sessions that all have to wait for it.
empty_pool();
my @askers = map { session($coord, user => 'victim') } 1 .. 20;
$proxy->fault('*', 'startup', 'silence');
$_->tell(one('dn')) for @askers;
my $told = grep { (($_->hear())[1]) =~ /08001: .*pooler_connect_timeout/ } @askers;
is($told, 20, 'a silent node: all that asked are told so');
cmp_ok($proxy->figures->{most_opening}, '<=', $parallel, "... of at most $parallel attempts at a time");
wait_for('the end of the first attempts', sub { $proxy->figures->{opening} == 0 });
$proxy->recount();
my ($accepted, $end, $fast) = ($proxy->figures->{accepted}, time + 4, 0);
while (time < $end)
{
	$_->tell(one('dn')) for @askers;
	$fast += grep { (($_->hear())[1]) =~ /08001(?s:.*)The next attempt is in/ } @askers;
}
is($proxy->figures->{most_opening}, 1, '... after that one at a time');
cmp_ok($proxy->figures->{accepted} - $accepted, '>', 1, '... again and again');
cmp_ok($fast, '>', 60, "... of 20 sessions one waits for it each time, the others are told when it is ($fast answers)");
$proxy->recount();
$proxy->forward();
wait_for('its return', sub { $askers[0]->tell(one('dn')); ($askers[0]->hear())[1] eq '' });
$_->ask('BEGIN; ' . one('dn')) for @askers;
is(victim_pool($ground, 'leased'), 20, '... once it is back all are served');
cmp_ok($proxy->figures->{most_opening}, '<=', $parallel, "... of at most $parallel attempts at a time");
$_->ask('COMMIT') for @askers;

# Without anybody asking: the minimum is filled again.
value($coord, q{ALTER SERVER dn OPTIONS (ADD min_pool_size '2')});
wait_for('the new minimum', sub { victim_pool($ground, 'min_size') eq '2' });
$proxy->refuse();
empty_pool();
my $before = failures();
wait_for('some attempts', sub { failures() > $before + 3 });
my $retry = until_retry();
$proxy->forward();
my $start = mark();
wait_for('two connections', sub { victim_pool($ground, 'idle') eq '2' });
cmp_ok(calm_since($start), '<', max($retry, 0) + 3, sprintf('a minimum is filled again without anybody asking (%.2f s, hold-off %.2f s)',
		time - $start, $retry));
value($coord, q{ALTER SERVER dn OPTIONS (DROP min_pool_size)});

# A role whose password is wrong: its own trouble, and few attempts.
my $wrong = qr/FATAL:  password authentication failed for user "victim"/;
value($dn, q{ALTER ROLE victim PASSWORD 'other'});
my $offset = log_offset($dn);
empty_pool();
$start = mark();
storm('victim', $sessions, 3);
my $attempts = refusals($wrong, $offset);
cmp_ok($attempts, '<=', most_attempts(time - $start), sprintf('a wrong password: %d attempts in %.1f s', $attempts, time - $start));
told_at_once('28P01', 'password authentication failed', 'a wrong password');
is($admin->ask(q{SELECT health FROM pooler.nodes WHERE node = 'dn'}), 'up', '... the node is up');
$admin->ask(q{SELECT pooler.clean('dn', 'neighbour')});
within(1.9, '... and the other role can open connections', sub { $ground->{asker}->ask(one('dn')) });
value($coord, q{ALTER USER MAPPING FOR victim SERVER dn OPTIONS (SET password 'other')});
within(1.9, '... the mapping is mended: no hold-off', sub { is(value($coord, one('dn'), user => 'victim'), 'SELECT 1', '... it works') });

# A datanode that others have filled: who is patient is served by the connections that there are.
empty_pool();
$_->ask('BEGIN; ' . one('dn')) for @askers[ 0 .. 3 ];
my @fillers;
while (@fillers < 60)
{
	push @fillers, eval { session($dn, user => 'neighbour') } // last;
}
cmp_ok(scalar(@fillers), '>', 30, 'others fill the datanode');
$offset = log_offset($dn);
my $full = qr/FATAL:  (?:sorry, too many clients|remaining connection slots)/;
my $err = $victim->refused(one('dn'));
like($err, qr/08001: could not connect to datanode "dn": .*(?:too many clients|remaining connection slots)/, '... a request is told so');
$_->ask('COMMIT') for @askers[ 0 .. 3 ];
$start = mark();
{
	local $ENV{PGOPTIONS} = '-c pooler.queue_timeout=20s';
	storm('victim', 40, 3);
}
is(value($coord, q{SELECT string_agg(DISTINCT code, ' ') FROM storm}), 'fine', '... 40 patient sessions share the connections that there are');
$attempts = refusals($full, $offset);
cmp_ok($attempts, '<=', most_attempts(time - $start), sprintf('... with few attempts at more: %d in %.1f s', $attempts, time - $start));
$retry = until_retry();
$_->quit() for @fillers;
$start = mark();
for my $asker (@askers)
{
	wait_for('room', sub {
			$asker->tell('BEGIN; ' . one('dn'));
			my $served = ($asker->hear())[1] eq '';
			$asker->ask('ROLLBACK') if !$served;
			return $served;
		});
}
cmp_ok(calm_since($start), '<', max($retry, 0) + 8, sprintf('... they leave: the room is found (%.2f s)', time - $start));
is(victim_pool($ground, 'leased'), 20, '... for all');

$_->quit() for @askers;
end_ground($ground);
