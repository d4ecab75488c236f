// SPDX-License-Identifier: Apache-2.0
// `chorus compare A B…`: is it safe to average these? Per tensor the cosine of the weights, the distance relative to the first model,
// and whether the rows of one are found at the same place in the other.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>

#include "command.h"
#include "svg.h"
#include "tensor_values.h"

namespace chorus_cli {
namespace {

constexpr size_t kProbes = 24, kProbeColumns = 256;  // rows looked for, and how much of each is compared

struct Arguments {
  Common common;
  std::vector<std::string> models;
  std::string report;
};

// Of one tensor of a pair of models.
struct Distance {
  std::string name;
  int64_t layer = -1;
  double cosine = 0, relative = 0;                    // |b - a| / |a|
  double elements = 0, dot = 0, a = 0, b = 0, delta = 0;
  size_t probes = 0, same_place = 0, elsewhere = 0;   // rows of a whose best match in b is there
  double share(size_t count) const { return probes == 0 ? 0 : static_cast<double>(count) / static_cast<double>(probes); }
};

// Rows of `a` as unit vectors of their first columns, and their best match among the rows of `b` seen so far.
class RowMatch {
 public:
  RowMatch(const TensorValues &a, const chorus_tensor_info &info) : rows_(info.shape[0]) {
    columns_ = static_cast<uint64_t>(info.shape[1]);
    width_ = std::min<uint64_t>(columns_, kProbeColumns);
    for (size_t i = 0; i < std::min<size_t>(kProbes, static_cast<size_t>(rows_)); ++i) {
      const uint64_t row = i * static_cast<uint64_t>(rows_) / std::min<uint64_t>(kProbes, static_cast<uint64_t>(rows_));
      probes_.push_back({row, unit(a.read(row * columns_, width_)), -2, 0});
    }
  }
  void look(const TensorValues &b) {
    for (uint64_t row = 0; row < static_cast<uint64_t>(rows_); ++row) {
      const std::vector<float> candidate = unit(b.read(row * columns_, width_));
      for (Probe &probe : probes_) {
        double cosine = 0;
        for (uint64_t i = 0; i < width_; ++i) cosine += double{probe.values[i]} * candidate[i];
        if (cosine > probe.best) {
          probe.best = cosine;
          probe.found = row;
        }
      }
    }
  }
  void count(Distance *out) const {
    for (const Probe &probe : probes_) {
      ++out->probes;
      // The best of n random rows of width w has a cosine of about sqrt(2 ln n / w); a match must be well above it.
      if (probe.best < 1.3 * std::sqrt(2 * std::log(static_cast<double>(rows_)) / static_cast<double>(width_))) continue;
      ++(probe.found == probe.row ? out->same_place : out->elsewhere);
    }
  }

