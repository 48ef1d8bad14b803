# The stat lines come at pooler.pool_print_stat_timeout, with the figures of what was done since the
# lines before, and not at all when it is -1.

use strict;
use warnings;
use POSIX ();
use PolarxParameter;
use PolarxPooler;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);
use Time::Local qw(timegm);

my $coord = start_coordinator(conf => <<'END');
log_timezone = 'UTC'
pooler.pool_print_stat_timeout = 1s
pooler.min_pool_size = 0
pooler.min_free_size = 0
END
check_parameter($coord, name => 'pooler.pool_print_stat_timeout', boot => 60, start => 1, min => 0,
	max => 2147483647, unit => 's', context => 'sighup', off => 1);
my %dn = map { $_ => start_datanode($_) } qw(dn1 dn2);
add_node($coord, $_, $dn{$_}, server => { max_pool_size => 2 }) for sort keys %dn;
my $me = me();

my @database_keys = qw(database client_request_conn_total client_request_from_hashtab client_request_from_thread
  acquire_conn_from_hashtab acquire_conn_from_hashtab_and_set acquire_conn_from_thread acquire_conn_time
  each_client_conn_request_cost_time);
my @pool_keys = qw(database node user total idle leased parked connecting waiting acquired rejected
  acquire_p50_us acquire_p99_us);

