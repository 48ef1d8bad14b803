# Rights, call by call: what a role without them hears from each function, each wrapper and each way
# in, what every role may do and see, and what remains of a superuser's rights when they are lost.

use strict;
use warnings;
use PolarxPooler;
use Test::More;

my $coord = start_coordinator();
my $trusting = start_datanode('dn1', roles => { app => 'app-secret', report => 'report-secret' });
my $locked = start_datanode('dn2', auth => 'scram-sha-256', roles => { app => 'app-secret' });
my $peer = start_datanode('dn3', roles => { app => undef });
value($coord, join ';', map { "CREATE ROLE $_ LOGIN" } qw(stranger guest poor rich climber owner));
add_node($coord, 'dn1', $trusting);
add_node($coord, 'dn2', $locked, mapping => 0);
value($coord, q{CREATE EXTENSION polarx_pooler_example; CREATE EXTENSION postgres_fdw; CREATE EXTENSION dblink});
add_node($coord, $_, $trusting, wrapper => $_) for qw(postgres_fdw dblink_fdw);
my @servers = qw(dn1 postgres_fdw dblink_fdw);
for my $server (@servers)
{
	value($coord, "GRANT USAGE ON FOREIGN SERVER $server TO guest, poor");
	value($coord, "CREATE USER MAPPING FOR poor SERVER $server OPTIONS (user 'app')");
}

# Every way to a connection, by roles without USAGE (stranger), without a mapping (guest), and with
# a mapping but no password where the datanode asks for none (poor).
my @calls = (
	q{SELECT * FROM pooler.query('%s', 'SELECT 1') AS r(a int)},
	q{SELECT pooler.exec('%s', 'SELECT 1')},
	q{SELECT pooler.exec_autocommit('%s', 'SELECT 1')},
	q{SELECT example_leave('%s', 'idle', 0)},
	q{BEGIN; SAVEPOINT a; SELECT pooler.exec('%s', 'SELECT 1')});
my @all = (
	q{SELECT * FROM pooler.query_all('SELECT 1') AS r(n name, a int)},
	q{SELECT pooler.exec_all('SELECT 1')},
	q{SELECT pooler.exec_all_autocommit('SELECT 1')});
my %heard = (
	stranger => [ '42501', qr/permission denied for foreign server (\w+)/ ],
	guest => [ '42704', qr/user mapping not found for "guest".*"(\w+)"/ ],
	poor => [ '2F003', qr/password is required(?s:.*)"(\w+)"/ ]);
