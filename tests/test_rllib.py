"""The examples on RLlib learn what two processes sample; ``make integrations`` installs RLlib, which pins gymnasium."""

import os
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def ray():
    reason = "RLlib is not installed here; make integrations runs this where it is"
    pytest.importorskip("ray.rllib", reason=reason, exc_type=ImportError)
    import ray

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the processes cannot import it
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR")
    yield ray
    ray.shutdown()


def where_and_what(runner):
    """Process, seed and number of the present episode of what an env runner plays."""
    env = runner.env.unwrapped.envs[0].unwrapped
    session = getattr(env, "par_env", env).session
    return os.getpid(), int(session.seeds[0]), int(session.episodes[0])


@pytest.mark.filterwarnings("ignore")  # of Ray's own making
@pytest.mark.parametrize(
    ("name", "policies"), [("rllib_execution", ["default_policy"]), ("rllib_market", ["executor", "maker"])]
)
def test_ppo_learns_from_two_processes(ray, name, policies):
    algorithm = runpy.run_path(str(EXAMPLES / f"{name}.py"))["configured"](batch=256).build_algo()
    before = algorithm.get_weights(policies)
    assert sorted(before) == policies
    results = [algorithm.train() for _ in range(2)]
    after = algorithm.get_weights(policies)
    for result in results:
        sampled = result["env_runners"]
        assert sampled["num_env_steps_sampled"] >= 256 and sampled["num_episodes"] > 0
        assert np.isfinite(sampled["episode_return_mean"]) and sampled["episode_return_min"] < 0
        assert sampled["episode_len_max"] <= 64
        for policy in policies:
            assert np.isfinite(result["learners"][policy]["total_loss"])
    for policy in policies:
        assert any(np.any(before[policy][key] != after[policy][key]) for key in before[policy]), policy
        assert all(np.isfinite(after[policy][key]).all() for key in after[policy]), policy
    processes, seeds, episodes = zip(
        *algorithm.env_runner_group.foreach_env_runner(where_and_what, local_env_runner=False), strict=True
    )
    algorithm.stop()
    assert len({*processes, os.getpid()}) == 3 and min(episodes) > 0
    assert sorted(seeds) == [1, 2]  # so that they do not play the same markets
