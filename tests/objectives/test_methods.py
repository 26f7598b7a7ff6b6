"""Methods as an experiment file names them: which stages come of their settings."""

import pytest
from pydantic import ValidationError

from brainrdl.objectives import (
    DeepSupervision,
    Distillation,
    Hints,
    LinearCKA,
    RDLObjective,
    RelationalDistillation,
    SimilarityPreserving,
    adamw,
)
from brainrdl.objectives.method import MethodContext, MethodSettings
from brainrdl.objectives.methods import METHODS
from brainrdl.schedule import halving
from brainrdl.sources import NetworkTeacher


@pytest.fixture
def stages_of(teacher):
    asked = []

    def source(dissimilarity):
        asked.append(dissimilarity)
        return NetworkTeacher(teacher.network, ["low", "high"], dissimilarity)

    def stages(method, **settings):
        read = METHODS[method].model_validate({"method": method, **settings})
        # An experiment file writes every default out, and reads it back.
        assert METHODS[method].model_validate(read.model_dump(mode="json")) == read
        asked.clear()
        made = read.stages(MethodContext(6, adamw(), halving(1.0, 2), source, lambda: teacher.network))
        return made, list(asked)

    return stages


def test_baseline(stages_of):
    (stage,), asked = stages_of("baseline")
    assert (stage.objectives, stage.epochs, stage.task_weight, stage.initial_weights) == ((), 6, 1.0, None)
    assert stage.learning_rate(2, 6) == 0.5
    assert asked == []


def test_finetuning(stages_of, teacher):
    (stage,), _ = stages_of("finetuning")
    assert stage.objectives == ()
    assert stage.initial_weights.keys() == teacher.network.state_dict().keys()


def test_rdl(stages_of):
    settings = {"layers": {"high": "high", "low": {"low": 0.5}}, "pairs": 12, "alpha": 4.0}
    (stage,), asked = stages_of("rdl", dissimilarity="cosine", discrepancy="correlation", **settings)
    (objective,) = stage.objectives
    assert isinstance(objective, RDLObjective)
    assert asked == ["cosine"]
    assert (objective.pairs, objective.dissimilarity, objective.discrepancy) == (12, "cosine", "correlation")
    assert objective.mapping == {"high": {"high": 1.0}, "low": {"low": 0.5}}
    assert [stage.alphas[0](t, 4) for t in range(4)] == [4.0, 3.0, 2.0, 1.0]  # the paper's decay
    assert METHODS["rdl"].model_validate(settings).student_layers() == ("high", "low")
    assert METHODS["rdl"].model_validate(settings).teacher_layers() == ("high", "low")


def test_rdl_defaults_are_the_papers(stages_of):
    (stage,), asked = stages_of("rdl", layers={"high": "high"})
    assert asked == ["euclidean"]
    assert (stage.objectives[0].discrepancy, stage.objectives[0].normalization) == ("mse", "image")


def test_alpha_can_be_warmed_up_and_constant(stages_of):
    (stage,), _ = stages_of("rdl", layers={"high": "high"}, alpha=3.0, decay="constant", warm_up=2)
    assert [stage.alphas[0](t, 6) for t in range(4)] == pytest.approx([1, 2, 3, 3])


def test_deep_supervision_decays_as_printed_or_linearly(stages_of):
    (stage,), asked = stages_of("deep_supervision", layers=["low"], alpha=2.0)
    assert isinstance(stage.objectives[0], DeepSupervision)
    assert stage.alphas[0](1, 4) == pytest.approx(0.2)
    (stage,), _ = stages_of("deep_supervision", layers={"low": 0.5}, alpha=2.0, decay="linear")
    assert stage.alphas[0](1, 4) == 1.5
    assert asked == []


def test_hints_are_two_stages(stages_of):
    (first, main), _ = stages_of("hints", layers={"low": "low"}, hint_epochs=3)
    assert isinstance(first.objectives[0], Hints)
    assert (first.task_weight, first.epochs, first.name) == (0.0, 3, "hints")
    assert (main.task_weight, main.epochs, main.objectives, main.name) == (1.0, 6, (), "main")


def test_distillation(stages_of):
    (stage,), _ = stages_of("distillation", temperature=2.0, alpha=0.7)
    assert isinstance(stage.objectives[0], Distillation)
    assert stage.objectives[0].temperature == 2.0
    assert stage.alphas[0](5, 6) == 0.7


def test_rkd(stages_of):
    (stage,), _ = stages_of("rkd", layers={"high": "high"}, alpha=3.0)
    (objective,) = stage.objectives
    assert isinstance(objective, RelationalDistillation)
    assert objective.weights == {"distance": 1.0, "angle": 2.0}  # the paper's
    assert stage.alphas[0](5, 6) == 3.0
    (stage,), _ = stages_of("rkd", layers={"high": "high"}, distance=25.0, angle=0.0)
    assert stage.objectives[0].weights == {"distance": 25.0, "angle": 0.0}


def test_similarity_preserving(stages_of):
    (stage,), _ = stages_of("similarity_preserving", layers={"high": "low"}, alpha=3000, decay="linear")
    assert isinstance(stage.objectives[0], SimilarityPreserving)
    assert stage.objectives[0].mapping == {"high": "low"}
    assert stage.alphas[0](3, 6) == 1500


