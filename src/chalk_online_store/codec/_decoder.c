/* Read answers to rows: DynamoDB's JSON into tuples, with no object in between.

   `_decoder.pyi` says what comes in and goes out. Whatever this is not sure of is a ValueError,
   and the decoder in Python, of which this is a short cut, then decides.

   A body is a bytes object, so a NUL follows its last byte. No token goes on over a NUL: looking
   one character ahead needs no check. A Decoder never changes and a call works on memory of its
   own, so threads may share one, and `read` may call it again. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <datetime.h>
#include <math.h>

enum { PK, SK, LATEST, TIMES, VALUES }; /* Places in a row. An item's base waits in TIMES. */
enum { TEXT, BYTES, BOOL, INT, FLOAT, OTHER, KINDS, OWN = KINDS }; /* OWN: an own observed-at. */
enum { DEPTH = 200, DIGITS = 38, DIGITS_OF_64_BITS = 19 }; /* AWS: 32 levels, 38 digits. */

typedef struct { PyObject *name, *read; int place, kind; } Slot; /* Without a name: free. */
typedef struct { PyObject_VAR_HEAD Py_ssize_t width, others; Slot slots[]; } Decoder;
typedef struct { const char *start; Py_ssize_t size; int escaped, wide; } Span;
typedef struct { const char *start; uint64_t value; Py_ssize_t count, scale; int minus, whole; } N;

/* How an attribute begins, up to its value: "a":{"N": */
typedef struct { const char *start; Py_ssize_t size; const Slot *slot; char type; } Head;

typedef struct {
    const Decoder *decoder;
    const char *at, *end, *cut, *resume, *fill; /* The items lie from cut to resume. */
    PyObject *rows, *sk;   /* `sk` is the last sort key, nearly always the next one too; */
    Span group;            /* this is its text. */
    Head *heads;           /* Those of the first item: most others have the same, */
    Py_ssize_t known, nth; /* in the same order. The nth is to be expected next. */
} Cursor;

/* --- Tokens: whether one was there --------------------------------------------------------- */

static inline void space(Cursor *c) {
    while (*c->at == ' ' || *c->at == '\n' || *c->at == '\r' || *c->at == '\t') c->at++;
}

static inline int expect(Cursor *c, char token) {
    space(c);
    return *c->at == token && c->at++;
}

static int word(Cursor *c, const char *text) {
    size_t size = strlen(text);
    return strncmp(c->at, text, size) == 0 && (c->at += size);
}

/* To the nth part of an object or array: 1 if there is one, 0 after the last, -1 for neither. */
static inline int part(Cursor *c, Py_ssize_t nth, char close) {
    if (expect(c, close)) return 0;
    if (nth && !expect(c, ',')) return -1;
    space(c);
    return 1;
}

/* To the last character of an escape. */
static int escape(const char **p) {
    if (!*++*p || !strchr("\"\\/bfnrtu", **p)) return 0;
    for (int i = **p == 'u' ? 4 : 0; i; i--)
        if (!Py_ISXDIGIT(*++*p)) return 0;
    return 1;
}

static inline int string(Cursor *c, Span *s) {
    unsigned char seen = 0;
    if (!expect(c, '"')) return 0;
    const char *p = s->start = c->at;
    for (s->escaped = 0; *p != '"'; seen |= *p++)
        if ((unsigned char)*p < ' ' || (*p == '\\' && (s->escaped = 1) && !escape(&p))) return 0;
    s->wide = seen >> 7;
    s->size = p - s->start;
    c->at = p + 1;
    return 1;
}

/* A string of which no object is made has to be UTF-8 all the same. */
static inline int passed(Cursor *c, Span *s) {
    if (!string(c, s)) return 0;
    PyObject *text = s->wide ? PyUnicode_DecodeUTF8(s->start, s->size, NULL) : NULL;
    Py_XDECREF(text);
    return text || !s->wide;
}

static inline int key(Cursor *c, Span *s) {
    if (!passed(c, s) || !expect(c, ':')) return 0;
    space(c);
    return 1;
}

static inline int is(const Span *s, const char *text) {
    return (size_t)s->size == strlen(text) && memcmp(s->start, text, s->size) == 0;
}

static inline const char *digits(const char *p, uint64_t *value) {
    for (; '0' <= *p && *p <= '9'; p++) *value = *value * 10 + (*p - '0');
    return p;
}

