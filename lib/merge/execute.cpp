// SPDX-License-Identifier: Apache-2.0
// Tensors are taken in batches, in file order. For each pass the batch's pieces run in parallel: a piece is read, computed
// and written by one thread while it is in that core's cache. The system reads ahead and writes behind meanwhile. Statistics
// of the pieces join in the tree of docs/numerics.md, so neither threads nor the size of pieces change a byte.
#include "merge/execute.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>
#include <optional>

#include "merge/element.h"
#include "merge/numbers.h"
#include "merge/scratch.h"
#include "merge/transposed.h"

namespace chorus::merge {
namespace {

constexpr uint64_t kBatchBytes = uint64_t{64} << 20;  // operands of a batch, and of what runs between two reports

struct Piece {
  size_t job;
  uint64_t begin, count;
  size_t number;  // within its tensor
};

// Joins neighbours pairwise, level by level; an odd last one moves up as it is.
double join_pairwise(std::vector<double> values) {
  for (size_t count = values.size(); count > 1; count = (count + 1) / 2) {
    for (size_t i = 0; 2 * i < count; ++i) {
      values[i] = 2 * i + 1 < count ? values[2 * i] + values[2 * i + 1] : values[2 * i];
    }
  }
  return values.empty() ? 0.0 : values[0];
}

// What a pass gave for one piece.
struct PieceStatistic {
  std::vector<double> sums;
  std::vector<uint64_t> counts;  // of TIE alone; other counts add up over the pieces
};

bool is_count(chorus_merge_statistic statistic) {
  return statistic == CHORUS_STATISTIC_HISTOGRAM || statistic == CHORUS_STATISTIC_VARIANCE_HISTOGRAM || statistic == CHORUS_STATISTIC_COUNT;
}

bool is_of_rows(chorus_merge_statistic statistic) {
  return statistic == CHORUS_STATISTIC_ROW_SOFTMAX || statistic == CHORUS_STATISTIC_ROW_KL;
}

class Execution {
 public:
  Execution(const Context &context, const Plan &plan, Output *output, const ScratchPool::Lent &scratch,
            const ProgressFunction &progress)
      : context_(context), plan_(plan), output_(output), progress_(progress), scratch_(plan.scratch_bytes, scratch),
        coefficients_(plan.jobs.size()), statistics_(plan.jobs.size()), counts_(plan.jobs.size()) {
    total_ = plan.bytes_to_read;
    for (size_t j = 0; j < plan.jobs.size(); ++j) {
      total_ += plan.jobs[j].bytes();
      if (output->has(j)) done_ += plan.jobs[j].operand_bytes() * (1 + plan.jobs[j].program.passes.size()) + plan.jobs[j].bytes();
    }
  }

  void run() {
    size_t begin = 0;
    read_ahead(0, batch_end(0));
    while (begin < plan_.jobs.size()) {
      const size_t end = batch_end(begin);
      read_ahead(end, batch_end(end));
      run_batch(begin, end);
      begin = end;
    }
    run_rounds({}, "apply", plan_.jobs.size(), [](const Piece &) {});  // the output's work that is left
    report("finish", "", plan_.jobs.size());
  }

 private:
  size_t batch_end(size_t begin) const {
    const auto cost = [&](size_t j) { return output_->has(j) ? 0 : plan_.jobs[j].operand_bytes() + plan_.jobs[j].statistic_bytes(1); };
    uint64_t bytes = 0;
    size_t end = begin;
    for (; end < plan_.jobs.size() && (end == begin || bytes + cost(end) <= kBatchBytes); ++end) bytes += cost(end);
    return end;
  }

  void read_ahead(size_t begin, size_t end) const {
    for (size_t j = begin; j < end; ++j) {
      if (output_->has(j)) continue;
      const Job &job = plan_.jobs[j];
      for (const Operand &input : job.inputs) hint(input);
      hint(job.base);
    }
  }
  static void hint(const Operand &operand) {
    if (operand.model == nullptr || operand.tensor == nullptr || operand.view != nullptr) return;
    prefetch(operand.model->files()[operand.tensor->file], operand.tensor->offset, std::min(operand.tensor->bytes, kBatchBytes));
  }

