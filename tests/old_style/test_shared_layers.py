"""Two towers with one embedding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from praxis import base_layer, pax_fiddle
from praxis.layers import embedding_softmax, linears

template_field = base_layer.template_field
LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]


class Tower(base_layer.BaseLayer):
    """An embedding and a projection."""

    embedding_tpl: LayerTpl = template_field(embedding_softmax.Embedding)
    output_dims: int = 0

    def setup(self):
        self.create_child("embedding", self.embedding_tpl)
        projection_p = pax_fiddle.Config(
            linears.Linear,
            input_dims=self.embedding_tpl.input_dims,
            output_dims=self.output_dims,
        )
        self.create_child("projection", projection_p)

    def __call__(self, ids):
        return self.projection(self.embedding(ids))


class TwoTowers(base_layer.BaseLayer):
    """Scores of pairs."""

    query_tpl: LayerTpl = template_field(Tower)
    document_tpl: LayerTpl = template_field(Tower)

    def setup(self):
        self.create_child("query", self.query_tpl)
        self.create_child("document", self.document_tpl)

    def __call__(self, query_ids, document_ids):
        return jnp.einsum("BD,BD->B", self.query(query_ids), self.document(document_ids))


def config():
    embedding_p = pax_fiddle.Config(
        embedding_softmax.Embedding,
        num_classes=7,
        input_dims=3,
        shared_weight_layer_id="shared_embedding",
    )
    p = pax_fiddle.Config(TwoTowers, name="towers")
    for tower_p in (p.query_tpl, p.document_tpl):
        tower_p.set(embedding_tpl=embedding_p.clone(), output_dims=5)
    return p


def test_one_table():
    ids = jnp.asarray([1, 2])
    with base_layer.JaxContext.new_context():
        layer = base_layer.instantiate(config())
        variables = layer.init(jax.random.PRNGKey(0), ids, ids)
        assert set(variables["params"]) == {"shared_embedding", "query", "document"}
        assert set(variables["params"]["query"]) == {"projection"}
        grads = jax.grad(lambda v: layer.apply(v, ids, ids).sum())(variables)
    rows = np.abs(grads["params"]["shared_embedding"]["emb_var"]).sum(-1)
    assert list(rows > 0) == [False, True, True, False, False, False, False]


def test_configs_that_differ():
    p = config()
    p.document_tpl.embedding_tpl.scale_sqrt_depth = True
    ids = jnp.asarray([1])
    with (
        base_layer.JaxContext.new_context(),
        pytest.raises(ValueError, match=r"'shared_embedding'.*scale_sqrt_depth"),
    ):
        base_layer.instantiate(p).init(jax.random.PRNGKey(0), ids, ids)
