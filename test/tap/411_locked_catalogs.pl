# Catalogs that a session has locked: the pooler worker goes on with what it has read before, for the
# very session too, says so in the log, and catches up once the lock is gone. A worker or launcher
# that starts meanwhile says why it cannot.

use strict;
use warnings;
use PolarxPooler;
use Test::More;

my $stopped;    # a process to be continued, come what may
END { kill 'CONT', $stopped if $stopped; }

my $coord = start_coordinator(conf => <<'END');
pooler.min_pool_size = 0
pooler.min_free_size = 0
END
my $dn = start_datanode('dn1', roles => { stranger => undef });
add_node($coord, $_, $dn) for 'dn1', 'dn2';
value($coord, 'CREATE ROLE stranger LOGIN');
add_mapping($coord, 'stranger', 'dn1', password_required => 'false');
my $one = q{SELECT pooler.exec('dn1', 'SELECT 1')};
my $size = q{SELECT max_size FROM pooler.pools WHERE node = 'dn2'};
my ($holder, $other, $watch) = map { session($coord) } 1 .. 3;
$_->ask($one) for $holder, $other, $watch;
my $changes = 100;

# Another node's definition changes, and the catalogs are locked before the pooler worker has seen it.
sub change_and_lock
{
	my ($lock) = @_;
	my $worker = $stopped = worker_pid($coord);
	kill 'STOP', $worker;
	my $verb = $changes++ == 100 ? 'ADD' : 'SET';
	$other->ask("ALTER SERVER dn2 OPTIONS ($verb max_pool_size '$changes')");
	my $waiting = $lock->();
	kill 'CONT', $worker;
	undef $stopped;
	return ($worker, $waiting);
}

# --- a change behind a lock -------------------------------------------------------------------------
for my $catalog (qw(pg_foreign_server pg_user_mapping pg_foreign_data_wrapper pg_extension pg_foreign_server_oid_index
	pg_user_mapping_user_server_index pg_authid pg_class pg_attribute))
{
	my $offset = log_offset($coord);
	my ($worker) = change_and_lock(sub {
			my $sql = $catalog =~ /index/ ? "REINDEX INDEX pg_catalog.$catalog" : "LOCK TABLE pg_catalog.$catalog IN ACCESS EXCLUSIVE MODE";
			$holder->ask("BEGIN; $sql") });
	is($holder->ask($one), 'SELECT 1', "$catalog locked: the session that has locked it is served");
	is($other->ask($one), 'SELECT 1', '... and so is another one') if $catalog !~ /class|attribute/;
	$holder->ask('COMMIT');
	wait_until($coord, $size, $changes, '... and once it is unlocked the change is known');
	is(worker_pids($coord), $worker, '... by the same pooler worker');
	my $log = log_since($coord, $offset);
	my @told = $log =~ /pooler worker (cannot read the system catalogs and goes on|reads the system catalogs again)/g;
	ok(@told == 0 || "@told" eq 'cannot read the system catalogs and goes on reads the system catalogs again',
		'... the log tells of it once, or had no reason to') or diag "@told";
	ok(scalar @told, "... it had one: $catalog") if $catalog =~ /^pg_(?:foreign_server|user_mapping)$/;
}

# A lock that is only waited for bars the way as well: a session has read the catalog, VACUUM FULL waits
# for it, and the pooler worker would wait for VACUUM FULL.
change_and_lock(sub {
		$holder->ask('BEGIN; SELECT count(*) FROM pg_user_mapping');
		$watch->tell('VACUUM FULL pg_user_mapping');
		wait_until($coord, q{SELECT count(*) FROM pg_locks WHERE NOT granted}, '1', 'VACUUM FULL waits for a session') });
is($holder->ask($one), 'SELECT 1', '... which is served by the pooler');
$holder->ask('COMMIT');
is(($watch->hear())[1], '', '... then it ends');
wait_until($coord, $size, $changes, '... and the change is known');

# --- what the pooler worker does not know yet ---------------------------------------------------------
my $new = session($coord, user => 'stranger');
value($coord, 'SELECT pooler.clean()');
my ($worker) = change_and_lock(sub { $holder->ask('BEGIN; LOCK TABLE pg_foreign_server, pg_user_mapping, pg_authid IN ACCESS EXCLUSIVE MODE') });
$holder->ask('CREATE ROLE h9 SUPERUSER; SET LOCAL ROLE h9; SAVEPOINT a');
my $refused = $holder->refused($one);
like($refused, qr/ERROR:  55P03: could not look up the datanode and its user mapping/, 'a role that is not known: 55P03');
like($refused, qr/DETAIL:  .*another process holds a lock on a system catalog/, '... says why');
$holder->ask('ROLLBACK TO a; RESET ROLE');
is($holder->ask($one), 'SELECT 1', '... and the session goes on');
is($holder->ask('SELECT pooler.reload()'), '', 'pooler.reload() does not wait for the lock');
$holder->ask('COMMIT');
is($new->ask($one), 'SELECT 1', 'unlocked: a session that comes now is served');
wait_until($coord, 'SELECT pooler.check()', 't', '... and soon the nodes are what the catalog says');

# One whose process cannot be looked up is let in all the same.
my $late = session($coord, user => 'stranger');
$late->ask('SELECT 1');
change_and_lock(sub { $holder->ask('BEGIN; LOCK TABLE pg_authid IN ACCESS EXCLUSIVE MODE') });
is($late->ask($one), 'SELECT 1', 'pg_authid locked: a session attaches and is served');
$holder->ask('COMMIT');
is(worker_pids($coord), $worker, '... all by the same pooler worker');

# --- starts -----------------------------------------------------------------------------------------
my $offset = log_offset($coord);
$holder->ask('BEGIN; LOCK TABLE pg_foreign_server IN ACCESS EXCLUSIVE MODE');
kill 'TERM', $worker;
wait_log($coord, qr/FATAL: .*could not read the system catalogs/, $offset, 'a pooler worker that starts meanwhile ends');
$refused = $holder->refused("SAVEPOINT a; $one");
like($refused, qr/ERROR:  57P03: .*is not running(?s:.*)another process holds a lock on a system catalog/, '... a request is told why');
$holder->ask('COMMIT');
wait_until($coord, $one, 'SELECT 1', '... and it starts when the lock is gone');

my $launcher = value($coord, q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'polarx_pooler launcher'});
$holder->ask('BEGIN; LOCK TABLE pg_database IN ACCESS EXCLUSIVE MODE');
$offset = log_offset($coord);
$worker = value_of_worker();
kill 'TERM', $launcher, $worker;
sub value_of_worker { return $holder->ask(q{SELECT pid FROM pooler.workers}) }
wait_for('both to end', sub { ended($launcher) && ended($worker) });
my $back = q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'polarx_pooler launcher' AND pid <> } . $launcher;
wait_for('the launcher', sub { $holder->ask("SELECT pg_stat_clear_snapshot(); $back") =~ /1$/ });
$refused = $holder->refused("SAVEPOINT a; $one");
like($refused, qr/ERROR:  57P03: .*is not running(?s:.*)(?:another process holds a lock|did not become ready)/, 'pg_database locked: a request is told why');
$holder->ask('COMMIT');
wait_until($coord, $one, 'SELECT 1', '... and all is well when the lock is gone');
is(value($coord, $back), '1', '... by the same launcher as before');
unlike(log_since($coord, $offset), qr/launcher" \(PID (?!$launcher\b)\d+\) exited/, '... which has not ended meanwhile');

finish();
