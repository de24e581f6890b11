/* Float32 -> JSON text: the answers to score requests.

   A number has the fewest digits that are read as the same float32, and of these the nearest. */

#pragma once

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "powers.h"

typedef struct {
    uint32_t digits;
    int exponent; /* of ten */
} Decimal;

static inline uint32_t round_to_odd(uint64_t power, uint32_t number)
{
    uint128_t product = (uint128_t)power * number;
    return (uint32_t)(product >> 64) | ((uint32_t)(product >> 32) > 1);
}

/* The shortest decimal that is read as this float32, above zero; of several the nearest. Giulietti, The Schubfach way to render doubles
   (2021), of whose names for the bounds this keeps. */
static Decimal shortest(uint32_t bits)
{
    uint32_t fraction = bits & 0x7FFFFF, biased = bits >> 23;
    uint32_t c = biased ? fraction | 0x800000 : fraction;
    uint32_t closer = fraction == 0 && biased > 1, is_odd = c & 1;
    int q = biased ? (int)biased - 150 : -149;
    int k = (q * 1262611 - (closer ? 524031 : 0)) >> 22; /* floor(log10(2^q)), or of 3/4 of it */
    int h = q + log2_of_ten(-k) + 1;
    uint64_t g = POWERS[-k - LEAST];
    uint32_t lower = round_to_odd(g, (4 * c - 2 + closer) << h) + is_odd;
    uint32_t middle = round_to_odd(g, (4 * c) << h);
    uint32_t upper = round_to_odd(g, (4 * c + 2) << h) - is_odd;
    uint32_t s = middle / 4;
    if (s >= 10) {
        uint32_t tens = s / 10;
        uint32_t below = lower <= 40 * tens, above = 40 * tens + 40 <= upper;
        if (below != above) return (Decimal){tens + above, k + 1};
    }
    uint32_t below = lower <= 4 * s, above = 4 * s + 4 <= upper;
    if (below != above) return (Decimal){s + above, k};
    return (Decimal){s + (middle > 4 * s + 2 || (middle == 4 * s + 2 && (s & 1))), k};
}

enum { NUMBER_BYTES = 17 }; /* of one number, at most: -0.00000123456789 */

static inline char *write_text(char *to, const char *text, size_t length)
{
    memcpy(to, text, length);
    return to + length;
}

static const char PAIRS[] = "0001020304050607080910111213141516171819202122232425262728293031323334353637383940414243444546474849"
                            "5051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899";

/* Write a finite number and return where it ends. From 1e-6 to 1e13 it has no exponent, as orjson has it. */
static char *write_number(char *to, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, 4);
    if (bits >> 31) *to++ = '-';
    bits &= 0x7FFFFFFF;
    if (bits == 0) return write_text(to, "0.0", 3);
    Decimal decimal = shortest(bits);
    while (decimal.digits % 10 == 0) {
        decimal.digits /= 10;
        decimal.exponent++;
    }
    char room[10], *end = room + sizeof room, *digits = end;
    uint32_t left = decimal.digits;
    for (; left >= 100; left /= 100) digits = memcpy(digits - 2, PAIRS + 2 * (left % 100), 2);
    for (; left; left /= 10) *--digits = (char)('0' + left % 10);
    int count = (int)(end - digits), point = count + decimal.exponent; /* digits before it */
    if (point < -5 || point > 13) {
        *to++ = digits[0];
        if (count > 1) {
            *to++ = '.';
            to = write_text(to, digits + 1, (size_t)(count - 1));
        }
        int power = point - 1;
        *to++ = 'e';
        *to++ = power < 0 ? '-' : '+';
        power = abs(power);
        if (power >= 10) *to++ = (char)('0' + power / 10);
        *to++ = (char)('0' + power % 10);
        return to;
    }
    if (point <= 0) {
        to = write_text(to, "0.00000", (size_t)(2 - point));
        return write_text(to, digits, (size_t)count);
    }
    if (point < count) {
        to = write_text(to, digits, (size_t)point);
        *to++ = '.';
        return write_text(to, digits + point, (size_t)(count - point));
    }
    to = write_text(to, digits, (size_t)count);
    for (int zeros = point - count; zeros > 0; zeros--) *to++ = '0';
    return write_text(to, ".0", 2);
}

typedef struct {
    const char *head; /* an answer's beginning, up to its scores */
    ptrdiff_t head_bytes;
    double threshold, largest; /* the largest calibration score: what is above is extrapolated */
} Answer;

typedef struct {
    const float *score, *p_value, *severity;
} Rows;

#define TEXT(text) to = write_text(to, text, sizeof text - 1)

static inline size_t most_bytes(const Answer *answer, ptrdiff_t count)
{
    const char between[] = ",\"score\":[],\"ratio\":[],\"p_value\":[],\"severity\":[],\"extrapolated\":[],\"is_anomaly\":[]}";
    return (size_t)answer->head_bytes + sizeof between + (size_t)count * (4 * (NUMBER_BYTES + 1) + 2 * sizeof "false,");
}

/* Write the answer to some rows and return where it ends; NULL where one of the numbers is not finite. */
static char *write_answer(char *to, const Answer *answer, Rows rows, ptrdiff_t count)
{
    const float *score = rows.score, *p_value = rows.p_value, *severity = rows.severity;
    double limit = answer->threshold > FLT_MIN ? answer->threshold : FLT_MIN;
    to = write_text(to, answer->head, (size_t)answer->head_bytes);
    TEXT(",\"score\":[");
    for (ptrdiff_t n = 0; n < count; n++) {
        if (!isfinite(score[n]) || !isfinite(p_value[n]) || !isfinite(severity[n])) return NULL;
        to = write_number(to, score[n]);
        *to++ = ',';
    }
    to--;
    TEXT("],\"ratio\":[");
    for (ptrdiff_t n = 0; n < count; n++) {
        double ratio = score[n] / limit;
        to = write_number(to, (float)(ratio < -FLT_MAX ? -FLT_MAX : ratio > FLT_MAX ? FLT_MAX : ratio));
        *to++ = ',';
    }
    to--;
    TEXT("],\"p_value\":[");
    for (ptrdiff_t n = 0; n < count; n++) {
        to = write_number(to, p_value[n]);
        *to++ = ',';
    }
    to--;
    TEXT("],\"severity\":[");
    for (ptrdiff_t n = 0; n < count; n++) {
        to = write_number(to, severity[n]);
        *to++ = ',';
    }
    to--;
    TEXT("],\"extrapolated\":[");
    for (ptrdiff_t n = 0; n < count; n++) {
        if (score[n] > answer->largest) TEXT("true,");
        else TEXT("false,");
    }
    to--;
    TEXT("],\"is_anomaly\":[");
    for (ptrdiff_t n = 0; n < count; n++) {
        if (score[n] > answer->threshold) TEXT("true,");
        else TEXT("false,");
    }
    to--;
    TEXT("]}");
    return to;
}
