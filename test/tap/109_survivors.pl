# What sessions hold or wait for when a pooler worker ends counts for the next one, no longer than it
# is there; no COMMIT, cancel or exit waits for a pooler worker that is stuck or gone.

use strict;
use warnings;
use PolarxPooler;
use Test::More;
use Time::HiRes qw(time usleep);

my $stopped;    # process to be continued, come what may
END { kill 'CONT', $stopped if $stopped; }

my $coord = start_coordinator(conf => <<'END');
pooler.min_pool_size = 0
pooler.min_free_size = 0
pooler.pooler_connect_timeout = 3s
END
my $dn = start_datanode('dn1');
add_node($coord, 'dn1', $dn, server => { max_pool_size => 2 });
my $one = q{SELECT pooler.exec('dn1', 'SELECT 1')};

# A session that is ended while it waits for a lease leaves nothing to be counted.
my @holders = map { session($coord) } 1 .. 2;
$_->ask("BEGIN; $one") for @holders;
my $waiter = session($coord);
$waiter->ask(q{SET pooler.queue_timeout = '60s'});
$waiter->tell($one);
wait_until($coord, 'SELECT sum(waiting) FROM pooler.pools', '1', 'a session waits');
my $pid = $waiter->pid;
value($coord, "SELECT pg_terminate_backend($pid)");
wait_until($coord, "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid", '0', '... and is ended');
$_->ask('COMMIT') for @holders;
is(value($coord, 'SELECT pooler.stop(), pooler.start()'), 't|t', 'the next pooler worker');
$_->ask("SET pooler.queue_timeout = '5s'; BEGIN; $one") for @holders;
is(value($coord, q{SELECT leased FROM pooler.pools}), '2', '... lends as many connections as before');
$_->ask('COMMIT; RESET pooler.queue_timeout') for @holders;

# The end of a survivor makes room at once, also for a request that does not wait.
my ($first, $second) = @holders;
my $busy = session($coord);
value($coord, q{ALTER SERVER dn1 OPTIONS (SET max_pool_size '1')});
my $refused = 0;
for my $round (1 .. 5)
{
	$first->ask("BEGIN; $one");
	my $worker = worker_pid($coord);
	value($coord, "SELECT pg_terminate_backend($worker)");
	worker_pid($coord, 'postgres', $worker);
	like($second->refused($one), qr/53300/, "round $round: what is still held counts");
	for (1 .. 3)
	{
		$busy->ask('SELECT count(*) FROM pooler.nodes');
		usleep(20_000);
	}
	$first->ask('COMMIT');
	$second->tell($one);
	my (undef, $err) = $second->hear();
	$refused++ if $err =~ /ERROR/;
	wait_until($coord, 'SELECT sum(leased) FROM pooler.pools', '0', '... nothing is held');
}
is($refused, 0, 'never refused once it is gone');

# A COMMIT with a kept lease, after a change of the catalog, while the pooler worker is stuck.
value($coord, q{ALTER SERVER dn1 OPTIONS (SET max_pool_size '3')});
$first->ask("SET pooler.persistent_datanode_connections = on; $one");
$first->ask(q{BEGIN; SELECT pooler.exec('dn1', 'CREATE TABLE committed()')});
value($coord, 'CREATE ROLE unrelated');
$stopped = worker_pid($coord);
kill 'STOP', $stopped;
within(8, 'the COMMIT ends after pooler_connect_timeout', sub { $first->ask('COMMIT') });
is(value($dn, q{SELECT count(*) FROM pg_class WHERE relname = 'committed'}), '1', '... and has committed');
kill 'CONT', $stopped;
undef $stopped;
is($first->ask($one), 'SELECT 1', '... work goes on');
$first->ask('RESET pooler.persistent_datanode_connections');

# Many leases of a worker that is gone end together, not one after the other.
add_node($coord, "dn$_", $dn) for 2 .. 8;
my $running = q{SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = 'SELECT pg_sleep(30)'};
for my $way (qw(cancel terminate))
{
	my $s = session($coord);
	$s->tell(q{SELECT * FROM pooler.exec_all('SELECT pg_sleep(30)')});
	wait_until($dn, $running, '8', 'statements run on eight nodes');
	my $worker = worker_pid($coord);
	value($coord, "SELECT pg_terminate_backend($worker)");
	wait_until($coord, "SELECT count(*) FROM pg_stat_activity WHERE pid = $worker", '0', 'the pooler worker is gone');
	my $id = $s->pid;
	within(4, "$way: the session waits once, not for each", sub {
			value($coord, "SELECT pg_${way}_backend($id)");
			if ($way eq 'cancel')
			{
				my (undef, $err) = $s->hear();
				like($err, qr/57014/, 'cancelled');
			}
			else
			{
				wait_for('its end', sub {
						value($coord, "SELECT count(*) FROM pg_stat_activity WHERE pid = $id") eq '0' });
			}
		});
	value($dn, q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(30)'});
	wait_until($dn, $running, '0', '... the datanode is idle');
}

finish();
