# Real datanodes that shut down, stand still, start up, end connections, and let roles in no more.

use strict;
use warnings;
use PolarxFault;
use PolarxPooler;
use PostgreSQL::Test::Utils;
use Test::More;

my $ground = fault_ground(direct => 1, dn => { conf => "wal_level = replica\n" });
my ($limit, $coord, $admin, $dn) = @$ground{qw(limit coord admin dn)};
my %stopped;
sub halt { $stopped{$_} = kill 'STOP', $_ for @_; return; }
sub go_on { kill 'CONT', keys %stopped; %stopped = (); return; }
END { local $?; go_on(); }

my $could_not = qr/could not connect to datanode "\w+": /;
my $timeout = qr/${could_not}pooler\.pooler_connect_timeout \($limit s\) is over while the connection was opened/;
my @node = (code => '08001', scope => 'node', counts => 'connect_failures');
my @pool = (scope => 'pool', counts => 'connect_failures', new => 1);
my $victim_pid = sub { $admin->ask(q{SELECT remote_pid FROM pooler.connections WHERE node = 'dn' AND remote_user = 'victim'}) };

# The server stops; smart waits for those who are connected.
fault_row($ground, 'shutdown: smart', @node, lost => 1, like => qr/${could_not}.*shutting down/,
	arm => sub {
		my $offset = log_offset($dn);
		system_or_bail('pg_ctl', '-D', $dn->data_dir, '-m', 'smart', '-W', 'stop');
		wait_for('the shutdown', sub { log_since($dn, $offset) =~ /received smart shutdown request/ });
	},
	over => sub { $dn->stop('fast'); $dn->start(); });
fault_row($ground, "shutdown: $_", @node, down => 1, lost => 1, like => qr/${could_not}.*Connection refused/,
	arm => sub { $dn->stop($_) }, over => sub { $dn->start() })
  for qw(fast immediate);

# It starts up for long: it waits for WAL and lets nobody in meanwhile.
my $signal = $dn->data_dir . '/standby.signal';
fault_row($ground, 'starting up', @node, down => 1, lost => 1, like => qr/${could_not}.*not accepting connections/,
	arm => sub {
		$dn->stop('fast');
		append_to_file($signal, '');
		$dn->append_conf('postgresql.conf', 'hot_standby = off');
		$dn->start();
	},
	over => sub { $dn->stop('fast'); unlink $signal; $dn->start(); });

# Processes that stand still.
my ($postmaster) = slurp_file($dn->data_dir . '/postmaster.pid') =~ /\A(\d+)/;
fault_row($ground, 'the postmaster stands still', @node, after => $limit, like => $timeout,
	arm => sub { halt($postmaster) }, over => \&go_on);
fault_row($ground, 'a backend stands still', scope => 'none', counts => 'closed_error', new => 1, keep => 1,
	arm => sub { halt($victim_pid->()) }, over => \&go_on, code => '57014', like => qr/statement timeout/, after => 0.5,
	sql => q{SET statement_timeout = '500ms'; SELECT pooler.exec('dn', 'SELECT 1'); RESET statement_timeout}, again => one('dn'));

# Connections are ended.
fault_row($ground, 'ended while idle', scope => 'none', counts => 'closed_error', new => 1, keep => 1,
	arm => sub { value($dn, 'SELECT pg_terminate_backend(' . $victim_pid->() . ', 5000)') });
fault_row($ground, 'ended in use', scope => 'none', counts => 'closed_error', new => 1, code => '08006',
	like => qr/connection to datanode "dn" was lost(?s:.*)terminating connection/, again => one('dn'),
	sql => q{SELECT pooler.exec('dn', 'SELECT pg_terminate_backend(pg_backend_pid())')});

# One role's trouble.
sub on_dn { my ($sql) = @_; return sub { value($dn, $sql); }; }
fault_row($ground, 'password changed', @pool, code => '28P01', like => qr/${could_not}.*password authentication failed/,
	arm => on_dn(q{ALTER ROLE victim PASSWORD 'lily'}), over => on_dn(q{ALTER ROLE victim PASSWORD 'rose'}));
