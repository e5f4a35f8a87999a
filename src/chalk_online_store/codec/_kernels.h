/* Shared declarations of the compiled kernels. `_kernels.pyi` documents the Python interface.

   A kernel handles the plain case only. For everything else it raises ValueError or returns None
   or False, and the Python code that defines it decides. So one definition says what a stored
   value means, and each kernel is tested against it.

   Reading ahead. A body is a bytes object, whose last byte is followed by a NUL. No token contains
   a NUL, so looking one character ahead needs no bounds check. Code that looks further ahead has
   to compare with `end` first. */

#ifndef CHALK_KERNELS_H
#define CHALK_KERNELS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

enum { PK, SK, LATEST, TIMES, VALUES }; /* Positions in a row. BASE is described as TIMES. */
enum { KIND_S, KIND_B, KIND_BOOL, KIND_INT, KIND_FLOAT, KIND_OTHER }; /* As in decoding.py. */

/* The state of one feature of one item. PLAIN cells hold the content itself, OBJECT cells a
   Python object. OWN is a flag: the value has its own observed-at. */
enum { ABSENT, NIL, PLAIN, OBJECT, STATE = 7, OWN = 8 };

typedef struct { uint32_t start, size; } Span; /* Of the body; of `arena` for KIND_B. */

typedef union {
    double real;
    int64_t whole; /* Of KIND_INT; 0 or 1 of KIND_BOOL. */
    Span span;
    PyObject *object;
} Cell;

typedef struct {
    Span pk, sk;
    int64_t latest, base; /* UTC us. `base` applies to values without their own observed-at. */
    int has_times;        /* If not, each value is present and as old as `latest`. */
} Item;

/* The items of one response, with typed cells instead of a Python object for each value. */
typedef struct {
    PyObject_HEAD
    PyObject *body;
    Py_ssize_t width, count, capacity; /* Cells per item; items; items there is room for. */
    unsigned char *kinds;              /* One for each cell of an item. */
    Item *items;
    Cell *cells;           /* Item by item. */
    unsigned char *states; /* One for each cell. */
    int64_t *own;          /* One for each cell; NULL if no value has its own observed-at. */
    unsigned char *arena;  /* The decoded bytes of KIND_B. */
    Py_ssize_t arena_used;
    int32_t *order;  /* The item of each requested key, or -1; NULL before `place`. */
    Py_ssize_t size; /* The number of requested keys; `count` before `place`. */
    int holds_objects; /* Whether a reader made a cell. */
    int references;    /* Whether a cell has an object, of a reader or a text. */
    PyObject **rows; /* The row tuples that were made so far; NULL before the first one. */
} Frame;

extern PyTypeObject Decoder_Type, Filler_Type, Frame_Type;

Frame *frame_new(PyObject *body, Py_ssize_t width, const unsigned char *kinds);
int frame_grow(Frame *frame, Py_ssize_t capacity);

/* The index of an item of a frame by the position of its key; -1 if there is no such item. */
static inline Py_ssize_t frame_item(const Frame *f, Py_ssize_t position) {
    return f->order ? f->order[position] : position;
}

static inline int64_t frame_time(const Frame *f, Py_ssize_t item, Py_ssize_t cell) {
    return f->states[cell] & OWN ? f->own[cell] : f->items[item].base;
}

PyObject *kernel_cut(PyObject *module, PyObject *texts);
PyObject *kernel_encode(PyObject *module, PyObject *args);
PyObject *kernel_pack(PyObject *module, PyObject *args);
PyObject *kernel_render(PyObject *module, PyObject *args);
PyObject *kernel_partition_keys(PyObject *module, PyObject *args);
PyObject *kernel_key_list(PyObject *module, PyObject *args);
PyObject *kernel_dicts(PyObject *module, PyObject *args);

/* --- base64: canonical, with padding at the end only and no bits that belong to no byte ------- */

