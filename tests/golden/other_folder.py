"""A golden folder of other sizes, computed without our code, by models of ``transformers`` and plain loops.

Three levels, 60 items of which some share a code, users with gaps between their ids.
"""

import json
import math
import random

import torch
import transformers
from helpers.models import shaken

LEVELS, ITEMS, NEGATIVES, BEAM, BETA = 3, 60, 7, 6, 0.7
TAUS, ETAS = ("1", "3.0"), ("0", "0.02", "2.0")
EOS = 1
LONGEST = 23
"""Items in the longest history of an example: more than the usual 20, so that histories of the beams are cut too."""


def write(folder):
    draw = random.Random(3)
    codes = [[f"<{'abc'[level]}_{draw.choice((0, 1, 2, 10, 11))}>" for level in range(LEVELS)] for _ in range(ITEMS)]
    codes[59] = codes[0]
    vocabulary = ["<pad>", "</s>", "<unk>", *sorted({token for code in codes for token in code})]
    tokens = [tuple(vocabulary.index(token) for token in code) for code in codes]
    lengths = {4: 2, 17: 9, 90: 26}
    interactions = {user: [draw.randrange(ITEMS) for _ in range(length)] for user, length in lengths.items()}
    # Targets and histories that do not occur among the users.
    examples = [
        {"history": [draw.randrange(ITEMS) for _ in range(length)], "target": target}
        for length, target in ((1, 0), (5, 23), (LONGEST, 31), (2, 59), (8, 7))
    ]
    negatives = [[draw.randrange(ITEMS) for _ in range(NEGATIVES)] for _ in examples]
    # The target itself, another item with its code, and a repetition.
    negatives[0][2:4], negatives[1][1], negatives[1][6] = [0, 59], 23, negatives[1][0]
    expected = {
        "codes": {str(item): code for item, code in enumerate(codes)},
        "vocabulary": {token: i for i, token in enumerate(vocabulary)},
        "valid_prefixes": [len({code[:m] for code in tokens}) for m in range(1, LEVELS + 1)],
        "examples": examples,
        "negatives": negatives,
        "beta": BETA,
        "interactions": {str(user): items for user, items in interactions.items()},
        "backbones": {},
    }
    for key in ("t5", "llama"):
        model = made_model(key, len(vocabulary), folder)
        expected["backbones"][key] = values_of(model, key, expected, tokens, vocabulary)
    (folder / "expected.json").write_text(json.dumps(expected))
    return expected


def made_model(key, size, folder):
    if key == "t5":
        config = transformers.T5Config(
            vocab_size=size, d_model=20, d_kv=6, d_ff=28, num_heads=3, num_layers=3, num_decoder_layers=2,
            decoder_start_token_id=0,
        )  # fmt: skip
        model = transformers.T5ForConditionalGeneration(config).eval()
    else:
        config = transformers.LlamaConfig(
            vocab_size=size, hidden_size=24, intermediate_size=40, num_attention_heads=3, num_key_value_heads=3,
            num_hidden_layers=3, rms_norm_eps=1e-5, rope_theta=500_000.0, tie_word_embeddings=True,
        )  # fmt: skip
        model = transformers.LlamaForCausalLM(config).eval()
    shaken(model, seed=5)
    model.save_pretrained(folder / "saved")
    # File names differ from the key: the backbone follows from model_type in the config.
    (folder / "saved" / "model.safetensors").rename(folder / f"our-{key}.safetensors")
    (folder / "saved" / "config.json").rename(folder / f"our-{key}.config.json")
    return model


@torch.no_grad()
def logits_after(model, key, history, prefixes):
    """Logits [prefix][step 0 .. m] of prefixes of one length m after a tokenized history."""
    if key == "t5":
        inputs = torch.tensor([[*history, EOS]] * len(prefixes))
        decoder = torch.tensor([[0, *prefix] for prefix in prefixes])
        return model(input_ids=inputs, decoder_input_ids=decoder).logits.double().tolist()
    inputs = torch.tensor([[*history, *prefix] for prefix in prefixes])
    return model(input_ids=inputs).logits[:, len(history) - 1 :].double().tolist()


