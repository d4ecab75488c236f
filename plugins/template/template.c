/* SPDX-License-Identifier: Apache-2.0
 *
 * The smallest backend, to copy: one device in host memory, called "template", and one kernel, combine.rows
 * with the linear rule over f32 logits. It writes log-probs and row statuses; all else it refuses, saying
 * why, and the host turns to another backend. What it must compute, zeros and NaN included, is
 * docs/numerics.md, "Combining".
 *
 * Read from the end: chorus_plugin_query() -> plugin -> device -> kernel -> score, prepare, run, release.
 */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include "chorus/plugin.h"

#define ALIGNMENT CHORUS_WORKSPACE_ALIGNMENT_HOST
#define LEAST_TEMPERATURE 7.8886090522101181e-31 /* 2^-100: below, the row is one-hot anyway */

/* An opened device. The host outlives it. */
struct chorus_plugin_device {
  const chorus_host *host;
};

/* ---- Score: can this kernel do `desc`? ---------------------------------------------------- */

static int32_t refuse(char *why, size_t why_bytes, const char *format, ...) {
  va_list list;
  if (why == NULL || why_bytes == 0) return 0;
  va_start(list, format);
  vsnprintf(why, why_bytes, format, list);
  va_end(list);
  return 0;
}

/* A filter of probability mass that filters nothing. */
static int is_off(double p) {
  return p == 0.0 || p == 1.0;
}

static int32_t score_model(const chorus_combine_desc *d, int32_t i, char *why, size_t bytes) {
  const chorus_combine_model *m = d->models[i];
  if (m->kind != CHORUS_SCORES_LOGITS)
    return refuse(why, bytes, "models[%d].kind is %d; supported: logits (0)", i, m->kind);
  if (m->dtype != CHORUS_F32)
    return refuse(why, bytes, "models[%d].dtype is 0x%x; supported: f32", i, m->dtype);
  if (m->n_valid < 1 || m->n_valid > m->n_logits || m->n_valid > d->n_tokens)
    return refuse(why, bytes, "models[%d].n_valid is %lld; supported: 1 to n_logits and n_tokens", i,
                  (long long)m->n_valid);
  if (!(m->weight >= 0) || isinf((float)m->weight))
    return refuse(why, bytes, "models[%d].weight is %g; supported: 0 and above, finite in f32", i, m->weight);
  if (!(m->temperature >= 0) || isinf((float)m->temperature))
    return refuse(why, bytes, "models[%d].temperature is %g; supported: 0 and above, finite in f32", i,
                  m->temperature);
  if (!is_off(m->top_p) || m->top_k != 0 || m->plausibility != 0)
    return refuse(why, bytes, "models[%d] has a filter (top_p, top_k or plausibility); supported: none", i);
  if (m->has_bias || m->has_mask)
    return refuse(why, bytes, "models[%d] has a bias or a mask; supported: neither", i);
  if (m->map_offsets != NULL || m->map_ids != NULL || m->missing != CHORUS_MISSING_BY_RULE)
    return refuse(why, bytes, "models[%d] has a map or a missing-token policy; supported: neither", i);
  return 1;
}

/* A kernel refuses every field it does not know how to honour; silence would be a wrong answer. */
static int32_t score(chorus_plugin_device *device, const void *desc, char *why, size_t bytes) {
  const chorus_combine_desc *d = (const chorus_combine_desc *)desc;
  const uint32_t outputs = CHORUS_COMBINE_OUT_LOG_PROBS | CHORUS_COMBINE_OUT_STATUS;
  int32_t i;
  (void)device;
  if (d->rule != CHORUS_COMBINE_LINEAR)
    return refuse(why, bytes, "rule is %d; supported: linear (0)", d->rule);
  if ((d->outputs & ~outputs) != 0)
    return refuse(why, bytes, "outputs is 0x%x; supported: log_probs, status (0x%x)", d->outputs, outputs);
  if ((d->outputs & CHORUS_COMBINE_OUT_LOG_PROBS) && d->log_probs_dtype != CHORUS_F32)
    return refuse(why, bytes, "log_probs_dtype is 0x%x; supported: f32", d->log_probs_dtype);
  if (d->temperature != 1 || !is_off(d->top_p) || d->min_p != 0 || !is_off(d->typical_p) || d->top_k != 0)
    return refuse(why, bytes, "a temperature or filter after combining is set; supported: none");
  if (d->has_penalties || d->has_neighbours)
    return refuse(why, bytes, "penalties or neighbours are set; supported: neither");
  if (d->weight_rows > 1) return refuse(why, bytes, "weight_rows is %u; supported: 0, 1", d->weight_rows);
  if (d->n_tokens < 1)
    return refuse(why, bytes, "n_tokens is %lld; supported: 1 and above", (long long)d->n_tokens);
  if (d->n_models < 1 || d->n_models > CHORUS_COMBINE_MAX_MODELS)
    return refuse(why, bytes, "n_models is %d; supported: 1 to %d", d->n_models, CHORUS_COMBINE_MAX_MODELS);
  for (i = 0; i < d->n_models; ++i) {
    if (score_model(d, i, why, bytes) == 0) return 0;
  }
  return 1;
}

