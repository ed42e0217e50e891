"""Progress over the configurations of a sweep: a bar for people who watch, plain lines for log files."""

import math
import sys
import time
import warnings
from collections.abc import Mapping

import numpy as np

_SECONDS_BETWEEN_LINES = 1.0


class Bar:
    """A bar in a terminal and in a notebook (tqdm's); plain lines on stderr where it is a file, or tqdm is missing.

    Args:
        total: how many there are to make.
        show: whether to show anything; a name is the metric whose least value so far is shown with it.
        unit: what is made.
        done: how many were made earlier; they do not count in the rate.
    """

    def __init__(self, total: int, show: bool | str, unit: str = "model", done: int = 0):
        self._total, self._show, self._unit, self._first = total, show, unit, done
        self._done, self._start, self._line = done, time.perf_counter(), -math.inf
        self._best, self._facts, self._told = None, {}, done
        self._begun = None
        self._tqdm = _tqdm(total=total, initial=done, unit=unit) if show else None

    def update(self, count: int, best=None, **facts) -> None:
        """`count` more are made.

        Args:
            count: how many.
            best: the least value of the metric among them, or (value, where), `where` a configuration's dict or a text.
            **facts: what else to show from now on, such as `rung=2`.
        """
        self._done += count
        self.seen(best)
        self._facts |= facts
        if self._tqdm is not None:
            self._tqdm.set_postfix_str(self._extra(), refresh=False)
            self._tqdm.update(count)
        elif self._show and (self._done >= self._total or time.perf_counter() - self._line >= _SECONDS_BETWEEN_LINES):
            self._print()
        if self._begun is None:
            self._begun = self._done, time.perf_counter()

    def seen(self, best) -> None:
        """A value of the metric, as in `update`, perhaps of an earlier call."""
        value, where = best if isinstance(best, tuple) else (best, None)
        if value is not None and not math.isnan(value) and (self._best is None or value < self._best[0]):
            self._best = (float(value), _where(where))

    def _print(self) -> None:
        self._line, self._told = time.perf_counter(), self._done
        made, seconds = self._done - self._first, self._line - self._start
        speed = made, seconds
        if self._begun is not None and self._done > self._begun[0]:  # without the first, which was compiled for,
            since = self._done - self._begun[0], self._line - self._begun[1]
            speed = since if since[1] > seconds / 10 else speed  # unless the rest ran beside it
        parts = [f"{self._done}/{self._total} {self._unit}s"]
        if self._done >= self._total > 0 < made or self._begun is not None:
            rate, left = speed[0] / speed[1], self._total - self._done
            parts.append(f"{rate:.3g} {self._unit}s/s")
            parts.append(f"{_clock(left / rate)} left" if left > 0 else f"took {_clock(seconds)}")
        extra = self._extra()
        print(f"sweep: {', '.join(parts)}{'; ' * bool(extra)}{extra}", file=sys.stderr, flush=True)

    def _extra(self) -> str:
        parts = [f"{name} {value}" for name, value in self._facts.items()]
        if self._best is not None:
            value, where = self._best
            name = f"{self._show} " if isinstance(self._show, str) else ""
            parts.append(f"best {name}{value:.4g}{' at ' * bool(where)}{where}")
        return "; ".join(parts)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._tqdm is not None:
            self._tqdm.close()
        elif self._show and self._told < self._done:
            self._print()  # the last word of a sweep that ends early


def tell(text: str) -> None:
    """A line for people who wait for more than a bar can tell."""
    print(f"sweep: {text}", file=sys.stderr, flush=True)


def _tqdm(**options):
    """tqdm's bar, or None where its carriage returns would fill a log file."""
    if not (sys.stderr.isatty() or _in_notebook()):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # in a notebook without ipywidgets it warns, and shows its text bar
            from tqdm.auto import tqdm
    except ImportError:
        return None
    return tqdm(desc="sweep", dynamic_ncols=True, **options)


def _in_notebook() -> bool:
    # A cell's stderr is no terminal. Where IPython is not imported there is no notebook.
    ipython = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return ipython is not None and "IPKernelApp" in ipython.config


def _where(where) -> str:
    if not isinstance(where, Mapping):
        return where or ""
    numbers = {name: f"{v:.4g}" if isinstance(v, (float, np.floating)) else v for name, v in where.items()}
    return ", ".join(f"{name}={value}" for name, value in numbers.items())


def _clock(seconds: float) -> str:
    """A duration for people: 12 s, 3 min 05 s, 2 h 05 min."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    return f"{minutes} min {seconds:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"
