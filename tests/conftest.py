"""What every test runs under; set before anything imports jax."""

import atexit
import gc
import os
import shutil
import tempfile

# The suite is written for a CPU and exact matrix products; set JAX_PLATFORMS yourself to try another device.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "highest")
os.environ.setdefault("MPLBACKEND", "Agg")
# Tests leave nothing in the user's folders.
os.environ.setdefault("RESETTA_COMPILATION_CACHE", "off")
# The suite compiles hundreds of small programs and runs each for milliseconds: unoptimised code halves
# its time, and XLA's older way of writing fusions, which compiles faster, halves it again.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false")
# What one test compiled, the others find, in whichever worker and in the processes that tests start.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _compiled = tempfile.mkdtemp(prefix="resetta-compiled-")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
    atexit.register(shutil.rmtree, _compiled, ignore_errors=True)

# Where Python is told to keep no bytecode, every process that a test starts would compile all libraries anew.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
    os.environ["PYTHONPYCACHEPREFIX"] = os.path.join(os.environ["JAX_COMPILATION_CACHE_DIR"], "bytecode")

from hypothesis import settings

# The same examples on every run, and no deadline: an example's first run compiles.
settings.register_profile("resetta", derandomize=True, deadline=None, database=None, max_examples=20)
settings.load_profile("resetta")


def pytest_collection_finish():
    """What is imported stays: the garbage collector need not look through its million objects each time."""
    gc.collect()
    gc.freeze()
