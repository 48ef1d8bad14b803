# A datanode that breaks off, is silent or talks nonsense when a connection comes back, is warmed up, or is
# given a session's parameters, as told by a proxy before a real one.

use strict;
use warnings;
use PolarxFault;
use PolarxPooler;
use Test::More;

my $ground = fault_ground(conf => "pooler.warmup_query = ''\n");
my ($limit, $proxy, $coord, $admin, $victim) = @$ground{qw(limit proxy coord admin victim)};

# The reset after a statement and after a rolled back transaction: the session has what it wanted.
my %answers = map { $_->[0] => $_->[1] } broken_answers();
my @reset = ([ 'reset', q{SELECT pooler.exec('dn', 'SET work_mem = 1000')}, 'answer:DISCARD ALL', sort keys %answers ],
	[ 'rollback', 'BEGIN; ' . one('dn') . '; ROLLBACK', 'answer:ROLLBACK', 'closed', 'silence', 'an error' ]);
for my $row (@reset)
{
	my ($step, $sql, $at, @names) = @$row;
	fault_row($ground, "$step: $_", sql => $sql, fault => [ $at, $answers{$_} ], scope => 'none',
		counts => 'closed_error', new => 1)
	  for @names;
}

# A session's parameters are set on the connection that it gets.
$victim->ask(q{SELECT pooler.set_param('work_mem', '1234')});
my $lost = qr/connection to datanode "dn" was lost/;
my %told = ('silence' => qr/datanode "dn" did not answer within pooler\.pooler_dn_set_timeout \($limit s\)/);
$told{'half an answer, then silence'} = $told{silence};
for my $name (grep { $_ ne 'an error' } sort keys %answers)    # after an error it may be used on
{
	fault_row($ground, "parameters: $name", fault => [ 'answer:set_config', $answers{$name} ], scope => 'none',
		counts => 'closed_error', new => 1, code => '08006', like => $told{$name} // $lost,
		$name =~ /silence/ ? (after => $limit) : ());
}
is($victim->ask(q{SELECT v FROM pooler.query('dn', 'SHOW work_mem') AS r(v text)}), '1234kB', '... the parameter is set');
$victim->ask('SELECT pooler.reset_params()');

# A warm-up that fails costs no session anything.
value($coord, q{ALTER SERVER dn OPTIONS (ADD min_pool_size '1')});
sub warm_up
{
	my ($query, $action) = @_;
	my $errors = victim_pool($ground, 'closed_error');
	set_conf($coord, 'pooler.warmup_query' => $query);
	wait_for('the new setting', sub { $admin->ask('SHOW pooler.warmup_query') eq $query });
	$proxy->fault('victim', "answer:$query", $action);
	$admin->ask(q{SELECT pooler.reload(); SELECT pooler.clean('dn', 'victim')});
	my $warming = q{SELECT count(*) FROM pooler.connections WHERE node = 'dn' AND remote_user = 'victim' AND state = 'warming'};
	wait_for('a warm-up', sub { victim_pool($ground, 'closed_error') > $errors || $admin->ask($warming) });
	return;
}
my $warmth = 0;
for my $name ('closed', 'silence', 'half an answer, then silence', 'an unknown message', 'a shutdown')
{
	my $query = 'SELECT ' . ++$warmth . ' AS warmth';
	my $offset = log_offset($coord);
	my $errors = victim_pool($ground, 'closed_error');
	fault_row($ground, "warm-up: $name", keep => 1, arm => sub { warm_up($query, $answers{$name}) }, scope => 'none', new => 1);
	cmp_ok(victim_pool($ground, 'closed_error'), '>', $errors, '... that connection is closed');
	wait_log($coord, qr/pooler\.warmup_query failed on datanode "dn" as remote user "victim"/, $offset, '... which is logged');
}

end_ground($ground);
