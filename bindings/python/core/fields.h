/* SPDX-License-Identifier: Apache-2.0
 *
 * C structs from dicts and back: what the generated converters call for each field. A key that is no field is an error.
 */
#ifndef CHORUS_CORE_FIELDS_H_
#define CHORUS_CORE_FIELDS_H_

/** Where a converter is: the dict, how many of its keys it has used, what it borrows. */
typedef struct {
  PyObject *dict;
  Py_ssize_t used;
  chorus_hold *hold;
} chorus_reading;

/** The value under `name`, borrowed; NULL where it is missing or None: the field keeps its default. */
static PyObject *chorus_core_field(chorus_reading *r, const char *name) {
  PyObject *value = PyDict_GetItemString(r->dict, name);
  if (value != NULL) ++r->used;
  return value == Py_None ? NULL : value;
}

static int chorus_core_begin(chorus_reading *r, PyObject *value, chorus_hold *hold, const char *type) {
  if (!PyDict_Check(value)) {
    PyErr_Format(PyExc_TypeError, "needs a dict with the fields of %s, not %R", type, value);
    return 0;
  }
  r->dict = value;
  r->used = 0;
  r->hold = hold;
  return 1;
}

static int chorus_core_end(const chorus_reading *r, const char *type, const char *fields) {
  if (r->used == PyDict_Size(r->dict)) return 1;
  PyErr_Format(PyExc_TypeError, "%R: some key is no field of %s (%s)", r->dict, type, fields);
  return 0;
}

