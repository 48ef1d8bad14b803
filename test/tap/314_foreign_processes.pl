# Who is not a session of the database gets nothing: other operating system users, children of
# sessions, sessions of other databases, forgers of leases, and those who pose as the pooler.

use strict;
use warnings;
use Cwd ();
use IO::Socket::UNIX;
use POSIX ();
use PolarxPooler;
use PostgreSQL::Test::Utils;
use Socket qw(AF_UNIX SOCK_STREAM SOMAXCONN pack_sockaddr_un);
use Test::More;

my $stopped;    # process to be continued, come what may
END { kill 'CONT', $stopped if $stopped; }

# With so few files the server makes no PGconns in advance: each session makes its own.
my $coord = start_coordinator(conf => <<'END');
max_files_per_process = 200
pooler.min_pool_size = 0
pooler.min_free_size = 0
pooler.pooler_connect_timeout = 3s
END
my $dn = start_datanode('dn1');
add_node($coord, 'dn1', $dn, server => { max_pool_size => 2 });
value($coord, 'CREATE EXTENSION polarx_pooler_example; CREATE DATABASE other');
value($coord, 'CREATE EXTENSION polarx_pooler_example CASCADE', db => 'other');
my $one = q{SELECT pooler.exec('dn1', 'SELECT 1')};
my $path = value($coord, q{SELECT socket FROM pooler.workers WHERE datname = 'postgres'});
my ($relative) = $path =~ m{/(pg_stat_tmp/[^/]+)$};
my $data = $coord->data_dir;
my $home = Cwd::getcwd();
my $worker = worker_pid($coord);
is(value($coord, $one), 'SELECT 1', 'the pool works');

sub bytes { return q{decode('} . unpack('H*', $_[0]) . q{', 'hex')}; }
sub frame { my ($code, $payload) = @_; return pack('NN', 8 + length $payload, 0x504C5801 + $code) . $payload; }
my ($node, $role) = split /\|/, value($coord, q{SELECT s.oid, u.umuser FROM pg_foreign_server s
	JOIN pg_user_mappings u ON u.srvid = s.oid WHERE s.srvname = 'dn1'});
my $attach = frame(0, pack('NQ>', 1, 1));
my $acquire = frame(1, pack('NNCNNN', 7, 0, 0, 1, $node, $role));

# The socket of the pooler is reached by the path from the data directory.
sub in_data_directory
{
	my ($code) = @_;
	chdir $data or die "chdir: $!";
	my @result = eval { $code->() };
	my $error = $@;
	chdir $home or die "chdir: $!";
	die $error if $error;
	return wantarray ? @result : $result[0];
}

sub listener
{
	my $socket = IO::Socket::UNIX->new(Type => SOCK_STREAM, Local => $relative, Listen => 1000) or die "listen: $!";
	return $socket;
}

# Strangers in processes of 500 connect until that many are there or no more fit.
my $kGroup = 500;

sub crowd
{
	my ($peer, $most) = @_;
	my ($there, @groups) = (0);
	for (my $left = $most; $left > 0; $left -= $kGroup)
	{
		my $wanted = $left < $kGroup ? $left : $kGroup;
		socketpair(my $ours, my $theirs, AF_UNIX, SOCK_STREAM, 0) or die "socketpair: $!";
		my $pid = fork // die "fork: $!";
		if ($pid == 0)
		{
			close $ours;
			$SIG{TERM} = 'DEFAULT';  # it is not the test that ends
			be_strangers($theirs, $peer, $wanted);
			POSIX::_exit(0);
		}
		close $theirs;
		push @groups, [ $pid, $ours ];
		chomp(my $came = <$ours>);
		$there += $came;
		last if $came < $wanted;
	}
	return { there => $there, groups => \@groups };
}

# In a child: connects, tells how many, and on demand how many were turned away and what they got.
sub be_strangers
{
	my ($control, $peer, $wanted) = @_;
	my ($refused, $got, @sockets) = (0, 0);
	while (@sockets < $wanted)
	{
		my $socket = IO::Socket::UNIX->new(Type => SOCK_STREAM) or die "socket: $!";
		$socket->blocking(0);
		connect $socket, pack_sockaddr_un($peer) or last;    # the queue is full
		push @sockets, $socket;
	}
	syswrite $control, @sockets . "\n";
	sysread $control, my $go, 1;
	for my $socket (@sockets)
	{
		my $bytes = '';
		$socket->blocking(1);
		1 while sysread $socket, $bytes, 1000, length $bytes;
		$refused++ if $bytes =~ /not a session of this database/;
		$got += length $bytes;
	}
	syswrite $control, "$refused $got\n";
	return;
}

