# pooler.persistent_datanode_connections: off, a connection goes back at the transaction's end; on, the
# session keeps it until it ends, or until a change takes it away.

use strict;
use warnings;
use PolarxParameter;
use PolarxPooler;
use Test::More;

my $coord = start_coordinator(conf => "pooler.min_pool_size = 0\npooler.min_free_size = 0\n");
check_parameter($coord, name => 'pooler.persistent_datanode_connections', boot => 'off', values => [ 'on', 'off' ],
	bad => 'perhaps', context => 'user');
my %dn = map { $_ => start_datanode($_) } qw(dn1 dn2);
# One connection: who asks while it is being reset waits for it.
add_node($coord, $_, $dn{$_}, server => { max_pool_size => 1 }) for sort keys %dn;
value($coord, 'CREATE ROLE keeper LOGIN; CREATE ROLE other LOGIN');
for my $role (qw(keeper other))
{
	add_mapping($coord, $role, $_, user => me(), password_required => 'false') for sort keys %dn;
}

sub pid_on { return "SELECT p FROM pooler.query('$_[0]', 'SELECT pg_backend_pid()') AS r(p int)"; }
my $pid = pid_on('dn1');
my $leased = 'SELECT coalesce(sum(leased), 0) FROM pooler.pools';
my $make = q{SELECT pooler.exec('dn1', 'CREATE TEMP TABLE mine AS SELECT 42 AS i')};
my $look = q{SELECT i FROM pooler.query('dn1', 'SELECT i FROM mine') AS r(i int)};
my $exists = q{SELECT e FROM pooler.query('dn1', $$SELECT to_regclass('pg_temp.mine') IS NOT NULL$$) AS r(e bool)};

