# A datanode that others have filled: with little room, little is tried, and all of it once there is room.

use strict;
use warnings;
use PolarxFault;
use PolarxPooler;
use Test::More;
use Time::HiRes qw(time);

my $ground = fault_ground(dn => { conf => "max_connections = 40\nsuperuser_reserved_connections = 3\n" });
my ($coord, $proxy, $admin, $dn) = @$ground{qw(coord proxy admin dn)};
sub failures { return $admin->ask(q{SELECT sum(connect_failures) FROM pooler.pools WHERE node = 'dn'}); }

my ($holder, @waiting) = map { session($coord, user => 'victim') } 0 .. 12;
$holder->ask('BEGIN; ' . one('dn'));
my @fillers;
while (@fillers < 40)
{
	my $filler = eval { session($dn, user => 'neighbour') } or last;
	push @fillers, $filler;
}
cmp_ok(scalar(@fillers), '>', 20, 'others fill the datanode');

# Who is patient waits for what is lent to come back.
$_->tell(q{SET pooler.queue_timeout = '50s'; BEGIN; } . one('dn')) for @waiting;
wait_for('all to wait', sub { victim_pool($ground, 'waiting') eq '12' });
my $before = failures();
wait_for('attempts', sub { failures() > $before + 1 });
wait_for('those to end that began before anything was known', sub { $proxy->figures->{opening} == 0 });

# Room for one: it is found and taken, and the others do not rush in after it.
for my $turn (1 .. 3)
{
	$proxy->recount();
	$before = failures();
	(pop @fillers)->quit();
	wait_for('one more', sub { victim_pool($ground, 'leased') == 1 + $turn });
	wait_for('attempts', sub { failures() > $before + 2 });
	is($proxy->figures->{most_opening}, 1, "room for one: one connect at a time");
	is(victim_pool($ground, 'leased, waiting'), (1 + $turn) . '|' . (12 - $turn), '... one more is served');
}

# Room for all.
my $retry = victim_pool($ground, 'coalesce(extract(epoch FROM retry_at - clock_timestamp()), 0)');
my $start = mark();
$_->quit() for @fillers;
my @errors = grep { $_ ne '' } map { ($_->hear())[1] } @waiting;
is_deeply(\@errors, [], 'room for all: all are served');
cmp_ok(calm_since($start), '<', ($retry > 0 ? $retry : 0) + 3, sprintf('... soon (%.2f s, hold-off %.2f s)', time - $start, $retry));
$_->ask('COMMIT') for $holder, @waiting;
is(settle($ground), 'settled', '... and all books agree');
$_->quit() for $holder, @waiting;
end_ground($ground);
