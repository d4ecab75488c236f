/* SPDX-License-Identifier: Apache-2.0
 *
 * What Java needs beside the C functions: addresses of its buffers, buffers of C memory, and hearing of a merge's progress.
 */
#ifndef CHORUS_JAVA_CORE_H_
#define CHORUS_JAVA_CORE_H_

#include <jni.h>
#include <string.h>

static long long address_of(JNIEnv *env, jobject buffer) {
  return buffer != NULL ? (long long)(intptr_t)(*env)->GetDirectBufferAddress(env, buffer) : 0;
}

static jobject view_memory(JNIEnv *env, void *address, long long bytes) {
  return address != NULL ? (*env)->NewDirectByteBuffer(env, address, bytes) : NULL;
}

static long long text_length(void *address) {
  return address != NULL ? (long long)strlen((const char *)address) : 0;
}

typedef struct {
  JNIEnv *env;
  jobject listener;
  jmethodID method;
} chorus_java_listener;

static int32_t chorus_java_hear(void *user, const chorus_merge_progress *progress) {
  const chorus_java_listener *l = (const chorus_java_listener *)user;
  const jint stop = (*l->env)->CallIntMethod(l->env, l->listener, l->method, (jlong)(intptr_t)progress);
  return (*l->env)->ExceptionCheck(l->env) ? 1 : stop; /* the exception goes on when the native method returns */
}

static int merger_run(JNIEnv *env, void *merger, jobject listener, void *error) {
  chorus_java_listener l = {env, listener, NULL};
  jclass type;
  if (listener == NULL) return chorus_merger_run(merger, NULL, NULL, error);
  type = (*env)->GetObjectClass(env, listener);
  l.method = (*env)->GetMethodID(env, type, "hear", "(J)I");
  return l.method != NULL ? chorus_merger_run(merger, chorus_java_hear, &l, error) : CHORUS_INTERNAL;
}

#endif /* CHORUS_JAVA_CORE_H_ */
