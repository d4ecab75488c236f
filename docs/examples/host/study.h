// SPDX-License-Identifier: Apache-2.0
// The family on the held-out texts: runs models, keeps their scores, and measures any mixture or merge of them.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "llama.h"
#include "mixture.h"
#include "text.h"

namespace host {

// Perplexity is exp(mean of -log p per token): among how many tokens the model wavers. Bits per byte do not depend on
// how a tokenizer cuts the text.
struct Measure {
  std::string name;
  std::vector<double> perplexity;  // per text
  double overall = 0, bits_per_byte = 0;
};

struct Member {
  std::string model;
  double weight;
};

class Study {
 public:
  // `folder` holds the models, and held-out/<domain>.txt. Throws once `interrupted` is nonzero, if given.
  Study(const Library &library, const chorus_context *context, const std::string &folder,
        const volatile int *interrupted);

  const std::vector<Text> &texts() const { return texts_; }
  // The kernels that served the last mixture, and the last merge.
  const std::string &combine_kernel() const { return combine_kernel_; }
  const std::string &merge_kernels() const { return merge_kernels_; }
  std::string path(const std::string &model) const { return folder_ + "/" + model; }

  // A model of the family alone. Its own tokenizer cuts the texts when `own_tokens`.
  Measure alone(const std::string &model, bool own_tokens = false);
  // Mixture of models of the family, their scores computed once and kept.
  Measure mixture(const std::string &name, chorus_combine_rule rule, const std::vector<Member> &members);
  // The model made from `recipe` by the merger, in a temporary folder that is gone afterwards.
  Measure merged(const std::string &name, const std::string &recipe);
  // A mixture-of-experts model; `loads` receives one load per text.
  Measure experts(const Llama &model, const std::string &name, std::vector<ExpertLoad> &loads);

  // `count` tokens drawn after `prompt` from a linear mixture.
  std::string generate(const std::string &prompt, const std::vector<Member> &members, double temperature,
                       size_t count, uint64_t seed);

 private:
  Scores run(const Llama &model, const Text &text, ExpertLoad *load) const;
  Measure measure(const std::string &name, const Llama &model, const std::vector<Text> &texts,
                  std::vector<ExpertLoad> *loads);
  const std::vector<Scores> &scores(const std::string &model);
  Measure summarise(const std::string &name, const std::vector<double> &losses, const std::vector<Text> &texts) const;
  std::vector<Text> read_texts(const Tokenizer &tokenizer) const;

  const Library &library_;
  const chorus_context *context_;
  std::string folder_;
  const volatile int *interrupted_;
  Tokenizer tokenizer_;
  std::vector<Text> texts_;
  std::string combine_kernel_, merge_kernels_;
  std::map<std::string, std::vector<Scores>> scores_;
};

// Chorus's merger on recipe text: the model of `recipe` in a new folder below the user's temporary folder, removed with
// this object.
class Merged {
 public:
  Merged(const Library &library, const chorus_context *context, const std::string &recipe);
  ~Merged();
  Merged(const Merged &) = delete;
  Merged &operator=(const Merged &) = delete;
  std::string model() const { return folder_ + "/model"; }
  const std::string &kernels() const { return kernels_; }

 private:
  void remove();

  std::string folder_, kernels_;
};

}  // namespace host
