# The verbs of the multi-server tests: servers, nodes, statements, conditions to await.
#
# Run as an unprivileged user:  prove -I test/tap test/tap/001_query.pl
# TESTDIR names a writable folder for the clusters (default: the current one). POLARX_DATANODE_HOME names
# the folder of another server's programs (bin, lib, share; with a bin/pg_config and a bin/psql) that the
# datanodes run; that server has not got the extension.

package PolarxPooler;

use strict;
use warnings;

BEGIN
{
	die "initdb refuses root: run the tests as an unprivileged user\n" if $> == 0;
	my $pg_config = $ENV{PG_CONFIG} || 'pg_config';
	chomp(my $pgxs = `$pg_config --pgxs`);
	chomp(my $bindir = `$pg_config --bindir`);
	(my $src = $pgxs) =~ s{/makefiles/pgxs\.mk$}{};
	unshift @INC, "$src/test/perl";
	$ENV{PATH} = "$bindir:$ENV{PATH}";
	$ENV{PG_REGRESS} ||= "$src/test/regress/pg_regress";
	$ENV{PG_TEST_TIMEOUT_DEFAULT} ||= 60;
}

use Exporter 'import';
use PolarxClock;
use PolarxSession ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

our @EXPORT = qw(
  start_coordinator start_datanode add_node add_mapping set_conf me
  value run_sql fails_with session within mark calm_since
  wait_until wait_for backends backend_pids worker_pid worker_pids
  log_offset log_since wait_log silent_port meanwhile statements
  finish
  add_holders hold stat_lines_pass rests
  ended crashed_by
);
our @EXPORT_OK = qw(literal on execute);

my $kPooled =
  "backend_type = 'client backend' AND application_name LIKE 'polarx\\_pooler%'";
my @servers;

