# The life of the workers: started, stopped, killed, in the way of nobody; their threads.

use strict;
use warnings;
use PolarxPooler;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $coord = start_coordinator(conf => "pooler.pooler_scale_factor = 3\n");
my $dn = start_datanode('dn');
add_node($coord, 'dn', $dn);
my $one = q{SELECT pooler.exec('dn', 'SELECT 1')};

sub make_database
{
	my ($db) = @_;
	value($coord, "CREATE DATABASE $db");
	value($coord, 'CREATE EXTENSION polarx_pooler', db => $db);
	add_node($coord, 'dn', $dn, db => $db);
	is(value($coord, $one, db => $db), 'SELECT 1', "$db: the pool works");
	return;
}

# Waits until the process is gone; returns the seconds since $start.
sub gone
{
	my ($pid, $start) = @_;
	# A zombie has ended, whoever is to reap it.
	wait_for("the end of process $pid",
		sub { !kill(0, $pid) || eval { slurp_file("/proc/$pid/stat") } !~ /\) [^ZX]/ });
	return calm_since($start);
}

# Started by CREATE EXTENSION, at server start, and by a session.
my $worker = worker_pid($coord);
like($worker, qr/^\d+$/, 'CREATE EXTENSION starts the worker');
is(value($coord, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'polarx_pooler launcher'}),
	'1', 'there is one launcher');
$coord->restart();
like(worker_pid($coord), qr/^\d+$/, 'the server\'s start starts it');
make_database('busy');
value($coord, 'CREATE DATABASE plain');
is(worker_pids($coord, 'plain'), '', 'a database without the extension has none');
value($coord, 'BEGIN; CREATE EXTENSION polarx_pooler; ROLLBACK', db => 'plain');
is(worker_pids($coord, 'plain'), '', 'nor has one whose CREATE EXTENSION was rolled back');

# Killed.
$worker = worker_pid($coord);
kill 'TERM', $worker;
my $start = mark();
my $next = worker_pid($coord, 'postgres', $worker);
cmp_ok(calm_since($start), '<', 1, 'killed by SIGTERM: another one runs within a second');
is(value($coord, $one), 'SELECT 1', '... and the pool works');
my $holder = session($coord);
my $lent = $holder->ask(q{BEGIN; SELECT p FROM pooler.query('dn', 'SELECT pg_backend_pid()') AS r(p int)});
kill 'TERM', worker_pid($coord);
$holder->tell("$one; COMMIT");
$holder->hear();
$holder->ask('ROLLBACK');
wait_until($coord, $one, 'SELECT 1', 'killed while a lease is held: other sessions work');
is($holder->ask($one), 'SELECT 1', '... and so does the holder');
wait_until($dn, "SELECT count(*) FROM pg_stat_activity WHERE pid = $lent", '0',
	'... whose connection of the old worker is closed');
wait_until($coord, "SELECT sum(total) = (SELECT n FROM pooler.query('dn', \$\$SELECT count(*) FROM pg_stat_activity
	WHERE application_name = 'polarx_pooler/postgres'\$\$) AS r(n int)) FROM pooler.pools", 't',
	'... as are all the others');
my $launcher = value($coord, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'polarx_pooler launcher'});
kill 'TERM', $launcher;
wait_until($coord, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'polarx_pooler launcher'
	AND pid <> $launcher", '1', 'a killed launcher comes back', limit => 3);
$worker = worker_pid($coord);
kill 'TERM', $worker;
like(worker_pid($coord, 'postgres', $worker), qr/^\d+$/, '... and starts workers');
$holder->quit();

# stop, start.
worker_pid($coord);
is(value($coord, 'SELECT pooler.stop()'), 't', 'stop');
is(worker_pids($coord), '', '... ends the worker');
fails_with($coord, $one, '57P03', qr/stop/, 'afterwards a request fails: 57P03 says why');
is(worker_pids($coord), '', '... and starts none');
is(value($coord, $one, db => 'busy'), 'SELECT 1', 'other databases go on');
is(value($coord, 'SELECT pooler.start()'), 't', 'start');
is(value($coord, $one), 'SELECT 1', '... and the pool works');
value($coord, 'SELECT pooler.stop()');
$coord->restart();
wait_until($coord, $one, 'SELECT 1', 'a server restart lifts stop()');
worker_pid($coord, 'busy');

# DROP EXTENSION.
make_database('dropped');
value($coord, 'SET client_min_messages = error; DROP EXTENSION polarx_pooler CASCADE', db => 'dropped');
wait_until($coord, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'polarx_pooler worker'
	AND datname = 'dropped'}, '0', 'DROP EXTENSION: the worker ends');
