"""The same work as others do it: the classes of ``transformers`` as the authors' release uses them.

Batches of 128 examples padded to the longest, fp32, a decoder that reads each candidate by itself, and beam
search by ``generate`` with a dictionary of legal continuations. Same sizes, data and number of threads as ours.
Where cornac is installed (3.0.1; it is not a dependency), its TIGER too: batches padded to ``max_history``, one
user at a time in beam search.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor, nn

from apao.codes.vocabulary import EOS, PAD
from apao.study.run_params import RunParams
from benchmarks.subject import Size, data

BATCH = 128
"""Examples per forward pass of the release; 8 of them make an optimizer step."""
IGNORED = -100


def model_of(resolved: RunParams, size: Size) -> nn.Module:
    """The class of ``transformers`` with the run's sizes."""
    from transformers import LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration

    config = resolved.backbone.transformers_config(len(data(size)[1].vocabulary))
    torch.manual_seed(0)
    if resolved.backbone.type == "tiger":
        return T5ForConditionalGeneration(T5Config(**config))
    return LlamaForCausalLM(LlamaConfig(**config))


def histories_and_targets(resolved: RunParams, size: Size, count: int) -> Iterator[tuple[list[list[int]], Tensor]]:
    """Batches of ``count`` random training examples without end: token lists, and target tokens (B, T)."""
    histories, codes = data(size)
    users, positions = histories.training_examples()
    random = np.random.default_rng(0)
    while True:
        chosen = random.choice(len(users), count, replace=False)
        rows, targets = [], []
        for user, position in zip(users[chosen], positions[chosen], strict=True):
            end = histories.offsets[user] + position
            begin = max(histories.offsets[user], end - resolved.backbone.max_history)
            rows.append(codes.tokens[histories.items[begin:end]].ravel().tolist())
            targets.append(codes.tokens[histories.items[end]])
        yield rows, torch.as_tensor(np.stack(targets))


def padded(rows: list[list[int]], left: bool) -> Tensor:
    """(B, L) tokens, padded on one side to the longest row."""
    width = max(map(len, rows))
    return torch.tensor(
        [[PAD] * (width - len(row)) + row if left else row + [PAD] * (width - len(row)) for row in rows]
    )


def trainer(resolved: RunParams, size: Size, device: torch.device) -> Callable[[], int]:
    """A function that does one forward and backward pass, every eighth time an optimizer step; returns examples."""
    torch.set_num_threads(resolved.training.threads)
    model = model_of(resolved, size).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=resolved.training.lr, weight_decay=0.01)
    source, passes = histories_and_targets(resolved, size, BATCH), 0

    def step() -> int:
        nonlocal passes
        rows, targets = next(source)
        closing = torch.full((len(rows), 1), EOS)
        labels = torch.cat([targets, closing], dim=1)
        if resolved.backbone.type == "tiger":
            tokens = padded(rows, left=False).to(device)
            out = model(input_ids=tokens, attention_mask=tokens != PAD, labels=labels.to(device))
        else:
            # One sequence per example: history, then the code; only the code is a label.
            whole = [row + label for row, label in zip(rows, labels.tolist(), strict=True)]
            tokens = padded(whole, left=True)
            wanted = tokens.clone()
            wanted[:, : -labels.shape[1]] = IGNORED
            out = model(
                input_ids=tokens.to(device), attention_mask=(tokens != PAD).to(device), labels=wanted.to(device)
            )
        out.loss.backward()
        passes += 1
        if passes % 8 == 0:
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        return len(rows)

    return step


def pairwise_trainer(resolved: RunParams, size: Size, device: torch.device, examples: int) -> Callable[[], int]:
    """APAO-pairwise as the release computes it: every sampled code is one more decoder pass of its history.

    The encoder (T5) or the whole sequence (Llama) is run for the target and for each of the negatives.
    """
    torch.set_num_threads(resolved.training.threads)
    model = model_of(resolved, size).to(device).train()
    codes = torch.as_tensor(data(size)[1].distinct_tokens)
    source, negatives = histories_and_targets(resolved, size, examples), resolved.objective.needs().negatives

    def step() -> int:
        rows, targets = next(source)
        drawn = codes[torch.randint(len(codes), (len(rows), negatives))]
        candidates = torch.cat([targets[:, None], drawn], dim=1).to(device)
        levels = candidates.shape[2]
        if resolved.backbone.type == "tiger":
            tokens = padded(rows, left=False).to(device)
            mask = tokens != PAD
            states = model.encoder(input_ids=tokens, attention_mask=mask).last_hidden_state
            repeats = 1 + negatives
            logits = model(
                encoder_outputs=(states.repeat_interleave(repeats, dim=0),),
                attention_mask=mask.repeat_interleave(repeats, dim=0),
                labels=candidates.flatten(0, 1),
            ).logits
        else:
            history = padded(rows, left=True).to(device)
            whole = torch.cat([history[:, None].expand(-1, candidates.shape[1], -1), candidates], dim=2).flatten(0, 1)
            logits = model(input_ids=whole, attention_mask=whole != PAD).logits[:, -levels - 1 : -1]
        logp = logits.log_softmax(dim=-1).gather(-1, candidates.flatten(0, 1)[..., None])[..., 0]
        prefixes = logp.view(len(rows), -1, levels).cumsum(dim=2)
        (-prefixes.log_softmax(dim=1)[:, 0].mean(dim=0)).sum().backward()
        model.zero_grad()
        return len(rows)

    return step


