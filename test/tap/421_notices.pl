# What datanodes say beside their answers: notices are whole and never hold a session up, errors show
# where in the remote text they are, and no context carries a whole long statement.

use strict;
use warnings;
use PolarxPooler;
use IO::Socket::UNIX;
use List::Util qw(sum0);
use Test::More;
use Time::HiRes qw(usleep);

my $coord = start_coordinator();
my %dn = map { $_ => start_datanode($_) } qw(dn1 dn2);
for my $name (sort keys %dn)
{
	add_node($coord, $name, $dn{$name});
	value($dn{$name}, q{
		CREATE FUNCTION tell() RETURNS int LANGUAGE plpgsql AS $$ BEGIN
			RAISE WARNING 'the message' USING DETAIL = 'the detail', HINT = 'the hint', ERRCODE = '01ABC';
			RETURN 1; END $$;
		CREATE FUNCTION flood(n bigint) RETURNS int LANGUAGE plpgsql AS $$ BEGIN
			FOR i IN 1 .. n LOOP RAISE NOTICE 'notice % %', i, repeat('x', 200); END LOOP; RETURN 1; END $$;
		CREATE FUNCTION wrong() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN (SELECT nothing FROM pg_class); END $$;
		CREATE TABLE t (id int);
		CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM flood(100000000); RETURN NULL; END $$;
		CREATE CONSTRAINT TRIGGER late AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION late()});
}

# Whole.
my ($code, $out, $err) = run_sql($coord, q{\set SHOW_CONTEXT always
SELECT pooler.exec('dn1', 'SELECT tell()')});
like($err, qr/WARNING:  01ABC: the message\nDETAIL:  the detail\nHINT:  the hint\nCONTEXT:  PL\/pgSQL function tell\(\) line 2 at RAISE\nmessage of datanode "dn1"/,
	'a warning has its SQLSTATE, DETAIL, HINT and CONTEXT');
($code, $out, $err) = run_sql($coord, q{SELECT * FROM pooler.query('dn1', 'SELECT flood(300)') AS r(n int)});
is(scalar(() = $err =~ /NOTICE:  00000: notice \d+ x/g), 300, 'all of 300 notices come');
is(join(' ', $err =~ /NOTICE:  00000: notice (\d+) x/g), join(' ', 1 .. 300), '... in their order');

# More than may be kept while one piece of the answer is read: libpq reads as much at once as its longest row took.
my $s = session($coord);
my $gate = session($dn{dn1});
$gate->ask('SELECT pg_advisory_lock(7)');
$s->tell(q{SELECT length(t) FROM pooler.query('dn1', $$SELECT repeat('x', 8000000)
	UNION ALL SELECT (SELECT flood(50000) FROM pg_advisory_xact_lock(7))::text$$) AS r(t text)});
wait_until($dn{dn1}, q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory'}, '1', 'a long row has been sent');
kill 'STOP', $s->pid;
$gate->ask('SELECT pg_advisory_unlock(7)');
wait_until($dn{dn1}, q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'ClientWrite'}, '1', 'notices fill the way');
kill 'CONT', $s->pid;
($out, $err) = $s->hear();
my @kept = $err =~ /NOTICE:  00000: notice (\d+) x/g;
my @left = $err =~ /WARNING:  01000: (\d+) messages of datanode "dn1" were left out/g;
cmp_ok(sum0(@left), '>', 0, 'some notices are left out');
is(@kept + sum0(@left), 50000, '... and counted');
is(join(' ', @kept), join(' ', sort { $a <=> $b } @kept), '... the others come in their order');
$gate->quit();

# Where an error is.
fails_with($coord, q{SELECT pooler.exec('dn1', 'SELECT 1, nothing FROM t')}, '42703',
	qr/LINE 1: SELECT 1, nothing FROM t\n {18}\^(?s:.*)statement on datanode "dn1": SELECT 1, nothing/,
	'an error shows its place in the remote text');
