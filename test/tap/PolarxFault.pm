# One row of a fault matrix: while a fault is in force the session that meets it is told the truth,
# its neighbours notice nothing, the books add up, and once it is over the pool works again by itself.
#
# my $ground = fault_ground(); starts a coordinator whose pooler has one worker thread (whatever
# blocks one connection would block all) and two datanodes: dn, by way of a proxy, and other. On both the
# role victim meets the faults and the role neighbour works on.

package PolarxFault;

use strict;
use warnings;

use Exporter 'import';
use PolarxPooler;
use PolarxProxy;
use Test::More;
use Time::HiRes qw(time usleep);

our @EXPORT = qw(fault_ground fault_row one pid_on victim_pool neighbours_work settle end_ground
  message failure broken_answers);

# One hold-off, less than what it may take to open a connection on a busy machine.
my $kSlack = 3;

sub one { return "SELECT pooler.exec('$_[0]', 'SELECT 1')"; }
sub pid_on { return "SELECT p FROM pooler.query('$_[0]', 'SELECT pg_backend_pid()') AS r(p int)"; }

# conf: more settings of the coordinator; dn: options of start_datanode for dn; direct => 1: without
# the proxy; limit: pooler_connect_timeout and pooler_dn_set_timeout.
sub fault_ground
{
	my (%opt) = @_;
	my $limit = $opt{limit} // 2;
	my $self = { limit => $limit, node => 'dn' };
	my %roles = (victim => 'rose', neighbour => 'tulip');    # with their passwords
	$self->{dn} = start_datanode('dn', auth => 'scram-sha-256', roles => \%roles, %{ $opt{dn} // {} });
	$self->{other} = start_datanode('other', auth => 'scram-sha-256', roles => \%roles);
	$self->{proxy} = PolarxProxy->before($self->{dn}->port);
	my $coord = $self->{coord} = start_coordinator(conf => <<"END");
pooler.pooler_connect_timeout = ${limit}s
pooler.pooler_dn_set_timeout = ${limit}s
pooler.pooler_scale_factor = 1
pooler.pool_maintenance_timeout = 1s
pooler.min_pool_size = 0
pooler.min_free_size = 0
@{[ $opt{conf} // '' ]}
END
	value($coord, "CREATE ROLE $_ LOGIN") for sort keys %roles;
	add_node($coord, 'dn', $self->{dn}, mapping => 0, $opt{direct} ? () : (server => { port => $self->{proxy}->port }));
	add_node($coord, 'other', $self->{other}, mapping => 0);
	for my $role (sort keys %roles)
	{
		add_mapping($coord, $role, $_, user => $role, password => $roles{$role}) for qw(dn other);
	}
	$self->{admin} = session($coord);
	$self->{victim} = session($coord, user => 'victim');
	# One neighbour keeps its lease, the other takes one for each statement, of two that there are.
	$self->{holder} = session($coord, user => 'neighbour');
	$self->{asker} = session($coord, user => 'neighbour');
	my $third = session($coord, user => 'neighbour');
	$_->ask('BEGIN; ' . one('dn') . '; ' . one('other')) for @$self{qw(holder asker)}, $third;
	$_->ask('COMMIT') for $self->{asker}, $third;
	$third->quit();
	$self->{victim}->ask(one($_)) for qw(dn other);
	settle($self);
	$self->{fds} = spare_fds($self);
	return $self;
}

# A message in hexadecimal.
sub message { my ($type, $body) = @_; return unpack 'H*', $type . pack('N', 4 + length $body) . $body; }

sub failure
{
	my ($severity, $code) = @_;
	return message('E', "S$severity\0V$severity\0C$code\0Mmade up\0\0");
}

# What may come instead of an answer to a statement: [name, action] each; see PolarxWire.
sub broken_answers
{
	return (
		[ 'closed', 'close' ], [ 'reset', 'reset' ], [ 'half an answer, then closed', 'half' ],
		[ 'silence', 'silence' ], [ 'half an answer, then silence', 'half_silence' ],
		[ 'an unknown message', 'say:' . message('x', 'abc') . ':silence' ],
		[ 'a message of 2 GB', 'say:' . unpack('H*', 'C' . pack('N', 0x7fffffff)) . ':silence' ],
		[ 'an error', 'say:' . failure('ERROR', 'XX000') . message('Z', 'I') . ':silence' ],
		[ 'a shutdown', 'say:' . failure('FATAL', '57P01') . ':close' ]);
}

# Descriptors of the pooler worker that are no datanode connection, of which nothing may be left.
sub spare_fds
{
	my ($self) = @_;
	my $admin = $self->{admin};
	my @fds;
	my ($pid, $slots) = split /\|/, $admin->ask('SELECT w.pid, (SELECT count(*) FROM pooler.connections) FROM pooler.workers w');
	opendir my $folder, "/proc/$pid/fd" or die "no worker $pid: $!";
	return (grep { /^\d+$/ } readdir $folder) - $slots;
}

# Sums within the pools, which hold at every moment.
my $kSums = 'SELECT count(*) FROM pooler.pools WHERE total <> idle + leased + parked + connecting + resetting'
  . ' OR total > max_size OR least(total, idle, leased, parked, connecting, resetting, waiting) < 0';

# Sums over several views, which hold when nothing happens between two looks.
my $kBooks = <<'END';
WITH c AS (SELECT pool, node, count(*) AS total, count(*) FILTER (WHERE state = 'idle') AS idle,
		count(session_pid) AS lent, count(*) FILTER (WHERE state IN ('connecting', 'warming')) AS connecting
	FROM pooler.connections GROUP BY pool, node),
p AS (SELECT * FROM pooler.pools)
SELECT (SELECT count(*) FROM p FULL JOIN c USING (pool) WHERE (p.total, p.idle, p.leased + p.parked, p.connecting)
		IS DISTINCT FROM (coalesce(c.total, 0), coalesce(c.idle, 0), coalesce(c.lent, 0), coalesce(c.connecting, 0))),
	(SELECT count(*) FROM (SELECT node, sum(total) AS total FROM p GROUP BY node) n
		LEFT JOIN (SELECT node, sum(total) AS total FROM c GROUP BY node) m USING (node)
		WHERE n.total <> coalesce(m.total, 0)),
	(SELECT sum(resetting + connecting + waiting) FROM p)
END

# Awaits that nothing is under way any more and that views and datanodes agree. What they say instead.
sub settle
{
	my ($self) = @_;
	my ($books, $slots, $pids) = ('', '', '');
	my $came = eval {
		wait_for('the books', sub {
				$books = $self->{admin}->ask($kBooks);
				$slots = $self->{admin}->ask('SELECT remote_pid FROM pooler.connections WHERE remote_pid IS NOT NULL');
				$pids = join "\n", map { backend_pids($_) } @$self{qw(dn other)};
				my $sorted = sub { join ' ', sort split ' ', $_[0] };
				return $books eq '0|0|0' && $sorted->($slots) eq $sorted->($pids);
			}, 20);
		1;
	};
	return $came ? 'settled' : "off in pools, off in nodes, under way: $books\nslots: $slots\nbackends: $pids";
}

sub victim_pool
{
	my ($self, $what) = @_;
	return $self->{admin}->ask("SELECT $what FROM pooler.pools WHERE node = '$self->{node}' AND remote_user = 'victim'");
}

sub neighbour_slots
{
	my ($self) = @_;
	return $self->{admin}->ask("SELECT string_agg(remote_pid::text, ' ' ORDER BY remote_pid) FROM pooler.connections"
		  . " WHERE node = 'dn' AND remote_user = 'neighbour'");
}

# The neighbours work until $over->(), for so many seconds at most: (rounds, the slowest statement in
# seconds, the books' errors).
sub neighbours_work
{
	my ($self, $over, $most) = @_;
	my ($rounds, $slowest, $wrong) = (0, 0, 0);
	my $end = time + ($most // 60);
	my $timed = sub {
		my ($session, $sql) = @_;
		my $start = mark();
		$session->ask($sql);
		my $took = calm_since($start);
		$slowest = $took if $took > $slowest;
	};
	do
	{
		$timed->($self->{holder}, one('dn')) if !$self->{down};
		$timed->($self->{asker}, one('dn')) if !$self->{down};
		# On the other node new connections are opened as well.
		$self->{admin}->ask("SELECT pooler.clean('other')") if $rounds % 4 == 0;
		$timed->($self->{asker}, one('other'));
		$wrong += $self->{admin}->ask($kSums);
		$rounds++;
		usleep(5_000);
	} until ($over->() || time > $end);
	return ($rounds, $slowest, $wrong);
}

# One row. fault => [step, action] at the proxy, or arm => a sub that makes the fault; over => a sub
# that ends it (the proxy forwards again); sql: what the victim asks for on a connection that has to
# be opened (one statement on dn); keep => 1: on one that it may have.
# Promised: like, a pattern of the error, and code, its SQLSTATE; without them the statement works, with an
# output like out. after => seconds that it takes at least, else less than the time-outs. scope: whose trouble it is, node or
# pool, or none; counts: the counter that goes up. new => 1: the neighbours can open connections on dn too;
# down => 1: they cannot even use those that they have; lost => 1: afterwards those are lost. again: what
# shows that it is over, instead of sql.
sub fault_row
{
	my ($self, $name, %row) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($victim, $proxy) = @$self{qw(victim proxy)};
	my $sql = $row{sql} // one($self->{node});
	local $self->{down} = $row{down};
	my $neighbours = neighbour_slots($self);
	my $before = victim_pool($self, $row{counts}) if $row{counts};
	if (!$row{keep})
	{
		$self->{admin}->ask("SELECT pooler.clean('$self->{node}', 'victim')");
		wait_for('an empty pool', sub { victim_pool($self, 'total') eq '0' });
	}
	$row{arm}->() if $row{arm};
	$proxy->fault($row{fault}[0] eq 'accept' ? '*' : 'victim', @{ $row{fault} }) if $row{fault};

	my $start = mark();
	$victim->tell($sql);
	my ($took, $calm);
	my ($rounds, $slowest, $wrong) = neighbours_work($self, sub {
			my $over = $victim->answered();
			($took, $calm) = (time - $start, calm_since($start)) if $over;
			return $over;
		});
	my ($out, $err) = $victim->hear();
	if ($row{like}) { like($err, qr/ERROR:  $row{code}: (?s:.*)(?-s:$row{like})/, "$name: the session is told the truth"); }
	else { is($err, '', "$name: the session notices nothing"); }
	like($out, $row{out}, '... but hears of it') if $row{out};
	my $least = $row{after} // 0;
	my $most = $row{most} // ($row{after} ? $row{after} + 1.5 : $self->{limit} * 0.9);
	ok($took > $least - 0.1 && $calm < $most, sprintf('... in time (%.2f s)', $took));
	cmp_ok($slowest, '<', $self->{limit} * 0.75, sprintf('... the neighbours work on, %d rounds (slowest %.2f s)', $rounds, $slowest));
	my %there = map { $_ => 1 } split ' ', neighbour_slots($self);
	is(join(' ', grep { !$there{$_} } split ' ', $neighbours), '', '... and keep the connections that they had') if !$row{down};
	is($wrong, 0, '... and the books add up all the while');
	trouble($self, \%row, $before);
	if ($row{new})
	{
		$self->{admin}->ask("SELECT pooler.clean('dn', 'neighbour')");
		my $opened = eval { $self->{asker}->ask(one('dn')); };
		is($opened, 'SELECT 1', '... the neighbours can open connections too');
	}
	recovers($self, \%row, $row{again} // $sql);
	return $err;
}

# What the views say while the fault lasts.
sub trouble
{
	my ($self, $row, $before) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	if ($row->{counts})
	{
		my $counted = eval { wait_for('the counter', sub { victim_pool($self, $row->{counts}) > $before }, 10) };
		ok(defined $counted, "... $row->{counts} counts it");
	}
	my $scope = $row->{scope} // return;
	my ($health, $node, $pool) = split /\|/, $self->{admin}->ask(
		"SELECT n.health, n.last_error, p.last_error FROM pooler.nodes n JOIN pooler.pools p USING (node)"
		  . " WHERE node = '$self->{node}' AND remote_user = 'victim'");
	is($health, $scope eq 'node' ? 'down' : 'up', "... the node is said to be " . ($scope eq 'node' ? 'down' : 'up'));
	like($scope eq 'node' ? $node : $pool, $row->{like}, "... and the $scope shows the reason") if $scope ne 'none';
	return;
}

# The fault is over: within one hold-off the victim works again, and nothing is left behind.
sub recovers
{
	my ($self, $row, $sql) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$row->{over} ? $row->{over}->() : $self->{proxy}->forward();
	my $hold_off = victim_pool($self, 'coalesce(extract(epoch FROM retry_at - clock_timestamp()), 0)');
	cmp_ok($hold_off, '<=', 5, sprintf('... at most 5 s to the next attempt (%.2f)', $hold_off)) if $row->{like};
	my $start = mark();
	my $err;
	my @untrue;
	wait_for('work to resume', sub {
			$self->{victim}->tell($sql);
			$err = ($self->{victim}->hear())[1];
			push @untrue, $err if $err ne '' && !($row->{like} && $err =~ $row->{like});
			return $err eq '';
		}, 30);
	my $took = calm_since($start);
	my $least = $hold_off > 0 ? $hold_off : 0;
	cmp_ok($took, '<', $least + $kSlack, sprintf('... once it is over work resumes by itself (%.2f s, hold-off %.2f s)', $took, $least));
	is_deeply(\@untrue, [], '... and until then each request was told why not');
	restart_neighbours($self) if $row->{lost};
	is(settle($self), 'settled', '... and all books agree');
	is($self->{admin}->ask("SELECT health, retry_at FROM pooler.nodes WHERE node = '$self->{node}'"), 'up|', '... the node is up');
	is(victim_pool($self, 'retry_at IS NULL'), 't', '... and nothing is held off');
	return;
}

# The neighbours' connections to dn are lost: who held one is told so, once.
sub restart_neighbours
{
	my ($self) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	like($self->{holder}->refused(one('dn')), qr/ERROR:  (?:08006|57P01): .*datanode "dn"/, '... who held a lease is told that it is lost');
	$self->{holder}->ask('ROLLBACK');
	$_->ask('BEGIN; ' . one('dn')) for @$self{qw(holder asker)};
	$self->{asker}->ask('COMMIT');
	return;
}

# The end of the test: nothing is left open in the worker.
sub end_ground
{
	my ($self) = @_;
	my $left;
	eval { wait_for('descriptors to be closed', sub { ($left = spare_fds($self)) <= $self->{fds} }, 10) };
	cmp_ok($left, '<=', $self->{fds}, 'the pooler worker keeps no descriptor of a connection that failed');
	$self->{holder}->ask('COMMIT');
	$_->quit() for @$self{qw(admin victim holder asker)};
	finish();
	return;
}

1;
