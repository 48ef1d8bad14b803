# Who may use which connection: USAGE, mappings, the password rule, TLS, the environment.

use strict;
use warnings;
use PolarxPooler;
use Test::More;

my $coord = start_coordinator();
my %roles = (app => 'app-secret', report => 'report-secret', nobody => 'unknown');
my $locked = start_datanode('locked', auth => 'scram-sha-256', roles => \%roles);
my $open = start_datanode('open', roles => { app => undef });
value($coord, 'CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN; CREATE ROLE carol LOGIN;'
	  . 'CREATE ROLE dave LOGIN; CREATE ROLE monitor LOGIN IN ROLE pg_monitor; GRANT alice TO bob');
add_node($coord, 'dn1', $locked, mapping => 0);
add_node($coord, 'dn2', $open);
my $who = q{SELECT who, pid FROM pooler.query('dn1', 'SELECT current_user, pg_backend_pid()') AS r(who text, pid int)};
my $one = q{SELECT pooler.exec('dn1', 'SELECT 1')};
my $two = q{SELECT pooler.exec('dn2', 'SELECT 1')};

# Mappings and USAGE.
add_mapping($coord, 'alice', 'dn1', user => 'app', password => 'app-secret');
my $session = session($coord, user => 'alice');
like($session->ask($who), qr/^app\|\d+$/, 'a mapping with a password');
fails_with($coord, $one, '42501', qr/dn1/, 'no USAGE: 42501', user => 'carol');
value($coord, 'GRANT USAGE ON FOREIGN SERVER dn1, dn2 TO carol');
fails_with($coord, $one, '42704', qr/user mapping.*carol/, 'no mapping: 42704', user => 'carol');
value($coord, 'REVOKE USAGE ON FOREIGN SERVER dn1 FROM alice');
like($session->refused($one), qr/42501/, 'REVOKE takes effect in a session that runs');
value($coord, 'GRANT USAGE ON FOREIGN SERVER dn1 TO alice');
is($session->ask($one), 'SELECT 1', '... and so does GRANT');

# Somebody else's remote user.
add_mapping($coord, 'bob', 'dn1', user => 'app', password => 'guess');
cmp_ok(value($coord, q{SELECT sum(idle) FROM pooler.pools WHERE remote_user = 'app'}), '>', 0,
	'the pool of the first role is warm');
fails_with($coord, $one, '28P01', qr/dn1/, 'a wrong password: 28P01', user => 'bob');
fails_with($coord, $one, '28P01', qr/dn1/, '... again', user => 'bob');
is($session->ask($one), 'SELECT 1', '... which does not hold the first role off');
value($coord, q{ALTER USER MAPPING FOR bob SERVER dn1 OPTIONS (SET user 'report', SET password 'report-secret')});
wait_until($coord, $one, 'SELECT 1', 'ALTER USER MAPPING takes effect by itself', user => 'bob', limit => 2);

# Current role: SECURITY DEFINER, SET ROLE.
value($coord, "CREATE FUNCTION as_alice(OUT who text, OUT pid int) LANGUAGE sql SECURITY DEFINER AS \$f\$$who\$f\$;"
	  . 'ALTER FUNCTION as_alice OWNER TO alice');
my $bob = session($coord, user => 'bob');
my $mine = $bob->ask("BEGIN; $who");
my $hers = $bob->ask('SELECT * FROM as_alice()');
like($mine, qr/^report\|/, 'the session\'s own role');
like($hers, qr/^app\|/, 'SECURITY DEFINER: the owner\'s mapping, a connection of its own');
is($bob->ask($who), $mine, '... while the session keeps its own');
is($bob->ask("SET ROLE alice; $who"), $hers, 'SET ROLE: the connection of that role');
is($bob->ask("RESET ROLE; $who"), $mine, '... and back');
$bob->ask('COMMIT');

# The password rule, on a datanode that trusts.
add_mapping($coord, 'dave', 'dn2', user => 'app');
fails_with($coord, $two, '2F003', qr/password/, 'no password: 2F003', user => 'dave');
is(value($coord, q{SELECT count(*) FROM pooler.pools WHERE 'dave' = ANY (mapped_roles)}), '0', '... nor a pool');
value($coord, sprintf(q{ALTER USER MAPPING FOR "%s" SERVER dn2 OPTIONS (SET user 'app')}, me()));
wait_until($coord, $two, 'SELECT 1', 'a superuser needs none', limit => 2);
fails_with($coord, $two, '2F003', qr/password/, '... but does not open the way for others', user => 'dave');
value($coord, q{ALTER USER MAPPING FOR dave SERVER dn2 OPTIONS (ADD password 'unasked')});
value($coord, sprintf(q{ALTER USER MAPPING FOR "%s" SERVER dn2 OPTIONS (ADD password 'unasked')}, me()));
is(value($coord, $two), 'SELECT 1', 'the same options, opened by a superuser');
fails_with($coord, $two, '2F003', qr/password/, 'a password that was not asked for: 2F003', user => 'dave')
  for 1, 2;
fails_with($coord, q{ALTER USER MAPPING FOR dave SERVER dn2 OPTIONS (ADD password_required 'false')},
	'42501', qr/password_required/, 'only a superuser may lift the rule', user => 'dave');
fails_with($coord, q{ALTER USER MAPPING FOR dave SERVER dn2 OPTIONS (ADD sslcert '/x')},
	'42501', qr/sslcert/, '... and give key files', user => 'dave');
