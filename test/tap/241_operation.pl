# What an administrator does: pause, resume, clean, terminate, check, reload, ping, reset_stats, start
# and stop do what they say, and for nobody but a superuser and who was granted it.

use strict;
use warnings;
use PolarxPooler;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $coord = start_coordinator(conf => <<'END');
pooler.min_pool_size = 1
pooler.min_free_size = 0
pooler.pool_maintenance_timeout = 1s
pooler.pool_print_stat_timeout = 1s
pooler.pooler_dn_set_timeout = 1s
END
my %dn = map { $_ => start_datanode($_, conf => "log_connections = on\n", roles => { app => undef, ops => undef }) }
  qw(dn1 dn2);
add_node($coord, 'dn1', $dn{dn1}, server => { max_pool_size => 2 });
add_node($coord, 'dn2', $dn{dn2});
value($coord, 'CREATE ROLE plain LOGIN; CREATE ROLE monitor LOGIN IN ROLE pg_monitor; CREATE ROLE ops LOGIN;'
	  . 'CREATE ROLE app LOGIN; GRANT app TO ops');
for my $node (qw(dn1 dn2))
{
	add_mapping($coord, $_, $node, password_required => 'false') for qw(app ops);
}
value($dn{dn1}, 'CREATE TABLE came (id int GENERATED ALWAYS AS IDENTITY, who text)');
sub one { return "SELECT pooler.exec('$_[0]', 'SELECT 1')"; }
sub pid_on { return "SELECT p FROM pooler.query('$_[0]', 'SELECT pg_backend_pid()') AS r(p int)"; }
sub waiting { return "SELECT count(*) FROM pooler.sessions WHERE waiting_for = '$_[0]'"; }
my $paused = q{SELECT string_agg(node || ' ' || paused, ',' ORDER BY node) FROM pooler.nodes};

# --- rights ---------------------------------------------------------------------------------------
my @calls = (
	[ 'pause(\'dn1\')', '' ], [ 'resume(\'dn1\')', '' ],
	[ 'clean(\'dn1\', \'nobody\')', '0' ], [ 'terminate(\'dn1\')', '0' ],
	[ 'check()', 't' ], [ 'reload()', '' ], [ 'reset_stats()', '' ],
	[ 'start()', 'f' ], [ 'stop()', 't' ], [ 'start()', 't' ]);
for my $role (qw(plain monitor))
{
	for my $call (map { $_->[0] } @calls)
	{
		fails_with($coord, "SELECT pooler.$call", '42501', qr/permission denied for function/,
			"$call: not for " . ($role eq 'plain' ? 'everyone' : 'pg_monitor'), user => $role);
	}
	fails_with($coord, q{SELECT * FROM pooler.ping('dn1')}, '42501', qr/permission denied for function ping/,
		"ping: neither", user => $role);
}
for my $role (me(), 'ops')
{
	for my $call (@calls)
	{
		my ($name) = $call->[0] =~ /^(\w+)/;
		value($coord, "GRANT EXECUTE ON FUNCTION pooler.$name TO ops") if $role eq 'ops';
		is(value($coord, "SELECT pooler.$call->[0]", user => $role), $call->[1],
			"$call->[0]: " . ($role eq 'ops' ? 'for whom it is granted to' : 'for a superuser'));
	}
	value($coord, 'GRANT EXECUTE ON FUNCTION pooler.ping TO ops');
	is(value($coord, q{SELECT node, ok FROM pooler.ping('dn1')}, user => $role), 'dn1|t', '... and ping');
}
value($coord, 'GRANT EXECUTE ON FUNCTION pooler.ping TO plain');
fails_with($coord, q{SELECT * FROM pooler.ping('dn1')}, '42501', qr/foreign server dn1/,
	'ping asks for USAGE of the node too', user => 'plain');
fails_with($coord, "SELECT pooler.$_('nowhere')", '42704', qr/"nowhere"/, "$_ of no node")
  for qw(pause resume clean terminate);
fails_with($coord, q{SELECT * FROM pooler.ping('nowhere')}, '42704', qr/"nowhere"/, 'ping of no node');

