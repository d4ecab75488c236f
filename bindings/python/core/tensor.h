/* SPDX-License-Identifier: Apache-2.0
 *
 * Arrays as chorus_tensor, without copies: the buffer protocol, DLPack, ml_dtypes' arrays, or a dict of the fields. What is
 * borrowed is held by a chorus_hold until the call returns.
 */
#ifndef CHORUS_CORE_TENSOR_H_
#define CHORUS_CORE_TENSOR_H_

/* DLPack's structs (dlpack.h 1.1), as far as a consumer needs them. */
typedef struct {
  void *data;
  int32_t device_type, device_id;
  int32_t ndim;
  uint8_t code, bits;
  uint16_t lanes;
  int64_t *shape, *strides;
  uint64_t byte_offset;
} chorus_dl_tensor;
typedef struct chorus_dl_versioned {
  uint32_t major, minor;
  void *manager;
  void (*deleter)(struct chorus_dl_versioned *self);
  uint64_t flags; /* bit 0: read only */
  chorus_dl_tensor tensor;
} chorus_dl_versioned;

typedef struct chorus_piece {
  struct chorus_piece *next;
  PyObject *keep; /* owned, or NULL */
  Py_buffer buffer;
  int has_buffer;
  chorus_tensor tensor;
  chorus_quant quant;
  int64_t shape[CHORUS_MAX_DIMENSIONS], strides[CHORUS_MAX_DIMENSIONS];
  void *memory; /* owned, or NULL */
} chorus_piece;

/** What one argument borrows. */
typedef struct {
  chorus_piece *pieces;
} chorus_hold;

static chorus_piece *chorus_hold_add(chorus_hold *hold) {
  chorus_piece *piece = (chorus_piece *)PyMem_Calloc(1, sizeof(chorus_piece));
  if (piece == NULL) {
    PyErr_NoMemory();
    return NULL;
  }
  piece->next = hold->pieces;
  hold->pieces = piece;
  return piece;
}

static void chorus_hold_release(chorus_hold *hold) {
  while (hold->pieces != NULL) {
    chorus_piece *piece = hold->pieces;
    hold->pieces = piece->next;
    if (piece->has_buffer) PyBuffer_Release(&piece->buffer);
    Py_XDECREF(piece->keep);
    PyMem_Free(piece->memory);
    PyMem_Free(piece);
  }
}

/** Bytes from the first to the last element; strides in elements, >= 0 (libchorus refuses others). */
static uint64_t chorus_core_extent(const chorus_tensor *t) {
  uint64_t last = 0, compact = 1;
  int32_t i;
  for (i = 0; i < t->ndim; ++i)
    if (t->shape[i] <= 0) return 0;
  for (i = t->ndim - 1; i >= 0; --i) {
    const uint64_t stride = t->strides != NULL ? (uint64_t)(t->strides[i] > 0 ? t->strides[i] : 0) : compact;
    last += (uint64_t)(t->shape[i] - 1) * stride;
    compact *= (uint64_t)t->shape[i];
  }
  return (last * t->dtype_bits + t->dtype_bits + 7) / 8;
}

/** DLPack code and bits of a struct-module letter; 0: none. */
static chorus_dtype chorus_core_dtype_of_format(const char *format, Py_ssize_t itemsize) {
  char letter;
  const uint32_t bits = (uint32_t)itemsize * 8;
  if (format == NULL) format = "B";
  if (*format == '@' || *format == '=' || *format == '<') ++format;
  letter = *format;
  if (letter == 0 || format[1] != 0) return 0;
  if (strchr("efd", letter) != NULL) return CHORUS_DTYPE_CODE_FLOAT | bits << 8;
  if (strchr("bhilqn", letter) != NULL) return CHORUS_DTYPE_CODE_INT | bits << 8;
  if (strchr("BHILQNc", letter) != NULL) return CHORUS_DTYPE_CODE_UINT | bits << 8;
  return letter == '?' ? CHORUS_BOOL : 0;
}

