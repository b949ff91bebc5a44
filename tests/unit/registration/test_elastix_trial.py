"""Parameters of elastix that cannot be are refused before the job; those that can are tried."""

import pytest

from amst_hpc.amst_main import default_elastix_params, optimized_elastix_params
from amst_hpc.config import InputError, Refine
from amst_hpc.registration import elastix_trial
from amst_hpc.registration.elastix_trial import NAMES, try_elastix
from amst_hpc.settings import load_config


def tried(*changes, **options):
    config = load_config(None, [f"refine.elastix.{change}" for change in changes]).refine
    try_elastix(config)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("Foo=1", "refine.elastix.Foo: no parameter of elastix"),
        ("NumberOfSpatialSample=9", "NumberOfSpatialSample: .* one like NumberOfSpatialSamples"),
        ("metric=AdvancedKappaStatistic", "refine.elastix.metric: no parameter of elastix"),
        ("Metric=Nonsense", "elastix registers nothing with this Metric"),
        ("Optimizer=Nonsense", "elastix registers nothing with this Optimizer"),
        ("ImageSampler=Nonsense", "elastix registers nothing with this ImageSampler"),
        ("MaximumStepLength=long", "elastix registers nothing with this MaximumStepLength"),
        ("NumberOfSpatialSamples=1000000000", "= 1000000000: expected 1 to 1000000"),
        ("NumberOfHistogramBins=100000", "NumberOfHistogramBins = 100000: expected 1 to 1024"),
        ("NumberOfHistogramBins=0", "NumberOfHistogramBins = 0: expected 1 to 1024"),
        ("NumberOfSpatialSamples=-5", "NumberOfSpatialSamples = -5: expected 1 to"),
        ("NumberOfJacobianMeasurements=1e12", "expected 0 to 1000000"),
        ("NumberOfResolutions=many", "NumberOfResolutions = many: expected a number"),
        ("MaximumStepLength='inf'", "MaximumStepLength = inf: expected a finite number"),
    ],
)
def test_what_cannot_be_is_refused(change, expected):
    with pytest.raises(InputError, match=expected) as caught:
        tried(change)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "changes",
    [
        ["RandomSeed=7"],
        [
            "NumberOfResolutions=3",
            "ImagePyramidSchedule=[8,8,3,3,1,1]",
            "MaximumStepLength=[4,2,1]",
        ],
        ["Metric=AdvancedNormalizedCorrelation", "NumberOfSpatialSamples=1000000"],
        ["ImageSampler=Grid", "SampleGridSpacing=[32,32]"],
        ["NumberOfResolutions=6", "ImagePyramidSchedule=[32,32,16,16,8,8,4,4,2,2,1,1]"],
    ],
)
def test_what_can_be_is_taken(changes):
    tried(*changes)


@pytest.mark.parametrize("preset", [default_elastix_params, optimized_elastix_params])
def test_the_originals_parameters_are_taken(preset):
    names = preset()
    assert set(names) <= NAMES
    try_elastix(Refine(elastix=names | {"WriteResultImage": False}))


def test_a_parameter_file_may_hold_names_that_are_in_no_manual(tmp_path):
    path = tmp_path / "affine.txt"
    path.write_text('(Transform "AffineTransform")\n(Foo 1)\n(Metric "Nonsense")\n')
    with pytest.raises(InputError, match="elastix registers nothing with this"):
        try_elastix(Refine(parameter_file=str(path), elastix={}))


def test_the_defaults_cost_nothing(monkeypatch):
    monkeypatch.setattr(elastix_trial, "make_refine", None)
    try_elastix(Refine())
    try_elastix(load_config(None, ["refine.backend=none", "refine.elastix.Foo=1"]).refine)
