# What becomes of a transaction that cannot be committed everywhere: what can fail fails while all can
# still roll back, and where something is kept an error or a WARNING names it.
#
# POLARX_ROUNDS rounds of random failures (40); POLARX_SEED chooses them (1).

use strict;
use warnings;
use PolarxPooler;
use PolarxProxy;
use Test::More;

my $rounds = $ENV{POLARX_ROUNDS} // 40;
srand($ENV{POLARX_SEED} // 1);

my $coord = start_coordinator();
my (%dn, %proxy);
for my $name (qw(dn1 dn2))
{
	$dn{$name} = start_datanode($name);
	$proxy{$name} = PolarxProxy->before($dn{$name}->port);
	add_node($coord, $name, $dn{$name}, server => { port => $proxy{$name}->port });
	value($dn{$name}, q{
		CREATE TABLE t (id int);
		CREATE TABLE late (id int UNIQUE DEFERRABLE INITIALLY DEFERRED);
		INSERT INTO late VALUES (0);
		CREATE FUNCTION fails() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			RAISE EXCEPTION 'refused at COMMIT'; END $$;
		CREATE TABLE refused (id int);
		CREATE CONSTRAINT TRIGGER refused AFTER INSERT ON refused DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
			EXECUTE FUNCTION fails()});
}
value($coord, 'CREATE TABLE t (id int); CREATE TABLE skew (id int, n int); INSERT INTO skew VALUES (1, 0), (2, 0)');

# PostgreSQL finds that these two do not go together when it commits, after everything that extensions
# do then.
my $fails_here = 'CREATE TEMP TABLE a (id int PRIMARY KEY) ON COMMIT DELETE ROWS; CREATE TEMP TABLE b (a int REFERENCES a)';

sub insert { return "SELECT pooler.exec('$_[0]', 'INSERT INTO t VALUES ($_[1])')"; }
sub kept { return join ',', map { value($_, "SELECT count(*) FROM t WHERE id = $_[0]") } $dn{dn1}, $dn{dn2}, $coord; }

my ($s, $other) = map { session($coord) } 1 .. 2;

# A deferred constraint of one of several nodes.
my $id = 0;
for my $name (sort keys %dn)
{
	++$id;
	like($s->refused("BEGIN; " . insert('dn1', $id) . '; ' . insert('dn2', $id)
			  . "; SELECT pooler.exec('$name', 'INSERT INTO late VALUES (0)'); COMMIT"),
		qr/23505(?s:.*)statement on datanode "$name"/, "a deferred constraint of $name is the error");
	is(kept($id), '0,0,0', '... and nothing is kept');
}

# Write skew on the coordinator.
++$id;
$s->ask('BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT sum(n) FROM skew; UPDATE skew SET n = n + 1 WHERE id = 2; ' . insert('dn1', $id));
$other->ask('BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT sum(n) FROM skew; UPDATE skew SET n = n + 1 WHERE id = 1; COMMIT');
like($s->refused('COMMIT'), qr/40001/, 'a write skew on the coordinator is the error');
is(kept($id), '0,0,0', '... and nothing is kept');
$s->ask('ROLLBACK');

# The local commit fails when the nodes have committed.
++$id;
my $before = value($coord, 'SELECT partial_commits FROM pooler.stats');
my $said = ($s->refused("BEGIN; $fails_here; " . insert('dn1', $id) . '; ' . insert('dn2', $id) . '; COMMIT'))[0];
like($said, qr/WARNING:  40003: transaction failed after datanodes had committed it\nDETAIL:  Committed on: "dn1", "dn2"\./,
	'the local commit fails: a WARNING names the nodes');
is(kept($id), '1,1,0', '... which have it');
is(value($coord, 'SELECT partial_commits FROM pooler.stats'), $before + 1, '... and it is counted');
++$id;
unlike(($s->refused("BEGIN; $fails_here; " . insert('dn1', $id) . '; ROLLBACK; SELECT 1/0'))[0], qr/WARNING/,
	'no WARNING where nothing was committed');
is($s->ask("BEGIN; " . insert('dn1', ++$id) . '; COMMIT; SELECT 1'), "INSERT 0 1\n1", 'the session works on');

# At random: which nodes fail and how, where the wire is cut, what fails here.
my ($partly, $whole, $wrong) = (0, 0, '');
for my $round (1 .. $rounds)
{
	++$id;
	my $sql = "BEGIN; INSERT INTO t VALUES ($id)";
	my $plan = '';
	for my $name (sort keys %dn)
	{
		$sql .= '; ' . insert($name, $id);
		my $fault = int rand 6;
		if    ($fault == 0) { $sql .= "; SELECT pooler.exec('$name', 'INSERT INTO late VALUES (0)')"; }
		elsif ($fault == 1) { $sql .= "; SELECT pooler.exec('$name', 'INSERT INTO refused VALUES (0)')"; }
		elsif ($fault == 2) { $plan .= " cut $name"; }
	}
	my $here = int rand 4;
	$sql .= "; $fails_here" if $here == 0;
	$s->tell($sql);
	my (undef, $err) = $s->hear();
	if ($err =~ /ERROR/) { $s->tell('ROLLBACK'); $s->hear(); next; }
	for my $name (sort keys %dn) { $proxy{$name}->close_after(int rand 90) if $plan =~ /cut $name/; }
	$s->tell('COMMIT');
	(undef, $err) = $s->hear();
	$_->forward() for values %proxy;
	my ($one, $two, $coordinator);
	wait_for('the nodes to be done', sub {
			!grep { value($_, q{SELECT count(*) FROM pg_stat_activity WHERE xact_start IS NOT NULL AND pid <> pg_backend_pid() AND backend_type = 'client backend'}) } values %dn });
	my %kept;
	@kept{qw(dn1 dn2 here)} = split /,/, kept($id);
	my $failed = $err =~ /ERROR/;
	$whole++ if !$failed;
	$partly++ if $failed && ($kept{dn1} || $kept{dn2});
	$wrong .= "round $round: kept " . join(',', %kept) . "$plan: $err\n"
	  if $failed ? ($kept{here} || grep { $kept{$_} && $err !~ /(?:ommitted on|unknown on|datanode)[^;]*"$_"/ } qw(dn1 dn2))
	  : ($kept{dn1} != 1 || $kept{dn2} != 1 || $kept{here} != 1);
}
is($wrong, '', "$rounds random commits: what is kept is named");
cmp_ok($whole, '>', 0, "... though $whole were whole");
cmp_ok($partly, '>', 0, "... and $partly were kept in part");
$_->quit() for $s, $other;
finish();
