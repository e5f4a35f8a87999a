/* Features of many items into one matrix of float32 or float64, with a matrix of statuses. */

#include "_kernels.h"

enum { HIT, NULL_VALUE, MISSING, STALE }; /* As in operations.matrix. */
enum { NUMBER, WHOLE, BOOLEAN, MOMENT, F2, F4, F8 };

/* One feature: its position in a row, its first column and its column of statuses. */
typedef struct {
    int kind;
    Py_ssize_t position, column, feature, size; /* `size` elements; 1 of a scalar. */
    int64_t staleness, low, high;                /* -1 for none. Moments are in low..high. */
    int64_t factor;                              /* A moment's value is multiplied by it, */
    double divisor;                              /* and then divided, which gives seconds. */
    PyObject *fallback;                          /* A float that is served in place of nothing. */
    int64_t oldest;                              /* What was observed before is stale. */
} Feature;

/* Features of one group, prepared for any number of reads. */
typedef struct {
    PyObject_HEAD
    PyObject *described; /* Owns the fallbacks. */
    Py_ssize_t count;
    Feature *features;
} Filler;

typedef struct {
    char *values;
    unsigned char *statuses;
    Py_ssize_t width, features; /* Columns of each of them. */
    int single;                 /* Whether the values are float32. */
    double missing;
} Target;

static inline void put(const Target *t, Py_ssize_t row, Py_ssize_t column, double value) {
    Py_ssize_t place = row * t->width + column;
    if (t->single) ((float *)t->values)[place] = (float)value;
    else ((double *)t->values)[place] = value;
}

static void put_nothing(const Target *t, const Feature *f, Py_ssize_t row, int status) {
    double value = t->missing;
    if (f->fallback && status != NULL_VALUE) value = PyFloat_AS_DOUBLE(f->fallback);
    t->statuses[row * t->features + f->feature] = (unsigned char)status;
    for (Py_ssize_t i = 0; i < f->size; i++) put(t, row, f->column + i, value);
}

static int put_whole(const Target *t, const Feature *f, Py_ssize_t row, int64_t value) {
    if (f->kind == MOMENT) {
        if (value < f->low || value > f->high) return 0;
        put(t, row, f->column, (double)(value * f->factor) / f->divisor);
    } else {
        put(t, row, f->column, (double)value);
    }
    return 1;
}

static int put_vector(const Target *t, const Feature *f, Py_ssize_t row, const char *bytes,
                      Py_ssize_t size) {
    static const Py_ssize_t SIZES[] = {2, 4, 8};
    Py_ssize_t each = SIZES[f->kind - F2];
    if (f->kind < F2 || size != f->size * each) return 0;
    if (f->kind == F4 && t->single && PY_LITTLE_ENDIAN) {
        memcpy((float *)t->values + row * t->width + f->column, bytes, (size_t)size);
        return 1;
    }
    for (Py_ssize_t i = 0; i < f->size; i++, bytes += each) {
        double value = f->kind == F2   ? PyFloat_Unpack2(bytes, 1)
                       : f->kind == F4 ? PyFloat_Unpack4(bytes, 1)
                                       : PyFloat_Unpack8(bytes, 1);
        put(t, row, f->column + i, value);
    }
    return 1;
}

