/* JSON text -> float32: {"rows": [[1.5, null], ...]}.

   A number is the double nearest to its text, rounded to float32, as Python and numpy would have it. */

#pragma once

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "powers.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__ || FLT_EVAL_METHOD != 0
#error "cells are little-endian, and a product of doubles is a double"
#endif

#define EXACT_POWERS(sign)                                                                                                \
    {sign 1e0,  sign 1e1,  sign 1e2,  sign 1e3,  sign 1e4,  sign 1e5,  sign 1e6,  sign 1e7,  sign 1e8,  sign 1e9,  sign 1e10, sign 1e11, \
     sign 1e12, sign 1e13, sign 1e14, sign 1e15, sign 1e16, sign 1e17, sign 1e18, sign 1e19, sign 1e20, sign 1e21, sign 1e22}
static const double EXACT[2][23] = {EXACT_POWERS(+), EXACT_POWERS(-)};
static const double BEYOND = 0x1.ffffffp127; /* halfway to the next power of two: from here on a number rounds to infinity */

typedef enum { DONE, REFUSED, ODD } Outcome;

typedef struct {
    const char *at, *end;
    ptrdiff_t width;
    float *cell, *row_end, *last; /* the next cell, the end of its row, the end of all rows */
    int gap;
    int given; /* the value of the next cell is */
    double value;
} Reader;

/* Behind the text is a zero, as in every bytes object, so that what looks for one character needs not look for the end. */

static inline const char *skip(const char *at)
{
    while ((unsigned char)*at <= ' ' && (*at == ' ' || *at == '\n' || *at == '\r' || *at == '\t')) at++;
    return at;
}

static inline int is_digit(char c)
{
    return (unsigned char)(c - '0') < 10;
}

/* Eight digits, the first in the lowest byte, as a number. */
static inline uint64_t eight(uint64_t x)
{
    x = x * 10 + (x >> 8); /* two at a time, then four, then all */
    return ((x & 0x000000FF000000FF) * 0x000F424000000064 + ((x >> 16) & 0x000000FF000000FF) * 0x0000271000000001) >> 32;
}

#define TAKE(count, power)                                                \
    case count:                                                           \
        *number = *number * power + eight(x << (64 - 8 * count));         \
        return at + count

/* Add a run of digits to a number, which may overflow. Eight are looked at together; where they end is branched on, and so guessed. */
static inline const char *read_digits(const char *at, const char *end, uint64_t *number)
{
    while (end - at >= 8) {
        uint64_t x;
        memcpy(&x, at, 8);
        x ^= 0x3030303030303030;
        uint64_t others = ((x + 0x7676767676767676) | x) & 0x8080808080808080;
        if (others) switch (__builtin_ctzll(others) >> 3) {
            TAKE(7, 10000000);
            TAKE(6, 1000000);
            TAKE(5, 100000);
            TAKE(4, 10000);
            TAKE(3, 1000);
            TAKE(2, 100);
            TAKE(1, 10);
            default: return at;
        }
        *number = *number * 100000000 + eight(x);
        at += 8;
    }
    while (is_digit(*at)) *number = *number * 10 + (uint64_t)(*at++ - '0');
    return at;
}

static inline double double_of(uint64_t bits)
{
    double value;
    memcpy(&value, &bits, 8);
    return value;
}

/* mantissa * 10^exponent; 0 where it takes more than 64 bits of the power to tell which float32 that is. Where a double is exact, one
   product or quotient is rounded right: Clinger, How to read floating point numbers accurately (1990). */
static inline int scale(uint64_t mantissa, long exponent, double *value)
{
    if (mantissa < (uint64_t)1 << 53 && exponent >= -22 && exponent <= 22) {
        *value = exponent < 0 ? (double)mantissa / EXACT[0][-exponent] : (double)mantissa * EXACT[0][exponent];
        return 1;
    }
    if (exponent < LEAST || exponent > 18 || mantissa == 0) return 0;
    int shift = __builtin_clzll(mantissa);
    uint128_t product = (uint128_t)(mantissa << shift) * POWERS[exponent - LEAST]; /* too large by less than 2^64 */
    int full = (int)(product >> 127);
    uint64_t bits = (uint64_t)(product >> (63 + full)), rest = bits & 0x7FF;
    bits = ((uint64_t)(binary((int)exponent) - shift + full + 1085) << 52) + (bits >> 11); /* its highest bit counts as one more */
    if (rest - 0x3FE <= 4 && (float)double_of(bits) != (float)double_of(bits + 1)) return 0; /* halfway, or nearly */
    *value = double_of(bits + (rest >> 10));
    return 1;
}