  void run_batch(size_t begin, size_t end) {
    size_t passes = 0;
    for (size_t j = begin; j < end; ++j) {
      coefficients_[j] = plan_.jobs[j].program.coefficients;
      if (plan_.jobs[j].kind == JobKind::kMerge) passes = std::max(passes, plan_.jobs[j].program.passes.size());
    }
    for (size_t pass = 0; pass < passes; ++pass) {
      const std::vector<Piece> pieces = pieces_of(begin, end, pass);
      run_rounds(pieces, "reduce", begin, [&](const Piece &piece) { reduce(piece, pass); });
      for (size_t j = begin; j < end; ++j) {
        if (has_pass(j, pass)) conclude(j, pass);
      }
    }
    run_rounds(pieces_of(begin, end, std::nullopt), "apply", begin, [&](const Piece &piece) { make(piece); });
  }

  bool has_pass(size_t j, size_t pass) const {
    const Job &job = plan_.jobs[j];
    return job.kind == JobKind::kMerge && pass < job.program.passes.size() && !output_->has(j);
  }

  // Pieces of the jobs that have reduction `pass`; of all jobs for the last pass.
  std::vector<Piece> pieces_of(size_t begin, size_t end, std::optional<size_t> pass) {
    std::vector<Piece> pieces;
    for (size_t j = begin; j < end; ++j) {
      const Job &job = plan_.jobs[j];
      if (output_->has(j) || (pass && !has_pass(j, *pass))) continue;
      if (!pass && job.elements == 0) output_->written(j, 0);
      size_t number = 0;
      for (uint64_t at = 0; at < job.elements; at += job.piece) {
        pieces.push_back({j, at, std::min(job.piece, job.elements - at), number++});
      }
      if (pass) statistics_[j].assign(number, {});
    }
    return pieces;
  }

  // Runs the pieces in parallel, in rounds small enough to report and cancel between them; beside them the output's own work
  // on what the round before wrote.
  template <typename Body>
  void run_rounds(const std::vector<Piece> &pieces, const char *phase, size_t tensors_done, const Body &body) {
    const bool writes = std::string_view(phase) == "apply";
    size_t begin = 0;
    do {
      uint64_t bytes = 0;
      size_t end = begin;
      for (; end < pieces.size() && (end == begin || bytes < kBatchBytes); ++end) bytes += bytes_of(pieces[end]);
      if (begin < end) report(phase, plan_.jobs[pieces[begin].job].name, tensors_done);
      const size_t work = output_->take_work();
      in_parallel(work + end - begin, [&](size_t i) { i < work ? output_->run_work(i) : body(pieces[begin + i - work]); });
      output_->note_work();
      for (size_t i = begin; writes && i < end; ++i) {
        const Piece &piece = pieces[i];
        const bool is_last = i + 1 == end || pieces[i + 1].job != piece.job;
        const Job &job = plan_.jobs[piece.job];
        const uint64_t done = piece.begin + piece.count;
        if (!is_last || (job.is_transposed() && done < job.elements)) continue;  // transposed: pieces lie scattered
        output_->written(piece.job, done * (job.type->bits() / 8));
      }
      begin = end;
    } while (begin < pieces.size());
  }

  template <typename Body>
  void in_parallel(size_t count, const Body &body) const {
    context_.pool().parallel_for(
        count, [](void *argument, uint64_t index) { (*static_cast<const Body *>(argument))(index); }, const_cast<Body *>(&body));
  }

  uint64_t bytes_of(const Piece &piece) const {
    const Job &job = plan_.jobs[piece.job];
    return job.operand_bytes() / std::max<uint64_t>(job.elements, 1) * piece.count;
  }

