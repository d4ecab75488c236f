#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""exact_math.py PROGRAM: error of exp, log, sigmoid and softplus of exact_math.h in units of the last place, against mpmath
with 60 digits, on floats of every exponent and around every place where their formulas change."""
import subprocess
import sys

try:
    import mpmath
    import numpy as np
except ImportError:
    print("SKIPPED: needs mpmath and numpy (./dev setup installs them into .venv)")
    sys.exit(0)

mpmath.mp.dps = 60
BOUNDS = {"exp": 0.94, "log": 0.76, "sigmoid": 2.2, "softplus": 2.5}  # as exact_math.h states
FORMULAS = {"exp": mpmath.exp, "log": mpmath.log, "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
            "softplus": lambda x: mpmath.log1p(mpmath.exp(x))}
CHANGES = [0, 1, 0.5, 2, 2 ** -0.5, 2 ** 0.5, 88.7228394, -87.3365, -103.972084, 16.6, 17.3, 20, -20, 104, 15, -15, 0.693147]


def inputs():
    random = np.random.default_rng(7)
    every_exponent = random.integers(0, 0x7F800000, 4000, dtype=np.uint32).view(np.float32)
    dense = random.uniform(-110, 110, 12000).astype(np.float32)
    small = random.uniform(-2, 2, 4000).astype(np.float32)
    near = [np.float32(c) for c in CHANGES]
    for _ in range(20):
        near += [np.nextafter(x, np.float32(np.inf)) for x in near[-len(CHANGES):]]
    near += [-x for x in near]
    x = np.concatenate([every_exponent, -every_exponent, dense, small, np.array(near, np.float32)])
    return np.concatenate([x, np.zeros(-len(x) % 1024, np.float32)])


def error_in_ulps(found, exact):
    if exact > mpmath.mpf(2) ** 128 * (1 - mpmath.mpf(2) ** -25):
        return 0 if np.isinf(found) else float("inf")
    if exact == 0:
        return 0 if found == 0 else float("inf")
    exponent = max(mpmath.frexp(exact)[1] - 24, -149)
    return float(abs(mpmath.mpf(float(found)) - exact) / mpmath.mpf(2) ** exponent)


def main():
    x = inputs()
    done = subprocess.run([sys.argv[1]], input=x.tobytes(), capture_output=True, check=False)
    sys.stderr.write(done.stderr.decode())
    table = np.frombuffer(done.stdout, np.float32).reshape(-1, 4, 1024)
    failed = done.returncode != 0
    for f, (name, formula) in enumerate(FORMULAS.items()):
        worst, where = 0.0, 0.0
        for value, found in zip(x, table[:, f].ravel()):
            if name == "log" and value <= 0:
                continue
            error = error_in_ulps(found, formula(mpmath.mpf(float(value))))
            if error > worst:
                worst, where = error, value
        print(f"{name:9} worst {worst:.4f} ulp at {where!r}; allowed {BOUNDS[name]}")
        failed |= worst > BOUNDS[name]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
