# Parked leases at their limits: more nodes than a session may have parked, requests for several nodes of
# which some are parked, and what a datanode says on a connection that nobody uses. A session never
# holds two connections to a node where one will do, and no statement fails for what is parked.

use strict;
use warnings;
use PolarxPooler;
use PolarxProxy;
use PostgreSQL::Test::Utils;
use Test::More;

my $coord = start_coordinator(park => 1, conf => <<'END');
pooler.min_pool_size = 0
pooler.min_free_size = 0
pooler.pool_conn_keepalive = -1
pooler.pool_session_context_check_gap = 2h
pooler.pool_session_max_lifetime = 2h
END
my $dn = start_datanode('dn1');
my $proxy = PolarxProxy->before($dn->port);
add_node($coord, 'far', $dn, server => { port => $proxy->port });
value($coord, 'CREATE EXTENSION polarx_pooler_example; CREATE ROLE h1 SUPERUSER');
my ($s, $watch) = map { session($coord) } 1 .. 2;

sub pid_on { return "SELECT p FROM pooler.query('$_[0]', 'SELECT pg_backend_pid()') AS r(p int)"; }
sub requests { return $watch->ask('SELECT client_request_conn_total FROM pooler.stats'); }

# One test: the session's statement takes so many requests to the pooler. Returns its answer.
sub asks
{
	my ($sql, $expected, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $before = requests();
	my $answer = $s->ask($sql);
	is(requests() - $before, $expected, $name);
	return $answer;
}

# One test: leased, parked and idle connections of all nodes become so many.
sub becomes
{
	my ($expected, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $now = '';
	eval { wait_for($name, sub { ($now = $watch->ask(
				q{SELECT concat_ws(' ', sum(leased), sum(parked), sum(idle)) FROM pooler.pools})) eq $expected }, 15) };
	return is($now, $expected, $name);
}

# --- what comes while nobody listens ----------------------------------------------------------------
sub message { my ($type, $body) = @_; return unpack 'H*', $type . pack('N', 4 + length $body) . $body; }
my $notice = message('N', "SNOTICE\0VNOTICE\0C00000\0Mmade up\0\0");
my $user = me();

# Waits until the bytes that the proxy has sent are there for the session to read.
sub arrived
{
	my $port = sprintf '%04X', $proxy->port;
	wait_for('bytes from the proxy', sub {
			slurp_file('/proc/net/tcp') =~ /^\s*\d+: [0-9A-F:]+ [0-9A-F]+:$port 01 [0-9A-F]+:(?!00000000)/m });
	return;
}
my @said = (
	[ 'an unknown byte', '78', 0 ], [ 'an unknown message', message('x', 'abc'), 0 ],
	[ 'half a notice', substr($notice, 0, 20), 0 ], [ 'a notice and an unknown byte', $notice . '78', 0 ],
	[ 'a message of an impossible length', '4e00000000', 0 ], [ 'an error', message('E', "SERROR\0C00000\0Mmade up\0\0"), 0 ],
	[ 'a notice', $notice, 1 ], [ 'two notices', $notice . $notice, 1 ], [ 'many notices', $notice x 500, 1 ]);
for my $keeps ('off', 'on')
{
	$s->ask("SET pooler.persistent_datanode_connections = $keeps");
	for my $row (@said)
	{
		my ($what, $bytes, $same) = @$row;
		my $pid = $s->ask(pid_on('far'));
		is($s->ask(pid_on('far')), $pid, ($keeps eq 'on' ? 'kept' : 'parked') . ': a connection');
		$proxy->strike($user, "say:$bytes:on");
		arrived();
		$s->tell(pid_on('far'));
		my ($next, $err) = $s->hear();
		$next = $err if $err =~ /ERROR/;
		is($next =~ /^\d+$/ ? $next eq $pid ? 'same' : 'another' : $next, $same ? 'same' : 'another',
			"... $what comes: the statement works, on the same or another one");
		$proxy->forward();
	}
}
$s->ask("RESET pooler.persistent_datanode_connections; BEGIN; " . pid_on('far'));
$proxy->strike($user, 'say:78:on');
arrived();
like($s->refused(pid_on('far')), qr/ERROR:  08006: /, 'an unknown byte in a transaction: the statement cannot but fail');
$s->ask('ROLLBACK');
like($s->ask(pid_on('far')), qr/^\d+$/, '... the next transaction works');
$s->ask('DISCARD ALL');
value($coord, 'DROP SERVER far CASCADE');
becomes('', 'the node is gone');

# --- more nodes than cells --------------------------------------------------------------------------
my ($kNodes, $kCells) = (20, 16);
my @nodes = map { sprintf 'n%02d', $_ } 1 .. $kNodes;
for my $node (@nodes)
{
	add_node($coord, $node, $dn);
	value($coord, "CREATE USER MAPPING FOR h1 SERVER $node OPTIONS (user '$user')");
}
my %pid = map { $_ => $s->ask(pid_on($_)) } @nodes;
becomes("0 $kCells " . ($kNodes - $kCells), 'one node after the other: those longest parked are given back');
is($watch->ask(q{SELECT string_agg(node, ' ' ORDER BY node) FROM pooler.pools WHERE parked > 0}),
	join(' ', @nodes[ $kNodes - $kCells .. $kNodes - 1 ]), '... the others are parked');
is(asks(pid_on($_), 0, "... and taken again: $_"), $pid{$_}, '... the same connection') for @nodes[ -3 .. -1 ];
asks(pid_on($nodes[0]), 1, 'a node that is not parked any more is asked for');
asks(pid_on($nodes[0]), 0, '... and then parked');
becomes("0 $kCells " . ($kNodes - $kCells), '... in place of another one');

# Those of another role count, too.
$s->ask("SELECT set_config('role', 'h1', false)");
$s->ask(pid_on($nodes[$_])) for 0, 1;
asks(pid_on($nodes[$_]), 0, "another role has room to park: $nodes[$_]") for 0, 1;
$s->ask("SELECT set_config('role', 'none', false)");
is($watch->ask('SELECT sum(parked) FROM pooler.pools'), $kCells, '... and no more are parked');
$s->ask('DISCARD ALL');

# All of them at once: what is parked is taken again, the rest asked for.
my $all = q{SELECT string_agg(p::text, ' ' ORDER BY n) FROM pooler.query_all('SELECT pg_backend_pid()') AS r(n name, p int)};
my @first = split ' ', $s->ask($all);
my $total = $watch->ask('SELECT sum(total) FROM pooler.pools');
for my $round (1 .. 3)
{
	my @again = split ' ', asks($all, 1, "all $kNodes nodes, round $round: one request");
	cmp_ok(scalar(grep { $first[$_] eq $again[$_] } 0 .. $#first), '>=', $kCells, '... of which sixteen have the same connection');
	is($watch->ask('SELECT sum(total) FROM pooler.pools'), $total, '... and no further connection is opened');
}
becomes("0 $kCells " . ($total - $kCells), '... sixteen are parked');
is($s->ask("BEGIN; $all; SELECT count(*) FROM pooler.query_all('SELECT 1') AS r(n name, v int); COMMIT") =~ s/.*\n//r, $kNodes,
	'... and all nodes work in a transaction');

# Some of them parked, one not, and one that cannot be had: nothing is lost.
value($coord, qq{SELECT pooler.clean('$nodes[-1]')});
asks($all, 1, 'one was closed: one request');
value($coord, qq{ALTER SERVER $nodes[-1] OPTIONS (ADD max_pool_size '1')});
$s->ask($all) for 1, 2;    # what was parked before the change is not taken again
my $holder = session($coord);
wait_for('the only connection', sub { eval { $holder->ask('ROLLBACK; BEGIN; ' . pid_on($nodes[-1])) } });
my $parked = $watch->ask('SELECT sum(parked) FROM pooler.pools');
like($s->refused($all), qr/ERROR:  53300: .*$nodes[-1]/, 'one cannot be had: an error');
cmp_ok($watch->ask('SELECT sum(parked) FROM pooler.pools'), '>=', $parked - 1, '... what is parked stays so');
is($watch->ask('SELECT sum(leased), sum(waiting) FROM pooler.pools'), '1|0', '... and nothing is held');
$holder->ask('COMMIT');
like($s->ask($all), qr/^\d+(?: \d+){@{[ $kNodes - 1 ]}}$/, '... and again all of them');
$holder->quit();

# While it waits for one, others may take what it has parked: it asks for all again.
$s->ask('DISCARD ALL; SET pooler.queue_timeout = \'20s\'');
value($coord, "DROP SERVER $_ CASCADE") for @nodes[ 2 .. $#nodes ];
my ($a, $b) = @nodes;
value($coord, qq{ALTER SERVER $_ OPTIONS (ADD max_pool_size '1')}) for $a, $b;
wait_until($coord, 'SELECT sum(total) <= 2 FROM pooler.pools', 't', 'two nodes, with one connection each');
$s->ask(pid_on($a));
$holder = session($coord);
$holder->ask('BEGIN; ' . pid_on($b));
$s->tell($all);
wait_until($coord, 'SELECT count(*) FROM pooler.sessions WHERE waiting_for IS NOT NULL', '1', 'one is parked, and it waits for the other');
like(within(10, '... meanwhile another session takes the one', sub { $watch->ask("SET pooler.queue_timeout = '20s'; " . pid_on($a)) }),
	qr/^\d+$/, '... and has it');
$holder->ask('COMMIT');
my ($out, $err) = $s->hear();
like("$out$err", qr/^\d+ \d+$/, '... then it has both');
becomes('0 2 0', '... and nobody holds or waits for anything');
$_->quit() for $holder;

# --- memory -----------------------------------------------------------------------------------------
sub memory { return slurp_file('/proc/' . $s->pid . '/status') =~ /^VmRSS:\s+(\d+) kB/m ? $1 / 1024 : die 'no process'; }
my $kLarge = 64;    # MB
my $large = "SELECT repeat('x', $kLarge * 1024 * 1024)";
$s->ask("SELECT example_leave_open('$a', 'done', 'SELECT 1')") for 1 .. 3;
my $before = memory();
$s->ask("SELECT example_leave_open('$a', 'done', \$\$$large\$\$)");
cmp_ok(memory() - $before, '<', $kLarge / 2, 'a borrower has read a large row: its memory is not kept');
$s->ask("SELECT parking_park('$a', \$\$$large\$\$, 'done')");
$s->ask('DISCARD ALL');
cmp_ok(memory() - $before, '<', $kLarge / 2, '... nor beyond the parking of its lease');
my $sql_large = "SELECT length(v) FROM pooler.query('$a', \$\$$large\$\$) AS r(v text)";
is($s->ask($sql_large), $kLarge * 1024 * 1024, 'a statement has read one');
cmp_ok(memory() - $before, '<', $kLarge / 2, '... likewise');

$_->quit() for $s, $watch;
finish();