# --- pause, resume --------------------------------------------------------------------------------
value($coord, one($_)) for qw(dn1 dn2);
is(value($coord, $paused), 'dn1 false,dn2 false', 'no node is paused');
my $holder = session($coord);
my $lent = $holder->ask('BEGIN; ' . pid_on('dn1'));
wait_until($coord, q{SELECT sum(resetting + connecting) FROM pooler.pools}, '0', 'nothing is under way');
value($coord, q{SELECT pooler.pause('dn1')});
is(value($coord, $paused), 'dn1 true,dn2 false', 'pause of one node, which the view shows');
is($holder->ask(pid_on('dn1')), $lent, 'leases in use go on');
is(value($coord, one('dn2')), 'SELECT 1', '... and so does the other node');
my $patient = session($coord);
my $asked_at = mark();
$patient->tell('SET pooler.queue_timeout = 0; ' . one('dn1'));
wait_until($coord, waiting('dn1'), '1', 'a new request waits, without queue_timeout too');
my $start = mark();
fails_with($coord, q{SET pooler.queue_timeout = '300ms'; } . one('dn1'), '53300', qr/dn1.*pause/s,
	'queue_timeout bounds the wait, and the error tells why');
my $took = time - $start;
ok($took > 0.29 && calm_since($start) < 5, sprintf('... after that time (%.2f s)', $took));
fails_with($coord, q{SET statement_timeout = '300ms'; } . one('dn1'), '57014', qr/statement timeout/,
	'who waits can be cancelled');
my %waiter;
for my $who (qw(a b c d))
{
	$waiter{$who} = session($coord);
	$waiter{$who}->tell("SET pooler.queue_timeout = '60s'; SELECT pooler.exec('dn1', 'INSERT INTO came (who) SELECT ''$who''')");
	wait_until($coord, waiting('dn1'), 1 + keys %waiter, "request $who waits");
}
my $both = session($coord);
$both->tell(q{SET pooler.queue_timeout = '60s'; SELECT count(*) FROM pooler.query_all('SELECT 1') AS r(node name, n int)});
wait_until($coord, q{SELECT count(*) FROM pooler.sessions WHERE waiting_for IS NOT NULL}, '6',
	'a request for all nodes waits when one is paused');
is(value($coord, q{SELECT leased FROM pooler.pools WHERE node = 'dn2' AND remote_user = '} . me() . q{'}), '0',
	'... and holds nothing meanwhile');
is($holder->ask('COMMIT; SELECT 1'), '1', 'a lease is given back');
wait_until($coord, q{SELECT sum(idle) > 0, sum(leased + resetting) FROM pooler.pools WHERE node = 'dn1'}, 't|0',
	'... so a connection is free');
ok(!(grep { $_->answered() } values %waiter, $both), '... which nobody gets');
value($coord, 'SELECT pooler.reload()');
is(value($coord, $paused), 'dn1 true,dn2 false', 'pause outlives a reload');
value($coord, q{SELECT pooler.resume('dn2')});
is(value($coord, $paused), 'dn1 true,dn2 false', 'resume of another node leaves it');
is(value($coord, q{SELECT pooler.clean('dn1') > 0}), 't', 'clean');
my $pids = 'none';
wait_until($dn{dn1}, q{SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'polarx_pooler%'}, '0',
	'... a paused node can be emptied, and nothing is opened there');
wait_for('10 s', sub { $patient->answered() }, 20);
$took = time - $asked_at;
my $error = ($patient->hear())[1];
like($error, qr/53300: .*dn1.*pause/s, 'without queue_timeout the wait ends with an error');
ok($took > 9.9 && calm_since($asked_at) < 15, sprintf('... after 10 s (%.2f s)', $took));
ok(!(grep { $_->answered() } values %waiter), '... those with a longer one still wait');
value($coord, q{ALTER SERVER dn1 OPTIONS (SET max_pool_size '1')});
value($coord, q{SELECT pooler.resume('dn1')});
is(value($coord, $paused), 'dn1 false,dn2 false', 'resume');
is(($waiter{$_}->hear())[0], 'INSERT 0 1', "request $_ goes on") for sort keys %waiter;
is(($both->hear())[0], '2', '... and the one for all nodes');
is(value($dn{dn1}, q{SELECT string_agg(who, '' ORDER BY id) FROM came}), 'abcd', '... in order of arrival');
$_->quit() for values %waiter, $both, $patient;

