# Parked leases and roles: whichever way the current role changes and comes back, no role is ever lent
# what another one has parked, in the same session; and a right that is lost is missed on the next use.

use strict;
use warnings;
use PolarxPooler;
use Test::More;

my $coord = start_coordinator(park => 1, conf => <<'END');
pooler.min_pool_size = 0
pooler.min_free_size = 0
pooler.pool_conn_keepalive = -1
END
my $dn = start_datanode('dn1', roles => { far_a => undef, far_b => undef, far_boss => undef });
value($coord, 'CREATE ROLE b LOGIN; CREATE ROLE a LOGIN IN ROLE b; CREATE ROLE boss LOGIN SUPERUSER');
add_node($coord, 'dn1', $dn);
add_mapping($coord, $_, 'dn1', user => "far_$_", password_required => 'false') for qw(a b);
add_mapping($coord, 'boss', 'dn1', user => 'far_boss');

# Who is at the datanode, with what was left there; and one that leaves something.
my $look = q{SELECT v FROM pooler.query('dn1', 'SELECT session_user || '' '' || current_setting(''work_mem'')') AS r(v text)};
sub leave { return "SELECT v FROM pooler.query('dn1', 'SELECT set_config(''work_mem'', ''$_[0]'', false)') AS r(v text)"; }
my $leave_b = leave('7MB');
value($coord, <<"END");
CREATE FUNCTION look() RETURNS text LANGUAGE sql AS \$\$$look\$\$;
CREATE FUNCTION leave_b() RETURNS text LANGUAGE sql AS \$\$$leave_b\$\$;
CREATE FUNCTION look_definer() RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS \$\$ DECLARE r text; BEGIN r := look(); PERFORM leave_b(); RETURN r; END\$\$;
ALTER FUNCTION look_definer() OWNER TO b;
CREATE FUNCTION look_set() RETURNS text LANGUAGE plpgsql SET role = 'b' AS \$\$ DECLARE r text; BEGIN r := look(); PERFORM leave_b(); RETURN r; END\$\$;
CREATE FUNCTION look_set_config() RETURNS text LANGUAGE plpgsql AS \$\$ DECLARE r text; old text := current_setting('role'); BEGIN
	PERFORM set_config('role', 'b', false); r := look(); PERFORM leave_b(); PERFORM set_config('role', old, false); RETURN r; END\$\$;
CREATE FUNCTION look_caught() RETURNS text LANGUAGE plpgsql AS \$\$ DECLARE r text; BEGIN
	BEGIN PERFORM set_config('role', 'b', false); r := look(); PERFORM leave_b(); RAISE EXCEPTION 'oops'; EXCEPTION WHEN raise_exception THEN NULL; END;
	RETURN r; END\$\$;
END

# --- the ways ---------------------------------------------------------------------------------------
# [ what, statements with role b's look and mark in them, does role a look, too ]; afterwards the session
# is in role a again.
my $as_b = "$look; $leave_b";
my @ways = (
	[ 'SET ROLE, RESET ROLE', "SET ROLE b; $as_b; RESET ROLE" ],
	[ 'SET ROLE, SET ROLE NONE', "SET ROLE b; $as_b; SET ROLE NONE" ],
	[ 'SET ROLE, DISCARD ALL', "SET ROLE b; $as_b; DISCARD ALL" ],
	[ 'SET LOCAL ROLE, COMMIT', "BEGIN; SET LOCAL ROLE b; $as_b; COMMIT" ],
	[ 'SET ROLE, ROLLBACK', "BEGIN; SET ROLE b; $as_b; ROLLBACK" ],
	[ 'SET LOCAL ROLE, ROLLBACK TO', "BEGIN; SAVEPOINT s; SET LOCAL ROLE b; $as_b; ROLLBACK TO s; COMMIT" ],
	[ 'set_config', "SELECT set_config('role', 'b', false) IS NULL; $as_b; SELECT set_config('role', 'none', false) IS NULL" ],
	[ 'set_config of the transaction, COMMIT', "BEGIN; SELECT set_config('role', 'b', true) IS NULL; $as_b; COMMIT" ],
	[ 'set_config, ROLLBACK', "BEGIN; SELECT set_config('role', 'b', false) IS NULL; $as_b; ROLLBACK" ],
	[ 'set_config, ROLLBACK TO', "BEGIN; SAVEPOINT s; SELECT set_config('role', 'b', true) IS NULL; $as_b; ROLLBACK TO s; COMMIT" ],
	[ 'set_config, RELEASE, ROLLBACK', "BEGIN; SAVEPOINT s; SELECT set_config('role', 'b', false) IS NULL; $as_b; RELEASE s; ROLLBACK" ],
	[ 'set_config, an error', "BEGIN; SELECT set_config('role', 'b', false) IS NULL; $as_b; SELECT 1/0; COMMIT" ],
	[ 'a function of the other role', 'SELECT look_definer()' ],
	[ 'a function that sets the role', 'SELECT look_set()' ],
	[ 'a function that calls set_config', 'SELECT look_set_config()' ],
	[ 'a block that is caught', 'SELECT look_caught()' ],
	[ 'a function of the other role in a transaction', "BEGIN; $look; SELECT look_definer(); $look; COMMIT", 1 ],
	[ 'a prepared statement', "PREPARE p AS $look; SELECT set_config('role', 'b', false) IS NULL; EXECUTE p; $leave_b; RESET ROLE; DEALLOCATE p" ],
	[ 'a cursor of the other role', "BEGIN; SET LOCAL ROLE b; DECLARE c CURSOR FOR $look; RESET ROLE; FETCH c; $look; CLOSE c; SET LOCAL ROLE b; $leave_b; COMMIT", 1 ]);
