# Parameters that a datanode reports: whatever changes them, the next holder's PGconn knows their true
# values, and libpq escapes by them.

use strict;
use warnings;
use PolarxPooler;
use Test::More;

my $coord = start_coordinator(conf => "pooler.min_pool_size = 0\npooler.min_free_size = 0\n");
my $dn = start_datanode('dn1', conf => "timezone = 'UTC'\n");
value($dn, 'CREATE ROLE other SUPERUSER; CREATE TABLE t (id int)');
add_node($coord, 'dn1', $dn, server => { max_pool_size => 1 });
value($coord, 'CREATE EXTENSION polarx_pooler_example');
value($coord, qq{ALTER ROLE "${\me()}" SET pooler.queue_timeout = '10s'});
my ($s, $next) = map { session($coord) } 1 .. 2;

# { name => [before, after, really] } of a lease that runs a statement (undef: none, nothing is asked).
sub parameters
{
	my ($session, $sql) = @_;
	$sql = defined $sql ? "'" . $sql =~ s/'/''/gr . "'" : 'NULL';
	my %found;
	for my $line (split /\n/, $session->ask("SELECT name, before, after, really FROM example_parameters('dn1', $sql)"))
	{
		my ($name, @values) = split /\|/, $line, -1;
		$found{$name} = \@values;
	}
	return \%found;
}

# One test: a new lease knows the truth from the beginning, before it has sent anything; $expected names
# some values.
sub told_truth
{
	my ($name, %expected) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $found = parameters($next, 'SELECT 1');
	my @wrong = grep { my ($before, $after, $really) = @{ $found->{$_} }; $before ne $really || $after ne $really }
	  sort keys %$found;
	is_deeply([ \@wrong, { map { $_ => $found->{$_}[0] } keys %expected } ], [ [], \%expected ], $name)
	  or diag explain $found;
	return;
}

