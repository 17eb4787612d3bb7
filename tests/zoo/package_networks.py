"""Networks of timm and transformers from small configurations; the packages are imported when one is built."""

from __future__ import annotations

from typing import Any

from torch import nn

from tests.zoo.networks import CLASSES, Specimen, noise, sentences

SMALL = noise(3, 32, 32)
_SIZES = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 32, "intermediate_size": 64}


def _transformer(name: str, configuration: str, **sizes: Any) -> nn.Module:
    """Return the class `name` of transformers with random weights."""
    import transformers

    network: nn.Module = getattr(transformers, name)(getattr(transformers, configuration)(**sizes))
    return network


def _bert() -> nn.Module:
    return _transformer(
        *("BertForSequenceClassification", "BertConfig"),
        vocab_size=20, max_position_embeddings=16, num_labels=CLASSES, **_SIZES,
    )  # fmt: skip


def _gpt2() -> nn.Module:
    return _transformer(
        *("GPT2LMHeadModel", "GPT2Config"),
        vocab_size=20, n_positions=16, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0, use_cache=False,
    )  # fmt: skip


def _llama() -> nn.Module:
    return _transformer(
        *("LlamaForCausalLM", "LlamaConfig"),
        vocab_size=20, max_position_embeddings=16, num_key_value_heads=1, use_cache=False, **_SIZES,
    )  # fmt: skip


def _vit() -> nn.Module:
    return _transformer(
        *("ViTForImageClassification", "ViTConfig"), image_size=32, patch_size=8, num_labels=CLASSES, **_SIZES
    )


def _timm(name: str, **settings: Any) -> nn.Module:
    import timm

    network: nn.Module = timm.create_model(name, num_classes=CLASSES, **settings)
    return network


TIMM: dict[str, Specimen] = {
    "test_nfnet": Specimen(lambda: _timm("test_nfnet"), SMALL, note="weight-standardised convolutions"),
    "test_efficientnet": Specimen(lambda: _timm("test_efficientnet"), SMALL),
    "test_vit": Specimen(lambda: _timm("test_vit", img_size=32, patch_size=8), SMALL),
}
TRANSFORMERS: dict[str, Specimen] = {
    "BERT": Specimen(_bert, sentences, note="two layers of width 32"),
    "GPT-2": Specimen(_gpt2, sentences, note="two layers of width 32"),
    "Llama": Specimen(_llama, sentences, note="two layers of width 32"),
    "ViT": Specimen(_vit, lambda count: {"pixel_values": SMALL(count)}, note="two layers of width 32"),
}
