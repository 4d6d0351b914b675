"""Exports the models of a list in tiny random configurations: `python export_zoo.py LIST FOLDER`.

LIST holds lines of library and name. Writes FOLDER/LIBRARY-NAME.pt2, or .failed with the reason; what is there already
stays. Dropout stays as the configuration has it; each model returns its loss.
"""

import pathlib
import sys
import warnings

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True
sys.path[:0] = [str(ROOT / "python"), str(ROOT / "tests" / "model"), str(ROOT / ".venv" / "bench")]

import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

BATCH, LENGTH, VOCABULARY, IMAGE, CLASSES = 3, 16, 96, 32, 10


def main():
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    load_torchvision()
    folder = pathlib.Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    failed = 0
    for line in pathlib.Path(sys.argv[1]).read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        library, name = line.split()
        target = folder / f"{library}-{name}.pt2"
        if not target.exists() and not export_one(library, name, target):
            failed += 1
    print(f"{failed} models could not be exported")


def export_one(library, name, target):
    import coxswain

    reason = target.with_suffix(".failed")
    reason.unlink(missing_ok=True)
    torch.manual_seed(1)
    try:
        module, inputs = {"transformers": transformers_model, "timm": timm_model}[library](name)
        report = coxswain.export(module, inputs, target)
        print(f"{target.stem}: {report.num_parameters} parameters" + (f", batch fixed: {report.static_reason}" if report.static_reason else ""), flush=True)
        return True
    except Exception as error:  # of every kind that a model or the exporter knows
        lines = str(error).strip().splitlines() or [""]
        reason.write_text(f"{type(error).__name__}: {lines[0]}\n")
        print(f"{target.stem}: {reason.read_text()}", end="", flush=True)
        return False


