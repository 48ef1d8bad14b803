# Parameters of the session: set_param and reset_params reach every connection that a role acquires.

use strict;
use warnings;
use PolarxPooler;
use Test::More;

my $coord = start_coordinator(
	conf => "pooler.min_pool_size = 2\npooler.min_free_size = 0\npooler.pool_conn_keepalive = -1\n");
my %dn = map { $_ => start_datanode($_) } qw(dn1 dn2);
add_node($coord, $_, $dn{$_}) for sort keys %dn;
value($_, q{CREATE SCHEMA mine; CREATE SCHEMA theirs; CREATE ROLE plain LOGIN;
	CREATE TABLE mine.t AS SELECT 'mine' AS v; CREATE TABLE theirs.t AS SELECT 'theirs' AS v})
  for values %dn;

sub setting
{
	my ($name, $node) = @_;
	$node //= 'dn1';
	return "SELECT v FROM pooler.query('$node', \$\$SELECT current_setting('$name', true)\$\$) AS r(v text)";
}
sub everywhere
{
	my ($name) = @_;
	return "SELECT string_agg(v, ' ') FROM pooler.query_all(\$\$SELECT current_setting('$name', true)\$\$) AS r(n name, v text)";
}
my $pid = q{SELECT p FROM pooler.query('dn1', 'SELECT pg_backend_pid()') AS r(p int)};
my $counted = 'SELECT acquire_conn_from_hashtab, acquire_conn_from_hashtab_and_set FROM pooler.stats';

# How many of the connections lent meanwhile were idle, and how many of these were set.
sub counts
{
	my ($code) = @_;
	my @before = split /\|/, value($coord, $counted);
	$code->();
	my @after = split /\|/, value($coord, $counted);
	return join ' ', map { $after[$_] - $before[$_] } 0, 1;
}

# What a session finds on the two nodes' idle connections: none is being reset or opened.
sub on_idle
{
	my ($s, $sql) = @_;
	wait_for('idle connections', sub { value($coord, 'SELECT sum(idle) >= 4 AND sum(idle) = sum(total) FROM pooler.pools') eq 't' });
	return $s->ask($sql);
}

# On every connection.
my $s = session($coord);
is(counts(sub { on_idle($s, everywhere('work_mem')) for 1 .. 3 }), '6 0', 'without parameters nothing is set');
$s->ask(q{SELECT pooler.set_param('work_mem', '5MB'); SELECT pooler.set_param('search_path', 'mine, public')});
is(counts(sub { is(on_idle($s, everywhere('work_mem')), '5MB 5MB', 'set on all nodes') for 1 .. 3 }), '6 6',
	'... at each acquire, counted once for each connection');
is($s->ask('SHOW work_mem'), '4MB', '... not here');
is(value($coord, everywhere('work_mem')), '4MB 4MB', '... not for other sessions');
my @others = map { session($coord) } 1 .. 4;
my %pids;
for my $other (@others)
{
	$pids{ $s->ask($pid) }++;
	is($s->ask(setting('search_path')), 'mine, public', 'set on this connection too');
	$other->ask("BEGIN; $pid");
}
cmp_ok(scalar(keys %pids), '>=', 2, '... they were different ones, new ones among them');
$_->quit() for @others;
is($s->ask(q{SELECT v FROM pooler.query('dn2', 'SELECT v FROM t') AS r(v text)}), 'mine', 'search_path is in effect');

# Outside the transaction, and for borrowers of the C interface.
$s->ask(q{CREATE EXTENSION polarx_pooler_example; SELECT pooler.set_param('TimeZone', 'Asia/Tokyo')});
my $borrowed = q{SELECT before, really FROM example_parameters('dn1', 'SELECT 1') WHERE name = 'TimeZone'};
is($s->ask($borrowed), 'Asia/Tokyo|Asia/Tokyo', 'a borrowed connection: set, and libpq knows');
is($s->ask("BEGIN; SELECT pooler.set_param('TimeZone', 'Asia/Seoul', true); $borrowed; COMMIT"), "\nAsia/Tokyo|Asia/Tokyo",
	'... local ones are not for it');
