"""The shipped experiments: names, configs, and sizes (behaviour 119)."""

import inspect

import jax
import pytest

from paxml.experiment import lookup, registry
from paxml.summary.tables import num_parameters
from paxml.tasks import catalog
from paxml.trainer.init import get_train_input_specs_for_model_init
from praxis import pax_fiddle

SHIPPED = sorted(
    key
    for key, cls in registry.get_all().items()
    if inspect.getmodule(cls) in [getattr(catalog, name) for name in catalog.__all__]
)

# Parameters, non-trainable ones included. Those of Llama 2 and ResNet-50 are the published ones.
GOLDEN = {
    "lm_cloud.LmCloudTransformerAdamTest": 57_976_192,
    "lm_cloud.LmCloudSpmdTest": 2_178_960,
    "lm_cloud.LmCloudSpmd2B": 2_136_997_376,
    "lm_cloud.LmCloudSpmd128B": 129_044_463_744,
    "lm_cloud.LmCloudSpmd1024B": 1_029_982_028_800,
    "lm_cloud.LmCloudSpmdPipeline175B": 174_344_178_944,
    "lm_cloud.LmCloudSpmdPipelineMultislice2BCircular": 2_136_997_376,
    "lm_cloud.LargeMlp": 498_159_872,
    "c4.C4SpmdAdam": 1_273_992_064,
    "c4.C4SpmdPipelineGpt3AdamOrgHPBS1p5k768Replicas": 174_615_898_112,
    "c4_multislice.C4Spmd22BAdam2xv4_128": 21_945_835_520,
    "optimal_scaling.OptimalScaling4x24x32": 51_803_905_280,
    "bert.BertSpmdL66H12kBiggerBatch8x8x16": 119_984_520_704,
    "nvidia.Llama2_7B": 6_738_415_616,
    "nvidia.Llama2_70B": 68_976_648_192,
    "nvidia.MoELarge": 143_860_731_904,
    "nvidia.Grok_Proxy_PP": 40_165_267_456,
    "imagenet_resnets.ResNet50Pjit": 25_557_032 + 53_120,
}


def test_the_families_are_complete():
    families = {}
    for key in SHIPPED:
        families.setdefault(key.split(".")[-2], []).append(key)
    assert {family: len(names) for family, names in families.items()} == {
        "bert": 6,
        "c4": 18,
        "c4_multislice": 18,
        "configs": 10,
        "imagenet_resnets": 1,
        "lm_cloud": 19,
        "mnist": 1,
        "nvidia": 22,
        "optimal_scaling": 11,
        "synthetic": 2,
    }


@pytest.mark.parametrize("key", SHIPPED)
def test_every_registered_example_builds_its_configs(key):
    """Task, model, learner and inputs are built; no weight is made, no batch read."""
    experiment = registry.get_all()[key]()
    experiment.validate()
    task = pax_fiddle.instantiate(experiment.task())
    built = [dataset.Instantiate() for dataset in experiment.datasets()]
    if built:
        assert sorted(one.is_training for one in built) == [False, True]
    if (mesh := task.model.ici_mesh_shape) is not None:
        assert len(mesh) == len(task.model.mesh_axis_names)


@pytest.mark.parametrize("name", GOLDEN)
def test_number_of_parameters(name):
    experiment = lookup.get_experiment(name)()
    task = pax_fiddle.instantiate(experiment.task())
    provider = experiment.get_input_specs_provider_params().Instantiate()
    specs = get_train_input_specs_for_model_init(task, provider)
    variables = task.model.abstract_init_with_metadata(specs)
    assert num_parameters(variables) == GOLDEN[name]


@pytest.mark.parametrize(
    "name",
    [
        "tasks.lm.params.lm_cloud.LmCloudSpmd2B",
        "lm.lm_cloud.LmCloudSpmd2B",
        "LmCloudSpmd2B",
        "contrib.gpu.scripts_gpu.configs.Synthetic126M",
        "tasks.vision.params.mnist.MnistExperiment",
        "tasks.test.synthetic.SharedNameExperiment",
        "tasks.lm.params.c4.C4SpmdPipelineGpt3AdamMLPerfHPBS8k1024Replicas",
    ],
)
def test_names_without_the_package_work(name):
    assert lookup.get_experiment(name).__name__ == name.rsplit(".", 1)[-1]
    assert registry.get_registry_tags(f"paxml.{name}")[:1] in ([], ["example"])


def test_an_unregistered_class_is_not_found_by_its_name():
    with pytest.raises(ValueError, match=r"Did you mean .*GLaM64B64EProxy_EP"):
        lookup.get_experiment("GLaM64B64EProxy")


def test_specs_of_a_batch_are_those_of_its_inputs():
    for name in ("LmCloudSpmdTest", "BertSpmdL4H128", "SyntheticClassifier"):
        experiment = lookup.get_experiment(name)()
        provider = experiment.get_input_specs_provider_params().Instantiate()
        batch = experiment.train_datasets()[0].Instantiate().get_next()
        found = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch)
        assert provider.get_input_specs() == found
