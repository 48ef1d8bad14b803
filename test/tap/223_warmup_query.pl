# pooler.warmup_query runs once on each new connection that nobody waits for; when it fails that is
# logged once per change of the setting, and the pool works on.

use strict;
use warnings;
use PolarxParameter;
use PolarxPooler;
use Test::More;

my $coord = start_coordinator(conf => <<'END');
pooler.min_pool_size = 0
pooler.min_free_size = 0
pooler.pool_maintenance_timeout = 1s
END
my $boot = value($coord, q{SELECT boot_val FROM pg_settings WHERE name = 'pooler.warmup_query'});
like($boot, qr/^SELECT .*pg_catalog\.pg_class/, 'the default looks at the catalog');
check_parameter($coord, name => 'pooler.warmup_query', boot => $boot, context => 'sighup',
	values => [ '', 'SELECT 1; SELECT 2', 'SELECT 1' ]);
my %dn = map { $_ => start_datanode($_, conf => "log_statement = all\nlog_min_messages = log\n") } qw(dn1 dn2);
add_node($coord, $_, $dn{$_}, server => { min_pool_size => 0 }) for sort keys %dn;
my $s = session($coord);
my $one = q{SELECT pooler.exec('dn1', 'SELECT 1')};

sub set_warmup
{
	my ($query) = @_;
	set_conf($coord, 'pooler.warmup_query' => $query);
	value($coord, 'SELECT pooler.reload()');
	return;
}

