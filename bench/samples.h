/*
 * The times of a loop's operations, and when the loop starts and ends; in a backend.
 */
#ifndef POLARX_BENCH_SAMPLES_H
#define POLARX_BENCH_SAMPLES_H

#include "fmgr.h"

typedef struct Samples
{
	float	   *us;				/* the first ones; what follows is counted only */
	int64		count;
	double		end_us;			/* as now_us() */
} Samples;

/* Waits until start_at, interruptibly, and begins a loop of that length. */
extern void samples_begin(Samples *samples, double start_at, double seconds);

/* False once the time is over. Takes interrupts. */
extern bool samples_go_on(Samples *samples);

/* A point in time, in microseconds. */
extern double now_us(void);

extern void samples_add(Samples *samples, double us);

/* The result row of a function: operations, p50_us, p99_us. */
extern Datum samples_result(Samples *samples, FunctionCallInfo fcinfo);

/* Sleeps, interruptibly. */
extern void pause_for(double us);

#endif							/* POLARX_BENCH_SAMPLES_H */
