# A lease that was held for a moment goes back without a message: the pooler finds it by itself, nobody
# who needs the connection misses it, and it comes back in order when its session has ended. The first
# request of a session costs no message more than the next.

use strict;
use warnings;
use PolarxPooler;
use PostgreSQL::Test::Utils;
use Test::More;

my $kTimes = 300;
my $kAcquireFrame = pack('N', 0x504C5802);
my $kReleaseFrame = pack('N', 0x504C5804);
my $stopped;    # process to be continued, come what may
END { kill 'CONT', $stopped if $stopped; }

my $coord = start_coordinator(conf => <<'END');
pooler.min_pool_size = 0
pooler.min_free_size = 0
END
my $dn = start_datanode('dn1');
add_node($coord, 'dn1', $dn);
add_node($coord, 'narrow', $dn, server => { max_pool_size => 1 });
value($coord, 'CREATE EXTENSION polarx_pooler_example');
my ($s, $watch) = map { session($coord) } 1 .. 2;
my $record = $coord->basedir . '/frames';

sub counted
{
	my ($node, $columns) = @_;
	return $watch->ask("SELECT concat_ws(' ', $columns) FROM pooler.pools WHERE node = '$node'");
}
sub releases { my ($of) = @_; my $count = () = slurp_file("$of.sent") =~ /\Q$kReleaseFrame/g; return $count; }

$s->ask("SELECT misuse_record('$record')");
my $loop = "SELECT count(example_address('dn1')) FROM generate_series(1, $kTimes)";
is($s->ask($loop), $kTimes, 'a C borrower acquires and releases over and over');
is(counted('dn1', 'sum(leased), sum(acquired)'), "0 $kTimes", '... the views show at once that nothing is leased');
cmp_ok(releases($record), '<', $kTimes / 2, '... most of the releases are not in what the session has sent');
wait_until($coord, q{SELECT sum(idle) = sum(total), sum(total) BETWEEN 1 AND 3 FROM pooler.pools WHERE node = 'dn1'},
	't|t', '... few connections serve, and all are idle in the end');

my $few = q{SELECT count(example_address('narrow')) FROM generate_series(1, 3)};
my $served = 0;
$served += $_->ask($few) for map { ($s, $watch) } 1 .. 20;
is($served, 120, 'two sessions take turns with one connection at once');
is(counted('narrow', 'sum(connects), sum(rejected), sum(closed_error)'), '1 0 0', '... which is always the same');

# Its session ends before the pooler has looked.
for my $round (1 .. 10)
{
	my $short = session($coord);
	$short->ask(q{SELECT example_address('narrow')});
	$short->quit();
}
is($s->ask($few), '3', 'sessions that end right afterwards');
is(counted('narrow', 'sum(connects), sum(closed_error)'), '1 0', '... leave the connection in order');

{
	my $short = session($coord);
	$short->ask("SELECT misuse_record('$record.short')");
	$short->ask(q{SET pooler.park_leases = on; SELECT pooler.exec('narrow', 'SELECT 1')});
	is($watch->ask(q{SELECT sum(parked) FROM pooler.pools WHERE node = 'narrow'}), '1', 'a session has parked it');
	is(releases("$record.short"), 0, '... without a message');
	$short->quit();
	is($s->ask($few), '3', '... and ends');
	is(releases("$record.short"), 0, '... without one: at no time was it in use, so that another request could be turned away');
	is(counted('narrow', 'sum(connects), sum(rejected), sum(closed_error)'), '1 0 0', '... it is in order');
}

for my $round (1 .. 5)
{
	my $victim = session($coord);
	my $pid = $victim->ask('SELECT pg_backend_pid()');
	$victim->tell(q{SELECT count(example_address('narrow')) FROM generate_series(1, 1000000)});
	wait_until($coord, "SELECT acquired > 0 FROM pooler.pools WHERE node = 'narrow'", 't', "round $round: in the middle of it");
	$watch->ask("SELECT pg_terminate_backend($pid, 5000)");
	is($s->ask($few), '3', '... terminated: others go on');
}
wait_until($coord, q{SELECT sum(leased), sum(total) FROM pooler.pools WHERE node = 'narrow'}, '0|1', 'nothing is lost');

# Nobody has answered the attach, and yet the acquire is out.
{
	my $fresh = session($coord);
	$fresh->ask("SELECT misuse_record('$record.fresh')");
	$stopped = worker_pid($coord);
	kill 'STOP', $stopped;
	$fresh->tell(q{SELECT pooler.exec('dn1', 'SELECT 1')});
	wait_for('the first acquire', sub { slurp_file("$record.fresh.sent") =~ /\Q$kAcquireFrame/ });
	is(-s "$record.fresh.received", 0, 'the first acquire of a session goes out with its attach');
	kill 'CONT', $stopped;
	$stopped = undef;
	is(join('', $fresh->hear()), 'SELECT 1', '... and is served');
	$fresh->quit();
}

finish();
