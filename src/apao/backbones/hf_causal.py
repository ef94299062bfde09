"""Any causal language model of ``transformers`` as a backbone, with item codes as its vocabulary.

Shapes as in ``base``; P tokens of the prompt. The pre-trained layers read embeddings of item codes: the
pre-trained vocabulary is replaced by that of the codes, in the embedding and in the output layer, and used only to
embed the prompt, a text before every history. The last token of the history predicts the first token of the code.
A trained model is an ordinary model of its class in ``transformers`` with a small vocabulary.

The model is run through its public interface: ``inputs_embeds``, ``position_ids``, a four-dimensional attention mask
and a ``DynamicCache``. All candidates of a history are one sequence of tokens after it, in which the mask lets each
see the history and itself only. So nothing of the history is copied per candidate, but:

- ``extend`` copies the keys and values of the history once per call, into the cache that the model appends to.
- A candidate's attention scores over the others are computed and masked. Candidates are read ``AT_ONCE`` at a time,
  which bounds this; with four-token codes it is less work than attention over a history of 80 tokens and an MLP.
- In training, target and candidates are two passes, and the states of all positions are computed to the last layer.

Models that compute something else than that are refused when they are loaded: ``build`` compares a few numbers with
the plain forward pass of the model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, ValidationError
from torch import Tensor, nn
from typing_extensions import override

from apao.backbones.base import BACKBONES, CausalParams, Context, Past
from apao.backbones.causal import CausalBackbone
from apao.backbones.exchange import load_named
from apao.backbones.layers import KeyValues, additive_mask
from apao.backbones.pretrained import (
    ADAPTER,
    INSTALL,
    Lora,
    adapted_layers,
    add_adapters,
    empty_model,
    files_of,
    load_model,
    model_folder,
    prompt_embeddings,
    recorded_config,
    renew_vocabulary,
)
from apao.errors import UserError, first_line
from apao.parameters import first_mistake, spelled

AT_ONCE = 128
"""Candidates per history that are read in one sequence."""
SIZES_THAT_BOUND = ("max_position_embeddings", "sliding_window", "attention_chunk_size", "window_size")
"""Keys of a model's config beyond which it has no positions or does not see the whole history."""
TOLERANCE = 2e-4
"""Largest difference to the model's own forward pass, relative to its largest logit."""
CONFIG_KEY = "apao"
"""Key of our own values in config.json, which ``transformers`` keeps and does not use."""
PROMPT = "prompt"
MAX_PROMPT = 2**16
"""Tokens."""


