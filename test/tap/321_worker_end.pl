# The pooler worker's own end, by signals, shutdowns and the postmaster's death, while sessions hold
# leases, wait and run statements: no transaction is half done, sessions go on, nobody is left behind.

use strict;
use warnings;
use PolarxPooler;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my @stopped;    # processes to be continued, come what may
END { kill 'CONT', @stopped if @stopped; }

my $coord = start_coordinator(conf => <<'END');
restart_after_crash = on
pooler.min_pool_size = 1
pooler.min_free_size = 0
pooler.pooler_connect_timeout = 20s
END
my $dn = start_datanode('dn1');
add_node($coord, 'dn1', $dn);
value($dn, 'CREATE TABLE t (id text PRIMARY KEY)');
my $one = q{SELECT pooler.exec('dn1', 'SELECT 1')};
sub insert { return "SELECT pooler.exec('dn1', 'INSERT INTO t VALUES (\$1)', '$_[0]')"; }

sub terminate
{
	my $worker = worker_pid($coord);
	kill 'TERM', $worker;
	return $worker;
}

# Sessions that are attached and hold nothing do not notice.
my @sessions = map { session($coord) } 1 .. 4;
$_->ask($one) for @sessions;
for my $round (1 .. 5)
{
	my $worker = terminate();
	is($_->ask($one), 'SELECT 1', "round $round: attached, idle: the next statement works") for $sessions[ $round % 4 ];
	worker_pid($coord, 'postgres', $worker);
}
$_->ask($one) for @sessions;

# A storm of SIGTERM while transactions come and go: each is either done or reported as failed.
my (@done, %failed);
my $number = 0;
for my $round (1 .. 25)
{
	my @told = map {
		my $id = 'r' . ++$number;
		my @ways = (insert($id), 'BEGIN; ' . insert($id) . '; COMMIT', 'BEGIN; ' . insert($id) . "; SELECT pg_sleep(0.03); $one; COMMIT");
		$_->tell($ways[ $number % 3 ]);
		[ $_, $id ]
	} @sessions;
	usleep(1000 * ($round % 8));
	terminate();
	for my $pair (@told)
	{
		my ($session, $id) = @$pair;
		my (undef, $err) = $session->hear();
		if   ($err =~ /(?:ERROR|FATAL):  (\w+)/) { $failed{$id} = $1; }
		else                                     { push @done, $id; }
		$session->ask('ROLLBACK');
	}
	$_->ask($one) for @sessions;    # after at most one error each works
}
pass('25 times SIGTERM: after at most one error every session works');
is_deeply([ grep { !/^(?:08|57P03)/ } values %failed ], [], '... which says that a connection was lost');
my %there = map { $_ => 1 } split /\n/, value($dn, 'SELECT id FROM t');
is_deeply([ grep { !$there{$_} } @done ], [], '... what was reported as done is done');
is_deeply([ grep { $there{$_} && $failed{$_} ne '08007' } keys %failed ], [], '... what failed is not');
cmp_ok(scalar(@done), '>', 0, '... and some were done');

# Signals that mean nothing to it, in storms, and reloads of changing settings.
my $worker = worker_pid($coord);
my ($postmaster) = slurp_file($coord->data_dir . '/postmaster.pid') =~ /\A(\d+)/;
my $conf = $coord->data_dir . '/postgresql.conf';
for my $round (1 .. 60)
{
	append_to_file($conf, 'pooler.max_pool_size = ' . (100 + $round) . "\n");
	kill 'HUP', $postmaster;
	kill $_, $worker for qw(HUP USR1 URG INT USR2 PIPE ALRM CHLD HUP HUP);
	next if $round % 5;
	$_->tell($one) for @sessions;
	($_->hear())[0] eq 'SELECT 1' or die "no answer" for @sessions;
}
wait_until($coord, 'SELECT max_size FROM pooler.pools', '160', 'a storm of SIGHUP: the last settings are in force');
is(worker_pids($coord), $worker, '... by the same pooler worker');
is($_->ask($one), 'SELECT 1', '... work goes on') for $sessions[0];

# A cancel that is stuck, since the datanode's postmaster is stopped, holds up no end.
my ($dn_postmaster) = slurp_file($dn->data_dir . '/postmaster.pid') =~ /\A(\d+)/;
$sessions[0]->ask("BEGIN; $one; SET statement_timeout = '300ms'");
@stopped = ($dn_postmaster);
kill 'STOP', $dn_postmaster;
my $err = $sessions[0]->refused(q{SELECT pooler.exec('dn1', 'SELECT pg_sleep(60)')});
like($err, qr/57014/, 'a statement is cancelled, at a datanode that accepts no cancel');
$worker = terminate();
my $took = wait_for('its end', sub { ended($worker) });
cmp_ok($took, '<', 2, sprintf('... SIGTERM ends the pooler worker all the same (%.2f s)', $took));
kill 'CONT', $dn_postmaster;
@stopped = ();
$sessions[0]->ask('ROLLBACK; RESET statement_timeout');
is($sessions[0]->ask($one), 'SELECT 1', '... and the session works with the next one');
wait_until($dn, q{SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND state = 'active'}, '0',
	'... the statement has ended');

# Everything at once: a lease in a transaction, a statement that runs, a request that waits for
# room, one that waits for a connect.
my ($silent_port, $silent) = silent_port();
value($coord, "CREATE SERVER silent FOREIGN DATA WRAPPER polarx_pooler OPTIONS (host '127.0.0.1', port '$silent_port');"
	  . "CREATE USER MAPPING FOR CURRENT_USER SERVER silent OPTIONS (user 'x')");
