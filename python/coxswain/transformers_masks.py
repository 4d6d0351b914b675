"""Makes the attention masks of Hugging Face `transformers` traceable.

Its masks are built with vmap over Python functions, which torch.export records as nodes that cannot be saved, and under
tracing it always builds them, even where eager uses `is_causal=True`. Our sequence length is static, so both can be
decided while tracing, exactly as eager decides them. Nothing here runs outside `traceable_masks()`.
"""

import contextlib
import inspect
import sys


@contextlib.contextmanager
def traceable_masks():
    module = sys.modules.get("transformers.masking_utils")
    replacements = {
        "_vmap_for_bhqkv": lambda original: _broadcast_for_bhqkv,
        "_ignore_causal_mask_sdpa": _can_skip_causal_mask,
        "find_packed_sequence_indices": _packed_indices_unless_shared,
    }
    saved = {name: getattr(module, name) for name in replacements if hasattr(module, name)}
    for name, original in saved.items():
        setattr(module, name, replacements[name](original))
    try:
        yield
    finally:
        for name, original in saved.items():
            setattr(module, name, original)


def _broadcast_for_bhqkv(mask_function, bh_indices=True):
    # Mask functions are elementwise in their indices, so broadcasting gives what vmap gives, without the batch copies.
    def build(batch, head, query, key):
        query, key = query[:, None], key[None, :]
        if not bh_indices:
            return mask_function(batch, head, query, key)
        mask = mask_function(batch[:, None, None, None], head[None, :, None, None], query[None, None], key[None, None])
        return mask.expand(batch.shape[0], head.shape[0], -1, -1)

    return build


def _can_skip_causal_mask(original):
    # Eager's rule without its look at the padding mask's elements, which a trace has not got. transformers 4 and 5 name
    # and count the arguments differently.
    signature = inspect.signature(original)

    def decide(*args, **kwargs):
        given = signature.bind(*args, **kwargs).arguments
        query_length = given["q_length"] if "q_length" in given else given["query_length"]
        local = given.get("local_attention_size")
        return (given["padding_mask"] is None and (query_length == 1 or query_length == given["kv_length"])
                and (local is None or given["kv_length"] < local))

    return decide


def _packed_indices_unless_shared(original):
    # Positions that the model made itself are one row shared by all samples (stride 0): never packed sequences.
    def find(position_ids):
        return None if position_ids.stride(0) == 0 else original(position_ids)

    return find
