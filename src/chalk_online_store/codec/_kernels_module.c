/* The module of the compiled kernels: see `_kernels.pyi`. */

#include "_kernels.h"

/* The float nearest to value / 10**places, for tests: decoding uses the same function. */
static PyObject *quotient(PyObject *Py_UNUSED(module), PyObject *args) {
    unsigned long long value;
    int places;
    if (!PyArg_ParseTuple(args, "Ki", &value, &places)) return NULL;
    if (places < 0 || places > 19) {
        PyErr_SetString(PyExc_ValueError, "places must be from 0 to 19");
        return NULL;
    }
    return PyFloat_FromDouble(divided(value, places));
}

static PyMethodDef methods[] = {{"cut", kernel_cut, METH_O, NULL},
                                {"encode", kernel_encode, METH_VARARGS, NULL},
                                {"pack", kernel_pack, METH_VARARGS, NULL},
                                {"render", kernel_render, METH_VARARGS, NULL},
                                {"partition_keys", kernel_partition_keys, METH_VARARGS, NULL},
                                {"key_list", kernel_key_list, METH_VARARGS, NULL},
                                {"dicts", kernel_dicts, METH_VARARGS, NULL},
                                {"quotient", quotient, METH_VARARGS, NULL},
                                {0}};

static int execute(PyObject *module) {
    PyTypeObject *types[] = {&Decoder_Type, &Filler_Type, &Frame_Type};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (PyModule_AddType(module, types[i]) < 0) return -1;
    return 0;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, execute}, {0, NULL}};
static PyModuleDef module = {PyModuleDef_HEAD_INIT, .m_name = "_kernels", .m_methods = methods,
                             .m_slots = slots};
PyMODINIT_FUNC PyInit__kernels(void) { return PyModuleDef_Init(&module); }
