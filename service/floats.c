/* Float32 numbers and JSON text: the rows that are posted, and the scores that are answered.

   Both ways are exact. A number that is read is the double nearest to the text, rounded to float32, as Python and numpy would have it;
   one that is written has the fewest digits that are read as the same float32, and of these the nearest. */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__ || FLT_EVAL_METHOD != 0
#error "cells are little-endian, and a product of doubles is a double"
#endif

typedef unsigned __int128 uint128_t;

/* 10^k for k from LEAST to MOST is just below POWERS[k - LEAST] * 2^(binary(k) - 63). */
enum { LEAST = -54, MOST = 45 };
static uint64_t POWERS[MOST - LEAST + 1];

#define EXACT_POWERS(sign)                                                                                                \
    {sign 1e0,  sign 1e1,  sign 1e2,  sign 1e3,  sign 1e4,  sign 1e5,  sign 1e6,  sign 1e7,  sign 1e8,  sign 1e9,  sign 1e10, sign 1e11, \
     sign 1e12, sign 1e13, sign 1e14, sign 1e15, sign 1e16, sign 1e17, sign 1e18, sign 1e19, sign 1e20, sign 1e21, sign 1e22}
static const double EXACT[2][23] = {EXACT_POWERS(+), EXACT_POWERS(-)};
static const double BEYOND = 0x1.ffffffp127; /* halfway to the next power of two: from here on a number rounds to infinity */

/* floor(log2(10^k)) */
static inline int binary(int k)
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

/* ---- Text -> numbers ---- */

enum { UNLOCKED_BYTES = 16384, UNLOCKED_ROWS = 256 }; /* of text, and of an answer: from here on others run meanwhile */

typedef enum { DONE, REFUSED, ODD } Outcome;

