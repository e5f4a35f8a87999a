/* Responses to frames: DynamoDB's JSON to typed cells, without a Python object for each value.

   A `Decoder` reads responses with certain attributes. It keeps the beginnings of attributes that
   it has met ("a":{"N":"), in their order: most items have the same attributes in the same order,
   so one comparison finds the column and skips the type. */

#include "_kernels.h"

enum { DIGITS = 19 };    /* Numbers of 19 digits or fewer fit into 64 bits. */
enum { HEAD_BYTES = 40 }; /* Longer beginnings are looked up each time. */

/* The beginning of an attribute: `name` bytes for its name ("a":), `size` with its type, which is
   equal to `name` if the type has to be read. `place` is that of `decoding.described`, -1 for an
   attribute that nobody asked for. */
typedef struct {
    char text[HEAD_BYTES];
    unsigned char name, size, kind;
    Py_ssize_t place;
    PyObject *read; /* Borrowed from `attributes`. */
} Head;

typedef struct {
    PyObject_HEAD
    PyObject *attributes;
    Py_ssize_t width;
    unsigned char *kinds;
    Head *heads; /* NULL while a call has them. */
    Py_ssize_t known;
} Decoder;

typedef struct {
    const char *at, *end, *cut, *resume; /* The items are between `cut` and `resume`. */
    Decoder *decoder;
    Frame *frame;
    Head *heads;
    Py_ssize_t known, most, nth; /* The nth of the known heads is expected next. */
    int seen;                    /* Whether there was a member with items. */
} Cursor;

/* --- Tokens: return whether the token was there ---------------------------------------------- */

static inline int token(Cursor *c, const char *text) {
    const char *p = c->at;
    while (*text && *p == *text) p++, text++;
    return !*text && (c->at = p);
}

/* An object or array. `part` reads each member or element. */
static inline int each(Cursor *c, const char *open, const char *close, int (*part)(Cursor *)) {
    if (!token(c, open)) return 0;
    if (token(c, close)) return 1;
    do {
        if (!part(c)) return 0;
    } while (token(c, ","));
    return token(c, close);
}

typedef struct { const char *start; Py_ssize_t size; int escaped, ascii; } String;

/* Ordinary bytes of a string are 0; the others are ", \, control characters and non-ASCII. */
static const unsigned char SPECIAL[256] = {
    [0 ... 31] = 1, ['"'] = 1, ['\\'] = 1, [128 ... 255] = 1};

/* The rest of a string whose opening quote was read. Escapes and UTF-8 are not checked here. */
static inline int string_rest(Cursor *c, String *s) {
    const char *p = s->start = c->at;
    s->escaped = 0, s->ascii = 1;
    for (;; p++) {
        unsigned char letter = (unsigned char)*p;
        if (!SPECIAL[letter]) continue;
        if (letter == '"') break;
        if (letter == '\\') s->escaped = 1, letter = (unsigned char)*++p;
        if (letter < ' ') return 0;
        if (letter >= 128) s->ascii = 0;
    }
    s->size = p - s->start;
    c->at = p + 1;
    return 1;
}

static inline int string(Cursor *c, String *s) { return token(c, "\"") && string_rest(c, s); }

static inline int key(Cursor *c, String *s) { return string(c, s) && token(c, ":"); }

static inline const char *digits(const char *p, uint64_t *value) {
    for (; '0' <= *p && *p <= '9'; p++) *value = *value * 10 + (uint64_t)(*p - '0');
    return p;
}

typedef struct { const char *start; uint64_t value; Py_ssize_t count, places; int minus; } Number;

/* A number after its opening quote: value / 10**places. If it has more than 19 significant digits
   (`count`), the value has wrapped around. */
static inline int number(Cursor *c, Number *n) {
    const char *first = c->at + (*c->at == '-'), *p;
    *n = (Number){.start = c->at, .minus = *c->at == '-'};
    p = digits(first, &n->value);
    n->count = p - first;
    if (!n->count || (*first == '0' && n->count > 1)) return 0;
    if (*p == '.') {
        const char *point = p + 1;
        p = digits(point, &n->value);
        n->count += n->places = p - point;
        if (!n->places) return 0;
        for (; *first == '0' || *first == '.'; first++) n->count -= *first == '0';
    }
    c->at = p;
    return token(c, "\"");
}

