# A datanode with 300 pooled connections restarts, crashes, or ends them all: they are opened again a few
# at a time, and it never has to refuse one for want of room.

use strict;
use warnings;
use IPC::Run ();
use PolarxPooler;
use PolarxProxy;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my ($connections, $minimum, $parallel) = (300, 150, 8);
# Room for the pool and nothing else; this test looks in by what is reserved for superusers.
my $dn = start_datanode('dn', conf => "max_connections = @{[ $connections + 5 ]}\nsuperuser_reserved_connections = 5\nrestart_after_crash = on\n",
	roles => { plain => undef });
my $proxy = PolarxProxy->before($dn->port);
my $coord = start_coordinator(conf => <<"END");
max_connections = @{[ $connections + 50 ]}
pooler.max_pool_size = $connections
pooler.min_free_size = 0
pooler.pool_maintenance_timeout = 1s
pooler.pool_conn_keepalive = -1
END
value($coord, 'CREATE ROLE asker LOGIN');
add_node($coord, 'dn', $dn, mapping => 0, server => { port => $proxy->port, min_pool_size => $minimum });
add_mapping($coord, 'asker', 'dn', user => 'plain', password_required => 'false');
my $admin = session($coord);
sub pool { return $admin->ask("SELECT $_[0] FROM pooler.pools WHERE node = 'dn'"); }

my $files = PostgreSQL::Test::Utils::tempdir();
append_to_file("$files/hold.sql", q{BEGIN; SELECT pooler.exec('dn', 'SELECT 1'); SELECT pg_advisory_xact_lock_shared(1); COMMIT;} =~ s/; /;\n/gr . "\n");
my @askers = map { session($coord, user => 'asker') } 1 .. 20;
my $one = q{SELECT pooler.exec('dn', 'SELECT 1')};

# As many sessions as there may be connections each hold one; afterwards all of them are idle.
sub all_lent
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$admin->ask('SELECT pg_advisory_lock(1)');
	my ($out, $err) = ('', '');
	local $ENV{PGOPTIONS} = '-c pooler.queue_timeout=50s';
	my $crowd = IPC::Run::start([ 'pgbench', '-n', '-c', $connections, '-j', 1, '-t', 1, '-f', "$files/hold.sql",
			'-h', $coord->host, '-p', $coord->port, '-U', 'asker', 'postgres' ],
		'<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(120));
	my $lent = eval { wait_for('all connections to be lent', sub { pool('leased') eq $connections }, 60) };
	ok(defined $lent, "$name: $connections sessions hold a connection each") or diag pool('total, idle, leased, waiting, last_error');
	$admin->ask('SELECT pg_advisory_unlock(1)');
	$crowd->finish();
	like($out, qr{actually processed: $connections/$connections}, '... and give it back') or diag $err;
	wait_for('all to be idle', sub { pool('idle + parked') eq $connections });
	return;
}

# The pooler's attempts since the last look: few at a time, none refused for want of room.
my $offset;
sub look { $proxy->recount(); $offset = log_offset($dn); return; }
sub gently
{
	my ($name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $most = $proxy->figures->{most_opening};
	ok($most > 0 && $most <= $parallel, "$name: at most $parallel connections are opened at a time ($most)");
	my $refused = () = log_since($dn, $offset) =~ /FATAL:  (?:sorry, too many clients|remaining connection slots)/g;
	is($refused, 0, '... and none is refused for want of room');
	return;
}

look();
all_lent('at first');
gently('at first');

my $restarted = sub { $dn->restart(); };
my $crashed = sub {
	my $pid = value($dn, q{SELECT pid FROM pg_stat_activity WHERE usename = 'plain' LIMIT 1});
	kill 'KILL', $pid;
};
my $ended = sub { value($dn, q{SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'plain'}); };
for my $turn ([ 'a restart', $restarted ], [ 'a crash', $crashed ], [ 'all ended', $ended ])
{
	my ($name, $event) = @$turn;
	my ($connects, $failures) = split /\|/, pool('connects, connect_failures');
	look();
	$event->();
	my ($served, %errors) = (0);
	wait_for('all to be served again', sub {
			$served = 0;
			$_->tell($one) for @askers;
			for my $err (map { ($_->hear())[1] } @askers)
			{
				$served++ if $err eq '';
				$errors{$1}++ if $err =~ /ERROR:  (.*)/;
			}
			return pool('connects') > $connects && $served == @askers;
		}, 60);
	is_deeply([ grep { !/^(?:08001: could not connect to|0800[67]: connection to|57P01: .*) datanode "dn"/ } keys %errors ], [],
		"$name: 20 sessions that asked all the while were served or told of the lost node");
	cmp_ok(pool('connect_failures') - $failures, '<', 25, '... with few attempts that failed');
	wait_for('the minimum', sub { pool('total') >= $minimum && pool('connecting + resetting') eq '0' }, 60);
	gently($name);
	all_lent($name);
	gently("$name, then all are wanted");
}

$_->quit() for $admin, @askers;
finish(crashed => $dn);
