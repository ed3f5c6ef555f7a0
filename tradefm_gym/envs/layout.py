"""Which blocks an agent sees, in which order and form: one flat vector, or a dict of the blocks by name."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from tradefm_gym.arguments import one_of, shortened
from tradefm_gym.envs.observation import Block, block_slices, bounds

FORMS = ("flat", "dict")


class Layout:
    """The observation of one role.

    Args:
        usual: blocks that the role's kernel fills, all of which are seen where none are chosen.
        optional: blocks that are seen only when they are chosen.
        form: "flat" or "dict".
        chosen: names of blocks, in the order in which they are to be seen; None for the usual ones.
        stacked: a block of several lines (k, F) that comes last, and its shape; None for none.

    Attributes:
        blocks: those that are seen.
        low: (obs,) float32, the flat vector's lowest values.
        high: (obs,) float32.
        space: what a face declares.
        is_usual: whether the flat vector is what the kernel fills.

    Raises:
        ValueError: if a form or block does not exist or is chosen twice.
    """

    def __init__(
        self,
        usual: tuple[Block, ...],
        optional: tuple[Block, ...],
        form: Any,
        chosen: Any,
        stacked: tuple[Block, tuple[int, int]] | None,
    ):
        self.form = one_of("observation", form, FORMS)
        known = {block.name: block for block in (*usual, *optional)}
        names = [block.name for block in usual] if chosen is None else _checked(chosen, known)
        self.blocks = (*(known[name] for name in names), *(() if stacked is None else (stacked[0],)))
        self.shapes: dict[str, tuple[int, ...]] = {block.name: (block.size,) for block in self.blocks}
        if stacked is not None:
            self.shapes[stacked[0].name] = stacked[1]
        self.low, self.high = bounds(self.blocks)
        self._slices = block_slices(self.blocks)
        self.is_usual, self._from = self.blocks == usual, block_slices(usual)
        self.space: spaces.Box | spaces.Dict = spaces.Box(self.low.copy(), self.high.copy(), dtype=np.float32)
        if self.form == "dict":
            self.space = spaces.Dict({name: self._box(name) for name in self.shapes})

    def compose(self, filled: np.ndarray, see: Callable[[str], np.ndarray]) -> np.ndarray:
        """The flat vectors (N, obs) float32, clipped to the space.

        Args:
            filled: (N, usual) float32 of the role's kernel.
            see: gives a block (N, size) that the kernel does not fill, by name.
        """
        out = np.empty((len(filled), len(self.low)), np.float32)
        for name, place in self._slices.items():
            out[:, place] = filled[:, self._from[name]] if name in self._from else see(name)
        return np.clip(out, self.low, self.high, out=out)

    def present(self, observation: np.ndarray) -> Any:
        """Flat vectors (..., obs) as the space has them; a dict's arrays are copies."""
        if self.form == "flat":
            return observation
        outer = observation.shape[:-1]
        return {
            name: observation[..., place].reshape(*outer, *self.shapes[name]).copy()
            for name, place in self._slices.items()
        }

    def _box(self, name: str) -> spaces.Box:
        place, shape = self._slices[name], self.shapes[name]
        return spaces.Box(self.low[place].reshape(shape), self.high[place].reshape(shape), dtype=np.float32)


def _checked(chosen: Any, known: Mapping[str, Block]) -> list[str]:
    if isinstance(chosen, str) or not isinstance(chosen, Sequence) or not chosen:
        raise ValueError(f"blocks is {shortened(chosen)}; it must be None or a list of names of blocks")
    for name in chosen:
        if not isinstance(name, str) or name not in known:
            raise ValueError(f"blocks has {shortened(name)}; known are {', '.join(known)}")
        if list(chosen).count(name) > 1:
            raise ValueError(f"blocks has {name!r} {list(chosen).count(name)} times; it must have each once")
    return list(chosen)
