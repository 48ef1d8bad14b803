# What an administrator sees and does: views, stat lines, ping, clean, reload, session_memory.

use strict;
use warnings;
use PolarxPooler;
use Test::More;

my $coord = start_coordinator(
	conf => "pooler.min_pool_size = 2\npooler.min_free_size = 0\npooler.pool_print_stat_timeout = 1s\n");
my %dn = map { $_ => start_datanode($_) } qw(dn1 dn2);
add_node($coord, $_, $dn{$_}) for sort keys %dn;
my $me = me();

# The columns of the views are a contract.
my %columns = (
	workers => 'datid oid, datname name, pid integer, state text, threads integer, socket text, '
	  . 'fds_used integer, fds_limit integer, started_at timestamp with time zone',
	nodes => 'node name, host text, port integer, health text, paused boolean, last_error text, '
	  . 'last_error_at timestamp with time zone, retry_at timestamp with time zone, ping_ms double precision',
	pools => 'pool bigint, node name, remote_user name, remote_database name, total integer, idle integer, '
	  . 'leased integer, parked integer, connecting integer, resetting integer, waiting integer, '
	  . 'max_size integer, min_size integer, min_free integer, acquired bigint, hits bigint, '
	  . 'connects bigint, connect_failures bigint, rejected bigint, closed_idle bigint, '
	  . 'closed_lifetime bigint, closed_memory bigint, closed_error bigint, '
	  . 'acquire_p50_us double precision, acquire_p95_us double precision, acquire_p99_us double precision, '
	  . 'hold_p50_us double precision, hold_p99_us double precision, last_error text, '
	  . 'retry_at timestamp with time zone, mapped_roles name[]',
	connections => 'slot bigint, pool bigint, node name, remote_user name, state text, remote_pid integer, '
	  . 'session_pid integer, created_at timestamp with time zone, state_since timestamp with time zone, '
	  . 'leases bigint, memory_bytes bigint, memory_checked_at timestamp with time zone, thread integer',
	sessions => 'pid integer, usename name, leases integer, waiting_for name, '
	  . 'waiting_since timestamp with time zone, attached_at timestamp with time zone');
for my $view (sort keys %columns)
{
	is(value($coord, "SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum)
		FROM pg_attribute WHERE attrelid = 'pooler.$view'::regclass AND attnum > 0"),
		$columns{$view}, "columns of pooler.$view");
	is(value($coord, "SELECT has_table_privilege('pg_monitor', 'pooler.$view', 'SELECT')"), 't',
		'... pg_monitor may read');
}
my @counters = qw(client_request_conn_total client_request_from_hashtab client_request_from_thread
  acquire_conn_from_hashtab acquire_conn_from_hashtab_and_set acquire_conn_from_thread
  acquire_conn_time each_client_conn_request_cost_time);
is(value($coord, q{SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum)
	FROM pg_attribute WHERE attrelid = 'pooler.stats'::regclass AND attnum > 0}),
	join(', ', map({ "$_ bigint" } @counters[ 0 .. 6 ]), "$counters[7] double precision", 'stats_since timestamp with time zone', 'partial_commits bigint',
		'deadlock_checks bigint', 'deadlocks bigint'),
	'columns of pooler.stats');
is(value($coord, q{SELECT has_table_privilege('pg_monitor', 'pooler.stats', 'SELECT')}), 't', '... pg_monitor may read');
is(value($coord, 'SELECT count(*) FROM pooler.stats'), '1', 'pooler.stats has one row');

