# Cancelling: the session is free at once, and nothing runs on at the datanode.

use strict;
use warnings;
use PolarxPooler;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $coord = start_coordinator();
my %dn = map { $_ => start_datanode($_) } qw(dn1 dn2);
add_node($coord, $_, $dn{$_}) for sort keys %dn;
value($_, 'CREATE TABLE t (id int)') for values %dn;

my %long = (
	'exec' => q{SELECT pooler.exec('dn1', 'SELECT pg_sleep(60)')},
	'query' => q{SELECT * FROM pooler.query('dn1', 'SELECT 1 FROM pg_sleep(60)') AS r(n int)},
	'query with a stream of rows' =>
	  q{SELECT count(*) FROM pooler.query('dn1', 'SELECT generate_series(1, 1000000000)') AS r(n int)},
	'query that computes' =>
	  q{SELECT count(*) FROM pooler.query('dn1', 'SELECT count(*) FROM generate_series(1, 10000) a, generate_series(1, 1000000) b') AS r(n int)},
	'query_all' => q{SELECT * FROM pooler.query_all('SELECT 1 FROM pg_sleep(60)') AS r(node name, n int)},
	'exec_all' => q{SELECT * FROM pooler.exec_all('SELECT pg_sleep(60)')},
	'exec_autocommit' => q{SELECT pooler.exec_autocommit('dn1', 'SELECT pg_sleep(60)')},
	'exec_all_autocommit' => q{SELECT * FROM pooler.exec_all_autocommit('SELECT pg_sleep(60)')});
my $running = q{SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid()
	AND backend_type = 'client backend'};
sub nothing_runs
{
	my ($name) = @_;
	wait_until($dn{$_}, $running, '0', "$name: nothing runs on at $_", limit => 3) for sort keys %dn;
	return;
}

my $s = session($coord);
for my $name (sort keys %long)
{
	$s->ask(q{SET statement_timeout = '300ms'});
	within(1.3, "$name: statement_timeout", sub {
			like($s->refused($long{$name}), qr/57014.*statement timeout/, '... is the error') });
	nothing_runs($name);
	$s->ask('RESET statement_timeout');
	$s->tell($long{$name});
	wait_until($dn{dn1}, $running, '1', '... again');
	within(1, "$name: pg_cancel_backend", sub {
			value($coord, 'SELECT pg_cancel_backend(' . $s->pid . ')');
			like(($s->hear())[1], qr/57014.*user request/, '... is the error');
		});
	nothing_runs($name);
	is($s->ask(q{SELECT count(*) FROM pooler.exec_all('SELECT 1')}), '2', '... the session works on');
}

# One node fails: the others are cancelled.
within(1.5, 'one node fails: query_all does not wait for the other', sub {
		fails_with($coord, q{SELECT * FROM pooler.query_all($$SELECT CASE current_setting('port')::int
			WHEN } . $dn{dn2}->port . q{ THEN 1/(random() * 0)::int ELSE (SELECT 1 FROM pg_sleep(60)) END$$) AS r(node name, n int)},
			'22012', qr/dn2/, '... the error of the node') });
nothing_runs('... which is cancelled');

# Within a savepoint.
$s->ask(q{BEGIN; SELECT pooler.exec('dn1', 'INSERT INTO t VALUES (1)'); SAVEPOINT a; SET LOCAL statement_timeout = '200ms'});
like($s->refused(q{SELECT pooler.exec('dn1', 'INSERT INTO t SELECT 2 FROM pg_sleep(60)')}), qr/57014/, 'cancelled after a savepoint');
$s->ask(q{ROLLBACK TO a; SELECT pooler.exec('dn1', 'INSERT INTO t VALUES (3)'); COMMIT});
is(value($dn{dn1}, q{SELECT string_agg(id::text, ',' ORDER BY id) FROM t}), '1,3', '... the transaction goes on from there');

# A cancel never hits the next holder.
value($coord, q{ALTER SERVER dn1 OPTIONS (ADD max_pool_size '1')});
wait_until($coord, q{SELECT max_size FROM pooler.pools WHERE node = 'dn1'}, '1', 'one connection');
wait_until($coord, q{SELECT total FROM pooler.pools WHERE node = 'dn1'}, '1', '... no more');
my $other = session($coord);
$_->ask(q{SET pooler.queue_timeout = '10s'}) for $s, $other;
$s->ask(q{SET statement_timeout = '15ms'});
my ($cancelled, $hit) = (0, '');
for my $round (1 .. 40)
{
	$s->tell(q{SELECT pooler.exec('dn1', 'SELECT pg_sleep(0.013)')});
	$other->tell(q{SELECT pooler.exec('dn1', 'SELECT pg_sleep(0.005)')});
	my (undef, $err) = $s->hear();
	$cancelled++ if $err =~ /57014/;
	(undef, $err) = $other->hear();
	$hit .= $err;
}
is($hit, '', 'the next holder of a connection is never hit by a cancel');
cmp_ok($cancelled, '>', 0, "... though $cancelled of 40 statements were cancelled");

# A datanode that takes no cancel: its postmaster stands still.
$_->quit() for $s, $other;
($s, $other) = (session($coord), session($coord));
my ($postmaster) = slurp_file($dn{dn1}->data_dir . '/postmaster.pid') =~ /^(\d+)/;
$s->tell($long{exec});
wait_until($dn{dn1}, $running, '1', 'a long statement');
# Looking into it takes a session that is there already.
my $inside = session($dn{dn1});
kill 'STOP', $postmaster;
within(1, 'the datanode takes no cancel: the session is free all the same', sub {
		value($coord, 'SELECT pg_cancel_backend(' . $s->pid . ')');
		like(($s->hear())[1], qr/57014/, '... and hears so');
	});
is($s->ask(q{SELECT pooler.exec('dn2', 'SELECT 1')}), 'SELECT 1', '... the other node works');
wait_for('the statement to end', sub { $inside->ask($running) eq '0' });
pass('... the statement ends even so');
$inside->quit();
my $worker = worker_pid($coord);
my $start = mark();
kill 'TERM', $worker;
wait_for('the worker to end', sub { !kill 0, $worker });
cmp_ok(calm_since($start), '<', 1, '... the worker can end within a second');
kill 'CONT', $postmaster;

# The session is terminated, or its client goes.
$s->quit();
$s = session($coord);
$s->tell($long{query});
wait_until($dn{dn1}, $running, '1', 'a long query');
within(1, 'pg_terminate_backend', sub { value($coord, 'SELECT pg_terminate_backend(' . $s->pid . ', 5000)') });
nothing_runs('... terminated');
eval { $s->hear() };
is($other->ask(q{SELECT pooler.exec('dn1', 'SELECT 1')}), 'SELECT 1', 'the pool works on');

$other->quit();
finish();
