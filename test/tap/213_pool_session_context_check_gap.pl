# pooler.pool_session_context_check_gap: a session's memory is measured at most that long after the
# last time, idle or at release, one connection of a pool at a time.

use strict;
use warnings;
use PolarxParameter;
use PolarxPooler;
use Test::More;
use Time::HiRes qw(time);

my $coord = start_coordinator(conf => <<'END');
pooler.min_pool_size = 4
pooler.min_free_size = 0
pooler.pool_conn_keepalive = -1
pooler.pool_maintenance_timeout = -1
pooler.pool_session_context_check_gap = 2h
END
check_parameter($coord, name => 'pooler.pool_session_context_check_gap', boot => 120, start => 7200, min => 10,
	max => 7200, unit => 's', context => 'sighup');

my $dn = start_datanode('dn1', conf => "log_statement = 'all'\n");
add_node($coord, 'dn1', $dn);
wait_until($coord, q{SELECT idle FROM pooler.pools}, '4', 'four connections');
my $s = session($coord);
my $watch = session($coord);
my $before = backend_pids($dn);
my $asked = sub { return scalar(() = log_since($dn, 0) =~ /statement: SELECT .*pg_backend_memory_contexts/g) };
$s->ask(q{SELECT pooler.exec('dn1', 'SELECT 1')}) for 1 .. 20;
is($asked->(), 0, 'not due: nothing is measured, neither idle nor at release');

# Within the gap, from a reload on.
my $age = 'SELECT coalesce(max(extract(epoch FROM clock_timestamp() - coalesce(memory_checked_at, created_at))), 0)'
  . q{ FROM pooler.connections WHERE state <> 'leased'};
set_conf($coord, 'pooler.pool_session_context_check_gap' => '10s');
my $changed = time;
wait_for('all to be measured', sub { $watch->ask('SELECT count(memory_bytes) FROM pooler.connections') == 4 });
my $oldest = 0;
my $checks = 'SELECT count(DISTINCT memory_checked_at) FROM pooler.connections';
my %checked;
while (time - $changed < 24)
{
	my $now = $watch->ask($age);
	$oldest = $now if $now > $oldest && time - $changed > 11;
	$checked{$_} = 1 for split /\n/, $watch->ask('SELECT slot, memory_checked_at FROM pooler.connections');
	$s->ask(q{SELECT pooler.exec('dn1', 'SELECT 1')});
	select undef, undef, undef, 0.1;
}
cmp_ok($oldest, '<', 11.5, sprintf('no measure is older than the gap (%.1f s)', $oldest));
cmp_ok($oldest, '>', 5, '... nor made much more often');
my $measures = keys %checked;
cmp_ok($measures, '>=', 8, "each was measured again ($measures measures)");
cmp_ok($measures, '<=', 20, '... not at every turn');
is(backend_pids($dn), $before, 'the same connections all the time');
is($watch->ask('SELECT closed_error + closed_memory FROM pooler.pools'), '0', '... none closed');

# A lease that is due is measured at its release.
$s->ask('BEGIN');
my $pid = $s->ask(q{SELECT p FROM pooler.query('dn1', 'SELECT pg_backend_pid()') AS r(p int)});
my $last = "SELECT coalesce(memory_checked_at, created_at) FROM pooler.connections WHERE remote_pid = $pid";
my $at = $watch->ask($last);
wait_until($coord, "SELECT clock_timestamp() - timestamptz '$at' > interval '10.5 s'", 't', 'a lease outlasts the gap');
is($watch->ask($last), $at, '... and is not disturbed');
$s->ask('COMMIT');
wait_until($coord, "SELECT coalesce(memory_checked_at, created_at) > timestamptz '$at' FROM pooler.connections"
	  . " WHERE remote_pid = $pid", 't', '... it is measured when it comes back');

$_->quit() for $s, $watch;
finish();
