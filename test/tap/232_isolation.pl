# The isolation matrix: nothing of what one session leaves on a datanode connection is visible to the
# next holder, and the connection is reset or closed as the table says: when it is given back, or taken from
# the session that has parked it.

use strict;
use warnings;
use PolarxPooler;
use IO::Select;
use IO::Socket::INET;
use POSIX ();
use Socket qw(IPPROTO_TCP TCP_NODELAY);
use Test::More;

my $coord = start_coordinator(park => 1,
	conf => "pooler.min_pool_size = 0\npooler.min_free_size = 0\npooler.pooler_dn_set_timeout = 3s\n");
my $dn = start_datanode('dn1');
value($dn, q{CREATE ROLE other SUPERUSER; CREATE SEQUENCE q; CREATE TABLE t (id int);
	CREATE FUNCTION current_value() RETURNS text LANGUAGE plpgsql AS $$BEGIN RETURN currval('q');
	EXCEPTION WHEN object_not_in_prerequisite_state THEN RETURN 'none'; END$$});
add_node($coord, 'dn1', $dn, server => { max_pool_size => 1 });
value($coord, 'CREATE EXTENSION polarx_pooler_example');
value($coord, qq{ALTER ROLE "${\me()}" SET pooler.queue_timeout = '20s'});

my $me = me();
sub sql_literal { my ($text) = @_; $text =~ s/'/''/g; return "'$text'"; }

# What a holder finds: (process id at the node, value of the expression).
sub probe
{
	my ($session, $expression, $node) = @_;
	my $query = sql_literal("SELECT pg_backend_pid(), $expression");
	my $sql = sprintf q{SELECT p, v FROM pooler.query('%s', %s) AS r(p int, v text)}, $node // 'dn1', $query;
	return split /\|/, (ref $session eq 'PolarxSession' ? $session->ask($sql) : value($session, $sql)), 2;
}

# Session state: left how, seen how, its fresh value, its value where it has been left.
my @state = (
	[ 'GUC by SET', q{SET work_mem = '9MB'}, q{current_setting('work_mem')}, '4MB', '9MB' ],
	[ 'a setting nobody knows', q{SET my.own = 'x'}, q{coalesce(current_setting('my.own', true), '')}, '', 'x' ],
	[ 'SET ROLE', 'SET ROLE other', 'current_user', $me, 'other' ],
	[ 'SET SESSION AUTHORIZATION', 'SET SESSION AUTHORIZATION other', 'session_user', $me, 'other' ],
	[ 'temporary table', 'CREATE TEMP TABLE mine (a int)', q{to_regclass('pg_temp.mine')}, '', 'mine' ],
	[ 'prepared statement', 'PREPARE p AS SELECT 1', '(SELECT count(*) FROM pg_prepared_statements)', '0', '1' ],
	[ 'cursor WITH HOLD', 'DECLARE c CURSOR WITH HOLD FOR SELECT 1',
		q{(SELECT count(*) FROM pg_cursors WHERE name = 'c')}, '0', '1' ],
	[ 'session advisory lock', 'SELECT pg_advisory_lock(42)',
		q{(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')}, '0', '1' ],
	[ 'LISTEN', 'LISTEN spoiled', '(SELECT count(*) FROM pg_listening_channels())', '0', '1' ],
	[ 'currval of a sequence', q{SELECT nextval('q')}, q{CASE current_value() WHEN 'none' THEN 'none' ELSE 'some' END},
		'none', 'some' ]);

# Without a reset each of them is there for the next holder: the probes see what they should.
set_conf($coord, 'pooler.reset_query' => '');
wait_until($coord, 'SHOW pooler.reset_query', '', 'no reset');
my ($leaver, $next_holder) = map { session($coord) } 1 .. 2;
for my $row (@state)
{
	my ($name, $leave, $expression, $fresh, $left) = @$row;
	# The setting reaches the worker some moment later than the sessions.
	my $seen = '';
	eval {
		wait_for($name, sub {
				$leaver->ask(q{SELECT pooler.exec('dn1', } . sql_literal($leave) . ')');
				(undef, $seen) = probe($next_holder, $expression);
				$leaver->ask('SELECT pooler.clean()');
				$seen =~ /\Q$left\E$/;
			}, 10);
	};
	like($seen, qr/\Q$left\E$/, "$name: stays without a reset");
}
set_conf($coord, 'pooler.reset_query' => undef);
wait_until($coord, 'SHOW pooler.reset_query', 'DISCARD ALL', 'the reset of always');
my $witness = $state[0];
wait_for('a reset', sub {
		$leaver->ask(q{SELECT pooler.exec('dn1', } . sql_literal($witness->[1]) . ')');
		(probe($next_holder, $witness->[2]))[1] eq $witness->[3];
	});

# With it none is, whether the transaction was committed or rolled back.
for my $row (@state)
{
	my ($name, $leave, $expression, $fresh, $left) = @$row;
	for my $ending ('COMMIT', 'ROLLBACK')
	{
		$leaver->ask('BEGIN');
		$leaver->ask(q{SELECT pooler.exec('dn1', } . sql_literal($leave) . ')');
		my ($pid, $seen) = probe($leaver, $expression);
		# Listening begins with the commit.
		like($seen, qr/\Q$left\E$/, "$name: is there") if $name ne 'LISTEN';
		$leaver->ask($ending);
		is_deeply([ probe($next_holder, $expression) ], [ $pid, $fresh ],
			"$name, $ending: the next holder finds nothing on the same connection, which was reset");
	}
}

# What is left by a borrower: [ name, call, expected of the connection ]. The probe looks for what the
# statement did, for answers out of turn and for notifications.
my $rows = 'SELECT g FROM generate_series(1, 100000) g';
my @open = (
	[ 'an open transaction', q{'done', 'BEGIN; INSERT INTO t VALUES (1); SET LOCAL work_mem = ''9MB'''}, 'reset' ],
	[ 'an open transaction with a savepoint', q{'done', 'BEGIN; SAVEPOINT a; INSERT INTO t VALUES (1)'}, 'reset' ],
	[ 'an aborted transaction', q{'failed', ''}, 'reset' ],
	[ 'notifications unread', q{'done', 'LISTEN spoiled; NOTIFY spoiled, ''own'''}, 'reset' ],
	[ 'COPY FROM in progress', q{'copy', 'COPY t FROM STDIN'}, 'closed' ],
	[ 'COPY TO in progress', qq{'copy', 'COPY ($rows) TO STDOUT'}, 'closed' ],
	[ 'a little COPY TO in progress', q{'copy', 'COPY (SELECT 1) TO STDOUT'}, 'closed' ],
	[ 'many unread rows', qq{'unread', '$rows'}, 'closed' ],
	[ 'few unread rows', q{'unread', 'SELECT g FROM generate_series(1, 3) g'}, 'closed' ],
	[ 'pipeline mode left on', q{'pipeline', 'SET work_mem = ''9MB'''}, 'closed' ],
	[ 'pipeline mode left on in a transaction', q{'pipeline', 'BEGIN; INSERT INTO t VALUES (1)'}, 'closed' ]);
my $whole = q{concat_ws(' ', (SELECT count(*) FROM t), current_setting('work_mem'),
	(SELECT count(*) FROM pg_listening_channels()))};
for my $row (@open)
{
	my ($name, $call, $expected) = @$row;
	my $left = $leaver->ask($call =~ /failed/ ? q{SELECT example_leave('dn1', 'failed', 0)}
		: "SELECT example_leave_open('dn1', $call)");
	my ($next, $found) = probe($next_holder, $whole);
	is($found, '0 4MB 0', "$name: the next holder finds nothing");
	my $how = $next == $left ? 'reset' : 'closed';
	is($how, $expected, "... on a connection that was $expected");
	is($next_holder->ask(q{SELECT example_notifications('dn1', 'SELECT 1')}), '0', '... which notifies of nothing');
	wait_until($dn, "SELECT count(*) FROM pg_stat_activity WHERE pid = $left", '0', '... and the old one is gone')
	  if $expected eq 'closed';
}

# Through SQL: a COPY is refused before it is sent, and rows behind one that is bad are read to their end.
for my $row (
	[ 'COPY TO', q{SELECT pooler.exec('dn1', 'COPY (SELECT 1) TO STDOUT')}, qr/0A000/ ],
	[ 'COPY FROM', q{SELECT pooler.exec('dn1', 'COPY t FROM STDIN')}, qr/0A000/ ],
	[ 'rows unread', q{SELECT * FROM pooler.query('dn1',
		'SELECT * FROM (VALUES (''1''), (''x''), (''3'')) v') AS r(a int)}, qr/22P02/ ])
{
	my ($name, $sql, $error) = @$row;
	$leaver->ask('BEGIN');
	my ($left) = probe($leaver, '1');
	like($leaver->refused($sql), $error, "$name through SQL");
	$leaver->ask('ROLLBACK');
	is_deeply([ probe($next_holder, $whole) ], [ $left, '0 4MB 0' ],
		'... the next holder finds nothing on the same connection, which was reset');
}

# A connection that listened hears nothing of a NOTIFY between two leases.
$leaver->ask(q{SELECT pooler.exec('dn1', 'LISTEN spoiled')});
value($dn, q{NOTIFY spoiled, 'between'});
is($next_holder->ask(q{SELECT example_notifications('dn1', 'SELECT 1')}), '0', 'LISTEN: a later NOTIFY reaches nobody');

# A wire in front of the datanode: while $hold exists it passes on the answers up to the first HALF, says
# so in $half, and keeps what follows until $hold is gone.
my ($hold, $half) = map { $coord->basedir . "/$_" } 'hold', 'half';
my $wire = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 0, Listen => 8, Proto => 'tcp') or die $!;
my $wire_port = $wire->sockport;
my $wire_pid = fork // die "fork: $!";
if ($wire_pid == 0)
{
	$SIG{TERM} = 'DEFAULT';  # it is not the test that ends
	my $test = getppid();
	pass_on($wire) while getppid() == $test;
	POSIX::_exit(0);
}
close $wire;

my ($select, %peer, %of_node, %kept);

# One turn of the wire.
sub pass_on
{
	my ($listener) = @_;
	$select //= IO::Select->new($listener);
	for my $from ($select->can_read(0.02))
	{
		if ($from == $listener)
		{
			my $client = $listener->accept();
			my $node = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $dn->port);
			setsockopt $client, IPPROTO_TCP, TCP_NODELAY, 1;
			@peer{ $client, $node } = ($node, $client);
			$of_node{$node} = $node;
			$select->add($client, $node);
		}
		elsif (!sysread $from, my $bytes, 65536)
		{
			$peer{$from}->shutdown(1);
			$select->remove($from);
		}
		elsif (defined $kept{$from}) { $kept{$from} .= $bytes; }
		elsif ($of_node{$from} && -e $hold && $bytes =~ s/\A(.*?HALF)//s)
		{
			syswrite $peer{$from}, $1;
			$kept{$from} = $bytes;
			PostgreSQL::Test::Utils::append_to_file($half, '');
		}
		else { syswrite $peer{$from}, $bytes; }
	}
	return if -e $hold;
	syswrite $peer{$_}, delete $kept{$_} for keys %kept;
	return;
}

add_node($coord, 'wired', $dn, server => { max_pool_size => 1, port => $wire_port });
for my $rest ('comes', 'never comes')
{
	# The session keeps the connection, for it listens only after its commit.
	my $s = session($coord);
	$s->ask('SET pooler.persistent_datanode_connections = on');
	is($s->ask(q{SELECT pooler.exec('wired', 'LISTEN spoiled')}), 'LISTEN', 'a session listens');
	my ($left) = probe($s, '1', 'wired');
	PostgreSQL::Test::Utils::append_to_file($hold, '');
	value($dn, q{NOTIFY spoiled, 'HALFWAY'});
	wait_for('half a NOTIFY', sub { -e $half });
	my $offset = log_offset($coord);
	$s->quit();
	wait_until($coord, q{SELECT leased FROM pooler.pools WHERE node = 'wired'}, '0', '... gives it back');
	unlink $hold if $rest eq 'comes';
	my ($next, $found) = @{ within(15, "half a NOTIFY, the rest $rest: the next holder is served",
			sub { [ probe($coord, $whole, 'wired') ] }) };
	is($found, '0 4MB 0', '... finds nothing');
	isnt($next, $left, '... on another connection: the old one was closed');
	is(value($coord, q{SELECT example_notifications('wired', 'SELECT 1')}), '0', '... which notifies of nothing');
	wait_log($coord, qr/connection to datanode "wired".*/, $offset, '... and the log tells');
	unlink $hold, $half;
	wait_until($dn, "SELECT count(*) FROM pg_stat_activity WHERE pid = $left", '0', '... the old one is gone');
}
kill 'TERM', $wire_pid;
waitpid $wire_pid, 0;
$_->quit() for $leaver, $next_holder;

finish();
