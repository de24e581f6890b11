/* Scores -> p-values: a step function of float32 numbers. */

#pragma once

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