def log_softmax(row, token, among=None, tau=1.0):
    row = [value / tau for value in row]
    kept = row if among is None else [row[i] for i in among]
    return row[token] - max(kept) - math.log(sum(math.exp(value - max(kept)) for value in kept))


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def values_of(model, key, expected, tokens, vocabulary):
    spread = lambda items: [token for item in items for token in tokens[item]]  # noqa: E731
    legal = {}
    for code in tokens:
        for m in range(LEVELS):
            legal.setdefault(code[:m], set()).add(code[m])
    rows, token_logp, negative_logp = [], [], []
    for example, negatives in zip(expected["examples"], expected["negatives"], strict=True):
        candidates = [tokens[item] for item in (example["target"], *negatives)]
        logits = logits_after(model, key, spread(example["history"]), candidates)
        scored = [
            [log_softmax(row, token) for row, token in zip(one, (*code, EOS), strict=True)]
            for one, code in zip(logits, candidates, strict=True)
        ]
        rows.append(logits[0])
        token_logp.append(scored[0])
        negative_logp.append(scored[1:])
    targets = [tokens[example["target"]] for example in expected["examples"]]
    ce = mean(-mean(steps) for steps in token_logp)

    def msl(tau):
        losses = []
        for logits, code in zip(rows, targets, strict=True):
            steps = [log_softmax(logits[m], code[m], legal[code[:m]], tau) for m in range(LEVELS)]
            losses.append(-sum(steps) / (LEVELS + 1))
        return {"loss": mean(losses), "ce": mean(losses)}

    def pairwise(i, m):
        seen, total, positive = [targets[i][:m]], 0.0, sum(token_logp[i][:m])
        for item, steps in zip(expected["negatives"][i], negative_logp[i], strict=True):
            if tokens[item][:m] not in seen:
                seen.append(tokens[item][:m])
                total += math.exp(sum(steps[:m]) - positive)
        return math.log(1 + total * (expected["valid_prefixes"][m - 1] - 1) / len(seen)) / m

    def apao(one, eta):
        losses = [mean(one(i, m) for i in range(len(targets))) for m in range(1, LEVELS + 1)]
        raw = [loss / sum(losses) * math.exp(float(eta) * loss) for loss in losses]
        weights = [value / sum(raw) for value in raw]
        prefix = sum(weight * loss for weight, loss in zip(weights, losses, strict=True))
        return {"loss": ce + BETA * prefix, "ce": ce, "prefix_losses": losses, "weights": weights}

    def beam(user):
        history = spread(expected["interactions"][str(user)][:-1][-LONGEST:])
        kept = [((), 0.0)]
        for _ in range(LEVELS):
            logits = logits_after(model, key, history, [prefix for prefix, _ in kept])
            grown = [
                ((*prefix, token), score + log_softmax(one[-1], token))
                for (prefix, score), one in zip(kept, logits, strict=True)
                for token in legal[prefix]
            ]
            kept = sorted(grown, key=lambda pair: -pair[1])[:BEAM]
        if key == "t5":
            logits = logits_after(model, key, history, [code for code, _ in kept])
            closed = [(code, s + log_softmax(one[-1], EOS)) for (code, s), one in zip(kept, logits, strict=True)]
            kept = sorted(closed, key=lambda pair: -pair[1])
        steps = LEVELS + (key == "t5")
        return [[vocabulary[token] for token in code] for code, _ in kept], [score / steps for _, score in kept]

    users = [90, 4, 17]
    beams = [beam(user) for user in users]
    return {
        "ce": {"loss": ce, "ce": ce, "token_logp": token_logp},
        "msl": {tau: msl(float(tau)) for tau in TAUS},
        "apao-pointwise": {eta: apao(lambda i, m: -sum(token_logp[i][:m]) / m, eta) for eta in ETAS},
        "apao-pairwise": {eta: apao(pairwise, eta) for eta in ETAS},
        "beam": {
            "beam_size": BEAM,
            "users": users,
            "codes": [codes for codes, _ in beams],
            "scores": [scores for _, scores in beams],
        },
    }
