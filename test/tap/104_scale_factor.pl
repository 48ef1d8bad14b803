# The main road with one worker thread, and with eight.

use strict;
use warnings;
use PolarxPooler;
use PostgreSQL::Test::Utils;
use Test::More;

# The name makes the data directory's path longer than the address of a Unix socket can be.
my $coord = start_coordinator(name => 'coordinator' . '_long' x 20);
my %dn = map { $_ => start_datanode($_) } qw(dn1 dn2);
add_node($coord, $_, $dn{$_}, server => { max_pool_size => 4 }) for sort keys %dn;
value($_, 'CREATE TABLE account (id int PRIMARY KEY, amount int);'
	  . 'INSERT INTO account SELECT g, 0 FROM generate_series(1, 50) g') for values %dn;
my $transfer = $coord->basedir . '/transfer.sql';
append_to_file($transfer, q{
\set a random(1, 50)
\set b random(1, 50)
BEGIN;
SELECT pooler.exec('dn1', 'UPDATE account SET amount = amount - 1 WHERE id = $1', ':a');
SELECT pooler.exec('dn2', 'UPDATE account SET amount = amount + 1 WHERE id = $1', ':b');
END;
});

for my $factor (1, 8)
{
	set_conf($coord, 'pooler.pooler_scale_factor' => $factor);
	$coord->restart();
	my $worker = worker_pid($coord);
	wait_until($coord, q{SELECT threads FROM pooler.workers}, $factor, "factor $factor: threads");
	my $threads = grep { slurp_file($_) =~ /^pooler-w\d+$/ } glob "/proc/$worker/task/*/comm";
	is($threads, $factor, '... in the process');
	wait_until($coord, q{SELECT bool_and(idle > 0) AND count(*) = 2 FROM pooler.pools}, 't', '... warm pools');
	is(value($coord, q{SELECT sum(n) FROM pooler.query_all('SELECT count(*) FROM account') AS r(node name, n int)}),
		'100', '... both nodes answer');
	my $s = session($coord);
	$s->ask(q{BEGIN; SELECT * FROM pooler.exec_all('UPDATE account SET amount = 99'); ROLLBACK});
	is(value($coord, q{SELECT bool_and(n < 99) FROM pooler.query_all('SELECT max(amount) FROM account') AS r(node name, n int)}),
		't', '... ROLLBACK');
	like($s->refused(q{SELECT pooler.exec('dn1', 'SELECT 1/0')}), qr/22012/, '... an error');
	like($s->refused(q{SET statement_timeout = '100ms'; SELECT pooler.exec('dn2', 'SELECT pg_sleep(60)')}), qr/57014/, '... a cancel');
	my $before = value($dn{dn2}, 'SELECT sum(amount) FROM account');
	{
		local $ENV{PGOPTIONS} = '-c pooler.queue_timeout=20s';
		$coord->command_ok([ 'pgbench', '-n', '-C', '-c', 16, '-j', 2, '-t', 15, '-f', $transfer, 'postgres' ],
			'... sixteen clients transfer, with a new session each time, over four connections a node');
	}
	is(value($dn{dn2}, 'SELECT sum(amount) FROM account') - $before, 240, '... each of them once');
	is(value($dn{dn1}, 'SELECT -sum(amount) FROM account'), value($dn{dn2}, 'SELECT sum(amount) FROM account'),
		'... on both nodes');
	cmp_ok(backends($dn{$_}), '<=', 4, "... within the limit of $_") for sort keys %dn;
	$dn{dn1}->restart();
	is(value($coord, q{SELECT count(*) FROM pooler.exec_all('SELECT 1')}), '2', '... after a datanode\'s restart');
	$s->quit();
	is(worker_pid($coord), $worker, '... all with one worker process');
	wait_until($coord, 'SELECT sum(leased) + sum(waiting) FROM pooler.pools', '0', '... nothing is left over');
}

finish();