value($coord, 'CREATE EXTENSION polarx_pooler', db => 'dropped');
like(worker_pid($coord, 'dropped'), qr/^\d+$/, '... and comes back with the extension');

# Database commands, while every pool is busy.
my $script = $coord->basedir . '/one.sql';
append_to_file($script, "$one;\n");
my @load = map {
	IPC::Run::start([ 'pgbench', '-n', '-C', '-c', 2, '-R', 50, '-T', 60, '-h', $coord->host, '-p', $coord->port,
			'-f', $script, $_ ], '>', '/dev/null', '2>', '/dev/null')
} qw(postgres busy);
my $before = worker_pid($coord, 'busy');
within(2, 'DROP DATABASE', sub { value($coord, 'DROP DATABASE dropped') });
is(worker_pids($coord, 'dropped'), '', '... no worker stays');
make_database('a');
within(2, 'ALTER DATABASE RENAME', sub { value($coord, 'ALTER DATABASE a RENAME TO b') });
like(worker_pid($coord, 'b'), qr/^\d+$/, '... the worker runs again');
is(value($coord, $one, db => 'b'), 'SELECT 1', '... under the new name');
is(value($coord, q{SELECT count(*) FROM pooler.workers WHERE datname = 'b'}), '1', '... which the view shows');
my $folder = PostgreSQL::Test::Utils::tempdir;
value($coord, "CREATE TABLESPACE elsewhere LOCATION '$folder'");
within(2, 'ALTER DATABASE SET TABLESPACE', sub { value($coord, 'ALTER DATABASE b SET TABLESPACE elsewhere') });
is(value($coord, $one, db => 'b'), 'SELECT 1', '... the pool works');
worker_pid($coord, 'b');
within(2, 'CREATE DATABASE TEMPLATE', sub { value($coord, 'CREATE DATABASE c TEMPLATE b') });
is(value($coord, $one, db => 'b'), 'SELECT 1', '... the template\'s pool works');
is(value($coord, $one, db => 'c'), 'SELECT 1', '... and a session starts the copy\'s worker');
within(2, 'DROP DATABASE WITH (FORCE)', sub {
		my $guest = session($coord, db => 'c');
		$guest->ask("BEGIN; $one");
		value($coord, 'DROP DATABASE c WITH (FORCE)');
		eval { $guest->quit() };
	});
is(worker_pid($coord, 'busy'), $before, 'the workers of other databases were left alone');

# Commands that do not happen.
$before = worker_pid($coord, 'b');
my $guest = session($coord, db => 'b');
fails_with($coord, 'DROP DATABASE b', '55006', qr/accessed by other users/, 'DROP DATABASE while a session is in it');
wait_until($coord, $one, 'SELECT 1', '... its pool works on', db => 'b');
$guest->quit();
$before = worker_pid($coord, 'b');
fails_with($coord, 'BEGIN; DROP DATABASE b', '25001', qr/transaction block/, 'in a transaction block');
fails_with($coord, q{DO $$BEGIN EXECUTE 'DROP DATABASE b'; END$$}, '25001', qr/DROP DATABASE/, 'in a function');
value($coord, 'CREATE ROLE mallory LOGIN');
fails_with($coord, $_, '42501', qr/./, "without the right: $_", user => 'mallory')
  for 'DROP DATABASE b', 'DROP DATABASE b WITH (FORCE)', 'ALTER DATABASE b RENAME TO x',
  'ALTER DATABASE b SET TABLESPACE pg_default', 'CREATE DATABASE x TEMPLATE b';
value($coord, 'ALTER ROLE mallory CREATEDB');
fails_with($coord, $_, '42501', qr/./, "CREATEDB, not the owner: $_", user => 'mallory')
  for 'DROP DATABASE b', 'ALTER DATABASE b RENAME TO x', 'CREATE DATABASE x TEMPLATE b';
fails_with($coord, 'ALTER DATABASE b RENAME TO busy', '42P04', qr/busy/, 'a name that is taken');
fails_with($coord, 'CREATE DATABASE busy TEMPLATE b', '42P04', qr/busy/, 'a copy whose name is taken');
fails_with($coord, 'DROP DATABASE nowhere', '3D000', qr/nowhere/, 'no such database');
value($coord, 'DROP DATABASE IF EXISTS nowhere');
is(worker_pid($coord, 'b'), $before, '... stop no worker');
ok($_->pumpable, 'the load has run without an error all the time') for @load;
$_->kill_kill() for @load;