  // Elements of a piece of one operand, read into the lease; NULL for one that is not read.
  void *read(const Operand &operand, const Piece &piece, ScratchPool::Lease *lease) {
    if (operand.tensor == nullptr) return nullptr;
    const uint64_t element = operand.tensor->type->bits() / 8;
    void *to = lease->allocate(piece.count * element);
    const auto fetch = [&](uint64_t first, uint64_t count, void *memory) {
      if (operand.view != nullptr)
        operand.view->read(first, count, memory);
      else if (operand.data != nullptr)
        std::memcpy(memory, static_cast<const char *>(operand.data) + first * element, count * element);
      else
        operand.model->read(*operand.tensor, first * element, count * element, memory);
    };
    const Job &job = plan_.jobs[piece.job];
    if (operand.is_zero) {
      std::memset(to, 0, piece.count * element);
    } else if (job.is_transposed()) {
      read_transposed(row_axis_of(job), piece.begin, piece.count, element, to, fetch);
    } else {
      fetch(piece.begin, piece.count, to);
    }
    done_.fetch_add(piece.count * element, std::memory_order_relaxed);
    return to;
  }

  std::vector<const void *> read_inputs(const Job &job, const Piece &piece, ScratchPool::Lease *lease) {
    std::vector<const void *> inputs;
    for (const Operand &input : job.inputs) inputs.push_back(read(input, piece, lease));
    return inputs;
  }

  void write(const Piece &piece, const void *from) {
    const uint64_t element = plan_.jobs[piece.job].type->bits() / 8;
    const auto put = [&](uint64_t first, uint64_t count, const void *memory) {
      output_->write(piece.job, first * element, count * element, memory);
    };
    const Job &job = plan_.jobs[piece.job];
    if (job.is_transposed()) {
      write_transposed(row_axis_of(job), piece.begin, piece.count, element, from, put);
    } else {
      put(piece.begin, piece.count, from);
    }
    done_.fetch_add(piece.count * element, std::memory_order_relaxed);
  }

  void reduce(const Piece &piece, size_t pass) {
    const Job &job = plan_.jobs[piece.job];
    const Coefficients &c = coefficients_[piece.job];
    const Reduction &reduction = job.program.passes[pass].reduction;
    ScratchPool::Lease lease(&scratch_);
    const std::vector<const void *> inputs = read_inputs(job, piece, &lease);
    const uint64_t entries = statistic_entries(job, reduction, piece.count);
    void *statistic = lease.allocate(entries * sizeof(uint64_t));
    Numbers numbers = numbers_of(c, piece.number);
    chorus_merge_reduce_args args = CHORUS_MERGE_REDUCE_ARGS_INIT;
    args.begin = piece.begin;
    args.count = piece.count;
    args.columns = job.columns();
    args.inputs = inputs.data();
    args.base = read(job.base, piece, &lease);
    const bool by_row = reduction.granularity == CHORUS_PER_ROW;
    const std::vector<double> repeated = by_row ? weights_of_rows(job, c, piece) : std::vector<double>();
    args.weights = by_row ? repeated.data() : c.weights.data();
    args.statistic = statistic;
    args.statistic_bytes = entries * sizeof(uint64_t);
    if (reduction.predicate == CHORUS_PREDICATE_PREFIX) {
      args.prefixes = c.selections[reduction.cut].prefixes.data();
      args.prefix_bits = 16;
    }
    if (reduction.predicate == CHORUS_PREDICATE_TIE) numbers = {c.selections[reduction.cut].cuts, {}};
    set_numbers(c, numbers, piece.begin / job.columns(), job.inputs.size(), &args);
    if (!c.row_softmax.empty()) args.row_softmax = c.row_softmax.data() + piece.begin / job.columns() * 2 * (job.inputs.size() + 1);
    plan_.kernels.get(job.reduce_kernels[pass]).run(&args, nullptr);
    keep_statistic(piece, reduction, statistic, entries);
  }

  static uint64_t statistic_entries(const Job &job, const Reduction &reduction, uint64_t count) {
    const uint64_t n = operands(job, reduction), groups = reduction.granularity == CHORUS_PER_ROW ? count / job.columns() : 1;
    switch (reduction.statistic) {
      case CHORUS_STATISTIC_HISTOGRAM: return n * kHistogramBins;
      case CHORUS_STATISTIC_VARIANCE_HISTOGRAM: return kHistogramBins;
      case CHORUS_STATISTIC_COUNT: return n * n;
      case CHORUS_STATISTIC_SUM:
      case CHORUS_STATISTIC_ROW_KL: return groups * n;
      case CHORUS_STATISTIC_ROW_SOFTMAX: return groups * (n + 1) * 2;
      default: return groups * n * (n + 1) / 2;
    }
  }

