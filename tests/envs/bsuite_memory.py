"""Plays bsuite's own memory chain and writes `bsuite_memory.json`, for the tests to compare with.

uv run --no-project --with bsuite==0.3.6 python tests/envs/bsuite_memory.py
"""

import json
from pathlib import Path


def main():
    from bsuite.environments.memory_chain import MemoryChain

    episodes = []
    for length in (1, 2, 7):
        for seed in range(4):
            chain = MemoryChain(length, num_bits=3, seed=seed)
            step = chain.reset()
            episode = {
                "length": length,
                "context": chain._context.tolist(),
                "query": int(chain._query),
                "observations": [step.observation.ravel().tolist()],
                "rewards": [],
            }
            while not step.last():
                step = chain.step(1)
                episode["observations"].append(step.observation.ravel().tolist())
                episode["rewards"].append(step.reward)
            episodes.append(episode)
    Path(__file__).with_suffix(".json").write_text(json.dumps(episodes) + "\n")


if __name__ == "__main__":
    main()
