# pooler.pool_maintenance_timeout: what is surplus closes in rounds at that interval; -1 never.

use strict;
use warnings;
use POSIX ();
use PolarxParameter;
use PolarxPooler;
use PostgreSQL::Test::Utils qw(slurp_file);
use Test::More;
use Time::HiRes qw(time);

my $coord = start_coordinator(conf => <<'END');
pooler.pool_conn_keepalive = 1s
pooler.pool_maintenance_timeout = 1s
pooler.pool_print_stat_timeout = 1s
pooler.min_pool_size = 2
pooler.min_free_size = 5
pooler.max_pool_size = 30
END
check_parameter($coord, name => 'pooler.pool_maintenance_timeout', boot => 10, start => 1, min => 0,
	max => 2147483647, unit => 's', context => 'sighup', off => 1);

my $dn = start_datanode('dn1');
add_node($coord, 'dn1', $dn);
add_holders($coord, 20, 'dn1');
my $s = session($coord);
my $watch = session($coord);
my $sizes = 'SELECT total, idle, leased FROM pooler.pools';

# Leaves so many idle connections; returns the datanode's.
sub grow
{
	my ($count) = @_;
	$s->ask('BEGIN');
	hold($s, 'dn1', 1, $count);
	$s->ask('COMMIT');
	wait_for('idle connections', sub { $watch->ask('SELECT idle >= ' . $count . ' AND idle = total FROM pooler.pools') eq 't' });
	return backend_pids($dn);
}

sub await_minimum { return wait_for('the minimum', sub { $watch->ask($sizes) eq '2|2|0' }); }

# Ten rounds of an unused pool, the reserve larger than the minimum.
await_minimum();
grow(20);
await_minimum();
wait_for('the datanode', sub { backends($dn) == 2 });
rests($coord, $dn, 10, 'unused');

# -1: no round, so nothing closes; requests are served, and lost connections replaced all the same.
set_conf($coord, 'pooler.pool_maintenance_timeout' => -1);
my $pids = grow(12);
stat_lines_pass($coord, 4);
is(backend_pids($dn), $pids, '-1: nothing closes, long after the keepalive');
is($s->ask(q{SELECT pooler.exec('dn1', 'SELECT 1')}), 'SELECT 1', '... requests are served');
value($dn, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'polarx%'");
wait_for('two new connections', sub { backends($dn) >= 2 && $watch->ask('SELECT total = idle FROM pooler.pools') eq 't' });
is(grep({ my $pid = $_; grep { $_ eq $pid } split /\n/, $pids } split /\n/, backend_pids($dn)), 0,
	'... and lost connections are replaced');

# A long interval is kept, a short one takes effect by a reload.
set_conf($coord, 'pooler.pool_maintenance_timeout' => '1h');
$pids = grow(12);
stat_lines_pass($coord, 4);
is(backend_pids($dn), $pids, '1h: nothing closes within seconds');
within(6, '1s takes effect by a reload, within a round', sub {
		set_conf($coord, 'pooler.pool_maintenance_timeout' => '1s');
		await_minimum();
	});
wait_for('the datanode', sub { backends($dn) == 2 });
is(grep({ my $pid = $_; grep { $_ eq $pid } split /\n/, $pids } split /\n/, backend_pids($dn)), 2,
	'... and spares the minimum');

# The next round comes an interval after the last one, the reload's.
my $start = mark();
set_conf($coord, 'pooler.pool_maintenance_timeout' => '5s');
wait_for('the reload', sub { $watch->ask('SHOW pooler.pool_maintenance_timeout') eq '5s' });
grow(6);
is($watch->ask('SELECT idle >= 6 FROM pooler.pools'), 't', 'grown after a round');
my ($first, $calm);
wait_for('the next round', sub {
		($first, $calm) = (time - $start, calm_since($start));
		return $watch->ask('SELECT idle < 6 FROM pooler.pools') eq 't';
	});
cmp_ok($first, '>', 4.5, sprintf('the next round is an interval later (%.2f s)', $first));
cmp_ok($calm, '<', 9.5, '... and not two');

# 0 is no busy loop.
sub cpu_seconds
{
	my @fields = split / /, slurp_file('/proc/' . worker_pid($coord) . '/stat');
	return ($fields[13] + $fields[14]) / POSIX::sysconf(POSIX::_SC_CLK_TCK());
}
set_conf($coord, 'pooler.pool_maintenance_timeout' => 0);
await_minimum();
my $before = cpu_seconds();
stat_lines_pass($coord, 3);
cmp_ok(cpu_seconds() - $before, '<', 0.5, '0: rounds without a pause would take a processor for themselves');

$_->quit() for $s, $watch;
finish();
