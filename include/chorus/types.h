/* SPDX-License-Identifier: Apache-2.0
 *
 * The words both ABIs share: status codes, data types, tensor views, execution arguments.
 * Everything plugin.h needs and nothing else. C99 and C++11; includes only stddef and stdint.
 */
#ifndef CHORUS_TYPES_H_
#define CHORUS_TYPES_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** End of `field` in `type`: the value `struct_size` holds when `field` is the last one known.
 *
 * Not sizeof: tail padding would hide whether a later, smaller field is present.
 */
#define CHORUS_END_OF(type, field) (offsetof(type, field) + sizeof(((type *)0)->field))

/* ---- Status ------------------------------------------------------------------------------- */

/** Result of a call. 0 is success; the numbers are those of absl::StatusCode and never change. */
typedef int32_t chorus_status;

#define CHORUS_OK 0                   /**< Done. */
#define CHORUS_CANCELLED 1            /**< A callback or signal asked to stop. Nothing half-written remains. */
#define CHORUS_UNKNOWN 2              /**< A foreign error without a better code. */
#define CHORUS_INVALID_ARGUMENT 3     /**< An argument is wrong whatever the state; the message names it. */
#define CHORUS_DEADLINE_EXCEEDED 4    /**< Ran out of time. */
#define CHORUS_NOT_FOUND 5            /**< A file, device, tensor, token or option does not exist. */
#define CHORUS_ALREADY_EXISTS 6       /**< The output is there and may not be replaced. */
#define CHORUS_PERMISSION_DENIED 7    /**< The system or a safety rule forbids it. */
#define CHORUS_RESOURCE_EXHAUSTED 8   /**< Out of memory, disk, or a stated limit. */
#define CHORUS_FAILED_PRECONDITION 9  /**< Right call, wrong state: workspace too small, file changed, … */
#define CHORUS_ABORTED 10             /**< Gave way to a concurrent operation. */
#define CHORUS_OUT_OF_RANGE 11        /**< An index or position past the end. */
#define CHORUS_UNIMPLEMENTED 12       /**< Understood, and no kernel or code does it yet. */
#define CHORUS_INTERNAL 13            /**< A bug in Chorus or a plugin. */
#define CHORUS_UNAVAILABLE 14         /**< A device or file system is not usable now. */
#define CHORUS_DATA_LOSS 15           /**< A file is malformed or truncated. */
#define CHORUS_UNAUTHENTICATED 16     /**< Reserved. */

/* ---- Data types --------------------------------------------------------------------------- */

/** DLPack type codes. A data type is (code, bits, lanes); lanes is 1 except for packed sub-byte types. */
#define CHORUS_DTYPE_CODE_INT 0
#define CHORUS_DTYPE_CODE_UINT 1
#define CHORUS_DTYPE_CODE_FLOAT 2
#define CHORUS_DTYPE_CODE_BFLOAT 4
#define CHORUS_DTYPE_CODE_BOOL 6
#define CHORUS_DTYPE_CODE_FLOAT8_E4M3FN 10
#define CHORUS_DTYPE_CODE_FLOAT8_E5M2 12
#define CHORUS_DTYPE_CODE_FLOAT8_E8M0FNU 14
#define CHORUS_DTYPE_CODE_FLOAT4_E2M1FN 17

/** A data type in one word: code | bits << 8. Lanes are 1. */
typedef uint32_t chorus_dtype;

#define CHORUS_F64 0x4002u      /**< IEEE binary64. */
#define CHORUS_F32 0x2002u      /**< IEEE binary32. */
#define CHORUS_F16 0x1002u      /**< IEEE binary16. */
#define CHORUS_BF16 0x1004u     /**< bfloat16. */
#define CHORUS_I64 0x4000u      /**< Signed 64-bit integer. */
#define CHORUS_I32 0x2000u      /**< Signed 32-bit integer. */
#define CHORUS_I16 0x1000u      /**< Signed 16-bit integer. */
#define CHORUS_I8 0x0800u       /**< Signed 8-bit integer. */
#define CHORUS_U64 0x4001u      /**< Unsigned 64-bit integer. */
#define CHORUS_U32 0x2001u      /**< Unsigned 32-bit integer. */
#define CHORUS_U16 0x1001u      /**< Unsigned 16-bit integer. */
#define CHORUS_U8 0x0801u       /**< Unsigned 8-bit integer. */
#define CHORUS_BOOL 0x0806u     /**< One byte, 0 or 1. */
#define CHORUS_I4 0x0400u       /**< Signed 4-bit integer; lies in memory as bytes (CHORUS_U8) with CHORUS_PACKING_INT4. */
#define CHORUS_F8_E4M3FN 0x080au   /**< 8-bit float, no infinity. Recognised; no kernel computes with it yet. */
#define CHORUS_F8_E5M2 0x080cu     /**< 8-bit float. Recognised; no kernel computes with it yet. */
#define CHORUS_F8_E8M0FNU 0x080eu  /**< 8-bit scale exponent. Recognised; no kernel computes with it yet. */

/* ---- Devices ------------------------------------------------------------------------------ */