static const signed char SEXTET[256] = { /* base64: one more than the value; 0 for other letters. */
    ['A'] = 1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22,
    23, 24, 25, 26, ['a'] = 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44,
    45, 46, 47, 48, 49, 50, 51, 52, ['0'] = 53, 54, 55, 56, 57, 58, 59, 60, 61, 62,
    ['+'] = 63, ['/'] = 64, ['='] = 1}; /* Other letters become all bits set. */
static inline unsigned sextet(char letter) { return (unsigned)SEXTET[(unsigned char)letter] - 1; }


/* The number of bytes that a text of base64 stands for; -1 if it cannot be base64. */
static inline Py_ssize_t base64_size(const char *text, Py_ssize_t size) {
    int padding = size < 4 || text[size - 1] != '=' ? 0 : text[size - 2] != '=' ? 1 : 2;
    if (size % 4 || memchr(text, '=', (size_t)(size - padding))) return -1;
    return size / 4 * 3 - padding;
}

/* Decode so many bytes; two more may be overwritten. Returns whether the text was base64. */
static inline int base64_decoded(const char *p, Py_ssize_t size, Py_ssize_t decoded,
                                 unsigned char *out) {
    unsigned bits = 0, all = 0;
    for (const char *stop = p + size; p < stop; p += 4, out += 3) {
        all |= bits = sextet(p[0]) << 18 | sextet(p[1]) << 12 | sextet(p[2]) << 6 | sextet(p[3]);
        out[0] = (unsigned char)(bits >> 16), out[1] = (unsigned char)(bits >> 8);
        out[2] = (unsigned char)bits;
    }
    return !(all >> 24 || bits & ((1U << 8 * (size / 4 * 3 - decoded)) - 1));
}

/* The decimal digits of a number, at the end of `buffer`; returns where they begin. */
static inline char *decimal(int64_t value, char buffer[21]) {
    uint64_t rest = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    char *at = buffer + 21;
    do *--at = (char)('0' + rest % 10);
    while (rest /= 10);
    if (value < 0) *--at = '-';
    return at;
}

/* --- Decimal texts to doubles: used by decode.c, tested by itself ---------------------------- */

/* value / 10**places, rounded to the nearest double. Takes at most 19 places. */
static inline double divided(uint64_t value, int places) {
    static const uint64_t TENS[] = {1ULL, 10ULL, 100ULL, 1000ULL, 10000ULL, 100000ULL, 1000000ULL,
        10000000ULL, 100000000ULL, 1000000000ULL, 10000000000ULL, 100000000000ULL,
        1000000000000ULL, 10000000000000ULL, 100000000000000ULL, 1000000000000000ULL,
        10000000000000000ULL, 100000000000000000ULL, 1000000000000000000ULL,
        10000000000000000000ULL};
    uint64_t divisor = TENS[places], quotient = 0;
    if (value < 1ULL << 53) return (double)value / (double)divisor; /* Both are exact. */
    int left = __builtin_clzll(value), right = __builtin_clzll(divisor);
    /* Both are shifted until their highest bit is set. So the quotient is less than 2 and has 63
       bits or more behind the point. A remainder sets the lowest bit, which lies below the bit
       that decides the rounding: the conversion to double then rounds once, and correctly. */
#ifdef __SIZEOF_INT128__
    unsigned __int128 shifted = (unsigned __int128)(value << left) << 63;
    quotient = (uint64_t)(shifted / (divisor << right));
    if (shifted % (divisor << right)) quotient |= 1;
#else
    uint64_t rest = value << left, by = divisor << right;
    for (int bit = 0; bit < 64; bit++) { /* Long division, for compilers without 128-bit integers. */
        int fits = bit ? (rest >> 63) || (rest << 1) >= by : rest >= by;
        if (bit) rest <<= 1;
        if (fits) rest -= by;
        quotient = quotient << 1 | (uint64_t)fits;
    }
    if (rest) quotient |= 1;
#endif
    uint64_t bits = (uint64_t)(1023 + right - left - 63) << 52; /* A power of two, as a double. */
    double scale;
    memcpy(&scale, &bits, sizeof scale);
    return (double)quotient * scale;
}

#endif
