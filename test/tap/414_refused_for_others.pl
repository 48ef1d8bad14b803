# Commands that need a database for themselves and that the server refuses, since others use it, do not
# disturb its pooler worker; one in a savepoint that is rolled back blocks it no longer.

use strict;
use warnings;
use PolarxPooler;
use PostgreSQL::Test::Utils;
use Test::More;

my $coord = start_coordinator(conf => <<'END');
wal_level = logical
max_replication_slots = 4
max_wal_senders = 4
max_prepared_transactions = 4
pooler.min_pool_size = 2
pooler.min_free_size = 0
END
my $dn = start_datanode('dn1');
my $one = q{SELECT pooler.exec('dn1', 'SELECT 1')};
my $folder = PostgreSQL::Test::Utils::tempdir;
value($coord, "CREATE TABLESPACE elsewhere LOCATION '$folder'");
value($coord, 'CREATE DATABASE live');
value($coord, 'CREATE EXTENSION polarx_pooler', db => 'live');
add_node($coord, 'dn1', $dn, db => 'live');
my ($admin, $guest, $user) = (session($coord), map { session($coord, db => 'live') } 1 .. 2);
is($user->ask($one), 'SELECT 1', 'the database is in use');
my $worker = worker_pid($coord, 'live');
my $pooled = q{SELECT string_agg(remote_pid::text, ' ' ORDER BY remote_pid) FROM pooler.connections};
wait_until($coord, 'SELECT sum(idle) FROM pooler.pools', '2', '... with connections of its own', db => 'live');
my $connections = $user->ask($pooled);

# While the command waits for the session to leave, and after it, all goes on with the same connections.
my $state = q{SELECT state FROM pooler.workers WHERE datname = 'live'};
my %commands = (
	'DROP DATABASE live' => qr/database "live" is being accessed by other users/,
	'ALTER DATABASE live RENAME TO renamed' => qr/database "live" is being accessed by other users/,
	'ALTER DATABASE live SET TABLESPACE elsewhere' => qr/database "live" is being accessed by other users/,
	'CREATE DATABASE copy TEMPLATE live' => qr/source database "live" is being accessed by other users/);
for my $sql (sort keys %commands)
{
	$admin->tell($sql);
	wait_until($coord, q{SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND pid = } . $admin->pid, '1', "$sql: waits");
	my @states;
	until ($admin->answered())
	{
		is($user->ask($one), 'SELECT 1', '... a request is served meanwhile') if !@states;
		$user->ask($one);
		push @states, $guest->ask($state);
	}
	my (undef, $err) = $admin->hear();
	like($err, qr/ERROR:  55006: $commands{$sql}/, '... is refused');
	like($err, qr/DETAIL:  Other sessions in it: 2, prepared transactions: 0\./, '... with their number');
	is_deeply([ grep { $_ ne 'ready' } @states ], [], '... the pooler worker was ready all the time');
	is(worker_pids($coord, 'live') . ' ' . $user->ask($pooled), "$worker $connections", '... and has kept its connections');
}
# What is refused at once for other reasons.
$user->ask('CREATE TABLE t (); BEGIN; INSERT INTO t DEFAULT VALUES; PREPARE TRANSACTION $$one$$' =~ s/\$\$/'/gr);
fails_with($coord, 'DROP DATABASE live WITH (FORCE)', '55006', qr/prepared transaction/, 'FORCE, with a prepared transaction in it');
$user->ask(q{COMMIT PREPARED 'one'});
$user->ask(q{CREATE SUBSCRIPTION s CONNECTION 'dbname=nowhere' PUBLICATION p WITH (connect = false, slot_name = NONE)});
fails_with($coord, 'DROP DATABASE live WITH (FORCE)', '55006', qr/subscription/, 'FORCE, with a subscription in it');
$user->ask('DROP SUBSCRIPTION s');
value($coord, 'ALTER DATABASE live SET TABLESPACE pg_default');
is(worker_pids($coord, 'live') . ' ' . $user->ask($pooled), "$worker $connections", '... and one that has nothing to do: the same');

# A prepared transaction alone.
$user->ask(q{BEGIN; INSERT INTO t DEFAULT VALUES; PREPARE TRANSACTION 'two'});
$_->quit() for $guest, $user;
like($admin->refused('DROP DATABASE live'), qr/ERROR:  55006: (?s:.*)prepared transactions: 1\./, 'a prepared transaction alone: refused');
is(worker_pids($coord, 'live'), $worker, '... by the same pooler worker');
value($coord, q{ROLLBACK PREPARED 'two'}, db => 'live');

# A session that leaves while the command waits.
$guest = session($coord, db => 'live');
$guest->ask($one);
$admin->tell('ALTER DATABASE live RENAME TO alive');
wait_until($coord, q{SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND pid = } . $admin->pid, '1', 'a command waits');
is($guest->ask($one), 'SELECT 1', '... for a session that is served');
$guest->quit();
is(($admin->hear())[1], '', '... and that leaves: the command succeeds');
is(value($coord, $one, db => 'alive'), 'SELECT 1', '... and the pool works under the new name');

# --- savepoints ---------------------------------------------------------------------------------------
$state = q{SELECT state FROM pooler.workers WHERE datname IN ('alive', 'other')};
sub becomes { wait_until($coord, $state, $_[0], $_[1], limit => 20); return; }
my $rename = 'ALTER DATABASE alive RENAME TO other';
for my $undo ('SAVEPOINT a; RENAME; ROLLBACK TO a', 'SAVEPOINT a; SAVEPOINT b; RENAME; RELEASE b; ROLLBACK TO a',
	q{DO $$BEGIN BEGIN EXECUTE 'RENAME'; RAISE EXCEPTION 'x'; EXCEPTION WHEN raise_exception THEN NULL; END; END$$})
{
	worker_pid($coord, 'alive');
	$admin->ask('BEGIN; ' . $undo =~ s/RENAME/$rename/r);
	becomes('ready', "$undo: not blocked any more, though the transaction goes on");
	is(value($coord, $one, db => 'alive'), 'SELECT 1', '... the pool works');
	$admin->ask('COMMIT');
}
for my $keep ('SAVEPOINT a; RENAME; RELEASE a', 'RENAME; SAVEPOINT a; SELECT 1; ROLLBACK TO a', 'RENAME; SAVEPOINT a; ALTER DATABASE other RENAME TO third; ROLLBACK TO a')
{
	worker_pid($coord, 'alive');
	$admin->ask('BEGIN; ' . $keep =~ s/RENAME/$rename/r);
	is(value($coord, $state), 'blocked', "$keep: blocked");
	$admin->ask('COMMIT');
	becomes('ready', '... to the end of the transaction');
	is(value($coord, $one, db => 'other'), 'SELECT 1', '... the pool works under the new name');
	worker_pid($coord, 'other');
	$admin->ask('ALTER DATABASE other RENAME TO alive');
}

$admin->quit();
finish();
