from pathlib import Path

import msgspec
import pytest

from hourglass.training.config import AutoConfig, RunConfig, load_config, write_config
from hourglass.training.errors import RunError
from hourglass.training.models import VARIANTS
from hourglass.training.models.associative import AssociativeConfig
from hourglass.training.models.denoising import DenoisingConfig
from hourglass.training.models.linear import LinearConfig
from hourglass.training.presets import DEFAULT, PRESETS, preset_of, presets_of, title

NEEDED = {"data": "table.csv", "name": "pump"}


def toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(text)
    return path


def test_what_is_not_said_has_the_documented_default() -> None:
    config = load_config(None, NEEDED)
    assert (config.models, config.label, config.ignore, config.alpha, config.delta) == (
        "models",
        None,
        (),
        None,
        0.05,
    )
    assert (config.uncertified, config.seed, config.threads, config.force) == (False, 0, 1, False)
    assert config.model == PRESETS[DEFAULT]


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_a_complete_model_as_a_flag_and_in_the_file(
    tmp_path: Path, preset: str
) -> None:
    assert load_config(None, {**NEEDED, "preset": preset}).model == PRESETS[preset]
    path = toml(tmp_path, f'preset = "{preset}"\n')
    assert load_config(path, NEEDED).model == PRESETS[preset]
    config = load_config(path, {**NEEDED, "epochs": 7})
    assert load_config(toml(tmp_path, write_config(config)), {}) == config
    assert "preset" not in write_config(config)


@pytest.mark.parametrize("preset", PRESETS)
def test_fields_of_the_model_override_those_of_the_preset(tmp_path: Path, preset: str) -> None:
    expected = PRESETS[preset]
    expected = msgspec.structs.replace(
        expected, fit=msgspec.structs.replace(expected.fit, learning_rate=0.5)
    )
    fields = "[model.fit]\nlearning_rate = 0.5\n"
    assert load_config(toml(tmp_path, f'preset = "{preset}"\n{fields}'), NEEDED).model == expected
    assert load_config(toml(tmp_path, fields), {**NEEDED, "preset": preset}).model == expected


def test_a_preset_asked_for_by_a_flag_takes_the_place_of_the_file_s_model(tmp_path: Path) -> None:
    path = toml(tmp_path, '[model]\nvariant = "associative"\nwidth = 8\n')
    assert load_config(path, {**NEEDED, "preset": "accurate"}).model == PRESETS["accurate"]
    path = toml(tmp_path, 'preset = "fast"\n[model.fit]\nlearning_rate = 0.5\n')
    assert load_config(path, {**NEEDED, "preset": "accurate"}).model == PRESETS["accurate"]
    assert load_config(path, {**NEEDED, "variant": "linear"}).model == LinearConfig()


def test_presets_and_variants_have_no_name_in_common() -> None:
    assert not {*PRESETS, "auto", "all"} & set(VARIANTS)
    assert DEFAULT in PRESETS


def test_a_model_is_called_by_its_preset_as_long_as_it_is_that_one_unchanged() -> None:
    assert preset_of(PRESETS["accurate"]) == "accurate"
    assert title(PRESETS["accurate"]).startswith("accurate (")
    assert title(LinearConfig()) == "linear"
    assert preset_of(load_config(None, {**NEEDED, "preset": "accurate", "epochs": 3}).model) is None


def test_the_size_of_the_memory_can_be_said_where_there_is_one(tmp_path: Path) -> None:
    config = load_config(None, {**NEEDED, "variant": "associative", "memory": 0})
    # mixtures, too, are made of averages of rows
    nothing = AssociativeConfig(components=0, joint_components=0, hidden_components=0)
    assert config.model == nothing
    path = toml(tmp_path, "[model]\nmemory = 9\nmemory_rows = true\n")
    assert load_config(path, {**NEEDED, "memory": 0}).model == nothing
    assert load_config(None, {**NEEDED, "memory": 5}).model == AssociativeConfig(memory=5)
    for variant in ("linear", "auto"):
        with pytest.raises(
            RunError, match=f"memory is for associative, which remembers rows; {variant} does not"
        ):
            load_config(None, {**NEEDED, "variant": variant, "memory": 0})


