# Whatever a session does with the pooler, it may end there, or its statement may: the connection is
# idle or closed at once, nobody holds or waits for anything, and the next session is served.

use strict;
use warnings;
use PolarxPooler;
use PolarxProxy;
use Test::More;

my $stopped;    # process to be continued, come what may
END { kill 'CONT', $stopped if $stopped; }

# No time-out of the pooler's is short enough to help.
# With so few files the server makes no PGconns in advance: each session makes its own.
my $coord = start_coordinator(conf => <<'END');
max_files_per_process = 200
pooler.min_pool_size = 0
pooler.min_free_size = 0
pooler.pooler_dn_set_timeout = 60s
pooler.pooler_connect_timeout = 60s
client_connection_check_interval = 100ms
END
my %dn = map { $_ => start_datanode($_) } qw(dn1 dn2);
my $proxy = PolarxProxy->before($dn{dn1}->port);
my $silent = PolarxProxy->before($dn{dn1}->port);
$silent->silent();
add_node($coord, $_, $dn{$_}, server => { max_pool_size => 1 }) for sort keys %dn;
add_node($coord, 'wire', $dn{dn1}, server => { max_pool_size => 1, port => $proxy->port });
add_node($coord, 'mute', $dn{dn1}, server => { max_pool_size => 1, port => $silent->port });
value($dn{dn1}, 'CREATE TABLE t (n int)');
value($coord, 'CREATE EXTENSION polarx_pooler_example');
my $path = value($coord, 'SELECT socket FROM pooler.workers');
my $ids = value($coord, q{SELECT s.oid, u.umuser FROM pg_foreign_server s JOIN pg_user_mappings u ON u.srvid = s.oid
	WHERE s.srvname = 'dn1'});
my ($watch, $next, $holder) = map { session($coord) } 1 .. 3;
my $worker = worker_pid($coord);
my $kLimit = 5;    # s; a second on a quiet machine

sub remote { return "SELECT pooler.exec('$_[0]', '$_[1]')"; }
my $one = remote('dn1', 'SELECT 1');
my $pid = q{SELECT p FROM pooler.query('dn1', 'SELECT pg_backend_pid()') AS r(p int)};

# Frames by hand, as core/protocol.h has them.
sub bytes { return q{decode('} . unpack('H*', $_[0]) . q{', 'hex')}; }
sub frame { my ($code, $payload) = @_; return pack('NN', 8 + length $payload, 0x504C5801 + $code) . $payload; }
my $acquire = frame(1, pack('NNCNNN', 7, 60000, 0, 1, split /\|/, $ids));
my $release = frame(3, pack('NQ>CN', 1, 1, 0, 0));
sub by_hand { return "SELECT misuse_attach('$path'); SELECT misuse_send(" . bytes($_[0]) . ')'; }
sub half { return "SELECT example_hostile('$path', " . bytes(substr $_[0], 0, 11) . ", 'silence')"; }

my $leased = sub { $watch->ask('SELECT sum(leased) FROM pooler.pools') >= $_[0] };
my $waiting = 'SELECT count(*) FROM pooler.sessions WHERE waiting_for IS NOT NULL';
my $waits = sub { $watch->ask($waiting) eq '1' };
my $active = sub {
	my $where = "state = 'active' AND query LIKE '%sleep%' AND pid <> pg_backend_pid()";
	return value($dn{dn1}, "SELECT count(*) > 0 FROM pg_stat_activity WHERE $where") eq 't';
};
my $executes = sub {
	my $mine = $_[0]->pid;
	return value($coord, "SELECT state, wait_event_type FROM pg_stat_activity WHERE pid = $mine") eq 'active|Extension';
};
sub held { $holder->ask('BEGIN; ' . remote($_[0], 'SELECT 1')); return; }
sub let_go { $holder->ask('COMMIT'); return; }
sub halt { $stopped = $worker; kill 'STOP', $stopped; return; }
sub resume { kill 'CONT', $stopped; undef $stopped; return; }

# What a session holds between its statements: [name, statements, leases that the pools count].
my @idle = (
	[ 'attached, without a lease', $one, 0 ],
	[ 'in a transaction', 'BEGIN; ' . remote('dn1', 'INSERT INTO t VALUES (1)'), 1 ],
	[ 'in a savepoint', "BEGIN; $one; SAVEPOINT a; " . remote('dn1', 'INSERT INTO t VALUES (1)'), 1 ],
	[ 'on several nodes', "BEGIN; $one; " . remote('dn2', 'SELECT 1') . '; ' . remote('wire', 'SELECT 1'), 3 ],
	[ 'keeping its connection', "SET pooler.persistent_datanode_connections = on; $one", 1 ],
	(map { [ "having borrowed one, $_", "BEGIN; SELECT example_leave('dn1', '$_', 3)", 1 ] }
		qw(idle transaction failed copy pipeline busy)),
	[ 'in the middle of a row of COPY', q{BEGIN; SELECT misuse_copy_in('dn1', 't')}, 1 ],
	[ 'having sent half a message', half($acquire), 0 ],
	[ 'with a lease, having sent half a message', "BEGIN; $one; " . half($release), 1 ],
	[ 'not having read what it was granted', by_hand($acquire), 1 ],
	[ 'having sent half a release', by_hand($acquire . substr $release, 0, 13), 1 ],
	[ 'having sent half a cancel', by_hand($acquire . substr frame(4, pack('Q>N', 1, 1)), 0, 9), 1 ]);

