# A coordinator in hot standby: its pooler worker runs, reads work and writes are refused; promoted, it
# serves writes.

use strict;
use warnings;
use PolarxPooler;
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = start_coordinator(
	name => 'primary',
	conf => "wal_level = replica\nmax_wal_senders = 4\nhot_standby = on\npooler.min_pool_size = 1\npooler.min_free_size = 0\n");
my %dn = map { $_ => start_datanode($_) } qw(dn1 dn2);
for my $name (sort keys %dn)
{
	add_node($primary, $name, $dn{$name});
	value($dn{$name}, 'CREATE TABLE t (id int); INSERT INTO t VALUES (1)');
}
value($primary, 'CREATE TABLE here (id int)');

$primary->backup('copy');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'copy', has_streaming => 1);
$standby->start();
is(value($standby, 'SELECT pg_is_in_recovery()'), 't', 'a standby');

# The worker runs there, with connections of its own.
my $worker = worker_pid($standby);
wait_until($standby, 'SELECT datname, state FROM pooler.workers', 'postgres|ready', 'its pooler worker is ready');
isnt($worker, worker_pid($primary), '... not that of the primary');
wait_until($standby, 'SELECT node, idle > 0 FROM pooler.pools ORDER BY node', "dn1|t\ndn2|t", '... and opens its minimum');

# Reads.
my $s = session($standby);
my $read = q{SELECT n FROM pooler.query('dn1', 'SELECT count(*) FROM t') AS r(n int)};
is($s->ask($read), '1', 'query');
is($s->ask(q{SELECT node, n FROM pooler.query_all('SELECT count(*) FROM t') AS r(node name, n int)}), "dn1|1\ndn2|1", 'query_all');
is($s->ask(q{SELECT n FROM pooler.query('dn1', 'SELECT $1::int + 1', '41') AS r(n int)}), '42', '... with a parameter');
is($s->ask("BEGIN ISOLATION LEVEL REPEATABLE READ; SAVEPOINT a; $read; ROLLBACK TO a; $read; COMMIT"), "1\n1", '... in a transaction');
is($s->ask(q{SELECT v FROM pooler.query('dn1', 'SHOW transaction_read_only') AS r(v text)}), 'on', 'READ ONLY on the node, too');
is($s->ask('SELECT bool_and(ok) FROM pooler.ping()'), 't', 'ping');

# Writes.
my $insert = q{SELECT pooler.exec('dn1', 'INSERT INTO t VALUES (2)')};
for my $row ([ exec => $insert ],
	[ query => q{SELECT * FROM pooler.query('dn1', 'INSERT INTO t VALUES (2) RETURNING id') AS r(id int)} ],
	[ exec_all => q{SELECT * FROM pooler.exec_all('DELETE FROM t')} ],
	[ 'DDL' => q{SELECT pooler.exec('dn1', 'CREATE TABLE u ()')} ],
	[ exec_autocommit => q{SELECT pooler.exec_autocommit('dn1', 'INSERT INTO t VALUES (2)')} ],
	[ exec_all_autocommit => q{SELECT * FROM pooler.exec_all_autocommit('VACUUM t')} ],
	[ 'a local table' => 'INSERT INTO here VALUES (1)' ])
{
	my ($name, $sql) = @$row;
	like($s->refused($sql), qr/ERROR:  25006: /, "$name: refused with 25006");
	is($s->ask($read), '1', '... and the session reads on');
}
like($s->refused('BEGIN READ WRITE'), qr/ERROR:  .*recovery/, 'READ WRITE: not during recovery');
$s->ask('ROLLBACK');

# What changes on the primary reaches the standby's pooler by replay: settings of a server, a new node.
value($primary, q{ALTER SERVER dn2 OPTIONS (ADD max_pool_size '20')});
wait_until($standby, q{SELECT max_size FROM pooler.pools WHERE node = 'dn2'}, '20', 'ALTER SERVER on the primary');
add_node($primary, 'dn3', $dn{dn1});
wait_until($standby, q{SELECT pooler.exec('dn3', 'SELECT 1')}, 'SELECT 1', 'a node that is new on the primary');
value($primary, 'DROP SERVER dn3 CASCADE');
wait_until($standby, q{SELECT count(*) FROM pooler.pools WHERE node = 'dn3'}, '0', '... and dropped there');