sub alive { return value($dn{ $_[1] // 'dn1' }, "SELECT count(*) FROM pg_stat_activity WHERE pid = $_[0]"); }

# A session that keeps a connection with a temporary table: (session, process id).
sub keeper
{
	my (%opt) = @_;
	my $s = session($coord, %opt);
	$s->ask('SET pooler.persistent_datanode_connections = on');
	$s->ask($make);
	return ($s, $s->ask($pid));
}

# Two tests: the session has given the connection back by the end of its next transaction, which does
# nothing there, and the connection is closed; what the session does next works on another one.
sub taken_away
{
	my ($s, $old, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$s->ask('SELECT 1');
	wait_until($dn{dn1}, "SELECT count(*) FROM pg_stat_activity WHERE pid = $old", '0', "$name: closed at the next transaction end");
	is($s->ask($exists), 'f', "... another connection works");
	return;
}

# Off.
my $s = session($coord);
$s->ask("BEGIN; $make");
is(value($coord, $leased), '1', 'off: leased in a transaction');
my $first = $s->ask($pid);
$s->ask('COMMIT');
wait_until($coord, $leased, '0', '... released at its end');
is($s->ask($pid), $first, '... lent again');
is($s->ask($exists), 'f', '... reset: the temporary table is gone');

# On.
$s->ask('SET pooler.persistent_datanode_connections = on');
$s->ask($make);
is($s->ask($pid), $first, "on: the same connection in transaction $_") for 1 .. 10;
is($s->ask($look), '42', '... its temporary table still there');
is(value($coord, $leased), '1', '... it stays leased');
$s->ask(q{BEGIN; SELECT pooler.exec('dn1', 'INSERT INTO mine VALUES (43)'); ROLLBACK});
is($s->ask($look), '42', '... after a rollback too, with what was done undone');
like($s->refused(q{SELECT pooler.exec('dn1', 'SELECT 1/0')}), qr/22012/, 'an error');
is($s->ask($look), '42', '... loses nothing');
is(value($coord, q{SELECT acquired FROM pooler.pools WHERE node = 'dn1'}), '4', 'the pooler has lent it no oftener');

# What has nothing to do with it.
value($coord, 'CREATE ROLE unrelated');
is($s->ask($look), '42', 'after an unrelated CREATE ROLE the temporary table is still there');
$s->ask("BEGIN; $look");
value($coord, 'ALTER ROLE unrelated CREATEDB');
is($s->ask("$look; COMMIT"), '42', '... likewise one during a transaction');
value($coord, 'DROP ROLE unrelated');
$s->ask('SELECT 1');
is($s->ask("$look; $pid"), "42\n$first", '... or before a transaction that does nothing there');
value($coord, q{ALTER SERVER dn2 OPTIONS (ADD keepalives_idle '31')});
is($s->ask("$look; $pid"), "42\n$first", 'a change of another node');
value($coord, q{ALTER SERVER dn1 OPTIONS (SET max_pool_size '2')});
is($s->ask("$look; $pid"), "42\n$first", '... or of what is not of the connection');
value($coord, q{ALTER SERVER dn1 OPTIONS (SET max_pool_size '1')});
is($s->ask("$look; $pid"), "42\n$first", '... likewise');

# Off again, and the session's end.
$s->ask('SET pooler.persistent_datanode_connections = off');
wait_until($coord, $leased, '0', 'turned off: released at the end of that transaction');
is($s->ask("$pid; $exists"), "$first\nf", '... and reset');
$s->ask("BEGIN; $make");
$s->quit();
wait_until($coord, $leased, '0', 'off: a session that ends returns its connection');
is(value($coord, "$pid; $exists"), "$first\nf", '... lent again, reset');
my $kept;
($s, $kept) = keeper();
is($kept, $first, 'on: still the same one');
$s->quit();
wait_until($coord, $leased, '0', '... a session that ends returns its connection');
is(value($coord, "$pid; $exists"), "$first\nf", '... lent again, reset');

# For a role.
value($coord, q{ALTER SERVER dn1 OPTIONS (SET max_pool_size '5')});
value($coord, 'ALTER ROLE keeper SET pooler.persistent_datanode_connections = on');
my $keeper = session($coord, user => 'keeper');
my $other = session($coord, user => 'other');
$_->ask($make) for $keeper, $other;
is($keeper->ask($exists), 't', 'set for a role: its sessions keep');
is($other->ask($exists), 'f', '... those of others do not');
is(value($coord, $leased), '1', '... says the pooler');
$_->quit() for $keeper, $other;
wait_until($coord, $leased, '0', '... until they end');

# Changes take it away at the next transaction end.
($s, $kept) = keeper();
value($coord, q{ALTER SERVER dn1 OPTIONS (ADD keepalives_idle '31')});
taken_away($s, $kept, 'ALTER SERVER');
$s->quit();
($s, $kept) = keeper();
$s->ask("BEGIN; $look");
value($coord, q{ALTER SERVER dn1 OPTIONS (SET keepalives_idle '32')});
is($s->ask("$look; $pid"), "42\n$kept", 'ALTER SERVER during a transaction: that goes on');
$s->ask('COMMIT');
wait_until($dn{dn1}, "SELECT count(*) FROM pg_stat_activity WHERE pid = $kept", '0', '... its end closes the connection');
is($s->ask($exists), 'f', '... another one works');
$s->quit();
($s, $kept) = keeper();
$s->ask(q{ALTER SERVER dn1 OPTIONS (SET keepalives_idle '33')});
taken_away($s, $kept, 'ALTER SERVER by the session itself');
$s->quit();
($s, $kept) = keeper();
value($coord, q{ALTER SERVER dn1 OPTIONS (SET keepalives_idle '34')});
is($s->ask($exists), 'f', 'a change before a transaction that begins with work there: not used any more');
is(alive($kept), '0', '... and closed');
$s->quit();
($s, $kept) = keeper();
value($coord, sprintf q{ALTER USER MAPPING FOR "%s" SERVER dn1 OPTIONS (ADD password 'new')}, me());
taken_away($s, $kept, 'ALTER USER MAPPING');
$s->quit();
($s, $kept) = keeper();
value($coord, q{SELECT pooler.clean('dn1')});
taken_away($s, $kept, 'clean()');
$s->quit();

# A revoked right: also where the transaction does something else.
($keeper, $kept) = keeper(user => 'keeper');
my $second = $keeper->ask(pid_on('dn2'));
value($coord, 'REVOKE USAGE ON FOREIGN SERVER dn1 FROM keeper');
is($keeper->ask(pid_on('dn2')), $second, 'REVOKE USAGE: other nodes\' connections are kept');
wait_until($coord, q{SELECT leased FROM pooler.pools WHERE node = 'dn1' AND leased > 0}, '', '... the node\'s is given back');
is($keeper->ask(pid_on('dn2')), $second, '... the others stay');
like($keeper->refused($pid), qr/42501/, '... the node is refused');
value($coord, 'GRANT USAGE ON FOREIGN SERVER dn1 TO keeper');
is($keeper->ask($exists), 'f', '... until the right is granted again, on a connection that was reset');
$keeper->quit();
($keeper, $kept) = keeper(user => 'keeper');
$keeper->ask('BEGIN; ' . pid_on('dn1'));
value($coord, 'REVOKE USAGE ON FOREIGN SERVER dn1 FROM keeper');
$keeper->ask('COMMIT');
wait_until($coord, q{SELECT leased FROM pooler.pools WHERE node = 'dn1' AND leased > 0}, '', 'REVOKE USAGE during a transaction');
$keeper->quit();

# Lifetime.
($s, $kept) = keeper();
$s->ask("BEGIN; $look");
set_conf($coord, 'pooler.pool_session_max_lifetime' => '1s');
wait_until($coord, "SELECT now() > created_at + interval '3 s' FROM pooler.connections WHERE remote_pid = $kept", 't', 'too old');
is($s->ask("$look; $pid"), "42\n$kept", '... the transaction goes on');
$s->ask('COMMIT');
set_conf($coord, 'pooler.pool_session_max_lifetime' => undef);
taken_away($s, $kept, 'lifetime');
$s->quit();

# The datanode, the pooler worker, the server go away.
($s, $kept) = keeper();
value($dn{dn1}, "SELECT pg_terminate_backend($kept, 10000)");
is($s->ask($exists), 'f', 'a kept connection that the datanode has closed: another one');
$s->quit();
($s, $kept) = keeper();
my $worker = worker_pid($coord);
value($coord, "SELECT pg_terminate_backend($worker, 10000)");
$s->ask('SELECT 1');
is(alive($kept), '0', 'a pooler worker that has ended: the connection is gone when the transaction is over');
worker_pid($coord, undef, $worker);
is($s->ask($exists), 'f', '... another one works');
$s->quit();
($s, $kept) = keeper();
value($coord, 'DROP SERVER dn1 CASCADE');
$s->ask('SELECT 1');
wait_until($dn{dn1}, "SELECT count(*) FROM pg_stat_activity WHERE pid = $kept", '0', 'DROP SERVER: closed at the next transaction end');
$s->quit();

finish();