# What a session waits for: [name, statements, true when it does, before, after].
my $forward = sub { $proxy->forward() };
my @busy = (
	[ 'for a connection that another session has', $one, $waits, sub { held('dn1') }, \&let_go ],
	[ 'for one of two nodes', q{SELECT * FROM example_two_nodes('dn1', 'dn2')}, $waits, sub { held('dn2') }, \&let_go ],
	[ 'for a datanode that does not answer', remote('mute', 'SELECT 1'), $waits, \&is_tried_again, sub { $silent->cut() } ],
	[ 'for a node that is paused', $one, $waits, sub { $watch->ask(q{SELECT pooler.pause('dn1')}) },
		sub { $watch->ask(q{SELECT pooler.resume('dn1')}) } ],
	[ 'for the pooler worker', $one, $executes, \&halt, \&resume ],
	[ 'for a view', 'SELECT count(*) FROM pooler.nodes', $executes, \&halt, \&resume ],
	[ 'for a ping', q{SELECT * FROM pooler.ping('mute')}, $executes, sub { }, sub { $silent->cut() } ],
	[ 'for a remote statement', remote('dn1', 'SELECT pg_sleep(60)'), $active ],
	[ 'for one of many rows', q{SELECT count(*) FROM pooler.query('dn1',
		'SELECT pg_sleep(0.01) FROM generate_series(1, 6000)') AS r(a text)}, $active ],
	[ 'for a statement outside the transaction', q{SELECT pooler.exec_autocommit('dn1', 'SELECT pg_sleep(60)')}, $active ],
	[ 'for a statement of a borrower', q{SELECT example_sleep('dn1', 60)}, $active ],
	[ 'for several nodes', q{BEGIN; SELECT pooler.exec('dn2', 'SELECT 1'); } . remote('dn1', 'SELECT pg_sleep(60)'), $active ],
	[ 'for its parameters to be set', q{SELECT pooler.set_param('work_mem', '5MB'); } . remote('wire', 'SELECT 1'),
		$executes, sub { value($coord, remote('wire', 'SELECT 1')); $proxy->freeze() }, $forward ],
	[ 'for a COMMIT', 'COMMIT', $executes, sub { $_[0]->ask('BEGIN; ' . remote('wire', 'SELECT 1')); $proxy->freeze() },
		$forward ]);

# How it ends: [name, of what, how, what to set before, does the session live on].
sub terminate { my $mine = $_[0]->pid; $watch->ask("SELECT pg_terminate_backend($mine)"); return; }
my @endings = (
	[ 'pg_terminate_backend', 'idle busy', \&terminate ],
	[ 'its client is gone', 'idle busy', sub { $_[0]{run}->signal('KILL') } ],
	[ 'it ends', 'idle', sub { $_[0]->quit() } ],
	[ 'idle_in_transaction_session_timeout', 'transaction', sub { }, q{SET idle_in_transaction_session_timeout = '200ms'} ],
	[ 'idle_session_timeout', 'none', sub { }, q{SET idle_session_timeout = '200ms'} ],
	[ 'pg_cancel_backend', 'busy', sub { my $mine = $_[0]->pid; $watch->ask("SELECT pg_cancel_backend($mine)") }, undef, 1 ],
	[ 'statement_timeout', 'busy', sub { }, q{SET statement_timeout = '300ms'}, 1 ]);