/** A dtype that the buffer protocol cannot say, by its name: those of ml_dtypes. */
static chorus_dtype chorus_core_dtype_of_name(const char *name) {
  if (strcmp(name, "bfloat16") == 0) return CHORUS_BF16;
  if (strcmp(name, "float8_e4m3fn") == 0) return CHORUS_F8_E4M3FN;
  if (strcmp(name, "float8_e5m2") == 0) return CHORUS_F8_E5M2;
  if (strcmp(name, "float8_e8m0fnu") == 0) return CHORUS_F8_E8M0FNU;
  return 0;
}

static void chorus_core_set_dtype(chorus_tensor *tensor, chorus_dtype dtype) {
  tensor->dtype_code = (uint8_t)(dtype & 0xff);
  tensor->dtype_bits = (uint8_t)(dtype >> 8);
  tensor->dtype_lanes = 1;
}

/** `dtype` 0: what the buffer says. */
static int chorus_core_from_buffer(chorus_piece *piece, PyObject *value, chorus_dtype dtype, const char *name) {
  chorus_tensor *t = &piece->tensor;
  Py_buffer *b = &piece->buffer;
  int i;
  if (PyObject_GetBuffer(value, b, PyBUF_STRIDES | PyBUF_FORMAT) != 0) return 0;
  piece->has_buffer = 1;
  if (dtype == 0) dtype = chorus_core_dtype_of_format(b->format, b->itemsize);
  if (dtype == 0) {
    PyErr_Format(PyExc_TypeError, "%s: elements of format '%s' are no Chorus data type", name, b->format);
    return 0;
  }
  if (b->ndim > CHORUS_MAX_DIMENSIONS) {
    PyErr_Format(PyExc_ValueError, "%s: has %d dimensions; at most %d are allowed", name, b->ndim, CHORUS_MAX_DIMENSIONS);
    return 0;
  }
  for (i = 0; i < b->ndim; ++i) {
    piece->shape[i] = b->shape[i];
    if (b->strides == NULL) continue; /* ctypes: compact */
    piece->strides[i] = b->itemsize > 0 ? b->strides[i] / b->itemsize : 0;
    if (b->itemsize > 0 && b->strides[i] % b->itemsize != 0) {
      PyErr_Format(PyExc_ValueError, "%s: stride %zd of dimension %d is no multiple of the element's %zd bytes", name,
                   b->strides[i], i, b->itemsize);
      return 0;
    }
  }
  chorus_core_set_dtype(t, dtype);
  t->data = b->buf;
  t->ndim = b->ndim;
  t->device_type = CHORUS_DEVICE_HOST;
  t->flags = b->readonly ? CHORUS_TENSOR_READ_ONLY : 0;
  t->strides = b->strides != NULL ? piece->strides : NULL;
  return 1;
}

