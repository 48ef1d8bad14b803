# Random programs: whatever a session does with transactions, savepoints, blocks, errors, cancels,
# procedures and cursors, a local table that is written beside the nodes' has exactly their rows.
#
# POLARX_PROGRAMS programs (200); POLARX_SEED chooses them (1). A program that went wrong is shown.

use strict;
use warnings;
use PolarxPooler qw(:DEFAULT literal);
use Test::More;

my $programs = $ENV{POLARX_PROGRAMS} // 200;
srand($ENV{POLARX_SEED} // 1);

my $coord = start_coordinator(conf => "pooler.park_leases = on\n");
my %dn = map { $_ => start_datanode($_) } qw(dn1 dn2);
for my $name (sort keys %dn)
{
	add_node($coord, $name, $dn{$name});
	value($dn{$name}, 'CREATE TABLE t (id int PRIMARY KEY)');
}
value($coord, q{
	CREATE TABLE t (node name, id int);
	CREATE FUNCTION w(node name, id int) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
		PERFORM pooler.exec(node, 'INSERT INTO t VALUES ($1::int)', id::text); INSERT INTO t VALUES (node, id); END $$;
	CREATE FUNCTION w_all(id int) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
		INSERT INTO t SELECT node, id FROM pooler.exec_all('INSERT INTO t VALUES ($1::int)', id::text); END $$;
	CREATE FUNCTION d(node name, low int) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
		PERFORM pooler.exec(d.node, 'DELETE FROM t WHERE id < $1::int AND id % 3 = 0', low::text);
		DELETE FROM t WHERE t.node = d.node AND id < low AND id % 3 = 0; END $$;
	CREATE PROCEDURE run(steps text[]) LANGUAGE plpgsql AS $$ DECLARE step text; BEGIN
		FOREACH step IN ARRAY steps LOOP
			IF step = 'COMMIT' THEN COMMIT; ELSIF step = 'ROLLBACK' THEN ROLLBACK;
			ELSIF step = 'COMMIT AND CHAIN' THEN COMMIT AND CHAIN; ELSE EXECUTE step; END IF;
		END LOOP; END $$});

my $id = 0;
sub pick { return $_[ int rand @_ ]; }
sub node { return pick(qw(dn1 dn2)); }

sub write_something
{
	++$id;
	return pick("SELECT w('" . node() . "', $id)", "SELECT w('" . node() . "', $id)", "SELECT w_all($id)",
		"SELECT d('" . node() . "', $id)");
}

sub read_something
{
	my $node = node();
	return pick("SELECT count(*) FROM pooler.query('$node', 'SELECT id FROM t') AS r(id int)",
		q{SELECT count(*) FROM pooler.query_all('SELECT id FROM t') AS r(node name, id int)},
		"SELECT pooler.set_param('work_mem', '" . (1 + int rand 9) . "MB', " . pick('true', 'false') . ')');
}

sub failing
{
	my $node = node();
	return pick('SELECT 1/0', "SELECT pooler.exec('$node', 'SELECT 1/0')",
		q{SELECT count(*) FROM pooler.query_all('SELECT 1/0') AS r(node name, n int)},
		"SELECT w('$node', 0), w('$node', 0)",
		"SELECT sum(n) FROM pooler.query('$node', 'SELECT ''x'' UNION ALL SELECT g::text FROM generate_series(1, 2000) g') AS r(n int)",
		q{SELECT sum(n) FROM pooler.query_all('SELECT ''x'' UNION ALL SELECT g::text FROM generate_series(1, 2000) g') AS r(node name, n int)},
		q{SELECT pooler.exec_all('SELECT CASE WHEN random() < 0.5 THEN 1/(random() * 0)::int ELSE 1 END FROM pg_sleep(0.01)')},
		"SELECT pooler.exec('$node', 'COMMIT')");
}

# A statement that is cancelled, now and then too late.
sub cancelled
{
	my $node = node();
	my $takes = sprintf '%.3f', rand 0.02;
	return sprintf("SET LOCAL statement_timeout = '%dms'; %s; SET LOCAL statement_timeout = 0", 1 + rand 20,
		pick("SELECT pooler.exec('$node', 'SELECT pg_sleep($takes)')", "SELECT pooler.exec_all('SELECT pg_sleep($takes)')",
			"SELECT sum(n) FROM pooler.query_all('SELECT g FROM pg_sleep($takes), generate_series(1, 1000) g') AS r(node name, n int)"));
}

# The inside of a block of PL/pgSQL.
sub block
{
	my ($depth) = @_;
	my @steps = map {
		my $what = rand;
		$what < 0.6 ? write_something() =~ s/\ASELECT /PERFORM /r
		: $what < 0.7 ? read_something() =~ s/\ASELECT /PERFORM /r
		: $what < 0.85 && $depth < 3 ? block($depth + 1)
		: failing() =~ s/\ASELECT /PERFORM /r
	} 1 .. 1 + rand 3;
	return 'BEGIN ' . join('; ', @steps) . pick('; EXCEPTION WHEN OTHERS THEN NULL', '; EXCEPTION WHEN OTHERS THEN PERFORM 1', '') . '; END';
}

sub transaction
{
	my @lines = (pick('BEGIN', 'BEGIN', 'BEGIN ISOLATION LEVEL REPEATABLE READ', 'BEGIN ISOLATION LEVEL SERIALIZABLE', 'BEGIN READ ONLY'));
	my @savepoints;
	for (1 .. 2 + rand 10)
	{
		my $what = rand;
		if    ($what < 0.35) { push @lines, write_something(); }
		elsif ($what < 0.45) { push @lines, read_something(); }
		elsif ($what < 0.55) { push @savepoints, 's' . @savepoints; push @lines, "SAVEPOINT $savepoints[-1]"; }
		elsif ($what < 0.65 && @savepoints)
		{
			splice @savepoints, 1 + int rand @savepoints;
			push @lines, "ROLLBACK TO $savepoints[-1]";
		}
		elsif ($what < 0.7 && @savepoints)
		{
			my $to = int rand @savepoints;
			push @lines, "RELEASE $savepoints[$to]";
			$#savepoints = $to - 1;
		}
		elsif ($what < 0.78) { push @lines, 'DO $do$ ' . block(0) . ' $do$'; }
		elsif ($what < 0.86 && @savepoints) { push @lines, failing(), "ROLLBACK TO $savepoints[-1]"; }
		elsif ($what < 0.93 && @savepoints) { push @lines, cancelled(), "ROLLBACK TO $savepoints[-1]"; }
		elsif ($what < 0.95) { push @lines, pick('SET TRANSACTION READ ONLY', failing(), cancelled()); }
		elsif ($what < 0.97) { push @lines, pick('COMMIT AND CHAIN', 'ROLLBACK AND CHAIN'); @savepoints = (); }
		else
		{
			push @lines, 'DECLARE c CURSOR WITH HOLD FOR SELECT * FROM pooler.query(\'' . node() . q{', 'SELECT id FROM t') AS r(id int)}, 'FETCH 2 FROM c';
		}
	}
	return (@lines, pick('COMMIT', 'COMMIT', 'COMMIT', 'ROLLBACK'), pick('', 'FETCH ALL FROM c'), 'CLOSE ALL');
}

sub program
{
	my $what = rand;
	return transaction() if $what < 0.7;
	return (map { rand() < 0.7 ? write_something() : failing() } 1 .. 3) if $what < 0.8;
	my @steps = map { rand() < 0.6 ? write_something() : pick('COMMIT', 'ROLLBACK', 'COMMIT AND CHAIN', 'DO $do$ ' . block(1) . ' $do$', failing()) } 1 .. 6;
	return 'CALL run(ARRAY[' . join(', ', map { literal($_) } @steps) . '])';
}

sub rows
{
	return join ' ', map { "$_:" . value($dn{$_}, q{SELECT coalesce(string_agg(id::text, ',' ORDER BY id), '') FROM t}) } sort keys %dn;
}
my $shadow = q{SELECT string_agg(n || ':' || coalesce((SELECT string_agg(id::text, ',' ORDER BY id) FROM t WHERE node = n), ''), ' ' ORDER BY n)
	FROM unnest('{dn1,dn2}'::text[]) n};

my $s = session($coord);
my ($written, $failed) = (0, 0);
for my $number (1 .. $programs)
{
	if ($number % 20 == 1)
	{
		$s->quit();
		$s = session($coord);
		$s->ask('SET pooler.persistent_datanode_connections = ' . pick('on', 'off') . '; SET pooler.park_leases = ' . pick('on', 'off'));
	}
	my @program = program();
	$s->tell(join(";\n", @program) . ";\nROLLBACK");
	my (undef, $err) = $s->hear();
	$failed += () = $err =~ /ERROR/g;
	$written += grep { /w_all|w\(/ } @program;
	my ($here, $there) = ($s->ask($shadow), rows());
	next if $here eq $there && $err !~ /ERROR:  08|was lost/;
	fail_program($number, \@program, $err, $here, $there);
	last;
}
sub fail_program
{
	my ($number, $program, $err, $here, $there) = @_;
	diag "program $number:\n" . join(";\n", @$program) . "\n$err\nhere:  $here\nnodes: $there";
	return fail("program $number");
}
is($s->ask($shadow), rows(), "$programs programs: the nodes have the rows that are here");
cmp_ok($written, '>', $programs / 2, "... of $written statements that write");
cmp_ok($failed, '>', $programs / 4, "... and $failed errors");
$s->quit();
finish();