value($coord, q{ALTER USER MAPPING FOR dave SERVER dn2 OPTIONS (ADD password_required 'false', DROP password)});
wait_until($coord, $two, 'SELECT 1', 'password_required=false', user => 'dave', limit => 2);
my $dave = session($coord, user => 'dave');
$dave->ask('SET pooler.persistent_datanode_connections = on; ' . $two);
value($coord, q{ALTER USER MAPPING FOR dave SERVER dn2 OPTIONS (SET password_required 'true')});
like($dave->refused($two), qr/2F003|28P01/, 'the rule holds for a connection that a session kept');
value($coord, q{CREATE USER MAPPING FOR PUBLIC SERVER dn2 OPTIONS (user 'app', password 'x')});
wait_until($coord, q{SELECT remote_user, idle > 0 FROM pooler.pools WHERE 'public' = ANY (mapped_roles)}, 'app|t',
	'a mapping of PUBLIC with a user: a warm pool before its first use');
fails_with($coord, $two, '2F003', qr/password/, 'a mapping of PUBLIC follows the rule', user => 'carol');

# A kept connection and lost rights.
my $kept = session($coord, user => 'alice');
$kept->ask('SET pooler.persistent_datanode_connections = on; ' . $one);
value($coord, 'REVOKE USAGE ON FOREIGN SERVER dn1 FROM alice');
like($kept->refused($one), qr/42501/, 'USAGE is checked at every call');
value($coord, 'GRANT USAGE ON FOREIGN SERVER dn1 TO alice');

# A password that changes on the datanode too.
value($locked, q{ALTER ROLE app PASSWORD 'new-secret'});
value($coord, q{ALTER USER MAPPING FOR alice SERVER dn1 OPTIONS (SET password 'new-secret')});
wait_until($coord, $one, 'SELECT 1', 'a new password', user => 'alice', limit => 3);

# Functions of operation and views.
fails_with($coord, 'SELECT * FROM pooler.pools', '42501', qr/permission denied/,
	'views: not for everyone', user => 'carol');
is(value($coord, 'SELECT count(*) > 0 FROM pooler.pools', user => 'monitor'), 't', '... for pg_monitor');
for my $call (qw(start() stop() reload() clean()))
{
	fails_with($coord, "SELECT pooler.$call", '42501', qr/permission denied/, "$call: not for everyone",
		user => 'carol');
}
is(value($coord, 'SELECT pooler.session_memory() > 0', user => 'carol'), 't', 'session_memory: for everyone');
unlike(value($coord, 'SELECT row_to_json(p) FROM pooler.pools p')
	  . value($coord, 'SELECT row_to_json(c) FROM pooler.connections c'),
	qr/secret/, 'no view shows a password');

# TLS.
for my $mode (qw(require verify-ca verify-full))
{
	(my $name = "tls_$mode") =~ s/-/_/;
	my (undef, undef, $err) = run_sql($coord, "CREATE SERVER $name FOREIGN DATA WRAPPER polarx_pooler"
		  . " OPTIONS (host '127.0.0.1', port '" . $open->port . "', sslmode '$mode');"
		  . "CREATE USER MAPPING FOR CURRENT_USER SERVER $name OPTIONS (user 'app')");
	like($err, qr/WARNING/, "sslmode $mode: a warning");
	fails_with($coord, "SELECT pooler.exec('$name', 'SELECT 1')", '0A000',
		qr/datanode "$name" demands TLS, which a lent connection cannot carry.*HINT/s, '... and refused when used');
	value($coord, "DROP SERVER $name CASCADE");
}
for my $mode (qw(disable allow prefer))
{
	my (undef, $out, $err) = run_sql($coord, "CREATE SERVER tls FOREIGN DATA WRAPPER polarx_pooler"
		  . " OPTIONS (host '127.0.0.1', port '" . $open->port . "', dbname 'postgres', sslmode '$mode');"
		  . "CREATE USER MAPPING FOR CURRENT_USER SERVER tls OPTIONS (user 'app');"
		  . "SELECT pooler.exec('tls', 'SELECT 1')");
	is("$out$err", 'SELECT 1', "sslmode $mode: without TLS, without a warning");
	value($coord, "SET client_min_messages = error; DROP SERVER tls CASCADE");
}

# The environment of the server has no effect.
$_->quit() for $session, $bob, $dave, $kept;
my $passfile = $coord->basedir . '/passfile';
PostgreSQL::Test::Utils::append_to_file($passfile, "*:*:*:*:new-secret\n");
chmod 0600, $passfile;
value($coord, 'DROP USER MAPPING FOR alice SERVER dn1');
value($coord, q{CREATE USER MAPPING FOR alice SERVER dn1 OPTIONS (user 'app')});
value($coord, q{ALTER SERVER dn2 OPTIONS (DROP dbname)});
{
	local %ENV = (
		%ENV,
		PGPASSWORD => 'new-secret',
		PGPASSFILE => $passfile,
		PGOPTIONS => '-c work_mem=77MB',
		PGSSLMODE => 'require',
		PGSERVICE => 'nowhere',
		PGHOSTADDR => '192.0.2.1',
		PGTARGETSESSIONATTRS => 'standby',
		PGCONNECT_TIMEOUT => '3',
		PGREQUIREPEER => 'nobody',
		PGCLIENTENCODING => 'LATIN1',
		PGDATABASE => 'postgres',
		PGTZ => 'Asia/Tokyo');
	$coord->restart();
}
# Without dbname it is the remote user's name.
value($open, 'CREATE DATABASE app');
wait_until($coord, q{SELECT a, b, c, d FROM pooler.query('dn2', $$SELECT current_setting('work_mem'),
	current_setting('application_name'), current_setting('TimeZone') = 'Asia/Tokyo',
	current_database()$$) AS r(a text, b text, c bool, d text)},
	'4MB|polarx_pooler/postgres|f|app', 'PG* variables of the server have no effect', limit => 5);
fails_with($coord, $one, '2F003|28P01', qr/password/, 'no password from the environment', user => 'alice');

finish();
