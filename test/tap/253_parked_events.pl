# What happens while a lease is parked: changes of nodes, mappings and rights, operation, time-outs, ends
# of sessions, datanodes and pooler workers. The pooler takes the lease back or closes it as it would an
# idle connection, and the session's next statement notices no more than with one.

use strict;
use warnings;
use PolarxPooler;
use Test::More;

my $coord = start_coordinator(park => 1, conf => <<'END');
pooler.min_pool_size = 0
pooler.min_free_size = 0
pooler.pool_maintenance_timeout = 1s
pooler.pool_session_context_check_gap = 2h
pooler.pool_session_max_lifetime = 2h
END
my $dn = start_datanode('dn1', roles => { app => undef, boss => undef });
value($dn, 'GRANT pg_read_all_stats TO app');
add_node($coord, 'dn1', $dn);
value($coord, 'CREATE ROLE app LOGIN; CREATE ROLE boss LOGIN SUPERUSER');
add_mapping($coord, 'app', 'dn1', user => 'app', password_required => 'false');
add_mapping($coord, 'boss', 'dn1', user => 'boss');
my $watch = session($coord);
my $pid_on = q{SELECT pg_backend_pid()};
my $pid_sql = "SELECT v FROM pooler.query('dn1', '$pid_on') AS r(v int)";
my $setting = q{SELECT v FROM pooler.query('dn1', 'SELECT current_setting(''work_mem'')') AS r(v text)};
my $set = q{SELECT pooler.exec('dn1', 'SELECT set_config(''work_mem'', ''9MB'', false)')};

