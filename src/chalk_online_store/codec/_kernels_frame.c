/* Frames: the items of a response by the position of their keys, as rows, columns or dicts. */

#include "_kernels.h"
#include <datetime.h>

Frame *frame_new(PyObject *body, Py_ssize_t width, const unsigned char *kinds) {
    Frame *f = PyObject_GC_New(Frame, &Frame_Type);
    if (!f) return NULL;
    memset((char *)f + sizeof(PyObject), 0, sizeof *f - sizeof(PyObject));
    f->body = Py_NewRef(body), f->width = width;
    f->kinds = PyMem_Malloc((size_t)width + 1);
    if (!f->kinds) {
        Py_DECREF(f);
        PyErr_NoMemory();
        return NULL;
    }
    memcpy(f->kinds, kinds, (size_t)width);
    return f;
}

static int grow(void *array, size_t each, Py_ssize_t count) {
    void **place = array, *grown = PyMem_Realloc(*place, each * (size_t)count + 1);
    if (!grown) return PyErr_NoMemory(), -1;
    *place = grown;
    return 0;
}

int frame_grow(Frame *f, Py_ssize_t capacity) {
    Py_ssize_t cells = capacity * f->width, before = f->capacity * f->width;
    if (grow(&f->items, sizeof *f->items, capacity) < 0 ||
        grow(&f->cells, sizeof *f->cells, cells) < 0 ||
        grow(&f->states, sizeof *f->states, cells) < 0 ||
        (f->own && grow(&f->own, sizeof *f->own, cells) < 0))
        return -1;
    if (f->own) memset(f->own + before, 0, (size_t)(cells - before) * sizeof *f->own);
    f->capacity = capacity;
    return 0;
}

static int frame_traverse(Frame *f, visitproc visit, void *arg) {
    for (Py_ssize_t i = 0; f->references && i < f->count * f->width; i++)
        if ((f->states[i] & STATE) == OBJECT) Py_VISIT(f->cells[i].object);
    for (Py_ssize_t i = 0; f->rows && i < f->size; i++) Py_VISIT(f->rows[i]);
    return 0;
}

static void drop_rows(Frame *f) {
    PyObject **rows = f->rows;
    f->rows = NULL;
    for (Py_ssize_t i = 0; rows && i < f->size; i++) Py_XDECREF(rows[i]);
    PyMem_Free(rows);
}

static int frame_clear(Frame *f) {
    drop_rows(f);
    for (Py_ssize_t i = 0; f->references && i < f->count * f->width; i++)
        if ((f->states[i] & STATE) == OBJECT) {
            f->states[i] = NIL;
            Py_CLEAR(f->cells[i].object);
        }
    return 0;
}

static void frame_dealloc(Frame *f) {
    PyObject_GC_UnTrack(f);
    frame_clear(f);
    Py_XDECREF(f->body);
    PyMem_Free(f->kinds);
    PyMem_Free(f->items);
    PyMem_Free(f->cells);
    PyMem_Free(f->states);
    PyMem_Free(f->own);
    PyMem_Free(f->arena);
    PyMem_Free(f->order);
    PyObject_GC_Del(f);
}

/* --- Keys ------------------------------------------------------------------------------------ */

typedef struct { const char *text; Py_ssize_t size; } Text;

static inline int equals(const Frame *f, Span span, Text text) {
    return span.size == text.size &&
           memcmp(PyBytes_AS_STRING(f->body) + span.start, text.text, span.size) == 0;
}

static inline size_t hash_of(const char *text, Py_ssize_t size) { /* FNV-1a. */
    uint64_t hash = 14695981039346656037ULL;
    for (Py_ssize_t i = 0; i < size; i++) hash = (hash ^ (unsigned char)text[i]) * 1099511628211ULL;
    return (size_t)(hash ^ hash >> 32);
}

static inline int text_of(PyObject *str, Text *text) {
    if (PyUnicode_Check(str) && PyUnicode_IS_COMPACT_ASCII(str)) {
        text->text = (const char *)PyUnicode_DATA(str), text->size = PyUnicode_GET_LENGTH(str);
        return 1;
    }
    text->text = PyUnicode_AsUTF8AndSize(str, &text->size);
    return text->text != NULL;
}

