// SPDX-License-Identifier: Apache-2.0
// `chorus route`: routes rows of gate logits and says how the experts are loaded.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "rows_file.h"

namespace chorus_cli {
namespace {

using Router = Owned<chorus_router, chorus_router_destroy>;
using RouterSpec = Owned<chorus_router_spec, chorus_router_spec_destroy>;

constexpr int64_t kBlockBytes = int64_t{32} << 20;  // of logits in memory

const Words<chorus_route_score> kScores = {{"softmax", CHORUS_ROUTE_SOFTMAX},
                                           {"sigmoid", CHORUS_ROUTE_SIGMOID},
                                           {"sqrt-softplus", CHORUS_ROUTE_SQRT_SOFTPLUS},
                                           {"identity", CHORUS_ROUTE_IDENTITY},
                                           {"relu", CHORUS_ROUTE_RELU}};
const Words<chorus_route_order> kOrders = {{"score-then-topk", CHORUS_ROUTE_SCORE_THEN_TOPK},
                                           {"topk-then-score", CHORUS_ROUTE_TOPK_THEN_SCORE}};
const Words<chorus_route_renormalise> kRenormalise = {{"none", CHORUS_ROUTE_RENORMALISE_NONE},
                                                      {"sum", CHORUS_ROUTE_RENORMALISE_SUM},
                                                      {"clamped", CHORUS_ROUTE_RENORMALISE_CLAMPED}};

struct Arguments {
  Common common;
  std::string path, tensor, bias, bias_tensor, output, device = "auto";
  std::string preset, score = "softmax", order = "score-then-topk", renormalise = "none";
  int32_t k = 0;
  double epsilon = 0, scale = 1;
  bool replace = false;
};

// What the options say of scores and weights, or the preset instead.
void set_rules(chorus_router_spec *spec, const Arguments &arguments) {
  Call call;
  if (arguments.preset.empty()) {
    call(chorus_router_spec_set_score(spec, value_of("--score", arguments.score, kScores),
                                      value_of("--order", arguments.order, kOrders), call.slot()));
    call(chorus_router_spec_set_bias(spec, arguments.bias.empty() ? 0 : 1, call.slot()));
    call(chorus_router_spec_set_weights(spec, value_of("--renormalise", arguments.renormalise, kRenormalise),
                                        arguments.epsilon, arguments.scale, call.slot()));
    return;
  }
  call(chorus_router_spec_set_preset(spec, arguments.preset.c_str(), call.slot()));
  chorus_route_desc desc = CHORUS_ROUTE_DESC_INIT;
  call(chorus_router_spec_get_desc(spec, &desc, call.slot()));
  if ((desc.has_bias != 0) == arguments.bias.empty()) {
    throw CallFailed(fmt::format("preset '{}' has {} bias; {}", arguments.preset, desc.has_bias != 0 ? "a" : "no",
                                 desc.has_bias != 0 ? "give it by --bias" : "leave --bias out"),
                     kExitBadInput);
  }
}

RouterSpec new_spec(const Arguments &arguments, const RowsFile &logits) {
  if (logits.width() > INT32_MAX) {
    throw CallFailed(fmt::format("{} has {} columns, one per expert; at most 8192", logits.label(), logits.width()),
                     kExitBadInput);
  }
  Call call;
  chorus_router_spec *spec = nullptr;
  call(chorus_router_spec_create(static_cast<int32_t>(logits.width()), arguments.k, &spec, call.slot()));
  RouterSpec owned(spec);
  call(chorus_router_spec_set_dtypes(spec, logits.score_dtype(), CHORUS_I32, CHORUS_F32, call.slot()));
  set_rules(spec, arguments);
  return owned;
}

// Whether tokens compete (capacity, experts that choose) or draw numbers by their place in a call, so that all go in one.
bool tokens_compete(const RouterSpec &spec) {
  chorus_route_desc desc = CHORUS_ROUTE_DESC_INIT;
  Call call;
  call(chorus_router_spec_get_desc(spec.get(), &desc, call.slot()));
  return desc.capacity != 0 || desc.capacity_factor != 0 || desc.noise != 0 ||
         (desc.selection != CHORUS_ROUTE_TOKENS_CHOOSE && desc.selection != CHORUS_ROUTE_POSITIVE);
}

Router new_router(const Context &context, const Arguments &arguments, const RouterSpec &spec, int64_t max_tokens) {
  Call call;
  call(chorus_router_spec_set_max_tokens(spec.get(), max_tokens, call.slot()));
  chorus_router *router = nullptr;
  call(chorus_router_create(context.get(), spec.get(), arguments.device.c_str(), &router, call.slot()));
  return Router(router);
}

std::vector<float> read_bias(const Context &context, const Arguments &arguments, int64_t experts) {
  if (arguments.bias.empty()) return {};
  const RowsFile file(context, arguments.bias, arguments.bias_tensor, {"bias", "e_score_correction_bias"});
  std::vector<float> bias = file.read_floats();
  if (static_cast<int64_t>(bias.size()) != experts) {
    throw CallFailed(fmt::format("{} has {} numbers for {} experts", file.label(), bias.size(), experts), kExitBadInput);
  }
  return bias;
}

// What a run over all tokens gives.
struct Loads {
  int64_t tokens = 0;
  std::vector<int64_t> counts;      // chosen slots of each expert
  std::vector<double> weight_sums;  // and the sum of their weights
  double first_weights = 0;         // sum of each token's highest weight
};

Loads run(const Context &context, const Arguments &arguments) {
  const RowsFile logits(context, arguments.path, arguments.tensor, {"logits", "router_logits", "gate_logits"});
  const int64_t experts = logits.width(), k = arguments.k;
  const RouterSpec spec = new_spec(arguments, logits);
  const int64_t all = std::max<int64_t>(1, logits.rows());
  const int64_t block_tokens =
      tokens_compete(spec) ? all : std::clamp<int64_t>(kBlockBytes / (8 * std::max<int64_t>(1, experts)), 1, all);
  const Router router = new_router(context, arguments, spec, block_tokens);
  std::vector<float> bias = read_bias(context, arguments, experts);

  RowsWriter writer;
  const size_t ids_out = writer.declare("ids", CHORUS_I32, {logits.rows(), k});
  const size_t weights_out = writer.declare("weights", CHORUS_F32, {logits.rows(), k});
  if (!arguments.output.empty()) writer.start(context, arguments.output, arguments.replace);

  Loads loads;
  loads.tokens = logits.rows();
  loads.counts.resize(static_cast<size_t>(experts));
  loads.weight_sums.resize(static_cast<size_t>(experts));
  std::vector<char> block;
  std::vector<int32_t> ids(static_cast<size_t>(block_tokens * k));
  std::vector<float> weights(ids.size());
  const View bias_view(bias.data(), CHORUS_F32, experts);
  chorus_route_in in = CHORUS_ROUTE_IN_INIT;
  in.bias = bias.empty() ? nullptr : bias_view.get();
  for (int64_t first = 0; first < logits.rows(); first += block_tokens) {
    throw_if_interrupted();
    const int64_t count = std::min(block_tokens, logits.rows() - first);
    logits.read_scores(first, count, &block);
    const View scores(block.data(), logits.score_dtype(), count, experts);
    const View ids_view(ids.data(), CHORUS_I32, count, k), weights_view(weights.data(), CHORUS_F32, count, k);
    chorus_route_out out = CHORUS_ROUTE_OUT_INIT;
    out.ids = ids_view.get();
    out.weights = weights_view.get();
    Call call;
    call(chorus_router_route(router.get(), scores.get(), &in, &out, nullptr, call.slot()));
    for (int64_t slot = 0; slot < count * k; ++slot) {
      if (ids[static_cast<size_t>(slot)] < 0) continue;  // dropped, or nobody's choice
      const size_t expert = static_cast<size_t>(ids[static_cast<size_t>(slot)]);
      const double weight = weights[static_cast<size_t>(slot)];
      ++loads.counts[expert];
      loads.weight_sums[expert] += weight;
      if (slot % k == 0) loads.first_weights += weight;
    }
    if (!arguments.output.empty()) {
      writer.append(ids_out, ids.data(), static_cast<uint64_t>(count * k) * sizeof(int32_t));
      writer.append(weights_out, weights.data(), static_cast<uint64_t>(count * k) * sizeof(float));
    }
  }
  if (!arguments.output.empty()) writer.finish();
  return loads;
}

// Shares of the slots: f_e = counts_e / (tokens k).
struct Balance {
  double entropy = 0;      // -sum f log f, nats; log E when all are equal
  double max_to_mean = 0;  // 1 when all are equal
  int64_t idle = 0;        // experts without a slot
};

Balance balance_of(const Loads &loads) {
  Balance balance;
  const double slots = static_cast<double>(std::accumulate(loads.counts.begin(), loads.counts.end(), int64_t{0}));
  for (const int64_t count : loads.counts) {
    if (count == 0) ++balance.idle;
    const double share = slots == 0 ? 0 : static_cast<double>(count) / slots;
    if (share > 0) balance.entropy -= share * std::log(share);
    balance.max_to_mean = std::max(balance.max_to_mean, share * static_cast<double>(loads.counts.size()));
  }
  return balance;
}

void print_result(const Arguments &arguments, const Loads &loads) {
  const Balance balance = balance_of(loads);
  const double experts = static_cast<double>(loads.counts.size()), tokens = static_cast<double>(loads.tokens);
  const double slots = tokens * arguments.k, even = std::log(experts);
  const double first_weight = loads.tokens == 0 ? 0 : loads.first_weights / tokens;
  if (arguments.common.json) {
    Json out = {{"tokens", loads.tokens},
                {"experts", loads.counts.size()},
                {"k", arguments.k},
                {"counts", loads.counts}};
    if (arguments.preset.empty()) {
      out["score"] = arguments.score;
      out["order"] = arguments.order;
    } else {
      out["preset"] = arguments.preset;
    }
    for (const double sum : loads.weight_sums) out["weight_sums"].push_back(number_or_null(sum));
    out["entropy"] = balance.entropy;
    out["entropy_of_even"] = even;
    out["max_to_mean"] = balance.max_to_mean;
    out["idle_experts"] = balance.idle;
    out["mean_first_weight"] = number_or_null(first_weight);
    if (!arguments.output.empty()) out["output"] = arguments.output;
    print_json(out);
    return;
  }
  std::vector<std::vector<std::string>> rows;
  for (size_t e = 0; e < loads.counts.size(); ++e) {
    const double count = static_cast<double>(loads.counts[e]);
    rows.push_back({fmt::format("{}", e), fmt::format("{}", loads.counts[e]),
                    fmt::format("{:.2f} %", slots == 0 ? 0.0 : 100 * count / slots),
                    fmt::format("{:.6f}", count == 0 ? 0.0 : loads.weight_sums[e] / count)});
  }
  print_table({"expert", "slots", "share", "mean weight"}, rows);
  const std::string rules = arguments.preset.empty() ? arguments.score + ", " + arguments.order : arguments.preset;
  fmt::print("\n{} tokens to {} of {} experts each ({})\n", loads.tokens, arguments.k, loads.counts.size(), rules);
  fmt::print("load entropy {:.4f} nats of {:.4f} when even; max/mean {:.4f}; {} idle; mean first weight {:.6f}\n",
             balance.entropy, even, balance.max_to_mean, balance.idle, first_weight);
  if (!arguments.output.empty()) fmt::print("written: {}\n", printable(arguments.output));
}

std::string preset_names() {
  std::string names;
  for (size_t i = 0; chorus_router_preset_name(i) != nullptr; ++i) {
    names += (i == 0 ? "" : ", ") + std::string(chorus_router_preset_name(i));
  }
  return names;
}

}  // namespace

void add_route(CLI::App *program) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App *command = program->add_subcommand("route", "Route gate logits to experts; loads of the experts");
  add_common(command, &arguments->common);
  command->add_option("logits", arguments->path, "Safetensors file of gate logits: a row per token, a column per expert")->required();
  command->add_option("-k", arguments->k, "Experts per token")->required();
  command->add_option("--tensor", arguments->tensor, "Name of the tensor, where the file has several");
  const auto preset = command->add_option("--preset", arguments->preset, "Route as a published model: " + preset_names());
  command->add_option("--score", arguments->score, "softmax, sigmoid, sqrt-softplus, identity or relu (default: softmax)")
      ->excludes(preset);
  command->add_option("--order", arguments->order, "score-then-topk (default) or topk-then-score")->excludes(preset);
  command->add_option("--bias", arguments->bias, "File with a number per expert, added for choosing, not for weighing");
  command->add_option("--bias-tensor", arguments->bias_tensor, "Name of the tensor of the bias");
  command->add_option("--renormalise", arguments->renormalise, "Weights of a token: none (default), sum or clamped")
      ->excludes(preset);
  command->add_option("--epsilon", arguments->epsilon, "sum: w / (sum + epsilon); clamped: w / max(sum, epsilon)")
      ->excludes(preset);
  command->add_option("--scale", arguments->scale, "Factor of all weights (default: 1)")->excludes(preset);
  command->add_option("--output", arguments->output, "New folder for ids and weights, as safetensors");
  command->add_flag("--replace", arguments->replace, "Let --output replace what is there");
  command->add_option("--device", arguments->device, "Device that computes (default: auto)");
  command->footer(
      "Examples:\n"
      "  chorus route logits.safetensors -k 2\n"
      "  chorus route logits.safetensors -k 4 --order topk-then-score --json\n"
      "  chorus route logits.safetensors -k 8 --preset qwen3-moe\n"
      "  chorus route logits.safetensors -k 8 --score sigmoid --bias bias.safetensors --renormalise sum --scale 2.5 \\\n"
      "               --output routing");
  command->callback([arguments] {
    value_of("--score", arguments->score, kScores);
    value_of("--order", arguments->order, kOrders);
    value_of("--renormalise", arguments->renormalise, kRenormalise);
    watch_interrupts();
    const Context context = make_context(arguments->common);
    print_result(*arguments, run(context, *arguments));
  });
}

}  // namespace chorus_cli
