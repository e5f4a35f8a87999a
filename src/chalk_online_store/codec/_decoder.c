/* Read answers to rows: DynamoDB's JSON into tuples, with no object in between.

   `_decoder.pyi` says what comes in and goes out. Whatever this is not sure of is a ValueError,
   and the decoder in Python, of which this is a short cut, then decides. A NUL follows the last
   byte of a body, and no token goes on over a NUL: looking one character ahead needs no check. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <float.h>

enum { PK, SK, LATEST, TIMES, VALUES }; /* Places in a row. An item's base waits in TIMES. */
enum { DIGITS = 19 };                   /* So many always fit into 64 bits. */
typedef struct Cursor Cursor;
typedef PyObject *Convert(Cursor *);
typedef struct { const char *start; Py_ssize_t size; int escaped; } Span;
typedef struct { const char *start; uint64_t value; Py_ssize_t count, places; int minus; } Number;

/* How a member of an item begins, "a": and what makes a value of its attribute: `plain`, or else
   `read`. What nobody asked for has neither. */
typedef struct { const char *start; Py_ssize_t size, place; Convert *plain; PyObject *read; } Head;

struct Cursor {
    const char *at, *end, *cut, *resume; /* What the items hold lies from cut to resume. */
    PyObject *attributes, *rows;
    PyObject **found; /* In an item, by place: what makes the row, then each value's own time. */
    Head *heads;      /* Those of the first item: most others have the same, in the same order. */
    Py_ssize_t width, places, known, nth; /* The nth of the known heads is to be expected next. */
    int seen, others;
};

/* --- Tokens: whether one was there --------------------------------------------------------- */

static inline int token(Cursor *c, const char *text) {
    const char *p = c->at;
    while (*text && *p == *text) p++, text++;
    return !*text && (c->at = p);
}

/* An object or array, each part of which `part` reads. */
static inline int each(Cursor *c, const char *open, const char *close, int (*part)(Cursor *)) {
    if (!token(c, open)) return 0;
    if (token(c, close)) return 1;
    do {
        if (!part(c)) return 0;
    } while (token(c, ","));
    return token(c, close);
}

/* Neither escapes nor UTF-8 matter before an object is made of it. */
static inline int string(Cursor *c, Span *s) {
    if (!token(c, "\"")) return 0;
    const char *p = s->start = c->at;
    for (s->escaped = 0; *p != '"'; p++) {
        if (*p == '\\') s->escaped = 1, p++;
        if ((unsigned char)*p < ' ') return 0;
    }
    s->size = p - s->start;
    c->at = p + 1;
    return 1;
}

static inline int key(Cursor *c, Span *s) { return string(c, s) && token(c, ":"); }

static inline const char *digits(const char *p, uint64_t *value) {
    for (; '0' <= *p && *p <= '9'; p++) *value = *value * 10 + (*p - '0');
    return p;
}

/* As N, value / 10**places, of `count` digits: of more than 19, the value has wrapped. */
static inline int number(Cursor *c, Number *n) {
    if (!token(c, "{\"N\":\"")) return 0;
    const char *first = c->at + (*c->at == '-'), *p;
    *n = (Number){.start = c->at, .minus = *c->at == '-'};
    p = digits(first, &n->value);
    n->count = p - first;
    if (!n->count || (*first == '0' && n->count > 1)) return 0;
    if (*p == '.') {
        c->at = p + 1;
        p = digits(c->at, &n->value);
        n->count += n->places = p - c->at;
        if (!n->places) return 0;
        for (; *first == '0' || *first == '.'; first++) n->count -= *first == '0';
    }
    c->at = p;
    return token(c, "\"");
}

static int skip(Cursor *c);
static int skip_member(Cursor *c) {
    Span name;
    return key(c, &name) && skip(c);
}

/* Over any one value. Words and numbers are not looked into. */
static int skip(Cursor *c) {
    Span s;
    size_t plain = strspn(c->at, "+-.0123456789Eaeflnrstu");
    c->at += plain;
    if (plain || *c->at == '"') return plain || string(c, &s);
    if (Py_EnterRecursiveCall(" in JSON")) return 0;
    int done = *c->at == '{' ? each(c, "{", "}", skip_member) : each(c, "[", "]", skip);
    Py_LeaveRecursiveCall();
    return done;
}

/* --- Values: a new reference; or NULL, with or without an exception ------------------------ */

static PyObject *boolean(Cursor *c) {
    if (token(c, "{\"BOOL\":true")) return Py_NewRef(Py_True);
    return token(c, "{\"BOOL\":false") ? Py_NewRef(Py_False) : NULL;
}

static PyObject *text(Cursor *c) {
    Span s;
    if (!token(c, "{\"S\":") || !string(c, &s) || s.escaped) return NULL;
    return PyUnicode_DecodeUTF8(s.start, s.size, NULL);
}

