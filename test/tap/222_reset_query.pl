# pooler.reset_query runs once after each lease, off the session's path; what fails in it closes the
# connection; without one a round trip is made all the same.

use strict;
use warnings;
use PolarxParameter;
use PolarxPooler;
use PolarxProxy;
use Test::More;
use Time::HiRes qw(time);

my $coord = start_coordinator(conf => <<'END');
pooler.min_pool_size = 0
pooler.min_free_size = 0
pooler.pooler_dn_set_timeout = 2s
END
check_parameter($coord, name => 'pooler.reset_query', boot => 'DISCARD ALL', context => 'sighup',
	values => [ 'RESET ALL', '', 'SELECT 1; RESET ALL' ]);
my $dn = start_datanode('dn1', conf => "log_statement = all\nlog_min_messages = log\n");
add_node($coord, 'dn1', $dn);
value($dn, 'CREATE TABLE t (id int)');
my $s = session($coord);
my $one = q{SELECT pooler.exec('dn1', 'SELECT 1')};
my $pid_of = q{SELECT p FROM pooler.query('dn1', 'SELECT pg_backend_pid()') AS r(p int)};
my $work_mem = q{SELECT m FROM pooler.query('dn1', 'SHOW work_mem') AS r(m text)};
my $spoil = q{SELECT pooler.exec('dn1', 'SET work_mem = ''9MB''')};

# Every lease has come back: how many connections there are then.
sub at_rest
{
	my $total;
	wait_for('rest', sub {
			(my $idle, $total) = split /\|/, value($coord, 'SELECT sum(idle), sum(total) FROM pooler.pools');
			return $idle == $total;
		});
	return $total;
}

sub set_reset
{
	my ($query) = @_;
	at_rest();
	set_conf($coord, 'pooler.reset_query' => $query);
	value($coord, 'SELECT pooler.reload()');
	return log_offset($dn);
}

# The statements of the datanode's log that match, at rest.
sub sent { my ($offset, $like) = @_; at_rest(); return grep { $_->[1] =~ $like } statements($dn, $offset); }

sub errors { return value($coord, 'SELECT sum(closed_error) FROM pooler.pools'); }

# Once after each lease, whatever was done with it.
my $reset = qr/^DISCARD ALL$/;
my $offset = log_offset($dn);
my $pid = $s->ask("BEGIN; $pid_of");
is(scalar(grep { $_->[1] =~ $reset } statements($dn, $offset)), 0, 'a new connection is not reset before its first use');
$s->ask("$one; $one; COMMIT");
is(scalar(sent($offset, $reset)), 1, 'a transaction of several statements: reset once, at its end');
$offset = log_offset($dn);
for (1 .. 5)
{
	$s->ask($one);
	at_rest();
}
is(join(' ', map { $_->[0] } sent($offset, $reset)), join(' ', ($pid) x 5), 'five leases of a connection: five resets');
$offset = log_offset($dn);
$s->refused(q{BEGIN; SELECT pooler.exec('dn1', 'INSERT INTO t VALUES (1)'); SELECT pooler.exec('dn1', 'SELECT 1/0')});
$s->ask('ROLLBACK');
is(join(' ', map { "$_->[0] $_->[1]" } sent($offset, qr/^ROLLBACK|^DISCARD/)), "$pid ROLLBACK $pid DISCARD ALL",
	'after a failed transaction: rolled back, then reset, each once');
is(value($dn, 'SELECT count(*) FROM t'), '0', '... nothing of it stays');
$offset = log_offset($dn);
my $guest = session($coord);
$guest->ask("BEGIN; $spoil");
$guest->quit();
is(join(' ', map { "$_->[0] $_->[1]" } sent($offset, qr/^ROLLBACK|^DISCARD/)), "$pid ROLLBACK $pid DISCARD ALL",
	'a session that ends in a transaction: its connection is reset likewise');
$s->ask($spoil);
at_rest();
is($s->ask($work_mem), '4MB', 'the next lease finds the default');
$pid = $s->ask($pid_of);

