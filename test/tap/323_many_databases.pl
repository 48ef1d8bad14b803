# Far more databases than there is room for pooler workers: one clear warning, no flood in the log,
# sessions that get no pooler worker are told why, and those that have one do not notice.

use strict;
use warnings;
use PolarxPooler;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $kDatabases = $ENV{POLARX_DATABASES} || 200;
my $kPlain = 10;    # databases without the extension, besides the server's own
my $kRoom = 6;      # of eight, the server's own launcher and ours have one each

my $coord = start_coordinator(
	extension => 0,
	conf => "max_worker_processes = 8\nlog_min_messages = warning\nlog_statement = none\n");
my $dn = start_datanode('dn1');
my $one = q{SELECT pooler.exec('dn1', 'SELECT 1')};
my $states = q{SELECT state, count(*) FROM pooler.workers GROUP BY 1 ORDER BY 1};
my $warning = qr/WARNING:  could not start a pooler worker: out of background worker slots/;

sub count_log { my ($offset, $like) = @_; return scalar(() = log_since($coord, $offset) =~ /$like/g); }
sub has_worker
{
	return split /\n/, value($coord, q{SELECT datname FROM pg_stat_activity
		WHERE backend_type = 'polarx_pooler worker' AND application_name <> '' ORDER BY 1});
}

# Databases without the extension pass through one slot, one after the other, unnoticed.
value($coord, "CREATE DATABASE plain$_") for 1 .. $kPlain;
value($coord, 'CREATE DATABASE d1');
value($coord, 'CREATE EXTENSION polarx_pooler', db => 'd1');
add_node($coord, 'dn1', $dn, db => 'd1', server => { min_pool_size => 0, min_free_size => 0 });
set_conf($coord, max_worker_processes => 3);
my $offset = log_offset($coord);
$coord->restart();
wait_until($coord, $states, 'ready|1', 'room for one: all databases are looked into', db => 'd1');
is(value($coord, $one, db => 'd1'), 'SELECT 1', '... the one with the extension works');
is(count_log($offset, $warning), 0, '... which is worth no warning');
fails_with($coord, 'SELECT pooler.start()', '3F000', qr/pooler/, '... the others have nothing of the pooler', db => 'plain1');

# Two hundred with the extension, room for six.
value($coord, 'SELECT pooler.stop()', db => 'd1');
$coord->safe_psql('postgres', join "\n", map { "CREATE DATABASE d$_ TEMPLATE d1 STRATEGY file_copy;" } 2 .. $kDatabases);
set_conf($coord, max_worker_processes => 8);
$offset = log_offset($coord);
$coord->restart();
wait_for('as many pooler workers as there is room for', sub { has_worker() == $kRoom });
wait_for('the warning', sub { count_log($offset, $warning) > 0 });
my @with = has_worker();
my %has = map { $_ => 1 } @with;
my @without = grep { !$has{$_} } map { "d$_" } 1 .. $kDatabases;
is(value($coord, $states, db => $with[0]), "ready|$kRoom", 'the view shows who works; of the others nothing is known yet');
is(value($coord, $one, db => $_), 'SELECT 1', "$_ has one and works") for @with[ 0, -1 ];

# One that has none, by any way in.
my ($left_out, @asking) = @without;
my $tells = qr/DETAIL:.*all background worker slots are in use(?s:.*)HINT:.*max_worker_processes/;
for my $sql ($one, 'SELECT * FROM pooler.pools', 'SELECT pooler.start()', 'SELECT * FROM pooler.ping()', 'SELECT pooler.reload()')
{
	within(8, "$left_out has none: $sql", sub {
			fails_with($coord, $sql, '57P03', $tells, '... 57P03 that says why', db => $left_out) });
}
is(value($coord, "SELECT state, pid, threads FROM pooler.workers WHERE datname = '$left_out'", db => $with[0]), 'failed||',
	'... which the view shows from now on');

# Many at once, while the pool of one that has a pooler worker is at work.
my $busy = session($coord, db => $with[0]);
my %answer;
my @runs = map {
	my $db = $_;
	IPC::Run::start([ 'psql', '-XAtq', '-v', 'VERBOSITY=verbose', '-d', $coord->connstr($db), '-c', $one ],
		'>', '/dev/null', '2>', \$answer{$db});
} @asking[ 0 .. 39 ];
my ($count, $slowest) = meanwhile($busy, 'dn1', sub { !grep { $_->pumpable && do { $_->pump_nb; 1 } } @runs });
$_->finish() for @runs;
is_deeply([ grep { $answer{$_} !~ /ERROR:  57P03: (?s:.*)$tells/ } sort keys %answer ], [],
	'sessions of forty databases ask at once: each is told');
cmp_ok($slowest, '<', 3, sprintf('... which who has one hardly notices (%d statements, %.2f s the slowest)', $count, $slowest));
is(value($coord, $states, db => $with[0]), "failed|41\nready|$kRoom", '... the view shows those forty, too');
is(count_log($offset, $warning), 1, 'there was one warning');
cmp_ok(count_log($offset, qr/(?:LOG|WARNING):.*pooler worker/), '<=', $kRoom + 1, '... and nothing else than who became ready');
like(log_since($coord, $offset), qr/$warning\n.*DETAIL:  .*\n.*HINT:  .*"max_worker_processes"/, '... with what to do');

# A slot that comes free is taken by one of them, without another warning.
$busy->quit();
within(4, 'DROP DATABASE of one that has a pooler worker', sub { value($coord, "DROP DATABASE $with[0]") });
wait_for('another one in its place', sub { has_worker() == $kRoom });
my ($new) = grep { !$has{$_} } has_worker();
is(value($coord, $one, db => $new), 'SELECT 1', "$new has taken the place");
is(count_log($offset, $warning), 1, '... without another warning');

# Room for all.
set_conf($coord, max_worker_processes => $kDatabases + 10);
$offset = log_offset($coord);
$coord->restart();
wait_until($coord, $states, 'ready|' . ($kDatabases - 1), 'room for all: each has its pooler worker', db => $new, limit => 60);
is(value($coord, $one, db => $_), 'SELECT 1', "... $_ works") for $left_out, $asking[-1];
unlike(log_since($coord, $offset), $warning, '... without a warning');
within(20, '... the server stops soon', sub { $coord->stop('fast') });
# Perl's own way takes long for so many files.
system 'rm', '-rf', $coord->data_dir . '/base';
finish();
