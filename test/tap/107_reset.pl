# What the pooler runs on a connection itself: the reset after a lease, the warm-up before the first.

use strict;
use warnings;
use PolarxPooler;
use Test::More;

my $coord = start_coordinator(conf => "pooler.min_pool_size = 0\npooler.min_free_size = 0\n");
my $dn = start_datanode('dn1');
add_node($coord, 'dn1', $dn, server => { max_pool_size => 1 });
value($dn, 'CREATE TABLE t (id int)');
my $look = q{SELECT p, m FROM pooler.query('dn1', $$SELECT pg_backend_pid(), current_setting('work_mem')$$)
	AS r(p int, m text)};
my $spoil = q{SELECT pooler.exec('dn1', 'SET work_mem = ''9MB''')};

my ($pid) = split /\|/, value($coord, $look);
value($coord, $spoil);
is(value($coord, $look), "$pid|4MB", 'DISCARD ALL: the next session finds the default');

set_conf($coord, 'pooler.reset_query' => 'RESET timezone');
wait_until($coord, "$spoil; $look", "SET\n$pid|9MB", 'a reset_query of one\'s own: what it does not reset stays');
value($coord, q{BEGIN; SELECT pooler.exec('dn1', 'INSERT INTO t VALUES (1)'); ROLLBACK});
is(value($coord, q{SELECT n FROM pooler.query('dn1', 'SELECT count(*) FROM t') AS r(n int)}), '0',
	'... a transaction is rolled back all the same');

set_conf($coord, 'pooler.reset_query' => '');
wait_until($coord, 'SHOW pooler.reset_query', '', 'an empty reset_query');
is(value($coord, $look), "$pid|9MB", '... resets nothing');
my $s = session($coord);
$s->ask("BEGIN; $look");
value($dn, "SELECT pg_terminate_backend($pid, 5000)");
$s->quit();
isnt((split /\|/, value($coord, $look))[0], $pid, '... but a connection that is dead is not lent again');

set_conf($coord, 'pooler.reset_query' => 'SELECT 1/0');
my $offset = log_offset($coord);
# The setting may take a moment to reach the worker.
wait_for('a reset that fails', sub {
		value($coord, $look);
		value($coord, q{SELECT sum(closed_error) FROM pooler.pools}) > 1;
	});
wait_log($coord, qr/dn1.*(?:division by zero|reset)/, $offset, 'a reset_query that fails: the log says why');
($pid) = split /\|/, value($coord, $look);
wait_until($dn, "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid", '0', '... the connection is closed');
is(value($coord, q{SELECT pooler.exec('dn1', 'SELECT 1')}), 'SELECT 1', '... sessions work on');
set_conf($coord, 'pooler.reset_query' => undef);

# Warm-up: on a new connection that nobody waits for.
set_conf($coord, 'pooler.warmup_query' => 'SELECT 4711');
$offset = log_offset($dn);
value($coord, q{ALTER SERVER dn1 OPTIONS (ADD min_pool_size '1', SET max_pool_size '2'); SELECT pooler.clean()});
wait_log($dn, qr/SELECT 4711/, $offset, 'warmup_query runs on a new connection');
set_conf($coord, 'pooler.warmup_query' => 'SELECT 1/0');
value($coord, 'SELECT pooler.clean()');
wait_until($coord, q{SELECT pooler.exec('dn1', 'SELECT 1')}, 'SELECT 1', 'a warmup_query that fails keeps nobody from working');

finish();
