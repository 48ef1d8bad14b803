# What stands in the environment and the home directory of the server's operating system user, for
# libpq to find, changes nothing: neither connections to datanodes nor the lent ones.

use strict;
use warnings;
use PolarxPooler;
use PostgreSQL::Test::Utils;
use Test::More;

my $coord = start_coordinator(conf => "pooler.min_pool_size = 0\npooler.min_free_size = 0\n");
my $locked = start_datanode('dn1', auth => 'scram-sha-256', roles => { app => 'app-secret', env => 'env-secret' });
my $trap = start_datanode('dn2', roles => { env => undef, app => undef });
value($_, 'CREATE DATABASE env') for $locked, $trap;
value($locked, 'CREATE ROLE own LOGIN PASSWORD \'app-secret\'; CREATE DATABASE own');
value($coord, 'CREATE EXTENSION polarx_pooler_example; CREATE ROLE own LOGIN; CREATE ROLE poor LOGIN');
my %mapping = (user => 'app', password => 'app-secret');

# Nodes that leave out what libpq would then look for: [server's options, mapping's options, role].
my $port = $locked->port;
my %node = (
	whole => [ { host => '127.0.0.1', port => $port, dbname => 'postgres' }, \%mapping ],
	address => [ { hostaddr => '127.0.0.1', port => $port, dbname => 'postgres' }, \%mapping ],
	folder => [ { host => $locked->host, port => $port, dbname => 'postgres' }, \%mapping ],
	no_dbname => [ { host => '127.0.0.1', port => $port }, { user => 'own', password => 'app-secret' } ],
	no_user => [ { host => '127.0.0.1', port => $port, dbname => 'postgres' }, { password => 'app-secret' }, 'own' ],
	no_port => [ { host => $locked->host, dbname => 'postgres' }, \%mapping ],
	no_host => [ { port => $port, dbname => 'postgres' }, \%mapping ],
	no_password => [ { host => '127.0.0.1', port => $port, dbname => 'postgres' }, { user => 'app' } ]);
