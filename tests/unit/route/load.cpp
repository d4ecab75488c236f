// SPDX-License-Identifier: Apache-2.0
// Load statistics by hand, the running average, and the bias that moves toward even loads.
#include <criterion/criterion.h>

#include <cmath>
#include <vector>

#include "chorus/chorus.h"
#include "unit/support.h"

namespace {

template <typename T>
struct Vector {
  Vector(std::vector<T> values, uint8_t code) : data(std::move(values)), shape(static_cast<int64_t>(data.size())) {
    view.data = data.data();
    view.size_bytes = data.size() * sizeof(T);
    view.device_type = CHORUS_DEVICE_HOST;
    view.dtype_code = code;
    view.dtype_bits = sizeof(T) * 8;
    view.dtype_lanes = 1;
    view.ndim = 1;
    view.shape = &shape;
  }
  Vector(const Vector &) = delete;
  Vector &operator=(const Vector &) = delete;
  std::vector<T> data;
  int64_t shape;
  chorus_tensor view = CHORUS_TENSOR_INIT;
};
constexpr uint8_t kInteger = 0, kFloat = 2;

chorus_route_load load_of(std::vector<int32_t> counts) {
  const Vector<int32_t> tensor(std::move(counts), kInteger);
  chorus_route_load load = CHORUS_ROUTE_LOAD_INIT;
  cr_assert_eq(chorus_route_get_load(&tensor.view, nullptr, 0, &load, nullptr), CHORUS_OK);
  return load;
}

}  // namespace

Test(load, by_hand) {
  const chorus_route_load even = load_of({3, 3, 3, 3});
  cr_expect_eq(even.max_to_mean, 1);
  cr_expect_eq(even.variation, 0);
  cr_expect_float_eq(even.entropy, std::log(4.0), 1e-15);
  cr_expect_eq(even.busiest, 0);
  const chorus_route_load one = load_of({0, 8, 0, 0});
  cr_expect_eq(one.max_to_mean, 4);
  cr_expect_float_eq(one.variation, std::sqrt(3.0), 1e-15);
  cr_expect_eq(one.entropy, 0);
  cr_expect_eq(one.idle, 3);
  cr_expect_eq(one.busiest, 1);
  cr_expect_eq(one.slots, 8);
  const chorus_route_load none = load_of({0, 0});
  cr_expect_eq(none.max_to_mean, 0);
  cr_expect_eq(none.entropy, 0);
  cr_expect_eq(none.idle, 2);
  cr_expect_eq(none.busiest, -1);
}

Test(load, running_average) {
  Vector<double> average({0, 0}, kFloat);
  const Vector<int64_t> counts({10, 30}, kInteger);
  chorus_route_load load = CHORUS_ROUTE_LOAD_INIT;
  for (int i = 0; i < 2; ++i) cr_assert_eq(chorus_route_get_load(&counts.view, &average.view, 0.5, &load, nullptr), CHORUS_OK);
  cr_expect_eq(average.data[0], 7.5);
  cr_expect_eq(average.data[1], 22.5);
}

Test(load, bias_moves_toward_even_loads) {
  Vector<float> bias({0.5f, 0.5f, 0.5f}, kFloat);
  const Vector<int32_t> counts({1, 2, 3}, kInteger);
  cr_assert_eq(chorus_route_update_bias(&counts.view, 0.125, &bias.view, nullptr), CHORUS_OK);
  cr_expect_eq(bias.data[0], 0.625f);
  cr_expect_eq(bias.data[1], 0.5f, "as many as the mean: unchanged");
  cr_expect_eq(bias.data[2], 0.375f);
}

Test(load, refusals_write_nothing) {
  Vector<float> bias({1, 2, 3}, kFloat);
  Vector<double> average({5, 5}, kFloat);
  chorus_route_load load = CHORUS_ROUTE_LOAD_INIT;
  const Vector<int32_t> counts({1, 2}, kInteger), negative({1, -2}, kInteger);
  const auto refused = [&](const char *words, auto call) {
    chorus_error *error = nullptr;
    cr_expect_eq(call(&error), CHORUS_INVALID_ARGUMENT, "%s", words);
    cr_assert_not_null(error);
    cr_expect(unit::contains(chorus_error_get_message(error), words), "%s", chorus_error_get_message(error));
    chorus_error_destroy(error);
  };
  refused("counts[1] is -2", [&](chorus_error **e) { return chorus_route_get_load(&negative.view, nullptr, 0, &load, e); });
  refused("decay is 2", [&](chorus_error **e) { return chorus_route_get_load(&counts.view, &average.view, 2, &load, e); });
  refused("counts is NULL", [&](chorus_error **e) { return chorus_route_get_load(nullptr, nullptr, 0, &load, e); });
  refused("counts must", [&](chorus_error **e) { return chorus_route_get_load(&bias.view, nullptr, 0, &load, e); });
  refused("bias has 3", [&](chorus_error **e) { return chorus_route_update_bias(&counts.view, 1, &bias.view, e); });
  refused("rate is", [&](chorus_error **e) {
    Vector<float> two({0, 0}, kFloat);
    return chorus_route_update_bias(&counts.view, INFINITY, &two.view, e);
  });
  cr_expect_eq(average.data[0], 5);
  cr_expect_eq(bias.data[2], 3);
}