SMALL = {"hidden_size": 32, "intermediate_size": 56, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": VOCABULARY,
         "max_position_embeddings": 32, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
GROUPED = {**SMALL, "num_key_value_heads": 2, "head_dim": 8}
GPT = {"n_layer": 2, "n_head": 4, "n_embd": 32, "n_positions": 32, "vocab_size": VOCABULARY}
TO_SEQUENCE = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
               "encoder_ffn_dim": 56, "decoder_ffn_dim": 56, "vocab_size": VOCABULARY, "max_position_embeddings": 32,
               "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
VISION = {"hidden_size": 32, "intermediate_size": 56, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": IMAGE,
          "patch_size": 8, "num_labels": CLASSES}
STAGES = {"embedding_size": 16, "hidden_sizes": [16, 24, 32, 40], "depths": [1, 1, 1, 1], "num_labels": CLASSES}
CLIP = {"hidden_size": 32, "intermediate_size": 56, "num_hidden_layers": 2, "num_attention_heads": 4}

# Name -> (configuration, what it is trained on). Whole layers left out at random (drop_path) are no dropout that can be
# trained here, and are off.
CONFIGURATIONS = {
    "gpt2": (GPT, "causal"),
    "gptj": ({**GPT, "rotary_dim": 4}, "causal"),
    "gpt_neo": ({"hidden_size": 32, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 8,
                 "vocab_size": VOCABULARY, "max_position_embeddings": 32}, "causal"),
    "gpt_neox": (SMALL, "causal"),
    "opt": ({**SMALL, "ffn_dim": 56, "word_embed_proj_dim": 32}, "causal"),
    "bloom": ({"hidden_size": 32, "n_layer": 2, "n_head": 4, "vocab_size": VOCABULARY}, "causal"),
    "falcon": ({**SMALL, "new_decoder_architecture": False}, "causal"),
    "mpt": ({"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 32, "vocab_size": VOCABULARY, "expansion_ratio": 2}, "causal"),
    "mixtral": ({**GROUPED, "num_local_experts": 4, "output_router_logits": True}, "causal"),
    "qwen3_moe": ({**GROUPED, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}, "causal"),
    "phi3": ({**GROUPED, "partial_rotary_factor": 0.5}, "causal"),
    "bert": (SMALL, "masked"),
    "roberta": (SMALL, "masked"),
    "distilbert": ({"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 56, "vocab_size": VOCABULARY, "max_position_embeddings": 32}, "masked"),
    "electra": ({**SMALL, "embedding_size": 16}, "masked"),
    "albert": ({**SMALL, "embedding_size": 16}, "masked"),
    "deberta-v2": ({**SMALL, "relative_attention": True, "position_buckets": 8, "pos_att_type": ["p2c", "c2p"]}, "masked"),
    "mpnet": (SMALL, "masked"),
    "modernbert": ({**SMALL, "local_attention": 8}, "masked"),
    "t5": ({"d_model": 32, "d_kv": 8, "d_ff": 56, "num_layers": 2, "num_heads": 4, "vocab_size": VOCABULARY, "decoder_start_token_id": 0}, "sequence"),
    "bart": (TO_SEQUENCE, "sequence"),
    "mbart": (TO_SEQUENCE, "sequence"),
    "pegasus": (TO_SEQUENCE, "sequence"),
    "whisper": ({**TO_SEQUENCE, "num_mel_bins": 8, "max_source_positions": 16, "max_target_positions": 32}, "speech"),
    "vit": (VISION, "image"),
    "deit": (VISION, "image"),
    "beit": ({**VISION, "drop_path_rate": 0.0}, "image"),
    "dinov2": ({**VISION, "mlp_ratio": 2}, "image"),
    "swin": ({"image_size": IMAGE, "patch_size": 2, "embed_dim": 16, "depths": [2, 1], "num_heads": [2, 4], "window_size": 4, "num_labels": CLASSES,
              "drop_path_rate": 0.0}, "image"),
    "convnext": ({**STAGES, "num_stages": 4}, "image"),
    "resnet": (STAGES, "image"),
    "regnet": ({**STAGES, "groups_width": 8}, "image"),
    "segformer": ({"hidden_sizes": [16, 16, 32, 32], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 2, 4], "num_labels": CLASSES,
                   "drop_path_rate": 0.0}, "image"),
    "clip": ({"text_config": {**CLIP, "vocab_size": VOCABULARY, "max_position_embeddings": 32, "eos_token_id": 2},
              "vision_config": {**CLIP, "image_size": IMAGE, "patch_size": 8}, "projection_dim": 16}, "pair"),
}
# The rest: decoders with grouped heads.
for decoder in ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "phi", "stablelm", "olmo", "olmo2", "starcoder2",
                "cohere", "granite", "glm"):
    CONFIGURATIONS[decoder] = (GROUPED, "causal")


class Loss(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model


class Text(Loss):
    def forward(self, input_ids, labels):
        return self.model(input_ids=input_ids, labels=labels).loss


class Masked(Loss):
    def forward(self, input_ids, attention_mask, labels):
        return self.model(input_ids=input_ids, attention_mask=attention_mask, labels=labels).loss


class Speech(Loss):
    def forward(self, input_features, labels):
        return self.model(input_features=input_features, labels=labels).loss


class Image(Loss):
    def forward(self, pixel_values, labels):
        return self.model(pixel_values=pixel_values, labels=labels).loss


class Pair(Loss):
    def forward(self, input_ids, pixel_values):
        return self.model(input_ids=input_ids, pixel_values=pixel_values, return_loss=True).loss


class Logits(Loss):
    """A module that returns logits."""

    def forward(self, pixel_values, labels):
        return functional.cross_entropy(self.model(pixel_values), labels)


def inputs_of(kind, image=IMAGE):
    tokens = torch.randint(3, VOCABULARY, (BATCH, LENGTH))
    pixels, labels = torch.randn(BATCH, 3, image, image), torch.randint(CLASSES, (BATCH,))
    mask = (torch.arange(LENGTH) < torch.tensor([[LENGTH], [LENGTH - 3], [LENGTH // 2]])).long()
    return {
        "causal": lambda: {"input_ids": tokens, "labels": tokens.clone()},
        "sequence": lambda: {"input_ids": tokens, "labels": tokens.clone()},
        "masked": lambda: {"input_ids": tokens, "attention_mask": mask, "labels": torch.where(mask == 1, tokens, -100)},
        "speech": lambda: {"input_features": torch.randn(BATCH, 8, 32), "labels": tokens},
        "image": lambda: {"pixel_values": pixels, "labels": labels},
        "pair": lambda: {"input_ids": tokens, "pixel_values": pixels},
    }[kind]()


def transformers_model(name):
    import transformers as t
    from experts import group_experts

    options, kind = CONFIGURATIONS[name]
    classes = {"causal": (t.AutoModelForCausalLM, Text), "masked": (t.AutoModelForMaskedLM, Masked),
               "sequence": (t.AutoModelForSeq2SeqLM, Text), "speech": (t.AutoModelForSpeechSeq2Seq, Speech),
               "image": (t.AutoModelForImageClassification, Image), "pair": (t.AutoModel, Pair)}
    config = t.AutoConfig.for_model(name, **options)
    config.use_cache = False
    auto, wrapper = classes[kind]
    model = auto.from_config(config)
    return wrapper(group_experts(model)), inputs_of(kind)


def timm_model(name):
    import timm

    model = timm.create_model(name, num_classes=CLASSES, **({"drop_path_rate": 0.0} if "swin" in name else {}))
    size = model.default_cfg.get("input_size", (3, IMAGE, IMAGE))[-1]
    # Convolutions take any size; what is built for one keeps it.
    fixed = any(word in name for word in ("vit", "mixer", "mlp", "deit", "cait", "swin", "xcit", "levit"))
    return Logits(model), inputs_of("image", size if fixed else min(size, 64))


def load_torchvision():
    # Nobody needs its kernels here, and some indices offer only the CUDA build, whose kernels the CPU build of torch
    # does not load: shape functions of operators that are missing are passed over.
    register = torch.library.register_fake

    def unless_missing(operator, *rest, **options):
        return (lambda function: function) if str(operator).startswith("torchvision::") else register(operator, *rest, **options)

    torch.library.register_fake = unless_missing
    try:
        import torchvision  # noqa: F401
    finally:
        torch.library.register_fake = register


if __name__ == "__main__":
    main()
