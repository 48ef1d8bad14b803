# Parked leases: what a session keeps after a plain transaction it takes again without a message; the
# pooler takes it back, reset, for whoever needs it; nobody else ever sees what was left on it.

use strict;
use warnings;
use PolarxPooler qw(:DEFAULT literal on execute);
use Test::More;

my $coord = start_coordinator(park => 1, conf => <<'END');
pooler.min_pool_size = 0
pooler.min_free_size = 0
pooler.pool_maintenance_timeout = 1s
pooler.pool_session_context_check_gap = 2h
pooler.pool_session_max_lifetime = 2h
END
my %dn = map { $_ => start_datanode($_) } qw(dn1 dn2);
for my $dn (values %dn)
{
	value($dn, q{CREATE TABLE t (id int PRIMARY KEY, v int); CREATE PROCEDURE p() LANGUAGE sql AS 'SELECT 1';
		CREATE SEQUENCE q});
}
add_node($coord, $_, $dn{$_}) for sort keys %dn;
add_holders($coord, 1, 'dn1');
value($coord, 'CREATE EXTENSION polarx_pooler_example');
my ($s, $watch) = map { session($coord) } 1 .. 2;

sub pid_on { return on($_[0], 'SELECT pg_backend_pid()'); }

# Requests that pooler workers have had, and what they have counted for the node.
sub requests { return $watch->ask('SELECT client_request_conn_total FROM pooler.stats'); }
sub counted { return split /\|/, $watch->ask("SELECT sum(acquired), sum(hits) FROM pooler.pools WHERE node = '$_[0]'"); }

# One test: the connections of the node become so many leased, parked, idle, of so many; user: the
# remote one.
sub becomes
{
	my ($node, $expected, $name, $user) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $sql = q{SELECT concat_ws(' ', sum(leased), sum(parked), sum(idle), sum(total)) FROM pooler.pools}
	  . " WHERE node = '$node'" . ($user ? " AND remote_user = '$user'" : '');
	my $now = '';
	eval { wait_for($name, sub { ($now = $watch->ask($sql)) eq $expected }, 15) };
	return is($now, $expected, $name);
}

