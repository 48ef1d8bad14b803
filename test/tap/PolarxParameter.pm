# What the catalog and SQL say about one parameter: value at boot, boundaries, out of range, context.
#
# check_parameter($coord, name => 'pooler.x', boot => 60, min => 0, max => 7200, unit => 's',
#   context => 'sighup', off => 1) makes about a dozen named tests and leaves the parameter as it
# found it. Values are in the parameter's own unit, as pg_settings shows them.
#   unit     's', 'ms', 'MB' or '' (default)
#   context  'sighup', 'postmaster' or 'user'
#   off      -1 is accepted too (min => 0 or min => -1, both will do)
#   values   instead of min and max: the values to accept, of a parameter that is no number
#   bad      with values: a value to refuse (none: every text is accepted)
#   start    the value that this server was started with, where its configuration changes it
# Boundaries of a sighup parameter take effect for a moment: best called before nodes are added.

package PolarxParameter;

use strict;
use warnings;

use Exporter 'import';
use PolarxPooler;
use Test::More;

our @EXPORT = qw(check_parameter);

# The same length or size, written with another unit.
my %kInUnits = (s => [ '2min', 120 ], ms => [ '3s', 3000 ], MB => [ '1GB', 1024 ]);

sub check_parameter
{
	my ($coord, %p) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $name = $p{name};
	my @good = @{ $p{values} // [] };
	my @bad = defined $p{bad} ? ($p{bad}) : ();
	my ($least, $most) = ('', '');
	unless ($p{values})
	{
		($least, $most) = ($p{off} ? -1 : $p{min}, $p{max});
		my %seen;
		@good = grep { !$seen{$_}++ } $least, $p{min}, $most;
		@bad = ($least - 1, $most + 1, 'much');
	}
	is(value($coord, "SELECT boot_val, unit, context, min_val, max_val FROM pg_settings WHERE name = '$name'"),
		join('|', $p{boot}, $p{unit} // '', $p{context}, $least, $most), "$name: boot value, unit, context, range");
	my $start = $p{start} // $p{boot};
	my $now = "SELECT setting FROM pg_settings WHERE name = '$name'";
	is(value($coord, $now), $start, "$name: value at start");
	my $worker = worker_pid($coord);

	my @units = @{ $kInUnits{ $p{unit} // '' } // [] };
	@units = () if @units && !$p{values} && ($units[1] < $least || $units[1] > $most);
	my @pairs = ((map { [ $_, $_ ] } @good), @units ? \@units : ());
	if ($p{context} eq 'user') { in_session($coord, $name, $now, \@pairs, \@bad); }
	else { in_file($coord, $p{context}, $name, $now, \@pairs, \@bad); }

	is(value($coord, $now), $start, "$name: as it was");
	is(worker_pids($coord), $worker, "$name: the pooler worker has lived through all of that");
	return;
}

# SET, by a session of a role without any right.
sub in_session
{
	my ($coord, $name, $now, $pairs, $bad) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	value($coord, 'CREATE ROLE parameter_checker LOGIN');
	my $session = session($coord, user => 'parameter_checker');
	for my $pair (@$pairs)
	{
		is($session->ask("SET $name = '$pair->[0]'; $now"), $pair->[1], "$name: SET to '$pair->[0]', by anybody");
	}
	like($session->refused("SET $name = '$_'"), qr/ERROR:  22023: /, "$name: '$_' is refused") for @$bad;
	is($session->ask($now), $pairs->[-1][1], "$name: ... and changes nothing");
	$session->quit();
	value($coord, 'DROP ROLE parameter_checker');
	return;
}

# ALTER SYSTEM: an open session shows it after a reload, or that it waits for a restart.
sub in_file
{
	my ($coord, $context, $name, $now, $pairs, $bad) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	my $session = session($coord);
	my $start = $session->ask($now);
	my $shown = "SELECT setting, pending_restart FROM pg_settings WHERE name = '$name'";
	my $reload = sub {
		my ($to, $expected, $what) = @_;
		set_conf($coord, $name => $to);
		eval { wait_for($what, sub { $session->ask($shown) eq $expected }) };
		is($session->ask($shown), $expected, "$name: $what");
	};
	my $restart = $context eq 'postmaster';
	for my $pair (@$pairs, (grep { $_->[1] ne $start } @$pairs)[0])
	{
		my ($to, $value) = @$pair;
		my $pending = $restart && $value ne $start;
		$reload->($to, $pending ? "$start|t" : "$value|f",
			"ALTER SYSTEM to '$to', " . ($pending ? 'which waits for a restart' : 'shown after a reload'));
	}
	fails_with($coord, "SET $name = '$pairs->[0][0]'", '55P02', qr/"$name"/, "$name: not by SET");
	fails_with($coord, "ALTER SYSTEM SET $name = '$_'", '22023', qr/"$name"/, "$name: '$_' is refused") for @$bad;
	$reload->($start, "$start|f", 'back again');
	set_conf($coord, $name => undef);
	$session->quit();
	return;
}

1;
