# Sessions that misuse what they get: errors between acquire and use, leases used when they are gone,
# too many nodes, requests that the protocol forbids.

use strict;
use warnings;
use PolarxPooler;
use Test::More;

my $kNodes = 300;    # more than descriptors in one message
my $coord = start_coordinator(conf => <<'END');
pooler.min_pool_size = 0
pooler.min_free_size = 0
pooler.pooler_dn_set_timeout = 60s
pooler.pooler_connect_timeout = 60s
END
my $dn = start_datanode('dn1', conf => 'max_connections = ' . ($kNodes + 20) . "\n");
add_node($coord, 'dn1', $dn, server => { max_pool_size => 1 });
add_node($coord, 'dn2', $dn, server => { max_pool_size => 1 });
value($dn, 'CREATE TABLE t (n int)');
value($coord, 'CREATE EXTENSION polarx_pooler_example');
my $one = q{SELECT pooler.exec('dn1', 'SELECT 1')};
my $path = value($coord, 'SELECT socket FROM pooler.workers');
my $worker = worker_pid($coord);
my ($watch, $next, $s) = map { session($coord) } 1 .. 3;

# Nothing is held, nothing runs, and the only connection serves another session.
sub settled
{
	my ($name, $node) = @_;
	my ($books, $remote) = ('', '');
	my $came = eval {
		wait_for($name, sub {
				$books = $watch->ask('SELECT (SELECT sum(total - idle - parked) FROM pooler.pools),
					(SELECT sum(waiting) FROM pooler.pools), (SELECT count(*) FROM pooler.connections
					WHERE session_pid IS NOT NULL AND state <> \'parked\')');
				return $books eq '0|0|0';
			}, 10);
		wait_for($name, sub { ($remote = backends($dn, "state <> 'idle'")) eq '0' }, 10);
		$next->ask($one);
	};
	ok($came, $name) or diag "books: $books\nbusy on the datanode: $remote\n$@";
	return;
}

# Errors between acquire and use, of the transaction and of subtransactions.
$s->ask($one);
for my $state (qw(idle transaction failed copy pipeline busy))
{
	my $leave = "PERFORM example_leave('dn1', '$state', 3)";
	like($s->refused("DO \$\$ BEGIN $leave; RAISE EXCEPTION 'oops'; END \$\$"), qr/P0001.*oops/, "an error with a lease left $state");
	settled('... gives it back');
	is($s->ask("DO \$\$ BEGIN BEGIN $leave; PERFORM 1 / 0; EXCEPTION WHEN division_by_zero THEN NULL; END;
		PERFORM pooler.exec('dn1', 'SELECT 1'); END \$\$; $one"), 'SELECT 1', "... one that is caught does so too: $state");
	settled('... at once');
}
for my $ending ('ROLLBACK', 'SELECT 1/0', 'COMMIT')
{
	$s->ask(q{BEGIN; SELECT misuse_copy_in('dn1', 't')});
	$s->tell($ending);
	$s->hear();
	$s->ask('ROLLBACK') if $ending =~ /SELECT/;
	settled("COPY left in the middle of a row, and $ending");
}
is(value($dn, 'SELECT count(*) FROM t'), '0', '... none of its rows is there');
like($s->refused(q{SELECT pooler.query('dn1', 'SELECT 1/0')}), qr/ERROR/, 'an error of the remote statement');
settled('... gives the lease back');

# A lease that is gone.
for my $call (qw(connection node host port cancel))
{
	like($s->refused("SELECT misuse_after_release('dn1', '$call')"), qr/ERROR:  55000: .*released/, "$call after release: an error");
	settled('... and no harm');
}
for my $call (qw(release close))
{
	is($s->ask("SELECT misuse_after_release('dn1', '$call')"), 'done', "a second release ($call) does nothing");
	settled('... and no harm');
}

# More nodes in one request than descriptors fit into one message.
$watch->ask(join ';', map { sprintf(q{CREATE SERVER many%03d FOREIGN DATA WRAPPER polarx_pooler OPTIONS (host '127.0.0.1', port '%d',
	dbname 'postgres'); CREATE USER MAPPING FOR CURRENT_USER SERVER many%03d OPTIONS (user '%s')}, $_, $dn->port, $_, me()) } 3 .. $kNodes);
my $all = q{SELECT count(*), min(command_tag), max(command_tag) FROM pooler.exec_all('%s')};
is($s->ask(sprintf $all, 'SELECT 1'), "$kNodes|SELECT 1|SELECT 1", "$kNodes nodes in one request");
settled('... all given back');
is($s->ask(sprintf $all, 'SELECT 1'), "$kNodes|SELECT 1|SELECT 1", '... at once from idle connections');
is(backends($dn), $kNodes, '... the same ones');
$s->ask('BEGIN; ' . sprintf $all, 'SELECT 1');
is($watch->ask('SELECT leases FROM pooler.sessions WHERE pid = ' . $s->pid), $kNodes, '... held, says the view');
like($s->refused('SELECT 1/0'), qr/22012/, '... an error');
$s->ask('ROLLBACK');
settled('... gives all back');
$s->tell(sprintf $all, 'SELECT pg_sleep(60)');
wait_for('statements everywhere', sub { backends($dn, q{state = 'active'}) eq $kNodes });
$watch->ask('SELECT pg_terminate_backend(' . $s->pid . ')');
settled("a session that is ended while its statements run on $kNodes nodes");
$s = session($coord);
is($s->ask(sprintf $all, 'SELECT 1'), "$kNodes|SELECT 1|SELECT 1", '... all of them work on');
my $holder = session($coord);
$watch->ask(q{ALTER SERVER many150 OPTIONS (ADD max_pool_size '1')});
$holder->ask(q{BEGIN; SELECT pooler.exec('many150', 'SELECT 1')});
like($s->refused(sprintf $all, 'SELECT 1'), qr/53300(?s:.*)"many150" is full/, 'one of them is taken: none is lent');
is($watch->ask('SELECT sum(leased) FROM pooler.pools'), '1', '... but that one');
$holder->quit();
settled('... and it comes back');

# By hand: what the protocol forbids ends that connection alone, and what it had lent comes back.
sub bytes { return q{decode('} . unpack('H*', $_[0]) . q{', 'hex')}; }
sub frame { my ($code, $payload) = @_; return pack('NN', 8 + length $payload, 0x504C5801 + $code) . $payload; }
my ($node, $role) = split /\|/, value($coord, q{SELECT s.oid, u.umuser FROM pg_foreign_server s
	JOIN pg_user_mappings u ON u.srvid = s.oid WHERE s.srvname = 'dn1'});
sub acquire { return frame(1, pack('NNCN', 7, 60000, 0, scalar @_) . join('', map { pack 'NN', $_, $role } @_)); }
sub released { return frame(3, pack('N', scalar @_) . join('', map { pack 'Q>CN', $_, 0, 0 } @_)); }
sub speak { return 'SELECT misuse_send(' . bytes($_[0]) . ')'; }
my $hear = q{SELECT encode(substr(f, 5, 4), 'hex'), CASE WHEN length(f) >= 24 THEN encode(substr(f, 17, 8), 'hex') END
	FROM (SELECT misuse_receive() OFFSET 0) r(f)};

# A session with a lease acquired by hand: (session, its number).
sub by_hand
{
	my $session = session($coord);
	$session->ask("SELECT misuse_attach('$path')");
	$session->ask(speak(acquire($node)));
	my ($code, $lease) = split /\|/, $session->ask($hear);
	die "not granted: $code" if $code ne '504c5882';
	return ($session, hex $lease);
}

my ($honest, $first) = by_hand();
is($watch->ask('SELECT sum(leased) FROM pooler.pools'), '1', 'a lease by hand');
$honest->ask(speak(released($first)));
settled('... released by hand');
my %forbidden = (
	'a lease released twice' => sub { return released($_[0]) . released($_[0]) },
	'a lease released twice in one message' => sub { return released($_[0], $_[0]) },
	'a lease released that never was' => sub { return released($_[0] + 1000) },
	'a node named twice' => sub { return acquire($node, $node) },
	'no node' => sub { return acquire() },
	'more nodes than are allowed' => sub { return acquire(1 .. 4097) },
	'a request while one waits' => sub { return acquire($node) . acquire($node) });
for my $name (sort keys %forbidden)
{
	my ($session, $lease) = by_hand();
	my $offset = log_offset($coord);
	my $mine = $session->pid;
	$session->ask(speak($forbidden{$name}->($lease)));
	is($session->ask($hear), '|', "$name: the pooler hangs up");
	wait_log($coord, qr/process $mine broke the protocol of the pooler and is disconnected/, $offset, '... and says so');
	settled('... and has its connection back');
	is($session->ask($one), 'SELECT 1', '... the session\'s own attachment goes on');
	$session->quit();
}

my ($again) = by_hand();
$again->ask(speak(frame(0, pack 'NQ>', 1, 1)));
like($again->ask($hear), qr/^504c5883/, 'a second attach, to another worker: refused');
is($again->ask($hear), '|', '... and the pooler hangs up');
settled('... and has its connection back');

# Things that are merely void.
my ($odd, $lease) = by_hand();
$odd->ask(speak(frame(4, pack 'Q>N', $lease + 77, 1) . frame(2, pack 'N', 4711) . released($lease)));
settled('a cancel of a lease and a withdrawal of a request that never were');
$odd->ask(speak(acquire($node)));
like($odd->ask($hear), qr/^504c5882\|/, '... the same attachment goes on');
$odd->quit();
settled('... and ends');

# A session that asks and asks and never reads: it is sent away, and in nobody's way.
my ($mute) = by_hand();
my $offset = log_offset($coord);
my $mine = $mute->pid;
$mute->tell("SET statement_timeout = '20s'; " . speak(frame(5, pack 'NC', 1, 2) x 20000));
within(10, 'one that never reads what it asked for', sub { $next->ask(q{SELECT pooler.exec('dn2', 'SELECT 1')}) for 1 .. 5 });
wait_log($coord, qr/process $mine broke the protocol of the pooler and is disconnected/, $offset, '... is disconnected');
$mute->hear();
settled('... and its lease is back');
is($mute->ask($one), 'SELECT 1', '... the session\'s own attachment goes on');
$mute->quit();

is(worker_pid($coord), $worker, 'the pooler worker has lived through all of that');
$_->quit() for $watch, $next, $s, $honest, $again;
finish();
