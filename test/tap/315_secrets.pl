# No password leaves the pooler worker but to its datanode: not in a frame, a log line at any level, an
# error, a view, a notice, a process title, or the connection that is lent.

use strict;
use warnings;
use PolarxPooler;
use PostgreSQL::Test::Utils;
use Test::More;

my $coord = start_coordinator(conf => <<'END');
log_min_messages = debug5
log_min_error_statement = panic
log_statement = none
debug_print_parse = off
pooler.pool_print_stat_timeout = 1s
pooler.pool_maintenance_timeout = 1s
pooler.lease_warn_after = 1s
END
# Every secret has the word hushed in it, what only the datanode is to see the word unheard.
my %secret = (app => q{hushed one}, odd => q{it''s "hushed"\\ = %s $1 host=nowhere}, long => 'hushed' . 'x' x 900);
my $locked = start_datanode('dn1', auth => 'scram-sha-256', roles => \%secret, conf => "log_statement = none\n");
my $md5 = start_datanode('dn2', auth => 'md5', roles => { app => q{hushed two} },
	conf => "password_encryption = md5\nlog_statement = none\n");
my $plain = start_datanode('dn3', auth => 'password', roles => { app => q{hushed three} }, conf => "log_statement = none\n");
my %dn = (dn1 => $locked, dn2 => $md5, dn3 => $plain);
my %own = (dn1 => $secret{app}, dn2 => 'hushed two', dn3 => 'hushed three');
value($coord, q{CREATE EXTENSION polarx_pooler_example; CREATE ROLE lost LOGIN; CREATE ROLE odd LOGIN; CREATE ROLE long LOGIN});
for my $node (sort keys %dn)
{
	add_node($coord, $node, $dn{$node}, mapping => 0);
	add_mapping($coord, me(), $node, user => 'app', password => $own{$node});
}
add_mapping($coord, 'lost', 'dn1', user => 'app', password => 'hushed and wrong', sslpassword => 'hushed key', passfile => '/hushed');
add_mapping($coord, $_, 'dn1', user => $_, password => $secret{$_}) for qw(odd long);
my $worker = worker_pid($coord);

# What anybody is told goes here: [by what, text].
my @told;
my $record = $coord->basedir . '/frames';
my $s = session($coord);

sub ask
{
	my ($session, $sql) = @_;
	$session->tell($sql);
	my ($out, $err) = $session->hear();
	push @told, [ $sql, $out ], [ "$sql (notices)", $err ];
	return ($out, $err);
}

# --- a session that does everything, at the noisiest ------------------------------------------------
ask($s, "SELECT misuse_record('$record')");
ask($s, 'SET client_min_messages = debug5');
my @calls = (
	q{SELECT pooler.exec('dn1', 'SELECT ''unheard''')},
	q{SELECT * FROM pooler.query('dn1', 'SELECT ''un'' || ''heard'', $1', 'unheard') AS r(a text, b text)},
	q{SELECT * FROM pooler.query_all('SELECT ''un'' || ''heard''') AS r(n name, a text)},
	q{SELECT pooler.exec_all('SELECT 1'), pooler.exec_autocommit('dn1', 'SELECT 1')},
	q{SELECT pooler.set_param('my.param', 'unheard')},
	q{SELECT pooler.exec_all('SELECT 1'); SELECT pooler.reset_params()},
	q{SELECT * FROM example_two_nodes('dn1', 'dn2')},
	q{SELECT pooler.exec('dn1', 'SELECT ''unheard'' FROM no_such_table')},
	q{SET statement_timeout = 300; SELECT pooler.exec('dn1', 'SELECT pg_sleep(60), ''unheard'''); RESET statement_timeout},
	q{SET pooler.persistent_datanode_connections = on; SELECT pooler.exec_all('SELECT 1')},
	q{GRANT USAGE ON FOREIGN SERVER dn1 TO PUBLIC; SELECT pooler.exec_all('SELECT 1')},
	q{RESET pooler.persistent_datanode_connections; SELECT pooler.exec('dn1', 'SELECT 1')},
	(map { "SELECT row_to_json(v) FROM pooler.$_ v" } qw(workers nodes pools connections sessions stats)),
	q{SELECT * FROM pooler.ping()}, q{SELECT pooler.check()}, q{SELECT pooler.reload()},
	q{SELECT pooler.pause('dn1'), pooler.resume('dn1')}, q{SELECT pooler.clean('dn1', 'app')}, q{SELECT pooler.clean()},
	q{SELECT pooler.terminate()}, q{SELECT misuse_conninfo('dn1')}, q{SELECT example_address('dn1')},
	q{SELECT pooler.stop(), pooler.start()}, q{SELECT pooler.exec_all('SELECT 1')}, q{SELECT pooler.reset_stats()});
ask($s, $_) for @calls;
is((ask($s, $calls[-2] =~ s/SELECT 1/SELECT 2/r))[0], "(dn1,\"SELECT 1\")\n(dn2,\"SELECT 1\")\n(dn3,\"SELECT 1\")",
	'a session that has done everything');
$s->quit();

