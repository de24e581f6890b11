/* Powers of ten, to 64 bits. */

#pragma once

#include <stdint.h>
#include <stdlib.h>

typedef unsigned __int128 uint128_t;

/* 10^k for k from LEAST to MOST is just below POWERS[k - LEAST] * 2^(log2_of_ten(k) - 63). Writing the least float32 takes 10^45; of what
   reading would take, 10^-54 is the last that 128 bits give. */
enum { LEAST = -54, MOST = 45 };
static uint64_t POWERS[MOST - LEAST + 1];

/* floor(log2(10^k)), of such k */
static inline int log2_of_ten(int k)
{
    return (k * 1741647) >> 19;
}

static void make_powers(void)
{
    for (int k = LEAST; k <= MOST; k++) {
        uint128_t five = 1; /* 10^k and 5^k have the same digits in base 2 */
        for (int i = 0; i < abs(k); i++) five *= 5;
        uint64_t digits = 0;
        if (k < 0) { /* of 1 / 5^-k */
            uint128_t rest = 1;
            while (rest < five) rest <<= 1;
            for (int i = 0; i < 64; i++, rest <<= 1) {
                digits = digits << 1 | (rest >= five);
                if (rest >= five) rest -= five;
            }
        } else {
            while (!(five >> 127)) five <<= 1;
            digits = (uint64_t)(five >> 64);
        }
        POWERS[k - LEAST] = digits + 1;
    }
}
