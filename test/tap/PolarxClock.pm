# How long something has taken, other processes' load left out.

package PolarxClock;

use strict;
use warnings;

use Exporter 'import';
use Time::HiRes qw(time);

our @EXPORT = qw(mark calm_since);

# Seconds in which some process of the machine has waited for a processor, for memory or the disk; 0 where the
# kernel does not tell.
sub stalled
{
	my $us = 0;
	for my $what (qw(cpu memory io))
	{
		open my $file, '<', "/proc/pressure/$what" or next;
		$us += $1 if <$file> =~ /^some .*total=(\d+)/;
	}
	return $us / 1e6;
}

# The time now, for calm_since: seconds since then without those in which some process was stalled. What is to
# happen within a time is measured so, for on a busy machine anything may take long.
my %stalled_at;
sub mark { my $now = time; $stalled_at{$now} = stalled(); return $now; }

sub calm_since
{
	my ($mark) = @_;
	my $calm = time - $mark - (stalled() - $stalled_at{$mark});
	return $calm > 0 ? $calm : 0;
}

1;
