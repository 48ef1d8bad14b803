# Names and values are nothing but names and values: quotes, backslashes, newlines and characters of
# any alphabet in them reach datanode, views, errors and log as they are.

use strict;
use warnings;
use utf8;
use Encode ();
use PolarxPooler;
use PostgreSQL::Test::Utils;
use Test::More;

my $coord = start_coordinator(conf => <<'END');
pooler.min_pool_size = 0
pooler.min_free_size = 0
pooler.pool_print_stat_timeout = 1s
log_statement = none
log_min_error_statement = panic
END
my $dn = start_datanode('dn1', auth => 'scram-sha-256', roles => { watch => 'watch-secret' });
value($dn, 'CREATE TABLE victims (n int)');

# Each is the name of a node, a role here and there, its password, and a database there.
my @names = (
	'with space', ' spaces ', q{quote"d}, q{it's}, q{'quoted'}, q{back\\slash}, q{\\}, q{end\\'}, "two\nlines", "tab\there",
	"cr\rlf\n", "\n[pooler stat] database=forged", 'semi;colon', q{'; DROP TABLE victims; --}, q{"; DROP TABLE victims; --},
	'%s%n%m', '$1', '$$', '{}', 'a=b', 'dbname=postgres user=postgres', 'x host=nowhere', 'postgresql://nowhere/x',
	'-c work_mem=77MB', ',', '*', 'nöde→漢字', 'ÿ' x 31, 'abc' . "\x{1F600}" x 15);

sub utf8_of { return Encode::encode('UTF-8', $_[0]); }
sub ident { return '"' . utf8_of($_[0]) =~ s/"/""/gr . '"'; }
sub lit { return q{'} . utf8_of($_[0]) =~ s/'/''/gr . q{'}; }
sub hex_of { return unpack 'H*', utf8_of($_[0]); }
sub in_hex { return "encode(convert_to(($_[0])::text, 'UTF8'), 'hex')"; }
sub shown { return $_[0] =~ s/([^ -~])/sprintf '<%x>', ord $1/ger; }
sub setting { return in_hex("current_setting('$_[0]')"); }

sub on_node
{
	my ($node, $sql) = @_;
	return 'SELECT v FROM pooler.query(' . lit($node) . ", \$q\$SELECT $sql\$q\$) AS r(v text)";
}

# A server with these options, and the superuser's mapping.
sub create_server
{
	my ($node, %options) = @_;
	%options = (host => '127.0.0.1', port => $dn->port, dbname => 'postgres', %options);
	return 'CREATE SERVER ' . ident($node) . ' FOREIGN DATA WRAPPER polarx_pooler OPTIONS ('
	  . join(', ', map { "$_ " . lit($options{$_}) } sort keys %options) . '); CREATE USER MAPPING FOR CURRENT_USER SERVER '
	  . ident($node) . q{ OPTIONS (user 'watch', password 'watch-secret'); };
}

# --- names ------------------------------------------------------------------------------------------
my $there = join " || ' ' || ", map { in_hex($_) } 'session_user', 'current_database()', q{current_setting('work_mem')},
  q{current_setting('application_name')};
my $s = session($coord);
for my $name (@names)
{
	my ($id, $text) = (ident($name), lit($name));
	value($dn, "CREATE ROLE $id LOGIN PASSWORD $text");
	value($dn, "CREATE DATABASE $id");
	$s->ask(create_server($name, dbname => $name)
		  . "CREATE ROLE $id; GRANT USAGE ON FOREIGN SERVER $id TO $id;"
		  . "CREATE USER MAPPING FOR $id SERVER $id OPTIONS (user $text, password $text)");

	is($s->ask("SET ROLE $id; " . on_node($name, $there)),
		join(' ', map { hex_of($_) } $name, $name, '4MB', 'polarx_pooler/postgres'), shown($name) . ': role, password, database');
	is($s->ask("SELECT pooler.exec_autocommit($text, 'SELECT 1'); RESET ROLE"), 'SELECT 1', '... outside the transaction too');
	is($s->ask("SELECT ok FROM pooler.ping($text)"), 't', '... ping');
	is($s->ask("SELECT pooler.pause($text), pooler.resume($text)"), '|', '... pause and resume');
	is($s->ask('SELECT ' . join(', ', map { in_hex($_) } qw(node remote_user remote_database mapped_roles[1]))
			  . " FROM pooler.pools WHERE node = $text AND remote_user = $text"),
		join('|', map { hex_of($_) } ($name) x 4), '... as the pool has it');
	is($s->ask("SELECT count(*) FROM pooler.nodes JOIN pooler.connections USING (node)
		WHERE node = $text AND remote_user = $text"),
		'1', '... and the connection');
	is($s->ask("SELECT pooler.terminate($text), pooler.clean($text, $text)"), '0|1', '... terminate, clean');
	my $quoted = quotemeta utf8_of($name);
	like($s->refused("SELECT pooler.exec($text, 'SELECT 1/0')"), qr/ERROR:  22012: (?s:.*)"$quoted"/, '... an error names it');
	is($s->ask("SELECT pooler.set_param('my.value', $text); " . on_node($name, setting('my.value'))
			  . '; SELECT pooler.reset_params()'),
		"\n" . hex_of($name) . "\n", '... as the value of a parameter');
	like($s->refused("SELECT pooler.set_param($text, 'x')"), qr/ERROR:  4\d{4}: /, '... but not as its name');
	like($s->refused("CREATE SERVER never FOREIGN DATA WRAPPER polarx_pooler OPTIONS ($id 'x')"),
		qr/ERROR:  HV00D: invalid option "$quoted"/, '... nor as that of an option') if $name !~ /=/;
}
is(value($dn, q{SELECT count(*) FROM pg_class WHERE relname = 'victims'}), '1', 'nothing was dropped');
is($s->ask('SELECT string_agg(h, \' \' ORDER BY h COLLATE "C") FROM (SELECT ' . in_hex('node')
		  . " FROM pooler.exec_all('SELECT 1')) r(h)"),
	join(' ', sort map { hex_of($_) } @names), 'all nodes at once, by these names');
is($s->ask('SELECT count(*) FROM pooler.ping() WHERE ok'), scalar @names, '... ping too');
is($s->ask('SELECT pooler.check()'), 't', '... check too');

# In the log a name is one word.
my $offset = log_offset($coord);
my $word = qr/[\w.]+|"(?:[^"\\]|\\.)*"/;
my %lines;
eval {
	wait_for('a line of each pool', sub {
			my $new = log_since($coord, $offset);
			%lines = map { $_ => 1 } $new =~ /\[pooler stat\] database=postgres (node=$word user=$word) total=/g;
			return keys %lines == 2 * @names;
		});
};
is(scalar keys %lines, 2 * @names, 'the stat lines have a name as one word');
my $log = slurp_file($coord->logfile);
unlike($log, qr/\n\[pooler stat\]|LOG:  \[pooler stat\] database=forged/, '... and forge nothing');
$s->quit();

# --- values of options ------------------------------------------------------------------------------
my $folder = PostgreSQL::Test::Utils::tempdir_short() . q{/o'd \\ = d};
mkdir $folder or die "mkdir: $!";
my $folders = $dn->host . ", $folder";
$dn->stop('fast');
$dn->append_conf('postgresql.conf', 'unix_socket_directories = \'' . ($folders =~ s/(['\\])/$1$1/gr) . '\'');
$dn->start();
my $odd = q{it's "me" \\ host=nowhere};
my @options = (
	[ 'host', $folder, in_hex('inet_server_addr() IS NULL'), 'true' ],
	[ 'application_name', $odd, setting('application_name'), $odd ],
	[ 'options', q{-c search_path="a\\ b" -c work_mem=7MB}, setting('search_path') . " || '20' || " . setting('work_mem'),
		q{"a b" 7MB} ],
	[ 'options', q{-c work_mem=7MB\\}, setting('work_mem'), '7MB' ],
	(map { [ 'options', '-c DateStyle=German -c extra_float_digits=0 -c idle_session_timeout=1',
				setting($_->[0]), $_->[1] ] }
		[ 'DateStyle', 'ISO, DMY' ], [ 'extra_float_digits', '3' ], [ 'idle_session_timeout', '0' ]));
for my $row (@options)
{
	my ($option, $given, $sql, $expected) = @$row;
	my $found = value($coord, 'SET client_min_messages = error; DROP SERVER IF EXISTS valued CASCADE; '
		  . create_server('valued', $option => $given) . on_node('valued', $sql));
	is($found, hex_of($expected), "the option $option as " . shown($given) . ": $expected");
}

# A datanode where backslashes in strings count.
value($dn, 'ALTER DATABASE postgres SET standard_conforming_strings = off');
value($coord, 'DROP SERVER valued CASCADE; ' . create_server('valued'));
for my $name (@names)
{
	is(value($coord, "SELECT pooler.set_param('my.value', " . lit($name) . '); ' . on_node('valued', setting('my.value'))),
		"\n" . hex_of($name), shown($name) . ': a value where backslashes count') if $name =~ /[\\']/;
}

# --- databases of the coordinator -------------------------------------------------------------------
for my $name (q{we"ird 'db' \\ = }, "two\nlines", 'nöde→漢字', q{'; DROP TABLE victims; --})
{
	my $db = utf8_of($name);
	value($coord, 'CREATE DATABASE ' . ident($name));
	value($coord, 'CREATE EXTENSION polarx_pooler; ' . create_server('dn1'), db => $db);
	# The datanode makes question marks of what is not ASCII.
	is(value($coord, on_node('dn1', setting('application_name')), db => $db),
		unpack('H*', "polarx_pooler/$db" =~ s/[^ -~]/?/gr), shown($name) . ': a database of the coordinator\'s');
	is(value($coord, 'SELECT ' . in_hex('datname') . " FROM pooler.workers WHERE state = 'ready' AND datname <> 'postgres'",
			db => $db), hex_of($name), '... its worker');
	value($coord, 'DROP DATABASE ' . ident($name));
}
finish();
