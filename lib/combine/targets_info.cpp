// SPDX-License-Identifier: Apache-2.0
// What a file of targets says of itself: checked fields, to metadata and back.
#include <charconv>
#include <cmath>
#include <limits>

#include "combine/targets.h"
#include "runtime/dtype.h"
#include "runtime/error.h"

namespace chorus::combine {
namespace {

constexpr const char *kForms[] = {"packed", "plain", "rows"};

// Fails with `code`, after `where`.
template <typename... Args>
[[noreturn]] void refuse(chorus_status code, const std::string &where, fmt::format_string<Args...> format, Args &&...args) {
  fail(code, "{}{}", where, fmt::format(format, std::forward<Args>(args)...));
}

void check_numbers(const chorus_targets_info &i, chorus_status code, const std::string &where) {
  if (i.form < CHORUS_TARGETS_PACKED || i.form > CHORUS_TARGETS_ROWS) {
    refuse(code, where, "form is {}; packed (0), plain (1) and rows (2) are known", i.form);
  }
  if (i.rows < 0) refuse(code, where, "rows is {}; at least 0 is needed", i.rows);
  if (i.n_tokens < 1 || i.n_tokens > std::numeric_limits<int32_t>::max()) {
    refuse(code, where, "n_tokens is {}; 1 to 2^31 - 1 are allowed", i.n_tokens);
  }
  const bool rows = i.form == CHORUS_TARGETS_ROWS;
  if (rows ? i.k != 0 : i.k < 1 || i.k > CHORUS_DISTILL_MAX_SPARSE || i.k > i.n_tokens) {
    refuse(code, where, "k is {}; {} is allowed", i.k,
           rows ? "0 with whole rows" : fmt::format("1 to {} and n_tokens ({})", CHORUS_DISTILL_MAX_SPARSE, i.n_tokens));
  }
  if (is_packed(i) ? i.bits < 2 || i.bits > 16 : i.bits != 0) {
    refuse(code, where, "bits is {}; {} is allowed", i.bits, is_packed(i) ? "2 to 16" : "0 in this form");
  }
  if (is_packed(i) ? i.dtype != 0 : i.dtype != CHORUS_F32 && i.dtype != CHORUS_F16 && i.dtype != CHORUS_BF16) {
    refuse(code, where, "dtype is {}; {} is allowed", describe_dtype(i.dtype), is_packed(i) ? "0 when packed" : "f32, f16 or bf16");
  }
  if (!std::isfinite(i.temperature) || !(i.temperature > 0)) {
    refuse(code, where, "temperature is {}; finite and > 0 is needed", i.temperature);
  }
  if (i.rule < CHORUS_COMBINE_LINEAR || i.rule > CHORUS_COMBINE_CONDORCET) {
    refuse(code, where, "rule is {}; CHORUS_COMBINE_* are known", i.rule);
  }
  if (i.n_models < 0 || i.n_models > CHORUS_COMBINE_MAX_MODELS) {
    refuse(code, where, "n_models is {}; 0 to {} are allowed", i.n_models, CHORUS_COMBINE_MAX_MODELS);
  }
}

void check_weights(const std::vector<double> &weights, chorus_status code, const std::string &where) {
  for (size_t i = 0; i < weights.size(); ++i) {
    if (!std::isfinite(weights[i])) refuse(code, where, "weights[{}] is {}; it must be finite", i, weights[i]);
  }
}

uint64_t bytes_per_row(const chorus_targets_info &i) {
  if (is_packed(i)) return PackedFormat(i.k, i.n_tokens, i.bits).bytes();
  const uint64_t bytes = dtype_bytes(i.dtype);
  return i.form == CHORUS_TARGETS_ROWS ? static_cast<uint64_t>(i.n_tokens) * bytes : static_cast<uint64_t>(i.k) * (4 + bytes) + 4;
}

void complete(TargetsInfo *out) {
  out->info.struct_size = CHORUS_END_OF(chorus_targets_info, bytes_per_row);
  out->info.weights = out->weights.data();
  out->info.bytes_per_row = bytes_per_row(out->info);
}

class Reader {
 public:
  Reader(const checkpoint::Metadata &metadata, const std::string &file) : metadata_(metadata), where_(file + ": ") {}
  const std::string &where() const { return where_; }
  const std::string &text(const char *key) const {
    const auto found = metadata_.find(key);
    if (found == metadata_.end()) refuse(CHORUS_DATA_LOSS, where_, "has no metadata '{}'; it is no file of targets", key);
    return found->second;
  }
  template <typename Number, typename... Base>
  Number number(const char *key, std::string_view value, Base... base) const {
    Number out{};
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), out, base...);
    if (error != std::errc() || end != value.data() + value.size()) {
      refuse(CHORUS_DATA_LOSS, where_, "metadata '{}' is not a number that fits", key);
    }
    return out;
  }
  template <typename Number>
  Number number(const char *key) const {
    return number<Number>(key, text(key));
  }