# --- things that go wrong ---------------------------------------------------------------------------
for my $role (qw(odd long))
{
	my $session = session($coord, user => $role);
	is((ask($session, q{SELECT pooler.exec('dn1', 'SELECT 1')}))[0], 'SELECT 1', "the secret of role $role is used as it is");
	$session->quit();
}
my $lost = session($coord, user => 'lost');
like((ask($lost, q{SELECT pooler.exec('dn1', 'SELECT 1')}))[1], qr/ERROR:  28P01: /, 'a wrong password');
my $admin = session($coord);
ask($admin, 'SET client_min_messages = debug5');
my @wrong = (
	q{CREATE USER MAPPING FOR odd SERVER dn2 OPTIONS (user 'app', passwort 'hushed')},
	q{ALTER USER MAPPING FOR odd SERVER dn1 OPTIONS (SET passwords 'hushed')},
	q{CREATE SERVER dn4 FOREIGN DATA WRAPPER polarx_pooler OPTIONS (host 'x', password 'hushed')},
	q{ALTER USER MAPPING FOR odd SERVER dn1 OPTIONS (ADD password 'hushed')});
for my $sql (@wrong)
{
	$admin->tell($sql);
	my (undef, $err) = $admin->hear();
	like($err, qr/ERROR/, 'an error in the definition of a mapping');
	push @told, [ $sql, $err ];
}
ask($admin, q{ALTER USER MAPPING FOR odd SERVER dn1 OPTIONS (SET password 'hushed anew')});
push @told, [ 'an old password', (run_sql($coord, q{SELECT pooler.exec('dn1', 'SELECT 1')}, user => 'odd'))[2] ];
like($told[-1][1], qr/28P01/, 'a password that is not right any more');
my $port = $locked->port;
$locked->stop('fast');
like((ask($admin, q{SELECT pooler.exec('dn1', 'SELECT 1')}))[1], qr/ERROR:  08001: /, 'a datanode that is down');
ask($admin, "SELECT row_to_json(v) FROM pooler.$_ v") for qw(nodes pools);
$locked->start();
wait_until($coord, q{SELECT count(*) FROM pooler.exec_all('SELECT 1')}, '3', '... and up');
ask($admin, q{BEGIN; SELECT pooler.exec_all('SELECT 1')});
my $offset = log_offset($coord);
wait_log($coord, qr/has held a connection to datanode "dn\d" for/, $offset, 'a lease is held for long');
ask($admin, 'COMMIT');
ask($admin, q{SELECT string_agg(query, ' ') FROM pg_stat_activity WHERE pid <> pg_backend_pid()});
ask($admin, q{SELECT string_agg(name || '=' || setting, ' ') FROM pg_settings WHERE name LIKE 'pooler.%'});

# --- nothing of it is heard -------------------------------------------------------------------------
my @loud = map { $_->[0] } grep { $_->[1] =~ /hushed/ } @told;
cmp_ok(scalar @told, '>', 60, scalar(@told) . ' texts were told');
is("@loud", '', '... by which no secret is heard');
my $log = slurp_file($coord->logfile);
like($log, qr/DEBUG:  /, 'the server log is at its noisiest');
like($log, qr/\[pooler stat\] database=postgres node=dn1 user=app/, '... with the pooler\'s lines in it');
unlike($log, qr/hushed/, '... and has no secret');
unlike(slurp_file($_->logfile), qr/hushed/, $_->name . '\'s log has none') for values %dn;
my @titles = map { slurp_file("/proc/$_/cmdline") }
  split /\n/, value($coord, q{SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()});
is(scalar(grep { /hushed/ } @titles), 0, 'no process title shows one');

# The frames of that session, each in full, and the pooler worker's.
my %frames = map { $_ => [ frames($_) ] } qw(sent received);
sub frames
{
	my ($bytes, @found) = (slurp_file("$record.$_[0]"));
	while (length $bytes >= 8)
	{
		my ($length, $code) = unpack 'NN', $bytes;
		die "no frame: $length" if $length < 8 || $length > length $bytes;
		push @found, [ $code - ($_[0] eq 'sent' ? 0x504C5801 : 0x504C5881), substr($bytes, 0, $length, '') ];
	}
	die 'half a frame' if length $bytes;
	return @found;
}
my %kinds = map { my $way = $_; my %seen = map { $_->[0] => 1 } @{ $frames{$way} };
	$way => join ' ', sort { $a <=> $b } keys %seen } keys %frames;
like("$kinds{sent} ", qr/^0 1 (?:2 )?3 4 5 6 7 8 9 10 11 (?:12 )?(?:13 )?$/, 'the session has sent every kind of request');
like("$kinds{received} ", qr/^0 1 (?:2 )?3 4 (?:5 )?(?:6 )?$/, '... and got every kind of reply');
for my $way (sort keys %frames)
{
	my @bad = grep { $_->[1] =~ /hushed/ } @{ $frames{$way} };
	is(scalar @bad, 0, scalar(@{ $frames{$way} }) . " frames $way: no secret in them");
	@bad = grep { $_->[1] =~ /unheard/ } @{ $frames{$way} };
	is(scalar @bad, 0, '... nor a statement, a parameter or a row');
}
my $played = slurp_file("$record.played");
my @keys = $played =~ /K\0\0\0\x0c....(....)Z\0\0\0\x05I/sg;
cmp_ok(scalar @keys, '>', 0, 'connections that were lent');
is_deeply([ grep { $_ ne "\0\0\0\0" } @keys ], [], '... come without the key to cancel by');
unlike($played, qr/hushed/, '... nor a secret');
my ($conninfo) = map { $_->[1] } grep { $_->[0] eq q{SELECT misuse_conninfo('dn1')} } @told;
like($conninfo, qr/^user=pooler$/m, 'the lent connection knows neither user');
like($conninfo, qr/^password=none$/m, '... nor password');

$_->quit() for $lost, $admin;
finish();
