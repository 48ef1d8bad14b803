# pooler.min_pool_size: what a pool has at least, without waiting for a request; several pools share
# half of the node.

use strict;
use warnings;
use PolarxParameter;
use PolarxPooler;
use Test::More;

my $coord = start_coordinator(conf => <<'END');
pooler.pool_conn_keepalive = 1s
pooler.pool_maintenance_timeout = 1s
pooler.pool_print_stat_timeout = 1s
pooler.min_pool_size = 3
pooler.min_free_size = 0
END
check_parameter($coord, name => 'pooler.min_pool_size', boot => 5, start => 3, min => 0, max => 65535,
	context => 'sighup');

my $dn = start_datanode('dn1', roles => { map { ("r$_" => undef) } 1 .. 4 });
add_node($coord, 'dn1', $dn);
my $watch = session($coord);
my $sizes = q{SELECT total, idle, leased FROM pooler.pools WHERE node = 'dn1'};
my $connects = 'SELECT sum(connects), sum(closed_idle), sum(closed_error) FROM pooler.pools';

# The pool gets that size, and the datanode has as many; returns its process ids.
sub settles_at
{
	my ($total, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	wait_until($coord, $sizes, "$total|$total|0", $name);
	wait_for("$total on the datanode", sub { backends($dn) == $total });
	return backend_pids($dn);
}

# How many of the first list's lines are in the second.
sub common
{
	my %in = map { $_ => 1 } split /\n/, $_[1];
	return scalar grep { $in{$_} } split /\n/, $_[0];
}

# Opened, and brought back, without a request.
my $pids = settles_at(3, 'a new node: the minimum is opened without a request');
is($watch->ask('SELECT sum(leases), count(*) FROM pooler.connections'), '0|3', '... none was ever lent');
$coord->restart();
$watch = session($coord);
$pids = settles_at(3, 'after a restart likewise');
value($dn, 'SELECT pg_terminate_backend(' . (split /\n/, $pids)[0] . ')');
wait_for('it to be gone', sub { common($pids, backend_pids($dn)) == 2 });
my $refilled = settles_at(3, 'one that is lost is replaced without a request');
is(common($pids, $refilled), 2, '... the others stay');
value($dn, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'polarx%'");
wait_for('all to be gone', sub { common($refilled, backend_pids($dn)) == 0 });
$pids = settles_at(3, 'all are');

# By reload, up, down, and off.
set_conf($coord, 'pooler.min_pool_size' => 6);
my $more = settles_at(6, 'raised by a reload');
is(common($pids, $more), 3, '... nothing is lost by that');
set_conf($coord, 'pooler.min_pool_size' => 2);
$pids = settles_at(2, 'lowered by a reload, after the keepalive');
is(common($pids, $more), 2, '... what is left was there before');
set_conf($coord, 'pooler.min_pool_size' => 0);
settles_at(0, '0: nothing is kept');
$watch->ask(q{BEGIN; SELECT pooler.exec('dn1', 'SELECT 1')});
is($watch->ask('SELECT total FROM pooler.pools'), 1, '... one that a request needs is opened');
$watch->ask('COMMIT');
settles_at(0, '... and closed after it');

# The server's own option stands above the parameter, and takes effect by itself.
value($coord, q{ALTER SERVER dn1 OPTIONS (ADD min_pool_size '4')});
$pids = settles_at(4, 'a server\'s option stands above the parameter');
is($watch->ask('SELECT min_size FROM pooler.pools'), 4, '... pools.min_size shows it');
value($coord, q{ALTER SERVER dn1 OPTIONS (SET min_pool_size '5')});
$more = settles_at(5, '... and may change');
is(common($pids, $more), 4, '... without a loss');
set_conf($coord, 'pooler.min_pool_size' => 7);
stat_lines_pass($coord, 2);
is(settles_at(5, '... whatever the parameter says'), $more, '... the same connections');
value($coord, q{ALTER SERVER dn1 OPTIONS (SET min_pool_size '0')});
settles_at(0, '... 0 too');
value($coord, q{ALTER SERVER dn1 OPTIONS (DROP min_pool_size)});
settles_at(7, 'without it the parameter holds');

# Of four pools that ask for twenty on a node of twelve half of the node is opened, round-robin.
value($coord, q{ALTER SERVER dn1 OPTIONS (ADD max_pool_size '12')});
set_conf($coord, 'pooler.min_pool_size' => 5);
settles_at(5, 'one pool');
value($coord, join ';', map {
	"CREATE ROLE r$_ SUPERUSER LOGIN; CREATE USER MAPPING FOR r$_ SERVER dn1"
	  . ($_ < 4 ? " OPTIONS (user 'r$_')" : '') } 1 .. 4);    # without an option it is the role's own name
$coord->restart();
$watch = session($coord);
wait_until($coord, 'SELECT sum(total), sum(idle), count(*) FROM pooler.pools', '6|6|5',
	'five pools of one node: half of it is opened before use');
is($watch->ask('SELECT string_agg(total::text, \' \' ORDER BY total) FROM pooler.pools'), '1 1 1 1 2', '... round-robin');
rests($coord, $dn, 10, 'minima larger than the node');

# All of the node serves requests, and that settles too.
my @sessions = map { session($coord, user => "r$_") } 1 .. 4, 1 .. 4, 1 .. 4;
$_->tell(q{BEGIN; SELECT pooler.exec('dn1', 'SELECT 1')}) for @sessions;
is_deeply([ grep { $_ ne '' } map { ($_->hear())[1] } @sessions ], [], 'twelve sessions at once, of four roles, have all of it');
is(backends($dn), 12, '... minima make room for requests');
is($watch->ask(q{SELECT total FROM pooler.pools WHERE NOT remote_user LIKE 'r_'}), 0, '... the fifth pool\'s');
$_->ask('COMMIT') for @sessions;
wait_until($coord, 'SELECT sum(total) = sum(idle) AND max(total) <= 5 FROM pooler.pools', 't', 'at rest again');
stat_lines_pass($coord, 4);
is($watch->ask('SELECT bool_and(total <= 5), sum(total) BETWEEN 6 AND 12 FROM pooler.pools'), 't|t', 'none above its minimum');
rests($coord, $dn, 4, 'settled after use');

$_->quit() for @sessions, $watch;
finish();
