/* Items to msgpack, as `valkey.packing` stores them in Valkey and in the shared cache. */

#include "_kernels.h"

typedef struct { const char *name; Py_ssize_t size; const char *text, *end; int is_time; } Member;

static int starts(const Member *m, const char *open) {
    size_t size = strlen(open);
    return (size_t)(m->end - m->text) >= size && memcmp(m->text, open, size) == 0;
}

static int is_exactly(const Member *m, const char *text) {
    return (size_t)(m->end - m->text) == strlen(text) && starts(m, text);
}

static unsigned char *big_endian(unsigned char *out, unsigned char code, uint64_t value, int bytes) {
    *out++ = code;
    while (bytes--) *out++ = (unsigned char)(value >> 8 * bytes);
    return out;
}

static unsigned char *pack_whole(unsigned char *out, uint64_t value, int minus) {
    int64_t negative = (int64_t)(0 - value);
    if (!minus) {
        if (value < 1 << 7) return *out = (unsigned char)value, out + 1;
        if (value < 1 << 8) return big_endian(out, 0xCC, value, 1);
        if (value < 1 << 16) return big_endian(out, 0xCD, value, 2);
        if (value < 1ULL << 32) return big_endian(out, 0xCE, value, 4);
        return big_endian(out, 0xCF, value, 8);
    }
    if (negative >= -32) return *out = (unsigned char)negative, out + 1;
    if (negative >= -128) return big_endian(out, 0xD0, (uint64_t)negative, 1);
    if (negative >= -32768) return big_endian(out, 0xD1, (uint64_t)negative, 2);
    if (negative >= -2147483648LL) return big_endian(out, 0xD2, (uint64_t)negative, 4);
    return big_endian(out, 0xD3, (uint64_t)negative, 8);
}

/* A header with the size of what follows, by the codes for one, two and four bytes of size. */
static unsigned char *sized(unsigned char *out, Py_ssize_t size, const unsigned char codes[3]) {
    if (size < 1 << 8) return big_endian(out, codes[0], (uint64_t)size, 1);
    if (size < 1 << 16) return big_endian(out, codes[1], (uint64_t)size, 2);
    return big_endian(out, codes[2], (uint64_t)size, 4);
}

/* A float whose text is the one that the encoder writes for it; NULL if that is not certain. */
static unsigned char *pack_real(unsigned char *out, const char *first, const char *end, int minus) {
    const char *p = first;
    uint64_t value = 0;
    int count = 0, places = 0, point = 0;
    for (; p < end; p++) {
        if (*p == '.' && !point++ && p > first) continue;
        if (*p < '0' || *p > '9') return NULL;
        count += count || *p != '0';
        places += point;
        if (count > 19 || places > 19) return NULL;
        value = value * 10 + (uint64_t)(*p - '0');
    }
    if (!places || (first[0] == '0' && first[1] != '.')) return NULL;
    double x = divided(value, places);
    if (x < 1e-4 || x >= 1e15) return NULL; /* Others may be written with an exponent. */
    /* No two decimals of 15 digits make the same float. So such a decimal is the shortest, unless
       it ends with a zero. */
    if (count > 15 || (end[-1] == '0' && places > 1)) {
        char *shortest = PyOS_double_to_string(x, 'r', 0, Py_DTSF_ADD_DOT_0, NULL);
        if (!shortest) return NULL;
        int same = strlen(shortest) == (size_t)(end - first) &&
                   memcmp(shortest, first, (size_t)(end - first)) == 0;
        PyMem_Free(shortest);
        if (!same) return NULL;
    }
    uint64_t bits;
    if (minus) x = -x;
    memcpy(&bits, &x, sizeof bits);
    return big_endian(out, 0xCB, bits, 8);
}

