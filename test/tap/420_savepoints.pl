# An error inside a savepoint never loses what was before it, whatever is under way on the nodes and
# however long the way to them is: each round writes before, within and after the savepoint, and both
# nodes keep exactly the first and the last.
#
# POLARX_ROUNDS rounds of each kind in each place at each distance (2), in POLARX_SESSIONS sessions (6);
# POLARX_SEED chooses the times (1).

use strict;
use warnings;
use PolarxPooler;
use PolarxProxy;
use Test::More;

my $rounds = $ENV{POLARX_ROUNDS} // 2;
srand($ENV{POLARX_SEED} // 1);

my $coord = start_coordinator();
my (%dn, %proxy);
for my $name (qw(dn1 dn2))
{
	$dn{$name} = start_datanode($name);
	value($dn{$name}, 'CREATE TABLE t (round int, step int)');
	$proxy{$name} = PolarxProxy->before($dn{$name}->port);
	add_node($coord, $name, $dn{$name}, server => { port => $proxy{$name}->port });
}
my $failing = $dn{dn2}->port;

sub insert { return "SELECT count(*) FROM pooler.exec_all('INSERT INTO t VALUES ($_[0], $_[1])')"; }

# On the failing node an error, on the other one the expression.
sub one_fails { return "SELECT CASE current_setting(\$\$port\$\$)::int WHEN $failing THEN 1/(random() * 0)::int ELSE $_[0] END"; }

# Each is a statement that fails, given how long the datanode takes over it (s).
my %failing = (
	'query' => sub { return q{SELECT n FROM pooler.query('dn1', 'SELECT 1/0') AS r(n int)} },
	'exec' => sub { return q{SELECT pooler.exec('dn2', 'SELECT 1/0')} },
	'query_all, both nodes' => sub { return q{SELECT n FROM pooler.query_all('SELECT 1/0') AS r(node name, n int)} },
	'query_all, one node' => sub {
		return sprintf q{SELECT n FROM pooler.query_all('%s') AS r(node name, n int)}, one_fails("(SELECT 1 FROM pg_sleep($_[0]))");
	},
	'query_all, one node, the other streams' => sub {
		return sprintf q{SELECT n FROM pooler.query_all('%s FROM generate_series(1, 3000)') AS r(node name, n int)}, one_fails('1');
	},
	'exec_all, one node' => sub { return sprintf q{SELECT pooler.exec_all('%s')}, one_fails("(SELECT 1 FROM pg_sleep($_[0]))"); },
	'query, a bad value' => sub {
		return q{SELECT n FROM pooler.query('dn1', 'SELECT ''x'' UNION ALL SELECT g::text FROM generate_series(1, 3000) g') AS r(n int)};
	},
	'query_all, a bad value' => sub {
		return q{SELECT n FROM pooler.query_all('SELECT ''x'' UNION ALL SELECT g::text FROM generate_series(1, 3000) g') AS r(node name, n int)};
	},
	# Nothing fails but for a time-out that comes about when the datanode is done.
	'exec, timed' => sub { return "SELECT pooler.exec('dn1', 'SELECT pg_sleep($_[0])')" },
	'exec_all, timed' => sub { return "SELECT pooler.exec_all('SELECT pg_sleep($_[0])')" },
	'query, timed' => sub {
		return "SELECT n FROM pooler.query('dn2', 'SELECT g FROM pg_sleep($_[0]), generate_series(1, 3000) g') AS r(n int)";
	},
	'query_all, timed' => sub {
		return "SELECT n FROM pooler.query_all('SELECT g FROM pg_sleep($_[0]), generate_series(1, 3000) g') AS r(node name, n int)";
	});

# Each is where it fails, given the statement and what comes before it.
sub block
{
	my ($inner) = @_;
	$inner =~ s/\ASELECT /PERFORM /;
	return "BEGIN $inner; RAISE 'passed'; EXCEPTION WHEN query_canceled OR OTHERS THEN NULL; END";
}
my %within = (
	'savepoint' => sub { return "SAVEPOINT a; $_[1]; $_[2] $_[0]; ROLLBACK TO a" },
	'released savepoint' => sub { return "SAVEPOINT a; SAVEPOINT b; $_[1]; RELEASE b; $_[2] $_[0]; ROLLBACK TO a" },
	'block' => sub { return "SAVEPOINT a; $_[1]; $_[2] DO \$do\$ " . block($_[0]) . ' $do$; ROLLBACK TO a' },
	'nested' => sub {
		return "SAVEPOINT a; $_[2] DO \$do\$ BEGIN " . ($_[1] =~ s/\ASELECT /PERFORM /r) . '; '
		  . block($_[0]) . "; RAISE 'passed'; EXCEPTION WHEN query_canceled OR OTHERS THEN NULL; END \$do\$; ROLLBACK TO a";
	});

# What one round says that it should not, and what has become of it.
my ($round, @lost) = (0);
sub script
{
	my ($kind, $where, $distance) = @_;
	my $takes = sprintf '%.3f', rand(4 * $distance + 0.03);
	my $limit = $kind =~ /timed/ ? sprintf("SET LOCAL statement_timeout = '%dms';", 1 + 1000 * rand(4 * $distance + 0.06)) : '';
	++$round;
	return sprintf 'BEGIN; %s; %s; SET LOCAL statement_timeout = 0; %s; COMMIT',
	  insert($round, 1), $within{$where}->($failing{$kind}->($takes), insert($round, 9), $limit), insert($round, 2);
}

my @sessions = map { session($coord) } 1 .. ($ENV{POLARX_SESSIONS} // 6);
for my $distance (0, 0.03, 0.06, 0.2)
{
	$_->delay($distance) for values %proxy;
	my @todo = map { my $kind = $_; map { [ $kind, $_ ] } sort keys %within } (sort keys %failing) x $rounds;
	my ($said, $from) = ('', $round);
	while (my @now = splice @todo, 0, scalar @sessions)
	{
		$sessions[$_]->tell(script(@{ $now[$_] }, $distance)) for 0 .. $#now;
		for my $i (0 .. $#now)
		{
			my (undef, $err) = $sessions[$i]->hear();
			$said .= "@{ $now[$i] }: $err" if $err =~ /08\d\d\d|25P02|lost/;
		}
	}
	is($said, '', "$distance s away: no round hears of something lost");
	for my $name (sort keys %dn)
	{
		is(value($dn{$name}, "SELECT count(*) FROM (SELECT round FROM t WHERE round > $from GROUP BY round"
				  . q{ HAVING string_agg(step::text, ',' ORDER BY step) = '1,2') x}),
			$round - $from, "... $name has what was before and after in each of them, and no more");
		is(value($dn{$name}, 'SELECT count(*) FROM t WHERE step = 9'), '0', '... and nothing of what was within');
	}
}
$_->quit() for @sessions;
$_->forward() for values %proxy;
finish();