typedef struct {
    const char *at, *end;
    Py_ssize_t width;
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
static const char *read_rest(const char *at, const char *end, const char *first, Py_ssize_t count, uint64_t mantissa, long exponent, double *value)
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
    Py_ssize_t count = at - first;
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

/* Read the number that read_cells could not; 0 where it is no number after all. */
static int read_odd(Reader *r)
{
    char text[128];
    size_t length = 0;
    while (r->at[length] && strchr("+-.0123456789eE", r->at[length])) {
        text[length] = r->at[length];
        if (++length == sizeof text) return 0;
    }
    text[length] = 0;
    r->value = PyOS_string_to_double(text, NULL, NULL);
    if (PyErr_Occurred()) {
        PyErr_Clear();
        return 0;
    }
    r->at += length;
    r->given = 1;
    return 1;
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

static Py_ssize_t count_rows(const char *at, const char *end)
{
    Py_ssize_t count = 0;
    while ((at = memchr(at, '[', (size_t)(end - at)))) {
        count++;
        at++;
    }
    return count;
}

/* ---- Numbers -> text ---- */

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
    int h = q + binary(-k) + 1;
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

enum { NUMBER_BYTES = 20 }; /* of one number, at most */

static inline char *write_text(char *to, const char *text, size_t length)
{
    memcpy(to, text, length);
    return to + length;
}

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
    for (uint32_t left = decimal.digits; left; left /= 10) *--digits = (char)('0' + left % 10);
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
    Py_ssize_t head_bytes;
    double threshold;
} Answer;

#define TEXT(text) to = write_text(to, text, sizeof text - 1)

static inline size_t most_bytes(const Answer *answer, Py_ssize_t count)
{
    return (size_t)answer->head_bytes + 64 + (size_t)count * (3 * (NUMBER_BYTES + 1) + sizeof "false,");
}

/* Write the answer to some rows and return where it ends; NULL where one of the scores is not finite. */
static char *write_answer(char *to, const Answer *answer, const float *score, const float *p_value, Py_ssize_t count)
{
    double limit = answer->threshold > FLT_MIN ? answer->threshold : FLT_MIN;
    to = write_text(to, answer->head, (size_t)answer->head_bytes);
    TEXT(",\"score\":[");
    for (Py_ssize_t n = 0; n < count; n++) {
        if (!isfinite(score[n]) || !isfinite(p_value[n])) return NULL;
        to = write_number(to, score[n]);
        *to++ = ',';
    }
    to--;
    TEXT("],\"ratio\":[");
    for (Py_ssize_t n = 0; n < count; n++) {
        double ratio = score[n] / limit;
        to = write_number(to, (float)(ratio < -FLT_MAX ? -FLT_MAX : ratio > FLT_MAX ? FLT_MAX : ratio));
        *to++ = ',';
    }
    to--;
    TEXT("],\"p_value\":[");
    for (Py_ssize_t n = 0; n < count; n++) {
        to = write_number(to, p_value[n]);
        *to++ = ',';
    }
    to--;
    TEXT("],\"is_anomaly\":[");
    for (Py_ssize_t n = 0; n < count; n++) {
        if (score[n] > answer->threshold) TEXT("true,");
        else TEXT("false,");
    }
    to--;
    TEXT("]}");
    return to;
}

/* ---- What Python calls; floats.pyi says what it is ---- */

static PyObject *none(void)
{
    return Py_NewRef(Py_None);
}

static int takes(const char *function, Py_ssize_t expected, Py_ssize_t count)
{
    if (count != expected) PyErr_Format(PyExc_TypeError, "%s takes %zd arguments, got %zd", function, expected, count);
    return count == expected;
}

/* Of a text of rows: None where it is not that. */
static PyObject *read_text(Reader *r, Py_ssize_t max_rows)
{
    int locked = r->end - r->at < UNLOCKED_BYTES;
    if (r->width < 1 || !read_beginning(r)) return none();
    Py_ssize_t rows = count_rows(r->at, r->end);
    Py_ssize_t most = (r->end - r->at) / 2 / r->width; /* a cell and what follows it are two characters or more */
    if (rows < 1 || rows > max_rows || rows > most) return none();
    PyObject *cells = PyBytes_FromStringAndSize(NULL, rows * r->width * (Py_ssize_t)sizeof(float));
    if (cells == NULL) return NULL;
    r->cell = r->row_end = (float *)PyBytes_AsString(cells);
    r->last = r->cell + rows * r->width;
    Outcome outcome;
    do {
        if (locked) {
            outcome = read_cells(r);
        } else {
            Py_BEGIN_ALLOW_THREADS
            outcome = read_cells(r);
            Py_END_ALLOW_THREADS
        }
    } while (outcome == ODD && read_odd(r));
    PyObject *answer = outcome == DONE ? PyTuple_Pack(2, cells, r->gap ? Py_True : Py_False) : none();
    Py_DECREF(cells);
    return answer;
}

static PyObject *read_rows(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    (void)module;
    if (!takes("read_rows", 3, count)) return NULL;
    Reader r = {.width = PyLong_AsSsize_t(arguments[1])};
    Py_ssize_t max_rows = PyLong_AsSsize_t(arguments[2]);
    if (PyErr_Occurred()) return NULL;
    if (!PyBytes_Check(arguments[0]) && !PyByteArray_Check(arguments[0]))
        return PyErr_Format(PyExc_TypeError, "expected a body of bytes"); /* no others have a zero behind them */
    Py_buffer body;
    if (PyObject_GetBuffer(arguments[0], &body, PyBUF_SIMPLE) < 0) return NULL;
    r.at = body.buf;
    r.end = r.at + body.len;
    PyObject *answer = read_text(&r, max_rows);
    PyBuffer_Release(&body);
    return answer;
}

static int get_answer(Answer *answer, PyObject *head, PyObject *threshold)
{
    char *text;
    if (PyBytes_AsStringAndSize(head, &text, &answer->head_bytes) < 0) return 0;
    answer->head = text;
    answer->threshold = PyFloat_AsDouble(threshold);
    return !PyErr_Occurred();
}

static PyObject *write_one(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    (void)module;
    Answer answer;
    if (!takes("write_one", 4, count) || !get_answer(&answer, arguments[0], arguments[1])) return NULL;
    float score = (float)PyFloat_AsDouble(arguments[2]), p_value = (float)PyFloat_AsDouble(arguments[3]);
    if (PyErr_Occurred()) return NULL;
    char few[1024], *text = few;
    if (most_bytes(&answer, 1) > sizeof few && (text = PyMem_Malloc(most_bytes(&answer, 1))) == NULL) return PyErr_NoMemory();
    char *end = write_answer(text, &answer, &score, &p_value, 1);
    PyObject *written = end ? PyBytes_FromStringAndSize(text, end - text) : none();
    if (text != few) PyMem_Free(text);
    return written;
}

/* Of the rows from `start` to `end`, in a text that has room for them. */
static PyObject *write_some(char *text, const Answer *answer, const float *score, const float *p_value, Py_ssize_t count)
{
    char *end;
    if (count < UNLOCKED_ROWS) {
        end = write_answer(text, answer, score, p_value, count);
    } else {
        Py_BEGIN_ALLOW_THREADS
        end = write_answer(text, answer, score, p_value, count);
        Py_END_ALLOW_THREADS
    }
    return end ? PyBytes_FromStringAndSize(text, end - text) : none();
}

static int get_span(PyObject *span, Py_ssize_t rows, Py_ssize_t *start, Py_ssize_t *end)
{
    if (!PyTuple_Check(span) || PyTuple_Size(span) != 2) {
        PyErr_SetString(PyExc_TypeError, "a span is a tuple of two");
        return 0;
    }
    *start = PyLong_AsSsize_t(PyTuple_GetItem(span, 0));
    *end = PyLong_AsSsize_t(PyTuple_GetItem(span, 1));
    if (PyErr_Occurred()) return 0;
    if (*start < 0 || *start >= *end || *end > rows) PyErr_Format(PyExc_ValueError, "%zd rows have no span %zd to %zd", rows, *start, *end);
    return !PyErr_Occurred();
}

static PyObject *write_spans(const Answer *answer, const float *score, const float *p_value, Py_ssize_t rows, PyObject *spans)
{
    if (!PyList_Check(spans)) return PyErr_Format(PyExc_TypeError, "the spans are a list");
    Py_ssize_t count = PyList_Size(spans), start, end, most = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        if (!get_span(PyList_GetItem(spans, i), rows, &start, &end)) return NULL;
        if (end - start > most) most = end - start;
    }
    char *text = PyMem_Malloc(most_bytes(answer, most));
    PyObject *written = text ? PyList_New(count) : PyErr_NoMemory();
    for (Py_ssize_t i = 0; written && i < count; i++) {
        PyObject *one = NULL;
        if (get_span(PyList_GetItem(spans, i), rows, &start, &end) && end - start <= most)
            one = write_some(text, answer, score + start, p_value + start, end - start);
        if (one == NULL || PyList_SetItem(written, i, one) < 0) Py_CLEAR(written);
    }
    PyMem_Free(text);
    return written;
}