value($coord, 'SELECT pooler.pause()');
add_node($coord, 'dn3', $dn{dn2});
wait_until($coord, $paused, 'dn1 true,dn2 true,dn3 true', 'pause of all nodes, those to come included');
fails_with($coord, q{SET pooler.queue_timeout = '100ms'; } . one($_), '53300', qr/$_.*pause/s, "... $_ waits")
  for qw(dn1 dn2 dn3);
value($coord, q{SELECT pooler.resume('dn2')});
is(value($coord, one('dn2')), 'SELECT 1', 'one of them is let go');
is(value($coord, $paused), 'dn1 true,dn2 false,dn3 true', '... the others are not');
value($coord, 'SELECT pooler.resume()');
is(value($coord, $paused), 'dn1 false,dn2 false,dn3 false', 'resume of all');
is(value($coord, one($_)), 'SELECT 1', "... $_ works") for qw(dn1 dn2 dn3);
value($coord, 'SET client_min_messages = error; DROP SERVER dn3 CASCADE');
value($coord, q{ALTER SERVER dn1 OPTIONS (DROP max_pool_size)});

# --- clean ----------------------------------------------------------------------------------------
my $one_each = q{SELECT count(*) FILTER (WHERE idle = 1 AND total = 1) FROM pooler.pools WHERE node = 'dn1'
	AND remote_user <> 'ops'};
wait_until($coord, $one_each, '2', 'the minimum, now that there is room');
value($coord, one('dn1'), user => 'app');
wait_until($coord, $one_each, '2', 'one idle connection of each remote user');
my $app = value($dn{dn1}, q{SELECT pid FROM pg_stat_activity WHERE usename = 'app'});
$lent = $holder->ask('BEGIN; ' . pid_on('dn1'));
is(value($coord, q{SELECT pooler.clean('dn1', 'app')}), '1', 'clean of one remote user');
wait_until($dn{dn1}, "SELECT count(*) FROM pg_stat_activity WHERE pid = $app", '0', '... closes what is idle');
is(value($coord, 'SELECT pooler.clean(\'dn1\', \'' . me() . '\')'), '1', 'clean of another, whose connection is leased');
is($holder->ask(pid_on('dn1')), $lent, '... which is left to its holder');
$holder->ask('COMMIT');
wait_until($dn{dn1}, "SELECT count(*) FROM pg_stat_activity WHERE pid = $lent", '0', '... and closed at release');

# --- terminate ------------------------------------------------------------------------------------
my %session = (map({ $_ => session($coord, user => 'app') } qw(app1 app2 free)), boss => session($coord));
$session{app1}->ask('BEGIN; ' . one('dn1'));
$session{app2}->ask('BEGIN; ' . one('dn1') . '; ' . one('dn2'));
$session{boss}->ask('BEGIN; ' . one('dn1'));
$session{free}->ask(one('dn1'));
sub living
{
	my $list = join ',', map { $_->pid } values %session;
	my %is = map { $_ => 1 } split /\n/, value($coord, "SELECT pid FROM pg_stat_activity WHERE pid IN ($list)");
	return join ' ', grep { $is{ $session{$_}->pid } } sort keys %session;
}
fails_with($coord, q{SELECT pooler.terminate('dn1')}, '42501', qr/superuser/,
	'terminate: a superuser\'s session is not for others', user => 'ops');
is(living(), 'app1 app2 boss free', '... and then none is ended');
is($session{app1}->ask(one('dn1')), 'SELECT 1', '... all go on');
is(value($coord, q{SELECT pooler.terminate('dn2')}, user => 'ops'), '1', 'terminate of one node\'s holders');
wait_until($coord, 'SELECT count(*) FROM pg_stat_activity WHERE pid = ' . $session{app2}->pid, '0', '... ends them');
is(living(), 'app1 boss free', '... and no other');
$holder->ask('BEGIN; ' . one('dn1') . '; SET LOCAL ROLE app; ' . one('dn1') . '; SET LOCAL ROLE NONE');
$session{app1}->ask(one('dn2'));
is($holder->ask('SELECT pooler.terminate()'), '2', 'terminate of all: each session once, not the caller');
wait_until($coord, 'SELECT count(*) FROM pg_stat_activity WHERE pid IN (' . $session{app1}->pid . ', '
	  . $session{boss}->pid . ')', '0', '... ends them');