/* Positions of keys by their text: open addressing, twice as many places as keys or more. */
static int32_t *table_of(const Text *texts, Py_ssize_t count, size_t *mask) {
    size_t places = 4;
    while (places < 2 * (size_t)count) places *= 2;
    int32_t *table = PyMem_Malloc(places * sizeof *table);
    if (!table) return (int32_t *)PyErr_NoMemory();
    memset(table, -1, places * sizeof *table);
    *mask = places - 1;
    for (Py_ssize_t i = 0; i < count; i++) {
        size_t place = hash_of(texts[i].text, texts[i].size) & *mask;
        while (table[place] >= 0) place = (place + 1) & *mask;
        table[place] = (int32_t)i;
    }
    return table;
}

static PyObject *place(Frame *f, PyObject *args) {
    PyObject *pks, *sk, *placed = NULL;
    Text sort_key, *texts = NULL;
    int32_t *order = NULL, *table = NULL;
    size_t mask = 0;
    if (!PyArg_ParseTuple(args, "OU", &pks, &sk) || !text_of(sk, &sort_key)) return NULL;
    PyObject *fast = PySequence_Fast(pks, "expected a sequence of str");
    if (!fast) return NULL;
    Py_ssize_t count = PySequence_Fast_GET_SIZE(fast), next = 0, item;
    texts = PyMem_Malloc(sizeof *texts * (size_t)count + 1);
    order = PyMem_Malloc(sizeof *order * (size_t)count + 1);
    if (!texts || !order || count > INT32_MAX / 4) {
        PyErr_NoMemory();
        goto done;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        order[i] = -1;
        if (!text_of(PySequence_Fast_GET_ITEM(fast, i), &texts[i])) goto done;
    }
    for (item = 0; item < f->count; item++) {
        Span pk = f->items[item].pk;
        const char *text = PyBytes_AS_STRING(f->body) + pk.start;
        if (!equals(f, f->items[item].sk, sort_key)) break;
        /* Engines often return items in the order of the request. */
        Py_ssize_t at = next < count && equals(f, pk, texts[next]) ? next : -1;
        if (at < 0) {
            if (!table && !(table = table_of(texts, count, &mask))) goto done;
            size_t probe = hash_of(text, pk.size) & mask;
            while (table[probe] >= 0 && !equals(f, pk, texts[table[probe]]))
                probe = (probe + 1) & mask;
            at = table[probe];
        }
        if (at < 0 || order[at] >= 0) break; /* It was not requested, or comes twice. */
        order[at] = (int32_t)item;
        next = at + 1;
    }
    if (item == f->count) {
        drop_rows(f);
        PyMem_Free(f->order);
        f->order = order, f->size = count;
        order = NULL;
    }
    placed = PyBool_FromLong(item == f->count);
done:
    PyMem_Free(texts);
    PyMem_Free(order);
    PyMem_Free(table);
    Py_DECREF(fast);
    return placed;
}

/* --- Objects --------------------------------------------------------------------------------- */

static PyObject *text_object(const Frame *f, Span span) {
    return PyUnicode_DecodeUTF8(PyBytes_AS_STRING(f->body) + span.start, span.size, NULL);
}

/* The content of a cell, as it is in a row. */
static inline PyObject *content(const Frame *f, Py_ssize_t cell, int kind) {
    switch (f->states[cell] & STATE) {
    case PLAIN: break;
    case OBJECT: return Py_NewRef(f->cells[cell].object);
    default: Py_RETURN_NONE;
    }
    const Cell *c = &f->cells[cell];
    switch (kind) {
    case KIND_S: return text_object(f, c->span);
    case KIND_B: return PyBytes_FromStringAndSize((char *)f->arena + c->span.start, c->span.size);
    case KIND_BOOL: return PyBool_FromLong((long)c->whole);
    case KIND_INT: return PyLong_FromLongLong(c->whole);
    default: return PyFloat_FromDouble(c->real);
    }
}

static PyObject *time_object(const Frame *f, Py_ssize_t item, Py_ssize_t cell) {
    if ((f->states[cell] & STATE) == ABSENT) Py_RETURN_NONE;
    return PyLong_FromLongLong(frame_time(f, item, cell));
}

