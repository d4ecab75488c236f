/* SPDX-License-Identifier: Apache-2.0
 *
 * Python functions as C callbacks. A callback that answers takes the GIL and keeps what it raised until the call returns. Log
 * messages may come from any thread at any time, so they are queued and delivered by the threads that hold the GIL
 * anyway: no worker ever waits for Python.
 */
#ifndef CHORUS_CORE_CALLBACK_H_
#define CHORUS_CORE_CALLBACK_H_

/** The `user` of a callback for one call. */
typedef struct {
  PyObject *function; /* borrowed from the call's arguments; NULL: none */
  PyObject *type, *value, *traceback; /* what it raised first */
} chorus_hearer;

static void chorus_core_keep_exception(chorus_hearer *hearer) {
  if (hearer->type == NULL) PyErr_Fetch(&hearer->type, &hearer->value, &hearer->traceback);
  else PyErr_Clear();
}

/** 1 and the exception set, when the callback had raised. */
static int chorus_core_rethrow(chorus_hearer *hearer) {
  if (hearer->type == NULL) return 0;
  PyErr_Restore(hearer->type, hearer->value, hearer->traceback);
  hearer->type = NULL;
  return 1;
}

/** Calls `function` with `arguments`, taken (NULL: failed); sees to signals first, so that Ctrl-C stops the run. NULL: stop. */
static PyObject *chorus_core_hear(chorus_hearer *hearer, PyObject *arguments) {
  PyObject *result = NULL;
  if (arguments != NULL && hearer->type == NULL && PyErr_CheckSignals() == 0) {
    if (hearer->function == NULL) {
      Py_INCREF(Py_None);
      result = Py_None;
    } else {
      result = PyObject_CallObject(hearer->function, arguments);
    }
  }
  Py_XDECREF(arguments);
  if (result == NULL && PyErr_Occurred()) chorus_core_keep_exception(hearer);
  return result;
}

/** An answer as an integer: None is 0, True is 1. */
static int32_t chorus_core_answer(chorus_hearer *hearer, PyObject *result) {
  int64_t number = 0;
  if (result == NULL) return 1;
  if (result != Py_None && !chorus_core_integer(result, INT32_MIN, INT32_MAX, "the callback's answer", &number)) {
    chorus_core_keep_exception(hearer);
    number = 1;
  }
  Py_DECREF(result);
  return (int32_t)number;
}

static double chorus_core_answer_real(chorus_hearer *hearer, PyObject *result) {
  double number = 0;
  if (result == NULL) return (double)NAN;
  if (!chorus_core_real(result, "the callback's answer", &number)) chorus_core_keep_exception(hearer);
  Py_DECREF(result);
  return number;
}

/* ---- Log ---------------------------------------------------------------------------------- */

typedef struct chorus_message {
  struct chorus_message *next;
  PyObject *function;
  int level;
  size_t length;
  char text[];
} chorus_message;

static pthread_mutex_t chorus_log_lock = PTHREAD_MUTEX_INITIALIZER;
static chorus_message *chorus_log_first = NULL, **chorus_log_last = &chorus_log_first;
static PyObject *chorus_log_functions = NULL; /* list: a context may outlive all that Python knows of it */

static void chorus_core_log(void *user, chorus_log_level level, const char *message, size_t length) {
  chorus_message *m = (chorus_message *)malloc(sizeof(chorus_message) + length);
  if (m == NULL) return;
  m->next = NULL;
  m->function = (PyObject *)user;
  m->level = level;
  m->length = length;
  memcpy(m->text, message, length);
  pthread_mutex_lock(&chorus_log_lock);
  *chorus_log_last = m;
  chorus_log_last = &m->next;
  pthread_mutex_unlock(&chorus_log_lock);
}

/** Delivers what is queued; with the GIL. An exception of a log function goes to sys.unraisablehook. */
static void chorus_core_drain(void) {
  chorus_message *m;
  PyObject *type, *value, *traceback;
  if (__atomic_load_n(&chorus_log_first, __ATOMIC_RELAXED) == NULL) return;
  PyErr_Fetch(&type, &value, &traceback);
  for (;;) {
    PyObject *result;
    pthread_mutex_lock(&chorus_log_lock);
    m = chorus_log_first;
    if (m != NULL) {
      chorus_log_first = m->next;
      if (chorus_log_first == NULL) chorus_log_last = &chorus_log_first;
    }
    pthread_mutex_unlock(&chorus_log_lock);
    if (m == NULL) break;
    result = PyObject_CallFunction(m->function, "iN", m->level,
                                   PyUnicode_DecodeUTF8(m->text, (Py_ssize_t)m->length, "replace"));
    if (result == NULL) PyErr_WriteUnraisable(m->function);
    Py_XDECREF(result);
    free(m);
  }
  PyErr_Restore(type, value, traceback);
}

/** `function` as the `user` of a log: kept for good, equal ones once. NULL with an exception on failure. */
static PyObject *chorus_core_log_function(PyObject *function) {
  Py_ssize_t i;
  if (chorus_log_functions == NULL && (chorus_log_functions = PyList_New(0)) == NULL) return NULL;
  for (i = 0; i < PyList_Size(chorus_log_functions); ++i) {
    PyObject *known = PyList_GetItem(chorus_log_functions, i);
    const int equal = PyObject_RichCompareBool(known, function, Py_EQ);
    if (equal < 0) return NULL;
    if (equal) return known;
  }
  return PyList_Append(chorus_log_functions, function) == 0 ? function : NULL;
}

#endif /* CHORUS_CORE_CALLBACK_H_ */