/** DLPack device types. A device type says which memory a pointer belongs to. */
#define CHORUS_DEVICE_HOST 1        /**< Ordinary host memory (`reference`, `cpu`). */
#define CHORUS_DEVICE_CUDA 2        /**< CUDA device memory. */
#define CHORUS_DEVICE_CUDA_HOST 3   /**< Pinned host memory. */
#define CHORUS_DEVICE_CUDA_MANAGED 13 /**< Managed memory. */
#define CHORUS_DEVICE_EXTENSION 12  /**< Memory of a plugin that DLPack has no number for. */

/* ---- Tensors ------------------------------------------------------------------------------ */

#define CHORUS_MAX_DIMENSIONS 8

/** Tensor flag: the memory must not be written. Refused where an output is expected. */
#define CHORUS_TENSOR_READ_ONLY 1u

struct chorus_tensor;

/** How the values of a quantised tensor lie in its elements. */
#define CHORUS_PACKING_NONE 0u /**< One value per element (CHORUS_I8). */
/** CHORUS_U8, the last dimension counts bytes: two values each, the one of even index in the low four bits, two's complement
 * (-8 to 7). An odd number of values is padded by one. @since 0.1 */
#define CHORUS_PACKING_INT4 1u

/** How the stored numbers of a quantised tensor become real ones: real = scale * (stored - zero_point).
 *
 * Borrowed for the call. The weights of experts take it (chorus_experts_spec_create); elsewhere a tensor that carries it is
 * refused by name.
 */
typedef struct chorus_quant {
  size_t struct_size;                       /**< CHORUS_QUANT_INIT sets it. */
  const struct chorus_tensor *scales;       /**< f32, f16 or bf16; shape of the tensor, but along `axis` one per group. */
  const struct chorus_tensor *zero_points;  /**< NULL: zero points are 0. */
  int64_t group_size;                       /**< Elements that share a scale along `axis`; 0 = all of them. */
  int32_t axis;                             /**< Axis along which groups lie. */
  uint32_t packing;                         /**< CHORUS_PACKING_*. */
} chorus_quant;

/** A borrowed view of memory: the caller owns it and keeps it alive for the call (device work: until the
 * stream has passed it). A tensor with a zero dimension is legal and may have `data` NULL.
 *
 * Checked where it enters the library: rank, product overflow, that every element reachable through shape and
 * strides lies within `size_bytes` of `data`, alignment to the element size, and that a dtype is one the function takes.
 */
typedef struct chorus_tensor {
  size_t struct_size;     /**< CHORUS_TENSOR_INIT sets it. */
  void *data;             /**< First element (index 0,0,…). No byte offset. */
  uint64_t size_bytes;    /**< Bytes reachable from `data`. */
  int32_t device_type;    /**< CHORUS_DEVICE_*. */
  int32_t device_id;      /**< 0 for host memory. */
  uint8_t dtype_code;     /**< CHORUS_DTYPE_CODE_*. */
  uint8_t dtype_bits;     /**< Bits of an element. */
  uint16_t dtype_lanes;   /**< 1. */
  int32_t ndim;           /**< 0 to CHORUS_MAX_DIMENSIONS. */
  uint32_t flags;         /**< CHORUS_TENSOR_* bits; unknown bits are refused. */
  uint32_t reserved;      /**< 0. */
  const int64_t *shape;   /**< `ndim` sizes, each >= 0. */
  const int64_t *strides; /**< `ndim` strides in elements, each >= 0; NULL: compact row-major. */
  const chorus_quant *quant; /**< NULL unless quantised. */
} chorus_tensor;

/* ---- Execution ---------------------------------------------------------------------------- */

/** Alignment in bytes a workspace must have. */
#define CHORUS_WORKSPACE_ALIGNMENT_HOST 64
#define CHORUS_WORKSPACE_ALIGNMENT_DEVICE 256

/** Where and with what scratch memory a call runs. NULL instead of it: host memory only, with workspace from a
 * per-thread cache of the context; objects on a device with its own memory refuse NULL.
 */
typedef struct chorus_exec {
  size_t struct_size;       /**< CHORUS_EXEC_INIT sets it. */
  void *stream;             /**< Native stream handle (cudaStream_t); NULL for host devices. */
  void *workspace;          /**< Scratch in the object's memory space; may be NULL when 0 bytes are needed. */
  uint64_t workspace_bytes; /**< Size of `workspace`. */
} chorus_exec;

/** Levels of log messages. */
typedef int32_t chorus_log_level;
#define CHORUS_LOG_DEBUG 0
#define CHORUS_LOG_INFO 1
#define CHORUS_LOG_WARNING 2
#define CHORUS_LOG_ERROR 3

/* generated by tests/abi/layout.py: begin */
#define CHORUS_QUANT_INIT {CHORUS_END_OF(chorus_quant, packing), NULL, NULL, 0, 0, 0}
#define CHORUS_TENSOR_INIT {CHORUS_END_OF(chorus_tensor, quant), NULL, 0, 0, 0, 0, 0, 0, 0, 0, 0, NULL, NULL, NULL}
#define CHORUS_EXEC_INIT {CHORUS_END_OF(chorus_exec, workspace_bytes), NULL, NULL, 0}
/* generated by tests/abi/layout.py: end */

#ifdef __cplusplus
} /* extern "C" */
#endif
#endif /* CHORUS_TYPES_H_ */
