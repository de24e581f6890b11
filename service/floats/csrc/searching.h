/* Scores -> p-values and severities: a step function of float32 numbers, and a line over each step. */

#pragma once

#include <float.h>
#include <math.h>
#include <stddef.h>

/* The step that a number is in: the first whose end is not below it, of so many ascending ends; the one after the last for NaN. Which half
   it is in is chosen and not branched on, since no one could guess it. */
static inline ptrdiff_t step_of(float number, const float *ends, ptrdiff_t count)
{
    if (isnan(number)) return count;
    const float *first = ends;
    while (count > 1) {
        ptrdiff_t half = count / 2;
        first += half * (first[half - 1] < number);
        count -= half;
    }
    return first - ends + (*first < number);
}

enum { LINE = 4 }; /* numbers of one: start, width, base and rise */

/* The number's place on its step's line. Each operation is monotone, and so is the whole. Before the first line it is where that begins. */
static inline float on_line_of(float number, const float *lines, ptrdiff_t step)
{
    const float *line = lines + LINE * step;
    float within = number > FLT_MAX ? FLT_MAX : number < lines[0] ? lines[0] : number;
    return line[2] + line[3] * ((within - line[0]) / line[1]);
}
