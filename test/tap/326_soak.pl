# Mixed load with random faults, for POLARX_SOAK_SECONDS (60) from POLARX_SOAK_SEED (1): what was
# committed is there and nothing else, and at the end descriptors, memory, slots and the datanodes'
# backends are what they were before.

use strict;
use warnings;
use PolarxPooler;
use PolarxProxy;
use PostgreSQL::Test::Utils;
use List::Util qw(min);
use Test::More;
use Time::HiRes qw(time usleep);

my $kSeconds = $ENV{POLARX_SOAK_SECONDS} || 60;
my $kSeed = $ENV{POLARX_SOAK_SEED} || 1;
my $kSessions = 8;
my $kVeterans = 2;    # of these, never killed: their memory is looked at
my $kMost = 6;
diag "seed $kSeed, $kSeconds s";

my $coord = start_coordinator(park => 1, conf => <<"END");
log_statement = none
log_min_messages = warning
log_min_error_statement = panic
pooler.max_pool_size = $kMost
pooler.min_pool_size = 2
pooler.min_free_size = 1
pooler.pool_conn_keepalive = 3s
pooler.pool_maintenance_timeout = 1s
pooler.pool_session_max_lifetime = 15s
pooler.pool_session_context_check_gap = 10s
pooler.pooler_dn_set_timeout = 2s
pooler.pooler_connect_timeout = 4s
pooler.pool_print_stat_timeout = 5s
END
my %dn = map { $_ => start_datanode($_) } qw(a b);
my $proxy = PolarxProxy->before($dn{b}->port);
add_node($coord, 'dn1', $dn{a});
add_node($coord, 'dn2', $dn{b}, server => { port => $proxy->port });
add_node($coord, 'dn3', $dn{a}, server => { max_pool_size => 4 });
value($_, 'CREATE TABLE t (id text); CREATE TABLE copied (n int)') for values %dn;
value($coord, 'CREATE EXTENSION polarx_pooler_example');
my $admin = session($coord);

# A stream of random numbers of its own for each session and for the faults: which session is first
# does not change what the others do.
sub stream
{
	my ($state) = @_;
	return sub {
		my ($below) = @_;
		$state = ($state * 1103515245 + 12345) % 2147483648;
		return int($state / 65536) % $below;
	};
}

# --- the load ---------------------------------------------------------------------------------------

my ($number, %expected, %answer) = (0);    # expected: id => how many rows, where it is known
my (%told, %heard);