  void keep_statistic(const Piece &piece, const Reduction &reduction, const void *statistic, uint64_t entries) {
    PieceStatistic &own = statistics_[piece.job][piece.number];
    if (!is_count(reduction.statistic)) {
      const auto *sums = static_cast<const double *>(statistic);
      own.sums.assign(sums, sums + entries);
      return;
    }
    const auto *counts = static_cast<const uint64_t *>(statistic);
    if (reduction.predicate == CHORUS_PREDICATE_TIE) {
      own.counts.assign(counts, counts + entries);
      return;
    }
    const std::lock_guard lock(counts_mutex_);
    std::vector<uint64_t> &total = counts_[piece.job];
    total.resize(entries);
    for (uint64_t i = 0; i < entries; ++i) total[i] += counts[i];
  }

  static size_t operands(const Job &job, const Reduction &reduction) {
    const bool base_is_one = job.base.tensor != nullptr && reduction.operand == CHORUS_OPERAND_X;
    return job.inputs.size() + (base_is_one && reduction.statistic == CHORUS_STATISTIC_GRAM ? 1 : 0);
  }

  // From the pieces' statistics to the coefficients of what follows.
  void conclude(size_t j, size_t pass) {
    const Job &job = plan_.jobs[j];
    const Pass &step = job.program.passes[pass];
    Statistic statistic;
    statistic.n = operands(job, step.reduction);
    statistic.elements = job.elements;
    if (is_count(step.reduction.statistic)) {
      statistic.counts = std::move(counts_[j]);
      counts_[j].clear();
      for (PieceStatistic &piece : statistics_[j]) statistic.piece_counts.push_back(std::move(piece.counts));
      step.then(statistic, &coefficients_[j]);
    } else if (step.reduction.granularity == CHORUS_PER_ROW && step.reduction.statistic == CHORUS_STATISTIC_GRAM) {
      conclude_rows(j, step, &statistic);
    } else if (is_of_rows(step.reduction.statistic)) {
      for (const PieceStatistic &piece : statistics_[j]) {
        statistic.sums.insert(statistic.sums.end(), piece.sums.begin(), piece.sums.end());
      }
      step.then(statistic, &coefficients_[j]);
    } else {
      join_sums(j, statistic_entries(job, step.reduction, job.columns()), &statistic.sums);
      step.then(statistic, &coefficients_[j]);
    }
    statistics_[j].clear();
  }

  // Pieces, or rows, in the tree over their index.
  void join_sums(size_t j, uint64_t entries, std::vector<double> *out) const {
    for (uint64_t e = 0; e < entries; ++e) {
      std::vector<double> values;
      for (const PieceStatistic &piece : statistics_[j]) {
        for (uint64_t at = e; at < piece.sums.size(); at += entries) values.push_back(piece.sums[at]);
      }
      out->push_back(join_pairwise(std::move(values)));
    }
  }

  // A Gram for each row gives weights for each row.
  void conclude_rows(size_t j, const Pass &step, Statistic *statistic) {
    const uint64_t entries = statistic->n * (statistic->n + 1) / 2;
    std::vector<double> weights;
    for (const PieceStatistic &piece : statistics_[j]) {
      for (uint64_t at = 0; at < piece.sums.size(); at += entries) {
        statistic->sums.assign(piece.sums.begin() + static_cast<ptrdiff_t>(at), piece.sums.begin() + static_cast<ptrdiff_t>(at + entries));
        Coefficients row = plan_.jobs[j].program.coefficients;
        step.then(*statistic, &row);
        weights.insert(weights.end(), row.weights.begin(), row.weights.end());
      }
    }
    coefficients_[j].weights = std::move(weights);
  }

