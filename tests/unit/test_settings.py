"""Settings as text: every one is named in its error, and survives the way to TOML and back."""

import copy
import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amst_hpc.config import Config, InputError
from amst_hpc.elastix_defaults import ELASTIX
from amst_hpc.settings import SECTIONS, from_tree, load_config, to_toml, to_tree

plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
nested = st.recursive(
    plain,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
keys = st.sampled_from(
    [(name, field.name) for name, cls in SECTIONS.items() for field in dataclasses.fields(cls)]
)
printable = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=12)
elastix_values = st.booleans() | st.integers(-(2**53), 2**53) | printable

configs = st.fixed_dictionaries(
    {},
    optional={
        "template": st.fixed_dictionaries({"radius": st.integers(1, 50)}),
        "registration": st.fixed_dictionaries({"working_size": st.just(0) | st.integers(64, 5000)}),
        "coarse": st.fixed_dictionaries(
            {
                "method": st.sampled_from(["sift", "xcorr", "none"]),
                "sigma": st.floats(0, 10),
                "downsample": st.integers(1, 8),
                "device": st.text(max_size=10),
            }
        ),
        "refine": st.fixed_dictionaries(
            {
                "backend": st.sampled_from(["itk", "pyelastix", "gauss-newton", "none"]),
                "elastix": st.dictionaries(
                    printable,
                    elastix_values | st.lists(elastix_values, min_size=1, max_size=3),
                    max_size=3,
                ),
            }
        ),
        "prealign": st.fixed_dictionaries(
            {
                "transform": st.sampled_from(["translation", "rigid", "affine"]),
                "drift": st.sampled_from(["keep", "smooth", "remove"]),
                "canvas": st.sampled_from(["grow", "crop", "raw"]),
            }
        ),
        "drift": st.fixed_dictionaries({"period": st.just(0) | st.integers(4, 10**6)}),
        "output": st.fixed_dictionaries(
            {
                "voxel_size_nm": st.just([])
                | st.lists(st.floats(0.1, 100), min_size=3, max_size=3),
                "chunk": st.integers(8, 1024),
                "layer": st.sampled_from([0, 1, 8, 64, 256]),
                "compression": st.integers(0, 9),
                "factors": st.lists(
                    st.lists(st.sampled_from([1, 2, 3, 4, 8]), min_size=3, max_size=3), max_size=3
                ),
                "legacy": st.booleans(),
            }
        ),
    },
)


@given(configs)
def test_toml_and_back_is_the_same(tmp_path_factory, tree):
    config = from_tree(tree)
    path = tmp_path_factory.getbasetemp() / "config.toml"
    path.write_text(to_toml(config))
    assert load_config(path) == config
    assert from_tree(to_tree(config)) == config


def fault_of(load):
    """The text of the `InputError`, None if the value is taken."""
    try:
        assert isinstance(load(), Config)
    except InputError as error:
        return str(error)
    return None


@given(keys, nested)
def test_any_value_is_taken_or_refused_by_name(key, value):
    section, name = key
    fault = fault_of(lambda: from_tree({section: {name: value}}))
    assert fault is None or fault.startswith(f"{section}.{name}")


@given(st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=30))
def test_any_override_is_taken_or_refused_in_one_line(text):
    fault = fault_of(lambda: load_config(None, [text]))
    assert fault is None or len(fault.splitlines()) == 1


def test_defaults_are_printed_with_their_help(tmp_path):
    path = tmp_path / "defaults.toml"
    path.write_text(to_toml(Config()))
    assert load_config(path) == Config()
    assert "# slices on each side" in path.read_text()


def test_a_byte_order_mark_does_not_count(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text("[template]\nradius = 3\n", encoding="utf-8-sig")
    assert load_config(path).template.radius == 3


def test_overrides_go_over_the_file(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text('[template]\nradius = 3\n[coarse]\nmethod = "xcorr"\n')
    config = load_config(path, ["template.radius=5", "output.voxel_size_nm=[8, 5, 5]"])
    assert (config.template.radius, config.coarse.method) == (5, "xcorr")
    assert config.output.voxel_size_nm == (8.0, 5.0, 5.0)


def test_elastix_parameters_are_changes_to_the_defaults():
    config = load_config(None, ["refine.elastix.MaximumNumberOfIterations=50"])
    assert config.refine.elastix == {**ELASTIX, "MaximumNumberOfIterations": 50}


def test_elastix_parameters_are_changes_to_a_parameter_file(tmp_path):
    path = tmp_path / "affine.txt"
    path.write_text('(Transform "AffineTransform")\n')
    config = load_config(
        None, [f'refine.parameter_file="{path}"', "refine.elastix.NumberOfResolutions=2"]
    )
    assert config.refine.elastix == {"NumberOfResolutions": 2}


NAMES = "input, prealign, template, registration, coarse, refine, neighbours, drift, output"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("template.radius=2.5", "template.radius = 2.5: expected a whole number"),
        ("template.radius=true", "template.radius = True: expected a whole number"),
        ("coarse.sigma=nan", "coarse.sigma = nan: expected a number"),
        ("coarse.sigma=inf", "coarse.sigma = inf: expected a number"),
        ("output.voxel_size_nm=[inf,5,5]", "output.voxel_size_nm = (inf, 5, 5): expected numbers"),
        ("output.factors=[[1,2],3]", "output.factors = ((1, 2), 3): expected a list of [z, y, x]"),
        ("refine.elastix.MaximumStepLength=nan", "refine.elastix.MaximumStepLength = nan: expec"),
        ("refine.elastix.Scales=[1.0,inf]", "refine.elastix.Scales = [1.0, inf]: expected a v"),
        ("output.colour=1", "output.colour: no such key; expected format, voxel_size_nm"),
        ("outputs.chunk=8", f"outputs: no such section; expected {NAMES}"),
        ("radius=3", "--set radius=3: expected section.key=value"),
        ("template.radius", "--set template.radius: expected section.key=value"),
        ("template=3", "--set template=3: expected section.key=value"),
        ("template.radius.x.y=3", "template.radius = {'x': {'y': 3}}: expected a whole number"),
        ("template.radius=5\nx=3", "template.radius = '5\\nx=3': expected a whole number"),
    ],
)
def test_bad_values_are_named(override, expected):
    with pytest.raises(InputError) as caught:
        load_config(None, [override])
    assert str(caught.value).startswith(expected)


def test_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(InputError, match=r"--config .*gone\.toml: cannot be read"):
        load_config(tmp_path / "gone.toml")
    (tmp_path / "bad.toml").write_text("[template\n")
    with pytest.raises(InputError, match=r"--config .*bad\.toml: not valid TOML"):
        load_config(tmp_path / "bad.toml")


def test_what_is_given_goes_over_what_holds_already(tmp_path):
    file = tmp_path / "given.toml"
    file.write_text("[output]\nlevels = 4\n[template]\nradius = 3\n")
    base = {"output": {"chunk": 64, "levels": 2, "layer": 8}}
    found = load_config(file, ["output.layer=16"], base)
    assert (found.output.chunk, found.output.levels, found.output.layer) == (64, 4, 16)
    assert found.template.radius == 3
    assert base == {"output": {"chunk": 64, "levels": 2, "layer": 8}}


def test_what_holds_already_is_not_changed_by_an_elastix_parameter():
    base = {"refine": {"elastix": {"NumberOfResolutions": 2}}}
    before = copy.deepcopy(base)
    found = load_config(None, ["refine.elastix.NumberOfResolutions=5"], base)
    assert found.refine.elastix["NumberOfResolutions"] == 5
    assert base == before
