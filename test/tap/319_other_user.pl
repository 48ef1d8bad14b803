# A process of another operating system user gets nothing, at whatever socket of the extension it knocks, and
# keeps nobody from being served; also where file modes do not keep it away. test/run.sh starts it, if root.

use strict;
use warnings;
use Fcntl qw(S_ISREG);
use IO::Select;
use IO::Socket::UNIX;
use PolarxPooler;
use PostgreSQL::Test::Utils;
use Socket qw(SOCK_STREAM SOL_SOCKET SO_PEERCRED);
use Test::More;
use Time::HiRes qw(time);

plan skip_all => 'there is no process of another user (POLARX_OTHER_USER): test/run.sh was not called by root'
  if !$ENV{POLARX_OTHER_USER};

my $stopped;    # process to be continued, come what may
END { kill 'CONT', $stopped if $stopped; }

# --- the stranger: see test/lib/other_user.pl -------------------------------------------------------
my $stranger = IO::Socket::UNIX->new(Type => SOCK_STREAM, Peer => $ENV{POLARX_OTHER_USER}) or die "connect: $!";
my (undef, $uid) = unpack 'iii', getsockopt($stranger, SOL_SOCKET, SO_PEERCRED);
my $kLongest = 30;    # seconds that he listens to what is told to him

