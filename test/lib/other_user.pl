# A process of another operating system user, for the tests: it connects to Unix sockets as it is told,
# and tells what came of it; it does nothing else. Started by root, of whom nothing is left to it then.
#
#   perl other_user.pl SOCKET OWNER USER
#
# OWNER alone may connect to SOCKET, one at a time, and sends lines, each answered by one:
#
#   connect COUNT PATH [BYTES]   connects so often (PATH and BYTES in hex; a path that begins with a zero
#                                byte is an abstract name) and sends BYTES each time; stops at the first
#                                failure: how many are connected, error's name or "-"
#   hear SECONDS                 reads until all those have been closed, at most so long: how many have
#                                been closed, how many are open, how many bytes came in all
#   close                        closes them: "closed". So does the end of the connection to SOCKET.
#
# It ends with the process that started it, at the latest.

use strict;
use warnings;
use Errno ();
use IO::Select;
use IO::Socket::UNIX;
use POSIX ();
use Socket qw(MSG_NOSIGNAL SOCK_STREAM pack_sockaddr_un);
use Time::HiRes qw(sleep time);

my $kLongestPath = 100;    # of a socket's address
my ($path, $owner, $user) = @ARGV;
my $parent = getppid;
my (@held, %closed);
my $bytes = 0;

sub become_other
{
	my ($uid, $gid) = (getpwnam $user)[ 2, 3 ];
	die "there is no user $user\n" if !$uid;
	$) = "$gid $gid";
	POSIX::setgid($gid);
	POSIX::setuid($uid);
	die "cannot become $user\n" if "$< $> $( $)" ne "$uid $uid $gid $gid $gid $gid" || POSIX::setuid(0);
	return;
}

sub error_name { return (grep { $!{$_} } sort keys %!)[0]; }

# An address has room for the end of a long path, seen from as far below as this user gets.
sub address
{
	my ($peer) = @_;
	chdir '/' or die "chdir: $!\n";
	while (length $peer > $kLongestPath && $peer =~ s{^/*([^/\0]+)/+}{})
	{
		chdir "./$1" or return;
	}
	return pack_sockaddr_un($peer =~ m{^[/\0]} ? $peer : "./$peer");
}

sub connect_to
{
	my ($count, $peer, $say) = @_;
	$say = pack 'H*', $say // '';
	my $there = 0;
	my $address = address(pack 'H*', $peer);
	while ($there < $count)
	{
		my $socket = IO::Socket::UNIX->new(Type => SOCK_STREAM);
		$socket->blocking(0) if $socket;
		return "$there " . error_name() if !$socket || !$address || !connect $socket, $address;
		send $socket, $say, MSG_NOSIGNAL if $say ne '';
		push @held, $socket;
		$there++;
	}
	return "$there -";
}

sub hear
{
	my ($seconds) = @_;
	my $end = time + $seconds;
	for (;;)
	{
		for my $socket (grep { !$closed{$_} } @held)
		{
			my $got;
			$bytes += $got while $got = sysread $socket, my $buffer, 65536;
			$closed{$socket} = 1 if defined $got || !$!{EAGAIN};
		}
		last if keys %closed == @held || time >= $end;
		sleep 0.05;
	}
	return sprintf '%d %d %d', scalar keys %closed, @held - keys %closed, $bytes;
}

sub close_all
{
	@held = ();
	%closed = ();
	$bytes = 0;
	return 'closed';
}

sub answer
{
	local $_ = shift;
	return connect_to($1, $2, $3) if /^connect (\d{1,5}) ((?:[0-9a-f]{2})+)(?: ((?:[0-9a-f]{2})+))?$/;
	return hear($1) if /^hear (\d{1,2})$/;
	return close_all() if /^close$/;
	return 'not understood';
}

# Until something can be read.
sub await
{
	my ($socket) = @_;
	my $select = IO::Select->new($socket);
	until ($select->can_read(1))
	{
		exit if getppid != $parent;
	}
	return;
}

sub serve
{
	my ($client) = @_;
	my $asked = '';
	while (await($client), sysread $client, $asked, 4096, length $asked)
	{
		while ($asked =~ s/^(.*)\n//)
		{
			send $client, answer($1) . "\n", MSG_NOSIGNAL;
		}
	}
	close_all();
	return;
}

umask 0177;
my $listener = IO::Socket::UNIX->new(Type => SOCK_STREAM, Local => $path) or die "bind: $!\n";
chown scalar(getpwnam $owner), -1, $path or die "chown: $!\n";
become_other();
$listener->listen(8) or die "listen: $!\n";
for (;;)
{
	await($listener);
	my $client = $listener->accept() or next;
	serve($client);
}
