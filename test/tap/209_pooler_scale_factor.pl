# pooler.pooler_scale_factor worker threads share the connections, those of each node as well; the
# main road with one of them, and with eight.

use strict;
use warnings;
use PolarxParameter;
use PolarxPooler;
use PostgreSQL::Test::Utils;
use Test::More;

# The name makes the data directory's path longer than the address of a Unix socket can be.
my $coord = start_coordinator(name => 'coordinator' . '_long' x 20);
check_parameter($coord, name => 'pooler.pooler_scale_factor', boot => 2, min => 1, max => 64,
	context => 'postmaster');
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


# How many connections to that port each epoll set of the process watches, as the kernel tells:
# only the sets that have some, and every worker thread has one set.
sub watched
{
	my ($pid, $port) = @_;
	my %remote;    # inode of a socket => the port that it leads to
	for (split /\n/, slurp_file("/proc/$pid/net/tcp"))
	{
		my @field = split;
		$remote{ $field[9] } = hex $1 if $field[2] =~ /:([0-9A-F]{4})$/;
	}
	my %link = map { m{(\d+)$} => readlink($_) // '' } glob "/proc/$pid/fd/*";
	my @counts;
	for my $set (grep { $link{$_} eq 'anon_inode:[eventpoll]' } keys %link)
	{
		my @members = slurp_file("/proc/$pid/fdinfo/$set") =~ /^tfd:\s*(\d+)/mg;
		my $count = grep { ($link{$_} // '') =~ /^socket:\[(\d+)\]$/ && ($remote{$1} // 0) == $port } @members;
		push @counts, $count if $count;
	}
	return join ' ', sort @counts;
}

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

# Twelve connections of each node, and nodes with one connection each.
my @small = map { "small$_" } 1 .. 8;
add_node($coord, $_, $dn{dn1}, server => { min_pool_size => 1, min_free_size => 0, application_name => 'small' }) for @small;
value($coord, "ALTER SERVER $_ OPTIONS (SET max_pool_size '24', ADD min_pool_size '12', ADD min_free_size '0')")
  for sort keys %dn;
for my $factor (3, 2)
{
	set_conf($coord, 'pooler.pooler_scale_factor' => $factor);
	$coord->restart();
	my $worker = worker_pid($coord);
	wait_until($coord, 'SELECT sum(idle), sum(idle) = sum(total) FROM pooler.pools', '32|t', "factor $factor: all are open");
	is(value($coord, 'SELECT string_agg(DISTINCT thread::text, $$ $$ ORDER BY thread::text) FROM pooler.connections'),
		join(' ', 0 .. $factor - 1), '... on all threads');
	for my $node (sort keys %dn)
	{
		is(value($coord, "SELECT string_agg(n::text, ' ') FROM (SELECT count(*) AS n FROM pooler.connections
			WHERE node = '$node' GROUP BY thread) c"), join(' ', (12 / $factor) x $factor), "... those of $node in equal shares");
	}
	is(watched($worker, $dn{dn2}->port), join(' ', (12 / $factor) x $factor), '... so it is in the process too');
	my $shares = value($coord, q{SELECT string_agg(n::text, ' ' ORDER BY n) FROM (SELECT count(*) AS n
		FROM pooler.connections WHERE node LIKE 'small%' GROUP BY thread) c});
	is(scalar(split ' ', $shares), $factor, "... nodes with one connection each share all threads ($shares)");

	# Those that are opened later, too.
	my @sessions = map { session($coord) } 1 .. 24;
	$_->ask(q{BEGIN; SELECT pooler.exec('dn1', 'SELECT 1')}) for @sessions;
	is(value($coord, q{SELECT string_agg(n::text, ' ') FROM (SELECT count(*) AS n FROM pooler.connections
		WHERE node = 'dn1' AND state = 'leased' GROUP BY thread) c}), join(' ', (24 / $factor) x $factor),
		'... and so do those that sessions have opened');
	$_->quit() for @sessions;
}

finish();