$s->ask(q{SELECT pooler.exec_autocommit('dn2', 'CREATE TABLE auto AS SELECT 1')});
is(value($dn{dn2}, q{SELECT relnamespace::regnamespace FROM pg_class WHERE relname = 'auto'}), 'mine', 'exec_autocommit has them');
$s->ask(q{BEGIN; SELECT pooler.set_param('search_path', 'theirs', true);
	SELECT pooler.exec_autocommit('dn2', 'CREATE TABLE auto2 AS SELECT 1'); COMMIT});
is(value($dn{dn2}, q{SELECT relnamespace::regnamespace FROM pg_class WHERE relname = 'auto2'}), 'theirs', '... local ones too');

# Local ones: to the end of the transaction, with savepoints, whenever its work on a node begins.
$s->ask('SELECT pooler.reset_params()');
is($s->ask(everywhere('work_mem')), '4MB 4MB', 'reset_params: forgotten');
$s->ask(q{SELECT pooler.set_param('work_mem', '5MB')});
my $local = sub { return "SELECT pooler.set_param('work_mem', '$_[0]', true)" };
is($s->ask('BEGIN; ' . $local->('6MB') . ';' . everywhere('work_mem')), "\n6MB 6MB", 'local: from the first statement on');
is($s->ask('COMMIT; ' . everywhere('work_mem')), '5MB 5MB', '... to the end of the transaction');
is($s->ask('BEGIN; ' . setting('work_mem') . ';' . $local->('7MB') . ';' . everywhere('work_mem')), "5MB\n\n7MB 7MB",
	'where work has begun, and where it begins later');
is($s->ask('SAVEPOINT a; ' . $local->('8MB') . ';' . everywhere('work_mem')), "\n8MB 8MB", 'in a subtransaction');
is($s->ask('ROLLBACK TO a; ' . everywhere('work_mem')), '7MB 7MB', '... rolled back with it');
is($s->ask($local->('9MB') . '; RELEASE a; ' . everywhere('work_mem')), "\n9MB 9MB", '... or kept with it');
is($s->ask('ROLLBACK; ' . everywhere('work_mem')), '5MB 5MB', '... to the end of the transaction');
is($s->ask('BEGIN; SAVEPOINT a; ' . $local->('6MB') . ';' . setting('work_mem') . '; ROLLBACK TO a;' . everywhere('work_mem')),
	"\n6MB\n5MB 5MB", 'work that begins in a subtransaction which is rolled back');
is($s->ask(q{SELECT pooler.set_param('work_mem', '10MB'); COMMIT; } . everywhere('work_mem')), "\n10MB 10MB",
	'one that is not local stays');
is($s->ask(q{BEGIN; SELECT pooler.set_param('work_mem', '11MB'); ROLLBACK; } . everywhere('work_mem')), "\n10MB 10MB",
	'... unless the transaction is rolled back');
is($s->ask('BEGIN; SELECT pooler.reset_params(); ' . everywhere('work_mem') . '; ROLLBACK;' . everywhere('work_mem')),
	"\n4MB 4MB\n10MB 10MB", 'reset_params is undone likewise');
$s->ask(q{DO $$BEGIN
	BEGIN
		PERFORM pooler.set_param('work_mem', '12MB');
		PERFORM 1/0;
	EXCEPTION WHEN division_by_zero THEN NULL;
	END;
	PERFORM pooler.set_param('my.block', 'left');
END$$});
is($s->ask(everywhere('work_mem') . ';' . setting('my.block')), "10MB 10MB\nleft", 'exception blocks are subtransactions');