# One test: the session's next statement on the node asks the pooler, or not, for its connection.
# Returns the process id.
sub asks
{
	my ($session, $node, $expected, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $before = requests();
	my $pid = $session->ask(pid_on($node));
	is(requests() - $before, $expected, $name);
	return $pid;
}

# --- again without a message -----------------------------------------------------------------------
my $pid = $s->ask(pid_on('dn1'));
my ($requests, @before) = (requests(), counted('dn1'));
my @again = map { $s->ask(pid_on('dn1')) } 1 .. 20;
is("@again", join(' ', ($pid) x 20), 'the same connection again and again');
my @after = counted('dn1');
is_deeply([ map { $after[$_] - $before[$_] } 0, 1 ], [ 20, 20 ], '... counted as acquired, and as hits');
is(requests(), $requests, '... without a request to the pooler');
my $session_pid = $s->pid;
my $slot = "SELECT state, session_pid FROM pooler.connections WHERE remote_pid = $pid";
my $held = "SELECT leases FROM pooler.sessions WHERE pid = $session_pid";
becomes('dn1', '0 1 0 1', 'pools: parked');
is($watch->ask($slot) . ' ' . $watch->ask($held), "parked|$session_pid 0", 'connections: parked by the session, which holds no lease');
$s->ask('BEGIN; ' . pid_on('dn1'));
becomes('dn1', '1 0 0 1', 'in a transaction it is leased');
is($watch->ask($slot) . ' ' . $watch->ask($held), "leased|$session_pid 1", '... and held');
is($s->ask(pid_on('dn1') . '; COMMIT'), $pid, '... the same connection');

# The pooler worker has no part in it: not even one that stands still.
my $stopped = worker_pid($coord);
END { kill 'CONT', $stopped if $stopped; }
kill 'STOP', $stopped;
is(join(' ', map { $s->ask(pid_on('dn1')) } 1 .. 5), join(' ', ($pid) x 5), 'while the pooler worker stands still all goes on');
kill 'CONT', $stopped;
undef $stopped;

# Kept on purpose: leased all the time.
$s->ask('SET pooler.persistent_datanode_connections = on');
is($s->ask(pid_on('dn1')), $pid, 'a session that keeps its connections takes the parked one');
becomes('dn1', '1 0 0 1', '... and keeps it as leased');
$s->ask('SET pooler.persistent_datanode_connections = off');
is($s->ask(pid_on('dn1')), $pid, 'one that does not any more');
becomes('dn1', '0 1 0 1', '... parks it');

# --- what is plain ---------------------------------------------------------------------------------
my @plain = ('SELECT 1', "-- a\nselect 1", '(SELECT 1)', 'VALUES (1)', 'TABLE t', 'WITH w AS (SELECT 1) TABLE w',
	'INSERT INTO t VALUES (1, 1)', 'UPDATE t SET v = 2', 'DELETE FROM t');
push @plain, 'MERGE INTO t USING (VALUES (1)) s (i) ON id = i WHEN NOT MATCHED THEN INSERT VALUES (i, 1)'
  if value($dn{dn1}, 'SHOW server_version_num') >= 150000;
my @other = (q{SET work_mem = '9MB'}, 'RESET work_mem', 'SHOW work_mem', 'CREATE TEMP TABLE x ()', 'PREPARE x AS SELECT 1',
	'LISTEN x', 'NOTIFY x', 'DO $$BEGIN END$$', 'CALL p()', 'EXPLAIN SELECT 1', 'LOCK t', 'TRUNCATE t', 'ANALYZE t',
	'DECLARE c CURSOR WITH HOLD FOR SELECT 1',
	q{SELECT set_config('TimeZone', 'Asia/Tokyo', false)}, q{SELECT set_config('application_name', 'x', false)});
my @kinds = ((map { [ s{\n}{ }r, execute('dn1', $_), 1 ] } @plain), (map { [ $_, execute('dn1', $_), 0 ] } @other));
my ($insert, $remove) = map { execute('dn1', $_) } 'INSERT INTO t VALUES (2, 2)', 'DELETE FROM t';
push @kinds, (
	[ 'several plain statements', "BEGIN; $insert; $remove; COMMIT", 1 ],
	[ 'one of several is another', "BEGIN; $insert; " . execute('dn1', 'SHOW work_mem') . "; $remove; COMMIT", 0 ],
	[ 'a savepoint', "BEGIN; $remove; SAVEPOINT a; $insert; RELEASE a; COMMIT", 1 ],
	[ 'a savepoint that is rolled back', "BEGIN; $remove; SAVEPOINT a; $insert; ROLLBACK TO a; $insert; COMMIT", 1 ],
	[ 'first used in a savepoint that is released', "BEGIN; SAVEPOINT a; $remove; RELEASE a; $insert; COMMIT", 1 ],
	[ 'ROLLBACK', "BEGIN; $remove; ROLLBACK", 0 ]);
for my $row (@kinds)
{
	my ($name, $sql, $parked) = @$row;
	$s->ask(pid_on('dn1'));
	asks($s, 'dn1', 0, "$name: before it is parked");
	$s->ask($sql);
	becomes('dn1', $parked ? '0 1 0 1' : '0 0 1 1', '... after it ' . ($parked ? 'parked' : 'given back, by the next rounds at the latest'));
	is(asks($s, 'dn1', $parked ? 0 : 1, '... and next asked for as that says'), $pid, '... the same connection');
}
is($s->ask(on('dn1', 'SELECT count(*) FROM t')), '1', 'savepoints: rolled back what they should');
$s->ask($remove);

# First used in a savepoint that is rolled back: no longer leased, and free to be used again.
is($s->ask("BEGIN; SAVEPOINT a; $insert; ROLLBACK TO a; " . on('dn1', 'SELECT count(*) FROM t') . '; COMMIT') =~ s/.*\n//r, '0',
	'first used in a savepoint that is rolled back: nothing is left of it');
for my $fails (execute('dn1', 'SELECT 1/0'), "BEGIN; $insert; " . execute('dn1', 'SELECT 1/0'), "BEGIN; $insert; SELECT 1/0")
{
	$s->ask(pid_on('dn1'));
	like($s->refused($fails), qr/ERROR:  22012/, 'a transaction fails');
	$s->ask('ROLLBACK');
	becomes('dn1', '0 0 1 1', '... its connection is given back');
	is($s->ask(on('dn1', 'SELECT count(*) FROM t')), '0', '... rolled back');
}

# --- what the session gives back -------------------------------------------------------------------
my @changes = ('DISCARD ALL', 'DISCARD PLANS', 'DISCARD SEQUENCES', 'DISCARD TEMP', 'RESET ALL',
	'SET ROLE h1', 'RESET ROLE', 'SET SESSION AUTHORIZATION DEFAULT',
	'BEGIN; SET LOCAL ROLE h1; COMMIT', 'BEGIN; ' . pid_on('dn1') . '; RESET ALL; COMMIT', 'SET pooler.park_leases = off', 'DO $$BEGIN RESET ALL; END$$');
for my $change (@changes)
{
	$s->ask('SET pooler.park_leases = on');
	is($s->ask(on('dn1', q{SELECT set_config('work_mem', '9MB', false)})), '9MB', "$change: a setting");
	is($s->ask(on('dn1', q{SELECT current_setting('work_mem')})), '9MB', '... stays with a parked connection');
	$s->ask($change);
	becomes('dn1', '0 0 1 1', '... which is given back');
	$s->ask('RESET ROLE');
	is($s->ask(on('dn1', q{SELECT current_setting('work_mem')})), '4MB', '... and reset');
}
$s->ask('SET pooler.park_leases = off; ' . pid_on('dn1'));
becomes('dn1', '0 0 1 1', 'pooler.park_leases = off: nothing is parked');
asks($s, 'dn1', 1, '... and the pooler asked each time');
$s->ask('SET pooler.park_leases = on');

# --- parameters of the session ---------------------------------------------------------------------
my $mem = on('dn1', q{SELECT current_setting('work_mem')});
$s->ask(q{SELECT pooler.set_param('work_mem', '7MB')});
is($s->ask($mem), '7MB', 'set_param holds');
asks($s, 'dn1', 0, '... on a connection that is parked');
is($s->ask($mem), '7MB', '... and taken again');
is($s->ask(q{SELECT pooler.set_param('work_mem', '8MB')} . ";$mem") =~ s/.*\n//r, '8MB', '... and follows');
is($s->ask("BEGIN; SELECT pooler.set_param('work_mem', '6MB', true); $mem; COMMIT") =~ s/.*\n//r, '6MB', '... in one transaction');
is($s->ask($mem), '8MB', '... and no longer');
$s->ask(q{BEGIN; SELECT pooler.set_param('work_mem', '6MB', true); SELECT pooler.exec_autocommit('dn1', 'SELECT 1'); COMMIT});
is($s->ask($mem), '8MB', '... also by exec_autocommit');
$s->ask('SELECT pooler.reset_params()');
is($s->ask($mem), '4MB', '... and is reset');
$s->ask(q{SELECT pooler.set_param('TimeZone', 'Asia/Tokyo')});
is($s->ask(on('dn1', 'SHOW TimeZone')), 'Asia/Tokyo', 'set_param of what the datanode reports');
is($s->ask(on('dn1', q{SELECT current_setting('TimeZone')})), 'Asia/Tokyo', '... each time');
becomes('dn1', '0 0 1 1', '... such a connection is not parked');
$s->ask('SELECT pooler.reset_params()');
is($s->ask(on('dn1', q{SELECT current_setting('TimeZone') = reset_val FROM pg_settings WHERE name = 'TimeZone'})), 't', '... and reset');

# --- roles -----------------------------------------------------------------------------------------
value($coord, 'CREATE FUNCTION as_h1(sql text, OUT v text) LANGUAGE sql SECURITY DEFINER AS'
	. q{ $$SELECT v FROM pooler.query('dn1', sql) AS r(v text)$$; ALTER FUNCTION as_h1 OWNER TO h1});
my $mark = q{SELECT set_config('work_mem', '9MB', false)};
$s->ask(on('dn1', $mark));
is($s->ask(q{SELECT as_h1('SELECT current_setting(''work_mem'')')}), '4MB', 'another role: nothing of what the first has left');
my @own = map { $s->ask($_) } my @both = (pid_on('dn1'), q{SELECT as_h1('SELECT pg_backend_pid()')});
isnt($own[0], $own[1], '... and another connection');
becomes('dn1', '0 2 0 2', 'each has parked its own');
$requests = requests();
is_deeply([ map { $s->ask($_) } @both, @both ], [ @own, @own ], '... and takes that again');
is(requests(), $requests, '... without a request');
$s->ask('DISCARD ALL');
becomes('dn1', '0 0 2 2', 'both are given back');

# --- all nodes -------------------------------------------------------------------------------------
my $all = q{SELECT string_agg(n || ':' || p, ' ' ORDER BY n) FROM pooler.query_all('SELECT pg_backend_pid()') AS r(n name, p int)};
my $pids = $s->ask($all);
$requests = requests();
is($s->ask($all), $pids, 'query_all takes its parked connections again');
is(requests(), $requests, '... without a request');
$pid = $s->ask(pid_on('dn2'));
value($coord, q{SELECT pooler.clean('dn1')});
is($s->ask($all) =~ s/.*dn2:(\d+)/$1 eq $pid ? 'kept' : 'new'/er, 'kept', 'one is gone: the other is taken again');
is(requests() - $requests, 1, '... and the one asked for in one request');
becomes('dn2', '0 1 0 1', '... no further connection to the other');
is(asks($s, 'dn2', 0, '... which is parked'), $pid, '... and usable');
value($coord, q{ALTER SERVER dn1 OPTIONS (ADD max_pool_size '1'); ALTER SERVER dn2 OPTIONS (ADD max_pool_size '1')});
becomes('dn2', '0 1 0 1', 'one connection to each node');
my $other = session($coord);
for my $round (1 .. 3)
{
	$s->ask($all);
	$other->ask(pid_on($round % 2 ? 'dn1' : 'dn2'));
	like($s->ask($all), qr/^dn1:\d+ dn2:\d+$/, "round $round: all nodes, of which one is parked here and one elsewhere");
}
$_->ask('DISCARD ALL') for $s, $other;

# --- the C interface -------------------------------------------------------------------------------
$pid = $s->ask(pid_on('dn1'));
for my $row ([ 'SELECT 1', 'done', 1 ], [ 'SELECT 1', 'dressed', 1 ], [ q{SELECT set_config('TimeZone', 'Asia/Tokyo', false)}, 'done', 0 ],
	[ 'BEGIN; INSERT INTO t VALUES (7)', 'done', 0 ], [ 'BEGIN; SELECT 1/0', 'done', 0 ])
{
	my ($sql, $ending, $parked) = @$row;
	is($s->ask("SELECT parking_park('dn1', " . literal($sql) . ", '$ending')"), $pid, "C: $sql, $ending");
	becomes('dn1', $parked ? '0 1 0 1' : '0 0 1 1', $parked ? '... parked' : '... given back instead');
	is(asks($s, 'dn1', $parked ? 0 : 1, '... asked for as that says'), $pid, '... the same connection');
	is($s->ask(on('dn1', q{SELECT concat_ws(' ', count(*), current_setting('TimeZone') = 'Asia/Tokyo') FROM t})), '0 f', '... in order');
}
is($s->ask(on('dn1', q{SELECT 1 FROM (SELECT set_config('client_min_messages', 'debug5', true)) x}) . '; SELECT parking_notices()') =~ s/.*\n//r, '0',
	'the receiver of a borrower that has left it hears nothing');
for my $row ([ 'SELECT g FROM generate_series(1, 3) g', 'unread' ], [ 'SELECT 1', 'pipeline' ])
{
	$pid = $s->ask("SELECT parking_park('dn1', '$row->[0]', '$row->[1]')");
	isnt(asks($s, 'dn1', 1, "C: left with $row->[1]: not parked"), $pid, '... but closed');
}
$s->ask('DISCARD ALL');

# --- others need it --------------------------------------------------------------------------------
my $left = q{SELECT concat_ws(' ', current_setting('work_mem'), to_regclass('pg_temp.mine') IS NOT NULL,
	(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'))};
my $leave = on('dn1', q{SELECT set_config('work_mem', '9MB', false) FROM pg_advisory_lock(42), nextval('q')})
  . '; ' . execute('dn1', 'SELECT 1 AS a INTO TEMP mine');
for my $timeout ('0', '10s')
{
	$other->ask("SET pooler.queue_timeout = '$timeout'");
	$s->ask($leave);
	is($s->ask(on('dn1', $left)), '9MB t 1', 'what a session leaves is there for its next transaction');
	$pid = $s->ask(pid_on('dn1'));
	is(within(10, "another takes the only connection, queue_timeout $timeout", sub { $other->ask(on('dn1', $left)) }), '4MB f 0',
		'... and finds nothing of it');
	is($other->ask(pid_on('dn1')), $pid, '... on the same connection');
	like($other->refused(on('dn1', q{SELECT currval('q')})), qr/55000/, '... not even the sequence');
	is(within(10, '... and the first gets it back', sub { $s->ask(on('dn1', $left)) }), '4MB f 0', '... fresh');
}
value($coord, q{ALTER SERVER dn1 OPTIONS (SET max_pool_size '3')});
my @s = map { session($coord) } 1 .. 4;
my $rejected = $watch->ask('SELECT sum(rejected) FROM pooler.pools');
my %foreign;
for my $i (map { 0 .. 3 } 1 .. 10)
{
	my $own = 5 + $i . 'MB';
	my $seen = $s[$i]->ask(on('dn1', q{SELECT current_setting('work_mem')}));
	$foreign{"$i saw $seen"} = 1 if $seen ne '4MB' && $seen ne $own;
	$s[$i]->ask(on('dn1', "SELECT set_config('work_mem', '$own', false)"));
}
is_deeply(\%foreign, {}, 'four sessions take turns with three connections: none sees what another has left');
is($watch->ask('SELECT sum(rejected) FROM pooler.pools'), $rejected, '... none was rejected');
becomes('dn1', '0 3 0 3', '... three are parked');
value($coord, q{ALTER SERVER dn1 OPTIONS (SET max_pool_size '2')});
becomes('dn1', '0 2 0 2', 'a lowered limit: the third is closed');
wait_until($dn{dn1}, q{SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'polarx_pooler%'}, '2', '... on the datanode too');
like($_->ask(pid_on('dn1')), qr/^\d+$/, '... all sessions work on') for @s;
$_->quit() for @s, $other, $s;
becomes('dn1', '0 0 2 2', 'the sessions end: nothing is parked');

# More nodes than a session may have parked.
add_node($coord, "many$_", $dn{dn2}, server => { max_pool_size => 1 }) for 1 .. 16;
$s = session($coord);
like($s->ask(q{SELECT count(DISTINCT p) FROM pooler.query_all('SELECT pg_backend_pid()') AS r(n name, p int)}), qr/^18$/, 'eighteen nodes') for 1 .. 3;
wait_until($coord, 'SELECT sum(parked) BETWEEN 12 AND 16, sum(leased) FROM pooler.pools', 't|0', '... of which sixteen at most stay parked');
$requests = requests();
$s->ask(pid_on("many$_")) for 1 .. 10;
cmp_ok(requests() - $requests, '<=', 6, '... and are taken again one by one');
$s->quit();
wait_until($coord, 'SELECT sum(parked), sum(leased) FROM pooler.pools', '0|0', '... none is left');

finish();
