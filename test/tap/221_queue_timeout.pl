# pooler.queue_timeout: who waits for a connection, in which order, how it ends, and what is seen of it.

use strict;
use warnings;
use PolarxParameter;
use PolarxPooler;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $coord = start_coordinator(conf => "pooler.min_pool_size = 0\npooler.min_free_size = 0\n");
check_parameter($coord, name => 'pooler.queue_timeout', boot => 0, min => 0, max => 2147483647, unit => 'ms',
	context => 'user');

my %dn = map { $_ => start_datanode($_) } qw(dn1 dn2);
value($dn{dn1}, 'CREATE TABLE arrivals (n serial, who text); CREATE ROLE other SUPERUSER LOGIN');
add_node($coord, $_, $dn{$_}, server => { max_pool_size => 1 }) for sort keys %dn;
value($coord, q{CREATE EXTENSION polarx_pooler_example; CREATE ROLE other SUPERUSER LOGIN;
	CREATE USER MAPPING FOR other SERVER dn1 OPTIONS (user 'other');
	CREATE USER MAPPING FOR other SERVER dn2 OPTIONS (user 'other')});
my $watch = session($coord);
my $pid = q{SELECT p FROM pooler.query('%s', 'SELECT pg_backend_pid()') AS r(p int)};
my $first_pid = sprintf $pid, 'dn1';
my $full = qr/53300(?s:.*)pool of datanode "dn1" is full/;

sub await_waiting
{
	my ($session, $node) = @_;
	my $mine = $session->pid;
	wait_for("process $mine to wait", sub {
			$watch->ask("SELECT waiting_for = '$node' FROM pooler.sessions WHERE pid = $mine") eq 't' });
	return;
}

