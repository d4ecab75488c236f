#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Trains the family from nothing but what Debian and Python carry. The demo does not need it: the models are committed.

    ./dev train                  # a virtual environment of its own, then every stage
    ./dev train base legal       # these stages; a stage reads the models of the stages before it

Seeded: the same machine, thread count and library versions give the same models; others give models much like them.
"""
import argparse
import pathlib
import shutil
import time

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM,
                          PreTrainedTokenizerFast)

import corpus

HERE = pathlib.Path(__file__).resolve().parent
END = "<|endoftext|>"
WINDOW, BATCH = 256, 8
HIDDEN, INTERMEDIATE, LAYERS, HEADS, KV_HEADS = 128, 352, 4, 4, 2
MIX = {"legal": 0.15, "technical": 0.30, "code": 0.55}


# ---- Text -----------------------------------------------------------------------------------------------------------

def train_tokenizer(train: dict[str, list[str]], size: int) -> Tokenizer:
    """Byte-level BPE: any bytes can be told, nothing is unknown."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=[END], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator((text for texts in train.values() for text in texts), trainer)
    return tokenizer


class Batches:
    """Windows from random places; `mix` says how often each domain is asked. Documents are joined by END."""

    def __init__(self, tokenizer: Tokenizer, train: dict[str, list[str]], mix: dict[str, float], seed: int):
        self.random = torch.Generator().manual_seed(seed)
        self.streams, self.shares = [], torch.tensor([mix[d] for d in mix])
        end = tokenizer.token_to_id(END)
        for domain in mix:
            ids = [token for text in train[domain] for token in [end, *tokenizer.encode(text).ids]]
            self.streams.append(torch.tensor(ids))

    def next(self) -> torch.Tensor:
        rows = []
        for which in torch.multinomial(self.shares, BATCH, replacement=True, generator=self.random):
            stream = self.streams[which]
            start = int(torch.randint(len(stream) - WINDOW, (), generator=self.random))
            rows.append(stream[start:start + WINDOW + 1])
        return torch.stack(rows)


# ---- Training -------------------------------------------------------------------------------------------------------

def learning_rate(step: int, steps: int, peak: float, warmup: int, decay: int) -> float:
    """Warm up, stay, and fall to zero in the last `decay` steps."""
    return peak * min(1.0, (step + 1) / warmup, (steps - step) / decay)


def fit(model, batches: Batches, steps: int, peak: float, warmup: int, decay: int, parameters=None, at=None):
    """AdamW on next-token cross entropy, plus what the model adds itself (a router's balance). `at`: step -> call."""
    parameters = list(parameters if parameters is not None else model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=peak, betas=(0.9, 0.95), weight_decay=0.1)
    model.train()
    start, seen = time.time(), 0.0
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, peak, warmup, decay)
        tokens = batches.next()
        out = model(input_ids=tokens[:, :-1], use_cache=False)
        loss = torch.nn.functional.cross_entropy(out.logits.flatten(0, 1), tokens[:, 1:].flatten())
        total = loss + (model.router_aux_loss_coef * balance(model, out) if hasattr(model, "num_experts") else 0)
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        seen = loss.item() if step == 0 else 0.95 * seen + 0.05 * loss.item()
        if (step + 1) % 50 == 0 or step + 1 == steps:
            print(f"  step {step + 1}/{steps}  loss {seen:.3f}  {time.time() - start:.0f} s", flush=True)
        if at and step + 1 in at:
            at[step + 1](model)


def balance(model, out):
    """Switch Transformers' load-balancing loss (arXiv:2101.03961, eq. 4), as the model's own code computes it."""
    from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func
    return load_balancing_loss_func(out.router_logits, model.num_experts, model.num_experts_per_tok)


@torch.no_grad()
def perplexities(model, tokenizer: Tokenizer, held_out: dict[str, str]) -> dict[str, float]:
    model.eval()
    result = {}
    for domain, text in held_out.items():
        ids = torch.tensor(tokenizer.encode(text).ids)
        loss, count = 0.0, 0
        for start in range(0, len(ids) - 1, WINDOW):
            window = ids[start:start + WINDOW + 1]
            logits = model(input_ids=window[None, :-1], use_cache=False).logits[0]
            loss += torch.nn.functional.cross_entropy(logits, window[1:], reduction="sum").item()
            count += len(window) - 1
        result[domain] = round(float(torch.tensor(loss / count).exp()), 2)
    return result


# ---- Models on disk -------------------------------------------------------------------------------------------------

def new_llama(vocabulary: int, seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=vocabulary, hidden_size=HIDDEN, intermediate_size=INTERMEDIATE, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, max_position_embeddings=2 * WINDOW,
        rms_norm_eps=1e-6, initializer_range=0.06, tie_word_embeddings=False, bos_token_id=0, eos_token_id=0))