@BACKBONES.register
class HfCausalParams(CausalParams):
    """A pre-trained causal language model, fine-tuned whole or with LoRA. Its own config says its sizes."""

    type: Literal["hf-causal"]
    model: str
    """Folder of a model that ``transformers`` has saved, or with ``revision`` the name of a model of the hub."""
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None = None
    """Commit of the hub's model, in full, so that the run can be repeated; null: ``model`` is a folder."""
    lora: Lora | None = None
    """Adapters to train in place of the pre-trained layers; null: all weights are trained."""
    prompt: str = ""
    """Text before every history. Its embeddings are trained with the other weights; with ``lora`` they are constant."""

    recordable: ClassVar[bool] = False
    """The library's code may wait for the GPU, and starting the kernels of a large model takes little of the time."""

    @override
    def own_files(self) -> tuple[Path, ...]:
        if self.revision is not None:
            return ()
        return files_of(model_folder(self.model, None), tokenizer=bool(self.prompt))

    @override
    def build(self, vocabulary: int) -> HfCausal:
        """The pre-trained model with new tokens, drawn from torch's global generator.

        Raises:
            UserError: when it cannot be loaded, or cannot be a backbone.
        """
        try:
            folder = model_folder(self.model, self.revision)
            model = load_model(folder)
            prompt = prompt_embeddings(model, folder, self.prompt)
            renew_vocabulary(model, vocabulary)
            if self.lora is not None:
                add_adapters(model, self.lora)
            backbone = HfCausal(self, vocabulary, model, prompt)
        except UserError as error:
            raise UserError(f"backbone hf-causal: {error}") from error
        except ImportError as error:
            raise UserError(f"backbone hf-causal needs transformers ({error}): {INSTALL}") from error
        # A model of the user's choice can fail in many ways, each with its own exception class.
        except Exception as error:
            raise UserError(
                f"backbone hf-causal: model {self.model} cannot be loaded ({first_line(error)}). It must be a causal "
                "language model of transformers itself, with weights as safetensors; one of the hub needs network "
                "access, and a gated one HF_TOKEN. Without network, download it elsewhere and name its folder"
            ) from error
        try:
            difference = backbone.difference_to_plain()
            found = f"its logits differ by {difference:.1e}, relatively"
        except Exception as error:
            difference, found = math.inf, first_line(error)
        if not difference <= TOLERANCE:
            raise UserError(
                f"backbone hf-causal: model {self.model} ({type(model).__name__}) cannot read candidates side by side "
                f"({found}), as models with ALiBi, recurrent layers or rescaled logits cannot; choose another"
            )
        return backbone.train()

    @override
    def to_load(self, vocabulary: int, folder: Path) -> HfCausal:
        path = folder / "config.json"
        model = empty_model(path)
        own = getattr(model.config, CONFIG_KEY, None)
        tokens = own.get("prompt_tokens") if isinstance(own, dict) else None
        if type(tokens) is not int or not 0 <= tokens <= MAX_PROMPT:
            raise UserError(
                f"{path}: {CONFIG_KEY}.prompt_tokens: expected a number up to {MAX_PROMPT}, found {tokens!r}"
            )
        rows, width = model.get_input_embeddings().weight.shape
        if rows != vocabulary:
            raise UserError(f"{path}: vocab_size: expected {vocabulary}, found {rows}")
        # Adapters were merged into the weights.
        return HfCausal(self, vocabulary, model, torch.zeros(tokens, width) if tokens else None)

    @override
    def transformers_config(self, vocabulary: int) -> dict[str, Any]:
        return self.build(vocabulary).transformers_config()

    @classmethod
    @override
    def from_transformers_config(cls, config: dict[str, Any]) -> HfCausalParams:
        known = {"model", "revision", "lora", "prompt"}
        given = config.get(CONFIG_KEY)
        if not isinstance(given, Mapping):
            raise UserError(f"{CONFIG_KEY}: missing; expected the config.json of a run with backbone hf-causal")
        try:
            return cls.model_validate({"type": "hf-causal", **{key: given[key] for key in known & set(given)}})
        except ValidationError as error:
            raise UserError(spelled(*first_mistake(error))) from error


