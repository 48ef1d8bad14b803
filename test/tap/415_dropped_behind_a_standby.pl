# Databases that are dropped and moved on the primary: their pooler workers on a standby go without a
# word in the log, come back where the database does, and nobody else is disturbed.

use strict;
use warnings;
use PolarxPooler;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = start_coordinator(
	name => 'primary',
	conf => "wal_level = replica\nmax_wal_senders = 4\nhot_standby = on\nlog_min_messages = error\nallow_in_place_tablespaces = on\n"
	  . "pooler.min_pool_size = 1\npooler.min_free_size = 0\n");
my $dn = start_datanode('dn1');
add_node($primary, 'dn1', $dn);
value($primary, q{CREATE TABLESPACE elsewhere LOCATION ''});
$primary->backup('copy');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'copy', has_streaming => 1);
$standby->start();
my $one = q{SELECT v FROM pooler.query('dn1', 'SELECT 1') AS r(v int)};
sub caught_up { $primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert')); return; }
is(value($standby, $one), '1', 'a standby');
my $stays = worker_pid($standby);
my $offset = log_offset($standby);

for my $round (1 .. 8)
{
	value($primary, "CREATE DATABASE db$round");
	value($primary, 'CREATE EXTENSION polarx_pooler', db => "db$round");
	add_node($primary, 'dn1', $dn, db => "db$round");
	caught_up();
	is(value($standby, $one, db => "db$round"), '1', "round $round: a database is used on the standby");
	my $worker = worker_pid($standby, "db$round");
	if ($round % 2)
	{
		value($primary, "ALTER DATABASE db$round SET TABLESPACE elsewhere");
		caught_up();
		my $next = worker_pid($standby, "db$round", $worker);
		is(value($standby, $one, db => "db$round"), '1', '... moved: it works again');
		$worker = $next;
	}
	value($primary, "DROP DATABASE db$round");
	caught_up();
	wait_for('its end', sub { ended($worker) });
	is(worker_pids($standby, "db$round"), '', '... dropped: its pooler worker has gone');
}
is(value($standby, q{SELECT string_agg(datname, ' ') FROM pooler.workers}), 'postgres', 'the others are forgotten');
is(value($standby, $one), '1', 'the pool of the database that stays works');
is(worker_pids($standby), $stays, '... by the same pooler worker');
my $log = join "\n", grep { !/LOG:  (?:statement|recovery restart point|restartpoint|pooler worker of database "db\d" is ready|\[pooler stat\])/ }
  grep { /FATAL|ERROR|WARNING|DETAIL|PANIC|polarx|pooler|exited/ } split /\n/, log_since($standby, $offset);
is($log, '', 'the log says nothing of it');

$standby->stop('fast');
finish();
