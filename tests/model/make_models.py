"""Writes the models that random plans are tried on, each with data to train on:
`python make_models.py FOLDER [WIDTH LENGTH]`, by default as small as a test wants them.

Five families of transformers in tiny random configurations, dropout on: NAME.pt2, and NAME.safetensors with one row a
sample. Each has eight blocks or more, so that it can be cut into eight stages. Made at test time, never committed.
"""

import hashlib
import math
import os
import pathlib
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

import make_fixtures  # noqa: E402  (also puts python/ and examples/gpt on the path)
from experts import group_experts  # noqa: E402

LAYERS = 6
WIDTH, LENGTH = 32, 16
VOCABULARY = 96
ROWS = 100  # no multiple of a batch, and fewer than five steps take: an epoch ends within a step
IGNORED = -100
DROPOUT = 0.1
WIDE = 0.1  # five times the usual initial weights, so that layers matter


def main():
    global WIDTH, LENGTH
    folder = pathlib.Path(sys.argv[1])
    WIDTH, LENGTH = map(int, sys.argv[2:4] or (WIDTH, LENGTH))
    scripts = [pathlib.Path(__file__), pathlib.Path(__file__).with_name("experts.py")]
    wanted = hashlib.sha256(b"".join(file.read_bytes() for file in scripts)).hexdigest() + f" {WIDTH} {LENGTH} " + make_fixtures.stamp()
    made = folder / "models_stamp"
    if made.exists() and made.read_text() == wanted:
        return
    folder.mkdir(parents=True, exist_ok=True)
    made.unlink(missing_ok=True)
    make(folder)
    made.write_text(wanted)


def make(folder):
    import torch

    import coxswain
    from safetensors.torch import save_file

    torch.set_num_threads(1)
    for name, (module, rows) in models().items():
        example = {input: tensor[:3].clone() for input, tensor in rows.items()}
        report = coxswain.export(module, example, folder / f"{name}.pt2")
        if not report.dynamic_batch:
            raise SystemExit(f"{name}: the batch is fixed: {report.static_reason}")
        part = folder / f"{name}.safetensors.part"
        save_file({input: tensor.contiguous() for input, tensor in rows.items()}, part)
        os.replace(part, folder / f"{name}.safetensors")


def models():
    """Name -> (module that returns the loss, rows of its inputs)."""
    import torch
    import transformers as t

    torch.manual_seed(7)
    decoder = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "vocab_size": VOCABULARY, "max_position_embeddings": LENGTH,
               "initializer_range": WIDE, "use_cache": False, "attention_dropout": DROPOUT}
    encoder = {"hidden_size": WIDTH, "intermediate_size": WIDTH * 7 // 4, "num_hidden_layers": LAYERS, "num_attention_heads": 4,
               "initializer_range": WIDE, "hidden_dropout_prob": DROPOUT, "attention_probs_dropout_prob": DROPOUT}
    gpt2 = t.GPT2Config(n_layer=LAYERS, n_embd=WIDTH, n_head=4, n_positions=LENGTH, vocab_size=VOCABULARY, use_cache=False,
                        initializer_range=WIDE, resid_pdrop=DROPOUT, embd_pdrop=DROPOUT, attn_pdrop=DROPOUT)
    # Two heads of keys for eight of queries: fewer than there may be ranks.
    llama = t.LlamaConfig(**decoder, intermediate_size=WIDTH * 11 // 4, num_attention_heads=8, num_key_value_heads=2)
    mixture = {**decoder, "intermediate_size": WIDTH * 3 // 2, "num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 4,
               "num_experts_per_tok": 2}
    balanced = t.MixtralConfig(**mixture, output_router_logits=True, router_aux_loss_coef=0.1)
    bert = t.BertConfig(**encoder, vocab_size=VOCABULARY, max_position_embeddings=LENGTH)
    vit = t.ViTConfig(**encoder, image_size=4 * math.isqrt(LENGTH), patch_size=4, num_labels=10)
    return {
        "gpt2": (loss_of(t.GPT2LMHeadModel(gpt2)), text_rows()),
        "llama": (loss_of(t.LlamaForCausalLM(llama)), text_rows()),
        "bert": (loss_of(t.BertForMaskedLM(bert)), masked_rows()),
        "vit": (loss_of(t.ViTForImageClassification(vit)), image_rows(vit)),
        "moe": (loss_of(group_experts(t.MixtralForCausalLM(t.MixtralConfig(**mixture)))), text_rows()),
        # A product of means over the batch: no plan may split it.
        "moe_balance": (loss_of(group_experts(t.MixtralForCausalLM(balanced))), text_rows()),
    }


def loss_of(model):
    """Takes the inputs of the model's family, by its names."""
    from torch import nn

    class Text(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, input_ids, labels):
            return self.model(input_ids=input_ids, labels=labels).loss

    class Masked(Text):
        def forward(self, input_ids, attention_mask, token_type_ids, labels):
            return self.model(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids,
                              labels=labels).loss

    class Image(Text):
        def forward(self, pixel_values, labels):
            return self.model(pixel_values=pixel_values, labels=labels).loss

    model.config._attn_implementation = "sdpa"
    kind = {"bert": Masked, "vit": Image}.get(model.config.model_type, Text)
    return kind()


def text_rows():
    """Tokens with some order in them, so that there is something to learn; each row's labels begin with ignored places."""
    import torch

    first = torch.randint(VOCABULARY, (ROWS, 1))
    tokens = (first + 5 * torch.arange(LENGTH) + torch.randint(4, (ROWS, LENGTH))) % VOCABULARY
    labels = tokens.clone()
    labels[torch.arange(LENGTH) < torch.randint(LENGTH // 2, (ROWS, 1))] = IGNORED
    return {"input_ids": tokens, "labels": labels}


def masked_rows():
    """Rows of unequal lengths; a third of the tokens is to be guessed, all else is ignored. Some rows have no label."""
    import torch

    tokens = text_rows()["input_ids"]
    places = torch.arange(LENGTH)
    lengths = torch.randint(LENGTH // 4, LENGTH + 1, (ROWS, 1))
    is_text = places < lengths
    is_hidden = is_text & (torch.rand(ROWS, LENGTH) < 1 / 3)
    is_hidden[::10] = False
    return {
        "input_ids": torch.where(is_hidden, 1, torch.where(is_text, tokens, 0)),
        "attention_mask": is_text.long(),
        "token_type_ids": (places >= lengths // 2).long() * is_text,
        "labels": torch.where(is_hidden, tokens, IGNORED),
    }


def image_rows(config):
    import torch

    labels = torch.randint(config.num_labels, (ROWS,))
    pixels = torch.randn(ROWS, config.num_channels, config.image_size, config.image_size)
    return {"pixel_values": pixels + labels.view(-1, 1, 1, 1) / config.num_labels, "labels": labels}


if __name__ == "__main__":
    main()
