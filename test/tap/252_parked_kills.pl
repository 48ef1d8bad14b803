# Parking and taking back for real: sessions work at the same time on fewer connections than they want, while
# sessions, datanode sessions and pooler workers are ended and nodes cleaned, paused and altered at random.
# No session ever sees what another has left, no lease or ticket stays behind, the sums add up.
#
# POLARX_PARK_SECONDS is how long (20), POLARX_PARK_SEED repeats a run's choices.

use strict;
use warnings;
use PolarxPooler;
use List::Util qw(max);
use Test::More;
use Time::HiRes qw(time usleep);

my $seconds = $ENV{POLARX_PARK_SECONDS} // 20;
my $seed = $ENV{POLARX_PARK_SEED} // time % 1_000_000;
srand $seed;
note "seed $seed";

my ($kSessions, $kConnections, $kTimeout) = (10, 4, 3);
my $coord = start_coordinator(park => 1, conf => <<"END");
pooler.min_pool_size = 1
pooler.min_free_size = 1
pooler.pool_maintenance_timeout = 1s
pooler.pool_conn_keepalive = 3s
pooler.pool_session_max_lifetime = 5s
pooler.queue_timeout = ${kTimeout}s
END
my @nodes = qw(dn1 dn2);
my %dn = map { $_ => start_datanode($_) } @nodes;
value($_, 'CREATE TABLE done (who int, i int); CREATE FUNCTION marks() RETURNS text LANGUAGE sql AS $$'
	  . q{SELECT concat_ws(' ', nullif(current_setting('search_path'), '"$user", public'),
		(SELECT string_agg('mark_' || objid, ' ') FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()),
		(SELECT string_agg(relname, ' ') FROM pg_catalog.pg_class WHERE relnamespace = pg_my_temp_schema())) $$}) for values %dn;
add_node($coord, $_, $dn{$_}, server => { max_pool_size => $kConnections }) for @nodes;
add_holders($coord, 1, @nodes);

# One transaction after the other: looks for marks of others, marks the connection as a plain statement can,
# writes here and there, and ends this way or that.
value($coord, <<'END');
CREATE TABLE done (who int, i int, node text);
CREATE PROCEDURE look(who text, n text) LANGUAGE plpgsql AS $$
DECLARE
	seen text;
	word text;
BEGIN
	SELECT v INTO seen FROM pooler.query(n, 'SELECT public.marks()') AS r(v text);
	FOREACH word IN ARRAY string_to_array(seen, ' ') LOOP
		IF word <> '' AND word <> 'mark_' || who THEN
			RAISE EXCEPTION 'mark of another: % saw %', who, seen;
		END IF;
	END LOOP;
	PERFORM pooler.exec(n, format('SELECT set_config(''search_path'', ''mark_%1$s'', false), pg_try_advisory_lock(%1$s)', who));
	IF position('mark_' || who IN seen) = 0 THEN
		PERFORM pooler.exec(n, format('SELECT 1 AS a INTO TEMP mark_%s', who));
	END IF;
END$$;
CREATE PROCEDURE look_as_h1(who text, n text) LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN CALL look(who, n); END';
ALTER PROCEDURE look_as_h1 OWNER TO h1;
CREATE PROCEDURE work(who int, rounds int, seed float8) LANGUAGE plpgsql AS $$
DECLARE
	n text;
	choice float8;
	start timestamptz;
	longest float8 := 0;
