/* The module hourglass.service.floats.compiled. compiled.pyi says what its functions do. */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include "powers.h"
#include "reading.h"
#include "searching.h"
#include "writing.h"

/* Of a text, and of an answer: from here on others run meanwhile. What takes less may be done by the event loop, which should not have to wait
   until it may go on. */
enum { UNLOCKED_BYTES = 65536, UNLOCKED_ROWS = 4096 };

static PyObject *none(void)
{
    return Py_NewRef(Py_None);
}

static int takes(const char *function, Py_ssize_t expected, Py_ssize_t count)
{
    if (count != expected) PyErr_Format(PyExc_TypeError, "%s takes %zd arguments, got %zd", function, expected, count);
    return count == expected;
}

/* Read the number that read_cells could not, however long it is; 0 where it is no number after all. */
static int read_odd(Reader *r)
{
    char *after;
    r->value = PyOS_string_to_double(r->at, &after, NULL);
    if (PyErr_Occurred()) {
        PyErr_Clear();
        return 0;
    }
    r->at = after;
    r->given = 1;
    return 1;
}

/* Let others run, if it takes long. */
static PyThreadState *unlock(int takes_long)
{
    return takes_long ? PyEval_SaveThread() : NULL;
}

static void lock(PyThreadState *state)
{
    if (state) PyEval_RestoreThread(state);
}

