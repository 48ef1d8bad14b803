# DROP DATABASE and the other commands that need a database for themselves, two hundred of them in
# a row under load: each is quick; one that fails, waits or dies leaves the database as it was.

use strict;
use warnings;
use PolarxPooler;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my @stopped;    # processes to be continued, come what may
END { kill 'CONT', @stopped if @stopped; }

my $kRounds = $ENV{POLARX_DROP_ROUNDS} || 50;    # of four commands each

my $coord = start_coordinator(conf => <<'END');
restart_after_crash = on
log_statement = none
pooler.min_pool_size = 1
pooler.min_free_size = 0
END
my $dn = start_datanode('dn1', conf => "max_connections = 300\n");
my $one = q{SELECT pooler.exec('dn1', 'SELECT 1')};
my $folder = PostgreSQL::Test::Utils::tempdir;
value($coord, "CREATE TABLESPACE elsewhere LOCATION '$folder'");
add_node($coord, 'dn1', $dn);
for my $db (qw(seed other held))
{
	value($coord, "CREATE DATABASE $db");
	value($coord, 'CREATE EXTENSION polarx_pooler', db => $db);
	add_node($coord, 'dn1', $dn, db => $db);
}
value($coord, 'CREATE DATABASE plain');

# Sessions of pgbench that run statements until they fail or are ended.
my $script = $coord->basedir . '/one.sql';
append_to_file($script, "$one;\n");
sub load
{
	my ($db, @options) = @_;
	return IPC::Run::start([ 'pgbench', '-n', '-c', 2, '-T', 300, '-h', $coord->host, '-p', $coord->port,
			'-f', $script, @options, $db ], '>', '/dev/null', '2>', '/dev/null');
}

# In the databases that stay: sessions that stay, and sessions that come and go.
my @others = (load('postgres', '-R', 40), load('other', '-C', '-R', 20));
my %before = map { $_ => worker_pid($coord, $_) } qw(postgres other);
my $admin = session($coord);
$admin->ask('SET client_min_messages = debug1');

# How long the statement takes, and how long of that it waits for a pooler worker to end; one that has
# no worker to wait for says nothing.
sub timed
{
	my ($sql) = @_;
	my $start = mark();
	$admin->tell($sql);
	my (undef, $err) = $admin->hear();
	my $took = calm_since($start);
	die "failed: $sql\n$err" if $err =~ /ERROR|FATAL/;
	return ($took, $err =~ /DEBUG:  00000: pooler worker with PID \d+ has ended after (\d+) ms/);
}

# What such commands cost without a pooler worker, on a machine that has other things to do.
my $control = 0;
sub take_control
{
	for my $sql ('CREATE DATABASE control TEMPLATE plain', 'ALTER DATABASE control RENAME TO controlled',
		'DROP DATABASE controlled')
	{
		my ($took) = timed($sql);
		$control = $took if $took > $control;
	}
	return;
}

my (%took, %waited, $works);
for my $round (1 .. $kRounds)
{
	take_control() if $round % 10 == 1;
	my $command = sub {
		my ($took, $waited) = timed($_[0]);
		$took{"$round: $_[0]"} = $took;
		$waited{"$round: $_[0]"} = $waited / 1000 if defined $waited;
	};
	$command->("CREATE DATABASE first$round TEMPLATE seed");
	$works++ if value($coord, $one, db => "first$round") eq 'SELECT 1';
	$command->("ALTER DATABASE first$round RENAME TO next$round");
	my $name = $round % 10 == 0 ? "next$round" : "last$round";
	$command->($round % 10 == 0 ? "ALTER DATABASE $name SET TABLESPACE elsewhere" : "ALTER DATABASE next$round RENAME TO $name");
	my $guests = load($name);
	$works++ if value($coord, $one, db => $name) eq 'SELECT 1';
	$command->("DROP DATABASE $name WITH (FORCE)");
	$guests->kill_kill();
}
my $limit = $control > 0.5 ? 4 * $control : 2;
my ($slowest) = sort { $b <=> $a } values %took;
is(scalar(keys %took), 4 * $kRounds, "so many commands have succeeded: @{[ 4 * $kRounds ]}");
is_deeply({ map { $took{$_} > $limit ? ($_ => $took{$_}) : () } keys %took }, {},
	sprintf('... each soon (the slowest %.2f s; without a pooler worker %.2f s)', $slowest, $control));
