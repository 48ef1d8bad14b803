# A psql session that stays open: statements can be sent now and awaited later.
#
# on(...) is the constructor; tell() sends without waiting; hear() waits for the answer of the
# oldest statement told and returns (stdout, stderr); ask() does both and dies on an error;
# refused() does both and returns the error text, dying when there was none.

package PolarxSession;

use strict;
use warnings;

use IPC::Run ();

my $kLimit = $ENV{PG_TEST_TIMEOUT_DEFAULT} || 60;

# $connstr is a libpq connection string; psql reports SQLSTATEs (VERBOSITY verbose).
sub on
{
	my ($class, $connstr) = @_;
	my $self = bless { in => '', out => '', err => '', told => 0, heard => 0 }, $class;
	$self->{timer} = IPC::Run::timeout($kLimit);
	$self->{run} = IPC::Run::start(
		[ 'psql', '-XAtq', '-v', 'VERBOSITY=verbose', '-d', $connstr, '-f', '-' ],
		'<', \$self->{in}, '>', \$self->{out}, '2>', \$self->{err}, $self->{timer});
	$self->{pid} = $self->ask('SELECT pg_backend_pid()');
	return $self;
}

# The process id of the backend.
sub pid { return $_[0]{pid}; }

sub tell
{
	my ($self, $sql) = @_;
	my $mark = 'answer-' . ++$self->{told} . '-ends';
	$self->{in} .= "$sql\n;\n\\echo '$mark'\n\\warn '$mark'\n";
	$self->{timer}->start();
	$self->{run}->pump_nb();
	return;
}

# True once the oldest unheard answer is complete; never blocks.
sub answered
{
	my ($self) = @_;
	my $mark = 'answer-' . ($self->{heard} + 1) . '-ends';
	$self->{run}->pump_nb();
	return $self->{out} =~ /^$mark\n/m && $self->{err} =~ /^$mark\n/m;
}

sub hear
{
	my ($self) = @_;
	die 'nothing was told' if $self->{heard} >= $self->{told};
	my $mark = 'answer-' . ++$self->{heard} . '-ends';
	until ($self->{out} =~ /^$mark\n/m && $self->{err} =~ /^$mark\n/m)
	{
		die "psql ended: $self->{err}" unless $self->{run}->pumpable();
		$self->{run}->pump();
	}
	my ($out, $err) = ('', '');
	$self->{out} =~ s/\A(.*?)^$mark\n//ms and $out = $1;
	$self->{err} =~ s/\A(.*?)^$mark\n//ms and $err = $1;
	chomp $out;
	return ($out, $err);
}

sub ask
{
	my ($self, $sql) = @_;
	$self->tell($sql);
	my ($out, $err) = $self->hear();
	die "failed: $sql\n$err" if $err =~ /^(?:psql:\S+ )?(?:ERROR|FATAL)/m;
	return $out;
}

sub refused
{
	my ($self, $sql) = @_;
	$self->tell($sql);
	my ($out, $err) = $self->hear();
	die "did not fail: $sql\n$out" unless $err =~ /(?:ERROR|FATAL)/;
	return $err;
}

sub quit
{
	my ($self) = @_;
	my $run = delete $self->{run} or return;
	$self->{in} .= "\\q\n";
	eval { $run->finish(); };
	return;
}

sub DESTROY { local ($@, $?); $_[0]->quit(); return; }

1;
