# pooler.port is part of the name of each database's socket: clusters and databases do not meet
# there, what a crash has left is no obstacle, and who holds the place is told.

use strict;
use warnings;
use Cwd qw(abs_path);
use Fcntl qw(:DEFAULT :flock);
use IO::Socket::UNIX;
use PolarxParameter;
use PolarxPooler;
use PostgreSQL::Test::Utils;
use Test::More;

my $one = q{SELECT pooler.exec('dn', 'SELECT 1')};
my $who = q{SELECT n FROM pooler.query('dn', 'SELECT name FROM me') AS r(n text)};

# The sockets and locks in the data directory: [name, mode] each.
sub places
{
	my ($coord) = @_;
	my $folder = $coord->data_dir . '/pg_stat_tmp';
	opendir my $open, $folder or die "$folder: $!";
	return map { [ $_, sprintf('%04o', (stat "$folder/$_")[2] & 07777) ] } sort grep { /PGPOOL/ } readdir $open;
}

sub names { return map { $_->[0] } places($_[0]); }

sub oid { return value($_[0], "SELECT oid FROM pg_database WHERE datname = '$_[1]'"); }

my $coord = start_coordinator(name => 'first');
check_parameter($coord, name => 'pooler.port', boot => 6667, min => 1, max => 65535, context => 'postmaster');
my %dn = map { $_ => start_datanode($_) } qw(dn1 dn2);
value($dn{$_}, "CREATE TABLE me AS SELECT '$_'::text AS name") for sort keys %dn;
add_node($coord, 'dn', $dn{dn1});
is(value($coord, $who), 'dn1', 'the pool works');

# The name.
my $data = abs_path($coord->data_dir);
my $name = '.s.PGPOOL.' . oid($coord, 'postgres') . '.6667';
is(value($coord, 'SELECT socket FROM pooler.workers'), "$data/pg_stat_tmp/$name", 'the view tells the socket\'s path');
is_deeply([ places($coord) ], [ [ $name, '0600' ], [ "$name.lock", '0600' ] ],
	'in the data directory stand the socket and its lock, for the server\'s user alone');
ok(-S "$data/pg_stat_tmp/$name", '... it is a socket');

# Another cluster with the same port.
my $second = start_coordinator(name => 'second');
add_node($second, 'dn', $dn{dn2});
is(value($second, 'SHOW pooler.port'), '6667', 'a second cluster with the same port');
is(value($second, $who) . ' ' . value($coord, $who), 'dn2 dn1', '... both work, each with its own nodes');
like(value($second, 'SELECT socket FROM pooler.workers'), qr/^\Q@{[ abs_path($second->data_dir) ]}\E\/.*\.6667$/,
	'... each in its own data directory');

# Other databases of the same cluster.
for my $db (qw(one two))
{
	value($coord, "CREATE DATABASE $db");
	value($coord, 'CREATE EXTENSION polarx_pooler', db => $db);
	add_node($coord, 'dn', $dn{ $db eq 'one' ? 'dn1' : 'dn2' }, db => $db);
}
is(join(' ', map { value($coord, $who, db => $_) } qw(postgres one two)), 'dn1 dn1 dn2', 'three databases side by side');
my %oid = map { $_ => oid($coord, $_) } qw(postgres one two);
is(value($coord, q{SELECT string_agg(datname || ' ' || regexp_replace(socket, '^.*/', ''), ',' ORDER BY datname COLLATE "C")
	FROM pooler.workers}), join(',', map { "$_ .s.PGPOOL.$oid{$_}.6667" } qw(one postgres two)), '... each with a socket');
is_deeply([ names($coord) ], [ sort map { my $s = ".s.PGPOOL.$oid{$_}.6667"; ($s, "$s.lock") } keys %oid ],
	'... and nothing else stands there');
value($coord, 'SELECT pooler.stop()', db => 'two');
is(scalar(grep { /\.$oid{two}\./ } names($coord)), 0, 'a worker that is stopped leaves nothing');
value($coord, 'SELECT pooler.start()', db => 'two');