# (how many were turned away with a word, how many bytes they got)
sub disperse
{
	my ($crowd) = @_;
	my @sum = (0, 0);
	for my $group (@{ $crowd->{groups} })
	{
		my ($pid, $control) = @$group;
		syswrite $control, 'x';
		my @told = split ' ', <$control> // '';
		$sum[$_] += $told[$_] for 0, 1;
		waitpid $pid, 0;
	}
	return @sum;
}

# --- others on the way in ---------------------------------------------------------------------------
my %mode = map { $_ => sprintf '%04o', (stat "$data/$_")[2] & 07777 } '.', $relative, "$relative.lock";
is_deeply([ map { $mode{$_} } sort keys %mode ], [ '0700', '0600', '0600' ],
	'data directory, socket and lock: for the server\'s operating system user alone');
is((stat $data)[4], $>, '... which owns them');

# Programs that a session starts are of that user, but are no sessions.
my $program = $coord->basedir . '/knock.pl';
append_to_file($program, <<'END');
use IO::Socket::UNIX;
my $socket = IO::Socket::UNIX->new(Type => SOCK_STREAM, Peer => $ARGV[0]) or die "connect: $!";
$SIG{PIPE} = 'IGNORE';
syswrite $socket, pack 'H*', $ARGV[1];
my $got = '';
1 while sysread $socket, $got, 1000, length $got;
print $got =~ /not a session of this database/ ? "turned away\n" : 'got ' . unpack('H*', $got) . "\n";
END
my $knock = "$^X $program $relative " . unpack('H*', $attach . $acquire);
my $offset = log_offset($coord);
value($coord, 'CREATE TABLE answers (answer text)');
my $s = session($coord);
$s->ask("BEGIN; $one");
$s->ask("COPY answers FROM PROGRAM '$knock'; COMMIT");
is(value($coord, 'SELECT answer FROM answers'), 'turned away', 'a program started by COPY is turned away');
ok(value($coord, "SELECT misuse_forked('$path', " . bytes($attach . $acquire) . ')') > 0, 'so is a child of a session');
is(() = log_since($coord, $offset) =~ /process \d+ may not attach to the pooler\n.*DETAIL:.*not a session of this database/g,
	2, '... and it is logged');
my $other = session($coord, db => 'other');
$other->ask("SELECT example_hostile('$path', " . bytes($attach . $acquire) . q{, 'await')});
wait_log($coord, qr/process @{[ $other->pid ]} may not attach to the pooler/, $offset, 'so is a session of another database');
is($other->ask('SELECT 1'), '1', '... which goes on');
is(value($coord, 'SELECT sum(leased), sum(waiting) FROM pooler.pools'), '0|0', 'none of them got anything');

# Strangers who fill the queue of a pooler that does not listen at that moment.
$stopped = $worker;
kill 'STOP', $stopped;
my $queue = in_data_directory(sub { crowd($relative, 2000) });
cmp_ok($queue->{there}, '>', 1000, 'the queue of the pooler is full of strangers');
my $late = session($coord);
$late->tell($one);
my $waits = session($coord);
$waits->tell("SET statement_timeout = '500ms'; $one");
like(($waits->hear())[1], qr/ERROR:  57014: /, '... a session can be cancelled meanwhile');
like(($late->hear())[1], qr/ERROR:  57P03: .*too many sessions are connecting/, '... or hears what is the matter, in time');
$late->tell($one);
kill 'CONT', $stopped;
undef $stopped;
is(join('', $late->hear()), 'SELECT 1', '... and is served once the strangers have been turned away');
is((disperse($queue))[0], $queue->{there}, '... each of them');
wait_until($coord, q{SELECT fds_used < 40 FROM pooler.workers WHERE datname = 'postgres'}, 't', '... without a descriptor left');

# --- leases of others -------------------------------------------------------------------------------
my $victim = session($coord);
my $forger = session($coord);
$forger->ask("SELECT misuse_attach('$path')");
my $hear = q{SELECT encode(f, 'hex') FROM (SELECT misuse_receive() OFFSET 0) r(f)};
sub speak { return 'SELECT misuse_send(' . bytes($_[0]) . ')'; }
$forger->ask(speak($acquire));
my $mine = hex substr $forger->ask($hear), 32, 16;
cmp_ok($mine, '>', 0, 'a lease acquired by hand');
$victim->tell(q{SELECT pooler.exec('dn1', 'SELECT pg_sleep(2)')});
wait_until($dn, q{SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(2)%' AND state = 'active'
	AND pid <> pg_backend_pid()}, '1', 'somebody else\'s statement runs');
