# pooler.pool_session_memory_limit: a datanode session above it is closed at its next check, idle or
# at release, counted and logged; how memory is measured, and what shows that it cannot be.

use strict;
use warnings;
use PolarxParameter;
use PolarxPooler;
use Test::More;

my $coord = start_coordinator(conf => <<'END');
pooler.min_pool_size = 0
pooler.min_free_size = 0
pooler.pool_conn_keepalive = -1
pooler.pool_maintenance_timeout = -1
pooler.pool_session_context_check_gap = 10s
pooler.pool_session_memory_limit = 20MB
pooler.reset_query = ''
END
check_parameter($coord, name => 'pooler.pool_session_memory_limit', boot => 10, start => 20, min => 1,
	max => 10000, unit => 'MB', context => 'sighup');

# dn1: the remote user is a superuser. dn2: one without rights, two pools. dn3: like dn2, but there
# is the extension.
my $logged = "log_statement = 'all'\nlog_line_prefix = '%p '\n";
my $dn1 = start_datanode('dn1', conf => $logged);
my $dn2 = start_datanode('dn2', conf => $logged, roles => { plain => undef, other => undef });
my $dn3 = start_datanode('dn3', conf => $logged, roles => { plain => undef });
value($dn3, 'CREATE EXTENSION polarx_pooler');
add_node($coord, 'dn1', $dn1);
add_node($coord, $_->[0], $_->[1], mapping => 0) for [ 'dn2', $dn2 ], [ 'dn3', $dn3 ];
value($coord, sprintf('CREATE USER MAPPING FOR "%s" SERVER %s OPTIONS (user \'plain\')', me(), $_)) for 'dn2', 'dn3';
value($coord, 'CREATE ROLE second SUPERUSER; CREATE USER MAPPING FOR second SERVER dn2 OPTIONS (user \'other\')');
add_holders($coord, 3, 'dn1');
my $offset = log_offset($coord);

my $prepare = q{'PREPARE big AS SELECT ' || quote_literal(repeat('x', 8000000))};
my $pid_of = sub { "SELECT p FROM pooler.query('$_[0]', 'SELECT pg_backend_pid()') AS r(p int)" };
my $idle = session($coord);
my $holder = session($coord);
my $watch = session($coord);

# Three connections of dn1: one bloated and idle, one bloated and held, one as it should be.
$idle->ask('BEGIN; SET LOCAL ROLE h1');
my $slim = $idle->ask($pid_of->('dn1'));
$idle->ask('SET LOCAL ROLE h2');
$idle->ask("SELECT pooler.exec('dn1', $prepare)");
my $bloated = $idle->ask($pid_of->('dn1'));
$holder->ask('BEGIN; SET LOCAL ROLE h3');
$holder->ask("SELECT pooler.exec('dn1', $prepare)");
my $held = $holder->ask($pid_of->('dn1'));
$idle->ask('COMMIT');
# One of dn2 for each role, one bloated of dn3.
$idle->ask("SELECT pooler.exec('dn2', $prepare); SET ROLE second; SELECT pooler.exec('dn2', 'SELECT 1'); RESET ROLE");
$idle->ask("SELECT pooler.exec('dn3', $prepare)");

my $pool = "FROM pooler.pools WHERE node = 'dn1'";
my $slot = sub { "FROM pooler.connections WHERE node = 'dn1' AND remote_pid = $_[0]" };
is($watch->ask("SELECT state, memory_bytes IS NULL, memory_checked_at IS NULL " . $slot->($bloated)), 'idle|t|t',
	'not measured yet');
wait_until($coord, 'SELECT count(*) ' . $slot->($bloated), '0', 'idle: the bloated session is closed at its check');
wait_until($dn1, "SELECT count(*) FROM pg_stat_activity WHERE pid = $bloated", '0', '... on the datanode too');
is($watch->ask("SELECT closed_memory, closed_error, closed_idle $pool"), '1|0|0', '... and counted');
my $mb = qr/[2-9]\d MB/;
like(log_since($coord, $offset),
	qr/LOG:  connection to datanode "dn1" is closed: its session, process $bloated of remote user "\S+", uses $mb/,
	'... and logged with process and size');
like(log_since($coord, $offset), qr/DETAIL:  pooler\.pool_session_memory_limit is 20 MB\./, '... and the limit');
wait_until($coord, 'SELECT state, memory_bytes BETWEEN 100000 AND 20000000, memory_checked_at > created_at '
	  . $slot->($slim), 'idle|t|t', 'a slim session is measured and stays');

# The one that was held all the time is due: it is measured when it is given back.
wait_until($coord, 'SELECT clock_timestamp() - created_at > interval \'10 s\' ' . $slot->($held), 't',
	'the held one is older than the gap');
is($watch->ask('SELECT state, memory_checked_at IS NULL ' . $slot->($held)), 'leased|t',
	'a lease is left alone');
$holder->ask('COMMIT');
wait_until($coord, "SELECT closed_memory $pool", '2', 'at release: the bloated session is closed');
wait_until($dn1, "SELECT count(*) FROM pg_stat_activity WHERE pid = $held", '0', '... on the datanode too');
like($dn1->logfile ? log_since($dn1, 0) : '', qr/pg_backend_memory_contexts/,
	'without the extension pg_backend_memory_contexts is asked');

# By the extension's function.
wait_until($coord, q{SELECT closed_memory FROM pooler.pools WHERE node = 'dn3'}, '1',
	'measured by the extension, for a remote user without rights');
like(log_since($dn3, 0), qr/statement: SELECT pooler\.session_memory\(\)/, '... by its function');

# Not at all.
my $cannot = qr/LOG:  memory of sessions on datanode "dn2" cannot be measured/;
wait_log($coord, $cannot, $offset, 'what cannot be measured is logged');
wait_for('both connections of dn2 to be asked', sub {
		2 <= (() = log_since($dn2, 0) =~ /'none' END/g) });
is(scalar(() = log_since($coord, $offset) =~ /$cannot/g), 1, '... once per node');
is($watch->ask(q{SELECT count(*), count(memory_bytes), count(memory_checked_at) FROM pooler.connections WHERE node = 'dn2'}),
	'2|0|0', '... and is NULL in the view; the connections stay');

# A lower limit concerns what is there.
set_conf($coord, 'pooler.pool_session_memory_limit' => '1MB');
wait_until($coord, 'SELECT count(*) ' . $slot->($slim), '0', 'a lower limit closes what was slim', limit => 30);
is($watch->ask("SELECT closed_memory $pool"), '3', '... for that reason');

$_->quit() for $idle, $holder, $watch;
finish();
