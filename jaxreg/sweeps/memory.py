"""Finished chunks of a sweep without a store: what `Store` does, kept in memory."""

import numpy as np


class Memory:
    """Plans and finished chunks, as long as the process lives."""

    def __init__(self):
        self.cells: dict[tuple, tuple[str, int]] = {}
        self.tasks: dict[str, list[tuple]] = {}
        self.group: dict[str, str] = {}
        self._done: dict[str, dict[str, np.ndarray]] = {}
        self._carries: dict[str, tuple[int, list]] = {}
        self._plans = 0

    def extend(self, tasks: list[tuple[str, list[tuple]]]) -> list[str]:
        """Add a plan: the cells of each task, by group."""
        ids = [f"{self._plans:04d}-{i:06d}" for i in range(len(tasks))]
        self._plans += 1
        for task, (group, cells) in zip(ids, tasks, strict=True):
            self.tasks[task], self.group[task] = cells, group
            self.cells |= {cell: (task, row) for row, cell in enumerate(cells)}
        return ids

    def finished(self, task: str) -> bool:
        """Whether a task has its outputs."""
        return task in self._done

    def write(self, task: str, outputs: dict[str, np.ndarray]) -> None:
        """Keep a task's outputs."""
        self._done[task] = outputs

    def read(self, task: str, names=None) -> dict[str, np.ndarray]:
        """The outputs of a task."""
        outputs = self._done[task]
        return outputs if names is None else {name: outputs[name] for name in names}

    def write_carry(self, task: str, step: int, leaves: list[np.ndarray]) -> None:
        """Keep how far a task has come."""
        self._carries[task] = step, leaves

    def read_carry(self, task: str):
        """How far a task has come, or None."""
        return self._carries.get(task)

    def drop_carry(self, task: str) -> None:
        """Forget it."""
        self._carries.pop(task, None)

    def recall(self, key: str):
        """Nothing was chosen in an earlier run."""

    def remember(self, key: str, value) -> None:
        """Nothing outlives the process."""

    def describe(self, space, outputs, attrs, coords=None) -> None:
        """Nothing to describe for others."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass
