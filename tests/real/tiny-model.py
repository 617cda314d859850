"""Writes a small Llama of random weights: tiny-model.py FILE SEED [LAYERS KV_HEADS HEAD]

Four layers, four KV heads of 32, 32,768 tokens of context: a saved slot takes 2 KiB a token, and a prompt takes long
enough on a CPU that a restored one is seen at once. Files of different seeds have the same shape and other weights.

One token per printable character and one per byte. The rows of the output matrix that belong to control and byte tokens
are zero, so at temperature 0 the text is always printable and never ends early. The weights are large enough (a standard
deviation of 0.12) that each character of the answer hangs on the whole prompt, and that the best token leads by far: the
answer changes when the state is wrong, and not with the batch a prompt was evaluated in.

With LAYERS, KV_HEADS and HEAD (numbers a head) the cache of keys and values gets the shape of a larger model, while the
rest stays narrow: its slots have a real model's size, and a CPU digests the prompt in a minute.
"""

import sys

import gguf
import numpy

WIDTH, HEADS, FEED_FORWARD, CONTEXT = 256, 8, 512, 32768

file, seed, *shape = sys.argv[1], *map(int, sys.argv[2:])
LAYERS, KV_HEADS, HEAD = shape or (4, 4, WIDTH // HEADS)
random = numpy.random.Generator(numpy.random.PCG64(seed))

space = "\u2581"
kinds = gguf.TokenType
vocabulary = [("<unk>", kinds.UNKNOWN), ("<s>", kinds.CONTROL), ("</s>", kinds.CONTROL)]
vocabulary += [(f"<0x{byte:02X}>", kinds.BYTE) for byte in range(256)]
never_said = len(vocabulary)
vocabulary += [(character, kinds.NORMAL) for character in [space, *map(chr, range(33, 127))]]

writer = gguf.GGUFWriter(file, "llama")
writer.add_name(f"tiny-random-{seed}")
writer.add_file_type(gguf.LlamaFileType.ALL_F32)
writer.add_block_count(LAYERS)
writer.add_context_length(CONTEXT)
writer.add_embedding_length(WIDTH)
writer.add_feed_forward_length(FEED_FORWARD)
writer.add_head_count(HEADS)
writer.add_head_count_kv(KV_HEADS)
if HEAD != WIDTH // HEADS:
    writer.add_key_length(HEAD)
    writer.add_value_length(HEAD)
writer.add_rope_dimension_count(HEAD)
writer.add_rope_freq_base(10000.0)
writer.add_layer_norm_rms_eps(1e-5)
writer.add_vocab_size(len(vocabulary))
writer.add_tokenizer_model("llama")
writer.add_token_list([text.encode() for text, _ in vocabulary])
writer.add_token_types([kind for _, kind in vocabulary])
writer.add_token_scores([-float(index) if index >= never_said else 0.0 for index in range(len(vocabulary))])
writer.add_unk_token_id(0)
writer.add_bos_token_id(1)
writer.add_eos_token_id(2)


def weights(*shape):
    return (random.standard_normal(shape) * 0.12).astype(numpy.float32)


ones = numpy.ones(WIDTH, numpy.float32)
output = weights(len(vocabulary), WIDTH)
output[:never_said] = 0.0
writer.add_tensor("token_embd.weight", weights(len(vocabulary), WIDTH))
writer.add_tensor("output_norm.weight", ones)
writer.add_tensor("output.weight", output)
for layer in range(LAYERS):
    for name, tensor in {
        "attn_norm": ones,
        "attn_q": weights(HEADS * HEAD, WIDTH),
        "attn_k": weights(KV_HEADS * HEAD, WIDTH),
        "attn_v": weights(KV_HEADS * HEAD, WIDTH),
        "attn_output": weights(WIDTH, HEADS * HEAD),
        "ffn_norm": ones,
        "ffn_gate": weights(FEED_FORWARD, WIDTH),
        "ffn_up": weights(FEED_FORWARD, WIDTH),
        "ffn_down": weights(WIDTH, FEED_FORWARD),
    }.items():
        writer.add_tensor(f"blk.{layer}.{name}.weight", tensor)

writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
