/* SPDX-License-Identifier: Apache-2.0
 *
 * How a parameter of each role (bindings/generate/headers.py) travels between Python and C. The generated core.i names parameters
 * by their role and has one macro call per type; nothing here knows a function.
 */
/* ---- Errors: the last parameter; a failed call raises --------------------------------------- */
%typemap(in, numinputs=0, noblock=1) chorus_error **error {
  chorus_error *chorus_raised = NULL;
  int chorus_results = 0;
  (void)chorus_results;
  $1 = &chorus_raised;
}
%typemap(out, noblock=1) chorus_status {
  if ($1 != CHORUS_OK) {
    chorus_core_raise($1, chorus_raised);
    SWIG_fail;
  }
  Py_INCREF(Py_None);
  $result = Py_None;
}

/* ---- Numbers ------------------------------------------------------------------------------- */
%define %chorus_integer(TYPE, LOW, HIGH, LETTER)
%typemap(in) TYPE {
  int64_t number;
  if (!chorus_core_integer($input, LOW, HIGH, "$1_name", &number)) SWIG_fail;
  $1 = (TYPE)number;
}
%typemap(out) TYPE "$result = PyLong_FromLongLong((long long)$1);"
%chorus_number(TYPE, LETTER, PyLong_FromLongLong((long long)*$1))
%enddef

%define %chorus_unsigned(TYPE)
%typemap(in) TYPE {
  uint64_t number;
  if (!chorus_core_unsigned($input, "$1_name", &number)) SWIG_fail;
  $1 = (TYPE)number;
}
%typemap(out) TYPE "$result = PyLong_FromUnsignedLongLong($1);"
%chorus_number(TYPE, 'Q', PyLong_FromUnsignedLongLong(*$1))
%enddef

%define %chorus_number(TYPE, LETTER, BUILD)
%typemap(in, numinputs=0) TYPE *NUMBER_OUT (TYPE number = 0) "$1 = &number;"
%typemap(argout) TYPE *NUMBER_OUT {
  $result = chorus_core_append($result, &chorus_results, BUILD);
  if ($result == NULL) SWIG_fail;
}
%typemap(in, numinputs=0) TYPE ARRAY_OUT[ANY] (TYPE numbers[$1_dim0] = {0}) "$1 = numbers;"
%typemap(argout) TYPE ARRAY_OUT[ANY] {
  PyObject *tuple = PyTuple_New($1_dim0);
  int i;
  for (i = 0; tuple != NULL && i < $1_dim0; ++i) PyTuple_SetItem(tuple, i, PyLong_FromUnsignedLongLong((unsigned long long)$1[i]));
  $result = chorus_core_append($result, &chorus_results, tuple);
  if ($result == NULL) SWIG_fail;
}
%typemap(in) const TYPE *BUFFER (chorus_hold hold = {0}) {
  void *numbers;
  if (!chorus_core_numbers(&hold, $input, LETTER, 0, "$1_name", &numbers, NULL)) SWIG_fail;
  $1 = ($1_ltype)numbers;
}
%typemap(in) TYPE *BUFFER_OUT (chorus_hold hold = {0}) {
  void *numbers;
  if (!chorus_core_numbers(&hold, $input, LETTER, 1, "$1_name", &numbers, NULL)) SWIG_fail;
  $1 = ($1_ltype)numbers;
}
%typemap(freearg) const TYPE *BUFFER, TYPE *BUFFER_OUT "chorus_hold_release(&hold$argnum);"
%enddef

%chorus_integer(int8_t, INT8_MIN, INT8_MAX, 'b')
%chorus_integer(int16_t, INT16_MIN, INT16_MAX, 'h')
%chorus_integer(int32_t, INT32_MIN, INT32_MAX, 'i')
%chorus_integer(int64_t, INT64_MIN, INT64_MAX, 'q')
%chorus_integer(uint8_t, 0, UINT8_MAX, 'B')
%chorus_integer(uint16_t, 0, UINT16_MAX, 'H')
%chorus_integer(uint32_t, 0, UINT32_MAX, 'I')
%chorus_unsigned(uint64_t)
%chorus_unsigned(size_t)

%typemap(in) double {
  if (!chorus_core_real($input, "$1_name", &$1)) SWIG_fail;
}
%typemap(out) double "$result = PyFloat_FromDouble($1);"
%chorus_number(double, 'd', PyFloat_FromDouble(*$1))
%chorus_number(float, 'f', PyFloat_FromDouble((double)*$1))

