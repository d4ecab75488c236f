# SPDX-License-Identifier: Apache-2.0
"""What the tests share: the example models, and numpy formulas in f64 that know nothing of Chorus."""
import os
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(os.environ.get("CHORUS_SOURCE_DIR", Path(__file__).resolve().parents[3]))


def log_softmax(scores):
    z = np.asarray(scores, np.float64)
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def softmax(scores):
    return np.exp(log_softmax(scores))


@pytest.fixture
def family():
    return ROOT / "docs" / "examples" / "family"


@pytest.fixture
def random():
    return np.random.default_rng(7)
