# pooler.pool_conn_keepalive: an idle connection closes after that long unused, down to the minima;
# -1 never.

use strict;
use warnings;
use PolarxParameter;
use PolarxPooler;
use Test::More;
use Time::HiRes qw(time);

my $coord = start_coordinator(conf => <<'END');
pooler.pool_conn_keepalive = 2s
pooler.pool_maintenance_timeout = 1s
pooler.pool_print_stat_timeout = 1s
pooler.min_pool_size = 4
pooler.min_free_size = 0
pooler.max_pool_size = 60
END
check_parameter($coord, name => 'pooler.pool_conn_keepalive', boot => 60, start => 2, min => 0, max => 2147483647,
	unit => 's', context => 'sighup', off => 1);

my $dn = start_datanode('dn1');
add_node($coord, 'dn1', $dn);
my $sizes = q{SELECT total, idle, leased FROM pooler.pools};
my $closed = 'SELECT closed_idle, closed_lifetime + closed_memory + closed_error FROM pooler.pools';
wait_until($coord, $sizes, '4|4|0', 'a new node: its minimum');
add_holders($coord, 40, 'dn1');
my $s = session($coord);
my $watch = session($coord);

# How many of these connections of the datanode are left.
sub left_of
{
	my %was = map { $_ => 1 } split /\n/, $_[0];
	return scalar grep { $was{$_} } split /\n/, backend_pids($dn);
}

# Acquires that many leases and gives them back; returns the datanode's connections before that.
sub grow
{
	my ($count) = @_;
	$s->ask('BEGIN');
	hold($s, 'dn1', 1, $count);
	my $pids = backend_pids($dn);
	$s->ask('COMMIT');
	return $pids;
}

# Forty go down to the minimum, not earlier than told and not further.
$s->ask('BEGIN');
hold($s, 'dn1', 1, 40);
is($watch->ask($sizes), '40|0|40', 'a pool grown to 40');
my $grown = backend_pids($dn);
is(scalar(split /\n/, $grown), 40, '... on the datanode too');
my $start = mark();
$s->ask('COMMIT');
my @seen = (40);
my ($first, $calm);
wait_for('a pool of four', sub {
		my $now = $watch->ask('SELECT total FROM pooler.pools');
		push @seen, $now if $now != $seen[-1];
		($first, $calm) = (time - $start, calm_since($start)) if $now < 40 && !defined $first;
		return $now <= 4;
	});
cmp_ok($first, '>=', 2, sprintf('nothing closes before the keepalive is over (%.2f s)', $first));
cmp_ok($calm, '<', 8, '... but soon after');
is($seen[-1], 4, 'it shrinks to exactly the minimum') or diag "@seen";
wait_for('the datanode', sub { backends($dn) == 4 });
is($watch->ask($closed), '36|0', '... 36 were closed as idle, none for another reason');
is(left_of($grown), 4, '... and what is left is of the forty');
rests($coord, $dn, 10, 'unused');

# One that is used all the time stays while the others close.
grow(12);
my $pid = q{SELECT p FROM pooler.query('dn1', 'SELECT pg_backend_pid()') AS r(p int)};
my %used;
wait_for('the others to close', sub { $used{ $s->ask($pid) } = 1; $watch->ask('SELECT total FROM pooler.pools') == 4 });
wait_until($coord, 'SELECT resetting FROM pooler.pools', '0', 'its last reset is through');
$used{ $s->ask($pid) } = 1;
is(scalar(keys %used), 1, 'a connection in use stays while the others close');

# -1: never.
my $before = backend_pids($dn);
set_conf($coord, 'pooler.pool_conn_keepalive' => -1);
grow(12);
wait_until($coord, $sizes, '12|12|0', 'twelve are idle');
is(left_of($before), 4, 'the reload has closed nothing');
rests($coord, $dn, 6, 'keepalive -1');

# A reload takes effect, and closes only what must go.
$before = backend_pids($dn);
my $connects = $watch->ask('SELECT connects FROM pooler.pools');
within(5, 'a shorter keepalive takes effect within a round', sub {
		set_conf($coord, 'pooler.pool_conn_keepalive' => '1s');
		wait_for('a pool of four', sub { $watch->ask($sizes) eq '4|4|0' }) });
wait_for('the datanode', sub { backends($dn) == 4 });
is(left_of($before), 4, '... the minimum was spared');
is($watch->ask('SELECT connects FROM pooler.pools'), $connects, '... and nothing was opened');
set_conf($coord, 'pooler.pool_conn_keepalive' => '1h');
grow(8);
stat_lines_pass($coord, 4);
is($watch->ask($sizes), '8|8|0', 'a longer one takes effect too');
set_conf($coord, 'pooler.pool_conn_keepalive' => 0);
wait_until($coord, $sizes, '4|4|0', '0: whatever is above the minimum closes');

$_->quit() for $s, $watch;
finish();