/* ---- Prepare: copy what run needs; the descriptor is gone afterwards ----------------------- */

typedef struct {
  const chorus_host *host;
  int32_t n_models;
  int64_t n_tokens;
  uint32_t weight_rows;
  int64_t n_valid[CHORUS_COMBINE_MAX_MODELS];
  double weights[CHORUS_COMBINE_MAX_MODELS];
  double temperatures[CHORUS_COMBINE_MAX_MODELS];
} combiner;

static chorus_status prepare(chorus_plugin_device *device, const void *desc, void **out,
                             chorus_error_slot slot) {
  static const char no_memory[] = "no memory for a prepared template kernel";
  const chorus_combine_desc *d = (const chorus_combine_desc *)desc;
  const chorus_host *host = device->host;
  combiner *c = (combiner *)host->allocate(host->self, sizeof(*c), ALIGNMENT);
  int32_t i;
  if (c == NULL) return host->set_error(slot, CHORUS_RESOURCE_EXHAUSTED, no_memory, sizeof(no_memory) - 1);
  c->host = host;
  c->n_models = d->n_models;
  c->n_tokens = d->n_tokens;
  c->weight_rows = d->weight_rows;
  for (i = 0; i < d->n_models; ++i) {
    c->n_valid[i] = d->models[i]->n_valid;
    c->weights[i] = d->models[i]->weight;
    c->temperatures[i] = d->models[i]->temperature;
  }
  *out = c;
  return CHORUS_OK;
}

static void release(void *prepared) {
  combiner *c = (combiner *)prepared;
  if (c != NULL) c->host->deallocate(c->host->self, c, sizeof(*c), ALIGNMENT);
}

/* This kernel needs no scratch memory. A kernel that does gets it in exec->workspace and never allocates in
 * run. */
static uint64_t workspace_size(const void *prepared, const void *args) {
  (void)prepared;
  (void)args;
  return 0;
}

/* ---- Run ----------------------------------------------------------------------------------- */

/* Elements between neighbours along `axis`; strides NULL means compact. */
static int64_t stride(const chorus_tensor *t, int axis) {
  int64_t s = 1;
  int i;
  if (t->strides != NULL) return t->strides[axis];
  for (i = t->ndim - 1; i > axis; --i) s *= t->shape[i];
  return s;
}

static float *f32_row(const chorus_tensor *t, int64_t row) {
  return (float *)t->data + row * stride(t, 0);
}

/* One model's row: log p[v] = (z[v] - top) / temperature - log_sum. */
typedef struct {
  const float *z;
  int64_t n_valid, top_id, infinite_count;
  double weight, temperature, top, log_sum;
} model_row;

/* Finds the best token, and sets the status bits of what it meets. 0: no token has positive probability. */
static int scan(model_row *m, int32_t *status) {
  int64_t v;
  m->top_id = -1;
  m->top = -INFINITY;
  m->infinite_count = 0;
  for (v = 0; v < m->n_valid; ++v) {
    if (isnan(m->z[v])) *status |= CHORUS_ROW_NAN;
    if (m->z[v] == INFINITY) ++m->infinite_count;
    if (m->z[v] > m->top) {
      m->top = m->z[v];
      m->top_id = v;
    }
  }
  if (m->infinite_count > 0) *status |= CHORUS_ROW_INFINITE;
  if (m->top_id < 0) *status |= CHORUS_ROW_MODEL_EMPTY;
  return m->top_id >= 0;
}