static PyObject *whole(Cursor *c) {
    Number n;
    if (!number(c, &n) || n.places || n.count > DIGITS || n.value > LLONG_MAX) return NULL;
    return PyLong_FromLongLong(n.minus ? -(long long)n.value : (long long)n.value);
}

static inline double rounded(const Number *n) {
    static const double TENS[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                  1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                  1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    if (n->count <= DIGITS && n->places <= 22) {
        if (n->value < 1ULL << 53) return n->value / TENS[n->places]; /* Both exact. */
        /* Rounded twice, which is right if all that is so near makes the same double. */
        long double near = n->value / (long double)TENS[n->places];
        double low = near * (1 - LDBL_EPSILON), high = near * (1 + LDBL_EPSILON);
        if (LDBL_MANT_DIG == 64 && low == high) return low;
    }
    char *end;
    return PyOS_string_to_double(n->start + n->minus, &end, NULL);
}

/* Not infinity, which Python's decoder refuses, and not -0, of which it loses the sign. */
static PyObject *real(Cursor *c) {
    Number n;
    if (!number(c, &n)) return NULL;
    double x = rounded(&n);
    if (x < 0 || x > DBL_MAX || (x == 0 && n.minus)) return NULL;
    return PyFloat_FromDouble(n.minus ? -x : x);
}

static const signed char SEXTET[256] = { /* base64: one more than the value; 0 for no letter. */
    ['A'] = 1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22,
    23, 24, 25, 26, ['a'] = 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44,
    45, 46, 47, 48, 49, 50, 51, 52, ['0'] = 53, 54, 55, 56, 57, 58, 59, 60, 61, 62,
    ['+'] = 63, ['/'] = 64, ['='] = 1}; /* That becomes all bits set. */
static inline unsigned sextet(char letter) { return SEXTET[(unsigned char)letter] - 1; }

/* Canonical base64: padded, the padding at the end alone, and no bits set that make no byte. */
static PyObject *binary(Cursor *c) {
    if (!token(c, "{\"B\":\"")) return NULL;
    const char *p = c->at, *stop = memchr(p, '"', c->end - p);
    Py_ssize_t size = stop ? stop - p : 1;
    int padding = size < 4 || stop[-1] != '=' ? 0 : stop[-2] != '=' ? 1 : 2;
    if (size % 4 || memchr(p, '=', size - padding)) return NULL;
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, size / 4 * 3);
    if (!bytes) return NULL;
    unsigned char *out = (unsigned char *)PyBytes_AS_STRING(bytes);
    unsigned bits = 0, all = 0;
    for (; p < stop; p += 4, out += 3) {
        all |= bits = sextet(p[0]) << 18 | sextet(p[1]) << 12 | sextet(p[2]) << 6 | sextet(p[3]);
        out[0] = bits >> 16, out[1] = bits >> 8, out[2] = bits;
    }
    c->at = stop + 1;
    if (all >> 24 || bits & ((1U << 8 * padding) - 1)) Py_CLEAR(bytes);
    else if (padding) _PyBytes_Resize(&bytes, size / 4 * 3 - padding);
    return bytes;
}

/* Of an attribute. `read` decides what is not plain; keys and times have none, which is refused. */
static PyObject *value(Cursor *c, const Head *h) {
    const char *start = c->at;
    PyObject *value = h->plain ? h->plain(c) : NULL;
    if (value ? token(c, "}") : PyErr_Occurred() != NULL) return value;
    Py_XDECREF(value);
    c->at = start;
    if (h->read != Py_None && token(c, "{\"NULL\":true}")) return Py_NewRef(Py_None);
    c->others = 1;
    return skip(c) ? PyObject_CallFunction(h->read, "y#", start, c->at - start) : NULL;
}

/* --- Rows and answers ---------------------------------------------------------------------- */

/* The one to be expected, or the one after it: an item may lack an attribute. */
static inline const Head *known_head(Cursor *c) {
    for (Py_ssize_t i = c->nth; i < c->known && i < c->nth + 2; i++) {
        const Head *h = &c->heads[i];
        if (h->size < c->end - c->at && memcmp(c->at, h->start, h->size) == 0) {
            c->at += h->size;
            c->nth = i + 1;
            return h;
        }
    }
    return NULL;
}

static const Head *new_head(Cursor *c) {
    static Convert *const PLAIN[] = {text, binary, boolean, whole, real, NULL}; /* By kind. */
    Span name;
    Head *h = &c->heads[c->known];
    *h = (Head){.start = c->at};
    if (!key(c, &name) || name.escaped) return NULL;
    PyObject *id = PyUnicode_DecodeUTF8(name.start, name.size, NULL);
    PyObject *described = id ? PyDict_GetItemWithError(c->attributes, id) : NULL;
    Py_XDECREF(id);
    if (described) {
        h->place = PyLong_AsSsize_t(PyTuple_GET_ITEM(described, 0));
        h->plain = PLAIN[PyLong_AsSsize_t(PyTuple_GET_ITEM(described, 1))];
        h->read = PyTuple_GET_ITEM(described, 2);
    }
    h->size = c->at - h->start;
    if (c->nth == c->known && c->known < c->places) c->nth = ++c->known;
    return PyErr_Occurred() ? NULL : h;
}