static int skip(Cursor *c);
static int skip_member(Cursor *c) {
    String name;
    return key(c, &name) && skip(c);
}

/* Any one value. The inside of words and numbers is not checked. */
static int skip(Cursor *c) {
    static const unsigned char WORD[256] = {
        ['0' ... '9'] = 1, ['+'] = 1, ['-'] = 1, ['.'] = 1, ['E'] = 1, ['a'] = 1, ['e'] = 1,
        ['f'] = 1, ['l'] = 1, ['n'] = 1, ['r'] = 1, ['s'] = 1, ['t'] = 1, ['u'] = 1};
    String s;
    const char *first = c->at;
    while (WORD[(unsigned char)*c->at]) c->at++;
    if (c->at > first) return 1;
    if (*c->at == '"') return string(c, &s);
    if (Py_EnterRecursiveCall(" in JSON")) return 0;
    int done = *c->at == '{' ? each(c, "{", "}", skip_member) : each(c, "[", "]", skip);
    Py_LeaveRecursiveCall();
    return done;
}

/* --- Values: after the opening of their type; return a state, or ABSENT if not plain ---------- */

static inline Span span(const Cursor *c, const char *start, Py_ssize_t size) {
    const char *body = PyBytes_AS_STRING(c->frame->body);
    return (Span){(uint32_t)(start - body), (uint32_t)size};
}

/* A text with other letters than ASCII becomes an object at once, which checks its UTF-8. */
static inline int text(Cursor *c, Cell *cell) {
    String s;
    if (!string_rest(c, &s) || s.escaped) return ABSENT;
    if (s.ascii) {
        cell->span = span(c, s.start, s.size);
        return PLAIN;
    }
    cell->object = PyUnicode_DecodeUTF8(s.start, s.size, NULL);
    c->frame->references = 1;
    return cell->object ? OBJECT : ABSENT;
}

static inline int boolean(Cursor *c, Cell *cell) {
    cell->whole = *c->at == 't';
    return token(c, "true") || token(c, "false") ? PLAIN : ABSENT;
}

static inline int whole(Cursor *c, Cell *cell) {
    Number n;
    if (!number(c, &n) || n.places || n.count > DIGITS || n.value > LLONG_MAX) return ABSENT;
    cell->whole = n.minus ? -(int64_t)n.value : (int64_t)n.value;
    return PLAIN;
}

/* Neither an infinity, which the Python decoder refuses, nor -0, whose sign it does not keep. */
static inline int real(Cursor *c, Cell *cell) {
    Number n;
    if (!number(c, &n)) return ABSENT;
    double x;
    if (n.count <= DIGITS && n.places <= DIGITS) {
        x = divided(n.value, (int)n.places);
    } else {
        char *end;
        x = PyOS_string_to_double(n.start + n.minus, &end, NULL);
        if (x < 0 || x > 1.7976931348623157e308) return ABSENT;
    }
    if (x == 0 && n.minus) return ABSENT;
    cell->real = n.minus ? -x : x;
    return PLAIN;
}

static int binary(Cursor *c, Cell *cell) {
    Frame *f = c->frame;
    if (!f->arena) { /* Three quarters of what is left of the body is always enough. */
        f->arena = PyMem_Malloc((size_t)(c->end - c->at) / 4 * 3 + 3);
        if (!f->arena) {
            PyErr_NoMemory();
            return ABSENT;
        }
    }
    const char *stop = memchr(c->at, '"', (size_t)(c->end - c->at));
    Py_ssize_t size = stop ? base64_size(c->at, stop - c->at) : -1;
    if (size < 0 || !base64_decoded(c->at, stop - c->at, size, f->arena + f->arena_used))
        return ABSENT;
    cell->span = (Span){(uint32_t)f->arena_used, (uint32_t)size};
    f->arena_used += size;
    c->at = stop + 1;
    return PLAIN;
}

static inline int plain_value(Cursor *c, int kind, Cell *cell) {
    switch (kind) {
    case KIND_S: return text(c, cell);
    case KIND_B: return binary(c, cell);
    case KIND_BOOL: return boolean(c, cell);
    case KIND_INT: return whole(c, cell);
    case KIND_FLOAT: return real(c, cell);
    default: return ABSENT;
    }
}