my $s = session($coord, user => 'a');
for my $way (@ways)
{
	my ($name, $sql, $both) = @$way;
	$s->ask('DISCARD ALL');
	$s->ask(leave('9MB'));
	is($s->ask($look), 'far_a 9MB', "$name: the session's own role has parked a connection");
	for my $round (1, 2)
	{
		$s->tell($sql);
		my ($out, $err) = $s->hear();
		my @seen = grep { /^far_/ } split /\n/, $out;
		my $expected = $both ? qr/^far_(?:a (?:4|9)|b (?:4|7))MB$/ : qr/^far_b (?:4|7)MB$/;
		is_deeply([ (grep { !/$expected/ } @seen), @seen ? () : "nothing: $out" ], [], "... round $round: the other one never sees it");
		like($err, $name =~ /error/ ? qr/22012/ : qr/^$/, '... without an error of ours');
		$s->tell('ROLLBACK');
		$s->hear();
		like($s->ask($look), qr/^far_a (?:4MB|9MB)$/, '... nor the first one what the other has left');
	}
}

# SET SESSION AUTHORIZATION, for a superuser's session.
my $super = session($coord);
$super->ask("SET SESSION AUTHORIZATION a; " . leave('9MB'));
is($super->ask("SET SESSION AUTHORIZATION b; $look"), 'far_b 4MB', 'SET SESSION AUTHORIZATION: a connection of its own');
is($super->ask("SET SESSION AUTHORIZATION a; $look"), 'far_a 4MB', '... and nothing is left of the first');
$super->ask(leave('9MB') . '; BEGIN; SET LOCAL SESSION AUTHORIZATION b; ' . $as_b . '; ROLLBACK');
is($super->ask($look), 'far_a 4MB', '... nor when it is rolled back');
$super->ask('RESET SESSION AUTHORIZATION');

# --- rights -----------------------------------------------------------------------------------------
# What is parked for a role that is reached in each of these ways is not lent again when the right is
# gone, and the session's own role goes on.
value($coord, q{CREATE FUNCTION look_boss() RETURNS text LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN RETURN look(); END';
	ALTER FUNCTION look_boss() OWNER TO boss});
sub in_role { return "SELECT set_config('role', '$_[0]', false) IS NULL; $look; SELECT set_config('role', 'none', false) IS NULL"; }
my %as = (definer => 'SELECT look_definer()', set => 'SELECT look_set()', set_config => in_role('b'), 'SET ROLE' => "SET ROLE b; $look");
my @losses = (
	[ 'its mapping', 'DROP USER MAPPING FOR b SERVER dn1', '42704', q{CREATE USER MAPPING FOR b SERVER dn1 OPTIONS (user 'far_b', password_required 'false')} ],
	[ 'USAGE', 'REVOKE USAGE ON FOREIGN SERVER dn1 FROM b', '42501', 'GRANT USAGE ON FOREIGN SERVER dn1 TO b' ],
	[ 'its leave to have no password', q{ALTER USER MAPPING FOR b SERVER dn1 OPTIONS (SET password_required 'true')}, '2F003',
		q{ALTER USER MAPPING FOR b SERVER dn1 OPTIONS (SET password_required 'false')} ]);
for my $loss (@losses)
{
	my ($what, $lose, $sqlstate, $regain) = @$loss;
	for my $way (sort keys %as)
	{
		$s->ask("DISCARD ALL; $look; $as{$way}; RESET ROLE");
		value($coord, $lose);
		like($s->refused($as{$way}), qr/ERROR:  $sqlstate: /, "the other role loses $what: $way hears of it");
		$s->ask('RESET ROLE');
		like($s->ask($look), qr/^far_a /, '... the session\'s own goes on');
		value($coord, $regain);
		wait_for('the right', sub { $s->tell($as{$way}); my $err = ($s->hear())[1]; $s->ask('RESET ROLE'); $err eq '' });
	}
}
for my $way ([ 'a function of his', $s, 'SELECT look_boss()' ], [ 'set_config', $super, in_role('boss') ], [ 'SET ROLE', $super, "SET ROLE boss; $look" ])
{
	my ($name, $session, $sql) = @$way;
	like($session->ask($sql), qr/^far_boss /m, "a superuser without a password: $name");
	value($coord, 'ALTER ROLE boss NOSUPERUSER; GRANT USAGE ON FOREIGN SERVER dn1 TO boss');
	like($session->refused($sql), qr/ERROR:  2F003: /, '... who is none any more');
	$session->ask('RESET ROLE');
	value($coord, 'ALTER ROLE boss SUPERUSER');
	wait_for('the right', sub { $session->tell($sql); my $err = ($session->hear())[1]; $session->ask('RESET ROLE'); $err eq '' });
}
$s->ask("DISCARD ALL; $look; " . in_role('b'));
value($coord, 'REVOKE b FROM a');
like($s->refused(in_role('b')), qr/ERROR:  (?:22023|42501): /, 'a role that one is no member of any more is not to be had');
is($s->ask('SELECT look_definer()') =~ /^far_b / ? 1 : 0, 1, '... but by its function');

$_->quit() for $s, $super;
is(value($coord, 'SELECT sum(leased), sum(waiting) FROM pooler.pools'), '0|0', 'nothing is held');
finish();
