# COMMIT on several nodes: every outcome with its SQLSTATE and DETAIL, and what is then on the nodes; and
# the kind of the transaction (isolation level, READ ONLY, DEFERRABLE) is the local one.

use strict;
use warnings;
use PolarxPooler;
use Test::More;

my $coord = start_coordinator(conf => "pooler.min_pool_size = 0\npooler.min_free_size = 0\n");
my %dn = map { $_ => start_datanode($_) } qw(dn1 dn2 dn3);
for my $name (sort keys %dn)
{
	add_node($coord, $name, $dn{$name});
	value($dn{$name}, q{CREATE TABLE t (id int PRIMARY KEY);
		CREATE TABLE late (id int, CONSTRAINT late_id_key UNIQUE (id));
		CREATE FUNCTION fails(id int) RETURNS int LANGUAGE sql AS 'INSERT INTO late VALUES (id), (id) RETURNING 1';
		CREATE FUNCTION dies(id int) RETURNS int LANGUAGE sql AS 'SELECT pg_terminate_backend(pg_backend_pid())::int';
		CREATE FUNCTION hangs(id int) RETURNS int LANGUAGE sql AS 'SELECT 1 FROM pg_sleep(60)'});
}
value($coord, 'CREATE TABLE here (id int)');
my $s = session($coord);
my $id = 0;

# Begins a transaction with work here and on the nodes: work_on(dn1 => 'commits', …). What makes a node's
# COMMIT end as wanted is a query that PostgreSQL runs in COMMIT, and not before.
sub work_on
{
	my (@nodes) = @_;
	$id++;
	$s->ask("BEGIN; INSERT INTO here VALUES ($id)");
	while (my ($node, $end) = splice @nodes, 0, 2)
	{
		$s->ask("SELECT pooler.exec('$node', 'INSERT INTO t VALUES ($id)')");
		$s->ask("SELECT pooler.exec('$node', 'DECLARE c CURSOR WITH HOLD FOR SELECT $end($id)')") if $end ne 'commits';
	}
	return;
}

# Where the transaction's work is to be seen: 'here dn1 …'.
sub kept
{
	return join ' ', grep {
		value($_ eq 'here' ? $coord : $dn{$_}, 'SELECT count(*) FROM ' . ($_ eq 'here' ? 'here' : 't') . " WHERE id = $id");
	} 'here', sort keys %dn;
}

sub remote_pid { return $s->ask("SELECT p FROM pooler.query('$_[0]', 'SELECT pg_backend_pid()') AS r(p int)"); }

sub in_commit
{
	my ($node, $pid) = @_;
	return wait_until($dn{$node}, "SELECT wait_event FROM pg_stat_activity WHERE pid = $pid AND query = 'COMMIT'", 'PgSleep',
		"$node: in mid-COMMIT");
}

# All is well.
work_on(map { $_ => 'commits' } sort keys %dn);
$s->ask('COMMIT');
is(kept(), 'here dn1 dn2 dn3', 'all commit');

