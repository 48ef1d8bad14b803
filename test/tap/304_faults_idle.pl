# A datanode that breaks off, is silent or talks nonsense on a connection that is idle, is asked for a sign
# of life, or has its memory measured, as told by a proxy before a real one.

use strict;
use warnings;
use PolarxFault;
use PolarxPooler;
use Test::More;

my $gap = 10;    # the shortest that there is
my %answers = map { $_->[0] => $_->[1] } broken_answers();
my @watched = sort keys %answers;
my %roles = (victim => 'rose', neighbour => 'tulip', map { ("watched$_" => "oak$_") } 0 .. $#watched);
my $ground = fault_ground(conf => "pooler.pool_session_context_check_gap = ${gap}s\n", dn => { roles => \%roles });
my ($limit, $proxy, $coord, $admin, $victim) = @$ground{qw(limit proxy coord admin victim)};

# A connection that is idle, not parked.
sub one_idle
{
	$victim->ask(q{SELECT pooler.exec('dn', 'SET work_mem = 1000')});
	wait_for('an idle connection', sub { victim_pool($ground, 'idle') eq '1' });
	return;
}

# Strikes the idle connection, and returns when that has gone out.
sub strike
{
	my ($action) = @_;
	one_idle();
	my $open;    # without one that an earlier fault has ended
	wait_for('the others to be gone', sub {
			$open = $proxy->figures->{open};
			$open == $admin->ask(q{SELECT sum(total) FROM pooler.pools WHERE node = 'dn'}) });
	$proxy->strike('victim', $action);
	my $left = $action =~ /silence$/ ? $open : $open - 1;
	wait_for('the fault to be there', sub { $proxy->figures->{open} == $left });
	return;
}

# Idle: who comes next gets another connection.
my $fatal = failure('FATAL', '57P01');
my $notice = message('N', "SNOTICE\0VNOTICE\0C00000\0Mmade up\0\0");
my $half = substr $fatal, 0, 30;
my @idle = ([ 'closed', 'close' ], [ 'reset', 'reset' ], [ 'a shutdown', "say:$fatal:close" ],
	[ 'a shutdown, but not closed', "say:$fatal:silence" ], [ 'half a message, then closed', "say:$half:close" ],
	[ 'half a message, then silence', "say:$half:silence" ],
	[ 'an unknown message', 'say:' . message('x', 'abc') . ':silence' ], [ 'a notice', "say:$notice:silence" ],
	[ 'a parameter', 'say:' . message('S', "TimeZone\0Mars\0") . ':silence' ]);
fault_row($ground, "idle: $_->[0]", keep => 1, arm => sub { strike($_->[1]) }, scope => 'none',
	counts => 'closed_error', new => 1)
  for @idle;

# Silence that nobody can know of: the session's own time-out ends it, and the connection is not used again.
fault_row($ground, 'idle: silence', keep => 1, arm => sub { strike('silence') }, scope => 'none',
	counts => 'closed_error', new => 1, code => '57014', like => qr/statement timeout/, after => 0.5,
	sql => q{SET statement_timeout = '500ms'; SELECT pooler.exec('dn', 'SELECT 1'); RESET statement_timeout});

# Ping, on an idle connection; where that is at fault, or silent for half of the time, another one tells.
value($coord, 'GRANT EXECUTE ON FUNCTION pooler.ping TO victim');
for my $name ('closed', 'half an answer, then closed', 'silence', 'an error', 'a shutdown')
{
	my $silent = $name eq 'silence';
	fault_row($ground, "ping: $name", keep => 1, arm => \&one_idle, fault => [ 'answer:', $answers{$name} ],
		sql => q{SELECT CASE WHEN ok THEN 'up' ELSE error END FROM pooler.ping('dn')}, counts => 'closed_error', new => 1,
		out => qr/^up$/, scope => 'none', $silent ? (after => $limit / 2) : ());
}

# The memory check, of several pools at a time, each with another fault.
for my $i (0 .. $#watched)
{
	my $role = "watched$i";
	value($coord, "CREATE ROLE $role LOGIN");
	add_mapping($coord, $role, 'dn', user => $role, password => $roles{$role});
	$proxy->fault($role, 'answer:pg_backend_memory_contexts', $answers{ $watched[$i] });
	is(value($coord, q{SELECT pooler.exec('dn', 'SET work_mem = 1000')}, user => $role), 'SET', "memory check: $role has a connection");
}
my $pools = q{FROM pooler.pools WHERE node = 'dn' AND remote_user LIKE 'watched%'};
my ($rounds, $slowest, $wrong) = neighbours_work($ground, sub { $admin->ask("SELECT min(closed_error) > 0 $pools") eq 't' },
	$gap + $limit + 20);
cmp_ok($slowest, '<', $limit * 0.75, sprintf('... the neighbours work on, %d rounds (slowest %.2f s)', $rounds, $slowest));
is($wrong, 0, '... and the books add up all the while');
is($admin->ask("SELECT remote_user, closed_error $pools AND closed_error <> 1"), '', '... each connection that met with a fault is closed');
$proxy->forward();
is(value($coord, q{SELECT pooler.exec('dn', 'SET work_mem = 1000')}, user => "watched$_"), 'SET', "$watched[$_]: ... its role works on")
  for 0 .. $#watched;
is(settle($ground), 'settled', '... and all books agree');

end_ground($ground);
