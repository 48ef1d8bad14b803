# The pooler worker reads the catalog anew only where it has changed for the pooler: not for roles that
# nobody has asked for, nor for what it does not use of the others.

use strict;
use warnings;
use PolarxPooler;
use Test::More;

my $coord = start_coordinator(conf => "pooler.min_pool_size = 0\npooler.min_free_size = 0\n");
my $dn = start_datanode('dn1', auth => 'scram-sha-256', roles => { known => 'secret', asked => 'secret', mapped => 'secret' });
value($coord, "CREATE ROLE $_ LOGIN") for qw(known asked mapped stranger);
add_node($coord, 'dn1', $dn, mapping => 0);
value($coord, q{CREATE USER MAPPING FOR CURRENT_USER SERVER dn1 OPTIONS (user 'known', password 'secret')});
add_mapping($coord, $_, 'dn1', password => 'secret') for qw(known mapped);
value($coord, 'CREATE SERVER far FOREIGN DATA WRAPPER polarx_pooler');
my $one = q{SELECT pooler.exec('dn1', 'SELECT 1')};
is(value($coord, $one, user => 'known'), 'SELECT 1', 'a role that is known');
fails_with($coord, $one, '42704', qr/user mapping not found/, '... and one that has asked, without a mapping', user => 'asked')
  if eval { value($coord, 'GRANT USAGE ON FOREIGN SERVER dn1 TO asked'); 1 };

# A full reading looks at every row of pg_user_mapping, in an order that no index gives; the worker
# reports what it has read.
my $worker = worker_pid($coord);
my $session = session($coord);
my $readings = q{SELECT seq_scan FROM pg_stat_sys_tables WHERE relname = 'pg_user_mapping'};
sub readings { $session->ask('SELECT pg_stat_clear_snapshot()'); return $session->ask($readings); }

# So many readings did the changes cause. Each is awaited by a request, before which invalidations are
# accepted.
sub caused
{
	my (@changes) = @_;
	$session->ask($one);
	my $before = readings();
	for my $sql (@changes)
	{
		$session->ask($sql);
		$session->ask($one);
	}
	return readings() - $before;
}
is(caused(), 0, 'a request reads nothing');
is(caused('CREATE ROLE new', 'ALTER ROLE new SUPERUSER', 'ALTER ROLE new RENAME TO newer', q{ALTER ROLE stranger PASSWORD 'x'},
		'GRANT newer TO stranger', 'DROP ROLE newer', 'ALTER ROLE stranger SUPERUSER', 'ALTER ROLE stranger NOSUPERUSER'),
	0, 'roles that nobody has asked for are created, changed, dropped: nothing is read');
is(caused(map { ("ALTER ROLE $_ PASSWORD 'y'", "ALTER ROLE $_ CREATEDB", "ALTER ROLE $_ CONNECTION LIMIT 5", "ALTER ROLE $_ SET work_mem = '5MB'") } qw(known mapped asked)),
	0, 'known ones get passwords, rights, limits: neither');
my $causes = sub {
	my ($sql) = @_;
	my $count = caused($sql);
	cmp_ok($count, '>=', 1, "$sql: the catalog is read");
	cmp_ok($count, '<=', 2, '... once');
	return;
};
$causes->('ALTER ROLE known RENAME TO well_known');
is(value($coord, q{SELECT array_to_string(mapped_roles, ' ') FROM pooler.pools WHERE 'well_known' = ANY(mapped_roles)}) =~ /well_known/ ? 1 : 0, 1,
	'... and shows in the view');
$causes->('ALTER ROLE well_known RENAME TO known');
$causes->('ALTER ROLE mapped SUPERUSER');
$causes->('ALTER ROLE mapped NOSUPERUSER');
$causes->('ALTER ROLE asked SUPERUSER');
$causes->('ALTER ROLE asked NOSUPERUSER');
$causes->('CREATE USER MAPPING FOR asked SERVER dn1 OPTIONS (password $$secret$$)' =~ s/\$\$/'/gr);
is(value($coord, $one, user => 'asked'), 'SELECT 1', '... and is of use at once');
$causes->('DROP USER MAPPING FOR asked SERVER dn1');
fails_with($coord, $one, '42704', qr/user mapping not found/, '... and not any longer', user => 'asked');
$causes->(q{ALTER SERVER dn1 OPTIONS (ADD max_pool_size '9')});

# The right that a superuser has, and others have not, is that of now.
value($coord, q{CREATE ROLE boss SUPERUSER LOGIN; CREATE USER MAPPING FOR boss SERVER dn1 OPTIONS (user 'known', password 'secret')});
value($dn, q{CREATE ROLE boss LOGIN SUPERUSER});
my $boss = session($coord, user => 'boss');
is($boss->ask($one), 'SELECT 1', 'a superuser');
value($coord, q{ALTER USER MAPPING FOR boss SERVER dn1 OPTIONS (DROP password)});
value($coord, 'ALTER ROLE boss NOSUPERUSER');
value($coord, 'GRANT USAGE ON FOREIGN SERVER dn1 TO boss');
like($boss->refused($one), qr/ERROR:  2F003: /, '... who is none any more, without a password: refused at once');
is(worker_pids($coord), $worker, 'all by the same pooler worker');

$_->quit() for $session, $boss;
finish();
