// SPDX-License-Identifier: Apache-2.0
// chorus-host-logits MODEL TEXT: the first window of the text through the model, as JSON: {"tokens": […],
// "logits": [[…], …]}. What the tests compare with another program's forward pass.
#include <cstdio>
#include <exception>

#include <nlohmann/json.hpp>

#include "llama.h"
#include "text.h"

namespace {

void run(const char *folder, const char *file) {
  const host::Library library;
  const auto context = library.make(library.chorus_context_destroy, [&](auto **out, auto **error) {
    return library.chorus_context_create(nullptr, out, error);
  });
  const host::Llama model(library, context.get(), folder);
  const host::Tokenizer tokenizer(library, context.get(), folder);
  const host::Text text = host::cut(tokenizer, file, host::read_file(file), 256);
  if (text.windows.empty()) throw std::runtime_error(std::string(file) + " is empty");
  const std::vector<int32_t> &tokens = text.windows.front().inputs;
  const host::Matrix logits = model.forward(tokens);
  nlohmann::json out = {{"tokens", tokens}};
  for (size_t t = 0; t < logits.rows; ++t) {
    out["logits"].push_back(std::vector<float>(logits.row(t), logits.row(t) + logits.columns));
  }
  std::puts(out.dump().c_str());
}

}  // namespace

int main(int argc, char **argv) {
  if (argc != 3) return std::fputs("chorus-host-logits MODEL TEXT\n", stderr), 2;
  try {
    run(argv[1], argv[2]);
  } catch (const std::exception &failure) {
    return std::fprintf(stderr, "chorus-host-logits: %s\n", failure.what()), 1;
  }
  return 0;
}