static int fill_cell(const Target *t, const Feature *feature, const Frame *f, Py_ssize_t row) {
    Py_ssize_t item = frame_item(f, row), cell = item * f->width + feature->position;
    int state = item < 0 ? ABSENT : f->states[cell] & STATE;
    if (state == ABSENT) return put_nothing(t, feature, row, MISSING), 1;
    if (frame_time(f, item, cell) < feature->oldest) return put_nothing(t, feature, row, STALE), 1;
    if (state == NIL) return put_nothing(t, feature, row, NULL_VALUE), 1;
    if (state != PLAIN) return 0;
    const Cell *c = &f->cells[cell];
    t->statuses[row * t->features + feature->feature] = HIT;
    switch (f->kinds[feature->position]) {
    case KIND_FLOAT: return feature->kind == NUMBER && (put(t, row, feature->column, c->real), 1);
    case KIND_INT:
        return (feature->kind == WHOLE || feature->kind == MOMENT) &&
               put_whole(t, feature, row, c->whole);
    case KIND_BOOL: return feature->kind == BOOLEAN && put_whole(t, feature, row, c->whole);
    case KIND_B:
        return feature->kind >= F2 &&
               put_vector(t, feature, row, (char *)f->arena + c->span.start, c->span.size);
    default: return 0;
    }
}

/* The same of a row tuple; None for an absent item. */
static int fill_value(const Target *t, const Feature *feature, PyObject *found, Py_ssize_t row) {
    if (found == Py_None) return put_nothing(t, feature, row, MISSING), 1;
    if (!PyTuple_CheckExact(found) || PyTuple_GET_SIZE(found) <= VALUES + feature->position)
        return 0; /* An error, or a row with damage. */
    PyObject *value = PyTuple_GET_ITEM(found, VALUES + feature->position);
    PyObject *times = PyTuple_GET_ITEM(found, TIMES), *time = PyTuple_GET_ITEM(found, LATEST);
    if (times != Py_None) {
        if (!PyTuple_CheckExact(times) || PyTuple_GET_SIZE(times) <= feature->position) return 0;
        time = PyTuple_GET_ITEM(times, feature->position);
        if (time == Py_None) return put_nothing(t, feature, row, MISSING), 1;
    }
    if (feature->oldest != INT64_MIN) {
        if (!PyLong_CheckExact(time)) return 0;
        int overflow;
        long long at = PyLong_AsLongLongAndOverflow(time, &overflow);
        if (overflow) return 0;
        if (at < feature->oldest) return put_nothing(t, feature, row, STALE), 1;
    }
    if (value == Py_None) return put_nothing(t, feature, row, NULL_VALUE), 1;
    t->statuses[row * t->features + feature->feature] = HIT;
    if (feature->kind == NUMBER)
        return PyFloat_CheckExact(value) &&
               (put(t, row, feature->column, PyFloat_AS_DOUBLE(value)), 1);
    if (feature->kind == BOOLEAN)
        return PyBool_Check(value) && put_whole(t, feature, row, value == Py_True);
    if (feature->kind >= F2)
        return PyBytes_CheckExact(value) && put_vector(t, feature, row, PyBytes_AS_STRING(value),
                                                       PyBytes_GET_SIZE(value));
    if (!PyLong_CheckExact(value)) return 0;
    int overflow;
    long long whole = PyLong_AsLongLongAndOverflow(value, &overflow);
    return !overflow && put_whole(t, feature, row, whole);
}

static int fill_rows(const Target *t, const Feature *features, Py_ssize_t count, PyObject *found,
                     Py_ssize_t rows) {
    for (Py_ssize_t i = 0; i < count; i++) {
        if (Py_TYPE(found) == &Frame_Type) {
            const Frame *f = (Frame *)found;
            if (features[i].position >= f->width) return 0;
            for (Py_ssize_t row = 0; row < rows; row++)
                if (!fill_cell(t, &features[i], f, row)) return 0;
        } else {
            for (Py_ssize_t row = 0; row < rows; row++)
                if (!fill_value(t, &features[i], PyList_GET_ITEM(found, row), row)) return 0;
        }
    }
    return 1;
}

/* --- The filler object ----------------------------------------------------------------------- */