 private:
  struct Probe {
    uint64_t row;
    std::vector<float> values;
    double best;
    uint64_t found;
  };
  static std::vector<float> unit(std::vector<float> values) {
    double square = 0;
    for (const float x : values) square += double{x} * x;
    const double scale = square > 0 ? 1 / std::sqrt(square) : 0;
    for (float &x : values) x = static_cast<float>(x * scale);
    return values;
  }
  int64_t rows_;
  uint64_t columns_, width_;
  std::vector<Probe> probes_;
};

Distance distance(const TensorValues &a, const TensorValues &b, const chorus_tensor_info &info) {
  Distance out;
  out.name = info.name;
  out.layer = info.layer;
  constexpr uint64_t kBlock = uint64_t{1} << 20;
  for (uint64_t at = 0; at < a.elements(); at += kBlock) {
    const uint64_t count = std::min(kBlock, a.elements() - at);
    const std::vector<float> x = a.read(at, count), y = b.read(at, count);
    for (uint64_t i = 0; i < count; ++i) {
      const double p = x[i], q = y[i];
      out.dot += p * q;
      out.a += p * p;
      out.b += q * q;
      out.delta += (q - p) * (q - p);
    }
    throw_if_interrupted();
  }
  out.cosine = out.a > 0 && out.b > 0 ? out.dot / std::sqrt(out.a * out.b) : (out.a == out.b ? 1 : 0);
  out.relative = out.a > 0 ? std::sqrt(out.delta / out.a) : (out.delta > 0 ? HUGE_VAL : 0);
  if (info.ndim == 2 && info.shape[0] >= 16 && info.shape[1] >= 32) {
    RowMatch match(a, info);
    match.look(b);
    match.count(&out);
  }
  return out;
}

struct Comparison {
  std::string model;
  std::vector<Distance> tensors;
  std::vector<std::string> missing;  // in one of the two, or of another shape
  Distance all;
  std::string verdict, advice;
};

void judge(Comparison *c) {
  const double same = c->all.share(c->all.same_place), moved = c->all.share(c->all.elsewhere);
  if (c->tensors.empty()) {
    c->verdict = "unrelated";
    c->advice = "no tensor has the same name and shape in both; they cannot be averaged";
  } else if (c->all.delta == 0) {
    c->verdict = "equal";
    c->advice = "every common weight is the same";
  } else if (same >= 0.5 || (c->all.probes == 0 && c->all.cosine > 0.5)) {
    c->verdict = "shared";
    c->advice = "they share an initialisation; averaging is safe as far as weights can tell";
  } else if (moved >= 0.3) {
    c->verdict = "permuted";
    c->advice = "rows of one are found at other places in the other; averaging needs them aligned first";
  } else {
    c->verdict = "unrelated";
    c->advice = "rows of one are not found in the other: trained from different initialisations; averaging them gives noise";
  }
}

Comparison compare(const Model &a, const Model &b, const std::string &name) {
  Comparison out;
  out.model = name;
  for (size_t i = 0; i < a.count(); ++i) {
    const chorus_tensor_info info = a.info(i);
    const auto other = b.find(info.name);
    if (!other || !TensorValues::is_readable(info) || !same_shape(info, b.info(*other)) || !TensorValues::is_readable(b.info(*other))) {
      out.missing.emplace_back(info.name);
      continue;
    }
    out.tensors.push_back(distance(TensorValues(a, i), TensorValues(b, *other), info));
    const Distance &d = out.tensors.back();
    out.all.dot += d.dot, out.all.a += d.a, out.all.b += d.b, out.all.delta += d.delta;
    out.all.probes += d.probes, out.all.same_place += d.same_place, out.all.elsewhere += d.elsewhere;
  }
  out.all.cosine = out.all.a > 0 && out.all.b > 0 ? out.all.dot / std::sqrt(out.all.a * out.all.b) : 0;
  out.all.relative = out.all.a > 0 ? std::sqrt(out.all.delta / out.all.a) : 0;
  judge(&out);
  return out;
}

// Sums over the tensors of a layer; -1 for those outside.
std::map<int64_t, Distance> by_layer(const Comparison &c) {
  std::map<int64_t, Distance> out;
  for (const Distance &d : c.tensors) {
    Distance &layer = out[d.layer];
    layer.dot += d.dot, layer.a += d.a, layer.b += d.b, layer.delta += d.delta;
  }
  for (auto &[number, layer] : out) {
    layer.cosine = layer.a > 0 && layer.b > 0 ? layer.dot / std::sqrt(layer.a * layer.b) : 0;
    layer.relative = layer.a > 0 ? std::sqrt(layer.delta / layer.a) : 0;
  }
  return out;
}

Json json_of(const Distance &d) {
  return {{"cosine", number_or_null(d.cosine)}, {"relative_distance", number_or_null(d.relative)}, {"rows_probed", d.probes},
          {"rows_same_place", d.same_place}, {"rows_elsewhere", d.elsewhere}};
}

Json json_of(const Comparison &c) {
  Json tensors = Json::array(), layers = Json::array();
  for (const Distance &d : c.tensors) {
    Json one = json_of(d);
    one["name"] = d.name;
    tensors.push_back(one);
  }
  for (const auto &[number, layer] : by_layer(c)) {
    layers.push_back({{"layer", number < 0 ? Json() : Json(number)}, {"cosine", number_or_null(layer.cosine)}, {"relative_distance", number_or_null(layer.relative)}});
  }
  return {{"model", c.model}, {"verdict", c.verdict}, {"advice", c.advice}, {"all", json_of(c.all)}, {"layers", layers}, {"tensors", tensors},
          {"not_compared", c.missing}};
}

void print(const std::string &first, const Comparison &c) {
  fmt::print("{} against {}: {}\n  {}\n  cosine {:.6f}, distance {:.4g} of the first's norm; of {} rows looked for {} are at the same place, {} elsewhere\n",
             printable(c.model), printable(first), c.verdict, c.advice, c.all.cosine, c.all.relative, c.all.probes, c.all.same_place, c.all.elsewhere);
  if (!c.missing.empty()) fmt::print("  {} tensors are not in both with one shape: {}\n", c.missing.size(), printable(c.missing[0]));
  std::vector<std::vector<std::string>> rows;
  for (const auto &[number, layer] : by_layer(c)) {
    rows.push_back({number < 0 ? "outside" : std::to_string(number), fmt::format("{:.6f}", layer.cosine), fmt::format("{:.4g}", layer.relative)});
  }
  print_table({"layer", "cosine", "distance"}, rows);
}

// White to red by the logarithm of the distance between the least and the largest.
std::string cell(double relative, double low, double high) {
  const double t = relative > 0 && high > low ? std::clamp((std::log(relative) - std::log(low)) / (std::log(high) - std::log(low)), 0.0, 1.0) : 0;
  return fmt::format("<td style=\"background:rgb(255,{0},{0})\">{1:.3g}</td>", static_cast<int>(245 - 190 * t), relative);
}

void write_report(const std::string &path, const std::string &first, const std::vector<Comparison> &all) {
  std::string body;
  for (const Comparison &c : all) {
    double low = HUGE_VAL, high = 0;
    std::map<int64_t, std::map<std::string, double>> grid;
    std::map<std::string, bool> columns;
    for (const Distance &d : c.tensors) {
      if (d.relative > 0) low = std::min(low, d.relative), high = std::max(high, d.relative);
      const std::string number = "." + std::to_string(d.layer) + ".";
      const size_t at = d.layer < 0 ? std::string::npos : d.name.find(number);
      const std::string column = at == std::string::npos ? d.name : d.name.substr(at + number.size());
      grid[at == std::string::npos ? -1 : d.layer][column] = d.relative;
      columns[column] = true;
    }
    body += fmt::format("<h2>{}: {}</h2><p>{}</p><p>cosine {:.6f}, distance {:.4g}</p><table><tr><th></th>", html_text(c.model), c.verdict, html_text(c.advice),
                        c.all.cosine, c.all.relative);
    for (const auto &[name, seen] : columns) body += fmt::format("<th>{}</th>", html_text(name));
    body += "</tr>";
    for (const auto &[number, values] : grid) {
      body += fmt::format("<tr><th>{}</th>", number < 0 ? "outside" : "layer " + std::to_string(number));
      for (const auto &[name, seen] : columns) body += values.contains(name) ? cell(values.at(name), low, high) : "<td></td>";
      body += "</tr>";
    }
    body += "</table>";
  }
  std::ofstream file(path, std::ios::binary);
  file << "<!doctype html><meta charset=\"utf-8\"><title>chorus compare</title><style>body{font:14px sans-serif}td,th{padding:2px 6px;font-size:11px}"
          "th{text-align:left}</style><h1>Distances from "
       << html_text(first) << "</h1><p>|b &minus; a| / |a| of each tensor; red is far.</p>" << body << "\n";
  file.close();
  if (!file) throw CallFailed("writing " + path + " failed", kExitFailure);
}

void compare_all(const Arguments &arguments) {
  if (arguments.models.size() < 2) throw CallFailed("MODELS: two or more are compared", kExitUsage);
  const Context context = make_context(arguments.common);
  watch_interrupts();
  const Model first(context.get(), arguments.models[0]);
  std::vector<Comparison> all;
  for (size_t i = 1; i < arguments.models.size(); ++i) {
    all.push_back(compare(first, Model(context.get(), arguments.models[i]), arguments.models[i]));
  }
  if (!arguments.report.empty()) write_report(arguments.report, arguments.models[0], all);
  if (arguments.common.json) {
    Json list = Json::array();
    for (const Comparison &c : all) list.push_back(json_of(c));
    return print_json({{"first", arguments.models[0]}, {"comparisons", list}});
  }
  for (const Comparison &c : all) print(arguments.models[0], c);
}

}  // namespace

void add_compare(CLI::App *program) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App *command = program->add_subcommand("compare", "Whether models share an initialisation, and how far apart their layers are");
  add_common(command, &arguments->common);
  command->add_option("MODELS", arguments->models, "The first is what the others are compared with")->required();
  command->add_option("--report", arguments->report, "HTML file with a heat map of the distances");
  command->footer("Example:\n  chorus compare base tuned-a tuned-b --report distances.html");
  command->callback([arguments] { compare_all(*arguments); });
}

}  // namespace chorus_cli
