/* SPDX-License-Identifier: Apache-2.0
 *
 * Model soups: the greedy soup of Wortsman et al. 2022 (arXiv 2203.05482), with the caller's score. Uniform soups and
 * checkpoint averages are recipes of merge_method linear.
 */
#ifndef CHORUS_SOUP_H_
#define CHORUS_SOUP_H_

#include "context.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Scores the model in `folder`, higher is better; called on the thread that called chorus_soup_greedy(). The folder is the
 * function's to read for the call. Nonzero ends the search as CHORUS_CANCELLED. */
typedef int32_t (*chorus_soup_score_fn)(void *user, const char *folder, double *out_score);

/** Greedy soup: score every model, start from the best, and go through the others from the best to the worst; each joins the
 * equal-weight average when the average with it scores strictly higher than without. Averages are merged afresh from the members, so
 * each is rounded once; candidates are written beside `output`, hidden, and removed. Calls `score` 2·count − 1 times.
 *
 * @param models       Folders, files, or names in the Hugging Face cache, as a recipe takes them; the first has the config and tokenizer.
 * @param output       New or empty folder for the soup.
 * @param out_scores   Of each model alone, `count` values; may be NULL.
 * @param out_members  1 for each model in the soup, `count` values; may be NULL.
 * @param out_score    Of the soup; may be NULL.
 * @return CHORUS_OK; CHORUS_INVALID_ARGUMENT: NULL, no model, a score that is NaN; CHORUS_CANCELLED: by `score`; as
 *         chorus_merger_create() and chorus_merger_run(). Nothing remains after a failure. @since 0.1 */
CHORUS_API chorus_status chorus_soup_greedy(const chorus_context *context, const char *const *models, size_t count,
                                            const char *device, const char *output, chorus_soup_score_fn score, void *user,
                                            double *out_scores, int32_t *out_members, double *out_score, chorus_error **error);

#ifdef __cplusplus
} /* extern "C" */
#endif
#endif /* CHORUS_SOUP_H_ */