static PyObject *fill(Filler *filler, PyObject *args) {
    PyObject *found, *done = NULL;
    Py_buffer values, statuses;
    long long now;
    Target t;
    if (!PyArg_ParseTuple(args, "OLw*w*d", &found, &now, &values, &statuses, &t.missing))
        return NULL;
    Py_ssize_t rows = Py_TYPE(found) == &Frame_Type ? ((Frame *)found)->size
                      : PyList_CheckExact(found)    ? PyList_GET_SIZE(found)
                                                    : -1;
    t.single = values.itemsize == 4;
    t.width = rows > 0 ? values.len / values.itemsize / rows : 0;
    t.features = rows > 0 ? statuses.len / rows : 0;
    t.values = values.buf, t.statuses = statuses.buf;
    int fit = rows >= 0 && (t.single || values.itemsize == 8);
    /* The features are copied: another thread may fill by them at another time. */
    Feature *features = PyMem_Malloc(sizeof *features * (size_t)filler->count + 1);
    if (!features) {
        PyErr_NoMemory();
        goto end;
    }
    for (Py_ssize_t i = 0; i < filler->count; i++) {
        Feature *f = &features[i];
        *f = filler->features[i];
        if (f->staleness < 0 || __builtin_sub_overflow(now, f->staleness, &f->oldest))
            f->oldest = INT64_MIN;
        fit &= !rows || (f->column + f->size <= t.width && f->feature < t.features);
    }
    if (!fit) PyErr_SetString(PyExc_ValueError, "the matrices do not fit");
    else done = PyBool_FromLong(fill_rows(&t, features, filler->count, found, rows));
    PyMem_Free(features);
end:
    PyBuffer_Release(&values);
    PyBuffer_Release(&statuses);
    return done;
}

static PyObject *filler_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs)) {
    PyObject *described;
    if (!PyArg_ParseTuple(args, "O!", &PyTuple_Type, &described)) return NULL;
    Filler *filler = (Filler *)type->tp_alloc(type, 0);
    if (!filler) return NULL;
    filler->count = PyTuple_GET_SIZE(described);
    filler->described = Py_NewRef(described);
    filler->features = PyMem_Calloc((size_t)filler->count + 1, sizeof(Feature));
    if (!filler->features) {
        PyErr_NoMemory();
        goto failed;
    }
    for (Py_ssize_t i = 0; i < filler->count; i++) {
        Feature *f = &filler->features[i];
        long long staleness, low, high, factor;
        PyObject *each = PyTuple_GET_ITEM(described, i);
        if (!PyTuple_Check(each)) {
            PyErr_SetString(PyExc_TypeError, "a feature is a tuple");
            goto failed;
        }
        if (!PyArg_ParseTuple(each, "innnnLLLLdO", &f->kind, &f->position, &f->column, &f->feature,
                              &f->size, &staleness, &low, &high, &factor, &f->divisor,
                              &f->fallback))
            goto failed;
        f->staleness = staleness, f->low = low, f->high = high, f->factor = factor;
        if (f->fallback == Py_None) f->fallback = NULL;
        if (f->kind < NUMBER || f->kind > F8 || f->position < 0 || f->column < 0 ||
            f->feature < 0 || f->size < 1 || (f->size > 1 && f->kind < F2) ||
            f->size > INT32_MAX || f->column > INT32_MAX ||
            (f->fallback && !PyFloat_CheckExact(f->fallback))) {
            PyErr_SetString(PyExc_ValueError, "a feature that no matrix has");
            goto failed;
        }
    }
    return (PyObject *)filler;
failed:
    Py_DECREF(filler);
    return NULL;
}

static void filler_dealloc(Filler *filler) {
    Py_XDECREF(filler->described);
    PyMem_Free(filler->features);
    Py_TYPE(filler)->tp_free((PyObject *)filler);
}

static PyMethodDef filler_methods[] = {{"fill", (PyCFunction)fill, METH_VARARGS, NULL}, {0}};

PyTypeObject Filler_Type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "chalk_online_store.codec._kernels.Filler",
    .tp_basicsize = sizeof(Filler),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = filler_new,
    .tp_dealloc = (destructor)filler_dealloc,
    .tp_methods = filler_methods,
};
