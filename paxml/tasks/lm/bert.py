"""Models that restore hidden tokens, with the settings of language models."""

from typing import ClassVar

from paxml.tasks.lm.pmap import TransformerLmPmapAdam
from paxml.tasks.lm.spmd import Pipelined, TransformerLmSpmdAdafactor
from paxml.tasks.lm.transformer import LayerTpl, TransformerSettings
from praxis import pax_fiddle
from praxis.layers import models


class Bert(TransformerSettings):
    """A bidirectional model on packed rows whose hidden tokens are to be restored.

    Attributes:
      MASK_TOKEN_ID: The token that hides others.
    """

    MODEL_TYPE: ClassVar[models.LanguageModelType] = models.LanguageModelType.BIDIRECTIONAL
    MASK_TOKEN_ID: ClassVar[int] = 0

    def model_config(self, lm: LayerTpl) -> LayerTpl:
        return pax_fiddle.Config(
            models.BertModel, name="bert", lm_tpl=lm, mask_token_id=self.MASK_TOKEN_ID
        )


class TransformerBertPmapAdam(Bert, TransformerLmPmapAdam):
    """Without a mesh, trained with Adam."""


class TransformerBertSpmdAdafactor(Bert, TransformerLmSpmdAdafactor):
    """On a mesh, trained with Adafactor."""


class TransformerBertSpmdPipelineAdafactor(Bert, Pipelined, TransformerLmSpmdAdafactor):
    """Pipelined, trained with Adafactor."""
