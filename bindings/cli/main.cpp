// SPDX-License-Identifier: Apache-2.0
// The `chorus` program: parses the command line, runs one command, turns what it throws into an exit code.
#include <csignal>
#include <cstdio>

#include "command.h"

int main(int argc, char **argv) {
  std::signal(SIGXFSZ, SIG_IGN);  // a file-size limit is then an error with words, like a full disk
  chorus_cli::remember_command_line(argc, argv);
  CLI::App program{"Make many models act as one: combine their distributions, merge their weights, route their experts."};
  program.name("chorus");
  program.require_subcommand(1);
  program.footer(
      "Examples:\n"
      "  chorus plugins                              what was found, where, and why not\n"
      "  chorus plugins --options                    every option of the library\n"
      "  chorus inspect MODEL                        tensors, layers, experts; is it sound?\n"
      "  chorus merge recipe.yml OUT --plan          what a merge would do\n"
      "  chorus soup A B C -o OUT                    their average; --greedy keeps what improves a score\n"
      "  chorus negate MODEL --base BASE -o OUT      take a fine-tune's changes away\n"
      "  chorus compare A B                          is it safe to average them?\n"
      "  chorus combine --model a=a.safetensors --model b=b.safetensors --targets t.safetensors\n"
      "  chorus fit --model a=a.safetensors --model b=b.safetensors --targets t.safetensors\n"
      "  chorus route logits.safetensors -k 2        loads of the experts\n"
      "Exit codes: 0 done; 1 could not be done; 2 wrong usage; 3 a file or argument is wrong; 130 interrupted.");
  chorus_cli::add_plugins(&program);
  chorus_cli::add_inspect(&program);
  chorus_cli::add_combine(&program);
  chorus_cli::add_fit(&program);
  chorus_cli::add_route(&program);
  chorus_cli::add_merge(&program);
  chorus_cli::add_soup(&program);
  chorus_cli::add_negate(&program);
  chorus_cli::add_compare(&program);
  chorus_cli::add_version(&program);
  try {
    program.parse(argc, argv);
    return 0;
  } catch (const CLI::ParseError &error) {
    return program.exit(error) == 0 ? 0 : chorus_cli::kExitUsage;
  } catch (const chorus_cli::CallFailed &error) {
    std::fprintf(stderr, "chorus: %s\n", error.what());
    return error.exit_code();
  } catch (const std::exception &error) {
    std::fprintf(stderr, "chorus: %s\n", error.what());
    return chorus_cli::kExitFailure;
  }
}
