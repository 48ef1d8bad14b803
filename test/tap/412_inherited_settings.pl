# Settings of the server, of a database and of a role, made for the transactions of sessions, do nothing
# to the launcher and the pooler workers: neither at their start nor after a reload.

use strict;
use warnings;
use PolarxPooler;
use PostgreSQL::Test::Cluster;
use Test::More;

# The sessions of this test have none of them.
$ENV{PGOPTIONS} = join ' ', map { "-c $_" } 'default_transaction_isolation=read\\ committed', map { "$_=0" }
  qw(default_transaction_read_only default_transaction_deferrable statement_timeout lock_timeout
  idle_in_transaction_session_timeout exit_on_error);

my $coord = start_coordinator(conf => <<'END');
log_min_messages = error
wal_level = replica
max_wal_senders = 4
hot_standby = on
pooler.min_pool_size = 0
pooler.min_free_size = 0
END
my $dn = start_datanode('dn1');
add_node($coord, 'dn1', $dn);
my $one = q{SELECT pooler.exec('dn1', 'SELECT 1')};
my $launcher = q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'polarx_pooler launcher'};

# A safe snapshot for a deferrable transaction is waited for as long as this one lasts.
my $writer = session($coord);
sub hold_up { $writer->ask('BEGIN ISOLATION LEVEL SERIALIZABLE; CREATE TABLE IF NOT EXISTS t (); SELECT 1'); return; }

my %settings = (
	default_transaction_isolation => 'serializable',
	default_transaction_read_only => 'on',
	default_transaction_deferrable => 'on',
	statement_timeout => '1ms',
	lock_timeout => '1ms',
	idle_in_transaction_session_timeout => '1ms',
	exit_on_error => 'on');
for my $whose ('DATABASE postgres', 'ROLE ALL', 'ROLE ALL IN DATABASE postgres')
{
	value($coord, join ';', map { "ALTER $whose SET $_ = '$settings{$_}'" } sort keys %settings);
	my $session = session($coord);
	hold_up();
	my $before = worker_pid($coord);
	my $offset = log_offset($coord);
	kill 'TERM', $before;
	wait_for('its end', sub { ended($before) });
	is($session->ask($one), 'SELECT 1', "ALTER $whose SET …: a new pooler worker serves");
	my $worker = $session->ask('SELECT pid FROM pooler.workers');
	isnt($worker, $before, '... another one');
	$session->ask(q{ALTER SERVER dn1 OPTIONS (ADD max_pool_size '7')});
	wait_for('the change', sub { $session->ask(q{SELECT max_size FROM pooler.pools}) eq '7' });
	pass('... it reads the catalog');
	$session->ask('ALTER SERVER dn1 OPTIONS (DROP max_pool_size)');
	$session->ask('BEGIN; LOCK TABLE pg_user_mapping IN ACCESS EXCLUSIVE MODE; SELECT pooler.reload(); COMMIT');
	is($session->ask($one), 'SELECT 1', '... and outlives a lock');
	is($session->ask('SELECT pid FROM pooler.workers'), $worker, '... all in one process');
	$writer->ask('COMMIT');
	$session->ask("ALTER $whose RESET ALL");
	$session->quit();
	unlike(log_since($coord, $offset), qr/(?:FATAL|ERROR):|exited with exit code 1\b/, '... nothing fails');
}

# In the configuration file, while the processes run and at their start.
$coord->append_conf('postgresql.conf', "$_ = '$settings{$_}'") for sort keys %settings;
$coord->append_conf('postgresql.conf', 'max_standby_streaming_delay = 7s');
my ($worker, $launching) = (worker_pid($coord), value($coord, $launcher));
$coord->reload();
wait_until($coord, q{SELECT reset_val FROM pg_settings WHERE name = 'max_standby_streaming_delay'}, '7000', 'reloaded');
my $session = session($coord);
hold_up();
$session->ask(q{ALTER SERVER dn1 OPTIONS (ADD max_pool_size '8')});
wait_for('the change', sub { $session->ask(q{SELECT max_size FROM pooler.pools}) eq '8' });
is($session->ask('SELECT pid FROM pooler.workers') . ' ' . $session->ask($launcher), "$worker $launching", 'reloaded: launcher and pooler worker go on');
kill 'TERM', $launching, $worker;
wait_for('their end', sub { ended($launching) && ended($worker) });
is($session->ask($one), 'SELECT 1', '... and so do the next ones');
$writer->ask('COMMIT');
$_->quit() for $session, $writer;

# A standby refuses serializable transactions.
$coord->backup('copy');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($coord, 'copy', has_streaming => 1);
$standby->start();
wait_until($standby, "SELECT state FROM pooler.workers", 'ready', 'a standby with them has a pooler worker');
is(value($standby, "SELECT v FROM pooler.query('dn1', 'SELECT 1') AS r(v int)"), '1', '... which serves');
unlike(log_since($standby, 0), qr/polarx_pooler launcher.*exited|cannot use serializable/, '... and a launcher that stays');
$standby->stop('fast');

finish();
