# Large results, values and parameters, in bounded memory.

use strict;
use warnings;
use PolarxPooler;
use PostgreSQL::Test::Utils;
use Test::More;

my $coord = start_coordinator(conf => "work_mem = 4MB\n");
my %dn = map { $_ => start_datanode($_) } qw(dn1 dn2);
add_node($coord, $_, $dn{$_}) for sort keys %dn;

# The most memory that a backend has ever used, in MB.
sub peak
{
	my ($session) = @_;
	my ($kb) = slurp_file('/proc/' . $session->pid . '/status') =~ /^VmHWM:\s+(\d+) kB/m;
	return $kb / 1024;
}

# A million rows of about 100 bytes: 100 MB as text, more as tuples.
my $s = session($coord);
$s->ask(q{SELECT pooler.exec('dn1', 'SELECT 1')});
my $before = peak($s);
is($s->ask(q{SELECT count(*), sum(id), count(DISTINCT v) FROM (SELECT * FROM pooler.query('dn1',
	$$SELECT g, repeat(md5(g::text), 3) FROM generate_series(1, 1000000) g$$) AS r(id int, v text)) x}),
	'1000000|500000500000|1000000', 'a million rows');
my $grown = peak($s) - $before;
cmp_ok($grown, '<', 60, sprintf('... in bounded memory (%.0f MB more)', $grown));
is($s->ask(q{SELECT count(*), count(DISTINCT n) FROM pooler.query_all(
	'SELECT g FROM generate_series(1, 300000) g') AS r(node name, n int)}), '600000|300000', 'many rows of all nodes');
is($s->ask(q{SELECT pooler.exec('dn1', 'SELECT * FROM generate_series(1, 1000000)')}), 'SELECT 1000000',
	'exec throws rows away');
cmp_ok(peak($s) - $before, '<', 90, '... all in bounded memory');

# Single values.
is($s->ask(q{SELECT length(v), md5(v) = md5(repeat('x', 50000000)) FROM
	pooler.query('dn1', 'SELECT repeat(''x'', 50000000)') AS r(v text)}), '50000000|t', 'a value of 50 MB');
is($s->ask(q{SELECT n FROM pooler.query('dn1', 'SELECT length($1)', repeat('y', 20000000)) AS r(n int)}),
	'20000000', 'a parameter of 20 MB');
is($s->ask(q{SELECT n FROM pooler.query('dn1', 'SELECT 1 /* ' || repeat('z', 5000000) || ' */') AS r(n int)}),
	'1', 'a statement of 5 MB');
is($s->ask('SELECT count(*) FROM pooler.query(\'dn1\', \'SELECT ' . join(',', 1 .. 1600)
	  . '\') AS r(' . join(',', map { "c$_ int" } 1 .. 1600) . ')'), '1', 'as many columns as there can be');
is($s->ask('SELECT n FROM pooler.query(\'dn1\', \'SELECT ' . join('+', map { "\$$_\::int" } 1 .. 98)
	  . '\', ' . join(',', map { "'$_'" } 1 .. 98) . ') AS r(n int)'), '4851', 'as many parameters as a call can have');
is($s->ask(q{BEGIN; SELECT count(*) FROM generate_series(1, 2000) g,
	LATERAL pooler.query('dn1', 'SELECT $1::int', g::text) AS r(n int) WHERE n = g; COMMIT}),
	'2000', 'two thousand statements in one transaction');
fails_with($coord, q{SELECT count(*) FROM pooler.query('dn1',
	'SELECT 1000000 / (500000 - g) FROM generate_series(1, 1000000) g') AS r(n int)}, '22012', qr/dn1/,
	'an error in the middle of a large result');
is($s->ask(q{SELECT pooler.exec('dn1', 'SELECT 1')}), 'SELECT 1', 'the pool works on');

$s->quit();
finish();