class HfCausal(CausalBackbone):
    """A language model (``HfCausalParams``) as a backbone."""

    params: HfCausalParams
    prompt: nn.Parameter | None

    def __init__(self, params: HfCausalParams, vocabulary: int, model: Any, prompt: Tensor | None) -> None:
        """``model`` has the vocabulary of the codes; ``prompt`` (P, D) are embeddings before every history."""
        super().__init__()
        self.params, self.vocabulary, self.model = params, vocabulary, model
        trained = params.lora is None
        self.register_parameter(PROMPT, None if prompt is None else nn.Parameter(prompt, requires_grad=trained))
        bounds = [getattr(model.config, key, None) for key in SIZES_THAT_BOUND]
        self.longest = min((size for size in bounds if type(size) is int and size > 0), default=2**31)

    @property
    def _layers(self) -> Any:
        """The model without its output layer."""
        layers = self.model.base_model
        # Some classes name no such part.
        return self.model.get_decoder() if layers is self.model else layers

    def _embed(self, tokens: Tensor) -> Tensor:
        """(..., S) -> (..., S, D)."""
        embedded: Tensor = self.model.get_input_embeddings()(tokens)
        return embedded

    def _with_prompt(self, embedded: Tensor) -> Tensor:
        """(R, L, D) -> (R, P + L, D)."""
        if self.prompt is None:
            return embedded
        return torch.cat([self.prompt.to(embedded.dtype).expand(len(embedded), -1, -1), embedded], dim=1)

    def _check_length(self, tokens: int) -> None:
        if tokens > self.longest:
            raise UserError(
                f"{self.params.model} reads {self.longest} tokens, too few for {tokens} of prompt, history and code; "
                "in its recipe, set a smaller max_history"
            )

    @override
    def read(self, tokens: Tensor, starts: Tensor, candidates: int) -> tuple[Tensor, Context]:
        """As in the base class. ``mask`` is bool (R, E * ``candidates``, P + L): what each candidate sees."""
        from transformers import DynamicCache

        x = self._with_prompt(self._embed(tokens))
        before = x.shape[1] - tokens.shape[1]
        self._check_length(x.shape[1])
        cache = DynamicCache()
        # Padding is on the right, so the model's own causal mask hides it from all other tokens.
        states = self._layers(inputs_embeds=x, past_key_values=cache, use_cache=True).last_hidden_state
        place = starts.repeat_interleave(candidates, dim=1) + before
        return states[:, before:], Context(
            along=states[:, :0],
            layers=_kept(cache),
            mask=torch.arange(x.shape[1], device=x.device) <= place[..., None],
            lengths=place + 1,
        )

    @override
    def extend(self, context: Context, tokens: Tensor, past: Past | None = None) -> tuple[Tensor, Past]:
        known = past[0].keys.shape[-2] if past else 0
        self._check_length(context.mask.shape[-1] + known + tokens.shape[-1])
        states, caches = [], []
        for first in range(0, tokens.shape[1], AT_ONCE):
            some = slice(first, first + AT_ONCE)
            of_some = context
            if context.lengths.shape[1] > 1:
                of_some = replace(context, mask=context.mask[:, some], lengths=context.lengths[:, some])
            own = None if not past else [KeyValues(*(value[:, some] for value in entry)) for entry in past]
            found, cache = self._extend(of_some, tokens[:, some], own, known)
            states.append(found)
            caches.append(cache)
        if len(states) == 1:
            return states[0], tuple(caches[0])
        layers = zip(*caches, strict=True)
        joined = (KeyValues(*(torch.cat(parts, dim=1) for parts in zip(*entries, strict=True))) for entries in layers)
        return torch.cat(states, dim=1), tuple(joined)

    def _extend(
        self, context: Context, tokens: Tensor, past: list[KeyValues] | None, known: int
    ) -> tuple[Tensor, list[KeyValues]]:
        """``extend`` for candidates that are read in one sequence, with a cache of ``known`` tokens each."""
        from transformers import DynamicCache

        (batch, count, new), device = tokens.shape, tokens.device
        cache = DynamicCache()
        for index, memory in enumerate(context.layers):
            seen = memory if past is None else memory.append(_in_one_sequence(past[index]))
            cache.update(seen.keys, seen.values, index)
        history = context.mask[:, :, None].expand(batch, count, new, -1).flatten(1, 2)
        own = _own_tokens(count, new, known, device).expand(batch, -1, -1)
        step = torch.arange(known, known + new, device=device)
        states = self._layers(
            inputs_embeds=self._embed(tokens).flatten(1, 2),
            attention_mask=additive_mask(torch.cat([history, own], dim=-1))[:, None],
            position_ids=(context.lengths[..., None] + step).expand(batch, count, new).flatten(1, 2),
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        after = [_by_candidate(layer, count, new) for layer in _kept(cache)]
        if past is not None:
            after = [before.append(more) for before, more in zip(past, after, strict=True)]
        return states.unflatten(1, (count, new)), after

    @override
    def logits(self, hidden: Tensor) -> Tensor:
        found: Tensor = self.model.get_output_embeddings()(hidden)
        return found

    @torch.no_grad()
    def difference_to_plain(self) -> float:
        """Largest difference between our logits and those of the model's own forward pass on whole sequences.

        Relative to the largest logit; for a history of three tokens and two codes of three, read in two steps.
        """
        self.eval()
        device = self.model.get_input_embeddings().weight.device
        tokens = 1 + torch.arange(9, device=device) % (self.vocabulary - 1)  # no padding
        history, codes = tokens[:3], tokens[3:].view(1, 2, 3)
        context = self.encode(history[None])
        first, past = self.extend(context, codes[..., :1])
        rest, _ = self.extend(context, codes[..., 1:], past)
        start = context.along[:, None].expand(1, 2, 1, -1)
        found = self.logits(torch.cat([start, first, rest], dim=2))[0]
        whole = torch.cat([history.expand(2, 3), codes[0]], dim=1)
        plain = self.model(inputs_embeds=self._with_prompt(self._embed(whole))).logits[:, -4:]
        return float((found - plain).abs().max() / plain.abs().max())

    @override
    def transformers_config(self) -> dict[str, Any]:
        own = self.params.model_dump(mode="json", include={"model", "revision", "lora", "prompt"})
        own["prompt_tokens"] = 0 if self.prompt is None else len(self.prompt)
        return {**recorded_config(self.model), CONFIG_KEY: own}

    @override
    def transformers_names(self) -> dict[str, str]:
        """As in the base class, without adapters; tied tensors have one name."""
        names: dict[str, str] = {}
        of_storage: dict[int, str] = {}
        for ours, value in self.state_dict(keep_vars=True).items():
            if ".lora_" not in ours:
                foreign = ours.removeprefix("model.").replace(".base_layer.", ".")
                names[ours] = of_storage.setdefault(id(value), foreign)
        return names

    @override
    def to_transformers(self) -> dict[str, Tensor]:
        weights = super().to_transformers()
        with torch.no_grad():
            for name, layer in adapted_layers(self.model).items():
                weights[f"{name}.weight"] = layer.base_layer.weight + layer.get_delta_weight(ADAPTER)
        return weights

    @override
    def load_transformers(self, weights: dict[str, Tensor]) -> None:
        """As in the base class; adapters, which are merged in ``weights``, begin anew."""
        names = self.transformers_names()
        load_named(self, names, weights, aliases=_aliases(names))
        for layer in adapted_layers(self.model).values():
            nn.init.zeros_(layer.lora_B[ADAPTER].weight)

    def divided(self, temperature: float) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """``to_transformers`` and ``transformers_config`` of a model whose logits are divided by ``temperature``."""
        weights, config = self.to_transformers(), self.transformers_config()
        head = self.model.get_output_embeddings()
        (name,) = (name for name, part in self.model.named_modules() if part is head)
        if temperature != 1:
            # An output layer of its own: tied weights are also the embedding's.
            weights |= {f"{name}.{key}": value / temperature for key, value in head.state_dict().items()}
            config["tie_word_embeddings"] = False
        return weights, config


def _aliases(names: Mapping[str, str]) -> set[str]:
    """Names under which ``transformers`` may also save a tied tensor."""
    return {ours.removeprefix("model.") for ours in names} - set(names.values())


def _in_one_sequence(past: KeyValues) -> KeyValues:
    """(B, C, H, P, d) -> (B, H, C * P, d)."""
    return KeyValues(*(value.transpose(1, 2).flatten(2, 3) for value in past))


def _by_candidate(layer: KeyValues, count: int, new: int) -> KeyValues:
    """The last ``count`` * ``new`` tokens of (B, H, L, d), as (B, C, H, S, d)."""
    return KeyValues(*(x[:, :, -count * new :].unflatten(2, (count, new)).transpose(1, 2) for x in layer))


def _kept(cache: Any) -> list[KeyValues]:
    """What a ``DynamicCache`` holds, by layer."""
    return [KeyValues(layer.keys, layer.values) for layer in cache.layers]


def _own_tokens(count: int, new: int, known: int, device: torch.device) -> Tensor:
    """Bool (C * S, C * P + C * S): each token sees the P cached tokens of its candidate, itself and those before it."""
    same = torch.eye(count, dtype=torch.bool, device=device)[:, None, :, None]
    cached = same.expand(count, new, count, known)
    earlier = torch.ones(new, new, dtype=torch.bool, device=device).tril()[None, :, None, :]
    return torch.cat([cached.reshape(count * new, -1), (same & earlier).reshape(count * new, -1)], dim=-1)