/* ---- Memory and text ----------------------------------------------------------------------- */
%typemap(in) const void *BUFFER (chorus_hold hold = {0}) {
  void *bytes;
  if (!chorus_core_numbers(&hold, $input, 0, 0, "$1_name", &bytes, NULL)) SWIG_fail;
  $1 = ($1_ltype)bytes;
}
%typemap(in) void *BUFFER_OUT (chorus_hold hold = {0}), char *BUFFER_OUT (chorus_hold hold = {0}) {
  void *bytes;
  if (!chorus_core_numbers(&hold, $input, 0, 1, "$1_name", &bytes, NULL)) SWIG_fail;
  $1 = ($1_ltype)bytes;
}
%typemap(freearg) const void *BUFFER, void *BUFFER_OUT, char *BUFFER_OUT "chorus_hold_release(&hold$argnum);"
%typemap(in, numinputs=0) void **POINTER_OUT (void *memory = NULL) "$1 = &memory;"
%typemap(argout) void **POINTER_OUT {
  $result = chorus_core_append($result, &chorus_results, PyLong_FromVoidPtr(*$1));
  if ($result == NULL) SWIG_fail;
}
%typemap(in) SWIGTYPE *, SWIGTYPE **, SWIGTYPE (*)(ANY) {
  void *address = $input == Py_None ? NULL : PyLong_AsVoidPtr($input);
  if (PyErr_Occurred()) SWIG_fail;
  $1 = ($1_ltype)address;
}
%typemap(out) SWIGTYPE * {
  if ($1 == NULL) { Py_INCREF(Py_None); $result = Py_None; }
  else $result = PyLong_FromVoidPtr((void *)$1);
}

%typemap(in) const char *TEXT (chorus_hold hold = {0}) {
  if (!chorus_core_text(&hold, $input, 0, "$1_name", (const char **)&$1)) SWIG_fail;
}
%typemap(in) const char *TEXT_OF_LENGTH (chorus_hold hold = {0}) {
  if (!chorus_core_text(&hold, $input, 1, "$1_name", (const char **)&$1)) SWIG_fail;
}
%typemap(freearg) const char *TEXT, const char *TEXT_OF_LENGTH "chorus_hold_release(&hold$argnum);"
%typemap(in, numinputs=0) const char **TEXT_OUT (const char *text = NULL) "$1 = ($1_ltype)&text;"
%typemap(argout) const char **TEXT_OUT {
  $result = chorus_core_append($result, &chorus_results, chorus_core_string(*$1));
  if ($result == NULL) SWIG_fail;
}
%typemap(out) const char * "$result = chorus_core_string($1);"

/* ---- Tensors ------------------------------------------------------------------------------- */
%typemap(in) const chorus_tensor *TENSOR (chorus_hold hold = {0}) {
  if (!chorus_core_tensor(&hold, $input, "$1_name", (const chorus_tensor **)&$1)) SWIG_fail;
}
%typemap(in) const chorus_tensor *const *TENSORS (chorus_hold hold = {0}) {
  if ($input == Py_None) $1 = NULL;
  else if (!chorus_core_tensors(&hold, $input, "$1_name", (const chorus_tensor *const **)&$1)) SWIG_fail;
}
%typemap(freearg) const chorus_tensor *TENSOR, const chorus_tensor *const *TENSORS "chorus_hold_release(&hold$argnum);"