/* A view of an array of float32 numbers. */
static int get_floats(PyObject *array, Py_buffer *view)
{
    if (PyObject_GetBuffer(array, view, PyBUF_ND | PyBUF_FORMAT) < 0) return 0;
    if (view->ndim == 1 && view->itemsize == sizeof(float) && view->format && strcmp(view->format, "f") == 0) return 1;
    PyErr_Format(PyExc_TypeError, "expected an array [N] of float32, got %d dimensions of %s", view->ndim, view->format);
    PyBuffer_Release(view);
    return 0;
}

static PyObject *write_scores(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    (void)module;
    Answer answer;
    if (!takes("write_scores", 5, count) || !get_answer(&answer, arguments[0], arguments[1])) return NULL;
    Py_buffer score, p_value;
    if (!get_floats(arguments[2], &score)) return NULL;
    PyObject *written = NULL;
    if (get_floats(arguments[3], &p_value)) {
        if (score.len == p_value.len)
            written = write_spans(&answer, score.buf, p_value.buf, score.len / (Py_ssize_t)sizeof(float), arguments[4]);
        else
            PyErr_SetString(PyExc_ValueError, "expected a p-value for each score");
        PyBuffer_Release(&p_value);
    }
    PyBuffer_Release(&score);
    return written;
}

#define FUNCTION(name) {#name, (PyCFunction)(void (*)(void))name, METH_FASTCALL, NULL}
static PyMethodDef FUNCTIONS[] = {FUNCTION(read_rows), FUNCTION(write_one), FUNCTION(write_scores), {NULL, NULL, 0, NULL}};

static struct PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "floats", NULL, 0, FUNCTIONS, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_floats(void)
{
    make_powers();
    return PyModule_Create(&MODULE);
}
