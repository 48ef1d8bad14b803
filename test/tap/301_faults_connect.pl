# A datanode that cannot be found or reached: name lookup and TCP connect, and hosts with several addresses.
# The pooler's lookups are made to answer what this test wants by a library of its own.

use strict;
use warnings;
use PolarxFault;
use PolarxPooler;
use PolarxProxy qw(hanging_port);
use PostgreSQL::Test::Utils;
use Test::More;

# In place of getaddrinfo, for one name: the file says which addresses, fail or hang.
my $dir = PostgreSQL::Test::Utils::tempdir();
my $answer = "$dir/answer";
append_to_file("$dir/lookup.c", <<'END');
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef int (*Lookup)(const char *, const char *, const struct addrinfo *, struct addrinfo **);

static void Read(char *words, int size)
{
	FILE *file = fopen(getenv("LOOKUP_ANSWER"), "r");
	words[0] = 0;
	if (file != NULL)
	{
		if (fgets(words, size, file) == NULL)
			words[0] = 0;
		fclose(file);
	}
}

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **list)
{
	Lookup real = (Lookup) dlsym(RTLD_NEXT, "getaddrinfo");
	char words[200], *rest = words, *word;
	struct addrinfo **end = list;
	if (node == NULL || strcmp(node, "datanode.test") != 0)
		return real(node, service, hints, list);
	for (Read(words, sizeof words); strncmp(words, "hang", 4) == 0; Read(words, sizeof words))
		usleep(20000);
	if (strncmp(words, "fail", 4) == 0)
		return EAI_NONAME;
	*list = NULL;
	while ((word = strsep(&rest, " \n")) != NULL)
	{
		if (*word && real(word, service, hints, end) == 0)
			while (*end != NULL)
				end = &(*end)->ai_next;
	}
	return *list == NULL ? EAI_AGAIN : 0;
}
END
system_or_bail('cc', '-shared', '-fPIC', '-o', "$dir/lookup.so", "$dir/lookup.c", '-ldl');
sub resolve
{
	my ($words) = @_;
	open my $file, '>', "$answer.new" or die $!;
	print $file "$words\n";
	close $file;
	rename "$answer.new", $answer or die $!;
	return;
}
resolve('127.0.0.1');
my $ground = do {
	local %ENV = (%ENV, LD_PRELOAD => "$dir/lookup.so", LOOKUP_ANSWER => $answer);
	fault_ground();
};
my ($limit, $coord, $dn, $proxy) = @$ground{qw(limit coord dn proxy)};
END { local $?; resolve("fail") if defined $answer && -e $answer; }

my $could_not = qr/could not connect to datanode "\w+": /;
my @node = (code => '08001', scope => 'node', counts => 'connect_failures');

# TCP connect.
my $timeout = qr/${could_not}pooler\.pooler_connect_timeout \($limit s\) is over while the connection was opened/;
fault_row($ground, 'connect: refused', @node, like => qr/${could_not}.*Connection refused/, arm => sub { $proxy->refuse() });
fault_row($ground, "connect: accepted, then $_->[0]", @node, like => qr/${could_not}.*(?:closed the connection|Connection reset by peer)/,
	fault => [ 'accept', $_->[1] ])
  for [ 'closed', 'close' ], [ 'reset', 'reset' ];
fault_row($ground, 'connect: accepted, then silence', @node, like => $timeout, after => $limit, fault => [ 'accept', 'silence' ]);
fault_row($ground, 'connect: accepted, then another protocol', @node, like => qr/${could_not}.*expected authentication request/,
	fault => [ 'accept', 'say:' . unpack('H*', "220 mail ESMTP\r\n") . ':silence' ]);

# The same datanode by name.
$ground->{node} = 'named';
add_node($coord, 'named', $dn, mapping => 0, server => { host => 'datanode.test' });
add_mapping($coord, 'victim', 'named', user => 'victim', password => 'rose');
$ground->{victim}->ask(one('named'));
sub resolved { my ($words) = @_; return sub { resolve($words); }; }
my @found = (over => resolved('127.0.0.1'));
my $unknown = qr/${could_not}could not translate host name "datanode\.test" to address/;
fault_row($ground, 'lookup: unknown name', @node, @found, new => 1, like => $unknown, arm => resolved('fail'));
fault_row($ground, 'lookup: no address', @node, @found, new => 1, like => $unknown, arm => resolved(''));
fault_row($ground, 'lookup: silence', @node, @found, new => 1, after => $limit, arm => resolved('hang'),
	like => qr/${could_not}pooler\.pooler_connect_timeout \($limit s\) is over while its host name was looked up/);
fault_row($ground, 'lookup: an address where nobody is', @node, @found, new => 1, arm => resolved('127.0.0.9'),
	like => qr/${could_not}.*Connection refused/);
fault_row($ground, 'lookup: two of them, then the right one', scope => 'none', @found, new => 1, arm => resolved('127.0.0.9 127.0.0.8 127.0.0.1'));
fault_row($ground, 'lookup: the right one, then one where nobody is', scope => 'none', @found, new => 1, arm => resolved('127.0.0.1 127.0.0.9'));
# An address that does not answer has its share of the time, and leaves the rest to those after it.
my $hanging;
fault_row($ground, 'lookup: one that does not answer, then the right one', scope => 'none', @found, new => 1,
	arm => sub { (undef, $hanging) = hanging_port('127.0.0.9', $dn->port); resolve('127.0.0.9 127.0.0.1'); },
	after => $limit / 2, most => $limit);

end_ground($ground);