@pytest.mark.parametrize("unbiased", [None, True])
def test_cka(stages_of, unbiased):
    (stage,), _ = stages_of("cka", layers={"high": "high"}, **({} if unbiased is None else {"unbiased": unbiased}))
    assert isinstance(stage.objectives[0], LinearCKA)
    assert stage.objectives[0].unbiased is bool(unbiased)
    assert (stage.task_weight, stage.alphas[0](5, 6)) == (1.0, 1.0)


@pytest.mark.parametrize("method", ["rkd", "similarity_preserving", "cka"])
def test_a_method_that_maps_layers_says_which(method):
    settings = METHODS[method].model_validate({"layers": {"high": "low", "low": "high"}})
    assert settings.student_layers() == ("high", "low")
    assert settings.teacher_layers() == ("low", "high")


def test_combined(stages_of):
    parts = [
        {"method": "hints", "layers": {"low": "low"}, "hint_epochs": 2},
        {"method": "rdl", "layers": {"high": "high"}, "alpha": 4.0},
        {"method": "distillation", "alpha": 0.5},
        {"method": "rkd", "layers": {"high": "high"}, "alpha": 0.25},
        {"method": "finetuning"},
    ]
    (first, main), _ = stages_of("combined", parts=parts)
    assert first.name == "hints"
    assert first.initial_weights is not None, "what is trained first starts from the teacher's weights"
    assert main.initial_weights is None, "and the teacher's weights do not undo it"
    assert [type(objective) for objective in main.objectives] == [RDLObjective, Distillation, RelationalDistillation]
    assert [alpha(3, 6) for alpha in main.alphas] == [2.0, 0.5, 0.25]
    settings = METHODS["combined"].model_validate({"parts": parts})
    assert settings.student_layers() == ("low", "high", "high")
    assert settings.teacher_layers() == ("low", "high", "high")


def test_images_of_ones_own_are_not_counted_where_deformed_ones_are_learned_from():
    with pytest.raises(ValidationError, match="n_train counts the student's own images"):
        METHODS["baseline"].model_validate({"method": "baseline", "data": "deformed", "n_train": 5})


@pytest.mark.parametrize("key", ["data", "n_train", "training", "student"])
def test_a_part_has_no_training_of_its_own(stages_of, key):
    own = {"data": "deformed", "n_train": 5, "training": {"epochs": 3}, "student": {"weights": "x"}}[key]
    parts = [{"method": "baseline", key: own}, {"method": "finetuning"}]
    with pytest.raises(ValidationError, match=f"'{key}' stands in part 'baseline', .* set it beside parts"):
        stages_of("combined", parts=parts)


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("rdl", {"layers": {}}, "at least 1 item"),
        ("rdl", {"layers": {"a": "b"}, "pairs": 0}, "greater than or equal to 1"),
        ("rdl", {"layers": {"a": "b"}, "alpha": -1}, "greater than or equal to 0"),
        ("rdl", {"layers": {"a": "b"}, "alpha": float("nan")}, "finite"),
        ("rdl", {"layers": {"a": "b"}, "dissimilarity": "l1"}, "'euclidean', 'sqeuclidean', 'correlation' or 'cosine'"),
        ("rdl", {"layers": {"a": "b"}, "pairs": 3, "images": 3}, "give either pairs or images"),
        (
            "rdl",
            {"layers": {"a": "b"}, "discrepancy": "cosine", "normalization": "image"},
            "is defined for 'mse' alone",
        ),
        ("hints", {"layers": {"a": "b"}, "hint_epochs": 0}, "greater than or equal to 1"),
        ("distillation", {"temperature": 0}, "greater than 0"),
        ("rkd", {"layers": {"a": "b"}, "angle": -1}, "greater than or equal to 0"),
        ("rkd", {"layers": {"a": "b"}, "distance": float("inf")}, "finite"),
        ("rkd", {"layers": {"a": "b"}, "distance": 0, "angle": 0}, "are both 0; give one of them"),
        ("similarity_preserving", {"layers": {}}, "at least 1 item"),
        ("cka", {"layers": {"a": {"b": 1.0}}}, "valid string"),
        ("combined", {"parts": [{"method": "baseline"}]}, "at least 2 items"),
        ("combined", {"parts": [{"method": "rld"}, {"method": "baseline"}]}, "'rld' found using 'method'"),
    ],
)
def test_wrong_settings(stages_of, method, settings, message):
    with pytest.raises(ValidationError, match=message):
        stages_of(method, **settings)


def test_a_method_that_does_not_say_its_stages_is_told(teacher):
    class Halfway(MethodSettings):
        """Of someone who forgot."""

    context = MethodContext(6, adamw(), halving(1.0, 2), lambda dissimilarity: teacher, lambda: teacher.network)
    with pytest.raises(TypeError, match="Halfway does not say what its stages are"):
        Halfway(method="halfway").stages(context)


def test_who_needs_a_teacher():
    assert {name for name, settings in METHODS.items() if not settings.needs_teacher} == {
        "baseline",
        "deep_supervision",
    }
