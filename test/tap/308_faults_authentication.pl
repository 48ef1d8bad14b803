# A datanode that asks for an authentication that would block a worker thread: Kerberos with a key server
# that does not answer, and a hash of a password with iterations without end.
use strict;
use warnings;
use PolarxFault;
use PolarxPooler;
use PostgreSQL::Test::Utils;
use Test::More;

# The server's user has a key, so that libpq would go and ask.
my ($port, $silent) = silent_port();
my $dir = PostgreSQL::Test::Utils::tempdir();
my $key = pack('n', 1) . pack('n/a*', 'X.TEST') . pack('n/a*', 'server') . pack('NNCn', 1, time, 1, 18) . pack('n/a*', 'k' x 32);
append_to_file("$dir/keytab", pack('n', 0x0502) . pack('N/a*', $key));
append_to_file("$dir/krb5.conf", <<"END");
[libdefaults]
default_realm = X.TEST
dns_lookup_kdc = false
[realms]
X.TEST = {
kdc = 127.0.0.1:$port
}
END
my $ground = do {
	local %ENV = (%ENV, KRB5_CONFIG => "$dir/krb5.conf", KRB5_CLIENT_KTNAME => "$dir/keytab", KRB5CCNAME => "$dir/tickets");
	fault_ground();
};
my $could_not = qr/could not connect to datanode "\w+": /;
my @pool = (scope => 'pool', counts => 'connect_failures', new => 1);

fault_row($ground, 'GSSAPI demanded', @pool, code => '28000', like => qr/${could_not}it demands GSSAPI authentication/,
	fault => [ 'startup', 'say:' . message('R', pack 'N', 7) . ':silence' ]);
fault_row($ground, 'SSPI demanded', @pool, code => '28000', like => qr/${could_not}it demands GSSAPI authentication/,
	fault => [ 'startup', 'say:' . message('R', pack 'N', 9) . ':silence' ]);
fault_row($ground, 'iterations without end', @pool, code => '28000', like => qr/${could_not}it demands more than 1000000 iterations/,
	fault => [ 'continue', 'edit:' . unpack('H*', ',i=4096') . ':' . unpack('H*', ',i=9000000') ]);
end_ground($ground);
