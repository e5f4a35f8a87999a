/* Keys and request bodies: primary keys to partition keys, partition keys to JSON. */

#include "_kernels.h"

enum { MAX_KEY_BYTES = 2048 }; /* As in keys.py. */

/* partition_keys(prefix, keys, type): the prefix before each key of a list or tuple, whose keys are
   all int, or all str of ASCII. None for anything else: a key of another type, a long key. */
PyObject *kernel_partition_keys(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *prefix, *keys, *type;
    if (!PyArg_ParseTuple(args, "UOO", &prefix, &keys, &type)) return NULL;
    if (!PyUnicode_IS_COMPACT_ASCII(prefix) || !(PyList_CheckExact(keys) || PyTuple_CheckExact(keys)))
        Py_RETURN_NONE;
    Py_ssize_t before = PyUnicode_GET_LENGTH(prefix), count = PySequence_Fast_GET_SIZE(keys);
    int whole = type == (PyObject *)&PyLong_Type;
    if (!whole && type != (PyObject *)&PyUnicode_Type) Py_RETURN_NONE;
    PyObject *made = PyList_New(count);
    for (Py_ssize_t i = 0; made && i < count; i++) {
        PyObject *key = PySequence_Fast_GET_ITEM(keys, i), *pk;
        const char *text = NULL;
        Py_ssize_t size = 0;
        char buffer[21];
        int overflow;
        if (whole && PyLong_CheckExact(key)) {
            long long value = PyLong_AsLongLongAndOverflow(key, &overflow);
            if (!overflow) text = decimal(value, buffer), size = buffer + 21 - text;
        } else if (!whole && PyUnicode_CheckExact(key) && PyUnicode_IS_COMPACT_ASCII(key)) {
            text = (const char *)PyUnicode_DATA(key), size = PyUnicode_GET_LENGTH(key);
        }
        if (!text || before + size > MAX_KEY_BYTES) {
            Py_DECREF(made);
            Py_RETURN_NONE;
        }
        pk = PyUnicode_New(before + size, 127);
        PyList_SET_ITEM(made, i, pk);
        if (!pk) {
            Py_CLEAR(made);
            break;
        }
        memcpy(PyUnicode_DATA(pk), PyUnicode_DATA(prefix), (size_t)before);
        memcpy((char *)PyUnicode_DATA(pk) + before, text, (size_t)size);
    }
    return made;
}

/* key_list(head, before, after, tail, pks): head, then each key between `before` and `after`,
   joined by commas, then tail. None unless all keys are ASCII that JSON does not escape. */
PyObject *kernel_key_list(PyObject *Py_UNUSED(module), PyObject *args) {
    const char *parts[4];
    Py_ssize_t sizes[4], total;
    PyObject *pks;
    if (!PyArg_ParseTuple(args, "y#y#y#y#O!", &parts[0], &sizes[0], &parts[1], &sizes[1], &parts[2],
                          &sizes[2], &parts[3], &sizes[3], &PyList_Type, &pks))
        return NULL;
    Py_ssize_t count = PyList_GET_SIZE(pks);
    if (!count) Py_RETURN_NONE;
    total = sizes[0] + sizes[3] + count * (sizes[1] + sizes[2] + 1) - 1;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *pk = PyList_GET_ITEM(pks, i);
        if (!PyUnicode_Check(pk) || !PyUnicode_IS_COMPACT_ASCII(pk)) Py_RETURN_NONE;
        total += PyUnicode_GET_LENGTH(pk);
    }
    PyObject *body = PyBytes_FromStringAndSize(NULL, total);
    if (!body) return NULL;
    char *at = PyBytes_AS_STRING(body);
    memcpy(at, parts[0], (size_t)sizes[0]), at += sizes[0];
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *pk = PyList_GET_ITEM(pks, i);
        Py_ssize_t size = PyUnicode_GET_LENGTH(pk);
        const unsigned char *text = PyUnicode_DATA(pk);
        if (i) *at++ = ',';
        memcpy(at, parts[1], (size_t)sizes[1]), at += sizes[1];
        for (Py_ssize_t j = 0; j < size; j++) {
            unsigned char letter = text[j];
            if (letter < ' ' || letter == '"' || letter == '\\' || letter == 127) {
                Py_DECREF(body);
                Py_RETURN_NONE;
            }
            *at++ = (char)letter;
        }
        memcpy(at, parts[2], (size_t)sizes[2]), at += sizes[2];
    }
    memcpy(at, parts[3], (size_t)sizes[3]);
    return body;
}
