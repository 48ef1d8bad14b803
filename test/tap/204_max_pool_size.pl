# pooler.max_pool_size: never exceeded, counted on the datanode, whatever happens meanwhile; who makes
# room, who waits, who is rejected.

use strict;
use warnings;
use IPC::Run ();
use PolarxParameter;
use PolarxPooler;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $coord = start_coordinator(conf => <<'END');
pooler.max_pool_size = 8
pooler.min_pool_size = 0
pooler.min_free_size = 0
pooler.pool_maintenance_timeout = -1
pooler.pooler_dn_set_timeout = 2s
END
check_parameter($coord, name => 'pooler.max_pool_size', boot => 300, start => 8, min => 1, max => 65535,
	context => 'sighup');

my %password = map { $_ => "secret-$_" } qw(r1 r2 r3 few);
my $dn = start_datanode('dn1', roles => \%password, conf => "password_encryption = md5\n");
value($dn, 'ALTER ROLE few CONNECTION LIMIT 1');
unlink $dn->data_dir . '/pg_hba.conf';
$dn->append_conf('pg_hba.conf', join "\n", 'local all all trust',
	'host all ' . me() . ' 127.0.0.1/32 trust', 'host all all 127.0.0.1/32 md5');
$dn->restart();
add_node($coord, 'dn1', $dn);
add_holders($coord, 12, 'dn1');
value($coord, join ';', map { "CREATE ROLE $_ LOGIN" } qw(c1 c2 c3 few wrong));
add_mapping($coord, "c$_", 'dn1', user => "r$_", password => $password{"r$_"}) for 1 .. 3;
add_mapping($coord, 'few', 'dn1', user => 'few', password => $password{few});
add_mapping($coord, 'wrong', 'dn1', user => 'r1', password => 'guessed');

my $watch = session($coord);
my $look = session($dn);
my $take = q{SELECT pooler.exec('dn1', 'SELECT 1')};
my $sizes = 'SELECT sum(total), sum(idle), sum(leased) FROM pooler.pools';
my $rejected = 'SELECT sum(rejected) FROM pooler.pools';
my $superusers = qq{FROM pooler.pools WHERE remote_user = '${\me()}'};
my $full = qr/53300(?s:.*)pool of datanode "dn1" is full/;

# On the datanode: the most TCP clients at a time, counted about a thousand times a second until told
# to stop.
value($dn, q{CREATE TABLE watching AS SELECT false AS stop; CREATE FUNCTION most_clients(OUT most int, OUT looks int) LANGUAGE plpgsql AS $$
	DECLARE n int;
	BEGIN
		most := 0; looks := 0;
		WHILE NOT (SELECT stop FROM watching) AND now() > clock_timestamp() - interval '50 s' LOOP
			PERFORM pg_stat_clear_snapshot();
			SELECT count(*) INTO n FROM pg_stat_activity WHERE backend_type = 'client backend' AND client_addr IS NOT NULL;
			most := greatest(most, n); looks := looks + 1;
			PERFORM pg_sleep(0.0007);
		END LOOP;
	END $$});

sub start_counting
{
	value($dn, 'UPDATE watching SET stop = false');
	my $counter = session($dn);
	$counter->tell('SELECT most, looks FROM most_clients()');
	return $counter;
}

sub most_counted
{
	my ($counter) = @_;
	value($dn, 'UPDATE watching SET stop = true');
	my ($most, $looks) = split /\|/, ($counter->hear())[0];
	note "most $most of $looks looks";
	$counter->quit();
	return $most;
}

my @stopped;
END { kill 'CONT', @stopped; }

# Every slot is leased.
my $counter = start_counting();
my $s = session($coord);
$s->ask('BEGIN');
hold($s, 'dn1', 1, 8);
is($watch->ask($sizes), '8|0|8', 'eight leases');
within(2, 'one more', sub {
		my $text = fails_with($coord, $take, '53300', qr/"dn1" is full/, '... is rejected at once');
		my $who = $s->pid;
		like($text, qr/DETAIL:.*\b8 of at most 8\b.*Process $who has held one for/, '... with the counts, and who holds');
		like($text, qr/HINT:.*max_pool_size/, '... and a hint');
	});
fails_with($coord, $take, '53300', qr/"dn1" is full/, 'another role too', user => 'c1');
is($watch->ask("SELECT remote_user, rejected FROM pooler.pools WHERE rejected > 0 ORDER BY rejected DESC, 1"),
	join("\n", sort(me() . '|1', 'r1|1')), 'each is counted in its own pool');
my @many = map { session($coord) } 1 .. 5;
$_->tell($take) for @many;
is(scalar(grep { ($_->hear())[1] =~ $full } @many), 5, 'five at once');
is($watch->ask($rejected), 7, '... are counted as well');

