"""How far a call has come: a line for what takes long, and the bar of a sweep."""

import contextlib
import contextvars
import math
import os
import shutil
import sys
import threading
import time
import warnings
from collections.abc import Mapping

import jax
import numpy as np

PATIENCE = 2.0  # seconds before a call that was not asked to says what it does
_SECONDS_BETWEEN_LINES = 1.0
_TICK = 0.25  # seconds between two looks at whether there is something to say
_LOWERED = "/jax/core/compile/jaxpr_to_mlir_module_duration"

_lock = threading.Lock()  # held while any of the three below, or what is shown, changes
_active: list["Progress"] = []  # the outermost calls of all threads that may show a line; the first one does
_watcher: threading.Thread | None = None
_listening = False
_compiling: dict[int, str] = {}  # thread -> the program that it compiles
_inside = contextvars.ContextVar("jaxreg_progress", default=False)


class Progress:
    """A line that says what a call is doing, once that takes longer than two seconds, and goes when it ends.

    It shows on a terminal and in a notebook: "path: solving, 30/100 strengths, 12 s". While JAX compiles, the line
    names the program; the caller need not know. Elsewhere, inside another call that has one, and with
    `JAXREG_PROGRESS=0` in the environment, it shows nothing. Of calls in several threads one at a time is shown.

    Args:
        call: the name of the call.
        total: how many there are to do, if that is known.
        unit: what is counted.
        shown: False shows nothing, of the calls inside either.

    >>> with Progress("path", total=100, unit="strength") as progress:
    ...     progress("solving")
    ...     progress(done=30)
    """

    def __init__(self, call: str, total: int | None = None, unit: str = "step", *, shown: bool = True):
        self._call, self._total, self._unit, self._shown = call, total, unit, shown
        self._phase, self._done, self._start = "", None, time.perf_counter()
        self._line, self._handle = "", None  # what is shown now; of a notebook, its output

    def __call__(self, phase: str | None = None, done: int | None = None) -> None:
        """Note what is being done from now on, and how many are done; what is None stays as it was."""
        _compiling.pop(threading.get_ident(), None)  # this thread does not compile while it is here
        self._phase = self._phase if phase is None else phase
        self._done = self._done if done is None else done

    @property
    def late(self) -> bool:
        """Whether its line shows, or is about to."""
        return self in _active and time.perf_counter() - self._start >= PATIENCE

    def stop(self) -> None:
        """Take the line away, and show nothing from now on."""
        with _lock:
            if self in _active:
                _active.remove(self)
            if self._line:
                self._show("")

    def __enter__(self) -> "Progress":
        outermost = not _inside.get()
        self._token = _inside.set(True)
        if self._shown and outermost and os.environ.get("JAXREG_PROGRESS") != "0" and _watched():
            with _lock:
                _active.append(self)
                _watch()
        return self

    def __exit__(self, *_) -> None:
        _inside.reset(self._token)
        self.stop()

    def _text(self) -> str:
        parts = [self._phase] if self._phase else []
        if names := ", ".join(dict.fromkeys(_compiling.copy().values())):
            parts.append(f"compiling {names}")
        if self._done is not None:
            parts.append(f"{self._done}{'' if self._total is None else f'/{self._total}'} {self._unit}s")
        return f"{self._call}: {', '.join([*parts, _clock(time.perf_counter() - self._start)])}"

    def _show(self, text: str) -> None:
        """Put `text` in the place of the line; "" leaves none."""
        if text == self._line:
            return
        with contextlib.suppress(OSError, ValueError):  # whoever watched has gone, or has no such letters
            if _in_notebook():
                data = {"text/plain": text}
                if self._handle is None:
                    self._handle = sys.modules["IPython.display"].display(data, raw=True, display_id=True)
                else:
                    self._handle.update(data, raw=True)
            else:
                text = text[: shutil.get_terminal_size().columns - 1]  # a line that is broken cannot be taken back
                back = "" if text else "\r"
                print(f"\r{text.ljust(len(self._line))}{back}", end="", file=sys.stderr, flush=True)
        self._line = text


def _watch() -> None:
    """Start the thread that shows lines, unless it runs: a compiler does not come back to say how far it is."""
    global _watcher, _listening
    if not _listening:
        jax.monitoring.register_event_duration_secs_listener(_listen)
        _listening = True
    if _watcher is None or not _watcher.is_alive():  # after a fork it is not
        _watcher = threading.Thread(target=_watching, name="jaxreg progress", daemon=True)
        _watcher.start()


def _watching() -> None:
    """Show lines while calls are running. It ends soon after the last of them."""
    global _watcher
    while True:
        time.sleep(_TICK)
        with _lock:
            if not _active:
                _watcher = None
                return
            if _active[0].late:
                _active[0]._show(_active[0]._text())


def _listen(event: str, _: float, *, fun_name: str = "", **__) -> None:
    """JAX tells of the ends of tracing, lowering and compiling: a program is compiled after the second of them."""
    if event == _LOWERED:
        _compiling[threading.get_ident()] = fun_name.removeprefix("jit(").removesuffix(")").strip("_")
    elif event.startswith("/jax/core/compile/"):
        _compiling.pop(threading.get_ident(), None)


class Bar:
    """A bar in a terminal and in a notebook (tqdm's); plain lines on stderr where it is a file, or tqdm is missing.

    Args:
        total: how many there are to make.
        show: whether to show anything; a name is the metric whose least value so far is shown with it. None is the bar
            in the place of the line of `progress`, as soon as that shows; without tqdm it is the line that goes on.
        unit: what is made.
        done: how many were made earlier; they do not count in the rate.
        progress: of the call that it belongs to.
    """

    def __init__(
        self, total: int, show: bool | str | None, unit: str = "model", done: int = 0, progress: Progress | None = None
    ):
        self._total, self._show, self._unit, self._first = total, show, unit, done
        self._progress = progress if show is None else None
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
        if self._progress is not None and self._progress.late:
            self._tqdm = _tqdm(total=self._total, initial=self._done - count, unit=self._unit)
            if self._tqdm is not None:
                self._progress.stop()
        if self._tqdm is not None:
            self._tqdm.set_postfix_str(self._extra(), refresh=False)
            self._tqdm.update(count)
        elif self._progress is not None:
            self._progress(self._text())
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
        tell(self._text())

    def _text(self) -> str:
        now = time.perf_counter()
        made, seconds = self._done - self._first, now - self._start
        speed = made, seconds
        if self._begun is not None and self._done > self._begun[0]:  # without the first, which was compiled for,
            since = self._done - self._begun[0], now - self._begun[1]
            speed = since if since[1] > seconds / 10 else speed  # unless the rest ran beside it
        parts = [f"{self._done}/{self._total} {self._unit}s"]
        if self._done >= self._total > 0 < made or self._begun is not None:
            rate, left = speed[0] / speed[1], self._total - self._done
            parts.append(f"{rate:.3g} {self._unit}s/s")
            parts.append(f"{_clock(left / rate)} left" if left > 0 else f"took {_clock(seconds)}")
        extra = self._extra()
        return f"{', '.join(parts)}{'; ' * bool(extra)}{extra}"

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
    if not _watched():
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # in a notebook without ipywidgets it warns, and shows its text bar
            from tqdm.auto import tqdm
    except ImportError:
        return None
    return tqdm(desc="sweep", dynamic_ncols=True, **options)


def _watched() -> bool:
    """Whether there is a terminal or a notebook."""
    try:
        return sys.stderr.isatty() or _in_notebook()
    except (AttributeError, ValueError):  # there is no stderr, or it is closed
        return _in_notebook()


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