BEGIN
	PERFORM setseed(seed);
	FOR i IN 1 .. rounds LOOP
		n := 'dn' || 1 + floor(random() * 2)::int;
		choice := random();
		start := clock_timestamp();
		IF choice < 0.1 THEN
			PERFORM v FROM pooler.query_all('SELECT pg_backend_pid()') AS r(node name, v int);
		ELSIF choice < 0.2 THEN
			CALL look_as_h1((100000 + who)::text, n);
		ELSIF choice < 0.25 THEN
			PERFORM pooler.exec(n, 'SET work_mem = ''9MB''');
		ELSIF choice < 0.3 THEN
			BEGIN
				PERFORM pooler.exec(n, 'SELECT 1/0');
			EXCEPTION WHEN division_by_zero THEN
				NULL;
			END;
		END IF;
		CALL look(who::text, n);
		longest := greatest(longest, extract(epoch FROM clock_timestamp() - start));
		IF random() < 0.5 THEN
			PERFORM pooler.exec(n, format('INSERT INTO public.done VALUES (%s, %s)', who, i));
			INSERT INTO done VALUES (who, i, n);
		END IF;
		IF random() < 0.2 THEN
			PERFORM pooler.exec(n, 'SELECT pg_sleep(0.02)');
		END IF;
		IF random() < 0.1 THEN ROLLBACK; ELSE COMMIT; END IF;
		PERFORM pg_sleep(0.04 * random());
	END LOOP;
	RAISE NOTICE 'longest %', longest;
END$$;
END

# --- the sessions ----------------------------------------------------------------------------------
my ($watch, %peek) = (session($coord), map { $_ => session($dn{$_}) } @nodes);
my (@session, @who, %trouble, %errors);
my ($born, $calls, $longest, $longest_refused) = (0, 0, 0, 0);

sub trouble { $trouble{"@_"}++; return; }

# What a session has answered; false if it has ended.
sub judge
{
	my ($out, $err) = @_;
	$longest = max($longest, $1) if $err =~ /NOTICE:.*longest ([\d.]+)/;
	trouble('seen', $1) if $err =~ /(mark of another.*)/;
	while ($err =~ /(ERROR|FATAL):  (\w{5}): (.*)/g)
	{
		my ($code, $text) = ($2, $3);
		$errors{$code}++;
		$longest_refused = max($longest_refused, $1) if $text =~ /waited for ([\d.]+) s/;
		trouble($code, $text) if $code !~ /^(?:53300|57P01|57P03|08001|08006|08007|40003)$/;
	}
	return $err !~ /FATAL/;
}

sub work
{
	my ($i) = @_;
	my $s = $session[$i];
	if ($s)
	{
		my $answered = eval { $s->answered() };
		return if defined $answered && !$answered;
		my @answer = eval { $s->hear() };
		$calls++;
		if (!@answer || !judge(@answer))
		{
			$session[$i] = undef;
			eval { $s->quit() };
		}
	}
	$session[$i] //= do { $who[$i] = ++$born; session($coord) };
	$session[$i]->tell(sprintf 'CALL work(%d, 40, %f)', $who[$i], rand() * 2 - 1);
	return;
}

# --- what happens to them --------------------------------------------------------------------------
my ($paused, $worker_at, $events) = (0, time + 1, 0);

sub pick { return $_[ rand @_ ]; }
sub admin { my ($sql) = @_; $watch->tell($sql); return ($watch->hear())[0]; }

sub event
{
	my $node = pick(@nodes);
	my $what = pick(qw(session session backend backend clean clean pause alter catalog worker worker leave));
	$events++;
	admin('SELECT pooler.resume()') if $paused;
	$paused = $what eq 'pause';
	if ($what eq 'session' || $what eq 'leave')
	{
		my $i = int rand $kSessions;
		return if !$session[$i];
		admin('SELECT pg_terminate_backend(' . $session[$i]->pid . ')');
	}
	elsif ($what eq 'backend')
	{
		$peek{$node}->ask(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'polarx_pooler%'}
			  . ' ORDER BY random() LIMIT ' . pick(1 .. 3));
	}
	elsif ($what eq 'clean') { admin("SELECT pooler.clean('$node')"); }
	elsif ($what eq 'pause') { admin("SELECT pooler.pause('$node')"); }
	elsif ($what eq 'alter')
	{
		admin("ALTER SERVER $node OPTIONS (" . pick('ADD', 'SET') . ' keepalives_idle \'' . pick(30 .. 60) . '\')');
	}
	elsif ($what eq 'catalog') { admin("CREATE ROLE r$events; DROP ROLE r$events"); }
	elsif (time > $worker_at)
	{
		$worker_at = time + 2;
		admin(pick('SELECT pooler.stop(), pooler.start()',
			q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'polarx_pooler worker'}));
	}
	return;
}