for my $role (sort keys %heard)
{
	my ($sqlstate, $text) = @{ $heard{$role} };
	for my $call (@calls)
	{
		my ($name) = $call =~ /(?:pooler\.)?(\w+)\('/;
		my @named = map {
			my $err = (run_sql($coord, sprintf($call, $_), user => $role))[2];
			$err =~ /ERROR:  $sqlstate: (?s:.*?)(?-s:$text)/ ? $1 : $err
		} @servers;
		is("@named", "@servers", "$role: $name hears $sqlstate from each wrapper");
	}
}
value($coord, 'GRANT USAGE ON FOREIGN SERVER dn2 TO poor; CREATE USER MAPPING FOR poor SERVER dn2 OPTIONS (user \'app\')');
for my $call (@all)
{
	my ($name) = $call =~ /pooler\.(\w+)/;
	fails_with($coord, $call, '42501', qr/foreign server dn1/, "stranger: $name", user => 'stranger');
	fails_with($coord, $call, '42501', qr/foreign server dn2/, "guest: $name", user => 'guest');
	fails_with($coord, $call, '2F003', qr/password/, "poor: $name", user => 'poor');
}
is(value($coord, q{SELECT sum(leased), sum(waiting) FROM pooler.pools}), '0|0', 'nothing is held for them');
is(backends($trusting, q{usename = 'app'}), '0', 'no connection was opened for the role without a password');

# No other option is as good as a password.
for my $options (q{user 'app', passfile '/server/secrets'}, q{user 'app', sslpassword 'x'}, q{password ''}, '')
{
	value($coord, 'DROP USER MAPPING FOR poor SERVER dn1; CREATE USER MAPPING FOR poor SERVER dn1'
		  . ($options ? " OPTIONS ($options)" : ''));
	fails_with($coord, sprintf($calls[1], 'dn1'), '2F003', qr/password is required/, "a mapping with ($options)", user => 'poor');
}
for my $word (qw(false FALSE off no 0 f n))
{
	my $making = "CREATE USER MAPPING FOR guest SERVER dn1 OPTIONS (user 'app', password_required '$word')";
	fails_with($coord, $making, '42501', qr/password_required=false is superuser-only/, "guest: password_required $word",
		user => 'guest');
}
value($coord, q{CREATE USER MAPPING FOR guest SERVER dn1 OPTIONS (user 'app', password_required 'yes', password 'app-secret')},
	user => 'guest');
fails_with($coord, sprintf($calls[1], 'dn1'), '2F003', qr/password/, 'password_required=yes helps nobody', user => 'guest');

# A password that another one used opens nothing: neither a pool that is warm nor another database.
add_mapping($coord, 'rich', 'dn2', user => 'app', password => 'app-secret');
is(value($coord, sprintf($calls[1], 'dn2'), user => 'rich'), 'SELECT 1', 'a mapping with the password');
fails_with($coord, sprintf($calls[1], 'dn2'), '2F003', qr/password/, '... does not help the one without', user => 'poor');
value($coord, q{ALTER USER MAPPING FOR poor SERVER dn2 OPTIONS (ADD password 'app-secret ')});
fails_with($coord, sprintf($calls[1], 'dn2'), '28P01', qr/dn2/, '... nor with almost the same', user => 'poor');
is(value($coord, sprintf($calls[1], 'dn2'), user => 'rich'), 'SELECT 1', '... and is not disturbed by it');

# A datanode that asks the operating system who is there (peer).
unlink $peer->data_dir . '/pg_hba.conf';
$peer->append_conf('pg_hba.conf', "local all app peer map=everybody\nlocal all all trust\n");
$peer->append_conf('pg_ident.conf', 'everybody ' . me() . " app\n");
$peer->reload();
add_node($coord, 'dn3', $peer, server => { host => $peer->host });
value($coord, sprintf q{ALTER USER MAPPING FOR "%s" SERVER dn3 OPTIONS (SET user 'app')}, me());
my $who = q{SELECT v FROM pooler.query('dn3', 'SELECT current_user') AS r(v text)};
wait_until($coord, $who, 'app', 'peer: the server\'s own operating system user is let in, for a superuser');
add_mapping($coord, 'poor', 'dn3', user => 'app');
fails_with($coord, $who, '2F003', qr/password/, '... not for a role without a password', user => 'poor');
value($coord, q{ALTER USER MAPPING FOR poor SERVER dn3 OPTIONS (ADD password 'unasked')});
fails_with($coord, $who, '2F003', qr/password/, '... nor with one that is not asked for', user => 'poor') for 1, 2;

# What a superuser had, and one is no more.
my $one = sprintf $calls[1], 'dn1';
value($coord, q{ALTER ROLE climber SUPERUSER; CREATE USER MAPPING FOR climber SERVER dn1 OPTIONS (user 'report')});
my %session = map { $_ => session($coord, user => 'climber') } qw(kept returned other);
$session{kept}->ask("SET pooler.persistent_datanode_connections = on; $one");
$session{returned}->ask($one);
value($coord, 'ALTER ROLE climber NOSUPERUSER; GRANT USAGE ON FOREIGN SERVER dn1 TO climber');
like($session{$_}->refused($one), qr/ERROR:  2F003: /, "SUPERUSER is lost: $_") for sort keys %session;
wait_until($coord, q{SELECT count(*) FROM pooler.connections WHERE remote_user = 'report' AND state = 'leased'}, '0',
	'... nothing is held any more');
value($coord, 'ALTER ROLE climber SUPERUSER');
is($session{$_}->ask($one), 'SELECT 1', "SUPERUSER is back: $_") for sort keys %session;
value($coord, 'GRANT poor TO climber; ALTER ROLE climber NOSUPERUSER');
value($coord, q{DROP USER MAPPING FOR poor SERVER dn1; CREATE USER MAPPING FOR poor SERVER dn1 OPTIONS (user 'app')});
value($coord, q{CREATE FUNCTION by_owner() RETURNS text LANGUAGE sql SECURITY DEFINER AS $$SELECT pooler.exec('dn1', 'SELECT 1')$$});
my $s = session($coord, user => 'climber');
is($s->ask('SELECT by_owner()'), 'SELECT 1', 'SECURITY DEFINER by a superuser: with his rights');
like($s->refused($one), qr/ERROR:  2F003: /, '... which the caller does not keep');
like($s->refused("SET ROLE poor; $one"), qr/ERROR:  2F003: /, 'SET ROLE to one without a password');
my $super = session($coord);
$super->ask($one);
like($super->refused("SET ROLE poor; $one"), qr/ERROR:  2F003: /, '... not even by a superuser');
is($super->ask("RESET ROLE; $one"), 'SELECT 1', '... who has his rights again afterwards');
like($super->refused("SET SESSION AUTHORIZATION poor; $one"), qr/ERROR:  2F003: /, 'nor by SET SESSION AUTHORIZATION');
is($super->ask("RESET SESSION AUTHORIZATION; $one"), 'SELECT 1', '... likewise');

# What every role may call and see.
is(value($coord, q{SELECT string_agg(p.proname, ' ' ORDER BY p.proname) FROM pg_proc p
	JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
	JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass
	WHERE e.extname = 'polarx_pooler' AND has_function_privilege('stranger', p.oid, 'EXECUTE')}),
	'exec exec_all exec_all_autocommit exec_autocommit query query_all reset_params session_memory set_param version',
	'the functions that every role may call');
is(value($coord, q{SELECT count(*) FROM pg_class c WHERE relnamespace = 'pooler'::regnamespace
	AND (has_table_privilege('stranger', c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE')
	OR has_schema_privilege('stranger', 'pooler', 'CREATE'))}), '0', '... and no view, and nothing may be put there');
for my $view (qw(workers nodes pools connections sessions stats))
{
	fails_with($coord, "SELECT * FROM pooler.$view", '42501', qr/permission denied for view $view/, "$view: not for everyone",
		user => 'stranger');
	fails_with($coord, "SELECT * FROM pooler._show_$view()", '42501', qr/permission denied for function/, '... nor behind it',
		user => 'stranger');
}
$_->quit() for values %session, $s, $super;
finish();
