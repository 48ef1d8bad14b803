# What the pooler itself sends and a stopped datanode does not answer ends at
# pooler.pooler_dn_set_timeout: that connection is closed and counted, and nothing else waits.

use strict;
use warnings;
use List::Util qw(max);
use PolarxParameter;
use PolarxPooler;
use PolarxProxy qw(hanging_port);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my %stopped;
sub halt { $stopped{$_} = kill 'STOP', $_ for @_; return; }
sub go_on { kill 'CONT', keys %stopped; %stopped = (); return; }
END { local $?; go_on(); }

my $limit = 1;
# With one thread whatever blocks one connection would block all.
my $coord = start_coordinator(conf => <<"END");
pooler.pooler_dn_set_timeout = ${limit}s
pooler.pooler_connect_timeout = 3s
pooler.pooler_scale_factor = 1
pooler.min_pool_size = 0
pooler.min_free_size = 0
END
check_parameter($coord, name => 'pooler.pooler_dn_set_timeout', boot => 10, start => $limit,
	min => 1, max => 3600, unit => 's', context => 'sighup');
my %dn = map { $_ => start_datanode($_) } qw(dn1 dn2);
my ($postmaster) = slurp_file($dn{dn1}->data_dir . '/postmaster.pid') =~ /\A(\d+)/;
add_node($coord, $_, $dn{$_}) for sort keys %dn;
# Their connections get old, for the memory check at the end.
add_node($coord, "m$_", $dn{"dn$_"}, server => { min_pool_size => 1, application_name => 'measured' }) for 1, 2;

my $one = q{SELECT pooler.exec('dn1', 'SELECT 1')};
my $pid_of = q{SELECT p FROM pooler.query('dn1', 'SELECT pg_backend_pid()') AS r(p int)};
my ($s, $t, $other, $watch) = map { session($coord) } 1 .. 4;
my (undef, $usual) = meanwhile($other, 'dn2', sub { $_[0] >= 20 });

sub errors { return $watch->ask("SELECT closed_error FROM pooler.pools WHERE node = '$_[0]'"); }