# Another port, from the next start on.
set_conf($coord, 'pooler.port' => 7001);
is(value($coord, 'SHOW pooler.port') . ' ' . value($coord, $one), '6667 SELECT 1', 'changed, not yet restarted');
$coord->stop('fast');
is_deeply([ names($coord) ], [], 'a server that stops leaves nothing');
$coord->start();
is(value($coord, $who, db => 'two'), 'dn2', 'after the restart');
like(value($coord, q{SELECT socket FROM pooler.workers WHERE datname = 'two'}), qr/\.7001$/, '... the new port is in the name');
worker_pid($coord, $_) for keys %oid;

# A crash of everything leaves the files.
sub gone { return !kill(0, $_[0]) || eval { slurp_file("/proc/$_[0]/stat") } !~ /\) [^ZX]/; }
my @workers = map { worker_pid($coord, $_) } sort keys %oid;
my $path = value($coord, q{SELECT socket FROM pooler.workers WHERE datname = 'postgres'});
my ($postmaster) = slurp_file($coord->data_dir . '/postmaster.pid') =~ /\A(\d+)/;
my @children = split ' ', slurp_file("/proc/$postmaster/task/$postmaster/children");
# Stopped, they cannot see the postmaster's end and clean up.
kill 'STOP', @workers;
$coord->kill9();
kill 'KILL', @workers;
wait_for('all processes to end', sub { !grep { !gone($_) } $postmaster, @children });
ok(-S $path && -e "$path.lock", 'after a crash socket and lock are still there');
# As long as nobody has reaped the postmaster it would pass for a running one.
unlink $coord->data_dir . '/postmaster.pid', $coord->host . '/.s.PGSQL.' . $coord->port . '.lock';
$coord->start();
is(value($coord, $who), 'dn1', '... the next start takes no offence');
wait_until($coord, q{SELECT count(*) FROM pooler.workers WHERE state = 'ready'}, '3', '... in any database');
is(scalar(names($coord)), 6, '... with one socket and lock each');

# A socket alone, on which even somebody listens, does not hold the place: the lock does.
chdir $coord->data_dir or die;
(my $relative = $path) =~ s{^.*/pg_stat_tmp/}{pg_stat_tmp/};
value($coord, 'SELECT pooler.stop()');
my $squatter = IO::Socket::UNIX->new(Local => $relative, Listen => 1) or die "bind: $!";
is(value($coord, 'SELECT pooler.start()') . ' ' . value($coord, $who), 't dn1', 'a socket without a lock is replaced');
close $squatter;

# The lock is held.
sub lock_of
{
	sysopen my $lock, "$relative.lock", O_RDWR | O_CREAT, 0600 or die "open: $!";
	flock $lock, LOCK_EX | LOCK_NB or die "flock: $!";
	return $lock;
}
my $held = qr/pooler port 7001 is in use: another process holds the lock "\Q$relative\E\.lock"/;
value($coord, 'SELECT pooler.stop()');
my $lock = lock_of();
my $offset = log_offset($coord);
within(5, 'start() while another process holds the lock ends soon', sub {
		fails_with($coord, 'SELECT pooler.start()', '57P03', $held, '57P03 says why') });
within(5, '... a request too', sub { fails_with($coord, $one, '57P03', $held, '57P03 says why') });
wait_log($coord, $held, $offset, '... the log too');
is(value($coord, $who, db => 'two'), 'dn2', '... other databases work on');
close $lock;
wait_until($coord, $who, 'dn1', 'once it is released the pool works again');
is(value($coord, q{SELECT count(*) FROM pooler.workers WHERE datname = 'postgres' AND state = 'ready'}), '1',
	'... with one worker');

# ... at the start of the server.
$coord->stop('fast');
$lock = lock_of();
$coord->start();
within(5, 'held when the server starts: a request ends soon', sub {
		fails_with($coord, $one, '57P03', $held, '57P03 says why') });
is(value($coord, $who, db => 'two'), 'dn2', '... other databases start');
close $lock;
wait_until($coord, $who, 'dn1', 'once it is released the pool works');

# Whoever holds it is not disturbed: a second cluster cannot take the first one's place.
is(value($second, $who), 'dn2', 'the other cluster has worked on all the time');
chdir '/';
finish();
