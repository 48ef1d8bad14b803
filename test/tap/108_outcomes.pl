# What could be taken for something else: a node lost before COMMIT, a COMMIT cancelled half-way, values
# in another style, objects that are not committed yet.

use strict;
use warnings;
use PolarxPooler;
use Test::More;

my $coord = start_coordinator();
my %dn = map { $_ => start_datanode($_) } qw(dn1 dn2);
for my $name (sort keys %dn)
{
	add_node($coord, $name, $dn{$name});
	value($dn{$name}, 'CREATE TABLE t (id int PRIMARY KEY)');
}

sub insert { return "SELECT pooler.exec('$_[0]', 'INSERT INTO t VALUES ($_[1])')"; }
sub rows { return value($_[0], 'SELECT count(*) FROM t'); }

# A node goes down without a goodbye; its last words are a warning, and the end of file comes behind.
my $s = session($coord);
$s->ask('BEGIN; ' . insert('dn1', 1) . '; ' . insert('dn2', 1));
$dn{dn1}->stop('immediate');
like($s->refused('COMMIT'), qr/08006(?s:.*)dn1/, 'a node lost before COMMIT: 08006');
$s->ask('ROLLBACK');
is(rows($dn{dn2}), '0', '... and no other node has committed');
$dn{dn1}->start();
wait_until($coord, "SELECT pooler.exec('dn1', 'SELECT 1')", 'SELECT 1', '... which is used again');

# One node commits, the other is stopped in mid-COMMIT.
$s->ask('BEGIN; ' . insert('dn1', 2) . '; ' . insert('dn2', 2));
my $stopped = $s->ask(q{SELECT p FROM pooler.query('dn2', 'SELECT pg_backend_pid()') AS r(p int)});
kill 'STOP', $stopped;
$s->tell('COMMIT');
wait_until($dn{dn1}, 'SELECT count(*) FROM t WHERE id = 2', '1', 'the first node has committed');
value($coord, 'SELECT pg_cancel_backend(' . $s->pid . ')');
my (undef, $answer) = $s->hear();
kill 'CONT', $stopped;
like($answer, qr/40003(?s:.*)Committed on: "dn1"(?s:.*)unknown on: "dn2"/,
	'a cancel after one node has committed: 40003, and which');

# Styles.
is($s->ask(q{SELECT d FROM pooler.query('dn1', 'SELECT date ''2024-02-03''') AS r(d date)}), '2024-02-03', 'a date');
$s->ask(q{BEGIN; SELECT pooler.exec('dn1', 'SET DateStyle = German')});
is($s->ask(q{SELECT n FROM pooler.query('dn1', 'SELECT 7') AS r(n int)}), '7', 'another DateStyle: a number');
is($s->ask(q{SELECT d FROM pooler.query('dn1', 'SELECT date ''2024-02-03''') AS r(d text)}), '03.02.2024',
	'... a date as text');
like($s->refused(q{SELECT d FROM pooler.query('dn1', 'SELECT date ''2024-02-03''') AS r(d date)}),
	qr/0A000(?s:.*)DateStyle/, '... a date that would be read wrongly: 0A000');
$s->ask('ROLLBACK');
value($coord, q{ALTER SERVER dn2 OPTIONS (ADD options '-c DateStyle=German -c IntervalStyle=iso_8601')});
is($s->ask(q{SELECT d, i FROM pooler.query('dn2', 'SELECT date ''2024-02-03'', interval ''-1 day -2 hours''')
	AS r(d date, i interval)}), '2024-02-03|-1 days -02:00:00', 'styles of the options change nothing');

# Not committed yet.
$s->ask(q{BEGIN; CREATE SERVER early FOREIGN DATA WRAPPER polarx_pooler OPTIONS (host '127.0.0.1')});
$s->ask(q{CREATE USER MAPPING FOR CURRENT_USER SERVER early});
like($s->refused(q{SELECT pooler.exec('early', 'SELECT 1')}), qr/42704(?s:.*)committed/,
	'a server of this transaction: 42704, and why');
$s->ask('ROLLBACK');

$s->quit();
finish();
