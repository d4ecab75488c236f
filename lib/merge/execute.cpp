// SPDX-License-Identifier: Apache-2.0
// Tensors are taken in batches, in file order. For each pass the batch's pieces run in parallel: a piece is read, computed
// and written by one thread while it is in that core's cache. The system reads ahead and writes behind meanwhile. Statistics
// of the pieces join in the tree of docs/numerics.md, so neither threads nor the size of pieces change a byte.
#include "merge/execute.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "merge/scratch.h"

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

uint64_t scratch_bytes(const Plan &plan) {
  uint64_t most = 0;
  for (const Job &job : plan.jobs) {
    const uint64_t elements = std::max<uint64_t>(job.elements, 1), part = std::min(plan.piece, elements);
    const uint64_t operands = job.operand_bytes() / elements + job.type->bits() / 8;
    most = std::max(most, operands * part + (job.inputs.size() + 3) * ScratchPool::kAlignment);
  }
  return most;
}

class Execution {
 public:
  Execution(const Context &context, const Plan &plan, checkpoint::Writer *writer, const ProgressFunction &progress)
      : context_(context), plan_(plan), writer_(writer), progress_(progress), scratch_(scratch_bytes(plan)),
        coefficients_(plan.jobs.size()), statistics_(plan.jobs.size()) {
    total_ = plan.bytes_to_read;
    for (const Job &job : plan.jobs) total_ += job.bytes();
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
    report("finish", "", plan_.jobs.size());
  }

 private:
  size_t batch_end(size_t begin) const {
    uint64_t bytes = 0;
    size_t end = begin;
    for (; end < plan_.jobs.size() && (end == begin || bytes + plan_.jobs[end].operand_bytes() <= kBatchBytes); ++end) {
      bytes += plan_.jobs[end].operand_bytes();
    }
    return end;
  }