# The worker.
my $worker = worker_pid($coord);
is(value($coord, "SELECT datname, state, threads, fds_used BETWEEN 1 AND fds_limit, started_at <= now()
	FROM pooler.workers WHERE pid = $worker AND datid = (SELECT oid FROM pg_database WHERE datname = 'postgres')"),
	'postgres|ready|2|t|t', 'workers');
my $socket = value($coord, 'SELECT socket FROM pooler.workers');
like($socket, qr{^/.*/pg_stat_tmp/\.s\.PGPOOL\.\d+\.6667$}, 'the socket\'s path is absolute');
ok(-S $socket, '... and leads to a socket');
is((stat $socket)[2] & 07777, 0600, '... that only the server\'s user may use');

# Warm pools, at rest.
my $pools = q{SELECT node, remote_user, remote_database, total, idle, leased, parked, connecting, resetting, waiting
	FROM pooler.pools ORDER BY node};
wait_until($coord, $pools, join("\n", map { "$_|$me|postgres|2|2|0|0|0|0|0" } qw(dn1 dn2)), 'pools at rest');
is(value($coord, 'SELECT max_size, min_size, min_free, mapped_roles, last_error FROM pooler.pools LIMIT 1'),
	"300|2|0|{$me}|", 'their limits and roles');
is(value($coord, q{SELECT string_agg(remote_pid::text, chr(10) ORDER BY remote_pid) FROM pooler.connections
	WHERE node = 'dn1'}), backend_pids($dn{dn1}), 'connections are those that the datanode has');
is(value($coord, 'SELECT DISTINCT state, session_pid, leases, thread BETWEEN 0 AND 1, created_at <= state_since
	FROM pooler.connections'), 'idle||0|t|t', '... idle, never lent');
is(value($coord, 'SELECT node, host, port, health, paused FROM pooler.nodes ORDER BY node'),
	join("\n", map { "$_|127.0.0.1|" . $dn{$_}->port . '|up|f' } qw(dn1 dn2)), 'nodes');

# A lease.
my $s = session($coord);
my $pid = $s->ask(q{BEGIN; SELECT p FROM pooler.query('dn1', 'SELECT pg_backend_pid()') AS r(p int)});
my $mine = $s->pid;
is(value($coord, "SELECT state, session_pid, leases FROM pooler.connections WHERE remote_pid = $pid"),
	"leased|$mine|1", 'connections: the leased one names its session');
is(value($coord, "SELECT usename, leases, waiting_for, waiting_since, attached_at <= now() FROM pooler.sessions
	WHERE pid = $mine"), "$me|1|||t", 'sessions');
is(value($coord, q{SELECT leased, idle + connecting FROM pooler.pools WHERE node = 'dn1'}), '1|1', 'pools');
is(value($coord, 'SELECT bool_and(total = idle + leased + parked + connecting + resetting),
	sum(total) = (SELECT count(*) FROM pooler.connections) FROM pooler.pools'), 't|t', 'the sums add up');
$s->ask('COMMIT');
wait_until($coord, q{SELECT leased, acquired, hits, rejected, connect_failures, acquire_p50_us >= 0, hold_p50_us > 0
	FROM pooler.pools WHERE node = 'dn1'}, '0|1|1|0|0|t|t', 'after the release: counters and quantiles');
$s->quit();
wait_until($coord, "SELECT count(*) FROM pooler.sessions WHERE pid = $mine", '0', 'sessions: it is gone');

# Stat lines.
value($coord, q{CREATE DATABASE "od""d name"});
value($coord, 'CREATE EXTENSION polarx_pooler', db => 'od"d name');
sub stat_lines
{
	my ($offset, $like) = @_;
	my @found;
	for my $line (grep { /\[pooler stat\] / } split /\n/, log_since($coord, $offset))
	{
		my ($text) = $line =~ /LOG:  \[pooler stat\] (.*)$/;
		$text =~ s/ us$//;
		my $pair = qr/\w+=(?:[A-Za-z0-9_.]+|"(?:[^"\\]|\\.)*")/;
		ok(0, "malformed: $line") unless $text =~ /^$pair(?: $pair)*$/;
		my %line = map { split /=/, $_, 2 } $text =~ /($pair)/g;
		push @found, \%line if $text =~ $like;
	}
	return @found;
}
my $ours = qr/database=postgres client_request_conn_total/;
my $offset = log_offset($coord);
wait_for('a stat line', sub { stat_lines($offset, $ours) > 0 });
my $before = value($coord, 'SELECT client_request_conn_total FROM pooler.stats');
$offset = log_offset($coord);
value($coord, q{SELECT pooler.exec('dn1', 'SELECT 1')}) for 1 .. 7;
value($coord, q{SELECT count(*) FROM pooler.exec_all('SELECT 1')});
my $end = log_offset($coord);
wait_for('two more stat lines', sub { stat_lines($end, $ours) > 1 });
my @lines = stat_lines($offset, $ours);
my %sum;
for my $line (@lines)
{
	$sum{$_} += $line->{$_} for grep { $_ ne 'database' } keys %$line;
}
is_deeply([ sort keys %{ $lines[0] } ], [ sort 'database', @counters ], 'the database\'s line: its keys');
is($sum{client_request_conn_total}, 8, '... requests since the line before');
is($sum{client_request_from_hashtab} + $sum{client_request_from_thread}, 8, '... each answered in one way');
is($sum{acquire_conn_from_hashtab} + $sum{acquire_conn_from_hashtab_and_set} + $sum{acquire_conn_from_thread}, 9,
	'... connections lent');
is($lines[-1]{each_client_conn_request_cost_time} + 0, 0, '... 0 where nothing happened');
is(value($coord, 'SELECT client_request_conn_total FROM pooler.stats') - $before, 8, 'pooler.stats counts the same');
@lines = stat_lines($end, qr/database=postgres node=dn1 /);
is_deeply([ sort keys %{ $lines[-1] } ],
	[ sort qw(database node user total idle leased parked connecting waiting acquired rejected acquire_p50_us acquire_p99_us) ],
	'a pool\'s line: its keys');
is("$lines[-1]{user} $lines[-1]{total} $lines[-1]{idle} $lines[-1]{leased}", "$me 2 2 0", '... and figures');
wait_for('a line for the odd name', sub { stat_lines($offset, qr/database="od\\"d name" client_request/) > 0 });
pass('a name that is not plain is quoted');

# ping.
is(value($coord, 'SELECT node, ok, latency_ms > 0, error FROM pooler.ping() ORDER BY node'),
	"dn1|t|t|\ndn2|t|t|", 'ping');
is(value($coord, q{SELECT node, ok FROM pooler.ping('dn2')}), 'dn2|t', 'ping of one node');
is(value($coord, q{SELECT ping_ms > 0 FROM pooler.nodes WHERE node = 'dn2'}), 't', '... which the view keeps');
fails_with($coord, q{SELECT * FROM pooler.ping('nowhere')}, '42704', qr/nowhere/, 'ping of no node');
$dn{dn2}->stop('fast');
like(value($coord, q{SELECT node, ok, error FROM pooler.ping() ORDER BY node}), qr/^dn1\|t\|\ndn2\|f\|.+/,
	'ping tells which is down, and why');
$dn{dn2}->start();
wait_until($coord, q{SELECT ok FROM pooler.ping('dn2')}, 't', '... and that it is up again');

# clean.
wait_until($coord, q{SELECT idle FROM pooler.pools WHERE node = 'dn1'}, '2', 'two idle connections');
my $old = backend_pids($dn{dn1});
$s = session($coord);
$pid = $s->ask(q{BEGIN; SELECT p FROM pooler.query('dn1', 'SELECT pg_backend_pid()') AS r(p int)});
is(value($coord, q{SELECT pooler.clean('dn1')}), '2', 'clean: one closed, one marked');
(my $list = $old) =~ s/\n/,/g;
wait_until($dn{dn1}, "SELECT string_agg(pid::text, ',') FROM pg_stat_activity WHERE pid IN ($list)", $pid,
	'... the idle one is closed');
$s->ask('COMMIT');
wait_until($dn{dn1}, "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid", '0', '... the leased one at release');
wait_until($coord, q{SELECT idle, leased FROM pooler.pools WHERE node = 'dn1'}, '2|0', '... and the minimum is filled again');
is(value($coord, q{SELECT pooler.clean('dn1', 'nobody')}), '0', 'clean of another remote user');
cmp_ok(value($coord, 'SELECT pooler.clean()'), '>=', 2, 'clean of all');
is(value($coord, q{SELECT pooler.exec('dn1', 'SELECT 1')}), 'SELECT 1', '... the pool works on');
fails_with($coord, q{SELECT pooler.clean('nowhere')}, '42704', qr/nowhere/, 'clean of no node');
is(value($coord, 'SELECT pooler.reload()'), '', 'reload');

# What processes wait for, by name where the server lets an extension name it.
my $named = value($coord, q{SELECT current_setting('server_version_num')::int >= 170000}) eq 't';
sub waits_for
{
	my ($who, $event, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return wait_until($coord, "SELECT DISTINCT wait_event_type, wait_event FROM pg_stat_activity WHERE $who",
		'Extension|' . ($named ? $event : 'Extension'), $name);
}
waits_for("backend_type = 'polarx_pooler launcher'", 'PolarxLauncherMain', 'the launcher waits');
waits_for("backend_type = 'polarx_pooler worker'", 'PolarxWorkerMain', 'pooler workers wait');
value($coord, q{SELECT pooler.pause('dn1')});
$s->tell(q{SELECT pooler.exec('dn1', 'SELECT pg_sleep(60)')});
waits_for('pid = ' . $s->pid, 'PolarxPoolerReply', 'a session waits for the pooler');
value($coord, q{SELECT pooler.resume('dn1')});
waits_for('pid = ' . $s->pid, 'PolarxDatanode', '... and then for the datanode');
value($coord, 'SELECT pg_cancel_backend(' . $s->pid . ')');
like(($s->hear())[1], qr/57014/, '... until it is cancelled');

# session_memory, on a datanode without preload.
SKIP: {
	skip 'the datanodes\' server has not got the extension', 2 if $ENV{POLARX_DATANODE_HOME};
	value($dn{dn1}, 'CREATE EXTENSION polarx_pooler');
	is(value($coord, q{SELECT n BETWEEN 100000 AND 100000000 FROM
		pooler.query('dn1', 'SELECT pooler.session_memory()') AS r(n bigint)}), 't', 'session_memory of a datanode\'s session');
	my $data = session($dn{dn1});
	my $less = $data->ask('SELECT pooler.session_memory()');
	$data->ask(join ';', map { "PREPARE p$_ AS SELECT * FROM pg_class a, pg_class b, pg_class c WHERE a.oid = b.oid" } 1 .. 50);
	cmp_ok($data->ask('SELECT pooler.session_memory()'), '>', $less + 100_000, '... grows with what the session keeps');
	$data->quit();
}

$s->quit();
finish();
