# The views add up at every moment of a random workload with faults, and agree with the datanodes
# afterwards. SEED repeats a run's choices.

use strict;
use warnings;
use PolarxPooler;
use List::Util qw(sum0);
use Test::More;
use Time::HiRes qw(time usleep);

my $seed = $ENV{SEED} // time % 1_000_000;
srand $seed;
note "seed $seed";

my $coord = start_coordinator(park => 1, conf => <<'END');
pooler.min_pool_size = 1
pooler.min_free_size = 1
pooler.max_pool_size = 6
pooler.pool_conn_keepalive = 1s
pooler.pool_maintenance_timeout = 1s
pooler.pool_session_max_lifetime = 2s
pooler.queue_timeout = 200ms
END
my %dn = map { $_ => start_datanode($_, roles => { app => undef }) } qw(dn1 dn2);
add_node($coord, $_, $dn{$_}) for sort keys %dn;
value($coord, 'CREATE ROLE app LOGIN');
add_mapping($coord, 'app', $_, password_required => 'false') for sort keys %dn;
my @nodes = sort keys %dn;

# --- what must add up ------------------------------------------------------------------------------
my $watch = session($coord);
my $sizes = q{SELECT pool, total, idle, leased, parked, connecting, resetting, waiting, acquired, hits, connects,
	connect_failures, rejected, closed_idle, closed_lifetime, closed_memory, closed_error, max_size FROM pooler.pools ORDER BY pool};
my @columns = qw(pool total idle leased parked connecting resetting waiting acquired hits connects
  connect_failures rejected closed_idle closed_lifetime closed_memory closed_error max_size);
my %column_of = (idle => 'idle', leased => 'leased', parked => 'parked', connecting => 'connecting', warming => 'connecting',
	resetting => 'resetting', checking => 'resetting', closing => 'resetting');
my @counted = @columns[8 .. 16];
my (%trouble, %last, %seen);
my ($moments, $compared) = (0, 0);

sub trouble { $trouble{"@_"}++; return; }

sub rows
{
	my ($text, @names) = @_;
	return map { my %row; @row{@names} = split /\|/, $_, -1; \%row } split /\n/, $text;
}

# The pools of one moment, alone and against the moment before.
sub check_pools
{
	my @pools = @_;
	for my $p (@pools)
	{
		trouble('total', map { "$_=$p->{$_}" } @columns[1 .. 6])
		  if $p->{total} != sum0(@$p{qw(idle leased parked connecting resetting)});
		trouble('more than max_size', $p->{total}) if $p->{total} > $p->{max_size};
		trouble('hits exceed acquired') if $p->{hits} > $p->{acquired};
		trouble('more leased than acquired') if $p->{leased} > $p->{acquired};
		trouble('negative', $_) for grep { $p->{$_} < 0 } @columns;
		$seen{$_}++ for grep { $p->{$_} > 0 } @columns;
		my $before = $last{ $p->{pool} } or next;
		trouble('goes back', $_, $before->{$_}, $p->{$_}) for grep { $p->{$_} < $before->{$_} } @counted;
	}
	%last = map { $_->{pool} => $_ } @pools;
	return;
}