# Outcomes that do not need the test's help: [ nodes, SQLSTATE, DETAIL, what is kept ]. $key is how a node
# says it.
my $key = qr/duplicate key value violates unique constraint "late_id_key"/;
my $lost = qr/terminating connection due to administrator command/;
for my $row (
	[ [ dn1 => 'fails' ], '23505', qr/Key \(id\)=\(\d+\) already exists\./, '' ],
	[ [ dn1 => 'fails', dn2 => 'fails', dn3 => 'fails' ], '23505', qr/Key .* already exists\./, '' ],
	[ [ dn1 => 'commits', dn2 => 'fails' ], '40003',
		qr/Committed on: "dn1"; failed on: "dn2" \($key\); unknown on: none\./, 'dn1' ],
	[ [ dn1 => 'fails', dn2 => 'commits' ], '40003',
		qr/Committed on: "dn2"; failed on: "dn1" \($key\); unknown on: none\./, 'dn2' ],
	[ [ dn1 => 'commits', dn2 => 'fails', dn3 => 'fails' ], '40003',
		qr/Committed on: "dn1"; failed on: "dn2" \($key\), "dn3" \($key\); unknown on: none\./, 'dn1' ],
	[ [ dn1 => 'commits', dn2 => 'commits', dn3 => 'fails' ], '40003',
		qr/Committed on: "dn1", "dn2"; failed on: "dn3" \($key\); unknown on: none\./, 'dn1 dn2' ],
	[ [ dn1 => 'commits', dn2 => 'fails', dn3 => 'dies' ], '40003',
		qr/Committed on: "dn1"; failed on: "dn2" \($key\); unknown on: "dn3"\./, 'dn1' ],
	[ [ dn1 => 'dies', dn2 => 'commits' ], '40003',
		qr/Committed on: "dn2"; failed on: none; unknown on: "dn1"\./, 'dn2' ],
	[ [ dn1 => 'dies' ], '08007', $lost, '' ],
	[ [ dn1 => 'dies', dn2 => 'dies' ], '08007',
		qr/Committed on: none; failed on: none; unknown on: "dn1", "dn2"\.\n$lost/, '' ],
	[ [ dn1 => 'fails', dn2 => 'dies' ], '08007',
		qr/Committed on: none; failed on: "dn1" \($key\); unknown on: "dn2"\.\n$lost/, '' ])
{
	my ($nodes, $sqlstate, $detail, $kept) = @$row;
	work_on(@$nodes);
	my $err = $s->refused('COMMIT');
	my $name = join ', ', map { "$nodes->[2 * $_] $nodes->[2 * $_ + 1]" } 0 .. $#$nodes / 2;
	like($err, qr/^(?:psql:\S+ )?ERROR:  $sqlstate: /m, "$name: $sqlstate");
	like($err, qr/^DETAIL:  $detail$/m, '... DETAIL');
	like($err, qr/^CONTEXT:.*statement on datanode "dn1": COMMIT/ms, '... CONTEXT') if $sqlstate eq '23505';
	like($err, qr/^HINT:  .*(?:agreement by hand|committed there or not)/m, '... HINT') if $sqlstate ne '23505';
	is(kept(), $kept, '... and that is the truth: ' . ($kept || 'nothing') . ' is kept');
}
is(value($coord, 'SELECT sum(leased) FROM pooler.pools'), '0', 'no connection is held');

# A connection that the test ends in mid-COMMIT: its backend, then the whole node.
work_on(dn1 => 'hangs');
my $pid = remote_pid('dn1');
$s->tell('COMMIT');
in_commit('dn1', $pid);
value($dn{dn1}, "SELECT pg_terminate_backend($pid)");
like(($s->hear())[1], qr/ERROR:  08007: .*"dn1"(?s:.*)DETAIL:  $lost/, '... terminated: 08007');
is(kept(), '', '... nothing is kept');
work_on(dn1 => 'commits', dn2 => 'hangs', dn3 => 'fails');
$pid = remote_pid('dn2');
$s->tell('COMMIT');
in_commit('dn2', $pid);
$dn{dn2}->stop('immediate');
like(($s->hear())[1],
	qr/ERROR:  40003: (?s:.*)DETAIL:  Committed on: "dn1"; failed on: "dn3" \($key\); unknown on: "dn2"\.$/m,
	'... the node goes down: 40003');
$dn{dn2}->start();
is(kept(), 'dn1', '... dn1 is kept');

# A node is lost before COMMIT: no other one commits. Its last words are a warning, and the end of file
# comes behind.
work_on(dn1 => 'commits', dn2 => 'commits', dn3 => 'commits');
$dn{dn2}->stop('immediate');
my $err = $s->refused('COMMIT');
like($err, qr/ERROR:  08006: .*"dn2"(?s:.*)DETAIL:  .*rolled back on all nodes/, 'a node lost before COMMIT: 08006');
$dn{dn2}->start();
is(kept(), '', '... nothing is kept');
wait_until($coord, "SELECT pooler.exec('dn2', 'SELECT 1')", 'SELECT 1', '... the node is used again');

# Nodes that have answered are lost while another one is awaited: its answer is awaited all the same.
add_node($coord, "early$_", $dn{dn1}) for 10 .. 39;
my $slow = $dn{dn2}->port;
$s->tell("BEGIN; SELECT count(*), min(command_tag), max(command_tag) FROM pooler.exec_all("
	  . "'SELECT pg_sleep(3) WHERE current_setting(''port'') = ''$slow'''); SELECT 1");
