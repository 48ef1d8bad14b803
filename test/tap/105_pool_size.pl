# How large pools are: minima, reserve, limit, keepalive, lifetime.

use strict;
use warnings;
use PolarxPooler;
use Test::More;

my $coord = start_coordinator(conf => <<'END');
pooler.min_pool_size = 3
pooler.min_free_size = 2
pooler.max_pool_size = 10
pooler.pool_conn_keepalive = 2s
pooler.pool_maintenance_timeout = 1s
pooler.pool_print_stat_timeout = 1s
END
my $dn = start_datanode('dn1');
add_node($coord, 'dn1', $dn);
my $sizes = q{SELECT total, idle, leased FROM pooler.pools WHERE node = 'dn1'};
my $take = q{BEGIN; SELECT pooler.exec('dn1', 'SELECT 1')};

sub rounds_pass
{
	my ($rounds) = @_;
	my $offset = log_offset($coord);
	wait_for("$rounds stat lines",
		sub { (() = log_since($coord, $offset) =~ /\[pooler stat\] database=postgres node=dn1/g) > $rounds });
	return;
}

# Minima.
wait_until($coord, $sizes, '3|3|0', 'a new node: the minimum is opened without a request');
is(backends($dn), '3', '... on the datanode');
$coord->restart();
wait_until($coord, $sizes, '3|3|0', 'after a restart likewise');

# Nothing is opened or closed at rest.
my $pids = backend_pids($dn);
rounds_pass(4);
is(backend_pids($dn), $pids, 'at rest no connection is closed or opened');
is(value($coord, 'SELECT sum(connects), sum(closed_idle) FROM pooler.pools'), '3|0', '... say the counters');

# Reserve, and the limit.
my @holders = map { session($coord) } 1 .. 10;
$holders[$_]->ask($take) for 0 .. 3;
wait_until($coord, $sizes, '6|2|4', 'in use: min_free_size more than are leased');
$holders[$_]->ask($take) for 4 .. 8;
wait_until($coord, $sizes, '10|1|9', 'max_pool_size bounds the reserve');
$holders[9]->ask($take);
fails_with($coord, $take, '53300', qr/"dn1" is full/, 'max_pool_size connections are leased');
is(backends($dn), '10', '... no more than that exist');

# Back to the minimum.
$_->ask('COMMIT') for @holders;
wait_until($coord, $sizes, '3|3|0', 'after the keepalive it is back to the minimum');
$pids = backend_pids($dn);
is(scalar(split /\n/, $pids), 3, '... on the datanode too');
my $counters = value($coord, 'SELECT connects, closed_idle, closed_error FROM pooler.pools');
rounds_pass(4);
is(backend_pids($dn), $pids, '... and stays there: the same connections');
is(value($coord, 'SELECT connects, closed_idle, closed_error FROM pooler.pools'), $counters, '... say the counters');
like($counters, qr/\|7\|0$/, '... seven were closed as idle, none for an error');

# A growing pool keeps nobody waiting for more than its own connection.
$holders[$_]->tell($take) for 0 .. 7;
my @errors = grep { $_ ne '' } map { ($holders[$_]->hear())[1] } 0 .. 7;
is_deeply(\@errors, [], 'eight sessions at once, three connections: all are served');
$_->quit() for @holders;
wait_until($coord, $sizes, '3|3|0', '... and back again');

# Settings at run time, and of a server.
set_conf($coord, 'pooler.min_pool_size' => 5);
wait_until($coord, $sizes, '5|5|0', 'min_pool_size is raised by a reload');
value($coord, q{ALTER SERVER dn1 OPTIONS (ADD min_pool_size '1', ADD min_free_size '0', ADD max_pool_size '2')});
wait_until($coord, 'SELECT max_size, min_size, min_free FROM pooler.pools', '2|1|0', 'limits of the server come first');
wait_until($coord, $sizes, '1|1|0', '... and are kept');
value($coord, q{ALTER SERVER dn1 OPTIONS (DROP min_pool_size, DROP min_free_size, DROP max_pool_size)});
wait_until($coord, $sizes, '5|5|0', '... and gone again');
set_conf($coord, 'pooler.min_pool_size' => 2, 'pooler.pool_conn_keepalive' => '-1');
my $s = session($coord);
$s->ask("$take; COMMIT");
rounds_pass(3);
is(value($coord, $sizes), '5|5|0', 'keepalive -1: nothing is closed');
set_conf($coord, 'pooler.pool_conn_keepalive' => '1s');
wait_until($coord, $sizes, '2|2|0', 'keepalive 1s: it is');

# Lifetime.
my $pid = $s->ask(q{BEGIN; SELECT p FROM pooler.query('dn1', 'SELECT pg_backend_pid()') AS r(p int)});
set_conf($coord, 'pooler.pool_session_max_lifetime' => '2s');
($pids = backend_pids($dn)) =~ s/\n/,/g;
wait_until($dn, "SELECT count(*) FROM pg_stat_activity WHERE pid IN ($pids) AND pid <> $pid", '0',
	'connections that are too old are replaced while idle');
is(value($dn, "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid"), '1', '... not while leased');
$s->ask('COMMIT');
wait_until($dn, "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid", '0', '... but at release');
wait_until($coord, q{SELECT closed_lifetime >= 2 AND total >= 2 AND closed_error = 0 FROM pooler.pools}, 't',
	'... counted as such, with the minimum kept');

# Several pools of one node: minima take half of the node, and requests come first.
set_conf($coord, 'pooler.pool_session_max_lifetime' => undef, 'pooler.min_pool_size' => 5, 'pooler.max_pool_size' => 8);
value($dn, "CREATE ROLE r$_ LOGIN SUPERUSER; ") for 1 .. 3;
value($coord, "CREATE ROLE r$_ LOGIN SUPERUSER; CREATE USER MAPPING FOR r$_ SERVER dn1 OPTIONS (user 'r$_')") for 1 .. 3;
wait_until($coord, 'SELECT count(*), sum(total) <= 4 FROM pooler.pools', '4|t', 'pools of four roles: half of the node is opened before use');
my @roles = map { session($coord, user => "r$_") } 1 .. 3, 1 .. 3, 1, 2;
my @failed = grep { /ERROR/ } map { $_->tell($take); ($_->hear())[1] } @roles;
is_deeply(\@failed, [], 'all of the node serves those who ask, whoever\'s idle connections there were');
cmp_ok(backends($dn), '<=', 8, '... within the limit');
$_->quit() for @roles, $s;

finish();