# --- what must hold meanwhile ----------------------------------------------------------------------
my %above = map { $_ => undef } @nodes;
my ($moments, $parked, $waiting) = (0, 0, 0);

sub check
{
	for my $row (split /\n/, admin('SELECT total - idle - leased - parked - connecting - resetting, total, max_size, parked,'
		  . ' waiting, least(total, idle, leased, parked, connecting, resetting, waiting) FROM pooler.pools'))
	{
		my ($rest, $total, $most, $kept, $tickets, $least) = split /\|/, $row;
		$moments++;
		$parked++ if $kept > 0;
		$waiting++ if $tickets > 0;
		trouble('sums', $row) if $rest != 0 || $least < 0;
		trouble('above the limit', $row) if $total > $most;
	}
	for my $node (@nodes)
	{
		# Those of a pooler worker that has ended take a moment to end as well.
		my $count = $peek{$node}->ask(q{SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'polarx_pooler%'});
		$above{$node} = $count > $kConnections ? $above{$node} // time : undef;
		trouble("$node has $count connections") if defined $above{$node} && time - $above{$node} > 5;
	}
	return;
}

my $end = time + $seconds;
my $next = time + 0.5;
while (time < $end)
{
	work($_) for 0 .. $kSessions - 1;
	check();
	if (time > $next) { event(); $next = time + rand 0.15; }
	usleep(5_000);
}
admin('SELECT pooler.resume()');
admin('SELECT pooler.start()');

# --- afterwards ------------------------------------------------------------------------------------
my @left;
for my $s (grep { defined } @session)
{
	my @answer = eval { $s->hear() };
	push @left, $s if @answer && judge(@answer);
	trouble('no answer', $@) if !@answer && $@ !~ /psql ended/;
}
check();
is_deeply(\%trouble, {}, "no mark of another session, sums, limits, no unexpected error (POLARX_PARK_SEED=$seed)");
cmp_ok($longest_refused, '<', $kTimeout + 2, "nobody was refused long after queue_timeout ($longest_refused s)");
cmp_ok($longest, '<', 3 * $kTimeout + 3, "... nor served ($longest s)");
my $parked_left = q{SELECT concat_ws(' ', sum(leased), sum(waiting), sum(connecting + resetting)) FROM pooler.pools};
wait_until($coord, $parked_left, '0 0 0', 'all answered: nothing is leased, nobody waits');
note "$calls calls, $events events, $born sessions, errors: " . join ', ', map { "$_ $errors{$_}" } sort keys %errors;
note "of $moments moments of pools: parked in $parked, waiting in $waiting";
cmp_ok($_->[0], '>', 0, $_->[1]) for [ $parked, 'leases were parked' ], [ $waiting, 'tickets waited' ], [ $born - $kSessions, 'sessions ended' ];
for my $s (@left)
{
	my @failed = grep { $_ ne 'SELECT 1' } map { eval { $s->ask("SELECT pooler.exec('$_', 'SELECT 1')") } // $@ } @nodes, @nodes;
	is_deeply(\@failed, [], 'a session that is left works');
}
cmp_ok(scalar @left, '>', 0, '... there are some');
$_->quit() for @left;
wait_until($coord, q{SELECT concat_ws(' ', sum(leased), sum(parked), sum(waiting), sum(connecting + resetting)) FROM pooler.pools},
	'0 0 0 0', 'they end: all is idle');
for my $node (@nodes)
{
	wait_for("the connections to $node", sub {
			value($coord, "SELECT remote_pid FROM pooler.connections WHERE node = '$node' ORDER BY 1") eq backend_pids($dn{$node}) });
	my %there = map { $_ => 1 } split /\n/, value($dn{$node}, 'SELECT DISTINCT who, i FROM done');
	my @missing = grep { !$there{$_} } split /\n/, value($coord, "SELECT DISTINCT who, i FROM done WHERE node = '$node'");
	is_deeply(\@missing, [], "$node: all that was committed here was committed there");
	cmp_ok(scalar keys %there, '>', 0, '... and something was');
}
$_->quit() for $watch, values %peek;
finish();
