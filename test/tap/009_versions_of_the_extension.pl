# A database of an earlier version of the extension works with this library, and is brought up to
# date while its sessions go on.
use strict;
use warnings;
use Test::More;
use lib 'test/tap';
use PolarxPooler;

my $coord = start_coordinator(extension => 0);
my $dn = start_datanode('dn1');
value($coord, "CREATE EXTENSION polarx_pooler VERSION '1.0'");
add_node($coord, 'dn1', $dn);
is(value($coord, q{SELECT extversion FROM pg_extension WHERE extname = 'polarx_pooler'}), '1.0', 'installed as 1.0');

my $one = q{SELECT pooler.exec('dn1', 'SELECT 1')};
my $holder = session($coord);
my $attached = session($coord);
$holder->ask('BEGIN');
is($holder->ask($one), 'SELECT 1', 'statements work in 1.0');
is($attached->ask($one), 'SELECT 1', '... in a second session');
for my $view (qw(workers nodes pools connections sessions stats))
{
	cmp_ok(value($coord, "SELECT count(*) FROM pooler.$view"), '>', 0, "the view $view works in 1.0");
}
value($coord, 'CREATE VIEW public.mine AS SELECT * FROM pooler.pools');

my $worker = worker_pids($coord);
value($coord, 'ALTER EXTENSION polarx_pooler UPDATE');
is(value($coord, q{SELECT extversion = default_version AND extversion = pooler.version() FROM pg_extension
	JOIN pg_available_extensions a ON a.name = extname WHERE extname = 'polarx_pooler'}), 't', 'updated to the version of the library');
is($holder->ask("$one; COMMIT"), "SELECT 1", 'a session with an open transaction goes on');
is($attached->ask($one), 'SELECT 1', '... and so does one that was attached');
is(worker_pids($coord), $worker, '... by the same pooler worker');
cmp_ok(value($coord, 'SELECT count(*) FROM public.mine'), '>', 0, "a user's view over a view of 1.0 still works");

# What was installed and updated is what is installed anew.
value($coord, 'CREATE DATABASE fresh');
value($coord, 'CREATE EXTENSION polarx_pooler', db => 'fresh');
my $members = q{SELECT string_agg(pg_describe_object(classid, objid, 0) || coalesce(obj_description(objid), ''), ' ' ORDER BY
	pg_describe_object(classid, objid, 0)) FROM pg_depend WHERE deptype = 'e' AND refclassid = 'pg_extension'::regclass};
is(value($coord, $members . " AND refobjid IN (SELECT oid FROM pg_extension WHERE extname = 'polarx_pooler')"),
	value($coord, $members . " AND refobjid IN (SELECT oid FROM pg_extension WHERE extname = 'polarx_pooler')", db => 'fresh'),
	'the same objects as in a database where it is new');
like(log_since($coord, 0), qr/LOG:  polarx_pooler [0-9.]+: port \d+, \d+ worker threads/, 'the server log names the version at start');

$_->quit() for $holder, $attached;
finish();
