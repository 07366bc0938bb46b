"""A user's own layer with templates for its parts."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from praxis import base_layer, pax_fiddle, py_utils, pytypes, test_utils
from praxis.layers import activations, linears, normalizations

NestedMap = py_utils.NestedMap
WeightInit = base_layer.WeightInit
WeightHParams = base_layer.WeightHParams
template_field = base_layer.template_field
LayerTpl = pax_fiddle.Config[base_layer.BaseLayer]
JTensor = pytypes.JTensor


class ResidualMlp(base_layer.BaseLayer):
    """Norm, projection, activation, projection, and a learned scale of the residual."""

    input_dims: int = 0
    hidden_dims: int = 0
    norm_tpl: LayerTpl = template_field(normalizations.LayerNorm)
    in_tpl: LayerTpl = template_field(linears.FeedForward)
    out_tpl: LayerTpl = template_field(linears.FeedForward)

    def setup(self) -> None:
        norm_p = self.norm_tpl.clone()
        norm_p.dim = self.input_dims
        self.create_child("norm", norm_p)
        in_p = self.in_tpl.clone()
        in_p.set(input_dims=self.input_dims, output_dims=self.hidden_dims)
        self.create_child("to_hidden", in_p)
        out_p = self.out_tpl.clone()
        out_p.set(input_dims=self.hidden_dims, output_dims=self.input_dims)
        self.create_child("to_output", out_p)
        self.create_variable(
            "residual_scale", WeightHParams(shape=[1], init=WeightInit.Constant(0.5))
        )

    def __call__(self, inputs: JTensor) -> JTensor:
        hidden = self.to_hidden(self.norm(inputs))
        self.add_summary("hidden_mean", jnp.mean(hidden))
        scale = jnp.broadcast_to(self.theta.residual_scale, inputs.shape)
        return inputs + scale * self.to_output(hidden)


class ResidualMlpTest(test_utils.TestCase):
    def test_fprop(self):
        p = pax_fiddle.Config(ResidualMlp, name="mlp", input_dims=3, hidden_dims=5)
        p.in_tpl.activation_tpl = pax_fiddle.Config(activations.GELU)
        p.out_tpl.activation_tpl = pax_fiddle.Config(activations.Identity)
        layer = base_layer.instantiate(p)
        inputs = jnp.asarray(np.random.normal(size=[2, 3]), jnp.float32)  # noqa: NPY002
        with base_layer.JaxContext.new_context():
            initial_vars = layer.init(jax.random.PRNGKey(123), inputs)
            outputs, updated = layer.apply(
                initial_vars, inputs, mutable=[base_layer.SUMMARIES], method=layer.__call__
            )
        self.assertEqual(outputs.shape, (2, 3))
        self.assertIn("hidden_mean_scalar", updated[base_layer.SUMMARIES])
        shapes = NestedMap.FromNestedDict(initial_vars["params"]).Transform(lambda x: x.shape)
        self.assertEqual(shapes.GetItem("to_hidden.linear.w"), (3, 5))
        self.assertEqual(p.norm_tpl.dim, 0)


if __name__ == "__main__":
    absltest.main()
