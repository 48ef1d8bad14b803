# Lending: one connection for many sessions, the limit, the queue, sessions that end or die.

use strict;
use warnings;
use PolarxPooler;
use Test::More;
use Time::HiRes qw(time);

my $coord = start_coordinator(conf => "pooler.min_pool_size = 0\npooler.min_free_size = 0\n");
my $dn1 = start_datanode('dn1', conf => "max_prepared_transactions = 1\n");
my $dn2 = start_datanode('dn2');
add_node($coord, 'dn1', $dn1, server => { max_pool_size => 1 });
add_node($coord, 'dn2', $dn2, server => { max_pool_size => 2 });
value($_, 'CREATE TABLE t (id serial, who text); CREATE ROLE other; CREATE SCHEMA s')
  for $dn1, $dn2;

sub pid_on { return "SELECT p FROM pooler.query('$_[0]', 'SELECT pg_backend_pid()') AS r(p int)"; }

# Fifty sessions on one connection, each with a clean state that it then spoils. Who has gone without an
# end of the transaction may still be giving it back.
my $state = q{SELECT pid::text, clean FROM pooler.query('dn1', $$SELECT pg_backend_pid(),
	concat_ws(' ', current_setting('work_mem'), current_setting('search_path'), current_user,
	current_setting('default_transaction_isolation'),
	(SELECT count(*) FROM pg_prepared_statements), (SELECT count(*) FROM pg_cursors WHERE name <> ''),
	(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'),
	(SELECT count(*) FROM pg_listening_channels()), to_regclass('pg_temp.mine') IS NULL,
	current_setting('application_name'), current_setting('datestyle'))$$) AS r(pid int, clean text)};
my @spoil = map { "SELECT pooler.exec('dn1', '$_')" } (
	q{SET work_mem = ''9MB''}, 'SET search_path = s', q{SET datestyle = ''German''},
	'SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE',
	'PREPARE p AS SELECT 1', 'CREATE TEMP TABLE mine (a int)', 'SELECT pg_advisory_lock(1)',
	'LISTEN spoiled', 'DECLARE c CURSOR WITH HOLD FOR SELECT 1', q{SET application_name = ''x''},
	'SET SESSION AUTHORIZATION other');
my @endings = ('COMMIT', 'ROLLBACK', q{SELECT pooler.exec('dn1', 'SELECT 1/0')}, 'SELECT 1/0', '');
my (%pids, %states);
for my $n (1 .. 50)
{
	my $ending = $endings[ $n % @endings ];
	my (undef, $out) = run_sql($coord, join(";\n", q{SET pooler.queue_timeout = '10s'}, 'BEGIN', $state, @spoil,
		$ending));
	my ($pid, $clean) = split /\|/, (split /\n/, $out)[0] // '', 2;
	$pids{ $pid // 'none' }++;
	$states{ $clean // 'none' }++;
}
is(scalar(keys %pids), 1, 'fifty sessions ran on one datanode connection')
  or diag explain \%pids;
my $clean = '4MB "$user", public ' . me() . ' read committed 0 0 0 0 t polarx_pooler/postgres ISO, MDY';
is_deeply(\%states, { $clean => 50 }, 'each found a clean state')
  or diag explain \%states;
is(backends($dn1), '1', 'and there is one connection on the datanode');

# At the limit.
my ($first, $second) = (session($coord), session($coord));
$first->ask('BEGIN; ' . pid_on('dn2'));
$second->ask('BEGIN; ' . pid_on('dn2'));
my $err = within(0.5, 'at the limit a request is rejected at once', sub {
	fails_with($coord, pid_on('dn2'), '53300', qr/pool of datanode "dn2" is full/, 'at the limit: 53300') });
my $longest = $first->pid;
like($err, qr/DETAIL:.*\b$longest\b/, 'DETAIL: the session that holds longest');
like($err, qr/HINT:(?=.*max_pool_size)(?=.*queue_timeout)/, 'HINT: the settings');
is(value($coord, q{SELECT rejected, leased, total FROM pooler.pools WHERE node = 'dn2'}), '1|2|2',
	'the view tells');
$first->ask('COMMIT');
like(value($coord, pid_on('dn2')), qr/^\d+$/, 'after a release the pool works on');
$first->ask('BEGIN; ' . pid_on('dn2'));

# Waiting.
my $start = mark();
fails_with($coord, "SET pooler.queue_timeout = '300ms'; " . pid_on('dn2'), '53300', qr/"dn2" is full/,
	'queue_timeout over: 53300');
my $took = time - $start;
ok($took >= 0.3 && calm_since($start) < 1.3, sprintf('... after that long (%.2f s)', $took));
my @waiting = map { session($coord) } 1 .. 3;
for my $i (0 .. 2)
{
	$waiting[$i]->tell("SET pooler.queue_timeout = '20s';"
		  . "SELECT pooler.exec('dn2', 'INSERT INTO t (who) VALUES (''$i'')')");
	my $pid = $waiting[$i]->pid;
	wait_until($coord, "SELECT waiting_for = 'dn2' AND waiting_since <= now() FROM pooler.sessions WHERE pid = $pid",
		't', "session $i waits");
}
is(value($coord, q{SELECT waiting FROM pooler.pools WHERE node = 'dn2'}), '3', 'three wait');
$waiting[3] = session($coord);
$waiting[3]->tell("SET pooler.queue_timeout = '20s'; " . pid_on('dn2'));
wait_until($coord, q{SELECT waiting FROM pooler.pools WHERE node = 'dn2'}, '4', 'a fourth waits');
$start = mark();
value($coord, 'SELECT pg_cancel_backend(' . $waiting[3]->pid . ')');
like(($waiting[3]->hear())[1], qr/57014/, 'a waiting session can be cancelled');
ok(calm_since($start) < 1, '... at once');
wait_until($coord, q{SELECT waiting FROM pooler.pools WHERE node = 'dn2'}, '3', '... and waits no more');
$first->ask('COMMIT');
for my $i (0 .. 2)
{
	my ($out, $errors) = $waiting[$i]->hear();
	is("$out$errors", 'INSERT 0 1', "session $i got its connection");
}
is(value($dn2, q{SELECT string_agg(who, ',' ORDER BY id) FROM t}), '0,1,2', 'first come, first served');
$_->quit() for @waiting;
$second->ask('COMMIT');

# A session that ends in its transaction.
my $s = session($coord);
my $pid = $s->ask('BEGIN; ' . pid_on('dn1'));
$s->ask(q{SELECT pooler.exec('dn1', 'INSERT INTO t (who) VALUES (''gone'')')});
$s->quit();
is(value($coord, "SET pooler.queue_timeout = '10s'; " . pid_on('dn1')), $pid,
	'a session that ends returns its connection');
is(value($dn1, 'SELECT count(*) FROM t'), '0', '... rolled back');

# A session that is killed while its statement runs.
$s = session($coord);
$s->tell(q{SELECT pooler.exec('dn1', 'SELECT pg_sleep(60)')});
wait_until($dn1, q{SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(60)%'
	AND pid <> pg_backend_pid()}, '1', 'a long statement runs');
value($coord, 'SELECT pg_terminate_backend(' . $s->pid . ')');
wait_until($dn1, q{SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(60)%'
	AND pid <> pg_backend_pid()}, '0', 'killed session: its statement is cancelled');
eval { $s->hear() };
is(value($coord, "SET pooler.queue_timeout = '10s'; SELECT pooler.exec('dn1', 'SELECT 1')"), 'SELECT 1',
	'... and the pool works on');
wait_until($coord, q{SELECT total, leased, idle FROM pooler.pools WHERE node = 'dn1'}, '1|0|1',
	'... with one connection, idle');

# Connections kept by the session.
$s = session($coord);
$s->ask('SET pooler.persistent_datanode_connections = on');
$pid = $s->ask(pid_on('dn1'));
is(value($coord, q{SELECT leased FROM pooler.pools WHERE node = 'dn1'}), '1',
	'persistent_datanode_connections: kept after the transaction');
is($s->ask(pid_on('dn1')), $pid, '... and used again');
fails_with($coord, pid_on('dn1'), '53300', qr/"dn1" is full/, '... nobody else gets it');
$s->quit();
wait_until($coord, q{SELECT leased, idle FROM pooler.pools WHERE node = 'dn1'}, '0|1',
	'... returned when the session ends');

# Two sessions that each hold what the other waits for.
value($coord, q{ALTER SERVER dn2 OPTIONS (SET max_pool_size '1')});
wait_until($coord, q{SELECT max_size, total <= 1 FROM pooler.pools WHERE node = 'dn2'}, '1|t', 'one connection each');
$_->ask(q{SET pooler.queue_timeout = '20s'}) for $first, $second;
$first->ask('BEGIN; ' . pid_on('dn1'));
$second->ask('BEGIN; ' . pid_on('dn2'));
$first->tell(pid_on('dn2'));
wait_until($coord, q{SELECT waiting FROM pooler.pools WHERE node = 'dn2'}, '1', 'the first waits for the second');
$err = $second->refused("SET pooler.queue_timeout = '200ms'; " . pid_on('dn1'));
$longest = $first->pid;
like($err, qr/53300(?s:.*)DETAIL:.*\b$longest\b.*waits for.*dn2/, 'each holds what the other waits for: DETAIL tells');
$second->ask('ROLLBACK');
like(($first->hear())[0], qr/^\d+$/, '... and the other one goes on');
$first->ask('COMMIT');

# Many sessions that want both nodes at the same time.
my $script = $coord->basedir . '/both.sql';
PostgreSQL::Test::Utils::append_to_file($script,
	"SELECT count(*) FROM pooler.exec_all('INSERT INTO t (who) VALUES (''both'')');\n");
local $ENV{PGOPTIONS} = '-c pooler.queue_timeout=20s';
$coord->command_ok([ 'pgbench', '-n', '-c', 8, '-t', 10, '-f', $script, 'postgres' ],
	'eight sessions take both nodes again and again');
is(value($dn1, q{SELECT count(*) FROM t WHERE who = 'both'}), '80', '... all of it arrived');
is(backends($dn2), '1', 'within the limit');

$_->quit() for $first, $second;

# A session has descriptors for so many leases.
$coord->append_conf('postgresql.conf', "max_files_per_process = 64\n");
$coord->restart();
value($coord, q{ALTER SERVER dn1 OPTIONS (SET max_pool_size '40')});
add_holders($coord, 30, 'dn1');
$s = session($coord);
$s->ask('BEGIN');
$err = $s->refused(join ';', map { "SET LOCAL ROLE h$_; SELECT pooler.exec('dn1', 'SELECT 1')" } 1 .. 30);
like($err, qr/\A(?:psql:\S+ )?ERROR:  53000: out of file descriptors(?s:.*)DETAIL:.*holds \d+ leases.*max_files_per_process \(64\)/,
	'more leases than a session has descriptors for: 53000, with the counts');
$s->ask('ROLLBACK');
is($s->ask(q{SELECT pooler.exec('dn1', 'SELECT 1')}), 'SELECT 1', '... and the session works on');
$s->quit();
finish();