# Idle connections of another pool make room.
$s->ask('COMMIT');
wait_until($coord, $sizes, '8|8|0', 'eight idle connections of one pool');
for my $n (1 .. 3)
{
	is(value($coord, "$take", user => "c$n"), 'SELECT 1', "role c$n finds room");
}
is($watch->ask("SELECT total $superusers"), 5, '... one for each came from that pool');
$s->ask('BEGIN');
hold($s, 'dn1', 1, 8);
is($watch->ask("SELECT leased $superusers"), 8, 'and back');
$s->ask('COMMIT');
is($watch->ask($rejected), 7, '... nobody was rejected');
is(most_counted($counter), 8, 'the datanode never had more');

# Without queue_timeout: who waits all the same, because a slot is on its way.
value($coord, q{ALTER SERVER dn1 OPTIONS (ADD max_pool_size '1')});
wait_until($coord, $sizes, '1|1|0', 'the server\'s own limit is smaller, idle connections above it go');
is($watch->ask("SELECT DISTINCT max_size FROM pooler.pools"), 1, '... pools.max_size shows it');
set_conf($coord, 'pooler.reset_query' => 'SELECT pg_sleep(1)');
value($coord, 'SELECT pooler.reload()');
$s->ask($take);
my $start = time;
is($watch->ask($take), 'SELECT 1', 'the only connection is being reset: a request waits');
cmp_ok(time - $start, '>', 0.5, '... for its end');
set_conf($coord, 'pooler.reset_query' => undef);
value($coord, 'SELECT pooler.reload(), pooler.clean()');
wait_until($coord, $sizes, '0|0|0', 'no connection');

my $offset = log_offset($dn);
$look->ask($_) for 'ALTER SYSTEM SET post_auth_delay = 2', 'SELECT pg_reload_conf()';
wait_log($dn, qr/parameter "post_auth_delay" changed to "2"/, $offset, 'a datanode that is slow to let in');
$many[0]->tell("BEGIN; $take");
wait_for('a connect', sub { $watch->ask('SELECT sum(connecting), sum(waiting) FROM pooler.pools') eq '1|1' });
like($watch->refused($take), $full, 'the only connection is being opened, for an older request: the next one is told at once');
is(($many[0]->hear())[1], '', '... when that one has got it');
$look->ask($_) for 'ALTER SYSTEM RESET post_auth_delay', 'SELECT pg_reload_conf()';
$many[0]->ask('COMMIT');

my $victim = session($coord);
my $remote = $victim->ask(q{BEGIN; SELECT p FROM pooler.query('dn1', 'SELECT pg_backend_pid()') AS r(p int)});
push @stopped, $remote;
kill 'STOP', $remote;
value($coord, 'SELECT pg_terminate_backend(' . $victim->pid . ')');
wait_until($coord, 'SELECT sum(leased), sum(resetting) FROM pooler.pools', '0|1',
	'a connection that the datanode does not close');
my $before = $watch->ask($rejected);
$start = time;
is($watch->ask($take), 'SELECT 1', '... counts until pooler_dn_set_timeout: a request waits');
cmp_ok(time - $start, '>', 0.7, sprintf('... that long (%.2f s)', time - $start));
kill 'CONT', @stopped;
@stopped = ();
is($watch->ask($rejected), $before, '... none of those who waited was counted as rejected');

# The server's own limit may be larger too; lowered and raised by a reload.
value($coord, q{ALTER SERVER dn1 OPTIONS (SET max_pool_size '10')});
$s->ask('BEGIN');
hold($s, 'dn1', 1, 10);
fails_with($coord, $take, '53300', qr/10 of at most 10/, 'a server\'s limit above the parameter');
$s->ask('COMMIT');
value($coord, 'ALTER SERVER dn1 OPTIONS (DROP max_pool_size)');
wait_until($coord, $sizes, '8|8|0', 'without it the parameter holds');
$_->ask('BEGIN') for $s, @many;
hold($s, 'dn1', 1, 4);
hold($many[$_], 'dn1', 5 + $_, 5 + $_) for 0, 1;
set_conf($coord, 'pooler.max_pool_size' => 3);
wait_until($coord, $sizes, '6|0|6', 'lowered: idle connections go');
fails_with($coord, $take, '53300', qr/6 of at most 3/, '... more are refused');
$many[0]->ask('COMMIT');
wait_until($coord, $sizes, '5|0|5', '... a leased one goes at its release');
$many[1]->ask('COMMIT');
wait_until($coord, $sizes, '4|0|4', '... the next one too');
$s->ask('COMMIT');
wait_until($coord, $sizes, '3|3|0', '... until it is reached');
wait_for('the datanode', sub { backends($dn) == 3 });
$s->ask('BEGIN');
hold($s, 'dn1', 1, 3);
$many[0]->tell("SET pooler.queue_timeout = '30s'; $take");
wait_until($coord, 'SELECT sum(waiting) FROM pooler.pools', '1', 'one waits');
set_conf($coord, 'pooler.max_pool_size' => 8);
is(($many[0]->hear())[1], '', 'raised: who waited is served, though nobody has given anything back');
$s->ask('COMMIT');
$_->quit() for @many;

