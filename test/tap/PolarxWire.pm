# The messages of one connection between a client and a datanode, as the proxy of the tests sees them
# pass, and the faults that come at a step of the protocol; in the proxy's process.
#
# A fault is { step, user, action }. Steps, each meant to be the first message from the datanode
# that ... :
#   startup    answers the startup packet (which the datanode then never sees)
#   sasl continue final ok    an authentication request of that kind
#   parameter key ready       what follows it, up to the first ReadyForQuery
#   answer:TEXT  comes after a statement with TEXT in it
# Actions, in place of that message: close, reset, silence, half (of it, then close), half_silence,
# say:HEX:ENDING (other bytes, then close, reset or silence), edit:FROM:TO (bytes within it, in
# hexadecimal), slow:SECONDS (from here on each byte that much later than the one before), fail:SQLSTATE (an
# error instead of all that answers the statement).

package PolarxWire;

use strict;
use warnings;

my $kVersion3 = 196608;
my %kAuthentication = (0 => 'ok', 10 => 'sasl', 11 => 'continue', 12 => 'final');
my %kStartupStep = (S => 'parameter', K => 'key');

# faults: a reference to the proxy's list of them.
sub new
{
	my ($class, $faults) = @_;
	return bless { faults => $faults, client => '', node => '', asked => '' }, $class;
}

sub user { return $_[0]{user} // ''; }

# Does the client wait to be let in?
sub opening { return defined $_[0]{user} && !$_[0]{ready} ? 1 : 0; }

# Each takes what came and returns what is to be passed on: (to the client, to the datanode, how the
# connection then ends or slows down: '', close, reset, silence, slow:SECONDS, what the client gets at
# that pace). Messages pass as a whole.
sub from_client
{
	my ($self, $bytes) = @_;
	return ('', $bytes, '') if $self->{foreign};
	my $pass = '';
	for my $message (_messages(\$self->{client}, $bytes, !defined $self->{user}))
	{
		$pass .= $message;
		if (!defined $self->{user})
		{
			my ($version, $options) = unpack 'x4Na*', $message;
			# A cancel request or the like is none of ours.
			return ('', $pass . $self->{client}, '') if $self->{foreign} = $version != $kVersion3;
			my %options = split /\0/, $options;
			$self->{user} = $options{user};
			if (my $fault = $self->_fault('startup'))
			{
				my ($said, $ending) = act($fault->{action}, '');
				return ($said, '', $ending);
			}
			next;
		}
		$self->{asked} .= (unpack 'x5Z*', $message)[0] . "\n" if $message =~ /\AQ/;
		$self->{asked} .= (unpack 'x5Z*Z*', $message)[1] . "\n" if $message =~ /\AP/;
	}
	return ('', $pass, '');
}

sub from_node
{
	my ($self, $bytes) = @_;
	return ($bytes, '', '') if $self->{foreign};
	my ($pass, $ending, $slowly) = ('', '', '');
	for my $message (_messages(\$self->{node}, $bytes, 0))
	{
		if ($self->{failing})
		{
			next if $message !~ /\AZ/;
			$pass .= substr($message, 0, 5) . 'E';    # the transaction has failed
			$self->{failing} = 0;
			next;
		}
		my $fault = $self->_fault($self->_step($message));
		$self->{failing} = $fault && $fault->{action} =~ /^fail/;
		($message, $ending) = act($fault->{action}, $message) if $fault;
		return ($pass . $message, '', $ending) if $ending ne '' && $ending !~ /^slow/;
		if   ($ending eq '') { $pass .= $message; }
		else                 { $slowly .= $message; }
	}
	return ($pass, '', $ending, $slowly);
}

# What the action makes of the message: (bytes for the client, ending).
sub act
{
	my ($action, $message) = @_;
	my ($verb, $argument, $ending) = split /:/, $action;
	my $half = substr $message, 0, length($message) / 2;
	return ('', $verb) if $verb =~ /^(?:close|reset|silence)$/;
	return ($half, 'close') if $verb eq 'half';
	return ($half, 'silence') if $verb eq 'half_silence';
	return (pack('H*', $argument), $ending) if $verb eq 'say';
	return ($message, $action) if $verb eq 'slow';
	if ($verb eq 'fail')
	{
		my $body = "SERROR\0VERROR\0C$argument\0Mstruck\0\0";
		return ('E' . pack('N', 4 + length $body) . $body, '');
	}
	if ($verb eq 'edit')
	{
		my ($from, $to) = map { pack 'H*', $_ } $argument, $ending;
		my $body = substr($message, 5) =~ s/\Q$from\E/$to/r;
		return (substr($message, 0, 1) . pack('N', 4 + length $body) . $body, '');
	}
	die "no such action: $action";
}

# Takes the complete messages off the buffer. The first of a connection has no type.
sub _messages
{
	my ($buffer, $bytes, $first) = @_;
	$$buffer .= $bytes;
	my @messages;
	for (;;)
	{
		my $type = $first ? 0 : 1;
		last if length $$buffer < $type + 4;
		my $length = $type + unpack "x${type}N", $$buffer;
		last if length $$buffer < $length;
		push @messages, substr $$buffer, 0, $length, '';
		$first = 0;
	}
	return @messages;
}

sub _step
{
	my ($self, $message) = @_;
	my $type = substr $message, 0, 1;
	return 'answer' if $self->{ready};
	return $kAuthentication{ unpack 'x5N', $message } // '' if $type eq 'R';
	return $kStartupStep{$type} // '' if $type ne 'Z';
	$self->{ready} = 1;
	return 'ready';
}

# The fault that strikes here; one for each connection.
sub _fault
{
	my ($self, $step) = @_;
	return undef if $step eq '' || $self->{struck};
	for my $fault (@{ $self->{faults} })
	{
		my ($at, $text) = split /:/, $fault->{step}, 2;
		next if $at ne $step || $fault->{user} ne '*' && $fault->{user} ne $self->{user};
		next if defined $text && index($self->{asked}, $text) < 0;
		$self->{struck} = 1;
		return $fault;
	}
	return undef;
}

1;