/* The maximum is subtracted before dividing, so that a tiny temperature overflows to -inf at most. */
static double scaled(const model_row *m, int64_t v) {
  return m->z[v] == -INFINITY ? -INFINITY : (m->z[v] - m->top) / m->temperature;
}

static void normalise(model_row *m) {
  double sum = 0;
  int64_t v;
  if (m->temperature == 0 || m->infinite_count > 0) return; /* one-hot, or shared by the +inf tokens */
  for (v = 0; v < m->n_valid; ++v) sum += exp(scaled(m, v));
  m->log_sum = log(sum);
}

static double log_prob(const model_row *m, int64_t v) {
  if (v >= m->n_valid) return -INFINITY;
  if (m->temperature == 0) return v == m->top_id ? 0 : -INFINITY;
  if (m->infinite_count > 0) return m->z[v] == INFINITY ? -log((double)m->infinite_count) : -INFINITY;
  return scaled(m, v) - m->log_sum;
}

/* log sum w_i p_i[v] - log sum w_i, around the largest term: probabilities below the range of a double
 * survive. */
static double mixture(const model_row *models, int32_t count, double log_weights, int64_t v) {
  double terms[CHORUS_COMBINE_MAX_MODELS], top = -INFINITY, sum = 0;
  int32_t i;
  for (i = 0; i < count; ++i) {
    terms[i] = log(models[i].weight) + log_prob(&models[i], v);
    if (terms[i] > top) top = terms[i];
  }
  if (top == -INFINITY) return top;
  for (i = 0; i < count; ++i) sum += exp(terms[i] - top);
  return top + log(sum) - log_weights;
}

/* Models of weight 0 are not touched: their tensor may be NULL. Returns how many count, -1: a weight makes no
 * sense. */
static int32_t collect(const combiner *c, const chorus_combine_args *a, int64_t row, model_row *models) {
  int32_t i, count = 0;
  for (i = 0; i < c->n_models; ++i) {
    model_row *m = &models[count];
    m->weight = c->weights[i];
    m->temperature = c->temperatures[i];
    if (a->weights != NULL)
      m->weight =
          c->weight_rows ? f32_row(a->weights, row)[i * stride(a->weights, 1)] : *f32_row(a->weights, i);
    if (a->temperatures != NULL) m->temperature = *f32_row(a->temperatures, i);
    if (m->weight == 0) continue;
    if (!(m->weight > 0) || isinf(m->weight) || !(m->temperature >= 0) || a->scores[i] == NULL) return -1;
    if (m->temperature > 0 && m->temperature < LEAST_TEMPERATURE) m->temperature = LEAST_TEMPERATURE;
    m->z = f32_row(a->scores[i], row);
    m->n_valid = c->n_valid[i];
    ++count;
  }
  return count > 0 ? count : -1;
}

/* Keeps the models with support; sets the row's status. Returns how many are left. */
static int32_t survey(model_row *models, int32_t count, int32_t *status) {
  int32_t i, kept = 0;
  for (i = 0; i < count; ++i) {
    if (scan(&models[i], status)) models[kept++] = models[i];
  }
  if (kept == 0 && !(*status & CHORUS_ROW_NAN)) *status |= CHORUS_ROW_EMPTY_SUPPORT;
  return kept;
}

static void write_log_probs(const combiner *c, model_row *models, int32_t count, float *out) {
  double weights = 0;
  int64_t v;
  int32_t i;
  for (i = 0; i < count; ++i) {
    normalise(&models[i]);
    weights += models[i].weight;
  }
  /* `out` may be the row of model 0: its score v is read before log-prob v is written. + 0 turns -0 into +0.
   */
  for (v = 0; v < c->n_tokens; ++v) out[v] = (float)mixture(models, count, log(weights), v) + 0.0f;
}

typedef struct {
  const combiner *c;
  const chorus_combine_args *a;
} job;