sub on { return "SELECT pooler.exec('dn$_[0]', '" . ($_[1] =~ s/'/''/gr) . "')"; }
sub put { return on($_[0], "INSERT INTO t VALUES ('$_[1]')"); }

# It has been ended; what came of its last statement is not known.
sub lose
{
	my ($one) = @_;
	$heard{lost}++;
	eval { $one->{session}->quit() };
	@$one{qw(session id)} = ();
	return;
}

# What a session does next: its script, how often that inserts the id if all goes well, and whether an
# error leaves it open.
my @kinds = (
	sub { my ($r, $id) = @_; return (put(1 + $r->(3), $id), 1) },
	sub { my ($r, $id) = @_; return ('BEGIN; ' . put(1, $id) . '; ' . put(2, $id) . '; COMMIT', 2) },
	sub { my ($r, $id) = @_; return ('BEGIN; ' . put(1 + $r->(3), $id) . '; ROLLBACK', 0) },
	sub { my ($r, $id) = @_; return ('BEGIN; ' . put(3, $id) . '; SAVEPOINT a; ' . put(2, $id) . '; ROLLBACK TO a; COMMIT', 1, 'vague') },
	sub { my ($r, $id) = @_; return ('BEGIN; ' . put(1 + $r->(3), $id) . '; SELECT pg_sleep(0.05); ' . put(1, $id) . '; COMMIT', 2) },
	sub { my ($r) = @_; return ("SELECT count(*) FROM pooler.query('dn" . (1 + $r->(3)) . q{', 'SELECT generate_series(1, 3000)') AS r(n int)}) },
	sub { return (q{SELECT * FROM pooler.query_all('SELECT count(*) FROM t') AS r(node name, n int)}) },
	sub { my ($r, $id) = @_; return ('BEGIN; ' . put(1, $id) . '; ' . on(2, 'SELECT 1/0') . '; COMMIT', 0) },
	sub { my ($r) = @_; return ("SET statement_timeout = '40ms'; " . on(1 + $r->(3), 'SELECT pg_sleep(1)') . '; RESET statement_timeout') },
	sub { my ($r) = @_; return (q{SELECT pooler.set_param('work_mem', '2MB'); } . on(1 + $r->(3), 'SELECT 1') . '; DISCARD ALL') },
	sub { return ('SELECT count(*) FROM pooler.pools, pooler.connections, pooler.sessions, pooler.nodes, pooler.stats') },
	sub { return ('SELECT count(*) FROM pooler.ping()') },
	sub { my ($r) = @_; return ('SET pooler.persistent_datanode_connections = on; ' . on(1 + $r->(3), 'SELECT 1')
			  . '; RESET pooler.persistent_datanode_connections; ' . on(1, 'SELECT 2')) },
	sub { my ($r) = @_; return ("SELECT example_leave('dn1', '" . (qw(idle transaction failed copy pipeline busy))[ $r->(6) ] . "', 3)") },
	sub { return (q{SELECT example_copy('dn3', 'copied', 500)}) });

sub open_one { my ($i) = @_; return { at => $i, random => stream($kSeed * 1000 + $i), session => undef, id => undef }; }
my @load = map { open_one($_) } 0 .. $kSessions - 1;

sub next_one
{
	my ($one) = @_;
	$one->{session} //= session($coord);
	my $id = 'i' . ++$number;
	my ($sql, $rows, $vague) = $kinds[ $one->{random}->(scalar @kinds) ]->($one->{random}, $id);
	@$one{qw(id rows vague)} = ($id, $rows // 0, $vague);
	$answer{$id} = $sql;
	eval { $one->{session}->tell("SET pooler.queue_timeout = '1s'; $sql"); 1 } or lose($one);
	return;
}

# Notes what has come of it.
sub digest
{
	my ($one) = @_;
	my ($out, $err) = eval { $one->{session}->hear() };
	return lose($one) if $@;
	my ($state) = $err =~ /(?:ERROR|FATAL):  (\w{5})/;
	$heard{ $state // 'done' }++;
	my $rows = !$state ? $one->{rows} : $one->{vague} || $state =~ /^(?:08007|40003)$/ ? undef : 0;
	$expected{ $one->{id} } = $err =~ /closed the connection|was lost|FATAL:  57P01/ ? undef : $rows;
	$answer{ $one->{id} } .= " --> $err";
	$one->{id} = undef;
	eval { $one->{session}->tell('ROLLBACK'); $one->{session}->hear(); 1 } or lose($one) if $state;
	return;
}

# --- the faults -------------------------------------------------------------------------------------

my @later;    # [when, what]: the end of a fault
my $dice = stream($kSeed);
sub terminate_some
{
	my ($server, $where) = @_;
	value($server, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE $where");
	return;
}
my %fault = (
	'datanode ends one connection' => sub { terminate_some($dn{a}, "pid = (SELECT min(pid) FROM pg_stat_activity WHERE application_name LIKE 'polarx%')") },
	'datanode ends all connections' => sub { terminate_some($dn{b}, "application_name LIKE 'polarx%'") },
	'cut' => sub { $proxy->cut() },
	'frozen' => sub { $proxy->freeze(); push @later, [ 0.5, sub { $proxy->forward() } ]; },
	'refused' => sub { $proxy->refuse(); $proxy->cut(); push @later, [ 0.7, sub { $proxy->forward() } ]; },
	'slow' => sub { $proxy->delay(0.03); push @later, [ 1, sub { $proxy->forward() } ]; },
	'silent' => sub { $proxy->silent(); push @later, [ 0.5, sub { $proxy->forward() } ]; },
	'session ended' => sub {
		my $one = $load[ $kVeterans + $dice->($kSessions - $kVeterans) ];
		$admin->ask('SELECT pg_terminate_backend(' . $one->{session}->pid . ')') if $one->{session};
	},
	'session cancelled' => sub {
		my $one = $load[ $dice->($kSessions) ];
		$admin->ask('SELECT pg_cancel_backend(' . $one->{session}->pid . ')') if $one->{session};
	},
	'clean' => sub { run_sql($coord, 'SELECT pooler.clean()') },
	'reload' => sub { run_sql($coord, 'SELECT pooler.reload(), pg_reload_conf()') },
	'pause' => sub { run_sql($coord, q{SELECT pooler.pause('dn1')}); push @later, [ 0.3, sub { run_sql($coord, 'SELECT pooler.resume()') } ]; },
	'alter' => sub { $admin->ask(q{ALTER SERVER dn3 OPTIONS (SET max_pool_size '} . (2 + $dice->(4)) . q{')}) },
	'datanode restarts' => sub { $dn{b}->restart() });
my %worker_fault = (
	'worker ended' => sub { my $pid = worker_pids($coord); kill 'TERM', $pid if $pid =~ /^\d+$/; },
	'worker stopped' => sub { run_sql($coord, 'SELECT pooler.stop()'); push @later, [ 0.2, sub { run_sql($coord, 'SELECT pooler.start()') } ]; });

# Runs load and faults for that long.
sub soak
{
	my ($seconds, %faults) = @_;
	my @names = sort keys %faults;
	my $end = time + $seconds;
	my $fault_at = time + 0.5;
	while (time < $end || grep { defined $_->{id} } @load)
	{
		for my $one (@load)
		{
			if (defined $one->{id})
			{
				my $answered = eval { $one->{session}->answered() } || $@ || !$one->{session}{run}->pumpable();
				digest($one) if $answered;
			}
			next_one($one) if !defined $one->{id} && time < $end;
		}
		for my $due (grep { $_->[2] <= time } @later) { $due->[1]->(); $due->[3] = 1; }
		@later = grep { !$_->[3] } @later;
		if (time >= $fault_at && time < $end)
		{
			my $name = $names[ $dice->(scalar @names) ];
			$told{$name}++;
			$faults{$name}->();
			$_->[2] //= time + $_->[0] for @later;
			$fault_at = time + 0.2 + $dice->(800) / 1000;
		}
		usleep(2000);
	}
	$_->[1]->() for splice @later;
	return;
}

# --- what there is at rest --------------------------------------------------------------------------

sub memory { return slurp_file("/proc/$_[0]/status") =~ /^RssAnon:\s+(\d+) kB/m ? $1 : die; }
# Without files, which the server opens and closes as it likes, and without connections of pools and those
# between sessions and the pooler worker, of which $but is a count: they differ from one rest to the next.
# The kept PGconns of a session, 32 at most, have descriptors of one and the same socket.
sub descriptors
{
	my ($pid, $but) = @_;
	my $folder = "/proc/$pid/fd";
	opendir my $open, $folder or die "$folder: $!";
	my (%sockets, @others);
	for my $target (map { readlink("$folder/$_") // '' } readdir $open)
	{
		$sockets{$target}++ if $target =~ /^socket:/;
		push @others, $target if $target =~ /^(?:anon_inode|pipe):/;
	}
	my ($most) = sort { $b <=> $a } values %sockets;
	die "$most descriptors of one socket in process $pid" if $most > 1 + 32;
	return keys(%sockets) + @others - $admin->ask("SELECT $but");
}
# Of several readings: a session that has just ended is still being closed.
sub least_descriptors { my @asked = @_; return min(map { usleep(50_000); descriptors(@asked) } 1 .. 10); }

sub at_rest
{
	my ($name) = @_;
	$proxy->forward();
	$proxy->cut();    # also those on which a cancel request still waits for its answer
	$admin->ask(q{ALTER SERVER dn3 OPTIONS (SET max_pool_size '4')});
	value($coord, 'SELECT pooler.resume()');
	$_->{session} and $_->{session}->ask('ROLLBACK; RESET ALL; SELECT pooler.reset_params()') for @load;
	wait_until($coord, q{SELECT string_agg(format('%s %s %s', node, total, idle + parked), ', ' ORDER BY node), sum(leased + waiting) FROM pooler.pools},
		'dn1 2 2, dn2 2 2, dn3 2 2|0', "$name: at rest each pool has its minimum, nothing is held or waits", limit => 40);
	wait_for('the datanodes to have as many', sub { backends($dn{a}) == 4 && backends($dn{b}) == 2 });
	my $worker = worker_pid($coord);
	my %now = (worker => [ memory($worker), least_descriptors($worker, '(SELECT count(*) FROM pooler.connections) + (SELECT count(*) FROM pooler.sessions)') ]);
	for my $one (@load[ 0 .. $kVeterans - 1 ])
	{
		my $pid = $one->{session}->pid;
		$now{"session $one->{at}"} = [ memory($pid), least_descriptors($pid, "count(*) FROM pooler.connections WHERE state = 'parked' AND session_pid = $pid") ];
	}
	diag "$name: ", join ', ', map { sprintf '%s %d kB, %d descriptors of its own', $_, @{ $now{$_} } } sort keys %now;
	return ($worker, \%now);
}

soak($kSeconds / 3, %fault, %worker_fault);
soak($kSeconds / 6, %fault);
my ($worker, $before) = at_rest('first half, with ends of the pooler worker');
soak($kSeconds / 2, %fault);
my ($last, $after) = at_rest('second half');
diag 'faults: ' . join ', ', map { "$_ $told{$_}" } sort keys %told;
diag 'answers: ' . join ', ', map { "$_ $heard{$_}" } sort keys %heard;

is($last, $worker, 'the pooler worker has lived through the second half');
for my $who (sort keys %$before)
{
	cmp_ok($after->{$who}[0], '<', $before->{$who}[0] + 3000, "$who: memory is flat");
	cmp_ok($after->{$who}[1], '<=', $before->{$who}[1] + 2, "$who: sockets are flat");
}
cmp_ok($heard{done}, '>', 5 * $kSeconds, 'most of it was done');
is_deeply([ grep { !/^(?:done|lost|08...|53300|57P0[1-5]|57014|22012|25P02|40003|2F003)$/ } sort keys %heard ], [], 'errors are those that faults bring');

my %rows;
$rows{$_}++ for map { split /\n/, value($_, 'SELECT id FROM t') } values %dn;
my @known = grep { defined $expected{$_} } keys %expected;
cmp_ok(scalar(@known), '>', 0.8 * $number, 'of nearly all it is known what came of it');
is_deeply([ map { ($rows{$_} // 0) != $expected{$_} ? "$_ " . ($rows{$_} // 0) . " not $expected{$_}: $answer{$_}" : () } @known ], [],
	'what was reported as committed is there, and nothing else');
unlike(log_since($coord, 0), qr/broke the protocol|asked for what|out of memory/, 'nobody broke the protocol');
for my $one (@load) { eval { $one->{session}->quit() } if $one->{session}; }
$admin->quit();
finish();
