# Where no launcher can run, a request is told so at once, start() and the view as well.

use strict;
use warnings;
use PolarxPooler;
use IPC::Run ();
use PostgreSQL::Test::Utils;
use Test::More;

my $coord = start_coordinator(conf => "pooler.pooler_connect_timeout = 1h\n");
my $dn = start_datanode('dn1');
add_node($coord, 'dn1', $dn);
my $one = q{SELECT pooler.exec('dn1', 'SELECT 1')};
is(value($coord, $one), 'SELECT 1', 'with a launcher');

# The server's own launcher of logical replication takes the only place. An hour is the longest that a
# request would wait for a pooler worker: each of these answers without it.
$coord->append_conf('postgresql.conf', "max_worker_processes = 1\nstatement_timeout = 30s\n");
$coord->restart();
my $why = qr/max_worker_processes leaves no place for the launcher of the pooler workers/;
for my $sql ($one, q{SELECT * FROM pooler.query('dn1', 'SELECT 1') AS r(v int)}, 'SELECT * FROM pooler.pools', 'SELECT pooler.reload()')
{
	my $err = fails_with($coord, $sql, '57P03', $why, "max_worker_processes = 1: $sql");
	like($err, qr/HINT:  .*max_worker_processes/, '... with a hint that names the setting');
	unlike($err, qr/pooler_connect_timeout/, '... and not another one');
}
my $err = fails_with($coord, 'SELECT pooler.start()', '57P03', qr/could not start the pooler worker/, 'start()');
like($err, qr/DETAIL:  $why/, '... with the reason');
is(value($coord, 'SELECT state FROM pooler.workers'), 'failed', 'pooler.workers');
is(value($coord, 'SELECT pooler.stop()'), 't', 'stop()');
fails_with($coord, $one, '57P03', qr/stopped by an administrator/, '... is the reason then');
fails_with($coord, 'SELECT pooler.start()', '57P03', $why, '... until start()');
value($coord, 'CREATE DATABASE other');
value($coord, 'CREATE EXTENSION polarx_pooler', db => 'other');
value($coord, 'DROP DATABASE other');

# Single-user mode.
$coord->stop();
my ($out, $log) = ('', '');
IPC::Run::run([ 'postgres', '--single', '-c', 'log_min_messages=error', '-D', $coord->data_dir, 'postgres' ], '<', \"$one\nSELECT pooler.start()\n", '>', \$out, '2>', \$log,
	IPC::Run::timeout(50));
like($log, qr/ERROR:  pooler worker of database "postgres" is not running\s.*DETAIL:  .*background workers do not run in single-user mode/s,
	'single-user mode: a request');
like($log, qr/ERROR:  could not start the pooler worker(?s:.*)DETAIL:  background workers do not run in single-user mode/, '... start()');

$coord->adjust_conf('postgresql.conf', 'max_worker_processes', '20');
$coord->start();
wait_until($coord, $one, 'SELECT 1', 'with a launcher again');

finish();