# Changed by a reload.
$offset = set_reset('RESET timezone; SELECT 4711');
$s->ask($spoil);
is(scalar(sent($offset, qr/4711/)) . ' ' . scalar(sent($offset, $reset)), '1 0', 'changed by a reload: the new one instead of the old');
is($s->ask($work_mem) . ' ' . $s->ask($pid_of), "9MB $pid", '... what it does not reset stays, and so does the connection');
$s->ask(q{BEGIN; SELECT pooler.exec('dn1', 'INSERT INTO t VALUES (1)'); ROLLBACK});
at_rest();
is(value($dn, 'SELECT count(*) FROM t'), '0', '... a transaction is rolled back all the same');

# Off the session's path.
set_reset('SELECT pg_sleep(1.5)');
$s->ask("BEGIN; $one");
within(0.7, 'a reset that takes longer: COMMIT does not wait for it', sub { $s->ask('COMMIT') });
is(value($coord, "SELECT state FROM pooler.connections WHERE remote_pid = $pid"), 'resetting', '... it runs meanwhile');
within(0.7, '... nor does the next statement: it gets another connection', sub { isnt($s->ask($pid_of), $pid, 'another') });
is(value($coord, 'SELECT bool_and(total = idle + leased + parked + connecting + resetting) FROM pooler.pools'), 't',
	'... the view counts it');
at_rest();
value($coord, 'SELECT pooler.clean()');
at_rest();

# Empty: one round trip, and nothing else.
$offset = set_reset('');
$s->ask($spoil);
$pid = $s->ask($pid_of);
$s->ask($one);
is(join(',', map { $_->[1] } grep { $_->[1] !~ /work_mem|pg_backend_pid|SELECT 1|^BEGIN|^COMMIT|^START/ } sent($offset, qr/^/)),
	',,', 'empty: after each of three leases an empty statement, no other');
is($s->ask($work_mem), '9MB', '... it resets nothing');
at_rest();
my $holder = session($coord);
$holder->ask("BEGIN; $pid_of");
value($dn, "SELECT pg_terminate_backend($pid, 5000)");
$holder->quit();
isnt($s->ask($pid_of), $pid, '... a connection that is dead is not lent again');
my $proxy = PolarxProxy->before($dn->port);
add_node($coord, 'proxied', $dn, server => { port => $proxy->port });
my $errors = errors();
my $t = session($coord);
$t->ask(q{BEGIN; SELECT pooler.exec('proxied', 'SELECT 1')});
$proxy->freeze();
my $start = time;
$t->ask('ROLLBACK');
wait_until($coord, q{SELECT state FROM pooler.connections WHERE node = 'proxied'}, 'resetting', '... its answer is awaited');
wait_for('the connection to be closed', sub { errors() > $errors });
cmp_ok(time - $start, '>', 1.9, '... for as long as pooler_dn_set_timeout, then the connection is closed and counted');
$proxy->forward();

# What fails in it.
my %failing = (
	'SELECT 1/0' => qr/division by zero/,
	'SELECT 1; SELECT nothing_of_that_name' => qr/nothing_of_that_name/,
	'BEGIN' => qr/transaction/,
	'COPY t TO STDOUT' => qr/COPY/,
	'SELECT pg_terminate_backend(pg_backend_pid())' => qr/terminating|closed/);
for my $query (sort keys %failing)
{
	set_reset($query);
	$errors = errors();
	my $log = log_offset($coord);
	my @pids = map { $s->ask($pid_of) } 1 .. 2;
	wait_for('both to be closed', sub { errors() >= $errors + 2 });
	isnt($pids[0], $pids[1], "$query: its connection is not lent again");
	at_rest();
	is(errors(), $errors + 2, '... each is counted');
	wait_log($coord, qr/connection to datanode "dn1" is closed: pooler\.reset_query failed: .*$failing{$query}/, $log,
		'... the log says why');
	wait_until($dn, 'SELECT count(*) FROM pg_stat_activity WHERE pid IN (' . join(',', @pids) . ')', '0',
		'... they are gone at the datanode');
}
is($s->ask('SELECT count(*) FROM pooler.pools WHERE waiting > 0'), '0', 'nobody waits');
set_reset(undef);
$s->ask($spoil);
at_rest();
is($s->ask($work_mem), '4MB', 'with the default again all is as before');

$_->quit() for $s, $t;
finish();