/* As JSON has them: value * 10**scale. The value has wrapped around where its digits, of which
   there are `count`, are too many for 64 bits. */
static inline int number(Cursor *c, N *n) {
    uint64_t value = 0, power = 0;
    const char *p = n->start = c->at, *first = p + (n->minus = *p == '-');
    p = digits(first, &value);
    n->count = p - first;
    n->scale = 0;
    n->whole = *p != '.' && (*p | 32) != 'e';
    if (!n->count || (*first == '0' && n->count > 1)) return 0;
    if (*p == '.') {
        const char *point = p + 1;
        p = digits(point, &value);
        n->count += p - point;
        if (!(n->scale = point - p)) return 0;
        for (; *first == '0' || *first == '.'; first++) n->count -= *first == '0';
    }
    if ((*p | 32) == 'e') {
        int down = *++p == '-';
        const char *exponent = p + (down || *p == '+');
        p = digits(exponent, &power);
        if (p == exponent || p > exponent + 4) return 0;
        n->scale += down ? -(Py_ssize_t)power : (Py_ssize_t)power;
    }
    n->value = value;
    c->at = p;
    return 1;
}

/* Over any one value. */
static int skip(Cursor *c, int depth) {
    Span s;
    N n;
    char open = *c->at;
    int more = -1;
    if (open == '"') return passed(c, &s);
    if (open != '{' && open != '[')
        return word(c, "true") || word(c, "false") || word(c, "null") || number(c, &n);
    c->at++;
    for (int i = 0; depth < DEPTH && (more = part(c, i, open == '{' ? '}' : ']')) > 0; i = 1)
        if ((open == '{' && !key(c, &s)) || !skip(c, depth + 1)) return 0;
    return more == 0;
}

/* --- Values: a new reference; or NULL, with or without an exception ------------------------ */

static PyObject *unescaped(const Span *s) {
    PyObject *json = PyImport_ImportModule("json"); /* Escapes are rare. */
    if (!json) return NULL;
    PyObject *text = PyObject_CallMethod(json, "loads", "s#", s->start - 1, s->size + 2);
    Py_DECREF(json);
    if (text && !PyUnicode_AsUTF8(text)) Py_CLEAR(text); /* Half of a surrogate pair. */
    return text;
}

static PyObject *text(Cursor *c, int place) {
    Span s;
    PyObject *text;
    if (!string(c, &s)) return NULL;
    if (place == SK && c->sk && s.size == c->group.size && !memcmp(s.start, c->group.start, s.size))
        return Py_NewRef(c->sk);
    if (s.escaped) text = unescaped(&s);
    else if (s.wide) text = PyUnicode_DecodeUTF8(s.start, s.size, NULL);
    else if ((text = PyUnicode_New(s.size, 127)) && s.size)
        memcpy(PyUnicode_1BYTE_DATA(text), s.start, s.size);
    if (place == SK) {
        Py_XSETREF(c->sk, Py_XNewRef(text));
        c->group = s;
    }
    return text;
}

static PyObject *whole(const N *n) {
    char text[DIGITS + 2] = {0}; /* With a sign and a NUL. */
    if (!n->whole || n->count > DIGITS) return NULL;
    if (n->count < DIGITS_OF_64_BITS)
        return PyLong_FromLongLong(n->minus ? -(long long)n->value : (long long)n->value);
    memcpy(text, n->start, n->count + n->minus);
    return PyLong_FromString(text, NULL, 10);
}

/* value / divisor, neither of them 0, rounded once: of the 63 or 64 bits that are taken of the
   quotient, more than a double has, the last is set if there are others after them. */
static inline double quotient(uint64_t value, uint64_t divisor) {
    int up = __builtin_clzll(value), down = __builtin_clzll(divisor);
    unsigned __int128 dividend = (unsigned __int128)(value << up) << 63;
    uint64_t bits = dividend / (divisor <<= down);
    bits |= (unsigned __int128)bits * divisor != dividend;
    return ldexp((double)bits, down - up - 63);
}