# New connections in the place of all: awaits so many idle ones in each pool of the nodes.
sub renew
{
	my ($count, $name, @nodes) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $list = join ',', map { "'$_'" } @nodes;
	my $before = value($coord, 'SELECT coalesce(max(slot), 0) FROM pooler.connections');
	value($coord, join ';', (map { "ALTER SERVER $_ OPTIONS (SET min_pool_size '$count')" } @nodes),
		'SELECT pooler.reload()', 'SELECT pooler.clean()');
	return wait_until($coord, "SELECT count(*), count(DISTINCT node) FROM pooler.connections
		WHERE node IN ($list) AND state = 'idle' AND slot > $before", $count * @nodes . '|' . @nodes, $name, limit => 15);
}

# What the connections that are there now were sent, by process, in order.
sub sent
{
	my ($dn, $offset) = @_;
	my %sent = map { $_ => [] } split /\n/, backend_pids($dn);
	for my $statement (statements($dn, $offset))
	{
		push @{ $sent{ $statement->[0] } }, $statement->[1] if $sent{ $statement->[0] };
	}
	return \%sent;
}

sub failures
{
	my ($offset, $node) = @_;
	return scalar(() = log_since($coord, $offset) =~ /pooler\.warmup_query failed on datanode "$node"/g);
}

# Once on each.
my $offset = log_offset($dn{dn1});
ok(renew(3, 'three connections are opened', 'dn1'), 'with the default');
my $sent = sent($dn{dn1}, $offset);
is(join(',', map { scalar @{ $sent->{$_} } } keys %$sent), '1,1,1', '... one statement on each');
is((grep { $_->[0] eq $boot } values %$sent), 3, '... the default one');
set_warmup('SELECT 4711; SELECT 4712');
is(backend_pids($dn{dn1}), join("\n", sort { $a <=> $b } keys %$sent), 'a change by reload leaves open connections alone');
$offset = log_offset($dn{dn1});
$s->ask($one) for 1 .. 4;
is((grep { $_->[1] =~ /4711/ } statements($dn{dn1}, $offset)), 0, '... and is not for those, nor after a lease');
$offset = log_offset($dn{dn1});
ok(renew(3, 'three new connections', 'dn1'), 'another one');
$sent = sent($dn{dn1}, $offset);
is_deeply([ map { $_->[0] } values %$sent ], [ ('SELECT 4711; SELECT 4712') x 3 ],
	'... runs once on each, before anything else');
my @leases = map { session($coord) } 1 .. 3;
$_->ask("BEGIN; $one") for @leases;
is(join(',', map { scalar grep { /4711/ } @$_ } values %{ sent($dn{dn1}, $offset) }), '1,1,1', '... and not again when lent');
$_->quit() for @leases;

# Off.
set_warmup('');
$offset = log_offset($dn{dn1});
ok(renew(3, 'three new connections', 'dn1'), 'an empty one');
is(join(',', map { scalar @$_ } values %{ sent($dn{dn1}, $offset) }), '0,0,0', '... nothing is sent');

# A session that waits is not kept waiting for it; where nobody waits it comes first.
set_warmup('SELECT pg_sleep(3)');
value($coord, q{ALTER SERVER dn1 OPTIONS (SET min_pool_size '0'); SELECT pooler.reload(); SELECT pooler.clean()});
wait_until($coord, q{SELECT sum(total) FROM pooler.pools WHERE node = 'dn1'}, '0', 'no connection');
within(0.7, 'a session that a connection is opened for does not wait for the warm-up', sub { $s->ask($one) });
value($coord, q{ALTER SERVER dn1 OPTIONS (SET min_pool_size '2'); SELECT pooler.reload()});
wait_until($coord, q{SELECT count(*) FROM pooler.connections WHERE node = 'dn1' AND state = 'warming'}, '1',
	'one that nobody waits for is warmed first');
is(value($coord, q{SELECT total, idle, connecting FROM pooler.pools WHERE node = 'dn1'}), '2|1|1',
	'... and counts as connecting');
within(0.7, '... sessions use the other one meanwhile', sub { $s->ask($one) });
wait_until($coord, q{SELECT idle FROM pooler.pools WHERE node = 'dn1'}, '2', '... then it is idle');

# A failing one: one line for each change and node, however many connections.
my $errors = value($coord, 'SELECT sum(closed_error) FROM pooler.pools');
set_warmup('SELECT 1/0');
my $log = log_offset($coord);
ok(renew(5, 'five connections of each node', qw(dn1 dn2)), 'a failing one keeps no pool from its minimum');
is(failures($log, $_), 1, "... one line for $_") for qw(dn1 dn2);
like(log_since($coord, $log), qr/pooler\.warmup_query failed on datanode "dn1".*division by zero/, '... with the reason');
ok(renew(5, 'five new ones', qw(dn1 dn2)), '... again');
is(failures($log, $_), 1, "... no further line for $_") for qw(dn1 dn2);
is(value($coord, q{SELECT count(*) FROM pooler.exec_all('SELECT 1')}), '2', '... sessions work');
is(value($coord, 'SELECT sum(closed_error) FROM pooler.pools'), $errors, '... no connection is closed for it');
value($coord, 'SELECT pooler.reload()');
ok(renew(2, 'two new ones', qw(dn1 dn2)), 'a reload that changes nothing');
is(failures($log, 'dn1'), 1, '... no further line');
set_warmup('SELECT nothing_of_that_name');
$log = log_offset($coord);
ok(renew(2, 'two new ones', qw(dn1 dn2)), 'changed to another failing one');
is(failures($log, 'dn1'), 1, '... one line more');
set_warmup('SELECT 1');
$log = log_offset($coord);
ok(renew(2, 'two new ones', qw(dn1 dn2)), 'changed to a good one');
is(failures($log, 'dn1'), 0, '... no line');
set_warmup('SELECT 1/0');
ok(renew(2, 'two new ones', qw(dn1 dn2)), 'and to the failing one again');
is(failures($log, 'dn1'), 1, '... one line more');

# What it leaves behind is not for the first session.
for my $query ('BEGIN; SELECT 1/0', 'BEGIN', 'SELECT pg_terminate_backend(pg_backend_pid())', 'COPY pg_class TO STDOUT')
{
	set_warmup($query);
	$log = log_offset($coord);
	my $connects = value($coord, q{SELECT sum(connects) FROM pooler.pools WHERE node = 'dn1'});
	ok(renew(3, 'three new connections', 'dn1'), "$query: the pool gets its minimum");
	is(failures($log, 'dn1'), 1, '... one line');
	is(value($coord, $one), 'SELECT 1', '... sessions work');
	cmp_ok(value($coord, q{SELECT sum(connects) FROM pooler.pools WHERE node = 'dn1'}) - $connects, '<=', 8,
		'... it does not open connections for ever');
	is(value($dn{dn1}, q{SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'polarx_pooler%'
		AND state LIKE 'idle in transaction%'}), '0', '... none is left in a transaction');
}

$s->quit();
finish();