static int chorus_core_from_dlpack(chorus_piece *piece, PyObject *value, const char *name) {
  static const char *const kNames[] = {"dltensor_versioned", "dltensor"};
  const chorus_dl_tensor *source = NULL;
  chorus_tensor *t = &piece->tensor;
  PyObject *method = PyObject_GetAttrString(value, "__dlpack__"), *empty, *keywords;
  int i;
  if (method == NULL) return 0;
  empty = PyTuple_New(0);
  keywords = Py_BuildValue("{s(ii)}", "max_version", 1, 1);
  piece->keep = empty != NULL && keywords != NULL ? PyObject_Call(method, empty, keywords) : NULL;
  if (piece->keep == NULL && PyErr_ExceptionMatches(PyExc_TypeError)) { /* a producer from before DLPack 1.0 */
    PyErr_Clear();
    piece->keep = PyObject_Call(method, empty, NULL);
  }
  Py_XDECREF(keywords);
  Py_XDECREF(empty);
  Py_DECREF(method);
  if (piece->keep == NULL) return 0;
  /* The capsule stays unconsumed: its own destructor gives the memory back when the call is over. */
  if (PyCapsule_IsValid(piece->keep, kNames[0])) {
    const chorus_dl_versioned *versioned = (const chorus_dl_versioned *)PyCapsule_GetPointer(piece->keep, kNames[0]);
    if (versioned->major != 1) {
      PyErr_Format(PyExc_BufferError, "%s: DLPack %u.x is unknown; 1.x is allowed", name, (unsigned)versioned->major);
      return 0;
    }
    source = &versioned->tensor;
    t->flags = (versioned->flags & 1) != 0 ? CHORUS_TENSOR_READ_ONLY : 0;
  } else if (PyCapsule_IsValid(piece->keep, kNames[1])) {
    source = (const chorus_dl_tensor *)PyCapsule_GetPointer(piece->keep, kNames[1]);
  } else {
    PyErr_Format(PyExc_TypeError, "%s: __dlpack__() gave %R, which is no DLPack capsule", name, piece->keep);
    return 0;
  }
  if (source->ndim > CHORUS_MAX_DIMENSIONS) {
    PyErr_Format(PyExc_ValueError, "%s: has %d dimensions; at most %d are allowed", name, (int)source->ndim,
                 CHORUS_MAX_DIMENSIONS);
    return 0;
  }
  t->data = source->data != NULL ? (char *)source->data + source->byte_offset : NULL;
  t->device_type = source->device_type;
  t->device_id = source->device_type == CHORUS_DEVICE_HOST ? 0 : source->device_id;
  t->dtype_code = source->code;
  t->dtype_bits = source->bits;
  t->dtype_lanes = source->lanes;
  t->ndim = source->ndim;
  for (i = 0; i < source->ndim; ++i) {
    piece->shape[i] = source->shape[i];
    if (source->strides != NULL) piece->strides[i] = source->strides[i];
  }
  t->strides = source->strides != NULL ? piece->strides : NULL;
  return 1;
}

static int chorus_core_from_dict(chorus_hold *hold, chorus_piece *piece, PyObject *value);

/** An array whose dtype has a name of ml_dtypes: through its view as integers of the same width. -1: it is none. */
static int chorus_core_from_named(chorus_piece *piece, PyObject *value, const char *name) {
  PyObject *dtype = PyObject_GetAttrString(value, "dtype"), *text = NULL;
  const char *word;
  chorus_dtype known = 0;
  PyErr_Clear();
  if (dtype == NULL) return -1;
  text = PyObject_Str(dtype);
  Py_DECREF(dtype);
  word = text != NULL ? PyUnicode_AsUTF8AndSize(text, NULL) : NULL;
  if (word != NULL) known = chorus_core_dtype_of_name(word);
  Py_XDECREF(text);
  PyErr_Clear();
  if (known == 0 || !PyObject_HasAttrString(value, "__array_interface__")) return -1;
  piece->keep = PyObject_CallMethod(value, "view", "s", known >> 8 == 16 ? "uint16" : "uint8");
  return piece->keep != NULL && chorus_core_from_buffer(piece, piece->keep, known, name);
}

/** A view of `value` (None: NULL), held by `hold`. `name` is for messages. */
static int chorus_core_tensor(chorus_hold *hold, PyObject *value, const char *name, const chorus_tensor **out) {
  const chorus_tensor initial = CHORUS_TENSOR_INIT;
  chorus_piece *piece;
  int done;
  *out = NULL;
  if (value == Py_None) return 1;
  piece = chorus_hold_add(hold);
  if (piece == NULL) return 0;
  piece->tensor = initial;
  piece->tensor.shape = piece->shape;
  if (PyDict_Check(value)) {
    done = chorus_core_from_dict(hold, piece, value);
  } else {
    done = PyObject_CheckBuffer(value) ? chorus_core_from_named(piece, value, name) : 0;
    if (done == -1) done = chorus_core_from_buffer(piece, value, 0, name);
    else if (done == 0 && !PyErr_Occurred()) {
      if (PyObject_HasAttrString(value, "__dlpack__")) done = chorus_core_from_dlpack(piece, value, name);
      else PyErr_Format(PyExc_TypeError, "%s: needs an array with the buffer protocol or __dlpack__, not %R", name, value);
    }
  }
  if (!done) return 0;
  if (piece->tensor.size_bytes == 0) piece->tensor.size_bytes = chorus_core_extent(&piece->tensor);
  *out = &piece->tensor;
  return 1;
}

