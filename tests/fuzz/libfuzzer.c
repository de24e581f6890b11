/* libFuzzer's way in: an interpreter that holds the C, instrumented, beside its twin in Python. */

#include <Python.h>

PyMODINIT_FUNC PyInit_compiled(void); /* service/floats/csrc/floats.c */

static PyObject *ask_both, *compiled, *plain;

static PyObject *must(PyObject *object)
{
    if (object == NULL) {
        PyErr_Print();
        abort();
    }
    return object;
}

int LLVMFuzzerInitialize(int *count, char ***arguments)
{
    (void)count, (void)arguments;
    PyImport_AppendInittab("instrumented", PyInit_compiled);
    Py_InitializeEx(0);
    compiled = must(PyImport_ImportModule("instrumented"));
    plain = must(PyImport_ImportModule("plain"));
    ask_both = must(PyObject_GetAttrString(must(PyImport_ImportModule("twins")), "ask_both"));
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    PyObject *input = must(PyBytes_FromStringAndSize((const char *)data, (Py_ssize_t)size));
    Py_DECREF(must(PyObject_CallFunctionObjArgs(ask_both, compiled, plain, input, NULL)));
    Py_DECREF(input);
    return 0;
}