for my $name (sort keys %node)
{
	my ($server, $mapped, $role) = @{ $node{$name} };
	my $options = sub { my (%o) = @_; return 'OPTIONS (' . join(', ', map { "$_ '$o{$_}'" } sort keys %o) . ')' };
	value($coord, "CREATE SERVER $name FOREIGN DATA WRAPPER polarx_pooler " . $options->(%$server)
		  . "; GRANT USAGE ON FOREIGN SERVER $name TO PUBLIC; CREATE USER MAPPING FOR " . ($role // 'CURRENT_USER')
		  . " SERVER $name " . $options->(%$mapped));
}
add_mapping($coord, 'poor', 'whole', user => 'app');
add_mapping($coord, 'own', 'whole', user => 'app', password => 'wrong');

# All that the datanode can tell about a connection.
my $state = q{SELECT concat_ws(' ', session_user, current_database(), inet_server_port(), a.application_name, a.client_port IS NULL,
	(SELECT string_agg(name || '=' || setting, ' ' ORDER BY name) FROM pg_settings WHERE source IN ('client', 'session')
	AND name NOT LIKE 'lc%')) FROM pg_stat_activity a WHERE pid = pg_backend_pid()};
my $lent = q{SELECT string_agg(name || '=' || COALESCE(before, ''), ' ' ORDER BY name)
	FROM example_parameters('%s', 'SELECT 1')};

# One word per node: what it is like, or the error.
sub look
{
	my %seen;
	for my $name (sort keys %node)
	{
		my $sql = "SELECT v FROM pooler.query('$name', \$q\$$state\$q\$) AS r(v text); "
		  . sprintf($lent, $name) . "; SELECT misuse_conninfo('$name')";
		my (undef, $out, $err) = run_sql($coord, $sql, user => $node{$name}[2] // me());
		($seen{$name} = "$out$err") =~ s/^(?:CONTEXT|LOCATION|DETAIL):.*\n?//mg;
		$seen{$name} =~ s/^psql:\S+ //mg;
		$seen{$name} =~ s/\@[0-9a-f]{32}/\@listener/g;
	}
	for my $role (qw(poor own))
	{
		my (undef, $out, $err) = run_sql($coord, q{SELECT pooler.exec('whole', 'SELECT 1')}, user => $role);
		$seen{"role $role"} = $out . ($err =~ /ERROR:  (\w{5})/ ? $1 : $err);
	}
	return \%seen;
}
my $before = look();
like($before->{whole}, qr/^app postgres $port polarx_pooler\/postgres f .*DateStyle=ISO, MDY/, 'a node that says all');
like($before->{no_user}, qr/^own postgres $port /, 'without a user it is the role\'s own name');
like($before->{no_dbname}, qr/^own own $port /, 'without a database it is the user\'s name');
like($before->{no_port}, qr{ERROR:  08001: .*\.s\.PGSQL\.5432"}, 'without a port it is PostgreSQL\'s');
my $folder = quotemeta $locked->host;
like($before->{no_host}, qr{ERROR:  08001: .*socket "(?!$folder).*\.s\.PGSQL\.$port"}, 'without a host it is PostgreSQL\'s folder');
like($before->{no_password}, qr/ERROR:  08001|ERROR:  28/, 'without a password: an error');
is($before->{'role poor'}, '2F003', 'a role without a password');
is($before->{'role own'}, '28P01', 'a role with a wrong one');

# The home directory, a folder of services, and the environment (of which host and port are always
# there).
my $home = $coord->basedir . '/home';
mkdir $home or die "mkdir: $!";
mkdir "$home/.postgresql" or die "mkdir: $!";
my $service = "[evil]\nhost=127.0.0.1\nport=" . $trap->port
  . "\nuser=env\ndbname=env\noptions=-c work_mem=77MB\napplication_name=service\n";
append_to_file("$home/.pg_service.conf", $service);
append_to_file("$home/pg_service.conf", $service);
append_to_file("$home/.pgpass", "*:*:*:*:app-secret\n");
append_to_file("$home/.postgresql/postgresql.crt", "not a certificate\n");
append_to_file("$home/.postgresql/postgresql.key", "not a key\n");
append_to_file("$home/.postgresql/root.crt", "not a certificate\n");
chmod 0600, "$home/.pgpass", "$home/.postgresql/postgresql.key";
my %environment = (
	HOME => $home, PGSYSCONFDIR => $home, PGSERVICEFILE => "$home/.pg_service.conf", PGPASSFILE => "$home/.pgpass",
	PGUSER => 'env', PGPASSWORD => 'app-secret', PGDATABASE => 'env', PGHOST => $coord->host, PGHOSTADDR => '127.0.0.1',
	PGPORT => $coord->port, PGOPTIONS => '-c work_mem=77MB -c role=env', PGCLIENTENCODING => 'LATIN1', PGAPPNAME => 'environment', PGTZ => 'Asia/Tokyo',
	PGDATESTYLE => 'German', PGGEQO => 'off', PGSSLMODE => 'require', PGSSLCERT => "$home/.postgresql/postgresql.crt",
	PGSSLKEY => "$home/.postgresql/postgresql.key", PGSSLROOTCERT => "$home/.postgresql/root.crt", PGSSLMINPROTOCOLVERSION => 'TLSv1.3',
	PGGSSENCMODE => 'require', PGCHANNELBINDING => 'require', PGREQUIREPEER => 'nobody', PGKRBSRVNAME => 'x', PGGSSLIB => 'x',
	PGTARGETSESSIONATTRS => 'standby', PGCONNECT_TIMEOUT => '2', PGREQUIRESSL => '1', PGLOCALEDIR => $home);

# A service wins over nothing but what is said nowhere else, so it has a turn of its own.
for my $turn ([ 'all variables', \%environment ], [ 'a service file', { HOME => $home, PGSERVICE => 'evil' } ],
	[ 'a service of the system', { PGSYSCONFDIR => $home, PGSERVICE => 'evil' } ],
	[ 'a service that is not there', { PGSERVICE => 'nowhere' } ], [ 'the home directory', { HOME => $home } ])
{
	my ($name, $variables) = @$turn;
	{
		local %ENV = (%ENV, %$variables);
		# By itself, for the cluster's own verb leaves PGAPPNAME out.
		system_or_bail('pg_ctl', '-w', '-D', $coord->data_dir, '-l', $coord->logfile, '-m', 'fast', 'restart');
	}
	my $postmaster = slurp_file($coord->data_dir . '/postmaster.pid') =~ /^(\d+)/ ? $1 : die 'no postmaster';
	my %there = map { split /=/, $_, 2 } split /\0/, slurp_file("/proc/$postmaster/environ");
	is(scalar(grep { ($there{$_} // '') ne $variables->{$_} } keys %$variables), 0, "$name: in the postmaster's environment");
	my $after = look();
	is($after->{$_}, $before->{$_}, "... nothing is different: $_") for sort keys %$before;
}
is(value($trap, q{SELECT count(*) FROM pg_stat_activity WHERE usename IN ('env', 'app')}), '0', 'nobody went into the trap');
finish();
