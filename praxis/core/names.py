"""Names of Flax variable collections and random streams that layers use."""

PARAMS = "params"
NON_TRAINABLE = "non_trainable"
AUX_LOSS = "aux_loss"
SUMMARIES = "summaries"
DECODE_CACHE = "decoder_cache"
PREFIX_DECODE_CACHE = "prefix_decoder_cache"
INTERMEDIATES = "intermediates"
HYPER_PARAMS = "hyper_params"

RANDOM = "random"
NON_PAX_RNG_KEY = "dropout"

# Collections of plain Flax modules that live inside a layer.
NON_PAX_VAR_COLLECTION = ["batch_stats", "params_axes"]
DEFAULT_INIT_MUTABLE_LIST = [PARAMS, NON_TRAINABLE, *NON_PAX_VAR_COLLECTION]

PMAP_PARALLEL_AXIS_NAME = "batch"

QUANTIZED_SCALE_NAME_POSTFIX = "_quantized_scale"
QUANTIZED_ZP_NAME_POSTFIX = "_quantized_zp"
SPARSITY_NAME_POSTFIX = "_sparsity_mask"
