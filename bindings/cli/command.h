// SPDX-License-Identifier: Apache-2.0
// What the commands share: how one is added, how a failed call becomes an exit code, where results are printed.
// The program uses the public C ABI alone.
#pragma once
#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "chorus/chorus.h"

namespace chorus_cli {

using Json = nlohmann::ordered_json;

// Exit codes, listed in the program's --help.
constexpr int kExitFailure = 1;      // could not be done
constexpr int kExitUsage = 2;        // unknown option or command
constexpr int kExitBadInput = 3;     // a file or argument is wrong
constexpr int kExitInterrupted = 130;  // Ctrl-C; nothing half-written remains

// A failed call of the library: its text (with causes) and the exit code that fits.
class CallFailed : public std::runtime_error {
 public:
  CallFailed(const std::string &text, int exit_code) : std::runtime_error(text), exit_code_(exit_code) {}
  int exit_code() const { return exit_code_; }

 private:
  int exit_code_;
};

// Text from a file made safe for a terminal: control characters as \xNN.
std::string printable(const std::string &text);

// The slot to pass as last argument of a library call: `Call call; call(chorus_x(…, call.slot()));` throws CallFailed.
class Call {
 public:
  ~Call() { chorus_error_destroy(error_); }
  chorus_error **slot() { return &error_; }
  void operator()(chorus_status status);

 private:
  chorus_error *error_ = nullptr;
};

// Owners of library objects.
template <typename T, void (*destroy)(T *)>
struct Destroy {
  void operator()(T *object) const { destroy(object); }
};
template <typename T, void (*destroy)(T *)>
using Owned = std::unique_ptr<T, Destroy<T, destroy>>;
using Context = Owned<chorus_context, chorus_context_destroy>;

// Named values of an option, in the order of their help.
template <typename Value>
using Words = std::vector<std::pair<std::string, Value>>;

// The value of `word`, or a usage error that lists the words of `option`.
template <typename Value>
Value value_of(const std::string &option, const std::string &word, const Words<Value> &words) {
  std::string known;
  for (const auto &[name, value] : words) {
    if (name == word) return value;
    known += (known.empty() ? "" : ", ") + name;
  }
  throw CallFailed(option + " " + printable(word) + ": write one of " + known, kExitUsage);
}

// "1,0.5,-2" as numbers, whatever the locale; `option` names it in errors.
std::vector<double> numbers_of(const std::string &option, const std::string &text);

// Options every command has.
struct Common {
  bool json = false;
  std::vector<std::string> options;  // name=value for the context
  std::vector<std::string> plugins;  // explicit plugin files
  bool verbose = false;
  std::string command_line;  // of a command that leaves it in its output
};
// The program's arguments as a shell would take them; remember_command_line() is called once, by main.
void remember_command_line(int argc, char **argv);
std::string command_line();

void add_common(CLI::App *command, Common *common);

// A context with these options; warnings of the library go to standard error.
Context make_context(const Common &common);

// Adds a command to the program. One of these per file of this folder.
void add_plugins(CLI::App *program);
void add_inspect(CLI::App *program);
void add_combine(CLI::App *program);
void add_fit(CLI::App *program);
void add_route(CLI::App *program);
void add_merge(CLI::App *program);
void add_soup(CLI::App *program);
void add_negate(CLI::App *program);
void add_compare(CLI::App *program);
void add_version(CLI::App *program);

// Ctrl-C: after watch_interrupts() the signal is remembered, and throw_if_interrupted() ends the command with exit code
// 130, so that destructors remove what is half written.
void watch_interrupts();
bool is_interrupted();
void throw_if_interrupted();

// JSON has no infinities and no NaN: they become null.
Json number_or_null(double value);

// Printing. Results go to standard output, progress and warnings to standard error.
void print_json(const Json &value);
void print_table(const std::vector<std::string> &heads, const std::vector<std::vector<std::string>> &rows);
std::string human_bytes(uint64_t bytes);

}  // namespace chorus_cli