# The worker is started again as on a primary.
value($standby, "SELECT pg_terminate_backend($worker, 5000)");
$worker = worker_pid($standby, 'postgres', $worker);
is($s->ask($read), '1', 'a new worker: the session reads on');
is(value($standby, 'SELECT pooler.stop()'), 't', 'stop');
is(value($standby, 'SELECT pooler.start()'), 't', 'start');
$worker = worker_pid($standby, 'postgres', $worker);

# Promoted while a transaction is open, which stays READ ONLY to its end, and others come and go: sessions
# that park their connection, that give it back, that keep it, and new ones for each statement.
value($standby, q{SELECT pooler.reset_stats()});
my $script = $standby->basedir . '/load.sql';
append_to_file($script, "$read;\nBEGIN; SAVEPOINT a; $read; RELEASE a; COMMIT;\n"
	  . q{SELECT node, n FROM pooler.query_all('SELECT count(*) FROM t') AS r(node name, n int);} . "\n");
my @ways = ([ '', 'pooler.park_leases=on' ], [ '', 'pooler.park_leases=off' ],
	[ '', 'pooler.persistent_datanode_connections=on' ], [ '-C', 'pooler.park_leases=on' ]);
my @load = map {
	my ($new, $setting) = @$_;
	my $way = { name => $setting . ($new ? ', new sessions' : ''), out => '', err => '' };
	local $ENV{PGOPTIONS} = "-c $setting";
	$way->{run} = IPC::Run::start([ 'pgbench', '-n', ($new ? $new : ()), '-c', '2', '-T', '600', '-P', '1', '-f', $script,
			'-h', $standby->host, '-p', $standby->port, 'postgres' ],
		'<', \undef, '>', \$way->{out}, '2>', \$way->{err});
	$way
} @ways;
END { $_->{run}->kill_kill() for grep { $_->{run} } @load; }

# What a way has done so far; and until each has done more.
sub progress
{
	my ($way) = @_;
	$way->{run}->pump_nb();
	my $sum = 0;
	$sum += $1 while $way->{err} =~ /^progress: .*? ([\d.]+) tps/mg;
	return $sum;
}

sub all_go_on
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my @before = map { progress($_) } @load;
	my $came = eval { wait_for($name, sub { !grep { progress($load[$_]) <= $before[$_] } 0 .. $#load }, 50); 1 };
	ok($came, $name) or diag map { "$_->{name}: $_->{err}" } @load;
	return;
}
all_go_on('sessions of each kind read');
$s->ask("BEGIN; $read");
$standby->promote();
wait_until($standby, 'SELECT pg_is_in_recovery()', 'f', 'promoted');
all_go_on('they read on while it is promoted') for 1, 2;
for my $way (@load)
{
	my $run = delete $way->{run};
	$run->signal('TERM');
	eval { $run->finish() };
	unlike($way->{err}, qr/ERROR|FATAL|aborted|error:/, "... without an error: $way->{name}");
}
is(value($standby, q{SELECT sum(connect_failures), sum(rejected), sum(closed_error) FROM pooler.pools}), '0|0|0', '... on sound connections');
like($s->refused($insert), qr/ERROR:  25006: /, 'the open transaction stays READ ONLY');
$s->ask('ROLLBACK');
is($s->ask($insert), 'INSERT 0 1', 'the next one writes');
is($s->ask("BEGIN; INSERT INTO here VALUES (1); $insert; COMMIT; $read"), "INSERT 0 1\n3", '... and commits here and there');
is($s->ask(q{SELECT pooler.exec_autocommit('dn1', 'VACUUM t')}), 'VACUUM', '... and works outside of transactions');
is(value($standby, 'SELECT count(*) FROM here'), '1', 'the local work is there');
is(worker_pids($standby), $worker, 'by the same worker');
$s->quit();

$s = session($standby);
is($s->ask($insert), 'INSERT 0 1', 'a new session writes as well');
add_node($standby, 'dn3', $dn{dn2});
is($s->ask(q{SELECT pooler.exec('dn3', 'INSERT INTO t VALUES (2)')}), 'INSERT 0 1', 'and a new node is used');
$s->quit();

my $log = log_since($standby, 0);
unlike($log, qr/terminating any other active server processes|PANIC|TRAP:|terminated by signal/, 'standby has not crashed');
$standby->stop('fast');
finish();
