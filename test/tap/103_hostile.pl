# Nonsense on the pooler's Unix socket: its sender alone is the worse for it.

use strict;
use warnings;
use PolarxPooler;
use IO::Socket::UNIX;
use Socket qw(SOCK_STREAM);
use Test::More;

my $coord = start_coordinator();
my $dn = start_datanode('dn1');
add_node($coord, 'dn1', $dn);
value($dn, 'CREATE TABLE t (id int)');
value($coord, 'CREATE EXTENSION polarx_pooler_example');
my $one = q{SELECT pooler.exec('dn1', 'SELECT 1')};
is(value($coord, $one), 'SELECT 1', 'the pool works');
my $worker = worker_pid($coord);
my $path = value($coord, 'SELECT socket FROM pooler.workers');

# A session in a transaction all the while, and connections that should stay as they are.
my $s = session($coord);
$s->ask(q{BEGIN; SELECT pooler.exec('dn1', 'INSERT INTO t VALUES (1)')});
my $fds = value($coord, 'SELECT fds_used FROM pooler.workers');

# Codes of requests, as in core/protocol.h; a frame is length, code, payload.
my $code = 0x504C5801;
sub frame { my ($n, $payload) = @_; return pack('NN', 8 + length $payload, $code + $n) . $payload; }
my $attach = frame(0, pack('NQ>', 1, 0));    # to another worker than that which runs

srand 1;
my %nonsense = (
	'nothing' => '',
	'random bytes' => join('', map { chr int rand 256 } 1 .. 70000),
	'zeros' => "\0" x 4096,
	'a length of 0' => pack('NN', 0, $code),
	'a length of 7' => pack('NN', 7, $code),
	'a length of 2 GB' => pack('NN', 0x7fffffff, $code) . 'x' x 100,
	'a negative length' => pack('NN', 0xffffffff, $code),
	'just over the limit' => pack('NN', (1 << 20) + 1, $code) . 'x' x 1000,
	'an unknown code' => pack('NN', 8, 0x12345678),
	'an unknown request' => frame(77, ''),
	'a startup packet' => pack('NN', 23, 196608) . "user\0postgres\0\0",
	'an SSL request' => pack('NN', 8, 80877103),
	'text' => "GET / HTTP/1.0\r\n\r\n",
	'a request before the attach' => frame(5, pack('NC', 1, 1)),
	'another version' => frame(0, pack('NQ>', 99, 0)),
	'an attach that is too short' => pack('NN', 20, $code),
	'an attach that is too long' => frame(0, pack('NQ>', 1, 0) . 'more'));

# From a process that is no session: not even heard.
chdir $coord->data_dir or die;
(my $relative = $path) =~ s{^.*/pg_stat_tmp/}{pg_stat_tmp/};
sub stranger
{
	my $socket = IO::Socket::UNIX->new(Type => SOCK_STREAM, Peer => $relative) or die "connect: $!";
	return $socket;
}
for my $name ('nothing', 'random bytes', 'text')
{
	my $socket = stranger();
	local $SIG{PIPE} = 'IGNORE';
	syswrite $socket, $nonsense{$name};
	my $got = '';
	local $SIG{ALRM} = sub { die "no answer\n" };
	alarm 10;
	my $read = eval { 1 while sysread $socket, $got, 100, length $got; 1 };
	alarm 0;
	ok($read, "a stranger with $name is turned away");
}
my @strangers = map { stranger() } 1 .. 50;
is(value($coord, $one), 'SELECT 1', 'strangers who say nothing: the pool works on');
close $_ for @strangers;

# From sessions of the database.
my $literal = sub { return q{decode('} . unpack('H*', $_[0]) . q{', 'hex')}; };
sub hostile
{
	my ($data, $ending) = @_;
	return "SELECT example_hostile('$path', " . $literal->($data) . ", '$ending')";
}

# A session that has attached by hand and then sends the data; the pooler may not take all of them.
sub attached
{
	my ($data) = @_;
	my $session = session($coord);
	$session->ask("SELECT misuse_attach('$path')");
	$session->tell('SELECT misuse_send(' . $literal->($data) . ')');
	$session->hear();
	return $session;
}
for my $name (sort keys %nonsense)
{
	my $data = $nonsense{$name};
	value($coord, hostile($data, 'hangup'));
	value($coord, hostile(substr($data, 0, length($data) / 2), 'hangup'));
	value($coord, hostile($attach . $data, 'hangup'));
	attached($_)->quit() for $data, substr($data, 0, length($data) / 2);
	is(value($coord, $one), 'SELECT 1', "$name, and a hang-up: the pool works on");
}
for my $name ('random bytes', 'a length of 0', 'a length of 2 GB', 'a negative length', 'an unknown code',
	'just over the limit', 'a startup packet', 'text', 'a request before the attach')
{
	my $sender = session($coord);
	$sender->ask($one);
	within(2, "$name: the pooler ends that connection", sub { $sender->ask(hostile($nonsense{$name}, 'await')) });
	is($sender->ask($one), 'SELECT 1', '... another one of the same process goes on');
	$sender->quit();
	$sender = attached($nonsense{$name});
	my $heard = within(2, '... so it does after an attach', sub { $sender->ask('SELECT misuse_receive() IS NULL') });
	# Asking for a view before the attach is what everybody may do after it.
	is($heard, $name =~ /before the attach/ ? 'f' : 't', '... without an answer to what is none of a session\'s requests');
	is($sender->ask($one), 'SELECT 1', '... and the session goes on');
	$sender->quit();
}
my @silent;
for my $data ('', "\0", pack('N', 100), pack('NN', 1000, $code) . 'x' x 10, substr($attach, 0, 15))
{
	push @silent, session($coord);
	$silent[-1]->ask(hostile($data, 'silence'));
	push @silent, attached($data);
	is(value($coord, $one), 'SELECT 1', 'part of a message and silence: the pool works on');
}

# Well-formed requests about things of others.
my $victim = session($coord);
$victim->tell(q{SELECT pooler.exec('dn1', 'SELECT pg_sleep(1)')});
wait_until($dn, q{SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(1)' AND state = 'active'}, '1', 'a victim');
attached(join '', map { frame(4, pack('Q>N', $_, 1)) } 1 .. 60)->quit();
attached(frame(3, pack('NQ>CN', 1, $_, 2, 0)))->quit() for 1 .. 30;
attached(frame(1, pack('NNCNNN', 1, 0, 0, 1, 4294967295, 10)))->quit();
attached(frame(1, pack('NNCN', 1, 0, 0, 4000000000)))->quit();
my ($out, $err) = $victim->hear();
is("$out$err", 'SELECT 1', 'another session\'s lease can be neither cancelled nor released');
$_->quit() for @silent, $victim;

# All is as before.
is($s->ask(q{SELECT pooler.exec('dn1', 'INSERT INTO t VALUES (2)'); COMMIT}), 'INSERT 0 1', 'the session in its transaction goes on');
is(value($dn, 'SELECT count(*) FROM t'), '2', '... and has committed');
is(worker_pid($coord), $worker, 'the worker is the same');
wait_until($coord, "SELECT fds_used <= $fds + 12 FROM pooler.workers", 't', 'and keeps no descriptor of theirs');

$s->quit();
chdir '/';
finish();