/* What read_rows answers to a text. */
static PyObject *read_text(Reader *r, Py_ssize_t max_rows)
{
    Py_ssize_t bytes = r->end - r->at;
    if (r->width < 1) return none();
    Py_ssize_t most = bytes / 2 / r->width; /* a cell and what follows it are two characters or more */
    PyThreadState *state = unlock(bytes >= UNLOCKED_BYTES);
    Py_ssize_t rows = read_beginning(r, max_rows < most ? max_rows : most);
    lock(state);
    if (rows == 0) return none();
    PyObject *cells = PyBytes_FromStringAndSize(NULL, rows * r->width * (Py_ssize_t)sizeof(float));
    if (cells == NULL) return NULL;
    r->cell = r->row_end = (float *)PyBytes_AsString(cells);
    r->last = r->cell + rows * r->width;
    Outcome outcome;
    do {
        state = unlock(bytes >= UNLOCKED_BYTES);
        outcome = read_cells(r);
        lock(state);
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
    if (PyErr_Occurred()) return NULL;
    Py_ssize_t max_rows = PyLong_AsSsize_t(arguments[2]);
    if (PyErr_Occurred()) return NULL;
    if (!PyBytes_CheckExact(arguments[0]) && !PyByteArray_CheckExact(arguments[0]))
        return PyErr_Format(PyExc_TypeError, "expected a body of bytes"); /* no others have a zero behind them */
    Py_buffer body;
    if (PyObject_GetBuffer(arguments[0], &body, PyBUF_SIMPLE) < 0) return NULL;
    r.at = body.buf;
    r.end = r.at + body.len;
    PyObject *answer = read_text(&r, max_rows);
    PyBuffer_Release(&body);
    return answer;
}

/* The head, the threshold and the largest calibration score. */
static int get_answer(Answer *answer, PyObject *const *arguments)
{
    char *text;
    if (PyBytes_AsStringAndSize(arguments[0], &text, &answer->head_bytes) < 0) return 0;
    answer->head = text;
    answer->threshold = PyFloat_AsDouble(arguments[1]);
    if (PyErr_Occurred()) return 0;
    answer->largest = PyFloat_AsDouble(arguments[2]);
    return !PyErr_Occurred();
}

/* The answer to so many rows; None where one of their numbers is not finite. */
static PyObject *write_rows(const Answer *answer, Rows rows, Py_ssize_t count)
{
    char few[4096], *text = few;
    if (most_bytes(answer, count) > sizeof few && (text = PyMem_Malloc(most_bytes(answer, count))) == NULL) return PyErr_NoMemory();
    PyThreadState *state = unlock(count >= UNLOCKED_ROWS);
    char *end = write_answer(text, answer, rows, count);
    lock(state);
    PyObject *written = end ? PyBytes_FromStringAndSize(text, end - text) : none();
    if (text != few) PyMem_Free(text);
    return written;
}

static int get_span(PyObject *span, Py_ssize_t rows, Py_ssize_t *start, Py_ssize_t *end)
{
    if (!PyTuple_Check(span) || PyTuple_Size(span) != 2) {
        PyErr_SetString(PyExc_TypeError, "a span is a tuple of two");
        return 0;
    }
    *start = PyLong_AsSsize_t(PyTuple_GetItem(span, 0));
    if (PyErr_Occurred()) return 0;
    *end = PyLong_AsSsize_t(PyTuple_GetItem(span, 1));
    if (PyErr_Occurred()) return 0;
    if (*start < 0 || *start >= *end || *end > rows)
        PyErr_Format(PyExc_ValueError, "%zd rows have no span %zd to %zd", rows, *start, *end);
    return !PyErr_Occurred();
}

static PyObject *write_spans(const Answer *answer, Rows all, Py_ssize_t rows, PyObject *spans)
{
    Py_ssize_t count = PyTuple_Size(spans);
    PyObject *written = PyList_New(count);
    for (Py_ssize_t i = 0; written && i < count; i++) {
        Py_ssize_t start, end;
        int found = get_span(PyTuple_GetItem(spans, i), rows, &start, &end);
        PyObject *one = found ? write_rows(answer, (Rows){all.score + start, all.p_value + start, all.severity + start}, end - start) : NULL;
        if (one == NULL || PyList_SetItem(written, i, one) < 0) Py_CLEAR(written);
    }
    return written;
}

/* A view of an array of float32 numbers. */
static int get_floats(PyObject *array, Py_buffer *view, int flags)
{
    if (PyObject_GetBuffer(array, view, PyBUF_ND | PyBUF_FORMAT | flags) < 0) return 0;
    int fits = view->ndim == 1 && view->itemsize == sizeof(float) && view->format && strcmp(view->format, "f") == 0;
    if (fits && (uintptr_t)view->buf % sizeof(float) == 0) return 1;
    PyErr_Format(PyExc_TypeError, "expected an array [N] of float32, got %d dimensions of %s", view->ndim, view->format ? view->format : "bytes");
    PyBuffer_Release(view);
    return 0;
}

static PyObject *write_scores(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    (void)module;
    enum { SCORE, P_VALUE, SEVERITY, VIEWS };
    Answer answer;
    Py_buffer views[VIEWS];
    int taken = 0;
    if (!takes("write_scores", 7, count) || !get_answer(&answer, arguments)) return NULL;
    if (!PyList_Check(arguments[6])) return PyErr_Format(PyExc_TypeError, "the spans are a list");
    PyObject *spans = PyList_AsTuple(arguments[6]), *written = NULL; /* which nobody changes meanwhile */
    while (spans && taken < VIEWS && get_floats(arguments[3 + taken], &views[taken], 0)) taken++;
    if (taken == VIEWS) {
        if (views[SCORE].len == views[P_VALUE].len && views[SCORE].len == views[SEVERITY].len)
            written = write_spans(&answer, (Rows){views[SCORE].buf, views[P_VALUE].buf, views[SEVERITY].buf}, views[SCORE].shape[0], spans);
        else
            PyErr_SetString(PyExc_ValueError, "expected a p-value and a severity for each score");
    }
    while (taken > 0) PyBuffer_Release(&views[--taken]);
    Py_XDECREF(spans);
    return written;
}

static PyObject *look_up(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    (void)module;
    enum { ENDS, VALUES, LINES, NUMBERS, FOUND, ON_LINES, VIEWS };
    Py_buffer views[VIEWS];
    int taken = 0;
    if (!takes("look_up", VIEWS, count)) return NULL;
    while (taken < VIEWS && get_floats(arguments[taken], &views[taken], taken >= FOUND ? PyBUF_WRITABLE : 0)) taken++;
    if (taken == VIEWS) {
        Py_ssize_t steps = views[ENDS].shape[0], numbers = views[NUMBERS].shape[0];
        const float *ends = views[ENDS].buf, *values = views[VALUES].buf, *lines = views[LINES].buf, *number = views[NUMBERS].buf;
        float *found = views[FOUND].buf, *on_line = views[ON_LINES].buf;
        if (steps == 0 || views[VALUES].shape[0] <= steps || views[LINES].shape[0] / LINE <= steps || views[FOUND].shape[0] != numbers
            || views[ON_LINES].shape[0] != numbers)
            PyErr_SetString(PyExc_ValueError, "expected a value and a line for each step and one more, and room for each number");
        else {
            PyThreadState *state = unlock(numbers >= UNLOCKED_ROWS);
            for (Py_ssize_t n = 0; n < numbers; n++) {
                ptrdiff_t step = step_of(number[n], ends, steps);
                found[n] = values[step];
                on_line[n] = on_line_of(number[n], lines, step);
            }
            lock(state);
        }
    }
    while (taken > 0) PyBuffer_Release(&views[--taken]);
    return PyErr_Occurred() ? NULL : none();
}

#define FUNCTION(name, arguments) \
    {#name, (PyCFunction)(void (*)(void))name, METH_FASTCALL, #name "(" arguments ", /)\n--\n\ncompiled.pyi says what it does."}

static PyMethodDef FUNCTIONS[] = {
    FUNCTION(read_rows, "body, width, max_rows"),
    FUNCTION(look_up, "ends_E, values, lines, numbers_N, found_N, on_line_N"),
    FUNCTION(write_scores, "head, threshold, largest, score_N, p_value_N, severity_N, spans"),
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "compiled", NULL, 0, FUNCTIONS, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_compiled(void)
{
    make_powers();
    return PyModule_Create(&MODULE);
}