# The stat lines after $offset, oldest first: { at => seconds, keys => [...], key => value, ... }.
sub stat_lines
{
	my ($offset) = @_;
	my @found;
	for my $line (split /\n/, log_since($coord, $offset))
	{
		my ($day, $hour, $minute, $second, $text) =
		  $line =~ /^(\d+-\d+-\d+) (\d+):(\d+):([\d.]+) UTC .*LOG:  \[pooler stat\] (.*)$/ or next;
		my ($y, $m, $d) = split /-/, $day;
		my @pairs = map { [ split /=/, $_, 2 ] } split / /, $text;
		pop @pairs if $pairs[-1][0] eq 'us';
		push @found,
		  { at => timegm(0, $minute, $hour, $d, $m - 1, $y) + $second,
			text => $text, keys => [ map { $_->[0] } @pairs ], map { @$_ } @pairs };
	}
	return @found;
}
sub of_database { return grep { !exists $_->{node} } @_; }
sub of_pool { my $node = shift; return grep { ($_->{node} // '') eq $node } @_; }

sub await_lines
{
	my ($offset, $count) = @_;
	# The pools' lines follow that of the database.
	wait_for("$count stat lines", sub { of_pool('dn2', stat_lines($offset)) >= $count });
	return stat_lines($offset);
}

sub interval
{
	my ($to) = @_;
	set_conf($coord, 'pooler.pool_print_stat_timeout' => $to);
	value($coord, 'SELECT pooler.reload()');
	return log_offset($coord);
}

# The interval, and the form of both lines.
value($coord, q{SELECT count(*) FROM pooler.exec_all('SELECT 1')});
my $begin = log_offset($coord);
my @lines = await_lines($begin, 4);
sub gaps
{
	my @at = map { $_->{at} } of_database(@_);
	return map { $at[$_] - $at[ $_ - 1 ] } 1 .. $#at;
}
my @gaps = gaps(@lines);
is(scalar(grep { $_ < 0.95 || $_ > 1.7 } @gaps), 0, 'a line a second') or diag "@gaps";
is_deeply([ @{ $_->[0]{keys} } ], $_->[1], "the keys of $_->[2], in order")
  for [ (of_database(@lines))[0], \@database_keys, 'the database\'s line' ],
  [ (of_pool('dn1', @lines))[0], \@pool_keys, 'a pool\'s line' ];
my $number = qr/\d+(?:\.\d+)?/;
my $database_line = join ' ', 'database=postgres', map { "$_=\\d+" } @database_keys[ 1 .. 7 ];
my $pool_line = join ' ', 'database=postgres', 'node=dn[12]', "user=$me", map({ "$_=\\d+" } @pool_keys[ 3 .. 10 ]),
  map { "$_=$number" } @pool_keys[ 11, 12 ];
is(scalar(grep { $_->{text} !~ /^$database_line $database_keys[8]=$number us$|^$pool_line$/ } @lines), 0,
	'every line is one of the two, with numbers') or diag join "\n", map { $_->{text} } @lines;
is(scalar(of_database(@lines)), scalar(of_pool('dn1', @lines)), 'one line a pool for each of the database');
is(scalar(of_database(@lines)), scalar(of_pool('dn2', @lines)), '... for every pool');
my $quiet = (of_database(@lines))[-1];
is(join(' ', map { $quiet->{$_} + 0 } @database_keys[ 1 .. 8 ]), '0 0 0 0 0 0 0 0', 'where nothing happened stands 0');
$quiet = (of_pool('dn1', @lines))[-1];
is(join(' ', map { $quiet->{$_} + 0 } @pool_keys[ 9 .. 12 ]), '0 0 0 0', '... for a pool too');

# A counted workload between two lines: one of an hour's interval is not due.
wait_until($coord, q{SELECT sum(idle) FROM pooler.pools}, '2', 'an idle connection of each node');
my $offset = interval('1h');
my $stats = 'SELECT ' . join(', ', @database_keys[ 1 .. 7 ]) . ' FROM pooler.stats';
my @before = split /\|/, value($coord, $stats);
my ($s, $t) = (session($coord), session($coord));
my $one = q{SELECT pooler.exec('dn1', 'SELECT 1')};
my $idle = sub { wait_until($coord, q{SELECT total = idle AND idle > 0 FROM pooler.pools WHERE node = 'dn1'}, 't', $_[0]) };
my %expected = map { $_ => 0 } @database_keys, @pool_keys;
for (1 .. 5)
{
	$s->ask($one);    # from the idle connection
	$idle->("served, $_");
}
$s->ask(q{SELECT pooler.set_param('work_mem', '5MB')});
for (1 .. 3)
{
	$s->ask($one);    # likewise, with a parameter set on it
	$idle->("served with a parameter, $_");
}
$s->ask('SELECT pooler.reset_params()');
$t->ask(q{BEGIN; SELECT count(*) FROM pooler.exec_all('SELECT 1')});    # both nodes' idle connections
$s->ask("BEGIN; $one");                                                 # a new one
for (1 .. 4)
{
	fails_with($coord, $one, '53300', qr/"dn1" is full/, "rejected, $_");
}
my $waiter = session($coord);
$waiter->tell("SET pooler.queue_timeout = '60s'; BEGIN; $one");
wait_until($coord, q{SELECT waiting FROM pooler.pools WHERE node = 'dn1'}, '1', 'one waits');
my @after = split /\|/, value($coord, $stats);
is_deeply([ of_database(stat_lines($offset)) ], [], '1h: no line meanwhile');

$offset = interval('1s');
my ($first) = of_database(await_lines($offset, 2));
my $p1 = (of_pool('dn1', stat_lines($offset)))[0];
my $p2 = (of_pool('dn2', stat_lines($offset)))[0];
# Requests: 8 + 1 + 1 served, 4 rejected, 1 waits. Connections: 8 + 2 idle, 1 opened.
is(join(' ', map { $first->{$_} } @database_keys[ 1 .. 6 ]), '15 9 1 10 3 1', 'changed by a reload: the first line has it all');
is(join(' ', map { $after[$_] - $before[$_] } 0 .. 6), join(' ', map { $first->{$_} } @database_keys[ 1 .. 7 ]),
	'... as the view has');
cmp_ok($first->{acquire_conn_time}, '>', 500, '... microseconds that the one was waited for');
cmp_ok($first->{acquire_conn_time}, '<', 5_000_000, '... and not another unit');
cmp_ok(abs($first->{each_client_conn_request_cost_time} - $first->{acquire_conn_time} / 15), '<', 0.1,
	'... shared among all requests');
is(join(' ', map { $p1->{$_} } @pool_keys[ 1 .. 10 ]), "dn1 $me 2 0 2 0 0 1 10 4", 'a pool\'s figures');
is(join(' ', map { $p2->{$_} } @pool_keys[ 1 .. 10 ]), "dn2 $me 1 0 1 0 0 0 1 0", 'another pool\'s figures');
ok(0 < $p1->{acquire_p50_us} && $p1->{acquire_p50_us} < $p1->{acquire_p99_us}, '... the slowest is in the 99th percentile')
  or diag $p1->{text};
my $p1_next = (of_pool('dn1', stat_lines($offset)))[1];
is(join(' ', map { $p1_next->{$_} } @pool_keys[ 1 .. 10 ]), "dn1 $me 2 0 2 0 0 1 0 0",
	'the next line: the same state, nothing new');
$offset = log_offset($coord);
$s->ask('COMMIT');
is(($waiter->hear())[0], 'SELECT 1', 'the one that waited is served');
$_->ask('COMMIT') for $waiter, $t;
@lines = await_lines($offset, 3);
my %sum;
for my $line (of_database(@lines))
{
	$sum{$_} += $line->{$_} for @database_keys[ 1 .. 6 ];
}
is(join(' ', map { $sum{$_} } @database_keys[ 1 .. 6 ]), '0 0 1 0 0 1', '... and counted when it is served');
$_->quit() for $s, $t, $waiter;

# Another interval.
$offset = interval('3s');
my $start = time;
@lines = await_lines($offset, 2);
@gaps = gaps(@lines);
ok($gaps[0] > 2.95 && $gaps[0] < 3.7, "changed by a reload: every 3 s ($gaps[0])");
cmp_ok(time - $start, '>', 5, '... from the reload on');

# None.
$offset = interval(-1);
$start = time;
value($coord, $one);
wait_for('three seconds to pass', sub { time - $start > 3 });
is_deeply([ stat_lines($offset) ], [], '-1: no line');
is(value($coord, q{SELECT client_request_conn_total > 15 FROM pooler.stats}), 't', '... the counters go on');

# 0 would be a line at every turn: the worker must neither fill the log nor take a processor.
sub cpu_seconds
{
	my @fields = split / /, slurp_file('/proc/' . worker_pid($coord) . '/stat');
	return ($fields[13] + $fields[14]) / POSIX::sysconf(POSIX::_SC_CLK_TCK());
}
my $used = cpu_seconds();
$offset = interval(0);
$start = time;
wait_for('a second to pass', sub { time - $start > 1 });
my $lines = of_database(stat_lines($offset));
$offset = interval(-1);
cmp_ok($lines, '<', 50, '0: the log is not flooded');
cmp_ok(cpu_seconds() - $used, '<', 0.5, '... and the worker is no busy loop');

unlike(slurp_file($coord->logfile), qr/\[pooler stat\].*=-?(?:nan|inf)/i, 'never nan');
finish();
