/* SPDX-License-Identifier: Apache-2.0
 *
 * The whole public C ABI of Chorus.
 */
#ifndef CHORUS_CHORUS_H_
#define CHORUS_CHORUS_H_

#include "base.h"
#include "bytes.h"
#include "checkpoint.h"
#include "combine.h"
#include "combine_options.h"
#include "context.h"
#include "diagnose.h"
#include "distill.h"
#include "fit.h"
#include "merge.h"
#include "moe.h"
#include "recipes.h"
#include "route.h"
#include "route_assign.h"
#include "route_loss.h"
#include "soup.h"
#include "sparse.h"
#include "vocabulary.h"
#include "weights.h"

#endif /* CHORUS_CHORUS_H_ */
