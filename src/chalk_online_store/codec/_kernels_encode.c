/* Values to attributes and items: many values of one type to DynamoDB's JSON, item by item.

   `bulk.py` says what the bytes have to be. A value of another class, out of range or with anything
   special about it returns None, and the encoders in Python then encode or refuse it. */

#include "_kernels.h"
#include <datetime.h>

enum { KIND_MOMENT = 6, KIND_VECTOR = 7 }; /* Besides those of a column. */

typedef struct {
    int kind;
    PyObject *null;       /* The attribute of None; NULL if None is not plain. */
    PyObject *yes, *no;   /* The attributes of bools: one object each. */
    PyObject *array;      /* Of vectors: numpy's class, as a subclass can mask elements. */
    char format;          /* Of vectors: e, f or d, as in a buffer. */
    Py_ssize_t size;      /* Of vectors: elements. */
} Encoding;

static PyObject *attribute(const char *open, const char *text, Py_ssize_t size, const char *close) {
    Py_ssize_t before = (Py_ssize_t)strlen(open), after = (Py_ssize_t)strlen(close);
    PyObject *made = PyBytes_FromStringAndSize(NULL, before + size + after);
    if (!made) return NULL;
    char *at = PyBytes_AS_STRING(made);
    memcpy(at, open, (size_t)before);
    memcpy(at + before, text, (size_t)size);
    memcpy(at + before + size, close, (size_t)after);
    return made;
}

static PyObject *whole(int64_t value) {
    char buffer[21];
    const char *text = decimal(value, buffer);
    return attribute("{\"N\":\"", text, buffer + 21 - text, "\"}");
}

/* Lone surrogates have no UTF-8: then there is no text, and Python refuses the value. */
static PyObject *text(PyObject *value) {
    Py_ssize_t size;
    const char *utf8 = PyUnicode_AsUTF8AndSize(value, &size);
    if (!utf8) {
        if (PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) PyErr_Clear();
        return NULL;
    }
    for (Py_ssize_t i = 0; i < size; i++) {
        unsigned char letter = (unsigned char)utf8[i];
        if (letter < ' ' || letter == '"' || letter == '\\' || letter == 127) return NULL;
    }
    return attribute("{\"S\":\"", utf8, size, "\"}");
}

static PyObject *base64(const unsigned char *raw, Py_ssize_t size) {
    static const char LETTERS[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    static const char OPEN[] = "{\"B\":\"";
    Py_ssize_t encoded = (size + 2) / 3 * 4;
    if (size > PY_SSIZE_T_MAX / 2) return PyErr_NoMemory();
    PyObject *made = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)sizeof OPEN - 1 + encoded + 2);
    if (!made) return NULL;
    char *at = PyBytes_AS_STRING(made);
    memcpy(at, OPEN, sizeof OPEN - 1), at += sizeof OPEN - 1;
    Py_ssize_t i = 0;
    for (; i + 2 < size; i += 3, at += 4) {
        unsigned bits = (unsigned)raw[i] << 16 | (unsigned)raw[i + 1] << 8 | raw[i + 2];
        at[0] = LETTERS[bits >> 18], at[1] = LETTERS[bits >> 12 & 63];
        at[2] = LETTERS[bits >> 6 & 63], at[3] = LETTERS[bits & 63];
    }
    if (i < size) {
        int two = size - i == 2;
        unsigned bits = (unsigned)raw[i] << 16 | (two ? (unsigned)raw[i + 1] << 8 : 0);
        at[0] = LETTERS[bits >> 18], at[1] = LETTERS[bits >> 12 & 63];
        at[2] = two ? LETTERS[bits >> 6 & 63] : '=', at[3] = '=';
        at += 4;
    }
    at[0] = '"', at[1] = '}';
    return made;
}

static PyObject *vector(const Encoding *e, PyObject *value) {
    Py_buffer view;
    PyObject *made = NULL;
    if ((PyObject *)Py_TYPE(value) != e->array) return NULL;
    if (PyObject_GetBuffer(value, &view, PyBUF_FORMAT | PyBUF_C_CONTIGUOUS) < 0) {
        if (PyErr_ExceptionMatches(PyExc_ValueError) || PyErr_ExceptionMatches(PyExc_BufferError))
            PyErr_Clear(); /* Not contiguous. */
        return NULL;
    }
    if (PY_LITTLE_ENDIAN && view.ndim == 1 && view.shape[0] == e->size && view.format &&
        view.format[0] == e->format && !view.format[1])
        made = base64(view.buf, view.len);
    PyBuffer_Release(&view);
    return made;
}

