# Waits for each other: where a node is silent or refuses, by borrowers from C, by way of a foreign
# table; and random ones, in which whoever is in no circle goes on.
#
# POLARX_DEADLOCKS random runs (30); POLARX_SEED chooses them (1).

use strict;
use warnings;
use List::Util qw(shuffle);
use PolarxPooler qw(:DEFAULT execute);
use PolarxProxy;
use Test::More;
use Time::HiRes qw(usleep);

my $runs = $ENV{POLARX_DEADLOCKS} // 30;
srand($ENV{POLARX_SEED} // 1);
my @nodes = qw(dn1 dn2 dn3);
my $rows = 'CREATE TABLE t AS SELECT i AS id, 0 AS n FROM generate_series(1, 20) i; ALTER TABLE t ADD PRIMARY KEY (id)';

my $coord = start_coordinator(conf => "deadlock_timeout = '50ms'\npooler.park_leases = on\npooler.pool_session_max_lifetime = 3000s\n"
	  . "pooler.max_pool_size = 30\n");
my %dn = map { $_ => start_datanode($_, conf => "deadlock_timeout = '100s'\n", roles => { app => undef }) } @nodes;
my $proxy = PolarxProxy->before($dn{dn3}->port);
value($coord, "CREATE ROLE app LOGIN; $rows; CREATE EXTENSION postgres_fdw; CREATE EXTENSION polarx_pooler_example");
for my $name (@nodes)
{
	add_node($coord, $name, $dn{$name}, $name eq 'dn3' ? (server => { port => $proxy->port }) : ());
	add_mapping($coord, 'app', $name, password_required => 'false');
	value($dn{$name}, "$rows; GRANT ALL ON t TO app");
}
my @s = map { session($coord) } 1 .. 6;
my ($first, $second, $third, $fourth) = @s;
my ($p1, $p2) = ($first->pid, $second->pid);

sub update { my ($node, $id) = @_; return execute($node, "UPDATE t SET n = n + 1 WHERE id = $id"); }
sub counted { return value($coord, "SELECT $_[0] FROM pooler.stats"); }

# Two sessions wait for each other over two nodes; the second one is the younger.
sub cross
{
	my ($older, $younger, $one, $other, $id) = @_;
	$older->ask('BEGIN; ' . update($one, $id));
	$younger->ask('BEGIN; ' . update($other, $id));
	$older->tell(update($other, $id));
	$younger->tell(update($one, $id));
	return;
}

sub broken
{
	my ($older, $younger, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	like(($younger->hear())[1], qr/40P01/, $name);
	$younger->ask('ROLLBACK');
	is(($older->hear())[1], '', '... and the other one gets on');
	$older->ask('ROLLBACK');
	return;
}

# --- random ---------------------------------------------------------------------------------------------
# Each session has a row, and may wait for that of another one, no two for the same: so all is lines and
# rings, and of each ring the youngest is to be stopped.
sub random_run
{
	my ($number) = @_;
	my @order = shuffle 0 .. $#s;    # of their beginnings
	my @place = map { $nodes[ rand @nodes ] } @s;
	my %waits;                                       # session: whose row it waits for
	my @free = 0 .. $#s;
	for my $i (shuffle 0 .. $#s)
	{
		my @others = grep { $_ != $i } @free;
		next if rand() < 0.25 || !@others;
		$waits{$i} = $others[ rand @others ];
		@free = grep { $_ != $waits{$i} } @free;
	}
	my (%age, %victims, %ring);
	$age{ $order[$_] } = $_ for 0 .. $#order;
	for my $i (sort keys %waits)
	{
		my @way = ($i);
		while (defined $waits{ $way[-1] } && $waits{ $way[-1] } != $i && @way <= @s) { push @way, $waits{ $way[-1] }; }
		next if !defined $waits{ $way[-1] } || $waits{ $way[-1] } != $i;
		$ring{$_} = 1 for @way;
		$victims{ (sort { $age{$b} <=> $age{$a} } @way)[0] } = 1;
	}
	$s[$_]->ask('BEGIN; ' . update($place[$_], 1 + $_)) for @order;
	$s[$_]->tell(update($place[ $waits{$_} ], 1 + $waits{$_})) for shuffle sort keys %waits;
	usleep(50_000 + rand 150_000) if !%victims;
	# Whoever waits for nobody ends, and so on.
	my (%stopped, %open);
	$open{$_} = 1 for 0 .. $#s;
	while (%open)
	{
		for my $i (sort keys %open)
		{
			next if defined $waits{$i} && !$s[$i]->answered();
			my $error = defined $waits{$i} ? ($s[$i]->hear())[1] : '';
			$stopped{$i} = 1 if $error =~ /40P01/;
			$s[$i]->ask('ROLLBACK');
			delete $open{$i};
			return "run $number: session $i: $error" if $error ne '' && $error !~ /40P01/;
		}
		usleep(2_000);
	}
	my ($found, $expected) = map { join ' ', sort keys %$_ } \%stopped, \%victims;
	return $found eq $expected ? undef
	  : "run $number: stopped: $found; to be stopped: $expected; waits: "
	  . join(', ', map { "$_ ($place[$_], began as $age{$_}) for " . ($waits{$_} // 'nobody') } 0 .. $#s);
}

my ($before, $rings, $wrong) = (counted('deadlocks'), 0, undef);
for my $run (1 .. $runs) { last if defined($wrong = random_run($run)); }
is($wrong, undef, "$runs random runs: of each ring the youngest is stopped, and nobody else");
cmp_ok(counted('deadlocks') - $before, '>', $runs / 4, '... in ' . (counted('deadlocks') - $before) . ' rings');

# --- a foreign table of postgres_fdw, and the pool --------------------------------------------------------
value($coord, sprintf q{CREATE SERVER f FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '%s', dbname 'postgres');
	CREATE USER MAPPING FOR "%s" SERVER f OPTIONS (user '%s'); CREATE FOREIGN TABLE ft (id int, n int) SERVER f OPTIONS (table_name 't')},
	$dn{dn1}->port, me(), me());
my $offset = log_offset($coord);
$first->ask('BEGIN; UPDATE ft SET n = 0 WHERE id = 7');
$first->tell(update('dn1', 7));
wait_log($coord, qr/LOG:  process $p1 has waited on datanode "dn1".*\n.*DETAIL:  .*not the pooler's but has a client on this server/,
	$offset, 'a foreign table of the same session: the log tells');
ok(!$first->answered(), '... what cannot be proved ends nothing');
value($coord, "SELECT pg_cancel_backend($p1)");
like(($first->hear())[1], qr/57014/, '... but a cancel does');
$first->ask('ROLLBACK');

# --- borrowers from C -------------------------------------------------------------------------------------
my $borrowed = q{SELECT example_notifications('dn2', 'UPDATE t SET n = n + 1 WHERE id = 8')};
$first->ask('BEGIN; ' . update('dn1', 8));
$second->ask('BEGIN; ' . update('dn2', 8));
$first->tell($borrowed);
$second->tell(update('dn1', 8));
broken($first, $second, 'a borrower in a circle, older: the other one is stopped');
$offset = log_offset($coord);
$second->ask('BEGIN; ' . update('dn2', 8));
$first->ask('BEGIN; ' . update('dn1', 8));
$first->tell($borrowed);
$second->tell(update('dn1', 8));
like(($first->hear())[1], qr/UPDATE t.*canceling statement due to user request/, 'a borrower in a circle, younger: its statement is cancelled');
wait_log($coord, qr/LOG:  deadlock detected: process $p1 is to give up/, $offset, '... and the log tells why');
$first->ask('ROLLBACK');
is(($second->hear())[1], '', '... the other one gets on');
$second->ask('ROLLBACK');

# --- a node that is asked and silent ----------------------------------------------------------------------
$third->ask('BEGIN; ' . update('dn3', 9));
$fourth->ask('BEGIN');
$fourth->tell(update('dn3', 9));
wait_until($dn{dn3}, q{SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'}, '1', 'a wait on a third node');
$proxy->freeze();
within(10, 'while that node is silent', sub {
		cross($first, $second, 'dn1', 'dn2', 10);
		broken($first, $second, '... a circle over two others is broken');
});
$proxy->forward();
$third->ask('ROLLBACK');
is(($fourth->hear())[1], '', '... and what waited there goes on');
$fourth->ask('ROLLBACK');

# --- a node that refuses to be asked ------------------------------------------------------------------------
# Everybody may ask, unless somebody has taken that right away.
my $right = 'EXECUTE ON FUNCTION pg_blocking_pids(int)';
value($dn{dn3}, "REVOKE $right FROM PUBLIC");
value($coord, sprintf 'DROP USER MAPPING FOR "%s" SERVER dn3', me());
my @app = map { session($coord, user => 'app') } 1 .. 4;
cross(@app[ 2, 3 ], 'dn1', 'dn3', 11);
within(10, 'while a node refuses', sub {
		cross(@app[ 0, 1 ], 'dn1', 'dn2', 12);
		broken(@app[ 0, 1 ], '... a circle over two others is broken');
});
usleep(300_000);
ok(!$app[2]->answered() && !$app[3]->answered(), '... one over that node is not seen');
value($dn{dn3}, "GRANT $right TO PUBLIC");
broken(@app[ 2, 3 ], '... until the node answers');
$_->quit() for @app, @s;
finish();
