"""Run directories: everything one model leaves behind, written so that a kill loses nothing that was finished.

One file says what state a run is in: it exists when ``run.json`` does, and its model is finished when ``run.json``
names the predictor.  Both are written after all that they speak of.

::

    recipe.yaml        the resolved recipe
    run.json           schema version, versions, machine, seeds, timings, hashes, predictor
    metrics.jsonl      one line an epoch
    records/           Parquet parts
    checkpoints/       model.safetensors + config.json; the optimiser's state apart
"""

from __future__ import annotations

import json
import os
import platform
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import scipy
import torch
import yaml
from torch import nn

import hauberk
from hauberk import reading, registry, specs, unpacking
from hauberk.classifier import predictor_name, state_hash, weights_hash
from hauberk.errors import HauberkError
from hauberk.records import content_hash
from hauberk.storage import LOCK, append, atomic_write, check_own, locked, sweep

SCHEMA_VERSION = 2  # fingerprints stand beside the records
READABLE = (1, SCHEMA_VERSION)
PARTS = ("recipe.yaml", "metrics.jsonl", "records", "checkpoints")  # what a kill may leave of a run without run.json
# what run.json may hold, where others than its writer read it
INFO: Mapping[str, type] = {
    "predictor": str, "hashes": dict, "timings": dict, "environment": dict, "environments": dict, "lipschitz": dict,
    "stopped": dict,
}  # fmt: skip