my ($longest) = sort { $b <=> $a } values %waited;
cmp_ok(scalar(keys %waited), '>=', 2 * $kRounds, '... most of them had a pooler worker to wait for');
is_deeply({ map { $waited{$_} >= 2 ? ($_ => $waited{$_}) : () } keys %waited }, {},
	sprintf('... which has ended within two seconds each time (the longest wait %.2f s)', $longest));
is($works, 2 * $kRounds, '... and the pool worked in between each time');
ok($_->pumpable, 'the load in another database has run without an error all the time') for @others;
is(worker_pid($coord, $_), $before{$_}, "... by the same pooler worker of $_") for sort keys %before;
is(value($coord, q{SELECT string_agg(datname, ' ' ORDER BY datname) FROM pooler.workers}), 'held other postgres seed',
	'no other database has a pooler worker, or should have');
wait_until($dn, q{SELECT count(*) FROM pg_stat_activity WHERE application_name ~ '^polarx_pooler/(first|next|last)'}, '0',
	'the datanode has no connection of them');
$_->kill_kill() for @others;

# A command that waits in the middle: for a lock, for a session, for a pooler worker that is stuck. As
# long as it waits sessions are told who is in the way. However it ends, nothing stays blocked.
my $guest = session($coord);
sub waits
{
	my ($where) = @_;
	wait_until($coord, "SELECT count(*) FROM pg_stat_activity WHERE pid = " . $admin->pid . " AND $where", '1',
		'... the command waits', limit => 4);
	return;
}
my $told = 0;
my %wait = (
	'for a lock' => sub {
		my $inside = session($coord, db => 'held');
		$guest->ask(q{BEGIN; COMMENT ON DATABASE held IS 'held'});
		$admin->tell('DROP DATABASE held WITH (FORCE)');
		waits(q{wait_event_type = 'Lock'});
		like($inside->refused($one), qr/ERROR:  57P03: (?s:.*)Process @{[ $admin->pid ]} runs a command that needs the database/,
			'... a session of the database is told') if $told++ == 0;
		return sub { $guest->ask('ROLLBACK'); $inside->quit(); };
	},
	'for a session of the database' => sub {
		my $inside = session($coord, db => 'held');
		$admin->tell('DROP DATABASE held');
		waits(q{state = 'active'});
		is($inside->ask($one), 'SELECT 1', '... and disturbs nobody before they have left');
		return sub { $inside->quit() };
	},
	'for a pooler worker that is stuck' => sub {
		push @stopped, worker_pid($coord, 'held');
		kill 'STOP', @stopped;
		$admin->tell('DROP DATABASE held');
		waits(q{wait_event_type = 'Extension'});
		return sub { kill 'CONT', splice @stopped; };
	});
my %end = (
	'cancelled' => sub { value($coord, 'SELECT pg_cancel_backend(' . $admin->pid . ')'); $admin->hear(); },
	'terminated' => sub {
		my $pid = $admin->pid;
		value($coord, "SELECT pg_terminate_backend($pid, 10000)");
		eval { $admin->quit() };
		$admin = session($coord);
	});
for my $wait (sort keys %wait)
{
	for my $end (sort keys %end)
	{
		my $name = "waiting $wait, $end";
		is(value($coord, $one, db => 'held'), 'SELECT 1', "$name: before");
		my $let_go = $wait{$wait}->();
		within(3, '... the command ends', $end{$end});
		$let_go->();
		wait_until($coord, $one, 'SELECT 1', '... afterwards the pool works again', db => 'held', limit => 10);
		is(value($coord, q{SELECT state FROM pooler.workers WHERE datname = 'held'}), 'ready', '... its pooler worker is ready');
	}
}