wait_until($dn{dn2}, q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'}, '1', 'one node is awaited');
wait_until($dn{dn1}, q{SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'}, '31', 'others have answered');
value($dn{dn1}, q{SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE state = 'idle in transaction'});
is(($s->hear())[0], "33|SELECT 0|SELECT 1\n1", '... and are lost: the one is awaited');
like($s->refused('COMMIT'), qr/ERROR:  08006: /, '... and COMMIT knows');
value($coord, "DROP SERVER early$_ CASCADE") for 10 .. 39;

# Cancelled in mid-COMMIT: what has become of the nodes decides.
sub cancelled_in_commit
{
	my ($node, $pid) = @_;
	$s->tell('COMMIT');
	in_commit($node, $pid);
	value($coord, 'SELECT pg_cancel_backend(' . $s->pid . ')');
	return ($s->hear())[1];
}
work_on(dn1 => 'hangs', dn2 => 'fails');
$err = cancelled_in_commit('dn1', remote_pid('dn1'));
like($err, qr/ERROR:  57014: /, 'cancelled, and all nodes have rolled back: 57014');
is(kept(), '', '... nothing is kept');
work_on(dn1 => 'hangs', dn2 => 'commits');
$err = cancelled_in_commit('dn1', remote_pid('dn1'));
like($err, qr/ERROR:  40003: (?s:.*)Committed on: "dn2"; failed on: "dn1" \(canceling statement[^)]*\); unknown on: none/,
	'cancelled after one node has committed: 40003, the other one was cancelled');
is(kept(), 'dn2', '... dn2 is kept');

# A node that does not answer to a cancel either: unknown.
for my $others ([], [ dn1 => 'commits' ])
{
	work_on(@$others, dn2 => 'hangs');
	my $stopped = remote_pid('dn2');
	$s->tell('COMMIT');
	in_commit('dn2', $stopped);
	kill 'STOP', $stopped;
	wait_until($dn{dn1}, "SELECT count(*) FROM t WHERE id = $id", '1', 'dn1 has committed') if @$others;
	wait_until($coord, 'SELECT count(*) FROM pg_stat_activity WHERE state = \'active\' AND wait_event_type = \'Extension\''
		  . ' AND query LIKE \'COMMIT%\' AND pid = ' . $s->pid, '1', 'dn2 is silent');
	value($coord, 'SELECT pg_cancel_backend(' . $s->pid . ')');
	my (undef, $answer) = $s->hear();
	kill 'CONT', $stopped;
	like($answer, @$others ? qr/ERROR:  40003: (?s:.*)Committed on: "dn1"; failed on: none; unknown on: "dn2"\./
		: qr/ERROR:  08007: .*"dn2"(?s:.*)Committed on: none; failed on: none; unknown on: "dn2"\.\n.*cancel/,
		'... the wait is cancelled: ' . (@$others ? '40003' : '08007'));
}

# Silent before any COMMIT has gone out: nothing is unknown.
work_on(dn1 => 'commits', dn2 => 'commits');
my $silent = remote_pid('dn2');
kill 'STOP', $silent;
$s->tell('COMMIT');
wait_until($coord, 'SELECT count(*) FROM pg_stat_activity WHERE state = \'active\' AND query LIKE \'COMMIT%\' AND pid = ' . $s->pid, '1',
	'dn2 is silent');
value($coord, 'SELECT pg_cancel_backend(' . $s->pid . ')');
like(($s->hear())[1], qr/ERROR:  57014: /, '... the wait is cancelled: 57014');
kill 'CONT', $silent;
is(kept(), '', '... nothing is kept');

# The kind of transaction.
my $kind = q{SELECT a, b, c FROM pooler.query('dn1', $$SELECT current_setting('transaction_isolation'),
	current_setting('transaction_read_only'), current_setting('transaction_deferrable')$$) AS r(a text, b text, c text)};
for my $level ('read uncommitted', 'read committed', 'repeatable read', 'serializable')
{
	is($s->ask("BEGIN ISOLATION LEVEL $level; $kind; COMMIT"), "$level|off|off", "BEGIN: $level");
	is($s->ask("BEGIN; SET TRANSACTION ISOLATION LEVEL $level, READ ONLY; $kind; COMMIT"), "$level|on|off",
		'... SET TRANSACTION, READ ONLY');
	is($s->ask("BEGIN; SET TRANSACTION READ WRITE, ISOLATION LEVEL $level, DEFERRABLE; $kind; COMMIT"), "$level|off|on",
		'... DEFERRABLE');
	is($s->ask("SET default_transaction_isolation = '$level'; $kind; RESET default_transaction_isolation"), "$level|off|off",
		'... by default');
}
is($s->ask("BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE; $kind; COMMIT"), 'serializable|on|on', 'all together');
is($s->ask("BEGIN ISOLATION LEVEL REPEATABLE READ; SAVEPOINT a; $kind; ROLLBACK TO a; $kind; COMMIT"),
	"repeatable read|off|off\nrepeatable read|off|off", 'begun within a savepoint');
my $rows = q{SELECT n FROM pooler.query('dn1', 'SELECT count(*) FROM t WHERE id = 4711') AS r(n int)};
for my $row ([ 'READ COMMITTED', '1' ], [ 'REPEATABLE READ', '0' ])
{
	my ($level, $seen) = @$row;
	is($s->ask("BEGIN ISOLATION LEVEL $level; $rows"), '0', "$level: before a row is inserted");
	value($dn{dn1}, 'INSERT INTO t VALUES (4711)');
	is($s->ask("$rows; COMMIT"), $seen, '... and after');
	value($dn{dn1}, 'DELETE FROM t WHERE id = 4711');
}

# READ ONLY from now on, also in the middle of a transaction, and back.
my $insert = q{SELECT pooler.exec('dn1', 'INSERT INTO t VALUES (4712)')};
my $delete = q{SELECT pooler.exec('dn1', 'DELETE FROM t WHERE id = 4712')};
$s->ask('BEGIN READ ONLY');
like($s->refused($insert), qr/25006(?s:.*)dn1/, 'READ ONLY: 25006');
$s->ask("ROLLBACK; BEGIN; $insert; SET TRANSACTION READ ONLY");
like($s->refused($insert), qr/25006/, 'SET TRANSACTION READ ONLY after the first statement: 25006');
$s->ask("ROLLBACK; BEGIN; $insert; SAVEPOINT a; SET TRANSACTION READ ONLY");
like($s->refused($insert), qr/25006/, '... within a savepoint: 25006');
is($s->ask("ROLLBACK TO a; $delete; COMMIT"), 'DELETE 1', '... and rolled back to it: as before');
$s->ask("BEGIN; $insert; SAVEPOINT a; SET TRANSACTION READ ONLY; SELECT pooler.exec('dn1', 'SELECT 1')");
is($s->ask("RELEASE a; $delete; COMMIT"), 'DELETE 1', '... and released: as before');
$s->ask('SET default_transaction_read_only = on');
like($s->refused($insert), qr/25006/, 'default_transaction_read_only: 25006');
like($s->refused(q{SELECT pooler.exec_autocommit('dn1', 'INSERT INTO t VALUES (4712)')}), qr/25006/,
	'exec_autocommit in a READ ONLY transaction: 25006');
like($s->refused(q{SELECT * FROM pooler.exec_all_autocommit('INSERT INTO t VALUES (4712)')}), qr/25006/,
	'exec_all_autocommit: 25006');
$s->ask('RESET default_transaction_read_only');
is(value($dn{dn1}, 'SELECT count(*) FROM t WHERE id = 4712'), '0', 'nothing was written');

# What is not committed yet.
$s->ask(q{BEGIN; CREATE SERVER early FOREIGN DATA WRAPPER polarx_pooler OPTIONS (host '127.0.0.1')});
$s->ask(q{CREATE USER MAPPING FOR CURRENT_USER SERVER early});
like($s->refused(q{SELECT pooler.exec('early', 'SELECT 1')}), qr/42704(?s:.*)committed/,
	'a server of this transaction: 42704, and why');
$s->ask('ROLLBACK');

$s->quit();
finish();
