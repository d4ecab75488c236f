// SPDX-License-Identifier: Apache-2.0
// Running models over windows on all processors, and turning losses into perplexities.
#include "study.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <exception>
#include <mutex>
#include <thread>

namespace host {
namespace {

constexpr size_t kWindow = 256;
const char *const kDomains[] = {"legal", "technical", "code"};

// task(i) for each i below count, on all processors; the first exception is thrown again here.
template <typename Task>
void for_each(size_t count, Task task) {
  std::atomic<size_t> next{0};
  std::exception_ptr failure;
  std::mutex mutex;
  const auto work = [&] {
    try {
      for (size_t i = next++; i < count; i = next++) task(i);
    } catch (...) {
      const std::lock_guard lock(mutex);
      failure = std::current_exception();
      next = count;
    }
  };
  std::vector<std::thread> threads;
  for (unsigned i = 1; i < std::thread::hardware_concurrency(); ++i) threads.emplace_back(work);
  work();
  for (std::thread &thread : threads) thread.join();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace

Study::Study(const Library &library, const chorus_context *context, const std::string &folder,
             const volatile int *interrupted)
    : library_(library),
      context_(context),
      folder_(folder),
      interrupted_(interrupted),
      tokenizer_(library, context, folder + "/base"),
      texts_(read_texts(tokenizer_)) {}

std::vector<Text> Study::read_texts(const Tokenizer &tokenizer) const {
  std::vector<Text> texts;
  for (const char *domain : kDomains) {
    const std::string file = folder_ + "/held-out/" + domain + ".txt";
    texts.push_back(cut(tokenizer, domain, read_file(file), kWindow));
    if (texts.back().tokens == 0) throw std::runtime_error(file + " is empty");
  }
  return texts;
}

Scores Study::run(const Llama &model, const Text &text, ExpertLoad *load) const {
  Scores scores(text.windows.size());
  std::mutex mutex;
  for_each(scores.size(), [&](size_t i) {
    if (interrupted_ != nullptr && *interrupted_ != 0) throw std::runtime_error("interrupted");
    ExpertLoad mine;
    scores[i] = model.forward(text.windows[i].inputs, load != nullptr ? &mine : nullptr);
    if (load == nullptr) return;
    const std::lock_guard lock(mutex);
    load->resize(mine.size());
    for (size_t l = 0; l < mine.size(); ++l) {
      (*load)[l].resize(mine[l].size());
      for (size_t e = 0; e < mine[l].size(); ++e) (*load)[l][e] += mine[l][e];
    }
  });
  return scores;
}

const std::vector<Scores> &Study::scores(const std::string &model) {
  std::vector<Scores> &kept = scores_[model];
  if (kept.empty()) {
    const Llama llama(library_, context_, path(model));
    for (const Text &text : texts_) kept.push_back(run(llama, text, nullptr));
  }
  return kept;
}

Measure Study::summarise(const std::string &name, const std::vector<double> &losses,
                         const std::vector<Text> &texts) const {
  Measure m{name, {}, 0, 0};
  double loss = 0, tokens = 0, bytes = 0;
  for (size_t i = 0; i < texts.size(); ++i) {
    m.perplexity.push_back(std::exp(losses[i] / static_cast<double>(texts[i].tokens)));
    loss += losses[i];
    tokens += static_cast<double>(texts[i].tokens);
    bytes += static_cast<double>(texts[i].bytes);
  }
  m.overall = std::exp(loss / tokens);
  m.bits_per_byte = loss / std::log(2.0) / bytes;
  return m;
}

Measure Study::mixture(const std::string &name, chorus_combine_rule rule, const std::vector<Member> &members) {
  std::vector<double> weights, losses;
  for (const Member &member : members) weights.push_back(member.weight);
  const Mixture mixture(library_, context_, rule, weights, tokenizer_.size(), kWindow);
  combine_kernel_ = mixture.kernel();
  for (size_t i = 0; i < texts_.size(); ++i) {
    std::vector<const Scores *> of_text;
    for (const Member &member : members) of_text.push_back(&scores(member.model)[i]);
    losses.push_back(mixture.loss(of_text, texts_[i]));
  }
  return summarise(name, losses, texts_);
}

// A mixture of one is that model: its loss, too, comes from the combiner.
Measure Study::measure(const std::string &name, const Llama &model, const std::vector<Text> &texts,
                       std::vector<ExpertLoad> *loads) {
  const Mixture one(library_, context_, CHORUS_COMBINE_LINEAR, {1.0}, model.config().vocabulary, kWindow);
  std::vector<double> losses;
  for (const Text &text : texts) {
    ExpertLoad load;
    const Scores scores = run(model, text, loads != nullptr ? &load : nullptr);
    losses.push_back(one.loss({&scores}, text));
    if (loads != nullptr) loads->push_back(load);
  }
  return summarise(name, losses, texts);
}

Measure Study::alone(const std::string &model, bool own_tokens) {
  const Llama llama(library_, context_, path(model));
  if (!own_tokens) return measure(model, llama, texts_, nullptr);
  return measure(model, llama, read_texts(Tokenizer(library_, context_, path(model))), nullptr);
}

Measure Study::merged(const std::string &name, const std::string &recipe) {
  const Merged merged(library_, context_, recipe);
  merge_kernels_ = merged.kernels();
  return measure(name, Llama(library_, context_, merged.model()), texts_, nullptr);
}

Measure Study::experts(const Llama &model, const std::string &name, std::vector<ExpertLoad> &loads) {
  return measure(name, model, texts_, &loads);
}

std::string Study::generate(const std::string &prompt, const std::vector<Member> &members, double temperature,
                            size_t count, uint64_t seed) {
  std::vector<Llama> models;
  std::vector<double> weights;
  for (const Member &member : members) {
    models.emplace_back(library_, context_, path(member.model));
    weights.push_back(member.weight);
  }
  const Mixture mixture(library_, context_, CHORUS_COMBINE_LINEAR, weights, tokenizer_.size(), 1, temperature);
  std::vector<int32_t> tokens = tokenizer_.encode(prompt), drawn;
  tokens.insert(tokens.begin(), tokenizer_.end());
  for (size_t step = 0; step < count && tokens.size() < kWindow; ++step) {
    std::vector<Matrix> logits;
    for (const Llama &model : models) logits.push_back(model.forward(tokens));
    const int32_t token = mixture.sample(logits, seed, step);
    if (token < 0) throw std::runtime_error("the mixture gave no token");
    if (token == tokenizer_.end()) break;
    tokens.push_back(token);
    drawn.push_back(token);
  }
  return tokenizer_.decode(drawn);
}

}  // namespace host