# Any text.
my $odd = q{it's; "odd" \\ $1 %s {},=--/* end};
(my $quoted = $odd) =~ s/'/''/g;
$s->ask("SELECT pooler.set_param('my.odd', '$quoted')");
is($s->ask(everywhere('my.odd')), "$odd $odd", 'quotes and semicolons are intact');
$s->ask(q{SELECT pooler.set_param('my.long' || i, repeat(chr(64 + i) || ''';', 21846)) FROM generate_series(1, 20) i});
my $long = q{SELECT string_agg(d, ' ') FROM pooler.query_all($$SELECT md5(string_agg(current_setting('my.long' || i), '' ORDER BY i))
	FROM generate_series(1, 20) i$$) AS r(n name, d text)};
my $md5 = value($coord, q{SELECT md5(string_agg(repeat(chr(64 + i) || ''';', 21846), '' ORDER BY i)) FROM generate_series(1, 20) i});
is($s->ask($long), "$md5 $md5", '... and twenty values of 64 kB');
$s->ask('SELECT pooler.reset_params(); BEGIN; SELECT pooler.exec_all(\'SELECT 1\')');
$s->ask(q{SELECT pooler.set_param('my.long' || i, repeat(chr(64 + i) || ''';', 21846), true) FROM generate_series(1, 20) i});
is($s->ask("$long; COMMIT; SELECT pooler.reset_params()"), "$md5 $md5\n", '... local as well');

# A bad one.
my $remembered = sub { return $s->ask(everywhere('work_mem') . ';' . everywhere('deadlock_timeout')) };
$s->ask(q{SELECT pooler.set_param('work_mem', '5MB')});
like($s->refused(q{SELECT pooler.set_param('work_mem', 'much')}), qr/ERROR:  22023: .*"work_mem"/, 'a bad value');
like($s->refused(q{SELECT pooler.set_param('work_men', '1MB')}), qr/ERROR:  42704: .*"work_men"/, 'a bad name');
like($s->refused("SELECT pooler.set_param('$_', 'postgres')"), qr/ERROR:  0A000: .*"$_"(?s:.*)user mapping/, "$_ is refused")
  for qw(role session_authorization);
is($remembered->(), "5MB 5MB\n1s 1s", '... are not remembered');
value($coord, sprintf q{ALTER USER MAPPING FOR "%s" SERVER %s OPTIONS (SET user 'plain')}, me(), $_) for qw(dn1 dn2);
$s->ask('BEGIN; ' . everywhere('work_mem'));
like($s->refused(q{SELECT pooler.set_param('deadlock_timeout', '2s')}),
	qr/ERROR:  42501: .*"deadlock_timeout"(?s:.*)datanode "dn[12]"/, 'what only the datanode refuses: at once where work is under way');
$s->ask('ROLLBACK');
is($remembered->(), "5MB 5MB\n1s 1s", '... and not remembered');
my $same = $s->ask($pid);
$s->ask(q{SELECT pooler.set_param('deadlock_timeout', '2s')});
my $error = $s->refused(everywhere('work_mem'));
like($error, qr/ERROR:  42501: (?s:.*)"deadlock_timeout" of this session on datanode "dn[12]"/, '... or when a connection is acquired: CONTEXT tells');
is(value($coord, 'SELECT sum(leased), sum(closed_error) FROM pooler.pools'), '0|0', '... which is given back');
like($s->refused(setting('work_mem')), qr/42501/, '... every time');
like($s->refused(q{SELECT pooler.exec_autocommit('dn1', 'SELECT 1')}), qr/42501/, '... for whatever use');
like($s->refused($borrowed), qr/42501/, '... and borrower');
like($s->ask("SELECT pooler.reset_params(); $pid"), qr/^\n\d+$/, '... until it is forgotten');
is(value($dn{dn1}, "SELECT count(*) FROM pg_stat_activity WHERE pid = $same"), '1', '... the connection has lived through that');
is(value($coord, 'SELECT sum(leased), sum(closed_error) FROM pooler.pools'), '0|0', '... none was closed');
$s->ask(q{BEGIN; SELECT pooler.set_param('deadlock_timeout', '2s', true)});
like($s->refused(setting('work_mem')), qr/ERROR:  42501: (?s:.*)local parameter "deadlock_timeout" of this session on datanode "dn1"/,
	'a local one that the datanode refuses when work begins');
$s->ask('ROLLBACK');
is($s->ask(setting('work_mem')), '4MB', '... is gone with the transaction');
value($coord, sprintf q{ALTER USER MAPPING FOR "%s" SERVER %s OPTIONS (SET user '%s')}, me(), $_, me()) for qw(dn1 dn2);

# Each role has its own.
value($coord, 'CREATE ROLE app LOGIN; CREATE ROLE owner LOGIN; GRANT owner TO app');
for my $role (qw(app owner))
{
	add_mapping($coord, $role, 'dn1', user => me(), password_required => 'false');
}
value($coord, 'GRANT CREATE ON SCHEMA public TO owner');
value($coord, q{SET ROLE owner; CREATE FUNCTION public.definer() RETURNS text SECURITY DEFINER LANGUAGE sql AS
	$f$ SELECT v FROM pooler.query('dn1', 'SELECT v FROM theirs.t') AS r(v text)
	    UNION ALL SELECT v FROM pooler.query('dn1', $$SELECT current_setting('search_path')$$) AS r(v text) OFFSET 1 $f$});
my $app = session($coord, user => 'app');
$app->ask(q{SELECT pooler.set_param('search_path', 'mine')});
is($app->ask(setting('search_path')), 'mine', 'a plain role may set parameters');
is($app->ask('SELECT public.definer()'), '"$user", public', 'a SECURITY DEFINER function of another role does not get its search_path');
is($app->ask(q{BEGIN; SELECT pooler.set_param('search_path', 'mine', true); SELECT public.definer(); COMMIT}), "\n\"\$user\", public",
	'... nor a local one');
is($app->ask(q{SET ROLE owner; SELECT pooler.set_param('search_path', 'theirs'); } . setting('search_path')), "\ntheirs",
	'another current role has its own');
is($app->ask('RESET ROLE; ' . setting('search_path')), 'mine', '... and leaves the first one\'s');
is($app->ask('SET ROLE owner; SELECT pooler.reset_params(); RESET ROLE; ' . setting('search_path')), "\nmine",
	'... also when it resets');
$app->quit();

# Connections that the session keeps.
$s->ask('SET pooler.persistent_datanode_connections = on');
$same = $s->ask($pid);
my $kept = sub { is($s->ask(setting('work_mem') . "; $pid"), "$_[0]\n$same", $_[1]) };
$s->ask(q{SELECT pooler.set_param('work_mem', '5MB')});
$kept->('5MB', 'a kept connection is brought up to date');
is(counts(sub { $kept->('5MB', '... once') }), '0 0', '... without being lent again');
$s->ask(q{BEGIN; SELECT pooler.exec('dn1', 'SELECT 1'); SELECT pooler.set_param('work_mem', '6MB'); ROLLBACK});
$kept->('5MB', 'what was set in a transaction that is rolled back');
$s->ask(q{BEGIN; SELECT pooler.exec('dn1', 'SELECT 1'); SELECT pooler.set_param('work_mem', '7MB'); COMMIT});
$kept->('7MB', '... or committed');
$s->ask(q{BEGIN; SELECT pooler.set_param('work_mem', '8MB'); SELECT pooler.exec('dn1', 'SELECT 1'); ROLLBACK});
$kept->('7MB', 'set on it in front of a transaction that is rolled back');
$s->ask(q{BEGIN; SAVEPOINT a; SELECT pooler.exec('dn1', 'SELECT 1'); SELECT pooler.reset_params(); ROLLBACK TO a; COMMIT});
$kept->('7MB', 'reset in a subtransaction that is rolled back');
$s->ask('SELECT pooler.reset_params()');
$kept->('4MB', 'reset_params: reset on it');
$s->ask(q{SELECT pooler.set_param('work_mem', '9MB')});
$kept->('9MB', 'set once more');
is(value($coord, q{SELECT leased FROM pooler.pools WHERE node = 'dn1'}), '1', 'it is kept');
$s->ask('DISCARD ALL');
wait_until($coord, 'SELECT sum(leased) FROM pooler.pools', '0', 'DISCARD ALL gives it back');
is($s->ask(setting('work_mem')), '4MB', '... and forgets the parameters');

# Whatever happens, datanodes have what the coordinator would have by SET, SET LOCAL and RESET: random
# steps, with and without connections that are kept.
my @random;
sub random_step
{
	my ($in_block, $savepoints) = @_;
	my $name = (qw(work_mem maintenance_work_mem))[ rand 2 ];
	my $value = 1024 + int rand 1000;
	my $savepoint = @$savepoints ? int rand @$savepoints : 0;
	my @possible = ([ "SET $name = $value; SELECT pooler.set_param('$name', '$value')" ],
		[ 'RESET work_mem; RESET maintenance_work_mem; SELECT pooler.reset_params()' ]);
	push @possible, [ 'BEGIN', 1 ] unless $in_block;
	push @possible, [ "SET LOCAL $name = $value; SELECT pooler.set_param('$name', '$value', true)" ],
	  [ 'SAVEPOINT p' . @random, 1, @$savepoints, 'p' . @random ], [ 'COMMIT', 0 ], [ 'ROLLBACK', 0 ]
	  if $in_block;
	push @possible, [ "RELEASE $savepoints->[$savepoint]", 1, @$savepoints[ 0 .. $savepoint - 1 ] ],
	  [ "ROLLBACK TO $savepoints->[$savepoint]", 1, @$savepoints[ 0 .. $savepoint ] ]
	  if @$savepoints;
	my ($sql, @after) = @{ $possible[ rand @possible ] };
	push @random, $sql;
	return ($sql, @after ? (shift @after, [@after]) : ($in_block, $savepoints));
}

my $seed = time;
srand $seed;
for my $keep (qw(off on))
{
	my ($both, $differ, $in_block, $savepoints) = (q{current_setting('work_mem') || ' ' || current_setting('maintenance_work_mem')}, 0, 0, []);
	@random = ();
	$s->ask("DISCARD ALL; SET pooler.persistent_datanode_connections = $keep");
	for my $step (1 .. 300)
	{
		last if $differ;
		(my $sql, $in_block, $savepoints) = random_step($in_block, $savepoints);
		$s->ask($sql);
		next if rand > 0.4;
		my $node = (qw(dn1 dn1 dn2))[ rand 3 ];
		push @random, "-- $node";
		$differ = $s->ask("SELECT v <> $both FROM pooler.query('$node', \$\$SELECT $both\$\$) AS r(v text)") ne 'f';
	}
	ok(!$differ, "random steps, persistent_datanode_connections $keep") or diag "seed $seed", join "\n", @random;
	$s->ask('ROLLBACK') if $in_block;
}
$s->ask('DISCARD ALL');

# A datanode that does not answer: stops the backend of the connection that is lent next on dn1.
sub stop_next
{
	my $next = $s->ask($pid);
	wait_until($coord, "SELECT state FROM pooler.connections WHERE remote_pid = $next", 'idle', 'a connection is given back');
	kill 'STOP', $next;
	return $next;
}
set_conf($coord, 'pooler.pooler_dn_set_timeout' => '1s');
wait_until($coord, 'SHOW pooler.pooler_dn_set_timeout', '1s', 'a short pooler_dn_set_timeout');
$s->ask(q{SELECT pooler.set_param('work_mem', '5MB')});
$same = stop_next();
within(10, 'it ends after that', sub { $error = $s->refused(setting('work_mem')) });
like($error, qr/ERROR:  08006: .*"dn1".*pooler_dn_set_timeout \(1 s\)(?s:.*)"work_mem"/, 'a backend that does not answer: 08006, node, time-out, parameter');
isnt($s->ask($pid), $same, '... another connection works');
kill 'CONT', $same;
wait_until($dn{dn1}, "SELECT count(*) FROM pg_stat_activity WHERE pid = $same", '0', '... that one is closed');
is(value($coord, q{SELECT closed_error FROM pooler.pools WHERE node = 'dn1'}), '1', '... and counted');
set_conf($coord, 'pooler.pooler_dn_set_timeout' => '60s');
wait_until($coord, 'SHOW pooler.pooler_dn_set_timeout', '1min', 'a long one');
$same = stop_next();
$s->tell(setting('work_mem'));
wait_until($coord, "SELECT count(*) FROM pooler.connections WHERE session_pid = " . $s->pid, '1', 'it is being set');
within(10, 'a cancel ends the wait', sub {
	value($coord, 'SELECT pg_cancel_backend(' . $s->pid . ')');
	like(($s->hear())[1], qr/57014(?s:.*)"work_mem" of this session on datanode "dn1"/, 'cancelled: 57014, and what it waited for') });
kill 'CONT', $same;
is($s->ask(setting('work_mem')), '5MB', '... and goes on');

$s->quit();
finish();
