// SPDX-License-Identifier: Apache-2.0
// `chorus soup MODELS… --out OUT`: the average of models or checkpoints; with --greedy only of those that improve a score.
#include <fmt/format.h>
#include <sys/wait.h>

#include <cstdio>
#include <cstdlib>

#include "recipe_run.h"

namespace chorus_cli {
namespace {

struct Arguments {
  RecipeRun run;
  std::vector<std::string> models;
  std::vector<double> weights;
  std::string score;
  bool greedy = false, lower = false;
};

std::string shell_quoted(const std::string &text) {
  std::string out = "'";
  for (const char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

// What the command prints for a folder: its last line that is a number.
class Scorer {
 public:
  Scorer(const std::string &command, bool lower) : command_(command), lower_(lower) {}

  static int32_t score(void *self, const char *folder, double *out) {
    return static_cast<Scorer *>(self)->run(folder, out) ? 0 : 1;
  }
  const std::string &problem() const { return problem_; }

 private:
  bool run(const std::string &folder, double *out) {
    std::string command = command_;
    const std::string quoted = shell_quoted(folder);
    for (size_t at = command.find("{}"); at != std::string::npos; at = command.find("{}", at + quoted.size())) command.replace(at, 2, quoted);
    FILE *pipe = ::popen(command.c_str(), "r");
    if (pipe == nullptr) return refuse("could not be started: " + command);
    std::string text;
    char block[4096];
    for (size_t got = 0; (got = std::fread(block, 1, sizeof(block), pipe)) > 0;) text.append(block, got);
    const int status = ::pclose(pipe);
    if (is_interrupted()) return refuse("interrupted");
    if (status != 0) return refuse(fmt::format("'{}' ended with {}", command, WIFEXITED(status) ? fmt::format("exit code {}", WEXITSTATUS(status)) : "a signal"));
    if (!last_number(text, out)) return refuse(fmt::format("'{}' printed no number: '{}'", command, printable(text.substr(0, 200))));
    fmt::print(stderr, "score {:>12.6g}  {}\n", *out, folder);
    if (lower_) *out = -*out;
    return true;
  }
  static bool last_number(const std::string &text, double *out) {
    bool found = false;
    for (size_t at = 0; at < text.size();) {
      const size_t end = std::min(text.find('\n', at), text.size());
      const std::string line = text.substr(at, end - at);
      char *rest = nullptr;
      const double value = std::strtod(line.c_str(), &rest);
      if (rest != line.c_str() && std::string_view(rest).find_first_not_of(" \t\r") == std::string_view::npos) {
        *out = value;
        found = true;
      }
      at = end + 1;
    }
    return found;
  }
  bool refuse(const std::string &problem) {
    problem_ = problem;
    return false;
  }

  std::string command_, problem_;
  bool lower_;
};

std::string recipe_of(const Arguments &arguments) {
  std::string out = "merge_method: linear\nmodels:\n";
  for (size_t i = 0; i < arguments.models.size(); ++i) {
    const double weight = arguments.weights.empty() ? 1 : arguments.weights[i];
    out += fmt::format("  - model: {}\n    parameters: {{weight: {}}}\n", yaml_text(arguments.models[i]), weight);
  }
  return out;
}

void greedy(const Arguments &arguments) {
  const Context context = make_context(arguments.run.common);
  Scorer scorer(arguments.score, arguments.lower);
  std::vector<const char *> models;
  for (const std::string &model : arguments.models) models.push_back(model.c_str());
  std::vector<double> scores(models.size());
  std::vector<int32_t> members(models.size());
  double score = 0;
  watch_interrupts();
  Call call;
  const chorus_status status = chorus_soup_greedy(context.get(), models.data(), models.size(), arguments.run.device.c_str(),
                                                  arguments.run.output.c_str(), Scorer::score, &scorer, scores.data(), members.data(), &score,
                                                  call.slot());
  throw_if_interrupted();
  if (status == CHORUS_CANCELLED) throw CallFailed("--score: " + scorer.problem(), kExitBadInput);
  call(status);
  const double sign = arguments.lower ? -1 : 1;
  Json list = Json::array();
  std::vector<std::vector<std::string>> rows;
  for (size_t i = 0; i < models.size(); ++i) {
    list.push_back({{"model", arguments.models[i]}, {"score", sign * scores[i]}, {"member", members[i] != 0}});
    rows.push_back({arguments.models[i], fmt::format("{:.6g}", sign * scores[i]), members[i] != 0 ? "yes" : "no"});
  }
  if (arguments.run.common.json) return print_json({{"output", arguments.run.output}, {"score", sign * score}, {"models", list}});
  print_table({"model", "score alone", "in the soup"}, rows);
  fmt::print("wrote {}: score {:.6g}\n", arguments.run.output, sign * score);
}

void soup(const Arguments &arguments) {
  if (arguments.greedy != !arguments.score.empty()) throw CallFailed("--greedy and --score 'command {}' go together", kExitUsage);
  if (arguments.greedy && arguments.score.find("{}") == std::string::npos) throw CallFailed("--score: {} must stand where the model's folder goes", kExitUsage);
  if (!arguments.weights.empty() && (arguments.greedy || arguments.weights.size() != arguments.models.size())) {
    throw CallFailed(arguments.greedy ? "--weights: a greedy soup weighs its members equally"
                                      : fmt::format("--weights has {} numbers for {} models", arguments.weights.size(), arguments.models.size()),
                     kExitUsage);
  }
  if (arguments.greedy && (arguments.run.plan || arguments.run.replace)) throw CallFailed("--greedy takes neither --plan nor --replace", kExitUsage);
  arguments.greedy ? greedy(arguments) : run_recipe(arguments.run, recipe_of(arguments));
}

}  // namespace

void add_soup(CLI::App *program) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App *command = program->add_subcommand("soup", "Average models or checkpoints, all of them or those that improve a score");
  add_run_options(command, &arguments->run, true);
  command->add_option("MODELS", arguments->models, "Folders, files, or org/name in the Hugging Face cache")->required();
  command->add_option("-o,--out", arguments->run.output, "Folder for the average: new, or empty")->required();
  command->add_option("--weights", arguments->weights, "One for each model; they are divided by their sum")->delimiter(',');
  command->add_flag("--greedy", arguments->greedy, "From the best model on, add one at a time and keep it if the average improves");
  command->add_option("--score", arguments->score, "Shell command that prints a number for the model folder put in place of {}");
  command->add_flag("--lower-is-better", arguments->lower, "The score is a loss");
  command->footer(
      "Examples:\n  chorus soup run/checkpoint-800 run/checkpoint-900 run/checkpoint-1000 -o averaged\n"
      "  chorus soup a b c -o soup --greedy --score 'python evaluate.py {}'");
  command->callback([arguments] { soup(*arguments); });
}

}  // namespace chorus_cli