static PyObject *row_of(const Frame *f, Py_ssize_t item) {
    const Item *at = &f->items[item];
    Py_ssize_t first = item * f->width;
    PyObject *row = PyTuple_New(VALUES + f->width);
    if (!row) return NULL;
    PyObject *times = at->has_times ? PyTuple_New(f->width) : Py_NewRef(Py_None);
    PyTuple_SET_ITEM(row, PK, text_object(f, at->pk));
    PyTuple_SET_ITEM(row, SK, text_object(f, at->sk));
    PyTuple_SET_ITEM(row, LATEST, PyLong_FromLongLong(at->latest));
    PyTuple_SET_ITEM(row, TIMES, times);
    int failed = !times || PyErr_Occurred();
    for (Py_ssize_t i = 0; i < f->width && !failed; i++) {
        PyObject *value = content(f, first + i, f->kinds[i]);
        PyTuple_SET_ITEM(row, VALUES + i, value);
        failed = !value;
        if (at->has_times && !failed) {
            PyObject *time = time_object(f, item, first + i);
            PyTuple_SET_ITEM(times, i, time);
            failed = !time;
        }
    }
    if (failed) {
        Py_DECREF(row);
        return NULL;
    }
    if (!f->holds_objects) { /* A tuple of atoms cannot be in a cycle. */
        PyObject_GC_UnTrack(row);
        if (times != Py_None && f->width) PyObject_GC_UnTrack(times);
    }
    return row;
}

static Py_ssize_t frame_length(Frame *f) { return f->size; }

static PyObject *frame_get(Frame *f, Py_ssize_t position) {
    if (position < 0 || position >= f->size) {
        PyErr_SetString(PyExc_IndexError, "position out of range");
        return NULL;
    }
    Py_ssize_t item = frame_item(f, position);
    if (item < 0) Py_RETURN_NONE;
    if (!f->rows && !(f->rows = PyMem_Calloc((size_t)f->size, sizeof *f->rows)))
        return PyErr_NoMemory();
    if (!f->rows[position] && !(f->rows[position] = row_of(f, item))) return NULL;
    return Py_NewRef(f->rows[position]);
}

/* --- Columns --------------------------------------------------------------------------------- */

static int check_column(const Frame *f, Py_ssize_t column) {
    if (0 <= column && column < f->width) return 1;
    PyErr_SetString(PyExc_IndexError, "column out of range");
    return 0;
}

static PyObject *contents_of(Frame *f, Py_ssize_t column) {
    PyObject *list = PyList_New(f->size);
    int kind = f->kinds[column];
    for (Py_ssize_t i = 0; list && i < f->size; i++) {
        Py_ssize_t item = frame_item(f, i);
        PyObject *found = item < 0 ? Py_NewRef(Py_None) : content(f, item * f->width + column, kind);
        PyList_SET_ITEM(list, i, found);
        if (!found) Py_CLEAR(list);
    }
    return list;
}

static PyObject *frame_contents(Frame *f, PyObject *arg) {
    Py_ssize_t column = PyLong_AsSsize_t(arg);
    if (PyErr_Occurred() || !check_column(f, column)) return NULL;
    return contents_of(f, column);
}

static PyObject *frame_times(Frame *f, PyObject *arg) {
    Py_ssize_t column = PyLong_AsSsize_t(arg);
    if (PyErr_Occurred() || !check_column(f, column)) return NULL;
    PyObject *list = PyList_New(f->size);
    for (Py_ssize_t i = 0; list && i < f->size; i++) {
        Py_ssize_t item = frame_item(f, i);
        PyObject *time = item < 0 ? Py_NewRef(Py_None)
                                  : time_object(f, item, item * f->width + column);
        PyList_SET_ITEM(list, i, time);
        if (!time) Py_CLEAR(list);
    }
    return list;
}