static inline double magnitude(const N *n) {
    static const double TENS[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                  1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                  1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    char *end;
    if (n->count <= DIGITS_OF_64_BITS && n->value < 1ULL << 53) { /* Two doubles: one rounding. */
        if (-22 <= n->scale && n->scale <= 0) return n->value / TENS[-n->scale];
        if (0 < n->scale && n->scale <= 22) return n->value * TENS[n->scale];
    } else if (n->count <= DIGITS_OF_64_BITS && -19 <= n->scale && n->scale <= 0)
        return quotient(n->value, (uint64_t)TENS[-n->scale]);
    return PyOS_string_to_double(n->start + n->minus, &end, NULL);
}

/* Not infinity, which Python's decoder refuses, and not -0, of which it loses the sign. */
static PyObject *real(const N *n) {
    double x = magnitude(n);
    if (!isfinite(x) || x < 0 || (x == 0 && n->minus)) return NULL;
    return PyFloat_FromDouble(n->minus ? -x : x);
}

static inline PyObject *quoted(Cursor *c, PyObject *(*convert)(const N *)) {
    N n;
    return expect(c, '"') && number(c, &n) && word(c, "\"") ? convert(&n) : NULL;
}

static const signed char SEXTET[256] = { /* base64: one more than the value, 0 for no letter. */
    ['A'] = 1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22,
    23, 24, 25, 26, ['a'] = 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44,
    45, 46, 47, 48, 49, 50, 51, 52, ['0'] = 53, 54, 55, 56, 57, 58, 59, 60, 61, 62,
    ['+'] = 63, ['/'] = 64, ['='] = 1};

/* All bits set where it is no letter. */
static inline unsigned sextet(char letter) { return SEXTET[(unsigned char)letter] - 1; }

/* Canonical base64: padded, the padding at the end alone, and no bits set that make no byte. */
static PyObject *binary(Cursor *c) {
    if (!expect(c, '"')) return NULL;
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

/* The eight bytes of a double that DynamoDB has no number for. */
static PyObject *eight_bytes(Cursor *c) {
    PyObject *bytes = binary(c), *real = NULL;
    if (bytes && PyBytes_GET_SIZE(bytes) == 8)
        real = PyFloat_FromDouble(PyFloat_Unpack8(PyBytes_AS_STRING(bytes), 0));
    Py_XDECREF(bytes);
    return real;
}

/* What `read` makes of any attribute but null. */
static PyObject *other(Cursor *c, PyObject *read) {
    const char *start = c->at;
    Span s;
    if (!expect(c, '{') || !key(c, &s)) return NULL;
    if (is(&s, "NULL")) return word(c, "true") && expect(c, '}') ? Py_NewRef(Py_None) : NULL;
    c->at = start;
    PyObject *raw = skip(c, 0) ? PyBytes_FromStringAndSize(start, c->at - start) : NULL;
    PyObject *value = raw ? PyObject_CallOneArg(read, raw) : NULL;
    Py_XDECREF(raw);
    return value;
}

#define STORED(kind, type) ((kind) << 8 | (type))

static PyObject *value(Cursor *c, const Head *h) {
    int nullable = h->slot->kind != OWN && h->slot->place >= VALUES;
    switch (STORED(h->slot->kind, h->type)) {
    case STORED(TEXT, 'S'): return text(c, h->slot->place);
    case STORED(BYTES, 'B'): return binary(c);
    case STORED(INT, 'N'): case STORED(OWN, 'N'): return quoted(c, whole);
    case STORED(FLOAT, 'N'): return quoted(c, real);
    case STORED(FLOAT, 'B'): return eight_bytes(c);
    case STORED(BOOL, 'O'): return word(c, "true")    ? Py_NewRef(Py_True)
                                   : word(c, "false") ? Py_NewRef(Py_False) : NULL;
    default: return h->type == 'U' && nullable && word(c, "true") ? Py_NewRef(Py_None) : NULL;
    }
}

/* --- Rows ---------------------------------------------------------------------------------- */

/* The slot of a name, or the free one where it would be. Half of all slots are free. */
static Slot *find(const Decoder *d, const char *name, Py_ssize_t size) {
    uint64_t hash = size, last = Py_SIZE(d) - 1;
    for (Py_ssize_t i = 0; i < size; i++) hash = (hash ^ name[i]) * 0x9E3779B97F4A7C15;
    for (uint64_t i = hash >> 32;; i++) {
        const Slot *slot = &d->slots[i & last];
        if (!slot->name || (PyBytes_GET_SIZE(slot->name) == size &&
                            memcmp(PyBytes_AS_STRING(slot->name), name, size) == 0))
            return (Slot *)slot;
    }
}

static int new_head(Cursor *c, Head *h) {
    Span s;
    h->start = c->at;
    if (!key(c, &s) || s.escaped) return 0;
    h->slot = find(c->decoder, s.start, s.size);
    if (h->slot->name && h->slot->kind != OTHER) {
        if (!expect(c, '{') || !key(c, &s)) return 0;
        h->type = s.size == 1 ? *s.start : is(&s, "BOOL") ? 'O' : is(&s, "NULL") ? 'U' : 0;
    }
    h->size = c->at - h->start;
    return 1;
}

/* The head to be expected, or the one after it: an item may lack an attribute. */
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

/* A tuple of NULLs. Untracked: nobody can see it unfinished, and of atoms it makes no cycle. */
static PyObject *blank(Py_ssize_t size) {
    PyObject *tuple = PyTuple_New(size);
    if (tuple && size) PyObject_GC_UnTrack(tuple);
    return tuple;
}

static int member(Cursor *c, PyObject **row, PyObject **times) {
    Head new = {0};
    const Head *h = known_head(c);
    if (!h) {
        if (!new_head(c, &new)) return 0;
        h = &new;
        if (c->heads && c->nth == c->known && c->known < Py_SIZE(c->decoder)) {
            c->heads[c->known++] = new;
            c->nth++;
        }
    }
    const Slot *slot = h->slot;
    if (!slot->name) return skip(c, 0);
    PyObject **place = row + slot->place;
    if (slot->kind == OWN) {
        if (!*times && !(*times = blank(c->decoder->width))) return 0;
        place = &PyTuple_GET_ITEM(*times, slot->place);
    }
    if (*place) return 0; /* Of two, which counts? */
    if (slot->kind == OTHER) return (*place = other(c, slot->read)) != NULL;
    return (*place = value(c, h)) && expect(c, '}');
}

/* None for what is absent, and times, unless every value is there and as old as the latest. */
static int finish(const Decoder *d, PyObject **row, PyObject **times) {
    PyObject *base = row[TIMES];
    int ordinary = !base && !*times;
    if (!row[PK] || !row[SK] || !(row[LATEST] || (row[LATEST] = PyLong_FromLong(0)))) return 0;
    for (Py_ssize_t i = 0; ordinary && i < d->width; i++) ordinary = row[VALUES + i] != NULL;
    if (!ordinary && !*times && !(*times = blank(d->width))) return 0;
    for (Py_ssize_t i = 0; !ordinary && i < d->width; i++) {
        PyObject **value = row + VALUES + i, **time = &PyTuple_GET_ITEM(*times, i);
        if (!*value) Py_XSETREF(*time, Py_NewRef(*value = Py_NewRef(Py_None)));
        if (!*time) *time = Py_NewRef(base ? base : row[LATEST]);
    }
    row[TIMES] = Py_NewRef(ordinary ? Py_None : *times);
    Py_XDECREF(base);
    return 1;
}

static int item(Cursor *c) {
    PyObject *times = NULL, *row = blank(VALUES + c->decoder->width);
    int more = -1, done = row && expect(c, '{');
    c->nth = 0;
    for (int i = 0; done && (more = part(c, i, '}')) > 0; i = 1)
        done = member(c, &PyTuple_GET_ITEM(row, 0), &times);
    done = done && more == 0 && finish(c->decoder, &PyTuple_GET_ITEM(row, 0), &times);
    if (done && c->decoder->others) PyObject_GC_Track(row);
    done = done && PyList_Append(c->rows, row) == 0;
    Py_XDECREF(times);
    Py_XDECREF(row);
    return done;
}

static int items(Cursor *c) {
    int more = -1, done = expect(c, '[');
    c->heads = PyMem_Malloc(Py_SIZE(c->decoder) * sizeof(Head)); /* Or NULL: it does without. */
    c->cut = c->at;
    for (int i = 0; done && (more = part(c, i, ']')) > 0; i = 1) done = item(c);
    c->resume = c->at - 1;
    return done && more == 0;
}

static int one_item(Cursor *c) {
    c->cut = c->at;
    c->fill = "null";
    int done = word(c, "null") || item(c);
    c->resume = c->at;
    return done;
}

static int one_table(Cursor *c) {
    Span name;
    int more = expect(c, '{') ? part(c, 0, '}') : -1;
    return more == 0 || (more > 0 && key(c, &name) && items(c) && expect(c, '}'));
}

static int answer(Cursor *c) {
    Span s;
    int more = -1, seen = 0, done = expect(c, '{');
    for (int i = 0; done && (more = part(c, i, '}')) > 0; i = 1) {
        if (!key(c, &s) || s.escaped) return 0;
        int (*read)(Cursor *) = is(&s, "Responses") ? one_table : is(&s, "Items") ? items
                              : is(&s, "Item") ? one_item : NULL;
        done = read ? !seen++ && read(c) : skip(c, 0);
    }
    if (done) space(c);
    return done && more == 0 && c->at == c->end;
}

/* --- The class and the module -------------------------------------------------------------- */

/* The body with `fill` for the items. */
static PyObject *rest(const Cursor *c, PyObject *body) {
    const char *start = PyBytes_AS_STRING(body);
    if (!c->cut) return Py_NewRef(body);
    PyObject *left = PyBytes_FromStringAndSize(start, c->cut - start);
    PyBytes_ConcatAndDel(&left, PyBytes_FromString(c->fill));
    PyBytes_ConcatAndDel(&left, PyBytes_FromStringAndSize(c->resume, c->end - c->resume));
    return left;
}

static PyObject *decode(Decoder *self, PyObject *body) {
    if (!PyBytes_CheckExact(body)) return PyErr_Format(PyExc_TypeError, "a body is bytes");
    Cursor c = {.decoder = self, .at = PyBytes_AS_STRING(body), .fill = "", .rows = PyList_New(0)};
    c.end = c.at + PyBytes_GET_SIZE(body);
    PyObject *left = c.rows && answer(&c) ? rest(&c, body) : NULL;
    PyObject *decoded = left ? PyTuple_Pack(2, c.rows, left) : NULL;
    PyMem_Free(c.heads);
    Py_XDECREF(c.rows);
    Py_XDECREF(c.sk);
    Py_XDECREF(left);
    if (!decoded && (!PyErr_Occurred() || (PyErr_ExceptionMatches(PyExc_Exception) &&
                                           !PyErr_ExceptionMatches(PyExc_MemoryError))))
        PyErr_SetString(PyExc_ValueError, "not an answer that is plain to read");
    return decoded;
}

static int refuse(PyObject *type, const char *why) {
    PyErr_SetString(type, why);
    return 0;
}

static int add(Decoder *d, PyObject *name, int kind, int place, PyObject *read) {
    PyObject *bytes = name ? PyUnicode_AsUTF8String(name) : NULL;
    Slot *slot = bytes ? find(d, PyBytes_AS_STRING(bytes), PyBytes_GET_SIZE(bytes)) : NULL;
    int done = slot && (!slot->name || refuse(PyExc_ValueError, "two attributes of one name"));
    if (done) *slot = (Slot){Py_NewRef(bytes), Py_XNewRef(read), place, kind};
    Py_XDECREF(bytes);
    return done;
}

static int add_column(Decoder *d, int i, PyObject *column, PyObject *prefix) {
    static const char *const NAMES[] = {"S", "B", "BOOL", "int", "float", "other"};
    PyObject *name, *read;
    const char *shown;
    int kind = TEXT;
    if (!PyTuple_Check(column)) return refuse(PyExc_TypeError, "a column is a tuple");
    if (!PyArg_ParseTuple(column, "UsO", &name, &shown, &read)) return 0;
    while (kind < KINDS && strcmp(shown, NAMES[kind])) kind++;
    if (kind == KINDS) return refuse(PyExc_ValueError, "no kind of column");
    if (kind == OTHER && !PyCallable_Check(read)) return refuse(PyExc_TypeError, "no reader");
    d->others += kind == OTHER;
    PyObject *own = PyUnicode_Concat(prefix, name);
    int done = own && add(d, name, kind, VALUES + i, read) && add(d, own, OWN, i, NULL);
    Py_XDECREF(own);
    return done;
}

static PyObject *decoder_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *NAMES[] = {"columns", "pk", "sk", "latest", "base", "own", NULL};
    PyObject *columns, *pk, *sk, *latest, *base, *own;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OUUUUU:Decoder", NAMES, &columns, &pk, &sk,
                                     &latest, &base, &own) ||
        !(columns = PySequence_Tuple(columns)))
        return NULL;
    Py_ssize_t width = PyTuple_GET_SIZE(columns), slots = 16;
    while (slots < 4 * (width + 2)) slots *= 2;
    Decoder *d = (Decoder *)type->tp_alloc(type, slots);
    if (d) d->width = width;
    int done = d && add(d, pk, TEXT, PK, NULL) && add(d, sk, TEXT, SK, NULL) &&
               add(d, latest, INT, LATEST, NULL) && add(d, base, INT, TIMES, NULL);
    for (int i = 0; done && i < width; i++)
        done = add_column(d, i, PyTuple_GET_ITEM(columns, i), own);
    Py_DECREF(columns);
    if (!done) Py_CLEAR(d);
    return (PyObject *)d;
}