/** Numbers of one kind: any contiguous buffer of that format (`format` 0: any bytes), an address, or None. `out_count` may be
 * NULL; -1: an address, whose length nobody knows. */
static int chorus_core_numbers(chorus_hold *hold, PyObject *value, char format, int writable, const char *name, void **out,
                               int64_t *out_count) {
  chorus_piece *piece;
  Py_buffer *b;
  *out = NULL;
  if (out_count != NULL) *out_count = 0;
  if (value == Py_None) return 1;
  if (PyLong_Check(value)) {
    *out = PyLong_AsVoidPtr(value);
    if (out_count != NULL) *out_count = -1;
    return !PyErr_Occurred();
  }
  piece = chorus_hold_add(hold);
  if (piece == NULL) return 0;
  b = &piece->buffer;
  if (PyObject_GetBuffer(value, b, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | (writable ? PyBUF_WRITABLE : 0)) != 0) return 0;
  piece->has_buffer = 1;
  if (format != 0) {
    const char wanted[2] = {format, 0};
    const Py_ssize_t size = strchr("bB", format) ? 1 : strchr("hH", format) ? 2 : strchr("iIf", format) ? 4 : 8;
    if (chorus_core_dtype_of_format(b->format, b->itemsize) != chorus_core_dtype_of_format(wanted, size)) {
      PyErr_Format(PyExc_TypeError, "%s: elements of format '%s'; '%s' is needed", name, b->format, wanted);
      return 0;
    }
  }
  *out = b->buf;
  if (out_count != NULL) *out_count = format != 0 && b->itemsize > 0 ? b->len / b->itemsize : b->len;
  return 1;
}

/** Text: str, bytes, a path, or None. Without `has_length` no 0 may lie in it. */
static int chorus_core_text(chorus_hold *hold, PyObject *value, int has_length, const char *name, const char **out) {
  chorus_piece *piece;
  Py_ssize_t size = 0;
  char *bytes = NULL;
  *out = NULL;
  if (value == Py_None) return 1;
  if (PyUnicode_Check(value) && !has_length) {
    *out = PyUnicode_AsUTF8AndSize(value, &size); /* cached in the str, which the caller's arguments hold */
    if (*out != NULL && strlen(*out) == (size_t)size) return 1;
    PyErr_Clear();
  }
  piece = chorus_hold_add(hold);
  if (piece == NULL) return 0;
  if (PyUnicode_Check(value)) piece->keep = PyUnicode_AsEncodedString(value, "utf-8", "surrogateescape");
  else if (PyBytes_Check(value)) Py_INCREF(piece->keep = value);
  else {
    PyObject *path = PyOS_FSPath(value);
    if (path == NULL) {
      PyErr_Format(PyExc_TypeError, "%s: needs text or a path, not %R", name, value);
      return 0;
    }
    piece->keep = path;
    if (PyUnicode_Check(path)) {
      piece->keep = PyUnicode_EncodeFSDefault(path);
      Py_DECREF(path);
    }
  }
  if (piece->keep == NULL || PyBytes_AsStringAndSize(piece->keep, &bytes, &size) != 0) return 0;
  if (!has_length && strlen(bytes) != (size_t)size) {
    PyErr_Format(PyExc_ValueError, "%s: has a character 0 inside", name);
    return 0;
  }
  *out = bytes;
  return 1;
}

/** Numbers of C memory, copied: a memoryview of `format`. */
static PyObject *chorus_core_copy(const void *from, int64_t count, const char *format, size_t size) {
  PyObject *bytes, *view, *typed;
  if (from == NULL || count < 0) Py_RETURN_NONE;
  bytes = PyBytes_FromStringAndSize((const char *)from, (Py_ssize_t)((size_t)count * size));
  view = bytes != NULL ? PyMemoryView_FromObject(bytes) : NULL;
  Py_XDECREF(bytes);
  if (view == NULL || *format == 'B') return view;
  typed = PyObject_CallMethod(view, "cast", "s", format);
  Py_DECREF(view);
  return typed;
}

#endif /* CHORUS_CORE_TENSOR_H_ */