is(living(), 'free', '... who holds nothing stays');
is($holder->ask(one('dn1')), 'SELECT 1', '... and so does the caller');
$holder->ask('COMMIT');
is(value($coord, 'SELECT pooler.terminate()'), '0', 'terminate where nobody holds anything');
eval { $_->quit() } for values %session;

# --- check, reload --------------------------------------------------------------------------------
for my $change (
	q{ALTER SERVER dn1 OPTIONS (SET port '1')},
	q{ALTER SERVER dn1 OPTIONS (SET host 'localhost')},
	q{ALTER SERVER dn1 OPTIONS (ADD hostaddr '127.0.0.1')},
	q{ALTER SERVER dn1 OPTIONS (ADD min_free_size '1')},
	'ALTER SERVER dn1 RENAME TO dn4',
	'DROP SERVER dn2 CASCADE',
	'CREATE SERVER dn4 FOREIGN DATA WRAPPER polarx_pooler')
{
	is(value($coord, "SET client_min_messages = error; BEGIN; $change; SELECT pooler.check(); ROLLBACK"), 'f',
		"check: not yet committed: $change");
	is(value($coord, 'SELECT pooler.check()'), 't', '... rolled back');
}
value($coord, q{CREATE SERVER dn4 FOREIGN DATA WRAPPER polarx_pooler});
is(value($coord, 'SELECT pooler.check()'), 't', '... committed');
value($coord, q{DROP SERVER dn4; CREATE EXTENSION postgres_fdw});
add_node($coord, 'other', $dn{dn2}, wrapper => 'postgres_fdw');
value($coord, one('other'));
is(value($coord, 'SELECT pooler.check()'), 't', '... a server of another wrapper that is in use makes no difference');
value($coord, 'SET client_min_messages = error; DROP EXTENSION postgres_fdw CASCADE');
is(value($coord, 'SELECT pooler.check()'), 't', '... gone again');
value($coord, q{ALTER SYSTEM SET pooler.max_pool_size = 77});
is(value($coord, q{SELECT max_size FROM pooler.pools WHERE node = 'dn2' LIMIT 1}), '300', 'a setting in the file');
value($coord, 'SELECT pooler.reload()');
is(value($coord, q{SELECT max_size FROM pooler.pools WHERE node = 'dn2' LIMIT 1}), '77', '... is read by reload()');