# Sends the statement with that time-out and awaits that it waits for dn1.
sub queue_up
{
	my ($session, $sql, $timeout) = @_;
	$session->ask("SET pooler.queue_timeout = '" . ($timeout // '50s') . q{'});
	$session->tell($sql);
	await_waiting($session, 'dn1');
	return;
}

sub arrivals
{
	my $list = value($dn{dn1}, q{SELECT string_agg(who, ' ' ORDER BY n) FROM arrivals});
	value($dn{dn1}, 'TRUNCATE arrivals');
	return $list;
}

my @s = map { session($coord, user => $_ % 2 ? me() : 'other') } 0 .. 6;
my $note = sub { "SELECT pooler.exec('dn1', 'INSERT INTO arrivals (who) VALUES (\$1)', '$_[0]')" };

# 0 rejects at once.
my $holder = session($coord);
my $held = $holder->ask("BEGIN; $first_pid");
within(2, '0', sub { like($s[1]->refused($first_pid), $full, '... rejects at once') });
is($watch->ask(q{SELECT sum(rejected), sum(waiting) FROM pooler.pools}), '1|0', '... and is counted');

# In order of arrival: of one pool, then of two pools of the node.
for my $turn ([ 'one pool', 1, 3, 5 ], [ 'two pools', 0 .. 6 ])
{
	my ($name, @who) = @$turn;
	queue_up($s[$_], $note->($_)) for @who;
	is($watch->ask('SELECT sum(waiting) FROM pooler.pools'), scalar(@who), "$name: all wait, say the pools");
	is($watch->ask('SELECT count(*) FROM pooler.sessions WHERE waiting_for = \'dn1\' AND waiting_since <= now()
		AND waiting_since > now() - interval \'1 min\' AND leases = 0'), scalar(@who), '... and the sessions');
	is(value($dn{dn1}, 'SELECT count(*) FROM arrivals'), 0, '... and none has got through');
	$holder->ask('COMMIT');
	my @errors = grep { $_ ne '' } map { ($s[$_]->hear())[1] } @who;
	is_deeply(\@errors, [], '... all are served');
	is(arrivals(), join(' ', @who), '... in order of arrival');
	$holder->ask("SET pooler.queue_timeout = '20s'; BEGIN; $first_pid");
}
is($watch->ask('SELECT sum(waiting), count(*) FILTER (WHERE waiting_for IS NOT NULL) FROM pooler.pools, pooler.sessions'),
	'0|0', 'nobody waits any more');

# Who gives up while waiting, and the others behind.
queue_up($s[$_], $note->($_)) for 0 .. 3;
within(3, 'cancel', sub {
		value($coord, 'SELECT pg_cancel_backend(' . $s[1]->pid . ')');
		like(($s[1]->hear())[1], qr/ERROR:  57014/, '... ends the wait');
	});
queue_up($s[4], 'SET statement_timeout = 300; ' . $note->(4) . '; SET statement_timeout = 0');
like(($s[4]->hear())[1], qr/ERROR:  57014/, 'statement_timeout does');
queue_up($s[5], $note->(5), '300ms');
like(($s[5]->hear())[1], $full, 'a short time-out behind long ones does');
value($coord, 'SELECT pg_terminate_backend(' . $s[2]->pid . ')');
wait_for('two that wait', sub { $watch->ask('SELECT sum(waiting) FROM pooler.pools') == 2 });
$holder->ask('COMMIT');
$s[$_]->hear() for 0, 3;
is(arrivals(), '0 3', '... the queue goes on without them, in order');
is($s[1]->ask($note->(1)) . $s[4]->ask($note->(4)), 'INSERT 0 1INSERT 0 1', '... those that live can come again');

# The time-out: when, and what it says.
$held = $holder->ask("BEGIN; $first_pid");
my $start = mark();
queue_up($s[1], $first_pid, '1500ms');
my $text = ($s[1]->hear())[1];
my ($took, $calm) = (time - $start, calm_since($start));
cmp_ok($took, '>=', 1.5, sprintf('the error comes when queue_timeout is over (%.2f s)', $took));
cmp_ok($calm, '<', 5, '... and soon');
my $who = $holder->pid;
like($text, $full, '... the pool is full');
like($text, qr/waited for 1\.[5-9] s|waited for [2-4]\.\d s/, '... it says how long it waited');
like($text, qr/DETAIL:.*\b1 of at most 1\b.*Process $who has held one for \d+\.\d s\./, '... the counts, and who holds');
like($text, qr/HINT:.*max_pool_size.*queue_timeout/, '... and the parameters');

# Two that take what the other has: the time-out ends it and tells.
my ($one, $two) = @s[1, 3];
$holder->ask('COMMIT');
$_->ask('SET pooler.queue_timeout = \'50s\'; BEGIN') for $one, $two;
$one->ask($first_pid);
$two->ask(sprintf $pid, 'dn2');
$two->tell($first_pid);
await_waiting($two, 'dn1');
$start = mark();
$text = $one->refused('SET pooler.queue_timeout = \'1s\'; ' . sprintf $pid, 'dn2');
$took = time - $start;
cmp_ok($took, '>=', 1, sprintf('each has what the other wants: the time-out ends it (%.2f s)', $took));
$who = $two->pid;
like($text, qr/53300(?s:.*)"dn2" is full \(waited for \d+\.\d s\)(?s:.*)DETAIL:.*Process $who has held one for \d+\.\d s and waits for datanode "dn1"/,
	'... and says how long, who holds, and what that one waits for');
$one->ask('ROLLBACK');
like(($two->hear())[0], qr/^\d+$/, '... the other goes on');
$two->ask('COMMIT');

# Whichever connection is free first.
value($coord, "ALTER SERVER dn1 OPTIONS (SET max_pool_size '2')");
wait_for('two at most', sub { $watch->ask(q{SELECT bool_and(max_size = 2) FROM pooler.pools WHERE node = 'dn1'}) eq 't' });
for my $first (0, 1)
{
	my @holders = map { session($coord) } 0, 1;
	my @pids = map { $_->ask("BEGIN; $first_pid") } @holders;
	queue_up($s[1], $first_pid);
	$holders[$first]->ask('COMMIT');
	is(($s[1]->hear())[0], $pids[$first],
		'two are leased, the ' . ('older', 'younger')[$first] . ' comes back: the waiter has it');
	$_->quit() for @holders;
}
value($coord, 'SELECT pooler.clean()');
wait_for('none', sub { backends($dn{dn1}) == 0 });
$held = $holder->ask("BEGIN; $first_pid");
my $offset = log_offset($dn{dn1});
my $slow = session($dn{dn1});
set_conf($dn{dn1}, post_auth_delay => 5);
wait_log($dn{dn1}, qr/parameter "post_auth_delay" changed to "5"/, $offset, 'a datanode that is slow to let in');
queue_up($s[1], $first_pid);
wait_for('a connection on the way', sub { $watch->ask('SELECT sum(connecting) FROM pooler.pools') == 1 });
$start = mark();
$holder->ask('COMMIT');
is(($s[1]->hear())[0], $held, '... while a connection opened for the waiter is on the way another comes back: it has that');
cmp_ok(calm_since($start), '<', 4, '... and has not waited for the new one');
$slow->ask('ALTER SYSTEM RESET post_auth_delay');
$slow->ask('SELECT pg_reload_conf()');
wait_log($dn{dn1}, qr/parameter "post_auth_delay" removed/, $offset, '... and lets in at once again');

# Single requests for several nodes, in either order, under pressure: no deadlock, nobody starves.
value($coord, "ALTER SERVER dn1 OPTIONS (SET max_pool_size '1')");
wait_for('one at most', sub { $watch->ask(q{SELECT sum(total) <= 1 FROM pooler.pools WHERE node = 'dn1'}) eq 't' });
my $dir = PostgreSQL::Test::Utils::tempdir();
my %script = (
	a => q{SELECT count(*) FROM example_two_nodes('dn1', 'dn2');},
	b => q{SELECT count(*) FROM example_two_nodes('dn2', 'dn1');},
	c => q{SELECT pooler.exec('dn1', 'SELECT 1');},
	d => q{BEGIN; SELECT pooler.exec('dn2', 'SELECT 1'); SELECT 1; COMMIT;});
append_to_file("$dir/$_.sql", join('', map { "$_\n" } split /(?<=;) ?/, $script{$_})) for keys %script;
my @before = split /\|/, $watch->ask(q{SELECT sum(acquired), sum(rejected) FROM pooler.pools});
within(30, 'the race', sub {
		local $ENV{PGOPTIONS} = '-c pooler.queue_timeout=25s';
		my ($out, $err) = run_command([ 'pgbench', '-n', '-c', 10, '-j', 2, '-t', 150,
				(map { ('-f', "$dir/$_.sql@" . (/[ab]/ ? 4 : 1)) } sort keys %script),
				'-h', $coord->host, '-p', $coord->port, '-U', me(), 'postgres' ]);
		like($out, qr{actually processed: 1500/1500}, '... 1500 rounds of ten sessions, none of them failed') or diag $err;
	});
my @after = split /\|/, $watch->ask(q{SELECT sum(acquired), sum(rejected) FROM pooler.pools});
cmp_ok($after[0] - $before[0], '>', 2300, '... most of them for two nodes');
is($after[1], $before[1], '... none was rejected');
wait_until($coord, 'SELECT sum(leased), sum(waiting) FROM pooler.pools', '0|0', '... and nothing is left over');

$_->quit() for @s, $holder, $watch, $slow;
finish();
