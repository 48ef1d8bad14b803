# A session's memory is what it was before when its leases have ended, whatever large things have gone
# through them.

use strict;
use warnings;
use PolarxPooler;
use PostgreSQL::Test::Utils;
use Test::More;

my $coord = start_coordinator(conf => "jit = off\n");
my $dn = start_datanode('dn1', conf => "max_connections = 200\n");
add_node($coord, "dn$_", $dn) for 1 .. 16;
value($coord, 'CREATE EXTENSION polarx_pooler_example');
value($dn, q{CREATE TABLE t (id int); CREATE FUNCTION say(n int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE '%', repeat('x', n); RETURN 1; END $$;
	CREATE FUNCTION shout(n int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION '%', repeat('x', n); END $$;
	CREATE FUNCTION speak(n int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN
		FOR i IN 1 .. n LOOP PERFORM pg_notify('c' || i % 2, i || repeat('x', 7000)); END LOOP; RETURN n; END $$});

# kB.
sub memory
{
	my ($session) = @_;
	my ($kb) = slurp_file('/proc/' . $session->pid . '/status') =~ /^RssAnon:\s+(\d+) kB/m or die 'no RssAnon';
	return $kb;
}

my $large = 50_000_000;
my %work = (
	'a parameter' => "SELECT pooler.exec('dn1', 'SELECT length(\$1)', repeat('x', $large))",
	'a parameter of query' => "SELECT * FROM pooler.query('dn1', 'SELECT length(\$1)', repeat('x', $large)) AS r(n int)",
	'a statement' => "SELECT pooler.exec('dn1', 'SELECT 1 --' || repeat('x', $large))",
	'an autocommit statement' => "SELECT pooler.exec_autocommit('dn1', 'SELECT 1 --' || repeat('x', $large))",
	'a parameter on 16 nodes' => "SELECT count(*) FROM pooler.exec_all('SELECT length(\$1)', repeat('x', 5000000))",
	'a small parameter on 16 nodes' => "SELECT count(*) FROM pooler.exec_all('SELECT length(\$1)', repeat('x', 900000))",
	'a value' => "SELECT length(v) FROM pooler.query('dn1', 'SELECT repeat(''x'', $large)') AS r(v text)",
	'values of 16 nodes' => "SELECT sum(length(v)) FROM pooler.query_all('SELECT repeat(''x'', 900000)') AS r(node name, v text)",
	'a notice' => "SET client_min_messages = error; SELECT pooler.exec('dn1', 'SELECT say($large)'); RESET client_min_messages",
	'many notices' => "SET client_min_messages = error; SELECT pooler.exec('dn1', 'SELECT say(1000) FROM generate_series(1, 20000)'); RESET client_min_messages",
	'an error' => "SET client_min_messages = fatal; DO \$\$ BEGIN PERFORM pooler.exec('dn1', 'SELECT shout($large)'); EXCEPTION WHEN OTHERS THEN NULL; END \$\$; RESET client_min_messages",
	'a stopped result' => "DO \$\$ BEGIN PERFORM * FROM pooler.query('dn1', 'SELECT ''x'' UNION ALL SELECT repeat(''1'', 10000000) FROM generate_series(1, 5)') AS r(n int); EXCEPTION WHEN OTHERS THEN NULL; END \$\$",
	'a borrower that copies' => "SELECT example_copy('dn1', 't', 300000)");

my $s = session($coord);
for my $turn (1 .. 3)
{
	$s->ask(q{SELECT count(*) FROM pooler.exec_all('SELECT 1'); SELECT pooler.exec('dn1', 'SELECT say(10)'), example_copy('dn1', 't', 10)});
}
for my $name (sort keys %work)
{
	# What PostgreSQL itself keeps of a text of this size is there before, as it is on the second turn.
	$s->ask("SELECT length(repeat('x', $large))");
	my $before = memory($s);
	$s->tell($work{$name});
	$s->hear();
	$s->ask('SELECT 1');
	my $kept = memory($s) - $before;
	cmp_ok($kept, '<', 2048, "$name: $kept kB are kept");
}

# Notifications that nobody asks for.
$s->ask(q{SET pooler.persistent_datanode_connections = on; SELECT pooler.exec('dn1', 'LISTEN c0'); SELECT pooler.exec('dn1', 'LISTEN c1')});
my $before = memory($s);
for my $round (1 .. 20)
{
	value($dn, 'SELECT speak(100)');
	$s->ask(q{SELECT pooler.exec('dn1', 'SELECT 1')});
}
$s->ask(q{SELECT pooler.exec('dn1', 'SELECT 1')});
my $kept = memory($s) - $before;
cmp_ok($kept, '<', 2048, "2000 notifications on a persistent connection: $kept kB are kept");
$s->quit();
finish();