# --- ping -----------------------------------------------------------------------------------------
value($coord, q{CREATE SERVER alone FOREIGN DATA WRAPPER polarx_pooler OPTIONS (host '127.0.0.1', port '}
	  . $dn{dn1}->port . q{')});
my ($port, $socket) = silent_port();
value($coord, one($_)) for qw(dn1 dn2);
wait_until($coord, 'SELECT min(idle) FROM pooler.pools WHERE \'' . me() . '\' = ANY (mapped_roles)', '1', 'warm pools');
my $offset = log_offset($dn{dn1});
my $ping = 'SELECT node, ok, latency_ms > 0 AND latency_ms < 5000, error FROM pooler.ping';
is(value($coord, "$ping('dn1')"), 'dn1|t|t|', 'ping on an idle connection');
unlike(log_since($dn{dn1}, $offset), qr/connection received/, '... opens none');
is(value($coord, q{SELECT ping_ms > 0 FROM pooler.nodes WHERE node = 'dn1'}), 't', '... which the view keeps');
is(value($coord, "$ping('alone')"), 'alone|t|t|', 'ping of a node that the caller has no mapping for');
wait_log($dn{dn1}, qr/connection received/, $offset, '... by a startup');
unlike(log_since($dn{dn1}, $offset), qr/connection authorized: user=(?!polarx_pooler )/, '... without credentials');
is(value($coord, "$ping()"), "alone|t|t|\ndn1|t|t|\ndn2|t|t|", 'ping of all nodes, by name');
$dn{dn2}->stop('fast');
value($coord, "ALTER SERVER alone OPTIONS (SET port '$port')");
$start = mark();
like(value($coord, "$ping()"), qr/\Aalone\|f\|.*\ndn1\|t\|t\|\ndn2\|f\|.*\|.*\S/,
	'... one is down, one is silent, and the others answer all the same');
$took = time - $start;
ok($took > 0.9 && calm_since($start) < 5, sprintf('... the silent one is given up after pooler_dn_set_timeout (%.2f s)', $took));
like(value($coord, q{SELECT error FROM pooler.ping('alone')}), qr/pooler_dn_set_timeout/, '... which the error names');
like(value($coord, q{SELECT health, last_error FROM pooler.nodes WHERE node = 'dn2'}), qr/^down\|.+/,
	'... the view knows that it is down');
$dn{dn2}->start();
is(value($coord, q{SELECT ok FROM pooler.ping('dn2')}), 't', '... and a ping finds that it is up again');
is(value($coord, q{SELECT health FROM pooler.nodes WHERE node = 'dn2'}), 'up', '... for the view as well');
value($coord, 'DROP SERVER alone CASCADE');

# --- reset_stats ----------------------------------------------------------------------------------
value($coord, one('dn1')) for 1 .. 20;
my $counted = q{SELECT sum(acquired) > 20, sum(hits) > 20, sum(connects) > 0, max(acquire_p99_us) > 0, max(hold_p50_us) > 0
	FROM pooler.pools};
is(value($coord, $counted), 't|t|t|t|t', 'counters before');
$lent = $holder->ask('BEGIN; ' . pid_on('dn1'));
is(value($coord, "SELECT pooler.reset_stats(); SELECT sum(acquired + hits + connects + connect_failures + rejected
	+ closed_idle + closed_lifetime + closed_memory + closed_error), max(acquire_p50_us), max(acquire_p99_us), max(hold_p99_us)
	FROM pooler.pools"), "\n0|0|0|0", 'reset_stats: counters and percentiles are zero');
like(value($coord, 'SELECT client_request_conn_total, client_request_from_hashtab, client_request_from_thread,
	acquire_conn_from_hashtab, acquire_conn_from_hashtab_and_set, acquire_conn_from_thread, acquire_conn_time,
	now() - stats_since < interval \'30 s\' FROM pooler.stats'), qr/^0\|0\|0\|0\|0\|0\|0\|t$/, '... and those of the stat line');
is($holder->ask(pid_on('dn1')), $lent, '... a lease that is held is left alone');
$holder->ask('COMMIT');
$offset = log_offset($coord);
value($coord, one('dn1')) for 1 .. 3;
is(value($coord, 'SELECT sum(acquired) FROM pooler.pools'), '3', '... and counting goes on');
wait_for('two rounds of stat lines',
	sub { (() = log_since($coord, $offset) =~ /\[pooler stat\] database=postgres node=dn1 /g) > 4 });
my @figures = log_since($coord, $offset) =~ /\[pooler stat\].* (?:acquired|client_request_conn_total)=(\d+)/g;
ok(!(grep { $_ > 24 } @figures), "... in the stat lines too (@figures)");

# --- start, stop ----------------------------------------------------------------------------------
value($coord, 'SELECT pooler.pause()');
is(value($coord, 'SELECT pooler.stop()'), 't', 'stop');
is(value($coord, 'SELECT pooler.stop()'), 'f', '... once');
is(value($coord, q{SELECT state, pid FROM pooler.workers WHERE datname = 'postgres'}), 'stopped|', '... which the view shows');
fails_with($coord, one('dn1'), '57P03', qr/administrator.*pooler\.start/s, '... requests fail and say why');
fails_with($coord, 'SELECT pooler.check()', '57P03', qr/administrator/, '... check as well');
is(value($coord, 'SELECT pooler.start()'), 't', 'start');
is(value($coord, 'SELECT pooler.start()'), 'f', '... once');
is(value($coord, one('dn1')), 'SELECT 1', '... and the pool works, pause is forgotten');
$holder->quit();
# The server's logical replication launcher and ours take both places.
$coord->append_conf('postgresql.conf', "max_worker_processes = 2\n");
$coord->restart();
fails_with($coord, 'SELECT pooler.start()', '57P03', qr/max_worker_processes.*HINT: .*max_worker_processes/s,
	'start without a free place for a worker: why, and what to do');

finish();