sub tell_stranger { syswrite $stranger, "$_[0]\n"; return; }
sub has_told { return IO::Select->new($stranger)->can_read($_[0] // 0); }

sub stranger
{
	tell_stranger($_[0]) if @_;
	has_told($kLongest + 30) or die 'no answer';
	chomp(my $answer = <$stranger>);
	return $answer;
}
sub connects { my ($count, $to, $say) = @_; return join ' ', "connect $count", map { unpack 'H*', $_ } $to, $say // (); }
sub hears { my $heard = stranger("hear $kLongest"); stranger('close'); return $heard; }

# --- the servers ------------------------------------------------------------------------------------
# With so few files the server makes no PGconns in advance: each session makes its own.
my $coord = start_coordinator(conf => <<'END');
max_files_per_process = 200
pooler.min_pool_size = 0
pooler.min_free_size = 0
END
my $dn = start_datanode('dn1');
add_node($coord, 'dn1', $dn, server => { max_pool_size => 10 });
value($coord, 'CREATE EXTENSION polarx_pooler_example');
my $one = q{SELECT pooler.exec('dn1', 'SELECT 1')};
my $path = value($coord, q{SELECT socket FROM pooler.workers WHERE datname = 'postgres'});
my ($relative) = $path =~ m{/(pg_stat_tmp/[^/]+)$};
my $data = $coord->data_dir;
my $worker = worker_pid($coord);
my $s = session($coord);
is($s->ask($one), 'SELECT 1', 'the pool works');
isnt($uid, $>, "a process of operating system user $uid is there");
sub descriptors { return scalar(() = glob "/proc/$worker/fd/*"); }

# What a session says first: attach, acquire.
sub frame { my ($code, $payload) = @_; return pack('NN', 8 + length $payload, 0x504C5801 + $code) . $payload; }
my ($node, $role) = split /\|/, value($coord, q{SELECT s.oid, u.umuser FROM pg_foreign_server s
	JOIN pg_user_mappings u ON u.srvid = s.oid WHERE s.srvname = 'dn1'});
my $says = frame(0, pack('NQ>', 1, 1)) . frame(1, pack('NNCNNN', 7, 0, 0, 1, $node, $role));

# --- the pooler's socket: doors opened one after the other ------------------------------------------
my $offset = log_offset($coord);
my $turned_away = qr/process \d+ of operating system user $uid may not connect to the pooler/;
is(stranger(connects(1, $path, $says)), '0 EACCES', 'the data directory keeps him away');
chmod 0711, $data or die "chmod: $!";
is(stranger(connects(1, $path, $says)), '0 EACCES', '... if that is open, the folder in it');
chmod 0711, "$data/pg_stat_tmp" or die "chmod: $!";
is(stranger(connects(1, $path, $says)), '0 EACCES', '... if that is open, too, the mode of the socket');
is(stranger(connects(1, "$path.lock")), '0 EACCES', '... and that of its lock');
unlike(log_since($coord, $offset), $turned_away, 'the pooler saw none of it');
chmod 0666, $path or die "chmod: $!";
my $first = time;
for my $mode (0711, 0777)
{
	chmod $mode, $data, "$data/pg_stat_tmp";
	my $name = sprintf 'folders %o, socket 666', $mode;
	is(stranger(connects(1, $path, $says)), '1 -', "$name: he is connected");
	is(hears(), '1 0 0', '... and is hung up on without a byte');
	is(stranger(connects(1, $path)), '1 -', '... also when he says nothing');
	is(hears(), '1 0 0', '... at once');
}
wait_log($coord, $turned_away, $offset, 'it is logged');
is(value($coord, 'SELECT sum(leased), sum(waiting) FROM pooler.pools'), '0|0', 'he has neither lease nor ticket');
is(value($coord, 'SELECT count(*) FROM pooler.sessions WHERE pid <> pg_backend_pid()'), '1', '... and is no session');
is($s->ask($one), 'SELECT 1', 'sessions go on working');

# --- hundreds at once -------------------------------------------------------------------------------
my $crowd = 900;
my $before = descriptors();
$stopped = $worker;
kill 'STOP', $stopped;
is(stranger(connects($crowd, $path, $says)), "$crowd -", "$crowd connections of his are in the queue");
my $late = session($coord);
$late->tell($one);
$s->tell($one);
kill 'CONT', $stopped;
undef $stopped;
within(10, 'a session behind them is served', sub { is(join('', $late->hear()), 'SELECT 1', 'it has its answer') });
is(join('', $s->hear()), 'SELECT 1', '... as has one that was attached before');
$late->quit();
wait_for('descriptors to be closed', sub { descriptors() < $before + 20 });
pass('none of his connections takes a descriptor, while he holds his ends');
is(hears(), "$crowd 0 0", '... each was hung up on without a byte');
for my $wave (1 .. 3)
{
	tell_stranger(connects($crowd, $path, $says));
	my ($count, $slowest) = meanwhile($s, 'dn1', sub { $_[0] >= 5 && has_told() });
	is(stranger(), "$crowd -", "wave $wave of $crowd");
	cmp_ok($slowest, '<', 5, "... meanwhile the slowest of $count statements is served soon");
	is(hears(), "$crowd 0 0", '... each was hung up on without a byte');
}
my $lines = () = log_since($coord, $offset) =~ /process \d+ (?:of operating system user \d+ may not|may not|broke)/g;
cmp_ok($lines, '<=', 1 + (time - $first) / 60, 'no more than one line a minute in the log');

# --- the listener of an adoption --------------------------------------------------------------------
# What the server listens on: its processes' descriptors in the system's lists.
sub listening
{
	my $postmaster = (split /\n/, slurp_file("$data/postmaster.pid"))[0];
	my %ours;
	for my $stat (glob '/proc/[0-9]*/stat')
	{
		my ($pid, $parent) = (eval { slurp_file($stat) } // '') =~ /^(\d+) \(.*\) \S+ (\d+)/s or next;
		next if $pid != $postmaster && $parent != $postmaster;
		$ours{$_} = 1 for map { (readlink) // '' } glob "/proc/$pid/fd/*";
	}
	my @unix = map { [ (split ' ', $_, 8)[ 3, 6, 7 ] ] } split /\n/, slurp_file('/proc/net/unix');
	my @tcp = map { [ (split ' ')[ 3, 9, 1 ] ] } map { split /\n/, slurp_file($_) } glob '/proc/net/tcp*';
	my %listens = map { $_->[2] => 1 } grep { $ours{"socket:[$_->[1]]"} } (grep { $_->[0] eq '00010000' } @unix),
	  (grep { $_->[0] eq '0A' } @tcp);
	return sort keys %listens;
}
my @known = sort $relative, $coord->host . '/.s.PGSQL.' . $coord->port;
is_deeply([ listening() ], \@known, 'the server listens on its own socket and on the pooler\'s, and nowhere else');

my $name_file = $coord->basedir . '/listener';
for my $case ([ 100, qr/^100 -$/, 'some of his' ], [ 6000, qr/^\d{2,4} EAGAIN$/, 'as many of his as fit' ])
{
	my ($count, $like, $name) = @$case;
	my $session = session($coord);
	$session->ask("SELECT misuse_stall_listen('$name_file')");
	$session->tell($one);
	wait_for('a listener', sub { -e $name_file });
	my $listener = slurp_file($name_file);
	is_deeply([ listening() ], [ sort "\@$listener", @known ], 'the listener of an adoption is there');
	my $came = stranger(connects($count, "\0$listener", $says));
	like($came, $like, "... and $name come before libpq does");
	unlink $name_file;
	is(join('', $session->hear()), 'SELECT 1', '... the session has its connection');
	my ($there) = split ' ', $came;
	is(hears(), "$there 0 0", '... and he was hung up on without a byte');
	is_deeply([ listening() ], \@known, '... the listener is gone');
	is($session->ask("BEGIN; $one; COMMIT"), 'SELECT 1', '... the next adoption is well');
	$session->quit();
}
wait_until($coord, 'SELECT sum(leased), sum(total - idle - parked) FROM pooler.pools', '0|0', 'nothing is held');

# --- files and memory -------------------------------------------------------------------------------
# Whatever the pooler worker has open, and memory that processes share, is for the server's user alone.
my %open;
for my $pid (split /\n/, value($coord, q{SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'polarx_pooler%'}))
{
	$open{$_} = 1 for map { (readlink) // '' } glob "/proc/$pid/fd/*";
	$open{$_} = 1 for slurp_file("/proc/$pid/maps") =~ m{^\S+ ..\Ss .*?(/.*)$}mg;
}
my @files = grep { -e && -O _ && S_ISREG((stat _)[2]) } sort keys %open;
ok((grep { $_ eq "$path.lock" } @files), 'the lock is among the files that are open');
is_deeply([ grep { (stat)[2] & 077 } @files ], [], 'none of them, and of shared memory, is open to other users');

chmod 0700, $data, "$data/pg_stat_tmp";
chmod 0600, $path;
is(stranger(connects(1, $path)), '0 EACCES', 'with the modes as they were he is kept away');
$s->quit();
finish();
