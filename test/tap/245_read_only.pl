# READ ONLY, set and undone by savepoints: what the datanode's transaction allows is what the local one
# does, at each step of a transaction.

use strict;
use warnings;
use PolarxPooler;
use Test::More;

my $coord = start_coordinator(park => 1, conf => "pooler.min_pool_size = 0\npooler.min_free_size = 0\n");
my %dn = map { $_ => start_datanode($_) } qw(dn1 dn2);
for my $node (sort keys %dn)
{
	add_node($coord, $node, $dn{$node});
	value($dn{$node}, 'CREATE TABLE t (id int)');
}
my $s = session($coord);

# Is the transaction READ ONLY: here, and on the node?
sub both { return "SELECT '= ' || current_setting('transaction_read_only') || ' ' || v FROM pooler.query('$_[0]', 'SHOW transaction_read_only') AS r(v text)"; }
my $both = both('dn1');
my $write = q{SELECT pooler.exec('dn1', 'INSERT INTO t VALUES (1)')};

# [ what, statements, what both() says in turn, rows that are written ]
my @rows = (
	[ 'a savepoint that is rolled back', "BEGIN; $both; SAVEPOINT a; SET TRANSACTION READ ONLY; $both; ROLLBACK TO a; $both; $write; COMMIT",
		'off on off', 1 ],
	[ '... first used in it', "BEGIN; SAVEPOINT a; SET TRANSACTION READ ONLY; $both; ROLLBACK TO a; $both; $write; COMMIT", 'on off', 1 ],
	[ '... rolled back twice', "BEGIN; $both; SAVEPOINT a; SET TRANSACTION READ ONLY; $both; ROLLBACK TO a; SET TRANSACTION READ ONLY; $both;"
		  . " ROLLBACK TO a; $both; $write; COMMIT", 'off on on off', 1 ],
	[ '... after an error', "BEGIN; $both; SAVEPOINT a; SET TRANSACTION READ ONLY; $both; SELECT 1/0; ROLLBACK TO a; $both; $write; COMMIT",
		'off on off', 1 ],
	[ '... after a write that was refused', "BEGIN; $both; SAVEPOINT a; SET TRANSACTION READ ONLY; $write; ROLLBACK TO a; $both; $write; COMMIT",
		'off off', 1 ],
	[ '... not used in it', "BEGIN; $both; SAVEPOINT a; SET TRANSACTION READ ONLY; ROLLBACK TO a; $both; $write; COMMIT", 'off off', 1 ],
	[ 'a savepoint that is released', "BEGIN; $both; SAVEPOINT a; SET TRANSACTION READ ONLY; $both; RELEASE a; $both; $write; COMMIT",
		'off on off', 1 ],
	[ '... first used in it', "BEGIN; SAVEPOINT a; SET TRANSACTION READ ONLY; $both; RELEASE a; $both; $write; COMMIT", 'on off', 1 ],
	[ '... first used in one within it', "BEGIN; SAVEPOINT a; SET TRANSACTION READ ONLY; SAVEPOINT b; $both; RELEASE b; $both; RELEASE a; $both; $write; COMMIT",
		'on on off', 1 ],
	[ '... whose inner one is rolled back', "BEGIN; SAVEPOINT a; SET TRANSACTION READ ONLY; SAVEPOINT b; $both; ROLLBACK TO b; $both; ROLLBACK TO a; $both; $write; COMMIT",
		'on on off', 1 ],
	[ 'the inner of two', "BEGIN; $both; SAVEPOINT a; $write; SAVEPOINT b; SET TRANSACTION READ ONLY; $both; ROLLBACK TO b; $both; $write; RELEASE a; $write; COMMIT",
		'off on off', 3 ],
	[ 'the inner of two, first used in it and released', "BEGIN; SAVEPOINT a; SAVEPOINT b; SET TRANSACTION READ ONLY; $both; RELEASE b; $both; $write; RELEASE a; $write; COMMIT",
		'on off', 2 ],
	[ 'the whole transaction', "BEGIN READ ONLY; $both; SAVEPOINT a; $both; ROLLBACK TO a; $both; COMMIT", 'on on on', 0 ],
	[ '... first used in a savepoint', "BEGIN READ ONLY; SAVEPOINT a; $both; RELEASE a; $both; SAVEPOINT b; $both; ROLLBACK TO b; $both; COMMIT",
		'on on on on', 0 ],
	[ '... from its middle', "BEGIN; $write; SET TRANSACTION READ ONLY; $both; SAVEPOINT a; $both; ROLLBACK TO a; $both; COMMIT", 'on on on', 1 ],
	[ '... by a default', "SET default_transaction_read_only = on; BEGIN; SAVEPOINT a; $both; RELEASE a; $both; COMMIT; RESET default_transaction_read_only",
		'on on', 0 ],
	[ 'an isolation level with it', "BEGIN ISOLATION LEVEL REPEATABLE READ; SAVEPOINT a; SET TRANSACTION READ ONLY; $both; RELEASE a; $both; $write; COMMIT",
		'on off', 1 ],
	[ 'two nodes', "BEGIN; $both; SAVEPOINT a; SET TRANSACTION READ ONLY; " . both('dn2') . "; $both; ROLLBACK TO a; " . both('dn2') . "; $both; $write; COMMIT",
		'off on on off off', 1 ],
	[ 'a parameter of the transaction', "BEGIN; SELECT pooler.set_param('work_mem', '5MB', true); SAVEPOINT a; SET TRANSACTION READ ONLY; $both; RELEASE a; $both;"
		  . q{ SELECT v FROM pooler.query('dn1', 'SHOW work_mem') AS r(v text);} . " $write; COMMIT", 'on off', 1, qr/^5MB$/m ],
	[ 'a block of PL/pgSQL', "DO \$\$ DECLARE v text; BEGIN BEGIN SET TRANSACTION READ ONLY; SELECT r.v INTO v FROM pooler.query('dn1', 'SHOW transaction_read_only') AS r(v text);"
		  . " RAISE NOTICE '%', v; RAISE EXCEPTION 'oops'; EXCEPTION WHEN raise_exception THEN NULL; END; PERFORM pooler.exec('dn1', 'INSERT INTO t VALUES (1)'); END \$\$", '', 1 ]);
for my $row (@rows)
{
	my ($name, $sql, $expected, $written, $more) = @$row;
	value($dn{dn1}, 'TRUNCATE t');
	$s->ask($both);
	$s->tell($sql);
	my ($out, $err) = $s->hear();
	my @said = $out =~ /^= (.*)$/mg;
	is(join(' ', @said), join(' ', map { "$_ $_" } split / /, $expected), "$name: here as on the node");
	like($out, $more, '... in order') if $more;
	unlike($err, qr/ERROR:  (?!22012|25006)/, '... without an error of its own');
	is(value($dn{dn1}, 'SELECT count(*) FROM t'), $written, '... and what may be written is');
	$s->tell('ROLLBACK');
	$s->hear();
}
is($s->ask($both), '= off off', 'nothing of it stays');
$s->quit();
finish();