# One test: the connections of the remote user become so many leased, parked, idle, of so many.
sub becomes
{
	my ($user, $expected, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $sql = q{SELECT concat_ws(' ', coalesce(sum(leased), 0), coalesce(sum(parked), 0), coalesce(sum(idle), 0), coalesce(sum(total), 0))}
	  . " FROM pooler.pools WHERE remote_user = '$user'";
	my $now = '';
	# A pooler worker that has just ended is no answer.
	eval { wait_for($name, sub { $now = eval { $watch->ask($sql) } // $@; $now eq $expected }, 20) };
	return is($now, $expected, $name);
}

# --- events ----------------------------------------------------------------------------------------
my %session = map { $_ => session($coord, user => $_) } qw(app boss);
my $end_backend = sub { value($dn, q{SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'app'}) };
my $end_worker = sub { value($coord, 'SELECT pg_terminate_backend(' . worker_pid($coord) . ')') };

# [ what, how (a statement, or a sub), what that answers, is the connection still parked afterwards (undef:
# closed, or reset before it is used again) ] and, where the next statement fails: [ ..., its error, what ends that ]. user: whose lease is parked.
my @events = (
	[ 'reload', 'SELECT pooler.reload()', qr//, 1 ],
	[ 'ping', q{SELECT ok FROM pooler.ping('dn1')}, qr/^t$/, 1 ],
	[ 'reset_stats', 'SELECT pooler.reset_stats()', qr//, 1 ],
	[ 'terminate, which ends only who holds a lease', q{SELECT pooler.terminate('dn1')}, qr/^0$/, 1 ],
	[ 'clean of another remote user', q{SELECT pooler.clean('dn1', 'boss')}, qr/^0$/, 1 ],
	[ 'clean', q{SELECT pooler.clean('dn1', 'app')}, qr/^1$/, 0 ],
	[ 'ALTER SERVER', q{ALTER SERVER dn1 OPTIONS (ADD keepalives_idle '31')}, qr//, 0 ],
	[ 'ALTER USER MAPPING', q{ALTER USER MAPPING FOR app SERVER dn1 OPTIONS (ADD password 'x')}, qr//, 0 ],
	[ 'its backend ended', $end_backend, qr/^1$/, 0 ],
	[ 'datanode restarted', sub { $dn->restart('fast') }, qr//, 0 ],
	[ 'datanode restarted at once', sub { $dn->restart('immediate') }, qr//, 0 ],
	[ 'stop', 'SELECT pooler.stop()', qr/^t$/, 0, qr/57P03/, 'SELECT pooler.start()' ],
	[ 'end of the pooler worker', $end_worker, qr/^t$/, 0 ],
	[ 'REVOKE', 'REVOKE USAGE ON FOREIGN SERVER dn1 FROM app', qr//, undef, qr/42501/, 'GRANT USAGE ON FOREIGN SERVER dn1 TO app' ],
	[ 'DROP USER MAPPING', 'DROP USER MAPPING FOR app SERVER dn1', qr//, 0, qr/42704/,
		q{CREATE USER MAPPING FOR app SERVER dn1 OPTIONS (user 'app', password_required 'false')} ],
	[ 'a password demanded', q{ALTER USER MAPPING FOR app SERVER dn1 OPTIONS (SET password_required 'true')}, qr//, 0,
		qr/2F003/, q{ALTER USER MAPPING FOR app SERVER dn1 OPTIONS (SET password_required 'false')} ],
	[ 'SUPERUSER lost', 'ALTER ROLE boss NOSUPERUSER', qr//, undef, qr/2F003/, 'ALTER ROLE boss SUPERUSER', 'boss' ]);
for my $event (@events)
{
	my ($name, $how, $answer, $kept, $error, $undo, $user) = @$event;
	$user //= 'app';
	my $s = $session{$user};
	my $before = $s->ask("$set; $pid_sql") =~ s/.*\n//r;
	becomes($user, '0 1 0 1', "$name: a connection is parked");
	like(ref $how ? $how->() // '' : value($coord, $how), $answer, '... it happens');
	becomes($user, '0 1 0 1', '... and nothing changes') if $kept;
	wait_until($dn, "SELECT count(*) FROM pg_stat_activity WHERE pid = $before", '0', '... the connection is closed')
	  if defined $kept && !$kept;
	if (defined $error)
	{
		like($s->refused($pid_sql), qr/ERROR:  $error/, '... the next statement is refused');
		value($coord, $undo);
		# It hears of the undoing some moment later.
		wait_for('the right', sub { $s->tell($pid_sql); ($s->hear())[1] eq '' });
	}
	my $after = $s->ask($pid_sql);
	is($s->ask($setting), $kept ? '9MB' : '4MB', '... the next statement works, on a connection ' . ($kept ? 'as it was' : 'that is fresh'));
	if (defined $kept)
	{
		is($after eq $before, !!$kept, '... on ' . ($kept ? 'the same connection' : 'another one'));
		becomes($user, '0 1 0 1', '... which is parked again');
		is(backends($dn, "usename = '$user'"), 1, '... and the only one');
	}
	# While a connection was reset another one may have been opened.
	value($coord, "SELECT pooler.clean('dn1', '$user')");
	becomes($user, '0 0 0 0', '... and can be closed');
}

# --- nodes that come and go ------------------------------------------------------------------------
my $s = $session{app};
my $pid = $s->ask($pid_sql);
value($coord, q{SELECT pooler.pause('dn1')});
becomes('app', '0 0 1 1', 'pause: what is parked is taken back');
$s->tell($pid_sql);
wait_until($coord, 'SELECT count(*) FROM pooler.sessions WHERE waiting_for IS NOT NULL', '1', '... and the next statement waits');
value($coord, q{SELECT pooler.resume('dn1')});
is(($s->hear())[0], $pid, '... until resume');
is($s->ask($pid_sql), $pid, '... and so on');
becomes('app', '0 1 0 1', '... parked');
$s->ask("BEGIN; $pid_sql");
value($coord, q{SELECT pooler.pause('dn1')});
$s->ask('COMMIT');
becomes('app', '0 0 1 1', 'while a node is paused nothing is parked');
value($coord, q{SELECT pooler.resume('dn1')});
$s->ask("BEGIN; $pid_sql");
is(value($coord, q{SELECT pooler.clean('dn1', 'app')}), '1', 'clean while it is in use');
is($s->ask($pid_sql), $pid, '... which goes on');
$s->ask('COMMIT');
becomes('app', '0 0 0 0', '... then it is closed, not parked');

add_node($coord, 'gone', $dn);
my $own = session($coord);
my $on_gone = $pid_sql =~ s/dn1/gone/r;
$pid = $own->ask($on_gone);
is($own->ask($on_gone), $pid, 'a node with a parked connection');
value($coord, 'DROP SERVER gone CASCADE');
wait_until($dn, "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid", '0', '... is dropped: the connection is closed');
like($own->refused($on_gone), qr/42704/, '... and the name unknown');
add_node($coord, 'gone', $dn);
isnt($own->ask($on_gone), $pid, '... a new node of that name has a new one');
value($coord, 'DROP SERVER gone CASCADE');

# --- sessions that end -----------------------------------------------------------------------------
my $end_session = sub { value($coord, 'SELECT pg_terminate_backend(' . $_[0]->pid . ')') };
for my $way ([ 'at its own wish', sub { $_[0]->quit() } ], [ 'by pg_terminate_backend', $end_session ])
{
	my $ending = session($coord, user => 'app');
	$pid = $ending->ask("$set; $pid_sql") =~ s/.*\n//r;
	becomes('app', '0 1 0 1', "a session is to end $way->[0]");
	$way->[1]->($ending);
	becomes('app', '0 0 1 1', '... its parked connection is idle again');
	my $next = session($coord, user => 'app');
	is($next->ask("$pid_sql; $setting"), "$pid\n4MB", '... the next session has it, and it was reset');
	$next->quit();
}

# --- time ------------------------------------------------------------------------------------------
$pid = $s->ask($pid_sql);
my $age = "SELECT extract(epoch FROM clock_timestamp() - created_at) > 11 FROM pooler.connections WHERE remote_pid = $pid";
wait_until($coord, $age, 't', 'a connection grows old');
$s->ask($pid_sql);
becomes('app', '0 1 0 1', '... parked');
set_conf($coord, 'pooler.pool_session_context_check_gap' => '10s');
wait_until($coord, "SELECT memory_checked_at IS NOT NULL FROM pooler.connections WHERE remote_pid = $pid", 't',
	'its memory is measured');
is($s->ask($pid_sql), $pid, '... and it is used again');
set_conf($coord, 'pooler.pool_session_context_check_gap' => undef, 'pooler.pool_session_max_lifetime' => '10s');
wait_until($dn, "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid", '0', 'beyond its lifetime it is closed');
$pid = $s->ask($pid_sql);
wait_until($coord, q{SELECT sum(closed_lifetime) > 0 FROM pooler.pools WHERE remote_user = 'app'}, 't', '... says the counter');
set_conf($coord, 'pooler.pool_session_max_lifetime' => '2h');
$pid = $s->ask($pid_sql);
becomes('app', '0 1 0 1', 'another one is parked');
set_conf($coord, 'pooler.pool_conn_keepalive' => '3s');
becomes('app', '0 0 0 0', 'unused for pool_conn_keepalive it is taken back, and closed');
my $busy = 0;
set_conf($coord, 'pooler.lease_warn_after' => '3s');
my $offset = log_offset($coord);
my $first = $s->ask($pid_sql);
my $end = time + 7;
while (time < $end) { $busy++ if $s->ask($pid_sql) ne $first; select undef, undef, undef, 0.1; }
is($busy, 0, '... while it is used it stays');
unlike(log_since($coord, $offset), qr/has held a connection/, '... and is not taken for one that is held all the time');
set_conf($coord, 'pooler.pool_conn_keepalive' => undef);

# min_free_size, at the limit: what is parked and unused makes room, what is used stays.
my @s = map { session($coord, user => 'app') } 1 .. 3;
$_->ask($pid_sql) for @s;
$s->ask('DISCARD ALL');
# Else the other role's pool would get its reserve before the third session has a connection.
value($coord, 'DROP USER MAPPING FOR boss SERVER dn1');
value($coord, q{ALTER SERVER dn1 OPTIONS (ADD max_pool_size '3', ADD min_free_size '1')});
my $used = $s[0]->ask($pid_sql);
$_->ask($pid_sql) for @s;
my $kept = 1;
wait_for('an idle one', sub {
		$kept &&= $s[0]->ask($pid_sql) eq $used;
		$watch->ask(q{SELECT coalesce(sum(idle), 0) FROM pooler.pools WHERE remote_user = 'app'}) > 0 });
ok($kept, 'min_free_size takes back what is unused, not what is used');
becomes('app', '0 2 1 3', '... no more than it needs');

$_->quit() for @s, $own, $watch, values %session;
finish();