/* ---- Structs: dicts ------------------------------------------------------------------------ */
%define %chorus_struct(NAME, INITIAL)
%typemap(in) const NAME *STRUCT (NAME filled = INITIAL, chorus_hold hold = {0}) {
  if ($input == Py_None) $1 = NULL;
  else {
    if (!chorus_in_##NAME($input, &filled, &hold)) SWIG_fail;
    $1 = &filled;
  }
}
%typemap(freearg) const NAME *STRUCT "chorus_hold_release(&hold$argnum);"
%typemap(in, numinputs=0) NAME *STRUCT_OUT (NAME told = INITIAL) "$1 = &told;"
%typemap(argout) NAME *STRUCT_OUT {
  $result = chorus_core_append($result, &chorus_results, chorus_out_##NAME($1));
  if ($result == NULL) SWIG_fail;
}
%enddef

/* ---- Opaque objects: capsules -------------------------------------------------------------- */
%define %chorus_opaque(NAME, DESTROY)
%typemap(in) const NAME *HANDLE, NAME *HANDLE {
  chorus_box *box;
  if (!chorus_core_unbox($input, #NAME, &box)) SWIG_fail;
  $1 = box != NULL ? (NAME *)box->object : NULL;
}
%typemap(in, noblock=1) const NAME *SERIAL, NAME *SERIAL {
  chorus_box *chorus_serial;
  if (!chorus_core_unbox($input, #NAME, &chorus_serial)) SWIG_fail;
  $1 = chorus_serial != NULL ? (NAME *)chorus_serial->object : NULL;
}
%typemap(in, noblock=1) const NAME *SERIAL_TOO {
  chorus_box *chorus_serial_too;
  if (!chorus_core_unbox($input, #NAME, &chorus_serial_too)) SWIG_fail;
  $1 = chorus_serial_too != NULL ? (NAME *)chorus_serial_too->object : NULL;
}
%typemap(in, numinputs=0) NAME **HANDLE_OUT (NAME *made = NULL) "$1 = &made;"
%typemap(argout) NAME **HANDLE_OUT {
  $result = chorus_core_append($result, &chorus_results,
                               chorus_core_box(*$1, #NAME, (chorus_destroy_fn)DESTROY, NULL));
  if ($result == NULL) SWIG_fail;
}
%typemap(in) const NAME *const *HANDLES (const NAME *list[1024]) {
  const Py_ssize_t count = PySequence_Size($input);
  Py_ssize_t i;
  if (count < 0) SWIG_fail;
  if (count > 1024) {
    PyErr_SetString(PyExc_ValueError, "at most 1024 objects are allowed");
    SWIG_fail;
  }
  for (i = 0; i < count; ++i) {
    PyObject *item = PySequence_GetItem($input, i);
    chorus_box *box = NULL;
    const int done = item != NULL && chorus_core_unbox(item, #NAME, &box);
    Py_XDECREF(item); /* the sequence holds it */
    if (!done) SWIG_fail;
    list[i] = box != NULL ? (const NAME *)box->object : NULL;
  }
  $1 = ($1_ltype)list;
}
%typemap(in, numinputs=0) NAME **HANDLES_OUT (NAME *made[1024] = {NULL}) "$1 = made;"
%typemap(argout) NAME **HANDLES_OUT {
  PyObject *list = PyList_New(0);
  int i;
  for (i = 0; list != NULL && i < 1024 && $1[i] != NULL; ++i) {
    PyObject *capsule = chorus_core_box($1[i], #NAME, (chorus_destroy_fn)DESTROY, NULL);
    if (capsule != NULL) PyList_Append(list, capsule);
    Py_XDECREF(capsule);
  }
  $result = chorus_core_append($result, &chorus_results, list);
  if ($result == NULL) SWIG_fail;
}
/* Destroying by hand: the capsule gives its object up. */
%typemap(in) NAME *DESTROYED {
  chorus_box *box;
  if (!chorus_core_unbox($input, #NAME, &box)) SWIG_fail;
  $1 = NULL;
  if (box != NULL && box->destroy != NULL) {
    $1 = (NAME *)box->object;
    box->object = NULL;
    box->destroy = NULL;
  }
}
%enddef

/* ---- Callbacks ----------------------------------------------------------------------------- */
%define %chorus_callback(NAME, WITHOUT)
%typemap(in, noblock=1) (NAME CALLBACK, void *user) {
  chorus_hearer chorus_heard = {0};
  if ($input != Py_None && !PyCallable_Check($input)) {
    PyErr_Format(PyExc_TypeError, "needs a function, not %R", $input);
    SWIG_fail;
  }
  chorus_heard.function = $input != Py_None ? $input : NULL;
  $1 = chorus_heard.function != NULL ? chorus_hear_##NAME : WITHOUT;
  $2 = &chorus_heard;
}
%enddef
%typemap(in) (chorus_log_fn CALLBACK, void *user) {
  $1 = NULL;
  $2 = NULL;
  if ($input != Py_None) {
    $1 = chorus_core_log;
    $2 = chorus_core_log_function($input);
    if ($2 == NULL) SWIG_fail;
  }
}
