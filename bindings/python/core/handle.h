/* SPDX-License-Identifier: Apache-2.0
 *
 * C objects as Python capsules, and failures as exceptions. A capsule destroys its object when the last reference goes;
 * while a call runs, its arguments hold references, so closing an object elsewhere is safe.
 */
#ifndef CHORUS_CORE_HANDLE_H_
#define CHORUS_CORE_HANDLE_H_

#include <pthread.h>

typedef void (*chorus_destroy_fn)(void *object);

/** What a capsule holds. `lock` serialises calls on objects that are not immutable: with the GIL released, Python threads
 * would break "the caller serialises" (base.h). */
typedef struct {
  void *object;
  chorus_destroy_fn destroy; /* NULL: lent */
  PyObject *owner;           /* of a lent object */
  pthread_mutex_t lock;
} chorus_box;

static void chorus_core_free(PyObject *capsule) {
  chorus_box *box = (chorus_box *)PyCapsule_GetPointer(capsule, PyCapsule_GetName(capsule));
  if (box == NULL) return;
  if (box->destroy != NULL) {
    /* Destroying may remove files or wait for threads: not under the GIL. */
    PyThreadState *state = PyEval_SaveThread();
    box->destroy(box->object);
    PyEval_RestoreThread(state);
  }
  Py_XDECREF(box->owner);
  pthread_mutex_destroy(&box->lock);
  PyMem_Free(box);
}

/** `name` must be static. Takes `object`; NULL gives None. */
static PyObject *chorus_core_box(void *object, const char *name, chorus_destroy_fn destroy, PyObject *owner) {
  chorus_box *box;
  PyObject *capsule;
  if (object == NULL) Py_RETURN_NONE;
  box = (chorus_box *)PyMem_Malloc(sizeof(chorus_box));
  if (box == NULL) {
    if (destroy != NULL) destroy(object);
    return PyErr_NoMemory();
  }
  box->object = object;
  box->destroy = destroy;
  box->owner = owner;
  Py_XINCREF(owner);
  pthread_mutex_init(&box->lock, NULL);
  capsule = PyCapsule_New(box, name, chorus_core_free);
  if (capsule == NULL) {
    if (destroy != NULL) destroy(object);
    Py_XDECREF(owner);
    PyMem_Free(box);
  }
  return capsule;
}

/** 0 with an exception when `value` is neither a capsule of this name nor None. */
static int chorus_core_unbox(PyObject *value, const char *name, chorus_box **out_box) {
  *out_box = NULL;
  if (value == Py_None) return 1;
  if (PyCapsule_IsValid(value, name)) {
    *out_box = (chorus_box *)PyCapsule_GetPointer(value, name);
    return 1;
  }
  PyErr_Format(PyExc_TypeError, "needs a %s; %R is none", name, value);
  return 0;
}

/** With the GIL held; gives it away only when it has to wait. */
static void chorus_core_lock(chorus_box *box) {
  if (box == NULL || pthread_mutex_trylock(&box->lock) == 0) return;
  {
    PyThreadState *state = PyEval_SaveThread();
    pthread_mutex_lock(&box->lock);
    PyEval_RestoreThread(state);
  }
}
static void chorus_core_unlock(chorus_box *box) {
  if (box != NULL) pthread_mutex_unlock(&box->lock);
}

/* ---- Errors ------------------------------------------------------------------------------- */

static PyObject *chorus_core_raiser = NULL; /* called with (code, message, text, capsule of the error): gives the exception */

/** Raises for `status`; takes `error`. */
static void chorus_core_raise(chorus_status status, chorus_error *error) {
  const char *message = error != NULL ? chorus_error_get_message(error) : chorus_status_get_name(status);
  const char *text = error != NULL ? chorus_error_get_text(error) : message;
  PyObject *capsule, *exception;
  if (chorus_core_raiser == NULL) {
    PyErr_SetString(PyExc_RuntimeError, text);
    chorus_error_destroy(error);
    return;
  }
  capsule = chorus_core_box(error, "chorus_error", (chorus_destroy_fn)chorus_error_destroy, NULL);
  if (capsule == NULL) return;
  exception = PyObject_CallFunction(chorus_core_raiser, "issO", (int)status, message, text, capsule);
  Py_DECREF(capsule);
  if (exception == NULL) return;
  PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
  Py_DECREF(exception);
}

/* ---- Plain values ------------------------------------------------------------------------- */

static int chorus_core_integer(PyObject *value, int64_t low, int64_t high, const char *name, int64_t *out) {
  int overflow = 0;
  PyObject *index = PyNumber_Index(value);
  if (index == NULL) {
    PyErr_Format(PyExc_TypeError, "%s: needs an integer, not %R", name, value);
    return 0;
  }
  *out = PyLong_AsLongLongAndOverflow(index, &overflow);
  Py_DECREF(index);
  if (*out == -1 && PyErr_Occurred()) return 0;
  if (overflow != 0 || *out < low || *out > high) {
    PyErr_Format(PyExc_OverflowError, "%s: %R is outside %lld to %lld", name, value, (long long)low, (long long)high);
    return 0;
  }
  return 1;
}

static int chorus_core_unsigned(PyObject *value, const char *name, uint64_t *out) {
  PyObject *index = PyNumber_Index(value);
  if (index == NULL) {
    PyErr_Format(PyExc_TypeError, "%s: needs an integer, not %R", name, value);
    return 0;
  }
  *out = PyLong_AsUnsignedLongLong(index);
  Py_DECREF(index);
  if (!PyErr_Occurred()) return 1;
  PyErr_Format(PyExc_OverflowError, "%s: %R is outside 0 to 2^64 - 1", name, value);
  return 0;
}

static int chorus_core_real(PyObject *value, const char *name, double *out) {
  *out = PyFloat_AsDouble(value);
  if (*out == -1 && PyErr_Occurred()) {
    PyErr_Format(PyExc_TypeError, "%s: needs a number, not %R", name, value);
    return 0;
  }
  return 1;
}

/** A result beside those before it: one alone stays itself, several become a tuple. Takes both. */
static PyObject *chorus_core_append(PyObject *results, int *count, PyObject *one) {
  PyObject *out;
  if (one == NULL || results == NULL) {
    Py_XDECREF(results);
    Py_XDECREF(one);
    return NULL;
  }
  ++*count;
  if (*count == 1) {
    Py_DECREF(results);
    return one;
  }
  if (*count == 2) return Py_BuildValue("NN", results, one);
  out = PySequence_Concat(results, Py_BuildValue("(N)", one));
  Py_DECREF(results);
  return out;
}

static PyObject *chorus_core_string(const char *text) {
  if (text == NULL) Py_RETURN_NONE;
  return PyUnicode_DecodeUTF8(text, (Py_ssize_t)strlen(text), "surrogateescape");
}

#endif /* CHORUS_CORE_HANDLE_H_ */
