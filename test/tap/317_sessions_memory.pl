# A session that runs out of memory, wherever in its work: it gets 53200 and works on, and nothing of
# what it held is lost or left behind.

use strict;
use warnings;
use PolarxPooler;
use Test::More;

my $coord = start_coordinator(conf => "pooler.min_pool_size = 0\npooler.min_free_size = 0\njit = off\n");
my $dn = start_datanode('dn1');
add_node($coord, $_, $dn, server => { max_pool_size => 1 }) for qw(dn1 dn2 dn3);
value($dn, 'CREATE TABLE t (n int)');
value($coord, q{CREATE EXTENSION polarx_pooler_example; SELECT pooler.exec_all('SELECT 1')});
my $worker = worker_pid($coord);
my $watch = session($coord);

# What is tried, and whether it is the first thing that the session does.
my %work = (
	'one node' => q{SELECT pooler.exec('dn1', 'INSERT INTO t VALUES (1)')},
	'all nodes' => q{SELECT pooler.exec_all('SELECT 1')},
	'rows' => q{SELECT count(*) FROM pooler.query('dn1', 'SELECT repeat(''x'', 1000) FROM generate_series(1, 100)') AS r(a text)},
	'parameters' => q{SELECT pooler.set_param('work_mem', '5MB'), pooler.exec('dn1', 'SELECT 1')},
	'a borrower' => q{SELECT example_two_nodes('dn1', 'dn2')},
	'a view' => 'SELECT count(*) FROM pooler.pools, pooler.nodes, pooler.connections',
	'a ping' => 'SELECT count(*) FROM pooler.ping()');

# Runs it with so much memory left: '53200', '' where it was enough, or what else was said.
sub attempt
{
	my ($session, $spare, $sql) = @_;
	$session->tell("SELECT misuse_without_memory($spare, \$work\$$sql\$work\$)");
	my (undef, $err) = $session->hear();
	return '' if $err !~ /ERROR|FATAL/;
	return $1 if $err =~ /ERROR:  (53200)/;
	return $err =~ /out of memory|Cannot allocate memory/ ? '53200' : $err;
}

sub settled
{
	my ($what) = @_;
	my $books = '';
	my $came = eval {
		wait_for($what, sub {
				$books = $watch->ask('SELECT (SELECT sum(leased + waiting + resetting + connecting) FROM pooler.pools),
					(SELECT sum(total - idle - parked) FROM pooler.pools),
					(SELECT count(*) FROM pooler.connections WHERE session_pid IS NOT NULL AND state <> \'parked\')');
				return $books eq '0|0|0';
			}, 15);
		1;
	};
	diag "$what: $books" unless $came;
	return $came;
}

srand 7;
for my $name (sort keys %work)
{
	for my $fresh (0, 1)
	{
		my ($failed, $enough, @odd, @lost) = (0, 0);
		my $session = session($coord);
		$session->ask($work{$name}) unless $fresh;
		for (my $spare = 1024; $spare < 4_000_000; $spare += 512 + int($spare * ($fresh ? 0.3 : 0.08)))
		{
			my $said = attempt($session, $spare, $work{$name});
			$said eq '53200' ? $failed++ : $said eq '' ? $enough++ : push @odd, "$spare: $said";
			push @lost, $spare unless settled("$name with $spare bytes");
			next unless $fresh;
			$session->quit();
			$session = session($coord);
		}
		my $how = $fresh ? 'a new session' : 'a session at work';
		cmp_ok($failed, '>', 0, "$name, $how: runs out of memory ($failed times, $enough times it was enough)");
		cmp_ok($enough, '>', 0, '... and not with enough of it');
		is("@odd", '', '... and is told so each time');
		is("@lost", '', '... and holds nothing afterwards');
		$session->ask('SELECT pooler.reset_params()');
		is($session->ask(q{SELECT pooler.exec('dn1', 'SELECT 1')}), 'SELECT 1', '... and works on');
		$session->quit();
	}
}
is(worker_pid($coord), $worker, 'the pooler worker has lived through all of that');
$watch->quit();
finish();