# Nothing is held or waited for, on either side, and the only connection serves another session.
sub settled
{
	my ($name, $session) = @_;
	my ($mine, $books, $remote) = ($session->pid, '', '');
	my $came = eval {
		wait_for($name, sub {
				$books = $watch->ask("SELECT (SELECT sum(leased + waiting + resetting) FROM pooler.pools),
					(SELECT sum(total - idle - parked) FROM pooler.pools WHERE node <> 'mute'),
					(SELECT count(*) FROM pooler.connections WHERE session_pid = $mine AND state <> 'parked'),
					(SELECT count(*) FROM pooler.sessions WHERE pid = $mine AND waiting_for IS NOT NULL)");
				return $books eq '0|0|0|0';
			}, $kLimit);
		wait_for($name, sub {
				$remote = join ' ', map { backends($_, "state <> 'idle'") } @dn{qw(dn1 dn2)};
				return $remote eq '0 0';
			}, $kLimit);
		$next->ask("$one; " . remote('dn2', 'SELECT 1'));
	};
	ok($came, $name) or diag "books: $books\nbusy on the datanodes: $remote\n$@";
	return;
}

for my $row (@idle)
{
	my ($name, $sql, $count) = @$row;
	for my $ending (@endings)
	{
		my ($how, $of, $end, $set) = @$ending;
		next unless $of =~ /idle/ || $of eq ($sql =~ /BEGIN/ ? 'transaction' : 'none');
		my $session = session($coord);
		$session->ask($sql);
		wait_for("a session $name", sub { $leased->($count) });
		$session->tell($set) if $set;
		$end->($session);
		my $mine = $session->pid;
		wait_for("end of a session $name", sub {
				$watch->ask("SELECT count(*) FROM pg_stat_activity WHERE pid = $mine") eq '0' });
		settled("a session $name: $how", $session);
	}
}
is(value($dn{dn1}, 'SELECT count(*) FROM t'), '0', 'nothing of theirs is committed');

# One that waits by hand leaves the queue, and those behind it move up.
for my $ending (grep { $_->[1] =~ /idle/ } @endings)
{
	held('dn1');
	my ($session, $behind) = (session($coord), session($coord));
	$session->ask(by_hand($acquire . substr $release, 0, 5));
	wait_for('a ticket', $waits);
	$behind->tell(qq{SET pooler.queue_timeout = '50s'; $one});
	wait_for('a second one', sub { $watch->ask($waiting) eq '2' });
	$ending->[2]->($session);
	wait_for('one alone', $waits, $kLimit);
	let_go();
	is(join('', $behind->hear()), 'SELECT 1', "a ticket and half a message: $ending->[0], and the next is served");
	$behind->quit();
	settled("a ticket and half a message: $ending->[0]", $session);
}

# It ends between the grant and the first statement: when it wraps the descriptor it was given.
my $listens = $coord->basedir . '/listens';
for my $ending (grep { $_->[1] =~ /busy/ } @endings)
{
	my ($how, undef, $end, $set, $lives) = @$ending;
	my $session = session($coord);
	$session->ask("SELECT misuse_stall_listen('$listens'); " . ($set // ''));
	$session->tell($one);
	wait_for('a descriptor that is being wrapped', sub { -e $listens });
	$end->($session);
	if ($set)    # has come when that much time has passed on the server's clock too
	{
		value($coord, 'SELECT pg_sleep(0.5)');
	}
	unlink $listens;
	if ($lives)
	{
		like(($session->hear())[1], qr/ERROR:  57014: /, "a session that wraps its descriptor: $how");
		$session->ask("RESET statement_timeout; $one");
	}
	settled("a session that wraps its descriptor: $how", $session);
}

# A connection that was cut holds its node off for a moment, in which a request is refused.
sub is_tried_again
{
	my $held_off = q{SELECT retry_at > clock_timestamp() FROM pooler.nodes WHERE node = 'mute'};
	return wait_for('end of the hold-off', sub { $watch->ask($held_off) ne 't' });
}

for my $row (@busy)
{
	my ($name, $sql, $reached, $before, $after) = @$row;
	for my $ending (grep { $_->[1] =~ /busy/ } @endings)
	{
		my ($how, undef, $end, $set, $lives) = @$ending;
		next if $sql eq 'COMMIT' && $how eq 'statement_timeout';    # PostgreSQL ends it before a COMMIT
		my $session = session($coord);
		$session->ask($_) for q{SET pooler.queue_timeout = '50s'}, $set // ();
		$before->($session) if $before;
		$session->tell($sql);
		my $mine = $session->pid;
		my $done = sub {
			return $lives ? $session->answered()
			  : value($coord, "SELECT count(*) FROM pg_stat_activity WHERE pid = $mine") eq '0';
		};
		wait_for("a session that waits $name", sub { $reached->($session) || ($set && $done->()) });
		my $can_watch = !$stopped;
		$can_watch ? $end->($session) : ended_blindly($session, $end, $how);
		my $ended = eval { wait_for("end of a wait $name", $done, $kLimit); 1 };
		$after->() if $after;
		ok($ended, "a session that waits $name: $how ends the wait");
		$session->hear() if $lives;
		$session->ask("ROLLBACK; RESET statement_timeout; $one") if $lives;
		settled("a session that waits $name: $how", $session);
	}
}

# Without the pooler worker: the watching session may be attached, but is not to ask for a view.
sub ended_blindly
{
	my ($session, $end, $how) = @_;
	my $mine = $session->pid;
	return value($coord, "SELECT pg_$1_backend($mine)") if $how =~ /^pg_(\w+)_backend/;
	return $end->($session);
}

is(value($coord, q{SELECT sum(total) FROM pooler.pools WHERE node IN ('dn1', 'wire')}), backends($dn{dn1}),
	'the books agree with the datanode');
is(worker_pid($coord), $worker, 'the pooler worker has lived through all of that');
$_->quit() for $watch, $next, $holder;
finish();
