// SPDX-License-Identifier: Apache-2.0
// The face of the cpu backend: one device in host memory, its option, its kernels.
#include <cpuid.h>

#include <cstring>
#include <iterator>

#include "cpu/backend.h"

namespace chorus::cpu {
namespace {

const chorus_plugin_option kMaxIsa = {CHORUS_END_OF(chorus_plugin_option, maximum),
                                      "cpu.max_isa",
                                      "auto",
                                      "auto|sse2|sse4|avx2|avx512",
                                      "Best instruction set the kernels may use; auto: the processor's best. Results are the same, experts' within their tolerance.",
                                      CHORUS_OPTION_STRING,
                                      0,
                                      0,
                                      0};
const chorus_plugin_option kExpertsGemm = {CHORUS_END_OF(chorus_plugin_option, maximum),
                                           "cpu.experts_gemm",
                                           "auto",
                                           "auto|never|always",
                                           "Experts that oneDNN multiplies; auto: those with many rows and bf16 weights, where the processor has bf16 arithmetic.",
                                           CHORUS_OPTION_STRING,
                                           0,
                                           0,
                                           0};
const chorus_plugin_option *const kOptions[] = {&kMaxIsa, &kExpertsGemm};

// Kernels, one line each.
const chorus_kernel *const kKernels[] = {
    &kCombineRows,
    &kMergeReduce,
    &kMergeApply,
    &kExpertsFfn,
    &kRouteTopk,
    &kSparseGemv,
    &kSparseFfn,
};

// ---- Devices: one, described for each instruction set it may be limited to ----

class Descriptions {
 public:
  Descriptions() {
    char model[49];
    read_model(model);
    for (int i = 0; i < kIsaCount; ++i) {
      std::snprintf(texts_[i], sizeof texts_[i], "%s, %s", *model != '\0' ? model : "unknown processor",
                    name_of(static_cast<Isa>(i)));
      devices_[i] = {CHORUS_END_OF(chorus_device_desc, device_id), "cpu", texts_[i], CHORUS_DEVICE_HOST, 0};
      lists_[i][0] = &devices_[i];
    }
  }
  const chorus_device_desc *const *list(Isa isa) const { return lists_[static_cast<int>(isa)]; }

 private:
  // The processor's name as it tells it itself (CPUID leaves 0x80000002 to 4), without the padding.
  static void read_model(char (&model)[49]) {
    std::memset(model, 0, sizeof model);
    for (unsigned leaf = 0; leaf < 3; ++leaf) {
      unsigned registers[4];
      if (__get_cpuid(0x80000002u + leaf, registers, registers + 1, registers + 2, registers + 3) == 0) return;
      std::memcpy(model + 16 * leaf, registers, sizeof registers);
    }
    for (size_t end = std::strlen(model); end > 0 && model[end - 1] == ' ';) model[--end] = '\0';
  }

  char texts_[kIsaCount][96];
  chorus_device_desc devices_[kIsaCount];
  const chorus_device_desc *lists_[kIsaCount][1];
};

const chorus_device_desc *const *list_devices(const chorus_host *host, uint64_t *out_count, char *, size_t) {
  Isa isa;
  if (!parse_isa(host->get_option(host->self, kMaxIsa.name), &isa)) isa = best_isa();  // refused when opened
  *out_count = 1;
  static const Descriptions all;
  return all.list(isa);
}

chorus_status open_device(const chorus_host *host, uint64_t index, chorus_plugin_device **out_device,
                          chorus_error_slot slot) {
  if (index != 0)
    return report(host, slot, CHORUS_NOT_FOUND, "device index is %llu; the cpu backend has 1 device",
                  static_cast<unsigned long long>(index));
  Isa isa;
  const char *word = host->get_option(host->self, kMaxIsa.name);
  if (!parse_isa(word, &isa))
    return report(host, slot, CHORUS_INVALID_ARGUMENT, "option %s is \"%s\"; allowed: %s", kMaxIsa.name, word, kMaxIsa.range);
  GemmUse gemm;
  const char *gemm_word = host->get_option(host->self, kExpertsGemm.name);
  if (!parse_gemm_use(gemm_word, &gemm))
    return report(host, slot, CHORUS_INVALID_ARGUMENT, "option %s is \"%s\"; allowed: %s", kExpertsGemm.name, gemm_word,
                  kExpertsGemm.range);
  void *memory = host->allocate(host->self, sizeof(chorus_plugin_device), kAlignment);
  if (memory == nullptr) return report(host, slot, CHORUS_RESOURCE_EXHAUSTED, "no memory to open device \"cpu\"");
  *out_device = new (memory) chorus_plugin_device{host, {}, gemm};
  choose(&(*out_device)->target, isa);
  return CHORUS_OK;
}

void close_device(chorus_plugin_device *device) {
  if (device == nullptr) return;
  const chorus_host *host = device->host;
  host->deallocate(host->self, device, sizeof(chorus_plugin_device), kAlignment);
}

const chorus_kernel *const *get_kernels(chorus_plugin_device *, uint64_t *out_count) {
  *out_count = std::size(kKernels);
  return kKernels;
}

const chorus_plugin kPlugin = {CHORUS_PLUGIN_MAGIC,
                               CHORUS_PLUGIN_ABI_MAJOR,
                               CHORUS_PLUGIN_ABI_MINOR,
                               CHORUS_END_OF(chorus_plugin, check_device),
                               CHORUS_PLUGIN_LAYOUT_HASH,
                               "cpu",
                               "0.1.0",
                               CHORUS_SANITIZER_THIS_BUILD,
                               0,
                               0,
                               {},
                               kOptions,
                               std::size(kOptions),
                               list_devices,
                               open_device,
                               close_device,
                               get_kernels,
                               nullptr,
                               nullptr};

}  // namespace
}  // namespace chorus::cpu

extern "C" __attribute__((visibility("default"))) const chorus_plugin *chorus_plugin_query(
    const chorus_plugin_query_args *);

extern "C" const chorus_plugin *chorus_plugin_query(const chorus_plugin_query_args *) { return &chorus::cpu::kPlugin; }