def environment() -> dict[str, Any]:
    """Versions and machine, as a report needs them to be read years later."""
    return {
        "hauberk": hauberk.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


class Run:
    """One run directory; make it with ``Run.create`` or ``Run.open``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @staticmethod
    def create(
        path: Path | str, recipe: Mapping[str, Any],
        complete: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda known: known,
    ) -> Run:  # fmt: skip
        """A new run, or the same one again so that it resumes.

        What a recipe plans to measure, and expects, may change: the run is the same as long as the model is.  What
        killed processes left half done is removed.

        Args:
            path: the run directory.
            recipe: plain values.
            complete: adds to a recipe that is there already the settings that it is silent about, with their defaults.

        Raises:
            HauberkError: if the folder holds a run of another recipe, or a recipe that is no run's.
        """
        run, plain = Run(Path(path)), _plain(recipe)
        hashed = {"recipe": content_hash(plain)}
        if run._known != plain or not hashed.items() <= run.info.get("hashes", {}).items():
            with run.editing() as info:
                run._settle(plain, complete)
                if not info:
                    info.update(schema_version=SCHEMA_VERSION, environment=environment())
                info["hashes"] = info.get("hashes", {}) | hashed
        run.sweep()
        return run

    @staticmethod
    def prepare(path: Path | str, recipe: Mapping[str, Any]) -> Run:
        """As ``create``, but a new folder becomes a run no sooner than with its first ``update``."""
        run = Run(Path(path))
        with run._alone():
            run._settle(_plain(recipe), lambda known: known)
        run.sweep()
        return run

    def _settle(self, plain: dict[str, Any], complete: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> None:
        """Write the recipe if it changed; one without ``run.json`` was left by a kill, and nothing depends on it."""
        path = self._recipe_file
        if not self.info and path.exists() and not _is_ours(reading.content(path, links=False)):
            raise HauberkError(
                f"{self.path} holds a recipe.yaml but no run", "choose another folder with --out"
            )
        known = self.check(plain, complete)
        if known != plain:
            atomic_write(self._recipe_file, _yaml(plain))

    def check(
        self, recipe: Mapping[str, Any],
        complete: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda known: known,
    ) -> dict[str, Any] | None:  # fmt: skip
        """The recipe that is there, None in a folder without one; nothing is written.

        Raises:
            HauberkError: if the folder holds a run of another recipe.
        """
        if self.path.exists() and not self.path.is_dir():
            raise HauberkError(f"a run is a folder, but {self.path} is not a folder", "choose a folder with --out")
        known, plain = self._known, _plain(recipe)
        if not self.info:
            check_own(self.path, PARTS)
        if known is not None and _model_of(known) != _model_of(plain) != _model_of(complete(known)):
            how = specs.difference(_model_of(complete(known)), _model_of(plain))
            raise HauberkError(
                f"{self.path} holds a run of another recipe: {how}",
                "choose another folder with --out, or remove this one to start again",
            )
        return known

    @staticmethod
    def open(path: Path | str) -> Run:
        """An existing run.

        Raises:
            HauberkError: if there is none.
        """
        run = Run(Path(path))
        if not run._info_file.exists():
            raise HauberkError(f"{path} is not a run directory (no run.json)", "make one with: hauberk train RECIPE")
        version = run.info.get("schema_version")
        if version not in READABLE:
            raise HauberkError(
                f"{path} has schema version {version}, this Hauberk reads {SCHEMA_VERSION}", "train it again"
            )
        return run

    @property
    def records(self) -> Path:
        """Where the Parquet parts are."""
        return reading.inside(self.path, "records")

    @property
    def checkpoints(self) -> Path:
        """Where weights and training state are."""
        return reading.inside(self.path, "checkpoints")

    @property
    def recipe(self) -> dict[str, Any]:
        """The resolved recipe; one from before there was a choice of images took the first."""
        found = reading.yaml_file(self._recipe_file, links=False)
        reading.check_json(found, {"data": dict, "name": str}, self._recipe_file)
        reading.check_plan(found.get("evaluation", {}), self._recipe_file)
        plan = found.get("evaluation")
        return dict(found) | ({"evaluation": {"choice": "first"} | plan} if isinstance(plan, dict) else {})

    @property
    def _known(self) -> dict[str, Any] | None:
        return self.recipe if self.info and self._recipe_file.exists() else None

    @property
    def info(self) -> dict[str, Any]:
        """The content of ``run.json``."""
        if not self._info_file.exists():
            return {}
        found = reading.json_object(self._info_file)
        reading.check_json(found, {key: kind for key, kind in INFO.items() if key in found}, self._info_file)
        return found

    def update(self, **facts: Any) -> None:
        """Merge facts into ``run.json``, atomically."""
        with self.editing() as info:
            info.update(facts)

    @contextmanager
    def editing(self) -> Iterator[dict[str, Any]]:
        """The content of ``run.json``, which no other process changes meanwhile; what changed is written at the end."""
        with self._alone():
            info, before = self.info, self.info
            yield info
            if info != before:
                atomic_write(self._info_file, json.dumps(info, indent=2, sort_keys=True).encode())

    def training(self) -> AbstractContextManager[None]:
        """Keep other processes from training in this folder.

        Raises:
            HauberkError: if one does.
        """
        return locked(self.checkpoints / LOCK, f"is training in {self.path}")

    def abandon(self) -> None:
        """Take a new run back in which nothing was trained, so that it does not stand in the way of another recipe."""
        with suppress(HauberkError), self.training():
            trained = any(path.name != ".lock" for path in self.checkpoints.iterdir())
            if not (trained or self._metrics_file.exists() or self.records.exists()):
                self._recipe_file.unlink(missing_ok=True)
                self._info_file.unlink(missing_ok=True)
        with suppress(OSError):  # what else is there stays
            self.checkpoints.rmdir()
            self.path.rmdir()

    def sweep(self) -> None:
        """Remove the temporary and lock files of killed processes."""
        for folder in (self.path, self.records, self.checkpoints):
            sweep(folder)

    def log(self, row: Mapping[str, Any]) -> None:
        """Append one line to ``metrics.jsonl``.

        Raises:
            HauberkError: if it cannot be written.
        """
        append(self._metrics_file, (json.dumps(dict(row)) + "\n").encode())

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of ``metrics.jsonl``; a last line cut short by a kill is left out."""
        if not self._metrics_file.exists():
            return []
        rows = []
        for line in reading.content(self._metrics_file, links=False).decode(errors="replace").splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                break
            if not isinstance(row, dict):
                break
            rows.append(row)
        return rows

    def keep_metrics(self, rows: list[dict[str, Any]]) -> None:
        """Replace ``metrics.jsonl``, atomically (a resumed run drops what came after its checkpoint)."""
        atomic_write(self._metrics_file, "".join(json.dumps(row) + "\n" for row in rows).encode())

    # --- the model ------------------------------------------------------------------------------------------

    @property
    def has_model(self) -> bool:
        """Whether training (or mixing) has finished, and the weights are here: a bundle has none."""
        return "predictor" in self.info and self._config_file.exists()

    def save_model(self, model: nn.Module, facts: Mapping[str, Any], **more: Any) -> None:
        """Write the weights, ``config.json``, and at last the predictor in ``run.json``, which marks a whole model.

        Args:
            model: built by a registered builder.
            facts: what a user of the model needs, for example class names and the dataset.
            more: facts for ``run.json``, written in the same step.
        """
        weights = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
        config = {
            "schema_version": SCHEMA_VERSION,
            "spec": registry.spec(model),
            "weights": weights_hash(model),
            "facts": dict(facts),
        }
        with self.editing() as info:
            atomic_write(self.checkpoints / "model.safetensors", safetensors.torch.save(weights))
            atomic_write(self._config_file, json.dumps(config, indent=2).encode())
            hashed = {"weights": config["weights"], "config": content_hash(_plain(config))}
            hashes = info.get("hashes", {}) | hashed
            info.update(more, hashes=hashes, predictor=predictor_name(model))

    @property
    def model_config(self) -> dict[str, Any]:
        """The content of ``config.json``.

        Raises:
            HauberkError: if there is no finished model.
        """
        if not self.has_model:
            raise HauberkError(
                f"{self.path} has no finished model",
                f"finish it with: {shlex.join(['hauberk', 'train', str(self._recipe_file), '-o', str(self.path)])}",
            )
        found = reading.json_object(self._config_file)
        reading.check_json(found, {"spec": dict, "weights": str, "facts": dict}, self._config_file)
        return found

    def load_model(self) -> nn.Module:
        """The model in eval mode.

        Raises:
            HauberkError: if the checkpoint is missing, truncated, foreign or changed since it was written.
        """
        config = self.model_config
        registry.check(config["spec"])  # as data, before the weights are read; nothing is built
        if "run" in _names(config["spec"]):
            raise HauberkError(f"{self.path}: a saved model names another run", "restore its config.json")
        path = reading.inside(self.checkpoints, "model.safetensors")
        try:
            unpacking.check_safetensors(path)
            weights = safetensors.torch.load_file(path)
        except (OSError, safetensors.SafetensorError) as error:
            raise HauberkError(f"{path} is truncated or not a safetensors file", "train the model again") from error
        if state_hash(weights) != config["weights"]:
            raise HauberkError(f"{path} has changed since it was written", "restore it or train the model again")
        model: nn.Module = registry.build(config["spec"])
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            raise HauberkError(
                f"{path} does not fit the model of config.json", "restore both files from one run"
            ) from error
        if weights_hash(model) != config["weights"]:
            raise HauberkError(f"{path} has changed since it was written", "restore it or train the model again")
        return model.eval()

    @property
    def _recipe_file(self) -> Path:
        return reading.inside(self.path, "recipe.yaml")

    @property
    def _info_file(self) -> Path:
        return reading.inside(self.path, "run.json")

    @property
    def _metrics_file(self) -> Path:
        return reading.inside(self.path, "metrics.jsonl")

    @property
    def _config_file(self) -> Path:
        return reading.inside(self.checkpoints, "config.json")

    def _alone(self) -> AbstractContextManager[None]:
        """Keep other processes from reading and writing ``run.json`` and the recipe while this one does both."""
        return locked(self.path / LOCK)


def saved(path: str) -> nn.Module:
    """The model of a run directory, to go on with: a base of a mix, or the start of another training.

    Its spec is the model's own, so what is built with it can be loaded where the directory is not.
    """
    return Run.open(path).load_model()


def _model_of(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe without what is said about it and measured on it."""
    return {key: value for key, value in recipe.items() if key not in ("summary", "evaluation", "expected")}


def _plain(recipe: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(dict(recipe)))
    return found


def _yaml(recipe: Any) -> bytes:
    return yaml.safe_dump(recipe, sort_keys=False).encode()


def _is_ours(content: bytes) -> bool:
    """Whether a recipe is written as a run writes it, and not by a person."""
    try:
        return content == _yaml(reading.yaml_value(content.decode(), "recipe.yaml"))
    except (HauberkError, UnicodeDecodeError):
        return False


def _names(spec: Any) -> set[str]:
    """The names of a description and of all that is in it."""
    inner = spec.values() if isinstance(spec, dict) else spec if isinstance(spec, list) else ()
    own = {str(spec["name"])} if isinstance(spec, dict) and "name" in spec else set()
    return own.union(*map(_names, inner))
