// SPDX-License-Identifier: Apache-2.0
// Errors to exit codes, contexts from common options, tables and JSON on standard output.
#include "command.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <csignal>
#include <cstdio>

namespace chorus_cli {
namespace {

int exit_code_of(chorus_status status) {
  switch (status) {
    case CHORUS_CANCELLED:
      return kExitInterrupted;
    case CHORUS_INVALID_ARGUMENT:
    case CHORUS_NOT_FOUND:
    case CHORUS_ALREADY_EXISTS:
    case CHORUS_OUT_OF_RANGE:
    case CHORUS_DATA_LOSS:
      return kExitBadInput;
    default:
      return kExitFailure;
  }
}

void log_to_stderr(void *, chorus_log_level level, const char *message, size_t length) {
  constexpr const char *kNames[] = {"debug", "info", "warning", "error"};
  std::fprintf(stderr, "chorus: %s: %.*s\n", kNames[std::clamp(level, 0, 3)], static_cast<int>(length), message);
}

volatile std::sig_atomic_t interrupts = 0;

// The second Ctrl-C ends the program at once.
void remember_interrupt(int signal) {
  interrupts = 1;
  std::signal(signal, SIG_DFL);
}

// Columns on a terminal, not bytes: continuation bytes of UTF-8 take none.
size_t width_of(const std::string &text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

}  // namespace

void Call::operator()(chorus_status status) {
  if (status == CHORUS_OK) return;
  std::string text = error_ != nullptr ? chorus_error_get_text(error_) : chorus_status_get_name(status);
  throw CallFailed(text, exit_code_of(status));
}

void add_common(CLI::App *command, Common *common) {
  command->add_flag("--json", common->json, "Print the result as JSON");
  command->add_option("--option", common->options, "Option of the library as name=value; see `chorus plugins --options`");
  command->add_option("--plugin", common->plugins, "Load this plugin file too");
  command->add_flag("-v,--verbose", common->verbose, "Log what the library does");
}

Context make_context(const Common &common) {
  Call call;
  chorus_context_spec *raw_spec = nullptr;
  call(chorus_context_spec_create(&raw_spec, call.slot()));
  Owned<chorus_context_spec, chorus_context_spec_destroy> spec(raw_spec);
  call(chorus_context_spec_set_log(spec.get(), log_to_stderr, nullptr,
                                   common.verbose ? CHORUS_LOG_DEBUG : CHORUS_LOG_WARNING, call.slot()));
  for (const std::string &option : common.options) {
    const size_t equals = option.find('=');
    if (equals == std::string::npos) {
      throw CallFailed(fmt::format("--option {}: write it as name=value", option), kExitUsage);
    }
    call(chorus_context_spec_set_option(spec.get(), option.substr(0, equals).c_str(), option.substr(equals + 1).c_str(),
                                        call.slot()));
  }
  for (const std::string &path : common.plugins) {
    call(chorus_context_spec_add_plugin(spec.get(), path.c_str(), call.slot()));
  }
  chorus_context *context = nullptr;
  call(chorus_context_create(spec.get(), &context, call.slot()));
  return Context(context);
}

std::string printable(const std::string &text) {
  std::string safe;
  for (size_t i = 0; i < text.size(); ++i) {
    const unsigned char byte = static_cast<unsigned char>(text[i]);
    const unsigned char next = i + 1 < text.size() ? static_cast<unsigned char>(text[i + 1]) : 0;
    if (byte < 0x20 || byte == 0x7f) {
      safe += fmt::format("\\x{:02x}", byte);
    } else if (byte == 0xc2 && next >= 0x80 && next < 0xa0) {  // U+0080 to U+009F: control characters too
      safe += fmt::format("\\x{:02x}\\x{:02x}", byte, next);
      ++i;
    } else {
      safe += static_cast<char>(byte);
    }
  }
  return safe;
}

std::vector<double> numbers_of(const std::string &option, const std::string &text) {
  std::vector<double> numbers;
  const char *at = text.data(), *end = text.data() + text.size();
  while (true) {
    double number = 0;
    const auto [stop, status] = std::from_chars(at, end, number);
    if (status != std::errc() || (stop != end && *stop != ',')) {
      throw CallFailed(fmt::format("{} {}: write numbers with commas between them, like 0.7,0.3", option, printable(text)),
                       kExitUsage);
    }
    numbers.push_back(number);
    if (stop == end) return numbers;
    at = stop + 1;
  }
}

void watch_interrupts() {
  std::signal(SIGINT, remember_interrupt);
  std::signal(SIGTERM, remember_interrupt);
}

bool is_interrupted() { return interrupts != 0; }

void throw_if_interrupted() {
  if (is_interrupted()) throw CallFailed("interrupted; nothing was written", kExitInterrupted);
}

Json number_or_null(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

void print_json(const Json &value) { fmt::print("{}\n", value.dump(2, ' ', false, Json::error_handler_t::replace)); }

void print_table(const std::vector<std::string> &heads, const std::vector<std::vector<std::string>> &rows) {
  std::vector<size_t> widths;
  for (const std::string &head : heads) widths.push_back(width_of(head));
  for (const auto &row : rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width_of(row[i]));
  }
  const auto print_row = [&](const std::vector<std::string> &row) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      line += row[i];
      if (i + 1 < row.size()) line += std::string(widths[i] - width_of(row[i]) + 2, ' ');
    }
    fmt::print("{}\n", line);
  };
  print_row(heads);
  for (const auto &row : rows) print_row(row);
}

std::string human_bytes(uint64_t bytes) {
  constexpr const char *kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < std::size(kUnits)) {
    value /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.1f} {}", value, kUnits[unit]);
}

namespace {

std::string &remembered() {
  static std::string line;
  return line;
}

// Quoted where a shell would read something else.
std::string shell_word(const std::string &word) {
  constexpr const char *kPlain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./=:,+@%";
  if (!word.empty() && word.find_first_not_of(kPlain) == std::string::npos) return word;
  std::string out = "'";
  for (const char c : word) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

}  // namespace

void remember_command_line(int argc, char **argv) {
  remembered() = "chorus";
  for (int i = 1; i < argc; ++i) remembered() += " " + shell_word(argv[i]);
}

std::string command_line() { return remembered(); }

}  // namespace chorus_cli