is(value($coord, 'SELECT sum(leased) FROM pooler.pools'), '2', '... on another lease');
my @others = grep { $_ > 0 && $_ != $mine } $mine - 50 .. $mine + 50;
$forger->ask(speak(join '', map { frame(4, pack 'Q>N', $_, 1) } @others));
$forger->ask(speak(frame(2, pack 'N', $_))) for 1 .. 5;
is($forger->ask(speak(frame(4, pack 'Q>N', $mine, 1))), '', 'cancels of all leases around');
my @guilty;
for my $lease ($mine + 1 .. $mine + 3, grep { $_ > 0 } $mine - 3 .. $mine - 1)
{
	my $liar = session($coord);
	$liar->ask("SELECT misuse_attach('$path')");
	$liar->ask(speak(frame(3, pack 'NQ>CN', 1, $lease, 2, 0)));
	push @guilty, $lease if $liar->ask($hear) ne '';
	$liar->quit();
}
is("@guilty", '', 'who releases leases of others is disconnected');
my ($out, $err) = $victim->hear();
is("$out$err", 'SELECT 1', '... and none of it reaches the statement');
is(value($coord, 'SELECT sum(leased) FROM pooler.pools'), '1', 'the forger\'s own lease is still there');
$forger->quit();
wait_until($coord, 'SELECT sum(leased) FROM pooler.pools', '0', '... and gone with him');

# --- posing as the pooler ---------------------------------------------------------------------------
$_->quit() for $s, $other, $late, $waits, $victim;
my $fake = in_data_directory(sub {
		rename $relative, "$relative.away" or die "rename: $!";
		return listener();
	});
$offset = log_offset($coord);
my ($deceived) = fails_with($coord, $one, '08001', qr/process $$ of user $> listens there, not pooler worker $worker/,
	'somebody else listens on the pooler\'s socket: said so');
my $said = '';
$fake->blocking(0);
while (my $client = $fake->accept())
{
	1 while sysread $client, $said, 1000, length $said;
}
is($said, '', '... and nobody has told him anything');
in_data_directory(sub { unlink $relative; rename "$relative.away", $relative or die "rename: $!" });
is(value($coord, $one), 'SELECT 1', 'with the pooler\'s own in its place all is well');

# He is there first, before the pooler worker starts.
value($coord, 'SELECT pooler.stop()');
in_data_directory(sub {
		unlink $relative;
		$fake = listener();
	});
is(value($coord, 'SELECT pooler.start()'), 't', 'somebody who was there first is put aside');
is(value($coord, $one), 'SELECT 1', '... and nobody talks to him');
$fake->blocking(0);
is($fake->accept(), undef, '... not once');

# --- the listener of an adoption --------------------------------------------------------------------
# Its name can be read by everybody. Strangers come before libpq does: some, then as many as fit.
my $name_file = $coord->basedir . '/listener';
sub adopt_among
{
	my ($strangers) = @_;
	my $session = session($coord);
	$session->ask("SELECT misuse_stall_listen('$name_file')");
	$session->tell($one);
	wait_for('a listener', sub { -e $name_file });
	my $name = slurp_file($name_file);
	like($name, qr{^[0-9a-f]{32}/\.s\.PGSQL\.\d+$}, 'the listener of an adoption has a random name');
	my $crowd = crowd("\0$name", $strangers);
	unlink $name_file;
	return ($session, $crowd);
}
for my $count (1, 100)
{
	my ($session, $crowd) = adopt_among($count);
	is($crowd->{there}, $count, "$count strangers come first");
	is(join('', $session->hear()), 'SELECT 1', '... the adoption is not deceived');
	is((disperse($crowd))[1], 0, '... and they get nothing');
	$session->quit();
}
my ($session, $crowd) = adopt_among(SOMAXCONN + 1000);
note "$crowd->{there} strangers";
is(join('', $session->hear()), 'SELECT 1', 'its queue is full: the adoption takes another name');
is((disperse($crowd))[1], 0, '... and they get nothing');
is($session->ask("ROLLBACK; $one"), 'SELECT 1', '... the next adoption is well');
$session->quit();
wait_until($coord, 'SELECT sum(leased), sum(total - idle - parked) FROM pooler.pools', '0|0', '... and nothing is held');
finish();
