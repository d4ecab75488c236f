// SPDX-License-Identifier: Apache-2.0
// Reading and writing pieces of a tensor as if the dimension its rows run along were the last one. An element's index is that of
// the tensor so turned, whatever the pieces. Cost: one read or write of `run` neighbours for each element of a row, where `run` is
// the number of rows of the piece that lie beside each other.
#pragma once
#include <cstdint>
#include <cstring>
#include <vector>

#include "merge/plan.h"

namespace chorus::merge {

// A dimension of `length` elements, `inner` apart.
struct RowAxis {
  uint64_t length, inner;
};

inline RowAxis row_axis_of(const Job &job) {
  RowAxis out{job.columns(), 1};
  for (size_t i = static_cast<size_t>(job.program.row_axis) + 1; i < job.shape.size(); ++i) out.inner *= static_cast<uint64_t>(job.shape[i]);
  return out;
}

// Calls body(first element in the file, how many neighbours, index in the piece of the first of them) for all of the piece's
// rows; from each neighbour to the next it is `length` elements in the piece.
template <typename Body>
void for_each_run(const RowAxis &axis, uint64_t begin, uint64_t count, const Body &body) {
  const uint64_t first = begin / axis.length, end = first + count / axis.length;
  for (uint64_t row = first; row < end;) {
    const uint64_t outer = row / axis.inner, inner = row % axis.inner;
    const uint64_t run = std::min(axis.inner - inner, end - row);
    for (uint64_t l = 0; l < axis.length; ++l) {
      body((outer * axis.length + l) * axis.inner + inner, run, (row - first) * axis.length + l);
    }
    row += run;
  }
}

// Moves `run` elements of `bytes` each between neighbours and places `stride` elements apart.
inline void scatter(const char *from, uint64_t run, uint64_t stride, char *to, uint64_t bytes) {
  for (uint64_t i = 0; i < run; ++i) std::memcpy(to + i * stride * bytes, from + i * bytes, bytes);
}
inline void gather(const char *from, uint64_t run, uint64_t stride, char *to, uint64_t bytes) {
  for (uint64_t i = 0; i < run; ++i) std::memcpy(to + i * bytes, from + i * stride * bytes, bytes);
}

// read(first element, elements, memory) fetches neighbours of the file.
template <typename Read>
void read_transposed(const RowAxis &axis, uint64_t begin, uint64_t count, uint64_t bytes, void *to, const Read &read) {
  std::vector<char> neighbours(std::min(axis.inner, count / axis.length + 1) * bytes);
  for_each_run(axis, begin, count, [&](uint64_t first, uint64_t run, uint64_t place) {
    read(first, run, neighbours.data());
    scatter(neighbours.data(), run, axis.length, static_cast<char *>(to) + place * bytes, bytes);
  });
}

// write(first element, elements, memory) puts neighbours into the file.
template <typename Write>
void write_transposed(const RowAxis &axis, uint64_t begin, uint64_t count, uint64_t bytes, const void *from, const Write &write) {
  std::vector<char> neighbours(std::min(axis.inner, count / axis.length + 1) * bytes);
  for_each_run(axis, begin, count, [&](uint64_t first, uint64_t run, uint64_t place) {
    gather(static_cast<const char *>(from) + place * bytes, run, axis.length, neighbours.data(), bytes);
    write(first, run, neighbours.data());
  });
}

}  // namespace chorus::merge
