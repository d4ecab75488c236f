/* SPDX-License-Identifier: Apache-2.0
 *
 * What the C headers do not have: how failures become exceptions, and a look at what an array becomes.
 */
%typemap(in) PyObject * "$1 = $input;"
%typemap(out) PyObject * "$result = $1;"
%typemap(in) const char *format "$1 = (char *)PyUnicode_AsUTF8AndSize($input, NULL); if ($1 == NULL) SWIG_fail;"
%{
static void chorus_core_lock_both(chorus_box *a, chorus_box *b) {
  chorus_box *const first = a < b ? a : b;
  chorus_core_lock(first);
  if (a != b) chorus_core_lock(first == a ? b : a);
}
static PyObject *set_raiser(PyObject *function) {
  Py_INCREF(function);
  Py_XDECREF(chorus_core_raiser);
  chorus_core_raiser = function;
  Py_RETURN_NONE;
}
static PyObject *deliver_log(void) {
  chorus_core_drain();
  Py_RETURN_NONE;
}
static PyObject *read_numbers(PyObject *address, int64_t count, const char *format) {
  const size_t size = strchr("bB", *format) ? 1 : strchr("hH", *format) ? 2 : strchr("iIf", *format) ? 4 : 8;
  void *memory = PyLong_AsVoidPtr(address);
  if (memory == NULL && PyErr_Occurred()) return NULL;
  return chorus_core_copy(memory, count, format, size);
}
static PyObject *describe(PyObject *array) {
  chorus_hold hold = {0};
  const chorus_tensor *t;
  PyObject *shape = NULL, *strides = NULL, *out = NULL;
  if (chorus_core_tensor(&hold, array, "array", &t)) {
    if (t == NULL) {
      Py_INCREF(Py_None);
      out = Py_None;
    } else {
      shape = chorus_core_copy(t->shape, t->ndim, "q", 8);
      strides = chorus_core_copy(t->strides, t->ndim, "q", 8);
      out = Py_BuildValue("{sN sK si si si sI sN sN}", "data", PyLong_FromVoidPtr(t->data), "size_bytes",
                          (unsigned long long)t->size_bytes, "device_type", (int)t->device_type, "device_id", (int)t->device_id,
                          "dtype", t->dtype_code | t->dtype_bits << 8, "flags", (unsigned)t->flags, "shape", shape, "strides",
                          strides);
    }
  }
  chorus_hold_release(&hold);
  return out;
}
%}
PyObject *set_raiser(PyObject *function);
PyObject *deliver_log(void);
PyObject *describe(PyObject *array);
PyObject *read_numbers(PyObject *address, int64_t count, const char *format);
