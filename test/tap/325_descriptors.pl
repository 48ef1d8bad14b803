# Descriptors: the pooler worker takes what the system allows and keeps within it, and says so when
# it is used up; it does not spin when there is none; sessions count theirs and leave none to children.

use strict;
use warnings;
use PolarxPooler;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $coord = start_coordinator(conf => <<'END');
pooler.min_pool_size = 0
pooler.min_free_size = 0
pooler.pooler_connect_timeout = 30s
log_min_messages = warning
END
my $dn = start_datanode('dn1', conf => "max_connections = 300\n");
my $other = start_datanode('dn2');
add_node($coord, 'dn1', $dn);
add_node($coord, 'dn2', $other);
add_holders($coord, 130, 'dn1');
my $one = q{SELECT pooler.exec('dn1', 'SELECT 1')};

# What the process has open: [number, what] each.
sub open_in
{
	my ($pid) = @_;
	opendir my $folder, "/proc/$pid/fd" or die "/proc/$pid/fd: $!";
	return map { [ $_, readlink("/proc/$pid/fd/$_") // '' ] } sort grep { /^\d+$/ } readdir $folder;
}

# The server, started anew with these limits of open files.
sub start_with
{
	my ($soft, $hard) = @_;
	$coord->stop('fast');
	my ($data, $log) = ($coord->data_dir, $coord->logfile);
	system('bash', '-c', "ulimit -Sn $soft && ulimit -Hn $hard && exec pg_ctl -w -s -D '$data' -l '$log' start") == 0
	  or die 'cannot start the server';
	$coord->_update_pid(1);
	return worker_pid($coord);
}

sub limits
{
	my ($pid) = @_;
	return slurp_file("/proc/$pid/limits") =~ /^Max open files\s+(\d+)\s+(\d+)/m;
}

# Processor time that the process has used so far, in seconds.
sub used
{
	my ($pid) = @_;
	my @fields = split ' ', slurp_file("/proc/$pid/stat") =~ s/.*\) //r;
	return ($fields[11] + $fields[12]) / 100;
}

# The soft limit is raised to the hard one.
my $worker = start_with(300, 3000);
wait_until($coord, 'SELECT fds_limit FROM pooler.workers', '2900', 'a soft limit of 300, a hard one of 3000: the view shows most of that');
is(join(' ', limits($worker)), '3000 3000', '... the pooler worker has raised its own');

# A tight limit is kept: what no longer fits is refused with the counts, the rest goes on.
$worker = start_with(220, 220);
wait_until($coord, 'SELECT fds_limit FROM pooler.workers', '120', 'a limit of 220: some of it is the server\'s own');
my $offset = log_offset($coord);
my @sessions = map { session($coord) } 1 .. 4;
$_->ask('BEGIN') for @sessions;
hold($sessions[0], 'dn1', 1, 40);
hold($sessions[1], 'dn1', 41, 80);
$sessions[2]->tell(join ';', map { "SET LOCAL ROLE h$_; $one" } 81 .. 120);
my $err = ($sessions[2]->hear())[1];
like($err, qr/\A(?:psql:\S+ )?ERROR:  53000: pooler worker has no descriptor left for a connection to datanode "dn1"\nDETAIL:  1\d\d of 120 descriptors are in use(?s:.*)\nHINT:  .*open files/,
	'the fortieth of forty more does not fit: 53000, with the counts');
my $before = backends($dn);
cmp_ok($before, '>', 80, '... though many did');

# What that session gave back is idle: it makes room for another node.
wait_for('room for another node', sub {
		$sessions[3]->tell(q{ROLLBACK; BEGIN; SELECT pooler.exec('dn2', 'SELECT 1')});
		return ($sessions[3]->hear())[1] eq '' });
is(backends($other), 1, 'another node gets a connection, without waiting for keepalive');
cmp_ok(backends($dn), '<', $before, '... for which one that nobody uses is closed');
cmp_ok(backends($dn), '>', $before - 5, '... and no more than that');
is($sessions[0]->ask("SET LOCAL ROLE h7; $one; RESET ROLE"), 'SELECT 1', '... who has connections works on');
cmp_ok(scalar(open_in($worker)), '<', 200, '... the system\'s limit is not reached');
wait_until($coord, 'SELECT fds_used BETWEEN 90 AND fds_limit FROM pooler.workers', 't', '... the view tells');
$_->ask('ROLLBACK') for @sessions;
is(value($coord, $one), 'SELECT 1', 'given back they are used again');
is(scalar(() = log_since($coord, $offset) =~ /LOG:.*no descriptor left/g), 1, 'the log says it, and is not flooded');
value($coord, 'SELECT pooler.clean()');

# No descriptor at all, of a sudden: no spinning, sessions that are attached work on, others are told
# in time, and all is well once there are some again.
sub first_free
{
	my %open = map { $_->[0] => 1 } open_in($worker);
	return (grep { !$open{$_} } 0 .. 300)[0];
}
sub allow { system('prlimit', '--pid', $worker, "--nofile=$_[0]:") == 0 or die 'prlimit'; return; }
$sessions[0]->ask($one);
$offset = log_offset($coord);
$sessions[0]->ask(q{SELECT pooler.clean('dn2')});
wait_for('all to be at rest', sub {
		$sessions[0]->ask('SELECT sum(idle + parked) > 0 AND sum(leased + connecting + resetting) = 0'
			  . ' AND (SELECT count(*) FROM pooler.sessions) = 4 FROM pooler.pools') eq 't' });
my $free = first_free();
allow($free);
my ($cpu, $start) = (used($worker), time);
my $new = session($coord);
within(10, 'no descriptor: a new session is not left waiting', sub { $err = $new->refused($one) });
like($err, qr/ERROR:  53000: pooler worker has no descriptor left for another session\nDETAIL:  Too many open files(?s:.*)\nHINT:  .*open files/,
	'... it is told');
$new->refused($one) for 1 .. 3;
is(scalar(() = log_since($coord, $offset) =~ /WARNING:.*no descriptor left for another session/g), 1, '... and so is the log, once');
is($sessions[0]->ask($one), 'SELECT 1', '... one that is attached works on');
$sessions[0]->tell(q{SELECT pooler.exec('dn2', 'SELECT 1')});
like(($sessions[0]->hear())[1], qr/ERROR:  53000: could not connect to datanode "dn2": .*Too many open files/, '... but gets no new connection');
is($sessions[0]->ask(q{SELECT health FROM pooler.nodes WHERE node = 'dn2'}), 'up', '... for which the node is not to blame');
usleep(500_000);
my ($spent, $passed) = (used($worker) - $cpu, time - $start);
cmp_ok($spent, '<', 0.2 * $passed, sprintf('... the pooler worker does not spin (%.2f s of %.2f s)', $spent, $passed));
allow(220);
wait_until($coord, $one, 'SELECT 1', 'as soon as there are descriptors new sessions work');
wait_until($coord, q{SELECT pooler.exec('dn2', 'SELECT 1')}, 'SELECT 1', '... and new connections are opened');
is(worker_pids($coord), $worker, '... by the same pooler worker');
$_->quit() for @sessions, $new;

# Children of a session that holds leases, and children in general, inherit nothing.
my $list = $coord->basedir . '/child';
sub child_of
{
	my ($session) = @_;
	$session->ask("COPY (SELECT 1) TO PROGRAM 'ls -l /proc/self/fd > $list'");
	return { map { $_ => 1 } slurp_file($list) =~ /-> (socket:\S+|anon_inode:\S+|pipe:\S+)/g };
}
my $s = session($coord);
my $inherited = child_of($s);
my %own = map { $_->[1] => 1 } open_in($s->pid);
$s->ask('BEGIN');
hold($s, 'dn1', 1, 10);
$s->ask(q{SELECT pooler.exec('dn2', 'SELECT 1')});
my @added = grep { $_->[1] =~ /^socket:/ && !$own{ $_->[1] } } open_in($s->pid);
cmp_ok(scalar(@added), '>=', 12, 'a session with eleven leases has that many sockets more, and one to the pooler');
my $child = child_of($s);
is_deeply([ grep { $child->{ $_->[1] } } @added ], [], '... of which a child has none');
is(scalar(grep { /^socket:/ } keys %$child), scalar(grep { /^socket:/ } keys %$inherited), '... but what it had before');

sub left_open
{
	my ($pid, @wanted) = @_;
	my $cloexec = 02000000;
	return grep {
		my ($flags) = slurp_file("/proc/$pid/fdinfo/$_->[0]") =~ /^flags:\s*([0-7]+)/m;
		!(oct($flags) & $cloexec)
	} @wanted;
}
is_deeply([ left_open($s->pid, @added) ], [], '... all of them are close-on-exec');
is_deeply([ left_open($worker, grep { $_->[1] =~ /^(?:socket:|anon_inode:)/ } open_in($worker)) ], [],
	'... and so are all sockets of the pooler worker');
$s->ask('ROLLBACK');
$s->quit();

# Where there are enough of them the server makes PGconns in advance, for the first hand-outs of each
# session: four. Where there are just enough for the server it starts all the same.
start_with(3000, 3000);
value($coord, 'CREATE EXTENSION polarx_pooler_example');
$s = session($coord);
$child = child_of($s);
is(scalar(grep { /^socket:/ } keys %$child), scalar(grep { /^socket:/ } keys %$inherited), 'with PGconns made in advance a child inherits nothing either');
my $listens = $coord->basedir . '/listens';
$s->ask("SELECT misuse_stall_listen('$listens'); BEGIN");
is($s->ask($one), 'SELECT 1', 'the first hand-out of a session makes no PGconn');
hold($s, 'dn1', 1, 3);
ok(!-e $listens, '... nor do three more');
$s->tell("SET LOCAL ROLE h4; $one");
wait_for('a PGconn that is made', sub { -e $listens });
unlink $listens;
is(join('', $s->hear()), 'SELECT 1', '... the fifth does');
$s->quit();
$coord->append_conf('postgresql.conf', 'max_files_per_process = 64');
start_with(3000, 3000);
is(value($coord, $one), 'SELECT 1', 'a server that may have 64 files starts');
finish();
