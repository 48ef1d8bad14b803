# Nodes that move, vanish, stop and come back.

use strict;
use warnings;
use PolarxPooler;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $coord = start_coordinator();
my %dn = map { $_ => start_datanode($_) } qw(dn1 dn2 dn3);
add_node($coord, $_, $dn{$_}) for qw(dn1 dn2);
value($dn{$_}, "CREATE TABLE me AS SELECT '$_'::text AS name; CREATE TABLE t (id int)") for keys %dn;

sub name_of { return "SELECT n FROM pooler.query('$_[0]', 'SELECT name FROM me') AS r(n text)"; }
sub pid_on { return "SELECT p FROM pooler.query('$_[0]', 'SELECT pg_backend_pid()') AS r(p int)"; }
my $all = q{SELECT count(*) FROM pooler.query_all('SELECT 1') AS r(node name, n int)};

# ALTER SERVER moves the pool.
is(value($coord, name_of('dn1')), 'dn1', 'before');
my $s = session($coord);
my $pid = $s->ask('BEGIN; ' . pid_on('dn1'));
value($coord, "ALTER SERVER dn1 OPTIONS (SET port '" . $dn{dn3}->port . "')");
is(value($coord, name_of('dn1')), 'dn3', 'ALTER SERVER: the next session is led to the new place');
is($s->ask(pid_on('dn1')), $pid, 'the holder keeps its connection to the end of its transaction');
wait_until($dn{dn1}, "SELECT string_agg(pid::text, ',') FROM pg_stat_activity WHERE application_name LIKE 'polarx_pooler%'
	AND backend_type = 'client backend'", $pid, 'idle connections of the old place are closed', limit => 3);
$s->ask('COMMIT');
wait_until($dn{dn1}, "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid", '0',
	'... the leased one at release', limit => 3);
is($s->ask(name_of('dn1')), 'dn3', 'then the holder is led to the new place');
wait_until($coord, q{SELECT port FROM pooler.nodes WHERE node = 'dn1'}, $dn{dn3}->port, 'the view tells', limit => 3);
value($coord, "ALTER SERVER dn1 OPTIONS (SET port '" . $dn{dn1}->port . "')");
is($s->ask(name_of('dn1')), 'dn1', 'and back');

# RENAME of a server.
value($coord, 'ALTER SERVER dn1 RENAME TO first');
is($s->ask(name_of('first')), 'dn1', 'ALTER SERVER RENAME');
like($s->refused(name_of('dn1')), qr/42704/, '... the old name is unknown');
value($coord, 'ALTER SERVER first RENAME TO dn1');

# DROP SERVER while a lease is held.
add_node($coord, 'dn3', $dn{dn3});
$s->ask(q{BEGIN; SELECT pooler.exec('dn3', 'INSERT INTO t VALUES (1)')});
value($coord, 'SET client_min_messages = error; DROP SERVER dn3 CASCADE');
is(value($coord, $all), '2', 'DROP SERVER: others work on without it');
$s->ask('COMMIT');
is(value($dn{dn3}, 'SELECT count(*) FROM t'), '1', '... the holder\'s transaction ends well');
like($s->refused(name_of('dn3')), qr/42704/, '... then the name is unknown');
wait_until($dn{dn3}, q{SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'polarx_pooler%'
	AND backend_type = 'client backend'}, '0', '... and all its connections are closed', limit => 5);
is($s->ask(name_of('dn1')), 'dn1', '... the session works on');

# A datanode that stops.
my $offset = log_offset($coord);
$s->ask('BEGIN; ' . name_of('dn2'));
my $hurt = session($coord);
$hurt->ask('BEGIN; ' . pid_on('dn1'));
$dn{dn1}->stop('fast');
within(1, 'a stopped datanode is reported in under a second', sub {
		fails_with($coord, name_of('dn1'), '08001', qr/could not connect to datanode "dn1"/, '08001 names it') });
within(1, '... again, while it is held off', sub {
		fails_with($coord, name_of('dn1'), '08001', qr/datanode "dn1"/, '08001 names it again') });
within(1, 'query_all fails as soon', sub { fails_with($coord, $all, '08001', qr/"dn1"/, '... and names it') });
is(value($coord, name_of('dn2')), 'dn2', 'the other node works for others');
is($s->ask(name_of('dn2') . '; COMMIT'), 'dn2', '... and for a session that was at it');
like($hurt->refused(pid_on('dn1')), qr/ERROR:  (?:08006|57P01|08001)(?s:.*)dn1/, 'the session at the stopped node learns it');
$hurt->ask('ROLLBACK');
is($hurt->ask(name_of('dn2')), 'dn2', '... and works on elsewhere');
wait_until($coord, q{SELECT health || (last_error <> '') FROM pooler.nodes WHERE node = 'dn1'}, 'downtrue', 'the view tells');
is(value($coord, q{SELECT health FROM pooler.nodes WHERE node = 'dn2'}), 'up', '... and that the other is up');
$dn{dn1}->start();
wait_until($coord, name_of('dn1'), 'dn1', 'work resumes by itself', limit => 10);
is(value($coord, $all), '2', '... everywhere');
wait_until($coord, q{SELECT health FROM pooler.nodes WHERE node = 'dn1'}, 'up', '... which the view shows');
my @trouble = grep { /dn1/ && !/statement:|STATEMENT|CONTEXT|ERROR|DETAIL|pooler stat/ } split /\n/, log_since($coord, $offset);
cmp_ok(scalar(@trouble), '>=', 2, 'the log tells of the trouble and of its end');
cmp_ok(scalar(@trouble), '<=', 6, '... once per change, not per attempt') or diag join "\n", @trouble;

# A datanode that restarts while its connections are idle.
$hurt->quit();
$s->quit();
for my $mode (qw(fast immediate))
{
	wait_until($coord, q{SELECT sum(idle) > 0 FROM pooler.pools WHERE node = 'dn1'}, 't', 'connections are idle');
	$dn{dn1}->stop($mode);
	$dn{dn1}->start();
	is(value($coord, name_of('dn1')), 'dn1', "after a restart ($mode) the next session gets a good connection");
	is(value($coord, $all), '2', '... and the one after it');
}
# Without any time for the pooler to see it: the backend is killed and the session is there at once.
$s = session($coord);
for my $round (1 .. 5)
{
	value($dn{dn1}, q{SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
		WHERE application_name LIKE 'polarx_pooler%'});
	is($s->ask(name_of('dn1')), 'dn1', "round $round: all idle connections were ended by the datanode");
}

# A lease lost in the middle of a transaction.
$pid = $s->ask(q{BEGIN; SELECT pooler.exec('dn2', 'INSERT INTO t VALUES (2)')} . '; ' . pid_on('dn1'));
($pid) = $pid =~ /(\d+)\z/;
value($dn{dn1}, "SELECT pg_terminate_backend($pid, 5000)");
like($s->refused(name_of('dn1')), qr/ERROR:  (?:08006|57P01)(?s:.*)dn1/, 'a lost connection is reported');
$s->ask('COMMIT');
is(value($dn{dn2}, 'SELECT count(*) FROM t'), '0', '... and the transaction is rolled back everywhere');
is($s->ask(name_of('dn1')), 'dn1', '... the next one works');

# An option changes: only that node's pools are renewed.
$pid = $s->ask(pid_on('dn2'));
value($coord, q{ALTER SERVER dn1 OPTIONS (ADD application_name 'mine')});
is(value($coord, q{SELECT n FROM pooler.query('dn1', 'SHOW application_name') AS r(n text)}), 'mine',
	'a server\'s new option takes effect at once');
is($s->ask(pid_on('dn2')), $pid, '... the other node\'s connections stay');

# Silence: a connect, a reset, a ping that is never answered.
value($coord, 'CREATE EXTENSION postgres_fdw');
my ($port, $socket) = silent_port();
value($coord, "CREATE SERVER silent FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '$port');"
	  . "CREATE USER MAPPING FOR CURRENT_USER SERVER silent OPTIONS (user 'x')");
set_conf($coord, 'pooler.pooler_connect_timeout' => '1s', 'pooler.pooler_dn_set_timeout' => '1s');
my $start = mark();
fails_with($coord, name_of('silent'), '08001', qr/"silent"(?s:.*)timeout/, 'a connect that is not answered');
cmp_ok(time - $start, '>', 0.8, '... after pooler_connect_timeout');
cmp_ok(calm_since($start), '<', 2.5, '... and soon after it');
$pid = $s->ask('BEGIN; ' . pid_on('dn2'));
kill 'STOP', $pid;
within(0.5, 'ROLLBACK does not wait for the datanode', sub { $s->ask('ROLLBACK') });
wait_until($coord, "SELECT count(*) FROM pooler.connections WHERE remote_pid = $pid", '0',
	'a reset that is not answered: the connection is given up', limit => 6);
kill 'CONT', $pid;
is(value($coord, q{SELECT sum(closed_error) FROM pooler.pools WHERE node = 'dn2'}), '1', '... and counted');
wait_until($dn{dn2}, "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid", '0', '... it is closed at the datanode too');
is($s->ask(name_of('dn2')), 'dn2', '... the session works on');
my @stopped = (split(/\n/, backend_pids($dn{dn2})), slurp_file($dn{dn2}->data_dir . '/postmaster.pid') =~ /\A(\d+)/);
kill 'STOP', @stopped;
within(3, 'a ping that is not answered ends', sub {
		like(value($coord, q{SELECT ok, error FROM pooler.ping('dn2')}), qr/^f\|.*(?:timeout|in time|answer)/, 'it says so') });
kill 'CONT', @stopped;
wait_until($coord, name_of('dn2'), 'dn2', '... and work goes on');

# Servers of other wrappers.
add_node($coord, 'fdw', $dn{dn3}, wrapper => 'postgres_fdw', server => { fetch_size => 50 });
is(value($coord, name_of('fdw')), 'dn3', 'a server of postgres_fdw may be used by name');
is(value($coord, $all), '2', '... it is not one of "all nodes"');
value($coord, 'CREATE EXTENSION dblink; CREATE FOREIGN DATA WRAPPER dummy; CREATE SERVER dummy FOREIGN DATA WRAPPER dummy');
add_node($coord, 'link', $dn{dn3}, wrapper => 'dblink_fdw');
is(value($coord, name_of('link')), 'dn3', 'one of dblink_fdw too');
fails_with($coord, name_of('dummy'), '42809', qr/"dummy" is not a datanode/, 'one of another wrapper: 42809');
fails_with($coord, q{SELECT pooler.pause('dummy')}, '42809', qr/"dummy" is not a datanode/, '... nor can it be paused');

# Hosts by name, and by the folder of a Unix socket.
add_node($coord, 'by_name', $dn{dn3}, wrapper => 'postgres_fdw', server => { host => 'localhost' });
is(value($coord, name_of('by_name')), 'dn3', 'a host name');
add_node($coord, 'by_folder', $dn{dn3}, wrapper => 'postgres_fdw', server => { host => $dn{dn3}->host });
is(value($coord, name_of('by_folder')), 'dn3', 'the folder of a Unix socket');
add_node($coord, 'by_nothing', $dn{dn3}, wrapper => 'postgres_fdw', server => { host => 'not a host' });
fails_with($coord, name_of('by_nothing'), '08001', qr/"by_nothing".*not a host/, 'a name that is none');
value($coord, 'SET client_min_messages = error; DROP SERVER link, by_name, by_folder, by_nothing CASCADE');

# Too few connections at the datanode.
$dn{dn3}->append_conf('postgresql.conf', "max_connections = 5\nsuperuser_reserved_connections = 0\n");
$dn{dn3}->restart();
my @greedy = map { session($coord) } 1 .. 7;
my $refused = 0;
for my $greedy (@greedy)
{
	my (undef, $err) = do { $greedy->tell('BEGIN; ' . pid_on('fdw')); $greedy->hear() };
	$refused++ if $err =~ /ERROR:  (?:53300|08001)(?s:.*)fdw/;
}
cmp_ok($refused, '>=', 2, 'a datanode without free connections: an error that names it');
$greedy[0]->ask('COMMIT');
wait_until($coord, name_of('fdw'), 'dn3', '... a released connection serves on');
$_->quit() for @greedy;

$s->quit();
finish();