 private:
  const checkpoint::Metadata &metadata_;
  std::string where_;
};

chorus_dtype dtype_named(const std::string &name) {
  for (const chorus_dtype dtype : {CHORUS_F32, CHORUS_F16, CHORUS_BF16}) {
    if (name == dtype_name(dtype)) return dtype;
  }
  return name.empty() ? 0 : CHORUS_I8;  // which no form takes
}

chorus_targets_form form_named(const std::string &name) {
  for (chorus_targets_form form = CHORUS_TARGETS_PACKED; form <= CHORUS_TARGETS_ROWS; ++form) {
    if (name == kForms[form]) return form;
  }
  return -1;
}

}  // namespace

TargetsInfo checked_targets_info(const chorus_targets_info &info) {
  TargetsInfo out{info, {}};
  chorus_targets_info &i = out.info;
  if (is_packed(i) && i.bits == 0) i.bits = 5;
  if (!is_packed(i) && i.dtype == 0) i.dtype = CHORUS_F32;
  if (i.temperature == 0) i.temperature = 1;
  check_numbers(i, CHORUS_INVALID_ARGUMENT, "");
  if (i.n_models > 0 && i.weights == nullptr) fail(CHORUS_INVALID_ARGUMENT, "weights is NULL; n_models is {}", i.n_models);
  if (i.n_models > 0) out.weights.assign(i.weights, i.weights + i.n_models);
  check_weights(out.weights, CHORUS_INVALID_ARGUMENT, "");
  complete(&out);
  return out;
}

checkpoint::Metadata metadata_of(const TargetsInfo &targets) {
  const chorus_targets_info &i = targets.info;
  std::string weights;
  for (const double w : targets.weights) weights += fmt::format("{}{}", weights.empty() ? "" : " ", w);
  return {{"chorus.targets", "1"},
          {"form", kForms[i.form]},
          {"k", std::to_string(i.k)},
          {"n_tokens", std::to_string(i.n_tokens)},
          {"rows", std::to_string(i.rows)},
          {"bits", std::to_string(i.bits)},
          {"dtype", i.dtype == 0 ? "" : dtype_name(i.dtype)},
          {"temperature", fmt::format("{}", i.temperature)},
          {"rule", std::to_string(i.rule)},
          {"weights", weights},
          {"fingerprint", fmt::format("{:016x}{:016x}", i.fingerprint_high, i.fingerprint_low)}};
}

TargetsInfo info_of(const checkpoint::Metadata &metadata, const std::string &file) {
  const Reader in(metadata, file);
  if (in.text("chorus.targets") != "1") {
    refuse(CHORUS_DATA_LOSS, in.where(), "metadata 'chorus.targets' is not 1, the version this library reads");
  }
  TargetsInfo out{CHORUS_TARGETS_INFO_INIT, {}};
  chorus_targets_info &i = out.info;
  i.form = form_named(in.text("form"));
  i.k = in.number<int32_t>("k");
  i.n_tokens = in.number<int64_t>("n_tokens");
  i.rows = in.number<int64_t>("rows");
  i.bits = in.number<int32_t>("bits");
  i.dtype = dtype_named(in.text("dtype"));
  i.temperature = in.number<double>("temperature");
  i.rule = in.number<int32_t>("rule");
  std::string_view rest = in.text("weights");
  while (!rest.empty() && out.weights.size() <= CHORUS_COMBINE_MAX_MODELS) {
    const size_t end = std::min(rest.find(' '), rest.size());
    out.weights.push_back(in.number<double>("weights", rest.substr(0, end)));
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  i.n_models = static_cast<int32_t>(out.weights.size());
  const std::string_view words = in.text("fingerprint");
  if (words.size() != 32) refuse(CHORUS_DATA_LOSS, in.where(), "metadata 'fingerprint' has not 32 digits");
  i.fingerprint_high = in.number<uint64_t>("fingerprint", words.substr(0, 16), 16);
  i.fingerprint_low = in.number<uint64_t>("fingerprint", words.substr(16), 16);
  check_numbers(i, CHORUS_DATA_LOSS, in.where());
  check_weights(out.weights, CHORUS_DATA_LOSS, in.where());
  complete(&out);
  return out;
}

std::vector<checkpoint::DeclaredTensor> tensors_of(const chorus_targets_info &info) {
  const auto type = [](chorus_dtype dtype) { return checkpoint::storage_type(dtype); };
  switch (info.form) {
    case CHORUS_TARGETS_PACKED:
      return {{"targets", type(CHORUS_U8), {info.rows, static_cast<int64_t>(info.bytes_per_row)}}};
    case CHORUS_TARGETS_PLAIN:
      return {{"ids", type(CHORUS_I32), {info.rows, info.k}},
              {"log_probs", type(info.dtype), {info.rows, info.k}},
              {"tail", type(CHORUS_F32), {info.rows}}};
    default: return {{"log_probs", type(info.dtype), {info.rows, info.n_tokens}}};
  }
}

}  // namespace chorus::combine
