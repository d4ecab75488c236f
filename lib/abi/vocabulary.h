// SPDX-License-Identifier: Apache-2.0
// What the opaque vocabulary and map hold.
#pragma once
#include "chorus/vocabulary.h"
#include "vocabulary/map.h"
#include "vocabulary/vocabulary.h"

struct chorus_vocabulary {
  chorus::vocabulary::Vocabulary vocabulary;
};

struct chorus_vocabulary_map {
  chorus::vocabulary::Map map;
};