/* Microseconds since 1970 of a datetime whose time zone is UTC itself. */
static int microseconds(PyObject *value, int64_t *found) {
    if (!PyDateTime_CheckExact(value) ||
        ((PyDateTime_DateTime *)value)->hastzinfo == 0 ||
        PyDateTime_DATE_GET_TZINFO(value) != PyDateTime_TimeZone_UTC)
        return 0;
    int year = PyDateTime_GET_YEAR(value), month = PyDateTime_GET_MONTH(value);
    int day = PyDateTime_GET_DAY(value);
    year -= month <= 2; /* Years begin in March, so that a leap day is the last of its year. */
    int era = year / 400, of_era = year - era * 400;
    int of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
    int64_t days = (int64_t)era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
    int64_t seconds = days * 86400 + PyDateTime_DATE_GET_HOUR(value) * 3600 +
                      PyDateTime_DATE_GET_MINUTE(value) * 60 + PyDateTime_DATE_GET_SECOND(value);
    *found = seconds * 1000000 + PyDateTime_DATE_GET_MICROSECOND(value);
    return 1;
}

/* The attribute of a value; NULL without an exception if it is not plain. */
static PyObject *encoded(const Encoding *e, PyObject *value) {
    if (value == Py_None) return e->null ? Py_NewRef(e->null) : NULL;
    int64_t number;
    int overflow;
    switch (e->kind) {
    case KIND_S: return PyUnicode_CheckExact(value) ? text(value) : NULL;
    case KIND_B:
        if (!PyBytes_CheckExact(value)) return NULL;
        return base64((unsigned char *)PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value));
    case KIND_BOOL:
        return PyBool_Check(value) ? Py_NewRef(value == Py_True ? e->yes : e->no) : NULL;
    case KIND_INT:
        if (!PyLong_CheckExact(value)) return NULL;
        number = PyLong_AsLongLongAndOverflow(value, &overflow);
        return overflow ? NULL : whole(number);
    case KIND_MOMENT: return microseconds(value, &number) ? whole(number) : NULL;
    case KIND_VECTOR: return vector(e, value);
    default: return NULL;
    }
}

/* encode(kind, values, null, yes, no, array, format, size): the attribute of each value, or None. */
PyObject *kernel_encode(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *values, *found = NULL;
    Encoding e;
    int format;
    if (!PyArg_ParseTuple(args, "iOOSSOCn", &e.kind, &values, &e.null, &e.yes, &e.no, &e.array,
                          &format, &e.size))
        return NULL;
    if (e.null == Py_None) e.null = NULL;
    e.format = (char)format;
    if (!PyDateTimeAPI) PyDateTime_IMPORT;
    if (!PyDateTimeAPI) return NULL;
    if (!PyList_CheckExact(values) && !PyTuple_CheckExact(values)) Py_RETURN_NONE;
    Py_ssize_t count = PySequence_Fast_GET_SIZE(values);
    if (!(found = PyList_New(count))) return NULL;
    for (Py_ssize_t i = 0; i < count; i++) {
        /* Nothing here runs Python code, which could change the list. */
        PyObject *made = encoded(&e, PySequence_Fast_GET_ITEM(values, i));
        if (!made) {
            Py_DECREF(found);
            if (PyErr_Occurred()) return NULL;
            Py_RETURN_NONE;
        }
        PyList_SET_ITEM(found, i, made);
    }
    return found;
}

/* cut(texts): the attributes of numbers that are an array in JSON. None if one of them is no
   number (NaN and infinities are null), is -0.0, or has an exponent of three digits. */
