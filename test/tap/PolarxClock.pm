# How long something has taken, other processes' load left out.

package PolarxClock;

use strict;
use warnings;

use Exporter 'import';
use List::Util qw(max);
use Time::HiRes qw(time);

our @EXPORT = qw(mark calm_since);

sub words
{
	my ($path) = @_;
	open my $file, '<', $path or return '';
	local $/;
	return <$file> // '';
}

# Seconds in which some process of the machine has waited for a processor, for memory or the disk; 0 where the
# kernel does not tell.
sub stalled
{
	my $us = 0;
	for my $what (qw(cpu memory io))
	{
		$us += $1 if words("/proc/pressure/$what") =~ /^some .*total=(\d+)/;
	}
	return $us / 1e6;
}

# How many processes want each processor, 1 at least: over the last minute or now, whichever is more.
sub crowding
{
	my $processors = () = words('/proc/cpuinfo') =~ /^processor\s/mg;
	my ($minute, $now) = words('/proc/loadavg') =~ m{^(\S+) \S+ \S+ (\d+)/};
	return max(1, max($minute // 0, ($now // 1) - 1) / max(1, $processors));
}

# The time now, for calm_since: seconds since then without those in which some process was stalled. What is to
# happen within a time is measured so, for on a busy machine anything may take long. Where some process is
# stalled all the time a part of it counts, which is half of what a process gets there: no bound is without end.
my %stalled_at;
sub mark { my $now = time; $stalled_at{$now} = stalled(); return $now; }

sub calm_since
{
	my ($mark) = @_;
	my $all = time - $mark;
	return max($all - (stalled() - $stalled_at{$mark}), $all / (2 * crowding()));
}

1;
