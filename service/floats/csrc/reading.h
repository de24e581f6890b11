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
    int given; /* the next cell's value is: an odd number, which was read otherwise */
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

/* Of read_digits: take so many of the digits x and return. */
#define TAKE(count, power)                                        \
    case count:                                                   \
        *number = *number * power + eight(x << (64 - 8 * count)); \
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

/* A number that is not zero has at most so many digits in a mantissa of 64 bits. */
enum { MOST_DIGITS = 19 };

/* mantissa * 10^exponent as a double that rounds to the right float32; NAN where it takes more than 64 bits of the power to tell which.
   Where a double is exact, one product or quotient is rounded right: Clinger, How to read floating point numbers accurately (1990). */
static double to_double(uint64_t mantissa, long exponent)
{
    if (mantissa < (uint64_t)1 << 53 && exponent >= -22 && exponent <= 22) {
        double exact = (double)mantissa;
        return exponent < 0 ? exact / EXACT[0][-exponent] : exact * EXACT[0][exponent];
    }
    if (mantissa == 0 || exponent < -45 - 1 - MOST_DIGITS) return 0; /* less than half of the least float32 */
    if (exponent > MOST) return INFINITY;
    if (exponent < LEAST) return NAN;
    int shift = __builtin_clzll(mantissa);
    uint128_t product = (uint128_t)(mantissa << shift) * POWERS[exponent - LEAST];
    int full = (int)(product >> 127);
    uint64_t bits = (uint64_t)(product >> (63 + full)), rest = bits & 0x7FF; /* of 64 bits a double takes 53 */
    bits = ((uint64_t)(log2_of_ten((int)exponent) - shift + full + 1085) << 52) + (bits >> 11); /* the first counts for the exponent */
    /* The power, and so the product, is too large by less than 2^64, the rest by less than 2: whether it is more than half is not sure. */
    if (rest - 0x3FE <= 4 && (float)double_of(bits) != (float)double_of(bits + 1)) return NAN;
    return double_of(bits + (rest >> 10));
}

/* A number of too many digits, which begin at `first`: by as many as there may be, if the others make no difference. */
static double of_many_digits(const char *first, ptrdiff_t count, long exponent)
{
    uint64_t mantissa = 0;
    for (int taken = 0; taken < MOST_DIGITS; first++) {
        if (*first == '.') continue;
        mantissa = mantissa * 10 + (uint64_t)(*first - '0');
        taken++;
    }
    exponent += (long)(count - MOST_DIGITS);
    double least = to_double(mantissa, exponent), most = to_double(mantissa + 1, exponent);
    return (float)least == (float)most ? least : NAN;
}

/* Read the rest of a number with more than a few digits, which are in the mantissa and are `count`, or with an exponent. */
static const char *read_rest(
    const char *at, const char *end, const char *first, ptrdiff_t count, uint64_t mantissa, long exponent, double *value)
{
    if (count > MOST_DIGITS)
        for (; *first == '0' || *first == '.'; first++) count -= *first == '0';
    if ((*at | 0x20) == 'e') {
        int minus = *++at == '-';
        at += minus || *at == '+';
        const char *begin = at;
        uint64_t power = 0;
        at = read_digits(at, end, &power);
        if (at == begin) return NULL;
        if (at - begin > 4) {
            *value = NAN;
            return at;
        }
        exponent += minus ? -(long)power : (long)power;
    }
    *value = count > MOST_DIGITS ? of_many_digits(first, count, exponent) : to_double(mantissa, exponent);
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
    } else { /* exact, as in to_double */
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
            if (isnan(value)) {
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

/* Read what is before the first row; how many rows there are, by their brackets: 0 where it is no body of rows, or has more than most. */
static ptrdiff_t read_beginning(Reader *r, ptrdiff_t most)
{
    static const char *const parts[] = {"{", "\"rows\"", ":", "["};
    for (int i = 0; i < 4; i++) {
        size_t length = strlen(parts[i]);
        r->at = skip(r->at);
        if (strncmp(r->at, parts[i], length) != 0) return 0;
        r->at += length;
    }
    ptrdiff_t rows = 0;
    for (const char *at = r->at; (at = memchr(at, '[', (size_t)(r->end - at))); at++)
        if (++rows > most) return 0;
    return rows;
}