/* The bytes of a column one after the other; None unless each value has `size` bytes. */
static PyObject *frame_block(Frame *f, PyObject *args) {
    Py_ssize_t column, size;
    if (!PyArg_ParseTuple(args, "nn", &column, &size) || !check_column(f, column)) return NULL;
    if (f->kinds[column] != KIND_B || size <= 0) Py_RETURN_NONE;
    PyObject *block = PyBytes_FromStringAndSize(NULL, f->size * size);
    for (Py_ssize_t i = 0; block && i < f->size; i++) {
        Py_ssize_t item = frame_item(f, i), cell = item * f->width + column;
        if (item < 0 || (f->states[cell] & STATE) != PLAIN || f->cells[cell].span.size != size) {
            Py_DECREF(block);
            Py_RETURN_NONE;
        }
        memcpy(PyBytes_AS_STRING(block) + i * size, f->arena + f->cells[cell].span.start,
               (size_t)size);
    }
    return block;
}

/* --- Moments --------------------------------------------------------------------------------- */

enum { FIRST_DAY = -719162, LAST_DAY = 2932896 }; /* 0001-01-01 and 9999-12-31, from 1970. */

/* A datetime of microseconds since 1970, in UTC; NULL without an exception if out of range. */
static PyObject *moment(int64_t at) {
    const int64_t day_us = 86400000000LL;
    int64_t day = at / day_us - (at % day_us < 0), us = at % day_us;
    if (us < 0) us += day_us;
    if (day < FIRST_DAY || day > LAST_DAY) return NULL;
    /* Civil date from days: years begin in March, so that a leap day is the last of its year. */
    int shifted = (int)day + 719468, era = (shifted >= 0 ? shifted : shifted - 146096) / 146097;
    int of_era = shifted - era * 146097;
    int year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int of_year = of_era - (365 * year + year / 4 - year / 100);
    int month = (5 * of_year + 2) / 153, of_month = of_year - (153 * month + 2) / 5 + 1;
    month += month < 10 ? 3 : -9;
    year += era * 400 + (month <= 2);
    int second = (int)(us / 1000000);
    return PyDateTimeAPI->DateTime_FromDateAndTime(
        year, month, of_month, second / 3600, second / 60 % 60, second % 60, (int)(us % 1000000),
        PyDateTime_TimeZone_UTC, PyDateTimeAPI->DateTimeType);
}

/* A column of datetimes; None if one of them is not plain or out of range. */
static PyObject *moments_of(Frame *f, Py_ssize_t column) {
    if (f->kinds[column] != KIND_INT) Py_RETURN_NONE;
    PyObject *list = PyList_New(f->size);
    for (Py_ssize_t i = 0; list && i < f->size; i++) {
        Py_ssize_t item = frame_item(f, i), cell = item * f->width + column;
        int state = item < 0 ? ABSENT : f->states[cell] & STATE;
        PyObject *found = NULL;
        if (state == PLAIN) found = moment(f->cells[cell].whole);
        else if (state != OBJECT) found = Py_NewRef(Py_None);
        PyList_SET_ITEM(list, i, found);
        if (!found) {
            Py_DECREF(list);
            if (PyErr_Occurred()) return NULL;
            Py_RETURN_NONE;
        }
    }
    return list;
}

static PyObject *frame_moments(Frame *f, PyObject *arg) {
    Py_ssize_t column = PyLong_AsSsize_t(arg);
    if (PyErr_Occurred() || !check_column(f, column)) return NULL;
    if (!PyDateTimeAPI) PyDateTime_IMPORT;
    return PyDateTimeAPI ? moments_of(f, column) : NULL;
}

/* --- Attributes ------------------------------------------------------------------------------ */

static PyObject *frame_has_times(Frame *f, void *Py_UNUSED(closure)) {
    int found = 0;
    for (Py_ssize_t i = 0; i < f->size && !found; i++) {
        Py_ssize_t item = frame_item(f, i);
        found = item < 0 || f->items[item].has_times;
    }
    return PyBool_FromLong(found);
}