def test_a_preset_can_be_among_the_candidates(tmp_path: Path) -> None:
    path = toml(tmp_path, '[model]\nvariant = "auto"\nvariants = ["linear", "fast"]\n')
    config = load_config(path, NEEDED).model
    assert isinstance(config, AutoConfig)
    assert config.variants == ("linear", "fast")


def test_every_flag_can_stand_in_the_file_and_a_flag_overrides_it(tmp_path: Path) -> None:
    path = toml(
        tmp_path,
        'data = "a.csv"\nname = "one"\nmodels = "m"\nlabel = "y"\nignore = ["id"]\nalpha ='
        " 0.1\ndelta = 0.2\nuncertified = true\nseed = 3\nforce = true\n[model]\nvariant ="
        ' "linear"\n[model.fit]\nepochs = 4\n',
    )
    config = load_config(path, {})
    assert (config.data, config.name, config.models, config.label, config.ignore) == (
        "a.csv",
        "one",
        "m",
        "y",
        ("id",),
    )
    assert (config.alpha, config.delta, config.uncertified, config.seed, config.force) == (
        0.1,
        0.2,
        True,
        3,
        True,
    )
    assert isinstance(config.model, LinearConfig)
    assert config.model.fit.epochs == 4
    flags = {
        "data": "b.csv",
        "name": "two",
        "alpha": 0.05,
        "seed": 9,
        "ignore": ["when"],
        "epochs": 7,
    }
    config = load_config(path, flags)
    assert (config.data, config.name, config.alpha, config.seed, config.ignore) == (
        "b.csv",
        "two",
        0.05,
        9,
        ("when",),
    )
    assert (config.models, config.label) == ("m", "y")
    assert isinstance(config.model, LinearConfig)
    assert config.model.fit.epochs == 7