/* A value that is not plain: null, or what `read` makes of its JSON. Keys and times have no
   reader, so for them this refuses the response. */
static int other_value(Cursor *c, const Head *h, Cell *cell) {
    const char *start = c->at;
    PyObject *read = h->read;
    if (read == Py_None || PyErr_Occurred()) return ABSENT;
    if (token(c, "{\"NULL\":true}")) return NIL;
    if (!skip(c)) return ABSENT;
    PyObject *found = PyObject_CallFunction(read, "y#", start, c->at - start);
    if (!found) return ABSENT;
    if (h->kind == KIND_FLOAT && PyFloat_CheckExact(found)) {
        cell->real = PyFloat_AS_DOUBLE(found);
        Py_DECREF(found);
        return PLAIN;
    }
    cell->object = found;
    c->frame->holds_objects = c->frame->references = 1;
    return OBJECT;
}

/* --- Items and responses --------------------------------------------------------------------- */

static const char *const OPENINGS[] = {"{\"S\":\"", "{\"B\":\"", "{\"BOOL\":", "{\"N\":\"",
                                       "{\"N\":\""};

/* Read the beginning of an attribute that was not expected. It becomes a known one if there is
   room and it comes next; otherwise it is valid until the next call. */
static const Head *new_head(Cursor *c) {
    String name;
    if (c->frame->count == 1) c->known = c->nth; /* Learn the order of this response's items. */
    Head *h = &c->heads[c->known];
    const char *start = c->at;
    if (!key(c, &name) || name.escaped) return NULL;
    PyObject *id = PyUnicode_DecodeUTF8(name.start, name.size, NULL);
    PyObject *described = id ? PyDict_GetItemWithError(c->decoder->attributes, id) : NULL;
    Py_XDECREF(id);
    if (PyErr_Occurred()) return NULL;
    h->place = -1, h->kind = KIND_OTHER, h->read = NULL;
    if (described) {
        h->place = PyLong_AsSsize_t(PyTuple_GET_ITEM(described, 0));
        h->kind = (unsigned char)PyLong_AsLong(PyTuple_GET_ITEM(described, 1));
        h->read = PyTuple_GET_ITEM(described, 2);
    }
    size_t size = (size_t)(c->at - start);
    const char *opening = h->place >= 0 && h->kind < KIND_OTHER ? OPENINGS[h->kind] : "";
    h->name = h->size = 0;
    if (size + strlen(opening) <= HEAD_BYTES && c->nth == c->known && c->known < c->most) {
        memcpy(h->text, start, size);
        memcpy(h->text + size, opening, strlen(opening));
        h->name = (unsigned char)size;
        h->size = (unsigned char)(size + strlen(opening));
        c->nth = ++c->known;
    }
    return h;
}

/* The head at the cursor. `opened` says whether the type's opening was read as well. */
static inline const Head *head(Cursor *c, int *opened) {
    Py_ssize_t left = c->end - c->at;
    for (Py_ssize_t i = c->nth; i < c->known && i < c->nth + 2; i++) {
        const Head *h = &c->heads[i]; /* The expected one, or the next: an item may lack one. */
        if (h->size < left && memcmp(c->at, h->text, h->size) == 0) {
            c->at += h->size, c->nth = i + 1, *opened = h->size > h->name;
            return h;
        }
        if (h->name < left && memcmp(c->at, h->text, h->name) == 0) {
            c->at += h->name, c->nth = i + 1, *opened = 0;
            return h;
        }
    }
    *opened = 0;
    return new_head(c);
}

/* A value into its cell; refuses an attribute that comes twice. */
static inline int value(Cursor *c, const Head *h, int opened, Cell *cell) {
    int state = ABSENT;
    const char *start = opened ? c->at - (h->size - h->name) : c->at;
    if (opened || (h->kind < KIND_OTHER && token(c, OPENINGS[h->kind]))) {
        state = plain_value(c, h->kind, cell);
        if (state == ABSENT ? PyErr_Occurred() != NULL : token(c, "}")) return state;
        if (state == OBJECT) Py_CLEAR(cell->object);
    }
    c->at = start;
    return other_value(c, h, cell);
}