# What a pooler worker has lent counts when it is gone, too.
$s->ask('BEGIN');
hold($s, 'dn1', 1, 6);
my $worker = worker_pid($coord);
value($coord, "SELECT pg_terminate_backend($worker)");
$worker = worker_pid($coord, 'postgres', $worker);
$watch->ask('SELECT 1 FROM pooler.pools');
@many = map { session($coord) } 1 .. 4;
my @answers = map { $_->tell("BEGIN; $take"); ($_->hear())[1] } @many[ 0 .. 2 ];
is("@answers[0, 1]", ' ', 'six leases outlive their pooler worker: two more are lent');
like($answers[2], $full, '... the third is rejected');
is(backends($dn), 8, '... eight are on the datanode');
$many[3]->tell("SET pooler.queue_timeout = '20s'; $take");
wait_until($coord, 'SELECT count(*) FROM pooler.sessions WHERE waiting_for IS NOT NULL', '1', '... one more waits');
is(backends($dn), 8, '... and no connection is opened for it');
$s->ask('COMMIT');
is(($many[3]->hear())[1], '', '... until those are given back');
$_->quit() for @many;

# Sixty sessions race: new ones all the time, four remote users, connects that fail, connections that
# age, sessions that are killed while they hold.
value($coord, join ';', map { "ALTER ROLE $_ SET pooler.queue_timeout = '50s'" } qw(c1 c2 c3 few wrong));
set_conf($coord, 'pooler.pool_session_max_lifetime' => '1s', 'pooler.min_pool_size' => 1, 'pooler.min_free_size' => 1);
my $script = PostgreSQL::Test::Utils::tempdir() . '/take.sql';
append_to_file($script, qq{SELECT pooler.exec('dn1', 'SELECT pg_sleep(0.05)');\n});

# The race; $meanwhile is called again and again, for as many seconds. Returns the most connections.
sub race
{
	my ($name, $seconds, $meanwhile) = @_;
	my $counter = start_counting();
	my @err = ('') x 3;
	my @out = ('') x 3;
	my @runs = map { IPC::Run::start(
			[ 'pgbench', '-n', '-C', '-c', 16, '-T', $seconds, '-f', $script, '-h', $coord->host, '-p', $coord->port,
				'-U', "c$_", 'postgres' ],
			'>', \$out[ $_ - 1 ], '2>', \$err[ $_ - 1 ]) } 1 .. 3;
	my @failing = map { session($coord, user => $_) } ('wrong', 'few') x 6;
	$_->tell("$take;\nSELECT pg_sleep(0.02);\n" x ($seconds * 40)) for @failing;
	my $end = time + $seconds;
	$meanwhile->() while time < $end;
	$_->finish() for @runs;
	is(scalar(grep { /aborted|error/i } @err), 0, "$name: nobody who waited has failed") or diag @err;
	my $done = 0;
	/actually processed: (\d+)/ and $done += $1 for @out;
	cmp_ok($done, '>', 20 * $seconds, "... and many were served ($done)");
	my ($wrong, $few) = map { ($failing[$_]->hear())[1] } 0, 1;
	like($wrong, qr/ERROR:  28P01/, '... a wrong password raced along');
	unlike($wrong, qr/ERROR:  (?!28P01)/, '... and got no other answer');
	like($few, qr/too many connections for role/, '... and a role that may connect once');
	$_->quit() for @failing;
	wait_until($coord, 'SELECT sum(leased), sum(waiting) FROM pooler.pools', '0|0', '... all is given back');
	return most_counted($counter);
}

# Ends a session while the datanode is busy for it.
sub kill_a_holder
{
	my $victim = session($coord, user => 'c1');
	my $pid = $victim->pid;
	$victim->tell(q{SELECT pooler.exec('dn1', 'SELECT pg_sleep(30)')});
	wait_for('a lease', sub { $watch->ask("SELECT leases FROM pooler.sessions WHERE pid = $pid") eq '1' });
	value($coord, "SELECT pg_terminate_backend($pid)");
	$victim->quit();
	return;
}

is(race('race', 4, sub { kill_a_holder(); $watch->ask('SELECT pooler.clean()'); usleep(100_000) }), 8,
	'... the datanode had as many as it may have and never more');
is($watch->ask("SELECT bool_and(rejected = 0) FROM pooler.pools WHERE remote_user ~ '^r[23]'"), 't',
	'... nobody was rejected');
$s->ask("SET pooler.queue_timeout = '50s'");
my $restarts = 0;
my $most = race('race with the pooler worker restarting', 5, sub {
		my $old = worker_pid($coord);
		$s->ask('BEGIN');
		hold($s, 'dn1', 1, 2);
		value($coord, "SELECT pg_terminate_backend($old)");
		worker_pid($coord, 'postgres', $old);
		++$restarts;
		kill_a_holder();
		usleep(300_000);
		$s->ask('COMMIT');
	});
cmp_ok($restarts, '>=', 1, "... $restarts times");
is($most, 8, '... the datanode never had more: what the old worker has lent counts');

$_->quit() for $s, $watch, $look;
finish();