# SQL text: a literal; one value of text from a node; a statement on a node.
sub literal { my ($text) = @_; $text =~ s/'/''/g; return "'$text'"; }
sub on { my ($node, $sql) = @_; return sprintf q{SELECT v FROM pooler.query('%s', %s) AS r(v text)}, $node, literal($sql); }
sub execute { my ($node, $sql) = @_; return sprintf q{SELECT pooler.exec('%s', %s)}, $node, literal($sql); }

# The superuser of every server made here: the operating system's user.
sub me { return scalar getpwuid($<); }

sub start_server
{
	my ($name, $conf) = @_;
	my $server = PostgreSQL::Test::Cluster->new($name);
	$server->init(extra => [ '--locale=C', '--encoding=UTF8' ]);
	$server->append_conf('postgresql.conf', "shared_buffers = 16MB\n$conf");
	$server->start();
	push @servers, $server;
	return $server;
}

# conf: more lines for postgresql.conf; preload => 0 and extension => 0 leave that part out.
# park => 1: leases may be parked, as they are by default; else what is released is soon idle.
sub start_coordinator
{
	my (%opt) = @_;
	my $conf = "max_connections = 200\nmax_worker_processes = 20\n";
	$conf .= "pooler.park_leases = off\n" if !$opt{park};
	$conf .= "shared_preload_libraries = 'polarx_pooler'\n" if $opt{preload} // 1;
	$conf .= "log_min_messages = log\n" . ($opt{conf} // '');
	my $coord = start_server($opt{name} // 'coord', $conf);
	value($coord, 'CREATE EXTENSION polarx_pooler') if $opt{extension} // 1;
	return $coord;
}

# Reachable at 127.0.0.1; auth: the hba method for TCP (trust); roles: { name => password or
# undef }. Looking in from a test goes over the Unix socket, always trusted.
sub start_datanode
{
	my ($name, %opt) = @_;
	my $home = $ENV{POLARX_DATANODE_HOME};
	my $server = PostgreSQL::Test::Cluster->new($name, $home ? (install_path => $home) : ());
	$server->init(extra => [ '--locale=C', '--encoding=UTF8' ]);
	$server->append_conf('postgresql.conf',
		"shared_buffers = 16MB\nlisten_addresses = '127.0.0.1'\n" . ($opt{conf} // ''));
	my $auth = $opt{auth} // 'trust';
	unlink $server->data_dir . '/pg_hba.conf';
	$server->append_conf('pg_hba.conf',
		"local all all trust\nhost all all 127.0.0.1/32 $auth");
	$server->start();
	push @servers, $server;
	my $roles = $opt{roles} // {};
	for my $role (sort keys %$roles)
	{
		my $password = defined $roles->{$role} ? "PASSWORD '$roles->{$role}'" : '';
		value($server, "CREATE ROLE $role LOGIN $password");
	}
	return $server;
}

sub options_text
{
	my (%options) = @_;
	return join ', ', map { "$_ '$options{$_}'" } sort keys %options;
}

# CREATE SERVER for a datanode and a mapping of the superuser to the datanode's superuser.
# server: more server options; db: the coordinator's database; wrapper: another wrapper;
# mapping => 0: no mapping.
sub add_node
{
	my ($coord, $name, $datanode, %opt) = @_;
	my %options = (
		host => '127.0.0.1',
		port => $datanode->port,
		dbname => 'postgres',
		%{ $opt{server} // {} });
	my $wrapper = $opt{wrapper} // 'polarx_pooler';
	my $sql = "CREATE SERVER $name FOREIGN DATA WRAPPER $wrapper OPTIONS ("
	  . options_text(%options) . ');';
	$sql .= sprintf('CREATE USER MAPPING FOR "%s" SERVER %s OPTIONS (user \'%s\');',
		me(), $name, me())
	  if $opt{mapping} // 1;
	value($coord, $sql, db => $opt{db});
	return;
}

# A mapping of a role that may use the server.
sub add_mapping
{
	my ($coord, $role, $server, %options) = @_;
	my $options = %options ? 'OPTIONS (' . options_text(%options) . ')' : '';
	value($coord,
		"GRANT USAGE ON FOREIGN SERVER $server TO $role;"
		  . "CREATE USER MAPPING FOR $role SERVER $server $options");
	return;
}

# Changes settings of a running server: ALTER SYSTEM and reload.
sub set_conf
{
	my ($server, %settings) = @_;
	for my $name (sort keys %settings)
	{
		my $to = "RESET $name";
		$to = sprintf "SET %s = '%s'", $name, $settings{$name} =~ s/'/''/gr if defined $settings{$name};
		value($server, "ALTER SYSTEM $to");
	}
	value($server, 'SELECT pg_reload_conf()');
	return;
}

sub connstr
{
	my ($server, %opt) = @_;
	my $user = $opt{user} // me();
	return $server->connstr($opt{db} // 'postgres') . " user=$user";
}

# Runs a script in a session of its own: (exit code, stdout, stderr); SQLSTATEs in stderr.
# user, db: of the session.
sub run_sql
{
	my ($server, $sql, %opt) = @_;
	return $server->psql(
		undef, $sql,
		connstr => connstr($server, %opt),
		extra_params => [ '-v', 'VERBOSITY=verbose' ]);
}

# The output of a script that must succeed.
sub value
{
	my ($server, $sql, %opt) = @_;
	my ($code, $out, $err) = run_sql($server, $sql, %opt);
	die "failed on " . $server->name . ": $sql\n$err" if $code != 0;
	return $out;
}

# One test: the script's last error has that SQLSTATE and its text (message, detail, hint,
# context) is like $like. Returns the text.
sub fails_with
{
	my ($server, $sql, $sqlstate, $like, $name, %opt) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my ($code, $out, $err) = run_sql($server, $sql, %opt);
	like($err, qr/ERROR:  $sqlstate: (?s:.*)(?-s:$like)/, $name);
	return $err;
}

# An open session; see PolarxSession.
sub session
{
	my ($server, %opt) = @_;
	return PolarxSession->on(connstr($server, %opt));
}

# One test: the code finishes within that many seconds of a calm machine. Returns what it returned.
sub within
{
	my ($seconds, $name, $code) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $start = mark();
	my $result = $code->();
	my $took = calm_since($start);
	ok($took < $seconds, sprintf('%s (%.2f of %.2f s)', $name, $took, $seconds));
	return $result;
}

# Awaits a condition in Perl; dies with $what when it does not come within $limit seconds of a calm machine.
# Returns these seconds.
sub wait_for
{
	my ($what, $code, $limit) = @_;
	my $start = mark();
	$limit //= $ENV{PG_TEST_TIMEOUT_DEFAULT} / 2;
	until ($code->())
	{
		die "waited $limit s in vain for $what" if calm_since($start) > $limit;
		usleep(20_000);
	}
	return calm_since($start);
}

# One test: the statement's output becomes $expected ('t').
sub wait_until
{
	my ($server, $sql, $expected, $name, %opt) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$expected //= 't';
	my ($out, $err) = ('', '');
	my $came = eval {
		wait_for($sql, sub {
				(undef, $out, $err) = run_sql($server, $sql, %opt);
				return $err eq '' && $out eq $expected;
			}, $opt{limit});
		1;
	};
	ok($came, $name // "awaited: $sql")
	  or diag "awaiting on " . $server->name . ": $sql\nexpected: $expected\nlast: $out\n$err";
	return $came;
}

# How many connections of poolers a datanode has; $where narrows it down (pg_stat_activity).
sub backends
{
	my ($datanode, $where) = @_;
	return value($datanode, "SELECT count(*) FROM pg_stat_activity WHERE $kPooled"
		  . (defined $where ? " AND ($where)" : ''));
}

# The same as sorted text of process ids, one per line.
sub backend_pids
{
	my ($datanode) = @_;
	return value($datanode, "SELECT pid FROM pg_stat_activity WHERE $kPooled ORDER BY pid");
}

# Process ids of the pooler workers of a database, as text; '' when there is none.
sub worker_pids
{
	my ($coord, $db) = @_;
	$db //= 'postgres';
	return value($coord,
		"SELECT a.pid FROM pg_stat_activity a JOIN pg_database d ON d.oid = a.datid"
		  . " WHERE a.backend_type = 'polarx_pooler worker' AND d.datname = '$db' ORDER BY 1");
}

# Awaits the pooler worker of a database (not the one with process id $other).
sub worker_pid
{
	my ($coord, $db, $other) = @_;
	my $pid = '';
	wait_for('a pooler worker of ' . ($db // 'postgres'),
		sub { $pid = worker_pids($coord, $db); $pid =~ /^\d+$/ && $pid ne ($other // ''); });
	return $pid;
}

sub log_offset { return -s $_[0]->logfile; }

sub log_since
{
	my ($server, $offset) = @_;
	return slurp_file($server->logfile, $offset);
}

# One test: a line like $like appears in the log after $offset.
sub wait_log
{
	my ($server, $like, $offset, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $came = eval {
		wait_for("log line $like", sub { log_since($server, $offset) =~ $like });
		1;
	};
	ok($came, $name // "logged: $like");
	return $came;
}

# A TCP port of 127.0.0.1 where connects succeed and nobody ever answers: (port, socket). It is
# silent as long as the socket lives.
sub silent_port
{
	require IO::Socket::INET;
	my $socket = IO::Socket::INET->new(
		LocalAddr => '127.0.0.1', LocalPort => 0, Listen => 64, Proto => 'tcp')
	  or die "cannot listen: $!";
	return ($socket->sockport, $socket);
}

# The end of every test: no server has crashed, then all servers stop. crashed: the server that was
# made to crash.
sub finish
{
	my (%opt) = @_;
	for my $server (@servers)
	{
		my $log = slurp_file($server->logfile);
		unlike($log,
			qr/terminating any other active server processes|PANIC|TRAP:|terminated by signal/,
			$server->name . ' has not crashed')
		  if $server != ($opt{crashed} // 0);
		$server->stop('fast');
	}
	done_testing();
	return;
}

# Superuser roles h1 .. h<count> of the coordinator, mapped on the nodes to the datanodes'
# superuser: they share the pools of add_node's mapping, so that one session may hold many leases.
sub add_holders
{
	my ($coord, $count, @nodes) = @_;
	my $sql = join ';', map {
		my $role = "h$_";
		"CREATE ROLE $role SUPERUSER", map { sprintf(
				'CREATE USER MAPPING FOR %s SERVER %s OPTIONS (user \'%s\')', $role, $_, me()) } @nodes
	} 1 .. $count;
	value($coord, $sql);
	return;
}

# The session, in a transaction, acquires a lease of the node for each of the holders first .. last.
sub hold
{
	my ($session, $node, $first, $last) = @_;
	$session->ask(join(';', map { "SET LOCAL ROLE h$_; SELECT pooler.exec('$node', 'SELECT 1')" } $first .. $last)
		  . '; RESET ROLE');
	return;
}

# Awaits so many more stat lines of the database postgres, which mark rounds of maintenance where
# both have the same interval.
sub stat_lines_pass
{
	my ($coord, $lines) = @_;
	my $offset = log_offset($coord);
	wait_for("$lines stat lines", sub {
			$lines <= (() = log_since($coord, $offset) =~ /\[pooler stat\] database=postgres client_request/g) });
	return;
}

# Two tests: while so many rounds pass no connection is opened or closed, neither on the datanode
# nor by the counters of the pools.
sub rests
{
	my ($coord, $datanode, $rounds, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $counters = 'SELECT pool, node, remote_user, total, connects, connect_failures, closed_idle,'
	  . ' closed_lifetime, closed_memory, closed_error FROM pooler.pools ORDER BY pool';
	my ($pids, $counted) = (backend_pids($datanode), value($coord, $counters));
	stat_lines_pass($coord, $rounds + 1);
	is(backend_pids($datanode), $pids, "$name: over $rounds rounds the same connections");
	is(value($coord, $counters), $counted, "$name: ... none opened or closed, say the counters");
	return;
}

# The session runs statements on the node until $until->(how many) is true, every fourth on
# connections that have to be opened: (how many, the slowest in seconds).
sub meanwhile
{
	my ($session, $node, $until) = @_;
	my ($count, $slowest) = (0, 0);
	do
	{
		$session->ask("SELECT pooler.clean('$node')") if $count % 4 == 0;
		my $start = mark();
		$session->ask("SELECT pooler.exec('$node', 'SELECT 1')");
		my $took = calm_since($start);
		$slowest = $took if $took > $slowest;
		$count++;
	} until ($until->($count));
	return ($count, $slowest);
}

# What poolers have sent to a datanode with log_statement = all since $offset of its log:
# [process, text] each.
sub statements
{
	my ($datanode, $offset) = @_;
	return map { /\[(\d+)\] polarx_pooler\S* LOG:  (?:statement|execute [^:]*): ?(.*)$/ ? [ $1, $2 ] : () }
	  split /\n/, log_since($datanode, $offset);
}

# True if there is no such process any more; a zombie has ended, whoever is to reap it.
sub ended
{
	my ($pid) = @_;
	return !kill(0, $pid) || (eval { slurp_file("/proc/$pid/stat") } // '') !~ /\) [^ZX]/;
}

# One test, for a server that was made to crash: no process of it has crashed but these.
sub crashed_by
{
	my ($server, @pids) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $log = slurp_file($server->logfile);
	my @crashes = $log =~ /\(PID (\d+)\) (?:was terminated by signal|exited with exit code (?!1\b))/g;
	my %known = map { $_ => 1 } @pids;
	is(join(' ', (grep { !$known{$_} } @crashes), $log =~ /(PANIC|TRAP):/g), '', $server->name . ' has crashed only where it was made to');
	return;
}

1;