/* Read the rest of a number of more than a few digits, or with an exponent: what there is of `count` digits is in the mantissa. */
static const char *read_rest(const char *at, const char *end, const char *first, ptrdiff_t count, uint64_t mantissa, long exponent, double *value)
{
    if (count > 19)
        for (; *first == '0' || *first == '.'; first++) count -= *first == '0';
    if ((*at | 0x20) == 'e') {
        int minus = *++at == '-';
        at += minus || *at == '+';
        const char *begin = at;
        uint64_t power = 0;
        at = read_digits(at, end, &power);
        if (at == begin) return NULL;
        if (at - begin > 4) count = 20;
        exponent += minus ? -(long)power : (long)power;
    }
    if (count > 19 || !scale(mantissa, exponent, value)) *value = NAN;
    return at;
}

/* Read a number and return where it ends, NULL where none is. It is NAN where it takes more than this to read it. */
static inline const char *read_number(const char *at, const char *end, double *value)
{
    uint64_t mantissa = 0;
    long exponent = 0;
    int minus = *at == '-';
    const char *first = at += minus;
    while (is_digit(*at)) mantissa = mantissa * 10 + (uint64_t)(*at++ - '0'); /* a few, mostly */
    ptrdiff_t count = at - first;
    if (count == 0 || (count > 1 && *first == '0')) return NULL;
    if (*at == '.') {
        const char *begin = ++at;
        at = read_digits(at, end, &mantissa);
        if (at == begin) return NULL;
        exponent = begin - at;
        count -= exponent;
    }
    if (count > 15 || (*at | 0x20) == 'e') {
        at = read_rest(at, end, first, count, mantissa, exponent, value);
        *value *= EXACT[minus][0];
    } else {
        *value = (double)(int64_t)mantissa / EXACT[minus][-exponent];
    }
    return at;
}

/* Read rows up to the end of the text, or to an odd number. */
static Outcome read_cells(Reader *r)
{
    const char *at = r->at, *const end = r->end;
    float *cell = r->cell, *row_end = r->row_end;
    double value = r->value;
    if (r->given) {
        r->given = 0;
        goto given;
    }
    for (;;) {
        if (cell == row_end) {
            at = skip(at);
            if (*at++ != '[' || cell == r->last) return REFUSED;
            row_end += r->width;
        }
        at = skip(at);
        if (*at == 'n') {
            if (strncmp(at, "null", 4) != 0) return REFUSED;
            at += 4;
            r->gap = 1;
            *cell++ = NAN;
        } else {
            const char *after = read_number(at, end, &value);
            if (after == NULL) return REFUSED;
            if (value != value) {
                r->at = at;
                r->cell = cell;
                r->row_end = row_end;
                return ODD;
            }
            at = after;
        given:
            if (fabs(value) >= BEYOND) return REFUSED;
            *cell++ = (float)value;
        }
        at = skip(at);
        if (cell < row_end) {
            if (*at++ != ',') return REFUSED;
            continue;
        }
        if (*at++ != ']') return REFUSED;
        at = skip(at);
        if (*at == ',') {
            at++;
            continue;
        }
        if (*at++ != ']') return REFUSED;
        at = skip(at);
        if (*at++ != '}') return REFUSED;
        return skip(at) == end && cell == r->last ? DONE : REFUSED;
    }
}

/* What begins a body of rows. */
static int read_beginning(Reader *r)
{
    static const char *const parts[] = {"{", "\"rows\"", ":", "["};
    for (int i = 0; i < 4; i++) {
        size_t length = strlen(parts[i]);
        r->at = skip(r->at);
        if (strncmp(r->at, parts[i], length) != 0) return 0;
        r->at += length;
    }
    return 1;
}

static ptrdiff_t count_rows(const char *at, const char *end)
{
    ptrdiff_t count = 0;
    while ((at = memchr(at, '[', (size_t)(end - at)))) {
        count++;
        at++;
    }
    return count;
}