static inline int set_once(unsigned *found, Py_ssize_t place) {
    int first = !(*found >> place & 1);
    *found |= 1U << place;
    return first;
}

/* The text of a key. Other letters than ASCII are decoded once, to check the UTF-8. */
static int key_text(Cursor *c, int opened, Span *found) {
    String s;
    if (!opened && !token(c, OPENINGS[KIND_S])) return 0;
    if (!string_rest(c, &s) || s.escaped || !token(c, "}")) return 0;
    if (!s.ascii) {
        PyObject *decoded = PyUnicode_DecodeUTF8(s.start, s.size, NULL);
        if (!decoded) return 0;
        Py_DECREF(decoded);
    }
    *found = span(c, s.start, s.size);
    return 1;
}

static int time_number(Cursor *c, int opened, int64_t *found) {
    Cell cell;
    if (!opened && !token(c, OPENINGS[KIND_INT])) return 0;
    if (whole(c, &cell) != PLAIN || !token(c, "}")) return 0;
    *found = cell.whole;
    return 1;
}

static int own_times(Frame *f) { /* Make room for observed-ats of single values. */
    if (f->own) return 1;
    f->own = PyMem_Calloc((size_t)(f->capacity * f->width), sizeof *f->own);
    return f->own || (PyErr_NoMemory(), 0);
}

static int item(Cursor *c) {
    Frame *f = c->frame;
    const char *start = c->at;
    Py_ssize_t width = f->width, complete = 0, nth = f->count;
    unsigned found = 0;
    if (c->cut == c->end) c->cut = c->at + 1;
    if (nth == f->capacity) { /* After the first item, its size tells how many may follow. */
        Py_ssize_t expected = nth == 1 ? 2 + (c->end - start) / (start - c->cut + 1) : 2 * nth;
        if (frame_grow(f, nth ? expected : 1) < 0) return 0;
    }
    Item *made = &f->items[nth];
    memset(made, 0, sizeof *made);
    unsigned char *states = f->states + nth * width;
    memset(states, ABSENT, (size_t)width);
    f->count = nth + 1; /* From here on, the frame owns the objects in these cells. */
    c->nth = 0;
    if (!token(c, "{")) return 0;
    if (!token(c, "}")) {
        do {
            int opened;
            const Head *h = head(c, &opened);
            if (!h) return 0;
            Py_ssize_t place = h->place - VALUES;
            if (h->place < 0) {
                if (!skip(c)) return 0;
            } else if (place < 0) {
                if (!set_once(&found, h->place)) return 0;
                Span *text = h->place == PK ? &made->pk : &made->sk;
                int64_t *time = h->place == LATEST ? &made->latest : &made->base;
                if (h->place <= SK ? !key_text(c, opened, text) : !time_number(c, opened, time))
                    return 0;
            } else if (place < width) {
                if (states[place] & STATE) return 0;
                Cell *cell = &f->cells[nth * width + place];
                int state = value(c, h, opened, cell);
                if (state == ABSENT) return 0;
                states[place] |= (unsigned char)state;
                complete++;
            } else {
                place -= width;
                if (states[place] & OWN || !own_times(f)) return 0;
                if (!time_number(c, opened, &f->own[nth * width + place])) return 0;
                states[place] |= OWN, made->has_times = 1;
            }
        } while (token(c, ","));
        if (!token(c, "}")) return 0;
    }
    if ((found & 3) != 3) return 0;
    if (!(found >> TIMES & 1)) made->base = made->latest;
    made->has_times |= complete < width || found >> TIMES & 1;
    c->resume = c->at - 1;
    return 1;
}

static int member(Cursor *c) {
    String name;
    if (token(c, "\"Responses\":"))
        return !c->seen++ && token(c, "{") &&
               (token(c, "}") || (key(c, &name) && each(c, "[", "]", item) && token(c, "}")));
    if (token(c, "\"Items\":")) return !c->seen++ && each(c, "[", "]", item);
    if (token(c, "\"Item\":")) return !c->seen++ && (token(c, "null") || item(c));
    return key(c, &name) && !name.escaped && skip(c);
}