static unsigned char *pack_number(unsigned char *out, const Member *m) {
    const char *first = m->text + 6, *end = m->end - 2, *p;
    if (end <= first || m->end[-1] != '}' || *end != '"') return NULL;
    int minus = *first == '-';
    first += minus;
    uint64_t value = 0;
    for (p = first; p < end && *p >= '0' && *p <= '9'; p++)
        value = value * 10 + (uint64_t)(*p - '0');
    if (p < end) return pack_real(out, first, end, minus);
    Py_ssize_t count = end - first;
    if (!count || count > 19 || (*first == '0' && (count > 1 || minus))) return NULL;
    if (minus && value > 1ULL << 63) return NULL;
    return pack_whole(out, value, minus);
}

static unsigned char *pack_text(unsigned char *out, const Member *m) {
    static const unsigned char CODES[] = {0xD9, 0xDA, 0xDB};
    const char *first = m->text + 6, *end = m->end - 2;
    if (end < first || m->end[-1] != '}' || *end != '"') return NULL;
    int ascii = 1;
    for (const char *p = first; p < end; p++) {
        unsigned char letter = (unsigned char)*p;
        if (letter < ' ' || letter == '"' || letter == '\\') return NULL;
        ascii &= letter < 128;
    }
    if (!ascii) { /* Python refuses bytes that are not UTF-8. */
        PyObject *decoded = PyUnicode_DecodeUTF8(first, end - first, NULL);
        if (!decoded) return NULL;
        Py_DECREF(decoded);
    }
    if (end - first < 32) *out++ = (unsigned char)(0xA0 + (end - first));
    else out = sized(out, end - first, CODES);
    memcpy(out, first, (size_t)(end - first));
    return out + (end - first);
}

enum { JSON = 1, EIGHT = 8 }; /* Codes of extensions. */

static unsigned char *pack_binary(unsigned char *out, const Member *m) {
    static const unsigned char CODES[] = {0xC4, 0xC5, 0xC6};
    const char *first = m->text + 6, *end = m->end - 2;
    if (end < first || m->end[-1] != '}' || *end != '"') return NULL;
    Py_ssize_t size = base64_size(first, end - first);
    if (size < 0) return NULL;
    if (size == EIGHT) *out++ = 0xD7, *out++ = EIGHT;
    else out = sized(out, size, CODES);
    return base64_decoded(first, end - first, size, out) ? out + size : NULL;
}

static unsigned char *pack_json(unsigned char *out, const Member *m) {
    static const unsigned char CODES[] = {0xC7, 0xC8, 0xC9};
    Py_ssize_t size = m->end - m->text;
    int fixed = size == 1 ? 0xD4 : size == 2 ? 0xD5 : size == 4 ? 0xD6 : size == 8 ? 0xD7 : 0xD8;
    if (fixed != 0xD8 || size == 16) *out++ = (unsigned char)fixed;
    else out = sized(out, size, CODES);
    *out++ = JSON;
    memcpy(out, m->text, (size_t)size);
    return out + size;
}

static unsigned char *pack_value(unsigned char *out, const Member *m) {
    Py_ssize_t looked = m->end - m->text < 9 ? m->end - m->text : 9;
    if (looked < 5 || memchr(m->text, ' ', (size_t)looked)) return NULL;
    if (starts(m, "{\"N\":\"")) return pack_number(out, m);
    if (starts(m, "{\"S\":\"")) return pack_text(out, m);
    if (starts(m, "{\"B\":\"")) return pack_binary(out, m);
    if (is_exactly(m, "{\"BOOL\":true}")) return *out = 0xC3, out + 1;
    if (is_exactly(m, "{\"BOOL\":false}")) return *out = 0xC2, out + 1;
    if (is_exactly(m, "{\"NULL\":true}")) return *out = 0xC0, out + 1;
    if (m->text[2] == 'N' && m->text[3] == '"') return NULL;
    if (m->text[2] == 'S' && m->text[3] == '"') return NULL;
    if (m->text[2] == 'B' && (m->text[3] == '"' || m->text[3] == 'O')) return NULL;
    return pack_json(out, m);
}

static unsigned char *pack_name(unsigned char *out, const Member *m) {
    *out++ = (unsigned char)(0xA0 + m->size);
    memcpy(out, m->name, (size_t)m->size);
    return out + m->size;
}