add_node($coord, 'tight', $dn, server => { max_pool_size => 1 });
my $running = q{SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(61)' AND state = 'active'};

# In these sessions, anew; what is inserted with that id is not committed.
sub occupy
{
	my ($id) = @_;
	eval { $_->quit() } for @sessions;
	@sessions = map { session($coord) } 1 .. 4;
	$sessions[0]->ask('BEGIN; ' . insert($id) . q{; SELECT pooler.exec('tight', 'SELECT 1')});
	$sessions[1]->tell(q{SELECT pooler.exec('dn1', 'SELECT pg_sleep(61)')});
	$sessions[2]->tell(q{SET pooler.queue_timeout = '60s'; SELECT pooler.exec('tight', 'SELECT 1')});
	$sessions[3]->tell(q{SELECT pooler.exec('silent', 'SELECT 1')});
	wait_until($dn, $running, '1', "$id: a statement runs");
	wait_until($coord, q{SELECT (SELECT waiting FROM pooler.pools WHERE node = 'tight'),
		(SELECT connecting > 0 AND waiting = 1 FROM pooler.pools WHERE node = 'silent')}, '1|t', '... and requests wait');
	my ($main) = slurp_file($coord->data_dir . '/postmaster.pid') =~ /\A(\d+)/;
	return ($main, worker_pid($coord), split ' ', slurp_file("/proc/$main/task/$main/children"));
}

# Nothing of it is left at the datanode; afterwards all works again.
sub nothing_left
{
	my ($id) = @_;
	wait_until($dn, q{SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'polarx%'}, '0',
		"$id: the datanode has no connection of it any more");
	is(value($dn, "SELECT count(*) FROM t WHERE id = '$id'"), '0', '... nothing uncommitted has stayed');
	return;
}

# A request that has waited for longer than a session waits to attach follows to the next worker.
eval { $_->quit() } for @sessions;
set_conf($coord, 'pooler.pooler_connect_timeout' => '1s');
@sessions = map { session($coord) } 1 .. 2;
$sessions[0]->ask(q{BEGIN; SELECT pooler.exec('tight', 'SELECT 1')});
$sessions[1]->tell(q{SET pooler.queue_timeout = '60s'; SELECT pooler.exec('tight', 'SELECT 1')});
wait_until($coord, q{SELECT sum(waiting) FROM pooler.pools WHERE node = 'tight'}, '1', 'a request waits');
usleep(1_200_000);
my $before = terminate();
worker_pid($coord, 'postgres', $before);
$sessions[0]->ask('COMMIT');
is(join('', $sessions[1]->hear()), 'SELECT 1', '... for longer than a session waits to attach, and follows to the next worker');
set_conf($coord, 'pooler.pooler_connect_timeout' => undef);

for my $mode (qw(fast immediate))
{
	my ($main, $ending, @children) = occupy($mode);
	my $offset = log_offset($coord);
	my $start = mark();
	$coord->stop($mode);
	cmp_ok(calm_since($start), '<', 10, "$mode: the server stops soon");
	is_deeply([ grep { !ended($_) } $ending, @children ], [], '... no process is left');
	nothing_left($mode);
	unlike(log_since($coord, $offset), qr/background worker "polarx_pooler worker|still waiting|could not (?!send data to client)/, '... nothing odd is logged');
	$coord->start();
	wait_until($coord, $one, 'SELECT 1', '... started, it works again');
}

# Smart: sessions that are there may use the pool to their end.
eval { $_->quit() } for @sessions;
my $last = session($coord);
$last->ask("BEGIN; $one");
my $stop = IPC::Run::start([ 'pg_ctl', '-D', $coord->data_dir, '-m', 'smart', '-W', 'stop' ], '>', '/dev/null');
$stop->finish();
wait_for('the smart stop to begin', sub { slurp_file($coord->logfile) =~ /received smart shutdown request/ });
is($last->ask("$one; COMMIT; BEGIN; " . insert('smart') . '; COMMIT'), "SELECT 1\nINSERT 0 1", 'smart: the session that is there works on');
$last->quit();
wait_for('the server to stop', sub { !-e $coord->data_dir . '/postmaster.pid' });
pass('... after which the server stops');
$coord->stop('fast', fail_ok => 1);
$coord->start();
is(value($dn, q{SELECT count(*) FROM t WHERE id = 'smart'}), '1', '... what was committed is there');

# The postmaster's death.
my ($main, $ending, @children) = occupy('orphaned');
my $start = mark();
$coord->kill9();
$took = wait_for('the pooler worker to end', sub { ended($ending) });
cmp_ok($took, '<', 2, sprintf('postmaster killed: the pooler worker ends by itself (%.2f s)', $took));
$took = wait_for('all processes to end', sub { !grep { !ended($_) } @children });
cmp_ok($took, '<', 10, sprintf('... and so do sessions with leases, statements and requests (%.2f s)', $took));
nothing_left('orphaned');
unlink $coord->data_dir . '/postmaster.pid', $coord->host . '/.s.PGSQL.' . $coord->port . '.lock';
$coord->start();
wait_until($coord, $one, 'SELECT 1', '... started, it works again');

# A crash of the launcher, which the server answers by a restart of all processes.
my $launcher = value($coord, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'polarx_pooler launcher'});
(undef, $ending) = occupy('crash');
is(value($coord, 'SELECT pooler.stop()'), 't', 'a pooler worker that is stopped');
wait_for('its end', sub { ended($ending) });
kill 'KILL', $launcher;
wait_until($coord, $one, 'SELECT 1', 'the launcher killed by SIGKILL: works again, stopped or not');
is(value($coord, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'polarx_pooler launcher'}), '1',
	'... with a launcher');
is(value($dn, q{SELECT count(*) FROM t WHERE id = 'crash'}), '0', '... nothing uncommitted has stayed');
crashed_by($coord, $launcher);

eval { $_->quit() } for @sessions;
finish(crashed => $coord);
