# What a session counts against max_files_per_process is what it has: after cancels, refusals and lost
# connections it gets as many leases as before.

use strict;
use warnings;
use PolarxPooler;
use PostgreSQL::Test::Cluster;
use Test::More;

my $coord = start_coordinator(conf => <<'END');
max_files_per_process = 64
pooler.min_pool_size = 0
pooler.min_free_size = 0
END
my $dn = start_datanode('dn1', conf => "max_connections = 200\n");
add_node($coord, 'dn1', $dn);
add_node($coord, 'dn2', $dn, server => { max_pool_size => 1 });
add_holders($coord, 60, 'dn1');
my $one = q{SELECT pooler.exec('dn1', 'SELECT 1')};
my $closed = PostgreSQL::Test::Cluster::get_free_port();
value($coord, "CREATE SERVER refusing FOREIGN DATA WRAPPER polarx_pooler OPTIONS (host '127.0.0.1', port '$closed');"
	  . q{CREATE USER MAPPING FOR CURRENT_USER SERVER refusing OPTIONS (user 'x')});
my $s = session($coord);

sub most
{
	$s->ask('BEGIN');
	my $count = 0;
	for (;;)
	{
		$s->tell('SET LOCAL ROLE h' . ($count + 1) . "; $one");
		my (undef, $text) = $s->hear();
		last if $text =~ /ERROR:  53000/;
		die $text if $text =~ /ERROR/ || ++$count > 60;
	}
	$s->ask('ROLLBACK');
	return $count;
}
my $most = most();
cmp_ok($most, '>', 5, 'a session gets some leases');
my $holder = session($coord);
$holder->ask(q{BEGIN; SELECT pooler.exec('dn2', 'SELECT 1')});
sub sockets
{
	my $folder = '/proc/' . $s->pid . '/fd';
	opendir my $open, $folder or die "$folder: $!";
	return scalar grep { (readlink("$folder/$_") // '') =~ /^(?:socket|anon_inode):/ } readdir $open;
}
my $sockets = sockets();
for my $round (1 .. 15)
{
	$s->refused(q{SELECT pooler.exec('refusing', 'SELECT 1')});
	$s->refused(q{SELECT pooler.exec('dn2', 'SELECT 1')});
	$s->refused(q{SET pooler.queue_timeout = '10s'; SET statement_timeout = '20ms'; SELECT pooler.exec('dn2', 'SELECT 1')});
	$s->ask('RESET statement_timeout; RESET pooler.queue_timeout');
	$s->ask("BEGIN; SAVEPOINT a; SET LOCAL ROLE h2; $one; ROLLBACK TO a; $one; COMMIT");
	$s->refused(q{BEGIN; SELECT pooler.exec('dn1', 'SELECT 1/0')});
	$s->ask('ROLLBACK');
	$s->tell(q{SELECT pooler.exec('dn1', 'SELECT pg_terminate_backend(pg_backend_pid())')});
	$s->hear();
}
is(most(), $most, "after cancels, refusals and lost connections it gets as many: $most");
cmp_ok(sockets(), '<=', $sockets, '... and has no socket more');
$_->quit() for $s, $holder;
finish();