/* Observed-ats have 64 bits always: the script of the server compares them where they are. */
static unsigned char *pack_time(unsigned char *out, const Member *m) {
    if (!starts(m, "{\"N\":\"")) return NULL;
    const char *first = m->text + 6, *end = m->end - 2, *p = first;
    if (end <= first || m->end[-1] != '}' || *end != '"' || end - first > 18) return NULL;
    uint64_t value = 0;
    for (; p < end && *p >= '0' && *p <= '9'; p++) value = value * 10 + (uint64_t)(*p - '0');
    if (p < end || (*first == '0' && end - first > 1)) return NULL;
    return big_endian(out, 0xD3, value, 8);
}

static int by_name(const void *one, const void *other) {
    const Member *a = one, *b = other;
    int order = memcmp(a->name, b->name, (size_t)(a->size < b->size ? a->size : b->size));
    return order ? order : (a->size > b->size) - (a->size < b->size);
}

/* pack(item, left_out): an item but for some attributes; None if any of it is not plain. */
PyObject *kernel_pack(PyObject *Py_UNUSED(module), PyObject *args) {
    PyObject *item, *left_out, *name, *value, *packed = NULL;
    if (!PyArg_ParseTuple(args, "O!O!", &PyDict_Type, &item, &PyFrozenSet_Type, &left_out))
        return NULL;
    static const char ZERO[] = "{\"N\":\"0\"}";
    Py_ssize_t most = PyDict_GET_SIZE(item) + 1, times = 1, count = 0, at = 0, total = 16;
    Member *members = PyMem_Calloc((size_t)most * 2, sizeof *members), *values = members + most;
    if (!members) return PyErr_NoMemory();
    /* The latest observed-at comes first, whether the item has one or not. */
    members[0] = (Member){"@", 1, ZERO, ZERO + sizeof ZERO - 1, 1};
    while (PyDict_Next(item, &at, &name, &value)) {
        if (!PyUnicode_CheckExact(name) || !PyUnicode_IS_COMPACT_ASCII(name) ||
            !PyBytes_CheckExact(value))
            goto unsure;
        int skipped = PySet_Contains(left_out, name);
        if (skipped < 0) goto done;
        if (skipped) continue;
        Member m = {(const char *)PyUnicode_DATA(name), PyUnicode_GET_LENGTH(name),
                    PyBytes_AS_STRING(value), NULL, 0};
        if (m.size > 31 || m.size < 1) goto unsure;
        m.end = m.text + PyBytes_GET_SIZE(value);
        m.is_time = m.name[0] == '@' || (m.size == 1 && (m.name[0] == '~' || m.name[0] == '!'));
        total += 1 + m.size + 16 + PyBytes_GET_SIZE(value);
        if (!m.is_time) values[count++] = m;
        else if (m.size == 1 && m.name[0] == '@') members[0] = m;
        else members[times++] = m;
    }
    if (times + count >= 1 << 16) goto unsure;
    qsort(values, (size_t)count, sizeof *values, by_name);
    if (!(packed = PyBytes_FromStringAndSize(NULL, total))) goto done;
    unsigned char *start = (unsigned char *)PyBytes_AS_STRING(packed), *out = start;
    if (times + count < 16) *out++ = (unsigned char)(0x80 + times + count);
    else out = big_endian(out, 0xDE, (uint64_t)(times + count), 2);
    for (Py_ssize_t i = 0; out && i < times; i++) out = pack_time(pack_name(out, &members[i]), &members[i]);
    for (Py_ssize_t i = 0; out && i < count; i++) out = pack_value(pack_name(out, &values[i]), &values[i]);
    if (out) {
        _PyBytes_Resize(&packed, out - start);
    } else {
        Py_CLEAR(packed);
        if (!PyErr_Occurred() || PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) goto unsure;
    }
    goto done;
unsure:
    PyErr_Clear();
    packed = Py_NewRef(Py_None);
done:
    PyMem_Free(members);
    return packed;
}
