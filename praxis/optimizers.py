"""Optimizers and the frame they stand in, gathered under their public path."""

from praxis.config.instantiate import instantiate
from praxis.core.weights import WeightHParams
from praxis.optim.accumulator import ShardedStaticAccumulator, sharded_static_accumulation
from praxis.optim.adafactor_variable import ShardedAdafactorHelper, ShardedAdafactorState
from praxis.optim.adagrad import Adagrad, ShardedAdagrad, sharded_adagrad
from praxis.optim.adam import Adam, AdamW, sharded_adam
from praxis.optim.base import BaseOptimizer, OptaxOptimizer, Optimizer
from praxis.optim.decay_rates import adafactor_decay_rate_adam, adafactor_decay_rate_pow
from praxis.optim.ema import apply_ema_weights
from praxis.optim.ewc import apply_ewc_regularization
from praxis.optim.lion import Lion, sharded_lion
from praxis.optim.muon import Muon
from praxis.optim.optax_wrappers import Adafactor, Lamb, Lars
from praxis.optim.quantized import to_float, to_quantized
from praxis.optim.reductions import reduce_mean, reduce_rms
from praxis.optim.regularizers import apply_decoupled_weight_decay, apply_lp_regularizer
from praxis.optim.schedule_free import ScheduleFree, schedule_free_eval_params
from praxis.optim.sgd import Sgd, ShardedSgd, sharded_sgd
from praxis.optim.shampoo import DistributedShampoo, GraftingType, ShardedDistributedShampoo
from praxis.optim.sharded_adafactor import ShardedAdafactor, sharded_adafactor
from praxis.optim.sharded_optax import ShardedOptax
from praxis.optim.specs import partition_params
from praxis.optim.transformation import (
    GeneralGradientTransformation,
    ShardedGradientTransformation,
    TransformInitPartitionSpecFn,
    count_init_fn,
    count_init_partition_spec_fn,
    sharded_chain,
    sharded_masked,
)

__all__ = [
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "BaseOptimizer",
    "DistributedShampoo",
    "GeneralGradientTransformation",
    "GraftingType",
    "Lamb",
    "Lars",
    "Lion",
    "Muon",
    "OptaxOptimizer",
    "Optimizer",
    "ScheduleFree",
    "Sgd",
    "ShardedAdafactor",
    "ShardedAdafactorHelper",
    "ShardedAdafactorState",
    "ShardedAdagrad",
    "ShardedDistributedShampoo",
    "ShardedGradientTransformation",
    "ShardedOptax",
    "ShardedSgd",
    "ShardedStaticAccumulator",
    "TransformInitPartitionSpecFn",
    "WeightHParams",
    "adafactor_decay_rate_adam",
    "adafactor_decay_rate_pow",
    "apply_decoupled_weight_decay",
    "apply_ema_weights",
    "apply_ewc_regularization",
    "apply_lp_regularizer",
    "count_init_fn",
    "count_init_partition_spec_fn",
    "instantiate",
    "partition_params",
    "reduce_mean",
    "reduce_rms",
    "schedule_free_eval_params",
    "sharded_adafactor",
    "sharded_adagrad",
    "sharded_adam",
    "sharded_chain",
    "sharded_lion",
    "sharded_masked",
    "sharded_sgd",
    "sharded_static_accumulation",
    "to_float",
    "to_quantized",
]