static PyObject *frame_oldest(Frame *f, void *Py_UNUSED(closure)) {
    int64_t oldest = INT64_MAX;
    int some = 0;
    for (Py_ssize_t i = 0; i < f->count; i++) {
        const Item *at = &f->items[i];
        if (at->latest < oldest) oldest = at->latest;
        some = 1;
        for (Py_ssize_t cell = i * f->width; at->has_times && cell < (i + 1) * f->width; cell++) {
            if ((f->states[cell] & STATE) == ABSENT) continue;
            int64_t time = frame_time(f, i, cell);
            if (time < oldest) oldest = time;
        }
    }
    if (!some) Py_RETURN_NONE;
    return PyLong_FromLongLong(oldest);
}

static PyObject *frame_present(Frame *f, void *Py_UNUSED(closure)) {
    return PyLong_FromSsize_t(f->count);
}

/* Most callers count None, the rows of keys without an item. */
static PyObject *frame_count(Frame *f, PyObject *value) {
    Py_ssize_t found = value == Py_None ? f->size - f->count : PySequence_Count((PyObject *)f, value);
    return found < 0 ? NULL : PyLong_FromSsize_t(found);
}

static PyMethodDef frame_methods[] = {
    {"count", (PyCFunction)frame_count, METH_O, NULL},
    {"place", (PyCFunction)place, METH_VARARGS, NULL},
    {"contents", (PyCFunction)frame_contents, METH_O, NULL},
    {"times", (PyCFunction)frame_times, METH_O, NULL},
    {"block", (PyCFunction)frame_block, METH_VARARGS, NULL},
    {"moments", (PyCFunction)frame_moments, METH_O, NULL},
    {0}};

static PyGetSetDef frame_attributes[] = {
    {"has_times", (getter)frame_has_times, NULL, NULL, NULL},
    {"oldest", (getter)frame_oldest, NULL, NULL, NULL},
    {"present", (getter)frame_present, NULL, NULL, NULL},
    {0}};

static PySequenceMethods frame_sequence = {.sq_length = (lenfunc)frame_length,
                                           .sq_item = (ssizeargfunc)frame_get};

PyTypeObject Frame_Type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "chalk_online_store.codec._kernels.Frame",
    .tp_basicsize = sizeof(Frame),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_SEQUENCE,
    .tp_dealloc = (destructor)frame_dealloc,
    .tp_traverse = (traverseproc)frame_traverse,
    .tp_clear = (inquiry)frame_clear,
    .tp_as_sequence = &frame_sequence,
    .tp_methods = frame_methods,
    .tp_getset = frame_attributes,
};

/* --- Rows as dicts --------------------------------------------------------------------------- */

/* dicts(names, columns, count): a dict for each position, of the columns' values by name. */
PyObject *kernel_dicts(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *names, *columns;
    Py_ssize_t count;
    if (!PyArg_ParseTuple(args, "O!O!n", &PyTuple_Type, &names, &PyTuple_Type, &columns, &count))
        return NULL;
    Py_ssize_t width = PyTuple_GET_SIZE(names);
    int fit = PyTuple_GET_SIZE(columns) == width && count >= 0;
    for (Py_ssize_t i = 0; fit && i < width; i++) {
        PyObject *column = PyTuple_GET_ITEM(columns, i);
        fit = PyList_CheckExact(column) && PyList_GET_SIZE(column) == count;
    }
    if (!fit) {
        PyErr_SetString(PyExc_ValueError, "expected a list of so many values for each name");
        return NULL;
    }
    PyObject *blank = PyDict_New(), *rows = PyList_New(count);
    for (Py_ssize_t i = 0; blank && i < width; i++)
        if (PyDict_SetItem(blank, PyTuple_GET_ITEM(names, i), Py_None) < 0) Py_CLEAR(blank);
    for (Py_ssize_t nth = 0; blank && rows && nth < count; nth++) {
        PyObject *row = PyDict_Copy(blank); /* The keys' table is copied in one piece. */
        PyList_SET_ITEM(rows, nth, row);
        for (Py_ssize_t i = 0; row && i < width; i++) {
            PyObject *value = PyList_GET_ITEM(PyTuple_GET_ITEM(columns, i), nth);
            if (PyDict_SetItem(row, PyTuple_GET_ITEM(names, i), value) < 0) row = NULL;
        }
        if (!row) Py_CLEAR(rows);
    }
    if (!blank) Py_CLEAR(rows);
    Py_XDECREF(blank);
    return rows;
}