# Two tests: until $over->() is true, sessions work elsewhere as fast as ever.
sub nobody_else_waits
{
	my ($over, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($count, $slowest) = meanwhile($other, 'dn2', $over);
	cmp_ok($count, '>=', 5, "$name: the other node's session works on");
	cmp_ok($slowest, '<', max(0.5, 5 * $usual), sprintf('... as fast as before (slowest %.3f s, before %.3f s)',
			$slowest, $usual));
	return;
}

# Awaits that the connection with that process on the datanode has the state; returns its age then.
sub age_in_state
{
	my ($pid, $state) = @_;
	return $watch->ask("SELECT extract(epoch FROM clock_timestamp() - state_since) FROM pooler.connections"
		  . " WHERE remote_pid = $pid AND state = '$state'");
}

# The connection, which is in that state or soon will be, leaves it at the time-out.
sub leaves_at_limit
{
	my ($pid, $state, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($age, $now, $start) = ('', '', mark());
	wait_for("$state of $pid", sub { ($age = age_in_state($pid, $state)) ne '' });
	nobody_else_waits(sub { $now = age_in_state($pid, $state); $age = $now if $now ne ''; return $now eq ''; }, $name);
	ok($age > $limit - 0.4 && ($age < $limit + 0.5 || calm_since($start) < $limit + 0.5), sprintf('... until the time-out (%.2f s)', $age));
	return;
}

sub is_closed
{
	my ($node, $pid, $errors) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is(errors($node), $errors + 1, '... counted as closed by an error');
	# Closing waits for the datanode's end of file, as long again at most.
	my $took = wait_for('the slot to go',
		sub { $watch->ask("SELECT count(*) FROM pooler.connections WHERE remote_pid = $pid") eq '0' });
	cmp_ok($took, '<', $limit + 1, '... the slot is given up');
	is(errors($node), $errors + 1, '... and counted once');
	return;
}

# One connection of dn1 idle: its process.
sub one_idle
{
	wait_for('dn1 to answer', sub { $s->tell($one); ($s->hear())[1] eq '' });
	$s->ask(q{SELECT pooler.clean('dn1')});
	$s->ask($one);
	my $idle = q{SELECT total, idle FROM pooler.pools WHERE node = 'dn1'};
	wait_for('one idle connection', sub { $watch->ask($idle) eq '1|1' });
	return $watch->ask(q{SELECT remote_pid FROM pooler.connections WHERE node = 'dn1'});
}

my $reason = qr/pooler\.pooler_dn_set_timeout \(\d s\)/;
for my $what ('backend', 'backend and postmaster')
{
	my @also = $what eq 'backend' ? () : ($postmaster);

	# Reset: $t's connection is idle and good, $s's is stuck.
	one_idle();
	$t->ask("BEGIN; $one");
	my $pid = $s->ask("BEGIN; $pid_of");
	$t->ask('COMMIT');
	wait_for('an idle connection', sub { $watch->ask(q{SELECT idle FROM pooler.pools WHERE node = 'dn1'}) eq '1' });
	my $errors = errors('dn1');
	my $offset = log_offset($coord);
	halt($pid, @also);
	within(0.7, "reset, $what: ROLLBACK does not wait", sub { $s->ask('ROLLBACK') });
	within(0.7, '... nor does another session of that node', sub { $t->ask($one) });
	within(0.7, '... nor this one', sub { $s->ask($one) });
	leaves_at_limit($pid, 'resetting', "reset, $what");
	is_closed('dn1', $pid, $errors);
	wait_log($coord, qr/datanode "dn1" is closed: .*$reason/, $offset, '... the log says why');
	go_on();
	wait_until($dn{dn1}, "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid", '0', '... the datanode closes it too');

	# Ping on an idle connection: once that has been silent for half of the time, another one tells.
	$pid = one_idle();
	$errors = errors('dn1');
	halt($pid, @also);
	my $start = mark();
	$s->tell(q{SELECT ok, error FROM pooler.ping('dn1')});
	nobody_else_waits(sub { $s->answered() }, "ping, $what");
	my $took = time - $start;
	my ($told, $least) = @also ? (qr/^f\|.*"dn1".*pooler\.pooler_dn_set_timeout \($limit s\)/, $limit) : (qr/^t\|$/, $limit / 2);
	like(($s->hear())[0], $told, '... tells the truth about the node');
	ok($took > $least - 0.05 && calm_since($start) < $limit + 0.7, sprintf('... within the time-out (%.2f s)', $took));
	wait_for('the end of that connection', sub { errors('dn1') > $errors });
	is_closed('dn1', $pid, $errors);
	go_on();

	# Warm-up: one that sleeps, so that the process can be stopped in it.
	one_idle();
	$errors = errors('dn1');
	$offset = log_offset($coord);
	set_conf($coord, 'pooler.warmup_query' => 'SELECT pg_sleep(1000 + ' . @also . ')');
	$watch->ask('SELECT pooler.reload()');
	my $grow = @also ? 'SET' : 'ADD';
	my $sleeper = q{SELECT pid FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(1000 + %'};
	$watch->ask("ALTER SERVER dn1 OPTIONS ($grow min_pool_size '2'); SELECT pooler.reload()");
	wait_for('a warm-up', sub { ($pid = value($dn{dn1}, $sleeper)) =~ /^\d+$/ });
	halt($pid, @also);
	within(0.7, "warm-up, $what: a session of that node does not wait", sub { $s->ask($one) });
	if (!@also)
	{
		$s->ask("BEGIN; $one");
		within(0.7, '... nor one that needs another connection than the two', sub { $t->ask($one) });
		$s->ask('COMMIT');
	}
	leaves_at_limit($pid, 'warming', "warm-up, $what");
	is_closed('dn1', $pid, $errors);
	wait_log($coord, qr/pooler\.warmup_query failed on datanode "dn1".*$reason/, $offset, '... the log says why');
	go_on();
	wait_until($coord, q{SELECT total >= 2 AND total = idle FROM pooler.pools WHERE node = 'dn1'}, 't',
		'... the pool gets its minimum all the same');
	set_conf($coord, 'pooler.warmup_query' => undef);
	$watch->ask(q{ALTER SERVER dn1 OPTIONS (SET min_pool_size '0'); SELECT pooler.reload()});

	# SET replay.
	$pid = one_idle();
	$errors = errors('dn1');
	$t->ask(q{SELECT pooler.set_param('work_mem', '7MB')});
	wait_for('the setting', sub { $t->ask('SHOW pooler.pooler_dn_set_timeout') eq "${limit}s" });
	halt($pid, @also);
	$start = mark();
	$t->tell($one);
	nobody_else_waits(sub { $t->answered() }, "SET replay, $what");
	$took = time - $start;
	like(($t->hear())[1], qr/ERROR:  08006: .*"dn1".*pooler\.pooler_dn_set_timeout \($limit s\)/,
		'... 08006 names node, parameter and value');
	ok($took > $limit - 0.05 && calm_since($start) < $limit + 0.7, sprintf('... at the time-out (%.2f s)', $took));
	wait_for('the lease to be closed', sub { errors('dn1') > $errors });
	is_closed('dn1', $pid, $errors);
	go_on();
	wait_for('dn1 to answer', sub { $t->tell($one); ($t->hear())[1] eq '' });
	is($t->ask(q{SELECT v FROM pooler.query('dn1', 'SHOW work_mem') AS r(v text)}), '7MB',
		'... the next connection is set');
	$t->ask('SELECT pooler.reset_params()');
}

# The postmaster alone: what is open works on.
my $pid = one_idle();
halt($postmaster);
within(0.7, 'postmaster alone: a ping on an idle connection', sub {
		is($s->ask(q{SELECT ok FROM pooler.ping('dn1')}), 't', '... is answered') });
within(0.7, '... and so are statements, and resets', sub { $s->ask($one) for 1 .. 5 });
is($s->ask($pid_of), $pid, '... on the connection that was there');
go_on();

# A ping without a connection at hand opens one.
my ($silent_port, $silent) = silent_port();
my ($hanging_port, $hanging) = hanging_port();
add_node($coord, 'silent', $dn{dn1}, server => { port => $silent_port });
add_node($coord, 'hanging', $dn{dn1}, server => { port => $hanging_port });
my %pinger = (silent => $s, hanging => $t);
my $start = mark();
$pinger{$_}->tell("SELECT ok, error FROM pooler.ping('$_')") for keys %pinger;
nobody_else_waits(sub { $s->answered() && $t->answered() }, 'ping of nodes that are silent and hanging');
my $took = time - $start;
like(($pinger{$_}->hear())[0], qr/^f\|.*"$_".*pooler\.pooler_dn_set_timeout \($limit s\)/, "... $_: the error says why")
  for sort keys %pinger;
ok($took > $limit - 0.05 && calm_since($start) < $limit + 1, sprintf('... both at the time-out (%.2f s)', $took));

# Memory check, with a time-out changed by reload: of connections that are due for one as soon as the interval is shortened.
my %pid = map { $_ => $watch->ask("SELECT remote_pid FROM pooler.connections WHERE node = '$_' AND state = 'idle'") }
  qw(m1 m2);
like("$pid{m1} $pid{m2}", qr/^\d+ \d+$/, 'two old idle connections');
wait_for('them to be old enough', sub {
		$watch->ask(q{SELECT min(clock_timestamp() - created_at) > '10 s' FROM pooler.connections WHERE node IN ('m1', 'm2')})
		  eq 't' });
my $pids = backend_pids($dn{dn1}) . backend_pids($dn{dn2});
$limit = 2;
set_conf($coord, 'pooler.pooler_dn_set_timeout' => "${limit}s");
$watch->ask('SELECT pooler.reload()');
is(backend_pids($dn{dn1}) . backend_pids($dn{dn2}), $pids, 'changed by a reload: no connection is lost');
my %errors = map { $_ => errors($_) } qw(m1 m2);
my $offset = log_offset($coord);
halt(@pid{qw(m1 m2)}, $postmaster);
set_conf($coord, 'pooler.pool_session_context_check_gap' => '10s');
leaves_at_limit($pid{m2}, 'checking', 'memory check, backend');
is_closed('m2', $pid{m2}, $errors{m2});
is_closed('m1', $pid{m1}, $errors{m1});
wait_log($coord, qr/datanode "$_" is closed: .*$reason/, $offset, "memory check: the log says why ($_)") for qw(m1 m2);
go_on();
wait_until($coord, q{SELECT count(*) FROM pooler.connections WHERE node IN ('m1', 'm2') AND state = 'idle'}, '2',
	'... both nodes get a new connection');
$_->quit() for $s, $t, $other, $watch;
finish();