# Threads.
value($coord, $one);
my @tasks = glob '/proc/' . worker_pid($coord) . '/task/*';
my (%names, @open);
for my $task (@tasks)
{
	(my $name = slurp_file("$task/comm")) =~ s/\s+\z//;
	next unless $name =~ /^pooler-/;
	$names{$name}++;
	my ($blocked) = slurp_file("$task/status") =~ /^SigBlk:\s*([0-9a-f]+)/m;
	# SIGKILL and SIGSTOP cannot be blocked; 32 and 33 are the C library's own.
	push @open, "$name $blocked" unless $blocked eq 'fffffffe7ffbfeff';
}
is_deeply([ grep { /-w/ } sort keys %names ], [ map { "pooler-w$_" } 0 .. 2 ],
	'pooler_scale_factor worker threads, by name');
is_deeply(\@open, [], 'all signals are blocked in all threads');
is(value($coord, q{SELECT threads FROM pooler.workers WHERE datname = 'postgres'}), '3', 'the view tells');

# The end, while a connect to a silent address is under way.
my ($port, $socket) = silent_port();
value($coord, "CREATE SERVER silent FOREIGN DATA WRAPPER polarx_pooler OPTIONS (host '127.0.0.1', port '$port');"
	  . "CREATE USER MAPPING FOR CURRENT_USER SERVER silent OPTIONS (user 'x')");
my $caller = session($coord);
my $silent = q{SELECT pooler.exec('silent', 'SELECT 1')};
like($caller->refused("SET statement_timeout = '200ms'; $silent"), qr/57014/,
	'a session that waits for a connect can be cancelled');
$caller->ask('RESET statement_timeout');
sub await_connect
{
	my ($name) = @_;
	$caller->tell($silent);
	wait_until($coord, q{SELECT sum(connecting) > 0 FROM pooler.pools WHERE node = 'silent'}, 't', $name);
	return worker_pid($coord);
}
my $pid = await_connect('a connect is under way');
$start = mark();
kill 'TERM', $pid;
cmp_ok(gone($pid, $start), '<', 1, 'SIGTERM: the worker ends within a second');
# The session asks the next worker by itself.
worker_pid($coord, 'postgres', $pid);
value($coord, 'SELECT pg_cancel_backend(' . $caller->pid . ')');
like(($caller->hear())[1], qr/57014/, '... and the session that waits can be cancelled still');
$pid = await_connect('a connect is under way again');
$start = mark();
value($coord, 'SELECT pooler.stop()');
cmp_ok(gone($pid, $start), '<', 1, 'stop(): the worker ends within a second');
value($coord, 'SELECT pooler.start()');
$caller->hear();
for my $mode (qw(fast immediate))
{
	$pid = await_connect("a connect is under way before a $mode stop");
	$start = mark();
	my $stop = IPC::Run::start([ 'pg_ctl', '-D', $coord->data_dir, '-m', $mode, '-W', 'stop' ]);
	cmp_ok(gone($pid, $start), '<', 1, "$mode stop: the worker ends within a second");
	$stop->finish();
	$caller->quit();
	wait_for('the server to stop', sub { !-e $coord->data_dir . '/postmaster.pid' });
	$coord->stop($mode, fail_ok => 1);
	$coord->start();
	$caller = session($coord);
	value($coord, 'SELECT pooler.start()');
}
$pid = await_connect('a connect is under way before the postmaster dies');
$start = mark();
$coord->kill9();
cmp_ok(gone($pid, $start), '<', 1, 'postmaster death: the worker ends within a second');
$caller->quit();

# Not preloaded.
my $bare = start_coordinator(name => 'bare', preload => 0, extension => 0);
value($bare, 'CREATE EXTENSION polarx_pooler');
add_node($bare, 'dn', $dn);
like(fails_with($bare, $_, '55000', qr/polarx_pooler must be loaded via shared_preload_libraries/, "not preloaded: $_"),
	qr/HINT:.*shared_preload_libraries/, '... with a hint')
  for $one, 'SELECT * FROM pooler.pools', 'SELECT pooler.stop()';
is(value($bare, 'SELECT pooler.session_memory() > 0'), 't', 'session_memory works without');

# No room for a worker: the server's logical replication launcher and ours take both places.
$bare->append_conf('postgresql.conf',
	"shared_preload_libraries = 'polarx_pooler'\nmax_worker_processes = 2\n");
$bare->restart();
within(5, 'a worker that cannot be started is reported soon', sub {
		fails_with($bare, $one, '57P03', qr/max_worker_processes/, '57P03 says why') });

finish();