/* --- The decoder object ---------------------------------------------------------------------- */

/* The heads are taken out of the decoder during a call: readers are Python functions, which can
   call the same decoder again, or let another thread do so. */
static int take_heads(Decoder *d, Cursor *c) {
    c->most = VALUES + 2 * d->width;
    if (d->heads) {
        c->heads = d->heads, c->known = d->known;
        d->heads = NULL;
        return 1;
    }
    c->heads = PyMem_Calloc((size_t)c->most + 1, sizeof(Head));
    return c->heads || (PyErr_NoMemory(), 0);
}

static void return_heads(Decoder *d, Cursor *c, int useful) {
    if (d->heads || !useful) PyMem_Free(c->heads);
    else d->heads = c->heads, d->known = c->known;
}

static PyObject *decode(Decoder *d, PyObject *body) {
    PyObject *decoded = NULL;
    if (!PyBytes_CheckExact(body)) {
        PyErr_SetString(PyExc_TypeError, "expected bytes");
        return NULL;
    }
    const char *start = PyBytes_AS_STRING(body);
    Py_ssize_t size = PyBytes_GET_SIZE(body);
    Cursor c = {.at = start, .end = start + size, .decoder = d};
    c.cut = c.resume = c.end;
    if (!take_heads(d, &c)) return NULL;
    c.frame = frame_new(body, d->width, d->kinds);
    if (c.frame && size < INT32_MAX && each(&c, "{", "}", member) && c.at == c.end) {
        c.frame->size = c.frame->count;
        if (c.frame->holds_objects) PyObject_GC_Track(c.frame); /* Others cannot be in a cycle. */
        decoded = Py_BuildValue("Onn", c.frame, c.cut - start, c.resume - start);
    }
    return_heads(d, &c, decoded != NULL);
    Py_XDECREF(c.frame);
    if (!decoded && (!PyErr_Occurred() || (PyErr_ExceptionMatches(PyExc_Exception) &&
                                           !PyErr_ExceptionMatches(PyExc_MemoryError))))
        PyErr_SetString(PyExc_ValueError, "not an answer that is plain to read");
    return decoded;
}

static PyObject *decoder_new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(kwargs)) {
    PyObject *attributes, *key, *described;
    Py_ssize_t width, at = 0;
    if (!PyArg_ParseTuple(args, "O!n", &PyDict_Type, &attributes, &width)) return NULL;
    Decoder *d = (Decoder *)type->tp_alloc(type, 0);
    if (!d) return NULL;
    d->attributes = Py_NewRef(attributes), d->width = width;
    d->kinds = PyMem_Calloc((size_t)width + 1, 1);
    if (!d->kinds) {
        Py_DECREF(d);
        return PyErr_NoMemory();
    }
    while (PyDict_Next(attributes, &at, &key, &described)) {
        Py_ssize_t place = PyLong_AsSsize_t(PyTuple_GET_ITEM(described, 0)) - VALUES;
        if (0 <= place && place < width)
            d->kinds[place] = (unsigned char)PyLong_AsLong(PyTuple_GET_ITEM(described, 1));
    }
    return (PyObject *)d;
}

static int decoder_traverse(Decoder *d, visitproc visit, void *arg) {
    Py_VISIT(d->attributes);
    return 0;
}

static int decoder_clear(Decoder *d) {
    Py_CLEAR(d->attributes);
    return 0;
}

static void decoder_dealloc(Decoder *d) {
    PyObject_GC_UnTrack(d);
    Py_XDECREF(d->attributes);
    PyMem_Free(d->kinds);
    PyMem_Free(d->heads);
    Py_TYPE(d)->tp_free((PyObject *)d);
}

static PyMethodDef decoder_methods[] = {{"decode", (PyCFunction)decode, METH_O, NULL}, {0}};

PyTypeObject Decoder_Type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "chalk_online_store.codec._kernels.Decoder",
    .tp_basicsize = sizeof(Decoder),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = decoder_new,
    .tp_dealloc = (destructor)decoder_dealloc,
    .tp_traverse = (traverseproc)decoder_traverse,
    .tp_clear = (inquiry)decoder_clear,
    .tp_methods = decoder_methods,
};
