# The C interface, by the example extension of test/example.

use strict;
use warnings;
use PolarxPooler;
use Test::More;

my $coord = start_coordinator(conf => "pooler.min_pool_size = 0\npooler.min_free_size = 0\n");
my %dn = map { $_ => start_datanode($_) } qw(dn1 dn2);
add_node($coord, $_, $dn{$_}, server => { max_pool_size => 1 }) for sort keys %dn;
value($_, 'CREATE TABLE numbers (n int)') for values %dn;
value($coord, 'CREATE EXTENSION polarx_pooler_example');
value($coord, qq{ALTER ROLE "${\me()}" SET pooler.queue_timeout = '10s'});
my $leased = 'SELECT sum(leased) FROM pooler.pools';

# Two nodes at once.
my $rows = value($coord, q{SELECT * FROM example_two_nodes('dn2', 'dn1')});
is($rows, 'dn2|' . backend_pids($dn{dn2}) . "\ndn1|" . backend_pids($dn{dn1}), 'two nodes at once');
wait_until($coord, $leased, '0', '... given back');
is(value($coord, q{SELECT count(*) FROM generate_series(1, 20), example_two_nodes('dn1', 'dn2')}), '40', '... again and again');
fails_with($coord, q{SELECT * FROM example_two_nodes('dn1', 'nowhere')}, '42704', qr/nowhere/, 'one is unknown');
fails_with($coord, q{SELECT * FROM example_two_nodes('dn1', 'dn1')}, '(?!XX)\w+', qr/dn1/, 'the same twice');
is(value($coord, $leased), '0', '... nothing is held');

# Pipeline, COPY, cancel.
is(value($coord, q{SELECT example_pipeline('dn1', 100)}), '10100', 'a pipeline of a hundred queries');
is(value($coord, q{SELECT example_copy('dn1', 'numbers', 200000)}), '20000100000', 'COPY in and out');
is(value($dn{dn1}, 'SELECT count(*) FROM numbers'), '200000', '... is on the datanode');
fails_with($coord, q{SELECT example_copy('dn1', 'no table', 1)}, '42P01', qr/no table/, 'COPY that fails');
is(value($coord, q{SELECT example_copy('dn1', 'numbers', 0) > 0}), 't', '... the node works on');
my $pid = backend_pids($dn{dn1});
within(2, 'cancel takes effect at once', sub {
		is(value($coord, q{SELECT example_cancel('dn1')}), '57014', 'the statement ends as cancelled') });
is(value($coord, q{SELECT remote_pid FROM example_two_nodes('dn1', 'dn2') WHERE node = 'dn1'}), $pid,
	'... its connection lives on');
my $s = session($coord);
within(2, 'a borrower that is cancelled', sub {
		like($s->refused(q{SET statement_timeout = '300ms'; SELECT example_sleep('dn1', 60)}), qr/57014/,
			'... hears of it') });
is($s->ask(q{RESET statement_timeout; SELECT example_pipeline('dn1', 1)}), '2', '... the session works on');
is(value($dn{dn1}, q{SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid()}),
	'0', '... and nothing runs on the datanode');

# What a borrower leaves behind, and says about it.
my $clean = q{SELECT p, s FROM pooler.query('dn1', $$SELECT pg_backend_pid(),
	concat_ws(' ', current_setting('work_mem'), to_regclass('left_behind') IS NULL)$$) AS r(p int, s text)};
for my $state (qw(idle transaction failed copy pipeline busy))
{
	for my $kind (0 .. 3)
	{
		my $left = $s->ask("SELECT example_leave('dn1', '$state', $kind)");
		my ($next, $found) = split /\|/, $s->ask($clean);
		is($found, '4MB t', "left in state $state, released as $kind: the next finds it clean");
		is($next, $left, '... and the same connection')
		  if $kind < 2 && $state =~ /^(?:idle|transaction|failed)$/;
		isnt($next, $left, '... on another connection') if $kind == 2;
	}
}
wait_until($dn{dn1}, q{SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid()},
	'0', 'no statement runs on');
wait_until($coord, q{SELECT total, idle FROM pooler.pools WHERE node = 'dn1'}, '1|1', 'one connection, idle');

# Leases that nobody released.
$s->ask(q{BEGIN; SELECT example_leave('dn1', 'idle', 3)});
is(value($coord, $leased), '1', 'kept within the transaction');
$s->ask('COMMIT');
wait_until($coord, $leased, '0', '... given back at its end');
$s->ask(q{BEGIN; SAVEPOINT a; SELECT example_leave('dn1', 'transaction', 3); ROLLBACK TO a});
wait_until($coord, $leased, '0', '... at the end of a subtransaction that is rolled back');
$s->ask(q{COMMIT; BEGIN; SAVEPOINT a; SELECT example_leave('dn1', 'idle', 3); RELEASE a});
is(value($coord, $leased), '1', '... not at the end of one that is released');
$s->ask('ROLLBACK');
wait_until($coord, $leased, '0', '... but at the top\'s');
$s->ask(q{BEGIN; SELECT example_leave('dn2', 'busy', 3)});
$s->quit();
wait_until($coord, $leased, '0', '... at the session\'s end');
wait_until($dn{dn2}, q{SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid()},
	'0', '... with its statement cancelled');

# Where the node of a lease is.
is(value($coord, q{SELECT example_address('dn1')}), 'dn1 127.0.0.1 ' . $dn{dn1}->port, 'name, host and port of a node');

# All or nothing.
$s = session($coord);
$dn{dn2}->stop('fast');
like($s->refused(q{SELECT * FROM example_two_nodes('dn1', 'dn2')}), qr/08001(?s:.*)dn2/, 'one node is down: all or nothing');
is(value($coord, $leased), '0', '... nothing is held');
is($s->ask(q{SELECT example_pipeline('dn1', 3)}), '12', '... the other one works');

$s->quit();
finish();