static int decoder_traverse(Decoder *d, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(d));
    for (Py_ssize_t i = 0; i < Py_SIZE(d); i++) Py_VISIT(d->slots[i].read);
    return 0;
}

static void decoder_dealloc(Decoder *d) {
    PyTypeObject *type = Py_TYPE(d);
    PyObject_GC_UnTrack(d);
    for (Py_ssize_t i = 0; i < Py_SIZE(d); i++) {
        Py_XDECREF(d->slots[i].name);
        Py_XDECREF(d->slots[i].read);
    }
    type->tp_free(d);
    Py_DECREF(type);
}

static PyObject *moment(const PyDateTime_CAPI *api, PyObject *value) {
    const long long DAY = 86400000000, FIRST = -62135596800000000, LAST = 253402300799999999;
    int over;
    if (value == Py_None) return Py_NewRef(value);
    if (!PyLong_Check(value)) return PyErr_Format(PyExc_TypeError, "a moment is an int");
    long long us = PyLong_AsLongLongAndOverflow(value, &over);
    if (over || us < FIRST || us > LAST)
        return PyErr_Format(PyExc_OverflowError, "a moment outside of the years 1 to 9999");
    us -= FIRST;
    /* Years from March, so that a leap day is the last; four centuries have 146,097 days. */
    int days = us / DAY + 306, s = us % DAY / 1000000, day = days % 146097;
    int year = (day - day / 1460 + day / 36524 - day / 146096) / 365;
    day -= 365 * year + year / 4 - year / 100;
    int month = (5 * day + 2) / 153;
    return api->DateTime_FromDateAndTime(
        days / 146097 * 400 + year + (month > 9), month + (month > 9 ? -9 : 3),
        day - (153 * month + 2) / 5 + 1, s / 3600, s / 60 % 60, s % 60, us % 1000000,
        api->TimeZone_UTC, api->DateTimeType);
}