  void read_ahead(size_t begin, size_t end) const {
    for (size_t j = begin; j < end; ++j) {
      const Job &job = plan_.jobs[j];
      for (const Operand &input : job.inputs) hint(input);
      hint(job.base);
    }
  }
  static void hint(const Operand &operand) {
    if (operand.tensor == nullptr) return;
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
        if (has_pass(plan_.jobs[j], pass)) conclude(j, pass);
      }
    }
    run_rounds(pieces_of(begin, end, std::nullopt), "apply", begin, [&](const Piece &piece) { make(piece); });
  }

  static bool has_pass(const Job &job, size_t pass) { return job.kind == JobKind::kMerge && pass < job.program.passes.size(); }

  // Pieces of the jobs that have reduction `pass`; of all jobs for the last pass.
  std::vector<Piece> pieces_of(size_t begin, size_t end, std::optional<size_t> pass) {
    std::vector<Piece> pieces;
    for (size_t j = begin; j < end; ++j) {
      const Job &job = plan_.jobs[j];
      if (pass && !has_pass(job, *pass)) continue;
      size_t number = 0;
      for (uint64_t at = 0; at < job.elements; at += plan_.piece) {
        pieces.push_back({j, at, std::min(plan_.piece, job.elements - at), number++});
      }
      if (pass) statistics_[j].assign(number, {});
    }
    return pieces;
  }

  // Runs the pieces in parallel, in rounds small enough to report and cancel between them.
  template <typename Body>
  void run_rounds(const std::vector<Piece> &pieces, const char *phase, size_t tensors_done, const Body &body) {
    for (size_t begin = 0; begin < pieces.size();) {
      uint64_t bytes = 0;
      size_t end = begin;
      for (; end < pieces.size() && (end == begin || bytes < kBatchBytes); ++end) bytes += bytes_of(pieces[end]);
      report(phase, plan_.jobs[pieces[begin].job].name, tensors_done);
      struct Call {
        const Piece *pieces;
        const Body *body;
      } call{pieces.data() + begin, &body};
      context_.pool().parallel_for(
          end - begin,
          [](void *argument, uint64_t index) {
            const auto &call = *static_cast<const Call *>(argument);
            (*call.body)(call.pieces[index]);
          },
          &call);
      begin = end;
    }
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
    operand.model->read(*operand.tensor, piece.begin * element, piece.count * element, to);
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
    writer_->write(piece.job, piece.begin * element, piece.count * element, from);
    done_.fetch_add(piece.count * element, std::memory_order_relaxed);
  }

  static uint64_t columns_of(const Job &job) { return job.shape.empty() ? 1 : static_cast<uint64_t>(job.shape.back()); }

  void reduce(const Piece &piece, size_t pass) {
    const Job &job = plan_.jobs[piece.job];
    ScratchPool::Lease lease(&scratch_);
    const std::vector<const void *> inputs = read_inputs(job, piece, &lease);
    const size_t n = operands(job, pass);
    std::vector<double> &statistic = statistics_[piece.job][piece.number];
    statistic.resize(n * (n + 1) / 2);
    chorus_merge_reduce_args args = CHORUS_MERGE_REDUCE_ARGS_INIT;
    args.begin = piece.begin;
    args.count = piece.count;
    args.columns = columns_of(job);
    args.inputs = inputs.data();
    args.base = read(job.base, piece, &lease);
    args.weights = coefficients_[piece.job].weights.data();
    args.statistic = statistic.data();
    args.statistic_bytes = statistic.size() * sizeof(double);
    plan_.kernels.get(job.reduce_kernels[pass]).run(&args, nullptr);
  }

  static size_t operands(const Job &job, size_t pass) {
    const bool base_is_one = job.base.tensor != nullptr && job.program.passes[pass].reduction.operand == CHORUS_OPERAND_X;
    return job.inputs.size() + (base_is_one ? 1 : 0);
  }

  // From the pieces' statistics to the coefficients of what follows.
  void conclude(size_t j, size_t pass) {
    const Job &job = plan_.jobs[j];
    const size_t n = operands(job, pass);
    std::vector<double> upper(n * (n + 1) / 2);
    for (size_t i = 0; i < upper.size(); ++i) {
      std::vector<double> values;
      for (const std::vector<double> &piece : statistics_[j]) values.push_back(piece[i]);
      upper[i] = join_pairwise(std::move(values));
    }
    job.program.passes[pass].then(Gram(n, upper), &coefficients_[j]);
    statistics_[j].clear();
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
    chorus_merge_args args = CHORUS_MERGE_ARGS_INIT;
    args.begin = piece.begin;
    args.count = piece.count;
    args.columns = columns_of(job);
    args.inputs = inputs.data();
    args.base = read(job.base, piece, &lease);
    args.output = lease.allocate(piece.count * job.type->bits() / 8);
    args.weights = coefficients_[piece.job].weights.data();
    args.lambda = coefficients_[piece.job].lambda;
    plan_.kernels.get(job.apply_kernel).run(&args, nullptr);
    write(piece, args.output);
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
    fail(CHORUS_CANCELLED, "cancelled; nothing was left in {}", writer_->folder());
  }

  const Context &context_;
  const Plan &plan_;
  checkpoint::Writer *writer_;
  const ProgressFunction &progress_;
  ScratchPool scratch_;
  std::vector<Coefficients> coefficients_;                    // of each job while its batch runs
  std::vector<std::vector<std::vector<double>>> statistics_;  // of each job: of each piece
  std::atomic<uint64_t> done_ = 0;
  uint64_t total_ = 0;
};

}  // namespace

void execute(const Context &context, const Plan &plan, const std::string &folder, const ProgressFunction &progress) {
  checkpoint::WriterSettings settings;
  settings.side_files = plan.side_files;
  settings.replace = plan.settings.replace;
  checkpoint::Writer writer(plan.layout, folder, settings);
  Execution(context, plan, &writer, progress).run();
  for (const InputModel &input : plan.inputs) {
    if (input.model != nullptr) input.model->check_unchanged();
  }
  writer.finish();
}

}  // namespace chorus::merge