static int attribute(Cursor *c) {
    const Head *h = known_head(c);
    if (!h && !(h = new_head(c))) return 0;
    if (!h->read) return skip(c);
    return !c->found[h->place] && (c->found[h->place] = value(c, h)); /* Of two, which counts? */
}

/* A tuple of what is found, which it takes over. Of atoms it makes no cycle: untracked. */
static PyObject *tuple(const Cursor *c, PyObject **found, Py_ssize_t size) {
    PyObject *tuple = PyTuple_New(size);
    if (!tuple || !size) return tuple;
    memcpy(&PyTuple_GET_ITEM(tuple, 0), found, size * sizeof *found);
    memset(found, 0, size * sizeof *found);
    if (!c->others) PyObject_GC_UnTrack(tuple);
    return tuple;
}

/* None for what is absent, and times, unless every value is there and as old as the latest. */
static PyObject *row(Cursor *c) {
    PyObject **found = c->found, **values = found + VALUES, **owns = values + c->width;
    int ordinary = !found[TIMES];
    if (!found[PK] || !found[SK]) return NULL;
    if (!found[LATEST]) found[LATEST] = PyLong_FromLong(0);
    PyObject *base = found[ordinary ? LATEST : TIMES];
    for (Py_ssize_t i = 0; i < c->width; i++) ordinary = ordinary && values[i] && !owns[i];
    for (Py_ssize_t i = 0; !ordinary && i < c->width; i++) {
        if (!values[i]) Py_XSETREF(owns[i], Py_NewRef(values[i] = Py_NewRef(Py_None)));
        else if (!owns[i]) owns[i] = Py_NewRef(base);
    }
    PyObject *times = ordinary ? Py_NewRef(Py_None) : tuple(c, owns, c->width);
    Py_XSETREF(found[TIMES], times);
    return times ? tuple(c, found, VALUES + c->width) : NULL;
}

static int item(Cursor *c) {
    if (c->cut == c->end) c->cut = c->at + 1;
    c->nth = 0;
    PyObject *made = each(c, "{", "}", attribute) ? row(c) : NULL;
    int done = made && PyList_Append(c->rows, made) == 0;
    Py_XDECREF(made);
    c->resume = c->at - 1;
    return done;
}

static int member(Cursor *c) {
    Span name;
    if (token(c, "\"Responses\":"))
        return !c->seen++ && token(c, "{") &&
               (token(c, "}") || (key(c, &name) && each(c, "[", "]", item) && token(c, "}")));
    if (token(c, "\"Items\":")) return !c->seen++ && each(c, "[", "]", item);
    if (token(c, "\"Item\":")) return !c->seen++ && (token(c, "null") || item(c));
    return key(c, &name) && !name.escaped && skip(c);
}

static PyObject *decode(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *body, *decoded = NULL;
    Cursor c = {0};
    if (!PyArg_ParseTuple(args, "O!nS", &PyDict_Type, &c.attributes, &c.width, &body)) return NULL;
    const char *start = c.at = PyBytes_AS_STRING(body);
    c.end = c.cut = c.resume = start + PyBytes_GET_SIZE(body);
    c.places = VALUES + 2 * c.width;
    c.heads = PyMem_Calloc(c.places + 1, sizeof(Head) + sizeof(PyObject *));
    c.found = (PyObject **)(c.heads + c.places + 1);
    c.rows = PyList_New(0);
    if (c.heads && c.rows && each(&c, "{", "}", member) && c.at == c.end)
        decoded = Py_BuildValue("Onn", c.rows, c.cut - start, c.resume - start);
    for (Py_ssize_t i = 0; c.heads && i < c.places; i++) Py_XDECREF(c.found[i]);
    PyMem_Free(c.heads);
    Py_XDECREF(c.rows);
    if (!decoded && (!PyErr_Occurred() || (PyErr_ExceptionMatches(PyExc_Exception) &&
                                           !PyErr_ExceptionMatches(PyExc_MemoryError))))
        PyErr_SetString(PyExc_ValueError, "not an answer that is plain to read");
    return decoded;
}

static PyMethodDef methods[] = {{"decode", decode, METH_VARARGS, NULL}, {NULL, NULL, 0, NULL}};
static PyModuleDef module = {PyModuleDef_HEAD_INIT, .m_name = "_decoder", .m_methods = methods};
PyMODINIT_FUNC PyInit__decoder(void) { return PyModuleDef_Init(&module); }