class Family:
    """The folder of the models; what is saved is rounded to bf16, so later stages start from what is committed."""

    def __init__(self, folder: pathlib.Path, train: dict, held_out: dict):
        self.folder, self.train, self.held_out = folder, train, held_out

    def load(self, name: str):
        return AutoModelForCausalLM.from_pretrained(self.folder / name, dtype=torch.float32)

    def tokenizer(self, name: str = "base") -> Tokenizer:
        return Tokenizer.from_file(str(self.folder / name / "tokenizer.json"))

    def save(self, name: str, model, tokenizer: Tokenizer):
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        rounded = type(model)(model.config).to(torch.bfloat16)
        rounded.load_state_dict(model.state_dict())
        rounded.save_pretrained(folder)
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=END, eos_token=END).save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        print(f"  {name}: held-out perplexity {perplexities(self.load(name), tokenizer, self.held_out)}", flush=True)

    def pretrain(self, name: str, vocabulary: int, seed: int, steps: int, late: dict[int, str]):
        tokenizer = train_tokenizer(self.train, vocabulary)
        model = new_llama(vocabulary, seed)
        at = {step: lambda m, n=n: self.save(n, m, tokenizer) for step, n in late.items()}
        fit(model, Batches(tokenizer, self.train, MIX, seed), steps, 3e-3, 60, steps // 5, at=at)
        self.save(name, model, tokenizer)

    def fine_tune(self, domain: str, seed: int, steps: int):
        tokenizer, model = self.tokenizer(), self.load("base")
        fit(model, Batches(tokenizer, self.train, {domain: 1.0}, seed), steps, 5e-4, 10, steps // 2)
        self.save(domain, model, tokenizer)

    def grow_experts(self, name: str, seed: int, gate_steps: int, steps: int):
        """The feed-forward parts of base and its three fine-tunes become the experts, everything else their average
        (Branch-Train-MiX, arXiv:2403.07816). First the gate alone learns, then all of it."""
        torch.manual_seed(seed)
        tokenizer, parents = self.tokenizer(), [self.load(n) for n in ("base", *corpus.DOMAINS)]
        c = parents[0].config
        model = MixtralForCausalLM(MixtralConfig(
            vocab_size=c.vocab_size, hidden_size=HIDDEN, intermediate_size=INTERMEDIATE, num_hidden_layers=LAYERS,
            num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, max_position_embeddings=2 * WINDOW,
            rms_norm_eps=1e-6, tie_word_embeddings=False, bos_token_id=0, eos_token_id=0,
            num_local_experts=len(parents), num_experts_per_tok=2,
            sliding_window=None, output_router_logits=True, router_aux_loss_coef=0.01,
            rope_parameters=c.rope_parameters))
        states = [p.state_dict() for p in parents]
        state = model.state_dict()
        for key in state:
            if key in states[0]:
                state[key].copy_(torch.stack([s[key] for s in states]).mean(0))
        for layer, block in enumerate(model.model.layers):
            for e, s in enumerate(states):
                part = {w: s[f"model.layers.{layer}.mlp.{w}_proj.weight"] for w in ("gate", "up", "down")}
                block.mlp.experts.gate_up_proj.data[e] = torch.cat([part["gate"], part["up"]])
                block.mlp.experts.down_proj.data[e] = part["down"]
        batches = Batches(tokenizer, self.train, MIX, seed)
        gates = [p for n, p in model.named_parameters() if n.endswith("mlp.gate.weight")]
        fit(model, batches, gate_steps, 1e-2, 5, gate_steps // 2, parameters=gates)
        fit(model, batches, steps, 5e-4, 10, steps // 2)
        model.config.output_router_logits = False
        self.save(name, model, tokenizer)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="*", help="default: all, in this order: " + " ".join(STAGES))
    parser.add_argument("--out", type=pathlib.Path, default=HERE)
    parser.add_argument("--licenses", type=pathlib.Path, default="/usr/share/common-licenses")
    parser.add_argument("--library", type=pathlib.Path, default="/usr/lib/python3.11")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    unknown = [s for s in arguments.stages if s not in STAGES]
    if unknown:
        parser.error(f"unknown stage '{unknown[0]}'; there are: {' '.join(STAGES)}")
    torch.set_num_threads(arguments.threads)
    train, held_out = corpus.split(corpus.read_documents(arguments.licenses, arguments.library))
    (arguments.out / "held-out").mkdir(parents=True, exist_ok=True)
    for domain, text in held_out.items():
        (arguments.out / "held-out" / f"{domain}.txt").write_text(text, encoding="utf-8")
    family = Family(arguments.out, train, held_out)
    for stage in arguments.stages or STAGES:
        print(stage, flush=True)
        STAGES[stage](family)


STAGES = {
    "base": lambda f: f.pretrain("base", 1024, 1, 900, {640: "late-1", 720: "late-2"}),
    "other-start": lambda f: f.pretrain("other-start", 1024, 2, 900, {}),
    "other-tokens": lambda f: f.pretrain("other-tokens", 1536, 3, 900, {}),
    "legal": lambda f: f.fine_tune("legal", 4, 80),
    "technical": lambda f: f.fine_tune("technical", 5, 120),
    "code": lambda f: f.fine_tune("code", 6, 160),
    "mixture-of-experts": lambda f: f.grow_experts("mixture-of-experts", 7, 60, 150),
}

if __name__ == "__main__":
    main()