fault_row($ground, 'role locked', @pool, code => '28000', like => qr/${could_not}.*not permitted to log in/,
	arm => on_dn('ALTER ROLE victim NOLOGIN'), over => on_dn('ALTER ROLE victim LOGIN'));
fault_row($ground, 'role dropped', @pool, code => '28P01', like => qr/${could_not}.*password authentication failed/,
	arm => on_dn('DROP ROLE victim'), over => on_dn(q{CREATE ROLE victim LOGIN PASSWORD 'rose'}));
fault_row($ground, 'connection limit of the role', @pool, code => '08001', like => qr/${could_not}.*too many connections for role/,
	arm => on_dn('ALTER ROLE victim CONNECTION LIMIT 0'), over => on_dn('ALTER ROLE victim CONNECTION LIMIT -1'));
fault_row($ground, 'no right to connect', @pool, code => '42501', like => qr/${could_not}.*permission denied for database/,
	arm => on_dn('REVOKE CONNECT ON DATABASE postgres FROM PUBLIC; GRANT CONNECT ON DATABASE postgres TO neighbour'),
	over => on_dn('GRANT CONNECT ON DATABASE postgres TO PUBLIC'));

# Who is let in how.
my $hba = slurp_file($dn->data_dir . '/pg_hba.conf');
sub let_in
{
	my ($line) = @_;
	return sub {
		unlink $dn->data_dir . '/pg_hba.conf';
		$dn->append_conf('pg_hba.conf', "$line\n$hba");
		my $offset = log_offset($dn);
		$dn->reload();
		wait_for('the new rules', sub { log_since($dn, $offset) =~ /received SIGHUP/ });
	};
}
fault_row($ground, 'TLS demanded', @pool, code => '28000', like => qr/${could_not}.*pg_hba\.conf rejects connection.*no encryption/,
	arm => let_in('hostnossl all victim all reject'), over => let_in(''));
fault_row($ground, 'no longer let in', @pool, code => '28000', like => qr/${could_not}.*pg_hba\.conf rejects connection/,
	arm => let_in('host all victim all reject'), over => let_in(''));

# A mapping without the password that the datanode asks for.
value($coord, 'CREATE ROLE careless LOGIN');
add_mapping($coord, 'careless', 'dn', user => 'neighbour', password_required => 'false');
for my $turn (1 .. 5)
{
	fails_with($coord, one('dn'), '28P01', qr/${could_not}.*no password supplied/, "no password, time $turn", user => 'careless');
	is($admin->ask(q{SELECT health FROM pooler.nodes WHERE node = 'dn'}), 'up', '... the node is up');
	$admin->ask(q{SELECT pooler.clean('dn', 'neighbour')});
	is(eval { $ground->{asker}->ask(one('dn')) }, 'SELECT 1', '... and the other role can open connections');
}
value($coord, 'DROP USER MAPPING FOR careless SERVER dn');

# Another database of the same datanode.
value($dn, 'CREATE DATABASE app');
$ground->{node} = 'app';
add_node($coord, 'app', $dn, mapping => 0, server => { dbname => 'app' });
add_mapping($coord, 'victim', 'app', user => 'victim', password => 'rose');
$ground->{victim}->ask(one('app'));
fault_row($ground, 'database dropped', @pool, code => '3D000', like => qr/${could_not}.*database "app" does not exist/,
	arm => on_dn('DROP DATABASE app WITH (FORCE)'), over => on_dn('CREATE DATABASE app'));

# A datanode that takes no writes, for who wants to write.
value($coord, q{ALTER SERVER app OPTIONS (ADD target_session_attrs 'read-write')});
$ground->{victim}->ask(one('app'));
my $only_read = sub { my ($to) = @_; return sub { set_conf($dn, default_transaction_read_only => $to); } };
fault_row($ground, 'not to be written', code => '08001', @pool, like => qr/${could_not}.*session is read-only/,
	arm => $only_read->('on'), over => $only_read->('off'));

end_ground($ground);