/* One row, called from the host's pool. What data decide goes to the row's status, never to a return code. */
static void run_row(void *argument, uint64_t index) {
  const job *j = (const job *)argument;
  const chorus_combine_args *a = j->a;
  const int64_t row = (int64_t)index;
  model_row models[CHORUS_COMBINE_MAX_MODELS];
  int32_t status = CHORUS_ROW_OK, count = collect(j->c, a, row, models);
  if (count < 0) {
    status = CHORUS_ROW_BAD_WEIGHT;
  } else {
    count = survey(models, count, &status);
  }
  if (a->log_probs != NULL) {
    float *out = f32_row(a->log_probs, row);
    const int invalid = (status & (CHORUS_ROW_BAD_WEIGHT | CHORUS_ROW_NAN)) != 0;
    int64_t v;
    if (!invalid && count > 0) {
      write_log_probs(j->c, models, count, out);
    } else {
      for (v = 0; v < j->c->n_tokens; ++v) out[v] = invalid ? NAN : -INFINITY;
    }
  }
  if (a->status != NULL) ((int32_t *)a->status->data)[row * stride(a->status, 0)] = status;
}

static chorus_status run(const void *prepared, const void *args, const chorus_exec *exec,
                         chorus_error_slot slot) {
  const combiner *c = (const combiner *)prepared;
  job j;
  (void)exec;
  (void)slot;
  j.c = c;
  j.a = (const chorus_combine_args *)args;
  if (j.a->rows > 0) c->host->parallel_for(c->host->self, (uint64_t)j.a->rows, run_row, &j);
  return CHORUS_OK;
}

static const chorus_kernel combine_rows = {CHORUS_END_OF(chorus_kernel, prepared_bytes),
                                           CHORUS_OP_COMBINE_ROWS,
                                           1,
                                           0,
                                           "combine_rows",
                                           score,
                                           prepare,
                                           workspace_size,
                                           run,
                                           release,
                                           NULL};

/* ---- Device and plugin --------------------------------------------------------------------- */

static const chorus_device_desc device_desc = {CHORUS_END_OF(chorus_device_desc, device_id), "template",
                                               "portable C, one kernel, to copy from", CHORUS_DEVICE_HOST, 0};

static const chorus_device_desc *const *list_devices(const chorus_host *host, uint64_t *count, char *why,
                                                     size_t why_bytes) {
  static const chorus_device_desc *const devices[] = {&device_desc};
  (void)host;
  (void)why;
  (void)why_bytes;
  *count = 1;
  return devices;
}

static chorus_status open_device(const chorus_host *host, uint64_t index, chorus_plugin_device **out,
                                 chorus_error_slot slot) {
  static const char no_memory[] = "no memory for the template device";
  (void)index;
  *out = (chorus_plugin_device *)host->allocate(host->self, sizeof(**out), ALIGNMENT);
  if (*out == NULL) return host->set_error(slot, CHORUS_RESOURCE_EXHAUSTED, no_memory, sizeof(no_memory) - 1);
  (*out)->host = host;
  return CHORUS_OK;
}

static void close_device(chorus_plugin_device *device) {
  const chorus_host *host = device->host;
  host->deallocate(host->self, device, sizeof(*device), ALIGNMENT);
}

static const chorus_kernel *const *get_kernels(chorus_plugin_device *device, uint64_t *count) {
  static const chorus_kernel *const kernels[] = {&combine_rows};
  (void)device;
  *count = 1;
  return kernels;
}

static const chorus_plugin plugin = {CHORUS_PLUGIN_MAGIC,
                                     CHORUS_PLUGIN_ABI_MAJOR,
                                     CHORUS_PLUGIN_ABI_MINOR,
                                     CHORUS_END_OF(chorus_plugin, check_device),
                                     CHORUS_PLUGIN_LAYOUT_HASH,
                                     "template",
                                     "0.1.0",
                                     CHORUS_SANITIZER_THIS_BUILD,
                                     0,
                                     0,
                                     {0},
                                     NULL,
                                     0,
                                     list_devices,
                                     open_device,
                                     close_device,
                                     get_kernels,
                                     NULL,
                                     NULL};

__attribute__((visibility("default"))) const chorus_plugin *chorus_plugin_query(
    const chorus_plugin_query_args *args);

/* The one symbol a plugin exports. Cheap and pure: the host compares versions and layout, not the plugin. */
const chorus_plugin *chorus_plugin_query(const chorus_plugin_query_args *args) {
  (void)args;
  return &plugin;
}