#define CHORUS_FIELD_INTEGER(field, kind, low, high)                                        \
  if ((value = chorus_core_field(&r, #field)) != NULL) {                                    \
    int64_t number;                                                                         \
    if (!chorus_core_integer(value, low, high, #field, &number)) return 0;                  \
    s->field = (kind)number;                                                                \
  }
#define CHORUS_FIELD_UNSIGNED(field)                                                        \
  if ((value = chorus_core_field(&r, #field)) != NULL) {                                    \
    uint64_t number;                                                                        \
    if (!chorus_core_unsigned(value, #field, &number)) return 0;                            \
    s->field = number;                                                                      \
  }
#define CHORUS_FIELD_REAL(field)                                                            \
  if ((value = chorus_core_field(&r, #field)) != NULL) {                                    \
    double number;                                                                          \
    if (!chorus_core_real(value, #field, &number)) return 0;                                \
    s->field = number;                                                                      \
  }
#define CHORUS_FIELD_TEXT(field)                                                            \
  if ((value = chorus_core_field(&r, #field)) != NULL &&                                    \
      !chorus_core_text(hold, value, 0, #field, &s->field)) return 0;
#define CHORUS_FIELD_TENSOR(field)                                                          \
  if ((value = chorus_core_field(&r, #field)) != NULL &&                                    \
      !chorus_core_tensor(hold, value, #field, &s->field)) return 0;
#define CHORUS_FIELD_TENSORS(field)                                                         \
  if ((value = chorus_core_field(&r, #field)) != NULL &&                                    \
      !chorus_core_tensors(hold, value, #field, &s->field)) return 0;
#define CHORUS_FIELD_NUMBERS(field, kind, format)                                           \
  int64_t field##_count = 0;                                                                \
  if ((value = chorus_core_field(&r, #field)) != NULL) {                                    \
    void *numbers;                                                                          \
    if (!chorus_core_numbers(hold, value, format, 0, #field, &numbers, &field##_count)) return 0; \
    s->field = (kind)numbers;                                                               \
  }
/* After all fields are read: the array has as many numbers as its comment says. */
#define CHORUS_FIELD_LENGTH(field, length)                                                  \
  if (s->field != NULL && field##_count >= 0 && field##_count < (int64_t)(length)) {        \
    PyErr_Format(PyExc_ValueError, #field ": has %lld numbers; %lld are needed", (long long)field##_count, \
                 (long long)(length));                                                      \
    return 0;                                                                               \
  }

static int chorus_core_tensors(chorus_hold *hold, PyObject *values, const char *name, const chorus_tensor *const **out) {
  const Py_ssize_t count = PySequence_Size(values);
  chorus_piece *piece = count >= 0 ? chorus_hold_add(hold) : NULL;
  const chorus_tensor **list;
  Py_ssize_t i;
  if (piece == NULL) return 0;
  list = (const chorus_tensor **)PyMem_Calloc((size_t)count + 1, sizeof(*list));
  piece->memory = list;
  if (list == NULL) {
    PyErr_NoMemory();
    return 0;
  }
  for (i = 0; i < count; ++i) {
    PyObject *value = PySequence_GetItem(values, i);
    chorus_piece *keep = value != NULL ? chorus_hold_add(hold) : NULL;
    if (keep == NULL) {
      Py_XDECREF(value);
      return 0;
    }
    keep->keep = value;
    if (!chorus_core_tensor(hold, value, name, &list[i])) return 0;
  }
  *out = list;
  return 1;
}

/** Adds `value`, taken, under `name`; 0 when there is none. */
static int chorus_core_put(PyObject *dict, const char *name, PyObject *value) {
  const int failed = value == NULL || PyDict_SetItemString(dict, name, value) != 0;
  Py_XDECREF(value);
  return !failed;
}

/** A tensor told field by field: {"data": address, "dtype": CHORUS_*, "shape": …}, or an array with its scales: {"values": array,
 * "quant": {"scales": …}}. */
static int chorus_core_from_dict(chorus_hold *hold, chorus_piece *piece, PyObject *dict) {
  chorus_tensor *s = &piece->tensor;
  chorus_reading r;
  PyObject *value;
  int64_t count = 0, dtype = 0;
  void *numbers = NULL;
  if (!chorus_core_begin(&r, dict, hold, "chorus_tensor")) return 0;
  if ((value = chorus_core_field(&r, "values")) != NULL) {
    const chorus_tensor *inner;
    if (!chorus_core_tensor(hold, value, "values", &inner)) return 0;
    *s = *inner;
  }
  if ((value = chorus_core_field(&r, "data")) != NULL && !chorus_core_numbers(hold, value, 0, 0, "data", &s->data, NULL)) return 0;
  CHORUS_FIELD_UNSIGNED(size_bytes)
  CHORUS_FIELD_INTEGER(device_type, int32_t, INT32_MIN, INT32_MAX)
  CHORUS_FIELD_INTEGER(device_id, int32_t, INT32_MIN, INT32_MAX)
  CHORUS_FIELD_INTEGER(flags, uint32_t, 0, UINT32_MAX)
  if ((value = chorus_core_field(&r, "dtype")) != NULL) {
    if (!chorus_core_integer(value, 0, 0xffff, "dtype", &dtype)) return 0;
    chorus_core_set_dtype(s, (chorus_dtype)dtype);
  }
  if ((value = chorus_core_field(&r, "shape")) != NULL) {
    const Py_ssize_t ndim = PySequence_Size(value);
    Py_ssize_t i;
    if (ndim < 0) return 0;
    if (ndim > CHORUS_MAX_DIMENSIONS) {
      PyErr_Format(PyExc_ValueError, "shape: has %zd dimensions; at most %d are allowed", ndim, CHORUS_MAX_DIMENSIONS);
      return 0;
    }
    for (i = 0; i < ndim; ++i) {
      PyObject *size = PySequence_GetItem(value, i);
      const int done = size != NULL && chorus_core_integer(size, INT64_MIN, INT64_MAX, "shape", &piece->shape[i]);
      Py_XDECREF(size);
      if (!done) return 0;
    }
    s->ndim = (int32_t)ndim;
    s->shape = piece->shape;
    s->strides = NULL;
    if (s->device_type == 0) s->device_type = CHORUS_DEVICE_HOST;
  }
  if ((value = chorus_core_field(&r, "quant")) != NULL) {
    const chorus_quant initial = CHORUS_QUANT_INIT;
    chorus_tensor *const tensor = s;
    chorus_reading outer = r;
    piece->quant = initial;
    {
      chorus_quant *s = &piece->quant;
      if (!chorus_core_begin(&r, value, hold, "chorus_quant")) return 0;
      CHORUS_FIELD_TENSOR(scales)
      CHORUS_FIELD_TENSOR(zero_points)
      CHORUS_FIELD_INTEGER(group_size, int64_t, INT64_MIN, INT64_MAX)
      CHORUS_FIELD_INTEGER(axis, int32_t, INT32_MIN, INT32_MAX)
      CHORUS_FIELD_INTEGER(packing, uint32_t, 0, UINT32_MAX)
      if (!chorus_core_end(&r, "chorus_quant", "scales, zero_points, group_size, axis, packing")) return 0;
    }
    r = outer;
    tensor->quant = &piece->quant;
  }
  (void)count;
  (void)numbers;
  return chorus_core_end(&r, "chorus_tensor", "values, data, size_bytes, device_type, device_id, dtype, shape, flags, quant");
}

#endif /* CHORUS_CORE_FIELDS_H_ */
