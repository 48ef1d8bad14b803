/*
 * Collects the times of a loop's operations and makes its result row; in a backend.
 */
#include "postgres.h"

#include <time.h>

#include "access/htup_details.h"
#include "funcapi.h"
#include "miscadmin.h"

#include "samples.h"

#define MAX_SAMPLES 500000

static double
clock_us(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return now.tv_sec * 1e6 + now.tv_nsec / 1e3;
}

double
now_us(void)
{
	return clock_us(CLOCK_MONOTONIC);
}

void
pause_for(double us)
{
	struct timespec length = {(time_t) (us / 1e6), (long) (us * 1e3) % 1000000000L};

	clock_nanosleep(CLOCK_MONOTONIC, 0, &length, NULL);
	CHECK_FOR_INTERRUPTS();
}

void
samples_begin(Samples *samples, double start_at, double seconds)
{
	double		wait_us;

	samples->us = palloc(MAX_SAMPLES * sizeof(float));
	samples->count = 0;
	while ((wait_us = start_at * 1e6 - clock_us(CLOCK_REALTIME)) > 0)
		pause_for(Min(wait_us, 1e5));
	samples->end_us = now_us() + seconds * 1e6;
}

bool
samples_go_on(Samples *samples)
{
	CHECK_FOR_INTERRUPTS();
	return now_us() < samples->end_us;
}

void
samples_add(Samples *samples, double us)
{
	if (samples->count < MAX_SAMPLES)
		samples->us[samples->count] = us;
	samples->count++;
}

static int
compare_samples(const void *a, const void *b)
{
	float		x = *(const float *) a;
	float		y = *(const float *) b;

	return (x > y) - (x < y);
}

Datum
samples_result(Samples *samples, FunctionCallInfo fcinfo)
{
	int64		kept = Min(samples->count, MAX_SAMPLES);
	TupleDesc	descriptor;
	Datum		values[3];
	bool		nulls[3] = {false, false, false};

	if (kept == 0)
		ereport(ERROR, (errmsg("no operation was finished in the time given")));
	qsort(samples->us, kept, sizeof(float), compare_samples);
	values[0] = Int64GetDatum(samples->count);
	values[1] = Float8GetDatum(samples->us[kept / 2]);
	values[2] = Float8GetDatum(samples->us[kept * 99 / 100]);
	if (get_call_result_type(fcinfo, NULL, &descriptor) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "the function must return a row");
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(descriptor), values, nulls));
}
