# A TCP proxy in front of a datanode that misbehaves on command, in a process of its own, on
# loopback; and a port that a connect to never ends.
#
#   my $proxy = PolarxProxy->before($datanode->port);   # forwards
#   add_node($coord, 'dn1', $datanode, server => { port => $proxy->port });
#   $proxy->freeze();
#   $proxy->fault('alice', 'sasl', 'half');   # see PolarxWire
#
# A command is in effect when its method returns. The process ends with stop(), or with the test.

package PolarxProxy;

use strict;
use warnings;

use Errno qw(EAGAIN EINPROGRESS EINTR);
use Exporter 'import';
use File::Basename qw(dirname);
use File::Spec;
use IO::Socket::INET;
use POSIX ();
use Socket qw(IPPROTO_TCP TCP_NODELAY SOL_SOCKET SO_LINGER AF_UNIX SOCK_STREAM PF_UNSPEC
  INADDR_LOOPBACK inet_aton pack_sockaddr_in);
use Time::HiRes qw(time);
use lib dirname(File::Spec->rel2abs(__FILE__));
use PolarxWire ();

our @EXPORT_OK = qw(hanging_port);

my $kProgram = File::Spec->rel2abs(__FILE__);
my $kChunk = 65536;
my $kMostQueued = 64;    # chunks that one side may be ahead of the other

# The state of the proxy's process.
my ($listener, $mode, $frozen, $delay, $budget);
my (%connections, %figures, @faults);
my $next_id = 0;

# --- the test's side ------------------------------------------------------------------------------

sub before
{
	my ($class, $target_port) = @_;
	my $bound = _bound(0, Listen => 128);
	my $port = $bound->sockport;
	socketpair(my $ours, my $theirs, AF_UNIX, SOCK_STREAM, PF_UNSPEC) or die "socketpair: $!";
	my $pid = fork // die "fork: $!";
	if ($pid == 0)
	{
		# A program of its own: nothing of the test's may run or stay open there.
		POSIX::dup2(fileno $theirs, 0);
		POSIX::dup2(fileno $bound, 1);
		opendir my $folder, '/proc/self/fd' or POSIX::_exit(1);
		POSIX::close($_) for grep { /^\d+$/ && $_ > 2 } readdir $folder;
		exec($^X, $kProgram, $port, $target_port) or POSIX::_exit(1);
	}
	close $theirs;
	return bless { pid => $pid, owner => $$, port => $port, control => $ours }, $class;
}

sub port { return $_[0]{port}; }

# As a plain wire; ends everything below but what cut() and close_after() have closed.
sub forward { return $_[0]->_command('forward'); }

# New connections are refused; open ones go on.
sub refuse { return $_[0]->_command('refuse'); }

# New connections are accepted and never answered; open ones go on.
sub silent { return $_[0]->_command('silent'); }

# Nothing is forwarded any more, in open and new connections; they stay open.
sub freeze { return $_[0]->_command('freeze'); }

# Everything is forwarded that many seconds later.
sub delay { return $_[0]->_command("delay $_[1]"); }

# Resets all open connections, on both sides.
sub cut { return $_[0]->_command('cut'); }

# From now on each connection is closed after so many bytes from the datanode.
sub close_after { return $_[0]->_command("close_after $_[1]"); }

# From now on each connection of that remote user ('*': of any) that comes to that step of the
# protocol meets with that action, once; for steps and actions see PolarxWire. One step more: accept,
# with close, reset, silence or say, for any user.
sub fault
{
	my ($self, $user, $step, $action) = @_;
	return $self->_command(join ' ', 'fault', $user, map { unpack 'H*', $_ } $step, $action);
}

# The action, on every open connection of that user at once.
sub strike { return $_[0]->_command("strike $_[1] " . unpack 'H*', $_[2]); }

# Figures: { open => connections, accepted => connections since the start, to_client => bytes,
# to_node => bytes, opening => connections with a startup packet that the datanode has not let in yet,
# most_opening => the most of them at a time since recount() }.
sub recount { return $_[0]->_command('recount'); }
sub figures { return { split ' ', $_[0]->_command('figures') }; }

