# A connect that does not end fails at pooler.pooler_connect_timeout and holds nobody else up.
# (That a name lookup does the same is for the unit tests of the engine.)

use strict;
use warnings;
use List::Util qw(max);
use PolarxParameter;
use PolarxPooler;
use PolarxProxy qw(hanging_port);
use Test::More;
use Time::HiRes qw(time);

my $limit = 2;
my $coord = start_coordinator(conf => <<"END");
pooler.pooler_connect_timeout = ${limit}s
pooler.min_pool_size = 0
pooler.min_free_size = 0
END
check_parameter($coord, name => 'pooler.pooler_connect_timeout', boot => 10, start => $limit,
	min => 1, max => 3600, unit => 's', context => 'sighup');

my $dn = start_datanode('dn');
my $proxy = PolarxProxy->before($dn->port);
my ($silent_port, $silent) = silent_port();
my ($hanging_port, $hanging) = hanging_port();
my %port = (good => $dn->port, proxied => $proxy->port, silent => $silent_port, hanging => $hanging_port);

# Each time another node, so that no earlier failure is remembered.
my $nodes = 0;
sub node_at
{
	my ($where) = @_;
	my $node = $where . $nodes++;
	add_node($coord, $node, $dn, server => { port => $port{$where} });
	return $node;
}
sub one { return "SELECT pooler.exec('$_[0]', 'SELECT 1')"; }

# Two tests: the answer is the time-out's error, and it took the time-out, $since being when it was asked.
sub timed_out
{
	my ($session, $node, $since, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my (undef, $err) = $session->hear();
	my $took = time - $since;
	like($err, qr/ERROR:  08001: could not connect to datanode "$node": pooler\.pooler_connect_timeout \($limit s\)/,
		"$name: 08001 names node, parameter and value");
	ok($took > $limit - 0.05 && calm_since($since) < $limit + 1, sprintf('... at the time-out (%.2f s)', $took));
	return;
}

add_node($coord, 'good', $dn, server => { port => $port{good} });
my $worker_session = session($coord);
my $asker = session($coord);

for my $threads (2, 1)
{
	if ($threads == 1)
	{
		$_->quit() for $worker_session, $asker;
		set_conf($coord, 'pooler.pooler_scale_factor' => 1);
		$coord->restart();
		worker_pid($coord);
		($worker_session, $asker) = (session($coord), session($coord));
	}
	is(value($coord, 'SELECT threads FROM pooler.workers'), $threads, "worker threads: $threads");
	$asker->ask(one('good'));
	my (undef, $usual) = meanwhile($worker_session, 'good', sub { $_[0] >= 20 });
	for my $where (qw(silent hanging))
	{
		my $node = node_at($where);
		my $connects = value($coord, q{SELECT connects FROM pooler.pools WHERE node = 'good'});
		my $start = mark();
		$asker->tell(one($node));
		my ($count, $slowest) = meanwhile($worker_session, 'good', sub { $asker->answered() });
		timed_out($asker, $node, $start, "$threads threads, $where");
		cmp_ok($count, '>=', 10, "... the other node's session worked on meanwhile");
		# A thread that waits would have kept it waiting for the whole time-out.
		cmp_ok($slowest, '<', max(0.5, 5 * $usual), sprintf('... as fast as before (slowest %.3f s, before %.3f s)',
				$slowest, $usual));
		cmp_ok(value($coord, q{SELECT connects FROM pooler.pools WHERE node = 'good'}) - $connects, '>=', 3,
			'... on newly opened connections too');
		is(value($coord, "SELECT connects, connect_failures > 0, total, waiting FROM pooler.pools WHERE node = '$node'"),
			'0|t|0|0', '... the pool counts the failure and keeps nothing');
		like(value($coord, "SELECT health, last_error FROM pooler.nodes WHERE node = '$node'"),
			qr/^down\|.*pooler_connect_timeout/, '... and the node shows it');
	}
}

# Many wait at once: more than connects are tried at a time.
my $node = node_at('silent');
my @waiting = map { session($coord) } 1 .. 10;
my $start = mark();
$_->tell(one($node)) for @waiting;
wait_until($coord, "SELECT waiting FROM pooler.pools WHERE node = '$node'", '10', 'ten wait for one node');
my $named = grep { (($_->hear())[1]) =~ /ERROR:  08001: .*"$node": pooler\.pooler_connect_timeout/ } @waiting;
my $took = time - $start;
is($named, 10, '... each is told the time-out');
ok($took > $limit - 0.05 && calm_since($start) < $limit + 1.5, sprintf('... all at once (%.2f s)', $took));
$_->quit() for @waiting;

# A datanode whose every answer comes in time, but all of them together do not.
$proxy->delay(0.1);
$node = node_at('proxied');
is($asker->ask(one($node)), 'SELECT 1', 'a slow datanode within the time-out');
$proxy->delay(0.6 * $limit);
$node = node_at('proxied');
$start = mark();
$asker->tell(one($node));
timed_out($asker, $node, $start, 'too slow only in sum');
$proxy->forward();
wait_until($coord, one($node), 'SELECT 1', '... and once it is fast it serves');

# Part of the startup's answer, and then silence.
$proxy->freeze();
$node = node_at('proxied');
$start = mark();
$asker->tell(one($node));
timed_out($asker, $node, $start, 'silent after the connect');
$proxy->forward();

# What fails at once is told at once.
$proxy->refuse();
$node = node_at('proxied');
within(0.7, 'a connect that is refused', sub {
		fails_with($coord, one($node), '08001', qr/"$node".*refused/, '... does not take the time-out') });
$proxy->forward();
$proxy->close_after(5);
$node = node_at('proxied');
within(0.7, 'a connection that is closed during the startup', sub {
		fails_with($coord, one($node), '08001', qr/"$node"/, '... neither') });
$proxy->forward();

# Changed by reload, with connections that stay.
$asker->ask(one('good'));
my $pids = backend_pids($dn);
for my $to (1, 3)
{
	$limit = $to;
	set_conf($coord, 'pooler.pooler_connect_timeout' => "${to}s");
	value($coord, q{SELECT pooler.reload()});
	$node = node_at(q{silent});
	$start = mark();
	$asker->tell(one($node));
	timed_out($asker, $node, $start, "changed to $to s by a reload");
}
is(backend_pids($dn), $pids, '... no connection was lost by that');

$_->quit() for $worker_session, $asker;
finish();