# One view after the other: where the pools, with every counter, were the same before and after, and no
# connection has changed its state meanwhile (a warm-up is not counted), all of it is of one moment.
sub look
{
	my $began = time;
	my $before = $watch->ask($sizes);
	my $connections = $watch->ask('SELECT pool, state, count(*), count(session_pid),
		extract(epoch FROM max(state_since)) FROM pooler.connections GROUP BY 1, 2');
	my $held = $watch->ask('SELECT coalesce(sum(leases), 0), count(waiting_for) FROM pooler.sessions');
	my $after = $watch->ask($sizes);
	my @pools = rows($after, @columns);
	$moments++;
	check_pools(rows($before, @columns));
	check_pools(@pools);
	return if $before ne $after;
	my @connections = rows($connections, qw(pool state count held since));
	my $clocks = 0.001;    # by which two readings of one moment may differ
	return if grep { $_->{since} > $began - $clocks } @connections;
	$compared++;
	my %number;
	for my $row (@connections)
	{
		my $column = $column_of{ $row->{state} } or trouble('state', $row->{state});
		$number{ $row->{pool} }{ $column // '' } += $row->{count};
		$number{ $row->{pool} }{total} += $row->{count};
		trouble('sessions of', %$row) if $row->{held} != ($row->{state} =~ /^(?:leased|parked)$/ ? $row->{count} : 0);
	}
	for my $p (@pools)
	{
		trouble('connections', $_, $number{ $p->{pool} }{$_} // 0, 'pools', $p->{$_})
		  for grep { ($number{ $p->{pool} }{$_} // 0) != $p->{$_} } qw(total idle leased parked connecting resetting);
	}
	my ($leases, $waiting) = split /\|/, $held;
	trouble('sessions hold', $leases) if $leases != sum0(map { $_->{leased} } @pools);
	trouble('waiting', $waiting) if ($waiting > 0) != (sum0(map { $_->{waiting} } @pools) > 0);
	return;
}

# --- the workload ----------------------------------------------------------------------------------
my %session;
my ($answers, $errors, $faults) = (0, 0, 0);

sub pick { return $_[ rand @_ ]; }

sub some_statement
{
	my $node = pick(@nodes);
	return pick(
		"SELECT pooler.exec('$node', 'SELECT 1')",
		"BEGIN; SELECT pooler.exec('$node', 'SELECT 1')",
		"BEGIN; SELECT pooler.exec('$node', 'SELECT 1'); SET LOCAL ROLE app; SELECT pooler.exec('$node', 'SELECT 1')",
		"SELECT pooler.exec_all('SELECT pg_sleep(0.05)')",
		"BEGIN; SELECT pooler.exec_all('SELECT 1')",
		"SELECT pooler.exec('$node', 'SELECT 1/0')",
		"SELECT pooler.exec_autocommit('$node', 'SELECT 1')",
		"SELECT pooler.exec('$node', 'SELECT pg_sleep(0.3)')",
		"SET statement_timeout = 50; SELECT pooler.exec('$node', 'SELECT pg_sleep(9)'); RESET statement_timeout",
		'COMMIT', 'COMMIT', 'COMMIT', 'ROLLBACK');
}

sub leave
{
	my ($name) = @_;
	my $s = delete $session{$name} or return;
	eval { $s->quit() };
	return;
}

# One session goes on with something else, unless it waits for an answer.
sub work
{
	my $name = pick(1 .. 8);
	my $s = $session{$name} //= session($coord, user => pick(me(), 'app'));
	if ($s->{told} > $s->{heard})
	{
		my $answered = eval { $s->answered() };
		return if defined $answered && !$answered;
		my ($out, $err) = eval { $s->hear() };
		return leave($name) if !defined $out || $err =~ /FATAL/;
		$answers++;
		$errors++ if $err =~ /ERROR/;
	}
	eval { $s->tell(some_statement()); 1 } or leave($name);
	return;
}

sub fault
{
	my $dn = $dn{ pick(@nodes) };
	my $what = pick(qw(session session backend backend clean ping leave));
	$faults++;
	if ($what eq 'session')
	{
		value($coord, "SELECT pg_terminate_backend(pid) FROM pooler.sessions WHERE pid NOT IN ("
			  . $watch->pid . ", pg_backend_pid()) ORDER BY random() LIMIT 1");
	}
	elsif ($what eq 'backend')
	{
		value($dn, q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE application_name LIKE 'polarx_pooler%' ORDER BY random() LIMIT } . pick(1 .. 3));
	}
	elsif ($what eq 'clean') { value($coord, q{SELECT pooler.clean('} . pick(@nodes) . q{')}); }
	elsif ($what eq 'ping') { value($coord, 'SELECT count(*) FROM pooler.ping()'); }
	else { leave(pick(1 .. 8)); }
	return;
}

my $end = time + 15;
my @restarts = (time + 4, time + 9);
while (time < $end)
{
	work() for 1 .. 4;
	look();
	fault() if rand() < 0.05;
	if (@restarts && time > $restarts[0])
	{
		shift @restarts;
		my $dn = pick(values %dn);
		$dn->stop(pick(qw(fast immediate)));
		for (1 .. 10) { work(); look(); }
		$dn->start();
	}
}
is_deeply(\%trouble, {}, "the views add up at every moment (seed $seed)");
cmp_ok($moments, '>', 50, "... of $moments");
cmp_ok($compared, '>', 15, "... connections and sessions compared $compared times");
cmp_ok($answers, '>', 50, "the sessions did something: $answers answers, $errors errors, $faults faults");
ok($seen{$_}, "... which made $_ grow") for qw(idle leased parked connecting resetting waiting acquired hits connects
  closed_idle closed_error);

# --- at rest ---------------------------------------------------------------------------------------
leave($_) for keys %session;
wait_until($coord, 'SELECT sum(leased + connecting + resetting + waiting), min(idle) > 0 FROM pooler.pools', '0|t',
	'the workload is over, every pool has its minimum');
my $expired = 'SELECT sum(closed_lifetime) FROM pooler.pools';
wait_until($coord, "SELECT ($expired) > " . value($coord, $expired), 't', 'which is replaced when its lifetime ends');
my ($view, $activity) = ('', '');
sub per_node
{
	my ($code) = @_;
	return join '; ', map { my $pids = $code->($_); $pids =~ s/\n/ /g; "$_: $pids" } @nodes;
}
eval {
	wait_for('the views to agree with the datanodes', sub {
			$view = per_node(sub { value($coord, "SELECT remote_pid FROM pooler.connections WHERE node = '$_[0]' ORDER BY 1") });
			$activity = per_node(sub { backend_pids($dn{ $_[0] }) });
			return $view eq $activity;
		}, 10);
};
is($view, $activity, 'connections agrees with pg_stat_activity of the datanodes');
like($view, qr/dn1: \d+.*dn2: \d+/, '... where there are some');
look();
is_deeply(\%trouble, {}, 'and still adds up');
is(value($coord, 'SELECT sum(p.acquired - p.hits) - s.acquire_conn_from_thread, sum(p.hits) > s.acquire_conn_from_hashtab
	FROM pooler.pools p, pooler.stats s GROUP BY s.acquire_conn_from_hashtab, s.acquire_conn_from_thread'), '0|t',
	'the pools\' leases are those of the stat line and, as hits, those that were parked and taken again');
is(value($coord, 'SELECT client_request_conn_total >= client_request_from_hashtab + client_request_from_thread
	FROM pooler.stats'), 't', '... and so are the requests');
$watch->quit();
finish();