fails_with($coord, q{SELECT pooler.exec('dn1', 'SELECT wrong()')}, '42703',
	qr/LINE 1: \(SELECT nothing FROM pg_class\)\n {16}\^(?s:.*)QUERY:  \(SELECT nothing/, '... or in the text of a function there');
fails_with($coord, q{BEGIN; SAVEPOINT a; SELECT pooler.exec('dn1', 'SELECT nothing')}, '42703', qr/LINE 1: SELECT nothing\n {15}\^/,
	'... also in a savepoint');

# A long statement.
for my $call (
	[ '22012', q{pooler.exec('dn1', 'SELECT 1/0 --' || repeat('é', 1000000))} ],
	[ '42703', q{pooler.exec('dn1', 'SELECT nothing --' || repeat('é', 1000000))} ],
	[ '22P02', q{(SELECT n FROM pooler.query('dn1', 'SELECT $$x$$ --' || repeat('é', 1000000)) AS r(n int))} ],
	[ '42804', q{(SELECT n FROM pooler.query('dn1', 'SELECT 1, 2 --' || repeat('é', 1000000)) AS r(n int))} ],
	[ '2D000', q{pooler.exec('dn1', 'COMMIT --' || repeat('é', 1000000))} ])
{
	my $text = fails_with($coord, "SELECT $call->[1]", $call->[0], qr/CONTEXT:/, "$call->[0] of a statement of 2 MB");
	cmp_ok(length $text, '<', 4000, '... names its beginning alone');
}

# Endless notices, to a client that reads them, and to one that does not.
my %endless = (
	'exec' => q{SELECT pooler.exec('dn1', 'SELECT flood(100000000)')},
	'query' => q{SELECT * FROM pooler.query('dn1', 'SELECT flood(100000000)') AS r(n int)},
	'query_all' => q{SELECT * FROM pooler.query_all('SELECT flood(100000000)') AS r(node name, n int)},
	'exec_all' => q{SELECT * FROM pooler.exec_all('SELECT flood(100000000)')},
	'exec_autocommit' => q{SELECT pooler.exec_autocommit('dn1', 'SELECT flood(100000000)')},
	'exec_all_autocommit' => q{SELECT * FROM pooler.exec_all_autocommit('SELECT flood(100000000)')},
	'COMMIT' => q{SELECT pooler.exec('dn1', 'INSERT INTO t VALUES (1)')});
my $busy = q{SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND backend_type = 'client backend' AND pid <> pg_backend_pid()};

sub nothing_runs
{
	my ($name) = @_;
	wait_until($dn{$_}, $busy, '0', "$name: nothing runs on at $_") for sort keys %dn;
	return;
}

for my $name (sort keys %endless)
{
	if ($name ne 'COMMIT')    # which no statement_timeout bounds, on any server
	{
		$s->ask(q{SET statement_timeout = '500ms'});
		within(8, "$name: statement_timeout", sub { like($s->refused($endless{$name}), qr/57014.*statement timeout/, '... is the error') });
		$s->ask('RESET statement_timeout');
		nothing_runs($name);
	}
	$s->tell($endless{$name});
	wait_until($dn{dn1}, $busy, '1', '... again');
	within(8, "$name: pg_cancel_backend", sub {
			value($coord, 'SELECT pg_cancel_backend(' . $s->pid . ')');
			like(($s->hear())[1], qr/57014|40003|08007/, '... is the error');
		});
	nothing_runs($name);
	is($s->ask(q{SELECT count(*) FROM pooler.exec_all('SELECT 1')}), '2', '... the session works on');
}

# A client that does not read: it speaks the protocol of PostgreSQL, and no more than it must.
sub deaf
{
	my ($sql) = @_;
	my $socket = IO::Socket::UNIX->new(Peer => $coord->host . '/.s.PGSQL.' . $coord->port) or die "connect: $!";
	my $startup = pack('N', 196608) . 'user' . "\0" . me() . "\0database\0postgres\0client_min_messages\0notice\0\0";
	syswrite $socket, pack('N', 4 + length $startup) . $startup;
	my ($got, $bytes) = ('');
	until ($got =~ /Z\0\0\0\x05I\z/) { sysread $socket, $bytes, 4096 or die 'hung up'; $got .= $bytes; }
	my ($key) = $got =~ /K\0\0\0\x0c(.{4})/s or die 'no key';
	my $pid = unpack 'N', $key;
	syswrite $socket, 'Q' . pack('N', 5 + length $sql) . $sql . "\0";
	return ($socket, $pid);
}

for my $name (sort keys %endless)
{
	my ($socket, $pid) = deaf($endless{$name});
	wait_until($coord, "SELECT wait_event FROM pg_stat_activity WHERE pid = $pid", 'ClientWrite', "$name: nobody reads");
	within(8, '... pg_terminate_backend', sub { value($coord, "SELECT pg_terminate_backend($pid, 5000)") });
	ok(ended($pid), '... ends it');
	nothing_runs("$name, deaf");
}
my ($socket, $pid) = deaf($endless{query});
wait_until($coord, "SELECT wait_event FROM pg_stat_activity WHERE pid = $pid", 'ClientWrite', 'nobody reads');
within(8, 'terminate', sub { is(value($coord, q{SELECT pooler.terminate('dn1')}), '1', '... knows it') });
wait_for('its end', sub { ended($pid) });
nothing_runs('terminate');
my @deaf = map { [ deaf($endless{$_}) ] } qw(exec query_all COMMIT);
wait_until($coord, "SELECT wait_event FROM pg_stat_activity WHERE pid = $_->[1]", 'ClientWrite', 'nobody reads') for @deaf;
$s->quit();
within(8, 'a fast shutdown', sub { $coord->stop('fast') });
nothing_runs('shutdown');
$coord->start();
finish();