sub stop
{
	my ($self) = @_;
	return if !$self->{control} || $self->{owner} != $$;
	close delete $self->{control};
	waitpid $self->{pid}, 0;
	return;
}

sub DESTROY { local ($@, $!, $?); $_[0]->stop(); return; }

sub _command
{
	my ($self, $text) = @_;
	local $SIG{PIPE} = 'IGNORE';
	my $answer = '';
	syswrite $self->{control}, "$text\n" or die "the proxy is gone";
	until ($answer =~ /\n/)
	{
		my $got = sysread $self->{control}, $answer, 4096, length $answer;
		next if !defined $got && $! == EINTR;
		die "the proxy is gone" unless $got;
	}
	chomp $answer;
	die "the proxy does not know: $text" if $answer eq 'unknown';
	return $answer;
}

# A TCP port whose backlog is full, so that a connect to it does not end: (port, what to keep as long as
# it shall hang). On 127.0.0.1 and any port, unless given.
sub hanging_port
{
	my ($address, $wanted) = @_;
	$address //= '127.0.0.1';
	my $full = _bound($wanted // 0, Listen => 1, LocalAddr => $address);
	listen $full, 0 or die "listen: $!";
	my $port = $full->sockport;
	my @kept = ($full);
	for (1 .. 16)
	{
		my $filler = IO::Socket::INET->new(Proto => 'tcp', Type => SOCK_STREAM) or die "socket: $!";
		$filler->blocking(0);
		push @kept, $filler;
		connect $filler, pack_sockaddr_in($port, inet_aton($address)) or $! == EINPROGRESS or die "connect: $!";
		my $writable = '';
		vec($writable, fileno $filler, 1) = 1;
		return ($port, \@kept) if select(undef, $writable, undef, 0.3) == 0;
	}
	die 'the backlog does not fill';
}

# A socket bound to a port of 127.0.0.1 (0: any), listening if options say so.
sub _bound
{
	my ($port, %options) = @_;
	return IO::Socket::INET->new(
		LocalAddr => '127.0.0.1', LocalPort => $port, ReuseAddr => 1, Proto => 'tcp', Type => SOCK_STREAM,
		%options)
	  || die "cannot bind to port $port: $!";
}

# --- the proxy's side -----------------------------------------------------------------------------
# A connection is { client => end, node => end (none behind a silent port), budget => bytes that
# the client may still get }. An end is { socket, queue => [[due, bytes], ...] to be written there,
# eof => its peer has said all }; undef instead of bytes tells it that no more will come.

sub _serve
{
	my ($port, $target) = @_;
	$SIG{PIPE} = 'IGNORE';
	open my $control, '+<&=', 0 or die "no control: $!";
	%figures = (accepted => 0, to_client => 0, to_node => 0, opening => 0, most_opening => 0);
	_forward();
	$listener = IO::Socket::INET->new_from_fd(1, '+<') or die "no listener: $!";
	close STDOUT;
	my $typed = '';
	for (;;)
	{
		my ($read, $write) = ('', '');
		vec($read, fileno $control, 1) = 1;
		vec($read, fileno $listener, 1) = 1 if $mode ne 'refuse';
		my $wait = _want(\$read, \$write);
		next if select($read, $write, undef, $wait) < 0;
		if (vec($read, fileno $control, 1))
		{
			sysread($control, $typed, 4096, length $typed) or return;
			while ($typed =~ s/\A(.*)\n//)
			{
				my $answer = _obey($1, $port);
				syswrite $control, "$answer\n";
			}
			next;    # the sets may name what is closed now
		}
		if (!$frozen)
		{
			_move($_, $read) for sort { $a <=> $b } keys %connections;
		}
		_accept($target) if $mode ne 'refuse' && vec($read, fileno $listener, 1);
	}
	return;
}

sub _obey
{
	my ($text, $port) = @_;
	my ($verb, $number, @more) = split ' ', $text;
	my $refused = $mode eq 'refuse';
	if ($verb eq 'forward') { _forward(); }
	elsif ($verb eq 'refuse' || $verb eq 'silent') { $mode = $verb; }
	elsif ($verb eq 'freeze') { $frozen = 1; }
	elsif ($verb eq 'delay') { $delay = $number; }
	elsif ($verb eq 'cut') { _close($_, 1) for keys %connections; }
	elsif ($verb eq 'close_after')
	{
		$_->{budget} = $number for values %connections;
		$budget = $number;
	}
	elsif ($verb eq 'fault') { push @faults, { user => $number, step => pack('H*', $more[0]), action => pack('H*', $more[1]) }; }
	elsif ($verb eq 'strike')
	{
		for my $id (grep { $connections{$_}{wire}->user eq $number } keys %connections)
		{
			_pass($connections{$id}, PolarxWire::act(pack('H*', $more[0]), ''));
			_move($id, '');    # written when the answer comes
		}
	}
	elsif ($verb eq 'recount') { $figures{most_opening} = $figures{opening}; }
	elsif ($verb eq 'figures') { return join ' ', %figures, open => scalar keys %connections; }
	else { return 'unknown'; }

	# While connections are refused the port stays bound, so that nobody else gets it.
	if ($refused != ($mode eq 'refuse'))
	{
		close $listener;
		$listener = _bound($port, $refused ? (Listen => 128) : ());
	}
	return 'done';
}

sub _forward
{
	($mode, $frozen, $delay, $budget, @faults) = ('forward', 0, 0, undef);
	$_->{budget} = undef for values %connections;
	return;
}

sub _accept
{
	my ($target) = @_;
	my $client = $listener->accept or return;
	my $connection = { client => _end($client), budget => $budget, wire => PolarxWire->new(\@faults) };
	$figures{accepted}++;
	$connections{ $next_id++ } = $connection;
	my ($fault) = grep { $_->{step} eq 'accept' } @faults;
	return _pass($connection, PolarxWire::act($fault->{action}, '')) if $fault;
	return if $mode eq 'silent';
	my $node = IO::Socket::INET->new(Proto => 'tcp', Type => SOCK_STREAM) or die "socket: $!";
	$connection->{node} = _end($node);
	connect $node, pack_sockaddr_in($target, INADDR_LOOPBACK);    # how it ends the first read tells
	return;
}

sub _end
{
	my ($socket) = @_;
	$socket->blocking(0);
	setsockopt $socket, IPPROTO_TCP, TCP_NODELAY, 1;
	return { socket => $socket, queue => [], eof => 0 };
}

# What to wait for, and for how long at most.
sub _want
{
	my ($read, $write) = @_;
	return undef if $frozen;
	my $now = time;
	my $next;
	for my $connection (values %connections)
	{
		my ($client, $node) = @$connection{qw(client node)};
		for my $pair ([ $client, $node ], [ $node, $client ])
		{
			my ($end, $other) = @$pair;
			next unless $end;
			my $fd = fileno $end->{socket};
			vec($$read, $fd, 1) = 1 if !$end->{eof} && (!$other || @{ $other->{queue} } < $kMostQueued);
			next unless @{ $end->{queue} };
			my $due = $end->{queue}[0][0];
			if   ($due <= $now) { vec($$write, $fd, 1) = 1; }
			else                { $next = $due if !defined $next || $due < $next; }
		}
	}
	return defined $next ? $next - $now : undef;
}

sub _move
{
	my ($id, $read) = @_;
	my $connection = $connections{$id};
	my ($client, $node) = @$connection{qw(client node)};
	for my $pair ([ $client, $node ], [ $node, $client ])
	{
		my ($end, $other) = @$pair;
		next unless $end && vec($read, fileno $end->{socket}, 1);
		my $bytes = '';
		my $got = sysread $end->{socket}, $bytes, $kChunk;
		next if !defined $got && ($! == EAGAIN || $! == EINTR);
		return _close($id, !defined $got) if !$got && (!$other || !defined $got);
		return _close($id, 0) if !$got && $connection->{mute} && $end == $client;
		$end->{eof} = !$got;
		next if !$other || $connection->{mute};
		if (!$got) { push @{ $other->{queue} }, [ time + $delay, undef ]; next; }
		my $wire = $connection->{wire};
		my ($to_client, $to_node, $ending, $slowly) =
		  $end == $client ? $wire->from_client($bytes) : $wire->from_node($bytes);
		push @{ $node->{queue} }, [ time + $delay, $to_node ] if $to_node ne '';
		_pass($connection, $to_client, '');
		_pass($connection, $slowly // '', $ending);
	}
	# Who has given up waits no more, even if the datanode has not ended it yet.
	_count($connection, $client->{eof} ? 0 : $connection->{wire}->opening);
	for my $end (grep { defined } $client, $node)
	{
		my $done = _write($connection, $end, $end == $client ? 'to_client' : 'to_node') // return _close($id, 1);
		return _close($id, 0) unless $done;
	}
	return _close($id, 0) if $node && !grep { !$_->{eof} || @{ $_->{queue} } } $client, $node;
	return;
}

# Queues what the client gets, and how its connection goes on.
sub _pass
{
	my ($connection, $bytes, $ending) = @_;
	my $queue = $connection->{client}{queue};
	$connection->{pace} = $1 if $ending =~ /^slow:(.*)/;
	my $pace = $connection->{pace};    # seconds for each byte
	my $due = time + $delay;
	if (defined $pace)
	{
		$due = $queue->[-1][0] if @$queue && $queue->[-1][0] > $due;
		push @$queue, map { [ $due += $pace, $_ ] } split //, $bytes;
	}
	elsif ($bytes ne '') { push @$queue, [ $due, $bytes ]; }
	$connection->{mute} = 1 if $ending =~ /^(?:close|reset|silence)$/;
	push @$queue, [ $due, \$ending ] if $ending =~ /^(?:close|reset)$/;
	return;
}

sub _count
{
	my ($connection, $opening) = @_;
	return if $opening == ($connection->{opening} // 0);
	$connection->{opening} = $opening;
	$figures{opening} += $opening ? 1 : -1;
	$figures{most_opening} = $figures{opening} if $figures{opening} > $figures{most_opening};
	return;
}

# Writes what is due. False: the connection has had all that it may have; undef: it is broken.
sub _write
{
	my ($connection, $end, $figure) = @_;
	my $queue = $end->{queue};
	my $now = time;
	while (@$queue && $queue->[0][0] <= $now)
	{
		my $bytes = $queue->[0][1];
		if (!defined $bytes)
		{
			shutdown $end->{socket}, 1;
			shift @$queue;
			next;
		}
		return $$bytes eq 'close' ? 0 : undef if ref $bytes;
		my $limited = $figure eq 'to_client' && defined $connection->{budget};
		my $length = length $bytes;
		$length = $connection->{budget} if $limited && $connection->{budget} < $length;
		return 0 if $length == 0;
		my $sent = syswrite $end->{socket}, $bytes, $length;
		return $! == EAGAIN || $! == EINTR ? 1 : undef unless defined $sent;
		$figures{$figure} += $sent;
		$connection->{budget} -= $sent if $limited;
		if   ($sent == length $bytes) { shift @$queue; }
		else                          { $queue->[0][1] = substr $bytes, $sent; }
		return 0 if $limited && $connection->{budget} == 0;
	}
	return 1;
}

sub _close
{
	my ($id, $reset) = @_;
	my $connection = delete $connections{$id};
	_count($connection, 0);
	for my $end (grep { defined } @$connection{qw(client node)})
	{
		setsockopt $end->{socket}, SOL_SOCKET, SO_LINGER, pack('ii', 1, 0) if $reset;
		close $end->{socket};
	}
	return;
}

_serve(@ARGV) unless caller;

1;
