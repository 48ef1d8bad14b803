# pooler.min_free_size: idle connections in reserve while a pool is in use; none of them at rest.

use strict;
use warnings;
use PolarxParameter;
use PolarxPooler;
use Test::More;
use Time::HiRes qw(time usleep);

my $coord = start_coordinator(conf => <<'END');
pooler.pool_conn_keepalive = 60s
pooler.pool_maintenance_timeout = 1s
pooler.pool_print_stat_timeout = 1s
pooler.min_pool_size = 1
pooler.min_free_size = 4
pooler.max_pool_size = 50
END
check_parameter($coord, name => 'pooler.min_free_size', boot => 5, start => 4, min => 0, max => 65535,
	context => 'sighup');

my $dn = start_datanode('dn1');
add_node($coord, 'dn1', $dn);
add_holders($coord, 40, 'dn1');
my $s = session($coord);
my $watch = session($coord);
my $sizes = q{SELECT total, idle, leased FROM pooler.pools};
my $use = q{SELECT pooler.exec('dn1', 'SELECT 1')};

# The pool gets those sizes, and the datanode has as many connections.
sub settles_at
{
	my ($expected, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	wait_until($coord, $sizes, $expected, $name);
	my ($total) = split /\|/, $expected;
	wait_for("$total on the datanode", sub { backends($dn) == $total });
	return;
}

# Not in use: no reserve.
settles_at('1|1|0', 'a new pool has its minimum');
stat_lines_pass($coord, 2);
is($watch->ask($sizes), '1|1|0', '... and no reserve: it is not in use');

# In use.
$s->ask('BEGIN');
hold($s, 'dn1', 1, 3);
settles_at('7|4|3', 'in use: as many idle ones beside the leased');
hold($s, 'dn1', 4, 9);
settles_at('13|4|9', '... however many are leased');
set_conf($coord, 'pooler.min_free_size' => 6);
settles_at('15|6|9', 'raised by a reload, it takes effect at once');
value($coord, q{ALTER SERVER dn1 OPTIONS (ADD min_free_size '8')});
settles_at('17|8|9', 'a server\'s option stands above the parameter');
is($watch->ask('SELECT min_free FROM pooler.pools'), 8, '... pools.min_free shows it');
value($coord, q{ALTER SERVER dn1 OPTIONS (ADD max_pool_size '14')});
hold($s, 'dn1', 10, 11);
wait_until($coord, $sizes, '14|3|11', 'max_pool_size bounds the reserve');
hold($s, 'dn1', 12, 14);
settles_at('14|0|14', '... and all of it can be lent');
set_conf($coord, 'pooler.min_free_size' => 4);
value($coord, 'SELECT pooler.reload()');
value($coord, q{ALTER SERVER dn1 OPTIONS (DROP min_free_size, DROP max_pool_size)});

# At rest the reserve goes, also beside leases that are held on.
hold($s, 'dn1', 15, 15);
settles_at('19|4|15', 'the parameter holds again');
set_conf($coord, 'pooler.pool_conn_keepalive' => '2s');
settles_at('15|0|15', 'at rest: no reserve beside what is leased');
$s->ask('COMMIT');
settles_at('1|1|0', '... and down to the minimum');
$s->ask('BEGIN');
hold($s, 'dn1', 1, 40);
settles_at('44|4|40', 'a pool grown to 40');
$s->ask('COMMIT');
settles_at('1|1|0', '... shrinks to exactly the minimum, reserve and all');
rests($coord, $dn, 10, 'unused');

# While it is used now and then the reserve stays, round after round, and costs no connects.
$s->ask($use);
wait_for('the reserve', sub { $watch->ask('SELECT idle >= 4 FROM pooler.pools') eq 't' });
my $connects = $watch->ask('SELECT connects FROM pooler.pools');
my $start = time;
my $least = 100;
while (time - $start < 6)
{
	$s->ask($use);
	my $reserve = $watch->ask('SELECT idle + connecting + resetting FROM pooler.pools');
	$least = $reserve if $reserve < $least;
	usleep(200_000);
}
cmp_ok($least, '>=', 4, 'used for longer than the keepalive: the reserve is kept');
cmp_ok($watch->ask('SELECT connects FROM pooler.pools') - $connects, '<=', 1, '... without closing and opening');

$_->quit() for $s, $watch;
finish();