static PyObject *moments(PyObject *Py_UNUSED(module), PyObject *values) {
    (void)PyDateTimeAPI; /* The header's static pointer is not for several interpreters. */
    const PyDateTime_CAPI *api = PyCapsule_Import(PyDateTime_CAPSULE_NAME, 0);
    PyObject *found = api ? PySequence_List(values) : NULL;
    for (Py_ssize_t i = 0; found && i < PyList_GET_SIZE(found); i++) {
        PyObject *value = moment(api, PyList_GET_ITEM(found, i));
        if (!value || PyList_SetItem(found, i, value)) Py_CLEAR(found);
    }
    return found;
}

static PyMethodDef decoder_methods[] = {
    {"decode", (PyCFunction)decode, METH_O, NULL}, {NULL, NULL, 0, NULL}};
static PyType_Slot decoder_slots[] = {
    {Py_tp_new, decoder_new}, {Py_tp_dealloc, decoder_dealloc}, {Py_tp_traverse, decoder_traverse},
    {Py_tp_methods, decoder_methods}, {0, NULL}};
static PyType_Spec decoder_spec = {
    "chalk_online_store.codec._decoder.Decoder", sizeof(Decoder), sizeof(Slot),
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE, decoder_slots};

static int module_exec(PyObject *module) {
    PyObject *type = PyType_FromModuleAndSpec(module, &decoder_spec, NULL);
    int failed = !type || PyModule_AddType(module, (PyTypeObject *)type);
    Py_XDECREF(type);
    return -failed;
}

static PyMethodDef module_methods[] = {
    {"moments", moments, METH_O, NULL}, {NULL, NULL, 0, NULL}};
static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030D0000 /* Before 3.13, datetime cannot be had under a GIL of one's own. */
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
    {0, NULL}};
static PyModuleDef module = {PyModuleDef_HEAD_INIT, .m_name = "_decoder",
                             .m_methods = module_methods, .m_slots = module_slots};
PyMODINIT_FUNC PyInit__decoder(void) { return PyModuleDef_Init(&module); }
