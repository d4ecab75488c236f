/* SPDX-License-Identifier: Apache-2.0
 *
 * Every address is a `long`; the few helpers of core.h beside the C functions.
 */
%typemap(jni) void * "jlong"
%typemap(jtype) void * "long"
%typemap(jstype) void * "long"
%typemap(javain) void * "$javainput"
%typemap(javaout) void * { return $jnicall; }
%typemap(in) void * "$1 = (void *)(intptr_t)$input;"
%typemap(out) void * "$result = (jlong)(intptr_t)$1;"

%typemap(jni) jobject BUFFER "jobject"
%typemap(jtype) jobject BUFFER "java.nio.Buffer"
%typemap(jstype) jobject BUFFER "java.nio.Buffer"
%typemap(javain) jobject BUFFER "$javainput"
%typemap(in) jobject BUFFER "$1 = $input;"
%typemap(jni) jobject view_memory "jobject"
%typemap(jtype) jobject view_memory "java.nio.ByteBuffer"
%typemap(jstype) jobject view_memory "java.nio.ByteBuffer"
%typemap(javaout) jobject view_memory { return $jnicall; }
%typemap(out) jobject view_memory "$result = $1;"
%typemap(in, numinputs=0) JNIEnv *env "$1 = jenv;"
%typemap(jni) jobject LISTENER "jobject"
%typemap(jtype) jobject LISTENER "ProgressListener"
%typemap(jstype) jobject LISTENER "ProgressListener"
%typemap(javain) jobject LISTENER "$javainput"
%typemap(in) jobject LISTENER "$1 = $input;"

/* Address of a direct buffer's first byte, whatever its position; 0 for another buffer. */
long long address_of(JNIEnv *env, jobject BUFFER);
/* Memory as a direct buffer, lent: use it only while its owner lives. */
jobject view_memory(JNIEnv *env, void *address, long long bytes);
/* Bytes before the 0 of a C text. */
long long text_length(void *address);
/* chorus_merger_run() with a Java listener, called on this thread; what it throws stops the run and goes on here. */
int merger_run(JNIEnv *env, void *merger, jobject LISTENER, void *error);