PyObject *kernel_cut(PyObject *Py_UNUSED(module), PyObject *texts) {
    if (!PyBytes_CheckExact(texts)) {
        PyErr_SetString(PyExc_TypeError, "expected bytes");
        return NULL;
    }
    const char *at = PyBytes_AS_STRING(texts), *end = at + PyBytes_GET_SIZE(texts);
    if (end - at < 2 || *at != '[' || end[-1] != ']') Py_RETURN_NONE;
    PyObject *found = PyList_New(0);
    for (at++, end--; found && at < end; at++) {
        const char *start = at, *exponent = NULL;
        for (; at < end && *at != ','; at++)
            if (*at == 'e') exponent = at + 1;
        Py_ssize_t size = at - start;
        if (exponent && (*exponent == '-' || *exponent == '+')) exponent++;
        /* A comma before the end is followed by no number. */
        int plain = size && at + 1 != end && ((*start >= '0' && *start <= '9') || *start == '-') &&
                    !(size == 4 && memcmp(start, "-0.0", 4) == 0) &&
                    !(exponent && at - exponent > 2);
        PyObject *made = plain ? attribute("{\"N\":\"", start, size, "\"}") : NULL;
        if (!made || PyList_Append(found, made) < 0) {
            Py_XDECREF(made);
            Py_CLEAR(found);
            if (!PyErr_Occurred()) Py_RETURN_NONE;
            break;
        }
        Py_DECREF(made);
    }
    return found;
}

/* render(parts, pk, sk, times, attributes): the values between the parts. None unless the keys are
   ASCII that JSON does not escape. */
PyObject *kernel_render(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *parts, *keys[2], *times, *attributes;
    if (!PyArg_ParseTuple(args, "O!UUO!O!", &PyTuple_Type, &parts, &keys[0], &keys[1],
                          &PyTuple_Type, &times, &PyTuple_Type, &attributes))
        return NULL;
    Py_ssize_t moments = PyTuple_GET_SIZE(times), count = PyTuple_GET_SIZE(attributes), total = 4;
    int fit = PyTuple_GET_SIZE(parts) == 2 + moments + count + 1 && moments <= 4;
    for (Py_ssize_t i = 0; fit && i < PyTuple_GET_SIZE(parts); i++) {
        PyObject *part = PyTuple_GET_ITEM(parts, i);
        fit = PyBytes_CheckExact(part);
        total += fit ? PyBytes_GET_SIZE(part) : 0;
    }
    for (Py_ssize_t i = 0; fit && i < count; i++) {
        PyObject *each = PyTuple_GET_ITEM(attributes, i);
        fit = PyBytes_CheckExact(each);
        total += fit ? PyBytes_GET_SIZE(each) : 0;
    }
    if (!fit) {
        PyErr_SetString(PyExc_ValueError, "the values do not fit the parts");
        return NULL;
    }
    for (int i = 0; i < 2; i++) {
        if (!PyUnicode_IS_COMPACT_ASCII(keys[i])) Py_RETURN_NONE;
        total += PyUnicode_GET_LENGTH(keys[i]);
    }
    char buffers[4][21];
    const char *texts[4];
    for (Py_ssize_t i = 0; i < moments; i++) {
        int overflow = 0;
        PyObject *time = PyTuple_GET_ITEM(times, i);
        if (!PyLong_CheckExact(time)) Py_RETURN_NONE;
        long long value = PyLong_AsLongLongAndOverflow(time, &overflow);
        if (overflow) Py_RETURN_NONE;
        texts[i] = decimal(value, buffers[i]);
        total += buffers[i] + 21 - texts[i];
    }
    PyObject *made = PyBytes_FromStringAndSize(NULL, total);
    if (!made) return NULL;
    char *at = PyBytes_AS_STRING(made);
    for (Py_ssize_t i = 0; i <= 2 + moments + count; i++) {
        PyObject *part = PyTuple_GET_ITEM(parts, i);
        memcpy(at, PyBytes_AS_STRING(part), (size_t)PyBytes_GET_SIZE(part));
        at += PyBytes_GET_SIZE(part);
        if (i < 2) {
            const unsigned char *key = PyUnicode_DATA(keys[i]);
            *at++ = '"';
            for (Py_ssize_t j = 0; j < PyUnicode_GET_LENGTH(keys[i]); j++) {
                if (key[j] < ' ' || key[j] == '"' || key[j] == '\\' || key[j] == 127) {
                    Py_DECREF(made);
                    Py_RETURN_NONE;
                }
                *at++ = (char)key[j];
            }
            *at++ = '"';
        } else if (i < 2 + moments) {
            Py_ssize_t size = buffers[i - 2] + 21 - texts[i - 2];
            memcpy(at, texts[i - 2], (size_t)size);
            at += size;
        } else if (i < 2 + moments + count) {
            PyObject *each = PyTuple_GET_ITEM(attributes, i - 2 - moments);
            memcpy(at, PyBytes_AS_STRING(each), (size_t)PyBytes_GET_SIZE(each));
            at += PyBytes_GET_SIZE(each);
        }
    }
    return made;
}