# Two commands at once block one database: the last one to end lets it go.
$guest->ask(q{BEGIN; COMMENT ON DATABASE held IS 'held'});
my $second = session($coord);
$_->tell('ALTER DATABASE held RENAME TO gone') for $admin, $second;
wait_until($coord, q{SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'ALTER DATABASE held%'}, '2',
	'two commands wait');
value($coord, 'SELECT pg_cancel_backend(' . $second->pid . ')');
like(($second->hear())[1], qr/57014/, '... one is cancelled');
is(value($coord, q{SELECT state FROM pooler.workers WHERE datname = 'held'}), 'blocked', '... the other one blocks still');
$guest->ask('ROLLBACK');
is(($admin->hear())[1], '', '... and succeeds');
is(value($coord, $one, db => 'gone'), 'SELECT 1', '... the pool works under the new name');
value($coord, 'ALTER DATABASE gone RENAME TO held');

# A database that was stopped, dropped and made again with the same oid starts afresh.
my $oid = value($coord, q{SELECT max(oid::bigint) + 1000 FROM pg_database});
for my $round (1, 2)
{
	value($coord, "CREATE DATABASE again OID $oid TEMPLATE seed");
	is(value($coord, $one, db => 'again'), 'SELECT 1', "a database of that oid, round $round: the pool works");
	value($coord, 'SELECT pooler.stop()', db => 'again');
	value($coord, 'DROP DATABASE again');
}

# Who has no right stops nothing, in whatever wrapping.
value($coord, 'CREATE ROLE mallory LOGIN; CREATE ROLE owner; ALTER DATABASE held OWNER TO owner');
my $worker = worker_pid($coord, 'held');
for my $sql ('DROP DATABASE held', 'DROP DATABASE IF EXISTS held WITH (FORCE)', 'ALTER DATABASE held RENAME TO mine',
	'SET ROLE owner; DROP DATABASE held', 'CREATE DATABASE copy TEMPLATE held', 'ALTER DATABASE held OWNER TO mallory',
	'ALTER DATABASE held CONNECTION LIMIT 0', 'ALTER DATABASE held SET TABLESPACE elsewhere')
{
	fails_with($coord, $sql, '42501', qr/./, "mallory: $sql", user => 'mallory');
}
for my $sql ('BEGIN; DROP DATABASE held', 'BEGIN; CREATE DATABASE copy TEMPLATE held', 'SELECT 1\; DROP DATABASE held',
	'BEGIN; ALTER DATABASE held SET TABLESPACE elsewhere', q{DO 'BEGIN EXECUTE ''ALTER DATABASE held SET TABLESPACE elsewhere''; END'},
	'SET default_transaction_read_only = on; ALTER DATABASE held RENAME TO mine')
{
	fails_with($coord, $sql, '25\w\w\w', qr/./, "the superuser: $sql");
}
is(worker_pids($coord, 'held'), $worker, '... none of which has stopped the pooler worker');

# RENAME in a transaction block: blocked to its end, whichever it is.
$admin->ask('BEGIN; ALTER DATABASE held RENAME TO moved');
is(value($coord, q{SELECT state FROM pooler.workers WHERE datname = 'held'}), 'blocked', 'RENAME in a transaction: blocked');
$admin->ask('ROLLBACK');
is(value($coord, $one, db => 'held'), 'SELECT 1', '... rolled back: works');

# The command's backend dies without a word: the server restarts, nothing stays blocked.
push @stopped, worker_pid($coord, 'held');
kill 'STOP', @stopped;
$admin->tell('DROP DATABASE held');
waits(q{wait_event_type = 'Extension'});
my $victim = $admin->pid;
kill 'KILL', $victim;
kill 'CONT', splice @stopped;
wait_until($coord, $one, 'SELECT 1', 'SIGKILL: the database is there, its pool works', db => 'held');
crashed_by($coord, $victim);

for my $session ($admin, $guest, $second) { eval { $session->quit() }; }
finish(crashed => $coord);