  void make(const Piece &piece) {
    const Job &job = plan_.jobs[piece.job];
    ScratchPool::Lease lease(&scratch_);
    const std::vector<const void *> inputs = read_inputs(job, piece, &lease);
    if (job.kind != JobKind::kMerge) {
      if (job.kind == JobKind::kCompare) compare(job, piece, inputs, read(job.base, piece, &lease));
      write(piece, first_of(inputs));
      return;
    }
    const Coefficients &c = coefficients_[piece.job];
    chorus_merge_args args = CHORUS_MERGE_ARGS_INIT;
    args.begin = piece.begin;
    args.count = piece.count;
    args.columns = job.columns();
    args.inputs = inputs.data();
    args.base = read(job.base, piece, &lease);
    args.output = lease.allocate(piece.count * job.type->bits() / 8);
    if (job.program.element) {
      apply_element(job, c, piece.begin, piece.count, inputs, args.base, args.output);
      write(piece, args.output);
      return;
    }
    const Numbers numbers = numbers_of(c, piece.number);
    const bool by_row = job.program.stages.granularity == CHORUS_PER_ROW;
    const std::vector<double> repeated = by_row ? weights_of_rows(job, c, piece) : std::vector<double>();
    args.weights = by_row ? repeated.data() : c.weights.data();
    args.lambda = c.lambda;
    args.rescales = data_or_null(c.rescales);
    args.unique_scales = data_or_null(c.unique_scales);
    set_numbers(c, numbers, piece.begin / job.columns(), job.inputs.size(), &args);
    plan_.kernels.get(job.apply_kernel).run(&args, nullptr);
    write(piece, args.output);
  }

  // The weights of each row of a piece: its own, or the tensor's.
  static std::vector<double> weights_of_rows(const Job &job, const Coefficients &c, const Piece &piece) {
    const uint64_t n = job.program.coefficients.weights.size(), first = piece.begin / job.columns(), rows = piece.count / job.columns();
    const bool own = c.weights.size() > n || job.elements == job.columns();
    std::vector<double> out;
    for (uint64_t r = 0; r < rows; ++r) {
      const auto from = c.weights.begin() + static_cast<ptrdiff_t>(own ? (first + r) * n : 0);
      out.insert(out.end(), from, from + static_cast<ptrdiff_t>(n));
    }
    return out;
  }

  static const void *first_of(const std::vector<const void *> &inputs) {
    return *std::ranges::find_if(inputs, [](const void *input) { return input != nullptr; });
  }

  // Integers and booleans are no weights: they must be the same in all inputs.
  static void compare(const Job &job, const Piece &piece, std::vector<const void *> inputs, const void *base) {
    inputs.push_back(base);
    const void *first = first_of(inputs);
    for (const void *input : inputs) {
      if (input != nullptr && std::memcmp(first, input, piece.count * job.type->bits() / 8) != 0) {
        fail(CHORUS_INVALID_ARGUMENT, "tensor '{}' is {} and differs between the models; only equal ones are copied", job.name, job.type->name);
      }
    }
  }

  void report(const char *phase, const std::string &tensor, size_t tensors_done) {
    if (!progress_) return;
    if (progress_({phase, tensor, done_.load(std::memory_order_relaxed), total_, tensors_done, plan_.jobs.size()})) return;
    fail(CHORUS_CANCELLED, "cancelled");
  }

  const Context &context_;
  const Plan &plan_;
  Output *output_;
  const ProgressFunction &progress_;
  ScratchPool scratch_;
  std::vector<Coefficients> coefficients_;                    // of each job while its batch runs
  std::vector<std::vector<PieceStatistic>> statistics_;  // of each job: of each piece
  std::vector<std::vector<uint64_t>> counts_;            // of each job: histograms and counts, guarded while they grow
  std::mutex counts_mutex_;
  std::atomic<uint64_t> done_ = 0;
  uint64_t total_ = 0;
};

}  // namespace

void run_jobs(const Context &context, const Plan &plan, Output *output, const ScratchPool::Lent &scratch, const ProgressFunction &progress) {
  Execution(context, plan, output, scratch, progress).run();
}

void execute(const Context &context, const Plan &plan, const std::string &folder, const ProgressFunction &progress) {
  ModelOutput output(context, plan, folder);
  run_jobs(context, plan, &output, {}, progress);
  for (const InputModel &input : plan.inputs) {
    if (input.model != nullptr) input.model->check_unchanged();
    if (input.adapter != nullptr) input.adapter->check_unchanged();
  }
  output.finish();
}

}  // namespace chorus::merge
