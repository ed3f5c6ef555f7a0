"""Compiled or not, the same things happen."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from quiet_flow import quiet_bank

from tradefm_gym.envs.execution import ExecutionRole
from tradefm_gym.envs.session import TradingSession
from tradefm_gym.flow.zero_intelligence import ZeroIntelligenceFlow

BANK = quiet_bank([(9_998, 300), (9_996, 200), (9_990, 500)], [(10_001, 300), (10_004, 200), (10_011, 500)])
DECISIONS = 8


def episode(maker_fee=0):
    """Hash of tape, accounts and rewards of two markets under random actions."""
    flow = ZeroIntelligenceFlow(2, bank=BANK)
    role = ExecutionRole(decisions=DECISIONS, quantity=400)
    session = TradingSession(2, role, flow, maker_fee=maker_fee, taker_fee=3)
    session.seed(np.ones(2, bool), np.arange(2, dtype=np.uint64))
    session.reset()
    actions = np.random.default_rng(1).uniform(-1, 1, (DECISIONS, 2, 2)).astype(np.float32)
    total = hashlib.sha256()
    for action in actions:
        result = session.step(action)
        total.update(result.terms.tobytes())
    assert not session.running.any()
    for row in range(2):
        total.update(session.tape_hash(row).encode())
    for name in session.market.accounts.dtype.names:
        total.update(np.ascontiguousarray(session.market.accounts[name]).tobytes())
    return total.hexdigest()


@pytest.mark.parametrize("maker_fee", [0, -2])
def test_an_episode_is_the_same_with_and_without_the_compiler(maker_fee):
    off = os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "0" if off else "1"}
    call = f"from test_compiler_off import episode; print(episode({maker_fee}))"
    folder = Path(__file__).parent
    result = subprocess.run([sys.executable, "-c", call], env=environment, cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split()[-1] == episode(maker_fee)