def test_another_variant_leaves_the_settings_of_the_old_one_behind(tmp_path: Path) -> None:
    path = toml(tmp_path, '[model]\nvariant = "denoising"\nnoise = 0.9\n')
    assert load_config(path, {**NEEDED, "variant": "linear"}).model == LinearConfig()
    assert load_config(path, {**NEEDED, "variant": "denoising"}).model == DenoisingConfig(noise=0.9)


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_setting_of_the_loop_leaves_the_member_its_others(tmp_path: Path, variant: str) -> None:
    path = toml(tmp_path, f'[model]\nvariant = "{variant}"\n[model.fit]\nlearning_rate = 0.5\n')
    config = load_config(path, NEEDED).model
    expected = VARIANTS[variant]()
    assert config == msgspec.structs.replace(
        expected, fit=msgspec.structs.replace(expected.fit, learning_rate=0.5)
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_config_reads_back_as_it_was_written(tmp_path: Path, variant: str) -> None:
    config = load_config(
        None,
        {
            **NEEDED,
            "variant": variant,
            "label": "y",
            "ignore": ["a", "b"],
            "alpha": 0.02,
            "epochs": 3,
        },
    )
    config = msgspec.structs.replace(config, units={"heat": "°C"})
    assert load_config(toml(tmp_path, write_config(config)), {}) == config


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('colour = "red"', "unknown field 'colour'"),
        ('[model]\nvariant = "denoising"\ncolour = 1', "unknown field 'colour' - at 'model'"),
        ("[model.fit]\ncolour = 1", "unknown field 'colour' - at 'model.fit'"),
        (
            '[model]\nvariant = "crystal ball"',
            "there is no variant 'crystal ball'; the variants are plain, linear, ",
        ),
        ("[model]\nvariant = 3", "there is no variant 3; the variants are plain, linear, "),
        ('[model]\nvariant = "auto"\nvariants = ["magic"]', "there is no variant 'magic'"),
        ('preset = "best"', "there is no preset 'best'; the presets are fast, balanced, accurate"),
        ("preset = []", r"there is no preset \[\]; the presets are"),
        (
            'preset = "fast"\n[model]\nvariant = "linear"',
            r"expected a preset or a variant, got both \(preset 'fast', variant 'linear'\)",
        ),
        ("alpha = 0.0", "alpha must be above 0 and at most 0.5, got 0"),
        ("alpha = 0.51", "alpha must be above 0 and at most 0.5, got 0.51"),
        ("alpha = nan", "alpha must be above 0 and at most 0.5, got nan"),
        ('alpha = "much"', "Expected 'float | null', got 'str' - at 'alpha'"),
        ("delta = -1.0", "delta must be above 0 and at most 0.5, got -1"),
        ("seed = -1", "seed from 0"),
        ("seed = 99999999999999999999", "seed"),
        ("threads = 0", "threads must be from 1 to 1024"),
        ("threads = 1000000", "threads must be from 1 to 1024"),
        ('name = "Pump 1"', "name must be lower-case letters"),
        ('name = "../up"', "name must be lower-case letters"),
        ("ignore = 3", "at 'ignore'"),
        ("model = 3", r"expected a table \[model\], got model = 3"),
        ("[model]\nfit = 3", r"expected a table \[fit\], got fit = 3"),
        ("[model.fit]\nepochs = 0", "epochs and steps must be at least 1"),
        ("[model.fit]\nlearning_rate = 0.0", "learning_rate must be above 0"),
        ('[model]\nvariant = "denoising"\nnoise = -0.1', "noise must not be negative"),
        (
            '[model]\nvariant = "denoising"\nmask_rate = 1.5',
            "mask_rate and swap_rate must lie between 0 and 1",
        ),
        ("[split]\nvalidation = 0.6\ncalibration = 0.4", "must be above 0 and below 1 together"),
        ("[split]\ncalibration_cap = 0", "must be at least 1"),
        ("[split]\nseed = -1", r"split.seed must be from 0 to 2\^64 - 1, got -1"),
        ("this is no TOML", "is not TOML"),
    ],
)
def test_what_is_wrong_in_the_file_is_named_in_one_sentence(
    tmp_path: Path, text: str, sentence: str
) -> None:
    with pytest.raises(RunError, match=sentence) as refused:
        load_config(
            toml(tmp_path, text), {key: value for key, value in NEEDED.items() if key not in text}
        )
    assert "\n" not in str(refused.value)


def test_a_file_that_is_absent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"absent\.toml cannot be read: No such file"):
        load_config(tmp_path / "absent.toml", NEEDED)


@pytest.mark.parametrize("field", NEEDED)
def test_data_and_name_are_needed(field: str) -> None:
    with pytest.raises(RunError, match=f"{field} is needed"):
        load_config(None, {key: value for key, value in NEEDED.items() if key != field})


def test_flags_are_left_as_they_were() -> None:
    flags = {**NEEDED, "variant": "linear", "epochs": 3}
    assert isinstance(load_config(None, flags), RunConfig)
    assert flags == {**NEEDED, "variant": "linear", "epochs": 3}


def test_presets_of_rows_and_of_windows_have_the_same_names() -> None:
    assert presets_of(1) is PRESETS
    assert list(presets_of(2)) == list(presets_of(30)) == list(PRESETS)
    for name, model in presets_of(30).items():
        assert preset_of(model) == name
        assert model not in PRESETS.values()


def test_a_preset_is_that_of_windows_where_rows_come_in_order() -> None:
    timed = {**NEEDED, "time": "when", "preset": "fast"}
    assert load_config(None, timed).model == presets_of(30)["fast"]
    assert load_config(None, {**timed, "window": 1}).model == PRESETS["fast"]
    assert load_config(None, {**timed, "group": "pump"}).model == PRESETS["fast"]
    assert load_config(None, {**NEEDED, "time": "when"}).model == presets_of(30)[DEFAULT]