def searcher(resolved: RunParams, size: Size, device: torch.device, beam: int, users: int) -> Callable[[], int]:
    """Beam search by ``generate`` with ``prefix_allowed_tokens_fn``; returns users."""
    torch.set_num_threads(resolved.training.threads)
    model = model_of(resolved, size).to(device).eval()
    codes = data(size)[1]
    allowed: dict[tuple[int, ...], list[int]] = {}
    for row in codes.distinct_tokens.tolist():
        for level in range(len(row)):
            allowed.setdefault(tuple(row[:level]), []).append(row[level])
    continuations = {prefix: sorted(set(tokens)) for prefix, tokens in allowed.items()}

    chosen = torch.randint(len(codes.distinct), (users, resolved.backbone.max_history))
    tokens = torch.as_tensor(codes.distinct_tokens)[chosen].flatten(1).to(device)

    @torch.no_grad()
    def search() -> int:
        begin = 1 if resolved.backbone.type == "tiger" else tokens.shape[1]

        def legal(_: int, so_far: Tensor) -> list[int]:
            return continuations.get(tuple(so_far[begin:].tolist()), [EOS])

        model.generate(
            input_ids=tokens,
            attention_mask=tokens != PAD,
            num_beams=beam,
            num_return_sequences=beam,
            max_new_tokens=codes.levels,
            prefix_allowed_tokens_fn=legal,
            do_sample=False,
        )
        return users

    return search


def has_cornac() -> bool:
    """Whether cornac is installed."""
    return find_spec("cornac") is not None


def cornac_model(resolved: RunParams, size: Size, device: torch.device) -> nn.Module:
    """The module of cornac's TIGER with the run's sizes; it has a softmax per level."""
    from cornac.models.tiger.tiger import TIGERSeq2Seq

    torch.set_num_threads(resolved.training.threads)
    sizes = resolved.backbone.transformers_config(len(data(size)[1].vocabulary))
    codes = data(size)[1].codes
    torch.manual_seed(0)
    model = TIGERSeq2Seq(
        level_sizes=codes.max(axis=0) + 1,
        d_model=sizes["d_model"],
        d_ff=sizes["d_ff"],
        num_heads=sizes["num_heads"],
        d_kv=sizes["d_kv"],
        num_enc_layers=sizes["num_layers"],
        num_dec_layers=sizes["num_decoder_layers"],
        dropout=sizes["dropout_rate"],
    )
    return model.to(device)


def cornac_histories(model: nn.Module, resolved: RunParams, size: Size, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of ``count`` examples as cornac reads them: tokens (B, ``max_history`` * T), target codes (B, T)."""
    histories, codes = data(size)
    users, positions = histories.training_examples()
    random = np.random.default_rng(0)
    table = np.vstack([codes.codes + model.offsets.cpu().numpy(), np.zeros((1, codes.levels), dtype=np.int64)])
    width = resolved.backbone.max_history
    while True:
        chosen = random.choice(len(users), count, replace=False)
        ends = histories.offsets[users[chosen]] + positions[chosen]
        items = ends[:, None] + np.arange(-width, 0)
        present = items >= histories.offsets[users[chosen]][:, None]
        rows = np.where(present, histories.items[items], codes.items)
        yield torch.as_tensor(table[rows].reshape(count, -1)), torch.as_tensor(codes.codes[histories.items[ends]])


def cornac_trainer(resolved: RunParams, size: Size, device: torch.device) -> Callable[[], int]:
    """A function that does one optimizer step of cornac's TIGER with ``BATCH`` examples, and returns their number."""
    model = cornac_model(resolved, size, device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=resolved.training.lr)
    source = cornac_histories(model, resolved, size, BATCH)

    def step() -> int:
        tokens, targets = (batch.to(device) for batch in next(source))
        optimizer.zero_grad()
        model(tokens, (tokens != 0).float(), targets).backward()
        optimizer.step()
        return len(tokens)

    return step


def cornac_searcher(resolved: RunParams, size: Size, device: torch.device, beam: int, users: int) -> Callable[[], int]:
    """Beam search of cornac's TIGER, one user after another; returns users."""
    model = cornac_model(resolved, size, device).eval()
    codes = data(size)[1].distinct.tolist()
    children: list[dict[tuple[int, ...], list[int]]] = [{} for _ in codes[0]]
    for code in codes:
        for level, token in enumerate(code):
            known = children[level].setdefault(tuple(code[:level]), [])
            if token not in known:
                known.append(token)
    tokens, _ = next(cornac_histories(model, resolved, size, users))

    def search() -> int:
        for row in tokens.to(device).split(1):
            model.generate_beam(row, (row != 0).float(), beam, children)
        return users

    return search
