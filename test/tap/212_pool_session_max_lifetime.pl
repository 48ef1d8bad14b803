# pooler.pool_session_max_lifetime: no idle connection is older; one is replaced ahead of its end
# where its pool needs it, a leased one at release; ends are spread, and nobody waits for any of it.

use strict;
use warnings;
use PolarxParameter;
use PolarxPooler;
use Test::More;
use Time::HiRes qw(time usleep);

my $coord = start_coordinator(conf => <<'END');
pooler.min_pool_size = 4
pooler.min_free_size = 0
pooler.pool_conn_keepalive = -1
pooler.pool_maintenance_timeout = -1
pooler.pool_session_max_lifetime = 5s
END
check_parameter($coord, name => 'pooler.pool_session_max_lifetime', boot => 300, start => 5, min => 1,
	max => 2147483647, unit => 's', context => 'sighup');

my $dn = start_datanode('dn1', conf => "max_connections = 150\n");
add_node($coord, 'dn1', $dn);
wait_until($coord, "SELECT count(*) FROM pooler.connections WHERE state = 'idle' AND state_since > created_at", '4',
	'four connections, warmed up');
my $s = session($coord);
my $watch = session($coord);

# Three lifetimes long: as many idle ones as the minimum says, none too old, none waited for.
my $look = q{SELECT (SELECT sum(idle + leased + resetting) FROM pooler.pools),
  (SELECT coalesce(max(extract(epoch FROM clock_timestamp() - created_at)), 0) FROM pooler.connections WHERE state = 'idle')};
my $born = backend_pids($dn);
my ($fewest, $oldest) = (1000, 0);
my $start = time;
my $waited = $watch->ask('SELECT acquired - hits FROM pooler.pools');
while (time - $start < 15)
{
	my ($idle, $age) = split /\|/, $watch->ask($look);
	$fewest = $idle if $idle < $fewest;
	$oldest = $age if $age > $oldest;
	$s->ask(q{SELECT pooler.exec('dn1', 'SELECT 1')});
	usleep(10_000);
}
is($fewest, 4, 'replaced ahead of time: never fewer than the minimum');
cmp_ok($oldest, '<=', 5.2, sprintf('no idle connection is older than the lifetime (%.2f s)', $oldest));
cmp_ok($oldest, '>', 4, '... and none is replaced much earlier');
cmp_ok($watch->ask('SELECT closed_lifetime FROM pooler.pools'), '>=', 8, 'replaced more than once');
is($watch->ask('SELECT acquired - hits FROM pooler.pools'), $waited, 'no session waited for a replacement');
is($watch->ask('SELECT closed_error + closed_idle + closed_memory FROM pooler.pools'), '0', '... no other closing');
my %born = map { $_ => 1 } split /\n/, $born;
is(scalar(grep { $born{$_} } split /\n/, backend_pids($dn)), 0, 'none of the first four is left');

# A leased one: at release, its replacement opened before.
$s->ask('BEGIN');
my $pid_of = q{SELECT p FROM pooler.query('dn1', 'SELECT pg_backend_pid()') AS r(p int)};
my $pid = $s->ask($pid_of);
my $age = "SELECT clock_timestamp() - created_at > interval '5.2 s' FROM pooler.connections WHERE remote_pid = $pid";
wait_until($coord, $age, 't', 'a lease outlives the lifetime');
is($s->ask($pid_of), $pid, '... the transaction goes on with it');
wait_until($coord, 'SELECT idle >= 4 FROM pooler.pools', 't', '... its replacement is there, before it is given back');
$s->ask('COMMIT');
wait_until($dn, "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid", '0', '... at release it goes');
is($watch->ask('SELECT acquired - hits FROM pooler.pools'), $waited, '... and nobody has waited');

# At the maximum the old one closes first.
set_conf($coord, 'pooler.max_pool_size' => 4, 'pooler.min_pool_size' => 0, 'pooler.min_free_size' => 4);
$born = backend_pids($dn);
my $most = 0;
my $direct = PolarxSession->on($dn->connstr('postgres') . ' user=' . me());
my $count = q{SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'polarx\_pooler%'};
$start = time;
while (time - $start < 7)
{
	$s->ask(q{SELECT pooler.exec('dn1', 'SELECT 1')}) if rand() < 0.1;
	my $now = $direct->ask($count);
	$most = $now if $now > $most;
	usleep(2_000);
}
is($most, 4, 'a full node: never above its maximum, counted there');
%born = map { $_ => 1 } split /\n/, $born;
is(scalar(grep { $born{$_} } split /\n/, backend_pids($dn)), 0, '... and all are replaced');
wait_until($coord, 'SELECT idle FROM pooler.pools', '4', '... and there are four again');

# A hundred opened together do not end together.
set_conf($coord, 'pooler.pool_session_max_lifetime' => '20s', 'pooler.max_pool_size' => 120,
	'pooler.min_free_size' => 0);
add_holders($coord, 100, 'dn1');
value($coord, q{SELECT pooler.clean('dn1')});
wait_until($coord, 'SELECT total FROM pooler.pools', '0', 'an empty pool');
my $before = $watch->ask('SELECT closed_lifetime FROM pooler.pools');
$s->ask('BEGIN');
hold($s, 'dn1', 1, 100);
$s->ask('COMMIT');
is($watch->ask('SELECT total FROM pooler.pools'), '100', 'a hundred connections');
my %age = map { $_ => undef } split /\n/, $watch->ask('SELECT slot FROM pooler.connections');    # when last seen idle
my @closed;    # when each had gone
wait_for('all to be too old', sub {
		my $gone = $watch->ask('SELECT closed_lifetime FROM pooler.pools') - $before;
		push @closed, (time) x ($gone - @closed);
		for my $row (split /\n/, $watch->ask(q{SELECT slot, extract(epoch FROM clock_timestamp() - created_at)
			FROM pooler.connections WHERE state = 'idle'}))
		{
			my ($slot, $seconds) = split /\|/, $row;
			$age{$slot} = $seconds if exists $age{$slot};
		}
		return $gone >= 100;
	});
# However long it took to open them: one by one they lived 18 to 20 s.
my @ages = sort { $a <=> $b } values %age;
cmp_ok($ages[-1] - $ages[0], '>', 1, sprintf('each has a lifetime of its own (%.2f to %.2f s)', @ages[ 0, -1 ]));
ok($ages[0] > 17 && $ages[-1] < 20.5, '... less by a tenth at most');
my $together = 0;
for my $i (0 .. $#closed)
{
	my $in_a_second = grep { $_ >= $closed[$i] && $_ < $closed[$i] + 1 } @closed;
	$together = $in_a_second if $in_a_second > $together;
}
cmp_ok($together, '<', 95, "at most $together of them closed within one second");
cmp_ok($closed[-1] - $closed[0], '>', 1, '... from first to last it took more than a second');

$_->quit() for $s, $watch, $direct;
finish();
