# pooler.lease_warn_after: a lease held longer is logged once, with process id, role and query of its
# holder; off by default, changed by a reload.

use strict;
use warnings;
use PolarxParameter;
use PolarxPooler;
use Test::More;

my $coord = start_coordinator();
check_parameter($coord, name => 'pooler.lease_warn_after', boot => 0, min => 0, max => 2147483647,
	unit => 's', context => 'sighup');
my %dn = map { $_ => start_datanode($_, roles => { app => undef }) } qw(dn1 dn2);
add_node($coord, $_, $dn{$_}) for sort keys %dn;
value($coord, 'CREATE ROLE app LOGIN');
add_mapping($coord, 'app', $_, password_required => 'false') for sort keys %dn;
sub take { return "SELECT p FROM pooler.query('$_[0]', 'SELECT pg_backend_pid()') AS r(p int)"; }

# The lines about a session after $offset, as [node, seconds, detail].
sub warnings_of
{
	my ($pid, $offset) = @_;
	my $log = log_since($coord, $offset);
	my @lines;
	push @lines, [ $1, $2, $3 ]
	  while $log =~ /LOG:  process $pid has held a connection to datanode "(\w+)" for ([\d.]+) s\n.*?DETAIL:  (.*(?:\n\t.*)*)/g;
	return @lines;
}

# Awaits that every lease of the session is that old.
sub wait_age
{
	my ($pid, $seconds) = @_;
	wait_for("leases of $pid that are $seconds s old", sub {
			value($coord, "SELECT min(clock_timestamp() - state_since) > interval '$seconds s'
				FROM pooler.connections WHERE session_pid = $pid") eq 't';
		});
	return;
}

my $start = log_offset($coord);
my $first = session($coord);
$first->ask('BEGIN');
my $remote = $first->ask(take('dn1') . ' /* the first */');
wait_age($first->pid, 2);
is_deeply([ warnings_of($first->pid, $start) ], [], 'off by default: a lease of 2 s is not logged');

set_conf($coord, 'pooler.lease_warn_after' => '1s');
wait_log($coord, qr/process @{[ $first->pid ]} has held/, $start, 'a reload turns it on, for leases that are held too');
my @lines = warnings_of($first->pid, $start);
is($lines[0][0], 'dn1', '... with the node');
cmp_ok($lines[0][1], '>=', 2, "... how long ($lines[0][1] s)");
like($lines[0][2], qr/"@{[ me() ]}"/, '... the role');
like($lines[0][2], qr/\b$remote\b/, '... the process at the datanode');
like($lines[0][2], qr{SELECT pg_backend_pid\(\).*/\* the first \*/}s, '... and the query of the holder');

my $offset = log_offset($coord);
my $second = session($coord, user => 'app');
$second->ask('BEGIN; ' . take('dn1') . '; ' . take('dn2'));
$second->tell(q{SELECT pooler.exec('dn2', 'SELECT pg_sleep(4)') /* the second */});
value($coord, take('dn1')) for 1 .. 20;
wait_for('both leases to be logged', sub { warnings_of($second->pid, $offset) >= 2 });
@lines = sort { $a->[0] cmp $b->[0] } warnings_of($second->pid, $offset);
is_deeply([ map { $_->[0] } @lines ], [ 'dn1', 'dn2' ], 'two leases of one session: a line each');
ok($_->[1] >= 1 && $_->[1] < 3, "... after lease_warn_after ($_->[1] s)") for @lines;
like($_->[2], qr/"app".*pg_sleep\(4\).*the second/s, '... with role and the query that runs') for @lines;
wait_age($second->pid, 3.5);
wait_age($first->pid, 5);
is(scalar(warnings_of($_->pid, $start)), $_ == $first ? 1 : 2, 'not logged again') for $first, $second;
is(() = log_since($coord, $start) =~ /has held a connection/g, 3, 'and no short one is logged');
$second->hear();
$_->ask('COMMIT') for $first, $second;

$offset = log_offset($coord);
$first->ask('BEGIN; ' . take('dn2'));
wait_log($coord, qr/process @{[ $first->pid ]} has held a connection to datanode "dn2"/, $offset,
	'the next lease of that session is logged as well');
$first->ask('COMMIT');

set_conf($coord, 'pooler.lease_warn_after' => 0);
$offset = log_offset($coord);
$first->ask('BEGIN; ' . take('dn1'));
wait_age($first->pid, 2);
is_deeply([ warnings_of($first->pid, $offset) ], [], 'a reload turns it off');
$first->ask('COMMIT');

$_->quit() for $first, $second;
finish();
