# A datanode that breaks off, is silent, dawdles or talks nonsense at any message of the startup, as told
# by a proxy before a real one.

use strict;
use warnings;
use PolarxFault;
use PolarxPooler;
use Test::More;

my $ground = fault_ground();
my $limit = $ground->{limit};
my $could_not = qr/could not connect to datanode "dn": /;
my $timeout = qr/${could_not}pooler\.pooler_connect_timeout \($limit s\) is over while the connection was opened/;
my $lost = qr/$could_not.*(?:server closed the connection unexpectedly|Connection reset by peer)/;
my @node_failure = (code => '08001', scope => 'node', counts => 'connect_failures');
# A datanode that has said something is up: its trouble is the pool's.
my @pool_failure = (code => '08001', scope => 'pool', counts => 'connect_failures', new => 1);
sub failure_at { return $_[0] eq 'startup' || $_[0] eq 'sasl' ? @node_failure : @pool_failure; }

# Broken off at each message, and silence from there on.
my @steps = qw(startup sasl continue final ok parameter key ready);
fault_row($ground, "closed at $_", fault => [ $_, 'close' ], like => $lost, failure_at($_)) for @steps;
fault_row($ground, "reset at $_", fault => [ $_, 'reset' ], like => $lost, failure_at($_)) for @steps;
fault_row($ground, "half of $_, then closed", fault => [ $_, 'half' ], like => $lost, @pool_failure)
  for grep { $_ ne 'startup' } @steps;
fault_row($ground, "silent at $_", fault => [ $_, 'silence' ], like => $timeout, after => $limit, failure_at($_))
  for qw(startup continue ready);
fault_row($ground, "half of $_, then silent", fault => [ $_, 'half_silence' ], like => $timeout, after => $limit, @pool_failure)
  for qw(sasl key);

# Slow bytes.
fault_row($ground, 'slow, all bytes together too slow', fault => [ 'sasl', 'slow:0.01' ], like => $timeout, after => $limit,
	@pool_failure);
fault_row($ground, 'slow, but in time', fault => [ 'key', 'slow:0.005' ], scope => 'none');

# Nonsense; the connection stays open and silent after it.
sub raw_message { my ($type, $body) = @_; return $type . pack('N', 4 + length $body) . $body; }
sub authentication { my ($kind, $data) = @_; return raw_message('R', pack('N', $kind) . ($data // '')); }
my $no_request = qr/${could_not}.*expected authentication request/;
my @nonsense = (
	[ 'another protocol', startup => "SSH-2.0-OpenSSH_9.2\r\n", $no_request ],
	[ 'zeros', startup => "\0" x 100, $no_request ],
	[ 'a length of 0', startup => 'R' . pack('N', 0), $no_request ],
	[ 'a negative length', startup => 'R' . pack('N', 0xffffffff), $no_request ],
	[ 'a request without an end', startup => 'R' . pack('NN', 2000, 0), $timeout ],
	[ 'words of version 2', startup => "Esomething is wrong\n\0", qr/${could_not}.*something is wrong/ ],
	[ 'an unknown authentication', startup => authentication(99), qr/${could_not}.*authentication method/ ],
	[ 'Kerberos 5', startup => authentication(2), qr/${could_not}.*(?:authentication method|Kerberos 5)/ ],
	[ 'an unknown mechanism', startup => authentication(10, "FOO\0\0"), qr/${could_not}.*SASL authentication mechanisms/ ],
	[ 'a list without an end', startup => authentication(10, 'SCRAM-SHA-256'), qr/${could_not}.*list of authentication mechanisms/ ],
	[ 'a continuation of nothing', startup => authentication(11, 'r=a,s=YWJj,i=1'), qr/${could_not}.*invalid authentication request/ ],
	[ 'another nonce', continue => authentication(11, 'r=a,s=YWJj,i=1'), qr/${could_not}.*nonce mismatch/ ],
	[ 'bytes for an answer', continue => authentication(11, "\xff\0\xfe"), qr/${could_not}.*malformed SCRAM message/ ],
	[ 'a wrong proof', final => authentication(12, 'v=' . 'A' x 43 . '='), qr/${could_not}.*incorrect server signature/ ],
	[ 'a refusal in the last message', final => authentication(12, 'e=other-error'), qr/${could_not}.*other-error/ ],
	[ 'a parameter without value', parameter => raw_message('S', 'client_encoding'), $timeout ],
	[ 'a parameter of 2 GB', parameter => 'S' . pack('N', 0x7fffffff), qr/${could_not}.*lost synchronization/ ],
	[ 'an unknown message', key => raw_message('x', 'abc'), qr/${could_not}.*unexpected response/ ],
	[ 'rows', ready => raw_message('T', "\0\0"), qr/${could_not}.*unexpected message/ ]);
for my $row (@nonsense)
{
	my ($name, $step, $bytes, $like) = @$row;
	fault_row($ground, "$name at $step", fault => [ $step, 'say:' . unpack('H*', $bytes) . ':silence' ], like => $like,
		$like eq $timeout ? (after => $limit) : (),
		$like eq $no_request || $name eq 'words of version 2' ? @node_failure : @pool_failure);
}

end_ground($ground);