# What libpq makes of the bytes (hex) on a new lease that has run a statement ('': none).
sub escaped
{
	my ($hex, $sql) = @_;
	return $next->ask(sprintf q{SELECT encode(example_escape('dn1', decode('%s', 'hex'), %s), 'hex')},
		$hex, "'" . ($sql // '') =~ s/'/''/gr . "'");
}

sub pid_here { return $next->ask(q{SELECT p FROM pooler.query('dn1', 'SELECT pg_backend_pid()') AS r(p int)}); }

# Sets a parameter of the datanode; new connections show that it is in effect.
sub set_on_datanode
{
	my ($name, $value) = @_;
	set_conf($dn, $name => $value);
	wait_until($dn, "SHOW $name", $value, "the datanode has $name = $value");
	return;
}

my %fresh = (
	TimeZone => 'UTC', client_encoding => 'UTF8', standard_conforming_strings => 'on', DateStyle => 'ISO, MDY',
	IntervalStyle => 'postgres', application_name => 'polarx_pooler/postgres', session_authorization => me(),
	is_superuser => 'on', default_transaction_read_only => 'off');
told_truth('a new connection', %fresh);
my $pid = pid_here();

# Changed by SET during a lease: by SQL and by a borrower, in a transaction that ends either way.
my @changes = (
	[ TimeZone => q{SET TimeZone = 'Asia/Tokyo'}, 'Asia/Tokyo' ],
	[ client_encoding => q{SET client_encoding = 'LATIN1'}, 'LATIN1' ],
	[ standard_conforming_strings => 'SET standard_conforming_strings = off', 'off' ],
	[ DateStyle => q{SET DateStyle = 'German'}, 'German, DMY' ],
	[ IntervalStyle => q{SET IntervalStyle = 'iso_8601'}, 'iso_8601' ],
	[ application_name => q{SET application_name = 'mine'}, 'mine' ],
	[ default_transaction_read_only => 'SET default_transaction_read_only = on', 'on' ],
	[ session_authorization => 'SET SESSION AUTHORIZATION other', 'other' ]);
for my $row (@changes)
{
	my ($name, $sql, $value) = @$row;
	is_deeply(parameters($s, $sql)->{$name}, [ $fresh{$name}, $value, $value ], "$name by SET: libpq hears of it");
	told_truth('... and of the reset', %fresh);
	parameters($s, "BEGIN; $sql");
	told_truth('... also where the transaction was left open', %fresh);
	for my $ending ('COMMIT', 'ROLLBACK')
	{
		my $exec = "BEGIN; SELECT pooler.exec('dn1', '" . $sql =~ s/'/''/gr . "'); $ending";
		if ($name eq 'client_encoding')
		{
			like($s->refused($exec), qr/ERROR:  0A000: /, '... by pooler.exec: refused, for texts would arrive in another one');
			$s->ask('ROLLBACK');
		}
		else
		{
			$s->ask($exec);
		}
		told_truth("... by pooler.exec, $ending", %fresh);
	}
}
is(pid_here(), $pid, 'all that on one connection');

# Escaping. Two bytes of SJIS, the second of which is a backslash (95 5c), and a backslash of its own.
my ($kanji, $backslash) = ('955c', '5c');
is(escaped($backslash), '5c', 'standard_conforming_strings on: a backslash stands for itself');
is(escaped($backslash, 'SET standard_conforming_strings = off'), '5c5c', '... off: it is doubled');
is(escaped($backslash), '5c', '... and the next holder escapes as before');
is(escaped($kanji, q{SET client_encoding = 'SJIS'; SET standard_conforming_strings = off}), '955c',
	'client_encoding SJIS: its two bytes are one character');
is(escaped('c3a4' . $backslash), 'c3a45c', '... and the next holder escapes UTF8');

# A reset that leaves what was SET: the next holder hears of that, too.
set_conf($coord, 'pooler.reset_query' => '');
wait_for('no reset', sub {
		parameters($s, q{SET TimeZone = 'Asia/Tokyo'});
		parameters($next)->{TimeZone}[0] eq 'Asia/Tokyo';
	});
told_truth('no reset: a change that stays is told', TimeZone => 'Asia/Tokyo');
parameters($s, q{SET client_encoding = 'SJIS'; SET standard_conforming_strings = off});
told_truth('... other changes, too', client_encoding => 'SJIS', standard_conforming_strings => 'off');
is(escaped($kanji . $backslash), '955c5c5c', '... and used for escaping from the first byte');
parameters($s, q{SET client_encoding = 'UTF8'; SET standard_conforming_strings = on; SET TimeZone = 'UTC'});
told_truth('... and changes back', %fresh);
is(escaped($backslash), '5c', '... used for escaping');
set_conf($coord, 'pooler.reset_query' => undef);
wait_for('a reset', sub {
		parameters($s, q{SET TimeZone = 'Asia/Tokyo'});
		parameters($next)->{TimeZone}[0] eq 'UTC';
	});

# The datanode's configuration changes while a lease is held: its holder hears of it with its next
# statement, the next holder at once.
$pid = pid_here();
$s->ask(q{BEGIN; SELECT pooler.exec('dn1', 'SELECT 1')});
set_on_datanode(TimeZone => 'Asia/Seoul');
set_on_datanode(standard_conforming_strings => 'off');
is($s->ask(q{SELECT v FROM pooler.query('dn1', 'SELECT current_setting(''TimeZone'')') AS r(v text)}), 'Asia/Seoul',
	'a reload during a lease');
$s->ask('COMMIT');
told_truth('... is told to the next holder', TimeZone => 'Asia/Seoul', standard_conforming_strings => 'off');
is(escaped($backslash), '5c5c', '... and used for escaping from the first byte');

# The same, but the holder sends nothing more: the reset is what hears of it.
$s->ask('BEGIN; ' . q{SELECT pooler.exec('dn1', 'SELECT 1')});
set_on_datanode(TimeZone => 'Asia/Dubai');
set_on_datanode(standard_conforming_strings => 'on');
$s->ask('ROLLBACK');
told_truth('a reload that the reset hears of', TimeZone => 'Asia/Dubai', standard_conforming_strings => 'on');
is(escaped($backslash), '5c', '... used for escaping');

# While the connection is idle: a datanode's backend reads its configuration with the next statement it
# gets, whoever sends it: a holder, ...
set_on_datanode(TimeZone => 'Asia/Karachi');
set_on_datanode(standard_conforming_strings => 'off');
is_deeply([ @{ parameters($next, 'SELECT 1')->{TimeZone} }[1, 2] ], [ 'Asia/Karachi', 'Asia/Karachi' ],
	'a reload while idle: the holder hears of it with its first statement');
told_truth('... and the next one at once', TimeZone => 'Asia/Karachi', standard_conforming_strings => 'off');
is(escaped($backslash), '5c5c', '... used for escaping');

# ... the reset behind a holder that sends nothing, ...
set_on_datanode(TimeZone => 'Asia/Kabul');
set_on_datanode(standard_conforming_strings => 'on');
parameters($s);
told_truth('a reload while idle that the reset hears of', TimeZone => 'Asia/Kabul', standard_conforming_strings => 'on');
is(escaped($backslash), '5c', '... used for escaping');

# ... or a ping.
set_on_datanode(TimeZone => 'Asia/Tehran');
set_on_datanode(standard_conforming_strings => 'off');
is($s->ask('SELECT ok FROM pooler.ping()'), 't', 'a ping');
told_truth('... that hears of a reload', TimeZone => 'Asia/Tehran', standard_conforming_strings => 'off');
is(escaped($backslash), '5c5c', '... used for escaping');

# A value that comes back to what it was before others heard of it.
set_on_datanode(TimeZone => 'Asia/Kabul');
parameters($s, 'SELECT 1');
set_on_datanode(TimeZone => 'Asia/Tehran');
parameters($s);
told_truth('a value that the holder saw change and the reset saw change back', TimeZone => 'Asia/Tehran');
is(pid_here(), $pid, 'all that on one connection');

# The encoding of the connection is the coordinator's, whatever the datanode's configuration says.
set_on_datanode(standard_conforming_strings => 'on');
set_on_datanode(client_encoding => 'LATIN1');
told_truth('client_encoding in the datanode\'s configuration: has no effect', client_encoding => 'UTF8')
  if parameters($s, 'SELECT 1');
$s->ask('SELECT pooler.clean()');
told_truth('... nor on a new connection', client_encoding => 'UTF8');
is(escaped('c3a4' . $backslash), 'c3a45c', '... escaping is that of UTF8');
is($s->ask(q{SELECT v FROM pooler.query('dn1', 'SELECT chr(228)') AS r(v text)}), "\xc3\xa4", '... and so are rows');

# Rows are read by the styles that are in effect, and in the database's encoding alone.
like($s->refused(q{BEGIN; SELECT pooler.exec('dn1', 'SET client_encoding = ''LATIN1''')}),
	qr/ERROR:  0A000: session on datanode "dn1" has client_encoding set to "LATIN1"/, 'another client_encoding: refused');
$s->ask('ROLLBACK');
is($s->ask(q{SELECT d FROM pooler.query('dn1', 'SELECT date ''2024-02-03''') AS r(d date)}), '2024-02-03', 'a date');
$s->ask(q{BEGIN; SELECT pooler.exec('dn1', 'SET DateStyle = German')});
is($s->ask(q{SELECT n FROM pooler.query('dn1', 'SELECT 7') AS r(n int)}), '7', 'another DateStyle: a number');
is($s->ask(q{SELECT d FROM pooler.query('dn1', 'SELECT date ''2024-02-03''') AS r(d text)}), '03.02.2024',
	'... a date as text');
like($s->refused(q{SELECT d FROM pooler.query('dn1', 'SELECT date ''2024-02-03''') AS r(d date)}),
	qr/0A000(?s:.*)DateStyle/, '... a date that would be read wrongly: 0A000');
$s->ask('ROLLBACK');
value($coord, q{ALTER SERVER dn1 OPTIONS (ADD options '-c DateStyle=German -c IntervalStyle=iso_8601')});
is($s->ask(q{SELECT d, i FROM pooler.query('dn1', 'SELECT date ''2024-02-03'', interval ''-1 day -2 hours''')
	AS r(d date, i interval)}), '2024-02-03|-1 days -02:00:00', 'styles of the options change nothing');
told_truth('... as libpq knows', DateStyle => 'ISO, DMY', IntervalStyle => 'postgres');

$_->quit() for $s, $next;
finish();
