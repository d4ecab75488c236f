# SPDX-License-Identifier: Apache-2.0
"""The logits processors inside generate(), against mixtures computed by torch from whole forward passes."""
import warnings

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from chorus.transformers import (ContrastiveLogitsProcessor, DExpertsLogitsProcessor, EnsembleLogitsProcessor)

VOCABULARY, STEPS = 97, 8


def llama(seed, vocabulary=VOCABULARY):
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(vocab_size=vocabulary, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                                      num_attention_heads=4, num_key_value_heads=2, initializer_range=0.5,
                                      bos_token_id=None, eos_token_id=None, pad_token_id=0)
    return transformers.LlamaForCausalLM(config).eval()


def gpt2(seed):
    torch.manual_seed(seed)
    config = transformers.GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=64, initializer_range=0.5,
                                     bos_token_id=None, eos_token_id=None)
    return transformers.GPT2LMHeadModel(config).eval()


@pytest.fixture(scope="module")
def models():
    return llama(1), gpt2(2), llama(3)


def log_probs(model, ids):
    with torch.no_grad():
        return model(ids).logits[:, -1].double().log_softmax(-1)


def generate(model, ids, processor, **settings):
    return model.generate(ids, logits_processor=[processor], max_new_tokens=STEPS, do_sample=False, return_dict_in_generate=True,
                          output_scores=True, attention_mask=torch.ones_like(ids), **settings)


def check(out, ids, mixture):
    """Every step's scores are the mixture's, and the tokens its best ones."""
    length = ids.shape[1]
    for step, scores in enumerate(out.scores):
        wanted = mixture(out.sequences[:, :length + step])
        finite = wanted > -1e30
        assert torch.equal(scores > -1e30, finite)
        assert (scores[finite] - wanted[finite]).abs().max() < 1e-3
        assert torch.equal(out.sequences[:, length + step], wanted.argmax(-1))


IDS = torch.tensor([[5, 8, 13, 21], [34, 55, 89, 3]])


def test_linear(models):
    host, other, third = models
    out = generate(host, IDS, EnsembleLogitsProcessor([other, third], [0.5, 0.3, 0.2]))
    check(out, IDS, lambda ids: (0.5 * log_probs(host, ids).exp() + 0.3 * log_probs(other, ids).exp() +
                                 0.2 * log_probs(third, ids).exp()).log())


def test_default_weights_and_temperature(models):
    host, other, _ = models
    out = generate(host, IDS, EnsembleLogitsProcessor([other], temperatures=[1.0, 2.0]))
    check(out, IDS, lambda ids: (0.5 * log_probs(host, ids).exp() + 0.5 * (log_probs(other, ids) / 2).softmax(-1)).log())


def test_dexperts(models):
    host, expert, anti = models
    out = generate(host, IDS, DExpertsLogitsProcessor(expert, anti, alpha=0.5))
    check(out, IDS, lambda ids: (log_probs(host, ids) + 0.5 * log_probs(expert, ids) - 0.5 * log_probs(anti, ids)).log_softmax(-1))


def test_contrastive(models):
    host, amateur, _ = models

    def mixture(ids):
        p = log_probs(host, ids)
        mixed = (1.5 * p - 0.5 * log_probs(amateur, ids)).log_softmax(-1)
        return mixed.masked_fill(p < p.amax(-1, keepdim=True) + torch.log(torch.tensor(0.1)), -torch.inf)

    check(generate(host, IDS, ContrastiveLogitsProcessor(amateur)), IDS, mixture)


def test_masked_tokens_stay_masked(models):
    host, other, _ = models
    free = generate(host, IDS, EnsembleLogitsProcessor([other]))
    banned = free.sequences[:, 4:].unique().tolist()
    out = generate(host, IDS, EnsembleLogitsProcessor([other]), suppress_tokens=banned)
    assert not set(out.sequences[:, 4:].unique().tolist()) & set(banned)
    assert all((scores[:, banned] == -torch.inf).all() for scores in out.scores)
    revived = EnsembleLogitsProcessor([other], keep_masked=False)
    scores = torch.full((2, VOCABULARY), -torch.inf)
    scores[:, 7] = 0
    assert torch.isfinite(revived(IDS, scores)).all()


def test_cache_changes_nothing(models):
    host, other, _ = models
    for settings in ({}, {"num_beams": 3}):
        runs = [generate(host, IDS, EnsembleLogitsProcessor([other], use_cache=cache), **settings) for cache in (True, False)]
        assert torch.equal(runs[0].sequences, runs[1].sequences)


def test_another_prompt_starts_anew(models):
    host, other, _ = models
    processor = EnsembleLogitsProcessor([other])
    first = generate(host, IDS, processor).sequences
    generate(host, IDS.flip(1), processor)
    assert torch.equal(generate(host, IDS, processor).sequences, first)


def test_left_padding(models):
    host, other, _ = models
    padded = torch.cat([torch.zeros(1, 3, dtype=torch.long), IDS[:1]], 1)
    alone = EnsembleLogitsProcessor([other])(IDS[:1], host(IDS[:1]).logits[:, -1])
    within = EnsembleLogitsProcessor([other], pad_token_id=0)(padded, host(IDS[:1]).logits[:, -1])
    assert (alone - within).abs().max() < 1e-4


def test_other_vocabulary_sizes(models):
    host, _, _ = models
    small, large = llama(8, VOCABULARY - 20), llama(9, VOCABULARY + 20)
    ids = torch.tensor([[5, 8]])
    scores = host(ids).logits[:, -1]
    mixed = EnsembleLogitsProcessor([small, large], [0.4, 0.3, 0.3])(ids, scores).double().exp()
    p = 0.4 * scores.double().softmax(-1) + 0.3 * large(ids).logits[:, -1, :VOCABULARY].double().softmax(-1)
    p[:, :VOCABULARY - 20] += 0.3 * small(ids).logits[:, -1].double().softmax(-1)
    assert (mixed - p).abs().max() < 1e-5


def test_bf16(models):
    host, other, _ = models
    half = llama(3).to(torch.bfloat16)
    out = EnsembleLogitsProcessor([half])(IDS, log_probs(host, IDS).float())
    wanted = (0.5 * log_probs(host, IDS).exp() + 0.5 * log_probs(half, IDS).exp()).log()
    assert (out - wanted).abs().max() < 1e-4


@pytest.mark.parametrize("make, says", [
    (lambda m: EnsembleLogitsProcessor([m], [1.0]), "weights"),
    (lambda m: EnsembleLogitsProcessor([m], temperatures=[1.0, 1.0, 1.0]), "temperatures"),
    (lambda m: ContrastiveLogitsProcessor(m, alpha=2.0), "alpha"),
])
def test_refused(models, make, says):
    with pytest.raises(ValueError, match=says):
        make(models[0])
