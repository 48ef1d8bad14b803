# A session that dies without a word takes the whole coordinator through a restart: all comes back.

use strict;
use warnings;
use PolarxPooler;
use Test::More;

my $coord = start_coordinator(conf => "restart_after_crash = on\n");
my $dn = start_datanode('dn1');
add_node($coord, 'dn1', $dn);
my $running = q{SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND state = 'active'};

for my $victim (qw(session worker))
{
	my $worker = worker_pid($coord);
	my $s = session($coord);
	$s->tell(q{SELECT pooler.exec('dn1', 'SELECT pg_sleep(60)')});
	wait_until($dn, $running, '1', "$victim: a statement runs on the datanode");
	my $old = backend_pids($dn);
	kill 'KILL', $victim eq 'session' ? $s->pid : $worker;
	wait_until($coord, q{SELECT pooler.exec('dn1', 'SELECT 1')}, 'SELECT 1', "$victim: killed, the pool works again");
	isnt(worker_pid($coord), $worker, '... with another worker');
	wait_until($dn, $running, '0', '... the statement has ended');
	$old =~ s/\n/,/g;
	wait_until($dn, "SELECT count(*) FROM pg_stat_activity WHERE pid IN ($old)", '0', '... and so have the old connections');
	is(value($coord, 'SELECT leased, waiting FROM pooler.pools'), '0|0', '... nothing is left over');
	eval { $s->hear() };
}

finish(crashed => $coord);
