"""What is imported when: the package is light, and the command line answers before JAX is loaded."""

import subprocess
import sys

import pytest

HEAVY = (
    "jax",
    "flax",
    "gymnax",
    "distrax",
    "orbax",
    "optax",
    "brax",
    "matplotlib",
    "decord",
    "tensorboardX",
    "wandb",
)


def loaded(code: str) -> set[str]:
    """The packages of `HEAVY` that are loaded after `code` has run in a fresh interpreter."""
    report = f"\nimport sys\nprint('LOADED', *(m for m in {HEAVY!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


def test_this_check_sees_what_is_loaded():
    assert loaded("import tensorboardX") == {"tensorboardX"}


def test_importing_the_package_is_light():
    assert loaded("import resetta") == set()


def test_importing_the_cores_brings_no_environment_and_no_logger():
    heavy = loaded("import resetta.cores, resetta.envs")
    assert not heavy & {"brax", "decord", "matplotlib", "tensorboardX", "wandb", "distrax", "orbax"}


@pytest.mark.parametrize(
    "argvs",
    [
        [["--help"], ["train", "--help"], ["list"], ["list", "envs"], ["trian"]],
        [
            ["train", "core=nope"],
            ["train", "env=nope"],
            ["train", "nope=1"],
            ["train", "lr=fast"],
            ["train", "num_envs=30", "minibatches=4"],
            ["train", "run_dir=/dev/null"],
            ["train", "--cfg"],
            ["evaluate"],
            ["evaluate", "run_dir=/nowhere"],
            ["render", "run_dir=/nowhere"],
            ["report", "run_dir=/nowhere"],
        ],
    ],
    ids=["help", "mistakes"],
)
def test_the_command_line_answers_without_loading_anything_heavy(argvs):
    assert (
        loaded(f"from resetta.experiments.cli import main\nfor argv in {argvs!r}:\n    main(argv)") == set()
    )


def test_help_does_without_hydra():
    code = "from resetta.experiments.cli import main\nmain(['train', '--help'])\n"
    code += "import sys\nassert 'hydra' not in sys.modules"
    assert loaded(code) == set()
